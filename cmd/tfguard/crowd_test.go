package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/testkit"
)

// crowd is how many applies are started at once; `make crowd` takes 50.
var crowd = flag.Int("crowd", 6, "how many applies TestCrowd starts at once")

// lasting is a resource whose change takes a moment, and writes down when it
// begins and ends. Lines of one write each: of two applies that overlap, the
// lines do too.
const lasting = `
resource "terraform_data" "hello" {
  input            = var.greeting
  triggers_replace = var.greeting

  provisioner "local-exec" {
    command = "echo begin ${var.greeting} >> %[1]s && sleep 0.2 && echo end ${var.greeting} >> %[1]s"
  }
}
`

// G1, with as many tfguards as there are, each from a checkout of its own and
// with a change of its own: no two applies overlap. Who waits gets its turn, and
// its change is in a serial of its own; who does not wait and loses exits 10 and
// has changed nothing.
func TestCrowd(t *testing.T) {
	tfguard := buildProgram(t)
	for _, mode := range []string{testkit.DynamoDB, testkit.Lockfile} {
		t.Run(mode+", all wait", func(t *testing.T) {
			c := newCrowd(t, tfguard, mode)
			c.start("--wait", "10m")
			for i, r := range c.results {
				if r.code != 0 {
					t.Errorf("apply %d ended with %d after %s:\n%s", i, r.code, r.took, r.output)
				}
			}
			c.check()
		})
		t.Run(mode+", nobody waits", func(t *testing.T) {
			c := newCrowd(t, tfguard, mode)
			c.start()
			for i, r := range c.results {
				if r.code != 0 && r.code != 10 {
					t.Errorf("apply %d ended with %d after %s:\n%s", i, r.code, r.took, r.output)
				}
			}
			c.check()
		})
	}
}

type crowdResult struct {
	code   int
	took   time.Duration
	output string
}

type crowdBench struct {
	*bench
	tfguard string
	log     string
	results []crowdResult
}

func newCrowd(t *testing.T, tfguard, mode string) *crowdBench {
	c := &crowdBench{bench: newBench(t, mode), tfguard: tfguard, log: filepath.Join(t.TempDir(), "log"), results: make([]crowdResult, *crowd)}
	text := c.read("main.tf") + fmt.Sprintf(lasting, c.log)
	for i := range c.results {
		if err := os.Mkdir(c.checkout(i), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.checkout(i), "main.tf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *crowdBench) checkout(i int) string {
	return filepath.Join(c.dir, fmt.Sprintf("checkout-%d", i))
}

// start runs all of them at once and waits for them.
func (c *crowdBench) start(args ...string) {
	ctx, stop := context.WithTimeout(c.t.Context(), 15*time.Minute)
	defer stop()
	var all sync.WaitGroup
	for i := range c.results {
		cmd := exec.CommandContext(ctx, c.tfguard, append([]string{"apply", "--auto-approve", "--var", greeting(i)}, args...)...)
		cmd.Dir, cmd.Env = c.checkout(i), plainEnv()
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		all.Go(func() {
			began := time.Now()
			err := cmd.Run()
			r := crowdResult{took: time.Since(began), output: out.String()}
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				r.code = exit.ExitCode()
			} else if err != nil {
				c.t.Errorf("apply %d: %v", i, err)
			}
			c.results[i] = r
		})
	}
	all.Wait()
}

// check holds what was promised against the log of the resources and against
// every version that the state ever had.
func (c *crowdBench) check() {
	c.t.Helper()
	var winners []string
	var last time.Duration
	for i, r := range c.results {
		if r.code == 0 {
			winners = append(winners, fmt.Sprint(i))
			last = max(last, r.took)
		}
	}
	c.t.Logf("%d of %d applied, the last after %s", len(winners), len(c.results), last.Round(time.Millisecond))
	if len(winners) == 0 {
		c.t.Error("nobody has applied")
	}
	log, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	var applied []string
	lines := strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		who, ok := strings.CutPrefix(lines[i], "begin ")
		if !ok || lines[i+1] != "end "+who {
			c.t.Fatalf("two applies overlap, or one did not end:\n%s", log)
		}
		applied = append(applied, who)
	}
	if len(lines)%2 != 0 {
		c.t.Fatalf("an apply did not end:\n%s", log)
	}
	serials := c.serials()
	var saved []string
	for i, s := range serials {
		if s.Serial != i+1 {
			c.t.Errorf("the serials are %+v", serials)
			break
		}
		saved = append(saved, s.greeting())
	}
	if !slices.Equal(applied, saved) {
		c.t.Errorf("resources were changed for %q, in this order; the state was saved for %q", applied, saved)
	}
	slices.Sort(applied)
	slices.Sort(winners)
	if !slices.Equal(applied, winners) {
		c.t.Errorf("changed by %q; with 0 ended %q", applied, winners)
	}
	c.nothingLeft()
}

// version is what a version of the state says.
type version struct {
	Serial    int `json:"serial"`
	Resources []struct {
		Instances []struct {
			Attributes struct {
				Input struct {
					Value string `json:"value"`
				} `json:"input"`
			} `json:"attributes"`
		} `json:"instances"`
	} `json:"resources"`
}

func (v version) greeting() string {
	if len(v.Resources) == 1 && len(v.Resources[0].Instances) == 1 {
		return v.Resources[0].Instances[0].Attributes.Input.Value
	}
	return ""
}

// serials are all versions that the state ever had, by their serial.
func (c *crowdBench) serials() []version {
	c.t.Helper()
	store := c.cloud.Clients.S3
	in := &s3.ListObjectVersionsInput{Bucket: &c.addr.Bucket, Prefix: &c.addr.Key}
	var all []version
	for pages := s3.NewListObjectVersionsPaginator(store, in); pages.HasMorePages(); {
		page, err := pages.NextPage(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		for _, o := range page.Versions {
			if aws.ToString(o.Key) != c.addr.Key {
				continue // a lock
			}
			out, err := store.GetObject(c.t.Context(), &s3.GetObjectInput{Bucket: &c.addr.Bucket, Key: o.Key, VersionId: o.VersionId})
			if err != nil {
				c.t.Fatal(err)
			}
			body, err := io.ReadAll(out.Body)
			_ = out.Body.Close()
			var v version
			if err = errors.Join(err, json.Unmarshal(body, &v)); err != nil {
				c.t.Fatal(err)
			}
			all = append(all, v)
		}
	}
	slices.SortStableFunc(all, func(a, b version) int { return cmp.Compare(a.Serial, b.Serial) })
	return all
}

// nothingLeft looks that no lock and no holder record is left (G3).
func (c *crowdBench) nothingLeft() {
	c.t.Helper()
	cmd := exec.Command(c.tfguard, "locks", "--json")
	cmd.Dir, cmd.Env = c.checkout(0), plainEnv()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"status":"none"`) {
		c.t.Errorf("locks afterwards: %v\n%s", err, out)
	}
}
