package awsclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/quote"
)

// maxDetail bounds what of a service's message is passed on, in runes.
const maxDetail = 400

// BucketName is a bucket as problems name it.
func BucketName(bucket string) string { return "bucket " + bucket }

// ObjectName is an object as problems name it.
func ObjectName(bucket, key string) string { return "s3://" + bucket + "/" + key }

// TableName is a table as problems name it.
func TableName(table string) string { return "table " + table }

// ItemName is an item as problems name it, by its LockID.
func ItemName(table, id string) string { return "item " + id + " of table " + table }

// Explain turns an error of a client into a [*backend.Problem] about the
// resource, named by one of the functions above. nil stays nil; a cancelled or
// expired context stays what it is, also for errors.Is; a Problem stays as well.
// What it cannot place is Unreachable with the service's own words.
func Explain(err error, resource string) error {
	var already *backend.Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &already), cancelled(err):
		return err
	}
	op, _ := operation(err)
	p := &backend.Problem{Action: op.action(), Resource: resource, Err: err, Detail: detail(err)}
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	code, status, message := "", 0, ""
	if errors.As(err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		status = answer.HTTPStatusCode()
	}
	if code == "" && status == 0 {
		p.Kind = backend.Unreachable
		var empty *credentials.StaticCredentialsEmptyError
		var session *ssocreds.InvalidTokenError
		switch {
		case errors.As(err, &session):
			p.Kind = backend.Expired
		case errors.As(err, &empty), strings.Contains(err.Error(), "get identity:"):
			p.Kind = backend.NoCreds
		case strings.Contains(err.Error(), "invalid bucket name"), strings.Contains(err.Error(), "resolve endpoint:"):
			p.Kind = backend.Unusable
		}
		return p
	}
	p.Kind = kindOf(code, status, op)
	if region := otherRegion(answer, code, message); region != "" {
		p.Kind, p.Detail = backend.WrongRegion, region
	}
	switch p.Kind {
	case backend.Missing:
		p.Resource = container(resource)
	case backend.WrongRegion:
		p.Resource = container(resource)
	case backend.Denied:
		// AWS names the permission it missed; that of a KMS key is not ours.
		if m := deniedAction.FindStringSubmatch(message); m != nil {
			if service, _, _ := strings.Cut(p.Action, ":"); !strings.HasPrefix(m[1], service+":") && m[2] != "" {
				p.Resource = quote.Line(strings.Trim(m[2], `".`), 200)
			}
			p.Action = m[1]
		}
	}
	return p
}

// noCredentials is the problem of a search for credentials that found none.
func noCredentials(err error) error {
	if cancelled(err) {
		return err
	}
	p := &backend.Problem{Kind: backend.NoCreds, Action: "sts:GetCallerIdentity", Resource: "the AWS account", Detail: detail(err), Err: err}
	var session *ssocreds.InvalidTokenError
	if errors.As(err, &session) {
		p.Kind = backend.Expired
	}
	if op, found := operation(err); found {
		var explained *backend.Problem
		if errors.As(Explain(err, "the AWS credentials"), &explained) && op.service != "ec2imds" {
			return explained
		}
	}
	return p
}

// cancelled tells the caller's own cancel or deadline from a time-out of the
// network, which in Go's net package claims to be one.
func cancelled(err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var sdk interface{ CanceledError() bool }
	if errors.As(err, &sdk) && sdk.CanceledError() {
		return true
	}
	_, found := operation(err)
	return !found
}

func kindOf(code string, status int, op call) backend.Kind {
	switch code {
	case "PreconditionFailed", "ConditionalRequestConflict", "ConditionalCheckFailedException":
		return backend.Changed
	case "NoSuchBucket", "ResourceNotFoundException", "TableNotFoundException":
		return backend.Missing
	case "BucketAlreadyExists":
		return backend.Foreign
	case "InvalidBucketName", "ValidationException": // DynamoDB's for a table's name, or its key
		return backend.Unusable
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "MovedPermanently", "TemporaryRedirect",
		"IllegalLocationConstraintException":
		return backend.WrongRegion
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException",
		"InvalidClientTokenId", "InvalidToken", "TokenRefreshRequired", "RequestExpired", "IncompleteSignature",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "InvalidIdentityToken", "AuthFailure", "RequestTimeTooSkewed":
		return backend.Expired
	}
	switch {
	case strings.HasPrefix(code, "ExpiredToken"):
		return backend.Expired
	case strings.HasPrefix(code, "AccessDenied"), code == "AllAccessDisabled", code == "NotAuthorized", code == "UnauthorizedOperation":
		return backend.Denied
	case status == http.StatusMovedPermanently:
		return backend.WrongRegion
	case status == http.StatusPreconditionFailed:
		return backend.Changed
	case status == http.StatusForbidden:
		return backend.Denied
	case status == http.StatusNotFound && op.name == "HeadBucket":
		return backend.Missing
	case status == http.StatusNotFound:
		return backend.NotFound
	}
	return backend.Unreachable
}

var (
	deniedAction = regexp.MustCompile(`not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)(?: on resource: (\S+))?`)
	regionName   = regexp.MustCompile(`^[a-z0-9-]{2,32}$`)
	expecting    = regexp.MustCompile(`expecting '([a-z0-9-]{2,32})'`)
)

// otherRegion is the bucket's region where the answer says that it is not the
// one the request was signed for.
func otherRegion(answer *smithyhttp.ResponseError, code, message string) string {
	if answer == nil || answer.Response == nil || answer.Response.Response == nil {
		return ""
	}
	status := answer.HTTPStatusCode()
	if status != http.StatusMovedPermanently && status != http.StatusBadRequest && status != http.StatusTemporaryRedirect {
		return ""
	}
	region := answer.Response.Header.Get("X-Amz-Bucket-Region")
	if !regionName.MatchString(region) {
		region = ""
	}
	if m := expecting.FindStringSubmatch(message); m != nil && region == "" {
		region = m[1]
	}
	if region == "" || status == http.StatusMovedPermanently || code == "AuthorizationHeaderMalformed" {
		return region
	}
	// A HEAD answer has no code: 400 is also what expired credentials give.
	if r := answer.Response.Request; r != nil && !strings.Contains(r.Header.Get("Authorization"), "/"+region+"/") {
		return region
	}
	return ""
}

// container is the bucket or table that a resource is in.
func container(resource string) string {
	if rest, ok := strings.CutPrefix(resource, "s3://"); ok {
		bucket, _, _ := strings.Cut(rest, "/")
		return BucketName(bucket)
	}
	if i := strings.LastIndex(resource, " of table "); i >= 0 && strings.HasPrefix(resource, "item ") {
		return resource[i+len(" of "):]
	}
	return resource
}

// detail is what went wrong in one line: the service's code and message, or
// the cause below the SDK's own layers.
func detail(err error) string {
	text := ""
	var api smithy.APIError
	var sent *url.Error
	var answer *smithyhttp.ResponseError
	var stalled *stalledError
	switch {
	case errors.As(err, &api):
		text = strings.TrimSuffix(api.ErrorCode()+": "+api.ErrorMessage(), ": ")
		if errors.As(err, &answer) && answer.HTTPStatusCode() >= 500 {
			text += fmt.Sprintf(" (HTTP %d)", answer.HTTPStatusCode())
		}
	case errors.As(err, &stalled):
		text = stalled.text
	case errors.As(err, &sent):
		host := sent.URL
		if u, parseErr := url.Parse(sent.URL); parseErr == nil {
			host = u.Host
		}
		text = host + ": " + sent.Err.Error()
	default:
		text = err.Error()
		var op *smithy.OperationError
		if errors.As(err, &op) {
			text = op.Err.Error()
		}
	}
	var tried *retry.MaxAttemptsError
	if errors.As(err, &tried) {
		text += fmt.Sprintf(", after %d attempts", tried.Attempt)
	}
	return quote.Line(text, maxDetail)
}

// call is one operation of a service.
type call struct{ service, name string }

// operation gives the innermost operation that failed: a request can fail
// since the role behind it could not be assumed.
func operation(err error) (call, bool) {
	var c call
	found := false
	for {
		var op *smithy.OperationError
		if !errors.As(err, &op) {
			return c, found
		}
		c, found = call{service: strings.ToLower(strings.ReplaceAll(op.Service(), " ", "")), name: op.Operation()}, true
		err = op.Err
	}
}

// action is the IAM action that allows the call
// (AWS Service Authorization Reference).
func (c call) action() string {
	if c.service == "" {
		return "a request"
	}
	name := c.name
	if c.service == "s3" {
		switch c.name {
		case "HeadObject":
			name = "GetObject"
		case "HeadBucket", "ListObjects", "ListObjectsV2":
			name = "ListBucket"
		case "ListBuckets":
			name = "ListAllMyBuckets"
		case "ListObjectVersions":
			name = "ListBucketVersions"
		case "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload":
			name = "PutObject"
		case "DeleteObjects":
			name = "DeleteObject"
		case "GetBucketEncryption":
			name = "GetEncryptionConfiguration"
		case "PutBucketEncryption":
			name = "PutEncryptionConfiguration"
		case "GetPublicAccessBlock":
			name = "GetBucketPublicAccessBlock"
		case "PutPublicAccessBlock":
			name = "PutBucketPublicAccessBlock"
		case "GetBucketLifecycleConfiguration":
			name = "GetLifecycleConfiguration"
		case "PutBucketLifecycleConfiguration":
			name = "PutLifecycleConfiguration"
		}
	}
	return c.service + ":" + name
}

var (
	deniedCall = regexp.MustCompile(`operation error (S3|DynamoDB): ([A-Za-z0-9]+), .*StatusCode: (?:403|400), .*api error (?:AccessDenied|AccessDeniedException|Forbidden)\b`)
	saidObject = regexp.MustCompile(`object "([^"\s]+)" in S3 bucket "([^"\s]+)"`)
	saidBucket = regexp.MustCompile(`S3 bucket "([^"\s]+)"`)
)

// DeniedIn finds a denied permission in what another program, such as
// terraform, says of a request that it made with the same SDK: the action, and
// the resource where the text names it.
func DeniedIn(text string) (action, resource string, found bool) {
	m := deniedCall.FindStringSubmatch(text)
	if m == nil {
		return "", "", false
	}
	action, resource = call{service: strings.ToLower(m[1]), name: m[2]}.action(), "what it names"
	if o := saidObject.FindStringSubmatch(text); o != nil {
		resource = ObjectName(o[2], o[1])
	} else if b := saidBucket.FindStringSubmatch(text); b != nil {
		resource = BucketName(b[1])
	}
	if said := deniedAction.FindStringSubmatch(text); said != nil {
		action = said[1]
		if said[2] != "" {
			resource = strings.Trim(said[2], `".`)
		}
	}
	return action, quote.Line(resource, 200), true
}
