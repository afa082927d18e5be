package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-version"
	install "github.com/hashicorp/hc-install"
	"github.com/hashicorp/hc-install/httpclient"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"
	"github.com/hashicorp/hc-install/src"

	"github.com/tfguard/tfguard/internal/quote"
)

// The products.
const (
	productTerraform = "terraform"
	productTofu      = "tofu"
)

// Binary is the program that the commands run.
type Binary struct {
	Path    string // absolute
	Product string // "terraform" or "tofu"
}

// ErrNoBinary is wrapped where no binary is found that fits.
var ErrNoBinary = errors.New("no terraform binary")

// ErrWanted is wrapped where Search.Version is neither a version nor a constraint.
var ErrWanted = errors.New("neither a version nor a constraint")

// Search says which binary is wanted.
type Search struct {
	Bin      string // a path, or a name in PATH such as tofu; empty: terraform in PATH
	Version  string // exact, or a constraint such as "~> 1.9"; empty: any
	CacheDir string // where installed versions are kept; made if need be
	Releases *ReleasesSource
	// Report is told what takes a while, in words for people. May be nil.
	Report func(string)
}

// ReleasesSource is a mirror of the vendor's releases, signed with another key.
type ReleasesSource struct {
	BaseURL          string
	ArmoredPublicKey string
}

const (
	askTimeout     = 15 * time.Second // for `terraform version`
	installTimeout = 10 * time.Minute // for the list of releases and the download
	maxDownload    = 1 << 30          // bytes of one answer
)

// Find returns the binary that s asks for: Bin if it is set, else terraform in
// PATH if its version fits, else one in the cache, else it installs one there.
// Without a wanted version no process is started for a binary that is found. An
// installed binary is used only if its signed checksum is right and it says
// itself that it has the version.
func Find(ctx context.Context, s Search) (Binary, error) {
	if s.Report == nil {
		s.Report = func(string) {}
	}
	want, err := parseWanted(s.Version)
	if err != nil {
		return Binary{}, err
	}
	if s.Bin != "" {
		return s.named(ctx, want)
	}
	b, err := lookPath(productTerraform)
	if err == nil && want.any() {
		return b, nil
	}
	if err == nil {
		v, err := askVersion(ctx, b.Path)
		if err == nil && want.fits(v) {
			return b, nil
		}
		if ctx.Err() != nil {
			return Binary{}, ctx.Err()
		}
		if err != nil {
			s.Report(fmt.Sprintf("%s does not tell its version: %v", b.Path, err))
		} else {
			s.Report(fmt.Sprintf("%s is %s, wanted is %s", b.Path, v, s.Version))
		}
	}
	if s.CacheDir == "" {
		return Binary{}, fmt.Errorf("%w in PATH that fits %q, and no cache directory to install one", ErrNoBinary, s.Version)
	}
	if b, ok := s.cached(ctx, want); ok {
		return b, nil
	}
	b, err = s.install(ctx, want)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrNoBinary, err)
	}
	return b, err
}

// named finds the binary that was asked for by name or path; another one in its
// place would be a surprise, so a version that does not fit is an error.
func (s Search) named(ctx context.Context, want wanted) (Binary, error) {
	b, err := lookPath(s.Bin)
	if err != nil {
		return Binary{}, fmt.Errorf("%w: %q: %v", ErrNoBinary, s.Bin, err)
	}
	if want.any() {
		return b, nil
	}
	v, err := askVersion(ctx, b.Path)
	if err != nil {
		return Binary{}, fmt.Errorf("ask %s for its version: %w", b.Path, err)
	}
	if !want.fits(v) {
		return Binary{}, fmt.Errorf("%w: %s is %s, wanted is %s", ErrNoBinary, b.Path, v, s.Version)
	}
	return b, nil
}

// lookPath finds a program as a shell does, except that it refuses one in the
// working directory: a checkout must not bring its own terraform. The path is
// made absolute, since terraform runs in another directory.
func lookPath(name string) (Binary, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return Binary{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return Binary{}, err
	}
	p := productTerraform
	if strings.Contains(strings.ToLower(filepath.Base(path)), productTofu) {
		p = productTofu
	}
	return Binary{Path: path, Product: p}, nil
}

// wanted is what Search.Version asks for; the zero value takes any version.
type wanted struct {
	exact       *version.Version
	constraints version.Constraints
}

func parseWanted(text string) (wanted, error) {
	if text = strings.TrimSpace(text); text == "" {
		return wanted{}, nil
	}
	if v, err := version.NewVersion(text); err == nil {
		return wanted{exact: v}, nil
	}
	c, err := version.NewConstraint(text)
	if err != nil {
		return wanted{}, fmt.Errorf("terraform version %q is %w", quote.Line(text, 100), ErrWanted)
	}
	return wanted{constraints: c}, nil
}

func (w wanted) any() bool { return w.exact == nil && len(w.constraints) == 0 }

func (w wanted) fits(v *version.Version) bool {
	if w.exact != nil {
		return w.exact.Equal(v)
	}
	return w.constraints.Check(v)
}

var plainVersion = regexp.MustCompile(`(?m)^(?:Terraform|OpenTofu) v([0-9A-Za-z.+-]+)\s*$`)

// askVersion runs `PATH version -json`. Warnings may stand before the answer.
func askVersion(ctx context.Context, path string) (*version.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out := &head{max: 1 << 20}
	cmd := exec.CommandContext(ctx, path, "version", "-json")
	cmd.Stdout = out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	var answer struct {
		Version string `json:"terraform_version"`
	}
	if i := bytes.IndexByte(out.buf, '{'); i >= 0 {
		_ = json.NewDecoder(bytes.NewReader(out.buf[i:])).Decode(&answer)
	}
	if m := plainVersion.FindSubmatch(out.buf); answer.Version == "" && m != nil {
		answer.Version = string(m[1])
	}
	v, err := version.NewVersion(answer.Version)
	if err != nil {
		return nil, fmt.Errorf("%q is no version", quote.Line(answer.Version, 100))
	}
	return v, nil
}

func binaryName() string { return product.Terraform.BinaryName() }

// cached finds the newest version in the cache that fits and still works.
func (s Search) cached(ctx context.Context, want wanted) (Binary, bool) {
	entries, err := os.ReadDir(filepath.Join(s.CacheDir, productTerraform))
	if err != nil {
		return Binary{}, false
	}
	var versions []*version.Version
	for _, e := range entries {
		v, err := version.NewVersion(e.Name())
		if err == nil && (want.any() && v.Prerelease() == "" || !want.any() && want.fits(v)) {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b *version.Version) int { return b.Compare(a) })
	for _, v := range versions {
		path, err := filepath.Abs(filepath.Join(s.CacheDir, productTerraform, v.Original(), binaryName()))
		if err != nil {
			continue
		}
		if got, err := askVersion(ctx, path); err == nil && got.Equal(v) {
			return Binary{Path: path, Product: productTerraform}, true
		}
	}
	return Binary{}, false
}

// install downloads a version into a fresh directory, checks what came out, and
// moves it into the cache.
//
// hc-install's downloader overwrites its own error, so that a tampered archive
// beside an existing binary is no error: the directory must be empty before. What
// it refused is read from its log.
func (s Search) install(ctx context.Context, want wanted) (Binary, error) {
	what := "the latest terraform"
	if !want.any() {
		what = "terraform " + strings.TrimSpace(s.Version)
	}
	s.Report("installing " + what)
	cache := filepath.Join(s.CacheDir, productTerraform)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Binary{}, fmt.Errorf("make the cache of terraform versions: %w", err)
	}
	fresh, err := os.MkdirTemp(cache, ".install-*")
	if err != nil {
		return Binary{}, fmt.Errorf("make a directory to install into: %w", err)
	}
	defer os.RemoveAll(fresh)

	var said refusals
	in := install.NewInstaller()
	in.SetLogger(log.New(&said, "", 0))
	path, err := in.Install(ctx, []src.Installable{s.source(want, fresh)})
	if said.checksum() {
		return Binary{}, fmt.Errorf("install %s: the download does not match its signed checksum", what)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Binary{}, fmt.Errorf("install %s: %w", what, bounded{err})
	}
	got, err := askVersion(ctx, path)
	if err != nil {
		return Binary{}, fmt.Errorf("install %s: ask what was installed for its version: %w", what, err)
	}
	if !want.any() && !want.fits(got) {
		return Binary{}, fmt.Errorf("install %s: what was installed is %s", what, got)
	}
	kept := filepath.Join(cache, got.String())
	if err := os.Rename(fresh, kept); err != nil {
		// another run was first, or what is there no longer works
		if have, askErr := askVersion(ctx, filepath.Join(kept, binaryName())); askErr != nil || !have.Equal(got) {
			if err := os.RemoveAll(kept); err != nil {
				return Binary{}, fmt.Errorf("replace a broken terraform in the cache: %w", err)
			}
			if err := os.Rename(fresh, kept); err != nil {
				return Binary{}, fmt.Errorf("keep the installed terraform: %w", err)
			}
		}
	}
	kept, err = filepath.Abs(filepath.Join(kept, binaryName()))
	if err != nil {
		return Binary{}, err
	}
	return Binary{Path: kept, Product: productTerraform}, nil
}

func (s Search) source(want wanted, dir string) src.Installable {
	rel := ReleasesSource{}
	if s.Releases != nil {
		rel = *s.Releases
	}
	rel.BaseURL = strings.TrimRight(rel.BaseURL, "/")
	client := httpclient.New()
	client.Transport = bounding{client.Transport}
	if want.exact != nil {
		return &releases.ExactVersion{
			Product: product.Terraform, Version: want.exact, InstallDir: dir, Timeout: installTimeout,
			ApiBaseURL: rel.BaseURL, ArmoredPublicKey: rel.ArmoredPublicKey, HTTPClient: client,
		}
	}
	return &releases.LatestVersion{
		Product: product.Terraform, Constraints: want.constraints, InstallDir: dir, Timeout: installTimeout,
		ApiBaseURL: rel.BaseURL, ArmoredPublicKey: rel.ArmoredPublicKey, HTTPClient: client,
	}
}

// refusals hears hc-install's log.
type refusals struct {
	mu  sync.Mutex
	bad bool
}

func (r *refusals) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = r.bad || bytes.Contains(p, []byte("checksum does not match"))
	return len(p), nil
}

func (r *refusals) checksum() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bad
}

// bounded is an error whose text, which may quote a whole answer, is one line.
type bounded struct{ error }

func (b bounded) Error() string { return quote.Line(b.error.Error(), maxSummary) }
func (b bounded) Unwrap() error { return b.error }

// bounding ends answers that are longer than any release.
type bounding struct{ next http.RoundTripper }

func (b bounding) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxDownload), resp.Body}
	}
	return resp, err
}
