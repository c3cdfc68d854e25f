package route

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
)

// Lists return 100 items unless asked otherwise, and never more than 1,000.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Body reads the request's body up to the route's limit.
func (c *Call) Body() ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(c.W, c.R.Body, c.Limit))
	if err == nil {
		return b, nil
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, kernel.Errorf(kernel.TooLarge, "", "the body is larger than the limit of %d bytes", c.Limit)
	}
	return nil, &kernel.Error{Kind: kernel.Invalid, Msg: "the body could not be read to its end", Err: err}
}

// Into decodes the JSON body into v, strictly: one object, UTF-8 without NUL,
// no unknown and no repeated fields. Errors name the field.
func (c *Call) Into(v any) error {
	if ct := c.R.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != "application/json" && !strings.HasSuffix(mt, "+json") {
			return kernel.Errorf(kernel.Unsupported, "", "the body's type is %q; send application/json", ct)
		}
	}
	b, err := c.Body()
	if err != nil {
		return err
	}
	return Decode(b, v)
}

// Decode is Into for bytes at hand.
func Decode(b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is empty; send a JSON object"}
	}
	if !utf8.Valid(b) {
		return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is not valid UTF-8"}
	}
	if err := checkTokens(b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return decodeError(err)
	}
	return nil
}

func decodeError(err error) error {
	e := &kernel.Error{Kind: kernel.Invalid, Field: "body", Err: err}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if t.Field != "" {
			e.Field = t.Field
		}
		e.Msg = "is a JSON " + t.Value + ", want " + friendly(t.Type.String())
		return e
	}
	if t, ok := errors.AsType[*time.ParseError](err); ok {
		e.Msg = strconv.Quote(t.Value) + " is not an RFC 3339 time such as 2026-01-02T15:04:05Z"
		return e
	}
	// encoding/json has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if field, uerr := strconv.Unquote(name); uerr == nil {
			e.Field = field
		}
		e.Msg = "is not a field of this request; check its spelling or leave it out"
		return e
	}
	e.Msg = "is not what this request takes: " + strings.TrimPrefix(err.Error(), "json: ")
	return e
}

// friendly turns a Go type's name into words for the caller.
func friendly(goType string) string {
	switch {
	case goType == "string":
		return "a string"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	}
	return "an object"
}

// maxDepth bounds nesting in bodies.
const maxDepth = 64

// checkTokens refuses what encoding/json lets pass: repeated names (the last
// would win), NUL in strings, deep nesting, and anything after the value.
func checkTokens(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	type level struct {
		names map[string]bool // nil in an array
		name  string
		value bool // a name was read, its value comes next
	}
	var stack []level
	bad := func(msg string) error {
		field := "body"
		if n := len(stack); n > 0 && stack[n-1].name != "" {
			field = stack[n-1].name
		}
		return &kernel.Error{Kind: kernel.Invalid, Field: field, Msg: msg}
	}
	done := false
	for {
		t, err := d.Token()
		if err == io.EOF && done {
			return nil
		}
		if err != nil {
			return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is not valid JSON near byte " + strconv.FormatInt(d.InputOffset(), 10), Err: err}
		}
		if done {
			return bad("holds more than one JSON value")
		}
		top := len(stack) - 1
		inObject := top >= 0 && stack[top].names != nil
		if s, ok := t.(string); ok {
			if strings.ContainsRune(s, 0) {
				return bad("holds a NUL character")
			}
			if inObject && !stack[top].value {
				stack[top].name = s
				if stack[top].names[s] {
					return bad("is given twice")
				}
				stack[top].names[s], stack[top].value = true, true
				continue
			}
		}
		if inObject {
			stack[top].value = false
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
			if n := len(stack); n > 0 && stack[n-1].names != nil {
				stack[n-1].value = false
			}
		}
		if len(stack) > maxDepth {
			return bad("is nested deeper than 64 levels")
		}
		done = len(stack) == 0
	}
}

// Query returns a query parameter, "" when absent. A repeated one is an error.
func (c *Call) Query(name string) (string, error) {
	vs := c.R.URL.Query()[name]
	switch {
	case len(vs) == 0:
		return "", nil
	case len(vs) > 1:
		return "", kernel.InvalidField(name, "is given %d times; give it once", len(vs))
	case !utf8.ValidString(vs[0]) || strings.ContainsRune(vs[0], 0):
		return "", kernel.InvalidField(name, "is not valid UTF-8 text")
	case len(vs[0]) > 1024:
		return "", kernel.InvalidField(name, "is longer than 1024 bytes")
	}
	return vs[0], nil
}

// OnlyQuery refuses query parameters that the route does not know: a filter
// that is ignored shows what was asked to be left out.
func (c *Call) OnlyQuery(names ...string) error {
next:
	for given := range c.R.URL.Query() {
		for _, n := range names {
			if given == n {
				continue next
			}
		}
		return kernel.InvalidField(given, "is not a parameter of this request; known are: %s", strings.Join(names, ", "))
	}
	return nil
}

// Int returns a query parameter as a whole number within [min, max]; absent is def.
func (c *Call) Int(name string, def, min, max int64) (int64, error) {
	s, err := c.Query(name)
	if err != nil || s == "" {
		return def, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < min || n > max {
		return 0, kernel.InvalidField(name, "is %q, want a whole number from %d to %d", s, min, max)
	}
	return n, nil
}

// Limit returns the list's page size: larger ones are cut to MaxLimit (ecs.md §8).
func (c *Call) PageLimit() (int, error) {
	n, err := c.Int("limit", DefaultLimit, 1, 1<<31)
	return int(min(n, MaxLimit)), err
}

// Cursor returns the position that an earlier page's next_cursor stands for, "" at the start.
func (c *Call) Cursor() (string, error) {
	s, err := c.Query("cursor")
	if err != nil || s == "" {
		return "", err
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || !utf8.Valid(b) || len(b) == 0 {
		return "", kernel.InvalidField("cursor", "is not one that a list returned; leave it out to start over")
	}
	return string(b), nil
}

// Cursor makes an opaque cursor of a position.
func Cursor(position string) string { return base64.RawURLEncoding.EncodeToString([]byte(position)) }

// Time returns a query parameter as an RFC 3339 time; absent is the zero time.
func (c *Call) Time(name string) (time.Time, error) {
	s, err := c.Query(name)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, kernel.InvalidField(name, "is %q, want an RFC 3339 time such as 2026-01-02T15:04:05Z", s)
	}
	return t.UTC(), nil
}
