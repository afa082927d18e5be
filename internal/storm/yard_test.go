//go:build linux

package storm

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/sandbox"
	"github.com/tfguard/tfguard/internal/testkit"
)

// How the provider takes terraform's request to stop (testdata/provider).
const (
	ignore   = "ignore"
	honour   = "honour"
	slowStop = "slow-stop"
)

// yard is the place of one case: a configuration of four things, its state in a
// bucket of its own, and the file that says which things really exist.
type yard struct {
	*testing.T
	w       *world
	bin     string
	dir     string
	file    string // of the things that exist
	marker  string // the environment variable that all of the case's processes carry
	proxy   *testkit.Faulty
	addr    backend.Address
	lock    string // mode of locking
	plan    layout
	started time.Time
}

// layout is what the configuration says.
type layout struct {
	mode    string  // of the provider
	seconds float64 // of the two things in the middle
	value   string
	none    bool // no thing at all
}

// names are the things, in the order of their creation: one before the two in
// the middle, which go side by side, and one after them.
func names() []string { return []string{"first", "second", "beside", "last"} }

func newYard(t *testing.T, w *world, lock string, l layout) *yard {
	t.Helper()
	y := &yard{T: t, w: w, bin: w.watched, dir: t.TempDir(), lock: lock, plan: l, marker: "STORM=" + rand.Text(), started: time.Now()}
	y.file = filepath.Join(y.dir, "things")
	y.proxy = testkit.NewFaulty(t, w.cloud.URL)
	_, y.addr = w.cloud.State(t, lock)
	y.write("backend.tf", y.backend())
	y.configure(l)
	y.seed(1, nil)
	// Whatever a case leaves, it leaves nothing behind on this machine.
	t.Cleanup(func() {
		if t.Failed() {
			y.tell()
		}
		if !until(10*time.Second, func() bool {
			for _, p := range carrying(y.marker) {
				p.kill(syscall.SIGKILL)
			}
			return len(carrying(y.marker)) == 0
		}) {
			t.Error("processes cannot be killed")
		}
	})
	return y
}

// tell logs what helps to understand a case that failed.
func (y *yard) tell() {
	for _, pattern := range []string{"things", ".tfguard/runs/*/result.json", ".tfguard/runs/*/engine.log", ".tfguard/runs/*/events.ndjson"} {
		files, _ := filepath.Glob(filepath.Join(y.dir, pattern))
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && len(text) > 0 {
				y.Logf("%s:\n%s", f, text[max(0, len(text)-6000):])
			}
		}
	}
}

func (y *yard) write(name, text string) {
	y.Helper()
	if err := os.WriteFile(filepath.Join(y.dir, name), []byte(text), 0o600); err != nil {
		y.Fatal(err)
	}
}

func (y *yard) backend() string {
	attrs := [][2]string{{"bucket", y.addr.Bucket}, {"key", y.addr.Key}, {"region", sandbox.Region}}
	text := "terraform {\n  backend \"s3\" {\n"
	for _, a := range attrs {
		text += fmt.Sprintf("    %-27s = %q\n", a[0], a[1])
	}
	if y.lock != testkit.Lockfile {
		text += fmt.Sprintf("    %-27s = %q\n", "dynamodb_table", y.addr.Table)
	}
	flags := []string{"use_path_style", "skip_credentials_validation", "skip_metadata_api_check", "skip_requesting_account_id"}
	if y.lock != testkit.DynamoDB {
		flags = append(flags, "use_lockfile")
	}
	for _, f := range flags {
		text += fmt.Sprintf("    %-27s = true\n", f)
	}
	text += fmt.Sprintf("    %-27s = %q\n    %-27s = %q\n", "access_key", sandbox.AccessKey, "secret_key", sandbox.SecretKey)
	return text + fmt.Sprintf("    endpoints = {\n      s3       = %[1]q\n      dynamodb = %[1]q\n    }\n  }\n}\n", y.proxy.URL)
}

// configure writes the configuration of the things.
func (y *yard) configure(l layout) {
	y.plan = l
	text := fmt.Sprintf("terraform {\n  required_providers {\n    storm = {\n      source = %q\n    }\n  }\n}\n", testkit.ProviderSource)
	for i, name := range names() {
		if l.none {
			break
		}
		seconds, needs := 0.2, ""
		switch i {
		case 1:
			seconds, needs = l.seconds, "first"
		case 2:
			seconds, needs = l.seconds*0.9, "first"
		case 3:
			needs = "second"
		}
		text += fmt.Sprintf("\nresource \"storm_thing\" %q {\n  name    = %[1]q\n  seconds = %g\n  mode    = %q\n  file    = %q\n", name, seconds, l.mode, y.file)
		if l.value != "" {
			text += fmt.Sprintf("  value   = %q\n", l.value)
		}
		if needs != "" {
			text += fmt.Sprintf("\n  depends_on = [storm_thing.%s]\n", needs)
		}
		text += "}\n"
	}
	y.write("main.tf", text)
}

// seed writes the state, and its digest, with things that exist.
func (y *yard) seed(serial int, things []string) {
	y.Helper()
	resources := []any{}
	for i, name := range things {
		seconds := 0.2
		if i == 1 || i == 2 {
			seconds = y.plan.seconds
		}
		id := name + "-" + rand.Text()
		y.happened("create " + name + " " + id)
		resources = append(resources, map[string]any{
			"mode": "managed", "type": "storm_thing", "name": name, "provider": `provider["` + testkit.ProviderSource + `"]`,
			"instances": []any{map[string]any{"schema_version": 0, "attributes": map[string]any{
				"id": id, "name": name, "seconds": seconds, "mode": y.plan.mode, "file": y.file, "value": nil}}},
		})
	}
	state := mustJSON(y, map[string]any{"version": 4, "terraform_version": "1.11.4", "serial": serial,
		"lineage": "6a4a1dff-9bd1-d0c5-b6a4-6f4d8c0a3e5b", "outputs": map[string]any{}, "resources": resources, "check_results": nil})
	ctx := context.Background()
	_, err := y.w.cloud.Clients.S3.PutObject(ctx, &s3.PutObjectInput{Bucket: &y.addr.Bucket, Key: &y.addr.Key, Body: strings.NewReader(string(state))})
	if err != nil {
		y.Fatal(err)
	}
	if y.addr.Table == "" {
		return
	}
	sum := md5.Sum(state)
	_, err = y.w.cloud.Clients.DynamoDB.PutItem(ctx, &dynamodb.PutItemInput{TableName: &y.addr.Table, Item: map[string]dynamotypes.AttributeValue{
		"LockID": &dynamotypes.AttributeValueMemberS{Value: y.addr.DigestID()}, "Digest": &dynamotypes.AttributeValueMemberS{Value: hex.EncodeToString(sum[:])}}})
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) happened(line string) {
	y.Helper()
	f, err := os.OpenFile(y.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		y.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		y.Fatal(err)
	}
}

// env is what all processes of the case start with: nothing of this machine's
// that terraform, tfguard or a CI job would listen to, and the marker.
func (y *yard) env(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc([]string{"TF_", "TFGUARD_", "GITHUB_", "RUNNER_", "STORM"}, func(p string) bool { return strings.HasPrefix(v, p) })
	})
	return append(append(env, y.marker, "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE="+y.w.rc, "GORACE=atexit_sleep_ms=0 exitcode=66",
		"PATH="+filepath.Dir(y.bin)+string(filepath.ListSeparator)+os.Getenv("PATH")), more...)
}

// command is a program in the case's directory.
func (y *yard) command(name string, args ...string) *exec.Cmd {
	if name == "tfguard" {
		name = y.bin
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = y.dir, y.env()
	return cmd
}

// tfguard starts the program.
func (y *yard) tfguard(args ...string) *proc { return start(y.T, y.command("tfguard", args...)) }

// lines are what the provider has written down so far.
func (y *yard) lines() []string {
	text, err := os.ReadFile(y.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		y.Fatal(err)
	}
	return rows(string(text))
}

// await waits for a line of the provider's.
func (y *yard) await(line string) {
	y.Helper()
	if !until(30*time.Second, func() bool { return slices.Contains(y.lines(), line) }) {
		y.Fatalf("the provider did not come to %q", line)
	}
}

// awaitEvent waits for an event of the last run.
func (y *yard) awaitEvent(what string, ok func(event.Event) bool) {
	y.Helper()
	if !until(30*time.Second, func() bool { return slices.ContainsFunc(y.events(), ok) }) {
		y.Fatalf("the run did not come to %s", what)
	}
}

// events are those of the last run, in its journal.
func (y *yard) events() []event.Event {
	files, _ := filepath.Glob(filepath.Join(y.dir, ".tfguard", "runs", "*", "events.ndjson")) // sorted
	if len(files) == 0 {
		return nil
	}
	text, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		return nil
	}
	var all []event.Event
	for _, l := range rows(string(text)) {
		if _, e, err := event.Decode([]byte(l)); err == nil && e != nil {
			all = append(all, e)
		}
	}
	return all
}

// result is what the last run came to; ok is false where it has left nothing.
func (y *yard) result() (end event.RunFinished, ok bool) {
	files, _ := filepath.Glob(filepath.Join(y.dir, ".tfguard", "runs", "*", "result.json"))
	if len(files) == 0 {
		return end, false
	}
	text, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		y.Fatal(err)
	}
	_, e, err := event.Decode(text)
	if err != nil {
		y.Fatalf("result.json: %v", err)
	}
	end, ok = e.(event.RunFinished)
	return end, ok
}

// thing is one that exists or that a state has.
type thing struct {
	name    string
	updated bool
}

// outside are the things that exist, by ID.
func (y *yard) outside() map[string]thing {
	all := map[string]thing{}
	for _, l := range y.lines() {
		f := strings.Fields(l)
		switch f[0] {
		case "create":
			all[f[2]] = thing{name: f[1]}
		case "update":
			all[f[2]] = thing{f[1], true}
		case "delete":
			delete(all, f[2])
		}
	}
	return all
}

// state reads the state's things, and whether the digest is that of its bytes.
func (y *yard) state() (things map[string]thing, digest bool) {
	y.Helper()
	ctx := context.Background()
	out, err := y.w.cloud.Clients.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: &y.addr.Bucket, Key: &y.addr.Key})
	if err != nil {
		y.Fatal(err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	if err != nil {
		y.Fatal(err)
	}
	var state struct {
		Resources []struct {
			Name      string
			Instances []struct {
				Status     string
				Attributes struct{ ID, Value string }
			}
		}
	}
	if err := json.Unmarshal(text, &state); err != nil {
		y.Fatal(err)
	}
	things = map[string]thing{}
	for _, r := range state.Resources {
		for _, i := range r.Instances {
			if i.Attributes.ID != "" {
				things[i.Attributes.ID] = thing{r.Name, i.Attributes.Value != ""}
			}
		}
	}
	if y.addr.Table == "" {
		return things, true
	}
	sum := md5.Sum(text)
	digestItem := y.item(y.addr.DigestID())
	have, _ := digestItem["Digest"].(*dynamotypes.AttributeValueMemberS)
	return things, have != nil && have.Value == hex.EncodeToString(sum[:])
}

func (y *yard) item(id string) map[string]dynamotypes.AttributeValue {
	y.Helper()
	out, err := y.w.cloud.Clients.DynamoDB.GetItem(context.Background(), &dynamodb.GetItemInput{TableName: &y.addr.Table, ConsistentRead: aws.Bool(true),
		Key: map[string]dynamotypes.AttributeValue{"LockID": &dynamotypes.AttributeValueMemberS{Value: id}}})
	if err != nil {
		y.Fatal(err)
	}
	return out.Item
}

func (y *yard) object(key string) bool {
	y.Helper()
	_, err := y.w.cloud.Clients.S3.HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &y.addr.Bucket, Key: &key})
	var none *types.NotFound
	if err != nil && !errors.As(err, &none) {
		y.Fatal(err)
	}
	return err == nil
}

// locks lists what is locked.
func (y *yard) locks() []string {
	y.Helper()
	var left []string
	if y.addr.Table != "" && y.item(y.addr.LockID()) != nil {
		left = append(left, "the item in the table")
	}
	if y.addr.Lockfile && y.object(y.addr.LockKey()) {
		left = append(left, "the object beside the state")
	}
	return left
}

func (y *yard) removeHolder() {
	y.Helper()
	key := y.addr.HolderKey()
	if _, err := y.w.cloud.Clients.S3.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &y.addr.Bucket, Key: &key}); err != nil {
		y.Fatal(err)
	}
}

func (y *yard) held() bool { return y.object(y.addr.HolderKey()) }

// processes are those of the case that run.
func (y *yard) processes() []seen { return carrying(y.marker) }

// clean is what every case ends with (G3, G4): no process, no lock, no holder
// record, every thing that exists in the state and no other, the digest right,
// nothing secret on disk, and a plan that works. code is the exit code that the
// person, or settle, was given; -1 where nobody was there to see it.
func (y *yard) clean(code int) {
	y.Helper()
	y.cleanBut(code, 0, 130)
}

// cleanBut is clean for runs that may end with other codes.
func (y *yard) cleanBut(code int, codes ...int) {
	y.Helper()
	y.quiet()
	end, finished := y.result()
	if finished && code >= 0 && code != end.ExitCode {
		y.Errorf("exit code %d, and the run's own was %d", code, end.ExitCode)
	}
	if !finished && code > 0 && code != 130 {
		y.Errorf("exit code %d of a run that was cancelled before it began", code)
	}
	if left := y.locks(); len(left) > 0 {
		y.Errorf("a lock is left: %s", strings.Join(left, " and "))
	}
	if y.held() {
		y.Error("the holder record is left")
	}
	things, digest := y.state()
	exist := y.outside()
	if !maps.Equal(things, exist) {
		y.Errorf("the state has %v, and there are %v", things, exist)
	}
	if !digest {
		y.Error("the digest does not match the state")
	}
	switch done := y.done(exist); {
	case finished && end.ExitCode == 0 && !done:
		y.Errorf("exit code 0, and not everything was done: %v", exist)
	case finished && !slices.Contains(codes, end.ExitCode):
		y.Errorf("exit code %d: %s", end.ExitCode, end.Error)
	}
	y.tidy()
	if !y.Failed() {
		y.nextPlan()
	}
	y.w.figures.count(y)
}

// done reports whether the configuration is what there is.
func (y *yard) done(exist map[string]thing) bool {
	if y.plan.none {
		return len(exist) == 0
	}
	for _, t := range exist {
		if y.plan.value != "" && !t.updated {
			return false
		}
	}
	return len(exist) == len(names())
}

// quiet waits for the end of all of the case's processes.
func (y *yard) quiet() {
	y.Helper()
	if !until(30*time.Second, func() bool { return len(y.processes()) == 0 }) {
		y.Errorf("processes go on: %v", y.processes())
	}
}

// tidy looks at the folder.
func (y *yard) tidy() {
	y.Helper()
	for _, pattern := range []string{"errored.tfstate", ".tfguard/runs/*/plan.tfplan", ".tfguard/runs/*/lock.log"} {
		if files, _ := filepath.Glob(filepath.Join(y.dir, pattern)); len(files) > 0 {
			y.Errorf("left on disk: %v", files)
		}
	}
	logs, _ := filepath.Glob(filepath.Join(y.dir, ".tfguard", "runs", "*", "engine.log"))
	for _, f := range logs {
		text, err := os.ReadFile(f)
		if err != nil {
			y.Fatal(err)
		}
		for _, bad := range []string{"panic", "DATA RACE", "fatal error", "goroutine "} {
			if strings.Contains(string(text), bad) {
				y.Errorf("%s of the engine:\n%s", bad, text)
			}
		}
	}
}

// nextPlan plans as the next job would, with the real terraform underneath.
func (y *yard) nextPlan() {
	y.Helper()
	p := y.tfguard("plan", "--detailed-exitcode")
	code := p.wait(time.Minute)
	want := 2
	if y.done(y.outside()) {
		want = 0
	}
	if code != want {
		y.Errorf("the next plan ends with %d, want %d\n%s", code, want, p.output())
	}
	y.quiet()
}

// figures counts what the storm has shown.
type figures struct {
	rows chan row
}

type row struct{ group, lock, provider string }

func newFigures() *figures { return &figures{rows: make(chan row, 10_000)} }

func (f *figures) count(y *yard) {
	if y.Failed() {
		return
	}
	parts := strings.Split(y.Name(), "/")
	f.rows <- row{parts[2], y.lock, y.plan.mode}
}

// log prints how many cases ended clean, as a table of docs/storm.md.
func (f *figures) log(t *testing.T) {
	close(f.rows)
	type key struct{ group, lock string }
	counts := map[key]map[string]int{}
	for r := range f.rows {
		k := key{r.group, r.lock}
		if counts[k] == nil {
			counts[k] = map[string]int{}
		}
		counts[k][r.provider]++
	}
	text := "| what | locks | ignore | honour | slow-stop |\n|---|---|---|---|---|\n"
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b key) int { return strings.Compare(a.group+a.lock, b.group+b.lock) }) {
		c := counts[k]
		text += fmt.Sprintf("| %s | %s | %d | %d | %d |\n", k.group, k.lock, c[ignore], c[honour], c[slowStop])
	}
	t.Logf("cases that ended clean:\n%s", text)
}
