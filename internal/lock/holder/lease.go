package holder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// Timing has the durations of a lease.
type Timing struct {
	Beat   time.Duration // between two renewals
	Settle time.Duration // how long a change of the record may wait for others
	Write  time.Duration // bound on one write
}

// DefaultTiming has the numbers of the contract: renewed every 10 s; what
// changes is in the record within 2 s.
func DefaultTiming() Timing {
	return Timing{Beat: 10 * time.Second, Settle: time.Second, Write: 8 * time.Second}
}

// ErrLost: another run has taken the record over, or somebody removed it.
var ErrLost = errors.New("another run has taken over the holder record of this state")

// ErrNoConditions: the store refuses conditional writes. Without them a record
// would keep nobody out, and none is written.
var ErrNoConditions = errors.New("the store has no conditional writes")

// Lease is a record that this run holds. A goroutine renews it until Release.
type Lease struct {
	// Weak is set where the store ignores conditional writes: it was found by
	// trying. Then the record tells of this run and keeps no other out.
	Weak bool

	store  *Store
	timing Timing
	onLost func(error)
	change chan struct{}
	stop   context.CancelFunc
	ended  chan struct{}

	writing sync.Mutex // held for a whole write: one follows the other
	mu      sync.Mutex
	record  lock.Record
	etag    string
	lost    error
}

// Take writes the record, over the dead one that was seen or over nothing, and
// keeps it alive. Where another run was faster it wraps lock.ErrHeld. onLost is
// called once if the record is lost later; it must not block.
func (s *Store) Take(ctx context.Context, r lock.Record, over *lock.HolderSeen, timing Timing, onLost func(error)) (*Lease, error) {
	r.Started = r.Started.Round(0) // as it is written: compared by the wall clock
	l := &Lease{store: s, timing: timing, onLost: onLost, record: r, change: make(chan struct{}, 1), ended: make(chan struct{})}
	if over != nil {
		l.etag = over.Match
	}
	// A cancel waits for the answers: a write that is given up could still come
	// through after it was looked for. The caller releases what was taken.
	longer, done := linger(ctx, timing.Write)
	defer done()
	if err := l.write(longer); err != nil {
		if errors.Is(err, ErrLost) {
			return nil, fmt.Errorf("take holder record: %w", lock.ErrHeld)
		}
		if errors.Is(err, ErrNoConditions) || backend.Is(err, backend.Denied) {
			return nil, err
		}
		return nil, errors.Join(err, s.takeBack(ctx, r.RunID, timing)) // it may have come through
	}
	// The record is there now: writing it once more as a first one must fail.
	etag, err := s.put(longer, l.record, "")
	switch {
	case err == nil:
		l.Weak, l.etag = true, etag
	case !backend.Is(err, backend.Changed):
		return nil, errors.Join(err, s.takeBack(ctx, r.RunID, timing))
	}
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.beat(beating)
	return l, nil
}

// linger gives a context that outlives a cancel of ctx by the grace.
func linger(ctx context.Context, grace time.Duration) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}

// takeBack removes what a Take that failed may have left.
func (s *Store) takeBack(ctx context.Context, runID string, timing Timing) error {
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), timing.Write)
	defer stop()
	return s.removeOwn(clean, runID)
}

// Update changes the record; it is written within Settle.
func (l *Lease) Update(change func(*lock.Record)) {
	l.mu.Lock()
	change(&l.record)
	l.mu.Unlock()
	select {
	case l.change <- struct{}{}:
	default: // one is under way
	}
}

// Confirm changes the record and writes it at once: it fails with ErrLost where
// the record is no longer this run's.
func (l *Lease) Confirm(ctx context.Context, change func(*lock.Record)) error {
	l.mu.Lock()
	change(&l.record)
	l.mu.Unlock()
	return l.write(ctx)
}

// Leave ends the renewing and leaves the record: it runs out, and is dead at once
// where it is known that this process has ended.
func (l *Lease) Leave() {
	l.stop()
	<-l.ended
}

// Release ends the renewing and removes the record, if it is still this run's.
func (l *Lease) Release(ctx context.Context) error {
	l.stop()
	<-l.ended
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return nil
	}
	if l.Weak { // the condition of a removal would be ignored too
		return l.store.removeOwn(ctx, l.record.RunID)
	}
	err := l.store.remove(ctx, l.etag)
	switch {
	case errors.Is(err, lock.ErrGone):
		return nil
	case errors.Is(err, lock.ErrChanged):
		// By another run, or by this one's last renewal whose answer was cut off.
		return l.store.removeOwn(ctx, l.record.RunID)
	}
	return err
}

// beat renews the record until ctx ends. A write that fails for another reason
// than a lost record is tried again soon; the record outlives a few of them.
func (l *Lease) beat(ctx context.Context) {
	defer close(l.ended)
	timer := time.NewTimer(l.timing.Beat)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.change:
			settle := time.NewTimer(l.timing.Settle)
			select {
			case <-ctx.Done():
				settle.Stop()
				return
			case <-settle.C:
			}
		}
		bounded, stop := context.WithTimeout(ctx, l.timing.Write)
		err := l.write(bounded)
		stop()
		next := l.timing.Beat
		switch {
		case errors.Is(err, ErrLost):
			l.onLost(err)
			return
		case err != nil:
			next = l.timing.Settle
		}
		timer.Reset(next)
	}
}

// write puts the record over the one that this run wrote last. A refusal may
// come from our own write, tried again after its answer was lost: what stands
// there decides.
func (l *Lease) write(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	for try := 0; ; try++ {
		l.mu.Lock()
		if l.lost != nil {
			l.mu.Unlock()
			return l.lost
		}
		l.record.Beat = time.Now().UTC()
		if l.record.Beat.Before(l.record.Started) { // the clock was put back
			l.record.Beat = l.record.Started
		}
		r, over := l.record, l.etag
		r.InFlight = append([]string(nil), r.InFlight...)
		l.mu.Unlock()
		etag, err := l.store.put(ctx, r, over)
		if err != nil {
			if !backend.Is(err, backend.Changed) && !backend.Is(err, backend.NotFound) {
				return err
			}
			now, readErr := l.store.Read(ctx)
			if readErr != nil {
				return readErr
			}
			if now == nil || now.Record.RunID != r.RunID || try == 3 {
				l.mu.Lock()
				l.lost = ErrLost
				l.mu.Unlock()
				return ErrLost
			}
			etag = now.Match
		}
		l.mu.Lock()
		l.etag = etag
		l.mu.Unlock()
		if err == nil {
			return nil
		}
	}
}
