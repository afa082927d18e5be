package setup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/backend/setup"
	"github.com/tfguard/tfguard/internal/testkit"
)

// nothingLeft looks that the probe has left no object and no item.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	objects := must[*s3.ListObjectsV2Output](t)(b.clients.S3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b.addr.Bucket}))
	for _, o := range objects.Contents {
		t.Errorf("the object %s is left", aws.ToString(o.Key))
	}
	if b.addr.Table == "" {
		return
	}
	items := must[*dynamodb.ScanOutput](t)(b.clients.DynamoDB.Scan(t.Context(), &dynamodb.ScanInput{TableName: &b.addr.Table}))
	for _, i := range items.Items {
		t.Errorf("the item %v is left", i)
	}
}

// ignores makes the store one that takes these conditions and ignores them.
func ignores(what ...string) testkit.Fault {
	return testkit.Fault{Before: func(r *http.Request) {
		target := r.Header.Get("X-Amz-Target")
		if target == "" {
			for _, w := range what {
				if method, header, ok := strings.Cut(w, " "); ok && r.Method == method {
					r.Header.Del(header)
				}
			}
			return
		}
		_, op, _ := strings.Cut(target, ".")
		if !slices.Contains(what, op) {
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err == nil {
			delete(body, "ConditionExpression")
			delete(body, "ExpressionAttributeValues")
		}
		text, _ := json.Marshal(body) // it was JSON
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		r.Header.Del("Content-Length")
	}}
}

// A store is believed only what it has shown (issue 2): that a condition which
// does not hold stops a write and a removal.
func TestProbe(t *testing.T) {
	for _, row := range []struct {
		sentence string
		mode     string
		ignores  []string
		want     []string
	}{
		{"a store that keeps its conditions has no findings", testkit.Both, nil, nil},
		{"without a table only the bucket is tried", testkit.Lockfile, []string{"PutItem", "DeleteItem"}, nil},
		{"one that ignores every condition", testkit.Both, []string{"PUT If-None-Match", "PUT If-Match", "DELETE If-Match", "PutItem", "DeleteItem"}, []string{
			"bucket: put with If-None-Match where something is: carried out all the same: two runs can take the lock at the same time",
			"bucket: put with a wrong If-Match: carried out all the same: a run does not notice that another has taken over",
			"bucket: delete with a wrong If-Match: carried out all the same: a lock can be removed that is not the one that was approved",
			"table: conditional put where something is: carried out all the same: two runs can take the lock at the same time",
			"table: delete with a wrong condition: carried out all the same: a lock can be removed that is not the one that was approved",
		}},
		{"one that ignores If-Match of a delete, as many do", testkit.Lockfile, []string{"DELETE If-Match"}, []string{
			"bucket: delete with a wrong If-Match: carried out all the same: a lock can be removed that is not the one that was approved",
		}},
		{"one that ignores If-None-Match alone", testkit.Both, []string{"PUT If-None-Match"}, []string{
			"bucket: put with If-None-Match where something is: carried out all the same: two runs can take the lock at the same time",
		}},
		{"one that ignores If-Match of a put alone", testkit.Both, []string{"PUT If-Match"}, []string{
			"bucket: put with a wrong If-Match: carried out all the same: a run does not notice that another has taken over",
		}},
		{"a table that ignores the condition of a delete", testkit.DynamoDB, []string{"DeleteItem"}, []string{
			"table: delete with a wrong condition: carried out all the same: a lock can be removed that is not the one that was approved",
		}},
		{"a table that ignores the condition of a put", testkit.DynamoDB, []string{"PutItem"}, []string{
			"table: conditional put where something is: carried out all the same: two runs can take the lock at the same time",
		}},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			b := newBench(t, row.mode, true)
			b.faulty.Add(ignores(row.ignores...))
			r, err := b.Probe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := b.whats(r); !slices.Equal(got, slices.Sorted(slices.Values(row.want))) {
				t.Errorf("%q\nwant %q", got, row.want)
			}
			for _, f := range r.Findings {
				if f.Severity != setup.Error || f.Want != "refused" || f.Fix == "" {
					t.Errorf("%+v", f)
				}
			}
			for _, q := range b.faulty.Requests() {
				if method, path, ok := strings.Cut(q, " "); ok && method != "GET" && !strings.HasPrefix(path, "/"+b.addr.Bucket+"/.tfguard/"+b.addr.Key+"/probe-") {
					t.Errorf("it sent %s", q)
				}
			}
			b.nothingLeft(t)
		})
	}
}

// The item's name is no state's, and whoever looks for locks takes it for a
// digest.
func TestProbeItemIsNoLock(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, true)
	var body bytes.Buffer
	b.faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Times: 1, Before: func(r *http.Request) {
		_, _ = body.ReadFrom(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body.Bytes()))
	}})
	if _, err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	var in struct{ Item map[string]map[string]string }
	if err := json.Unmarshal(body.Bytes(), &in); err != nil {
		t.Fatal(err)
	}
	id := in.Item["LockID"]["S"]
	if !strings.HasPrefix(id, b.addr.Bucket+"/.tfguard/"+b.addr.Key+"/probe-") || !strings.HasSuffix(id, backend.DigestSuffix) || in.Item["Digest"] == nil || in.Item["Info"] != nil {
		t.Errorf("the item is %s", body.String())
	}
}

func TestProbeFails(t *testing.T) {
	for _, row := range []struct {
		sentence string
		fault    testkit.Fault
		want     backend.Kind
		leaves   bool
	}{
		{"no permission to write objects", testkit.Fault{Match: testkit.S3Op(http.MethodPut, ""), Answer: testkit.S3Error(403, "AccessDenied", "no")}, backend.Denied, false},
		{"no permission to remove objects", testkit.Fault{Match: testkit.S3Op(http.MethodDelete, ""), Answer: testkit.S3Error(403, "AccessDenied", "no")}, backend.Denied, true},
		{"no permission to write items", testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Answer: testkit.DynamoDBError(400, "AccessDeniedException", "no")}, backend.Denied, false},
		{"the store fails in the middle", testkit.Fault{Match: testkit.S3Op(http.MethodPut, ""), After: 1, Answer: testkit.S3Error(500, "InternalError", "down")}, backend.Unreachable, false},
		{"the table fails in the middle", testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), After: 1, Answer: testkit.DynamoDBError(500, "InternalServerError", "down")}, backend.Unreachable, false},
		{"the answer to the first put was lost, and its retry refused", testkit.Fault{Match: testkit.S3Op(http.MethodPut, ""), Times: 1, Drop: true}, backend.Changed, false},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			b := newBench(t, testkit.Both, true)
			b.faulty.Add(row.fault)
			r, err := b.Probe(t.Context())
			if !backend.Is(err, row.want) {
				t.Errorf("%v, want a problem of kind %q", err, row.want)
			}
			if len(r.Findings) > 0 {
				t.Errorf("findings %+v: nothing is known", r.Findings)
			}
			if !row.leaves {
				b.nothingLeft(t)
			}
		})
	}
	t.Run("cancelled: what was written is removed all the same", func(t *testing.T) {
		b := newBench(t, testkit.Both, true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.faulty.Add(testkit.Fault{Match: testkit.S3Op(http.MethodPut, ""), After: 1, Times: 1, Before: func(*http.Request) { cancel() }, Hang: true})
		if _, err := b.Probe(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
		b.nothingLeft(t)
	})
	t.Run("a store that knows no conditions at all", func(t *testing.T) {
		b := newBench(t, testkit.Lockfile, true)
		b.faulty.Add(testkit.Fault{Match: testkit.S3Op(http.MethodPut, ""), Answer: testkit.S3Error(501, "NotImplemented", "no")})
		r, err := b.Probe(t.Context())
		if got := b.whats(r); err != nil || len(got) != 1 || !strings.Contains(got[0], "where nothing is: not implemented") {
			t.Errorf("%q, %v", got, err)
		}
		b.nothingLeft(t)
	})
}
