package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(n string) types.AttributeValue { return &types.AttributeValueMemberN{Value: n} }

func lockKey(id string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"LockID": str(id)}
}

// putLock writes a lock as terraform does, if there is none.
func (b *box) putLock(id, info string) error {
	_, err := b.ddb.PutItem(b.t.Context(), &dynamodb.PutItemInput{TableName: aws.String("locks"), Item: map[string]types.AttributeValue{"LockID": str(id), "Info": str(info)},
		ConditionExpression: aws.String("attribute_not_exists(LockID)")})
	return err
}

// A lock is removed only when it is the one that was read.
func TestConditionalDeleteItem(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	wantCode(t, b.putLock("states/k", "mine"), "")
	wantCode(t, b.putLock("states/k", "theirs"), "ConditionalCheckFailedException")
	del := func(info string) (*dynamodb.DeleteItemOutput, error) {
		return b.ddb.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("locks"), Key: lockKey("states/k"), ConditionExpression: aws.String("Info = :exact"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":exact": str(info)}, ReturnValues: "ALL_OLD", ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
	}
	_, err := del("another")
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) || *failed.Message != "The conditional request failed" {
		t.Fatalf("delete of another lock: %v", err)
	}
	if info, ok := failed.Item["Info"].(*types.AttributeValueMemberS); !ok || info.Value != "mine" {
		t.Errorf("the item found comes with the error: %v", failed.Item)
	}
	out, err := del("mine")
	if err != nil || out.Attributes["Info"].(*types.AttributeValueMemberS).Value != "mine" {
		t.Errorf("delete of the lock: %v %v", out, err)
	}
	if _, err = del("mine"); !errors.As(err, &failed) || failed.Item != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if _, err := b.ddb.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("locks"), Key: lockKey("states/k")}); err != nil {
		t.Errorf("unconditional delete of nothing: %v", err)
	}
}

func TestOneConditionalPutItemWins(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	var wg sync.WaitGroup
	results := make([]string, 50)
	for i := range results {
		wg.Go(func() { results[i] = code(b.putLock("states/k", fmt.Sprint(i))) })
	}
	wg.Wait()
	won := slices.Index(results, "")
	for i, r := range results {
		if i != won && r != "ConditionalCheckFailedException" {
			t.Errorf("writer %d: %q, and %d won", i, r, won)
		}
	}
	out, err := b.ddb.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("locks"), Key: lockKey("states/k")})
	if err != nil || out.Item["Info"].(*types.AttributeValueMemberS).Value != fmt.Sprint(won) {
		t.Errorf("%d won and the item is %v (%v)", won, out.Item, err)
	}
}

// UpdateItem makes an item where there is none, as it does on AWS: a heartbeat
// without its condition would leave a lock that blocks everyone.
func TestUpdateItem(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	update := func(expr, cond string, values map[string]types.AttributeValue) (map[string]types.AttributeValue, error) {
		in := &dynamodb.UpdateItemInput{TableName: aws.String("locks"), Key: lockKey("k"), UpdateExpression: &expr, ReturnValues: "ALL_NEW"}
		if len(values) > 0 {
			in.ExpressionAttributeValues = values
		}
		if cond != "" {
			in.ConditionExpression = &cond
		}
		out, err := b.ddb.UpdateItem(t.Context(), in)
		if err != nil {
			return nil, err
		}
		return out.Attributes, nil
	}
	v := map[string]types.AttributeValue{":v": num("2")}
	_, err := update("SET Beat = :v", "attribute_exists(LockID)", v)
	wantCode(t, err, "ConditionalCheckFailedException")
	out, err := update("SET Beat = :v", "", v)
	if err != nil || out["Beat"].(*types.AttributeValueMemberN).Value != "2" {
		t.Fatalf("%v %v", out, err)
	}
	for _, c := range []struct{ name, expr, value, want, code string }{
		{"add to a number", "ADD Beat :v", `{"N":"0.5"}`, `{"Beat":{"N":"2.5"},"LockID":{"S":"k"}}`, ""},
		{"arithmetic on the old value", "SET Beat = Beat - :v, Was = Beat", `{"N":"0.5"}`, `{"Beat":{"N":"2"},"LockID":{"S":"k"},"Was":{"N":"2.5"}}`, ""},
		{"remove", "REMOVE Was, Absent", "", `{"Beat":{"N":"2"},"LockID":{"S":"k"}}`, ""},
		{"default of what is missing", "SET L = if_not_exists(L, :v)", `{"L":[{"S":"a"}]}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"a"}]},"LockID":{"S":"k"}}`, ""},
		{"append", "SET L = list_append(L, :v)", `{"L":[{"S":"b"},{"S":"c"}]}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"a"},{"S":"b"},{"S":"c"}]},"LockID":{"S":"k"}}`, ""},
		{"elements", "SET L[0] = :v REMOVE L[1], L[2]", `{"S":"x"}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"x"}]},"LockID":{"S":"k"}}`, ""},
		{"add to a set that is not there", "ADD Tags :v", `{"SS":["b","a"]}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"x"}]},"LockID":{"S":"k"},"Tags":{"SS":["a","b"]}}`, ""},
		{"delete from a set", "DELETE Tags :v", `{"SS":["a","b"]}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"x"}]},"LockID":{"S":"k"}}`, ""},
		{"a map, then in it", "SET M = :v", `{"M":{"a":{"S":"1"}}}`, `{"Beat":{"N":"2"},"L":{"L":[{"S":"x"}]},"LockID":{"S":"k"},"M":{"M":{"a":{"S":"1"}}}}`, ""},
		{"in a map", "SET M.b = :v REMOVE M.a, L", `{"S":"2"}`, `{"Beat":{"N":"2"},"LockID":{"S":"k"},"M":{"M":{"b":{"S":"2"}}}}`, ""},
		{"in a map that is not there", "SET N.b = :v", `{"S":"2"}`, "", "ValidationException"},
		{"the key", "SET LockID = :v", `{"S":"other"}`, "", "ValidationException"},
		{"twice the same", "SET A = :v, A = :v", `{"S":"2"}`, "", "ValidationException"},
		{"of what is missing", "SET A = B", "", "", "ValidationException"},
		{"a sum of strings", "SET A = :v + :v", `{"S":"2"}`, "", "ValidationException"},
		{"two sections of one kind", "SET A = :v SET B = :v", `{"S":"2"}`, "", "ValidationException"},
		{"no expression", "nonsense", "", "", "ValidationException"},
	} {
		values := ""
		if c.value != "" {
			values = `,"ExpressionAttributeValues":{":v":` + c.value + `}`
		}
		_, body := b.dynamo("UpdateItem", fmt.Sprintf(`{"TableName":"locks","Key":{"LockID":{"S":"k"}},"UpdateExpression":%q,"ReturnValues":"ALL_NEW"%s}`, c.expr, values))
		if c.code != "" {
			if kind(body) != c.code {
				t.Errorf("%s: got %s, want %s", c.name, body, c.code)
			}
			continue
		}
		if want := `{"Attributes":` + c.want + `}`; body != want {
			t.Errorf("%s: got %s, want %s", c.name, body, want)
		}
	}
}

// dynamo sends a raw request.
func (b *box) dynamo(op, body string) (int, string) {
	b.t.Helper()
	res, answer := b.do("POST", "/", strings.NewReader(body), "X-Amz-Target", "DynamoDB_20120810."+op, "Content-Type", "application/x-amz-json-1.0")
	if sum := strconv.FormatUint(uint64(crc32.ChecksumIEEE([]byte(answer))), 10); res.Header.Get("X-Amz-Crc32") != sum {
		b.t.Errorf("%s: X-Amz-Crc32 %q, the body's is %s", op, res.Header.Get("X-Amz-Crc32"), sum)
	}
	return res.StatusCode, answer
}

// kind is the type in an error, without its namespace.
func kind(body string) string {
	var e struct {
		Type string `json:"__type"`
	}
	_ = json.Unmarshal([]byte(body), &e)
	return e.Type[strings.LastIndexByte(e.Type, '#')+1:]
}

func TestUnknownDynamoOperations(t *testing.T) {
	b := newBox(t)
	_, err := b.ddb.ListBackups(t.Context(), &dynamodb.ListBackupsInput{})
	wantCode(t, err, "UnknownOperationException")
	for _, c := range []struct{ name, op, body, want string }{
		{"no such operation", "ExecuteStatement", "{}", "UnknownOperationException"},
		{"a condition of the old kind is not read over", "PutItem", `{"TableName":"locks","Item":{"LockID":{"S":"k"}},"Expected":{"LockID":{"Exists":false}}}`, "ValidationException"},
		{"no JSON", "PutItem", `{`, "SerializationException"},
		{"another JSON", "PutItem", `[]`, "SerializationException"},
		{"deep beyond reason", "PutItem", `{"TableName":"locks","Item":` + strings.Repeat(`{"M":{"a":`, 10_000), "ValidationException"},
		{"no table", "GetItem", `{"TableName":"nothing","Key":{"LockID":{"S":"k"}}}`, "ResourceNotFoundException"},
		{"a bad table name", "GetItem", `{"TableName":"a b","Key":{"LockID":{"S":"k"}}}`, "ValidationException"},
		{"too large", "PutItem", strings.Repeat(" ", maxDynamo+1), "RequestEntityTooLargeException"},
	} {
		if status, body := b.dynamo(c.op, c.body); kind(body) != c.want || status < 400 {
			t.Errorf("%s: %d %s, want %s", c.name, status, body, c.want)
		}
	}
}

func TestConditions(t *testing.T) {
	var it item
	if err := json.Unmarshal([]byte(`{"LockID":{"S":"states/k"},"Info":{"S":"{\"ID\":\"1\"}"},"Cnt":{"N":"10"},"Bin":{"B":"AQID"},"Things":{"SS":["a","b"]},
		"M":{"M":{"x":{"L":[{"N":"1"},{"S":"two"}]}}},"Yes":{"BOOL":true},"Empty":{"NULL":true}}`), &it); err != nil {
		t.Fatal(err)
	}
	var values map[string]attr
	if err := json.Unmarshal([]byte(`{":k":{"S":"states/k"},":ten":{"N":"1e1"},":nine":{"N":"9"},":eleven":{"N":"11.0"},":s":{"S":"s"},":a":{"S":"a"},":S":{"S":"S"},
		":one":{"N":"1"},":two":{"S":"two"},":b":{"B":"AQ=="},":t":{"BOOL":true},":set":{"SS":["b","a"]},":zero":{"N":"-0"}}`), &values); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"#c": "Cnt", "#id": "LockID", "#none": "no such attribute"}
	for text, want := range map[string]bool{
		"LockID = :k": true, "LockID = :s": false, "LockID <> :s": true, "Cnt = :ten": true, "Cnt = :s": false, "Cnt <> :s": true,
		"#c < :eleven": true, "#c < :nine": false, "#c <= :ten": true, "#c > :nine": true, "#c >= :eleven": false, "#c > :s": false, "LockID > :s": true,
		"#none = :s": false, "#none <> :s": true, "#none < :nine": false, "NOT #none < :nine": true,
		"#c BETWEEN :nine AND :eleven": true, "#c between :ten and :ten": true, "#c BETWEEN :zero AND :nine": false, "#none BETWEEN :nine AND :eleven": false,
		"#c BETWEEN :nine AND :eleven AND LockID = :k": true,
		"LockID IN (:s, :k)":                           true, "LockID IN (:s)": false, "#none IN (:s)": false,
		"attribute_exists(LockID)": true, "attribute_exists(#none)": false, "attribute_not_exists(LockID)": false, "attribute_not_exists(#none)": true, "attribute_exists(M.x[1])": true, "attribute_exists(M.x[2])": false, "attribute_exists(M.y.z)": false,
		"attribute_type(LockID, :S)": true, "attribute_type(#c, :S)": false,
		"begins_with(LockID, :s)": true, "begins_with(LockID, :a)": false, "begins_with(Bin, :b)": true, "begins_with(#none, :s)": false,
		"contains(LockID, :a)": true, "contains(Things, :a)": true, "contains(Things, :s)": false, "contains(M.x, :two)": true, "contains(M.x, :one)": true,
		"size(LockID) = :nine": false, "size(M.x) > :one": true, "size(#none) > :zero": false,
		"M.x[0] = :one": true, "M.x[1] = :two": true, "Yes = :t": true, "Things = :set": true,
		"LockID = :k OR LockID = :s AND #c = :nine": true, "(LockID = :k OR LockID = :s) AND #c = :nine": false,
		"NOT LockID = :s AND NOT (#c = :nine)": true, "not not LockID = :k": true, ":k = LockID": true, "attribute_not_exists(LockID) or Info = Info": true,
		"Cnt=:ten": true, "((((LockID=:k))))": true,
	} {
		ps := newParser(names, values)
		var e *expr
		if err := ps.parse("ConditionExpression", text, func() { e = ps.condition() }); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := e.holds(it); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", " ", "LockID", "LockID =", "= :k", "LockID = :k AND", "(LockID = :k", "LockID = :k)", "LockID == :k", "LockID = :undefined", "#undefined = :k",
		"Status = :k", "name = :k", "attribute_exists(:k)", "attribute_exists(LockID, Info)", "attribute_exists()", "attribute_type(LockID, :k)", "nonsense(LockID)", "LockID = 'k'", "LockID ! :k",
		"Yes < :t", "Cnt BETWEEN :eleven AND :nine", "LockID IN ()", "M.x[a] = :k", "M..x = :k", "M.x[-1] = :k", "9x = :k", "LockID = :k LockID = :k", "size(LockID)", "begins_with(LockID, :t)",
		strings.Repeat("(", 5000), strings.Repeat("NOT ", 1100) + "LockID = :k", "LockID = : k", "é = :k"} {
		ps := newParser(names, values)
		if err := ps.parse("ConditionExpression", text, func() { ps.condition() }); err == nil {
			t.Errorf("%.40q was taken", text)
		}
	}
}

func TestPlaceholdersMustBeUsed(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	for _, extra := range []string{
		`"ExpressionAttributeValues":{":v":{"S":"x"}}`,
		`"ConditionExpression":"attribute_exists(LockID)","ExpressionAttributeValues":{":v":{"S":"x"}}`,
		`"ConditionExpression":"attribute_exists(LockID)","ExpressionAttributeNames":{"#n":"x"}`,
	} {
		if _, body := b.dynamo("PutItem", `{"TableName":"locks","Item":{"LockID":{"S":"k"}},`+extra+`}`); kind(body) != "ValidationException" || !strings.Contains(body, "unused in expressions") {
			t.Errorf("%s: %s", extra, body)
		}
	}
}

func TestItemValidation(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	for _, c := range []struct{ name, item, want string }{
		{"every type", `{"LockID":{"S":"k"},"a":{"N":"1"},"b":{"B":"AA=="},"c":{"BOOL":false},"d":{"NULL":true},"e":{"M":{}},"f":{"L":[]},"g":{"SS":["x"]},"h":{"NS":["1"]},"i":{"BS":["AA=="]},"j":{"S":""}}`, ""},
		{"no key", `{"a":{"S":"x"}}`, "ValidationException"},
		{"a key of another type", `{"LockID":{"N":"1"}}`, "ValidationException"},
		{"an empty key", `{"LockID":{"S":""}}`, "ValidationException"},
		{"two types", `{"LockID":{"S":"k","N":"1"}}`, "ValidationException"},
		{"no type", `{"LockID":{}}`, "ValidationException"},
		{"an unknown type", `{"LockID":{"X":"k"}}`, "ValidationException"},
		{"an empty set", `{"LockID":{"S":"k"},"a":{"SS":[]}}`, "ValidationException"},
		{"a set with a duplicate number", `{"LockID":{"S":"k"},"a":{"NS":["1","1.0"]}}`, "ValidationException"},
		{"no number", `{"LockID":{"S":"k"},"a":{"N":"one"}}`, "ValidationException"},
		{"a false null", `{"LockID":{"S":"k"},"a":{"NULL":false}}`, "ValidationException"},
		{"a bad value deep inside", `{"LockID":{"S":"k"},"a":{"M":{"b":{"L":[{"N":"x"}]}}}}`, "ValidationException"},
		{"too large", `{"LockID":{"S":"k"},"a":{"S":"` + strings.Repeat("x", maxItem) + `"}}`, "ValidationException"},
		{"a long key", `{"LockID":{"S":"` + strings.Repeat("x", 2049) + `"}}`, "ValidationException"},
		{"no item", `null`, "ValidationException"},
	} {
		_, body := b.dynamo("PutItem", `{"TableName":"locks","Item":`+c.item+`}`)
		if c.want == "" && body != "{}" || c.want != "" && kind(body) != c.want {
			t.Errorf("%s: %s", c.name, body)
		}
	}
	_, body := b.dynamo("GetItem", `{"TableName":"locks","Key":{"LockID":{"S":"k"},"more":{"S":"x"}}}`)
	if kind(body) != "ValidationException" {
		t.Errorf("a key with more than the key: %s", body)
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "-0": "0", "1.0": "1", "+7": "7", "007": "7", ".5": "0.5", "5.": "5", "1e3": "1000", "1.50E-2": "0.015", "-12.340": "-12.34",
		"1e125": "1" + strings.Repeat("0", 125), "1e-130": "0." + strings.Repeat("0", 129) + "1", "12345678901234567890123456789012345678": "12345678901234567890123456789012345678",
		"": "", "-": "", "1e": "", "1e126": "", "1e-131": "", "0x10": "", "1_0": "", "NaN": "", "--1": "", "1.2.3": "", "123456789012345678901234567890123456789": "", "1e99999999999": ""} {
		n, err := parseNumber(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q was taken as %s", in, n)
			}
			continue
		}
		if err != nil || n.String() != want {
			t.Errorf("%q: %v %v, want %s", in, n, err, want)
		}
	}
	// Keys sort as the numbers do.
	numbers := []string{"-1e125", "-200", "-123", "-12.34", "-12.3", "-12", "-1", "-0.5", "-1e-130", "0", "1e-130", "0.05", "0.5", "1", "9", "10", "12", "12.3", "100", "1e125"}
	var keys []string
	for _, n := range numbers {
		keys = append(keys, string(attr{Type: "N", Str: n}.sortKey()))
	}
	if !slices.IsSorted(keys) {
		for i := range keys[1:] {
			if keys[i] >= keys[i+1] {
				t.Errorf("the key of %s does not sort before that of %s", numbers[i], numbers[i+1])
			}
		}
	}
}

func TestTables(t *testing.T) {
	b := newBox(t)
	ctx := t.Context()
	b.lockTable("locks")
	for _, c := range []struct{ name, table, rest, want string }{
		{"exists", "locks", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"`, "ResourceInUseException"},
		{"no throughput", "table", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}]`, "ValidationException"},
		{"no definition of the key", "table", `"AttributeDefinitions":[],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"`, "ValidationException"},
		{"a definition too many", "table", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"`, "ValidationException"},
		{"a key of a type that keys do not have", "table", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"M"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"`, "ValidationException"},
		{"an index", "table", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST","GlobalSecondaryIndexes":[{}]`, "ValidationException"},
		{"a short name", "ab", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"`, "ValidationException"},
		{"provisioned", "table", `"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"B"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":2}`, ""},
	} {
		status, body := b.dynamo("CreateTable", `{"TableName":"`+c.table+`",`+c.rest+`}`)
		if c.want == "" && status != 200 || c.want != "" && kind(body) != c.want {
			t.Errorf("%s: %s", c.name, body)
		}
	}
	for i := range 4 {
		b.lockTable(fmt.Sprint("more-", i))
	}
	var names []string
	p := dynamodb.NewListTablesPaginator(b.ddb, &dynamodb.ListTablesInput{Limit: aws.Int32(2)})
	for p.HasMorePages() {
		page, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, page.TableNames...)
	}
	if fmt.Sprint(names) != "[locks more-0 more-1 more-2 more-3 table]" {
		t.Errorf("tables %v", names)
	}

	name := aws.String("table")
	up, err := b.ddb.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, BillingMode: "PAY_PER_REQUEST", DeletionProtectionEnabled: aws.Bool(true), SSESpecification: &types.SSESpecification{Enabled: aws.Bool(true), SSEType: "KMS"}})
	if err != nil || up.TableDescription.BillingModeSummary.BillingMode != "PAY_PER_REQUEST" || up.TableDescription.SSEDescription.Status != "ENABLED" {
		t.Errorf("update: %+v %v", up, err)
	}
	_, err = b.ddb.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name})
	wantCode(t, err, "ValidationException")
	must(t)(b.ddb.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, DeletionProtectionEnabled: aws.Bool(false)}))

	pitr := func() types.PointInTimeRecoveryStatus {
		out, err := b.ddb.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: name})
		if err != nil {
			t.Fatal(err)
		}
		return out.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus
	}
	if got := pitr(); got != "DISABLED" {
		t.Errorf("backups of a new table: %s", got)
	}
	must(t)(b.ddb.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: name, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}}))
	if got := pitr(); got != "ENABLED" {
		t.Errorf("backups: %s", got)
	}
	_, err = b.ddb.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String("nothing")})
	wantCode(t, err, "TableNotFoundException")
	must(t)(b.ddb.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: name, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("Expires"), Enabled: aws.Bool(true)}}))
	if ttl, err := b.ddb.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: name}); err != nil || ttl.TimeToLiveDescription.TimeToLiveStatus != "ENABLED" || *ttl.TimeToLiveDescription.AttributeName != "Expires" {
		t.Errorf("TTL: %v %v", ttl, err)
	}

	desc, err := b.ddb.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
	if err != nil || desc.Table.TableStatus != "ACTIVE" || desc.Table.AttributeDefinitions[0].AttributeType != "B" {
		t.Fatalf("describe: %+v %v", desc, err)
	}
	arn := desc.Table.TableArn
	must(t)(b.ddb.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("2")}}}))
	must(t)(b.ddb.UntagResource(ctx, &dynamodb.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a"}}))
	if tags, err := b.ddb.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: arn}); err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Value != "2" {
		t.Errorf("tags: %v %v", tags, err)
	}
	must(t)(b.ddb.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name}))
	_, err = b.ddb.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
	wantCode(t, err, "ResourceNotFoundException")
}

// Every way to page through a table sees each item once.
func TestScanPages(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	var want []string
	for i := range 40 {
		id := fmt.Sprintf("states/%s/%d", strings.Repeat("x", i%7), i)
		must(t)(b.ddb.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("locks"), Item: map[string]types.AttributeValue{"LockID": str(id), "Info": str(strings.Repeat("i", 60<<10)), "n": num(fmt.Sprint(i))}}))
		want = append(want, id)
	}
	slices.Sort(want)
	scan := func(in dynamodb.ScanInput) (ids []string, pages int) {
		in.TableName = aws.String("locks")
		for {
			out, err := b.ddb.Scan(t.Context(), &in)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, it := range out.Items {
				ids = append(ids, it["LockID"].(*types.AttributeValueMemberS).Value)
			}
			if out.LastEvaluatedKey == nil {
				return ids, pages
			}
			in.ExclusiveStartKey = out.LastEvaluatedKey
		}
	}
	all, pages := scan(dynamodb.ScanInput{})
	if slices.Sort(all); !slices.Equal(all, want) || pages < 3 {
		t.Errorf("scan of 2.4 MB: %d items in %d pages", len(all), pages)
	}
	for _, n := range []int32{1, 7, 40, 41} {
		ids, pages := scan(dynamodb.ScanInput{Limit: &n})
		if slices.Sort(ids); !slices.Equal(ids, want) || n == 7 && pages != 6 {
			t.Errorf("limit %d: %d items in %d pages", n, len(ids), pages)
		}
	}
	var joined []string
	for seg := range int32(4) {
		ids, _ := scan(dynamodb.ScanInput{Segment: &seg, TotalSegments: aws.Int32(4), Limit: aws.Int32(3)})
		if len(ids) == len(want) {
			t.Errorf("segment %d has everything", seg)
		}
		joined = append(joined, ids...)
	}
	if slices.Sort(joined); !slices.Equal(joined, want) {
		t.Errorf("four segments: %d items, want %d", len(joined), len(want))
	}
	// The limit counts what is read, not what the filter lets through.
	out, err := b.ddb.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("locks"), Limit: aws.Int32(40), FilterExpression: aws.String("n < :n"), ProjectionExpression: aws.String("#n"),
		ExpressionAttributeNames: map[string]string{"#n": "n"}, ExpressionAttributeValues: map[string]types.AttributeValue{":n": num("5")}})
	if err != nil || len(out.Items) > 5 || out.ScannedCount > 40 || len(out.Items) > 0 && len(out.Items[0]) != 1 {
		t.Errorf("filtered: %d of %d %v", out.Count, out.ScannedCount, err)
	}
	out, err = b.ddb.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("locks"), Select: "COUNT", Limit: aws.Int32(5)})
	if err != nil || out.Count != 5 || out.Items != nil {
		t.Errorf("count: %+v %v", out, err)
	}
	for _, bad := range []string{`"Segment":4,"TotalSegments":4`, `"Segment":0`, `"Limit":0`, `"ExclusiveStartKey":{"x":{"S":"y"}}`, `"Select":"ALL_PROJECTED_ATTRIBUTES"`, `"IndexName":"i"`} {
		if _, body := b.dynamo("Scan", `{"TableName":"locks",`+bad+`}`); kind(body) != "ValidationException" {
			t.Errorf("%s: %s", bad, body)
		}
	}
}

func TestQuery(t *testing.T) {
	b := newBox(t)
	must(t)(b.ddb.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: aws.String("events"), BillingMode: "PAY_PER_REQUEST",
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("run"), AttributeType: "S"}, {AttributeName: aws.String("at"), AttributeType: "N"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("run"), KeyType: "HASH"}, {AttributeName: aws.String("at"), KeyType: "RANGE"}}}))
	for _, run := range []string{"a", "ab", "b"} {
		for _, at := range []string{"-100", "-2.5", "0", "0.001", "3", "20", "100"} {
			must(t)(b.ddb.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("events"), Item: map[string]types.AttributeValue{"run": str(run), "at": num(at)}}))
		}
	}
	for _, c := range []struct {
		name, cond, filter string
		back               bool
		want               string
	}{
		{"one hash key", "run = :run", "", false, "-100 -2.5 0 0.001 3 20 100"},
		{"backwards", "run = :run", "", true, "100 20 3 0.001 0 -2.5 -100"},
		{"above", "run = :run AND #at > :x", "", false, "20 100"},
		{"the other way round", "#at <= :x AND run = :run", "", true, "3 0.001 0 -2.5 -100"},
		{"between", "run = :run AND #at BETWEEN :y AND :x", "", false, "-2.5 0 0.001 3"},
		{"one item", "run = :run AND #at = :x", "", false, "3"},
		{"filtered", "run = :run", "size(#at) = :x OR #at <> :y", false, ""},
	} {
		for _, limit := range []int32{1, 2, 100} {
			in := &dynamodb.QueryInput{TableName: aws.String("events"), KeyConditionExpression: &c.cond, ScanIndexForward: aws.Bool(!c.back), Limit: &limit,
				ExpressionAttributeNames: map[string]string{"#at": "at"}, ExpressionAttributeValues: map[string]types.AttributeValue{":run": str("ab"), ":x": num("3"), ":y": num("-2.5")}}
			if c.filter != "" {
				in.FilterExpression, c.want = &c.filter, "-100 0 0.001 3 20 100"
			}
			text := c.cond + c.filter
			maps.DeleteFunc(in.ExpressionAttributeValues, func(k string, _ types.AttributeValue) bool { return !strings.Contains(text, k) })
			if !strings.Contains(text, "#at") {
				in.ExpressionAttributeNames = nil
			}
			var got []string
			p := dynamodb.NewQueryPaginator(b.ddb, in)
			for p.HasMorePages() {
				page, err := p.NextPage(t.Context())
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				for _, it := range page.Items {
					got = append(got, it["at"].(*types.AttributeValueMemberN).Value)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, pages of %d: %v, want %s", c.name, limit, got, c.want)
			}
		}
	}
	for _, cond := range []string{"#at = :x", "run = :run OR #at = :x", "run > :run", "run = :x", "run = :run AND run = :run", "run = :run AND other = :x", "NOT run = :run", "run = run", "run = :run AND #at <> :x"} {
		values := map[string]string{":run": `{"S":"a"}`, ":x": `{"N":"3"}`}
		var used []string
		for k, v := range values {
			if strings.Contains(cond, k) {
				used = append(used, `"`+k+`":`+v)
			}
		}
		slices.SortFunc(used, cmp.Compare)
		names := ""
		if strings.Contains(cond, "#at") {
			names = `,"ExpressionAttributeNames":{"#at":"at"}`
		}
		_, body := b.dynamo("Query", fmt.Sprintf(`{"TableName":"events","KeyConditionExpression":%q,"ExpressionAttributeValues":{%s}%s}`, cond, strings.Join(used, ","), names))
		if kind(body) != "ValidationException" {
			t.Errorf("%s: %s", cond, body)
		}
	}
}

func TestBatchesAndTransactions(t *testing.T) {
	b := newBox(t)
	ctx := t.Context()
	b.lockTable("locks")
	var puts []types.WriteRequest
	for i := range 5 {
		puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: map[string]types.AttributeValue{"LockID": str(fmt.Sprint(i)), "Info": str("x"), "More": str("y")}}})
	}
	must(t)(b.ddb.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"locks": puts}}))
	get := func() (ids []string) {
		t.Helper()
		out, err := b.ddb.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"locks": {Keys: []map[string]types.AttributeValue{lockKey("0"), lockKey("1"), lockKey("new"), lockKey("4")}, ProjectionExpression: aws.String("LockID, Info")}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range out.Responses["locks"] {
			if len(it) != 2 {
				t.Errorf("projected item %v", it)
			}
			ids = append(ids, it["LockID"].(*types.AttributeValueMemberS).Value+"="+it["Info"].(*types.AttributeValueMemberS).Value)
		}
		return ids
	}
	if got := fmt.Sprint(get()); got != "[0=x 1=x 4=x]" {
		t.Errorf("batch: %s", got)
	}
	_, err := b.ddb.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"locks": {puts[0], puts[0]}}})
	wantCode(t, err, "ValidationException")

	tx := func(info string) error {
		_, err := b.ddb.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
			{Delete: &types.Delete{TableName: aws.String("locks"), Key: lockKey("0")}},
			{Put: &types.Put{TableName: aws.String("locks"), Item: map[string]types.AttributeValue{"LockID": str("new"), "Info": str("n"), "z": str("z")}}},
			{Update: &types.Update{TableName: aws.String("locks"), Key: lockKey("1"), UpdateExpression: aws.String("SET Info = :new"), ConditionExpression: aws.String("Info = :old"),
				ExpressionAttributeValues: map[string]types.AttributeValue{":old": str(info), ":new": str("swapped")}}},
			{ConditionCheck: &types.ConditionCheck{TableName: aws.String("locks"), Key: lockKey("2"), ConditionExpression: aws.String("attribute_exists(LockID)")}},
		}})
		return err
	}
	var cancelled *types.TransactionCanceledException
	if err := tx("wrong"); !errors.As(err, &cancelled) || len(cancelled.CancellationReasons) != 4 || *cancelled.CancellationReasons[2].Code != "ConditionalCheckFailed" || *cancelled.CancellationReasons[0].Code != "None" {
		t.Errorf("cancelled transaction: %v", err)
	}
	if got := fmt.Sprint(get()); got != "[0=x 1=x 4=x]" {
		t.Errorf("after the cancelled transaction: %s", got)
	}
	wantCode(t, tx("x"), "")
	if got := fmt.Sprint(get()); got != "[1=swapped new=n 4=x]" {
		t.Errorf("after the transaction: %s", got)
	}
}

func TestProjection(t *testing.T) {
	b := newBox(t)
	b.lockTable("locks")
	b.dynamo("PutItem", `{"TableName":"locks","Item":{"LockID":{"S":"k"},"Info":{"S":"i"},"M":{"M":{"a":{"S":"1"},"b":{"L":[{"S":"x"},{"S":"y"},{"M":{"z":{"N":"1"},"w":{"N":"2"}}}]}}}}}`)
	for projection, want := range map[string]string{
		"LockID, Info":        `{"Item":{"Info":{"S":"i"},"LockID":{"S":"k"}}}`,
		"M.a":                 `{"Item":{"M":{"M":{"a":{"S":"1"}}}}}`,
		"M.b[2].z, M.b[0]":    `{"Item":{"M":{"M":{"b":{"L":[{"S":"x"},{"M":{"z":{"N":"1"}}}]}}}}}`,
		"M.b[2].z, M.b[2].w":  `{"Item":{"M":{"M":{"b":{"L":[{"M":{"w":{"N":"2"},"z":{"N":"1"}}}]}}}}}`,
		"absent, M.x, M.b[9]": `{"Item":{}}`,
		"M, M.a":              "ValidationException",
		"Status":              "ValidationException",
		"LockID,":             "ValidationException",
	} {
		_, body := b.dynamo("GetItem", fmt.Sprintf(`{"TableName":"locks","Key":{"LockID":{"S":"k"}},"ConsistentRead":true,"ProjectionExpression":%q}`, projection))
		if body != want && kind(body) != want {
			t.Errorf("%s: got %s, want %s", projection, body, want)
		}
	}
	if _, body := b.dynamo("GetItem", `{"TableName":"locks","Key":{"LockID":{"S":"other"}}}`); body != "{}" {
		t.Errorf("no item: %s", body)
	}
}

// Whatever a client writes into an expression or an item, it gets an answer.
func FuzzExpressions(f *testing.F) {
	for _, s := range []string{"attribute_not_exists(LockID) AND Info = :v", "SET a = if_not_exists(#n, :v) + :v REMOVE b[3].c ADD d :v", "a.b[1], #n", "#n BETWEEN :v AND :v", "NOT (contains(a, :v) OR size(b) > :v)", "(((", "SET a[99999999999999999999] = :v", "SET a[0].x = :v, c = :v REMOVE b.c"} {
		f.Add(s, `{"LockID":{"S":"k"},"a":{"L":[{"M":{}},{"N":"1"}]},"b":{"M":{"c":{"SS":["x"]}}}}`, `{"N":"1"}`)
	}
	f.Fuzz(func(t *testing.T, text, doc, value string) {
		var it item
		var v attr
		if tooDeep([]byte(doc)) || json.Unmarshal([]byte(doc), &it) != nil || json.Unmarshal([]byte(value), &v) != nil {
			return
		}
		values := map[string]attr{":v": v}
		names := map[string]string{"#n": "a"}
		ps := newParser(names, values)
		var e *expr
		if ps.parse("ConditionExpression", text, func() { e = ps.condition() }) == nil {
			if e.holds(it) == (&expr{op: "NOT", sub: []*expr{e}}).holds(it) {
				t.Errorf("%q and its negation agree", text)
			}
		}
		if pr, err := ps.projection(text); err == nil {
			pr.item(it)
		}
		before, _ := json.Marshal(it)
		if actions, err := ps.update(text); err == nil {
			if out, err := apply(actions, it); err == nil {
				data, err := json.Marshal(out)
				if err != nil {
					t.Fatalf("%q leaves what cannot be stored: %v", text, err)
				}
				var again item
				if err := json.Unmarshal(data, &again); err != nil || !equalMaps(out, again) {
					t.Errorf("%q leaves %s, read again as %v (%v)", text, data, again, err)
				}
			}
		}
		if after, _ := json.Marshal(it); string(after) != string(before) {
			t.Errorf("%q changed the item it was applied to: %s, was %s", text, after, before)
		}
	})
}
