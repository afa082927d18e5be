// Package quote makes what others wrote fit for where it goes: a terminal, a
// workflow log, a table cell in markdown. Locks, plans, logs and API answers
// are data; none of them may move a cursor, run a workflow command or open a tag.
package quote

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes s one line of at most max runes: control characters, bidirectional
// overrides, invisible tags and invalid UTF-8 become "�", and a longer text ends in "…".
func Line(s string, max int) string {
	return clean(s, max, false)
}

// Text is Line for text of several lines: newline and tab stay.
func Text(s string, max int) string {
	return clean(s, max, true)
}

func clean(s string, max int, lines bool) string {
	var b strings.Builder
	n := 0
	for i, r := range s {
		if n == max {
			b.WriteRune('…')
			break
		}
		n++
		switch {
		case lines && (r == '\n' || r == '\t'):
			b.WriteRune(r)
		case lines && r == '\r' && strings.HasPrefix(s[i+1:], "\n"):
			// CRLF is a line's end
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029',
			r >= '\ufff9' && r <= '\ufffb', r >= 0xe0000 && r <= 0xe007f:
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Runner makes text safe to print in a CI job: a GitHub runner takes "::name"
// at the start of a line and "##[name]" anywhere in one as a command
// (actions/runner, ActionCommand.cs). A zero-width space keeps both readable
// and inert.
func Runner(s string) string {
	if !strings.Contains(s, "::") && !strings.Contains(s, "##[") {
		return s
	}
	var r RunnerState
	return string(r.Next([]byte(s)))
}

// RunnerState is [Runner] for text that comes in pieces, cut anywhere. The zero
// value stands at the start of a line.
type RunnerState struct {
	text   bool // something visible is on this line
	colon  bool // and it is one colon
	hashes int  // how many of "##" have just passed
}

// Next gives the safe form of the text's next piece. It holds nothing back.
//
// The runner ends lines at CR and LF and skips any Unicode white space before
// "::"; here everything that is not printable ASCII counts as such.
func (r *RunnerState) Next(p []byte) []byte {
	out := make([]byte, 0, len(p)+16)
	for _, c := range p {
		if c == '\n' || c == '\r' {
			*r = RunnerState{}
			out = append(out, c)
			continue
		}
		if c == ':' && r.colon || c == '[' && r.hashes == 2 {
			out = append(out, "\u200b"...)
		}
		r.colon = c == ':' && !r.text
		if c == '#' {
			r.hashes = min(r.hashes+1, 2)
		} else {
			r.hashes = 0
		}
		r.text = r.text || c > ' ' && c < 0x7f
		out = append(out, c)
	}
	return out
}

// Plain removes the colour sequences of programs that take a pipe for a
// terminal; every other escape stays for [Line] and [Text] to show.
func Plain(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return !(r >= '0' && r <= '9' || r == ';') })
		if end >= 0 && rest[end] == 'm' {
			s = rest[end+1:]
			continue
		}
		b.WriteString("\x1b[")
		s = rest
	}
}

// zwsp follows what GitHub would make a link of after the markdown is rendered,
// where a character reference is a plain character again.
const zwsp = "&#8203;"

// Markdown makes s inert text inside a paragraph, a list item or a table cell of
// GitHub's markdown: no markup, HTML, formula, mention, reference or link.
func Markdown(s string, max int) string {
	runes := []rune(strings.TrimSpace(Line(s, max)))
	word := func(i int) bool {
		return i >= 0 && i < len(runes) && (unicode.IsLetter(runes[i]) || unicode.IsDigit(runes[i]))
	}
	behind := func(i int, text string) bool { // whether text, of lower-case ASCII, ends before runes[i]
		return i >= len(text) && strings.EqualFold(string(runes[i-len(text):i]), text)
	}
	var b strings.Builder
	number := true // only digits so far: "1. " at the start makes a list
	for i, r := range runes {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '@', r == '#':
			fmt.Fprintf(&b, "&#%d;%s", r, zwsp)
		case r == '/' && behind(i, ":"), r == '.' && behind(i, "www"), r == '-' && behind(i, "gh"):
			b.WriteString(zwsp)
			b.WriteRune(r)
		case r == '_' && word(i-1) && word(i+1):
			b.WriteRune(r)
		case strings.ContainsRune("\\`*_[]!|~$^{}\"'", r), i == 0 && strings.ContainsRune("-+=:", r),
			number && (r == '.' || r == ')') && (i+1 == len(runes) || runes[i+1] == ' '):
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
		number = number && unicode.IsDigit(r)
	}
	return b.String()
}

// Code is Markdown in a code font, for names and IDs.
func Code(s string, max int) string {
	if s = Markdown(s, max); s == "" {
		return ""
	}
	return "<code>" + s + "</code>"
}

// Fence puts text of several lines in a code fence longer than any in it.
func Fence(s, language string) string {
	longest, run := 2, 0
	for _, r := range s {
		if r != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	fence := strings.Repeat("`", longest+1)
	return fence + language + "\n" + strings.TrimRight(s, "\n") + "\n" + fence + "\n"
}

// Shell quotes s as one word of a POSIX shell, for the commands that hints name.
func Shell(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r == '-' || r == '_' || r == '.' || r == '/' || r == ':' || r == '=' || r == ',' || r == '+' || r == '@' || r == '%' ||
			r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
