//go:build linux

package storm

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/testkit"
)

var (
	long    = flag.Bool("long", false, "the whole storm, not its short form")
	seed    = flag.Uint64("seed", 0, "of the random moments; 0 takes one from the clock")
	moments = flag.Int("moments", 200, "with -long: at how many random moments a run is cancelled; half as often all of it is killed")
)

// TestMain lets more cases run side by side than there are cores: they mostly
// wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(max(4, 2*runtime.NumCPU()))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// world is what all cases share: the programs and the cloud.
type world struct {
	tfguard   string // as `make build` makes it, without the race detector
	watched   string // the same with the race detector
	terraform string
	rc        string // terraform's own configuration, with the provider
	cloud     *testkit.Cloud
	figures   *figures
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cloud: testkit.Start(t), figures: newFigures()}
	var err error
	if w.terraform, err = exec.LookPath("terraform"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w.rc = testkit.Provider(t)
	w.tfguard, w.watched = filepath.Join(dir, "tfguard"), filepath.Join(dir, "race", "tfguard")
	for out, flags := range map[string][]string{w.tfguard: {"-ldflags", "-s -w"}, w.watched: {"-race"}} {
		args := append(append([]string{"build", "-o", out}, flags...), "github.com/tfguard/tfguard/cmd/tfguard")
		if text, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("build tfguard: %v\n%s", err, text)
		}
	}
	return w
}

// poll is how often a condition is looked at.
const poll = 5 * time.Millisecond

// until waits for a condition, no longer than a deadline that a loaded machine
// does not reach.
func until(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for end := time.Now().Add(d); !ok(); {
		if time.Now().After(end) {
			return ok()
		}
		<-tick.C
	}
	return true
}

// after lets a moment pass: one that the case itself is about.
func after(d time.Duration) {
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	<-ctx.Done()
}

// rows of a text, without the empty ones.
func rows(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
