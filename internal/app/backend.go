package app

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/backend/setup"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

func probeFlag() cli.Flag {
	return yes("probe", "also find out by trying, with an object and an item of its own, whether the stores keep their conditions")
}

func backendCommand(s Streams) *cli.Command {
	sub := func(name, usage string, exits []int, action func(context.Context, *settings, *target) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, UsageText: "tfguard backend " + name + " [flags]", Flags: common(), Description: codes(exits...),
			Action: func(c *cli.Context) error {
				if err := noArgs(c); err != nil {
					return err
				}
				return withTarget(c, s, action)
			}}
	}
	verify := sub("verify", "check without changing; exits 1 where something differs", []int{ExitOK, ExitFailed, ExitUsage, ExitBackend},
		func(ctx context.Context, set *settings, t *target) error { return verifyBackend(ctx, s, set, t) })
	verify.Flags = append(verify.Flags, probeFlag())
	return &cli.Command{
		Name: "backend", Usage: "create, repair, check or show bucket and table",
		Subcommands: []*cli.Command{
			sub("setup", "create what is missing and repair what differs", []int{ExitOK, ExitFailed, ExitUsage, ExitBackend},
				func(ctx context.Context, set *settings, t *target) error {
					return setUpBackend(ctx, t, &stepPrinter{s: s, set: set})
				}),
			verify,
			sub("show", "print the resolved backend", []int{ExitOK, ExitFailed, ExitUsage},
				func(_ context.Context, set *settings, t *target) error { return showBackend(s, set, t) }),
			migrateCommand(s),
		},
	}
}

// setUpBackend creates and repairs, and says each step to the sink.
func setUpBackend(ctx context.Context, t *target, sink event.Sink) error {
	return t.backend().Setup(ctx, func(step setup.Step) {
		text := fmt.Sprintf("%s: %s", step.What, step.Action)
		if step.Detail != "" {
			text += " (" + step.Detail + ")"
		}
		sink.Emit(event.Output{Source: "backend", Text: quote.Line(text, 500), Detail: step.Action == setup.OK || step.Action == setup.Skipped})
	})
}

// stepPrinter prints what a command of its own says, one line a step.
type stepPrinter struct {
	s   Streams
	set *settings
}

func (p *stepPrinter) Emit(e event.Event) {
	o, ok := e.(event.Output)
	if !ok || p.set.quiet {
		return
	}
	if p.set.json {
		_ = printJSON(p.s.Out, map[string]string{"step": o.Text})
		return
	}
	fmt.Fprintln(p.s.Out, o.Text)
}

func verifyBackend(ctx context.Context, s Streams, set *settings, t *target) error {
	report, err := t.backend().Verify(ctx)
	if err != nil {
		return err
	}
	hint := "tfguard backend setup repairs them"
	if set.cli.Bool("probe") {
		probed, err := t.backend().Probe(ctx)
		if err != nil {
			return err
		}
		if len(probed.Findings) > 0 {
			hint = probed.Findings[0].Fix
		}
		report.Findings = append(report.Findings, probed.Findings...)
	}
	if set.json {
		err = printJSON(s.Out, struct {
			Version  int             `json:"version"`
			State    string          `json:"state"`
			Findings []setup.Finding `json:"findings"`
		}{1, t.addr.String(), append([]setup.Finding{}, report.Findings...)})
	} else if len(report.Findings) == 0 {
		fmt.Fprintf(s.Out, "%s: bucket and locks are as they should be\n", t.addr)
	}
	if err != nil || len(report.Findings) == 0 {
		return err
	}
	if !set.json {
		for _, f := range report.Findings {
			fmt.Fprintf(s.Out, "%s: %s\n", f.Severity, f)
		}
	}
	return &codeError{code: ExitFailed, msg: fmt.Sprintf("%d findings on %s", len(report.Findings), t.addr), hint: hint}
}

func showBackend(s Streams, set *settings, t *target) error {
	if set.json {
		return printJSON(s.Out, map[string]any{
			"version": 1, "state": t.addr.String(), "bucket": t.addr.Bucket, "key": t.addr.Key, "region": t.clients.Region,
			"dynamodb_table": t.addr.Table, "use_lockfile": t.addr.Lockfile, "workspace": t.addr.Workspace,
		})
	}
	fmt.Fprintf(s.Out, "# state:     %s\n# workspace: %s\n# region:    %s\n", t.addr, t.addr.Workspace, t.clients.Region)
	if t.found.File != "" {
		fmt.Fprintf(s.Out, "# from:      %s:%d\n", t.found.File, t.found.Line)
	}
	fmt.Fprint(s.Out, discover.Render(t.found.Settings))
	return nil
}
