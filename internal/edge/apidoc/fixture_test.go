package apidoc

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// A small API that has one of everything.

type widget struct {
	ID      string             `json:"id"`
	State   string             `json:"state" doc:"what it does" enum:"idle,busy"`
	Size    int64              `json:"size"`
	Ratio   float64            `json:"ratio"`
	Parts   []part             `json:"parts"`
	Labels  map[string]string  `json:"labels,omitempty"`
	Ended   *time.Time         `json:"ended"`
	Left    *int64             `json:"left,omitempty"`
	Parent  *widget            `json:"parent,omitempty"`
	Report  json.RawMessage    `json:"report,omitempty"`
	Sum     []byte             `json:"sum,omitempty"`
	Count   uint32             `json:"count"`
	Big     int64              `json:"big,string"`
	Since   time.Time          `json:"since,omitzero"`
	Box     struct{ W, H int } `json:"box"`
	Skipped string             `json:"-"`
	stamps
	private int
}

type stamps struct {
	CreatedBy string `json:"created_by"`
}

type part struct {
	Name string   `json:"name"`
	On   bool     `json:"on"`
	Tags []string `json:"tags"`
}

type createWidget struct {
	Name         string `json:"name" required:"true" example:"w"`
	Jurisdiction string `json:"jurisdiction"`
	Parts        []part `json:"parts,omitempty"`
	Kind         words  `json:"kind" example:"\"a b\""`
}

// words is one string or several: encoding/json knows it by its methods only.
type words []string

func (*words) UnmarshalJSON([]byte) error { return nil }

func (words) JSONSchema() string {
	return `{"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}`
}

// anEvent is one of the log's.
type anEvent json.RawMessage

func (anEvent) JSONSchema() string { return `{"$ref": "#/components/schemas/Event"}` }

func handle(*route.Call) (any, error) { return nil, nil }

func widgetRoutes() []route.Route {
	return []route.Route{
		{Method: "POST", Path: "/v1/widgets", Family: route.Interop, Verb: "widget.create", Summary: "Make a <widget>", In: createWidget{}, Out: widget{}, Status: 201, Handle: handle},
		{Method: "GET", Path: "/v1/widgets", Family: route.Interop, Verb: "widget.read", Summary: "List widgets",
			Query: []route.Param{{Name: "limit", Doc: "items per page"}, {Name: "cursor"}, {Name: "from_sequence"}}, Out: route.Page[widget]{}, Handle: handle},
		{Method: "GET", Path: "/v1/widgets/{id}", Family: route.Interop, Verb: "widget.read", Summary: "Get a widget", Out: &widget{}, Handle: handle},
		{Method: "DELETE", Path: "/v1/widgets/{id}", Family: route.Interop, Verb: "widget.create", Summary: "Scrap a widget", Status: 204, Handle: handle},
		{Method: "GET", Path: "/v1/widgets/{id}/files/{path...}", Family: route.Interop, Verb: "widget.read", Summary: "A widget's file", Out: route.Raw{ContentType: "text/plain"}, Handle: handle},
		{Method: "GET", Path: "/v1/happenings/{id}", Family: route.Interop, Verb: "widget.read", Summary: "An event", Out: anEvent{}, Handle: handle},
		{Method: "GET", Path: "/ws/{channel}", Family: route.Interop, Verb: "widget.read", Summary: "Messages", Status: 101, Handle: handle},
		{Method: "POST", Path: "/v1/auth/token", Family: route.Task, Public: "it is how one signs in", Summary: "Sign in", In: createWidget{}, Out: part{}, MaxBody: 16 << 10, Handle: handle},
		{Method: "GET", Path: "/.well-known/things", Family: route.OAuth, Public: "clients read it first", Summary: "Discovery", Handle: handle},
	}
}

func widgetSchema(t testing.TB) *policy.Schema {
	t.Helper()
	s, err := policy.NewSchema(policy.Declaration{Resources: []policy.ResourceType{{Name: "Widget", Doc: "A thing."}},
		Actions: []policy.Action{{Verb: "widget.create", Resource: "Widget", Permission: "widgets.write"}, {Verb: "widget.read", Resource: "Widget", Permission: "widgets.read"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func widgetDocs(t testing.TB) *Docs {
	t.Helper()
	d, err := New(widgetRoutes(), Info{Schema: widgetSchema(t)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// parseJSON reads a document for jsonschema, which wants numbers as they are written.
func parseJSON(t testing.TB, b []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// parseYAML reads a YAML document as parseJSON would read it as JSON.
func parseYAML(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parseJSON(t, j)
}

// officialSchema compiles one of the specifications' own schemas.
func officialSchema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	const url = "https://schema.test/spec.json"
	if err := c.AddResource(url, parseJSON(t, b)); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile(url)
}

// compile returns the compiled schemas under doc's components.
func compile(t testing.TB, doc any, dialect *jsonschema.Draft) func(name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(dialect)
	c.AssertFormat()
	const url = "https://schema.test/doc.json"
	if err := c.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}
	return func(name string) *jsonschema.Schema {
		t.Helper()
		s, err := c.Compile(url + schemaRef(name))
		if err != nil {
			t.Fatalf("schema %s: %v", name, err)
		}
		return s
	}
}

// at walks into a parsed document.
func at(t testing.TB, v any, path ...string) any {
	t.Helper()
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok || m[name] == nil {
			t.Fatalf("no %q on the way %q in %v", name, path, v)
		}
		v = m[name]
	}
	return v
}
