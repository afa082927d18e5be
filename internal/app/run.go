package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/terraform"
	"github.com/tfguard/tfguard/internal/ui"
)

// run is one run of a command that reports what it does.
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
}

// reported runs body and tells its story: events to the printer, the result to
// the CI system, and last, always, run_finished.
func reported(c *cli.Context, s Streams, body func(context.Context, *run) error) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	r := &run{cancel: cancel, id: engine.NewID(time.Now()), command: c.Command.Name, started: time.Now(), streams: s, system: ci.Detect(os.Getenv)}
	collector := ci.NewCollector(r.command, r.id)
	dir := c.String("chdir")
	set, err := newSettings(c, s)
	if set != nil {
		dir = set.dir
	}
	options := ui.Options{Out: s.Out, Err: s.Err, Run: r.id, Now: time.Now, GitHub: r.system != nil, Dir: r.system.Dir(dir),
		Verbose: c.Bool("verbose"), Quiet: c.Bool("quiet"), Color: set != nil && set.color}
	r.set = set
	var printer event.Sink = ui.NewText(options)
	if c.Bool("json") {
		printer = ui.NewJSON(options)
	}
	r.sink = &fanOut{sinks: []event.Sink{printer, collector}}
	r.sink.Emit(event.RunStarted{Command: r.command, Version: Version, Directory: dir})
	if err == nil {
		err = body(ctx, r)
	}
	if r.folder != nil {
		_ = r.folder.Close() // the plan is gone, or was never there
	}
	var told error
	end := event.RunFinished{Status: event.OK, Seconds: time.Since(r.started).Seconds()}
	if err != nil {
		t := tell(ctx, err)
		told = &codeError{code: t.code, msg: t.msg, hint: t.hint}
		end.ExitCode, end.Status = t.code, statusOf(t.code)
		own := event.Diagnostic{Severity: "error", Summary: t.msg, Hint: t.hint}
		if t.msg != "" && !alreadyTold(err) {
			collector.Emit(own)
			if c.Bool("json") {
				printer.Emit(own)
			}
		}
	} else if p := collector.Result().Plan; p != nil && !p.Changed {
		end.Status = event.NoChanges
	}
	r.sink.Emit(end)
	if err != nil {
		err = told
	}
	if r.system != nil {
		result := collector.Result()
		tellOutputs(s, r.system, result)
		if err := r.system.Summary(ci.SummaryMarkdown(result)); err != nil {
			warn(s, err)
		}
	}
	return err
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

// alreadyTold reports whether terraform's own diagnostics said it.
func alreadyTold(err error) bool {
	var f *terraform.Failure
	return errors.As(err, &f) && slices.ContainsFunc(f.Diagnostics, func(d event.Diagnostic) bool { return d.Severity == "error" })
}

// tellOutputs writes outputs and environment variables for later steps. What
// cannot be written is said and never fails the run.
func tellOutputs(s Streams, system *ci.GitHub, result ci.Result) {
	for _, err := range []error{system.SetOutputs(ci.Outputs(result)), system.SetEnv(ci.LegacyEnv(result))} {
		if err != nil {
			warn(s, err)
		}
	}
}

func warn(s Streams, err error) {
	fmt.Fprintf(s.Err, "tfguard: warning: %s\n", quote.Line(err.Error(), 1000))
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
