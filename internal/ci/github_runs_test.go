package ci

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// The run of the recorded answers.
const (
	thePath = "/repos/octo-org/octo-repo/actions/runs"
	theID   = 30433642
)

func gitHubEnv(url string) []string {
	return []string{"GITHUB_ACTIONS", "true", "GITHUB_REPOSITORY", "octo-org/octo-repo", "GITHUB_SERVER_URL", "https://github.com", "GITHUB_API_URL", url, "GITHUB_TOKEN", secret}
}

func theRun(attempt int) lock.CIRun {
	return lock.CIRun{System: "github", Server: "https://github.com", Repository: "octo-org/octo-repo", ID: strconv.Itoa(theID), Attempt: attempt}
}

// G6: only "completed" means that a run is over; whatever else comes is alive or
// not known.
func TestGitHubRun(t *testing.T) {
	const attempt1 = thePath + "/30433642/attempts/1"
	url := "https://github.com/octo-org/octo-repo/actions/runs/30433642"
	file := func(name string) testkit.Response { return testkit.Response{Body: recorded(t, "github/"+name+".json")} }
	status := func(code int, name string, header ...string) testkit.Response {
		r := testkit.Response{Status: code, Header: map[string]string{}}
		if name != "" {
			r.Body = recorded(t, "github/"+name)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header[header[i]] = header[i+1]
		}
		return r
	}
	body := func(b string) testkit.Response { return testkit.Response{Body: b} }
	made := func(change ...string) testkit.Response {
		return body(recorded(t, "github/run_completed_success.json", change...))
	}
	zipped := func(size int) testkit.Response {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = fmt.Fprintf(z, "%q", strings.Repeat("a", size))
		_ = z.Close()
		return testkit.Response{Header: map[string]string{"Content-Encoding": "gzip"}, Body: b.String()}
	}
	over := func(conclusion string) lock.RunSeen {
		return lock.RunSeen{Run: lock.Run{URL: url, Status: "completed", Conclusion: conclusion}, Life: lock.Over}
	}
	going := func(status string) lock.RunSeen {
		return lock.RunSeen{Run: lock.Run{URL: url, Status: status}, Life: lock.Alive}
	}
	for _, c := range []struct {
		sentence string
		answer   testkit.Response
		want     lock.RunSeen
		why      string // in the error
		requests int    // 0: 1
	}{
		{sentence: "a run in progress is alive", answer: file("run_in_progress"), want: going("in_progress")},
		{sentence: "a queued run is alive, between two jobs too", answer: file("run_queued"), want: going("queued")},
		{sentence: "a run that waits for an approval is alive", answer: file("run_waiting"), want: going("waiting")},
		{sentence: "a run held back by a concurrency group is alive", answer: file("run_pending"), want: going("pending")},
		{sentence: "a requested run is alive", answer: file("run_requested"), want: going("requested")},
		{sentence: "a status that GitHub has not had so far is alive", answer: made(`"completed"`, `"hibernating"`), want: lock.RunSeen{Run: lock.Run{URL: url, Status: "hibernating", Conclusion: "success"}, Life: lock.Alive}},
		{sentence: "a status that only begins as completed is alive", answer: made(`"completed"`, `"completed_soon"`), want: lock.RunSeen{Run: lock.Run{URL: url, Status: "completed_soon", Conclusion: "success"}, Life: lock.Alive}},
		{sentence: "a run that succeeded is over", answer: file("run_completed_success"), want: over("success")},
		{sentence: "a run that failed is over", answer: file("run_completed_failure"), want: over("failure")},
		{sentence: "a cancelled run is over", answer: file("run_completed_cancelled"), want: over("cancelled")},
		{sentence: "a skipped run is over", answer: file("run_completed_skipped"), want: over("skipped")},
		{sentence: "a run that timed out is over", answer: file("run_completed_timed_out"), want: over("timed_out")},
		{sentence: "a neutral run is over", answer: file("run_completed_neutral"), want: over("neutral")},
		{sentence: "a run that GitHub gave up is over", answer: file("run_completed_stale"), want: over("stale")},
		{sentence: "a run that nobody let begin is over", answer: file("run_completed_action_required"), want: over("action_required")},
		{sentence: "a run that could not begin is over", answer: file("run_completed_startup_failure"), want: over("startup_failure")},
		{sentence: "an address that could run a script is left out", answer: made("https://github.com/octo-org/octo-repo/actions/runs/30433642\"", "javascript://github.com/%0aalert(1)\""), want: lock.RunSeen{Run: lock.Run{Status: "completed", Conclusion: "success"}, Life: lock.Over}},
		{sentence: "escapes in a conclusion are made harmless", answer: made(`"success"`, `"\u001b[2Jgone"`), want: over("\ufffd[2Jgone")},

		{sentence: "a refused token leaves it open", answer: status(401, "unauthorized.json"), why: `does not accept the token (401), it says "Bad credentials"`},
		{sentence: "a token without the permission leaves it open and says which is missing", answer: status(403, "forbidden.json"), why: `(403), it says "Resource not accessible by integration"; the token needs the permission "actions: read"`},
		{sentence: "a used up rate limit leaves it open and says until when", answer: status(403, "rate_limit.json", "X-RateLimit-Limit", "1000", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "4102444800"), why: "rate limit is used up until 2100-01-01 00:00:00 UTC (403)"},
		{sentence: "a used up rate limit may come as 429", answer: status(429, "rate_limit.json", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "4102444800"), why: "rate limit is used up until 2100-01-01 00:00:00 UTC (429)"},
		{sentence: "a secondary rate limit leaves it open", answer: status(403, "secondary_rate_limit.json", "Retry-After", "60"), why: "rate limit is used up until"},
		{sentence: "a rate limit of a proxy without any header leaves it open", answer: status(429, ""), why: "rate limit is used up (429)"},
		{sentence: "a run that is not shown leaves it open", answer: status(404, "not_found.json"), why: "knows nothing of that"},
		{sentence: "a deleted run leaves it open", answer: status(410, "not_found.json"), why: "it answered 410"},
		{sentence: "a failing GitHub is asked once more and leaves it open", answer: status(500, "server_error.json"), why: "it failed (500)", requests: 2},
		{sentence: "an overloaded GitHub is asked once more and leaves it open", answer: status(502, "unicorn.html"), why: "it failed (502)", requests: 2},
		{sentence: "an answer that nothing has changed leaves it open", answer: status(304, ""), why: "it answered 304, which says nothing"},
		{sentence: "an answer that is promised for later leaves it open", answer: testkit.Response{Status: 202, Body: recorded(t, "github/run_completed_success.json")}, why: "it answered 202"},
		{sentence: "half an answer leaves it open", answer: testkit.Response{Status: 206, Body: recorded(t, "github/run_completed_success.json")}, why: "it answered 206"},
		{sentence: "no content leaves it open", answer: status(204, ""), why: "it answered 204"},
		{sentence: "a page for people leaves it open", answer: status(200, "unicorn.html"), why: "not of the documented shape"},
		{sentence: "an empty answer leaves it open", answer: body(""), why: "not of the documented shape"},
		{sentence: "null leaves it open", answer: body("null"), why: "not of the documented shape"},
		{sentence: "a list leaves it open", answer: body("[]"), why: "not of the documented shape"},
		{sentence: "a run that is a string leaves it open", answer: body(`"completed"`), why: "not of the documented shape"},
		{sentence: "an error with status 200 leaves it open", answer: file("not_found"), why: "not of the documented shape"},
		{sentence: "an answer that breaks off leaves it open", answer: body(recorded(t, "github/run_completed_success.json")[:700]), why: "not of the documented shape"},
		{sentence: "an answer that something follows leaves it open", answer: body(recorded(t, "github/run_completed_success.json") + "<html>"), why: "not of the documented shape"},
		{sentence: "two answers in one leave it open", answer: body(recorded(t, "github/run_completed_success.json") + recorded(t, "github/run_in_progress.json")), why: "not of the documented shape"},
		{sentence: "an answer on another run leaves it open", answer: made(`"id": 30433642,`, `"id": 30433643,`), why: "not of the documented shape"},
		{sentence: "an answer on another attempt leaves it open", answer: made(`"run_attempt": 1`, `"run_attempt": 2`), why: "not of the documented shape"},
		{sentence: "an answer that names no attempt leaves it open", answer: made(`"run_attempt": 1,`, ``), why: "not of the documented shape"},
		{sentence: "an answer without a status leaves it open", answer: made(`"status": "completed",`, ``), why: "not of the documented shape"},
		{sentence: "a status that is null leaves it open", answer: made(`"status": "completed"`, `"status": null`), why: "not of the documented shape"},
		{sentence: "a status that is no string leaves it open", answer: made(`"status": "completed"`, `"status": ["completed"]`), why: "not of the documented shape"},
		{sentence: "an answer without times leaves it open", answer: made(`"run_started_at"`, `"x"`, `"created_at"`, `"y"`), why: "not of the documented shape"},
		{sentence: "an end that is not told leaves it open", answer: made(`"updated_at"`, `"x"`), why: "not of the documented shape"},
		{sentence: "an answer without end leaves it open", answer: body(`"` + strings.Repeat("a", 5<<20) + `"`), why: "longer than 4 MiB"},
		{sentence: "a small answer that unpacks without end leaves it open", answer: zipped(20 << 20), why: "longer than 4 MiB"},
		{sentence: "a proxy that says the token brings it into no error", answer: testkit.Response{Status: 403, Body: `{"message":"bad header Bearer ` + secret + `"}`}, why: `it says "bad header Bearer ***"`},
		{sentence: "an answer of a hostile proxy is made harmless", answer: testkit.Response{Status: 403, Body: `{"message":"\u001b[31m` + strings.Repeat("x", 9999) + `\n::set-output name=a::b"}`}, why: "(403)"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.Answer(attempt1, c.answer)
			got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), theRun(1))
			if n := len(server.Requests()); n != max(c.requests, 1) {
				t.Errorf("%d requests: %q", n, server.Requests())
			}
			if tokens := server.Tokens(); len(tokens) != 1 || tokens[0] != "Bearer "+secret {
				t.Errorf("tokens %q", tokens)
			}
			if c.why != "" {
				unknown(t, got, err, c.why)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Started, got.Ended = time.Time{}, time.Time{}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestGitHubRunTellsItsTimes(t *testing.T) {
	server := testkit.NewGitHub(t)
	server.File(t, thePath+"/30433642/attempts/1", "testdata/github/run_completed_failure.json")
	got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), theRun(1))
	if err != nil || !got.Started.Equal(clock(t, "2026-03-02T10:00:00Z")) || !got.Ended.Equal(clock(t, "2026-03-02T10:14:32Z")) {
		t.Errorf("got %+v, %v; the end counts to the next second, since GitHub's times have no fraction", got, err)
	}
}

func TestGitHubAsksForTheAttemptOfTheRecord(t *testing.T) {
	server := testkit.NewGitHub(t)
	server.File(t, thePath+"/30433642/attempts/1", "testdata/github/run_attempt_1.json")
	server.File(t, thePath+"/30433642/attempts/2", "testdata/github/run_attempt_2.json")
	server.File(t, thePath+"/30433642", "testdata/github/run_attempt_2.json")
	runs := newRuns(environment(gitHubEnv(server.URL)...), quick(t))
	for _, c := range []struct {
		sentence string
		attempt  int
		want     lock.Life
		url      string
	}{
		{"the first attempt of a run that was started again is over", 1, lock.Over, "https://github.com/octo-org/octo-repo/actions/runs/30433642/attempts/1"},
		{"its second attempt goes on", 2, lock.Alive, "https://github.com/octo-org/octo-repo/actions/runs/30433642"},
		{"without an attempt the last one counts", 0, lock.Alive, "https://github.com/octo-org/octo-repo/actions/runs/30433642"},
		{"an attempt that there has never been is not known", 3, lock.NotKnown, ""},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got, err := runs.Run(t.Context(), theRun(c.attempt))
			if got.Life != c.want || got.URL != c.url || (err == nil) != (c.want != lock.NotKnown) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// G7: the token goes to the API's host alone; what a record names is data.
func TestGitHubsTokenStaysWithItsHost(t *testing.T) {
	stranger := testkit.NewGitHub(t)
	stranger.File(t, "/gone", "testdata/github/run_completed_success.json")
	asked := func(r lock.CIRun) func(*lock.CIRun) { return func(to *lock.CIRun) { *to = r } }
	for _, c := range []struct {
		sentence string
		change   func(*lock.CIRun)
	}{
		{"a record of another server is not asked about", func(r *lock.CIRun) { r.Server = stranger.URL }},
		{"a record without a server is not asked about", func(r *lock.CIRun) { r.Server = "" }},
		{"a record of another system is not asked about", func(r *lock.CIRun) { r.System = "jenkins" }},
		{"a record whose repository climbs is not asked about", func(r *lock.CIRun) { r.Repository = "../user" }},
		{"a record whose repository has three parts is not asked about", func(r *lock.CIRun) { r.Repository = "o/r/actions" }},
		{"a record whose repository is escaped is not asked about", func(r *lock.CIRun) { r.Repository = "o/%2e%2e" }},
		{"a record whose repository ends the path is not asked about", func(r *lock.CIRun) { r.Repository = "o/r?x=" }},
		{"a record whose repository has no name is not asked about", func(r *lock.CIRun) { r.Repository = "o/" }},
		{"a record whose repository is .. is not asked about", func(r *lock.CIRun) { r.Repository = "o/.." }},
		{"a record whose repository is . is not asked about", func(r *lock.CIRun) { r.Repository = "o/." }},
		{"a record whose run climbs is not asked about", func(r *lock.CIRun) { r.ID = "1/../2" }},
		{"a record whose run has a sign is not asked about", func(r *lock.CIRun) { r.ID = "+1" }},
		{"a record whose run is zero is not asked about", func(r *lock.CIRun) { r.ID = "0" }},
		{"a record whose run is beyond all numbers is not asked about", func(r *lock.CIRun) { r.ID = "99999999999999999999" }},
		{"a record whose attempt is negative is not asked about", func(r *lock.CIRun) { r.Attempt = -1 }},
		{"an empty record is not asked about", asked(lock.CIRun{})},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			r := theRun(1)
			c.change(&r)
			got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), r)
			unknown(t, got, err, "the")
			if n := len(server.Requests()) + len(stranger.Requests()); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprintf("a redirect (%d) to another host is not followed", code), func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.Answer(thePath+"/30433642/attempts/1", testkit.Response{Status: code, Header: map[string]string{"Location": stranger.URL + "/gone"}})
			got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), theRun(1))
			unknown(t, got, err, "another host")
			if n := len(stranger.Requests()); n != 0 || len(server.Requests()) != 1 {
				t.Errorf("%d requests went to the other host, %q here", n, server.Requests())
			}
		})
	}
	t.Run("a redirect on the same host, as of a renamed repository, is followed", func(t *testing.T) {
		server := testkit.NewGitHub(t)
		server.Answer(thePath+"/30433642/attempts/1", testkit.Response{Status: 301, Header: map[string]string{"Location": "/repositories/1296269/actions/runs/30433642/attempts/1"}})
		server.File(t, "/repositories/1296269/actions/runs/30433642/attempts/1", "testdata/github/run_completed_success.json")
		got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), theRun(1))
		if err != nil || got.Life != lock.Over {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a redirect in a circle ends", func(t *testing.T) {
		server := testkit.NewGitHub(t)
		server.Answer(thePath+"/30433642/attempts/1", testkit.Response{Status: 301, Header: map[string]string{"Location": thePath + "/30433642/attempts/1"}})
		got, err := newRuns(environment(gitHubEnv(server.URL)...), quick(t)).Run(t.Context(), theRun(1))
		unknown(t, got, err, "redirects")
	})
}

func TestGitHubIsAskedOnceMore(t *testing.T) {
	answer := func(*http.Request) *testkit.Response { return &testkit.Response{Status: 503, Body: "{}"} }
	broken := func(*http.Request) *testkit.Response {
		return &testkit.Response{Status: 200, Header: map[string]string{"Content-Length": "9999"}, Body: `{"id":`}
	}
	for _, c := range []struct {
		sentence string
		fault    testkit.Fault
	}{
		{"after a failure of the server", testkit.Fault{Times: 1, Answer: answer}},
		{"after a connection that broke", testkit.Fault{Times: 1, Refuse: true}},
		{"after an answer that got lost", testkit.Fault{Times: 1, Drop: true}},
		{"after an answer that is shorter than announced", testkit.Fault{Times: 1, Answer: broken}},
		{"after a request that hung", testkit.Fault{Times: 1, Hang: true}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.File(t, thePath+"/30433642/attempts/1", "testdata/github/run_in_progress.json")
			faulty := testkit.NewFaulty(t, server.URL)
			faulty.Add(c.fault)
			b := quick(t)
			if c.fault.Hang {
				b.whole = 2 * time.Second
			}
			got, err := newRuns(environment(gitHubEnv(faulty.URL)...), b).Run(t.Context(), theRun(1))
			if err != nil || got.Life != lock.Alive || len(faulty.Requests()) != 2 {
				t.Errorf("got %+v, %v after %q", got, err, faulty.Requests())
			}
		})
	}
}

func TestGitHubThatHangsIsLeftInTime(t *testing.T) {
	faulty := testkit.NewFaulty(t, testkit.NewGitHub(t).URL)
	faulty.Add(testkit.Fault{Hang: true})
	b := quick(t)
	b.whole = 300 * time.Millisecond
	runs := newRuns(environment(gitHubEnv(faulty.URL)...), b)
	began := time.Now()
	got, err := runs.Run(t.Context(), theRun(1))
	unknown(t, got, err, "did not answer in time")
	list, err := runs.Around(t.Context(), time.Now())
	if list != nil || err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("got %v, %v", list, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestGitHubThatIsNotThereIsSaid(t *testing.T) {
	got, err := newRuns(environment(gitHubEnv("http://127.0.0.1:1")...), quick(t)).Run(t.Context(), theRun(1))
	unknown(t, got, err, "it could not be reached: ")
}

// GitHub asks to keep away until a rate limit ends.
func TestGitHubIsNotAskedAgainBeforeItsRateLimitEnds(t *testing.T) {
	server := testkit.NewGitHub(t)
	server.Answer(thePath+"/30433642/attempts/1", testkit.Response{Status: 403, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4102444800"},
		Body: recorded(t, "github/rate_limit.json")})
	runs := newRuns(environment(gitHubEnv(server.URL)...), quick(t))
	for range 3 {
		got, err := runs.Run(t.Context(), theRun(1))
		unknown(t, got, err, "until 2100-01-01 00:00:00 UTC")
	}
	if n := len(server.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// aRun is what a list says of a run.
type aRun struct {
	id                 int64
	attempt            int // 0: 1
	status, conclusion string
	started            string
	created            string // "": started
	updated            string // "": started
}

func (r aRun) json() map[string]any {
	m := map[string]any{"id": r.id, "run_attempt": max(r.attempt, 1), "status": r.status, "conclusion": nil, "html_url": fmt.Sprintf("https://github.com/octo-org/octo-repo/actions/runs/%d", r.id),
		"run_started_at": r.started, "created_at": r.started, "updated_at": r.started}
	if r.conclusion != "" {
		m["conclusion"] = r.conclusion
	}
	if r.created != "" {
		m["created_at"] = r.created
	}
	if r.updated != "" {
		m["updated_at"] = r.updated
	}
	return m
}

// gitHubTest is a GitHub without any runs, and what asks it.
type gitHubTest struct {
	*testkit.GitHub
	t    *testing.T
	runs Runs
}

func newGitHubTest(t *testing.T, env ...string) *gitHubTest {
	server := testkit.NewGitHub(t)
	for _, path := range []string{"?created=%3C%3D2026-03-02T10%3A06%3A00Z", "?status=in_progress", "?status=queued", "?status=pending", "?status=requested", "?status=waiting"} {
		server.File(t, thePath+path, "testdata/github/runs_none.json")
	}
	return &gitHubTest{server, t, newRuns(environment(append(gitHubEnv(server.URL), env...)...), quick(t))}
}

// list sets the runs of a status; of none, those made before a time.
func (g *gitHubTest) list(status string, runs ...aRun) { g.listOf(status, len(runs), runs...) }

func (g *gitHubTest) listOf(status string, total int, runs ...aRun) {
	g.t.Helper()
	list := []map[string]any{}
	for _, r := range runs {
		list = append(list, r.json())
	}
	body, err := json.Marshal(map[string]any{"total_count": total, "workflow_runs": list})
	if err != nil {
		g.t.Fatal(err)
	}
	path := thePath + "?status=" + status
	if status == "" {
		path = thePath + "?created=%3C%3D2026-03-02T10%3A06%3A00Z" // a minute after the lock
	}
	g.Answer(path, testkit.Response{Body: string(body)})
}

func (g *gitHubTest) attempt(r aRun) {
	g.t.Helper()
	body, err := json.Marshal(r.json())
	if err != nil {
		g.t.Fatal(err)
	}
	g.Answer(fmt.Sprintf("%s/%d/attempts/%d", thePath, r.id, max(r.attempt, 1)), testkit.Response{Body: string(body)})
}

// self is the environment of attempt 2 of the recorded run.
var self = []string{"GITHUB_RUN_ID", "30433642", "GITHUB_RUN_ATTEMPT", "2", "GITHUB_JOB", "apply", "RUNNER_NAME", "GitHub Actions 12"}

// G2: a run that could hold the lock is never left out.
func TestGitHubAround(t *testing.T) {
	const at = "2026-03-02T10:05:00.5Z"
	for _, c := range []struct {
		sentence string
		env      []string
		set      func(*gitHubTest)
		want     []string // "id life", or of a job "job/id life"
		why      string   // in the error
	}{
		{sentence: "a repository without runs gives an empty list, which is known", set: func(*gitHubTest) {}},
		{sentence: "a run that began before and goes on is there", set: func(g *gitHubTest) {
			g.list("in_progress", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"5 alive"}},
		{sentence: "runs of every other status that is not completed are there", set: func(g *gitHubTest) {
			for i, s := range []string{"queued", "pending", "requested", "waiting"} {
				g.list(s, aRun{id: int64(5 + i), status: s, started: "2026-03-02T10:00:00Z"})
			}
		}, want: []string{"5 alive", "6 alive", "7 alive", "8 alive"}},
		{sentence: "a run that began later is not there", set: func(g *gitHubTest) {
			g.list("in_progress", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:06:01Z"})
		}},
		{sentence: "a run that goes on and began within the minute that clocks may differ by is there", set: func(g *gitHubTest) {
			g.list("in_progress", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:05:59Z"})
		}, want: []string{"5 alive"}},
		{sentence: "a run that is over and began later by seconds is not there: clocks are stretched towards life alone", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, status: "completed", conclusion: "failure", started: "2026-03-02T10:05:10Z", updated: "2026-03-02T10:15:00Z"})
		}},
		{sentence: "a run made after that time has no earlier attempt of that time", set: func(g *gitHubTest) {
			g.list("in_progress", aRun{id: 5, attempt: 2, status: "in_progress", started: "2026-03-02T11:00:00Z", created: "2026-03-02T10:30:00Z"})
		}},
		{sentence: "a run of that time that is over is there", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, status: "completed", conclusion: "cancelled", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:15:00Z"})
		}, want: []string{"5 over"}},
		{sentence: "a run that ended in that very second is there", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:05:00Z"})
		}, want: []string{"5 over"}},
		{sentence: "a run that ended before is not there", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:04:59Z"})
		}},
		{sentence: "runs that never had a machine are not there", set: func(g *gitHubTest) {
			var runs []aRun
			for i, c := range []string{"skipped", "action_required", "startup_failure"} {
				runs = append(runs, aRun{id: int64(5 + i), status: "completed", conclusion: c, started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:15:00Z"})
			}
			g.list("", runs...)
		}},
		{sentence: "a run that changed its status between two questions is there", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"5 alive"}},
		{sentence: "a run that ended between two questions counts as going", set: func(g *gitHubTest) {
			g.list("in_progress", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:00:00Z"})
			g.list("", aRun{id: 5, status: "completed", conclusion: "success", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:15:00Z"})
		}, want: []string{"5 alive"}},
		{sentence: "this run itself is left out", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":0,"jobs":[]}`})
			g.list("in_progress", aRun{id: theID, attempt: 2, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}},
		{sentence: "another attempt of this run is not this run", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":0,"jobs":[]}`})
			g.list("in_progress", aRun{id: theID, attempt: 3, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"30433642 alive"}},
		{sentence: "the first attempt of this run, which was started again, is there", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":0,"jobs":[]}`})
			g.list("in_progress", aRun{id: theID, attempt: 2, status: "in_progress", started: "2026-03-02T10:40:00Z", created: "2026-03-02T10:00:00Z"})
			g.attempt(aRun{id: theID, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:14:31Z"})
		}, want: []string{"30433642 over"}},
		{sentence: "of a run that was started again later the attempt of that time is there", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, attempt: 3, status: "completed", conclusion: "success", started: "2026-03-02T11:00:00Z", created: "2026-03-02T10:00:00Z", updated: "2026-03-02T11:05:00Z"})
			g.attempt(aRun{id: 5, attempt: 2, status: "completed", conclusion: "failure", started: "2026-03-02T10:30:00Z", updated: "2026-03-02T10:35:00Z"})
			g.attempt(aRun{id: 5, attempt: 1, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:05:40Z"})
		}, want: []string{"5 over"}},
		{sentence: "an earlier attempt that goes on after all is alive", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, attempt: 2, status: "completed", conclusion: "success", started: "2026-03-02T11:00:00Z", created: "2026-03-02T10:00:00Z", updated: "2026-03-02T11:05:00Z"})
			g.attempt(aRun{id: 5, attempt: 1, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"5 alive"}},
		{sentence: "an earlier attempt that cannot be read leaves all open", set: func(g *gitHubTest) {
			g.list("", aRun{id: 5, attempt: 2, status: "completed", conclusion: "success", started: "2026-03-02T11:00:00Z", created: "2026-03-02T10:00:00Z", updated: "2026-03-02T11:05:00Z"})
		}, why: "(404)"},
		{sentence: "another job of this run that goes on is there, one that has no machine yet is not", env: self, set: func(g *gitHubTest) {
			g.File(g.t, thePath+"/30433642/attempts/2/jobs", "testdata/github/jobs.json", "2026-03-02T10:4", "2026-03-02T10:0")
			g.list("in_progress", aRun{id: theID, attempt: 2, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"job/399444498 alive"}},
		{sentence: "a job of this run that was over after that time is there", env: self, set: func(g *gitHubTest) {
			g.File(g.t, thePath+"/30433642/attempts/2/jobs", "testdata/github/jobs.json", "2026-03-02T10:40:05Z", "2026-03-02T10:00:05Z")
		}, want: []string{"job/399444496 over"}},
		{sentence: "where this job cannot be told from the others each counts as another", env: append(self, "RUNNER_NAME", ""), set: func(g *gitHubTest) {
			g.File(g.t, thePath+"/30433642/attempts/2/jobs", "testdata/github/jobs.json", "2026-03-02T10:4", "2026-03-02T10:0")
		}, want: []string{"job/399444497 alive", "job/399444498 alive"}},
		{sentence: "the only job in progress is this one where no machine is named", env: append(self, "RUNNER_NAME", ""), set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":1,"jobs":[{"id":9,"status":"in_progress","started_at":"2026-03-02T10:00:00Z","runner_name":"a"}]}`})
		}},
		{sentence: "the only job in progress on another machine is another", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":1,"jobs":[{"id":9,"status":"in_progress","started_at":"2026-03-02T10:00:00Z","runner_name":"a","html_url":"https://github.com/o/r/actions/runs/1/job/9"}]}`})
		}, want: []string{"job/9 alive"}},
		{sentence: "jobs that cannot be read leave all open", env: self, set: func(*gitHubTest) {}, why: "(404)"},
		{sentence: "a job of no known shape leaves all open", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":1,"jobs":[null]}`})
		}, why: "shape"},
		{sentence: "more runs in progress than one answer lists leave all open", set: func(g *gitHubTest) {
			g.listOf("in_progress", 101, aRun{id: 5, status: "in_progress", started: "2026-03-02T11:00:00Z"})
		}, why: "more goes on"},
		{sentence: "more jobs of this run than one answer lists leave all open", env: self, set: func(g *gitHubTest) {
			g.Answer(thePath+"/30433642/attempts/2/jobs", testkit.Response{Body: `{"total_count":101,"jobs":[]}`})
		}, why: "more goes on"},
		{sentence: "a further page leaves all open, whatever the count says", set: func(g *gitHubTest) {
			g.Answer(thePath+"?status=queued", testkit.Response{Header: map[string]string{"Link": `<https://api.github.com/x?page=2>; rel="next"`}, Body: `{"total_count":0,"workflow_runs":[]}`})
		}, why: "more goes on"},
		{sentence: "of more runs than are listed one that goes on and is of that time is answer enough", set: func(g *gitHubTest) {
			g.listOf("in_progress", 101, aRun{id: 5, status: "in_progress", started: "2026-03-02T10:00:00Z"})
		}, want: []string{"5 alive"}},
		{sentence: "more runs that are over than one answer lists do no harm", set: func(g *gitHubTest) {
			g.listOf("", 4711, aRun{id: 5, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:15:00Z"})
		}, want: []string{"5 over"}},
		{sentence: "a run without an id leaves all open", set: func(g *gitHubTest) {
			g.list("queued", aRun{status: "queued", started: "2026-03-02T10:00:00Z"})
		}, why: "shape"},
		{sentence: "a run without a status leaves all open", set: func(g *gitHubTest) {
			g.list("queued", aRun{id: 5, started: "2026-03-02T10:00:00Z"})
		}, why: "shape"},
		{sentence: "a run that is null leaves all open", set: func(g *gitHubTest) {
			g.Answer(thePath+"?status=queued", testkit.Response{Body: `{"total_count":1,"workflow_runs":[null]}`})
		}, why: "shape"},
		{sentence: "a list that is an error in disguise leaves all open", set: func(g *gitHubTest) {
			g.Answer(thePath+"?status=queued", testkit.Response{Body: recorded(g.t, "github/not_found.json")})
		}, why: "shape"},
		{sentence: "a list that is null leaves all open", set: func(g *gitHubTest) {
			g.Answer(thePath+"?status=queued", testkit.Response{Body: `null`})
		}, why: "shape"},
		{sentence: "a repository that the environment does not name leaves all open", env: []string{"GITHUB_REPOSITORY", "x"}, set: func(*gitHubTest) {}, why: "GITHUB_REPOSITORY"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			g := newGitHubTest(t, c.env...)
			c.set(g)
			got, err := g.runs.Around(t.Context(), clock(t, at))
			if c.why != "" {
				if got != nil || err == nil || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("got %v, %v, want an error with %q", got, err, c.why)
				}
				decent(t, err)
				return
			}
			if err != nil || got == nil {
				t.Fatalf("got %v, %v", got, err)
			}
			names := []string{}
			for _, r := range got {
				_, name, _ := strings.Cut(r.URL, "/actions/runs/")
				if _, job, ok := strings.Cut(name, "/job/"); ok {
					name = "job/" + job
				}
				names = append(names, name+" "+string(r.Life))
				if !could(r, clock(t, at)) {
					t.Errorf("%+v cannot have taken a lock then", r)
				}
			}
			if diff := cmp.Diff(append([]string{}, c.want...), names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := len(g.Requests()); n > 12 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// The recorded lists are of the shape that GitHub has today.
func TestGitHubAroundOnRecordedAnswers(t *testing.T) {
	g := newGitHubTest(t, self...)
	g.File(t, thePath+"?status=in_progress", "testdata/github/runs_in_progress.json")
	g.File(t, thePath+"?created=%3C%3D2026-03-02T10%3A06%3A00Z", "testdata/github/runs_completed.json")
	g.File(t, thePath+"/30433642/attempts/1", "testdata/github/run_attempt_1.json")
	g.File(t, thePath+"/30433642/attempts/2/jobs", "testdata/github/jobs.json")
	got, err := g.runs.Around(t.Context(), clock(t, "2026-03-02T10:05:00.5Z"))
	if err != nil || len(got) != 1 || got[0].Life != lock.Over || got[0].URL != "https://github.com/octo-org/octo-repo/actions/runs/30433642/attempts/1" {
		t.Errorf("got %+v, %v", got, err)
	}
	if n := len(g.Requests()); n != 8 {
		t.Errorf("%d requests: %q", n, g.Requests())
	}
}

// G2: one list that could not be read is a gap in which a living run may be.
func TestGitHubAroundIsOpenWhereAnyListFails(t *testing.T) {
	for _, status := range []string{"in_progress", "queued", "pending", "requested", "waiting", ""} {
		for _, answer := range []testkit.Response{{Status: 403, Body: "{}"}, {Status: 404, Body: "{}"}, {Status: 500, Body: "{}"}, {Status: 304}, {Body: "<html>"}} {
			g := newGitHubTest(t)
			path := thePath + "?status=" + status
			if status == "" {
				path = thePath + "?created=%3C%3D2026-03-02T10%3A06%3A00Z"
			}
			g.Answer(path, answer)
			got, err := g.runs.Around(t.Context(), clock(t, "2026-03-02T10:05:00.5Z"))
			if got != nil || err == nil {
				t.Errorf("with %d for status %q: got %v, %v", answer.Status, status, got, err)
			}
		}
	}
}

func TestGitHubAroundAsksForAFewEarlierAttempts(t *testing.T) {
	g := newGitHubTest(t)
	var runs []aRun
	for id := range int64(100) {
		runs = append(runs, aRun{id: id + 1, attempt: 2, status: "completed", conclusion: "success", started: "2026-03-02T11:00:00Z", created: "2026-03-02T10:00:00Z", updated: "2026-03-02T11:05:00Z"})
		g.attempt(aRun{id: id + 1, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:15:00Z"})
	}
	g.list("", runs...)
	got, err := g.runs.Around(t.Context(), clock(t, "2026-03-02T10:05:00.5Z"))
	if err != nil || len(got) != 4 || len(g.Requests()) != 6+4 {
		t.Errorf("got %d runs, %v after %d requests", len(got), err, len(g.Requests()))
	}
}

var gitHubFields = []string{"id", "run_attempt", "status", "conclusion", "html_url", "run_started_at", "created_at", "updated_at", "total_count", "workflow_runs", "message"}

// A repository's token has 1,000 requests an hour, and who waits for a lock asks
// every few seconds.
func TestGitHubsAnswersAreUsedAgainForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := &canned{body: []byte(`{"total_count":0,"workflow_runs":[]}`)}
		runs := newRuns(environment(gitHubEnv("http://127.0.0.1:1")...), bounds{whole: 10 * time.Second, keep: time.Minute, way: way})
		around := func(at time.Time, requests int, sentence string) {
			t.Helper()
			way.requests.Store(0)
			if _, err := runs.Around(t.Context(), at); err != nil {
				t.Fatal(err)
			}
			if n := int(way.requests.Load()); n != requests {
				t.Errorf("%s: %d requests, want %d", sentence, n, requests)
			}
		}
		began := time.Now()
		old := began.Add(-time.Hour)
		around(old, 6, "the first question asks")
		around(old, 0, "the same question a moment later does not")
		around(old.Add(-time.Minute), 1, "another time asks only what was made before it")
		around(began.Add(-59*time.Second), 6, "a time that a run may still begin at, by its clock, asks anew")
		<-time.After(59 * time.Second)
		around(began.Add(-59*time.Second), 6, "and so it does after a minute, for what was told then")
		around(old, 0, "what is known is good for the minute")
		<-time.After(60 * time.Second)
		around(old, 6, "after a minute all is asked anew")
	})
}

func TestGitHubsFailuresAreNotUsedAgain(t *testing.T) {
	g := newGitHubTest(t)
	g.runs.(*gitHubRuns).keep = time.Minute
	at := clock(t, "2026-03-02T10:05:00.5Z")
	g.Answer(thePath+"?status=queued", testkit.Response{Status: 404, Body: "{}"})
	if got, err := g.runs.Around(t.Context(), at); err == nil {
		t.Errorf("got %v", got)
	}
	// All that goes on is asked for again, or a run could slip through between an
	// old list and a new one.
	g.list("queued")
	g.list("in_progress", aRun{id: 5, status: "in_progress", started: "2026-03-02T10:00:00Z"})
	if got, err := g.runs.Around(t.Context(), at); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

// Who waits for a lock with a token that may not ask does not spend the
// repository's requests on it.
func TestGitHubsRefusalIsUsedAgainForAMinute(t *testing.T) {
	for _, status := range []int{401, 403} {
		server := testkit.NewGitHub(t)
		server.Answer(thePath, testkit.Response{Status: status, Body: "{}"})
		server.Answer(thePath+"/30433642/attempts/1", testkit.Response{Status: status, Body: "{}"})
		b := quick(t)
		b.keep = time.Minute
		runs := newRuns(environment(gitHubEnv(server.URL)...), b)
		ask := func() {
			t.Helper()
			got, err := runs.Run(t.Context(), theRun(1))
			unknown(t, got, err, fmt.Sprint(status))
			if around, err := runs.Around(t.Context(), clock(t, "2026-03-02T10:05:00.5Z")); around != nil || err == nil {
				t.Errorf("%d: %v, %v", status, around, err)
			}
		}
		ask()
		first := len(server.Requests())
		ask()
		if n := len(server.Requests()); n != first {
			t.Errorf("%d: %d requests more", status, n-first)
		}
	}
}

// canned answers every request with the same body, without a network.
type canned struct {
	body     []byte
	requests atomic.Int32
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(c.body)), Request: r}, nil
}

// seeds are what the recorded answers say in the fields that are read, with which
// a fuzzer gets on faster than with all of them, and a few that none would send.
func seeds(f *testing.F, pattern string, fields ...string) {
	for _, name := range mustGlob(f, pattern) {
		var answer any
		if err := json.Unmarshal([]byte(recorded(f, strings.TrimPrefix(name, "testdata/"))), &answer); err != nil {
			f.Fatal(err)
		}
		small, err := json.Marshal(only(answer, fields))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(small)
	}
	for _, s := range []string{"", "null", "[]", "{}", `"completed"`, `{"status":"completed"}`, `{"id":30433642,"run_attempt":1,"status":"completed "}`, `{"id":30433642,"run_attempt":1,"status":"completed","run_started_at":1,"updated_at":9223372036854775807}`} {
		f.Add([]byte(s))
	}
}

// only leaves of objects, also those in lists, the fields of these names.
func only(v any, fields []string) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = only(v[i], fields)
		}
	case map[string]any:
		for k := range v {
			if v[k] = only(v[k], fields); !slices.Contains(fields, k) {
				delete(v, k)
			}
		}
	}
	return v
}

// G6: no answer makes a run over but one that says of this run and attempt that
// its status is completed.
func FuzzGitHubRun(f *testing.F) {
	seeds(f, "testdata/github/*.json", gitHubFields...)
	way := &canned{}
	runs := newRuns(environment(gitHubEnv("http://127.0.0.1:1")...), bounds{whole: 10 * time.Second, way: way})
	f.Fuzz(func(t *testing.T, body []byte) {
		way.body = body
		got, err := runs.Run(t.Context(), theRun(1))
		if (err == nil) == (got.Life == lock.NotKnown) {
			t.Fatalf("got %+v, %v", got, err)
		}
		checkSeen(t, got)
		var says struct {
			ID      int64  `json:"id"`
			Attempt int    `json:"run_attempt"`
			Status  string `json:"status"`
		}
		if got.Life == lock.Over && (json.Unmarshal(body, &says) != nil || says.ID != theID || says.Attempt != 1 || says.Status != "completed") {
			t.Fatalf("%q is taken for the end of the run", body)
		}
	})
}

// G6: no list makes a run over without the word completed, nor a lock stale
// where a run in it goes on.
func FuzzGitHubAround(f *testing.F) {
	seeds(f, "testdata/github/*.json", gitHubFields...)
	way := &canned{}
	runs := newRuns(environment(gitHubEnv("http://127.0.0.1:1")...), bounds{whole: 10 * time.Second, way: way})
	at := clock(f, "2026-03-02T10:05:00Z")
	f.Fuzz(func(t *testing.T, body []byte) {
		way.body = body
		got, err := runs.Around(t.Context(), at)
		if (err == nil) == (got == nil) {
			t.Fatalf("got %+v, %v", got, err)
		}
		for _, r := range got {
			checkSeen(t, r)
			if r.Life == lock.Over && r.Status != "completed" || !could(r, at) {
				t.Fatalf("got %+v", r)
			}
		}
	})
}

// checkSeen holds that what goes on to reports is short and harmless (G7).
func checkSeen(t *testing.T, r lock.RunSeen) {
	for _, s := range []string{r.URL, r.Status, r.Conclusion} {
		if len([]rune(s)) > 301 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0x202e }) {
			t.Fatalf("%q is not fit to be printed", s)
		}
	}
	if r.URL != "" && !strings.HasPrefix(r.URL, "https://") && !strings.HasPrefix(r.URL, "http://") {
		t.Fatalf("%q is no address", r.URL)
	}
}
