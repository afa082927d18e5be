package lock

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// situations is how many are made up; each is judged some twenty times.
const situations = 25_000

// What holds of every verdict, whatever was found (CONTRACT.md §5): a lock whose
// holder is known to be alive is never stale, an unreadable lock is never none,
// evidence of life never moves a verdict towards stale, the worst counts.
func TestProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	reached := map[string]int{}
	for i := range situations {
		s := makeUp(r)
		if err := s.check(r, reached); err != nil {
			t.Fatalf("situation %d of seed %d: %v\n%s", i, seed, err, s)
		}
	}
	// A generator that never gets somewhere proves nothing of it.
	for _, want := range []string{"none", "stale proven", "stale presumed", "active proven", "active presumed", "unclear ", "named by ID", "named by time", "by runs", "known alive"} {
		if reached[want] < situations/1000 {
			t.Errorf("%d of %d situations are %q: too few to mean anything", reached[want], situations, want)
		}
	}
	t.Logf("%d situations of seed %d: %v", situations, seed, reached)
}

// situation is everything that Classify judges from.
type situation struct {
	seen   []Observation
	ev     Evidence
	policy Policy
	now    time.Time
}

func (s situation) judge() Verdict { return Classify("bucket/key", s.seen, s.ev, s.policy, s.now) }

func (s situation) String() string {
	var b strings.Builder
	for _, o := range s.seen {
		fmt.Fprintf(&b, "%s %q server now %s written %s\n", o.Store, o.Raw, o.ServerNow, o.Written)
	}
	if h := s.ev.Holder; h != nil {
		fmt.Fprintf(&b, "holder %+v\n", *h)
	}
	fmt.Fprintf(&b, "runs %+v\npolicy %+v\nnow %s\n%+v", s.ev.Runs, s.policy, s.now, s.judge())
	return b.String()
}

// copied shares nothing with s that a change could reach.
func (s situation) copied() situation {
	s.seen = slices.Clone(s.seen)
	for i := range s.seen {
		s.seen[i].Raw = slices.Clone(s.seen[i].Raw)
	}
	if s.ev.Holder != nil {
		h := *s.ev.Holder
		s.ev.Holder = &h
	}
	s.ev.Runs = slices.Clone(s.ev.Runs)
	return s
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// span is a duration that often lies on an edge.
func span(r *rand.Rand, p Policy) time.Duration {
	edge := one(r, 0, time.Second, p.HolderTTL, p.HolderTTL+p.Grace, p.StaleAfter, maxSkew, 24*time.Hour)
	return one(r, edge, edge-1, edge+1, time.Duration(r.Int64N(int64(2*time.Hour))), time.Duration(r.Int64N(int64(time.Hour))))
}

func makeUp(r *rand.Rand) situation {
	s := situation{now: now.Add(time.Duration(r.IntN(1000)) * time.Millisecond), policy: DefaultPolicy()}
	if r.IntN(4) == 0 {
		s.policy = Policy{StaleAfter: time.Duration(r.IntN(7200)) * time.Second, HolderTTL: time.Duration(1+r.IntN(120)) * time.Second, Grace: time.Duration(r.IntN(600)) * time.Second}
	}
	ids, people := []string{idA, idB, "x"}, []string{ada, bot, bot, ""}
	began := s.now.Add(-span(r, s.policy))
	for range r.IntN(3) {
		o := Observation{Store: one(r, DynamoDB, S3), ServerNow: one(r, s.now, s.now, s.now.Add(time.Minute-time.Duration(r.IntN(120))*time.Second), time.Time{})}
		created := s.now.Add(-span(r, s.policy))
		switch r.IntN(6) {
		case 0:
			created = began.Add(time.Duration(r.IntN(3)-1) * time.Nanosecond)
		case 1, 2:
			created = began.Add(time.Duration(r.Int64N(int64(time.Hour))))
		}
		if r.IntN(10) == 0 {
			created = s.now.Add(span(r, s.policy))
		}
		o.Raw = fmt.Appendf(nil, `{"ID":%q,"Who":%q,"Created":%q}`, one(r, ids...), one(r, people...), created.Format(time.RFC3339Nano))
		if r.IntN(6) == 0 {
			o.Raw = one(r, []byte(nil), []byte("{"), []byte("[]"), []byte(`{"ID":"x"}`), []byte(`{"ID":"a b","Created":"2026-01-01T00:00:00Z"}`), []byte(`{"Created":"2026-01-01T00:00:00Z"}`), o.Raw[:r.IntN(len(o.Raw))], append(o.Raw, '}'))
		}
		if o.Store == S3 {
			o.Match, o.Written = `"e"`, one(r, created, s.now.Add(-span(r, s.policy)), time.Time{})
		}
		s.seen = append(s.seen, o)
	}
	if r.IntN(3) > 0 {
		s.ev.Holder = someHolder(r, s, began, ids, people)
	}
	for range one(r, 0, 0, 1, 2, 3) {
		s.ev.Runs = append(s.ev.Runs, someRun(r, s))
	}
	return s
}

func someHolder(r *rand.Rand, s situation, began time.Time, ids, people []string) *HolderSeen {
	age := span(r, s.policy)
	h := &HolderSeen{Age: max(age, 0), Match: `"h"`, Raw: []byte("{}"), Record: Record{
		Version: 1, RunID: "run-1", Command: "apply", Who: one(r, people...), PID: 2 + r.IntN(1000),
		LockID: one(r, append(ids, "", "", "", "")...), Stage: one(r, "plan", "apply", "apply", "restore", "snapshot", ""),
		Started: began, Beat: began.Add(time.Duration(r.Int64N(int64(time.Hour)))),
	}}
	if r.IntN(8) == 0 {
		h.Record, h.Problem = Record{}, "the holder record is not JSON of one"
		return h
	}
	h.Process = one(r, NotKnown, NotKnown, Alive, Over)
	if r.IntN(2) == 0 {
		h.Record.CI = &CIRun{URL: run1}
		if l := one(r, NotKnown, Alive, Over); l != NotKnown {
			h.CI = RunSeen{Run: Run{URL: run1, Status: "s", Conclusion: one(r, "", "success")}, Life: l}
		}
	}
	return h
}

func someRun(r *rand.Rand, s situation) RunSeen {
	began := s.now.Add(-span(r, s.policy) - time.Duration(r.IntN(2))*time.Hour)
	run := RunSeen{Run: Run{URL: one(r, run1, run2), Status: "s"}, Life: one(r, NotKnown, Alive, Over), Started: began}
	if run.Life == Over {
		run.Ended = began.Add(time.Duration(r.Int64N(int64(2 * time.Hour))))
	}
	return run
}

// knownAlive reports whether somebody is known to be alive who holds the lock.
func (s situation) knownAlive(info Info) bool {
	h := s.ev.Holder
	if h != nil && h.Problem == "" && h.Process != Over && h.names(info) {
		if h.Process == Alive || h.CI.Life == Alive || h.Age < s.policy.HolderTTL {
			return true
		}
	}
	named := h != nil && h.names(info)
	return !named && slices.ContainsFunc(s.ev.Runs, func(r RunSeen) bool { return r.Life == Alive && r.holds(info.Created) })
}

func (s situation) check(r *rand.Rand, reached map[string]int) error {
	before, v := s.copied(), s.judge()
	if again := s.judge(); !reflect.DeepEqual(v, again) {
		return fmt.Errorf("judged again it is another verdict: %+v", again)
	}
	if !reflect.DeepEqual(before, s) {
		return fmt.Errorf("judging changed what was judged")
	}
	if err := s.sound(v); err != nil {
		return err
	}
	reached[string(v.Status)]++
	for i, o := range s.seen {
		e := v.Locks[i]
		reached[string(e.Status)+" "+string(e.Confidence)]++
		info, err := ParseInfo(o.Raw)
		switch {
		case err != nil && e.Status != Unclear:
			return fmt.Errorf("lock %d cannot be read and is %s", i, e.Status)
		case err == nil && s.knownAlive(info) && e.Status == Stale:
			return fmt.Errorf("lock %d is stale, and who holds it is known to be alive", i)
		case err == nil && s.knownAlive(info):
			reached["known alive"]++
		}
		if h := s.ev.Holder; err == nil && h != nil && h.names(info) {
			reached[map[bool]string{true: "named by time", false: "named by ID"}[h.Record.LockID == ""]]++
			if proof := h.Process == Over || h.CI.Life == Over; e.Status == Stale && (e.Confidence == Proven) != proof {
				return fmt.Errorf("lock %d is stale and %s, and proof that its holder is gone is %v", i, e.Confidence, proof)
			}
		} else if e.Status == Stale && e.Confidence == Proven {
			return fmt.Errorf("lock %d is proven stale, and no record names it", i)
		} else if e.Run != nil {
			reached["by runs"]++
			if e.Status == Stale && !ofRunner(info.Who) {
				return fmt.Errorf("lock %d is stale since CI runs are over, and %q is no runner", i, info.Who)
			}
		}
		if known := s.copied(); e.Rule == 5 {
			known.ev.Runs, known.ev.Unasked = nil, "nobody answers"
			if k := known.judge().Locks[i]; k.Status != e.Status || k.Confidence != e.Confidence {
				return fmt.Errorf("lock %d is %s, and where nobody answers %s", i, e.Status, k.Status)
			}
		}
	}
	for name, more := range s.withLife(r) {
		livelier := more.judge()
		if err := more.sound(livelier); err != nil {
			return fmt.Errorf("with %s: %w", name, err)
		}
		if v.Status.Worse(livelier.Status) {
			return fmt.Errorf("%s moved the state from %s to %s", name, v.Status, livelier.Status)
		}
		for i := range s.seen {
			if v.Locks[i].Status.Worse(livelier.Locks[i].Status) {
				return fmt.Errorf("%s moved lock %d from %s to %s", name, i, v.Locks[i].Status, livelier.Locks[i].Status)
			}
		}
	}
	return nil
}

// sound is what holds of one verdict by itself.
func (s situation) sound(v Verdict) error {
	if n := len(v.Locks) - len(s.seen); n < 0 || n > 1 || n == 1 && (s.ev.Holder == nil || v.Locks[len(s.seen)].Observation.Store != Holder) {
		return fmt.Errorf("%d entries for %d locks", len(v.Locks), len(s.seen))
	}
	worst := None
	for i, e := range v.Locks {
		if e.Status.Worse(worst) {
			worst = e.Status
		}
		switch {
		case e.Status != Stale && e.Status != Active && e.Status != Unclear:
			return fmt.Errorf("entry %d has the status %q", i, e.Status)
		case (e.Confidence == "") != (e.Status == Unclear):
			return fmt.Errorf("entry %d is %s with the confidence %q", i, e.Status, e.Confidence)
		case len(e.Reasons) == 0 || slices.Contains(e.Reasons, ""):
			return fmt.Errorf("entry %d has no reason: %q", i, e.Reasons)
		case e.Age < 0:
			return fmt.Errorf("entry %d is %s old", i, e.Age)
		case e.Name() == "":
			return fmt.Errorf("entry %d has no name to approve it by", i)
		}
	}
	if v.Status != worst {
		return fmt.Errorf("it is %s, the worst of its locks is %s", v.Status, worst)
	}
	backwards := s.copied()
	slices.Reverse(backwards.seen)
	if other := backwards.judge(); other.Status != v.Status {
		return fmt.Errorf("read in the other order it is %s, not %s", other.Status, v.Status)
	}
	return nil
}

// withLife are the same situation with one more sign of life in each.
func (s situation) withLife(r *rand.Rand) map[string]situation {
	more := map[string]situation{}
	add := func(name string, change func(*situation)) {
		c := s.copied()
		change(&c)
		more[fmt.Sprintf("%s (%d)", name, len(more))] = c
	}
	for _, o := range s.seen {
		info, err := ParseInfo(o.Raw)
		if err != nil {
			continue
		}
		add("a run that goes on and could have taken it", func(s *situation) {
			s.ev.Runs = append(s.ev.Runs, RunSeen{Run: Run{URL: run2, Status: "in_progress"}, Life: Alive, Started: info.Created.Add(-time.Minute)})
		})
		if s.ev.Holder == nil {
			add("a fresh record that names it by its ID", func(s *situation) {
				s.ev.Holder = &HolderSeen{Age: freshAge(r, s.policy), Record: Record{RunID: "run-2", LockID: info.ID, Stage: "apply", Started: info.Created, Beat: s.now}}
			})
			add("a fresh record that names it by its time", func(s *situation) {
				s.ev.Holder = &HolderSeen{Age: freshAge(r, s.policy), Record: Record{RunID: "run-2", Who: info.Who, Stage: "apply", Started: info.Created, Beat: info.Created}}
			})
		}
	}
	add("a run that goes on and could not have taken any", func(s *situation) {
		s.ev.Runs = append(s.ev.Runs, RunSeen{Life: Alive, Started: s.now.Add(48 * time.Hour)})
	})
	if h := s.ev.Holder; h != nil {
		add("a fresh heartbeat", func(s *situation) { s.ev.Holder.Age = min(h.Age, freshAge(r, s.policy)) })
		add("a younger heartbeat", func(s *situation) { s.ev.Holder.Age = h.Age / 2 })
		if h.Problem == "" {
			add("a process that runs", func(s *situation) { s.ev.Holder.Process = Alive })
			add("a CI run that goes on", func(s *situation) {
				s.ev.Holder.CI = RunSeen{Run: Run{URL: run1, Status: "in_progress"}, Life: Alive}
			})
			if h.Process != Over { // a process that is gone has sent no later one
				add("a later heartbeat", func(s *situation) {
					s.ev.Holder.Age, s.ev.Holder.Record.Beat = min(h.Age, freshAge(r, s.policy)), h.Record.Beat.Add(time.Hour)
				})
			}
		}
	}
	if h := s.ev.Holder; h != nil && h.CI.Life == NotKnown {
		add("no answer about the record's run", func(s *situation) { s.ev.Holder.Unasked = "nobody answers" })
	}
	add("no answer about the runs of the time", func(s *situation) { s.ev.Unasked = "nobody answers" })
	for i := range s.ev.Runs {
		add("one of the runs goes on after all", func(s *situation) { s.ev.Runs[i].Life, s.ev.Runs[i].Ended = Alive, time.Time{} })
	}
	return more
}

func freshAge(r *rand.Rand, p Policy) time.Duration {
	return time.Duration(r.Int64N(int64(max(p.HolderTTL, 1))))
}
