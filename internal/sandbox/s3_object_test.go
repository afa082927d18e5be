package sandbox

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// versitygw refused this for good: terraform's second .tflock in a versioned
// bucket is written over the delete marker of the first.
func TestIfNoneMatchOverDeleteMarker(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	put := func() error {
		_, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("lock"), Body: strings.NewReader("{}"), IfNoneMatch: aws.String("*")})
		return err
	}
	for range 3 {
		wantCode(t, put(), "")
		wantCode(t, put(), "PreconditionFailed")
		b.remove(bucket, "lock")
	}
}

func TestPutConditions(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	b.put(bucket, "there", "one")
	sum := md5.Sum([]byte("one"))
	etag := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		name, key, match, none, want string
	}{
		{"if-none-match over an object", "there", "", "*", "PreconditionFailed"},
		{"if-none-match where nothing is", "new", "", "*", ""},
		{"if-none-match with an ETag is not known to S3", "there", "", `"` + etag + `"`, "NotImplemented"},
		{"if-match with another ETag", "there", `"0123"`, "", "PreconditionFailed"},
		{"if-match where nothing is", "missing", `"` + etag + `"`, "", "NoSuchKey"},
		{"if-match with the ETag", "there", `"` + etag + `"`, "", ""},
		{"if-match with the ETag of before", "there", `"` + etag + `"`, "", "PreconditionFailed"},
		{"both at once", "there", `"` + etag + `"`, "*", "NotImplemented"},
	} {
		in := &s3.PutObjectInput{Bucket: &bucket, Key: &c.key, Body: strings.NewReader("two")}
		if c.match != "" {
			in.IfMatch = &c.match
		}
		if c.none != "" {
			in.IfNoneMatch = &c.none
		}
		if _, err := b.s3.PutObject(t.Context(), in); code(err) != c.want {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// gofakes3, MinIO and R2 deleted whatever was there.
func TestConditionalDelete(t *testing.T) {
	for _, versioning := range []types.BucketVersioningStatus{"", types.BucketVersioningStatusEnabled} {
		t.Run("versioning "+string(versioning), func(t *testing.T) {
			b := newBox(t)
			bucket := b.bucket("states", versioning)
			del := func(match string) error {
				_, err := b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("lock"), IfMatch: &match})
				return err
			}
			b.put(bucket, "lock", "theirs")
			head, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("lock")})
			if err != nil {
				t.Fatal(err)
			}
			b.put(bucket, "lock", "swapped in between")
			err = del(*head.ETag)
			wantCode(t, err, "PreconditionFailed")
			if status(err) != http.StatusPreconditionFailed {
				t.Errorf("status %d, want 412", status(err))
			}
			if got := b.get(bucket, "lock", ""); got != "swapped in between" {
				t.Fatalf("after the refused delete: %q", got)
			}
			b.put(bucket, "lock", "theirs")
			wantCode(t, del(*head.ETag), "")
			_, err = b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("lock")})
			wantCode(t, err, "NotFound")
			wantCode(t, del(*head.ETag), "NoSuchKey")
			if versioning == "" {
				wantCode(t, del("*"), "NoSuchKey")
			} else {
				wantCode(t, del("*"), "PreconditionFailed") // over the marker
			}

			b.put(bucket, "lock", "many")
			out, err := b.s3.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
				{Key: aws.String("lock"), ETag: head.ETag}, {Key: aws.String("no such key")},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Errors) != 1 || *out.Errors[0].Code != "PreconditionFailed" || len(out.Deleted) != 1 {
				t.Errorf("DeleteObjects with a wrong ETag: %d deleted, errors %v", len(out.Deleted), out.Errors)
			}
			if got := b.get(bucket, "lock", ""); got != "many" {
				t.Errorf("after the refused delete: %q", got)
			}
		})
	}
}

// gofakes3 ignored the version and copied the object onto itself.
func TestCopyVersionOntoSameKey(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	const key = "env:/a b/état+%2F..//terraform.tfstate"
	first, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(key), Body: strings.NewReader("serial 1"),
		ContentType: aws.String("application/json"), Metadata: map[string]string{"who": "ci"}})
	if err != nil {
		t.Fatal(err)
	}
	second := b.put(bucket, key, "serial 2")
	source := bucket + "/" + strings.ReplaceAll(escape(key), "+", "%2B") + "?versionId=" + *first.VersionId
	out, err := b.s3.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &bucket, Key: aws.String(key), CopySource: &source})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.get(bucket, key, ""); got != "serial 1" {
		t.Errorf("after the copy: %q", got)
	}
	if aws.ToString(out.CopySourceVersionId) != *first.VersionId || aws.ToString(out.VersionId) == *first.VersionId || *out.CopyObjectResult.ETag != *first.ETag {
		t.Errorf("copy answered %+v %+v", out, out.CopyObjectResult)
	}
	if got := b.get(bucket, key, second); got != "serial 2" {
		t.Errorf("the version copied over: %q", got)
	}
	head, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String(key)})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(head.ContentType) != "application/json" || head.Metadata["who"] != "ci" {
		t.Errorf("headers were not copied: %v %v", head.ContentType, head.Metadata)
	}

	// The copy holds its bytes itself: the source may go.
	must(t)(b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String(key), VersionId: first.VersionId}))
	b.put(bucket, "other", "a later write that sweeps")
	if got := b.get(bucket, key, *out.VersionId); got != "serial 1" {
		t.Errorf("copy after its source was deleted: %q", got)
	}
}

// escape is how clients write a key into a path or a copy source.
func escape(key string) string {
	var s strings.Builder
	for _, c := range []byte(key) {
		if c == '/' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "%%%02X", c)
		}
	}
	return s.String()
}

func TestCopyConditions(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	v := b.put(bucket, "from", "content")
	b.put(bucket, "taken", "x")
	b.put(bucket, "gone", "x")
	b.remove(bucket, "gone")
	sum := md5.Sum([]byte("content"))
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	for _, c := range []struct {
		name string
		in   s3.CopyObjectInput
		want string
	}{
		{"the right source ETag", s3.CopyObjectInput{CopySourceIfMatch: &etag}, ""},
		{"another source ETag", s3.CopyObjectInput{CopySourceIfMatch: aws.String(`"00"`)}, "PreconditionFailed"},
		{"if-none-match with the source's ETag", s3.CopyObjectInput{CopySourceIfNoneMatch: &etag}, "PreconditionFailed"},
		{"source unchanged since tomorrow", s3.CopyObjectInput{CopySourceIfModifiedSince: aws.Time(time.Now().AddDate(0, 0, 1))}, "PreconditionFailed"},
		{"destination must be new and is not", s3.CopyObjectInput{Key: aws.String("taken"), IfNoneMatch: aws.String("*")}, "PreconditionFailed"},
		{"destination must be new and is", s3.CopyObjectInput{Key: aws.String("new"), IfNoneMatch: aws.String("*")}, ""},
		{"onto itself with nothing changed", s3.CopyObjectInput{Key: aws.String("from")}, "InvalidRequest"},
		{"onto itself with other metadata", s3.CopyObjectInput{Key: aws.String("from"), MetadataDirective: "REPLACE"}, ""},
		{"no such source", s3.CopyObjectInput{CopySource: aws.String("states/nothing")}, "NoSuchKey"},
		{"a deleted source", s3.CopyObjectInput{CopySource: aws.String("states/gone")}, "NoSuchKey"},
		{"no such source bucket", s3.CopyObjectInput{CopySource: aws.String("nowhere/from")}, "NoSuchBucket"},
		{"no such source version", s3.CopyObjectInput{CopySource: aws.String("states/from?versionId=" + versionID(99))}, "NoSuchVersion"},
		{"a source with a leading slash", s3.CopyObjectInput{CopySource: aws.String("/states/from?versionId=" + v)}, ""},
		{"a source without a key", s3.CopyObjectInput{CopySource: aws.String("states")}, "InvalidArgument"},
	} {
		in := c.in
		in.Bucket = &bucket
		if in.Key == nil {
			in.Key = aws.String("to")
		}
		if in.CopySource == nil {
			in.CopySource = aws.String("states/from")
		}
		if _, err := b.s3.CopyObject(t.Context(), &in); code(err) != c.want {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// chunks encodes a body as aws-chunked, in chunks of n bytes.
func chunks(body string, n int, signed bool, trailers ...string) string {
	var s strings.Builder
	head := func(size int) {
		fmt.Fprintf(&s, "%x", size)
		if signed {
			s.WriteString(";chunk-signature=" + strings.Repeat("a", 64))
		}
		s.WriteString("\r\n")
	}
	for len(body) > 0 {
		c := body[:min(n, len(body))]
		head(len(c))
		s.WriteString(c + "\r\n")
		body = body[len(c):]
	}
	head(0)
	for _, t := range trailers {
		s.WriteString(t + "\r\n")
	}
	s.WriteString("\r\n")
	return s.String()
}

// gofakes3 stored the chunk headers and trailers as part of the object.
func TestTrailerBodies(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	body := strings.Repeat("state ", 100_000) // above what is kept in memory
	h := crc32.ChecksumIEEE([]byte(body))
	sum := base64.StdEncoding.EncodeToString([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)})
	const unsigned, signed, both = "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	length := fmt.Sprint(len(body))
	for _, c := range []struct {
		name, kind, body, length, trailer, want string
	}{
		{"unsigned with trailer", unsigned, chunks(body, 70_000, false, "x-amz-checksum-crc32:"+sum), length, "x-amz-checksum-crc32", ""},
		{"signed", signed, chunks(body, 65_536, true), length, "", ""},
		{"signed with trailer", both, chunks(body, 9_000, true, "x-amz-checksum-crc32:"+sum, "x-amz-trailer-signature:"+strings.Repeat("b", 64)), length, "x-amz-checksum-crc32", ""},
		{"wrong trailer", unsigned, chunks(body, 70_000, false, "x-amz-checksum-crc32:AAAAAA=="), length, "x-amz-checksum-crc32", "BadDigest"},
		{"no trailer though announced", unsigned, chunks(body, 70_000, false), length, "x-amz-checksum-crc32", "MalformedTrailerError"},
		{"fewer bytes than stated", unsigned, chunks(body, 70_000, false), fmt.Sprint(len(body) + 1), "", "IncompleteBody"},
		{"cut off in a chunk", unsigned, chunks(body, 70_000, false)[:80_000], length, "", "IncompleteBody"},
		{"no last chunk", unsigned, strings.TrimSuffix(chunks(body, 70_000, false), "0\r\n\r\n"), length, "", "IncompleteBody"},
		{"no chunk header", unsigned, body, length, "", "InvalidRequest"},
		{"no decoded length", unsigned, chunks(body, 70_000, false), "", "", "MissingContentLength"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := "/states/" + escape(c.name)
			res, answer := b.do("PUT", key, strings.NewReader(c.body), "x-amz-content-sha256", c.kind, "x-amz-decoded-content-length", c.length,
				"Content-Encoding", "aws-chunked,gzip", "x-amz-trailer", c.trailer)
			if c.want != "" {
				if got := xmlCode(t, answer); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				if res, _ := b.do("HEAD", key, nil); res.StatusCode != http.StatusNotFound {
					t.Errorf("the refused object is there: %s", res.Status)
				}
				return
			}
			if res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", res.Status, answer)
			}
			res, got := b.do("GET", key, nil, "x-amz-checksum-mode", "ENABLED", "Accept-Encoding", "identity")
			if got != body {
				t.Errorf("%d bytes came back, want %d", len(got), len(body))
			}
			if e := res.Header.Get("Content-Encoding"); e != "gzip" {
				t.Errorf("Content-Encoding %q, want gzip", e)
			}
			if c.trailer != "" && res.Header.Get(c.trailer) != sum {
				t.Errorf("checksum of the trailer not kept: %v", res.Header)
			}
		})
	}
}

// Every digest that a client states is checked before anything is stored, and
// the checksum comes back.
func TestDigests(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	for _, a := range types.ChecksumAlgorithm("").Values() {
		if checksums[string(a)] == nil {
			continue // newer than the sandbox, and refused by it
		}
		key := "sum-" + string(a)
		out, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("123456789"), ChecksumAlgorithm: a})
		if err != nil {
			t.Errorf("put with %s: %v", a, err)
			continue
		}
		got, err := b.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(got.Body); err != nil { // the SDK compares
			t.Errorf("%s: %v", a, err)
		}
		for _, pair := range [][2]*string{{out.ChecksumCRC32, got.ChecksumCRC32}, {out.ChecksumCRC32C, got.ChecksumCRC32C},
			{out.ChecksumCRC64NVME, got.ChecksumCRC64NVME}, {out.ChecksumSHA1, got.ChecksumSHA1}, {out.ChecksumSHA256, got.ChecksumSHA256}} {
			if aws.ToString(pair[0]) != aws.ToString(pair[1]) {
				t.Errorf("%s: put said %q, get %q", a, aws.ToString(pair[0]), aws.ToString(pair[1]))
			}
		}
	}
	// The check value of CRC-64/NVME, which the SDK above does not compute.
	if got, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("sum-CRC64NVME"), ChecksumMode: types.ChecksumModeEnabled}); err != nil || aws.ToString(got.ChecksumCRC64NVME) != "rosUhgp5mIg=" {
		t.Errorf("CRC64NVME: %v %v", got, err)
	}

	good := sha256.Sum256([]byte("body"))
	for _, c := range []struct {
		name, header, value, want string
	}{
		{"wrong MD5", "Content-Md5", base64.StdEncoding.EncodeToString(make([]byte, 16)), "BadDigest"},
		{"no MD5", "Content-Md5", "nonsense", "InvalidDigest"},
		{"wrong SHA-256 of the payload", "x-amz-content-sha256", strings.Repeat("0", 64), "XAmzContentSHA256Mismatch"},
		{"right SHA-256 of the payload", "x-amz-content-sha256", hex.EncodeToString(good[:]), ""},
		{"wrong checksum", "x-amz-checksum-sha256", base64.StdEncoding.EncodeToString(make([]byte, 32)), "BadDigest"},
		{"no checksum", "x-amz-checksum-sha256", "nonsense", "InvalidRequest"},
	} {
		res, answer := b.do("PUT", "/states/digest", strings.NewReader("body"), c.header, c.value)
		if c.want == "" && res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", c.name, answer)
		}
		if c.want != "" && xmlCode(t, answer) != c.want {
			t.Errorf("%s: got %s, want %s", c.name, answer, c.want)
		}
	}
}

// Keys are what the client sent, byte for byte: nothing cleans them.
func TestKeys(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	keys := []string{
		"plain", "env:/staging/terraform.tfstate", "a b", "a+b", "a%20b", "a%2Fb", "..", "../up", "a/../b", "a//b", "/leading", "trailing/",
		"état/日本/🙂", "q?x=1&y", "#hash", `quo"te'<&>`, "tab\tnewline\n", "a\\b", ".", "./dot", strings.Repeat("k", maxKey), "~tilde=;:@,$",
	}
	for _, k := range keys {
		b.put(bucket, k, "body of "+k)
	}
	for _, k := range keys {
		if got := b.get(bucket, k, ""); got != "body of "+k {
			t.Errorf("%q: got %q", k, got)
		}
	}
	listed := make(map[string]bool)
	p := s3.NewListObjectsV2Paginator(b.s3, &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: aws.Int32(3)})
	for p.HasMorePages() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			listed[*o.Key] = true
		}
	}
	for _, k := range keys {
		if !listed[k] {
			t.Errorf("%q is not in the listing", k)
		}
	}
	if len(listed) != len(keys) {
		t.Errorf("%d keys listed, want %d", len(listed), len(keys))
	}
	_, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(strings.Repeat("k", maxKey+1)), Body: strings.NewReader("")})
	wantCode(t, err, "KeyTooLongError")
	for _, path := range []string{"/states/nul%00", "/states/%ff"} {
		if _, body := b.do("PUT", path, nil); xmlCode(t, body) != "InvalidURI" {
			t.Errorf("PUT %s: %s", path, body)
		}
	}
}

func TestGetVersionsAndMarkers(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	one := b.put(bucket, "k", "one")
	two := b.put(bucket, "k", "two")
	out, err := b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k")})
	if err != nil || !aws.ToBool(out.DeleteMarker) {
		t.Fatal(out, err)
	}
	marker := *out.VersionId
	if got := b.get(bucket, "k", one) + b.get(bucket, "k", two); got != "onetwo" {
		t.Errorf("versions: %q", got)
	}
	for _, c := range []struct {
		name, target, want string
		status             int
		marker             string
	}{
		{"current is a marker", "/states/k", "NoSuchKey", 404, "true"},
		{"never was", "/states/other", "NoSuchKey", 404, ""},
		{"the marker by its version", "/states/k?versionId=" + marker, "MethodNotAllowed", 405, "true"},
		{"a version that is not there", "/states/k?versionId=" + versionID(1), "NoSuchVersion", 404, ""},
		{"another key's version", "/states/other?versionId=" + one, "NoSuchVersion", 404, ""},
		{"the null version", "/states/k?versionId=null", "NoSuchVersion", 404, ""},
		{"no version ID at all", "/states/k?versionId=nonsense", "InvalidArgument", 400, ""},
		{"an empty version ID", "/states/k?versionId=", "InvalidArgument", 400, ""},
		{"no such bucket", "/nothing/k", "NoSuchBucket", 404, ""},
	} {
		res, body := b.do("GET", c.target, nil)
		if res.StatusCode != c.status || xmlCode(t, body) != c.want || res.Header.Get("x-amz-delete-marker") != c.marker {
			t.Errorf("%s: %s %s (marker %q)", c.name, res.Status, body, res.Header.Get("x-amz-delete-marker"))
		}
		if head, body := b.do("HEAD", c.target, nil); head.StatusCode != c.status || body != "" {
			t.Errorf("%s: HEAD gives %s %q", c.name, head.Status, body)
		}
	}
	if res, _ := b.do("GET", "/states/k?versionId="+marker, nil); res.Header.Get("Last-Modified") == "" || res.Header.Get("Allow") != "DELETE" {
		t.Errorf("405 without its headers: %v", res.Header)
	}
	// Deleting the marker brings the object back.
	del, err := b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k"), VersionId: &marker})
	if err != nil || !aws.ToBool(del.DeleteMarker) || *del.VersionId != marker {
		t.Fatal(del, err)
	}
	if got := b.get(bucket, "k", ""); got != "two" {
		t.Errorf("after the marker was deleted: %q", got)
	}
}

// In a bucket whose versioning is off or suspended there is one null version.
func TestNullVersions(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	if v := b.put(bucket, "k", "before"); v != "" {
		t.Errorf("version %q in an unversioned bucket", v)
	}
	b.versioning(bucket, types.BucketVersioningStatusEnabled)
	first := b.put(bucket, "k", "enabled")
	if got := b.get(bucket, "k", "null"); got != "before" {
		t.Errorf("null version: %q", got)
	}
	b.versioning(bucket, types.BucketVersioningStatusSuspended)
	if v := b.put(bucket, "k", "suspended"); v != "null" {
		t.Errorf("version %q in a suspended bucket", v)
	}
	if got := b.get(bucket, "k", "null") + b.get(bucket, "k", first); got != "suspendedenabled" {
		t.Errorf("null version, then the enabled one: %q", got)
	}
	out, err := b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k")})
	if err != nil || *out.VersionId != "null" || !aws.ToBool(out.DeleteMarker) {
		t.Errorf("delete in a suspended bucket: %+v %v", out, err)
	}
	list, err := b.s3.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
	if err != nil || len(list.Versions) != 1 || *list.Versions[0].VersionId != first || len(list.DeleteMarkers) != 1 {
		t.Errorf("left: %+v %v", list, err)
	}
}

func TestReadConditionsAndRanges(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	b.put("states", "k", "0123456789")
	b.put("states", "empty", "")
	sum := md5.Sum([]byte("0123456789"))
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	old, young := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		name, key  string
		header     []string
		status     int
		want, rang string
	}{
		{"if-match", "k", []string{"If-Match", etag}, 200, "0123456789", ""},
		{"if-match of another", "k", []string{"If-Match", `"00"`}, 412, "", ""},
		{"if-none-match", "k", []string{"If-None-Match", etag}, 304, "", ""},
		{"if-none-match of another", "k", []string{"If-None-Match", `"00"`}, 200, "0123456789", ""},
		{"modified since", "k", []string{"If-Modified-Since", old}, 200, "0123456789", ""},
		{"not modified since", "k", []string{"If-Modified-Since", young}, 304, "", ""},
		{"unmodified since", "k", []string{"If-Unmodified-Since", young}, 200, "0123456789", ""},
		{"not unmodified since", "k", []string{"If-Unmodified-Since", old}, 412, "", ""},
		{"if-match beats unmodified since", "k", []string{"If-Match", etag, "If-Unmodified-Since", old}, 200, "0123456789", ""},
		{"range", "k", []string{"Range", "bytes=2-4"}, 206, "234", "bytes 2-4/10"},
		{"range to the end", "k", []string{"Range", "bytes=7-"}, 206, "789", "bytes 7-9/10"},
		{"range beyond the end", "k", []string{"Range", "bytes=8-99"}, 206, "89", "bytes 8-9/10"},
		{"last bytes", "k", []string{"Range", "bytes=-3"}, 206, "789", "bytes 7-9/10"},
		{"more last bytes than there are", "k", []string{"Range", "bytes=-30"}, 206, "0123456789", "bytes 0-9/10"},
		{"range outside", "k", []string{"Range", "bytes=10-"}, 416, "", "bytes */10"},
		{"range of an empty object", "empty", []string{"Range", "bytes=0-"}, 416, "", "bytes */0"},
		{"range upside down is none", "k", []string{"Range", "bytes=4-2"}, 200, "0123456789", ""},
		{"several ranges are none", "k", []string{"Range", "bytes=0-1,3-4"}, 200, "0123456789", ""},
		{"no unit", "k", []string{"Range", "0-1"}, 200, "0123456789", ""},
		{"first part", "k?partNumber=1", nil, 206, "0123456789", "bytes 0-9/10"},
		{"second part of one", "k?partNumber=2", nil, 416, "", ""},
	} {
		res, body := b.do("GET", "/states/"+c.key, nil, c.header...)
		if res.StatusCode != c.status || res.Header.Get("Content-Range") != c.rang || c.status < 300 && body != c.want {
			t.Errorf("%s: %s %q (Content-Range %q)", c.name, res.Status, body, res.Header.Get("Content-Range"))
		}
		if c.status == 304 && (body != "" || res.Header.Get("ETag") != etag) {
			t.Errorf("%s: 304 with %q, ETag %q", c.name, body, res.Header.Get("ETag"))
		}
	}
}

func TestStoredHeaders(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	must(t)(b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: strings.NewReader("x"),
		CacheControl: aws.String("no-store"), ContentDisposition: aws.String("inline"), ContentLanguage: aws.String("en"),
		Metadata: map[string]string{"lineage": "abc"}, StorageClass: types.StorageClassStandardIa,
		ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: aws.String("arn:aws:kms:us-east-1:000000000000:key/k"),
		Tagging: aws.String("a=1&b=two%20words")}))
	h, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(*h.CacheControl, *h.ContentDisposition, *h.ContentLanguage, h.Metadata, h.StorageClass, h.ServerSideEncryption, *h.SSEKMSKeyId, *h.TagCount)
	if want := "no-storeinlineen" + "map[lineage:abc]STANDARD_IAaws:kmsarn:aws:kms:us-east-1:000000000000:key/k2"; strings.ReplaceAll(got, " ", "") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if sum := md5.Sum([]byte("x")); strings.Contains(*h.ETag, hex.EncodeToString(sum[:])) {
		t.Error("the ETag of a KMS object is the MD5 of its content, which it is not in S3")
	}
	if res, _ := b.do("GET", "/states/k?response-content-type=text/x", nil); res.Header.Get("Content-Type") != "text/x" {
		t.Errorf("response-content-type: %v", res.Header)
	}
	if res, _ := b.do("GET", "/states/k", nil); res.Header.Get("x-amz-request-id") == "" || res.Header.Get("Date") == "" {
		t.Errorf("no request ID or date: %v", res.Header)
	}
}

// Terraform's own read of .tflock lacks the key: that must fail here as there.
func TestCustomerKeys(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	key := func(prefix string, c byte) []string {
		raw := bytes.Repeat([]byte{c}, 32)
		sum := md5.Sum(raw)
		p := "x-amz-" + prefix + "server-side-encryption-customer-"
		return []string{p + "algorithm", "AES256", p + "key", base64.StdEncoding.EncodeToString(raw), p + "key-md5", base64.StdEncoding.EncodeToString(sum[:])}
	}
	if res, body := b.do("PUT", "/states/k", strings.NewReader("secret"), key("", 1)...); res.StatusCode != 200 {
		t.Fatal(body)
	}
	b.put("states", "open", "x")
	copied := append(key("copy-source-", 1), "x-amz-copy-source", "states/k")
	for _, c := range []struct {
		name, method, key string
		header            []string
		status            int
	}{
		{"without the key", "GET", "k", nil, 400},
		{"HEAD without the key", "HEAD", "k", nil, 400},
		{"with another key", "GET", "k", key("", 2), 403},
		{"with the key", "GET", "k", key("", 1), 200},
		{"a key for what has none", "GET", "open", key("", 1), 400},
		{"half a key", "GET", "k", key("", 1)[:4], 400},
		{"copy without the key", "PUT", "copy", []string{"x-amz-copy-source", "states/k"}, 400},
		{"copy with the key", "PUT", "copy", copied, 200},
		{"the copy has no key", "GET", "copy", nil, 200},
	} {
		if res, body := b.do(c.method, "/states/"+c.key, nil, c.header...); res.StatusCode != c.status {
			t.Errorf("%s: %s %s", c.name, res.Status, body)
		}
	}
}

// Of many writers that all demand to be the first, one is.
func TestOneConditionalPutWins(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	for round := range 3 {
		var wg sync.WaitGroup
		results := make([]string, 50)
		for i := range results {
			wg.Go(func() {
				_, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("lock"), Body: strings.NewReader(fmt.Sprint(i)), IfNoneMatch: aws.String("*")})
				results[i] = code(err)
			})
		}
		wg.Wait()
		won := -1
		for i, r := range results {
			switch {
			case r == "" && won >= 0:
				t.Errorf("round %d: both %d and %d won", round, won, i)
			case r == "":
				won = i
			case r != "PreconditionFailed":
				t.Errorf("round %d: writer %d: %s", round, i, r)
			}
		}
		if got := b.get(bucket, "lock", ""); got != fmt.Sprint(won) {
			t.Errorf("round %d: %d won and %s is stored", round, won, got)
		}
		b.remove(bucket, "lock")
	}
}

// slow is a client that lets something happen after its first bytes.
type slow struct {
	*httptest.ResponseRecorder
	once func()
}

func (w *slow) Write(p []byte) (int, error) {
	n, err := w.ResponseRecorder.Write(p)
	w.once()
	return n, err
}

// A reader gets the version it began with, whole, whatever happens meanwhile.
func TestReadWhileReplaced(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	big := random(3 << 20)
	must(t)(b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: bytes.NewReader(big)}))
	r := httptest.NewRequest("GET", "http://localhost/states/k", nil)
	r.Header.Set("Authorization", "x")
	w := &slow{httptest.NewRecorder(), sync.OnceFunc(func() {
		for i := range 5 {
			b.put(bucket, "k", fmt.Sprint("replaced ", i))
		}
		b.remove(bucket, "k")
		b.put(bucket, "other", "0")
	})}
	b.srv.ServeHTTP(w, r)
	if !bytes.Equal(w.Body.Bytes(), big) {
		t.Errorf("%d bytes read are not the %d that were there", w.Body.Len(), len(big))
	}
	// Once nobody reads, what is loose is freed.
	b.put(bucket, "other", "1")
	b.put(bucket, "other", "2")
	if n := b.count(rootChunks); n > 2 {
		t.Errorf("%d chunks in the file, want what two small bodies need", n)
	}
}

// count is how many keys a top-level bucket of the file has.
func (b *box) count(root []byte) (n int) {
	b.t.Helper()
	if err := b.srv.store.view(func(t *tx) error {
		n = t.Bucket(root).Stats().KeyN
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestObjectLock(t *testing.T) {
	b := newBox(t)
	bucket := "vault"
	must(t)(b.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket, ObjectLockEnabledForBucket: aws.Bool(true)}))
	clock := time.Now()
	b.srv.now = func() time.Time { return clock }
	until := clock.Add(48 * time.Hour)
	put := func(mode types.ObjectLockMode, hold types.ObjectLockLegalHoldStatus) *string {
		t.Helper()
		in := &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: strings.NewReader("x"), ObjectLockMode: mode, ObjectLockLegalHoldStatus: hold}
		if mode != "" {
			in.ObjectLockRetainUntilDate = &until
		}
		out, err := b.s3.PutObject(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return out.VersionId
	}
	del := func(v *string, bypass bool) error {
		_, err := b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k"), VersionId: v, BypassGovernanceRetention: &bypass})
		return err
	}
	compliance, governance, held, free := put("COMPLIANCE", ""), put("GOVERNANCE", ""), put("", "ON"), put("", "")
	wantCode(t, del(nil, false), "") // a delete marker is always allowed
	wantCode(t, del(free, false), "")
	wantCode(t, del(compliance, true), "AccessDenied")
	wantCode(t, del(governance, false), "AccessDenied")
	wantCode(t, del(held, true), "AccessDenied")
	must(t)(b.s3.PutObjectLegalHold(t.Context(), &s3.PutObjectLegalHoldInput{Bucket: &bucket, Key: aws.String("k"), VersionId: held, LegalHold: &types.ObjectLockLegalHold{Status: "OFF"}}))
	wantCode(t, del(held, false), "")
	_, err := b.s3.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{Bucket: &bucket, Key: aws.String("k"), VersionId: compliance, BypassGovernanceRetention: aws.Bool(true),
		Retention: &types.ObjectLockRetention{Mode: "COMPLIANCE", RetainUntilDate: aws.Time(clock.Add(time.Hour))}})
	wantCode(t, err, "AccessDenied")
	wantCode(t, del(governance, true), "")
	clock = clock.Add(72 * time.Hour)
	wantCode(t, del(compliance, false), "")

	// The bucket's default retention is for what comes later.
	must(t)(b.s3.PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{Bucket: &bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{
		ObjectLockEnabled: "Enabled", Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: "COMPLIANCE", Days: aws.Int32(1)}}}}))
	v := put("", "")
	wantCode(t, del(v, false), "AccessDenied")
	r, err := b.s3.GetObjectRetention(t.Context(), &s3.GetObjectRetentionInput{Bucket: &bucket, Key: aws.String("k"), VersionId: v})
	if err != nil || !r.Retention.RetainUntilDate.Equal(clock.AddDate(0, 0, 1).Truncate(time.Second)) {
		t.Errorf("default retention: %+v %v", r, err)
	}
	_, err = b.s3.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: "Suspended"}})
	wantCode(t, err, "InvalidBucketState")
	plain := b.bucket("plain", "")
	_, err = b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &plain, Key: aws.String("k"), ObjectLockLegalHoldStatus: "ON"})
	wantCode(t, err, "InvalidRequest")
}

func TestObjectTags(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	v := b.put(bucket, "k", "x")
	b.put(bucket, "k", "y")
	must(t)(b.s3.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: &bucket, Key: aws.String("k"), VersionId: &v, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}}}))
	for version, want := range map[string]int{v: 1, "": 0} {
		in := &s3.GetObjectTaggingInput{Bucket: &bucket, Key: aws.String("k")}
		if version != "" {
			in.VersionId = &version
		}
		out, err := b.s3.GetObjectTagging(t.Context(), in)
		if err != nil || len(out.TagSet) != want {
			t.Errorf("version %q: %v %v", version, out, err)
		}
	}
	must(t)(b.s3.DeleteObjectTagging(t.Context(), &s3.DeleteObjectTaggingInput{Bucket: &bucket, Key: aws.String("k"), VersionId: &v}))
	_, err := b.s3.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: &bucket, Key: aws.String("k"), Tagging: &types.Tagging{TagSet: []types.Tag{
		{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("a"), Value: aws.String("2")}}}})
	wantCode(t, err, "InvalidTag")
}
