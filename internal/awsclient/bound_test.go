package awsclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pieces is a body that gives a byte after each pause, as long as its request goes on.
type pieces struct {
	ctx    context.Context
	pauses []time.Duration
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.pauses) == 0 {
		return 0, io.EOF
	}
	select {
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	case <-time.After(p.pauses[0]):
	}
	p.pauses = p.pauses[1:]
	return copy(b, "x"), nil
}

func (p *pieces) Close() error { return nil }

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestOnlyAConnectionThatStandsStillIsEnded(t *testing.T) {
	slow := make([]time.Duration, 100)
	for i := range slow {
		slow[i] = 15 * time.Second
	}
	for _, row := range []struct {
		name     string
		up, down []time.Duration
		stalls   bool
	}{
		{"a long download that moves", nil, slow, false},
		{"a download that stands still", nil, []time.Duration{time.Second, time.Minute}, true},
		{"a long upload that moves", slow, nil, false},
		{"an upload that stands still", []time.Duration{time.Second, time.Minute}, nil, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := clientFunc(func(r *http.Request) (*http.Response, error) {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						return nil, err
					}
					return &http.Response{Body: &pieces{r.Context(), row.down}}, nil
				})
				up := &pieces{pauses: row.up}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://example.invalid", up)
				if err != nil {
					t.Fatal(err)
				}
				c := &boundedClient{next: clientFunc(func(r *http.Request) (*http.Response, error) {
					up.ctx = r.Context()
					return next(r)
				}), idle: 20 * time.Second}
				resp, err := c.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					if closed := resp.Body.Close(); closed != nil {
						t.Error(closed)
					}
				}
				var stalled *stalledError
				if errors.As(err, &stalled) != row.stalls || !row.stalls && err != nil {
					t.Errorf("%v, want stalled %t", err, row.stalls)
				}
			})
		})
	}
}
