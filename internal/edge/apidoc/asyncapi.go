package apidoc

// channel is one WebSocket channel of the interop contract (ecs.md §9).
type channel struct {
	name, message, doc string
	types              []any   // the event_type enum; nil is any
	payload            *schema // what the payload is known to hold
	schema             *schema // nil is a projection of the event
}

func channels() []channel {
	text := func(doc string) *schema { return &schema{Type: "string", Description: doc} }
	projected := func(more ...entry[*schema]) *schema {
		return &schema{Type: "object", Required: []string{"audit_event_hash"}, Properties: append(dict[*schema]{
			{"audit_event_hash", text("event_hash of the audit event this message was made from.")},
			{"authority_snapshot_id", text("The authority it was done under.")},
			{"policy_snapshot_id", text("The policy that decided.")},
			{"resource_id", text("What it was done to.")},
		}, more...)}
	}
	return []channel{
		{name: "audit", message: "AuditEvent", doc: "Every event of the tenant's log, byte for byte as it was hashed.", schema: eventSchema()},
		{name: "tenant", message: "TenantEvent", doc: "What happens to the tenant.", types: []any{"created", "updated", "suspended", "deleted"},
			payload: projected(entry[*schema]{"jurisdiction", text("Where the tenant's things may be.")},
				entry[*schema]{"policy_baseline", text("The policy that the tenant is bound by.")},
				entry[*schema]{"authority_binding", text("The authority that the tenant acts under.")})},
		{name: "workload", message: "WorkloadEvent", doc: "What happens to workloads.", types: []any{"admitted", "updated", "terminated"},
			payload: projected(entry[*schema]{"workload_id", text("The workload.")},
				entry[*schema]{"envelope_type", &schema{Type: "string", Enum: []any{"container", "vm"}, Description: "The declared execution envelope."}},
				entry[*schema]{"attestation_ref", text("The attestation it was admitted on, where there is one.")})},
	}
}

// messageSchema is what a channel's messages look like.
func (c channel) messageSchema() *schema {
	if c.schema != nil {
		return c.schema
	}
	fields, required := eventFields()
	for i := range fields {
		switch fields[i].Name {
		case "event_type":
			fields[i].Value = &schema{Type: "string", Enum: c.types, Description: "What happened, in the channel's words."}
		case "payload":
			c.payload.Description = "The event's own fields, with the context it was decided in."
			fields[i].Value = c.payload
		}
	}
	return &schema{Type: "object", Description: c.doc, Properties: fields, Required: required}
}

const asyncDescription = `A tenant's events as they happen, over WebSocket. Connect with the access token of a principal that may read events
("Authorization: Bearer"); what is sent is that principal's own tenant's. Each message is one JSON text frame.

A subscription begins with the next event. To begin earlier, give from_sequence, or the sequence or id of the last event seen
in Last-Event-ID: nothing is lost or sent twice between two connections. sequence grows along the chain and may skip within a
channel. The tenant and workload channels carry projections of audit events under the contract's own names: id, sequence and
evidence_pointer are those of the audit event, and payload.audit_event_hash names it.`

// asyncAPI is the AsyncAPI 2.6.0 document of the channels, in YAML.
func asyncAPI(info infoObject) ([]byte, error) {
	var paths, messages, schemas object
	for _, c := range channels() {
		schemaName := c.message + "Message"
		paths = append(paths, entry[any]{"/events/" + c.name, object{
			{"description", c.doc},
			{"servers", []string{"secure", "plain"}},
			{"subscribe", object{
				{"operationId", "on" + c.message},
				{"summary", "Receive " + c.message + " messages"},
				{"message", object{{"$ref", "#/components/messages/" + c.message}}},
			}},
			{"bindings", object{{"ws", object{
				{"method", "GET"},
				{"query", &schema{Type: "object", Properties: dict[*schema]{
					{"from_sequence", &schema{Type: "integer", Format: "int64", Minimum: new(int64), Description: "Begin with the event of this sequence."}}}}},
				{"headers", &schema{Type: "object", Properties: dict[*schema]{
					{"Last-Event-ID", &schema{Type: "string", Description: "Begin after the event with this sequence or id."}}}}},
				{"bindingVersion", "0.1.0"},
			}}}},
		}})
		messages = append(messages, entry[any]{c.message, object{
			{"name", c.message},
			{"title", c.doc},
			{"contentType", jsonMedia},
			{"payload", object{{"$ref", schemaRef(schemaName)}}},
		}})
		schemas = append(schemas, entry[any]{schemaName, c.messageSchema()})
	}
	j, err := indentedJSON(object{
		{"asyncapi", "2.6.0"},
		{"info", object{{"title", info.Title + " events"}, {"version", info.Version}, {"description", asyncDescription}}},
		{"servers", object{{"secure", asyncServer("wss")}, {"plain", asyncServer("ws")}}},
		{"defaultContentType", jsonMedia},
		{"channels", paths},
		{"components", object{{"schemas", schemas}, {"messages", messages},
			{"securitySchemes", object{{"bearer", object{{"type", "http"}, {"scheme", "bearer"}, {"bearerFormat", "JWT"}}}}}}},
	})
	if err != nil {
		return nil, err
	}
	return yamlOf(j)
}

func asyncServer(protocol string) object {
	return object{
		{"url", "{host}"},
		{"protocol", protocol},
		{"description", "where this document came from"},
		{"variables", object{{"host", object{{"default", "127.0.0.1:8420"}, {"description", "host and port of the server"}}}}},
		{"security", []object{{{"bearer", []string{}}}}},
	}
}
