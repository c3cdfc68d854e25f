package acceptance

import (
	"bytes"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// apiDocument is the published OpenAPI document of the shared server. Every
// answer of that server that any test sees is held against it (API-06).
type apiDocument struct {
	operations []operation
	compiler   *jsonschema.Compiler
	mu         sync.Mutex // guards compiler and schemas
	schemas    map[string]*jsonschema.Schema
	doc        object
}

// operation is one method of one path.
type operation struct {
	method, path string
	public       bool
	spec         object
}

const documentURL = "http://provost.example/openapi.json"

var published = sync.OnceValues(func() (*apiDocument, error) {
	a, err := shared.anonymous().try("GET", "/v1/openapi.json", nil)
	if err != nil || a.status != 200 {
		return nil, fmt.Errorf("no OpenAPI document: %v %v", err, a)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
	if err != nil {
		return nil, err
	}
	d := &apiDocument{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, doc: doc.(object)}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(documentURL, doc); err != nil {
		return nil, err
	}
	paths, _ := d.doc["paths"].(object)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		methods, _ := paths[path].(object)
		for _, method := range slices.Sorted(maps.Keys(methods)) {
			spec := methods[method].(object)
			security, given := spec["security"].([]any)
			op := operation{method: strings.ToUpper(method), path: path, spec: spec}
			// Public are those that ask for nothing, or for nothing as well.
			op.public = given && (len(security) == 0 || slices.ContainsFunc(security, func(v any) bool { return len(v.(object)) == 0 }))
			d.operations = append(d.operations, op)
		}
	}
	return d, nil
})

// fits reports whether a request's path is one of the operation's.
func (o operation) fits(method, path string) bool {
	if o.method != method {
		return false
	}
	want, got := strings.Split(o.path, "/"), strings.Split(path, "/")
	for i, w := range want {
		if strings.HasPrefix(w, "{") && i == len(want)-1 && i < len(got) && strings.HasSuffix(o.path, "/tile/{path}") {
			return true // a parameter that holds slashes
		}
		if i >= len(got) || w != got[i] && !strings.HasPrefix(w, "{") || got[i] == "" && w != "" {
			return false
		}
	}
	return len(want) == len(got)
}

// find returns the operation of a request; literal segments win over parameters.
func (d *apiDocument) find(method, path string) (operation, bool) {
	var best operation
	for _, o := range d.operations {
		if o.fits(method, path) && (best.path == "" || strings.Count(o.path, "{") < strings.Count(best.path, "{")) {
			best = o
		}
	}
	return best, best.path != ""
}

func (d *apiDocument) schema(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.schemas[pointer]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile(documentURL + "#" + pointer)
	if err == nil {
		d.schemas[pointer] = s
	}
	return s, err
}

// resolve follows a $ref within the document and says where it led.
func (d *apiDocument) resolve(at string, v any) (string, object) {
	o, _ := v.(object)
	ref, ok := o["$ref"].(string)
	if !ok {
		return at, o
	}
	at = strings.TrimPrefix(ref, "#")
	o = d.doc
	for _, k := range strings.Split(at, "/")[1:] {
		o, _ = o[strings.NewReplacer("~1", "/", "~0", "~").Replace(k)].(object)
	}
	return at, o
}

func pointerTo(parts ...string) string {
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~", "~0", "/", "~1").Replace(p)
	}
	return "/" + strings.Join(parts, "/")
}

// largest is the largest answer that is validated: beyond it are pages whose
// items have been seen in smaller ones.
const largest = 128 << 10

// check holds one answer against the document: a documented status, the
// documented type, a body that fits its schema, and the documented headers.
func (d *apiDocument) check(method, path string, a *answer) error {
	path, _, _ = strings.Cut(path, "?")
	if u, err := url.PathUnescape(path); err == nil {
		path = u
	}
	op, ok := d.find(method, path)
	if !ok {
		return nil
	}
	responses, _ := op.spec["responses"].(object)
	key := strconv.Itoa(a.status)
	if a.status == 206 || a.status == 304 { // HTTP's own, where the caller asked for it
		return nil
	}
	if responses[key] == nil {
		key = "default"
	}
	if responses[key] == nil || a.status < 400 && key == "default" {
		return fmt.Errorf("%s %s: status %d is not documented", op.method, op.path, a.status)
	}
	at, response := d.resolve(pointerTo("paths", op.path, strings.ToLower(method), "responses", key), responses[key])
	headers, _ := response["headers"].(object)
	for name, h := range headers {
		if _, header := d.resolve("", h); header["required"] == true && a.header.Get(name) == "" {
			return fmt.Errorf("%s %s: %d without the documented header %s", op.method, op.path, a.status, name)
		}
	}
	content, _ := response["content"].(object)
	if len(content) == 0 {
		if len(a.body) > 0 {
			return fmt.Errorf("%s %s: %d has a body that is not documented", op.method, op.path, a.status)
		}
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	documented := slices.ContainsFunc(slices.Collect(maps.Keys(content)), func(k string) bool {
		t, _, err := mime.ParseMediaType(k)
		return err == nil && (t == mediaType || t == "*/*")
	})
	if err != nil || !documented {
		return fmt.Errorf("%s %s: %d is %q, documented are %v", op.method, op.path, a.status, a.header.Get("Content-Type"), slices.Collect(maps.Keys(content)))
	}
	if len(a.body) > largest || dig(content[mediaType], "schema") == nil || mediaType != "application/json" {
		return nil
	}
	s, err := d.schema(at + "/content/application~1json/schema")
	if err != nil {
		return fmt.Errorf("%s %s: %w", op.method, op.path, err)
	}
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
	if err == nil {
		err = s.Validate(body)
	}
	if err != nil {
		return fmt.Errorf("%s %s: the body of %d does not fit its schema: %v\n%s", op.method, op.path, a.status, err, clip(a.body))
	}
	return nil
}

func TestAPI06OpenAPIDocument(t *testing.T) {
	t.Parallel()
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := d.doc["openapi"].(string); !strings.HasPrefix(v, "3.1") {
		t.Errorf("openapi is %q", v)
	}
	if len(d.operations) < 50 {
		t.Errorf("%d operations are documented", len(d.operations))
	}
	for _, o := range d.operations { // every schema that is referred to compiles
		responses, _ := o.spec["responses"].(object)
		for status, r := range responses {
			at, response := d.resolve(pointerTo("paths", o.path, strings.ToLower(o.method), "responses", status), r)
			if dig(response, "content") == nil || response["content"].(object)["application/json"] == nil {
				continue
			}
			if _, err := d.schema(at + "/content/application~1json/schema"); err != nil {
				t.Errorf("%s %s %s: %v", o.method, o.path, status, err)
			}
		}
	}
	nobody := shared.anonymous()
	for path, mediaType := range map[string]string{"/v1/openapi.yaml": "application/yaml", "/v1/asyncapi.yaml": "application/yaml", "/docs": "text/html; charset=utf-8"} {
		if a := nobody.get(t, path).want(200); a.header.Get("Content-Type") != mediaType || len(a.body) < 1000 {
			t.Errorf("%s: %d bytes of %q", path, len(a.body), a.header.Get("Content-Type"))
		}
	}
	// The endpoints of the contract's own OpenAPI text are all there (ecs.md §8).
	for _, want := range []string{"POST /v1/tenants", "GET /v1/tenants/{id}", "PATCH /v1/tenants/{id}", "DELETE /v1/tenants/{id}", "POST /v1/tenants/{id}/suspend",
		"POST /v1/workloads", "GET /v1/workloads/{id}", "DELETE /v1/workloads/{id}", "GET /v1/events", "GET /v1/events/{id}", "GET /v1/federation/claims"} {
		if !slices.ContainsFunc(d.operations, func(o operation) bool { return o.method+" "+o.path == want }) {
			t.Errorf("%s is not documented", want)
		}
	}
}
