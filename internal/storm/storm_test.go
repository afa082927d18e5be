//go:build linux

package storm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/testkit"
)

// TestStorm is all of it, so that the programs are built once.
func TestStorm(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	w := newWorld(t)
	t.Run("all", func(t *testing.T) {
		t.Run("cancelled", func(t *testing.T) { t.Parallel(); w.cancelled(t) })
		t.Run("at each stage", func(t *testing.T) { t.Parallel(); w.atEachStage(t) })
		t.Run("at the start", func(t *testing.T) { t.Parallel(); w.atTheStart(t) })
		t.Run("at a random moment", func(t *testing.T) { t.Parallel(); w.atRandom(t) })
		t.Run("all is killed", func(t *testing.T) { t.Parallel(); w.allKilled(t) })
		t.Run("a part is killed", func(t *testing.T) { t.Parallel(); w.partKilled(t) })
		t.Run("terraform misbehaves", func(t *testing.T) { t.Parallel(); w.misbehaves(t) })
	})
	w.figures.log(t)
}

// Everything that the storm varies.
func lockModes() []string { return []string{testkit.DynamoDB, testkit.Lockfile, testkit.Both} }
func providers() []string { return []string{ignore, honour, slowStop} }

// each runs a case in every lock mode with every provider; in the short form in
// one of each, which differ from case to case, and only the cases that are in it.
func (w *world) each(t *testing.T, in form, n int, name string, l layout, run func(*yard)) {
	for i, lock := range lockModes() {
		for j, provider := range providers() {
			if !*long && (in != both || i != n%3 || j != (n/3+n)%3) {
				continue
			}
			l := l
			l.mode = provider
			t.Run(fmt.Sprintf("%s/%s/%s", name, lock, provider), func(t *testing.T) {
				t.Parallel()
				run(newYard(t, w, lock, l))
			})
		}
	}
}

// form says in which forms of the storm a case is.
type form int

const (
	whole form = iota // in the long form alone
	both
)

func in(short bool) form {
	if short {
		return both
	}
	return whole
}

// scenario is a sentence, and what is done to a run whose provider is creating.
type scenario struct {
	in       form
	sentence string
	seconds  float64
	run      func(y *yard)
}

func (w *world) cancelled(t *testing.T) {
	for n, c := range scenarios() {
		w.each(t, c.in, n, c.sentence, layout{seconds: c.seconds}, c.run)
	}
}

// apply is the command that is cancelled.
func apply() []string { return []string{"apply", "--auto-approve"} }

// inFlight starts an apply and waits until the provider creates.
func (y *yard) inFlight(args ...string) *proc {
	y.Helper()
	p := y.tfguard(append(apply(), args...)...)
	y.await("begin create second")
	return p
}

func scenarios() []scenario {
	step := func(script string, shell ...string) func(*yard) {
		return func(y *yard) { y.runner(script, shell...) }
	}
	signals := func(pause time.Duration, list ...syscall.Signal) func(*yard) {
		return func(y *yard) {
			p := y.inFlight()
			for _, s := range list {
				p.signal(s)
				after(pause)
			}
			y.clean(p.wait(time.Minute))
		}
	}
	keys := func(n int) func(*yard) {
		return func(y *yard) {
			p := startOnTerminal(y.T, y.command("tfguard", apply()...))
			y.await("begin create second")
			for range n {
				p.press(ctrlC)
				after(time.Second / time.Duration(n))
			}
			y.clean(p.wait(time.Minute))
		}
	}
	return []scenario{
		{both, "a CI step with exec", 12, step("exec tfguard apply --auto-approve\n", "bash", "-e")},
		{both, "a CI step that is a plain script", 12, step("echo before\ntfguard apply --auto-approve\necho after\n", "bash", "-e")},
		{both, "a CI step with a pipe to tee", 12, step("tfguard apply --auto-approve 2>&1 | tee log\n", "bash", "--noprofile", "--norc", "-eo", "pipefail")},
		{whole, "a CI step of sh -c", 12, step("", "sh", "-c", "tfguard apply --auto-approve; exit $?")},

		{whole, "SIGINT", 3, signals(0, syscall.SIGINT)},
		{whole, "SIGTERM", 3, signals(0, syscall.SIGTERM)},
		{whole, "SIGHUP", 3, signals(0, syscall.SIGHUP)},
		{whole, "every signal twice", 3, signals(100*time.Millisecond, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)},
		{both, "SIGKILL of the foreground", 3, func(y *yard) {
			p := y.inFlight()
			p.signal(syscall.SIGKILL)
			p.wait(time.Minute)
			y.clean(y.settle())
		}},
		{whole, "two Ctrl-C in a second", 3, keys(2)},
		{both, "five Ctrl-C in a second", 3, keys(5)},
		{whole, "Ctrl-C in a script on a terminal", 3, func(y *yard) {
			p := startOnTerminal(y.T, y.command("sh", "-c", "tfguard apply --auto-approve; exit $?"))
			y.await("begin create second")
			p.press(ctrlC)
			p.press(ctrlC)
			p.wait(time.Minute) // dash ends at the first one, others wait
			y.settle()
			y.clean(-1)
		}},
		{whole, "Ctrl-C without an engine", 3, func(y *yard) {
			p := startOnTerminal(y.T, y.command("tfguard", append(apply(), "--no-detach")...))
			y.await("begin create second")
			for range 5 {
				p.press(ctrlC)
				after(200 * time.Millisecond)
			}
			y.clean(p.wait(time.Minute))
		}},
		{both, "a terminal that is closed", 3, func(y *yard) {
			p := startOnTerminal(y.T, y.command("tfguard", apply()...))
			y.await("begin create second")
			if err := p.tty.Close(); err != nil {
				y.Fatal(err)
			}
			y.clean(p.wait(time.Minute))
		}},
		{whole, "a terminal that is closed under a script", 3, func(y *yard) {
			p := startOnTerminal(y.T, y.command("bash", "-c", "tfguard apply --auto-approve; echo $?"))
			y.await("begin create second")
			if err := p.tty.Close(); err != nil {
				y.Fatal(err)
			}
			y.settle()
			y.clean(-1)
		}},
		{whole, "a shell that is killed", 3, func(y *yard) {
			p := start(y.T, y.command("bash", "-c", "tfguard apply --auto-approve; echo $?"))
			y.await("begin create second")
			p.signal(syscall.SIGKILL)
			y.settle()
			y.clean(-1)
		}},
		{whole, "nohup outlives its shell and its terminal", 1, func(y *yard) {
			p := startOnTerminal(y.T, y.command("bash", "-c", "nohup tfguard apply --auto-approve >log 2>&1; echo $?"))
			y.await("begin create second")
			p.signal(syscall.SIGKILL)
			p.tty.Close()
			if code := y.settle(); code != 0 {
				y.Errorf("exit code %d under nohup", code)
			}
			y.clean(0)
		}},
		{whole, "timeout", 3, func(y *yard) {
			p := start(y.T, y.command("timeout", "-k", "9", "3", y.bin, "apply", "--auto-approve"))
			p.wait(time.Minute)
			y.settle()
			y.clean(-1)
		}},
		{both, "SIGSTOP of the foreground, until the run is over, and SIGCONT", 1, func(y *yard) {
			p := y.inFlight()
			p.signal(syscall.SIGSTOP)
			y.awaitResult()
			p.signal(syscall.SIGCONT)
			if code := p.wait(time.Minute); code != 0 {
				y.Errorf("exit code %d after SIGCONT", code)
			}
			y.clean(0)
		}},
		{whole, "SIGINT and SIGTERM of a foreground that is stopped, and SIGCONT", 3, func(y *yard) {
			p := y.inFlight()
			p.signal(syscall.SIGSTOP)
			p.signal(syscall.SIGINT)
			p.signal(syscall.SIGTERM)
			after(time.Second)
			p.signal(syscall.SIGCONT)
			y.clean(p.wait(time.Minute))
		}},
		{whole, "SIGKILL of a foreground that is stopped", 3, func(y *yard) {
			p := y.inFlight()
			p.signal(syscall.SIGSTOP)
			p.signal(syscall.SIGKILL)
			p.wait(time.Minute)
			y.clean(y.settle())
		}},
		{whole, "a reader that went away", 1, func(y *yard) {
			p := start(y.T, y.command("bash", "-c", "set -o pipefail; tfguard apply --auto-approve 2>&1 | head -n 1"))
			if code := p.wait(time.Minute); code != 0 {
				y.Errorf("exit code %d", code)
			}
			y.clean(0)
		}},
		{whole, "SIGTERM of the engine", 3, func(y *yard) {
			p := y.inFlight()
			y.engine(p).kill(syscall.SIGTERM)
			y.clean(p.wait(time.Minute))
		}},
		{both, "the holder record is taken away", 3, func(y *yard) {
			p := y.inFlight()
			y.removeHolder()
			if code := p.wait(time.Minute); code != 10 {
				y.Errorf("exit code %d, want 10\n%s", code, p.output())
			}
			y.cleanBut(10, 10)
		}},
		{whole, "a cancelled destroy", 3, func(y *yard) {
			y.seed(2, names())
			p := y.tfguard("destroy", "--auto-approve")
			y.await("begin delete second")
			p.signal(syscall.SIGINT)
			p.wait(time.Minute)
			y.configure(layout{mode: y.plan.mode, none: true})
			y.clean(p.code)
		}},
		{whole, "a cancelled update", 3, func(y *yard) {
			y.seed(2, names())
			y.configure(layout{mode: y.plan.mode, seconds: 3, value: "new"})
			p := y.tfguard(apply()...)
			y.await("begin update second")
			p.signal(syscall.SIGINT)
			y.clean(p.wait(time.Minute))
		}},
	}
}

// The runner's protocol (actions/runner, ProcessInvoker): SIGINT to the step's
// own process alone, SIGTERM after 7.5 s, SIGKILL 2.5 s later.
const (
	runnerTerm = 7500 * time.Millisecond
	runnerKill = 2500 * time.Millisecond
)

// runner runs a step and cancels it as GitHub's runner does: the protocol on the
// step's process, then the step that always runs, then the end of everything
// that carries the job's id.
func (y *yard) runner(script string, shell ...string) {
	y.Helper()
	args := shell[1:]
	if script != "" {
		y.write("step.sh", script)
		args = append(slices.Clone(args), "step.sh")
	}
	job := "RUNNER_TRACKING_ID=" + strings.TrimPrefix(y.marker, "STORM=")
	cmd := y.command(shell[0], args...)
	cmd.Env = append(cmd.Env, job)
	p := start(y.T, cmd)
	y.await("begin create second")
	y.sameEnvironment(job)
	ended := func(d time.Duration) bool { return until(d, p.ended) }
	p.signal(syscall.SIGINT)
	if !ended(runnerTerm) {
		p.signal(syscall.SIGTERM)
		if !ended(runnerKill) {
			p.signal(syscall.SIGKILL)
		}
	}
	p.wait(time.Minute)
	y.settle()
	for _, left := range carrying(job) {
		left.kill(syscall.SIGKILL)
	}
	y.clean(-1)
}

// sameEnvironment holds that engine, terraform and provider have the step's
// environment, and of the runner's id nothing.
func (y *yard) sameEnvironment(job string) {
	y.Helper()
	found := map[string]bool{}
	for _, p := range y.processes() {
		env := environ(p.pid)
		switch {
		case slices.Contains(env, job):
			continue // the foreground and its shell
		case p.is("terraform", "apply"):
			found["terraform"] = true
		case strings.Contains(p.argv[0], "terraform-provider"):
			found["provider"] = true
		case p.is("tfguard", "apply"):
			found["engine"] = true
		}
		for _, v := range y.env() {
			name, _, _ := strings.Cut(v, "=")
			if !slices.Contains([]string{"PATH", "PWD", "OLDPWD", "SHLVL", "_"}, name) && !slices.Contains(env, v) { // a shell's own
				y.Errorf("%s lacks %s", p, v)
			}
		}
	}
	if len(found) != 3 {
		y.Errorf("of engine, terraform and provider only %v are there without the runner's id, of %v", found, y.processes())
	}
}

// settle waits for what goes on, as the step that always runs does, and gives
// the run's exit code.
func (y *yard) settle() int {
	y.Helper()
	p := y.tfguard("settle")
	code := p.wait(time.Minute)
	if !slices.Contains([]int{0, 130}, code) {
		y.Errorf("settle: exit code %d\n%s", code, p.output())
	}
	if strings.Contains(p.output(), "no run goes on") {
		return -1
	}
	return code
}

func (y *yard) awaitResult() {
	y.Helper()
	if !until(time.Minute, func() bool { _, ok := y.result(); return ok }) {
		y.Fatal("the run does not end")
	}
}

// engine finds the engine of a foreground.
func (y *yard) engine(foreground *proc) seen {
	y.Helper()
	for _, p := range y.processes() {
		if len(p.argv) > 1 && p.argv[0] == y.bin && p.pid != foreground.cmd.Process.Pid {
			return p
		}
	}
	y.Fatal("there is no engine")
	return seen{}
}

// atEachStage cancels a run while each of its stages goes on, and while it waits
// for a person, a lock, a hook.
func (w *world) atEachStage(t *testing.T) {
	n := 0
	for _, stage := range []string{"check", "backend", "lock-check", "plan", "recheck", "snapshot", "apply"} {
		w.each(t, in(stage == "plan"), n, stage, layout{seconds: 1}, func(y *yard) {
			p := y.tfguard(apply()...)
			y.awaitEvent(stage, func(e event.Event) bool { s, ok := e.(event.StageStarted); return ok && s.Stage == stage })
			p.signal(syscall.SIGINT)
			y.clean(p.wait(time.Minute))
		})
		w.each(t, in(stage == "apply"), n+1, "a hook before "+stage, layout{seconds: 1}, func(y *yard) {
			y.write(".tfguard.hcl", fmt.Sprintf("hook \"slow\" {\n  before  = %q\n  command = [\"sh\", \"-c\", \"echo begin hook >>things; sleep 60; echo more\"]\n}\n", stage))
			p := y.tfguard(apply()...)
			y.await("begin hook")
			p.signal(syscall.SIGINT)
			code := p.wait(time.Minute)
			y.write(".tfguard.hcl", "")
			y.clean(code)
		})
		n += 2
	}
	prompt := func(y *yard) *proc {
		p := startOnTerminal(y.T, y.command("tfguard", "apply"))
		if !until(30*time.Second, func() bool { return strings.Contains(p.output(), "Only 'yes' will be accepted") }) {
			y.Fatalf("nobody was asked:\n%s", p.output())
		}
		return p
	}
	w.each(t, both, n, "the question whether to apply/Ctrl-C", layout{seconds: 1}, func(y *yard) {
		p := prompt(y)
		p.press(ctrlC)
		if code := p.wait(time.Minute); code != 130 {
			y.Errorf("exit code %d", code)
		}
		y.clean(130)
	})
	w.each(t, whole, n+1, "the question whether to apply/the terminal is closed", layout{seconds: 1}, func(y *yard) {
		p := prompt(y)
		p.tty.Close()
		p.wait(time.Minute)
		y.clean(-1)
	})
	w.each(t, whole, n+2, "the question whether to apply/SIGKILL", layout{seconds: 1}, func(y *yard) {
		p := prompt(y)
		p.signal(syscall.SIGKILL)
		p.wait(time.Minute)
		y.settle()
		y.clean(-1)
	})
	w.each(t, whole, n+3, "the question whether to apply/yes", layout{seconds: 1}, func(y *yard) {
		p := prompt(y)
		p.press("yes\r")
		if code := p.wait(time.Minute); code != 0 {
			y.Errorf("exit code %d\n%s", code, p.output())
		}
		y.clean(0)
	})
	w.each(t, whole, n+4, "waiting for a lock", layout{seconds: 4}, func(y *yard) {
		first := y.inFlight()
		p := y.tfguard(append(apply(), "--wait", "10m")...)
		if !until(30*time.Second, func() bool { return strings.Contains(p.output(), "waiting up to") }) {
			y.Fatalf("it does not wait:\n%s", p.output())
		}
		p.signal(syscall.SIGINT)
		if code := p.wait(time.Minute); code != 130 {
			y.Errorf("exit code %d\n%s", code, p.output())
		}
		if len(y.locks()) == 0 || !y.held() {
			y.Error("the lock of the other run is gone")
		}
		first.signal(syscall.SIGINT)
		if code := first.wait(time.Minute); code != 130 && code != 0 {
			y.Errorf("exit code %d of the other run\n%s", code, first.output())
		}
		y.clean(-1)
	})
}

// atTheStart cancels a run before much of it is there.
func (w *world) atTheStart(t *testing.T) {
	n := 3
	if *long {
		n = 200
	}
	random := rand.New(rand.NewPCG(*seed, 1))
	for i := range n {
		moment := time.Duration(random.Int64N(int64(120 * time.Millisecond)))
		s := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}[i%3]
		t.Run(fmt.Sprintf("%d %s after %s", i, s, moment), func(t *testing.T) {
			t.Parallel()
			y := newYard(t, w, lockModes()[i%3], layout{mode: providers()[i%3], seconds: 1})
			p := y.tfguard(apply()...)
			after(moment)
			p.signal(s)
			if p.wait(time.Minute); s == syscall.SIGKILL {
				y.settle()
			}
			if p.code == -1 { // it took no signals yet, or can take none
				y.clean(-1)
				return
			}
			y.clean(p.code)
		})
	}
}

// atRandom cancels runs in random ways at random moments.
func (w *world) atRandom(t *testing.T) {
	n := 4
	if *long {
		n = *moments
	}
	random := rand.New(rand.NewPCG(*seed, 2))
	for i := range n {
		at := randomMoment(random)
		way := random.IntN(len(ways()))
		lock, provider, what := lockModes()[random.IntN(3)], providers()[random.IntN(3)], random.IntN(3)
		t.Run(fmt.Sprintf("%d %s %s", i, ways()[way].name, at), func(t *testing.T) {
			t.Parallel()
			y := newYard(t, w, lock, layout{mode: provider, seconds: 1.5})
			args := apply()
			switch what {
			case 1:
				y.seed(2, names())
				y.configure(layout{mode: provider, seconds: 1.5, value: "new"})
			case 2:
				y.seed(2, names())
				args = []string{"destroy", "--auto-approve"}
			}
			var p *proc
			if ways()[way].terminal {
				p = startOnTerminal(t, y.command("tfguard", args...))
			} else {
				p = y.tfguard(args...)
			}
			at.reach(y, p)
			ways()[way].strike(p)
			code := p.wait(time.Minute)
			y.settle()
			t.Logf("it came to event %d and exit code %d", len(y.events()), code)
			if what == 2 {
				y.configure(layout{mode: provider, none: true})
			}
			y.clean(code)
		})
	}
}

// moment is one of a run's, whatever the speed of the machine: so long after so
// many events.
type moment struct {
	events int
	later  time.Duration
}

// mostEvents is how many events a run of a yard has, about.
const mostEvents = 48

func randomMoment(r *rand.Rand) moment {
	return moment{r.IntN(mostEvents), time.Duration(r.IntN(500)) * time.Millisecond}
}

func (m moment) String() string { return fmt.Sprintf("%s after event %d", m.later, m.events) }

// reach returns at the moment, or when the run has ended before it.
func (m moment) reach(y *yard, p *proc) {
	until(time.Minute, func() bool { return p.ended() || len(y.events()) >= m.events })
	after(m.later)
}

// way is how a run is cancelled at a random moment.
type way struct {
	name     string
	terminal bool
	strike   func(p *proc)
}

func ways() []way {
	send := func(pause time.Duration, list ...syscall.Signal) func(*proc) {
		return func(p *proc) {
			for _, s := range list {
				p.signal(s)
				after(pause)
			}
		}
	}
	return []way{
		{"SIGINT", false, send(0, syscall.SIGINT)},
		{"SIGTERM", false, send(0, syscall.SIGTERM)},
		{"SIGHUP", false, send(0, syscall.SIGHUP)},
		{"SIGKILL", false, send(0, syscall.SIGKILL)},
		{"SIGINT, SIGTERM and SIGKILL", false, send(300*time.Millisecond, syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL)},
		{"SIGSTOP and SIGKILL", false, send(300*time.Millisecond, syscall.SIGSTOP, syscall.SIGKILL)},
		{"SIGSTOP, SIGINT and SIGCONT", false, send(300*time.Millisecond, syscall.SIGSTOP, syscall.SIGINT, syscall.SIGCONT)},
		{"five Ctrl-C", true, func(p *proc) {
			for range 5 {
				_, _ = p.tty.WriteString(ctrlC)
				after(100 * time.Millisecond)
			}
		}},
		{"a closed terminal", true, func(p *proc) { p.tty.Close() }},
	}
}
