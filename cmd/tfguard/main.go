// Command tfguard takes a Terraform configuration with S3 state from a clean
// checkout to an applied change.
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/term"

	"github.com/tfguard/tfguard/internal/app"
	"github.com/tfguard/tfguard/internal/engine"
)

func main() {
	os.Exit(run())
}

// softMemory makes the garbage collector work harder above it, in bytes, so that
// an output of any length leaves the process, its file included, below 64 MiB. A
// GOMEMLIMIT in the environment counts instead.
const softMemory = 16 << 20

func run() int {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(softMemory)
	}
	e, err := engine.Inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "tfguard: error: %v\n", err)
		return app.ExitFailed
	}
	nohup := signal.Ignored(syscall.SIGHUP)
	ctx, again := cancelled(nohup)
	return app.Main(ctx, os.Args, app.Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
		Color:    term.IsTerminal(int(os.Stdout.Fd())),
		Engine:   e, Again: again, NoHup: nohup,
	})
}

// cancelled gives a context that the first signal cancels; again tells of every
// later one. Under nohup a closed terminal is no signal.
func cancelled(nohup bool) (ctx context.Context, again <-chan os.Signal) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals, more := make(chan os.Signal, 8), make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !nohup {
		signal.Notify(signals, syscall.SIGHUP)
	}
	// A reader that went away must not end a run that is applying. Notify, not
	// Ignore: what is ignored stays so in terraform and in hooks.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		for s := range signals {
			if ctx.Err() != nil {
				select {
				case more <- s:
				default:
				}
			}
			cancel(&app.SignalError{Signal: s})
		}
	}()
	return ctx, more
}
