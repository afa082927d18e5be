//go:build linux

package storm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// proc is a process that a case has started, and what it has printed.
type proc struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File      // the person's end of its terminal; nil without one
	said chan struct{} // closed when its output has ended
	done chan struct{}
	code int // valid when done is closed; -1: ended by a signal

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes the process's output.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out.Len() < 4<<20 {
		p.out.Write(b)
	}
	return len(b), nil
}

func (p *proc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// heldOpen is how long the output of a process that has ended is waited for,
// which others may hold open.
const heldOpen = time.Second

// start starts cmd with a pipe for its output, as a runner does.
func start(t *testing.T, cmd *exec.Cmd) *proc {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	p := &proc{t: t, cmd: cmd, said: make(chan struct{}), done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	go func() {
		defer close(p.said)
		_, _ = io.Copy(p, out)
		out.Close()
	}()
	p.reap()
	return p
}

// startOnTerminal starts cmd as the leader of a session with a terminal of its
// own, as a terminal window or ssh does.
func startOnTerminal(t *testing.T, cmd *exec.Cmd) *proc {
	t.Helper()
	person, program := terminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p := &proc{t: t, cmd: cmd, tty: person, said: make(chan struct{}), done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	go func() {
		defer close(p.said)
		_, _ = io.Copy(p, person)
	}()
	p.reap()
	return p
}

func (p *proc) reap() {
	go func() {
		defer close(p.done)
		err := p.cmd.Wait()
		select {
		case <-p.said:
		case <-time.After(heldOpen):
		}
		var exit *exec.ExitError
		switch {
		case err == nil:
		case errors.As(err, &exit):
			p.code = exit.ExitCode()
		default:
			p.t.Errorf("wait for %s: %v", p.cmd.Path, err)
		}
	}()
}

// terminal makes a pseudo-terminal (pts(4)).
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	// Non-blocking, so that closing it ends a read that is under way.
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	person = os.NewFile(uintptr(fd), "/dev/ptmx")
	var n, unlocked int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlocked, syscall.TIOCGPTN: &n} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	return person, program
}

// press types on the terminal.
func (p *proc) press(keys string) {
	if _, err := p.tty.WriteString(keys); err != nil {
		p.t.Errorf("type on the terminal: %v", err)
	}
}

const ctrlC = "\x03"

// signal signals this one process; one that has ended by then is no error.
func (p *proc) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %d: %v", s, err)
	}
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait gives the exit code.
func (p *proc) wait(d time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(d):
		p.t.Fatalf("%s did not end within %s; it printed\n%s", strings.Join(p.cmd.Args, " "), d, p.output())
	}
	return -1
}

// seen is a process of the system.
type seen struct {
	pid  int
	argv []string
}

func (s seen) String() string { return fmt.Sprintf("%d %s", s.pid, strings.Join(s.argv, " ")) }

// is reports whether it is a program, with a first argument.
func (s seen) is(program, arg string) bool {
	return len(s.argv) > 1 && filepath.Base(s.argv[0]) == program && s.argv[1] == arg
}

// kill kills it. It is a process of the case's: its environment said so.
func (s seen) kill(sig syscall.Signal) { _ = syscall.Kill(s.pid, sig) }

// carrying lists the processes whose environment has a variable, as a runner
// looks for those of its job. One that has ended and waits for its parent has
// no environment any more.
func carrying(variable string) []seen {
	var all []seen
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if !slices.Contains(environ(pid), variable) {
			continue
		}
		line, _ := os.ReadFile(d + "/cmdline")
		all = append(all, seen{pid, strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")})
	}
	return all
}

// environ is the environment that a process was started with. That of an engine
// has come to it under other names (internal/engine, carried).
func environ(pid int) []string {
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	all := strings.Split(strings.TrimRight(string(env), "\x00"), "\x00")
	for i, v := range all {
		if rest, ok := strings.CutPrefix(v, "TFGUARD_ENGINE_ENV_"); ok {
			_, all[i], _ = strings.Cut(rest, "=")
		}
	}
	return all
}
