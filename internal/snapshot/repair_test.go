package snapshot

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
)

func (c *cloud) delete(key string) {
	c.t.Helper()
	_, err := c.s3.DeleteObject(c.t.Context(), &s3.DeleteObjectInput{Bucket: &c.addr.Bucket, Key: &key})
	c.must(err)
}

// digests is where the mode keeps digests; nil where it keeps none.
func (c *cloud) digests(m mode) Digests {
	if m == inS3 {
		return nil
	}
	return itemLock{c}
}

func (c *cloud) inspect(m mode) Health {
	c.t.Helper()
	h, err := c.store().Inspect(c.t.Context(), c.digests(m))
	c.must(err)
	return h
}

// checks are the names of what is found, those that can be repaired with a +.
func checks(h Health) []string {
	names := []string{}
	for _, f := range h.Findings() {
		name := f.Check
		if f.Repair != "" {
			name += "+"
		}
		names = append(names, name)
	}
	return names
}

// What differs is found, and what is as it should be is not (issue 5).
func TestInspect(t *testing.T) {
	for _, test := range []struct {
		name   string
		mode   mode
		damage func(c *cloud)
		want   []string
	}{
		{"nothing is wrong", inBoth, func(*cloud) {}, []string{}},
		{"a digest that does not fit", inTable, func(c *cloud) { c.must(itemLock{c}.PutDigest(c.t.Context(), md5Hex("other"))) }, []string{"digest+"}},
		{"a digest that is none", inTable, func(c *cloud) { c.must(itemLock{c}.PutDigest(c.t.Context(), "<b>")) }, []string{"digest+"}},
		{"no digest, which terraform tolerates", inTable, func(c *cloud) { c.must(itemLock{c}.RemoveDigest(c.t.Context())) }, []string{}},
		{"a digest that no configuration asks for", inS3, func(*cloud) {}, []string{}},
		{"a deleted state", inBoth, func(c *cloud) { c.delete(c.addr.Key) }, []string{"state+", "digest+"}},
		{"an empty object", inS3, func(c *cloud) { c.put(c.addr.Key, "") }, []string{"state+"}},
		{"an object that is no state: its digest does not matter", inBoth, func(c *cloud) { c.put(c.addr.Key, "<html>") }, []string{"state+"}},
		{"a state that is cut off behind its head", inS3, func(c *cloud) { c.put(c.addr.Key, stateJSON(9, lineage, "")[:160]) }, []string{"state+"}},
		{"a serial behind a version", inS3, func(c *cloud) {
			c.put(c.addr.Key, stateJSON(7, lineage, ""))
			c.put(c.addr.Key, stateJSON(3, lineage, ""))
		}, []string{"serial+"}},
		{"a serial behind a snapshot", inS3, func(c *cloud) {
			c.put(c.addr.Key, stateJSON(8, lineage, ""))
			_, err := c.store().Keep(c.t.Context(), headOf(8), Manual)
			c.must(err)
			for _, v := range c.ids(c.addr.Key) {
				_, err := c.s3.DeleteObject(c.t.Context(), &s3.DeleteObjectInput{Bucket: &c.addr.Bucket, Key: &c.addr.Key, VersionId: &v})
				c.must(err)
			}
			c.put(c.addr.Key, stateJSON(2, lineage, ""))
		}, []string{"serial+"}},
		{"a higher serial of another lineage does not count", inS3, func(c *cloud) {
			c.put(c.addr.Key, stateJSON(50, "other", ""))
			c.put(c.addr.Key, stateJSON(3, lineage, ""))
		}, []string{}},
		{"another lineage than the newest snapshot's", inS3, func(c *cloud) { c.put(c.addr.Key, stateJSON(9, "other", "")) }, []string{"lineage"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newHistory(t, test.mode, true, 1, 2)
			test.damage(c)
			c.on(nil)
			got := checks(c.inspect(test.mode))
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
			for _, r := range c.requests() {
				if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") && r != "POST /" {
					t.Errorf("it is not only looked at: %s", r)
				}
			}
		})
	}
	t.Run("there is no state, and never was", func(t *testing.T) {
		c := newCloud(t, true)
		if got := checks(c.inspect(inS3)); len(got) > 0 {
			t.Errorf("found %v", got)
		}
	})
	t.Run("what cannot be read is an error, not a finding", func(t *testing.T) {
		c := newHistory(t, inBoth, true, 1)
		for _, is := range []func(*http.Request) bool{
			func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, c.addr.Key) },
			func(r *http.Request) bool { return r.URL.Query().Has("versions") },
			func(r *http.Request) bool { return r.URL.Query().Get("list-type") == "2" },
			func(r *http.Request) bool { return r.Header.Get("X-Amz-Target") != "" },
		} {
			c.on(answer(is, 403, "AccessDenied"))
			if h, err := c.store().Inspect(t.Context(), itemLock{c}); err == nil {
				t.Errorf("found %v", checks(h))
			}
		}
	})
}

// ids are the version IDs of an object, delete markers too.
func (c *cloud) ids(key string) []string {
	c.t.Helper()
	out, err := c.s3.ListObjectVersions(c.t.Context(), &s3.ListObjectVersionsInput{Bucket: &c.addr.Bucket, Prefix: &key})
	c.must(err)
	var all []string
	for _, v := range out.Versions {
		if *v.Key == key {
			all = append(all, *v.VersionId)
		}
	}
	for _, m := range out.DeleteMarkers {
		if *m.Key == key {
			all = append(all, *m.VersionId)
		}
	}
	return all
}

func (c *cloud) repairOptions(m mode) RestoreOptions {
	o := c.options(m)
	o.Operation, o.Reason = "state-repair", PreRepair
	return o
}

// Each repair leaves nothing to find, no lock, and a copy of what was there.
func TestRepairs(t *testing.T) {
	for _, m := range modes {
		for _, test := range []struct {
			name   string
			damage func(c *cloud)
			repair func(c *cloud, s *Store, o RestoreOptions) (Result, error)
			want   string // the state
			kept   string
		}{
			{"the digest", func(c *cloud) {
				if m != inS3 {
					c.must(itemLock{c}.PutDigest(c.t.Context(), md5Hex("other")))
				}
			}, func(c *cloud, s *Store, o RestoreOptions) (Result, error) {
				if m == inS3 {
					return Result{}, nil // there is none
				}
				return s.RepairDigest(c.t.Context(), o)
			}, stateJSON(2, lineage, ""), stateJSON(2, lineage, "")},
			{"a deleted state", func(c *cloud) { c.delete(c.addr.Key) }, func(c *cloud, s *Store, o RestoreOptions) (Result, error) {
				return s.RestoreVersion(c.t.Context(), c.inspect(m).LastGood.VersionID, o)
			}, stateJSON(3, lineage, ""), ""},
			{"an object that is no state", func(c *cloud) { c.put(c.addr.Key, "<html>") }, func(c *cloud, s *Store, o RestoreOptions) (Result, error) {
				return s.RestoreVersion(c.t.Context(), c.inspect(m).LastGood.VersionID, o)
			}, stateJSON(3, lineage, ""), "<html>"},
			{"a serial that runs backwards", func(c *cloud) { c.put(c.addr.Key, stateJSON(1, lineage, "back")) }, func(c *cloud, s *Store, o RestoreOptions) (Result, error) {
				return s.Renumber(c.t.Context(), o)
			}, stateJSON(3, lineage, "back"), stateJSON(1, lineage, "back")},
		} {
			t.Run(fmt.Sprintf("%s, %s", m, test.name), func(t *testing.T) {
				c := newHistory(t, m, true, 1, 2)
				test.damage(c)
				res, err := test.repair(c, c.store(), c.repairOptions(m))
				c.must(err)
				if now, _ := c.content(c.addr.Key); now != test.want {
					t.Errorf("the state is %s", now)
				}
				if got := checks(c.inspect(m)); len(got) > 0 {
					t.Errorf("still found: %v", got)
				}
				if res.Kept.ID != "" {
					if kept, _ := c.content(res.Kept.Key); kept != test.kept || !strings.Contains(res.Kept.ID, "-pre-repair-") {
						t.Errorf("kept %s: %s", res.Kept.ID, kept)
					}
				} else if test.kept != "" && res != (Result{}) {
					t.Error("no copy was made before")
				}
				c.free(m)
			})
		}
	}
}

// A digest without a state goes; terraform would fail on it.
func TestRepairDigestWithoutState(t *testing.T) {
	c := newCloud(t, false)
	c.table()
	c.must(itemLock{c}.PutDigest(t.Context(), md5Hex("gone")))
	if got := checks(c.inspect(inTable)); !slices.Equal(got, []string{"digest+"}) {
		t.Fatalf("found %v", got)
	}
	_, err := c.store().RepairDigest(t.Context(), c.repairOptions(inTable))
	c.must(err)
	if d, found, _ := (itemLock{c}).Digest(t.Context()); found {
		t.Errorf("the digest is %s", d)
	}
}

// A repair of what somebody else has mended or written since changes nothing.
func TestRepairIsOfWhatWasSeen(t *testing.T) {
	t.Run("a state is there again", func(t *testing.T) {
		c := newHistory(t, inS3, true, 1, 2)
		c.delete(c.addr.Key)
		good := c.inspect(inS3).LastGood.VersionID
		c.put(c.addr.Key, stateJSON(9, lineage, "theirs"))
		_, err := c.store().RestoreVersion(t.Context(), good, c.repairOptions(inS3))
		c.left(err, LeftOld, state.ErrChanged)
		if now, _ := c.content(c.addr.Key); now != stateJSON(9, lineage, "theirs") {
			t.Errorf("the state is %s", now)
		}
		c.free(inS3)
	})
	t.Run("the state was written between look and lock", func(t *testing.T) {
		c := newHistory(t, inS3, true, 1, 2)
		c.put(c.addr.Key, stateJSON(1, lineage, "back"))
		o := c.repairOptions(inS3)
		o.Locking = func(string) error {
			c.put(c.addr.Key, stateJSON(9, lineage, "theirs"))
			return nil
		}
		_, err := c.store().Renumber(t.Context(), o)
		c.left(err, LeftOld, state.ErrChanged)
		if now, _ := c.content(c.addr.Key); now != stateJSON(9, lineage, "theirs") {
			t.Errorf("the state is %s", now)
		}
		c.free(inS3)
	})
	t.Run("somebody holds the lock", func(t *testing.T) {
		c := newHistory(t, inBoth, true, 1, 2)
		c.must(objectLock{c}.Take(t.Context(), []byte(`{"ID":"theirs"}`)))
		_, err := c.store().RepairDigest(t.Context(), c.repairOptions(inBoth))
		c.left(err, LeftOld, lock.ErrHeld)
	})
	t.Run("whoever is to know of the lock does not", func(t *testing.T) {
		c := newHistory(t, inBoth, true, 1, 2)
		o := c.repairOptions(inBoth)
		gone := errors.New("the record is lost")
		o.Locking = func(string) error { return gone }
		_, err := c.store().Renumber(t.Context(), o)
		c.left(err, LeftOld, gone)
		c.free(inBoth)
	})
	t.Run("without a copy of what is there nothing is repaired", func(t *testing.T) {
		c := newHistory(t, inBoth, true, 1, 2)
		c.must(itemLock{c}.PutDigest(t.Context(), md5Hex("other")))
		c.on(answer(isCopy, 403, "AccessDenied"))
		_, err := c.store().RepairDigest(t.Context(), c.repairOptions(inBoth))
		c.left(err, LeftOld, ErrNotKept)
		if d, _, _ := (itemLock{c}).Digest(t.Context()); d != md5Hex("other") {
			t.Errorf("the digest is %s", d)
		}
	})
}

// file is a state file of this machine.
func (c *cloud) file(content string) *Content {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "errored.tfstate")
	c.must(os.WriteFile(path, []byte(content), 0o600))
	read, err := c.store().ReadFile(path)
	c.must(err)
	c.t.Cleanup(func() { read.Close() })
	return read
}

func always(Found) error { return nil }

// G4: what terraform could not write becomes the state, byte for byte.
func TestPush(t *testing.T) {
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			c := newHistory(t, m, true, 1, 2)
			left := c.file(stateJSON(3, lineage, "left"))
			var met Found
			res, err := c.store().Push(t.Context(), left, func(f Found) error { met = f; return nil }, c.repairOptions(m))
			c.must(err)
			if now, _ := c.content(c.addr.Key); now != stateJSON(3, lineage, "left") || res.Serial != 3 {
				t.Errorf("serial %d, state %s", res.Serial, now)
			}
			if met.Serial != 2 || met.Now.IsZero() || met.Modified.IsZero() {
				t.Errorf("met %+v", met)
			}
			if kept, _ := c.content(res.Kept.Key); kept != stateJSON(2, lineage, "") {
				t.Errorf("kept %s", kept)
			}
			c.free(m)

			// Once more: it is the state already, and only the digest is looked after.
			if m != inS3 {
				c.must(itemLock{c}.PutDigest(t.Context(), md5Hex("other")))
			}
			refuse := func(Found) error { return errors.New("asked about what is there already") }
			res, err = c.store().Push(t.Context(), left, refuse, c.repairOptions(m))
			c.must(err)
			if res.Serial != 3 {
				t.Errorf("serial %d", res.Serial)
			}
			c.free(m)
		})
	}
	t.Run("a serial that was used already is not used again", func(t *testing.T) {
		c := newHistory(t, inS3, true, 1, 2)
		c.put(c.addr.Key, stateJSON(3, lineage, "theirs"))
		c.put(c.addr.Key, stateJSON(2, lineage, ""))
		res, err := c.store().Push(t.Context(), c.file(stateJSON(3, lineage, "left")), always, c.repairOptions(inS3))
		c.must(err)
		if now, _ := c.content(c.addr.Key); res.Serial != 4 || now != stateJSON(4, lineage, "left") {
			t.Errorf("serial %d, state %s", res.Serial, now)
		}
	})
	t.Run("the first state of all", func(t *testing.T) {
		c := newCloud(t, true)
		res, err := c.store().Push(t.Context(), c.file(stateJSON(1, lineage, "first")), always, c.repairOptions(inS3))
		c.must(err)
		if now, _ := c.content(c.addr.Key); now != stateJSON(1, lineage, "first") || res.Kept.ID != "" {
			t.Errorf("kept %+v, state %s", res.Kept, now)
		}
	})
	for _, test := range []struct {
		name, left string
		continues  func(Found) error
		damage     func(c *cloud)
		why        error
	}{
		{"it does not continue the state", stateJSON(3, lineage, "left"), func(Found) error { return ErrNotNext }, func(*cloud) {}, ErrNotNext},
		{"it is no state", "{", always, func(*cloud) {}, ErrRefused},
		{"what is there is no state", stateJSON(3, lineage, "left"), always, func(c *cloud) { c.put(c.addr.Key, "<html>") }, ErrNotNext},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newHistory(t, inS3, true, 1, 2)
			test.damage(c)
			before, _ := c.content(c.addr.Key)
			_, err := c.store().Push(t.Context(), c.file(test.left), test.continues, c.repairOptions(inS3))
			c.left(err, LeftOld, test.why)
			if now, _ := c.content(c.addr.Key); now != before {
				t.Errorf("the state is %s", now)
			}
			c.free(inS3)
		})
	}
}

// G4: an errored.tfstate is kept in the bucket, once.
func TestErroredCopies(t *testing.T) {
	c := newHistory(t, inS3, true, 1)
	s := c.store()
	left := c.file(stateJSON(2, lineage, "left"))
	for range 2 { // a try whose answer was lost, and the next
		key, err := s.KeepErrored(t.Context(), "run-7", left)
		c.must(err)
		if key != c.addr.ErroredPrefix()+"run-7.tfstate" {
			t.Errorf("kept as %s", key)
		}
	}
	if _, err := s.KeepErrored(t.Context(), "run-7", c.file(stateJSON(3, lineage, "other"))); err == nil {
		t.Error("another content was kept under the same name")
	}
	if _, err := s.KeepErrored(t.Context(), "../run", left); err == nil {
		t.Error("a run's id led out of the folder")
	}
	_, err := s.KeepErrored(t.Context(), "run-8", c.file("no state"))
	c.must(err)
	all, err := s.ErroredCopies(t.Context())
	c.must(err)
	if len(all) != 2 || all[0].Run != "run-7" || all[0].Serial != 2 || !all[0].Exists || all[1].Exists {
		t.Fatalf("copies %+v", all)
	}
	back, err := s.ReadErrored(t.Context(), all[0])
	c.must(err)
	defer back.Close()
	if back.SHA256() != left.SHA256() || back.MD5() != md5Hex(stateJSON(2, lineage, "left")) || back.Err() != nil || back.Head().Serial != 2 {
		t.Errorf("read back %+v", back)
	}
	_, err = s.SetAside(t.Context(), all[1])
	c.must(err)
	if aside, there := c.content(c.addr.ErroredPrefix() + "aside/run-8.tfstate"); !there || aside != "no state" {
		t.Errorf("set aside: %q", aside)
	}
	c.must(s.DropErrored(t.Context(), all[0].Key))
	if err := s.DropErrored(t.Context(), c.addr.Key); err == nil {
		t.Error("the state itself was dropped")
	}
	if all, err = s.ErroredCopies(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("copies %+v, %v", all, err)
	}
}

// A restore into another key leaves the state alone; nothing is left of it, and
// nothing else is ever erased.
func TestScratch(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		t.Run(fmt.Sprintf("versions %v", versioned), func(t *testing.T) {
			c := newHistory(t, inS3, versioned, 1, 2)
			from := c.store()
			addr := c.addr
			addr.Key = ".tfguard/x/drill/run-1.tfstate"
			to := New(c.s3, addr, Options{TempDir: t.TempDir()})
			res, err := to.RestoreFrom(t.Context(), from, oldest, RestoreOptions{Who: "me@here"})
			c.must(err)
			if now, _ := c.content(addr.Key); now != stateJSON(2, lineage, "") || res.Kept.ID != "" {
				t.Errorf("kept %+v, scratch state %s", res.Kept, now)
			}
			c.put(addr.Key+".tflock", "{}")
			c.must(to.Erase(t.Context()))
			if left := c.versions(".tfguard/"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if now, _ := c.content(c.addr.Key); now != stateJSON(2, lineage, "") {
				t.Errorf("the state is %s", now)
			}
			if err := from.Erase(t.Context()); err == nil {
				t.Error("a real state was erased")
			}
			if err := from.EraseOld(t.Context(), time.Now()); err == nil {
				t.Error("a real state's folder was erased")
			}
			c.put(addr.Key, "new")
			c.must(to.EraseOld(t.Context(), time.Now().Add(-time.Hour)))
			if _, there := c.content(addr.Key); !there {
				t.Error("a drill that goes on was erased")
			}
			c.must(to.EraseOld(t.Context(), time.Now().Add(time.Hour)))
			if left := c.versions(".tfguard/"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	t.Run("without the permission to remove versions", func(t *testing.T) {
		c := newCloud(t, true)
		c.addr.Key = ".tfguard/x/drill/run-1.tfstate"
		c.put(c.addr.Key, "scratch")
		c.on(answer(func(r *http.Request) bool { return r.Method == http.MethodDelete && r.URL.Query().Has("versionId") }, 403, "AccessDenied"))
		c.must(c.store().Erase(t.Context()))
		if _, there := c.content(c.addr.Key); there {
			t.Error("it is still there")
		}
	})
}

// The state as it is, with what it says of itself, and nothing without one.
func TestReadState(t *testing.T) {
	c := newHistory(t, inS3, true, 1, 2)
	now, err := c.store().ReadState(t.Context())
	c.must(err)
	defer now.Close()
	if now.Err() != nil || now.Head().Serial != 2 || now.MD5() != md5Hex(stateJSON(2, lineage, "")) {
		t.Errorf("%+v, %v", now.Head(), now.Err())
	}
	c.put(c.addr.Key, "<html>")
	bad, err := c.store().ReadState(t.Context())
	c.must(err)
	defer bad.Close()
	if !errors.Is(bad.Err(), state.ErrNotState) {
		t.Errorf("%v", bad.Err())
	}
	c.delete(c.addr.Key)
	if none, err := c.store().ReadState(t.Context()); err != nil || none != nil {
		t.Errorf("%v, %v", none, err)
	}
	if _, err := c.store().ReadFile(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

// Writes tells who wrote the state when, newest first.
func TestWrites(t *testing.T) {
	c := newHistory(t, inS3, true, 1, 2, 3)
	c.delete(c.addr.Key)
	c.put(c.addr.Key, stateJSON(4, lineage, ""))
	c.on(smallPages)
	all, err := c.store().Writes(t.Context(), time.Time{})
	c.must(err)
	var serials []uint64
	for _, h := range all {
		serials = append(serials, h.Serial)
		if h.VersionID == "" || h.Modified.IsZero() || h.TerraformVersion != "1.11.4" {
			t.Errorf("%+v", h)
		}
	}
	if d := cmp.Diff([]uint64{4, 3, 2, 1}, serials); d != "" {
		t.Error(d)
	}
}

// Mended tells that a digest was written by a repair or a restore since a time,
// and nothing of an ordinary copy, or of one in the same second.
func TestMended(t *testing.T) {
	c := newHistory(t, inTable, true, 1, 2)
	s := New(c.s3, c.addr, Options{TempDir: t.TempDir()})
	_, err := s.Keep(t.Context(), headOf(2), Manual)
	c.must(err)
	mended := func(since time.Time) string {
		id, err := s.Mended(t.Context(), since)
		c.must(err)
		return id
	}
	long := time.Now().Add(-time.Hour)
	if id := mended(long); id != "" {
		t.Errorf("an ordinary copy is %s", id)
	}
	res, err := s.RepairDigest(t.Context(), c.repairOptions(inTable))
	c.must(err)
	if id := mended(long); id != res.Kept.ID {
		t.Errorf("mended %q, want %s", id, res.Kept.ID)
	}
	kept, err := s.look(t.Context(), s.copies, res.Kept.Key, "")
	c.must(err)
	if id := mended(kept.Modified); id != "" {
		t.Errorf("in the same second %s counts", id)
	}
}
