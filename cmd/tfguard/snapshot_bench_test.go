package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/testkit"
)

// maxCopyMemory is what issue 5 allows a copy of a state of 100 MB, in bytes at
// the peak.
const maxCopyMemory = 64 << 20

// sizes are those of issue 5.
func sizes() []struct {
	name  string
	bytes int
} {
	return []struct {
		name  string
		bytes int
	}{{"1 KB", 1 << 10}, {"10 MB", 10 << 20}, {"100 MB", 100 << 20}}
}

// BenchmarkSnapshot is what `snapshot create` and `snapshot restore` cost for a
// state of each size: tfguard's own requests, and the memory of its process at
// the peak. What create costs does not grow with the state. A restore reads and
// writes the state through a file; it is measured without the plan that follows,
// which is terraform's work: here its plan fails at once.
func BenchmarkSnapshot(b *testing.B) {
	tfguard := buildProgram(b)
	for _, size := range sizes() {
		for _, command := range []string{"create", "restore"} {
			b.Run(command+" of "+size.name, func(b *testing.B) {
				f := newBench(b, testkit.Both)
				f.write("unplanned", "#!/bin/sh\ntest \"$1\" != plan && exec terraform \"$@\"\n")
				f.run("chmod", "+x", "unplanned")
				var made copied
				for b.Loop() {
					f.holdState(1, size.bytes)
					made = f.measured(0, tfguard, "snapshot", "create", "--json")
					if command == "restore" {
						f.holdState(2, size.bytes)
						made = f.measured(1, tfguard, "snapshot", "restore", "--auto-approve", "--no-detach", "--var", greeting(0), "--terraform-bin", "./unplanned", made.id)
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(made.requests), "requests")
				b.ReportMetric(float64(made.memory)/(1<<20), "MiB")
				b.ReportMetric(made.took.Seconds()*1000, "ms")
			})
		}
	}
}

// A copy is made by the store itself: of a state of 10 MB it costs the requests
// of one of 1 KB, and no memory for the state (issue 5, G4). (The 100 MB of the
// issue are in the benchmark.)
func TestSnapshotDoesNotGrow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a process's peak is read from /proc")
	}
	tfguard := buildProgram(t)
	f := newBench(t, testkit.Both)
	f.holdState(1, 1<<10)
	small := f.measured(0, tfguard, "snapshot", "create", "--json")
	f.holdState(2, 10<<20)
	large := f.measured(0, tfguard, "snapshot", "create", "--json")
	t.Logf("1 KB: %d requests, %.1f MiB; 10 MB: %d requests, %.1f MiB", small.requests, float64(small.memory)/(1<<20), large.requests, float64(large.memory)/(1<<20))
	if small.requests != large.requests {
		t.Errorf("%d requests for 1 KB, %d for 10 MB", small.requests, large.requests)
	}
	if large.memory > small.memory+8<<20 || large.memory > maxCopyMemory {
		t.Errorf("%d bytes of memory for 1 KB, %d for 10 MB", small.memory, large.memory)
	}
}

// copied is what a command on snapshots took.
type copied struct {
	id       string // that create made
	requests int    // tfguard's own
	memory   int64  // bytes of its process at the peak; 0 but on Linux
	took     time.Duration
}

// measured runs a command that must end with this code.
func (f *bench) measured(code int, tfguard string, args ...string) copied {
	f.t.Helper()
	before := total(f.server.Stats().Agents["tfguard"])
	ctx, stop := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, tfguard, args...)
	cmd.Dir, cmd.Env = f.dir, plainEnv()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	began := time.Now()
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended, watched := make(chan struct{}), make(chan int64)
	go func() { watched <- watchMemory(cmd.Process.Pid, ended) }()
	_ = cmd.Wait() // the code says it
	close(ended)
	done := copied{memory: <-watched, took: time.Since(began)}
	if have := cmd.ProcessState.ExitCode(); have != code || code == 1 && !strings.Contains(complaints.String(), "the state is restored") {
		f.t.Fatalf("%s: exit code %d\n%.2000s%.2000s", strings.Join(args, " "), have, out.String(), complaints.String())
	}
	done.requests = total(f.server.Stats().Agents["tfguard"]) - before
	if args[1] == "create" {
		var made struct{ ID string }
		if err := json.Unmarshal(out.Bytes(), &made); err != nil {
			f.t.Fatalf("%v: %s", err, out.String())
		}
		done.id = made.ID
	}
	return done
}

// holdState writes a state of about this size, with its digest.
func (f *bench) holdState(serial, size int) {
	f.t.Helper()
	const head = `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"6a4a1dff-9bd1-d0c5-b6a4-6f4d8c0a3e5b","outputs":{},"resources":[`
	const resource = `{"mode":"managed","type":"terraform_data","name":"big_%d","provider":"provider[\"terraform.io/builtin/terraform\"]","instances":[` +
		`{"schema_version":0,"attributes":{"id":"a","input":{"value":%q,"type":"string"},"output":{"value":"","type":"string"},"triggers_replace":null},"sensitive_attributes":[]}]}`
	body := fmt.Appendf(nil, head, serial)
	text := strings.Repeat("x", min(size/2, 20_000)) // as a big user_data is, or a policy
	for i := 0; i == 0 || len(body)+len(text) < size; i++ {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, resource, i, text)
	}
	body = append(body, `],"check_results":null}`...)
	if _, err := f.cloud.Clients.S3.PutObject(f.t.Context(), &s3.PutObjectInput{Bucket: &f.addr.Bucket, Key: &f.addr.Key, Body: bytes.NewReader(body)}); err != nil {
		f.t.Fatal(err)
	}
	sum := md5.Sum(body)
	if _, err := f.cloud.Clients.DynamoDB.PutItem(f.t.Context(), &dynamodb.PutItemInput{TableName: &f.addr.Table, Item: map[string]dynamotypes.AttributeValue{
		"LockID": &dynamotypes.AttributeValueMemberS{Value: f.addr.DigestID()}, "Digest": &dynamotypes.AttributeValueMemberS{Value: hex.EncodeToString(sum[:])}}}); err != nil {
		f.t.Fatal(err)
	}
}
