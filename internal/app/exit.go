package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/config"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/planfile"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/terraform"
)

// Exit codes of the program, and their one table.
const (
	ExitOK            = 0
	ExitFailed        = 1
	ExitChanges       = 2
	ExitUsage         = 3
	ExitActive        = 10
	ExitStale         = 11
	ExitUnclear       = 12
	ExitChanged       = 13
	ExitRefused       = 14
	ExitBackend       = 15
	ExitSnapshot      = 16
	ExitCancelled     = 130
	ExitCancelUnclean = 131
)

var exitMeaning = map[int]string{
	ExitOK:            "done",
	ExitFailed:        "failed: terraform, AWS, the network; the message says which and what to do",
	ExitChanges:       "plan --detailed-exitcode: there are changes",
	ExitUsage:         "wrong usage, or an error in tfguard's own configuration; nothing was touched",
	ExitActive:        "an active lock: blocked",
	ExitStale:         "a stale lock waits for approval",
	ExitUnclear:       "a lock that cannot be judged: blocked",
	ExitChanged:       "what was approved or planned has changed since",
	ExitRefused:       "refused by a guard: protected resource, deletion budget",
	ExitBackend:       "the backend is missing or not usable",
	ExitSnapshot:      "a snapshot could not be made or verified; nothing was applied or restored",
	ExitCancelled:     "cancelled, and clean: no lock left, state saved",
	ExitCancelUnclean: "cancelled, not clean: the message says what is left and how to mend it",
}

// codes is the part of a help text that lists the command's exit codes.
func codes(list ...int) string {
	var b strings.Builder
	b.WriteString("Exit codes:")
	for _, c := range list {
		fmt.Fprintf(&b, "\n  %3d  %s", c, exitMeaning[c])
	}
	return b.String()
}

// SignalError is the cause of a run that a signal cancelled.
type SignalError struct{ Signal os.Signal }

func (e *SignalError) Error() string { return "cancelled by " + e.Signal.String() }

// Is lets the cause count as a cancelled context.
func (e *SignalError) Is(target error) bool { return target == context.Canceled }

// ParentError is the cause of a run whose parent process died: a shell that was
// killed passes no signal on.
type ParentError struct{ PID int }

func (e *ParentError) Error() string {
	return fmt.Sprintf("cancelled: the parent process %d is gone", e.PID)
}

// Is lets the cause count as a cancelled context.
func (e *ParentError) Is(target error) bool { return target == context.Canceled }

// usageError is a wrong call, with the hint to it.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

// unaskedError is a run that needs an answer, called where nobody can be asked.
type unaskedError struct{ *usageError }

func (e *unaskedError) Unwrap() error { return e.usageError }

// usagef is a wrong call of c's command, with its help as the hint.
func usagef(c *cli.Context, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), hint: helpFor(c)}
}

// keptError is a snapshot that could not be made, verified or restored.
type keptError struct{ error }

func (e *keptError) Unwrap() error { return e.error }

// codeError is an outcome that is no failure and has its own code.
type codeError struct {
	code int
	msg  string // may be empty: then all was said
	hint string
}

func (e *codeError) Error() string { return e.msg }

// uncleanError is a cancelled run that left something.
type uncleanError struct {
	err  error
	left []string
}

func (e *uncleanError) Error() string {
	return fmt.Sprintf("%v, not clean: %s", e.err, strings.Join(e.left, "; "))
}
func (e *uncleanError) Unwrap() error { return e.err }

// verdictCode is the code of a lock that blocks.
func verdictCode(s lock.Status) int {
	switch s {
	case lock.Active:
		return ExitActive
	case lock.Stale:
		return ExitStale
	case lock.Unclear:
		return ExitUnclear
	}
	return ExitOK
}

// told is an error in words for a person: what happened, what to type next,
// and the code the program ends with.
type told struct {
	code      int
	msg, hint string
}

// tell turns an error into words, hint and exit code: the only place that does.
func tell(ctx context.Context, err error) told {
	t := told{code: ExitFailed, msg: quote.Line(err.Error(), 2000)}
	var (
		usage     *usageError
		code      *codeError
		conf      *config.Error
		unclean   *uncleanError
		blocked   *pipeline.BlockedError
		changed   *pipeline.ApprovalChangedError
		refused   *pipeline.RefusedError
		stage     *pipeline.StageError
		problem   *backend.Problem
		notS3     *discover.NotS3Error
		missing   *backend.IncompleteError
		unformat  *terraform.UnformattedError
		tfFailure *terraform.Failure
		kept      *keptError
		twice     *discover.DuplicateError
		foreign   *discover.ForeignFileError
	)
	switch {
	case errors.As(err, &usage):
		t.code, t.hint = ExitUsage, usage.hint
	case errors.As(err, &code):
		t.code, t.hint = code.code, code.hint
	case errors.As(err, &conf):
		t.code = ExitUsage
	case errors.As(err, &unclean):
		t.code, t.hint = ExitCancelUnclean, "tfguard locks"
	case errors.As(err, &blocked):
		t.code, t.msg = verdictCode(blocked.Verdict.Status), quote.Line(blocked.Error(), 2000)
		t.hint = lockHint(blocked.Verdict)
	case errors.Is(err, holder.ErrLost), errors.Is(context.Cause(ctx), holder.ErrLost):
		t.code, t.msg, t.hint = ExitActive, holder.ErrLost.Error()+"; this run stopped", "tfguard locks"
	case errors.As(err, &changed):
		t.code, t.msg, t.hint = ExitChanged, quote.Line(changed.Error(), 2000), "tfguard locks"
	case errors.As(err, &refused):
		t.code = ExitRefused
		t.hint = "check the plan; --allow-delete ADDRESS lets one resource go, --max-deletes N raises the budget"
	case errors.Is(err, state.ErrChanged):
		t.code, t.hint = ExitChanged, "plan again: tfguard plan"
	case isUnusable(err):
		t.code, t.hint = ExitBackend, unusableHint(err)
	case errors.As(err, &stage) && stage.Stage == pipeline.Snapshot && ctx.Err() == nil, errors.As(err, &kept):
		t.code = ExitSnapshot
		t.hint = problemHint(err, "tfguard snapshot list")
	case ctx.Err() != nil && !errors.As(err, &problem):
		t.code, t.msg = ExitCancelled, quote.Line(context.Cause(ctx).Error(), 200)+", and clean: no lock left"
	case ctx.Err() != nil:
		t.code, t.msg = ExitCancelled, quote.Line(context.Cause(ctx).Error(), 200)
	case errors.Is(err, state.ErrNotSaved):
		t.hint = "keep errored.tfstate: it has what terraform did; tfguard state repair brings it back"
	case errors.As(err, &problem):
		t.hint = problemHint(err, "")
	case errors.Is(err, snapshot.ErrNotFound):
		t.hint = "tfguard snapshot list"
	case errors.Is(err, state.ErrNotState):
		t.hint = stateHint
	case errors.Is(err, discover.ErrNoConfiguration):
		t.hint = otherDir
	case errors.As(err, &twice):
		t.hint = "remove one of the two backend blocks"
	case errors.As(err, &foreign):
		t.hint = "rename or remove " + quote.Shell(foreign.Path)
	case errors.Is(err, terraform.ErrNoBinary):
		t.hint = "install terraform, or name one with --terraform-bin PATH"
	case errors.Is(err, discover.ErrNoBackend), errors.As(err, &notS3):
		t.hint = `put backend "s3" {} into a terraform block, or a backend block into .tfguard.hcl`
	case errors.As(err, &missing):
		t.hint = "set it in the backend block, or with --backend-config " + missing.Missing[0] + "=…"
	case errors.Is(err, planfile.ErrNotPlan), errors.Is(err, planfile.ErrUnbound):
		t.code, t.hint = ExitUsage, "make the plan with: tfguard plan --out FILE"
	case errors.Is(err, planfile.ErrNoFile):
		t.hint = "make the plan with: tfguard plan --out FILE"
	case errors.As(err, &unformat):
		t.hint = "terraform fmt"
	case errors.Is(err, snapshot.ErrNotFound):
		t.hint = "tfguard snapshot list"
	case errors.Is(err, lock.ErrNotReleased):
		t.hint = "tfguard locks"
	case errors.As(err, &tfFailure):
		t.hint = failureHint(tfFailure)
	}
	return t
}

func isUnusable(err error) bool {
	for _, k := range []backend.Kind{backend.Missing, backend.Foreign, backend.WrongRegion, backend.Unusable} {
		if backend.Is(err, k) {
			return true
		}
	}
	return false
}

// stateHint is for a state that cannot be read as one.
const stateHint = "look at the object; tfguard snapshot list shows older copies, tfguard snapshot restore ID puts one back"

func unusableHint(err error) string {
	var p *backend.Problem
	errors.As(err, &p)
	switch p.Kind {
	case backend.Missing:
		return "tfguard backend setup creates it; check its name first: a mistyped bucket would give an empty state"
	case backend.WrongRegion:
		return fmt.Sprintf("set region = %q in the backend block, then tfguard backend verify", p.Detail)
	case backend.Foreign:
		return "check the bucket's name and whose credentials these are: aws sts get-caller-identity"
	}
	return "correct the backend's settings, then tfguard backend verify"
}

// problemHint names what to do about a failed request to AWS.
func problemHint(err error, otherwise string) string {
	var p *backend.Problem
	if !errors.As(err, &p) {
		return otherwise
	}
	switch p.Kind {
	case backend.Denied:
		return fmt.Sprintf("allow %s on %s to the role of this run", p.Action, p.Resource)
	case backend.Expired:
		if strings.Contains(p.Detail, "RequestTimeTooSkewed") {
			return "set this machine's clock"
		}
		return "renew the credentials; aws sts get-caller-identity shows whose they are"
	case backend.NoCreds:
		return "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or try without an account: --sandbox"
	case backend.Unreachable, backend.NotFound: // of S3, a 404 that is none of its own
		return "check the network and the endpoint, then run the same command again"
	}
	return otherwise
}

func lockHint(v lock.Verdict) string {
	switch v.Status {
	case lock.Active:
		return "wait for it with --wait 10m, or look again: tfguard locks"
	case lock.Stale:
		return "tfguard unlock --id " + strings.Join(v.Report().StaleIDs(), " --id ")
	}
	if v.Status != lock.Unclear {
		return ""
	}
	var names []string // all of them have to be named
	for _, l := range v.Locks {
		if !slices.Contains(names, l.Name()) {
			names = append(names, l.Name())
		}
	}
	return "look at it: tfguard locks; if nothing runs: tfguard unlock --force --id " + strings.Join(names, " --id ")
}

// failureHint names what to do about what terraform says. Its words are those
// of terraform internal/backend/remote-state/s3 and internal/states/statefile.
func failureHint(f *terraform.Failure) string {
	switch {
	case strings.HasSuffix(f.Command, "workspace select") && strings.Contains(f.Error(), "doesn't exist"):
		return "check its name; --setup-backend makes it, as terraform workspace new does"
	case strings.HasSuffix(f.Command, " version"), strings.Contains(f.Error(), "fork/exec "):
		return "name a terraform that works with --terraform-bin PATH"
	case f.ExitCode < 0 && !f.Interrupted && (strings.HasSuffix(f.Command, " plan") || strings.HasSuffix(f.Command, " apply")):
		return "tfguard locks shows whether it left its lock"
	}
	for _, d := range f.Diagnostics {
		said := d.Summary + "\n" + d.Detail
		action, resource, denied := awsclient.DeniedIn(said)
		switch {
		case denied:
			return fmt.Sprintf("allow %s on %s to the role of this run", action, resource)
		case strings.Contains(said, "state data in S3 does not have the expected content"):
			return "wait two minutes and try again; if it stays: tfguard state repair"
		case strings.Contains(said, "Unsupported state file format"):
			return stateHint
		case strings.Contains(d.Summary, "Backend configuration changed"), strings.Contains(d.Summary, "Backend initialization required"):
			return "terraform init -reconfigure takes the new backend, terraform init -migrate-state moves the state to it"
		}
	}
	return ""
}
