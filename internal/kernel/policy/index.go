package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

const (
	minHashed = 8 // rules that must share a field before it is worth a lookup
	maxFields = 8 // fields one bucket is hashed by, the fullest ones
)

// index files the rules of a set by what they name. A request meets three buckets:
// its action's, its resource type's and the common one.
type index struct {
	actions map[string]*bucket // by verb: rules that name actions
	types   map[string]*bucket // by resource type: rules that name no action
	common  *bucket
}

// filed is a rule on its way into the index.
type filed struct {
	rule *rule
	ast  *ast.Policy
	info *analysis
}

// bucket holds rules which one of its requests may match, hashed by fields.
type bucket struct {
	rest   []*rule // evaluated for every request
	fields []hashed
}

// hashed is the rules of a bucket that can match only requests with a key of theirs.
type hashed struct {
	source source
	path   []string
	rules  map[string][]*rule
}

// scopeOf returns the declared verbs that p's action scope admits; nil means all.
func (s *Schema) scopeOf(p *ast.Policy) []string {
	var named []string
	switch sc := p.Action.(type) {
	case ast.ScopeTypeEq:
		// Equality with a group matches no request: no verb has its name.
		if s.actions[string(sc.Entity.ID)] == nil {
			return []string{}
		}
		return []string{string(sc.Entity.ID)}
	case ast.ScopeTypeIn:
		named = []string{string(sc.Entity.ID)}
	case ast.ScopeTypeInSet:
		named = []string{}
		for _, e := range sc.Entities {
			named = append(named, string(e.ID))
		}
	default:
		return nil
	}
	verbs := []string{}
	for _, verb := range s.verbs {
		a := s.actions[verb]
		if slices.Contains(named, verb) || slices.ContainsFunc(a.Groups, func(g string) bool { return slices.Contains(named, g) }) {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

// resourceTypeOf returns the one type p's resource scope admits, or "".
func resourceTypeOf(p *ast.Policy) string {
	switch sc := p.Resource.(type) {
	case ast.ScopeTypeEq:
		return string(sc.Entity.Type)
	case ast.ScopeTypeIs:
		return string(sc.Type)
	case ast.ScopeTypeIsIn:
		return string(sc.Type)
	}
	return ""
}

func newIndex(s *Schema, rules []filed) index {
	byAction := map[string][]filed{}
	byType := map[string][]filed{}
	var common []filed
	for _, f := range rules {
		t := resourceTypeOf(f.ast)
		verbs := s.scopeOf(f.ast)
		for _, verb := range verbs {
			if t == "" || t == s.actions[verb].Resource {
				byAction[verb] = append(byAction[verb], f)
			}
		}
		switch {
		case verbs != nil:
		case t != "":
			byType[t] = append(byType[t], f)
		default:
			common = append(common, f)
		}
	}
	x := index{actions: map[string]*bucket{}, types: map[string]*bucket{}, common: newBucket(common, "")}
	for verb, list := range byAction {
		x.actions[verb] = newBucket(list, s.actions[verb].Resource)
	}
	for t, list := range byType {
		x.types[t] = newBucket(list, t)
	}
	return x
}

// newBucket files each rule under the test that the fewest other rules share.
func newBucket(list []filed, resourceType string) *bucket {
	chosen, load := choose(list, resourceType)
	b := &bucket{}
	at := b.openFields(load)
	for i, f := range list {
		t := chosen[i]
		if t == nil {
			b.rest = append(b.rest, f.rule)
			continue
		}
		h, ok := at[t.key]
		if !ok {
			b.rest = append(b.rest, f.rule)
			continue
		}
		slices.Sort(t.values)
		for _, v := range slices.Compact(t.values) {
			b.fields[h].rules[v] = append(b.fields[h].rules[v], f.rule)
		}
	}
	return b
}

// choose picks for each rule the test to hash it by, nil where it has none, and counts
// the rules of each field.
func choose(list []filed, resourceType string) (chosen []*test, load map[fieldKey]int) {
	type group struct {
		key   fieldKey
		value string
	}
	tests := make([][]test, len(list))
	sharing := map[group]int{}
	for i, f := range list {
		tests[i] = f.info.tests(f.ast, resourceType)
		for _, t := range tests[i] {
			for _, v := range t.values {
				sharing[group{t.key, v}]++
			}
		}
	}
	chosen, load = make([]*test, len(list)), map[fieldKey]int{}
	for i := range list {
		best := 0
		for j := range tests[i] {
			t := &tests[i][j]
			worst := 0
			for _, v := range t.values {
				worst = max(worst, sharing[group{t.key, v}])
			}
			if chosen[i] == nil || worst < best {
				chosen[i], best = t, worst
			}
		}
		if chosen[i] != nil {
			load[chosen[i].key]++
		}
	}
	return chosen, load
}

// openFields makes the bucket's hashed fields and returns where each one is.
func (b *bucket) openFields(load map[fieldKey]int) map[fieldKey]int {
	var keys []fieldKey
	for k, n := range load {
		if n >= minHashed {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y fieldKey) int {
		return cmp.Or(load[y]-load[x], int(x.source)-int(y.source), strings.Compare(x.path, y.path))
	})
	at := map[fieldKey]int{}
	for i, k := range keys[:min(len(keys), maxFields)] {
		at[k] = i
		h := hashed{source: k.source, rules: map[string][]*rule{}}
		if k.path != "" {
			h.path = strings.Split(k.path, ".")
		}
		b.fields = append(b.fields, h)
	}
	return at
}

// collect appends the rules that r, which fits the schema, may match.
func (x *index) collect(dst []*rule, r *Request) []*rule {
	dst = x.actions[r.Action].collect(dst, r)
	dst = x.types[r.Resource.Type].collect(dst, r)
	return x.common.collect(dst, r)
}

// collect appends the rules of b that r may match. A rule with several keys
// may be appended several times.
func (b *bucket) collect(dst []*rule, r *Request) []*rule {
	if b == nil {
		return dst
	}
	dst = append(dst, b.rest...)
	for i := range b.fields {
		f := &b.fields[i]
		switch f.source {
		case principalIs:
			dst = append(dst, f.rules[r.Principal.key]...)
		case memberOf:
			for _, key := range r.Principal.member {
				dst = append(dst, f.rules[key]...)
			}
		case resourceIs:
			dst = append(dst, f.rules[r.Resource.ID]...)
		case principalHas:
			dst = f.lookup(dst, r.Principal.attrs)
		case resourceHas:
			dst = f.lookup(dst, r.Resource.Attributes)
		case contextHas:
			dst = f.lookup(dst, r.Context)
		}
	}
	return dst
}

func (f *hashed) lookup(dst []*rule, rec Record) []*rule {
	switch v := lookup(rec, f.path).(type) {
	case string:
		return append(dst, f.rules[v]...)
	case []string:
		for _, e := range v {
			dst = append(dst, f.rules[e]...)
		}
	}
	return dst
}
