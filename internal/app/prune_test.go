package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/state"
	"github.com/tfguard/tfguard/internal/testkit"
)

// The first apply of a day removes the copies that are beyond the last 30 and 30
// days, and never one that the journal of a failed run names: it may be the only
// way back (issue 5, G4).
func TestPruneAfterApply(t *testing.T) {
	cloud := testkit.Start(t)
	_, addr := cloud.State(t, testkit.Lockfile)
	now := time.Now().UTC()
	old := func(day int) string {
		return fmt.Sprintf("%s-pre-apply-%d", now.AddDate(0, 0, -40-day).Format("20060102T150405.000Z"), 100-day)
	}
	client, ctx := cloud.Clients.S3, t.Context()
	for day := range 34 {
		key := addr.SnapshotPrefix() + old(day) + ".tfstate"
		if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &addr.Bucket, Key: &key, Body: strings.NewReader("a copy")}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, run := range map[string]struct{ id, end string }{
		"20260101T000000Z-aaaa": {old(33), "failed"}, "20260102T000000Z-bbbb": {old(32), ""}, "20260103T000000Z-cccc": {old(31), "ok"},
	} {
		journal := filepath.Join(dir, ".tfguard", "runs", name, "events.ndjson")
		if err := os.MkdirAll(filepath.Dir(journal), 0o700); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`{"type":"snapshot","time":"2026-01-01T00:00:00Z","run":%q,"id":%q,"key":"k","serial":1,"lineage":"l","sha256":"s"}`+"\n", name, run.id)
		if run.end != "" {
			text += fmt.Sprintf(`{"type":"run_finished","time":"2026-01-01T00:00:00Z","run":%q,"status":%q,"exit_code":0,"seconds":1}`+"\n", name, run.end)
		}
		if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &states{t: &target{addr: addr, clients: cloud.Clients}, set: &settings{dir: dir}, run: &run{sink: &fanOut{}}}
	left := func() map[string]bool {
		out, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &addr.Bucket, Prefix: new(addr.SnapshotPrefix())})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for _, o := range out.Contents {
			all[strings.TrimSuffix(filepath.Base(*o.Key), ".tfstate")] = true
		}
		return all
	}

	s.copied(state.Head{Modified: time.Now()})
	s.prune(ctx)
	if n := len(left()); n != 34 {
		t.Errorf("%d copies after an apply to a state that was written today", n)
	}
	s.copied(state.Head{Modified: time.Now().AddDate(0, 0, -1)})
	s.prune(ctx)
	want := map[string]bool{old(33): true, old(32): true}
	for day := range 30 {
		want[old(day)] = true
	}
	if d := cmp.Diff(want, left()); d != "" {
		t.Error(d)
	}
}
