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
	"provost.dev/provost/internal/kernel/store"
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

func TestUserAdministration(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		s := w.serve()
		operator := w.signIn("demo", "operator", operatorPass).AccessToken

		made := call(t, s, "POST", "/v1/users", operator, `{"username":"bob","password":"bobs-password","roles":["viewer","developer"],"permissions":["exports.write"],"groups":["Safety"]}`)
		if made.status != 201 || made.header.Get("Location") != "/v1/users/bob" || made.header.Get("X-Event-ID") == "" || fmt.Sprint(made.body["roles"]) != "[developer viewer]" {
			t.Fatalf("create: %d %s", made.status, made.text)
		}
		if strings.Contains(made.text, "password") {
			t.Errorf("the answer speaks of the password: %s", made.text)
		}
		if e := w.last("demo", "identity.user.create", "accepted"); e.Actor != "operator@demo" || e.Resource != "user/bob" || fmt.Sprint(e.Payload["permissions"]) != "[exports.write]" {
			t.Errorf("evidence %+v", e)
		}
		if a := call(t, s, "GET", "/v1/users/bob", operator, ""); a.text != made.text {
			t.Errorf("get: %s, want %s", a.text, made.text)
		}
		bob := w.signIn("demo", "bob", "bobs-password")
		if p := w.as(bob.AccessToken); !p.Holds("exports.write") || !p.Holds("workloads.write") || !p.Holds("events.read") {
			t.Errorf("bob holds %v", p.Permissions)
		}
		a := call(t, s, "PATCH", "/v1/users/bob", operator, `{"roles":["viewer"],"permissions":[]}`)
		if a.status != 200 || fmt.Sprint(a.body["roles"], a.body["permissions"], a.body["groups"]) != "[viewer] [] [Safety]" {
			t.Errorf("patch: %d %s", a.status, a.text)
		}
		if p := w.as(bob.AccessToken); p.Holds("exports.write") || p.Holds("workloads.write") || !p.Holds("events.read") {
			t.Errorf("after losing a role and a permission bob holds %v", p.Permissions)
		}
		if e := w.last("demo", "identity.user.update", "accepted"); fmt.Sprint(e.Payload["roles"]) != "[viewer]" || e.Payload["password_changed"] != false {
			t.Errorf("evidence %+v", e)
		}

		// The list, page by page, has everyone once.
		var names []string
		for path := "/v1/users?limit=2"; path != ""; {
			page := call(t, s, "GET", path, operator, "")
			for _, item := range page.body["items"].([]any) {
				names = append(names, item.(map[string]any)["username"].(string))
			}
			path = ""
			if next, ok := page.body["next_cursor"].(string); ok {
				path = "/v1/users?limit=2&cursor=" + next
			}
		}
		if fmt.Sprint(names) != "[ada bob eve nobody operator]" {
			t.Errorf("list: %v", names)
		}

		if a := call(t, s, "DELETE", "/v1/users/bob", operator, ""); a.status != 204 || a.text != "" {
			t.Errorf("delete: %d %q", a.status, a.text)
		}
		if a := call(t, s, "GET", "/v1/users/bob", operator, ""); a.status != 404 || a.code() != "USER_NOT_FOUND" {
			t.Errorf("get after delete: %d %s", a.status, a.text)
		}
		if a := call(t, s, "DELETE", "/v1/users/bob", operator, ""); a.status != 404 {
			t.Errorf("delete again: %d", a.status)
		}
	})
}

func TestRoleAndServiceAdministration(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		s := w.serve()
		operator := w.signIn("demo", "operator", operatorPass).AccessToken
		if a := call(t, s, "POST", "/v1/roles", operator, `{"name":"on-call","permissions":["workloads.write","events.read","events.read"]}`); a.status != 201 || fmt.Sprint(a.body["permissions"]) != "[events.read workloads.write]" {
			t.Errorf("create role: %d %s", a.status, a.text)
		}
		if a := call(t, s, "POST", "/v1/roles", operator, `{"name":"viewer","permissions":[]}`); a.status != 409 || a.code() != "ROLE_EXISTS" {
			t.Errorf("a built-in role again: %d %s", a.status, a.text)
		}
		list := call(t, s, "GET", "/v1/roles", operator, "")
		if !strings.Contains(list.text, `{"name":"on-call","permissions":["events.read","workloads.write"],"built_in":false`) || len(list.body["items"].([]any)) != len(tenantRoles)+1 {
			t.Errorf("roles: %s", list.text)
		}

		made := call(t, s, "POST", "/v1/service-accounts", operator, `{"client_id":"svc-build","role_id":"IMPLEMENT","permissions":["images.write"]}`)
		secret, _ := made.body["client_secret"].(string)
		if made.status != 201 || len(secret) < 40 || made.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("create service account: %d %s", made.status, made.text)
		}
		tokens := w.exchange(Request{GrantType: "client_credentials", ClientID: "svc-build@demo", ClientSecret: secret})
		if p := w.as(tokens.AccessToken); fmt.Sprint(p.Permissions) != "[images.write]" {
			t.Errorf("svc-build holds %v", p.Permissions)
		}
		all := call(t, s, "GET", "/v1/service-accounts", operator, "")
		if !strings.Contains(all.text, `"svc-build"`) || strings.Contains(all.text, secret) || strings.Contains(all.text, "secret") {
			t.Errorf("list: %s", all.text)
		}
		if a := call(t, s, "POST", "/v1/users", operator, `{"username":"svc-build"}`); a.status != 409 || a.code() != "ACCOUNT_EXISTS" {
			t.Errorf("a user of a service account's name: %d %s", a.status, a.text)
		}
		if a := call(t, s, "DELETE", "/v1/service-accounts/svc-build", operator, ""); a.status != 204 {
			t.Errorf("delete: %d %s", a.status, a.text)
		}
		_, err := w.Authenticate(t.Context(), tokens.AccessToken)
		wants(t, "token of a deleted service account", err, kernel.Unauthenticated, "INVALID_TOKEN")
	})
}

func TestAdministrationRefuses(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	operator := w.signIn("demo", "operator", operatorPass).AccessToken
	viewer := w.signIn("demo", "nobody", adaPassword).AccessToken
	long := strings.Repeat("a", 65)
	many := `["a.b"` + strings.Repeat(`,"a.b"`, maxPermissions) + `]`
	for _, c := range []struct {
		method, path, body string
		status             int
		code, field        string
	}{
		{"POST", "/v1/users", `{}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"Bob"}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"bob@demo"}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"../bob"}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"` + long + `"}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"anonymous"}`, 400, "", "username"},
		{"POST", "/v1/users", `{"username":"bob","password":"short"}`, 400, "", "password"},
		{"POST", "/v1/users", `{"username":"bob","password":"` + strings.Repeat("x", 513) + `"}`, 400, "", "password"},
		{"POST", "/v1/users", `{"username":"bob","roles":["chief"]}`, 400, "", "roles[0]"},
		{"POST", "/v1/users", `{"username":"bob","roles":[""]}`, 400, "", "roles[0]"},
		{"POST", "/v1/users", `{"username":"bob","permissions":["everything"]}`, 400, "", "permissions[0]"},
		{"POST", "/v1/users", `{"username":"bob","permissions":` + many + `}`, 400, "", "permissions"},
		{"POST", "/v1/users", `{"username":"bob","groups":["a b"]}`, 400, "", "groups[0]"},
		{"POST", "/v1/users", `{"username":"bob","admin":true}`, 400, "", "admin"},
		{"POST", "/v1/users", `{"username":"ada"}`, 409, "ACCOUNT_EXISTS", "username"},
		{"POST", "/v1/users?tenant=rival", `{"username":"bob"}`, 404, "TENANT_NOT_FOUND", "tenant"},
		{"POST", "/v1/users?tenant=nowhere", `{"username":"bob"}`, 404, "TENANT_NOT_FOUND", "tenant"},
		{"POST", "/v1/users?force=1", `{"username":"bob"}`, 400, "", "force"},
		{"PATCH", "/v1/users/ada", `{}`, 400, "", "body"},
		{"PATCH", "/v1/users/ada", `{"password":""}`, 400, "", "password"},
		{"PATCH", "/v1/users/ada", `{"username":"bob"}`, 400, "", "username"},
		{"PATCH", "/v1/users/mallory", `{"disabled":true}`, 404, "USER_NOT_FOUND", ""},
		{"PATCH", "/v1/users/operator", `{"disabled":true}`, 409, "OWN_ACCOUNT", ""},
		{"PATCH", "/v1/users/operator", `{"roles":[]}`, 409, "OWN_ACCOUNT", ""},
		{"DELETE", "/v1/users/operator", ``, 409, "OWN_ACCOUNT", ""},
		{"GET", "/v1/users/" + long, ``, 404, "USER_NOT_FOUND", ""},
		{"GET", "/v1/users?role=viewer", ``, 400, "", "role"},
		{"POST", "/v1/roles", `{"name":"x y","permissions":[]}`, 400, "", "name"},
		{"POST", "/v1/roles", `{"name":"x","permissions":["` + strings.Repeat("a", 60) + `.read"]}`, 400, "", "permissions[0]"},
		{"POST", "/v1/service-accounts", `{"client_id":"svc","role_id":"plan"}`, 400, "", "role_id"},
		{"POST", "/v1/service-accounts", `{"client_id":"ada"}`, 409, "ACCOUNT_EXISTS", "client_id"},
		{"DELETE", "/v1/service-accounts/none", ``, 404, "SERVICE_ACCOUNT_NOT_FOUND", ""},
	} {
		a := call(t, s, c.method, c.path, operator, c.body)
		if a.status != c.status || a.code() != c.code || a.field() != c.field {
			t.Errorf("%s %s %.60s: %d %s, want %d %s for %q", c.method, c.path, c.body, a.status, a.text, c.status, c.code, c.field)
		}
	}
	for _, r := range w.Routes() {
		if r.Public != "" || r.Verb == "identity.whoami" {
			continue
		}
		path := strings.NewReplacer("{username}", "ada", "{client_id}", "svc-plain").Replace(r.Path)
		body := map[string]string{"/v1/users": `{"username":"bob","password":"bobs-password"}`, "/v1/roles": `{"name":"r"}`,
			"/v1/service-accounts": `{"client_id":"svc"}`, "/v1/users/ada": `{"disabled":true}`}[path]
		if r.Method == "GET" || r.Method == "DELETE" {
			body = ""
		}
		if a := call(t, s, r.Method, path, viewer, body); a.status != 403 {
			t.Errorf("%s %s by nobody: %d %s, want 403", r.Method, path, a.status, a.text)
		} else if e := w.last("demo", r.Verb, "refused"); e.Actor != "nobody@demo" {
			t.Errorf("%s %s: evidence %+v", r.Method, path, e)
		}
		if a := call(t, s, r.Method, path, "", body); a.status != 401 {
			t.Errorf("%s %s without a token: %d", r.Method, path, a.status)
		}
	}
}

// Who may write users must not be able to make, or become, one who may do more.
func TestNobodyGrantsBeyondTheirOwn(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	operator := w.signIn("demo", "operator", operatorPass).AccessToken
	if a := call(t, s, "POST", "/v1/users", operator, `{"username":"clerk","password":"clerks-password","permissions":["users.read","users.write","roles.write","service-accounts.write","tasks.read"]}`); a.status != 201 {
		t.Fatal(a.text)
	}
	clerk := w.signIn("demo", "clerk", "clerks-password").AccessToken
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/users", `{"username":"puppet","password":"password-1","roles":["operator"]}`},
		{"POST", "/v1/users", `{"username":"puppet","password":"password-1","permissions":["workloads.write"]}`},
		{"POST", "/v1/roles", `{"name":"puppet","permissions":["workloads.write"]}`},
		{"POST", "/v1/service-accounts", `{"client_id":"puppet","permissions":["workloads.write"]}`},
		{"PATCH", "/v1/users/operator", `{"password":"password-1"}`},
		{"PATCH", "/v1/users/nobody", `{"roles":["operator"]}`},
		{"DELETE", "/v1/users/operator", ``},
		{"DELETE", "/v1/service-accounts/svc-plan-orchestrator", ``},
	} {
		if a := call(t, s, c.method, c.path, clerk, c.body); a.status != 403 || a.code() != "GRANT_BEYOND_OWN" {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.text)
		}
	}
	if a := call(t, s, "POST", "/v1/users", clerk, `{"username":"helper","permissions":["tasks.read"]}`); a.status != 201 {
		t.Errorf("what the clerk holds: %d %s", a.status, a.text)
	}
	// A token narrowed to users.write grants no more than that.
	narrow := w.exchange(Request{Tenant: "demo", Username: "operator", Password: operatorPass, Scope: ScopeList{"users.write"}}).AccessToken
	if a := call(t, s, "POST", "/v1/users", narrow, `{"username":"puppet","roles":["operator"]}`); a.status != 403 {
		t.Errorf("by a narrowed token: %d %s", a.status, a.text)
	}
}

func TestPlatformAdministratorsBringATenantsFirstPeopleIn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		s := w.serve()
		admin := w.signIn("", "admin", adminPassword).AccessToken
		a := call(t, s, "POST", "/v1/users?tenant=rival", admin, `{"username":"boss","password":"boss-password","roles":["operator"]}`)
		if a.status != 201 || a.header.Get("Location") != "/v1/users/boss?tenant=rival" || a.body["tenant"] != "rival" {
			t.Fatalf("%d %s", a.status, a.text)
		}
		if e := w.last("rival", "identity.user.create", "accepted"); e.Actor != "admin@system" {
			t.Errorf("evidence in the tenant's log: %+v", e)
		}
		if p := w.as(w.signIn("rival", "boss", "boss-password").AccessToken); !p.Holds("workloads.write") {
			t.Errorf("boss holds %v", p.Permissions)
		}
		if a := call(t, s, "GET", "/v1/users?tenant=rival", admin, ""); !strings.Contains(a.text, `"boss"`) {
			t.Errorf("list: %s", a.text)
		}
		if a := call(t, s, "GET", "/v1/users/ada", admin, ""); a.status != 404 {
			t.Errorf("a tenant's user without naming the tenant: %d", a.status)
		}
		if a := call(t, s, "POST", "/v1/users?tenant=nowhere", admin, `{"username":"boss"}`); a.status != 404 {
			t.Errorf("unknown tenant: %d %s", a.status, a.text)
		}
		// In their own tenant they, too, grant no more than they hold.
		if a := call(t, s, "POST", "/v1/users", admin, `{"username":"x","permissions":["workloads.write"]}`); a.status != 403 {
			t.Errorf("beyond their own in the platform's tenant: %d %s", a.status, a.text)
		}
		w.setStatus("rival", "deleted")
		if a := call(t, s, "GET", "/v1/users?tenant=rival", admin, ""); a.status != 404 {
			t.Errorf("deleted tenant: %d", a.status)
		}
	})
}

func TestOthersTenantsAreInvisible(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	s := w.serve()
	rival := w.signIn("rival", "operator", rivalPassword).AccessToken
	for _, path := range []string{"/v1/users", "/v1/service-accounts", "/v1/roles"} {
		if a := call(t, s, "GET", path, rival, ""); a.status != 200 || strings.Contains(a.text, "ada") || strings.Contains(a.text, "demo") || strings.Contains(a.text, "svc-") {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	before := len(w.events("demo"))
	foreign := call(t, s, "GET", "/v1/users?tenant=demo", rival, "")
	unknown := call(t, s, "GET", "/v1/users?tenant=nowhere", rival, "")
	if foreign.text != unknown.text || foreign.status != 404 {
		t.Errorf("a foreign tenant answers %d %s, an unknown one %d %s", foreign.status, foreign.text, unknown.status, unknown.text)
	}
	if after := len(w.events("demo")); after != before {
		t.Error("a stranger's request is in the other tenant's log")
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
