package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

func (p *Pipeline) apply(ctx context.Context, s Saved) (struct{}, string, error) {
	if err := p.pastOwnLock(ctx, func() error { return p.Applier.Apply(ctx, s.file) }); err != nil {
		return struct{}{}, "", p.explainLock(ctx, err)
	}
	done := fmt.Sprintf("%d added, %d changed, %d destroyed", s.plan.Add, s.plan.Change, s.plan.Destroy)
	return struct{}{}, done, nil
}

// explainLock turns terraform's "Error acquiring the state lock" into a
// verdict on the lock that it met. The lock may be gone again by now.
func (p *Pipeline) explainLock(ctx context.Context, err error) error {
	if !errors.Is(err, lock.ErrHeld) {
		return err
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), p.CleanUp)
	defer stop()
	v, readErr := p.Locks.Observe(clean)
	if readErr != nil || v.Status == lock.None {
		return err
	}
	p.Sink.Emit(event.Lock{Report: v.Report()})
	return &BlockedError{v}
}

// pastOwnLock runs terraform once more where its lock was refused by the lock
// that its own first write had left: it is no other run's, and the process that
// wrote it has ended. The ID proves it; anything else in the way stays. Often that
// lock is gone by now, since a run takes away what its terraform leaves.
func (p *Pipeline) pastOwnLock(ctx context.Context, run func() error) error {
	err := run()
	var own interface{ OwnLock() string }
	if !errors.As(err, &own) || own.OwnLock() == "" {
		return err
	}
	v, readErr := p.Locks.Observe(ctx)
	if readErr == nil && v.Status == lock.None {
		return run()
	}
	if readErr != nil || !v.OnlyOf(own.OwnLock()) {
		return err
	}
	if err := RemoveApproved(ctx, p.Locks, v, []string{own.OwnLock()}, "this run, whose own write left it"); err != nil {
		return err
	}
	return run()
}
