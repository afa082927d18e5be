package ci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/lock"
)

// gitLabRuns asks GitLab's REST API about jobs. A job is what takes a lock, and
// one that has ended never goes on: a retry is a new job, while its pipeline is
// the same and runs again.
//
// The statuses success, failed, canceled and skipped mean that it is over; all
// others count as alive, canceling too, since its after_script still works.
//
// CI_JOB_TOKEN may read jobs only where GitLab allows it; elsewhere GITLAB_TOKEN
// with the scope read_api is needed.
type gitLabRuns struct {
	bounds
	http          *http.Client
	api           string // without a slash at its end
	header, token string
	server        string // such as https://gitlab.com; what a record has to name
	project       string // GROUP/PROJECT; empty where the environment has none
	self          int64  // this job; 0: none
}

func newGitLabRuns(getenv func(string) string, header, token string, b bounds) Runs {
	base, ok := apiURL(getenv("CI_API_V4_URL"))
	server := serverURL(getenv("CI_SERVER_URL"))
	if !ok || server == "" {
		return unasked("GitLab cannot be asked: CI_API_V4_URL or CI_SERVER_URL is not an address")
	}
	g := &gitLabRuns{bounds: b, http: &http.Client{Transport: bounded{base, b.way}}, api: base.String(), header: header, token: token, server: server}
	if p := getenv("CI_PROJECT_PATH"); gitLabProject(p) {
		g.project = p
	}
	g.self, _ = number(getenv("CI_JOB_ID"))
	return g
}

// gitLabSelf names this job: ID is the pipeline's, Job the job's, both numbers.
func gitLabSelf(getenv func(string) string) *lock.CIRun {
	_, pipeline := number(getenv("CI_PIPELINE_ID"))
	_, job := number(getenv("CI_JOB_ID"))
	if !pipeline || !job || !gitLabProject(getenv("CI_PROJECT_PATH")) {
		return nil
	}
	return &lock.CIRun{System: "gitlab", Server: serverURL(getenv("CI_SERVER_URL")), Repository: getenv("CI_PROJECT_PATH"),
		ID: getenv("CI_PIPELINE_ID"), Job: getenv("CI_JOB_ID"), URL: reported(getenv("CI_JOB_URL"), "", "").URL}
}

// gitLabProject reports whether s is the path of a project: at least a group and
// a name.
func gitLabProject(s string) bool {
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if keep(p, "-_.") == "" || p == "." || p == ".." {
			return false
		}
	}
	return len(parts) >= 2 && len(s) <= 1024
}

// gitLabJob is a job, or a pipeline, which has no pipeline of its own.
type gitLabJob struct {
	ID       int64     `json:"id"`
	Status   string    `json:"status"`
	URL      string    `json:"web_url"`
	Started  time.Time `json:"started_at"` // zero: it has had no machine yet
	Finished time.Time `json:"finished_at"`
	Pipeline struct {
		ID int64 `json:"id"`
	} `json:"pipeline"`
}

func (j gitLabJob) seen() (lock.RunSeen, error) {
	seen := lock.RunSeen{Run: reported(j.URL, j.Status, ""), Life: lock.Alive, Started: j.Started}
	switch j.Status {
	case "":
		return lock.RunSeen{}, errShape
	case "success", "failed", "canceled", "skipped":
		seen.Life, seen.Ended = lock.Over, j.Finished
	}
	return seen, nil
}

// Run implements [Runs], as it does for GitHub.
func (g *gitLabRuns) Run(ctx context.Context, r lock.CIRun) (lock.RunSeen, error) {
	pipeline, ok := number(r.ID)
	job, named := number(r.Job)
	switch {
	case r.System != "gitlab":
		return lock.RunSeen{}, errors.New("the run is not of GitLab, which alone can be asked here")
	case strings.TrimRight(r.Server, "/") != g.server:
		return lock.RunSeen{}, errors.New("the run is of another GitLab server than " + g.server + ", which alone can be asked here")
	case !ok || !named && r.Job != "" || !gitLabProject(r.Repository):
		return lock.RunSeen{}, errors.New("the record names no job of GitLab")
	}
	what, id := "pipelines", pipeline
	if named {
		what, id = "jobs", job
	}
	q, end := g.ask(ctx)
	defer end()
	var answer gitLabJob
	err := g.get(q, q.ctx, fmt.Sprintf("/projects/%s/%s/%d", url.PathEscape(r.Repository), what, id), &answer)
	if err == nil && (answer.ID != id || named && answer.Pipeline.ID != pipeline) {
		err = errShape // it tells of another job
	}
	if err == nil {
		var seen lock.RunSeen
		if seen, err = answer.seen(); err == nil {
			return seen, nil
		}
	}
	return lock.RunSeen{}, q.failed(ctx, err, "GitLab about %s %d of %s", strings.TrimSuffix(what, "s"), id, r.Repository)
}

// Around implements [Runs]: it lists jobs, this one left out. A job that has had
// no machine yet has taken no lock, so only those that run are asked for, which
// nobody can have joined whose window holds that time; and the hundred newest
// that are over.
func (g *gitLabRuns) Around(ctx context.Context, at time.Time) ([]lock.RunSeen, error) {
	if g.project == "" {
		return nil, errors.New("GitLab cannot be asked for jobs: CI_PROJECT_PATH is not GROUP/PROJECT")
	}
	q, end := g.ask(ctx)
	defer end()
	seen, err := g.around(q, at)
	if err != nil {
		return nil, q.failed(ctx, err, "GitLab about the jobs of %s", g.project)
	}
	return seen, nil
}

func (g *gitLabRuns) around(q *question, at time.Time) ([]lock.RunSeen, error) {
	list := func(ctx context.Context, jobs *[]gitLabJob, scopes ...string) error {
		query := url.Values{"per_page": {"100"}, "scope[]": scopes}
		err := g.get(q, ctx, "/projects/"+url.PathEscape(g.project)+"/jobs?"+query.Encode(), jobs)
		if err == nil && *jobs == nil {
			return errShape // null
		}
		return err
	}
	var running, canceling, over []gitLabJob
	group, ctx := errgroup.WithContext(q.ctx)
	group.Go(func() error {
		// One after the other: a job that is cancelled in between is in the second.
		if err := list(ctx, &running, "running"); err != nil {
			return err
		}
		err := list(ctx, &canceling, "canceling")
		var no *refused
		if errors.As(err, &no) && no.code == http.StatusBadRequest {
			return nil // GitLab before 17.0 has no such status
		}
		return err
	})
	group.Go(func() error { return list(ctx, &over, "success", "failed", "canceled") })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	found := []lock.RunSeen{}
	known := map[int64]bool{g.self: true}
	for _, j := range append(append(running, canceling...), over...) {
		seen, err := j.seen()
		if err != nil || j.ID <= 0 {
			return nil, errShape
		}
		if known[j.ID] || seen.Started.IsZero() || seen.Life == lock.Over && seen.Ended.IsZero() {
			continue
		}
		known[j.ID] = true
		if seen.Life != lock.Over {
			seen.Started = seen.Started.Add(-skew)
		}
		if could(seen, at) {
			found = append(found, seen)
		}
	}
	if (len(running) >= 100 || len(canceling) >= 100) && !alive(found) {
		return nil, errTooMany
	}
	return found, nil
}

func (g *gitLabRuns) get(q *question, ctx context.Context, path string, into any) error {
	return q.try(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.api+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set(g.header, g.token)
		req.Header.Set("User-Agent", userAgent)
		resp, err := g.http.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // it is in memory
		if code := resp.StatusCode; code != http.StatusOK {
			no := &refused{code: code, limited: code == http.StatusTooManyRequests, needs: "the scope read_api"}
			if g.header == "JOB-TOKEN" {
				no.needs = "to be GITLAB_TOKEN with the scope read_api"
			}
			if no.limited {
				no.until = limitEnd(resp.Header, time.Now())
			}
			var says struct{ Message, Error string }
			if json.NewDecoder(resp.Body).Decode(&says) == nil {
				no.message = says.Message + says.Error
			}
			return no
		}
		return json.NewDecoder(resp.Body).Decode(into)
	})
}
