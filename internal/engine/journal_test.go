package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/event"
)

// TestADiskThatIsFull: what could be written in part spoils no event that comes
// after it, and the error is there to be asked for (G3: a run goes on).
func TestADiskThatIsFull(t *testing.T) {
	r := newRun(t)
	j, err := r.Journal(nil)
	if err != nil {
		t.Fatal(err)
	}
	j.Emit(event.RunStarted{Command: "apply"})
	if err := j.Err(); err != nil {
		t.Fatal(err)
	}
	// The disk is full after a few bytes of an event.
	if _, err := j.file.WriteString(`{"type":"stage_st`); err != nil {
		t.Fatal(err)
	}
	j.torn = true
	file := j.file
	if j.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	j.Emit(event.StageStarted{Stage: "lost"})
	if err := j.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error of a full disk is %v", err)
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	j.file = file
	j.Emit(event.StageStarted{Stage: "apply"})
	j.Emit(event.RunFinished{Status: event.OK})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := r.Follow(t.Context(), nothingMore, func(e event.Event) { got = append(got, e.Type()) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"run_started", "stage_started", "run_finished"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func nothingMore(context.Context) bool { return false }

// TestAJournalWithoutAnEnd: the result that the run has left is its end; without
// one, or with half of one, the run died.
func TestAJournalWithoutAnEnd(t *testing.T) {
	r := newRun(t)
	j, err := r.Journal(nil)
	if err != nil {
		t.Fatal(err)
	}
	j.Emit(event.RunStarted{Command: "apply"})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"", `{"type":"run_finished","exit_code":0,"sta`, `{"type":"run_started"}`} {
		if half != "" {
			if err := os.WriteFile(filepath.Join(r.Dir, "result.json"), []byte(half), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Follow(t.Context(), nothingMore, func(event.Event) {}); !errors.Is(err, ErrDied) {
			t.Errorf("with the result %q: %v", half, err)
		}
	}
	if err := r.WriteResult(Result{RunFinished: event.RunFinished{Status: event.Cancelled, ExitCode: 130}, Applied: 1.5}); err != nil {
		t.Fatal(err)
	}
	var last event.Event
	if err := r.Follow(t.Context(), nothingMore, func(e event.Event) { last = e }); err != nil {
		t.Fatal(err)
	}
	if end, ok := last.(event.RunFinished); !ok || end.ExitCode != 130 {
		t.Errorf("the last event is %#v", last)
	}
	if end, ok := r.Result(); !ok || end.Applied != 1.5 {
		t.Errorf("the result is %+v", end)
	}
}

// TestADeadRunKeepsNoSecrets (G7): the next run removes the plan of one that was
// killed, and later the log that proves whose lock it left; one that goes on
// keeps both.
func TestADeadRunKeepsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	runs := map[string]*Run{}
	for i, name := range []string{"dead", "long dead", "alive", "in one process"} {
		r, err := NewRun(dir, NewID(start.Add(time.Duration(i)*time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, f := range []string{r.PlanFile(), r.LockLog()} {
			if err := os.WriteFile(f, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		runs[name] = r
		if name == "in one process" {
			continue
		}
		alive, err := lockFile(r.alive())
		if err != nil {
			t.Fatal(err)
		}
		if name == "alive" {
			defer alive.Close()
			continue
		}
		if err := alive.Close(); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-keepLockLog - time.Minute)
	if err := os.Chtimes(runs["long dead"].alive(), yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	last, err := NewRun(dir, NewID(start.AddDate(1, 0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	last.Prune()
	for name, want := range map[string][2]bool{"dead": {false, true}, "long dead": {false, false}, "alive": {true, true}, "in one process": {true, true}} {
		for i, f := range []string{runs[name].PlanFile(), runs[name].LockLog()} {
			if _, err := os.Stat(f); (err == nil) != want[i] {
				t.Errorf("%s: %s: %v", name, filepath.Base(f), err)
			}
		}
	}
}

// TestMuchOutput: text for people is bounded, with a word about it, and nothing
// else is left out.
func TestMuchOutput(t *testing.T) {
	r := newRun(t)
	j, err := r.Journal(nil)
	if err != nil {
		t.Fatal(err)
	}
	j.outputs = 1000
	for range 100 {
		j.Emit(event.Output{Source: "apply", Text: strings.Repeat("x", 100)})
	}
	j.Emit(event.Resource{Address: "a.b", Phase: "done"})
	j.Emit(event.RunFinished{})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var texts []string
	var rest int
	if err := r.Follow(t.Context(), nothingMore, func(e event.Event) {
		if out, ok := e.(event.Output); ok {
			texts = append(texts, out.Text)
		} else {
			rest++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(texts) != 11 || !strings.Contains(texts[10], "more than can be shown") || rest != 2 {
		t.Errorf("%d texts, the last %q, and %d other events", len(texts), texts[len(texts)-1], rest)
	}
}
