package acceptance

import (
	"maps"
	"strings"
	"testing"
	"time"
)

var tenantFields = []string{"id", "authority_binding", "jurisdiction", "classification_ceiling", "policy_baseline"}

func TestTEN01CreateTenant(t *testing.T) {
	t.Parallel()
	admin, body := shared.admin(t), tenantBody(unique("ten01"))
	created := admin.post(t, "/v1/tenants", body).want(201)
	if got, want := created.header.Get("Location"), "/v1/tenants/"+body["id"].(string); got != want {
		t.Errorf("Location is %q, want %q", got, want)
	}
	if created.text("status") != "active" {
		t.Errorf("status is %q, want active", created.text("status"))
	}
	got := admin.get(t, "/v1/tenants/"+body["id"].(string)).want(200)
	for _, f := range tenantFields {
		if got.text(f) != body[f] || created.text(f) != body[f] {
			t.Errorf("%s: sent %v, created %v, got %v", f, body[f], created.text(f), got.text(f))
		}
	}
}

// The contracts name the id in two ways (ecs.md X10).
func TestTEN01CreateTenantByTenantID(t *testing.T) {
	t.Parallel()
	admin := shared.admin(t)
	body := tenantBody(unique("ten01"))
	body["tenant_id"] = body["id"]
	delete(body, "id")
	if got := admin.post(t, "/v1/tenants", body).want(201).text("id"); got != body["tenant_id"] {
		t.Errorf("id is %q, want %v", got, body["tenant_id"])
	}
	body["id"] = unique("ten01")
	admin.post(t, "/v1/tenants", body).refused(admin, 400)
}

func TestTEN02MissingAuthority(t *testing.T) {
	t.Parallel()
	admin, body := shared.admin(t), tenantBody(unique("ten02"))
	delete(body, "authority_binding")
	a := admin.post(t, "/v1/tenants", body)
	e := a.refused(admin, 400)
	if a.text("code") != "ECS_MISSING_AUTHORITY" {
		t.Errorf("code is %q", a.text("code"))
	}
	if a.text("evidence_profile_id") == "" {
		t.Error("no evidence_profile_id")
	}
	if e["refusal_reason_class"] != "authority_missing_or_invalid" {
		t.Errorf("class is %v", e["refusal_reason_class"])
	}
	admin.get(t, "/v1/tenants/"+body["id"].(string)).want(404)
}

func TestTEN03MissingField(t *testing.T) {
	t.Parallel()
	admin := shared.admin(t)
	for _, field := range []string{"jurisdiction", "policy_baseline", "classification_ceiling", "id"} {
		body := tenantBody(unique("ten03"))
		delete(body, field)
		a := admin.post(t, "/v1/tenants", body)
		a.refused(admin, 400)
		if a.text("field") != field {
			t.Errorf("without %s the error is of field %q", field, a.text("field"))
		}
	}
}

func TestTEN03BadField(t *testing.T) {
	t.Parallel()
	admin := shared.admin(t)
	for field, values := range map[string][]any{
		"jurisdiction":           {"de", "DEU", "XX", "Germany", "", "D\u0395", 7},
		"classification_ceiling": {"top-secret", "Public", ""},
		"id":                     {"UPPER", "with space", "a/b", "..", "-a", "a-", strings.Repeat("a", 64), "ü"},
		"quotas":                 {object{"gpus": 1}, object{"workloads": -1}, []string{}},
	} {
		for _, v := range values {
			body := tenantBody(unique("ten03"))
			body[field] = v
			a := admin.post(t, "/v1/tenants", body)
			a.refused(admin, 400)
			if got := a.text("field"); got != field && !strings.HasPrefix(got, field+".") {
				t.Errorf("%s = %v: the error is of field %q", field, v, got)
			}
		}
	}
}

// authority makes one and returns its id.
func authority(t testing.TB, c *client, fields object) string {
	t.Helper()
	body := object{"id": unique("auth"), "issuer": "https://ministry.example", "subject": "*", "scope": []string{"*"},
		"valid_from": moment(-time.Hour), "valid_to": moment(time.Hour)}
	maps.Copy(body, fields)
	return c.post(t, "/v1/authorities", body).want(201).text("id")
}

// moment is an RFC 3339 time relative to now.
func moment(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }

func TestTEN04BadAuthority(t *testing.T) {
	t.Parallel()
	admin := shared.admin(t)
	for name, c := range map[string]struct{ binding, reason string }{
		"unknown":                    {"auth-that-is-not", "authority_invalid"},
		"expired":                    {authority(t, admin, object{"valid_from": moment(-2 * time.Hour), "valid_to": moment(-time.Hour)}), "authority_expired"},
		"not begun":                  {authority(t, admin, object{"valid_from": moment(time.Hour), "valid_to": moment(2 * time.Hour)}), "authority_invalid"},
		"out of scope":               {authority(t, admin, object{"scope": []string{"workload"}}), "scope_mismatch"},
		"of another tenant":          {authority(t, admin, object{"subject": "rival"}), "scope_mismatch"},
		"of another tenant, spelled": {authority(t, admin, object{"subject": "tenant/rival"}), "scope_mismatch"},
	} {
		body := tenantBody(unique("ten04"))
		body["authority_binding"] = c.binding
		e := admin.post(t, "/v1/tenants", body).refused(admin, 403)
		if e["refusal_reason_code"] != c.reason || e["refusal_reason_class"] != "authority_missing_or_invalid" {
			t.Errorf("%s: refused by %v (%v), want %s", name, e["refusal_reason_code"], e["refusal_reason_class"], c.reason)
		}
		admin.get(t, "/v1/tenants/"+body["id"].(string)).want(404)
	}
}

func TestTEN05BadBaseline(t *testing.T) {
	t.Parallel()
	admin, stale := shared.admin(t), unique("stale")
	admin.post(t, "/v1/policies", object{"id": stale, "version": "1", "cedar": narrowing("nothing")}).want(201)
	admin.post(t, "/v1/policies/"+stale+"/1/deprecate", nil).want(200)
	for baseline, reason := range map[string]string{"no-such-policy": "policy_missing", "policy-baseline@none": "policy_missing", stale: "policy_invalid", stale + "@1": "policy_invalid"} {
		body := tenantBody(unique("ten05"))
		body["policy_baseline"] = baseline
		e := admin.post(t, "/v1/tenants", body).refused(admin, 403)
		if e["refusal_reason_code"] != reason {
			t.Errorf("%s: refused by %v, want %s", baseline, e["refusal_reason_code"], reason)
		}
		admin.get(t, "/v1/tenants/"+body["id"].(string)).want(404)
	}
}

// narrowing is a policy that forbids to create a workload with this name,
// which no test gives to one it wants.
func narrowing(rule string) string {
	return `@id("` + rule + `")
@reason("this test forbids it")
forbid (principal, action == Action::"workload.create", resource)
when { resource has restart && resource.restart == "always" };
`
}

func TestTEN06Bootstrap(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	found := tn.op.events(t, "event_type=olz.bootstrap")
	if len(found) != 1 {
		t.Fatalf("%d olz.bootstrap events, want 1", len(found))
	}
	e := found[0]
	for field, want := range (object{"authority_binding": "auth-demo", "policy_baseline": "policy-baseline", "jurisdiction": "DE",
		"classification_ceiling": "restricted", "outcome": "accepted", "tenant_id": tn.id}) {
		if e[field] != want {
			t.Errorf("%s is %v, want %v", field, e[field], want)
		}
	}
	for _, snapshot := range []string{"authority_snapshot_id", "policy_snapshot_id"} {
		id, _ := e[snapshot].(string)
		if b := tn.op.get(t, "/v1/artifacts/"+id).want(200).body; digestOf(b) != id {
			t.Errorf("%s is %s, its artifact hashes to %s", snapshot, id, digestOf(b))
		}
	}
	if quotas, ok := e["initial_quotas"].(object); !ok || len(quotas) == 0 {
		t.Errorf("initial_quotas are %v", e["initial_quotas"])
	}
	if ns, _ := e["network_namespace_id"].(string); ns == "" {
		t.Error("no network_namespace_id")
	}
}

func TestTEN07LifecycleEvents(t *testing.T) {
	t.Parallel()
	admin, tn := shared.admin(t), shared.newTenant(t)
	path := "/v1/tenants/" + tn.id
	step := func(typ string, a *answer) {
		t.Helper()
		e := admin.event(a)
		if e["event_type"] != typ || e["outcome"] != "accepted" || e["tenant_id"] != tn.id {
			t.Errorf("%s: the event is %v %v of %v", a.request, e["event_type"], e["outcome"], e["tenant_id"])
		}
		for _, f := range []string{"authority_snapshot_id", "policy_snapshot_id", "correlation_id", "evidence_pointer"} {
			if s, _ := e[f].(string); s == "" {
				t.Errorf("%s: the event has no %s", a.request, f)
			}
		}
	}
	correlation := unique("ten07")
	step("tenant.update", admin.do(t, "PATCH", path, object{"contact": "sec@example.org"}, "X-Correlation-ID", correlation).want(200))
	step("tenant.suspend", admin.post(t, path+"/suspend", nil, "X-Correlation-ID", correlation).want(202))
	if got := tn.op.events(t, "correlation_id="+correlation); len(got) != 2 {
		t.Errorf("%d events of one update and one suspension", len(got))
	}
	step("tenant.delete", admin.do(t, "DELETE", path, nil).want(204))
	if got := admin.get(t, path).want(200).text("status"); got != "deleted" {
		t.Errorf("status after DELETE is %q", got)
	}
}

func TestTEN08Suspension(t *testing.T) {
	t.Parallel()
	admin, tn := shared.admin(t), shared.newTenant(t)
	path := "/v1/tenants/" + tn.id
	admin.post(t, path+"/suspend", nil).want(202)
	if got := tn.op.get(t, path).want(200).text("status"); got != "suspended" {
		t.Errorf("status is %q", got)
	}
	for _, write := range []struct {
		path string
		body object
	}{
		{"/v1/workloads", object{"envelope_type": "container", "image_ref": tn.id + "/app@sha256:" + strings.Repeat("0", 64)}},
		{"/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("nothing")}},
		{"/v1/trust-keys", object{"name": "k", "public_key": newSigner(t).pem(t), "uses": []string{"signature"}}},
		{"/v1/exports", object{"evidence_profile_id": "ecs-evidence-baseline"}},
		{"/v1/authorities", object{"issuer": "me", "subject": "*", "scope": []string{"*"}, "valid_from": moment(0), "valid_to": moment(time.Hour)}},
		{"/v1/users", object{"username": "eve", "password": "correct horse battery", "roles": []string{"viewer"}}},
	} {
		a := tn.op.post(t, write.path, write.body)
		e := a.refused(tn.op, 403)
		if a.text("rule_id") != "tenant.suspended" || e["refusal_reason_code"] != "tenant.suspended" {
			t.Errorf("%s: refused by %v", write.path, a.text("rule_id"))
		}
	}
	push := tn.op.post(t, "/v2/"+tn.id+"/app/blobs/uploads/", nil).want(403)
	if e := tn.op.event(push); e["refusal_reason_code"] != "tenant.suspended" {
		t.Errorf("a push is refused by %v", e["refusal_reason_code"])
	}
	tn.op.get(t, "/v1/events").want(200)
	admin.do(t, "PATCH", path, object{"status": "active"}).want(200)
	tn.op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("nothing")}).want(201)
}

func TestTEN09Duplicate(t *testing.T) {
	t.Parallel()
	admin, tn := shared.admin(t), shared.newTenant(t)
	path := "/v1/tenants/" + tn.id
	before := admin.get(t, path).want(200).json()
	again := tenantBody(tn.id)
	again["jurisdiction"] = "FR"
	a := admin.post(t, "/v1/tenants", again)
	a.refused(admin, 409)
	if a.text("code") != "ECS_TENANT_EXISTS" {
		t.Errorf("code is %q", a.text("code"))
	}
	after := admin.get(t, path).want(200).json()
	for _, f := range append(tenantFields, "updated_at", "created_at") {
		if after[f] != before[f] {
			t.Errorf("%s was %v, is %v", f, before[f], after[f])
		}
	}
	admin.do(t, "DELETE", path, nil).want(204)
	admin.post(t, "/v1/tenants", again).refused(admin, 409) // an id has one log for ever
}

func TestTEN10Unknown(t *testing.T) {
	t.Parallel()
	admin, path := shared.admin(t), "/v1/tenants/"+unique("nobody")
	for _, a := range []*answer{
		admin.get(t, path), admin.do(t, "PATCH", path, object{"contact": "x"}), admin.do(t, "DELETE", path, nil), admin.post(t, path+"/suspend", nil),
	} {
		a.want(404)
		if a.text("code") == "" || a.text("message") == "" {
			t.Errorf("%s: %s", a.request, a.body)
		}
	}
}

func TestTEN11RefusedCreateIsKept(t *testing.T) {
	t.Parallel()
	admin, body := shared.admin(t), tenantBody(unique("ten11"))
	body["authority_binding"] = "auth-that-is-not"
	correlation := unique("ten11")
	a := admin.post(t, "/v1/tenants", body, "X-Correlation-ID", correlation)
	a.refused(admin, 403)
	kept := admin.events(t, "correlation_id="+correlation)
	if len(kept) != 1 {
		t.Fatalf("%d events, want the refusal", len(kept))
	}
	e := kept[0]
	if e["event_type"] != "olz.bootstrap" || e["outcome"] != "refused" || e["tenant_id"] != "system" || e["resource_id"] != "tenant/"+body["id"].(string) {
		t.Errorf("%v %v of %v in the log of %v", e["event_type"], e["outcome"], e["resource_id"], e["tenant_id"])
	}
	for _, f := range []string{"authority_snapshot_id", "policy_snapshot_id"} {
		id, _ := e[f].(string)
		if b := admin.get(t, "/v1/artifacts/"+id).want(200).body; digestOf(b) != id {
			t.Errorf("%s %s does not resolve", f, id)
		}
	}
	// A developer may not make tenants at all, and that, too, is kept.
	dev := shared.as(t, "developer", "demo")
	dev.post(t, "/v1/tenants", tenantBody(unique("ten11"))).refused(dev, 403)
}

// What a tenant may not do to itself, its operator is refused.
func TestTenantOperatorMayOnlyBind(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	path := "/v1/tenants/" + tn.id
	for _, change := range []object{{"jurisdiction": "FR"}, {"classification_ceiling": "secret"}, {"quotas": object{"workloads": 9999}}, {"status": "active"},
		{"contact": "me@example.org", "jurisdiction": "FR"}} {
		tn.op.do(t, "PATCH", path, change).refused(tn.op, 403)
	}
	tn.op.post(t, path+"/suspend", nil).refused(tn.op, 403)
	tn.op.do(t, "DELETE", path, nil).refused(tn.op, 403)
	tn.op.do(t, "PATCH", path, object{"contact": "me@example.org"}).want(200)
	tn.op.do(t, "PATCH", path, object{}).refused(tn.op, 400)
	tn.op.do(t, "PATCH", path, object{"status": "deleted"}).refused(tn.op, 400)
}
