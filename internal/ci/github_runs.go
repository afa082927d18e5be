package ci

func newGitHubRuns(func(string) string, string, bounds) Runs {
	return unasked("GitHub cannot be asked yet")
}
