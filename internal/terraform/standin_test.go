package terraform

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/event"
)

// TestMain turns the test binary into a stand-in for terraform where the
// environment asks for it: for what the real one cannot be made to do.
func TestMain(m *testing.M) {
	if how := os.Getenv("STANDIN"); how != "" {
		os.Exit(standIn(how, os.Getenv("STANDIN_LOG"), os.Args[1:]))
	}
	os.Exit(m.Run())
}

const (
	jsonVersion = `{"@level":"info","@message":"Terraform 1.11.4","type":"version"}`
	jsonSummary = `{"@level":"info","@message":"Plan: 1 to add, 0 to change, 0 to destroy.","changes":{"add":1,"change":0,"remove":0},"type":"change_summary"}`
	jsonCreate  = `{"@message":"terraform_data.a: Plan to create","change":{"resource":{"addr":"terraform_data.a"},"action":"create"},"type":"planned_change"}`
)

// standIn logs its start, each signal and its end, and behaves as how says.
func standIn(how, log string, args []string) int {
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	note := func(s string) { fmt.Fprintln(f, s) }
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	note("start " + strings.Join(args, " "))
	if args[0] == "version" {
		if how == "slow version" {
			time.Sleep(100 * time.Millisecond) // so that others come in the meantime
		}
		fmt.Println(`{"terraform_version":"1.11.4"}`)
		return 0
	}
	// await logs n signals and gives up after a minute, so that nothing is left behind
	await := func(n int) {
		deadline := time.After(time.Minute)
		for range n {
			select {
			case s := <-signals:
				note("signal " + s.String())
			case <-deadline:
				note("nobody came")
				return
			}
		}
	}
	code := 0
	switch how {
	case "ends well after an interrupt":
		fmt.Println(jsonVersion)
		await(1)
		fmt.Println(jsonCreate)
		fmt.Println(jsonSummary)
		if args[0] == "plan" {
			code = 2
		}
	case "fails after an interrupt":
		fmt.Println(jsonVersion)
		await(1)
		fmt.Println(`{"diagnostic":{"severity":"error","summary":"execution halted"},"type":"diagnostic"}`)
		code = 1
	case "ignores the first interrupt":
		fmt.Println(jsonVersion)
		await(2)
		code = 1
	case "is slow to end":
		fmt.Println(jsonVersion)
		await(1)
		select {
		case s := <-signals:
			note("signal " + s.String())
		case <-time.After(400 * time.Millisecond):
		}
	case "ignores interrupts":
		note("ready")
		await(8)
	case "crashes with 2":
		fmt.Println(jsonVersion)
		fmt.Fprintln(os.Stderr, "fatal error: all goroutines are asleep")
		code = 2
	case "is killed":
		fmt.Println(jsonVersion)
		note("end")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "prints a lot":
		w := bufio.NewWriter(os.Stdout)
		for range 5_000 {
			fmt.Fprintf(w, "{\"@message\":%q,\"type\":\"refresh_start\"}\n", strings.Repeat("x", 9000))
			fmt.Fprintf(os.Stderr, "%s\n", strings.Repeat("e", 800))
		}
		for i := range 101_000 {
			fmt.Fprintf(w, `{"change":{"resource":{"addr":"terraform_data.a[%d]"},"action":"create"},"type":"planned_change"}`+"\n", i)
		}
		fmt.Fprintln(w, strings.Replace(jsonSummary, `"add":1`, `"add":101000`, 1))
		w.Flush()
		code = 2
	case "prints no newline":
		os.Stdout.Write(bytes.Repeat([]byte("x"), 50<<20))
		fmt.Print("\n" + jsonSummary)
		code = 2
	case "fails a lot":
		w := bufio.NewWriter(os.Stdout)
		for i := range 5000 {
			fmt.Fprintf(w, `{"diagnostic":{"severity":"error","summary":"no %d"},"type":"diagnostic"}`+"\n", i)
		}
		fmt.Fprintln(w, `{"diagnostic":{"severity":"error","summary":"Error releasing the state lock"},"type":"diagnostic"}`)
		fmt.Fprintln(w, `{"diagnostic":{"severity":"error","summary":"Failed to persist state to backend"},"type":"diagnostic"}`)
		w.Flush()
		code = 1
	case "is hostile":
		fmt.Println("\x1b[2J::set-output name=a::b")
		fmt.Println("Warning: no such file")
		fmt.Println(`{"type":"planned_change","change":null}`)
		fmt.Println(`{"type":7}`)
		fmt.Println(`null`)
		fmt.Println(`{"type":"change_summary","changes":{"add":"many"}}`)
		fmt.Println(`{"@message":"\u001b]0;x\u0007\u202e","type":"refresh_start"}`)
		fmt.Println(`{"change":{"resource":{"addr":"a.\u001b[31m\nb"},"action":"cre\u001bate"},"type":"planned_change"}`)
		fmt.Println(`{"diagnostic":{"severity":"warning\u001b","summary":"s\u001b\n","detail":"d\u0007","range":{"filename":"\u001b.tf","start":{"line":-4}},"snippet":{"code":"\u001b"}},"type":"diagnostic"}`)
		code = 1
	case "holds the output":
		// a process that outlives terraform keeps its output open
		c := exec.Command("sleep", "60")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			panic(err)
		}
		note(fmt.Sprint("child ", c.Process.Pid))
		fmt.Println(jsonVersion)
		fmt.Println(jsonSummary)
		if args[0] == "plan" {
			code = 2
		}
	case "finds no time at first":
		if b, _ := os.ReadFile(log); bytes.Count(b, []byte("start ")) == 1 {
			fmt.Println("half of")
			await(8)
		}
		fmt.Println("a plan")
	case "tells its policy":
		// it is told after its start, thread by thread
		for i := 0; i < 300 && policies()["0"] && args[0] != "apply"; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		for policy := range policies() {
			note("policy " + policy)
		}
		fmt.Println(jsonSummary)
	default:
		panic(how)
	}
	note("end")
	return code
}

// policies are the scheduling policies of this process's threads, the 41st field
// of /proc/PID/stat.
func policies() map[string]bool {
	all := map[string]bool{}
	stats, _ := filepath.Glob("/proc/self/task/*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		all[strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[38]] = true
	}
	return all
}

// stand gives a Terraform that runs the stand-in, and its log. The test runs
// beside others.
func stand(t *testing.T, how string, o Options) (*Terraform, *recorder, func() []string) {
	t.Helper()
	t.Parallel()
	return standBeside(t, how, o)
}

// standBeside is stand for a second one in a test.
func standBeside(t *testing.T, how string, o Options) (*Terraform, *recorder, func() []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	bin := filepath.Join(dir, "terraform")
	script := fmt.Sprintf("#!/bin/sh\nGORACE=atexit_sleep_ms=0 STANDIN='%s' STANDIN_LOG='%s' exec '%s' \"$@\"\n", how, log, self)
	if err := os.WriteFile(bin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if o.Dir == "" {
		o.Dir = dir
	}
	rec := newRecorder()
	read := func() []string {
		b, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	return New(Binary{Path: bin, Product: productTerraform}, o, rec), rec, read
}

// count is the number of lines that begin with prefix.
func count(lines []string, prefix string) int {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// recorder keeps events and tells whoever waits for one.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
	hooks  []func(event.Event)
}

func newRecorder() *recorder { return &recorder{} }

func (r *recorder) Emit(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	for _, h := range r.hooks {
		h(e)
	}
}

// on calls fn once, at the first event that contains text.
func (r *recorder) on(text string, fn func()) {
	var once sync.Once
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, func(e event.Event) {
		if b, _ := json.Marshal(e); strings.Contains(string(b), text) {
			once.Do(fn)
		}
	})
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event.Event{}, r.events...)
}

// typed gives the events of one type.
func typed[E event.Event](r *recorder) []E {
	var out []E
	for _, e := range r.all() {
		if x, ok := e.(E); ok {
			out = append(out, x)
		}
	}
	return out
}

// eventually waits for a condition outside of this process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
