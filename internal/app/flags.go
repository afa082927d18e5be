package app

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// env is the environment variable that sets a flag: --auto-approve is
// TFGUARD_AUTO_APPROVE.
func env(flag string) []string {
	return []string{"TFGUARD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func str(name, usage string, aliases ...string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Aliases: aliases, Usage: usage, EnvVars: env(name)}
}

func list(name, usage string) *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: name, Usage: usage + " (repeatable)", EnvVars: env(name), KeepSpace: true} // a variable's value is taken as it is
}

func yes(name, usage string, aliases ...string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Aliases: aliases, Usage: usage, EnvVars: env(name)}
}

func dur(name, usage string) *cli.DurationFlag {
	return &cli.DurationFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func num(name, usage string) *cli.IntFlag {
	return &cli.IntFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func onByDefault(name, usage string) *cli.BoolFlag {
	f := yes(name, usage)
	f.Value = true
	return f
}

func common() []cli.Flag {
	return []cli.Flag{
		str("chdir", "run as if started in `DIR`", "C"),
		str("workspace", "terraform workspace `NAME`"),
		list("backend-config", "backend setting `K=V`, or a file of them"),
		str("config", "read settings from `FILE` instead of .tfguard.hcl"),
		yes("sandbox", "use S3 and DynamoDB on loopback, no AWS account"),
		yes("json", "machine-readable output"),
		yes("no-color", "no colours"),
		yes("verbose", "say more", "v"),
		yes("quiet", "say errors and results alone", "q"),
	}
}

func terraformFlags() []cli.Flag {
	return []cli.Flag{
		str("terraform-bin", "terraform or tofu, as a `PATH` or a name in PATH"),
		str("terraform-version", "the terraform version to use, installed where it is missing"),
		list("var", "set an input variable, `NAME=VALUE`"),
		list("var-file", "read input variables from `FILE`"),
		list("target", "plan for `ADDRESS` and what it depends on alone"),
		list("replace", "plan to replace `ADDRESS`"),
		num("parallelism", "concurrent operations of terraform"),
		onByDefault("refresh", "--refresh=false plans from the state as it is"),
		dur("lock-timeout", "how long terraform itself tries to take the lock"),
		yes("upgrade", "let init upgrade providers and modules"),
	}
}

func guardFlags() []cli.Flag {
	return []cli.Flag{
		yes("auto-approve", "do not ask before applying"),
		dur("wait", "wait `DUR` for an active lock"),
		list("approve-lock", "remove the stale lock with this `ID`"),
		unlockStaleFlag(),
		list("protect", "refuse a plan that destroys or replaces an address that matches `GLOB`"),
		num("max-deletes", "refuse a plan that destroys or replaces more than `N` resources"),
		list("allow-delete", "let `ADDRESS` be destroyed whatever the guards say"),
	}
}

func unlockStaleFlag() cli.Flag {
	return str("unlock-stale", "remove stale locks: `WHEN` is never, approved or proven")
}

func setupFlag() cli.Flag {
	return yes("setup-backend", "create and repair bucket and table first")
}

// values reads a repeatable flag. From the environment it takes one value a line.
func values(c *cli.Context, name string) []string {
	v := c.StringSlice(name)
	if len(v) == 1 && v[0] != "" && v[0] == os.Getenv(env(name)[0]) {
		var lines []string
		for l := range strings.Lines(v[0]) {
			if l = strings.TrimRight(l, "\r\n"); strings.TrimSpace(l) != "" {
				lines = append(lines, l)
			}
		}
		return lines
	}
	return v
}

// reorder moves flags in front of arguments, and flags that stand before the
// command behind it, so that they are accepted anywhere: urfave/cli reads
// flags only up to the first argument.
func reorder(args []string, app *cli.App) ([]string, error) {
	takesValue := map[string]bool{}
	addFlags := func(flags []cli.Flag) {
		for _, f := range flags {
			d, ok := f.(cli.DocGenerationFlag)
			for _, n := range f.Names() {
				takesValue[n] = ok && d.TakesValue()
			}
		}
	}
	var walk func([]*cli.Command)
	walk = func(cs []*cli.Command) {
		for _, c := range cs {
			addFlags(c.Flags)
			walk(c.Subcommands)
		}
	}
	addFlags(app.Flags)
	walk(app.Commands)

	out, flags, rest := args[:1:1], []string{}, []string{}
	commands := app.Commands
	for i := 1; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(a) > 1 && a[0] == '-' {
			flags = append(flags, a)
			name := strings.TrimLeft(a, "-")
			if !strings.Contains(name, "=") && takesValue[name] {
				if i++; i == len(args) {
					return nil, fmt.Errorf("flag needs a value: %s", a)
				}
				flags = append(flags, args[i])
			}
			continue
		}
		if c := find(commands, a); c != nil && len(rest) == 0 {
			out, commands = append(out, a), c.Subcommands
			continue
		}
		rest = append(rest, a)
	}
	out = append(out, flags...)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out, nil
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}
