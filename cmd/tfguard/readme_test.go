package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tfguard/tfguard/internal/app"
	"github.com/tfguard/tfguard/internal/config"
)

// helped is what --help says of one command, and of those below it.
type helped struct {
	usage    string
	notBuilt bool
	flags    []string          // without dashes; of one letter too
	env      []string          // that set them
	codes    map[string]string // exit code to meaning
}

var (
	helpCommand = regexp.MustCompile(`(?m)^   ([a-z][a-z-]+)(?:, [a-z])? {2,}(.+)$`)
	helpFlag    = regexp.MustCompile(`(?m)^   (--[a-z-]+.*)$`)
	flagName    = regexp.MustCompile(`(?:^|[\s,(\x60|])--?([a-z][a-z-]*|[A-Z])\b`)
	helpCode    = regexp.MustCompile(`(?m)^ +([0-9]{1,3})  (\S.*)$`)
	envName     = regexp.MustCompile(`TFGUARD_[A-Z][A-Z_]*`)
)

// readHelp asks the program for the help of a command and of all below it.
func readHelp(t *testing.T, name string, all map[string]helped) {
	t.Helper()
	var out bytes.Buffer
	args := append(append([]string{"tfguard"}, strings.Fields(name)...), "--help")
	app.Main(t.Context(), args, app.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
	text := out.String()
	h := helped{codes: map[string]string{}, notBuilt: strings.Contains(text, "is not built yet")}
	_, commands, _ := strings.Cut(text, "\nCOMMANDS:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	for _, m := range helpCommand.FindAllStringSubmatch(commands, -1) {
		if m[1] == "help" {
			continue
		}
		below := strings.TrimSpace(name + " " + m[1])
		readHelp(t, below, all)
		one := all[below]
		one.usage = m[2]
		all[below] = one
	}
	_, options, _ := strings.Cut(text, "\nOPTIONS:\n")
	for _, m := range helpFlag.FindAllStringSubmatch(options, -1) {
		names, _, _ := strings.Cut(m[1], "  ")
		for _, f := range flagName.FindAllStringSubmatch(names, -1) {
			h.flags = append(h.flags, f[1])
		}
		h.env = append(h.env, envName.FindAllString(m[1], -1)...)
	}
	_, codes, _ := strings.Cut(text, "Exit codes:")
	codes, _, _ = strings.Cut(codes, "\nOPTIONS:")
	for _, m := range helpCode.FindAllStringSubmatch(codes, -1) {
		h.codes[m[1]] = m[2]
	}
	if name != "" {
		all[name] = h
	}
}

// section is the part of the README below a heading.
func section(t *testing.T, readme, title string) string {
	t.Helper()
	_, rest, found := strings.Cut(readme, "\n## "+title+"\n")
	if !found {
		t.Fatalf("the README has no section %q", title)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The README, and the files that it sends people to, say the same as --help:
// commands, flags, variables, exit codes, what is not built yet, and the
// settings of .tfguard.hcl.
func TestReadme(t *testing.T) {
	readme := readText(t, "../../README.md")
	commands := map[string]helped{}
	readHelp(t, "", commands)
	if len(commands) < 20 {
		t.Fatalf("--help shows %d commands", len(commands))
	}
	flags, variables := map[string]bool{}, map[string]bool{"TFGUARD_RUN_ID": true}
	for _, h := range commands {
		for _, f := range h.flags {
			flags[f] = true
		}
		for _, v := range h.env {
			variables[v] = true
		}
	}

	t.Run("every command is in the table, or among those not built yet", func(t *testing.T) {
		table, missing := section(t, readme, "Commands"), section(t, readme, "Not built yet")
		for name, h := range commands {
			last := name[strings.LastIndex(name, " ")+1:]
			group, _, below := strings.Cut(name, " ")
			where, what := table, "the table of commands"
			if h.notBuilt {
				where, what = missing, "the list of what is not built yet"
			}
			row := where
			if below {
				row = lineWith(where, "`"+group+" ")
			}
			if !regexp.MustCompile("[`·] ?(?:" + group + " )?" + last + `\b`).MatchString(row) {
				t.Errorf("%s is not in %s", name, what)
			}
			if !h.notBuilt && regexp.MustCompile("- `"+name+"`").MatchString(missing) {
				t.Errorf("%s is built", name)
			}
		}
	})

	t.Run("every flag is explained, and no other is named", func(t *testing.T) {
		said := map[string]bool{}
		for _, m := range flagName.FindAllStringSubmatch(readme, -1) {
			said[m[1]] = true
		}
		for f := range flags {
			if f != "help" && f != "h" && !said[f] {
				t.Errorf("--%s is not in the README", f)
			}
		}
		for _, path := range []string{"README.md", "docs/ARCHITECTURE.md", "docs/locking.md", "examples/workflows/deploy.yml", "examples/demo.sh"} {
			for line := range strings.Lines(readText(t, "../../"+path)) {
				if _, ours, found := strings.Cut(line, "tfguard "); found && !strings.Contains(line, "go install") {
					for _, m := range regexp.MustCompile(`(?:^|\s)--([a-z][a-z-]+)`).FindAllStringSubmatch(ours, -1) {
						if !flags[m[1]] {
							t.Errorf("%s names --%s, which no command has: %s", path, m[1], line)
						}
					}
				}
			}
			for _, v := range envName.FindAllString(readText(t, "../../"+path), -1) {
				if !variables[v] {
					t.Errorf("%s names %s, which sets nothing", path, v)
				}
			}
		}
	})

	t.Run("every exit code has its meaning", func(t *testing.T) {
		table := section(t, readme, "Exit codes")
		for name, h := range commands {
			for code, meaning := range h.codes {
				if name == "settle" {
					continue // its codes are those of another run
				}
				row := lineWith(table, "| "+code+" | ")
				if got := strings.TrimPrefix(row, "| "+code+" | "); !strings.HasPrefix(got, meaning) && !strings.HasPrefix(got, "`"+strings.Replace(meaning, ":", "`:", 1)) {
					t.Errorf("%s --help says of %s: %s; the README: %s", name, code, meaning, row)
				}
			}
		}
	})

	t.Run("the example of .tfguard.hcl is valid and has every setting", func(t *testing.T) {
		var example strings.Builder
		for line := range strings.Lines(section(t, readme, ".tfguard.hcl")) {
			if code, ok := strings.CutPrefix(line, "    "); ok || line == "\n" {
				example.WriteString(strings.TrimRight(code, "\n") + "\n")
			}
		}
		path := filepath.Join(t.TempDir(), config.Name)
		if err := os.WriteFile(path, []byte(example.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := config.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(file.Hooks) == 0 {
			t.Fatal("it has no hook")
		}
		// A hook has one of before and after; Line is no setting.
		file.Hooks[0].After = "plan"
		for i := range reflect.TypeFor[config.File]().NumField() {
			block := reflect.ValueOf(file).Field(i)
			if block.Kind() == reflect.Slice {
				block = block.Index(0)
			}
			if block.Kind() != reflect.Struct {
				continue
			}
			for j := range block.NumField() {
				if block.Field(j).IsZero() {
					t.Errorf("%s.%s is not in it", reflect.TypeFor[config.File]().Field(i).Name, block.Type().Field(j).Name)
				}
			}
		}
	})

	t.Run("every direct dependency has its reason", func(t *testing.T) {
		reasons := readText(t, "../../docs/decisions/dependencies.md")
		for line := range strings.Lines(readText(t, "../../go.mod")) {
			path, version, found := strings.Cut(strings.TrimSpace(line), " ")
			if !found || !strings.HasPrefix(version, "v") || strings.Contains(version, "// indirect") {
				continue
			}
			name := regexp.MustCompile(`/v[0-9]+$`).ReplaceAllString(strings.TrimPrefix(path, "github.com/"), "")
			short := strings.TrimPrefix(name, "aws/aws-sdk-go-v2/") // in one row with the SDK
			if !strings.Contains(reasons, "`"+name) && !strings.Contains(reasons, "`"+short+"`") {
				t.Errorf("%s is not in docs/decisions/dependencies.md", path)
			}
		}
	})

	t.Run("every file that is linked is there", func(t *testing.T) {
		links := map[string]bool{}
		for _, from := range []string{"README.md", "docs/ARCHITECTURE.md", "docs/locking.md", "docs/benchmarks.md"} {
			for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(readText(t, "../../"+from), -1) {
				links[filepath.Join("../..", filepath.Dir(from), m[1])] = true
			}
		}
		for _, path := range slices.Sorted(maps.Keys(links)) {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
	})
}

// lineWith is the first line that has what, without its newline.
func lineWith(text, what string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}
