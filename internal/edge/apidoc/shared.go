package apidoc

import (
	"provost.dev/provost/internal/kernel/route"
)

// What operations share: headers, parameters, security, and the answers to
// requests that did not go well.

const (
	uuidExample    = "6f1f6a3e-6f0b-4c59-9d1c-2f6b1f0f7a10"
	digestExample  = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	pointerExample = "eosc://evidence/" + digestExample
	timeExample    = "2026-01-02T15:04:05.123456Z"
)

var sharedHeaders = dict[header]{
	{"X-Correlation-ID", header{Description: "Ties the request to its events and log lines; the request's own when it has a usable one.",
		Schema: &schema{Type: "string", Examples: []any{uuidExample}}}},
	{"X-Request-Duration", header{Description: "Whole milliseconds from the request's arrival to the answer's header.",
		Schema: &schema{Type: "integer", Minimum: new(int64), Examples: []any{4}}}},
	{"X-Event-ID", header{Description: "The event that recorded what happened.", Schema: &schema{Type: "string", Format: "uuid", Examples: []any{uuidExample}}}},
	{"X-Evidence-Pointer", header{Description: "Where the evidence is; GET /v1/evidence/sha256:… resolves it.",
		Schema: &schema{Type: "string", Pattern: "^eosc://(evidence|artifact)/", Examples: []any{pointerExample}}}},
	{"Location", header{Description: "The path of what was made.", Schema: &schema{Type: "string", Format: "uri-reference"}}},
	{"Retry-After", header{Description: "Seconds after which to try again, when that is known.", Schema: &schema{Type: "integer", Minimum: new(int64)}}},
	{"WWW-Authenticate", header{Description: "How to sign in.", Schema: &schema{Type: "string", Examples: []any{`Bearer realm="provost"`}}}},
}

func headerRef(name string) entry[header] {
	return entry[header]{name, header{Ref: "#/components/headers/" + name}}
}

func commonHeaders() dict[header] {
	return dict[header]{headerRef("X-Correlation-ID"), headerRef("X-Request-Duration")}
}

var sharedParameters = dict[parameter]{
	{"CorrelationID", parameter{Name: "X-Correlation-ID", In: "header",
		Description: "Ties this request to others: up to 128 printable ASCII characters. The server makes one up when there is none.",
		Schema:      &schema{Type: "string", Pattern: `^[\x21-\x7e]{1,128}$`}}},
}

var securitySchemes = dict[object]{
	{"bearer", object{{"type", "http"}, {"scheme", "bearer"}, {"bearerFormat", "JWT"}, {"description", "An access token of POST /v1/auth/token."}}},
	{"basic", object{{"type", "http"}, {"scheme", "basic"}, {"description", "A service account's client_id and client_secret, at the token endpoint only."}}},
}

// failureDocs says what each status means, with the error codes that the two
// forms of errors have for it unless an error is more specific.
var failureDocs = map[string]struct {
	meaning, interop, nested string
	retry, recorded          bool // the latter: evidence of the refusal may exist
	headers                  []string
}{
	"400":     {meaning: "The request is wrong: the error names the field, and what would be right.", interop: "ECS_INVALID_REQUEST", nested: "INVALID_ARGUMENT", recorded: true},
	"401":     {meaning: "There is no credential, or not one that is good now.", interop: "ECS_UNAUTHENTICATED", nested: "UNAUTHENTICATED", recorded: true, headers: []string{"WWW-Authenticate"}},
	"403":     {meaning: "Policy or authority refused; the error names the rule, and what would help.", interop: "ECS_REFUSED", nested: "PERMISSION_DENIED", recorded: true},
	"404":     {meaning: "There is no such thing, or it is another tenant's.", interop: "ECS_NOT_FOUND", nested: "NOT_FOUND", recorded: true},
	"409":     {meaning: "The present state does not allow it.", interop: "ECS_CONFLICT", nested: "CONFLICT", recorded: true},
	"413":     {meaning: "The body is larger than this request takes.", interop: "ECS_TOO_LARGE", nested: "TOO_LARGE", recorded: true},
	"415":     {meaning: "The body is of a type this request does not take.", interop: "ECS_UNSUPPORTED_MEDIA_TYPE", nested: "UNSUPPORTED_MEDIA_TYPE", recorded: true},
	"429":     {meaning: "Too many requests; nothing was changed.", interop: "ECS_RATE_LIMITED", nested: "RATE_LIMITED", retry: true, headers: []string{"Retry-After"}},
	"500":     {meaning: "Something went wrong on our side; our log knows it by the correlation id.", interop: "ECS_INTERNAL", nested: "UNKNOWN"},
	"503":     {meaning: "A part the request needs is away; nothing was changed.", interop: "ECS_UNAVAILABLE", nested: "UNAVAILABLE", retry: true, headers: []string{"Retry-After"}},
	"default": {meaning: "Anything else that did not go well.", interop: "ECS_UNPROCESSABLE", nested: "UNPROCESSABLE", recorded: true},
}

func errorAnswer(f route.Family, code string) *answer {
	doc := failureDocs[code]
	a := &answer{Description: doc.meaning, Headers: commonHeaders()}
	for _, h := range doc.headers {
		a.Headers = append(a.Headers, headerRef(h))
	}
	if doc.recorded {
		a.Headers = append(a.Headers, headerRef("X-Event-ID"), headerRef("X-Evidence-Pointer"))
	}
	name := doc.nested
	if f == route.Interop {
		name = doc.interop
	}
	example := object{{"code", name}, {"message", "what is wrong, in a sentence"}}
	if code == "403" {
		example = append(example, entry[any]{"rule_id", "permission.missing"}, entry[any]{"fix", "what is missing, and who can grant it"})
	}
	body := "InteropError"
	if f != route.Interop {
		body = "NestedError"
		example = append(example, entry[any]{"retryable", doc.retry})
	}
	if doc.recorded {
		example = append(example, entry[any]{"evidence_pointer", pointerExample})
	}
	if f != route.Interop {
		example = object{{"error", example}}
	} else if doc.recorded {
		example = append(example, entry[any]{"evidence_profile_id", "ecs-evidence-baseline"})
	}
	a.Content = dict[media]{{jsonMedia, media{Schema: &schema{Ref: schemaRef(body)}, Example: example}}}
	return a
}

// fixedSchemas are the schemas that no Go type of a route stands for.
func fixedSchemas() map[string]*schema {
	text := func(doc string) *schema { return &schema{Type: "string", Description: doc} }
	fields := func() dict[*schema] {
		return dict[*schema]{
			{"code", text("Stable and machine readable.")},
			{"message", text("One sentence for a person.")},
			{"field", text("The input that is wrong.")},
			{"rule_id", text("The rule that refused.")},
			{"rules", &schema{Type: "array", Items: &schema{Type: "string"}, Description: "Every rule that refused, when there are several."}},
			{"fix", text("What would help: what is missing, who can grant it, what to do next.")},
			{"evidence_pointer", text("Where the evidence of the refusal is.")},
		}
	}
	flat := &schema{Type: "object", Properties: append(fields(), entry[*schema]{"evidence_profile_id", text("The profile that the evidence follows.")}), Required: []string{"code", "message"}}
	inner := &schema{Type: "object", Required: []string{"code", "message", "retryable"},
		Properties: append(fields(), entry[*schema]{"retryable", &schema{Type: "boolean", Description: "Whether the same request can succeed later, unchanged."}})}
	nested := &schema{Type: "object", Properties: dict[*schema]{{"error", inner}}, Required: []string{"error"}}
	flat.Description = "How requests of the interop family fail."
	nested.Description = "How all other requests fail."
	return map[string]*schema{"InteropError": flat, "NestedError": nested, "Event": eventSchema()}
}
