package quote

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// commands gives what a GitHub runner would take as commands, by its own rules
// (actions/runner: ProcessInvoker reads lines that end in CR or LF, ActionCommand
// trims white space before "::" and finds "##[" anywhere).
func commands(s string) []string {
	var found []string
	for _, line := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		trimmed := strings.TrimLeftFunc(strings.TrimPrefix(line, "\ufeff"), unicode.IsSpace)
		if strings.HasPrefix(trimmed, "::") || strings.Contains(line, "##[") {
			found = append(found, line)
		}
	}
	return found
}

var runnerLines = []struct{ what, in, want string }{
	{"plain text stays", "a::b # c ##", "a::b # c ##"},
	{"a command", "::set-output name=x::y", ":\u200b:set-output name=x::y"},
	{"a command on a later line", "a\n::error::b", "a\n:\u200b:error::b"},
	{"white space before it", "  \t::error::b", "  \t:\u200b:error::b"},
	{"white space beyond ASCII before it", "\u3000\u00a0::error::b", "\u3000\u00a0:\u200b:error::b"},
	{"a byte order mark before it", "\ufeff::error::b", "\ufeff:\u200b:error::b"},
	{"a carriage return before it", "a\r::error::b", "a\r:\u200b:error::b"},
	{"an old command", "a ##[group]b", "a ##\u200b[group]b"},
	{"an old command after more hashes", "####[group]b", "####\u200b[group]b"},
	{"three colons", ":::x::", ":\u200b::x::"},
	{"an address of IPv6 after a word", "host ::1", "host ::1"},
}

func TestRunner(t *testing.T) {
	for _, c := range runnerLines {
		if got := Runner(c.in); got != c.want {
			t.Errorf("%s: Runner(%q) = %q, want %q", c.what, c.in, got, c.want)
		}
	}
}

// A stream is safe wherever it is cut, and as safe as the whole.
func FuzzRunner(f *testing.F) {
	for _, c := range runnerLines {
		f.Add(c.in, 3)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		whole := Runner(s)
		if bad := commands(whole); len(bad) > 0 {
			t.Fatalf("Runner(%q) has commands: %q", s, bad)
		}
		if strings.ReplaceAll(whole, "\u200b", "") != strings.ReplaceAll(s, "\u200b", "") {
			t.Fatalf("Runner(%q) = %q changes more than zero-width spaces", s, whole)
		}
		if cut < 0 || cut > len(s) {
			return
		}
		var state RunnerState
		if got := string(state.Next([]byte(s[:cut]))) + string(state.Next([]byte(s[cut:]))); got != whole {
			t.Fatalf("cut at %d: %q, whole: %q", cut, got, whole)
		}
	})
}

func TestLineAndText(t *testing.T) {
	for _, c := range []struct{ what, in, line, text string }{
		{"plain", "a b", "a b", "a b"},
		{"several lines", "a\n\tb", "a��b", "a\n\tb"},
		{"lines of Windows", "a\r\nb", "a��b", "a\nb"},
		{"an overwriting carriage return", "bad\rgood", "bad�good", "bad�good"},
		{"an escape", "\x1b[2J", "�[2J", "�[2J"},
		{"an 8-bit escape", "\u009b2J", "�2J", "�2J"},
		{"a bidirectional override", "a\u202eb", "a�b", "a�b"},
		{"an invisible tag", "a\U000e0041b", "a�b", "a�b"},
		{"a line separator", "a\u2028b", "a�b", "a�b"},
		{"NUL", "a\x00", "a�", "a�"},
		{"not UTF-8", "a\xff", "a�", "a�"},
		{"long", "aaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaa…", "aaaaaaaaaa…"},
	} {
		if got := Line(c.in, 10); got != c.line {
			t.Errorf("%s: Line(%q) = %q, want %q", c.what, c.in, got, c.line)
		}
		if got := Text(c.in, 10); got != c.text {
			t.Errorf("%s: Text(%q) = %q, want %q", c.what, c.in, got, c.text)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[1;31mred\x1b[0m": "red",
		"\x1b[2Jcleared":       "\x1b[2Jcleared",
		"\x1b[":                "\x1b[",
		"\x1b[31":              "\x1b[31",
		"\x1b[\x1b[31mm":       "\x1b[m",
		"none":                 "none",
	} {
		if got := Plain(in); got != want {
			t.Errorf("Plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	for _, c := range []struct{ what, in, want string }{
		{"names stay readable", "terraform_data.hello", "terraform_data.hello"},
		{"a version at the start", "1.11.4", "1.11.4"},
		{"an ID", "1f2e3d4c-0000-4000-8000-000000000001", "1f2e3d4c-0000-4000-8000-000000000001"},
		{"HTML", "<img src=x>", "&lt;img src=x&gt;"},
		{"a character reference", "&lt;", "&amp;lt;"},
		{"a mention", "@octocat", "&#64;&#8203;octocat"},
		{"an issue", "o/r#1", "o/r&#35;&#8203;1"},
		{"an issue by its old name", "see Gh-1", "see Gh&#8203;-1"},
		{"a link", "[a](b)", "&#91;a&#93;(b)"},
		{"an image", "![a](b)", "&#33;&#91;a&#93;(b)"},
		{"an address", "https://x.y", "https:&#8203;//x.y"},
		{"an address without a scheme", "WWW.x.y", "WWW&#8203;.x.y"},
		{"a mail address", "a@b.c", "a&#64;&#8203;b.c"},
		{"code", "`a`", "&#96;a&#96;"},
		{"a cell's end", "a|b", "a&#124;b"},
		{"an escaped cell's end", `a\|b`, "a&#92;&#124;b"},
		{"emphasis", "*a* _b_ ~c~", "&#42;a&#42; &#95;b&#95; &#126;c&#126;"},
		{"a formula", "$a$", "&#36;a&#36;"},
		{"a heading", "# a", "&#35;&#8203; a"},
		{"a list", "- a", "&#45; a"},
		{"a numbered list", "1. a", "1&#46; a"},
		{"indented code", "     a", "a"},
		{"a new paragraph", "a\n\n# b", "a��&#35;&#8203; b"},
	} {
		if got := Markdown(c.in, 100); got != c.want {
			t.Errorf("%s: Markdown(%q) = %q, want %q", c.what, c.in, got, c.want)
		}
	}
	if got := Code("a_b|", 100); got != "<code>a_b&#124;</code>" {
		t.Errorf("Code = %q", got)
	}
	if got := Code("", 100); got != "" {
		t.Errorf("Code of nothing = %q", got)
	}
}

// No input gives markdown that means anything.
func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"<b>", "@a", "#1", "a|b", "https://a", "www.a", "\\`", "1. a", "\xff@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Markdown(s, 1000)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r<>@|`*[]!~$\\\"'{}^") {
			t.Fatalf("Markdown(%q) = %q", s, got)
		}
		for _, bad := range []string{"://", "www."} {
			if strings.Contains(strings.ToLower(got), bad) {
				t.Fatalf("Markdown(%q) = %q has %q", s, got, bad)
			}
		}
		if strings.ContainsAny(strings.ReplaceAll(got, "&#", ""), "#") {
			t.Fatalf("Markdown(%q) = %q has a bare #", s, got)
		}
	})
}

func FuzzFence(f *testing.F) {
	f.Add("a\n```\nb")
	f.Add("````")
	f.Fuzz(func(t *testing.T, s string) {
		got := Fence(s, "text")
		first, rest, _ := strings.Cut(got, "text\n")
		if strings.Count(rest, first) != 1 || !strings.HasSuffix(rest, first+"\n") {
			t.Fatalf("Fence(%q) = %q is closed early", s, got)
		}
	})
}

func TestShell(t *testing.T) {
	for in, want := range map[string]string{
		"a-b/c.d": "a-b/c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a\nb": "'a\nb'",
	} {
		if got := Shell(in); got != want {
			t.Errorf("Shell(%q) = %q, want %q", in, got, want)
		}
	}
}
