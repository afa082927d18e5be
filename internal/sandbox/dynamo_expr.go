package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	maxExpression = 4 << 10 // bytes, as in DynamoDB; bounds the parser's recursion too
)

// path names an attribute, perhaps within a map or list: name, then names and
// indexes.
type path []step

type step struct {
	name  string // "" for an index
	index int
}

func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch {
		case s.name == "":
			fmt.Fprintf(&b, "[%d]", s.index)
		case i > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// get is the value at the path.
func (p path) get(it item) (attr, bool) {
	v, ok := it[p[0].name]
	for _, s := range p[1:] {
		switch {
		case !ok:
			return attr{}, false
		case s.name != "":
			v, ok = v.Map[s.name]
		case s.index < len(v.List):
			v = v.List[s.index]
		default:
			return attr{}, false
		}
	}
	return v, ok
}

// overlaps says whether one path is the other or leads to it.
func (p path) overlaps(o path) bool {
	n := min(len(p), len(o))
	return slices.Equal(p[:n], o[:n])
}

// operand is a path, a value, or a function of operands.
type operand struct {
	path  path
	value *attr
	fn    string // "size", "if_not_exists", "list_append", "+", "-"
	args  []operand
}

// expr is a condition.
type expr struct {
	op   string // AND, OR, NOT, a comparator, BETWEEN, IN or a function's name
	sub  []*expr
	args []operand
}

// parser reads the expressions of one request, with their placeholders.
type parser struct {
	names      map[string]string
	values     map[string]attr
	usedNames  map[string]bool
	usedValues map[string]bool

	kind   string // the parameter being read, for messages
	tokens []string
	pos    int
}

func newParser(names map[string]string, values map[string]attr) *parser {
	return &parser{names: names, values: values, usedNames: make(map[string]bool), usedValues: make(map[string]bool)}
}

// errSyntax unwinds the parser; parse catches it.
type errSyntax string

func (p *parser) fail(format string, args ...any) {
	panic(errSyntax("Invalid " + p.kind + ": " + fmt.Sprintf(format, args...)))
}

// parse runs fn over the text's tokens, to their end.
func (p *parser) parse(kind, text string, fn func()) (err error) {
	defer func() {
		if e := recover(); e != nil {
			s, ok := e.(errSyntax)
			if !ok {
				panic(e)
			}
			err = validation(string(s))
		}
	}()
	p.kind, p.pos = kind, 0
	if strings.TrimSpace(text) == "" {
		p.fail("The expression can not be empty;")
	}
	if len(text) > maxExpression {
		p.fail("Expression size has exceeded the maximum allowed size;")
	}
	p.tokens = p.split(text)
	fn()
	if p.pos < len(p.tokens) {
		p.unexpected()
	}
	return nil
}

// split cuts an expression into tokens.
func (p *parser) split(text string) []string {
	var out []string
	word := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
	}
	for i := 0; i < len(text); {
		c := text[i]
		j := i + 1
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case word(c), c == '#', c == ':':
			for j < len(text) && (word(text[j])) {
				j++
			}
			if j == i+1 && !word(c) {
				p.fail("Syntax error; token: %q, near: %q", text[i:j], near(text, i))
			}
		case strings.HasPrefix(text[i:], "<>"), strings.HasPrefix(text[i:], "<="), strings.HasPrefix(text[i:], ">="):
			j = i + 2
		case !strings.ContainsRune("=<>()[],.+-", rune(c)):
			p.fail("Syntax error; token: %q, near: %q", text[i:j], near(text, i))
		}
		out = append(out, text[i:j])
		i = j
	}
	return out
}

func near(text string, i int) string { return text[max(0, i-10):min(len(text), i+10)] }

func (p *parser) peek() string {
	if p.pos < len(p.tokens) {
		return p.tokens[p.pos]
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	if t == "" {
		p.unexpected()
	}
	p.pos++
	return t
}

func (p *parser) unexpected() {
	t := p.peek()
	if t == "" {
		t = "<EOF>"
	}
	p.fail("Syntax error; token: %q, near: %q", t, strings.Join(p.tokens[max(0, p.pos-1):min(len(p.tokens), p.pos+2)], " "))
}

func (p *parser) accept(token string) bool {
	if strings.EqualFold(p.peek(), token) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(token string) {
	if !p.accept(token) {
		p.unexpected()
	}
}

var comparators = []string{"=", "<>", "<", "<=", ">", ">="}

// functions are those of conditions, with how many arguments they take.
var functions = map[string]int{"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "contains": 2}

func (p *parser) condition() *expr {
	e := p.conjunction()
	for p.accept("OR") {
		e = &expr{op: "OR", sub: []*expr{e, p.conjunction()}}
	}
	return e
}

func (p *parser) conjunction() *expr {
	e := p.negation()
	for p.accept("AND") {
		e = &expr{op: "AND", sub: []*expr{e, p.negation()}}
	}
	return e
}

func (p *parser) negation() *expr {
	if p.accept("NOT") {
		return &expr{op: "NOT", sub: []*expr{p.negation()}}
	}
	if p.accept("(") {
		e := p.condition()
		p.expect(")")
		return e
	}
	if n, ok := functions[p.peek()]; ok && p.pos+1 < len(p.tokens) && p.tokens[p.pos+1] == "(" {
		return p.function(p.next(), n)
	}
	return p.comparison()
}

func (p *parser) function(name string, n int) *expr {
	e := &expr{op: name}
	p.expect("(")
	for len(e.args) == 0 || p.accept(",") {
		e.args = append(e.args, p.operand())
	}
	p.expect(")")
	if len(e.args) != n {
		p.fail("Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(e.args))
	}
	if e.args[0].path == nil && name != "begins_with" && name != "contains" {
		p.fail("Operator or function requires a document path; operator or function: %s", name)
	}
	v := e.args[n-1].value
	switch {
	case name == "attribute_type" && (v == nil || v.Type != "S" || !slices.Contains([]string{"S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"}, v.Str)):
		p.fail("Invalid attribute type name found")
	case name == "begins_with" && v != nil && v.Type != "S" && v.Type != "B":
		p.badType(name, v)
	}
	return e
}

func (p *parser) badType(op string, v *attr) {
	p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", op, v.Type)
}

func (p *parser) comparison() *expr {
	left := p.operand()
	ordered := func(op string, a operand) operand {
		if a.value != nil && !slices.Contains([]string{"S", "N", "B"}, a.value.Type) {
			p.badType(op, a.value)
		}
		return a
	}
	switch {
	case p.accept("BETWEEN"):
		lo := ordered("BETWEEN", p.operand())
		p.expect("AND")
		hi := ordered("BETWEEN", p.operand())
		if lo.value != nil && hi.value != nil {
			if c, ok := lo.value.compare(*hi.value); !ok || c > 0 {
				p.fail("The BETWEEN operator requires upper bound to be greater than or equal to lower bound")
			}
		}
		return &expr{op: "BETWEEN", args: []operand{ordered("BETWEEN", left), lo, hi}}
	case p.accept("IN"):
		e := &expr{op: "IN", args: []operand{left}}
		p.expect("(")
		for len(e.args) == 1 || p.accept(",") {
			e.args = append(e.args, p.operand())
		}
		p.expect(")")
		if len(e.args) > 101 {
			p.fail("The IN operator is provided with too many operands")
		}
		return e
	}
	op := p.next()
	if !slices.Contains(comparators, op) {
		p.pos--
		p.unexpected()
	}
	right := p.operand()
	if op != "=" && op != "<>" {
		left, right = ordered(op, left), ordered(op, right)
	}
	return &expr{op: op, args: []operand{left, right}}
}

// operand is a path, a value or size(path).
func (p *parser) operand() operand {
	t := p.peek()
	switch {
	case strings.HasPrefix(t, ":"):
		return operand{value: p.value()}
	case t == "size" && p.pos+1 < len(p.tokens) && p.tokens[p.pos+1] == "(":
		p.pos += 2
		a := p.operand()
		p.expect(")")
		return operand{fn: "size", args: []operand{a}}
	}
	return operand{path: p.path()}
}

func (p *parser) value() *attr {
	t := p.next()
	v, ok := p.values[t]
	if !strings.HasPrefix(t, ":") {
		p.pos--
		p.unexpected()
	}
	if !ok {
		p.fail("An expression attribute value used in expression is not defined; attribute value: %s", t)
	}
	p.usedValues[t] = true
	return &v
}

func (p *parser) path() path {
	out := path{{name: p.name()}}
	for {
		switch {
		case p.accept("."):
			out = append(out, step{name: p.name()})
		case p.accept("["):
			i, err := strconv.Atoi(p.next())
			if err != nil || i < 0 {
				p.pos--
				p.unexpected()
			}
			p.expect("]")
			out = append(out, step{index: i})
		default:
			return out
		}
		if len(out) > maxDepth {
			p.fail("The document path has too many nesting elements")
		}
	}
}

func (p *parser) name() string {
	t := p.next()
	if strings.HasPrefix(t, "#") {
		n, ok := p.names[t]
		if !ok {
			p.fail("An expression attribute name used in the document path is not defined; attribute name: %s", t)
		}
		p.usedNames[t] = true
		return n
	}
	if c := t[0]; c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
		p.pos--
		p.unexpected()
	}
	if reserved()[strings.ToUpper(t)] {
		p.fail("Attribute name is a reserved keyword; reserved keyword: %s", t)
	}
	return t
}

// unused refuses placeholders that no expression used.
func (p *parser) unused() error {
	for _, k := range slices.Sorted(maps.Keys(p.names)) {
		if !p.usedNames[k] {
			return validation("Value provided in ExpressionAttributeNames unused in expressions: keys: {" + k + "}")
		}
	}
	for _, k := range slices.Sorted(maps.Keys(p.values)) {
		if !p.usedValues[k] {
			return validation("Value provided in ExpressionAttributeValues unused in expressions: keys: {" + k + "}")
		}
	}
	return nil
}

// of is the operand's value for an item.
func (o operand) of(it item) (attr, bool) {
	switch {
	case o.value != nil:
		return *o.value, true
	case o.path != nil:
		return o.path.get(it)
	case o.fn == "size":
		v, ok := o.args[0].of(it)
		if n := v.length(); ok && n >= 0 {
			return attr{Type: "N", Str: strconv.Itoa(n)}, true
		}
	}
	return attr{}, false
}

// holds evaluates the condition for an item; a nil condition holds. What
// compares with a missing attribute is false, but for <>.
func (e *expr) holds(it item) bool {
	if e == nil {
		return true
	}
	switch e.op {
	case "AND":
		return e.sub[0].holds(it) && e.sub[1].holds(it)
	case "OR":
		return e.sub[0].holds(it) || e.sub[1].holds(it)
	case "NOT":
		return !e.sub[0].holds(it)
	}
	a, ok := e.args[0].of(it)
	switch e.op {
	case "attribute_exists":
		return ok
	case "attribute_not_exists":
		return !ok
	case "IN":
		return ok && slices.ContainsFunc(e.args[1:], func(o operand) bool {
			v, there := o.of(it)
			return there && a.equal(v)
		})
	case "BETWEEN":
		lo, ok1 := e.args[1].of(it)
		hi, ok2 := e.args[2].of(it)
		c1, ok3 := a.compare(lo)
		c2, ok4 := a.compare(hi)
		return ok && ok1 && ok2 && ok3 && ok4 && c1 >= 0 && c2 <= 0
	}
	b, okb := e.args[1].of(it)
	switch e.op {
	case "<>":
		return !ok || !okb || !a.equal(b)
	case "=":
		return ok && okb && a.equal(b)
	case "attribute_type":
		return ok && a.Type == b.Str
	case "begins_with":
		return ok && okb && a.Type == b.Type && (a.Type == "S" || a.Type == "B") && strings.HasPrefix(a.Str, b.Str)
	case "contains":
		return ok && okb && a.contains(b)
	}
	c, comparable := a.compare(b)
	if !ok || !okb || !comparable {
		return false
	}
	switch e.op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}
