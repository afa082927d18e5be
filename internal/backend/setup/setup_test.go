package setup_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/backend/setup"
	"github.com/tfguard/tfguard/internal/testkit"
)

type bench struct {
	*setup.Backend
	faulty  *testkit.Faulty
	cloud   *testkit.Cloud
	clients *awsclient.Clients // past the faults
	set     backend.Settings
	addr    backend.Address
}

func newBench(t *testing.T, mode string, made bool) *bench {
	b := &bench{cloud: testkit.Start(t)}
	b.clients = b.cloud.Clients
	if made {
		b.set, b.addr = b.cloud.State(t, mode)
	} else {
		b.set, b.addr = b.cloud.Names(t, mode)
	}
	b.faulty = testkit.NewFaulty(t, b.cloud.URL)
	b.again(t)
	return b
}

// again makes the backend anew, as its settings have become.
func (b *bench) again(t *testing.T) {
	via := b.cloud.Via(t, b.faulty.URL)
	b.Backend = setup.New(via.S3, via.DynamoDB, b.addr, b.set)
}

func (b *bench) setUp(t *testing.T) map[string]string {
	t.Helper()
	steps := map[string]string{}
	if err := b.Setup(t.Context(), func(s setup.Step) {
		what := strings.NewReplacer("bucket "+b.addr.Bucket, "bucket", "table "+b.addr.Table, "table").Replace(s.What)
		steps[what] = s.Action
	}); err != nil {
		t.Fatalf("set up: %v", err)
	}
	return steps
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// whats are the findings as "what: have", without the names.
func (b *bench) whats(r setup.Report) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.NewReplacer("bucket "+b.addr.Bucket, "bucket", "table "+b.addr.Table, "table").Replace(f.What+": "+f.Have))
	}
	slices.Sort(out)
	return out
}

func TestSetupMakesEverythingOnce(t *testing.T) {
	for _, mode := range []string{testkit.DynamoDB, testkit.Lockfile, testkit.Both} {
		t.Run(mode, func(t *testing.T) {
			b := newBench(t, mode, false)
			if _, err := b.Check(t.Context()); !backend.Is(err, backend.Missing) {
				t.Errorf("before: %v, want Missing", err)
			}
			first := b.setUp(t)
			for what, action := range first {
				if action != setup.Created && action != setup.OK && what != "bucket policy" {
					t.Errorf("%s was %s", what, action)
				}
			}
			if first["bucket"] != setup.Created || first["bucket versioning"] != setup.Created {
				t.Errorf("steps %v, want bucket and versioning created", first)
			}
			if mode != testkit.Lockfile && first["table"] != setup.Created {
				t.Errorf("steps %v, want the table created", first)
			}
			if first["bucket policy"] != setup.Skipped {
				t.Errorf("a policy against plain HTTP was put on a store that is reached by it: %v", first)
			}
			if got := b.whats(must[setup.Report](t)(b.Verify(t.Context()))); len(got) > 0 {
				t.Errorf("findings after set up: %q", got)
			}
			for what, action := range b.setUp(t) {
				if action != setup.OK && what != "bucket policy" {
					t.Errorf("the second time %s was %s", what, action)
				}
			}
		})
	}
}

func TestCheckTakesThreeRequests(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, true)
	if r, err := b.Check(t.Context()); err != nil || len(r.Findings) > 0 {
		t.Fatalf("check (%v, %v)", r, err)
	}
	if got := b.faulty.Requests(); len(got) != 3 {
		t.Errorf("requests %q, want 3", got)
	}
}

func TestVerifySaysWhatDiffersAndSetupRepairsIt(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, true)
	ctx := t.Context()
	must[*s3.PutBucketVersioningOutput](t)(b.clients.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &b.addr.Bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}}))
	must[*s3.PutPublicAccessBlockOutput](t)(b.clients.S3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &b.addr.Bucket,
		PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{BlockPublicAcls: aws.Bool(true)}}))
	got := b.whats(must[setup.Report](t)(b.Verify(ctx)))
	for _, want := range []string{
		"bucket lifecycle: they stay for ever", "bucket public access block: on in part", "bucket versioning: suspended",
		"table deletion protection: off", "table point-in-time recovery: off",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("findings %q, want %q among them", got, want)
		}
	}
	steps := b.setUp(t)
	for _, what := range []string{"bucket versioning", "bucket public access block", "bucket lifecycle", "table deletion protection", "table point-in-time recovery"} {
		if steps[what] != setup.Repaired {
			t.Errorf("%s was %q, want repaired", what, steps[what])
		}
	}
	if got := b.whats(must[setup.Report](t)(b.Verify(ctx))); len(got) > 0 {
		t.Errorf("findings after the repair: %q", got)
	}
}

func TestVerifyChangesNothing(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, true)
	if _, err := b.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.faulty.Requests() {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") && !strings.HasPrefix(r, "dynamodb:Describe") {
			t.Errorf("verify made the request %s", r)
		}
	}
}

func TestWhatIsWrongWithABackend(t *testing.T) {
	const named = "User: arn:aws:iam::1:user/u is not authorized to perform: %s on resource: arn:aws:s3:::b because no identity-based policy allows it"
	head := testkit.Fault{Match: func(r *http.Request) bool { return r.Method == http.MethodHead }}
	versioning := testkit.Fault{Match: func(r *http.Request) bool { return r.URL.Query().Has("versioning") }}
	table := testkit.Fault{Match: testkit.DynamoDBOp("DescribeTable")}
	with := func(f testkit.Fault, answer func(*http.Request) *testkit.Response) testkit.Fault {
		f.Answer = answer
		return f
	}
	empty := func(status int, region string) func(*http.Request) *testkit.Response {
		return func(*http.Request) *testkit.Response {
			return &testkit.Response{Status: status, Header: map[string]string{"x-amz-bucket-region": region}}
		}
	}
	for _, row := range []struct {
		name   string
		faults []testkit.Fault
		kind   backend.Kind // empty: usable
		want   string
	}{
		{"another's bucket refuses without a word", []testkit.Fault{with(head, empty(403, "")), with(versioning, testkit.S3Error(403, "AccessDenied", "Access Denied"))},
			backend.Foreign, "belongs to another AWS account"},
		{"one's own bucket names the permission", []testkit.Fault{with(head, empty(403, "")),
			with(versioning, testkit.S3Error(403, "AccessDenied", fmt.Sprintf(named, "s3:GetBucketVersioning")))},
			backend.Denied, "permission denied: s3:ListBucket on bucket"},
		{"a bucket that may not be listed", []testkit.Fault{with(head, empty(403, ""))}, backend.Denied, "permission denied: s3:ListBucket on bucket"},
		{"a bucket whose versioning may not be seen can be used", []testkit.Fault{with(versioning, testkit.S3Error(403, "AccessDenied", "Access Denied"))},
			"", "versioning: is unknown"},
		{"a bucket in another region", []testkit.Fault{with(head, empty(301, "eu-west-1")), with(versioning, testkit.S3Error(301, "PermanentRedirect", "elsewhere"))},
			backend.WrongRegion, "eu-west-1"},
		{"expired credentials, to a HEAD without a word", []testkit.Fault{with(head, empty(400, "us-east-1")), with(versioning, testkit.S3Error(400, "ExpiredToken", "expired"))},
			backend.Expired, "ExpiredToken"},
		{"a table that is not there", []testkit.Fault{with(table, testkit.DynamoDBError(400, "ResourceNotFoundException", "none"))}, backend.Missing, "does not exist"},
		{"a table that may not be seen can be used", []testkit.Fault{with(table, testkit.DynamoDBError(400, "AccessDeniedException", "no"))}, "", "is unknown"},
		{"a table that is being deleted", []testkit.Fault{with(table, func(*http.Request) *testkit.Response {
			return &testkit.Response{Status: 200, Body: `{"Table":{"TableName":"t","TableStatus":"DELETING","KeySchema":[{"AttributeName":"LockID","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"LockID","AttributeType":"S"}]}}`}
		})}, backend.Unusable, "DELETING"},
		{"an answer without a table", []testkit.Fault{with(table, func(*http.Request) *testkit.Response { return &testkit.Response{Status: 200, Body: `{}`} })},
			"error", "no table"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, testkit.DynamoDB, true)
			for _, f := range row.faults {
				b.faulty.Add(f)
			}
			r, err := b.Check(t.Context())
			text := fmt.Sprint(r.Findings)
			if err != nil {
				text = err.Error()
			}
			switch {
			case row.kind == "" && err != nil, row.kind == "error" && err == nil, row.kind != "" && row.kind != "error" && !backend.Is(err, row.kind):
				t.Errorf("%v, want kind %q", err, row.kind)
			case !strings.Contains(text, row.want):
				t.Errorf("%q, want %q in it", text, row.want)
			}
		})
	}
}

func TestTheTableMustHaveTheKeyOfTheLocks(t *testing.T) {
	hash := func(name string) []dynamotypes.KeySchemaElement {
		return []dynamotypes.KeySchemaElement{{AttributeName: &name, KeyType: dynamotypes.KeyTypeHash}}
	}
	for _, row := range []struct {
		name string
		key  []dynamotypes.KeySchemaElement
		defs []dynamotypes.AttributeDefinition
		want string
	}{
		{"another name", hash("lockid"), []dynamotypes.AttributeDefinition{{AttributeName: aws.String("lockid"), AttributeType: "S"}}, `its hash key is "lockid"`},
		{"another type", hash("LockID"), []dynamotypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: "N"}}, "has type N"},
		{"a range key", append(hash("LockID"), dynamotypes.KeySchemaElement{AttributeName: aws.String("R"), KeyType: dynamotypes.KeyTypeRange}),
			[]dynamotypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: "S"}, {AttributeName: aws.String("R"), AttributeType: "S"}}, "range key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, testkit.Lockfile, true)
			b.addr.Table = b.addr.Bucket + "-odd"
			b.again(t)
			must[*dynamodb.CreateTableOutput](t)(b.clients.DynamoDB.CreateTable(t.Context(), &dynamodb.CreateTableInput{
				TableName: &b.addr.Table, KeySchema: row.key, AttributeDefinitions: row.defs, BillingMode: dynamotypes.BillingModePayPerRequest}))
			for name, err := range map[string]error{
				"check": func() error { _, err := b.Check(t.Context()); return err }(),
				"setup": b.Setup(t.Context(), func(setup.Step) {}),
			} {
				if !backend.Is(err, backend.Unusable) || !strings.Contains(err.Error(), row.want) {
					t.Errorf("%s: %v, want Unusable: %s", name, err, row.want)
				}
			}
		})
	}
}

func TestSetupDoesNotTouchAnothersBucket(t *testing.T) {
	for name, faults := range map[string][]testkit.Fault{
		"it is seen": {{Answer: testkit.S3Error(403, "AccessDenied", "Access Denied")}},
		"it is found out by creating": {
			{Match: func(r *http.Request) bool { return r.Method == http.MethodHead }, Answer: testkit.S3Error(404, "", "")},
			{Match: func(r *http.Request) bool { return r.Method == http.MethodPut }, Answer: testkit.S3Error(409, "BucketAlreadyExists", "not yours")}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, testkit.Lockfile, false)
			for _, f := range faults {
				b.faulty.Add(f)
			}
			err := b.Setup(t.Context(), func(s setup.Step) { t.Errorf("step %+v", s) })
			if !backend.Is(err, backend.Foreign) {
				t.Errorf("%v, want Foreign", err)
			}
			for _, r := range b.faulty.Requests() {
				if strings.HasPrefix(r, "PUT ") && strings.Contains(r, "?") {
					t.Errorf("request %s", r)
				}
			}
		})
	}
	t.Run("the owner is asked of S3", func(t *testing.T) {
		b := newBench(t, testkit.Lockfile, true)
		b.Owner = func(context.Context) (string, error) { return "000000000009", nil }
		owner := ""
		b.faulty.Add(testkit.Fault{Match: func(r *http.Request) bool { return r.Method == http.MethodHead },
			Before: func(r *http.Request) { owner = r.Header.Get("x-amz-expected-bucket-owner") }, Answer: testkit.S3Error(403, "", "")})
		if err := b.Setup(t.Context(), func(s setup.Step) { t.Errorf("step %+v", s) }); !backend.Is(err, backend.Foreign) {
			t.Errorf("%v, want Foreign", err)
		}
		if owner != "000000000009" {
			t.Errorf("the expected owner was %q", owner)
		}
	})
}

func TestTheBucketIsAskedForInItsRegion(t *testing.T) {
	for region, want := range map[string]string{"us-east-1": "", "eu-west-1": "<LocationConstraint>eu-west-1</LocationConstraint>"} {
		t.Run(region, func(t *testing.T) {
			testkit.Isolate(t)
			var body string
			faulty := testkit.Wrap(http.NotFoundHandler())
			faulty.Add(testkit.Fault{Match: func(r *http.Request) bool { return r.Method == http.MethodPut },
				Before: func(r *http.Request) { body = text(r) }, Answer: testkit.S3Error(400, "InvalidRequest", "seen")})
			s := testkit.Settings(testkit.Serve(t, faulty))
			s.Region, s.Bucket, s.Key = region, "demo", "k"
			c := must[*awsclient.Clients](t)(awsclient.New(t.Context(), s, awsclient.Options{}))
			err := setup.New(c.S3, c.DynamoDB, must[backend.Address](t)(s.Address("")), s).Setup(t.Context(), func(setup.Step) {})
			if err == nil {
				t.Fatal("the answer was an error")
			}
			if got := strings.Contains(body, "LocationConstraint"); got != (want != "") || !strings.Contains(body, want) {
				t.Errorf("create was asked with %q, want %q", body, want)
			}
		})
	}
}

func text(r *http.Request) string {
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

func TestASafeguardThatIsDeniedIsSkipped(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, false)
	for _, op := range []string{"UpdateContinuousBackups", "DescribeContinuousBackups"} {
		b.faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp(op), Answer: testkit.DynamoDBError(400, "AccessDeniedException", "no")})
	}
	b.faulty.Add(testkit.Fault{Match: func(r *http.Request) bool { return r.URL.Query().Has("lifecycle") },
		Answer: testkit.S3Error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")})
	steps := b.setUp(t)
	if steps["table point-in-time recovery"] != setup.Skipped || steps["bucket lifecycle"] != setup.Skipped || steps["table"] != setup.Created {
		t.Errorf("steps %v", steps)
	}
	got := b.whats(must[setup.Report](t)(b.Verify(t.Context())))
	if len(got) != 1 || !strings.HasPrefix(got[0], "table point-in-time recovery: unknown (permission denied: dynamodb:DescribeContinuousBackups") {
		t.Errorf("findings %q, want the denied one alone: what a store does not have is none", got)
	}
}

func TestWhatMustSucceedIsAnError(t *testing.T) {
	for name, fault := range map[string]testkit.Fault{
		"bucket":     {Match: func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.RawQuery == "" }, Answer: testkit.S3Error(403, "AccessDenied", "no")},
		"versioning": {Match: func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.Query().Has("versioning") }, Answer: testkit.S3Error(403, "AccessDenied", "no")},
		"table":      {Match: testkit.DynamoDBOp("CreateTable"), Answer: testkit.DynamoDBError(400, "AccessDeniedException", "no")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, testkit.DynamoDB, false)
			b.faulty.Add(fault)
			if err := b.Setup(t.Context(), func(setup.Step) {}); !backend.Is(err, backend.Denied) || !strings.Contains(err.Error(), "set up "+name) {
				t.Errorf("%v, want Denied", err)
			}
		})
	}
}

func TestTwoSetupsAtOnce(t *testing.T) {
	b := newBench(t, testkit.Both, false)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := b.Setup(t.Context(), func(setup.Step) {}); err != nil {
				t.Errorf("set up: %v", err)
			}
		})
	}
	all.Wait()
	if got := b.whats(must[setup.Report](t)(b.Verify(t.Context()))); len(got) > 0 {
		t.Errorf("findings: %q", got)
	}
}

func TestACancelledSetup(t *testing.T) {
	b := newBench(t, testkit.DynamoDB, false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("DescribeTable"), After: 1, Before: func(*http.Request) { cancel() },
		Answer: func(*http.Request) *testkit.Response {
			return &testkit.Response{Status: 200, Body: `{"Table":{"TableName":"t","TableStatus":"CREATING"}}`}
		}})
	if err := b.Setup(ctx, func(setup.Step) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestSetupAddsAndDoesNotReplace(t *testing.T) {
	b := newBench(t, testkit.Lockfile, true)
	ctx := t.Context()
	b.set.KMSKeyID = "arn:aws:kms:us-east-1:000000000000:key/other"
	b.again(t)
	must[*s3.PutBucketEncryptionOutput](t)(b.clients.S3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &b.addr.Bucket,
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: "aws:kms", KMSMasterKeyID: aws.String("arn:aws:kms:us-east-1:000000000000:key/theirs")}}}}}))
	must[*s3.PutBucketLifecycleConfigurationOutput](t)(b.clients.S3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &b.addr.Bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("theirs"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("logs/")},
			Expiration: &types.LifecycleExpiration{Days: aws.Int32(7)}}}}}))
	b.setUp(t)
	enc := must[*s3.GetBucketEncryptionOutput](t)(b.clients.S3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &b.addr.Bucket}))
	if key := aws.ToString(enc.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.KMSMasterKeyID); !strings.HasSuffix(key, "key/theirs") {
		t.Errorf("the KMS key became %s", key)
	}
	life := must[*s3.GetBucketLifecycleConfigurationOutput](t)(b.clients.S3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &b.addr.Bucket}))
	var ids []string
	for _, r := range life.Rules {
		ids = append(ids, aws.ToString(r.ID))
	}
	if want := []string{"theirs", "tfguard-records"}; !slices.Equal(ids, want) {
		t.Errorf("lifecycle rules %v, want %v", ids, want)
	}
}

func TestAPlainEncryptionGetsTheBackendsKey(t *testing.T) {
	b := newBench(t, testkit.Lockfile, true)
	b.set.KMSKeyID = "arn:aws:kms:us-east-1:000000000000:key/ours"
	b.again(t)
	b.setUp(t)
	enc := must[*s3.GetBucketEncryptionOutput](t)(b.clients.S3.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: &b.addr.Bucket}))
	if key := aws.ToString(enc.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.KMSMasterKeyID); !strings.HasSuffix(key, "key/ours") {
		t.Errorf("the KMS key is %s", key)
	}
}
