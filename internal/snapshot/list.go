package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/state"
)

// Snapshot is one copy of the state, with the fields of `snapshot list --json`.
// Its strings come from the bucket: data, of one line each.
type Snapshot struct {
	ID               string    `json:"id"`
	Time             time.Time `json:"time"` // UTC
	Reason           string    `json:"reason"`
	Serial           uint64    `json:"serial"`
	Lineage          string    `json:"lineage"` // empty where the copied content was no state
	Size             int64     `json:"size"`    // bytes
	SHA256           string    `json:"sha256"`  // hexadecimal; empty where the store keeps none
	Key              string    `json:"key"`     // of the object
	Run              string    `json:"run"`
	Commit           string    `json:"commit"`
	TerraformVersion string    `json:"terraform_version"`
	Resources        *int      `json:"resources,omitempty"` // instances; nil where they were not counted

	ETag      string `json:"-"`
	VersionID string `json:"-"` // empty without versions, or before it was looked up
	// Script is set for a copy that was not made by tfguard but by a script,
	// `aws s3 cp` to backups/pre-apply-NAME.TIMESTAMP: it has no metadata, and
	// may be of another state with the same file name. Prune leaves it alone.
	Script bool `json:"-"`

	sourceSize int64  // what the metadata says of the content copied; 0 unknown
	sourceETag string // empty unknown
}

// maxObjects bounds a listing: 100 pages.
const maxObjects = 100_000

// List gives all snapshots of the state, newest first, those made by scripts too.
func (s *Store) List(ctx context.Context) ([]Snapshot, error) {
	names, err := s.names(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all, err := s.describeAll(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return all, nil
}

// describeAll reads the metadata of each; one that is gone by now is left out.
func (s *Store) describeAll(ctx context.Context, names []Snapshot) ([]Snapshot, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.o.Parallel)
	for i := range names {
		g.Go(func() error {
			err := s.lookUp(ctx, &names[i])
			if errors.Is(err, ErrNotFound) {
				names[i] = Snapshot{}
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n Snapshot) bool { return n.ID == "" }), nil
}

// names lists the snapshots whose ID begins with prefix, newest first, with
// what the listing alone tells.
func (s *Store) names(ctx context.Context, prefix string) ([]Snapshot, error) {
	all, err := s.ownNames(ctx, prefix)
	if err != nil {
		return nil, err
	}
	script := "pre-apply-" + path.Base(s.addr.Key) + "."
	if strings.HasPrefix(script, prefix) || strings.HasPrefix(prefix, script) {
		if len(prefix) > len(script) {
			script = prefix
		}
		err = s.walk(ctx, s.state, "backups/"+script, func(key string, size int64, etag string, modified time.Time) {
			if id := strings.TrimPrefix(key, "backups/"); isPrefix(id) {
				all = append(all, Snapshot{ID: id, Time: scriptTime(id, modified), Reason: PreApply, Size: size, Key: key, ETag: etag, Script: true})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, newestFirst)
	return all, nil
}

// ownNames are names without the copies that scripts made, in the order of the
// listing.
func (s *Store) ownNames(ctx context.Context, prefix string) ([]Snapshot, error) {
	all := []Snapshot{}
	own := s.addr.SnapshotPrefix()
	err := s.walk(ctx, s.copies, own+prefix, func(key string, size int64, etag string, _ time.Time) {
		id, ok := strings.CutSuffix(strings.TrimPrefix(key, own), suffix)
		if at, reason, serial, valid := parseID(id); ok && valid {
			all = append(all, Snapshot{ID: id, Time: at, Reason: reason, Serial: serial, Size: size, Key: key, ETag: etag})
		}
	})
	return all, err
}

func newestFirst(a, b Snapshot) int {
	return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ID, a.ID))
}

// scriptTime reads the TIMESTAMP that a script appended, or takes the time of
// the object where it is of no known form.
func scriptTime(id string, modified time.Time) time.Time {
	stamp := id[strings.LastIndex(id, ".")+1:]
	for _, form := range []string{"20060102150405", "20060102-150405", "20060102_150405", "20060102T150405Z", "20060102T150405", "20060102-150405Z"} {
		if at, err := time.Parse(form, stamp); err == nil {
			return at
		}
	}
	if sec, err := strconv.ParseInt(stamp, 10, 64); err == nil && len(stamp) == 10 {
		return time.Unix(sec, 0).UTC()
	}
	return modified.UTC()
}

// walk calls each for the objects directly under prefix.
func (s *Store) walk(ctx context.Context, p place, prefix string, each func(key string, size int64, etag string, modified time.Time)) error {
	pages := s3.NewListObjectsV2Paginator(p.client, &s3.ListObjectsV2Input{
		// Below another slash are the snapshots of another state.
		Bucket: aws.String(p.bucket), Prefix: aws.String(prefix), Delimiter: aws.String("/"),
	}, func(o *s3.ListObjectsV2PaginatorOptions) { o.StopOnDuplicateToken = true })
	for n := 0; pages.HasMorePages(); {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list objects: %w", awsclient.Explain(err, awsclient.BucketName(p.bucket)))
		}
		for _, o := range out.Contents {
			each(aws.ToString(o.Key), aws.ToInt64(o.Size), aws.ToString(o.ETag), aws.ToTime(o.LastModified))
		}
		if n += len(out.Contents); n > maxObjects {
			return fmt.Errorf("list objects %s: there are more than %d", p.name(prefix), maxObjects)
		}
	}
	return nil
}

// lookUp adds what the object itself says. It wraps ErrNotFound where the
// object is gone.
func (s *Store) lookUp(ctx context.Context, sn *Snapshot) error {
	if sn.Script {
		return s.lookUpScript(ctx, sn)
	}
	out, err := s.copies.client.HeadObject(ctx, s.headInput(s.copies, sn.Key, sn.VersionID))
	if hasCode(err, "NotFound", "NoSuchKey") {
		return fmt.Errorf("%w: %s", ErrNotFound, sn.ID)
	}
	if err != nil {
		return fmt.Errorf("read snapshot: %w", awsclient.Explain(err, s.copies.name(sn.Key)))
	}
	sn.Size, sn.ETag, sn.VersionID = aws.ToInt64(out.ContentLength), aws.ToString(out.ETag), aws.ToString(out.VersionId)
	meta := metadata(out.Metadata)
	sn.Lineage = meta.get(metaLineage)
	if n, err := strconv.ParseUint(meta.get(metaSerial), 10, 64); err == nil {
		sn.Serial = n
	}
	sn.Run, sn.Commit, sn.TerraformVersion = meta.get(metaRun), meta.get(metaCommit), meta.get(metaTerraform)
	if n, err := strconv.Atoi(meta.get(metaResources)); err == nil && n >= 0 {
		sn.Resources = &n
	}
	sn.SHA256 = meta.get(metaSHA256)
	def(&sn.SHA256, hexSum(aws.ToString(out.ChecksumSHA256)))
	sn.sourceSize, _ = strconv.ParseInt(meta.get(metaSize), 10, 64)
	sn.sourceETag = meta.get(metaETag)
	return nil
}

// lookUpScript reads the content's beginning, since there is no metadata. One
// that is no state, or is kept under another key, is listed without.
func (s *Store) lookUpScript(ctx context.Context, sn *Snapshot) error {
	obj, err := s.look(ctx, s.state, sn.Key, "")
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return nil
	case !obj.present:
		return fmt.Errorf("%w: %s", ErrNotFound, sn.ID)
	}
	sn.Lineage, sn.Serial, sn.TerraformVersion = obj.Lineage, obj.Serial, obj.TerraformVersion
	sn.Size, sn.ETag, sn.VersionID = obj.Size, obj.ETag, obj.VersionID
	if obj.whole != nil {
		sn.SHA256 = sum256(obj.whole)
	}
	return nil
}

// Find gives the snapshot with the ID, or the only one whose ID begins so. None
// wraps [ErrNotFound].
func (s *Store) Find(ctx context.Context, id string) (Snapshot, error) {
	if !isPrefix(id) {
		return Snapshot{}, fmt.Errorf("%w: %.60q is no snapshot ID", ErrNotFound, id)
	}
	if at, reason, serial, ok := parseID(id); ok {
		sn := Snapshot{ID: id, Time: at, Reason: reason, Serial: serial, Key: s.key(id)}
		err := s.lookUp(ctx, &sn)
		if err == nil {
			return sn, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return Snapshot{}, fmt.Errorf("find snapshot %s: %w", id, err)
		}
	}
	names, err := s.names(ctx, id)
	if err != nil {
		return Snapshot{}, fmt.Errorf("find snapshot %s: %w", id, err)
	}
	if i := slices.IndexFunc(names, func(n Snapshot) bool { return n.ID == id }); i >= 0 {
		names = names[i : i+1]
	}
	switch len(names) {
	case 0:
		return Snapshot{}, fmt.Errorf("%w of %s: %s", ErrNotFound, s.addr, id)
	case 1:
		if err := s.lookUp(ctx, &names[0]); err != nil {
			return Snapshot{}, fmt.Errorf("find snapshot %s: %w", id, err)
		}
		return names[0], nil
	}
	return Snapshot{}, fmt.Errorf("%d snapshots of %s begin with %s, from %s to %s: name one", len(names), s.addr, id, names[len(names)-1].ID, names[0].ID)
}

// PruneOptions say what a Prune may remove.
type PruneOptions struct {
	DryRun    bool            // remove nothing
	Protected map[string]bool // IDs that stay, however old
}

// Prune removes the snapshots that are beyond both the last Keep and the last
// KeepDays days, oldest first, and gives those removed; with DryRun those that
// it would remove. The newest always stays. In a bucket with versions the
// removed content stays as a noncurrent version, for the bucket's lifecycle.
func (s *Store) Prune(ctx context.Context, o PruneOptions) ([]Snapshot, error) {
	names, err := s.ownNames(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("prune snapshots: %w", err)
	}
	slices.SortStableFunc(names, newestFirst)
	old := slices.DeleteFunc(expired(names, s.o.Keep, s.o.KeepDays, s.o.Now()), func(n Snapshot) bool { return o.Protected[n.ID] })
	slices.Reverse(old)
	if o.DryRun {
		return old, nil
	}
	for i, sn := range old {
		if err := s.remove(ctx, sn); err != nil {
			return old[:i], fmt.Errorf("prune snapshots: %w", err)
		}
	}
	return old, nil
}

func (s *Store) remove(ctx context.Context, sn Snapshot) error {
	_, err := s.copies.client.DeleteObject(ctx, &s3.DeleteObjectInput{
		Bucket: aws.String(s.copies.bucket), Key: aws.String(sn.Key), IfMatch: opt(sn.ETag),
	})
	switch {
	case hasCode(err, "NoSuchKey", "NotFound"):
		return nil
	case hasCode(err, "PreconditionFailed"):
		return fmt.Errorf("remove snapshot %s: %w", sn.ID, state.ErrChanged)
	case err != nil:
		return fmt.Errorf("remove snapshot: %w", awsclient.Explain(err, s.copies.name(sn.Key)))
	}
	return nil
}

// expired gives those of the snapshots, newest first, that need not be kept.
func expired(all []Snapshot, keep, days int, now time.Time) []Snapshot {
	old := []Snapshot{}
	since := now.AddDate(0, 0, -max(days, 0))
	for i, sn := range all {
		if i >= max(keep, 1) && sn.Time.Before(since) {
			old = append(old, sn)
		}
	}
	return old
}
