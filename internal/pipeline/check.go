package pipeline

import (
	"context"
	"sync"
)

const checkNote = "formatted and valid"

// check formats, initialises and validates. initialised is called as soon as a
// plan can be made; validate goes on beside it.
func (p *Pipeline) check(ctx context.Context, initialised func()) error {
	var (
		wg              sync.WaitGroup
		fmtErr, initErr error
	)
	wg.Go(func() { fmtErr = p.Checker.Fmt(ctx) })
	wg.Go(func() { initErr = p.Checker.Init(ctx) })
	wg.Wait()
	if fmtErr != nil {
		return fmtErr
	}
	if initErr != nil {
		return initErr
	}
	initialised()
	return p.Checker.Validate(ctx)
}
