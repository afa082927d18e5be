// Package awsclient turns the settings of an S3 backend into AWS clients and
// the errors of those clients into words a person can act on.
//
// Settings and environment mean what they mean to terraform's own backend
// (terraform internal/backend/remote-state/s3/backend.go); both go through the
// same library, hashicorp/aws-sdk-go-base, so that tfguard is never somebody
// else than the terraform it starts. Three differences are meant: a request is
// tried at least five times also where max_retries is lower; credentials are
// not validated ahead with a request of their own, the first real one does
// that; and checksums that S3-compatible stores choke on are left out for every
// custom S3 endpoint, not for skip_s3_checksum alone.
package awsclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	awsbase "github.com/hashicorp/aws-sdk-go-base/v2"
	"github.com/hashicorp/aws-sdk-go-base/v2/diag"

	"github.com/tfguard/tfguard/internal/backend"
)

// MinAttempts is how often a request is tried at least: three failures in a
// row are common enough under load to exhaust the SDK's own default.
const MinAttempts = 5

// Options are the limits of the clients. The zero value has the production
// defaults.
type Options struct {
	// UserAgent is "name/version", added to each request's User-Agent.
	UserAgent string
	// RequestTimeout bounds one request with all its attempts and the reading of
	// its answer; 2 minutes by default.
	RequestTimeout time.Duration
	// AttemptTimeout ends an attempt in which no byte moved for so long; 20
	// seconds by default. It does not bound an attempt that makes progress.
	AttemptTimeout time.Duration
	// MaxAttempts is how often a request is tried; at least [MinAttempts], or
	// max_retries of the settings where that is more.
	MaxAttempts int
	// MaxBackoff bounds the pause between two attempts; the SDK's 20 seconds by
	// default. The pauses grow exponentially from up to a second, with jitter.
	MaxBackoff time.Duration
	// Getenv is the environment for the names that are terraform's own, such as
	// AWS_S3_ENDPOINT; os.Getenv by default. The SDK reads the process's.
	Getenv func(string) string
}

func (o Options) withDefaults() Options {
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = 2 * time.Minute
	}
	if o.AttemptTimeout <= 0 {
		o.AttemptTimeout = 20 * time.Second
	}
	o.MaxAttempts = max(o.MaxAttempts, MinAttempts)
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	return o
}

// Clients are the clients of one backend. They share one configuration and one
// pool of connections and are safe for concurrent use.
type Clients struct {
	S3       *s3.Client
	DynamoDB *dynamodb.Client
	Region   string

	cfg      aws.Config
	getenv   func(string) string
	base     *awsbase.Config
	mu       sync.Mutex
	identity string
}

// Check finds what is wrong with the settings themselves, and asks nobody.
func Check(s backend.Settings, o Options) error {
	_, err := checked(s, o.withDefaults())
	return err
}

func checked(s backend.Settings, o Options) (resolved, error) {
	r, err := resolve(s, o)
	return r, cmp.Or(err, checkCustomerKey(s))
}

// New makes the clients of the settings. It makes no request where credentials
// are static or in a file, and checks nothing that the first request finds out;
// a role to assume, a metadata service or a list of allowed accounts is asked
// here. Its errors are a [*backend.Problem] where AWS or the credentials are
// at fault.
func New(ctx context.Context, s backend.Settings, o Options) (*Clients, error) {
	o = o.withDefaults()
	r, err := checked(s, o)
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, o.RequestTimeout)
	defer cancel()
	// The account is asked for lazily: see AccountID.
	lazy := *r.base
	lazy.SkipCredsValidation = true
	// Only so does the SDK's log, which else goes to stderr, go to a logger that
	// there is none of.
	lazy.SuppressDebugLog = false
	_, cfg, diags := awsbase.GetAwsConfig(ctx, &lazy)
	if err := firstError(diags, r.base); err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, errors.New(`no AWS region: set "region" in the backend, AWS_REGION, or a region in the AWS profile`)
	}
	cfg.HTTPClient = &boundedClient{next: cfg.HTTPClient, idle: o.AttemptTimeout}
	cfg.APIOptions = append(cfg.APIOptions, func(stack *middleware.Stack) error {
		// Of the library's own log, which reads all bodies.
		_, _ = stack.Initialize.Remove("TF_AWS_LogAttributeExtractor")
		_, _ = stack.Deserialize.Remove("TF_AWS_RequestResponseLogger")
		return stack.Initialize.Add(&deadline{limit: o.RequestTimeout}, middleware.Before)
	})
	cfg.Logger, cfg.ClientLogMode = logging.Nop{}, 0

	c := &Clients{Region: cfg.Region, cfg: cfg, getenv: o.Getenv, base: r.base}
	c.S3 = s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = r.pathStyle
		if r.s3Endpoint != "" {
			so.BaseEndpoint = aws.String(r.s3Endpoint)
			so.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled
			so.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
		}
		// Stores that only resemble S3 refuse or store the SDK's own checksums
		// (terraform issue 36704); what the environment asks for still counts.
		if r.plainChecksums {
			if o.Getenv("AWS_REQUEST_CHECKSUM_CALCULATION") == "" {
				so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			}
			if o.Getenv("AWS_RESPONSE_CHECKSUM_VALIDATION") == "" {
				so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
			}
		}
	})
	c.DynamoDB = dynamodb.NewFromConfig(cfg, func(do *dynamodb.Options) {
		if r.dynamoEndpoint != "" {
			do.BaseEndpoint = aws.String(r.dynamoEndpoint)
			do.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled
			do.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
		}
	})
	if len(r.base.AllowedAccountIds)+len(r.base.ForbiddenAccountIds) > 0 {
		id, err := c.AccountID(ctx)
		if err != nil {
			return nil, fmt.Errorf("check the allowed accounts: %w", err)
		}
		if err := r.base.VerifyAccountIDAllowed(id); err != nil {
			return nil, fmt.Errorf("check the allowed accounts: %w", err)
		}
	}
	return c, nil
}

// S3In is the client for buckets of another region, with the same credentials. An
// endpoint of the settings stays the endpoint.
func (c *Clients) S3In(region string) *s3.Client {
	return s3.New(c.S3.Options(), func(o *s3.Options) { o.Region = region })
}

// AccountID is the account of the credentials, asked for once; empty where
// skip_requesting_account_id and skip_credentials_validation forbid to ask.
func (c *Clients) AccountID(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity != "" {
		return c.identity, nil
	}
	id, _, diags := awsbase.GetAwsAccountIDAndPartition(ctx, c.cfg, c.base)
	if err := firstError(diags, c.base); err != nil {
		return "", fmt.Errorf("look up the AWS account: %w", err)
	}
	c.identity = id
	return id, nil
}

// firstError gives the first error among diags, explained.
func firstError(diags diag.Diagnostics, base *awsbase.Config) error {
	errs := diags.Errors()
	if len(errs) == 0 {
		return nil
	}
	with, ok := errs[0].(diag.DiagnosticWithErr)
	if !ok {
		return fmt.Errorf("set up the AWS clients: %s: %s", errs[0].Summary(), errs[0].Detail())
	}
	if awsbase.IsNoValidCredentialSourcesError(errs[0]) {
		return noCredentials(with.Err())
	}
	if _, found := operation(with.Err()); !found {
		return fmt.Errorf("set up the AWS clients: %w", with.Err())
	}
	resource := "the AWS credentials"
	switch {
	case awsbase.IsCannotAssumeRoleError(errs[0]) && len(base.AssumeRole) > 0:
		resource = base.AssumeRole[0].RoleARN
	case base.AssumeRoleWithWebIdentity != nil:
		resource = base.AssumeRoleWithWebIdentity.RoleARN
	}
	return Explain(with.Err(), resource)
}

// ServerTime is the service's clock when it answered, from the answer's Date
// header in whole seconds; zero where it sent none. The metadata is a result's
// ResultMetadata.
func ServerTime(metadata middleware.Metadata) time.Time {
	t, _ := awsmiddleware.GetServerTime(metadata)
	return t
}
