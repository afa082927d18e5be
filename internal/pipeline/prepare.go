package pipeline

import (
	"context"

	"github.com/tfguard/tfguard/internal/backend"
)

func (p *Pipeline) prepare(ctx context.Context, a backend.Address) (Target, string, error) {
	note, err := p.Backend.Prepare(ctx)
	return Target{a}, note, err
}
