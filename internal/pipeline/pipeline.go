// Package pipeline is the sequence: check → backend → lock-check → plan →
// recheck → snapshot → apply. It decides what may follow what and nothing
// else: what it needs done is behind the interfaces below, what it has to say
// goes to an event sink. A stage takes what the one before it returned, so an
// apply without plan, second lock check and snapshot does not compile.
package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// Name is a stage's name, as events and hooks use it.
type Name string

// The stages, in their order.
const (
	Check     Name = "check"
	Backend   Name = "backend"
	LockCheck Name = "lock-check"
	Plan      Name = "plan"
	Recheck   Name = "recheck"
	Snapshot  Name = "snapshot"
	Apply     Name = "apply"
)

// Stages lists every stage in its order.
func Stages() []Name { return []Name{Check, Backend, LockCheck, Plan, Recheck, Snapshot, Apply} }

type (
	// Target is a state whose backend is there and usable.
	Target struct{ addr backend.Address }
	// Free is a target that nobody holds a lock on.
	Free struct {
		Target
		seen lock.Verdict
	}
	// Planned has a plan file and the state that it was made from.
	Planned struct {
		Free
		file string
		plan event.Plan
		from state.Head
	}
	// Fresh is a plan whose state is still free and still the planned one.
	Fresh struct {
		Planned
		again lock.Verdict
	}
	// Saved is a fresh plan with a verified copy of the state it starts from.
	Saved struct {
		Fresh
		kept event.Snapshot // zero where there was no state yet
	}
)

// Checker runs what needs no lock and changes nothing.
type Checker interface {
	// Fmt fails where a file is not formatted.
	Fmt(ctx context.Context) error
	// Init installs providers and modules, and confirms that terraform resolved
	// the backend that the run is about.
	Init(ctx context.Context) error
	// Validate fails where the configuration is not valid.
	Validate(ctx context.Context) error
}

// Planner makes a plan, or takes one that was made.
type Planner interface {
	// Plan gives the plan's file, what it does and the state it was made from.
	Plan(ctx context.Context) (file string, plan event.Plan, from state.Head, err error)
	// Show gives the plan as terraform prints it for people.
	Show(ctx context.Context, file string) (string, error)
}

// Applier applies a plan file. It gives terraform one interrupt on cancel and
// waits for it; it returns nil where terraform finished all the same.
type Applier interface {
	Apply(ctx context.Context, file string) error
}

// Preparer checks that the backend is usable, or sets it up.
type Preparer interface {
	Prepare(ctx context.Context) (note string, err error)
}

// Locks reads the state's locks in all stores, and removes one.
type Locks interface {
	Observe(ctx context.Context) (lock.Verdict, error)
	// Remove removes exactly this lock, verifies that and records it.
	Remove(ctx context.Context, e lock.Entry, approvedBy string) error
}

// States reads the state's head and keeps copies of it.
type States interface {
	Head(ctx context.Context) (state.Head, error)
	// Keep copies the state, which must be what was planned from: otherwise it
	// fails with state.ErrChanged.
	Keep(ctx context.Context, from state.Head, reason string) (event.Snapshot, error)
}

// Person is asked where the run needs a decision.
type Person interface {
	// ApprovePlan returns nil where the plan may be applied.
	ApprovePlan(ctx context.Context, p event.Plan) error
	// ApproveUnlock names the stale locks that may be removed, and who said so.
	ApproveUnlock(ctx context.Context, v lock.Verdict) (ids []string, by string, err error)
}

// Hook is a command of the user's before or after a stage.
type Hook struct {
	Name   string
	Stage  Name
	Before bool
	Run    func(ctx context.Context) error
}

// Pipeline has what a run is made of. All fields are needed but those said.
type Pipeline struct {
	Address backend.Address
	Checker Checker
	Backend Preparer
	Locks   Locks
	Planner Planner
	Applier Applier
	States  States
	Holder  Holder
	Person  Person
	Guard   Guard
	Sink    event.Sink

	Hooks       []Hook        // may be empty
	SetUp       bool          // the backend stage may create: nothing runs beside it
	IgnoreLocks bool          // plan with -lock=false: locks are told, and block nothing
	SavedPlan   bool          // the plan was made before: applying it is already approved
	ShowPlan    bool          // somebody reads terraform's text of the plan
	Approved    bool          // nobody is asked about the plan
	Reason      string        // of the snapshot: pre-apply or pre-destroy
	Wait        time.Duration // for an active lock; 0 does not wait
	Poll        time.Duration // between two looks at a lock that is waited for
	CleanUp     time.Duration // bound on what is done after a cancel
	Now         func() time.Time

	showing sync.WaitGroup // the text of the plan is being made
}

// Outcome is what a run came to.
type Outcome struct {
	Changed bool // the plan had changes
	File    string
	Plan    event.Plan
	From    state.Head
}

// RunCheck runs the check stage, and the backend stage where it may create.
func (p *Pipeline) RunCheck(ctx context.Context) error {
	if p.SetUp { // init needs what it makes
		if _, err := step(ctx, p, Backend, p.Address, p.prepare); err != nil {
			return err
		}
	}
	_, err := step(ctx, p, Check, struct{}{}, func(ctx context.Context, _ struct{}) (struct{}, string, error) {
		return struct{}{}, checkNote, p.check(ctx, func() {})
	})
	return err
}

// Enter makes this run the holder of a state that nobody has locked, for what is
// done to a state without terraform. The caller releases it.
func (p *Pipeline) Enter(ctx context.Context) error {
	_, err := step(ctx, p, LockCheck, p.Address, p.lockCheck)
	return err
}

// RunPlan runs check → backend → lock-check → plan.
func (p *Pipeline) RunPlan(ctx context.Context) (Outcome, error) {
	defer p.Holder.Release(ctx)
	planned, err := p.upToPlan(ctx)
	return planned.outcome(), err
}

// RunApply runs the whole sequence.
func (p *Pipeline) RunApply(ctx context.Context) (Outcome, error) {
	defer p.showing.Wait() // it reads the plan file
	defer p.Holder.Release(ctx)
	planned, err := p.upToPlan(ctx)
	if err != nil {
		return planned.outcome(), err
	}
	if err := p.Guard.Judge(planned.plan); err != nil {
		return planned.outcome(), err
	}
	if !planned.plan.Changed {
		p.skip("no changes", Recheck, Snapshot, Apply)
		return planned.outcome(), nil
	}
	if err := p.approve(ctx, planned); err != nil {
		return planned.outcome(), err
	}
	saved, err := p.secure(ctx, planned)
	if err != nil {
		return planned.outcome(), err
	}
	_, err = step(ctx, p, Apply, saved, p.apply)
	return planned.outcome(), err
}

func (p Planned) outcome() Outcome {
	return Outcome{Changed: p.plan.Changed, File: p.file, Plan: p.plan, From: p.from}
}

// upToPlan is where what can overlap overlaps: format check and init beside
// backend check and first lock check, then validate beside plan. Plan waits
// for all of them but validate, whose failure interrupts it.
func (p *Pipeline) upToPlan(ctx context.Context) (Planned, error) {
	var (
		wg                          sync.WaitGroup
		initialised                 = make(chan struct{})
		checkErr, backErr, lockErr  error
		target                      Target
		free                        Free
		planCtx, stopPlan           = context.WithCancelCause(ctx)
		lockCtx, stopWaitingForLock = context.WithCancelCause(ctx)
	)
	defer stopPlan(nil)
	defer stopWaitingForLock(nil)
	prepare := func() {
		target, backErr = step(ctx, p, Backend, p.Address, p.prepare)
		if backErr != nil {
			stopWaitingForLock(errOther)
		}
	}
	if p.SetUp {
		if prepare(); backErr != nil {
			return Planned{}, backErr
		}
	}
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		var once sync.Once
		ready := func() { once.Do(func() { close(initialised) }) }
		_, checkErr = step(ctx, p, Check, struct{}{}, func(ctx context.Context, _ struct{}) (struct{}, string, error) {
			return struct{}{}, checkNote, p.check(ctx, ready)
		})
		if checkErr != nil {
			stopPlan(errOther)
			stopWaitingForLock(errOther)
		}
		ready()
	}()
	if !p.SetUp {
		wg.Go(prepare)
	}
	wg.Go(func() {
		free, lockErr = step(lockCtx, p, LockCheck, p.Address, p.lockCheck)
		if lockErr != nil && errors.Is(context.Cause(lockCtx), errOther) {
			lockErr = errOther // whatever the request that was broken off says
		}
	})
	wg.Go(func() { <-initialised })
	wg.Wait()
	// What is wrong with the backend, or with the state, makes init fail too: name
	// the cause.
	if backErr != nil || lockErr != nil && !errors.Is(lockErr, errOther) {
		<-checked
		return Planned{}, cmp.Or(backErr, lockErr)
	}
	free.Target = target
	var planned Planned
	var planErr error
	if planCtx.Err() == nil || ctx.Err() != nil {
		planned, planErr = step(planCtx, p, Plan, free, func(stage context.Context, free Free) (Planned, string, error) {
			return p.plan(stage, ctx, free)
		})
	}
	<-checked
	if checkErr != nil {
		return Planned{}, checkErr
	}
	return planned, planErr
}

// secure looks at the locks a second time beside keeping a copy of the state:
// both must succeed before anything is applied.
func (p *Pipeline) secure(ctx context.Context, planned Planned) (Saved, error) {
	var (
		wg                sync.WaitGroup
		fresh             Fresh
		kept              event.Snapshot
		freshErr, keptErr error
	)
	wg.Go(func() { fresh, freshErr = step(ctx, p, Recheck, planned, p.recheck) })
	wg.Go(func() { kept, keptErr = step(ctx, p, Snapshot, planned, p.snapshot) })
	wg.Wait()
	if freshErr != nil {
		return Saved{}, freshErr
	}
	return Saved{Fresh: fresh, kept: kept}, keptErr
}

// errOther stops a stage because of another one's failure.
var errOther = errors.New("another stage failed")

// StageError names the stage that an error comes from.
type StageError struct {
	Stage Name
	Err   error
}

func (e *StageError) Error() string { return fmt.Sprintf("%s: %v", e.Stage, e.Err) }
func (e *StageError) Unwrap() error { return e.Err }

// step runs one stage with its hooks: it refuses a cancelled run, reports,
// times, and names the error. Whether a stage that ran was cancelled is its
// own to say: an apply that finished is reported as finished.
func step[In, Out any](ctx context.Context, p *Pipeline, n Name, in In, fn func(context.Context, In) (Out, string, error)) (Out, error) {
	var out Out
	if err := p.runHooks(ctx, n, true); err != nil {
		return out, err
	}
	err := p.timed(ctx, n, func() (note string, err error) {
		out, note, err = fn(ctx, in)
		return note, err
	})
	if err != nil {
		return out, err
	}
	return out, p.runHooks(ctx, n, false)
}

func (p *Pipeline) timed(ctx context.Context, n Name, fn func() (string, error)) error {
	if err := context.Cause(ctx); err != nil {
		return &StageError{n, err}
	}
	p.Sink.Emit(event.StageStarted{Stage: string(n)})
	began := p.Now()
	note, err := fn()
	end := event.StageFinished{Stage: string(n), Status: event.OK, Note: note, Seconds: p.Now().Sub(began).Seconds()}
	switch {
	case err == nil:
		p.Sink.Emit(end)
		return nil
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		end.Status = event.Cancelled
	default:
		end.Status, end.Note = event.Failed, err.Error()
	}
	p.Sink.Emit(end)
	return &StageError{n, err}
}

func (p *Pipeline) runHooks(ctx context.Context, n Name, before bool) error {
	for _, h := range p.Hooks {
		if h.Stage != n || h.Before != before {
			continue
		}
		if err := p.timed(ctx, Name("hook:"+h.Name), func() (string, error) { return "", h.Run(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pipeline) skip(why string, stages ...Name) {
	for _, n := range stages {
		p.Sink.Emit(event.StageFinished{Stage: string(n), Status: event.Skipped, Note: why})
	}
}
