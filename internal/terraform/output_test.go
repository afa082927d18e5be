package terraform

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

func TestMuchOutputDoesNotGrowMemory(t *testing.T) {
	tf, _, _ := standBeside(t, "prints a lot", Options{}) // alone, for the sake of the memory
	tf.sink = discard{}
	p, err := tf.Plan(t.Context(), "plan")
	if err != nil {
		t.Fatal(err)
	}
	if p.Add != 101_000 || len(p.Addresses) != maxAddresses || !p.Changed {
		t.Errorf("add %d, %d addresses, changed %v", p.Add, len(p.Addresses), p.Changed)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 100<<20 {
		t.Errorf("%d MiB are kept", m.HeapAlloc>>20)
	}
	runtime.KeepAlive(p)
}

type discard struct{}

func (discard) Emit(event.Event) {}

func TestALineWithoutEndIsCut(t *testing.T) {
	tf, rec, _ := stand(t, "prints no newline", Options{})
	p, err := tf.Plan(t.Context(), "plan")
	if err != nil || p.Add != 1 {
		t.Errorf("what follows the long line is lost: %+v, %v", p, err)
	}
	for _, o := range typed[event.Output](rec) {
		if n := len([]rune(o.Text)); n > maxMessage+1 {
			t.Errorf("an output of %d runes", n)
		}
	}
}

func TestExitCode2WithoutAPlanIsAFailure(t *testing.T) {
	tf, _, _ := stand(t, "crashes with 2", Options{})
	_, err := tf.Plan(t.Context(), "plan")
	var f *Failure
	if !errors.As(err, &f) || f.ExitCode != 2 {
		t.Errorf("got %v", err)
	}
}

func TestDeathByASignal(t *testing.T) {
	tf, _, _ := stand(t, "is killed", Options{})
	err := tf.Apply(t.Context(), "plan")
	var f *Failure
	if !errors.As(err, &f) || f.ExitCode != -1 || f.Interrupted || err.Error() != "terraform apply: signal: killed" {
		t.Errorf("got %v", err)
	}
}

func TestWhatTerraformSaysLastIsNotLost(t *testing.T) {
	tf, _, _ := stand(t, "fails a lot", Options{})
	tf.sink = discard{}
	err := tf.Apply(t.Context(), "plan")
	var f *Failure
	if !errors.As(err, &f) || len(f.Diagnostics) > 2*maxKept {
		t.Fatalf("got %v", err)
	}
	if !errors.Is(err, lock.ErrNotReleased) || !errors.Is(err, state.ErrNotSaved) || errors.Is(err, lock.ErrHeld) {
		t.Errorf("the lock and the state that were left are not told")
	}
	for _, want := range []string{"Error releasing the state lock", "Failed to persist state to backend"} {
		if !slices.ContainsFunc(f.Diagnostics, func(d event.Diagnostic) bool { return d.Summary == want }) {
			t.Errorf("%q is not kept", want)
		}
	}
	if err.Error() != "terraform apply: no 0" {
		t.Errorf("got %v", err)
	}
}

func TestHostileOutputIsData(t *testing.T) {
	tf, rec, _ := stand(t, "is hostile", Options{})
	_, err := tf.Plan(t.Context(), "plan")
	if err == nil {
		t.Fatal("no error")
	}
	texts := []string{err.Error()}
	for _, o := range typed[event.Output](rec) {
		texts = append(texts, o.Text)
	}
	ds := typed[event.Diagnostic](rec)
	if len(ds) != 1 || ds[0].Line != 0 {
		t.Errorf("got %+v", ds)
	}
	for _, d := range ds {
		texts = append(texts, d.Severity, d.Summary, d.Detail, d.File, d.Snippet)
	}
	for _, s := range texts {
		if strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && unicode.IsControl(r) || r == '\u202e' }) {
			t.Errorf("%q has control characters", s)
		}
	}
	var warned bool
	for _, o := range typed[event.Output](rec) {
		warned = warned || o.Detail && o.Text == "Warning: no such file"
	}
	if !warned {
		t.Error("a line that is no JSON is not shown")
	}
}

func TestALogThatFailsDoesNotStopTerraform(t *testing.T) {
	tf, _, _ := stand(t, "prints no newline", Options{Log: full{}})
	tf.sink = discard{}
	if _, err := tf.Plan(t.Context(), "plan"); err != nil {
		t.Error(err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestLines(t *testing.T) {
	type row struct {
		text string
		cut  bool
	}
	var got []row
	l := &lines{handle: func(line []byte, cut bool) { got = append(got, row{string(line), cut}) }}
	for range 4 {
		l.Write(bytes.Repeat([]byte("x"), maxLine))
	}
	if cap(l.buf) > 2*maxLine {
		t.Errorf("%d bytes of a line are kept", cap(l.buf))
	}
	for _, s := range []string{"x\nsh", "ort\r\n", "\n", "a\nb"} {
		l.Write([]byte(s))
	}
	l.flush()
	l.flush()
	want := []row{{strings.Repeat("x", maxLine), true}, {"short", false}, {"", false}, {"a", false}, {"b", false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %d lines, want %d", len(got), len(want))
	}
}

func TestTail(t *testing.T) {
	w := &tail{max: 5}
	for _, s := range []string{"ab", "cdef", "", "g"} {
		w.Write([]byte(s))
	}
	if w.text() != "cdefg" {
		t.Errorf("got %q", w.text())
	}
	w.Write([]byte("0123456789"))
	if w.text() != "56789" {
		t.Errorf("got %q", w.text())
	}
}

func TestValidation(t *testing.T) {
	const bad = "{\n  \"valid\": false, \"diagnostics\": [{\"severity\": \"error\", \"summary\": \"s\"}]\n}\n"
	for name, c := range map[string]struct {
		out       string
		valid, ok bool
		found     int
	}{
		"valid":                     {"{\n  \"valid\": true\n}", true, true, 0},
		"not valid":                 {bad, false, true, 1},
		"behind a warning":          {"Warning: {x}\n\n│ more {\n" + bad, false, true, 1},
		"cut off":                   {bad[:30], false, false, 0},
		"nothing":                   {"", false, false, 0},
		"an object of another kind": {"{\n  \"x\": 1\n}", false, false, 0},
	} {
		found := 0
		valid, ok := validation([]byte(c.out), func(event.Diagnostic) { found++ })
		if valid != c.valid || ok != c.ok || found != c.found {
			t.Errorf("%s: got %v, %v, %d diagnostics", name, valid, ok, found)
		}
	}
}

const lockDetail = `ConditionalCheckFailedException: The conditional request failed
Lock Info:
  ID:        0c8b2b5e-6a0c-4b0e-9b0a-1d6a2f2f3a4b
  Path:      bucket/env/terraform.tfstate
  Operation: OperationTypeApply
  Who:       runner@fv-az712-500
  Version:   1.11.4
  Created:   2026-03-11 17:12:30.123456789 +0000 UTC
  Info:      


Terraform acquires a state lock to protect the state from being written
by multiple users at the same time.`

func TestMarks(t *testing.T) {
	for name, c := range map[string]struct {
		summary, detail string
		want            error
	}{
		"a lock with its record is held":                  {"Error acquiring the state lock", lockDetail, lock.ErrHeld},
		"a denied lock write is not contention":           {"Error acquiring the state lock", "AccessDenied: 403", nil},
		"a lock that was left":                            {"Error releasing the state lock", "x", lock.ErrNotReleased},
		"a plan for another serial":                       {"Saved plan is stale", "x", state.ErrChanged},
		"a state that could not be written":               {"Failed to save state", "x", state.ErrNotSaved},
		"a state that is in errored.tfstate":              {"Failed to persist state to backend", "x", state.ErrNotSaved},
		"a resource's own error names errored.tfstate":    {"Error", `written to the file "errored.tfstate" in`, state.ErrNotSaved},
		"a provider's error about some lock is no mark":   {"Error acquiring the lock", lockDetail, nil},
		"a resource's error that quotes a lock is none":   {"Error", lockDetail, nil},
		"another error says nothing of lock and of state": {"Unsupported argument", "x", nil},
	} {
		d := event.Diagnostic{Severity: "error", Summary: c.summary, Detail: c.detail}
		f := &Failure{Diagnostics: []event.Diagnostic{d}, marks: marksOf(d)}
		for _, e := range []error{lock.ErrHeld, lock.ErrNotReleased, state.ErrChanged, state.ErrNotSaved, context.Canceled} {
			if got := errors.Is(f, e); got != (e == c.want) {
				t.Errorf("%s: errors.Is(%v) is %v", name, e, got)
			}
		}
		d.Severity = "warning"
		if marksOf(d) != 0 {
			t.Errorf("%s: a warning has a mark", name)
		}
	}
}

func TestLockInfo(t *testing.T) {
	f := &Failure{Diagnostics: []event.Diagnostic{{Severity: "error", Summary: acquireFailed, Detail: lockDetail}}}
	info, ok := f.LockInfo()
	if !ok || info.ID != "0c8b2b5e-6a0c-4b0e-9b0a-1d6a2f2f3a4b" || info.Path != "bucket/env/terraform.tfstate" ||
		info.Operation != "OperationTypeApply" || info.Who != "runner@fv-az712-500" || info.Version != "1.11.4" ||
		info.Created.Format("2006-01-02T15:04:05.999999999Z07:00") != "2026-03-11T17:12:30.123456789Z" {
		t.Errorf("got %+v, %v", info, ok)
	}
	for name, detail := range map[string]string{
		"no record":                         "AccessDenied",
		"a record that ends early":          lockDetail[:200],
		"a Who of two lines":                strings.Replace(lockDetail, "runner@", "x\n  Version: 9\n  ", 1),
		"an ID that no lock has":            strings.Replace(lockDetail, "0c8b", "0c b", 1),
		"a Created that is no time":         strings.Replace(lockDetail, "2026", "soon", 1),
		"a path that brings an ID with it":  strings.Replace(lockDetail, "bucket/", "b\n  ID:        fake\n", 1),
		"nothing behind the word Lock Info": lockInfo,
	} {
		if info, ok := parseLockInfo(detail); ok {
			t.Errorf("%s: got %+v", name, info)
		}
	}
}

func TestParseText(t *testing.T) {
	got := parseText("\n\x1b[31m╷\x1b[0m\n│ Error: Terraform encountered problems during initialisation, including problems\n│ with the configuration\n╵\n" +
		"Error: Unsupported block type\r\n\r\n  on c.tf line 1:\n   1: x {\n\nBlocks of type \"x\" are not expected here.\n\nAgain.\n" +
		"Warning: Deprecated Parameter\n\n  on sub/m.tf line 12, in terraform:\n  12:     dynamodb_table = \"t\"\n\nUse use_lockfile.\n" +
		"│ Error: bad thing\n│ \n│   with terraform_data.a[0],\n│   on main.tf line 3, in resource \"terraform_data\" \"a\":\n│    3:   x\n│ \n│ Because.\n")
	want := []event.Diagnostic{
		{Severity: "error", Summary: "Unsupported block type", File: "c.tf", Line: 1, Snippet: "x {", Detail: "Blocks of type \"x\" are not expected here.\n\nAgain."},
		{Severity: "warning", Summary: "Deprecated Parameter", File: "sub/m.tf", Line: 12, Snippet: `    dynamodb_table = "t"`, Detail: "Use use_lockfile."},
		{Severity: "error", Summary: "bad thing", Address: "terraform_data.a[0]", File: "main.tf", Line: 3, Snippet: "  x", Detail: "Because."},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	if got := parseText("nothing of note\n"); got != nil {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseText(f *testing.F) {
	f.Add("Error: x\n\n  on a line 3:\n   3: y\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, d := range parseText(s) {
			if d.Severity == "" || strings.ContainsAny(d.Summary, "\x1b\n") {
				t.Errorf("%+v", d)
			}
		}
		parseLockInfo(s)
		words(s)
	})
}
