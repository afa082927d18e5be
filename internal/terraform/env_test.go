package terraform

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForbiddenEnv(t *testing.T) {
	for name, c := range map[string]struct {
		env     string
		refused bool
	}{
		"no variable":                               {"HOME=/root", false},
		"lock off for every command":                {"TF_CLI_ARGS=-lock=false", true},
		"lock off with two dashes":                  {"TF_CLI_ARGS_plan=--lock=false", true},
		"lock off by a zero":                        {"TF_CLI_ARGS_apply=-lock=0", true},
		"lock off by a capital letter":              {"TF_CLI_ARGS_apply=-lock=F", true},
		"lock off in quotes":                        {`TF_CLI_ARGS_apply=-no-color "-lock=false"`, true},
		"lock off behind an escape":                 {`TF_CLI_ARGS_apply=\-lock=false`, true},
		"lock off in parts":                         {`TF_CLI_ARGS_apply=-lo"ck=fa"lse`, true},
		"lock off in init":                          {"TF_CLI_ARGS_init=-lock=false", true},
		"lock off in destroy":                       {"TF_CLI_ARGS_destroy=-lock=false", true},
		"lock off in workspace new":                 {"TF_CLI_ARGS_workspace_new=-lock=false", true},
		"a lock value that is no bool":              {"TF_CLI_ARGS=-lock=maybe", true},
		"lock on":                                   {"TF_CLI_ARGS=-lock=true", false},
		"lock without a value, which is on":         {"TF_CLI_ARGS=-lock", false},
		"a time-out of the lock":                    {"TF_CLI_ARGS=-lock-timeout=5m", false},
		"lock off in a value":                       {"TF_CLI_ARGS_plan=-var x=-lock=false", false},
		"lock off for a command that is not used":   {"TF_CLI_ARGS_refresh=-lock=false", false},
		"a plan file of its own":                    {"TF_CLI_ARGS_plan=-out=x", true},
		"json for output":                           {"TF_CLI_ARGS_output=-json", false},
		"json for plan":                             {"TF_CLI_ARGS_plan=-json", true},
		"destroy":                                   {"TF_CLI_ARGS_plan=-destroy", true},
		"no exit code":                              {"TF_CLI_ARGS_plan=-detailed-exitcode=false", true},
		"a state elsewhere":                         {"TF_CLI_ARGS_apply=-state=x", true},
		"a state written elsewhere":                 {"TF_CLI_ARGS_apply=-state-out x", true},
		"another directory":                         {"TF_CLI_ARGS=-chdir=x", true},
		"help, which does nothing and exits with 0": {"TF_CLI_ARGS_apply=-help", true},
		"a backend that tfguard does not know of":   {"TF_CLI_ARGS_init=-backend-config=x", true},
		"a state that is moved":                     {"TF_CLI_ARGS_init=-migrate-state", true},
		"a target":                                  {"TF_CLI_ARGS_plan=-target=a.b", false},
		"approval":                                  {"TF_CLI_ARGS_apply=-auto-approve", false},
		"parallelism":                               {"TF_CLI_ARGS=-parallelism=30 -compact-warnings", false},
		"another variable that begins so":           {"TF_CLI_ARGSX=-lock=false", false},
	} {
		err := ForbiddenEnv([]string{"A=b", c.env})
		if (err != nil) != c.refused {
			t.Errorf("%s: %s: got %v", name, c.env, err)
		}
		if variable, _, _ := strings.Cut(c.env, "="); err != nil && !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: %v does not name %s", name, err, variable)
		}
	}
}

func TestEnvKeepsTheUsersChoice(t *testing.T) {
	if got := Env(func(string) string { return "" }); got["CHECKPOINT_DISABLE"] != "1" {
		t.Errorf("got %v", got)
	}
	if got := Env(func(string) string { return "0" }); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		"":                      nil,
		"  ":                    nil,
		"a b\tc\n":              {"a", "b", "c"},
		`'a b' "c d" e\ f`:      {"a b", "c d", "e f"},
		`"" x`:                  {"", "x"},
		`'it'"'"'s' '\'`:        {"it's", `\`},
		`"unclosed`:             {"unclosed"},
		`"a\"b"`:                {`a"b`},
		"-var 'x=-lock=false'z": {"-var", "x=-lock=falsez"},
	} {
		if got := words(in); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// What fmt has no use for and terraform-exec refuses is left out; where somebody
// gives it arguments, or has a wish for the collector, the environment is theirs.
func TestLean(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    map[string]string
	}{
		"one that is plain":       {[]string{"PATH=/bin", "A=b=c", "EMPTY="}, map[string]string{"PATH": "/bin", "A": "b=c", "EMPTY": "", "GOGC": "400"}},
		"variables, reattachment": {[]string{"TF_VAR_a=1", "TF_REATTACH_PROVIDERS={}", "TF_DATA_DIR=x"}, map[string]string{"TF_DATA_DIR": "x", "GOGC": "400"}},
		"arguments":               {[]string{"A=b", "TF_CLI_ARGS_fmt=-recursive"}, nil},
		"arguments of another":    {[]string{"TF_CLI_ARGS_get=-update"}, map[string]string{"GOGC": "400"}},
		"a wish":                  {[]string{"A=b", "GOGC=off"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, lean(c.environ)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
