package terraform

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// script writes a program that answers `version -json` and logs its start.
func script(t *testing.T, path, answer string) (log string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	log = path + ".log"
	body := fmt.Sprintf("#!/bin/sh\necho start >>'%s'\ncat <<'E'\n%s\nE\n", log, answer)
	if err := os.WriteFile(path, []byte(body), 0o700); err != nil {
		t.Fatal(err)
	}
	return log
}

func jsonAnswer(v string) string { return fmt.Sprintf("{\n  \"terraform_version\": %q\n}", v) }

func TestFindInPATH(t *testing.T) {
	dir := t.TempDir()
	log := script(t, filepath.Join(dir, "terraform"), jsonAnswer("1.11.4"))
	script(t, filepath.Join(dir, "tofu"), "Warning: x\n\nOpenTofu v1.12.6\non linux_amd64")
	script(t, filepath.Join(dir, "noisy"), "There are some problems with the CLI configuration:\n"+jsonAnswer("1.9.8"))
	script(t, filepath.Join(dir, "mute"), "what?")
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))

	b, err := Find(t.Context(), Search{})
	if err != nil || b.Path != filepath.Join(dir, "terraform") || b.Product != "terraform" {
		t.Errorf("got %+v, %v", b, err)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("finding a terraform of any version has started a process")
	}
	for name, c := range map[string]struct {
		s       Search
		want    string
		product string
	}{
		"the exact version":               {Search{Version: "1.11.4"}, "terraform", "terraform"},
		"a version with a v":              {Search{Version: "v1.11.4"}, "terraform", "terraform"},
		"a constraint":                    {Search{Version: "~> 1.10"}, "terraform", "terraform"},
		"OpenTofu by name":                {Search{Bin: "tofu"}, "tofu", "tofu"},
		"OpenTofu's own version":          {Search{Bin: "tofu", Version: "1.12.6"}, "tofu", "tofu"},
		"a path":                          {Search{Bin: filepath.Join(dir, "noisy")}, "noisy", "terraform"},
		"a version behind a warning":      {Search{Bin: "noisy", Version: "1.9.8"}, "noisy", "terraform"},
		"another version than wanted":     {Search{Bin: "tofu", Version: "1.6.0"}, "", ""},
		"a program without a version":     {Search{Bin: "mute", Version: "1.6.0"}, "", ""},
		"a program that is not there":     {Search{Bin: "terraform9"}, "", ""},
		"a path that is not there":        {Search{Bin: filepath.Join(dir, "none")}, "", ""},
		"a wish that is no version":       {Search{Version: "newest"}, "", ""},
		"no version and no cache at hand": {Search{Version: "1.0.0"}, "", ""},
	} {
		b, err := Find(t.Context(), c.s)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: got %+v", name, b)
			}
			continue
		}
		if err != nil || b != (Binary{Path: filepath.Join(dir, c.want), Product: c.product}) {
			t.Errorf("%s: got %+v, %v", name, b, err)
		}
	}
}

// A checkout must not bring its own terraform, as an empty element in PATH
// would let it.
func TestFindNothingInTheWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	script(t, filepath.Join(dir, "terraform"), jsonAnswer("1.11.4"))
	t.Chdir(dir)
	t.Setenv("PATH", ".:")
	if b, err := Find(t.Context(), Search{}); !errors.Is(err, ErrNoBinary) {
		t.Errorf("got %+v, %v", b, err)
	}
}

// vendor serves releases on loopback, signed with a key of its own.
type vendor struct {
	*httptest.Server
	source   *ReleasesSource
	requests atomic.Int32
	archive  []byte // what is served for the zip
}

// newVendor serves version 1.9.8, whose binary says that it is says.
func newVendor(t *testing.T, says string) *vendor {
	t.Helper()
	key, err := openpgp.NewEntity("test", "", "test@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	w.Close()

	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	f, err := z.Create("terraform")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "#!/bin/sh\necho '{\"terraform_version\":\"%s\"}'\n", says)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	zipName := fmt.Sprintf("terraform_1.9.8_%s_%s.zip", runtime.GOOS, runtime.GOARCH)
	sums := fmt.Sprintf("%x  %s\n", sha256.Sum256(archive.Bytes()), zipName)
	var signature bytes.Buffer
	if err := openpgp.DetachSign(&signature, key, strings.NewReader(sums), nil); err != nil {
		t.Fatal(err)
	}
	v := &vendor{archive: archive.Bytes()}
	index := fmt.Sprintf(`{"name":"terraform","version":"1.9.8","shasums":"terraform_1.9.8_SHA256SUMS","shasums_signature":"terraform_1.9.8_SHA256SUMS.sig",
		"builds":[{"name":"terraform","version":"1.9.8","os":%q,"arch":%q,"filename":%q,"url":"https://elsewhere.invalid/terraform/1.9.8/%s"}]}`,
		runtime.GOOS, runtime.GOARCH, zipName, zipName)
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.requests.Add(1)
		switch r.URL.Path {
		case "/terraform/index.json":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"name":"terraform","versions":{"1.9.8":%s}}`, index)
		case "/terraform/1.9.8/index.json":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, index)
		case "/terraform/1.9.8/terraform_1.9.8_SHA256SUMS":
			fmt.Fprint(w, sums)
		case "/terraform/1.9.8/terraform_1.9.8_SHA256SUMS.sig":
			w.Write(signature.Bytes())
		case "/terraform/1.9.8/" + zipName:
			w.Header().Set("Content-Type", "application/zip")
			w.Write(v.archive)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(v.Close)
	v.source = &ReleasesSource{BaseURL: v.URL + "/", ArmoredPublicKey: public.String()}
	return v
}

func TestInstall(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin") // sh and cat, and no terraform
	for name, wish := range map[string]string{"an exact version": "1.9.8", "a constraint": "~> 1.9.0", "any version": ""} {
		t.Run(name, func(t *testing.T) {
			v := newVendor(t, "1.9.8")
			var reports []string
			s := Search{Version: wish, CacheDir: t.TempDir(), Releases: v.source, Report: func(s string) { reports = append(reports, s) }}
			b, err := Find(t.Context(), s)
			want := Binary{Path: filepath.Join(s.CacheDir, "terraform", "1.9.8", "terraform"), Product: "terraform"}
			if err != nil || b != want {
				t.Fatalf("got %+v, %v", b, err)
			}
			if len(reports) != 1 || !strings.HasPrefix(reports[0], "installing ") {
				t.Errorf("got %q", reports)
			}
			before := v.requests.Load()
			if b, err := Find(t.Context(), s); err != nil || b != want || v.requests.Load() != before {
				t.Errorf("it is in the cache: got %+v, %v, %d requests", b, err, v.requests.Load()-before)
			}
			// a binary that no longer works is installed anew
			if err := os.WriteFile(want.Path, []byte("broken"), 0o700); err != nil {
				t.Fatal(err)
			}
			if b, err := Find(t.Context(), s); err != nil || b != want {
				t.Errorf("a broken one in the cache: got %+v, %v", b, err)
			}
			if _, err := askVersion(t.Context(), want.Path); err != nil {
				t.Error(err)
			}
			onlyKept(t, s.CacheDir, "1.9.8")
		})
	}
}

// onlyKept fails where the cache holds anything but the versions.
func onlyKept(t *testing.T, cache string, versions ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "terraform"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(versions, " ") {
		t.Errorf("the cache has %q, want %q", names, versions)
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	for name, c := range map[string]struct {
		says   string
		change func(t *testing.T, v *vendor)
		want   string
	}{
		"an archive that was tampered with": {"1.9.8", func(t *testing.T, v *vendor) {
			v.archive = append([]byte{}, v.archive...)
			v.archive[40] ^= 1
		}, "does not match its signed checksum"},
		"a signature of another key": {"1.9.8", func(t *testing.T, v *vendor) {
			v.source.ArmoredPublicKey = newVendor(t, "1.9.8").source.ArmoredPublicKey
		}, "signature"},
		"a binary that says it is another version": {"1.9.7", func(*testing.T, *vendor) {}, "what was installed is 1.9.7"},
		"a binary that says nothing":               {"", func(*testing.T, *vendor) {}, "is no version"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVendor(t, c.says)
			c.change(t, v)
			s := Search{Version: "1.9.8", CacheDir: t.TempDir(), Releases: v.source}
			b, err := Find(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %+v, %v", b, err)
			}
			onlyKept(t, s.CacheDir)
		})
	}
	t.Run("a version that there is not", func(t *testing.T) {
		v := newVendor(t, "1.9.8")
		if b, err := Find(t.Context(), Search{Version: "1.2.3", CacheDir: t.TempDir(), Releases: v.source}); err == nil {
			t.Errorf("got %+v", b)
		}
	})
	t.Run("a run that was cancelled", func(t *testing.T) {
		v := newVendor(t, "1.9.8")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if b, err := Find(ctx, Search{Version: "1.9.8", CacheDir: t.TempDir(), Releases: v.source}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v, %v", b, err)
		}
	})
}
