// Package planfile reads saved plan files and binds them to what they were made
// from: the state's lineage and serial, the workspace, the configuration, the
// provider lock file and a time.
//
// Terraform compares lineage and serial alone, and neither for a first plan
// (terraform internal/backend/local/backend_local.go, "Saved plan is stale"):
// such a plan can be applied again and again, and to another state. The binding
// is an entry of its own in the plan's zip, which terraform ignores. It protects
// against mistakes, not against somebody who may write the file.
//
// A plan file holds secrets in clear: keep it where nobody else may read.
package planfile

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/state"
)

// ErrNotPlan is wrapped where a file is no plan that terraform saved.
var ErrNotPlan = errors.New("not a saved plan")

// ErrNoFile is wrapped where a plan file cannot be opened.
var ErrNoFile = errors.New("no plan file")

// ErrUnbound is wrapped where a plan was saved by terraform itself: nothing
// tells which state, configuration and workspace it is for.
var ErrUnbound = errors.New("the plan was not saved by tfguard")

// Version of the binding's format.
const Version = 1

// The entries of the zip that are read (terraform internal/plans/planfile).
const (
	planEntry    = "tfplan"
	stateEntry   = "tfstate"
	bindingEntry = "tfguard.json"
)

// maxBinding bounds the binding, in bytes: a plan lists up to 100,000 changes.
const maxBinding = 64 << 20

// maxName bounds every name that is read from a binding, in runes.
const maxName = 1000

// Binding is what a plan was made from.
type Binding struct {
	Version   int        `json:"version"` // of this format: 1
	Created   time.Time  `json:"created"`
	State     string     `json:"state"` // BUCKET/KEY
	Workspace string     `json:"workspace"`
	Lineage   string     `json:"lineage"`
	Serial    uint64     `json:"serial"`
	HasState  bool       `json:"has_state"` // false: a first plan, lineage and serial are empty
	Config    string     `json:"config"`    // of Digests
	LockFile  string     `json:"lock_file"` // of Digests
	Terraform string     `json:"terraform"` // version
	Destroy   bool       `json:"destroy"`
	Run       string     `json:"run"`
	Commit    string     `json:"commit"`
	Plan      event.Plan `json:"plan"`
}

// Head gives the lineage and serial that a plan file was planned against. A
// first plan has neither: its state does not exist. No more than the beginning
// of the state is unpacked.
func Head(path string) (state.Head, error) {
	z, err := open(path)
	if err != nil {
		return state.Head{}, err
	}
	defer z.Close()
	return head(&z.Reader)
}

// Resources counts the resource instances of the state that a plan file was made
// from.
func Resources(path string) (int, error) {
	z, err := open(path)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	f := entry(&z.Reader, stateEntry)
	if f == nil {
		return 0, fmt.Errorf("read plan file: %w: it has no entry %q", ErrNotPlan, stateEntry)
	}
	r, err := f.Open()
	if err != nil {
		return 0, fmt.Errorf("read plan file: %w: unpack %s: %v", ErrNotPlan, f.Name, err)
	}
	defer r.Close()
	return state.Count(r)
}

func open(path string) (*zip.ReadCloser, error) {
	// Opening a pipe would wait for somebody to write.
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("read plan file: %w: %w", ErrNoFile, err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read plan file: %w: %s is not a regular file", ErrNotPlan, path)
	}
	z, err := zip.OpenReader(path)
	if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrAlgorithm) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read plan file: %w: %v", ErrNotPlan, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read plan file: %w", err)
	}
	if entry(&z.Reader, planEntry) == nil {
		z.Close()
		return nil, fmt.Errorf("read plan file: %w: it has no entry %q", ErrNotPlan, planEntry)
	}
	return z, nil
}

func entry(z *zip.Reader, name string) *zip.File {
	for _, f := range z.File {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// read unpacks at most max bytes of an entry.
func read(f *zip.File, max int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: unpack %s: %v", ErrNotPlan, f.Name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, max))
	if err != nil {
		return nil, fmt.Errorf("%w: unpack %s: %v", ErrNotPlan, f.Name, err)
	}
	return b, nil
}

func head(z *zip.Reader) (state.Head, error) {
	f := entry(z, stateEntry)
	if f == nil {
		return state.Head{}, fmt.Errorf("read plan file: %w: it has no entry %q", ErrNotPlan, stateEntry)
	}
	begin, err := read(f, state.HeadBytes)
	if err != nil {
		return state.Head{}, fmt.Errorf("read plan file: %w", err)
	}
	if blank(begin) {
		return state.Head{}, nil
	}
	h, err := state.Parse(bytes.NewReader(begin))
	if err != nil {
		return state.Head{}, fmt.Errorf("read plan file: %w: %v", ErrNotPlan, err)
	}
	return h, nil
}

// blank reports whether this is the state that terraform puts into a first
// plan: serial 0 and an empty lineage.
func blank(begin []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(begin))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	var serial, lineage string
	for dec.More() && (serial == "" || lineage == "") {
		name, err := dec.Token()
		if err != nil {
			return false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return false
		}
		switch name {
		case "serial":
			serial = string(value)
		case "lineage":
			lineage = string(value)
		}
	}
	return serial == "0" && lineage == `""`
}

// Bind copies the plan file in to out with its binding, atomically and readable
// by the owner alone. Both may be the same file. The entries are copied as they
// are; an older binding is left out.
func Bind(in, out string, b Binding) (err error) {
	z, err := open(in)
	if err != nil {
		return err
	}
	defer z.Close()
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("write plan file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".tfguard-plan-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write plan file: %w", err)
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
			err = fmt.Errorf("write plan file: %w", err)
		}
	}()
	w := zip.NewWriter(tmp)
	for _, f := range z.File {
		if f.Name == bindingEntry {
			continue
		}
		if err := w.Copy(f); err != nil {
			return err
		}
	}
	e, err := w.CreateHeader(&zip.FileHeader{Name: bindingEntry, Method: zip.Deflate, Modified: b.Created})
	if err != nil {
		return err
	}
	if _, err := e.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	z.Close() // on Windows an open file is not replaced
	return os.Rename(tmp.Name(), out)
}

// Read gives a plan file's binding and the state that it was planned against.
// Its error wraps [ErrNotPlan] or [ErrUnbound], or is that of the file system.
func Read(path string) (Binding, state.Head, error) {
	z, err := open(path)
	if err != nil {
		return Binding{}, state.Head{}, err
	}
	defer z.Close()
	h, err := head(&z.Reader)
	if err != nil {
		return Binding{}, state.Head{}, err
	}
	f := entry(&z.Reader, bindingEntry)
	if f == nil {
		return Binding{}, h, fmt.Errorf("read plan file: %w", ErrUnbound)
	}
	text, err := read(f, maxBinding)
	if err != nil {
		return Binding{}, h, fmt.Errorf("read plan file: %w", err)
	}
	var b Binding
	if err := json.Unmarshal(text, &b); err != nil {
		return Binding{}, h, fmt.Errorf("read plan file: %w: its %s: %v", ErrNotPlan, bindingEntry, err)
	}
	if b.Version != Version {
		return Binding{}, h, fmt.Errorf("read plan file: %w: its binding has format %d, this tfguard reads %d", ErrUnbound, b.Version, Version)
	}
	b.clean()
	if !h.Same(state.Head{Exists: b.HasState, Lineage: b.Lineage, Serial: b.Serial}) {
		return Binding{}, h, fmt.Errorf("read plan file: %w: it was made from %s and is bound to another state", ErrNotPlan, h)
	}
	return b, h, nil
}

// clean makes what was read from a file fit for messages.
func (b *Binding) clean() {
	for _, s := range []*string{&b.State, &b.Workspace, &b.Lineage, &b.Config, &b.LockFile, &b.Terraform, &b.Run, &b.Commit} {
		*s = quote.Line(*s, maxName)
	}
	for i, c := range b.Plan.Addresses {
		b.Plan.Addresses[i] = event.Change{Address: quote.Line(c.Address, maxName), Action: quote.Line(c.Action, maxName)}
	}
}

// Current is what a plan is about to be applied to.
type Current struct {
	State     string // BUCKET/KEY
	Workspace string
	Config    string // of Digests
	LockFile  string // of Digests
	Now       time.Time
}

// maxSkew is how far the clocks of two machines may differ.
const maxSkew = 5 * time.Minute

// Verify names each difference between what a plan was made from and what is
// now, as one sentence; none means that it fits. A maxAge of 0 is no limit.
// Lineage and serial are not compared here: they are held against the state
// under its lock.
func (b Binding) Verify(now Current, maxAge time.Duration) []string {
	var diff []string
	add := func(format string, args ...any) { diff = append(diff, fmt.Sprintf(format, args...)) }
	if b.State != now.State {
		add("it was made for the state %s, this is %s", b.State, now.State)
	}
	if b.Workspace != now.Workspace {
		add("it was made in the workspace %s, this is %s", b.Workspace, now.Workspace)
	}
	if b.Config != now.Config {
		add("the configuration has changed since")
	}
	if b.LockFile != now.LockFile {
		add("the provider lock file .terraform.lock.hcl has changed since")
	}
	age := now.Now.Sub(b.Created)
	switch {
	case age < -maxSkew:
		add("it was made %s in the future by this machine's clock", (-age).Round(time.Second))
	case maxAge > 0 && age > maxAge:
		add("it is %s old, the limit is %s", age.Round(time.Second), maxAge)
	}
	return diff
}
