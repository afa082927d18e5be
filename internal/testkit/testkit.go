// Package testkit has what tests alone need: S3 and DynamoDB to run against,
// and a way to make them misbehave.
package testkit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/sandbox"
)

// EndpointVar names the environment variable with the URL of an emulator to
// test against in place of the sandbox; it is shared and is not cleaned up.
const EndpointVar = "TFGUARD_E2E_ENDPOINT"

// The locks of a state.
const (
	DynamoDB = "dynamodb" // a table
	Lockfile = "lockfile" // <key>.tflock
	Both     = "both"
)

// Cloud is S3, DynamoDB and STS at one URL.
type Cloud struct {
	URL     string
	Clients *awsclient.Clients
}

// Start gives a cloud of the test's own: the sandbox in this process, or the
// emulator that TFGUARD_E2E_ENDPOINT names. Settings of the machine that the
// AWS SDK would read, such as a profile, are switched off for the test.
func Start(t testing.TB) *Cloud {
	t.Helper()
	Isolate(t)
	url := os.Getenv(EndpointVar)
	if url == "" {
		server, err := sandbox.Open(filepath.Join(t.TempDir(), "sandbox.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		url = Serve(t, server)
	}
	c := &Cloud{URL: strings.TrimSuffix(url, "/")}
	c.Clients = c.Via(t, c.URL)
	return c
}

// Isolate makes the AWS SDK see nothing of this machine's settings: no
// environment, no files, no metadata service. Not for parallel tests.
func Isolate(t testing.TB) {
	t.Helper()
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // restores it afterwards
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// Serve gives the URL of a server on 127.0.0.1 that lives as long as the test.
// Requests that still hang at its end are broken off.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// Settings are backend settings without a bucket for an emulator at url.
func Settings(url string) backend.Settings {
	return backend.Settings{Region: sandbox.Region, Attrs: map[string]any{
		"region": sandbox.Region, "access_key": sandbox.AccessKey, "secret_key": sandbox.SecretKey,
		"endpoints":                   map[string]any{"s3": url, "dynamodb": url, "sts": url, "iam": url},
		"use_path_style":              true,
		"skip_credentials_validation": true, "skip_metadata_api_check": true,
		"skip_requesting_account_id": true, "skip_region_validation": true,
	}}
}

// Via gives clients that reach the cloud through another URL, such as that of
// a [Faulty]. Their pauses between attempts are short.
func (c *Cloud) Via(t testing.TB, url string) *awsclient.Clients {
	t.Helper()
	clients, err := awsclient.New(t.Context(), Settings(url), awsclient.Options{
		UserAgent: "tfguard/test", MaxBackoff: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// Names gives settings and address of a state whose bucket and table nobody
// has made, with names of the test's own. The mode is one of the constants.
func (c *Cloud) Names(t testing.TB, mode string) (backend.Settings, backend.Address) {
	t.Helper()
	s := Settings(c.URL)
	s.Bucket, s.Key = "tfguard-test-"+suffix(), "env/prod/terraform.tfstate"
	s.Attrs["bucket"], s.Attrs["key"] = s.Bucket, s.Key
	switch mode {
	case DynamoDB, Both:
		s.DynamoDBTable = s.Bucket + "-locks"
		s.Attrs["dynamodb_table"] = s.DynamoDBTable
	case Lockfile:
	default:
		t.Fatalf("no lock mode %q", mode)
	}
	if mode != DynamoDB {
		s.UseLockfile = true
		s.Attrs["use_lockfile"] = true
	}
	addr, err := s.Address("")
	if err != nil {
		t.Fatal(err)
	}
	return s, addr
}

// State is Names with the bucket, its versioning and the table made.
func (c *Cloud) State(t testing.TB, mode string) (backend.Settings, backend.Address) {
	t.Helper()
	s, addr := c.Names(t, mode)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Clients.S3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.Bucket}))
	must(c.Clients.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &s.Bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}))
	if s.DynamoDBTable != "" {
		must(c.Clients.DynamoDB.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName:            &s.DynamoDBTable,
			AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: dynamotypes.ScalarAttributeTypeS}},
			KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: aws.String("LockID"), KeyType: dynamotypes.KeyTypeHash}},
			BillingMode:          dynamotypes.BillingModePayPerRequest,
		}))
		waiter := dynamodb.NewTableExistsWaiter(c.Clients.DynamoDB, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 10 * time.Millisecond })
		if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &s.DynamoDBTable}, 30*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	return s, addr
}

func suffix() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
