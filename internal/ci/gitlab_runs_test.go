package ci

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

const theProject = "/api/v4/projects/infra%2Fnetwork"

func gitLabEnv(url string) []string {
	return []string{"GITLAB_CI", "true", "CI_API_V4_URL", url + "/api/v4", "CI_SERVER_URL", "https://gitlab.example.com", "CI_PROJECT_PATH", "infra/network", "CI_JOB_TOKEN", secret}
}

func theJob() lock.CIRun {
	return lock.CIRun{System: "gitlab", Server: "https://gitlab.example.com", Repository: "infra/network", ID: "6", Job: "8"}
}

func mustGlob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return names
}

// G6: four statuses mean that a job is over; whatever else comes is alive or not
// known.
func TestGitLabRun(t *testing.T) {
	const url = "https://gitlab.example.com/infra/network/-/jobs/8"
	ended := map[string]bool{"success": true, "failed": true, "canceled": true, "skipped": true}
	for _, name := range mustGlob(t, "testdata/gitlab/job_*.json") {
		status := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "job_"), ".json")
		want := lock.RunSeen{Run: lock.Run{URL: url, Status: status}, Life: lock.Alive}
		if ended[status] {
			want.Life = lock.Over
		}
		t.Run("a job that is "+status+" is "+string(want.Life), func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.File(t, theProject+"/jobs/8", name)
			got, err := newRuns(environment(gitLabEnv(server.URL)...), quick(t)).Run(t.Context(), theJob())
			if err != nil {
				t.Fatal(err)
			}
			got.Started, got.Ended = time.Time{}, time.Time{}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	file := func(name string, change ...string) string { return recorded(t, "gitlab/"+name+".json", change...) }
	for _, c := range []struct {
		sentence string
		answer   testkit.Response
		why      string
		requests int // 0: 1
	}{
		{sentence: "a refused token leaves it open", answer: testkit.Response{Status: 401, Body: file("unauthorized")}, why: "(401)"},
		{sentence: "a job's token that may not read jobs leaves it open and says what may", answer: testkit.Response{Status: 403, Body: file("forbidden")}, why: "GITLAB_TOKEN with the scope read_api"},
		{sentence: "a job that is not shown leaves it open", answer: testkit.Response{Status: 404, Body: file("not_found")}, why: "GITLAB_TOKEN with the scope read_api"},
		{sentence: "a used up rate limit leaves it open and says until when", answer: testkit.Response{Status: 429, Header: map[string]string{"RateLimit-Reset": "4102444800"}, Body: "Retry later"}, why: "until 2100-01-01 00:00:00 UTC (429)"},
		{sentence: "a failing GitLab is asked once more and leaves it open", answer: testkit.Response{Status: 500, Body: `{"message":{"base":["x"]}}`}, why: "it failed (500)", requests: 2},
		{sentence: "an answer that nothing has changed leaves it open", answer: testkit.Response{Status: 304}, why: "it answered 304"},
		{sentence: "half an answer leaves it open", answer: testkit.Response{Status: 206, Body: file("job_success")}, why: "it answered 206"},
		{sentence: "a page for people leaves it open", answer: testkit.Response{Body: "<html>sign in</html>"}, why: "shape"},
		{sentence: "an empty answer leaves it open", answer: testkit.Response{}, why: "shape"},
		{sentence: "null leaves it open", answer: testkit.Response{Body: "null"}, why: "shape"},
		{sentence: "a list leaves it open", answer: testkit.Response{Body: "[]"}, why: "shape"},
		{sentence: "another job leaves it open", answer: testkit.Response{Body: file("job_success", `"id": 8`, `"id": 9`)}, why: "shape"},
		{sentence: "a job of another pipeline leaves it open", answer: testkit.Response{Body: file("job_success", `"id": 6`, `"id": 7`)}, why: "shape"},
		{sentence: "a job without a status leaves it open", answer: testkit.Response{Body: file("job_success", `"status": "success"`, `"x": 1`)}, why: "shape"},
		{sentence: "an answer without end leaves it open", answer: testkit.Response{Body: `"` + strings.Repeat("a", 5<<20) + `"`}, why: "longer than 4 MiB"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.Answer(theProject+"/jobs/8", c.answer)
			got, err := newRuns(environment(gitLabEnv(server.URL)...), quick(t)).Run(t.Context(), theJob())
			unknown(t, got, err, c.why)
			if n := len(server.Requests()); n != max(c.requests, 1) {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestGitLabRunWithoutAJobIsThePipeline(t *testing.T) {
	for file, want := range map[string]lock.Life{"pipeline_running": lock.Alive, "pipeline_failed": lock.Over} {
		server := testkit.NewGitHub(t)
		server.File(t, theProject+"/pipelines/6", "testdata/gitlab/"+file+".json")
		r := theJob()
		r.Job = ""
		got, err := newRuns(environment(gitLabEnv(server.URL)...), quick(t)).Run(t.Context(), r)
		if err != nil || got.Life != want || got.URL != "https://gitlab.example.com/infra/network/-/pipelines/6" {
			t.Errorf("%s: got %+v, %v", file, got, err)
		}
	}
}

// G7: the token goes to the API's host alone; what a record names is data.
func TestGitLabsTokenStaysWithItsHost(t *testing.T) {
	stranger := testkit.NewGitHub(t)
	for _, c := range []struct {
		sentence string
		change   func(*lock.CIRun)
	}{
		{"a record of another server is not asked about", func(r *lock.CIRun) { r.Server = stranger.URL }},
		{"a record of another system is not asked about", func(r *lock.CIRun) { r.System = "github" }},
		{"a record whose project climbs is not asked about", func(r *lock.CIRun) { r.Repository = "infra/../../user" }},
		{"a record whose project has no group is not asked about", func(r *lock.CIRun) { r.Repository = "network" }},
		{"a record whose project ends the path is not asked about", func(r *lock.CIRun) { r.Repository = "infra/network?x" }},
		{"a record whose job is no number is not asked about", func(r *lock.CIRun) { r.Job = "8/trace" }},
		{"a record whose pipeline is no number is not asked about", func(r *lock.CIRun) { r.ID = "" }},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			r := theJob()
			c.change(&r)
			got, err := newRuns(environment(gitLabEnv(server.URL)...), quick(t)).Run(t.Context(), r)
			unknown(t, got, err, "the")
			if n := len(server.Requests()) + len(stranger.Requests()); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("a redirect to another host is not followed", func(t *testing.T) {
		server := testkit.NewGitHub(t)
		server.Answer(theProject+"/jobs/8", testkit.Response{Status: 302, Header: map[string]string{"Location": stranger.URL + "/users/sign_in"}})
		got, err := newRuns(environment(gitLabEnv(server.URL)...), quick(t)).Run(t.Context(), theJob())
		unknown(t, got, err, "another host")
		if n := len(stranger.Requests()); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("a token that may read more is sent in its own header", func(t *testing.T) {
		server := testkit.NewGitHub(t)
		server.File(t, theProject+"/jobs/8", "testdata/gitlab/job_running.json")
		_, err := newRuns(environment(append(gitLabEnv(server.URL), "CI_JOB_TOKEN", "", "GITLAB_TOKEN", "glpat-x")...), quick(t)).Run(t.Context(), theJob())
		if tokens := server.Tokens(); err != nil || len(tokens) != 1 || tokens[0] != "glpat-x" {
			t.Errorf("tokens %q, %v", tokens, err)
		}
	})
}

// G2: a job that could hold the lock is never left out.
func TestGitLabAround(t *testing.T) {
	const at = "2026-03-02T10:05:00.5Z"
	running, canceling, over := theProject+"/jobs?scope[]=running", theProject+"/jobs?scope[]=canceling", theProject+"/jobs?scope[]=success&scope[]=failed&scope[]=canceled"
	for _, c := range []struct {
		sentence string
		env      []string
		set      func(*testkit.GitHub)
		want     []string
		why      string
	}{
		{sentence: "a project without jobs gives an empty list, which is known", set: func(*testkit.GitHub) {}},
		{sentence: "a job that began before and runs is there, one that began later is not", set: func(g *testkit.GitHub) {
			g.File(t, running, "testdata/gitlab/jobs_running.json")
		}, want: []string{"8 alive"}},
		{sentence: "a job that runs and began within the minute that clocks may differ by is there", set: func(g *testkit.GitHub) {
			g.File(t, running, "testdata/gitlab/jobs_running.json", "2026-03-02T10:30:00.1Z", "2026-03-02T10:06:00.4Z")
		}, want: []string{"9 alive", "8 alive"}},
		{sentence: "this job itself is left out", env: []string{"CI_JOB_ID", "8"}, set: func(g *testkit.GitHub) {
			g.File(t, running, "testdata/gitlab/jobs_running.json")
		}},
		{sentence: "a job that is being cancelled is there", set: func(g *testkit.GitHub) {
			g.File(t, canceling, "testdata/gitlab/jobs_running.json", `"status": "running"`, `"status": "canceling"`)
		}, want: []string{"8 alive"}},
		{sentence: "a GitLab that knows no canceling has no such jobs", set: func(g *testkit.GitHub) {
			g.Answer(canceling, testkit.Response{Status: 400, Body: recorded(t, "gitlab/bad_scope.json")})
			g.File(t, over, "testdata/gitlab/jobs_over.json")
		}, want: []string{"7 over"}},
		{sentence: "a job of that time that is over is there", set: func(g *testkit.GitHub) {
			g.File(t, over, "testdata/gitlab/jobs_over.json")
		}, want: []string{"7 over"}},
		{sentence: "a job cancelled before it had a machine is not there", set: func(g *testkit.GitHub) {
			g.Answer(over, testkit.Response{Body: `[{"id":7,"status":"canceled","started_at":null,"finished_at":"2026-03-02T11:00:00Z"}]`})
		}},
		{sentence: "a refused list of running jobs leaves all open", set: func(g *testkit.GitHub) {
			g.Answer(running, testkit.Response{Status: 403, Body: recorded(t, "gitlab/forbidden.json")})
		}, why: "(403)"},
		{sentence: "a refused list of jobs being cancelled leaves all open", set: func(g *testkit.GitHub) {
			g.Answer(canceling, testkit.Response{Status: 403, Body: recorded(t, "gitlab/forbidden.json")})
		}, why: "(403)"},
		{sentence: "a refused list of ended jobs leaves all open", set: func(g *testkit.GitHub) {
			g.Answer(over, testkit.Response{Status: 500, Body: "x"})
		}, why: "(500)"},
		{sentence: "a list that is null leaves all open", set: func(g *testkit.GitHub) { g.Answer(running, testkit.Response{Body: "null"}) }, why: "shape"},
		{sentence: "a list that is none leaves all open", set: func(g *testkit.GitHub) { g.Answer(running, testkit.Response{Body: "{}"}) }, why: "shape"},
		{sentence: "a job without an id leaves all open", set: func(g *testkit.GitHub) {
			g.Answer(running, testkit.Response{Body: `[{"status":"running","started_at":"2026-03-02T10:00:00Z"}]`})
		}, why: "shape"},
		{sentence: "a hundred running jobs, none of that time, leave all open", set: func(g *testkit.GitHub) {
			jobs := []map[string]any{}
			for id := range 100 {
				jobs = append(jobs, map[string]any{"id": id + 1, "status": "running", "started_at": "2026-03-02T11:00:00Z"})
			}
			body, err := json.Marshal(jobs)
			if err != nil {
				t.Fatal(err)
			}
			g.Answer(running, testkit.Response{Body: string(body)})
		}, why: "more goes on"},
		{sentence: "a project that the environment does not name leaves all open", env: []string{"CI_PROJECT_PATH", ""}, set: func(*testkit.GitHub) {}, why: "CI_PROJECT_PATH"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			server := testkit.NewGitHub(t)
			server.Answer(theProject+"/jobs", testkit.Response{Body: "[]"})
			c.set(server)
			got, err := newRuns(environment(append(gitLabEnv(server.URL), c.env...)...), quick(t)).Around(t.Context(), clock(t, at))
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
				_, name, _ := strings.Cut(r.URL, "/-/jobs/")
				names = append(names, name+" "+string(r.Life))
			}
			if diff := cmp.Diff(append([]string{}, c.want...), names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := len(server.Requests()); n != 3 {
				t.Errorf("%d requests: %q", n, server.Requests())
			}
		})
	}
}

// G6: no answer makes a job over but one that says so of this job.
func FuzzGitLabRun(f *testing.F) {
	seeds(f, "testdata/gitlab/*.json", "id", "status", "web_url", "started_at", "finished_at", "pipeline", "message", "error")
	way := &canned{}
	runs := newRuns(environment(gitLabEnv("http://127.0.0.1:1")...), bounds{whole: 10 * time.Second, way: way})
	f.Fuzz(func(t *testing.T, body []byte) {
		way.body = body
		got, err := runs.Run(t.Context(), theJob())
		if (err == nil) == (got.Life == lock.NotKnown) {
			t.Fatalf("got %+v, %v", got, err)
		}
		checkSeen(t, got)
		if ended := got.Status == "success" || got.Status == "failed" || got.Status == "canceled" || got.Status == "skipped"; got.Life == lock.Over && !ended {
			t.Fatalf("%q is taken for the end of the job", body)
		}
		if _, err := runs.Around(t.Context(), time.Unix(0, 0)); err == nil && !strings.HasPrefix(strings.TrimSpace(string(body)), "[") {
			t.Fatalf("%q is taken for a list", body)
		}
	})
}
