package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
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
			"  2. once everybody who wrote the state since then used both: the new kind alone\n" +
			"  3. to lockfile: once everybody uses it alone, the digest item is removed\n" +
			"Between them every pipeline and person gets the new configuration. What is in doubt is\n" +
			"refused (1), and the message says what is waited for.\n\n" +
			codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean),
		Flags: append(common(),
			str("to", "`KIND` of lock to end with: lockfile or dynamodb"),
			str("table", "the lock table's `NAME`, where the configuration has none"),
			yes("recheck", "judge only what is written from now on, after a configuration was corrected"),
			str("terraform-bin", "terraform or tofu, as a `PATH` or a name in PATH"),
			str("terraform-version", "the terraform version to use, installed where it is missing"),
			yes("auto-approve", "do not ask"), unlockStaleFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			if to := c.String("to"); to != "" && to != migration.ToLockfile && to != migration.ToDynamoDB {
				return usagef(c, "--to %q: it is lockfile or dynamodb", to)
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
	// states are those of all workspaces: the backend block is for all of them.
	states  []backend.Address
	entered bool // it is the state's holder
}

func (r *run) migrateLock(ctx context.Context) error {
	p, t, keep, err := r.guarded(ctx)
	if err != nil {
		return err
	}
	m := &move{r: r, p: p, t: t, keep: keep, store: t.snapshots(r.set, snapshot.Options{Run: r.id, Commit: r.commit(ctx)})}
	defer func() {
		if m.entered {
			keep.Release(ctx)
		}
	}()
	if m.states, err = migration.States(ctx, t.clients.S3, t.found.Settings); err != nil {
		return err
	}
	m.notes = m.traces(m.states[0])
	if !slices.Contains(m.states, t.addr) { // not written yet
		m.states = append(m.states, t.addr)
	}
	if m.note, m.noted, err = m.notes.Read(ctx); err != nil {
		return err
	}
	if err := m.heading(); err != nil {
		return err
	}
	to := m.note.To
	if to == migration.ToLockfile {
		if err := m.knowsLockfile(ctx); err != nil {
			return err
		}
	}
	if err := m.unmixed(ctx); err != nil {
		return err
	}
	switch {
	case !t.addr.Locked() && to == migration.ToLockfile:
		return m.edit(ctx, map[string]any{"use_lockfile": true}, nil, "give every pipeline and person this configuration")
	case to == migration.ToLockfile && !t.addr.Lockfile:
		return m.both(ctx, map[string]any{"use_lockfile": true})
	case t.addr.Lockfile && t.addr.Table != "":
		return m.alone(ctx)
	case to == migration.ToLockfile:
		return m.dropDigest(ctx)
	case t.addr.Table == "":
		return m.addTable(ctx)
	}
	return m.end(ctx)
}

// heading finds out where the migration leads: what is said, what the note says,
// or away from the table.
func (m *move) heading() error {
	to := m.r.set.cli.String("to")
	switch {
	case to != "":
	case m.noted:
		to = m.note.To
	case m.t.addr.Locked():
		to = migration.ToLockfile
	default:
		return &usageError{msg: "this configuration has no lock at all: say where to go", hint: "tfguard backend migrate-lock --to lockfile, or --to dynamodb --table NAME"}
	}
	if m.noted && m.note.To != to { // turned round on the way: everything is to be shown anew
		m.note, m.noted = migration.Note{Table: m.note.Table}, false
	}
	m.note.To, m.note.By = to, who()
	if m.t.addr.Table != "" {
		m.note.Table = m.t.addr.Table
	}
	if name := m.r.set.cli.String("table"); name != "" {
		m.note.Table = name
	}
	return nil
}

func (m *move) traces(a backend.Address) *migration.Store {
	return migration.New(m.t.clients.S3, a, awsclient.ObjectOf(m.t.found.Settings))
}

func (m *move) say(format string, args ...any) {
	m.r.sink.Emit(event.Output{Source: "migrate-lock", Text: fmt.Sprintf(format, args...)})
}

// refuse is a step that is not done.
func refuse(hint, format string, args ...any) error {
	return &codeError{code: ExitFailed, msg: quote.Line(fmt.Sprintf(format, args...), 1000), hint: hint}
}

const (
	nextStep = "tfguard backend migrate-lock"
	recheck  = "correct that configuration, then count anew: tfguard backend migrate-lock --recheck"
)

// knowsLockfile refuses a terraform that would take use_lockfile for an error.
func (m *move) knowsLockfile(ctx context.Context) error {
	if m.r.folder == nil { // an engine has one
		var err error
		if m.r.folder, err = engine.NewRun(m.r.set.dir, m.r.id); err != nil {
			return err
		}
		m.r.folder.Prune()
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
		return refuse("update terraform everywhere, then run this again", "terraform %s knows no use_lockfile; %s is the first that does", number, lockfileSince)
	}
	return nil
}

func tooOld(number string) bool {
	v, err := version.NewVersion(number)
	return err == nil && v.LessThan(version.Must(version.NewVersion(lockfileSince+"-alpha")))
}

// both is the first step: the new kind of lock beside the old.
func (m *move) both(ctx context.Context, change map[string]any) error {
	head, err := m.store.Head(ctx)
	if err != nil && !errors.Is(err, state.ErrNotState) {
		return err
	}
	if m.note.To == migration.ToLockfile && head.Exists && tooOld(head.TerraformVersion) {
		m.r.warn(fmt.Sprintf("the state was last written by terraform %s, which knows no use_lockfile", head.TerraformVersion), "update it everywhere: such a terraform fails on the new configuration")
	}
	return m.edit(ctx, change, m.write(migration.StepBoth), "give every pipeline and person this configuration, let each run once, then: "+nextStep)
}

// alone is the second step: the old kind goes, where everybody uses the new.
func (m *move) alone(ctx context.Context) error {
	if !m.noted || m.r.set.cli.Bool("recheck") {
		m.note.Both = time.Time{}
		return m.countAnew(ctx, migration.StepBoth)
	}
	change, everybody := map[string]any{"dynamodb_table": nil}, m.everybodyLocksByFile
	if m.note.To == migration.ToDynamoDB {
		change, everybody = map[string]any{"use_lockfile": nil}, m.everybodyLocksByTable
	}
	since := m.note.Since()
	if err := everybody(ctx, since); err != nil {
		return err
	}
	m.note.Both = since
	return m.edit(ctx, change, m.write(migration.StepAlone), "give every pipeline and person this configuration too, let each run once, then: "+nextStep)
}

// countAnew dates a step with the time of this call.
func (m *move) countAnew(ctx context.Context, step string) error {
	if err := m.write(step)(ctx); err != nil {
		return err
	}
	m.say("what is written from now on is judged; let every pipeline run once, then: %s", nextStep)
	return nil
}

// unmixed refuses to go on where a lock shows that somebody has another
// configuration, or blocks. A stale one is dealt with as by every other command:
// it may be of this very command, killed before.
func (m *move) unmixed(ctx context.Context) error {
	v, beside, err := m.locks(ctx)
	if err != nil {
		return err
	}
	if v.Status == lock.Stale {
		if beside != nil {
			m.r.warn(beside.Summary, beside.Hint)
		}
		if err := m.enter(ctx); err != nil {
			return err
		}
		if v, beside, err = m.locks(ctx); err != nil {
			return err
		}
	}
	switch {
	case beside != nil && v.Status != lock.Unclear:
		return refuse(beside.Hint, "%s", beside.Summary)
	case v.Status != lock.None:
		m.r.sink.Emit(event.Lock{Report: v.Report()})
		return &pipeline.BlockedError{Verdict: v}
	}
	return nil
}

// enter makes this run the state's holder, once; migrateLock ends that.
func (m *move) enter(ctx context.Context) error {
	if m.entered {
		return nil
	}
	m.entered = true
	return m.p.Enter(ctx)
}

// locks judges the state's locks; mixed is one where this configuration would
// have put none, nil without.
func (m *move) locks(ctx context.Context) (v lock.Verdict, mixed *difference, err error) {
	if v, err = m.t.Observe(ctx); err != nil {
		return v, nil, err
	}
	beside, err := m.t.besideState(ctx, v)
	for i := range beside {
		if beside[i].mixed {
			mixed = &beside[i]
		}
	}
	return v, mixed, err
}

// everybodyLocksByFile holds what was written since a time against the versions
// of the lock object, in every workspace.
func (m *move) everybodyLocksByFile(ctx context.Context, since time.Time) error {
	head, err := m.store.Head(ctx)
	if err != nil && !errors.Is(err, state.ErrNotState) {
		return err
	}
	if head.Exists && (head.VersionID == "" || head.VersionID == "null") {
		return refuse("tfguard backend setup turns versions on; then count anew: tfguard backend migrate-lock --recheck", "the bucket keeps no versions, so that nobody can tell which runs used the lock file")
	}
	for _, a := range m.states {
		store := snapshot.New(m.t.clients.S3, a, snapshot.Options{Settings: m.t.found.Settings})
		writes, err := store.Writes(ctx, since)
		if err != nil {
			return err
		}
		var heads []state.Head
		var times []time.Time
		for _, w := range writes {
			if migration.After(w.Modified, since) {
				heads, times = append(heads, w), append(times, w.Modified)
			}
		}
		e, err := m.traces(a).Evidence(ctx, times, since)
		if err != nil {
			return err
		}
		if err := m.told(a, heads, e, since); err != nil {
			return err
		}
	}
	return nil
}

// told is what the evidence on one state comes to: nil where nothing speaks
// against the step. A workspace that nobody has locked since says nothing, and
// is named; of this one somebody must have shown that the lock file works.
func (m *move) told(a backend.Address, writes []state.Head, e migration.Evidence, since time.Time) error {
	when := since.UTC().Format(time.RFC3339)
	show := func(which []int, what string) {
		for _, i := range which {
			h := writes[i]
			m.say("%s: %s, written at %s by terraform %s: %s", a, h, h.Modified.UTC().Format(time.RFC3339), quote.Line(h.TerraformVersion, 40), what)
		}
	}
	switch {
	case e.Gaps:
		return refuse("let nobody touch it, then count anew: tfguard backend migrate-lock --recheck", "the versions of s3://%s/%s since %s do not tell who held the lock", a.Bucket, a.LockKey(), when)
	case len(e.Foreign) > 0:
		show(e.Foreign, "not under the lock file")
		return refuse(recheck, "%s of %s since %s not under the lock file: somebody has another configuration", wasWere(len(e.Foreign), "write"), a, when)
	case len(e.Doubtful) > 0:
		show(e.Doubtful, "in the second in which the lock file came or went")
		return refuse("if every configuration is right, count anew and let a run go: tfguard backend migrate-lock --recheck", "%s of %s since %s in doubt: S3 tells whole seconds", wasWere(len(e.Doubtful), "write"), a, when)
	case e.Held:
		m.say("%s: %s since %s under the lock file, none was not", a, wasWere(e.Covered, "write"), when)
		return nil
	case a == m.t.addr:
		return refuse("let each pipeline run once, then: "+nextStep, "nobody has locked %s by the lock file since %s: nothing shows that it works", a, when)
	}
	m.r.warn(fmt.Sprintf("nobody has locked %s by the lock file since %s: nothing is known of who uses it", a, when), "")
	return nil
}

func wasWere(n int, what string) string {
	if n == 1 {
		return "1 " + what + " was"
	}
	return fmt.Sprintf("%d %ss were", n, what)
}

// everybodyLocksByTable looks at the digests. Whoever does not use the table does
// not write the digest either, and then the next one who does fails on it: so a
// digest that matches, and that nothing has mended, speaks for all writes.
func (m *move) everybodyLocksByTable(ctx context.Context, since time.Time) error {
	when := since.UTC().Format(time.RFC3339)
	for _, a := range m.states {
		store := snapshot.New(m.t.clients.S3, a, snapshot.Options{Settings: m.t.found.Settings})
		h, err := store.Inspect(ctx, m.tableOf(a))
		if err != nil {
			return err
		}
		mended, err := store.Mended(ctx, since)
		if err != nil {
			return err
		}
		written := h.Present && migration.After(h.Head.Modified, since)
		switch {
		case h.HasDigest && h.Digest != h.MD5, written && !h.HasDigest:
			return refuse("correct that configuration, then: tfguard state repair; tfguard backend migrate-lock --recheck", "the digest of %s does not match: the state was last written by somebody who does not use the table", a)
		case mended != "":
			return refuse("if every configuration is right, count anew and let a run go: tfguard backend migrate-lock --recheck", "a restore or a repair wrote the digest of %s (it kept %s): it says nothing of the writes before", a, mended)
		case written:
			m.say("%s: %s was written with its digest at %s", a, h.Head, h.Head.Modified.UTC().Format(time.RFC3339))
		case a == m.t.addr:
			return refuse("let each pipeline apply a change, then: "+nextStep, "nobody has written %s since %s: nothing shows that the table works", a, when)
		case h.Present:
			m.r.warn(fmt.Sprintf("nobody has written %s since %s: nothing is known of who uses it", a, when), "")
		}
	}
	return nil
}

// addTable is the first step back: the table must be there and must not hold a
// digest of long ago, on which every run would fail.
func (m *move) addTable(ctx context.Context) error {
	if m.note.Table == "" {
		return &usageError{msg: "this configuration has no lock table: name one", hint: "tfguard backend migrate-lock --to dynamodb --table NAME"}
	}
	for _, a := range m.states {
		table := m.tableOf(a)
		if err := m.unlocked(ctx, table, a); err != nil {
			return err
		}
		h, err := snapshot.New(m.t.clients.S3, a, snapshot.Options{Settings: m.t.found.Settings}).Inspect(ctx, table)
		if err != nil {
			return err
		}
		if !h.HasDigest || h.Digest == h.MD5 {
			continue
		}
		m.say("the table %s has a digest of %s that does not match the state", m.note.Table, a)
		if a != m.t.addr {
			return refuse("tfguard backend migrate-lock --to dynamodb --table NAME --workspace "+quote.Shell(a.Workspace)+" puts it right", "the digest of workspace %s does not match its state", a.Workspace)
		}
		if err := m.approve(ctx, "write the right one"); err != nil {
			return err
		}
		if err := m.underLock(ctx, table, func(o snapshot.RestoreOptions) error { _, err := m.store.RepairDigest(ctx, o); return err }); err != nil {
			return err
		}
	}
	return m.both(ctx, map[string]any{"dynamodb_table": m.note.Table})
}

func (m *move) tableOf(a backend.Address) *dynamolock.Store {
	a.Table = m.note.Table
	return dynamolock.New(m.t.clients.DynamoDB, a)
}

// unlocked refuses to go on where a state is locked in a table that this
// configuration does not name.
func (m *move) unlocked(ctx context.Context, table *dynamolock.Store, a backend.Address) error {
	held, err := table.Read(ctx)
	if err != nil || held == nil {
		return err
	}
	info, _ := lock.ParseInfo(held.Raw)
	return refuse("correct that configuration, and remove the lock with it: tfguard unlock",
		"%s is locked in the table %s (%s, %s), which this configuration does not use: somebody has another one", a, m.note.Table, info.Who, info.Created.Format(time.RFC3339))
}

// underLock does something to the digest while the state's lock is held in the
// stores of this configuration.
func (m *move) underLock(ctx context.Context, digests snapshot.Digests, do func(snapshot.RestoreOptions) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	o := m.t.restoreOptions(ctx, m.keep, "")
	o.Operation, o.Reason, o.Digests = "migrate-lock", snapshot.PreRepair, digests
	if err := do(o); err != nil {
		return m.r.explainRestore(ctx, m.t, err)
	}
	return nil
}

// dropDigest is the last step: the table's items go. Until then terraform itself
// keeps out whoever still uses the table alone, since the digest there is no
// longer that of the state.
func (m *move) dropDigest(ctx context.Context) error {
	if m.note.Table == "" {
		return m.end(ctx)
	}
	table := m.tableOf(m.t.addr)
	if err := m.unlocked(ctx, table, m.t.addr); err != nil {
		return err
	}
	h, err := m.store.Inspect(ctx, table)
	if err != nil {
		return err
	}
	if h.HasDigest {
		if !m.noted || m.note.Step != migration.StepAlone || m.r.set.cli.Bool("recheck") {
			return m.countAnew(ctx, migration.StepAlone)
		}
		since := m.note.Written
		if h.Digest == h.MD5 && migration.After(h.Head.Modified, since) {
			return refuse("give every pipeline and person this configuration, let one run go, then: "+nextStep,
				"the digest in %s was written after the table left this configuration: somebody still uses it", m.note.Table)
		}
		if err := m.everybodyLocksByFile(ctx, since); err != nil {
			return err
		}
		m.say("the digest of %s is still in the table %s, and nobody needs it", m.t.addr, m.note.Table)
		if err := m.approve(ctx, "remove it"); err != nil {
			return err
		}
		if err := m.underLock(ctx, table, func(o snapshot.RestoreOptions) error { return m.store.DropDigest(ctx, o) }); err != nil {
			return err
		}
	}
	for _, a := range m.states {
		if _, there, err := m.tableOf(a).Digest(ctx); err != nil {
			return err
		} else if there {
			m.say("workspace %s has its digest in %s too; next: tfguard backend migrate-lock --workspace %s", a.Workspace, m.note.Table, quote.Shell(a.Workspace))
			return nil
		}
	}
	return m.end(ctx)
}

// end is after the last step.
func (m *move) end(ctx context.Context) error {
	if m.noted {
		if err := m.notes.Remove(ctx); err != nil {
			return err
		}
	}
	by := m.t.addr.LockKey()
	if m.note.To == migration.ToDynamoDB {
		by = "the table " + m.t.addr.Table
	}
	m.say("%s is locked by %s alone: nothing is left to do", m.t.addr, by)
	if m.note.To == migration.ToLockfile {
		m.say("the way back: tfguard backend migrate-lock --to dynamodb --table NAME")
	}
	return nil
}

// write leaves the note of a step. It comes before the configuration is edited:
// a kill between the two leaves a step that was not done yet.
func (m *move) write(step string) func(context.Context) error {
	return func(ctx context.Context) error {
		m.note.Step = step
		return m.notes.Write(ctx, m.note)
	}
}

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
// approved.
func (m *move) edit(ctx context.Context, change map[string]any, before func(context.Context) error, next string) error {
	edit, err := discover.EditBackend(discover.Source{Dir: m.r.set.dir, BackendConfig: m.r.set.backendConfig()}, m.t.found, change)
	var elsewhere *discover.NotEditableError
	if errors.As(err, &elsewhere) {
		if before != nil {
			err = errors.Join(err, before(ctx))
		}
		return refuse("in "+elsewhere.Where+": "+elsewhere.Do+"; then: "+nextStep, "%v", err)
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
