//go:build linux

package storm

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/testkit"
)

// maxMemory is the most that foreground and engine may have at their peaks.
const maxMemory = 64 << 20

// terraforms chooses terraform's own requests out of those that match.
func terraforms(match func(*http.Request) bool) func(*http.Request) bool {
	return func(r *http.Request) bool { return !strings.Contains(r.UserAgent(), "tfguard/") && match(r) }
}

// misbehaves is about terraform where it does what it should not.
func (w *world) misbehaves(t *testing.T) {
	quick := layout{seconds: 0.2}
	w.each(t, both, 0, "it hangs in its last write of the state, and goes on", quick, func(y *yard) {
		hang := y.proxy.Add(testkit.Fault{Match: terraforms(testkit.S3Op("PUT", y.addr.Key)), Times: 1, Hang: true})
		p := y.tfguard(apply()...)
		y.meets(hang)
		for range 3 {
			p.signal(syscall.SIGINT)
			after(300 * time.Millisecond)
		}
		if p.ended() {
			y.Error("it was not waited for")
		}
		hang.Release()
		if code := p.wait(time.Minute); code != 0 {
			y.Errorf("exit code %d of an apply that was complete\n%s", code, p.output())
		}
		y.clean(0)
	})
	w.each(t, whole, 1, "it hangs in its last write of the state, and its foreground is killed", quick, func(y *yard) {
		hang := y.proxy.Add(testkit.Fault{Match: terraforms(testkit.S3Op("PUT", y.addr.Key)), Times: 1, Hang: true})
		p := y.tfguard(apply()...)
		y.meets(hang)
		p.signal(syscall.SIGKILL)
		p.wait(time.Minute)
		after(time.Second)
		hang.Release()
		y.settle()
		y.clean(-1)
	})
	cannotRelease := func(y *yard) {
		y.proxy.Add(testkit.Fault{Match: terraforms(testkit.DynamoDBOp("DeleteItem")), After: y.unlocks(),
			Answer: testkit.DynamoDBError(400, "AccessDeniedException", "made up by a test")})
		y.proxy.Add(testkit.Fault{Match: terraforms(testkit.S3Op("DELETE", y.addr.LockKey())), After: y.unlocks(),
			Answer: testkit.S3Error(403, "AccessDenied", "made up by a test")})
	}
	w.each(t, both, 2, "it cannot release its lock", quick, func(y *yard) {
		cannotRelease(y)
		p := y.tfguard(apply()...)
		if code := p.wait(time.Minute); code != 0 || !strings.Contains(p.output(), "left its lock") {
			y.Errorf("exit code %d\n%s", code, p.output())
		}
		y.proxy.Reset()
		y.clean(0)
	})
	w.each(t, whole, 3, "it cannot release its lock after a cancel", layout{seconds: 2}, func(y *yard) {
		cannotRelease(y)
		p := y.inFlight()
		p.signal(syscall.SIGINT)
		code := p.wait(time.Minute)
		y.proxy.Reset()
		y.clean(code)
	})
	w.each(t, both, 4, "it exits with 1 after a complete apply", quick, func(y *yard) {
		y.wrap(`apply) "$TERRAFORM" "$@"; exit 1 ;;`)
		if code := y.wrapped().wait(time.Minute); code != 1 {
			y.Errorf("exit code %d, want 1", code)
		}
		y.unwrap()
		y.cleanBut(1, 1)
	})
	megabytes := 64
	if *long {
		megabytes = 1024
	}
	line := `{"@level":"info","@message":"` + strings.Repeat("much to say ", 20) + `","type":"log"}`
	w.each(t, both, 5, "it prints a gigabyte", quick, func(y *yard) {
		y.bin = w.tfguard
		y.wrap(fmt.Sprintf(`apply) yes '%s' | head -c %dM; echo; "$TERRAFORM" "$@"; exit ;;`, line, megabytes))
		p := y.wrapped()
		y.inMemory(p)
		if code := p.wait(10 * time.Minute); code != 0 {
			y.Errorf("exit code %d", code)
		}
		y.unwrap()
		y.clean(0)
	})
	w.each(t, whole, 6, "it prints long lines, and as much on stderr", quick, func(y *yard) {
		y.bin = w.tfguard
		y.wrap(`apply) head -c 4M /dev/zero | tr '\0' x; echo; head -c 4M /dev/zero | tr '\0' '\n' >&2; "$TERRAFORM" "$@"; exit ;;`)
		p := y.wrapped("--verbose")
		y.inMemory(p)
		if code := p.wait(time.Minute); code != 0 {
			y.Errorf("exit code %d", code)
		}
		y.unwrap()
		y.clean(0)
	})
	w.each(t, whole, 7, "it prints a gigabyte while the foreground is stopped", quick, func(y *yard) {
		y.bin = w.tfguard
		y.wrap(fmt.Sprintf(`apply) yes '%s' | head -c %dM; echo; "$TERRAFORM" "$@"; exit ;;`, line, megabytes))
		p := y.wrapped("--verbose")
		y.awaitEvent("its apply", func(e event.Event) bool { s, ok := e.(event.StageStarted); return ok && s.Stage == "apply" })
		p.signal(syscall.SIGSTOP)
		if !until(10*time.Minute, func() bool { _, ok := y.result(); return ok }) {
			y.Fatal("the engine waits for a foreground that is stopped")
		}
		if left := y.locks(); len(left) > 0 {
			y.Errorf("a lock is left: %v", left)
		}
		p.signal(syscall.SIGCONT)
		y.inMemory(p)
		if code := p.wait(10 * time.Minute); code != 0 {
			y.Errorf("exit code %d", code)
		}
		y.unwrap()
		y.clean(0)
	})
}

// meets waits until a request has met a fault.
func (y *yard) meets(f *testkit.Fault) {
	y.Helper()
	if !until(time.Minute, func() bool { return y.proxy.Hits(f) > 0 }) {
		y.Fatal("no request met the fault")
	}
}

// unlocks is how many releases of a lock go well before those of the apply: the
// plan's.
func (y *yard) unlocks() int { return 1 }

// wrap puts a script in terraform's place that does something else for one case
// of its first argument.
func (y *yard) wrap(instead string) {
	y.Helper()
	script := fmt.Sprintf("#!/bin/sh\nTERRAFORM=%s\ncase \"$1\" in\n%s\nesac\nexec \"$TERRAFORM\" \"$@\"\n", y.w.terraform, instead)
	y.write("wrapped", script)
	if err := os.Chmod(filepath.Join(y.dir, "wrapped"), 0o700); err != nil {
		y.Fatal(err)
	}
}

func (y *yard) wrapped(args ...string) *proc {
	return y.tfguard(append(append(apply(), "--terraform-bin", filepath.Join(y.dir, "wrapped")), args...)...)
}

func (y *yard) unwrap() {
	y.Helper()
	if err := os.Remove(filepath.Join(y.dir, "wrapped")); err != nil {
		y.Fatal(err)
	}
}

// inMemory watches the peaks of foreground and engine until the foreground ends.
// It is not ru_maxrss, in which a new process starts with its parent's.
func (y *yard) inMemory(p *proc) {
	y.Helper()
	peaks := map[int]int64{}
	until(10*time.Minute, func() bool {
		for _, c := range y.processes() {
			if filepath.Base(c.argv[0]) == "tfguard" {
				peaks[c.pid] = max(peaks[c.pid], peak(c.pid))
			}
		}
		return p.ended()
	})
	for pid, bytes := range peaks {
		who := "engine"
		if pid == p.cmd.Process.Pid {
			who = "foreground"
		}
		y.Logf("%s: %.1f MiB at its peak", who, float64(bytes)/(1<<20))
		if bytes > maxMemory {
			y.Errorf("the %s had %d bytes, at most %d are allowed", who, bytes, maxMemory)
		}
	}
	if len(peaks) == 0 {
		y.Error("no memory was measured")
	}
}

// peak is the most memory that a process has had, in bytes (proc_pid_status(5)).
func peak(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range rows(string(status)) {
		if kib, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kib)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}
