package terraform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/tfguard/tfguard/internal/event"
)

// command is one run of the binary.
type command struct {
	name   string // as in "terraform NAME"
	arg    string // one more argument that tells the process from others; may be empty
	stdout io.Writer
	// killAfter is the time from the interrupt to the kill; 0: never.
	killAfter time.Duration
	// again is the time from the first interrupt to the second; 0: never.
	again time.Duration
	aside bool // it gives way to all else that runs on the machine: see aside
	// effect: what the command does counts, not what it prints, so that its exit
	// code is enough where its output does not end.
	effect bool
	// call makes terraform-exec run it. stdout is for the "…JSON" methods, which
	// replace the writer that is set already.
	call  func(ctx context.Context, tf *tfexec.Terraform, stdout io.Writer) error
	diags *diagnostics // what the output said; may be nil
}

// match recognises the command's process by its arguments. The program's own
// name says nothing: a script's interpreter may stand before it, or another
// program in its place that the script has become.
func (c command) match(argv []string) bool {
	name := strings.Fields(c.name)
	for i := range min(len(argv), 3) {
		if rest := argv[i+1:]; len(rest) >= len(name) && slices.Equal(rest[:len(name)], name) {
			return c.arg == "" || slices.Contains(rest, c.arg)
		}
	}
	return false
}

// run runs c to its end. A cancel of ctx is a request: the command itself runs
// on a context of its own, so that the interrupt falls neither before the start
// nor into it. A command that was interrupted and ended well all the same is a
// success. The error is a *Failure, or that of the context where nothing was
// started.
func (t *Terraform) run(ctx context.Context, tf *tfexec.Terraform, c command) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s was not started: %w", t.bin.Product, c.name, err)
	}
	g := newGate(ctx)
	defer g.cancel()
	defer close(g.over)
	stderr := &tail{max: maxStderr}
	stdout := fan{g, t.log, c.stdout}
	tf.SetStdout(stdout)
	tf.SetStderr(fan{g, t.log, stderr})
	if runtime.GOOS != "windows" { // where it is refused, and nothing is interrupted
		if err := tf.SetWaitDelay(c.killAfter); err != nil {
			return fmt.Errorf("prepare %s %s: %w", t.bin.Product, c.name, err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- c.call(g, tf, stdout) }()
	err, interrupted := c.wait(ctx, g, done)
	return t.outcome(c, err, interrupted, stderr)
}

// aside runs a command beside another one that is waited for, in the time that
// this one leaves. Where a machine leaves none at all for Options.Patience, it is
// begun anew as any other: so it must hold no lock and change nothing. fresh
// makes it, with buffers of its own.
func (t *Terraform) aside(ctx context.Context, fresh func() command) error {
	tf, err := t.value()
	if err != nil {
		return err
	}
	patient, stop := context.WithTimeout(ctx, t.o.Patience)
	defer stop()
	c := fresh()
	c.aside = true
	if err = t.run(patient, tf, c); err == nil || patient.Err() == nil || ctx.Err() != nil {
		return err
	}
	return t.run(ctx, tf, fresh())
}

// outputBound is how long terraform's output is read after its end, where
// another process keeps it open. terraform-exec would read it for ever.
const outputBound = 5 * time.Second

// wait returns the command's error and whether it was interrupted.
func (c command) wait(ctx context.Context, g *gate, done <-chan error) (error, bool) {
	var (
		cancelled    = ctx.Done()
		running      <-chan struct{}
		again, bound <-chan time.Time
		interrupted  bool
		status       exitStatus
	)
	ended := watchChild(g, c)
	for {
		select {
		case err := <-done:
			return err, interrupted
		case <-cancelled:
			cancelled = nil
			if runtime.GOOS != "windows" || c.killAfter > 0 { // there a cancelled context kills
				running = g.running
			}
		case <-running:
			select {
			case err := <-done: // it ended by itself
				return err, interrupted
			default:
			}
			running, interrupted = nil, true
			g.cancel() // terraform-exec interrupts, once
			if c.again > 0 {
				again = time.After(c.again)
			}
		case <-again:
			interruptChild(c.match)
		case status = <-ended:
			ended, bound = nil, time.After(outputBound)
		case <-bound:
			return &heldError{status}, interrupted
		}
	}
}

// exitStatus is how a process ended: an exit code, or -1 and a signal.
type exitStatus struct{ code, signal int }

// heldError is a command that has ended while a process that it left behind
// keeps its output open.
type heldError struct{ status exitStatus }

func (e *heldError) Error() string {
	how := fmt.Sprintf("exit status %d", e.status.code)
	if e.status.code < 0 {
		how = fmt.Sprintf("signal %d", e.status.signal)
	}
	return how + ", and a process that it started keeps its output open"
}

// outcome turns what terraform-exec returned into success or a *Failure.
//
// Of a cancelled command terraform-exec returns an error even where it exited
// with 0; *exec.ExitError tells. Such an error must not be printed: it panics
// where nothing is inside.
func (t *Terraform) outcome(c command, err error, interrupted bool, stderr *tail) error {
	f := &Failure{Command: t.bin.Product + " " + c.name, ExitCode: -1, Interrupted: interrupted, Stderr: stderr.text()}
	var exit *exec.ExitError
	var held *heldError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &held):
		if held.status.code == 0 && c.effect {
			return nil
		}
		f.ExitCode, f.cause, f.Killed = held.status.code, held.Error(), killed(syscall.Signal(held.status.signal))
	case errors.As(err, &exit):
		f.ExitCode, f.cause = exit.ExitCode(), exit.Error()
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			f.Killed = killed(w.Signal())
		}
	case interrupted:
		return nil
	default:
		f.cause = err.Error()
	}
	if c.diags != nil {
		f.Diagnostics, f.marks = c.diags.list()
	}
	if len(f.Diagnostics) == 0 {
		found := parseText(f.Stderr)
		for _, d := range found {
			t.emit(d)
			f.marks |= marksOf(d)
		}
		slices.SortStableFunc(found, func(a, b event.Diagnostic) int { // "error" < "warning"
			return strings.Compare(a.Severity, b.Severity)
		})
		f.Diagnostics = found
	}
	return f
}

// killed reports whether a signal that ended terraform came in its work: it takes
// an interrupt itself as soon as it has begun, and dies of one before.
func killed(s syscall.Signal) bool { return s > 0 && s != syscall.SIGINT }

// gate is the context of one command. terraform-exec returns an error that
// panics, and leaves the process behind, where its context ends in the instant
// of the start (hashicorp/terraform-exec tfexec/cmd_linux.go, after cmd.Start).
// It asks Err exactly there: once it has asked, or terraform has printed
// something, the process surely runs and can be interrupted.
type gate struct {
	context.Context
	cancel  context.CancelFunc
	once    sync.Once
	running chan struct{} // closed: the process runs, or has run
	over    chan struct{} // closed: nobody waits for it any more
}

func newGate(ctx context.Context) *gate {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &gate{Context: inner, cancel: cancel, running: make(chan struct{}), over: make(chan struct{})}
}

// Err implements [context.Context].
func (g *gate) Err() error {
	err := g.Context.Err()
	g.open()
	return err
}

// Write takes terraform's first output as the sign that it runs.
func (g *gate) Write(p []byte) (int, error) {
	g.open()
	return len(p), nil
}

func (g *gate) open() { g.once.Do(func() { close(g.running) }) }

// fan writes to each writer that there is, and never fails.
type fan []io.Writer

func (f fan) Write(p []byte) (int, error) {
	for _, w := range f {
		if w != nil {
			_, _ = w.Write(p)
		}
	}
	return len(p), nil
}

// tail keeps the last max bytes.
type tail struct {
	mu  sync.Mutex
	max int
	buf []byte // up to twice as much, so that not every write moves it
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) >= t.max {
		t.buf, p = t.buf[:0], p[len(p)-t.max:]
	}
	if len(t.buf)+len(p) > 2*t.max {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-t.max):])
}

// head keeps the first max bytes.
type head struct {
	mu   sync.Mutex
	max  int
	buf  []byte
	over bool
}

func (h *head) bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := h.max - len(h.buf)
	h.over = h.over || len(p) > room
	h.buf = append(h.buf, p[:min(room, len(p))]...)
	return len(p), nil
}
