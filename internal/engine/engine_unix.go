//go:build unix

package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tfguard/tfguard/internal/event"
)

// CanDetach reports whether a run can go on in a process of its own.
const CanDetach = true

// Variables that make a process an engine, and the environment that it is to
// have: they never reach terraform.
const (
	envFolder  = "TFGUARD_ENGINE_RUN"
	envCarried = "TFGUARD_ENGINE_ENV_" // and a number: a whole "NAME=value"
)

// Pipes that the engine inherits: orders from the foreground, whose end is the
// foreground's end, and the bell by which it hears of new events, whose end is
// the engine's.
const (
	ordersFD = 3
	bellFD   = 4
)

// Link is the foreground's end of a run in an engine.
type Link struct {
	run    *Run
	orders *os.File
	bell   *os.File

	mu sync.Mutex
}

// detached is a shell's way to start a program and end: the program is then
// nobody's child. A second tfguard between the two would do, and take longer.
const detached = `"$0" "$@" &`

// Start starts args, this program's own arguments, as the engine of r: in a
// session of its own, with init as its parent from the start, with no stream of
// this process's. It needs no foreground to live, and cancels itself when it
// has lost it.
func (r *Run) Start(args []string, env ...string) (*Link, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find tfguard itself: %w", err)
	}
	log, err := os.OpenFile(r.engineLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	defer log.Close()
	ordersOut, ordersIn, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	bellOut, bellIn, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start engine: %w", err), ordersOut.Close(), ordersIn.Close())
	}
	defer ordersOut.Close()
	defer bellIn.Close()
	shell := exec.Command("/bin/sh", append([]string{"-c", detached, self}, args...)...)
	shell.Env = append(carried(append(os.Environ(), env...)), envFolder+"="+r.Dir)
	shell.Stdout, shell.Stderr = log, log
	shell.ExtraFiles = []*os.File{ordersOut, bellIn}
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := shell.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("start engine: %w", err), ordersIn.Close(), bellOut.Close())
	}
	return &Link{run: r, orders: ordersIn, bell: bellOut}, nil
}

// carried is an environment as it passes through a shell unchanged: a shell
// drops names that it has no variable for, as TF_VAR_a-b, and sets some itself.
// Go's own variables are read before main is, and go as they are too.
func carried(environ []string) []string {
	var out []string
	for i, v := range environ {
		// A runner kills every process that carries its id at the end of the job:
		// the engine has a state to save first.
		if strings.HasPrefix(v, "RUNNER_TRACKING_ID=") {
			continue
		}
		if strings.HasPrefix(v, "GO") {
			out = append(out, v)
		}
		out = append(out, envCarried+strconv.Itoa(i)+"="+v)
	}
	return out
}

// unpack makes the environment of this process the one that was carried.
func unpack() {
	environ := os.Environ()
	os.Clearenv()
	for _, v := range environ {
		if rest, ok := strings.CutPrefix(v, envCarried); ok {
			_, whole, _ := strings.Cut(rest, "=")
			name, value, _ := strings.Cut(whole, "=")
			_ = os.Setenv(name, value) // fails for no name at all
		}
	}
}

// Cancel asks the engine to cancel the run; only the first request counts.
func (l *Link) Cancel(why string) { l.order("cancel " + why) }

// Answer answers the question that the engine asked.
func (l *Link) Answer(text string) { l.order("answer " + text) }

func (l *Link) order(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// An engine that is gone reads no orders: that is found by its bell.
	_, _ = l.orders.WriteString(strings.ReplaceAll(text, "\n", " ") + "\n")
}

// Follow gives the run's events to see until it has finished.
func (l *Link) Follow(ctx context.Context, see func(event.Event)) error {
	buf := make([]byte, 256)
	return l.run.Follow(ctx, func(ctx context.Context) bool {
		stop := context.AfterFunc(ctx, func() { _ = l.bell.SetReadDeadline(time.Now()) })
		defer stop()
		n, err := l.bell.Read(buf)
		return n > 0 || err == nil
	}, see)
}

// Close lets the engine go: one that still runs cancels itself.
func (l *Link) Close() error { return errors.Join(l.orders.Close(), l.bell.Close()) }

// Engine is this process's end of it.
type Engine struct {
	Run     *Run
	Journal *Journal
	// Cancel is closed with the first order to cancel, or when the foreground is
	// lost; Why is valid then.
	Cancelled chan struct{}
	Why       string
	answers   chan string
	lock      *os.File
}

// Inherited gives the engine that this process is to be; nil in a foreground.
func Inherited() (*Engine, error) {
	dir := os.Getenv(envFolder)
	if dir == "" {
		return nil, nil
	}
	unpack()
	// A group of its own: a signal to the shell's is not for it. It fails where the
	// shell has given it one.
	_, _ = syscall.Setsid()
	// Terraform and hooks must not hold these open.
	syscall.CloseOnExec(ordersFD)
	syscall.CloseOnExec(bellFD)
	run, err := openRun(dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{Run: run, Cancelled: make(chan struct{}), answers: make(chan string, 1)}
	if e.lock, err = lockFile(run.alive()); err != nil {
		return nil, fmt.Errorf("mark the run as going on: %w", err)
	}
	if err := syscall.SetNonblock(bellFD, true); err != nil {
		return nil, fmt.Errorf("open the bell: %w", err)
	}
	e.Journal, err = run.Journal(func() {
		// A full pipe has rung already; one without a reader rings for nobody.
		_, _ = syscall.Write(bellFD, []byte{1})
	})
	if err != nil {
		return nil, err
	}
	go e.listen(os.NewFile(ordersFD, "orders"))
	return e, nil
}

// listen takes orders until the foreground ends.
func (e *Engine) listen(orders *os.File) {
	var once sync.Once
	cancel := func(why string) {
		once.Do(func() {
			e.Why = why
			close(e.Cancelled)
		})
	}
	in := bufio.NewScanner(orders)
	for in.Scan() {
		switch verb, text, _ := strings.Cut(in.Text(), " "); verb {
		case "cancel":
			cancel(text)
		case "answer":
			select {
			case e.answers <- text:
			default: // nobody asked
			}
		}
	}
	cancel("cancelled: the process in the foreground is gone")
}

// Ask puts a question to the person in the foreground.
func (e *Engine) Ask(ctx context.Context, question string) (string, error) {
	e.Journal.Emit(event.Question{Text: question})
	select {
	case a := <-e.answers:
		return a, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// Close ends the engine's part: nobody waits for it any more.
func (e *Engine) Close() error { return errors.Join(e.Journal.Close(), e.lock.Close()) }

// lockFile opens a file and holds it locked as long as it is open: the kernel
// lets go when the process ends, however it ends. It waits for whoever looks,
// which is a moment.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Alone waits until no other run of the same folder is where only one at a time
// may be: in terraform init, which writes .terraform in place. waiting is told
// once where there is one. The other's death ends its turn too. A file system
// without locks lets everybody in.
func (r *Run) Alone(ctx context.Context, waiting func()) (leave func(), err error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(filepath.Dir(r.Dir)), "init.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take turns with other runs of this folder: %w", err)
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return func() { f.Close() }, nil
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(turnEvery):
		}
	}
}

// turnEvery is how often it is looked whether the other run is through.
const turnEvery = 20 * time.Millisecond

// GoesOn reports whether the run's engine is alive.
func (r *Run) GoesOn() bool {
	f, err := os.Open(r.alive())
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
