package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/dynamolock"
	"github.com/tfguard/tfguard/internal/lock/migration"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
)

// lockfileSince is the first terraform, and the first OpenTofu, that knows
// use_lockfile.
const lockfileSince = "1.10.0"

func migrateCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "migrate-lock", Usage: "move from dynamodb_table to use_lockfile, or back, step by step",
		UsageText: "tfguard backend migrate-lock [flags]",
		Description: "Each call does one step, shows it first, and names the next; it can be left at any of them.\n" +
			"  1. both kinds of locks are configured\n" +
			"  2. once every run that was seen used both: the new kind alone\n" +
			"  3. to lockfile: the digest item is removed\n" +
			"Between 1 and 2 every pipeline and person gets the new configuration.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitCancelled, ExitCancelUnclean),
		Flags: append(common(),
			str("to", "`KIND` of lock to end with: lockfile or dynamodb"),
			str("table", "the lock table's `NAME`, where the configuration has none"),
			dur("since", "judge only the runs of the last `DUR`, after others have been corrected"),
			str("terraform-bin", "terraform or tofu, as a `PATH` or a name in PATH"),
			str("terraform-version", "the terraform version to use, installed where it is missing"),
			yes("auto-approve", "do not ask"), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			if to := c.String("to"); to != "" && to != migration.ToLockfile && to != migration.ToDynamoDB {
				return usagef(c, "--to %q: it is lockfile or dynamodb", to)
			}
			if c.Duration("since") < 0 {
				return usagef(c, "--since %s: it is 0 or more", c.Duration("since"))
			}
			return reported(c, s, func(r *run) error {
				if c.Bool("auto-approve") || s.Terminal {
					return nil
				}
				return &unaskedError{&usageError{msg: "migrate-lock needs an answer and there is no terminal to ask on", hint: "tfguard backend migrate-lock --auto-approve"}}
			}, func(ctx context.Context, r *run) error { return r.migrateLock(ctx) })
		},
	}
}

// move is a migration as one call of the command sees it.
type move struct {
	r     *run
	p     *pipeline.Pipeline
	t     *target
	keep  *keeper
	notes *migration.Store
	note  migration.Note
	noted bool
	store *snapshot.Store
}

func (r *run) migrateLock(ctx context.Context) error {
	p, t, keep, err := r.guarded(ctx)
	if err != nil {
		return err
	}
	m := &move{r: r, p: p, t: t, keep: keep, notes: migration.New(t.clients.S3, t.addr, awsclient.ObjectOf(t.found.Settings)),
		store: t.snapshots(r.set, snapshot.Options{Run: r.id, Commit: r.commit(ctx)})}
	if m.note, m.noted, err = m.notes.Read(ctx); err != nil {
		return err
	}
	to := r.set.cli.String("to")
	switch {
	case to != "":
	case m.noted:
		to = m.note.To
	case t.addr.Table != "":
		to = migration.ToLockfile
	default:
		return &usageError{msg: "this configuration has no lock table: say where to go", hint: "tfguard backend migrate-lock --to lockfile, or --to dynamodb --table NAME"}
	}
	if m.noted && m.note.To != to { // turned round on the way
		m.note = migration.Note{Table: m.note.Table}
	}
	m.note.To, m.note.By = to, who()
	if t.addr.Table != "" {
		m.note.Table = t.addr.Table
	}
	if to == migration.ToLockfile {
		if err := m.knowsLockfile(ctx); err != nil {
			return err
		}
	}
	switch {
	case !t.addr.Locked() && to == migration.ToLockfile:
		return m.edit(ctx, map[string]any{"use_lockfile": true}, nil, "give every pipeline and person this configuration")
	case to == migration.ToLockfile && !t.addr.Lockfile:
		return m.both(ctx, map[string]any{"use_lockfile": true})
	case to == migration.ToLockfile && t.addr.Table != "":
		return m.alone(ctx, map[string]any{"dynamodb_table": nil}, m.everybodyLocksByFile)
	case to == migration.ToLockfile:
		return m.dropDigest(ctx)
	case t.addr.Table == "":
		return m.addTable(ctx)
	case t.addr.Lockfile:
		return m.alone(ctx, map[string]any{"use_lockfile": nil}, m.everybodyLocksByTable)
	}
	return m.end(ctx)
}

func (m *move) say(format string, args ...any) {
	m.r.sink.Emit(event.Output{Source: "migrate-lock", Text: fmt.Sprintf(format, args...)})
}

// knowsLockfile refuses a terraform that would take use_lockfile for an error,
// and a state that one has written lately.
func (m *move) knowsLockfile(ctx context.Context) error {
	if m.r.folder == nil { // an engine has one
		var err error
		if m.r.folder, err = engine.NewRun(m.r.set.dir, m.r.id); err != nil {
			return err
		}
	}
	tf, err := m.r.terraform(ctx, "", m.keep)
	if err != nil {
		return err
	}
	number, err := tf.Version(ctx)
	if err != nil {
		return err
	}
	if tooOld(number) {
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("terraform %s knows no use_lockfile; %s is the first that does", number, lockfileSince), hint: "update terraform everywhere, then run this again"}
	}
	return nil
}

func tooOld(number string) bool {
	v, err := version.NewVersion(number)
	return err == nil && v.LessThan(version.Must(version.NewVersion(lockfileSince+"-alpha")))
}

// both is the first step: the new kind of lock beside the old.
func (m *move) both(ctx context.Context, change map[string]any) error {
	if err := m.unmixed(ctx); err != nil {
		return err
	}
	head, err := m.store.Head(ctx)
	if err != nil && !errors.Is(err, state.ErrNotState) {
		return err
	}
	if m.note.To == migration.ToLockfile && head.Exists && tooOld(head.TerraformVersion) {
		m.r.warn(fmt.Sprintf("the state was last written by terraform %s, which knows no use_lockfile", head.TerraformVersion), "update it everywhere: such a terraform fails on the new configuration")
	}
	if m.note.Both.IsZero() {
		m.note.Both = time.Now().UTC()
	}
	return m.edit(ctx, change, m.writeNote, "give every pipeline and person this configuration, let each run once, then: tfguard backend migrate-lock")
}

// alone is the second step: the old kind goes, where everybody uses the new.
func (m *move) alone(ctx context.Context, change map[string]any, everybody func(context.Context) error) error {
	if err := m.unmixed(ctx); err != nil {
		return err
	}
	if err := everybody(ctx); err != nil {
		return err
	}
	if m.note.Both.IsZero() {
		m.note.Both = time.Now().UTC()
	}
	m.note.Alone = time.Now().UTC()
	return m.edit(ctx, change, m.writeNote, "give every pipeline and person this configuration too, then: tfguard backend migrate-lock")
}

// unmixed refuses to go on where a lock shows that somebody has another
// configuration, or where one cannot be judged.
func (m *move) unmixed(ctx context.Context) error {
	v, err := m.t.Observe(ctx)
	if err != nil {
		return err
	}
	beside, err := m.t.besideState(ctx, v)
	if err != nil {
		return err
	}
	if v.Status.Blocks() {
		m.r.sink.Emit(event.Lock{Report: v.Report()})
		return &pipeline.BlockedError{Verdict: v}
	}
	for _, d := range beside {
		if d.Check == snapshot.CheckLock {
			return &codeError{code: ExitFailed, msg: d.Summary, hint: d.Hint}
		}
	}
	return nil
}

// since is from when on runs are judged.
func (m *move) since() time.Time {
	if d := m.r.set.cli.Duration("since"); d > 0 {
		return time.Now().Add(-d)
	}
	return m.note.Both
}

// everybodyLocksByFile holds every version of the state that was written since
// both kinds are configured against the times in which the lock file was there.
func (m *move) everybodyLocksByFile(ctx context.Context) error {
	writes, err := m.store.Writes(ctx)
	if err != nil {
		return err
	}
	holds, err := m.notes.Holds(ctx)
	if err != nil {
		return err
	}
	found := judge(writes, holds, m.since())
	switch {
	case found.unversioned:
		return &codeError{code: ExitFailed, msg: "the bucket keeps no versions, so that nobody can tell which runs used the lock file", hint: "tfguard backend setup turns versions on"}
	case len(found.uncovered) > 0:
		for _, h := range found.uncovered {
			m.say("%s, written at %s by terraform %s: not under the lock file", h, h.Modified.UTC().Format(time.RFC3339), quote.Line(h.TerraformVersion, 40))
		}
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("%s of the state since %s not under the lock file: somebody has another configuration", wasWere(len(found.uncovered), "write"), found.since.UTC().Format(time.RFC3339)),
			hint: "correct it, let a run go, then: tfguard backend migrate-lock --since DUR, counted from the correction"}
	case found.covered == 0:
		return &codeError{code: ExitFailed, msg: "no run has written the state under both locks yet: nothing shows that they work", hint: "let each pipeline apply once, then: tfguard backend migrate-lock"}
	}
	m.say("%s of the state since %s under the lock file", wasWere(found.covered, "write"), found.since.UTC().Format(time.RFC3339))
	return nil
}

func wasWere(n int, what string) string {
	if n == 1 {
		return "1 " + what + " was"
	}
	return fmt.Sprintf("%d %ss were", n, what)
}

// judged is what the versions of state and lock object show.
type judged struct {
	unversioned bool
	since       time.Time
	covered     int
	uncovered   []state.Head // newest first
}

// judge looks at the writes since a time, or, where that is zero, since the lock
// file was first used.
func judge(writes []state.Head, holds []migration.Hold, since time.Time) judged {
	j := judged{since: since}
	if len(writes) > 0 {
		j.unversioned = writes[0].VersionID == "" || writes[0].VersionID == "null"
	}
	if since.IsZero() && len(holds) > 0 {
		j.since = holds[len(holds)-1].From
	}
	var times []time.Time
	var heads []state.Head
	for _, w := range writes {
		if !w.Modified.Before(j.since.Truncate(time.Second)) {
			times, heads = append(times, w.Modified), append(heads, w)
		}
	}
	for _, i := range migration.Uncovered(times, holds) {
		j.uncovered = append(j.uncovered, heads[i])
	}
	j.covered = len(heads) - len(j.uncovered)
	if since.IsZero() && len(holds) == 0 {
		j.covered, j.uncovered = 0, nil // the lock file was never used: that says it all
	}
	return j
}

// everybodyLocksByTable looks at the digest: whoever does not use the table does
// not write it either. DynamoDB keeps no history, so that it tells of the last
// write alone.
func (m *move) everybodyLocksByTable(ctx context.Context) error {
	h, err := m.store.Inspect(ctx, m.t.table)
	if err != nil {
		return err
	}
	since := m.since()
	switch {
	case h.HasDigest && h.Present && h.Digest != h.MD5:
		return &codeError{code: ExitFailed, msg: "the digest does not match: the state was last written by somebody who does not use the table", hint: "correct that configuration, then: tfguard state repair"}
	case !h.Present, !h.HasDigest, h.Head.Modified.Before(since.Truncate(time.Second)):
		return &codeError{code: ExitFailed, msg: "no run has written the state under both locks yet: nothing shows that they work", hint: "let each pipeline apply once, then: tfguard backend migrate-lock"}
	}
	m.say("%s was written with its digest at %s", h.Head, h.Head.Modified.UTC().Format(time.RFC3339))
	return nil
}

// addTable is the first step back: the table must be there and must not hold a
// digest of long ago, on which every run would fail.
func (m *move) addTable(ctx context.Context) error {
	name := m.r.set.cli.String("table")
	if name == "" {
		name = m.note.Table
	}
	if name == "" {
		return &usageError{msg: "this configuration has no lock table: name one", hint: "tfguard backend migrate-lock --to dynamodb --table NAME"}
	}
	m.note.Table = name
	table := m.table(name)
	if held, err := table.Read(ctx); err != nil {
		return err
	} else if held != nil {
		return m.lockedInTable(held)
	}
	h, err := m.store.Inspect(ctx, table)
	if err != nil {
		return err
	}
	if h.HasDigest && h.Digest != h.MD5 {
		m.say("the table %s has a digest that does not match the state", name)
		if err := m.approve(ctx, "write the right one"); err != nil {
			return err
		}
		if err := m.underLock(ctx, table, func(o snapshot.RestoreOptions) error { _, err := m.store.RepairDigest(ctx, o); return err }); err != nil {
			return err
		}
	}
	return m.both(ctx, map[string]any{"dynamodb_table": name})
}

func (m *move) table(name string) *dynamolock.Store {
	addr := m.t.addr
	addr.Table = name
	return dynamolock.New(m.t.clients.DynamoDB, addr)
}

func (m *move) lockedInTable(held *lock.Observation) error {
	info, _ := lock.ParseInfo(held.Raw)
	return &codeError{code: ExitFailed, msg: quote.Line(fmt.Sprintf("the state is locked in the table %s (%s, %s), which this configuration does not use: somebody has another one", m.note.Table, info.Who, info.Created.Format(time.RFC3339)), 500),
		hint: "correct that configuration, and remove the lock with it: tfguard unlock"}
}

// underLock does something to the digest while the state's lock is held in the
// stores of this configuration.
func (m *move) underLock(ctx context.Context, digests snapshot.Digests, do func(snapshot.RestoreOptions) error) error {
	if err := m.p.Enter(ctx); err != nil {
		return err
	}
	defer m.keep.Release(ctx)
	o := m.t.restoreOptions(ctx, m.keep, "")
	o.Operation, o.Reason, o.Digests = "migrate-lock", snapshot.PreRepair, digests
	if err := do(o); err != nil {
		return m.r.explainRestore(ctx, m.t, err)
	}
	return nil
}

// dropDigest is the last step: the table's item goes, which would make a
// configuration with the table fail once it is out of date.
func (m *move) dropDigest(ctx context.Context) error {
	if name := m.r.set.cli.String("table"); name != "" {
		m.note.Table = name
	}
	if m.note.Table == "" {
		return m.end(ctx)
	}
	table := m.table(m.note.Table)
	if held, err := table.Read(ctx); err != nil {
		return err
	} else if held != nil {
		return m.lockedInTable(held)
	}
	h, err := m.store.Inspect(ctx, table)
	if err != nil {
		return err
	}
	switch {
	case !h.HasDigest:
		return m.end(ctx)
	case !m.note.Alone.IsZero() && h.Digest == h.MD5 && !h.Head.Modified.Before(m.note.Alone):
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("the digest in %s was written after the table left this configuration: somebody still uses it", m.note.Table),
			hint: "give every pipeline and person this configuration, then: tfguard backend migrate-lock"}
	}
	m.say("the digest of %s is still in the table %s, and nobody needs it", m.t.addr, m.note.Table)
	if err := m.approve(ctx, "remove it"); err != nil {
		return err
	}
	if err := m.underLock(ctx, table, func(o snapshot.RestoreOptions) error { return m.store.DropDigest(ctx, o) }); err != nil {
		return err
	}
	m.say("the table %s is needed no more for %s; it may be for other states", m.note.Table, m.t.addr)
	return m.end(ctx)
}

// end is after the last step.
func (m *move) end(ctx context.Context) error {
	if m.noted {
		if err := m.notes.Remove(ctx); err != nil {
			return err
		}
	}
	m.say("%s is locked by %s alone: nothing is left to do", m.t.addr, map[string]string{migration.ToLockfile: m.t.addr.LockKey(), migration.ToDynamoDB: "the table " + m.t.addr.Table}[m.note.To])
	return nil
}

func (m *move) writeNote(ctx context.Context) error { return m.notes.Write(ctx, m.note) }

// approve asks where --auto-approve has not answered.
func (m *move) approve(ctx context.Context, what string) error {
	if m.r.set.cli.Bool("auto-approve") {
		return nil
	}
	answer, err := ask(ctx, m.r.streams, "\nShall tfguard "+what+"?\nOnly 'yes' will be accepted: ")
	if err != nil {
		return err
	}
	if answer != "yes" {
		return &codeError{code: ExitFailed, msg: "migrate-lock was not approved; nothing was changed"}
	}
	return nil
}

// edit shows the change of the configuration and carries it out once it is
// approved; the note is written before, so that it is never missing.
func (m *move) edit(ctx context.Context, change map[string]any, before func(context.Context) error, next string) error {
	edit, err := discover.EditBackend(discover.Source{Dir: m.r.set.dir, BackendConfig: m.r.set.backendConfig()}, m.t.found, change)
	var elsewhere *discover.NotEditableError
	if errors.As(err, &elsewhere) {
		if before != nil {
			err = errors.Join(err, before(ctx))
		}
		return &codeError{code: ExitFailed, msg: quote.Line(err.Error(), 1000), hint: "in " + elsewhere.Where + ": " + elsewhere.Do + "; then: tfguard backend migrate-lock"}
	}
	if err != nil {
		return err
	}
	m.say("%s:\n%s", edit.Path, strings.TrimRight(edit.Diff(), "\n"))
	if err := m.approve(ctx, "write this"); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if err := edit.Write(); err != nil {
		return err
	}
	m.say("done; here: terraform init -reconfigure; next: %s", next)
	return nil
}
