// Package ci is what a CI system offers a run: a name for the run, output
// variables, a summary, and whether another run still goes on. Nothing outside
// it knows such a system's files or environment variables. Each system is a type
// of its own.
//
// What is written there comes from locks, plans and logs; it cannot name
// variables, end a value early or carry markup.
package ci

import (
	"strconv"
	"strings"

	"github.com/tfguard/tfguard/internal/quote"
)

// Run names one run of a CI system: what the holder record and a snapshot keep.
// A name that the system does not give is empty.
type Run struct {
	System     string `json:"system"`     // "github"
	Repository string `json:"repository"` // OWNER/NAME
	ID         string `json:"id"`         // of the run, in decimal
	Attempt    int    `json:"attempt"`    // from 1; 0 is not known
	Job        string `json:"job"`        // its key in the workflow
	URL        string `json:"url"`        // of the attempt, for people
	Commit     string `json:"commit"`     // SHA of what was checked out
}

// Detect tells from the environment whether this is a step of GitHub Actions; nil
// elsewhere. The environment's values are data: what does not look as it should
// is left empty.
func Detect(getenv func(string) string) *GitHub {
	if getenv("GITHUB_ACTIONS") != "true" {
		return nil
	}
	return &GitHub{
		Run: gitHubRun(getenv), Workspace: getenv("GITHUB_WORKSPACE"),
		output: getenv("GITHUB_OUTPUT"), env: getenv("GITHUB_ENV"), summary: getenv("GITHUB_STEP_SUMMARY"),
	}
}

func gitHubRun(getenv func(string) string) Run {
	r := Run{
		System:     "github",
		Repository: keep(getenv("GITHUB_REPOSITORY"), "/-_."),
		Job:        keep(getenv("GITHUB_JOB"), "-_"),
		ID:         keep(getenv("GITHUB_RUN_ID"), ""),
		Commit:     keep(getenv("GITHUB_SHA"), ""),
	}
	if n, err := strconv.Atoi(getenv("GITHUB_RUN_ATTEMPT")); err == nil && n > 0 {
		r.Attempt = n
	}
	if server := serverURL(getenv("GITHUB_SERVER_URL")); server != "" && r.Repository != "" && r.ID != "" {
		r.URL = server + "/" + r.Repository + "/actions/runs/" + r.ID
		if r.Attempt > 0 {
			r.URL += "/attempts/" + strconv.Itoa(r.Attempt)
		}
	}
	return r
}

// keep gives s where it has only ASCII letters, digits and those of others, at
// most 256 of them.
func keep(s, others string) string {
	if len(s) > 256 || strings.IndexFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(others, r))
	}) >= 0 {
		return ""
	}
	return s
}

// line is a text of the outside in one line of at most 300 characters.
func line(s string) string { return quote.Line(s, 300) }
