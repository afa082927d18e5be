package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/ui"
)

func stateCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "state", Usage: "check and repair digest, lineage, serial and what a failed run left",
		Subcommands: []*cli.Command{
			{
				Name: "verify", Usage: "check without changing; exits 1 where something differs", UsageText: "tfguard state verify [flags]",
				Description: "Reads the whole state, its digest, the snapshots and older versions, the locks and the holder\n" +
					"record, and looks for an errored.tfstate here and in the bucket.\n\n" +
					codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitUnclear, ExitBackend),
				Flags: common(),
				Action: func(c *cli.Context) error {
					if err := noArgs(c); err != nil {
						return err
					}
					return withTarget(c, s, func(ctx context.Context, set *settings, t *target) error { return verifyState(ctx, s, set, t) })
				},
			},
			{
				Name: "repair", Usage: "repair what verify finds, one thing after the other", UsageText: "tfguard state repair [flags]",
				Description: "Each repair is shown and asked for, takes the state's lock, and copies what is there before.\n" +
					"What cannot be repaired without a decision is named with the command that helps: exit 1.\n\n" +
					codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean),
				Flags: append(common(), yes("auto-approve", "do not ask"), unlockStaleFlag(), noDetachFlag()),
				Action: func(c *cli.Context) error {
					if err := noArgs(c); err != nil {
						return err
					}
					return reported(c, s, func(r *run) error {
						if c.Bool("auto-approve") || s.Terminal {
							return nil
						}
						return &unaskedError{&usageError{msg: "repair needs an answer and there is no terminal to ask on", hint: "tfguard state repair --auto-approve"}}
					}, func(ctx context.Context, r *run) error { return r.repairState(ctx) })
				},
			},
		},
	}
}

// difference is a finding with what `state repair` does about it.
type difference struct {
	snapshot.Finding
	sides []string                                             // both sides, for people
	mend  func(context.Context, snapshot.RestoreOptions) error // nil: it is for a person
	stale lock.Confidence                                      // of a stale lock
	mixed bool                                                 // a lock where this configuration would have put none
}

// examination is what was found out about a state.
type examination struct {
	health  snapshot.Health
	verdict lock.Verdict
	found   []difference
}

// examine looks at the state and at everything that is kept beside it.
func (t *target) examine(ctx context.Context, store *snapshot.Store, dir string) (examination, error) {
	var x examination
	var err error
	if x.verdict, err = t.Observe(ctx); err != nil {
		return x, err
	}
	if x.health, err = store.Inspect(ctx, t.digests()); err != nil {
		return x, err
	}
	h := x.health
	for _, f := range h.Findings() {
		d := difference{Finding: f}
		switch f.Check {
		case snapshot.CheckState:
			if h.LastGood != nil {
				d.mend = func(ctx context.Context, o snapshot.RestoreOptions) error {
					_, err := store.RestoreVersion(ctx, h.LastGood.VersionID, o)
					return err
				}
			}
		case snapshot.CheckSerial:
			d.mend = func(ctx context.Context, o snapshot.RestoreOptions) error {
				_, err := store.Renumber(ctx, o)
				return err
			}
		case snapshot.CheckDigest:
			d.mend = func(ctx context.Context, o snapshot.RestoreOptions) error {
				_, err := store.RepairDigest(ctx, o)
				return err
			}
		}
		x.found = append(x.found, d)
	}
	// An errored state is looked at once there is a state to hold it against, and
	// before its digest is made to fit.
	if h.Head.Exists || !h.Present && h.LastGood == nil {
		left, err := t.leftStates(ctx, store, h, dir)
		if err != nil {
			return x, err
		}
		x.found = append(left, x.found...)
	}
	beside, err := t.besideState(ctx, x.verdict)
	x.found = append(x.found, beside...)
	return x, err
}

// digests is where the state's digest is kept; nil without a lock table.
func (t *target) digests() snapshot.Digests {
	if t.table == nil {
		return nil
	}
	return t.table
}

// leftStates are the states that terraform could not write: errored.tfstate in
// the configuration's directory, and copies of it in the bucket.
func (t *target) leftStates(ctx context.Context, store *snapshot.Store, h snapshot.Health, dir string) ([]difference, error) {
	var all []difference
	local := filepath.Join(dir, erroredState)
	seen := ""
	c, err := store.ReadFile(local)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", local, err)
	default:
		defer c.Close()
		seen = c.SHA256()
		d, err := t.leftState(ctx, store, h, c, local, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	for _, e := range h.Errored {
		c, err := store.ReadErrored(ctx, e)
		if err != nil {
			return nil, err
		}
		same := c.SHA256() == seen
		var d difference
		if !same { // else it goes with the file
			d, err = t.leftState(ctx, store, h, c, "", &e)
		}
		if err = errors.Join(err, c.Close()); err != nil {
			return nil, err
		}
		if !same {
			all = append(all, d)
		}
	}
	return all, nil
}

// leftState is one of them: the file, or the copy.
func (t *target) leftState(ctx context.Context, store *snapshot.Store, h snapshot.Health, c *snapshot.Content, file string, copied *snapshot.Errored) (difference, error) {
	name := file
	if copied != nil {
		name = "s3://" + t.addr.Bucket + "/" + copied.Key
	}
	d := difference{Finding: snapshot.Finding{Check: snapshot.CheckErrored}}
	// done takes the left state away once its content is safe.
	done := func(ctx context.Context, sum string) error { return t.clearErrored(ctx, store, file, sum) }
	aside := func(ctx context.Context, _ snapshot.RestoreOptions) error {
		return t.setAside(ctx, store, file, copied)
	}
	read := func(ctx context.Context) (*snapshot.Content, error) {
		if copied != nil {
			return store.ReadErrored(ctx, *copied)
		}
		return store.ReadFile(file)
	}
	next := continues(h.Head, c)
	switch {
	case c.Err() != nil:
		d.Summary, d.Repair, d.mend = fmt.Sprintf("%s is no state: %v", name, c.Err()), "set it aside", aside
		return d, nil
	case h.MD5 != "" && c.MD5() == h.MD5:
		d.Summary, d.Repair = fmt.Sprintf("%s is the state that is there already", name), "take it away"
		d.mend = func(ctx context.Context, _ snapshot.RestoreOptions) error { return done(ctx, c.SHA256()) }
		return d, nil
	case next != nil && next.foreign && copied == nil:
		d.Summary = fmt.Sprintf("%s is of another state: it has lineage %.8s, this one has %.8s", name, c.Head().Lineage, h.Head.Lineage)
		d.Hint = "tfguard state repair, with the --workspace or -C of the state that it belongs to"
		return d, nil
	case next != nil:
		d.Summary = fmt.Sprintf("%s has %s, which does not continue the state: %s", name, c.Head(), next.why)
		d.Repair, d.mend = "set it aside; what it has and the state has not may exist and be managed by nobody: terraform import", aside
	default:
		d.Summary = fmt.Sprintf("%s has %s, which was never written; the state is %s", name, c.Head(), h.Head)
		d.Repair = "write it as the state"
		d.mend = func(ctx context.Context, o snapshot.RestoreOptions) error {
			c, err := read(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = store.Push(ctx, c, func(now snapshot.Found) error {
				if next := continues(now.Head, c); next != nil {
					return next
				}
				return nil
			}, o)
			if err != nil {
				return err
			}
			return done(ctx, c.SHA256())
		}
	}
	sides, err := t.sides(ctx, store, c)
	d.sides = sides
	return d, err
}

// sides tells what the state would become with c.
func (t *target) sides(ctx context.Context, store *snapshot.Store, c *snapshot.Content) ([]string, error) {
	diff, err := diffToState(ctx, store, c, true)
	if err != nil {
		return nil, err
	}
	return ui.DiffLines(diff, maxShown), nil
}

// maxShown bounds the lines of a difference that is shown before a question.
const maxShown = 40

// diffToState compares c with the state as it is; with to, from the state to c.
func diffToState(ctx context.Context, store *snapshot.Store, c *snapshot.Content, to bool) (state.Diff, error) {
	cur, err := store.ReadState(ctx)
	if err != nil {
		return state.Diff{}, err
	}
	var now func() io.Reader
	if cur != nil {
		defer cur.Close()
		if cur.Err() != nil {
			return state.Diff{}, fmt.Errorf("compare with the state: %w", cur.Err())
		}
		now = readerOf(cur)
	}
	if to {
		return state.Compare(now, readerOf(c))
	}
	return state.Compare(readerOf(c), now)
}

func readerOf(c *snapshot.Content) func() io.Reader { return func() io.Reader { return c.Reader() } }

// notNext is an errored state that does not continue the state that is there.
type notNext struct {
	why     string
	foreign bool // they do not even have a lineage in common
}

func (e *notNext) Error() string        { return snapshot.ErrNotNext.Error() + ": " + e.why }
func (e *notNext) Is(target error) bool { return target == snapshot.ErrNotNext }

// continues says why an errored state does not continue the state that is
// there, as far as lineage and serial tell; nil where they say that it does.
func continues(now state.Head, c *snapshot.Content) *notNext {
	next := c.Head()
	switch {
	case !now.Exists:
		return nil
	case now.Lineage != next.Lineage:
		return &notNext{fmt.Sprintf("it has lineage %.8s, the state has %.8s", next.Lineage, now.Lineage), true}
	case next.Serial <= now.Serial:
		return &notNext{fmt.Sprintf("it has serial %d, the state has %d: somebody wrote it since", next.Serial, now.Serial), false}
	}
	return nil
}

// besideState are a dead run's holder record, and locks that are not where the
// configuration would put them.
func (t *target) besideState(ctx context.Context, v lock.Verdict) ([]difference, error) {
	var all []difference
	add := func(check, repair, hint, format string, args ...any) *difference {
		all = append(all, difference{Finding: snapshot.Finding{Check: check, Summary: quote.Line(fmt.Sprintf(format, args...), 1000), Repair: repair, Hint: hint}})
		return &all[len(all)-1]
	}
	if h := t.holderSeen(); h != nil && !h.Living(t.policy) {
		what := h.Problem
		if what == "" {
			what = "run " + h.Record.RunID + " of " + h.Record.Who + " ended uncleanly at stage " + h.Record.Stage
			if len(h.Record.InFlight) > 0 {
				what += "; these resources may exist and be in no state: " + strings.Join(h.Record.InFlight, ", ")
			}
		}
		d := add(snapshot.CheckHolder, "take its holder record away", "", "%s", what)
		d.mend = func(context.Context, snapshot.RestoreOptions) error { return nil } // the repair has taken it over, and gives it back
	}
	stores := map[lock.Store]bool{}
	for _, e := range v.Locks {
		if e.Observation.Store == lock.Holder {
			continue
		}
		stores[e.Observation.Store] = true
		if e.Status == lock.Stale {
			d := add(snapshot.CheckLock, "", "tfguard unlock --id "+e.Name(), "lock %s of %s in %s is stale: %s", e.Name(), e.Info.Who, e.Observation.Store, strings.Join(e.Reasons, "; "))
			d.stale = e.Confidence
		}
	}
	if len(t.stores()) == 2 && len(stores) == 1 {
		for s := range stores {
			add(snapshot.CheckLock, "", mixedHint, "the state is locked in %s alone, and this configuration uses both stores: somebody has another configuration", s).mixed = true
		}
	}
	if t.object != nil {
		return all, nil
	}
	// Whoever locks by an object here does not see our lock, nor we theirs.
	foreign, err := s3lock.New(t.clients.S3, t.addr, t.found.Settings).Read(ctx)
	if err == nil && foreign != nil {
		info, _ := lock.ParseInfo(foreign.Raw)
		add(snapshot.CheckLock, "", mixedHint, "%s is there (%s, %s), and this configuration uses no lock file: somebody has another configuration",
			t.addr.LockKey(), info.Who, info.Created.Format(time.RFC3339)).mixed = true
	}
	return all, err
}

const mixedHint = "give every configuration of this state the same dynamodb_table and use_lockfile: tfguard backend migrate-lock does it in steps"

// blocking is the error of an examination in the midst of somebody's run, which
// may be about to write what is missing.
func (x examination) blocking() error {
	if x.verdict.Status.Blocks() && len(x.found) > 0 {
		return &pipeline.BlockedError{Verdict: x.verdict}
	}
	return nil
}

func verifyState(ctx context.Context, s Streams, set *settings, t *target) error {
	x, err := t.examine(ctx, t.snapshots(set, snapshot.Options{}), set.dir)
	if err != nil {
		return err
	}
	if err := x.blocking(); err != nil {
		return err
	}
	if set.json {
		doc := struct {
			Version  int                `json:"version"`
			State    string             `json:"state"`
			Serial   uint64             `json:"serial"`
			Lineage  string             `json:"lineage"`
			Findings []snapshot.Finding `json:"findings"`
		}{1, t.addr.String(), x.health.Head.Serial, x.health.Head.Lineage, []snapshot.Finding{}}
		for _, d := range x.found {
			doc.Findings = append(doc.Findings, d.Finding)
		}
		if err := printJSON(s.Out, doc); err != nil {
			return err
		}
	} else if len(x.found) == 0 {
		fmt.Fprintf(s.Out, "%s: %s, as it should be\n", t.addr, x.health.Head)
	}
	if len(x.found) == 0 {
		return nil
	}
	if !set.json {
		for _, d := range x.found {
			fmt.Fprintf(s.Out, "%s: %s\n", d.Check, quote.Line(d.Summary, 2000))
			for _, line := range d.sides {
				fmt.Fprintf(s.Out, "    %s\n", line)
			}
			if d.mend == nil && d.Hint != "" {
				fmt.Fprintf(s.Out, "    %s\n", quote.Line(d.Hint, 500))
			}
		}
	}
	return &codeError{code: ExitFailed, msg: plural(len(x.found), "finding") + " on " + t.addr.String(), hint: x.hint()}
}

// hint is the command that helps with the first finding.
func (x examination) hint() string {
	for _, d := range x.found {
		if d.mend != nil {
			return "tfguard state repair"
		}
	}
	return x.found[0].Hint
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// repairState repairs one thing after the other, each looked for anew after the
// one before: what a repair changes may be what the next was about.
func (r *run) repairState(ctx context.Context) error {
	p, t, keep, err := r.guarded(ctx)
	if err != nil {
		return err
	}
	unlockStale, err := r.set.unlockStale()
	if err != nil {
		return err
	}
	say := func(text string) { r.sink.Emit(event.Output{Source: "repair", Text: text}) }
	store := t.snapshots(r.set, snapshot.Options{Run: r.id, Commit: r.commit(ctx)})
	entered := false
	defer func() {
		if entered {
			keep.Release(ctx)
		}
	}()
	tried := map[string]bool{}
	for {
		x, err := t.examine(ctx, store, r.set.dir)
		if err != nil {
			return err
		}
		x.removable(r.streams.Terminal, unlockStale)
		next := x.next()
		if next == nil {
			return r.repaired(t, x)
		}
		if tried[next.Check+next.Summary] {
			return fmt.Errorf("repair %s: it is as before: %s", next.Check, next.Summary)
		}
		tried[next.Check+next.Summary] = true
		r.sink.Emit(event.Diagnostic{Severity: "warning", Summary: quote.Line(next.Summary, 2000), Detail: strings.Join(next.sides, "\n")})
		say("to repair it: " + next.Repair)
		if !r.set.cli.Bool("auto-approve") {
			answer, err := ask(ctx, r.streams, "\nRepair it so: "+quote.Line(next.Repair, 500)+"?\nOnly 'yes' will be accepted: ")
			if err != nil {
				return err
			}
			if answer != "yes" {
				return &codeError{code: ExitFailed, msg: "the repair was not approved; nothing more was changed"}
			}
		}
		if !entered {
			if err := p.Enter(ctx); err != nil {
				return err
			}
			entered = true
		}
		o := t.restoreOptions(ctx, keep, x.health.Head.TerraformVersion)
		o.Operation, o.Reason, o.Report = "state-repair", snapshot.PreRepair, say
		if err := next.mend(ctx, o); err != nil {
			return r.explainRestore(ctx, t, err)
		}
	}
}

// removable lets a repair remove the stale locks that its lock check removes: on
// a terminal, where a person is asked, or because they are proven and that is
// enough by setting.
func (x examination) removable(terminal bool, unlockStale string) {
	for i := range x.found {
		d := &x.found[i]
		proven := unlockStale == unlockProven && d.stale == lock.Proven
		if d.stale != "" && unlockStale != unlockNever && (terminal || proven) {
			d.Repair, d.mend = "remove it", func(context.Context, snapshot.RestoreOptions) error { return nil }
		}
	}
}

// next is the first difference that a repair is known for.
func (x examination) next() *difference {
	for i := range x.found {
		if x.found[i].mend != nil {
			return &x.found[i]
		}
	}
	return nil
}

// repaired ends a repair with what is left to a person.
func (r *run) repaired(t *target, x examination) error {
	if len(x.found) == 0 {
		r.sink.Emit(event.Output{Source: "repair", Text: fmt.Sprintf("%s: %s, as it should be", t.addr, x.health.Head)})
		return nil
	}
	for _, d := range x.found {
		r.sink.Emit(event.Diagnostic{Severity: "warning", Summary: quote.Line(d.Summary, 2000), Detail: strings.Join(d.sides, "\n"), Hint: d.Hint})
	}
	return &codeError{code: ExitFailed, msg: plural(len(x.found), "finding") + " left on " + t.addr.String() + " that a person decides on", hint: x.hint()}
}

// guarded wires a run that writes the state without terraform: the lock check
// and the holder record of the sequence, and nothing else of it.
func (r *run) guarded(ctx context.Context) (*pipeline.Pipeline, *target, *keeper, error) {
	unlockStale, err := r.set.unlockStale()
	if err != nil {
		return nil, nil, nil, err
	}
	t, err := r.set.target(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	t.self = r.id
	keep := &keeper{t: t, run: r, required: r.set.file.Locks.Holder != nil && *r.set.file.Locks.Holder == "required", lost: r.cancel}
	return &pipeline.Pipeline{
		Address: t.addr, Locks: t, Holder: keep, Sink: r.sink,
		Person: &person{streams: r.streams, sink: r.sink, unlockStale: unlockStale},
		Poll:   5 * time.Second, CleanUp: cleanUp, Now: time.Now,
	}, t, keep, nil
}

// restoreOptions are the locks and the digest of the state, for whatever writes
// it without terraform.
func (t *target) restoreOptions(ctx context.Context, keep *keeper, version string) snapshot.RestoreOptions {
	o := snapshot.RestoreOptions{Who: who(), Version: version, Digests: t.digests(), Locking: keep.locking(ctx)}
	for _, l := range t.stores() {
		o.Locks = append(o.Locks, l)
	}
	return o
}

// clearErrored takes errored.tfstate and its copies away: the state has the
// content with the checksum sum, which is byte for byte theirs.
func (t *target) clearErrored(ctx context.Context, store *snapshot.Store, file, sum string) error {
	copies, err := t.copiesOf(ctx, store, sum)
	for _, e := range copies {
		err = errors.Join(err, store.DropErrored(ctx, e.Key))
	}
	if file != "" {
		err = errors.Join(err, saveAside(file))
	}
	return err
}

// copiesOf are the errored states in the bucket that have this checksum.
func (t *target) copiesOf(ctx context.Context, store *snapshot.Store, sum string) ([]snapshot.Errored, error) {
	copies, err := store.ErroredCopies(ctx)
	if err != nil {
		return nil, err
	}
	var same []snapshot.Errored
	for _, e := range copies {
		c, err := store.ReadErrored(ctx, e)
		if err != nil {
			return nil, err
		}
		if c.SHA256() == sum {
			same = append(same, e)
		}
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	return same, nil
}

// setAside keeps an errored state that is not to be the state: in the bucket,
// where nothing takes it for one that waits, and the file under another name.
func (t *target) setAside(ctx context.Context, store *snapshot.Store, file string, copied *snapshot.Errored) error {
	if copied == nil {
		c, err := store.ReadFile(file)
		if err != nil {
			return err
		}
		defer c.Close()
		e := snapshot.Errored{Run: "file-" + c.SHA256()[:16]}
		if same, err := t.copiesOf(ctx, store, c.SHA256()); err != nil {
			return err
		} else if len(same) > 0 {
			e = same[0]
		} else if e.Key, err = store.KeepErrored(ctx, e.Run, c); err != nil {
			return err
		}
		copied = &e
	}
	if _, err := store.SetAside(ctx, *copied); err != nil {
		return err
	}
	if file != "" {
		return saveAside(file)
	}
	return nil
}

// savedState is the name of an errored.tfstate that is no longer needed.
const savedState = erroredState + ".saved"

// saveAside renames the file, so that no run takes it for one that waits. It
// holds secrets and stays readable for its owner alone.
func saveAside(file string) error {
	if err := os.Chmod(file, 0o600); err != nil {
		return fmt.Errorf("make %s private: %w", file, err)
	}
	if err := os.Rename(file, filepath.Join(filepath.Dir(file), savedState)); err != nil {
		return fmt.Errorf("rename %s: %w", file, err)
	}
	return nil
}
