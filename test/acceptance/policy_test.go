package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPFC01VersionsNeverChange(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	first := object{"id": "p", "version": "1", "cedar": narrowing("one")}
	hash := tn.op.post(t, "/v1/policies", first).want(201).text("hash")
	for _, again := range []object{with(first, "cedar", narrowing("two")), first} {
		a := tn.op.post(t, "/v1/policies", again)
		a.refused(tn.op, 409)
		if a.text("code") != "ECS_POLICY_EXISTS" {
			t.Errorf("code is %q", a.text("code"))
		}
	}
	got := tn.op.get(t, "/v1/policies/p/1").want(200)
	if got.text("hash") != hash || got.text("cedar") != first["cedar"] || hash != digestOf([]byte(narrowing("one"))) {
		t.Errorf("the version is now %s", got.body)
	}
	tn.op.post(t, "/v1/policies", with(first, "version", "2")).want(201)
	tn.op.post(t, "/v1/policies/p/1/deprecate", nil).want(200)
	tn.op.post(t, "/v1/policies", first).refused(tn.op, 409) // nor does it come back
}

func TestPFC01BadPolicies(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for name, cedar := range map[string]string{
		"not Cedar":         "permit everything",
		"cut":               `forbid (principal, action == Action::"workload.create", resource) when {`,
		"unknown action":    `@id("x") forbid (principal, action == Action::"workload.launch", resource);`,
		"unknown attribute": `@id("x") forbid (principal, action == Action::"workload.create", resource) when { resource.colour == "red" };`,
		"wrong type":        `@id("x") forbid (principal, action == Action::"workload.create", resource) when { resource has restart && resource.restart > 3 };`,
		"no id":             `forbid (principal, action == Action::"workload.create", resource);`,
		"one id twice":      narrowing("x") + narrowing("x"),
		"NUL":               narrowing("x") + "\x00",
	} {
		a := tn.op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": cedar})
		a.refused(tn.op, 400)
		if got := a.text("field"); got != "cedar" && (name != "NUL" || got != "body") {
			t.Errorf("%s: the error is of field %q: %s", name, a.text("field"), a.text("message"))
		}
	}
	tn.op.get(t, "/v1/policies/p").want(404)
}

func TestPFC02DecisionsAreDeterministic(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	tn.op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("test.no_always")}).want(201)
	tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"policy_baseline": "p"}).want(200)
	for _, q := range []struct {
		question object
		decision string
		rule     string
	}{
		{object{"action": "workload.create", "resource": object{"type": "Workload", "id": "w", "attributes": object{"restart": "always"}}}, "deny", "test.no_always"},
		{object{"action": "workload.create", "resource": object{"type": "Workload", "id": "w", "attributes": object{"restart": "never"}}}, "allow", "workload.write"},
		{object{"action": "tenant.create", "resource": object{"type": "Tenant", "id": "x"}}, "deny", ""},
		{object{"action": "workload.create", "resource": object{"type": "Workload"}, "principal": object{"name": "eve", "permissions": []string{"workloads.read"}}}, "deny", ""},
		{object{"action": "workload.create", "resource": object{"type": "Workload"}, "principal": object{"name": "eve", "permissions": []string{"workloads.write"}}}, "allow", "workload.write"},
	} {
		first, second := tn.op.post(t, "/v1/decisions", q.question).want(200).json(), tn.op.post(t, "/v1/decisions", q.question).want(200).json()
		for _, field := range []string{"decision", "policy_snapshot_id", "authority_snapshot_id"} {
			if first[field] != second[field] || !isText(first[field]) {
				t.Errorf("%v: %s is %v, then %v", q.question, field, first[field], second[field])
			}
		}
		rules, _ := first["rules"].([]any)
		if first["decision"] != q.decision || q.rule != "" && !slices.Contains(rules, any(q.rule)) {
			t.Errorf("%v: %v by %v, want %s by %q", q.question, first["decision"], rules, q.decision, q.rule)
		}
	}
	if got := tn.op.get(t, "/v1/workloads").want(200).items(); len(got) != 0 {
		t.Error("a question made a workload")
	}
}

func TestPFC03AuthorityExpires(t *testing.T) {
	t.Parallel()
	admin := shared.admin(t)
	id := unique("auth")
	const lasts = 3 * time.Second
	grant := object{"id": id, "issuer": "https://ministry.example", "subject": "*", "scope": []string{"*"}, "valid_from": moment(-time.Hour), "valid_to": moment(lasts)}
	admin.post(t, "/v1/authorities", grant).want(201)
	tn := shared.newTenant(t, object{"authority_binding": id})
	before := tn.op.ask(t, "while it lasts").text("authority_snapshot_id")
	var refusal *answer
	eventually(t, "the authority to expire", func() bool {
		refusal = tn.op.post(t, "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload"}})
		return refusal.status != 200
	})
	e := refusal.refused(tn.op, 403)
	if refusal.text("code") != "ECS_AUTHORITY_EXPIRED" || e["refusal_reason_code"] != "authority_expired" || e["refusal_reason_class"] != "authority_missing_or_invalid" {
		t.Errorf("refused by %v of class %v", e["refusal_reason_code"], e["refusal_reason_class"])
	}
	if w := tn.op.post(t, "/v1/workloads", object{"envelope_type": "container", "image_ref": "x@" + digestOf(nil)}); w.refused(tn.op, 403)["refusal_reason_code"] != "authority_expired" {
		t.Errorf("a workload is refused by %s", w.body)
	}
	tn.op.get(t, "/v1/events").want(200) // reading goes on

	renewed := admin.post(t, "/v1/authorities", with(grant, "valid_to", moment(time.Hour))).want(201)
	if e := admin.event(renewed); e["event_type"] != "authority.binding" || fmt.Sprint(e["revision"]) != "2" || e["authority_id"] != id {
		t.Errorf("the renewal is %v of %v, revision %v", e["event_type"], e["authority_id"], e["revision"])
	}
	if after := tn.op.ask(t, "restored").text("authority_snapshot_id"); after == before {
		t.Error("the renewed authority has the old snapshot")
	}
	// Binding another one restores, too, and is the operator's to do.
	own := authority(t, tn.op, object{"scope": []string{"*"}})
	tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"authority_binding": own}).want(200)
	tn.op.ask(t, "under its own")
	for binding, reason := range map[string]string{"none": "authority_invalid", authority(t, tn.op, object{"valid_to": moment(-time.Minute)}): "authority_expired"} {
		if e := tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"authority_binding": binding}).refused(tn.op, 403); e["refusal_reason_code"] != reason {
			t.Errorf("binding %s is refused by %v", binding, e["refusal_reason_code"])
		}
	}
}

func TestPFC03AuthorityScope(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t, object{"authority_binding": authority(t, shared.admin(t), object{"scope": []string{"tenant", "decision.*", "identity"}})})
	tn.op.ask(t, "in scope")
	e := tn.op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": newSigner(t).pem(t), "uses": []string{"sbom"}}).refused(tn.op, 403)
	if e["refusal_reason_code"] != "scope_mismatch" {
		t.Errorf("out of scope is refused by %v", e["refusal_reason_code"])
	}
}

func TestPFC04DeprecatedPolicy(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for _, version := range []string{"1", "2"} {
		tn.op.post(t, "/v1/policies", object{"id": "p", "version": version, "cedar": narrowing("rule." + version)}).want(201)
	}
	tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"policy_baseline": "p@1"}).want(200)
	tn.op.ask(t, "under 1")
	tn.op.post(t, "/v1/policies/p/1/deprecate", nil).want(200)
	for _, a := range []*answer{tn.op.post(t, "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload"}}),
		tn.op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": newSigner(t).pem(t), "uses": []string{"sbom"}}),
		tn.op.post(t, "/v1/exports", object{"evidence_profile_id": baseline})} {
		if e := a.refused(tn.op, 403); e["refusal_reason_code"] != "policy_invalid" {
			t.Errorf("%s: refused by %v", a.request, e["refusal_reason_code"])
		}
	}
	tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"policy_baseline": "p@1"}).refused(tn.op, 403)
	tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"policy_baseline": "p"}).want(200) // the newest
	if got := tn.op.events(t, "event_type=tenant.update"); got[len(got)-1]["policy_in_force"] != "p@2" {
		t.Errorf("in force is %v", got[len(got)-1]["policy_in_force"])
	}
	tn.op.ask(t, "under 2")
}

// A tenant's policy narrows, and cannot widen.
func TestTenantPolicyCannotWiden(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	a := tn.op.post(t, "/v1/policies", object{"id": "open", "version": "1", "cedar": `@id("open") permit (principal, action, resource);`})
	if a.status == 201 { // it may be kept; it must give nothing
		tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"policy_baseline": "open"}).want(200)
	} else {
		a.refused(tn.op, 400)
	}
	viewer := tn.service(t, "viewer", "events.read")
	viewer.get(t, "/v1/events?limit=1").want(200)
	viewer.post(t, "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload"}}).refused(viewer, 403)
	viewer.get(t, "/v1/workloads").refused(viewer, 403)
	tn.op.post(t, "/v1/tenants", tenantBody(unique("no"))).refused(tn.op, 403)
}

// TestPFC05EvidenceSinkDown: while evidence cannot be kept nothing changes,
// and once it can be again the outage itself stands in the log.
func TestPFC05EvidenceSinkDown(t *testing.T) {
	t.Parallel()
	fault := filepath.Join(t.TempDir(), "fault")
	s := ownServer(t, "PROVOST_TEST_EVIDENCE_FAULT="+fault)
	op, admin := s.as(t, "operator", "demo"), s.admin(t)
	repo := repository{op, "demo/app"}
	config := repo.blob(t, configType, []byte("{}"))
	before := op.events(t, "")
	if err := os.WriteFile(fault, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	id := unique("t")
	for _, a := range []*answer{
		admin.post(t, "/v1/tenants", tenantBody(id)),
		op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("x")}),
		op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": newSigner(t).pem(t), "uses": []string{"sbom"}}),
		op.do(t, "PATCH", "/v1/tenants/demo", object{"contact": "changed"}),
		op.post(t, "/v1/workloads", object{"envelope_type": "container", "image_ref": "x@" + digestOf(nil)}),
		op.post(t, "/v1/exports", object{"evidence_profile_id": baseline}),
		op.post(t, "/v1/roles", object{"name": "r", "permissions": []string{"events.read"}}),
	} {
		a.want(503)
		if a.text("code") == "" || !strings.Contains(strings.ToLower(a.text("message")), "evidence") {
			t.Errorf("%s: %s", a.request, a.body)
		}
		if a.header.Get("X-Event-ID") != "" {
			t.Errorf("%s: there is an event %s", a.request, a.header.Get("X-Event-ID"))
		}
	}
	op.do(t, "PUT", "/v2/demo/app/manifests/v1", object{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []object{}}, "Content-Type", manifestType).want(503)
	if a := s.anonymous().post(t, "/v1/auth/token", object{"username": "viewer", "password": s.account(t, "viewer", "demo").Password, "tenant": "demo"}); a.status != 503 {
		t.Errorf("signing in without evidence: status %d", a.status)
	}
	op.get(t, "/v1/tenants/demo").want(200) // reads that leave nothing go on
	if err := os.Remove(fault); err != nil {
		t.Fatal(err)
	}

	admin.get(t, "/v1/tenants/"+id).want(404)
	op.get(t, "/v1/policies/p").want(404)
	op.get(t, "/v1/trust-keys/k").want(404)
	op.get(t, "/v2/demo/app/manifests/v1").want(404)
	if got := op.get(t, "/v1/tenants/demo").text("contact"); got == "changed" {
		t.Error("the tenant was changed without evidence")
	}
	op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("x")}).want(201)
	after := op.events(t, "")
	checkChain(t, after)
	for i, e := range before {
		if after[i]["event_hash"] != e["event_hash"] {
			t.Fatalf("event %d is another one now", i+1)
		}
	}
	for name, c := range map[string]*client{"chain-demo": op, "chain-system": admin} {
		outage := c.waitEvents(t, "event_type=chain.reconciliation", 1)[0]
		if outage["chain_id"] != name || number(t, outage["refused_actions"]) < 1 || !isText(outage["unavailable_from"]) || !isText(outage["details"]) {
			t.Errorf("the outage stands in the log of %s as %v", name, outage)
		}
	}
}
