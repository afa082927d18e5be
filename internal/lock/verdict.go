package lock

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Status of a lock, or of all locks of a state.
type Status string

// The statuses; of several locks the worst counts, in the order of severity.
const (
	None    Status = "none"
	Stale   Status = "stale"
	Active  Status = "active"
	Unclear Status = "unclear"
)

var severity = map[Status]int{None: 0, Stale: 1, Active: 2, Unclear: 3}

// Worse reports whether s outranks o.
func (s Status) Worse(o Status) bool { return severity[s] > severity[o] }

// Confidence says what a verdict rests on.
type Confidence string

// A proven verdict rests on evidence of the holder itself, a presumed one on age.
const (
	Proven   Confidence = "proven"
	Presumed Confidence = "presumed"
)

// Policy has the settings of a judgement.
type Policy struct {
	StaleAfter time.Duration // age from which a lock without evidence is presumed stale
	HolderTTL  time.Duration // age from which a holder record that was not renewed has run out
	Grace      time.Duration // how long after that a lock counts as active where nothing more is known
}

// DefaultPolicy has the numbers of the contract.
func DefaultPolicy() Policy {
	return Policy{StaleAfter: 30 * time.Minute, HolderTTL: 45 * time.Second, Grace: 5 * time.Minute}
}

// maxSkew is how far in the future a Created may lie before it is no usable
// time: clocks that differ are common, by more than this they are wrong.
const maxSkew = time.Hour

// Entry is the verdict on one lock in one store.
type Entry struct {
	Observation Observation
	Info        Info
	Age         time.Duration
	Status      Status
	Confidence  Confidence // empty for unclear
	Reasons     []string   // the evidence, in words
	Rule        int        // of docs/locking.md that decided, 1 to 5; 0 for a holder record itself
	Run         *Run       // the CI run that took it, where known
}

// Run is a CI run as its system reports it.
type Run struct {
	URL        string `json:"url"`
	Status     string `json:"status"`
	Conclusion string `json:"conclusion"`
}

// Verdict is the judgement on all locks of one state.
type Verdict struct {
	State  string // BUCKET/KEY
	Status Status
	Locks  []Entry
}

// Classify judges what was observed of one state's lock; the first rule of the
// contract that matches decides. now is used only where a store gave no clock
// of its own.
func Classify(state string, seen []Observation, ev Evidence, p Policy, now time.Time) Verdict {
	v := Verdict{State: state, Status: None}
	for _, o := range seen {
		v.Locks = append(v.Locks, judge(o, ev, p, now))
	}
	if e, ok := judgeHolder(state, ev.Holder, p); ok {
		v.Locks = append(v.Locks, e)
	}
	for _, e := range v.Locks {
		if e.Status.Worse(v.Status) {
			v.Status = e.Status
		}
	}
	return v
}

func judge(o Observation, ev Evidence, p Policy, now time.Time) Entry {
	info, err := ParseInfo(o.Raw)
	e := Entry{Observation: o, Info: info, Rule: 1}
	if err != nil {
		e.Status, e.Reasons = Unclear, []string{err.Error()}
		return e
	}
	clock := "by the store's clock"
	if !o.ServerNow.IsZero() {
		now = o.ServerNow
	} else {
		clock = "by the store's clock and this host's"
	}
	from := o.Written
	if from.IsZero() {
		from, clock = info.Created, "by the clock of the client that took it"
	}
	e.Age = max(now.Sub(from), 0)
	if ahead := info.Created.Sub(now); ahead > maxSkew {
		e.Status = Unclear
		e.Reasons = []string{fmt.Sprintf("its Created lies %s in the future", round(ahead))}
		return e
	}
	if h := ev.Holder; h != nil && h.names(info) {
		e.byHolder(h, p)
		return e
	}
	if e.byRuns(ev.Runs) {
		e.Rule = 4
		return e
	}
	e.Rule = 5
	if ev.Unasked != "" {
		e.Reasons = append(e.Reasons, "which CI runs could have taken it is not known: "+ev.Unasked)
	}
	if e.Age >= p.StaleAfter {
		e.conclude(Stale, Presumed, fmt.Sprintf("it is %s old %s, %s or more is presumed stale", round(e.Age), clock, round(p.StaleAfter)))
	} else {
		e.conclude(Active, Presumed, fmt.Sprintf("it is %s old %s, under %s is presumed active", round(e.Age), clock, round(p.StaleAfter)))
	}
	return e
}

func (e *Entry) conclude(s Status, c Confidence, reason string) {
	e.Status, e.Confidence = s, c
	e.Reasons = append(e.Reasons, reason)
}

// byHolder decides on a lock that the holder record names: rules 2 and 3.
func (e *Entry) byHolder(h *HolderSeen, p Policy) {
	r := h.Record
	e.Rule = 3
	e.Reasons = append(e.Reasons, fmt.Sprintf("the holder record of run %s names it", r.RunID))
	if h.CI.URL != "" {
		run := h.CI.Run
		e.Run = &run
	} else if r.CI != nil {
		e.Run = &Run{URL: r.CI.URL}
	}
	life, why := h.life(p)
	if life == NotKnown && h.Unasked != "" {
		e.Reasons = append(e.Reasons, "whether its CI run still goes on is not known: "+h.Unasked)
	}
	switch {
	case life == Alive:
		if h.Age < p.HolderTTL {
			e.Rule = 2
		}
		e.conclude(Active, Proven, why)
	case life == Over:
		e.conclude(Stale, Proven, why)
	case h.Age < p.HolderTTL+p.Grace:
		e.conclude(Active, Presumed, why+fmt.Sprintf("; nothing more is known, it counts as active for %s", round(p.Grace)))
	default:
		e.conclude(Stale, Presumed, why+"; nothing more is known of it")
	}
}

// byRuns decides on a lock that no record names by the CI runs that could have
// taken it: rule 4. It leaves open what it cannot decide. That all runs of a
// lock's time are over says something of it only where a CI run can have taken
// it; the lock of a person's machine is not stale since CI has nothing to do.
func (e *Entry) byRuns(runs []RunSeen) bool {
	var over, open int
	for _, r := range runs {
		if !r.holds(e.Info.Created) {
			continue
		}
		run := r.Run
		switch r.Life {
		case Alive:
			e.Run = &run
			e.conclude(Active, Presumed, "the CI run "+run.URL+" could have taken it and is still going")
			return true
		case Over:
			e.Run = &run
			over++
		default:
			open++
		}
	}
	if over == 0 || open > 0 {
		e.Run = nil
		return false
	}
	if !ofRunner(e.Info.Who) {
		e.Run = nil
		e.Reasons = append(e.Reasons, fmt.Sprintf("the CI runs of its time are over (%d), but its Who is not the name of a CI runner", over))
		return false
	}
	e.conclude(Stale, Presumed, fmt.Sprintf("every CI run that could have taken it is over (%d)", over))
	return true
}

// names reports whether the record is of the run that took the lock: by
// terraform's lock ID, or where that is not known yet, by user, host and time
// while a stage goes on in which terraform takes a lock. Both times are of the
// same host's clock.
func (h *HolderSeen) names(info Info) bool {
	r := h.Record
	if h.Problem != "" || r.RunID == "" {
		return false
	}
	if r.LockID != "" {
		return r.LockID == info.ID
	}
	return r.Who != "" && r.Who == info.Who && r.TakesLock() && !info.Created.Before(r.Started) && !info.Created.After(r.Beat)
}

// TakesLock reports whether terraform takes its lock in the record's stage.
func (r Record) TakesLock() bool {
	return r.Stage == "plan" || r.Stage == "apply" || r.Stage == "restore"
}

// life says what is known of the record's holder, and from what.
func (h *HolderSeen) life(p Policy) (Life, string) {
	r := h.Record
	ran := fmt.Sprintf("its heartbeat ran out: it was renewed %s ago, %s is the limit", round(h.Age), round(p.HolderTTL))
	switch {
	case h.Process == Over:
		return Over, fmt.Sprintf("its process %d ran on this host and is gone", r.PID)
	case h.Age < p.HolderTTL:
		return Alive, fmt.Sprintf("its heartbeat is %s old, at stage %s", round(h.Age), r.Stage)
	case h.Process == Alive:
		return Alive, fmt.Sprintf("%s, but its process %d still runs on this host", ran, r.PID)
	case h.CI.Life == Alive:
		return Alive, fmt.Sprintf("%s, but its CI run %s is %s", ran, h.CI.URL, h.CI.Status)
	case h.CI.Life == Over:
		return Over, fmt.Sprintf("%s, and its CI run %s is over: %s", ran, h.CI.URL, cmp.Or(h.CI.Conclusion, h.CI.Status))
	}
	return NotKnown, ran
}

// Living reports whether somebody holds the record: it keeps other runs out.
// A record that nobody renews and that tells of no life may be taken over.
func (h *HolderSeen) Living(p Policy) bool {
	life, _ := h.life(p)
	return life == Alive
}

// judgeHolder reports a living record as an active entry of its own, also while
// terraform holds no lock. A record that cannot be read blocks as long as
// somebody renews it.
func judgeHolder(state string, h *HolderSeen, p Policy) (Entry, bool) {
	if h == nil {
		return Entry{}, false
	}
	e := Entry{Observation: Observation{Store: Holder, Raw: h.Raw, Match: h.Match}, Age: h.Age}
	if h.Problem != "" {
		e.Status, e.Reasons = Unclear, []string{h.Problem, fmt.Sprintf("it was written %s ago", round(h.Age))}
		return e, h.Age < p.HolderTTL
	}
	life, why := h.life(p)
	r := h.Record
	e.Info = Info{ID: r.RunID, Operation: "tfguard " + r.Command + ", stage " + r.Stage, Who: r.Who, Created: r.Started, Path: state}
	e.Age = max(r.Beat.Add(h.Age).Sub(r.Started), 0)
	if r.CI != nil {
		e.Run = &Run{URL: r.CI.URL, Status: h.CI.Status, Conclusion: h.CI.Conclusion}
	}
	e.conclude(Active, Proven, why)
	return e, life == Alive
}

func round(d time.Duration) time.Duration {
	if d >= time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}

// Name is what a person approves the lock by: its ID, or its fingerprint where
// it could not be judged.
func (e Entry) Name() string {
	if e.Info.ID != "" && e.Status != Unclear {
		return e.Info.ID
	}
	return e.Observation.Fingerprint()
}

// OnlyOf reports whether there are locks and all of them have this ID.
func (v Verdict) OnlyOf(id string) bool {
	return len(v.Locks) > 0 && !slices.ContainsFunc(v.Locks, func(e Entry) bool { return e.Info.ID != id || e.Status == Unclear })
}

// Alike reports whether both verdicts say the same of the same locks and
// holders, at the same stage. That a heartbeat has come in between, or that
// time has passed, makes no difference.
func (v Verdict) Alike(o Verdict) bool {
	says := func(v Verdict) []string {
		out := []string{string(v.Status)}
		for _, e := range v.Locks {
			id := e.Info.ID
			if id == "" && e.Observation.Store != Holder { // a holder's record changes with each heartbeat
				id = e.Observation.Fingerprint()
			}
			said := fmt.Sprintf("%q", []string{string(e.Observation.Store), id, string(e.Status), string(e.Confidence), e.Info.Operation})
			if e.Run != nil {
				said += fmt.Sprintf("%q", *e.Run)
			}
			out = append(out, said)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(says(v), says(o))
}

// Report is a verdict as `locks --json` prints it: what printers and outputs
// are made from. Its strings are data of whoever wrote the lock.
type Report struct {
	Version int           `json:"version"` // of this format: 1
	State   string        `json:"state"`   // BUCKET/KEY
	Status  Status        `json:"status"`
	Locks   []ReportEntry `json:"locks"`
}

// ReportEntry is one lock of a [Report].
type ReportEntry struct {
	Store            Store      `json:"store"`
	ID               string     `json:"id"` // empty where the record has no usable ID
	Path             string     `json:"path"`
	Operation        string     `json:"operation"`
	Who              string     `json:"who"`
	TerraformVersion string     `json:"terraform_version"`
	Created          string     `json:"created"` // RFC 3339, or empty
	AgeSeconds       int64      `json:"age_seconds"`
	Status           Status     `json:"status"`
	Confidence       Confidence `json:"confidence"`
	Reasons          []string   `json:"reasons"`
	Run              *Run       `json:"run,omitempty"`
	Fingerprint      string     `json:"fingerprint"`
}

// Report gives the verdict's printable form.
func (v Verdict) Report() Report {
	r := Report{Version: 1, State: v.State, Status: v.Status, Locks: []ReportEntry{}}
	for _, e := range v.Locks {
		j := ReportEntry{
			Store: e.Observation.Store, ID: e.Info.ID, Path: e.Info.Path, Operation: e.Info.Operation,
			Who: e.Info.Who, TerraformVersion: e.Info.Version, AgeSeconds: int64(e.Age / time.Second),
			Status: e.Status, Confidence: e.Confidence, Reasons: append([]string{}, e.Reasons...), Run: e.Run,
			Fingerprint: e.Observation.Fingerprint(),
		}
		if !e.Info.Created.IsZero() {
			j.Created = e.Info.Created.Format(time.RFC3339Nano)
		}
		r.Locks = append(r.Locks, j)
	}
	return r
}

// Name is what a person approves the lock by: its ID, or its fingerprint where
// it could not be judged.
func (e ReportEntry) Name() string {
	if e.ID != "" && e.Status != Unclear {
		return e.ID
	}
	return e.Fingerprint
}

// Count is the number of distinct locks: one ID in both stores is one lock, and
// a holder record counts only where terraform holds none.
func (r Report) Count() int {
	locks, holders := map[string]bool{}, map[string]bool{}
	for _, e := range r.Locks {
		if e.Store == Holder {
			holders[e.Fingerprint] = true
		} else {
			locks[cmp.Or(e.ID, e.Fingerprint)] = true
		}
	}
	if len(locks) > 0 {
		return len(locks)
	}
	return len(holders)
}

// StaleIDs are the IDs that a person may approve, sorted.
func (r Report) StaleIDs() []string {
	ids := []string{}
	for _, e := range r.Locks {
		if e.Status == Stale && !slices.Contains(ids, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Blocks reports whether an active or unclear lock is among them.
func (s Status) Blocks() bool { return s == Active || s == Unclear }
