package acceptance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// bodies are the routes that take one, with a body in which only rights could be missing.
func bodies(t testing.TB) map[string]object {
	t.Helper()
	return map[string]object{
		"POST /v1/tenants":          tenantBody("x"),
		"PATCH /v1/tenants/demo":    {"contact": "x"},
		"POST /v1/authorities":      {"issuer": "x", "subject": "*", "scope": []string{"*"}, "valid_from": "2026-01-01T00:00:00Z", "valid_to": "2027-01-01T00:00:00Z"},
		"POST /v1/policies":         {"id": "x", "version": "1", "cedar": narrowing("x")},
		"POST /v1/policies/test":    {"cedar": narrowing("x")},
		"POST /v1/decisions":        {"action": "workload.read", "resource": object{"type": "Workload"}},
		"POST /v1/trust-keys":       {"name": "x", "public_key": newSigner(t).pem(t), "uses": []string{"sbom"}},
		"POST /v1/workloads":        {"envelope_type": "container", "image_ref": "x"},
		"POST /v1/exports":          {"evidence_profile_id": baseline},
		"POST /v1/users":            {"username": "x", "password": "correct horse battery"},
		"PATCH /v1/users/viewer":    {"disabled": true},
		"POST /v1/roles":            {"name": "x", "permissions": []string{}},
		"POST /v1/service-accounts": {"client_id": "x", "permissions": []string{}},
		"POST /v1/auth/token":       {"username": "x", "password": "x"},
		"POST /api/v1/auth/token":   {"username": "x", "password": "x"},
	}
}

// TestEveryBodyIsInTheList keeps bodies complete.
func TestEveryBodyIsInTheList(t *testing.T) {
	t.Parallel()
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range d.operations {
		if o.spec["requestBody"] == nil {
			continue
		}
		found := false
		for route := range bodies(t) {
			method, path, _ := strings.Cut(route, " ")
			op, _ := d.find(method, path)
			found = found || op.path == o.path && op.method == o.method
		}
		if !found {
			t.Errorf("%s %s takes a body and is not tested", o.method, o.path)
		}
	}
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	for route, good := range bodies(t) {
		method, path, _ := strings.Cut(route, " ")
		raw := string(encode(t, good))
		first := raw[1 : strings.Index(raw, `":`)+1] // a field that the route knows, quoted
		for name, c := range map[string]struct {
			body   string
			status []int
			field  string
		}{
			"empty":           {"", []int{400}, ""},
			"cut":             {raw[:len(raw)-1], []int{400}, ""},
			"not JSON":        {"<xml/>", []int{400}, ""},
			"an array":        {"[" + raw + "]", []int{400}, ""},
			"a string":        {`"x"`, []int{400}, ""},
			"null":            {"null", []int{400}, ""},
			"two values":      {raw + raw, []int{400}, ""},
			"unknown field":   {`{"colour":"red",` + raw[1:], []int{400}, "colour"},
			"field twice":     {"{" + first + `:"a",` + raw[1:], []int{400}, ""},
			"wrong type":      {"{" + first + ":{}}", []int{400}, strings.Trim(first, `"`)},
			"NUL escaped":     {"{" + first + `:"a\u0000b"}`, []int{400}, ""},
			"NUL raw":         {"{" + first + ":\"a\x00b\"}", []int{400}, ""},
			"invalid UTF-8":   {"{" + first + ":\"a\xff\"}", []int{400}, ""},
			"lone surrogate":  {"{" + first + `:"\ud800"}`, []int{400, 401, 403, 404}, ""},
			"deep":            {"{" + first + ":" + strings.Repeat("[", 100_000), []int{400, 413}, ""},
			"10 MB":           {"{" + first + `:"` + strings.Repeat("a", 10<<20) + `"}`, []int{413}, ""},
			"10 MB of space":  {strings.Repeat(" ", 10<<20) + raw, []int{413}, ""},
			"huge number":     {"{" + first + ":1" + strings.Repeat("0", 5000) + "}", []int{400}, ""},
			"as text":         {raw, []int{415}, ""},
			"case of a field": {strings.ToUpper(raw[:len(first)+1]) + raw[len(first)+1:], []int{400}, ""},
		} {
			header := []string{"Content-Type", "application/json"}
			if name == "as text" {
				header[1] = "text/plain"
			}
			a, err := op.try(method, path, c.body, header...)
			if err != nil {
				if strings.HasPrefix(name, "10 MB") {
					continue // it answered and hung up while the rest was being sent
				}
				t.Fatalf("%s, %s: %v", route, name, err)
			}
			a.t = t
			if !slices.Contains(c.status, a.status) {
				t.Errorf("%s, %s: status %d, want %v: %s", route, name, a.status, c.status, clip(a.body))
				continue
			}
			o := a.json()
			if nested, ok := o["error"].(object); ok {
				o = nested
			}
			if !isText(o["code"]) || !isText(o["message"]) || c.field != "" && o["field"] != c.field {
				t.Errorf("%s, %s: field %v, want %q: %s", route, name, o["field"], c.field, clip(a.body))
			}
			if len(a.body) > 4096 {
				t.Errorf("%s, %s: the error has %d bytes", route, name, len(a.body))
			}
			if !isText(o["evidence_pointer"]) {
				t.Errorf("%s, %s: no evidence_pointer in %s", route, name, clip(a.body))
			}
		}
	}
}

// TestPathTricks puts into each path parameter what could be taken for
// something else than an id.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	tricks := []string{"..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e", "..\\..", "%5c..%5c", "%00", "a%00b", "%0a", "%ff", "*", "%25", "%27%20OR%201=1--", "'; DROP TABLE workloads; --",
		"$(id)", "{{7*7}}", "%F0%9F%98%80", strings.Repeat("a", 3000), "", " ", "/", "//", "sha256:", "sha256:" + strings.Repeat("0", 64), "-1", "1e9", "null", "~root", "a;b", "a,b", "%2F"}
	for _, o := range d.operations {
		if !strings.Contains(o.path, "{") || o.method == "GET" && strings.HasSuffix(o.path, "/logs") {
			continue
		}
		for _, trick := range tricks {
			segments := strings.Split(o.path, "/")
			for i, s := range segments {
				if strings.HasPrefix(s, "{") {
					segments[i] = url.PathEscape(trick)
					if strings.Contains(trick, "%") {
						segments[i] = trick
					}
				}
			}
			var body any
			if o.spec["requestBody"] != nil {
				body = object{}
			}
			a, err := op.try(o.method, strings.Join(segments, "/"), body)
			if err != nil {
				if strings.Contains(err.Error(), "invalid") {
					continue // not a URL that can be sent; TestRawRequests sends such
				}
				t.Errorf("%s %s with %q: %v", o.method, o.path, trick, err)
				continue
			}
			if a.status < 400 || a.status >= 500 {
				t.Errorf("%s %s with %q: status %d: %s", o.method, o.path, trick, a.status, clip(a.body))
			}
			if strings.Contains(string(a.body), "root:") {
				t.Errorf("%s %s with %q: %s", o.method, o.path, trick, clip(a.body))
			}
		}
	}
}

// TestQueryTricks does the same to query parameters.
func TestQueryTricks(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range d.operations {
		if o.method != "GET" || strings.Contains(o.path, "{") || strings.HasSuffix(o.path, "/stream") {
			continue
		}
		parameters, _ := o.spec["parameters"].([]any)
		for _, p := range parameters {
			name, _ := p.(object)["name"].(string)
			if name == "" || p.(object)["in"] != "query" {
				continue
			}
			for _, value := range []string{"%00", "%ff", strings.Repeat("a", 5000), "%27%20OR%201=1--", "-1", "99999999999999999999", "1e3", "0x10", "..%2f", "%F0%9F%98%80"} {
				a := op.do(t, "GET", o.path+"?"+name+"="+value, nil)
				if a.status >= 500 {
					t.Errorf("%s?%s=%s: status %d: %s", o.path, name, clip([]byte(value)), a.status, clip(a.body))
				}
				if (value == "%00" || value == "%ff") && a.status != 400 {
					t.Errorf("%s?%s=%s: status %d, want 400", o.path, name, value, a.status)
				}
			}
		}
	}
}

// raw sends bytes over a connection of its own and reads the answer.
func raw(t testing.TB, s *server, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil // it hung up without an answer, which is one, too
	}
	return resp
}

// TestRawRequests sends what no well-behaved client can.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	auth := "Host: x\r\nAuthorization: Bearer " + op.token + "\r\n"
	for name, request := range map[string]string{
		"path out of the root":    "GET /v1/../../../etc/passwd HTTP/1.1\r\n" + auth + "\r\n",
		"absolute path":           "GET //etc/passwd HTTP/1.1\r\n" + auth + "\r\n",
		"NUL in the path":         "GET /v1/tenants/\x00 HTTP/1.1\r\n" + auth + "\r\n",
		"NUL in the token":        "GET /v1/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + op.token + "\x00\r\n\r\n",
		"two tokens":              "GET /v1/tenants HTTP/1.1\r\n" + auth + "Authorization: Bearer other\r\n\r\n",
		"two lengths":             "POST /v1/decisions HTTP/1.1\r\n" + auth + "Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}abc",
		"length and chunks":       "POST /v1/decisions HTTP/1.1\r\n" + auth + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n0\r\n\r\n",
		"chunks that are none":    "POST /v1/decisions HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
		"no host":                 "GET /v1/tenants HTTP/1.1\r\n\r\n",
		"header of a megabyte":    "GET /v1/tenants HTTP/1.1\r\n" + auth + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"line feeds alone":        "GET /v1/tenants HTTP/1.1\nHost: x\n\n",
		"a method of one's own":   "SUDO /v1/tenants HTTP/1.1\r\n" + auth + "\r\n",
		"correlation of 10 KiB":   "GET /v1/nothing HTTP/1.1\r\n" + auth + "X-Correlation-ID: " + strings.Repeat("c", 10<<10) + "\r\n\r\n",
		"correlation with spaces": "GET /v1/nothing HTTP/1.1\r\n" + auth + "X-Correlation-ID: a b\r\n\r\n",
	} {
		resp := raw(t, shared, request)
		if resp == nil {
			continue
		}
		if resp.StatusCode < 400 || resp.StatusCode >= 500 && resp.StatusCode != 501 {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if id := resp.Header.Get("X-Correlation-ID"); len(id) > 128 || strings.Contains(id, " ") {
			t.Errorf("%s: X-Correlation-ID %.200q", name, id)
		}
	}
	shared.as(t, "viewer", "demo").get(t, "/v1/tenants").want(200)
}

// A client that sends a little and then nothing does not hold the server up.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(shared.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-I: %d\r\n", i); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	shared.as(t, "operator", "demo").ask(t, "meanwhile")
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("a request beside twenty slow ones took %v", d)
	}
}
