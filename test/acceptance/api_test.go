package acceptance

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestAPI01Versions(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	for _, path := range []string{"/tenants", "/tenants/demo", "/workloads", "/events", "/exports", "/v2/tenants", "/v3/tenants", "/v11/events", "/V1/tenants", "/v1", "/v1/", "/v1/nothing", "/v1/tenants/demo/nothing", "/api/v1/tenants", "/api/v2/auth/token"} {
		a := op.get(t, path)
		if a.status != 404 {
			t.Errorf("%s: status %d", path, a.status)
		}
	}
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range d.operations {
		// Beside /v1 there are the contracts' own: channels, the task family's token path, discovery, and pages for people.
		if !slices.ContainsFunc([]string{"/v1/", "/api/v1/", "/events/", "/.well-known/", "/docs"}, func(p string) bool { return strings.HasPrefix(o.path, p) }) {
			t.Errorf("%s %s is outside /v1", o.method, o.path)
		}
	}
}

func TestAPI02ErrorBodies(t *testing.T) {
	t.Parallel()
	tn, nobody := shared.newTenant(t), shared.anonymous()
	answers := append(refusals(t, tn), tn.op.get(t, "/nothing"), tn.op.get(t, "/v1/events?limit=x"), tn.op.do(t, "PUT", "/v1/tenants", object{}),
		tn.op.do(t, "OPTIONS", "/v1/tenants", nil), nobody.get(t, "/v1/tenants"), nobody.post(t, "/v1/auth/token", "{"), nobody.do(t, "PATCH", "/v1/auth/token", object{}), nobody.get(t, "/api/v1/none"))
	for _, a := range answers {
		if a.status < 400 {
			t.Errorf("%s: status %d", a.request, a.status)
			continue
		}
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: Content-Type %q", a.request, got)
		}
		o := a.json()
		if strings.Contains(a.request, "/auth/") || strings.Contains(a.request, "/api/") {
			o, _ = o["error"].(object)
		}
		if !isText(o["code"]) || !isText(o["message"]) {
			t.Errorf("%s: %d with %s", a.request, a.status, a.body)
		}
		for _, leak := range []string{"goroutine", ".go:", "sql", "SELECT", "panic", "/internal/"} {
			if strings.Contains(string(a.body), leak) {
				t.Errorf("%s: %s stands in %s", a.request, leak, a.body)
			}
		}
		if a.header.Get("X-Correlation-ID") == "" || a.header.Get("X-Request-Duration") == "" {
			t.Errorf("%s: X-Correlation-ID %q, X-Request-Duration %q", a.request, a.header.Get("X-Correlation-ID"), a.header.Get("X-Request-Duration"))
		}
	}
}

func TestAPI04FederationClaims(t *testing.T) {
	t.Parallel()
	for _, c := range []*client{shared.as(t, "viewer", "demo"), shared.as(t, "nobody", "demo"), shared.admin(t)} {
		claims := c.get(t, "/v1/federation/claims").want(200).json()
		for _, group := range []string{"identity_federation", "storage", "policy_enforcement", "audit_export", "implements"} {
			if o, ok := claims[group].(object); !ok || len(o) == 0 {
				t.Errorf("%s: %s is %v", c.name, group, claims[group])
			}
		}
		implements, err := json.Marshal(claims["implements"])
		if err != nil {
			t.Fatal(err)
		}
		for _, profile := range profiles {
			if !strings.Contains(string(implements), profile) {
				t.Errorf("the claim does not name %s", profile)
			}
		}
		endpoints, _ := dig(claims, "implements.export_endpoints").([]any)
		for _, path := range endpoints { // reachable, as BUN-11 asks
			if got := shared.as(t, "auditor", "demo").get(t, path.(string)); got.status != 200 {
				t.Errorf("%s is claimed and answers %d", path, got.status)
			}
		}
	}
	shared.anonymous().get(t, "/v1/federation/claims").want(401)
}

// Lists page by cursor, without loss and without end (shapes.md).
func TestListsPage(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for range 3 {
		furnish(t, tn)
	}
	for _, path := range []string{"/v1/authorities", "/v1/policies", "/v1/trust-keys", "/v1/images", "/v1/users", "/v1/roles", "/v1/service-accounts", "/v1/exports", "/v1/tenants"} {
		whole := tn.op.get(t, path+"?limit=1000").want(200)
		var paged []object
		cursor := ""
		for {
			a := tn.op.get(t, path+"?limit=1"+cursor).want(200)
			items := a.items()
			if len(items) > 1 {
				t.Fatalf("%s: %d items in a page of one", path, len(items))
			}
			paged = append(paged, items...)
			next, more := a.json()["next_cursor"].(string)
			if !more || len(paged) > 1000 {
				break
			}
			cursor = "&cursor=" + next
		}
		if got, want := encode(t, paged), encode(t, whole.items()); string(got) != string(want) {
			t.Errorf("%s: %d items in pages of one, %d in one page", path, len(paged), len(whole.items()))
		}
		for _, query := range []string{"limit=0", "limit=-1", "limit=x", "cursor=!", "cursor=%00", "order=asc"} {
			tn.op.get(t, path+"?"+query).want(400)
		}
	}
}

// Every mutation says where its evidence is (shapes.md).
func TestMutationsCarryReceipts(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for _, a := range []*answer{
		tn.op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("x")}),
		tn.op.post(t, "/v1/policies/p/1/deprecate", nil),
		tn.op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": newSigner(t).pem(t), "uses": []string{"sbom"}}),
		tn.op.do(t, "DELETE", "/v1/trust-keys/k", nil),
		tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"contact": "c"}),
		tn.op.post(t, "/v1/roles", object{"name": "r", "permissions": []string{}}),
		tn.op.post(t, "/v1/service-accounts", object{"client_id": "s", "permissions": []string{}}),
		tn.op.do(t, "DELETE", "/v1/service-accounts/s", nil),
		tn.op.ask(t, "x"),
	} {
		a.want(200, 201, 204)
		e := tn.op.event(a)
		if e["outcome"] != "accepted" || e["evidence_pointer"] != a.header.Get("X-Evidence-Pointer") {
			t.Errorf("%s: %v, pointer %v, header %q", a.request, e["outcome"], e["evidence_pointer"], a.header.Get("X-Evidence-Pointer"))
		}
		if a.status == 201 && a.header.Get("Location") == "" {
			t.Errorf("%s: 201 without Location", a.request)
		}
		if a.status == 204 && len(a.body) > 0 {
			t.Errorf("%s: 204 with a body", a.request)
		}
	}
}
