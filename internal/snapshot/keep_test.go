package snapshot

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/state"
)

const (
	id12 = "20261122T120000.000Z-pre-apply-12"
	pre  = "backups/env:/a b/net+work.tfstate/"
)

// G4: a verified copy exists before anything changes the state. Its cost in an
// apply is three requests, whatever the size.
func TestKeepCopiesInThreeRequests(t *testing.T) {
	for name, more := range map[string]string{"1 KB": "x", "2 MB": strings.Repeat("<resource>", 200_000)} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, true)
			doc := stateJSON(12, lineage, more)
			c.put(c.addr.Key, doc)
			c.on(nil)
			from, counted := headOf(12), 0 // a short state is counted, of a long one the plan knows it
			if len(doc) > state.HeadBytes {
				counted = 7
				from.Resources = &counted
			}
			got, err := c.store().Keep(t.Context(), from, PreApply)
			c.must(err)
			if seen := c.requests(); len(seen) != 3 {
				t.Errorf("requests: %q, want 3", seen)
			}
			want := event.Snapshot{ID: id12, Key: pre + id12 + ".tfstate", Serial: 12, Lineage: lineage, SHA256: sum256([]byte(doc))}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if kept, _ := c.content(got.Key); kept != doc {
				t.Errorf("the copy has %d bytes that differ from the state", len(kept))
			}
			list, err := c.store().List(t.Context())
			c.must(err)
			listed := []Snapshot{{
				ID: id12, Time: noon, Reason: "pre-apply", Serial: 12, Lineage: lineage, Size: int64(len(doc)), SHA256: want.SHA256,
				Key: want.Key, Run: "run-1", Commit: "c0ffee", TerraformVersion: "1.11.4", Resources: &counted,
			}}
			if d := cmp.Diff(listed, list, cmpopts.IgnoreFields(Snapshot{}, "ETag", "VersionID"), cmpopts.IgnoreUnexported(Snapshot{})); d != "" {
				t.Error(d)
			}
			out, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &c.addr.Bucket, Key: &got.Key})
			c.must(err)
			if *out.ContentType != "application/json" || out.Metadata[metaVersion] == "" {
				t.Errorf("content type %s, metadata %v", *out.ContentType, out.Metadata)
			}
		})
	}
}

func TestKeepRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		content string
		want    state.Head
		err     error
	}{
		{"no state is said and is no failure", "-", state.Head{}, ErrNoState},
		{"an empty object is no state, as for terraform", "", state.Head{}, ErrNoState},
		{"a state that appeared since the plan", stateJSON(1, lineage, ""), state.Head{}, state.ErrChanged},
		{"a state that vanished since the plan", "-", headOf(1), state.ErrChanged},
		{"a higher serial", stateJSON(2, lineage, ""), headOf(1), state.ErrChanged},
		{"another lineage", stateJSON(1, "other", ""), headOf(1), state.ErrChanged},
		{"a state that is not JSON", "<html>", headOf(1), state.ErrNotState},
		{"a long state that is not JSON", strings.Repeat("x", 1<<20), headOf(1), state.ErrNotState},
		{"a state that is cut off before its serial", `{"version":4,"resources":["` + strings.Repeat("x", 1<<20), headOf(1), state.ErrNotState},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCloud(t, true)
			if test.content != "-" {
				c.put(c.addr.Key, test.content)
			}
			got, err := c.store().Keep(t.Context(), test.want, PreApply)
			if !errors.Is(err, test.err) || got != (event.Snapshot{}) {
				t.Errorf("Keep = %v, %v; want %v", got, err, test.err)
			}
			if left := c.versions("backups/"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	t.Run("a bucket that is not there is no missing state", func(t *testing.T) {
		c := newCloud(t, true)
		c.addr.Bucket = "nowhere"
		if _, err := c.store().Keep(t.Context(), state.Head{}, PreApply); err == nil || errors.Is(err, ErrNoState) {
			t.Errorf("Keep: %v", err)
		}
	})
	t.Run("a reason that is no file name", func(t *testing.T) {
		for _, reason := range []string{"", "../x", "A", "9", "a b", strings.Repeat("a", 33)} {
			if _, err := newCloud(t, true).store().Keep(t.Context(), headOf(1), reason); err == nil {
				t.Errorf("%q was taken", reason)
			}
		}
	})
}

// The head is at the end of what other programs write, such as jq -S.
func TestHeadReadsSerialThatIsFarBehind(t *testing.T) {
	c := newCloud(t, true)
	c.put(c.addr.Key, `{"resources":[`+strings.Repeat(`"x",`, 100_000)+`1],"lineage":"`+lineage+`","version":4,"terraform_version":"1.5.7","serial":9}`)
	head, err := c.store().Head(t.Context())
	c.must(err)
	if !head.Same(headOf(9)) || head.Size < 400_000 || head.ETag == "" || head.VersionID == "" || head.Modified.IsZero() {
		t.Errorf("Head = %+v", head)
	}
}

// What is copied is what was planned, also where somebody writes in between.
func TestKeepCopiesWhatWasPlanned(t *testing.T) {
	between := func(c *cloud) {
		c.on(once(isCopy, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			c.write(r.Context(), c.addr.Key, stateJSON(13, lineage, "another run"))
			next.ServeHTTP(w, r)
		}))
	}
	t.Run("with versions it is the planned version", func(t *testing.T) {
		c := newCloud(t, true)
		c.put(c.addr.Key, stateJSON(12, lineage, ""))
		between(c)
		got, err := c.store().Keep(t.Context(), headOf(12), PreApply)
		c.must(err)
		if kept, _ := c.content(got.Key); kept != stateJSON(12, lineage, "") {
			t.Errorf("the copy is %s", kept)
		}
	})
	t.Run("without versions it is refused", func(t *testing.T) {
		c := newCloud(t, false)
		c.put(c.addr.Key, stateJSON(12, lineage, ""))
		between(c)
		if _, err := c.store().Keep(t.Context(), headOf(12), PreApply); !errors.Is(err, state.ErrChanged) {
			t.Errorf("Keep: %v", err)
		}
		if left := c.versions("backups/"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("without versions or conditions it is found out", func(t *testing.T) {
		c := newCloud(t, false)
		c.put(c.addr.Key, stateJSON(12, lineage, ""))
		c.on(once(isCopy, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			c.write(r.Context(), c.addr.Key, stateJSON(13, lineage, "another run"))
			r.Header.Del("X-Amz-Copy-Source-If-Match") // moto takes it and ignores it
			next.ServeHTTP(w, r)
		}))
		if _, err := c.store().Keep(t.Context(), headOf(12), PreApply); !errors.Is(err, state.ErrChanged) {
			t.Errorf("Keep: %v", err)
		}
		if left := c.versions("backups/"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestKeepIsWriteOnce(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		t.Run(fmt.Sprintf("versions %v", versioned), func(t *testing.T) {
			c := newCloud(t, versioned)
			c.put(c.addr.Key, stateJSON(12, lineage, "first"))
			_, err := c.store().Keep(t.Context(), headOf(12), PreApply)
			c.must(err)
			c.put(c.addr.Key, stateJSON(12, lineage, "second"))
			got, err := c.store().Keep(t.Context(), headOf(12), PreApply)
			c.must(err)
			if want := "20261122T120000.001Z-pre-apply-12"; got.ID != want {
				t.Errorf("ID %s, want %s", got.ID, want)
			}
			if kept, _ := c.content(pre + id12 + ".tfstate"); kept != stateJSON(12, lineage, "first") {
				t.Errorf("the first copy is now %s", kept)
			}
		})
	}
}

// A copy that cannot be shown to be the state is an error and is taken away.
func TestKeepVerifies(t *testing.T) {
	readsCopy := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/backups/")
	}
	swap := func(is func(*http.Request) bool, old, new string) hook {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !is(r) {
				next.ServeHTTP(w, r)
				return
			}
			edit(w, r, next, func(h http.Header, body string) string {
				for k, v := range h {
					h.Set(k, strings.ReplaceAll(v[0], old, new))
				}
				return strings.ReplaceAll(body, old, new)
			})
		}
	}
	for size, doc := range map[string]string{"short": stateJSON(12, lineage, ""), "long": stateJSON(12, lineage, strings.Repeat("long ", 10_000))} {
		for name, hook := range map[string]hook{
			"another serial":            swap(readsCopy, `"serial": 12`, `"serial": 11`),
			"another lineage":           swap(readsCopy, lineage, strings.ToUpper(lineage)),
			"other content":             swap(readsCopy, `"resources": []`, `"resources": {}`),
			"another ETag":              swap(readsCopy, md5Hex(doc), md5Hex("")),
			"another ETag in the copy":  swap(isCopy, md5Hex(doc), md5Hex("")),
			"another checksum":          swap(isCopy, base64Sum(sum256([]byte(doc))), base64Sum(sum256(nil))),
			"another size":              swap(readsCopy, fmt.Sprintf("/%d", len(doc)), fmt.Sprintf("/%d", len(doc)+1)),
			"a copy that is not there":  answer(readsCopy, 404, "NoSuchKey"),
			"a copy that is refused":    answer(readsCopy, 403, "AccessDenied"),
			"a copy that is cut to nil": swap(readsCopy, doc, ""),
		} {
			if short := []string{"other content", "another checksum", "a copy that is cut to nil"}; size == "long" && slices.Contains(short, name) {
				// Not in the beginning that is read back. The store's own checksum,
				// the ETags and the size speak for the rest.
				continue
			}
			for _, versioned := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s state, %s, versions %v", size, name, versioned), func(t *testing.T) {
					c := newCloud(t, versioned)
					c.put(c.addr.Key, doc)
					c.on(hook)
					got, err := c.store().Keep(t.Context(), headOf(12), PreApply)
					if err == nil || got != (event.Snapshot{}) {
						t.Fatalf("Keep = %v, %v", got, err)
					}
					left := c.versions("backups/")
					if name == "another ETag in the copy" && !versioned {
						// Only its ETag names what was written, and that is not the object's:
						// nothing is deleted without a match, and it is said.
						if len(left) != 1 || !strings.Contains(err.Error(), "remove the copy") {
							t.Errorf("left %q, said %v", left, err)
						}
					} else if len(left) > 0 {
						t.Errorf("left behind: %q", left)
					}
					if kept, _ := c.content(c.addr.Key); kept != doc {
						t.Errorf("the state is now %s", kept)
					}
				})
			}
		}
	}
}

func TestKeepWithWeakerStores(t *testing.T) {
	doc := stateJSON(12, lineage, strings.Repeat("long ", 10_000))
	for name, hook := range map[string]hook{
		"no conditional copies": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if isCopy(r) && r.Header.Get("If-None-Match") != "" {
				s3Error(w, 501, "NotImplemented")
				return
			}
			next.ServeHTTP(w, r)
		},
		"a role without s3:GetObjectVersion": answer(func(r *http.Request) bool {
			return strings.Contains(r.Header.Get("X-Amz-Copy-Source")+r.URL.RawQuery, "versionId=")
		}, 403, "AccessDenied"),
		"no checksum of a copy": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !isCopy(r) {
				next.ServeHTTP(w, r)
				return
			}
			edit(w, r, next, func(_ http.Header, body string) string {
				return strings.ReplaceAll(body, "ChecksumSHA256", "Unknown")
			})
		},
		"ranges are ignored": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		},
		"the answer to the copy is lost once": once(isCopy, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}),
		"a conflict once": once(isCopy, answer(isCopy, 409, "ConditionalRequestConflict")),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, true)
			c.put(c.addr.Key, doc)
			c.on(hook)
			got, err := c.store().Keep(t.Context(), headOf(12), PreApply)
			c.must(err)
			if kept, _ := c.content(got.Key); kept != doc || got.SHA256 != sum256([]byte(doc)) {
				t.Errorf("kept %d bytes, %+v", len(kept), got)
			}
			_, err = c.store(func(o *Options) { o.Now = func() time.Time { return noon } }).Keep(t.Context(), headOf(12), PreApply)
			c.must(err)
			if kept, _ := c.content(got.Key); kept != doc {
				t.Error("the second copy overwrote the first")
			}
		})
	}
}

func TestKeepInParts(t *testing.T) {
	c := newCloud(t, true)
	doc := stateJSON(12, lineage, strings.Repeat("0123456789", 1_300_000))
	c.put(c.addr.Key, doc)
	s := c.store(func(o *Options) { o.SingleLimit, o.PartSize = 6<<20, 5<<20 })
	got, err := s.Keep(t.Context(), headOf(12), PreApply)
	c.must(err)
	if kept, _ := c.content(got.Key); kept != doc || got.SHA256 != sum256([]byte(doc)) {
		t.Errorf("kept %d bytes of %d, %+v", len(kept), len(doc), got)
	}
	again, err := s.Keep(t.Context(), headOf(12), PreApply)
	c.must(err)
	if again.ID == got.ID {
		t.Errorf("%s was overwritten", got.ID)
	}
	list, err := s.List(t.Context())
	c.must(err)
	if len(list) != 2 || list[0].SHA256 != got.SHA256 {
		t.Errorf("listed: %+v", list)
	}
}

func TestKeepEncryptsAsTheState(t *testing.T) {
	const key = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for _, test := range []struct {
		name     string
		settings backend.Settings
		put      s3.PutObjectInput
		sse, kms string
	}{
		{"SSE-S3", backend.Settings{Encrypt: true}, s3.PutObjectInput{ServerSideEncryption: "AES256"}, "AES256", ""},
		{"SSE-KMS by the settings", backend.Settings{Encrypt: true, KMSKeyID: key}, s3.PutObjectInput{}, "aws:kms", key},
		{"SSE-KMS by the state itself", backend.Settings{}, s3.PutObjectInput{ServerSideEncryption: "aws:kms", SSEKMSKeyId: aws.String(key)}, "aws:kms", key},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCloud(t, true)
			test.put.Bucket, test.put.Key, test.put.Body = &c.addr.Bucket, &c.addr.Key, strings.NewReader(stateJSON(12, lineage, ""))
			_, err := c.s3.PutObject(t.Context(), &test.put)
			c.must(err)
			got, err := c.store(func(o *Options) { o.Settings = test.settings }).Keep(t.Context(), headOf(12), PreApply)
			c.must(err)
			out, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &c.addr.Bucket, Key: &got.Key})
			c.must(err)
			if string(out.ServerSideEncryption) != test.sse || aws.ToString(out.SSEKMSKeyId) != test.kms {
				t.Errorf("encrypted by %s with %s", out.ServerSideEncryption, aws.ToString(out.SSEKMSKeyId))
			}
		})
	}
	t.Run("SSE-C", func(t *testing.T) {
		c := newCloud(t, true)
		s := c.store(func(o *Options) {
			o.Settings = backend.Settings{Encrypt: true, SSECustomerKey: "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
		})
		_, err := c.s3.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &c.addr.Bucket, Key: &c.addr.Key, Body: strings.NewReader(stateJSON(12, lineage, "")),
			SSECustomerAlgorithm: s.crypt.algorithm, SSECustomerKey: s.crypt.key, SSECustomerKeyMD5: s.crypt.keyMD5,
		})
		c.must(err)
		got, err := s.Keep(t.Context(), headOf(12), PreApply)
		c.must(err)
		if _, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &c.addr.Bucket, Key: &got.Key}); err == nil {
			t.Error("the copy can be read without the key")
		}
		if sn, err := s.Find(t.Context(), got.ID); err != nil || sn.Serial != 12 {
			t.Errorf("Find = %+v, %v", sn, err)
		}
	})
}

func TestKeepIntoAnotherBucket(t *testing.T) {
	c := newCloud(t, true)
	c.bucket("copies", false)
	c.put(c.addr.Key, stateJSON(12, lineage, ""))
	s := c.store(func(o *Options) { o.Bucket = "copies" })
	got, err := s.Keep(t.Context(), headOf(12), PreApply)
	c.must(err)
	if _, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("copies"), Key: &got.Key}); err != nil {
		t.Error(err)
	}
	if sn, err := s.Find(t.Context(), got.ID); err != nil || sn.Serial != 12 {
		t.Errorf("Find = %+v, %v", sn, err)
	}
}

// A bucket with object lock keeps every copy for its time: it is made as anywhere
// else, and what a prune takes out of the list stays as a version (issue 5).
func TestKeepUnderObjectLock(t *testing.T) {
	c := newCloud(t, true)
	vault := aws.String("vault")
	_, err := c.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: vault, ObjectLockEnabledForBucket: aws.Bool(true)})
	c.must(err)
	_, err = c.s3.PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{Bucket: vault, ObjectLockConfiguration: &types.ObjectLockConfiguration{
		ObjectLockEnabled: types.ObjectLockEnabledEnabled, Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(1)}}}})
	c.must(err)
	at := noon
	s := c.store(func(o *Options) {
		o.Bucket, o.Keep, o.KeepDays = "vault", 1, -1
		o.Now = func() time.Time { return at }
	})
	var kept []event.Snapshot
	for serial := range uint64(2) {
		c.put(c.addr.Key, stateJSON(12+serial, lineage, ""))
		got, err := s.Keep(t.Context(), headOf(12+serial), PreApply)
		c.must(err)
		kept = append(kept, got)
		at = at.Add(time.Minute)
	}
	first, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: vault, Key: &kept[0].Key})
	c.must(err)
	if first.ObjectLockMode != types.ObjectLockModeCompliance {
		t.Errorf("the copy is not locked: %q", first.ObjectLockMode)
	}
	gone, err := s.Prune(t.Context(), PruneOptions{})
	c.must(err)
	left, err := s.List(t.Context())
	c.must(err)
	if len(gone) != 1 || gone[0].ID != kept[0].ID || len(left) != 1 || left[0].ID != kept[1].ID {
		t.Errorf("removed %v, left %v", gone, left)
	}
	if _, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: vault, Key: &kept[0].Key, VersionId: first.VersionId}); err != nil {
		t.Errorf("the locked version: %v", err)
	}
}
