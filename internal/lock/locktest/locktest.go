// Package locktest is the contract of a store of state locks, as tests: what
// is promised of removing a lock holds for each store or for none.
package locktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// Store is what the suite needs of a store.
type Store interface {
	Read(ctx context.Context) (*lock.Observation, error)
	Take(ctx context.Context, raw []byte) error
	Remove(ctx context.Context, o lock.Observation) error
}

// Rounds is how many locks [Race] takes in the short form.
const Rounds = 100

// Run tests a store; [Race] belongs to it. newStore gives one of a state of its own, without a lock;
// two stores of one state are two calls of the same value.
func Run(t *testing.T, newStore func(t *testing.T) Store) {
	for _, row := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"without a lock there is nothing to read", nothing},
		{"a lock is read as it was written", readBack},
		{"a held lock is not taken, and stays as it is", held},
		{"of many who take the lock at once exactly one gets it", oneWinner},
		{"the observed lock is removed, and can be taken again", removed},
		{"a lock that is gone is not removed again", gone},
		{"a lock that replaced the observed one stays", replaced},
		{"a lock with the observed ID and other bytes stays", sameID},
		{"records that no terraform wrote are seen as they are and can be removed", garbage},
		{"an observation of another store removes nothing", foreign},
		{"a cancelled call is an error of the context, and changes nothing", cancelled},
	} {
		t.Run(row.name, func(t *testing.T) { row.test(t, newStore(t)) })
	}
}

// Record is a lock record in terraform's form, unlike every other.
func Record(n int) []byte {
	raw, err := json.Marshal(lock.Info{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Operation: "OperationTypeApply", Who: "somebody@somewhere",
		Version: "1.11.4", Created: time.Date(2025, 1, 2, 3, 4, 5, n, time.UTC), Path: "bucket/key",
	})
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	return raw
}

func nothing(t *testing.T, s Store) {
	if o := read(t, s); o != nil {
		t.Fatalf("read %q, there is no lock", o.Raw)
	}
}

func readBack(t *testing.T, s Store) {
	before := time.Now().Add(-2 * time.Second)
	take(t, s, Record(1))
	o := read(t, s)
	holds(t, o, Record(1))
	if o.ServerNow.Before(before) || o.ServerNow.After(time.Now().Add(2*time.Second)) {
		t.Errorf("the server's clock is %s, by ours it is %s", o.ServerNow, time.Now())
	}
	if !o.Written.IsZero() && o.Written.Before(before) {
		t.Errorf("written at %s, by our clock it is %s", o.Written, time.Now())
	}
}

func held(t *testing.T, s Store) {
	take(t, s, Record(1))
	if err := s.Take(t.Context(), Record(2)); !errors.Is(err, lock.ErrHeld) {
		t.Errorf("a second lock: %v, want one that wraps ErrHeld", err)
	}
	holds(t, read(t, s), Record(1))
}

func oneWinner(t *testing.T, s Store) {
	var all sync.WaitGroup
	var won atomic.Int32
	winner := make([]bool, 16)
	for i := range winner {
		all.Go(func() {
			switch err := s.Take(t.Context(), Record(i)); {
			case err == nil:
				winner[i] = true
				won.Add(1)
			case !errors.Is(err, lock.ErrHeld):
				t.Errorf("take: %v, want ErrHeld or nil", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of %d got the lock, want 1", won.Load(), len(winner))
	}
	for i, w := range winner {
		if w {
			holds(t, read(t, s), Record(i))
		}
	}
}

func removed(t *testing.T, s Store) {
	for n := range 3 {
		take(t, s, Record(n))
		remove(t, s, *read(t, s))
		nothing(t, s)
	}
}

func gone(t *testing.T, s Store) {
	take(t, s, Record(1))
	o := *read(t, s)
	remove(t, s, o)
	if err := s.Remove(t.Context(), o); !errors.Is(err, lock.ErrGone) {
		t.Errorf("remove again: %v, want one that wraps ErrGone", err)
	}
}

func replaced(t *testing.T, s Store) {
	take(t, s, Record(1))
	o := *read(t, s)
	remove(t, s, o)
	take(t, s, Record(2))
	if err := s.Remove(t.Context(), o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("remove the old lock: %v, want one that wraps ErrChanged", err)
	}
	holds(t, read(t, s), Record(2))
}

func sameID(t *testing.T, s Store) {
	take(t, s, Record(1))
	o := *read(t, s)
	remove(t, s, o)
	other := append(Record(1), ' ')
	take(t, s, other)
	if err := s.Remove(t.Context(), o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("remove the old lock: %v, want one that wraps ErrChanged", err)
	}
	holds(t, read(t, s), other)
}

func garbage(t *testing.T, s Store) {
	for name, raw := range map[string]string{
		"empty":            "",
		"a space":          " ",
		"a list":           `["a","b"]`,
		"a number":         "12",
		"cut off":          `{"ID":"0000`,
		"no ID":            `{"Operation":"apply"}`,
		"hostile":          "{\"ID\":\"\\u001b[2J::set-output name=x::##[error]\"}\n::error::x",
		"just too long":    strings.Repeat("a", lock.MaxRecord),
		"much too long":    `{"ID":"a","Info":"` + strings.Repeat("b", 3*lock.MaxRecord) + `"}`,
		"not only english": `{"ID":"ü 🔒"}`,
	} {
		t.Run(name, func(t *testing.T) {
			take(t, s, []byte(raw))
			o := read(t, s)
			holds(t, o, []byte(raw[:min(len(raw), lock.MaxRecord)]))
			if _, err := lock.ParseInfo(o.Raw); err == nil {
				t.Error("the record can be judged, it should not")
			}
			remove(t, s, *o)
			nothing(t, s)
		})
	}
}

func foreign(t *testing.T, s Store) {
	take(t, s, Record(1))
	o := *read(t, s)
	o.Store = "elsewhere"
	if err := s.Remove(t.Context(), o); err == nil {
		t.Error("an observation of another store was removed")
	}
	holds(t, read(t, s), Record(1))
}

func cancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, want context.Canceled", err)
	}
	if err := s.Take(ctx, Record(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("take: %v, want context.Canceled", err)
	}
	nothing(t, s)
	take(t, s, Record(2))
	if err := s.Remove(ctx, *read(t, s)); !errors.Is(err, context.Canceled) {
		t.Errorf("remove: %v, want context.Canceled", err)
	}
	holds(t, read(t, s), Record(2))
}

// Race tests that a lock that nobody approved is never removed (G2), for so many
// rounds, each with a lock of its own. Writers take locks; removers remove what
// they saw, half of them at once and half when they have seen that it has changed.
// Only locks of an odd number are theirs to remove: the holder of an even one
// must find it there until it removes it itself.
func Race(t *testing.T, s Store, rounds int) {
	const writers, removers = 2, 2
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(rounds)*200*time.Millisecond)
	defer stop()
	var next, lost, removed, late atomic.Int64
	remove := func(o lock.Observation) {
		switch err := s.Remove(ctx, o); {
		case err == nil:
			removed.Add(1)
		case errors.Is(err, lock.ErrChanged):
			late.Add(1) // another lock stands there
		case !errors.Is(err, lock.ErrGone):
			t.Errorf("remove: %v", err)
		}
	}
	write := func() {
		for n := int(next.Add(1)); n <= rounds && ctx.Err() == nil; n = int(next.Add(1)) {
			mine := Record(n)
			for {
				err := s.Take(ctx, mine)
				if err == nil {
					break
				}
				if !errors.Is(err, lock.ErrHeld) {
					t.Errorf("take: %v", err)
					return
				}
			}
			o, err := s.Read(ctx)
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			there := o != nil && bytes.Equal(o.Raw, mine)
			switch {
			case n%2 == 1 && there:
				remove(*o) // where no remover was faster
			case n%2 == 1:
			case !there:
				lost.Add(1)
				t.Errorf("lock %d was removed, nobody had approved that", n)
			default:
				if err := s.Remove(ctx, *o); err != nil {
					lost.Add(1)
					t.Errorf("lock %d was removed, nobody had approved that: %v", n, err)
				}
			}
		}
	}
	var writing, removing sync.WaitGroup
	done := make(chan struct{})
	over := func() bool {
		select {
		case <-done:
			return true
		default:
			return ctx.Err() != nil
		}
	}
	for slow := range removers {
		removing.Go(func() {
			for !over() {
				o, err := s.Read(ctx)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if o == nil {
					continue
				}
				info, err := lock.ParseInfo(o.Raw)
				if err != nil {
					t.Errorf("a lock that nobody wrote: %q", o.Raw)
					return
				}
				if info.Created.Nanosecond()%2 == 0 {
					continue
				}
				for now := o; slow == 1 && !over() && (now == nil || bytes.Equal(now.Raw, o.Raw)); {
					if now, err = s.Read(ctx); err != nil {
						t.Errorf("read: %v", err)
						return
					}
				}
				remove(*o)
			}
		})
	}
	for range writers {
		writing.Go(write)
	}
	writing.Wait()
	close(done)
	removing.Wait()
	if err := ctx.Err(); err != nil {
		t.Fatalf("the race did not end: %v", err)
	}
	t.Logf("%d locks: %d approved ones removed, %d removals came when another lock stood there, %d locks removed that nobody had approved", rounds, removed.Load(), late.Load(), lost.Load())
	if late.Load() == 0 {
		t.Error("no removal met another lock: the race has shown nothing")
	}
}

// Failures tests that a read that failed is an error and never "no lock". at
// gives a store whose service is at url.
func Failures(t *testing.T, at func(t *testing.T, url string) Store) {
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for _, row := range []struct {
		name   string
		answer http.Handler
		want   backend.Kind
	}{
		{"an error of the service after all tries", answer(500, "application/xml", "<Error><Code>InternalError</Code></Error>"), backend.Unreachable},
		{"a gateway's page", answer(503, "text/html", "<html>busy</html>"), backend.Unreachable},
		{"a proxy's refusal", answer(403, "text/html", "<html>no</html>"), backend.Denied},
		{"a connection that breaks", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), backend.Unreachable},
	} {
		t.Run(row.name, func(t *testing.T) {
			o, err := at(t, testkit.Serve(t, row.answer)).Read(t.Context())
			if !backend.Is(err, row.want) || o != nil {
				t.Errorf("read (%v, %v), want a problem of kind %q", o, err, row.want)
			}
		})
	}
	t.Run("a page that is not found", func(t *testing.T) {
		if o, err := at(t, testkit.Serve(t, answer(404, "text/html", "<html>where?</html>"))).Read(t.Context()); err == nil || o != nil {
			t.Errorf("read (%v, %v), want an error", o, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + listener.Addr().String()
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		if o, err := at(t, url).Read(t.Context()); !backend.Is(err, backend.Unreachable) || o != nil {
			t.Errorf("read (%v, %v), want a problem of kind %q", o, err, backend.Unreachable)
		}
	})
	t.Run("nobody answers until the caller gives up", func(t *testing.T) {
		url := testkit.Serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that its client is gone
			<-r.Context().Done()
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if o, err := at(t, url).Read(ctx); !errors.Is(err, context.DeadlineExceeded) || o != nil {
			t.Errorf("read (%v, %v), want context.DeadlineExceeded", o, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s to give up", took)
		}
	})
}

func read(t *testing.T, s Store) *lock.Observation {
	t.Helper()
	o, err := s.Read(t.Context())
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return o
}

func take(t *testing.T, s Store, raw []byte) {
	t.Helper()
	if err := s.Take(t.Context(), raw); err != nil {
		t.Fatalf("take: %v", err)
	}
}

func remove(t *testing.T, s Store, o lock.Observation) {
	t.Helper()
	if err := s.Remove(t.Context(), o); err != nil {
		t.Fatalf("remove: %v", err)
	}
}

func holds(t *testing.T, o *lock.Observation, raw []byte) {
	t.Helper()
	if o == nil {
		t.Fatal("there is no lock")
	}
	if !bytes.Equal(o.Raw, raw) {
		t.Fatalf("the lock is %.200q, want %.200q", o.Raw, raw)
	}
}
