package ci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v89/github"
	"golang.org/x/sync/errgroup"

	"github.com/tfguard/tfguard/internal/lock"
)

// gitHubRuns asks the REST API of GitHub or GitHub Enterprise Server about
// workflow runs. The token needs the permission "actions: read".
//
// Only the status "completed" means that a run is over, whatever its conclusion.
// All others count as alive: of in_progress that is plain; queued, requested and
// pending (held back by a concurrency group) are stations that a run also comes
// back to between two jobs; waiting (for the approval of an environment) is said
// of a run while other jobs of it still work; and one that is not known yet can
// mean anything. An attempt before the last one is over by what GitHub says of
// it: it starts none while another of the run goes on.
type gitHubRuns struct {
	bounds
	api         *github.Client
	server      string // such as https://github.com; what a record has to name
	owner, name string // this repository; empty where the environment has none
	self        *lock.CIRun
	runner      string // name of the machine this job runs on; empty: not known

	mu   sync.Mutex
	kept map[string]gitHubAnswer
}

// gitHubAnswer is what GitHub told at one time.
type gitHubAnswer struct {
	runs  []workflowRun
	jobs  []workflowRun // others of this run that have or had a machine
	all   bool          // that there are
	asked time.Time     // when, by this machine's clock
	no    error         // that the token may not ask
}

type workflowRun struct {
	id      int64
	attempt int
	created time.Time // with its first attempt
	seen    lock.RunSeen
}

func newGitHubRuns(getenv func(string) string, token string, b bounds) Runs {
	g := &gitHubRuns{bounds: b, server: "https://github.com", self: Self(getenv), runner: getenv("RUNNER_NAME")}
	if s := getenv("GITHUB_SERVER_URL"); s != "" {
		g.server = serverURL(s)
	}
	address := getenv("GITHUB_API_URL")
	if address == "" && g.server == "https://github.com" {
		address = "https://api.github.com"
	}
	base, ok := apiURL(address)
	if !ok || g.server == "" {
		return unasked("GitHub cannot be asked: GITHUB_API_URL or GITHUB_SERVER_URL is not an address")
	}
	g.owner, g.name, _ = gitHubRepository(getenv("GITHUB_REPOSITORY"))
	slashed := base.String() + "/"
	var err error
	g.api, err = github.NewClient(
		github.WithHTTPClient(&http.Client{Transport: bounded{base, b.way}}),
		github.WithAuthToken(token), github.WithURLs(&slashed, nil), github.WithUserAgent(userAgent))
	if err != nil {
		return unasked("GitHub cannot be asked: " + line(err.Error()))
	}
	return g
}

// gitHubRepository parts OWNER/NAME.
func gitHubRepository(s string) (owner, name string, ok bool) {
	owner, name, _ = strings.Cut(s, "/")
	if keep(owner, "-_") == "" || keep(name, "-_.") == "" || name == "." || name == ".." {
		return "", "", false
	}
	return owner, name, true
}

// Run implements [Runs]. The record's repository is asked for only if it is of
// this environment's server; its addresses are never called.
func (g *gitHubRuns) Run(ctx context.Context, r lock.CIRun) (lock.RunSeen, error) {
	owner, name, ok := gitHubRepository(r.Repository)
	id, usable := number(r.ID)
	switch {
	case r.System != "github":
		return lock.RunSeen{}, errors.New("the run is not of GitHub, which alone can be asked here")
	case strings.TrimRight(r.Server, "/") != g.server:
		return lock.RunSeen{}, errors.New("the run is of another GitHub server than " + g.server + ", which alone can be asked here")
	case !ok || !usable || r.Attempt < 0:
		return lock.RunSeen{}, errors.New("the record names no run of GitHub")
	}
	q, end := g.ask(ctx)
	defer end()
	run, err := g.attempt(q, owner, name, id, r.Attempt)
	if err != nil {
		return lock.RunSeen{}, q.failed(ctx, err, "GitHub about run %d of %s/%s", id, owner, name)
	}
	return run.seen, nil
}

// attempt reads one attempt of a run; 0 is the last one: when that is over, all
// are.
func (g *gitHubRuns) attempt(q *question, owner, name string, id int64, n int) (workflowRun, error) {
	a, err := g.recall(fmt.Sprintf("%s/%s/%d/%d", owner, name, id, n), time.Time{}, func() (a gitHubAnswer, err error) {
		err = q.try(q.ctx, func(ctx context.Context) (err error) {
			var run *github.WorkflowRun
			if n == 0 {
				run, _, err = g.api.Actions.GetWorkflowRunByID(ctx, owner, name, id)
			} else {
				run, _, err = g.api.Actions.GetWorkflowRunAttempt(ctx, owner, name, id, n, nil)
			}
			if err != nil {
				return gitHubError(err)
			}
			if run.GetID() != id || n != 0 && run.GetRunAttempt() != n {
				return errShape // it tells of another run
			}
			a.runs, err = readRuns(run)
			return err
		})
		return a, err
	})
	if err != nil {
		return workflowRun{}, err
	}
	return a.runs[0], nil
}

// readRuns reads GitHub's answer on runs. GitHub has no field for a run's end:
// the last change of one that is over is taken for it.
func readRuns(answer ...*github.WorkflowRun) ([]workflowRun, error) {
	var runs []workflowRun
	for _, r := range answer {
		started := r.GetRunStartedAt()
		if started.IsZero() {
			started = r.GetCreatedAt()
		}
		seen, err := gitHubLife(r.GetHTMLURL(), r.GetStatus(), r.GetConclusion(), started, r.GetUpdatedAt())
		if err != nil || r.GetID() <= 0 {
			return nil, errShape
		}
		runs = append(runs, workflowRun{id: r.GetID(), attempt: r.GetRunAttempt(), created: r.GetCreatedAt().Time, seen: seen})
	}
	return runs, nil
}

// gitHubLife reads what GitHub says of a run or a job. The end counts to the next
// second, since GitHub's times have no fraction.
func gitHubLife(address, status, conclusion string, started, ended github.Timestamp) (lock.RunSeen, error) {
	if status == "" || started.IsZero() {
		return lock.RunSeen{}, errShape
	}
	seen := lock.RunSeen{Run: reported(address, status, conclusion), Life: lock.Alive, Started: started.UTC()}
	if status == "completed" {
		if ended.IsZero() {
			return lock.RunSeen{}, errShape
		}
		seen.Life, seen.Ended = lock.Over, ended.UTC().Add(time.Second)
	}
	return seen, nil
}

// Around implements [Runs].
//
// What goes on is asked for by status, since a list of all runs of the last 65
// days (a run may be started again for 30 days and then go on for 35) is too long
// where many are made. These lists need no search by time and are short. Then
// come the hundred runs made last before that time: those that are over, and any
// that changed its status between two questions. Of this run the other jobs are
// looked at one by one, since one of them may hold the lock. Where a run was
// started again after that time, its earlier attempts are asked for, a few in all.
func (g *gitHubRuns) Around(ctx context.Context, at time.Time) ([]lock.RunSeen, error) {
	if g.owner == "" {
		return nil, errors.New("GitHub cannot be asked for runs: GITHUB_REPOSITORY is not OWNER/NAME")
	}
	q, end := g.ask(ctx)
	defer end()
	seen, err := g.around(q, at)
	if err != nil {
		return nil, q.failed(ctx, err, "GitHub about the runs of %s/%s", g.owner, g.name)
	}
	return seen, nil
}

func (g *gitHubRuns) around(q *question, at time.Time) ([]lock.RunSeen, error) {
	going, err := g.recall("going", at, func() (gitHubAnswer, error) { return g.going(q) })
	if err != nil {
		return nil, err
	}
	made := "<=" + at.Add(skew).UTC().Format(time.RFC3339)
	recent, err := g.recall(made, at, func() (gitHubAnswer, error) {
		return g.list(q, q.ctx, github.ListWorkflowRunsOptions{Created: made})
	})
	if err != nil {
		return nil, err
	}
	found := []lock.RunSeen{}
	add := func(r workflowRun) {
		if r.idle() {
			return
		}
		if r.seen.Life != lock.Over {
			r.seen.Started = r.seen.Started.Add(-skew)
		}
		if could(r.seen, at) {
			found = append(found, r.seen)
		}
	}
	for _, j := range going.jobs {
		add(j)
	}
	known := map[int64]bool{}
	attempts := 4 // how many earlier ones are asked for
	for _, r := range slices.Concat(going.runs, recent.runs) {
		if known[r.id] {
			continue
		}
		known[r.id] = true
		if !g.own(r) {
			add(r)
		}
		for made := r.created; r.attempt > 1 && r.seen.Started.After(at) && !made.After(at) && attempts > 0; attempts-- {
			if r, err = g.attempt(q, g.owner, g.name, r.id, r.attempt-1); err != nil {
				return nil, err
			}
			add(r)
		}
	}
	if !going.all && !alive(found) {
		return nil, errTooMany
	}
	return found, nil
}

// going asks for all that is not over. The answers belong together: of two that
// were given at different times both could miss a run that changed its status.
func (g *gitHubRuns) going(q *question) (gitHubAnswer, error) {
	statuses := []string{"in_progress", "queued", "pending", "requested", "waiting"}
	answers := make([]gitHubAnswer, len(statuses)+1)
	group, ctx := errgroup.WithContext(q.ctx)
	for i, s := range statuses {
		group.Go(func() (err error) {
			answers[i], err = g.list(q, ctx, github.ListWorkflowRunsOptions{Status: s})
			return err
		})
	}
	group.Go(func() (err error) {
		answers[len(statuses)], err = g.jobs(q, ctx)
		return err
	})
	if err := group.Wait(); err != nil {
		return gitHubAnswer{}, err
	}
	sum := gitHubAnswer{all: true}
	for _, a := range answers {
		sum.runs, sum.jobs, sum.all = append(sum.runs, a.runs...), append(sum.jobs, a.jobs...), sum.all && a.all
	}
	return sum, nil
}

// recall gives an answer that is not older than bounds.keep, or asks for it. Who
// waits for a lock asks every few seconds, and a repository's token has 1,000
// requests an hour. An answer that is used again can be wrong only in that a run
// has ended since: no run of a time begins after an answer that was asked for
// later than that, by more than clocks differ. That a token may not ask is used
// again too; any other failure is not, it may be over.
func (g *gitHubRuns) recall(key string, at time.Time, ask func() (gitHubAnswer, error)) (gitHubAnswer, error) {
	now := time.Now()
	g.mu.Lock()
	a, ok := g.kept[key]
	g.mu.Unlock()
	if ok && now.Sub(a.asked) < g.keep && (a.no != nil || a.asked.After(at.Add(skew))) {
		return a, a.no
	}
	a, err := ask()
	var no *refused
	switch {
	case errors.As(err, &no) && (no.code == http.StatusUnauthorized || no.code == http.StatusForbidden):
		a = gitHubAnswer{no: err}
	case err != nil:
		return gitHubAnswer{}, err
	}
	a.asked = now
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil || len(g.kept) >= 100 {
		g.kept = map[string]gitHubAnswer{}
	}
	g.kept[key] = a
	return a, a.no
}

// idle reports whether a run or job that is over has never had a machine, so that
// it cannot have taken a lock.
func (r workflowRun) idle() bool {
	c := r.seen.Conclusion
	return r.seen.Life == lock.Over && (c == "skipped" || c == "action_required" || c == "startup_failure")
}

// own reports whether a run and attempt is the one that this process is of.
func (g *gitHubRuns) own(r workflowRun) bool {
	if g.self == nil {
		return false
	}
	id, _ := number(g.self.ID)
	return r.id == id && (g.self.Attempt == 0 || r.attempt == g.self.Attempt)
}

// list reads the hundred newest runs of this repository that a filter lets
// through.
func (g *gitHubRuns) list(q *question, ctx context.Context, o github.ListWorkflowRunsOptions) (a gitHubAnswer, err error) {
	o.ExcludePullRequests, o.PerPage = true, 100
	err = q.try(ctx, func(ctx context.Context) error {
		page, resp, err := g.api.Actions.ListRepositoryWorkflowRuns(ctx, g.owner, g.name, &o)
		if err != nil {
			return gitHubError(err)
		}
		if page == nil || page.TotalCount == nil {
			return errShape
		}
		a.all = resp.NextPage == 0 && page.GetTotalCount() <= len(page.WorkflowRuns)
		a.runs, err = readRuns(page.WorkflowRuns...)
		return err
	})
	return a, err
}

// jobs reads the first hundred jobs of this run, without this one.
func (g *gitHubRuns) jobs(q *question, ctx context.Context) (a gitHubAnswer, err error) {
	if g.self == nil {
		return gitHubAnswer{all: true}, nil
	}
	id, _ := number(g.self.ID)
	owner, name, _ := gitHubRepository(g.self.Repository)
	err = q.try(ctx, func(ctx context.Context) (err error) {
		o := github.ListOptions{PerPage: 100}
		var page *github.Jobs
		var resp *github.Response
		if g.self.Attempt == 0 {
			page, resp, err = g.api.Actions.ListWorkflowJobs(ctx, owner, name, id, &github.ListWorkflowJobsOptions{ListOptions: o})
		} else {
			page, resp, err = g.api.Actions.ListWorkflowJobsAttempt(ctx, owner, name, id, int64(g.self.Attempt), &o)
		}
		if err != nil {
			return gitHubError(err)
		}
		if page == nil || page.TotalCount == nil {
			return errShape
		}
		a.all = resp.NextPage == 0 && page.GetTotalCount() <= len(page.Jobs)
		a.jobs, err = g.readJobs(page.Jobs)
		return err
	})
	return a, err
}

// readJobs leaves out jobs that have had no machine: they have taken no lock.
func (g *gitHubRuns) readJobs(answer []*github.WorkflowJob) (jobs []workflowRun, err error) {
	own := g.ownJob(answer)
	for _, j := range answer {
		if j == nil {
			return nil, errShape
		}
		switch j.GetStatus() {
		case "queued", "waiting", "pending", "requested":
			continue
		case "completed":
			if j.StartedAt == nil {
				continue
			}
		}
		if j == own {
			continue
		}
		seen, err := gitHubLife(j.GetHTMLURL(), j.GetStatus(), j.GetConclusion(), j.GetStartedAt(), j.GetCompletedAt())
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, workflowRun{seen: seen})
	}
	return jobs, nil
}

// ownJob finds the job that this process is of: the one in progress on this
// machine, or the only one in progress. Nil where that cannot be told; then each
// counts as another.
func (g *gitHubRuns) ownJob(list []*github.WorkflowJob) *github.WorkflowJob {
	var going, here []*github.WorkflowJob
	for _, j := range list {
		if j.GetStatus() != "in_progress" {
			continue
		}
		going = append(going, j)
		if g.runner != "" && j.GetRunnerName() == g.runner {
			here = append(here, j)
		}
	}
	switch {
	case len(here) == 1:
		return here[0]
	case len(going) == 1 && len(here) == 0 && (g.runner == "" || going[0].GetRunnerName() == ""):
		return going[0]
	}
	return nil
}

// gitHubError turns what go-github says of an answer into words of ours; other
// errors pass.
func gitHubError(err error) error {
	var limit *github.RateLimitError
	var slow *github.AbuseRateLimitError
	var other *github.ErrorResponse
	var factor *github.TwoFactorAuthError
	switch {
	case errors.As(err, &limit):
		return &refused{code: limit.Response.StatusCode, limited: true, until: limit.Rate.Reset.Time}
	case errors.As(err, &slow):
		no := &refused{code: slow.Response.StatusCode, limited: true}
		if slow.RetryAfter != nil {
			no.until = time.Now().Add(*slow.RetryAfter)
		}
		return no
	case errors.As(err, &factor):
		return &refused{code: factor.Response.StatusCode, message: factor.Message}
	case errors.As(err, &other):
		h, code := other.Response.Header, other.Response.StatusCode
		no := &refused{code: code, message: other.Message, needs: "the permission \"actions: read\""}
		no.limited = code == http.StatusTooManyRequests || code == http.StatusForbidden && h.Get("Retry-After") != ""
		if no.limited {
			no.until = limitEnd(h, time.Now())
		}
		return no
	}
	return err
}
