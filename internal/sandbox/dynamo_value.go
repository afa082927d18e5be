package sandbox

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attr is a DynamoDB attribute value. Type is "S", "N", "B", "BOOL", "NULL",
// "M", "L", "SS", "NS" or "BS"; numbers are kept in their canonical form, so
// that equal numbers are equal strings.
type attr struct {
	Type string
	Str  string          // S, N and B (the bytes)
	Bool bool            // BOOL
	Map  map[string]attr // M
	List []attr          // L
	Set  []string        // SS, NS and BS, sorted
}

// item is a DynamoDB item.
type item map[string]attr

const (
	maxItem  = 400 << 10 // bytes
	maxDepth = 32
)

func (a attr) MarshalJSON() ([]byte, error) {
	var v any
	switch a.Type {
	case "S", "N":
		v = a.Str
	case "B":
		v = []byte(a.Str)
	case "BOOL":
		v = a.Bool
	case "NULL":
		v = true
	case "M":
		if v = a.Map; a.Map == nil {
			v = map[string]attr{}
		}
	case "L":
		if v = a.List; a.List == nil {
			v = []attr{}
		}
	case "SS", "NS":
		v = a.Set
	case "BS":
		set := make([][]byte, len(a.Set))
		for i, s := range a.Set {
			set[i] = []byte(s)
		}
		v = set
	default:
		return nil, fmt.Errorf("attribute of type %q", a.Type)
	}
	return json.Marshal(map[string]any{a.Type: v})
}

// errValue is what is wrong with a value that a client sent.
type errValue string

func (e errValue) Error() string { return string(e) }

func (a *attr) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil || len(raw) != 1 {
		return errValue("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
	}
	for t, v := range raw {
		a.Type = t
		bad := errValue("Supplied AttributeValue has a value that does not fit its type " + t)
		if string(v) == "null" {
			return bad
		}
		switch t {
		case "S":
			if json.Unmarshal(v, &a.Str) != nil {
				return bad
			}
		case "N":
			if json.Unmarshal(v, &a.Str) != nil {
				return bad
			}
			n, err := parseNumber(a.Str)
			if err != nil {
				return err
			}
			a.Str = n.String()
		case "B":
			var b []byte
			if json.Unmarshal(v, &b) != nil {
				return bad
			}
			a.Str = string(b)
		case "BOOL":
			if json.Unmarshal(v, &a.Bool) != nil {
				return bad
			}
		case "NULL":
			var b bool
			if json.Unmarshal(v, &b) != nil || !b {
				return errValue("One or more parameter values were invalid: Null attribute value types must have the value of true")
			}
		case "M":
			if err := json.Unmarshal(v, &a.Map); err != nil {
				return asErrValue(err, bad)
			}
		case "L":
			if err := json.Unmarshal(v, &a.List); err != nil {
				return asErrValue(err, bad)
			}
		case "SS", "NS", "BS":
			if json.Unmarshal(v, &a.Set) != nil {
				return bad
			}
			for i, s := range a.Set {
				switch t {
				case "NS":
					n, err := parseNumber(s)
					if err != nil {
						return err
					}
					a.Set[i] = n.String()
				case "BS":
					b, err := base64.StdEncoding.DecodeString(s)
					if err != nil {
						return bad
					}
					a.Set[i] = string(b)
				}
			}
			slices.Sort(a.Set)
			if len(a.Set) == 0 {
				return errValue("One or more parameter values were invalid: An string set  may not be empty")
			}
			if len(slices.Compact(slices.Clone(a.Set))) != len(a.Set) {
				return errValue("One or more parameter values were invalid: Input collection contains duplicates.")
			}
		default:
			return errValue("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
		}
	}
	return nil
}

func asErrValue(err error, other errValue) error {
	var e errValue
	if errors.As(err, &e) {
		return e
	}
	return other
}

// size is what DynamoDB counts, in bytes, nearly.
func (a attr) size() int {
	n := len(a.Str) + 1
	if a.Type == "N" {
		n = len(a.Str)/2 + 1
	}
	for k, v := range a.Map {
		n += len(k) + v.size() + 1
	}
	for _, v := range a.List {
		n += v.size() + 1
	}
	for _, s := range a.Set {
		n += len(s)
	}
	return n
}

func (it item) size() int {
	n := 0
	for k, v := range it {
		n += len(k) + v.size()
	}
	return n
}

func (a attr) depth() int {
	d := 0
	for _, v := range a.Map {
		d = max(d, v.depth())
	}
	for _, v := range a.List {
		d = max(d, v.depth())
	}
	return d + 1
}

func (a attr) equal(b attr) bool {
	return a.Type == b.Type && a.Str == b.Str && a.Bool == b.Bool && slices.Equal(a.Set, b.Set) &&
		slices.EqualFunc(a.List, b.List, attr.equal) && equalMaps(a.Map, b.Map)
}

func equalMaps(a, b map[string]attr) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || !v.equal(w) {
			return false
		}
	}
	return true
}

// compare orders two values of one of the types S, N and B; ok is false for
// others, and for two types.
func (a attr) compare(b attr) (c int, ok bool) {
	if a.Type != b.Type {
		return 0, false
	}
	switch a.Type {
	case "S", "B":
		return strings.Compare(a.Str, b.Str), true
	case "N":
		x, err1 := parseNumber(a.Str)
		y, err2 := parseNumber(b.Str)
		return x.cmp(y), err1 == nil && err2 == nil
	}
	return 0, false
}

// number is coef × 10^exp; coef has no trailing zero, and zero is 0 × 10^0.
type number struct {
	coef *big.Int
	exp  int
}

const notANumber = errValue("A value provided cannot be converted into a number")

// parseNumber reads a number within DynamoDB's bounds: 38 digits, exponents
// from -130 to 125.
func parseNumber(s string) (number, error) {
	if len(s) > 500 {
		return number{}, notANumber
	}
	mantissa, exp := strings.TrimSpace(s), 0
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		e, err := strconv.Atoi(mantissa[i+1:])
		if err != nil || e > 1000 || e < -1000 {
			return number{}, notANumber
		}
		mantissa, exp = mantissa[:i], e
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole, "+-")
	if len(whole)-len(digits) > 1 || strings.Trim(digits+frac, "0123456789") != "" || digits+frac == "" {
		return number{}, notANumber
	}
	coef, _ := new(big.Int).SetString(digits+frac, 10)
	if strings.HasPrefix(whole, "-") {
		coef.Neg(coef)
	}
	n := number{coef, exp - len(frac)}.normal()
	text := strings.TrimPrefix(n.coef.String(), "-")
	switch top := n.exp + len(text) - 1; {
	case len(text) > 38:
		return number{}, errValue("Attempting to store more than 38 significant digits in a Number")
	case top > 125:
		return number{}, errValue("Number overflow. Attempting to store a number with magnitude larger than supported range")
	case top < -130:
		return number{}, errValue("Number underflow. Attempting to store a number with magnitude smaller than supported range")
	}
	return n, nil
}

func (n number) normal() number {
	if n.coef.Sign() == 0 {
		return number{new(big.Int), 0}
	}
	text := n.coef.String()
	short := strings.TrimRight(text, "0")
	coef, _ := new(big.Int).SetString(short, 10)
	return number{coef, n.exp + len(text) - len(short)}
}

// String is the canonical form: plain decimal.
func (n number) String() string {
	text := strings.TrimPrefix(n.coef.String(), "-")
	switch {
	case n.exp >= 0:
		text += strings.Repeat("0", n.exp)
	case len(text) > -n.exp:
		text = text[:len(text)+n.exp] + "." + text[len(text)+n.exp:]
	default:
		text = "0." + strings.Repeat("0", -n.exp-len(text)) + text
	}
	if n.coef.Sign() < 0 {
		return "-" + text
	}
	return text
}

// align brings two numbers to one exponent.
func align(a, b number) (x, y *big.Int, exp int) {
	exp = min(a.exp, b.exp)
	scale := func(n number) *big.Int {
		f := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.exp-exp)), nil)
		return f.Mul(f, n.coef)
	}
	return scale(a), scale(b), exp
}

func (n number) cmp(m number) int {
	if n.coef == nil || m.coef == nil {
		return 0
	}
	x, y, _ := align(n, m)
	return x.Cmp(y)
}

// add returns a + b, or a - b, of two attributes of type N.
func addNumbers(a, b attr, minus bool) (attr, error) {
	n, err1 := parseNumber(a.Str)
	m, err2 := parseNumber(b.Str)
	if err := errors.Join(err1, err2); err != nil {
		return attr{}, err
	}
	x, y, exp := align(n, m)
	if minus {
		y.Neg(y)
	}
	sum, err := parseNumber(number{x.Add(x, y), exp}.normal().String())
	if err != nil {
		return attr{}, err
	}
	return attr{Type: "N", Str: sum.String()}, nil
}

// sortKey encodes a key value so that the encodings of one type sort as the
// values do.
func (a attr) sortKey() []byte {
	if a.Type != "N" {
		return []byte(a.Str)
	}
	n, err := parseNumber(a.Str)
	if err != nil {
		return nil // was checked when it came in
	}
	// Sign, exponent of the first digit, digits; complemented below zero.
	text := strings.TrimPrefix(n.coef.String(), "-")
	b := binary.BigEndian.AppendUint16([]byte{1}, uint16(n.exp+len(text)+1000))
	b = append(b, text...)
	switch n.coef.Sign() {
	case 0:
		return []byte{1}
	case 1:
		b[0] = 2
		return b
	}
	for i := range b {
		b[i] = ^b[i]
	}
	// A shorter number is nearer to zero: it must come after the longer one.
	b[0] = 0
	return append(b, 0xff)
}

// itemKey encodes the primary key of an item: hash keys apart, range keys in
// order.
func itemKey(hash attr, rng *attr) []byte {
	h := hash.sortKey()
	k := binary.BigEndian.AppendUint16(nil, uint16(len(h)))
	k = append(k, h...)
	if rng != nil {
		k = append(k, rng.sortKey()...)
	}
	return k
}

// contains is the function of that name in expressions.
func (a attr) contains(b attr) bool {
	switch a.Type {
	case "S":
		return b.Type == "S" && strings.Contains(a.Str, b.Str)
	case "B":
		return b.Type == "B" && bytes.Contains([]byte(a.Str), []byte(b.Str))
	case "SS", "NS", "BS":
		return b.Type == a.Type[:1] && slices.Contains(a.Set, b.Str)
	case "L":
		return slices.ContainsFunc(a.List, b.equal)
	}
	return false
}

// length is the function size in expressions; -1 where a type has none.
func (a attr) length() int {
	switch a.Type {
	case "S":
		return utf8.RuneCountInString(a.Str)
	case "B":
		return len(a.Str)
	case "SS", "NS", "BS":
		return len(a.Set)
	case "L":
		return len(a.List)
	case "M":
		return len(a.Map)
	}
	return -1
}
