package migration

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/lock"
)

// Hold is the time between the writing of a lock object and its removal, by the
// store's clock in whole seconds. To is zero for one that is still there.
type Hold struct {
	From, To time.Time
	// Writer is whether its operation may have written the state: any but a
	// plan's. It is only known where it matters.
	Writer bool

	version string
}

// within reports whether a second lies between the hold's first and last, which
// nobody else can have had a part of.
func (h Hold) within(at time.Time) bool {
	return h.From.Before(at) && (h.To.IsZero() || at.Before(h.To))
}

// edge reports whether it is its first second or its last.
func (h Hold) edge(at time.Time) bool { return h.From.Equal(at) || h.To.Equal(at) }

// Evidence is what the versions of a state and of its lock object tell of who
// wrote the state under the lock object, and who did not.
type Evidence struct {
	Held     bool // somebody has taken the lock object
	Covered  int  // writes that were surely under it
	Foreign  []int
	Doubtful []int // it cannot be told; both are indexes of the writes
	// Gaps: the versions of the lock object do not follow each other as lock and
	// release, or there are none, so that they prove nothing.
	Gaps bool
}

// Judge holds the times of writes against the holds of the lock object. S3 tells
// whole seconds, and somebody without the lock object may have written in the
// very second in which another took or freed it. So the first and the last
// second of a hold are one write's alone: one for each hold that may have
// written. More in that second are in doubt, all of them.
func Judge(writes []time.Time, holds []Hold) Evidence {
	var e Evidence
	in := map[time.Time][]int{}
	for i, w := range writes {
		at := second(w)
		in[at] = append(in[at], i)
	}
	for i, w := range writes {
		at, sure, writers := second(w), false, 0
		for _, h := range holds {
			sure = sure || h.within(at)
			if h.edge(at) && h.Writer {
				writers++
			}
		}
		switch {
		case sure || writers >= len(in[at]):
			e.Covered++
		case writers == 0:
			e.Foreign = append(e.Foreign, i)
		default:
			e.Doubtful = append(e.Doubtful, i)
		}
	}
	return e
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// After reports whether t is clearly after another time of the store's clock:
// in a later second. What stands in the same one may have been before.
func After(t, other time.Time) bool { return second(t).After(second(other)) }

// Evidence judges the writes of the state, whose times are all clearly after
// since, by the versions of the lock object. It reads the records of those locks
// alone that began or ended in the second of a write.
func (s *Store) Evidence(ctx context.Context, writes []time.Time, since time.Time) (Evidence, error) {
	holds, whole, err := s.holds(ctx, since)
	if err != nil || !whole {
		return Evidence{Gaps: !whole}, err
	}
	at := map[time.Time]bool{}
	for _, w := range writes {
		at[second(w)] = true
	}
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range holds {
		if h := &holds[i]; at[h.From] || at[h.To] {
			g.Go(func() (err error) {
				h.Writer, err = s.writer(reading, h.version)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return Evidence{}, err
	}
	e := Judge(writes, holds)
	for _, h := range holds {
		e.Held = e.Held || After(h.From, since)
	}
	return e, nil
}

// writer reads the operation from a version of the lock object.
func (s *Store) writer(ctx context.Context, version string) (bool, error) {
	name := awsclient.ObjectName(s.addr.Bucket, s.addr.LockKey())
	out, err := s.client.GetObject(ctx, s.object.Get(&s3.GetObjectInput{Bucket: &s.addr.Bucket, Key: aws.String(s.addr.LockKey()), VersionId: &version}))
	if err != nil {
		return false, fmt.Errorf("read a version of the lock: %w", awsclient.Explain(err, name))
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, lock.MaxRecord))
	if err != nil {
		return false, fmt.Errorf("read a version of the lock: %w", awsclient.Explain(err, name))
	}
	info, err := lock.ParseInfo(raw)
	return err == nil && info.Operation != "OperationTypePlan", nil
}

// entry is a version of the lock object, or its delete marker.
type entry struct {
	at      time.Time
	version string
	latest  bool
}

// holds lists the holds of the lock object that ended after since, newest first;
// whole is false where their versions prove nothing.
func (s *Store) holds(ctx context.Context, since time.Time) (_ []Hold, whole bool, err error) {
	var puts, markers []entry
	key := s.addr.LockKey()
	pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &s.addr.Bucket, Prefix: &key})
	for n, older := 0, false; pages.HasMorePages() && !older; n++ {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("list versions of the lock: %w", awsclient.Explain(err, awsclient.BucketName(s.addr.Bucket)))
		}
		if n == maxPages {
			return nil, false, fmt.Errorf("list versions of the lock: there are more than %d pages", maxPages)
		}
		for _, v := range out.Versions {
			if aws.ToString(v.Key) == key {
				puts = append(puts, entry{second(aws.ToTime(v.LastModified)), aws.ToString(v.VersionId), aws.ToBool(v.IsLatest)})
				older = older || puts[len(puts)-1].at.Before(since)
			}
		}
		for _, m := range out.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				markers = append(markers, entry{second(aws.ToTime(m.LastModified)), aws.ToString(m.VersionId), aws.ToBool(m.IsLatest)})
			}
		}
	}
	for _, p := range puts {
		if p.version == "" || p.version == "null" { // no versions are kept, or were not
			return nil, false, nil
		}
	}
	holds, whole := pair(puts, markers, since)
	return holds, whole, nil
}

// pair makes holds of writings and removals, both newest first. They take turns:
// a lock is written only where there is none, and removed only where there is
// one. What does not fit that, after since, proves nothing.
func pair(puts, markers []entry, since time.Time) (holds []Hold, whole bool) {
	for i, p := range puts {
		h := Hold{From: p.at, version: p.version}
		if i > 0 || !p.latest {
			if len(markers) == 0 {
				return holds, p.at.Before(second(since))
			}
			h.To, markers = markers[0].at, markers[1:]
			if h.To.Before(h.From) || i > 0 && h.To.After(puts[i-1].at) {
				return holds, h.To.Before(second(since))
			}
			if h.To.Before(second(since)) {
				return holds, true
			}
		}
		holds = append(holds, h)
	}
	return holds, len(markers) == 0 || !After(markers[0].at, since)
}
