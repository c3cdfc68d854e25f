package policy

import (
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Ids of refusals which no rule of a text decided. No rule can have one of them. As a
// tenant's, default.deny carries the set's name before it.
const (
	RuleDefaultDeny = "default.deny"   // no rule of a set that must permit does
	RuleMissing     = "policy.missing" // a set that must be in force is not there
	RuleInput       = "policy.input"   // the request does not fit the schema
	RuleInvalid     = "policy.invalid" // a set was compiled for another schema
)

func reservedRule(id string) bool { return id == RuleDefaultDeny || strings.HasPrefix(id, "policy.") }

// Reason says why a decision had to be a denial although no rule said so. It is
// one of the reason codes of the interop contract, or empty where rules decided.
type Reason string

// The reasons of this room.
const (
	ReasonUncertain Reason = "policy_uncertain" // only forbids whose evaluation failed
	ReasonMissing   Reason = "policy_missing"
	ReasonInvalid   Reason = "policy_invalid"
	ReasonInput     Reason = "input_incomplete"
)

// Decision is the answer to a Request. It must not be changed: decisions may share memory.
type Decision struct {
	Allow bool
	// Rules are the ids that determined it, sorted: the permits of an allowed request, the
	// forbids of a denied one, or a reserved id. A tenant's rule is "set/id". Never empty.
	Rules  []string
	Reason Reason      // of a denial; empty where rules decided
	Errors []RuleError // rules that could not be evaluated, by rule
}

// RuleError is a rule that could not be evaluated. A permit that fails does not permit,
// a forbid that fails denies.
type RuleError struct {
	Rule    string
	Message string // for the log; not part of the recorded decision
}

func deny(rule string, reason Reason) Decision {
	return Decision{Rules: []string{rule}, Reason: reason}
}

// Bound is the sets one request is decided under. The zero value denies.
type Bound struct {
	// Platform must permit. Nil denies.
	Platform *Set
	// Tenant may forbid; if it holds permit rules, it must permit as well. Nil denies: it
	// stands for a set that should be in force and could not be had. A tenant
	// without rules of its own has [Empty].
	Tenant *Set
	// Extra sets bound the request as Tenant does.
	Extra []*Set
}

// Decide answers r under a set alone, which must permit.
func (set *Set) Decide(r *Request) Decision { return Bound{Platform: set, Tenant: Empty}.Decide(r) }

// Decide answers r: allowed if no set forbids, the platform set permits, and each other
// set with permit rules permits. It takes no locks and does no I/O.
func (b Bound) Decide(r *Request) Decision {
	q := queries.Get().(*query)
	d := q.decide(b, r)
	q.reset()
	queries.Put(q)
	return d
}

// query is the working memory of one decision. It is the entity store and the list
// of policies which cedar-go asks for.
type query struct {
	sets    []*Set  // the platform's first
	found   []*rule // of sets[0] up to tenants, of the others after it
	tenants int
	permits []*Set // whose permits matched

	projector projector
	request   *Request
	action    *action
	resource  types.Entity
}

var queries = sync.Pool{New: func() any { return new(query) }}

const maxKept = 4096 // candidates a pooled query keeps room for

func (q *query) reset() {
	clear(q.sets)
	clear(q.found)
	clear(q.permits)
	*q = query{sets: q.sets[:0], found: q.found[:0], permits: q.permits[:0], projector: q.projector}
	if cap(q.found) > maxKept {
		q.found = nil
	}
}

func (q *query) decide(b Bound, r *Request) Decision {
	q.sets = append(append(q.sets, b.Platform, b.Tenant), b.Extra...)
	if slices.Contains(q.sets, nil) {
		return deny(RuleMissing, ReasonMissing)
	}
	schema := b.Platform.schema
	if schema == nil {
		return deny(RuleDefaultDeny, "") // Empty permits nothing
	}
	for _, set := range q.sets {
		if set.schema != schema && set != Empty {
			return deny(RuleInvalid, ReasonInvalid)
		}
	}
	a, err := r.check(schema)
	if err != nil {
		d := deny(RuleInput, ReasonInput)
		d.Errors = []RuleError{{Rule: RuleInput, Message: err.Error()}}
		return d
	}

	allow, diag := q.authorize(r, a)
	return q.conclude(allow, diag)
}

// authorize asks cedar-go about the rules of all sets at once.
func (q *query) authorize(r *Request, a *action) (allow bool, diag cedar.Diagnostic) {
	q.request, q.action = r, a
	var n need
	for i, set := range q.sets {
		if more, ok := set.needs[a.Verb]; ok {
			n.resource.union(&more.resource)
			n.context.union(&more.context)
		}
		q.found = set.index.collect(q.found, r)
		if i == 0 {
			q.tenants = len(q.found)
		}
	}
	q.resource = types.Entity{
		UID:        types.NewEntityUID(types.EntityType(r.Resource.Type), types.String(r.Resource.ID)),
		Attributes: q.projector.project(a.resource, r.Resource.Attributes, &n.resource),
	}
	d, diag := cedar.Authorize(q, q, cedar.Request{
		Principal: r.Principal.entity.UID,
		Action:    a.entity.UID,
		Resource:  q.resource.UID,
		Context:   q.projector.project(a.context, r.Context, &n.context),
	})
	return bool(d), diag
}

// conclude turns Cedar's answer over the rules of all sets into ours.
func (q *query) conclude(allow bool, diag cedar.Diagnostic) Decision {
	var d Decision
	at := 0
	for _, e := range diag.Errors {
		at = q.seek(at, e.PolicyID, e.Position)
		d.Errors = append(d.Errors, RuleError{Rule: string(e.PolicyID), Message: e.Message})
		if !q.found[at].permit {
			d.Rules = append(d.Rules, string(e.PolicyID))
			d.Reason = ReasonUncertain
		}
	}
	switch {
	case !allow && len(diag.Reasons) > 0: // these are forbids
		d.Reason = ""
		for _, r := range diag.Reasons {
			d.Rules = append(d.Rules, string(r.PolicyID))
		}
	case d.Reason == "":
		d.Allow, d.Rules = q.permitted(diag.Reasons)
	}
	slices.Sort(d.Rules)
	d.Rules = slices.Compact(d.Rules)
	slices.SortFunc(d.Errors, func(a, b RuleError) int { return strings.Compare(a.Rule, b.Rule) })
	d.Errors = slices.Compact(d.Errors)
	return d
}

// permitted reports whether every set that must permit has one of the permits given,
// and which rules say so: the permits, or the default denials of sets which have none.
func (q *query) permitted(permits []cedar.DiagnosticReason) (bool, []string) {
	rules := make([]string, 0, max(1, len(permits)))
	at := 0
	for _, p := range permits {
		at = q.seek(at, p.PolicyID, p.Position)
		q.permits = append(q.permits, q.found[at].set)
		rules = append(rules, string(p.PolicyID))
	}
	var denials []string
	for i, set := range q.sets {
		if (i > 0 && set.permits == 0) || slices.Contains(q.permits, set) {
			continue
		}
		if i == 0 {
			denials = append(denials, RuleDefaultDeny)
		} else {
			denials = append(denials, set.name+"/"+RuleDefaultDeny)
		}
	}
	if len(denials) > 0 {
		return false, denials
	}
	return true, rules
}

// seek returns the candidate that cedar-go reports as id at pos: it reports them in the
// order it was given them. Two sets may go by one name; pos tells their texts apart.
func (q *query) seek(from int, id cedar.PolicyID, pos cedar.Position) int {
	for i := from; i < len(q.found); i++ {
		if q.idOf(i) == string(id) && q.found[i].set.digest == pos.Filename {
			return i
		}
	}
	panic("policy: cedar-go reported rule " + string(id) + ", which it was not given")
}

// All gives cedar-go the candidates.
func (q *query) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] { return q.each }

func (q *query) each(yield func(cedar.PolicyID, *cedar.Policy) bool) {
	for i, r := range q.found {
		if !yield(cedar.PolicyID(q.idOf(i)), r.policy) {
			return
		}
	}
}

// idOf is how the decision names candidate i.
func (q *query) idOf(i int) string {
	if i < q.tenants {
		return q.found[i].id
	}
	return q.found[i].qualified
}

// Get gives cedar-go the entities of the request. Roles and groups have neither
// attributes nor parents and need not be found.
func (q *query) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid {
	case q.resource.UID:
		return q.resource, true
	case q.request.Principal.entity.UID:
		return q.request.Principal.entity, true
	case q.action.entity.UID:
		return q.action.entity, true
	}
	return types.Entity{}, false
}
