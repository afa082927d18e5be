// Package snapshot keeps copies of a Terraform state in S3 and puts one back.
//
// A snapshot is written once, by the store itself (server-side), from exactly
// the object version that was named, and verified before anybody relies on it.
// A restore writes old content under the state's lock, with a serial above
// every serial that is known for the state, so that no old plan fits it.
//
// What is not guaranteed: a store that ignores conditional writes may overwrite
// a snapshot made in the same millisecond with the same reason and serial.
package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/state"
)

// Errors that a caller branches on.
var (
	// ErrNoState: there is no state yet, so there is nothing to copy; no failure.
	ErrNoState = errors.New("there is no state to copy")
	// ErrNotVerified: a copy was made and is not what was to be copied.
	ErrNotVerified = errors.New("the copy does not match the state")
	// ErrNotKept: what is there could not be copied, so it was not written over.
	ErrNotKept = errors.New("the state could not be copied before")
	// ErrNotFound: no snapshot has that ID.
	ErrNotFound = errors.New("no such snapshot")
	// ErrRefused: the snapshot is truncated, tampered with, or another state's.
	ErrRefused = errors.New("the snapshot cannot be restored")
)

// Options are the settings of a Store. The zero value of each field is its default.
type Options struct {
	Bucket       string     // of the snapshots; default: the state's own
	BucketClient *s3.Client // for Bucket, where it is in another region or account; default: the state's
	Keep         int        // how many of the last snapshots Prune keeps: default 30, negative none
	KeepDays     int        // and of how many days all: default 30, negative none

	Run              string // recorded in the snapshot: tfguard's run ID
	Commit           string // and the commit of the configuration
	TerraformVersion string // of the terraform that runs; default: the one that wrote the state

	// Copied is told of what Keep has copied, as the store described it.
	Copied func(state.Head)

	Settings backend.Settings // encryption and ACL of the state, used for its copies too

	Now         func() time.Time
	Grace       time.Duration // what must not be left half done gets this long after a cancel; default 4 s
	Parallel    int           // requests at once while reading many objects; default 8
	SingleLimit int64         // larger objects are copied and written in parts; default and S3's limit: 5 GiB
	PartSize    int64         // bytes of such a part; default 128 MiB
	TempDir     string        // for the private file of a restore; default os.TempDir
}

// Store keeps the snapshots of one state.
type Store struct {
	o      Options
	addr   backend.Address
	state  place
	copies place
	crypt  encryption
}

// place is a bucket and the client that reaches it.
type place struct {
	client *s3.Client
	bucket string
}

func (p place) name(key string) string { return awsclient.ObjectName(p.bucket, key) }

// New gives the Store of the state at addr. It makes no request; the client
// bounds those made later, as those of awsclient do.
func New(client *s3.Client, addr backend.Address, o Options) *Store {
	def(&o.Bucket, addr.Bucket)
	def(&o.BucketClient, client)
	def(&o.Keep, 30)
	def(&o.KeepDays, 30)
	def(&o.Grace, 4*time.Second)
	def(&o.Parallel, 8)
	def(&o.SingleLimit, 5<<30)
	def(&o.PartSize, 128<<20)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Copied == nil {
		o.Copied = func(state.Head) {}
	}
	return &Store{
		o: o, addr: addr, crypt: encryptionOf(o.Settings),
		state:  place{client, addr.Bucket},
		copies: place{o.BucketClient, o.Bucket},
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Head reads what identifies the state as it is now, in one request where
// lineage and serial are near the beginning, as terraform writes them. No
// object, or an empty one (which terraform takes for none), is the zero Head.
// Content that is no state wraps [state.ErrNotState].
func (s *Store) Head(ctx context.Context) (state.Head, error) {
	obj, err := s.look(ctx, s.state, s.addr.Key, "")
	if err != nil {
		return state.Head{}, err
	}
	if obj.notState != nil {
		return state.Head{}, fmt.Errorf("read state %s: %w", s.addr, obj.notState)
	}
	if !obj.Exists {
		return state.Head{}, nil
	}
	return obj.Head, nil
}

// object is one version of an object: what S3 says of it, and what its
// beginning says of the state in it.
type object struct {
	state.Head // where the content is no state, Exists is false and only what S3 says is set
	present    bool
	mime       string
	sse        types.ServerSideEncryption
	kmsKey     string
	ssec       bool
	whole      []byte    // the content, where it is no longer than state.HeadBytes
	notState   error     // why the content is no state
	now        time.Time // the store's clock at the reading; zero where it told none
}

// look reads one version of an object, the newest without one.
func (s *Store) look(ctx context.Context, p place, key, version string) (object, error) {
	in := s.get(p, key, version)
	in.Range = aws.String(fmt.Sprintf("bytes=0-%d", state.HeadBytes-1))
	out, err := p.client.GetObject(ctx, in, unchecked)
	switch {
	case hasCode(err, "NoSuchKey", "NoSuchVersion"):
		return object{}, nil
	case hasCode(err, "InvalidRange"):
		return s.lookEmpty(ctx, p, key, version)
	case err != nil:
		return object{}, fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
	}
	defer out.Body.Close()
	begin, err := io.ReadAll(io.LimitReader(out.Body, state.HeadBytes))
	if err != nil {
		return object{}, fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
	}
	found := state.Head{VersionID: aws.ToString(out.VersionId), ETag: aws.ToString(out.ETag), Size: sizeOf(out), Modified: aws.ToTime(out.LastModified)}
	obj := object{
		Head: found, present: true, mime: aws.ToString(out.ContentType),
		sse: out.ServerSideEncryption, kmsKey: aws.ToString(out.SSEKMSKeyId), ssec: out.SSECustomerAlgorithm != nil,
		now: awsclient.ServerTime(out.ResultMetadata),
	}
	if found.Size == 0 {
		return obj, nil
	}
	if found.Size == int64(len(begin)) {
		obj.whole = begin
	}
	head, err := state.Parse(bytes.NewReader(begin))
	if err != nil && obj.whole == nil {
		head, err = s.parseAll(ctx, p, key, version, found)
	}
	switch {
	case errors.Is(err, state.ErrNotState):
		obj.notState = err
		return obj, nil
	case err != nil:
		return object{}, err
	}
	obj.Exists, obj.Lineage, obj.Serial, obj.TerraformVersion = true, head.Lineage, head.Serial, head.TerraformVersion
	return obj, nil
}

// lookEmpty is look for an object of no bytes, of which no range can be read.
func (s *Store) lookEmpty(ctx context.Context, p place, key, version string) (object, error) {
	out, err := p.client.HeadObject(ctx, s.headInput(p, key, version))
	if hasCode(err, "NotFound", "NoSuchKey", "NoSuchVersion") {
		return object{}, nil
	}
	if err != nil {
		return object{}, fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
	}
	if n := aws.ToInt64(out.ContentLength); n != 0 {
		return object{}, fmt.Errorf("read state %s: %w: it was written while it was read", p.name(key), state.ErrChanged)
	}
	found := state.Head{VersionID: aws.ToString(out.VersionId), ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified)}
	return object{Head: found, present: true}, nil
}

// parseAll reads a state whose serial is not near its beginning, without
// holding it in memory.
func (s *Store) parseAll(ctx context.Context, p place, key, version string, found state.Head) (state.Head, error) {
	found.VersionID = version // asking for a version needs a permission more
	body, err := s.open(ctx, p, key, found)
	if err != nil {
		return state.Head{}, err
	}
	defer body.Close()
	failed := &readError{r: body}
	head, err := state.Parse(failed)
	if failed.err != nil {
		return state.Head{}, fmt.Errorf("read state: %w", awsclient.Explain(failed.err, p.name(key)))
	}
	return head, err
}

// readError remembers what went wrong with the reading, which a parser takes
// for an error of the content.
type readError struct {
	r   io.Reader
	err error
}

func (e *readError) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// open reads exactly the content that found names, from its beginning.
func (s *Store) open(ctx context.Context, p place, key string, found state.Head) (io.ReadCloser, error) {
	in := s.get(p, key, found.VersionID)
	in.IfMatch = opt(found.ETag)
	out, err := p.client.GetObject(ctx, in, unchecked)
	switch {
	case hasCode(err, "PreconditionFailed", "NoSuchKey", "NoSuchVersion"):
		return nil, fmt.Errorf("read %s: %w", p.name(key), state.ErrChanged)
	case err != nil:
		return nil, fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
	}
	return out.Body, nil
}

// hash gives the SHA-256 of exactly the content obj, in hexadecimal digits.
func (s *Store) hash(ctx context.Context, p place, key string, obj object) (string, error) {
	if obj.whole != nil {
		return sum256(obj.whole), nil
	}
	body, err := s.open(ctx, p, key, obj.Head)
	if err != nil {
		return "", err
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.Copy(h, body)
	if err == nil && n != obj.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", fmt.Errorf("read state: %w", awsclient.Explain(err, p.name(key)))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sum256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *Store) get(p place, key, version string) *s3.GetObjectInput {
	return &s3.GetObjectInput{
		Bucket: aws.String(p.bucket), Key: aws.String(key), VersionId: opt(version),
		SSECustomerAlgorithm: s.crypt.algorithm, SSECustomerKey: s.crypt.key, SSECustomerKeyMD5: s.crypt.keyMD5,
	}
}

func (s *Store) headInput(p place, key, version string) *s3.HeadObjectInput {
	return &s3.HeadObjectInput{
		Bucket: aws.String(p.bucket), Key: aws.String(key), VersionId: opt(version),
		ChecksumMode:         types.ChecksumModeEnabled,
		SSECustomerAlgorithm: s.crypt.algorithm, SSECustomerKey: s.crypt.key, SSECustomerKeyMD5: s.crypt.keyMD5,
	}
}

// linger gives a context that outlives a cancel of ctx by the grace: for what
// must not be left half done, and yet must end.
func (s *Store) linger(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(s.o.Grace):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}

// cleanUp gives a context for undoing, whatever became of ctx.
func (s *Store) cleanUp(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.o.Grace)
}

// unchecked keeps the SDK from comparing what it reads with the object's
// checksum: some stores send that of the whole object with a part of it, and
// this package compares for itself.
func unchecked(o *s3.Options) {
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

// sizeOf is the size of the whole object, of which out may be a range.
func sizeOf(out *s3.GetObjectOutput) int64 {
	if _, total, ok := strings.Cut(aws.ToString(out.ContentRange), "/"); ok {
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			return n
		}
	}
	return aws.ToInt64(out.ContentLength)
}

// hasCode reports whether the service answered with one of the codes.
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if api.ErrorCode() == c {
			return true
		}
	}
	return false
}

// opt is nil for an empty string, which AWS would take for a value.
func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
