package canon

import (
	"strconv"

	"provost.dev/provost/internal/kernel"
)

// Check returns nil if b is exactly one value in canonical form, and an error of
// kind Invalid naming the first offset that deviates otherwise. It neither
// copies nor allocates.
func Check(b []byte) error {
	if len(b) > MaxBytes {
		return kernel.Errorf(kernel.TooLarge, "", "JSON of %d bytes, at most %d are read", len(b), MaxBytes)
	}
	c := checker{src: b}
	if err := c.value(); err != nil {
		return err
	}
	if c.pos != len(b) {
		return c.errorf("data after the value")
	}
	return nil
}

// Member is one member of a canonical object. Key is the text between the
// quotes and Value the text of the value, both still escaped and both slices of
// the object; Start and End are the offsets of the whole `"key":value`.
type Member struct {
	Key, Value []byte
	Start, End int
}

// Members calls fn for each member of the object b in order, having checked up
// to the end of the member that b is canonical. It returns the first error of
// fn, or one of kind Invalid if b is not a canonical object.
func Members(b []byte, fn func(Member) error) error {
	if len(b) > MaxBytes {
		return kernel.Errorf(kernel.TooLarge, "", "JSON of %d bytes, at most %d are read", len(b), MaxBytes)
	}
	c := checker{src: b}
	if c.peek() != '{' {
		return c.errorf("want an object")
	}
	if err := c.object(fn); err != nil {
		return err
	}
	if c.pos != len(b) {
		return c.errorf("data after the object")
	}
	return nil
}

// Elements calls fn with the text of each element of the canonical array b, as
// Members does for objects.
func Elements(b []byte, fn func(value []byte) error) error {
	if len(b) > MaxBytes {
		return kernel.Errorf(kernel.TooLarge, "", "JSON of %d bytes, at most %d are read", len(b), MaxBytes)
	}
	c := checker{src: b}
	if c.peek() != '[' {
		return c.errorf("want an array")
	}
	if err := c.array(fn); err != nil {
		return err
	}
	if c.pos != len(b) {
		return c.errorf("data after the array")
	}
	return nil
}

// Unquote returns the string that the canonical string text b (quotes included)
// stands for; ok is false if b is not one.
func Unquote(b []byte) (s string, ok bool) {
	c := checker{src: b}
	if c.peek() != '"' || c.string() != nil || c.pos != len(b) {
		return "", false
	}
	return string(appendUnescaped(nil, b[1:len(b)-1])), true
}

// checker reads canonical text from pos.
type checker struct {
	src     []byte
	pos     int
	depth   int
	escaped bool // the string read last has an escape
}

func (c *checker) errorf(format string, args ...any) error {
	return syntaxError(c.pos, "not canonical: "+format, args...)
}

func (c *checker) peek() byte {
	if c.pos < len(c.src) {
		return c.src[c.pos]
	}
	return 0
}

func (c *checker) value() error {
	switch c.peek() {
	case '"':
		return c.string()
	case '{':
		return c.object(nil)
	case '[':
		return c.array(nil)
	case 't', 'f', 'n':
		n := literal(c.src[c.pos:])
		if n == 0 {
			return c.errorf("not a value")
		}
		c.pos += n
		return nil
	}
	return c.number()
}

func (c *checker) number() error {
	lit := c.src[c.pos:]
	n, integer := scanNumber(lit)
	if n == 0 {
		return c.errorf("not a value")
	}
	lit = lit[:n]
	if integer && string(lit) != "-0" {
		c.pos += n
		return nil
	}
	var room [64]byte
	want, err := appendNumber(room[:0], string(lit))
	if err != nil || string(want) != string(lit) {
		return c.errorf("number %.40s", lit)
	}
	c.pos += n
	return nil
}

func (c *checker) array(fn func([]byte) error) error {
	if c.depth++; c.depth > MaxDepth {
		return c.errorf("nested deeper than %d", MaxDepth)
	}
	if c.pos++; c.peek() == ']' {
		c.pos++
		c.depth--
		return nil
	}
	for {
		start := c.pos
		if err := c.value(); err != nil {
			return err
		}
		if fn != nil {
			if err := fn(c.src[start:c.pos]); err != nil {
				return err
			}
		}
		switch c.peek() {
		case ',':
			c.pos++
		case ']':
			c.pos++
			c.depth--
			return nil
		default:
			return c.errorf("want , or ] in an array")
		}
	}
}

func (c *checker) object(fn func(Member) error) error {
	if c.depth++; c.depth > MaxDepth {
		return c.errorf("nested deeper than %d", MaxDepth)
	}
	if c.pos++; c.peek() == '}' {
		c.pos++
		c.depth--
		return nil
	}
	var last key
	for first := true; ; first = false {
		m, escaped, err := c.member()
		if err != nil {
			return err
		}
		k := key{m.Key, escaped}
		if !first && last.compare(k) >= 0 {
			c.pos = m.Start
			return c.errorf("keys do not ascend")
		}
		last = k
		if fn != nil {
			if err := fn(m); err != nil {
				return err
			}
		}
		switch c.peek() {
		case ',':
			c.pos++
		case '}':
			c.pos++
			c.depth--
			return nil
		default:
			return c.errorf("want , or } in an object")
		}
	}
}

// member reads one member and reports whether its key has an escape.
func (c *checker) member() (m Member, escaped bool, err error) {
	m.Start = c.pos
	if c.peek() != '"' {
		return m, false, c.errorf("want a key in quotes")
	}
	if err := c.string(); err != nil {
		return m, false, err
	}
	escaped = c.escaped
	m.Key = c.src[m.Start+1 : c.pos-1]
	if c.peek() != ':' {
		return m, false, c.errorf("want : after a key")
	}
	c.pos++
	value := c.pos
	if err := c.value(); err != nil {
		return m, false, err
	}
	m.Value = c.src[value:c.pos]
	m.End = c.pos
	return m, escaped, nil
}

func (c *checker) string() error {
	i := c.pos + 1
	src := c.src
	c.escaped = false
	for {
		i += plainPrefix(src[i:])
		if i >= len(src) {
			c.pos = len(src)
			return c.errorf("string without an end")
		}
		switch src[i] {
		case '"':
			c.pos = i + 1
			return nil
		case '\\':
			n := canonicalEscape(src[i:])
			if n == 0 {
				c.pos = i
				return c.errorf("escape %s", strconv.QuoteToASCII(string(src[i:min(i+6, len(src))])))
			}
			c.escaped = true
			i += n
		default:
			c.pos = i
			return c.errorf("byte %#02x in a string", src[i])
		}
	}
}

// canonicalEscape returns the length of the escape s begins with, 0 if the
// character it stands for is canonically written another way.
func canonicalEscape(s []byte) int {
	r, n := readEscape(s)
	if n == 0 {
		return 0
	}
	var room [12]byte
	want := appendRune(room[:0], r)
	if string(want) != string(s[:n]) {
		return 0
	}
	return n
}
