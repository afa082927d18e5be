package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func opened(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

// whole is a state of these resources and outputs, as they stand in it.
func whole(serial int, resources, outputs string) string {
	return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"outputs":{%s},"resources":[%s],"check_results":null}`, serial, lineage, outputs, resources)
}

func thing(name, attributes, more string) string {
	return `{"mode":"managed","type":"x","name":"` + name + `","provider":"p","instances":[{"schema_version":0,"attributes":` + attributes + more + `}]}`
}

// walked prints what Walk gives, a line for each attribute.
func walked(t *testing.T, doc string) []string {
	t.Helper()
	lines := []string{}
	c, err := Walk(opened(doc), func(in Instance) error {
		name := in.Address
		if in.Tainted {
			name += " tainted"
		}
		if len(in.Attributes) == 0 {
			lines = append(lines, name)
		}
		for _, a := range in.Attributes {
			lines = append(lines, name+" "+a.Path+"="+shown(a))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range c.Outputs {
		lines = append(lines, "output "+o.Name+"="+shown(o.Value))
	}
	return lines
}

func shown(a Attribute) string {
	if a.Hidden {
		if a.Value != "" {
			return "LEAKED " + a.Value
		}
		return "hidden"
	}
	return a.Value
}

func TestWalk(t *testing.T) {
	for _, c := range []struct {
		sentence, resources, outputs string
		want                         []string
	}{
		{"addresses are terraform's",
			`{"module":"module.a[\"k\"].module.b","mode":"data","type":"x","name":"d","provider":"p","instances":[{"index_key":"a \"b\" ${c}","attributes":{}},{"index_key":3,"attributes":{}}]},` +
				`{"mode":"managed","type":"x","name":"m","provider":"p","instances":[{"attributes":{},"status":"tainted"},{"deposed":"0123abcd","attributes":{}}]}`, "",
			[]string{`module.a["k"].module.b.data.x.d["a \"b\" $${c}"]`, `module.a["k"].module.b.data.x.d[3]`, `x.m tainted`, `x.m (deposed 0123abcd)`}},
		{"values are flattened; null is none", thing("a", `{"id":"i","n":1.50,"on":true,"none":null,"list":["a",{"b":"c"}],"empty":[],"tags":{"a b":"x","plain-1":"y"}}`, ""), "",
			[]string{`x.a empty=[]`, `x.a id="i"`, `x.a list[0]="a"`, `x.a list[1].b="c"`, `x.a n=1.50`, `x.a on=true`, `x.a tags.plain-1="y"`, `x.a tags["a b"]="x"`}},
		{"a value with its type is the value", thing("a", `{"input":{"value":{"k":1},"type":["object",{"k":"number"}]},"record":{"type":"CNAME","value":"v"}}`, ""), "",
			[]string{`x.a input.k=1`, `x.a record.type="CNAME"`, `x.a record.value="v"`}},
		{"what the state marks is hidden, with all that is in it",
			thing("a", `{"open":"o","conf":{"deep":"one"},"list":["two","three"]}`, `,"sensitive_attributes":[[{"type":"get_attr","value":"conf"}],[{"type":"get_attr","value":"list"},{"type":"index","value":{"value":1,"type":"number"}}]]`), "",
			[]string{`x.a conf.deep=hidden`, `x.a list[0]="two"`, `x.a list[1]=hidden`, `x.a open="o"`}},
		{"marks that cannot be understood hide everything", thing("a", `{"open":"o"}`, `,"sensitive_attributes":[[{"type":"new","value":"conf"}]]`), "", []string{`x.a open=hidden`}},
		{"a telling name is hidden, as older states do not mark it", thing("a", `{"db_password":"p","master":{"client_secret":["s"]},"name":"n"}`, ""), "",
			[]string{`x.a db_password=hidden`, `x.a master.client_secret[0]=hidden`, `x.a name="n"`}},
		{"a hidden value is hidden wherever it stands",
			thing("a", `{"password":"hunter2","copy":"hunter2","url":"pg://u:hunter2@h","on":true}`, "") + "," + thing("b", `{"input":"hunter2","other":"hunter3"}`, ""),
			`"dsn":{"value":"pg://hunter2","type":"string"},"plain":{"value":"open","type":"string"}`,
			[]string{`x.a copy=hidden`, `x.a on=true`, `x.a password=hidden`, `x.a url=hidden`, `x.b input=hidden`, `x.b other="hunter3"`, `output dsn=hidden`, `output plain="open"`}},
		{"a short or common hidden value hides nothing else", thing("a", `{"password":"a","token":true,"copy":"a","on":true}`, ""), "",
			[]string{`x.a copy="a"`, `x.a on=true`, `x.a password=hidden`, `x.a token=hidden`}},
		{"outputs", "", `"b":{"value":{"x": [1, 2]},"type":"dynamic"},"a":{"value":"s","type":"string","sensitive":true},"api_key":{"value":"k","type":"string"}`,
			[]string{`output a=hidden`, `output api_key=hidden`, `output b={"x":[1,2]}`}},
		{"attributes of a very old state", `{"mode":"managed","type":"x","name":"a","provider":"p","instances":[{"attributes_flat":{"id":"i","tags.%":"1","password":"p"}}]}`, "",
			[]string{`x.a ["tags.%"]="1"`, `x.a id="i"`, `x.a password=hidden`}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got := walked(t, whole(1, c.resources, c.outputs))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWalkRefuses(t *testing.T) {
	good := whole(1, thing("a", `{"id":"i"}`, ""), "")
	for _, c := range []struct{ sentence, in string }{
		{"nothing", ""},
		{"a list", "[]"},
		{"a state that is cut off", good[:len(good)-20]},
		{"something behind the state", good + "{}"},
		{"another format version", strings.Replace(good, `"version":4`, `"version":3`, 1)},
		{"no lineage", strings.Replace(good, lineage, "", 1)},
		{"no serial", strings.Replace(good, `"serial":1,`, "", 1)},
		{"resources that are no list", strings.Replace(good, `"resources":[`, `"resources":{"x":[`, 1)},
		{"an instance that is none", strings.Replace(good, `{"schema_version":0`, `[{"schema_version":0`, 1)},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if _, err := Walk(opened(c.in), func(Instance) error { return nil }); !errors.Is(err, ErrNotState) {
				t.Errorf("%v, want ErrNotState", err)
			}
		})
	}
	t.Run("a reader that fails is no bad state", func(t *testing.T) {
		broken := errors.New("broken pipe")
		_, err := Walk(func() io.Reader { return io.MultiReader(strings.NewReader(good[:50]), errReader{broken}) }, nil)
		if !errors.Is(err, broken) || errors.Is(err, ErrNotState) {
			t.Errorf("%v, want the reader's error", err)
		}
	})
	t.Run("the caller's own error is given back", func(t *testing.T) {
		stop := errors.New("enough")
		if _, err := Walk(opened(good), func(Instance) error { return stop }); err != stop {
			t.Errorf("%v, want %v", err, stop)
		}
	})
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// lines prints a Diff.
func (d Diff) lines() []string {
	lines := []string{}
	for _, a := range d.Removed {
		lines = append(lines, "- "+a)
	}
	for _, a := range d.Added {
		lines = append(lines, "+ "+a)
	}
	one := func(of string, a AttributeChange) {
		lines = append(lines, fmt.Sprintf("%s %s %s %s→%s %v", of, a.Action, a.Path, a.Before, a.After, a.Sensitive))
	}
	for _, c := range d.Changed {
		for _, a := range c.Attributes {
			one(c.Address, a)
		}
	}
	for _, o := range d.Outputs {
		one("output", o)
	}
	return lines
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		sentence string
		a, b     string
		want     []string
	}{
		{"the same but for its serial and its spaces", whole(1, thing("a", `{"id":"i"}`, ""), ""), whole(2, thing("a", `{ "id": "i" }`, ""), ""), []string{}},
		{"resources come, go and change",
			whole(1, thing("a", `{"id":"1","old":"o","same":"s"}`, "")+","+thing("b", `{}`, ""), ""),
			whole(2, thing("a", `{"id":"2","new":"n","same":"s"}`, "")+","+thing("c", `{}`, ""), ""),
			[]string{"- x.b", "+ x.c", `x.a changed id "1"→"2" false`, `x.a added new →"n" false`, `x.a removed old "o"→ false`}},
		{"hidden values change without being told",
			whole(1, thing("a", `{"password":"one","copy":"hunter1"}`, "")+","+thing("b", `{"secret":"hunter1"}`, ""), `"token":{"value":"t1","type":"string"}`),
			whole(2, thing("a", `{"password":"two","copy":"hunter2"}`, "")+","+thing("b", `{"secret":"hunter2"}`, ""), `"token":{"value":"t2","type":"string"}`),
			[]string{`x.a changed copy → true`, `x.a changed password → true`, `x.b changed secret → true`, `output changed token → true`}},
		{"hidden on one side is hidden on both",
			whole(1, thing("a", `{"v":"open1"}`, ""), ""),
			whole(2, thing("a", `{"v":"closed"}`, `,"sensitive_attributes":[[{"type":"get_attr","value":"v"}]]`), ""),
			[]string{`x.a changed v → true`}},
		{"tainted, and another provider", whole(1, thing("a", `{}`, ""), ""), whole(2, strings.Replace(thing("a", `{}`, `,"status":"tainted"`), `"p"`, `"q"`, 1), ""),
			[]string{`x.a changed (provider) "p"→"q" false`, `x.a changed (tainted) "no"→"yes" false`}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			d, err := Compare(opened(c.a), opened(c.b))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, d.lines()); diff != "" {
				t.Error(diff)
			}
			if d.Empty() != (len(c.want) == 0) || d.From.Serial != 1 || d.To.Serial != 2 {
				t.Errorf("empty %v, from %d to %d", d.Empty(), d.From.Serial, d.To.Serial)
			}
		})
	}
	t.Run("from no state everything is added", func(t *testing.T) {
		d, err := Compare(nil, opened(whole(1, thing("a", `{}`, ""), "")))
		if err != nil || d.From.Exists || len(d.Added) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
	})
	t.Run("beyond the bound changes are counted", func(t *testing.T) {
		many := func(v string) string {
			var all []string
			for i := range maxRead + 5 {
				all = append(all, thing(fmt.Sprint("n", i), `{"v":"`+v+`"}`, ""))
			}
			return whole(1, strings.Join(all, ","), "")
		}
		d, err := Compare(opened(many("a")), opened(many("b")))
		if err != nil || len(d.Changed) != maxRead || d.Unread != 5 {
			t.Errorf("%d changed, %d unread, %v", len(d.Changed), d.Unread, err)
		}
	})
}

// Whatever a state holds: it is read or refused, and nothing that is marked as
// sensitive comes out.
func FuzzWalk(f *testing.F) {
	f.Add(whole(1, thing("a", `{"password":"hunter2","copy":"hunter2"}`, ""), `"o":{"value":"v","type":"string"}`))
	f.Add(whole(1, thing("a", `{"v":{"value":"hunter2","type":"string"}}`, `,"sensitive_attributes":[[{"type":"get_attr","value":"v"}]]`), ""))
	f.Add(`{"version":4,"serial":1,"lineage":"x","resources":[{"instances":[{"index_key":{}}]}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		_, err := Walk(opened(in), func(i Instance) error {
			for _, a := range i.Attributes {
				if a.Hidden && a.Value != "" {
					t.Errorf("%s %s is hidden and told: %s", i.Address, a.Path, a.Value)
				}
				if !a.Hidden && !json.Valid([]byte(a.Value)) {
					t.Errorf("%s %s is no JSON: %q", i.Address, a.Path, a.Value)
				}
			}
			return nil
		})
		if err != nil {
			if !errors.Is(err, ErrNotState) {
				t.Errorf("%v does not say that it is no state", err)
			}
			return
		}
		d, err := Compare(opened(in), opened(in))
		if err != nil || !d.Empty() {
			t.Errorf("compared with itself: %+v, %v", d, err)
		}
	})
}

// Count gives the lines of `terraform state list`, whatever else a state holds.
func TestCount(t *testing.T) {
	for text, want := range map[string]int{
		`{"version":4,"resources":[]}`:   0,
		`{"version":4,"resources":null}`: 0,
		`{"outputs":{"resources":{"value":[1,2]}},"resources":[{"mode":"data","instances":[{}]},{"name":"instances","instances":[{"attributes":{"instances":[1,2,3]}},{"index_key":1}]},{"type":"none"}],"check_results":null}`: 3,
	} {
		if n, err := Count(strings.NewReader(text)); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", `{"resources":[{"instances":[{}`, `{"resources":{}}`, `[]`} {
		if n, err := Count(strings.NewReader(text)); err == nil {
			t.Errorf("%q has %d resources", text, n)
		}
	}
}
