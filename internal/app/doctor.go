package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/backend/setup"
	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/engine"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/terraform"
)

func doctorCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "find everything that could fail, before it does", UsageText: "tfguard doctor [flags]",
		Description: "Looks at the configuration, terraform, the credentials, bucket, table, locks and the CI system.\n" +
			"It changes nothing; --probe writes something of its own and removes it.\n\n" + codes(ExitOK, ExitFailed, ExitUsage),
		Flags: append(common(),
			str("terraform-bin", "terraform or tofu, as a `PATH` or a name in PATH"),
			str("terraform-version", "the terraform version to use, installed where it is missing"),
			probeFlag(),
			yes("iam-policy", "print the least policy that a role needs for this state")),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			set, err := newSettings(c, s)
			if err != nil {
				return err
			}
			if c.Bool("iam-policy") {
				return printPolicy(c.Context, s, set)
			}
			return examine(c.Context, s, set)
		},
	}
}

func printPolicy(ctx context.Context, s Streams, set *settings) error {
	t, err := set.target(ctx)
	if err != nil {
		return err
	}
	key := t.found.Settings.KMSKeyID
	if key != "" && !strings.HasPrefix(key, "arn:") {
		key = "*" // an alias or a bare ID does not name the account
	}
	account, err := t.clients.AccountID(ctx)
	if err != nil {
		account = "" // the policy holds without it
	}
	copies := ""
	if other := set.file.Snapshots.Bucket; other != nil {
		copies = *other
	}
	b, err := json.MarshalIndent(t.addr.LeastPolicy(t.clients.Region, account, key, copies), "", "  ")
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	_, err = fmt.Fprintln(s.Out, quote.Runner(string(b)))
	return err
}

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warning or error
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// doctor looks at one thing after the other; what does not depend on a failed
// one is looked at all the same.
type doctor struct {
	ctx      context.Context
	set      *settings
	findings []finding
}

// ok, warning and error.
const (
	fine    = "ok"
	warning = "warning"
	failure = "error"
)

func (d *doctor) say(status, check, hint, format string, args ...any) {
	d.findings = append(d.findings, finding{check, status, quote.Line(fmt.Sprintf(format, args...), 1000), hint})
}

// fail says an error with its own hint.
func (d *doctor) fail(check string, err error) {
	t := tell(d.ctx, err)
	d.say(failure, check, t.hint, "%s", t.msg)
}

func examine(ctx context.Context, s Streams, set *settings) error {
	d := &doctor{ctx: ctx, set: set}
	if err := terraform.ForbiddenEnv(os.Environ()); err != nil {
		d.say(failure, "environment", "unset it, or use tfguard's own flags", "%v", err)
	}
	d.folder()
	t, err := set.target(ctx)
	if err != nil {
		d.fail("configuration", err)
	} else {
		d.say(fine, "configuration", "", "state %s, workspace %s", t.addr, t.addr.Workspace)
		for _, w := range t.found.Warnings {
			d.say(warning, "configuration", "", "%s", w)
		}
	}
	d.terraform(t)
	if t != nil {
		d.aws(t)
	}
	d.ci(t)
	return d.report(s)
}

// folder looks at what is kept beside the configuration.
func (d *doctor) folder() {
	if err := engine.MakeFolder(d.set.dir); err != nil {
		d.say(failure, "folder", "make it writable", "%v", err)
		return
	}
	switch info, err := os.Stat(filepath.Join(d.set.dir, erroredState)); {
	case err == nil:
		d.say(failure, "state", "tfguard state verify", "%s of %s has a state that could not be written", erroredState, info.ModTime().Format(time.DateTime))
	case !errors.Is(err, fs.ErrNotExist):
		d.say(warning, "state", "", "%v", err)
	}
	runs, err := engine.Runs(d.set.dir)
	if err != nil {
		d.say(warning, "folder", "", "%v", err)
	}
	for _, r := range runs {
		if r.GoesOn() {
			d.say(warning, "runs", "tfguard settle --run "+r.ID, "run %s goes on in the background", r.ID)
		}
	}
}

func (d *doctor) terraform(t *target) {
	f := d.set.file.Terraform
	bin, err := terraform.Find(d.ctx, terraform.Search{
		Bin: or(d.set, "terraform-bin", asString, f.Bin, ""), Version: or(d.set, "terraform-version", asString, f.Version, ""), CacheDir: cacheDir()})
	if err != nil {
		d.fail("terraform", err)
		return
	}
	number, err := terraform.New(bin, terraform.Options{Dir: d.set.dir, DataDir: d.set.dataDir()}, &fanOut{}).Version(d.ctx)
	if err != nil {
		d.fail("terraform", err)
		return
	}
	d.say(fine, "terraform", "", "%s %s at %s", bin.Product, number, bin.Path)
	v, err := version.NewVersion(number)
	if err == nil && t != nil && t.addr.Lockfile && v.LessThan(version.Must(version.NewVersion("1.10.0-alpha"))) {
		d.say(failure, "terraform", "use terraform 1.10 or later, or dynamodb_table", "%s %s knows no use_lockfile", bin.Product, number)
	}
}

// aws looks at credentials, bucket, table, locks and snapshots.
func (d *doctor) aws(t *target) {
	if account, err := t.clients.AccountID(d.ctx); err != nil {
		d.fail("credentials", err)
	} else {
		d.say(fine, "credentials", "", "account %s, region %s", account, t.clients.Region)
	}
	report, err := t.backend().Verify(d.ctx)
	if err != nil {
		d.fail("backend", err)
		return
	}
	if d.set.cli.Bool("probe") {
		var probed setup.Report
		if probed, err = t.backend().Probe(d.ctx); err != nil {
			d.fail("backend", err)
		}
		report.Findings = append(report.Findings, probed.Findings...)
	}
	if err == nil && len(report.Findings) == 0 {
		d.say(fine, "backend", "", "bucket and locks are as they should be")
	}
	for _, f := range report.Findings {
		status := failure
		if f.Severity == setup.Warning {
			status = warning
		}
		d.say(status, "backend", f.Fix, "%s", f)
	}
	if !t.addr.Locked() {
		d.say(failure, "locks", "set use_lockfile = true in the backend block", "terraform takes no lock on this state")
	}
	switch v, err := t.Observe(d.ctx); {
	case err != nil:
		d.fail("locks", err)
	case v.Status == lock.None:
		d.say(fine, "locks", "", "no lock")
	default:
		d.say(warning, "locks", "tfguard locks", "%s lock", v.Status)
	}
	switch h, err := t.snapshots(d.set, snapshot.Options{}).Head(d.ctx); {
	case err != nil:
		d.fail("state", err)
	default:
		d.say(fine, "state", "", "%s", h)
	}
	if match, err := t.digestMatches(d.ctx); err != nil {
		d.fail("digest", err)
	} else if !match {
		d.say(failure, "digest", "tfguard state repair", "the digest of %s does not match its state", t.addr)
	}
}

func (d *doctor) ci(t *target) {
	system := ci.Detect(os.Getenv)
	if system == nil {
		return
	}
	d.say(fine, "ci", "", "%s run %s of %s", system.System, quote.Line(system.ID, 50), quote.Line(system.Repository, 200))
	if t != nil && t.runs == nil {
		d.say(warning, "ci", "set GITHUB_TOKEN with actions: read", "nobody can be asked whether another run still goes on: locks are judged by their age")
	}
}

func (d *doctor) report(s Streams) error {
	failed := 0
	for _, f := range d.findings {
		if f.Status == failure {
			failed++
		}
	}
	if d.set.json {
		if err := printJSON(s.Out, map[string]any{"version": 1, "findings": d.findings}); err != nil {
			return err
		}
	} else {
		for _, f := range d.findings {
			mark := map[string]string{fine: "✓", warning: "!", failure: "✗"}[f.Status]
			if f.Status == fine && d.set.quiet {
				continue
			}
			fmt.Fprintf(s.Out, "%s %-13s %s\n", mark, f.Check, f.Detail)
			if f.Hint != "" {
				fmt.Fprintf(s.Out, "  %-13s → %s\n", "", f.Hint)
			}
		}
	}
	if failed > 0 {
		return &codeError{code: ExitFailed, msg: fmt.Sprintf("%d of %d checks failed", failed, len(d.findings))}
	}
	return nil
}
