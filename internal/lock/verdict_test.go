package lock

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// now is the time of every situation, by every clock that is right.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	idA  = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
	idB  = "16fd2706-8baf-433b-82eb-8c7fada847da"
	ada  = "ada@build-7"
	bot  = "runner@fv-az712-500" // a hosted runner of GitHub
	run1 = "https://github.com/acme/infra/actions/runs/1"
	run2 = "https://github.com/acme/infra/actions/runs/2"
)

// record is terraform's, taken so long ago by the clock of who took it.
func record(id, who string, age time.Duration) []byte {
	return fmt.Appendf(nil, `{"ID":%q,"Operation":"OperationTypeApply","Info":"","Who":%q,"Version":"1.11.4","Created":%q,"Path":"bucket/key"}`,
		id, who, now.Add(-age).Format(time.RFC3339Nano))
}

// inTable is a lock of ada's in DynamoDB, which keeps no time of its own.
func inTable(id string, age time.Duration) Observation {
	return Observation{Store: DynamoDB, Raw: record(id, ada, age), ServerNow: now}
}

// by is a lock of another's than ada's, in DynamoDB.
func by(who string, age time.Duration) Observation {
	return Observation{Store: DynamoDB, Raw: record(idB, who, age), ServerNow: now}
}

// inBucket is a lock of ada's in S3.
func inBucket(id string, age time.Duration) Observation {
	return Observation{Store: S3, Raw: record(id, ada, age), Match: `"etag"`, ServerNow: now, Written: now.Add(-age)}
}

// raw is whatever somebody put in the place of a lock.
func raw(s Store, text string) Observation {
	o := Observation{Store: s, Raw: []byte(text), ServerNow: now}
	if s == S3 {
		o.Written = now.Add(-time.Minute)
	}
	return o
}

// holder is the record of ada's run, which began 20 minutes ago and was renewed
// so long ago; changes are made to it.
func holder(lockID string, renewed time.Duration, changes ...func(*HolderSeen)) *HolderSeen {
	h := &HolderSeen{Age: renewed, Match: `"h"`, Record: Record{
		Version: 1, RunID: "run-1", Command: "apply", Who: ada, Host: Host{Name: "build-7", Boot: "b", PIDs: "p"}, PID: 4711, Began: "1",
		LockID: lockID, Stage: "apply", Started: now.Add(-20 * time.Minute), Beat: now.Add(-renewed),
	}}
	for _, change := range changes {
		change(h)
	}
	return h
}

func process(l Life) func(*HolderSeen) { return func(h *HolderSeen) { h.Process = l } }

// ofCI makes it the record of a CI run, of which this is known.
func ofCI(l Life, status, conclusion string) func(*HolderSeen) {
	return func(h *HolderSeen) {
		h.Record.CI = &CIRun{System: "github", Repository: "acme/infra", ID: "1", Attempt: 1, URL: run1}
		if l != NotKnown {
			h.CI = RunSeen{Run: Run{URL: run1, Status: status, Conclusion: conclusion}, Life: l}
		}
	}
}

func at(stage string) func(*HolderSeen)    { return func(h *HolderSeen) { h.Record.Stage = stage } }
func owner(who string) func(*HolderSeen)   { return func(h *HolderSeen) { h.Record.Who = who } }
func unasked(why string) func(*HolderSeen) { return func(h *HolderSeen) { h.Unasked = why } }
func damaged(why string) func(*HolderSeen) {
	return func(h *HolderSeen) { h.Record, h.Problem = Record{}, why }
}

// ran is a CI run that began and ended so long ago; still going where ended is 0.
func ran(url string, l Life, began, ended time.Duration) RunSeen {
	r := RunSeen{Run: Run{URL: url, Status: "in_progress"}, Life: l, Started: now.Add(-began)}
	if l == Over {
		r.Status, r.Conclusion = "completed", "cancelled"
	}
	if ended > 0 {
		r.Ended = now.Add(-ended)
	}
	return r
}

func with(h *HolderSeen, runs ...RunSeen) Evidence { return Evidence{Holder: h, Runs: runs} }

func locks(o ...Observation) []Observation { return o }

// skewed shifts what the record says of its time, not what the store says.
func skewed(o Observation, id string, by time.Duration) Observation {
	o.Raw = record(id, ada, by)
	return o
}

// Rules 1 to 5 of CONTRACT.md §5. Each verdict is "status confidence: word of a
// reason", one a lock; a living holder record comes last.
func TestClassify(t *testing.T) {
	const (
		m = time.Minute
		s = time.Second
	)
	type verdicts = []string
	for _, c := range []struct {
		sentence string
		seen     []Observation
		ev       Evidence
		all      Status
		each     verdicts
	}{
		// Nothing there.
		{"no lock and no holder is none", nil, Evidence{}, None, nil},
		{"no lock and runs that go on is none: a run need not hold a lock", nil, with(nil, ran(run1, Alive, 5*m, 0)), None, nil},
		{"no lock and a holder record that has run out is none", nil, with(holder("", 45*s)), None, nil},
		{"no lock and a holder whose process is gone is none, fresh as it is", nil, with(holder("", s, process(Over))), None, nil},

		// Rule 1: what cannot be judged.
		{"a record that is no JSON is unclear", locks(raw(DynamoDB, "locked by hand, ask Ada")), Evidence{}, Unclear, verdicts{"unclear : not JSON"}},
		{"an empty record is unclear", locks(raw(S3, "")), Evidence{}, Unclear, verdicts{"unclear : not JSON"}},
		{"a record that was cut off is unclear", locks(raw(S3, `{"ID":"`+idA)), Evidence{}, Unclear, verdicts{"unclear : not JSON"}},
		{"a record behind which something follows is unclear", locks(raw(S3, string(record(idA, ada, m))+"}")), Evidence{}, Unclear, verdicts{"unclear : follows"}},
		{"a record without an ID is unclear", locks(raw(DynamoDB, `{"Created":"2026-11-22T11:59:00Z"}`)), Evidence{}, Unclear, verdicts{"unclear : no ID"}},
		{"a record whose ID could approve another is unclear", locks(raw(DynamoDB, `{"ID":"a b","Created":"2026-11-22T11:59:00Z"}`)), Evidence{}, Unclear, verdicts{"unclear : characters"}},
		{"the scripts' manual test has no Created and is unclear", locks(raw(DynamoDB, `{"ID":"test123","Who":"manual-test"}`)), Evidence{}, Unclear, verdicts{"unclear : no Created"}},
		{"a Created that is no time is unclear", locks(raw(DynamoDB, `{"ID":"a","Created":"today"}`)), Evidence{}, Unclear, verdicts{"unclear : usable time"}},
		{"a Created of before terraform is unclear", locks(raw(DynamoDB, `{"ID":"a","Created":"0001-01-01T00:00:00Z"}`)), Evidence{}, Unclear, verdicts{"unclear : usable time"}},
		{"a Created just over an hour in the future is unclear", locks(inTable(idA, -61*m)), Evidence{}, Unclear, verdicts{"unclear : in the future"}},
		{"a Created an hour in the future is a clock that goes wrong, and young", locks(inTable(idA, -60*m)), Evidence{}, Active, verdicts{"active presumed: 0s old"}},
		{"a Created far in the future is unclear in S3 too, whatever the store's clock says", locks(skewed(inBucket(idA, 45*m), idA, -48*time.Hour)), Evidence{}, Unclear, verdicts{"unclear : in the future"}},
		{"a fresh holder does not make a record without Created clear", locks(raw(DynamoDB, `{"ID":"`+idA+`"}`)), with(holder(idA, s)), Unclear, verdicts{"unclear : no Created", "active proven: heartbeat"}},
		{"a dead holder does not make garbage stale", locks(raw(DynamoDB, "{")), with(holder(idA, time.Hour, process(Over))), Unclear, verdicts{"unclear : not JSON"}},
		{"runs that are all over do not make garbage stale", locks(raw(DynamoDB, "{")), with(nil, ran(run1, Over, time.Hour, m)), Unclear, verdicts{"unclear : not JSON"}},

		// Rule 2: a fresh heartbeat.
		{"a lock that a fresh record names is active", locks(inTable(idA, 5*m)), with(holder(idA, 3*s)), Active, verdicts{"active proven: heartbeat is 3s old", "active proven: heartbeat"}},
		{"a lock of 50 minutes whose holder is alive is active: a database takes that long", locks(inTable(idA, 50*m)), with(holder(idA, 9*s, func(h *HolderSeen) { h.Record.Started = now.Add(-time.Hour) })), Active, verdicts{"active proven: run run-1 names it", "active proven: heartbeat"}},
		{"a lock of three days whose holder is alive is active", locks(inBucket(idA, 72*time.Hour)), with(holder(idA, 0)), Active, verdicts{"active proven: heartbeat", "active proven: heartbeat"}},
		{"a heartbeat just under 45 seconds is fresh", locks(inTable(idA, 50*m)), with(holder(idA, 45*s-1)), Active, verdicts{"active proven: heartbeat is 45s old", "active proven: heartbeat"}},
		{"a fresh heartbeat beats a CI run that is said to be over: the run is still writing", locks(inTable(idA, 50*m)), with(holder(idA, s, ofCI(Over, "completed", "cancelled"))), Active, verdicts{"active proven: heartbeat", "active proven: heartbeat"}},
		{"a fresh heartbeat beats runs of rule 4 that are over", locks(inTable(idA, 5*m)), with(holder(idA, s), ran(run1, Over, 10*m, m)), Active, verdicts{"active proven: heartbeat", "active proven: heartbeat"}},

		// Rule 3: the heartbeat has run out.
		{"a process that is gone is stale at once, without waiting for the heartbeat", locks(inTable(idA, 5*s)), with(holder(idA, s, process(Over))), Stale, verdicts{"stale proven: process 4711 ran on this host and is gone"}},
		{"a process that is gone is stale also where its CI run goes on with other steps", locks(inTable(idA, 5*m)), with(holder(idA, m, process(Over), ofCI(Alive, "in_progress", ""))), Stale, verdicts{"stale proven: is gone"}},
		{"a heartbeat of 45 seconds has run out, and with it a CI run that is over is stale", locks(inTable(idA, 5*m)), with(holder(idA, 45*s, ofCI(Over, "completed", "cancelled"))), Stale, verdicts{"stale proven: is over: cancelled"}},
		{"a CI run that is over without a conclusion is named by its status", locks(inTable(idA, 5*m)), with(holder(idA, m, ofCI(Over, "stale", ""))), Stale, verdicts{"stale proven: is over: stale"}},
		{"a CI run that goes on is active though the heartbeat has run out", locks(inTable(idA, 50*m)), with(holder(idA, 10*m, ofCI(Alive, "in_progress", ""))), Active, verdicts{"active proven: is in_progress", "active proven: is in_progress"}},
		{"a CI run that waits in a queue is alive", locks(inTable(idA, 50*m)), with(holder(idA, 10*m, ofCI(Alive, "queued", ""))), Active, verdicts{"active proven: is queued", "active proven: is queued"}},
		{"a process that still runs here is active though the heartbeat has run out", locks(inTable(idA, 50*m)), with(holder(idA, 10*m, process(Alive))), Active, verdicts{"active proven: still runs on this host", "active proven: still runs"}},
		{"a process that still runs here is active though its CI run is over: it was cancelled and goes on", locks(inTable(idA, 50*m)), with(holder(idA, 10*m, process(Alive), ofCI(Over, "completed", "cancelled"))), Active, verdicts{"active proven: still runs on this host", "active proven: still runs"}},
		{"where nothing more is known it counts as active for the grace period", locks(inTable(idA, 50*m)), with(holder(idA, 45*s)), Active, verdicts{"active presumed: counts as active for 5m0s"}},
		{"the last instant of the grace period is active", locks(inTable(idA, 50*m)), with(holder(idA, 5*m+45*s-1)), Active, verdicts{"active presumed: nothing more is known"}},
		{"the end of the grace period is stale, and presumed", locks(inTable(idA, 50*m)), with(holder(idA, 5*m+45*s)), Stale, verdicts{"stale presumed: nothing more is known of it"}},
		{"after the grace period also a young lock is stale", locks(inTable(idA, 7*m)), with(holder(idA, 6*m)), Stale, verdicts{"stale presumed: nothing more is known of it"}},
		{"a CI run that could not be asked about is not known, never over", locks(inTable(idA, 50*m)), with(holder(idA, m, ofCI(NotKnown, "", ""))), Active, verdicts{"active presumed: nothing more is known"}},
		{"a named lock is judged by its record, not by other runs that are over", locks(inTable(idA, 10*m)), with(holder(idA, m), ran(run1, Over, 15*m, 5*m)), Active, verdicts{"active presumed: nothing more is known"}},

		// Rule 3: a record that has no lock ID yet.
		{"a record without a lock ID names the lock of its user and host taken since it began", locks(inTable(idA, 10*m)), with(holder("", s)), Active, verdicts{"active proven: names it", "active proven: heartbeat"}},
		{"so it proves a lock stale whose process is gone", locks(inTable(idA, 10*m)), with(holder("", s, process(Over))), Stale, verdicts{"stale proven: is gone"}},
		{"the lock of another user or host is not its own", locks(inTable(idA, 10*m)), with(holder("", s, process(Over), owner("bob@build-8"))), Active, verdicts{"active presumed: 10m0s old"}},
		{"nobody is no user: a lock without Who is not named by a record without one", locks(Observation{Store: DynamoDB, Raw: record(idA, "", 10*m), ServerNow: now}), with(holder("", s, process(Over), owner(""))), Active, verdicts{"active presumed: 10m0s old"}},
		{"a lock taken in the instant the record began is its own", locks(inTable(idA, 20*m)), with(holder("", s, process(Over))), Stale, verdicts{"stale proven: is gone"}},
		{"a lock taken just before the record began is not its own", locks(inTable(idA, 20*m+1)), with(holder("", s, process(Over))), Active, verdicts{"active presumed: 20m0s old"}},
		{"a lock taken in the instant of the last heartbeat is its own", locks(inTable(idA, 9*m)), with(holder("", 9*m, process(Over))), Stale, verdicts{"stale proven: is gone"}},
		{"a lock taken just after the last heartbeat is not its own", locks(inTable(idA, 9*m-1)), with(holder("", 9*m, process(Over))), Active, verdicts{"active presumed: 9m0s old"}},
		{"at the stage plan terraform takes a lock", locks(inTable(idA, 10*m)), with(holder("", s, process(Over), at("plan"))), Stale, verdicts{"stale proven: is gone"}},
		{"at the stage restore too", locks(inTable(idA, 10*m)), with(holder("", s, process(Over), at("restore"))), Stale, verdicts{"stale proven: is gone"}},
		{"at a stage in which terraform takes no lock the record names none", locks(inTable(idA, 10*m)), with(holder("", s, process(Over), at("snapshot"))), Active, verdicts{"active presumed: 10m0s old"}},
		{"a record that has a lock ID does not name another lock of its user, host and time", locks(inTable(idB, 10*m)), with(holder(idA, s, process(Over))), Active, verdicts{"active presumed: 10m0s old"}},

		// The holder record as an entry of its own.
		{"a living record blocks also while terraform holds no lock", nil, with(holder("", 10*s, at("plan"))), Active, verdicts{"active proven: at stage plan"}},
		{"a record renewed 45 seconds ago keeps nobody out any more", nil, with(holder("", 45*s, ofCI(NotKnown, "", ""))), None, nil},
		{"a record that ran out keeps others out while its CI run goes on", nil, with(holder("", time.Hour, ofCI(Alive, "in_progress", ""))), Active, verdicts{"active proven: is in_progress"}},
		{"a record that cannot be read and was just written is unclear", nil, with(holder("", 3*s, damaged("the holder record is not JSON of one"))), Unclear, verdicts{"unclear : not JSON"}},
		{"a record of a newer tfguard that is renewed is unclear", nil, with(holder("", 3*s, damaged("the holder record is of version 2, which a newer tfguard wrote"))), Unclear, verdicts{"unclear : newer tfguard"}},
		{"an unreadable record that nobody renews is none", nil, with(holder("", 45*s, damaged("the holder record is not JSON of one"))), None, nil},
		{"an unreadable record names no lock: its age decides", locks(inTable(idA, 45*m)), with(holder(idA, time.Hour, damaged("the holder record is not JSON of one"))), Stale, verdicts{"stale presumed: 45m0s old"}},
		{"an unreadable record that is renewed makes the whole unclear", locks(inTable(idA, 45*m)), with(holder(idA, s, damaged("the holder record is not JSON of one"))), Unclear, verdicts{"stale presumed: 45m0s old", "unclear : not JSON"}},
		{"a living record of another run leaves an old lock stale, and blocks", locks(inTable(idB, 45*m)), with(holder(idA, s)), Active, verdicts{"stale presumed: 45m0s old", "active proven: heartbeat"}},

		// Rule 4: runs that could have taken it.
		{"a run that goes on and could have taken it is active, at any age", locks(inTable(idA, 50*m)), with(nil, ran(run1, Alive, time.Hour, 0)), Active, verdicts{"active presumed: still going"}},
		{"where every run that could have taken it is over it is stale, also young", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 10*m, 2*m), ran(run2, Over, 6*m, m)), Stale, verdicts{"stale presumed: is over (2)"}},
		{"one of several that goes on is enough", locks(inTable(idA, 50*m)), with(nil, ran(run1, Over, time.Hour, 2*m), ran(run2, Alive, time.Hour, 0)), Active, verdicts{"active presumed: " + run2}},
		{"in any order", locks(inTable(idA, 50*m)), with(nil, ran(run2, Alive, time.Hour, 0), ran(run1, Over, time.Hour, 2*m)), Active, verdicts{"active presumed: " + run2}},
		{"a run of which nothing is known leaves it to the age", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 10*m, 2*m), ran(run2, NotKnown, 10*m, 0)), Active, verdicts{"active presumed: under 30m0s"}},
		{"a run of which nothing is known leaves an old lock stale", locks(inTable(idA, 31*m)), with(nil, ran(run1, NotKnown, time.Hour, 0)), Stale, verdicts{"stale presumed: 31m0s old"}},
		{"a run that began in the instant of Created could have taken it", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 5*m, m)), Stale, verdicts{"stale presumed: is over (1)"}},
		{"a run that began after Created could not", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 5*m-1, m)), Active, verdicts{"active presumed: 5m0s old"}},
		{"a run that ended in the instant of Created could have taken it", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 10*m, 5*m)), Stale, verdicts{"stale presumed: is over (1)"}},
		{"a run that had ended before Created could not", locks(by(bot, 5*m)), with(nil, ran(run1, Over, 10*m, 5*m+1)), Active, verdicts{"active presumed: 5m0s old"}},
		{"a run that goes on and began after Created says nothing", locks(inTable(idA, 45*m)), with(nil, ran(run1, Alive, 10*m, 0)), Stale, verdicts{"stale presumed: 45m0s old"}},
		{"no run of the time leaves it to the age", locks(by(bot, 29*m)), Evidence{Runs: []RunSeen{}}, Active, verdicts{"active presumed: 29m0s old"}},
		{"a record of another run does not keep rule 4 from deciding", locks(by(bot, 5*m)), with(holder(idA, time.Hour), ran(run1, Over, 10*m, m)), Stale, verdicts{"stale presumed: is over (1)"}},
		{"a container is a runner of CI too", locks(by("root@3f2b8c91d04e", 5*m)), with(nil, ran(run1, Over, 10*m, m)), Stale, verdicts{"stale presumed: is over (1)"}},
		{"a laptop's young lock is not stale since all CI runs of its time are over", locks(inTable(idA, 5*m)), with(nil, ran(run1, Over, 10*m, m)), Active, verdicts{"active presumed: its Who is not the name of a CI runner"}},
		{"a laptop's old lock is stale by its age, whatever CI runs there were", locks(inTable(idA, 31*m)), with(nil, ran(run1, Over, time.Hour, m)), Stale, verdicts{"stale presumed: 31m0s old"}},
		{"a run that goes on may be of a runner with any name: it keeps a lock active", locks(by("svc@build-9", 50*m)), with(nil, ran(run1, Alive, time.Hour, 0)), Active, verdicts{"active presumed: still going"}},
		{"a lock without Who is nobody's, and no runner's", locks(by("", 5*m)), with(nil, ran(run1, Over, 10*m, m)), Active, verdicts{"active presumed: 5m0s old"}},
		{"in both stores it is stale in both", locks(Observation{Store: S3, Raw: record(idB, bot, 5*m), ServerNow: now, Written: now.Add(-5 * m)}, by(bot, 5*m)), with(nil, ran(run1, Over, 10*m, m)), Stale, verdicts{"stale presumed: is over (1)", "stale presumed: is over (1)"}},

		// Questions that got no answer: they make no lock stale, and are said.
		{"a CI system that gave no answer about the record's run leaves it to the grace period, and the verdict says why", locks(inTable(idA, 50*m)), with(holder(idA, m, ofCI(NotKnown, "", ""), unasked("401"))), Active, verdicts{"active presumed: whether its CI run still goes on is not known: 401"}},
		{"so it does after that", locks(inTable(idA, 50*m)), with(holder(idA, 6*m, ofCI(NotKnown, "", ""), unasked("401"))), Stale, verdicts{"stale presumed: whether its CI run still goes on is not known: 401"}},
		{"a CI system that gave no answer about the runs of the time leaves it to the age, and the verdict says why", locks(by(bot, 5*m)), Evidence{Unasked: "403"}, Active, verdicts{"active presumed: which CI runs could have taken it is not known: 403"}},
		{"an old lock is stale by its age, also where nobody answered", locks(by(bot, 45*m)), Evidence{Unasked: "403"}, Stale, verdicts{"stale presumed: which CI runs could have taken it is not known: 403"}},

		// Rule 5: age.
		{"a young lock is active", locks(inTable(idA, 2*m)), Evidence{}, Active, verdicts{"active presumed: under 30m0s is presumed active"}},
		{"just under 30 minutes is active", locks(inTable(idA, 30*m-1)), Evidence{}, Active, verdicts{"active presumed: 30m0s old"}},
		{"30 minutes is stale", locks(inTable(idA, 30*m)), Evidence{}, Stale, verdicts{"stale presumed: 30m0s or more"}},
		{"a lock of three years is stale, and still presumed", locks(inTable(idA, 3*365*24*time.Hour)), Evidence{}, Stale, verdicts{"stale presumed: 26280h0m0s old"}},
		{"in S3 the store's clock counts: a client's that is an hour slow makes no stale lock", locks(skewed(inBucket(idA, m), idA, time.Hour)), Evidence{}, Active, verdicts{"active presumed: 1m0s old by the store's clock"}},
		{"in S3 a client's clock that is fast keeps no stale lock active", locks(skewed(inBucket(idA, 45*m), idA, -30*m)), Evidence{}, Stale, verdicts{"stale presumed: 45m0s old by the store's clock"}},
		{"in DynamoDB the age rests on a client's clock, and the verdict says so", locks(inTable(idA, 31*m)), Evidence{}, Stale, verdicts{"stale presumed: by the clock of the client that took it"}},
		{"without the server's time ours counts, and the verdict says so", locks(Observation{Store: S3, Raw: record(idA, ada, time.Hour), Written: now.Add(-31 * m)}), Evidence{}, Stale, verdicts{"stale presumed: 31m0s old by the store's clock and this host's"}},
		{"the server's time beats ours", locks(Observation{Store: DynamoDB, Raw: record(idA, ada, 45*m), ServerNow: now.Add(-40 * m)}), Evidence{}, Active, verdicts{"active presumed: 5m0s old"}},
		{"a lock written in the server's future is as young as can be", locks(inBucket(idA, -10*m)), Evidence{}, Active, verdicts{"active presumed: 0s old"}},

		// Both stores.
		{"one lock in both stores has an entry for each", locks(inBucket(idA, 45*m), inTable(idA, 45*m)), Evidence{}, Stale, verdicts{"stale presumed: by the store's clock", "stale presumed: by the clock of the client"}},
		{"a record names it in both", locks(inBucket(idA, 5*m), inTable(idA, 5*m)), with(holder(idA, s, process(Over))), Stale, verdicts{"stale proven: is gone", "stale proven: is gone"}},
		{"one lock whose clocks differ is judged in each store, and the worse counts", locks(skewed(inBucket(idA, 5*m), idA, 45*m), inTable(idA, 45*m)), Evidence{}, Active, verdicts{"active presumed: 5m0s", "stale presumed: 45m0s"}},
		{"of two different locks the active one counts", locks(inBucket(idA, 5*m), inTable(idB, 45*m)), Evidence{}, Active, verdicts{"active presumed: 5m0s", "stale presumed: 45m0s"}},
		{"of two different locks a record names one", locks(inBucket(idA, 5*m), inTable(idB, 5*m)), with(holder(idA, m, process(Over))), Active, verdicts{"stale proven: is gone", "active presumed: 5m0s"}},
		{"of two different locks both can be stale, each on its own evidence", locks(inBucket(idA, 5*m), inTable(idB, 45*m)), with(holder(idA, m, process(Over))), Stale, verdicts{"stale proven: is gone", "stale presumed: 45m0s"}},
		{"an unclear one beside an active one counts", locks(raw(S3, "?"), inTable(idA, m)), Evidence{}, Unclear, verdicts{"unclear : not JSON", "active presumed: 1m0s"}},
		{"an unclear one beside a stale one counts", locks(inBucket(idA, time.Hour), raw(DynamoDB, "[]")), Evidence{}, Unclear, verdicts{"stale presumed: 1h0m0s", "unclear : not JSON"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v := Classify("bucket/key", c.seen, c.ev, DefaultPolicy(), now)
			if v.State != "bucket/key" || v.Status != c.all {
				t.Errorf("%s is %q, want %q", v.State, v.Status, c.all)
			}
			if len(v.Locks) != len(c.each) {
				t.Fatalf("%d entries, want %d: %+v", len(v.Locks), len(c.each), v.Locks)
			}
			for i, e := range v.Locks {
				verdict, word, _ := strings.Cut(c.each[i], ": ")
				verdict = strings.TrimSuffix(verdict, " ")
				if have := strings.TrimSuffix(string(e.Status)+" "+string(e.Confidence), " "); have != verdict {
					t.Errorf("entry %d is %q, want %q: %q", i, have, verdict, e.Reasons)
				}
				if !strings.Contains(strings.Join(e.Reasons, "; "), word) {
					t.Errorf("entry %d: no reason says %q: %q", i, word, e.Reasons)
				}
			}
		})
	}
}

// The policy's numbers decide, not those of the contract alone.
func TestClassifyByPolicy(t *testing.T) {
	p := Policy{StaleAfter: time.Second, HolderTTL: 2 * time.Second, Grace: 3 * time.Second}
	for _, c := range []struct {
		sentence string
		seen     Observation
		holder   *HolderSeen
		want     Status
	}{
		{"younger than stale_after", inTable(idA, time.Second-1), nil, Active},
		{"as old as stale_after", inTable(idA, time.Second), nil, Stale},
		{"a heartbeat within its time to live", inTable(idA, time.Hour), holder(idA, 2*time.Second-1), Active},
		{"within the grace period after it", inTable(idA, time.Hour), holder(idA, 5*time.Second-1), Active},
		{"after the grace period", inTable(idA, time.Hour), holder(idA, 5*time.Second), Stale},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if v := Classify("s", []Observation{c.seen}, Evidence{Holder: c.holder}, p, now); v.Locks[0].Status != c.want {
				t.Errorf("%q, want %q: %q", v.Locks[0].Status, c.want, v.Locks[0].Reasons)
			}
		})
	}
}

// The rule that decided is known: the CI system is asked about the runs of a
// lock's time only where nothing but the age did.
func TestClassifyNamesTheRule(t *testing.T) {
	const m = time.Minute
	for _, c := range []struct {
		sentence string
		seen     Observation
		ev       Evidence
		want     int
	}{
		{"garbage", raw(S3, "?"), Evidence{}, 1},
		{"a time in the future", inTable(idA, -2*time.Hour), Evidence{}, 1},
		{"a fresh record", inTable(idA, m), with(holder(idA, time.Second)), 2},
		{"a process that is gone", inTable(idA, m), with(holder(idA, time.Second, process(Over))), 3},
		{"a CI run that goes on beyond the heartbeat", inTable(idA, m), with(holder(idA, m, ofCI(Alive, "in_progress", ""))), 3},
		{"a record without a CI run, within the grace period", inTable(idA, m), with(holder(idA, m)), 3},
		{"a record without a CI run, after it", inTable(idA, m), with(holder(idA, time.Hour)), 3},
		{"a run of the time that goes on", inTable(idA, m), with(nil, ran(run1, Alive, time.Hour, 0)), 4},
		{"runs of the time that are over", by(bot, m), with(nil, ran(run1, Over, time.Hour, 0)), 4},
		{"runs that are over, and no runner", inTable(idA, m), with(nil, ran(run1, Over, time.Hour, 0)), 5},
		{"nothing known", inTable(idA, m), Evidence{}, 5},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if got := Classify("s", locks(c.seen), c.ev, DefaultPolicy(), now).Locks[0].Rule; got != c.want {
				t.Errorf("rule %d, want %d", got, c.want)
			}
		})
	}
}

// What Who says of the machine: a hosted runner or a container, or somebody's.
func TestOfRunner(t *testing.T) {
	for who, want := range map[string]bool{
		"runner@fv-az712-500": true, "runner@runnervm3jyl0": true, "runner@Mac-1754.local": true,
		`fv-az1234-7\runneradmin@fv-az1234-7`: true, "root@runner-tcsbqdn-project-7-concurrent-0": true, "root@3f2b8c91d04e": true, "node@3f2b8c91d04e": true,
		ada: false, "root@vm": false, "root@3f2b8c91d04": false, "root@3f2b8c91d04e5": false, "root@3F2B8C91D04E": false, "root@3f2b8c91d04g": false,
		"": false, "@": false, "runner": false, "runners@x": false, "ada@runner": false, "runner@x@laptop": false,
	} {
		if got := ofRunner(who); got != want {
			t.Errorf("%q: %v, want %v", who, got, want)
		}
	}
}

// The run that a verdict rests on is named, whichever rule decided.
func TestClassifyNamesTheRun(t *testing.T) {
	old := []Observation{inTable(idA, 50*time.Minute)}
	for _, c := range []struct {
		sentence string
		ev       Evidence
		want     *Run
	}{
		{"the CI run of the record, as its system tells of it", with(holder(idA, time.Minute, ofCI(Over, "completed", "failure"))), &Run{URL: run1, Status: "completed", Conclusion: "failure"}},
		{"the CI run of the record, where nobody could be asked", with(holder(idA, time.Minute, ofCI(NotKnown, "", ""))), &Run{URL: run1}},
		{"the run of rule 4 that goes on", with(nil, ran(run1, Over, time.Hour, time.Minute), ran(run2, Alive, time.Hour, 0)), &Run{URL: run2, Status: "in_progress"}},
		{"no run where rule 4 leaves it open", with(nil, ran(run1, Over, time.Hour, time.Minute), ran(run2, NotKnown, time.Hour, 0)), nil},
		{"no run where nothing is known", Evidence{}, nil},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got := Classify("s", old, c.ev, DefaultPolicy(), now).Locks[0].Run
			if got == nil && c.want == nil {
				return
			}
			if got == nil || c.want == nil || *got != *c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// lock_ids holds what a person may approve, lock_count what there is: one ID in
// two stores is one lock, a holder record counts where terraform has none.
func TestReportCounts(t *testing.T) {
	for _, c := range []struct {
		sentence string
		seen     []Observation
		holder   *HolderSeen
		count    int
		stale    string
	}{
		{"nothing", nil, nil, 0, ""},
		{"a stale lock in both stores", locks(inBucket(idA, time.Hour), inTable(idA, time.Hour)), nil, 1, idA},
		{"two stale locks, sorted", locks(inBucket(idA, time.Hour), inTable(idB, time.Hour)), nil, 2, idB + " " + idA},
		{"an active lock is nobody's to approve", locks(inBucket(idA, time.Minute)), nil, 1, ""},
		{"what cannot be judged is nobody's to approve by ID", locks(raw(DynamoDB, `{"ID":"test123"}`)), nil, 1, ""},
		{"two records without an ID are two", locks(raw(DynamoDB, "x"), raw(S3, "x")), nil, 2, ""},
		{"a holder without a lock", nil, holder("", time.Second), 1, ""},
		{"a holder with its lock", locks(inTable(idA, time.Minute)), holder(idA, time.Second), 1, ""},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			r := Classify("s", c.seen, Evidence{Holder: c.holder}, DefaultPolicy(), now).Report()
			if ids := strings.Join(r.StaleIDs(), " "); r.Count() != c.count || ids != c.stale {
				t.Errorf("%d locks, stale %q; want %d, %q", r.Count(), ids, c.count, c.stale)
			}
		})
	}
}

// Who waits is told of what changes, and not of every heartbeat.
func TestAlike(t *testing.T) {
	judge := func(h *HolderSeen, seen ...Observation) Verdict {
		return Classify("s", seen, Evidence{Holder: h}, DefaultPolicy(), now)
	}
	beat := func(h *HolderSeen) { h.Raw = []byte("other bytes") }
	for _, c := range []struct {
		sentence string
		a, b     Verdict
		want     bool
	}{
		{"nothing twice", judge(nil), judge(nil), true},
		{"the same lock a minute later", judge(nil, inTable(idA, time.Minute)), judge(nil, inTable(idA, 2*time.Minute)), true},
		{"a holder and its next heartbeat", judge(holder("", time.Second)), judge(holder("", 9*time.Second, beat)), true},
		{"an unreadable holder and its next heartbeat", judge(holder("", time.Second, damaged("?"))), judge(holder("", time.Second, damaged("?"), beat)), true},
		{"two stores in the other order", judge(nil, inTable(idA, time.Minute), inBucket(idB, time.Minute)), judge(nil, inBucket(idB, time.Minute), inTable(idA, time.Minute)), true},
		{"a lock that became stale", judge(nil, inTable(idA, time.Minute)), judge(nil, inTable(idA, time.Hour)), false},
		{"a lock that is gone", judge(nil, inTable(idA, time.Minute)), judge(nil), false},
		{"another lock", judge(nil, inTable(idA, time.Minute)), judge(nil, inTable(idB, time.Minute)), false},
		{"the same lock in another store", judge(nil, inTable(idA, time.Minute)), judge(nil, inBucket(idA, time.Minute)), false},
		{"other garbage", judge(nil, raw(S3, "a")), judge(nil, raw(S3, "b")), false},
		{"the next stage", judge(holder("", time.Second, at("plan"))), judge(holder("", time.Second, at("apply"))), false},
		{"a lock whose holder became known", judge(nil, inTable(idA, time.Minute)), judge(holder(idA, time.Second), inTable(idA, time.Minute)), false},
		{"a CI run that ended", judge(holder(idA, time.Minute, ofCI(Alive, "in_progress", "")), inTable(idA, time.Minute)), judge(holder(idA, time.Minute, ofCI(Over, "completed", "failure")), inTable(idA, time.Minute)), false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if got, back := c.a.Alike(c.b), c.b.Alike(c.a); got != c.want || back != c.want {
				t.Errorf("%v and, the other way round, %v; want %v", got, back, c.want)
			}
		})
	}
}
