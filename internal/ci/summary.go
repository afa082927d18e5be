package ci

import (
	"fmt"
	"strings"
	"time"

	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
)

// Bounds of a summary, in characters and rows.
const (
	maxCell   = 300
	maxDetail = 8 << 10
	maxRows   = 50
)

// SummaryMarkdown tells the result to people, in GitHub's markdown: what came of
// it, what stands in the way and how to go on, the plan, the stages. It is at
// most 1 MiB.
func SummaryMarkdown(r Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n", headline(r))
	if r.State != "" {
		fmt.Fprintf(&b, "State %s", quote.Code(r.State, 2*maxCell))
		if r.Run != "" {
			fmt.Fprintf(&b, ", run %s", quote.Code(r.Run, maxCell))
		}
		b.WriteString("\n\n")
	}
	for i, d := range r.Diagnostics {
		if i == maxRows {
			fmt.Fprintf(&b, "%d more are in the job's log.\n\n", len(r.Diagnostics)-i)
			break
		}
		diagnostic(&b, d)
	}
	if r.Lock != nil && len(r.Lock.Locks) > 0 {
		locks(&b, *r.Lock, r.Command)
	}
	plan(&b, r)
	if r.Snapshot != nil {
		fmt.Fprintf(&b, "**Snapshot** %s of serial %d\n\n", quote.Code(r.Snapshot.ID, maxCell), r.Snapshot.Serial)
	}
	stages(&b, r)
	return cutMarkdown(b.String(), maxSummary)
}

func headline(r Result) string {
	command := strings.TrimSpace("tfguard " + quote.Markdown(r.Command, maxCell))
	counts := ""
	if r.Plan != nil {
		counts = fmt.Sprintf(": %d to add, %d to change, %d to destroy", r.Plan.Add, r.Plan.Change, r.Plan.Destroy)
	}
	switch r.Status {
	case event.OK:
		return "✅ " + command + ": done" + strings.Replace(counts, ":", ",", 1)
	case event.NoChanges:
		return "✅ " + command + ": no changes"
	case event.Blocked:
		why := "refused"
		if r.Lock != nil && r.Lock.Status != lock.None {
			why = "the state's lock is " + quote.Markdown(string(r.Lock.Status), maxCell)
		}
		return "⛔ " + command + ": blocked, " + why
	case event.Cancelled:
		if r.ExitCode == 131 {
			return "⚠️ " + command + ": cancelled, not clean"
		}
		return "⚠️ " + command + ": cancelled"
	case "":
		return command
	}
	return fmt.Sprintf("❌ %s: failed, exit code %d", command, r.ExitCode)
}

func diagnostic(b *strings.Builder, d event.Diagnostic) {
	kind := "❌ **error**"
	if d.Severity == "warning" {
		kind = "⚠️ **warning**"
	}
	fmt.Fprintf(b, "%s %s", kind, quote.Markdown(d.Summary, maxCell))
	switch {
	case d.File != "" && d.Line > 0:
		fmt.Fprintf(b, " (%s line %d)", quote.Code(d.File, maxCell), d.Line)
	case d.File != "":
		fmt.Fprintf(b, " (%s)", quote.Code(d.File, maxCell))
	}
	if d.Address != "" {
		fmt.Fprintf(b, " %s", quote.Code(d.Address, maxCell))
	}
	b.WriteString("\n\n")
	if d.Detail != "" {
		b.WriteString(quote.Fence(quote.Text(d.Detail, maxDetail), "text") + "\n")
	}
	if d.Hint != "" {
		b.WriteString("Hint:\n\n" + quote.Fence(quote.Text(d.Hint, maxDetail), "text") + "\n")
	}
}

func locks(b *strings.Builder, r lock.Report, command string) {
	b.WriteString("### Locks\n\n| lock | store | verdict | who | operation | created | evidence |\n|---|---|---|---|---|---|---|\n")
	for i, e := range r.Locks {
		if i == maxRows {
			fmt.Fprintf(b, "\n%d more are in the output lock_details.\n", len(r.Locks)-i)
			break
		}
		verdict := string(e.Status)
		if e.Confidence != "" {
			verdict += " (" + string(e.Confidence) + ")"
		}
		created := e.Created
		if at, err := time.Parse(time.RFC3339Nano, e.Created); err == nil {
			created = fmt.Sprintf("%s (%s ago)", at.UTC().Format("2006-01-02 15:04:05 UTC"), time.Duration(e.AgeSeconds)*time.Second)
		}
		evidence := strings.Join(e.Reasons, "; ")
		if e.Run != nil {
			evidence += " " + strings.Join([]string{"run", e.Run.URL, e.Run.Status, e.Run.Conclusion}, " ")
		}
		name := e.Name()
		if e.Status == lock.Unclear && e.ID != "" {
			name += " fingerprint " + e.Fingerprint // which an unclear lock is removed by
		}
		cells := []string{quote.Code(name, maxCell), quote.Code(string(e.Store), maxCell), quote.Markdown(verdict, maxCell), quote.Code(e.Who, maxCell),
			quote.Markdown(e.Operation, maxCell), quote.Markdown(created, maxCell), quote.Markdown(evidence, 2*maxCell)}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n")
	if ids := r.StaleIDs(); len(ids) > 0 && !r.Status.Blocks() {
		unlock, apply := "tfguard unlock", "tfguard apply"
		if command == "destroy" {
			apply = "tfguard destroy"
		}
		for _, id := range ids[:min(len(ids), maxRows)] {
			id = quote.Shell(line(id))
			unlock += " --id " + id
			apply += " --approve-lock " + id
		}
		b.WriteString("If nobody works with this state any more, remove what was judged here:\n\n" + quote.Fence(unlock, "sh") +
			"\nor approve it for one run, which removes it first:\n\n" + quote.Fence(apply, "sh") + "\n")
	}
}

func plan(b *strings.Builder, r Result) {
	if r.Plan != nil {
		fmt.Fprintf(b, "**Plan** %d to add, %d to change, %d to destroy", r.Plan.Add, r.Plan.Change, r.Plan.Destroy)
		if r.Plan.Replace > 0 {
			fmt.Fprintf(b, ", of these %d replaced", r.Plan.Replace)
		}
		b.WriteString("\n\n")
	}
	if text := strings.Trim(quote.Text(quote.Plain(r.PlanText), maxPlanText), "\n"); text != "" {
		b.WriteString("<details><summary>The plan</summary>\n\n" + quote.Fence(text, "text") + "\n</details>\n\n")
	}
}

func stages(b *strings.Builder, r Result) {
	if len(r.Stages) == 0 {
		return
	}
	marks := map[string]string{event.OK: "✅", event.Failed: "❌", event.Skipped: "➖", event.Cancelled: "⚠️"}
	b.WriteString("| | stage | | time |\n|---|---|---|--:|\n")
	for _, s := range r.Stages[:min(len(r.Stages), maxStages)] {
		took := ""
		if s.Status != event.Skipped {
			took = fmt.Sprintf("%.1f s", s.Seconds)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", marks[s.Status], quote.Markdown(s.Stage, maxCell), quote.Markdown(s.Note, maxCell), took)
	}
	if r.Seconds > 0 {
		fmt.Fprintf(b, "| | | | %.1f s |\n", r.Seconds)
	}
	b.WriteString("\n")
}
