package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/snapshot"
)

// scratch is a state beside the real one, in which a restore is tried out: the
// backend's key, and a data directory of its own for terraform.
type scratch struct{ key, dataDir string }

// drillAge is after how long a drill's leftovers are surely of one that died.
const drillAge = time.Hour

// drill restores a snapshot, the newest without an ID, into a scratch key and
// lets terraform init and plan there. The state, its lock and its holder record
// are not touched; what was made is taken away again.
func (r *run) drill(ctx context.Context, id string) (err error) {
	real, err := r.set.target(ctx)
	if err != nil {
		return err
	}
	from := real.snapshots(r.set, snapshot.Options{})
	if id == "" {
		all, err := from.List(ctx)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return &codeError{code: ExitFailed, msg: fmt.Sprintf("%s has no snapshot to try", real.addr), hint: "tfguard snapshot create"}
		}
		id = all[0].ID
	}
	say := func(format string, args ...any) {
		r.sink.Emit(event.Output{Source: "drill", Text: fmt.Sprintf(format, args...)})
	}
	prefix := ".tfguard/" + real.found.Settings.Key + "/drill/"
	dataDir, err := r.scratchDataDir(real)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dataDir); removeErr != nil {
			r.warn("take the drill's files away: "+removeErr.Error(), "")
		}
	}()
	r.set.scratch = &scratch{key: prefix + r.id + ".tfstate", dataDir: dataDir}
	if err := os.Setenv("TF_DATA_DIR", dataDir); err != nil {
		return fmt.Errorf("set TF_DATA_DIR: %w", err)
	}
	p, t, err := r.pipeline(ctx, "", "restore")
	if err != nil {
		return err
	}
	if err := t.connect(ctx); err != nil {
		return err
	}
	if t.addr.Key == real.addr.Key || t.addr.Workspace != real.addr.Workspace {
		return fmt.Errorf("drill: the scratch state would be %s in workspace %s", t.addr, t.addr.Workspace)
	}
	to := t.snapshots(r.set, snapshot.Options{Run: r.id})
	if err := to.EraseOld(ctx, time.Now().Add(-drillAge)); err != nil && !backend.Is(err, backend.Denied) {
		return fmt.Errorf("take the leftovers of earlier drills away: %w", err)
	}
	defer func() {
		clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer stop()
		p.Holder.Release(clean)
		if eraseErr := t.erase(clean, to); eraseErr != nil {
			r.warn("the drill's scratch state is left at "+t.addr.String()+": "+eraseErr.Error(), "an hour from now the next drill takes it away")
		}
	}()
	version, err := p.Applier.(*applier).Version(ctx)
	if err != nil {
		return err
	}
	o := t.restoreOptions(ctx, p.Holder.(*keeper), version)
	o.Operation, o.Report = "snapshot-drill", func(step string) { say("%s", step) }
	done, err := to.RestoreFrom(ctx, from, id, o)
	if errors.Is(err, snapshot.ErrNotFound) {
		return err
	}
	if err != nil {
		return &keptError{fmt.Errorf("drill: %w", err)}
	}
	say("%s is at %s, as serial %d", done.From.ID, t.addr, done.Serial)
	out, err := p.RunPlan(ctx)
	if err != nil {
		return fmt.Errorf("the snapshot could be restored, and terraform's plan from it failed: %w", err)
	}
	say("%s can be restored: terraform plans from it (%d to add, %d to change, %d to destroy)", done.From.ID, out.Plan.Add, out.Plan.Change, out.Plan.Destroy)
	return nil
}

// scratchDataDir makes a data directory with what init installed in the real
// one, and the same workspace.
func (r *run) scratchDataDir(t *target) (string, error) {
	dir, err := os.MkdirTemp("", "tfguard-drill-*") // mode 0700
	if err != nil {
		return "", fmt.Errorf("make a data directory: %w", err)
	}
	// Modules and providers that are there need not be fetched again; init writes
	// into them only what is missing.
	for _, name := range []string{"modules", "providers"} {
		if _, err := os.Stat(filepath.Join(t.dataDir, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Symlink(filepath.Join(t.dataDir, name), filepath.Join(dir, name)); err != nil {
			return "", errors.Join(fmt.Errorf("fill the data directory: %w", err), os.RemoveAll(dir))
		}
	}
	if t.addr.Workspace != backend.DefaultWorkspace {
		if err := os.WriteFile(filepath.Join(dir, "environment"), []byte(t.addr.Workspace), 0o600); err != nil {
			return "", errors.Join(fmt.Errorf("fill the data directory: %w", err), os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// erase removes a scratch state and everything beside it.
func (t *target) erase(ctx context.Context, store *snapshot.Store) error {
	err := store.Erase(ctx)
	if t.table != nil {
		err = errors.Join(err, t.table.RemoveDigest(ctx))
	}
	return err
}
