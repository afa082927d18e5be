package sandbox

import (
	"slices"
	"strings"
)

// action is one clause of an update.
type action struct {
	verb string // SET, REMOVE, ADD, DELETE
	path path
	arg  operand
}

func (p *parser) update(text string) ([]action, error) {
	var out []action
	err := p.parse("UpdateExpression", text, func() {
		seen := make(map[string]bool)
		for p.peek() != "" {
			verb := strings.ToUpper(p.next())
			if !slices.Contains([]string{"SET", "REMOVE", "ADD", "DELETE"}, verb) {
				p.pos--
				p.unexpected()
			}
			if seen[verb] {
				p.fail("The %q section can only be used once in an update expression;", verb)
			}
			seen[verb] = true
			for first := true; first || p.accept(","); first = false {
				a := action{verb: verb, path: p.path()}
				switch verb {
				case "SET":
					p.expect("=")
					a.arg = p.sum()
				case "ADD", "DELETE":
					v := p.value()
					if t := v.Type; t != "SS" && t != "NS" && t != "BS" && (t != "N" || verb == "DELETE") {
						p.badType(verb, v)
					}
					a.arg = operand{value: v}
				}
				for _, o := range out {
					if a.path.overlaps(o.path) {
						p.fail("Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [%s], path two: [%s]", o.path, a.path)
					}
				}
				out = append(out, a)
			}
		}
	})
	return out, err
}

// sum is the right side of SET.
func (p *parser) sum() operand {
	a := p.term()
	for _, op := range []string{"+", "-"} {
		if p.accept(op) {
			return operand{fn: op, args: []operand{a, p.term()}}
		}
	}
	return a
}

func (p *parser) term() operand {
	if p.accept("(") {
		a := p.sum()
		p.expect(")")
		return a
	}
	for _, name := range []string{"if_not_exists", "list_append"} {
		if p.peek() == name && p.pos+1 < len(p.tokens) && p.tokens[p.pos+1] == "(" {
			p.pos += 2
			a := p.term()
			p.expect(",")
			b := p.term()
			p.expect(")")
			if name == "if_not_exists" && a.path == nil {
				p.fail("Operator or function requires a document path; operator or function: if_not_exists")
			}
			return operand{fn: name, args: []operand{a, b}}
		}
	}
	if strings.HasPrefix(p.peek(), ":") {
		return operand{value: p.value()}
	}
	return operand{path: p.path()}
}

// compute is an operand of SET for an item.
func (o operand) compute(it item) (attr, error) {
	if o.fn == "" {
		v, ok := o.of(it)
		if !ok {
			return attr{}, validation("The provided expression refers to an attribute that does not exist in the item")
		}
		return v, nil
	}
	if o.fn == "if_not_exists" {
		if v, ok := o.args[0].of(it); ok {
			return v, nil
		}
		return o.args[1].compute(it)
	}
	a, err := o.args[0].compute(it)
	if err != nil {
		return attr{}, err
	}
	b, err := o.args[1].compute(it)
	if err != nil {
		return attr{}, err
	}
	if o.fn == "list_append" {
		if a.Type != "L" || b.Type != "L" {
			return attr{}, validation("An operand in the update expression has an incorrect data type")
		}
		return attr{Type: "L", List: slices.Concat(a.List, b.List)}, nil
	}
	if a.Type != "N" || b.Type != "N" {
		return attr{}, validation("An operand in the update expression has an incorrect data type")
	}
	v, err := addNumbers(a, b, o.fn == "-")
	if err != nil {
		return attr{}, validation(err.Error())
	}
	return v, nil
}

// apply returns the item after the actions; the item given stays as it was.
func apply(actions []action, it item) (item, error) {
	out := attr{Type: "M", Map: it}.clone().Map
	type write struct {
		path path
		v    attr
	}
	var sets []write
	var removes []path
	for _, a := range actions {
		old, had := a.path.get(it)
		switch a.verb {
		case "SET":
			v, err := a.arg.compute(it)
			if err != nil {
				return nil, err
			}
			sets = append(sets, write{a.path, v})
		case "REMOVE":
			if had {
				removes = append(removes, a.path)
			}
		case "ADD":
			v := *a.arg.value
			if had && old.Type != v.Type {
				return nil, validation("An operand in the update expression has an incorrect data type")
			}
			if had && v.Type == "N" {
				var err error
				if v, err = addNumbers(old, v, false); err != nil {
					return nil, validation(err.Error())
				}
			} else if had {
				set := slices.Concat(old.Set, v.Set)
				slices.Sort(set)
				v = attr{Type: v.Type, Set: slices.Compact(set)}
			}
			sets = append(sets, write{a.path, v})
		case "DELETE":
			v := *a.arg.value
			if !had {
				continue
			}
			if old.Type != v.Type {
				return nil, validation("An operand in the update expression has an incorrect data type")
			}
			left := slices.DeleteFunc(slices.Clone(old.Set), func(s string) bool { return slices.Contains(v.Set, s) })
			if len(left) == 0 {
				removes = append(removes, a.path)
				continue
			}
			sets = append(sets, write{a.path, attr{Type: v.Type, Set: left}})
		}
	}
	for _, w := range sets {
		if err := assign(out, w.path, w.v); err != nil {
			return nil, err
		}
	}
	// From the back, so that an index still means the element it meant.
	slices.SortStableFunc(removes, func(a, b path) int {
		for i := range min(len(a), len(b)) {
			if c := b[i].index - a[i].index; c != 0 {
				return c
			}
		}
		return 0
	})
	for _, p := range removes {
		remove(out, p)
	}
	return out, nil
}

func (a attr) clone() attr {
	if a.Map != nil {
		m := make(map[string]attr, len(a.Map))
		for k, v := range a.Map {
			m[k] = v.clone()
		}
		a.Map = m
	}
	if a.List != nil {
		l := make([]attr, len(a.List))
		for i, v := range a.List {
			l[i] = v.clone()
		}
		a.List = l
	}
	a.Set = slices.Clone(a.Set)
	return a
}

// assign sets the value at a path whose parent is there.
func assign(it item, p path, v attr) error {
	root := attr{Type: "M", Map: it}
	_, err := put(root, p, v)
	return err
}

func put(at attr, p path, v attr) (attr, error) {
	if len(p) == 0 {
		return v, nil
	}
	bad := validation("The document path provided in the update expression is invalid for update")
	s := p[0]
	if s.name != "" {
		if at.Type != "M" {
			return attr{}, bad
		}
		sub, ok := at.Map[s.name]
		if !ok && len(p) > 1 {
			return attr{}, bad
		}
		sub, err := put(sub, p[1:], v)
		if err != nil {
			return attr{}, err
		}
		if at.Map == nil {
			at.Map = make(map[string]attr)
		}
		at.Map[s.name] = sub
		return at, nil
	}
	if at.Type != "L" {
		return attr{}, bad
	}
	if s.index >= len(at.List) {
		if len(p) > 1 {
			return attr{}, bad
		}
		at.List = append(at.List, v) // beyond the end means at the end
		return at, nil
	}
	sub, err := put(at.List[s.index], p[1:], v)
	if err != nil {
		return attr{}, err
	}
	at.List[s.index] = sub
	return at, nil
}

// remove deletes what is at a path.
func remove(it item, p path) {
	cut(attr{Type: "M", Map: it}, p)
}

func cut(at attr, p path) attr {
	s := p[0]
	switch {
	case s.name != "" && len(p) == 1:
		delete(at.Map, s.name)
	case s.name != "":
		if sub, ok := at.Map[s.name]; ok {
			at.Map[s.name] = cut(sub, p[1:])
		}
	case s.index >= len(at.List):
	case len(p) == 1:
		at.List = slices.Delete(at.List, s.index, s.index+1)
	default:
		at.List[s.index] = cut(at.List[s.index], p[1:])
	}
	return at
}
