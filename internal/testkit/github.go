package testkit

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// GitHub is a stand-in for the REST API of GitHub or GitLab on 127.0.0.1, for
// GITHUB_API_URL or CI_API_V4_URL: it answers with what a test recorded or made
// up. What nothing is set for is answered with GitHub's 404. To make it hang or
// break off, put a [Faulty] before it.
type GitHub struct {
	URL string

	mu      sync.Mutex
	answers []route
	seen    []string
	tokens  []string
}

type route struct {
	path  string
	query url.Values
	fn    func(*http.Request) Response
}

// NewGitHub starts one that knows nothing.
func NewGitHub(t testing.TB) *GitHub {
	t.Helper()
	g := &GitHub{}
	g.URL = Serve(t, g)
	return g
}

// Answer sets the answer for a path such as "/repos/o/r/actions/runs/1". With a
// query, "/repos/o/r/actions/runs?status=queued", it is for requests that have
// those parameters among their own. Of several the one with the most parameters
// counts, and of these the last. A Status of 0 is 200.
func (g *GitHub) Answer(path string, r Response) {
	g.Handle(path, func(*http.Request) Response { return r })
}

// File is Answer with the content of a file, and status 200. Pairs of old and
// new text change the content on its way.
func (g *GitHub) File(t testing.TB, path, file string, replace ...string) {
	t.Helper()
	g.Answer(path, Response{Body: Recorded(t, file, replace...)})
}

// Recorded gives a file's content, with pairs of old and new text replaced.
func Recorded(t testing.TB, file string, replace ...string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(replace...).Replace(string(content))
}

// Handle is Answer with a function of the request.
func (g *GitHub) Handle(path string, fn func(*http.Request) Response) {
	path, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		panic(err) // the test's own text
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = append(g.answers, route{path, values, fn})
}

// Requests are the requests so far, as "GET /path?query".
func (g *GitHub) Requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

// Tokens are the values of the headers that carry one, each once, in the order
// of their coming; "" is of a request without.
func (g *GitHub) Tokens() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.tokens)
}

// ServeHTTP implements [http.Handler].
func (g *GitHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := g.find(r)(r)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	for k, v := range answer.Header {
		w.Header().Set(k, v)
	}
	if answer.Status != 0 {
		w.WriteHeader(answer.Status)
	}
	_, _ = io.WriteString(w, answer.Body)
}

func (g *GitHub) find(r *http.Request) func(*http.Request) Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, r.Method+" "+r.URL.RequestURI())
	token := r.Header.Get("Authorization") + r.Header.Get("PRIVATE-TOKEN") + r.Header.Get("JOB-TOKEN")
	if !slices.Contains(g.tokens, token) {
		g.tokens = append(g.tokens, token)
	}
	fn, most := func(*http.Request) Response {
		return Response{Status: http.StatusNotFound, Body: `{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}`}
	}, -1
	query := r.URL.Query()
	for _, a := range g.answers {
		if a.path != r.URL.EscapedPath() || len(a.query) < most {
			continue
		}
		matches := true
		for k, want := range a.query {
			matches = matches && slices.Equal(query[k], want)
		}
		if matches {
			fn, most = a.fn, len(a.query)
		}
	}
	return fn
}
