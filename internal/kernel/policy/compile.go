package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"provost.dev/provost/internal/kernel"
)

// Set is a compiled policy text. It is immutable and safe for concurrent use.
type Set struct {
	schema                        *Schema
	name, version, source, digest string

	rules   []*rule // in the order of the text
	permits int     // how many of them permit
	index   index
	needs   map[string]need // by verb
}

// rule is one Cedar policy of a set.
type rule struct {
	id        string
	qualified string // id as a tenant's rule: "set/id"
	set       *Set
	permit    bool
	policy    *cedar.Policy // without the scopes its buckets prove

	reason, fix, class string
	line               int
}

// need is what the rules of a set read of the requests for one action.
type need struct{ resource, context bits }

// Empty is the set without rules. As a tenant's set it narrows nothing; as
// the platform's it permits nothing.
var Empty = &Set{name: "empty", digest: digest(nil), index: index{common: &bucket{}}}

// setName is also the form of rule ids. A slash cannot be part of either: it joins them.
var setName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Compile reads a policy text against the schema. Every rule must carry an
// @id that is unique in the text; @reason, @fix and @class are told to who is
// refused by it. All problems found are in the error, a kernel.Invalid whose
// cause is a [*SourceError].
//
// name and version say what the text is known as; rule ids of a tenant's set
// are shown with the name before them.
func (s *Schema) Compile(name, version, source string) (*Set, error) {
	if !setName.MatchString(name) {
		return nil, kernel.InvalidField("name", "policy name %q: want up to 100 letters, digits, '.', '_' and '-'", name)
	}
	source = canonicalSource(source)
	c := &compiler{schema: s, source: source}
	rules := c.compile()
	if len(c.problems) > 0 {
		return nil, sourceError(name, c.problems)
	}

	set := &Set{schema: s, name: name, version: version, source: source, digest: digest([]byte(source)), needs: map[string]need{}}
	for _, f := range rules {
		f.rule.set = set
		f.rule.policy = residual(f.ast, set.digest)
		f.rule.qualified = name + "/" + f.rule.id
		set.rules = append(set.rules, f.rule)
		if f.rule.permit {
			set.permits++
		}
		set.addNeeds(f)
	}
	set.index = newIndex(s, rules)
	return set, nil
}

// Check returns all problems of a policy text, sorted by place; none means that
// Compile accepts it.
func (s *Schema) Check(source string) []Problem {
	c := &compiler{schema: s, source: canonicalSource(source)}
	c.compile()
	return c.problems
}

// canonicalSource makes texts equal which differ in line ends only.
func canonicalSource(src string) string {
	src = strings.ReplaceAll(src, "\r\n", "\n")
	if src != "" && !strings.HasSuffix(src, "\n") {
		src += "\n"
	}
	return src
}

func (set *Set) addNeeds(f filed) {
	verbs := set.schema.scopeOf(f.ast)
	if verbs == nil {
		verbs = set.schema.verbs
	}
	for _, verb := range verbs {
		resource, context := f.info.need(set.schema.actions[verb])
		n := set.needs[verb]
		n.resource.union(&resource)
		n.context.union(&context)
		set.needs[verb] = n
	}
}

// compiler turns one text into rules, gathering problems as it goes.
type compiler struct {
	schema     *Schema
	source     string
	statements []statement
	problems   []Problem
}

func (c *compiler) report(p Problem) {
	if len(c.problems) < maxProblems && !slices.Contains(c.problems, p) {
		c.problems = append(c.problems, p)
	}
}

func (c *compiler) compile() []filed {
	defer func() { slices.SortStableFunc(c.problems, Problem.compare) }()
	if len(c.source) > MaxSource {
		c.report(Problem{Line: 1, Column: 1, Message: fmt.Sprintf("%d bytes, at most %d are allowed in one policy", len(c.source), MaxSource)})
		return nil
	}
	if c.statements, c.problems = scan(c.source); len(c.problems) > 0 {
		return nil
	}
	list, err := cedar.NewPolicyListFromBytes("", []byte(c.source))
	if err != nil {
		c.syntax(err)
		return nil
	}
	if len(list) != len(c.statements) {
		// The parser saw other rules than the scanner which checked its limits.
		c.report(Problem{Line: 1, Column: 1, Message: "this text cannot be read reliably; remove unusual characters"})
		return nil
	}

	rules := make([]filed, 0, len(list))
	for i, p := range list {
		a := (*ast.Policy)(p.AST())
		f := filed{rule: c.annotated(i, a), ast: a, info: analyze(a)}
		rules = append(rules, f)
	}
	c.uniqueIDs(rules)
	c.validate(rules)
	if len(c.problems) > 0 {
		return nil
	}
	return rules
}

// residual is p without the scopes which the index proves before it hands the rule
// out: the action, and the type of the resource. See newIndex. The file of its
// position is the digest of its set.
func residual(p *ast.Policy, setDigest string) *cedar.Policy {
	r := *p
	r.Position.Filename = setDigest
	r.Action = ast.ScopeTypeAll{}
	if _, ok := r.Resource.(ast.ScopeTypeIs); ok {
		r.Resource = ast.ScopeTypeAll{}
	}
	return cedar.NewPolicyFromAST((*cedarast.Policy)(&r))
}

// annotated reads the annotations of rule i.
func (c *compiler) annotated(i int, p *ast.Policy) *rule {
	at := c.statements[i].first()
	r := &rule{permit: p.Effect == ast.EffectPermit, line: at.line}
	for _, a := range p.Annotations {
		switch v := string(a.Value); a.Key {
		case "id":
			r.id = v
		case "reason":
			r.reason = v
		case "fix":
			r.fix = v
		case "class":
			r.class = v
		}
	}
	problem := Problem{Line: at.line, Column: at.column, Rule: r.id}
	switch {
	case r.id == "":
		problem.Message = `this rule has no id; write @id("a-short-name") before it`
	case !setName.MatchString(r.id):
		problem.Message = fmt.Sprintf("id %q: want up to 100 letters, digits, '.', '_' and '-'", r.id)
	case reservedRule(r.id):
		problem.Message = fmt.Sprintf("id %q is reserved; choose another", r.id)
	case r.class != "" && !slices.Contains(refusalClasses, r.class):
		problem.Message = fmt.Sprintf("@class(%q): want one of %s", r.class, strings.Join(refusalClasses, ", "))
	case len(r.reason) > maxNote || len(r.fix) > maxNote:
		problem.Message = fmt.Sprintf("@reason and @fix may have %d bytes each", maxNote)
	default:
		return r
	}
	c.report(problem)
	return r
}

func (c *compiler) uniqueIDs(rules []filed) {
	lines := map[string]int{}
	for i, f := range rules {
		id := f.rule.id
		if id == "" {
			continue
		}
		if line, ok := lines[id]; ok {
			at := c.statements[i].first()
			c.report(Problem{Line: at.line, Column: at.column, Rule: id,
				Message: fmt.Sprintf("id %q is taken by the rule in line %d; ids are unique in a policy", id, line)})
			continue
		}
		lines[id] = f.rule.line
	}
}

// Name and Version are what the text is known as.
func (set *Set) Name() string { return set.name }

// Version is empty for sets which have none.
func (set *Set) Version() string { return set.version }

// Digest is "sha256:" and the hex digest of Source.
func (set *Set) Digest() string { return set.digest }

// Source is the text the set was compiled from, with \n for line ends and one at the end.
func (set *Set) Source() string { return set.source }

// Rules describes the rules in the order of the text.
func (set *Set) Rules() []Rule {
	out := make([]Rule, len(set.rules))
	for i, r := range set.rules {
		out[i] = r.describe(r.id)
	}
	return out
}

// Problem is one thing wrong with a policy text.
type Problem struct {
	Line, Column int    // from 1; columns count characters
	Rule         string // the @id of the rule, if it has one
	Message      string // what is wrong and what would be right
}

func (p Problem) String() string {
	if p.Rule == "" {
		return fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message)
	}
	return fmt.Sprintf("%d:%d: rule %s: %s", p.Line, p.Column, p.Rule, p.Message)
}

func (p Problem) compare(o Problem) int {
	return cmp.Or(p.Line-o.Line, p.Column-o.Column)
}

// SourceError carries every problem of a policy text.
type SourceError struct {
	Name     string
	Problems []Problem // at least one
}

func (e *SourceError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.Name + ":" + p.String()
	}
	return strings.Join(lines, "\n")
}

func sourceError(name string, problems []Problem) error {
	msg := fmt.Sprintf("policy %s, %s", name, problems[0])
	if more := len(problems) - 1; more > 0 {
		msg += fmt.Sprintf(" (and %d more)", more)
	}
	return &kernel.Error{Kind: kernel.Invalid, Code: "POLICY_INVALID", Field: "source", Msg: msg,
		Err: &SourceError{Name: name, Problems: problems}}
}
