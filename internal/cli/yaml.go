package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeYAML writes JSON as YAML, keys in their order and numbers as written.
func writeYAML(w io.Writer, raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	node, err := yamlNode(d)
	if err != nil {
		return fmt.Errorf("print YAML: %w", err)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return fmt.Errorf("print YAML: %w", err)
	}
	return enc.Close()
}

// yamlNode reads the next JSON value. Its depth is bounded by encoding/json.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		return yamlCollection(d, t)
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t, Style: stringStyle(t)}, nil
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// stringStyle quotes what YAML 1.1 readers would take for a boolean, and keeps
// the lines of longer texts. For all else the encoder knows best.
func stringStyle(s string) yaml.Style {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		return yaml.DoubleQuotedStyle
	}
	if strings.Contains(s, "\n") {
		return yaml.LiteralStyle
	}
	return 0
}

func yamlCollection(d *json.Decoder, open json.Delim) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	if open == '[' {
		node.Kind = yaml.SequenceNode
	}
	for d.More() {
		child, err := yamlNode(d) // in an object keys and values alternate
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	_, err := d.Token() // the end
	return node, err
}
