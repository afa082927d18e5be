package app

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/backend/setup"
	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/audit"
	"github.com/tfguard/tfguard/internal/lock/dynamolock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/terraform"
)

// lockStore is what every store of locks can do.
type lockStore interface {
	Name() lock.Store
	Read(ctx context.Context) (*lock.Observation, error)
	Take(ctx context.Context, raw []byte) error
	Remove(ctx context.Context, o lock.Observation) error
}

type remover interface {
	Remove(ctx context.Context, o lock.Observation) error
}

// Every adapter fits the interface it is wired to.
var (
	_ lockStore         = (*dynamolock.Store)(nil)
	_ lockStore         = (*s3lock.Store)(nil)
	_ pipeline.States   = (*snapshot.Store)(nil)
	_ pipeline.Locks    = (*target)(nil)
	_ pipeline.Preparer = (*preparer)(nil)
	_ pipeline.Checker  = (*checker)(nil)
	_ pipeline.Planner  = (*planner)(nil)
	_ pipeline.Person   = (*person)(nil)
	_ pipeline.Holder   = (*keeper)(nil)
)

// target is one state: its backend, and everything in AWS that is read and
// written for it.
type target struct {
	found   discover.Found
	addr    backend.Address
	dir     string // of the configuration
	dataDir string
	policy  lock.Policy

	settings backend.Settings // of the clients
	making   sync.Mutex
	made     bool // the clients are made, or cannot be
	madeErr  error

	clients *awsclient.Clients
	table   *dynamolock.Store // nil without a lock table
	object  *s3lock.Store     // nil without use_lockfile
	record  *holder.Store
	audit   *audit.Log

	runs ci.Runs // nil where no CI system can be asked
	self string  // this run's id: its own holder record is no evidence

	locking lockWatch

	mu   sync.Mutex
	seen *lock.HolderSeen // at the last Observe
}

// dataDir is where terraform keeps what init found: .terraform, or TF_DATA_DIR.
func (set *settings) dataDir() string {
	d := os.Getenv("TF_DATA_DIR")
	if d == "" {
		d = ".terraform"
	}
	if !filepath.IsAbs(d) {
		d = filepath.Join(set.dir, d)
	}
	return d
}

// target finds the state that the command is about, and makes its AWS clients.
func (set *settings) target(ctx context.Context) (*target, error) {
	t, err := set.locate(ctx)
	if err != nil {
		return nil, err
	}
	return t, t.connect(ctx)
}

// locate finds the state that the command is about, and asks nothing in AWS. A
// configuration without a backend block gets the one of .tfguard.hcl, in a
// generated override file.
func (set *settings) locate(ctx context.Context) (*target, error) {
	if set.sandbox {
		if err := set.enterSandbox(ctx); err != nil {
			return nil, err
		}
	}
	found, err := discover.Discover(discover.Source{
		Dir: set.dir, BackendConfig: set.backendConfig(), Fallback: set.file.Backend.Attrs, Env: os.Getenv,
		Tofu: strings.HasPrefix(filepath.Base(or(set, "terraform-bin", asString, set.file.Terraform.Bin, "")), "tofu"),
	})
	var flag *discover.FlagError
	if errors.As(err, &flag) {
		err = usagef(set.cli, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	if err := set.writeOverride(found); err != nil {
		return nil, err
	}
	workspace, err := discover.Workspace(set.dataDir(), set.cli.String("workspace"), os.Getenv)
	if err != nil {
		var name *discover.WorkspaceError
		if errors.As(err, &name) {
			err = usagef(set.cli, "%v", err)
		}
		return nil, err
	}
	t := &target{found: found, dir: set.dir, dataDir: set.dataDir(), policy: set.policy(), settings: set.clientSettings(found.Settings), runs: ci.NewRuns(os.Getenv)}
	if t.addr, err = found.Settings.Address(workspace); err != nil {
		return nil, err
	}
	return t, awsclient.Check(t.settings, awsclient.Options{})
}

// connect makes the clients, at its first call. Credentials may have to be asked
// for, which a run does while terraform's init goes on.
func (t *target) connect(ctx context.Context) error {
	t.making.Lock()
	defer t.making.Unlock()
	if !t.made {
		t.made, t.madeErr = true, t.makeClients(ctx)
	}
	return t.madeErr
}

func (t *target) makeClients(ctx context.Context) (err error) {
	t.clients, err = awsclient.New(ctx, t.settings, awsclient.Options{UserAgent: "tfguard/" + Version})
	if err != nil {
		return err
	}
	if t.addr.Table != "" {
		t.table = dynamolock.New(t.clients.DynamoDB, t.addr)
	}
	if t.addr.Lockfile {
		t.object = s3lock.New(t.clients.S3, t.addr, t.found.Settings)
	}
	t.record = holder.New(t.clients.S3, t.addr, awsclient.ObjectOf(t.found.Settings))
	t.audit = audit.New(t.clients.S3, t.addr, awsclient.ObjectOf(t.found.Settings))
	return nil
}

// backendConfig are the --backend-config values; a file's path counts from
// where tfguard was started, and is handed on absolute.
func (set *settings) backendConfig() []string {
	config := discover.Absolute(values(set.cli, "backend-config"), set.started)
	if set.scratch != nil {
		config = append(config, "key="+set.scratch.key)
	}
	return config
}

// writeOverride gives terraform the backend of .tfguard.hcl where the
// configuration has none, and takes it away again where that has changed.
func (set *settings) writeOverride(found discover.Found) error {
	if !found.Declared {
		_, err := discover.WriteOverride(set.dir, set.file.Backend.Attrs)
		return err
	}
	if found.Generated != "" {
		_, err := discover.RemoveOverride(set.dir)
		return err
	}
	return nil
}

// stores are the stores that this state is locked in, in terraform's order.
func (t *target) stores() []lockStore {
	var s []lockStore
	if t.object != nil {
		s = append(s, t.object)
	}
	if t.table != nil {
		s = append(s, t.table)
	}
	return s
}

// Observe judges what is in the stores. What ends between the reading of a lock
// and the look at its holder's process looks stale: so that is what a second
// look still finds, with nothing else in it.
func (t *target) Observe(ctx context.Context) (lock.Verdict, error) {
	if err := t.connect(ctx); err != nil {
		return lock.Verdict{}, err
	}
	v, err := t.observe(ctx)
	for range maxLooks {
		if err != nil || !slices.ContainsFunc(v.Locks, proven) {
			break
		}
		before := v
		if v, err = t.observe(ctx); err == nil && v.Alike(before) {
			break
		}
	}
	return v, err
}

// maxLooks bounds the looks after the first, where holders come and go.
const maxLooks = 5

// proven is a lock whose holder is known to be gone.
func proven(e lock.Entry) bool { return e.Status == lock.Stale && e.Confidence == lock.Proven }

// observe reads every store at the same time and judges what is there.
func (t *target) observe(ctx context.Context) (lock.Verdict, error) {
	stores := t.stores()
	seen := make([]*lock.Observation, len(stores))
	var held *lock.HolderSeen
	g, reading := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		held, err = t.record.Read(reading)
		if backend.Is(err, backend.Denied) {
			err = nil // a role that may not read it judges without
		}
		return err
	})
	for i, s := range stores {
		g.Go(func() (err error) {
			seen[i], err = s.Read(reading)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return lock.Verdict{}, err
	}
	var there []lock.Observation
	for _, o := range seen {
		if o != nil {
			there = append(there, *o)
		}
	}
	ev := lock.Evidence{Holder: t.evidence(ctx, held)}
	v := lock.Classify(t.addr.String(), there, ev, t.policy, time.Now())
	if t.runs == nil || !slices.ContainsFunc(v.Locks, undecided) {
		return v, nil
	}
	ev.Runs, ev.Unasked = t.runsAround(ctx, v)
	if ctx.Err() != nil { // a question that was broken off is no evidence
		return lock.Verdict{}, context.Cause(ctx)
	}
	return lock.Classify(t.addr.String(), there, ev, t.policy, time.Now()), nil
}

// runsAround are the CI runs of the time of each lock that nobody's record
// names: they may tell. Where they are not all known none are given, and why.
func (t *target) runsAround(ctx context.Context, v lock.Verdict) (all []lock.RunSeen, unasked string) {
	var asked []time.Time // one lock in two stores is of one time
	for _, e := range v.Locks {
		if !undecided(e) || slices.ContainsFunc(asked, e.Info.Created.Equal) {
			continue
		}
		asked = append(asked, e.Info.Created)
		runs, err := t.runs.Around(ctx, e.Info.Created)
		if err != nil {
			return nil, quote.Line(err.Error(), maxUnasked) // those of another lock's time are not all of this one's
		}
		all = append(all, runs...)
	}
	return all, ""
}

// maxUnasked bounds why a CI system gave no answer, in runes.
const maxUnasked = 400

// undecided is a lock that was judged by its age alone.
func undecided(e lock.Entry) bool { return e.Rule == 5 }

// evidence completes what is known of the record's holder. This run's own
// record is none.
func (t *target) evidence(ctx context.Context, h *lock.HolderSeen) *lock.HolderSeen {
	if h != nil && h.Problem == "" && h.Record.RunID == t.self {
		h = nil // nor is the dead one that it was taken over from
	}
	t.learn(ctx, h)
	t.mu.Lock()
	t.seen = h
	t.mu.Unlock()
	return h
}

// loggedLock is the lock that a dead run's terraform had asked for, where the run
// was one of this folder's: its holder may have died before it could write that
// into the record.
func (t *target) loggedLock(runID string) string {
	runs, _ := engine.Runs(t.dir)
	for _, r := range runs {
		if r.ID == runID {
			return terraform.LoggedLock(r.LockLog())
		}
	}
	return ""
}

// learn completes what is known of a record's holder.
func (t *target) learn(ctx context.Context, h *lock.HolderSeen) {
	if h == nil || h.Problem != "" {
		return
	}
	h.Process = holder.Process(h.Record)
	if h.Process == lock.Over && h.Record.LockID == "" {
		h.Record.LockID = t.loggedLock(h.Record.RunID)
	}
	// A living record needs no witness.
	if h.Record.CI == nil || h.Living(t.policy) || h.Process == lock.Over {
		return
	}
	if t.runs == nil {
		h.Unasked = "the environment names no CI system to ask, or has no token for it"
		return
	}
	var err error
	if h.CI, err = t.runs.Run(ctx, *h.Record.CI); err != nil { // not known is an answer
		h.Unasked = quote.Line(err.Error(), maxUnasked)
	}
}

func (t *target) holderSeen() *lock.HolderSeen {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

// Remove removes exactly this lock and leaves a record of it in the bucket.
func (t *target) Remove(ctx context.Context, e lock.Entry, approvedBy string) error {
	removers := map[lock.Store]remover{lock.Holder: t.record}
	for _, s := range t.stores() {
		removers[s.Name()] = s
	}
	if s, ok := removers[e.Observation.Store]; ok {
		// Once begun it is carried through: a removal whose record is missing
		// would be worse than a cancel that comes a moment late.
		clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer stop()
		if err := s.Remove(clean, e.Observation); err != nil {
			return fmt.Errorf("remove lock %s: %w", e.Name(), err)
		}
		if err := t.audit.Removed(clean, e, approvedBy, time.Now()); err != nil {
			return fmt.Errorf("lock %s is removed, its record could not be written: %w", e.Name(), err)
		}
		return nil
	}
	return fmt.Errorf("remove lock %s: this state has no lock store %q", e.Name(), e.Observation.Store)
}

// snapshots gives the store of this state's copies.
func (t *target) snapshots(set *settings, o snapshot.Options) *snapshot.Store {
	o.Settings = t.found.Settings
	f := set.file.Snapshots
	if f.Bucket != nil {
		o.Bucket = *f.Bucket
	}
	if f.Region != nil {
		o.BucketClient = t.clients.S3In(*f.Region)
	}
	if f.Keep != nil {
		o.Keep = *f.Keep
	}
	if f.KeepDays != nil {
		o.KeepDays = *f.KeepDays
		if o.KeepDays == 0 {
			o.KeepDays = -1 // none; 0 is the default
		}
	}
	return snapshot.New(t.clients.S3, t.addr, o)
}

func (t *target) backend() *setup.Backend {
	b := setup.New(t.clients.S3, t.clients.DynamoDB, t.addr, t.found.Settings)
	b.Owner = t.clients.AccountID
	return b
}

// lockWatch is set once a run comes to where terraform takes the lock.
type lockWatch struct{ atomic.Bool }

// Emit implements event.Sink.
func (w *lockWatch) Emit(e event.Event) {
	if s, ok := e.(event.StageStarted); ok && (s.Stage == string(pipeline.Plan) || s.Stage == string(pipeline.Apply)) {
		w.Store(true)
	}
}

// confirm compares what was read from the configuration with what terraform
// resolved at init: the run must be about the state that terraform will write.
func (t *target) confirm() error {
	resolved, err := discover.Resolved(t.dataDir)
	if err != nil {
		return err
	}
	if diff := discover.Compare(t.found.Settings, resolved); len(diff) > 0 {
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("terraform resolved another backend than the configuration names: %v", diff),
			hint: "terraform init -reconfigure, with the same --backend-config"}
	}
	return nil
}

// stateMD5 is the digest of the state as it is: the MD5 of the object's bytes in
// lower case hex, empty where there is none.
func (t *target) stateMD5(ctx context.Context) (string, error) {
	name := awsclient.ObjectName(t.addr.Bucket, t.addr.Key)
	out, err := t.clients.S3.GetObject(ctx, awsclient.ObjectOf(t.found.Settings).Get(&s3.GetObjectInput{Bucket: &t.addr.Bucket, Key: &t.addr.Key}))
	if err = awsclient.Explain(err, name); err != nil {
		if backend.Is(err, backend.NotFound) {
			err = nil
		}
		return "", err
	}
	defer out.Body.Close()
	sum := md5.New() // terraform's digest (internal/backend/remote-state/s3/client.go)
	if _, err := io.Copy(sum, out.Body); err != nil {
		return "", awsclient.Explain(err, name)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
