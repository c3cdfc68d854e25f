package bundle

import "time"

// severity says whether breaking a rule fails a bundle.
type severity uint8

const (
	fault   severity = iota
	warning          // counted and shown, but the bundle may still be good
)

// finding receives what is wrong with an event, by step.
type finding func(step int, s severity, reason string)

// rules are what every event of a bundle must satisfy on its own. The writer
// applies them before it signs, the verifier to what it is given.
type rules struct {
	profile Profile
	// lenient accepts what the contract's reference tools write: ids that are no
	// UUIDs, missing correlation ids and snapshots, refusals with only a reason.
	lenient bool
}

// strictly is the severity of rules that foreign bundles are let off.
func (r rules) strictly() severity {
	if r.lenient {
		return warning
	}
	return fault
}

// check applies the rules of steps 4 (envelope and profile) and 14 (refusals).
func (r rules) check(e *event, found finding) {
	r.envelope(e, found)
	r.fields(e, found)
	if string(e.outcome) == "refused" {
		r.refusal(e, found)
	}
}

func (r rules) envelope(e *event, found finding) {
	for _, f := range [...]struct {
		name  string
		value text
	}{
		{"id", e.id}, {"event_type", e.eventType}, {"occurred_at", e.occurredAt},
		{"tenant_id", e.tenant}, {"outcome", e.outcome}, {"evidence_pointer", e.pointer},
	} {
		if len(f.value) == 0 {
			found(stepEnvelope, fault, f.name+" is missing or not a string")
		}
	}
	for _, f := range [...]struct {
		name  string
		value text
	}{
		{"actor", e.actor}, {"correlation_id", e.correlation},
		{"authority_snapshot_id", e.authority}, {"policy_snapshot_id", e.policy},
	} {
		if len(f.value) == 0 {
			found(stepEnvelope, r.strictly(), f.name+" is missing or not a string")
		}
	}
	switch string(e.outcome) {
	case "accepted", "refused", "failed", "":
	default:
		found(stepEnvelope, fault, "outcome "+quoted(e.outcome)+" is not accepted, refused or failed")
	}
	if !e.hasSequence {
		found(stepEnvelope, fault, "sequence is missing or not a whole number")
	}
	if !r.lenient {
		if e.hasSequence && e.sequence == 0 {
			found(stepEnvelope, fault, "sequence is 0; logs begin at 1")
		}
		if e.payload == nil {
			found(stepEnvelope, fault, "payload is missing")
		}
		if len(e.id) > 0 && !isUUID(e.id) {
			found(stepEnvelope, fault, "id "+quoted(e.id)+" is not a UUID")
		}
	}
	var t time.Time
	if len(e.occurredAt) > 0 && t.UnmarshalText(e.occurredAt) != nil {
		found(stepEnvelope, fault, "occurred_at "+quoted(e.occurredAt)+" is not RFC 3339")
	}
	if len(e.pointer) > 0 && !isPointer(e.pointer) {
		found(stepEnvelope, r.strictly(), "evidence_pointer "+quoted(e.pointer)+" is not eosc://evidence/… or eosc://artifact/…")
	}
}

// fields applies the profile's demands.
func (r rules) fields(e *event, found finding) {
	chained := fault
	if r.lenient && !r.profile.needsChain() {
		chained = warning
	}
	if len(e.eventHash) == 0 {
		found(stepEnvelope, chained, "event_hash is missing or not a string")
	}
	if len(e.chain) == 0 {
		found(stepEnvelope, chained, "chain_id is missing or not a string")
	}
	if len(e.profile) > 0 && string(e.profile) != string(r.profile) {
		found(stepProfile, fault, "evidence_profile_id "+quoted(e.profile)+" is not the manifest's")
	}
	for _, name := range r.profile.fieldsFor(e) {
		if e.field(name) == nil {
			found(stepEnvelope, fault, name+" is missing, which "+string(r.profile)+" demands of "+string(e.eventType))
		}
	}
}

// refusal applies step 14: a refusal says why, and under which policy and authority.
func (r rules) refusal(e *event, found finding) {
	if len(e.reasonClass) == 0 && len(e.reasonCode) == 0 && len(e.reason) == 0 {
		found(stepRefusals, fault, "refused without a reason")
		return
	}
	for _, f := range [...]struct {
		name  string
		value text
		s     severity
	}{
		{"refusal_reason_class", e.reasonClass, r.strictly()}, {"refusal_reason_code", e.reasonCode, r.strictly()},
		{"refusal_subject", e.subject, r.strictly()}, {"refusal_reason", e.reason, warning},
	} {
		if len(f.value) == 0 {
			found(stepRefusals, f.s, "refused without "+f.name)
		}
	}
	if len(e.authority) == 0 && len(e.policy) == 0 {
		found(stepRefusals, fault, "refused with neither a policy nor an authority snapshot")
	}
	if !refusalClasses[string(e.reasonClass)] && len(e.reasonClass) > 0 {
		found(stepRefusals, warning, "refusal class "+quoted(e.reasonClass)+" is not one of the contract's six")
	}
}

// refusalClasses are the contract's (ecs.md §4.2). The set is advisory.
var refusalClasses = map[string]bool{
	"policy_denied": true, "authority_missing_or_invalid": true, "jurisdiction_denied": true,
	"delegation_invalid": true, "evidence_precondition_failed": true, "dependency_unavailable_fail_closed": true,
}

func isPointer(t text) bool {
	const n = len(evidenceScheme)
	return len(t) > n && (string(t[:n]) == evidenceScheme || string(t[:n]) == artifactScheme)
}

// isUUID reports whether t has the form of RFC 9562, in lower case.
func isUUID(t text) bool {
	if len(t) != 36 {
		return false
	}
	for i, c := range t {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if nibble[c] > 15 {
				return false
			}
		}
	}
	return true
}

// quoted shows foreign text in a message, cut short.
func quoted[S ~string | ~[]byte](s S) string {
	const most = 80
	if len(s) > most {
		return `"` + string(s[:most]) + `…"`
	}
	return `"` + string(s) + `"`
}
