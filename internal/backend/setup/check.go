package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

// Check looks whether the backend can be used, in at most three requests at the
// same time: the bucket exists, is in this region and may be read; versioning is
// on; the table exists, is active and has the key that terraform's locks need.
// A backend that cannot be used is a [*backend.Problem]. What this role may not
// see, and terraform does not need, is a warning.
func (b *Backend) Check(ctx context.Context) (Report, error) {
	var (
		all                         sync.WaitGroup
		headErr, versionErr, tblErr error
		versioning                  types.BucketVersioningStatus
		table                       *dynamotypes.TableDescription
	)
	all.Go(func() { headErr = b.head(ctx, "") })
	all.Go(func() { versioning, versionErr = b.versioning(ctx) })
	if b.addr.Table != "" {
		all.Go(func() { table, tblErr = b.describe(ctx) })
	}
	all.Wait()
	var r Report
	if err := bucketProblem(headErr, versionErr); err != nil {
		return r, fmt.Errorf("check backend: %w", err)
	}
	switch {
	case versionErr != nil:
		r.unread(b.bucket()+" versioning", "on", versionErr)
	case versioning != types.BucketVersioningStatusEnabled:
		r.add(b.bucket()+" versioning", "on", off(string(versioning)), Error)
	}
	if b.addr.Table == "" {
		return r, nil
	}
	switch {
	case backend.Is(tblErr, backend.Denied):
		r.unread(b.table(), "active, with the key LockID", tblErr)
	case tblErr != nil:
		return r, fmt.Errorf("check backend: %w", tblErr)
	default:
		if err := b.usable(table); err != nil {
			return r, fmt.Errorf("check backend: %w", err)
		}
	}
	return r, nil
}

func (r *Report) add(what, want, have string, s Severity) {
	r.Findings = append(r.Findings, Finding{What: what, Want: want, Have: have, Severity: s, Fix: fix})
}

// unread says that something could not be looked at. A store that does not
// have the feature is no finding: nothing could be done about it.
func (r *Report) unread(what, want string, err error) {
	if unsupported(err) {
		return
	}
	r.Findings = append(r.Findings, Finding{What: what, Want: want, Have: "unknown (" + err.Error() + ")", Severity: Warning,
		Fix: "allow this role to read it, or check with one that may"})
}

func off(status string) string {
	if status == "" {
		return "off"
	}
	return strings.ToLower(status)
}

// head looks whether the bucket is there, and whose where an owner is given.
func (b *Backend) head(ctx context.Context, owner string) error {
	in := &s3.HeadBucketInput{Bucket: &b.addr.Bucket}
	if owner != "" {
		in.ExpectedBucketOwner = &owner
	}
	out, err := b.s3.HeadBucket(ctx, in)
	if err != nil {
		return awsclient.Explain(err, b.bucket())
	}
	if r := aws.ToString(out.BucketRegion); r != "" && r != b.region() && b.endpoint() == "" {
		return &backend.Problem{Kind: backend.WrongRegion, Action: "s3:ListBucket", Resource: b.bucket(), Detail: r,
			Err: errors.New("the bucket's region is " + r)}
	}
	return nil
}

func (b *Backend) versioning(ctx context.Context) (types.BucketVersioningStatus, error) {
	out, err := b.s3.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.addr.Bucket})
	if err != nil {
		return "", awsclient.Explain(err, b.bucket())
	}
	return out.Status, nil
}

// bucketProblem decides from two answers what is wrong with a bucket, nil where
// it can be used. The answer to a HEAD has a status alone: a 403 is another's
// bucket as well as a missing permission, a 400 may be anything. The other
// request's error has words. AWS names the missing permission only to an
// identity of the bucket's own account.
func bucketProblem(head, versioning error) error {
	var second *backend.Problem
	said := errors.As(versioning, &second)
	switch {
	case head == nil && said && (second.Kind == backend.Denied || second.Kind == backend.Unreachable && unsupported(versioning)):
		return nil
	case head == nil:
		return versioning
	case backend.Is(head, backend.Denied) && said && second.Kind == backend.Denied && !strings.Contains(second.Detail, "not authorized to perform"):
		p := *second
		p.Kind = backend.Foreign
		return &p
	case backend.Is(head, backend.Denied) && said && second.Kind == backend.Expired:
		return versioning // an access key that AWS does not know is a 403 as well
	case backend.Is(head, backend.Unreachable) && said && second.Kind != backend.Unreachable && second.Kind != backend.Denied:
		return versioning
	}
	return head
}

func (b *Backend) describe(ctx context.Context) (*dynamotypes.TableDescription, error) {
	out, err := b.dynamo.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &b.addr.Table})
	if err != nil {
		return nil, awsclient.Explain(err, b.table())
	}
	if out.Table == nil {
		return nil, errors.New("dynamodb:DescribeTable: the answer has no table")
	}
	return out.Table, nil
}

// usable checks that terraform can keep its locks in the table.
func (b *Backend) usable(t *dynamotypes.TableDescription) error {
	problem := func(detail string) error {
		return &backend.Problem{Kind: backend.Unusable, Action: "dynamodb:DescribeTable", Resource: b.table(), Detail: detail, Err: errors.New(detail)}
	}
	if err := schema(t); err != nil {
		return problem(err.Error())
	}
	switch t.TableStatus {
	case dynamotypes.TableStatusActive, dynamotypes.TableStatusUpdating:
		return nil
	}
	return problem("its status is " + string(t.TableStatus) + ", not ACTIVE")
}

// schema checks the key that terraform's items have: LockID, a string, alone.
func schema(t *dynamotypes.TableDescription) error {
	if t == nil || len(t.KeySchema) == 0 {
		return errors.New("it has no key schema")
	}
	if len(t.KeySchema) > 1 {
		return errors.New("it has a range key, the locks need the hash key LockID alone")
	}
	if name := aws.ToString(t.KeySchema[0].AttributeName); name != lockID {
		return fmt.Errorf("its hash key is %q, the locks need LockID", name)
	}
	for _, a := range t.AttributeDefinitions {
		if aws.ToString(a.AttributeName) == lockID && a.AttributeType != dynamotypes.ScalarAttributeTypeS {
			return fmt.Errorf("its hash key LockID has type %s, the locks need S", a.AttributeType)
		}
	}
	return nil
}

// lockID is the key of terraform's lock table.
const lockID = "LockID"
