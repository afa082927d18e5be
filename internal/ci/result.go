package ci

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
)

// Result is what a run came to: what outputs and summaries are made from. What
// the run did not get to is nil or empty.
type Result struct {
	Command     string // check, plan, apply, destroy, locks, …
	Run         string // tfguard's id of the run
	Status      string // of [event.RunFinished]
	ExitCode    int
	State       string // BUCKET/KEY
	Lock        *lock.Report
	Plan        *event.Plan
	PlanText    string // as terraform prints it for people
	Snapshot    *event.Snapshot
	Stages      []event.StageFinished
	Diagnostics []event.Diagnostic
	Seconds     float64
}

// maxValue bounds a variable, in bytes: Linux starts no program with a variable
// of 128 KiB, so a longer one would break every step that comes after.
const maxValue = 96 << 10

// Outputs are the outputs of a step, in the contract's order. A value that is not
// known is empty.
func Outputs(r Result) []Pair {
	pairs := []Pair{
		{"status", r.Status}, {"exit_code", strconv.Itoa(r.ExitCode)}, {"run_id", r.Run},
		{"has_changes", ""}, {"to_add", ""}, {"to_change", ""}, {"to_destroy", ""},
		{"snapshot_id", ""},
	}
	if p := r.Plan; p != nil {
		pairs[3].Value = strconv.FormatBool(p.Changed)
		pairs[4].Value, pairs[5].Value, pairs[6].Value = strconv.Itoa(p.Add), strconv.Itoa(p.Change), strconv.Itoa(p.Destroy)
	}
	if r.Snapshot != nil {
		pairs[7].Value = r.Snapshot.ID
	}
	status := ""
	if r.Lock != nil {
		status = string(r.Lock.Status)
	}
	pairs = append(pairs, Pair{"lock_status", status})
	for _, p := range LegacyEnv(r) {
		pairs = append(pairs, Pair{strings.ToLower(p.Name), p.Value})
	}
	return pairs
}

// LegacyEnv are the variables of the scripts that tfguard replaces, for workflows
// that read them. ACTIVE_LOCKS_FOUND is true for unclear locks as well, and
// LOCK_IDS are those of stale locks, parted by spaces. All are empty where the
// locks are not known: neither "true" nor "false".
func LegacyEnv(r Result) []Pair {
	pairs := []Pair{{"STALE_LOCKS_FOUND", ""}, {"ACTIVE_LOCKS_FOUND", ""}, {"LOCK_COUNT", ""}, {"LOCK_IDS", ""}, {"LOCK_DETAILS", ""}}
	if r.Lock == nil {
		return pairs
	}
	stale := slices.ContainsFunc(r.Lock.Locks, func(e lock.ReportEntry) bool { return e.Status == lock.Stale })
	active := slices.ContainsFunc(r.Lock.Locks, func(e lock.ReportEntry) bool { return e.Status.Blocks() })
	pairs[0].Value = strconv.FormatBool(stale || r.Lock.Status == lock.Stale)
	pairs[1].Value = strconv.FormatBool(active || r.Lock.Status.Blocks())
	pairs[2].Value = strconv.Itoa(r.Lock.Count())
	pairs[3].Value = lockIDs(*r.Lock)
	pairs[4].Value = lockDetails(*r.Lock)
	return pairs
}

// lockIDs leaves out an ID that could not stand between two spaces, and what is
// beyond maxValue: a lock that is not named is not approved.
func lockIDs(r lock.Report) string {
	var b strings.Builder
	for _, id := range r.StaleIDs() {
		if !lock.UsableID(id) || b.Len()+1+len(id) > maxValue {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(id)
	}
	return b.String()
}

// lockDetails is the array of `locks --json` in one line, without the last
// entries where all would be longer than maxValue.
func lockDetails(r lock.Report) string {
	var b strings.Builder
	b.WriteByte('[')
	for _, e := range r.Locks {
		doc, err := json.Marshal(e)
		if err != nil {
			continue // strings and numbers alone: never
		}
		doc = event.SafeJSON(doc)
		if b.Len()+len(doc)+2 > maxValue {
			break
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(doc)
	}
	b.WriteByte(']')
	return b.String()
}

// Bounds of what a Collector keeps.
const (
	maxPlanText    = 512 << 10 // bytes
	maxStages      = 100
	maxDiagnostics = 50 // of errors, and of warnings
	maxAddresses   = 1000
)

// Collector makes the Result of a run from its events. It keeps a bounded amount:
// the beginning of the plan's text, the first diagnostics and stages.
type Collector struct {
	mu   sync.Mutex
	r    Result
	plan strings.Builder
	full bool // the plan's text is cut
}

var _ event.Sink = (*Collector)(nil)

// NewCollector is for a command's run of that id.
func NewCollector(command, run string) *Collector {
	return &Collector{r: Result{Command: command, Run: run}}
}

// Emit implements [event.Sink].
func (c *Collector) Emit(e event.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := e.(type) {
	case event.RunStarted:
		c.r.Command = e.Command
	case event.Lock:
		c.r.Lock, c.r.State = &e.Report, e.State
	case event.Plan:
		e.Addresses = slices.Clone(e.Addresses[:min(len(e.Addresses), maxAddresses)])
		c.r.Plan = &e
	case event.Output:
		if e.Source == "plan" && !e.Detail {
			c.text(e.Text)
		}
	case event.Snapshot:
		c.r.Snapshot = &e
	case event.StageFinished:
		if len(c.r.Stages) < maxStages {
			c.r.Stages = append(c.r.Stages, e)
		}
	case event.Diagnostic:
		same := 0
		for _, d := range c.r.Diagnostics {
			if d.Severity == e.Severity {
				same++
			}
		}
		if same < maxDiagnostics {
			c.r.Diagnostics = append(c.r.Diagnostics, e)
		}
	case event.RunFinished:
		c.r.Status, c.r.ExitCode, c.r.Seconds = e.Status, e.ExitCode, e.Seconds
	}
}

// text adds whole lines to the plan's text.
func (c *Collector) text(s string) {
	if c.full {
		return
	}
	if room := maxPlanText - c.plan.Len(); len(s) > room {
		c.full = true
		s = s[:strings.LastIndexByte(s[:room], '\n')+1] + "… the rest is in the job's log"
	}
	c.plan.WriteString(s)
	if !strings.HasSuffix(s, "\n") {
		c.plan.WriteByte('\n')
	}
}

// Result is what is known by now.
func (c *Collector) Result() Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.r
	r.PlanText = c.plan.String()
	r.Stages, r.Diagnostics = slices.Clone(r.Stages), slices.Clone(r.Diagnostics)
	return r
}
