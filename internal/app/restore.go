package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/ui"
)

func restoreCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "put a copy back as the state",
		UsageText: "tfguard snapshot restore [flags] ID",
		Description: "Shows what would change, takes the state's lock, copies what is there, writes the old content\n" +
			"with a serial above every serial ever seen, repairs the digest, and lets terraform plan from it.\n\n" +
			"--drill does the same beside the state, under a key of its own, and takes it away again: proof\n" +
			"that restoring works, for a scheduled job. Without an ID it tries the newest copy.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean),
		Flags: append(append(common(), terraformFlags()...),
			yes("auto-approve", "do not ask"), yes("allow-lineage-change", "restore over a state of another lineage"),
			yes("drill", "try it out in a scratch key; the state is not touched"), unlockStaleFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if c.Bool("drill") && c.NArg() <= 1 {
				return reported(c, s, nil, func(ctx context.Context, r *run) error { return r.drill(ctx, c.Args().First()) })
			}
			if c.NArg() != 1 {
				return &usageError{msg: "restore takes the ID of one snapshot", hint: "tfguard snapshot list"}
			}
			id := c.Args().First()
			return reported(c, s, func(r *run) error {
				if c.Bool("auto-approve") || s.Terminal {
					return nil
				}
				return &usageError{msg: "restore needs an answer and there is no terminal to ask on", hint: "tfguard snapshot restore --auto-approve " + quote.Shell(id)}
			}, func(ctx context.Context, r *run) error { return r.restore(ctx, id) })
		},
	}
}

func (r *run) restore(ctx context.Context, id string) error {
	c := r.set.cli
	p, t, err := r.pipeline(ctx, "", "restore")
	if err != nil {
		return err
	}
	if err := t.connect(ctx); err != nil {
		return err
	}
	version, err := p.Applier.(*applier).Version(ctx)
	if err != nil {
		return err
	}
	store := t.snapshots(r.set, snapshot.Options{Run: r.id, Commit: r.commit(ctx), TerraformVersion: version})
	chosen, err := r.showRestore(ctx, store, id)
	if err != nil {
		return err
	}
	if !c.Bool("auto-approve") {
		answer, err := ask(ctx, r.streams, fmt.Sprintf("\nPut %s (serial %d of %s) back as the state %s?\nOnly 'yes' will be accepted: ",
			chosen.ID, chosen.Serial, chosen.Time.UTC().Format("2006-01-02 15:04Z"), t.addr))
		if err != nil {
			return err
		}
		if answer != "yes" {
			return &codeError{code: ExitFailed, msg: "restore was not approved; nothing was changed"}
		}
	}
	o := t.restoreOptions(ctx, p.Holder.(*keeper), version)
	o.AllowLineageChange = c.Bool("allow-lineage-change")
	o.Report = func(step string) { r.sink.Emit(event.Output{Source: "restore", Text: step}) }
	if err := p.Enter(ctx); err != nil {
		return err
	}
	defer p.Holder.Release(ctx)
	done, err := store.Restore(ctx, chosen.ID, o)
	if err != nil {
		return r.explainRestore(ctx, t, err)
	}
	if done.Kept.ID != "" {
		r.sink.Emit(done.Kept)
	}
	r.sink.Emit(event.Output{Source: "restore", Text: fmt.Sprintf("%s is the state again, as serial %d", chosen.ID, done.Serial)})
	if _, err := p.RunPlan(ctx); err != nil {
		return fmt.Errorf("the state is restored, terraform's plan from it failed: %w", err)
	}
	return nil
}

// explainRestore turns a lock that was met into a verdict on it.
func (r *run) explainRestore(ctx context.Context, t *target, err error) error {
	var failed *snapshot.RestoreError
	if errors.Is(err, lock.ErrHeld) {
		if v, readErr := t.Observe(ctx); readErr == nil && v.Status != lock.None {
			r.sink.Emit(event.Lock{Report: v.Report()})
			return &pipeline.BlockedError{Verdict: v}
		}
	}
	if !errors.As(err, &failed) {
		return err
	}
	var left []string
	if failed.Locked {
		left = append(left, "a lock of this run may be left: tfguard locks")
	}
	if failed.Left == snapshot.LeftUnknown {
		left = append(left, "which state is there could not be read: tfguard state verify")
	}
	if failed.Digest != "" {
		left = append(left, "the digest is not written: tfguard state repair")
	}
	switch {
	case failed.Locked, len(left) > 0 && ctx.Err() != nil:
		return &uncleanError{err: err, left: left}
	case len(left) > 0:
		_, hint, _ := strings.Cut(left[0], ": ")
		return &codeError{code: ExitFailed, msg: err.Error(), hint: hint}
	case ctx.Err() != nil, errors.Is(err, snapshot.ErrNotFound):
		return err
	case failed.Repair && errors.Is(err, state.ErrChanged):
		return &codeError{code: ExitChanged, msg: err.Error(), hint: "look again: tfguard state verify"}
	case failed.Repair && !errors.Is(err, snapshot.ErrNotKept):
		return err
	case failed.Left == snapshot.LeftOld:
		return &keptError{err}
	}
	return err
}

// showRestore finds the snapshot, verifies it, and shows what the state would
// become with it.
func (r *run) showRestore(ctx context.Context, store *snapshot.Store, id string) (snapshot.Snapshot, error) {
	chosen, c, err := store.Read(ctx, id)
	if errors.Is(err, snapshot.ErrRefused) {
		return chosen, &keptError{err}
	}
	if err != nil {
		return chosen, err
	}
	defer c.Close()
	diff, err := diffToState(ctx, store, c, true)
	lines := []string{"what is there now is no state, and cannot be compared"}
	switch {
	case err == nil:
		lines = ui.DiffLines(diff, maxShown)
	case !errors.Is(err, state.ErrNotState):
		return chosen, err
	}
	r.sink.Emit(event.Output{Source: "restore", Text: strings.Join(lines, "\n")})
	return chosen, nil
}

// who is this user as terraform writes it into a lock: user@host.
func who() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
