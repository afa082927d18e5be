package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func TestListenOnLoopbackOnly(t *testing.T) {
	for addr, ok := range map[string]bool{"": true, "127.0.0.1:0": true, "localhost:0": true, "127.1.2.3:0": true, "0.0.0.0:0": false, ":0": false, "[::]:0": false,
		"example.com:80": false, "10.0.0.1:0": false, "127.0.0.1.example.com:0": false, "nonsense": false} {
		ln, err := Listen(addr)
		if (err == nil) != ok {
			t.Errorf("Listen(%q): %v", addr, err)
		}
		if addr == "0.0.0.0:0" && !strings.Contains(err.Error(), "is not loopback: the sandbox checks no signatures") {
			t.Errorf("Listen(%q) was tried: %v", addr, err) // for an instant it was open to the network
		}
		if err == nil {
			ln.Close()
		}
	}
	b := newBox(t)
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel() // so that it returns either way
	if err := b.srv.Serve(over, ln); err == nil || !strings.Contains(err.Error(), "not loopback") {
		t.Errorf("Serve on all interfaces: %v", err)
	}
}

// A web page cannot reach the sandbox, neither through a name of its own that
// resolves to loopback nor by posting to it.
func TestBrowsersAreRefused(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	for _, c := range []struct {
		name, host, origin string
		ok                 bool
	}{
		{"loopback", "127.0.0.1:4566", "", true},
		{"localhost", "localhost", "", true},
		{"a bucket's host", "states.localhost:4566", "", true},
		{"IPv6 loopback", "[::1]:4566", "", true},
		{"a name that was rebound", "evil.example", "", false},
		{"a name that looks like it", "localhost.evil.example", "", false},
		{"an address of the network", "192.168.1.2", "", false},
		{"a page's request", "127.0.0.1", "https://evil.example", false},
		{"a page without an origin of its own", "127.0.0.1", "null", false},
	} {
		for _, target := range []string{"/", "/_tfguard/health", "/_tfguard/stats"} {
			res, _ := b.do("GET", target, nil, "Host", c.host, "Origin", c.origin)
			if (res.StatusCode == http.StatusForbidden) == c.ok {
				t.Errorf("%s: GET %s: %s", c.name, target, res.Status)
			}
			if res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: GET %s allows other origins", c.name, target)
			}
		}
	}
}

func TestControl(t *testing.T) {
	b := newBox(t)
	var health map[string]any
	_, body := b.do("GET", "/_tfguard/health", nil)
	if err := json.Unmarshal([]byte(body), &health); err != nil || health["name"] != "tfguard-sandbox" || health["version"] != 1.0 || health["pid"] != float64(os.Getpid()) {
		t.Errorf("health %s %v", body, err)
	}

	bucket := b.bucket("states", "")
	b.lockTable("locks")
	b.put(bucket, "k", "x")
	if res, _ := b.do("POST", "/_tfguard/reset", nil); res.StatusCode != http.StatusNoContent {
		t.Errorf("reset: %s", res.Status)
	}
	if out, err := b.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{}); err != nil || len(out.Buckets) != 0 {
		t.Errorf("buckets after the reset: %v %v", out, err)
	}
	if out, err := b.ddb.ListTables(t.Context(), &dynamodb.ListTablesInput{}); err != nil || len(out.TableNames) != 0 {
		t.Errorf("tables after the reset: %v %v", out, err)
	}
	b.bucket("states", "")
	b.put(bucket, "k", "y")
	if got := b.get(bucket, "k", ""); got != "y" {
		t.Errorf("after the reset: %q", got)
	}

	for _, c := range [][2]string{{"GET", "reset"}, {"GET", "shutdown"}, {"POST", "health"}, {"GET", "nonsense"}, {"DELETE", "stats"}} {
		if res, _ := b.do(c[0], "/_tfguard/"+c[1], nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %s", c[0], c[1], res.Status)
		}
	}
	down := make(chan struct{})
	b.srv.OnShutdown = func() { close(down) }
	if res, _ := b.do("POST", "/_tfguard/shutdown", nil); res.StatusCode != http.StatusNoContent {
		t.Errorf("shutdown: %s", res.Status)
	}
	<-down
}

// Serve ends when its context does, and lets go of the address.
func TestServe(t *testing.T) {
	b := newBox(t)
	ln, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(ctx, ln) }()
	res, err := http.Get("http://" + ln.Addr().String() + "/_tfguard/health")
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	again, err := Listen(ln.Addr().String())
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	again.Close()
}

func TestStats(t *testing.T) {
	b := newBox(t)
	bucket := b.bucket("states", "")
	b.do("POST", "/_tfguard/stats/reset", nil)
	for _, agent := range []string{"APN/1.0 HashiCorp/1.0 Terraform/1.11.4 (+https://www.terraform.io)", "aws-sdk-go-v2/1.0 app/tfguard", "OpenTofu/1.12.6", "curl/8"} {
		b.do("GET", "/"+bucket+"/k", nil, "User-Agent", agent)
		b.do("HEAD", "/"+bucket+"/k", nil, "User-Agent", agent)
	}
	b.do("POST", "/", nil, "X-Amz-Target", "DynamoDB_20120810.ListTables", "User-Agent", "tfguard/1")
	b.do("POST", "/", nil, "X-Amz-Target", "DynamoDB_20120810."+strings.Repeat("x", 100), "User-Agent", "tfguard/1")
	b.do("PATCH", "/x", nil, "User-Agent", "tfguard/1")
	_, body := b.do("GET", "/_tfguard/stats", nil)
	var got Stats
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := Stats{
		Requests: map[string]int{"s3:GetObject": 4, "s3:HeadObject": 4, "dynamodb:ListTables": 1, "dynamodb:Unknown": 1, "s3:Unknown": 1},
		Agents: map[string]map[string]int{
			"tfguard":   {"s3:GetObject": 1, "s3:HeadObject": 1, "dynamodb:ListTables": 1, "dynamodb:Unknown": 1, "s3:Unknown": 1},
			"terraform": {"s3:GetObject": 1, "s3:HeadObject": 1}, "opentofu": {"s3:GetObject": 1, "s3:HeadObject": 1}, "other": {"s3:GetObject": 1, "s3:HeadObject": 1},
		},
	}
	if fmt.Sprint(got.Requests, got.Agents) != fmt.Sprint(want.Requests, want.Agents) || got.Since.IsZero() {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSTS(t *testing.T) {
	b := newBox(t)
	c := sts.New(sts.Options{BaseEndpoint: &b.http.URL, Region: Region, Credentials: credentials.NewStaticCredentialsProvider("AKIAANYKEY", "any", "")})
	out, err := c.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || *out.Account != AccountID || !strings.HasPrefix(*out.Arn, "arn:aws:sts::"+AccountID+":assumed-role/") {
		t.Errorf("%+v %v", out, err)
	}
	_, err = c.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::000000000000:role/r"), RoleSessionName: aws.String("s")})
	wantCode(t, err, "InvalidAction")
}

// Without credentials each service says so in its own words.
func TestMissingCredentials(t *testing.T) {
	b := newBox(t)
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
		want                 string
	}{
		{"S3", "GET", "/states", nil, 403, "<Code>AccessDenied</Code>"},
		{"DynamoDB", "POST", "/", []string{"X-Amz-Target", "DynamoDB_20120810.ListTables"}, 400, "#MissingAuthenticationTokenException"},
		{"STS", "POST", "/?Action=GetCallerIdentity", nil, 403, "<Code>MissingAuthenticationToken</Code>"},
	} {
		res, body := b.do(c.method, c.target, nil, append(c.header, "Authorization", "")...)
		if res.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %s %s", c.name, res.Status, body)
		}
	}
	// A presigned URL carries them in its query.
	bucket := b.bucket("states", "")
	b.put(bucket, "k", "presigned")
	u, err := s3.NewPresignClient(b.s3).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	if _, body := b.do("GET", strings.TrimPrefix(u.URL, b.http.URL), nil, "Authorization", ""); body != "presigned" {
		t.Errorf("presigned GET: %s", body)
	}
}

// Requests that no client of good will sends are refused and nothing falls
// over.
func TestHostileRequests(t *testing.T) {
	b := newBox(t)
	b.bucket("states", "")
	for _, raw := range []string{
		"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET //states//k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"GET /states/k?versionId=%zz HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"GET /states?list-type=2&max-keys=-1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"GET /states?list-type=2&continuation-token=*** HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"GET /states?versions&version-id-marker=x HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"GET /states?versions&key-marker=a&version-id-marker=%00 HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n",
		"PUT /states/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PUT /states/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: 99999999999\r\n\r\n",
		"PUT /states/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: 5\r\nx-amz-content-sha256: STREAMING-X\r\nx-amz-decoded-content-length: -1\r\n\r\n0\r\n\r\n",
		"PUT /states/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: 0\r\nx-amz-copy-source: %zz\r\n\r\n",
		"PUT /states/k?partNumber=1&uploadId=%00 HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: 0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nX-Amz-Target: DynamoDB_20120810.PutItem\r\nContent-Length: 4\r\n\r\nnull",
		"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\n%%%",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.http.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 4") {
			t.Errorf("%q: answered %q %v", raw, buf[:n], err)
		}
		conn.Close()
	}
}
