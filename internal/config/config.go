// Package config reads .tfguard.hcl: settings that flags and the environment
// may also give, and that they beat. It holds literal values alone, no
// functions and no variables.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/backend/discover"
)

// Name is the name of the file.
const Name = ".tfguard.hcl"

// maxFile bounds the file, in bytes. HCL takes time in the square of some
// texts' length: at this bound a second.
const maxFile = 256 << 10

// File is what a .tfguard.hcl sets. A nil pointer, list or map is unset.
type File struct {
	Path      string // absolute; empty where no file was read
	Terraform Terraform
	Backend   Backend
	Locks     Locks
	Snapshots Snapshots
	Guard     Guard
	Hooks     []Hook // in the order of the file
	GitHub    GitHub
}

// Terraform is the block terraform: the binary and what it is called with.
type Terraform struct {
	Bin         *string // a name in PATH, or an absolute path
	Version     *string
	Parallelism *int              // 1 or more
	VarFiles    []string          // absolute paths
	Vars        map[string]string // as -var takes them
	LockTimeout *time.Duration    // 0 or more
	PlanMaxAge  *time.Duration    // more than 0
	CancelAfter *time.Duration    // 0 or more; 0: never
	Upgrade     *bool
}

// Backend is the block backend.
type Backend struct {
	Setup *bool // whether the backend stage creates and repairs
	// Attrs are the attributes of terraform's S3 backend, in the form of
	// backend.Settings.Attrs; nil where none is set.
	Attrs map[string]any
}

// Locks is the block locks.
type Locks struct {
	StaleAfter  *time.Duration // more than 0
	UnlockStale *string        // never, approved or proven
	Wait        *time.Duration // 0 or more
	Holder      *string        // required or preferred
}

// Snapshots is the block snapshots.
type Snapshots struct {
	Keep     *int // 1 or more
	KeepDays *int // 0 or more
	Bucket   *string
	Region   *string // of Bucket; nil: the state's
}

// Guard is the block guard.
type Guard struct {
	Protect     []string // globs of addresses
	MaxDeletes  *int     // 0 or more
	AllowDelete []string // addresses
	Credentials *string  // required or preferred
}

// Hook is a command that runs before or after a stage: one of Before and After
// is the name of a stage, the other is empty.
type Hook struct {
	Name    string // letters, digits, "-", "_" and "."; unique in the file
	Before  string
	After   string
	Command []string // program and arguments; no shell
	Timeout *time.Duration
	Env     map[string]string
	Line    int
}

// GitHub is the block github.
type GitHub struct {
	Comment *bool
}

// Error is something in the file that cannot be used, or a file that cannot be
// read. Line and Column count from 1; 0 is unknown.
type Error struct {
	File    string
	Line    int
	Column  int
	Message string // for people, without control characters
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Find looks for .tfguard.hcl in dir, then in its parents up to the root of the
// repository, which is the nearest that has an entry .git. Without a
// repository it looks in dir alone: a file in /tmp or in a home directory,
// where others may write, must not run commands here. ok is false where there
// is none. Symbolic links in dir are not resolved.
func Find(dir string) (path string, ok bool, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", false, fmt.Errorf("find %s: %w", Name, err)
	}
	root := dir
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			root = d
			break
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	for d := dir; ; d = filepath.Dir(d) {
		path := filepath.Join(d, Name)
		_, err := os.Stat(path)
		switch {
		case err == nil:
			return path, true, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", false, &Error{File: path, Message: reason(err)}
		case d == root:
			return "", false, nil
		}
	}
}

// Load reads the file at path. Relative paths in it (var_files, and bin where
// it has a slash) are relative to the file. Every error is, or joins, an
// [*Error]: all that was found wrong, up to a bound.
func Load(path string) (File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return File{}, &Error{File: path, Message: err.Error()}
	}
	src, err := discover.ReadFile(path, maxFile)
	if err != nil {
		return File{}, &Error{File: path, Message: reason(err)}
	}
	f, err := parse(path, src)
	if err != nil {
		return File{}, err
	}
	f.Path = abs
	beside := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(filepath.Dir(abs), p)
	}
	for i, p := range f.Terraform.VarFiles {
		f.Terraform.VarFiles[i] = beside(p)
	}
	if bin := f.Terraform.Bin; bin != nil && strings.ContainsRune(*bin, filepath.Separator) {
		*bin = beside(*bin)
	}
	return f, nil
}

// reason is a file error without its path, which the message has already.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return "cannot be read: " + err.Error()
}
