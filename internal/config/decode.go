package config

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/tfguard/tfguard/internal/backend/discover"
	"github.com/tfguard/tfguard/internal/quote"
)

// stages are those that a hook can stand before or after.
func stages() []string {
	return []string{"check", "backend", "lock-check", "plan", "recheck", "snapshot", "apply"}
}

// setter puts an attribute's value where it belongs. Its error says what is
// wrong with it, as the rest of a sentence that begins with the name.
type setter func(cty.Value) error

// parse decodes the file's text.
func parse(path string, src []byte) (File, error) {
	d := decoder{path: path}
	if strings.HasSuffix(path, ".json") {
		return File{}, &Error{File: path, Message: "is JSON: write it as HCL"}
	}
	body, err := discover.Parse(path, src)
	if err != nil {
		d.add(err)
		return File{}, d.err()
	}
	f := d.file(body)
	if err := d.err(); err != nil {
		return File{}, err
	}
	return f, nil
}

// decoder collects what is wrong with a file while it is decoded.
type decoder struct {
	path string
	errs []error
}

const maxErrors = 10

func (d *decoder) err() error {
	return errors.Join(d.errs[:min(len(d.errs), maxErrors)]...)
}

func (d *decoder) fail(at hcl.Range, format string, args ...any) {
	d.errs = append(d.errs, &Error{
		File: d.path, Line: at.Start.Line, Column: at.Start.Column,
		Message: quote.Line(fmt.Sprintf(format, args...), 500),
	})
}

// add takes over the errors of discover, which joins them.
func (d *decoder) add(err error) {
	var one *discover.Error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			d.add(e)
		}
	} else if errors.As(err, &one) {
		d.errs = append(d.errs, &Error{File: one.File, Line: one.Line, Column: one.Column, Message: one.Message})
	} else if err != nil {
		d.errs = append(d.errs, &Error{File: d.path, Message: quote.Line(err.Error(), 500)})
	}
}

func (d *decoder) diags(diags hcl.Diagnostics) { d.add(discover.Diagnose(d.path, diags)) }

func (d *decoder) file(body hcl.Body) File {
	var f File
	content, diags := body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "terraform"}, {Type: "backend"}, {Type: "locks"}, {Type: "snapshots"}, {Type: "guard"},
		{Type: "hook", LabelNames: []string{"name"}}, {Type: "github"},
	}})
	d.diags(diags)
	first := map[string]hcl.Range{}
	for _, b := range content.Blocks {
		if was, again := first[b.Type]; again && b.Type != "hook" {
			d.fail(b.DefRange, "there is a block %q at line %d already", b.Type, was.Start.Line)
			continue
		}
		first[b.Type] = b.DefRange
		switch b.Type {
		case "terraform":
			t := &f.Terraform
			d.block(b, map[string]setter{
				"bin": text(&t.Bin), "version": text(&t.Version), "parallelism": whole(&t.Parallelism, 1),
				"var_files": texts(&t.VarFiles), "vars": textMap(&t.Vars),
				"lock_timeout": duration(&t.LockTimeout, 0), "plan_max_age": duration(&t.PlanMaxAge, 1), "upgrade": flag(&t.Upgrade),
				"cancel_after": duration(&t.CancelAfter, 0),
			})
		case "backend":
			d.backend(b, &f.Backend)
		case "locks":
			l := &f.Locks
			d.block(b, map[string]setter{
				"stale_after": duration(&l.StaleAfter, 1), "wait": duration(&l.Wait, 0),
				"unlock_stale": oneOf(&l.UnlockStale, "never", "approved", "proven"),
				"holder":       oneOf(&l.Holder, "required", "preferred"),
			})
		case "snapshots":
			s := &f.Snapshots
			d.block(b, map[string]setter{"keep": whole(&s.Keep, 1), "keep_days": whole(&s.KeepDays, 0), "bucket": text(&s.Bucket), "region": text(&s.Region)})
		case "guard":
			g := &f.Guard
			d.block(b, map[string]setter{
				"protect": texts(&g.Protect), "max_deletes": whole(&g.MaxDeletes, 0), "allow_delete": texts(&g.AllowDelete),
				"credentials": oneOf(&g.Credentials, "required", "preferred"),
			})
		case "hook":
			h := d.hook(b)
			if slices.ContainsFunc(f.Hooks, func(o Hook) bool { return o.Name == h.Name }) {
				d.fail(b.DefRange, "there is a hook %q already", h.Name)
			}
			f.Hooks = append(f.Hooks, h)
		case "github":
			d.block(b, map[string]setter{"comment": flag(&f.GitHub.Comment)})
		}
	}
	return f
}

// block decodes a block that has these attributes and no blocks.
func (d *decoder) block(b *hcl.Block, fields map[string]setter) {
	content, diags := b.Body.Content(&hcl.BodySchema{Attributes: schema(slices.Sorted(maps.Keys(fields)))})
	d.diags(diags)
	d.set(content.Attributes, fields)
}

func schema(names []string) (out []hcl.AttributeSchema) {
	for _, n := range names {
		out = append(out, hcl.AttributeSchema{Name: n})
	}
	return out
}

func (d *decoder) set(attrs hcl.Attributes, fields map[string]setter) {
	for _, name := range slices.SortedFunc(maps.Keys(attrs), func(a, b string) int {
		return attrs[a].Range.Start.Byte - attrs[b].Range.Start.Byte
	}) {
		expr := attrs[name].Expr
		v, err := discover.Literal(d.path, name, expr)
		if err != nil {
			d.add(err)
			continue
		}
		if v.IsNull() {
			continue
		}
		if err := fields[name](v); err != nil {
			d.fail(expr.Range(), "%s %v", name, err)
		}
	}
}

// backend decodes setup and the attributes of terraform's S3 backend, of which
// the objects may be written as blocks too.
func (d *decoder) backend(b *hcl.Block, out *Backend) {
	want := hcl.BodySchema{Attributes: append(schema(discover.Names()), hcl.AttributeSchema{Name: "setup"})}
	for _, name := range discover.ObjectNames() {
		want.Blocks = append(want.Blocks, hcl.BlockHeaderSchema{Type: name})
	}
	content, diags := b.Body.Content(&want)
	d.diags(diags)
	attrs := content.Attributes
	if setup, ok := attrs["setup"]; ok {
		d.set(hcl.Attributes{"setup": setup}, map[string]setter{"setup": flag(&out.Setup)})
		delete(attrs, "setup")
	}
	for _, inner := range content.Blocks {
		if _, twice := attrs[inner.Type]; twice {
			d.fail(inner.DefRange, "%q is set already", inner.Type)
			continue
		}
		expr, diags := discover.BlockObject(inner)
		d.diags(diags)
		if expr != nil {
			attrs[inner.Type] = &hcl.Attribute{Name: inner.Type, Expr: expr, Range: inner.DefRange, NameRange: inner.TypeRange}
		}
	}
	got, err := discover.Attributes(d.path, attrs, "")
	d.add(err)
	if len(got) > 0 {
		out.Attrs = got
	}
}

func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
func digit(r rune) bool  { return r >= '0' && r <= '9' }

func isHookName(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return !letter(r) && !digit(r) && !strings.ContainsRune("-_.", r)
	}) < 0
}

func isEnvName(s string) bool {
	return s != "" && !digit(rune(s[0])) && strings.IndexFunc(s, func(r rune) bool {
		return !letter(r) && !digit(r) && r != '_'
	}) < 0
}

func (d *decoder) hook(b *hcl.Block) Hook {
	h := Hook{Name: b.Labels[0], Line: b.DefRange.Start.Line}
	if !isHookName(h.Name) {
		d.fail(b.LabelRanges[0], "a hook's name has letters, digits, \"-\", \"_\" and \".\", 64 at most")
	}
	var before, after *string
	known := len(d.errs)
	d.block(b, map[string]setter{
		"before": oneOf(&before, stages()...), "after": oneOf(&after, stages()...),
		"command": words(&h.Command), "timeout": duration(&h.Timeout, 1), "env": textMap(&h.Env),
	})
	if len(d.errs) > known {
		return h
	}
	switch {
	case before != nil && after == nil:
		h.Before = *before
	case after != nil && before == nil:
		h.After = *after
	default:
		d.fail(b.DefRange, "a hook has either before or after, with the name of a stage: %s", strings.Join(stages(), ", "))
	}
	if len(h.Command) == 0 || h.Command[0] == "" {
		d.fail(b.DefRange, `a hook has a command, such as ["./build.sh", "argument"]`)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Env)) {
		if !isEnvName(name) {
			d.fail(b.DefRange, "%q is no name of an environment variable", name)
		}
	}
	return h
}

// setTo gives a setter that converts by as and stores the result.
func setTo[T any](to **T, as func(cty.Value) (T, error)) setter {
	return func(v cty.Value) error {
		got, err := as(v)
		if err != nil {
			return err
		}
		*to = &got
		return nil
	}
}

func text(to **string) setter { return setTo(to, asText) }

func asText(v cty.Value) (string, error) {
	s, err := asWord(v)
	if err == nil && s == "" {
		return "", errors.New("must not be empty")
	}
	return s, err
}

// asWord takes a text that may be empty, as the argument of a command may.
func asWord(v cty.Value) (string, error) {
	if v.Type() != cty.String {
		return "", errors.New("is a text in quotes")
	}
	if strings.ContainsRune(v.AsString(), 0) {
		return "", errors.New("must not have a NUL character")
	}
	return v.AsString(), nil
}

func flag(to **bool) setter {
	return setTo(to, func(v cty.Value) (bool, error) {
		if v.Type() != cty.Bool {
			return false, errors.New("is true or false, without quotes")
		}
		return v.True(), nil
	})
}

func whole(to **int, least int64) setter {
	return setTo(to, func(v cty.Value) (int, error) {
		if v.Type() != cty.Number {
			return 0, errors.New("is a number, without quotes")
		}
		n, acc := v.AsBigFloat().Int64()
		if acc != big.Exact || n < least || n > 1<<31-1 {
			return 0, fmt.Errorf("is a whole number, %d or more", least)
		}
		return int(n), nil
	})
}

func duration(to **time.Duration, least time.Duration) setter {
	return setTo(to, func(v cty.Value) (time.Duration, error) {
		s, err := asText(v)
		if err != nil {
			return 0, errors.New(`is a duration in quotes, such as "30m" or "1h30m"`)
		}
		got, err := time.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf(`is %q, which is no duration: write it such as "30m", "1h30m" or "45s"`, s)
		}
		if got < least {
			if least > 0 {
				return 0, errors.New("is a duration of more than 0")
			}
			return 0, errors.New("is a duration that is not negative")
		}
		return got, nil
	})
}

func oneOf(to **string, allowed ...string) setter {
	return setTo(to, func(v cty.Value) (string, error) {
		s, err := asText(v)
		if err != nil || !slices.Contains(allowed, s) {
			return "", fmt.Errorf("is one of %s", strings.Join(allowed, ", "))
		}
		return s, nil
	})
}

func texts(to *[]string) setter { return list(to, asText) }
func words(to *[]string) setter { return list(to, asWord) }

// list takes a list; an empty one is set, and not nil.
func list(to *[]string, as func(cty.Value) (string, error)) setter {
	return func(v cty.Value) error {
		if t := v.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
			return errors.New(`is a list of texts, such as ["a", "b"]`)
		}
		all := []string{}
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			if e.IsNull() {
				return errors.New("has an element that is null")
			}
			s, err := as(e)
			if err != nil {
				return fmt.Errorf("has an element that is not usable: it %w", err)
			}
			all = append(all, s)
		}
		*to = all
		return nil
	}
}

// textMap takes an object whose values are texts, numbers or bools.
func textMap(to *map[string]string) setter {
	return func(v cty.Value) error {
		if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
			return errors.New(`is an object, such as { name = "value" }`)
		}
		m := map[string]string{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			s, err := convert.Convert(e, cty.String)
			if err != nil || s.IsNull() {
				return fmt.Errorf("has a value that is no text: %q", k.AsString())
			}
			if strings.ContainsRune(k.AsString()+s.AsString(), 0) {
				return errors.New("must not have a NUL character")
			}
			m[k.AsString()] = s.AsString()
		}
		*to = m
		return nil
	}
}
