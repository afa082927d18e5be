// Package sandbox emulates as much of S3, DynamoDB and STS as terraform's "s3"
// backend and tfguard need, on one loopback listener and over one bbolt file,
// so that a whole run can be tried without an AWS account.
//
// Promised: a change is answered with success only after it is on disk; it is
// seen whole or not at all, also after a kill -9; conditional writes are atomic
// among any number of clients; what the sandbox does not know it refuses, in
// the error format of the service, rather than reading over it.
//
// Not emulated: signatures (any access key is accepted, but a request without
// credentials is refused), IAM, and whatever would follow from a policy: a
// bucket policy is stored and not enforced, also one that denies plain HTTP.
// Lifecycle rules, TTLs and backups are stored and not acted upon. Objects are
// not encrypted; the settings are kept and, for SSE-C, the key is demanded.
// A bucket answers under every region. There are no secondary indexes, streams,
// PartiQL, replication, notifications or ACLs beyond the canned private ones.
//
// It is a tool for one developer's machine. The listener must be on loopback;
// requests whose Host is not loopback, and those a browser sends for a web
// page, are refused.
package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What clients of the sandbox are configured with. Any other access key works
// as well.
const (
	AccessKey = "AKIASANDBOXTFGUARD00"
	SecretKey = "sandbox/tfguard/not/a/secret/0000000000"
	Region    = "us-east-1"
	AccountID = "000000000000"
)

// controlPrefix is the path of the control plane, on every host but those of
// buckets. No S3 bucket can have that name.
const controlPrefix = "/_tfguard/"

// Server is the sandbox. It is an http.Handler, safe for concurrent use.
type Server struct {
	// OnShutdown, if set, is called on its own goroutine once for each POST
	// /_tfguard/shutdown, after the answer is sent. Set it before serving.
	OnShutdown func()

	store    *store
	spoolDir string
	now      func() time.Time

	mu    sync.Mutex
	stats Stats
}

// Stats counts requests since the start or the last reset.
type Stats struct {
	Since time.Time `json:"since"`
	// Requests is by "service:Operation", such as "s3:GetObject". What is no
	// operation of the sandbox is counted as "s3:Unknown" and so on. Refused
	// requests count too; those of the control plane do not.
	Requests map[string]int `json:"requests"`
	// Agents is the same for each kind of client, told by its User-Agent:
	// "tfguard", "terraform", "opentofu" or "other".
	Agents map[string]map[string]int `json:"agents"`
}

// Open opens or creates the sandbox's file, readable by its owner alone. If
// another process has it open, that is an error after a second.
// Large bodies are spooled to the same directory while they arrive.
func Open(path string) (*Server, error) {
	st, err := openStore(path)
	if err != nil {
		return nil, err
	}
	s := &Server{store: st, spoolDir: filepath.Dir(path), now: time.Now}
	s.resetStats()
	return s, nil
}

// Close waits for the commit under way and closes the file. Requests that come
// later are answered with an internal error.
func (s *Server) Close() error { return s.store.close() }

// Listen listens on a loopback address, "127.0.0.1:0" if addr is empty. The
// host must be a loopback IP or "localhost".
func Listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("sandbox address %q: %w", addr, err)
	}
	if !loopback(host) {
		return nil, fmt.Errorf("sandbox address %q is not loopback: the sandbox checks no signatures and serves this machine only", addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for sandbox: %w", err)
	}
	if !onLoopback(ln) {
		ln.Close()
		return nil, fmt.Errorf("sandbox address %q resolves to %s, which is not loopback", addr, ln.Addr())
	}
	return ln, nil
}

func onLoopback(ln net.Listener) bool {
	a, ok := ln.Addr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// Serve answers requests on ln, which must be on loopback, until ctx is done;
// then it lets requests under way finish, for five seconds at most, and returns
// nil. It closes ln, not the Server.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if !onLoopback(ln) {
		ln.Close()
		return fmt.Errorf("sandbox listener %s is not loopback", ln.Addr())
	}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve sandbox: %w", err)
}

// ServeHTTP answers a request of any of the services or of the control plane.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	h := w.Header()
	h.Set("Server", "tfguard-sandbox")
	h.Set("x-amz-request-id", id)
	if !loopback(hostname(r.Host)) {
		http.Error(w, "the sandbox answers to loopback hosts only", http.StatusForbidden)
		return
	}
	if r.Header.Get("Origin") != "" {
		// A page of another site can post here without asking first, even where
		// it cannot read the answer. No client of the sandbox is a browser.
		http.Error(w, "the sandbox does not answer browsers", http.StatusForbidden)
		return
	}
	path := r.URL.EscapedPath()
	_, inHost := hostBucket(r)
	switch {
	case r.Header.Get("X-Amz-Target") != "":
		s.serveDynamo(w, r, id)
	case inHost:
		s.serveS3(w, r, id)
	case strings.HasPrefix(path, controlPrefix):
		s.serveControl(w, r, strings.TrimPrefix(path, controlPrefix))
	case r.Method == http.MethodPost && path == "/":
		s.serveSTS(w, r, id)
	default:
		s.serveS3(w, r, id)
	}
}

// serveControl is what tfguard asks of its own sandbox.
func (s *Server) serveControl(w http.ResponseWriter, r *http.Request, what string) {
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client is gone, or has it
	}
	switch r.Method + " " + what {
	case "GET health":
		answer(struct {
			Name    string `json:"name"`
			Version int    `json:"version"`
			PID     int    `json:"pid"`
		}{"tfguard-sandbox", 1, os.Getpid()})
	case "GET stats":
		answer(s.Stats())
	case "POST stats/reset":
		s.resetStats()
		w.WriteHeader(http.StatusNoContent)
	case "POST reset":
		if err := s.store.update((*tx).reset); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case "POST shutdown":
		w.WriteHeader(http.StatusNoContent)
		_ = http.NewResponseController(w).Flush() // not every writer can
		if s.OnShutdown != nil {
			go s.OnShutdown()
		}
	default:
		http.Error(w, "the sandbox has no such control", http.StatusNotFound)
	}
}

// Stats returns a copy of the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Stats{Since: s.stats.Since, Requests: maps.Clone(s.stats.Requests), Agents: make(map[string]map[string]int)}
	for a, m := range s.stats.Agents {
		c.Agents[a] = maps.Clone(m)
	}
	return c
}

func (s *Server) resetStats() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats = Stats{Since: s.now(), Requests: make(map[string]int), Agents: make(map[string]map[string]int)}
}

// count is called before the answer is written: who has an answer finds it
// counted.
func (s *Server) count(r *http.Request, op string) {
	ua := strings.ToLower(r.UserAgent())
	agent := "other"
	for _, a := range []string{"tfguard", "terraform", "opentofu"} {
		if strings.Contains(ua, a) {
			agent = a
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests[op]++
	if s.stats.Agents[agent] == nil {
		s.stats.Agents[agent] = make(map[string]int)
	}
	s.stats.Agents[agent][op]++
}

// loopback says whether a host is this machine by its very form. No name but
// localhost and those below it is looked up.
func loopback(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// hostname is the host of a Host header, without port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToUpper(hex.EncodeToString(b[:]))
}
