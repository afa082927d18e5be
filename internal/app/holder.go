package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
)

// keeper holds the holder record for one run.
type keeper struct {
	t        *target
	run      *run
	required bool        // locks { holder = "required" }
	lost     func(error) // cancels the run

	mu     sync.Mutex
	lease  *holder.Lease
	flying []string // addresses of resources being changed now
	ids    []string // of the locks that this run's terraform asked for
	behind bool     // terraform has written a state and not its digest
	stuck  string   // ID of a lock of this run's that may be left; empty without one
}

// Take implements pipeline.Holder.
func (k *keeper) Take(ctx context.Context) error {
	if k.current() != nil {
		return k.Enter(ctx, pipeline.Plan) // a restore took it before its plan
	}
	over := k.t.holderSeen()
	r := lock.Record{
		RunID: k.run.id, Command: k.run.command, CI: ci.Self(os.Getenv), Commit: k.run.commit(ctx), Who: who(),
		Stage: string(pipeline.Plan), Started: time.Now().UTC(),
	}
	r.Host, r.PID, r.Began = holder.Here()
	lease, err := k.t.record.Take(ctx, r, over, holder.DefaultTiming(), k.lost)
	switch {
	case (backend.Is(err, backend.Denied) || errors.Is(err, holder.ErrNoConditions)) && !k.required:
		k.run.warn("no holder record: "+err.Error(), "another tfguard run is kept out by terraform's lock alone")
		return nil
	case err != nil:
		return err
	case lease.Weak && k.required:
		return errors.Join(&codeError{code: ExitFailed, msg: "the bucket's store ignores conditional writes, and locks { holder = \"required\" } needs them"}, lease.Release(ctx))
	case lease.Weak:
		k.run.warn("the bucket's store ignores conditional writes", "another tfguard run is kept out by terraform's lock alone")
	}
	k.mu.Lock()
	k.lease = lease
	k.mu.Unlock()
	if over != nil && over.Problem == "" {
		k.tellDeath(over.Record)
		return k.sound(ctx)
	}
	return nil
}

// tellDeath names what a run that died had under way: those resources may
// exist and be in no state.
func (k *keeper) tellDeath(r lock.Record) {
	k.warnOf(fmt.Sprintf("run %s of %s ended uncleanly at stage %s", r.RunID, quote.Line(r.Who, 100), quote.Line(r.Stage, 30)), r.InFlight)
}

// warnOf warns of something that left resources half changed.
func (k *keeper) warnOf(text string, inFlight []string) {
	var names, commands []string
	for _, a := range inFlight {
		names = append(names, quote.Line(a, 200))
		commands = append(commands, "terraform state show "+quote.Shell(quote.Line(a, 200)))
	}
	if len(names) > 0 {
		text += "; these resources were being changed and may exist without being in the state: " + strings.Join(names, ", ")
	}
	k.run.warn(text, strings.Join(commands, "; "))
}

// Enter implements pipeline.Holder: it writes the stage, which fails where the
// record is no longer this run's.
func (k *keeper) Enter(ctx context.Context, stage pipeline.Name) error {
	lease := k.current()
	if lease == nil {
		return nil
	}
	return lease.Confirm(ctx, func(r *lock.Record) { r.Stage, r.LockID = string(stage), "" })
}

// note remembers which lock of this run's may be left, or that none is.
func (k *keeper) note(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stuck = id
}

func (k *keeper) mayBeLocked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stuck != ""
}

// lastID is of the lock that this run asked for last; empty before.
func (k *keeper) lastID() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ids) == 0 {
		return ""
	}
	return k.ids[len(k.ids)-1]
}

// Release implements pipeline.Holder. Where a lock of this run's may be left the
// record stays and names it: once this process has ended, it is the next run's
// proof that the lock is stale.
func (k *keeper) Release(ctx context.Context) {
	lease := k.current()
	if lease == nil {
		return
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer stop()
	k.mu.Lock()
	stuck := k.stuck
	k.mu.Unlock()
	if stuck != "" {
		_ = lease.Confirm(clean, func(r *lock.Record) { r.LockID = stuck }) // else it says it already, or says nothing
		lease.Leave()
		return
	}
	if err := lease.Release(clean); err != nil {
		k.run.warn("the holder record could not be removed: "+err.Error(), fmt.Sprintf("it runs out in %s by itself", k.t.policy.HolderTTL))
	}
}

func (k *keeper) current() *holder.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lease
}

// lockedWrite bounds how long the end of terraform may wait for its lock's ID to
// be written.
const lockedWrite = 2 * time.Second

// Locked is told terraform's lock ID. It is in the record at once: after the
// death of all of this, nothing else says whose the lock is.
func (k *keeper) Locked(id string) {
	k.mu.Lock()
	k.ids = append(k.ids, id)
	k.mu.Unlock()
	lease := k.current()
	if lease == nil || !lock.UsableID(id) {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), lockedWrite)
	defer stop()
	err := lease.Confirm(ctx, func(r *lock.Record) { r.LockID = id })
	switch {
	case errors.Is(err, holder.ErrLost):
		k.lost(err)
	case err != nil:
		lease.Update(func(*lock.Record) {}) // tried again
	}
}

// Emit implements event.Sink: it keeps the addresses in flight in the record.
func (k *keeper) Emit(e event.Event) {
	r, ok := e.(event.Resource)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flying = slices.DeleteFunc(k.flying, func(a string) bool { return a == r.Address })
	if r.Phase == "started" {
		k.flying = append(k.flying, r.Address)
	}
	if k.lease != nil {
		now := slices.Clone(k.flying)
		k.lease.Update(func(rec *lock.Record) { rec.InFlight = now })
	}
}

// warn tells the person something that stops nothing.
func (r *run) warn(summary, hint string) {
	r.sink.Emit(event.Diagnostic{Severity: "warning", Summary: quote.Line(summary, 4000), Hint: quote.Line(hint, 4000)})
}
