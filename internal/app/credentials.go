package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/snapshot"
)

// enough compares what is left of the credentials with how long applies of this
// stack took: where they end first, terraform can neither save its state nor
// free its lock. That is a warning, or with guard { credentials = "required" } an
// error before terraform is started. Credentials that are renewed by themselves,
// or of which no end is known, are taken to last.
func (a *applier) enough(ctx context.Context) error {
	ends, known := a.t.clients.Ends(ctx)
	if !known {
		return nil
	}
	took, from := a.took(ctx)
	left := time.Until(ends)
	if left > took {
		return nil
	}
	text := fmt.Sprintf("the credentials end in %s, and an apply of this stack took %s (%s)", left.Round(time.Second), took.Round(time.Second), from)
	if left <= 0 {
		text = "the credentials ended at " + ends.UTC().Format(time.RFC3339)
	}
	hint := "renew the credentials first: when they end within an apply, its state cannot be saved"
	if s := a.run.set.file.Guard.Credentials; s != nil && *s == "required" {
		return &codeError{code: ExitRefused, msg: text + "; nothing was applied", hint: hint}
	}
	a.run.warn(text, hint)
	return nil
}

// longestApply bounds what is believed to have been one apply: the state may
// have been written by something else since.
const longestApply = 12 * time.Hour

// took is the longest that an apply of this stack is known to have taken, and
// from what: the runs of this folder, and in the bucket the time from the copy
// before the last apply to the state that it wrote. Where nothing is known, an
// apply takes no time.
func (a *applier) took(ctx context.Context) (most time.Duration, from string) {
	runs, _ := engine.Runs(a.t.dir)
	for _, r := range runs {
		if end, ok := r.Result(); ok && end.Applied > most.Seconds() {
			most, from = time.Duration(end.Applied*float64(time.Second)), "run "+r.ID
		}
	}
	store := a.t.snapshots(a.run.set, snapshot.Options{})
	head, err := store.Head(ctx)
	if err != nil || !head.Exists {
		return most, from
	}
	all, err := store.List(ctx)
	if err != nil {
		return most, from // it is a guess at best
	}
	for _, sn := range all { // newest first
		if sn.Lineage == head.Lineage && sn.Serial < head.Serial {
			if d := head.Modified.Sub(sn.Time); d > most && d < longestApply {
				most, from = d, "after snapshot "+sn.ID
			}
			break
		}
	}
	return most, from
}
