package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tfguard/tfguard/internal/lock"
	"github.com/tfguard/tfguard/internal/quote"
)

// Locks prints a verdict for people: what it is, what it rests on and the next
// command to type.
func Locks(w io.Writer, r lock.Report, color bool) {
	io.WriteString(w, quote.Runner(locks(r, paint(color))))
}

// LockedState prints one of many verdicts for people: what it is, who holds it
// and what that rests on, in a few lines.
func LockedState(w io.Writer, r lock.Report, color bool) {
	p := paint(color)
	var b strings.Builder
	b.WriteString(p.bold(quote.Line(r.State, 4*maxName)) + ": " + verdict(r.Status, confidence(r), p) + "\n")
	for _, g := range groups(r.Locks) {
		name := g.ID
		switch {
		case g.Status == lock.Unclear:
			name = "fingerprint " + g.Fingerprint
		case g.Store == lock.Holder:
			name = "tfguard run " + g.ID
		}
		said := []string{name, "in " + strings.Join(g.stores, " and ")}
		if g.Store == lock.Holder {
			said = said[:1]
		}
		for _, more := range []string{g.Who, g.Operation} {
			if more != "" {
				said = append(said, more)
			}
		}
		if g.Created != "" {
			said = append(said, Age(g.AgeSeconds)+" ago")
		}
		b.WriteString("  " + quote.Line(strings.Join(said, ", "), 4*maxName) + "\n")
		for _, reason := range g.reasons {
			b.WriteString("    • " + quote.Line(reason, 4*maxName) + "\n")
		}
		if g.Run != nil && g.Run.URL != "" {
			b.WriteString("    • " + quote.Line(strings.TrimSpace(strings.Join([]string{"CI run", g.Run.URL, g.Run.Status, g.Run.Conclusion}, " ")), 4*maxName) + "\n")
		}
	}
	b.WriteString("\n")
	io.WriteString(w, quote.Runner(b.String()))
}

func locks(r lock.Report, p paint) string {
	var b strings.Builder
	b.WriteString(p.bold(quote.Line(r.State, 4*maxName)) + ": " + verdict(r.Status, confidence(r), p) + "\n")
	all := groups(r.Locks)
	for _, g := range all {
		b.WriteString("\n")
		names := named(all)
		if g.Store == lock.Holder && g.Status == lock.Active && len(all) > 1 {
			names = "" // said beside the lock
		}
		g.print(&b, r.State, names, p)
	}
	return b.String()
}

// Verdict is a verdict in a few words, such as "stale (presumed)" or "no lock".
func Verdict(r lock.Report) string { return verdict(r.Status, confidence(r), false) }

func verdict(s lock.Status, c lock.Confidence, p paint) string {
	word := quote.Line(string(s), maxName)
	switch s {
	case lock.None:
		return p.green("no lock")
	case lock.Stale:
		word = p.yellow(word)
	default:
		word = p.red(word)
	}
	if c != "" {
		word += " (" + quote.Line(string(c), maxName) + ")"
	}
	return word
}

// confidence is that of the locks which made the verdict: the weakest of them.
func confidence(r lock.Report) lock.Confidence {
	var c lock.Confidence
	for _, e := range r.Locks {
		if e.Status == r.Status && (c == "" || e.Confidence == lock.Presumed) {
			c = e.Confidence
		}
	}
	return c
}

// group is one lock, in one store or in several that hold the same record.
type group struct {
	lock.ReportEntry
	stores  []string
	reasons []string
}

func groups(entries []lock.ReportEntry) []*group {
	var all []*group
	for _, e := range entries {
		i := slices.IndexFunc(all, func(g *group) bool {
			return e.ID != "" && e.ID == g.ID && e.Status == g.Status && e.Status != lock.Unclear && e.Confidence == g.Confidence &&
				e.Who == g.Who && e.Operation == g.Operation && e.Created == g.Created && e.TerraformVersion == g.TerraformVersion && e.Path == g.Path
		})
		if i < 0 {
			all = append(all, &group{ReportEntry: e})
			i = len(all) - 1
		}
		g := all[i]
		g.stores = append(g.stores, string(e.Store))
		for _, reason := range e.Reasons {
			if !slices.Contains(g.reasons, reason) {
				g.reasons = append(g.reasons, reason)
			}
		}
	}
	return all
}

// named are the flags that name all of it to unlock: every lock, and for --force
// every living record too.
func named(all []*group) (flags string) {
	for _, g := range all {
		flags += " --id " + quote.Shell(quote.Line(g.Name(), maxName))
	}
	return flags
}

func (g *group) print(b *strings.Builder, state, names string, p paint) {
	label := func(name string) string { return "  " + p.dim(pad(name, 12)) }
	row := func(name, value string) {
		if value = quote.Line(value, 2*maxName); value != "" {
			b.WriteString(label(name) + value + "\n")
		}
	}
	switch {
	case g.ID == "":
		row("lock", "without a usable ID")
	case g.Store == lock.Holder:
		row("tfguard run", g.ID)
	default:
		row("lock", g.ID)
	}
	if g.Status == lock.Unclear {
		row("fingerprint", g.Fingerprint)
	}
	if len(g.stores) == 1 {
		row("store", g.stores[0])
	} else {
		row("stores", strings.Join(g.stores, ", "))
	}
	row("who", g.Who)
	row("operation", g.Operation)
	row("created", created(g.ReportEntry))
	row("terraform", g.TerraformVersion)
	if g.Path != state {
		row("path", g.Path)
	}
	if g.Run != nil {
		row("CI run", strings.TrimSpace(strings.Join([]string{g.Run.URL, g.Run.Status, g.Run.Conclusion}, " ")))
	}
	b.WriteString(label("verdict") + verdict(g.Status, g.Confidence, p) + "\n")
	for _, reason := range g.reasons {
		b.WriteString(pad("", 14) + "• " + quote.Line(reason, 4*maxName) + "\n")
	}
	for i, next := range g.next(names) {
		name := "next"
		if i > 0 {
			name = ""
		}
		b.WriteString(label(name) + next + "\n")
	}
}

// next says what one can do about the lock. An active lock's first answer is
// patience; a removal is named only where the evidence allows it, or with the
// condition under which a person may decide against it.
func (g *group) next(names string) []string {
	switch {
	case g.Status == lock.Stale && g.ID != "":
		return []string{"tfguard unlock" + names}
	case g.Status == lock.Active && names == "":
		return []string{"tfguard apply --wait 30m"}
	case g.Status == lock.Active && g.ID != "":
		return []string{"tfguard apply --wait 30m", "only if its run is surely gone: tfguard unlock --force" + names}
	}
	return []string{"look at the record, then: tfguard unlock --force" + names}
}

func created(e lock.ReportEntry) string {
	at, err := time.Parse(time.RFC3339Nano, e.Created)
	if err != nil {
		return e.Created
	}
	text := at.UTC().Format("2006-01-02 15:04:05 UTC")
	if e.AgeSeconds > 0 || e.Status != lock.Unclear {
		text += ", " + Age(e.AgeSeconds) + " ago"
	}
	return text
}

// Age puts a number of seconds in words: "45 minutes", "3 hours 5 minutes".
func Age(seconds int64) string {
	unit := func(n int64, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	big, small, rest := "", "", int64(0)
	switch {
	case seconds < minute:
		return unit(max(seconds, 0), "second")
	case seconds < hour:
		return unit(seconds/minute, "minute")
	case seconds < day:
		big, small, rest = unit(seconds/hour, "hour"), "minute", seconds%hour/minute
	default:
		big, small, rest = unit(seconds/day, "day"), "hour", seconds%day/hour
	}
	if rest == 0 {
		return big
	}
	return big + " " + unit(rest, small)
}

// Align says at which side of its column a cell stands.
type Align int

// The alignments.
const (
	Left Align = iota
	Right
)

// Table prints rows in columns under a header. Columns beyond those of align
// stand left; a row may have fewer cells than the header.
func Table(w io.Writer, header []string, rows [][]string, align ...Align) {
	all := make([][]string, 0, len(rows)+1)
	var widths []int
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = quote.Line(c, maxName)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cells[i]))
		}
		all = append(all, cells)
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, c := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i < len(align) && align[i] == Right {
				line.WriteString(fill + c)
			} else {
				line.WriteString(c + fill)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	io.WriteString(w, quote.Runner(b.String()))
}
