package setup

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

// Step is one thing that Setup has dealt with.
type Step struct {
	What   string
	Action string // one of the actions below
	Detail string // why, where it was skipped
}

// Actions of a [Step].
const (
	Created  = "created"
	Repaired = "repaired"
	OK       = "ok"      // it was as it should be
	Skipped  = "skipped" // a safeguard that could not be made; Detail says why
)

// Setup creates what is missing and repairs what differs, one thing at a time,
// and reports each. It may be run again, and by two people at once. Bucket,
// versioning and table must succeed; a safeguard that this role may not make,
// or this store does not have, is skipped. Whatever was made before an error
// stays. A bucket of somebody else is a problem of kind [backend.Foreign] and
// is not touched.
func (b *Backend) Setup(ctx context.Context, report func(Step)) error {
	fresh, err := b.makeBucket(ctx, report)
	if err != nil {
		return fmt.Errorf("set up bucket: %w", err)
	}
	if err := b.makeVersioning(ctx, fresh, report); err != nil {
		return fmt.Errorf("set up versioning: %w", err)
	}
	safeguards := []struct {
		what string
		make func(context.Context) (done bool, err error)
	}{
		{b.bucket() + " encryption", b.makeEncryption},
		{b.bucket() + " public access block", b.makeAccessBlock},
		{b.bucket() + " policy", b.makePolicy},
		{b.bucket() + " lifecycle", b.makeLifecycle},
	}
	freshTable := false
	if b.addr.Table != "" {
		safeguards = append(safeguards, []struct {
			what string
			make func(context.Context) (done bool, err error)
		}{
			{b.table() + " billing", b.makeOnDemand},
			{b.table() + " deletion protection", b.makeProtection},
			{b.table() + " point-in-time recovery", b.makeRecovery},
		}...)
		if freshTable, err = b.makeTable(ctx, report); err != nil {
			return fmt.Errorf("set up table: %w", err)
		}
	}
	for i, s := range safeguards {
		action := Repaired
		if i < 4 && fresh || i >= 4 && freshTable {
			action = Created
		}
		done, err := s.make(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("set up %s: %w", s.what, ctx.Err())
		case err != nil:
			report(Step{What: s.what, Action: Skipped, Detail: err.Error()})
		case done:
			report(Step{What: s.what, Action: action})
		default:
			report(Step{What: s.what, Action: OK})
		}
	}
	return nil
}

// makeBucket says whether the bucket is new.
func (b *Backend) makeBucket(ctx context.Context, report func(Step)) (fresh bool, err error) {
	owner := ""
	if b.Owner != nil {
		if owner, err = b.Owner(ctx); err != nil {
			return false, err
		}
	}
	look := func(ctx context.Context) error {
		err := b.head(ctx, owner)
		if backend.Is(err, backend.Denied) {
			_, second := b.versioning(ctx)
			if second == nil && owner != "" {
				// It may be read, but not as a bucket of this account.
				return &backend.Problem{Kind: backend.Foreign, Action: "s3:ListBucket", Resource: b.bucket(), Err: err}
			}
			return bucketProblem(err, second)
		}
		return err
	}
	err = look(ctx)
	if err == nil {
		report(Step{What: b.bucket(), Action: OK})
		return false, nil
	}
	if !backend.Is(err, backend.Missing) {
		return false, err
	}
	_, err = b.s3.CreateBucket(ctx, b.creation())
	created := err == nil
	switch code(err) {
	case "BucketAlreadyOwnedByYou", "OperationAborted":
		err = nil // somebody else of this account makes it right now
	}
	if err != nil {
		return false, awsclient.Explain(err, b.bucket())
	}
	err = b.until(ctx, b.bucket(), func(ctx context.Context) (bool, error) {
		err := look(ctx)
		if backend.Is(err, backend.Missing) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return false, err
	}
	action := OK
	if created {
		action = Created
	}
	report(Step{What: b.bucket(), Action: action, Detail: b.region()})
	return created, nil
}

// creation asks for the bucket in the clients' region; us-east-1 is asked for
// by leaving the constraint out. A canned ACL needs a bucket that accepts ACLs.
func (b *Backend) creation() *s3.CreateBucketInput {
	in := &s3.CreateBucketInput{Bucket: &b.addr.Bucket}
	if r := b.region(); r != "us-east-1" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(r)}
	}
	if acl := b.settings.ACL; acl != "" && acl != string(types.ObjectCannedACLBucketOwnerFullControl) {
		in.ObjectOwnership = types.ObjectOwnershipBucketOwnerPreferred
	}
	return in
}

func (b *Backend) makeVersioning(ctx context.Context, fresh bool, report func(Step)) error {
	what := b.bucket() + " versioning"
	status, err := b.versioning(ctx)
	if err != nil {
		return err
	}
	if status == types.BucketVersioningStatusEnabled {
		report(Step{What: what, Action: OK})
		return nil
	}
	_, err = b.s3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &b.addr.Bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	if err != nil {
		return awsclient.Explain(err, b.bucket())
	}
	action := Repaired
	if fresh {
		action = Created
	}
	report(Step{What: what, Action: action})
	return nil
}

func (b *Backend) makeEncryption(ctx context.Context) (bool, error) {
	rule, err := b.encryption(ctx)
	if err != nil {
		return false, err
	}
	if algorithm(rule) != "" && !b.upgrade(rule) {
		return false, nil
	}
	if rule == nil {
		rule = &types.ServerSideEncryptionRule{}
	}
	rule.ApplyServerSideEncryptionByDefault = &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}
	if b.settings.KMSKeyID != "" {
		rule.ApplyServerSideEncryptionByDefault = &types.ServerSideEncryptionByDefault{
			SSEAlgorithm: types.ServerSideEncryptionAwsKms, KMSMasterKeyID: &b.settings.KMSKeyID}
		rule.BucketKeyEnabled = aws.Bool(true)
	}
	_, err = b.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &b.addr.Bucket,
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{*rule}}})
	return true, awsclient.Explain(err, b.bucket())
}

func (b *Backend) makeAccessBlock(ctx context.Context) (bool, error) {
	have, err := b.accessBlock(ctx)
	if err != nil || blocked(have) {
		return false, err
	}
	_, err = b.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &b.addr.Bucket,
		PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
			BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true),
			IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true),
		}})
	return true, awsclient.Explain(err, b.bucket())
}

func (b *Backend) makePolicy(ctx context.Context) (bool, error) {
	if b.plain() {
		return false, errors.New("the S3 endpoint has no TLS, it would refuse everything")
	}
	doc, err := b.policy(ctx)
	if err != nil {
		return false, err
	}
	policy, changed, err := withTLS(doc, b.addr.Bucket, b.region())
	if err != nil || !changed {
		return false, err
	}
	_, err = b.s3.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &b.addr.Bucket, Policy: &policy})
	return true, awsclient.Explain(err, b.bucket())
}

// ruleID names the rule that setup adds to a bucket's lifecycle.
const ruleID = "tfguard-records"

func (b *Backend) makeLifecycle(ctx context.Context) (bool, error) {
	have, err := b.lifecycle(ctx)
	if err != nil || expires(have.Rules) {
		return false, err
	}
	_, err = b.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket:                             &b.addr.Bucket,
		LifecycleConfiguration:             &types.BucketLifecycleConfiguration{Rules: withExpiry(have.Rules)},
		TransitionDefaultMinimumObjectSize: have.TransitionDefaultMinimumObjectSize,
	})
	return true, awsclient.Explain(err, b.bucket())
}

// withExpiry adds the rule for old versions of tfguard's records, in place of
// one of that name that does not do it.
func withExpiry(rules []types.LifecycleRule) []types.LifecycleRule {
	var out []types.LifecycleRule
	for _, r := range rules {
		if aws.ToString(r.ID) != ruleID {
			out = append(out, r)
		}
	}
	return append(out, types.LifecycleRule{
		ID: aws.String(ruleID), Status: types.ExpirationStatusEnabled,
		Filter:                      &types.LifecycleRuleFilter{Prefix: aws.String(recordPrefix)},
		NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(1)},
		Expiration:                  &types.LifecycleExpiration{ExpiredObjectDeleteMarker: aws.Bool(true)},
	})
}

// makeTable says whether the table is new, and returns when it is active.
func (b *Backend) makeTable(ctx context.Context, report func(Step)) (fresh bool, err error) {
	t, err := b.describe(ctx)
	if backend.Is(err, backend.Missing) {
		_, err = b.dynamo.CreateTable(ctx, b.tableCreation())
		fresh = err == nil
		if code(err) == "ResourceInUseException" {
			err = nil // somebody else makes it right now
		}
		t, err = nil, awsclient.Explain(err, b.table())
	}
	if err != nil {
		return false, err
	}
	if t == nil || t.TableStatus != dynamotypes.TableStatusActive {
		if t, err = b.active(ctx); err != nil {
			return fresh, err
		}
	}
	if err := b.usable(t); err != nil {
		return fresh, err
	}
	action := OK
	if fresh {
		action = Created
	}
	report(Step{What: b.table(), Action: action})
	return fresh, nil
}

func (b *Backend) tableCreation() *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		TableName:                 &b.addr.Table,
		AttributeDefinitions:      []dynamotypes.AttributeDefinition{{AttributeName: aws.String(lockID), AttributeType: dynamotypes.ScalarAttributeTypeS}},
		KeySchema:                 []dynamotypes.KeySchemaElement{{AttributeName: aws.String(lockID), KeyType: dynamotypes.KeyTypeHash}},
		BillingMode:               dynamotypes.BillingModePayPerRequest,
		DeletionProtectionEnabled: aws.Bool(true),
	}
}

// active waits until the table can be used. One that is not there any more was
// being deleted.
func (b *Backend) active(ctx context.Context) (t *dynamotypes.TableDescription, err error) {
	err = b.until(ctx, b.table(), func(ctx context.Context) (bool, error) {
		t, err = b.describe(ctx)
		if backend.Is(err, backend.Missing) {
			return false, nil // not there yet: DynamoDB makes it in the background
		}
		return err == nil && t.TableStatus == dynamotypes.TableStatusActive, err
	})
	return t, err
}

func (b *Backend) makeOnDemand(ctx context.Context) (bool, error) {
	t, err := b.describe(ctx)
	if err != nil || onDemand(t) {
		return false, err
	}
	return b.update(ctx, &dynamodb.UpdateTableInput{TableName: &b.addr.Table, BillingMode: dynamotypes.BillingModePayPerRequest})
}

func (b *Backend) makeProtection(ctx context.Context) (bool, error) {
	t, err := b.describe(ctx)
	if err != nil || aws.ToBool(t.DeletionProtectionEnabled) {
		return false, err
	}
	return b.update(ctx, &dynamodb.UpdateTableInput{TableName: &b.addr.Table, DeletionProtectionEnabled: aws.Bool(true)})
}

// update changes the table and waits until it is active again. Another's
// change that is under way is waited for.
func (b *Backend) update(ctx context.Context, in *dynamodb.UpdateTableInput) (bool, error) {
	err := b.until(ctx, b.table(), func(ctx context.Context) (bool, error) {
		_, err := b.dynamo.UpdateTable(ctx, in)
		if code(err) == "ResourceInUseException" {
			return false, nil
		}
		return err == nil, awsclient.Explain(err, b.table())
	})
	if err != nil {
		return false, err
	}
	_, err = b.active(ctx)
	return true, err
}

func (b *Backend) makeRecovery(ctx context.Context) (bool, error) {
	on, err := b.recovery(ctx)
	if err != nil || on {
		return false, err
	}
	err = b.until(ctx, b.table(), func(ctx context.Context) (bool, error) {
		_, err := b.dynamo.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: &b.addr.Table,
			PointInTimeRecoverySpecification: &dynamotypes.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}})
		if code(err) == "ContinuousBackupsUnavailableException" {
			return false, nil // a new table's backups are still being set up
		}
		return err == nil, awsclient.Explain(err, b.table())
	})
	return err == nil, err
}
