package terraform

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// giveWay lets a process, and what it starts from now on, have no more than the
// time that nobody else wants (sched(7), SCHED_IDLE). That is a matter of each
// thread, which a new one has from the one that starts it: they are told until
// there is none that was not.
func giveWay(pid int) {
	told := map[string]bool{}
	for {
		threads, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		before := len(told)
		for _, t := range threads {
			if tid, err := strconv.Atoi(t.Name()); err == nil && !told[t.Name()] {
				told[t.Name()] = true
				// Where it is not allowed, it is only slower.
				_ = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
			}
		}
		if len(told) == before {
			return
		}
	}
}

// watchChild tells how the child ended, also where terraform-exec does not wait
// for it yet since it reads its output: the process is a zombie then. It ends
// with the command's context. A command aside is made to give way.
func watchChild(g *gate, c command) <-chan exitStatus {
	ended := make(chan exitStatus, 1)
	go func() {
		select {
		case <-g.running:
		case <-g.over:
			return
		}
		pid, ok := findChild(c.match)
		if !ok {
			return
		}
		if c.aside {
			giveWay(pid)
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
