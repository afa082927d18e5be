// Package engine keeps what a run leaves on this machine: its folder, with the
// log of terraform and the plan while it is needed.
package engine

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Folder is tfguard's own folder beside the configuration; git ignores it.
const Folder = ".tfguard"

// keepRuns is how many run folders are kept; older ones go at the next run.
const keepRuns = 50

// Run is the folder of one run, private to the user.
type Run struct {
	ID  string // UTC time of the start and four random hex digits
	Dir string // absolute
	log *os.File

	mu     sync.Mutex
	logged int64 // bytes
}

// NewID names a run that starts now.
func NewID(now time.Time) string {
	var random [2]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102T150405Z-") + hex.EncodeToString(random[:])
}

// NewRun makes the folder of the run id below dir, the configuration's directory.
// Old ones go with Prune.
func NewRun(dir, id string) (*Run, error) {
	if err := MakeFolder(dir); err != nil {
		return nil, err
	}
	r := &Run{ID: id, Dir: filepath.Join(dir, Folder, "runs", id)}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the run's folder: %w", err)
	}
	return r, r.openLog()
}

// openRun gives the run whose folder exists.
func openRun(dir string) (*Run, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("open the run's folder %s: %w", dir, cmp.Or(err, fs.ErrNotExist))
	}
	r := &Run{ID: filepath.Base(dir), Dir: dir}
	return r, r.openLog()
}

// Runs lists the runs below dir, the configuration's directory, oldest first.
func Runs(dir string) ([]*Run, error) {
	runs := filepath.Join(dir, Folder, "runs")
	var out []*Run
	for _, id := range ids(runs) {
		out = append(out, &Run{ID: id, Dir: filepath.Join(runs, id)})
	}
	return out, nil
}

func (r *Run) openLog() error {
	log, err := os.OpenFile(filepath.Join(r.Dir, "terraform.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the run's log: %w", err)
	}
	r.log = log
	return nil
}

// MakeFolder makes tfguard's folder below dir, and tells git to ignore it.
func MakeFolder(dir string) error {
	folder := filepath.Join(dir, Folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", folder, err)
	}
	ignore := filepath.Join(folder, ".gitignore")
	f, err := os.OpenFile(ignore, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", ignore, err)
	}
	_, err = f.WriteString("*\n")
	return errors.Join(err, f.Close())
}

// maxLog bounds the log, in bytes. What comes after is not kept.
const maxLog = 512 << 20

// Write appends to the log of everything terraform printed.
func (r *Run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logged += int64(len(p)); r.logged > maxLog {
		return len(p), nil
	}
	return r.log.Write(p)
}

// PlanFile is where the run's plan is while the run goes on.
func (r *Run) PlanFile() string { return filepath.Join(r.Dir, "plan.tfplan") }

// LockLog is where terraform logs the ID of its lock while the run goes on.
func (r *Run) LockLog() string { return filepath.Join(r.Dir, "lock.log") }

// LogFile is the log of everything terraform printed.
func (r *Run) LogFile() string { return r.log.Name() }

// LastWords is the end of what the engine itself printed: why it could not begin,
// or how it crashed.
func (r *Run) LastWords() string {
	log, err := os.ReadFile(r.engineLog())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(log[max(0, len(log)-lastWords):]))
}

func (r *Run) engineLog() string { return filepath.Join(r.Dir, "engine.log") }

// lastWords bounds them, in bytes.
const lastWords = 2000

// Close removes what holds secrets, and closes the log.
func (r *Run) Close() error {
	err := r.log.Close()
	for _, f := range []string{r.PlanFile(), r.LockLog()} {
		if e := os.Remove(f); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// alive is locked as long as the run goes on in an engine.
func (r *Run) alive() string { return filepath.Join(r.Dir, "alive") }

// keepLockLog is how long the lock log of a run that died is kept: it proves whose
// a lock is that the run has left.
const keepLockLog = 24 * time.Hour

// Prune removes the oldest run folders beside this one, and what holds secrets
// from those of runs that died; a run that goes on stays.
func (r *Run) Prune() {
	runs := filepath.Dir(r.Dir)
	all := ids(runs)
	for i, id := range all {
		other := &Run{ID: id, Dir: filepath.Join(runs, id)}
		alive, err := os.Stat(other.alive())
		switch old := i < len(all)-keepRuns; {
		case id == r.ID, err != nil && !old, other.GoesOn():
		case old:
			_ = os.RemoveAll(other.Dir) // tried again by the next run
		default:
			_ = os.Remove(other.PlanFile()) // mostly it is gone
			if time.Since(alive.ModTime()) > keepLockLog {
				_ = os.Remove(other.LockLog())
			}
		}
	}
}

// ids are the names of the runs, oldest first: they sort by time. What is no
// run's name is left out.
func ids(runs string) []string {
	entries, err := os.ReadDir(runs) // sorted
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if _, err := time.Parse("20060102T150405Z", e.Name()[:min(16, len(e.Name()))]); err == nil && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}
