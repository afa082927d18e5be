package dynamolock_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/dynamolock"
	"github.com/tfguard/tfguard/internal/lock/locktest"
	"github.com/tfguard/tfguard/internal/testkit"
)

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

type attributes = map[string]types.AttributeValue

func digest() attributes { return attributes{"Digest": text("d41d8cd98f00b204e9800998ecf8427e")} }

func lockOf(n int) attributes { return attributes{"Info": text(string(locktest.Record(n)))} }

// fill puts items into the table, many at a time.
func fill(t *testing.T, cloud *testkit.Cloud, addr backend.Address, items map[string]attributes) {
	t.Helper()
	var all []types.WriteRequest
	for id, item := range items {
		item = maps.Clone(item)
		item["LockID"] = text(id)
		all = append(all, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
	}
	for some := range slices.Chunk(all, 25) {
		out, err := cloud.Clients.DynamoDB.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{addr.Table: some}})
		if err != nil || len(out.UnprocessedItems) > 0 {
			t.Fatalf("fill the table: %v, %v", err, out)
		}
	}
}

// listed are the table's locks by state.
func listed(t *testing.T, client *dynamodb.Client, table string) map[string]lock.Observation {
	t.Helper()
	all := map[string]lock.Observation{}
	err := dynamolock.List(t.Context(), client, table, func(state string, o lock.Observation) error {
		if _, twice := all[state]; twice {
			t.Errorf("the lock of %s is listed twice", state)
		}
		all[state] = o
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestList(t *testing.T) {
	_, faulty, cloud, addr := bench(t)
	client := cloud.Via(t, faulty.URL).DynamoDB
	if all := listed(t, client, addr.Table); len(all) != 0 {
		t.Fatalf("an empty table has %v", all)
	}
	items := map[string]attributes{
		"bucket/digest-md5":            digest(),
		"bucket/digest-md5-not":        digest(), // no digest of terraform's: such an item would block the state
		"bucket/no-digest":             digest(),
		"bucket/nothing":               {},
		"bucket/nothing-md5":           {},
		"bucket/a/terraform.tfstate":   lockOf(1),
		"bucket/env:/x/b.tfstate":      lockOf(2),
		"another-bucket/key":           lockOf(3),
		"bucket/the-state-is-so-md5":   lockOf(4),
		"bucket/both-md5":              {"Info": text("{}"), "Digest": text("d")},
		"bucket/a/terraform.tfstate-x": {"Info": &types.AttributeValueMemberN{Value: "12"}, "Digest": text("d")},
		"bucket/garbage":               {"Info": text("?")},
	}
	fill(t, cloud, addr, items)
	got := listed(t, client, addr.Table)
	// An item without Info that is no digest of a name like one is in the way of
	// terraform; that of a name with -md5 inside it the service leaves out.
	want := []string{"another-bucket/key", "bucket/a/terraform.tfstate", "bucket/a/terraform.tfstate-x", "bucket/both-md5", "bucket/env:/x/b.tfstate",
		"bucket/garbage", "bucket/no-digest", "bucket/nothing", "bucket/the-state-is-so-md5"}
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	for id, o := range got {
		s := dynamolock.New(client, backend.Address{Bucket: strings.SplitN(id, "/", 2)[0], Key: strings.SplitN(id, "/", 2)[1], Table: addr.Table})
		one, err := s.Read(t.Context())
		if err != nil || one == nil {
			t.Fatalf("read %s: %v, %v", id, one, err)
		}
		if string(one.Raw) != string(o.Raw) || one.Match != o.Match || o.Store != lock.DynamoDB || o.ServerNow.IsZero() || time.Since(o.ServerNow) > time.Minute {
			t.Errorf("listed as %+v, read as %+v", o, one)
		}
	}
	for _, r := range faulty.Requests() {
		if r != "dynamodb:Scan" && r != "dynamodb:GetItem" {
			t.Errorf("it took a request of %s", r)
		}
	}
}

// Pages are read to the end, in every part of the table, and the digests among
// them cost no more than their pages.
func TestListReadsEveryPage(t *testing.T) {
	_, faulty, cloud, addr := bench(t)
	items, want := map[string]attributes{}, 0
	for n := range 1500 {
		id := fmt.Sprintf("bucket/state-%d", n)
		items[id+"-md5"] = digest()
		if n%5 == 0 {
			items[id] = lockOf(n)
			items[id]["Padding"] = text(strings.Repeat("x", 30_000))
			want++
		}
	}
	fill(t, cloud, addr, items)
	if got := listed(t, cloud.Via(t, faulty.URL).DynamoDB, addr.Table); len(got) != want {
		t.Errorf("%d locks, want %d", len(got), want)
	}
	if n := faulty.Count("dynamodb:Scan"); n < 5 {
		t.Errorf("%d pages of 4 parts: nothing was paged", n)
	}
}

// G6: a part that cannot be read is an error and never "no locks".
func TestListFails(t *testing.T) {
	_, faulty, cloud, addr := bench(t)
	client := cloud.Via(t, faulty.URL).DynamoDB
	fill(t, cloud, addr, map[string]attributes{"bucket/a": lockOf(1), "bucket/b": lockOf(2)})
	for _, row := range []struct {
		sentence string
		fault    testkit.Fault
		want     backend.Kind
	}{
		{"no permission", testkit.Fault{Answer: testkit.DynamoDBError(400, "AccessDeniedException", "no")}, backend.Denied},
		{"one part fails", testkit.Fault{After: 3, Answer: testkit.DynamoDBError(500, "InternalServerError", "down")}, backend.Unreachable},
		{"no table", testkit.Fault{Answer: testkit.DynamoDBError(400, "ResourceNotFoundException", "where?")}, backend.Missing},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			faulty.Reset()
			row.fault.Match = testkit.DynamoDBOp("Scan")
			faulty.Add(row.fault)
			err := dynamolock.List(t.Context(), client, addr.Table, func(string, lock.Observation) error { return nil })
			if !backend.Is(err, row.want) {
				t.Errorf("%v, want a problem of kind %q", err, row.want)
			}
		})
	}
	faulty.Reset()
	t.Run("whoever asked has enough", func(t *testing.T) {
		enough := errors.New("enough")
		if err := dynamolock.List(t.Context(), client, addr.Table, func(string, lock.Observation) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%v, want the error of who asked", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		faulty.Add(testkit.Fault{Match: testkit.DynamoDBOp("Scan"), Before: func(*http.Request) { cancel() }, Hang: true})
		if err := dynamolock.List(ctx, client, addr.Table, func(string, lock.Observation) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}
