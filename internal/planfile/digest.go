package planfile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds on a configuration.
const (
	maxFile  = 16 << 20  // bytes of one file
	maxTotal = 256 << 20 // bytes of all files
	maxFiles = 20_000
)

// Digests identify a configuration: SHA-256 in hexadecimal of its files, and of
// .terraform.lock.hcl, empty where there is none.
//
// The files are those that terraform reads by itself: *.tf, *.tf.json, *.tofu,
// *.tofu.json in dir and in its local modules, and in dir terraform.tfvars and
// *.auto.tfvars, both also as .json. Of other modules key, source and version
// count. The local modules are those that init listed in dataDir; without init
// there is dir alone. Names are relative to dir, so that a checkout elsewhere
// has the same digest. Not covered: files that the configuration reads itself,
// and variables given otherwise; their values are in the plan.
func Digests(dir, dataDir string) (config, lockFile string, err error) {
	if config, err = configDigest(dir, dataDir); err != nil {
		return "", "", fmt.Errorf("digest of the configuration: %w", err)
	}
	sum, _, err := sumFile(filepath.Join(dir, ".terraform.lock.hcl"), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return config, "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("digest of the provider lock file: %w", err)
	}
	return config, sum, nil
}

func configDigest(dir, dataDir string) (string, error) {
	dirs, remote, err := modules(dir, dataDir)
	if err != nil {
		return "", err
	}
	rows := remote
	total, files := int64(0), 0
	for _, d := range dirs {
		entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(d)))
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if !isConfig(e.Name(), d == ".") {
				continue
			}
			if files++; files > maxFiles {
				return "", fmt.Errorf("it has more than %d files", maxFiles)
			}
			sum, n, err := sumFile(filepath.Join(dir, filepath.FromSlash(d), e.Name()), maxFile)
			if errors.Is(err, errIrregular) {
				continue
			}
			if err != nil {
				return "", err
			}
			if total += n; total > maxTotal {
				return "", fmt.Errorf("it has more than %d bytes", int64(maxTotal))
			}
			rows = append(rows, fmt.Sprintf("file %q %s\n", d+"/"+e.Name(), sum))
		}
	}
	slices.Sort(rows)
	h := sha256.New()
	for _, r := range slices.Compact(rows) {
		io.WriteString(h, r)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// isConfig reports whether terraform reads a file of this name by itself
// (terraform internal/configs/parser_config_dir.go, internal/command/meta_vars.go).
func isConfig(name string, root bool) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") {
		return false
	}
	base := strings.TrimSuffix(name, ".json")
	switch filepath.Ext(base) {
	case ".tf", ".tofu":
		return true
	case ".tfvars":
		return root && (base == "terraform.tfvars" || strings.HasSuffix(base, ".auto.tfvars"))
	}
	return false
}

// modules reads init's list of modules: the local ones as directories relative
// to dir with slashes, dir itself first, and a row for each other one.
func modules(dir, dataDir string) (local, remote []string, err error) {
	local = []string{"."}
	var list struct {
		Modules []struct{ Key, Source, Version, Dir string }
	}
	f, err := os.Open(filepath.Join(dataDir, "modules", "modules.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return local, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, err
	}
	data, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range list.Modules {
		if m.Key == "" {
			continue
		}
		at := filepath.FromSlash(m.Dir)
		if !filepath.IsAbs(at) {
			at = filepath.Join(root, at)
		}
		inLocal := strings.HasPrefix(m.Source, "./") || strings.HasPrefix(m.Source, "../")
		if !inLocal || within(data, at) {
			remote = append(remote, fmt.Sprintf("module %q %q %q\n", m.Key, m.Source, m.Version))
			continue
		}
		rel, err := filepath.Rel(root, at)
		if err != nil {
			return nil, nil, err
		}
		if rel = filepath.ToSlash(rel); !slices.Contains(local, rel) {
			local = append(local, rel)
		}
	}
	return local, remote, nil
}

// within reports whether path lies in dir. Both are absolute.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// errIrregular is a directory, a pipe or a device: terraform reads none.
var errIrregular = errors.New("not a regular file")

// sumFile gives the SHA-256 and the size of a file, following links.
func sumFile(path string, max int64) (string, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s: %w", path, errIrregular)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, max+1))
	if err != nil {
		return "", 0, err
	}
	if n > max {
		return "", 0, fmt.Errorf("%s is longer than %d bytes", path, max)
	}
	return hex.EncodeToString(h.Sum(nil)), n, nil
}
