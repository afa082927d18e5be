package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/pipeline"
	"github.com/tfguard/tfguard/internal/quote"
)

// person decides for whoever called: by flags, or asked on a terminal.
type person struct {
	streams     Streams
	sink        event.Sink
	auto        bool // --auto-approve
	unlockStale string
	approved    []string // --approve-lock
	what        string   // what is approved: "apply" or "destroy"
}

// ApprovePlan implements pipeline.Person.
func (p *person) ApprovePlan(ctx context.Context, plan event.Plan) error {
	if p.auto {
		return nil
	}
	p.sink.Emit(event.ApprovalNeeded{What: p.what})
	question := fmt.Sprintf("\nDo you want to %s this plan (%d to add, %d to change, %d to destroy)?\nOnly 'yes' will be accepted: ", p.what, plan.Add, plan.Change, plan.Destroy)
	answer, err := ask(ctx, p.streams, question)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return &codeError{code: ExitFailed, msg: p.what + " was not approved; nothing was changed"}
	}
	return nil
}

// ApproveUnlock implements pipeline.Person.
func (p *person) ApproveUnlock(ctx context.Context, v lock.Verdict) ([]string, string, error) {
	stale := v.Report().StaleIDs()
	if p.unlockStale == unlockNever {
		return nil, "", nil
	}
	if len(p.approved) > 0 {
		for _, id := range stale {
			if !slices.Contains(p.approved, id) {
				return nil, "", &pipeline.ApprovalChangedError{Verdict: v, Approved: p.approved}
			}
		}
		return stale, caller() + " by --approve-lock", nil
	}
	if p.unlockStale == unlockProven && !slices.ContainsFunc(v.Locks, func(e lock.Entry) bool {
		return e.Status != lock.Stale || e.Confidence != lock.Proven
	}) {
		return stale, caller() + " by --unlock-stale proven", nil
	}
	if !p.streams.Terminal {
		return nil, "", nil
	}
	answer, err := ask(ctx, p.streams, fmt.Sprintf("\nRemove the stale lock %s?\nOnly 'yes' will be accepted: ", strings.Join(stale, ", ")))
	if err != nil || answer != "yes" {
		return nil, "", err
	}
	return stale, caller() + " on a terminal", nil
}

// hangUp is how long the signal of a closed terminal is waited for.
const hangUp = 300 * time.Millisecond

// ask puts a question to the person at the terminal. A cancelled ctx ends it.
func ask(ctx context.Context, s Streams, question string) (string, error) {
	if !s.Terminal {
		return "", &usageError{msg: "nobody can be asked: stdin is no terminal"}
	}
	if s.Engine != nil {
		return s.Engine.Ask(ctx, question)
	}
	fmt.Fprint(s.Err, question)
	type line struct {
		text string
		err  error
	}
	// A read from a terminal cannot be interrupted: it ends with the process.
	got := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(io.LimitReader(s.In, 4096)).ReadString('\n')
		got <- line{text, err}
	}()
	select {
	case l := <-got:
		if l.err != nil && l.text == "" {
			// End of input: nobody said yes. A terminal that was closed ends it too, and
			// its signal, which cancels, comes at the same moment.
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(hangUp):
				return "", nil
			}
		}
		return strings.TrimSpace(l.text), nil
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return "", context.Cause(ctx)
	}
}

// caller names who runs tfguard, for the record of a removed lock: the actor
// of the CI run, or user@host.
func caller() string {
	for _, name := range []string{"GITHUB_ACTOR", "GITLAB_USER_LOGIN"} {
		if v := os.Getenv(name); v != "" {
			return quote.Line(v, 100)
		}
	}
	return quote.Line(who(), 200)
}
