package app

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/planfile"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/terraform"
)

// checker is the check stage's terraform, with what init has to confirm.
type checker struct {
	*terraform.Terraform
	t      *target
	run    *run
	create bool // a workspace that is not there is made
}

// Init implements pipeline.Checker. Runs of one folder take turns in it.
func (c *checker) Init(ctx context.Context) error {
	leave, err := c.run.folder.Alone(ctx, func() {
		c.run.sink.Emit(event.Output{Source: string(pipeline.Check), Text: "waiting for another run's terraform init in this folder"})
	})
	if err != nil {
		return err
	}
	defer leave()
	if _, err := discover.Mend(c.t.dataDir); err != nil {
		return err
	}
	if c.run.set.sandbox {
		v, err := c.Version(ctx)
		if err != nil {
			return err
		}
		if err := c.run.set.fitSandbox(c.t.found.Settings, v); err != nil {
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
	if c.create {
		c.t.locking.Store(true) // terraform locks the new workspace's state
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
	if err := p.t.connect(ctx); err != nil {
		return "", err
	}
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
	t   *target
	tf  *terraform.Terraform
	set *settings
	run *run
	due bool // old copies are to be removed
}

// Head implements pipeline.States.
func (s *states) Head(ctx context.Context) (state.Head, error) {
	return s.t.snapshots(s.set, snapshot.Options{Run: s.run.id}).Head(ctx)
}

// Keep implements pipeline.States.
func (s *states) Keep(ctx context.Context, from state.Head, reason string) (event.Snapshot, error) {
	version, err := s.tf.Version(ctx)
	if err != nil {
		return event.Snapshot{}, err
	}
	store := s.t.snapshots(s.set, snapshot.Options{Run: s.run.id, Commit: s.run.commit(ctx), TerraformVersion: version, Copied: s.copied})
	return store.Keep(ctx, from, reason)
}

// commit is the commit that the run is about: the CI system's, or git's.
func (r *run) commit(ctx context.Context) string {
	r.asked.Do(func() { r.sha = r.askCommit(ctx) })
	return r.sha
}

func (r *run) askCommit(ctx context.Context) string {
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
	if err != nil { // %v: it is no wrong use of tfguard
		return "", plan, from, fmt.Errorf("terraform's plan cannot be read, is the disk full? %v", err)
	}
	from.Resources = counted(file)
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
	from.Resources = counted(file)
	return file, b.Plan, from, nil
}

// counted is how many resources the state has that the plan was made from, for
// the list of snapshots. It is not worth failing for.
func counted(file string) *int {
	n, err := planfile.Resources(file)
	if err != nil {
		return nil
	}
	return &n
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
