package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/ui"
)

// run is one run of a command that reports what it does: in this process, or in
// an engine, in which case there are two of it, with one id.
type run struct {
	id      string
	command string
	started time.Time
	streams Streams
	set     *settings
	sink    *fanOut
	folder  *engine.Run // nil until it is made
	system  *ci.GitHub  // nil outside CI
	cancel  context.CancelCauseFunc
	asked   sync.Once // for the commit
	sha     string
}

// envTerminal tells an engine that its foreground can ask a person.
const envTerminal = "TFGUARD_ENGINE_TERMINAL"

func noDetachFlag() cli.Flag {
	return yes("no-detach", "run in this process alone: a kill of it leaves terraform's lock behind")
}

// reported runs body and tells its story to the person and the CI system. A
// command that can hold a lock (it has --no-detach) runs in an engine, which
// survives this process; ready is what must be right before anything starts.
func reported(c *cli.Context, s Streams, ready func(*run) error, body func(context.Context, *run) error) error {
	if s.Engine != nil {
		return inEngine(c, s, body)
	}
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	if !s.NoHup {
		go watchParent(ctx, cancel)
	}
	c.Context = ctx
	r := &run{id: engine.NewID(time.Now()), command: c.Command.Name, started: time.Now(), streams: s, system: ci.Detect(os.Getenv)}
	set, err := newSettings(c, s)
	r.set = set
	show := newView(r, c)
	r.sink = &fanOut{sinks: []event.Sink{&inOrder{next: show}}}
	if err == nil && ready != nil {
		err = ready(r)
	}
	detach := engine.CanDetach && hasFlag(c, "no-detach") && !c.Bool("no-detach")
	if err == nil && detach {
		err = r.follow(c.Context, show)
	} else {
		err = r.carryOut(c, err, body)
	}
	show.finish()
	return err
}

// watchParent cancels when the process that started this one is gone: a shell
// that is killed passes no signal on to the command of its script.
func watchParent(ctx context.Context, cancel context.CancelCauseFunc) {
	parent := os.Getppid()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if os.Getppid() != parent {
				cancel(&ParentError{PID: parent})
				return
			}
		}
	}
}

func hasFlag(c *cli.Context, name string) bool {
	for _, f := range c.Command.Flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// carryOut runs body in this process, unless there is an error already, and
// emits the first event of the run and the last.
func (r *run) carryOut(c *cli.Context, err error, body func(context.Context, *run) error) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	r.cancel = cancel
	dir := c.String("chdir")
	if r.set != nil {
		dir = r.set.dir
	}
	var changes planWatch
	r.sink.add(&changes)
	r.sink.Emit(event.RunStarted{Command: r.command, Version: Version, Directory: dir})
	var unasked *unaskedError
	if errors.As(err, &unasked) {
		r.sink.Emit(event.ApprovalNeeded{What: r.command, Hint: unasked.hint})
	}
	if err == nil {
		err = body(ctx, r)
	}
	end := event.RunFinished{Status: event.OK}
	if changes.none {
		end.Status = event.NoChanges
	}
	if err != nil {
		t := tell(ctx, err)
		err = &codeError{code: t.code, msg: t.msg, hint: t.hint}
		end = event.RunFinished{Status: statusOf(t.code), ExitCode: t.code, Error: t.msg, Hint: t.hint}
	}
	end.Seconds = time.Since(r.started).Seconds()
	if r.folder != nil {
		// The plan is gone, or was never there; the result is for those who come later.
		_ = errors.Join(r.folder.Close(), r.folder.WriteResult(engine.Result{RunFinished: end, Applied: changes.applied}))
	}
	r.sink.Emit(end)
	return err
}

// planWatch remembers whether the run's plan had no changes, and how long its
// apply took.
type planWatch struct {
	none    bool
	applied float64 // seconds
}

func (w *planWatch) Emit(e event.Event) {
	switch e := e.(type) {
	case event.Plan:
		w.none = !e.Changed
	case event.StageFinished:
		if e.Stage == string(pipeline.Apply) && e.Status == event.OK {
			w.applied = e.Seconds
		}
	}
}

// inEngine is a run's part in its engine.
func inEngine(c *cli.Context, s Streams, body func(context.Context, *run) error) error {
	e := s.Engine
	r := &run{id: e.Run.ID, command: c.Command.Name, started: time.Now(), streams: s, system: ci.Detect(os.Getenv), folder: e.Run}
	r.streams.Terminal = os.Getenv(envTerminal) != ""
	os.Unsetenv(envTerminal)
	r.sink = &fanOut{sinks: []event.Sink{&inOrder{next: e.Journal}}}
	set, err := newSettings(c, s)
	r.set = set
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	go func() {
		select {
		case <-e.Cancelled:
			cancel(&cancelledError{e.Why})
		case <-ctx.Done():
		}
	}()
	c.Context = ctx
	journaled := func(ctx context.Context, r *run) error {
		if err := e.Journal.Err(); err != nil { // nothing would be known of the run afterwards
			return fmt.Errorf("write the run's journal: %w", err)
		}
		return body(ctx, r)
	}
	return errors.Join(r.carryOut(c, err, journaled), e.Close())
}

// cancelledError is the cause of a run that its foreground cancelled.
type cancelledError struct{ why string }

func (e *cancelledError) Error() string { return quote.Line(e.why, 200) }

// Is lets the cause count as a cancelled context.
func (e *cancelledError) Is(target error) bool { return target == context.Canceled }

// follow starts the run's engine and shows what it does. A cancel is passed on
// once; then the engine is waited for, until it has cleaned up.
func (r *run) follow(ctx context.Context, show *view) error {
	folder, err := engine.NewRun(r.set.dir, r.id)
	if err != nil {
		return r.stillborn(ctx, show, err)
	}
	var env []string
	if r.streams.Terminal {
		env = append(env, envTerminal+"=1")
	}
	link, err := folder.Start(os.Args[1:], env...)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = &codeError{code: ExitFailed, msg: err.Error(), hint: "tfguard " + r.command + " --no-detach: one process needs no shell, and a SIGKILL of it leaves terraform's lock behind"}
	}
	if err != nil {
		return r.stillborn(ctx, show, errors.Join(err, folder.Close()))
	}
	defer link.Close()
	defer context.AfterFunc(ctx, func() { link.Cancel(context.Cause(ctx).Error()) })()
	folder.Prune() // while the engine starts
	err = link.Follow(context.WithoutCancel(ctx), func(e event.Event) {
		if q, ok := e.(event.Question); ok {
			go func() {
				answer, err := ask(ctx, r.streams, q.Text)
				if err == nil {
					link.Answer(answer)
				}
			}()
			return
		}
		show.Emit(e)
	})
	if err != nil && !show.hasBegun() {
		return r.stillborn(ctx, show, fmt.Errorf("the run's engine did not begin: %s", cmp.Or(folder.LastWords(), err.Error())))
	}
	if err != nil {
		return r.stillborn(ctx, show, &uncleanError{err: err, left: []string{
			fmt.Sprintf("run %s was at stage %s; its lock may be left, resources may be unfinished", r.id, show.stage())}})
	}
	return show.result()
}

// stillborn ends a run whose engine did not.
func (r *run) stillborn(ctx context.Context, show *view, err error) error {
	t := tell(ctx, err)
	if !show.hasBegun() {
		show.Emit(event.RunStarted{Command: r.command, Version: Version, Directory: r.set.dir})
	}
	show.Emit(event.RunFinished{Status: statusOf(t.code), ExitCode: t.code, Error: t.msg, Hint: t.hint, Seconds: time.Since(r.started).Seconds()})
	return &codeError{code: t.code, msg: t.msg, hint: t.hint}
}

func statusOf(code int) string {
	switch code {
	case ExitOK, ExitChanges:
		return event.OK
	case ExitActive, ExitStale, ExitUnclear, ExitRefused:
		return event.Blocked
	case ExitCancelled, ExitCancelUnclean:
		return event.Cancelled
	}
	return event.Failed
}

// view shows a run in the foreground: to the person, and to the CI system.
type view struct {
	streams   Streams
	printer   event.Sink
	json      bool
	collector *ci.Collector
	system    *ci.GitHub

	mu     sync.Mutex
	begun  bool
	at     string // the stage that began last
	failed string // what the error diagnostics said
	end    *event.RunFinished
}

func newView(r *run, c *cli.Context) *view {
	dir := c.String("chdir")
	if r.set != nil {
		dir = r.set.dir
	}
	o := ui.Options{Out: r.streams.Out, Err: r.streams.Err, Run: r.id, Now: time.Now, GitHub: r.system != nil, Dir: r.system.Dir(dir),
		Verbose: c.Bool("verbose"), Quiet: c.Bool("quiet"), Color: r.set != nil && r.set.color}
	v := &view{streams: r.streams, collector: ci.NewCollector(r.command, r.id), system: r.system, json: c.Bool("json")}
	if v.printer = event.Sink(ui.NewText(o)); v.json {
		v.printer = ui.NewJSON(o)
	}
	go v.remind()
	return v
}

// Emit implements event.Sink.
func (v *view) Emit(e event.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := e.(type) {
	case event.RunStarted:
		v.begun = true
	case event.StageStarted:
		v.at = e.Stage
	case event.Diagnostic:
		if e.Severity == "error" && len(v.failed) < 64<<10 {
			v.failed += e.Summary + "\n"
		}
	case event.RunFinished:
		v.end = &e
		// The text's last words are the caller's: "tfguard: error: …".
		if e.Error != "" && !v.told(e.Error) {
			own := event.Diagnostic{Severity: "error", Summary: e.Error, Hint: e.Hint}
			v.collector.Emit(own)
			if v.json {
				v.printer.Emit(own)
			}
		}
	}
	v.collector.Emit(e)
	v.printer.Emit(e)
}

// told reports whether a diagnostic of terraform's has said this error.
func (v *view) told(text string) bool {
	for said := range strings.Lines(v.failed) {
		if said = strings.TrimSpace(said); said != "" && strings.Contains(text, said) {
			return true
		}
	}
	return false
}

func (v *view) hasBegun() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.begun
}

func (v *view) stage() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at
}

// remind answers every signal after the first: the run is cancelled already.
func (v *view) remind() {
	for range v.streams.Again {
		fmt.Fprintf(v.streams.Err, "tfguard: still waiting for %s to end by itself; terraform was interrupted once, a second time would lose what it is creating\n", v.stage())
	}
}

// result is the outcome of a run that was followed.
func (v *view) result() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.end == nil || v.end.ExitCode == ExitOK {
		return nil
	}
	return &codeError{code: v.end.ExitCode, msg: v.end.Error, hint: v.end.Hint}
}

// finish writes outputs and summary for the CI system. What cannot be written
// is said and never fails the run.
func (v *view) finish() {
	if v.system == nil {
		return
	}
	result := v.collector.Result()
	tellOutputs(v.streams, v.system, result)
	if err := v.system.Summary(ci.SummaryMarkdown(result)); err != nil {
		warn(v.streams.Err, err)
	}
}

// tellOutputs writes outputs and environment variables for later steps.
func tellOutputs(s Streams, system *ci.GitHub, result ci.Result) {
	for _, err := range []error{system.SetOutputs(ci.Outputs(result)), system.SetEnv(ci.LegacyEnv(result))} {
		if err != nil {
			warn(s.Err, err)
		}
	}
}

func warn(w io.Writer, err error) {
	fmt.Fprintf(w, "tfguard: warning: %s\n", quote.Line(err.Error(), 1000))
}

// fanOut gives every event to several sinks, in one order.
type fanOut struct {
	mu    sync.Mutex
	sinks []event.Sink
}

func (f *fanOut) add(s event.Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sinks = append(f.sinks, s)
}

// Emit implements event.Sink.
func (f *fanOut) Emit(e event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.Emit(e)
	}
}
