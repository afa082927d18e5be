package pipeline

import (
	"context"
	"fmt"

	"github.com/tfguard/tfguard/internal/event"
)

// snapshot keeps a copy of the state that the plan was made from.
func (p *Pipeline) snapshot(ctx context.Context, planned Planned) (event.Snapshot, string, error) {
	if !planned.from.Exists {
		return event.Snapshot{}, "no state yet, nothing to keep", nil
	}
	kept, err := p.States.Keep(ctx, planned.from, p.Reason)
	if err != nil {
		return event.Snapshot{}, "", fmt.Errorf("keep a copy of %s: %w", p.Address, err)
	}
	p.Sink.Emit(kept)
	return kept, kept.ID, nil
}
