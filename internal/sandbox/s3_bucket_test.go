package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// gofakes3 read over "?policy" and deleted the bucket. Here no subresource is
// read over, known or not.
func TestDeleteSubresourceKeepsBucket(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::states","arn:aws:s3:::states/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`
	_, err := b.s3.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: &bucket})
	wantCode(t, err, "NoSuchBucketPolicy")
	must(t)(b.s3.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &policy}))
	got, err := b.s3.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: &bucket})
	if err != nil || *got.Policy != policy {
		t.Errorf("policy: %v %v", got, err)
	}
	must(t)(b.s3.DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: &bucket}))
	_, err = b.s3.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: &bucket})
	wantCode(t, err, "NoSuchBucketPolicy")

	for _, sub := range []string{"cors", "website", "replication", "metrics&id=1", "analytics", "inventory", "intelligent-tiering", "nonsense", "policy&cors", "tagging&policy"} {
		for _, target := range []string{"/states?" + sub, "/states/?" + sub} {
			if res, body := b.do("DELETE", target, nil); res.StatusCode < 400 {
				t.Errorf("DELETE %s: %s %s", target, res.Status, body)
			}
		}
	}
	must(t)(b.s3.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket}))
}

func TestUnknownOperationsAreRefused(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	_, err := b.s3.GetBucketCors(t.Context(), &s3.GetBucketCorsInput{Bucket: &bucket})
	wantCode(t, err, "NotImplemented")
	for _, c := range [][2]string{{"PATCH", "/states/k"}, {"POST", "/states/k?select&select-type=2"}, {"GET", "/states?website"}, {"GET", "/states/k?torrent"},
		{"PUT", "/states?accelerate"}, {"POST", "/states/k?restore"}, {"PUT", "/states/k?nonsense"}} {
		res, body := b.do(c[0], c[1], nil)
		if res.StatusCode != http.StatusNotImplemented || xmlCode(t, body) != "NotImplemented" {
			t.Errorf("%s %s: %s %s", c[0], c[1], res.Status, body)
		}
	}
}

func TestBuckets(t *testing.T) {
	b := newBox(t)
	ctx := t.Context()
	bucket := b.bucket("one", "")
	_, err := b.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
	wantCode(t, err, "BucketAlreadyOwnedByYou")
	for _, name := range []string{"ab", "UPPER", "under_score", "-dash", "two..dots", "192.168.0.1", strings.Repeat("x", 64)} {
		if res, body := b.do("PUT", "/"+name, nil); res.StatusCode != 400 || xmlCode(t, body) != "InvalidBucketName" {
			t.Errorf("bucket %q: %s %s", name, res.Status, body)
		}
	}
	head, err := b.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket, ExpectedBucketOwner: aws.String(AccountID)})
	if err != nil || *head.BucketRegion != Region {
		t.Errorf("HeadBucket: %+v %v", head, err)
	}
	_, err = b.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket, ExpectedBucketOwner: aws.String("111111111111")})
	if status(err) != http.StatusForbidden {
		t.Errorf("HeadBucket for another owner: %v", err)
	}
	_, err = b.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String("nothing")})
	if status(err) != http.StatusNotFound {
		t.Errorf("HeadBucket of nothing: %v", err)
	}

	in := func(region, constraint string) error {
		in := &s3.CreateBucketInput{Bucket: aws.String("in-" + region + "." + constraint + "x")}
		if constraint != "" {
			in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(constraint)}
		}
		_, err := b.s3.CreateBucket(ctx, in, func(o *s3.Options) { o.Region = region })
		return err
	}
	wantCode(t, in("eu-west-1", "eu-west-1"), "")
	wantCode(t, in("eu-west-1", ""), "IllegalLocationConstraintException")
	wantCode(t, in("eu-west-1", "eu-west-3"), "IllegalLocationConstraintException")
	wantCode(t, in("us-east-1", "us-east-1"), "InvalidLocationConstraint")
	loc, err := b.s3.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: aws.String("in-eu-west-1.eu-west-1x")})
	if err != nil || loc.LocationConstraint != "eu-west-1" {
		t.Errorf("location: %v %v", loc, err)
	}
	if loc, err = b.s3.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: &bucket}); err != nil || loc.LocationConstraint != "" {
		t.Errorf("location in us-east-1: %v %v", loc, err)
	}

	b.bucket("three", "")
	b.bucket("two", "")
	var names []string
	p := s3.NewListBucketsPaginator(b.s3, &s3.ListBucketsInput{MaxBuckets: aws.Int32(2)})
	for p.HasMorePages() {
		page, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Buckets {
			names = append(names, *e.Name)
		}
	}
	if got := fmt.Sprint(names); got != "[in-eu-west-1.eu-west-1x one three two]" {
		t.Errorf("listed %s", got)
	}

	b.versioning(bucket, types.BucketVersioningStatusEnabled)
	v := b.put(bucket, "k", "x")
	b.remove(bucket, "k")
	_, err = b.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket})
	wantCode(t, err, "BucketNotEmpty")
	list, err := b.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []*string{&v, list.DeleteMarkers[0].VersionId} {
		must(t)(b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k"), VersionId: id}))
	}
	must(t)(b.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}))
	_, err = b.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket})
	wantCode(t, err, "NoSuchBucket")
}

// What a new bucket has without being asked, and what each setting gives back.
func TestBucketSettings(t *testing.T) {
	b := newBox(t)
	ctx := t.Context()
	bucket := b.bucket("states", "")

	enc, err := b.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket})
	if err != nil || enc.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm != "AES256" {
		t.Errorf("default encryption: %v %v", enc, err)
	}
	must(t)(b.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &bucket, ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{
		Rules: []types.ServerSideEncryptionRule{{BucketKeyEnabled: aws.Bool(true), ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: "aws:kms", KMSMasterKeyID: aws.String("alias/k")}}}}}))
	if enc, err = b.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket}); err != nil || *enc.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.KMSMasterKeyID != "alias/k" {
		t.Errorf("encryption: %v %v", enc, err)
	}
	out, err := b.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k")})
	if err != nil || out.ServerSideEncryption != "aws:kms" || *out.SSEKMSKeyId != "alias/k" || !*out.BucketKeyEnabled {
		t.Errorf("object in a bucket with KMS: %+v %v", out, err)
	}
	must(t)(b.s3.DeleteBucketEncryption(ctx, &s3.DeleteBucketEncryptionInput{Bucket: &bucket}))

	block, err := b.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket})
	if err != nil || !*block.PublicAccessBlockConfiguration.RestrictPublicBuckets {
		t.Errorf("public access block of a new bucket: %v %v", block, err)
	}
	public := `{"Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::states/*"}}`
	_, err = b.s3.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &public})
	wantCode(t, err, "AccessDenied")
	must(t)(b.s3.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: &bucket}))
	_, err = b.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket})
	wantCode(t, err, "NoSuchPublicAccessBlockConfiguration")
	must(t)(b.s3.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &public}))
	if st, err := b.s3.GetBucketPolicyStatus(ctx, &s3.GetBucketPolicyStatusInput{Bucket: &bucket}); err != nil || !*st.PolicyStatus.IsPublic {
		t.Errorf("policy status: %v %v", st, err)
	}
	must(t)(b.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &bucket, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{BlockPublicAcls: aws.Bool(true)}}))
	if block, err = b.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket}); err != nil || !*block.PublicAccessBlockConfiguration.BlockPublicAcls || *block.PublicAccessBlockConfiguration.BlockPublicPolicy {
		t.Errorf("public access block: %v %v", block, err)
	}

	for _, bad := range []string{"", "no json", "{}", `{"Statement":[]}`, `{"Statement":[{"Effect":"Maybe","Principal":"*","Action":"*","Resource":"*"}]}`,
		`{"Statement":[{"Effect":"Deny","Principal":"*","Action":"*","Resource":"arn:aws:s3:::other/*"}]}`, `{"Version":"2020-01-01","Statement":[{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}]}`} {
		if _, body := b.do("PUT", "/states?policy", strings.NewReader(bad)); xmlCode(t, body) != "MalformedPolicy" {
			t.Errorf("policy %q: %s", bad, body)
		}
	}

	_, err = b.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	wantCode(t, err, "NoSuchLifecycleConfiguration")
	must(t)(b.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{
		Rules: []types.LifecycleRule{{ID: aws.String("old"), Status: "Enabled", Filter: &types.LifecycleRuleFilter{Prefix: aws.String("a/")},
			NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(90), NewerNoncurrentVersions: aws.Int32(5)}}}}}))
	lc, err := b.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	if err != nil || *lc.Rules[0].NoncurrentVersionExpiration.NoncurrentDays != 90 || *lc.Rules[0].Filter.Prefix != "a/" {
		t.Errorf("lifecycle: %+v %v", lc, err)
	}
	must(t)(b.s3.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &bucket}))

	_, err = b.s3.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &bucket})
	wantCode(t, err, "NoSuchTagSet")
	must(t)(b.s3.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: &bucket, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("managed-by"), Value: aws.String("tfguard")}}}}))
	if tags, err := b.s3.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &bucket}); err != nil || *tags.TagSet[0].Value != "tfguard" {
		t.Errorf("tags: %v %v", tags, err)
	}

	own, err := b.s3.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: &bucket})
	if err != nil || own.OwnershipControls.Rules[0].ObjectOwnership != "BucketOwnerEnforced" {
		t.Errorf("ownership: %v %v", own, err)
	}
	_, err = b.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), ACL: "public-read"})
	wantCode(t, err, "AccessControlListNotSupported")
	must(t)(b.s3.PutBucketOwnershipControls(ctx, &s3.PutBucketOwnershipControlsInput{Bucket: &bucket, OwnershipControls: &types.OwnershipControls{Rules: []types.OwnershipControlsRule{{ObjectOwnership: "ObjectWriter"}}}}))
	if acl, err := b.s3.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: &bucket}); err != nil || acl.Grants[0].Permission != "FULL_CONTROL" {
		t.Errorf("ACL: %v %v", acl, err)
	}

	for _, want := range []types.BucketVersioningStatus{"", "Enabled", "Suspended"} {
		if want != "" {
			b.versioning(bucket, want)
		}
		if v, err := b.s3.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &bucket}); err != nil || v.Status != want {
			t.Errorf("versioning %v %v, want %q", v, err, want)
		}
	}
	_, err = b.s3.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &bucket})
	wantCode(t, err, "ObjectLockConfigurationNotFoundError")
	for _, doc := range []string{"<a>", "", "<!DOCTYPE x [<!ENTITY e 'x'>]><VersioningConfiguration>&e;</VersioningConfiguration>", strings.Repeat("<a>", 20_000)} {
		for _, sub := range []string{"versioning", "encryption", "publicAccessBlock", "lifecycle", "tagging", "ownershipControls", "object-lock"} {
			if res, body := b.do("PUT", "/states?"+sub, strings.NewReader(doc)); res.StatusCode != 400 {
				t.Errorf("PUT ?%s of %.20q: %s %s", sub, doc, res.Status, body)
			}
		}
	}
}

// listedVersion is one entry of a version listing, told apart from any other.
type listedVersion struct {
	key, id string
	latest  bool
	marker  bool
}

// versions lists with pages of n keys.
func (b *box) versions(bucket, prefix, delimiter string, n int32, between func(listedVersion)) (all []listedVersion, prefixes []string) {
	b.t.Helper()
	// Encoded, so that a key may hold what XML cannot.
	in := &s3.ListObjectVersionsInput{Bucket: &bucket, MaxKeys: &n, Prefix: &prefix, EncodingType: "url"}
	plain := func(s *string) string {
		u, err := url.QueryUnescape(*s)
		if err != nil {
			b.t.Fatal(err)
		}
		return u
	}
	if delimiter != "" {
		in.Delimiter = &delimiter
	}
	for pages := 0; ; pages++ {
		if pages > 500 {
			b.t.Fatal("the listing does not end")
		}
		out, err := b.s3.ListObjectVersions(b.t.Context(), in)
		if err != nil {
			b.t.Fatal(err)
		}
		if got := len(out.Versions) + len(out.DeleteMarkers) + len(out.CommonPrefixes); got > int(n) || got == 0 && aws.ToBool(out.IsTruncated) {
			b.t.Fatalf("a page of %d entries, asked for %d", got, n)
		}
		var page []listedVersion
		for _, v := range out.Versions {
			page = append(page, listedVersion{plain(v.Key), *v.VersionId, *v.IsLatest, false})
		}
		for _, v := range out.DeleteMarkers {
			page = append(page, listedVersion{plain(v.Key), *v.VersionId, *v.IsLatest, true})
		}
		for _, p := range out.CommonPrefixes {
			prefixes = append(prefixes, plain(p.Prefix))
		}
		all = append(all, page...)
		if between != nil {
			for _, v := range page {
				between(v)
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return all, prefixes
		}
		in.KeyMarker, in.VersionIdMarker = aws.String(plain(out.NextKeyMarker)), out.NextVersionIdMarker
	}
}

// Every page size gives the same versions, each once; who deletes page by page
// misses none.
func TestListObjectVersionsPages(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	want := make(map[listedVersion]bool)
	for _, k := range []string{"a", "a/b", "a/c", "a\x01", "b", "b/x/1", "c"} {
		b.put(bucket, k, "null version")
	}
	b.versioning(bucket, types.BucketVersioningStatusEnabled)
	for i, k := range []string{"a", "a/b", "a/c", "a\x01", "b", "b/x/1", "c"} {
		for v := range i%3 + 1 {
			b.put(bucket, k, fmt.Sprint(v))
		}
		if i%2 == 0 {
			b.remove(bucket, k)
		}
	}
	all, _ := b.versions(bucket, "", "", 1000, nil)
	latest := make(map[string]int)
	for _, v := range all {
		want[v] = true
		if v.latest {
			latest[v.key]++
		}
	}
	if len(want) != 24 || len(all) != 24 {
		t.Fatalf("%d entries, %d distinct, want 24", len(all), len(want))
	}
	for k, n := range latest {
		if n != 1 {
			t.Errorf("%q has %d latest versions", k, n)
		}
	}
	if len(latest) != 7 {
		t.Errorf("%d keys, want 7", len(latest))
	}
	for _, n := range []int32{1, 2, 3, 5} {
		got, _ := b.versions(bucket, "", "", n, nil)
		seen := make(map[listedVersion]int)
		for _, v := range got {
			seen[v]++
		}
		for v := range want {
			if seen[v] != 1 {
				t.Errorf("pages of %d: %v comes %d times", n, v, seen[v])
			}
		}
		if len(seen) != len(want) {
			t.Errorf("pages of %d: %d entries, want %d", n, len(seen), len(want))
		}
		under, prefixes := b.versions(bucket, "", "/", n, nil)
		if got := strings.Join(prefixes, " "); got != "a/ b/" {
			t.Errorf("pages of %d with a delimiter: prefixes %q", n, got)
		}
		if slices.ContainsFunc(under, func(v listedVersion) bool { return strings.Contains(v.key, "/") }) {
			t.Errorf("pages of %d with a delimiter: %v", n, under)
		}
		sub, _ := b.versions(bucket, "a/", "/", n, nil)
		if len(sub) != count(all, "a/") {
			t.Errorf("pages of %d under a/: %v", n, sub)
		}
	}
	deleted := 0
	b.versions(bucket, "", "", 2, func(v listedVersion) {
		deleted++
		must(t)(b.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &v.key, VersionId: &v.id}))
	})
	if left, _ := b.versions(bucket, "", "", 1000, nil); len(left) != 0 || deleted < len(want) {
		t.Errorf("deleted %d, left %v", deleted, left)
	}
	must(t)(b.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket}))
}

func count(all []listedVersion, prefix string) (n int) {
	for _, v := range all {
		if strings.HasPrefix(v.key, prefix) {
			n++
		}
	}
	return n
}

func TestListObjectsPages(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", types.BucketVersioningStatusEnabled)
	keys := []string{"a", "a/1", "a/2", "a/b/3", "a0", "b", "env:/dev/s", "env:/prod/s", "env:/prod/s.tflock", "z z", "z+z", "é"}
	for _, k := range keys {
		b.put(bucket, k, "1")
		b.put(bucket, k, "2")
	}
	for _, k := range []string{"0gone", "a/gone", "m", "zz"} {
		b.put(bucket, k, "x")
		b.remove(bucket, k)
	}
	for _, c := range []struct {
		name, prefix, delimiter, after string
		want                           []string
	}{
		{"everything", "", "", "", keys},
		{"a prefix", "env:/", "", "", keys[6:9]},
		{"a folder", "a/", "/", "", []string{"a/1", "a/2", "a/b/"}},
		{"the top", "", "/", "", []string{"a", "a/", "a0", "b", "env:/", "z z", "z+z", "é"}},
		{"a long delimiter", "", "/prod/", "", []string{"a", "a/1", "a/2", "a/b/3", "a0", "b", "env:/dev/s", "env:/prod/", "z z", "z+z", "é"}},
		{"after a key", "", "", "env:/dev/s", keys[7:]},
		{"after what is no key", "", "", "c", keys[6:]},
		{"after a prefix", "", "/", "a/", []string{"a0", "b", "env:/", "z z", "z+z", "é"}},
		{"nothing", "nothing", "", "", nil},
	} {
		for _, n := range []int32{1, 2, 3, 1000} {
			for _, encoding := range []types.EncodingType{"", "url"} {
				var v2, v1 []string
				entries := func(objects []types.Object, prefixes []types.CommonPrefix) (page []string) {
					for _, o := range objects {
						page = append(page, *o.Key)
					}
					for _, p := range prefixes {
						page = append(page, *p.Prefix)
					}
					if encoding == "url" { // the SDK leaves it as it came
						for i := range page {
							page[i], _ = url.PathUnescape(page[i])
						}
					}
					slices.Sort(page)
					return page
				}
				p := s3.NewListObjectsV2Paginator(b.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &c.prefix, Delimiter: &c.delimiter, StartAfter: &c.after, MaxKeys: &n, EncodingType: encoding})
				for p.HasMorePages() {
					page, err := p.NextPage(t.Context())
					if err != nil || len(v2) > len(keys) {
						t.Fatalf("%s: %v after %q", c.name, err, v2)
					}
					v2 = append(v2, entries(page.Contents, page.CommonPrefixes)...)
				}
				in := &s3.ListObjectsInput{Bucket: &bucket, Prefix: &c.prefix, Delimiter: &c.delimiter, Marker: &c.after, MaxKeys: &n, EncodingType: encoding}
				for {
					page, err := b.s3.ListObjects(t.Context(), in)
					if err != nil || len(v1) > len(keys) {
						t.Fatalf("%s, version 1: %v after %q", c.name, err, v1)
					}
					e := entries(page.Contents, page.CommonPrefixes)
					v1 = append(v1, e...)
					if !aws.ToBool(page.IsTruncated) {
						break
					}
					in.Marker = &e[len(e)-1]
					if c.delimiter != "" && *in.Marker != entries(nil, []types.CommonPrefix{{Prefix: page.NextMarker}})[0] {
						t.Errorf("%s: NextMarker %q after %q", c.name, *page.NextMarker, e)
					}
				}
				if !slices.Equal(v2, c.want) {
					t.Errorf("%s, pages of %d, encoding %q: got %q, want %q", c.name, n, encoding, v2, c.want)
				}
				if !slices.Equal(v1, c.want) {
					t.Errorf("%s, version 1, pages of %d, encoding %q: got %q, want %q", c.name, n, encoding, v1, c.want)
				}
			}
		}
	}
	if out, err := b.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: aws.Int32(0)}); err != nil || *out.KeyCount != 0 || *out.IsTruncated {
		t.Errorf("no keys at all: %+v %v", out, err)
	}
}

func TestVirtualHost(t *testing.T) {
	b := newBox(t)
	b.bucket("my.states", "")
	b.put("my.states", "a/b c", "x")
	res, body := b.do("GET", "/a/b%20c", nil, "Host", "my.states.localhost:4566")
	if res.StatusCode != 200 || body != "x" {
		t.Errorf("%s %s", res.Status, body)
	}
	if res, body := b.do("GET", "/?list-type=2", nil, "Host", "my.states.localhost"); res.StatusCode != 200 || !strings.Contains(body, "<Key>a/b c</Key>") {
		t.Errorf("%s %s", res.Status, body)
	}
	res, body = b.do("POST", "/?delete", strings.NewReader("<Delete><Object><Key>a/b c</Key></Object></Delete>"), "Host", "my.states.localhost")
	if res.StatusCode != 200 || !strings.Contains(body, "<Deleted><Key>a/b c</Key>") {
		t.Errorf("DeleteObjects: %s %s", res.Status, body)
	}
}
