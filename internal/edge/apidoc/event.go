package apidoc

// eventFields are an event's envelope: what every message of every channel and
// every item of /v1/events has (ecs.md §4.1). An event's own fields stand
// beside them, and again in payload (ecs.md X5).
func eventFields() (fields dict[*schema], required []string) {
	text := func(doc string, example any) *schema {
		return &schema{Type: "string", Description: doc, Examples: []any{example}}
	}
	fields = dict[*schema]{
		{"id", &schema{Type: "string", Format: "uuid", Description: "The event's id.", Examples: []any{uuidExample}}},
		{"event_type", text("What sort of thing happened.", "tenant.update")},
		{"occurred_at", &schema{Type: "string", Format: "date-time", Description: "When; never earlier than the event before.", Examples: []any{timeExample}}},
		{"tenant_id", text("Whose log the event is in.", "demo")},
		{"sequence", &schema{Type: "integer", Format: "int64", Minimum: ptr(1), Description: "The event's place in the chain, from 1 without gaps.", Examples: []any{42}}},
		{"outcome", &schema{Type: "string", Enum: []any{"accepted", "refused", "failed"}, Description: "How it ended."}},
		{"evidence_pointer", &schema{Type: "string", Pattern: "^eosc://evidence/sha256:[0-9a-f]{64}$", Description: "The evidence artifact; GET /v1/evidence/sha256:… has its bytes.", Examples: []any{pointerExample}}},
		{"payload", &schema{Type: "object", Description: "The event's own fields."}},
		{"actor", text("Who acted.", "operator@demo")},
		{"correlation_id", text("Shared by all events of one action.", uuidExample)},
	}
	return fields, []string{"id", "event_type", "occurred_at", "tenant_id", "sequence", "outcome", "evidence_pointer", "payload"}
}

// eventSchema is an event as it stands in the log: its canonical form is what
// event_hash is over (ecs.md §4.3).
func eventSchema() *schema {
	digest := func(doc string) *schema {
		return &schema{Type: "string", Pattern: "^sha256:[0-9a-f]{64}$", Description: doc, Examples: []any{digestExample}}
	}
	text := func(doc string, examples ...any) *schema {
		return &schema{Type: "string", Description: doc, Examples: examples}
	}
	fields, required := eventFields()
	fields = append(fields, dict[*schema]{
		{"actor_details", &schema{Type: "object", Description: "Who acted, in parts.", Required: []string{"id", "type", "org_id"}, Properties: dict[*schema]{
			{"id", text("As actor.", "operator@demo")},
			{"type", &schema{Type: "string", Enum: []any{"human", "service", "delegate"}}},
			{"org_id", text("The tenant the actor belongs to.", "demo")},
			{"credential_ref", text("The credential's id, never the secret.", uuidExample)},
		}}},
		{"chain_id", &schema{Type: "string", Description: "The tenant's chain.", Examples: []any{"chain-demo"}}},
		{"event_hash", digest("SHA-256 over the canonical event without this field.")},
		{"prev_hash", digest("event_hash of the event before; the first event has none.")},
		{"authority_snapshot_id", text("The authority it was done under: an artifact's digest.")},
		{"policy_snapshot_id", text("The policy that decided: an artifact's digest.")},
		{"action", text("The governed verb.")},
		{"resource_id", text("What it was done to.")},
		{"artifact_refs", &schema{Type: "array", Items: &schema{Type: "string"}, Description: "What else the event rests on."}},
		{"jurisdiction", text("Where it was done.")},
		{"classification", text("The class of the data it was about.")},
		{"delegation_id", text("The delegation it was done by.")},
		{"refusal_reason_class", &schema{Type: "string", Enum: []any{"policy_denied", "authority_missing_or_invalid", "jurisdiction_denied", "delegation_invalid",
			"evidence_precondition_failed", "dependency_unavailable_fail_closed"}, Description: "Why it was refused, in one of six classes."}},
		{"refusal_reason_code", text("Why it was refused: a rule's id or another stable code.")},
		{"refusal_subject", text("The governed action that was refused.")},
		{"refusal_reason", text("Why it was refused, in a sentence.")},
	}...)
	return &schema{Type: "object", Description: "Something that happened, as it stands in the log.", Properties: fields,
		Required: append(required, "actor", "actor_details", "correlation_id", "chain_id", "event_hash", "authority_snapshot_id", "policy_snapshot_id")}
}

func ptr(n int64) *int64 { return &n }
