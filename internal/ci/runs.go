package ci

import (
	"context"
	"github.com/tfguard/tfguard/internal/lock"
	"time"
)

type Runs interface {
	Run(ctx context.Context, r lock.CIRun) (lock.RunSeen, error)
	Around(ctx context.Context, at time.Time) ([]lock.RunSeen, error)
}

func NewRuns(getenv func(string) string) Runs     { return nil }
func Self(getenv func(string) string) *lock.CIRun { return nil }
