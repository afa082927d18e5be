package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func ids(all []Snapshot) []string {
	out := []string{}
	for _, sn := range all {
		out = append(out, sn.ID)
	}
	return out
}

// keepAt makes a snapshot of each serial, one a day from the day given.
func (c *cloud) keepAt(first time.Time, serials ...uint64) {
	c.t.Helper()
	for i, n := range serials {
		c.put(c.addr.Key, stateJSON(n, lineage, ""))
		at := first.AddDate(0, 0, i)
		_, err := c.store(func(o *Options) { o.Now = func() time.Time { return at } }).Keep(c.t.Context(), headOf(n), PreApply)
		c.must(err)
	}
}

// smallPages makes the store answer listings with two entries a page.
func smallPages(w http.ResponseWriter, r *http.Request, next http.Handler) {
	q := r.URL.Query()
	if r.Method == http.MethodGet && (q.Has("list-type") || q.Has("versions")) {
		q.Set("max-keys", "2")
		r.URL.RawQuery = q.Encode()
	}
	next.ServeHTTP(w, r)
}

func TestListNewestFirst(t *testing.T) {
	c := newCloud(t, true)
	if list, err := c.store().List(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Fatalf("before any: %#v, %v", list, err)
	}
	c.keepAt(noon.AddDate(0, 0, -5), 1, 2, 3, 4, 5)
	// What else may lie there: another state's snapshots below, other files.
	c.put(pre+"deeper.tfstate/20261122T120000.000Z-pre-apply-9.tfstate", "x")
	c.put(pre+"20261122T120000.000Z-pre-apply-9.txt", "x")
	c.put(pre+"README.tfstate", "x")
	c.put(pre+"20269922T120000.000Z-pre-apply-9.tfstate", "x")
	c.put(pre+"20261122T120000.000Z-pre-apply-99999999999999999999.tfstate", "x")
	// Copies of scripts: of this state's file name, of another.
	c.put("backups/pre-apply-net+work.tfstate.20261119T000000Z", stateJSON(3, lineage, "by a script"))
	c.put("backups/pre-apply-net+work.tfstate.1795000000", "broken")
	c.put("backups/pre-apply-terraform.tfstate.20261118T000000Z", stateJSON(3, lineage, "by a script"))
	c.on(smallPages)
	list, err := c.store().List(t.Context())
	c.must(err)
	want := []string{
		"20261121T120000.000Z-pre-apply-5", "20261120T120000.000Z-pre-apply-4", "20261119T120000.000Z-pre-apply-3",
		"pre-apply-net+work.tfstate.20261119T000000Z",
		"20261118T120000.000Z-pre-apply-2", "pre-apply-net+work.tfstate.1795000000", "20261117T120000.000Z-pre-apply-1",
	}
	if d := cmp.Diff(want, ids(list)); d != "" {
		t.Error(d)
	}
}

func TestListScripts(t *testing.T) {
	c := newCloud(t, true)
	c.addr.Key = "net/terraform.tfstate"
	doc := stateJSON(3, lineage, "by a script")
	c.put("backups/pre-apply-terraform.tfstate.20261119-000000", doc)
	c.put("backups/pre-apply-terraform.tfstate.1795000000", "broken")
	list, err := c.store().List(t.Context())
	c.must(err)
	want := []Snapshot{{
		ID: "pre-apply-terraform.tfstate.20261119-000000", Time: time.Date(2026, 11, 19, 0, 0, 0, 0, time.UTC), Reason: "pre-apply", Serial: 3, Lineage: lineage,
		Size: int64(len(doc)), SHA256: sum256([]byte(doc)), Key: "backups/pre-apply-terraform.tfstate.20261119-000000", TerraformVersion: "1.11.4", Script: true,
	}, {
		ID: "pre-apply-terraform.tfstate.1795000000", Time: time.Unix(1795000000, 0).UTC(), Reason: "pre-apply", Size: 6,
		SHA256: sum256([]byte("broken")), Key: "backups/pre-apply-terraform.tfstate.1795000000", Script: true,
	}}
	if d := cmp.Diff(want, list, cmpopts.IgnoreFields(Snapshot{}, "ETag", "VersionID"), cmpopts.IgnoreUnexported(Snapshot{})); d != "" {
		t.Error(d)
	}
	if sn, err := c.store().Find(t.Context(), "pre-apply-terraform.tfstate.2026"); err != nil || sn.Serial != 3 {
		t.Errorf("Find = %+v, %v", sn, err)
	}
}

// The names are those of the contract.
func TestSnapshotJSON(t *testing.T) {
	got, err := json.Marshal(Snapshot{ID: "i", Time: noon, ETag: "e", VersionID: "v", Script: true})
	want := `{"id":"i","time":"2026-11-22T12:00:00Z","reason":"","serial":0,"lineage":"","size":0,"sha256":"","key":"","run":"","commit":"","terraform_version":""}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestFind(t *testing.T) {
	c := newCloud(t, true)
	c.keepAt(noon.AddDate(0, 0, -3), 1, 11, 12)
	for _, test := range []struct {
		name, id string
		serial   uint64
		err      string
	}{
		{"an ID", "20261119T120000.000Z-pre-apply-1", 1, ""},
		{"the beginning of one ID", "20261120", 11, ""},
		{"the beginning of several", "2026112", 0, "2 snapshots of"},
		{"no ID", "20261123", 0, "no such snapshot"},
		{"an ID that is not there", "20261119T120000.000Z-pre-apply-2", 0, "no such snapshot"},
		{"nothing", "", 0, "no snapshot ID"},
		{"a path", "../../net", 0, "no snapshot ID"},
		{"an escape", "\x1b[31m", 0, "no snapshot ID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sn, err := c.store().Find(t.Context(), test.id)
			switch {
			case test.err == "" && (err != nil || sn.Serial != test.serial || sn.Lineage != lineage):
				t.Errorf("Find = %+v, %v", sn, err)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\x1b")):
				t.Errorf("Find = %+v, %v; want %q", sn, err, test.err)
			}
		})
	}
	t.Run("a denied request is not a missing snapshot", func(t *testing.T) {
		c.on(answer(func(r *http.Request) bool { return r.Method == http.MethodHead }, 403, "AccessDenied"))
		if _, err := c.store().Find(t.Context(), "20261119T120000.000Z-pre-apply-1"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("Find: %v", err)
		}
	})
}

func TestExpired(t *testing.T) {
	for _, test := range []struct {
		name       string
		ages       []int // days, newest first
		keep, days int
		gone       int // of the oldest
	}{
		{"none", nil, 30, 30, 0},
		{"few and old all stay", []int{100, 200, 300}, 30, 30, 0},
		{"many and young all stay", []int{1, 2, 3, 4}, 2, 30, 0},
		{"what is beyond both goes", []int{1, 2, 3, 40, 50}, 2, 30, 2},
		{"the last ones stay at any age", []int{40, 50, 60, 70}, 3, 30, 1},
		{"exactly the number of days stays", []int{29, 30, 31}, 1, 30, 1},
		{"no number: only the days count", []int{1, 40, 50}, -1, 30, 2},
		{"no days: only the number counts", []int{0, 1, 2}, 2, -1, 1},
		{"neither: one stays", []int{1, 2, 3}, -1, -1, 2},
		{"one alone always stays", []int{1000}, -1, -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all []Snapshot
			for i, age := range test.ages {
				all = append(all, Snapshot{ID: fmt.Sprint(i), Time: noon.AddDate(0, 0, -age)})
			}
			want := ids(all[len(all)-test.gone:])
			if d := cmp.Diff(want, ids(expired(all, test.keep, test.days, noon))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	c := newCloud(t, true)
	c.keepAt(noon.AddDate(0, 0, -40), 1, 2, 3)
	c.keepAt(noon.AddDate(0, 0, -2), 4, 5)
	c.put("backups/pre-apply-net+work.tfstate.20200101000000", stateJSON(1, lineage, ""))
	s := c.store(func(o *Options) { o.Keep = 3 })
	want := []string{"20261013T120000.000Z-pre-apply-1", "20261014T120000.000Z-pre-apply-2"}
	for _, dry := range []bool{true, false} {
		c.on(smallPages)
		gone, err := s.Prune(t.Context(), PruneOptions{DryRun: dry})
		c.must(err)
		if d := cmp.Diff(want, ids(gone)); d != "" {
			t.Errorf("dry run %v: %s", dry, d)
		}
		deleted := slices.ContainsFunc(c.requests(), func(r string) bool { return strings.HasPrefix(r, "DELETE ") })
		if deleted == dry {
			t.Errorf("dry run %v: requests %q", dry, c.requests())
		}
	}
	if gone, err := s.Prune(t.Context(), PruneOptions{}); err != nil || len(gone) > 0 {
		t.Errorf("a second time: %v, %v", gone, err)
	}
	if _, there := c.content("backups/pre-apply-net+work.tfstate.20200101000000"); !there {
		t.Error("the copy of a script was removed")
	}
}
