package terraform

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
)

func TestApplyIsInterruptedOnceAndWaitedFor(t *testing.T) {
	tf, rec, log := stand(t, "is slow to end", Options{InterruptAgain: time.Millisecond, KillAfter: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	rec.on("Terraform 1.11.4", cancel)
	if err := tf.Apply(ctx, "plan"); err != nil {
		t.Errorf("an apply that ended with 0 after the interrupt is a success: %v", err)
	}
	if got := count(log(), "signal"); got != 1 {
		t.Errorf("apply got %d signals, want exactly 1: %q", got, log())
	}
	if count(log(), "end") != 1 {
		t.Errorf("apply was not waited for: %q", log())
	}
}

func TestPlanGetsASecondInterrupt(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the stand-in's arguments are read from /proc")
	}
	tf, rec, log := stand(t, "ignores the first interrupt", Options{InterruptAgain: 50 * time.Millisecond, KillAfter: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	rec.on("Terraform 1.11.4", cancel)
	_, err := tf.Plan(ctx, filepath.Join(t.TempDir(), "plan"))
	var f *Failure
	if !errors.As(err, &f) || !f.Interrupted || f.ExitCode != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an interrupted failure with exit code 1", err)
	}
	if got := log(); count(got, "signal interrupt") != 2 || count(got, "signal") != 2 || count(got, "end") != 1 {
		t.Errorf("plan should get two interrupts and end by itself: %q", got)
	}
}

func TestTheSecondInterruptMeetsThePlanAlone(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the stand-in's arguments are read from /proc")
	}
	plan, rec, planLog := stand(t, "ignores the first interrupt", Options{InterruptAgain: 50 * time.Millisecond})
	other, otherRec, otherLog := standBeside(t, "ends well after an interrupt", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	otherCtx, otherCancel := context.WithCancel(t.Context())
	defer otherCancel()
	var wg sync.WaitGroup
	otherRec.on("Terraform 1.11.4", func() {
		wg.Go(func() {
			rec.on("Terraform 1.11.4", cancel)
			plan.Plan(ctx, filepath.Join(t.TempDir(), "plan"))
			if got := count(otherLog(), "signal"); got != 0 {
				t.Errorf("the apply beside it got %d signals: %q", got, otherLog())
			}
			otherCancel()
		})
	})
	if err := other.Apply(otherCtx, "plan"); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if count(planLog(), "signal") != 2 {
		t.Errorf("plan: %q", planLog())
	}
}

func TestACommandKnowsItsProcess(t *testing.T) {
	plan := command{name: "plan", arg: "-out=/x/plan"}
	for name, c := range map[string]struct {
		command command
		argv    string
		want    bool
	}{
		"terraform itself":              {plan, "/bin/terraform plan -no-color -out=/x/plan", true},
		"a script":                      {plan, "/bin/sh /bin/terraform plan -no-color -out=/x/plan", true},
		"another plan":                  {plan, "/bin/terraform plan -out=/y/plan", false},
		"another command":               {plan, "/bin/terraform validate -out=/x/plan", false},
		"a command of two words":        {command{name: "workspace new"}, "terraform workspace new -no-color blue", true},
		"only one of the two words":     {command{name: "workspace new"}, "terraform workspace select new", false},
		"a zombie, which has none":      {command{name: "show"}, "", false},
		"the word far behind":           {command{name: "show"}, "sh a b c show", false},
		"a command without an argument": {command{name: "show"}, "terraform show", true},
	} {
		if got := c.command.match(strings.Fields(c.argv)); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestPlanThatEndsWellAfterAnInterrupt(t *testing.T) {
	tf, rec, log := stand(t, "ends well after an interrupt", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	rec.on("Terraform 1.11.4", cancel)
	p, err := tf.Plan(ctx, "plan")
	if err != nil || !p.Changed || p.Add != 1 {
		t.Errorf("got %+v, %v: the plan was complete", p, err)
	}
	if count(log(), "signal") != 1 {
		t.Errorf("%q", log())
	}
}

func TestInterruptedCommandThatFails(t *testing.T) {
	tf, rec, _ := stand(t, "fails after an interrupt", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	rec.on("Terraform 1.11.4", cancel)
	err := tf.Apply(ctx, "plan")
	if want := "terraform apply: interrupted: execution halted"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWhatHoldsNoLockIsKilled(t *testing.T) {
	for name, run := range map[string]func(context.Context, *Terraform) error{
		"init":     func(ctx context.Context, tf *Terraform) error { return tf.Init(ctx) },
		"validate": func(ctx context.Context, tf *Terraform) error { return tf.Validate(ctx) },
		"fmt":      func(ctx context.Context, tf *Terraform) error { return tf.Fmt(ctx) },
		"show":     func(ctx context.Context, tf *Terraform) error { _, err := tf.Show(ctx, "plan"); return err },
		"workspace select": func(ctx context.Context, tf *Terraform) error {
			return tf.SelectWorkspace(ctx, "blue", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tf, _, log := stand(t, "ignores interrupts", Options{KillAfter: 100 * time.Millisecond})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				eventually(t, "the command runs", func() bool { return slices.Contains(log(), "ready") })
				cancel()
			})
			err := run(ctx, tf)
			wg.Wait()
			var f *Failure
			if !errors.As(err, &f) || !f.Interrupted || f.ExitCode != -1 {
				t.Errorf("got %v, want an interrupted failure without exit code", err)
			}
			if got := log(); count(got, "signal interrupt") != 1 || count(got, "end") != 0 {
				t.Errorf("want one interrupt, then the kill: %q", got)
			}
		})
	}
}

// A context that ends in the instant of the start makes terraform-exec return
// an error that panics when it is printed, and leaves the process unwaited.
func TestCancelInTheInstantOfTheStart(t *testing.T) {
	tf, _, log := stand(t, "ends well after an interrupt", Options{KillAfter: 5 * time.Second})
	if _, err := tf.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := count(log(), "start")
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
		if err := tf.Apply(ctx, "plan"); err != nil {
			_ = err.Error()
		}
		stop.Stop()
		cancel()
	}
	// each that has started has ended, or died of the interrupt before it could log
	if started, ended := count(log(), "start")-before, count(log(), "end"); started != ended {
		t.Errorf("%d started, %d ended: %q", started, ended, log())
	}
}

func TestCancelledBeforeTheStartStartsNothing(t *testing.T) {
	tf, _, log := stand(t, "ends well after an interrupt", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tf.Apply(ctx, "plan"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := tf.Plan(ctx, "plan"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if count(log(), "start") != 0 {
		t.Errorf("%q", log())
	}
}

// Where this fails after an update of terraform-exec, each command takes a
// process more; nothing else is wrong.
func TestTerraformExecAsksForNoVersion(t *testing.T) {
	tf, err := tfexec.NewTerraform(t.TempDir(), "no-such-terraform")
	if err != nil || !assume(tf) {
		t.Fatalf("its version has no place, %v", err)
	}
	if v, _, err := tf.Version(t.Context(), false); err != nil || v.String() != "1.0.0" {
		t.Errorf("it takes the binary for %v, %v", v, err)
	}
}

func TestOneVersionProcessForAllCommands(t *testing.T) {
	tf, _, log := stand(t, "slow version", Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if v, err := tf.Version(t.Context()); v != "1.11.4" || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
		})
	}
	wg.Wait()
	if got := count(log(), "start version"); got != 1 {
		t.Errorf("%d version processes", got)
	}
}

// Whoever waits for the version that another command asks for waits no longer
// than its own context.
func TestWaitingForTheVersionCanBeCancelled(t *testing.T) {
	f := newFlight()
	entered, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		f.do(t.Context(), func() error { close(entered); <-leave; return nil })
	})
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.do(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(leave)
	wg.Wait()
}

// A process that terraform leaves behind may keep its output open: its end
// counts, not that of the output.
func TestOutputThatIsHeldOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("terraform's end is read from /proc")
	}
	tf, _, log := stand(t, "holds the output", Options{})
	t.Cleanup(func() {
		for _, l := range log() {
			if pid, ok := strings.CutPrefix(l, "child "); ok {
				n, _ := strconv.Atoi(pid)
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
	})
	if _, err := tf.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := tf.Apply(t.Context(), "held.plan"); err != nil {
			t.Errorf("the apply ended with 0: %v", err)
		}
	})
	wg.Go(func() {
		_, err := tf.Plan(t.Context(), "held.plan") // a name of its own: others run beside
		var f *Failure
		if !errors.As(err, &f) || f.ExitCode != 2 || !strings.Contains(err.Error(), "keeps its output open") {
			t.Errorf("got %v", err)
		}
	})
	wg.Wait()
}

// What runs beside a command that is waited for has the time that this one
// leaves (SCHED_IDLE is 5), in all of its threads; that one has its own.
func TestCommandsAsideGiveWay(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere they do not")
	}
	tf, _, log := stand(t, "tells its policy", Options{Patience: time.Minute})
	if _, err := tf.Show(t.Context(), "aside.plan"); err != nil {
		t.Fatal(err)
	}
	if got := log(); count(got, "policy") != 1 || count(got, "policy 5") != 1 {
		t.Errorf("show: %q", got)
	}
	if err := tf.Apply(t.Context(), "plan"); err != nil {
		t.Fatal(err)
	}
	if got := log(); count(got, "policy") != 2 || count(got, "policy 0") != 1 {
		t.Errorf("apply after show: %q", got)
	}
}

// A machine that leaves no time is no reason to wait for ever, and what the first
// try said is not said twice.
func TestCommandsAsideAreBegunAnew(t *testing.T) {
	tf, _, log := stand(t, "finds no time at first", Options{Patience: 3 * time.Second, KillAfter: 10 * time.Millisecond})
	text, err := tf.Show(t.Context(), "anew.plan")
	if err != nil || strings.TrimSpace(text) != "a plan" {
		t.Errorf("got %q, %v", text, err)
	}
	if got := log(); count(got, "start show") != 2 || count(got, "end") != 1 {
		t.Errorf("it should be begun twice: %q", got)
	}
}

// A cancel while it waits is no reason to begin anew.
func TestCommandsAsideCanBeCancelled(t *testing.T) {
	tf, _, log := stand(t, "finds no time at first", Options{KillAfter: 10 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := tf.Show(ctx, "cancelled.plan"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	eventually(t, "show runs", func() bool { return count(log(), "start show") == 1 })
	cancel()
	wg.Wait()
	if got := log(); count(got, "start show") != 1 {
		t.Errorf("it was begun anew: %q", got)
	}
}
