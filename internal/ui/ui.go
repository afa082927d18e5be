// Package ui shows a run and its results: as text for people, as JSON lines for
// programs. Every printer of a run is an [event.Sink].
//
// What it is given was written by others: lock records, plans, logs. All of it
// passes package quote before it is printed, so that nothing in it moves a
// cursor or runs a workflow command. A printer never fails a run: what cannot be
// written is dropped.
package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tfguard/tfguard/internal/quote"
)

// Options of the printers. Out and Err are required; the rest has a usable zero.
type Options struct {
	Out io.Writer // results
	Err io.Writer // progress, diagnostics and errors

	Color   bool
	Verbose bool // also the output that is of interest in detail
	Quiet   bool // only errors, diagnostics and the final result

	// GitHub is set where a GitHub Actions runner reads Out and Err: text is made
	// safe for it, groups and annotations are written, and everything goes to Out,
	// since the runner reads its two pipes out of order.
	GitHub bool
	// Dir is the configuration's directory relative to the repository's root, with
	// slashes, "." for the root itself; annotations name their files below it, and
	// none where it lies outside.
	Dir string

	Run string           // the run's id, in every JSON line
	Now func() time.Time // the time of JSON lines; nil is time.Now
}

// Bounds of what is printed, in characters. A longer text is cut and ends in "…".
const (
	maxNote = 100       // of a stage: what it says in full is in the error
	maxName = 256       // names, IDs
	maxLine = 64 << 10  // one line of terraform's output
	maxText = 128 << 10 // a diagnostic's detail
)

// Errors prints what ended the program, in the words of every tfguard message:
// "tfguard: error: …", then "tfguard: hint: …" with the next command to type. An
// empty hint is left out.
func Errors(w io.Writer, msg, hint string) {
	text := "tfguard: error: " + indent(quote.Text(msg, maxText), "  ") + "\n"
	if hint != "" {
		text += "tfguard: hint: " + indent(quote.Text(hint, maxText), "  ") + "\n"
	}
	io.WriteString(w, quote.Runner(text))
}

// Writer makes any text safe for a GitHub runner on its way to w, however it is
// cut into pieces: output of hooks, of libraries that print by themselves. It
// is safe for concurrent use.
func Writer(w io.Writer) io.Writer { return &runnerWriter{w: w} }

type runnerWriter struct {
	mu    sync.Mutex
	w     io.Writer
	state quote.RunnerState
}

func (r *runnerWriter) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.w.Write(r.state.Next(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// paint colours text for a terminal, or leaves it.
type paint bool

func (p paint) sgr(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) red(s string) string    { return p.sgr("31", s) }
func (p paint) green(s string) string  { return p.sgr("32", s) }
func (p paint) yellow(s string) string { return p.sgr("33", s) }
func (p paint) bold(s string) string   { return p.sgr("1", s) }
func (p paint) dim(s string) string    { return p.sgr("2", s) }

// indent puts prefix before each line but the first.
func indent(s, prefix string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+prefix)
}

// pad fills s with spaces up to width characters.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// seconds is a duration as people read it: "0.8s", "1m05s", "2h10m".
func seconds(s float64) string {
	d := time.Duration(max(s, 0) * float64(time.Second)).Round(100 * time.Millisecond)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}
