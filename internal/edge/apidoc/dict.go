package apidoc

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// dict is a JSON object whose names keep their order: the documents are read by people, too.
type dict[V any] []entry[V]

type entry[V any] struct {
	Name  string
	Value V
}

// object is a dict written as a literal.
type object = dict[any]

func (d dict[V]) get(name string) (v V, ok bool) {
	for _, e := range d {
		if e.Name == name {
			return e.Value, true
		}
	}
	return v, false
}

// MarshalJSON writes the entries in their order.
func (d dict[V]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := plainJSON(e.Name)
		if err != nil {
			return nil, err
		}
		value, err := plainJSON(e.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads the entries in their order.
func (d *dict[V]) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("want a JSON object: %w", err)
	}
	*d = nil
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		e := entry[V]{Name: t.(string)} // a name, the decoder sees to it
		if err := dec.Decode(&e.Value); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		*d = append(*d, e)
	}
	return nil
}

// plainJSON is json.Marshal without escapes for HTML: nothing here is pasted
// into a page as it is.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// indentedJSON is plainJSON over several lines, ending in one.
func indentedJSON(v any) ([]byte, error) {
	b, err := plainJSON(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// yamlOf turns a JSON document into block YAML. JSON is YAML as well: reading
// it as such keeps the order of keys and the types of values.
func yamlOf(j []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(j, &n); err != nil {
		return nil, fmt.Errorf("read document as YAML: %w", err)
	}
	block(&n)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

// block clears the flow style; the encoder quotes again what needs it.
func block(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		block(c)
	}
}
