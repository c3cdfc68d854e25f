package manifest

import (
	"errors"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/kernel"
)

// read decodes b twice, as a reader that tells "layers" from "Layers" and as one
// that does not (Go's first JSON package, and with it most container tools), and
// refuses what the two see differently. Both refuse names given twice, invalid
// UTF-8 and anything after the document.
func read(b []byte) (wire, error) {
	var exact, folded wire
	if err := json.Unmarshal(b, &exact); err != nil {
		return wire{}, syntax(err)
	}
	if err := json.Unmarshal(b, &folded, json.MatchCaseInsensitiveNames(true)); err != nil {
		return wire{}, syntax(err)
	}
	if !reflect.DeepEqual(exact, folded) {
		return wire{}, &kernel.Error{Kind: kernel.Invalid, Code: CodeInvalid, Msg: "a member's name differs from a known one by upper and lower case only"}
	}
	return exact, nil
}

// syntax says where the document is wrong without quoting it or naming our types.
func syntax(err error) error {
	out := &kernel.Error{Kind: kernel.Invalid, Code: CodeInvalid, Msg: "is not JSON as a manifest must be", Err: err}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		out.Field, out.Msg = path(e.JSONPointer), "is not strict JSON"
		if errors.Is(e.Err, jsontext.ErrDuplicateName) {
			out.Msg = "is given twice"
		}
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		out.Field, out.Msg = path(e.JSONPointer), "has the wrong type"
		if k, ok := errors.AsType[*kernel.Error](e.Err); ok {
			out.Msg = k.Msg // a malformed digest
		}
	}
	if out.Field == "" {
		out.Field = "manifest"
	}
	return out
}

// path turns a JSON Pointer into the notation of our field names: /layers/2/size is layers[2].size.
func path(p jsontext.Pointer) string {
	var b strings.Builder
	for tok := range p.Tokens() {
		switch {
		case tok != "" && strings.Trim(tok, "0123456789") == "":
			b.WriteString("[" + tok + "]")
		case b.Len() > 0:
			b.WriteString("." + clip(tok))
		default:
			b.WriteString(clip(tok))
		}
	}
	return clip(b.String())
}
