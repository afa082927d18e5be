package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/testkit"
)

// cloud is what one script's state has in S3 and DynamoDB, read and written by
// plain requests: past the script's faults, and not by the code under test.
type cloud struct {
	clients                  *awsclient.Clients
	mode, bucket, table, key string
}

// lockID is the ID that putlock gives a lock.
const lockID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

// op is something that scripts, hooks and faults do to the cloud. What it has
// to tell goes to out.
type op func(ctx context.Context, c cloud, out io.Writer, args []string) error

// ops are described in the comment of [TestScripts].
func ops() map[string]op {
	return map[string]op{
		"backend": opBackend, "putlock": opPutLock, "rmlock": opRemoveLock, "locked": opLocked, "unlocked": opUnlocked, "aged": opAged,
		"serial": opSerial, "bump": opBump, "objects": opObjects, "object": opObject, "spoil": opSpoil, "putitem": opPutItem, "suspendversioning": opSuspendVersioning,
		"putobject": opPutObject, "rmobject": opRemoveObject,
		"oldversion": opOldVersion, "versions": opVersions, "putholder": opPutHolder,
	}
}

// cloudMain is the program "cloud" that hooks call: an op on the script's cloud.
func cloudMain(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	if len(args) == 0 || ops()[args[0]] == nil {
		return fmt.Errorf("usage: cloud %s", strings.Join(slices.Sorted(maps.Keys(ops())), "|"))
	}
	clients, err := awsclient.New(ctx, testkit.Settings(getenv("CLOUD_URL")), awsclient.Options{})
	if err != nil {
		return err
	}
	c := cloud{clients: clients, mode: getenv("MODE"), bucket: getenv("BUCKET"), table: getenv("TABLE"), key: getenv("KEY")}
	return ops()[args[0]](ctx, c, out, args[1:])
}

func (c cloud) state() string { return c.bucket + "/" + c.key }

// stores are those of the mode, or the one that is named.
func (c cloud) stores(only string) (inTable, inBucket bool) {
	if only == "" {
		only = c.mode
	}
	return only != testkit.Lockfile && only != "s3", only != testkit.DynamoDB
}

func flags(name string, args []string, arguments int, define func(*flag.FlagSet)) ([]string, error) {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	if define != nil {
		define(f)
	}
	if err := f.Parse(args); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.NArg() != arguments {
		return nil, fmt.Errorf("%s takes %d arguments, not %q", name, arguments, f.Args())
	}
	return f.Args(), nil
}

func opBackend(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	var only string
	var plain bool
	_, err := flags("backend", args, 0, func(f *flag.FlagSet) {
		f.StringVar(&only, "only", "", "")
		f.BoolVar(&plain, "unversioned", false, "")
	})
	if err != nil {
		return err
	}
	if only != "table" {
		if _, err := c.clients.S3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &c.bucket}); err != nil {
			return err
		}
		if !plain {
			_, err := c.clients.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &c.bucket,
				VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
			if err != nil {
				return err
			}
		}
	}
	if inTable, _ := c.stores(""); !inTable || only == "bucket" {
		return nil
	}
	_, err = c.clients.DynamoDB.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:            &c.table,
		AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: dynamotypes.ScalarAttributeTypeS}},
		KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: aws.String("LockID"), KeyType: dynamotypes.KeyTypeHash}},
		BillingMode:          dynamotypes.BillingModePayPerRequest,
	})
	if err != nil {
		return err
	}
	waiter := dynamodb.NewTableExistsWaiter(c.clients.DynamoDB, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 10 * time.Millisecond })
	return waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &c.table}, time.Minute)
}

// item is an item of the lock table, nil where there is none.
func (c cloud) item(ctx context.Context, id string) (map[string]dynamotypes.AttributeValue, error) {
	out, err := c.clients.DynamoDB.GetItem(ctx, &dynamodb.GetItemInput{TableName: &c.table, ConsistentRead: aws.Bool(true),
		Key: map[string]dynamotypes.AttributeValue{"LockID": &dynamotypes.AttributeValueMemberS{Value: id}}})
	if err != nil {
		return nil, err
	}
	return out.Item, nil
}

func (c cloud) putItem(ctx context.Context, id, name, value string) error {
	_, err := c.clients.DynamoDB.PutItem(ctx, &dynamodb.PutItemInput{TableName: &c.table, Item: map[string]dynamotypes.AttributeValue{
		"LockID": &dynamotypes.AttributeValueMemberS{Value: id}, name: &dynamotypes.AttributeValueMemberS{Value: value}}})
	return err
}

func text(item map[string]dynamotypes.AttributeValue, name string) string {
	if s, ok := item[name].(*dynamotypes.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

// get gives an object, nil where there is none.
func (c cloud) get(ctx context.Context, key string) ([]byte, error) {
	out, err := c.clients.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: &key})
	var none *types.NoSuchKey
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

func (c cloud) put(ctx context.Context, key string, body []byte) error {
	_, err := c.clients.S3.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String("application/json")})
	return err
}

func opPutLock(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	var id, store, raw string
	var age time.Duration
	_, err := flags("putlock", args, 0, func(f *flag.FlagSet) {
		f.StringVar(&id, "id", lockID, "")
		f.StringVar(&store, "store", "", "")
		f.StringVar(&raw, "raw", "", "")
		f.DurationVar(&age, "age", 0, "")
	})
	if err != nil {
		return err
	}
	if raw == "" {
		info, err := json.Marshal(map[string]any{"ID": id, "Operation": "OperationTypeApply", "Info": "", "Who": "ada@build-7", "Version": "1.11.4",
			"Created": time.Now().UTC().Add(-age), "Path": c.state()})
		if err != nil {
			return err
		}
		raw = string(info)
	}
	inTable, inBucket := c.stores(store)
	if inTable {
		if err := c.putItem(ctx, c.state(), "Info", raw); err != nil {
			return err
		}
	}
	if inBucket {
		return c.put(ctx, c.key+".tflock", []byte(raw))
	}
	return nil
}

func opRemoveLock(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	if _, err := flags("rmlock", args, 0, nil); err != nil {
		return err
	}
	inTable, inBucket := c.stores("")
	if inTable {
		_, err := c.clients.DynamoDB.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &c.table,
			Key: map[string]dynamotypes.AttributeValue{"LockID": &dynamotypes.AttributeValueMemberS{Value: c.state()}}})
		if err != nil {
			return err
		}
	}
	if !inBucket {
		return nil
	}
	return opRemoveObject(ctx, c, nil, []string{c.key + ".tflock"})
}

// locks are the records that hold the state now, by store.
func (c cloud) locks(ctx context.Context) (map[string]string, error) {
	found := map[string]string{}
	if c.mode != testkit.Lockfile {
		item, err := c.item(ctx, c.state())
		if err != nil {
			return nil, err
		}
		if item != nil {
			found["dynamodb"] = text(item, "Info")
		}
	}
	body, err := c.get(ctx, c.key+".tflock")
	if body != nil {
		found["s3"] = string(body)
	}
	return found, err
}

func opLocked(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	var store string
	args, err := flags("locked", args, 1, func(f *flag.FlagSet) { f.StringVar(&store, "store", "", "") })
	if err != nil {
		return err
	}
	found, err := c.locks(ctx)
	if err != nil {
		return err
	}
	inTable, inBucket := c.stores("")
	for name, want := range map[string]bool{"dynamodb": inTable, "s3": inBucket} {
		if store != "" && name != store {
			continue
		}
		if raw, there := found[name]; there != want || there && !strings.Contains(raw, `"`+args[0]+`"`) {
			return fmt.Errorf("the lock in %s is %q, want one with %s: %v", name, raw, args[0], want)
		}
	}
	return nil
}

func opUnlocked(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	if _, err := flags("unlocked", args, 0, nil); err != nil {
		return err
	}
	found, err := c.locks(ctx)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("a lock is left: %v", found)
	}
	return err
}

func opAged(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	key := c.key + ".tflock"
	if len(args) == 2 {
		key, args = args[1], args[:1]
	} else if _, inBucket := c.stores(""); !inBucket {
		return nil // its age is that of its Created
	}
	args, err := flags("aged", args, 1, nil)
	if err != nil {
		return err
	}
	age, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	head, err := c.clients.S3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &key})
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Truncate(time.Second).Sub(aws.ToTime(head.LastModified)) < age {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func opSerial(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("serial", args, 1, nil)
	if err != nil {
		return err
	}
	body, err := c.get(ctx, c.key)
	if err != nil {
		return err
	}
	if body == nil && args[0] == "none" {
		return nil
	}
	var have struct{ Serial json.Number }
	if err := json.Unmarshal(body, &have); err != nil {
		return fmt.Errorf("the state is %q: %w", body, err)
	}
	if have.Serial.String() != args[0] {
		return fmt.Errorf("the state has serial %s, want %s", have.Serial, args[0])
	}
	if c.mode == testkit.Lockfile {
		return nil
	}
	item, err := c.item(ctx, c.state()+"-md5")
	if err != nil {
		return err
	}
	if sum := md5.Sum(body); text(item, "Digest") != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("the digest is %q, the state's is %x", text(item, "Digest"), sum)
	}
	return nil
}

func opBump(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	if _, err := flags("bump", args, 0, nil); err != nil {
		return err
	}
	body, err := c.get(ctx, c.key)
	if err != nil {
		return err
	}
	var have struct{ Serial uint64 }
	if err := json.Unmarshal(body, &have); err != nil {
		return err
	}
	body = bytes.Replace(body, fmt.Appendf(nil, `"serial": %d,`, have.Serial), fmt.Appendf(nil, `"serial": %d,`, have.Serial+1), 1)
	if err := c.put(ctx, c.key, body); err != nil || c.mode == testkit.Lockfile {
		return err
	}
	sum := md5.Sum(body)
	return c.putItem(ctx, c.state()+"-md5", "Digest", hex.EncodeToString(sum[:]))
}

// list gives the keys below a prefix, in the order of their names.
func (c cloud) list(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	pages := s3.NewListObjectsV2Paginator(c.clients.S3, &s3.ListObjectsV2Input{Bucket: &c.bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			keys = append(keys, aws.ToString(o.Key))
		}
	}
	return keys, nil
}

func opObjects(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("objects", args, 2, nil)
	if err != nil {
		return err
	}
	keys, err := c.list(ctx, args[0])
	if err == nil && strconv.Itoa(len(keys)) != args[1] {
		err = fmt.Errorf("%d objects are below %s, want %s: %q", len(keys), args[0], args[1], keys)
	}
	return err
}

func opObject(ctx context.Context, c cloud, out io.Writer, args []string) error {
	args, err := flags("object", args, 1, nil)
	if err != nil {
		return err
	}
	keys, err := c.list(ctx, args[0])
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("no object is below %s", args[0])
	}
	body, err := c.get(ctx, keys[len(keys)-1])
	if err != nil {
		return err
	}
	_, err = out.Write(body)
	return err
}

func opPutItem(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("putitem", args, 3, nil)
	if err != nil {
		return err
	}
	return c.putItem(ctx, args[0], args[1], args[2])
}

func opSuspendVersioning(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	if _, err := flags("suspendversioning", args, 0, nil); err != nil {
		return err
	}
	_, err := c.clients.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &c.bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}})
	return err
}

func opSpoil(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("spoil", args, 1, nil)
	if err != nil {
		return err
	}
	keys, err := c.list(ctx, args[0])
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("no object is below %s", args[0])
	}
	last := keys[len(keys)-1]
	body, err := c.get(ctx, last)
	if err != nil {
		return err
	}
	return c.put(ctx, last, bytes.ReplaceAll(body, []byte("hello"), []byte("jello")))
}

func opPutObject(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("putobject", args, 2, nil)
	if err != nil {
		return err
	}
	return c.put(ctx, args[0], []byte(args[1]))
}

func opRemoveObject(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("rmobject", args, 1, nil)
	if err != nil {
		return err
	}
	_, err = c.clients.S3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &c.bucket, Key: &args[0]})
	return err
}

func opVersions(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("versions", args, 2, nil)
	if err != nil {
		return err
	}
	list, err := c.clients.S3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &c.bucket, Prefix: &args[0]})
	if err == nil && strconv.Itoa(len(list.Versions)+len(list.DeleteMarkers)) != args[1] {
		err = fmt.Errorf("%d versions and %d delete markers are below %s, want %s", len(list.Versions), len(list.DeleteMarkers), args[0], args[1])
	}
	return err
}

// opOldVersion writes the version of a state with a serial over the newest, as
// somebody would who knows no digest and no serial.
func opOldVersion(ctx context.Context, c cloud, _ io.Writer, args []string) error {
	args, err := flags("oldversion", args, 2, nil)
	if err != nil {
		return err
	}
	list, err := c.clients.S3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &c.bucket, Prefix: &args[0]})
	if err != nil {
		return err
	}
	for _, v := range list.Versions {
		out, err := c.clients.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: v.Key, VersionId: v.VersionId})
		if err != nil {
			return err
		}
		body, err := io.ReadAll(out.Body)
		if err = errors.Join(err, out.Body.Close()); err != nil {
			return err
		}
		if aws.ToString(v.Key) == args[0] && bytes.Contains(body, []byte(`"serial": `+args[1]+`,`)) {
			return c.put(ctx, args[0], body)
		}
	}
	return fmt.Errorf("no version of %s has serial %s", args[0], args[1])
}

// runCloud is the main function of the program "cloud".
func runCloud() int {
	ctx, stop := context.WithTimeout(context.Background(), opLimit)
	defer stop()
	if err := cloudMain(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cloud:", err)
		return 1
	}
	return 0
}
