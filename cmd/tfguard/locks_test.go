package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/testkit"
)

func opPutHolder(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	r := lock.Record{Command: "apply", Who: "ada@build-7", Started: time.Now().UTC().Add(-time.Minute), Beat: time.Now().UTC()}
	gone := false
	args, err := flags("putholder", args, 1, func(f *flag.FlagSet) {
		f.StringVar(&r.RunID, "run", "run-1", "")
		f.StringVar(&r.LockID, "lock", "", "")
		f.StringVar(&r.Stage, "stage", "apply", "")
		f.Func("ci", "", func(url string) error { r.CI = &lock.CIRun{System: "github", URL: url}; return nil })
		f.Func("flying", "", func(s string) error { r.InFlight = append(r.InFlight, s); return nil })
		f.BoolVar(&gone, "gone", false, "")
	})
	if err != nil {
		return err
	}
	if gone {
		ended := exec.CommandContext(ctx, "true")
		if err := ended.Run(); err != nil {
			return err
		}
		r.Host, _, _ = holder.Here()
		r.PID, r.Began = ended.Process.Pid, "1"
	}
	body, err := r.Encode()
	if err != nil {
		return err
	}
	return c.put(ctx, ".tfguard/"+args[0]+"/holder.json", body)
}

// its is the state of the folder, as scripts see one.
func (f *bench) its(mode string) cloud {
	return cloud{clients: f.cloud.Clients, mode: mode, bucket: f.addr.Bucket, table: f.addr.Table, key: f.addr.Key}
}

// do runs an op of the scripts.
func (f *bench) do(mode, name string, args ...string) {
	f.t.Helper()
	if err := ops()[name](f.t.Context(), f.its(mode), io.Discard, args); err != nil {
		f.t.Fatalf("%s %q: %v", name, args, err)
	}
}

// behind puts a proxy that can misbehave before the services of the folder.
func (f *bench) behind() *testkit.Faulty {
	f.t.Helper()
	proxy := testkit.NewFaulty(f.t, f.cloud.URL)
	file := filepath.Join(f.dir, "main.tf")
	text, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte(f.cloud.URL), []byte(proxy.URL)), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return proxy
}

// `locks` on one state is one request a store, the holder record being one, all
// at the same time, however large the table is (issue 2).
func TestLocksIsOneRequestAStore(t *testing.T) {
	tfguard := buildProgram(t)
	f := newBench(t, testkit.Both)
	proxy := f.behind()
	want := []string{"dynamodb:GetItem", "GET /" + f.addr.Bucket + "/" + f.addr.LockKey(), "GET /" + f.addr.Bucket + "/" + f.addr.HolderKey()}
	f.do(testkit.Both, "putlock")
	for _, size := range []string{"one lock", "and a thousand items more"} {
		proxy.Reset()
		cmd := exec.Command(tfguard, "locks")
		cmd.Dir, cmd.Env = f.dir, plainEnv()
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		// None is answered before all have come.
		held := proxy.Add(testkit.Fault{Hang: true})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range want {
			held.Wait(t)
		}
		held.Release()
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 10 {
			t.Fatalf("%s: %v, want the exit code 10\n%s", size, err, out.String())
		}
		got := proxy.Requests()
		for _, w := range want {
			n := 0
			for _, r := range got {
				if r == w || strings.HasPrefix(r, w+"?") {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s: %d requests of %q, want 1", size, n, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d requests, want %d: %q", size, len(got), len(want), got)
		}
		f.fillTable(1000, 10)
	}
}

// watched is a `locks --watch` that runs.
type watched struct {
	*testing.T
	cmd   *exec.Cmd
	lines chan string
	err   bytes.Buffer
}

func (f *bench) watch(t *testing.T, tfguard string, args ...string) *watched {
	t.Helper()
	w := &watched{T: t, cmd: exec.Command(tfguard, append([]string{"locks", "--watch", "--interval", "100ms"}, args...)...), lines: make(chan string, 1000)}
	w.cmd.Dir, w.cmd.Env, w.cmd.Stderr = f.dir, plainEnv(), &w.err
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	go func() {
		defer close(w.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			w.lines <- scan.Text()
		}
	}()
	return w
}

// line is the next line of its output.
func (w *watched) line() string {
	w.Helper()
	select {
	case l, ok := <-w.lines:
		if !ok {
			w.Fatalf("it has ended: %s", w.err.String())
		}
		return l
	case <-time.After(20 * time.Second):
		w.Fatal("no line came")
	}
	return ""
}

// verdict is the next document.
func (w *watched) verdict(want lock.Status) {
	w.Helper()
	var r lock.Report
	if err := json.Unmarshal([]byte(w.line()), &r); err != nil {
		w.Fatal(err)
	}
	if r.Status != want || r.Version != 1 {
		w.Errorf("the verdict is %+v, want %q", r, want)
	}
}

// end interrupts it, and gives what it still printed.
func (w *watched) end(code int) []string {
	w.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		w.Fatal(err)
	}
	var rest []string
	for l := range w.lines {
		rest = append(rest, l)
	}
	_ = w.cmd.Wait() // the code says it
	if have := w.cmd.ProcessState.ExitCode(); have != code {
		w.Errorf("it ended with %d, want %d: %s", have, code, w.err.String())
	}
	return rest
}

// --watch prints each verdict that says something new, one document a line with
// --json, until it is interrupted; its exit code is that of the last verdict.
func TestLocksWatch(t *testing.T) {
	tfguard := buildProgram(t)
	const mode = testkit.DynamoDB
	t.Run("every change, and nothing else", func(t *testing.T) {
		f := newBench(t, mode)
		proxy := f.behind()
		w := f.watch(t, tfguard, "--json")
		w.verdict(lock.None)
		f.do(mode, "putlock")
		w.verdict(lock.Active)
		looks := proxy.Count("dynamodb:GetItem")
		for deadline := time.Now().Add(20 * time.Second); proxy.Count("dynamodb:GetItem") < looks+5 && time.Now().Before(deadline); {
			f.do(mode, "locked", lockID) // looks go on, and have nothing new to say
		}
		f.do(mode, "putholder", "-run", "run-7", "-lock", lockID, f.addr.Key)
		w.verdict(lock.Active)
		f.do(mode, "putholder", "-run", "run-7", "-lock", lockID, f.addr.Key) // a heartbeat
		f.do(mode, "putholder", "-run", "run-7", "-lock", lockID, "-gone", f.addr.Key)
		w.verdict(lock.Stale)
		f.do(mode, "rmlock")
		w.verdict(lock.None)
		if rest := w.end(0); len(rest) > 0 || w.err.Len() > 0 {
			t.Errorf("after the interrupt it printed %q, and %s", rest, w.err.String())
		}
	})
	t.Run("it ends with the code of the last verdict", func(t *testing.T) {
		f := newBench(t, mode)
		f.do(mode, "putlock")
		w := f.watch(t, tfguard, "--json")
		w.verdict(lock.Active)
		w.end(10)
		w = f.watch(t, tfguard)
		if first := w.line(); first != f.addr.String()+": active (presumed)" {
			t.Errorf("for people it begins with %q", first)
		}
		f.do(mode, "putlock", "-raw", "?")
		for l := w.line(); l != f.addr.String()+": unclear"; l = w.line() {
		}
		w.end(12)
		f.do(mode, "putlock", "-age", "45m")
		w = f.watch(t, tfguard, "--json", "--strict")
		w.verdict(lock.Stale)
		w.end(11)
	})
	t.Run("interrupted before there is a verdict it is cancelled", func(t *testing.T) {
		f := newBench(t, mode)
		hang := f.behind().Add(testkit.Fault{Match: testkit.DynamoDBOp("GetItem"), Hang: true})
		w := f.watch(t, tfguard, "--json")
		hang.Wait(t)
		w.end(130)
	})
	t.Run("a look that fails ends it", func(t *testing.T) {
		f := newBench(t, mode)
		proxy := f.behind()
		w := f.watch(t, tfguard, "--json")
		w.verdict(lock.None)
		proxy.Add(testkit.Fault{Match: testkit.DynamoDBOp("GetItem"), Answer: testkit.DynamoDBError(http.StatusBadRequest, "AccessDeniedException", "no")})
		for range w.lines {
		}
		_ = w.cmd.Wait()
		if code := w.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(w.err.String(), "permission denied: dynamodb:GetItem") {
			t.Errorf("it ended with %d: %s", code, w.err.String())
		}
	})
}

// fillTable puts so many items into the lock table: of every so many states one
// is locked, the others have a digest alone.
func (f *bench) fillTable(n, every int) {
	f.t.Helper()
	if err := fillTable(f.t.Context(), f.its(testkit.DynamoDB), n, every); err != nil {
		f.t.Fatal(err)
	}
}

// stateName is a name as long as such names are.
func stateName(n int) string {
	return fmt.Sprintf("acme-terraform-states/teams/team-%03d/service-%05d/terraform.tfstate", n%500, n)
}
