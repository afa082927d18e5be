package app

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/planfile"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/terraform"
)

func checkCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check format, initialise and validate",
		UsageText:   "tfguard check [flags]",
		Description: codes(ExitOK, ExitFailed, ExitUsage, ExitBackend, ExitCancelled),
		Flags:       append(common(), terraformFlags()...),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, nil, func(ctx context.Context, r *run) error {
				p, _, err := r.pipeline(ctx, "", "")
				if err != nil {
					return err
				}
				return p.RunCheck(ctx)
			})
		},
	}
}

func planCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "check → backend → lock-check → plan",
		UsageText:   "tfguard plan [flags]",
		Description: codes(ExitOK, ExitFailed, ExitChanges, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitCancelled, ExitCancelUnclean),
		Flags: append(append(common(), terraformFlags()...),
			str("out", "keep the plan in `FILE`, bound to this state and configuration"),
			yes("destroy", "plan to destroy everything"),
			yes("detailed-exitcode", "exit 2 where there are changes"),
			onByDefault("lock", "--lock=false plans without taking the lock, for a role that may not write it"),
			setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, nil, func(ctx context.Context, r *run) error {
				p, t, err := r.pipeline(ctx, "", "plan")
				if err != nil {
					return err
				}
				out, err := p.RunPlan(ctx)
				if err != nil {
					return r.afterwards(ctx, t, err)
				}
				if out.Changed && c.Bool("detailed-exitcode") {
					return &codeError{code: ExitChanges}
				}
				return nil
			})
		},
	}
}

func applyCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "the whole sequence, or one saved plan",
		UsageText:   "tfguard apply [flags] [PLANFILE]",
		Description: sequenceCodes(),
		Flags:       append(append(append(common(), terraformFlags()...), guardFlags()...), setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usagef("apply takes one plan file, not %d", c.NArg())
			}
			saved := c.Args().First()
			return reported(c, s, func(r *run) error { return r.canBeApproved(saved) },
				func(ctx context.Context, r *run) error { return r.apply(ctx, saved) })
		},
	}
}

func destroyCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "destroy", Usage: "the whole sequence with a plan that destroys everything",
		UsageText:   "tfguard destroy [flags]",
		Description: sequenceCodes(),
		Flags:       append(append(append(common(), terraformFlags()...), guardFlags()...), setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, func(r *run) error { return r.canBeApproved("") },
				func(ctx context.Context, r *run) error { return r.apply(ctx, "") })
		},
	}
}

func sequenceCodes() string {
	return codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitChanged, ExitRefused, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean)
}

// canBeApproved fails before anything runs where nobody can say yes. A saved
// plan was approved when it was made, as in terraform.
func (r *run) canBeApproved(saved string) error {
	if saved != "" || r.set.cli.Bool("auto-approve") || r.streams.Terminal {
		return nil
	}
	hint := "tfguard " + r.command + " --auto-approve"
	r.sink.Emit(event.ApprovalNeeded{What: r.command, Hint: hint})
	return &usageError{msg: r.command + " needs an answer and there is no terminal to ask on", hint: hint}
}

// apply runs the whole sequence for apply and destroy.
func (r *run) apply(ctx context.Context, saved string) error {
	p, t, err := r.pipeline(ctx, saved, r.command)
	if err != nil {
		return err
	}
	_, err = p.RunApply(ctx)
	return r.afterwards(ctx, t, err)
}

// pipeline wires a run. what is "", "plan", "apply" or "destroy"; saved is the
// plan file to apply, if any.
func (r *run) pipeline(ctx context.Context, saved, what string) (*pipeline.Pipeline, *target, error) {
	set := r.set
	if err := terraform.ForbiddenEnv(os.Environ()); err != nil {
		return nil, nil, &usageError{msg: err.Error(), hint: "unset it, or use tfguard's own flags"}
	}
	guard, err := set.guard()
	if err != nil {
		return nil, nil, err
	}
	unlockStale, err := set.unlockStale()
	if err != nil {
		return nil, nil, err
	}
	t, err := set.target(ctx)
	if err != nil {
		return nil, nil, err
	}
	t.self = r.id
	for _, w := range t.found.Warnings {
		r.warn(w, "")
	}
	keep := &keeper{t: t, run: r, required: set.file.Locks.Holder != nil && *set.file.Locks.Holder == "required", lost: r.cancel}
	r.sink.add(keep)
	if r.folder == nil { // an engine has one
		if r.folder, err = engine.NewRun(set.dir, r.id); err != nil {
			return nil, nil, err
		}
	}
	tf, err := r.terraform(ctx, what, keep.Locked)
	if err != nil {
		return nil, nil, err
	}
	f := set.file
	wait := or(set, "wait", asDuration, f.Locks.Wait, 0)
	setUp := set.cli.Bool("setup-backend") || f.Backend.Setup != nil && *f.Backend.Setup && what != "" || set.sandbox
	reason := "pre-" + what
	states := &states{Store: t.snapshots(set, snapshot.Options{Run: r.id}), t: t, tf: tf, set: set, run: r}
	plans := &planner{tf: tf, t: t, run: r, keep: keep, saved: saved, out: set.outFile(), destroy: what == "destroy" || set.cli.Bool("destroy")}
	return &pipeline.Pipeline{
		Address: t.addr,
		Checker: &checker{Terraform: tf, t: t, set: set, create: setUp},
		Backend: &preparer{t: t, setUp: setUp, sink: r.sink},
		Locks:   t,
		Planner: plans,
		Applier: &applier{Terraform: tf, t: t, keep: keep, run: r},
		States:  states,
		Holder:  keep,
		Person:  &person{streams: r.streams, sink: r.sink, auto: set.cli.Bool("auto-approve"), unlockStale: unlockStale, approved: values(set.cli, "approve-lock"), what: what},
		Guard:   guard, Sink: r.sink,
		Hooks: r.hooks(), SetUp: setUp,
		IgnoreLocks: what == "plan" && !set.cli.Bool("lock"),
		SavedPlan:   saved != "",
		ShowPlan:    !set.json || r.system != nil,
		Reason:      reason, Wait: wait, Poll: 5 * time.Second, CleanUp: cleanUp, Now: time.Now,
	}, t, nil
}

// terraform finds the binary and sets up how it is called.
func (r *run) terraform(ctx context.Context, what string, locked func(id string)) (*terraform.Terraform, error) {
	set, c, f := r.set, r.set.cli, r.set.file.Terraform
	bin, err := terraform.Find(ctx, terraform.Search{
		Bin:      or(set, "terraform-bin", asString, f.Bin, ""),
		Version:  or(set, "terraform-version", asString, f.Version, ""),
		CacheDir: cacheDir(),
		Report:   func(s string) { r.sink.Emit(event.Output{Source: "check", Text: s}) },
	})
	if err != nil {
		return nil, err
	}
	for k, v := range terraform.Env(os.Getenv) {
		os.Setenv(k, v)
	}
	var varFiles []string
	for _, v := range set.strings("var-file", f.VarFiles) {
		varFiles = append(varFiles, fromDir(set.dir, v))
	}
	return terraform.New(bin, terraform.Options{
		Dir: set.dir, DataDir: set.dataDir(), BackendConfig: set.terraformBackendConfig(),
		Vars: append(fileVars(f.Vars), values(c, "var")...), VarFiles: varFiles, Targets: values(c, "target"), Replace: values(c, "replace"),
		Parallelism: or(set, "parallelism", asInt, f.Parallelism, 0),
		NoRefresh:   c.IsSet("refresh") && !c.Bool("refresh"),
		NoLock:      what == "plan" && !c.Bool("lock"),
		Upgrade:     c.Bool("upgrade") || f.Upgrade != nil && *f.Upgrade,
		Destroy:     what == "destroy" || c.Bool("destroy"),
		LockTimeout: or(set, "lock-timeout", asDuration, f.LockTimeout, 0),
		Log:         r.folder,
		LockLog:     r.folder.LockLog(), Locked: locked,
	}, r.sink), nil
}

// fileVars are the variables of .tfguard.hcl as -var takes them, sorted.
func fileVars(vars map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		out = append(out, k+"="+vars[k])
	}
	return out
}

// fromDir makes a path absolute that counts from where tfguard was started, or
// where it is not there, from the configuration's directory, as with -chdir.
func fromDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if _, err := os.Stat(path); err == nil {
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
	}
	return filepath.Join(dir, path)
}

func cacheDir() string {
	d, err := os.UserCacheDir()
	if err != nil {
		d = os.TempDir()
	}
	return filepath.Join(d, "tfguard")
}

func (set *settings) outFile() string {
	out := set.cli.String("out")
	if out == "" {
		return ""
	}
	abs, err := filepath.Abs(out)
	if err != nil {
		return out
	}
	return abs
}

// checker is the check stage's terraform, with what init has to confirm.
type checker struct {
	*terraform.Terraform
	t      *target
	set    *settings
	create bool // a workspace that is not there is made
}

// Init implements pipeline.Checker.
func (c *checker) Init(ctx context.Context) error {
	if _, err := discover.Mend(c.t.dataDir); err != nil {
		return err
	}
	if c.set.sandbox {
		v, err := c.Version(ctx)
		if err != nil {
			return err
		}
		if err := c.set.fitSandbox(c.t.found.Settings, v); err != nil {
			return err
		}
	}
	if err := c.Terraform.Init(ctx); err != nil {
		return err
	}
	if err := c.t.confirm(); err != nil {
		return err
	}
	selected, err := discover.Workspace(c.t.dataDir, "", func(string) string { return "" })
	if err != nil || selected == c.t.addr.Workspace {
		return err
	}
	if err := c.SelectWorkspace(ctx, c.t.addr.Workspace, c.create); err != nil {
		return fmt.Errorf("select workspace %s: %w", c.t.addr.Workspace, err)
	}
	return nil
}

// preparer checks the backend, or sets it up.
type preparer struct {
	t     *target
	setUp bool
	sink  event.Sink
}

// Prepare implements pipeline.Preparer.
func (p *preparer) Prepare(ctx context.Context) (string, error) {
	if p.setUp {
		return p.t.addr.String(), setUpBackend(ctx, p.t, p.sink)
	}
	report, err := p.t.backend().Check(ctx)
	for _, f := range report.Findings {
		p.sink.Emit(event.Diagnostic{Severity: "warning", Summary: f.String(), Hint: "tfguard backend setup"})
	}
	return p.t.addr.String(), err
}

// states are the state's head and copies, with what a copy's metadata says.
type states struct {
	*snapshot.Store
	t   *target
	tf  *terraform.Terraform
	set *settings
	run *run
}

// Keep implements pipeline.States.
func (s *states) Keep(ctx context.Context, from state.Head, reason string) (event.Snapshot, error) {
	version, err := s.tf.Version(ctx)
	if err != nil {
		return event.Snapshot{}, err
	}
	store := s.t.snapshots(s.set, snapshot.Options{Run: s.run.id, Commit: s.run.commit(ctx), TerraformVersion: version})
	return store.Keep(ctx, from, reason)
}

// commit is the commit that the run is about: the CI system's, or git's.
func (r *run) commit(ctx context.Context) string {
	if r.system != nil && r.system.Commit != "" {
		return r.system.Commit
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, "git", "rev-parse", "HEAD")
	cmd.Dir = r.set.dir
	out, err := cmd.Output()
	if err != nil {
		return "" // no git, or no repository
	}
	return strings.TrimSpace(string(out))
}

// planner makes the run's plan, or verifies a saved one.
type planner struct {
	tf         *terraform.Terraform
	t          *target
	run        *run
	saved, out string
	destroy    bool
	keep       *keeper
}

// Plan implements pipeline.Planner.
func (p *planner) Plan(ctx context.Context) (string, event.Plan, state.Head, error) {
	if p.saved != "" {
		return p.verify(ctx)
	}
	file := p.run.folder.PlanFile()
	plan, err := p.tf.Plan(ctx, file)
	if err != nil {
		return "", plan, state.Head{}, p.keep.afterTerraform(ctx, err)
	}
	from, err := planfile.Head(file)
	if err != nil {
		return "", plan, from, err
	}
	if p.out == "" {
		return file, plan, from, nil
	}
	version, err := p.tf.Version(ctx)
	if err != nil {
		return "", plan, from, err
	}
	now, err := p.current()
	if err != nil {
		return "", plan, from, err
	}
	err = planfile.Bind(file, p.out, planfile.Binding{
		Version: 1, Created: time.Now().UTC(), State: now.State, Workspace: now.Workspace,
		Lineage: from.Lineage, Serial: from.Serial, HasState: from.Exists,
		Config: now.Config, LockFile: now.LockFile,
		Terraform: version, Destroy: p.destroy, Run: p.run.id, Commit: p.run.commit(ctx), Plan: plan,
	})
	return p.out, plan, from, err
}

// Show implements pipeline.Planner.
func (p *planner) Show(ctx context.Context, file string) (string, error) { return p.tf.Show(ctx, file) }

func (p *planner) current() (planfile.Current, error) {
	config, lockFile, err := planfile.Digests(p.run.set.dir, p.t.dataDir)
	return planfile.Current{State: p.t.addr.String(), Workspace: p.t.addr.Workspace, Config: config, LockFile: lockFile, Now: time.Now()}, err
}

// verify takes a saved plan: it must be of this state, this workspace, this
// configuration, these providers, and young enough. Lineage and serial are
// held against the state by the recheck and the snapshot.
func (p *planner) verify(context.Context) (string, event.Plan, state.Head, error) {
	file, err := filepath.Abs(p.saved)
	if err != nil {
		return "", event.Plan{}, state.Head{}, err
	}
	b, from, err := planfile.Read(file)
	if err != nil {
		return "", event.Plan{}, from, err
	}
	now, err := p.current()
	if err != nil {
		return "", event.Plan{}, from, err
	}
	if diff := b.Verify(now, p.run.set.planMaxAge()); len(diff) > 0 {
		return "", event.Plan{}, from, &codeError{code: ExitChanged, hint: "plan again: tfguard plan --out " + p.saved,
			msg: "the saved plan does not fit any more: " + strings.Join(diff, "; ")}
	}
	return file, b.Plan, from, nil
}

// hooks are the commands of .tfguard.hcl.
func (r *run) hooks() []pipeline.Hook {
	var hooks []pipeline.Hook
	for _, h := range r.set.file.Hooks {
		stage, before := h.After, false
		if h.Before != "" {
			stage, before = h.Before, true
		}
		hooks = append(hooks, pipeline.Hook{Name: h.Name, Stage: pipeline.Name(stage), Before: before,
			Run: func(ctx context.Context) error { return runHook(ctx, r, h) }})
	}
	return hooks
}
