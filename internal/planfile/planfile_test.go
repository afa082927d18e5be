package planfile

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/state"
)

const firstState = `{
  "version": 4,
  "terraform_version": "1.11.4",
  "serial": 0,
  "lineage": "",
  "outputs": {},
  "resources": []
}`

const laterState = `{
  "version": 4,
  "terraform_version": "1.11.4",
  "serial": 7,
  "lineage": "614b8faf-9bba-0aef-407f-bd3f423454e2",
  "outputs": {}, "resources": []
}`

// file writes a zip of name, content pairs.
func file(t *testing.T, pairs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plan")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := zip.NewWriter(f)
	for i := 0; i < len(pairs); i += 2 {
		e, err := w.Create(pairs[i])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(e, pairs[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHead(t *testing.T) {
	h, err := Head(file(t, "tfplan", "x", "tfstate", laterState))
	if err != nil || !h.Exists || h.Serial != 7 || h.Lineage != "614b8faf-9bba-0aef-407f-bd3f423454e2" {
		t.Errorf("got %+v, %v", h, err)
	}
	if h, err = Head(file(t, "tfplan", "x", "tfstate", firstState)); err != nil || h.Exists {
		t.Errorf("a first plan has no state: got %+v, %v", h, err)
	}
	bomb := strings.TrimSuffix(laterState, "}") + `, "x": "` + strings.Repeat("A", 8<<20) + `"}`
	if h, err = Head(file(t, "tfplan", "x", "tfstate", bomb)); err != nil || h.Serial != 7 {
		t.Errorf("a state of 8 MiB: got %+v, %v", h, err)
	}
}

func TestWhatIsNoPlan(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	os.WriteFile(text, []byte("no zip"), 0o600)
	empty := filepath.Join(t.TempDir(), "empty")
	os.WriteFile(empty, nil, 0o600)
	whole, err := os.ReadFile(file(t, "tfplan", "x", "tfstate", laterState))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	os.WriteFile(cut, whole[:len(whole)/2], 0o600)

	for name, path := range map[string]string{
		"text":                              text,
		"an empty file":                     empty,
		"a plan that is cut off":            cut,
		"a zip without a plan":              file(t, "tfstate", laterState),
		"a plan without a state":            file(t, "tfplan", "x"),
		"a state that is no JSON":           file(t, "tfplan", "x", "tfstate", "hello"),
		"a state without lineage, serial 3": file(t, "tfplan", "x", "tfstate", `{"version":4,"serial":3,"lineage":""}`),
		"a lineage far away":                file(t, "tfplan", "x", "tfstate", `{"version":4,"a":"`+strings.Repeat("x", 1<<20)+`","serial":3,"lineage":"l"}`),
	} {
		if _, _, err := Read(path); !errors.Is(err, ErrNotPlan) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Head(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotPlan) {
		t.Errorf("a file that is not there: got %v", err)
	}
}

func binding() Binding {
	return Binding{
		Version: 1, Created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), State: "bucket/key", Workspace: "default",
		Lineage: "614b8faf-9bba-0aef-407f-bd3f423454e2", Serial: 7, HasState: true, Config: "c0", LockFile: "10",
		Terraform: "1.11.4", Run: "r1", Commit: "abc",
		Plan: event.Plan{Add: 1, Changed: true, Addresses: []event.Change{{Address: "a.b", Action: "create"}}},
	}
}

func TestBindAndRead(t *testing.T) {
	in := file(t, "tfplan", "x", "tfstate", laterState, "tfconfig/m-/main.tf", "# y")
	out := filepath.Join(t.TempDir(), "bound")
	if err := Bind(in, out, binding()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v: a plan holds secrets", info.Mode(), err)
	}
	b, h, err := Read(out)
	if err != nil || h.Serial != 7 {
		t.Fatalf("got %+v, %v", h, err)
	}
	if d := cmp.Diff(binding(), b); d != "" {
		t.Error(d)
	}
	// bound again, in place: the old binding is replaced
	again := binding()
	again.Run = "r2"
	if err := Bind(out, out, again); err != nil {
		t.Fatal(err)
	}
	if b, _, err = Read(out); err != nil || b.Run != "r2" {
		t.Errorf("got %+v, %v", b, err)
	}
	z, err := zip.OpenReader(out)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if want := []string{"tfplan", "tfstate", "tfconfig/m-/main.tf", "tfguard.json"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".tfguard-plan-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestBindLeavesNothingBehindWhereItFails(t *testing.T) {
	in := file(t, "tfplan", "x", "tfstate", laterState)
	dir := t.TempDir()
	target := filepath.Join(dir, "is", "a", "directory")
	if err := os.MkdirAll(filepath.Join(target, "with content"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Bind(in, target, binding()); err == nil {
		t.Error("no error")
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(target), ".tfguard-plan-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestReadRefuses(t *testing.T) {
	other := strings.Replace(laterState, `"serial": 7`, `"serial": 8`, 1)
	for name, c := range map[string]struct {
		state, binding string
		want           error
	}{
		"a plan of bare terraform":            {laterState, "", ErrUnbound},
		"a binding of a later format":         {laterState, `{"version":2}`, ErrUnbound},
		"a binding that is no JSON":           {laterState, `{`, ErrNotPlan},
		"a binding for another serial":        {other, `{"version":1,"has_state":true,"serial":7,"lineage":"614b8faf-9bba-0aef-407f-bd3f423454e2"}`, ErrNotPlan},
		"a binding for no state":              {laterState, `{"version":1}`, ErrNotPlan},
		"a binding for a state, a first plan": {firstState, `{"version":1,"has_state":true,"serial":7,"lineage":"l"}`, ErrNotPlan},
	} {
		pairs := []string{"tfplan", "x", "tfstate", c.state}
		if c.binding != "" {
			pairs = append(pairs, bindingEntry, c.binding)
		}
		if _, _, err := Read(file(t, pairs...)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestReadCleansNames(t *testing.T) {
	path := file(t, "tfplan", "x", "tfstate", firstState, bindingEntry,
		`{"version":1,"state":"b/k\u001b[2J","plan":{"addresses":[{"address":"a\nb","action":"cr\u0007"}]}}`)
	b, _, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(b); strings.ContainsAny(s, "\x1b\n\a") {
		t.Errorf("got %q", s)
	}
}

func TestVerify(t *testing.T) {
	made := binding().Created
	fits := Current{State: "bucket/key", Workspace: "default", Config: "c0", LockFile: "10", Now: made.Add(time.Hour)}
	for name, c := range map[string]struct {
		change func(*Current)
		max    time.Duration
		want   string
	}{
		"it fits":                   {func(*Current) {}, 2 * time.Hour, ""},
		"no limit of age":           {func(c *Current) { c.Now = made.Add(9000 * time.Hour) }, 0, ""},
		"clocks that differ a bit":  {func(c *Current) { c.Now = made.Add(-time.Minute) }, time.Hour, ""},
		"another state":             {func(c *Current) { c.State = "b/other" }, 0, "it was made for the state bucket/key, this is b/other"},
		"another workspace":         {func(c *Current) { c.Workspace = "blue" }, 0, "it was made in the workspace default, this is blue"},
		"another configuration":     {func(c *Current) { c.Config = "c1" }, 0, "the configuration has changed since"},
		"other providers":           {func(c *Current) { c.LockFile = "" }, 0, "the provider lock file .terraform.lock.hcl has changed since"},
		"too old":                   {func(*Current) {}, time.Minute, "it is 1h0m0s old, the limit is 1m0s"},
		"made in the future":        {func(c *Current) { c.Now = made.Add(-time.Hour) }, 0, "it was made 1h0m0s in the future by this machine's clock"},
		"state, workspace, and age": {func(c *Current) { c.State, c.Workspace = "x", "y" }, time.Minute, "it was made for the state bucket/key, this is x|it was made in the workspace default, this is y|it is 1h0m0s old, the limit is 1m0s"},
	} {
		now := fits
		c.change(&now)
		if got := strings.Join(binding().Verify(now, c.max), "|"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// Terraform itself shows and applies a bound plan, and its first plan has no
// state.
func TestTerraformTakesABoundPlan(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "main.tf"), []byte(`resource "terraform_data" "a" { input = "x" }`), 0o600)
	terraform := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "terraform", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("terraform %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	bind := func(name string) state.Head {
		t.Helper()
		path := filepath.Join(dir, name)
		h, err := Head(path)
		if err != nil {
			t.Fatal(err)
		}
		b := binding()
		b.HasState, b.Lineage, b.Serial = h.Exists, h.Lineage, h.Serial
		if err := Bind(path, path, b); err != nil {
			t.Fatal(err)
		}
		if _, got, err := Read(path); err != nil || !got.Same(h) {
			t.Fatalf("got %v, %v", got, err)
		}
		return h
	}
	terraform("init", "-input=false")
	terraform("plan", "-out=p1")
	if h := bind("p1"); h.Exists {
		t.Errorf("a first plan: got %v", h)
	}
	if out := terraform("show", "-no-color", "p1"); !strings.Contains(out, "terraform_data.a will be created") {
		t.Errorf("got %s", out)
	}
	terraform("apply", "-input=false", "p1")
	terraform("plan", "-out=p2", "-destroy")
	if h := bind("p2"); !h.Exists || h.Serial != 1 {
		t.Errorf("a second plan: got %v", h)
	}
	if out := terraform("apply", "-no-color", "-input=false", "p2"); !strings.Contains(out, "1 destroyed") {
		t.Errorf("got %s", out)
	}
}
