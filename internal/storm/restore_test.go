//go:build linux

package storm

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/lock/s3lock"
	"github.com/tfguard/tfguard/internal/snapshot"
	"github.com/tfguard/tfguard/internal/testkit"
)

var kills = flag.Int("kills", 10, "at how many random moments a restore and a migrate-lock are killed, each")

// TestRestoreStorm kills everything of a `snapshot restore` and of a `backend
// migrate-lock` at random moments, as a lost machine does (issue 5, G3, G4).
func TestRestoreStorm(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	w := newWorld(t)
	left := &leftovers{}
	t.Run("all", func(t *testing.T) {
		t.Run("restore", func(t *testing.T) { t.Parallel(); w.restoreKilled(t, left) })
		t.Run("migrate-lock", func(t *testing.T) { t.Parallel(); w.migrateKilled(t, left) })
	})
	left.log(t)
}

// leftovers counts what kills have left.
type leftovers struct {
	mu     sync.Mutex
	counts map[string]map[string]int
}

func (l *leftovers) count(command string, what ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[string]map[string]int{}
	}
	if l.counts[command] == nil {
		l.counts[command] = map[string]int{}
	}
	for _, w := range append(what, "killed") {
		l.counts[command][w]++
	}
}

// log prints a row of docs/storm.md for each command.
func (l *leftovers) log(t *testing.T) {
	text := "| killed | moments | the old one was there | the new one | a lock was left | a holder record | the digest was one behind |\n|---|---|---|---|---|---|---|\n"
	for _, command := range []string{"restore", "migrate-lock"} {
		c := l.counts[command]
		text += fmt.Sprintf("| `%s` | %d | %d | %d | %d | %d | %d |\n", command, c["killed"], c["old"], c["new"], c["lock"], c["record"], c["digest"])
	}
	t.Logf("what the kills left:\n%s", text)
}

// instant is a moment of a command, told by its requests whatever the speed of
// the machine: before one is carried out, after it and before its answer comes,
// or some milliseconds later.
type instant struct {
	request int // from 0; the number of all of them is after the last
	done    bool
	later   time.Duration
}

func (i instant) String() string {
	switch {
	case i.later > 0:
		return fmt.Sprintf("%s after request %d", i.later, i.request)
	case i.done:
		return fmt.Sprintf("at the answer to request %d", i.request)
	}
	return fmt.Sprintf("at request %d", i.request)
}

// randomInstant is one of a command that makes so many requests.
func randomInstant(r *rand.Rand, requests int) instant {
	i := instant{request: r.IntN(requests)}
	switch r.IntN(3) {
	case 0:
		i.done = true
	case 1:
		i.later = time.Duration(1+r.IntN(40)) * time.Millisecond
	}
	return i
}

// killedAt runs a command and kills all of it at an instant, or lets it end where
// it comes to none.
func (y *yard) killedAt(at instant, args ...string) {
	y.Helper()
	fault := testkit.Fault{After: at.request, Times: 1}
	reached := make(chan struct{})
	strike := func(*http.Request) {
		if at.later > 0 {
			close(reached)
			return
		}
		y.killAll()
	}
	switch {
	case at.done:
		fault.Done, fault.Drop = strike, true
	case at.later > 0:
		fault.Before = strike
	default:
		fault.Before, fault.Refuse = strike, true // it never arrives
	}
	y.proxy.Add(fault)
	p := y.tfguard(args...)
	if at.later > 0 {
		select {
		case <-reached:
			after(at.later)
			y.killAll()
		case <-p.done:
		}
	}
	p.wait(time.Minute)
	y.quiet()
	after(100 * time.Millisecond) // a request that was under way may still arrive
	y.proxy.Reset()
	y.Logf("killed %s: it printed\n%s", at, p.output())
}

// run runs a command that must end with a code.
func (y *yard) run(code int, args ...string) string {
	y.Helper()
	p := y.tfguard(args...)
	if got := p.wait(2 * time.Minute); got != code {
		y.Errorf("%s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, p.output())
	}
	y.quiet()
	return p.output()
}

// requests counts what a command asks when nothing happens to it.
func (y *yard) requests(args ...string) int {
	y.Helper()
	y.proxy.Reset()
	y.run(0, args...)
	n := len(y.proxy.Requests())
	y.proxy.Reset()
	return n
}

// owned holds that `locks` tells of every lock that is left whose it was: that
// of a run that is dead, proven.
func (y *yard) owned() {
	y.Helper()
	p := y.tfguard("locks", "--json")
	code := p.wait(time.Minute)
	var v struct {
		Locks []struct{ Store, Status, Confidence, ID string }
	}
	if !until(10*time.Second, func() bool { return json.Unmarshal([]byte(p.output()), &v) == nil }) { // what it printed comes through a pipe
		y.Fatalf("locks: exit code %d: %s", code, p.output())
	}
	if code != 0 || len(v.Locks) == 0 {
		y.Errorf("locks: exit code %d with a lock left: %s", code, p.output())
	}
	for _, l := range v.Locks {
		if l.Status != "stale" || l.Confidence != "proven" {
			y.Errorf("the lock in %s is %s, %s: %s", l.Store, l.Status, l.Confidence, p.output())
		}
	}
}

// Of the states that a restore is about.
const (
	restoredSerial = 1 // what is put back
	currentSerial  = 2 // what is there
	nextSerial     = 3 // what it gets
)

// stateOf is the text of a state that terraform can plan from.
func stateOf(serial int, value string) string {
	return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"6a4a1dff-9bd1-d0c5-b6a4-6f4d8c0a3e5b","outputs":{},"resources":[`+
		`{"mode":"managed","type":"terraform_data","name":"x","provider":"provider[\"terraform.io/builtin/terraform\"]","instances":[{"schema_version":0,`+
		`"attributes":{"id":"8a1b2c3d-0000-4000-8000-000000000000","input":{"value":%[2]q,"type":"string"},"output":{"value":%[2]q,"type":"string"},"triggers_replace":null},"sensitive_attributes":[]}]}],"check_results":null}`, serial, value)
}

// hold writes a state and its digest.
func (y *yard) hold(text string) {
	y.Helper()
	ctx := y.Context()
	if _, err := y.w.cloud.Clients.S3.PutObject(ctx, &s3.PutObjectInput{Bucket: &y.addr.Bucket, Key: &y.addr.Key, Body: strings.NewReader(text)}); err != nil {
		y.Fatal(err)
	}
	if y.addr.Table == "" {
		return
	}
	if _, err := y.w.cloud.Clients.DynamoDB.PutItem(ctx, &dynamodb.PutItemInput{TableName: &y.addr.Table, Item: map[string]dynamotypes.AttributeValue{
		"LockID": &dynamotypes.AttributeValueMemberS{Value: y.addr.DigestID()}, "Digest": &dynamotypes.AttributeValueMemberS{Value: md5Of(text)}}}); err != nil {
		y.Fatal(err)
	}
}

func md5Of(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// stateText is the state byte for byte; digest is what the table has, empty
// where it has none.
func (y *yard) stateText() (text, digest string) {
	y.Helper()
	out, err := y.w.cloud.Clients.S3.GetObject(y.Context(), &s3.GetObjectInput{Bucket: &y.addr.Bucket, Key: &y.addr.Key})
	if err != nil {
		y.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		y.Fatal(err)
	}
	if y.addr.Table != "" {
		if have, ok := y.item(y.addr.DigestID())["Digest"].(*dynamotypes.AttributeValueMemberS); ok {
			digest = have.Value
		}
	}
	return string(b), digest
}

// newRestore is a yard whose state has a copy that was made before the last
// write.
func newRestore(t *testing.T, w *world, lock string) (y *yard, id string) {
	t.Helper()
	y = newYard(t, w, lock, layout{none: true})
	y.write("main.tf", "resource \"terraform_data\" \"x\" {\n  input = \"restored\"\n}\n")
	y.hold(stateOf(restoredSerial, "restored"))
	store := snapshot.New(w.cloud.Clients.S3, y.addr, snapshot.Options{})
	head, err := store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.Keep(t.Context(), head, snapshot.Manual)
	if err != nil {
		t.Fatal(err)
	}
	y.hold(stateOf(currentSerial, "current"))
	return y, kept.ID
}

// restoreKilled kills restores: the state is the old one or the new one, byte for
// byte; whose the lock is, is known; and the next run mends it all.
func (w *world) restoreKilled(t *testing.T, left *leftovers) {
	random := rand.New(rand.NewPCG(*seed, 11))
	most := map[string]int{}
	for _, lock := range lockModes() {
		t.Run("undisturbed/"+lock, func(t *testing.T) {
			y, id := newRestore(t, w, lock)
			most[lock] = y.requests("snapshot", "restore", "--auto-approve", id)
			if now, _ := y.stateText(); now != stateOf(nextSerial, "restored") {
				y.Fatalf("the state is %s", now)
			}
		})
	}
	for i := range *kills {
		lock := lockModes()[i%3]
		at := randomInstant(random, most[lock]+1)
		t.Run(fmt.Sprintf("%d %s %s", i, lock, at), func(t *testing.T) {
			t.Parallel()
			y, id := newRestore(t, w, lock)
			y.killedAt(at, "snapshot", "restore", "--auto-approve", id)
			now, digest := y.stateText()
			var found []string
			switch now {
			case stateOf(currentSerial, "current"):
				found = append(found, "old")
			case stateOf(nextSerial, "restored"):
				found = append(found, "new")
			default:
				y.Fatalf("the state is neither the old one nor the new one: %s", now)
			}
			if y.addr.Table != "" && digest != md5Of(now) {
				found = append(found, "digest")
				if digest != md5Of(stateOf(currentSerial, "current")) {
					y.Errorf("the digest is of neither state: %s", digest)
				}
			}
			if len(y.locks()) > 0 {
				found = append(found, "lock")
				y.owned()
			}
			if y.held() {
				found = append(found, "record")
			}
			left.count("restore", found...)

			want := now
			if i%2 == 0 {
				y.run(0, "state", "repair", "--auto-approve", "--unlock-stale", "proven")
			} else {
				y.run(0, "snapshot", "restore", "--auto-approve", "--unlock-stale", "proven", id)
				if want = stateOf(nextSerial, "restored"); now == want {
					want = stateOf(nextSerial+1, "restored")
				}
			}
			if now, _ := y.stateText(); now != want {
				y.Errorf("mended, the state is %s", now)
			}
			y.mended()
		})
	}
}

// mended is what the next run leaves: no lock, no record, nothing to find, and a
// terraform that plans.
func (y *yard) mended() {
	y.Helper()
	if left := y.locks(); len(left) > 0 || y.held() {
		y.Errorf("left: %v, holder record %v", left, y.held())
	}
	y.run(0, "state", "verify")
	y.run(0, "plan")
	for _, pattern := range []string{"errored.tfstate", ".tfguard/runs/*/plan.tfplan"} { // lock.log is a dead run's evidence
		if files, _ := filepath.Glob(filepath.Join(y.dir, pattern)); len(files) > 0 {
			y.Errorf("left on disk: %v", files)
		}
	}
}

// turn is one step of a migrate-lock.
type turn struct {
	name     string
	lock     string // what the configuration has before
	becomes  string // and after
	args     []string
	note     string // the step that came before; empty: none
	to       string
	used     bool // somebody has run since
	stale    bool // the digest is of long ago
	noDigest bool // it is gone afterwards
}

func turns() []turn {
	return []turn{
		{name: "to both", lock: testkit.DynamoDB, becomes: testkit.Both},
		{name: "to the lock file alone", lock: testkit.Both, becomes: testkit.Lockfile, note: "both", to: "lockfile", used: true},
		{name: "drop the digest", lock: testkit.Lockfile, becomes: testkit.Lockfile, note: "alone", to: "lockfile", used: true, stale: true, noDigest: true},
		{name: "back to both", lock: testkit.Lockfile, becomes: testkit.Both, args: []string{"--to", "dynamodb"}, stale: true},
		{name: "back to the table alone", lock: testkit.Both, becomes: testkit.DynamoDB, note: "both", to: "dynamodb", used: true},
	}
}

// newTurn is a yard in which a step can be done. It has both stores, whatever its
// configuration names.
func newTurn(t *testing.T, w *world, c turn) (y *yard, args []string) {
	t.Helper()
	y = newYard(t, w, testkit.Both, layout{none: true})
	y.write("main.tf", "resource \"terraform_data\" \"x\" {\n  input = \"current\"\n}\n")
	y.lock = c.lock
	y.write("backend.tf", y.backend())
	y.hold(stateOf(currentSerial, "current"))
	args = append([]string{"backend", "migrate-lock", "--auto-approve", "--unlock-stale", "proven"}, c.args...)
	if slices.Contains(args, "--to") {
		args = append(args, "--table", y.addr.Table)
	}
	client := w.cloud.Clients.S3
	if c.note != "" {
		key := y.addr.MigrationKey()
		text := mustJSON(y, map[string]any{"version": 1, "to": c.to, "table": y.addr.Table, "step": c.note, "both": time.Time{}, "by": "ada@build-7"})
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &y.addr.Bucket, Key: &key, Body: strings.NewReader(string(text))}); err != nil {
			t.Fatal(err)
		}
	}
	if c.used {
		after(1100 * time.Millisecond) // S3 tells whole seconds
		locks := s3lock.New(client, y.addr, testkit.Settings(w.cloud.URL))
		if err := locks.Take(t.Context(), []byte(`{"ID":"6ba7b810-9dad-41d1-80b4-00c04fd430c8","Operation":"OperationTypeApply","Info":"","Who":"ada@build-7","Version":"1.11.4","Created":"2026-11-22T12:00:00Z","Path":"x"}`)); err != nil {
			t.Fatal(err)
		}
		y.hold(stateOf(nextSerial, "current"))
		seen, err := locks.Read(t.Context())
		if err != nil || seen == nil {
			t.Fatal(seen, err)
		}
		if err := locks.Remove(t.Context(), *seen); err != nil {
			t.Fatal(err)
		}
	}
	if c.stale {
		if _, err := w.cloud.Clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &y.addr.Table, Item: map[string]dynamotypes.AttributeValue{
			"LockID": &dynamotypes.AttributeValueMemberS{Value: y.addr.DigestID()}, "Digest": &dynamotypes.AttributeValueMemberS{Value: md5Of("long ago")}}}); err != nil {
			t.Fatal(err)
		}
	}
	return y, args
}

func (y *yard) configured() string {
	y.Helper()
	text, err := os.ReadFile(filepath.Join(y.dir, "backend.tf"))
	if err != nil {
		y.Fatal(err)
	}
	return string(text)
}

// kinds are the kinds of locks that a configuration names.
func kinds(config string) string {
	table, file := strings.Contains(config, "dynamodb_table"), strings.Contains(config, "use_lockfile")
	switch {
	case table && file:
		return testkit.Both
	case table:
		return testkit.DynamoDB
	}
	return testkit.Lockfile
}

// migrateKilled kills the steps of a migrate-lock: the state is untouched, the
// configuration is the old one or the new one, and the next call does the step.
func (w *world) migrateKilled(t *testing.T, left *leftovers) {
	random := rand.New(rand.NewPCG(*seed, 12))
	most, becomes := map[string]int{}, map[string]string{}
	for _, c := range turns() {
		t.Run("undisturbed/"+c.name, func(t *testing.T) {
			y, args := newTurn(t, w, c)
			most[c.name] = y.requests(args...)
			if becomes[c.name] = kinds(y.configured()); becomes[c.name] != c.becomes {
				y.Fatalf("the configuration is %s", y.configured())
			}
		})
	}
	for i := range *kills {
		c := turns()[i%len(turns())]
		at := randomInstant(random, most[c.name]+1)
		t.Run(fmt.Sprintf("%d %s %s", i, c.name, at), func(t *testing.T) {
			t.Parallel()
			y, args := newTurn(t, w, c)
			before, _ := y.stateText()
			old := y.configured()
			y.killedAt(at, args...)
			now, digest := y.stateText()
			if now != before {
				y.Errorf("the state has changed: %s", now)
			}
			var found []string
			switch config := y.configured(); {
			case c.lock == c.becomes && config == old: // the digest is all that changes
				if digest == "" {
					found = append(found, "new")
				} else {
					found = append(found, "old")
				}
			case config == old:
				found = append(found, "old")
			case kinds(config) == c.becomes && strings.Count(config, "\n") >= strings.Count(old, "\n")-1:
				found = append(found, "new")
			default:
				y.Fatalf("the configuration is neither the old one nor the new one: %s", config)
			}
			if digest != "" && digest != md5Of(now) && digest != md5Of("long ago") {
				y.Errorf("the digest is %s", digest)
			}
			if len(y.locks()) > 0 {
				found = append(found, "lock")
				y.owned()
			}
			if y.held() {
				found = append(found, "record")
			}
			left.count("migrate-lock", found...)
			if temporary, _ := filepath.Glob(filepath.Join(y.dir, ".backend.tf.*")); len(temporary) > 0 {
				y.Logf("a file that terraform does not read is left: %v", temporary)
			}

			if slices.Contains(found, "old") || c.noDigest {
				y.run(0, args...)
			} else if out := y.tfguard(args...); out.wait(time.Minute) > 1 { // the next step, which waits for somebody's run
				y.Errorf("the next call: exit code %d\n%s", out.code, out.output())
			}
			if config := y.configured(); kinds(config) != c.becomes && slices.Contains(found, "old") {
				y.Errorf("the configuration is %s", config)
			}
			if now, digest := y.stateText(); now != before || c.noDigest && digest != "" {
				y.Errorf("mended, the digest is %q, the state %s", digest, now)
			}
			y.run(0, "check")
			y.run(0, "apply", "--auto-approve", "--unlock-stale", "proven", "--upgrade")
			if left := y.locks(); len(left) > 0 || y.held() {
				y.Errorf("left: %v, holder record %v", left, y.held())
			}
		})
	}
}
