package lock

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// goldenRecords are the lock records that real terraforms wrote.
func goldenRecords(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../../testdata/lock/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden records: %v", err)
	}
	var all [][]byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(b, &g); err != nil {
			t.Fatal(err)
		}
		if g.Item != nil {
			all = append(all, []byte(g.Item.Info.S))
		}
		if g.Object != nil {
			all = append(all, []byte(g.Object.Body))
		}
	}
	return all
}

// holderRecords are such as tfguard writes, and some that somebody spoiled.
func holderRecords(t testing.TB) [][]byte {
	t.Helper()
	plain := holder(idA, 0).Record
	rich := plain
	rich.CI = &CIRun{System: "github", Server: "https://github.com", Repository: "acme/infra", ID: "1", Attempt: 2, Job: "apply", URL: run1}
	rich.InFlight = []string{"aws_instance.a", `module.x["é\n"].aws_db.b[0]`}
	var all [][]byte
	for _, r := range []Record{plain, rich} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b, bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1), b[:len(b)/2], append(slices.Clone(b), '}'))
	}
	return append(all, nil, []byte("null"), []byte("{}"), []byte(`{"version":1,"run_id":"a b"}`))
}

// A holder record is data of whoever may write the bucket. What is accepted can
// be used: its IDs name nothing else, its times are times, nothing in it is too
// long; and it can be written and read again.
func FuzzParseRecord(f *testing.F) {
	for _, r := range holderRecords(f) {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRecord(raw)
		if err != nil {
			if r.RunID != "" || r.LockID != "" {
				t.Errorf("refused (%v), and used: %+v", err, r)
			}
			return
		}
		if !json.Valid(raw) || r.Version != 1 || !UsableID(r.RunID) || r.LockID != "" && !UsableID(r.LockID) {
			t.Errorf("accepted: %+v", r)
		}
		if r.Started.IsZero() || r.Beat.Before(r.Started) || len(r.InFlight) > maxInFlight {
			t.Errorf("accepted: %+v", r)
		}
		for _, s := range r.text() {
			if len(*s) > maxField {
				t.Errorf("accepted a field of %d bytes", len(*s))
			}
		}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRecord(b)
		if err != nil {
			t.Fatalf("written again it cannot be read: %v", err)
		}
		if again.RunID != r.RunID || again.LockID != r.LockID || !again.Started.Equal(r.Started) || !again.Beat.Equal(r.Beat) || again.Who != r.Who || again.Stage != r.Stage || again.PID != r.PID {
			t.Errorf("written again it says %+v, it said %+v", again, r)
		}
	})
}

// Whatever two stores and the holder record hold: there is a verdict, it is
// sound, what cannot be read is unclear, and who is known to be alive keeps it.
func FuzzClassify(f *testing.F) {
	records, holders := append(goldenRecords(f), []byte(`{"ID":"test123","Who":"manual-test"}`), nil), holderRecords(f)
	for i, r := range records {
		f.Add(r, records[(i+1)%len(records)], holders[i%len(holders)], int64(i)*int64(time.Second), int64(i)*int64(time.Minute), byte(i))
	}
	lives := []Life{NotKnown, Alive, Over, NotKnown}
	f.Fuzz(func(t *testing.T, table, object, record []byte, renewed, age int64, know byte) {
		s := situation{policy: DefaultPolicy(), now: now, seen: []Observation{
			{Store: DynamoDB, Raw: table, ServerNow: now},
			{Store: S3, Raw: object, Match: `"e"`, ServerNow: now, Written: now.Add(-time.Duration(age))},
		}}
		h := &HolderSeen{Raw: record, Age: max(time.Duration(renewed), 0), Process: lives[know&3]}
		var err error
		if h.Record, err = ParseRecord(record); err != nil {
			h.Problem = err.Error()
		} else if h.Record.CI != nil {
			h.CI = RunSeen{Life: lives[know>>2&3]}
		}
		if know&16 == 0 {
			s.ev.Holder = h
		}
		if know&32 == 0 {
			began := now.Add(-time.Duration(age))
			s.ev.Runs = []RunSeen{{Life: lives[know>>6&3], Started: began, Ended: began.Add(time.Hour)}}
		}
		v := s.judge()
		if err := s.sound(v); err != nil {
			t.Fatal(err)
		}
		for i, o := range s.seen {
			info, err := ParseInfo(o.Raw)
			if err != nil && v.Locks[i].Status != Unclear || err == nil && !json.Valid(o.Raw) {
				t.Errorf("%q is %s", o.Raw, v.Locks[i].Status)
			}
			if err == nil && s.knownAlive(info) && v.Locks[i].Status == Stale {
				t.Errorf("%q is stale, and who holds it is known to be alive", o.Raw)
			}
		}
		report := v.Report()
		if len(report.Locks) != len(v.Locks) || report.Count() == 0 {
			t.Errorf("the report has %d locks, %d of them distinct", len(report.Locks), report.Count())
		}
		for _, e := range report.Locks {
			if e.ID != "" && !UsableID(e.ID) || e.AgeSeconds < 0 {
				t.Errorf("the report has %+v", e)
			}
		}
		if _, err := json.Marshal(report); err != nil {
			t.Error(err)
		}
	})
}

// What a run writes about itself can always be read by the others, however much
// it has in flight.
func TestEncodeCanBeRead(t *testing.T) {
	long := string(bytes.Repeat([]byte("é"), 2000))
	r := holder(idA, 0).Record
	r.CI, r.Commit, r.Who = &CIRun{Job: long, URL: long}, long, long
	for range 300 {
		r.InFlight = append(r.InFlight, `aws_x.y["<`+long+`>"]`)
	}
	before := slices.Clone(r.InFlight)
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord(b)
	if err != nil {
		t.Fatalf("%v, of %d bytes", err, len(b))
	}
	if len(got.InFlight) < 20 || got.LockID != idA || len(got.Who) > maxField || len(got.Who) < maxField-4 {
		t.Errorf("%d addresses, lock %q, who of %d bytes", len(got.InFlight), got.LockID, len(got.Who))
	}
	if !slices.Equal(before, r.InFlight) || r.CI.Job != long {
		t.Error("writing it has changed the record itself")
	}
	if b, err = (Record{}).Encode(); err != nil || !bytes.Contains(b, []byte(`"in_flight":[]`)) {
		t.Errorf("nothing in flight is written as %s, %v", b, err)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := func(change func(*Record)) []byte {
		r := holder(idA, 0).Record
		change(&r)
		r.Version = max(r.Version, 1)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := ParseRecord(good(func(*Record) {})); err != nil {
		t.Fatalf("a record as tfguard writes it: %v", err)
	}
	long := string(bytes.Repeat([]byte("x"), maxField+1))
	for _, c := range []struct {
		sentence string
		raw      []byte
		want     string
	}{
		{"nothing", nil, "not JSON"},
		{"a null", []byte("null"), "no version"},
		{"something behind it", append(good(func(*Record) {}), '}'), "not JSON"},
		{"a record cut off", good(func(*Record) {})[:40], "not JSON"},
		{"one of a newer tfguard", good(func(r *Record) { r.Version = 2 }), "newer tfguard"},
		{"no run id", good(func(r *Record) { r.RunID = "" }), "run id"},
		{"a run id that could set an output", good(func(r *Record) { r.RunID = "a\nb=c" }), "run id"},
		{"a lock ID that could approve another", good(func(r *Record) { r.LockID = "a b" }), "lock ID"},
		{"no start", good(func(r *Record) { r.Started = time.Time{} }), "times"},
		{"a heartbeat before the start", good(func(r *Record) { r.Beat = r.Started.Add(-1) }), "times"},
		{"201 addresses", good(func(r *Record) { r.InFlight = make([]string, maxInFlight+1) }), "more than 200"},
		{"an address that is too long", good(func(r *Record) { r.InFlight = []string{long} }), "longer than"},
		{"a Who that is too long", good(func(r *Record) { r.Who = long }), "longer than"},
		{"a CI job that is too long", good(func(r *Record) { r.CI = &CIRun{Job: long} }), "longer than"},
		{"64 KiB", good(func(r *Record) { r.Stage = string(bytes.Repeat([]byte("x"), MaxRecord)) }), "longer than"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if r, err := ParseRecord(c.raw); err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.want)) || r.RunID != "" {
				t.Errorf("%+v, %v; want an error with %q", r, err, c.want)
			}
		})
	}
}
