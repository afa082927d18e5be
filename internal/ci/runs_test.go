package ci

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/testkit"
)

// secret is the token in these tests; no error may hold it (G7).
const secret = "ghs_16C7e42F292c6912E7710c838347Ae178B4a"

// quick asks with a short pause and on connections of the test's own.
func quick(t testing.TB) bounds {
	way := &http.Transport{}
	t.Cleanup(way.CloseIdleConnections)
	return bounds{whole: 10 * time.Second, pause: time.Millisecond, way: way}
}

func recorded(t testing.TB, name string, replace ...string) string {
	t.Helper()
	return testkit.Recorded(t, filepath.Join("testdata", name), replace...)
}

func clock(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// unknown fails the test unless the question was left open, for that reason.
func unknown(t *testing.T, got lock.RunSeen, err error, why string) {
	t.Helper()
	if err == nil || got != (lock.RunSeen{}) {
		t.Fatalf("got %+v and error %v, want nothing and an error", got, err)
	}
	if !strings.Contains(err.Error(), why) {
		t.Errorf("error %q, want %q in it", err, why)
	}
	decent(t, err)
}

// decent holds that an error is words for a terminal and a log.
func decent(t *testing.T, err error) {
	t.Helper()
	if s := err.Error(); len(s) > 600 || strings.Contains(s, secret) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("error %q is not fit to be printed", s)
	}
}

func TestNewRuns(t *testing.T) {
	gitLab := []string{"CI_API_V4_URL", "https://gitlab.example.com/api/v4", "CI_SERVER_URL", "https://gitlab.example.com", "CI_PROJECT_PATH", "infra/network"}
	for _, c := range []struct {
		sentence string
		env      []string
		want     string // whom it asks, or why nobody
	}{
		{"on a laptop there is nobody to ask", nil, ""},
		{"a token alone, as a developer's shell has it, asks nobody", []string{"GITHUB_TOKEN", secret}, ""},
		{"without a token nobody is asked, and it is said", []string{"GITHUB_ACTIONS", "true", "GITHUB_REPOSITORY", "o/r"}, "GITHUB_TOKEN is not set"},
		{"a token of blanks is none", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", " \n"}, "GITHUB_TOKEN is not set"},
		{"a step of GitHub Actions with a token asks GitHub", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", secret}, "https://api.github.com/ for https://github.com"},
		{"a shell that names a repository asks GitHub", []string{"GITHUB_REPOSITORY", "o/r", "GH_TOKEN", secret}, "https://api.github.com/ for https://github.com"},
		{"GitHub Enterprise is asked at its own address", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", secret, "GITHUB_SERVER_URL", "https://ghe.example/", "GITHUB_API_URL", "https://ghe.example/api/v3/"}, "https://ghe.example/api/v3/ for https://ghe.example"},
		{"another server's API is not guessed", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", secret, "GITHUB_SERVER_URL", "https://ghe.example"}, "GITHUB_API_URL"},
		{"an API that is no address is said", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", secret, "GITHUB_API_URL", "file:///etc"}, "GITHUB_API_URL"},
		{"an API with a password in it is not used", []string{"GITHUB_ACTIONS", "true", "GITHUB_TOKEN", secret, "GITHUB_API_URL", "https://a:b@ghe.example"}, "GITHUB_API_URL"},
		{"GitLab is asked with the job's token", append(gitLab, "CI_JOB_TOKEN", secret), "https://gitlab.example.com/api/v4 by JOB-TOKEN"},
		{"GitLab is asked with a token that may read more", append(gitLab, "CI_JOB_TOKEN", "x", "GITLAB_TOKEN", secret), "https://gitlab.example.com/api/v4 by PRIVATE-TOKEN"},
		{"GitLab without a token is not asked, and it is said", gitLab, "neither GITLAB_TOKEN nor CI_JOB_TOKEN"},
		{"GitLab's API that is no address is said", []string{"CI_API_V4_URL", "nowhere", "CI_JOB_TOKEN", secret}, "CI_API_V4_URL"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got := ""
			switch r := NewRuns(environment(c.env...)).(type) {
			case nil:
			case unasked:
				seen, err := r.Run(t.Context(), lock.CIRun{System: "github", Server: "https://github.com", Repository: "o/r", ID: "1"})
				unknown(t, seen, err, c.want)
				if runs, err := r.Around(t.Context(), time.Now()); err == nil || runs != nil {
					t.Errorf("got %v, %v", runs, err)
				}
				return
			case *gitHubRuns:
				got = r.api.BaseURL() + " for " + r.server
			case *gitLabRuns:
				got = r.api + " by " + r.header
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSelf(t *testing.T) {
	gitHub := []string{"GITHUB_ACTIONS", "true", "GITHUB_REPOSITORY", "o/r", "GITHUB_RUN_ID", "7", "GITHUB_RUN_ATTEMPT", "2", "GITHUB_JOB", "apply", "GITHUB_SERVER_URL", "https://github.com/"}
	gitLab := []string{"GITLAB_CI", "true", "CI_PROJECT_PATH", "infra/eu/network", "CI_PIPELINE_ID", "6", "CI_JOB_ID", "8", "CI_SERVER_URL", "https://gitlab.example.com", "CI_JOB_URL", "https://gitlab.example.com/infra/eu/network/-/jobs/8"}
	for _, c := range []struct {
		sentence string
		env      []string
		want     *lock.CIRun
	}{
		{"outside of CI there is no run", nil, nil},
		{"a run of GitHub is named with its attempt", gitHub, &lock.CIRun{System: "github", Server: "https://github.com", Repository: "o/r", ID: "7", Attempt: 2, Job: "apply", URL: "https://github.com/o/r/actions/runs/7/attempts/2"}},
		{"a run without a usable id is none", append(gitHub, "GITHUB_RUN_ID", "7\n8"), nil},
		{"a job of GitLab is named with its pipeline", gitLab, &lock.CIRun{System: "gitlab", Server: "https://gitlab.example.com", Repository: "infra/eu/network", ID: "6", Job: "8", URL: "https://gitlab.example.com/infra/eu/network/-/jobs/8"}},
		{"a job of a project that climbs out of its path is none", append(gitLab, "CI_PROJECT_PATH", "infra/../x"), nil},
		{"an address that is none is left out", append(gitLab, "CI_JOB_URL", "javascript:alert(1)"), &lock.CIRun{System: "gitlab", Server: "https://gitlab.example.com", Repository: "infra/eu/network", ID: "6", Job: "8"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Self(environment(c.env...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a run writes into its holder record is what another run can ask about.
func TestARunThatNamesItselfCanBeAskedAbout(t *testing.T) {
	server := testkit.NewGitHub(t)
	env := []string{"GITHUB_ACTIONS", "true", "GITHUB_REPOSITORY", "octo-org/octo-repo", "GITHUB_RUN_ID", "30433642", "GITHUB_RUN_ATTEMPT", "2",
		"GITHUB_SERVER_URL", "https://github.com", "GITHUB_API_URL", server.URL, "GITHUB_TOKEN", secret}
	server.File(t, "/repos/octo-org/octo-repo/actions/runs/30433642/attempts/2", "testdata/github/run_attempt_2.json")
	got, err := newRuns(environment(env...), quick(t)).Run(t.Context(), *Self(environment(env...)))
	if err != nil || got.Life != lock.Alive {
		t.Errorf("got %+v, %v", got, err)
	}
	env = []string{"GITLAB_CI", "true", "CI_PROJECT_PATH", "infra/network", "CI_PIPELINE_ID", "6", "CI_JOB_ID", "8", "CI_SERVER_URL", "https://gitlab.example.com",
		"CI_API_V4_URL", server.URL + "/api/v4", "CI_JOB_TOKEN", secret}
	server.File(t, "/api/v4/projects/infra%2Fnetwork/jobs/8", "testdata/gitlab/job_running.json")
	got, err = newRuns(environment(env...), quick(t)).Run(t.Context(), *Self(environment(env...)))
	if err != nil || got.Life != lock.Alive {
		t.Errorf("got %+v, %v", got, err)
	}
}

// G6: evidence of CI alone never proves a lock stale, and a run that goes on
// makes it active. The lists come as they would in a run.
func TestWhatTheRunsSayDecidesOnALockThatNobodyNames(t *testing.T) {
	raw := `{"ID":"7a3c0e5a-5b2e-4c0d-8a53-0c6f5c8f6f11","Operation":"OperationTypeApply","Who":"runner@fv-az712-500","Version":"1.11.4","Created":"2026-03-02T10:05:00.5Z","Path":"b/k"}`
	now := clock(t, "2026-03-02T10:20:00Z")
	for _, c := range []struct {
		sentence, status string
		want             lock.Status
		reason           string
	}{
		{"a run of that time that goes on makes the lock active", "in_progress", lock.Active, "still going"},
		{"where all runs of that time are over the lock is presumed stale, however young", "completed", lock.Stale, "every CI run that could have taken it is over"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			g := newGitHubTest(t)
			g.list("in_progress")
			if c.status == "completed" {
				g.list("", aRun{id: 5, status: "completed", conclusion: "failure", started: "2026-03-02T10:00:00Z", updated: "2026-03-02T10:14:31Z"})
			} else {
				g.list("in_progress", aRun{id: 5, status: c.status, started: "2026-03-02T10:00:00Z"})
			}
			runs, err := g.runs.Around(t.Context(), clock(t, "2026-03-02T10:05:00.5Z"))
			if err != nil {
				t.Fatal(err)
			}
			v := lock.Classify("b/k", []lock.Observation{{Store: lock.S3, Raw: []byte(raw), ServerNow: now, Written: clock(t, "2026-03-02T10:05:01Z")}}, lock.Evidence{Runs: runs}, lock.DefaultPolicy(), now)
			if v.Status != c.want || v.Locks[0].Confidence != lock.Presumed || !slices.ContainsFunc(v.Locks[0].Reasons, func(s string) bool { return strings.Contains(s, c.reason) }) {
				t.Errorf("got %s %s %q", v.Status, v.Locks[0].Confidence, v.Locks[0].Reasons)
			}
		})
	}
}

// A caller that gives up is not told that GitHub is slow.
func TestACancelledQuestionEndsAtOnce(t *testing.T) {
	server := testkit.NewGitHub(t)
	slow := testkit.NewFaulty(t, server.URL)
	hang := slow.Add(testkit.Fault{Hang: true})
	runs := newRuns(environment(gitHubEnv(slow.URL)...), quick(t))
	for _, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := runs.Run(ctx, theRun(1)); return err },
		func(ctx context.Context) error { _, err := runs.Around(ctx, time.Now()); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ask(ctx) }()
		hang.Wait(t)
		began := time.Now()
		cancel()
		err := <-done
		if err == nil || !strings.Contains(err.Error(), "context canceled") || time.Since(began) > 3*time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	}
}
