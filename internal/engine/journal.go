package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tfguard/tfguard/internal/event"
)

// Journal is the run's events on disk, a line each: the stream that --json
// prints. It is an event.Sink.
type Journal struct {
	run  string
	now  func() time.Time
	ring func() // tells a reader that waits; must not block

	mu      sync.Mutex
	file    *os.File
	failed  error // of the last write
	torn    bool  // the last line was written in part
	outputs int64 // bytes of text for people that may still come
}

func (r *Run) events() string { return filepath.Join(r.Dir, "events.ndjson") }

// Journal opens the run's journal for writing. ring may be nil.
func (r *Run) Journal(ring func()) (*Journal, error) {
	f, err := os.OpenFile(r.events(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the run's journal: %w", err)
	}
	if ring == nil {
		ring = func() {}
	}
	return &Journal{run: r.ID, now: time.Now, ring: ring, file: f, outputs: maxOutputs}, nil
}

// maxOutputs bounds the text of terraform and hooks in a journal, in bytes.
const maxOutputs = 128 << 20

// Emit implements event.Sink. What cannot be written, on a full disk, is lost:
// the run goes on.
func (j *Journal) Emit(e event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if out, ok := e.(event.Output); ok {
		if j.outputs < 0 {
			return
		}
		if j.outputs -= int64(len(out.Text)); j.outputs < 0 {
			e = event.Output{Source: out.Source, Text: "… there is more than can be shown; the run's terraform.log goes on"}
		}
	}
	line, err := event.Encode(j.run, j.now(), e)
	if err != nil {
		return
	}
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := j.file.Write(line)
	j.failed, j.torn = err, err != nil && (j.torn || n > 0)
	j.ring()
}

// Err is the error of the last event, nil where it was written.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }

// maxLine bounds a line of a journal; the longest are a plan's text.
const maxLine = 8 << 20

// ErrDied: the engine is gone and left no result.
var ErrDied = errors.New("the run's engine ended without a result")

// Follow gives the run's events to see, from the first, until run_finished. more
// waits until there may be more, and reports whether there can be. Where it says
// no and the journal has no end, the run's result is its last event, and without
// one Follow returns ErrDied.
func (r *Run) Follow(ctx context.Context, more func(context.Context) bool, see func(event.Event)) error {
	f, err := os.OpenFile(r.events(), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the run's journal: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	var line []byte
	for last := false; ; {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			if _, e, bad := event.Decode(line); bad == nil && e != nil {
				see(e)
				if _, finished := e.(event.RunFinished); finished {
					return nil
				}
			}
			line = line[:0]
			continue
		case errors.Is(err, bufio.ErrBufferFull) && len(line) < maxLine:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			line = line[:0] // its rest cannot be decoded and is passed over
			continue
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("read the run's journal: %w", err)
		}
		if last {
			end, ok := r.Result()
			if !ok {
				return ErrDied
			}
			see(end.RunFinished)
			return nil
		}
		last = !more(ctx) // what was written before the end is read once more
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Result is what a run came to, as it stays in result.json.
type Result struct {
	event.RunFinished
	Applied float64 `json:"apply_seconds,omitempty"` // what the apply stage took, where it went well
}

// Result reads what the run came to; ok is false where it has left no result.
func (r *Run) Result() (end Result, ok bool) {
	line, err := os.ReadFile(r.resultFile())
	if err != nil {
		return end, false
	}
	var head event.Header
	if json.Unmarshal(line, &head) != nil || head.Type != end.Type() || json.Unmarshal(line, &end) != nil {
		return Result{}, false
	}
	return end, true
}

// WriteResult keeps what the run came to.
func (r *Run) WriteResult(end Result) error {
	line, err := event.Encode(r.ID, time.Now(), end)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.resultFile(), line, 0o600); err != nil {
		return fmt.Errorf("write the run's result: %w", err)
	}
	return nil
}

func (r *Run) resultFile() string { return filepath.Join(r.Dir, "result.json") }
