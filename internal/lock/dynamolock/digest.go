package dynamolock

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
)

func (s *Store) digestItem() string { return awsclient.ItemName(s.addr.Table, s.addr.DigestID()) }

// Digest gives the MD5 of the state as it is kept, meant to be 32 lower-case
// hexadecimal digits; terraform tolerates anything else, so it is returned as
// it is, and empty where it is no string.
func (s *Store) Digest(ctx context.Context) (hex string, found bool, err error) {
	item, err := s.readDigest(ctx)
	if err != nil || len(item) == 0 {
		return "", false, err
	}
	if v, ok := item[digestAttribute].(*types.AttributeValueMemberS); ok {
		hex = v.Value
	}
	return hex, true, nil
}

func (s *Store) readDigest(ctx context.Context) (map[string]types.AttributeValue, error) {
	out, err := s.client.GetItem(ctx, get(s.addr.Table, s.addr.DigestID(), digestAttribute))
	if err != nil {
		return nil, fmt.Errorf("read digest: %w", awsclient.Explain(err, s.digestItem()))
	}
	return out.Item, nil
}

// PutDigest replaces the digest that is there now. Somebody who writes another
// in between makes it fail with a problem of kind [backend.Changed]; a caller
// that is to exclude this holds the state's lock, as terraform does.
func (s *Store) PutDigest(ctx context.Context, hex string) error {
	before, err := s.readDigest(ctx)
	if err != nil {
		return err
	}
	_, err = s.client.PutItem(ctx, replaceDigest(s.addr.Table, s.addr.DigestID(), before, hex))
	err = awsclient.Explain(err, s.digestItem())
	if backend.Is(err, backend.Changed) {
		if now, _, readErr := s.Digest(ctx); readErr == nil && now == hex {
			return nil // refused by its own first attempt
		}
	}
	if err != nil {
		return fmt.Errorf("write digest: %w", err)
	}
	return nil
}

// RemoveDigest removes the digest that is there now, under the same condition.
// Without one it does nothing.
func (s *Store) RemoveDigest(ctx context.Context) error {
	before, err := s.readDigest(ctx)
	if err != nil || len(before) == 0 {
		return err
	}
	in := &dynamodb.DeleteItemInput{TableName: &s.addr.Table, Key: key(s.addr.DigestID())}
	in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues = unchanged(before, digestAttribute)
	_, err = s.client.DeleteItem(ctx, in)
	err = awsclient.Explain(err, s.digestItem())
	if backend.Is(err, backend.Changed) {
		if _, found, readErr := s.Digest(ctx); readErr == nil && !found {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove digest: %w", err)
	}
	return nil
}
