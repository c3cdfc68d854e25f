// Package route is how rooms declare their HTTP surface. A room returns a list
// of routes; edge mounts them, and is the only place that turns their results
// and errors into responses. The list is also what the OpenAPI document and
// the test that walks every door are made from.
package route

import (
	"net/http"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
)

// Family is the contract a route belongs to. It decides how errors look.
type Family string

// The families of design.md.
const (
	Interop Family = "interop" // {code, message, evidence_pointer}
	Task    Family = "task"    // {"error": {code, message, retryable}}
	OAuth   Family = "oauth"   // as Task, with RFC 6749 error names beside
)

// Param documents one query or header parameter.
type Param struct{ Name, Doc string }

// Route is one method of one path.
type Route struct {
	Method, Path string // as http.ServeMux patterns: "GET", "/v1/tenants/{id}"
	Family       Family
	// Verb is what the route does, as policy knows it. Its handler decides the
	// verb through govern; edge records under it what fails before that.
	Verb string
	// Public says why a route needs no sign-in; such a route has no Verb.
	Public string

	Summary string
	Query   []Param
	In, Out any   // zero values of the body types, for the documentation
	Status  int   // on success; 0 is 200
	MaxBody int64 // bytes; 0 is 1 MiB

	// Handle returns the response body (nil for none, Raw for bytes), or an
	// error. A handler that writes to Call.W itself returns Written.
	Handle func(c *Call) (any, error)
}

// Raw is a response body that is not JSON.
type Raw struct {
	ContentType string
	Body        []byte
}

// Page is the shape of every list.
type Page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

type written struct{}

// Written is returned by handlers that wrote the response themselves.
var Written any = written{}

// Call is one request to a route.
type Call struct {
	W http.ResponseWriter
	R *http.Request
	// Principal is who asks; identity's anonymous one on public routes.
	Principal *identity.Principal
	// Correlation is the request's X-Correlation-ID, or a new one.
	Correlation string
	// Limit is the largest body in bytes.
	Limit int64
	// Status replaces the route's success status when set.
	Status int
}

// Path returns a path parameter.
func (c *Call) Path(name string) string { return c.R.PathValue(name) }

// Action starts an action by the caller, for the handler to fill in.
func (c *Call) Action(verb string) govern.Action {
	return govern.Action{Verb: verb, Principal: c.Principal, Correlation: c.Correlation}
}

// Receipt tells the caller where the evidence of what it did is kept.
func (c *Call) Receipt(r evidence.Receipt) {
	if r.EventID == "" {
		return
	}
	c.W.Header().Set("X-Event-ID", r.EventID)
	c.W.Header().Set("X-Evidence-Pointer", r.Pointer)
}

// Created sets the Location of what a POST made.
func (c *Call) Created(location string) { c.W.Header().Set("Location", location) }
