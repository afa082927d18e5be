// Package migration keeps what a move from one kind of lock to the other needs
// to know between its steps, which may be days apart: a note beside the state.
package migration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
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

// Steps of a migration that a note is about.
const (
	StepBoth  = "both"  // both kinds of locks are configured
	StepAlone = "alone" // the new kind alone
)

// Note is what one step leaves for the next. It is written before the
// configuration is: a step that was left in between is done again.
type Note struct {
	Version int       `json:"version"` // 1
	To      string    `json:"to"`      // ToLockfile or ToDynamoDB
	Table   string    `json:"table"`   // of the locks, also once no configuration names it
	Step    string    `json:"step"`    // StepBoth or StepAlone
	Both    time.Time `json:"both"`    // since when both kinds are; zero in StepBoth, where Written says it
	By      string    `json:"by"`

	Written time.Time `json:"-"` // by the store's clock
}

// Since is from when on whoever writes the state must use both kinds of locks,
// by the store's clock: that of the versions which it is held against.
func (n Note) Since() time.Time {
	if n.Both.IsZero() {
		return n.Written
	}
	return n.Both
}

// Store reads and writes the note of a configuration, and reads the traces of
// one of its states.
type Store struct {
	client *s3.Client
	addr   backend.Address
	object awsclient.Object
}

// New gives the store of the state at addr, whose objects are as the state's.
// Of a configuration with workspaces the note is at the default one's state.
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
	n.Written = aws.ToTime(out.LastModified)
	known := json.Unmarshal(raw, &n) == nil && n.Version == 1 && (n.To == ToLockfile || n.To == ToDynamoDB) && (n.Step == StepBoth || n.Step == StepAlone)
	if !known || n.Written.IsZero() {
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

// maxPages bounds each listing.
const maxPages = 1000

// States are the states of all workspaces that a backend has in the bucket, the
// default one's first, whether it is there or not: one backend block is for all
// of them.
func States(ctx context.Context, client *s3.Client, settings backend.Settings) ([]backend.Address, error) {
	all := make([]backend.Address, 1)
	var err error
	if all[0], err = settings.Address(""); err != nil {
		return nil, err
	}
	const any = "\x00"
	pattern, err := settings.Address(any)
	if err != nil {
		return nil, err
	}
	before, behind, _ := strings.Cut(pattern.Key, any)
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &settings.Bucket, Prefix: &before})
	for n := 0; pages.HasMorePages(); n++ {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the workspaces: %w", awsclient.Explain(err, awsclient.BucketName(settings.Bucket)))
		}
		if n == maxPages {
			return nil, fmt.Errorf("list the workspaces: there are more than %d pages", maxPages)
		}
		for _, o := range out.Contents {
			name, ok := strings.CutSuffix(strings.TrimPrefix(aws.ToString(o.Key), before), behind)
			if !ok || name == "" || strings.Contains(name, "/") {
				continue
			}
			a, err := settings.Address(name)
			if err != nil {
				return nil, err
			}
			all = append(all, a)
		}
	}
	return all, nil
}
