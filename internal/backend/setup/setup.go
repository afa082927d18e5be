// Package setup checks, creates and repairs what a backend "s3" block names:
// the bucket and the table of the locks.
//
// It never weakens and never removes: a policy and a lifecycle configuration
// that are there are added to, a KMS key stays, and what it cannot read it says
// rather than assumes. S3 has no conditional write of those two documents; an
// edit of somebody else in the instant between read and write is lost.
package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

// Backend is the bucket and the table of one state.
type Backend struct {
	// Owner gives the account that the bucket must belong to for Setup to touch
	// it; nil or an empty answer leaves that to what AWS permits.
	Owner func(context.Context) (string, error)

	s3       *s3.Client
	dynamo   *dynamodb.Client
	addr     backend.Address
	settings backend.Settings
	pause    time.Duration // between two looks at something that is being made
	patience time.Duration // for which something that is being made is waited for
}

// New makes no request.
func New(s3 *s3.Client, dynamo *dynamodb.Client, addr backend.Address, settings backend.Settings) *Backend {
	return &Backend{s3: s3, dynamo: dynamo, addr: addr, settings: settings, pause: time.Second, patience: 3 * time.Minute}
}

func (b *Backend) bucket() string { return awsclient.BucketName(b.addr.Bucket) }
func (b *Backend) table() string  { return awsclient.TableName(b.addr.Table) }

// region is where the clients look, the settings' or the environment's.
func (b *Backend) region() string { return b.s3.Options().Region }

// endpoint is a custom endpoint of S3, empty for AWS's own.
func (b *Backend) endpoint() string { return aws.ToString(b.s3.Options().BaseEndpoint) }

// plain reports whether S3 is spoken to without TLS. A bucket that denies this
// would then refuse everything, the repair included.
func (b *Backend) plain() bool { return strings.HasPrefix(b.endpoint(), "http://") }

// Severity of a finding.
type Severity string

// An error endangers the state or its locks; a warning is a missing safeguard.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one difference between what is and what should be.
type Finding struct {
	What     string   `json:"what"`
	Want     string   `json:"want"`
	Have     string   `json:"have"`
	Severity Severity `json:"severity"`
	Fix      string   `json:"fix"` // the next command or setting
}

// String is the finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: is %s, should be %s", f.What, f.Have, f.Want)
}

// Report is what a check found; no findings means all is as it should be.
type Report struct {
	Findings []Finding `json:"findings"`
}

// fix is the command that repairs every finding that can be repaired.
const fix = "tfguard backend setup"

// unsupported reports whether a store does not have a feature at all, as many
// that resemble S3 or DynamoDB do not.
func unsupported(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "NotImplemented", "MethodNotAllowed", "UnknownOperationException", "XNotImplemented":
			return true
		}
	}
	var answer *smithyhttp.ResponseError
	return errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusNotImplemented
}

// code is the service's own name of an error, empty where there is none.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// until looks again until done, or an error, or the backend's patience ends.
func (b *Backend) until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	bounded, stop := context.WithTimeout(ctx, b.patience)
	defer stop()
	for {
		ok, err := done(bounded)
		if ok || err != nil && bounded.Err() == nil {
			return err
		}
		select {
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s is still not ready after %s", what, b.patience)
		case <-time.After(b.pause):
		}
	}
}
