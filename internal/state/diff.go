package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// Diff is what changes from one state to another.
type Diff struct {
	From, To       Head
	Added, Removed []string // addresses, sorted
	Changed        []InstanceChange
	Outputs        []AttributeChange // their paths are the outputs' names
	// Unread counts changed instances whose attributes were not compared, since
	// there were too many.
	Unread int
}

// InstanceChange is an instance that both states have.
type InstanceChange struct {
	Address    string            `json:"address"`
	Attributes []AttributeChange `json:"attributes"`
}

// AttributeChange is an attribute that one state has, or both with other
// values. Before and After are JSON, empty where there is none or it is hidden.
type AttributeChange struct {
	Path      string          `json:"path"`
	Action    string          `json:"action"` // added, removed or changed
	Before    json.RawMessage `json:"before,omitempty"`
	After     json.RawMessage `json:"after,omitempty"`
	Sensitive bool            `json:"sensitive,omitempty"`
}

// Words of AttributeChange.Action.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// maxRead bounds the changed instances whose attributes are compared.
const maxRead = 1000

// Empty reports whether nothing differs but serial and lineage.
func (d Diff) Empty() bool {
	return len(d.Added)+len(d.Removed)+len(d.Changed)+len(d.Outputs)+d.Unread == 0
}

// Compare gives what differs between two states, each of which is read twice:
// once for a checksum of every instance, once for the attributes of those that
// differ. A nil reader is a state that does not exist.
func Compare(a, b func() io.Reader) (Diff, error) {
	known := secrets{}
	before, old, err := sums(a, known)
	if err != nil {
		return Diff{}, err
	}
	after, now, err := sums(b, known)
	if err != nil {
		return Diff{}, err
	}
	known.outputs(before.Outputs)
	known.outputs(after.Outputs)
	d := Diff{From: before.Head, To: after.Head, Outputs: compareOutputs(before.Outputs, after.Outputs)}
	differ := map[string]bool{}
	for address, sum := range old {
		switch other, there := now[address]; {
		case !there:
			d.Removed = append(d.Removed, address)
		case other != sum:
			differ[address] = true
		}
	}
	for address := range now {
		if _, there := old[address]; !there {
			d.Added = append(d.Added, address)
		}
	}
	slices.Sort(d.Added)
	slices.Sort(d.Removed)
	if len(differ) == 0 {
		return d, nil
	}
	if len(differ) > maxRead {
		d.Unread = len(differ) - maxRead
		for address := range differ {
			if len(differ) > maxRead {
				delete(differ, address)
			}
		}
	}
	was := map[string]Instance{}
	if _, err = walk(a(), selected(differ, known, func(in Instance) { was[in.Address] = in })); err != nil {
		return Diff{}, err
	}
	_, err = walk(b(), selected(differ, known, func(in Instance) {
		if changes := compareInstances(was[in.Address], in); len(changes) > 0 {
			d.Changed = append(d.Changed, InstanceChange{in.Address, changes})
		}
	}))
	slices.SortFunc(d.Changed, func(a, b InstanceChange) int { return strings.Compare(a.Address, b.Address) })
	return d, err
}

func selected(wanted map[string]bool, known secrets, each func(Instance)) func(string, string, json.RawMessage) error {
	return func(address, provider string, raw json.RawMessage) error {
		if !wanted[address] {
			return nil
		}
		in, err := readInstance(address, provider, raw, known)
		if err == nil {
			each(in)
		}
		return err
	}
}

// sums gives a checksum of every instance, and adds what is secret to known.
func sums(open func() io.Reader, known secrets) (Contents, map[string][sha256.Size]byte, error) {
	all := map[string][sha256.Size]byte{}
	if open == nil {
		return Contents{}, all, nil
	}
	c, err := walk(open(), func(address, provider string, raw json.RawMessage) error {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return err
		}
		b.WriteString(provider)
		all[address] = sha256.Sum256(b.Bytes())
		return known.collect(address, provider, raw)
	})
	return c, all, err
}

func compareInstances(a, b Instance) []AttributeChange {
	changes := compareAttributes(a.Attributes, b.Attributes)
	if a.Provider != b.Provider {
		changes = append(changes, textChange("(provider)", a.Provider, b.Provider))
	}
	if a.Tainted != b.Tainted {
		word := map[bool]string{true: "yes", false: "no"}
		changes = append(changes, textChange("(tainted)", word[a.Tainted], word[b.Tainted]))
	}
	return changes
}

func textChange(path, before, after string) AttributeChange {
	x, _ := json.Marshal(before) // a string
	y, _ := json.Marshal(after)
	return AttributeChange{Path: path, Action: Changed, Before: x, After: y}
}

func compareOutputs(a, b []Output) []AttributeChange {
	named := func(all []Output) []Attribute {
		var out []Attribute
		for _, o := range all {
			v := o.Value
			v.Path = o.Name
			out = append(out, v)
		}
		return out
	}
	return compareAttributes(named(a), named(b))
}

// compareAttributes compares two lists that are sorted by path. What either
// side hides stays hidden on both.
func compareAttributes(a, b []Attribute) []AttributeChange {
	var out []AttributeChange
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			out = append(out, AttributeChange{Path: a[0].Path, Action: Removed, Before: json.RawMessage(a[0].Value), Sensitive: a[0].Hidden})
			a = a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			out = append(out, AttributeChange{Path: b[0].Path, Action: Added, After: json.RawMessage(b[0].Value), Sensitive: b[0].Hidden})
			b = b[1:]
		default:
			if a[0].raw != b[0].raw {
				c := AttributeChange{Path: b[0].Path, Action: Changed, Sensitive: a[0].Hidden || b[0].Hidden}
				if !c.Sensitive {
					c.Before, c.After = json.RawMessage(a[0].Value), json.RawMessage(b[0].Value)
				}
				out = append(out, c)
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}
