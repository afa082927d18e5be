package app

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tfguard/tfguard/internal/config"
	"github.com/tfguard/tfguard/internal/event"
	"github.com/tfguard/tfguard/internal/quote"
)

func versionCommand(s Streams) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", UsageText: "tfguard version [--json]",
		Description: codes(ExitOK, ExitUsage),
		Flags:       []cli.Flag{yes("json", "machine-readable output")},
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(s.Out).Encode(map[string]string{
					"version": Version, "go": runtime.Version(), "platform": runtime.GOOS + "_" + runtime.GOARCH})
			}
			fmt.Fprintf(s.Out, "tfguard %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// The scripts call the program itself for the candidates, as urfave/cli's own
// (autocomplete/) do: --generate-bash-completion as the last word lists them.
const (
	bashCompletion = `_tfguard() {
  local cur words
  cur="${COMP_WORDS[COMP_CWORD]}"
  words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
  if [[ "$cur" == -* ]]; then words+=("$cur"); fi
  COMPREPLY=($(compgen -W "$(tfguard "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
  if [[ ${#COMPREPLY[@]} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$cur")); fi
}
complete -o filenames -F _tfguard tfguard
`
	zshCompletion = `#compdef tfguard
_tfguard() {
  local -a candidates
  local cur=${words[CURRENT]}
  if [[ "$cur" == -* ]]; then
    candidates=("${(@f)$(tfguard ${words[2,CURRENT]} --generate-bash-completion 2>/dev/null)}")
  else
    candidates=("${(@f)$(tfguard ${words[2,CURRENT-1]} --generate-bash-completion 2>/dev/null)}")
  fi
  if [[ -n "${candidates[1]}" ]]; then compadd -a candidates; else _files; fi
}
compdef _tfguard tfguard
`
	fishCompletion = `function __tfguard_candidates
  set -l words (commandline -opc)[2..-1]
  set -l cur (commandline -ct)
  if string match -q -- '-*' $cur
    tfguard $words $cur --generate-bash-completion 2>/dev/null
  else
    tfguard $words --generate-bash-completion 2>/dev/null
  end
end
complete -c tfguard -a '(__tfguard_candidates)'
`
)

func completionCommand(s Streams) *cli.Command {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	return &cli.Command{
		Name: "completion", Usage: "print the completion script of a shell", UsageText: "tfguard completion bash|zsh|fish",
		Description: "source <(tfguard completion bash)\n\n" + codes(ExitOK, ExitUsage),
		BashComplete: func(*cli.Context) {
			fmt.Fprintln(s.Out, "bash\nzsh\nfish")
		},
		Action: func(c *cli.Context) error {
			script, ok := scripts[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return &usageError{msg: "completion takes one of bash, zsh, fish", hint: "tfguard completion bash"}
			}
			fmt.Fprint(s.Out, script)
			return nil
		},
	}
}

// runHook runs a command of .tfguard.hcl in the configuration's directory. Its
// output is shown and logged; a cancel interrupts it and what it has started, and
// kills what is left 5 s later.
func runHook(ctx context.Context, r *run, h config.Hook) error {
	if h.Timeout != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, *h.Timeout)
		defer stop()
	}
	cmd := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...)
	cmd.Dir = r.set.dir
	cmd.Env = append(os.Environ(), "TFGUARD_RUN_ID="+r.id)
	for k, v := range h.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	ownGroup(cmd)
	cmd.WaitDelay = 5 * time.Second
	out := &hookOutput{r: r, source: "hook:" + h.Name}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		endGroup(cmd)
	}
	out.flush()
	switch {
	case err != nil && ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("hook %s did not end within %s", h.Name, *h.Timeout)
	case err != nil:
		return fmt.Errorf("hook %s: %s: %w", h.Name, quote.Line(strings.Join(h.Command, " "), 200), err)
	}
	return nil
}

// hookOutput turns what a hook prints into events, a line each.
type hookOutput struct {
	r       *run
	source  string
	pending []byte
}

// maxHookLine bounds a line without an end.
const maxHookLine = 64 << 10

func (o *hookOutput) Write(p []byte) (int, error) {
	if _, err := o.r.folder.Write(p); err != nil {
		return 0, err
	}
	o.pending = append(o.pending, p...)
	for {
		i := strings.IndexByte(string(o.pending), '\n')
		if i < 0 && len(o.pending) < maxHookLine {
			return len(p), nil
		}
		if i < 0 {
			i = len(o.pending) - 1
		}
		o.emit(o.pending[:i+1])
		o.pending = o.pending[i+1:]
	}
}

func (o *hookOutput) flush() {
	if len(o.pending) > 0 {
		o.emit(o.pending)
		o.pending = nil
	}
}

func (o *hookOutput) emit(line []byte) {
	o.r.sink.Emit(event.Output{Source: o.source, Text: strings.TrimRight(string(line), "\n")})
}
