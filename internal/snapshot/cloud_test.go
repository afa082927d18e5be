package snapshot

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/testkit"
)

// hook sees a request before the cloud does, and its answer.
type hook func(w http.ResponseWriter, r *http.Request, next http.Handler)

// cloud is S3 and DynamoDB on loopback behind a hook that sees every request.
type cloud struct {
	t    *testing.T
	s3   *s3.Client
	db   *dynamodb.Client
	addr backend.Address

	mu   sync.Mutex
	hook hook
	seen []string // method and path of each request since the last reset
}

// newCloud has a bucket, and the names of a lock table that is not made yet.
func newCloud(t *testing.T, versioned bool) *cloud {
	t.Helper()
	back := testkit.Start(t)
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(u)
	next.ErrorLog = log.New(io.Discard, "", 0) // of requests that a test gives up
	c := &cloud{t: t}
	front := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Method+" "+r.URL.Path)
		hook := c.hook
		c.mu.Unlock()
		if hook == nil {
			next.ServeHTTP(w, r)
			return
		}
		hook(w, r, next)
	}))
	clients := back.Via(t, front)
	c.s3, c.db = clients.S3, clients.DynamoDB
	_, c.addr = back.Names(t, testkit.Both)
	c.addr.Key = "env:/a b/net+work.tfstate"
	c.bucket(c.addr.Bucket, versioned)
	return c
}

func (c *cloud) bucket(name string, versioned bool) {
	c.t.Helper()
	_, err := c.s3.CreateBucket(c.t.Context(), &s3.CreateBucketInput{Bucket: &name})
	c.must(err)
	if versioned {
		_, err = c.s3.PutBucketVersioning(c.t.Context(), &s3.PutBucketVersioningInput{
			Bucket: &name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		c.must(err)
	}
}

func (c *cloud) table() {
	c.t.Helper()
	_, err := c.db.CreateTable(c.t.Context(), &dynamodb.CreateTableInput{
		TableName: &c.addr.Table, BillingMode: dbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []dbtypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: dbtypes.ScalarAttributeTypeS}},
		KeySchema:            []dbtypes.KeySchemaElement{{AttributeName: aws.String("LockID"), KeyType: dbtypes.KeyTypeHash}},
	})
	c.must(err)
}

func (c *cloud) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// on sets the hook, nil for none, and forgets the requests seen.
func (c *cloud) on(hook hook) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hook, c.seen = hook, nil
}

func (c *cloud) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.seen...)
}

func (c *cloud) put(key, content string) {
	c.t.Helper()
	c.must(c.write(c.t.Context(), key, content))
}

func (c *cloud) write(ctx context.Context, key, content string) error {
	_, err := c.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &c.addr.Bucket, Key: &key, Body: strings.NewReader(content), ContentType: aws.String("application/json"),
	})
	return err
}

// content gives an object's content, or "" and false.
func (c *cloud) content(key string) (string, bool) {
	c.t.Helper()
	// Without the test's context: it is asked in clean-ups too.
	out, err := c.s3.GetObject(context.Background(), &s3.GetObjectInput{Bucket: &c.addr.Bucket, Key: &key})
	if hasCode(err, "NoSuchKey") {
		return "", false
	}
	c.must(err)
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	c.must(err)
	return string(b), true
}

// keys lists the objects under a prefix, all versions of them.
func (c *cloud) versions(prefix string) []string {
	c.t.Helper()
	out, err := c.s3.ListObjectVersions(c.t.Context(), &s3.ListObjectVersionsInput{Bucket: &c.addr.Bucket, Prefix: &prefix})
	c.must(err)
	keys := []string{}
	for _, v := range out.Versions {
		keys = append(keys, *v.Key)
	}
	for _, v := range out.DeleteMarkers {
		keys = append(keys, *v.Key+" deleted")
	}
	return keys
}

const lineage = "5aa1b6a5-7bf9-4d3c-9c0a-000000000001"

// stateJSON is a state as terraform writes one.
func stateJSON(serial uint64, lineage, more string) string {
	return fmt.Sprintf(`{
  "version": 4,
  "terraform_version": "1.11.4",
  "serial": %d,
  "lineage": "%s",
  "outputs": {"more": {"value": %q, "type": "string"}, "serial": {"value": 7, "type": "number"}},
  "resources": [],
  "check_results": null
}
`, serial, lineage, more)
}

func headOf(serial uint64) state.Head {
	return state.Head{Exists: true, Lineage: lineage, Serial: serial}
}

// noon is the clock of the tests.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func (c *cloud) store(change ...func(*Options)) *Store {
	o := Options{
		Run: "run-1", Commit: "c0ffee", TerraformVersion: "1.11.4",
		Now: func() time.Time { return noon }, TempDir: c.t.TempDir(),
	}
	for _, f := range change {
		f(&o)
	}
	return New(c.s3, c.addr, o)
}

func isCopy(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }

// once calls f for the first request that is meant, and passes the others on.
func once(is func(*http.Request) bool, f hook) hook {
	var mu sync.Mutex
	done := false
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		mine := !done && is(r)
		done = done || mine
		mu.Unlock()
		if mine {
			f(w, r, next)
		} else {
			next.ServeHTTP(w, r)
		}
	}
}

// edit passes a request on and changes its answer.
func edit(w http.ResponseWriter, r *http.Request, next http.Handler, change func(h http.Header, body string) string) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	body := change(rec.Header(), rec.Body.String())
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(rec.Code)
	io.WriteString(w, body)
}

// answer refuses the requests that are meant, in the way of S3.
func answer(is func(*http.Request) bool, status int, code string) hook {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if is(r) {
			s3Error(w, status, code)
		} else {
			next.ServeHTTP(w, r)
		}
	}
}

func s3Error(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>made by the test</Message></Error>`, code)
}

// objectLock and itemLock keep terraform's lock as it does, in S3 and in DynamoDB.
type objectLock struct{ c *cloud }

func (l objectLock) Take(ctx context.Context, raw []byte) error {
	_, err := l.c.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &l.c.addr.Bucket, Key: aws.String(l.c.addr.LockKey()), IfNoneMatch: aws.String("*"), Body: bytes.NewReader(raw),
	})
	if hasCode(err, "PreconditionFailed") {
		return lock.ErrHeld
	}
	return err
}

func (l objectLock) Read(ctx context.Context) (*lock.Observation, error) {
	out, err := l.c.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &l.c.addr.Bucket, Key: aws.String(l.c.addr.LockKey())})
	if hasCode(err, "NoSuchKey") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(out.Body)
	return &lock.Observation{Store: lock.S3, Raw: raw, Match: *out.ETag}, err
}

func (l objectLock) Remove(ctx context.Context, o lock.Observation) error {
	_, err := l.c.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &l.c.addr.Bucket, Key: aws.String(l.c.addr.LockKey()), IfMatch: &o.Match})
	if hasCode(err, "NoSuchKey") {
		return lock.ErrGone
	}
	return err
}

type itemLock struct{ c *cloud }

func (l itemLock) item(id string) map[string]dbtypes.AttributeValue {
	return map[string]dbtypes.AttributeValue{"LockID": &dbtypes.AttributeValueMemberS{Value: id}}
}

func (l itemLock) Take(ctx context.Context, raw []byte) error {
	item := l.item(l.c.addr.LockID())
	item["Info"] = &dbtypes.AttributeValueMemberS{Value: string(raw)}
	_, err := l.c.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &l.c.addr.Table, Item: item, ConditionExpression: aws.String("attribute_not_exists(LockID)")})
	if hasCode(err, "ConditionalCheckFailedException") {
		return lock.ErrHeld
	}
	return err
}

func (l itemLock) Read(ctx context.Context) (*lock.Observation, error) {
	raw, err := l.read(ctx, l.c.addr.LockID(), "Info")
	if err != nil || raw == "" {
		return nil, err
	}
	return &lock.Observation{Store: lock.DynamoDB, Raw: []byte(raw)}, nil
}

func (l itemLock) read(ctx context.Context, id, attribute string) (string, error) {
	out, err := l.c.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &l.c.addr.Table, Key: l.item(id), ConsistentRead: aws.Bool(true)})
	if err != nil || out.Item == nil {
		return "", err
	}
	v, ok := out.Item[attribute].(*dbtypes.AttributeValueMemberS)
	if !ok {
		return "", errors.New("the item has no " + attribute)
	}
	return v.Value, nil
}

func (l itemLock) Remove(ctx context.Context, o lock.Observation) error {
	_, err := l.c.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &l.c.addr.Table, Key: l.item(l.c.addr.LockID()), ConditionExpression: aws.String("Info = :i"),
		ExpressionAttributeValues: map[string]dbtypes.AttributeValue{":i": &dbtypes.AttributeValueMemberS{Value: string(o.Raw)}},
	})
	if hasCode(err, "ConditionalCheckFailedException") {
		return lock.ErrGone
	}
	return err
}

func (l itemLock) Digest(ctx context.Context) (string, bool, error) {
	d, err := l.read(ctx, l.c.addr.DigestID(), "Digest")
	return d, d != "", err
}

func (l itemLock) PutDigest(ctx context.Context, digest string) error {
	item := l.item(l.c.addr.DigestID())
	item["Digest"] = &dbtypes.AttributeValueMemberS{Value: digest}
	_, err := l.c.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &l.c.addr.Table, Item: item})
	return err
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (l itemLock) RemoveDigest(ctx context.Context) error {
	_, err := l.c.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &l.c.addr.Table, Key: l.item(l.c.addr.DigestID())})
	return err
}
