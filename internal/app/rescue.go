package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/terraform"
)

// Bounds of a rescue: how long the bucket is asked again after terraform could
// not write, and how long between two tries.
const (
	rescueTime  = 90 * time.Second
	rescuePause = 2 * time.Second
)

// locking gives what a restore calls before it takes the state's lock: the
// holder record names the lock before it exists, so that whoever meets what a
// kill leaves knows whose it was.
func (k *keeper) locking(ctx context.Context) func(id string) error {
	return func(id string) error {
		k.mu.Lock()
		k.ids = append(k.ids, id)
		k.mu.Unlock()
		lease := k.current()
		if lease == nil {
			return nil
		}
		return lease.Confirm(context.WithoutCancel(ctx), func(r *lock.Record) { r.LockID, r.Stage = id, "restore" })
	}
}

// undigested is told that terraform has written a state and not its digest.
func (k *keeper) undigested() {
	k.mu.Lock()
	k.behind = true
	k.mu.Unlock()
}

func (k *keeper) digestLost() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.behind
}

// noErrored fails where another run's errored.tfstate is in the directory: what
// it has is in no state, and an apply would do it a second time.
func (set *settings) noErrored() error {
	file := filepath.Join(set.dir, erroredState)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return &codeError{code: ExitFailed, msg: file + " is left of another run: it has what the state has not, and nothing is applied over it", hint: "tfguard state repair"}
}

// sound fails where a run that died has left a digest that does not match.
func (k *keeper) sound(ctx context.Context) error {
	if k.run.command != "plan" && k.run.command != "apply" && k.run.command != "destroy" {
		return nil // a repair comes to mend it
	}
	match, err := k.t.digestMatches(ctx)
	if err != nil || match {
		return err
	}
	return &codeError{code: ExitFailed, msg: fmt.Sprintf("the digest of %s does not match its state: the run before was killed between the two", k.t.addr), hint: "tfguard state repair"}
}

// attempt is one apply of terraform: what it started from, and when it ran.
type attempt struct {
	from         state.Head
	began, ended time.Time
}

// rescue mends what terraform could not write at its end: a state that is in
// errored.tfstate, a digest. It gives nil where that was all that went wrong
// and it is mended. The run holds the state's holder record; terraform's lock is
// taken for the writing.
func (a *applier) rescue(ctx context.Context, at attempt, err error) error {
	file := filepath.Join(a.run.set.dir, erroredState)
	_, statErr := os.Lstat(file)
	left := statErr == nil
	if !left && !a.keep.digestLost() {
		return err
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), rescueTime)
	defer stop()
	store := a.t.snapshots(a.run.set, snapshot.Options{Run: a.run.id, Commit: a.run.commit(clean)})
	mended := error(nil)
	if left {
		mended = a.pushBack(clean, store, file, at)
	} else {
		mended = a.mendDigest(clean, store)
	}
	switch {
	case mended != nil:
		if err != nil {
			mended = fmt.Errorf("%w; %w", err, mended)
		}
		return mended
	case err == nil:
		return nil
	}
	var f *terraform.Failure
	if errors.As(err, &f) && f.OnlyNotSaved() {
		return nil
	}
	return err
}

// mendDigest writes the digest that terraform could not.
func (a *applier) mendDigest(ctx context.Context, store *snapshot.Store) error {
	if match, err := a.t.digestMatches(ctx); err == nil && match {
		return nil // a later try of terraform's wrote it
	}
	err := a.again(ctx, func() error {
		_, err := store.RepairDigest(ctx, a.options(ctx))
		return err
	})
	if err != nil {
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("terraform could not write the digest of %s, and tfguard could not either: %v", a.t.addr, err), hint: "tfguard state repair"}
	}
	a.run.warn("terraform could not write the state's digest: tfguard wrote it", "")
	return nil
}

// pushBack keeps errored.tfstate in the bucket and makes it the state where it
// continues what is there.
func (a *applier) pushBack(ctx context.Context, store *snapshot.Store, file string, at attempt) error {
	if err := os.Chmod(file, 0o600); err != nil { // terraform leaves it 0644, with secrets
		a.run.warn("make "+file+" private: "+err.Error(), "")
	}
	c, err := store.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	defer c.Close()
	var key string
	err = a.again(ctx, func() (err error) {
		key, err = store.KeepErrored(ctx, a.run.id, c)
		return err
	})
	if err != nil {
		return &unsavedError{file: file, why: "the bucket does not take it: " + err.Error()}
	}
	a.run.sink.Emit(event.Output{Source: string(pipeline.Apply), Text: "terraform could not write the state; its errored.tfstate is kept in s3://" + a.t.addr.Bucket + "/" + key})
	var done snapshot.Result
	err = a.again(ctx, func() (err error) {
		done, err = store.Push(ctx, c, func(now snapshot.Found) error { return at.continuedBy(now, c, time.Now()) }, a.options(ctx))
		return err
	})
	if err != nil {
		sides, diffErr := a.t.sides(ctx, store, c)
		if diffErr == nil {
			for _, line := range sides {
				a.run.sink.Emit(event.Output{Source: string(pipeline.Apply), Text: line})
			}
		}
		return &unsavedError{file: file, why: err.Error()}
	}
	if err := a.t.clearErrored(ctx, store, file, c.SHA256()); err != nil {
		a.run.warn("the state is saved, its errored.tfstate could not be taken away: "+err.Error(), "tfguard state repair")
	}
	a.run.warn(fmt.Sprintf("terraform could not write the state: tfguard wrote it from errored.tfstate, as serial %d", done.Serial), "")
	return nil
}

// unsavedError is a state that stays in errored.tfstate.
type unsavedError struct{ file, why string }

func (e *unsavedError) Error() string {
	return "the state could not be written and is in " + e.file + ": " + e.why
}

func (e *unsavedError) Is(target error) bool { return target == state.ErrNotSaved }

// options are for what this run writes after terraform has ended.
func (a *applier) options(ctx context.Context) snapshot.RestoreOptions {
	version, _ := a.Version(ctx) // known by now
	o := a.t.restoreOptions(ctx, a.keep, version)
	o.Operation, o.Reason = "state-rescue", snapshot.PreRepair
	return o
}

// again tries until it succeeds, ctx ends, or the reason is none that passes: a
// service that does not answer, and a lock that somebody else holds, do.
func (a *applier) again(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil || !backend.Is(err, backend.Unreachable) && !errors.Is(err, lock.ErrHeld) {
			return err
		}
		if errors.Is(err, lock.ErrHeld) { // by this run's own terraform, where the store did not answer at its end
			if removeErr := a.keep.clearOwn(ctx); removeErr != nil {
				return fmt.Errorf("%w; %w", err, removeErr)
			}
		}
		timer := time.NewTimer(rescuePause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// clockSlack bounds what whole seconds in two headers hide of a difference
// between two clocks.
const clockSlack = 2 * time.Second

// continuedBy says why the errored state of this attempt does not continue the
// state that is there now. It does where that is what was planned from; and
// where terraform itself wrote it in between, as it does every 20 s: then it was
// written by the store's clock while terraform ran, which held the lock.
func (at attempt) continuedBy(now snapshot.Found, c *snapshot.Content, local time.Time) error {
	unproven := func(format string, args ...any) error {
		return &notNext{why: fmt.Sprintf(format, args...)}
	}
	if next := continues(now.Head, c); next != nil {
		return next
	}
	switch {
	case !now.Exists && at.from.Exists:
		return unproven("the state has been deleted since")
	case now.Same(at.from): // which is none where this was the first apply
		return nil
	case now.Now.IsZero() || now.Modified.IsZero():
		return unproven("the state has serial %d, the plan was made from %d", now.Serial, at.from.Serial)
	}
	ahead := now.Now.Sub(local)
	written := now.Modified.Add(-ahead) // by this machine's clock
	if written.Before(at.began.Add(-clockSlack)) || written.After(at.ended.Add(-clockSlack)) {
		return unproven("serial %d was written when this run's terraform did not hold the lock", now.Serial)
	}
	return nil
}
