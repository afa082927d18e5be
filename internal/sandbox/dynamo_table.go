package sandbox

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// table is the record of a DynamoDB table.
type table struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Created    time.Time         `json:"created"`
	Hash       keyDef            `json:"hash"`
	Range      *keyDef           `json:"range,omitempty"`
	Billing    string            `json:"billing"`
	Throughput throughput        `json:"throughput"`
	Class      string            `json:"class,omitempty"`
	Protected  bool              `json:"protected,omitempty"`
	SSE        *sseSpecification `json:"sse,omitempty"`
	Backups    backups           `json:"backups"`
	TTL        ttl               `json:"ttl"`
	Tags       []tag             `json:"tags,omitempty"`
}

// keyDef is a key attribute: its name and its type, S, N or B.
type keyDef struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type backups struct {
	Enabled bool      `json:"enabled,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Days    int       `json:"days,omitempty"`
}

type ttl struct {
	Enabled       bool
	AttributeName string `json:",omitempty"`
}

type throughput struct{ ReadCapacityUnits, WriteCapacityUnits int64 }

type sseSpecification struct {
	Enabled        bool
	SSEType        string `json:",omitempty"`
	KMSMasterKeyId string `json:",omitempty"`
}

type keyElement struct{ AttributeName, KeyType string }

type attributeDefinition struct{ AttributeName, AttributeType string }

// tableName is in every input that names a table.
type tableName struct{ TableName string }

var validTable = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`) })

// name is the table's name, also where its ARN was given.
func (n tableName) name() (string, error) {
	name := strings.TrimPrefix(n.TableName, tableARN(""))
	if !validTable().MatchString(name) {
		return "", validation(fmt.Sprintf("1 validation error detected: Value '%s' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have length between 3 and 255", n.TableName))
	}
	return name, nil
}

func tableARN(name string) string {
	return "arn:aws:dynamodb:" + Region + ":" + AccountID + ":table/" + name
}

// table reads a table's record and its items' bucket.
func (t *tx) table(in tableName) (*table, *bolt.Bucket, error) {
	name, err := in.name()
	if err != nil {
		return nil, nil, err
	}
	var tb table
	ok, err := getJSON(t.Bucket(rootTables), []byte(name), &tb)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, noTable(name)
	}
	return &tb, t.sub(rootItems, name), nil
}

// withTable reads a table for an operation that describes something of it.
func (s *Server) withTable(in tableName, fn func(*table, *bolt.Bucket) any) (out any, err error) {
	err = s.store.view(func(t *tx) error {
		tb, items, err := t.table(in)
		if err == nil {
			out = fn(tb, items)
		}
		return err
	})
	return out, err
}

// editTable changes a table's record. fn checks before it changes.
func (s *Server) editTable(in tableName, fn func(*table) error, answer func(*table, *bolt.Bucket) any) (out any, err error) {
	err = s.store.update(func(t *tx) error {
		tb, items, err := t.table(in)
		if err != nil {
			return err
		}
		if err := fn(tb); err != nil {
			return err
		}
		out = answer(tb, items)
		return t.putJSON(t.Bucket(rootTables), []byte(tb.Name), tb)
	})
	return out, err
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// describe is a TableDescription.
func (tb *table) describe(items *bolt.Bucket) map[string]any {
	schema := []keyElement{{tb.Hash.Name, "HASH"}}
	defs := []attributeDefinition{{tb.Hash.Name, tb.Hash.Type}}
	if tb.Range != nil {
		schema = append(schema, keyElement{tb.Range.Name, "RANGE"})
		defs = append(defs, attributeDefinition{tb.Range.Name, tb.Range.Type})
	}
	count, size := 0, 0
	if items != nil {
		_ = items.ForEach(func(k, v []byte) error {
			count++
			size += len(v)
			return nil
		})
	}
	d := map[string]any{
		"TableName": tb.Name, "TableArn": tableARN(tb.Name), "TableId": tb.ID, "TableStatus": "ACTIVE",
		"CreationDateTime": epoch(tb.Created), "KeySchema": schema, "AttributeDefinitions": defs,
		"ItemCount": count, "TableSizeBytes": size, "DeletionProtectionEnabled": tb.Protected,
		"ProvisionedThroughput": map[string]int64{"NumberOfDecreasesToday": 0,
			"ReadCapacityUnits": tb.Throughput.ReadCapacityUnits, "WriteCapacityUnits": tb.Throughput.WriteCapacityUnits},
	}
	if tb.Billing == "PAY_PER_REQUEST" {
		d["BillingModeSummary"] = map[string]any{"BillingMode": tb.Billing, "LastUpdateToPayPerRequestDateTime": epoch(tb.Created)}
	}
	if tb.Class != "" {
		d["TableClassSummary"] = map[string]string{"TableClass": tb.Class}
	}
	if tb.SSE != nil && tb.SSE.Enabled {
		key := tb.SSE.KMSMasterKeyId
		if key == "" {
			key = "alias/aws/dynamodb"
		}
		d["SSEDescription"] = map[string]string{"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key}
	}
	return d
}

// capacity checks a billing mode and its throughput.
func capacity(billing string, t *throughput) (string, throughput, error) {
	switch {
	case billing == "" || billing == "PROVISIONED":
		if t == nil || t.ReadCapacityUnits < 1 || t.WriteCapacityUnits < 1 {
			return "", throughput{}, validation("One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
		}
		return "PROVISIONED", *t, nil
	case billing != "PAY_PER_REQUEST":
		return "", throughput{}, validation("1 validation error detected: Value '" + billing + "' at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]")
	case t != nil:
		return "", throughput{}, validation("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	}
	return billing, throughput{}, nil
}

type createTableInput struct {
	tableName
	AttributeDefinitions      []attributeDefinition
	KeySchema                 []keyElement
	BillingMode               string
	ProvisionedThroughput     *throughput
	DeletionProtectionEnabled bool
	SSESpecification          *sseSpecification
	StreamSpecification       *struct {
		StreamEnabled  bool
		StreamViewType string
	}
	TableClass string
	Tags       []tag
}

func (s *Server) createTable(in *createTableInput) (any, error) {
	name, err := in.name()
	if err != nil {
		return nil, err
	}
	if in.StreamSpecification != nil && in.StreamSpecification.StreamEnabled {
		return nil, validation("The sandbox has no streams")
	}
	tb := &table{Name: name, ID: requestID(), Created: s.now().UTC(), Protected: in.DeletionProtectionEnabled,
		SSE: in.SSESpecification, Class: in.TableClass, Tags: in.Tags}
	if tb.Billing, tb.Throughput, err = capacity(in.BillingMode, in.ProvisionedThroughput); err != nil {
		return nil, err
	}
	types := make(map[string]string)
	for _, d := range in.AttributeDefinitions {
		if !slices.Contains([]string{"S", "N", "B"}, d.AttributeType) {
			return nil, validation("1 validation error detected: Value '" + d.AttributeType + "' at 'attributeDefinitions' failed to satisfy constraint: Member must satisfy enum value set: [B, N, S]")
		}
		types[d.AttributeName] = d.AttributeType
	}
	if len(in.KeySchema) < 1 || len(in.KeySchema) > 2 || in.KeySchema[0].KeyType != "HASH" || len(in.KeySchema) == 2 && in.KeySchema[1].KeyType != "RANGE" {
		return nil, validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type, or the second is not a RANGE key type")
	}
	for i, k := range in.KeySchema {
		d := keyDef{k.AttributeName, types[k.AttributeName]}
		if d.Type == "" {
			return nil, validation("One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [" + k.AttributeName + "]")
		}
		if i == 0 {
			tb.Hash = d
		} else if tb.Range = &d; d.Name == tb.Hash.Name {
			return nil, validation("Both the Hash Key and the Range Key element in the KeySchema have the same name")
		}
	}
	if len(types) != len(in.KeySchema) {
		return nil, validation("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	if err := tableTags(nil, in.Tags); err != nil {
		return nil, err
	}
	var out any
	err = s.store.update(func(t *tx) error {
		if t.Bucket(rootTables).Get([]byte(name)) != nil {
			return dynamoErrorf("ResourceInUseException", "Table already exists: %s", name)
		}
		if err := t.nested(rootItems, name); err != nil {
			return err
		}
		out = map[string]any{"TableDescription": tb.describe(nil)}
		return t.putJSON(t.Bucket(rootTables), []byte(name), tb)
	})
	return out, err
}

func (s *Server) describeTable(in *tableName) (any, error) {
	return s.withTable(*in, func(tb *table, items *bolt.Bucket) any {
		return map[string]any{"Table": tb.describe(items)}
	})
}

func (s *Server) deleteTable(in *tableName) (any, error) {
	var out any
	err := s.store.update(func(t *tx) error {
		tb, items, err := t.table(*in)
		if err != nil {
			return err
		}
		if tb.Protected {
			return validation("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
		}
		d := tb.describe(items)
		d["TableStatus"] = "DELETING"
		out = map[string]any{"TableDescription": d}
		if err := t.dropNested(rootItems, tb.Name); err != nil {
			return err
		}
		return t.del(rootTables, []byte(tb.Name))
	})
	return out, err
}

func (s *Server) listTables(in *struct {
	ExclusiveStartTableName string
	Limit                   *int
}) (any, error) {
	limit := 100
	if in.Limit != nil {
		if limit = *in.Limit; limit < 1 || limit > 100 {
			return nil, validation("1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value between 1 and 100")
		}
	}
	names := []string{}
	out := map[string]any{}
	err := s.store.view(func(t *tx) error {
		c := t.Bucket(rootTables).Cursor()
		for k, _ := c.Seek([]byte(in.ExclusiveStartTableName)); k != nil; k, _ = c.Next() {
			if string(k) == in.ExclusiveStartTableName {
				continue
			}
			if len(names) == limit {
				out["LastEvaluatedTableName"] = names[limit-1]
				break
			}
			names = append(names, string(k))
		}
		return nil
	})
	out["TableNames"] = names
	return out, err
}

func (s *Server) updateTable(in *struct {
	tableName
	AttributeDefinitions      []attributeDefinition
	BillingMode               string
	ProvisionedThroughput     *throughput
	DeletionProtectionEnabled *bool
	SSESpecification          *sseSpecification
	TableClass                string
}) (any, error) {
	return s.editTable(in.tableName, func(tb *table) error {
		if in.BillingMode != "" || in.ProvisionedThroughput != nil {
			mode := in.BillingMode
			if mode == "" {
				mode = tb.Billing
			}
			billing, through, err := capacity(mode, in.ProvisionedThroughput)
			if err != nil {
				return err
			}
			tb.Billing, tb.Throughput = billing, through
		}
		if in.DeletionProtectionEnabled != nil {
			tb.Protected = *in.DeletionProtectionEnabled
		}
		if in.SSESpecification != nil {
			tb.SSE = in.SSESpecification
		}
		if in.TableClass != "" {
			tb.Class = in.TableClass
		}
		return nil
	}, func(tb *table, items *bolt.Bucket) any {
		return map[string]any{"TableDescription": tb.describe(items)}
	})
}

func describeBackups(tb *table, _ *bolt.Bucket) any {
	pitr := map[string]any{"PointInTimeRecoveryStatus": "DISABLED"}
	if tb.Backups.Enabled {
		pitr = map[string]any{"PointInTimeRecoveryStatus": "ENABLED", "RecoveryPeriodInDays": tb.Backups.Days,
			"EarliestRestorableDateTime": epoch(tb.Backups.Since), "LatestRestorableDateTime": epoch(tb.Backups.Since)}
	}
	return map[string]any{"ContinuousBackupsDescription": map[string]any{"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": pitr}}
}

func (s *Server) describeBackups(in *tableName) (any, error) {
	out, err := s.withTable(*in, describeBackups)
	return out, tableNotFound(*in, err)
}

// tableNotFound is how the backup operations say that there is no such table.
func tableNotFound(in tableName, err error) error {
	if e, ok := err.(*dynamoErr); ok && strings.HasSuffix(e.kind, "#ResourceNotFoundException") {
		return dynamoErrorf("TableNotFoundException", "Table not found: %s", in.TableName)
	}
	return err
}

func (s *Server) updateBackups(in *struct {
	tableName
	PointInTimeRecoverySpecification *struct {
		PointInTimeRecoveryEnabled bool
		RecoveryPeriodInDays       *int
	}
}) (any, error) {
	spec := in.PointInTimeRecoverySpecification
	if spec == nil {
		return nil, validation("1 validation error detected: Value null at 'pointInTimeRecoverySpecification' failed to satisfy constraint: Member must not be null")
	}
	days := 35
	if spec.RecoveryPeriodInDays != nil {
		if days = *spec.RecoveryPeriodInDays; days < 1 || days > 35 {
			return nil, validation("RecoveryPeriodInDays must be between 1 and 35")
		}
	}
	out, err := s.editTable(in.tableName, func(tb *table) error {
		tb.Backups = backups{}
		if spec.PointInTimeRecoveryEnabled {
			tb.Backups = backups{true, s.now().UTC(), days}
		}
		return nil
	}, describeBackups)
	return out, tableNotFound(in.tableName, err)
}

func (s *Server) describeTTL(in *tableName) (any, error) {
	return s.withTable(*in, func(tb *table, _ *bolt.Bucket) any {
		d := map[string]string{"TimeToLiveStatus": "DISABLED"}
		if tb.TTL.Enabled {
			d = map[string]string{"TimeToLiveStatus": "ENABLED", "AttributeName": tb.TTL.AttributeName}
		}
		return map[string]any{"TimeToLiveDescription": d}
	})
}

func (s *Server) updateTTL(in *struct {
	tableName
	TimeToLiveSpecification *ttl
}) (any, error) {
	spec := in.TimeToLiveSpecification
	if spec == nil || spec.AttributeName == "" || len(spec.AttributeName) > 255 {
		return nil, validation("1 validation error detected: Value at 'timeToLiveSpecification' failed to satisfy constraint: Member must not be null")
	}
	return s.editTable(in.tableName, func(tb *table) error {
		if tb.TTL.Enabled == spec.Enabled {
			return validation("TimeToLive is already " + map[bool]string{true: "enabled", false: "disabled"}[spec.Enabled])
		}
		tb.TTL = *spec
		return nil
	}, func(*table, *bolt.Bucket) any { return map[string]any{"TimeToLiveSpecification": spec} })
}

type resource struct{ ResourceArn string }

func (r resource) table() (tableName, error) {
	if !strings.HasPrefix(r.ResourceArn, tableARN("")) {
		return tableName{}, validation("Invalid TableArn: Invalid ResourceArn provided as input " + r.ResourceArn)
	}
	return tableName{r.ResourceArn}, nil
}

func (s *Server) tagResource(in *struct {
	resource
	Tags []tag
}) (any, error) {
	name, err := in.table()
	if err != nil {
		return nil, err
	}
	return s.editTable(name, func(tb *table) error {
		tags := tb.Tags
		for _, n := range in.Tags {
			tags = slices.DeleteFunc(slices.Clone(tags), func(o tag) bool { return o.Key == n.Key })
			tags = append(tags, n)
		}
		if err := tableTags(in.Tags, tags); err != nil {
			return err
		}
		tb.Tags = tags
		return nil
	}, nothing)
}

func nothing(*table, *bolt.Bucket) any { return struct{}{} }

// tableTags checks the tags given, and all that the table would have.
func tableTags(given, all []tag) error {
	for _, list := range [][]tag{given, all} {
		if e, ok := checkTags(list, 50).(*s3Err); ok {
			return validation(e.message)
		}
	}
	return nil
}

func (s *Server) untagResource(in *struct {
	resource
	TagKeys []string
}) (any, error) {
	name, err := in.table()
	if err != nil {
		return nil, err
	}
	return s.editTable(name, func(tb *table) error {
		tb.Tags = slices.DeleteFunc(tb.Tags, func(t tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return nil
	}, nothing)
}

func (s *Server) listTags(in *struct {
	resource
	NextToken string
}) (any, error) {
	name, err := in.table()
	if err != nil {
		return nil, err
	}
	return s.withTable(name, func(tb *table, _ *bolt.Bucket) any {
		return map[string]any{"Tags": append([]tag{}, tb.Tags...)}
	})
}
