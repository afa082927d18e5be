package awsclient

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

// boundedClient ends a request in which nothing moves for the time of idle:
// no byte sent, no answer, no byte received. The SDK tries it again.
type boundedClient struct {
	next aws.HTTPClient
	idle time.Duration
}

// stalledError says that a connection or a whole request took too long. It is
// no context error, since nobody cancelled anything.
type stalledError struct{ text string }

func (e *stalledError) Error() string   { return e.text }
func (e *stalledError) Timeout() bool   { return true }
func (e *stalledError) Temporary() bool { return true }

func (c *boundedClient) Do(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stalled := &stalledError{fmt.Sprintf("no answer for %s", c.idle)}
	timer := time.AfterFunc(c.idle, func() { cancel(stalled) })
	b := &boundedBody{timer: timer, idle: c.idle, cancel: cancel, ctx: ctx, stalled: stalled}

	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &progress{ReadCloser: r.Body, timer: timer, idle: c.idle}
	}
	resp, err := c.next.Do(r)
	if err != nil {
		timer.Stop()
		if context.Cause(ctx) == stalled {
			err = stalled
		}
		cancel(nil)
		return resp, err
	}
	timer.Reset(c.idle)
	b.body = resp.Body
	resp.Body = b
	return resp, nil
}

// progress puts the timer back with every byte that is sent.
type progress struct {
	io.ReadCloser
	timer *time.Timer
	idle  time.Duration
}

func (p *progress) Read(buf []byte) (int, error) {
	n, err := p.ReadCloser.Read(buf)
	if n > 0 {
		p.timer.Reset(p.idle)
	}
	return n, err
}

// boundedBody is an answer's body, under the same limit; Close releases all.
type boundedBody struct {
	body    io.ReadCloser
	timer   *time.Timer
	idle    time.Duration
	cancel  context.CancelCauseFunc
	ctx     context.Context
	stalled error
}

func (b *boundedBody) Read(buf []byte) (int, error) {
	n, err := b.body.Read(buf)
	switch {
	case err == nil:
		b.timer.Reset(b.idle)
	case err != io.EOF && context.Cause(b.ctx) == b.stalled:
		err = b.stalled
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// deadline bounds a whole request: all attempts, the pauses between them and,
// for a download, the reading of the body.
type deadline struct{ limit time.Duration }

func (*deadline) ID() string { return "tfguardDeadline" }

func (d *deadline) HandleInitialize(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	bounded, cancel := context.WithTimeout(ctx, d.limit)
	out, metadata, err := next.HandleInitialize(bounded, in)
	if err == nil {
		if o, ok := out.Result.(*s3.GetObjectOutput); ok && o.Body != nil {
			o.Body = &closer{ReadCloser: o.Body, done: cancel}
			return out, metadata, nil
		}
	}
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = &stalledError{fmt.Sprintf("no answer within %s", d.limit)}
	}
	cancel()
	return out, metadata, err
}

type closer struct {
	io.ReadCloser
	done func()
}

func (c *closer) Close() error {
	err := c.ReadCloser.Close()
	c.done()
	return err
}
