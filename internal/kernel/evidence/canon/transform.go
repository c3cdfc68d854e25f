package canon

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
)

// Transform appends the canonical text of raw, any RFC 8259 text with one value
// and optional whitespace around it, to dst. Duplicate keys, invalid UTF-8, lone
// surrogates, more than MaxDepth levels and more than MaxBytes are errors of
// kind Invalid (TooLarge for the last) that name the offset; dst is then
// returned unchanged. raw and dst must not overlap.
func Transform(dst, raw []byte) ([]byte, error) {
	out, err := transform(dst, raw, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func transform(dst, raw []byte, depth int) ([]byte, error) {
	if len(raw) > MaxBytes {
		return nil, kernel.Errorf(kernel.TooLarge, "", "JSON of %d bytes, at most %d are read", len(raw), MaxBytes)
	}
	t := transformer{src: raw, dst: dst, depth: depth}
	t.space()
	if err := t.value(); err != nil {
		return nil, err
	}
	t.space()
	if t.pos != len(raw) {
		return nil, t.errorf("data after the JSON value")
	}
	return t.dst, nil
}

// transformer reads src from pos and appends to dst.
type transformer struct {
	src, dst []byte
	pos      int
	depth    int
	members  []span // of the objects being read, innermost last
	scratch  []byte // for reordering
}

// span is one member of an object in dst: "key":value at [start,end), the
// key's text without quotes at [start+1,keyEnd).
type span struct {
	start, keyEnd, end int
	escaped            bool // the key has an escape
}

func (t *transformer) errorf(format string, args ...any) error {
	return syntaxError(t.pos, format, args...)
}

func syntaxError(pos int, format string, args ...any) error {
	return kernel.Errorf(kernel.Invalid, "", "JSON at byte %d: %s", pos, fmt.Sprintf(format, args...))
}

func (t *transformer) space() {
	for t.pos < len(t.src) {
		switch t.src[t.pos] {
		case ' ', '\t', '\n', '\r':
			t.pos++
		default:
			return
		}
	}
}

func (t *transformer) peek() byte {
	if t.pos < len(t.src) {
		return t.src[t.pos]
	}
	return 0 // never legal where peek is asked
}

func (t *transformer) value() error {
	switch t.peek() {
	case '{', '[':
		return t.nested()
	case '"':
		return t.string()
	case 't', 'f', 'n':
		return t.literal()
	default:
		return t.number()
	}
}

func (t *transformer) nested() (err error) {
	if t.depth++; t.depth > MaxDepth {
		return t.errorf("nested deeper than %d", MaxDepth)
	}
	if t.peek() == '{' {
		err = t.object()
	} else {
		err = t.array()
	}
	t.depth--
	return err
}

func (t *transformer) literal() error {
	n := literal(t.src[t.pos:])
	if n == 0 {
		return t.errorf("not a JSON value")
	}
	t.dst = append(t.dst, t.src[t.pos:t.pos+n]...)
	t.pos += n
	return nil
}

// literal returns the length of true, false or null at the start of s, else 0.
func literal(s []byte) int {
	for _, w := range [...]string{"true", "null", "false"} {
		if len(s) >= len(w) && string(s[:len(w)]) == w {
			return len(w)
		}
	}
	return 0
}

func (t *transformer) number() error {
	n, _ := scanNumber(t.src[t.pos:])
	if n == 0 {
		return t.errorf("not a JSON value")
	}
	out, err := appendNumber(t.dst, string(t.src[t.pos:t.pos+n]))
	if err != nil {
		return t.errorf("%v", err)
	}
	t.dst = out
	t.pos += n
	return nil
}

func (t *transformer) array() error {
	t.pos++
	t.dst = append(t.dst, '[')
	if t.space(); t.peek() == ']' {
		t.pos++
		t.dst = append(t.dst, ']')
		return nil
	}
	for {
		if err := t.value(); err != nil {
			return err
		}
		t.space()
		switch t.peek() {
		case ',':
			t.pos++
			t.dst = append(t.dst, ',')
			t.space()
		case ']':
			t.pos++
			t.dst = append(t.dst, ']')
			return nil
		default:
			return t.errorf("want , or ] in an array")
		}
	}
}

func (t *transformer) object() error {
	t.pos++
	t.dst = append(t.dst, '{')
	base := len(t.members)
	if t.space(); t.peek() == '}' {
		t.pos++
		t.dst = append(t.dst, '}')
		return nil
	}
	for {
		if err := t.member(); err != nil {
			return err
		}
		t.space()
		switch t.peek() {
		case ',':
			t.pos++
			t.dst = append(t.dst, ',')
			t.space()
		case '}':
			t.pos++
			err := t.order(t.members[base:])
			t.members = t.members[:base]
			t.dst = append(t.dst, '}')
			return err
		default:
			return t.errorf("want , or } in an object")
		}
	}
}

func (t *transformer) member() error {
	if t.peek() != '"' {
		return t.errorf("want a key in quotes")
	}
	m := span{start: len(t.dst)}
	if err := t.string(); err != nil {
		return err
	}
	m.keyEnd = len(t.dst) - 1
	m.escaped = bytes.IndexByte(t.dst[m.start:], '\\') >= 0
	t.space()
	if t.peek() != ':' {
		return t.errorf("want : after a key")
	}
	t.pos++
	t.dst = append(t.dst, ':')
	t.space()
	if err := t.value(); err != nil {
		return err
	}
	m.end = len(t.dst)
	t.members = append(t.members, m)
	return nil
}

// order puts the members of the object just written into key order.
func (t *transformer) order(ms []span) error {
	keyOf := func(m span) key { return key{t.dst[m.start+1 : m.keyEnd], m.escaped} }
	ascending := true
	for i := 1; i < len(ms) && ascending; i++ {
		ascending = keyOf(ms[i-1]).compare(keyOf(ms[i])) < 0
	}
	if ascending {
		return nil
	}
	first, last := ms[0].start, ms[len(ms)-1].end
	slices.SortFunc(ms, func(a, b span) int { return keyOf(a).compare(keyOf(b)) })
	t.scratch = append(t.scratch[:0], t.dst[first:last]...)
	for i := 1; i < len(ms); i++ {
		if k := keyOf(ms[i]); keyOf(ms[i-1]).compare(k) == 0 {
			return t.errorf("key \"%.100s\" twice in one object", k.text)
		}
	}
	t.dst = t.dst[:first]
	for i, m := range ms {
		if i > 0 {
			t.dst = append(t.dst, ',')
		}
		t.dst = append(t.dst, t.scratch[m.start-first:m.end-first]...)
	}
	return nil
}

// key is a key in canonical text, without quotes.
type key struct {
	text    []byte
	escaped bool // text has an escape
}

// compare orders keys by the code points they stand for.
func (k key) compare(o key) int {
	if !k.escaped && !o.escaped {
		return bytes.Compare(k.text, o.text)
	}
	var rk, ro [64]byte
	return bytes.Compare(appendUnescaped(rk[:0], k.text), appendUnescaped(ro[:0], o.text))
}

// appendUnescaped decodes canonical string text, which is known to be valid.
func appendUnescaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		r, n := readEscape(s[i:])
		dst = utf8.AppendRune(dst, r)
		i += n
	}
	return dst
}

func (t *transformer) string() error {
	t.pos++
	t.dst = append(t.dst, '"')
	for {
		start := t.pos
		t.pos += plainPrefix(t.src[t.pos:])
		t.dst = append(t.dst, t.src[start:t.pos]...)
		if t.pos == len(t.src) {
			return t.errorf("string without an end")
		}
		switch c := t.src[t.pos]; {
		case c == '"':
			t.pos++
			t.dst = append(t.dst, '"')
			return nil
		case c == '\\':
			r, n := readEscape(t.src[t.pos:])
			if n == 0 {
				return t.errorf("not an escape, or half of a surrogate pair")
			}
			t.dst = appendRune(t.dst, r)
			t.pos += n
		case c < 0x20:
			return t.errorf("control character in a string")
		default:
			r, n := utf8.DecodeRune(t.src[t.pos:])
			if r == utf8.RuneError && n == 1 {
				return t.errorf("invalid UTF-8")
			}
			t.dst = appendRune(t.dst, r)
			t.pos += n
		}
	}
}

// readEscape decodes the escape s begins with and returns its length, 0 if it
// is not one or is half of a surrogate pair.
func readEscape(s []byte) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return 0, 0
	}
	r = unit(s[2:])
	switch {
	case r < 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	case len(s) < 12 || s[6] != '\\' || s[7] != 'u':
		return 0, 0
	}
	if r = utf16.DecodeRune(r, unit(s[8:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}
