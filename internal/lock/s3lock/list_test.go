package s3lock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/locktest"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// shelf is a bucket behind a proxy that can misbehave.
type shelf struct {
	*testing.T
	cloud    *testkit.Cloud
	faulty   *testkit.Faulty
	settings backend.Settings
	client   *s3.Client
}

func newShelf(t *testing.T) *shelf {
	cloud := testkit.Start(t)
	settings, _ := cloud.State(t, testkit.Lockfile)
	faulty := testkit.NewFaulty(t, cloud.URL)
	return &shelf{t, cloud, faulty, settings, cloud.Via(t, faulty.URL).S3}
}

func isList(r *http.Request) bool { return r.URL.Query().Get("list-type") == "2" }

func (s *shelf) put(key string, body []byte) {
	s.Helper()
	if _, err := s.cloud.Clients.S3.PutObject(s.Context(), &s3.PutObjectInput{Bucket: &s.settings.Bucket, Key: &key, Body: bytes.NewReader(body)}); err != nil {
		s.Fatal(err)
	}
}

func (s *shelf) list(ctx context.Context, each func(string, lock.Observation) error) error {
	return s3lock.List(ctx, s.client, s.settings.Bucket, s.settings, each)
}

func (s *shelf) listed() map[string]lock.Observation {
	s.Helper()
	all := map[string]lock.Observation{}
	err := s.list(s.Context(), func(key string, o lock.Observation) error {
		if _, twice := all[key]; twice {
			s.Errorf("the lock of %s is listed twice", key)
		}
		all[key] = o
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return all
}

func TestList(t *testing.T) {
	s := newShelf(t)
	if all := s.listed(); len(all) != 0 {
		t.Fatalf("an empty bucket has %v", all)
	}
	locked := map[string][]byte{
		"env/prod/terraform.tfstate": locktest.Record(1), "env:/x/terraform.tfstate": locktest.Record(2), "a b+ü/ø": locktest.Record(3),
		"garbage": []byte("?"), "empty": nil, "long": bytes.Repeat([]byte("x"), 2*lock.MaxRecord),
	}
	for key, body := range locked {
		s.put(key+".tflock", body)
	}
	for _, key := range []string{"env/prod/terraform.tfstate", "x.tflock.bak", "x.tflock/y", ".tflock", "dir/.tflock", ".tfguard/x/holder.json", "backups/x/1.tfstate"} {
		s.put(key, []byte("{}"))
	}
	got := s.listed()
	if names, want := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(locked)); !slices.Equal(names, want) {
		t.Fatalf("%q, want %q", names, want)
	}
	for key, o := range got {
		one, err := s3lock.New(s.client, backend.Address{Bucket: s.settings.Bucket, Key: key}, s.settings).Read(t.Context())
		if err != nil || one == nil {
			t.Fatalf("read %s: %v, %v", key, one, err)
		}
		if !bytes.Equal(one.Raw, o.Raw) || one.Match != o.Match || !one.Written.Equal(o.Written) || o.Store != lock.S3 || o.ServerNow.IsZero() {
			t.Errorf("listed as %+v, read as %+v", o, one)
		}
	}
}

// Every page is read; what is no lock is not. A lock that is released while the
// bucket is listed is none.
func TestListReadsEveryPage(t *testing.T) {
	s := newShelf(t)
	for n := range 40 {
		s.put(fmt.Sprintf("state-%02d", n), nil)
		if n%2 == 0 {
			s.put(fmt.Sprintf("state-%02d.tflock", n), locktest.Record(n))
		}
	}
	s.faulty.Add(testkit.Fault{Match: testkit.S3Op(http.MethodGet, "/state-04.tflock"), Times: 1, Before: func(*http.Request) {
		key := "state-04.tflock"
		if _, err := s.cloud.Clients.S3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.settings.Bucket, Key: &key}); err != nil {
			t.Error(err)
		}
	}})
	s.faulty.Add(testkit.Fault{Match: isList, Before: func(r *http.Request) {
		q := r.URL.Query()
		q.Set("max-keys", "7")
		r.URL.RawQuery = q.Encode()
	}})
	got := s.listed()
	if _, there := got["state-04"]; there || len(got) != 19 {
		t.Errorf("%d locks, that which was released among them: %v; want 19 without it", len(got), there)
	}
	lists, reads := 0, 0
	for _, r := range s.faulty.Requests() {
		switch {
		case strings.Contains(r, "list-type=2"):
			lists++
		case strings.Contains(r, ".tflock"):
			reads++
		default:
			t.Errorf("it took a request of %s", r)
		}
	}
	if lists != 9 || reads != 20 {
		t.Errorf("%d pages and %d reads, want 9 and 20", lists, reads)
	}
}

// G6: a page or a lock that cannot be read is an error and never "no lock".
func TestListFails(t *testing.T) {
	s := newShelf(t)
	s.put("a.tflock", locktest.Record(1))
	s.put("b.tflock", locktest.Record(2))
	none := func(string, lock.Observation) error { return nil }
	for _, row := range []struct {
		sentence string
		match    func(*http.Request) bool
		answer   func(*http.Request) *testkit.Response
		want     backend.Kind
	}{
		{"the bucket may not be listed", isList, testkit.S3Error(403, "AccessDenied", "no"), backend.Denied},
		{"there is no bucket", isList, testkit.S3Error(404, "NoSuchBucket", "where?"), backend.Missing},
		{"the store fails", isList, testkit.S3Error(500, "InternalError", "down"), backend.Unreachable},
		{"one lock may not be read", testkit.S3Op(http.MethodGet, "/b.tflock"), testkit.S3Error(403, "AccessDenied", "no"), backend.Denied},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			s.faulty.Reset()
			s.faulty.Add(testkit.Fault{Match: row.match, Answer: row.answer})
			if err := s.list(t.Context(), none); !backend.Is(err, row.want) {
				t.Errorf("%v, want a problem of kind %q", err, row.want)
			}
		})
	}
	s.faulty.Reset()
	t.Run("whoever asked has enough", func(t *testing.T) {
		enough := errors.New("enough")
		if err := s.list(t.Context(), func(string, lock.Observation) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%v, want the error of who asked", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s.faulty.Add(testkit.Fault{Match: testkit.S3Op(http.MethodGet, ".tflock"), Before: func(*http.Request) { cancel() }, Hang: true})
		if err := s.list(ctx, none); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}
