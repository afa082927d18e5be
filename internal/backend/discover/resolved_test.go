package discover

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/backend"
)

func TestResolved(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       map[string]any
		err        func(error) bool
		broken     bool
	}{
		{
			name: "as terraform 1.11 writes it: null is unset",
			text: `{"version": 3, "terraform_version": "1.11.4", "backend": {"type": "s3", "hash": 1, "config": {
				"bucket": "a", "key": "k", "region": null, "encrypt": true, "max_retries": 7, "allowed_account_ids": ["1"],
				"assume_role": {"role_arn": "arn", "duration": null, "tags": {"a": "b"}}, "endpoints": null}}}`,
			want: map[string]any{"bucket": "a", "key": "k", "encrypt": true, "max_retries": int64(7), "allowed_account_ids": []string{"1"},
				"assume_role": map[string]any{"role_arn": "arn", "tags": map[string]any{"a": "b"}}},
		},
		{name: "no file", err: func(err error) bool { return errors.Is(err, ErrNotInitialised) }},
		{name: "no backend in it", text: `{"version": 3}`, err: func(err error) bool { return errors.Is(err, ErrNotInitialised) }},
		{name: "another backend", text: `{"version": 3, "backend": {"type": "gcs", "config": {}}}`, err: is[*NotS3Error]},
		{name: "a config of null", text: `{"backend": {"type": "s3", "config": null}}`, want: map[string]any{}},
		{name: "cut off by a kill", text: `{"version": 3, "backend": {"ty`, err: is[*BrokenError], broken: true},
		{name: "no more than a line break", text: "\n", err: is[*BrokenError], broken: true},
		{name: "no object", text: `["version"]`, err: is[*BrokenError], broken: true},
		{name: "something behind it", text: `{"version": 3} {}`, err: is[*BrokenError], broken: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "terraform.tfstate")
			if test.text != "" {
				if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Resolved(dir)
			if test.err != nil && (err == nil || !test.err(err)) || test.err == nil && err != nil {
				t.Fatalf("error of type %T: %v", err, err)
			}
			if diff := cmp.Diff(test.want, got.Attrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}

			mended, err := Mend(dir)
			if err != nil || mended != test.broken {
				t.Errorf("mended: %v, %v", mended, err)
			}
			if test.broken {
				aside, err := os.ReadFile(path + ".broken")
				if err != nil || string(aside) != test.text {
					t.Errorf("moved aside: %q, %v", aside, err)
				}
				if _, err := Resolved(dir); !errors.Is(err, ErrNotInitialised) {
					t.Errorf("after mending: %v", err)
				}
			} else if test.text != "" {
				if text, err := os.ReadFile(path); err != nil || string(text) != test.text {
					t.Errorf("a sound file was touched: %v", err)
				}
			}
		})
	}
}

func TestCompare(t *testing.T) {
	type attrs = map[string]any
	base := func(change attrs) backend.Settings {
		a := attrs{"bucket": "a", "key": "k", "access_key": "one", "endpoints": attrs{"s3": "x"}, "assume_role": attrs{"policy_arns": []string{"a", "b"}}}
		for k, v := range change {
			a[k] = v
		}
		return settings(a)
	}
	for _, test := range []struct {
		name                 string
		discovered, resolved attrs
		want                 []string
	}{
		{name: "the same"},
		{name: "unset, empty and false are one", discovered: attrs{"region": "", "encrypt": false}, resolved: attrs{"kms_key_id": "", "use_lockfile": false}},
		{name: "the default prefix, written or not", discovered: attrs{"workspace_key_prefix": "env:"}},
		{name: "lists are sets", discovered: attrs{"assume_role": attrs{"policy_arns": []string{"b", "a"}}}},
		{name: "what does not decide which state is meant", discovered: attrs{"max_retries": int64(1), "skip_region_validation": true}},
		{
			name: "another bucket and another table", discovered: attrs{"bucket": "b"}, resolved: attrs{"dynamodb_table": "t"},
			want: []string{`bucket: the configuration says "b", terraform resolved "a"`, `dynamodb_table: the configuration says nothing, terraform resolved "t"`},
		},
		{
			name: "an empty prefix is not the default", discovered: attrs{"workspace_key_prefix": ""},
			want: []string{`workspace_key_prefix: the configuration says "", terraform resolved nothing`},
		},
		{
			name: "locks elsewhere", resolved: attrs{"use_lockfile": true},
			want: []string{"use_lockfile: the configuration says nothing, terraform resolved true"},
		},
		{
			name: "secrets are not printed", discovered: attrs{"access_key": "two", "sse_customer_key": "s"},
			want: []string{"sse_customer_key differs", "access_key differs"},
		},
		{
			name: "nor those in an object", discovered: attrs{"assume_role_with_web_identity": attrs{"web_identity_token": "s"}},
			want: []string{`assume_role_with_web_identity: the configuration says {"web_identity_token":"(hidden)"}, terraform resolved nothing`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, r := base(test.discovered), base(test.resolved)
			d.Region, d.SSECustomerKey = "from the environment", "from the environment"
			if diff := cmp.Diff(test.want, Compare(d, r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWorkspace(t *testing.T) {
	for _, test := range []struct {
		name, flag, env, file string
		want                  string
		err                   string
	}{
		{name: "nothing says otherwise", want: "default"},
		{name: "the file that terraform workspace select writes", file: "staging\n", want: "staging"},
		{name: "TF_WORKSPACE beats the file", env: "prod", file: "staging", want: "prod"},
		{name: "the flag beats both", flag: "dev", env: "prod", file: "staging", want: "dev"},
		{name: "an empty file", file: " \n", want: "default"},
		{name: "a slash", flag: "a/b", err: `--workspace: "a/b" is no name of a workspace`},
		{name: "a space", env: "a b", err: `TF_WORKSPACE: "a b" is no name of a workspace`},
		{name: "the way out of the prefix", flag: "..", err: `--workspace: ".." is no name of a workspace`},
		{name: "control characters in the file", file: "a\x1b[2J", err: `environment: "a` + "\ufffd" + `[2J" is no name of a workspace`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.file != "" {
				if err := os.WriteFile(filepath.Join(dir, "environment"), []byte(test.file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Workspace(dir, test.flag, environment("TF_WORKSPACE="+test.env))
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || !is[*WorkspaceError](err)) {
				t.Fatalf("error %v", err)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzResolved(f *testing.F) {
	f.Add([]byte(`{"backend": {"type": "s3", "config": {"bucket": ["a", {"b": 1e400}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "terraform.tfstate"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := Resolved(dir)
		if is[*BrokenError](err) != BrokenDataDir(dir) {
			t.Errorf("Resolved says %v, BrokenDataDir %v", err, BrokenDataDir(dir))
		}
		Render(got)
		if diff := Compare(got, got); len(diff) > 0 {
			t.Errorf("differs from itself: %v", diff)
		}
	})
}
