package holder_test

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/testkit"
)

func TestList(t *testing.T) {
	b := newBench(t)
	client, object := b.cloud.Via(t, b.proxy.URL).S3, awsclient.ObjectOf(backend.Settings{})
	run := record("run")
	run.Beat = run.Started
	body, err := run.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{".tfguard/env/a.tfstate/holder.json", ".tfguard/env:/x/b/holder.json", ".tfguard/damaged/holder.json", ".tfguard/holder.json", ".tfguard/a/audit/1.json", "holder.json", "x/holder.json"} {
		text := body
		if key == ".tfguard/damaged/holder.json" {
			text = []byte("?")
		}
		if _, err := b.cloud.Clients.S3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b.addr.Bucket, Key: &key, Body: bytes.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]lock.HolderSeen{}
	list := func() error {
		return holder.List(t.Context(), client, b.addr.Bucket, object, func(key string, seen lock.HolderSeen) error {
			got[key] = seen
			return nil
		})
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if names, want := slices.Sorted(maps.Keys(got)), []string{"damaged", "env/a.tfstate", "env:/x/b"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if got["damaged"].Problem == "" || got["env/a.tfstate"].Record.RunID != "run" || got["env/a.tfstate"].Match == "" {
		t.Errorf("%q, %+v", got["damaged"].Problem, got["env/a.tfstate"].Record)
	}
	b.proxy.Add(testkit.Fault{Match: func(r *http.Request) bool { return r.URL.Query().Has("list-type") }, Answer: testkit.S3Error(403, "AccessDenied", "no")})
	if err := list(); !backend.Is(err, backend.Denied) {
		t.Errorf("%v, want a problem of kind %q", err, backend.Denied)
	}
	b.proxy.Reset()
	b.proxy.Add(testkit.Fault{Match: gets, Answer: testkit.S3Error(500, "InternalError", "down")})
	if err := list(); !backend.Is(err, backend.Unreachable) {
		t.Errorf("%v, want a problem of kind %q", err, backend.Unreachable)
	}
}
