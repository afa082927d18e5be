package snapshot

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// Digests is where terraform keeps the MD5 of the state beside a lock table.
type Digests interface {
	// Digest gives the digest as it is kept, in hexadecimal digits.
	Digest(ctx context.Context) (hex string, found bool, err error)
	PutDigest(ctx context.Context, hex string) error
	RemoveDigest(ctx context.Context) error
}

// RestoreOptions are what a restore or a repair needs beside the store.
type RestoreOptions struct {
	Locks              []Lock  // every store that terraform locks the state in; S3 before DynamoDB, as terraform does
	Digests            Digests // nil without a lock table
	Who                string  // user@host, for the lock record
	Version            string  // for the lock record
	Operation          string  // for the lock record; default "snapshot-restore"
	Reason             string  // of the copy that is made before; default PreRestore
	AllowLineageChange bool    // restore another state's history over this one
	Report             func(step string)
	// Locking is told the ID of the lock before it is taken: a record of it that
	// exists by then names the holder of what a kill leaves. Its error ends all.
	Locking func(id string) error
}

func (o RestoreOptions) withDefaults() RestoreOptions {
	def(&o.Operation, "snapshot-restore")
	def(&o.Reason, PreRestore)
	if o.Report == nil {
		o.Report = func(string) {}
	}
	if o.Locking == nil {
		o.Locking = func(string) error { return nil }
	}
	return o
}

// Steps of a restore, in their order, as Report is told them before each.
const (
	StepCheck    = "check the snapshot"
	StepLock     = "lock the state"
	StepSnapshot = "copy the current state"
	StepSerial   = "find the highest serial"
	StepWrite    = "write the state"
	StepDigest   = "write the digest"
	StepReadBack = "read back"
	StepRelease  = "release the lock"
)

// Result is a restore that was done.
type Result struct {
	From    Snapshot
	Kept    event.Snapshot // of what was there before; zero where nothing was
	Serial  uint64         // of the restored state
	Lineage string
}

// Left says which state is there after a restore that failed.
type Left string

// What a failed restore can leave.
const (
	LeftOld     Left = "old"     // untouched
	LeftNew     Left = "new"     // the restored one
	LeftUnknown Left = "unknown" // it could not be read, or somebody else wrote it
)

// RestoreError is a restore that failed. It unwraps to the cause, which is the
// cause of the context where it was cancelled.
type RestoreError struct {
	Left   Left
	Kept   event.Snapshot // the copy made before, if any
	Digest string         // what the digest item should be and may not be yet; empty where nothing is to be done
	Locked bool           // whether a lock of this restore may be left
	Repair bool           // it was no restore but a repair
	Err    error
}

func (e *RestoreError) Error() string {
	var b strings.Builder
	if e.Repair {
		b.WriteString("repair: ")
	} else {
		b.WriteString("restore: ")
	}
	fmt.Fprintf(&b, "%v; ", e.Err)
	switch e.Left {
	case LeftOld:
		b.WriteString("the state is as it was")
	case LeftNew:
		b.WriteString("the restored state is there")
	default:
		b.WriteString("whether the state is the old or the restored one could not be read")
	}
	if e.Digest != "" {
		b.WriteString(", its digest is not repaired")
	}
	if e.Locked {
		b.WriteString(", the lock may be left")
	}
	return b.String()
}

func (e *RestoreError) Unwrap() error { return e.Err }

// Restore puts the content of a snapshot back as the state, under its lock,
// with a serial above every serial known: of the current state, of all
// snapshots and of all older versions of the object. What is there is copied
// before, whatever it is.
//
// Every error is a [RestoreError] that says which state is there. A cancel
// before the write leaves the old state; from then on the rest is done unless
// it takes longer than the grace. An active lock wraps lock.ErrHeld; a snapshot
// that must not be restored wraps [ErrRefused].
func (s *Store) Restore(ctx context.Context, id string, o RestoreOptions) (Result, error) {
	return s.RestoreFrom(ctx, s, id, o)
}

// RestoreFrom is Restore with the snapshot of another Store, whose state stays
// as it is: so a restore is tried out.
func (s *Store) RestoreFrom(ctx context.Context, other *Store, id string, o RestoreOptions) (Result, error) {
	return s.rewrite(ctx, o, false, func(ctx context.Context, res *Result) (_ *Content, err error) {
		if res.From, err = other.Find(ctx, id); err != nil {
			return nil, err
		}
		return other.fetch(ctx, res.From)
	})
}

// rewrite makes the content that fetch gives the state. With a serial that is
// above every known one it is written byte for byte where asIs is set.
func (s *Store) rewrite(ctx context.Context, o RestoreOptions, asIs bool, fetch func(context.Context, *Result) (*Content, error)) (Result, error) {
	r := &restore{Store: s, o: o.withDefaults(), asIs: asIs, left: LeftOld}
	res, err := r.run(ctx, fetch)
	return res, r.failed(ctx, res, err)
}

// restore is one restore as it goes on.
type restore struct {
	*Store
	o      RestoreOptions
	asIs   bool
	accept func(cur object) error // may refuse what is there under the lock; nil takes everything
	left   Left
	digest string // to be written
	locked bool
}

// failed makes a RestoreError of what went wrong.
func (r *restore) failed(ctx context.Context, res Result, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return &RestoreError{Left: r.left, Kept: res.Kept, Digest: r.digest, Locked: r.locked, Repair: r.o.Reason == PreRepair, Err: err}
}

// underLock runs do while this process holds the state's lock in every store.
func (r *restore) underLock(ctx context.Context, do func() error) (err error) {
	r.o.Report(StepLock)
	id, raw, err := r.record(r.o)
	if err != nil {
		return err
	}
	if err := r.o.Locking(id); err != nil {
		return err
	}
	r.locked = len(r.o.Locks) > 0
	release, err := r.take(ctx, r.o.Locks, raw)
	if err != nil {
		r.locked = errors.Is(err, lock.ErrNotReleased)
		return err
	}
	defer func() {
		r.o.Report(StepRelease)
		freed := release()
		r.locked = freed != nil
		err = errors.Join(err, freed)
	}()
	return do()
}

// keepCurrent copies what is there now, whatever it is.
func (r *restore) keepCurrent(ctx context.Context, res *Result) (cur object, err error) {
	r.o.Report(StepSnapshot)
	if cur, err = r.look(ctx, r.state, r.addr.Key, ""); err != nil {
		return cur, err
	}
	if r.accept != nil {
		if err := r.accept(cur); err != nil {
			return cur, err
		}
	}
	if cur.Size > 0 {
		if res.Kept, err = r.keep(ctx, cur, r.o.Reason); err != nil {
			err = fmt.Errorf("%w: %w", ErrNotKept, err)
		}
	}
	return cur, err
}

func (r *restore) run(ctx context.Context, fetch func(context.Context, *Result) (*Content, error)) (res Result, err error) {
	r.o.Report(StepCheck)
	old, err := fetch(ctx, &res)
	if err != nil {
		return res, err
	}
	defer old.Close()
	err = r.underLock(ctx, func() error {
		res, err = r.replace(ctx, res, old)
		return err
	})
	return res, err
}

// replace is what is done under the lock.
func (r *restore) replace(ctx context.Context, res Result, old *Content) (Result, error) {
	cur, err := r.keepCurrent(ctx, &res)
	if err != nil {
		return res, err
	}
	r.o.Report(StepSerial)
	past, err := r.history(ctx, cur)
	if err != nil {
		return res, err
	}
	if was := past.lineage; was != "" && was != old.doc.lineage && !r.o.AllowLineageChange {
		return res, fmt.Errorf("%w: it has lineage %.60q, the state has %.60q", ErrRefused, old.doc.lineage, was)
	}
	if r.asIs {
		if there, err := r.same(ctx, cur, old); err != nil {
			return res, err
		} else if there {
			res.Serial, res.Lineage, r.left = cur.Serial, cur.Lineage, LeftNew
			ctx, cancel := r.linger(ctx)
			defer cancel()
			return res, r.complete(ctx, cur, old)
		}
	}
	next := old
	res.Serial, res.Lineage = old.doc.serial, old.doc.lineage
	if !r.asIs || past.serial >= old.doc.serial {
		if past.serial = max(past.serial, old.doc.serial); past.serial == math.MaxUint64 {
			return res, fmt.Errorf("%w: no serial is above %d, which a snapshot or version of the state has", ErrRefused, past.serial)
		}
		res.Serial = past.serial + 1
		if next, err = r.renumber(old, res.Serial); err != nil {
			return res, err
		}
		defer next.Close()
	}
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}

	ctx, cancel := r.linger(ctx)
	defer cancel()
	r.o.Report(StepWrite)
	r.left = LeftUnknown
	put, err := r.write(ctx, cur, next)
	if err != nil {
		r.left = r.which(ctx, cur, next)
		switch {
		case r.left == LeftUnknown && hasCode(err, "PreconditionFailed"):
			return res, fmt.Errorf("write state: %w: somebody wrote it without the lock", state.ErrChanged)
		case r.left != LeftNew:
			return res, fmt.Errorf("write state: %w", awsclient.Explain(err, r.state.name(r.addr.Key)))
		}
		if ctx.Err() != nil {
			ctx, cancel = r.cleanUp(ctx)
			defer cancel()
		}
		if put, err = r.look(ctx, r.state, r.addr.Key, ""); err != nil {
			return res, err
		}
	}
	r.left = LeftNew
	return res, r.complete(ctx, put, next)
}

// complete is what follows once next is the state.
func (r *restore) complete(ctx context.Context, put object, next *Content) error {
	if r.o.Digests != nil {
		r.o.Report(StepDigest)
		r.digest = next.md5
		if err := r.repair(ctx, next.md5); err != nil {
			return err
		}
		r.digest = ""
	}
	r.o.Report(StepReadBack)
	sum, err := r.hash(ctx, r.state, r.addr.Key, put)
	if err == nil && sum != next.sha256 {
		r.left = LeftUnknown
		err = fmt.Errorf("%w: what was read is not what was written", ErrNotVerified)
	}
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return nil
}

// Content is a whole state in a private file.
type Content struct {
	file        *os.File
	size        int64
	sha256, md5 string // hexadecimal
	doc         document
	notState    error // where it was read as it is
	borrowed    bool  // somebody else closes it
}

// newContent fills a file that only this process can reach: its name is removed
// at once where the system allows it, so that a kill leaves nothing behind.
func (s *Store) newContent(fill func(w io.Writer) error) (_ *Content, err error) {
	f, err := os.CreateTemp(s.o.TempDir, "tfguard-restore-*")
	if err != nil {
		return nil, fmt.Errorf("make private file: %w", err)
	}
	_ = os.Remove(f.Name()) // else Close does it
	c := &Content{file: f}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	h256, h5 := sha256.New(), md5.New()
	if err = fill(io.MultiWriter(f, h256, h5)); err != nil {
		return nil, err
	}
	if c.size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	c.sha256, c.md5 = hex.EncodeToString(h256.Sum(nil)), hex.EncodeToString(h5.Sum(nil))
	return c, nil
}

// Close removes the file.
func (c *Content) Close() error {
	if c.borrowed {
		return nil
	}
	_ = os.Remove(c.file.Name()) // gone already, where that was possible
	return c.file.Close()
}

// Reader reads the whole content, independent of others.
func (c *Content) Reader() *io.SectionReader { return io.NewSectionReader(c.file, 0, c.size) }

// Head is what the content says of itself.
func (c *Content) Head() state.Head {
	return state.Head{Exists: true, Lineage: c.doc.lineage, Serial: c.doc.serial, Size: c.size}
}

// SHA256 of the content, in hexadecimal digits.
func (c *Content) SHA256() string { return c.sha256 }

// MD5 of the content, which is what terraform keeps as the digest.
func (c *Content) MD5() string { return c.md5 }

// fetch reads a snapshot and refuses one that is not what it was when it was made.
func (s *Store) fetch(ctx context.Context, sn Snapshot) (*Content, error) {
	p := s.copies
	if sn.Script {
		p = s.state
	}
	c, err := s.newContent(func(w io.Writer) error {
		body, err := s.open(ctx, p, sn.Key, state.Head{ETag: sn.ETag, VersionID: sn.VersionID})
		if err != nil {
			return err
		}
		defer body.Close()
		n, err := io.Copy(w, io.LimitReader(body, sn.Size+1))
		if err == nil && n != sn.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read snapshot: %w", awsclient.Explain(err, p.name(sn.Key)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := c.check(sn); err != nil {
		c.Close()
		if errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %s", err, sn.ID)
		}
		return nil, err
	}
	return c, nil
}

// check compares the content with what its snapshot says of it.
func (c *Content) check(sn Snapshot) (err error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
	}
	switch {
	case sn.SHA256 != "" && sn.SHA256 != c.sha256:
		return refuse("its SHA-256 is %s, it was %s", c.sha256, sn.SHA256)
	case sn.sourceSize != 0 && sn.sourceSize != c.size:
		return refuse("it has %d bytes, it had %d", c.size, sn.sourceSize)
	}
	if c.doc, err = readDocument(c.Reader()); errors.Is(err, state.ErrNotState) {
		return refuse("%w", err)
	} else if err != nil {
		return fmt.Errorf("read private file: %w", err)
	}
	_, _, serial, own := parseID(sn.ID)
	switch {
	case !own:
		return nil
	case sn.Lineage == "":
		return refuse("it has lost its metadata")
	case sn.Lineage != c.doc.lineage:
		return refuse("it has lineage %.60q, it had %.60q", c.doc.lineage, sn.Lineage)
	case serial != c.doc.serial || sn.Serial != c.doc.serial:
		return refuse("it has serial %d, it had %d", c.doc.serial, serial)
	}
	return nil
}

// renumber gives the same content with another serial.
func (s *Store) renumber(old *Content, serial uint64) (*Content, error) {
	return s.newContent(func(w io.Writer) error {
		if err := rewrite(w, old.Reader(), old.doc, serial); err != nil {
			return fmt.Errorf("write private file: %w", err)
		}
		return nil
	})
}

// past is what is known of the state's history.
type past struct {
	serial  uint64 // the highest ever
	lineage string // of the current state; where that is no state, of the newest version that is one; may be empty
}

// history reads the highest serial of the current state, of the snapshots and
// of the versions of the object. A version that is archived cannot be read and
// does not count.
func (s *Store) history(ctx context.Context, cur object) (past, error) {
	p := past{serial: cur.Serial, lineage: cur.Lineage}
	names, err := s.names(ctx, "")
	if err != nil {
		return past{}, fmt.Errorf("find highest serial: %w", err)
	}
	var scripts []Snapshot
	for _, n := range names {
		if n.Script {
			scripts = append(scripts, n)
		}
		p.serial = max(p.serial, n.Serial)
	}
	if scripts, err = s.describeAll(ctx, scripts); err != nil {
		return past{}, fmt.Errorf("find highest serial: %w", err)
	}
	for _, n := range scripts {
		if p.lineage == "" || n.Lineage == p.lineage {
			p.serial = max(p.serial, n.Serial)
		}
	}
	heads, err := s.versions(ctx, cur.VersionID)
	if err != nil {
		return past{}, fmt.Errorf("find highest serial: %w", err)
	}
	for _, h := range heads { // newest first
		p.serial = max(p.serial, h.Serial)
		if cur.notState != nil {
			def(&p.lineage, h.Lineage)
		}
	}
	return p, nil
}

// versions reads the heads of all versions of the state but one, newest first.
func (s *Store) versions(ctx context.Context, except string) ([]state.Head, error) {
	all, err := s.versionIDs(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v version) bool { return v.deleted || v.id == except || v.size == 0 })
	return s.headsOf(ctx, all)
}

// version is a version of the state's object, or a delete marker, as listed.
type version struct {
	id       string
	size     int64
	modified time.Time
	deleted  bool
}

// versionIDs lists the versions of the state's object, newest first.
func (s *Store) versionIDs(ctx context.Context) ([]version, error) {
	var all []version
	pages := s.versionPages(s.addr.Key)
	for n := 0; pages.HasMorePages(); {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list versions: %w", awsclient.Explain(err, awsclient.BucketName(s.state.bucket)))
		}
		past := false
		add := func(key, id *string, size int64, modified *time.Time, deleted bool) {
			past = past || aws.ToString(key) > s.addr.Key
			if aws.ToString(key) == s.addr.Key {
				all = append(all, version{aws.ToString(id), size, aws.ToTime(modified), deleted})
			}
		}
		for _, v := range out.Versions {
			add(v.Key, v.VersionId, aws.ToInt64(v.Size), v.LastModified, false)
		}
		for _, m := range out.DeleteMarkers {
			add(m.Key, m.VersionId, 0, m.LastModified, true)
		}
		if past { // keys come in order
			break
		}
		if n += max(1, len(out.Versions)+len(out.DeleteMarkers)); n > maxObjects {
			return nil, fmt.Errorf("list versions of %s: there are more than %d", s.state.name(s.addr.Key), maxObjects)
		}
	}
	// Each page has its versions before its markers; both come newest first.
	slices.SortStableFunc(all, func(a, b version) int { return b.modified.Compare(a.modified) })
	return all, nil
}

// versionPages lists versions. It does not stop where a page ends at the same key
// as the one before, as the SDK can be told to: a key may have many pages of
// versions. Its callers bound it.
func (s *Store) versionPages(prefix string) *s3.ListObjectVersionsPaginator {
	return s3.NewListObjectVersionsPaginator(s.state.client, &s3.ListObjectVersionsInput{Bucket: aws.String(s.state.bucket), Prefix: aws.String(prefix)})
}

// headsOf reads the heads of versions, in their order. One that is archived has
// a zero Head.
func (s *Store) headsOf(ctx context.Context, all []version) ([]state.Head, error) {
	heads := make([]state.Head, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.o.Parallel)
	for i, v := range all {
		g.Go(func() error {
			obj, err := s.look(ctx, s.state, s.addr.Key, v.id)
			if hasCode(err, "InvalidObjectState") { // archived
				return nil
			}
			heads[i] = obj.Head
			return err
		})
	}
	return heads, g.Wait()
}

// write replaces the object cur by the content, if it is still cur. Errors are
// the SDK's.
func (s *Store) write(ctx context.Context, cur object, c *Content) (object, error) {
	var match, none *string
	if cur.present {
		match = aws.String(cur.ETag)
	} else {
		none = aws.String("*")
	}
	return s.put(ctx, s.addr.Key, match, none, s.crypt.like(cur), c)
}

// put writes the content to a key beside the state. Errors are the SDK's.
func (s *Store) put(ctx context.Context, key string, match, none *string, e encryption, c *Content) (object, error) {
	put := object{Head: state.Head{Size: c.size}, present: true}
	if c.size > s.o.SingleLimit {
		var err error
		put.VersionID, put.ETag, err = s.inParts(ctx, upload{
			place: s.state, key: key, size: c.size, ifMatch: match, ifNoneMatch: none,
			mime: stateType, crypt: e,
			part: func(ctx context.Context, uploadID string, n int32, from, to int64) (types.CompletedPart, error) {
				out, err := s.state.client.UploadPart(ctx, &s3.UploadPartInput{
					Bucket: aws.String(s.state.bucket), Key: aws.String(key), UploadId: aws.String(uploadID), PartNumber: aws.Int32(n),
					Body: io.NewSectionReader(c.file, from, to-from), ContentLength: aws.Int64(to - from),
					ChecksumAlgorithm:    e.checksum,
					SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.keyMD5,
				})
				if err != nil {
					return types.CompletedPart{}, err
				}
				return types.CompletedPart{PartNumber: aws.Int32(n), ETag: out.ETag, ChecksumSHA256: out.ChecksumSHA256}, nil
			},
		})
		return put, err
	}
	in := &s3.PutObjectInput{
		Bucket: aws.String(s.state.bucket), Key: aws.String(key), IfMatch: match, IfNoneMatch: none,
		Body: c.Reader(), ContentLength: aws.Int64(c.size), ContentType: aws.String(stateType),
		ServerSideEncryption: e.sse, SSEKMSKeyId: e.kmsKey, ACL: e.acl,
		SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.keyMD5,
	}
	if e.checksum != "" {
		in.ChecksumSHA256 = aws.String(base64Sum(c.sha256))
	}
	out, err := s.state.client.PutObject(ctx, in)
	if err != nil {
		return put, err
	}
	put.VersionID, put.ETag = aws.ToString(out.VersionId), aws.ToString(out.ETag)
	return put, nil
}

// stateType is the content type that terraform gives a state.
const stateType = "application/json"

func base64Sum(hexSum string) string {
	raw, _ := hex.DecodeString(hexSum) // made by EncodeToString
	return base64.StdEncoding.EncodeToString(raw)
}

// which finds out which state is there after a write without a clear answer.
func (s *Store) which(ctx context.Context, cur object, next *Content) Left {
	ctx, cancel := s.cleanUp(ctx)
	defer cancel()
	now, err := s.look(ctx, s.state, s.addr.Key, "")
	switch {
	case err != nil:
		return LeftUnknown
	case now.present == cur.present && now.ETag == cur.ETag:
		return LeftOld
	case now.Size != next.size:
		return LeftUnknown
	}
	if sum, err := s.hash(ctx, s.state, s.addr.Key, now); err != nil || sum != next.sha256 {
		return LeftUnknown
	}
	return LeftNew
}

// repair writes the digest and reads it back.
func (r *restore) repair(ctx context.Context, digest string) error {
	if err := r.o.Digests.PutDigest(ctx, digest); err != nil {
		return fmt.Errorf("write digest: %w", err)
	}
	got, found, err := r.o.Digests.Digest(ctx)
	if err == nil && (!found || got != digest) {
		err = fmt.Errorf("%w: it is %.60q, not %s", ErrNotVerified, got, digest)
	}
	if err != nil {
		return fmt.Errorf("read back digest: %w", err)
	}
	return nil
}
