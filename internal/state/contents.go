package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Contents are what a whole state holds: its outputs, and each resource
// instance in turn. The strings are data of whoever may write the state.
type Contents struct {
	Head
	Outputs   []Output
	Instances int // how many there are
}

// Output is an output value of the root module.
type Output struct {
	Name  string
	Value Attribute // its path is empty; hidden where the output is sensitive
}

// Instance is one object that a state knows of.
type Instance struct {
	Address    string // as terraform writes it; a deposed object's ends in " (deposed KEY)"
	Provider   string
	Tainted    bool
	Attributes []Attribute // sorted by path
}

// Attribute is a value that is no object or list, or an empty one.
type Attribute struct {
	Path  string // such as tags.Name or ingress[0].cidr
	Value string // as JSON; empty where it is hidden
	// Hidden: the state marks it as sensitive, its name says that it may be, or
	// it has a value that is hidden elsewhere. Terraform marks what the
	// configuration says, not what a provider made of it.
	Hidden bool
	raw    string // the value also where it is hidden; it never leaves this package
}

// maxWord bounds what is read of a name: addresses are a few hundred bytes.
const maxWord = 4096

// rawResource is a resource as a state of format version 4 has it
// (terraform internal/states/statefile/version4.go).
type rawResource struct {
	Module    string            `json:"module"`
	Mode      string            `json:"mode"`
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Provider  string            `json:"provider"`
	Instances []json.RawMessage `json:"instances"`
}

type rawInstance struct {
	IndexKey   json.RawMessage   `json:"index_key"`
	Status     string            `json:"status"`
	Deposed    string            `json:"deposed"`
	Attributes json.RawMessage   `json:"attributes"`
	Flat       map[string]string `json:"attributes_flat"`
	Sensitive  json.RawMessage   `json:"sensitive_attributes"`
}

type rawOutput struct {
	Value     json.RawMessage `json:"value"`
	Sensitive bool            `json:"sensitive"`
}

// Walk reads a whole state, twice, and calls each for every instance in the
// order of the state. It holds the outputs, what is secret and one resource in
// memory, not more. An error of each ends it; every other but one of reading
// wraps [ErrNotState].
func Walk(open func() io.Reader, each func(Instance) error) (Contents, error) {
	known := secrets{}
	c, err := walk(open(), known.collect)
	if err != nil {
		return Contents{}, err
	}
	known.outputs(c.Outputs)
	var own error // of each
	_, err = walk(open(), func(address, provider string, raw json.RawMessage) error {
		in, err := readInstance(address, provider, raw, known)
		if err == nil {
			own = each(in)
			err = own
		}
		return err
	})
	if own != nil {
		return Contents{}, own
	}
	return c, err
}

// secrets are values, as JSON, that are hidden wherever they stand.
type secrets map[string]bool

// Bounds: how many are kept, and up to how many are looked for inside of other
// values. A state with more is odd in other ways too.
const (
	maxSecrets = 100_000
	maxSought  = 1000
)

// telling reports whether a value can be recognised: true, 1 and "a" stand in
// many places and are nobody's secret by themselves.
func telling(value string) bool {
	least := 4
	if strings.HasPrefix(value, `"`) {
		least += 2 // the quotes
	}
	return len(value) >= least && value != "true" && value != "false"
}

func (s secrets) add(value string) {
	if telling(value) && len(s) < maxSecrets {
		s[value] = true
	}
}

// collect is told of every instance.
func (s secrets) collect(address, provider string, raw json.RawMessage) error {
	in, err := readInstance(address, provider, raw, nil)
	for _, a := range in.Attributes {
		if a.Hidden {
			s.add(a.raw)
		}
	}
	return err
}

// outputs hides those that have, or contain, a secret.
func (s secrets) outputs(all []Output) {
	for _, o := range all {
		if o.Value.Hidden {
			s.add(o.Value.raw)
		}
	}
	for i := range all {
		if v := &all[i].Value; s.in(v.raw) {
			v.Value, v.Hidden = "", true
		}
	}
}

// in reports whether a value is a secret or contains one.
func (s secrets) in(value string) bool {
	if s[value] {
		return true
	}
	if len(value) < 6 || len(s) > maxSought {
		return false
	}
	for secret := range s {
		if text := strings.Trim(secret, `"`); len(text) >= 6 && strings.Contains(value, text) {
			return true
		}
	}
	return false
}

// walk is Walk with the instances as they stand.
func walk(r io.Reader, each func(address, provider string, raw json.RawMessage) error) (Contents, error) {
	from := &readError{r: r}
	c, err := parseContents(json.NewDecoder(from), each)
	switch {
	case from.err != nil:
		return Contents{}, from.err
	case err != nil:
		return Contents{}, fmt.Errorf("%w: %w", ErrNotState, err)
	}
	return c, nil
}

// readError remembers what went wrong with the reading, which a parser takes
// for an error of the content.
type readError struct {
	r   io.Reader
	err error
}

func (e *readError) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

func parseContents(dec *json.Decoder, each func(address, provider string, raw json.RawMessage) error) (Contents, error) {
	dec.UseNumber()
	c := Contents{Head: Head{Exists: true}}
	var version, serial json.Number
	seen := map[string]int{} // addresses that occur more than once
	err := object(dec, func(name string) error {
		switch name {
		case "version":
			return dec.Decode(&version)
		case "serial":
			return dec.Decode(&serial)
		case "lineage":
			return dec.Decode(&c.Lineage)
		case "terraform_version":
			return dec.Decode(&c.TerraformVersion)
		case "outputs":
			return object(dec, func(name string) error {
				var o rawOutput
				if err := dec.Decode(&o); err != nil {
					return err
				}
				c.Outputs = append(c.Outputs, readOutput(name, o))
				return nil
			})
		case "resources":
			return array(dec, func() error {
				var r rawResource
				if err := dec.Decode(&r); err != nil {
					return err
				}
				for _, raw := range r.Instances {
					address, err := r.address(raw)
					if err != nil {
						return err
					}
					if n := seen[address]; n > 0 {
						address += fmt.Sprintf(" (%d)", n+1)
					}
					seen[address]++
					c.Instances++
					if err := each(address, r.Provider, raw); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return skip(dec)
	})
	if err != nil {
		return c, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return c, errors.New("something follows the state")
	}
	if version != "4" {
		return c, fmt.Errorf("format version %.10q, tfguard reads 4", version.String())
	}
	if c.Serial, err = parseSerial(serial); err != nil {
		return c, errors.New("it has no usable serial")
	}
	if c.Lineage == "" || len(c.Lineage) > maxField || len(c.TerraformVersion) > maxField {
		return c, errors.New("it has no usable lineage")
	}
	slices.SortFunc(c.Outputs, func(a, b Output) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// Count gives how many resource instances a whole state holds, data included: the
// lines of `terraform state list`. Its memory is that of the longest string.
func Count(r io.Reader) (n int, err error) {
	dec := json.NewDecoder(r)
	err = object(dec, func(name string) error {
		if name != "resources" {
			return skip(dec)
		}
		return array(dec, func() error {
			return object(dec, func(name string) error {
				if name != "instances" {
					return skip(dec)
				}
				return array(dec, func() error {
					n++
					return skip(dec)
				})
			})
		})
	})
	if err != nil {
		return 0, fmt.Errorf("count the resources of a state: %w", err)
	}
	return n, nil
}

// object reads an object, or null, and calls field for each name in it.
func object(dec *json.Decoder, field func(name string) error) error {
	open, err := dec.Token()
	if err != nil || open == nil {
		return cutOff(err)
	}
	if open != json.Delim('{') {
		return errors.New("an object was expected")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return cutOff(err)
		}
		name, _ := t.(string)
		if err := field(name); err != nil {
			return cutOff(err)
		}
	}
	_, err = dec.Token()
	return cutOff(err)
}

// array reads an array, or null, and calls element for each.
func array(dec *json.Decoder, element func() error) error {
	open, err := dec.Token()
	if err != nil || open == nil {
		return cutOff(err)
	}
	if open != json.Delim('[') {
		return errors.New("a list was expected")
	}
	for dec.More() {
		if err := element(); err != nil {
			return cutOff(err)
		}
	}
	_, err = dec.Token()
	return cutOff(err)
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut off")
	}
	return err
}

// address is the instance's address, as terraform writes it.
func (r rawResource) address(raw json.RawMessage) (string, error) {
	var in struct {
		IndexKey any    `json:"index_key"`
		Deposed  string `json:"deposed"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&in); err != nil {
		return "", err
	}
	var b strings.Builder
	if r.Module != "" {
		b.WriteString(r.Module + ".")
	}
	if r.Mode == "data" {
		b.WriteString("data.")
	}
	b.WriteString(r.Type + "." + r.Name)
	switch key := in.IndexKey.(type) {
	case string:
		b.WriteString("[" + strings.ReplaceAll(strconv.Quote(key), "${", "$${") + "]")
	case json.Number:
		b.WriteString("[" + key.String() + "]")
	}
	if in.Deposed != "" {
		b.WriteString(" (deposed " + in.Deposed + ")")
	}
	if b.Len() > maxWord {
		return "", errors.New("an address is too long")
	}
	return b.String(), nil
}

func readOutput(name string, o rawOutput) Output {
	value := string(o.Value)
	var b bytes.Buffer
	if json.Compact(&b, o.Value) == nil {
		value = b.String()
	}
	a := Attribute{Value: value, raw: value}
	if o.Sensitive || secretName(name) {
		a.Value, a.Hidden = "", true
	}
	return Output{Name: name, Value: a}
}

// readInstance hides what the instance itself says is secret, the values of
// known, and what contains a secret of its own.
func readInstance(address, provider string, raw json.RawMessage, known secrets) (Instance, error) {
	var r rawInstance
	if err := json.Unmarshal(raw, &r); err != nil {
		return Instance{}, err
	}
	in := Instance{Address: address, Provider: provider, Tainted: r.Status == "tainted"}
	secret, ok := sensitivePaths(r.Sensitive)
	f := flattener{secret: secret, all: !ok}
	if len(r.Attributes) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Attributes))
		dec.UseNumber()
		var value any
		if err := dec.Decode(&value); err != nil {
			return Instance{}, err
		}
		f.add(nil, value, false)
	}
	for k, v := range r.Flat { // a state that terraform 0.11 wrote and no later one has refreshed
		f.add([]string{k}, v, false)
	}
	in.Attributes = f.out
	own := secrets{}
	for _, a := range in.Attributes {
		if a.Hidden {
			own.add(a.raw)
		}
	}
	for i := range in.Attributes {
		if a := &in.Attributes[i]; !a.Hidden && (known[a.raw] || own.in(a.raw)) {
			a.Value, a.Hidden = "", true
		}
	}
	slices.SortFunc(in.Attributes, func(a, b Attribute) int { return strings.Compare(a.Path, b.Path) })
	return in, nil
}

// sensitivePaths reads which attributes terraform marked as sensitive. ok is
// false where that cannot be understood: then all of them count as such.
func sensitivePaths(raw json.RawMessage) (paths [][]string, ok bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, true
	}
	var all [][]struct {
		Type  string          `json:"type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, false
	}
	for _, steps := range all {
		var path []string
		for _, s := range steps {
			var name string
			switch s.Type {
			case "get_attr":
				if json.Unmarshal(s.Value, &name) != nil {
					return nil, false
				}
			case "index":
				var key struct {
					Value any `json:"value"`
				}
				dec := json.NewDecoder(bytes.NewReader(s.Value))
				dec.UseNumber()
				if dec.Decode(&key) != nil {
					return nil, false
				}
				switch k := key.Value.(type) {
				case string:
					name = k
				case json.Number:
					name = index(k.String())
				default:
					return nil, false
				}
			default:
				return nil, false
			}
			path = append(path, name)
		}
		paths = append(paths, path)
	}
	return paths, true
}

func index(n string) string { return "[" + n + "]" }

// flattener turns a value into the attributes in it.
type flattener struct {
	secret [][]string
	all    bool // everything is secret
	out    []Attribute
}

func (f *flattener) add(path []string, value any, hidden bool) {
	hidden = hidden || f.all || f.hides(path)
	switch v := value.(type) {
	case nil:
		return
	case map[string]any:
		if inner, ok := dynamic(v); ok {
			f.add(path, inner, hidden)
			return
		}
		for name, inner := range v {
			f.add(append(slices.Clone(path), name), inner, hidden || secretName(name))
		}
		if len(v) > 0 {
			return
		}
	case []any:
		for i, inner := range v {
			f.add(append(slices.Clone(path), index(strconv.Itoa(i))), inner, hidden)
		}
		if len(v) > 0 {
			return
		}
	}
	if len(path) == 0 {
		return
	}
	text, _ := json.Marshal(value) // came from JSON
	a := Attribute{Path: pathName(path), Value: string(text), raw: string(text), Hidden: hidden || secretName(path[len(path)-1])}
	if a.Hidden {
		a.Value = ""
	}
	f.out = append(f.out, a)
}

func (f *flattener) hides(path []string) bool {
	return slices.ContainsFunc(f.secret, func(s []string) bool { return slices.Equal(s, path) })
}

// dynamic gives the value of an attribute without a type of its own, which a
// state wraps together with the type (terraform_data.input is one).
func dynamic(v map[string]any) (any, bool) {
	inner, ok := v["value"]
	kind, typed := v["type"]
	if !ok || !typed || len(v) != 2 {
		return nil, false
	}
	switch k := kind.(type) {
	case string:
		return inner, slices.Contains([]string{"string", "number", "bool", "dynamic"}, k)
	case []any:
		if len(k) == 0 {
			return nil, false
		}
		name, _ := k[0].(string)
		return inner, slices.Contains([]string{"list", "set", "map", "object", "tuple"}, name)
	}
	return nil, false
}

// secretWords are parts of names whose values are hidden also where a state
// does not mark them: terraform before 1.10 wrote down only what the
// configuration marked, not what a provider's schema does.
var secretWords = regexp.MustCompile(`(?i)passw|secret|token|credential|private_?key|access_?key|api_?key|auth_?key|account_?key|connection_?string|kube_?config|sas_url`)

func secretName(name string) bool { return secretWords.MatchString(name) }

// pathName writes a path as it would be in a configuration.
func pathName(path []string) string {
	var b strings.Builder
	for _, name := range path {
		switch {
		case strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]"):
			b.WriteString(name)
		case plainName(name):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(name)
		default:
			b.WriteString("[" + strconv.Quote(name) + "]")
		}
	}
	return b.String()
}

func plainName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' }) < 0
}
