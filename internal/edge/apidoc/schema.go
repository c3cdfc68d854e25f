package apidoc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// schema is the part of JSON Schema 2020-12 that our bodies need.
type schema struct {
	Ref         string `json:"$ref,omitempty"`
	Type        any    `json:"type,omitempty"` // a name, or a list of them
	Format      string `json:"format,omitempty"`
	Description string `json:"description,omitempty"`
	Enum        []any  `json:"enum,omitempty"`
	Pattern     string `json:"pattern,omitempty"`
	Minimum     *int64 `json:"minimum,omitempty"`
	Maximum     *int64 `json:"maximum,omitempty"`
	Default     any    `json:"default,omitempty"`
	Encoding    string `json:"contentEncoding,omitempty"`

	Items      *schema       `json:"items,omitempty"`
	Properties dict[*schema] `json:"properties,omitempty"`
	Required   []string      `json:"required,omitempty"`
	Additional any           `json:"additionalProperties,omitempty"` // false, or a *schema
	OneOf      []*schema     `json:"oneOf,omitempty"`
	AllOf      []*schema     `json:"allOf,omitempty"`
	Examples   []any         `json:"examples,omitempty"`

	target *component // what Ref will name
	chosen bool       // its field's tag has an example: the body's example shows it
}

// stater is a type that states its own schema.
type stater interface{ JSONSchema() string }

// direction is which way a body goes: what a client sends must hold nothing
// else, what it gets may hold more than it knows.
type direction int

const (
	request direction = iota
	response
)

// component is a named type in one direction.
type component struct {
	typ  reflect.Type
	dir  direction
	name string
	body *schema
}

// reflector turns Go types into schemas. Named structs become components,
// named at the end, when it is known which names are taken twice.
type reflector struct {
	components []*component
	refs       []*schema
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	staterType   = reflect.TypeFor[stater]()
	textType     = reflect.TypeFor[encoding.TextMarshaler]()
	readTextType = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType     = reflect.TypeFor[json.Marshaler]()
	readJSONType = reflect.TypeFor[json.Unmarshaler]()
)

// schemaOf is the schema of t's JSON form.
func (r *reflector) schemaOf(t reflect.Type, dir direction) (*schema, error) {
	switch {
	case t.Kind() == reflect.Pointer:
		return r.schemaOf(t.Elem(), dir)
	case implements(t, staterType):
		return stated(t)
	case t == timeType:
		return &schema{Type: "string", Format: "date-time"}, nil
	case t == durationType:
		return &schema{Type: "integer", Format: "int64", Description: "nanoseconds"}, nil
	case t == rawType || t.Kind() == reflect.Interface || implements(t, jsonType) || implements(t, readJSONType):
		return &schema{}, nil // any JSON
	case implements(t, textType) || implements(t, readTextType):
		return &schema{Type: "string"}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return &schema{Type: "string"}, nil
	case reflect.Bool:
		return &schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer", Format: "int64"}, nil
	case reflect.Int8, reflect.Int16, reflect.Int32:
		return &schema{Type: "integer", Format: "int32"}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: new(int64)}, nil
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}, nil
	case reflect.Slice, reflect.Array:
		return r.list(t, dir)
	case reflect.Map:
		return r.mapping(t, dir)
	case reflect.Struct:
		if t.Name() == "" {
			return r.structure(t, dir)
		}
		return r.reference(t, dir)
	}
	return nil, fmt.Errorf("type %v has no JSON form", t)
}

func implements(t, iface reflect.Type) bool {
	return t.Implements(iface) || reflect.PointerTo(t).Implements(iface)
}

// stated reads the schema that a type states. Keywords that schema does not
// have are an error, so that none is lost.
func stated(t reflect.Type) (*schema, error) {
	text := reflect.New(t).Interface().(stater).JSONSchema()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	s := &schema{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("JSONSchema of %v: %w", t, err)
	}
	return s, nil
}

func (r *reflector) list(t reflect.Type, dir direction) (*schema, error) {
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
		return &schema{Type: "string", Encoding: "base64"}, nil
	}
	items, err := r.schemaOf(t.Elem(), dir)
	return &schema{Type: "array", Items: items}, err
}

func (r *reflector) mapping(t reflect.Type, dir direction) (*schema, error) {
	values, err := r.schemaOf(t.Elem(), dir)
	return &schema{Type: "object", Additional: values}, err
}

// reference returns a reference to t's component, made on first use.
func (r *reflector) reference(t reflect.Type, dir direction) (*schema, error) {
	i := slices.IndexFunc(r.components, func(c *component) bool { return c.typ == t && c.dir == dir })
	if i < 0 {
		i = len(r.components)
		c := &component{typ: t, dir: dir}
		r.components = append(r.components, c) // before its fields, which may refer back to it
		var err error
		if c.body, err = r.structure(t, dir); err != nil {
			return nil, err
		}
	}
	s := &schema{target: r.components[i]}
	r.refs = append(r.refs, s)
	return s, nil
}

func (r *reflector) structure(t reflect.Type, dir direction) (*schema, error) {
	s := &schema{Type: "object"}
	if dir == request {
		s.Additional = false
	}
	return s, r.fields(s, t, dir)
}

// fields adds t's fields, and those of structs embedded in it, to s.
func (r *reflector) fields(s *schema, t reflect.Type, dir direction) error {
	for f := range fieldsOf(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" {
			continue
		}
		if inner := pointed(f.Type); f.Anonymous && name == "" && inner.Kind() == reflect.Struct {
			if err := r.fields(s, inner, dir); err != nil {
				return err
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		p, err := r.schemaOf(f.Type, dir)
		if err != nil {
			return fmt.Errorf("field %s of %v: %w", name, t, err)
		}
		optional := hasOption(options, "omitempty") || hasOption(options, "omitzero")
		if hasOption(options, "string") {
			p = &schema{Type: "string"}
		}
		if f.Type.Kind() == reflect.Pointer && !optional && dir == response {
			p = nullable(p)
		}
		if p, err = annotate(p, name, f.Tag); err != nil {
			return fmt.Errorf("field %s of %v: %w", name, t, err)
		}
		s.Properties = append(s.Properties, entry[*schema]{name, p})
		if f.Tag.Get("required") == "true" || dir == response && !optional {
			s.Required = append(s.Required, name)
		}
	}
	return nil
}

// fieldsOf ranges over the fields of a struct type.
func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

func pointed(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

func hasOption(options, name string) bool {
	return slices.Contains(strings.Split(options, ","), name)
}

// nullable is s or null.
func nullable(s *schema) *schema {
	if name, ok := s.Type.(string); ok && s.target == nil {
		s.Type = []string{name, "null"}
		return s
	}
	return &schema{OneOf: []*schema{s, {Type: "null"}}}
}

// annotate adds what a field's tags, or else the vocabulary, say about it.
func annotate(s *schema, name string, tag reflect.StructTag) (*schema, error) {
	w := vocabulary[name]
	if d := tag.Get("doc"); d != "" {
		w = word{doc: d, example: w.example}
	}
	if e := tag.Get("example"); e != "" {
		s.chosen, w.example = true, e
		if typeOf(s) != "string" && !(typeOf(s) == "array" && typeOf(s.Items) == "string") {
			if err := json.Unmarshal([]byte(e), &w.example); err != nil {
				return nil, fmt.Errorf("example %q: %w", e, err)
			}
		}
	}
	if s.Description == "" || tag.Get("doc") != "" {
		s.Description = w.doc
	}
	if s.target != nil || s.Ref != "" {
		return s, nil // the rest is its component's to say
	}
	into := s
	if typeOf(s) == "array" && s.Items.target == nil {
		into = s.Items // an enum or example is of one item
	}
	if e := tag.Get("enum"); e != "" {
		for _, v := range strings.Split(e, ",") {
			into.Enum = append(into.Enum, v)
		}
	}
	if fits(into, w.example) && len(into.Examples) == 0 && (len(into.Enum) == 0 || slices.Contains(into.Enum, w.example)) {
		into.Examples = []any{w.example}
	}
	return s, nil
}

// fits reports whether an example is of the schema's type: the same word may
// be a text in one body and an object in another.
func fits(s *schema, example any) bool {
	is := "null"
	switch example.(type) {
	case string:
		is = "string"
	case int, float64:
		is = "integer"
	case bool:
		is = "boolean"
	case []any:
		is = "array"
	case map[string]any:
		is = "object"
	}
	return is != "null" && (is == typeOf(s) || s.any() || slices.ContainsFunc(s.OneOf, func(s *schema) bool { return fits(s, example) }))
}

// any reports whether s takes every JSON value.
func (s *schema) any() bool {
	return s.Type == nil && s.Ref == "" && s.target == nil && s.OneOf == nil && s.AllOf == nil && s.Enum == nil
}

// finish names the components and resolves the references to them.
func (r *reflector) finish() (map[string]*schema, error) {
	plain := map[string]int{}
	for _, c := range r.components {
		c.name = typeName(c.typ, c.dir)
		plain[c.name]++
	}
	out := map[string]*schema{}
	for _, c := range r.components {
		if plain[c.name] > 1 {
			c.name = title(packageName(c.typ)) + c.name
		}
		if out[c.name] != nil {
			return nil, fmt.Errorf("two types are called %s in the documentation; rename one: %v", c.name, c.typ)
		}
		out[c.name] = c.body
	}
	for _, s := range r.refs {
		s.Ref = schemaRef(s.target.name)
	}
	return out, nil
}

func schemaRef(name string) string { return "#/components/schemas/" + name }

// typeName is a struct type's name in the documents: Page[tenant.Tenant] is
// TenantPage, and what is sent ends in Request.
func typeName(t reflect.Type, dir direction) string {
	base, arg, generic := strings.Cut(t.Name(), "[")
	name := title(base)
	if generic {
		arg = strings.TrimSuffix(arg, "]")
		name = title(arg[strings.LastIndexAny(arg, "./")+1:]) + name
	}
	if dir == request && !strings.HasSuffix(name, "Request") {
		name += "Request"
	}
	return name
}

func packageName(t reflect.Type) string {
	return t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]
}

// title is s with its first letter, which is ASCII in our names, capitalised.
func title(s string) string {
	b := []byte(s)
	if len(b) > 0 {
		copy(b, bytes.ToUpper(b[:1]))
	}
	return string(b)
}
