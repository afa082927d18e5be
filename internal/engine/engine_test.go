package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
)

func newRun(t *testing.T) *Run {
	t.Helper()
	r, err := NewRun(t.TempDir(), NewID(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestFollow: a reader gets every event once and in order, also one that was
// written in two parts, and stops at the end of the run.
func TestFollow(t *testing.T) {
	r := newRun(t)
	j, err := r.Journal(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	late, err := event.Encode(r.ID, time.Now(), event.StageStarted{Stage: "late"})
	if err != nil {
		t.Fatal(err)
	}
	steps := []func(){
		func() { j.Emit(event.RunStarted{Command: "apply"}) },
		func() { j.file.Write(late[:10]) },
		func() { j.file.Write(late[10:]) },
		func() { fmt.Fprintln(j.file, "not an event") },
		func() { fmt.Fprintln(j.file, `{"type":"of a later version"}`) },
		func() { j.Emit(event.RunFinished{Status: event.OK}); j.Emit(event.StageStarted{Stage: "too late"}) },
	}
	var got []string
	err = r.Follow(t.Context(), func(context.Context) bool {
		if len(steps) == 0 {
			t.Fatal("it waits after the end of the run")
		}
		steps[0]()
		steps = steps[1:]
		return true
	}, func(e event.Event) { got = append(got, e.Type()) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"run_started", "stage_started", "run_finished"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestFollowAfterDeath: what was written before the engine died is still seen.
func TestFollowAfterDeath(t *testing.T) {
	r := newRun(t)
	j, err := r.Journal(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	seen := 0
	err = r.Follow(t.Context(), func(context.Context) bool {
		j.Emit(event.StageStarted{Stage: "plan"})
		return false
	}, func(event.Event) { seen++ })
	if !errors.Is(err, ErrDied) || seen != 1 {
		t.Errorf("%v after %d events", err, seen)
	}
}

// TestRunsAreKeptAndGo: the newest runs stay, what is no run stays, and so does
// an old one that goes on.
func TestRunsAreKeptAndGo(t *testing.T) {
	dir := t.TempDir()
	runs := filepath.Join(dir, Folder, "runs")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range keepRuns + 5 {
		if err := os.MkdirAll(filepath.Join(runs, NewID(start.Add(time.Duration(i)*time.Hour))), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(runs, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := Runs(dir)
	if err != nil {
		t.Fatal(err)
	}
	oldest := before[0]
	alive, err := lockFile(oldest.alive())
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if !oldest.GoesOn() || before[1].GoesOn() {
		t.Error("only the oldest goes on")
	}
	r, err := NewRun(dir, NewID(start.AddDate(1, 0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Prune()
	after, err := Runs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after[0].ID != oldest.ID || len(after) != keepRuns+1 {
		t.Errorf("%d runs are left, the oldest is %s", len(after), after[0].ID)
	}
	if _, err := os.Stat(filepath.Join(runs, "mine")); err != nil {
		t.Error(err)
	}
}

// TestRunIsPrivate (G7): nobody else reads the run's folder, git ignores it, and
// nothing that holds secrets is left after the run.
func TestRunIsPrivate(t *testing.T) {
	dir := t.TempDir()
	r, err := NewRun(dir, NewID(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{r.PlanFile(), r.LockLog()} {
		if err := os.WriteFile(f, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	err = filepath.Walk(filepath.Join(dir, Folder), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "secret") {
			t.Errorf("%s is left", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, Folder, ".gitignore")); err != nil || string(b) != "*\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestRunsOfAFolderTakeTurns: one at a time, until it leaves or its process ends;
// those of another folder do not wait, and who waits can be cancelled.
func TestRunsOfAFolderTakeTurns(t *testing.T) {
	if !CanDetach {
		t.Skip("they do not, here")
	}
	first, elsewhere := newRun(t), newRun(t)
	second, err := NewRun(filepath.Dir(filepath.Dir(filepath.Dir(first.Dir))), NewID(time.Now().Add(time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	waits := make(chan struct{}, 9)
	never := func() { t.Error("it waits") }
	leave, err := first.Alone(t.Context(), never)
	if err != nil {
		t.Fatal(err)
	}
	leaveElsewhere, err := elsewhere.Alone(t.Context(), never)
	if err != nil {
		t.Fatal(err)
	}
	defer leaveElsewhere()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	if _, err := second.Alone(ctx, func() { cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("got %v of a cancelled wait", err)
	}
	in := make(chan func())
	go func() {
		leave, err := second.Alone(t.Context(), func() { waits <- struct{}{} })
		if err != nil {
			t.Error(err)
			close(in)
			return
		}
		in <- leave
	}()
	<-waits
	select {
	case <-in:
		t.Fatal("two at a time")
	default:
	}
	leave()
	if leave, ok := <-in; ok {
		leave()
	}
	if len(waits) > 0 {
		t.Error("waiting is told more than once")
	}
}
