package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// recheck makes sure that nobody took the lock and nobody wrote the state
// since the plan was made. It does not wait: after another run's apply the
// plan would not hold any more.
func (p *Pipeline) recheck(ctx context.Context, planned Planned) (Fresh, string, error) {
	var (
		wg               sync.WaitGroup
		v                lock.Verdict
		now              state.Head
		lockErr, headErr error
	)
	wg.Go(func() { v, lockErr = p.Locks.Observe(ctx) })
	wg.Go(func() { now, headErr = p.States.Head(ctx) })
	wg.Wait()
	switch {
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
	return Fresh{Planned: planned, again: v}, "still no lock, state unchanged", nil
}
