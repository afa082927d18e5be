package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

// BlockedError is a lock that stops the run.
type BlockedError struct{ Verdict lock.Verdict }

func (e *BlockedError) Error() string {
	names := make([]string, 0, len(e.Verdict.Locks))
	for _, l := range e.Verdict.Locks {
		if l.Status == e.Verdict.Status && !slices.Contains(names, l.Name()) {
			names = append(names, l.Name())
		}
	}
	what := strings.Join(names, ", ")
	switch e.Verdict.Status {
	case lock.Active:
		return fmt.Sprintf("%s is locked by %s, which is active", e.Verdict.State, what)
	case lock.Stale:
		return fmt.Sprintf("%s is locked by %s, which is stale and waits for approval", e.Verdict.State, what)
	}
	return fmt.Sprintf("%s has a lock that cannot be judged: %s", e.Verdict.State, what)
}

// ApprovalChangedError is a lock that is not the one that was approved.
type ApprovalChangedError struct {
	Verdict  lock.Verdict
	Approved []string
}

func (e *ApprovalChangedError) Error() string {
	return fmt.Sprintf("the lock on %s is no longer the one that was approved (%s); nothing was removed",
		e.Verdict.State, strings.Join(e.Approved, ", "))
}

func (p *Pipeline) lockCheck(ctx context.Context, a backend.Address) (Free, string, error) {
	v, err := p.awaitLock(ctx)
	if err != nil {
		return Free{}, "", err
	}
	free := Free{Target: Target{a}, seen: v}
	switch {
	case v.Status == lock.None && !a.Locked():
		return free, "this backend has no locking", nil
	case v.Status == lock.None:
		return free, "no lock", nil
	case p.IgnoreLocks:
		return free, fmt.Sprintf("%s lock, ignored by --lock=false", v.Status), nil
	case v.Status == lock.Stale:
		note, err := p.unlockStale(ctx, v)
		return free, note, err
	}
	return free, "", &BlockedError{v}
}

// awaitLock judges the lock, and where that is wanted judges again until it is
// no longer active or the waiting time is over.
func (p *Pipeline) awaitLock(ctx context.Context) (lock.Verdict, error) {
	until := p.Now().Add(p.Wait)
	var last lock.Verdict
	for first := true; ; first = false {
		v, err := p.Locks.Observe(ctx)
		if err != nil {
			return v, err
		}
		if first || !v.Same(last) || v.Status != last.Status {
			p.Sink.Emit(event.Lock{Report: v.Report()})
		}
		last = v
		if v.Status != lock.Active || p.IgnoreLocks || !p.Now().Before(until) {
			return v, nil
		}
		// Jitter keeps those who wait for one lock from asking in step.
		pause := min(p.Poll/2+rand.N(p.Poll), until.Sub(p.Now()))
		select {
		case <-ctx.Done():
			return v, context.Cause(ctx)
		case <-time.After(max(pause, time.Millisecond)):
		}
	}
}

// unlockStale removes the stale locks that somebody approved.
func (p *Pipeline) unlockStale(ctx context.Context, v lock.Verdict) (string, error) {
	ids, by, err := p.Person.ApproveUnlock(ctx, v)
	if err != nil {
		return "", err
	}
	if len(ids) == 0 {
		p.Sink.Emit(event.ApprovalNeeded{What: "unlock", LockIDs: v.Report().StaleIDs(),
			Hint: "tfguard unlock --id " + strings.Join(v.Report().StaleIDs(), " --id ")})
		return "", &BlockedError{v}
	}
	if err := RemoveApproved(ctx, p.Locks, v, ids, by); err != nil {
		return "", err
	}
	again, err := p.Locks.Observe(ctx)
	if err != nil {
		return "", err
	}
	p.Sink.Emit(event.Lock{Report: again.Report()})
	if again.Status != lock.None {
		return "", &BlockedError{again}
	}
	return "removed stale lock " + strings.Join(ids, ", "), nil
}

// RemoveApproved removes the locks of v that are named in ids, in every store
// that holds them. Every lock of v must be named: a lock that nobody approved
// stays, and then nothing is removed at all.
func RemoveApproved(ctx context.Context, locks Locks, v lock.Verdict, ids []string, by string) error {
	for _, e := range v.Locks {
		if !slices.Contains(ids, e.Name()) {
			return &ApprovalChangedError{v, ids}
		}
	}
	for _, e := range v.Locks {
		err := locks.Remove(ctx, e, by)
		switch {
		case errors.Is(err, lock.ErrGone):
			// somebody released it first: what was wanted
		case errors.Is(err, lock.ErrChanged):
			return &ApprovalChangedError{v, ids}
		case err != nil:
			return err
		}
	}
	return nil
}
