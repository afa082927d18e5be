package planfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files under dir.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var configuration = map[string]string{
	"env/main.tf":             `module "m" { source = "../mod" }`,
	"env/x.tf.json":           `{}`,
	"env/terraform.tfvars":    `a = 1`,
	"env/b.auto.tfvars.json":  `{}`,
	"env/other.tfvars":        `a = 2`,
	"env/README.md":           `read me`,
	"env/.hidden.tf":          `hidden`,
	"env/main.tf~":            `backup`,
	"env/.terraform.lock.hcl": `lock`,
	"mod/main.tf":             `# module`,
	"mod/terraform.tfvars":    `ignored = true`,
	"stranger/main.tf":        `# no part of it`,
	"env/.terraform/modules/modules.json": `{"Modules":[{"Key":"","Source":"","Dir":"."},{"Key":"m","Source":"../mod","Dir":"../mod"},
		{"Key":"r","Source":"registry.example/a/b","Version":"1.2.3","Dir":".terraform/modules/r"},
		{"Key":"r.sub","Source":"./sub","Dir":".terraform/modules/r/sub"}]}`,
	"env/.terraform/modules/r/main.tf":     `# downloaded`,
	"env/.terraform/modules/r/sub/main.tf": `# downloaded`,
}

func digests(t *testing.T, root string) (string, string) {
	t.Helper()
	dir := filepath.Join(root, "env")
	config, lockFile, err := Digests(dir, filepath.Join(dir, ".terraform"))
	if err != nil {
		t.Fatal(err)
	}
	return config, lockFile
}

func TestDigests(t *testing.T) {
	base := t.TempDir()
	write(t, base, configuration)
	config, lockFile := digests(t, base)
	if len(config) != 64 || len(lockFile) != 64 {
		t.Fatalf("got %q, %q", config, lockFile)
	}
	const same, other = true, false
	for name, c := range map[string]struct {
		file, content string
		config, lock  bool
	}{
		"the same elsewhere":                  {"env/main.tf", configuration["env/main.tf"], same, same},
		"a changed file":                      {"env/main.tf", "# x", other, same},
		"a new file":                          {"env/new.tf", "", other, same},
		"a new OpenTofu file":                 {"env/new.tofu", "", other, same},
		"a changed JSON file":                 {"env/x.tf.json", `{"a":1}`, other, same},
		"changed values":                      {"env/terraform.tfvars", "a = 9", other, same},
		"changed automatic values":            {"env/b.auto.tfvars.json", `{"a":1}`, other, same},
		"values that terraform does not read": {"env/other.tfvars", "a = 9", same, same},
		"a text":                              {"env/README.md", "x", same, same},
		"a hidden file":                       {"env/.hidden.tf", "x", same, same},
		"an editor's backup":                  {"env/main.tf~", "x", same, same},
		"a changed module":                    {"mod/main.tf", "# x", other, same},
		"values beside a module":              {"mod/terraform.tfvars", "x", same, same},
		"a directory that is no module":       {"stranger/main.tf", "x", same, same},
		"another version of a module":         {"env/.terraform/modules/modules.json", strings.Replace(configuration["env/.terraform/modules/modules.json"], "1.2.3", "1.2.4", 1), other, same},
		"a downloaded module's bytes":         {"env/.terraform/modules/r/sub/main.tf", "x", same, same},
		"other providers":                     {"env/.terraform.lock.hcl", "x", same, other},
	} {
		root := t.TempDir()
		write(t, root, configuration)
		write(t, root, map[string]string{c.file: c.content})
		gotConfig, gotLock := digests(t, root)
		if (gotConfig == config) != c.config {
			t.Errorf("%s: the configuration is the same: %v, want %v", name, !c.config, c.config)
		}
		if (gotLock == lockFile) != c.lock {
			t.Errorf("%s: the lock file is the same: %v, want %v", name, !c.lock, c.lock)
		}
	}
}

func TestDigestsOfLinks(t *testing.T) {
	base := t.TempDir()
	write(t, base, configuration)
	want, _ := digests(t, base)
	if err := os.Rename(filepath.Join(base, "env", "main.tf"), filepath.Join(base, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere", filepath.Join(base, "env", "main.tf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "env", "directory.tf"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, _ := digests(t, base); got != want {
		t.Error("a link to the same content, and a directory, make another configuration")
	}
}

func TestDigestsWithoutInit(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"main.tf": ""})
	config, lockFile, err := Digests(dir, filepath.Join(dir, ".terraform"))
	if err != nil || config == "" || lockFile != "" {
		t.Errorf("got %q, %q, %v", config, lockFile, err)
	}
	if _, _, err := Digests(filepath.Join(dir, "none"), dir); err == nil {
		t.Error("a directory that is not there: no error")
	}
	write(t, dir, map[string]string{".terraform/modules/modules.json": "{"})
	if _, _, err := Digests(dir, filepath.Join(dir, ".terraform")); err == nil {
		t.Error("a list of modules that is no JSON: no error")
	}
}

func TestDigestsAreBounded(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "big.tf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(maxFile + 1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Digests(dir, dir); err == nil {
		t.Error("a file that is too long: no error")
	}
}
