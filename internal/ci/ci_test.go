package ci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

func environment(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

func TestDetect(t *testing.T) {
	good := []string{"GITHUB_ACTIONS", "true", "GITHUB_REPOSITORY", "o/r.x", "GITHUB_RUN_ID", "123", "GITHUB_RUN_ATTEMPT", "2", "GITHUB_JOB", "apply-1",
		"GITHUB_SERVER_URL", "https://ghe.example:8443", "GITHUB_SHA", "0123abc", "GITHUB_WORKSPACE", "/w"}
	run := Run{System: "github", Repository: "o/r.x", ID: "123", Attempt: 2, Job: "apply-1", Commit: "0123abc",
		URL: "https://ghe.example:8443/o/r.x/actions/runs/123/attempts/2"}
	for _, c := range []struct {
		what string
		env  []string
		want *Run
	}{
		{"on a laptop", nil, nil},
		{"where the variable says no", []string{"GITHUB_ACTIONS", "false"}, nil},
		{"on GitHub", good, &run},
		{"without anything else", []string{"GITHUB_ACTIONS", "true"}, &Run{System: "github"}},
		{"without an attempt", append(good, "GITHUB_RUN_ATTEMPT", ""), &Run{System: "github", Repository: "o/r.x", ID: "123", Job: "apply-1", Commit: "0123abc",
			URL: "https://ghe.example:8443/o/r.x/actions/runs/123"}},
		{"with values that are none", append(good, "GITHUB_REPOSITORY", "o/r\n::x::", "GITHUB_RUN_ID", "1 2", "GITHUB_RUN_ATTEMPT", "-1", "GITHUB_JOB", strings.Repeat("a", 300),
			"GITHUB_SHA", "$(x)"), &Run{System: "github"}},
		{"with a server that is none", append(good, "GITHUB_SERVER_URL", "javascript:alert(1)"), &Run{System: "github", Repository: "o/r.x", ID: "123", Attempt: 2, Job: "apply-1", Commit: "0123abc"}},
	} {
		var got *Run
		if g := Detect(environment(c.env...)); g != nil {
			got = &g.Run
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

func TestDir(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	g := &GitHub{Workspace: root}
	for in, want := range map[string]string{"": ".", ".": ".", "infra/prod": "infra/prod", filepath.Join(root, "a"): "a", "..": "..", "/": "..", "../x": ".."} {
		if got := g.Dir(in); got != want {
			t.Errorf("Dir(%q) = %q, want %q", in, got, want)
		}
	}
	if got := (&GitHub{}).Dir("a"); got != ".." {
		t.Errorf("without a workspace: %q", got)
	}
}

func TestNothingHappensOutsideGitHub(t *testing.T) {
	g := Detect(environment())
	if err := errors.Join(g.SetOutputs([]Pair{{"a", "b"}}), g.SetEnv(nil), g.Summary("x")); err != nil {
		t.Error(err)
	}
}

// parse reads a file of variables as the runner on Linux does (actions/runner,
// FileCommandManager.cs).
func parse(text string) ([]Pair, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	next := func() (line string, ended, ok bool) {
		if text == "" {
			return "", false, false
		}
		line, rest, found := strings.Cut(text, "\n")
		text = rest
		return line, found, true
	}
	var pairs []Pair
	for {
		line, _, ok := next()
		if !ok {
			return pairs, nil
		}
		if line == "" {
			continue
		}
		equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case equals >= 0 && (heredoc < 0 || equals < heredoc):
			pairs = append(pairs, Pair{line[:equals], line[equals+1:]})
		case heredoc >= 0:
			name, delimiter := line[:heredoc], line[heredoc+2:]
			if name == "" || delimiter == "" {
				return nil, fmt.Errorf("invalid format %q", line)
			}
			var value []string
			for {
				l, ended, ok := next()
				if !ok {
					return nil, fmt.Errorf("no delimiter for %q", name)
				}
				if l == delimiter {
					break
				}
				if !ended {
					return nil, fmt.Errorf("a value without a newline for %q", name)
				}
				value = append(value, l)
			}
			pairs = append(pairs, Pair{name, strings.Join(value, "\n")})
		default:
			return nil, fmt.Errorf("invalid format %q", line)
		}
	}
}

var hostile = []string{
	"", "plain", "EOF", "a\nEOF\nb", "ghadelimiter_", "x<<ghadelimiter_1\ny\nghadelimiter_1\nstatus=evil", "name<<X\nv\nX\n", "a=b", "a\r\nb\r\n", "\n\n", "\r", "a\x00b",
	"\ufeffa", "é…\u202e", strings.Repeat("long\n", 1000), "::set-output name=a::b", "##[x]y",
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The runner reads what was set, whatever is in the values and in the file before.
func TestVariablesSurviveTheFile(t *testing.T) {
	var pairs []Pair
	for i, v := range hostile {
		pairs = append(pairs, Pair{fmt.Sprint("v", i), v})
	}
	for before, first := range map[string][]Pair{"": nil, "a=b\n": {{"a", "b"}}, "a=b": {{"a", "b"}}, "c<<D\nx\nD": {{"c", "x"}}, "\n": nil} {
		path := file(t, before)
		g := &GitHub{output: path}
		if err := g.SetOutputs(pairs[:3]); err != nil {
			t.Fatal(err)
		}
		if err := g.SetOutputs(pairs[3:]); err != nil {
			t.Fatal(err)
		}
		got, err := parse(read(t, path))
		if err != nil {
			t.Fatalf("after %q: %v", before, err)
		}
		if diff := cmp.Diff(append(first, pairs...), got); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", before, diff)
		}
	}
}

func FuzzVariables(f *testing.F) {
	for _, v := range hostile {
		f.Add(v, "second")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		want := []Pair{{"a", a}, {"B_2", b}}
		text, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range want {
			want[i].Value = strings.ToValidUTF8(p.Value, "\ufffd")
		}
		got, err := parse(string(text))
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestEnvironmentHoldsNoNUL(t *testing.T) {
	path := file(t, "")
	if err := (&GitHub{env: path}).SetEnv([]Pair{{"A", "x\x00y\xff"}}); err != nil {
		t.Fatal(err)
	}
	got, err := parse(read(t, path))
	if diff := cmp.Diff([]Pair{{"A", "x\ufffdy\ufffd"}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestDelimitersAreNotReused(t *testing.T) {
	text, err := encode([]Pair{{"a", ""}, {"b", ""}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := encode([]Pair{{"a", ""}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text) + string(other)) {
		if _, d, ok := strings.Cut(line, "<<"); ok {
			seen[d] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("delimiters: %v", seen)
	}
}

// What cannot be written is an error, and nothing of it is in the file.
func TestFilesThatCannotBeWritten(t *testing.T) {
	directory := t.TempDir()
	for what, g := range map[string]*GitHub{
		"not set":     {},
		"missing":     {output: filepath.Join(directory, "no", "f"), env: filepath.Join(directory, "f"), summary: filepath.Join(directory, "f")},
		"a full disk": {output: "/dev/full", env: "/dev/full", summary: "/dev/full"},
		"a directory": {output: directory, env: directory, summary: directory},
	} {
		for name, err := range map[string]error{"GITHUB_OUTPUT": g.SetOutputs([]Pair{{"a", "b"}}), "GITHUB_ENV": g.SetEnv([]Pair{{"a", "b"}}), "GITHUB_STEP_SUMMARY": g.Summary("x")} {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
	}
	path := file(t, "")
	for _, name := range []string{"", "a b", "a=b", "a<<b", "a\nb", "é"} {
		if err := (&GitHub{output: path}).SetOutputs([]Pair{{"good", "x"}, {name, "x"}}); err == nil || read(t, path) != "" {
			t.Errorf("name %q: %v, file %q", name, err, read(t, path))
		}
	}
}

func TestSummaryFitsBesideWhatIsThere(t *testing.T) {
	long := "<details><summary>The plan</summary>\n\n````text\n" + strings.Repeat("+ é line\n", 200_000) + "````\n\n</details>\n\nend\n"
	for _, c := range []struct {
		what           string
		before         int
		text           string
		whole, hasNote bool
	}{
		{"what fits is whole", 10, "short", true, false},
		{"what is exactly as long as fits is whole", maxSummary - 6, "short", true, false},
		{"a long one is cut", 0, long, false, true},
		{"a long one is cut beside another", maxSummary / 2, long, false, true},
		{"nothing is written where not even the note fits", maxSummary - 10, "short" + long, false, false},
		{"nothing is written where there is too much already", maxSummary + 10, "short", false, false},
		{"one endless line leaves the note", 0, strings.Repeat("a", 2*maxSummary), false, true},
	} {
		before := ""
		if c.before > 0 {
			before = strings.Repeat("b", c.before-1) + "\n"
		}
		path := file(t, before)
		if err := (&GitHub{summary: path}).Summary(c.text); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		got, found := strings.CutPrefix(read(t, path), before)
		if !found || len(before)+len(got) > max(maxSummary, len(before)) || !utf8.ValidString(got) {
			t.Errorf("%s: %d bytes after %d", c.what, len(got), len(before))
		}
		if (got == c.text+"\n") != c.whole || strings.HasSuffix(got, cutNote) != c.hasNote {
			t.Errorf("%s: got %d bytes, ending in %.100q", c.what, len(got), got[max(0, len(got)-100):])
		}
		if closeMarkdown(got) != "" {
			t.Errorf("%s: left open: %q", c.what, closeMarkdown(got))
		}
	}
}

// What is cut stays closed, and cutting ends, also where fences are as long as the text.
func TestCutMarkdownKeepsMarkupClosed(t *testing.T) {
	fence := strings.Repeat("`", 3000)
	text := "a\n<details>\n\n" + fence + "text\n" + strings.Repeat("x\n", 3000) + fence + "\n\n</details>\n"
	for limit := range len(text) + 2 {
		got := cutMarkdown(text, limit)
		if len(got) > limit || closeMarkdown(got) != "" || (got == text) != (limit >= len(text)) {
			t.Fatalf("limit %d: %d bytes, open: %.20q", limit, len(got), closeMarkdown(got))
		}
	}
}

var both = lock.Report{
	Version: 1, State: "b/k", Status: lock.Unclear,
	Locks: []lock.ReportEntry{
		{Store: lock.DynamoDB, ID: "id-2", Status: lock.Stale, Confidence: lock.Presumed, Who: "a@b", Created: "2026-11-22T17:00:00Z", AgeSeconds: 2712, Reasons: []string{"old"}, Fingerprint: "f1"},
		{Store: lock.S3, ID: "id-2", Status: lock.Stale, Confidence: lock.Presumed, Reasons: []string{"##[x]\n"}, Fingerprint: "f2"},
		{Store: lock.S3, ID: "id-1", Status: lock.Stale, Confidence: lock.Presumed, Reasons: []string{}, Fingerprint: "f3"},
		{Store: lock.DynamoDB, Status: lock.Unclear, Reasons: []string{}, Fingerprint: "f4"},
	},
}

func TestOutputs(t *testing.T) {
	names := []string{"status", "exit_code", "run_id", "has_changes", "to_add", "to_change", "to_destroy", "snapshot_id",
		"lock_status", "stale_locks_found", "active_locks_found", "lock_count", "lock_ids", "lock_details"}
	for _, c := range []struct {
		what   string
		result Result
		want   []string
	}{
		{"nothing is known of a run that failed at once", Result{Run: "r", Status: event.Failed, ExitCode: 1},
			[]string{"failed", "1", "r", "", "", "", "", "", "", "", "", "", "", ""}},
		{"a plan with changes and no lock", Result{Run: "r", Status: event.OK, Plan: &event.Plan{Add: 1, Change: 2, Destroy: 3, Changed: true},
			Snapshot: &event.Snapshot{ID: "s"}, Lock: &lock.Report{Status: lock.None}},
			[]string{"ok", "0", "r", "true", "1", "2", "3", "s", "none", "false", "false", "0", "", "[]"}},
		{"a plan without changes", Result{Status: event.NoChanges, Plan: &event.Plan{}},
			[]string{"no_changes", "0", "", "false", "0", "0", "0", "", "", "", "", "", "", ""}},
		{"a stale lock, in both stores", Result{Status: event.Blocked, ExitCode: 11, Lock: &lock.Report{Status: lock.Stale, Locks: both.Locks[:1]}},
			[]string{"blocked", "11", "", "", "", "", "", "", "stale", "true", "false", "1", "id-2", `[{"store":"dynamodb","id":"id-2","path":"","operation":"","who":"a@b","terraform_version":"","created":"2026-11-22T17:00:00Z","age_seconds":2712,"status":"stale","confidence":"presumed","reasons":["old"],"fingerprint":"f1"}]`}},
		{"an active lock", Result{Lock: &lock.Report{Status: lock.Active, Locks: []lock.ReportEntry{{ID: "x", Status: lock.Active, Reasons: []string{}}}}},
			[]string{"", "0", "", "", "", "", "", "", "active", "false", "true", "1", "", `[{"store":"","id":"x","path":"","operation":"","who":"","terraform_version":"","created":"","age_seconds":0,"status":"active","confidence":"","reasons":[],"fingerprint":""}]`}},
	} {
		var want []Pair
		for i, n := range names {
			want = append(want, Pair{n, c.want[i]})
		}
		if diff := cmp.Diff(want, Outputs(c.result)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// An unclear lock counts as active, one ID in two stores as one lock, and only
// stale locks are named for approval.
func TestLegacyEnv(t *testing.T) {
	got := LegacyEnv(Result{Lock: &both})
	details := got[4].Value
	got[4].Value = ""
	want := []Pair{{"STALE_LOCKS_FOUND", "true"}, {"ACTIVE_LOCKS_FOUND", "true"}, {"LOCK_COUNT", "3"}, {"LOCK_IDS", "id-1 id-2"}, {"LOCK_DETAILS", ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var entries []lock.ReportEntry
	if err := json.Unmarshal([]byte(details), &entries); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(both.Locks, entries); diff != "" {
		t.Error(diff)
	}
	if strings.ContainsAny(details, "\n\r") || strings.Contains(details, "##[") {
		t.Errorf("not fit for a line: %q", details)
	}
}

// A variable of 128 KiB would keep every later step from starting.
func TestVariablesAreBounded(t *testing.T) {
	r := lock.Report{Status: lock.Stale}
	for i := range 2000 {
		r.Locks = append(r.Locks, lock.ReportEntry{ID: fmt.Sprintf("%0100d", i), Status: lock.Stale, Who: "\x00\u202e"})
	}
	r.Locks = append(r.Locks, lock.ReportEntry{ID: "a b", Status: lock.Stale})
	env := LegacyEnv(Result{Lock: &r})
	for _, p := range env {
		if len(p.Value) > maxValue {
			t.Errorf("%s has %d bytes", p.Name, len(p.Value))
		}
	}
	ids := strings.Fields(env[3].Value)
	if len(ids) < 900 || strings.Contains(env[3].Value, "a b") || len(ids[0]) != 100 || len(ids[len(ids)-1]) != 100 {
		t.Errorf("%d IDs", len(ids))
	}
	var entries []lock.ReportEntry
	if err := json.Unmarshal([]byte(env[4].Value), &entries); err != nil || len(entries) < 200 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestCollector(t *testing.T) {
	c := NewCollector("apply", "r")
	empty := lock.Report{State: "b/k", Status: lock.None}
	for _, e := range []event.Event{
		event.RunStarted{Command: "apply"}, event.StageStarted{Stage: "check"}, event.StageFinished{Stage: "check", Status: event.OK},
		event.Lock{Report: both}, event.Lock{Report: empty}, event.Plan{Add: 1, Changed: true},
		event.Output{Source: "plan", Text: "one"}, event.Output{Source: "plan", Text: "two\n"}, event.Output{Source: "plan", Text: "no", Detail: true}, event.Output{Source: "apply", Text: "no"},
		event.Snapshot{ID: "s"}, event.Diagnostic{Severity: "error", Summary: "e"}, event.RunFinished{Status: event.Failed, ExitCode: 1, Seconds: 2},
	} {
		c.Emit(e)
	}
	want := Result{Command: "apply", Run: "r", Status: event.Failed, ExitCode: 1, State: "b/k", Lock: &empty, Plan: &event.Plan{Add: 1, Changed: true}, PlanText: "one\ntwo\n",
		Snapshot: &event.Snapshot{ID: "s"}, Stages: []event.StageFinished{{Stage: "check", Status: event.OK}}, Diagnostics: []event.Diagnostic{{Severity: "error", Summary: "e"}}, Seconds: 2}
	if diff := cmp.Diff(want, c.Result()); diff != "" {
		t.Error(diff)
	}
}

func TestCollectorIsBounded(t *testing.T) {
	c := NewCollector("apply", "r")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				c.Emit(event.Output{Source: "plan", Text: strings.Repeat("é line\n", 1000)})
				c.Emit(event.StageFinished{})
				c.Emit(event.Diagnostic{Severity: "warning"})
				c.Emit(event.Plan{Addresses: make([]event.Change, 5000)})
				c.Result()
			}
		})
	}
	wg.Wait()
	c.Emit(event.Diagnostic{Severity: "error", Summary: "kept"})
	r := c.Result()
	if len(r.PlanText) > maxPlanText+100 || len(r.Stages) > maxStages || len(r.Diagnostics) != maxDiagnostics+1 || len(r.Plan.Addresses) > maxAddresses {
		t.Errorf("%d bytes, %d stages, %d diagnostics, %d addresses", len(r.PlanText), len(r.Stages), len(r.Diagnostics), len(r.Plan.Addresses))
	}
	if !utf8.ValidString(r.PlanText) || !strings.HasSuffix(r.PlanText, "é line\n… the rest is in the job's log\n") {
		t.Errorf("the text ends in %q", r.PlanText[len(r.PlanText)-100:])
	}
}
