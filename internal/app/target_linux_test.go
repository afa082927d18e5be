package app

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/testkit"
)

// A holder that frees its lock and ends between the reading of the lock and the
// look at its process has left nothing: that is found by a second look. One that
// ended and left its lock is stale, proven (G2, G6).
func TestAHolderThatEndsWhileItIsLookedAt(t *testing.T) {
	cloud := testkit.Start(t)
	s, addr := cloud.State(t, testkit.Lockfile)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	r := lock.Record{RunID: "run-1", Command: "apply", Who: "ada@build-7", Stage: "apply", LockID: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", Started: now.Add(-time.Minute), Beat: now}
	r.Host, _, r.Began = holder.Here()
	r.PID = gone.Process.Pid
	body, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	client := cloud.Clients.S3
	put := func(key, text string) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &addr.Bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	put(addr.HolderKey(), string(body))
	put(addr.LockKey(), `{"ID":"`+r.LockID+`","Operation":"OperationTypeApply","Info":"","Who":"ada@build-7","Version":"1.11.4","Created":"`+now.Format(time.RFC3339Nano)+`","Path":"`+addr.String()+`"}`)
	store, err := url.Parse(cloud.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, frees := range []bool{false, true} {
		want := lock.Stale
		if frees {
			want = lock.None
		}
		var looks atomic.Int32
		proxy := testkit.Serve(t, &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(store) },
			ModifyResponse: func(a *http.Response) error { // the lock's first reading is answered: now it is freed
				if !strings.HasSuffix(a.Request.URL.Path, addr.LockKey()) || looks.Add(1) != 1 || !frees {
					return nil
				}
				_, err := client.DeleteObject(a.Request.Context(), &s3.DeleteObjectInput{Bucket: aws.String(addr.Bucket), Key: aws.String(addr.LockKey())})
				return err
			},
		})
		via := s
		via.Attrs = testkit.Settings(proxy).Attrs
		seen := &target{found: discover.Found{Settings: s}, addr: addr, settings: via, policy: lock.DefaultPolicy()}
		v, err := seen.Observe(t.Context())
		if err != nil || v.Status != want {
			t.Errorf("frees its lock: %v: %s, %v", frees, v.Status, err)
		}
		if n := looks.Load(); n != 2 {
			t.Errorf("frees its lock: %v: the lock was read %d times", frees, n)
		}
	}
}
