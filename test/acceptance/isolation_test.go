package acceptance

import (
	"strings"
	"testing"
)

// TestISO01ForeignResources asks for another tenant's things by their right ids.
func TestISO01ForeignResources(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	own := furnish(t, a)
	own.deploy(t, a)
	for _, path := range own.paths {
		a.op.get(t, path).want(200) // it is there, and would be shown
		r := b.op.get(t, path)
		e := r.refused(b.op, 404)
		if e["tenant_id"] != b.id {
			t.Errorf("%s: the refusal is in the log of %v", r.request, e["tenant_id"])
		}
		unknown := b.op.get(t, path[:strings.LastIndex(path, "/")]+"/00000000-0000-7000-8000-000000000000")
		if strings.Contains(path, "/v1/tenants/") && unknown.status != r.status {
			t.Errorf("%s: a foreign id is %d, an unknown one %d", path, r.status, unknown.status)
		}
	}
	b.op.do(t, "PATCH", "/v1/tenants/"+a.id, object{"contact": "b"}).refused(b.op, 404)
	b.op.do(t, "DELETE", "/v1/trust-keys/"+own.trustKey, nil).refused(b.op, 404)
	b.op.post(t, "/v1/policies/"+own.policy+"/1/deprecate", nil).refused(b.op, 404)
	b.op.do(t, "DELETE", "/v1/workloads/"+own.workload, nil).refused(b.op, 404)
	a.op.get(t, "/v1/workloads/"+own.workload).want(200)
	push := b.op.post(t, "/v2/"+a.id+"/app/blobs/uploads/", nil).want(404)
	if e := b.op.event(push); e["refusal_reason_code"] != "image.foreign_tenant" {
		t.Errorf("a push into a foreign repository is refused by %v", e["refusal_reason_code"])
	}
	refusal := b.deploy(t, own.image)
	refusal.refused(b.op, 403)
	if refusal.text("rule_id") != "image.foreign_tenant" {
		t.Errorf("a foreign image is refused by %v", refusal.text("rule_id"))
	}
}

// belongings are things of one tenant.
type belongings struct {
	workload, image, trustKey, policy, export string
	// paths show one thing each to their owner.
	paths []string
	// secrets are words that stand in what the tenant owns, and nowhere else.
	secrets []string
}

// furnish gives a tenant one of everything.
func furnish(t testing.TB, tn *tenant) belongings {
	t.Helper()
	mark := func(what string) string { return unique("of-" + tn.id + "-" + what) }
	o := belongings{policy: mark("policy"), trustKey: mark("key")}
	authorityID, role, user, service := mark("authority"), mark("role"), mark("user"), mark("service")
	note := mark("note")
	tn.op.post(t, "/v1/authorities", object{"id": authorityID, "issuer": note, "subject": "*", "scope": []string{"*"}, "valid_from": "2026-01-01T00:00:00Z", "valid_to": "2099-01-01T00:00:00Z"}).want(201)
	hash := tn.op.post(t, "/v1/policies", object{"id": o.policy, "version": "1", "cedar": "// " + note + "\n" + narrowing(mark("rule"))}).want(201).text("hash")
	tn.op.post(t, "/v1/trust-keys", object{"name": o.trustKey, "public_key": newSigner(t).pem(t), "uses": []string{"signature"}}).want(201)
	tn.op.post(t, "/v1/roles", object{"name": role, "permissions": []string{"events.read"}}).want(201)
	tn.op.post(t, "/v1/users", object{"username": user, "password": "correct horse battery", "roles": []string{role}}).want(201)
	tn.op.post(t, "/v1/service-accounts", object{"client_id": service, "permissions": []string{"events.read"}}).want(201)
	repo := mark("repo")
	digest := tn.repository(repo).image(t, "v1", "tick")
	o.image = tn.id + "/" + repo + "@" + digest
	o.export = tn.op.post(t, "/v1/exports", object{"evidence_profile_id": "ecs-evidence-baseline"}).want(202).text("export_id")
	decision := tn.op.post(t, "/v1/decisions", object{"action": "workload.create", "resource": object{"type": "Workload", "id": note}}).want(200)
	pointer := strings.TrimPrefix(decision.text("evidence_pointer"), "eosc://evidence/")
	eventually(t, "the export", func() bool { return tn.op.get(t, "/v1/exports/"+o.export).text("status") == "ready" })
	o.paths = []string{"/v1/tenants/" + tn.id, "/v1/authorities/" + authorityID, "/v1/policies/" + o.policy, "/v1/policies/" + o.policy + "/1", "/v1/trust-keys/" + o.trustKey,
		"/v1/users/" + user, "/v1/images/" + digest, "/v1/exports/" + o.export, "/v1/exports/" + o.export + "/bundle", "/v1/events/" + decision.header.Get("X-Event-ID"),
		"/v1/events/" + decision.header.Get("X-Event-ID") + "/proof", "/v1/evidence/" + pointer, "/v1/artifacts/" + hash, "/v1/log/" + tn.id + "/checkpoint",
		"/v1/log/" + tn.id + "/key", "/v1/log/" + tn.id + "/tile/0/000.p/1", "/v1/log/" + tn.id + "/consistency?from=1&to=2"}
	o.secrets = []string{tn.id, o.policy, o.trustKey, authorityID, role, user, service, note, repo, digest, o.export, decision.header.Get("X-Event-ID"), pointer, hash}
	return o
}

// deploy adds a running workload, which takes longer than everything else.
func (o *belongings) deploy(t testing.TB, tn *tenant) {
	t.Helper()
	o.workload, _ = tn.run(t, tn.admissible(t), object{"name": unique("w"), "env": object{"MARK": o.policy}})
	o.paths = append(o.paths, "/v1/workloads/"+o.workload, "/v1/workloads/"+o.workload+"/logs")
	o.secrets = append(o.secrets, o.workload)
}

func TestISO02ForeignPointers(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	furnish(t, a)
	for _, e := range a.op.events(t, "") {
		digest := strings.TrimPrefix(e["evidence_pointer"].(string), "eosc://evidence/")
		a.op.get(t, "/v1/evidence/"+digest).want(200)
		b.op.get(t, "/v1/evidence/"+digest).want(404)
		b.op.get(t, "/v1/artifacts/"+digest).want(404)
		refs, _ := e["artifact_refs"].([]any)
		for _, ref := range refs {
			digest := strings.TrimPrefix(ref.(string), "eosc://artifact/")
			a.op.get(t, "/v1/artifacts/"+digest).want(200)
			r := b.op.get(t, "/v1/artifacts/"+digest)
			r.refused(b.op, 404)
		}
	}
}

func TestISO03ForeignEvents(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	own := furnish(t, a)
	for _, e := range b.op.events(t, "") {
		if e["tenant_id"] != b.id {
			t.Errorf("event %v is of tenant %v", e["id"], e["tenant_id"])
		}
	}
	b.op.get(t, "/v1/events?tenant="+a.id).refused(b.op, 404)
	shared.admin(t).get(t, "/v1/events?tenant="+a.id).refused(shared.admin(t), 404) // administrators read nothing inside tenants
	if n := len(b.op.get(t, "/v1/events?resource_id=policy/"+own.policy+"@1").want(200).items()); n != 0 {
		t.Errorf("%d events of a foreign policy", n)
	}
	if n := len(b.op.get(t, "/v1/events?actor=op@"+a.id).want(200).items()); n != 0 {
		t.Errorf("%d events of a foreign actor", n)
	}
}
