package idp

import (
	"fmt"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

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
