package terraform

import (
	"bytes"
	"cmp"
	"encoding/json"
	"sync"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

// Bounds on what is kept of terraform's output.
const (
	maxLine      = 1 << 20  // bytes of one line; what follows is dropped
	maxStderr    = 64 << 10 // bytes of stderr kept for the failure
	maxText      = 4 << 20  // bytes of the text of a plan
	maxJSON      = 16 << 20 // bytes of validate's answer
	maxAddresses = 100_000  // changes listed of a plan; more are counted
	maxFiles     = 1000     // unformatted files listed
	maxOutputs   = 200      // output values shown after an apply
	maxSeen      = 2000     // diagnostics remembered as shown
)

// Bounds on texts, in runes.
const (
	maxSummary = 500
	maxDetail  = 16_000
	maxSnippet = 2000
	maxAddress = 1000
	maxMessage = 4000
)

// lines splits what is written into lines and hands each to handle, which is
// not called concurrently. A line longer than maxLine is cut.
type lines struct {
	mu     sync.Mutex
	buf    []byte
	cut    bool
	handle func(line []byte, cut bool)
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		room := maxLine - len(l.buf)
		l.cut = l.cut || len(part) > room
		l.buf = append(l.buf, part[:min(room, len(part))]...)
		if ended {
			l.end()
		}
		p = rest
	}
	return n, nil
}

// flush hands over a last line that has no newline.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > 0 {
		l.end()
	}
}

func (l *lines) end() {
	l.handle(bytes.TrimRight(l.buf, "\r"), l.cut)
	l.buf, l.cut = l.buf[:0], false
}

// message is a line of `plan -json` and `apply -json`, as far as it is used
// (terraform internal/command/views/json).
type message struct {
	Message    string          `json:"@message"`
	Type       string          `json:"type"`
	Terraform  string          `json:"terraform"` // its version, where that is the type
	Tofu       string          `json:"tofu"`      // the same
	Diagnostic *jsonDiagnostic `json:"diagnostic"`
	Change     *struct {
		Resource resource `json:"resource"`
		Action   string   `json:"action"`
	} `json:"change"`
	Hook *struct {
		Resource resource `json:"resource"`
		Action   string   `json:"action"`
		Elapsed  float64  `json:"elapsed_seconds"`
	} `json:"hook"`
	Changes *struct {
		Add    int `json:"add"`
		Change int `json:"change"`
		Remove int `json:"remove"`
	} `json:"changes"`
	Outputs map[string]struct {
		Sensitive bool            `json:"sensitive"`
		Value     json.RawMessage `json:"value"`
	} `json:"outputs"`
}

type resource struct {
	Addr string `json:"addr"`
}

func (r resource) address() string { return quote.Line(r.Addr, maxAddress) }

// messages reads a JSON stream: each message goes to handle, a diagnostic is
// collected and emitted, and what is no message becomes text for --verbose.
func (t *Terraform) messages(source string, diags *diagnostics, handle func(message)) *lines {
	return &lines{handle: func(line []byte, cut bool) {
		var m message
		switch {
		case len(bytes.TrimSpace(line)) == 0:
		case cut || json.Unmarshal(line, &m) != nil || m.Type == "":
			t.say(source, string(line), true)
		case m.Type == "version":
			t.learn(cmp.Or(m.Terraform, m.Tofu))
			handle(m)
		case m.Diagnostic != nil:
			diags.add(m.Diagnostic.event())
		default:
			handle(m)
		}
	}}
}

// say emits text for people.
func (t *Terraform) say(source, text string, detail bool) {
	t.sink.Emit(event.Output{Source: source, Text: quote.Text(text, maxMessage), Detail: detail})
}

// emit emits a diagnostic, once in a run: validate, plan and apply repeat the
// same warnings.
func (t *Terraform) emit(d event.Diagnostic) {
	if t.seen.first(d) {
		t.sink.Emit(d)
	}
}

// action gives the contract's word for terraform's
// (terraform internal/command/views/json/change.go).
func action(word string) string {
	switch word {
	case "noop", "":
		return "no-op"
	case "remove":
		return "forget"
	}
	return quote.Line(word, 32)
}
