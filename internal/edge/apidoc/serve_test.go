package apidoc

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"provost.dev/provost/internal/edge"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/route"
)

func get(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestDocumentsAreServed(t *testing.T) {
	d := widgetDocs(t)
	h := edge.Handler(edge.Config{Routes: d.Routes()})
	for _, c := range []struct {
		path, media string
		body        []byte
	}{
		{"/v1/openapi.json", "application/json", d.openapiJSON.body},
		{"/v1/openapi.yaml", "application/yaml", d.OpenAPI()},
		{"/v1/asyncapi.yaml", "application/yaml", d.AsyncAPI()},
		{"/docs", "text/html; charset=utf-8", d.page.body},
	} {
		w := get(h, "GET", c.path)
		if w.Code != 200 || w.Header().Get("Content-Type") != c.media || w.Body.String() != string(c.body) || len(c.body) < 1000 {
			t.Errorf("GET %s: %d, %s, %d bytes", c.path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		if again := get(h, "GET", c.path, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("GET %s again: %d with %d bytes", c.path, again.Code, again.Body.Len())
		}
		if other := get(h, "GET", c.path, "If-None-Match", `"other"`); other.Code != 200 {
			t.Errorf("GET %s with another ETag: %d", c.path, other.Code)
		}
		if w := get(h, "GET", c.path+"?pretty=1"); w.Code != 400 {
			t.Errorf("GET %s with a parameter it does not know: %d, want 400", c.path, w.Code)
		}
		if w := get(h, "POST", c.path); w.Code != 405 {
			t.Errorf("POST %s: %d, want 405", c.path, w.Code)
		}
	}
}

// What the door writes for each kind of error, in each family, is what the
// documents describe, down to the codes in the examples.
func TestErrorsAreAsDescribed(t *testing.T) {
	doc := parseJSON(t, widgetDocs(t).openapiJSON.body)
	schema := compile(t, doc, jsonschema.Draft2020)
	var routes []route.Route
	for k := kernel.Internal; k <= kernel.Unprocessable; k++ {
		for _, f := range []route.Family{route.Interop, route.Task, route.OAuth} {
			routes = append(routes, route.Route{Method: "GET", Path: fmt.Sprintf("/%s/%s", f, k), Family: f, Public: "a test",
				Handle: func(*route.Call) (any, error) {
					return nil, &kernel.Error{Kind: k, Msg: "no", Field: "f", Rule: "r", Rules: []string{"r", "s"}, Fix: "x", Pointer: pointerExample, EventID: "e", RetryAfter: 3, Err: errors.New("cause")}
				}})
		}
	}
	h := edge.Handler(edge.Config{Routes: routes})
	seen := map[string]bool{}
	for _, r := range routes {
		w := get(h, "GET", r.Path)
		name, body, code := "InteropError", parseJSON(t, w.Body.Bytes()), any(nil)
		if r.Family == route.Interop {
			code = at(t, body, "code")
		} else {
			name, code = "NestedError", at(t, body, "error", "code")
		}
		if err := schema(name).Validate(body); err != nil {
			t.Errorf("%s: %v", r.Path, err)
		}
		for field := range described(t, body, r.Family) {
			if described(t, schemaProperties(t, doc, name), r.Family)[field] == nil {
				t.Errorf("%s: %s is not described", r.Path, field)
			}
		}
		status := fmt.Sprint(w.Code)
		doc, ok := failureDocs[status]
		if !ok {
			continue // "default" describes it
		}
		seen[status] = true
		want := doc.interop
		if r.Family != route.Interop {
			want = doc.nested
		}
		if code != want {
			t.Errorf("%s: code %v, documented as %s", r.Path, code, want)
		}
		if r.Family != route.Interop && at(t, body, "error").(map[string]any)["retryable"] != doc.retry {
			t.Errorf("%s: retryable differs from its documentation", r.Path)
		}
	}
	for status := range failureDocs {
		if !seen[status] && status != "default" {
			t.Errorf("status %s is documented but no kind of error has it", status)
		}
	}
}

// described is where an error's own fields are.
func described(t *testing.T, v any, f route.Family) map[string]any {
	t.Helper()
	if f == route.Interop {
		return v.(map[string]any)
	}
	inner := at(t, v, "error").(map[string]any)
	if p, ok := inner["properties"].(map[string]any); ok {
		return p
	}
	return inner
}

func schemaProperties(t *testing.T, doc any, name string) any {
	return at(t, doc, "components", "schemas", name, "properties")
}

func TestPage(t *testing.T) {
	d := widgetDocs(t)
	h := edge.Handler(edge.Config{Routes: d.Routes()})
	w := get(h, "GET", "/docs")
	page := w.Body.String()

	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(page)
	if style == nil {
		t.Fatal("the page has no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := w.Header().Get("Content-Security-Policy"); got != want {
		t.Errorf("Content-Security-Policy is %q, want %q", got, want)
	}
	if loose := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|style="|url\(|@import|\son[a-z]+=|(src|href)="[^#/]|href="//`).FindString(page); loose != "" {
		t.Errorf("the page holds %q, which its policy or its promise to need nothing else forbids", loose)
	}
	if !strings.Contains(style[1], "light dark") {
		t.Error("the page is not for both light and dark")
	}
	for _, text := range []string{"Make a &lt;widget&gt;", "<code>widgets.write</code>", "Needs no sign-in: it is how one signs in.", "what it does",
		"/v1/widgets/{id}/files/{path}", `id="getWidgetsById"`, "Required.", "&#34;ratio&#34;: 0", "At most 16 KiB.", "400, 401, 403, 404"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not say %s", text)
		}
	}
	if n := strings.Count(page, "<article "); n != len(widgetRoutes())+len(d.Routes()) {
		t.Errorf("%d operations on the page, want %d", n, len(widgetRoutes())+len(d.Routes()))
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("id %q stands twice", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !ids[m[1]] {
			t.Errorf("a link leads to %q, which is not there", m[1])
		}
	}
}

// The commands on the page are words of a shell as they stand.
func TestCurlLines(t *testing.T) {
	page := string(widgetDocs(t).page.body)
	lines := regexp.MustCompile(`<code>(curl .*)</code>`).FindAllStringSubmatch(page, -1)
	if len(lines) < 10 {
		t.Fatalf("%d command lines on the page", len(lines))
	}
	got := map[string]bool{}
	for _, m := range lines {
		script := `curl() { for a in "$@"; do printf '[%s]' "$a"; done; }; ` + html.UnescapeString(m[1])
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Env = []string{"PROVOST_URL=http://127.0.0.1:1", "PROVOST_TOKEN=secret token"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", m[1], err, out)
		}
		got[string(out)] = true
	}
	for _, want := range []string{
		`[http://127.0.0.1:1/v1/widgets][-H][Authorization: Bearer secret token][-H][Content-Type: application/json][-d][{"name":"w","kind":"a b"}]`,
		`[-X][DELETE][http://127.0.0.1:1/v1/widgets/ID][-H][Authorization: Bearer secret token]`,
		`[http://127.0.0.1:1/v1/widgets/ID/files/PATH][-H][Authorization: Bearer secret token]`,
		`[http://127.0.0.1:1/v1/auth/token][-H][Content-Type: application/json][-d][{"name":"w","kind":"a b"}]`,
		`[http://127.0.0.1:1/docs]`,
	} {
		if !got[want] {
			t.Errorf("no command is %s", want)
		}
	}
	for _, s := range []string{"it's", `a"b`, "$HOME `id` \\", "line\nline"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("a shell reads %q as %q, %v", s, out, err)
		}
	}
}
