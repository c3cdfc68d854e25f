package apidoc

import (
	"slices"
	"strings"
)

// sample is a value that fits s, for people to see what a body looks like.
// Where fields were chosen for it by an example tag, it shows those and the
// required ones; else all of them. inside names the components it is in: of one
// that holds itself there is no value within itself, nil.
func sample(s *schema, schemas map[string]*schema, inside ...string) any {
	if name, ok := strings.CutPrefix(s.Ref, schemaRef("")); ok && schemas[name] != nil {
		if slices.Contains(inside, name) {
			return nil
		}
		s, inside = schemas[name], append(slices.Clip(inside), name)
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.OneOf) > 0:
		return sample(s.OneOf[0], schemas, inside...)
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
		if item := sample(s.Items, schemas, inside...); item != nil {
			return []any{item}
		}
		return []any{}
	}
	picked := slices.ContainsFunc(s.Properties, func(p entry[*schema]) bool { return p.Value.chosen })
	out := object{}
	for _, p := range s.Properties {
		required := slices.Contains(s.Required, p.Name)
		if picked && !p.Value.chosen && !required {
			continue
		}
		if v := sample(p.Value, schemas, inside...); v != nil || required {
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
