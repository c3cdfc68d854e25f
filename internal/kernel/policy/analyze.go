package policy

import (
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// analysis is what Compile learns from one rule's syntax.
type analysis struct {
	uses      []use             // attributes of resource and context it reads
	usesAll   bool              // it reads attributes in a way that cannot be told
	mayFail   bool              // evaluation can err although the rule fits the schema
	foreign   []types.EntityUID // entities it names whose attributes it reads
	conjuncts []ast.IsNode      // what must all be true for it to match
	nodes     int               // size of its conditions
	has       int               // `has` tests among them
	entities  int               // entities named in them
}

// use is one attribute a rule reads: root is "resource" or "context".
type use struct {
	root  string
	path  []string // empty: the whole context
	value bool     // false: only whether it is there
}

// analyze walks the conditions of p. mayFail errs on the safe side: a rule fitting
// the schema and evaluated on a request fitting the schema can err only by
// integer overflow, or through an attribute of an entity that is not there.
func analyze(p *ast.Policy) *analysis {
	a := &analysis{}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), a.visit)
		if c.Condition == ast.ConditionWhen {
			a.conjuncts = appendConjuncts(a.conjuncts, c.Body)
		}
	}
	return a
}

// appendConjuncts flattens a chain of && into its terms.
func appendConjuncts(dst []ast.IsNode, n ast.IsNode) []ast.IsNode {
	if and, ok := n.(ast.NodeTypeAnd); ok {
		return appendConjuncts(appendConjuncts(dst, and.Left), and.Right)
	}
	return append(dst, n)
}

// visit is called for every node, children after their parent. It returns false
// where the children are done with.
func (a *analysis) visit(n ast.IsNode) bool {
	a.nodes++
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		return a.access(n.Arg, string(n.Value), true)
	case ast.NodeTypeHas:
		a.has++
		return a.access(n.Arg, string(n.Value), false)
	case ast.NodeTypeVariable:
		if n.Name == "context" {
			a.uses = append(a.uses, use{root: "context", value: true})
		}
	case ast.NodeTypeAdd, ast.NodeTypeSub, ast.NodeTypeMult, ast.NodeTypeNegate, ast.NodeTypeGetTag:
		a.mayFail = true
	case ast.NodeTypeExtensionCall:
		switch n.Name {
		case "offset", "durationSince":
			a.mayFail = true
		}
	case ast.NodeValue:
		if _, ok := n.Value.(types.EntityUID); ok {
			a.entities++
		}
	}
	return true
}

// access records the attribute name of arg and reports whether arg has to be visited.
func (a *analysis) access(arg ast.IsNode, name string, value bool) bool {
	root, path, ok := pathOf(arg)
	if ok {
		a.nodes += len(path)
		if root != "principal" && root != "action" {
			a.uses = append(a.uses, use{root: root, path: append(path, name), value: value})
		}
		return false
	}
	// An attribute of some expression. It may evaluate to the resource, to the context, or
	// to an entity that is not loaded.
	a.usesAll, a.mayFail = true, true
	ast.Inspect(ast.NewNode(arg), func(n ast.IsNode) bool {
		if v, ok := n.(ast.NodeValue); ok {
			if uid, ok := v.Value.(types.EntityUID); ok {
				a.foreign = append(a.foreign, uid)
			}
		}
		return true
	})
	return true
}

// pathOf reads n as a variable followed by attribute names.
func pathOf(n ast.IsNode) (root string, path []string, ok bool) {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return string(n.Name), nil, true
	case ast.NodeTypeAccess:
		root, path, ok = pathOf(n.Arg)
		return root, append(path, string(n.Value)), ok
	}
	return "", nil, false
}

// need returns which attributes of a's resource and context the rule may read.
func (a *analysis) need(act *action) (resource, context bits) {
	if a.usesAll {
		return all, all
	}
	for _, u := range a.uses {
		sh, b := act.resource, &resource
		if u.root == "context" {
			sh, b = act.context, &context
		}
		if len(u.path) == 0 {
			b.add(0, sh.end)
			continue
		}
		f, ok := sh.find(u.path)
		if !ok {
			continue // the rule speaks of another action's attributes here, behind a test
		}
		if u.value {
			b.add(f.bit, f.end)
		} else {
			b.add(f.bit, f.bit+1)
		}
	}
	return resource, context
}

// source says which part of a request an index key is compared with.
type source uint8

const (
	principalIs source = iota // the principal's key
	memberOf                  // the keys of its roles and groups
	resourceIs                // the resource's id; its type is the bucket's
	principalHas
	resourceHas
	contextHas // an attribute at path: a string, or one of a set of strings
)

// fieldKey names what a bucket is hashed by.
type fieldKey struct {
	source source
	path   string // attribute names joined by dots
}

// test is something that must hold for a rule to match: the part of the request
// named by key is, or contains, one of values.
type test struct {
	key    fieldKey
	values []string
}

// tests returns the tests which the index can hash rule p by, in a bucket whose
// requests have resources of type resourceType ("" where it may be any).
func (a *analysis) tests(p *ast.Policy, resourceType string) []test {
	var out []test
	switch sc := p.Principal.(type) {
	case ast.ScopeTypeEq:
		out = append(out, test{fieldKey{source: principalIs}, []string{entityKey(sc.Entity)}})
	case ast.ScopeTypeIn:
		out = appendMembership(out, sc.Entity)
	case ast.ScopeTypeIsIn:
		out = appendMembership(out, sc.Entity)
	}
	if sc, ok := p.Resource.(ast.ScopeTypeEq); ok && string(sc.Entity.Type) == resourceType {
		out = append(out, test{fieldKey{source: resourceIs}, []string{string(sc.Entity.ID)}})
	}
	if a.mayFail {
		return out // skipping a condition could hide an error that comes before it
	}
	for _, c := range a.conjuncts {
		if t, ok := testOf(c, resourceType); ok {
			out = append(out, t)
		}
	}
	return out
}

// appendMembership adds `principal in e`, which is a matter of roles and groups only
// if e is one: any principal is also in itself.
func appendMembership(dst []test, e types.EntityUID) []test {
	if e.Type != roleType && e.Type != groupType {
		return dst
	}
	return append(dst, test{fieldKey{source: memberOf}, []string{entityKey(e)}})
}

// testOf recognises the conditions that can be hashed.
func testOf(n ast.IsNode, resourceType string) (test, bool) {
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		if t, ok := equality(n.Left, n.Right, resourceType); ok {
			return t, true
		}
		return equality(n.Right, n.Left, resourceType)
	case ast.NodeTypeOr:
		l, lok := testOf(n.Left, resourceType)
		r, rok := testOf(n.Right, resourceType)
		if lok && rok && l.key == r.key {
			l.values = append(l.values, r.values...)
			return l, true
		}
	case ast.NodeTypeContains: // attribute.contains("x") or ["x", "y"].contains(attribute)
		if t, ok := equality(n.Left, n.Right, resourceType); ok {
			return t, true
		}
		return membership(n.Right, n.Left)
	case ast.NodeTypeContainsAny: // attribute.containsAny(["x", "y"])
		if t, ok := membership(n.Left, n.Right); ok {
			return t, true
		}
		return membership(n.Right, n.Left)
	case ast.NodeTypeIn:
		if v, ok := n.Right.(ast.NodeValue); ok && isVariable(n.Left, "principal") {
			if e, ok := v.Value.(types.EntityUID); ok {
				if t := appendMembership(nil, e); len(t) == 1 {
					return t[0], true
				}
			}
		}
	}
	return test{}, false
}

func isVariable(n ast.IsNode, name string) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && string(v.Name) == name
}

// equality reads `path == literal`. The same test serves `path.contains(literal)`:
// looking a key up finds both the value of an attribute and the elements of one.
func equality(path, literal ast.IsNode, resourceType string) (test, bool) {
	v, ok := literal.(ast.NodeValue)
	if !ok {
		return test{}, false
	}
	switch v := v.Value.(type) {
	case types.String:
		if key, ok := attributeKey(path); ok {
			return test{key, []string{string(v)}}, true
		}
	case types.EntityUID:
		switch {
		case isVariable(path, "principal"):
			return test{fieldKey{source: principalIs}, []string{entityKey(v)}}, true
		case isVariable(path, "resource") && string(v.Type) == resourceType:
			return test{fieldKey{source: resourceIs}, []string{string(v.ID)}}, true
		}
	}
	return test{}, false
}

// membership reads a path and a set literal of strings.
func membership(path, literal ast.IsNode) (test, bool) {
	set, ok := literal.(ast.NodeTypeSet)
	if !ok {
		return test{}, false
	}
	key, ok := attributeKey(path)
	if !ok {
		return test{}, false
	}
	t := test{key: key}
	for _, e := range set.Elements {
		v, ok := e.(ast.NodeValue)
		if !ok {
			return test{}, false
		}
		s, ok := v.Value.(types.String)
		if !ok {
			return test{}, false
		}
		t.values = append(t.values, string(s))
	}
	return t, len(t.values) > 0
}

func attributeKey(n ast.IsNode) (fieldKey, bool) {
	root, path, ok := pathOf(n)
	if !ok || len(path) == 0 {
		return fieldKey{}, false
	}
	k := fieldKey{path: strings.Join(path, ".")}
	switch root {
	case "principal":
		k.source = principalHas
	case "resource":
		k.source = resourceHas
	case "context":
		k.source = contextHas
	default:
		return fieldKey{}, false
	}
	return k, true
}
