package setup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

// Probe finds out by trying whether the stores keep the conditions that locks
// rest on: that what is there is not written over, and that what has changed is
// neither replaced nor removed. Stores that only resemble S3 or DynamoDB may
// take a condition and ignore it. Each finding is an error that says what is
// weaker there.
//
// It writes an object and an item of its own and removes them again, also after
// a cancel. Their names are no state's: they are below .tfguard/, and the item
// looks like a digest to whoever looks for locks. A versioned bucket keeps the
// probe's versions until its lifecycle rule removes them.
func (b *Backend) Probe(ctx context.Context) (Report, error) {
	name := recordPrefix + b.addr.Key + "/probe-" + rand.Text()[:16]
	probes := []func(context.Context, string, *Report) error{b.probeBucket}
	if b.addr.Table != "" {
		probes = append(probes, b.probeTable)
	}
	parts, errs := make([]Report, len(probes)), make([]error, len(probes))
	var all sync.WaitGroup
	for i, probe := range probes {
		all.Go(func() { errs[i] = probe(ctx, name, &parts[i]) })
	}
	all.Wait()
	var r Report
	for _, p := range parts {
		r.Findings = append(r.Findings, p.Findings...)
	}
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("probe backend: %w", err)
	}
	return r, nil
}

// trial is one conditional request.
type trial struct {
	what   string // the request and its condition
	send   func(*awsclient.Attempts) error
	refuse bool   // it must be refused, since its condition does not hold
	weaker string // what is weaker in a store that gets it wrong
}

// run sends the trials in their order. One that is carried out though it should
// have been refused is a finding, and the next ones still tell something. After
// one that should have been carried out and was not, nothing more is tried.
func (r *Report) run(where, instead string, trials []trial) error {
	for _, t := range trials {
		var sent awsclient.Attempts
		err := t.send(&sent)
		refused := backend.Is(err, backend.Changed) || t.refuse && backend.Is(err, backend.NotFound)
		want, have := "carried out", ""
		if t.refuse {
			want = "refused"
		}
		switch {
		case err != nil && unsupported(err):
			have = "not implemented"
		case err != nil && !refused:
			return err
		case t.refuse && !refused:
			have = "carried out all the same"
		case !t.refuse && refused && sent.Repeated():
			return fmt.Errorf("%w; its first attempt may have come through: try again", err)
		case !t.refuse && refused:
			have = "refused"
		default:
			continue
		}
		r.Findings = append(r.Findings, Finding{What: where + ": " + t.what, Want: want, Have: have + ": " + t.weaker, Severity: Error, Fix: instead})
		if !t.refuse {
			return nil
		}
	}
	return nil
}

// What is weaker without a condition.
const (
	noExclusion = "two runs can take the lock at the same time"
	noLoss      = "a run does not notice that another has taken over"
	noMatch     = "a lock can be removed that is not the one that was approved"
	noUse       = "tfguard cannot write its holder record, and cannot remove a lock"
)

func (b *Backend) probeBucket(ctx context.Context, key string, r *Report) error {
	where := awsclient.ObjectName(b.addr.Bucket, key)
	object := awsclient.ObjectOf(b.settings)
	const wrong = `"0123456789abcdef0123456789abcdef"`
	var etag string
	var there bool // something may have been written that has not been removed
	put := func(sent *awsclient.Attempts, condition func(*s3.PutObjectInput)) error {
		in := &s3.PutObjectInput{Bucket: &b.addr.Bucket, Key: &key, Body: bytes.NewReader([]byte(rand.Text())), ContentType: aws.String("text/plain")}
		condition(in)
		out, err := b.s3.PutObject(ctx, object.Put(in), sent.S3)
		err = awsclient.Explain(err, where)
		there = there || !backend.Is(err, backend.Denied)
		if err == nil {
			etag = aws.ToString(out.ETag)
		}
		return err
	}
	create := func(sent *awsclient.Attempts) error {
		return put(sent, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
	}
	replace := func(match *string) func(*awsclient.Attempts) error {
		return func(sent *awsclient.Attempts) error {
			return put(sent, func(in *s3.PutObjectInput) { in.IfMatch = match })
		}
	}
	remove := func(ctx context.Context, match *string, sent *awsclient.Attempts) error {
		_, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.addr.Bucket, Key: &key, IfMatch: match}, sent.S3)
		there = there && err != nil
		return awsclient.Explain(err, where)
	}
	err := r.run(b.bucket(), "keep the lock in DynamoDB (dynamodb_table), or use a store with conditional writes", []trial{
		{"put with If-None-Match where nothing is", create, false, noUse},
		{"put with If-None-Match where something is", create, true, noExclusion},
		{"put with the right If-Match", replace(&etag), false, noUse},
		{"put with a wrong If-Match", replace(aws.String(wrong)), true, noLoss},
		{"delete with a wrong If-Match", func(sent *awsclient.Attempts) error { return remove(ctx, aws.String(wrong), sent) }, true, noMatch},
		{"delete with the right If-Match", func(sent *awsclient.Attempts) error {
			if !there {
				return nil // by the wrong one
			}
			return remove(ctx, &etag, sent)
		}, false, noUse},
	})
	if !there {
		return err
	}
	return errors.Join(err, b.sweep(ctx, func(ctx context.Context) error { return remove(ctx, nil, new(awsclient.Attempts)) }))
}

func (b *Backend) probeTable(ctx context.Context, key string, r *Report) error {
	id := b.addr.Bucket + "/" + key + backend.DigestSuffix
	where := awsclient.ItemName(b.addr.Table, id)
	text := func(s string) dynamotypes.AttributeValue { return &dynamotypes.AttributeValueMemberS{Value: s} }
	digest := rand.Text()
	var there bool // something may have been written that has not been removed
	create := func(sent *awsclient.Attempts) error {
		_, err := b.dynamo.PutItem(ctx, &dynamodb.PutItemInput{TableName: &b.addr.Table,
			Item:                map[string]dynamotypes.AttributeValue{lockID: text(id), "Digest": text(digest)},
			ConditionExpression: aws.String("attribute_not_exists(" + lockID + ")")}, sent.DynamoDB)
		err = awsclient.Explain(err, where)
		there = there || !backend.Is(err, backend.Denied)
		return err
	}
	remove := func(ctx context.Context, match string, sent *awsclient.Attempts) error {
		in := &dynamodb.DeleteItemInput{TableName: &b.addr.Table, Key: map[string]dynamotypes.AttributeValue{lockID: text(id)}}
		if match != "" {
			in.ConditionExpression = aws.String("Digest = :seen")
			in.ExpressionAttributeValues = map[string]dynamotypes.AttributeValue{":seen": text(match)}
		}
		_, err := b.dynamo.DeleteItem(ctx, in, sent.DynamoDB)
		there = there && err != nil
		return awsclient.Explain(err, where)
	}
	err := r.run(b.table(), "keep the lock in S3 (use_lockfile), or use a store with conditional writes", []trial{
		{"conditional put where nothing is", create, false, noUse},
		{"conditional put where something is", create, true, noExclusion},
		{"delete with a wrong condition", func(sent *awsclient.Attempts) error { return remove(ctx, "another", sent) }, true, noMatch},
		{"delete with the right condition", func(sent *awsclient.Attempts) error {
			if !there {
				return nil // by the wrong one
			}
			return remove(ctx, digest, sent)
		}, false, noUse},
	})
	if !there {
		return err
	}
	return errors.Join(err, b.sweep(ctx, func(ctx context.Context) error { return remove(ctx, "", new(awsclient.Attempts)) }))
}

// sweep removes what the probe may have left, on a context of its own.
func (b *Backend) sweep(ctx context.Context, remove func(context.Context) error) error {
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	if err := remove(clean); err != nil && !backend.Is(err, backend.NotFound) {
		return fmt.Errorf("remove what the probe has written: %w", err)
	}
	return nil
}
