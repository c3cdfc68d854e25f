package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
)

// Record holds attribute values by name, or a nested record. The Go types it may
// hold are listed at [Scalar]; any other makes the request one that does not
// fit the schema, which is denied. A Record must not change once it is
// part of a request or principal.
type Record map[string]any

// check reports the first way in which rec does not fit the shape.
func (s *shape) check(rec Record) error {
	found := 0
	for i := range s.fields {
		f := &s.fields[i]
		v, ok := rec[f.name]
		if !ok {
			if f.optional {
				continue
			}
			return fmt.Errorf("attribute %s is missing", f.name)
		}
		found++
		if err := f.check(v); err != nil {
			return err
		}
	}
	if found == len(rec) {
		return nil
	}
	for name := range rec {
		if _, ok := s.find([]string{name}); !ok {
			return fmt.Errorf("attribute %q is not declared", name)
		}
	}
	return nil
}

func (f *field) check(v any) error {
	if f.record != nil {
		rec, ok := v.(Record)
		if !ok {
			return fmt.Errorf("attribute %s is %T, want a record", f.name, v)
		}
		if err := f.record.check(rec); err != nil {
			return fmt.Errorf("in %s: %w", f.name, err)
		}
		return nil
	}
	got, err := scalarOf(v)
	if err != nil {
		return fmt.Errorf("attribute %s: %w", f.name, err)
	}
	if got != f.scalar {
		return fmt.Errorf("attribute %s is %s, want %s", f.name, got, f.scalar)
	}
	return nil
}

// scalarOf names the Cedar type of a Go value, or says why it has none.
func scalarOf(v any) (Scalar, error) {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return "", fmt.Errorf("not valid UTF-8")
		}
		return String, nil
	case bool:
		return Bool, nil
	case int, int64:
		return Long, nil
	case []string:
		for _, e := range v {
			if !utf8.ValidString(e) {
				return "", fmt.Errorf("an element is not valid UTF-8")
			}
		}
		return StringSet, nil
	case time.Time:
		return datetimeScalar(v)
	case types.Datetime:
		return datetimeScalar(v.Time())
	case types.Decimal:
		return Decimal, nil
	case netip.Addr:
		if !v.IsValid() || v.Zone() != "" {
			return "", fmt.Errorf("address %v has no Cedar form", v)
		}
		return IPAddr, nil
	case netip.Prefix:
		if !v.IsValid() || v.Addr().Is4In6() {
			return "", fmt.Errorf("address range %v has no Cedar form", v)
		}
		return IPAddr, nil
	}
	return "", fmt.Errorf("a Go %T has no Cedar form", v)
}

// datetimeScalar keeps datetimes to the years that RFC 3339 can write.
func datetimeScalar(t time.Time) (Scalar, error) {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return "", fmt.Errorf("year %d is outside 0 to 9999", y)
	}
	return Datetime, nil
}

// projector converts records to Cedar. Cedar-go copies the map it makes a record of, so
// one map for each depth serves all conversions.
type projector struct {
	maps  []types.RecordMap
	depth int
}

// project converts those attributes of rec which are in need. rec has passed the
// check of s.
func (p *projector) project(s *shape, rec Record, need *bits) types.Record {
	if !need.any(0, s.end) {
		return types.Record{}
	}
	return p.record(s, rec, need)
}

func (p *projector) record(s *shape, rec Record, need *bits) types.Record {
	if p.depth == len(p.maps) {
		p.maps = append(p.maps, types.RecordMap{})
	}
	m := p.maps[p.depth]
	p.depth++
	for i := range s.fields {
		f := &s.fields[i]
		if !need.any(f.bit, f.end) {
			continue
		}
		v, ok := rec[f.name]
		if !ok {
			continue
		}
		if f.record != nil {
			m[types.String(f.name)] = p.record(f.record, v.(Record), need)
			continue
		}
		m[types.String(f.name)] = toCedar(v)
	}
	p.depth--
	out := types.NewRecord(m)
	clear(m)
	return out
}

// all is the need of every attribute.
var all = func() (b bits) {
	b.add(0, maxAttributes)
	return b
}()

// toCedar converts a value that has passed check.
func toCedar(v any) types.Value {
	switch v := v.(type) {
	case string:
		return types.String(v)
	case bool:
		return types.Boolean(v)
	case int:
		return types.Long(v)
	case int64:
		return types.Long(v)
	case []string:
		elems := make([]types.Value, len(v))
		for i, e := range v {
			elems[i] = types.String(e)
		}
		return types.NewSet(elems...)
	case time.Time:
		return types.NewDatetime(v)
	case types.Datetime:
		return v
	case types.Decimal:
		return v
	case netip.Addr:
		v = v.Unmap() // ::ffff:192.0.2.1 as a listener reports it is 192.0.2.1; Cedar cannot write the former
		return types.IPAddr(netip.PrefixFrom(v, v.BitLen()))
	case netip.Prefix:
		return types.IPAddr(v)
	}
	panic(fmt.Sprintf("policy: a %T passed the check of its shape", v)) // check and toCedar disagree: our bug
}

// lookup follows path into rec and returns nil where it ends early.
func lookup(rec Record, path []string) any {
	for len(path) > 1 {
		sub, ok := rec[path[0]].(Record)
		if !ok {
			return nil
		}
		rec, path = sub, path[1:]
	}
	return rec[path[0]]
}

// sortedSet returns v sorted and without repetition, v itself if it already is.
func sortedSet(v []string) []string {
	for i := 1; i < len(v); i++ {
		if v[i-1] >= v[i] {
			v = slices.Clone(v)
			slices.Sort(v)
			return slices.Compact(v)
		}
	}
	return v
}
