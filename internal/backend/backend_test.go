package backend

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddress(t *testing.T) {
	s := Settings{Bucket: "b", Key: "app/terraform.tfstate", DynamoDBTable: "locks", UseLockfile: true}
	for _, c := range []struct{ sentence, workspace, prefix, key string }{
		{"the default workspace has no prefix", "default", "", "app/terraform.tfstate"},
		{"no workspace is the default one", "", "", "app/terraform.tfstate"},
		{"a workspace stands under terraform's default prefix", "staging", "env:", "env:/staging/app/terraform.tfstate"},
		{"or under the configured one", "staging", "teams/a", "teams/a/staging/app/terraform.tfstate"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			s := s
			s.WorkspaceKeyPrefix = c.prefix
			a, err := s.Address(c.workspace)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{a.Key, a.String(), a.LockID(), a.DigestID(), a.LockKey()}
			want := []string{c.key, "b/" + c.key, "b/" + c.key, "b/" + c.key + "-md5", c.key + ".tflock"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAddressRefuses(t *testing.T) {
	var incomplete *IncompleteError
	if _, err := (Settings{Region: "eu-west-1"}).Address(""); !errors.As(err, &incomplete) || len(incomplete.Missing) != 2 {
		t.Errorf("a backend without bucket and key: %v", err)
	}
	for _, key := range []string{"/a", "a/"} {
		if _, err := (Settings{Bucket: "b", Key: key}).Address(""); err == nil {
			t.Errorf("key %q was accepted", key)
		}
	}
}

// TestLeastPolicy: the policy names this state and no other, in every lock mode.
func TestLeastPolicy(t *testing.T) {
	for _, c := range []struct {
		sentence    string
		a           Address
		region, key string
		has, hasNot []string
		account     string
		copies      string
	}{
		{sentence: "a table, no lock object", a: Address{Bucket: "b", Key: "k", Table: "t"}, region: "eu-west-1", account: "123456789012",
			has: []string{"arn:aws:dynamodb:eu-west-1:123456789012:table/t", "arn:aws:s3:::b/k\""}, hasNot: []string{"tflock", "kms:"}},
		{sentence: "a lock object, no table", a: Address{Bucket: "b", Key: "k", Lockfile: true}, region: "eu-west-1",
			has: []string{"arn:aws:s3:::b/k.tflock"}, hasNot: []string{"dynamodb"}},
		{sentence: "another partition, any account, a key", a: Address{Bucket: "b", Key: "k", Table: "t"}, region: "cn-north-1", key: "arn:aws-cn:kms:cn-north-1:1:key/x",
			has: []string{"arn:aws-cn:s3:::b", "arn:aws-cn:dynamodb:cn-north-1:*:table/t", "kms:GenerateDataKey"}},
		{sentence: "copies in a bucket of their own", a: Address{Bucket: "b", Key: "k"}, region: "eu-west-1", copies: "c",
			has: []string{"arn:aws:s3:::b\",\"arn:aws:s3:::c\"", "arn:aws:s3:::c/backups/k/*"}, hasNot: []string{"b/backups"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			b, err := json.Marshal(c.a.LeastPolicy(c.region, c.account, c.key, c.copies))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.has {
				if !strings.Contains(string(b), s) {
					t.Errorf("no %s in %s", s, b)
				}
			}
			for _, s := range append(c.hasNot, `"s3:*"`, `"*"]`, "b/*") {
				if strings.Contains(string(b), s) {
					t.Errorf("%s in %s", s, b)
				}
			}
		})
	}
}

func TestProblemNamesActionAndResource(t *testing.T) {
	err := error(&Problem{Kind: Denied, Action: "s3:GetObject", Resource: "s3://b/k", Err: errors.New("403")})
	if got := err.Error(); got != "permission denied: s3:GetObject on s3://b/k" {
		t.Error(got)
	}
	if !Is(err, Denied) || Is(err, Missing) {
		t.Error("the kind is not found")
	}
}
