package awsclient_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/testkit"
)

func quick() awsclient.Options {
	return awsclient.Options{UserAgent: "tfguard/1.2.3", MaxBackoff: time.Millisecond}
}

func newClients(t *testing.T, s backend.Settings, o awsclient.Options) *awsclient.Clients {
	t.Helper()
	c, err := awsclient.New(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(ctx context.Context, c *awsclient.Clients) error {
	out, err := c.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("demo"), Key: aws.String("a/b")})
	if err == nil {
		defer out.Body.Close()
		_, err = io.ReadAll(out.Body)
	}
	return awsclient.Explain(err, awsclient.ObjectName("demo", "a/b"))
}

func TestStaticCredentialsNeedNoRequest(t *testing.T) {
	testkit.Isolate(t)
	url := testkit.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }))
	s := testkit.Settings(url)
	for _, skip := range []string{"skip_credentials_validation", "skip_requesting_account_id", "skip_metadata_api_check"} {
		delete(s.Attrs, skip)
	}
	best := time.Hour
	for range 20 {
		began := time.Now()
		newClients(t, s, quick())
		best = min(best, time.Since(began))
	}
	if best > 20*time.Millisecond {
		t.Errorf("making the clients takes %s", best)
	}
}

func TestARequestIsTriedFiveTimesAndSaysWhoAsks(t *testing.T) {
	testkit.Isolate(t)
	for name, set := range map[string]func(*backend.Settings){
		"by default":               func(*backend.Settings) {},
		"with a lower max_retries": func(s *backend.Settings) { s.Attrs["max_retries"] = float64(1) },
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				if !strings.Contains(r.UserAgent(), "tfguard/1.2.3") {
					t.Errorf("user agent %q", r.UserAgent())
				}
				w.WriteHeader(500)
			}))
			s := testkit.Settings(url)
			set(&s)
			err := get(t.Context(), newClients(t, s, quick()))
			if !backend.Is(err, backend.Unreachable) || !strings.Contains(err.Error(), "after 5 attempts") {
				t.Errorf("%v, want Unreachable after 5 attempts", err)
			}
			if n.Load() != 5 {
				t.Errorf("%d attempts, want 5", n.Load())
			}
		})
	}
}

// A bucket for snapshots may be in another region than the state's: its requests
// are signed for that one (issue 5).
func TestAnotherRegion(t *testing.T) {
	testkit.Isolate(t)
	var signed []string
	url := testkit.Serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		signed = append(signed, r.Header.Get("Authorization"))
	}))
	c := newClients(t, testkit.Settings(url), quick())
	for _, client := range []*s3.Client{c.S3, c.S3In("eu-north-1")} {
		if _, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("b")}); err != nil {
			t.Fatal(err)
		}
	}
	if len(signed) != 2 || !strings.Contains(signed[0], "/"+c.Region+"/s3/") || !strings.Contains(signed[1], "/eu-north-1/s3/") {
		t.Errorf("%q", signed)
	}
}

func TestACancelIsAtOnce(t *testing.T) {
	testkit.Isolate(t)
	for name, answer := range map[string]http.HandlerFunc{
		"while a request hangs":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in a pause between two": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.AfterFunc(10*time.Millisecond, cancel)
				answer(w, r)
			}))
			c := newClients(t, testkit.Settings(url), awsclient.Options{})
			began := time.Now()
			if err := get(ctx, c); !errors.Is(err, context.Canceled) || backend.Is(err, backend.Unreachable) {
				t.Errorf("%v, want context.Canceled", err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestAHangEndsWithoutACancel(t *testing.T) {
	testkit.Isolate(t)
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	short := quick()
	short.AttemptTimeout = 30 * time.Millisecond
	whole := quick()
	whole.RequestTimeout = 50 * time.Millisecond
	for _, row := range []struct {
		name    string
		answer  http.HandlerFunc
		options awsclient.Options
		want    string
	}{
		{"an attempt without an answer is tried again", hang, short, "no answer for 30ms, after 5 attempts"},
		{"an answer that stops in the middle", stall, short, "no answer for 30ms"},
		{"the whole request", hang, whole, "no answer within 50ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newClients(t, testkit.Settings(testkit.Serve(t, row.answer)), row.options)
			err := get(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v claims that the caller gave up", err)
			}
		})
	}
}

func TestTheRegionComesFromWhereTerraformLooks(t *testing.T) {
	for _, row := range []struct {
		name string
		env  map[string]string
		set  string
		file string
		want string
	}{
		{"the backend's own wins", map[string]string{"AWS_REGION": "eu-west-1"}, "eu-central-1", "", "eu-central-1"},
		{"then AWS_REGION", map[string]string{"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "", "", "eu-west-1"},
		{"then AWS_DEFAULT_REGION", map[string]string{"AWS_DEFAULT_REGION": "eu-west-2"}, "", "", "eu-west-2"},
		{"then the profile", nil, "", "[default]\nregion = eu-west-3\n", "eu-west-3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			testkit.Isolate(t)
			s := testkit.Settings("http://127.0.0.1:1")
			s.Region = row.set
			delete(s.Attrs, "region")
			for k, v := range row.env {
				t.Setenv(k, v)
			}
			if row.file != "" {
				s.Attrs["shared_config_files"] = []any{write(t, row.file)}
			}
			if c := newClients(t, s, quick()); c.Region != row.want || c.S3.Options().Region != row.want || c.DynamoDB.Options().Region != row.want {
				t.Errorf("region %q, want %q", c.Region, row.want)
			}
		})
	}
	t.Run("none is an error that says what to set", func(t *testing.T) {
		testkit.Isolate(t)
		s := testkit.Settings("http://127.0.0.1:1")
		s.Region = ""
		delete(s.Attrs, "region")
		if _, err := awsclient.New(t.Context(), s, quick()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
			t.Errorf("%v, want one that names AWS_REGION", err)
		}
	})
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentialsComeFromWhereTerraformLooks(t *testing.T) {
	const files = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n"
	sts := `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>x</SecretAccessKey>` +
		`<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
	for _, row := range []struct {
		name string
		env  map[string]string
		set  map[string]any
		want string
		sent string // must be in the request to STS
	}{
		{"the backend's own", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"},
			map[string]any{"access_key": "AKIASET", "secret_key": "x"}, "AKIASET", ""},
		{"the environment", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"}, nil, "AKIAENV", ""},
		{"a file", nil, map[string]any{"shared_credentials_files": []any{"FILE"}}, "AKIADEFAULT", ""},
		{"a file by its old name", nil, map[string]any{"shared_credentials_file": "FILE"}, "AKIADEFAULT", ""},
		{"a profile beats the environment", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"},
			map[string]any{"shared_credentials_files": []any{"FILE"}, "profile": "other"}, "AKIAOTHER", ""},
		{"a role", nil, map[string]any{"access_key": "AKIASET", "secret_key": "x", "assume_role": map[string]any{
			"role_arn": "arn:aws:iam::000000000001:role/r", "session_name": "s", "external_id": "e", "duration": "1h",
			"tags": map[string]any{"k": "v"}, "transitive_tag_keys": []any{"k"}, "policy_arns": []any{"arn:aws:iam::aws:policy/p"}}},
			"ASIAROLE", "DurationSeconds=3600&ExternalId=e"},
		{"a role as before terraform 1.6", nil, map[string]any{"access_key": "AKIASET", "secret_key": "x",
			"role_arn": "arn:aws:iam::000000000001:role/r", "session_name": "s", "external_id": "e", "assume_role_duration_seconds": float64(3600)},
			"ASIAROLE", "DurationSeconds=3600&ExternalId=e"},
		{"a role by the environment's old STS endpoint", map[string]string{"AWS_STS_ENDPOINT": "URL"}, map[string]any{
			"access_key": "AKIASET", "secret_key": "x", "endpoints": nil, "endpoint": "URL",
			"assume_role": map[string]any{"role_arn": "arn:aws:iam::000000000001:role/r"}}, "ASIAROLE", "Action=AssumeRole"},
		{"a web identity", nil, map[string]any{"assume_role_with_web_identity": map[string]any{
			"role_arn": "arn:aws:iam::000000000001:role/r", "session_name": "s", "web_identity_token": "token"}},
			"ASIAROLE", "WebIdentityToken=token"},
	} {
		t.Run(row.name, func(t *testing.T) {
			testkit.Isolate(t)
			var used, sent string
			url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					body, _ := io.ReadAll(r.Body)
					sent = string(body)
					answer := sts
					if strings.Contains(sent, "WithWebIdentity") {
						answer = strings.ReplaceAll(sts, "AssumeRole", "AssumeRoleWithWebIdentity")
					}
					_, _ = io.WriteString(w, answer)
					return
				}
				used = r.Header.Get("Authorization")
			}))
			for k, v := range row.env {
				t.Setenv(k, strings.ReplaceAll(v, "URL", url))
			}
			s := testkit.Settings(url)
			delete(s.Attrs, "access_key")
			delete(s.Attrs, "secret_key")
			for k, v := range row.set {
				switch v {
				case nil:
					delete(s.Attrs, k)
					continue
				case "FILE":
					v = write(t, files)
				case "URL":
					v = url
				}
				if list, ok := v.([]any); ok && list[0] == "FILE" {
					v = []any{write(t, files)}
				}
				s.Attrs[k] = v
			}
			if err := get(t.Context(), newClients(t, s, quick())); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(used, "Credential="+row.want+"/") {
				t.Errorf("signed with %q, want %s", used, row.want)
			}
			if !strings.Contains(sent, row.sent) {
				t.Errorf("STS was asked %q, want %q in it", sent, row.sent)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	for _, row := range []struct {
		name       string
		env        map[string]string
		set        map[string]any
		s3, dynamo string
	}{
		{"none is AWS", nil, nil, "", ""},
		{"the object", nil, map[string]any{"endpoints": map[string]any{"s3": "http://s", "dynamodb": "http://d"}}, "http://s", "http://d"},
		{"the old arguments", nil, map[string]any{"endpoint": "http://s", "dynamodb_endpoint": "http://d"}, "http://s", "http://d"},
		{"without a scheme", nil, map[string]any{"endpoint": "s.example"}, "https://s.example", ""},
		{"the SDK's environment", map[string]string{"AWS_ENDPOINT_URL_S3": "http://s", "AWS_ENDPOINT_URL_DYNAMODB": "http://d"}, nil, "http://s", "http://d"},
		{"one for all", map[string]string{"AWS_ENDPOINT_URL": "http://a"}, nil, "http://a", "http://a"},
		{"terraform's environment", map[string]string{"AWS_S3_ENDPOINT": "http://s", "AWS_DYNAMODB_ENDPOINT": "http://d"}, nil, "http://s", "http://d"},
		{"the backend beats the environment", map[string]string{"AWS_ENDPOINT_URL_S3": "http://x", "AWS_S3_ENDPOINT": "http://y"},
			map[string]any{"endpoints": map[string]any{"s3": "http://s"}}, "http://s", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			testkit.Isolate(t)
			for k, v := range row.env {
				t.Setenv(k, v)
			}
			s := backend.Settings{Region: "eu-west-1", Attrs: map[string]any{"access_key": "a", "secret_key": "b"}}
			for k, v := range row.set {
				s.Attrs[k] = v
			}
			c := newClients(t, s, quick())
			if got := aws.ToString(c.S3.Options().BaseEndpoint); got != row.s3 {
				t.Errorf("S3 at %q, want %q", got, row.s3)
			}
			if got := aws.ToString(c.DynamoDB.Options().BaseEndpoint); got != row.dynamo {
				t.Errorf("DynamoDB at %q, want %q", got, row.dynamo)
			}
			required := c.S3.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired
			if custom := row.s3 != ""; required != custom {
				t.Errorf("only required checksums: %t, with endpoint %q", required, row.s3)
			}
		})
	}
}

func TestAFIPSEndpointDoesNotForbidACustomOne(t *testing.T) {
	testkit.Isolate(t)
	url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "{}") }))
	s := testkit.Settings(url)
	s.Attrs["use_fips_endpoint"], s.Attrs["use_dualstack_endpoint"] = true, true
	c := newClients(t, s, quick())
	if err := get(t.Context(), c); err != nil {
		t.Error(err)
	}
	if _, err := c.DynamoDB.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("t")}); err != nil {
		t.Error(err)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, row := range []struct {
		name string
		set  func(*backend.Settings)
		want string
	}{
		{"a list for a string", func(s *backend.Settings) { s.Attrs["profile"] = []any{"a"} }, "backend attribute profile must be a string, it is a list"},
		{"a string for a bool", func(s *backend.Settings) { s.Attrs["insecure"] = "maybe" }, "backend attribute insecure must be true or false"},
		{"a negative number", func(s *backend.Settings) { s.Attrs["max_retries"] = float64(-1) }, "backend attribute max_retries must be a whole number"},
		{"a string for an object", func(s *backend.Settings) { s.Attrs["endpoints"] = "x" }, "backend attribute endpoints must be an object"},
		{"a duration", func(s *backend.Settings) {
			s.Attrs["assume_role"] = map[string]any{"role_arn": "r", "duration": "soon"}
		}, "backend attribute assume_role.duration must be a duration"},
		{"a region that does not exist", func(s *backend.Settings) { s.Region, s.Attrs["skip_region_validation"] = "mars-1", false }, "mars-1"},
		{"a customer key of the wrong length", func(s *backend.Settings) { s.SSECustomerKey = "c2VjcmV0" }, "is not 32 bytes in base64"},
		{"two keys", func(s *backend.Settings) {
			s.SSECustomerKey, s.KMSKeyID = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "k"
		}, "only one can be used"},
		{"a profile that is not there", func(s *backend.Settings) {
			delete(s.Attrs, "access_key")
			delete(s.Attrs, "secret_key")
			s.Attrs["profile"] = "nobody"
		}, "nobody"},
		{"a CA bundle that is not there", func(s *backend.Settings) { s.Attrs["custom_ca_bundle"] = "/nowhere/ca.pem" }, "/nowhere/ca.pem"},
	} {
		t.Run(row.name, func(t *testing.T) {
			testkit.Isolate(t)
			s := testkit.Settings("http://127.0.0.1:1")
			row.set(&s)
			_, err := awsclient.New(t.Context(), s, quick())
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("%v, want %q", err, row.want)
			}
			if strings.Contains(err.Error(), "c2VjcmV0") {
				t.Error("the error repeats a secret")
			}
		})
	}
}

func TestNoCredentialsAtAll(t *testing.T) {
	testkit.Isolate(t)
	s := testkit.Settings("http://127.0.0.1:1")
	delete(s.Attrs, "access_key")
	delete(s.Attrs, "secret_key")
	if _, err := awsclient.New(t.Context(), s, quick()); !backend.Is(err, backend.NoCreds) {
		t.Errorf("%v, want NoCreds", err)
	}
}

func TestARoleThatMayNotBeAssumed(t *testing.T) {
	testkit.Isolate(t)
	url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(403)
		_, _ = io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/u is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::1:role/r</Message></Error></ErrorResponse>`)
	}))
	s := testkit.Settings(url)
	s.Attrs["assume_role"] = map[string]any{"role_arn": "arn:aws:iam::000000000001:role/r"}
	_, err := awsclient.New(t.Context(), s, quick())
	if err == nil || err.Error() != "permission denied: sts:AssumeRole on arn:aws:iam::000000000001:role/r" {
		t.Errorf("%v, want which action on which role", err)
	}
}

func TestAccounts(t *testing.T) {
	testkit.Isolate(t)
	var asked atomic.Int32
	url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::000000000001:user/u</Arn><Account>000000000001</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	s := testkit.Settings(url)
	delete(s.Attrs, "skip_requesting_account_id")
	delete(s.Attrs, "skip_credentials_validation")
	c := newClients(t, s, quick())
	for range 2 {
		if id, err := c.AccountID(t.Context()); id != "000000000001" || err != nil {
			t.Errorf("account (%q, %v)", id, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times, want once", asked.Load())
	}
	s.Attrs["allowed_account_ids"] = []any{"000000000001"}
	newClients(t, s, quick())
	s.Attrs["allowed_account_ids"] = []any{"000000000002"}
	if _, err := awsclient.New(t.Context(), s, quick()); err == nil || !strings.Contains(err.Error(), "000000000001") {
		t.Errorf("%v, want that the account is not allowed", err)
	}
	delete(s.Attrs, "allowed_account_ids")
	s.Attrs["forbidden_account_ids"] = []any{"000000000001"}
	if _, err := awsclient.New(t.Context(), s, quick()); err == nil {
		t.Error("a forbidden account was accepted")
	}
}

func TestServerTime(t *testing.T) {
	testkit.Isolate(t)
	at := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	url := testkit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", at.Format(http.TimeFormat))
	}))
	out, err := newClients(t, testkit.Settings(url), quick()).S3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("b"), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if got := awsclient.ServerTime(out.ResultMetadata); !got.Equal(at) {
		t.Errorf("server time %s, want %s", got, at)
	}
}

func TestNobodyListens(t *testing.T) {
	testkit.Isolate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err = get(t.Context(), newClients(t, testkit.Settings("http://"+addr), quick()))
	if !backend.Is(err, backend.Unreachable) || !strings.Contains(err.Error(), addr+": ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, want Unreachable and the address", err)
	}
}
