package route_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/route"
)

// order is a body with every type that requests use.
type order struct {
	Name  string     `json:"name"`
	Count int64      `json:"count"`
	On    bool       `json:"on"`
	Tags  []string   `json:"tags"`
	At    *time.Time `json:"at"`
	Lines []struct {
		Limits struct {
			PIDs int64 `json:"pids"`
		} `json:"limits"`
	} `json:"lines"`
	Labels map[string]string `json:"labels"`
}

func TestDecode(t *testing.T) {
	deep := strings.Repeat(`[`, 200_000)
	for name, tt := range map[string]struct{ body, field, msg string }{
		"empty":                {"", "body", "is empty"},
		"blank":                {" \n\t", "body", "is empty"},
		"null":                 {" null ", "body", "is null, want an object"},
		"list":                 {"[]", "body", "is a list, want an object"},
		"string":               {`"x"`, "body", "is a string, want an object"},
		"number":               {"1", "body", "is a number, want an object"},
		"cut off":              {`{"name":"x"`, "body", "is not valid JSON near byte 11"},
		"no JSON":              {"name=x", "body", "is not valid JSON near byte 1"},
		"trailing object":      {`{}{}`, "body", "is not valid JSON near byte 2"},
		"trailing byte":        {`{} x`, "body", "is not valid JSON near byte 3"},
		"trailing comma":       {`{"name":"x",}`, "body", "is not valid JSON"},
		"comment":              {`{/* */}`, "body", "is not valid JSON"},
		"byte order mark":      {"\ufeff{}", "body", "is not valid JSON near byte 0"},
		"unknown":              {`{"nam":"x"}`, "nam", "is not a field of this request"},
		"unknown, other case":  {`{"Name":"x"}`, "Name", "is not a field of this request"},
		"unknown inside":       {`{"lines":[{},{"limits":{"pid":1}}]}`, "lines[1].limits.pid", "is not a field"},
		"repeated":             {`{"name":"x","name":"y"}`, "name", "is given twice"},
		"repeated, escaped":    {`{"name":"x","n\u0061me":"y"}`, "name", "is given twice"},
		"repeated inside":      {`{"lines":[{"limits":{},"limits":{}}]}`, "lines[0].limits", "is given twice"},
		"repeated in a map":    {`{"labels":{"a":"1","a":"2"}}`, "labels.a", "is given twice"},
		"wrong type":           {`{"name":1}`, "name", "is a number, want a string"},
		"wrong type in a list": {`{"tags":["a",true]}`, "tags[1]", "is true or false, want a string"},
		"wrong type of list":   {`{"tags":"a"}`, "tags", "is a string, want a list"},
		"wrong type of bool":   {`{"on":{}}`, "on", "is an object, want true or false"},
		"wrong type inside":    {`{"lines":[{"limits":{"pids":"4"}}]}`, "lines[0].limits.pids", "is a string, want a whole number"},
		"fraction":             {`{"count":1.5}`, "count", "is a number, want a whole number"},
		"too large a number":   {`{"count":9223372036854775808}`, "count", "is a number, want a whole number"},
		"no time":              {`{"at":"yesterday"}`, "at", `"yesterday" is not an RFC 3339 time`},
		"NUL, escaped":         {`{"name":"a\u0000b"}`, "body", "holds a NUL character"},
		"NUL, name":            {`{"labels":{"\u0000":"x"}}`, "body", "holds a NUL character"},
		"NUL after backslash":  {`{"name":"\\\u0000"}`, "body", "holds a NUL character"},
		"NUL, bare":            {"{\"name\":\"a\x00b\"}", "body", "is not valid JSON"},
		"invalid UTF-8":        {"{\"name\":\"a\xffb\"}", "body", "is not valid JSON"},
		"half a surrogate":     {`{"name":"\ud800"}`, "body", "is not valid JSON"},
		"deep, in a list":      {`{"tags":` + deep, "body", "is not valid JSON near byte 10007"},
		"deep, unknown":        {`{"x":` + deep, "x", "is not a field"},
		"deep, top":            {deep, "body", "is a list, want an object"},
	} {
		t.Run(name, func(t *testing.T) {
			var v order
			err := route.Decode([]byte(tt.body), &v)
			e, ok := errors.AsType[*kernel.Error](err)
			if !ok {
				t.Fatalf("got %v (%+v), want a kernel.Error", err, v)
			}
			if e.Kind != kernel.Invalid || !strings.HasPrefix(e.Field, tt.field) || e.Field == "" || !strings.HasPrefix(e.Msg, tt.msg) {
				t.Errorf("got %v, field %q: %q; want invalid, %q: %q", e.Kind, e.Field, e.Msg, tt.field, tt.msg)
			}
		})
	}
}

func TestDecodeTakes(t *testing.T) {
	var v order
	err := route.Decode([]byte(` {"name":"\\u0000 é \ud83d\ude00","count":-9223372036854775808,"on":true,"tags":["a"],"at":"2026-01-02T15:04:05+02:00",
		"lines":[{"limits":{"pids":4}}],"labels":{"a":"b"}} `), &v)
	if err != nil {
		t.Fatal(err)
	}
	if v.Name != `\u0000 é 😀` || v.Count != -1<<63 || !v.On || v.Tags[0] != "a" || v.At.UTC().Hour() != 13 || v.Lines[0].Limits.PIDs != 4 || v.Labels["a"] != "b" {
		t.Errorf("got %+v", v)
	}
}

// What an error repeats of the body is bounded text, whatever was sent.
func TestDecodeErrorsAreBoundedText(t *testing.T) {
	for name, body := range map[string]string{
		"field cut within a character": `{"` + strings.Repeat("é", 5000) + `x":1}`,
		"odd field":                    `{"x` + strings.Repeat("é", 5000) + `":1}`,
		"time":                         `{"at":"` + strings.Repeat("€", 5000) + `"}`,
	} {
		e := kernel.AsError(route.Decode([]byte(body), &order{}))
		if e.Kind != kernel.Invalid || len(e.Field) > 128 || len(e.Msg) > 512 || !utf8.ValidString(e.Field) || !utf8.ValidString(e.Msg) {
			t.Errorf("%s: field %q, message %q", name, e.Field, e.Msg)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "null", "{}", "{}{}", `{"name":"x","name":"y"}`, `{"name":"\u0000"}`, `{"name":"\\u0000"}`, `{"nam\u0065":1}`,
		`{"lines":[{"limits":{"pids":1}}]}`, `{"at":"2026-01-02T15:04:05Z"}`, `{"tags":[[[`, "{\"name\":\"\xff\"}", `{"labels":{"":"x"}}`, `{"/~":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v order
		err := route.Decode(b, &v)
		if err == nil {
			texts := append([]string{v.Name}, v.Tags...)
			for k, l := range v.Labels {
				texts = append(texts, k, l)
			}
			for _, s := range texts {
				if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
					t.Errorf("took text that the database would not: %q", s)
				}
			}
			return
		}
		e := kernel.AsError(err)
		if e.Kind != kernel.Invalid || e.Field == "" || e.Msg == "" || len(e.Field) > 128 || len(e.Msg) > 1024 || !utf8.ValidString(e.Field) || !utf8.ValidString(e.Msg) {
			t.Errorf("error of kind %v, field %q, message %q", e.Kind, e.Field, e.Msg)
		}
	})
}

// call is a request with a query.
func call(query string) *route.Call {
	r := httptest.NewRequest(http.MethodGet, "/v1/things", nil)
	r.URL.RawQuery = query
	return &route.Call{W: httptest.NewRecorder(), R: r, Limit: 64}
}

func wantInvalid(t *testing.T, err error, field string) {
	t.Helper()
	e, ok := errors.AsType[*kernel.Error](err)
	if !ok || e.Kind != kernel.Invalid || e.Field != field || e.Msg == "" || len(e.Field) > 128 || !utf8.ValidString(e.Field) {
		t.Errorf("got %v, want field %q to be invalid", err, field)
	}
}

func TestQuery(t *testing.T) {
	for query, want := range map[string]string{"": "", "a=": "", "a=x+y%26": "x y&", "b=1": "", "a=" + strings.Repeat("x", 1024): strings.Repeat("x", 1024)} {
		if got, err := call(query).Query("a"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", query, got, err, want)
		}
	}
	for query, field := range map[string]string{
		"a=1&a=2": "a", "a=%ff": "a", "a=%00": "a", "a=" + strings.Repeat("x", 1025): "a",
		"a=%zz": "query", "b=%zz": "query", "b;c": "query",
	} {
		_, err := call(query).Query("a")
		wantInvalid(t, err, field)
	}
}

func TestOnlyQuery(t *testing.T) {
	for _, query := range []string{"", "a=1", "a=1&b=2", "b="} {
		if err := call(query).OnlyQuery("a", "b"); err != nil {
			t.Errorf("%q: %v", query, err)
		}
	}
	for query, field := range map[string]string{"c=1": "c", "A=1": "A", "a=1&c": "c", "%ffc=1": "c", "a=%zz": "query", "a=1;c=2": "query"} {
		wantInvalid(t, call(query).OnlyQuery("a", "b"), field)
	}
	wantInvalid(t, call(strings.Repeat("%C3%A9", 200)+"=1").OnlyQuery("a"), strings.Repeat("é", 64))
}

func TestIntAndPageLimit(t *testing.T) {
	for query, want := range map[string]int64{"": 7, "n=": 7, "n=1": 1, "n=10": 10, "n=-0": 0, "n=007": 7} {
		if got, err := call(query).Int("n", 7, 0, 10); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", query, got, err, want)
		}
	}
	for _, query := range []string{"n=-1", "n=11", "n=x", "n=1.0", "n=1e1", "n=0x1", "n=99999999999999999999", "n=1&n=1"} {
		_, err := call(query).Int("n", 7, 0, 10)
		wantInvalid(t, err, "n")
	}
	for query, want := range map[string]int{"": route.DefaultLimit, "limit=1": 1, "limit=1000": route.MaxLimit, "limit=1001": route.MaxLimit, "limit=2147483648": route.MaxLimit} {
		if got, err := call(query).PageLimit(); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", query, got, err, want)
		}
	}
	for _, query := range []string{"limit=0", "limit=-1", "limit=all"} {
		_, err := call(query).PageLimit()
		wantInvalid(t, err, "limit")
	}
}

func TestCursor(t *testing.T) {
	for _, position := range []string{"1", "a/b?c&d", "é😀", strings.Repeat("x", 700)} {
		if got, err := call("cursor=" + route.Cursor(position)).Cursor(); err != nil || got != position {
			t.Errorf("the cursor of %q is read as %q, %v", position, got, err)
		}
	}
	if got, err := call("").Cursor(); err != nil || got != "" {
		t.Errorf("no cursor: %q, %v", got, err)
	}
	for name, cursor := range map[string]string{"other alphabet": "%2B%2F%2B%2F", "padding": "YQ%3D%3D", "not base64": "a", "invalid UTF-8": route.Cursor("\xff"), "NUL": route.Cursor("a\x00b")} {
		_, err := call("cursor=" + cursor).Cursor()
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		wantInvalid(t, err, "cursor")
	}
}

func TestTime(t *testing.T) {
	want := time.Date(2026, 1, 2, 13, 4, 5, 500_000_000, time.UTC)
	if got, err := call("at=2026-01-02T15:04:05.5%2B02:00").Time("at"); err != nil || got != want {
		t.Errorf("got %v, %v; want %v in UTC", got, err, want)
	}
	if got, err := call("").Time("at"); err != nil || !got.IsZero() {
		t.Errorf("absent: %v, %v; want the zero time", got, err)
	}
	for _, s := range []string{"2026-01-02", "2026-01-02T15:04:05", "2026-01-02T15:04:05+02:00", "1767366245", "2026-02-30T00:00:00Z"} {
		_, err := call("at=" + s).Time("at") // + is a blank in a query
		wantInvalid(t, err, "at")
	}
}

func TestInto(t *testing.T) {
	long := `{"name":"` + strings.Repeat("x", 100) + `"}`
	for name, tt := range map[string]struct {
		contentType, body string
		want              kernel.Kind
	}{
		"text":       {"text/plain", "{}", kernel.Unsupported},
		"form":       {"application/x-www-form-urlencoded", "name=x", kernel.Unsupported},
		"odd type":   {"application/json; charset", "{}", kernel.Unsupported},
		"too large":  {"application/json", long, kernel.TooLarge},
		"not strict": {"application/json", `{"x":1}`, kernel.Invalid},
	} {
		c := call("")
		c.R = httptest.NewRequest(http.MethodPost, "/v1/things", strings.NewReader(tt.body))
		c.R.Header.Set("Content-Type", tt.contentType)
		if err := c.Into(&order{}); err == nil || kernel.KindOf(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	for _, contentType := range []string{"", "application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"} {
		var v order
		c := call("")
		c.R = httptest.NewRequest(http.MethodPost, "/v1/things", strings.NewReader(`{"name":"x"}`))
		c.R.Header.Set("Content-Type", contentType)
		if err := c.Into(&v); err != nil || v.Name != "x" {
			t.Errorf("%q: %+v, %v", contentType, v, err)
		}
	}
}
