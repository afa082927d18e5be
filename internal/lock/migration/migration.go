// Package migration keeps what a move from one kind of lock to the other needs
// to know between its steps, which may be days apart: a note beside the state,
// and what the bucket's versions tell of who locked by the lock file and who did
// not.
package migration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// Where a migration leads.
const (
	ToLockfile = "lockfile"
	ToDynamoDB = "dynamodb"
)

// Note is what one step leaves for the next.
type Note struct {
	Version int       `json:"version"` // 1
	To      string    `json:"to"`      // ToLockfile or ToDynamoDB
	Table   string    `json:"table"`   // of the locks, also once no configuration names it
	Both    time.Time `json:"both"`    // since when both kinds are configured
	Alone   time.Time `json:"alone"`   // since when the new kind is alone; zero before
	By      string    `json:"by"`
}

// Store reads and writes the note of one state.
type Store struct {
	client *s3.Client
	addr   backend.Address
	object awsclient.Object
}

// New gives the store of the state at addr, whose objects are as the state's.
func New(client *s3.Client, addr backend.Address, object awsclient.Object) *Store {
	return &Store{client, addr, object}
}

func (s *Store) name() string { return awsclient.ObjectName(s.addr.Bucket, s.addr.MigrationKey()) }

// Read gives the note; found is false without one.
func (s *Store) Read(ctx context.Context) (n Note, found bool, err error) {
	out, err := s.client.GetObject(ctx, s.object.Get(&s3.GetObjectInput{Bucket: &s.addr.Bucket, Key: aws.String(s.addr.MigrationKey())}))
	var none *types.NoSuchKey
	if errors.As(err, &none) {
		return Note{}, false, nil
	}
	if err != nil {
		return Note{}, false, fmt.Errorf("read the migration's note: %w", awsclient.Explain(err, s.name()))
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, lock.MaxRecord))
	if err != nil {
		return Note{}, false, fmt.Errorf("read the migration's note: %w", awsclient.Explain(err, s.name()))
	}
	if err := json.Unmarshal(raw, &n); err != nil || n.Version != 1 || n.To != ToLockfile && n.To != ToDynamoDB {
		return Note{}, false, fmt.Errorf("%s is no note that this tfguard can read", s.name())
	}
	return n, true, nil
}

// Write puts the note in place of the one before.
func (s *Store) Write(ctx context.Context, n Note) error {
	n.Version = 1
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode the migration's note: %w", err)
	}
	_, err = s.client.PutObject(ctx, s.object.Put(&s3.PutObjectInput{
		Bucket: &s.addr.Bucket, Key: aws.String(s.addr.MigrationKey()), Body: bytes.NewReader(raw), ContentType: aws.String("application/json")}))
	if err != nil {
		return fmt.Errorf("write the migration's note: %w", awsclient.Explain(err, s.name()))
	}
	return nil
}

// Remove takes the note away: the migration is over.
func (s *Store) Remove(ctx context.Context) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.addr.Bucket, Key: aws.String(s.addr.MigrationKey())})
	if err != nil {
		return fmt.Errorf("remove the migration's note: %w", awsclient.Explain(err, s.name()))
	}
	return nil
}

// Hold is the time between the writing of a lock object and its removal, by the
// store's clock in whole seconds. To is zero for one that is still there.
type Hold struct{ From, To time.Time }

// entry is a version of the lock object, or its delete marker.
type entry struct {
	at      time.Time
	removed bool
}

// maxHolds bounds how many are read, the newest first.
const maxHolds = 10_000

// Holds are the times in which somebody held the lock object, newest first, as
// the versions of the object tell. In a bucket without versions there are none.
func (s *Store) Holds(ctx context.Context) ([]Hold, error) {
	var all []entry
	pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &s.addr.Bucket, Prefix: aws.String(s.addr.LockKey())},
		func(o *s3.ListObjectVersionsPaginatorOptions) { o.StopOnDuplicateToken = true })
	for pages.HasMorePages() && len(all) < 2*maxHolds {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list versions of the lock: %w", awsclient.Explain(err, awsclient.BucketName(s.addr.Bucket)))
		}
		for _, v := range out.Versions {
			if aws.ToString(v.Key) == s.addr.LockKey() && aws.ToString(v.VersionId) != "null" {
				all = append(all, entry{aws.ToTime(v.LastModified), false})
			}
		}
		for _, m := range out.DeleteMarkers {
			if aws.ToString(m.Key) == s.addr.LockKey() {
				all = append(all, entry{aws.ToTime(m.LastModified), true})
			}
		}
	}
	return holdsOf(all), nil
}

// holdsOf pairs writings and removals, which alternate: a lock is written only
// where there is none. Of several in one second the order is not told.
func holdsOf(all []entry) []Hold {
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	var holds []Hold
	open := false
	for len(all) > 0 {
		at, puts, removals := all[0].at, 0, 0
		for len(all) > 0 && all[0].at.Equal(at) {
			if all[0].removed {
				removals++
			} else {
				puts++
			}
			all = all[1:]
		}
		if open && removals > 0 {
			holds[len(holds)-1].To = at
			open, removals = false, removals-1
		}
		if puts == 0 {
			continue
		}
		if open { // its removal is not known any more: it counts for its first second
			holds[len(holds)-1].To = holds[len(holds)-1].From
		}
		holds = append(holds, Hold{From: at})
		if open = puts > removals; !open {
			holds[len(holds)-1].To = at
		}
	}
	slices.Reverse(holds)
	return holds
}

// Uncovered gives which of the writes, by their index, nobody held the lock
// object for: they were made by somebody who does not use it.
func Uncovered(writes []time.Time, holds []Hold) []int {
	var out []int
	for i, at := range writes {
		if !slices.ContainsFunc(holds, func(h Hold) bool { return !at.Before(h.From) && (h.To.IsZero() || !at.After(h.To)) }) {
			out = append(out, i)
		}
	}
	return out
}
