package main

import (
	"bufio"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/testkit"
)

// says waits for a line that matches.
func says(t *testing.T, lines <-chan string, pattern string) {
	t.Helper()
	var all []string
	for limit := time.After(30 * time.Second); ; {
		select {
		case l, ok := <-lines:
			if all = append(all, l); ok && regexp.MustCompile(pattern).MatchString(l) {
				return
			}
			if ok {
				continue
			}
		case <-limit:
		}
		t.Fatalf("no line matches %q:\n%s", pattern, strings.Join(all, "\n"))
	}
}

// --wait names who holds the lock, since when and at what stage, judges again
// when that changes, and ends at once when it is cancelled, with nothing touched
// (G1, G3, issue 3).
func TestWaitForANamedHolder(t *testing.T) {
	tfguard := buildProgram(t)
	const mode = testkit.Both
	const run = "https://github.com/octo-org/octo-repo/actions/runs/7"
	waiting := `waiting up to 10m0s for ada@build-7 \(tfguard apply, stage plan, since \d\d:\d\d:\d\d UTC, ` + run + `\)`
	for _, c := range []struct {
		sentence, names string
		flags           []string
	}{
		{"for people", waiting, nil},
		{"in one process", waiting, []string{"--no-detach"}},
		{"as JSON", `"type":"lock".*"store":"holder","id":"run-7".*"operation":"tfguard apply, stage plan","who":"ada@build-7".*"created":"20`, []string{"--json"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			f := newBench(t, mode)
			f.do(mode, "putlock")
			f.do(mode, "putholder", "-run", "run-7", "-lock", lockID, "-stage", "plan", "-ci", run, f.addr.Key)
			cmd := exec.Command(tfguard, append([]string{"apply", "--auto-approve", "--wait", "10m", "--var", greeting(1)}, c.flags...)...)
			cmd.Dir, cmd.Env = f.dir, plainEnv()
			read, write := io.Pipe()
			cmd.Stdout, cmd.Stderr = write, write
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				_ = cmd.Wait() // the code says it
				_ = write.Close()
				close(ended)
			}()
			t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
			lines := make(chan string, 1000)
			go func() {
				defer close(lines)
				scan := bufio.NewScanner(read)
				for scan.Buffer(nil, 1<<20); scan.Scan(); {
					lines <- scan.Text()
				}
			}()
			says(t, lines, c.names)
			f.do(mode, "putholder", "-run", "run-7", "-lock", lockID, "-stage", "apply", "-ci", run, f.addr.Key)
			says(t, lines, `tfguard apply, stage apply`)
			began := time.Now()
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("it goes on waiting after an interrupt")
			}
			if took := time.Since(began); took > 5*time.Second || cmd.ProcessState.ExitCode() != 130 {
				t.Errorf("it ended with %d, %s after the interrupt", cmd.ProcessState.ExitCode(), took)
			}
			f.do(mode, "locked", lockID)
			f.do(mode, "serial", "none")
		})
	}
}
