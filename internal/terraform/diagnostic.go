package terraform

import (
	"errors"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

// jsonDiagnostic is a diagnostic as terraform prints it in JSON
// (terraform internal/command/views/json/diagnostic.go).
type jsonDiagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	Address  string `json:"address"`
	Range    *struct {
		Filename string `json:"filename"`
		Start    struct {
			Line int `json:"line"`
		} `json:"start"`
	} `json:"range"`
	Snippet *struct {
		Context *string `json:"context"`
		Code    string  `json:"code"`
	} `json:"snippet"`
}

func (j jsonDiagnostic) event() event.Diagnostic {
	d := event.Diagnostic{
		Severity: "error",
		Summary:  quote.Line(j.Summary, maxSummary),
		Detail:   quote.Text(j.Detail, maxDetail),
		Address:  quote.Line(j.Address, maxAddress),
	}
	if j.Severity == "warning" {
		d.Severity = "warning"
	}
	if j.Range != nil {
		d.File = quote.Line(filepath.ToSlash(j.Range.Filename), maxAddress)
		d.Line = max(j.Range.Start.Line, 0)
	}
	if j.Snippet != nil {
		d.Snippet = quote.Text(j.Snippet.Code, maxSnippet)
	}
	return d
}

// mark is something that a diagnostic says about the lock or the state.
type mark int

const (
	markHeld        mark = 1 << iota // somebody holds the lock
	markNotReleased                  // our lock is left
	markStale                        // the plan is for another state
	markNotSaved                     // the state is in errored.tfstate, or lost
)

const (
	acquireFailed = "Error acquiring the state lock"
	lockInfo      = "Lock Info:"
)

// marksOf reads terraform's own words (terraform internal/command/clistate,
// internal/backend/local/backend_apply.go, internal/command/meta_backend.go).
// "Error acquiring the state lock" wraps any failure of the write, a denied
// permission included: only with Lock Info is it contention.
func marksOf(d event.Diagnostic) mark {
	if d.Severity != "error" {
		return 0
	}
	switch {
	case d.Summary == acquireFailed && strings.Contains(d.Detail, lockInfo):
		return markHeld
	case d.Summary == "Error releasing the state lock":
		return markNotReleased
	case d.Summary == "Saved plan is stale":
		return markStale
	case d.Summary == "Failed to save state", d.Summary == "Failed to persist state to backend",
		d.Summary == "Failed to serialize state", d.Summary == "Failed to create local state file",
		strings.Contains(d.Detail, `"errored.tfstate"`):
		return markNotSaved
	}
	return 0
}

// maxKept bounds the diagnostics of each severity that a failure keeps. Those
// with a mark are kept besides: terraform says them last.
const maxKept = 200

// diagnostics collects what one command says and passes it on, but for who holds
// the lock: that waits for told, since it may be the command itself.
type diagnostics struct {
	emit func(event.Diagnostic)

	mu       sync.Mutex
	errors   []event.Diagnostic
	warnings []event.Diagnostic
	marked   []event.Diagnostic
	marks    mark
	failed   bool // whether there was any error
}

func (c *diagnostics) add(d event.Diagnostic) {
	c.mu.Lock()
	m := marksOf(d)
	c.marks |= m
	c.failed = c.failed || d.Severity == "error"
	switch {
	case d.Severity != "error" && len(c.warnings) < maxKept:
		c.warnings = append(c.warnings, d)
	case d.Severity == "error" && len(c.errors) < maxKept:
		c.errors = append(c.errors, d)
	case m != 0 && len(c.marked) < maxKept:
		c.marked = append(c.marked, d)
	}
	c.mu.Unlock()
	if m&markHeld == 0 {
		c.emit(d)
	}
}

// told passes on who holds the lock, if anybody but the command itself does.
func (c *diagnostics) told(err error) {
	var f *Failure
	if errors.As(err, &f) && f.own != "" {
		return
	}
	all, _ := c.list()
	for _, d := range all {
		if marksOf(d)&markHeld != 0 {
			c.emit(d)
		}
	}
}

// list gives the errors, then the warnings.
func (c *diagnostics) list() ([]event.Diagnostic, mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append(append([]event.Diagnostic{}, c.errors...), c.marked...)
	return append(all, c.warnings...), c.marks
}

func (c *diagnostics) hasErrors() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

var (
	ansi      = regexp.MustCompile("\x1b\\[[0-9;]*m")
	textRange = regexp.MustCompile(`^ *on (.+) line ([0-9]+)(?:, in .*)?:$`)
	textWith  = regexp.MustCompile(`^ *with (.+),$`)
)

// initHeader is what init prints above the errors of the configuration.
const initHeader = "encountered problems during initialisation"

// parseText finds diagnostics in text for people, of the commands that are not
// asked for JSON: a line "Error: …", where it is, a snippet, and the detail.
func parseText(text string) []event.Diagnostic {
	var found []event.Diagnostic
	var detail, snippet []string
	end := func() {
		if len(found) == 0 {
			return
		}
		d := &found[len(found)-1]
		d.Detail = quote.Text(strings.TrimSpace(strings.Join(detail, "\n")), maxDetail)
		d.Snippet = quote.Text(strings.Join(snippet, "\n"), maxSnippet)
		detail, snippet = nil, nil
	}
	for line := range strings.Lines(ansi.ReplaceAllString(text, "")) {
		line = strings.TrimRight(line, "\r\n")
		if boxed, ok := strings.CutPrefix(line, "│"); ok {
			line = strings.TrimPrefix(boxed, " ")
		}
		if s := strings.TrimSpace(line); s == "╷" || s == "╵" {
			continue
		}
		severity, summary := "", ""
		if s, ok := strings.CutPrefix(line, "Error: "); ok {
			severity, summary = "error", s
		} else if s, ok := strings.CutPrefix(line, "Warning: "); ok {
			severity, summary = "warning", s
		}
		switch {
		case severity != "":
			end()
			if len(found) == 2*maxKept {
				return tidy(found)
			}
			found = append(found, event.Diagnostic{Severity: severity, Summary: quote.Line(summary, maxSummary)})
		case len(found) == 0:
		default:
			d := &found[len(found)-1]
			if m := textRange.FindStringSubmatch(line); m != nil && d.File == "" && len(detail) == 0 {
				d.File = quote.Line(filepath.ToSlash(m[1]), maxAddress)
				d.Line, _ = strconv.Atoi(m[2])
			} else if m := textWith.FindStringSubmatch(line); m != nil && d.Address == "" && len(detail) == 0 {
				d.Address = quote.Line(m[1], maxAddress)
			} else if code, ok := codeLine(line); ok && d.File != "" && len(detail) == 0 {
				snippet = append(snippet, code)
			} else if strings.TrimSpace(line) != "" || len(detail) > 0 {
				detail = append(detail, line)
			}
		}
	}
	end()
	return tidy(found)
}

// tidy leaves out init's header where the errors that it announces follow, and
// repeated diagnostics: init prints some twice.
func tidy(found []event.Diagnostic) []event.Diagnostic {
	var kept []event.Diagnostic
	seen := newOnce[event.Diagnostic](len(found))
	for _, d := range found {
		if len(found) > 1 && strings.Contains(d.Summary, initHeader) || !seen.first(d) {
			continue
		}
		kept = append(kept, d)
	}
	return kept
}

// codeLine reads a line of a snippet: "   3: resource …".
func codeLine(line string) (string, bool) {
	number, code, ok := strings.Cut(strings.TrimLeft(line, " "), ":")
	if _, err := strconv.Atoi(number); !ok || err != nil || !strings.HasPrefix(line, " ") {
		return "", false
	}
	return strings.TrimPrefix(code, " "), true
}
