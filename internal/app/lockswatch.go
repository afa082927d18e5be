package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/ui"
)

// lookEvery is the default of --interval.
const lookEvery = 5 * time.Second

// watchLocks judges the lock again and again, and prints each verdict that says
// something new, until it is cancelled. Then it ends with the code of the last
// verdict, as `locks` at that moment would have. A look that fails ends it.
func watchLocks(ctx context.Context, set *settings, t *target, s Streams) error {
	interval := or(set, "interval", asDuration, nil, lookEvery)
	if interval < 100*time.Millisecond {
		return usagef(set.cli, "--interval %s: it is 100ms or more", interval)
	}
	var last *lock.Verdict
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		v, err := t.Observe(ctx)
		switch {
		case ctx.Err() != nil && last != nil:
			return endLocks(s, set, last.Report())
		case err != nil:
			return err
		case last == nil || !v.Alike(*last):
			if err := printLocks(s, set, v.Report(), last != nil); err != nil {
				return err
			}
		}
		last = &v
		select {
		case <-tick.C:
		case <-ctx.Done():
			return endLocks(s, set, v.Report())
		}
	}
}

// printLocks prints a verdict; one that follows another begins with the time.
func printLocks(s Streams, set *settings, report lock.Report, again bool) error {
	if set.json {
		return printJSON(s.Out, report)
	}
	if again {
		if _, err := fmt.Fprintf(s.Out, "\n%s\n", time.Now().UTC().Format("2006-01-02 15:04:05 UTC")); err != nil {
			return fmt.Errorf("print the verdict: %w", err)
		}
	}
	ui.Locks(s.Out, report, set.color)
	return nil
}

// endLocks tells the CI system and ends with the verdict's code.
func endLocks(s Streams, set *settings, report lock.Report) error {
	code := locksCode(report.Status, set.cli.Bool("strict"))
	tellCILocks(s, report, code)
	if code != ExitOK {
		return &codeError{code: code}
	}
	return nil
}

// locksCode is what `locks` ends with: 0 for a stale lock unless that is strict.
func locksCode(worst lock.Status, strict bool) int {
	if worst == lock.Stale && !strict {
		return ExitOK
	}
	return verdictCode(worst)
}
