package app

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/ui"
)

func snapshotCommand(s Streams) *cli.Command {
	exits := []int{ExitOK, ExitFailed, ExitUsage, ExitBackend, ExitSnapshot}
	return &cli.Command{
		Name: "snapshot", Usage: "copies of the state",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the copies, newest first", UsageText: "tfguard snapshot list [flags]",
				Flags: common(), Description: codes(ExitOK, ExitFailed, ExitUsage, ExitBackend),
				Action: func(c *cli.Context) error {
					if err := noArgs(c); err != nil {
						return err
					}
					return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error { return listSnapshots(ctx, s, set, t) })
				},
			},
			{
				Name: "create", Usage: "copy the state as it is now", UsageText: "tfguard snapshot create [flags]",
				Flags: common(), Description: codes(exits...),
				Action: func(c *cli.Context) error {
					if err := noArgs(c); err != nil {
						return err
					}
					return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error { return createSnapshot(ctx, s, set, t) })
				},
			},
			restoreCommand(s),
			showCommand(s), diffCommand(s), pruneCommand(s),
		},
	}
}

func listSnapshots(ctx context.Context, s Streams, set *settings, t *target) error {
	list, err := t.snapshots(set, snapshot.Options{}).List(ctx)
	if err != nil {
		return err
	}
	if set.json {
		return printJSON(s.Out, struct {
			Version   int                 `json:"version"`
			State     string              `json:"state"`
			Snapshots []snapshot.Snapshot `json:"snapshots"`
		}{1, t.addr.String(), append([]snapshot.Snapshot{}, list...)})
	}
	if len(list) == 0 {
		fmt.Fprintf(s.Out, "%s: no snapshot yet; an apply makes one before it changes anything\n", t.addr)
		return nil
	}
	var rows [][]string
	for _, sn := range list {
		commit := sn.Commit
		if len(commit) > 8 {
			commit = commit[:8]
		}
		resources := "-"
		if sn.Resources != nil {
			resources = strconv.Itoa(*sn.Resources)
		}
		rows = append(rows, []string{sn.ID, sn.Time.UTC().Format("2006-01-02 15:04:05Z"), sn.Reason, strconv.FormatUint(sn.Serial, 10), resources, strconv.FormatInt(sn.Size, 10), sn.Run, commit})
	}
	ui.Table(s.Out, []string{"ID", "TIME", "REASON", "SERIAL", "RESOURCES", "SIZE", "RUN", "COMMIT"}, rows, ui.Left, ui.Left, ui.Left, ui.Right, ui.Right, ui.Right)
	return nil
}

func createSnapshot(ctx context.Context, s Streams, set *settings, t *target) error {
	r := &run{id: engine.NewID(time.Now()), set: set, streams: s}
	store := t.snapshots(set, snapshot.Options{Run: r.id, Commit: r.commit(ctx)})
	h, err := store.Head(ctx)
	if err != nil {
		return &keptError{err}
	}
	if !h.Exists {
		return &codeError{code: ExitSnapshot, msg: fmt.Sprintf("%s has no state yet: there is nothing to copy", t.addr), hint: "tfguard apply"}
	}
	kept, err := store.Keep(ctx, h, snapshot.Manual)
	if err != nil {
		return &keptError{fmt.Errorf("keep a copy of %s: %w", t.addr, err)}
	}
	if set.json {
		return printJSON(s.Out, kept)
	}
	fmt.Fprintf(s.Out, "%s  serial %d  s3://%s\n", kept.ID, kept.Serial, kept.Key)
	return nil
}
