package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// No request makes the sandbox panic or blame itself.
func FuzzRequests(f *testing.F) {
	srv, err := Open(filepath.Join(f.TempDir(), "sandbox.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { srv.Close() })
	serve := func(t testing.TB, raw string) int {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return 400
		}
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Errorf("%d for %q: %s", w.Code, raw, w.Body)
		}
		return w.Code
	}
	request := func(method, target, header, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\nContent-Length: %d\r\n%s\r\n%s", method, target, len(body), header, body)
	}
	for _, r := range []string{
		request("PUT", "/states", "", ""), request("PUT", "/states/k", "x-amz-tagging: a=b\r\n", "x"),
		request("PUT", "/states?versioning", "", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
	} {
		if got := serve(f, r); got != 200 {
			f.Fatal(got, r)
		}
	}
	for key := range s3Ops {
		method, target, _ := strings.Cut(key, " ")
		target, header, _ := strings.Cut(target, "+")
		if header == "copy" {
			header = "x-amz-copy-source: states/k?versionId=null\r\n"
		}
		target = strings.NewReplacer("service", "/", "bucket", "/states", "object", "/states/k").Replace(target)
		f.Add(request(method, target, header, "<a/>"))
	}
	for op := range dynamoOps {
		f.Add(request("POST", "/", "X-Amz-Target: "+dynamoTarget+op+"\r\n", `{"TableName":"locks","Key":{"LockID":{"S":"k"}}}`))
	}
	f.Add(request("POST", "/", "Content-Type: application/x-www-form-urlencoded\r\n", "Action=GetCallerIdentity"))
	f.Add(request("GET", "/states?versions&prefix=k&delimiter=/&key-marker=k&version-id-marker=null&max-keys=1&encoding-type=url", "", ""))
	f.Add(request("GET", "/states/k?partNumber=1", "Range: bytes=-1\r\n", ""))
	f.Add(request("POST", "/states?delete", "", "<Delete><Object><Key>k</Key><VersionId>null</VersionId></Object></Delete>"))
	f.Add(request("POST", "/", "X-Amz-Target: "+dynamoTarget+"CreateTable\r\n", `{"TableName":"locks","KeySchema":[{"AttributeName":"LockID","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"LockID","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}`))
	f.Fuzz(func(t *testing.T, raw string) { serve(t, raw) })
}

// An aws-chunked body is decoded to what went in, or refused.
func FuzzChunkedBodies(f *testing.F) {
	f.Add([]byte(chunks("hello", 2, true, "x-amz-checksum-crc32:AAAA")), []byte("body"), 3)
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), []byte(""), 1)
	f.Add([]byte("ffffffffffffffff\r\n"), []byte("x"), 1)
	f.Fuzz(func(t *testing.T, raw, body []byte, n int) {
		var out bytes.Buffer
		_, _ = decodeChunked(&out, bytes.NewReader(raw))
		if out.Len() > len(raw) {
			t.Errorf("%d bytes of %q", out.Len(), raw)
		}
		out.Reset()
		encoded := chunks(string(body), max(1, n), n%2 == 0, "a:b")
		if trailers, err := decodeChunked(&out, strings.NewReader(encoded)); err != nil || !bytes.Equal(out.Bytes(), body) || trailers["a"] != "b" {
			t.Errorf("%q in chunks of %d: %q %v %v", body, n, out.Bytes(), trailers, err)
		}
	})
}
