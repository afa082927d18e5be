package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

// mode is one of the ways in which terraform locks a state.
type mode string

const (
	inBoth  mode = "both"
	inS3    mode = "s3"
	inTable mode = "dynamodb"
)

var modes = []mode{inBoth, inS3, inTable}

func (c *cloud) options(m mode) RestoreOptions {
	o := RestoreOptions{Who: "me@here", Version: "1.11.4"}
	if m != inTable {
		o.Locks = append(o.Locks, objectLock{c})
	}
	if m != inS3 {
		o.Locks = append(o.Locks, itemLock{c})
		o.Digests = itemLock{c}
	}
	return o
}

// newHistory has a state with the serials given and a snapshot of each, the
// newest snapshot the newest state, and terraform's digest of it.
func newHistory(t *testing.T, m mode, versioned bool, serials ...uint64) *cloud {
	t.Helper()
	c := newCloud(t, versioned)
	if m != inS3 {
		c.table()
	}
	c.keepAt(noon.AddDate(0, 0, -10), serials...)
	if m != inS3 && len(serials) > 0 {
		doc, _ := c.content(c.addr.Key)
		c.must(itemLock{c}.PutDigest(t.Context(), md5Hex(doc)))
	}
	return c
}

const oldest = "20261112T120000.000Z-pre-apply-1"

// free fails the test where a lock is left, or where the digest is not the state's.
func (c *cloud) free(m mode) {
	c.t.Helper()
	for _, l := range c.options(m).Locks {
		seen, err := l.Read(context.Background())
		c.must(err)
		if seen != nil {
			c.t.Errorf("a lock is left in %s: %s", seen.Store, seen.Raw)
		}
	}
	if m == inS3 {
		return
	}
	doc, _ := c.content(c.addr.Key)
	if got, _, err := (itemLock{c}).Digest(context.Background()); err != nil || got != md5Hex(doc) {
		c.t.Errorf("digest %s, %v; the state's is %s", got, err, md5Hex(doc))
	}
}

// G4: a restore never lowers the serial and repairs the digest.
func TestRestore(t *testing.T) {
	for _, m := range modes {
		for _, versioned := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, versions %v", m, versioned), func(t *testing.T) {
				c := newHistory(t, m, versioned, 1, 2, 3, 4, 5)
				var steps []string
				var held [][]byte
				o := c.options(m)
				o.Report = func(step string) {
					steps = append(steps, step)
					if step == StepWrite {
						for _, l := range o.Locks {
							seen, err := l.Read(t.Context())
							c.must(err)
							held = append(held, seen.Raw)
						}
					}
				}
				res, err := c.store().Restore(t.Context(), oldest, o)
				c.must(err)
				now, _ := c.content(c.addr.Key)
				if now != stateJSON(6, lineage, "") {
					t.Errorf("the state is %s", now)
				}
				if res.From.ID != oldest || res.Serial != 6 || res.Lineage != lineage || res.Kept.Serial != 5 || !strings.HasSuffix(res.Kept.ID, "-pre-restore-5") {
					t.Errorf("result %+v", res)
				}
				if kept, _ := c.content(res.Kept.Key); kept != stateJSON(5, lineage, "") {
					t.Errorf("kept before: %s", kept)
				}
				c.free(m)
				var info lock.Info
				for _, raw := range held {
					i, err := lock.ParseInfo(raw)
					if err != nil || i.Path != c.addr.String() || i.Who != "me@here" || info.ID != "" && i.ID != info.ID {
						t.Errorf("lock record %s, %v", raw, err)
					}
					info = i
				}
				want := []string{StepCheck, StepLock, StepSnapshot, StepSerial, StepWrite, StepDigest, StepReadBack, StepRelease}
				if m == inS3 {
					want = slices.DeleteFunc(want, func(s string) bool { return s == StepDigest })
				}
				if d := cmp.Diff(want, steps); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// The record is terraform's: same fields, same order, nothing more.
func TestLockRecordIsTerraforms(t *testing.T) {
	c := newCloud(t, true)
	id, raw, err := c.store().record(RestoreOptions{Who: "me@here", Version: "1.11.4"}.withDefaults())
	c.must(err)
	info, err := lock.ParseInfo(raw)
	c.must(err)
	want := fmt.Sprintf(`{"ID":"%s","Operation":"snapshot-restore","Info":"","Who":"me@here","Version":"1.11.4","Created":"2026-11-22T12:00:00Z","Path":"%s"}`, info.ID, c.addr)
	if id != info.ID || string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

// A serial is never used twice: an old plan that fitted it would be applied.
func TestRestoreSerialIsAboveAll(t *testing.T) {
	for _, test := range []struct {
		name  string
		setUp func(c *cloud)
		want  uint64
	}{
		{"above the current state", func(c *cloud) { c.put(c.addr.Key, stateJSON(20, lineage, "")) }, 21},
		{"above an older version of the object", func(c *cloud) {
			c.put(c.addr.Key, stateJSON(30, lineage, ""))
			c.put(c.addr.Key, stateJSON(2, lineage, ""))
		}, 31},
		{"above a version below a delete marker", func(c *cloud) {
			c.put(c.addr.Key, stateJSON(30, lineage, ""))
			_, err := c.s3.DeleteObject(c.t.Context(), &s3.DeleteObjectInput{Bucket: &c.addr.Bucket, Key: &c.addr.Key})
			c.must(err)
		}, 31},
		{"above a snapshot", func(c *cloud) {
			_, err := c.store(func(o *Options) { o.Now = func() time.Time { return noon.AddDate(0, 0, -20) } }).
				keep(c.t.Context(), c.look(), PreApply)
			c.must(err)
			c.put(pre+"20261101T120000.000Z-pre-apply-40.tfstate", "not read: its name says enough")
		}, 41},
		{"above a copy by a script", func(c *cloud) {
			c.put("backups/pre-apply-net+work.tfstate.20200101000000", stateJSON(50, lineage, ""))
		}, 51},
		{"not above another state's copy by a script", func(c *cloud) {
			c.put("backups/pre-apply-net+work.tfstate.20200101000000", stateJSON(50, "other", ""))
		}, 3},
		{"not above the versions of a longer key", func(c *cloud) { c.put(c.addr.Key+".backup", stateJSON(60, lineage, "")) }, 3},
		{"versions that are no state do not count", func(c *cloud) {
			c.put(c.addr.Key, "broken")
			c.put(c.addr.Key, "")
			c.put(c.addr.Key, stateJSON(2, lineage, ""))
		}, 3},
		{"a version in an archive does not count", func(c *cloud) {
			c.put(c.addr.Key, stateJSON(3, lineage, ""))
			c.on(answer(func(r *http.Request) bool {
				return r.Method == http.MethodGet && r.URL.Query().Get("versionId") != "" && strings.Contains(r.URL.Path, "/env:/a b/net+work.tfstate") && !strings.Contains(r.URL.Path, "backups")
			}, 403, "InvalidObjectState"))
		}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newHistory(t, inS3, true, 1, 2)
			c.on(smallPages)
			test.setUp(c)
			res, err := c.store().Restore(t.Context(), oldest, c.options(inS3))
			if test.name == "a version in an archive does not count" {
				// The read back asks for a version too: it is what was written, and refused here.
				var failed *RestoreError
				if !errors.As(err, &failed) || failed.Left != LeftNew {
					t.Fatalf("Restore: %v", err)
				}
			} else {
				c.must(err)
			}
			now, _ := c.content(c.addr.Key)
			if res.Serial != test.want || now != stateJSON(test.want, lineage, "") {
				t.Errorf("serial %d, want %d; state %s", res.Serial, test.want, now)
			}
		})
	}
	t.Run("none is above the largest", func(t *testing.T) {
		c := newHistory(t, inS3, true, 1)
		c.put(c.addr.Key, stateJSON(1<<64-1, lineage, ""))
		_, err := c.store().Restore(t.Context(), oldest, c.options(inS3))
		c.left(err, LeftOld, ErrRefused)
		c.free(inS3)
	})
}

func (c *cloud) look() object {
	c.t.Helper()
	s := c.store()
	obj, err := s.look(c.t.Context(), s.state, c.addr.Key, "")
	c.must(err)
	return obj
}

// left checks that err says what is left, and why.
func (c *cloud) left(err error, want Left, why error) *RestoreError {
	c.t.Helper()
	var failed *RestoreError
	if !errors.As(err, &failed) || failed.Left != want || !errors.Is(err, why) {
		c.t.Fatalf("%v (%T), want %s state and %v", err, err, want, why)
	}
	return failed
}

// What terraform cannot read any more can be restored over.
func TestRestoreOverDamage(t *testing.T) {
	for _, m := range modes {
		for _, test := range []struct {
			name   string
			damage func(c *cloud)
			kept   string // content of the copy made before
			serial uint64
		}{
			{"a digest that does not match", func(c *cloud) {
				if m != inS3 {
					c.must(itemLock{c}.PutDigest(c.t.Context(), md5Hex("other")))
				}
			}, stateJSON(2, lineage, ""), 3},
			{"a deleted object", func(c *cloud) {
				_, err := c.s3.DeleteObject(c.t.Context(), &s3.DeleteObjectInput{Bucket: &c.addr.Bucket, Key: &c.addr.Key})
				c.must(err)
			}, "", 3},
			{"an empty object", func(c *cloud) { c.put(c.addr.Key, "") }, "", 3},
			{"an object that is no state", func(c *cloud) { c.put(c.addr.Key, "<html>") }, "<html>", 3},
			{"a state that is cut off", func(c *cloud) { c.put(c.addr.Key, stateJSON(9, lineage, "")[:40]) }, stateJSON(9, lineage, "")[:40], 3},
		} {
			t.Run(fmt.Sprintf("%s, %s", m, test.name), func(t *testing.T) {
				c := newHistory(t, m, true, 1, 2)
				test.damage(c)
				res, err := c.store().Restore(t.Context(), oldest, c.options(m))
				c.must(err)
				if now, _ := c.content(c.addr.Key); now != stateJSON(test.serial, lineage, "") {
					t.Errorf("the state is %s", now)
				}
				if test.kept == "" {
					if res.Kept != (event.Snapshot{}) {
						t.Errorf("kept %+v of nothing", res.Kept)
					}
				} else if kept, _ := c.content(res.Kept.Key); kept != test.kept {
					t.Errorf("kept %q, want %q", kept, test.kept)
				}
				c.free(m)
			})
		}
	}
}

// A truncated, tampered or foreign snapshot is refused, and nothing is changed.
func TestRestoreRefusesSnapshot(t *testing.T) {
	tamper := func(c *cloud, key, content string, meta map[string]string) {
		_, err := c.s3.PutObject(c.t.Context(), &s3.PutObjectInput{Bucket: &c.addr.Bucket, Key: &key, Body: strings.NewReader(content), Metadata: meta})
		c.must(err)
	}
	metaOf := func(c *cloud, key string) map[string]string {
		out, err := c.s3.HeadObject(c.t.Context(), &s3.HeadObjectInput{Bucket: &c.addr.Bucket, Key: &key})
		c.must(err)
		return out.Metadata
	}
	key := pre + oldest + ".tfstate"
	doc := stateJSON(1, lineage, "")
	for _, test := range []struct {
		name, id string
		setUp    func(c *cloud)
		err      error
	}{
		{"truncated", oldest, func(c *cloud) { tamper(c, key, doc[:100], metaOf(c, key)) }, ErrRefused},
		{"truncated, without a checksum of ours", oldest, func(c *cloud) {
			meta := metaOf(c, key)
			delete(meta, metaSHA256)
			tamper(c, key, doc[:100], meta)
		}, ErrRefused},
		{"with other content", oldest, func(c *cloud) { tamper(c, key, strings.Replace(doc, `"value": 7`, `"value": 8`, 1), metaOf(c, key)) }, ErrRefused},
		{"with a line more, without a checksum of ours", oldest, func(c *cloud) {
			meta := metaOf(c, key)
			delete(meta, metaSHA256)
			tamper(c, key, doc+"\n", meta)
		}, ErrRefused},
		{"with another serial than its metadata", oldest, func(c *cloud) {
			meta := metaOf(c, key)
			delete(meta, metaSHA256)
			tamper(c, key, stateJSON(2, lineage, ""), meta)
		}, ErrRefused},
		{"with another lineage than its metadata, though it were the state's", oldest, func(c *cloud) {
			c.put(c.addr.Key, stateJSON(2, strings.ToUpper(lineage), ""))
			meta := metaOf(c, key)
			delete(meta, metaSHA256)
			tamper(c, key, stateJSON(1, strings.ToUpper(lineage), ""), meta)
		}, ErrRefused},
		{"without its metadata", oldest, func(c *cloud) { tamper(c, key, doc, nil) }, ErrRefused},
		{"a copy of something that was no state", "20261122T120000.000Z-pre-restore-0", func(c *cloud) {
			c.put(c.addr.Key, "<html>")
			_, err := c.store().keep(c.t.Context(), c.look(), PreRestore)
			c.must(err)
			c.put(c.addr.Key, stateJSON(2, lineage, ""))
		}, ErrRefused},
		{"of another lineage", oldest, func(c *cloud) { c.put(c.addr.Key, stateJSON(2, "other", "")) }, ErrRefused},
		{"of another lineage than the last version that is a state", oldest, func(c *cloud) {
			c.put(c.addr.Key, stateJSON(2, "other", ""))
			c.put(c.addr.Key, "broken")
		}, ErrRefused},
		{"by a script from another state", "pre-apply-net+work.tfstate.20200101000000", func(c *cloud) {
			c.put("backups/pre-apply-net+work.tfstate.20200101000000", stateJSON(1, "other", ""))
		}, ErrRefused},
		{"that is not there", "20261112T120000.000Z-pre-apply-7", func(*cloud) {}, ErrNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newHistory(t, inS3, true, 1, 2)
			test.setUp(c)
			before, _ := c.content(c.addr.Key)
			_, err := c.store().Restore(t.Context(), test.id, c.options(inS3))
			c.left(err, LeftOld, test.err)
			if now, _ := c.content(c.addr.Key); now != before {
				t.Errorf("the state is now %s", now)
			}
			c.free(inS3)
		})
	}
	t.Run("another lineage is restored where it is allowed", func(t *testing.T) {
		c := newHistory(t, inS3, true, 1, 2)
		c.put(c.addr.Key, stateJSON(7, "other", ""))
		o := c.options(inS3)
		o.AllowLineageChange = true
		res, err := c.store().Restore(t.Context(), oldest, o)
		c.must(err)
		if now, _ := c.content(c.addr.Key); now != stateJSON(8, lineage, "") || res.Lineage != lineage {
			t.Errorf("%+v, %s", res, now)
		}
	})
	t.Run("a copy by a script is restored", func(t *testing.T) {
		c := newHistory(t, inBoth, true, 4, 5)
		c.put("backups/pre-apply-net+work.tfstate.20200101000000", stateJSON(3, lineage, "by a script"))
		_, err := c.store().Restore(t.Context(), "pre-apply-net+work.tfstate.20200101000000", c.options(inBoth))
		c.must(err)
		if now, _ := c.content(c.addr.Key); now != stateJSON(6, lineage, "by a script") {
			t.Errorf("the state is %s", now)
		}
		c.free(inBoth)
	})
}

// G1: nobody restores under another run, whichever store its lock is in.
func TestRestoreDuringAnActiveLock(t *testing.T) {
	for _, m := range modes {
		for _, l := range newCloud(t, true).options(m).Locks {
			t.Run(fmt.Sprintf("%s, held in %T", m, l), func(t *testing.T) {
				c := newHistory(t, m, true, 1, 2)
				var holder Lock = objectLock{c}
				if _, ok := l.(itemLock); ok {
					holder = itemLock{c}
				}
				theirs := []byte(`{"ID":"theirs"}`)
				c.must(holder.Take(t.Context(), theirs))
				before := c.versions("")
				_, err := c.store().Restore(t.Context(), oldest, c.options(m))
				c.left(err, LeftOld, lock.ErrHeld)
				for _, l := range c.options(m).Locks {
					seen, err := l.Read(t.Context())
					c.must(err)
					if l == holder && (seen == nil || string(seen.Raw) != string(theirs)) {
						t.Errorf("their lock is now %v", seen)
					}
					if l != holder && seen != nil {
						t.Errorf("ours is left: %s", seen.Raw)
					}
				}
				inState := func(keys []string) []string {
					return slices.DeleteFunc(keys, func(k string) bool { return strings.Contains(k, lockSuffix) })
				}
				if d := cmp.Diff(inState(before), inState(c.versions(""))); d != "" {
					t.Errorf("something was written: %s", d)
				}
			})
		}
	}
}

const lockSuffix = ".tflock"

// The rule of G4 for a restore, at every single request: whatever is cancelled
// or breaks there, what is said to be left is what is there, and no lock stays.
func TestRestoreInterrupted(t *testing.T) {
	type fault struct {
		name string
		// at is called with the request that is meant.
		at func(w http.ResponseWriter, r *http.Request, next http.Handler, cancel func())
	}
	cancelled := errors.New("cancelled by a signal")
	for _, f := range []fault{
		{"cancelled before the request", func(w http.ResponseWriter, r *http.Request, next http.Handler, cancel func()) {
			cancel()
			next.ServeHTTP(w, r)
		}},
		{"cancelled after the request, before its answer", func(w http.ResponseWriter, r *http.Request, next http.Handler, cancel func()) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			cancel()
			replay(w, rec)
		}},
		{"the answer is lost", func(w http.ResponseWriter, r *http.Request, next http.Handler, _ func()) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}},
		{"refused", func(w http.ResponseWriter, r *http.Request, _ http.Handler, _ func()) {
			if r.Header.Get("X-Amz-Target") != "" {
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				w.WriteHeader(400)
				fmt.Fprint(w, `{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"made by the test"}`)
				return
			}
			s3Error(w, 403, "AccessDenied")
		}},
	} {
		for _, m := range []mode{inBoth, inS3} {
			t.Run(fmt.Sprintf("%s, %s", m, f.name), func(t *testing.T) {
				lefts := map[Left]int{}
				done := 0
				for n := 1; ; n++ {
					c := newHistory(t, m, true, 1, 2)
					ctx, cancel := context.WithCancelCause(t.Context())
					met := 0
					c.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						c.mu.Lock()
						met++
						mine := met == n
						c.mu.Unlock()
						if mine {
							f.at(w, r, next, func() { cancel(cancelled) })
						} else {
							next.ServeHTTP(w, r)
						}
					})
					s := c.store(func(o *Options) { o.Parallel = 1 })
					_, err := s.Restore(ctx, oldest, c.options(m))
					requests := c.requests()
					cancel(nil)
					c.on(nil)
					if len(requests) < n {
						c.must(err)
						break
					}
					what := fmt.Sprintf("request %d, %s", n, requests[n-1])
					now, _ := c.content(c.addr.Key)
					was, is := now == stateJSON(2, lineage, ""), now == stateJSON(3, lineage, "")
					var failed *RestoreError
					switch {
					case err == nil && is:
						done++
						c.free(m)
						continue
					case !errors.As(err, &failed):
						t.Fatalf("%s: %v; the state is %s", what, err, now)
					}
					lefts[failed.Left]++
					if failed.Left == LeftOld && !was || failed.Left == LeftNew && !is || failed.Left == LeftUnknown {
						t.Errorf("%s: said %v; the state is %s", what, err, now)
					}
					if ctx.Err() != nil && strings.HasPrefix(f.name, "cancelled") && !errors.Is(err, cancelled) {
						t.Errorf("%s: %v does not say that it was cancelled", what, err)
					}
					if !failed.Locked && failed.Digest == "" {
						c.free(m)
					}
					if f.name != "refused" && (failed.Locked || failed.Digest != "") {
						t.Errorf("%s: not mended: %v", what, err)
					}
				}
				t.Logf("left %v, done in spite of it %d times", lefts, done)
				if f.name != "refused" && done == 0 || f.name != "the answer is lost" && lefts[LeftOld] == 0 {
					t.Errorf("left %v, done %d times: the faults did not reach", lefts, done)
				}
			})
		}
	}
}

func replay(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

// A store that hangs after a cancel does not hold the program for longer than
// the grace allows, and what is left is said.
func TestRestoreCancelledWhileTheStoreHangs(t *testing.T) {
	c := newHistory(t, inS3, true, 1, 2)
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan struct{})
	hangs := false
	c.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		c.mu.Lock()
		hangs = hangs || r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/net+work.tfstate")
		hang := hangs
		c.mu.Unlock()
		if hang {
			cancel()
			<-end
			return
		}
		next.ServeHTTP(w, r)
	})
	_, err := c.store(func(o *Options) { o.Grace = 50 * time.Millisecond }).Restore(ctx, oldest, c.options(inS3))
	failed := c.left(err, LeftUnknown, context.Canceled)
	if !failed.Locked || !errors.Is(err, lock.ErrNotReleased) {
		t.Errorf("%v does not say that the lock is left", err)
	}
	close(end)
}

// Somebody who ignores the lock is not overwritten.
func TestRestoreAgainstAWriterWithoutLock(t *testing.T) {
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprintf("a state was there: %v", there), func(t *testing.T) {
			c := newHistory(t, inS3, true, 1, 2)
			if !there {
				_, err := c.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &c.addr.Bucket, Key: &c.addr.Key})
				c.must(err)
			}
			theirs := stateJSON(3, lineage, "another program's")
			o := c.options(inS3)
			o.Report = func(step string) {
				if step == StepWrite {
					c.put(c.addr.Key, theirs)
				}
			}
			_, err := c.store().Restore(t.Context(), oldest, o)
			c.left(err, LeftUnknown, state.ErrChanged)
			if now, _ := c.content(c.addr.Key); now != theirs {
				t.Errorf("the state is %s", now)
			}
			c.free(inS3)
		})
	}
}

// What is read back counts, not what the store answered to the write.
func TestRestoreReadsBack(t *testing.T) {
	c := newHistory(t, inBoth, true, 1, 2)
	o := c.options(inBoth)
	o.Report = func(step string) {
		if step == StepReadBack {
			c.on(once(func(r *http.Request) bool { return r.Method == http.MethodGet }, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				edit(w, r, next, func(_ http.Header, body string) string { return strings.Replace(body, `"value": 7`, `"value": 8`, 1) })
			}))
		}
	}
	_, err := c.store().Restore(t.Context(), oldest, o)
	failed := c.left(err, LeftUnknown, ErrNotVerified)
	if failed.Kept.Serial != 2 {
		t.Errorf("the error does not name the copy made before: %+v", failed)
	}
	c.on(nil)
	c.free(inBoth)
}

func TestRestoreInParts(t *testing.T) {
	c := newHistory(t, inBoth, true)
	doc := stateJSON(1, lineage, strings.Repeat("0123456789", 1_300_000))
	c.put(c.addr.Key, doc)
	s := c.store(func(o *Options) { o.SingleLimit, o.PartSize = 6<<20, 5<<20 })
	kept, err := s.Keep(t.Context(), headOf(1), Manual)
	c.must(err)
	c.put(c.addr.Key, stateJSON(2, lineage, ""))
	_, err = s.Restore(t.Context(), kept.ID, c.options(inBoth))
	c.must(err)
	if now, _ := c.content(c.addr.Key); now != strings.Replace(doc, `"serial": 1`, `"serial": 3`, 1) {
		t.Errorf("the state has %d bytes", len(now))
	}
	c.free(inBoth)
}

// The state keeps its content type and encryption; no file stays behind.
func TestRestoreLeavesTheObjectAsTerraformWritesIt(t *testing.T) {
	c := newHistory(t, inS3, true, 1, 2)
	dir := t.TempDir()
	s := c.store(func(o *Options) { o.Settings.Encrypt, o.TempDir = true, dir })
	_, err := s.Restore(t.Context(), oldest, c.options(inS3))
	c.must(err)
	out, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &c.addr.Bucket, Key: &c.addr.Key})
	c.must(err)
	if *out.ContentType != "application/json" || out.ServerSideEncryption != "AES256" {
		t.Errorf("%s, %s", *out.ContentType, out.ServerSideEncryption)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
	var any map[string]any
	now, _ := c.content(c.addr.Key)
	c.must(json.Unmarshal([]byte(now), &any))
}
