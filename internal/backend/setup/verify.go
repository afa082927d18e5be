package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// Verify is the full check: what [Backend.Check] does, and every safeguard that
// [Backend.Setup] makes. It changes nothing. A cancel is an error; a safeguard
// that could not be read is a warning.
func (b *Backend) Verify(ctx context.Context) (Report, error) {
	r, err := b.Check(ctx)
	if err != nil {
		return r, err
	}
	looks := []func(context.Context, *Report){b.verifyEncryption, b.verifyAccessBlock, b.verifyPolicy, b.verifyLifecycle}
	if b.addr.Table != "" {
		looks = append(looks, b.verifyTable, b.verifyRecovery)
	}
	parts := make([]Report, len(looks))
	var all sync.WaitGroup
	for i, look := range looks {
		all.Go(func() { look(ctx, &parts[i]) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("verify backend: %w", err)
	}
	for _, p := range parts {
		r.Findings = append(r.Findings, p.Findings...)
	}
	return r, nil
}

func (b *Backend) verifyEncryption(ctx context.Context, r *Report) {
	what, want := b.bucket()+" encryption", "on"
	rule, err := b.encryption(ctx)
	switch {
	case err != nil:
		r.unread(what, want, err)
	case algorithm(rule) == "":
		r.add(what, want, "off", Error)
	case b.upgrade(rule):
		r.add(what, "with the KMS key of the backend", string(algorithm(rule)), Warning)
	}
}

// encryption is the bucket's rule, nil without one.
func (b *Backend) encryption(ctx context.Context) (*types.ServerSideEncryptionRule, error) {
	out, err := b.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &b.addr.Bucket})
	err = awsclient.Explain(err, b.bucket())
	switch {
	case backend.Is(err, backend.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case out.ServerSideEncryptionConfiguration == nil || len(out.ServerSideEncryptionConfiguration.Rules) == 0:
		return nil, nil
	}
	return &out.ServerSideEncryptionConfiguration.Rules[0], nil
}

func algorithm(rule *types.ServerSideEncryptionRule) types.ServerSideEncryption {
	if rule == nil || rule.ApplyServerSideEncryptionByDefault == nil {
		return ""
	}
	return rule.ApplyServerSideEncryptionByDefault.SSEAlgorithm
}

// upgrade reports whether the bucket's encryption is weaker than what the
// backend asks for: a KMS key of its own instead of S3's. Another KMS key is
// not weaker.
func (b *Backend) upgrade(rule *types.ServerSideEncryptionRule) bool {
	return b.settings.KMSKeyID != "" && algorithm(rule) == types.ServerSideEncryptionAes256
}

func (b *Backend) verifyAccessBlock(ctx context.Context, r *Report) {
	what, want := b.bucket()+" public access block", "on, in all four settings"
	have, err := b.accessBlock(ctx)
	switch {
	case err != nil:
		r.unread(what, want, err)
	case have == nil:
		r.add(what, want, "off", Error)
	case !blocked(have):
		r.add(what, want, "on in part", Error)
	}
}

// accessBlock is the bucket's setting, nil without one.
func (b *Backend) accessBlock(ctx context.Context) (*types.PublicAccessBlockConfiguration, error) {
	out, err := b.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &b.addr.Bucket})
	err = awsclient.Explain(err, b.bucket())
	switch {
	case backend.Is(err, backend.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return out.PublicAccessBlockConfiguration, nil
}

func blocked(c *types.PublicAccessBlockConfiguration) bool {
	return c != nil && aws.ToBool(c.BlockPublicAcls) && aws.ToBool(c.BlockPublicPolicy) &&
		aws.ToBool(c.IgnorePublicAcls) && aws.ToBool(c.RestrictPublicBuckets)
}

func (b *Backend) verifyPolicy(ctx context.Context, r *Report) {
	what, want := b.bucket()+" policy", "one that denies requests without TLS"
	if b.plain() {
		return
	}
	doc, err := b.policy(ctx)
	if err != nil {
		r.unread(what, want, err)
		return
	}
	if _, changed, err := withTLS(doc, b.addr.Bucket, b.region()); err != nil {
		r.unread(what, want, err)
	} else if changed {
		r.add(what, want, "without it", Warning)
	}
}

// policy is the bucket's policy document, empty without one.
func (b *Backend) policy(ctx context.Context) (string, error) {
	out, err := b.s3.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &b.addr.Bucket})
	err = awsclient.Explain(err, b.bucket())
	switch {
	case backend.Is(err, backend.NotFound):
		return "", nil
	case err != nil:
		return "", err
	}
	return aws.ToString(out.Policy), nil
}

func (b *Backend) verifyLifecycle(ctx context.Context, r *Report) {
	what, want := b.bucket()+" lifecycle", "old versions of "+recordPrefix+" expire"
	have, err := b.lifecycle(ctx)
	switch {
	case err != nil:
		r.unread(what, want, err)
	case !expires(have.Rules):
		r.add(what, want, "they stay for ever", Warning)
	}
}

// recordPrefix is what tfguard's own records are under: a heartbeat every ten
// seconds leaves a version each.
const recordPrefix = ".tfguard/"

// lifecycle is the bucket's configuration, without rules where it has none.
func (b *Backend) lifecycle(ctx context.Context) (*s3.GetBucketLifecycleConfigurationOutput, error) {
	out, err := b.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &b.addr.Bucket})
	err = awsclient.Explain(err, b.bucket())
	if backend.Is(err, backend.NotFound) {
		return &s3.GetBucketLifecycleConfigurationOutput{}, nil
	}
	return out, err
}

// expires reports whether a rule removes old versions of tfguard's records.
func expires(rules []types.LifecycleRule) bool {
	return slices.ContainsFunc(rules, func(r types.LifecycleRule) bool {
		if r.Status != types.ExpirationStatusEnabled || r.NoncurrentVersionExpiration == nil || r.NoncurrentVersionExpiration.NoncurrentDays == nil {
			return false
		}
		//lint:ignore SA1019 rules from before 2016 are in this form, and S3 still gives them back in it
		prefix := aws.ToString(r.Prefix)
		if f := r.Filter; f != nil {
			if f.And != nil || f.Tag != nil || f.ObjectSizeGreaterThan != nil || f.ObjectSizeLessThan != nil {
				return false
			}
			prefix = aws.ToString(f.Prefix)
		}
		return strings.HasPrefix(recordPrefix, prefix)
	})
}

func (b *Backend) verifyTable(ctx context.Context, r *Report) {
	t, err := b.describe(ctx)
	if err != nil {
		r.unread(b.table()+" settings", "readable", err)
		return
	}
	if !onDemand(t) {
		r.add(b.table()+" billing", "PAY_PER_REQUEST", "PROVISIONED, which can throttle", Warning)
	}
	if !aws.ToBool(t.DeletionProtectionEnabled) {
		r.add(b.table()+" deletion protection", "on", "off", Warning)
	}
}

func onDemand(t *dynamotypes.TableDescription) bool {
	return t.BillingModeSummary != nil && t.BillingModeSummary.BillingMode == dynamotypes.BillingModePayPerRequest
}

func (b *Backend) verifyRecovery(ctx context.Context, r *Report) {
	what, want := b.table()+" point-in-time recovery", "on"
	on, err := b.recovery(ctx)
	switch {
	case err != nil:
		r.unread(what, want, err)
	case !on:
		r.add(what, want, "off", Warning)
	}
}

func (b *Backend) recovery(ctx context.Context) (on bool, err error) {
	out, err := b.dynamo.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: &b.addr.Table})
	if err != nil {
		return false, awsclient.Explain(err, b.table())
	}
	if out.ContinuousBackupsDescription == nil {
		return false, errors.New("the answer says nothing about backups")
	}
	p := out.ContinuousBackupsDescription.PointInTimeRecoveryDescription
	return p != nil && p.PointInTimeRecoveryStatus == dynamotypes.PointInTimeRecoveryStatusEnabled, nil
}
