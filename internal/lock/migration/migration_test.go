package migration

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(second int) time.Time { return noon.Add(time.Duration(second) * time.Second) }

// Writings and removals of the lock object are paired; what is lost or stands in
// one second makes a hold shorter, never longer.
func TestHoldsOf(t *testing.T) {
	put := func(s int) entry { return entry{at(s), false} }
	gone := func(s int) entry { return entry{at(s), true} }
	for _, c := range []struct {
		sentence string
		in       []entry
		want     []Hold // newest first
	}{
		{"nobody ever", nil, nil},
		{"one run after the other, newest first as S3 lists them", []entry{put(10), put(0), gone(14), gone(3)}, []Hold{{at(10), at(14)}, {at(0), at(3)}}},
		{"one that goes on", []entry{put(10), put(0), gone(3)}, []Hold{{at(10), time.Time{}}, {at(0), at(3)}}},
		{"two within a second", []entry{put(5), put(5), gone(5), gone(5)}, []Hold{{at(5), at(5)}}},
		{"one ends and the next begins in the same second", []entry{put(5), put(0), gone(9), gone(5)}, []Hold{{at(5), at(9)}, {at(0), at(5)}}},
		{"a removal that is not known any more", []entry{put(10), put(0), gone(14)}, []Hold{{at(10), at(14)}, {at(0), at(0)}}},
		{"a removal without a writing", []entry{gone(3), put(10), gone(14)}, []Hold{{at(10), at(14)}}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if d := cmp.Diff(c.want, holdsOf(c.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestUncovered(t *testing.T) {
	holds := []Hold{{at(100), time.Time{}}, {at(50), at(60)}, {at(0), at(10)}}
	for _, c := range []struct {
		sentence string
		at       time.Time
		covered  bool
	}{
		{"within a hold", at(5), true}, {"in its first second", at(50), true}, {"in its last", at(60), true},
		{"between two", at(30), false}, {"before all", at(-1), false}, {"in one that goes on", at(1000), true},
	} {
		if got := len(Uncovered([]time.Time{c.at}, holds)) == 0; got != c.covered {
			t.Errorf("%s: covered %v", c.sentence, got)
		}
	}
}

func TestNote(t *testing.T) {
	cloud := testkit.Start(t)
	settings, addr := cloud.State(t, testkit.Both)
	s := New(cloud.Clients.S3, addr, awsclient.ObjectOf(settings))
	if _, found, err := s.Read(t.Context()); found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	want := Note{Version: 1, To: ToLockfile, Table: addr.Table, Both: noon, By: "ada@build-7"}
	for _, alone := range []time.Time{{}, noon.Add(time.Hour)} {
		want.Alone = alone
		if err := s.Write(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		got, found, err := s.Read(t.Context())
		if d := cmp.Diff(want, got); d != "" || !found || err != nil {
			t.Errorf("found %v, %v: %s", found, err, d)
		}
	}
	_, err := cloud.Clients.S3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &addr.Bucket, Key: aws.String(addr.MigrationKey())})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Read(t.Context()); err == nil {
		t.Error("an empty note was read")
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Read(t.Context()); found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
}

// The holds are those of this state's lock object alone.
func TestHolds(t *testing.T) {
	cloud := testkit.Start(t)
	settings, addr := cloud.State(t, testkit.Lockfile)
	s := New(cloud.Clients.S3, addr, awsclient.ObjectOf(settings))
	locks := s3lock.New(cloud.Clients.S3, addr, settings)
	other := addr
	other.Key += ".tflock"
	for range 2 {
		if err := locks.Take(t.Context(), []byte(`{"ID":"a"}`)); err != nil {
			t.Fatal(err)
		}
		seen, err := locks.Read(t.Context())
		if err != nil || seen == nil {
			t.Fatal(seen, err)
		}
		if err := locks.Remove(t.Context(), *seen); err != nil {
			t.Fatal(err)
		}
	}
	if err := s3lock.New(cloud.Clients.S3, other, settings).Take(t.Context(), []byte(`{"ID":"b"}`)); err != nil {
		t.Fatal(err)
	}
	holds, err := s.Holds(t.Context())
	if err != nil || len(holds) == 0 || len(holds) > 2 {
		t.Fatalf("%v, %v", holds, err)
	}
	for _, h := range holds {
		if h.From.IsZero() || h.To.IsZero() || h.To.Before(h.From) {
			t.Errorf("%+v", h)
		}
	}
}
