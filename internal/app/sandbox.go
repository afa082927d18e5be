package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/sandbox/daemon"
)

func sandboxCommand(s Streams) *cli.Command {
	flags := []cli.Flag{str("chdir", "the configuration's `DIR`, whose sandbox it is", "C")}
	sub := func(name, usage string, action func(context.Context, *daemon.Daemon, *settings) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, UsageText: "tfguard sandbox " + name + " [-C DIR]", Flags: flags, Description: codes(ExitOK, ExitFailed, ExitUsage),
			Action: func(c *cli.Context) error {
				if err := noArgs(c); err != nil {
					return err
				}
				set, err := newSettings(c, s)
				if err != nil {
					return err
				}
				d, err := set.sandboxDaemon()
				if err != nil {
					return err
				}
				return action(c.Context, d, set)
			}}
	}
	up := sub("up", "start it, or find the one that runs", func(ctx context.Context, d *daemon.Daemon, set *settings) error {
		if err := engine.MakeFolder(set.dir); err != nil {
			return err
		}
		e, err := d.Start(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "sandbox at %s, kept in %s\n", e.URL, d.Dir)
		return nil
	})
	down := sub("down", "stop it; what it holds is kept", func(ctx context.Context, d *daemon.Daemon, _ *settings) error {
		err := d.Stop(ctx)
		if errors.Is(err, daemon.ErrNotRunning) {
			fmt.Fprintln(s.Out, "the sandbox was not running")
			return nil
		}
		if err == nil {
			fmt.Fprintln(s.Out, "the sandbox has stopped")
		}
		return err
	})
	reset := sub("reset", "empty it: every bucket, object, table and item", func(ctx context.Context, d *daemon.Daemon, _ *settings) error {
		if err := d.Reset(ctx); err != nil {
			return err
		}
		fmt.Fprintln(s.Out, "the sandbox is empty")
		return nil
	})
	show := sub("env", "print the environment that points terraform and the AWS tools at it", func(ctx context.Context, d *daemon.Daemon, _ *settings) error {
		e, err := d.Find(ctx)
		if err != nil {
			return &codeError{code: ExitFailed, msg: err.Error(), hint: "tfguard sandbox up"}
		}
		env := d.Env(e, false)
		for _, k := range slices.Sorted(maps.Keys(env)) {
			if env[k] == "" {
				fmt.Fprintf(s.Out, "unset %s\n", k)
			} else {
				fmt.Fprintf(s.Out, "export %s=%s\n", k, quote.Shell(env[k]))
			}
		}
		return nil
	})
	serve := sub("serve", "run it in this process", func(ctx context.Context, d *daemon.Daemon, _ *settings) error { return d.Serve(ctx) })
	serve.Hidden = true
	return &cli.Command{
		Name: "sandbox", Usage: "S3 and DynamoDB on loopback, no AWS account",
		Description: "The sandbox belongs to a configuration: its data is in .tfguard/sandbox beside it.\n" +
			`eval "$(tfguard sandbox env)" lets terraform and the AWS tools use it too;` + "\n" +
			`terraform init then needs -backend-config=use_path_style=true.`,
		Subcommands: []*cli.Command{up, down, reset, show, serve},
	}
}

func (set *settings) sandboxDaemon() (*daemon.Daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find tfguard itself: %w", err)
	}
	return daemon.New(filepath.Join(set.dir, engine.Folder, "sandbox"), self, "sandbox", "serve", "--chdir", set.dir), nil
}

// enterSandbox points this process and those it starts at the sandbox.
func (set *settings) enterSandbox(ctx context.Context) error {
	if err := engine.MakeFolder(set.dir); err != nil {
		return err
	}
	d, err := set.sandboxDaemon()
	if err != nil {
		return err
	}
	e, err := d.Start(ctx)
	if err != nil {
		return err
	}
	set.daemon, set.endpoint = d, e
	return set.setSandboxEnv(false)
}

// setSandboxEnv sets the environment of this process and those it starts.
func (set *settings) setSandboxEnv(legacy bool) (err error) {
	for k, v := range set.daemon.Env(set.endpoint, legacy) {
		if k == "TF_DATA_DIR" && set.scratch != nil {
			v = set.scratch.dataDir
		}
		if v == "" {
			err = os.Unsetenv(k)
		} else {
			err = os.Setenv(k, v)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	return nil
}

// clientSettings are the backend's settings for tfguard's own requests.
func (set *settings) clientSettings(s backend.Settings) backend.Settings {
	if !set.sandbox {
		return s
	}
	s.Attrs = maps.Clone(s.Attrs)
	for _, name := range daemon.Overrides() {
		delete(s.Attrs, name)
	}
	return s
}

// terraformBackendConfig are the -backend-config values for terraform's init.
// With the sandbox they end in a file, which fitSandbox writes before init.
func (set *settings) terraformBackendConfig() []string {
	config := set.backendConfig()
	if set.sandbox {
		config = append(config, set.sandboxFile())
	}
	return config
}

func (set *settings) sandboxFile() string { return filepath.Join(set.daemon.Dir, "backend.tfbackend") }

// fitSandbox writes backend settings and environment for this version of
// terraform: what would lead away from the sandbox is unset.
func (set *settings) fitSandbox(found backend.Settings, terraformVersion string) error {
	v, err := version.NewVersion(terraformVersion)
	if err != nil {
		return fmt.Errorf("terraform's version: %w", err)
	}
	legacy := v.LessThan(version.Must(version.NewVersion("1.6.0-alpha")))
	if err := set.setSandboxEnv(legacy); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s = true\n", daemon.PathStyle(legacy))
	for _, name := range daemon.Overrides() {
		if _, ok := found.Attrs[name]; ok && name != daemon.PathStyle(legacy) {
			fmt.Fprintf(&b, "%s = null\n", name)
		}
	}
	if err := os.WriteFile(set.sandboxFile(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the sandbox's backend settings: %w", err)
	}
	return nil
}
