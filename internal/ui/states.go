package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/state"
)

// maxValue bounds a value of a state as it is printed, in characters.
const maxValue = 200

// hidden stands for a value that is not printed.
const hidden = "(hidden)"

// DiffLines tells what changes from one state to another, a line each, at most
// max of them; 0 is no limit.
func DiffLines(d state.Diff, max int) []string {
	lines := []string{fmt.Sprintf("from %s to %s", d.From, d.To)}
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	name := func(s string) string { return quote.Line(s, 4*maxName) }
	for _, a := range d.Removed {
		add("- %s", name(a))
	}
	for _, a := range d.Added {
		add("+ %s", name(a))
	}
	for _, c := range d.Changed {
		add("~ %s", name(c.Address))
		for _, a := range c.Attributes {
			add("    %s", attributeChange(a))
		}
	}
	if d.Unread > 0 {
		add("~ %d more resources, whose attributes were not compared", d.Unread)
	}
	if len(d.Outputs) > 0 {
		add("outputs:")
	}
	for _, o := range d.Outputs {
		add("    %s", attributeChange(o))
	}
	if d.Empty() {
		add("no resource, attribute or output differs")
	}
	if max > 0 && len(lines) > max {
		left := len(lines) - max + 1
		lines = append(lines[:max-1], fmt.Sprintf("… and %d more lines", left))
	}
	return lines
}

func attributeChange(a state.AttributeChange) string {
	before, after := value(a.Before), value(a.After)
	if a.Sensitive {
		before, after = hidden, hidden
	}
	path := quote.Line(a.Path, 4*maxName)
	switch a.Action {
	case state.Added:
		return "+ " + path + ": " + after
	case state.Removed:
		return "- " + path + ": " + before
	}
	if a.Sensitive {
		return "~ " + path + ": " + hidden + ", changed"
	}
	return "~ " + path + ": " + before + " → " + after
}

func value(v json.RawMessage) string { return quote.Line(string(v), maxValue) }

// Diff prints [DiffLines] for people.
func Diff(w io.Writer, d state.Diff, color bool) {
	var b strings.Builder
	for i, line := range DiffLines(d, 0) {
		b.WriteString(tintChange(line, paint(color), i == 0) + "\n")
	}
	io.WriteString(w, quote.Runner(b.String()))
}

// tintChange colours a line by the sign before it.
func tintChange(line string, p paint, first bool) string {
	sign, _, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	switch {
	case first:
		return p.bold(line)
	case sign == "+":
		return p.green(line)
	case sign == "-":
		return p.red(line)
	case sign == "~":
		return p.yellow(line)
	}
	return line
}

// Instance prints a resource instance of a state.
func Instance(w io.Writer, in state.Instance, color bool) {
	p := paint(color)
	var b strings.Builder
	b.WriteString("\n" + p.bold("# "+quote.Line(in.Address, 4*maxName)))
	if in.Tainted {
		b.WriteString(p.yellow(" (tainted)"))
	}
	b.WriteString("\n")
	for _, a := range in.Attributes {
		b.WriteString("    " + quote.Line(a.Path, 4*maxName) + " = " + attribute(a) + "\n")
	}
	io.WriteString(w, quote.Runner(b.String()))
}

// Outputs prints the outputs of a state.
func Outputs(w io.Writer, all []state.Output, color bool) {
	if len(all) == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("\n" + paint(color).bold("outputs") + "\n")
	for _, o := range all {
		b.WriteString("    " + quote.Line(o.Name, maxName) + " = " + attribute(o.Value) + "\n")
	}
	io.WriteString(w, quote.Runner(b.String()))
}

func attribute(a state.Attribute) string {
	if a.Hidden {
		return hidden
	}
	return quote.Line(a.Value, maxValue)
}
