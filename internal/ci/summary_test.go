package ci

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, path), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

var results = map[string]Result{
	"applied": {
		Command: "apply", Run: "run-1", Status: event.OK, State: "bucket/prod/terraform.tfstate", Lock: &lock.Report{State: "bucket/prod/terraform.tfstate", Status: lock.None},
		Plan: &event.Plan{Add: 2, Change: 1, Destroy: 1, Replace: 1, Changed: true}, PlanText: "\nTerraform will perform:\n\n  + a = \"```\"\n\nPlan: 2 to add.\n",
		Snapshot: &event.Snapshot{ID: "20261122T174512.345Z-pre-apply-12", Serial: 12},
		Stages: []event.StageFinished{{Stage: "check", Status: event.OK, Note: "formatted, valid", Seconds: 0.84}, {Stage: "hook:policy", Status: event.Skipped},
			{Stage: "apply", Status: event.OK, Note: "2 added, 1 changed, 1 destroyed", Seconds: 2}},
		Seconds: 4.4,
	},
	"stale": {
		Command: "apply", Run: "run-1", Status: event.Blocked, ExitCode: 11, State: "b/k",
		Lock:   &lock.Report{State: "b/k", Status: lock.Stale, Locks: both.Locks[:3]},
		Stages: []event.StageFinished{{Stage: "lock-check", Status: event.Failed, Note: "the state is locked", Seconds: 0.1}},
	},
	"unclear":   {Command: "locks", Run: "run-1", Status: event.Blocked, ExitCode: 12, State: "b/k", Lock: &both},
	"cancelled": {Command: "apply", Run: "run-1", Status: event.Cancelled, ExitCode: 130, State: "b/k"},
	"failed": {
		Command: "check", Run: "run-1", Status: event.Failed, ExitCode: 1,
		Diagnostics: []event.Diagnostic{
			{Severity: "error", Summary: "Unsupported argument", Detail: "An argument named \"foo\" is not expected here.", Address: "terraform_data.hello", File: "main.tf", Line: 3, Hint: "terraform fmt"},
			{Severity: "warning", Summary: "Deprecated", File: "a.tf"},
		},
	},
	"no_changes": {Command: "plan", Run: "run-1", Status: event.NoChanges, State: "b/k", Plan: &event.Plan{}},
}

func TestSummaryMarkdown(t *testing.T) {
	for name, r := range results {
		golden(t, name+".md", SummaryMarkdown(r))
	}
}

// An active lock beside a stale one: nobody is told to remove anything.
func TestSummaryNamesNoRemovalBesideALivingLock(t *testing.T) {
	if got := SummaryMarkdown(results["unclear"]); strings.Contains(got, "unlock --id") || strings.Contains(got, "--approve-lock") {
		t.Error(got)
	}
}

var injections = map[string]string{
	"HTML":             `<img src=x onerror=alert(1)><script>x</script></details></code></pre>`,
	"a comment":        "<!-- -->",
	"a mention":        "@octocat @org/team",
	"a reference":      "#1 o/r#2 GH-3 gh-4",
	"a link":           "[a](https://evil.example) [b]: https://evil.example",
	"an image":         "![a](https://evil.example/x.png)",
	"an address":       "https://evil.example http://evil.example ftp://evil.example www.evil.example WWW.evil.example",
	"an address in <>": "<https://evil.example>",
	"a mail address":   "mailto:ann@evil.example",
	"a table":          "a | b |\n|---|---|\n| c | d |",
	"an escape":        `\| \<img> \@octocat \`,
	"code":             "` `` ``` ```` a ```\n```\n# b\n~~~\n",
	"a heading":        "# a\n## b\nc\n===\nd\n---",
	"a list":           "- a\n* b\n+ c\n1. d\n2) e\n> f",
	"emphasis":         "*a* **b** _c_ __d__ ~~e~~",
	"a formula":        "$a$ $$b$$ $`c`$",
	"references":       "&lt;img&gt; &#64;octocat &#x40;octocat",
	"details":          "</details>\n\n<details open>\n",
	"controls":         "\x1b[2J\r\x00\u202e\u2028",
	"a command":        "::set-output name=x::y ##[group]z",
	"not UTF-8":        "a\xff",
}

// outside gives the markdown without its fences, whose lines mean nothing; it
// fails where one is open at the end.
func outside(t *testing.T, what, markdown string) string {
	t.Helper()
	var b strings.Builder
	fence := ""
	for l := range strings.Lines(markdown) {
		l = strings.TrimSuffix(l, "\n")
		bare := strings.TrimLeft(l, "`")
		ticks := l[:len(l)-len(bare)]
		switch {
		case fence == "" && len(ticks) >= 3:
			fence = ticks
		case fence == "":
			b.WriteString(l + "\n")
		case len(ticks) >= len(fence) && strings.TrimSpace(bare) == "":
			fence = ""
		}
	}
	if fence != "" {
		t.Errorf("%s: a fence is left open", what)
	}
	return b.String()
}

// ours is the markup that the summary writes itself.
var ours = regexp.MustCompile(`(?m)^## |^### |</?code>|^<details><summary>The plan</summary>$|^</details>$|\*\*(Plan|Snapshot|error|warning)\*\*|&(lt|gt|amp|#\d+);|^\|[-|:]+\|$`)

func TestNothingInjectsMarkdown(t *testing.T) {
	for name, s := range injections {
		r := lock.Report{State: s, Status: lock.Status(s)}
		for range 3 {
			r.Locks = append(r.Locks, lock.ReportEntry{Store: lock.Store(s), ID: s, Path: s, Operation: s, Who: s, TerraformVersion: s, Created: s, Status: lock.Status(s),
				Confidence: lock.Confidence(s), Reasons: []string{s, s}, Run: &lock.Run{URL: s, Status: s, Conclusion: s}, Fingerprint: s})
		}
		for _, status := range []string{event.OK, event.Blocked, event.Failed, "", s} {
			got := SummaryMarkdown(Result{
				Command: s, Run: s, Status: status, State: s, Lock: &r, Plan: &event.Plan{Add: 1, Changed: true}, PlanText: s, Snapshot: &event.Snapshot{ID: s},
				Stages:      []event.StageFinished{{Stage: s, Status: s, Note: s}},
				Diagnostics: []event.Diagnostic{{Severity: s, Summary: s, Detail: s, Address: s, File: s, Line: 1, Hint: s}, {Severity: "warning", Summary: s, File: s}},
			})
			text := outside(t, name, got)
			if strings.Count(text, "<details>") != 1 || strings.Count(text, "</details>") != 1 {
				t.Errorf("%s: details in\n%s", name, text)
			}
			rest := ours.ReplaceAllString(text, "¤")
			if i := strings.IndexAny(rest, "<>@#`*[]!~$\\\x1b\r\x00"); i >= 0 {
				t.Errorf("%s: markup in %.60q", name, rest[i:])
			}
			if m := regexp.MustCompile(`(?i)://|www\.|gh-\d`).FindString(rest); m != "" {
				t.Errorf("%s: a link by %q", name, m)
			}
			for l := range strings.Lines(rest) {
				if cells := strings.Count(l, "|"); cells != 0 && cells != 8 && cells != 5 {
					t.Errorf("%s: a row of %d cells: %q", name, cells, l)
				}
				if regexp.MustCompile(`^(\s{4}|[-+=>]|\d+[.)] )`).MatchString(l) {
					t.Errorf("%s: a block starts at %q", name, l)
				}
			}
			if !utf8.ValidString(got) {
				t.Errorf("%s: not UTF-8", name)
			}
		}
	}
}

func TestSummaryIsBounded(t *testing.T) {
	s := strings.Repeat("a\n````\x00", 300_000)
	r := Result{Command: s, Run: s, State: s, PlanText: s}
	for range 500 {
		r.Diagnostics = append(r.Diagnostics, event.Diagnostic{Summary: s, Detail: s, Hint: s})
		r.Stages = append(r.Stages, event.StageFinished{Stage: s, Note: s})
	}
	got := SummaryMarkdown(r)
	if len(got) > maxSummary || closeMarkdown(got) != "" {
		t.Errorf("%d bytes, open: %q", len(got), closeMarkdown(got))
	}
	outside(t, "a long summary", got)
}
