package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
)

func restoreCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "put a copy back as the state",
		UsageText: "tfguard snapshot restore [flags] ID",
		Description: "Takes the state's lock, copies what is there, writes the old content with a serial above\n" +
			"every serial ever seen, repairs the digest, and lets terraform plan from it.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean),
		Flags: append(append(common(), terraformFlags()...),
			yes("auto-approve", "do not ask"), yes("allow-lineage-change", "restore over a state of another lineage"), noDetachFlag()),
		Action: func(c *cli.Context) error {
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
	version, err := p.Applier.(*applier).Version(ctx)
	if err != nil {
		return err
	}
	store := t.snapshots(r.set, snapshot.Options{Run: r.id, Commit: r.commit(ctx), TerraformVersion: version})
	chosen, err := store.Find(ctx, id)
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
	o := snapshot.RestoreOptions{Who: who(), Version: version, AllowLineageChange: c.Bool("allow-lineage-change"),
		Report: func(step string) { r.sink.Emit(event.Output{Source: "restore", Text: step}) }}
	for _, l := range t.stores() {
		o.Locks = append(o.Locks, l)
	}
	if t.table != nil {
		o.Digests = t.table
	}
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
	if failed.Locked {
		return &uncleanError{err: err, left: []string{"a lock of this restore may be left"}}
	}
	if failed.Left == snapshot.LeftOld && ctx.Err() == nil {
		return &keptError{err}
	}
	return err
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
