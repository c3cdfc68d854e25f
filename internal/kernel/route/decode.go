package route

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/kernel"
)

// Lists return 100 items unless asked otherwise, and never more than 1,000.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// bodyTimeout is how long a body within its limit may take to arrive.
const bodyTimeout = 30 * time.Second

// Body reads the request's body up to the route's limit.
func (c *Call) Body() ([]byte, error) {
	rc := http.NewResponseController(c.W)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, &kernel.Error{Kind: kernel.Internal, Err: err}
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.W, c.R.Body, c.Limit))
	if err == nil {
		if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return nil, &kernel.Error{Kind: kernel.Internal, Err: err}
		}
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

// Decode is Into for bytes at hand. Names are matched exactly, and a name that
// is given twice is an error: what a reader sees is what is done.
func Decode(b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is empty; send a JSON object"}
	}
	if nul(b) {
		return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "holds a NUL character"}
	}
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) { // would decode as an object without fields
		return &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is null, want an object"}
	}
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		return decodeError(err)
	}
	return nil
}

// nul reports whether a string in b holds an escaped NUL; a bare one is no JSON.
func nul(b []byte) bool {
	for i := 0; ; {
		n := bytes.Index(b[i:], []byte(`\u0000`))
		if n < 0 {
			return false
		}
		i += n
		slashes := 0
		for k := i - 1; k >= 0 && b[k] == '\\'; k-- {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		i++
	}
}

func decodeError(err error) error {
	e := &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is not what this request takes", Err: err}
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		e.Msg = "is not valid JSON near byte " + strconv.FormatInt(s.ByteOffset, 10)
		if errors.Is(s.Err, jsontext.ErrDuplicateName) {
			e.Field, e.Msg = fieldOf(s.JSONPointer), "is given twice"
		}
		return e
	}
	s, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return e
	}
	e.Field = fieldOf(s.JSONPointer)
	switch t, isTime := errors.AsType[*time.ParseError](s.Err); {
	case errors.Is(s.Err, json.ErrUnknownName):
		e.Msg = "is not a field of this request; check its spelling or leave it out"
	case isTime:
		e.Msg = strconv.Quote(short(t.Value)) + " is not an RFC 3339 time such as 2026-01-02T15:04:05Z"
	case s.GoType != nil && s.JSONKind != 0:
		e.Msg = "is " + friendlyKind(s.JSONKind) + ", want " + friendly(s.GoType.String())
	}
	return e
}

// fieldOf writes a JSON pointer as people name fields: resources.pids, scope[0].
func fieldOf(p jsontext.Pointer) string {
	var b strings.Builder
	for tok := range p.Tokens() {
		switch {
		case strings.Trim(tok, "0123456789") == "" && tok != "" && b.Len() > 0:
			b.WriteString("[" + tok + "]")
		case b.Len() > 0:
			b.WriteString("." + tok)
		default:
			b.WriteString(tok)
		}
	}
	if b.Len() == 0 {
		return "body"
	}
	return short(b.String())
}

// short is what of the caller's own words an error repeats: text of at most 128 bytes.
func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), 128)], "") }

func friendlyKind(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "a list"
	}
	return "an object"
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
	case strings.HasSuffix(goType, "time.Time"):
		return "an RFC 3339 time such as 2026-01-02T15:04:05Z"
	}
	return "an object"
}

// query is what the URL asks for. URL.Query would leave out what it cannot read.
func (c *Call) query() (url.Values, error) {
	v, err := url.ParseQuery(c.R.URL.RawQuery)
	if err != nil {
		return nil, &kernel.Error{Kind: kernel.Invalid, Field: "query", Msg: "is not well-formed; percent-encode what is not a letter or digit", Err: err}
	}
	return v, nil
}

// Query returns a query parameter, "" when absent. A repeated one is an error.
func (c *Call) Query(name string) (string, error) {
	given, err := c.query()
	if err != nil {
		return "", err
	}
	vs := given[name]
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
	all, err := c.query()
	if err != nil {
		return err
	}
	for given := range all {
		if slices.Contains(names, given) {
			continue
		}
		return kernel.InvalidField(short(given), "is not a parameter of this request; known are: %s", strings.Join(names, ", "))
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

// PageLimit returns the list's page size: larger ones are cut to MaxLimit (ecs.md §8).
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
	if err != nil || !utf8.Valid(b) || len(b) == 0 || bytes.IndexByte(b, 0) >= 0 {
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
