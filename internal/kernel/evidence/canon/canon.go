// Package canon writes and checks the canonical JSON that event hashes, chain
// links and Merkle leaves are computed over.
//
// The form is that of Python's json.dumps(v, sort_keys=True,
// separators=(",", ":"), ensure_ascii=True), which the reference tools of the
// evidence contract hash:
//
//   - object keys ascend by Unicode code point, no key twice, no whitespace;
//   - strings are ASCII: the quote, the backslash and \b \f \n \r \t have short
//     escapes, everything else outside U+0020..U+007E is \uXXXX in lower-case
//     hex, beyond U+FFFF as a surrogate pair; "/", "<", ">" and "&" stay;
//   - integers are plain digits; a number with a fraction or an exponent is an
//     IEEE 754 double in Python's repr: 1.0, 1e+16, 1e-05, -0.0.
//
// Every value has exactly one canonical text, so canonical texts are equal if
// and only if their values are. What has no such text is an error: lone
// surrogates, invalid UTF-8, duplicate keys, numbers beyond a double, NaN.
//
// [Append] encodes Go values, [Transform] re-encodes foreign JSON, [Check] and
// [Members] recognise canonical text without copying it, which is what makes
// verification of a long log cheap.
package canon

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
)

const (
	// MaxDepth is how many objects and arrays may be nested.
	MaxDepth = 64
	// MaxBytes is the longest text that Transform, Check and Members accept.
	MaxBytes = 16 << 20
	// maxNumber is the longest number literal in bytes. Python refuses to print
	// integers of more digits, so such a value has no canonical text.
	maxNumber = 4300
)

// Append appends the canonical text of v to dst. v is built of nil, bool,
// string, int, int64, uint64, float64, json.Number, json.RawMessage, []any,
// []string, map[string]any and map[string]string; any other type is an error,
// never a guess by reflection. On error dst is returned unchanged.
func Append(dst []byte, v any) ([]byte, error) {
	out, err := appendValue(dst, v, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, kernel.Errorf(kernel.Invalid, "", "canonical JSON: nested deeper than %d", MaxDepth)
	}
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return AppendString(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	case float64:
		return appendFloat(dst, v)
	case json.Number:
		return appendNumber(dst, string(v))
	case json.RawMessage:
		return transform(dst, v, depth)
	case []any:
		return appendArray(dst, v, depth)
	case []string:
		return appendStrings(dst, v)
	case map[string]any:
		return appendMap(dst, v, depth)
	case map[string]string:
		return appendStringMap(dst, v)
	}
	return nil, fmt.Errorf("canonical JSON: no encoding for Go type %T", v)
}

func appendArray(dst []byte, a []any, depth int) ([]byte, error) {
	dst = append(dst, '[')
	var err error
	for i, e := range a {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, e, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendStrings(dst []byte, a []string) ([]byte, error) {
	dst = append(dst, '[')
	var err error
	for i, s := range a {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = AppendString(dst, s); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap(dst []byte, m map[string]any, depth int) ([]byte, error) {
	var room [32]string // most events have fewer keys, so the sort needs no heap
	keys := sortedKeys(room[:0], m)
	dst = append(dst, '{')
	var err error
	for i, k := range keys {
		if dst, err = appendKey(dst, k, i > 0); err != nil {
			return nil, err
		}
		if dst, err = appendValue(dst, m[k], depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendStringMap(dst []byte, m map[string]string) ([]byte, error) {
	var room [32]string
	keys := sortedKeys(room[:0], m)
	dst = append(dst, '{')
	var err error
	for i, k := range keys {
		if dst, err = appendKey(dst, k, i > 0); err != nil {
			return nil, err
		}
		if dst, err = AppendString(dst, m[k]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// sortedKeys orders by the bytes of UTF-8, which is the order of code points.
func sortedKeys[V any](buf []string, m map[string]V) []string {
	buf = slices.AppendSeq(buf, maps.Keys(m))
	slices.Sort(buf)
	return buf
}

func appendKey(dst []byte, k string, comma bool) ([]byte, error) {
	if comma {
		dst = append(dst, ',')
	}
	dst, err := AppendString(dst, k)
	return append(dst, ':'), err
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a canonical JSON string, quotes included. Invalid
// UTF-8, which includes encoded lone surrogates, is an error; dst is then
// returned unchanged.
func AppendString(dst []byte, s string) ([]byte, error) {
	start := len(dst)
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && class[s[j]] == plain {
			j++
		}
		dst = append(dst, s[i:j]...)
		if i = j; i == len(s) {
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return dst[:start], kernel.Errorf(kernel.Invalid, "", "string is not valid UTF-8 at byte %d", i)
		}
		dst = appendRune(dst, r)
		i += size
	}
	return append(dst, '"'), nil
}

// appendRune appends one character of a string, escaped where it must be.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20 && r < 0x7f:
		return append(dst, byte(r))
	case r < 0x20 && shortEscape[r] != 0:
		return append(dst, '\\', shortEscape[r])
	case r > 0xffff:
		r -= 0x10000
		dst = appendUnit(dst, 0xd800+(r>>10))
		return appendUnit(dst, 0xdc00+(r&0x3ff))
	}
	return appendUnit(dst, r)
}

func appendUnit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// appendFloat follows Python's repr: the shortest digits that read back as f,
// plain when 1e-4 <= |f| < 1e16, else with an exponent of at least two digits.
func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, kernel.Errorf(kernel.Invalid, "", "number is not a finite double")
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if !slices.Contains(dst[start:], '.') {
		dst = append(dst, ".0"...)
	}
	return dst, nil
}

// appendNumber appends the canonical text of a JSON number literal. Literals
// without fraction and exponent are integers of any size, as in Python.
func appendNumber(dst []byte, lit string) ([]byte, error) {
	n, integer := scanNumber(lit)
	if n == 0 || n != len(lit) {
		return nil, kernel.Errorf(kernel.Invalid, "", "%.40q is not a JSON number of at most %d bytes", lit, maxNumber)
	}
	if integer {
		if lit == "-0" {
			lit = "0"
		}
		return append(dst, lit...), nil
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return nil, kernel.Errorf(kernel.Invalid, "", "number %.40q does not fit a double", lit)
	}
	return appendFloat(dst, f)
}

// scanNumber returns the length of the JSON number that s begins with, 0 for
// none, and whether it is an integer.
func scanNumber[S string | []byte](s S) (n int, integer bool) {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i < len(s) && s[i] == '0':
		i++
	case i < len(s) && s[i] >= '1' && s[i] <= '9':
		i += digits(s[i:])
	default:
		return 0, false
	}
	integer = true
	if i+1 < len(s) && s[i] == '.' {
		d := digits(s[i+1:])
		if d == 0 {
			return 0, false
		}
		i += 1 + d
		integer = false
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		e := i + 1
		if e < len(s) && (s[e] == '+' || s[e] == '-') {
			e++
		}
		d := digits(s[e:])
		if d == 0 {
			return 0, false
		}
		i = e + d
		integer = false
	}
	if i > maxNumber {
		return 0, false
	}
	return i, integer
}

func digits[S string | []byte](s S) int {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
