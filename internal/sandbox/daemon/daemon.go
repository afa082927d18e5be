// Package daemon keeps one sandbox running in the background for a
// configuration: it starts it, finds the one that runs, and stops it.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tfguard/tfguard/internal/sandbox"
)

// Daemon is the sandbox of one folder. Its database survives a stop, and it
// comes back on the same port where that is free.
type Daemon struct {
	Dir     string        // the sandbox's folder, .tfguard/sandbox beside the configuration
	Command []string      // starts a process that calls Serve for Dir
	Timeout time.Duration // for starting and for stopping
}

// New gives the daemon of a folder.
func New(dir string, command ...string) *Daemon {
	return &Daemon{Dir: dir, Command: command, Timeout: 15 * time.Second}
}

// Endpoint is where a sandbox answers.
type Endpoint struct {
	URL string `json:"url"`
	PID int    `json:"pid"`
}

// ErrNotRunning is returned by Find and Stop.
var ErrNotRunning = errors.New("the sandbox is not running")

func (d *Daemon) record() string   { return filepath.Join(d.Dir, "sandbox.json") }
func (d *Daemon) database() string { return filepath.Join(d.Dir, "data.bolt") }
func (d *Daemon) log() string      { return filepath.Join(d.Dir, "sandbox.log") }

// Find gives the endpoint of the sandbox that runs, or ErrNotRunning.
func (d *Daemon) Find(ctx context.Context) (Endpoint, error) {
	e, err := d.last()
	if err != nil || e.URL == "" {
		return Endpoint{}, ErrNotRunning
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	var health struct {
		Name string `json:"name"`
		PID  int    `json:"pid"`
	}
	if err := call(ctx, http.MethodGet, e.URL+"/_tfguard/health", &health); err != nil || health.Name != "tfguard-sandbox" || health.PID != e.PID {
		return Endpoint{}, ErrNotRunning
	}
	return e, nil
}

func (d *Daemon) last() (Endpoint, error) {
	var e Endpoint
	b, err := os.ReadFile(d.record())
	if err != nil {
		return e, err
	}
	return e, json.Unmarshal(b, &e)
}

// Start gives the endpoint of the sandbox that runs, and starts it where none
// does. Two that start at once end up with the same one: the database can be
// open in one process alone.
func (d *Daemon) Start(ctx context.Context) (Endpoint, error) {
	if e, err := d.Find(ctx); err == nil {
		return e, nil
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return Endpoint{}, fmt.Errorf("start sandbox: %w", err)
	}
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Endpoint{}, fmt.Errorf("start sandbox: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(d.Command[0], d.Command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return Endpoint{}, fmt.Errorf("start sandbox: %w", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	ctx, stop := context.WithTimeout(ctx, d.Timeout)
	defer stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if e, err := d.Find(ctx); err == nil {
			return e, nil
		}
		select {
		case <-gone:
			gone = nil // lost against another start, or failed: the timeout tells
		case <-ctx.Done():
			return Endpoint{}, fmt.Errorf("start sandbox: no answer within %s; its log is %s", d.Timeout, d.log())
		case <-tick.C:
		}
	}
}

// Stop ends the sandbox that runs and waits until it has let its database go.
func (d *Daemon) Stop(ctx context.Context) error {
	e, err := d.Find(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, d.Timeout)
	defer stop()
	if err := call(ctx, http.MethodPost, e.URL+"/_tfguard/shutdown", nil); err != nil {
		return fmt.Errorf("stop sandbox: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := d.Find(ctx); err != nil && ctx.Err() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop sandbox: process %d still answers after %s", e.PID, d.Timeout)
		case <-tick.C:
		}
	}
}

// Reset empties the sandbox that runs.
func (d *Daemon) Reset(ctx context.Context) error {
	e, err := d.Find(ctx)
	if err != nil {
		return err
	}
	return call(ctx, http.MethodPost, e.URL+"/_tfguard/reset", nil)
}

// Serve runs the sandbox in this process until ctx ends or it is told to stop.
func (d *Daemon) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server, err := sandbox.Open(d.database())
	if err != nil {
		return err
	}
	defer server.Close()
	server.OnShutdown = stop
	last, _ := d.last()
	address := "127.0.0.1:0"
	if len(last.URL) > len("http://") {
		address = last.URL[len("http://"):]
	}
	listener, err := sandbox.Listen(address)
	if err != nil {
		if listener, err = sandbox.Listen("127.0.0.1:0"); err != nil {
			return err
		}
	}
	b, err := json.Marshal(Endpoint{URL: "http://" + listener.Addr().String(), PID: os.Getpid()})
	if err != nil {
		return err
	}
	temporary := d.record() + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return fmt.Errorf("record the endpoint: %w", err)
	}
	if err := os.Rename(temporary, d.record()); err != nil {
		return fmt.Errorf("record the endpoint: %w", err)
	}
	return server.Serve(ctx, listener)
}

func call(ctx context.Context, method, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: it is loopback
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || into == nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, url, res.Status)
	}
	return json.Unmarshal(body, into)
}
