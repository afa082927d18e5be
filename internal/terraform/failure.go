package terraform

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
	"github.com/tfguard/tfguard/internal/state"
)

// Failure is a command that ran and did not succeed. errors.Is tells what its
// diagnostics say about the lock and the state: [lock.ErrHeld],
// [lock.ErrNotReleased], [state.ErrChanged], [state.ErrNotSaved]; several may be
// true of one apply. It is [context.Canceled] where it was interrupted.
type Failure struct {
	Command     string             // such as "terraform plan"
	ExitCode    int                // -1: ended by a signal, or never started
	Diagnostics []event.Diagnostic // errors first; bounded
	Interrupted bool               // a cancel was passed on to it
	Killed      bool               // a signal ended it, and not the interrupt, which does so before it has begun
	Stderr      string             // its last 64 KiB, raw

	cause string
	marks mark
	own   string
}

// OwnLock is the ID of the lock that stood in the way where it is this very
// command's: a write of the lock whose answer was lost is tried again, and
// refused by the lock that it left. Empty otherwise. The process has ended.
func (f *Failure) OwnLock() string { return f.own }

// Changes reports whether the command changes resources.
func (f *Failure) Changes() bool { return strings.HasSuffix(f.Command, " apply") }

// OnlyNotReleased reports whether the command did all of its work but for the
// release of its lock.
func (f *Failure) OnlyNotReleased() bool { return f.only(markNotReleased) }

// OnlyNotSaved reports whether the command did all of its work but for writing
// the state, and perhaps releasing its lock.
func (f *Failure) OnlyNotSaved() bool { return f.only(markNotSaved | markNotReleased) }

// only reports whether every error has one of the marks, and there is one.
func (f *Failure) only(marks mark) bool {
	errors := 0
	for _, d := range f.Diagnostics {
		if d.Severity == "error" {
			if m := marksOf(d); m == 0 || m&^marks != 0 {
				return false
			}
			errors++
		}
	}
	return errors > 0 && f.ExitCode >= 0
}

// own completes a failure with the lock ID that the command asked for.
func own(err error, id string) error {
	var f *Failure
	if id != "" && errors.As(err, &f) && errors.Is(err, lock.ErrHeld) {
		if info, ok := f.LockInfo(); ok && info.ID == id {
			f.own = id
		}
	}
	return err
}

// Error is one line: the command and its first error's summary.
func (f *Failure) Error() string {
	why := f.why()
	if f.Interrupted {
		why = "interrupted: " + why
	}
	return f.Command + ": " + quote.Line(why, maxSummary)
}

func (f *Failure) why() string {
	for _, d := range f.Diagnostics {
		if d.Severity == "error" {
			return d.Summary
		}
	}
	if f.ExitCode >= 0 {
		for line := range strings.Lines(ansi.ReplaceAllString(f.Stderr, "")) {
			if line = strings.TrimSpace(line); line != "" {
				return line
			}
		}
	}
	return f.cause
}

// Is implements errors.Is.
func (f *Failure) Is(target error) bool {
	switch target {
	case lock.ErrHeld:
		return f.marks&markHeld != 0
	case lock.ErrNotReleased:
		return f.marks&markNotReleased != 0
	case state.ErrChanged:
		return f.marks&markStale != 0
	case state.ErrNotSaved:
		return f.marks&markNotSaved != 0
	case context.Canceled:
		return f.Interrupted
	}
	return false
}

// LockInfo reads the lock that stood in the way from terraform's message. What
// is in it was written by whoever took the lock: a text that is not exactly
// terraform's is not read.
func (f *Failure) LockInfo() (lock.Info, bool) {
	for _, d := range f.Diagnostics {
		if marksOf(d) == markHeld {
			return parseLockInfo(d.Detail)
		}
	}
	return lock.Info{}, false
}

// parseLockInfo reads terraform's template
// (terraform internal/states/statemgr/locker.go, LockInfo.String).
func parseLockInfo(detail string) (lock.Info, bool) {
	_, text, ok := strings.Cut(detail, lockInfo+"\n")
	if !ok {
		return lock.Info{}, false
	}
	rows := strings.SplitN(text, "\n", 8)
	var info lock.Info
	var created string
	for i, f := range []struct {
		name string
		into *string
	}{
		{"ID", &info.ID}, {"Path", &info.Path}, {"Operation", &info.Operation},
		{"Who", &info.Who}, {"Version", &info.Version}, {"Created", &created},
	} {
		if i >= len(rows) {
			return lock.Info{}, false
		}
		value, ok := strings.CutPrefix(strings.TrimLeft(rows[i], " "), f.name+":")
		if !ok {
			return lock.Info{}, false
		}
		*f.into = quote.Line(strings.TrimSpace(value), maxAddress)
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", created)
	if err != nil || !lock.UsableID(info.ID) {
		return lock.Info{}, false
	}
	info.Created = at.UTC()
	return info, true
}
