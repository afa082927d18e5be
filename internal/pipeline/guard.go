package pipeline

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tfguard/tfguard/internal/event"
)

// Guard refuses plans that destroy too much. The zero Guard refuses nothing.
type Guard struct {
	Protect    []string // globs of addresses that must not be destroyed or replaced
	MaxDeletes *int     // how many resources may be destroyed or replaced; nil: any number
	Allow      []string // addresses that neither rule applies to
}

// RefusedError is a plan that a guard refuses.
type RefusedError struct{ Why []string }

func (e *RefusedError) Error() string { return "refused by a guard: " + strings.Join(e.Why, "; ") }

// maxNamed bounds how many addresses a refusal names.
const maxNamed = 10

// Judge returns a *RefusedError where the plan breaks a rule.
func (g Guard) Judge(p event.Plan) error {
	var why []string
	deletes := 0
	for _, c := range p.Addresses {
		if c.Action != "delete" && c.Action != "replace" || slices.Contains(g.Allow, c.Address) {
			continue
		}
		deletes++
		for _, glob := range g.Protect {
			if matches(glob, c.Address) && len(why) < maxNamed {
				why = append(why, fmt.Sprintf("%s is protected by %q and would be %sd", c.Address, glob, c.Action))
				break
			}
		}
	}
	if g.MaxDeletes != nil && deletes > *g.MaxDeletes {
		why = append(why, fmt.Sprintf("%d resources would be destroyed or replaced, at most %d may be", deletes, *g.MaxDeletes))
	}
	if len(why) > 0 {
		return &RefusedError{why}
	}
	return nil
}

// matches is path.Match for addresses: brackets are literal, since they are part
// of an address, and * matches any run of characters, slashes and dots too.
func matches(glob, address string) bool {
	flat := strings.NewReplacer("/", "\x00")
	literal := strings.NewReplacer("[", `\[`, "]", `\]`, `\`, `\\`, "/", "\x00")
	ok, err := path.Match(literal.Replace(glob), flat.Replace(address))
	return err == nil && ok
}
