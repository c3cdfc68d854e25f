package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// Type is the type of an attribute: a [Scalar], nested [Attributes], or either
// made [Optional].
type Type interface {
	cedar() ast.IsType
}

// Scalar is a type without parts. Its text is Cedar's name for it.
type Scalar string

// The scalar types and the Go values a [Record] may hold for them.
const (
	String    Scalar = "String"      // string, valid UTF-8
	Long      Scalar = "Long"        // int or int64
	Bool      Scalar = "Bool"        // bool
	StringSet Scalar = "Set<String>" // []string; order and repetition mean nothing
	Datetime  Scalar = "datetime"    // time.Time or types.Datetime, years 0 to 9999, to the millisecond
	Decimal   Scalar = "decimal"     // types.Decimal, four digits after the point
	IPAddr    Scalar = "ipaddr"      // netip.Addr or netip.Prefix, without zone
)

func (s Scalar) cedar() ast.IsType {
	switch s {
	case String:
		return ast.String()
	case Long:
		return ast.Long()
	case Bool:
		return ast.Bool()
	case StringSet:
		return ast.Set(ast.String())
	case Datetime, Decimal, IPAddr:
		return ast.ExtensionType(s)
	}
	return nil // newShape refuses it
}

// Attributes are the named attributes of a principal, a resource, a context or a
// nested record. Names are lower-case Cedar identifiers.
type Attributes map[string]Type

func (a Attributes) cedar() ast.IsType { return a.record() }

func (a Attributes) record() ast.RecordType {
	rec := make(ast.RecordType, len(a))
	for name, t := range a {
		_, opt := t.(optional)
		rec[types.String(name)] = ast.Attribute{Type: t.cedar(), Optional: opt}
	}
	return rec
}

type optional struct{ Type }

// Optional says that an attribute may be absent. A rule must then ask `has`
// before it reads the attribute; Compile refuses one that does not.
func Optional(t Type) Type {
	if _, ok := t.(optional); ok {
		return t
	}
	return optional{t}
}

// maxAttributes bounds the attributes of one principal, resource or context
// type, nested ones and the records that hold them included.
const maxAttributes = 256

// bits is a set of attributes of one shape, by field.bit.
type bits [maxAttributes / 64]uint64

func (b *bits) add(lo, hi int) {
	for i := lo; i < hi; i++ {
		b[i>>6] |= 1 << (i & 63)
	}
}

func (b *bits) union(o *bits) {
	for i := range b {
		b[i] |= o[i]
	}
}

// any reports whether one of the bits lo..hi-1 is set.
func (b *bits) any(lo, hi int) bool {
	for i := lo; i < hi; i++ {
		if b[i>>6]&(1<<(i&63)) != 0 {
			return true
		}
	}
	return false
}

// shape is Attributes made ready for walking: fields in byte order of their
// names, numbered depth first over the whole type.
type shape struct {
	fields []field
	end    int // one past the last bit of the shape and its nested records
}

type field struct {
	name     string
	key      string // name as a JSON member, colon included
	optional bool
	scalar   Scalar // empty for a nested record
	record   *shape
	bit, end int // the field is bit; what is nested in it is bit+1..end-1
}

func newShape(attrs Attributes, first int) (*shape, error) {
	s := &shape{end: first}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if !attributeName.MatchString(name) || reservedWord[name] {
			return nil, fmt.Errorf("attribute name %q: want a lower-case Cedar identifier", name)
		}
		f := field{name: name, key: `"` + name + `":`, bit: s.end}
		t := attrs[name]
		if o, ok := t.(optional); ok {
			t, f.optional = o.Type, true
		}
		switch t := t.(type) {
		case Scalar:
			if t.cedar() == nil {
				return nil, fmt.Errorf("attribute %s: unknown type %q", name, t)
			}
			f.scalar, f.end = t, f.bit+1
		case Attributes:
			sub, err := newShape(t, f.bit+1)
			if err != nil {
				return nil, fmt.Errorf("attribute %s: %w", name, err)
			}
			f.record, f.end = sub, sub.end
		default:
			return nil, fmt.Errorf("attribute %s has no type", name)
		}
		s.end = f.end
		s.fields = append(s.fields, f)
	}
	if s.end > maxAttributes {
		return nil, fmt.Errorf("more than %d attributes", maxAttributes)
	}
	return s, nil
}

// find returns the field at the end of path, or false where the shape has none.
func (s *shape) find(path []string) (*field, bool) {
	for i, name := range path {
		at, ok := slices.BinarySearchFunc(s.fields, name, func(f field, name string) int {
			switch {
			case f.name < name:
				return -1
			case f.name > name:
				return 1
			}
			return 0
		})
		if !ok {
			return nil, false
		}
		f := &s.fields[at]
		if i == len(path)-1 {
			return f, true
		}
		if s = f.record; s == nil {
			return nil, false
		}
	}
	return nil, false
}

// names lists the shape's top attribute names, sorted.
func (s *shape) names() []string {
	out := make([]string, len(s.fields))
	for i := range s.fields {
		out[i] = s.fields[i].name
	}
	return out
}
