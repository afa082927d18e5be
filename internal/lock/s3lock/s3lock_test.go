package s3lock_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/locktest"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// G2: a lock is removed only as it was judged.
func TestContract(t *testing.T) {
	cloud := testkit.Start(t)
	locktest.Run(t, func(t *testing.T) locktest.Store {
		set, addr := cloud.State(t, testkit.Lockfile)
		return s3lock.New(cloud.Clients.S3, addr, set)
	})
}

// rounds is raised by `make race-locks`.
var rounds = flag.Int("rounds", locktest.Rounds, "how many locks TestRace takes")

// G2: nor is one removed that was taken in the moment between.
func TestRace(t *testing.T) {
	cloud := testkit.Start(t)
	settings, addr := cloud.State(t, testkit.Lockfile)
	locktest.Race(t, s3lock.New(cloud.Clients.S3, addr, settings), *rounds)
}

// G6: what cannot be read is no "no lock".
func TestFailures(t *testing.T) {
	cloud := testkit.Start(t)
	set, addr := cloud.Names(t, testkit.Lockfile)
	locktest.Failures(t, func(t *testing.T, url string) locktest.Store {
		return s3lock.New(cloud.Via(t, url).S3, addr, set)
	})
}

type bench struct {
	*s3lock.Store
	faulty *testkit.Faulty
	cloud  *testkit.Cloud
	set    backend.Settings
	addr   backend.Address
}

func newBench(t *testing.T) bench {
	cloud := testkit.Start(t)
	set, addr := cloud.State(t, testkit.Lockfile)
	faulty := testkit.NewFaulty(t, cloud.URL)
	return bench{s3lock.New(cloud.Via(t, faulty.URL).S3, addr, set), faulty, cloud, set, addr}
}

// put writes the lock object past every condition.
func (b bench) put(t *testing.T, raw []byte) {
	t.Helper()
	_, err := b.cloud.Clients.S3.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b.addr.Bucket, Key: aws.String(b.addr.LockKey()), Body: bytes.NewReader(raw)})
	if err != nil {
		t.Fatal(err)
	}
}

func (b bench) taken(t *testing.T, raw []byte) lock.Observation {
	t.Helper()
	if err := b.Take(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	o, err := b.Read(t.Context())
	if err != nil || o == nil {
		t.Fatalf("read (%v, %v)", o, err)
	}
	return *o
}

func (b bench) holds(t *testing.T, raw []byte) {
	t.Helper()
	o, err := s3lock.New(b.cloud.Clients.S3, b.addr, b.set).Read(t.Context())
	switch {
	case err != nil:
		t.Errorf("read: %v", err)
	case raw == nil && o != nil:
		t.Errorf("there is a lock: %q", o.Raw)
	case raw != nil && (o == nil || !bytes.Equal(o.Raw, raw)):
		t.Errorf("the lock is %v, want %q", o, raw)
	}
}

func TestReadIsOneRequest(t *testing.T) {
	b := newBench(t)
	want := "GET /" + b.addr.Bucket + "/" + b.addr.LockKey() + "?x-id=GetObject"
	if _, err := b.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.faulty.Requests(); len(got) != 1 || got[0] != want {
		t.Errorf("requests %v, want %q", got, want)
	}
}

func TestRecordsThatNoTerraformWrote(t *testing.T) {
	b := newBench(t)
	for name, raw := range map[string][]byte{
		"binary":    {0, 1, 2, 0xff, 0xfe},
		"not UTF-8": []byte("{\"ID\":\"\xff\"}"),
		"endless":   bytes.Repeat([]byte{'a'}, 3<<20),
	} {
		t.Run(name, func(t *testing.T) {
			b.put(t, raw)
			o, err := b.Read(t.Context())
			if err != nil || o == nil || !bytes.Equal(o.Raw, raw[:min(len(raw), lock.MaxRecord)]) {
				t.Fatalf("read (%.80v, %v)", o, err)
			}
			if _, err := lock.ParseInfo(o.Raw); err == nil {
				t.Error("the record can be judged, it should not")
			}
			if err := b.Remove(t.Context(), *o); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

func TestTheLockIsWrittenAsTerraformDoes(t *testing.T) {
	const key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	for _, row := range []struct {
		name string
		set  backend.Settings
		want map[string]string
	}{
		{"no encryption is the bucket's own", backend.Settings{},
			map[string]string{"If-None-Match": "*", "Content-Type": "application/json", "X-Amz-Server-Side-Encryption": "",
				"X-Amz-Checksum-Sha256": "+", "X-Amz-Acl": ""}},
		{"encrypt is AES256", backend.Settings{Encrypt: true},
			map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}},
		{"a KMS key is used only with encrypt", backend.Settings{KMSKeyID: "alias/state"},
			map[string]string{"X-Amz-Server-Side-Encryption": "", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": ""}},
		{"encrypt with a KMS key", backend.Settings{Encrypt: true, KMSKeyID: "alias/state", ACL: "bucket-owner-full-control"},
			map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/state",
				"X-Amz-Acl": "bucket-owner-full-control"}},
		{"encrypt with a customer key", backend.Settings{Encrypt: true, SSECustomerKey: key},
			map[string]string{"X-Amz-Server-Side-Encryption": "", "X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256",
				"X-Amz-Server-Side-Encryption-Customer-Key": key, "X-Amz-Server-Side-Encryption-Customer-Key-Md5": "+"}},
		{"skip_s3_checksum leaves the checksum out", backend.Settings{Attrs: map[string]any{"skip_s3_checksum": true}},
			map[string]string{"X-Amz-Checksum-Sha256": "", "X-Amz-Sdk-Checksum-Algorithm": "", "X-Amz-Trailer": ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			var sent http.Header
			b.faulty.Add(testkit.Fault{Match: testkit.S3Op("PUT", ".tflock"), Before: func(r *http.Request) { sent = r.Header.Clone() },
				Answer: testkit.S3Error(400, "InvalidRequest", "seen")})
			if err := s3lock.New(b.cloud.Via(t, b.faulty.URL).S3, b.addr, row.set).Take(t.Context(), locktest.Record(1)); err == nil {
				t.Fatal("the answer was an error")
			}
			for name, want := range row.want {
				if got := sent.Get(name); got != want && (want != "+" || got == "") {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestACustomerKeyReadsWhatItWrote(t *testing.T) {
	b := newBench(t)
	b.set.Encrypt, b.set.SSECustomerKey = true, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	var asked http.Header
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("GET", ".tflock"), Before: func(r *http.Request) { asked = r.Header.Clone() }})
	with := s3lock.New(b.cloud.Via(t, b.faulty.URL).S3, b.addr, b.set)
	if _, err := with.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := asked.Get("X-Amz-Server-Side-Encryption-Customer-Key"); got != b.set.SSECustomerKey {
		t.Errorf("the read was asked with key %q", got)
	}
}

// The pins of retried conditional writes: the answer of the first try is lost.
func TestALostAnswerIsNoContention(t *testing.T) {
	b := newBench(t)
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("PUT", ".tflock"), Drop: true, Times: 1})
	o := b.taken(t, locktest.Record(1))
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("DELETE", ".tflock"), Drop: true, Times: 1})
	if err := b.Remove(t.Context(), o); err != nil {
		t.Errorf("remove, refused after its own first try: %v", err)
	}
	b.holds(t, nil)
}

func TestAConflictIsTriedAgain(t *testing.T) {
	b := newBench(t)
	conflict := testkit.S3Error(409, "ConditionalRequestConflict", "another request is under way")
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("PUT", ".tflock"), Times: 2, Answer: conflict})
	o := b.taken(t, locktest.Record(1))
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("DELETE", ".tflock"), Times: 2, Answer: conflict})
	if err := b.Remove(t.Context(), o); err != nil {
		t.Errorf("remove: %v", err)
	}
	b.holds(t, nil)
}

func TestACancelledTakeReleasesWhatItHasWritten(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("PUT", ".tflock"), Done: func(*http.Request) { cancel() }, Drop: true})
	if err := b.Take(ctx, locktest.Record(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("take: %v, want context.Canceled", err)
	}
	b.holds(t, nil)
}

func TestALockSwappedBetweenReadAndDeleteStays(t *testing.T) {
	b := newBench(t)
	o := b.taken(t, locktest.Record(1))
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("DELETE", ".tflock"), Times: 1, Before: func(*http.Request) { b.put(t, locktest.Record(2)) }})
	if err := b.Remove(t.Context(), o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("remove: %v, want ErrChanged", err)
	}
	b.holds(t, locktest.Record(2))
}

func TestAStoreThatIgnoresIfMatchStillKeepsAnotherLock(t *testing.T) {
	b := newBench(t)
	o := b.taken(t, locktest.Record(1))
	b.put(t, locktest.Record(2))
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("DELETE", ".tflock"), Before: func(r *http.Request) { r.Header.Del("If-Match") }})
	if err := b.Remove(t.Context(), o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("remove: %v, want ErrChanged", err)
	}
	b.holds(t, locktest.Record(2))
}

func TestARemovalThatDidNothingIsNoSuccess(t *testing.T) {
	b := newBench(t)
	o := b.taken(t, locktest.Record(1))
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("DELETE", ".tflock"), Answer: func(*http.Request) *testkit.Response {
		return &testkit.Response{Status: 204}
	}})
	if err := b.Remove(t.Context(), o); err == nil {
		t.Error("the lock is still there")
	}
	b.faulty.Reset()
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("GET", ".tflock"), After: 1, Answer: testkit.S3Error(500, "InternalError", "no")})
	if err := b.Remove(t.Context(), o); err == nil {
		t.Error("the removal could not be verified")
	}
}

func TestAStoreWithoutETagsIsAskedForNoRemoval(t *testing.T) {
	b := newBench(t)
	b.faulty.Add(testkit.Fault{Match: testkit.S3Op("GET", ".tflock"), Answer: func(*http.Request) *testkit.Response {
		return &testkit.Response{Status: 200, Body: string(locktest.Record(1))}
	}})
	o, err := b.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), *o); err == nil {
		t.Error("without an ETag any lock would be removed")
	}
	for _, r := range b.faulty.Requests() {
		if strings.HasPrefix(r, "DELETE") {
			t.Errorf("request %s", r)
		}
	}
}

func TestErrorsNameTheObjectAndTheBucket(t *testing.T) {
	b := newBench(t)
	b.faulty.Add(testkit.Fault{Times: 1, Answer: testkit.S3Error(404, "NoSuchBucket", "The specified bucket does not exist")})
	if _, err := b.Read(t.Context()); !backend.Is(err, backend.Missing) || !strings.Contains(err.Error(), "bucket "+b.addr.Bucket+" does not exist") {
		t.Errorf("%v, want that the bucket is missing", err)
	}
	b.faulty.Add(testkit.Fault{Times: 1, Answer: testkit.S3Error(403, "AccessDenied", "Access Denied")})
	want := "permission denied: s3:GetObject on " + awsclient.ObjectName(b.addr.Bucket, b.addr.LockKey())
	if _, err := b.Read(t.Context()); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	b.faulty.Add(testkit.Fault{Times: 1, Answer: func(*http.Request) *testkit.Response {
		return &testkit.Response{Status: 200, Header: map[string]string{"Content-Length": "100"}, Body: "cut off"}
	}})
	if _, err := b.Read(t.Context()); !backend.Is(err, backend.Unreachable) {
		t.Errorf("a record that ended early: %v, want Unreachable", err)
	}
}
