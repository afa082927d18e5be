package sandbox

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// A state above 5 MiB comes in parts, also from terraform.
func TestTerraformLargeState(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	dir := t.TempDir()
	config := `
terraform {
  backend "s3" {
    bucket         = "states"
    key            = "large"
    region         = "us-east-1"
    use_path_style = true
    use_lockfile   = true
  }
}
resource "terraform_data" "it" { input = file("content") }
output "sum" { value = md5(terraform_data.it.output) }
`
	content := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16)
	for name, data := range map[string][]byte{"main.tf": []byte(config), "content": content} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.mustTerraform(dir, "init", "-no-color")
	b.mustTerraform(dir, "apply", "-auto-approve", "-no-color")
	sum := md5.Sum(content)
	if out := b.mustTerraform(dir, "output", "-raw", "sum"); !strings.Contains(out, hex.EncodeToString(sum[:])) {
		t.Errorf("the content's MD5 is %s", out)
	}
	head, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("large")})
	if err != nil || !strings.Contains(*head.ETag, "-") {
		t.Errorf("the state was not written in parts: %v %v", head, err)
	}
}

// begin starts an upload and sends the parts.
func (b *box) begin(bucket, key string, in *s3.CreateMultipartUploadInput, parts ...[]byte) (*string, []types.CompletedPart) {
	b.t.Helper()
	in.Bucket, in.Key = &bucket, &key
	up, err := b.s3.CreateMultipartUpload(b.t.Context(), in)
	if err != nil {
		b.t.Fatal(err)
	}
	var done []types.CompletedPart
	for i, p := range parts {
		n := aws.Int32(int32(i + 1))
		out, err := b.s3.UploadPart(b.t.Context(), &s3.UploadPartInput{Bucket: &bucket, Key: &key, UploadId: up.UploadId, PartNumber: n, Body: bytes.NewReader(p), ChecksumAlgorithm: in.ChecksumAlgorithm})
		if err != nil {
			b.t.Fatal(err)
		}
		done = append(done, types.CompletedPart{PartNumber: n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumSHA256: out.ChecksumSHA256})
	}
	return up.UploadId, done
}

func (b *box) complete(bucket, key string, id *string, parts []types.CompletedPart, edit ...func(*s3.CompleteMultipartUploadInput)) (*s3.CompleteMultipartUploadOutput, error) {
	in := &s3.CompleteMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}
	for _, e := range edit {
		e(in)
	}
	return b.s3.CompleteMultipartUpload(b.t.Context(), in)
}

func TestMultipart(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	one, two := random(minPart), random(1000)
	whole := append(bytes.Clone(one), two...)
	id, parts := b.begin(bucket, "big", &s3.CreateMultipartUploadInput{Metadata: map[string]string{"a": "b"}}, one, two)

	_, err := b.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("big")})
	wantCode(t, err, "NotFound")
	var listed []int32
	p := s3.NewListPartsPaginator(b.s3, &s3.ListPartsInput{Bucket: &bucket, Key: aws.String("big"), UploadId: id, MaxParts: aws.Int32(1)})
	for p.HasMorePages() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Parts {
			listed = append(listed, *e.PartNumber)
		}
	}
	if fmt.Sprint(listed) != "[1 2]" {
		t.Errorf("parts listed: %v", listed)
	}

	_, err = b.complete(bucket, "big", id, []types.CompletedPart{parts[1], parts[0]})
	wantCode(t, err, "InvalidPartOrder")
	_, err = b.complete(bucket, "big", id, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: aws.String(`"00"`)}})
	wantCode(t, err, "InvalidPart")
	_, err = b.complete(bucket, "big", id, []types.CompletedPart{parts[0], {PartNumber: aws.Int32(3), ETag: parts[1].ETag}})
	wantCode(t, err, "InvalidPart")
	_, err = b.complete(bucket, "other", id, parts)
	wantCode(t, err, "NoSuchUpload")

	out, err := b.complete(bucket, "big", id, parts)
	if err != nil {
		t.Fatal(err)
	}
	s1, s2 := md5.Sum(one), md5.Sum(two)
	if want := fmt.Sprintf(`"%x-2"`, md5.Sum(append(s1[:], s2[:]...))); *out.ETag != want {
		t.Errorf("ETag %s, want %s", *out.ETag, want)
	}
	if got := b.get(bucket, "big", *out.VersionId); got != string(whole) {
		t.Error("the object is not its parts")
	}
	get, err := b.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("big"), Range: aws.String(fmt.Sprintf("bytes=%d-%d", minPart-5, minPart+4))})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(get.Body); !bytes.Equal(got, whole[minPart-5:minPart+5]) || get.Metadata["a"] != "b" {
		t.Errorf("a range over two parts: %x", got)
	}
	get, err = b.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("big"), PartNumber: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(get.Body); !bytes.Equal(got, two) || *get.PartsCount != 2 {
		t.Errorf("part 2 of %v: %d bytes", get.PartsCount, len(got))
	}
	_, err = b.complete(bucket, "big", id, parts)
	wantCode(t, err, "NoSuchUpload")

	// A copy of it is one object: its ETag is its MD5 again.
	cp, err := b.s3.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &bucket, Key: aws.String("copy"), CopySource: aws.String("states/big")})
	if want := fmt.Sprintf(`"%x"`, md5.Sum(whole)); err != nil || *cp.CopyObjectResult.ETag != want {
		t.Errorf("copy: %+v %v, want %s", cp, err, want)
	}
}

func TestMultipartConditionsAndSizes(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	big := random(minPart)
	b.put(bucket, "there", "x")
	id, parts := b.begin(bucket, "there", &s3.CreateMultipartUploadInput{}, big, []byte("end"))
	_, err := b.complete(bucket, "there", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = aws.String("*") })
	wantCode(t, err, "PreconditionFailed")
	_, err = b.complete(bucket, "there", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfMatch = aws.String(`"00"`) })
	wantCode(t, err, "PreconditionFailed")
	_, err = b.complete(bucket, "there", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.MpuObjectSize = aws.Int64(5) })
	wantCode(t, err, "InvalidRequest")
	if got := b.get(bucket, "there", ""); got != "x" {
		t.Errorf("after refused completions: %q", got)
	}
	_, err = b.complete(bucket, "there", id, parts)
	wantCode(t, err, "")

	id, parts = b.begin(bucket, "small", &s3.CreateMultipartUploadInput{}, big[1:], []byte("end"))
	_, err = b.complete(bucket, "small", id, parts)
	wantCode(t, err, "EntityTooSmall")
	id, parts = b.begin(bucket, "only", &s3.CreateMultipartUploadInput{}, []byte("one small part is the last"))
	_, err = b.complete(bucket, "only", id, parts)
	wantCode(t, err, "")
}

func TestMultipartChecksums(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	big, end := random(minPart), []byte("end")
	for _, c := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
		suffix    bool
	}{{"CRC32", "", true}, {"SHA256", "COMPOSITE", true}, {"CRC32", "FULL_OBJECT", false}, {"CRC64NVME", "", false}} {
		key := string(c.algorithm + types.ChecksumAlgorithm(c.kind))
		id, parts := b.begin(bucket, key, &s3.CreateMultipartUploadInput{ChecksumAlgorithm: c.algorithm, ChecksumType: c.kind}, big, end)
		if _, err := b.complete(bucket, key, id, parts); err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		get, err := b.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key, ChecksumMode: "ENABLED"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, get.Body); err != nil { // the SDK compares those over the whole
			t.Errorf("%s: %v", key, err)
		}
		got := aws.ToString(get.ChecksumCRC32) + aws.ToString(get.ChecksumSHA256) + aws.ToString(get.ChecksumCRC64NVME)
		if got == "" || strings.HasSuffix(got, "-2") != c.suffix {
			t.Errorf("%s: checksum %q, type %s", key, got, get.ChecksumType)
		}
	}
	_, err := b.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: aws.String("k"), ChecksumAlgorithm: "SHA256", ChecksumType: "FULL_OBJECT"})
	wantCode(t, err, "InvalidRequest")
}

func TestUploadPartCopyAndAbort(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	content := random(minPart + 100)
	src, err := b.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("src"), Body: bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := b.begin(bucket, "dst", &s3.CreateMultipartUploadInput{})
	var parts []types.CompletedPart
	for i, r := range []string{fmt.Sprintf("bytes=0-%d", minPart-1), fmt.Sprintf("bytes=%d-%d", minPart, len(content)-1)} {
		out, err := b.s3.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{Bucket: &bucket, Key: aws.String("dst"), UploadId: id, PartNumber: aws.Int32(int32(i + 1)),
			CopySource: aws.String("states/src?versionId=" + *src.VersionId), CopySourceRange: &r, CopySourceIfMatch: src.ETag})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.CopyPartResult.ETag})
	}
	if _, err := b.complete(bucket, "dst", id, parts); err != nil {
		t.Fatal(err)
	}
	if b.get(bucket, "dst", "") != string(content) {
		t.Error("the copied parts are not the object")
	}

	for _, k := range []string{"a", "a", "b/c", "d"} {
		id, _ = b.begin(bucket, k, &s3.CreateMultipartUploadInput{}, []byte("part"))
	}
	var keys []string
	in := &s3.ListMultipartUploadsInput{Bucket: &bucket, MaxUploads: aws.Int32(1), Delimiter: aws.String("/")}
	for {
		out, err := b.s3.ListMultipartUploads(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range out.Uploads {
			keys = append(keys, *u.Key)
		}
		for _, p := range out.CommonPrefixes {
			keys = append(keys, *p.Prefix)
		}
		if !aws.ToBool(out.IsTruncated) {
			break
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
	if fmt.Sprint(keys) != "[a a b/ d]" {
		t.Errorf("uploads listed: %v", keys)
	}
	must(t)(b.s3.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: aws.String("d"), UploadId: id}))
	_, err = b.s3.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: aws.String("d"), UploadId: id})
	wantCode(t, err, "NoSuchUpload")
	_, err = b.s3.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &bucket, Key: aws.String("d"), UploadId: id, PartNumber: aws.Int32(1)})
	wantCode(t, err, "NoSuchUpload")
}
