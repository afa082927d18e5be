//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/testkit"
)

// badRow is one thing that a hostile or unlucky world does. What holds for all
// rows is in badWorld.check and stands in no row.
type badRow struct {
	sentence string
	args     []string
	mode     string // of locking; DynamoDB where empty
	bare     bool   // neither bucket nor table is made
	given    func(w *badWorld)
	during   func(w *badWorld, p *os.Process) // while it runs; the time counts from its end
	code     int
	stderr   []string // each is in stderr
	stdout   []string // each is in stdout, of the run for people
	hint     string   // in the "tfguard: hint:" line; no hint is asked for where it is empty
	then     func(w *badWorld, r badResult)
	changes  []string      // beginnings of what may differ afterwards, as badWorld.picture names it
	within   time.Duration // 15 s where it is 0
	oneLine  bool          // the reader of stdout goes away after one line
	shell    string        // lines of sh that end by running "$0" "$@"; the program is started by them
}

// badWorld is what one run of a row meets: a state of its own behind a proxy of
// its own, and a folder with a configuration.
type badWorld struct {
	*testing.T
	bin      string
	cloud    *testkit.Cloud
	proxy    *testkit.Faulty
	fault    *testkit.Fault // of some rows
	settings backend.Settings
	addr     backend.Address
	root     string // of everything local
	dir      string // of the configuration
	args     []string
	env      map[string]string
}

type badResult struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// What the set-up holds that no output may show (G7).
const (
	badSecretKey      = "planted-backend-secret-kQ7"
	badSecretVariable = "planted-variable-secret-zR4"
	badSecretState    = "planted-state-secret-pX9"
	badSecrets        = "planted-"
)

const (
	badConfiguration = `
variable "greeting" {
  type    = string
  default = "hello"
}

variable "password" {
  type      = string
  sensitive = true
  default   = "none"
}

resource "terraform_data" "hello" {
  input = [var.greeting, var.password]
}
`
	badLineage = "0b5ad9e3-41f2-4d5e-8f7c-1f2e3d4c5b6a"
	badLockID  = "5b1c6b0e-8d2f-4b8e-9c55-6a7d3f2e1c0b"
)

// TestBadInput holds CONTRACT.md §9: nothing panics and nothing is half done.
// Each row is run as a process of its own; check, plan, apply and destroy once
// more with --json, in a world of their own.
func TestBadInput(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "tfguard")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cloud := testkit.Start(t)
	// Not t.Parallel: a row waits for most of its time, more of them go on at once
	// than there are processors.
	var rows sync.WaitGroup
	defer rows.Wait()
	slots := make(chan struct{}, 6)
	for _, row := range badRows() {
		slots <- struct{}{}
		rows.Go(func() {
			defer func() { <-slots }()
			t.Run(row.sentence, func(t *testing.T) {
				t.Run("text", func(t *testing.T) { row.run(t, bin, cloud, false) })
				if slices.Contains([]string{"check", "plan", "apply", "destroy"}, row.args[0]) {
					t.Run("json", func(t *testing.T) { row.run(t, bin, cloud, true) })
				}
			})
		})
	}
}

func (row badRow) run(t *testing.T, bin string, cloud *testkit.Cloud, asJSON bool) {
	w := newBadWorld(t, bin, cloud, row)
	w.args = slices.Clone(row.args)
	if row.given != nil {
		row.given(w)
	}
	if asJSON {
		w.args = slices.Insert(w.args, 1, "--json")
	}
	before, files := w.picture(), w.files()
	r := w.run(row)
	after := w.picture()
	t.Logf("tfguard %q ended with %d after %s\nstdout:\n%s\nstderr:\n%s", w.args, r.code, r.took.Round(time.Millisecond), badHead(r.stdout), badHead(r.stderr))
	if r.code != row.code {
		t.Errorf("exit code %d, want %d", r.code, row.code)
	}
	for _, want := range row.stderr {
		if !strings.Contains(r.stderr, want) && !(asJSON && strings.Contains(r.stdout, want)) {
			t.Errorf("stderr does not say %q", want)
		}
	}
	for _, want := range row.stdout {
		if !asJSON && !strings.Contains(r.stdout, want) {
			t.Errorf("stdout does not say %q", want)
		}
	}
	if row.hint != "" {
		_, hint, _ := strings.Cut(r.stderr, "tfguard: hint: ")
		if !strings.Contains(hint, row.hint) {
			t.Errorf("no hint says %q", row.hint)
		}
	}
	w.checkOutput(row, r)
	if asJSON && !row.oneLine && row.shell == "" {
		w.checkJSON(r)
	}
	for _, name := range badDiff(before, after) {
		if !slices.ContainsFunc(row.changes, func(may string) bool { return strings.HasPrefix(name, may) }) {
			t.Errorf("%s is not as it was: before %q, now %q", name, before[name], after[name])
		}
	}
	w.checkFiles(row, files, r)
	if row.then != nil {
		row.then(w, r)
	}
}

// checkOutput holds what every output promises.
func (w *badWorld) checkOutput(row badRow, r badResult) {
	both := r.stdout + "\n" + r.stderr
	for _, never := range []string{"panic", "goroutine ", "runtime error", "SIGSEGV", badSecrets, "##[", "%!", "<nil>", "SDK 2"} {
		if strings.Contains(both, never) {
			w.Errorf("the output has %q", never)
		}
	}
	for _, c := range both {
		if unicode.IsControl(c) && c != '\n' && c != '\t' || unicode.Is(unicode.Bidi_Control, c) {
			w.Errorf("the output has the control character %U", c)
			break
		}
	}
	if n := strings.Count(r.stderr, "tfguard: error:"); n > 1 || n == 0 && r.code != 0 && row.args[0] != "locks" {
		w.Errorf("%d lines begin with tfguard: error:", n)
	}
	limit := row.within
	if limit == 0 {
		limit = 15 * time.Second
	}
	if r.took > limit {
		w.Errorf("it took %s, more than %s", r.took, limit)
	}
	if left := w.stillRunning(); len(left) > 0 {
		w.Errorf("processes are left: %q", left)
	}
}

// checkJSON holds CONTRACT.md §8.
func (w *badWorld) checkJSON(r badResult) {
	var last event.Event
	lines, failed := 0, false
	for line := range strings.Lines(r.stdout) {
		head, e, err := event.Decode([]byte(line))
		if err != nil {
			w.Errorf("a line of stdout does not parse: %v: %q", err, badHead(line))
			return
		}
		if head.Run == "" || head.Time.IsZero() || e == nil {
			w.Errorf("an event without type, time or run: %q", badHead(line))
		}
		if _, ok := e.(event.RunStarted); ok != (lines == 0) {
			w.Errorf("line %d is %s", lines+1, head.Type)
		}
		if d, ok := e.(event.Diagnostic); ok && d.Severity == "error" {
			failed = true
		}
		last = e
		lines++
	}
	end, ok := last.(event.RunFinished)
	switch {
	case !ok:
		w.Errorf("the last of %d events is %T, not run_finished", lines, last)
	case end.ExitCode != r.code:
		w.Errorf("run_finished says %d, the exit code is %d", end.ExitCode, r.code)
	case (end.Status == event.OK || end.Status == event.NoChanges) != (r.code == 0):
		w.Errorf("run_finished says %q, the exit code is %d", end.Status, r.code)
	case r.code != 0 && !failed:
		w.Error("no event says what is wrong")
	}
}

// checkFiles looks at what is left on this machine: no plan, no temporary file,
// and after wrong usage nothing but tfguard's own folder, in which everything
// is private and nothing is secret; an engine that panics says so there.
func (w *badWorld) checkFiles(row badRow, before map[string]string, r badResult) {
	after := w.files()
	for _, name := range badDiff(before, after) {
		own := strings.HasPrefix(name, "conf/.terraform/") || strings.HasPrefix(name, "conf/.tfguard/") || name == "conf/.terraform.lock.hcl"
		plan := strings.HasSuffix(name, "tfplan") || strings.Contains(name, ".tfguard-plan-")
		if own && !plan && (r.code != 3 || strings.HasPrefix(name, "conf/.tfguard/")) || slices.Contains(row.changes, "file "+name) {
			continue
		}
		w.Errorf("the file %s is not as it was", name)
	}
	for name := range after {
		if !strings.HasPrefix(name, "conf/.tfguard/") || strings.HasSuffix(name, "/") {
			continue
		}
		path := filepath.Join(w.root, filepath.FromSlash(name))
		info, err := os.Stat(path)
		w.must(nil, err)
		src, err := os.ReadFile(path)
		w.must(nil, err)
		if info.Mode().Perm()&0o077 != 0 {
			w.Errorf("others may read %s: %s", name, info.Mode())
		}
		for _, never := range []string{"panic: ", "goroutine ", badSecrets} {
			if i := bytes.Index(src, []byte(never)); i >= 0 {
				w.Errorf("%s has %q", name, badHead(string(src[max(0, i-200):])))
			}
		}
	}
}

// badRetries bounds rows in which a request fails for good: it is tried five
// times by tfguard and five by terraform, with pauses of up to 15 s in all.
const badRetries = 45 * time.Second

func newBadWorld(t *testing.T, bin string, cloud *testkit.Cloud, row badRow) *badWorld {
	w := &badWorld{T: t, bin: bin, cloud: cloud, proxy: testkit.NewFaulty(t, cloud.URL), root: t.TempDir()}
	mode := row.mode
	if mode == "" {
		mode = testkit.DynamoDB
	}
	if row.bare {
		w.settings, w.addr = cloud.Names(t, mode)
	} else {
		w.settings, w.addr = cloud.State(t, mode)
	}
	w.dir = filepath.Join(w.root, "conf")
	for _, d := range []string{"conf", "home", "tmp"} {
		if err := os.Mkdir(filepath.Join(w.root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.env = map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": filepath.Join(w.root, "home"), "TMPDIR": filepath.Join(w.root, "tmp"),
		"AWS_EC2_METADATA_DISABLED": "true", "CHECKPOINT_DISABLE": "1",
		"TF_VAR_password": badSecretVariable, "TFGUARD_TEST_WORLD": w.addr.Bucket,
	}
	w.file("main.tf", w.backend(nil)+badConfiguration)
	return w
}

// backend is the backend block, formatted, with some attributes set anew: HCL
// expressions, or "" for none.
func (w *badWorld) backend(attrs map[string]string) string {
	url := fmt.Sprintf("%q", w.proxy.URL)
	all := map[string]string{
		"bucket": fmt.Sprintf("%q", w.settings.Bucket), "key": fmt.Sprintf("%q", w.settings.Key), "region": `"us-east-1"`,
		"access_key": `"AKIAPLAINTFGUARD0001"`, "secret_key": fmt.Sprintf("%q", badSecretKey),
		"endpoints":      "{ s3 = " + url + ", dynamodb = " + url + ", sts = " + url + ", iam = " + url + " }",
		"use_path_style": "true", "skip_credentials_validation": "true", "skip_requesting_account_id": "true",
		"skip_region_validation": "true", "skip_metadata_api_check": "true",
	}
	if w.settings.DynamoDBTable != "" {
		all["dynamodb_table"] = fmt.Sprintf("%q", w.settings.DynamoDBTable)
	}
	if w.settings.UseLockfile {
		all["use_lockfile"] = "true"
	}
	maps.Copy(all, attrs)
	var b strings.Builder
	b.WriteString("terraform {\n  backend \"s3\" {\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] != "" {
			fmt.Fprintf(&b, "    %s = %s\n", name, all[name])
		}
	}
	b.WriteString("  }\n}\n")
	return string(hclwrite.Format([]byte(b.String())))
}

func (w *badWorld) must(_ any, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// path is a file in the configuration's directory.
func (w *badWorld) path(name string) string { return filepath.Join(w.dir, name) }

func (w *badWorld) file(name, content string) {
	w.Helper()
	w.must(nil, os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
	w.must(nil, os.WriteFile(w.path(name), []byte(content), 0o600))
}

// object puts an object, past the proxy.
func (w *badWorld) object(key, body string) {
	w.Helper()
	w.must(w.cloud.Clients.S3.PutObject(w.Context(), &s3.PutObjectInput{Bucket: &w.addr.Bucket, Key: &key, Body: strings.NewReader(body)}))
}

// rewrite puts an object anew with another content and the same metadata.
func (w *badWorld) rewrite(key string, change func(body string) string) {
	w.Helper()
	old, err := w.cloud.Clients.S3.GetObject(w.Context(), &s3.GetObjectInput{Bucket: &w.addr.Bucket, Key: &key})
	w.must(nil, err)
	defer old.Body.Close()
	body, err := io.ReadAll(old.Body)
	w.must(nil, err)
	w.must(w.cloud.Clients.S3.PutObject(w.Context(), &s3.PutObjectInput{
		Bucket: &w.addr.Bucket, Key: &key, Metadata: old.Metadata, Body: strings.NewReader(change(string(body)))}))
}

// item puts an item into the lock table, past the proxy.
func (w *badWorld) item(id, attribute string, value dynamotypes.AttributeValue) {
	w.Helper()
	item := map[string]dynamotypes.AttributeValue{"LockID": &dynamotypes.AttributeValueMemberS{Value: id}}
	if value != nil {
		item[attribute] = value
	}
	w.must(w.cloud.Clients.DynamoDB.PutItem(w.Context(), &dynamodb.PutItemInput{TableName: &w.addr.Table, Item: item}))
}

func badText(s string) dynamotypes.AttributeValue {
	return &dynamotypes.AttributeValueMemberS{Value: s}
}

// state is a state as terraform writes it, with a sensitive output.
func badState(lineage string, serial int) string {
	return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"outputs":{"old":{"value":%q,"type":"string","sensitive":true}},"resources":[],"check_results":null}`+"\n",
		serial, lineage, badSecretState)
}

// lock is a lock record of this age, with fields set anew.
func (w *badWorld) lock(age time.Duration, fields map[string]any) string {
	record := map[string]any{
		"ID": badLockID, "Operation": "OperationTypeApply", "Info": "", "Who": "alice@build-7", "Version": "1.11.4",
		"Created": time.Now().Add(-age).UTC().Format(time.RFC3339Nano), "Path": w.addr.String(),
	}
	maps.Copy(record, fields)
	doc, err := json.Marshal(record)
	w.must(nil, err)
	return string(doc)
}

// tfguard runs the program once to prepare something; it has to succeed.
func (w *badWorld) tfguard(args ...string) {
	w.Helper()
	cmd := w.command(w.Context(), args)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("tfguard %q: %v\n%s", args, err, out)
	}
}

// terraform runs the real one to prepare something.
func (w *badWorld) terraform(args ...string) {
	w.Helper()
	cmd := w.command(w.Context(), args)
	path, err := exec.LookPath("terraform")
	w.must(nil, err)
	cmd.Path, cmd.Args[0] = path, "terraform"
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("terraform %q: %v\n%s", args, err, out)
	}
}

// standIn puts a script in terraform's place that behaves as the lines of sh
// say for one command, and is the real one for every other.
func (w *badWorld) standIn(command, lines string) {
	w.Helper()
	path := filepath.Join(w.root, "home", "terraform")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = %s ]; then\n%s\nfi\nexec terraform \"$@\"\n", command, lines)
	w.must(nil, os.WriteFile(path, []byte(script), 0o700))
	w.args = append(w.args, "--terraform-bin", path)
}

func (w *badWorld) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Dir, cmd.Env = w.dir, []string{}
	for _, k := range slices.Sorted(maps.Keys(w.env)) {
		cmd.Env = append(cmd.Env, k+"="+w.env[k])
	}
	return cmd
}

// run runs the row's command to its end, or kills it after a minute and a half.
func (w *badWorld) run(row badRow) badResult {
	ctx, stop := context.WithTimeout(w.Context(), 90*time.Second)
	defer stop()
	cmd := w.command(ctx, w.args)
	if row.shell != "" {
		shell, err := exec.LookPath("sh")
		w.must(nil, err)
		cmd.Path, cmd.Args = shell, append([]string{"sh", "-c", row.shell, w.bin}, w.args...)
	}
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var reader sync.WaitGroup
	if row.oneLine {
		out, in, err := os.Pipe()
		w.must(nil, err)
		cmd.Stdout = in
		defer in.Close() // a second time, where the start went well
		reader.Go(func() {
			defer out.Close()
			one := make([]byte, 1)
			for {
				if _, err := out.Read(one); err != nil {
					return
				}
				stdout.Write(one)
				if one[0] == '\n' {
					return
				}
			}
		})
	}
	began := time.Now()
	w.must(nil, cmd.Start())
	if in, ok := cmd.Stdout.(*os.File); ok {
		in.Close()
	}
	if row.during != nil {
		row.during(w, cmd.Process)
		began = time.Now() // what is bounded is the end after it
	}
	err := cmd.Wait()
	reader.Wait()
	r := badResult{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Errorf("wait: %v", err)
	}
	return r
}

// stillRunning lists processes that this world's tfguard has left behind. It
// sees them on Linux alone.
func (w *badWorld) stillRunning() (left []string) {
	if runtime.GOOS != "linux" {
		return nil
	}
	look := func() (left []string) {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range dirs {
			env, err := os.ReadFile(filepath.Join(d, "environ"))
			if err == nil && bytes.Contains(env, []byte("TFGUARD_TEST_WORLD="+w.addr.Bucket)) {
				command, _ := os.ReadFile(filepath.Join(d, "cmdline"))
				left = append(left, strings.ReplaceAll(string(command), "\x00", " "))
			}
		}
		return left
	}
	// A process that has ended or was killed takes a moment to be gone.
	deadline, tick := time.After(5*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if left = look(); len(left) == 0 {
			return nil
		}
		select {
		case <-deadline:
			return left
		case <-tick.C:
		}
	}
}

// picture is what is in the bucket and in the table: "bucket", "table",
// "object KEY", "version KEY@ID" and "item ID". Versions of the lock object and of
// the holder record are left out: each time one is taken leaves some.
func (w *badWorld) picture() map[string]string {
	ctx := w.Context()
	all := map[string]string{}
	taken := func(key string) bool {
		return strings.HasSuffix(key, ".tflock") || strings.HasSuffix(key, "/holder.json")
	}
	pages := s3.NewListObjectVersionsPaginator(w.cloud.Clients.S3, &s3.ListObjectVersionsInput{Bucket: &w.addr.Bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if backend.Is(awsclient.Explain(err, w.addr.Bucket), backend.Missing) {
			break
		}
		w.must(nil, err)
		all["bucket"] = "there"
		for _, v := range page.Versions {
			key := aws.ToString(v.Key)
			if aws.ToBool(v.IsLatest) {
				all["object "+key] = aws.ToString(v.ETag)
			}
			if !taken(key) {
				all["version "+key+"@"+aws.ToString(v.VersionId)] = aws.ToString(v.ETag)
			}
		}
		for _, m := range page.DeleteMarkers {
			if key := aws.ToString(m.Key); !taken(key) {
				all["version "+key+"@"+aws.ToString(m.VersionId)] = "deleted"
			}
		}
	}
	if w.addr.Table == "" {
		return all
	}
	out, err := w.cloud.Clients.DynamoDB.Scan(ctx, &dynamodb.ScanInput{TableName: &w.addr.Table, ConsistentRead: aws.Bool(true)})
	if backend.Is(awsclient.Explain(err, w.addr.Bucket), backend.Missing) {
		return all
	}
	w.must(nil, err)
	all["table"] = "there"
	for _, item := range out.Items {
		doc, err := json.Marshal(item)
		w.must(nil, err)
		id, _ := item["LockID"].(*dynamotypes.AttributeValueMemberS)
		if id != nil {
			all["item "+id.Value] = string(doc)
		}
	}
	return all
}

// files are the files below root with their content's checksum; a directory
// counts as well.
func (w *badWorld) files() map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(w.root, path)
		if err != nil {
			return err
		}
		if all[filepath.ToSlash(name)] = d.Type().String(); !d.Type().IsRegular() {
			if d.IsDir() {
				delete(all, filepath.ToSlash(name))
				all[filepath.ToSlash(name)+"/"] = "directory"
			}
			return nil
		}
		src, err := os.ReadFile(path)
		sum := sha256.Sum256(src)
		all[filepath.ToSlash(name)] = hex.EncodeToString(sum[:])
		return err
	})
	w.must(nil, err)
	return all
}

func badDiff(before, after map[string]string) (names []string) {
	for name := range before {
		if after[name] != before[name] {
			names = append(names, name)
		}
	}
	for name := range after {
		if _, was := before[name]; !was {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func badHead(s string) string {
	if len(s) > 6000 {
		return s[:6000] + "…"
	}
	return s
}
