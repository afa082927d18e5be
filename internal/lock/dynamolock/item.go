package dynamolock

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tfguard/tfguard/internal/lock"
)

// The attributes that terraform gives its items.
const (
	keyAttribute    = "LockID"
	infoAttribute   = "Info"
	digestAttribute = "Digest"
)

func key(id string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{keyAttribute: &types.AttributeValueMemberS{Value: id}}
}

// get asks for one attribute of an item, and its key, as they are now.
func get(table, id, attribute string) *dynamodb.GetItemInput {
	return &dynamodb.GetItemInput{
		TableName: &table, Key: key(id), ConsistentRead: aws.Bool(true),
		ProjectionExpression:     aws.String("#key, #attribute"),
		ExpressionAttributeNames: map[string]string{"#key": keyAttribute, "#attribute": attribute},
	}
}

// create puts a lock where there is none.
func create(table, id string, raw []byte) *dynamodb.PutItemInput {
	item := key(id)
	item[infoAttribute] = &types.AttributeValueMemberS{Value: string(raw)}
	return &dynamodb.PutItemInput{
		TableName: &table, Item: item,
		ConditionExpression:      aws.String("attribute_not_exists(#key)"),
		ExpressionAttributeNames: map[string]string{"#key": keyAttribute},
	}
}

// What Observation.Match begins with where Raw alone does not tell which item
// it was: the attribute follows in DynamoDB's JSON.
const (
	matchAttribute = "attribute "
	matchMissing   = "no attribute"
)

// observe reads a lock from its item.
func observe(item map[string]types.AttributeValue) (lock.Observation, error) {
	o := lock.Observation{Store: lock.DynamoDB}
	v, ok := item[infoAttribute]
	if !ok {
		o.Raw, o.Match = []byte("{}"), matchMissing
		return o, nil
	}
	text, isText := v.(*types.AttributeValueMemberS)
	if isText && len(text.Value) <= lock.MaxRecord {
		o.Raw = []byte(text.Value)
		return o, nil
	}
	doc, err := encode(v)
	if err != nil {
		return o, err
	}
	o.Raw, o.Match = doc, matchAttribute+string(doc)
	if isText {
		o.Raw = []byte(text.Value)
	}
	o.Raw = o.Raw[:min(len(o.Raw), lock.MaxRecord)]
	return o, nil
}

// remove deletes an item if it is the observed one.
func remove(table, id string, o lock.Observation) (*dynamodb.DeleteItemInput, error) {
	if o.Store != lock.DynamoDB {
		return nil, fmt.Errorf("a lock of store %q is not kept in DynamoDB", o.Store)
	}
	seen := map[string]types.AttributeValue{}
	switch doc, typed := strings.CutPrefix(o.Match, matchAttribute); {
	case o.Match == "":
		seen[infoAttribute] = &types.AttributeValueMemberS{Value: string(o.Raw)}
	case typed:
		v, err := decode([]byte(doc))
		if err != nil {
			return nil, err
		}
		seen[infoAttribute] = v
	case o.Match != matchMissing:
		return nil, errors.New("the observation does not say which item it was")
	}
	in := &dynamodb.DeleteItemInput{TableName: &table, Key: key(id)}
	in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues = unchanged(seen, infoAttribute)
	return in, nil
}

// replaceDigest puts the digest in place of the one in the item before.
func replaceDigest(table, id string, before map[string]types.AttributeValue, hex string) *dynamodb.PutItemInput {
	item := key(id)
	item[digestAttribute] = &types.AttributeValueMemberS{Value: hex}
	in := &dynamodb.PutItemInput{TableName: &table, Item: item}
	in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues = unchanged(before, digestAttribute)
	if len(before) == 0 {
		in.ConditionExpression, in.ExpressionAttributeNames = aws.String("attribute_not_exists(#key)"), map[string]string{"#key": keyAttribute}
	}
	return in
}

// unchanged is the condition that an item is there and has this attribute as
// it was seen, or does not have it where it was not.
func unchanged(seen map[string]types.AttributeValue, attribute string) (*string, map[string]string, map[string]types.AttributeValue) {
	names := map[string]string{"#key": keyAttribute, "#attribute": attribute}
	v, ok := seen[attribute]
	if !ok {
		return aws.String("attribute_exists(#key) AND attribute_not_exists(#attribute)"), names, nil
	}
	return aws.String("attribute_exists(#key) AND #attribute = :seen"), names, map[string]types.AttributeValue{":seen": v}
}

// value is an attribute in DynamoDB's JSON; exactly one field is set.
type value struct {
	S    *string           `json:"S,omitempty"`
	N    *string           `json:"N,omitempty"`
	B    *[]byte           `json:"B,omitempty"`
	BOOL *bool             `json:"BOOL,omitempty"`
	NULL *bool             `json:"NULL,omitempty"`
	SS   []string          `json:"SS,omitempty"`
	NS   []string          `json:"NS,omitempty"`
	BS   [][]byte          `json:"BS,omitempty"`
	L    *[]value          `json:"L,omitempty"`
	M    *map[string]value `json:"M,omitempty"`
}

func encode(v types.AttributeValue) ([]byte, error) {
	plain, err := fromSDK(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(plain)
}

func decode(doc []byte) (types.AttributeValue, error) {
	var plain value
	if err := json.Unmarshal(doc, &plain); err != nil {
		return nil, errors.New("the observation does not say which item it was")
	}
	return plain.toSDK()
}

func fromSDK(v types.AttributeValue) (value, error) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return value{S: &v.Value}, nil
	case *types.AttributeValueMemberN:
		return value{N: &v.Value}, nil
	case *types.AttributeValueMemberB:
		return value{B: &v.Value}, nil
	case *types.AttributeValueMemberBOOL:
		return value{BOOL: &v.Value}, nil
	case *types.AttributeValueMemberNULL:
		return value{NULL: &v.Value}, nil
	case *types.AttributeValueMemberSS:
		return value{SS: v.Value}, nil
	case *types.AttributeValueMemberNS:
		return value{NS: v.Value}, nil
	case *types.AttributeValueMemberBS:
		return value{BS: v.Value}, nil
	case *types.AttributeValueMemberL:
		list := []value{}
		for _, e := range v.Value {
			plain, err := fromSDK(e)
			if err != nil {
				return value{}, err
			}
			list = append(list, plain)
		}
		return value{L: &list}, nil
	case *types.AttributeValueMemberM:
		fields := map[string]value{}
		for k, e := range v.Value {
			plain, err := fromSDK(e)
			if err != nil {
				return value{}, err
			}
			fields[k] = plain
		}
		return value{M: &fields}, nil
	}
	return value{}, fmt.Errorf("the lock item has an attribute of an unknown type %T", v)
}

func (v value) toSDK() (types.AttributeValue, error) {
	switch {
	case v.S != nil:
		return &types.AttributeValueMemberS{Value: *v.S}, nil
	case v.N != nil:
		return &types.AttributeValueMemberN{Value: *v.N}, nil
	case v.B != nil:
		return &types.AttributeValueMemberB{Value: *v.B}, nil
	case v.BOOL != nil:
		return &types.AttributeValueMemberBOOL{Value: *v.BOOL}, nil
	case v.NULL != nil:
		return &types.AttributeValueMemberNULL{Value: *v.NULL}, nil
	case v.SS != nil:
		return &types.AttributeValueMemberSS{Value: v.SS}, nil
	case v.NS != nil:
		return &types.AttributeValueMemberNS{Value: v.NS}, nil
	case v.BS != nil:
		return &types.AttributeValueMemberBS{Value: v.BS}, nil
	case v.L != nil:
		list := []types.AttributeValue{}
		for _, e := range *v.L {
			sdk, err := e.toSDK()
			if err != nil {
				return nil, err
			}
			list = append(list, sdk)
		}
		return &types.AttributeValueMemberL{Value: list}, nil
	case v.M != nil:
		fields := map[string]types.AttributeValue{}
		for k, e := range *v.M {
			sdk, err := e.toSDK()
			if err != nil {
				return nil, err
			}
			fields[k] = sdk
		}
		return &types.AttributeValueMemberM{Value: fields}, nil
	}
	return nil, errors.New("the observation does not say which item it was")
}
