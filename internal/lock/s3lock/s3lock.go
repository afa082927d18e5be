// Package s3lock keeps terraform's state lock as the object <key>.tflock, in
// the form that terraform's S3 backend gives it with use_lockfile
// (terraform internal/backend/remote-state/s3/client.go).
//
// The lock is created by a put with If-None-Match and removed by a delete with
// If-Match on the ETag that was read. AWS has had the second since 2025; some
// stores that only resemble S3 ignore it. There, a removal compares what it
// reads just before, and a lock that is swapped in the instant between the read
// and the delete is not protected.
package s3lock

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

// Store is the lock object of one state. It keeps nothing between calls and is
// safe for concurrent use.
type Store struct {
	client *s3.Client
	addr   backend.Address
	object awsclient.Object
	settle time.Duration // bounds the look at what an unclear write has left
	pause  time.Duration // before the first try after a conflict; doubles
	tries  int           // of a write that conflicts with another under way
}

// New makes the store of a state. It makes no request.
func New(client *s3.Client, addr backend.Address, s backend.Settings) *Store {
	return &Store{
		client: client, addr: addr, object: awsclient.ObjectOf(s),
		settle: 5 * time.Second, pause: 100 * time.Millisecond, tries: 5,
	}
}

// Name is [lock.S3].
func (s *Store) Name() lock.Store { return lock.S3 }

func (s *Store) name() string { return awsclient.ObjectName(s.addr.Bucket, s.addr.LockKey()) }

// Read gives the lock as it is now, nil without one, in one request. Whatever
// fails is an error, never "no lock". Of a record it takes [lock.MaxRecord]
// bytes at most.
func (s *Store) Read(ctx context.Context) (*lock.Observation, error) {
	out, err := s.client.GetObject(ctx, s.object.Get(&s3.GetObjectInput{Bucket: &s.addr.Bucket, Key: aws.String(s.addr.LockKey())}))
	var none *types.NoSuchKey // not every 404: a proxy's is no answer of the store
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lock object: %w", awsclient.Explain(err, s.name()))
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, lock.MaxRecord))
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read lock object: %w", ctx.Err())
		}
		return nil, fmt.Errorf("read lock object: %w", awsclient.Explain(
			&smithy.OperationError{ServiceID: s3.ServiceID, OperationName: "GetObject", Err: err}, s.name()))
	}
	return &lock.Observation{
		Store: lock.S3, Raw: raw, Match: aws.ToString(out.ETag),
		ServerNow: awsclient.ServerTime(out.ResultMetadata), Written: aws.ToTime(out.LastModified).UTC(),
	}, nil
}

// Take creates the lock with this record. Its error wraps [lock.ErrHeld] where
// there is one already. A refusal by its own first attempt is a success. After
// any other error, or a cancel, the lock is not held, unless the error says
// that this could not be found out.
func (s *Store) Take(ctx context.Context, raw []byte) error {
	err := s.again(ctx, func() error {
		_, err := s.client.PutObject(ctx, s.object.Put(&s3.PutObjectInput{
			Bucket: &s.addr.Bucket, Key: aws.String(s.addr.LockKey()), Body: bytes.NewReader(raw),
			ContentType: aws.String("application/json"), IfNoneMatch: aws.String("*"),
		}))
		return err
	})
	if err == nil {
		return nil
	}
	err = awsclient.Explain(err, s.name())
	if certain(err) {
		return fmt.Errorf("take lock: %w", err)
	}
	look, stop := context.WithTimeout(context.WithoutCancel(ctx), s.settle)
	defer stop()
	held, readErr := s.Read(look)
	switch {
	case readErr != nil:
		return fmt.Errorf("take lock: %w; whether it was taken could not be found out: %w", err, readErr)
	case held != nil && bytes.Equal(held.Raw, raw) && ctx.Err() == nil:
		return nil
	case held != nil && bytes.Equal(held.Raw, raw):
		if gone := s.Remove(look, *held); gone != nil && !errors.Is(gone, lock.ErrGone) {
			return fmt.Errorf("take lock: %w; it was taken and is still there: %w", err, gone)
		}
	case backend.Is(err, backend.Changed):
		return fmt.Errorf("take lock: %w: %w", lock.ErrHeld, err)
	}
	return fmt.Errorf("take lock: %w", err)
}

// certain reports whether the service refused the write, so that nothing can
// have been written.
func certain(err error) bool {
	var p *backend.Problem
	return errors.As(err, &p) && p.Kind != backend.Changed && p.Kind != backend.Unreachable
}

// Remove removes the lock if it is exactly the observed one, and reads again to
// be sure. Its error wraps [lock.ErrChanged] where another is there and
// [lock.ErrGone] where none is; both times nothing was removed. After any other
// error the lock may be there or not. In a versioned bucket the record stays as
// a noncurrent version.
func (s *Store) Remove(ctx context.Context, o lock.Observation) error {
	if o.Store != lock.S3 || o.Match == "" {
		return fmt.Errorf("remove lock: the observation of store %q has no ETag of an object", o.Store)
	}
	now, err := s.Read(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("remove lock: %w", err)
	case now == nil:
		return fmt.Errorf("remove lock: %w", lock.ErrGone)
	case !same(*now, o):
		return fmt.Errorf("remove lock: %w", lock.ErrChanged)
	}
	var sent awsclient.Attempts
	err = s.again(ctx, func() error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{
			Bucket: &s.addr.Bucket, Key: aws.String(s.addr.LockKey()), IfMatch: &o.Match,
		}, sent.S3)
		return err
	})
	err = awsclient.Explain(err, s.name())
	if err != nil && !backend.Is(err, backend.Changed) && !backend.Is(err, backend.NotFound) {
		return fmt.Errorf("remove lock: %w", err)
	}
	now, readErr := s.Read(ctx)
	switch {
	case readErr != nil:
		return fmt.Errorf("verify that the lock is gone: %w", readErr)
	case now != nil && same(*now, o):
		return fmt.Errorf("remove lock: %s is still there as it was", s.name())
	case err == nil:
		return nil
	case now != nil:
		return fmt.Errorf("remove lock: %w", lock.ErrChanged)
	case sent.Repeated():
		// The first attempt removed it and its answer was lost.
		return nil
	}
	return fmt.Errorf("remove lock: %w", lock.ErrGone)
}

// same reports whether both are one lock. A lock that was removed and taken
// again with the same bytes has the same ETag; it differs in when it was written.
func same(a, b lock.Observation) bool {
	return bytes.Equal(a.Raw, b.Raw) && a.Match == b.Match && a.Written.Equal(b.Written)
}

// again runs a conditional write until it does not conflict with another that
// is under way: S3 answers 409 then, and means neither yes nor no.
func (s *Store) again(ctx context.Context, write func() error) error {
	pause := s.pause
	for try := 1; ; try++ {
		err := write()
		var api smithy.APIError
		if err == nil || try == s.tries || !errors.As(err, &api) || api.ErrorCode() != "ConditionalRequestConflict" {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause *= 2
	}
}
