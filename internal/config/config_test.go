package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func to[T any](v T) *T { return &v }

// written puts text into a .tfguard.hcl.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), Name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadEverything(t *testing.T) {
	path := written(t, `
terraform {
  bin          = "./bin/tofu"
  version      = "1.11.4"
  parallelism  = 4
  var_files    = ["prod.tfvars", "/abs/x.tfvars"]
  vars         = { a = "b", n = 3, yes = true }
  lock_timeout = "0s"
  plan_max_age = "24h"
  upgrade      = false
  cancel_after = "20m"
}
backend {
  setup        = true
  bucket       = "state"
  key          = "k"
  use_lockfile = true
  max_retries  = 3
  endpoints    = { s3 = "http://x" }
  assume_role {
    role_arn = "arn"
    tags     = { a = "b" }
  }
}
locks {
  stale_after  = "1h30m"
  unlock_stale = "proven"
  wait         = "10m"
  holder       = "required"
}
snapshots {
  keep      = 5
  keep_days = 0
  bucket    = "copies"
  region    = "eu-north-1"
}
guard {
  protect      = ["aws_db_instance.*"]
  max_deletes  = 0
  allow_delete = []
  credentials  = "required"
}
hook "build" {
  before  = "plan"
  command = ["./build.sh", ""]
  timeout = "10m"
  env     = { K = "V" }
}
hook "tell" {
  after   = "lock-check"
  command = ["true"]
}
github { comment = true }
`)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := File{
		Path: path,
		Terraform: Terraform{
			Bin: to(filepath.Join(dir, "bin/tofu")), Version: to("1.11.4"), Parallelism: to(4),
			VarFiles:    []string{filepath.Join(dir, "prod.tfvars"), "/abs/x.tfvars"},
			Vars:        map[string]string{"a": "b", "n": "3", "yes": "true"},
			LockTimeout: to(time.Duration(0)), PlanMaxAge: to(24 * time.Hour), Upgrade: to(false),
			CancelAfter: to(20 * time.Minute),
		},
		Backend: Backend{Setup: to(true), Attrs: map[string]any{
			"bucket": "state", "key": "k", "use_lockfile": true, "max_retries": int64(3),
			"endpoints":   map[string]any{"s3": "http://x"},
			"assume_role": map[string]any{"role_arn": "arn", "tags": map[string]any{"a": "b"}},
		}},
		Locks:     Locks{StaleAfter: to(90 * time.Minute), UnlockStale: to("proven"), Wait: to(10 * time.Minute), Holder: to("required")},
		Snapshots: Snapshots{Keep: to(5), KeepDays: to(0), Bucket: to("copies"), Region: to("eu-north-1")},
		Guard:     Guard{Protect: []string{"aws_db_instance.*"}, MaxDeletes: to(0), AllowDelete: []string{}, Credentials: to("required")},
		Hooks: []Hook{
			{Name: "build", Before: "plan", Command: []string{"./build.sh", ""}, Timeout: to(10 * time.Minute), Env: map[string]string{"K": "V"}, Line: 43},
			{Name: "tell", After: "lock-check", Command: []string{"true"}, Line: 49},
		},
		GitHub: GitHub{Comment: to(true)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadNothing(t *testing.T) {
	for _, text := range []string{"", "# a comment\n", "terraform {}\nbackend {}\nguard {\n  protect = null\n}\n"} {
		path := written(t, text)
		got, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(File{Path: path}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // line:column: message, all of them
	}{
		{"an unknown block, with a suggestion", "lock {\n}", []string{`1:1: blocks of type "lock" are not expected here. Did you mean "locks"?`}},
		{"an unknown attribute, with a suggestion", "locks {\n  stale_afer = \"1m\"\n}", []string{`2:3: an argument named "stale_afer" is not expected here. Did you mean "stale_after"?`}},
		{"an attribute outside of a block", "parallelism = 3", []string{`1:1: an argument named "parallelism" is not expected here`}},
		{"a block twice, with both places", "github {}\n\ngithub {}", []string{`3:1: there is a block "github" at line 1 already`}},
		{"a label where none belongs", `github "x" {}`, []string{"1:8: no labels are expected for github blocks"}},
		{"a number in quotes", "terraform {\n  parallelism = \"4\"\n}", []string{"2:17: parallelism is a number, without quotes"}},
		{"a number that is not whole", "terraform {\n  parallelism = 1.5\n}", []string{"2:17: parallelism is a whole number, 1 or more"}},
		{"a number that is too small", "snapshots {\n  keep = 0\n}", []string{"2:10: keep is a whole number, 1 or more"}},
		{"a number without end", "guard {\n  max_deletes = 1e300\n}", []string{"2:17: max_deletes is a whole number, 0 or more"}},
		{"a number that takes minutes to be written out", "terraform {\n  vars = { a = 1e9999999 }\n}", []string{`2:16: "vars" has a number that is out of bounds`}},
		{"such a number in the block of an object", "backend {\n  endpoints {\n    s3 = 1e9999999\n  }\n}", []string{`3:10: "endpoints" has a number that is out of bounds`}},
		{"a bool in quotes", "github {\n  comment = \"true\"\n}", []string{"2:13: comment is true or false, without quotes"}},
		{"a number for a text", "terraform {\n  version = 1.11\n}", []string{"2:13: version is a text in quotes"}},
		{"an empty text", "terraform {\n  bin = \"\"\n}", []string{"2:9: bin must not be empty"}},
		{"a duration in words", "locks {\n  wait = \"10 minutes\"\n}", []string{`2:10: wait is "10 minutes", which is no duration: write it such as "30m", "1h30m" or "45s"`}},
		{"a duration without a unit", "locks {\n  wait = 10\n}", []string{`2:10: wait is a duration in quotes, such as "30m" or "1h30m"`}},
		{"a negative duration", "locks {\n  wait = \"-1s\"\n}", []string{"2:10: wait is a duration that is not negative"}},
		{"a duration of nothing where it would make every lock stale", "locks {\n  stale_after = \"0s\"\n}", []string{"2:17: stale_after is a duration of more than 0"}},
		{"a value that is not one of them", "locks {\n  unlock_stale = \"always\"\n}", []string{"2:18: unlock_stale is one of never, approved, proven"}},
		{"a text for a list", "guard {\n  protect = \"a\"\n}", []string{`2:13: protect is a list of texts, such as ["a", "b"]`}},
		{"a list of numbers", "guard {\n  protect = [1]\n}", []string{"2:13: protect has an element that is not usable: it is a text in quotes"}},
		{"a list with null", "guard {\n  protect = [null]\n}", []string{"2:13: protect has an element that is null"}},
		{"an object of lists", "terraform {\n  vars = { a = [] }\n}", []string{`2:10: vars has a value that is no text: "a"`}},
		{"a reference", "terraform {\n  bin = env.HOME\n}", []string{`2:9: "bin" refers to env.HOME: only literal values are possible here`}},
		{"a reference in a template", "terraform {\n  bin = \"${path}\"\n}", []string{`2:9: "bin" refers to path: only literal values are possible here`}},
		{"a function", "terraform {\n  bin = file(\"x\")\n}", []string{`2:9: "bin" calls a function: only literal values are possible here`}},
		{"an attribute that the S3 backend has not", "backend {\n  dynamodb_tabel = \"t\"\n}", []string{`2:3: an argument named "dynamodb_tabel" is not expected here. Did you mean "dynamodb_table"?`}},
		{"a backend attribute of the wrong type", "backend {\n  encrypt = \"maybe\"\n}", []string{`2:13: "encrypt" is not usable: it is true or false`}},
		{"an object as a block and as an attribute", "backend {\n  endpoints = {}\n  endpoints {}\n}", []string{`3:3: "endpoints" is set already`}},
		{"an unknown name in an object", "backend {\n  endpoints {\n    s4 = \"x\"\n  }\n}", []string{`2:3: "endpoints" has no attribute "s4"`}},
		{"a block in a block of an object", "backend {\n  assume_role {\n    tags {}\n  }\n}", []string{"3:5: blocks are not allowed here"}},
		{"a hook without a stage", "hook \"x\" {\n  command = [\"a\"]\n}", []string{"1:1: a hook has either before or after, with the name of a stage: check, backend, lock-check, plan, recheck, snapshot, apply"}},
		{"a hook with two stages", "hook \"x\" {\n  before = \"plan\"\n  after = \"plan\"\n  command = [\"a\"]\n}", []string{"1:1: a hook has either before or after, with the name of a stage: check, backend, lock-check, plan, recheck, snapshot, apply"}},
		{"a hook at an unknown stage", "hook \"x\" {\n  before = \"init\"\n  command = [\"a\"]\n}", []string{"2:12: before is one of check, backend, lock-check, plan, recheck, snapshot, apply"}},
		{"a hook without a command", "hook \"x\" {\n  before = \"plan\"\n}", []string{`1:1: a hook has a command, such as ["./build.sh", "argument"]`}},
		{"a hook with an empty program", "hook \"x\" {\n  before = \"plan\"\n  command = [\"\", \"a\"]\n}", []string{`1:1: a hook has a command, such as ["./build.sh", "argument"]`}},
		{"a hook without a name", "hook {\n}", []string{"1:6: all hook blocks must have 1 labels (name)"}},
		{"a hook whose name would break a stage's name", "hook \"a b\" {\n  before = \"plan\"\n  command = [\"a\"]\n}", []string{`1:6: a hook's name has letters, digits, "-", "_" and ".", 64 at most`}},
		{"two hooks of one name", "hook \"x\" {\n  before = \"plan\"\n  command = [\"a\"]\n}\nhook \"x\" {\n  after = \"plan\"\n  command = [\"a\"]\n}", []string{`5:1: there is a hook "x" already`}},
		{"a variable's name that is none", "hook \"x\" {\n  before = \"plan\"\n  command = [\"a\"]\n  env = { \"A=B\" = \"\" }\n}", []string{`1:1: "A=B" is no name of an environment variable`}},
		{"several errors, all told", "github {\n  comment = 1\n}\nsnapshots {\n  keep = 0\n  kept = 1\n}", []string{"2:13: comment is true or false, without quotes", `6:3: an argument named "kept" is not expected here`, "5:10: keep is a whole number, 1 or more"}},
		{"a syntax error", "terraform {\n  bin = \n}", []string{"2:9: expected the start of an expression, but found an invalid expression token"}},
		{"what is said has no control characters", "terraform {\n  bin = \"a\\u0000b\"\n}\nlocks {\n  wait = \"\\u001b[2J\"\n}", []string{"2:9: bin must not have a NUL character", "5:10: wait is \"\\x1b[2J\", which is no duration: write it such as \"30m\", \"1h30m\" or \"45s\""}},
		{"a nesting that would exhaust the stack", "terraform {\n  vars = " + strings.Repeat("[", 1<<17), []string{"2:1: blocks or expressions are nested too deep"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := written(t, test.text)
			_, err := Load(path)
			if err == nil {
				t.Fatal("no error")
			}
			var one *Error
			if !errors.As(err, &one) || one.File != path || one.Line == 0 || one.Column == 0 {
				t.Errorf("the first error has no place: %#v", one)
			}
			got := strings.Split(strings.ReplaceAll(err.Error(), path+":", ""), "\n")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):   "cannot be read: no such file or directory",
		dir:                          "cannot be read: it is not a regular file",
		large:                        "cannot be read: it is larger than 262144 bytes",
		filepath.Join(dir, "x.json"): "cannot be read: no such file or directory",
	} {
		_, err := Load(path)
		var one *Error
		if !errors.As(err, &one) || err.Error() != path+": "+want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFind(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string // under the root; the search starts in repo/a/b
		want  string
	}{
		{"in the directory itself, without a repository", []string{"repo/a/b/" + Name}, "repo/a/b/" + Name},
		{"no parent without a repository", []string{"repo/a/" + Name, Name}, ""},
		{"the nearest parent in a repository", []string{"repo/.git", "repo/a/" + Name, "repo/" + Name}, "repo/a/" + Name},
		{"the repository's root", []string{"repo/.git/HEAD", "repo/" + Name}, "repo/" + Name},
		{"not beyond the repository's root", []string{"repo/.git/HEAD", Name}, ""},
		{"not beyond a submodule's root", []string{".git/HEAD", "repo/a/.git", Name, "repo/" + Name}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "repo/a/b")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, f := range test.files {
				f = filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			path, ok, err := Find(dir)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want != "" {
				want = filepath.Join(root, want)
			}
			if path != want || ok != (want != "") {
				t.Errorf("got %q, %v, want %q", path, ok, want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("terraform {\n vars = { (null) = 1 }\n parallelism = 1e999\n}")
	f.Add("backend {\n assume_role {\n tags = {a=[null]}\n}\n key = <<E\nE\n}")
	f.Add("hook \"x\" {\n before = \"plan\"\n command = [for x in []: x]\n}")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := parse("f", []byte(text))
		var one *Error
		if err != nil && !errors.As(err, &one) {
			t.Errorf("error of type %T: %v", err, err)
		}
	})
}
