package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func at() time.Time { return time.Date(2026, 11, 22, 17, 45, 12, 0, time.UTC) }

const planText = `
Terraform will perform the following actions:

  # terraform_data.hello must be replaced
-/+ resource "terraform_data" "hello" {
      ~ id    = "1" -> (known after apply)
      + input = "world"
      - old   = "x" -> null
    }

Plan: 1 to add, 0 to change, 1 to destroy.
`

var staleReport = lock.Report{
	Version: 1, State: "tfstate-bucket/prod/terraform.tfstate", Status: lock.Stale,
	Locks: []lock.ReportEntry{
		{Store: lock.DynamoDB, ID: "1f2e3d4c-0000-4000-8000-000000000001", Path: "tfstate-bucket/prod/terraform.tfstate", Operation: "OperationTypeApply",
			Who: "runner@fv-az712-500", TerraformVersion: "1.11.4", Created: "2026-11-22T17:00:00.5Z", AgeSeconds: 2712, Status: lock.Stale, Confidence: lock.Presumed,
			Reasons: []string{"it is 45m12s old by the clock of the client that took it, 30m0s or more is presumed stale"}, Fingerprint: "0123456789abcdef"},
		{Store: lock.S3, ID: "1f2e3d4c-0000-4000-8000-000000000001", Path: "tfstate-bucket/prod/terraform.tfstate", Operation: "OperationTypeApply",
			Who: "runner@fv-az712-500", TerraformVersion: "1.11.4", Created: "2026-11-22T17:00:00.5Z", AgeSeconds: 2712, Status: lock.Stale, Confidence: lock.Presumed,
			Reasons: []string{"it is 45m11s old by the store's clock, 30m0s or more is presumed stale"}, Fingerprint: "fedcba9876543210"},
	},
}

var activeReport = lock.Report{
	Version: 1, State: "tfstate-bucket/prod/terraform.tfstate", Status: lock.Unclear,
	Locks: []lock.ReportEntry{
		{Store: lock.DynamoDB, ID: "1f2e3d4c-0000-4000-8000-000000000002", Path: "tfstate-bucket/other.tfstate", Operation: "OperationTypePlan", Who: "ann@laptop",
			TerraformVersion: "1.11.4", Created: "2026-11-22T17:44:00Z", AgeSeconds: 72, Status: lock.Active, Confidence: lock.Proven,
			Reasons: []string{"its holder's heartbeat is 4s old", "its CI run is in progress"},
			Run:     &lock.Run{URL: "https://github.com/o/r/actions/runs/7", Status: "in_progress"}, Fingerprint: "aaaaaaaaaaaaaaaa"},
		{Store: lock.S3, Status: lock.Unclear, Reasons: []string{"the record is not JSON of a lock"}, Fingerprint: "bbbbbbbbbbbbbbbb"},
		{Store: lock.DynamoDB, ID: "without-created", Status: lock.Unclear, Reasons: []string{"the record has no Created"}, Fingerprint: "dddddddddddddddd"},
		{Store: lock.S3, ID: "without-created", Status: lock.Unclear, Reasons: []string{"the record has no Created"}, Fingerprint: "eeeeeeeeeeeeeeee"},
		{Store: lock.Holder, ID: "run-9", Who: "ann@laptop", Created: "2026-11-22T17:44:00Z", AgeSeconds: 72, Status: lock.Active, Confidence: lock.Proven, Fingerprint: "cccccccccccccccc"},
	},
}

// runs are the stories that every printer tells.
var runs = map[string][]event.Event{
	"happy": {
		event.RunStarted{Command: "apply", Version: "1.0.0", Directory: "prod"},
		event.StageStarted{Stage: "check"},
		event.Output{Source: "check", Text: "Initializing the backend...\n", Detail: true},
		event.StageStarted{Stage: "backend"},
		event.StageFinished{Stage: "check", Status: event.OK, Note: "formatted, valid", Seconds: 0.8},
		event.StageFinished{Stage: "backend", Status: event.OK, Note: "my-bucket/prod/terraform.tfstate", Seconds: 0.2},
		event.StageStarted{Stage: "lock-check"},
		event.Lock{Report: lock.Report{Version: 1, State: "my-bucket/prod/terraform.tfstate", Status: lock.None}},
		event.StageFinished{Stage: "lock-check", Status: event.OK, Note: "no lock", Seconds: 0.1},
		event.StageStarted{Stage: "plan"},
		event.Diagnostic{Severity: "warning", Summary: "Deprecated parameter", Detail: "The parameter \"dynamodb_table\" is deprecated.", File: "main.tf", Line: 3, Snippet: "    dynamodb_table = \"locks\""},
		event.Plan{Add: 1, Destroy: 1, Replace: 1, Changed: true},
		event.Output{Source: "plan", Text: planText},
		event.StageFinished{Stage: "plan", Status: event.OK, Note: "1 to add, 0 to change, 1 to destroy", Seconds: 1.2},
		event.StageFinished{Stage: "hook:policy", Status: event.Skipped, Note: "no policies", Seconds: 0},
		event.StageFinished{Stage: "recheck", Status: event.OK, Note: "still no lock, state unchanged", Seconds: 0.1},
		event.Snapshot{ID: "20261122T174512.345Z-pre-apply-12", Key: "backups/prod/x", Serial: 12, Lineage: "l", SHA256: "s"},
		event.StageFinished{Stage: "snapshot", Status: event.OK, Note: "20261122T174512.345Z-pre-apply-12", Seconds: 0.3},
		event.StageStarted{Stage: "apply"},
		event.Resource{Address: "terraform_data.hello", Action: "create", Phase: "started"},
		event.Output{Source: "apply", Text: "terraform_data.hello: Creating..."},
		event.Output{Source: "apply", Text: "terraform_data.hello: Creation complete after 0s"},
		event.StageFinished{Stage: "apply", Status: event.OK, Note: "1 added, 0 changed, 1 destroyed", Seconds: 62},
		event.RunFinished{Status: event.OK, Seconds: 66.4},
	},
	"failed": {
		event.RunStarted{Command: "check", Version: "1.0.0", Directory: "."},
		event.StageStarted{Stage: "check"},
		event.Diagnostic{Severity: "error", Summary: "Unsupported argument: foo", Detail: "An argument named \"foo\" is not expected here.\nDid you mean \"bar\"?",
			Address: "terraform_data.hello", File: "modules/a,b/main.tf", Line: 3, Snippet: "  foo = 1", Hint: "terraform fmt 100%"},
		event.Diagnostic{Severity: "error", Summary: "Elsewhere", File: "../../../x.tf"},
		event.StageFinished{Stage: "check", Status: event.Failed, Note: "2 errors", Seconds: 0.4},
		event.RunFinished{Status: event.Failed, ExitCode: 1, Seconds: 0.5},
	},
	"blocked": {
		event.RunStarted{Command: "apply", Version: "1.0.0", Directory: "."},
		event.StageFinished{Stage: "backend", Status: event.OK, Note: "tfstate-bucket/prod/terraform.tfstate", Seconds: 0.2},
		event.StageStarted{Stage: "lock-check"},
		event.Lock{Report: staleReport},
		event.Lock{Report: staleReport},
		event.ApprovalNeeded{What: "unlock", LockIDs: staleReport.StaleIDs(), Hint: "tfguard unlock"},
		event.StageFinished{Stage: "lock-check", Status: event.Failed, Note: "the state is locked", Seconds: 0.1},
		event.RunFinished{Status: event.Blocked, ExitCode: 11, Seconds: 0.3},
	},
	"cancelled": {
		event.RunStarted{Command: "apply", Version: "1.0.0", Directory: "."},
		event.StageStarted{Stage: "apply"},
		event.Output{Source: "apply", Text: "terraform_data.hello: Creating..."},
		event.Output{Source: "apply", Text: "\nInterrupt received.\n"},
		event.StageFinished{Stage: "apply", Status: event.Cancelled, Seconds: 3.21},
		event.RunFinished{Status: event.Cancelled, ExitCode: 130, Seconds: 4},
	},
}

// both shows the two streams of a terminal in the order in which they are written.
func both() (out, err, all *bytes.Buffer, o Options) {
	out, err, all = new(bytes.Buffer), new(bytes.Buffer), new(bytes.Buffer)
	return out, err, all, Options{Out: io.MultiWriter(out, all), Err: io.MultiWriter(err, all), Run: "run-1", Now: at, Dir: "infra/prod"}
}

func TestTextOfARun(t *testing.T) {
	for name, events := range runs {
		for suffix, set := range map[string]func(*Options){
			"":         func(*Options) {},
			"-color":   func(o *Options) { o.Color = true },
			"-quiet":   func(o *Options) { o.Quiet = true },
			"-github":  func(o *Options) { o.GitHub = true },
			"-verbose": func(o *Options) { o.Verbose = true },
		} {
			t.Run(name+suffix, func(t *testing.T) {
				_, stderr, all, o := both()
				set(&o)
				text := NewText(o)
				for _, e := range events {
					text.Emit(e)
				}
				golden(t, name+suffix+".golden", all.String())
				if o.GitHub && stderr.Len() > 0 {
					t.Errorf("on GitHub the story is told by one stream, stderr has %q", stderr)
				}
			})
		}
	}
}

// What terraform printed is all that stdout has: it can be piped on.
func TestTextKeepsResultsApart(t *testing.T) {
	stdout, stderr, _, o := both()
	text := NewText(o)
	for _, e := range runs["happy"] {
		text.Emit(e)
	}
	if strings.Contains(stdout.String(), "✓") || !strings.Contains(stdout.String(), "-/+ resource") || !strings.Contains(stdout.String(), "Creating...") {
		t.Errorf("stdout:\n%s", stdout)
	}
	if !strings.Contains(stderr.String(), "✓ plan") || strings.Contains(stderr.String(), "-/+ resource") {
		t.Errorf("stderr:\n%s", stderr)
	}
}

func TestTextAnnotatesNoMoreThanGitHubShows(t *testing.T) {
	_, _, all, o := both()
	o.GitHub = true
	text := NewText(o)
	for i := range 30 {
		text.Emit(event.Diagnostic{Severity: "warning", Summary: fmt.Sprint("w", i)})
		text.Emit(event.Diagnostic{Severity: "error", Summary: fmt.Sprint("e", i)})
	}
	if w, e := strings.Count(all.String(), "::warning "), strings.Count(all.String(), "::error "); w != 10 || e != 10 {
		t.Errorf("%d warnings and %d errors are annotations, want 10 of each", w, e)
	}
}

func TestJSONOfARun(t *testing.T) {
	for name, events := range runs {
		stdout, stderr, _, o := both()
		j := NewJSON(o)
		for _, e := range events {
			j.Emit(e)
		}
		j.Emit(event.Diagnostic{Summary: "after the end"})
		golden(t, name+".jsonl", stdout.String())
		if stderr.Len() > 0 {
			t.Errorf("%s: stderr has %q", name, stderr)
		}
		last := ""
		for _, h := range lines(t, stdout.Bytes()) {
			if h.Run != "run-1" || !h.Time.Equal(at()) || h.Type == "output" {
				t.Errorf("%s: a line of %+v", name, h)
			}
			last = h.Type
		}
		if last != "run_finished" {
			t.Errorf("%s: the last line is %q", name, last)
		}
	}
}

// lines reads JSON lines as a program would.
func lines(t *testing.T, doc []byte) []event.Header {
	t.Helper()
	var headers []event.Header
	if len(doc) > 0 && doc[len(doc)-1] != '\n' {
		t.Errorf("the last line is not ended: %q", doc)
	}
	for line := range bytes.Lines(doc) {
		var h event.Header
		if err := json.Unmarshal(line, &h); err != nil {
			t.Fatalf("%v in line %.200q", err, line)
		}
		headers = append(headers, h)
	}
	return headers
}

// A number that JSON does not have must not swallow the end of the run.
func TestJSONNeverLosesTheEnd(t *testing.T) {
	stdout, _, _, o := both()
	j := NewJSON(o)
	nan := 0.0
	nan /= nan
	j.Emit(event.StageFinished{Stage: "plan", Seconds: nan})
	j.Emit(event.RunFinished{Status: event.OK, Seconds: nan})
	got := lines(t, stdout.Bytes())
	if len(got) == 0 || got[len(got)-1].Type != "run_finished" {
		t.Errorf("lines: %+v", got)
	}
}

var hostile = map[string]string{
	"escape":             "a\x1b[2J\x1b[1;31mred",
	"clipboard":          "a\x1b]52;c;cm0gLXJm\a",
	"8-bit escape":       "a\u009b2Jb\u009d52;c;x\u009c",
	"raw 8-bit escape":   "a\x9b2J",
	"output command":     "::set-output name=x::y",
	"command, next line": "a\n::error file=x::y\n  ::stop-commands::z",
	"command after CR":   "a\r::add-mask::y",
	"command after NBSP": "\u00a0\u3000::add-mask::y",
	"old command":        "a ##[group]b\n##[add-path]/tmp",
	"overwrite":          "rm -rf /\rls -l   ",
	"backspaces":         "evil\b\b\b\bgood",
	"bidirectional":      "a\u202egpj.exe\u2066b\u2069",
	"NUL":                "a\x00b",
	"line separators":    "a\u2028::error::b\u2029c\u0085::error::d",
	"not UTF-8":          "a\xff\xc0\x80b",
	"long":               "##[x]" + strings.Repeat("A", 140<<10),
	"many lines":         strings.Repeat("::x::\n", 1000),
}

// everywhere puts s where a run can carry a text of the outside.
func everywhere(s string) []event.Event {
	r := lock.Report{Version: 1, State: s, Status: lock.Status(s), Locks: []lock.ReportEntry{
		{Store: lock.Store(s), ID: s, Path: s + "x", Operation: s, Who: s, TerraformVersion: s, Created: s, Status: lock.Active, Confidence: lock.Confidence(s), Reasons: []string{s},
			Run: &lock.Run{URL: s, Status: s, Conclusion: s}, Fingerprint: s},
		{Store: lock.S3, Status: lock.Unclear, Created: s, Fingerprint: s}, {Store: lock.S3, ID: s, Status: lock.Stale, Fingerprint: s},
	}}
	return []event.Event{
		event.RunStarted{Command: s, Version: s, Directory: s},
		event.StageStarted{Stage: s},
		event.Output{Source: s, Text: s},
		event.Output{Source: "plan", Text: s + "\n" + s},
		event.Output{Source: "plan", Text: s, Detail: true},
		event.StageFinished{Stage: s, Status: s, Note: s},
		event.StageFinished{Stage: "apply", Status: event.OK, Note: s},
		event.Lock{Report: r},
		event.Plan{Addresses: []event.Change{{Address: s, Action: s}}},
		event.Resource{Address: s, Action: s, Phase: s},
		event.Snapshot{ID: s, Key: s, Lineage: s, SHA256: s},
		event.Diagnostic{Severity: s, Summary: s, Detail: s, Address: s, File: s, Line: 3, Snippet: s, Hint: s},
		event.Diagnostic{Severity: "warning", Summary: s},
		event.ApprovalNeeded{What: s, LockIDs: []string{s}, Hint: s},
		event.RunFinished{Status: s, Seconds: 1},
	}
}

// tame fails where text could do anything to a terminal.
func tame(t *testing.T, what, text string, color bool) {
	t.Helper()
	if color {
		for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
			text = strings.ReplaceAll(text, "\x1b["+code+"m", "")
		}
	}
	if !utf8.ValidString(text) {
		t.Errorf("%s: not UTF-8", what)
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			t.Errorf("%s: %q gets through", what, r)
			return
		}
	}
	if len(text) > 16<<20 {
		t.Errorf("%s: %d bytes", what, len(text))
	}
}

// commands gives what a GitHub runner takes as commands (actions/runner,
// ActionCommand.cs).
func commands(text string) []string {
	var found []string
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		trimmed := strings.TrimLeftFunc(line, unicode.IsSpace)
		if strings.HasPrefix(trimmed, "::") || strings.Contains(line, "##[") {
			found = append(found, trimmed)
		}
	}
	return found
}

func TestNothingHostileGetsThroughText(t *testing.T) {
	for name, s := range hostile {
		for _, set := range []Options{{}, {Color: true}, {Verbose: true}, {Quiet: true}, {GitHub: true, Verbose: true}} {
			what := fmt.Sprintf("%s with %+v", name, set)
			_, _, all, o := both()
			o.Color, o.Verbose, o.Quiet, o.GitHub = set.Color, set.Verbose, set.Quiet, set.GitHub
			text := NewText(o)
			for _, e := range everywhere(s) {
				text.Emit(e)
			}
			tame(t, what, all.String(), o.Color)
			if !o.GitHub {
				continue
			}
			for _, c := range commands(all.String()) {
				head, _, _ := strings.Cut(strings.TrimPrefix(c, "::"), "::")
				word, properties, _ := strings.Cut(head, " ")
				switch word {
				case "group", "endgroup":
				case "error", "warning":
					for p := range strings.SplitSeq(properties, ",") {
						if k, _, _ := strings.Cut(p, "="); k != "file" && k != "line" && k != "title" {
							t.Errorf("%s: annotation with property %.100q", what, p)
						}
					}
				default:
					t.Errorf("%s: a command that is not ours: %.100q", what, c)
				}
				if strings.Contains(c, "##[") {
					t.Errorf("%s: an old command inside %.100q", what, c)
				}
			}
		}
	}
}

func TestNothingHostileGetsThroughJSON(t *testing.T) {
	for name, s := range hostile {
		stdout, _, _, o := both()
		o.Run = s
		j := NewJSON(o)
		events := everywhere(s)
		for _, e := range events {
			j.Emit(e)
		}
		tame(t, name, stdout.String(), false)
		if bad := commands(stdout.String()); len(bad) > 0 {
			t.Errorf("%s: %d commands, such as %.100q", name, len(bad), bad[0])
		}
		if got := lines(t, stdout.Bytes()); len(got) != len(events)-3 { // without outputs
			t.Errorf("%s: %d lines of %d events", name, len(got), len(events))
		}
	}
}

func TestNothingHostileGetsThroughResults(t *testing.T) {
	for name, s := range hostile {
		for what, print := range map[string]func(io.Writer){
			"Locks":  func(w io.Writer) { Locks(w, everywhere(s)[7].(event.Lock).Report, false) },
			"Table":  func(w io.Writer) { Table(w, []string{s, "B"}, [][]string{{s, s}, {s}, {s, s, s}}, Right) },
			"Errors": func(w io.Writer) { Errors(w, s, s) },
		} {
			var b bytes.Buffer
			print(&b)
			tame(t, what+": "+name, b.String(), false)
			if bad := commands(b.String()); len(bad) > 0 {
				t.Errorf("%s: %s: commands %.200q", what, name, bad)
			}
		}
		for _, cut := range []int{1, 2, 3, 7, len(s)} {
			var b bytes.Buffer
			w := Writer(&b)
			for rest := s[:min(len(s), 10000)]; rest != ""; {
				n := min(cut, len(rest))
				if wrote, err := io.WriteString(w, rest[:n]); wrote != n || err != nil {
					t.Fatalf("Write = %d, %v", wrote, err)
				}
				rest = rest[n:]
			}
			if bad := commands(b.String()); len(bad) > 0 {
				t.Errorf("Writer in pieces of %d: %s: commands %.200q", cut, name, bad)
			}
		}
	}
}

// One line of 10 MB is no reason to print, or to hold, 10 MB.
func TestLongLines(t *testing.T) {
	s := strings.Repeat("é\x1b::##[a]", 1<<20)
	stdout, _, all, o := both()
	o.GitHub = true
	for _, sink := range []event.Sink{NewText(o), NewJSON(o)} {
		stdout.Reset()
		sink.Emit(event.Output{Source: "plan", Text: s})
		sink.Emit(event.Diagnostic{Severity: "error", Summary: "long", Detail: s[:1<<20]})
		if stdout.Len() > 2<<20 || strings.Contains(stdout.String(), "##[") {
			t.Errorf("%T: %d bytes", sink, stdout.Len())
		}
		tame(t, fmt.Sprintf("%T", sink), all.String(), false)
	}
	lines(t, stdout.Bytes())
}

func FuzzCutStrings(f *testing.F) {
	f.Add("a\"b\\c\x00d\u202eé", 3)
	f.Fuzz(func(t *testing.T, s string, max int) {
		if max < 1 || max > 1000 {
			return
		}
		doc, err := event.Encode("r", at(), event.Diagnostic{Summary: s, Detail: s})
		if err != nil {
			t.Fatal(err)
		}
		var got event.Diagnostic
		out := cutStrings(doc, max)
		if err := json.Unmarshal(out, &got); max >= 20 && err != nil { // shorter than the names, it cuts those
			t.Fatalf("%v in %q", err, out)
		}
		if len(got.Detail) > max+len("…") {
			t.Fatalf("%d bytes are left: %q", len(got.Detail), got.Detail)
		}
		if max > len(doc) && got.Detail != strings.ToValidUTF8(s, "\ufffd") && !strings.Contains(s, "\xff") && utf8.ValidString(s) {
			t.Fatalf("%q became %q", s, got.Detail)
		}
	})
}

func TestLocks(t *testing.T) {
	var b bytes.Buffer
	for _, r := range []lock.Report{{State: "b/k", Status: lock.None}, staleReport, activeReport} {
		Locks(&b, r, false)
		b.WriteString("----\n")
	}
	golden(t, "locks.golden", b.String())
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	Table(&b, []string{"ID", "SERIAL", "SIZE", "REASON"}, [][]string{{"a", "12", "3"}, {"größer", "7", "1.5 MiB", "pre-apply"}}, Left, Right, Right)
	want := "" +
		"ID      SERIAL     SIZE  REASON\n" +
		"a           12        3\n" +
		"größer       7  1.5 MiB  pre-apply\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ msg, hint, want string }{
		{"it failed", "type this", "tfguard: error: it failed\ntfguard: hint: type this\n"},
		{"two\nlines\n", "", "tfguard: error: two\n  lines\n"},
	} {
		var b bytes.Buffer
		Errors(&b, c.msg, c.hint)
		if b.String() != c.want {
			t.Errorf("got %q, want %q", b.String(), c.want)
		}
	}
}

func TestAge(t *testing.T) {
	for s, want := range map[int64]string{
		-5: "0 seconds", 1: "1 second", 59: "59 seconds", 60: "1 minute", 2712: "45 minutes", 3600: "1 hour", 7500: "2 hours 5 minutes", 86400: "1 day", 180000: "2 days 2 hours",
	} {
		if got := Age(s); got != want {
			t.Errorf("Age(%d) = %q, want %q", s, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.0s", 0.84: "0.8s", 59.94: "59.9s", 59.96: "1m00s", 3599.99: "1h00m", 65: "1m05s", 7860: "2h11m", -1: "0.0s"} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %q, want %q", s, got, want)
		}
	}
}

// Events come from several goroutines: each line is whole, and none is lost.
func TestConcurrentEmit(t *testing.T) {
	stdout, all := new(bytes.Buffer), new(bytes.Buffer)
	j, text := NewJSON(Options{Out: stdout, Run: "r", Now: at}), NewText(Options{Out: all, Err: all})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				for _, e := range []event.Event{
					event.StageFinished{Stage: fmt.Sprint("s", i), Status: event.OK}, event.Output{Source: fmt.Sprint("s", i), Text: "x"}, event.Lock{Report: staleReport},
				} {
					j.Emit(e)
					text.Emit(e)
				}
			}
		})
	}
	wg.Wait()
	if got := len(lines(t, stdout.Bytes())); got != 8*100*2 {
		t.Errorf("%d lines, want %d", got, 8*100*2)
	}
	if got := strings.Count(all.String(), "✓ s"); got != 800 {
		t.Errorf("%d stage lines, want 800", got)
	}
}

// A reader that goes away stops neither the run nor, on GitHub, the story.
func TestBrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("the pipe is not broken")
	}
	counted := &counter{w: w}
	var stderr bytes.Buffer
	for _, sink := range []event.Sink{
		NewJSON(Options{Out: counted, Now: at}), NewText(Options{Out: counted, Err: &stderr}), NewText(Options{Out: counted, Err: &stderr, GitHub: true}),
	} {
		counted.n = 0
		stderr.Reset()
		for _, e := range runs["happy"] {
			sink.Emit(e)
		}
		if counted.n != 1 {
			t.Errorf("%T: %d writes to a broken pipe, want 1", sink, counted.n)
		}
		if _, isText := sink.(*Text); isText && !strings.Contains(stderr.String(), "done in") {
			t.Errorf("%T: stderr has no end: %q", sink, stderr.String())
		}
	}
	if n, err := Writer(w).Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("Writer hides the broken pipe: %d, %v", n, err)
	}
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	c.n++
	n, err := c.w.Write(p)
	if err == nil {
		err = errors.New("not broken")
	}
	return n, err
}
