package sandbox

import (

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
