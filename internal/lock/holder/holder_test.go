package holder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/testkit"
)

// fast is short enough to see many renewals, and long enough to count them.
func fast() holder.Timing {
	return holder.Timing{Beat: 50 * time.Millisecond, Settle: 10 * time.Millisecond, Write: 5 * time.Second}
}

// calm is so slow that nothing is renewed during a test.
func calm() holder.Timing {
	return holder.Timing{Beat: time.Hour, Settle: 10 * time.Millisecond, Write: 5 * time.Second}
}

// bench is the record of a state of its own, behind a proxy that can misbehave.
type bench struct {
	*testing.T
	cloud *testkit.Cloud
	proxy *testkit.Faulty
	addr  backend.Address
	store *holder.Store // through the proxy
	plain *holder.Store // past it
}

func newBench(t *testing.T) *bench {
	cloud := testkit.Start(t)
	settings, addr := cloud.State(t, testkit.Lockfile)
	proxy := testkit.NewFaulty(t, cloud.URL)
	object := awsclient.ObjectOf(settings)
	return &bench{T: t, cloud: cloud, proxy: proxy, addr: addr,
		store: holder.New(cloud.Via(t, proxy.URL).S3, addr, object), plain: holder.New(cloud.Clients.S3, addr, object)}
}

// record is that of a run with this id.
func record(run string) lock.Record {
	return lock.Record{RunID: run, Command: "apply", Who: "ada@build-7", Stage: "plan", Started: time.Now().UTC()}
}

func (b *bench) take(run string, timing holder.Timing, onLost func(error)) *holder.Lease {
	b.Helper()
	if onLost == nil {
		onLost = func(err error) { b.Errorf("run %s lost its record: %v", run, err) }
	}
	l, err := b.store.Take(b.Context(), record(run), nil, timing, onLost)
	if err != nil {
		b.Fatalf("take: %v", err)
	}
	b.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

func (b *bench) read() *lock.HolderSeen {
	b.Helper()
	h, err := b.plain.Read(b.Context())
	if err != nil {
		b.Fatalf("read: %v", err)
	}
	return h
}

// holds fails where the record is not this run's; "" stands for none.
func (b *bench) holds(run string) {
	b.Helper()
	h := b.read()
	switch {
	case h == nil && run == "":
	case h == nil:
		b.Errorf("there is no record, want that of %s", run)
	case h.Record.RunID != run:
		b.Errorf("the record is of %q, want %q", h.Record.RunID, run)
	}
}

// put writes the record as somebody else would, without a condition.
func (b *bench) put(body []byte) {
	b.Helper()
	_, err := b.cloud.Clients.S3.PutObject(b.Context(), &s3.PutObjectInput{Bucket: &b.addr.Bucket, Key: aws.String(b.addr.HolderKey()), Body: bytes.NewReader(body)})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) putRecord(r lock.Record) {
	b.Helper()
	r.Beat = r.Started.Add(time.Second)
	body, err := r.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.put(body)
}

func (b *bench) drop() {
	b.Helper()
	if _, err := b.cloud.Clients.S3.DeleteObject(b.Context(), &s3.DeleteObjectInput{Bucket: &b.addr.Bucket, Key: aws.String(b.addr.HolderKey())}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) writes() int {
	n := 0
	for _, r := range b.proxy.Requests() {
		if strings.HasPrefix(r, "PUT ") && strings.Contains(r, "/holder.json") {
			n++
		}
	}
	return n
}

// eventually waits for a condition, for ten seconds at most.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

var (
	puts = testkit.S3Op(http.MethodPut, "/holder.json")
	gets = testkit.S3Op(http.MethodGet, "/holder.json")
)

// G1: of any number of runs that want a state at once, one is its holder.
func TestOneOfFiftyTakesIt(t *testing.T) {
	b := newBench(t)
	var all sync.WaitGroup
	var won atomic.Int32
	leases := make([]*holder.Lease, 50)
	for i := range leases {
		all.Go(func() {
			l, err := b.store.Take(t.Context(), record(fmt.Sprintf("run-%d", i)), nil, calm(), func(error) {})
			switch {
			case err == nil:
				leases[i] = l
				won.Add(1)
			case !errors.Is(err, lock.ErrHeld):
				t.Errorf("take: %v, want one that wraps ErrHeld", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of %d are the holder, want 1", won.Load(), len(leases))
	}
	for i, l := range leases {
		if l == nil {
			continue
		}
		b.holds(fmt.Sprintf("run-%d", i))
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	b.holds("")
}

// G1: a dead record is taken over by one as well, and only as it was seen.
func TestOneOfManyTakesOverADeadRecord(t *testing.T) {
	b := newBench(t)
	b.putRecord(record("dead"))
	seen := b.read()
	var all sync.WaitGroup
	var won atomic.Int32
	for i := range 20 {
		all.Go(func() {
			l, err := b.store.Take(t.Context(), record(fmt.Sprintf("run-%d", i)), seen, calm(), func(error) {})
			switch {
			case err == nil:
				won.Add(1)
				t.Cleanup(func() { _ = l.Release(context.Background()) })
			case !errors.Is(err, lock.ErrHeld):
				t.Errorf("take over: %v, want one that wraps ErrHeld", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d took it over, want 1", won.Load())
	}
}

func TestARecordThatCameToLifeAgainIsNotTakenOver(t *testing.T) {
	b := newBench(t)
	r := record("slow")
	b.putRecord(r)
	seen := b.read()
	r.Stage = "apply"
	b.putRecord(r) // it was not dead after all
	if _, err := b.store.Take(t.Context(), record("other"), seen, calm(), nil); !errors.Is(err, lock.ErrHeld) {
		t.Errorf("take over: %v, want one that wraps ErrHeld", err)
	}
	b.holds("slow")
}

// The record goes on telling of its run, and tells what has changed soon.
func TestItIsRenewed(t *testing.T) {
	b := newBench(t)
	l := b.take("run", fast(), nil)
	first := b.read()
	if first.Problem != "" || first.Record.Stage != "plan" || first.Record.Version != 1 || first.Record.Beat.Before(first.Record.Started) {
		t.Errorf("%+v", first)
	}
	eventually(t, "a heartbeat", func() bool { return b.read().Record.Beat.After(first.Record.Beat) })
	eventually(t, "five of them", func() bool { return b.writes() >= 7 })
	l.Update(func(r *lock.Record) { r.LockID, r.InFlight = "lock", []string{"aws_x.y"} })
	eventually(t, "the change is in the record", func() bool { h := b.read(); return h.Record.LockID == "lock" && len(h.Record.InFlight) == 1 })
	if err := l.Confirm(t.Context(), func(r *lock.Record) { r.Stage, r.LockID = "apply", "" }); err != nil {
		t.Fatalf("confirm: %v", err)
	}
	if h := b.read(); h.Record.Stage != "apply" || h.Record.LockID != "" {
		t.Errorf("confirmed, and the record says %+v", h.Record)
	}
	b.holds("run")
}

// Resources in flight are in the record within two seconds, by the timing that
// is used in earnest: a change waits for others a second, not for the heartbeat.
func TestAChangeIsInTheRecordWithinTwoSeconds(t *testing.T) {
	b := newBench(t)
	l := b.take("run", holder.DefaultTiming(), nil)
	began := time.Now()
	l.Update(func(r *lock.Record) { r.InFlight = []string{"aws_x.y"} })
	eventually(t, "the address is in the record", func() bool { return len(b.read().Record.InFlight) == 1 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// A heartbeat must not cost more than it says: one write a Beat, and one a
// Settle however often the record changes.
func TestItIsNotWrittenMoreOften(t *testing.T) {
	b := newBench(t)
	timing := holder.Timing{Beat: 100 * time.Millisecond, Settle: 50 * time.Millisecond, Write: 5 * time.Second}
	l := b.take("run", timing, nil)
	before, began := b.writes(), time.Now()
	eventually(t, "five heartbeats", func() bool { return b.writes() >= before+5 })
	if least := 5 * timing.Beat; time.Since(began) < least-timing.Beat/10 {
		t.Errorf("five heartbeats within %s, want at least %s", time.Since(began), least)
	}
	before, began = b.writes(), time.Now()
	eventually(t, "five writes of changes", func() bool {
		l.Update(func(r *lock.Record) { r.InFlight = append(r.InFlight, "a")[:1] })
		return b.writes() >= before+5
	})
	if least := 4 * timing.Settle; time.Since(began) < least {
		t.Errorf("five writes within %s, want at least %s between them", time.Since(began), timing.Settle)
	}
}

// G1: a run whose record another has taken over learns of it once, and cannot
// confirm a stage any more.
func TestItIsLostOnTakeOver(t *testing.T) {
	for _, row := range []struct {
		sentence string
		lose     func(*bench)
		left     string
	}{
		{"another run has taken it over", func(b *bench) { b.putRecord(record("other")) }, "other"},
		{"somebody has removed it", func(b *bench) { b.drop() }, ""},
		{"somebody has put garbage in its place", func(b *bench) { b.put([]byte("?")) }, ""},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			b := newBench(t)
			lost := make(chan error, 8)
			l := b.take("run", fast(), func(err error) { lost <- err })
			row.lose(b)
			select {
			case err := <-lost:
				if !errors.Is(err, holder.ErrLost) {
					t.Errorf("lost by %v, want ErrLost", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nobody was told")
			}
			if err := l.Confirm(t.Context(), func(r *lock.Record) { r.Stage = "apply" }); !errors.Is(err, holder.ErrLost) {
				t.Errorf("confirm: %v, want ErrLost", err)
			}
			writes := b.writes()
			l.Update(func(r *lock.Record) { r.Stage = "apply" })
			if err := l.Release(t.Context()); err != nil {
				t.Errorf("release: %v", err)
			}
			if n := b.writes(); n != writes {
				t.Errorf("%d writes after it was lost", n-writes)
			}
			select {
			case err := <-lost:
				t.Errorf("told again: %v", err)
			default:
			}
			if row.left != "" {
				b.holds(row.left)
			}
		})
	}
}

// The stage is confirmed on what the store has now, not on the last heartbeat.
func TestConfirmFailsWhereItIsLost(t *testing.T) {
	b := newBench(t)
	var told atomic.Int32
	l := b.take("run", calm(), func(error) { told.Add(1) })
	b.putRecord(record("other"))
	if err := l.Confirm(t.Context(), func(r *lock.Record) { r.Stage = "apply" }); !errors.Is(err, holder.ErrLost) {
		t.Fatalf("confirm: %v, want ErrLost", err)
	}
	b.holds("other")
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	b.holds("other")
}

// A write whose answer was lost and whose retry its own first try refuses is no
// other run's: it goes on (issue 2, self-inflicted refusals).
func TestItsOwnRetriedWriteIsRecognised(t *testing.T) {
	t.Run("when it is taken", func(t *testing.T) {
		b := newBench(t)
		drop := b.proxy.Add(testkit.Fault{Match: puts, Times: 1, Drop: true})
		b.take("run", calm(), nil)
		if b.proxy.Hits(drop) != 1 {
			t.Error("no answer was lost")
		}
		b.holds("run")
	})
	t.Run("when it is taken over", func(t *testing.T) {
		b := newBench(t)
		b.putRecord(record("dead"))
		b.proxy.Add(testkit.Fault{Match: puts, Times: 1, Drop: true})
		l, err := b.store.Take(t.Context(), record("run"), b.read(), calm(), nil)
		if err != nil {
			t.Fatalf("take over: %v", err)
		}
		b.holds("run")
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("when a stage is confirmed", func(t *testing.T) {
		b := newBench(t)
		l := b.take("run", calm(), nil)
		b.proxy.Add(testkit.Fault{Match: puts, Times: 1, Drop: true})
		if err := l.Confirm(t.Context(), func(r *lock.Record) { r.Stage = "apply" }); err != nil {
			t.Fatalf("confirm: %v", err)
		}
		if h := b.read(); h.Record.Stage != "apply" {
			t.Errorf("the record says %q", h.Record.Stage)
		}
	})
	t.Run("when it is renewed", func(t *testing.T) {
		b := newBench(t)
		b.take("run", fast(), nil)
		drop := b.proxy.Add(testkit.Fault{Match: puts, Times: 3, Drop: true})
		eventually(t, "answers were lost", func() bool { return b.proxy.Hits(drop) == 3 })
		writes := b.writes()
		eventually(t, "it is renewed further", func() bool { return b.writes() >= writes+5 })
		b.holds("run")
	})
}

// A heartbeat that fails for another reason is tried again, and loses nothing.
func TestAFailedHeartbeatIsTriedAgain(t *testing.T) {
	b := newBench(t)
	b.take("run", fast(), nil)
	down := b.proxy.Add(testkit.Fault{Match: puts, Answer: testkit.S3Error(403, "AccessDenied", "for a while")})
	eventually(t, "five heartbeats failed", func() bool { return b.proxy.Hits(down) >= 5 })
	b.proxy.Reset()
	now := b.read().Record.Beat
	eventually(t, "it is renewed again", func() bool { return b.read().Record.Beat.After(now) })
}

// A store that ignores conditions keeps nobody out. That is found out by trying,
// and a record of another run is left alone all the same.
func TestAStoreThatIgnoresConditionsIsWeak(t *testing.T) {
	b := newBench(t)
	b.proxy.Add(testkit.Fault{Before: func(r *http.Request) {
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Match")
	}})
	first := b.take("first", calm(), nil)
	if !first.Weak {
		t.Error("the lease does not say that it is weak")
	}
	second, err := b.store.Take(t.Context(), record("second"), nil, calm(), nil)
	if err != nil || !second.Weak {
		t.Fatalf("a second run: %v", err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	b.holds("second")
	if err := second.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	b.holds("")
}

func TestAStoreWithConditionsIsNotWeak(t *testing.T) {
	b := newBench(t)
	if b.take("run", calm(), nil).Weak {
		t.Error("the lease says that it is weak")
	}
	if n := b.writes(); n != 2 {
		t.Errorf("%d writes to take it and to try the conditions, want 2", n)
	}
}

// Some stores refuse a condition in place of ignoring it: the caller can tell.
func TestAStoreThatRefusesConditionsIsToldApart(t *testing.T) {
	b := newBench(t)
	b.proxy.Add(testkit.Fault{Match: puts, Answer: testkit.S3Error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")})
	if _, err := b.store.Take(t.Context(), record("run"), nil, calm(), nil); !errors.Is(err, holder.ErrNoConditions) || errors.Is(err, lock.ErrHeld) {
		t.Errorf("take: %v, want one that wraps ErrNoConditions", err)
	}
}

func TestReleaseRemovesOnlyItsOwn(t *testing.T) {
	t.Run("its own", func(t *testing.T) {
		b := newBench(t)
		l := b.take("run", fast(), nil)
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		b.holds("")
	})
	t.Run("not another's", func(t *testing.T) {
		b := newBench(t)
		l := b.take("run", calm(), nil)
		b.putRecord(record("other"))
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		b.holds("other")
	})
	t.Run("nothing where it is gone", func(t *testing.T) {
		b := newBench(t)
		l := b.take("run", calm(), nil)
		b.drop()
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		b.holds("")
	})
	// G3: what the last heartbeat left is its own too, though it never learned
	// the ETag of it.
	t.Run("its own, whose last renewal was cut off", func(t *testing.T) {
		b := newBench(t)
		carriedOut := make(chan bool)
		b.proxy.Add(testkit.Fault{Match: puts, After: 3, Times: 1, Done: func(r *http.Request) {
			close(carriedOut)
			<-r.Context().Done()
		}})
		l := b.take("run", fast(), nil)
		<-carriedOut
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		b.holds("")
	})
	t.Run("an error where the store cannot be asked", func(t *testing.T) {
		b := newBench(t)
		l := b.take("run", calm(), nil)
		b.proxy.Add(testkit.Fault{Match: testkit.S3Op(http.MethodDelete, "/holder.json"), Answer: testkit.S3Error(403, "AccessDenied", "no")})
		if err := l.Release(t.Context()); !backend.Is(err, backend.Denied) {
			t.Errorf("release: %v, want a problem of kind %q", err, backend.Denied)
		}
		b.holds("run")
	})
}

// G3: a run that ends while it takes the record leaves none behind.
func TestATakeThatFailsLeavesNothing(t *testing.T) {
	t.Run("cancelled, and the answer does not come", func(t *testing.T) {
		b := newBench(t)
		timing := calm()
		timing.Write = 300 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.proxy.Add(testkit.Fault{Match: puts, Times: 1, Done: func(r *http.Request) {
			cancel()
			<-r.Context().Done()
		}})
		if _, err := b.store.Take(ctx, record("run"), nil, timing, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("take: %v, want context.Canceled", err)
		}
		b.holds("")
	})
	t.Run("cancelled, and the answer comes: it is released as any other", func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.proxy.Add(testkit.Fault{Match: puts, Times: 1, Before: func(*http.Request) { cancel() }})
		l, err := b.store.Take(ctx, record("run"), nil, calm(), nil)
		if err == nil {
			err = l.Release(t.Context())
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("take and release: %v", err)
		}
		b.holds("")
	})
	t.Run("the store fails when the conditions are tried", func(t *testing.T) {
		b := newBench(t)
		b.proxy.Add(testkit.Fault{Match: puts, After: 1, Answer: testkit.S3Error(500, "InternalError", "down")})
		if _, err := b.store.Take(t.Context(), record("run"), nil, calm(), nil); err == nil || errors.Is(err, lock.ErrHeld) {
			t.Errorf("take: %v, want an error of the store", err)
		}
		b.holds("")
	})
}

func TestWhoMayNotWriteIsTold(t *testing.T) {
	b := newBench(t)
	b.proxy.Add(testkit.Fault{Match: puts, Answer: testkit.S3Error(403, "AccessDenied", "not authorized to perform: s3:PutObject")})
	if _, err := b.store.Take(t.Context(), record("run"), nil, calm(), nil); !backend.Is(err, backend.Denied) {
		t.Errorf("take: %v, want a problem of kind %q", err, backend.Denied)
	}
}

// The age is the server's Date against its Last-Modified: no client's clock has
// a part in it, however wrong.
func TestAgeIsByTheServersClock(t *testing.T) {
	b := newBench(t)
	body, err := lock.Record{RunID: "run", Started: time.Now(), Beat: time.Now()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		sentence      string
		date, written time.Time
		want          time.Duration
	}{
		{"by a clock that is years behind ours", time.Date(2020, 1, 2, 3, 4, 50, 0, time.UTC), time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), 45 * time.Second},
		{"by a clock that is hours ahead of ours", time.Now().Add(5 * time.Hour), time.Now().Add(5*time.Hour - 10*time.Second), 10 * time.Second},
		{"written in the same second", time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), 0},
		{"written in the server's future", time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2020, 1, 2, 3, 5, 5, 0, time.UTC), 0},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			b.proxy.Reset()
			b.proxy.Add(testkit.Fault{Match: gets, Answer: func(*http.Request) *testkit.Response {
				return &testkit.Response{Status: 200, Body: string(body), Header: map[string]string{"ETag": `"e"`,
					"Date": row.date.UTC().Format(http.TimeFormat), "Last-Modified": row.written.UTC().Format(http.TimeFormat)}}
			}})
			h, err := b.store.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if h.Age != row.want {
				t.Errorf("it is %s old, want %s", h.Age, row.want)
			}
		})
	}
}

// A record that cannot be used is told of, with its age: it is no "no record".
func TestADamagedRecordIsSeen(t *testing.T) {
	for name, body := range map[string]string{
		"garbage": "?", "nothing": "", "cut off": `{"version":1,"run_id":"ru`, "of a newer tfguard": `{"version":7,"run_id":"run"}`,
		"much too long": `{"version":1,"run_id":"run","who":"` + strings.Repeat("x", 3*lock.MaxRecord) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.put([]byte(body))
			h := b.read()
			if h == nil || h.Problem == "" || h.Record.RunID != "" || h.Match == "" || h.Age > time.Minute || len(h.Raw) > lock.MaxRecord {
				t.Fatalf("%+v", h)
			}
			// Nobody renews it, and one day somebody takes it over as it is.
			if _, err := b.store.Take(t.Context(), record("run"), nil, calm(), nil); !errors.Is(err, lock.ErrHeld) {
				t.Errorf("take: %v, want one that wraps ErrHeld", err)
			}
			l, err := b.store.Take(t.Context(), record("run"), h, calm(), nil)
			if err != nil {
				t.Fatalf("take over: %v", err)
			}
			b.holds("run")
			if err := l.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// G6: what cannot be read is no "no record".
func TestReadFailures(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) *testkit.Response{
		"no permission":  testkit.S3Error(403, "AccessDenied", "no"),
		"a broken store": testkit.S3Error(500, "InternalError", "down"),
		"no bucket":      testkit.S3Error(404, "NoSuchBucket", "where?"),
		"a page that is not found": func(*http.Request) *testkit.Response {
			return &testkit.Response{Status: 404, Header: map[string]string{"Content-Type": "text/html"}, Body: "<html>where?</html>"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.proxy.Add(testkit.Fault{Match: gets, Answer: answer})
			if h, err := b.store.Read(t.Context()); err == nil || h != nil {
				t.Errorf("read (%+v, %v), want an error", h, err)
			}
		})
	}
}

// A person may remove exactly the record that was judged.
func TestRemove(t *testing.T) {
	b := newBench(t)
	b.putRecord(record("dead"))
	h := b.read()
	o := lock.Observation{Store: lock.Holder, Raw: h.Raw, Match: h.Match}
	b.putRecord(record("alive"))
	if err := b.store.Remove(t.Context(), o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("remove the old one: %v, want one that wraps ErrChanged", err)
	}
	b.holds("alive")
	h = b.read()
	o = lock.Observation{Store: lock.Holder, Raw: h.Raw, Match: h.Match}
	if err := b.store.Remove(t.Context(), o); err != nil {
		t.Errorf("remove: %v", err)
	}
	b.holds("")
	if err := b.store.Remove(t.Context(), o); !errors.Is(err, lock.ErrGone) {
		t.Errorf("remove again: %v, want one that wraps ErrGone", err)
	}
}

// Nothing goes on after Release, nor after the record is lost.
func TestNothingIsLeftRunning(t *testing.T) {
	b := newBench(t)
	running := func() int {
		var stacks bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
			t.Fatal(err)
		}
		return strings.Count(stacks.String(), "holder.(*Lease).beat(")
	}
	l := b.take("first", fast(), nil)
	eventually(t, "a heartbeat goes on", func() bool { return running() == 1 })
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no heartbeat goes on after the release", func() bool { return running() == 0 })
	lost := make(chan error, 1)
	b.take("second", fast(), func(err error) { lost <- err })
	b.putRecord(record("other"))
	<-lost
	eventually(t, "no heartbeat goes on after it is lost", func() bool { return running() == 0 })
	writes := b.writes()
	if _, err := b.store.Take(t.Context(), record("third"), nil, fast(), nil); !errors.Is(err, lock.ErrHeld) {
		t.Errorf("take: %v, want one that wraps ErrHeld", err)
	}
	if n := running(); n != 0 {
		t.Errorf("%d heartbeats go on after a take that failed", n)
	}
	if n := b.writes(); n != writes+1 {
		t.Errorf("%d writes, want the one that was refused", n-writes)
	}
}

// A cancelled run goes on beating until it is released: terraform may still be
// writing.
func TestACancelDoesNotStopTheHeart(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := b.store.Take(ctx, record("run"), nil, fast(), func(err error) { t.Errorf("lost: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	writes := b.writes()
	eventually(t, "it is renewed after the cancel", func() bool { return b.writes() >= writes+3 })
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
	b.holds("")
}
