package discover

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The backend block is edited, and nothing else in the file.
func TestEditBackend(t *testing.T) {
	for _, c := range []struct {
		sentence, in string
		change       map[string]any
		want         string
	}{
		{"an attribute is added, in terraform's format",
			"# kept\nterraform {\n  required_version = \">= 1.10\" # kept\n  backend \"s3\" {\n    bucket         = \"b\"\n    dynamodb_table = \"t\"\n  }\n}\n",
			map[string]any{"use_lockfile": true},
			"# kept\nterraform {\n  required_version = \">= 1.10\" # kept\n  backend \"s3\" {\n    bucket         = \"b\"\n    dynamodb_table = \"t\"\n    use_lockfile   = true\n  }\n}\n"},
		{"an attribute is removed, and the others are aligned again",
			"terraform {\n  backend \"s3\" {\n    bucket         = \"b\"\n    dynamodb_table = \"t\"\n    key            = \"k\"\n  }\n}\n",
			map[string]any{"dynamodb_table": nil},
			"terraform {\n  backend \"s3\" {\n    bucket = \"b\"\n    key    = \"k\"\n  }\n}\n"},
		{"an attribute is replaced",
			"terraform {\n  backend \"s3\" {\n    use_lockfile = false # not yet\n  }\n}\n",
			map[string]any{"use_lockfile": true},
			"terraform {\n  backend \"s3\" {\n    use_lockfile = true # not yet\n  }\n}\n"},
		{"a file that is not in terraform's format is not put into it",
			"terraform {\n backend \"s3\" {\n   bucket=\"b\"\n }\n}\nlocals {\n x=1\n}\n",
			map[string]any{"use_lockfile": true},
			"terraform {\n backend \"s3\" {\n   bucket=\"b\"\nuse_lockfile=true\n }\n}\nlocals {\n x=1\n}\n"},
		{"an empty block", "terraform {\n  backend \"s3\" {}\n}\n", map[string]any{"dynamodb_table": "t"}, "terraform {\n  backend \"s3\" {\n    dynamodb_table = \"t\"\n  }\n}\n"},
		{"a block in one line", "terraform {\n  backend \"s3\" { bucket = \"b\" }\n}\n", map[string]any{"use_lockfile": true}, "terraform {\n  backend \"s3\" {\n    bucket       = \"b\"\n    use_lockfile = true\n  }\n}\n"},
		{"a comment behind the brace", "terraform {\n  backend \"s3\" { # kept\n    bucket = \"b\"\n  }\n}\n", map[string]any{"use_lockfile": true}, "terraform {\n  backend \"s3\" { # kept\n    bucket       = \"b\"\n    use_lockfile = true\n  }\n}\n"},
		{"the block of another file's terraform block stays", "terraform {\n  required_version = \"1\"\n}\n\nterraform {\n  backend \"s3\" {\n    bucket = \"b\"\n  }\n}\n",
			map[string]any{"use_lockfile": true}, "terraform {\n  required_version = \"1\"\n}\n\nterraform {\n  backend \"s3\" {\n    bucket       = \"b\"\n    use_lockfile = true\n  }\n}\n"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "backend.tf")
			if err := os.WriteFile(path, []byte(c.in), 0o640); err != nil {
				t.Fatal(err)
			}
			src := Source{Dir: dir}
			found, err := Discover(src)
			if err != nil {
				t.Fatal(err)
			}
			edit, err := EditBackend(src, found, c.change)
			if err != nil {
				t.Fatal(err)
			}
			if now, _ := os.ReadFile(path); string(now) != c.in {
				t.Fatalf("it was written already: %s", now)
			}
			if err := edit.Write(); err != nil {
				t.Fatal(err)
			}
			now, _ := os.ReadFile(path)
			if d := cmp.Diff(c.want, string(now)); d != "" {
				t.Error(d)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("in the directory: %v", left)
			}
		})
	}
}

// What is not in a block that can be written is named, with what to do there.
func TestEditBackendElsewhere(t *testing.T) {
	const block = "terraform {\n  backend \"s3\" {\n    bucket = \"b\"\n  }\n}\n"
	for _, c := range []struct {
		sentence, name, content string
		src                     Source
		where                   string
	}{
		{"JSON", "main.tf.json", `{"terraform":{"backend":{"s3":{"bucket":"b"}}}}`, Source{}, "main.tf.json"},
		{"the settings of tfguard", "main.tf", "locals {}\n", Source{Fallback: map[string]any{"bucket": "b"}}, "the backend block of .tfguard.hcl"},
		{"a flag", "main.tf", block, Source{BackendConfig: []string{"use_lockfile=false"}}, "--backend-config"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			c.src.Dir = t.TempDir()
			if err := os.WriteFile(filepath.Join(c.src.Dir, c.name), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			found, err := Discover(c.src)
			if err != nil {
				t.Fatal(err)
			}
			_, err = EditBackend(c.src, found, map[string]any{"use_lockfile": true, "dynamodb_table": nil})
			var elsewhere *NotEditableError
			if !errors.As(err, &elsewhere) || !strings.HasSuffix(elsewhere.Where, c.where) || elsewhere.Do != "remove dynamodb_table, set use_lockfile = true there" {
				t.Errorf("%+v", err)
			}
		})
	}
}

func TestEditDiff(t *testing.T) {
	e := Edit{Before: []byte("a\nb\nc\nd\ne\nf\n"), After: []byte("a\nb\nc\nx\ny\ne\nf\n")}
	if d := cmp.Diff("  a\n  b\n  c\n- d\n+ x\n+ y\n  e\n  f\n", e.Diff()); d != "" {
		t.Error(d)
	}
}

// A file that somebody has changed since it was shown is not written over.
func TestEditIsOfWhatWasShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backend.tf")
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Edit{Path: path, Before: []byte("seen"), After: []byte("ours")}).Write(); err == nil {
		t.Error("it was written over")
	}
	if now, _ := os.ReadFile(path); string(now) != "theirs" {
		t.Errorf("it is %s", now)
	}
	link := filepath.Join(filepath.Dir(path), "link.tf")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := (Edit{Path: link, Before: []byte("theirs"), After: []byte("ours")}).Write(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is none any more: %v, %v", info.Mode(), err)
	}
}
