package testkit

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Faulty stands in front of a server and makes it misbehave as its faults say.
type Faulty struct {
	URL string

	next   http.Handler
	mu     sync.Mutex
	faults []*Fault
	seen   []string
	ended  chan struct{}
}

// Fault is one way to misbehave. The first fault that matches a request and has
// not run out deals with it.
type Fault struct {
	// Match chooses requests; nil means every one. See [DynamoDBOp] and [S3Op].
	Match func(*http.Request) bool
	// After lets that many matching requests pass first.
	After int
	// Times ends the fault after so many requests; 0 means never.
	Times int
	// Before runs before the request is carried out.
	Before func(*http.Request)
	// Delay holds the request back for so long, if its client waits.
	Delay time.Duration
	// Hang holds the request back until Release, or until its client gave up.
	Hang bool
	// Answer, if it gives one, is sent and the request is not carried out.
	Answer func(*http.Request) *Response
	// Drop carries the request out and breaks the connection without an answer.
	Drop bool
	// Refuse breaks the connection and does not carry the request out.
	Refuse bool
	// Done runs after the request was carried out, before its answer is sent.
	Done func(*http.Request)

	matched, hit int
	reached      chan struct{}
	release      chan struct{}
	released     *sync.Once
}

// Response is an answer made up by a test.
type Response struct {
	Status int
	Header map[string]string
	Body   string
}

// NewFaulty starts a server on 127.0.0.1 before the one at target.
func NewFaulty(t testing.TB, target string) *Faulty {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport:    &http.Transport{MaxIdleConnsPerHost: 16},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f := Wrap(proxy)
	f.URL = Serve(t, f)
	t.Cleanup(func() { close(f.ended) }) // before the server waits for its handlers
	return f
}

// Wrap puts faults before a handler. Its URL is empty.
func Wrap(next http.Handler) *Faulty { return &Faulty{next: next, ended: make(chan struct{})} }

// Add puts a fault in force and gives it back.
func (f *Faulty) Add(fault Fault) *Fault {
	p := &fault
	p.reached, p.release, p.released = make(chan struct{}, 1024), make(chan struct{}), new(sync.Once)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, p)
	return p
}

// Reset ends all faults and forgets the requests. What hangs goes on.
func (f *Faulty) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.faults {
		p.Release()
	}
	f.faults, f.seen = nil, nil
}

// Requests are the requests so far, as "dynamodb:GetItem" or "GET /path?query".
func (f *Faulty) Requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.seen...)
}

// Count is how many requests of this name there were.
func (f *Faulty) Count(name string) int {
	n := 0
	for _, s := range f.Requests() {
		if s == name {
			n++
		}
	}
	return n
}

// Hits is how many requests the fault has dealt with.
func (f *Faulty) Hits(p *Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.hit
}

// Release lets go on what the fault holds back, now and later.
func (p *Fault) Release() { p.released.Do(func() { close(p.release) }) }

// Wait returns when the fault has a request in its hands that Wait has not
// returned for; it fails the test after ten seconds.
func (p *Fault) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.reached:
	case <-time.After(10 * time.Second):
		t.Fatal("no request came that the fault matches")
	}
}

// ServeHTTP implements http.Handler.
func (f *Faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := f.pick(r)
	if p == nil {
		f.next.ServeHTTP(w, r)
		return
	}
	// A server learns that its client is gone only after it has read the body.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if p.Before != nil {
		p.Before(r)
	}
	select {
	case p.reached <- struct{}{}:
	default:
	}
	if p.Refuse {
		panic(http.ErrAbortHandler)
	}
	if p.Hang || p.Delay > 0 {
		var over <-chan time.Time
		if !p.Hang {
			over = time.After(p.Delay)
		}
		select {
		case <-p.release:
		case <-over:
		case <-f.ended:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if p.Answer != nil {
		if a := p.Answer(r); a != nil {
			for k, v := range a.Header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(a.Status)
			_, _ = io.WriteString(w, a.Body)
			return
		}
	}
	if p.Done == nil && !p.Drop {
		f.next.ServeHTTP(w, r)
		return
	}
	kept := httptest.NewRecorder()
	f.next.ServeHTTP(kept, r)
	if p.Done != nil {
		p.Done(r)
	}
	if p.Drop {
		panic(http.ErrAbortHandler)
	}
	for k, v := range kept.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(kept.Code)
	_, _ = w.Write(kept.Body.Bytes())
}

func (f *Faulty) pick(r *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := r.Method + " " + r.URL.RequestURI()
	if _, op, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		name = "dynamodb:" + op
	}
	f.seen = append(f.seen, name)
	for _, p := range f.faults {
		if p.Match != nil && !p.Match(r) {
			continue
		}
		p.matched++
		if p.matched <= p.After || p.Times > 0 && p.hit >= p.Times {
			continue
		}
		p.hit++
		return p
	}
	return nil
}

// DynamoDBOp matches an operation such as "DeleteItem".
func DynamoDBOp(op string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+op) }
}

// S3Op matches S3 requests by method and end of the path, such as "PUT" and
// ".tflock".
func S3Op(method, path string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Header.Get("X-Amz-Target") == "" && r.Method == method && strings.HasSuffix(r.URL.Path, path)
	}
}

// S3Error answers with an error as S3 words it.
func S3Error(status int, code, message string) func(*http.Request) *Response {
	return func(*http.Request) *Response {
		return &Response{Status: status, Header: map[string]string{"Content-Type": "application/xml"},
			Body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>` + message + `</Message></Error>`}
	}
}

// DynamoDBError answers with an error as DynamoDB words it.
func DynamoDBError(status int, code, message string) func(*http.Request) *Response {
	return func(*http.Request) *Response {
		return &Response{Status: status, Header: map[string]string{"Content-Type": "application/x-amz-json-1.0"},
			Body: `{"__type":"com.amazonaws.dynamodb.v20120810#` + code + `","message":"` + message + `"}`}
	}
}
