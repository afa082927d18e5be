package holder

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// reads is how many records are read at the same time.
const reads = 16

// List gives every holder record of a bucket to each, one after the other and in
// no order, with the key of its state; an error of each ends it. A record that
// is written or removed meanwhile may be listed or not.
func List(ctx context.Context, client *s3.Client, bucket string, object awsclient.Object, each func(key string, seen lock.HolderSeen) error) error {
	var one sync.Mutex
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(reads)
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String(prefix)})
	for pages.HasMorePages() && reading.Err() == nil {
		page, err := pages.NextPage(reading)
		if err != nil {
			if first := g.Wait(); first != nil {
				return first
			}
			return fmt.Errorf("list holder records: %w", awsclient.Explain(err, awsclient.BucketName(bucket)))
		}
		for _, found := range page.Contents {
			addr := backend.Address{Bucket: bucket, Key: stateKey(aws.ToString(found.Key))}
			if addr.HolderKey() != aws.ToString(found.Key) {
				continue
			}
			g.Go(func() error {
				seen, err := New(client, addr, object).Read(reading)
				if err != nil || seen == nil { // removed since
					return err
				}
				one.Lock()
				defer one.Unlock()
				return each(addr.Key, *seen)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// The name of a record's object is its state's between these (Address.HolderKey).
const (
	prefix = ".tfguard/"
	suffix = "/holder.json"
)

// stateKey is the key of the state whose record this object would be.
func stateKey(object string) string {
	return strings.TrimSuffix(strings.TrimPrefix(object, prefix), suffix)
}
