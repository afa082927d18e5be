package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/backend"
	"github.com/tfguard/tfguard/internal/sandbox"
	"github.com/tfguard/tfguard/internal/testkit"
)

// What issue 1 allows.
const (
	maxRequests = 16       // of tfguard's own in an ordinary apply
	maxRSS      = 64 << 20 // bytes at the peak of an apply
)

// pairs is how often both ways are timed, one after the other.
const pairs = 15

// BenchmarkOverhead is the wall time of `tfguard apply` over that of bare
// `terraform init && terraform plan -out && terraform apply PLAN`: the same
// configuration and change, the same backend and locks, both from a folder
// without .terraform. They take turns, and each pair gives one ratio, so that
// what else the machine does meets both. Terraform's version check over the
// network is off for both. The target is a median of at most 1.15.
func BenchmarkOverhead(b *testing.B) {
	tfguard := buildProgram(b)
	for _, mode := range []string{testkit.DynamoDB, testkit.Lockfile} {
		b.Run(mode, func(b *testing.B) {
			guarded, bare := newBench(b, mode), newBench(b, mode)
			apply := func(change int) {
				guarded.run(tfguard, "apply", "--auto-approve", "--var", greeting(change))
			}
			threeSteps := func(change int) {
				bare.run("terraform", "init", "-input=false")
				bare.run("terraform", "plan", "-input=false", "-out=plan.tfplan", "-var", greeting(change))
				bare.run("terraform", "apply", "-input=false", "plan.tfplan")
			}
			apply(0)
			threeSteps(0)
			var ratios, ours, theirs []float64
			for b.Loop() {
				for i := 1; i <= pairs; i++ {
					guarded.clean()
					bare.clean()
					var a, t time.Duration
					if i%2 == 0 {
						a, t = timed(i, apply), timed(i, threeSteps)
					} else {
						t, a = timed(i, threeSteps), timed(i, apply)
					}
					ratios = append(ratios, float64(a)/float64(t))
					ours, theirs = append(ours, a.Seconds()*1000), append(theirs, t.Seconds()*1000)
				}
			}
			b.ReportMetric(0, "ns/op") // of both together: says nothing
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(ours), "tfguard-ms")
			b.ReportMetric(median(theirs), "terraform-ms")
		})
	}
}

// BenchmarkVersion is how long the program takes to start and end: the median
// of 30. The target is 30 ms.
func BenchmarkVersion(b *testing.B) {
	tfguard := buildProgram(b)
	var took []float64
	for b.Loop() {
		for i := range 30 {
			took = append(took, timed(i, func(int) {
				if out, err := exec.Command(tfguard, "version").CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}).Seconds()*1000)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(took), "ms")
}

// BenchmarkOrdinaryApply reports what TestOrdinaryApply holds.
func BenchmarkOrdinaryApply(b *testing.B) {
	tfguard := buildProgram(b)
	for _, mode := range []string{testkit.DynamoDB, testkit.Lockfile, testkit.Both} {
		b.Run(mode, func(b *testing.B) {
			var requests map[string]int
			var rss int64
			for b.Loop() {
				requests, rss = ordinaryApply(b, tfguard, mode)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(total(requests)), "requests")
			b.ReportMetric(float64(rss)/(1<<20), "MiB")
		})
	}
}

// An apply of one change to a state that exists costs at most 16 requests
// beside terraform's own, in whichever way the state is locked, and at most
// 64 MiB of memory (issue 1). Neither depends on the machine's speed.
func TestOrdinaryApply(t *testing.T) {
	tfguard := buildProgram(t)
	for _, mode := range []string{testkit.DynamoDB, testkit.Lockfile, testkit.Both} {
		t.Run(mode, func(t *testing.T) {
			requests, rss := ordinaryApply(t, tfguard, mode)
			var list []string
			for _, op := range slices.Sorted(maps.Keys(requests)) {
				list = append(list, fmt.Sprintf("%d × %s", requests[op], op))
			}
			n := total(requests)
			t.Logf("%d requests: %s; %.1f MiB", n, strings.Join(list, ", "), float64(rss)/(1<<20))
			if n == 0 || n > maxRequests {
				t.Errorf("%d requests of its own, at most %d are allowed", n, maxRequests)
			}
			if rss == 0 || rss > maxRSS {
				t.Errorf("%d bytes of memory at the peak, at most %d are allowed", rss, maxRSS)
			}
		})
	}
}

// ordinaryApply applies a change to a state that exists, and gives tfguard's
// own requests by operation, and the most memory it had, in bytes.
func ordinaryApply(t testing.TB, tfguard, mode string) (requests map[string]int, rss int64) {
	t.Helper()
	f := newBench(t, mode)
	f.run(tfguard, "apply", "--auto-approve", "--var", greeting(0))
	f.clean()
	before := f.server.Stats().Agents["tfguard"]
	state := f.run(tfguard, "apply", "--auto-approve", "--var", greeting(1))
	requests = f.server.Stats().Agents["tfguard"]
	for op, n := range before {
		if requests[op] -= n; requests[op] == 0 {
			delete(requests, op)
		}
	}
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("this system does not tell how much memory a process had")
	}
	return requests, usage.Maxrss << 10 // Linux counts in KiB
}

// bench is a folder with a configuration of one resource, whose state is in a
// sandbox of its own in this process.
type bench struct {
	t      testing.TB
	dir    string
	server *sandbox.Server
	cloud  *testkit.Cloud
	addr   backend.Address
}

func newBench(t testing.TB, mode string) *bench {
	t.Helper()
	testkit.Isolate(t)
	server, err := sandbox.Open(filepath.Join(t.TempDir(), "sandbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	cloud := &testkit.Cloud{URL: testkit.Serve(t, server)}
	cloud.Clients = cloud.Via(t, cloud.URL)
	s, addr := cloud.State(t, mode)
	locks := ""
	if s.DynamoDBTable != "" {
		locks += fmt.Sprintf("    dynamodb_table = %q\n", s.DynamoDBTable)
	}
	if s.UseLockfile {
		locks += "    use_lockfile = true\n"
	}
	f := &bench{t: t, dir: t.TempDir(), server: server, cloud: cloud, addr: addr}
	text := fmt.Sprintf(`terraform {
  backend "s3" {
    bucket = %q
    key    = %q
    region = %q
%s
    access_key                  = %q
    secret_key                  = %q
    use_path_style              = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_requesting_account_id  = true
    endpoints = {
      s3       = %[7]q
      dynamodb = %[7]q
    }
  }
}

variable "greeting" {
  type = string
}

resource "terraform_data" "hello" {
  input = var.greeting
}
`, s.Bucket, s.Key, s.Region, locks, sandbox.AccessKey, sandbox.SecretKey, cloud.URL)
	file := filepath.Join(f.dir, "main.tf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f.run("terraform", "fmt", file)
	return f
}

// clean leaves what a fresh checkout has.
func (f *bench) clean() {
	f.t.Helper()
	for _, name := range []string{".terraform", ".terraform.lock.hcl", ".tfguard", "plan.tfplan"} {
		if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
			f.t.Fatal(err)
		}
	}
}

// plainEnv is the environment without what the machine has set for terraform,
// tfguard or a CI job.
func plainEnv() []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "TF_") || strings.HasPrefix(v, "TFGUARD_") || strings.HasPrefix(v, "GITHUB_")
	}), "CHECKPOINT_DISABLE=1")
}

// run runs a program in the folder; it must succeed.
func (f *bench) run(name string, args ...string) *os.ProcessState {
	f.t.Helper()
	ctx, stop := context.WithTimeout(f.t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = f.dir
	cmd.Env = plainEnv()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		f.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out.String())
	}
	return cmd.ProcessState
}

// buildProgram builds the program as `make build` does, without the race
// detector of the test that calls it.
func buildProgram(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tfguard")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build tfguard: %v\n%s", err, out)
	}
	return path
}

func greeting(n int) string { return fmt.Sprintf("greeting=%d", n) }

func timed(n int, fn func(int)) time.Duration {
	began := time.Now()
	fn(n)
	return time.Since(began)
}

func median(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
