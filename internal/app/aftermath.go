package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/planfile"
	"github.com/tfguard/tfguard/internal/terraform"
)

// cleanUp bounds what is done on a context of its own after a cancel.
const cleanUp = 30 * time.Second

// lookAfter bounds the look at what a cancelled run left: a plan that does not
// react has taken 10 s of the 15 s in which a cancel ends.
const lookAfter = 4 * time.Second

// erroredState is where terraform leaves a state that it could not write
// (terraform internal/backend/local/backend_apply.go).
const erroredState = "errored.tfstate"

// applier applies, and takes away what terraform itself could not.
type applier struct {
	*terraform.Terraform
	t    *target
	run  *run
	keep *keeper
}

// Apply implements pipeline.Applier.
func (a *applier) Apply(ctx context.Context, file string) error {
	from, err := planfile.Head(file)
	if err != nil {
		return err
	}
	if err := a.enough(ctx); err != nil {
		return err
	}
	at := attempt{from: from, began: time.Now()}
	err = a.Terraform.Apply(ctx, file)
	at.ended = time.Now()
	return a.rescue(ctx, at, a.keep.afterTerraform(ctx, err))
}

// afterTerraform removes a lock of this very run that terraform has left: it has
// ended, and the lock's ID is the one that it asked for. Where that was all that
// went wrong, nothing did.
func (k *keeper) afterTerraform(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var f *terraform.Failure
	if errors.As(err, &f) && f.Killed {
		k.mu.Lock()
		flying := slices.Clone(k.flying)
		k.mu.Unlock()
		k.warnOf(f.Command+" was killed", flying)
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer stop()
	if removeErr := k.clearOwn(clean); removeErr != nil {
		return fmt.Errorf("%w; %w", err, removeErr)
	}
	if f != nil && f.OnlyNotReleased() && !k.mayBeLocked() {
		return nil
	}
	return err
}

// clearOwn removes the locks of this run's terraform, which has ended. Where they
// cannot even be read it gives no error: mayBeLocked tells then.
func (k *keeper) clearOwn(ctx context.Context) error {
	left, err := k.ownLocks(ctx)
	if err != nil {
		k.note(k.lastID())
		return nil
	}
	for _, e := range left {
		if err := k.t.Remove(ctx, e, "this run; its terraform has ended"); err != nil && !errors.Is(err, lock.ErrGone) {
			k.note(e.Info.ID)
			return err
		}
		k.run.warn(fmt.Sprintf("terraform has ended and left its lock %s in %s: removed", e.Info.ID, e.Observation.Store), "")
	}
	k.note("")
	return nil
}

// ownLocks are the locks that this run's terraform has taken and that are there.
func (k *keeper) ownLocks(ctx context.Context) ([]lock.Entry, error) {
	k.mu.Lock()
	ids := slices.Clone(k.ids)
	k.mu.Unlock()
	if len(ids) == 0 {
		return nil, nil
	}
	v, err := k.t.Observe(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(v.Locks, func(e lock.Entry) bool {
		return e.Observation.Store == lock.Holder || e.Status == lock.Unclear || !slices.Contains(ids, e.Info.ID)
	}), nil
}

// afterwards looks at what a run that failed or was cancelled has left: locks,
// a state that could not be written, a digest that does not match. It gives err
// itself where it is clean.
func (r *run) afterwards(ctx context.Context, t *target, err error) error {
	if err == nil {
		return nil
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), lookAfter)
	defer stop()
	var left []string
	var unsaved *unsavedError // has said it
	if info, statErr := os.Stat(filepath.Join(r.set.dir, erroredState)); statErr == nil && !info.ModTime().Before(r.started.Truncate(time.Second)) && (ctx.Err() != nil || !errors.As(err, &unsaved)) {
		left = append(left, "the state could not be written and is in "+filepath.Join(r.set.dir, erroredState))
	}
	if f := (*terraform.Failure)(nil); ctx.Err() != nil && errors.As(err, &f) && f.Killed && f.Changes() {
		left = append(left, f.Command+" was killed, what it was changing may not be in the state")
	}
	if ctx.Err() != nil && t.locking.Load() { // before, terraform takes no lock and writes nothing
		left = append(left, t.leftBehind(clean, r.started)...)
	}
	if len(left) == 0 {
		return err
	}
	if ctx.Err() != nil {
		return &uncleanError{err: context.Cause(ctx), left: left}
	}
	return fmt.Errorf("%w; %s", err, left[0])
}

// leftBehind says what a cancelled run left in the backend; empty is clean.
func (t *target) leftBehind(ctx context.Context, since time.Time) []string {
	v, err := t.Observe(ctx)
	if err != nil {
		return []string{fmt.Sprintf("the lock on %s could not be read: %v", t.addr, err)}
	}
	var left []string
	for _, e := range v.Locks {
		if e.Observation.Store != lock.Holder && e.Info.Who == who() && !e.Info.Created.Before(since) {
			left = append(left, fmt.Sprintf("lock %s in %s is still there", e.Name(), e.Observation.Store))
		}
	}
	if match, err := t.digestMatches(ctx); err != nil {
		left = append(left, fmt.Sprintf("the digest of %s could not be checked: %v", t.addr, err))
	} else if !match {
		left = append(left, fmt.Sprintf("the digest of %s does not match its state", t.addr))
	}
	return left
}

// digestMatches reports whether the digest in the table is that of the state.
// Terraform tolerates a missing one.
func (t *target) digestMatches(ctx context.Context) (bool, error) {
	if t.table == nil {
		return true, nil
	}
	want, found, err := t.table.Digest(ctx)
	if err != nil || !found || want == "" {
		return err == nil, err
	}
	have, err := t.stateMD5(ctx)
	return have == want, err
}
