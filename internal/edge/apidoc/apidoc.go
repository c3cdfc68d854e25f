// Package apidoc makes the API's documentation from the list of its routes: an
// OpenAPI 3.1 document, an AsyncAPI 2.6.0 document for the event channels, and
// a page for people. What is not in the list is not in the documents, and what
// is in the list cannot be left out.
//
//	[]route.Route ─▶ document ─┬─▶ /v1/openapi.json, /v1/openapi.yaml
//	 In, Out by reflection     └─▶ /docs
//	events (ecs.md §9) ──────────▶ /v1/asyncapi.yaml
//
// # What a body says about itself
//
// Schemas follow encoding/json: the json tag names a field; in answers, a field
// without omitempty or omitzero is required. Requests take no unknown fields,
// as route.Call.Into refuses them, and share their words' meanings across the
// API (vocabulary.go). A field may say more by tags,
//
//	Status Status `json:"status" doc:"what it is doing" enum:"pending,running" example:"running" required:"true"`
//
// where an example also chooses the field for the body's example, and a type that encoding/json alone cannot explain by a method with which it
// states its schema:
//
//	func (Event) JSONSchema() string { return `{"$ref": "#/components/schemas/Event"}` }
//
// A route whose answer is not JSON declares route.Raw{ContentType: …} as Out.
package apidoc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// Version is the version of the API that the documents describe. It is not the
// build's: a contract that did not change keeps its number.
const Version = "1.0.0"

// Info is what the documents say beyond the routes.
type Info struct {
	Title       string // "" is Provost
	Version     string // "" is Version
	Description string // CommonMark; "" is a paragraph on how the API works
	// Schema knows the permission that each route's verb takes. Nil leaves
	// permissions out; a verb it does not know is an error.
	Schema *policy.Schema
}

// Docs is the documentation, made once and served from memory. Safe for concurrent use.
type Docs struct {
	openapiJSON, openapiYAML, asyncapiYAML, page file
}

type file struct {
	contentType string
	body        []byte
	etag        string
	csp         string // Content-Security-Policy, for the page
}

func newFile(contentType string, body []byte) file {
	sum := sha256.Sum256(body)
	return file{contentType: contentType, body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// New makes the documentation of routes and of its own routes. An error is a
// mistake in the list: two routes alike, or a type that JSON cannot carry.
func New(routes []route.Route, info Info) (*Docs, error) {
	d := &Docs{}
	doc, err := newDocument(append(d.Routes(), routes...), info)
	if err != nil {
		return nil, err
	}
	j, y, err := doc.encode()
	if err != nil {
		return nil, err
	}
	async, err := asyncAPI(doc.Info)
	if err != nil {
		return nil, err
	}
	page, csp, err := renderPage(doc)
	if err != nil {
		return nil, err
	}
	d.openapiJSON, d.openapiYAML = newFile("application/json", j), newFile("application/yaml", y)
	d.asyncapiYAML = newFile("application/yaml", async)
	d.page = newFile("text/html; charset=utf-8", page)
	d.page.csp = csp
	return d, nil
}

// Document returns the OpenAPI document of exactly these routes, as JSON and as YAML.
func Document(routes []route.Route, info Info) (jsonDoc, yamlDoc []byte, err error) {
	doc, err := newDocument(routes, info)
	if err != nil {
		return nil, nil, err
	}
	return doc.encode()
}

// OpenAPI returns the OpenAPI document in YAML, as it is served and published.
func (d *Docs) OpenAPI() []byte { return d.openapiYAML.body }

// AsyncAPI returns the AsyncAPI document in YAML, as it is served and published.
func (d *Docs) AsyncAPI() []byte { return d.asyncapiYAML.body }

// Routes serves the documentation.
func (d *Docs) Routes() []route.Route {
	const reason = "how to use the API is no secret"
	return []route.Route{
		{Method: "GET", Path: "/v1/openapi.json", Family: route.Interop, Public: reason, Summary: "This API as an OpenAPI 3.1 document",
			Out: route.Raw{ContentType: "application/json"}, Handle: serve(&d.openapiJSON)},
		{Method: "GET", Path: "/v1/openapi.yaml", Family: route.Interop, Public: reason, Summary: "This API as an OpenAPI 3.1 document, in YAML",
			Out: route.Raw{ContentType: "application/yaml"}, Handle: serve(&d.openapiYAML)},
		{Method: "GET", Path: "/v1/asyncapi.yaml", Family: route.Interop, Public: reason, Summary: "The event channels as an AsyncAPI 2.6.0 document",
			Out: route.Raw{ContentType: "application/yaml"}, Handle: serve(&d.asyncapiYAML)},
		{Method: "GET", Path: "/docs", Family: route.Interop, Public: reason, Summary: "This API as a page for people",
			Out: route.Raw{ContentType: "text/html; charset=utf-8"}, Handle: serve(&d.page)},
	}
}

// serve answers with f, which never changes while the server runs.
func serve(f *file) func(*route.Call) (any, error) {
	return func(c *route.Call) (any, error) {
		if err := c.OnlyQuery(); err != nil {
			return nil, err
		}
		h := c.W.Header()
		h.Set("ETag", f.etag)
		h.Set("Cache-Control", "no-cache")
		if f.csp != "" {
			h.Set("Content-Security-Policy", f.csp)
			h.Set("Referrer-Policy", "no-referrer")
		}
		if c.R.Header.Get("If-None-Match") == f.etag {
			c.W.WriteHeader(http.StatusNotModified)
			return route.Written, nil
		}
		return route.Raw{ContentType: f.contentType, Body: f.body}, nil
	}
}

// encode writes the document as JSON and as YAML with the same order of keys.
func (d *document) encode() (j, y []byte, err error) {
	if j, err = indentedJSON(d); err != nil {
		return nil, nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	y, err = yamlOf(j)
	return j, y, err
}
