// Package terraform runs the terraform (or OpenTofu) binary: it is the only
// importer of terraform-exec and hc-install, and mends what bites in them.
//
// What it promises: an apply gets exactly one interrupt, never a second one of
// any kind and, unless Options.CancelAfter says so, never a kill, and is waited
// for; a plan may get a second interrupt; otherwise only commands that hold no
// lock are killed. Nothing that terraform prints reaches a caller unbounded or
// with control characters.
//
// What it does not: a wrapper script as the binary gets the interrupts itself
// and has to exec terraform or pass them on. On systems other than Linux the
// caller needs a process group of its own, or Ctrl-C on the terminal reaches
// terraform beside the interrupt from here. On Windows nothing is interrupted.
// terraform-exec keeps the longest line, all of stderr and the text of `show`
// in memory; only what is kept after that is bounded here.
package terraform

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/tfguard/tfguard/internal/event"
)

// Options are terraform's settings for a run. A zero duration of InterruptAgain,
// KillAfter or Patience is the default.
type Options struct {
	Dir           string   // the configuration's directory
	DataDir       string   // TF_DATA_DIR, absolute; empty: .terraform in Dir
	BackendConfig []string // K=V or a file, as of `init -backend-config`
	Reconfigure   bool     // init -reconfigure
	Upgrade       bool     // init -upgrade

	Vars        []string // name=value
	VarFiles    []string
	Targets     []string // resource addresses
	Replace     []string // resource addresses
	Parallelism int      // 0: terraform's 10
	NoRefresh   bool
	NoLock      bool // of plan alone: nothing that writes runs without the lock
	Destroy     bool
	LockTimeout time.Duration

	// Log gets everything that terraform prints, raw: it may hold escapes and
	// is as private as the plan. Its errors are ignored. Nil: nowhere.
	Log io.Writer

	// LockLog is a private file that plan and apply log to, so that the ID of the
	// lock they take is known: Locked is told. It may hold variables given by
	// -var: remove it afterwards. Empty: the ID stays unknown.
	LockLog string
	Locked  func(id string)
	// Undigested is told where the log says that terraform has written the state
	// and not its digest, which it does not call a failure.
	Undigested func()

	// InterruptAgain is how long after the first interrupt a plan gets the
	// second one, which frees its lock at once: a plan has nothing in flight.
	InterruptAgain time.Duration
	// CancelAfter is how long after its interrupt an apply is killed, for those who
	// would rather lose what it is creating than wait. Zero: never.
	CancelAfter time.Duration
	// KillAfter is how long after the interrupt a command that holds no lock is
	// killed: init, validate, show, fmt, version, workspace select.
	KillAfter time.Duration
	// Patience is how long fmt, validate and show wait for others' leave, on a
	// machine that is busy: see aside.
	Patience time.Duration
}

// Terraform runs the commands of one run in one directory. Its methods may be
// called concurrently, as far as terraform itself allows it: one command at a
// time takes the lock.
type Terraform struct {
	bin  Binary
	o    Options
	sink event.Sink
	log  *safeWriter

	asking flight                  // the one `terraform version`
	mu     sync.Mutex              // for number
	number string                  // the version, such as 1.11.4; empty: not known yet
	seen   *once[event.Diagnostic] // diagnostics that were emitted
}

// New prepares a run of bin. It starts no process.
func New(bin Binary, o Options, sink event.Sink) *Terraform {
	if o.InterruptAgain == 0 {
		o.InterruptAgain = 10 * time.Second
	}
	if o.KillAfter == 0 {
		o.KillAfter = 5 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Parallelism == 0 {
		o.Parallelism = 10
	}
	return &Terraform{
		bin: bin, o: o, sink: sink, log: &safeWriter{w: o.Log},
		asking: newFlight(), seen: newOnce[event.Diagnostic](maxSeen),
	}
}

// Version is the number of the terraform that runs, such as "1.11.4". A plan
// and an apply tell it; before those it takes a process of its own, one at most.
func (t *Terraform) Version(ctx context.Context) (string, error) {
	err := t.asking.do(ctx, func() error {
		if t.known() != "" {
			return nil
		}
		tf, err := tfexec.NewTerraform(t.o.Dir, t.bin.Path)
		if err != nil {
			return fmt.Errorf("prepare %s: %w", t.bin.Product, err)
		}
		err = t.run(ctx, tf, command{
			name: "version", killAfter: t.o.KillAfter,
			call: func(ctx context.Context, tf *tfexec.Terraform, _ io.Writer) error {
				v, _, err := tf.Version(ctx, true)
				if err == nil {
					t.learn(v.String())
				}
				return err
			},
		})
		if err == nil && t.known() == "" {
			err = fmt.Errorf("%s version was interrupted: %w", t.bin.Product, context.Canceled)
		}
		return err
	})
	return t.known(), err
}

func (t *Terraform) known() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.number
}

// learn remembers what terraform says of its version, where it is one.
func (t *Terraform) learn(number string) {
	if _, err := version.NewVersion(number); err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number = number
}

// value gives a terraform-exec value of its own to one command, since its
// writers stick to it.
func (t *Terraform) value() (*tfexec.Terraform, error) {
	tf, err := tfexec.NewTerraform(t.o.Dir, t.bin.Path)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", t.bin.Product, err)
	}
	assume(tf)
	return tf, nil
}

// assume makes terraform-exec take the binary for the oldest terraform that has
// all that is asked of it here. Each value would run `terraform version` before
// its first command, in order to refuse flags that an older one does not have;
// that one refuses them itself. Where a terraform-exec keeps the version
// elsewhere than in this field, nothing happens and it asks.
func assume(tf *tfexec.Terraform) (ok bool) {
	field := reflect.ValueOf(tf).Elem().FieldByName("execVersion")
	oldest := reflect.ValueOf(version.Must(version.NewVersion("1.0.0")))
	if !field.IsValid() || field.Type() != oldest.Type() {
		return false
	}
	reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().Set(oldest)
	return true
}

// flight runs a function until it has succeeded once; callers wait for the one
// that runs it, each no longer than its own context.
type flight struct {
	turn chan struct{}
	done *bool
}

func newFlight() flight { return flight{turn: make(chan struct{}, 1), done: new(bool)} }

func (f flight) do(ctx context.Context, fn func() error) error {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.turn }()
	if *f.done {
		return nil
	}
	err := fn()
	*f.done = err == nil
	return err
}

// once remembers up to max values.
type once[T comparable] struct {
	mu   sync.Mutex
	max  int
	seen map[T]struct{}
}

func newOnce[T comparable](max int) *once[T] {
	return &once[T]{max: max, seen: map[T]struct{}{}}
}

// first reports whether v comes for the first time, or is forgotten.
func (o *once[T]) first(v T) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.seen[v]; ok {
		return false
	}
	if len(o.seen) < o.max {
		o.seen[v] = struct{}{}
	}
	return true
}

// safeWriter passes writes on one at a time and never fails: terraform-exec
// stops reading where a writer fails, and terraform would block on its output.
type safeWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *safeWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		_, _ = s.w.Write(p)
	}
	return len(p), nil
}
