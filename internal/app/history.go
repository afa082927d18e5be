package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/ui"
)

func showCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "print a copy: its resources and outputs", UsageText: "tfguard snapshot show [flags] ID",
		Description: "What is sensitive is hidden: what the state marks as such, and every attribute whose name\n" +
			"says that it may be a secret.\n\n" + codes(ExitOK, ExitFailed, ExitUsage, ExitBackend),
		Flags: common(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return &usageError{msg: "show takes the ID of one snapshot", hint: "tfguard snapshot list"}
			}
			return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error {
				return showSnapshot(ctx, s, set, t, c.Args().First())
			})
		},
	}
}

// shownOutput and shownInstance are parts of `snapshot show --json`. A value
// that is hidden is left out.
type shownOutput struct {
	Name      string     `json:"name"`
	Value     jsonString `json:"value,omitempty"`
	Sensitive bool       `json:"sensitive,omitempty"`
}

type shownInstance struct {
	Address    string           `json:"address"`
	Provider   string           `json:"provider"`
	Tainted    bool             `json:"tainted,omitempty"`
	Attributes []shownAttribute `json:"attributes"`
}

type shownAttribute struct {
	Path      string     `json:"path"`
	Value     jsonString `json:"value,omitempty"`
	Sensitive bool       `json:"sensitive,omitempty"`
}

// jsonString is text that is JSON already.
type jsonString string

// MarshalJSON implements json.Marshaler.
func (j jsonString) MarshalJSON() ([]byte, error) { return []byte(j), nil }

func showSnapshot(ctx context.Context, s Streams, set *settings, t *target, id string) error {
	sn, c, err := t.snapshots(set, snapshot.Options{}).Read(ctx, id)
	if err != nil {
		return err
	}
	defer c.Close()
	if set.json {
		doc := struct {
			Version   int               `json:"version"`
			State     string            `json:"state"`
			Snapshot  snapshot.Snapshot `json:"snapshot"`
			Outputs   []shownOutput     `json:"outputs"`
			Resources []shownInstance   `json:"resources"`
		}{Version: 1, State: t.addr.String(), Snapshot: sn, Outputs: []shownOutput{}, Resources: []shownInstance{}}
		contents, err := state.Walk(readerOf(c), func(in state.Instance) error {
			shown := shownInstance{Address: in.Address, Provider: in.Provider, Tainted: in.Tainted, Attributes: []shownAttribute{}}
			for _, a := range in.Attributes {
				shown.Attributes = append(shown.Attributes, shownAttribute{a.Path, jsonString(a.Value), a.Hidden})
			}
			doc.Resources = append(doc.Resources, shown)
			return nil
		})
		if err != nil {
			return err
		}
		for _, o := range contents.Outputs {
			doc.Outputs = append(doc.Outputs, shownOutput{o.Name, jsonString(o.Value.Value), o.Value.Hidden})
		}
		return printJSON(s.Out, doc)
	}
	about := [][2]string{{"id", sn.ID}, {"time", sn.Time.UTC().Format("2006-01-02 15:04:05Z")}, {"reason", sn.Reason}, {"serial", fmt.Sprint(sn.Serial)},
		{"lineage", sn.Lineage}, {"size", fmt.Sprintf("%d bytes", sn.Size)}, {"sha256", c.SHA256()}, {"run", sn.Run}, {"commit", sn.Commit}, {"terraform", sn.TerraformVersion}}
	for _, line := range about {
		if line[1] != "" {
			fmt.Fprintf(s.Out, "%-10s %s\n", line[0]+":", quote.Runner(line[1]))
		}
	}
	contents, err := state.Walk(readerOf(c), func(in state.Instance) error {
		ui.Instance(s.Out, in, set.color)
		return nil
	})
	if err == nil {
		ui.Outputs(s.Out, contents.Outputs, set.color)
	}
	return err
}

func diffCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "what changed from a copy to another, or to the state as it is", UsageText: "tfguard snapshot diff [flags] ID [ID]",
		Description: "Sensitive values are hidden, and said to have changed.\n\n" + codes(ExitOK, ExitFailed, ExitUsage, ExitBackend),
		Flags:       common(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 && c.NArg() != 2 {
				return &usageError{msg: "diff takes the IDs of one or two snapshots", hint: "tfguard snapshot list"}
			}
			return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error {
				return diffSnapshots(ctx, s, set, t, c.Args().Get(0), c.Args().Get(1))
			})
		},
	}
}

// side is one of the two states of `snapshot diff --json`; the id is empty for
// the state as it is.
type side struct {
	ID      string `json:"id"`
	Serial  uint64 `json:"serial"`
	Lineage string `json:"lineage"`
}

func diffSnapshots(ctx context.Context, s Streams, set *settings, t *target, from, to string) error {
	store := t.snapshots(set, snapshot.Options{})
	a, before, err := store.Read(ctx, from)
	if err != nil {
		return err
	}
	defer before.Close()
	var b snapshot.Snapshot
	var diff state.Diff
	if to == "" {
		diff, err = diffToState(ctx, store, before, false)
	} else {
		var after *snapshot.Content
		if b, after, err = store.Read(ctx, to); err != nil {
			return err
		}
		defer after.Close()
		diff, err = state.Compare(readerOf(before), readerOf(after))
	}
	if err != nil {
		return err
	}
	if !set.json {
		ui.Diff(s.Out, diff, set.color)
		return nil
	}
	return printJSON(s.Out, struct {
		Version int                     `json:"version"`
		State   string                  `json:"state"`
		From    side                    `json:"from"`
		To      side                    `json:"to"`
		Added   []string                `json:"added"`
		Removed []string                `json:"removed"`
		Changed []state.InstanceChange  `json:"changed"`
		Outputs []state.AttributeChange `json:"outputs"`
		Unread  int                     `json:"unread,omitempty"`
	}{1, t.addr.String(), side{a.ID, diff.From.Serial, diff.From.Lineage}, side{b.ID, diff.To.Serial, diff.To.Lineage},
		append([]string{}, diff.Added...), append([]string{}, diff.Removed...), append([]state.InstanceChange{}, diff.Changed...),
		append([]state.AttributeChange{}, diff.Outputs...), diff.Unread})
}

func pruneCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "remove old copies", UsageText: "tfguard snapshot prune [flags]",
		Description: "Keeps the last 30 copies and all of the last 30 days, or what the flags or snapshots {} say;\n" +
			"the newest always, and those that a failed run of this directory made. An apply does the same by\n" +
			"itself, at most once a day. In a bucket with versions the content stays for the bucket's lifecycle.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitBackend),
		Flags: append(common(), num("keep", "keep the last `N` copies"), num("keep-days", "keep all copies of the last `N` days"),
			yes("dry-run", "only say what would be removed")),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			if c.IsSet("keep") && c.Int("keep") < 1 {
				return usagef(c, "--keep %d: it is 1 or more", c.Int("keep"))
			}
			if c.Int("keep-days") < 0 {
				return usagef(c, "--keep-days %d: it is 0 or more", c.Int("keep-days"))
			}
			return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error { return pruneSnapshots(ctx, s, set, t) })
		},
	}
}

func pruneSnapshots(ctx context.Context, s Streams, set *settings, t *target) error {
	c := set.cli
	if c.IsSet("keep") {
		n := c.Int("keep")
		set.file.Snapshots.Keep = &n
	}
	if c.IsSet("keep-days") {
		n := c.Int("keep-days")
		set.file.Snapshots.KeepDays = &n
	}
	store := t.snapshots(set, snapshot.Options{})
	head, err := store.Head(ctx)
	if errors.Is(err, state.ErrNotState) || err == nil && !head.Exists {
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("%s cannot be read as a state: a copy may be the only way back, and none is removed", t.addr), hint: "tfguard state verify"}
	}
	if err != nil {
		return err
	}
	dry := c.Bool("dry-run")
	gone, err := store.Prune(ctx, snapshot.PruneOptions{DryRun: dry, Protected: protectedSnapshots(ctx, set.dir)})
	if set.json {
		ids := []string{}
		for _, sn := range gone {
			ids = append(ids, sn.ID)
		}
		return errors.Join(err, printJSON(s.Out, struct {
			Version int      `json:"version"`
			State   string   `json:"state"`
			DryRun  bool     `json:"dry_run"`
			Removed []string `json:"removed"`
		}{1, t.addr.String(), dry, ids}))
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, sn := range gone {
		fmt.Fprintf(s.Out, "%s %s\n", verb, sn.ID)
	}
	if err == nil && len(gone) == 0 {
		fmt.Fprintln(s.Out, "nothing to remove")
	}
	return err
}

// protectedSnapshots are the copies that runs of this directory made and that
// did not end well: each may be the only way back for its run.
func protectedSnapshots(ctx context.Context, dir string) map[string]bool {
	keep := map[string]bool{}
	runs, err := engine.Runs(dir)
	if err != nil {
		return keep
	}
	for _, r := range runs {
		made, ended := "", ""
		// An error is a journal without an end: a run that goes on, or died.
		_ = r.Follow(ctx, func(context.Context) bool { return false }, func(e event.Event) {
			switch e := e.(type) {
			case event.Snapshot:
				made = e.ID
			case event.RunFinished:
				ended = e.Status
			}
		})
		if made != "" && ended != event.OK && ended != event.NoChanges {
			keep[made] = true
		}
	}
	return keep
}

// pruneTime bounds the pruning that an apply does by itself.
const pruneTime = 20 * time.Second

// prune removes old copies after an apply, where it is due: where the state was
// last written on an earlier day (UTC), so that it costs nothing in all but the
// first apply of a day. It fails nothing.
func (s *states) prune(ctx context.Context) {
	if !s.due {
		return
	}
	ctx, stop := context.WithTimeout(ctx, pruneTime)
	defer stop()
	gone, err := s.t.snapshots(s.set, snapshot.Options{Run: s.run.id}).Prune(ctx, snapshot.PruneOptions{Protected: protectedSnapshots(ctx, s.set.dir)})
	var names []string
	for _, sn := range gone {
		names = append(names, sn.ID)
	}
	say := func(text string) { s.run.sink.Emit(event.Output{Source: "snapshot", Text: text, Detail: true}) }
	if len(names) > 0 {
		say("removed old copies: " + strings.Join(names, ", "))
	}
	if err != nil {
		say("old copies could not be removed: " + quote.Line(err.Error(), 500))
	}
}

// copied notes what state a copy was made of.
func (s *states) copied(h state.Head) {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	s.due = !h.Modified.IsZero() && day(h.Modified) < day(time.Now())
}
