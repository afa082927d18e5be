// Package holder keeps the holder record: the object beside a state by which a
// run says that it goes on, who it is and what it does. It is written and
// renewed by conditional writes, so that at most one run holds it, and carries
// a heartbeat, so that a run that died is told from one that takes long.
//
// A store that ignores conditional writes keeps nobody out; Lease.Weak says so.
package holder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// Store is the holder record of one state.
type Store struct {
	client *s3.Client
	object awsclient.Object
	bucket string
	key    string
}

// New gives the record of the state at addr, encrypted as the state is.
func New(client *s3.Client, addr backend.Address, object awsclient.Object) *Store {
	return &Store{client: client, object: object, bucket: addr.Bucket, key: addr.HolderKey()}
}

func (s *Store) name() string { return awsclient.ObjectName(s.bucket, s.key) }

// Read gives the record, or nil where there is none. Its age is measured by the
// server's clock alone: the answer's Date against Last-Modified.
func (s *Store) Read(ctx context.Context) (*lock.HolderSeen, error) {
	out, err := s.client.GetObject(ctx, s.object.Get(&s3.GetObjectInput{Bucket: &s.bucket, Key: &s.key}))
	var none *types.NoSuchKey // not every 404: a proxy's is no answer of the store
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read holder record: %w", awsclient.Explain(err, s.name()))
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, lock.MaxRecord))
	if err != nil {
		return nil, fmt.Errorf("read holder record: %w", awsclient.Explain(err, s.name()))
	}
	seen := &lock.HolderSeen{Raw: raw, Match: aws.ToString(out.ETag)}
	now := awsclient.ServerTime(out.ResultMetadata)
	if now.IsZero() {
		now = time.Now()
	}
	seen.Age = max(now.Sub(aws.ToTime(out.LastModified)), 0)
	if seen.Record, err = lock.ParseRecord(raw); err != nil {
		seen.Problem = err.Error()
	}
	return seen, nil
}

// Remove removes exactly the observed record; otherwise it wraps
// lock.ErrChanged or lock.ErrGone.
func (s *Store) Remove(ctx context.Context, o lock.Observation) error {
	if err := s.remove(ctx, o.Match); err != nil {
		return err
	}
	now, err := s.Read(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("removed, but reading again failed: %w", err)
	case now != nil && now.Match == o.Match:
		return fmt.Errorf("%s is still there after its removal", s.name())
	}
	return nil
}

func (s *Store) remove(ctx context.Context, etag string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &s.key, IfMatch: &etag})
	err = awsclient.Explain(err, s.name())
	switch {
	case err == nil:
		return nil
	case backend.Is(err, backend.NotFound):
		return fmt.Errorf("remove holder record: %w", errors.Join(lock.ErrGone, err))
	case backend.Is(err, backend.Changed):
		return fmt.Errorf("remove holder record: %w", errors.Join(lock.ErrChanged, err))
	}
	return fmt.Errorf("remove holder record: %w", err)
}

// removeOwn removes the record if it is this run's, whichever writing of it.
func (s *Store) removeOwn(ctx context.Context, runID string) error {
	for try := 0; ; try++ {
		now, err := s.Read(ctx)
		if err != nil || now == nil || now.Record.RunID != runID {
			return err
		}
		err = s.remove(ctx, now.Match)
		switch {
		case errors.Is(err, lock.ErrGone):
			return nil
		case errors.Is(err, lock.ErrChanged) && try < 3:
			continue // a write that was under way has come through
		}
		return err
	}
}

// put writes the record on one condition: over nothing where over is empty,
// else over exactly that ETag. It gives the new ETag; a condition that does not
// hold is a Problem of kind Changed, or NotFound where the record is gone.
func (s *Store) put(ctx context.Context, r lock.Record, over string) (string, error) {
	body, err := r.Encode()
	if err != nil {
		return "", err
	}
	in := &s3.PutObjectInput{Bucket: &s.bucket, Key: &s.key, Body: bytes.NewReader(body), ContentType: aws.String("application/json")}
	if over == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &over
	}
	out, err := s.client.PutObject(ctx, s.object.Put(in))
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "NotImplemented" {
		return "", fmt.Errorf("write holder record: %w: %w", ErrNoConditions, awsclient.Explain(err, s.name()))
	}
	if err != nil {
		return "", fmt.Errorf("write holder record: %w", awsclient.Explain(err, s.name()))
	}
	return aws.ToString(out.ETag), nil
}
