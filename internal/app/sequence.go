package app

import (
	"context"

	"github.com/urfave/cli/v2"
)

func checkCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check format, initialise and validate",
		UsageText:   "tfguard check [flags]",
		Description: codes(ExitOK, ExitFailed, ExitUsage, ExitBackend, ExitCancelled),
		Flags:       append(common(), terraformFlags()...),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, nil, func(ctx context.Context, r *run) error {
				p, _, err := r.pipeline(ctx, "", "")
				if err != nil {
					return err
				}
				return p.RunCheck(ctx)
			})
		},
	}
}

func planCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "check → backend → lock-check → plan",
		UsageText:   "tfguard plan [flags]",
		Description: codes(ExitOK, ExitFailed, ExitChanges, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitBackend, ExitCancelled, ExitCancelUnclean),
		Flags: append(append(common(), terraformFlags()...),
			str("out", "keep the plan in `FILE`, bound to this state and configuration"),
			yes("destroy", "plan to destroy everything"),
			yes("detailed-exitcode", "exit 2 where there are changes"),
			onByDefault("lock", "--lock=false plans without taking the lock, for a role that may not write it"),
			setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, nil, func(ctx context.Context, r *run) error {
				p, t, err := r.pipeline(ctx, "", "plan")
				if err != nil {
					return err
				}
				out, err := p.RunPlan(ctx)
				if err != nil {
					return r.afterwards(ctx, t, err)
				}
				if out.Changed && c.Bool("detailed-exitcode") {
					return &codeError{code: ExitChanges}
				}
				return nil
			})
		},
	}
}

func applyCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "the whole sequence, or one saved plan",
		UsageText:   "tfguard apply [flags] [PLANFILE]",
		Description: sequenceCodes(),
		Flags:       append(append(append(common(), terraformFlags()...), guardFlags()...), setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usagef(c, "apply takes one plan file, not %d", c.NArg())
			}
			saved := c.Args().First()
			return reported(c, s, func(r *run) error { return r.canBeApproved(saved) },
				func(ctx context.Context, r *run) error { return r.apply(ctx, saved) })
		},
	}
}

func destroyCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "destroy", Usage: "the whole sequence with a plan that destroys everything",
		UsageText:   "tfguard destroy [flags]",
		Description: sequenceCodes(),
		Flags:       append(append(append(common(), terraformFlags()...), guardFlags()...), setupFlag(), noDetachFlag()),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return reported(c, s, func(r *run) error { return r.canBeApproved("") },
				func(ctx context.Context, r *run) error { return r.apply(ctx, "") })
		},
	}
}

func sequenceCodes() string {
	return codes(ExitOK, ExitFailed, ExitUsage, ExitActive, ExitStale, ExitUnclear, ExitChanged, ExitRefused, ExitBackend, ExitSnapshot, ExitCancelled, ExitCancelUnclean)
}

// canBeApproved fails before anything runs where nobody can say yes. A saved
// plan was approved when it was made, as in terraform.
func (r *run) canBeApproved(saved string) error {
	if saved != "" || r.set.cli.Bool("auto-approve") || r.streams.Terminal {
		return nil
	}
	hint := "tfguard " + r.command + " --auto-approve"
	return &unaskedError{&usageError{msg: r.command + " needs an answer and there is no terminal to ask on", hint: hint}}
}

// apply runs the whole sequence for apply and destroy.
func (r *run) apply(ctx context.Context, saved string) error {
	if err := r.set.noErrored(); err != nil {
		return err
	}
	p, t, err := r.pipeline(ctx, saved, r.command)
	if err != nil {
		return err
	}
	if _, err = p.RunApply(ctx); err == nil {
		p.States.(*states).prune(ctx)
	}
	return r.afterwards(ctx, t, err)
}
