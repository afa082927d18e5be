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
}

// DefaultPolicy has the numbers of the contract.
func DefaultPolicy() Policy { return Policy{StaleAfter: 30 * time.Minute} }

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

// Classify judges what was observed of one state's lock. now is used only
// where a store gave no clock of its own.
func Classify(state string, seen []Observation, p Policy, now time.Time) Verdict {
	v := Verdict{State: state, Status: None}
	for _, o := range seen {
		e := judge(o, p, now)
		v.Locks = append(v.Locks, e)
		if e.Status.Worse(v.Status) {
			v.Status = e.Status
		}
	}
	return v
}

func judge(o Observation, p Policy, now time.Time) Entry {
	info, err := ParseInfo(o.Raw)
	e := Entry{Observation: o, Info: info}
	if err != nil {
		e.Status, e.Reasons = Unclear, []string{err.Error()}
		return e
	}
	if !o.ServerNow.IsZero() {
		now = o.ServerNow
	}
	from, clock := o.Written, "by the store's clock"
	if from.IsZero() {
		from, clock = info.Created, "by the clock of the client that took it"
	}
	e.Age = now.Sub(from)
	if info.Created.Sub(now) > maxSkew {
		e.Status, e.Age = Unclear, 0
		e.Reasons = []string{fmt.Sprintf("its Created lies %s in the future", round(info.Created.Sub(now)))}
		return e
	}
	e.Age = max(e.Age, 0)
	e.Confidence = Presumed
	if e.Age >= p.StaleAfter {
		e.Status = Stale
		e.Reasons = []string{fmt.Sprintf("it is %s old %s, %s or more is presumed stale", round(e.Age), clock, round(p.StaleAfter))}
	} else {
		e.Status = Active
		e.Reasons = []string{fmt.Sprintf("it is %s old %s, under %s is presumed active", round(e.Age), clock, round(p.StaleAfter))}
	}
	return e
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

// Same reports whether both verdicts are on the same lock records, byte for
// byte, whatever they conclude.
func (v Verdict) Same(o Verdict) bool {
	prints := func(v Verdict) []string {
		var out []string
		for _, e := range v.Locks {
			out = append(out, e.Observation.Fingerprint())
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(prints(v), prints(o))
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

// Count is the number of distinct locks: one ID in both stores is one lock.
func (r Report) Count() int {
	distinct := map[string]bool{}
	for _, e := range r.Locks {
		distinct[cmp.Or(e.ID, e.Fingerprint)] = true
	}
	return len(distinct)
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
