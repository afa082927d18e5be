package main

import (
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tfguard/tfguard/internal/sandbox"
	"github.com/tfguard/tfguard/internal/testkit"
)

var update = flag.Bool("update", false, "write the expected files of the scripts anew")

// TestMain makes the test binary the programs that scripts run: tfguard itself,
// and cloud for hooks.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tfguard": main,
		"cloud":   func() { os.Exit(runCloud()) },
	})
}

// TestScripts runs the scripts of testdata/script in each lock mode, and those
// of testdata/script/once in one: the real tfguard with the real terraform,
// against the sandbox or what TFGUARD_E2E_ENDPOINT names.
//
// A script starts in the directory of a configuration: main.tf with one
// terraform_data and the variable greeting, backend.tf for the mode, unless it
// brings files of these names. Bucket and table are its own, in $BUCKET and
// $TABLE, and do not exist yet; the state is $STATE, which is $BUCKET/$KEY.
// Requests of tfguard and terraform pass faults of the script's own.
// $TERRAFORM is the terraform that tfguard does not notice; what tfguard itself
// starts is counted by `ran`.
//
// Beside testscript's own commands and the conditions [dynamodb], [lockfile],
// [both], [table] (not lockfile) and [object] (not dynamodb) there are:
//
//	code N PROGRAM ARG...     run it: it must end with the exit code N
//	jsonl                     stdout is what the contract says of --json
//	[!] event TYPE PATH=V...  an event of stdout has these values; * is any but an empty one
//	[!] json PATH=V...        the document on stdout has these values
//	capture VAR PATH          put a value of that document into a variable
//	capture -event T VAR PATH put a value of the first event T into a variable
//	outputs FILE              print a GITHUB_OUTPUT or GITHUB_ENV as NAME=VALUE lines
//	ran COMMAND N             the last code started `terraform COMMAND` N times
//	requests N                so many requests came since the start or `reset`
//	fault [-after N] [-times N] [-done] WHAT PATH STATUS CODE
//	                          answer such requests with this error of AWS; -done:
//	                          carry them out, and break the connection instead
//	on [-after N] [-done] WHAT PATH OP ARG...
//	                          do one of the things below, once, before such a
//	                          request is carried out, or -done: after it
//	ignore METHOD HEADER      such requests lose this header, which is a condition
//	reset                     no more faults; each must have had its effect
//	mode FILE OCTAL           the file has these permissions
//
// WHAT is an S3 method or dynamodb:Operation, PATH a part of the request's path
// and query, of a DynamoDB request's body, "copy" for its source, or *. At the
// end of the script each fault must have had its effect.
//
// These work on the cloud itself, past the faults. A hook calls them as the
// program cloud:
//
//	backend [-only bucket|table] [-unversioned]
//	                                     make bucket, versioning, table
//	putlock [-age D] [-id ID] [-store dynamodb|s3] [-raw JSON]
//	                                     lock the state as terraform would; ID is $LOCK
//	rmlock                               take the lock away
//	locked [-store dynamodb|s3] ID       this lock is in each store of the mode, or in this one
//	unlocked                             no store has a lock
//	aged D [KEY]                         wait until the lock object, or this one, has this age
//	serial N|none                        the state has this serial, and its digest fits
//	bump                                 write the state as another run would: serial + 1
//	objects PREFIX N                     so many objects are below the prefix
//	versions PREFIX N                    so many versions and delete markers are
//	object PREFIX                        print the last of them
//	spoil PREFIX                         write the last of them anew: hello becomes jello
//	putholder [-run ID] [-lock ID] [-stage S] [-ci URL] [-flying ADDRESS]... [-gone] KEY
//	                                     write the holder record of a state, -gone: its
//	                                     process ran on this host and has ended
//	putobject KEY TEXT, rmobject KEY     write, remove an object
//	oldversion KEY SERIAL                write an older version of a state over the newest
//	putitem ID NAME TEXT                 write an item of the lock table
//	suspendversioning                    of the bucket
func TestScripts(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	wrapper := "#!/bin/sh\necho \"$*\" >>\"$RAN\"\nexec \"$TERRAFORM\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "terraform"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	service := testkit.Start(t)
	for _, run := range []struct{ name, dir, mode string }{
		{"dynamodb", "testdata/script", testkit.DynamoDB},
		{"lockfile", "testdata/script", testkit.Lockfile},
		{"both", "testdata/script", testkit.Both},
		{"once", "testdata/script/once", testkit.Both},
	} {
		t.Run(run.name, func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Dir: run.dir, RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
				Setup:     func(env *testscript.Env) error { return setup(env, service, run.mode, bin, terraform) },
				Cmds:      commands(),
				Condition: func(name string) (bool, error) { return condition(run.mode, name) },
			})
		})
	}
}

func condition(mode, name string) (bool, error) {
	switch name {
	case testkit.DynamoDB, testkit.Lockfile, testkit.Both:
		return mode == name, nil
	case "table":
		return mode != testkit.Lockfile, nil
	case "object":
		return mode != testkit.DynamoDB, nil
	}
	return false, fmt.Errorf("no condition %q", name)
}

// script is what the harness knows of one script while it runs.
type script struct {
	t      testing.TB
	cloud  cloud
	proxy  *testkit.Faulty
	code   int // of the last `code`
	faults []scriptFault

	mu   sync.Mutex
	errs []error // of what `on` did
}

type scriptFault struct {
	*testkit.Fault
	line string
}

// scriptKey finds the script among testscript's values.
type scriptKey struct{}

func setup(env *testscript.Env, service *testkit.Cloud, mode, bin, terraform string) error {
	t := env.T().(testing.TB)
	settings, addr := service.Names(t, mode)
	s := &script{t: t, proxy: testkit.NewFaulty(t, service.URL),
		cloud: cloud{clients: service.Clients, mode: mode, bucket: addr.Bucket, table: addr.Table, key: addr.Key}}
	env.Values[scriptKey{}] = s
	env.Defer(func() {
		if _, err := os.Stat(filepath.Join(env.WorkDir, ".tfguard", "sandbox")); err == nil {
			_ = exec.Command("tfguard", "sandbox", "down", "-C", env.WorkDir).Run() // a script that failed left it
		}
		if !t.Failed() {
			s.reset(t.Errorf)
		}
		s.crashes(env.WorkDir)
	})
	backend := fmt.Sprintf("    bucket         = %q\n    key            = %q\n    region         = %q\n    use_path_style = true\n", settings.Bucket, settings.Key, settings.Region)
	if settings.DynamoDBTable != "" {
		backend += fmt.Sprintf("    dynamodb_table = %q\n", settings.DynamoDBTable)
	}
	if settings.UseLockfile {
		backend += "    use_lockfile   = true\n"
	}
	for name, content := range map[string]string{
		"backend.tf": "terraform {\n  backend \"s3\" {\n" + backend + "  }\n}\n",
		"main.tf":    mainConfig,
	} {
		path := filepath.Join(env.WorkDir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	for _, v := range [][2]string{
		{"MODE", mode}, {"BUCKET", addr.Bucket}, {"TABLE", addr.Table}, {"KEY", addr.Key}, {"STATE", addr.String()}, {"LOCK", lockID},
		{"CLOUD_URL", service.URL}, {"ENDPOINT", s.proxy.URL}, {"TERRAFORM", terraform}, {"RAN", filepath.Join(env.WorkDir, ".tmp", "ran")},
		{"PATH", bin + string(filepath.ListSeparator) + env.Getenv("PATH")},
		{"HOME", filepath.Join(env.WorkDir, ".tmp", "home")}, {"CHECKPOINT_DISABLE", "1"},
		{"AWS_ENDPOINT_URL", s.proxy.URL}, {"AWS_ENDPOINT_URL_S3", s.proxy.URL}, {"AWS_ENDPOINT_URL_DYNAMODB", s.proxy.URL},
		{"AWS_ENDPOINT_URL_STS", s.proxy.URL}, {"AWS_ENDPOINT_URL_IAM", s.proxy.URL},
		{"AWS_ACCESS_KEY_ID", sandbox.AccessKey}, {"AWS_SECRET_ACCESS_KEY", sandbox.SecretKey}, {"AWS_REGION", sandbox.Region},
		{"AWS_EC2_METADATA_DISABLED", "true"},
		// Without the first the race detector adds a second to each run.
		{"GORACE", "atexit_sleep_ms=0 log_path=" + filepath.Join(env.WorkDir, ".tmp", "race")},
	} {
		env.Setenv(v[0], v[1])
	}
	return nil
}

// crashes fails the script for a data race, or a panic of a process whose
// stderr nobody sees, such as the engine of a run.
func (s *script) crashes(dir string) {
	for _, pattern := range []string{".tmp/race.*", ".tfguard/runs/*/*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern)) // the patterns are good
		for _, name := range names {
			text, _ := os.ReadFile(name) // what is no file has no text
			if bytes.Contains(text, []byte("DATA RACE")) || bytes.Contains(text, []byte(" [running]:")) {
				s.t.Errorf("%s:\n%s", name, text)
			}
		}
	}
}

const mainConfig = `variable "greeting" {
  type    = string
  default = "hello"
}

resource "terraform_data" "hello" {
  input = var.greeting
}

output "greeting" {
  value = terraform_data.hello.output
}
`

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	type command = func(*script, *testscript.TestScript, []string)
	all := map[string]func(*testscript.TestScript, bool, []string){"event": cmdEvent, "json": cmdJSON}
	for name, run := range map[string]command{
		"code": (*script).cmdCode, "jsonl": (*script).cmdJSONLines, "capture": (*script).cmdCapture,
		"outputs": (*script).cmdOutputs, "ran": (*script).cmdRan, "requests": (*script).cmdRequests, "fault": (*script).cmdFault,
		"on": (*script).cmdOn, "reset": (*script).cmdReset, "mode": (*script).cmdMode, "ignore": (*script).cmdIgnore,
	} {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("! %s has no meaning", name)
			}
			run(ts.Value(scriptKey{}).(*script), ts, args)
		}
	}
	for name, op := range ops() {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("! %s has no meaning", name)
			}
			s := ts.Value(scriptKey{}).(*script)
			ctx, stop := context.WithTimeout(s.t.Context(), opLimit)
			defer stop()
			ts.Check(op(ctx, s.now(ts), outputOf{ts}, args))
		}
	}
	return all
}

// opLimit bounds what is done to the cloud.
const opLimit = time.Minute

// outputOf is the stdout of a command; one that writes nothing leaves that of
// the last program in place.
type outputOf struct{ ts *testscript.TestScript }

func (o outputOf) Write(p []byte) (int, error) { return o.ts.Stdout().Write(p) }

// now is the cloud with the key that the script has set.
func (s *script) now(ts *testscript.TestScript) cloud {
	c := s.cloud
	c.key = ts.Getenv("KEY")
	return c
}

func (s *script) cmdCode(ts *testscript.TestScript, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: code N program [arg...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if err := os.Remove(ts.Getenv("RAN")); err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Check(err)
	}
	s.code = 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		s.code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if s.code != want {
		ts.Fatalf("exit code %d, want %d", s.code, want)
	}
}

func (s *script) cmdRan(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: ran command N")
	}
	log, err := os.ReadFile(ts.Getenv("RAN"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Check(err)
	}
	n := 0
	for line := range strings.Lines(string(log)) {
		if strings.HasPrefix(line, args[0]+" ") {
			n++
		}
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("terraform %s ran %d times, want %s:\n%s", args[0], n, args[1], log)
	}
}

func (s *script) cmdRequests(ts *testscript.TestScript, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: requests N")
	}
	if found := s.proxy.Requests(); strconv.Itoa(len(found)) != args[0] {
		ts.Fatalf("%d requests, want %s:\n%s", len(found), args[0], strings.Join(found, "\n"))
	}
}

// matcher recognises requests as the scripts name them.
func matcher(what, path string) func(*http.Request) bool {
	operation, dynamo := strings.CutPrefix(what, "dynamodb:")
	return func(r *http.Request) bool {
		target := r.Header.Get("X-Amz-Target")
		if dynamo != (target != "") || dynamo && !strings.HasSuffix(target, "."+operation) || !dynamo && r.Method != what {
			return false
		}
		switch {
		case path == "*":
			return true
		case path == "copy":
			return r.Header.Get("X-Amz-Copy-Source") != ""
		case !dynamo:
			return strings.Contains(r.URL.RequestURI(), path)
		}
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		return err == nil && strings.Contains(string(body), path)
	}
}

func (s *script) add(args []string, f testkit.Fault) {
	s.faults = append(s.faults, scriptFault{s.proxy.Add(f), strings.Join(args, " ")})
}

func (s *script) cmdFault(ts *testscript.TestScript, args []string) {
	var f testkit.Fault
	rest, err := flags("fault", args, 4, func(set *flag.FlagSet) {
		set.IntVar(&f.After, "after", 0, "")
		set.IntVar(&f.Times, "times", 0, "")
		set.BoolVar(&f.Drop, "done", false, "")
	})
	ts.Check(err)
	status, err := strconv.Atoi(rest[2])
	ts.Check(err)
	f.Match = matcher(rest[0], rest[1])
	f.Answer = testkit.S3Error(status, rest[3], "made up by a test")
	switch {
	case f.Drop:
		f.Answer = nil
	case strings.HasPrefix(rest[0], "dynamodb:"):
		f.Answer = testkit.DynamoDBError(status, rest[3], "made up by a test")
	}
	s.add(args, f)
}

func (s *script) cmdOn(ts *testscript.TestScript, args []string) {
	set := flag.NewFlagSet("on", flag.ContinueOnError)
	f := testkit.Fault{Times: 1}
	done := set.Bool("done", false, "")
	set.IntVar(&f.After, "after", 0, "")
	ts.Check(set.Parse(args))
	rest := set.Args()
	if len(rest) < 3 || ops()[rest[2]] == nil {
		ts.Fatalf("usage: on [-after N] [-done] what path op [arg...]")
	}
	c := s.now(ts)
	do := func(*http.Request) {
		ctx, stop := context.WithTimeout(s.t.Context(), opLimit)
		defer stop()
		if err := ops()[rest[2]](ctx, c, io.Discard, rest[3:]); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.errs = append(s.errs, fmt.Errorf("on %s: %w", strings.Join(args, " "), err))
		}
	}
	f.Match = matcher(rest[0], rest[1])
	if *done {
		f.Done = do
	} else {
		f.Before = do
	}
	s.add(args, f)
}

// cmdIgnore makes the store one that takes a condition and ignores it.
func (s *script) cmdIgnore(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: ignore method header")
	}
	s.add(args, testkit.Fault{Match: func(r *http.Request) bool { return r.Method == args[0] && r.Header.Get(args[1]) != "" },
		Before: func(r *http.Request) { r.Header.Del(args[1]) }})
}

func (s *script) cmdReset(ts *testscript.TestScript, args []string) { s.reset(ts.Fatalf) }

// reset ends the faults and complains where one had no effect, or failed.
func (s *script) reset(complain func(string, ...any)) {
	s.mu.Lock()
	errs := slices.Clone(s.errs)
	s.mu.Unlock()
	for _, f := range s.faults {
		if s.proxy.Hits(f.Fault) == 0 {
			errs = append(errs, fmt.Errorf("no request met the fault: %s", f.line))
		}
	}
	s.faults = nil
	s.proxy.Reset()
	if len(errs) > 0 {
		complain("%v", errors.Join(errs...))
	}
}

func (s *script) cmdMode(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mode file octal")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if have := fmt.Sprintf("%04o", info.Mode().Perm()); have != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], have, args[1])
	}
}

// object is a JSON object, with its numbers as they were written.
type object = map[string]any

func decode(text string) (object, error) {
	var o object
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("%w in %.300q", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the document %.300q", text)
	}
	return o, nil
}

// at is the value at a path such as locks.0.id, as text; arrays and objects as
// JSON.
func at(v any, path string) (string, bool) {
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case object:
			var there bool
			if v, there = in[name]; !there {
				return "", false
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return "", false
			}
			v = in[i]
		default:
			return "", false
		}
	}
	switch v.(type) {
	case string, json.Number, bool:
		return fmt.Sprint(v), true
	}
	b, err := json.Marshal(v)
	return string(b), err == nil
}

// mismatch names the first PATH=VALUE that o does not have.
func mismatch(o object, wanted []string) string {
	for _, w := range wanted {
		path, want, _ := strings.Cut(w, "=")
		have, ok := at(o, path)
		if empty := have == "" || have == "null"; !ok || want == "*" && empty || want != "*" && have != want {
			return fmt.Sprintf("%s is %q, want %q", path, have, want)
		}
	}
	return ""
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	doc, err := decode(ts.ReadFile("stdout"))
	ts.Check(err)
	switch m := mismatch(doc, args); {
	case m != "" && !neg:
		ts.Fatalf("%s", m)
	case m == "" && neg:
		ts.Fatalf("it has these values")
	}
}

func (s *script) cmdCapture(ts *testscript.TestScript, args []string) {
	set := flag.NewFlagSet("capture", flag.ContinueOnError)
	kind := set.String("event", "", "")
	ts.Check(set.Parse(args))
	if set.NArg() != 2 {
		ts.Fatalf("usage: capture [-event type] variable path")
	}
	var doc object
	if *kind == "" {
		var err error
		doc, err = decode(ts.ReadFile("stdout"))
		ts.Check(err)
	} else {
		for _, e := range events(ts) {
			if e["type"] == *kind {
				doc = e
				break
			}
		}
	}
	value, ok := at(doc, set.Arg(1))
	if !ok {
		ts.Fatalf("there is no %s", set.Arg(1))
	}
	ts.Setenv(set.Arg(0), value)
}

// events are the lines of stdout.
func events(ts *testscript.TestScript) []object {
	text := ts.ReadFile("stdout")
	if !strings.HasSuffix(text, "\n") {
		ts.Fatalf("the last line has no end: %.300q", text)
	}
	var all []object
	for line := range strings.Lines(text) {
		e, err := decode(line)
		ts.Check(err)
		all = append(all, e)
	}
	return all
}

func cmdEvent(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] event type [path=value...]")
	}
	var near []string
	for _, e := range events(ts) {
		if e["type"] != args[0] {
			continue
		}
		m := mismatch(e, args[1:])
		if m == "" && neg {
			ts.Fatalf("there is such an event: %v", e)
		}
		if m == "" {
			return
		}
		near = append(near, m)
	}
	if !neg {
		ts.Fatalf("no such event; of this type there are:\n%s", strings.Join(near, "\n"))
	}
}

// cmdJSONLines holds stdout against the contract's section 8.
func (s *script) cmdJSONLines(ts *testscript.TestScript, args []string) {
	if len(args) != 0 {
		ts.Fatalf("usage: jsonl")
	}
	var (
		all     = events(ts)
		run     = all[0]["run"]
		started = map[string]bool{}
		ended   = map[string]bool{}
	)
	for i, e := range all {
		kind, _ := e["type"].(string)
		when, _ := e["time"].(string)
		if _, err := time.Parse(time.RFC3339, when); err != nil || run == "" || e["run"] != run {
			ts.Fatalf("line %d: time %q and run %v, the first has %v", i+1, when, e["run"], run)
		}
		if (kind == "run_started") != (i == 0) || (kind == "run_finished") != (i == len(all)-1) {
			ts.Fatalf("line %d of %d is %s", i+1, len(all), kind)
		}
		want, known := eventFields()[kind]
		if !known {
			ts.Fatalf("line %d has the type %q, which the contract does not know", i+1, kind)
		}
		for _, name := range want {
			if v, there := e[name]; !there || v == nil {
				ts.Fatalf("line %d: %s without %s", i+1, kind, name)
			}
		}
		stage, _ := e["stage"].(string)
		switch kind {
		case "stage_started":
			for _, before := range map[string][]string{"plan": {"lock-check"}, "apply": {"recheck", "snapshot"}}[stage] {
				if !ended[before] {
					ts.Fatalf("line %d: %s starts, and %s has not finished", i+1, stage, before)
				}
			}
			if !isStage(stage) || started[stage] {
				ts.Fatalf("line %d: %q starts", i+1, stage)
			}
			started[stage] = true
		case "stage_finished":
			status, _ := e["status"].(string)
			if !slices.Contains([]string{"ok", "failed", "skipped", "cancelled"}, status) {
				ts.Fatalf("line %d: status %q", i+1, status)
			}
			if !isStage(stage) || ended[stage] || !started[stage] && status != "skipped" {
				ts.Fatalf("line %d: %q finishes", i+1, stage)
			}
			ended[stage] = true
		}
	}
	for stage := range started {
		if !ended[stage] {
			ts.Fatalf("%s has not finished", stage)
		}
	}
	status := map[int][]string{0: {"ok", "no_changes"}, 2: {"ok"}, 10: {"blocked"}, 11: {"blocked"}, 12: {"blocked"}, 14: {"blocked"}, 130: {"cancelled"}, 131: {"cancelled"}}[s.code]
	if status == nil {
		status = []string{"failed"}
	}
	last := all[len(all)-1]
	if have, _ := last["status"].(string); fmt.Sprint(last["exit_code"]) != strconv.Itoa(s.code) || !slices.Contains(status, have) {
		ts.Fatalf("it ends with status %v, exit code %v; the exit code was %d", last["status"], last["exit_code"], s.code)
	}
}

// eventFields are the contract's types, with what each event must have.
func eventFields() map[string][]string {
	return map[string][]string{
		"run_started": nil, "stage_started": {"stage"}, "stage_finished": {"stage", "status", "seconds"},
		"lock":     {"version", "state", "status", "locks"},
		"plan":     {"add", "change", "destroy", "replace", "addresses"},
		"resource": {"address", "action", "phase", "seconds"},
		"snapshot": {"id", "key", "serial", "lineage", "sha256"}, "diagnostic": {"severity", "summary"},
		"approval_needed": nil, "run_finished": {"status", "exit_code", "seconds"},
	}
}

func isStage(name string) bool {
	return strings.HasPrefix(name, "hook:") || slices.Contains([]string{"check", "backend", "lock-check", "plan", "recheck", "snapshot", "apply"}, name)
}

func (s *script) cmdOutputs(ts *testscript.TestScript, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: outputs file")
	}
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile(args[0]), "\n"), "\n")
	for len(lines) > 0 && lines[0] != "" {
		name, delimiter, ok := strings.Cut(lines[0], "<<")
		end := slices.Index(lines[1:], delimiter)
		if !ok || end < 0 {
			ts.Fatalf("%q is no variable as GitHub reads it", lines[0])
		}
		fmt.Fprintf(ts.Stdout(), "%s=%s\n", name, strings.Join(lines[1:end+1], "\n"))
		lines = lines[end+2:]
	}
}
