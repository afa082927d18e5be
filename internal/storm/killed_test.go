//go:build linux

package storm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/testkit"
)

// recorded is how long a resource is being changed before the holder record
// surely names it (CONTRACT.md §5), with what a loaded machine adds.
const recorded = 4 * time.Second

// allKilled kills engine, foreground, terraform and provider at random moments,
// as a lost machine does. The next run knows at once that the dead run is dead,
// goes on without a person, and names what was being changed.
func (w *world) allKilled(t *testing.T) {
	n := 5
	if *long {
		n = *moments / 2
	}
	random := rand.New(rand.NewPCG(*seed, 3))
	var locked, held, flying atomic.Int32
	t.Run("moments", func(t *testing.T) {
		for i := range n {
			at := randomMoment(random)
			lock, provider := lockModes()[random.IntN(3)], providers()[random.IntN(3)]
			t.Run(fmt.Sprintf("%d %s", i, at), func(t *testing.T) {
				t.Parallel()
				y := newYard(t, w, lock, layout{mode: provider, seconds: 8})
				p := y.tfguard(apply()...)
				at.reach(y, p)
				changing := map[string]bool{}
				if i%2 == 0 { // else at once: nothing need be recorded yet
					changing = y.changing()
					after(recorded)
				}
				y.killAll()
				p.wait(time.Minute)
				for a := range changing {
					if !y.changing()[a] {
						delete(changing, a)
					}
				}
				if len(y.locks()) > 0 {
					locked.Add(1)
				}
				if y.held() {
					held.Add(1)
				}
				if len(changing) > 0 {
					flying.Add(1)
				}
				y.configure(layout{mode: provider, seconds: 0.2})
				y.goesOn(changing)
			})
		}
	})
	t.Logf("%d runs were killed: %d left a lock, %d a holder record, %d had resources in flight for %s", n, locked.Load(), held.Load(), flying.Load(), recorded)
}

// changing are the addresses of the things that are being created now.
func (y *yard) changing() map[string]bool {
	all := map[string]bool{}
	for _, l := range y.lines() {
		switch f := strings.Fields(l); f[0] {
		case "begin":
			all["storm_thing."+f[2]] = true
		case "create":
			delete(all, "storm_thing."+f[1])
		case "abort":
			delete(all, "storm_thing."+f[2])
		}
	}
	return all
}

// killAll kills every process of the case, all at once as far as that goes.
func (y *yard) killAll() {
	y.Helper()
	if !until(10*time.Second, func() bool {
		all := y.processes()
		for _, p := range all {
			p.kill(syscall.SIGKILL)
		}
		return len(all) == 0
	}) {
		y.Fatal("processes cannot be killed")
	}
}

// goesOn is what follows an unclean death: the next run removes what is proven
// stale without a person, names what was being changed, applies, after a repair
// where the digest is wrong, and leaves the state clean. Only what exists and no
// state knows of stays as it is.
func (y *yard) goesOn(changing map[string]bool) {
	y.Helper()
	began := time.Now()
	p := y.tfguard(append(apply(), "--unlock-stale", "proven")...)
	code := p.wait(time.Minute)
	y.Logf("killed; the next run took %s", time.Since(began).Round(time.Millisecond))
	told := p.output()
	// Where it was killed between the two writes an apply mends nothing that it
	// finds. It is looked at now: what terraform sent last may have come after it.
	if _, digest := y.state(); !digest {
		if code != 1 || !strings.Contains(told, "tfguard state repair") {
			y.Errorf("exit code %d over a digest that does not match\n%s", code, told)
		}
		if repair := y.tfguard("state", "repair", "--auto-approve"); repair.wait(time.Minute) != 0 {
			y.Errorf("repair: exit code %d\n%s", repair.code, repair.output())
		}
		p = y.tfguard(apply()...)
		code = p.wait(time.Minute)
	}
	if code != 0 {
		y.Errorf("exit code %d of the next run\n%s", code, p.output())
	}
	for _, a := range slices.Sorted(maps.Keys(changing)) {
		if !strings.Contains(told, a) {
			y.Errorf("the next run does not name %s, which was being created\n%s", a, told)
		}
	}
	y.quiet()
	if left := y.locks(); len(left) > 0 || y.held() {
		y.Errorf("left: %v, holder record %v", left, y.held())
	}
	things, digest := y.state()
	exist := y.outside()
	for id, t := range things {
		if exist[id] != t {
			y.Errorf("the state has %s as %v, and there is %v", id, t, exist[id])
		}
	}
	if len(things) != len(names()) || !digest {
		y.Errorf("the state has %v, digest right: %v", things, digest)
	}
	y.w.figures.count(y)
}

// partKilled kills one process of a run.
func (w *world) partKilled(t *testing.T) {
	w.each(t, both, 0, "the engine", layout{seconds: 6}, func(y *yard) {
		p := y.inFlight()
		y.engine(p).kill(syscall.SIGKILL)
		if code := p.wait(time.Minute); code != 131 || !strings.Contains(p.output(), "was at stage apply") {
			y.Errorf("exit code %d without an engine\n%s", code, p.output())
		}
		if p := y.tfguard("settle"); p.wait(time.Minute) != 0 {
			y.Errorf("settle: exit code %d with nothing to wait for\n%s", p.code, p.output())
		}
		y.killAll() // the provider goes on, and nobody waits for it
		y.configure(layout{mode: y.plan.mode, seconds: 0.2})
		y.goesOn(nil)
	})
	// A state that cannot be written yet keeps a run going, whatever its provider
	// makes of the cancel.
	goingOn := func(y *yard) (p *proc, end func()) {
		hang := y.proxy.Add(testkit.Fault{Match: terraforms(testkit.S3Op("PUT", y.addr.Key)), Hang: true})
		return y.inFlight(), hang.Release
	}
	w.each(t, whole, 1, "the engine, under settle", layout{seconds: 1}, func(y *yard) {
		p, end := goingOn(y)
		engine := y.engine(p)
		p.signal(syscall.SIGKILL)
		p.wait(time.Minute)
		settle := y.tfguard("settle")
		if !until(30*time.Second, func() bool { return strings.Contains(settle.output(), "waiting for run") }) {
			y.Fatalf("settle does not wait:\n%s", settle.output())
		}
		engine.kill(syscall.SIGKILL)
		if code := settle.wait(time.Minute); code != 131 {
			y.Errorf("settle: exit code %d of a run that was killed\n%s", code, settle.output())
		}
		y.killAll()
		end()
		y.configure(layout{mode: y.plan.mode, seconds: 0.2})
		y.goesOn(nil)
	})
	w.each(t, whole, 2, "terraform", layout{seconds: 2}, func(y *yard) {
		p := y.inFlight()
		for _, c := range y.processes() {
			if c.is("terraform", "apply") {
				c.kill(syscall.SIGKILL)
			}
		}
		if code := p.wait(time.Minute); code != 1 {
			y.Errorf("exit code %d, want 1\n%s", code, p.output())
		}
		for _, a := range []string{"storm_thing.second", "storm_thing.beside"} {
			if !strings.Contains(p.output(), a) {
				y.Errorf("%s was being created and is not named:\n%s", a, p.output())
			}
		}
		y.quiet() // the provider goes on to its end
		y.configure(layout{mode: y.plan.mode, seconds: 0.2})
		y.goesOn(nil)
	})
	w.each(t, whole, 5, "terraform, by cancel_after", layout{seconds: 5}, func(y *yard) {
		y.plan.mode = ignore
		y.configure(y.plan)
		y.write(".tfguard.hcl", "terraform {\n  cancel_after = \"1s\"\n}\n")
		p := y.inFlight()
		p.signal(syscall.SIGINT)
		code := p.wait(time.Minute)
		if code != 131 || !strings.Contains(p.output(), "was killed") {
			y.Errorf("exit code %d, want 131\n%s", code, p.output())
		}
		if slices.ContainsFunc(y.lines(), func(l string) bool { return strings.HasPrefix(l, "create second ") }) {
			y.Error("it was waited for")
		}
		if left := y.locks(); len(left) > 0 || y.held() {
			y.Errorf("left: %v, holder record %v", left, y.held())
		}
		y.quiet()
		y.configure(layout{mode: ignore, seconds: 0.2})
		y.goesOn(nil)
	})
	w.each(t, whole, 3, "settle, whose time runs out", layout{seconds: 1}, func(y *yard) {
		p, end := goingOn(y)
		p.signal(syscall.SIGKILL)
		p.wait(time.Minute)
		if s := y.tfguard("settle", "--timeout", "200ms"); s.wait(time.Minute) != 131 || !strings.Contains(s.output(), "still goes on") {
			y.Errorf("settle: exit code %d\n%s", s.code, s.output())
		}
		s := y.tfguard("settle")
		if !until(30*time.Second, func() bool { return strings.Contains(s.output(), "waiting for run") }) {
			y.Fatalf("settle does not wait:\n%s", s.output())
		}
		s.signal(syscall.SIGINT)
		if code := s.wait(time.Minute); code != 131 || !strings.Contains(s.output(), "goes on") {
			y.Errorf("settle that was cancelled: exit code %d\n%s", code, s.output())
		}
		s = y.tfguard("settle")
		if !until(30*time.Second, func() bool { return strings.Contains(s.output(), "waiting for run") }) {
			y.Fatalf("settle does not wait:\n%s", s.output())
		}
		end()
		if code := s.wait(time.Minute); code != 130 {
			y.Errorf("settle: exit code %d of a run that was cancelled\n%s", code, s.output())
		}
		y.clean(-1)
	})
	w.each(t, whole, 4, "nothing: two runs in one folder", layout{seconds: 1}, func(y *yard) {
		first, second := y.tfguard(apply()...), y.tfguard(apply()...)
		codes := []int{first.wait(time.Minute), second.wait(time.Minute)}
		slices.Sort(codes)
		if !slices.Equal(codes, []int{0, 10}) {
			y.Errorf("exit codes %v, want 0 and 10\n%s\n%s", codes, first.output(), second.output())
		}
		y.quiet()
		y.cleanBut(-1, 0, 10)
	})
}
