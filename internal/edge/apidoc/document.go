package apidoc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"provost.dev/provost/internal/kernel/route"
)

// The objects of OpenAPI 3.1, as far as we have something to say.
type (
	document struct {
		OpenAPI    string                `json:"openapi"`
		Info       infoObject            `json:"info"`
		Servers    []server              `json:"servers"`
		Security   []map[string][]string `json:"security"`
		Tags       []tag                 `json:"tags"`
		Paths      map[string]pathItem   `json:"paths"`
		Components components            `json:"components"`
	}
	infoObject struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description"`
	}
	server struct {
		URL         string `json:"url"`
		Description string `json:"description"`
	}
	tag struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
	}
	pathItem  map[string]*operation // by method in lower case
	operation struct {
		ID          string                 `json:"operationId"`
		Summary     string                 `json:"summary"`
		Tags        []string               `json:"tags"`
		Permission  string                 `json:"x-permission,omitempty"`
		Verb        string                 `json:"x-verb,omitempty"`
		Public      string                 `json:"x-public,omitempty"`
		Security    *[]map[string][]string `json:"security,omitempty"`
		Parameters  []parameter            `json:"parameters,omitempty"`
		RequestBody *requestBody           `json:"requestBody,omitempty"`
		Responses   dict[*answer]          `json:"responses"`

		route route.Route
	}
	parameter struct {
		Ref         string  `json:"$ref,omitempty"`
		Name        string  `json:"name,omitempty"`
		In          string  `json:"in,omitempty"`
		Required    bool    `json:"required,omitempty"`
		Description string  `json:"description,omitempty"`
		Schema      *schema `json:"schema,omitempty"`
	}
	requestBody struct {
		Description string      `json:"description"`
		Required    bool        `json:"required"`
		Content     dict[media] `json:"content"`
	}
	media struct {
		Schema  *schema `json:"schema,omitempty"`
		Example any     `json:"example,omitempty"`
	}
	answer struct {
		Ref         string       `json:"$ref,omitempty"`
		Description string       `json:"description,omitempty"`
		Headers     dict[header] `json:"headers,omitempty"`
		Content     dict[media]  `json:"content,omitempty"`
	}
	header struct {
		Ref         string  `json:"$ref,omitempty"`
		Description string  `json:"description,omitempty"`
		Schema      *schema `json:"schema,omitempty"`
	}
	components struct {
		Schemas         map[string]*schema `json:"schemas"`
		Parameters      dict[parameter]    `json:"parameters"`
		Headers         dict[header]       `json:"headers"`
		Responses       map[string]*answer `json:"responses"`
		SecuritySchemes dict[object]       `json:"securitySchemes"`
	}
)

const defaultDescription = `Every change goes through one door: the caller is recognised, policy decides, the change is made, and an event
is written to the tenant's log, in one transaction. The answer's X-Event-ID and X-Evidence-Pointer say where. A refusal is
recorded as well and says which rule refused, what is missing and who can help.

Sign in with POST /v1/auth/token and send the access token as "Authorization: Bearer". Lists come in pages: ask again with
cursor set to next_cursor until there is none. Bodies are JSON; unknown fields and parameters are errors, not ignored.
What is another tenant's is answered as what does not exist.`

// newDocument describes routes.
func newDocument(routes []route.Route, info Info) (*document, error) {
	doc := &document{
		OpenAPI: "3.1.0",
		Info: infoObject{Title: cmp.Or(info.Title, "Provost"), Version: cmp.Or(info.Version, Version),
			Description: cmp.Or(info.Description, defaultDescription)},
		Servers:  []server{{URL: "/", Description: "the server this document came from"}},
		Security: []map[string][]string{{"bearer": {}}},
		Paths:    map[string]pathItem{},
	}
	d := describer{info: info, refl: &reflector{}, responses: map[string]*answer{}}
	ids, shapes, tags := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, r := range routes {
		where := r.Method + " " + r.Path
		path, shape := pathTemplate(r.Path)
		op, err := d.operation(r)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", where, err)
		}
		if other, ok := shapes[shape]; ok && other != path {
			return nil, fmt.Errorf("route %s: differs from %s only by the names of its parameters", where, other)
		}
		shapes[shape] = path
		if doc.Paths[path] == nil {
			doc.Paths[path] = pathItem{}
		}
		method := strings.ToLower(r.Method)
		if doc.Paths[path][method] != nil || ids[op.ID] {
			return nil, fmt.Errorf("route %s: listed twice, or alike another one (operationId %s)", where, op.ID)
		}
		doc.Paths[path][method], ids[op.ID], tags[op.Tags[0]] = op, true, true
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		doc.Tags = append(doc.Tags, tag{Name: name, Description: tagDocs[name]})
	}
	return doc, d.complete(doc)
}

// complete adds the components, and then the examples that rest on them.
func (d *describer) complete(doc *document) error {
	schemas, err := d.refl.finish()
	if err != nil {
		return err
	}
	for name, s := range fixedSchemas() {
		if schemas[name] != nil {
			return fmt.Errorf("a type is called %s, as one of the documentation's own schemas; rename it", name)
		}
		schemas[name] = s
	}
	doc.Components = components{Schemas: schemas, Parameters: sharedParameters, Headers: sharedHeaders, Responses: d.responses, SecuritySchemes: securitySchemes}
	for _, item := range doc.Paths {
		for _, op := range item {
			if op.RequestBody != nil {
				exemplify(op.RequestBody.Content, schemas)
			}
			for _, a := range op.Responses {
				exemplify(a.Value.Content, schemas)
			}
		}
	}
	return nil
}

func exemplify(content dict[media], schemas map[string]*schema) {
	for i, m := range content {
		if m.Value.Schema != nil && !m.Value.Schema.any() && m.Name == jsonMedia {
			content[i].Value.Example = sample(m.Value.Schema, schemas)
		}
	}
}

// pathTemplate turns a ServeMux pattern's path into OpenAPI's: {path...} becomes
// {path}, and {$} nothing. The shape is the path without its parameters' names,
// under which OpenAPI holds two paths to be the same.
func pathTemplate(pattern string) (path, shape string) {
	parts := strings.Split(strings.TrimSuffix(pattern, "{$}"), "/")
	bare := slices.Clone(parts)
	for i, p := range parts {
		if name, ok := parameterName(p); ok {
			parts[i], bare[i] = "{"+name+"}", "{}"
		}
	}
	return strings.Join(parts, "/"), strings.Join(bare, "/")
}

// parameterName returns the parameter that a segment of a pattern stands for.
func parameterName(segment string) (string, bool) {
	name, ok := strings.CutPrefix(segment, "{")
	if !ok {
		return "", false
	}
	return strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."), true
}

// operationID is stable: it depends on the method and path alone. "/v1/", which
// almost every path begins with, is left out: GET /v1/tenants/{id} is getTenantsById.
func operationID(method, pattern string) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(method))
	for _, segment := range strings.Split(strings.TrimPrefix(pattern, "/v1/"), "/") {
		if name, ok := parameterName(segment); ok {
			if name == "$" {
				continue
			}
			segment = "by_" + name
		}
		for _, w := range strings.FieldsFunc(segment, func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') }) {
			b.WriteString(title(w))
		}
	}
	return b.String()
}

// tagOf is the resource a path is about: its first segment that names one.
func tagOf(pattern string) string {
	for _, segment := range strings.Split(pattern, "/") {
		switch {
		case segment == "" || segment == "api" || segment == "v1":
			continue
		case segment == ".well-known":
			return "discovery"
		case strings.HasPrefix(segment, "openapi.") || strings.HasPrefix(segment, "asyncapi.") || segment == "docs":
			return "documentation"
		}
		return segment
	}
	return "root"
}

var tagDocs = map[string]string{
	"artifacts":        "Content-addressed bytes that events rest on: policy and authority snapshots, SBOMs, signatures.",
	"auth":             "Signing in.",
	"authorities":      "The mandates that tenants act under.",
	"decisions":        "What policy would say.",
	"discovery":        "What OpenID Connect and OAuth clients look for.",
	"documentation":    "This documentation.",
	"events":           "What happened, as it stands in the log.",
	"evidence":         "The evidence artifacts that events point to.",
	"exports":          "Bundles of events and what they rest on, for checking offline.",
	"federation":       "What this platform claims to do.",
	"images":           "What the registry holds, and what images were found to carry.",
	"log":              "The tenant's Merkle log: tiles, checkpoints and proofs (C2SP tlog-tiles).",
	"policies":         "Policies and their versions.",
	"policy-schema":    "What policies can speak about.",
	"roles":            "Sets of permissions.",
	"service-accounts": "Accounts of services and agents.",
	"tenants":          "Isolation units.",
	"trust-keys":       "Public keys whose signatures a tenant trusts.",
	"users":            "Accounts of people.",
	"whoami":           "The caller.",
	"why":              "What let something be: the events, rules, signatures and people behind it.",
	"workloads":        "What tenants run.",
}
