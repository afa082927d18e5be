package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
)

// errored is an errored.tfstate as terraform leaves one.
func errored(t *testing.T, lineage string, serial uint64) *snapshot.Content {
	t.Helper()
	path := filepath.Join(t.TempDir(), erroredState)
	doc := fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"outputs":{},"resources":[]}`, serial, lineage)
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := snapshot.New(nil, backend.Address{}, snapshot.Options{TempDir: t.TempDir()}).ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// G4, and never over another run (G1): an errored state is pushed only where
// lineage, serial and time prove that nobody but this run's terraform wrote
// since the plan.
func TestContinuedBy(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	head := func(serial uint64, written time.Time) state.Head {
		return state.Head{Exists: true, Lineage: "l", Serial: serial, Modified: written}
	}
	// Terraform ran for ten minutes from noon; it is a minute later now.
	ran := func(from state.Head) attempt {
		return attempt{from: from, began: noon, ended: noon.Add(10 * time.Minute)}
	}
	local := noon.Add(11 * time.Minute)
	before := noon.Add(-time.Hour)
	for _, c := range []struct {
		sentence string
		from     state.Head
		now      state.Head
		clock    time.Time // the store's; zero: it is local
		lineage  string
		serial   uint64
		proven   bool
	}{
		{"the state is what the plan was made from", head(4, before), head(4, before), time.Time{}, "l", 5, true},
		{"terraform tried several times, and counted", head(4, before), head(4, before), time.Time{}, "l", 7, true},
		{"there was no state and is none", state.Head{}, state.Head{}, time.Time{}, "new", 1, true},
		{"there was a state and is none", head(4, before), state.Head{}, time.Time{}, "l", 5, false},
		{"terraform itself wrote it on the way", head(4, before), head(6, noon.Add(5*time.Minute)), time.Time{}, "l", 7, true},
		{"terraform wrote the first state of all on the way", state.Head{}, head(1, noon.Add(5*time.Minute)), time.Time{}, "l", 2, true},
		{"somebody wrote it after terraform's end, when its lock was free", head(4, before), head(5, noon.Add(10*time.Minute+30*time.Second)), time.Time{}, "l", 6, false},
		{"somebody wrote it in the last seconds, which no clock tells apart", head(4, before), head(5, noon.Add(10*time.Minute-time.Second)), time.Time{}, "l", 6, false},
		{"somebody wrote it between plan and apply", head(4, before), head(5, noon.Add(-time.Minute)), time.Time{}, "l", 6, false},
		{"by the store's clock, which is an hour ahead, terraform wrote it", head(4, before), head(5, noon.Add(65*time.Minute)), local.Add(time.Hour), "l", 6, true},
		{"by the store's clock, which is an hour ahead, somebody else wrote it", head(4, before), head(5, noon.Add(5*time.Minute)), local.Add(time.Hour), "l", 6, false},
		{"its serial is taken", head(4, before), head(5, noon.Add(5*time.Minute)), time.Time{}, "l", 5, false},
		{"its serial is passed", head(4, before), head(9, noon.Add(5*time.Minute)), time.Time{}, "l", 5, false},
		{"the state has another lineage by now", head(4, before), state.Head{Exists: true, Lineage: "m", Serial: 1, Modified: before}, time.Time{}, "l", 5, false},
		{"the state was replaced by one of another lineage that is older", state.Head{}, head(1, before), time.Time{}, "new", 2, false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			clock := c.clock
			if clock.IsZero() {
				clock = local
			}
			err := ran(c.from).continuedBy(snapshot.Found{Head: c.now, Now: clock}, errored(t, c.lineage, c.serial), local)
			if (err == nil) != c.proven || err != nil && !errors.Is(err, snapshot.ErrNotNext) {
				t.Errorf("%v, proven %v", err, c.proven)
			}
		})
	}
	t.Run("a store that tells no time proves nothing by it", func(t *testing.T) {
		err := ran(head(4, before)).continuedBy(snapshot.Found{Head: head(5, noon.Add(5*time.Minute))}, errored(t, "l", 6), local)
		if !errors.Is(err, snapshot.ErrNotNext) {
			t.Errorf("%v", err)
		}
	})
}
