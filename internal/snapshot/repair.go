package snapshot

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/state"
)

// PreRepair is the reason of the copies that a repair makes before.
const PreRepair = "pre-repair"

// RepairDigest writes the digest of the state that is there, under its lock and
// after a copy. Without a state the digest is removed: a digest without an
// object is a mismatch to terraform. Its errors are those of Restore.
func (s *Store) RepairDigest(ctx context.Context, o RestoreOptions) (Result, error) {
	r := &restore{Store: s, o: o.withDefaults(), left: LeftOld}
	var res Result
	err := r.underLock(ctx, func() error { return r.repairDigest(ctx, &res) })
	return res, r.failed(ctx, res, err)
}

func (r *restore) repairDigest(ctx context.Context, res *Result) error {
	cur, err := r.keepCurrent(ctx, res)
	if err != nil {
		return err
	}
	longer, cancel := r.linger(ctx)
	defer cancel()
	if cur.Size == 0 {
		r.o.Report(StepDigest)
		return r.o.Digests.RemoveDigest(longer)
	}
	digest, _, err := r.md5(ctx, cur)
	if err != nil {
		return err
	}
	res.Serial, res.Lineage = cur.Serial, cur.Lineage
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.o.Report(StepDigest)
	r.digest = digest
	if err := r.repair(longer, digest); err != nil {
		return err
	}
	r.digest = ""
	return nil
}

// md5 reads the whole state once, and gives terraform's digest of it. An object
// that is no state, from the first byte to the last, wraps state.ErrNotState.
func (s *Store) md5(ctx context.Context, cur object) (digest string, doc document, err error) {
	body, err := s.open(ctx, s.state, s.addr.Key, cur.Head)
	if err != nil {
		return "", document{}, err
	}
	defer body.Close()
	sum := md5.New() // terraform internal/backend/remote-state/s3/client.go
	from := &readError{r: io.TeeReader(body, sum)}
	doc, err = readDocument(from)
	if errors.Is(err, state.ErrNotState) {
		_, _ = io.Copy(io.Discard, from) // what follows counts for the digest; from has the error
	}
	if from.err != nil {
		return "", document{}, fmt.Errorf("read state: %w", awsclient.Explain(from.err, s.state.name(s.addr.Key)))
	}
	return hex.EncodeToString(sum.Sum(nil)), doc, err
}

// Renumber gives the state that is there a serial above every one that is
// known, so that no old plan fits it. Its errors are those of Restore.
func (s *Store) Renumber(ctx context.Context, o RestoreOptions) (Result, error) {
	var etag string
	r := &restore{Store: s, o: o.withDefaults(), left: LeftOld, accept: func(cur object) error {
		if cur.ETag != etag {
			return fmt.Errorf("%w: somebody wrote it since it was looked at", state.ErrChanged)
		}
		return nil
	}}
	res, err := r.run(ctx, func(ctx context.Context, _ *Result) (*Content, error) {
		cur, err := s.look(ctx, s.state, s.addr.Key, "")
		if err != nil {
			return nil, err
		}
		etag = cur.ETag
		if cur.Size == 0 {
			return nil, ErrNoState
		}
		return s.stateOf(ctx, cur)
	})
	return res, r.failed(ctx, res, err)
}

// RestoreVersion makes an older version of the object the state again, where
// there is none now, or none that can be read. Its errors are those of Restore.
func (s *Store) RestoreVersion(ctx context.Context, version string, o RestoreOptions) (Result, error) {
	r := &restore{Store: s, o: o.withDefaults(), left: LeftOld, accept: func(cur object) error {
		if !cur.Exists {
			return nil
		}
		// Its beginning is that of a state: only the whole tells.
		switch _, _, err := s.md5(ctx, cur); {
		case errors.Is(err, state.ErrNotState):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("%w: there is a state again", state.ErrChanged)
	}}
	res, err := r.run(ctx, func(ctx context.Context, _ *Result) (*Content, error) {
		obj, err := s.look(ctx, s.state, s.addr.Key, version)
		if err != nil {
			return nil, err
		}
		obj.VersionID = version
		return s.stateOf(ctx, obj)
	})
	return res, r.failed(ctx, res, err)
}

// stateOf is the content of one version of the state, which must be one.
func (s *Store) stateOf(ctx context.Context, obj object) (*Content, error) {
	c, err := s.contentOf(ctx, s.state, s.addr.Key, obj)
	if err == nil && c.notState != nil {
		err = errors.Join(fmt.Errorf("%w: %w", ErrRefused, c.notState), c.Close())
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DropDigest removes the digest, under the state's lock. Its errors are those of
// Restore.
func (s *Store) DropDigest(ctx context.Context, o RestoreOptions) error {
	r := &restore{Store: s, o: o.withDefaults(), left: LeftOld}
	err := r.underLock(ctx, func() error {
		r.o.Report(StepDigest)
		return r.o.Digests.RemoveDigest(ctx)
	})
	return r.failed(ctx, Result{}, err)
}

// Writes are the versions of the state that were written after a time of the
// store's clock, newest first: who wrote them, and when. In a bucket without
// versions that is the last write alone, without a version ID.
func (s *Store) Writes(ctx context.Context, since time.Time) ([]state.Head, error) {
	all, err := s.versionIDs(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v version) bool { return v.deleted || v.size == 0 || !v.modified.After(since) })
	if len(all) > maxWrites {
		return nil, fmt.Errorf("read versions of %s: there are more than %d since %s", s.state.name(s.addr.Key), maxWrites, since.UTC().Format(time.RFC3339))
	}
	heads, err := s.headsOf(ctx, all)
	for i := range heads {
		heads[i].VersionID, heads[i].Modified = all[i].id, all[i].modified
	}
	return heads, err
}

const maxWrites = 1000

// Mended is the ID of a copy that a repair or a restore made in a later second
// than since, by the store's clock; empty without one. Both write the digest
// whoever wrote the state before.
func (s *Store) Mended(ctx context.Context, since time.Time) (id string, err error) {
	own := s.addr.SnapshotPrefix()
	err = s.walk(ctx, s.copies, own, func(key string, _ int64, _ string, modified time.Time) {
		name, _ := strings.CutSuffix(strings.TrimPrefix(key, own), suffix)
		if _, reason, _, ok := parseID(name); ok && (reason == PreRepair || reason == PreRestore) && modified.Truncate(time.Second).After(since) {
			id = name
		}
	})
	if err != nil {
		return "", fmt.Errorf("list snapshots: %w", err)
	}
	return id, nil
}
