package dynamolock_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/dynamolock"
	"github.com/tfguard/tfguard/internal/lock/locktest"
	"github.com/tfguard/tfguard/internal/testkit"
)

// G2: a lock is removed only as it was judged.
func TestContract(t *testing.T) {
	cloud := testkit.Start(t)
	locktest.Run(t, func(t *testing.T) locktest.Store {
		_, addr := cloud.State(t, testkit.DynamoDB)
		return dynamolock.New(cloud.Clients.DynamoDB, addr)
	})
}

// rounds is raised by `make race-locks`.
var rounds = flag.Int("rounds", locktest.Rounds, "how many locks TestRace takes")

// G2: nor is one removed that was taken in the moment between.
func TestRace(t *testing.T) {
	cloud := testkit.Start(t)
	_, addr := cloud.State(t, testkit.DynamoDB)
	locktest.Race(t, dynamolock.New(cloud.Clients.DynamoDB, addr), *rounds)
}

// G6: what cannot be read is no "no lock".
func TestFailures(t *testing.T) {
	cloud := testkit.Start(t)
	_, addr := cloud.Names(t, testkit.DynamoDB)
	locktest.Failures(t, func(t *testing.T, url string) locktest.Store {
		return dynamolock.New(cloud.Via(t, url).DynamoDB, addr)
	})
}

// bench is a store behind a proxy that can misbehave.
func bench(t *testing.T) (*dynamolock.Store, *testkit.Faulty, *testkit.Cloud, backend.Address) {
	cloud := testkit.Start(t)
	_, addr := cloud.State(t, testkit.DynamoDB)
	faulty := testkit.NewFaulty(t, cloud.URL)
	return dynamolock.New(cloud.Via(t, faulty.URL).DynamoDB, addr), faulty, cloud, addr
}

func put(t *testing.T, cloud *testkit.Cloud, addr backend.Address, id string, attributes map[string]types.AttributeValue) {
	t.Helper()
	item := map[string]types.AttributeValue{"LockID": &types.AttributeValueMemberS{Value: id}}
	for k, v := range attributes {
		item[k] = v
	}
	if _, err := cloud.Clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &addr.Table, Item: item}); err != nil {
		t.Fatal(err)
	}
}

func TestReadIsOneStrongRequestByKey(t *testing.T) {
	s, faulty, cloud, addr := bench(t)
	put(t, cloud, addr, addr.DigestID(), map[string]types.AttributeValue{"Digest": &types.AttributeValueMemberS{Value: "d41d8cd98f00b204e9800998ecf8427e"}})
	put(t, cloud, addr, addr.LockID()+"x", map[string]types.AttributeValue{"Info": &types.AttributeValueMemberS{Value: "{}"}})
	var body bytes.Buffer
	faulty.Add(testkit.Fault{Before: func(r *http.Request) {
		_, _ = body.ReadFrom(r.Body)
		r.Body = http.NoBody
	}, Answer: testkit.DynamoDBError(400, "ValidationException", "seen")})
	_, err := s.Read(t.Context())
	if err == nil {
		t.Fatal("the answer was an error")
	}
	if !strings.Contains(body.String(), `"ConsistentRead":true`) {
		t.Errorf("the request is not strongly consistent: %s", body.String())
	}
	if got := faulty.Requests(); len(got) != 1 || got[0] != "dynamodb:GetItem" {
		t.Errorf("requests %v, want one GetItem", got)
	}
	faulty.Reset()
	if o, err := s.Read(t.Context()); err != nil || o != nil {
		t.Errorf("the digest or another state's lock was taken for ours: %v, %v", o, err)
	}
}

func TestItemsThatNoTerraformWrote(t *testing.T) {
	s, _, cloud, addr := bench(t)
	for name, info := range map[string]types.AttributeValue{
		"no Info":           nil,
		"a number":          &types.AttributeValueMemberN{Value: "12"},
		"binary":            &types.AttributeValueMemberB{Value: []byte(`{"ID":"a"}`)},
		"true":              &types.AttributeValueMemberBOOL{Value: true},
		"null":              &types.AttributeValueMemberNULL{Value: true},
		"a set of strings":  &types.AttributeValueMemberSS{Value: []string{"a", "b"}},
		"a set of numbers":  &types.AttributeValueMemberNS{Value: []string{"1", "2"}},
		"a set of binaries": &types.AttributeValueMemberBS{Value: [][]byte{{1}, {2}}},
		"an empty list":     &types.AttributeValueMemberL{},
		"an empty map":      &types.AttributeValueMemberM{},
		"a map in a list": &types.AttributeValueMemberL{Value: []types.AttributeValue{
			&types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"ID": &types.AttributeValueMemberS{Value: "x"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			attributes := map[string]types.AttributeValue{"Other": &types.AttributeValueMemberS{Value: "o"}}
			if info != nil {
				attributes["Info"] = info
			}
			put(t, cloud, addr, addr.LockID(), attributes)
			o, err := s.Read(t.Context())
			if err != nil || o == nil {
				t.Fatalf("read (%v, %v), want a lock", o, err)
			}
			if _, err := lock.ParseInfo(o.Raw); err == nil {
				t.Errorf("%q can be judged, it should not", o.Raw)
			}
			if err := s.Take(t.Context(), locktest.Record(1)); !errors.Is(err, lock.ErrHeld) {
				t.Errorf("take: %v, want ErrHeld", err)
			}

			changed := *o
			put(t, cloud, addr, addr.LockID(), map[string]types.AttributeValue{"Info": &types.AttributeValueMemberS{Value: string(o.Raw)}})
			if err := s.Remove(t.Context(), changed); !errors.Is(err, lock.ErrChanged) {
				t.Errorf("remove after it became a string: %v, want ErrChanged", err)
			}
			put(t, cloud, addr, addr.LockID(), attributes)
			if err := s.Remove(t.Context(), *o); err != nil {
				t.Errorf("remove: %v", err)
			}
			if o, err := s.Read(t.Context()); o != nil || err != nil {
				t.Errorf("after the removal: %v, %v", o, err)
			}
		})
	}
}

func TestALongRecordIsRemovedAsAWhole(t *testing.T) {
	s, _, cloud, addr := bench(t)
	long := strings.Repeat("a", lock.MaxRecord)
	info := func(v string) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{"Info": &types.AttributeValueMemberS{Value: v}}
	}
	put(t, cloud, addr, addr.LockID(), info(long+"first"))
	o, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, cloud, addr, addr.LockID(), info(long+"other"))
	if err := s.Remove(t.Context(), *o); !errors.Is(err, lock.ErrChanged) {
		t.Errorf("a record that differs beyond the bound: %v, want ErrChanged", err)
	}
}

// The pins of retried conditional writes: the answer of the first try is lost.
func TestALostAnswerIsNoContention(t *testing.T) {
	s, faulty, _, _ := bench(t)
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Drop: true, Times: 1})
	if err := s.Take(t.Context(), locktest.Record(1)); err != nil {
		t.Fatalf("take, refused by its own first try: %v", err)
	}
	o, err := s.Read(t.Context())
	if err != nil || o == nil || !bytes.Equal(o.Raw, locktest.Record(1)) {
		t.Fatalf("the lock is (%v, %v)", o, err)
	}
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("DeleteItem"), Drop: true, Times: 1})
	if err := s.Remove(t.Context(), *o); err != nil {
		t.Errorf("remove, refused after its own first try: %v", err)
	}
}

func TestATakeThatFailsForGoodLeavesNoLock(t *testing.T) {
	s, faulty, cloud, addr := bench(t)
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Drop: true})
	if err := s.Take(t.Context(), locktest.Record(1)); err != nil {
		t.Errorf("all answers are lost, the lock is there and ours: %v", err)
	}
	faulty.Reset()

	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Answer: testkit.DynamoDBError(400, "AccessDeniedException",
		"User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:PutItem on resource: arn:aws:dynamodb:us-east-1:1:table/t")})
	err := s.Take(t.Context(), locktest.Record(2))
	if !backend.Is(err, backend.Denied) || errors.Is(err, lock.ErrHeld) {
		t.Errorf("take: %v, want Denied and not ErrHeld", err)
	}
	if o, err := dynamolock.New(cloud.Clients.DynamoDB, addr).Read(t.Context()); err != nil || !bytes.Equal(o.Raw, locktest.Record(1)) {
		t.Errorf("the lock is (%v, %v)", o, err)
	}
}

func TestACancelledTakeReleasesWhatItHasWritten(t *testing.T) {
	s, faulty, _, _ := bench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Done: func(*http.Request) { cancel() }, Drop: true})
	if err := s.Take(ctx, locktest.Record(1)); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("take: %v, want %v", err, ctx.Err())
	}
	if o, err := s.Read(t.Context()); o != nil || err != nil {
		t.Errorf("a cancelled take has left (%v, %v)", o, err)
	}
}

func TestARemovalThatDidNothingIsNoSuccess(t *testing.T) {
	s, faulty, _, _ := bench(t)
	if err := s.Take(t.Context(), locktest.Record(1)); err != nil {
		t.Fatal(err)
	}
	o, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("DeleteItem"), Answer: func(*http.Request) *testkit.Response {
		return &testkit.Response{Status: 200, Body: "{}"}
	}})
	if err := s.Remove(t.Context(), *o); err == nil {
		t.Error("the lock is still there")
	}
	faulty.Reset()
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("GetItem"), Answer: testkit.DynamoDBError(500, "InternalServerError", "no")})
	if err := s.Remove(t.Context(), *o); err == nil {
		t.Error("the removal could not be verified")
	}
}

func TestErrorsNameTheItemAndTheTable(t *testing.T) {
	cloud := testkit.Start(t)
	_, addr := cloud.Names(t, testkit.DynamoDB)
	_, err := dynamolock.New(cloud.Clients.DynamoDB, addr).Read(t.Context())
	if !backend.Is(err, backend.Missing) || !strings.Contains(err.Error(), "table "+addr.Table+" does not exist") {
		t.Errorf("%v, want that the table is missing", err)
	}
}

func TestDigest(t *testing.T) {
	s, faulty, cloud, addr := bench(t)
	const one, two = "0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"
	want := func(digest string, there bool) {
		t.Helper()
		if got, found, err := s.Digest(t.Context()); got != digest || found != there || err != nil {
			t.Errorf("digest (%q, %t, %v), want (%q, %t)", got, found, err, digest, there)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want("", false)
	must(s.RemoveDigest(t.Context()))
	must(s.PutDigest(t.Context(), one))
	want(one, true)
	must(s.PutDigest(t.Context(), two))
	want(two, true)

	// Somebody writes between our read and our write.
	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Times: 1, Before: func(*http.Request) {
		put(t, cloud, addr, addr.DigestID(), map[string]types.AttributeValue{"Digest": &types.AttributeValueMemberS{Value: one}})
	}})
	if err := s.PutDigest(t.Context(), strings.Repeat("0", 32)); !backend.Is(err, backend.Changed) {
		t.Errorf("put: %v, want Changed", err)
	}
	want(one, true)

	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("PutItem"), Times: 1, Drop: true})
	must(s.PutDigest(t.Context(), two))
	want(two, true)

	faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("DeleteItem"), Times: 1, Drop: true})
	must(s.RemoveDigest(t.Context()))
	want("", false)

	put(t, cloud, addr, addr.DigestID(), nil)
	want("", true)
	must(s.PutDigest(t.Context(), one))
	want(one, true)
	put(t, cloud, addr, addr.DigestID(), map[string]types.AttributeValue{"Digest": &types.AttributeValueMemberN{Value: "1"}})
	want("", true)
	must(s.RemoveDigest(t.Context()))
	want("", false)

	faulty.Add(testkit.Fault{Answer: testkit.DynamoDBError(500, "InternalServerError", "no")})
	if _, _, err := s.Digest(t.Context()); !backend.Is(err, backend.Unreachable) {
		t.Errorf("digest: %v, want Unreachable", err)
	}
}
