package apidoc

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"provost.dev/provost/internal/kernel/route"
)

func TestOpenAPIIsValid(t *testing.T) {
	d := widgetDocs(t)
	doc := parseJSON(t, d.openapiJSON.body)
	if err := officialSchema(t, "openapi-3.1.schema.json.gz").Validate(doc); err != nil {
		t.Fatalf("%#v", err)
	}
	if y := parseYAML(t, d.OpenAPI()); !reflect.DeepEqual(doc, y) {
		t.Error("the YAML document says something else than the JSON one")
	}
	schema := compile(t, doc, jsonschema.Draft2020)
	for name := range at(t, doc, "components", "schemas").(map[string]any) {
		schema(name)
	}
}

// What is published is valid as well: it is made of the real routes.
func TestPublishedDocumentsAreValid(t *testing.T) {
	for name, schema := range map[string]string{"openapi.yaml": "openapi-3.1.schema.json.gz", "asyncapi.yaml": "asyncapi-2.6.0.schema.json.gz"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "api", name))
		if err != nil {
			t.Fatal(err)
		}
		doc := parseYAML(t, b)
		if err := officialSchema(t, schema).Validate(doc); err != nil {
			t.Errorf("%s: %#v", name, err)
		}
		if name == "openapi.yaml" {
			checkExamples(t, doc)
		}
	}
}

// Every example that the document shows is one that its schema takes.
func TestExamplesFitTheirSchemas(t *testing.T) {
	if n := checkExamples(t, parseJSON(t, widgetDocs(t).openapiJSON.body)); n < 20 {
		t.Errorf("%d examples, want those of all bodies", n)
	}
}

// checkExamples holds every body's example against its schema and returns how many there are.
func checkExamples(t *testing.T, doc any) (n int) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	const url = "https://schema.test/doc.json"
	if err := c.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	var walk func(v any, pointer string)
	walk = func(v any, pointer string) {
		m, ok := v.(map[string]any)
		if !ok {
			return // bodies are in no list
		}
		if example, ok := m["example"]; ok && m["schema"] != nil {
			s, err := c.Compile(url + "#" + pointer + "/schema")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(example); err != nil {
				t.Errorf("%s: %v", pointer, err)
			}
			n++
		}
		for name, inner := range m {
			walk(inner, pointer+"/"+escape.Replace(name))
		}
	}
	walk(doc, "")
	return n
}

// What Go writes is what the schemas describe.
func TestSchemasDescribeWhatGoWrites(t *testing.T) {
	schema := compile(t, parseJSON(t, widgetDocs(t).openapiJSON.body), jsonschema.Draft2020)
	now := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	full := widget{ID: "w", State: "idle", Size: -1, Ratio: 0.5, Parts: []part{{Name: "p", On: true, Tags: []string{"a"}}}, Labels: map[string]string{"a": "b"}, Ended: &now,
		Left: new(int64), Parent: &widget{State: "busy", Parts: []part{}}, Report: json.RawMessage(`[1,{"x":null}]`), Sum: []byte{1, 2}, Count: 7, Big: 1 << 60, Since: now}
	full.private = 1
	for name, v := range map[string]any{"Widget": full, "WidgetPage": route.Page[widget]{Items: []widget{full, {State: "idle", Parts: []part{}}}, NextCursor: "x"}, "Part": full.Parts[0]} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema(name).Validate(parseJSON(t, b)); err != nil {
			t.Errorf("%s as Go writes it: %v", name, err)
		}
	}
	for name, bad := range map[string][]string{
		"Widget":              {`{}`, `{"id":"w"}`, `[]`},
		"Part":                {`{"name":"p","on":true}`, `{"name":1,"on":true,"tags":[]}`, `{"name":"p","on":"yes","tags":[]}`},
		"CreateWidgetRequest": {`{}`, `{"name":"w","unknown":1}`, `{"name":"w","parts":[{"nme":"x"}]}`, `{"name":"w","kind":7}`},
		"InteropError":        {`{"error":{"code":"X","message":"m"}}`},
		"NestedError":         {`{"code":"X","message":"m"}`},
	} {
		for _, b := range bad {
			if schema(name).Validate(parseJSON(t, []byte(b))) == nil {
				t.Errorf("%s takes %s", name, b)
			}
		}
	}
	for name, good := range map[string][]string{
		"Part":                {`{"name":"p","on":true,"tags":[],"added later":1}`},
		"CreateWidgetRequest": {`{"name":"w"}`, `{"name":"w","kind":"a","parts":[{}]}`, `{"name":"w","kind":["a","b"]}`},
	} {
		for _, b := range good {
			if err := schema(name).Validate(parseJSON(t, []byte(b))); err != nil {
				t.Errorf("%s refuses %s: %v", name, b, err)
			}
		}
	}
}

func TestOperations(t *testing.T) {
	doc := parseJSON(t, widgetDocs(t).openapiJSON.body)
	for _, c := range []struct {
		path, method string
		id, tag      string
		permission   string
		statuses     string
	}{
		{"/v1/widgets", "post", "postWidgets", "widgets", "widgets.write", "201 400 401 403 409 413 415 429 500 503 default"},
		{"/v1/widgets", "get", "getWidgets", "widgets", "widgets.read", "200 400 401 403 404 429 500 503 default"},
		{"/v1/widgets/{id}", "get", "getWidgetsById", "widgets", "widgets.read", "200 400 401 403 404 429 500 503 default"},
		{"/v1/widgets/{id}", "delete", "deleteWidgetsById", "widgets", "widgets.write", "204 400 401 403 404 409 429 500 503 default"},
		{"/v1/widgets/{id}/files/{path}", "get", "getWidgetsByIdFilesByPath", "widgets", "widgets.read", "200 400 401 403 404 429 500 503 default"},
		{"/ws/{channel}", "get", "getWsByChannel", "ws", "widgets.read", "101 400 401 403 404 429 500 503 default"},
		{"/v1/auth/token", "post", "postAuthToken", "auth", "", "200 400 401 403 413 415 429 500 503 default"},
		{"/.well-known/things", "get", "getWellKnownThings", "discovery", "", "200 429 500 503 default"},
		{"/v1/openapi.json", "get", "getOpenapiJson", "documentation", "", "200 429 500 503 default"},
		{"/docs", "get", "getDocs", "documentation", "", "200 429 500 503 default"},
	} {
		op := at(t, doc, "paths", c.path, c.method).(map[string]any)
		if op["operationId"] != c.id || at(t, op, "tags").([]any)[0] != c.tag {
			t.Errorf("%s %s is %v tagged %v, want %s, %s", c.method, c.path, op["operationId"], op["tags"], c.id, c.tag)
		}
		if p, _ := op["x-permission"].(string); p != c.permission {
			t.Errorf("%s %s needs %q, want %q", c.method, c.path, p, c.permission)
		}
		statuses := slices.Sorted(maps.Keys(op["responses"].(map[string]any)))
		if got := strings.Join(statuses, " "); got != c.statuses {
			t.Errorf("%s %s answers %s, want %s", c.method, c.path, got, c.statuses)
		}
	}
}

func TestSecurityHeadersAndParameters(t *testing.T) {
	doc := parseJSON(t, widgetDocs(t).openapiJSON.body)
	text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{"security"}, `[{"bearer":[]}]`},
		{[]string{"paths", "/v1/auth/token", "post", "security"}, `[{},{"basic":[]}]`},
		{[]string{"paths", "/docs", "get", "security"}, `[]`},
		{[]string{"paths", "/v1/auth/token", "post", "requestBody", "description"}, `"At most 16 KiB."`},
		{[]string{"paths", "/v1/auth/token", "post", "responses", "401", "$ref"}, `"#/components/responses/Task401"`},
		{[]string{"components", "responses", "Task401", "content", "application/json", "schema", "$ref"}, `"#/components/schemas/NestedError"`},
		{[]string{"components", "responses", "Interop401", "content", "application/json", "schema", "$ref"}, `"#/components/schemas/InteropError"`},
		{[]string{"paths", "/v1/happenings/{id}", "get", "responses", "200", "content", "application/json", "schema", "$ref"}, `"#/components/schemas/Event"`},
		{[]string{"components", "schemas", "Widget", "properties", "ended", "type"}, `["string","null"]`},
		{[]string{"components", "schemas", "Widget", "properties", "state", "enum"}, `["idle","busy"]`},
		{[]string{"components", "schemas", "CreateWidgetRequest", "additionalProperties"}, `false`},
		{[]string{"components", "schemas", "CreateWidgetRequest", "properties", "jurisdiction", "description"}, text(vocabulary["jurisdiction"].doc)},
		{[]string{"paths", "/v1/widgets", "post", "requestBody", "content", "application/json", "example"}, `{"kind":"a b","name":"w"}`},
	} {
		if got := text(at(t, doc, c.path...)); got != c.want {
			t.Errorf("%s is %s, want %s", strings.Join(c.path, " "), got, c.want)
		}
	}
	created := at(t, doc, "paths", "/v1/widgets", "post", "responses", "201", "headers").(map[string]any)
	if got := slices.Sorted(maps.Keys(created)); !slices.Equal(got, []string{"Location", "X-Correlation-ID", "X-Event-ID", "X-Evidence-Pointer", "X-Request-Duration"}) {
		t.Errorf("a creation's headers are %v", got)
	}
	if got := text(at(t, doc, "paths", "/v1/widgets/{id}/files/{path}", "get", "parameters").([]any)[1]); !strings.Contains(got, `"in":"path"`) || !strings.Contains(got, "slashes") {
		t.Errorf("a wildcard is described as %s", got)
	}
	if m := at(t, doc, "paths", "/v1/auth/token", "post", "requestBody", "content").(map[string]any); m[formMedia] == nil {
		t.Error("the token endpoint takes forms, and the document does not say so")
	}
}

func TestWrongListsAreRefused(t *testing.T) {
	ok := route.Route{Method: "GET", Path: "/v1/a", Family: route.Interop, Verb: "widget.read", Summary: "A", Out: part{}}
	with := func(change func(*route.Route)) []route.Route {
		r := ok
		change(&r)
		return []route.Route{ok, r}
	}
	for want, routes := range map[string][]route.Route{
		"listed twice":              {ok, ok},
		"has no summary":            with(func(r *route.Route) { r.Path, r.Summary = "/v1/b", "" }),
		`family "soap"`:             with(func(r *route.Route) { r.Path, r.Family = "/v1/b", "soap" }),
		`verb "widget.eat"`:         with(func(r *route.Route) { r.Path, r.Verb = "/v1/b", "widget.eat" }),
		"no JSON form":              with(func(r *route.Route) { r.Path, r.Out = "/v1/b", struct{ C chan int }{} }),
		"names of its parameters":   {{Method: "GET", Path: "/v1/{a}/x", Family: route.Interop, Summary: "A"}, {Method: "PUT", Path: "/v1/{b}/x", Family: route.Interop, Summary: "B"}},
		"own schemas; rename it":    with(func(r *route.Route) { r.Path, r.Out = "/v1/b", Event{} }),
		"JSONSchema of":             with(func(r *route.Route) { r.Path, r.Out = "/v1/b", misstated{} }),
		`alike another one`:         with(func(r *route.Route) { r.Path = "/v1//a" }),
		"field x of apidoc.misread": with(func(r *route.Route) { r.Path, r.Out = "/v1/b", misread{} }),
	} {
		_, _, err := Document(routes, Info{Schema: widgetSchema(t)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// Event has the name of one of the documentation's own schemas.
type Event struct{ A int }

type misstated struct{}

func (misstated) JSONSchema() string { return `{"typo": "string"}` }

type misread struct {
	X int `json:"x" example:"seven"`
}

// Two types of one name are told apart by their packages.
func TestNamesOfTypes(t *testing.T) {
	type Page struct{ A int }
	_, _, err := Document([]route.Route{{Method: "GET", Path: "/v1/a", Family: route.Interop, Summary: "A", Out: Page{}},
		{Method: "GET", Path: "/v1/b", Family: route.Interop, Summary: "B", Out: route.Route{}.Query}}, Info{})
	if err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		v    any
		dir  direction
		want string
	}{
		{widget{}, response, "Widget"}, {widget{}, request, "WidgetRequest"}, {createWidget{}, request, "CreateWidgetRequest"},
		{route.Page[widget]{}, response, "WidgetPage"}, {route.Page[string]{}, response, "StringPage"}, {route.Page[route.Param]{}, response, "ParamPage"},
	} {
		if got := typeName(reflect.TypeOf(c.v), c.dir); got != c.want {
			t.Errorf("%T is called %s, want %s", c.v, got, c.want)
		}
	}
	j, _, err := Document([]route.Route{{Method: "GET", Path: "/v1/a", Family: route.Interop, Summary: "A", Out: route.Param{}},
		{Method: "GET", Path: "/v1/b", Family: route.Interop, Summary: "B", Out: Param{}}}, Info{})
	if err != nil {
		t.Fatal(err)
	}
	schemas := at(t, parseJSON(t, j), "components", "schemas").(map[string]any)
	if schemas["RouteParam"] == nil || schemas["ApidocParam"] == nil || schemas["Param"] != nil {
		t.Errorf("two types called Param became %v", slices.Sorted(maps.Keys(schemas)))
	}
}

// Param has the name of a type of another package.
type Param struct{ B int }

// The document is a function of the routes: neither their order nor the run changes it.
func TestDocumentIsStable(t *testing.T) {
	routes := widgetRoutes()
	first, _, err := Document(routes, Info{})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(routes)
	second, _, err := Document(routes, Info{})
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Error("the order of routes changes the document")
	}
}
