package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/backend"
)

type files map[string]string

// in writes files into a new directory.
func in(t *testing.T, f files) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range f {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == name {
				return v
			}
		}
		return ""
	}
}

// s3 is a file with a backend block of bucket name.
func s3(name string) string {
	return fmt.Sprintf("terraform {\n  backend \"s3\" {\n    bucket = %q\n    key    = \"k\"\n  }\n}\n", name)
}

const resource = "resource \"terraform_data\" \"x\" {}\n"

func TestDiscover(t *testing.T) {
	attrs := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	}
	for _, test := range []struct {
		name     string
		files    files
		config   []string // {} stands for the directory
		fallback map[string]any
		tofu     bool
		env      []string

		want     map[string]any
		at       string // file:line of the block
		warnings []string
		settings func(backend.Settings) bool
	}{
		{
			name:  "a block in an ordinary file",
			files: files{"main.tf": s3("a"), "x.tf": resource},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf:2",
		},
		{
			name:  "a block in JSON",
			files: files{"main.tf.json": `{"//": "c", "terraform": {"backend": {"s3": {"//": "c", "bucket": "a", "key": "k", "encrypt": true, "endpoints": {"s3": "http://x"}}}}}`},
			want:  attrs("bucket", "a", "key", "k", "encrypt", true, "endpoints", attrs("s3", "http://x")), at: "main.tf.json:1",
		},
		{
			name:  "a block in JSON whose name is spelled with an escape",
			files: files{"main.tf.json": `{"\u0074erraform": [{"backend": [{"s3": [{"bucket": "a", "key": "k"}]}]}]}`},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf.json:1",
		},
		{
			name: "every type, converted as terraform converts them, and null is unset",
			files: files{"main.tf": `terraform {
				backend "s3" {
					bucket         = "a"
					key            = 12
					region         = null
					encrypt        = "true"
					use_lockfile   = true
					max_retries    = "7"
					allowed_account_ids = ["2", "1", "2"]
					assume_role = {
						role_arn = "arn"
						duration = null
						policy_arns = ["p"]
						tags = { a = "b" }
					}
				}
			}`},
			want: attrs("bucket", "a", "key", "12", "encrypt", true, "use_lockfile", true, "max_retries", int64(7),
				"allowed_account_ids", []string{"1", "2"},
				"assume_role", attrs("role_arn", "arn", "policy_arns", []string{"p"}, "tags", attrs("a", "b"))),
			at: "main.tf:2",
			settings: func(s backend.Settings) bool {
				return s.Key == "12" && s.Encrypt && s.UseLockfile && s.Region == ""
			},
		},
		{
			name:  "literal templates and heredocs are values",
			files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    bucket = \"a-${\"b\"}\"\n    key = <<-E\n      x\n    E\n  }\n}\n"},
			want:  attrs("bucket", "a-b", "key", "x\n"), at: "main.tf:2",
		},
		{
			name:  "override files replace the block whole",
			files: files{"main.tf": strings.Replace(s3("a"), "key ", "region = \"r\"\nkey ", 1), "override.tf": s3("b")},
			want:  attrs("bucket", "b", "key", "k"), at: "override.tf:2",
		},
		{
			name:  "of several override files the last by name counts",
			files: files{"main.tf": s3("a"), "a_override.tf": s3("b"), "z_override.tf.json": `{"terraform":{"backend":{"s3":{"bucket":"z"}}}}`, "override.tf": s3("c")},
			want:  attrs("bucket", "z"), at: "z_override.tf.json:1",
		},
		{
			name:  "an override file is enough",
			files: files{"main.tf": resource, "x_override.tf": s3("b")},
			want:  attrs("bucket", "b", "key", "k"), at: "x_override.tf:2",
		},
		{
			name:  "backend-override.tf and override.tf.bak override nothing",
			files: files{"backend-override.tf": s3("a"), "override.tf.bak": s3("b"), "myoverride.tf": resource},
			want:  attrs("bucket", "a", "key", "k"), at: "backend-override.tf:2",
		},
		{
			name:  "a backend in an override file replaces a cloud block",
			files: files{"main.tf": "terraform {\n  cloud {}\n}\n", "override.tf": s3("b")},
			want:  attrs("bucket", "b", "key", "k"), at: "override.tf:2",
		},
		{
			name:  "hidden files, backups and nested modules do not count",
			files: files{"main.tf": s3("a"), ".x.tf": s3("b"), "y.tf~": s3("b"), "#z.tf#": s3("b"), "sub/main.tf": s3("b"), "q.tfbackend": s3("b"), "m.tofu": s3("b")},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf:2",
		},
		{
			name:  "a syntax error in a file without the word is terraform's to tell",
			files: files{"main.tf": s3("a"), "x.tf": "resource {{{"},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf:2",
		},
		{
			name:  "OpenTofu reads .tofu files, instead of the .tf of the same name",
			files: files{"main.tf": s3("a"), "main.tofu": s3("b"), "x_override.tf.json": "{", "x_override.tofu.json": "{}"},
			tofu:  true,
			want:  attrs("bucket", "b", "key", "k"), at: "main.tofu:2",
		},
		{
			name:     "the fallback where there is no block",
			files:    files{"main.tf": resource},
			fallback: attrs("bucket", "f", "key", "k"),
			want:     attrs("bucket", "f", "key", "k"),
		},
		{
			name:     "a block, even an empty one, beats the fallback, and that is said",
			files:    files{"main.tf": "terraform {\n  backend \"s3\" {}\n}\n"},
			config:   []string{"bucket=a"},
			fallback: attrs("bucket", "f", "key", "k"),
			want:     attrs("bucket", "a"), at: "main.tf:2",
			warnings: []string{"the settings of the backend block in .tfguard.hcl are not used: main.tf:2 declares a backend"},
		},
		{
			name:   "--backend-config in order: pairs and files, the later wins",
			files:  files{"main.tf": s3("a"), "one.hcl": "bucket = \"one\"\nkey = \"one\"\nregion = \"one\"", "two.json": `{"region": "two", "use_lockfile": true}`},
			config: []string{"region=zero", "{}/one.hcl", "{}/two.json", "key=three=3", "encrypt=1"},
			want:   attrs("bucket", "one", "key", "three=3", "region", "two", "use_lockfile", true, "encrypt", true),
			at:     "main.tf:2",
		},
		{
			name:   "--backend-config of text is taken as it stands, of other types as HCL",
			files:  files{"main.tf": s3("a")},
			config: []string{`key="${q}"`, `assume_role={role_arn="arn", tags={a="b"}}`, `shared_config_files=["b","a"]`, "max_retries=3"},
			want: attrs("bucket", "a", "key", `"${q}"`, "max_retries", int64(3), "shared_config_files", []string{"a", "b"},
				"assume_role", attrs("role_arn", "arn", "tags", attrs("a", "b"))),
			at: "main.tf:2",
		},
		{
			name:   "a null in a file of --backend-config unsets",
			files:  files{"main.tf": strings.Replace(s3("a"), "key ", "dynamodb_table = \"t\"\nkey ", 1), "one.hcl": "dynamodb_table = null"},
			config: []string{"{}/one.hcl"},
			want:   attrs("bucket", "a", "key", "k"), at: "main.tf:2",
		},
		{
			name:   "one empty --backend-config is none",
			files:  files{"main.tf": s3("a")},
			config: []string{""},
			want:   attrs("bucket", "a", "key", "k"), at: "main.tf:2",
		},
		{
			name:  "the environment gives what is unset, and not to Attrs",
			files: files{"main.tf": s3("a")},
			env:   []string{"AWS_REGION=r1", "AWS_DEFAULT_REGION=r2", "AWS_SSE_CUSTOMER_KEY=secret"},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf:2",
			settings: func(s backend.Settings) bool { return s.Region == "r1" && s.SSECustomerKey == "secret" },
		},
		{
			name:   "AWS_DEFAULT_REGION counts without AWS_REGION, and an empty region is unset",
			files:  files{"main.tf": s3("a")},
			config: []string{"region="},
			env:    []string{"AWS_DEFAULT_REGION=r2"},
			want:   attrs("bucket", "a", "key", "k", "region", ""), at: "main.tf:2",
			settings: func(s backend.Settings) bool { return s.Region == "r2" },
		},
		{
			name:   "what is set beats the environment",
			files:  files{"main.tf": s3("a")},
			config: []string{"region=r", "sse_customer_key=mine"},
			env:    []string{"AWS_REGION=r1", "AWS_SSE_CUSTOMER_KEY=secret"},
			want:   attrs("bucket", "a", "key", "k", "region", "r", "sse_customer_key", "mine"), at: "main.tf:2",
			settings: func(s backend.Settings) bool { return s.Region == "r" && s.SSECustomerKey == "mine" },
		},
		{
			name:   "names that no version of the backend has had are warnings",
			files:  files{"main.tf": strings.Replace(s3("a"), "key ", "dynamodb_tabel = \"t\"\nkey ", 1)},
			config: []string{"nex=true"},
			want:   attrs("bucket", "a", "key", "k", "dynamodb_tabel", "t", "nex", "true"), at: "main.tf:2",
			warnings: []string{
				`main.tf:4:5: an argument named "dynamodb_tabel" is not expected here. Did you mean "dynamodb_table"?`,
				"--backend-config nex: terraform's S3 backend has no such setting that tfguard knows of",
			},
		},
		{
			name:  "a -backend-config in TF_CLI_ARGS_init is not missed in silence",
			files: files{"main.tf": s3("a")},
			env:   []string{"TF_CLI_ARGS_init=-backend-config=x"},
			want:  attrs("bucket", "a", "key", "k"), at: "main.tf:2",
			warnings: []string{"the -backend-config in TF_CLI_ARGS_init is not read: give it to tfguard as --backend-config"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := in(t, test.files)
			var config []string
			for _, c := range test.config {
				config = append(config, strings.ReplaceAll(c, "{}", dir))
			}
			got, err := Discover(Source{Dir: dir, BackendConfig: config, Fallback: test.fallback, Tofu: test.tofu, Env: environment(test.env...)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Settings.Attrs); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			at := ""
			if got.Declared {
				at = fmt.Sprintf("%s:%d", filepath.Base(got.File), got.Line)
			}
			if at != test.at {
				t.Errorf("declared at %q, want %q", at, test.at)
			}
			var warnings []string
			for _, w := range got.Warnings {
				warnings = append(warnings, strings.ReplaceAll(w, dir+string(filepath.Separator), ""))
			}
			if diff := cmp.Diff(test.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if test.settings != nil && !test.settings(got.Settings) {
				t.Errorf("settings: %+v", got.Settings)
			}
		})
	}
}

func TestDiscoverRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		files  files
		config []string
		tofu   bool
		want   string // {} stands for the directory
		is     func(error) bool
	}{
		{
			name: "a directory without terraform files", files: files{"README": ""},
			want: "{}: there are no terraform files", is: func(err error) bool { return errors.Is(err, ErrNoConfiguration) },
		},
		{
			name: "a directory with nothing but the generated override: the plan would destroy everything", files: files{OverrideName: "# Generated by tfguard\n" + s3("a")},
			want: "{}: there are no terraform files", is: func(err error) bool { return errors.Is(err, ErrNoConfiguration) },
		},
		{
			name: "no backend block", files: files{"main.tf": resource},
			want: "{}: the configuration has no backend block", is: func(err error) bool { return errors.Is(err, ErrNoBackend) },
		},
		{
			name: "two blocks in ordinary files, with both places", files: files{"a.tf": s3("a"), "b.tf": s3("b"), "override.tf": s3("c")},
			want: "{}/b.tf:2: duplicate backend configuration: there is one at {}/a.tf:2 already; only override.tf and *_override.tf replace a backend",
			is:   is[*DuplicateError],
		},
		{
			name: "names that only look like overrides are ordinary files", files: files{"backend-override.tf": s3("a"), "myoverride.tf": s3("b")},
			want: "{}/myoverride.tf:2: duplicate backend configuration: there is one at {}/backend-override.tf:2 already; only override.tf and *_override.tf replace a backend",
			is:   is[*DuplicateError],
		},
		{
			name: "two blocks in one override file", files: files{"override.tf": s3("a") + s3("b")},
			want: "{}/override.tf:8: duplicate backend configuration: there is one at {}/override.tf:2 already; only override.tf and *_override.tf replace a backend",
			is:   is[*DuplicateError],
		},
		{
			name: "a backend of another type", files: files{"main.tf": "terraform {\n  backend \"gcs\" {}\n}"},
			want: `{}/main.tf:2: the backend is "gcs", tfguard works with "s3"`, is: is[*NotS3Error],
		},
		{
			name: "a cloud block", files: files{"main.tf": "terraform {\n  cloud {\n    organization = \"o\"\n  }\n}"},
			want: "{}/main.tf:2: the state is in HCP Terraform (a cloud block), tfguard works with the S3 backend", is: is[*NotS3Error],
		},
		{
			name: "a cloud block in an override file replaces the backend", files: files{"main.tf": s3("a"), "override.tf": "terraform {\n  cloud {}\n}"},
			want: "{}/override.tf:2: the state is in HCP Terraform (a cloud block), tfguard works with the S3 backend", is: is[*NotS3Error],
		},
		{
			name: "a cloud block beside a backend", files: files{"a.tf": s3("a"), "b.tf": "terraform {\n  cloud {}\n}"},
			want: "{}/a.tf:2:3: there is a cloud block at {}/b.tf:2 too: only one of the two is possible", is: is[*Error],
		},
		{
			name: "a variable", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    bucket = \"a-${var.env.name}\"\n  }\n}"},
			want: `{}/main.tf:3:14: "bucket" refers to var.env.name: only literal values are possible here; give it with --backend-config instead`, is: is[*Error],
		},
		{
			name: "a local, with OpenTofu", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    bucket = local.b\n  }\n}"}, tofu: true,
			want: `{}/main.tf:3:14: "bucket" refers to local.b: only literal values are possible here; give it with --backend-config instead, also where OpenTofu could evaluate it`, is: is[*Error],
		},
		{
			name: "a variable in JSON", files: files{"main.tf.json": `{"terraform": {"backend": {"s3": {"bucket": "${var.b}"}}}}`},
			want: `{}/main.tf.json:1:45: "bucket" refers to var.b: only literal values are possible here; give it with --backend-config instead`, is: is[*Error],
		},
		{
			name: "a function", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    bucket = lower(\"A\")\n  }\n}"},
			want: `{}/main.tf:3:14: "bucket" calls a function: only literal values are possible here; give it with --backend-config instead`, is: is[*Error],
		},
		{
			name: "several wrong attributes are all told", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    encrypt = \"maybe\"\n    bucket = [\"a\"]\n  }\n}"},
			want: "{}/main.tf:3:15: \"encrypt\" is not usable: it is true or false\n{}/main.tf:4:14: \"bucket\" is not usable: string required, but have tuple",
			is:   is[*Error],
		},
		{
			name: "a block where terraform wants an object", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    assume_role {\n    }\n  }\n}"},
			want: `{}/main.tf:3:5: blocks of type "assume_role" are not expected here. Did you mean to define argument "assume_role"? If so, use the equals sign to assign it a value`, is: is[*Error],
		},
		{
			name: "an unknown name in an object", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    endpoints = { s4 = \"x\" }\n  }\n}"},
			want: `{}/main.tf:3:17: "endpoints" has no attribute "s4"`, is: is[*Error],
		},
		{
			name: "a syntax error in a file that may have the block", files: files{"main.tf": "terraform {\n  backend s3\n}"},
			want: "{}/main.tf:2:13: a block definition must have block content delimited by \"{\" and \"}\", starting on the same line as the block header", is: is[*Error],
		},
		{
			name: "a syntax error in JSON", files: files{"main.tf.json": "{\"terraform\": "},
			is: is[*Error],
		},
		{
			name: "a nesting that would exhaust the stack", files: files{"main.tf": "terraform {}\nlocals {\n x = " + strings.Repeat("(", 1<<20)},
			want: "{}/main.tf:3:1: blocks or expressions are nested too deep", is: is[*Error],
		},
		{
			name: "a number that takes minutes to be written out", files: files{"main.tf": "terraform {\n  backend \"s3\" {\n    key = \"a-${1e9999999}\"\n  }\n}"},
			want: `{}/main.tf:3:16: "key" has a number that is out of bounds`, is: is[*Error],
		},
		{
			name: "such a number in JSON", files: files{"main.tf.json": `{"terraform": {"backend": {"s3": {"key": 1e9999999}}}}`},
			want: `{}/main.tf.json:1:42: "key" has a number that is out of bounds`, is: is[*Error],
		},
		{
			name: "such a number on the command line", files: files{"main.tf": s3("a")}, config: []string{"endpoints={s3=1e9999999}"},
			want: `--backend-config endpoints:1:5: "endpoints" has a number that is out of bounds`, is: is[*Error],
		},
		{
			name: "such a number as text", files: files{"main.tf": s3("a")}, config: []string{"max_retries=1e9999999"},
			want: `--backend-config max_retries: "max_retries" is not usable: the number is out of bounds`, is: is[*Error],
		},
		{
			name: "a --backend-config file that is not there", files: files{"main.tf": s3("a")}, config: []string{"{}/none.hcl"},
			is: func(err error) bool { return errors.Is(err, fs.ErrNotExist) },
		},
		{
			name: "a --backend-config file that is a directory", files: files{"main.tf": s3("a")}, config: []string{"{}"},
			want: "read the file of --backend-config: read {}: it is not a regular file",
		},
		{
			name: "a --backend-config file with a block", files: files{"main.tf": s3("a"), "b.hcl": s3("b")}, config: []string{"{}/b.hcl"},
			want: `{}/b.hcl:1:1: blocks of type "terraform" are not expected here`, is: is[*Error],
		},
		{
			name: "a --backend-config of the wrong type", files: files{"main.tf": s3("a")}, config: []string{"encrypt=maybe"},
			want: `--backend-config encrypt: "encrypt" is not usable: it is true or false`, is: is[*Error],
		},
		{
			name: "a --backend-config that is no expression", files: files{"main.tf": s3("a")}, config: []string{"assume_role={"},
			is: is[*Error],
		},
		{
			name: "a --backend-config expression nested too deep", files: files{"main.tf": s3("a")}, config: []string{"assume_role=" + strings.Repeat("!", 1<<20)},
			want: "--backend-config assume_role: the expression is nested too deep", is: is[*Error],
		},
		{
			name: "a --backend-config with no name", files: files{"main.tf": s3("a")}, config: []string{"\x1b[2J=x"},
			want: `--backend-config: "` + "\ufffd" + `[2J" is no name of a setting`, is: is[*Error],
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := in(t, test.files)
			var config []string
			for _, c := range test.config {
				config = append(config, strings.ReplaceAll(c, "{}", dir))
			}
			_, err := Discover(Source{Dir: dir, BackendConfig: config, Tofu: test.tofu})
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "{}"); test.want != "" && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if test.is != nil && !test.is(err) {
				t.Errorf("error of type %T: %v", err, err)
			}
		})
	}
	if _, err := Discover(Source{Dir: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// A generated override of an earlier run is no declaration: what it holds may
// be out of date. It is named, since terraform would read it.
func TestDiscoverSeesThroughGeneratedOverride(t *testing.T) {
	dir := in(t, files{"main.tf": s3("a"), OverrideName: "# Generated by tfguard\n" + s3("old")})
	got, err := Discover(Source{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got.Settings.Bucket != "a" || got.Generated != filepath.Join(dir, OverrideName) {
		t.Errorf("bucket %q, generated %q", got.Settings.Bucket, got.Generated)
	}
	if removed, err := RemoveOverride(dir); !removed || err != nil {
		t.Errorf("RemoveOverride: %v, %v", removed, err)
	}
	if err := os.WriteFile(filepath.Join(dir, OverrideName), []byte(s3("mine")), 0o644); err != nil {
		t.Fatal(err)
	}
	if removed, err := RemoveOverride(dir); removed || err != nil {
		t.Errorf("RemoveOverride of a file that is not tfguard's: %v, %v", removed, err)
	}
	if got, err = Discover(Source{Dir: dir}); err != nil || got.Settings.Bucket != "mine" {
		t.Errorf("a person's file of that name counts: %q, %v", got.Settings.Bucket, err)
	}
}

// Discover runs before everything else; it must not be felt.
func TestDiscoverIsQuick(t *testing.T) {
	f := files{"main.tf": s3("a")}
	for i := range 50 {
		f[fmt.Sprintf("r%02d.tf", i)] = strings.Repeat("resource \"aws_instance\" \"x\" {\n  ami = \"a\"\n  tags = { a = var.x, b = \"${var.y}-z\" }\n}\n", 60)
	}
	dir := in(t, f)
	best := time.Hour
	for range 5 {
		start := time.Now()
		if _, err := Discover(Source{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	if best > 10*time.Millisecond {
		t.Errorf("51 files took %s", best)
	}
}

func TestAbsolute(t *testing.T) {
	got := Absolute([]string{"bucket=a/b", "x.hcl", "", "/y.hcl"}, "/w")
	if diff := cmp.Diff([]string{"bucket=a/b", "/w/x.hcl", "", "/y.hcl"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzDiscover(f *testing.F) {
	f.Add("main.tf", s3("a"), "bucket=b")
	f.Add("main.tf.json", `{"terraform":{"backend":{"s3":{"bucket":"${a?b:c}"}}}}`, "assume_role={a=[1]}")
	f.Add("override.tf", "terraform {\n backend \"s3\" {\n key = <<E\nE\n}\n}", "max_retries=1e99")
	f.Add("a.tf", "terraform {\n backend \"s3\" {\n a = [null, {}]\n b = {(null) = 1}\n c = \"${[]}\"\n}\n}", "endpoints=null")
	f.Fuzz(func(t *testing.T, name, text, config string) {
		if name != "main.tf" && name != "main.tf.json" && name != "override.tf" {
			name = "main.tf"
		}
		dir := in(t, files{name: text})
		found, err := Discover(Source{Dir: dir, BackendConfig: []string{config + "=" + config, config}, Fallback: map[string]any{"bucket": "x"}})
		if err == nil {
			Render(found.Settings)
			Compare(found.Settings, backend.Settings{})
		}
	})
}
