// Package policy decides: may this principal do this action to this resource,
// now? Rules are Cedar text; this room gives them a schema, an index, a
// recorded form and an explanation. It holds no state, does no I/O and knows
// no plane.
//
//	planes declare          people write            every request
//	Declaration ──▶ Schema ──Compile──▶ Set ──┐        │
//	                  │                       ├─▶ Bound ──Decide──▶ Decision
//	                  └──NewPrincipal──▶ Principal ─▶ Request         │
//	                                                    │          Explain
//	                                              AppendJSON ──▶ Replay, Diff
//
// # What a decision means
//
// Cedar's rule: an action is allowed when at least one permit matches and no
// forbid does. A [Bound] adds two things. The platform's rules bound the
// tenant's: every set may forbid, the platform set must permit, and a tenant
// set which holds permit rules must permit as well. So a tenant can narrow what
// the platform gives and can never widen it. And it fails closed where Cedar
// alone would not: a forbid whose evaluation errs denies (Cedar would skip it),
// a set that should be there and is not denies, and so does a request that
// does not fit the schema. Refusals which no rule of any text decided carry one
// of the reserved ids [RuleDefaultDeny], [RuleMissing], [RuleInput], [RuleInvalid].
//
// Of the entities of a request only the principal (with its roles and groups as
// parents), the resource and the action (with its groups) can be read. Compile
// refuses a rule which reads attributes of any other entity.
//
// # What it costs
//
// Compile resolves every rule's action scope against the schema and files the
// rule under each action it names, else under the resource type it names, else
// as common. Inside each of these buckets rules are hashed by a test that must
// hold for them to match: a principal or resource named outright, a role or
// group the principal must be in, or a string compared for equality with, or
// looked up in, an attribute. So a decision evaluates the rules that name its
// action, or none, and whose key the request carries; a thousand rules for other
// actions, tenants, resources or repositories cost one map lookup.
//
// Linear, still, are rules of one bucket which have no such key (tests by `like`,
// `<`, `!=`, `unless`) or share it. Cedar reports every rule that determined a
// decision, so nothing stops at the first match.
//
// Cedar-go evaluates what is left. Two things are kept from it: scopes the index
// has already proven are not evaluated again, and of the request's attributes only those
// which some rule for the action reads are converted to Cedar values.
//
// # What is recorded
//
// [Request.AppendJSON] and [Decision.AppendJSON] write canonical JSON: keys in byte
// order, no white space, ASCII only, integers only, sets sorted. Values which JSON lacks
// use Cedar's own escapes, such as {"__extn":{"arg":"10.0.0.1","fn":"ip"}}.
// A recorded request decided again under the same sets and schema gives the
// same decision, byte for byte; [Bound.Snapshot] names all of these by digest.
package policy
