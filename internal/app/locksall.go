package app

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/awsclient"
	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/ci"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/lock/dynamolock"
	"github.com/tfguard/tfguard/internal/lock/holder"
	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/ui"
)

// lockedState is what was found of one state. It is kept as small as it can be
// and judged when it is printed: there may be many.
type lockedState struct {
	name   string
	seen   []lock.Observation
	held   *lock.HolderSeen
	runs   []lock.RunSeen
	why    string // runs are not known
	status lock.Status
}

// judge gives the verdict; the same whenever it is asked.
func (l *lockedState) judge(p lock.Policy, now time.Time) lock.Verdict {
	return lock.Classify(l.name, l.seen, lock.Evidence{Holder: l.held, Runs: l.runs, Unasked: l.why}, p, now)
}

// locksAll judges every lock of the table and the bucket, and prints the states
// that have one, the worst first.
func locksAll(ctx context.Context, set *settings, t *target, s Streams) error {
	all, err := t.everyLock(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	worst := lock.None
	locked := make([]*lockedState, 0, len(all))
	for _, l := range all {
		if l.status = l.judge(t.policy, now).Status; l.status == lock.None {
			continue // a holder record that has run out
		}
		if l.status.Worse(worst) {
			worst = l.status
		}
		locked = append(locked, l)
	}
	slices.SortFunc(locked, func(a, b *lockedState) int {
		switch {
		case a.status.Worse(b.status):
			return -1
		case b.status.Worse(a.status):
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	out := bufio.NewWriter(s.Out)
	if set.json {
		err = printAllJSON(out, worst, locked, t.policy, now)
	} else {
		err = printAll(out, t, locked, now, set.color)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("print the locks: %w", err)
	}
	code := locksCode(worst, set.cli.Bool("strict"))
	tellCIAll(s, t, worst, locked, now, code)
	if code != ExitOK {
		return &codeError{code: code}
	}
	return nil
}

// everyLock reads table and bucket at the same time. What it knows of CI runs is
// by the records that name them: which runs of this repository could have taken
// a lock says nothing of a state that another one may manage, so that rule 4 is
// for this state alone.
func (t *target) everyLock(ctx context.Context) (map[string]*lockedState, error) {
	var mu sync.Mutex
	all := map[string]*lockedState{}
	at := func(name string) *lockedState {
		if all[name] == nil {
			all[name] = &lockedState{name: name}
		}
		return all[name]
	}
	lockOf := func(name string, o lock.Observation) error {
		mu.Lock()
		defer mu.Unlock()
		l := at(name)
		l.seen = append(l.seen, o)
		return nil
	}
	inBucket := func(key string) string { return backend.Address{Bucket: t.addr.Bucket, Key: key}.String() }
	g, reading := errgroup.WithContext(ctx)
	if t.addr.Table != "" {
		g.Go(func() error { return dynamolock.List(reading, t.clients.DynamoDB, t.addr.Table, lockOf) })
	}
	g.Go(func() error {
		return s3lock.List(reading, t.clients.S3, t.addr.Bucket, t.found.Settings, func(key string, o lock.Observation) error {
			return lockOf(inBucket(key), o)
		})
	})
	g.Go(func() error {
		err := holder.List(reading, t.clients.S3, t.addr.Bucket, awsclient.ObjectOf(t.found.Settings), func(key string, seen lock.HolderSeen) error {
			mu.Lock()
			defer mu.Unlock()
			at(inBucket(key)).held = &seen
			return nil
		})
		if backend.Is(err, backend.Denied) {
			err = nil // a role that may not read them judges without
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	// Both stores of one state in the order of a single verdict.
	for _, l := range all {
		slices.SortFunc(l.seen, func(a, b lock.Observation) int { return -cmp.Compare(a.Store, b.Store) })
	}
	return all, t.askRuns(ctx, all)
}

// askRuns completes what is known of the holders.
func (t *target) askRuns(ctx context.Context, all map[string]*lockedState) error {
	var asking errgroup.Group
	asking.SetLimit(8)
	for _, l := range all {
		if l.held != nil {
			asking.Go(func() error {
				t.learn(ctx, l.held)
				return nil
			})
		}
	}
	_ = asking.Wait() // what is not known is no error, the verdict says it
	if l := all[t.addr.String()]; l != nil && t.runs != nil {
		l.runs, l.why = t.runsAround(ctx, l.judge(t.policy, time.Now()))
	}
	return ctx.Err()
}

// stateReport is one state of `locks --all --json`.
type stateReport struct {
	State  string             `json:"state"`
	Status lock.Status        `json:"status"`
	Locks  []lock.ReportEntry `json:"locks"`
}

// printAllJSON prints one document, state by state.
func printAllJSON(out io.Writer, worst lock.Status, locked []*lockedState, p lock.Policy, now time.Time) error {
	if _, err := fmt.Fprintf(out, `{"version":1,"status":%q,"states":[`, worst); err != nil {
		return err
	}
	for i, l := range locked {
		r := l.judge(p, now).Report()
		b, err := json.Marshal(stateReport{r.State, r.Status, r.Locks})
		if err != nil {
			return err
		}
		if i > 0 {
			b = append([]byte(","), b...)
		}
		if _, err := out.Write(event.SafeJSON(b)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(out, "]}\n")
	return err
}

func printAll(out io.Writer, t *target, locked []*lockedState, now time.Time, color bool) error {
	count := map[lock.Status]int{}
	for _, l := range locked {
		count[l.status]++
		ui.LockedState(out, l.judge(t.policy, now).Report(), color)
	}
	where := "bucket " + t.addr.Bucket
	if t.addr.Table != "" {
		where = "table " + t.addr.Table + " and " + where
	}
	if len(locked) == 0 {
		_, err := fmt.Fprintf(out, "no lock in %s\n", where)
		return err
	}
	states := fmt.Sprintf("%d states are", len(locked))
	if len(locked) == 1 {
		states = "1 state is"
	}
	_, err := fmt.Fprintf(out, "%s locked in %s: %d unclear, %d active, %d stale\n", states, where, count[lock.Unclear], count[lock.Active], count[lock.Stale])
	return err
}

// maxTold bounds the states that a CI system's outputs name: they hold a MiB.
const maxTold = 500

// tellCIAll writes the outputs of all verdicts as those of one.
func tellCIAll(s Streams, t *target, worst lock.Status, locked []*lockedState, now time.Time, code int) {
	if ci.Detect(os.Getenv) == nil {
		return
	}
	if len(locked) > maxTold {
		warn(s.Err, fmt.Errorf("%d states are locked: the outputs name the worst %d", len(locked), maxTold))
		locked = locked[:maxTold]
	}
	one := lock.Report{Version: 1, State: t.addr.Bucket, Status: worst, Locks: []lock.ReportEntry{}}
	for _, l := range locked {
		one.Locks = append(one.Locks, l.judge(t.policy, now).Report().Locks...)
	}
	tellCILocks(s, one, code)
}
