package ui

import (
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tfguard/tfguard/internal/event"
)

// JSON prints a run as one JSON object a line, for programs (--json).
type JSON struct {
	mu   sync.Mutex
	w    io.Writer // nil once nobody reads it any more
	run  string
	now  func() time.Time
	over bool
}

var _ event.Sink = (*JSON)(nil)

// NewJSON prints to o.Out. Events of type output are text for people and left out.
func NewJSON(o Options) *JSON {
	j := &JSON{w: o.Out, run: o.Run, now: o.Now}
	if j.now == nil {
		j.now = time.Now
	}
	return j
}

// Emit prints e in one write. Nothing follows run_finished. The first write that
// fails is the last one tried: a reader that went away does not stop the run.
func (j *JSON) Emit(e event.Event) {
	if _, ok := e.(event.Output); ok {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over || j.w == nil {
		return
	}
	end, last := e.(event.RunFinished)
	line, err := event.Encode(j.run, j.now(), e)
	if err != nil {
		// A number that JSON does not have, such as NaN.
		if last {
			end.Seconds = 0
			e = end
		} else {
			e = event.Diagnostic{Severity: "warning", Summary: err.Error()}
		}
		if line, err = event.Encode(j.run, j.now(), e); err != nil {
			return
		}
	}
	line = cutStrings(line, maxText)
	j.over = last
	if _, err := j.w.Write(line); err != nil {
		j.w = nil
	}
}

// cutStrings shortens every string of a JSON document that takes more than max
// bytes, so that a reader can hold a line.
func cutStrings(doc []byte, max int) []byte {
	if len(doc) <= max {
		return doc
	}
	out := make([]byte, 0, len(doc))
	start := -1 // of the string, or outside of one
	for i := 0; i < len(doc); {
		n := 1 // bytes of the next character, escapes included
		switch c := doc[i]; {
		case c == '"' && start < 0:
			start = i
		case c == '"':
			if i-start-1 > max {
				out = append(out, "…"...)
			}
			start = -1
		case c == '\\' && doc[i+1] == 'u':
			n = len(`\u0000`)
		case c == '\\':
			n = 2
		case c >= utf8.RuneSelf:
			_, n = utf8.DecodeRune(doc[i:])
		}
		if start < 0 || i-start-1+n <= max {
			out = append(out, doc[i:i+n]...)
		}
		i += n
	}
	return out
}
