// Package app is the command line: commands and flags, the wiring of the real
// adapters, and the one place where errors become words and exit codes.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/ui"
)

// Version is the program's version, set at link time.
var Version = "0.1.0-dev"

// Streams is what the program reads from and writes to.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Terminal bool // a person can be asked
	Color    bool // Out shows colours
	// Engine is set in a process that carries out a run for a foreground.
	Engine *engine.Engine
	// Again tells of every signal after the one that cancelled the run.
	Again <-chan os.Signal
	// NoHup is set where the program is meant to outlive its terminal and shell.
	NoHup bool
}

// Main runs one command and returns the exit code. A cancelled ctx cancels the
// run; its cause is what the person is told.
func Main(ctx context.Context, args []string, s Streams) int {
	github := os.Getenv("GITHUB_ACTIONS") == "true"
	if github {
		s.Err = ui.Writer(s.Err)
	}
	a := newApp(s)
	if !slices.Contains(args, "--generate-bash-completion") {
		ordered, err := reorder(args, a)
		if err != nil {
			return finish(ctx, s, args, &usageError{msg: err.Error(), hint: "tfguard --help"})
		}
		args = ordered
	}
	return finish(ctx, s, args, a.RunContext(ctx, args))
}

// unstarted tells a call that was wrong, and so never began a run, as the
// events of one: with --json run_finished is the last line, always.
func unstarted(s Streams, args []string, t told) {
	i := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") && a != args[0] })
	json := slices.ContainsFunc(args, func(a string) bool { return strings.TrimLeft(a, "-") == "json" && a != "json" })
	if !json || i < 0 || !slices.Contains([]string{"check", "plan", "apply", "destroy"}, args[i]) {
		return
	}
	out := ui.NewJSON(ui.Options{Out: s.Out, Run: engine.NewID(time.Now())})
	out.Emit(event.RunStarted{Command: args[i], Version: Version})
	out.Emit(event.Diagnostic{Severity: "error", Summary: t.msg, Hint: t.hint})
	out.Emit(event.RunFinished{Status: event.Failed, ExitCode: t.code})
}

// finish tells the person how it ended.
func finish(ctx context.Context, s Streams, args []string, err error) int {
	if err == nil {
		return ExitOK
	}
	t := tell(ctx, err)
	var wrong *usageError // a run's own errors are told by then, and codes
	if errors.As(err, &wrong) {
		unstarted(s, args, t)
	}
	var said *saidError
	if !errors.As(err, &said) && t.msg != "" {
		ui.Errors(s.Err, t.msg, t.hint)
	}
	return t.code
}

// saidError is an error that the run's printer has told already.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

func newApp(s Streams) *cli.App {
	usage := func(c *cli.Context, err error, _ bool) error {
		return &usageError{msg: strings.TrimSuffix(err.Error(), "\n"), hint: helpFor(c)}
	}
	a := &cli.App{
		Name:                      "tfguard",
		Usage:                     "from a clean checkout to an applied terraform change, under guard",
		UsageText:                 "tfguard COMMAND [flags] [arguments]",
		Version:                   Version,
		HideVersion:               true,
		Writer:                    s.Out,
		ErrWriter:                 s.Err,
		Reader:                    s.In,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Suggest:                   true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		Action:                    noCommand,
		Commands: []*cli.Command{
			checkCommand(s), planCommand(s), applyCommand(s), destroyCommand(s),
			backendCommand(s), locksCommand(s), unlockCommand(s), snapshotCommand(s),
			stateCommand(s),
			doctorCommand(s),
			settleCommand(s),
			unbuilt("report", "write the HTML report of a run"),
			sandboxCommand(s), versionCommand(s), completionCommand(s),
		},
	}
	var each func([]*cli.Command)
	each = func(cs []*cli.Command) {
		for _, c := range cs {
			c.OnUsageError = usage
			if len(c.Subcommands) > 0 && c.Action == nil {
				c.Action = noCommand
			}
			each(c.Subcommands)
		}
	}
	each(a.Commands)
	return a
}

func helpFor(c *cli.Context) string {
	if c == nil || c.Command == nil || c.Command.Name == "" || c.Command.Name == "tfguard" {
		return "tfguard --help"
	}
	return "tfguard " + strings.TrimPrefix(c.Command.HelpName, "tfguard ") + " --help"
}

// noCommand is the action of the program and of every group of commands.
func noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return &usageError{msg: fmt.Sprintf("no such command: %q", c.Args().First()), hint: helpFor(c)}
	}
	if c.Command != nil && len(c.Lineage()) > 1 && c.Command.Name != "tfguard" {
		_ = cli.ShowSubcommandHelp(c)
	} else {
		_ = cli.ShowAppHelp(c)
	}
	return &codeError{code: ExitUsage}
}

// unbuilt is a command of the contract that this version does not have.
func unbuilt(name, usage string, subs ...string) *cli.Command {
	no := func(c *cli.Context) error {
		return &usageError{msg: fmt.Sprintf("%s is not built yet in tfguard %s", strings.TrimPrefix(c.Command.HelpName, "tfguard "), Version), hint: "tfguard --help"}
	}
	c := &cli.Command{Name: name, Usage: usage + " (not built yet)", Action: no, SkipFlagParsing: true, HideHelpCommand: true}
	for _, s := range subs {
		c.Subcommands = append(c.Subcommands, &cli.Command{Name: s, Usage: "not built yet", Action: no, SkipFlagParsing: true})
	}
	return c
}

func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return &usageError{msg: fmt.Sprintf("unexpected argument: %q", c.Args().First()), hint: helpFor(c)}
	}
	return nil
}
