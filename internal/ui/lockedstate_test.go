package ui

import (
	"strings"
	"testing"
	"unicode"

	"github.com/tfguard/tfguard/internal/lock"
)

func lockedState(r lock.Report) string {
	var b strings.Builder
	LockedState(&b, r, false)
	return b.String()
}

// One of many states: a few lines that say what it is, who holds it and why.
func TestLockedState(t *testing.T) {
	entry := lock.ReportEntry{Store: lock.S3, ID: "6ba7b810", Who: "ada@build-7", Operation: "OperationTypeApply", Created: "2026-11-22T05:57:20Z", AgeSeconds: 2700,
		Status: lock.Stale, Confidence: lock.Presumed, Reasons: []string{"it is old by the store's clock"}, Fingerprint: "0123456789abcdef"}
	second := entry
	second.Store, second.Reasons = lock.DynamoDB, []string{"it is old by the store's clock", "it is old by a client's"}
	run := lock.ReportEntry{Store: lock.Holder, ID: "run-7", Who: "ada@build-7", Operation: "tfguard apply, stage plan", Created: "2026-11-22T05:57:20Z", AgeSeconds: 3,
		Status: lock.Active, Confidence: lock.Proven, Reasons: []string{"its heartbeat is 3s old"}, Run: &lock.Run{URL: "https://ci/1", Status: "in_progress"}}
	garbage := lock.ReportEntry{Store: lock.DynamoDB, Status: lock.Unclear, Reasons: []string{"the record is not JSON of a lock"}, Fingerprint: "0123456789abcdef"}
	for _, c := range []struct {
		sentence string
		report   lock.Report
		want     string
	}{
		{"one lock in both stores is told once", lock.Report{State: "b/k", Status: lock.Stale, Locks: []lock.ReportEntry{entry, second}},
			"b/k: stale (presumed)\n  6ba7b810, in s3 and dynamodb, ada@build-7, OperationTypeApply, 45 minutes ago\n" +
				"    • it is old by the store's clock\n    • it is old by a client's\n\n"},
		{"a run that holds no lock yet", lock.Report{State: "b/k", Status: lock.Active, Locks: []lock.ReportEntry{run}},
			"b/k: active (proven)\n  tfguard run run-7, ada@build-7, tfguard apply, stage plan, 3 seconds ago\n    • its heartbeat is 3s old\n    • CI run https://ci/1 in_progress\n\n"},
		{"what cannot be judged is named by its fingerprint", lock.Report{State: "b/k", Status: lock.Unclear, Locks: []lock.ReportEntry{garbage}},
			"b/k: unclear\n  fingerprint 0123456789abcdef, in dynamodb\n    • the record is not JSON of a lock\n\n"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if got := lockedState(c.report); got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// G7: what a lock says is data; none of it moves the cursor, ends a line or is a
// command to a CI runner.
func TestLockedStateIsInert(t *testing.T) {
	const evil = "\x1b[2J\u202eabc\r\n::set-output name=x::y ##[error]z"
	e := lock.ReportEntry{Store: lock.DynamoDB, ID: evil, Who: evil, Operation: evil, Created: evil, Status: lock.Active, Confidence: lock.Proven, Reasons: []string{evil}, Run: &lock.Run{URL: evil, Status: evil}}
	text := lockedState(lock.Report{State: evil, Status: lock.Active, Locks: []lock.ReportEntry{e}})
	if n := strings.Count(text, "\n"); n != 5 {
		t.Errorf("%d lines, want 5", n)
	}
	for _, c := range text {
		if unicode.IsControl(c) && c != '\n' || unicode.Is(unicode.Bidi_Control, c) {
			t.Errorf("it has %U", c)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "##[") || strings.HasPrefix(strings.TrimSpace(line), "::") {
			t.Errorf("a runner would take it for a command: %q", line)
		}
	}
}
