// Package strictjson decodes JSON that strangers wrote and others will decode
// again. Two decoders that disagree about a document are a way past a
// verifier, so whatever leaves room for disagreement is an error: duplicate
// names, names that match only when case is folded, invalid UTF-8, bytes after
// the value. What could make a document cost far more than its size is
// bounded: nesting and members by Unmarshal, lists by the types that read
// them with Array.
package strictjson

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The bounds of Unmarshal.
const (
	// MaxDepth is how deep objects and arrays may nest. Real SBOMs stay below 20.
	MaxDepth = 100
	// MaxMembers is how many members one object may have. Finding duplicates
	// among millions takes seconds.
	MaxMembers = 10_000
)

// ErrLimit is in the chain of every error that says that a bound was passed.
var ErrLimit = errors.New("limit exceeded")

// Unmarshal decodes one JSON value into v, which it leaves unspecified on
// error. Members that v does not name are checked and dropped.
func Unmarshal(data []byte, v any, opts ...json.Options) error {
	if err := checkShape(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v, opts...)
}

// checkShape scans brackets and colons outside strings. It accepts things
// that are not JSON; the decoder says so afterwards.
func checkShape(data []byte) error {
	var members [MaxDepth + 1]int // of the open objects; [0] is outside of all
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++ // the escaped byte cannot end the string
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("JSON is nested deeper than %d at byte %d: %w", MaxDepth, i, ErrLimit)
			}
			members[depth] = 0
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return nil // not JSON
			}
		case c == ':':
			if members[depth]++; members[depth] > MaxMembers {
				return fmt.Errorf("JSON object has more than %d members at byte %d: %w", MaxMembers, i, ErrLimit)
			}
		}
	}
	return nil
}

// Array reads an array from dec, or null as an empty one. It calls element
// for each of at most max elements, which must read exactly that value.
func Array(dec *jsontext.Decoder, max int, element func() error) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '[':
	default:
		return errors.New("not an array")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for n := 0; dec.PeekKind() != ']'; n++ {
		if n == max {
			return fmt.Errorf("more than %d elements: %w", max, ErrLimit)
		}
		if err := element(); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// AppendArray is Array for elements that are kept.
func AppendArray[T any](dec *jsontext.Decoder, list *[]T, max int) error {
	return Array(dec, max, func() error {
		var one T
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		*list = append(*list, one)
		return nil
	})
}
