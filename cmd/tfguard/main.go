// Command tfguard takes a Terraform configuration with S3 state from a clean
// checkout to an applied change.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/tfguard/tfguard/internal/app"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			cancel(&app.SignalError{Signal: s}) // the first one counts
		}
	}()
	// A reader that went away must not end a run that is applying. Notify, not
	// Ignore: what is ignored stays so in terraform and in hooks.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	code := app.Main(ctx, os.Args, app.Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
		Color:    term.IsTerminal(int(os.Stdout.Fd())),
	})
	if errors.Is(context.Cause(ctx), context.Canceled) && code == app.ExitOK {
		return app.ExitOK // it had finished before the cancel could matter
	}
	return code
}
