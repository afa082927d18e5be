package ui

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
)

// Text prints a run for people. What terraform and hooks say goes to Out, as the
// result of the run; a line for each stage, diagnostics and locks go to Err. With
// GitHub all of it goes to Out.
type Text struct {
	o     Options
	p     paint
	marks map[string]string

	mu       sync.Mutex
	out, err *stream // one and the same with GitHub
	group    string  // the source whose output is in an open group
	lock     string  // what the last Lock said, by fingerprints
	applying bool    // the apply stage has begun
	result   string  // the note of the last plan or apply that went well
	notes    map[string]int
}

var _ event.Sink = (*Text)(nil)

// maxAnnotations is how many errors, and how many warnings, GitHub shows of one step.
const maxAnnotations = 10

// NewText prints to o.Out and o.Err.
func NewText(o Options) *Text {
	t := &Text{
		o: o, p: paint(o.Color), notes: map[string]int{}, out: &stream{w: o.Out}, err: &stream{w: o.Err},
		marks: map[string]string{event.OK: "✓", event.Failed: "✗", event.Skipped: "–", event.Cancelled: "⚠"},
	}
	if o.GitHub {
		t.out.next = &stream{w: o.Err} // better there than nowhere
		t.err = t.out
	}
	return t
}

// Emit prints e. The text of an [event.Output] is taken as whole lines.
//
// Resource, Snapshot and ApprovalNeeded are told by terraform's output, by the
// stage's line and by the command that asks.
func (t *Text) Emit(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := e.(type) {
	case event.RunStarted:
		if t.o.Verbose {
			t.progress(t.p.dim(quote.Line("tfguard "+e.Version+" "+e.Command+" in "+e.Directory, 4*maxName)) + "\n")
		}
	case event.StageStarted:
		t.applying = t.applying || e.Stage == "apply"
	case event.Output:
		if !t.o.Quiet && (t.o.Verbose || !e.Detail) {
			t.output(e)
		}
	case event.StageFinished:
		t.stage(e)
	case event.Lock:
		t.locks(e.Report)
	case event.Diagnostic:
		t.diagnostic(e)
	case event.RunFinished:
		t.finish(e)
	}
}

func (t *Text) stage(e event.StageFinished) {
	if e.Status == event.OK && (e.Stage == "plan" || e.Stage == "apply") {
		t.result = e.Note
	}
	if t.group == e.Stage {
		t.endGroup()
	}
	if t.o.Quiet {
		return
	}
	mark := t.marks[e.Status]
	if mark == "" {
		mark = "?"
	}
	color := map[string]func(string) string{event.OK: t.p.green, event.Failed: t.p.red, event.Cancelled: t.p.yellow}[e.Status]
	if color == nil {
		color = t.p.dim
	}
	name, note := quote.Line(e.Stage, maxName), quote.Line(e.Note, maxNote)
	if note == "" && e.Status != event.OK {
		note = quote.Line(e.Status, maxName)
	}
	line := color(mark) + " " + pad(name, 11) + " " + note
	if e.Status != event.Skipped {
		line += pad("", 36-utf8.RuneCountInString(note)) + "  " + t.p.dim(fmt.Sprintf("%5s", seconds(e.Seconds)))
	}
	t.progress(line + "\n")
}

func (t *Text) output(e event.Output) {
	text := strings.TrimSuffix(strings.ReplaceAll(quote.Plain(e.Text), "\r\n", "\n"), "\n")
	if e.Source == "plan" && t.group != e.Source {
		text = strings.TrimLeft(text, "\n")
	}
	var b bytes.Buffer
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(quote.Text(line, maxLine), " \t")
		if e.Source == "plan" {
			line = t.tint(line)
		}
		if line != "" && !t.o.GitHub {
			b.WriteString("  ")
		}
		b.WriteString(line + "\n")
	}
	if t.group != e.Source {
		t.endGroup()
		if t.o.GitHub {
			t.command("group", "", quote.Line(e.Source, maxName))
		} else if e.Source == "plan" {
			t.out.print("\n")
		}
		t.group = e.Source
	}
	t.answer(b.String())
}

// tint colours a line of a plan by what terraform does to it.
func (t *Text) tint(line string) string {
	switch first, _, _ := strings.Cut(strings.TrimLeft(line, " "), " "); first {
	case "+":
		return t.p.green(line)
	case "-":
		return t.p.red(line)
	case "~", "-/+", "+/-":
		return t.p.yellow(line)
	}
	return line
}

func (t *Text) locks(r lock.Report) {
	seen := string(r.Status)
	for _, e := range r.Locks {
		seen += " " + e.Fingerprint
	}
	if seen == t.lock || r.Status == lock.None {
		t.lock = seen
		return
	}
	t.lock = seen
	t.progress("\n" + locks(r, t.p) + "\n")
}

func (t *Text) diagnostic(d event.Diagnostic) {
	color, kind := t.p.red, "error"
	if d.Severity == "warning" {
		color, kind = t.p.yellow, "warning"
	}
	lines := []string{color(kind+":") + " " + t.p.bold(quote.Line(d.Summary, 4*maxName))}
	add := func(indent, text string) {
		for line := range strings.SplitSeq(strings.TrimRight(quote.Text(text, maxText), "\n"), "\n") {
			lines = append(lines, strings.TrimRight(indent+line, " "))
		}
	}
	if d.Address != "" {
		lines = append(lines, "  with "+quote.Line(d.Address, 4*maxName))
	}
	if d.File != "" {
		at := "  on " + quote.Line(d.File, 4*maxName)
		if d.Line > 0 {
			at += fmt.Sprintf(" line %d", d.Line)
		}
		lines = append(lines, at+":")
	}
	if d.Snippet != "" {
		snippet := d.Snippet
		if d.Line > 0 && !strings.Contains(strings.TrimRight(snippet, "\n"), "\n") {
			snippet = fmt.Sprintf("%d: %s", d.Line, snippet)
		}
		add("    ", snippet)
	}
	if d.Detail != "" {
		lines = append(lines, "")
		add("", d.Detail)
	}
	if d.Hint != "" {
		lines = append(lines, "", t.p.bold("hint:")+" "+quote.Line(d.Hint, 4*maxName))
	}
	var b strings.Builder
	b.WriteString(color("╷") + "\n")
	for _, line := range lines {
		b.WriteString(strings.TrimRight(color("│")+" "+line, " ") + "\n")
	}
	b.WriteString(color("╵") + "\n")
	t.progress(b.String())
	if t.o.GitHub && t.notes[kind] < maxAnnotations {
		t.notes[kind]++
		t.annotate(kind, d)
	}
}

// annotate writes the workflow command that puts d beside its line.
func (t *Text) annotate(kind string, d event.Diagnostic) {
	var properties []string
	if file := path.Join(t.o.Dir, d.File); d.File != "" && !path.IsAbs(d.File) && !path.IsAbs(file) && file != ".." && !strings.HasPrefix(file, "../") {
		properties = append(properties, "file="+property(quote.Line(file, 4*maxName)))
		if d.Line > 0 {
			properties = append(properties, fmt.Sprintf("line=%d", d.Line))
		}
	}
	message := quote.Text(d.Detail, 4<<10)
	if message == "" {
		message = quote.Line(d.Summary, 4*maxName)
	}
	if d.Hint != "" {
		message += "\n" + quote.Line(d.Hint, 4*maxName)
	}
	properties = append(properties, "title="+property(quote.Line(d.Summary, maxName)))
	t.command(kind, strings.Join(properties, ","), message)
}

func (t *Text) finish(e event.RunFinished) {
	after := " after " + seconds(e.Seconds)
	result := quote.Line(t.result, maxName)
	var line string
	switch e.Status {
	case event.OK:
		line = "done in " + seconds(e.Seconds)
	case event.NoChanges:
		line, result = "no changes, done in "+seconds(e.Seconds), "no changes"
	case event.Blocked:
		line = t.p.red("blocked") + after
		if !t.applying {
			line += ", nothing was applied"
		}
	case event.Cancelled:
		line = t.p.yellow("cancelled") + after
	default:
		line = t.p.red("failed") + after
	}
	good := e.Status == event.OK || e.Status == event.NoChanges
	switch {
	case !t.o.Quiet:
		t.progress("\n" + line + "\n")
	case !good:
		t.progress(line + "\n")
	case result != "":
		t.answer(result + "\n")
	}
}

// endGroup ends what output has opened: a group, or the frame of a plan.
func (t *Text) endGroup() {
	switch {
	case t.group == "":
	case t.o.GitHub:
		t.out.print("::endgroup::\n")
	case t.group == "plan":
		t.out.print("\n")
	}
	t.group = ""
}

// progress prints text that tells how the run goes.
func (t *Text) progress(s string) {
	t.endGroup()
	t.safe(t.err, s)
}

// answer prints text that the run was made for.
func (t *Text) answer(s string) { t.safe(t.out, s) }

// safe prints what a runner must not take for a command, also where nothing
// says that one reads: a container in a job does not have the job's environment.
func (t *Text) safe(to *stream, s string) { to.print(quote.Runner(s)) }

// command writes a workflow command; the runner undoes the escapes
// (actions/runner, ActionCommand.cs).
func (t *Text) command(name, properties, data string) {
	if properties != "" {
		name += " " + properties
	}
	data = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(quote.Runner(data))
	t.out.print("::" + name + "::" + data + "\n")
}

func property(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(quote.Runner(s))
}

// stream drops what cannot be written, or hands it to the next: after the first
// write that failed, its writer is left alone.
type stream struct {
	w    io.Writer
	next *stream
}

func (s *stream) print(text string) {
	if s.w != nil {
		if _, err := io.WriteString(s.w, text); err == nil {
			return
		}
		s.w = nil
	}
	if s.next != nil {
		s.next.print(text)
	}
}
