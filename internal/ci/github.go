package ci

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// GitHub is a step of GitHub Actions and what it may write to. The methods'
// errors are for warnings: none is a reason to fail a run that has applied. On
// nil, outside GitHub, they do nothing.
type GitHub struct {
	Run
	// Workspace is the directory of the checkout (GITHUB_WORKSPACE).
	Workspace string

	output, env, summary string // files of this step
}

// Dir gives a directory relative to the repository's root, with slashes, as
// annotations name files; ".." where it is not below the root.
func (g *GitHub) Dir(dir string) string {
	if g == nil || g.Workspace == "" {
		return ".."
	}
	root, err := filepath.Abs(g.Workspace)
	if err != nil {
		return ".."
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ".."
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return ".."
	}
	return filepath.ToSlash(rel)
}

// Pair is a variable. Its name is ASCII letters, digits and underscores.
type Pair struct{ Name, Value string }

// SetOutputs adds the step's outputs, in one write. Bytes that are not UTF-8
// become "�", as the runner reads the file.
func (g *GitHub) SetOutputs(pairs []Pair) error {
	if g == nil {
		return nil
	}
	return set("GITHUB_OUTPUT", g.output, pairs)
}

// SetEnv sets environment variables of the job's next steps, in one write. A NUL,
// which no environment can hold, becomes "�" as well.
func (g *GitHub) SetEnv(pairs []Pair) error {
	if g == nil {
		return nil
	}
	clean := make([]Pair, len(pairs))
	for i, p := range pairs {
		clean[i] = Pair{p.Name, strings.ReplaceAll(p.Value, "\x00", string(utf8.RuneError))}
	}
	return set("GITHUB_ENV", g.env, clean)
}

func set(name, path string, pairs []Pair) error {
	text, err := encode(pairs)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return add(name, path, func(_ int64, lastLine bool) []byte {
		if !lastLine {
			// What another program left without a newline would become part of our
			// first name.
			return append([]byte("\n"), text...)
		}
		return text
	})
}

// encode gives NAME<<DELIMITER, the value and the delimiter, each a line. The
// delimiter is random, so that no value can hold it (actions/runner,
// FileCommandManager.cs).
func encode(pairs []Pair) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range pairs {
		if keep(p.Name, "_") == "" {
			return nil, fmt.Errorf("%q is no name of a variable", p.Name)
		}
		value := strings.ToValidUTF8(p.Value, string(utf8.RuneError))
		delimiter := "ghadelimiter_" + rand.Text()
		if strings.Contains(value, delimiter) {
			return nil, fmt.Errorf("the value of %s holds its delimiter", p.Name)
		}
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", p.Name, delimiter, value, delimiter)
	}
	return b.Bytes(), nil
}

// maxSummary is how much a step's summary may hold, in bytes; of a longer one
// GitHub shows nothing at all.
const maxSummary = 1 << 20

// Summary adds markdown to the step's summary. What does not fit beside the
// summary that is there is cut off, with a note.
func (g *GitHub) Summary(markdown string) error {
	if g == nil {
		return nil
	}
	return add("GITHUB_STEP_SUMMARY", g.summary, func(size int64, lastLine bool) []byte {
		text := strings.ToValidUTF8(markdown, string(utf8.RuneError))
		if !lastLine {
			text = "\n" + text
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return []byte(cutMarkdown(text, int(max(0, maxSummary-size))))
	})
}

// add appends what text gives for a file of size bytes, with one write. The file
// has to exist: the runner makes it.
func add(name, path string, text func(size int64, lineEnded bool) []byte) (err error) {
	if path == "" {
		return fmt.Errorf("%s is not set", name)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer func() {
		if e := f.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", name, e))
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	ended := true
	if info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", name, err)
		}
		ended = last[0] == '\n'
	}
	if _, err := f.Write(text(info.Size(), ended)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

const cutNote = "\nThe rest did not fit into the summary; the job's log has all of it.\n"

// cutMarkdown shortens markdown to max bytes at the end of a line, closes the
// code fence and the details that are open there, and says so.
func cutMarkdown(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for room := max - len(cutNote); room > 0; {
		end := strings.LastIndexByte(text[:room], '\n') + 1
		closing := closeMarkdown(text[:end])
		fits := max - len(cutNote) - len(closing)
		if end <= fits {
			return text[:end] + closing + cutNote
		}
		room = fits
	}
	return ""
}

// closeMarkdown gives the lines that end an open fence and open details, of
// markdown as this package writes it: both start at the beginning of a line.
func closeMarkdown(text string) string {
	fence, details := "", 0
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		ticks := l[:len(l)-len(strings.TrimLeft(l, "`"))]
		switch {
		case fence != "":
			if l == fence {
				fence = ""
			}
		case len(ticks) >= 3:
			fence = ticks
		case strings.HasPrefix(l, "<details>"):
			details++
		case strings.HasPrefix(l, "</details>"):
			details--
		}
	}
	closing := ""
	if fence != "" {
		closing = fence + "\n"
	}
	for ; details > 0; details-- {
		closing += "\n</details>\n"
	}
	return closing
}
