package policy

import (
	"fmt"
	"strings"

	"provost.dev/provost/internal/kernel"
)

// Classes of refusal in the interop contract. A rule may name its own with @class.
const (
	ClassDenied       = "policy_denied"
	ClassAuthority    = "authority_missing_or_invalid"
	ClassJurisdiction = "jurisdiction_denied"
	ClassDelegation   = "delegation_invalid"
	ClassEvidence     = "evidence_precondition_failed"
	ClassUnavailable  = "dependency_unavailable_fail_closed"
)

var refusalClasses = []string{ClassDenied, ClassAuthority, ClassJurisdiction, ClassDelegation, ClassEvidence, ClassUnavailable}

// Rule describes one rule for people.
type Rule struct {
	ID      string // as decisions name it
	Set     string // name of its set; empty for reserved ids
	Version string // of its set
	Effect  string // "permit" or "forbid"; empty for reserved ids
	Why     string // its @reason
	Fix     string // its @fix
	Class   string // its @class; a class of refusal or empty
	Line    int    // in the set's source; 0 for reserved ids
}

func (r *rule) describe(id string) Rule {
	effect := "forbid"
	if r.permit {
		effect = "permit"
	}
	return Rule{ID: id, Set: r.set.name, Version: r.set.version, Effect: effect,
		Why: r.reason, Fix: r.fix, Class: r.class, Line: r.line}
}

// Explanation says why a decision is what it is, in words that may be shown to the caller.
type Explanation struct {
	Rules      []Rule // the deciding ones, in the order of Decision.Rules
	Permission string // what the action needs, where nothing permits it
	Class      string // of a denial; empty when allowed
	Message    string // one sentence
	Fix        string // what would help; may be empty
}

// Explain words a decision of b about r. It also takes decisions read back by
// ParseDecision, as long as b is what they were made under; ids it does not know
// are left undescribed.
func (b Bound) Explain(r *Request, d Decision) Explanation {
	x := Explanation{}
	for _, id := range d.Rules {
		x.Rules = append(x.Rules, b.describe(id))
	}
	if d.Allow {
		x.Message = fmt.Sprintf("%s on %s is allowed by %s", r.Action, r.subject(), strings.Join(d.Rules, ", "))
		return x
	}
	x.Class = ClassDenied
	switch d.Reason {
	case ReasonMissing:
		x.Class = ClassUnavailable
		x.Message = fmt.Sprintf("%s is refused because a policy that must be in force cannot be found", r.Action)
		x.Fix = "the operator has to restore the tenant's policy"
	case ReasonInvalid:
		x.Class = ClassUnavailable
		x.Message = fmt.Sprintf("%s is refused because a policy in force was compiled for another version of the schema", r.Action)
		x.Fix = "the operator has to reload the policies"
	case ReasonInput:
		x.Message = fmt.Sprintf("%s is refused because the decision's input is incomplete", r.Action)
	case ReasonUncertain:
		x.Message = fmt.Sprintf("%s is refused because rule %s could not be evaluated", r.Action, d.Rules[0])
		x.Fix = "whoever maintains the policy has to correct the rule"
		x.take(ReasonUncertain)
	default:
		b.explainDenial(r, &x)
	}
	return x
}

// subject names the resource for people.
func (r *Request) subject() string {
	if r.Resource.ID == "" {
		return "any " + r.Resource.Type
	}
	return r.Resource.Type + " " + r.Resource.ID
}

// explainDenial words a denial by forbids or for want of a permit.
func (b Bound) explainDenial(r *Request, x *Explanation) {
	first := x.Rules[0]
	if first.Effect == "forbid" {
		x.Message = fmt.Sprintf("rule %s forbids %s on %s", first.ID, r.Action, r.subject())
		x.take("")
		return
	}
	if first.ID != RuleDefaultDeny {
		set := strings.TrimSuffix(first.ID, "/"+RuleDefaultDeny)
		x.Message = fmt.Sprintf("policy %s permits only what it names, and not %s on %s", set, r.Action, r.subject())
		x.Fix = "whoever maintains policy " + set + " can permit it"
		return
	}
	x.Message = fmt.Sprintf("no rule permits %s on %s", r.Action, r.subject())
	if b.Platform == nil || b.Platform.schema == nil {
		return
	}
	a, ok := b.Platform.schema.Action(r.Action)
	if !ok {
		return
	}
	x.Permission = a.Permission
	if r.Principal != nil && r.Principal.holds(a.Permission) {
		x.Message += fmt.Sprintf("; %s is held, but no rule's conditions are met", a.Permission)
		return
	}
	x.Message += "; it needs permission " + a.Permission
	x.Fix = fmt.Sprintf("someone who may grant roles in the tenant can grant one with %s", a.Permission)
}

// take lets the rules' own annotations speak: the first of each wins.
func (x *Explanation) take(reason Reason) {
	var why, fix, class string
	for _, r := range x.Rules {
		if why == "" {
			why = r.Why
		}
		if fix == "" {
			fix = r.Fix
		}
		if class == "" {
			class = r.Class
		}
	}
	if class != "" {
		x.Class = class
	}
	if reason == ReasonUncertain {
		return // what the rule would have said is not known to be so
	}
	if why != "" {
		x.Message = why
	}
	if fix != "" {
		x.Fix = fix
	}
}

// Refusal is the explanation of a denial as the error that handlers return.
func (x Explanation) Refusal() *kernel.Error {
	e := &kernel.Error{Kind: kernel.Refused, Msg: x.Message, Class: x.Class, Fix: x.Fix}
	if len(x.Rules) > 0 {
		e.Rule = x.Rules[0].ID
	}
	return e
}

// describe finds a rule by the id that decisions of b give it.
func (b Bound) describe(id string) Rule {
	name, plain, qualified := strings.Cut(id, "/")
	if !qualified {
		if r := b.Platform.find(id); r != nil {
			return r.describe(id)
		}
		return Rule{ID: id}
	}
	for _, set := range append([]*Set{b.Tenant}, b.Extra...) {
		if set == nil || set.name != name {
			continue
		}
		if r := set.find(plain); r != nil {
			return r.describe(id)
		}
	}
	return Rule{ID: id}
}

func (set *Set) find(id string) *rule {
	if set == nil {
		return nil
	}
	for _, r := range set.rules {
		if r.id == id {
			return r
		}
	}
	return nil
}
