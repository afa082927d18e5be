// Package event is what a run tells while it goes on: the JSON lines that
// --json prints, one object a line, and that every printer is fed with.
//
// Each line carries type, time and run; the other names are those of the
// struct's tags. A reader ignores types and names that it does not know.
package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode"

	"github.com/tfguard/tfguard/internal/lock"
)

// Event is one thing that happened in a run.
type Event interface {
	// Type is the value of the line's "type".
	Type() string
}

// Sink takes events in the order in which they happened. Emit is safe for
// concurrent use and never fails: a run does not stop because nobody can hear.
type Sink interface {
	Emit(Event)
}

// Status of a stage.
const (
	OK        = "ok"
	Failed    = "failed"
	Skipped   = "skipped"
	Cancelled = "cancelled"
)

// Status of a run beside OK, Failed and Cancelled.
const (
	NoChanges = "no_changes"
	Blocked   = "blocked"
)

// RunStarted is the first event of a run.
type RunStarted struct {
	Command   string `json:"command"`
	Version   string `json:"version"`
	Directory string `json:"directory"`
}

// StageStarted says that a stage begins.
type StageStarted struct {
	Stage string `json:"stage"`
}

// StageFinished says how a stage ended. Note is a short text for people: what
// was found, or why the stage was skipped.
type StageFinished struct {
	Stage   string  `json:"stage"`
	Status  string  `json:"status"`
	Seconds float64 `json:"seconds"`
	Note    string  `json:"note,omitempty"`
}

// Lock is a verdict on a state's lock, with the fields of `locks --json`.
type Lock struct {
	lock.Report
}

// Plan is what terraform planned. A replacement counts in Add, Destroy and
// Replace, as in terraform's own summary line.
type Plan struct {
	Add       int      `json:"add"`
	Change    int      `json:"change"`
	Destroy   int      `json:"destroy"`
	Replace   int      `json:"replace"`
	Changed   bool     `json:"has_changes"` // also true where only outputs change
	Addresses []Change `json:"addresses"`
}

// Change is what a plan does to one resource. Action is create, update,
// delete, replace, read, move, import, forget or no-op, in terraform's words.
type Change struct {
	Address string `json:"address"`
	Action  string `json:"action"`
}

// Resource is the progress of one resource during apply. Phase is started,
// done or failed; Seconds is how long it took, 0 for started.
type Resource struct {
	Address string  `json:"address"`
	Action  string  `json:"action"`
	Phase   string  `json:"phase"`
	Seconds float64 `json:"seconds"`
}

// Snapshot says that a verified copy of the state exists.
type Snapshot struct {
	ID      string `json:"id"`
	Key     string `json:"key"`
	Serial  uint64 `json:"serial"`
	Lineage string `json:"lineage"`
	SHA256  string `json:"sha256"`
}

// Diagnostic is an error or a warning, terraform's or tfguard's own. File is
// relative to the configuration's directory; Line counts from 1, 0 is unknown.
type Diagnostic struct {
	Severity string `json:"severity"` // error or warning
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	Address  string `json:"address,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Snippet  string `json:"snippet,omitempty"`
	Hint     string `json:"hint,omitempty"` // the next command to type
}

// ApprovalNeeded says that the run waits for, or ended for want of, a person.
type ApprovalNeeded struct {
	What    string   `json:"what"` // "apply" or "unlock"
	LockIDs []string `json:"lock_ids,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}

// Output is text of terraform or a hook, for people. It is not among the
// lines of --json; Source is the stage that it comes from.
type Output struct {
	Source string `json:"source"`
	Text   string `json:"text"`
	Detail bool   `json:"verbose,omitempty"` // of interest with --verbose alone
}

// Question is put to the person in the foreground of a run that goes on in a
// process of its own. It is not among the lines of --json.
type Question struct {
	Text string `json:"text"`
}

// Later stands where an event belongs that is still being made. Make waits for
// it, and gives nil where nothing came of it. A sink that keeps the order holds
// back what follows; others have no use for it.
type Later struct{ Make func() Event }

// RunFinished is the last event of a run, always. Error and Hint say why it
// failed and what to type next.
type RunFinished struct {
	Status   string  `json:"status"`
	ExitCode int     `json:"exit_code"`
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
	Hint     string  `json:"hint,omitempty"`
}

// Type implements [Event].
func (RunStarted) Type() string     { return "run_started" }
func (StageStarted) Type() string   { return "stage_started" }
func (StageFinished) Type() string  { return "stage_finished" }
func (Lock) Type() string           { return "lock" }
func (Plan) Type() string           { return "plan" }
func (Resource) Type() string       { return "resource" }
func (Snapshot) Type() string       { return "snapshot" }
func (Diagnostic) Type() string     { return "diagnostic" }
func (ApprovalNeeded) Type() string { return "approval_needed" }
func (Output) Type() string         { return "output" }
func (Question) Type() string       { return "question" }
func (Later) Type() string          { return "later" }
func (RunFinished) Type() string    { return "run_finished" }

// Header is what every line starts with.
type Header struct {
	Type string    `json:"type"`
	Time time.Time `json:"time"` // UTC, RFC 3339
	Run  string    `json:"run"`
}

// Encode gives the line of e, with its newline, made safe by [SafeJSON].
func Encode(run string, at time.Time, e Event) ([]byte, error) {
	head, err := json.Marshal(Header{Type: e.Type(), Time: at.UTC(), Run: run})
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode %s event: %w", e.Type(), err)
	}
	line := head
	if len(body) > len("{}") {
		line = append(append(head[:len(head)-1], ','), body[1:]...)
	}
	return append(SafeJSON(line), '\n'), nil
}

// SafeJSON rewrites JSON so that a terminal and a CI runner take it for text:
// no "##[" is in it, which a GitHub runner takes for a command anywhere in a
// line, and what moves a cursor or turns the reading direction is escaped. The
// value stays the same, since JSON has such characters inside strings alone.
func SafeJSON(doc []byte) []byte {
	doc = bytes.ReplaceAll(doc, []byte("##["), []byte(`#\u0023[`))
	special := func(r rune) bool {
		return r >= 0x7f && r <= 0x9f || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}
	if bytes.IndexFunc(doc, special) < 0 {
		return doc
	}
	var out bytes.Buffer
	for _, r := range string(doc) {
		if special(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.Bytes()
}

// Decode reads a line that Encode wrote. An unknown type gives a nil Event
// and no error.
func Decode(line []byte) (Header, Event, error) {
	var h Header
	if err := json.Unmarshal(line, &h); err != nil {
		return h, nil, fmt.Errorf("decode event: %w", err)
	}
	switch h.Type {
	case "run_started":
		return decode[RunStarted](h, line)
	case "stage_started":
		return decode[StageStarted](h, line)
	case "stage_finished":
		return decode[StageFinished](h, line)
	case "lock":
		return decode[Lock](h, line)
	case "plan":
		return decode[Plan](h, line)
	case "resource":
		return decode[Resource](h, line)
	case "snapshot":
		return decode[Snapshot](h, line)
	case "diagnostic":
		return decode[Diagnostic](h, line)
	case "approval_needed":
		return decode[ApprovalNeeded](h, line)
	case "output":
		return decode[Output](h, line)
	case "question":
		return decode[Question](h, line)
	case "run_finished":
		return decode[RunFinished](h, line)
	}
	return h, nil, nil
}

func decode[E Event](h Header, line []byte) (Header, Event, error) {
	var e E
	if err := json.Unmarshal(line, &e); err != nil {
		return h, nil, fmt.Errorf("decode %s event: %w", h.Type, err)
	}
	return h, e, nil
}
