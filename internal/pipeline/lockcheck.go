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
	"github.com/tfguard/tfguard/internal/quote"
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

// lockCheck ends with a state that nobody has locked and that this run is the
// holder of, so that no other tfguard run gets in from here on.
func (p *Pipeline) lockCheck(ctx context.Context, a backend.Address) (Free, string, error) {
	until := p.Now().Add(p.Wait)
	for {
		v, err := p.awaitLock(ctx, until)
		if err != nil {
			return Free{}, "", err
		}
		note, err := p.free(ctx, a, v)
		if err != nil || p.IgnoreLocks {
			return Free{Target: Target{a}, seen: v}, note, err
		}
		err = p.Holder.Take(ctx)
		if err == nil {
			return Free{Target: Target{a}, seen: v}, note, nil
		}
		if !errors.Is(err, lock.ErrHeld) {
			return Free{}, "", err
		}
		// Another run was faster: what it holds now is judged as any lock.
		if !p.Now().Before(until) {
			if v, err = p.Locks.Observe(ctx); err != nil {
				return Free{}, "", err
			}
			if v.Status != lock.None {
				p.Sink.Emit(event.Lock{Report: v.Report()})
				return Free{}, "", &BlockedError{v}
			}
		}
		if err := p.pause(ctx, p.Poll/10); err != nil {
			return Free{}, "", err
		}
	}
}

// free says why a verdict lets the run go on, or removes what was approved.
func (p *Pipeline) free(ctx context.Context, a backend.Address, v lock.Verdict) (string, error) {
	switch {
	case v.Status == lock.None && !a.Locked():
		return "this backend has no locking", nil
	case v.Status == lock.None:
		return "no lock", nil
	case p.IgnoreLocks:
		return fmt.Sprintf("%s lock, ignored by --lock=false", v.Status), nil
	case v.Status == lock.Stale:
		return p.unlockStale(ctx, v)
	}
	return "", &BlockedError{v}
}

// awaitLock judges the lock, and where that is wanted judges again until it is
// no longer active or the waiting time is over.
func (p *Pipeline) awaitLock(ctx context.Context, until time.Time) (lock.Verdict, error) {
	var last lock.Verdict
	for first := true; ; first = false {
		v, err := p.Locks.Observe(ctx)
		if err != nil {
			return v, err
		}
		if first || !v.Alike(last) {
			p.Sink.Emit(event.Lock{Report: v.Report()})
		}
		last = v
		if v.Status != lock.Active || p.IgnoreLocks || !p.Now().Before(until) {
			return v, nil
		}
		if first {
			p.Sink.Emit(event.Output{Source: string(LockCheck), Text: waitingFor(v, until.Sub(p.Now()))})
		}
		if err := p.pause(ctx, min(p.Poll, until.Sub(p.Now()))); err != nil {
			return v, err
		}
	}
}

// waitingFor names the holder that is waited for.
func waitingFor(v lock.Verdict, most time.Duration) string {
	e := v.Locks[len(v.Locks)-1] // the holder record, where there is one: it knows most
	text := fmt.Sprintf("waiting up to %s for %s (%s", most.Round(time.Second), e.Info.Who, e.Info.Operation)
	if !e.Info.Created.IsZero() {
		text += ", since " + e.Info.Created.Format("15:04:05") + " UTC"
	}
	if e.Run != nil && e.Run.URL != "" {
		text += ", " + e.Run.URL
	}
	return quote.Line(text+")", 500)
}

// pause waits about d. Jitter keeps those who wait for one lock from asking in
// step.
func (p *Pipeline) pause(ctx context.Context, d time.Duration) error {
	d = max(d/2+rand.N(d/2+1), time.Millisecond)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
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
