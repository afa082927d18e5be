package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/ui"
)

// withTarget runs a command about one state that is no run of the sequence.
func withTarget(c *cli.Context, s Streams, body func(context.Context, *settings, *target) error) error {
	set, err := newSettings(c, s)
	if err != nil {
		return err
	}
	t, err := set.target(c.Context)
	if err != nil {
		return err
	}
	return body(c.Context, set, t)
}

// printJSON prints a document, safe in a CI job's log.
func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(append(event.SafeJSON(b), '\n'))
	return err
}

func locksCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "locks", Usage: "judge this state's lock",
		UsageText: "tfguard locks [flags]",
		Description: "Reads the lock in every store of the backend and says what it is, and on which evidence.\n\n" + codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend) +
			"\n\nWith 0 there is no lock, or only stale ones; --strict exits 11 for those.\n" +
			"--all judges every lock of the table and of the bucket, which it reads as a whole.\n" +
			"--watch goes on until it is interrupted, and ends with the code of the last verdict.",
		Flags: append(common(), yes("strict", "exit 11 for a stale lock"), yes("all", "every lock of the table and the bucket"),
			yes("watch", "look again and again, and print what changes"), dur("interval", "with --watch, look every `DUR` (5s)")),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			if c.Bool("all") && c.Bool("watch") {
				return usagef(c, "--watch is of one state, it does not go with --all")
			}
			return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error {
				switch {
				case c.Bool("all"):
					return locksAll(ctx, set, t, s)
				case c.Bool("watch"):
					return watchLocks(ctx, set, t, s)
				}
				v, err := t.Observe(ctx)
				if err != nil {
					return err
				}
				report := v.Report()
				if err := printLocks(s, set, report, false); err != nil {
					return err
				}
				return endLocks(s, set, report)
			})
		},
	}
}

// tellCILocks writes the outputs of a verdict, also for workflows that were
// written for a lock detection script.
func tellCILocks(s Streams, report lock.Report, code int) {
	system := ci.Detect(os.Getenv)
	if system == nil {
		return
	}
	result := ci.Result{Command: "locks", Status: statusOf(code), ExitCode: code, State: report.State, Lock: &report}
	tellOutputs(s, system, result)
}

func unlockCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "unlock", Usage: "remove approved stale locks",
		UsageText: "tfguard unlock [flags] [--id ID]...",
		Description: "Removes a lock only while it is byte for byte the one that was judged and approved.\n" +
			"It is approved on a terminal, by --id, or by LOCK_IDS=\"ID ID\" in the environment.\n" +
			"An active lock needs --force with its ID; one that cannot be judged, --force with its fingerprint.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitChanged, ExitBackend),
		Flags: append(common(), list("id", "the `ID` of the approved lock, or its fingerprint with --force"),
			yes("force", "also remove a lock that is active or cannot be judged")),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error {
				return unlock(ctx, set, t, s)
			})
		},
	}
}

// unlocked is the document of `unlock --json`.
type unlocked struct {
	Version int         `json:"version"`
	State   string      `json:"state"`
	Removed []string    `json:"removed"`
	Status  lock.Status `json:"status"` // after it
}

func unlock(ctx context.Context, set *settings, t *target, s Streams) error {
	c := set.cli
	ids, by := values(c, "id"), caller()+" by --id"
	if len(ids) == 0 {
		ids, by = strings.Fields(os.Getenv("LOCK_IDS")), caller()+" by LOCK_IDS"
	}
	force := c.Bool("force")
	if force && len(c.StringSlice("id")) == 0 {
		return &usageError{msg: "--force needs the lock's ID: --id ID", hint: "tfguard locks"}
	}
	v, err := t.Observe(ctx)
	if err != nil {
		return err
	}
	if v.Status == lock.None {
		return sayUnlocked(s, set, unlocked{Version: 1, State: v.State, Removed: []string{}, Status: lock.None})
	}
	switch {
	case !set.json:
		ui.Locks(s.Out, v.Report(), set.color)
	case s.Terminal: // who may be asked sees the evidence first
		ui.Locks(s.Err, v.Report(), set.color)
	}
	if len(ids) > 0 {
		for _, e := range v.Locks {
			// A living record is no lock that anybody approves: it blocks, below.
			if !slices.Contains(ids, e.Name()) && (force || e.Observation.Store != lock.Holder) {
				return &pipeline.ApprovalChangedError{Verdict: v, Approved: ids}
			}
		}
	}
	switch {
	case v.Status.Blocks() && !force:
		return &pipeline.BlockedError{Verdict: v}
	case v.Status.Blocks() && s.Terminal:
		name := v.Locks[0].Name()
		answer, err := ask(ctx, s, fmt.Sprintf("\nThis lock is %s. Whoever holds it may be changing resources now.\nType its ID to remove it all the same: ", v.Status))
		if err != nil {
			return err
		}
		if answer != name {
			return &codeError{code: verdictCode(v.Status), msg: "not confirmed; nothing was removed"}
		}
		by += ", confirmed on a terminal"
	case len(ids) == 0 && !s.Terminal:
		return &pipeline.BlockedError{Verdict: v}
	case len(ids) == 0:
		p := &person{streams: s, unlockStale: unlockApproved}
		if ids, by, err = p.ApproveUnlock(ctx, v); err != nil {
			return err
		}
		if len(ids) == 0 {
			return &codeError{code: ExitStale, msg: "not approved; nothing was removed"}
		}
	}
	if force {
		by += ", forced"
	}
	if err := pipeline.RemoveApproved(ctx, t, v, ids, by); err != nil {
		return err
	}
	after, err := t.Observe(ctx)
	if err != nil {
		return fmt.Errorf("removed, but reading again failed: %w", err)
	}
	names := []string{}
	for _, e := range v.Locks {
		if !slices.Contains(names, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return sayUnlocked(s, set, unlocked{Version: 1, State: v.State, Removed: names, Status: after.Status})
}

func sayUnlocked(s Streams, set *settings, u unlocked) error {
	if system := ci.Detect(os.Getenv); system != nil {
		after := lock.Report{Version: 1, State: u.State, Status: u.Status, Locks: []lock.ReportEntry{}}
		tellOutputs(s, system, ci.Result{Command: "unlock", Status: event.OK, State: u.State, Lock: &after})
	}
	if set.json {
		return printJSON(s.Out, u)
	}
	switch {
	case len(u.Removed) == 0:
		fmt.Fprintf(s.Out, "%s: no lock, nothing to remove\n", u.State)
	default:
		fmt.Fprintf(s.Out, "%s: removed %s\n", u.State, strings.Join(u.Removed, ", "))
	}
	if u.Status != lock.None {
		fmt.Fprintf(s.Out, "%s: somebody has taken a lock since: %s\n", u.State, u.Status)
	}
	return nil
}
