package edge

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/route"
)

// answer writes a handler's result.
func (d *door) answer(w http.ResponseWriter, req *http.Request, r route.Route, c *route.Call, body any) {
	if body == route.Written {
		return
	}
	status := c.Status
	if status == 0 {
		status = r.Status
	}
	if status == 0 {
		status = http.StatusOK
	}
	if raw, ok := body.(route.Raw); ok {
		w.Header().Set("Content-Type", raw.ContentType)
		w.WriteHeader(status)
		d.write(w, req, raw.Body)
		return
	}
	if body == nil {
		w.WriteHeader(status)
		return
	}
	b, err := json.Marshal(body)
	if err != nil {
		d.fail(w, req, r.Family, err)
		return
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	d.write(w, req, append(b, '\n'))
}

var jsonType = []string{"application/json"}

func (d *door) write(w http.ResponseWriter, r *http.Request, b []byte) {
	if _, err := w.Write(b); err != nil && !gone(err) {
		d.Logger.DebugContext(r.Context(), "write response", "err", err)
	}
}

// status is each kind's HTTP status; codes are the family's default for a kind
// that the error does not name itself.
var status = map[kernel.Kind]int{
	kernel.Internal: 500, kernel.Invalid: 400, kernel.Unauthenticated: 401, kernel.Refused: 403, kernel.NotFound: 404, kernel.Conflict: 409,
	kernel.Locked: 423, kernel.TooLarge: 413, kernel.TooMany: 429, kernel.Unavailable: 503, kernel.NotAllowed: 405, kernel.Unsupported: 415,
	kernel.Gone: 410, kernel.Unprocessable: 422,
}

var interopCodes = map[kernel.Kind]string{
	kernel.Internal: "ECS_INTERNAL", kernel.Invalid: "ECS_INVALID_REQUEST", kernel.Unauthenticated: "ECS_UNAUTHENTICATED", kernel.Refused: "ECS_REFUSED",
	kernel.NotFound: "ECS_NOT_FOUND", kernel.Conflict: "ECS_CONFLICT", kernel.Locked: "ECS_LOCKED", kernel.TooLarge: "ECS_TOO_LARGE",
	kernel.TooMany: "ECS_RATE_LIMITED", kernel.Unavailable: "ECS_UNAVAILABLE", kernel.NotAllowed: "ECS_METHOD_NOT_ALLOWED",
	kernel.Unsupported: "ECS_UNSUPPORTED_MEDIA_TYPE", kernel.Gone: "ECS_GONE", kernel.Unprocessable: "ECS_UNPROCESSABLE",
}

var nestedCodes = map[kernel.Kind]string{
	kernel.Internal: "UNKNOWN", kernel.Invalid: "INVALID_ARGUMENT", kernel.Unauthenticated: "UNAUTHENTICATED", kernel.Refused: "PERMISSION_DENIED",
	kernel.NotFound: "NOT_FOUND", kernel.Conflict: "CONFLICT", kernel.Locked: "LOCKED", kernel.TooLarge: "TOO_LARGE", kernel.TooMany: "RATE_LIMITED",
	kernel.Unavailable: "UNAVAILABLE", kernel.NotAllowed: "METHOD_NOT_ALLOWED", kernel.Unsupported: "UNSUPPORTED_MEDIA_TYPE", kernel.Gone: "GONE",
	kernel.Unprocessable: "UNPROCESSABLE",
}

// DefaultProfile is the evidence profile that refusals are governed by.
const DefaultProfile = "ecs-evidence-baseline"

// problem is an error's wire form. Interop has it flat, all others under "error".
type problem struct {
	Code            string   `json:"code"`
	Message         string   `json:"message"`
	Field           string   `json:"field,omitempty"`
	RuleID          string   `json:"rule_id,omitempty"`
	Rules           []string `json:"rules,omitempty"`
	Fix             string   `json:"fix,omitempty"`
	Retryable       *bool    `json:"retryable,omitempty"`
	EvidencePointer string   `json:"evidence_pointer,omitempty"`
	EvidenceProfile string   `json:"evidence_profile_id,omitempty"`
}

// fail writes an error in the family's form. What an internal error says stays in the log.
func (d *door) fail(w http.ResponseWriter, r *http.Request, family route.Family, err error) {
	left := r.Context().Err() != nil && gone(err)
	if left { // whoever still listens, having closed only its sending side, must not take silence for success
		err = &kernel.Error{Kind: kernel.Unavailable, Msg: "the request was given up before it was done", Err: err}
	}
	e := kernel.AsError(err)
	if left {
		d.Logger.DebugContext(r.Context(), "the caller left", "method", r.Method, "route", r.Pattern)
	} else if e.Kind == kernel.Internal || e.Kind == kernel.Unavailable {
		d.Logger.ErrorContext(r.Context(), "request failed", "method", r.Method, "route", r.Pattern, "err", err)
	}
	p := problem{Code: e.Code, Message: e.Msg, Field: e.Field, RuleID: e.Rule, Rules: e.Rules, Fix: e.Fix, EvidencePointer: e.Pointer}
	if e.Kind == kernel.Internal {
		p = problem{Message: "something went wrong on our side; the log knows it by this correlation id", EvidencePointer: e.Pointer}
	}
	if p.Message == "" {
		p.Message = e.Kind.String()
	}
	if e.Field != "" && e.Kind == kernel.Invalid { // such messages go on from the field's name
		p.Message = e.Field + " " + p.Message
	}
	if e.EventID != "" {
		w.Header().Set("X-Event-ID", e.EventID)
		w.Header().Set("X-Evidence-Pointer", e.Pointer)
	}
	if e.Kind == kernel.Unauthenticated && w.Header().Get("WWW-Authenticate") == "" { // RFC 9110 §15.5.2
		w.Header().Set("WWW-Authenticate", `Bearer realm="provost"`)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	var body any = &p
	if family == route.Interop {
		if !strings.HasPrefix(p.Code, "ECS_") && !strings.HasPrefix(p.Code, "EOSC_") { // rooms that several families use have codes of their own
			p.Code = interopCodes[e.Kind]
		}
		if p.EvidencePointer != "" {
			p.EvidenceProfile = DefaultProfile
		}
	} else {
		if p.Code == "" {
			p.Code = nestedCodes[e.Kind]
		}
		retry := e.Kind.Retryable()
		p.Retryable = &retry
		body = struct {
			Error *problem `json:"error"`
		}{&p}
	}
	b, merr := json.Marshal(body)
	if merr != nil { // strings and booleans always marshal
		panic(merr)
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status[e.Kind])
	d.write(w, r, append(b, '\n'))
}
