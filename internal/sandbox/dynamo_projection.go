package sandbox

import (
	"maps"
	"slices"
)

// projection is a set of paths to keep, as a tree. A nil one keeps everything.
type projection struct {
	whole bool
	names map[string]*projection
	index map[int]*projection
}

func (p *parser) projection(text string) (*projection, error) {
	root := &projection{}
	var all []path
	err := p.parse("ProjectionExpression", text, func() {
		for len(all) == 0 || p.accept(",") {
			one := p.path()
			for _, o := range all {
				if one.overlaps(o) {
					p.fail("Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [%s], path two: [%s]", o, one)
				}
			}
			all = append(all, one)
			at := root
			for _, s := range one {
				at = at.child(s)
			}
			at.whole = true
		}
	})
	return root, err
}

func (t *projection) child(s step) *projection {
	if t.names == nil {
		t.names, t.index = make(map[string]*projection), make(map[int]*projection)
	}
	if s.name == "" {
		if t.index[s.index] == nil {
			t.index[s.index] = &projection{}
		}
		return t.index[s.index]
	}
	if t.names[s.name] == nil {
		t.names[s.name] = &projection{}
	}
	return t.names[s.name]
}

func (t *projection) item(it item) item {
	if t == nil || it == nil {
		return it
	}
	v, _ := t.of(attr{Type: "M", Map: it})
	return v.Map
}

func (t *projection) of(a attr) (attr, bool) {
	if t.whole {
		return a, true
	}
	out := attr{Type: a.Type}
	switch a.Type {
	case "M":
		out.Map = make(map[string]attr)
		for name, sub := range t.names {
			if v, ok := a.Map[name]; ok {
				if v, ok = sub.of(v); ok {
					out.Map[name] = v
				}
			}
		}
		return out, len(out.Map) > 0
	case "L":
		for _, i := range slices.Sorted(maps.Keys(t.index)) {
			if i < len(a.List) {
				if v, ok := t.index[i].of(a.List[i]); ok {
					out.List = append(out.List, v)
				}
			}
		}
		return out, len(out.List) > 0
	}
	return out, false
}
