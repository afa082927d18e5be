package pipeline

import "context"

// Holder keeps other tfguard runs out from plan to the end of apply. A holder
// that is lost in between cancels the run's context.
type Holder interface {
	// Take fails with lock.ErrHeld where another run was faster.
	Take(ctx context.Context) error
	// Enter says at which stage the run is; it fails where the run is no longer
	// the holder.
	Enter(ctx context.Context, stage Name) error
	// Release ends it, also for a run that never took it.
	Release(ctx context.Context)
}
