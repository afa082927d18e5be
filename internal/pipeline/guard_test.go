package pipeline

import (
	"errors"
	"strings"
	"testing"

	"github.com/tfguard/tfguard/internal/event"
)

func TestGuard(t *testing.T) {
	two := 2
	none := 0
	plan := event.Plan{Addresses: []event.Change{
		{Address: `aws_db_instance.main["eu.west/1"]`, Action: "replace"},
		{Address: "module.net.aws_vpc.this[0]", Action: "delete"},
		{Address: "terraform_data.new", Action: "create"},
		{Address: "terraform_data.old", Action: "update"},
	}}
	for _, c := range []struct {
		sentence string
		guard    Guard
		want     string // in the refusal; empty: not refused
	}{
		{"no rule refuses nothing", Guard{}, ""},
		{"a glob covers a key with dots and a slash", Guard{Protect: []string{"aws_db_instance.*"}}, "aws_db_instance.main"},
		{"a glob may name the key itself", Guard{Protect: []string{`aws_db_instance.main["eu.west/1"]`}}, "protected"},
		{"brackets in a glob are no character class", Guard{Protect: []string{"module.net.aws_vpc.this[1]"}}, ""},
		{"a star crosses modules", Guard{Protect: []string{"*aws_vpc*"}}, "module.net.aws_vpc.this[0]"},
		{"what is created is not protected", Guard{Protect: []string{"terraform_data.new"}}, ""},
		{"what is changed in place is not protected", Guard{Protect: []string{"terraform_data.old"}}, ""},
		{"an allowed address goes in spite of a glob", Guard{Protect: []string{"aws_db*"}, Allow: []string{`aws_db_instance.main["eu.west/1"]`}}, ""},
		{"the budget counts replacements", Guard{MaxDeletes: &none}, "2 resources"},
		{"the budget may be used up", Guard{MaxDeletes: &two}, ""},
		{"an allowed address is not in the budget", Guard{MaxDeletes: &none, Allow: []string{`aws_db_instance.main["eu.west/1"]`}}, "1 resources"},
		{"a glob must match the whole address", Guard{Protect: []string{"aws_db_instance"}}, ""},
		{"a broken glob protects nothing by accident", Guard{Protect: []string{`aws_db_instance.*\`}}, ""},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			err := c.guard.Judge(plan)
			var refused *RefusedError
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want a refusal with %q", err, c.want)
			}
		})
	}
}
