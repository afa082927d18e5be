package dynamolock

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
)

// segments is in how many parts a table is read at the same time.
const segments = 4

// List gives every lock of a table to each, one after the other and in no order,
// with the state that it is on; an error of each ends it. It reads the whole
// table. A table mostly holds digests: the service leaves them out, and nothing
// is kept. A lock that is taken or released meanwhile may be listed or not.
func List(ctx context.Context, client *dynamodb.Client, table string, each func(state string, o lock.Observation) error) error {
	var one sync.Mutex
	g, reading := errgroup.WithContext(ctx)
	for n := range segments {
		g.Go(func() error {
			pages := dynamodb.NewScanPaginator(client, scan(table, n))
			for pages.HasMorePages() {
				page, err := pages.NextPage(reading)
				if err != nil {
					return fmt.Errorf("list lock items: %w", awsclient.Explain(err, awsclient.TableName(table)))
				}
				now := awsclient.ServerTime(page.ResultMetadata)
				for _, item := range page.Items {
					state, ok := stateOf(item)
					if !ok {
						continue
					}
					o, err := observe(item)
					if err != nil {
						return fmt.Errorf("list lock items: %w", err)
					}
					o.ServerNow = now
					one.Lock()
					err = each(state, o)
					one.Unlock()
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// scan reads one part of a table, without the items that are surely digests.
func scan(table string, segment int) *dynamodb.ScanInput {
	return &dynamodb.ScanInput{
		TableName: &table, ConsistentRead: aws.Bool(true),
		Segment: aws.Int32(int32(segment)), TotalSegments: aws.Int32(segments),
		ProjectionExpression: aws.String("#key, #info"),
		FilterExpression:     aws.String("attribute_exists(#info) OR attribute_not_exists(#digest) OR NOT contains(#key, :suffix)"),
		ExpressionAttributeNames: map[string]string{
			"#key": keyAttribute, "#info": infoAttribute, "#digest": digestAttribute,
		},
		ExpressionAttributeValues: map[string]types.AttributeValue{":suffix": &types.AttributeValueMemberS{Value: backend.DigestSuffix}},
	}
}

// stateOf is the state that an item locks; a digest locks none. A lock may be on
// a state whose own name ends like a digest's: then it has an Info.
func stateOf(item map[string]types.AttributeValue) (string, bool) {
	key, ok := item[keyAttribute].(*types.AttributeValueMemberS)
	if !ok {
		return "", false // not a table of terraform's locks
	}
	_, info := item[infoAttribute]
	return key.Value, info || !strings.HasSuffix(key.Value, backend.DigestSuffix)
}
