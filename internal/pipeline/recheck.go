package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// recheck makes sure that nobody took the lock since the plan was made, and
// that this run is still the holder. It does not wait: after another run's
// apply the plan would not hold any more. That the state is still the planned
// one is for the snapshot beside it to find, which reads it anyway; only where
// there was no state, and so nothing to copy, it is looked for here.
func (p *Pipeline) recheck(ctx context.Context, planned Planned) (Fresh, string, error) {
	var (
		wg                          sync.WaitGroup
		v                           lock.Verdict
		now                         = planned.from
		lockErr, headErr, holderErr error
	)
	wg.Go(func() { v, lockErr = p.Locks.Observe(ctx) })
	wg.Go(func() { holderErr = p.Holder.Enter(ctx, Apply) })
	if !planned.from.Exists {
		wg.Go(func() { now, headErr = p.States.Head(ctx) })
	}
	wg.Wait()
	switch {
	case holderErr != nil:
		return Fresh{}, "", holderErr
	case lockErr != nil:
		return Fresh{}, "", lockErr
	case v.Status != lock.None:
		p.Sink.Emit(event.Lock{Report: v.Report()})
		return Fresh{}, "", &BlockedError{v}
	case headErr != nil:
		return Fresh{}, "", headErr
	case !now.Same(planned.from):
		return Fresh{}, "", fmt.Errorf("%w since the plan was made: it was made from %s, now there is %s",
			state.ErrChanged, planned.from, now)
	}
	return Fresh{Planned: planned, again: v}, "still no lock", nil
}
