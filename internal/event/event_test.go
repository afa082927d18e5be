package event

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/lock"
)

// TestRoundTrip: every event is one line that gives the same event again.
func TestRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 22, 17, 45, 1, 5e6, time.UTC)
	for _, e := range []Event{
		RunStarted{"apply", "0.1.0", "/x"},
		StageStarted{"plan"},
		StageFinished{"plan", OK, 1.5, "no changes"},
		Lock{lock.Report{Version: 1, State: "b/k", Status: lock.Stale, Locks: []lock.ReportEntry{{Store: lock.S3, ID: "a", Reasons: []string{"old"}}}}},
		Plan{1, 2, 3, 1, true, []Change{{"a.b", "create"}}},
		Resource{"a.b", "create", "done", 2},
		Snapshot{"id", "key", 4, "lineage", "ab"},
		Diagnostic{"error", "s", "d", "a.b", "main.tf", 3, "x = 1", "terraform fmt"},
		ApprovalNeeded{"unlock", []string{"a"}, "tfguard unlock --id a"},
		Output{"apply", "two\nlines ##[error]", true},
		Question{"sure?"},
		RunFinished{OK, 0, 3, "why", "tfguard locks"},
	} {
		t.Run(e.Type(), func(t *testing.T) {
			line, err := Encode("run-1", at, e)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Count(line, []byte("\n")) != 1 || bytes.Contains(line, []byte("##[")) || !json.Valid(line) {
				t.Errorf("not one safe line of JSON: %s", line)
			}
			h, got, err := Decode(line)
			if err != nil || h != (Header{e.Type(), at, "run-1"}) {
				t.Fatalf("%+v, %v", h, err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnknownTypeIsNoError(t *testing.T) {
	if _, e, err := Decode([]byte(`{"type":"later","run":"r"}`)); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
}
