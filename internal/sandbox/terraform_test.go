package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// lockTable makes the table that terraform's backend wants.
func (b *box) lockTable(name string) {
	b.t.Helper()
	must(b.t)(b.ddb.CreateTable(b.t.Context(), &dynamodb.CreateTableInput{
		TableName:            &name,
		BillingMode:          ddbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []ddbtypes.AttributeDefinition{{AttributeName: aws.String("LockID"), AttributeType: ddbtypes.ScalarAttributeTypeS}},
		KeySchema:            []ddbtypes.KeySchemaElement{{AttributeName: aws.String("LockID"), KeyType: ddbtypes.KeyTypeHash}},
	}))
}

// terraform runs the real terraform in dir against the sandbox.
func (b *box) terraform(dir string, args ...string) (string, error) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "terraform", args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "AWS_") && !strings.HasPrefix(kv, "TF_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0",
		"AWS_ENDPOINT_URL_S3="+b.http.URL, "AWS_ENDPOINT_URL_DYNAMODB="+b.http.URL, "AWS_ENDPOINT_URL_STS="+b.http.URL,
		"AWS_ACCESS_KEY_ID="+AccessKey, "AWS_SECRET_ACCESS_KEY="+SecretKey, "AWS_REGION="+Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *box) mustTerraform(dir string, args ...string) string {
	b.t.Helper()
	out, err := b.terraform(dir, args...)
	if err != nil {
		b.t.Fatalf("terraform %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// The point of it all: the real terraform keeps its state here, in every lock
// mode it has, in a versioned bucket, and is kept out by a lock.
func TestTerraform(t *testing.T) {
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Fatal(err)
	}
	const table, bucket = "locks", "states"
	modes := map[string]string{
		"dynamodb": `dynamodb_table = "locks"`,
		"s3":       `use_lockfile = true`,
		"both":     "use_lockfile = true\n    dynamodb_table = \"locks\"",
	}
	b := newBox(t)
	b.bucket(bucket, types.BucketVersioningStatusEnabled)
	b.lockTable(table)
	for mode, setting := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := &box{t: t, srv: b.srv, http: b.http, s3: b.s3, ddb: b.ddb}
			dir := t.TempDir()
			config := fmt.Sprintf(`
terraform {
  backend "s3" {
    bucket         = %q
    key            = "%s/terraform.tfstate"
    region         = "us-east-1"
    use_path_style = true
    encrypt        = true
    %s
  }
}
variable "content" { default = "one" }
resource "terraform_data" "it" { input = var.content }
output "content" { value = terraform_data.it.output }
`, bucket, mode, setting)
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			b.mustTerraform(dir, "init", "-no-color")
			b.mustTerraform(dir, "apply", "-auto-approve", "-no-color")
			b.mustTerraform(dir, "apply", "-auto-approve", "-no-color", "-var", "content=two")
			if out := b.mustTerraform(dir, "output", "-raw", "content"); !strings.Contains(out, "two") {
				t.Errorf("output after the second apply: %s", out)
			}
			b.mustTerraform(dir, "workspace", "new", "staging")
			b.mustTerraform(dir, "apply", "-auto-approve", "-no-color")
			b.mustTerraform(dir, "workspace", "select", "default")

			// A lock that another holds: terraform names it and stops.
			key := mode + "/terraform.tfstate"
			info := `{"ID":"11111111-2222-3333-4444-555555555555","Operation":"OperationTypeApply","Who":"somebody@else"}`
			unlock := b.lock(mode, table, bucket, key, info)
			if out, err := b.terraform(dir, "apply", "-auto-approve", "-no-color"); err == nil || !strings.Contains(out, "somebody@else") {
				t.Errorf("apply under a lock: %v\n%s", err, out)
			}
			unlock()

			b.mustTerraform(dir, "destroy", "-auto-approve", "-no-color")
			b.noLock(mode, table, bucket, key)
			vs, err := b.s3.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: aws.String(bucket), Prefix: &key})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, v := range vs.Versions {
				if *v.Key == key {
					n++
				}
			}
			if n < 3 {
				t.Errorf("%d versions of the state after three writes", n)
			}
		})
	}
}

// lock writes the lock that terraform would, and returns its removal.
func (b *box) lock(mode, table, bucket, key, info string) func() {
	b.t.Helper()
	ctx := b.t.Context()
	if mode == "dynamodb" {
		must(b.t)(b.ddb.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: map[string]ddbtypes.AttributeValue{
			"LockID": &ddbtypes.AttributeValueMemberS{Value: bucket + "/" + key}, "Info": &ddbtypes.AttributeValueMemberS{Value: info}}}))
		return func() {
			must(b.t)(b.ddb.DeleteItem(context.WithoutCancel(ctx), &dynamodb.DeleteItemInput{TableName: &table, Key: map[string]ddbtypes.AttributeValue{
				"LockID": &ddbtypes.AttributeValueMemberS{Value: bucket + "/" + key}}}))
		}
	}
	b.put(bucket, key+".tflock", info)
	return func() { b.remove(bucket, key+".tflock") }
}

// noLock checks that neither store holds a lock of the state.
func (b *box) noLock(mode, table, bucket, key string) {
	b.t.Helper()
	_, err := b.s3.HeadObject(b.t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String(key + ".tflock")})
	wantCode(b.t, err, "NotFound")
	out, err := b.ddb.GetItem(b.t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: map[string]ddbtypes.AttributeValue{
		"LockID": &ddbtypes.AttributeValueMemberS{Value: bucket + "/" + key}}})
	if err != nil || out.Item != nil {
		b.t.Errorf("lock left in %s mode: %v %v", mode, out, err)
	}
}
