package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/tfguard/tfguard/internal/lock"
)

// Lock is one store of the state's lock.
type Lock interface {
	// Read gives the lock that the store holds, nil without one.
	Read(ctx context.Context) (*lock.Observation, error)
	// Take writes the record raw if there is no lock; else it wraps lock.ErrHeld.
	Take(ctx context.Context, raw []byte) error
	// Remove removes exactly the observed lock; else it wraps lock.ErrChanged
	// or lock.ErrGone.
	Remove(ctx context.Context, o lock.Observation) error
}

// record is a lock in terraform's own format, with an ID of its own.
func (s *Store) record(o RestoreOptions) (id string, raw []byte, err error) {
	id = newUUID()
	raw, err = json.Marshal(lock.Info{
		ID: id, Operation: o.Operation, Who: o.Who, Version: o.Version,
		Created: s.o.Now().UTC(), Path: s.addr.String(),
	})
	return id, raw, err
}

// newUUID gives a random UUID (RFC 9562, version 4), the form of terraform's lock IDs.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// take takes the lock in every store, in the order given, and gives its
// release. Where one cannot be taken those before it are released again. A
// cancel waits for the answer to a write under way: one that is given up could
// still arrive after the release has looked for it.
func (s *Store) take(ctx context.Context, locks []Lock, raw []byte) (release func() error, err error) {
	tried := 0
	release = func() error { return s.release(ctx, locks[:tried], raw) }
	longer, cancel := s.linger(ctx)
	defer cancel()
	for _, l := range locks {
		tried++
		if err = l.Take(longer, raw); err != nil && holds(longer, l, raw) {
			err = nil
		}
		if err = cmp.Or(err, context.Cause(ctx)); err != nil {
			return nil, errors.Join(fmt.Errorf("take state lock: %w", err), release())
		}
	}
	return release, nil
}

// holds reports whether the store holds our record although the answer to its
// write was a refusal: the write was tried again and met what it had written.
func holds(ctx context.Context, l Lock, raw []byte) bool {
	seen, err := l.Read(ctx)
	return err == nil && seen != nil && bytes.Equal(seen.Raw, raw)
}

// release removes our record from each store, each even if another fails, also
// after a cancel. A record that is not ours stays.
func (s *Store) release(ctx context.Context, locks []Lock, raw []byte) error {
	ctx, cancel := s.cleanUp(ctx)
	defer cancel()
	errs := make([]error, len(locks))
	var all sync.WaitGroup
	for i, l := range locks {
		all.Go(func() {
			seen, err := l.Read(ctx)
			if err == nil && seen != nil && bytes.Equal(seen.Raw, raw) {
				err = l.Remove(ctx, *seen)
			}
			if err != nil && !errors.Is(err, lock.ErrGone) && !errors.Is(err, lock.ErrChanged) {
				errs[i] = fmt.Errorf("%w: %w", lock.ErrNotReleased, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
