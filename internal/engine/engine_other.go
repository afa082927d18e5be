//go:build !unix

package engine

import (
	"context"
	"errors"

	"github.com/tfguard/tfguard/internal/event"
)

// CanDetach reports whether a run can go on in a process of its own: there are
// no sessions here, so a run dies with its window.
const CanDetach = false

// Link is the foreground's end of a run in an engine; there is none here.
type Link struct{}

// Start fails.
func (r *Run) Start([]string, ...string) (*Link, error) { return nil, errors.ErrUnsupported }

// Cancel does nothing.
func (l *Link) Cancel(string) {}

// Answer does nothing.
func (l *Link) Answer(string) {}

// Follow fails.
func (l *Link) Follow(context.Context, func(event.Event)) error { return errors.ErrUnsupported }

// Close does nothing.
func (l *Link) Close() error { return nil }

// Engine is this process's end of it.
type Engine struct {
	Run       *Run
	Journal   *Journal
	Cancelled chan struct{}
	Why       string
}

// Inherited gives nil.
func Inherited() (*Engine, error) { return nil, nil }

// Ask fails.
func (e *Engine) Ask(context.Context, string) (string, error) { return "", errors.ErrUnsupported }

// Close does nothing.
func (e *Engine) Close() error { return nil }

// GoesOn reports whether the run's engine is alive.
func (r *Run) GoesOn() bool { return false }

// Alone does not wait: runs of one folder may be in each other's way.
func (r *Run) Alone(context.Context, func()) (func(), error) { return func() {}, nil }
