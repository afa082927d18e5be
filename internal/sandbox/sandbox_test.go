package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// box is a sandbox on loopback with clients of the real SDK.
type box struct {
	t    *testing.T
	path string
	srv  *Server
	http *httptest.Server
	s3   *s3.Client
	ddb  *dynamodb.Client
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, path: filepath.Join(t.TempDir(), "sandbox.db")}
	b.open()
	t.Cleanup(func() {
		b.http.Close()
		b.srv.Close()
	})
	return b
}

func (b *box) open() {
	b.t.Helper()
	srv, err := Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.srv, b.http = srv, httptest.NewServer(srv)
	b.clients(b.http.URL)
}

func (b *box) clients(url string) {
	cred := credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, "")
	// The checksum settings are what a loaded configuration has by default.
	b.s3 = s3.New(s3.Options{BaseEndpoint: &url, Region: Region, Credentials: cred, UsePathStyle: true, RetryMaxAttempts: 1,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported, ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported})
	b.ddb = dynamodb.New(dynamodb.Options{BaseEndpoint: &url, Region: Region, Credentials: cred, RetryMaxAttempts: 1})
}

// reopen stops the server and starts another on the same file.
func (b *box) reopen() {
	b.t.Helper()
	b.http.Close()
	if err := b.srv.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// bucket makes a bucket, versioned unless versioning is "".
func (b *box) bucket(name string, versioning types.BucketVersioningStatus) string {
	b.t.Helper()
	must(b.t)(b.s3.CreateBucket(b.t.Context(), &s3.CreateBucketInput{Bucket: &name}))
	if versioning != "" {
		b.versioning(name, versioning)
	}
	return name
}

func (b *box) versioning(bucket string, v types.BucketVersioningStatus) {
	b.t.Helper()
	must(b.t)(b.s3.PutBucketVersioning(b.t.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: v}}))
}

// put writes an object and returns its version ID.
func (b *box) put(bucket, key, body string) string {
	b.t.Helper()
	out, err := b.s3.PutObject(b.t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader([]byte(body))})
	if err != nil {
		b.t.Fatalf("put %q: %v", key, err)
	}
	return aws.ToString(out.VersionId)
}

// get reads an object; version may be "".
func (b *box) get(bucket, key, version string) string {
	b.t.Helper()
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
	if version != "" {
		in.VersionId = &version
	}
	out, err := b.s3.GetObject(b.t.Context(), in)
	if err != nil {
		b.t.Fatalf("get %q %s: %v", key, version, err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		b.t.Fatalf("get %q %s: %v", key, version, err)
	}
	return string(data)
}

// remove deletes an object's current version.
func (b *box) remove(bucket, key string) {
	b.t.Helper()
	must(b.t)(b.s3.DeleteObject(b.t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}))
}

// must makes the error of a call fatal.
func must(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// code is the service's code of an error, "" for nil.
func code(err error) string {
	var api smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return api.ErrorCode()
	}
	return err.Error()
}

func status(err error) int {
	var re interface{ HTTPStatusCode() int }
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// wantCode fails unless the error has the code.
func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Fatalf("got %q, want %q (%v)", got, want, err)
	}
}

// do sends a request as given, with credentials that nobody checks.
func (b *box) do(method, target string, body io.Reader, header ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, b.http.URL+target, body)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AccessKey+"/20260101/"+Region+"/s3/aws4_request")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, string(data)
}

// xmlCode is the code in an S3 error document.
func xmlCode(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
	}
	if err := xml.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("no S3 error: %v: %s", err, body)
	}
	return e.Code
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
