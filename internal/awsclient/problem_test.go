package awsclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/testkit"
)

func TestExplain(t *testing.T) {
	testkit.Isolate(t)
	getObject := func(ctx context.Context, c *awsclient.Clients) error {
		_, err := c.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("demo"), Key: aws.String("a/b")})
		return awsclient.Explain(err, awsclient.ObjectName("demo", "a/b"))
	}
	headObject := func(ctx context.Context, c *awsclient.Clients) error {
		_, err := c.S3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("demo"), Key: aws.String("a/b")})
		return awsclient.Explain(err, awsclient.ObjectName("demo", "a/b"))
	}
	headBucket := func(ctx context.Context, c *awsclient.Clients) error {
		_, err := c.S3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String("demo")})
		return awsclient.Explain(err, awsclient.BucketName("demo"))
	}
	putObject := func(ctx context.Context, c *awsclient.Clients) error {
		_, err := c.S3.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("demo"), Key: aws.String("a/b"), Body: strings.NewReader("x")})
		return awsclient.Explain(err, awsclient.ObjectName("demo", "a/b"))
	}
	getItem := func(ctx context.Context, c *awsclient.Clients) error {
		_, err := c.DynamoDB.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("locks"),
			Key: map[string]types.AttributeValue{"LockID": &types.AttributeValueMemberS{Value: "demo/a/b"}}})
		return awsclient.Explain(err, awsclient.ItemName("locks", "demo/a/b"))
	}
	status := func(status int, header ...string) func(*http.Request) *testkit.Response {
		r := &testkit.Response{Status: status, Header: map[string]string{}}
		for i := 0; i < len(header); i += 2 {
			r.Header[header[i]] = header[i+1]
		}
		return func(*http.Request) *testkit.Response { return r }
	}
	for _, row := range []struct {
		name   string
		answer func(*http.Request) *testkit.Response
		call   func(context.Context, *awsclient.Clients) error
		kind   backend.Kind
		want   string // the whole message, or its begin where it ends in "…"
	}{
		{"an object that may not be read", testkit.S3Error(403, "AccessDenied", "Access Denied"), getObject,
			backend.Denied, "permission denied: s3:GetObject on s3://demo/a/b"},
		{"what AWS says was missing is named", testkit.S3Error(403, "AccessDenied",
			"User: arn:aws:iam::1:user/u is not authorized to perform: s3:ListBucket on resource: &quot;arn:aws:s3:::demo&quot; because no identity-based policy allows it"), getObject,
			backend.Denied, "permission denied: s3:ListBucket on s3://demo/a/b"},
		{"a KMS key that may not be used", testkit.S3Error(403, "AccessDenied",
			"User: arn:aws:iam::1:user/u is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-east-1:1:key/k because"), getObject,
			backend.Denied, "permission denied: kms:Decrypt on arn:aws:kms:us-east-1:1:key/k"},
		{"a HEAD that is denied", status(403), headObject, backend.Denied, "permission denied: s3:GetObject on s3://demo/a/b"},
		{"an item that may not be read", testkit.DynamoDBError(400, "AccessDeniedException", "no"), getItem,
			backend.Denied, "permission denied: dynamodb:GetItem on item demo/a/b of table locks"},
		{"an object that is not there", testkit.S3Error(404, "NoSuchKey", "none"), getObject,
			backend.NotFound, "s3:GetObject on s3://demo/a/b: not found: NoSuchKey: none"},
		{"a HEAD of an object that is not there", status(404), headObject, backend.NotFound, "s3:GetObject on s3://demo/a/b: not found…"},
		{"a bucket that is not there", testkit.S3Error(404, "NoSuchBucket", "none"), getObject, backend.Missing, "bucket demo does not exist"},
		{"a HEAD of a bucket that is not there", status(404), headBucket, backend.Missing, "bucket demo does not exist"},
		{"a table that is not there", testkit.DynamoDBError(400, "ResourceNotFoundException", "none"), getItem, backend.Missing, "table locks does not exist"},
		{"another region, by a redirect", status(301, "x-amz-bucket-region", "eu-west-1"), headBucket,
			backend.WrongRegion, "bucket demo is in another region: eu-west-1"},
		{"another region, by the signature", testkit.S3Error(400, "AuthorizationHeaderMalformed",
			"The authorization header is malformed; the region &apos;us-east-1&apos; is wrong; expecting &apos;eu-central-1&apos;"), getObject,
			backend.WrongRegion, "bucket demo is in another region: eu-central-1"},
		{"another region, by a HEAD's 400", status(400, "x-amz-bucket-region", "eu-west-1"), headBucket,
			backend.WrongRegion, "bucket demo is in another region: eu-west-1"},
		{"a HEAD's 400 in this region is no other region", status(400, "x-amz-bucket-region", "us-east-1"), headBucket,
			backend.Unreachable, "s3:ListBucket on bucket demo: unreachable…"},
		{"a hostile region", status(301, "x-amz-bucket-region", "::error::y"), headBucket,
			backend.WrongRegion, "bucket demo is in another region: …"},
		{"expired credentials", testkit.S3Error(400, "ExpiredToken", "The provided token has expired."), getObject,
			backend.Expired, "s3:GetObject on s3://demo/a/b: expired: ExpiredToken: The provided token has expired."},
		{"expired credentials in DynamoDB", testkit.DynamoDBError(400, "ExpiredTokenException", "expired"), getItem, backend.Expired, "dynamodb:GetItem…"},
		{"a key that nobody has", testkit.S3Error(403, "InvalidAccessKeyId", "none"), getObject, backend.Expired, "s3:GetObject…"},
		{"a wrong secret", testkit.S3Error(403, "SignatureDoesNotMatch", "no"), getObject, backend.Expired, "s3:GetObject…"},
		{"a key that DynamoDB does not know", testkit.DynamoDBError(400, "UnrecognizedClientException", "no"), getItem, backend.Expired, "dynamodb:GetItem…"},
		{"a precondition", testkit.S3Error(412, "PreconditionFailed", "no"), putObject, backend.Changed, "s3:PutObject on s3://demo/a/b: changed…"},
		{"a conflict", testkit.S3Error(409, "ConditionalRequestConflict", "no"), putObject, backend.Changed, "s3:PutObject…"},
		{"a condition", testkit.DynamoDBError(400, "ConditionalCheckFailedException", "no"), getItem, backend.Changed, "dynamodb:GetItem…"},
		{"an unavailable service", testkit.S3Error(503, "SlowDown", "Please reduce your request rate."), getObject,
			backend.Unreachable, "s3:GetObject on s3://demo/a/b: unreachable: SlowDown: Please reduce your request rate. (HTTP 503), after 5 attempts"},
		{"a message that would move the cursor", testkit.S3Error(400, "Odd", "a&#xd;&#xa;::error::b&#x9b;31m"), getObject,
			backend.Unreachable, "s3:GetObject on s3://demo/a/b: unreachable: Odd: a��::error::b�31m"},
	} {
		t.Run(row.name, func(t *testing.T) {
			faulty := testkit.Wrap(http.NotFoundHandler())
			faulty.Add(testkit.Fault{Answer: row.answer})
			err := row.call(t.Context(), newClients(t, testkit.Settings(testkit.Serve(t, faulty)), quick()))
			var p *backend.Problem
			if !errors.As(err, &p) || p.Kind != row.kind {
				t.Fatalf("%v (%+v), want kind %q", err, p, row.kind)
			}
			if begin, open := strings.CutSuffix(row.want, "…"); open && !strings.HasPrefix(err.Error(), begin) || !open && err.Error() != row.want {
				t.Errorf("%q, want %q", err, row.want)
			}
			if p.Err == nil || !errors.Is(err, p.Err) {
				t.Error("the SDK's error cannot be unwrapped")
			}
			if strings.ContainsAny(p.Error(), "\x1b\r\n") {
				t.Errorf("control characters in %q", p.Error())
			}
		})
	}
}

func TestExplainLeavesAlone(t *testing.T) {
	problem := &backend.Problem{Kind: backend.Missing, Resource: "bucket x"}
	for name, err := range map[string]error{
		"nothing":              nil,
		"a problem":            fmt.Errorf("read: %w", problem),
		"a cancel":             fmt.Errorf("read: %w", context.Canceled),
		"the caller's own end": fmt.Errorf("read: %w", context.DeadlineExceeded),
	} {
		if got := awsclient.Explain(err, "x"); got != err {
			t.Errorf("%s: %v, want %v", name, got, err)
		}
	}
	long := awsclient.Explain(errors.New(strings.Repeat("x", 10000)), "x")
	if !backend.Is(long, backend.Unreachable) || len(long.Error()) > 1000 {
		t.Errorf("an unknown error is %.100v, %d bytes long", long, len(long.Error()))
	}
}

// TestDeniedIn has terraform's own words for requests that were refused.
func TestDeniedIn(t *testing.T) {
	for _, row := range []struct{ sentence, text, action, resource string }{
		{"an object that may not be read, in a HEAD's few words",
			`Error refreshing state: Unable to access object "env/prod/terraform.tfstate" in S3 bucket "demo": operation error S3: HeadObject, https response error StatusCode: 403, RequestID: , HostID: , api error Forbidden: Forbidden`,
			"s3:GetObject", "s3://demo/env/prod/terraform.tfstate"},
		{"a bucket that may not be listed",
			`Unable to list objects in S3 bucket "demo" with prefix "env:/": operation error S3: ListObjectsV2, https response error StatusCode: 403, RequestID: X, HostID: Y, api error AccessDenied: Access Denied`,
			"s3:ListBucket", "bucket demo"},
		{"what AWS names counts",
			"operation error DynamoDB: PutItem, https response error StatusCode: 400, RequestID: X, api error AccessDeniedException: User: arn:aws:sts::1:assumed-role/ci/run is not authorized to perform: dynamodb:PutItem on resource: arn:aws:dynamodb:us-east-1:1:table/locks because no identity-based policy allows it",
			"dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:1:table/locks"},
		{"a lock that is held is no permission", "operation error DynamoDB: PutItem, https response error StatusCode: 400, RequestID: X, ConditionalCheckFailedException: The conditional request failed", "", ""},
		{"expired credentials are none", `Unable to list objects in S3 bucket "demo": operation error S3: ListObjectsV2, https response error StatusCode: 403, RequestID: , HostID: , api error ExpiredToken: refused`, "", ""},
		{"a resource cannot bring escapes", "operation error S3: PutObject, https response error StatusCode: 403, RequestID: , HostID: , api error AccessDenied: not authorized to perform: s3:PutObject on resource: arn:\x1b[2J", "s3:PutObject", "arn:\ufffd[2J"},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			action, resource, found := awsclient.DeniedIn(row.text)
			if action != row.action || resource != row.resource || found != (row.action != "") {
				t.Errorf("got %q on %q, %v", action, resource, found)
			}
		})
	}
}
