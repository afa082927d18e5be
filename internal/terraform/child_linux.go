package terraform

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// interruptChild sends one interrupt to the child process whose arguments
// match, if there is exactly one. terraform-exec does not give the pid. The
// process is held by its handle before it is looked at a second time, so that
// no other process can have its number by then.
func interruptChild(match func(argv []string) bool) {
	pid, ok := findChild(match)
	if !ok {
		return
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer p.Release()
	if isChild(pid, match) {
		_ = p.Signal(os.Interrupt)
	}
}

// findChild looks among the children that the kernel lists, and where that
// fails, which it may while others start and end, at every process.
func findChild(match func(argv []string) bool) (int, bool) {
	var children []string
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		b, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		children = append(children, strings.Fields(string(b))...)
	}
	if pid, ok := only(children, match); ok {
		return pid, true
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for i, d := range all {
		all[i] = filepath.Base(d)
	}
	return only(all, match)
}

// only gives the one child that matches among pids; several are none.
func only(pids []string, match func(argv []string) bool) (int, bool) {
	found := 0
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		if err != nil || !isChild(pid, match) {
			continue
		}
		if found != 0 {
			return 0, false
		}
		found = pid
	}
	return found, found != 0
}

// isChild waits for the arguments of a child that has none yet: a process that
// has just been started has lost those of this one and not got its own.
func isChild(pid int, match func(argv []string) bool) bool {
	for range looks {
		f, ok := stat(pid)
		if !ok || f[statParent] != strconv.Itoa(os.Getpid()) {
			return false
		}
		if argv := arguments(pid); len(argv) > 0 || f[statState] == "Z" {
			return match(argv)
		}
		time.Sleep(lookEvery)
	}
	return false
}

// How often a child's arguments are looked for.
const (
	lookEvery = time.Millisecond
	looks     = 100
)

// aside runs functions one after the other on a thread of its own with a low
// priority, which the processes that they start have too (setpriority(2)).
//
// The thread is given back, not ended: with it the kernel would kill what it has
// ever started (prctl(2), PR_SET_PDEATHSIG, which terraform-exec sets).
type aside struct {
	work chan func()
	over <-chan struct{}
}

// newAside takes the thread until ctx ends.
func newAside(ctx context.Context) *aside {
	a := &aside{work: make(chan func()), over: ctx.Done()}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		// Its priority cannot be raised again; when ctx has ended nothing starts any more.
		defer runtime.UnlockOSThread()
		// What Linux gives is 20 less the nice value.
		if of20, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 20-of20+nicer)
		}
		close(ready)
		for {
			select {
			case f := <-a.work:
				f()
			case <-a.over:
				return
			}
		}
	}()
	<-ready
	return a
}

// run has f run, and does not wait for it.
func (a *aside) run(f func()) {
	go func() {
		select {
		case a.work <- f:
		case <-a.over:
			f()
		}
	}()
}

// nicer is what is added to the nice value: on a busy machine it still gets a
// share, since a run cannot end without it.
const nicer = 10

// watchChild tells how the child ended, also where terraform-exec does not wait
// for it yet since it reads its output: the process is a zombie then. It ends
// with the command's context.
func watchChild(g *gate, match func(argv []string) bool) <-chan exitStatus {
	ended := make(chan exitStatus, 1)
	go func() {
		select {
		case <-g.running:
		case <-g.over:
			return
		}
		pid, ok := findChild(match)
		if !ok {
			return
		}
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-g.over:
				return
			case <-tick.C:
			}
			f, ok := stat(pid)
			if !ok {
				return // waited for
			}
			if f[statState] == "Z" {
				ended <- status(f[statExit])
				return
			}
		}
	}()
	return ended
}

// watchEvery is how often the child is looked at, one small file each time.
const watchEvery = 500 * time.Millisecond

// The fields of /proc/PID/stat behind the name (proc_pid_stat(5), less three).
const (
	statState  = 0
	statParent = 1
	statExit   = 49
)

// stat reads /proc/PID/stat. The name in parentheses may hold anything.
func stat(pid int) ([]string, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, false
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return fields, len(fields) > statExit
}

// status decodes a wait status.
func status(field string) exitStatus {
	n, err := strconv.Atoi(field)
	if err != nil {
		return exitStatus{code: -1}
	}
	if w := syscall.WaitStatus(n); w.Signaled() {
		return exitStatus{code: -1, signal: int(w.Signal())}
	}
	return exitStatus{code: syscall.WaitStatus(n).ExitStatus()}
}

func arguments(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}
