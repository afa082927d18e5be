// Package dynamolock keeps terraform's state lock as an item of a DynamoDB
// table, and the state's digest as another, in the form that terraform's S3
// backend gives them (terraform internal/backend/remote-state/s3/client.go).
//
// Every write carries a condition on what was read, so it can lose a race but
// not undo what somebody else did. Reads are strongly consistent and by key.
package dynamolock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// Store is the lock item and the digest item of one state. It keeps nothing
// between calls and is safe for concurrent use.
type Store struct {
	client *dynamodb.Client
	addr   backend.Address
	settle time.Duration // bounds the look at what an unclear write has left
}

// New makes the store of a state. It makes no request.
func New(client *dynamodb.Client, addr backend.Address) *Store {
	return &Store{client: client, addr: addr, settle: 5 * time.Second}
}

// Name is [lock.DynamoDB].
func (s *Store) Name() lock.Store { return lock.DynamoDB }

func (s *Store) item() string { return awsclient.ItemName(s.addr.Table, s.addr.LockID()) }

// Read gives the lock as it is now, nil without one, in one request. Whatever
// fails is an error, never "no lock". An item whose Info is no string is a lock
// too: its Raw is then what is there, in DynamoDB's JSON.
func (s *Store) Read(ctx context.Context) (*lock.Observation, error) {
	out, err := s.client.GetItem(ctx, get(s.addr.Table, s.addr.LockID(), infoAttribute))
	if err != nil {
		return nil, fmt.Errorf("read lock item: %w", awsclient.Explain(err, s.item()))
	}
	if len(out.Item) == 0 {
		return nil, nil
	}
	o, err := observe(out.Item)
	if err != nil {
		return nil, fmt.Errorf("read lock item: %w", err)
	}
	o.ServerNow = awsclient.ServerTime(out.ResultMetadata)
	return &o, nil
}

// Take creates the lock with this record. Its error wraps [lock.ErrHeld] where
// there is one already. A refusal by its own first attempt is a success. After
// any other error, or a cancel, the lock is not held, unless the error says
// that this could not be found out.
func (s *Store) Take(ctx context.Context, raw []byte) error {
	_, err := s.client.PutItem(ctx, create(s.addr.Table, s.addr.LockID(), raw))
	if err == nil {
		return nil
	}
	err = awsclient.Explain(err, s.item())
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
// error the lock may be there or not.
func (s *Store) Remove(ctx context.Context, o lock.Observation) error {
	in, err := remove(s.addr.Table, s.addr.LockID(), o)
	if err != nil {
		return fmt.Errorf("remove lock: %w", err)
	}
	var sent awsclient.Attempts
	_, err = s.client.DeleteItem(ctx, in, sent.DynamoDB)
	err = awsclient.Explain(err, s.item())
	if err != nil && !backend.Is(err, backend.Changed) {
		return fmt.Errorf("remove lock: %w", err)
	}
	now, readErr := s.Read(ctx)
	switch {
	case readErr != nil:
		return fmt.Errorf("verify that the lock is gone: %w", readErr)
	case now != nil && bytes.Equal(now.Raw, o.Raw) && now.Match == o.Match:
		return fmt.Errorf("remove lock: %s is still there as it was", s.item())
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
