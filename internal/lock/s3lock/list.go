package s3lock

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

// reads is how many locks are read at the same time.
const reads = 16

// List gives every lock of a bucket to each, one after the other and in no
// order, with the key of the state that it is on; an error of each ends it. It
// lists the whole bucket and keeps nothing of it. A lock that is taken or
// released meanwhile may be listed or not. The settings say how to read it.
func List(ctx context.Context, client *s3.Client, bucket string, settings backend.Settings, each func(key string, o lock.Observation) error) error {
	var one sync.Mutex
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(reads)
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() && reading.Err() == nil {
		page, err := pages.NextPage(reading)
		if err != nil {
			if first := g.Wait(); first != nil {
				return first
			}
			return fmt.Errorf("list lock objects: %w", awsclient.Explain(err, awsclient.BucketName(bucket)))
		}
		for _, found := range page.Contents {
			key, ok := strings.CutSuffix(aws.ToString(found.Key), backend.LockSuffix)
			if !ok || key == "" || strings.HasSuffix(key, "/") { // no state has such a key
				continue
			}
			g.Go(func() error {
				o, err := New(client, backend.Address{Bucket: bucket, Key: key}, settings).Read(reading)
				if err != nil || o == nil { // released since
					return err
				}
				one.Lock()
				defer one.Unlock()
				return each(key, *o)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
