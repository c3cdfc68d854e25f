package idp

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store/storetest"
)

// statuses is the part of edge's table that this room's errors use.
var statuses = map[kernel.Kind]int{kernel.Invalid: 400, kernel.Unauthenticated: 401, kernel.Refused: 403, kernel.NotFound: 404, kernel.Conflict: 409,
	kernel.TooLarge: 413, kernel.Unsupported: 415, kernel.TooMany: 429, kernel.Unavailable: 503, kernel.Internal: 500}

// serve mounts the routes as edge does, with as little of it as shows what they do.
func (w *world) serve() *httptest.Server {
	mux := http.NewServeMux()
	for _, r := range w.Routes() {
		mux.HandleFunc(r.Method+" "+r.Path, func(rw http.ResponseWriter, req *http.Request) {
			c := &route.Call{W: rw, R: req, Principal: w.anonymous, Correlation: "corr-http", Limit: max(r.MaxBody, 1<<16)}
			if r.MaxBody != 0 {
				c.Limit = r.MaxBody
			}
			out, err := any(nil), error(nil)
			if r.Public == "" {
				bearer, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
				c.Principal, err = w.Authenticate(req.Context(), bearer)
			}
			if err == nil {
				out, err = r.Handle(c)
			}
			rw.Header().Set("Content-Type", "application/json")
			if err != nil {
				e := kernel.AsError(err)
				rw.WriteHeader(statuses[e.Kind])
				json.NewEncoder(rw).Encode(map[string]any{"error": map[string]any{"code": e.Code, "message": e.Msg, "field": e.Field, "rule": e.Rule}}) //nolint:errcheck // a test's client
				return
			}
			rw.WriteHeader(max(r.Status, 200))
			if out != nil {
				json.NewEncoder(rw).Encode(out) //nolint:errcheck // a test's client
			}
		})
	}
	s := httptest.NewServer(mux)
	w.tb.Cleanup(s.Close)
	return s
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	text   string
}

func (a answer) code() string {
	e, _ := a.body["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

func (a answer) field() string {
	e, _ := a.body["error"].(map[string]any)
	field, _ := e["field"].(string)
	return field
}

// call sends a request; a body that starts with { or [ is JSON, another a form.
func call(t *testing.T, s *httptest.Server, method, path, bearer, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case strings.HasPrefix(body, "{"), strings.HasPrefix(body, "["):
		req.Header.Set("Content-Type", "application/json")
	case body != "":
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, text: string(text)}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &a.body); err != nil {
			t.Fatalf("%s %s: %q is not a JSON object", method, path, text)
		}
	}
	return a
}

func TestTokenEndpointAnswersExactlyTheContractsFields(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	five := []string{"access_token", "expires_at", "expires_in", "refresh_expires_in", "refresh_token", "token_type"}
	three := []string{"access_token", "expires_at", "expires_in", "token_type"}
	for _, path := range []string{"/v1/auth/token", "/api/v1/auth/token"} {
		for name, c := range map[string]struct {
			body, basic string
			want        []string
		}{
			"password in JSON":    {`{"grant_type":"password","username":"ada","password":"` + adaPassword + `","tenant":"demo"}`, "", five},
			"no grant type":       {`{"username":"ada@demo","password":"` + adaPassword + `"}`, "", five},
			"password in a form":  {"grant_type=password&username=ada&password=" + adaPassword + "&tenant=demo&unknown=ignored", "", five},
			"workspace secret":    {`{"workspace_id":"demo","workspace_secret":"` + workspaceToken + `"}`, "", five},
			"client credentials":  {"grant_type=client_credentials&client_id=svc-plain&tenant=demo&client_secret=" + plainSecret, "", three},
			"client by Basic":     {"grant_type=client_credentials", "Basic " + stdBase64("svc-plain%40demo:"+plainSecret), three},
			"scope as a string":   {`{"username":"ada@demo","password":"` + adaPassword + `","scope":"tasks.read images.read"}`, "", five},
			"scope as an array":   {`{"username":"ada@demo","password":"` + adaPassword + `","scope":["tasks.read","images.read"]}`, "", five},
			"scope that narrows":  {"username=ada@demo&scope=tasks.read+users.write&password=" + adaPassword, "", append(slices.Clone(five), "scope")},
			"the role's audience": {`{"grant_type":"client_credentials","client_id":"svc-plan-orchestrator@demo","client_secret":"` + planSecret + `","audience":"mrp-orchestrator"}`, "", three},
		} {
			header := []string{"X", "x"}
			if c.basic != "" {
				header = []string{"Authorization", c.basic}
			}
			a := call(t, s, "POST", path, "", c.body, header...)
			slices.Sort(c.want)
			if got := slices.Sorted(maps.Keys(a.body)); a.status != 200 || !slices.Equal(got, c.want) {
				t.Errorf("%s %s: %d %v, want %v", path, name, a.status, got, c.want)
				continue
			}
			if _, err := time.Parse(time.RFC3339, a.body["expires_at"].(string)); err != nil || a.body["token_type"] != "Bearer" {
				t.Errorf("%s %s: %s", path, name, a.text)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Event-ID") == "" || a.header.Get("X-Evidence-Pointer") == "" {
				t.Errorf("%s %s: headers %v", path, name, a.header)
			}
		}
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	for _, c := range []struct {
		name, body string
		status     int
		code       string
		header     []string
	}{
		{"empty body", "", 400, "INVALID_REQUEST", nil},
		{"half an object", "{", 400, "INVALID_REQUEST", nil},
		{"a list", "[]", 400, "INVALID_REQUEST", nil},
		{"unknown field", `{"username":"a","password":"b","user":"c"}`, 400, "INVALID_REQUEST", nil},
		{"field twice", `{"username":"a","username":"b","password":"c"}`, 400, "INVALID_REQUEST", nil},
		{"wrong type", `{"username":7,"password":"b"}`, 400, "INVALID_REQUEST", nil},
		{"wrong scope type", `{"username":"a","password":"b","scope":7}`, 400, "INVALID_REQUEST", nil},
		{"NUL", `{"username":"a\u0000","password":"b"}`, 400, "INVALID_REQUEST", nil},
		{"parameter twice", "username=a&username=b&password=c", 400, "INVALID_REQUEST", nil},
		{"no password", `{"username":"ada"}`, 400, "INVALID_REQUEST", nil},
		{"no username", `{"password":"x"}`, 400, "INVALID_REQUEST", nil},
		{"another grant's field", `{"username":"a","password":"b","refresh_token":"c"}`, 400, "INVALID_REQUEST", nil},
		{"workspace without secret", `{"workspace_id":"demo"}`, 400, "INVALID_REQUEST", nil},
		{"two tenants", `{"workspace_id":"demo","workspace_secret":"x","tenant":"rival"}`, 400, "INVALID_REQUEST", nil},
		{"unknown grant", `{"grant_type":"telepathy"}`, 400, "UNSUPPORTED_GRANT", nil},
		{"a grant by our name for it", `{"grant_type":"workspace_secret"}`, 400, "UNSUPPORTED_GRANT", nil},
		{"unknown audience", `{"username":"a","password":"b","audience":"elsewhere"}`, 400, "INVALID_REQUEST", nil},
		{"scope that is no permission", `{"username":"a","password":"b","scope":"openid"}`, 400, "INVALID_SCOPE", nil},
		{"too large", `{"username":"` + strings.Repeat("a", maxRequest) + `"}`, 413, "", nil},
		{"other media type", "<token/>", 415, "", []string{"Content-Type", "application/xml"}},
		{"no media type", "<token/>", 415, "", []string{"Content-Type", ";"}},
		{"Basic and body", "grant_type=client_credentials&client_id=a&client_secret=b", 400, "INVALID_REQUEST", []string{"Authorization", "Basic " + stdBase64("a:b")}},
		{"Basic that is none", "grant_type=client_credentials", 400, "INVALID_REQUEST", []string{"Authorization", "Basic !"}},
		{"Basic with a password grant", "username=a&password=b", 400, "INVALID_REQUEST", []string{"Authorization", "Basic " + stdBase64("a:b")}},
		{"wrong password", `{"username":"ada","password":"nope-nope","tenant":"demo"}`, 401, "INVALID_CREDENTIALS", nil},
		{"disabled", `{"username":"eve","password":"` + evePassword + `","tenant":"demo"}`, 403, "ACCOUNT_DISABLED", nil},
		{"refresh token that is none", `{"grant_type":"refresh_token","refresh_token":"x"}`, 401, "INVALID_GRANT", nil},
		{"wrong client by Basic", "grant_type=client_credentials", 401, "INVALID_CREDENTIALS", []string{"Authorization", "Basic " + stdBase64("svc-plain%40demo:x")}},
	} {
		before := len(w.events("system")) + len(w.events("demo"))
		a := call(t, s, "POST", "/v1/auth/token", "", c.body, c.header...)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.status, a.text, c.status, c.code)
		}
		if after := len(w.events("system")) + len(w.events("demo")); after != before+1 {
			t.Errorf("%s: %d events, want one", c.name, after-before)
		}
		if basic := len(c.header) > 0 && c.header[0] == "Authorization"; (a.header.Get("WWW-Authenticate") != "") != (basic && c.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", c.name, a.header.Get("WWW-Authenticate"))
		}
	}
}

// A client that knows nothing but the issuer can verify a token.
func TestDiscovery(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	doc := call(t, s, "GET", "/.well-known/openid-configuration", "", "")
	if again := call(t, s, "GET", "/.well-known/oauth-authorization-server", "", ""); again.text != doc.text {
		t.Error("the two discovery documents differ")
	}
	if doc.body["issuer"] != issuer {
		t.Errorf("issuer %v", doc.body["issuer"])
	}
	path, ok := strings.CutPrefix(doc.body["jwks_uri"].(string), issuer)
	if !ok {
		t.Fatalf("jwks_uri %v is not under the issuer", doc.body["jwks_uri"])
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(call(t, s, "GET", path, "", "").text), &set); err != nil {
		t.Fatal(err)
	}
	endpoint, _ := strings.CutPrefix(doc.body["token_endpoint"].(string), issuer)
	got := call(t, s, "POST", endpoint, "", "username=ada@demo&password="+adaPassword)
	parsed, err := jwt.ParseSigned(got.body["access_token"].(string), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	if err := parsed.Claims(set, &claims); err != nil {
		t.Fatal(err)
	}
	if err := claims.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{DefaultAudience}, Time: w.clock.now()}, 0); err != nil {
		t.Error(err)
	}
	// Every grant the document names works, and no endpoint is named that is not there.
	for name := range doc.body {
		if strings.HasSuffix(name, "_endpoint") && name != "token_endpoint" {
			t.Errorf("the document names %s", name)
		}
	}
	for _, g := range doc.body["grant_types_supported"].([]any) {
		if a := call(t, s, "POST", endpoint, "", "grant_type="+g.(string)); a.code() == "UNSUPPORTED_GRANT" {
			t.Errorf("grant %v is named and not supported", g)
		}
	}
}

func TestWhoami(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	a := call(t, s, "GET", "/v1/whoami", w.signIn("demo", "ada", adaPassword).AccessToken, "")
	if a.status != 200 || a.body["principal"] != "ada@demo" || a.body["tenant"] != "demo" || a.body["kind"] != "human" || a.body["expires_at"] != "2026-03-01T13:00:00Z" ||
		fmt.Sprint(a.body["roles"]) != "[developer]" || fmt.Sprint(a.body["groups"]) != "[QA]" || len(a.body["permissions"].([]any)) == 0 {
		t.Errorf("%d %s", a.status, a.text)
	}
	if a := call(t, s, "GET", "/v1/whoami", w.signIn("demo", "nobody", adaPassword).AccessToken, ""); a.status != 200 || fmt.Sprint(a.body["permissions"]) != "[]" {
		t.Errorf("nobody: %d %s", a.status, a.text)
	}
	if a := call(t, s, "GET", "/v1/whoami", "", ""); a.status != 401 {
		t.Errorf("no token: %d", a.status)
	}
}

// What edge refuses on its own account it records under the route's verb.
func TestRoutesNameDeclaredVerbs(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	verbs := w.gov.Verbs()
	for _, r := range w.Routes() {
		if _, ok := verbs[r.Verb]; ok == (r.Public != "") {
			t.Errorf("%s %s: verb %q, public because %q; want one of them", r.Method, r.Path, r.Verb, r.Public)
		}
	}
	for _, v := range Verbs {
		if _, ok := w.schema.Action(v.Name); !ok {
			t.Errorf("verb %s is not an action of the schema", v.Name)
		}
	}
	if len(Verbs) != len(Declaration.Actions) {
		t.Errorf("%d verbs, %d actions", len(Verbs), len(Declaration.Actions))
	}
	if identity.SystemTenant != "system" {
		t.Error("policy.cedar names the platform's tenant: change it there, too")
	}
}
