package ci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
)

// Runs asks a CI system about its runs.
//
// A question that fails in any way, such as a refused token, a rate limit, a
// failing or slow server or an answer of another shape, is an error that says
// why, and with it nothing is known: never that a run is over.
type Runs interface {
	// Run says what is known of one run and attempt. A run that is over by what
	// the system says can have left a process on a machine that the system lost
	// sight of: whoever asks has to see that the holder's heartbeat ran out too.
	Run(ctx context.Context, r lock.CIRun) (lock.RunSeen, error)
	// Around lists the runs of this repository that could have taken a lock at
	// that time, this run itself left out. It is an error where one that goes on
	// may be missing while none is listed; of those that are over some may be
	// missing. The window of a run that goes on is opened by a minute, since the
	// clock of the machine that took the lock may be behind.
	Around(ctx context.Context, at time.Time) ([]lock.RunSeen, error)
}

// NewRuns gives the CI system that the environment names, with its token:
//   - GitHub by GITHUB_REPOSITORY and GITHUB_TOKEN (or GH_TOKEN), at
//     GITHUB_API_URL, which GitHub Enterprise sets;
//   - GitLab by CI_API_V4_URL and GITLAB_TOKEN or CI_JOB_TOKEN.
//
// It is nil outside of both. In a job without a token it answers that it has
// none. The token is sent to that API's host
// alone, whatever a record or an answer names. A question takes 10 s at most.
func NewRuns(getenv func(string) string) Runs {
	return newRuns(getenv, bounds{
		whole: 10 * time.Second,
		pause: 500 * time.Millisecond,
		keep:  time.Minute,
		way:   &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 8},
	})
}

// bounds are those of every question, and the way that it takes.
type bounds struct {
	whole time.Duration // for a question with all its requests
	pause time.Duration // before its only retry
	keep  time.Duration // for which GitHub's answers are used again
	way   http.RoundTripper
}

func newRuns(getenv func(string) string, b bounds) Runs {
	token := cmp.Or(strings.TrimSpace(getenv("GITHUB_TOKEN")), strings.TrimSpace(getenv("GH_TOKEN")))
	if token == "" && getenv("GITHUB_ACTIONS") == "true" {
		return unasked("GitHub cannot be asked: GITHUB_TOKEN is not set")
	}
	if token != "" && (getenv("GITHUB_ACTIONS") == "true" || getenv("GITHUB_REPOSITORY") != "") {
		return newGitHubRuns(getenv, token, b)
	}
	if getenv("CI_API_V4_URL") != "" {
		header, token := "PRIVATE-TOKEN", strings.TrimSpace(getenv("GITLAB_TOKEN"))
		if token == "" {
			header, token = "JOB-TOKEN", strings.TrimSpace(getenv("CI_JOB_TOKEN"))
		}
		if token == "" {
			return unasked("GitLab cannot be asked: neither GITLAB_TOKEN nor CI_JOB_TOKEN is set")
		}
		return newGitLabRuns(getenv, header, token, b)
	}
	return nil
}

// userAgent names the program to the CI system.
const userAgent = "tfguard"

// Self names this run as the holder record keeps it; nil outside of a CI system.
func Self(getenv func(string) string) *lock.CIRun {
	if getenv("GITHUB_ACTIONS") == "true" {
		if r := gitHubRun(getenv); r.Repository != "" && r.ID != "" {
			return &lock.CIRun{System: r.System, Server: serverURL(getenv("GITHUB_SERVER_URL")), Repository: r.Repository, ID: r.ID, Attempt: r.Attempt, Job: r.Job, URL: r.URL}
		}
	}
	if getenv("GITLAB_CI") == "true" {
		return gitLabSelf(getenv)
	}
	return nil
}

// unasked answers every question with why nobody can be asked.
type unasked string

func (u unasked) Run(context.Context, lock.CIRun) (lock.RunSeen, error) {
	return lock.RunSeen{}, errors.New(string(u))
}

func (u unasked) Around(context.Context, time.Time) ([]lock.RunSeen, error) {
	return nil, errors.New(string(u))
}

// skew is by how much the clock of a machine that takes locks may be behind the
// CI system's.
const skew = time.Minute

// could reports whether a run can have taken a lock at a time.
func could(r lock.RunSeen, at time.Time) bool {
	return !at.Before(r.Started) && (r.Ended.IsZero() || !at.After(r.Ended))
}

// alive reports whether a run that goes on is among them.
func alive(runs []lock.RunSeen) bool {
	for _, r := range runs {
		if r.Life != lock.Over {
			return true
		}
	}
	return false
}

// reported makes what a system says of a run fit to be printed: an address that
// is none is left out.
func reported(address, status, conclusion string) lock.Run {
	u, err := url.Parse(address)
	if err != nil || len(address) > 512 || u.Host == "" || u.User != nil || !strings.HasPrefix(address, "https://") && !strings.HasPrefix(address, "http://") {
		address = ""
	}
	return lock.Run{URL: line(address), Status: quote.Line(status, 40), Conclusion: quote.Line(conclusion, 40)}
}

// number reads an id of a run, a job or a pipeline, as environments and records
// have it.
func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0 && keep(s, "") != ""
}

// serverURL is the address of a system for people, without a slash at its end;
// empty where s does not look like one.
func serverURL(s string) string {
	s = strings.TrimRight(s, "/")
	for _, scheme := range []string{"https://", "http://"} {
		if host, ok := strings.CutPrefix(s, scheme); ok && keep(host, ".-_:/") != "" {
			return s
		}
	}
	return ""
}

// Errors of an answer that says nothing.
var (
	errElsewhere = errors.New("it leads to another host, where the token must not go")
	errTooLong   = fmt.Errorf("its answer is longer than %d MiB", maxAnswer>>20)
	errShape     = errors.New("its answer is not of the documented shape")
	errTooMany   = errors.New("more goes on there than one answer lists, and the rest may be of that time")
)

// maxAnswer bounds an answer, in bytes: a hundred runs of GitHub have about 2 MiB.
const maxAnswer = 4 << 20

// refused is an answer whose status is not 200.
type refused struct {
	code    int
	limited bool      // by a rate limit
	until   time.Time // when the limit ends; zero: not known
	message string    // of the system: data
	needs   string    // what the token needs to be allowed; empty: not said
}

func (r *refused) Error() string {
	says, needs := "", ""
	if r.message != "" {
		says = fmt.Sprintf(", it says %q", quote.Line(r.message, 200))
	}
	if r.needs != "" {
		needs = "; the token needs " + r.needs
	}
	switch {
	case r.limited && !r.until.IsZero():
		return fmt.Sprintf("its rate limit is used up until %s (%d)", r.until.UTC().Format("2006-01-02 15:04:05 UTC"), r.code)
	case r.limited:
		return fmt.Sprintf("its rate limit is used up (%d)", r.code)
	case r.code == http.StatusUnauthorized:
		return "it does not accept the token (401)" + says + needs
	case r.code == http.StatusForbidden:
		return "it does not let this token read that (403)" + says + needs
	case r.code == http.StatusNotFound:
		return "it knows nothing of that, or does not show it to this token (404)" + needs
	case r.code >= 500:
		return fmt.Sprintf("it failed (%d)", r.code)
	}
	return fmt.Sprintf("it answered %d, which says nothing%s", r.code, says)
}

// question is one question to a CI system.
type question struct {
	bounds
	ctx     context.Context // ends with its time
	retries atomic.Int32    // left
}

// ask opens a question; the caller ends it.
func (b bounds) ask(ctx context.Context) (*question, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, b.whole)
	q := &question{bounds: b, ctx: ctx}
	q.retries.Store(1)
	return q, cancel
}

// try makes a request, and makes it again where that may help and no other
// request of the question was made again. One that hangs leaves time for that.
func (q *question) try(ctx context.Context, request func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, q.whole*2/5)
		err := request(once)
		cancel()
		if err == nil || ctx.Err() != nil || !passing(err) || q.retries.Add(-1) < 0 {
			return err
		}
		pause := time.NewTimer(q.pause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// passing reports whether an error may be gone a moment later: a failure of the
// server or of the connection.
func passing(err error) bool {
	var no *refused
	if errors.As(err, &no) {
		return no.code >= 500 && !no.limited
	}
	var network *url.Error
	return (errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)) && !errors.Is(err, errElsewhere) && !errors.Is(err, errTooLong) && !errors.Is(err, errShape)
}

// failed says in words why a question was not answered. A cancel by the caller
// is still found in the error.
func (q *question) failed(outer context.Context, err error, about string, args ...any) error {
	about = fmt.Sprintf(about, args...)
	var network *url.Error
	var no *refused
	switch {
	case outer.Err() != nil:
		return fmt.Errorf("ask %s: %w", about, outer.Err())
	case errors.As(err, &no):
		return fmt.Errorf("ask %s: %w", about, no)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ask %s: it did not answer in time", about)
	}
	for _, known := range []error{errElsewhere, errTooLong, errShape, errTooMany} {
		if errors.Is(err, known) {
			return fmt.Errorf("ask %s: %w", about, known)
		}
	}
	if errors.As(err, &network) {
		return fmt.Errorf("ask %s: it could not be reached: %s", about, line(network.Err.Error()))
	}
	return fmt.Errorf("ask %s: %w", about, errShape) // what encoding/json says names Go types
}

// apiURL reads the address of an API, without a slash at its end.
func apiURL(s string) (*url.URL, bool) {
	u, err := url.Parse(strings.TrimRight(s, "/"))
	ok := err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && u.User == nil && u.RawQuery == "" && u.Fragment == ""
	return u, ok
}

// bounded is the way to one API: requests to any other host, as a redirect would
// make them, are not sent, and an answer is whole, JSON and of bounded length
// before anything looks at it.
type bounded struct {
	api  *url.URL
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != b.api.Scheme || r.URL.Host != b.api.Host {
		return nil, errElsewhere
	}
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	_ = resp.Body.Close() // it was read
	for _, name := range []string{"Authorization", "PRIVATE-TOKEN", "JOB-TOKEN"} {
		if token := strings.TrimPrefix(r.Header.Get(name), "Bearer "); token != "" {
			body = bytes.ReplaceAll(body, []byte(token), []byte("***")) // a proxy may say what it was sent
		}
	}
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, errTooLong
	case resp.StatusCode/100 == 2 && resp.StatusCode != http.StatusOK:
		return nil, &refused{code: resp.StatusCode}
	case resp.StatusCode == http.StatusOK && !json.Valid(body):
		return nil, errShape
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// limitEnd reads when a rate limit ends from an answer's headers.
func limitEnd(h http.Header, now time.Time) time.Time {
	if s, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil && s >= 0 {
		return now.Add(time.Duration(s) * time.Second)
	}
	for _, name := range []string{"X-Ratelimit-Reset", "Ratelimit-Reset"} {
		if at, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil && at > 0 && at < 1<<40 {
			return time.Unix(at, 0)
		}
	}
	return time.Time{}
}
