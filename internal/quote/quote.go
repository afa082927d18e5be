// Package quote makes what others wrote fit for where it goes: a terminal, a
// workflow log, a table cell in markdown. Locks, plans, logs and API answers
// are data; none of them may move a cursor, run a workflow command or open a tag.
package quote

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes s one line of at most max runes: control characters, bidirectional
// overrides and invalid UTF-8 become "�", and a longer text ends in "…".
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
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Runner makes text safe to print in a CI job: a GitHub runner takes "::name"
// at the start of a line and "##[name]" anywhere as a command. A zero-width
// space keeps both readable and inert.
func Runner(s string) string {
	s = strings.ReplaceAll(s, "##[", "#\u200b#[")
	if !strings.Contains(s, "::") {
		return s
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if rest := strings.TrimLeft(l, " \t\r"); strings.HasPrefix(rest, "::") {
			lines[i] = l[:len(l)-len(rest)] + ":\u200b" + rest[1:]
		}
	}
	return strings.Join(lines, "\n")
}

var cell = strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", ">", "&gt;", "&", "&amp;",
	"`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "@", "&#64;", "#", "&#35;", "!", "\\!", "~", "\\~", "://", ":&#8203;//")

// Markdown makes s inert text inside a paragraph or a table cell.
func Markdown(s string, max int) string {
	return cell.Replace(Line(s, max))
}

// Fence puts text of several lines in a code fence longer than any in it.
func Fence(s, language string) string {
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
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
