package terraform

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// real gives a Terraform that runs the terraform in PATH in a directory with
// the files, and a count of the processes that it starts, by command.
func real(t *testing.T, files map[string]string, o Options) (*Terraform, *recorder, func() []string) {
	t.Helper()
	path, err := exec.LookPath("terraform")
	if err != nil {
		t.Fatal("these tests need a terraform in PATH: ", err)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// a script that has become terraform, as of tfenv and its like
	log, bin := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "terraform")
	script := "#!/bin/sh\necho \"$1\" >>'" + log + "'\nCHECKPOINT_DISABLE=1 exec '" + path + "' \"$@\"\n"
	if err := os.WriteFile(bin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	rec := newRecorder()
	started := func() []string {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
	return New(Binary{Path: bin, Product: productTerraform}, o, rec), rec, started
}

const sample = `variable "n" {
  default = 2
}

resource "terraform_data" "a" {
  count            = var.n
  input            = "x${count.index}"
  triggers_replace = var.n

  provisioner "local-exec" {
    command = "echo '::set-output name=a::b'"
  }
}

output "plain" {
  value = "shown"
}

output "secret" {
  value     = "hidden"
  sensitive = true
}
`

func TestTheWholeSequence(t *testing.T) {
	var log strings.Builder
	// a data directory, as a backend or a provider makes init leave one
	tf, rec, started := real(t, map[string]string{"main.tf": sample}, Options{Log: &log, DataDir: t.TempDir()})
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "plan")

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := tf.Fmt(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := tf.Init(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	wg.Go(func() {
		if err := tf.Validate(ctx); err != nil {
			t.Error(err)
		}
	})
	p, err := tf.Plan(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if p.Add != 2 || p.Change != 0 || p.Destroy != 0 || p.Replace != 0 || !p.Changed {
		t.Errorf("got %+v", p)
	}
	want := []event.Change{{Address: "terraform_data.a[0]", Action: "create"}, {Address: "terraform_data.a[1]", Action: "create"}}
	if !slices.Equal(p.Addresses, want) {
		t.Errorf("got %+v, want %+v", p.Addresses, want)
	}
	text, err := tf.Show(ctx, file)
	if err != nil || !strings.Contains(text, "Plan: 2 to add") || strings.Contains(text, "hidden") || strings.Contains(text, "\x1b") {
		t.Errorf("got %q, %v", text, err)
	}
	if err := tf.Apply(ctx, file); err != nil {
		t.Fatal(err)
	}
	phases := map[string]int{}
	for _, r := range typed[event.Resource](rec) {
		phases[r.Action+" "+r.Phase]++
	}
	if phases["create started"] != 2 || phases["create done"] != 2 || len(phases) != 2 {
		t.Errorf("got %v", phases)
	}
	var said []string
	for _, o := range typed[event.Output](rec) {
		if !o.Detail {
			said = append(said, o.Text)
		}
	}
	all := strings.Join(said, "\n")
	for _, s := range []string{`plain = "shown"`, "secret = (sensitive)", "terraform_data.a[0]: Creating...", "Apply complete! Resources: 2 added", "::set-output"} {
		if !strings.Contains(all, s) {
			t.Errorf("%q is not said:\n%s", s, all)
		}
	}
	if strings.Contains(all, "hidden") {
		t.Errorf("a sensitive output is said:\n%s", all)
	}
	if v, err := tf.Version(ctx); !strings.HasPrefix(v, "1.") || err != nil {
		t.Errorf("the plan did not tell the version: %q, %v", v, err)
	}
	if got := started(); count(got, "version") != 0 || len(got) != 6 {
		t.Errorf("fmt, init, validate, plan, show and apply need no version process: %q", got)
	}
	if !strings.Contains(log.String(), "Initializing the backend") || !strings.Contains(log.String(), "apply_complete") {
		t.Error("the log has not everything")
	}

	if err := tf.Apply(ctx, file); !errors.Is(err, state.ErrChanged) || errors.Is(err, lock.ErrHeld) {
		t.Errorf("a plan that was applied is stale: got %v", err)
	}
	if p, err = tf.Plan(ctx, file); err != nil || p.Changed || len(p.Addresses) != 0 {
		t.Errorf("nothing is left to do: got %+v, %v", p, err)
	}
	tf.o.Vars = []string{"n=1"}
	if p, err = tf.Plan(ctx, file); err != nil || p.Replace != 1 || p.Add != 1 || p.Destroy != 2 || !p.Changed {
		t.Errorf("one replaced, one deleted: got %+v, %v", p, err)
	}
	tf.o.Destroy = true
	if p, err = tf.Plan(ctx, file); err != nil || p.Destroy != 2 {
		t.Errorf("everything destroyed: got %+v, %v", p, err)
	}
	if err := tf.Apply(ctx, file); err != nil {
		t.Error(err)
	}
}

func TestMovedAndForgotten(t *testing.T) {
	tf, _, _ := real(t, map[string]string{"main.tf": "resource \"terraform_data\" \"a\" {}\nresource \"terraform_data\" \"b\" {}\n"}, Options{})
	file := filepath.Join(t.TempDir(), "plan")
	if err := tf.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tf.Plan(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if err := tf.Apply(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(tf.o.Dir, "main.tf"), []byte(`
resource "terraform_data" "c" {}
moved {
  from = terraform_data.a
  to   = terraform_data.c
}
removed {
  from = terraform_data.b
  lifecycle { destroy = false }
}
`), 0o600)
	p, err := tf.Plan(t.Context(), file)
	want := []event.Change{{Address: "terraform_data.b", Action: "forget"}, {Address: "terraform_data.c", Action: "move"}}
	if err != nil || !slices.Equal(p.Addresses, want) || !p.Changed {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	ctx := t.Context()
	tf, rec, _ := real(t, map[string]string{"main.tf": "resource \"terraform_data\" \"a\" {\n  input = var.nope\n}\n", "b.tf": "locals {\na=1\n}\n"}, Options{})
	var unformatted *UnformattedError
	if err := tf.Fmt(ctx); !errors.As(err, &unformatted) || !slices.Equal(unformatted.Files, []string{"b.tf"}) {
		t.Errorf("got %v", err)
	}
	if err := tf.Init(ctx); err != nil {
		t.Fatal(err)
	}
	err := tf.Validate(ctx)
	var f *Failure
	if !errors.As(err, &f) || f.Error() != "terraform validate: Reference to undeclared input variable" || f.ExitCode != 1 {
		t.Errorf("got %v", err)
	}
	if _, err := tf.Plan(ctx, filepath.Join(t.TempDir(), "plan")); !errors.As(err, &f) || f.Error() != "terraform plan: Reference to undeclared input variable" {
		t.Errorf("got %v", err)
	}
	ds := typed[event.Diagnostic](rec)
	if len(ds) != 1 || ds[0].File != "main.tf" || ds[0].Line != 2 || ds[0].Snippet != "  input = var.nope" || ds[0].Severity != "error" {
		t.Errorf("validate and plan find one and the same error: got %+v", ds)
	}
}

func TestTextErrorsBecomeDiagnostics(t *testing.T) {
	ctx := t.Context()
	tf, rec, _ := real(t, map[string]string{"main.tf": "x {\n"}, Options{})
	var f *Failure
	if err := tf.Fmt(ctx); !errors.As(err, &f) || f.Error() != "terraform fmt: Unclosed configuration block" {
		t.Errorf("got %v", err)
	}
	if err := tf.Init(ctx); !errors.As(err, &f) || f.Error() != "terraform init: Unsupported block type" || f.Diagnostics[0].File != "main.tf" || f.Diagnostics[0].Line != 1 {
		t.Errorf("got %v: %+v", err, f.Diagnostics)
	}
	if ds := typed[event.Diagnostic](rec); len(ds) == 0 {
		t.Error("init's errors are not emitted")
	}
}

func TestHeldLock(t *testing.T) {
	ctx := t.Context()
	sleeper := "resource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" {\n    command = \"echo locked; exec sleep 60\"\n  }\n}\n"
	tf, rec, _ := real(t, map[string]string{"main.tf": sleeper}, Options{})
	file := filepath.Join(t.TempDir(), "plan")
	if err := tf.Init(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := tf.Plan(ctx, file); err != nil {
		t.Fatal(err)
	}
	applyCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	locked := make(chan struct{})
	rec.on("(local-exec): locked", func() { close(locked) })
	done := make(chan error, 1)
	go func() { done <- tf.Apply(applyCtx, file) }()
	select {
	case <-locked:
	case err := <-done:
		t.Fatal(err)
	}
	_, err := tf.Plan(ctx, filepath.Join(t.TempDir(), "plan"))
	var f *Failure
	if !errors.Is(err, lock.ErrHeld) || !errors.As(err, &f) {
		t.Fatalf("got %v", err)
	}
	if info, ok := f.LockInfo(); !ok || info.Operation != "OperationTypeApply" || info.Who == "" || info.Created.IsZero() {
		t.Errorf("got %+v, %v", info, ok)
	}
	cancel()
	err = <-done
	if !errors.As(err, &f) || !f.Interrupted || !errors.Is(err, context.Canceled) {
		t.Errorf("an apply that was stopped: got %v", err)
	}
	if _, err := os.Stat(filepath.Join(tf.o.Dir, ".terraform.tfstate.lock.info")); err == nil {
		t.Error("the lock is left")
	}
	var failed bool
	for _, r := range typed[event.Resource](rec) {
		failed = failed || r.Phase == "failed"
	}
	if !failed {
		t.Error("the resource in flight is not told")
	}
	if _, err := tf.Plan(ctx, filepath.Join(t.TempDir(), "plan")); err != nil {
		t.Errorf("the state is free again: %v", err)
	}
}

func TestWorkspaces(t *testing.T) {
	ctx := t.Context()
	tf, _, started := real(t, map[string]string{"main.tf": "output \"w\" {\n  value = terraform.workspace\n}\n"}, Options{})
	if err := tf.Init(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tf.SelectWorkspace(ctx, "blue", false); err == nil {
		t.Error("a workspace that is not there: no error")
	}
	if err := tf.SelectWorkspace(ctx, "blue", true); err != nil {
		t.Fatal(err)
	}
	before := len(started())
	if err := tf.SelectWorkspace(ctx, "blue", false); err != nil || len(started()) != before {
		t.Errorf("it is selected already: %v, %q", err, started())
	}
	if err := tf.SelectWorkspace(ctx, "default", false); err != nil || tf.selected() != "default" {
		t.Errorf("got %q, %v", tf.selected(), err)
	}
}

func TestABinaryThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "terraform")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho what; exit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	tf := New(Binary{Path: path, Product: productTerraform}, Options{Dir: t.TempDir()}, newRecorder())
	if err := tf.Init(t.Context()); err == nil {
		t.Error("no error")
	}
	tf.bin.Path += ".none"
	if err := tf.Init(t.Context()); !errors.Is(err, os.ErrNotExist) && err == nil {
		t.Errorf("got %v", err)
	}
}
