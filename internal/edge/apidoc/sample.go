package apidoc

import (
	"slices"
	"strings"
)

const maxSampleDepth = 8

// sample is a value that fits s, for people to see what a body looks like.
func sample(s *schema, schemas map[string]*schema, depth int) any {
	if name, ok := strings.CutPrefix(s.Ref, schemaRef("")); ok && schemas[name] != nil {
		s = schemas[name]
	}
	switch {
	case depth > maxSampleDepth:
		return nil
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.OneOf) > 0:
		return sample(s.OneOf[0], schemas, depth+1)
	}
	switch typeOf(s) {
	case "string":
		return sampleText(s)
	case "integer", "number":
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 0
	case "boolean":
		return true
	case "array":
		if item := sample(s.Items, schemas, depth+1); item != nil {
			return []any{item}
		}
		return []any{}
	}
	out := object{}
	for _, p := range s.Properties {
		if v := sample(p.Value, schemas, depth+1); v != nil || slices.Contains(s.Required, p.Name) {
			out = append(out, entry[any]{p.Name, v})
		}
	}
	return out
}

// typeOf is the schema's type; the one that is not null where there are two.
func typeOf(s *schema) string {
	switch t := s.Type.(type) {
	case string:
		return t
	case []string:
		return t[0]
	}
	return ""
}

func sampleText(s *schema) string {
	switch s.Format {
	case "date-time":
		return timeExample
	case "uuid":
		return uuidExample
	}
	if s.Encoding == "base64" {
		return "bm90aGluZw=="
	}
	return "…"
}
