package terraform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-exec/tfexec"
)

// Env lists what the environment of this process should have for terraform,
// which inherits it: terraform-exec's own way to set variables refuses TF_VAR_*
// and would drop all others. get looks a variable up.
func Env(get func(string) string) map[string]string {
	env := map[string]string{}
	if get("CHECKPOINT_DISABLE") == "" { // no call home for newer versions
		env["CHECKPOINT_DISABLE"] = "1"
	}
	return env
}

// lean is an environment for a command that is small and over before collecting
// its garbage is worth it; nil is that of this process. It is for commands that
// take nothing of what terraform-exec refuses to pass on (tfexec.ProhibitedEnv):
// no variables of the configuration, no providers.
func lean(environ []string) map[string]string {
	env := map[string]string{"GOGC": "400"}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if usesArgs(name) || name == "GOGC" {
			return nil
		}
		env[name] = value
	}
	return tfexec.CleanEnv(env)
}

// argsVariable is terraform's way to add arguments to every command, or with
// _COMMAND behind it to one (terraform main.go, EnvCLI).
const argsVariable = "TF_CLI_ARGS"

// ForbiddenEnv refuses TF_CLI_ARGS variables that would change what the
// sequence does behind its back: take no lock, plan something else, write or
// read elsewhere, use another backend, or print help in place of working. Its
// error names the variable and the argument. environ is as of os.Environ.
func ForbiddenEnv(environ []string) error {
	environ = slices.Sorted(slices.Values(environ))
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !usesArgs(name) {
			continue
		}
		for _, arg := range words(value) {
			if why := forbidden(arg); why != "" {
				return fmt.Errorf("%s holds %q: %s", name, arg, why)
			}
		}
	}
	return nil
}

func usesArgs(variable string) bool {
	command, ok := strings.CutPrefix(variable, argsVariable)
	if !ok {
		return false
	}
	switch command {
	case "", "_fmt", "_init", "_validate", "_plan", "_show", "_apply", "_destroy", "_version", "_state_push":
		return true
	}
	return strings.HasPrefix(command, "_workspace")
}

// forbidden says why an argument is refused; empty: it is not.
func forbidden(arg string) string {
	flag, ok := strings.CutPrefix(arg, "-")
	if !ok {
		return ""
	}
	name, value, hasValue := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
	switch name {
	case "lock":
		if on, err := strconv.ParseBool(value); !hasValue || err == nil && on {
			return ""
		}
		return "terraform's locking stays on; for a plan without it use tfguard plan --lock=false"
	case "out", "json", "detailed-exitcode", "input":
		return "tfguard sets this itself"
	case "destroy":
		return "use tfguard destroy, or tfguard plan --destroy"
	case "state", "state-out", "backup", "chdir", "from-module":
		return "it makes terraform read or write elsewhere"
	case "backend", "backend-config":
		return "use tfguard's --backend-config, so that it knows which state is meant"
	case "migrate-state", "force-copy":
		return "a state is not moved along the way; run terraform init for that"
	case "help", "h", "version", "v":
		return "terraform would print this and do nothing"
	}
	return ""
}

// words splits as a shell does, as far as terraform's own splitting goes:
// blanks, quotes and backslashes.
func words(s string) []string {
	var out []string
	var word strings.Builder
	var quoted rune
	started, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped, started = true, true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quoted, started = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if started {
				out = append(out, word.String())
				word.Reset()
			}
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if started {
		out = append(out, word.String())
	}
	return out
}
