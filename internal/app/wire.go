package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/planfile"
	"github.com/tfguard/tfguard/internal/terraform"
)

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
	if err := cmp.Or(set.checkNumbers(), set.checkOut(), checkPlan(saved)); err != nil {
		return nil, nil, err
	}
	t, err := set.locate(ctx)
	if err != nil {
		return nil, nil, err
	}
	t.self = r.id
	for _, w := range t.found.Warnings {
		r.warn(w, "")
	}
	keep := &keeper{t: t, run: r, required: set.file.Locks.Holder != nil && *set.file.Locks.Holder == "required", lost: r.cancel}
	r.sink.add(keep)
	r.sink.add(&t.locking)
	if r.folder == nil { // an engine has one
		if r.folder, err = engine.NewRun(set.dir, r.id); err != nil {
			return nil, nil, err
		}
		r.folder.Prune()
	}
	tf, err := r.terraform(ctx, what, keep)
	if err != nil {
		return nil, nil, err
	}
	f := set.file
	wait := or(set, "wait", asDuration, f.Locks.Wait, 0)
	setUp := set.cli.Bool("setup-backend") || f.Backend.Setup != nil && *f.Backend.Setup && what != "" || set.sandbox
	reason := "pre-" + what
	states := &states{t: t, tf: tf, set: set, run: r}
	plans := &planner{tf: tf, t: t, run: r, keep: keep, saved: saved, out: set.outFile(), destroy: what == "destroy" || set.cli.Bool("destroy")}
	return &pipeline.Pipeline{
		Address: t.addr,
		Checker: &checker{Terraform: tf, t: t, run: r, create: setUp},
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
		Approved:    saved != "" || (what == "apply" || what == "destroy") && set.cli.Bool("auto-approve"),
		ShowPlan:    !set.json || r.system != nil,
		Reason:      reason, Wait: wait, Poll: 5 * time.Second, CleanUp: cleanUp, Now: time.Now,
	}, t, nil
}

// checkPlan refuses a file that is no plan of tfguard's, before anything runs.
func checkPlan(saved string) error {
	if saved == "" {
		return nil
	}
	_, _, err := planfile.Read(saved)
	if err != nil {
		return fmt.Errorf("%s: %w", saved, err)
	}
	return nil
}

// terraform finds the binary and sets up how it is called.
func (r *run) terraform(ctx context.Context, what string, keep *keeper) (*terraform.Terraform, error) {
	set, c, f := r.set, r.set.cli, r.set.file.Terraform
	bin, err := terraform.Find(ctx, terraform.Search{
		Bin:      or(set, "terraform-bin", asString, f.Bin, ""),
		Version:  or(set, "terraform-version", asString, f.Version, ""),
		CacheDir: cacheDir(),
		Report:   func(s string) { r.sink.Emit(event.Output{Source: "check", Text: s}) },
	})
	if errors.Is(err, terraform.ErrWanted) {
		return nil, usagef(c, "%v", err)
	}
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
	var cancelAfter time.Duration // a stack's own: there is no flag
	if f.CancelAfter != nil {
		cancelAfter = *f.CancelAfter
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
		CancelAfter: cancelAfter,
		Log:         r.folder,
		LockLog:     r.folder.LockLog(), Locked: keep.Locked, Undigested: keep.undigested,
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
