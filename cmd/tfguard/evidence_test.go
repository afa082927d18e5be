package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// The repository and the run of the recorded answers, and this job's.
const (
	gitHubRuns  = "/repos/octo-org/octo-repo/actions/runs"
	gitHubRunID = "30433642"
	gitHubOwnID = "30433999"
	gitHubToken = "ghs_16C7e42F292c6912E7710c838347Ae178B4a"
)

// recordedLock is when the lock of these tests was taken, by the clock of the
// recorded answers: in their run's first attempt, and an hour before now.
var recordedLock = time.Date(2026, 3, 2, 10, 5, 0, 5e8, time.UTC)

// evidence is a state whose store says of one holder record that it is older than
// it is, and a GitHub with recorded answers; tfguard runs as in a job of it.
type evidence struct {
	*bench
	tfguard string
	gitHub  *testkit.GitHub
	env     []string
	now     time.Time

	mu   *sync.Mutex
	aged map[string]time.Duration // by ETag
}

func newEvidence(t *testing.T, f *bench, tfguard string) *evidence {
	e := &evidence{bench: f, tfguard: tfguard, mu: new(sync.Mutex), aged: map[string]time.Duration{}}
	target, err := url.Parse(f.cloud.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testkit.Serve(t, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if age, ok := e.aged[r.Header.Get("ETag")]; ok {
				r.Header.Set("Last-Modified", time.Now().Add(-age).UTC().Format(http.TimeFormat))
			}
			return nil
		},
	})
	f.write("main.tf", strings.ReplaceAll(f.read("main.tf"), f.cloud.URL, proxy))
	f.write(".tfguard.hcl", "locks {\n  stale_after = \"24h\"\n}\n") // what is stale here is so by evidence
	return e
}

// of is the same state for another test, with a GitHub of its own.
func (e *evidence) of(t *testing.T) *evidence {
	f := *e.bench
	f.t = t
	next := &evidence{bench: &f, tfguard: e.tfguard, mu: e.mu, aged: e.aged, gitHub: testkit.NewGitHub(t), now: time.Now()}
	next.env = append(plainEnv(), "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=octo-org/octo-repo", "GITHUB_SERVER_URL=https://github.com",
		"GITHUB_API_URL="+next.gitHub.URL, "GITHUB_TOKEN="+gitHubToken, "GITHUB_RUN_ID="+gitHubOwnID, "GITHUB_RUN_ATTEMPT=1", "GITHUB_JOB=apply", "GH_TOKEN=", "CI_API_V4_URL=")
	return next
}

// recorded is a recorded answer, with its times moved so that the lock's is an
// hour ago.
func (e *evidence) recorded(name string) string {
	text := testkit.Recorded(e.t, filepath.Join("..", "..", "internal", "ci", "testdata", "github", name))
	by := e.now.Add(-time.Hour).Sub(recordedLock)
	return regexp.MustCompile(`"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"`).ReplaceAllStringFunc(text, func(s string) string {
		at, err := time.Parse(time.RFC3339, strings.Trim(s, `"`))
		if err != nil {
			e.t.Fatal(err)
		}
		return at.Add(by).Format(`"` + time.RFC3339 + `"`)
	})
}

// answer is what GitHub says: a status of 0 is 200, a name without a dot is that
// of a recorded run.
type answer struct {
	status int
	file   string
	header map[string]string
}

func (e *evidence) response(a answer) testkit.Response {
	r := testkit.Response{Status: a.status, Header: a.header}
	if a.file != "" {
		r.Body = e.recorded(a.file)
	}
	return r
}

// locked puts a lock an hour old there.
func (e *evidence) locked(who string) {
	e.t.Helper()
	info, err := json.Marshal(lock.Info{ID: lockID, Operation: "OperationTypeApply", Who: who, Version: "1.11.4", Created: e.now.Add(-time.Hour).UTC(), Path: e.addr.String()})
	if err != nil {
		e.t.Fatal(err)
	}
	e.do(testkit.DynamoDB, "putlock", "-raw", string(info))
}

// held puts the record of a CI run there that names the lock and was renewed so
// long ago by the store's clock.
func (e *evidence) held(run lock.CIRun, renewed time.Duration) {
	e.t.Helper()
	r := lock.Record{RunID: "run-7", Command: "apply", Who: "runner@fv-az712-500", LockID: lockID, Stage: "apply",
		Started: e.now.Add(-time.Hour).UTC(), Beat: e.now.Add(-renewed).UTC(), CI: &run}
	body, err := r.Encode()
	if err != nil {
		e.t.Fatal(err)
	}
	key := e.addr.HolderKey()
	out, err := e.cloud.Clients.S3.PutObject(e.t.Context(), &s3.PutObjectInput{Bucket: &e.addr.Bucket, Key: &key, Body: bytes.NewReader(body)})
	if err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.aged[aws.ToString(out.ETag)] = renewed
}

// clear leaves no lock, no record and nothing of a run.
func (e *evidence) clear() {
	e.do(testkit.DynamoDB, "rmlock")
	e.do(testkit.DynamoDB, "rmobject", e.addr.HolderKey())
	if err := os.RemoveAll(filepath.Join(e.dir, ".tfguard")); err != nil {
		e.t.Error(err)
	}
}

// code runs tfguard, which must end with that exit code, and gives its stdout.
// The token is nowhere in what it prints (G7).
func (e *evidence) code(want int, args ...string) []byte {
	e.t.Helper()
	ctx, stop := context.WithTimeout(e.t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, e.tfguard, args...)
	var out, complaints bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = e.dir, e.env, &out, &complaints
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.t.Fatal(err)
	}
	if have := cmd.ProcessState.ExitCode(); have != want {
		e.t.Errorf("tfguard %s ended with %d, want %d\n%s%s", strings.Join(args, " "), have, want, out.String(), complaints.String())
	}
	if said := out.String() + complaints.String(); strings.Contains(said, gitHubToken) {
		e.t.Errorf("tfguard %s says the token:\n%s", strings.Join(args, " "), said)
	}
	return out.Bytes()
}

// wanted is the verdict that a row wants: "active proven", what it says of the
// run, and a part of one of its reasons.
type wanted struct{ verdict, run, reason string }

// decides holds that locks, unlock and apply all go by the same verdict, which
// they find by this evidence: a lock that is not stale stays, one that is proven
// stale is removed by rule, and a presumed one by whom its ID was approved.
func (e *evidence) decides(want wanted, apply bool) {
	e.t.Helper()
	status, confidence, _ := strings.Cut(want.verdict, " ")
	code := map[string]int{"active": 10, "stale": 0}[status]
	var r lock.Report
	if err := json.Unmarshal(e.code(code, "locks", "--json"), &r); err != nil || len(r.Locks) == 0 {
		e.t.Fatalf("%v: %+v", err, r)
	}
	l := r.Locks[0]
	run := ""
	if l.Run != nil {
		run = strings.TrimSpace(fmt.Sprintf("%s %s %s", strings.TrimPrefix(l.Run.URL, "https://github.com/octo-org/octo-repo/actions/runs/"), l.Run.Status, l.Run.Conclusion))
	}
	if l.Status != lock.Status(status) || l.Confidence != lock.Confidence(confidence) || run != want.run || r.Status != l.Status {
		e.t.Errorf("it is %s %s with the run %q, in all %s; want %s with %q", l.Status, l.Confidence, run, r.Status, want.verdict, want.run)
	}
	if said := strings.Join(l.Reasons, "; "); !strings.Contains(said, want.reason) || len(said) > 1500 {
		e.t.Errorf("no reason says %q: %q", want.reason, l.Reasons)
	}
	change := []string{"apply", "--auto-approve", "--unlock-stale", "proven", "--var", greeting(1)}
	switch want.verdict {
	case "stale proven":
		e.code(11, "unlock")
		if apply {
			e.code(0, change...)
		} else {
			e.code(0, "unlock", "--id", lockID)
		}
	case "stale presumed":
		if apply {
			e.code(11, change...)
		}
		e.do(testkit.DynamoDB, "locked", lockID)
		e.code(0, "unlock", "--id", lockID)
	default:
		e.code(10, "unlock", "--id", lockID)
		if apply {
			e.code(10, change...)
		}
		e.do(testkit.DynamoDB, "locked", lockID)
		return
	}
	e.do(testkit.DynamoDB, "unlocked")
}

// noAnswers are GitHub's answers that say nothing of a run, and what the verdict
// says of each.
func noAnswers() map[string]struct {
	answer answer
	reason string
} {
	type row = struct {
		answer answer
		reason string
	}
	return map[string]row{
		"304, nothing has changed":               {answer{status: 304}, "it answered 304, which says nothing"},
		"401, the token is not accepted":         {answer{status: 401, file: "unauthorized.json"}, "it does not accept the token (401)"},
		"403, the token lacks the permission":    {answer{status: 403, file: "forbidden.json"}, `it does not let this token read that (403), it says "Resource not accessible by integration"; the token needs the permission "actions: read"`},
		"403, the rate limit is used up":         {answer{403, "rate_limit.json", map[string]string{"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4102444800"}}, "its rate limit is used up until 2100-01-01 00:00:00 UTC (403)"},
		"403, the second rate limit":             {answer{403, "secondary_rate_limit.json", map[string]string{"Retry-After": "60"}}, "its rate limit is used up until"},
		"404, the run is not shown":              {answer{status: 404, file: "not_found.json"}, "it knows nothing of that, or does not show it to this token (404)"},
		"500, it failed":                         {answer{status: 500, file: "server_error.json"}, "it failed (500)"},
		"502, a page for people":                 {answer{status: 502, file: "unicorn.html"}, "it failed (502)"},
		"200 and a page for people":              {answer{file: "unicorn.html"}, "its answer is not of the documented shape"},
		"200 and an answer that is none of runs": {answer{file: "not_found.json"}, "its answer is not of the documented shape"},
	}
}

// Rules 2 and 3 with GitHub's answers, from the store to the exit code (G2, G6): a
// lock whose record names a CI run and is no longer renewed is stale only where
// GitHub says that this attempt is over.
func TestGitHubDecidesOnALockThatARecordNames(t *testing.T) {
	tfguard := buildProgram(t)
	all := newEvidence(t, newBench(t, testkit.DynamoDB), tfguard)
	type row struct {
		sentence string
		attempt  int // 0: 1
		server   string
		renewed  time.Duration // 0: a minute ago
		answer   answer
		env      []string
		want     wanted
		apply    bool
	}
	rows := []row{
		{sentence: "the first attempt of a run that was started again is over", attempt: 1, answer: answer{file: "run_attempt_1.json"},
			want: wanted{"stale proven", gitHubRunID + "/attempts/1 completed failure", "is over: failure"}},
		{sentence: "its second attempt goes on", attempt: 2, answer: answer{file: "run_attempt_2.json"}, want: wanted{"active proven", gitHubRunID + " in_progress", "is in_progress"}, apply: true},
		{sentence: "a record that is renewed needs no witness", renewed: 5 * time.Second, answer: answer{file: "run_completed_cancelled.json"},
			want: wanted{"active proven", gitHubRunID, "its heartbeat is"}},
		{sentence: "a job without a token says so", env: []string{"GITHUB_TOKEN="}, want: wanted{"active presumed", gitHubRunID, "GitHub cannot be asked: GITHUB_TOKEN is not set"}},
		{sentence: "a shell outside of CI says so", env: []string{"GITHUB_ACTIONS=", "GITHUB_REPOSITORY="}, want: wanted{"active presumed", gitHubRunID, "the environment names no CI system"}},
		{sentence: "a run of another server is not asked about", server: "https://ghe.example", answer: answer{file: "run_completed_success.json"},
			want: wanted{"active presumed", gitHubRunID, "another GitHub server"}},
		{sentence: "after the grace period no answer is still no proof", renewed: 6 * time.Minute, answer: answer{status: 500, file: "server_error.json"},
			want: wanted{"stale presumed", gitHubRunID, "whether its CI run still goes on is not known"}, apply: true},
	}
	for _, status := range []string{"in_progress", "queued", "waiting", "pending", "requested"} {
		rows = append(rows, row{sentence: "a run that is " + status + " goes on", answer: answer{file: "run_" + status + ".json"},
			want: wanted{"active proven", gitHubRunID + " " + status, "is " + status}, apply: status == "in_progress"})
	}
	for _, conclusion := range []string{"success", "failure", "cancelled", "skipped", "timed_out", "neutral", "stale", "action_required", "startup_failure"} {
		rows = append(rows, row{sentence: "a run that is completed with " + conclusion + " is over", answer: answer{file: "run_completed_" + conclusion + ".json"},
			want: wanted{"stale proven", gitHubRunID + " completed " + conclusion, "is over: " + conclusion}, apply: conclusion == "cancelled"})
	}
	for sentence, no := range noAnswers() {
		rows = append(rows, row{sentence: sentence + ", leaves it open", answer: no.answer,
			want: wanted{"active presumed", gitHubRunID, "whether its CI run still goes on is not known: ask GitHub about run " + gitHubRunID + " of octo-org/octo-repo: " + no.reason}, apply: no.answer.status == 403 && no.answer.header == nil})
	}
	for _, row := range rows {
		t.Run(row.sentence, func(t *testing.T) {
			e := all.of(t)
			defer e.clear()
			e.env = append(e.env, row.env...)
			attempt, server, renewed := max(row.attempt, 1), "https://github.com", time.Minute
			if row.server != "" {
				server = row.server
			}
			if row.renewed > 0 {
				renewed = row.renewed
			}
			e.gitHub.Answer(fmt.Sprintf("%s/%s/attempts/%d", gitHubRuns, gitHubRunID, attempt), e.response(row.answer))
			e.locked("runner@fv-az712-500")
			e.held(lock.CIRun{System: "github", Server: server, Repository: "octo-org/octo-repo", ID: gitHubRunID, Attempt: attempt, Job: "apply",
				URL: "https://github.com/octo-org/octo-repo/actions/runs/" + gitHubRunID}, renewed)
			e.decides(row.want, row.apply)
			asks := row.env == nil && row.server == "" && renewed >= time.Minute
			if tokens := e.gitHub.Tokens(); asks != (len(tokens) == 1 && tokens[0] == "Bearer "+gitHubToken) {
				t.Errorf("GitHub was asked: %q", e.gitHub.Requests())
			}
			for _, r := range e.gitHub.Requests() {
				if strings.Contains(r, "?") {
					t.Errorf("it was asked about runs of the time, and a record names the lock: %s", r)
				}
			}
		})
	}
}

// Rule 3 with GitLab's answers in the same way: a job that is over proves a lock
// stale, and what says nothing of it does not.
func TestGitLabDecidesOnALockThatARecordNames(t *testing.T) {
	tfguard := buildProgram(t)
	all := newEvidence(t, newBench(t, testkit.DynamoDB), tfguard)
	const job = "https://gitlab.example.com/infra/network/-/jobs/8"
	for _, row := range []struct {
		sentence string
		status   int
		file     string
		want     wanted
	}{
		{"a job that runs goes on", 0, "job_running.json", wanted{"active proven", job + " running", "is running"}},
		{"a job that is being cancelled still works", 0, "job_canceling.json", wanted{"active proven", job + " canceling", "is canceling"}},
		{"a job that failed is over", 0, "job_failed.json", wanted{"stale proven", job + " failed", "is over: failed"}},
		{"a cancelled job is over", 0, "job_canceled.json", wanted{"stale proven", job + " canceled", "is over: canceled"}},
		{"401, the token is not accepted, leaves it open", 401, "unauthorized.json", wanted{"active presumed", job, "is not known: ask GitLab about job 8 of infra/network: it does not accept the token (401)"}},
		{"403, the token may not read jobs, leaves it open", 403, "forbidden.json", wanted{"active presumed", job, "the token needs to be GITLAB_TOKEN with the scope read_api"}},
		{"404, the job is not shown, leaves it open", 404, "not_found.json", wanted{"active presumed", job, "(404)"}},
		{"500, it failed, leaves it open", 500, "not_found.json", wanted{"active presumed", job, "it failed (500)"}},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			e := all.of(t)
			defer e.clear()
			e.env = append(plainEnv(), "GITLAB_CI=true", "CI_API_V4_URL="+e.gitHub.URL+"/api/v4", "CI_SERVER_URL=https://gitlab.example.com", "CI_PROJECT_PATH=infra/network",
				"CI_PIPELINE_ID=7", "CI_JOB_ID=9", "CI_JOB_TOKEN="+gitHubToken)
			body := testkit.Recorded(t, filepath.Join("..", "..", "internal", "ci", "testdata", "gitlab", row.file))
			e.gitHub.Answer("/api/v4/projects/infra%2Fnetwork/jobs/8", testkit.Response{Status: row.status, Body: body})
			e.locked("root@runner-x-project-7-concurrent-0")
			e.held(lock.CIRun{System: "gitlab", Server: "https://gitlab.example.com", Repository: "infra/network", ID: "6", Job: "8", URL: job}, time.Minute)
			e.decides(row.want, false)
		})
	}
}

// Rule 4 with GitHub's answers, from the store to the exit code: a lock that no
// record names is presumed stale only where a CI run can have taken it and every
// one is over.
func TestGitHubDecidesOnALockThatNobodyNames(t *testing.T) {
	tfguard := buildProgram(t)
	all := newEvidence(t, newBench(t, testkit.DynamoDB), tfguard)
	const byAge = "under 24h0m0s is presumed active"
	type row struct {
		sentence string
		who      string   // "": a hosted runner
		lists    []string // "QUERY=RECORDED RUN": the list has this run
		files    []string // "PATH=RECORDED ANSWER"
		no       *answer  // of every list
		want     wanted
		apply    bool
	}
	rows := []row{
		{sentence: "no run of the time leaves it to its age", want: wanted{"active presumed", "", byAge}},
		{sentence: "a laptop's lock is not stale since CI has nothing to do", who: "ada@build-7", lists: []string{"created=run_completed_success.json"}, want: wanted{"active presumed", "", "its Who is not the name of a CI runner"}, apply: true},
		{sentence: "a run that goes on keeps any lock of its time active", who: "svc@build-9", lists: []string{"status=in_progress=run_in_progress.json"}, want: wanted{"active presumed", gitHubRunID + " in_progress", "could have taken it and is still going"}},
		{sentence: "a container is a runner", who: "root@3f2b8c91d04e", lists: []string{"created=run_completed_success.json"}, want: wanted{"stale presumed", gitHubRunID + " completed success", "every CI run that could have taken it is over (1)"}},
		{sentence: "of the recorded list one run could have taken it", files: []string{"?created=runs_completed.json"}, want: wanted{"stale presumed", gitHubRunID + " completed failure", "is over (1)"}, apply: true},
		{sentence: "the first attempt of a run that goes on again could have taken it, and is over", files: []string{"?status=in_progress=runs_in_progress.json", "/" + gitHubRunID + "/attempts/1=run_attempt_1.json"},
			want: wanted{"stale presumed", gitHubRunID + "/attempts/1 completed failure", "is over (1)"}},
		{sentence: "where that attempt cannot be seen it is left open", files: []string{"?status=in_progress=runs_in_progress.json"},
			want: wanted{"active presumed", "", "which CI runs could have taken it is not known: ask GitHub about the runs of octo-org/octo-repo: it knows nothing of that"}},
	}
	for _, status := range []string{"in_progress", "queued", "waiting", "pending", "requested"} {
		rows = append(rows, row{sentence: "a run that is " + status + " could have taken it", lists: []string{"created=run_completed_success.json", "status=" + status + "=run_" + status + ".json"},
			want: wanted{"active presumed", gitHubRunID + " " + status, "could have taken it and is still going"}, apply: status == "in_progress"})
	}
	for _, conclusion := range []string{"success", "failure", "cancelled", "timed_out", "neutral", "stale"} {
		rows = append(rows, row{sentence: "a run that is completed with " + conclusion + " could have taken it and is over", lists: []string{"created=run_completed_" + conclusion + ".json"},
			want: wanted{"stale presumed", gitHubRunID + " completed " + conclusion, "every CI run that could have taken it is over (1)"}})
	}
	for _, conclusion := range []string{"skipped", "action_required", "startup_failure"} {
		rows = append(rows, row{sentence: "a run that is completed with " + conclusion + " has had no machine and cannot have taken it", lists: []string{"created=run_completed_" + conclusion + ".json"},
			want: wanted{"active presumed", "", byAge}})
	}
	for sentence, no := range noAnswers() {
		rows = append(rows, row{sentence: sentence + ", leaves it open", no: &no.answer,
			want: wanted{"active presumed", "", "which CI runs could have taken it is not known: ask GitHub about the runs of octo-org/octo-repo: " + no.reason}, apply: no.answer.status == 401})
	}
	for _, row := range rows {
		t.Run(row.sentence, func(t *testing.T) {
			e := all.of(t)
			defer e.clear()
			none := testkit.Response{Body: e.recorded("runs_none.json")}
			if row.no != nil {
				none = e.response(*row.no)
			}
			e.gitHub.Answer(gitHubRuns, none)
			e.gitHub.Answer(gitHubRuns+"/"+gitHubOwnID+"/attempts/1/jobs", testkit.Response{Body: `{"total_count":0,"jobs":[]}`})
			// GitHub's search by time is the test's: which runs it lists is recorded.
			made := "created=" + url.QueryEscape("<="+e.now.Add(-time.Hour+time.Minute).UTC().Format(time.RFC3339))
			set := func(where, body string) {
				e.gitHub.Answer(gitHubRuns+strings.Replace(where, "created", made, 1), testkit.Response{Body: body})
			}
			for _, l := range row.lists {
				i := strings.LastIndex(l, "=")
				set("?"+l[:i], `{"total_count":1,"workflow_runs":[`+e.recorded(l[i+1:])+`]}`)
			}
			for _, l := range row.files {
				i := strings.LastIndex(l, "=")
				set(l[:i], e.recorded(l[i+1:]))
			}
			who := row.who
			if who == "" {
				who = "runner@fv-az712-500"
			}
			e.locked(who)
			e.decides(row.want, row.apply)
		})
	}
}
