package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// maxCheckWork bounds what type checking one text may cost, in units of about 0.1 µs. The checker
// visits a rule once for each action and kind of principal it is for, compares `has` tests
// with each other on the way, and action literals with all actions.
const maxCheckWork = 20_000_000

// validate checks rules against the schema.
func (c *compiler) validate(rules []filed) {
	work := 0
	for i, f := range rules {
		if len(c.problems) >= maxProblems {
			return
		}
		at := c.statements[i].first()
		if work += c.work(f); work > maxCheckWork {
			c.report(Problem{Line: at.line, Column: at.column, Rule: f.rule.id,
				Message: "from here on the policy is too large to check; name the actions each rule is for, or split the policy"})
			return
		}
		for _, uid := range f.info.foreign {
			c.reportAt(i, f, unreadable(uid.String()), string(uid.ID))
		}
		if err := c.schema.validatorFor(f.ast).Policy("", f.ast); err != nil {
			c.mistyped(i, f, flatten(err))
		}
	}
}

// validatorFor returns the validator that knows just the actions rule p can be for, if they
// share one resource type. It finds the same as the one that knows all, in less time: each
// prepares all the actions it knows for each rule it is given.
func (s *Schema) validatorFor(p *ast.Policy) *validate.Validator {
	t, verbs := resourceTypeOf(p), s.scopeOf(p)
	if _, open := p.Resource.(ast.ScopeTypeAll); open && verbs == nil && len(p.Conditions) == 0 && len(s.verbs) > 0 {
		verbs = s.verbs[:1] // just a principal to check, and any kind may ask for any action
	}
	for _, verb := range verbs {
		if r := s.actions[verb].Resource; t == "" {
			t = r
		} else if t != r {
			return s.validator
		}
	}
	if v := s.validators[t]; v != nil {
		return v
	}
	return s.validator
}

func (c *compiler) work(f filed) int {
	verbs := len(c.schema.verbs)
	envs := verbs
	if named := c.schema.scopeOf(f.ast); named != nil {
		envs = len(named)
	}
	has := f.info.has
	return verbs + len(principalTypes)*envs*(f.info.nodes+f.info.entities*verbs*10+has*has*has)
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

// The messages of cedar-go's validator that can be said better here. A test holds them
// to its wording; one that stops matching is passed on as it is.
var (
	noAttribute    = regexp.MustCompile("^attribute `(.+)` on entity type `(.+)` not found$")
	noContext      = regexp.MustCompile("^attribute `(.+)` in context for Action::\"(.+)\" not found$")
	unsafeAccess   = regexp.MustCompile("^unable to guarantee safety of access to optional attribute `(.+)` (?:on|in) .+$")
	unknownAction  = regexp.MustCompile("^unrecognized action `Action::\"(.+)\"`$")
	unknownType    = regexp.MustCompile("^unrecognized entity type `(.+)`$")
	wrongType      = regexp.MustCompile("^unexpected type: expected (.+) but saw (.+)$")
	notApplicable  = "unable to find an applicable action given the policy scope constraints"
	internalNaming = strings.NewReplacer("__cedar::internal::AnyEntity", "an entity",
		"__cedar::internal::OpenRecord{}", "a record", "Set<__cedar::internal::Any>", "a set")
)

// mistyped reports what the validator found wrong with rule i.
func (c *compiler) mistyped(i int, f filed, errs []error) {
	lacking := map[string][]string{} // attribute → resource types without it
	for _, err := range errs {
		if m := noAttribute.FindStringSubmatch(err.Error()); m != nil && !slices.Contains(lacking[m[1]], m[2]) {
			lacking[m[1]] = append(lacking[m[1]], m[2])
		}
	}
	unknown := slices.ContainsFunc(errs, func(err error) bool {
		return unknownAction.MatchString(err.Error()) || unknownType.MatchString(err.Error())
	})
	for _, err := range errs {
		msg := err.Error()
		if msg == notApplicable && unknown {
			continue // follows from the unknown name
		}
		if m := noAttribute.FindStringSubmatch(msg); m != nil {
			slices.Sort(lacking[m[1]])
			c.reportAt(i, f, c.lacks(m[1], lacking[m[1]]), lastName(m[1]))
			continue
		}
		text, name := c.reword(f, msg)
		c.reportAt(i, f, text, name)
	}
}

// reword says a validator message in our words, and which name of the rule it is about.
func (c *compiler) reword(f filed, msg string) (text, name string) {
	if m := noContext.FindStringSubmatch(msg); m != nil {
		text := fmt.Sprintf("the context of %s has no attribute %s", m[2], m[1])
		if a := c.schema.actions[m[2]]; a != nil {
			text += has(a.context.names()) + suggest(m[1], a.context.names())
		}
		return text, lastName(m[1])
	}
	if m := unsafeAccess.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("attribute %s may be absent; test `has %s` first, joined with &&", m[1], m[1]), lastName(m[1])
	}
	if m := unknownAction.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("unknown action %q", m[1]) + suggest(m[1], append(slices.Clone(c.schema.verbs), c.schema.groups...)), m[1]
	}
	if m := unknownType.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("unknown entity type %s", m[1]) + suggest(m[1], c.schema.typeNames()), m[1]
	}
	if msg == notApplicable {
		return c.inapplicable(f), ""
	}
	if m := wrongType.FindStringSubmatch(msg); m != nil {
		return internalNaming.Replace(fmt.Sprintf("type error: want %s, got %s", m[1], m[2])), ""
	}
	return internalNaming.Replace(msg), ""
}

// lacks words that some types lack an attribute.
func (c *compiler) lacks(attr string, types []string) string {
	if len(types) > 1 {
		return fmt.Sprintf("attribute %s is not one that %s have; limit the rule to a type that has it, as in `resource is Workload`",
			attr, list(types))
	}
	sh, owner := c.schema.resources[types[0]], "a "+types[0]
	if slices.Contains(principalTypes, types[0]) {
		sh, owner = c.schema.principal, "a principal"
	}
	text := fmt.Sprintf("%s has no attribute %s", owner, attr)
	if sh == nil || strings.ContainsAny(attr, ".[") {
		return text
	}
	return text + has(sh.names()) + suggest(attr, sh.names())
}

func (c *compiler) inapplicable(f filed) string {
	verbs, t := c.schema.scopeOf(f.ast), resourceTypeOf(f.ast)
	if len(verbs) == 1 && t != "" {
		return fmt.Sprintf("this rule can never match: %s applies to a %s, not to a %s", verbs[0], c.schema.actions[verbs[0]].Resource, t)
	}
	return "this rule can never match: no action applies to its principal and resource"
}

func (s *Schema) typeNames() []string {
	out := append([]string{roleType, groupType}, principalTypes...)
	for name := range s.resources {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// reportAt reports a problem of rule i where name first stands in it, or at its start.
func (c *compiler) reportAt(i int, f filed, msg, name string) {
	at := c.statements[i].first()
	for _, t := range c.statements[i].tokens {
		if name != "" && (t.kind == word || t.kind == text) && t.value() == name {
			at = t
			break
		}
	}
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + " …"
	}
	c.report(Problem{Line: at.line, Column: at.column, Rule: f.rule.id, Message: msg})
}

// lastName is the attribute at the end of a path such as a.b or a["b"].
func lastName(path string) string {
	path = strings.TrimSuffix(path, `"]`)
	return path[strings.LastIndexAny(path, `."`)+1:]
}

func has(names []string) string {
	if len(names) == 0 {
		return "; it has none"
	}
	return "; it has " + list(names)
}

func list(names []string) string {
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// suggest names the known word nearest to a misspelt one.
func suggest(got string, known []string) string {
	best, at := 1+len(got)/3, ""
	for _, k := range known {
		if d := distance(strings.ToLower(got), strings.ToLower(k)); d < best || d == best && at == "" {
			best, at = d, k
		}
	}
	if at == "" || at == got {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", at)
}

// distance is the number of single-character edits between two words.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// syntax reports why the text does not parse: one problem for each rule that
// does not. all is the error for the whole text, used if every rule parses alone.
func (c *compiler) syntax(all error) {
	for _, st := range c.statements {
		first, last := st.first(), st.tokens[len(st.tokens)-1]
		text := c.source[first.offset : last.offset+len(last.text)]
		if _, err := cedar.NewPolicyListFromBytes("", []byte(text)); err != nil {
			c.report(st.syntaxProblem(err))
		}
	}
	if len(c.problems) == 0 {
		c.report(Problem{Line: 1, Column: 1, Message: all.Error()})
	}
}

var (
	parseError  = regexp.MustCompile(`(?s)^parser error: parse error at <input>:(\d+):(\d+) ".*?": (.*)$`)
	exactError  = regexp.MustCompile(`(?s)^exact got (.*) want (.*)$`)
	effectError = regexp.MustCompile(`(?s)^unexpected effect: (.*)$`)
)

// syntaxProblem words a parse error of the statement taken alone. The parser has mostly stepped
// past the token it complains of, and reports where it stands.
func (st statement) syntaxProblem(err error) Problem {
	first := st.first()
	m := parseError.FindStringSubmatch(err.Error())
	if m == nil {
		msg := strings.TrimPrefix(err.Error(), "parser error: ")
		return Problem{Line: first.line, Column: first.column, Message: msg}
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	if line == 1 {
		column += first.column - 1
	}
	line += first.line - 1
	at := len(st.tokens) // the end, unless a token stands there
	for i, t := range st.tokens {
		if t.line == line && t.column == column {
			at = i
			break
		}
	}
	stepped := !strings.HasPrefix(m[3], "got ") && !strings.HasPrefix(m[3], "`")
	if at > 0 && (stepped || at == len(st.tokens)) {
		at--
	}
	t := st.tokens[at]
	return Problem{Line: t.line, Column: t.column, Message: syntaxMessage(m[3], t)}
}

func syntaxMessage(msg string, t token) string {
	if m := exactError.FindStringSubmatch(msg); m != nil {
		if m[1] == "" {
			return fmt.Sprintf("the text ends here; want %q", m[2])
		}
		return fmt.Sprintf("got %q, want %q", m[1], m[2])
	}
	if m := effectError.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf(`got %q, want "permit" or "forbid"`, m[1])
	}
	if msg == "invalid primary" {
		return fmt.Sprintf("got %q, want a value", t.text)
	}
	return fmt.Sprintf("near %q: %s", t.text, msg)
}

// unreadable words why entity uid's attributes cannot be used.
func unreadable(uid string) string {
	return fmt.Sprintf("attributes of %s cannot be read; only those of principal, resource and context can", uid)
}
