package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
)

// settleTimeout fits into the five minutes that a runner gives to the steps
// after a cancelled one.
const settleTimeout = 4*time.Minute + 30*time.Second

func settleCommand(s Streams) *cli.Command {
	timeout := dur("timeout", "how long to wait")
	timeout.Value = settleTimeout
	return &cli.Command{
		Name: "settle", Usage: "wait for a run that goes on in the background", UsageText: "tfguard settle [flags]",
		Description: "For a step that always runs, after one that may be cancelled: a run whose foreground was killed\n" +
			"ends cleanly in the background. It is shown and waited for; its exit code is settle's own.\n\n" +
			"Exit codes: that of the run, 0 where none goes on, and\n  131  the time ran out; the run goes on",
		Flags: append(common(), str("run", "wait for the run `ID` alone"), timeout),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			set, err := newSettings(c, s)
			if err != nil {
				return err
			}
			return settle(c, s, set)
		},
	}
}

func settle(c *cli.Context, s Streams, set *settings) error {
	runs, err := engine.Runs(set.dir)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeoutCause(c.Context, c.Duration("timeout"), errSettleTime)
	defer stop()
	var worst error
	found := false
	for _, folder := range runs {
		if id := c.String("run"); id != "" && id != folder.ID || !folder.GoesOn() {
			continue
		}
		found = true
		show := newView(&run{id: folder.ID, command: "settle", streams: s, set: set}, c)
		fmt.Fprintf(s.Err, "tfguard: waiting for run %s\n", folder.ID)
		err := folder.Follow(ctx, whileItGoesOn(folder), show.Emit)
		switch {
		case errors.Is(err, errSettleTime):
			return &codeError{code: ExitCancelUnclean, msg: fmt.Sprintf("run %s still goes on after %s, at stage %s", folder.ID, c.Duration("timeout"), show.stage()),
				hint: "tfguard settle --run " + folder.ID}
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
			return &codeError{code: ExitCancelUnclean, msg: fmt.Sprintf("%v; run %s goes on, at stage %s", err, folder.ID, show.stage()),
				hint: "tfguard settle --run " + folder.ID}
		case errors.Is(err, engine.ErrDied):
			err = &codeError{code: ExitCancelUnclean, msg: fmt.Sprintf("run %s was killed at stage %s; its lock may be left", folder.ID, show.stage()), hint: "tfguard locks"}
		case err == nil:
			err = show.result()
		}
		show.finish()
		if err != nil {
			worst = err
		}
	}
	if !found && !set.json && !set.quiet {
		fmt.Fprintln(s.Out, "no run goes on")
	}
	return worst
}

var errSettleTime = errors.New("the time of settle ran out")

// whileItGoesOn looks for more of a run that this process did not start.
func whileItGoesOn(folder *engine.Run) func(context.Context) bool {
	return func(ctx context.Context) bool {
		timer := time.NewTimer(100 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		return folder.GoesOn()
	}
}

var _ event.Sink = (*view)(nil)
