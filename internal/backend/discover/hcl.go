package discover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"github.com/tfguard/tfguard/internal/quote"
)

// Error is something in a configuration that cannot be used, with its place.
// Line and Column count from 1; 0 is unknown.
type Error struct {
	File    string
	Line    int
	Column  int
	Message string // for people, without control characters
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Bounds of what is read: bytes of one file, and how deep its expressions and
// blocks may nest. HCL's parser calls itself for each level and would exhaust
// the stack, which no program survives.
const (
	maxFile     = 16 << 20
	maxNesting  = 1000
	maxTernary  = 20000
	maxUnary    = 1000
	maxReported = 10
	maxMessage  = 500
)

// ReadFile reads a regular file of at most max bytes.
func ReadFile(path string, max int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("it is not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(src)) > max {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", max)}
	}
	return src, nil
}

// Parse parses HCL, or its JSON form where path ends in .json. Its errors are
// of type [Error], at most ten of them, joined.
func Parse(path string, src []byte) (hcl.Body, error) {
	if line := tooDeep(src); line > 0 {
		return nil, &Error{File: path, Line: line, Column: 1, Message: "blocks or expressions are nested too deep"}
	}
	var (
		f     *hcl.File
		diags hcl.Diagnostics
	)
	if strings.HasSuffix(path, ".json") {
		f, diags = json.Parse(src, path)
	} else {
		f, diags = hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	}
	if diags.HasErrors() {
		return nil, Diagnose(path, diags)
	}
	return f.Body, nil
}

// tooDeep gives the line at which src nests deeper than the parser may go, 0
// where it does not. It counts brackets in strings and comments too.
func tooDeep(src []byte) int {
	depth, ternary, unary, line := 0, 0, 0, 1
	for _, c := range src {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth = max(depth-1, 0)
		case '?':
			ternary++
		case '\n':
			line++
		}
		switch c {
		case '!', '-':
			unary++
		case ' ', '\t', '\r', '\n':
		default:
			unary = 0
		}
		if depth > maxNesting || ternary > maxTernary || unary > maxUnary {
			return line
		}
	}
	return 0
}

// Diagnose turns HCL's diagnostics into errors of type [Error], joined; nil
// where none of them is an error. path is used where a diagnostic has no place.
func Diagnose(path string, diags hcl.Diagnostics) error {
	var errs []error
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		if len(errs) == maxReported {
			break
		}
		errs = append(errs, at(path, d.Subject, words(d)))
	}
	return errors.Join(errs...)
}

func at(path string, where *hcl.Range, message string) *Error {
	e := &Error{File: path, Message: quote.Line(message, maxMessage)}
	if where != nil {
		e.File, e.Line, e.Column = where.Filename, where.Start.Line, where.Start.Column
	}
	return e
}

// words are a diagnostic's detail, or its summary where it has none, as one
// lower-case sentence without its full stop.
func words(d *hcl.Diagnostic) string {
	s := d.Detail
	if s == "" {
		s = d.Summary
	}
	s = strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && !(s[1] >= 'A' && s[1] <= 'Z') {
		s = strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// mayHold reports whether a file can have a terraform block: its name occurs in
// it, or, in JSON, may occur in disguise.
func mayHold(path string, src []byte) bool {
	return bytes.Contains(src, []byte("terraform")) ||
		strings.HasSuffix(path, ".json") && bytes.Contains(src, []byte(`\u`))
}

// Literal evaluates the expression of an attribute that may neither refer to
// anything nor call functions. Its errors are of type [Error].
func Literal(path, name string, expr hcl.Expression) (cty.Value, error) {
	return literal(path, name, expr, "")
}

// BlockObject is a block without labels and inner blocks as the object that
// the same attributes would be: { … }.
func BlockObject(b *hcl.Block) (hcl.Expression, hcl.Diagnostics) {
	attrs, diags := b.Body.JustAttributes()
	if diags.HasErrors() {
		return nil, diags
	}
	return object{attrs: attrs, at: b.DefRange}, nil
}

// object is an [hcl.Expression] over the attributes of a block.
type object struct {
	attrs hcl.Attributes
	at    hcl.Range
}

func (o object) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	fields := map[string]cty.Value{}
	for name, a := range o.attrs {
		v, d := a.Expr.Value(ctx)
		fields[name], diags = v, append(diags, d...)
	}
	return cty.ObjectVal(fields), diags
}

func (o object) Variables() (vars []hcl.Traversal) {
	for _, name := range slices.Sorted(maps.Keys(o.attrs)) {
		vars = append(vars, o.attrs[name].Expr.Variables()...)
	}
	return vars
}

func (o object) Range() hcl.Range      { return o.at }
func (o object) StartRange() hcl.Range { return o.at }

// literal evaluates an expression without variables and functions. The error
// message names what it refers to.
func literal(path, name string, expr hcl.Expression, advice string) (v cty.Value, err error) {
	if vars := expr.Variables(); len(vars) > 0 {
		return v, at(path, expr.Range().Ptr(), fmt.Sprintf("%q refers to %s: only literal values are possible here%s", name, reference(vars[0]), advice))
	}
	if r := enormous(expr); r != nil {
		return v, at(path, r, fmt.Sprintf("%q has a number that is out of bounds", name))
	}
	v, diags := expr.Value(nil)
	if diags.HasErrors() {
		for _, d := range diags {
			if d.Summary == "Function calls not allowed" {
				return v, at(path, d.Subject, fmt.Sprintf("%q calls a function: only literal values are possible here%s", name, advice))
			}
		}
		return v, Diagnose(path, diags)
	}
	return v, nil
}

// enormous gives the place of a number that no float64 could hold. Turned into
// text, as a template does, 1e9999999 takes minutes and gigabytes.
func enormous(expr hcl.Expression) (where *hcl.Range) {
	big := func(v cty.Value) bool {
		if v.Type() != cty.Number || !v.IsKnown() || v.IsNull() {
			return false
		}
		exponent := v.AsBigFloat().MantExp(nil)
		return exponent > 1024 || exponent < -1074
	}
	switch e := expr.(type) {
	case object:
		for _, name := range slices.Sorted(maps.Keys(e.attrs)) {
			if r := enormous(e.attrs[name].Expr); r != nil {
				return r
			}
		}
	case hclsyntax.Node:
		_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
			if l, ok := n.(*hclsyntax.LiteralValueExpr); ok && where == nil && big(l.Val) {
				where = l.SrcRange.Ptr()
			}
			return nil
		})
	default: // JSON: a number by itself, or in a list or an object
		v, diags := expr.Value(nil)
		if diags.HasErrors() {
			return nil
		}
		_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
			if big(v) {
				where = expr.Range().Ptr()
			}
			return true, nil
		})
	}
	return where
}

func reference(t hcl.Traversal) string {
	var b strings.Builder
	for _, step := range t {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(s.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + s.Name)
		default:
			return b.String()
		}
	}
	return b.String()
}
