package state

import (
	"errors"
	"strings"
	"testing"
)

const lineage = "1f2e3d4c-0000-1111-2222-333344445555"

func TestParse(t *testing.T) {
	head := `{"version":4,"terraform_version":"1.11.4","serial":7,"lineage":"` + lineage + `"`
	for _, c := range []struct {
		sentence, in string
		serial       uint64
		bad          bool
	}{
		{"as terraform writes it", head + `,"outputs":{},"resources":[]}`, 7, false},
		{"cut off behind the head", head + `,"outputs":{"a":{"va`, 7, false},
		{"in another order", `{"resources":[{"a":[1,{"b":null}]}],"lineage":"` + lineage + `","serial":9,"version":4}`, 9, false},
		{"the largest serial", `{"version":4,"serial":18446744073709551615,"lineage":"x"}`, 1<<64 - 1, false},
		{"nothing", "", 0, true},
		{"no JSON", "<html>", 0, true},
		{"an array", "[]", 0, true},
		{"cut off before the lineage", `{"version":4,"serial":7,`, 0, true},
		{"without a lineage", `{"version":4,"serial":7}`, 0, true},
		{"with an empty lineage", `{"version":4,"serial":7,"lineage":""}`, 0, true},
		{"with a lineage of a megabyte", `{"version":4,"serial":7,"lineage":"` + strings.Repeat("x", 1<<20) + `"}`, 0, true},
		{"without a serial", `{"version":4,"lineage":"x"}`, 0, true},
		{"with a serial below zero", `{"version":4,"serial":-1,"lineage":"x"}`, 0, true},
		{"with a broken serial", `{"version":4,"serial":1.5,"lineage":"x"}`, 0, true},
		{"with a serial beyond 64 bits", `{"version":4,"serial":18446744073709551616,"lineage":"x"}`, 0, true},
		{"of format version 3", `{"version":3,"serial":7,"lineage":"x"}`, 0, true},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			h, err := Parse(strings.NewReader(c.in))
			switch {
			case c.bad && !errors.Is(err, ErrNotState):
				t.Errorf("%+v, %v; want ErrNotState", h, err)
			case !c.bad && (err != nil || h.Serial != c.serial || h.Lineage == "" || !h.Exists):
				t.Errorf("%+v, %v; want serial %d", h, err, c.serial)
			}
		})
	}
}

func TestSame(t *testing.T) {
	a := Head{Exists: true, Lineage: "a", Serial: 1, ETag: "x"}
	for _, c := range []struct {
		sentence string
		b        Head
		want     bool
	}{
		{"where it was read does not matter", Head{Exists: true, Lineage: "a", Serial: 1, ETag: "y"}, true},
		{"another serial", Head{Exists: true, Lineage: "a", Serial: 2}, false},
		{"another lineage", Head{Exists: true, Lineage: "b", Serial: 1}, false},
		{"no state", Head{}, false},
	} {
		if got := a.Same(c.b); got != c.want {
			t.Errorf("%s: %v", c.sentence, got)
		}
	}
	if !(Head{}).Same(Head{}) {
		t.Error("no state is the same as no state")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"version":4,"terraform_version":"1.11.4","serial":7,"lineage":"x"}`)
	f.Add(`{"version":4,"resources":[{"a":[1,{"b":null}]}],"serial":7,"lineage":"x"}`)
	f.Fuzz(func(t *testing.T, in string) {
		h, err := Parse(strings.NewReader(in))
		if err == nil && (h.Lineage == "" || !h.Exists) {
			t.Errorf("accepted %q as %+v", in, h)
		}
		if err != nil && h != (Head{}) {
			t.Errorf("%+v beside %v", h, err)
		}
	})
}
