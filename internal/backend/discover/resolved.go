package discover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/quote"
)

// ErrNotInitialised: terraform init has not resolved a backend yet.
var ErrNotInitialised = errors.New("the configuration is not initialised")

// BrokenError is a terraform.tfstate of the data directory that terraform
// cannot read either, as a killed init leaves one. [Mend] moves it aside.
type BrokenError struct {
	Path string
	Err  error
}

func (e *BrokenError) Error() string { return fmt.Sprintf("%s is broken: %v", e.Path, e.Err) }
func (e *BrokenError) Unwrap() error { return e.Err }

// maxResolved bounds the data directory's files, in bytes.
const maxResolved = 4 << 20

// resolvedName is the file in the data directory that init writes.
const resolvedName = "terraform.tfstate"

// initialised is the part of that file that matters here.
type initialised struct {
	Backend *struct {
		Type   string         `json:"type"`
		Config map[string]any `json:"config"`
	} `json:"backend"`
}

// Resolved reads the backend that terraform init resolved, from dataDir
// (.terraform, or TF_DATA_DIR). Null attributes are unset, and values that
// terraform takes from the environment are absent.
//
// Errors: [ErrNotInitialised] where init has not run, [*BrokenError],
// [*NotS3Error] for another type.
func Resolved(dataDir string) (backend.Settings, error) {
	path := filepath.Join(dataDir, resolvedName)
	src, err := ReadFile(path, maxResolved)
	if errors.Is(err, fs.ErrNotExist) {
		return backend.Settings{}, ErrNotInitialised
	}
	if err != nil {
		return backend.Settings{}, fmt.Errorf("read the initialised backend: %w", err)
	}
	got, err := parseResolved(src)
	if err != nil {
		return backend.Settings{}, &BrokenError{Path: path, Err: err}
	}
	if got.Backend == nil || got.Backend.Type == "" {
		return backend.Settings{}, ErrNotInitialised
	}
	if got.Backend.Type != "s3" {
		return backend.Settings{}, &NotS3Error{Type: got.Backend.Type, File: path}
	}
	attrs, _ := fromJSON(got.Backend.Config).(map[string]any)
	if attrs == nil {
		attrs = map[string]any{}
	}
	return settings(attrs), nil
}

func parseResolved(src []byte) (initialised, error) {
	var got initialised
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	if err := dec.Decode(&got); err != nil {
		return got, fmt.Errorf("it is not the JSON that init writes: %w", err)
	}
	if dec.More() {
		return got, errors.New("something follows its JSON")
	}
	return got, nil
}

// fromJSON gives a JSON value the form of [backend.Settings].Attrs, without nulls.
func fromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		list := []string{}
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			if got := fromJSON(e); got != nil {
				m[k] = got
			}
		}
		return m
	}
	return v
}

// BrokenDataDir reports whether dataDir holds a terraform.tfstate that is no
// JSON, which makes each init fail ("Failed to load state: invalid syntax").
func BrokenDataDir(dataDir string) bool {
	src, err := ReadFile(filepath.Join(dataDir, resolvedName), maxResolved)
	if err != nil {
		return false
	}
	_, err = parseResolved(src)
	return err != nil
}

// Mend moves a broken terraform.tfstate of dataDir to terraform.tfstate.broken,
// in the place of an earlier one, so that init can run again. It holds settings
// alone, never resources. mended is false where there was nothing to do.
func Mend(dataDir string) (mended bool, err error) {
	if !BrokenDataDir(dataDir) {
		return false, nil
	}
	path := filepath.Join(dataDir, resolvedName)
	if err := os.Rename(path, path+".broken"); err != nil {
		return false, fmt.Errorf("move the broken %s aside: %w", path, err)
	}
	return true, nil
}

// matters are the attributes that decide which state is meant, how it is
// locked and encrypted, and whom the requests go to.
func matters() []string {
	return []string{
		"bucket", "key", "region", "workspace_key_prefix", "dynamodb_table", "use_lockfile",
		"encrypt", "kms_key_id", "sse_customer_key", "acl",
		"profile", "access_key", "role_arn", "assume_role", "assume_role_with_web_identity",
		"endpoint", "dynamodb_endpoint", "endpoints",
	}
}

// Compare names the attributes on which what was discovered and what terraform
// resolved differ, in words; empty means confirmed. It looks at Attrs alone,
// so that values of the environment, which terraform does not write down, are
// no difference. An empty string and false are the same as unset, except for
// workspace_key_prefix.
func Compare(discovered, resolved backend.Settings) []string {
	var out []string
	for _, name := range matters() {
		d, r := normal(name, discovered.Attrs[name]), normal(name, resolved.Attrs[name])
		switch {
		case reflect.DeepEqual(d, r):
		case secret(name):
			out = append(out, name+" differs")
		default:
			out = append(out, fmt.Sprintf("%s: the configuration says %s, terraform resolved %s", name, show(name, d), show(name, r)))
		}
	}
	return out
}

// normal is v with nil for what is as good as unset, and lists sorted,
// since all of them are sets to terraform.
func normal(name string, v any) any {
	switch v := v.(type) {
	case string:
		if v == "" && name != "workspace_key_prefix" || v == backend.DefaultPrefix && name == "workspace_key_prefix" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case []string:
		if len(v) == 0 {
			return nil
		}
		return slices.Sorted(slices.Values(v))
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			if c := normal(k, e); c != nil {
				m[k] = c
			}
		}
		if len(m) == 0 {
			return nil
		}
		return m
	}
	return v
}

func show(name string, v any) string {
	if v == nil {
		return "nothing"
	}
	s, err := json.Marshal(hide(name, v))
	if err != nil {
		return "something else"
	}
	return quote.Line(string(s), 200)
}

// Workspace is the name of the workspace that terraform would work in: flag,
// then TF_WORKSPACE, then <dataDir>/environment, then "default". As terraform
// does, it refuses a name that a URL would have to escape; "." and ".." too,
// which would lead out of the workspace's prefix.
func Workspace(dataDir, flag string, env func(string) string) (string, error) {
	name, from := flag, "--workspace"
	if name == "" {
		name, from = env("TF_WORKSPACE"), "TF_WORKSPACE"
	}
	if name == "" {
		path := filepath.Join(dataDir, "environment")
		src, err := ReadFile(path, maxResolved)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the workspace: %w", err)
		}
		name, from = strings.TrimSpace(string(src)), path
	}
	if name == "" {
		return backend.DefaultWorkspace, nil
	}
	if name != url.PathEscape(name) || name == "." || name == ".." {
		return "", &WorkspaceError{Name: quote.Line(name, 100), From: from}
	}
	return name, nil
}

// WorkspaceError is a workspace name that terraform does not allow.
type WorkspaceError struct {
	Name string // without control characters
	From string // where it was set: a flag, a variable, a file
}

func (e *WorkspaceError) Error() string {
	return fmt.Sprintf("%s: %q is no name of a workspace: letters, digits and the signs a URL has are possible, slashes are not", e.From, e.Name)
}
