package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/config"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/sandbox/daemon"
)

// settings is what a command works with: flags over environment over file.
type settings struct {
	cli  *cli.Context
	file config.File
	dir  string // of the configuration, absolute
	// started is the directory that relative paths of flags count from.
	started string

	scratch *scratch // the state that a drill works on, instead of the real one

	// daemon and endpoint are the sandbox's, once the run has entered it.
	daemon   *daemon.Daemon
	endpoint daemon.Endpoint

	json, color, verbose, quiet, sandbox bool
}

// When stale locks are removed without asking.
const (
	unlockNever    = "never"
	unlockApproved = "approved"
	unlockProven   = "proven"
)

// otherDir is the hint where a directory cannot be what was meant.
const otherDir = "name the configuration's directory with -C DIR"

func newSettings(c *cli.Context, s Streams) (*settings, error) {
	dir, err := filepath.Abs(c.String("chdir"))
	if err != nil {
		return nil, usagef(c, "--chdir: %v", err)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--chdir %s: no such directory", dir), hint: otherDir}
	} else if !info.IsDir() {
		return nil, &usageError{msg: fmt.Sprintf("--chdir %s: not a directory", dir), hint: otherDir}
	}
	started, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	set := &settings{
		cli: c, dir: dir, started: started,
		json: c.Bool("json"), verbose: c.Bool("verbose"), quiet: c.Bool("quiet"), sandbox: c.Bool("sandbox"),
		color: s.Color && !c.Bool("no-color") && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
	path, found := c.String("config"), true
	if path == "" {
		if path, found, err = config.Find(dir); err != nil {
			return nil, err
		}
	}
	if found {
		if set.file, err = config.Load(path); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// or gives the flag where it was set, else the file's value, else otherwise.
func or[T any](set *settings, flag string, get func(*cli.Context, string) T, file *T, otherwise T) T {
	switch {
	case set.cli.IsSet(flag):
		return get(set.cli, flag)
	case file != nil:
		return *file
	}
	return otherwise
}

func asString(c *cli.Context, n string) string          { return c.String(n) }
func asInt(c *cli.Context, n string) int                { return c.Int(n) }
func asDuration(c *cli.Context, n string) time.Duration { return c.Duration(n) }

// strings gives the flag's values where any is set, else the file's.
func (set *settings) strings(flag string, file []string) []string {
	if set.cli.IsSet(flag) {
		return values(set.cli, flag)
	}
	return file
}

func (set *settings) policy() lock.Policy {
	p := lock.DefaultPolicy()
	if d := set.file.Locks.StaleAfter; d != nil {
		p.StaleAfter = *d
	}
	return p
}

func (set *settings) unlockStale() (string, error) {
	when := or(set, "unlock-stale", asString, set.file.Locks.UnlockStale, unlockApproved)
	if !slices.Contains([]string{unlockNever, unlockApproved, unlockProven}, when) {
		return "", usagef(set.cli, "--unlock-stale %q: it is never, approved or proven", when)
	}
	return when, nil
}

func (set *settings) guard() (pipeline.Guard, error) {
	g := pipeline.Guard{
		Protect: set.strings("protect", set.file.Guard.Protect),
		Allow:   set.strings("allow-delete", set.file.Guard.AllowDelete),
	}
	for _, glob := range g.Protect {
		if strings.TrimSpace(glob) == "" {
			return g, usagef(set.cli, "--protect: an empty glob protects nothing")
		}
	}
	if set.cli.IsSet("max-deletes") || set.file.Guard.MaxDeletes != nil {
		n := or(set, "max-deletes", asInt, set.file.Guard.MaxDeletes, 0)
		if n < 0 {
			return g, usagef(set.cli, "--max-deletes %d: it is 0 or more", n)
		}
		g.MaxDeletes = &n
	}
	return g, nil
}

// checkNumbers refuses what flags and the environment can say and nobody can
// mean; the file's numbers are checked where it is read.
func (set *settings) checkNumbers() error {
	for _, name := range []string{"wait", "lock-timeout"} {
		if d := set.cli.Duration(name); d < 0 {
			return usagef(set.cli, "--%s %s: it is 0 or more", name, d)
		}
	}
	if n := set.cli.Int("parallelism"); set.cli.IsSet("parallelism") && n < 1 {
		return usagef(set.cli, "--parallelism %d: it is 1 or more", n)
	}
	return nil
}

// checkOut refuses a --out that no file can be written to, before a plan is made.
func (set *settings) checkOut() error {
	out := set.outFile()
	if out == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
		return usagef(set.cli, "--out %s: there is no such directory", set.cli.String("out"))
	}
	if info, err := os.Stat(out); err == nil && !info.Mode().IsRegular() {
		return usagef(set.cli, "--out %s: there is something that is not a file", set.cli.String("out"))
	}
	return nil
}

func (set *settings) planMaxAge() time.Duration {
	if d := set.file.Terraform.PlanMaxAge; d != nil {
		return *d
	}
	return 24 * time.Hour
}
