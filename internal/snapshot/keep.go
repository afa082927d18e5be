package snapshot

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/state"
)

// maxTries bounds how often a copy is tried under another name, or again where
// the store asks for it.
const maxTries = 5

// Keep copies the state that want names and verifies the copy, in three
// requests: read the head, copy exactly that version, read the copy's head. It
// gives no error unless the verified copy exists.
//
// No state where none is wanted is [ErrNoState]; a state other than the wanted
// one wraps [state.ErrChanged]; a copy that does not match is removed again and
// wraps [ErrNotVerified].
func (s *Store) Keep(ctx context.Context, want state.Head, reason string) (event.Snapshot, error) {
	if !reasonForm.MatchString(reason) {
		return event.Snapshot{}, fmt.Errorf("snapshot: %q is no usable reason: lower case letters, digits and hyphens", reason)
	}
	cur, err := s.look(ctx, s.state, s.addr.Key, "")
	switch {
	case err != nil:
		return event.Snapshot{}, fmt.Errorf("snapshot: %w", err)
	case cur.notState != nil:
		return event.Snapshot{}, fmt.Errorf("snapshot: read state %s: %w", s.addr, cur.notState)
	case !cur.Same(want):
		return event.Snapshot{}, fmt.Errorf("snapshot: %w: it was %s, it is %s", state.ErrChanged, want, cur.Head)
	case !cur.Exists:
		return event.Snapshot{}, ErrNoState
	}
	// A large state is not read for its number of resources: a plan knows it.
	if cur.Resources = want.Resources; cur.Resources == nil && cur.whole != nil {
		if n, err := state.Count(bytes.NewReader(cur.whole)); err == nil {
			cur.Resources = &n
		}
	}
	kept, err := s.keep(ctx, cur, reason)
	if err == nil {
		s.o.Copied(cur.Head)
	}
	return kept, err
}

// keep makes and verifies a copy of exactly the object cur, whatever its content.
func (s *Store) keep(ctx context.Context, cur object, reason string) (event.Snapshot, error) {
	made, err := s.duplicate(ctx, cur, reason)
	if err != nil {
		return event.Snapshot{}, fmt.Errorf("make snapshot: %w", err)
	}
	sum, err := s.verify(ctx, cur, made)
	if err != nil {
		err = fmt.Errorf("verify snapshot %s: %w", made.id, err)
		// A store that ignores a copy's condition copies what came in between.
		if now, lookErr := s.look(ctx, s.state, s.addr.Key, ""); lookErr == nil && now.ETag != cur.ETag {
			err = fmt.Errorf("%w: it was written while it was copied", state.ErrChanged)
		}
		if undo := s.discard(ctx, made); undo != nil {
			err = errors.Join(err, undo)
		}
		return event.Snapshot{}, err
	}
	return event.Snapshot{ID: made.id, Key: s.key(made.id), Serial: cur.Serial, Lineage: cur.Lineage, SHA256: sum}, nil
}

func (s *Store) key(id string) string { return s.addr.SnapshotPrefix() + id + suffix }

// made is what the store answered to a copy.
type made struct {
	id, version, etag string
	sha256            string // of the whole content, hexadecimal; empty where the store gave none
}

// duplicate copies cur under a name that nothing has yet.
func (s *Store) duplicate(ctx context.Context, cur object, reason string) (made, error) {
	at := s.o.Now()
	var id string
	for range maxTries {
		id = newID(at, reason, cur.Serial)
		m, err := s.duplicateAs(ctx, cur, id, s.describe(cur, reason))
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, state.ErrChanged):
			return made{}, err
		case hasCode(err, "NoSuchKey", "NoSuchVersion"):
			return made{}, fmt.Errorf("%w: the version to copy is gone", state.ErrChanged)
		case hasCode(err, "ConditionalRequestConflict", "OperationAborted"):
			continue
		case !hasCode(err, "PreconditionFailed"):
			return made{}, fmt.Errorf("copy state: %w", awsclient.Explain(err, s.copies.name(s.key(id))))
		}
		// Either the name is taken, or the state is another one by now.
		now, err := s.look(ctx, s.state, s.addr.Key, "")
		if err != nil {
			return made{}, err
		}
		if now.ETag != cur.ETag {
			return made{}, fmt.Errorf("%w: it was written while it was copied", state.ErrChanged)
		}
		at = at.Add(time.Millisecond)
	}
	return made{}, fmt.Errorf("copy state to %s: the name is taken, %d times in a row", s.copies.name(s.key(id)), maxTries)
}

// describe is the metadata of a copy of cur.
func (s *Store) describe(cur object, reason string) metadata {
	m := metadata{}
	m.set(metaLineage, cur.Lineage)
	m.set(metaSerial, strconv.FormatUint(cur.Serial, 10))
	m.set(metaReason, reason)
	m.set(metaRun, s.o.Run)
	m.set(metaCommit, s.o.Commit)
	version := s.o.TerraformVersion
	def(&version, cur.TerraformVersion)
	m.set(metaTerraform, version)
	if cur.Resources != nil {
		m.set(metaResources, strconv.Itoa(*cur.Resources))
	}
	m.set(metaSize, strconv.FormatInt(cur.Size, 10))
	m.set(metaVersion, cur.VersionID)
	m.set(metaETag, cur.ETag)
	if cur.whole != nil {
		m.set(metaSHA256, sum256(cur.whole))
	}
	return m
}

// duplicateAs copies cur to the snapshot id, unless there is one.
func (s *Store) duplicateAs(ctx context.Context, cur object, id string, meta metadata) (made, error) {
	if cur.Size > s.o.SingleLimit {
		return s.duplicateInParts(ctx, cur, id, meta)
	}
	e := s.crypt.like(cur)
	in := &s3.CopyObjectInput{
		Bucket: aws.String(s.copies.bucket), Key: aws.String(s.key(id)), IfNoneMatch: aws.String("*"),
		CopySource:        aws.String(copySource(s.state.bucket, s.addr.Key, cur.VersionID)),
		CopySourceIfMatch: opt(cur.ETag),
		ChecksumAlgorithm: e.checksum,
		MetadataDirective: types.MetadataDirectiveReplace, Metadata: meta, ContentType: opt(cur.mime),
		TaggingDirective:     types.TaggingDirectiveReplace, // copying tags needs a permission more
		ServerSideEncryption: e.sse, SSEKMSKeyId: e.kmsKey, ACL: e.acl,
		SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.keyMD5,
		CopySourceSSECustomerAlgorithm: e.algorithm, CopySourceSSECustomerKey: e.key, CopySourceSSECustomerKeyMD5: e.keyMD5,
	}
	out, err := s.copies.client.CopyObject(ctx, in)
	if hasCode(err, "AccessDenied") && cur.VersionID != "" {
		// A version needs s3:GetObjectVersion, which terraform does not; the ETag
		// alone names the same content as long as it is the newest.
		in.CopySource = aws.String(copySource(s.state.bucket, s.addr.Key, ""))
		out, err = s.copies.client.CopyObject(ctx, in)
	}
	if hasCode(err, "NotImplemented") { // a store without conditional copies
		if err := s.absent(ctx, id); err != nil {
			return made{}, err
		}
		in.IfNoneMatch = nil
		out, err = s.copies.client.CopyObject(ctx, in)
	}
	if err != nil {
		return made{}, err
	}
	m := made{id: id, version: aws.ToString(out.VersionId)}
	if r := out.CopyObjectResult; r != nil {
		m.etag, m.sha256 = aws.ToString(r.ETag), hexSum(aws.ToString(r.ChecksumSHA256))
	}
	return m, nil
}

// absent is an error of code PreconditionFailed where the snapshot id exists.
func (s *Store) absent(ctx context.Context, id string) error {
	_, err := s.copies.client.HeadObject(ctx, s.headInput(s.copies, s.key(id), ""))
	switch {
	case err == nil:
		return &smithy.GenericAPIError{Code: "PreconditionFailed", Message: "the name is taken"}
	case hasCode(err, "NotFound", "NoSuchKey"):
		return nil
	}
	return err
}

// duplicateInParts is duplicateAs above the limit of one copy. The store has no
// checksum of the whole then, so the content is read once before.
func (s *Store) duplicateInParts(ctx context.Context, cur object, id string, meta metadata) (made, error) {
	sum, err := s.hash(ctx, s.state, s.addr.Key, cur)
	if err != nil {
		return made{}, err
	}
	meta.set(metaSHA256, sum)
	e := s.crypt.like(cur)
	up := upload{
		place: s.copies, key: s.key(id), size: cur.Size, ifNoneMatch: aws.String("*"),
		mime: cur.mime, meta: meta, crypt: e,
		part: func(ctx context.Context, uploadID string, n int32, from, to int64) (types.CompletedPart, error) {
			out, err := s.copies.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
				Bucket: aws.String(s.copies.bucket), Key: aws.String(s.key(id)), UploadId: aws.String(uploadID), PartNumber: aws.Int32(n),
				CopySource:           aws.String(copySource(s.state.bucket, s.addr.Key, cur.VersionID)),
				CopySourceIfMatch:    opt(cur.ETag),
				CopySourceRange:      aws.String(fmt.Sprintf("bytes=%d-%d", from, to-1)),
				SSECustomerAlgorithm: e.algorithm, SSECustomerKey: e.key, SSECustomerKeyMD5: e.keyMD5,
				CopySourceSSECustomerAlgorithm: e.algorithm, CopySourceSSECustomerKey: e.key, CopySourceSSECustomerKeyMD5: e.keyMD5,
			})
			if err != nil || out.CopyPartResult == nil {
				return types.CompletedPart{}, err
			}
			return types.CompletedPart{PartNumber: aws.Int32(n), ETag: out.CopyPartResult.ETag, ChecksumSHA256: out.CopyPartResult.ChecksumSHA256}, nil
		},
	}
	version, etag, err := s.inParts(ctx, up)
	return made{id: id, version: version, etag: etag}, err
}

// verify reads the copy back and gives its SHA-256.
func (s *Store) verify(ctx context.Context, cur object, m made) (string, error) {
	got, err := s.look(ctx, s.copies, s.key(m.id), "")
	if err != nil {
		return "", err
	}
	differs := func(what string, want, got any) error {
		return fmt.Errorf("%w: %s is %v, not %v", ErrNotVerified, what, got, want)
	}
	switch {
	case !got.present:
		return "", fmt.Errorf("%w: it is not there", ErrNotVerified)
	case got.Size != cur.Size:
		return "", differs("its size", cur.Size, got.Size)
	case got.ETag != m.etag:
		return "", differs("its ETag", m.etag, got.ETag)
	case got.Lineage != cur.Lineage || got.Serial != cur.Serial || (got.notState == nil) != (cur.notState == nil):
		return "", differs("its content", cur.Head, got.Head)
	case !bytes.Equal(got.whole, cur.whole):
		return "", fmt.Errorf("%w: its content differs", ErrNotVerified)
	}
	if m.sha256 != "" && got.whole == nil && !differ(cur, got) {
		return m.sha256, nil
	}
	sum, err := s.hash(ctx, s.copies, s.key(m.id), got)
	if err != nil {
		return "", err
	}
	if m.sha256 != "" && m.sha256 != sum {
		return "", differs("its SHA-256", sum, m.sha256)
	}
	if differ(cur, got) {
		want, err := s.hash(ctx, s.state, s.addr.Key, cur)
		if err != nil {
			return "", err
		}
		if want != sum {
			return "", differs("its SHA-256", want, sum)
		}
	}
	return sum, nil
}

var md5Form = regexp.MustCompile(`^"[0-9a-f]{32}"$`)

// differ reports whether the ETags say that two objects have other content.
// S3's is the MD5 of the content, but not of one written in parts or encrypted
// with a key of KMS or of the customer, which says nothing.
func differ(a, b object) bool {
	return a.md5() && b.md5() && a.ETag != b.ETag
}

func (o object) md5() bool { return !o.kms() && !o.ssec && md5Form.MatchString(o.ETag) }

// discard removes a copy that failed its verification: only the version that
// was written, or in a bucket without versions the content that was written.
func (s *Store) discard(ctx context.Context, m made) error {
	ctx, cancel := s.cleanUp(ctx)
	defer cancel()
	in := &s3.DeleteObjectInput{Bucket: aws.String(s.copies.bucket), Key: aws.String(s.key(m.id))}
	if m.version != "" {
		in.VersionId = aws.String(m.version)
	} else {
		in.IfMatch = opt(m.etag)
	}
	if _, err := s.copies.client.DeleteObject(ctx, in); err != nil {
		return fmt.Errorf("remove the copy that failed: %w", awsclient.Explain(err, s.copies.name(s.key(m.id))))
	}
	return nil
}

// hexSum turns a checksum of S3 into hexadecimal digits; it is empty where the
// store gave none, or one of the parts ("…-2") instead of the whole.
func hexSum(b64 string) string {
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err != nil || len(raw) != 32 {
		return ""
	}
	return hex.EncodeToString(raw)
}
