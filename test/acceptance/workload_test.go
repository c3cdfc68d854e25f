package acceptance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWL01Lifecycle(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	tn := shared.newTenant(t)
	ref := tn.admissible(t)
	created := tn.deploy(t, ref, object{"tenant_id": tn.id, "name": "wl01"}).want(201)
	id := created.text("id")
	if got := created.header.Get("Location"); got != "/v1/workloads/"+id {
		t.Errorf("Location is %q", got)
	}
	for field, want := range (object{"tenant_id": tn.id, "envelope_type": "container", "image_ref": ref, "status": "pending", "name": "wl01",
		"image_digest": ref[strings.Index(ref, "@")+1:]}) {
		if created.json()[field] != want {
			t.Errorf("%s is %v, want %v", field, created.json()[field], want)
		}
	}
	running := tn.op.settled(t, id, "pending")
	if running["status"] != "running" || running["status_reason"] == "" || running["placement"] == "" || running["exit_code"] != nil {
		t.Errorf("after the start: status %v (%v), placement %v, exit code %v", running["status"], running["status_reason"], running["placement"], running["exit_code"])
	}
	listed := tn.op.get(t, "/v1/workloads?status=running").want(200).items()
	if len(listed) != 1 || listed[0]["id"] != id {
		t.Errorf("listed as running: %v", listed)
	}
	tn.op.do(t, "DELETE", "/v1/workloads/"+id, nil).want(204)
	tn.op.get(t, "/v1/workloads/"+id).want(404)
	tn.op.do(t, "DELETE", "/v1/workloads/"+id, nil).want(404)
	tn.waitEvents(t, "event_type=workload.envelope.destroy", 1)
}

func (tn *tenant) waitEvents(t testing.TB, query string, n int) []object {
	t.Helper()
	return tn.op.waitEvents(t, query, n)
}

func TestWL02MissingEnvelope(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	a := tn.op.post(t, "/v1/workloads", object{"image_ref": tn.id + "/app@" + digestOf(nil)})
	e := a.refused(tn.op, 400)
	if a.text("field") != "envelope_type" || e["event_type"] != "execution.refuse" {
		t.Errorf("field %q, event %v", a.text("field"), e["event_type"])
	}
}

func TestWL03BadFields(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	ref := tn.id + "/app@" + digestOf(nil)
	for _, c := range []struct {
		field string
		value any
	}{
		{"envelope_type", "foo"}, {"envelope_type", "Container"}, {"envelope_type", 1}, {"image_ref", ""}, {"image_ref", strings.Repeat("a", 600)},
		{"image_ref", tn.id + "/app@sha256:short"}, {"image_ref", tn.id + "/app@md5:" + strings.Repeat("a", 32)}, {"name", "Upper"}, {"name", "../x"},
		{"restart", "sometimes"}, {"jurisdiction", "Germany"}, {"classification", "cosmic"}, {"resources", object{"pids": -1}},
		{"resources", object{"memory_bytes": 1}}, {"resources", object{"cpu_millis": 1 << 40}}, {"resources", object{"gpus": 1}}, {"env", object{"A=B": "c"}}, {"env", object{"": "c"}},
		{"command", []string{""}}, {"command", "sh"}, {"ports", []int{80}}, {"policy_ref", strings.Repeat("p", 300)}, {"privileged", true},
	} {
		body := with(object{"envelope_type": "container", "image_ref": ref}, c.field, c.value)
		a := tn.op.post(t, "/v1/workloads", body)
		a.refused(tn.op, 400)
		if got := a.text("field"); !strings.HasPrefix(got, c.field) && !(c.field == "resources" && got == "gpus") {
			t.Errorf("%s = %v: the error is of field %q: %s", c.field, c.value, got, a.text("message"))
		}
	}
	if got := tn.op.get(t, "/v1/workloads").want(200).items(); len(got) != 0 {
		t.Errorf("%d workloads were made", len(got))
	}
}

func TestWL04Envelope(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t, object{"classification_ceiling": "secret"})
	a := tn.deploy(t, tn.admissible(t), object{"classification": "secret"})
	e := a.refused(tn.op, 403)
	if a.text("rule_id") != "envelope.required" || e["event_type"] != "execution.refuse" || e["refusal_reason_class"] != "policy_denied" {
		t.Errorf("refused by %q as %v of class %v", a.text("rule_id"), e["event_type"], e["refusal_reason_class"])
	}
	id, _ := e["policy_snapshot_id"].(string)
	if b := tn.op.get(t, "/v1/artifacts/"+id).want(200).body; digestOf(b) != id {
		t.Errorf("policy snapshot %s does not resolve", id)
	}
	// In order, but no node offers it.
	vm := tn.deploy(t, "disk.img", object{"classification": "secret", "envelope_type": "vm"})
	e = vm.refused(tn.op, 403)
	if vm.text("rule_id") != "envelope.unavailable" || e["refusal_reason_class"] != "dependency_unavailable_fail_closed" || !strings.Contains(vm.text("message"), "no node offers") {
		t.Errorf("a vm: %s", vm.body)
	}
}

func TestWL05AdmissionIsOneStory(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	tn, correlation := shared.newTenant(t), unique("wl05")
	body := object{"envelope_type": "container", "image_ref": tn.admissible(t)}
	a := tn.op.post(t, "/v1/workloads", body, "X-Correlation-ID", correlation).want(201)
	t.Cleanup(func() { tn.op.do(t, "DELETE", "/v1/workloads/"+a.text("id"), nil).want(204) })
	if got := a.header.Get("X-Correlation-ID"); got != correlation {
		t.Errorf("X-Correlation-ID is %q", got)
	}
	story := tn.waitEvents(t, "correlation_id="+correlation, 5)
	var types []any
	for _, e := range story {
		types = append(types, e["event_type"])
	}
	want := []any{"policy.evaluate", "execution.admit", "runtime.dependency.declare", "workload.envelope.create", "workload.envelope.start"}
	if !slices.Equal(types, want) {
		t.Errorf("the story is %v, want %v", types, want)
	}
	if story[1]["id"] != a.header.Get("X-Event-ID") || story[1]["workload_id"] != a.text("id") {
		t.Errorf("X-Event-ID is %s, execution.admit is %v of %v", a.header.Get("X-Event-ID"), story[1]["id"], story[1]["workload_id"])
	}
	if deps, _ := story[2]["dependencies"].([]any); len(deps) == 0 {
		t.Error("runtime.dependency.declare declares nothing")
	}
	// A refusal is evaluated first, too.
	correlation = unique("wl05")
	tn.op.post(t, "/v1/workloads", with(body, "image_ref", tn.id+"/app:v1"), "X-Correlation-ID", correlation).refused(tn.op, 403)
	story = tn.op.events(t, "correlation_id="+correlation)
	if len(story) != 2 || story[0]["event_type"] != "policy.evaluate" || story[1]["event_type"] != "execution.refuse" {
		t.Errorf("the story of a refusal has %d events: %v", len(story), story)
	}
}

func TestWL06AboveScope(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t, object{"classification_ceiling": "internal"})
	ref := tn.admissible(t)
	for _, c := range []struct {
		fields      object
		rule, class string
	}{
		{object{"jurisdiction": "FR"}, "jurisdiction.denied", "jurisdiction_denied"},
		{object{"classification": "restricted"}, "classification.ceiling", "policy_denied"},
		{object{"classification": "secret"}, "classification.ceiling", "policy_denied"},
		{object{"classification": "secret", "jurisdiction": "FR"}, "jurisdiction.denied", "jurisdiction_denied"},
	} {
		a := tn.deploy(t, ref, c.fields)
		e := a.refused(tn.op, 403)
		if a.text("rule_id") != c.rule || e["refusal_reason_code"] != c.rule || e["refusal_reason_class"] != c.class {
			t.Errorf("%v: refused by %q, class %v; want %s, %s", c.fields, a.text("rule_id"), e["refusal_reason_class"], c.rule, c.class)
		}
	}
}

func TestWL07FailClosed(t *testing.T) {
	t.Parallel()
	tn, other := shared.newTenant(t), shared.newTenant(t)
	ref := tn.admissible(t)
	other.op.post(t, "/v1/policies", object{"id": "theirs", "version": "1", "cedar": narrowing("x")}).want(201)
	tn.op.post(t, "/v1/policies", object{"id": "old", "version": "1", "cedar": narrowing("x")}).want(201)
	tn.op.post(t, "/v1/policies/old/1/deprecate", nil).want(200)
	tn.op.post(t, "/v1/policies", object{"id": "never-again", "version": "1", "cedar": narrowing("test.no_always")}).want(201)
	for _, c := range []struct {
		fields object
		code   string
	}{
		{object{"tenant_id": "nobody"}, "tenant.unknown"}, {object{"tenant_id": other.id}, "tenant.unknown"},
		{object{"policy_ref": "none"}, "policy_missing"}, {object{"policy_ref": "theirs"}, "policy_missing"}, {object{"policy_ref": "old"}, "policy_invalid"},
		{object{"policy_ref": "policy-baseline@9"}, "policy_missing"},
		{object{"policy_ref": "never-again", "restart": "always"}, "test.no_always"}, // it binds its own request
	} {
		e := tn.deploy(t, ref, c.fields).refused(tn.op, 403)
		if e["refusal_reason_code"] != c.code {
			t.Errorf("%v: refused by %v, want %s", c.fields, e["refusal_reason_code"], c.code)
		}
	}
	if got := tn.op.get(t, "/v1/workloads").want(200).items(); len(got) != 0 {
		t.Errorf("%d workloads were made", len(got))
	}
}

func TestWL08LifecycleEvents(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	id, w := tn.run(t, tn.admissible(t))
	if w["status"] != "running" {
		t.Fatalf("status %v: %v", w["status"], w["status_reason"])
	}
	deleted := tn.op.do(t, "DELETE", "/v1/workloads/"+id, nil).want(204)
	if e := tn.op.event(deleted); e["event_type"] != "workload.delete" || e["workload_id"] != id {
		t.Errorf("the deletion is %v of %v", e["event_type"], e["workload_id"])
	}
	tn.waitEvents(t, "event_type=workload.envelope.destroy", 1)
	for _, typ := range []string{"create", "start", "destroy"} {
		found := tn.op.events(t, "event_type=workload.envelope."+typ)
		if len(found) != 1 || found[0]["workload_id"] != id || found[0]["envelope_type"] != "container" || found[0]["outcome"] != "accepted" {
			t.Errorf("workload.envelope.%s: %v", typ, found)
		}
	}
}

// TestWL09Images takes an image from nothing to admissible, and is told at
// each step what is missing.
func TestWL09Images(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	tn := shared.newTenant(t)
	r, ours, theirs := tn.repository("app"), newSigner(t), newSigner(t)
	refused := func(ref, rule string) {
		t.Helper()
		a := tn.deploy(t, ref)
		e := a.refused(tn.op, 403)
		if a.text("rule_id") != rule {
			t.Errorf("%s: refused by %q, want %s (all: %v)", ref, a.text("rule_id"), rule, a.json()["rules"])
		}
		if a.text("fix") == "" || e["refusal_subject"] != "workload.create" {
			t.Errorf("%s: fix %q, subject %v", ref, a.text("fix"), e["refusal_subject"])
		}
	}
	refused(r.name+"@"+digestOf([]byte("none")), "image.not_found")
	digest := r.image(t, "v1")
	pinned := shared.dev.Registry + "/" + r.name + "@" + digest
	refused(r.name+":v1", "image.not_pinned")
	refused(r.name, "image.not_pinned")
	refused("docker.io/library/busybox@"+digest, "image.registry_denied")
	refused("rival/app@"+digest, "image.foreign_tenant")
	refused("app@"+digest, "image.foreign_tenant")
	refused(pinned, "image.signature_missing")
	theirs.signImage(t, r, digest)
	refused(pinned, "image.signature_invalid")
	ours.trustedBy(t, tn.op, "provenance", "sbom")
	ours.signImage(t, r, digest)
	refused(pinned, "image.signature_invalid") // trusted, but not for this
	ours.trustedBy(t, tn.op, "signature")
	refused(pinned, "image.provenance_missing")
	theirs.attest(t, r, digest, provenance)
	refused(pinned, "image.provenance_invalid")
	ours.attest(t, r, digest, provenance)
	refused(pinned, "image.sbom_missing")
	theirs.attest(t, r, digest, provenance, billOfMaterials)
	refused(pinned, "image.provenance_invalid")
	ours.attest(t, r, digest, provenance, billOfMaterials)

	admitted := tn.deploy(t, pinned).want(201)
	e := tn.op.event(admitted)
	integrity, _ := json.Marshal(e["image_integrity"])
	if want := `{"provenance":"verified","sbom":"verified","signature":"verified"}`; string(integrity) != want {
		t.Errorf("image_integrity is %s, want %s", integrity, want)
	}
	refs, _ := e["artifact_refs"].([]any)
	if len(refs) < 4 { // the report, the signature's and the attestations' bytes
		t.Errorf("the admission rests on %v", refs)
	}
	for _, ref := range refs {
		digest := strings.TrimPrefix(ref.(string), "eosc://artifact/")
		if b := tn.op.get(t, "/v1/artifacts/"+digest).want(200).body; digestOf(b) != digest {
			t.Errorf("%s does not resolve", ref)
		}
	}
	// A signature for one image does not carry over to another.
	other := r.image(t, "v2")
	raw := r.get(t, "/v2/"+r.name+"/manifests/"+cosignTag(digest, "sig")).want(200).body
	r.do(t, "PUT", "/v2/"+r.name+"/manifests/"+cosignTag(other, "sig"), raw, "Content-Type", manifestType).want(201)
	refused(r.name+"@"+other, "image.signature_invalid")
	// Trust that ends takes what rests on it along.
	for _, k := range tn.op.all(t, "/v1/trust-keys") {
		tn.op.do(t, "DELETE", fmt.Sprint("/v1/trust-keys/", k["name"]), nil).want(204)
	}
	refused(pinned, "image.signature_invalid")
}

// TestContainerIsConfined asks the process itself what it is confined by.
func TestContainerIsConfined(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	id, _ := tn.run(t, tn.admissible(t, "probe"))
	if w := tn.op.settled(t, id, "pending", "running"); w["status"] != "stopped" {
		t.Fatalf("status %v: %v; log %v", w["status"], w["status_reason"], tn.op.logs(t, id))
	}
	found := map[string]string{}
	for _, line := range tn.op.logs(t, id) {
		k, v, _ := strings.Cut(line, "=")
		found[k] = v
	}
	for k, want := range map[string]string{"uid": "1000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
		"root": "denied", "tmp": "allowed", "mount": "denied", "interfaces": "lo", "dial": "denied"} {
		if found[k] != want {
			t.Errorf("%s is %q, want %q", k, found[k], want)
		}
	}
}

// TestWorkloadEnds: statuses are what happened, with a reason and an exit code.
func TestWorkloadEnds(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	ref := tn.admissible(t)
	for _, c := range []struct {
		name         string
		fields       object
		status, code string
		reason       string
	}{
		{"exit 0", object{"command": []string{"/guest", "exit", "0"}}, "stopped", "0", "exited with code 0"},
		{"exit 7", object{"command": []string{"/guest", "exit", "7"}}, "failed", "7", "exited with code 7"},
		{"no such program", object{"command": []string{"/nothing"}}, "failed", "<nil>", "/nothing"},
		{"out of memory", object{"command": []string{"/guest", "eat"}, "resources": object{"memory_bytes": 32 << 20}}, "failed", "137", "more memory than its limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			id, _ := tn.run(t, ref, c.fields)
			w := tn.op.settled(t, id, "pending", "running")
			if w["status"] != c.status || fmt.Sprint(w["exit_code"]) != c.code || !strings.Contains(w["status_reason"].(string), c.reason) {
				t.Errorf("status %v, exit code %v, reason %q; want %s, %s, %q", w["status"], w["exit_code"], w["status_reason"], c.status, c.code, c.reason)
			}
		})
	}
}

func TestRestartPolicy(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	id, _ := tn.run(t, tn.admissible(t, "exit", "3"), object{"restart": "on-failure"})
	starts := tn.waitEvents(t, "event_type=workload.envelope.start", 3)
	for i, e := range starts[:3] {
		if e["workload_id"] != id || fmt.Sprint(e["run"]) != fmt.Sprint(i+1) {
			t.Errorf("start %d is run %v of %v", i+1, e["run"], e["workload_id"])
		}
	}
	stops := tn.op.events(t, "event_type=workload.envelope.stop")
	if len(stops) < 2 || fmt.Sprint(stops[0]["exit_code"]) != "3" {
		t.Errorf("%d stops; the first: %v", len(stops), stops)
	}
}

func TestWorkloadLogs(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	id, _ := tn.run(t, tn.admissible(t, "print", "one\ntwo\n<three>"))
	tn.op.settled(t, id, "pending", "running")
	if got := tn.op.logs(t, id); !slices.Equal(got, []string{"one", "two", "<three>"}) {
		t.Errorf("log is %q", got)
	}
	if got := string(tn.op.get(t, "/v1/workloads/"+id+"/logs?tail=1").want(200).body); got != "<three>\n" {
		t.Errorf("tail=1 is %q", got)
	}
	if got := string(tn.op.get(t, "/v1/workloads/"+id+"/logs?follow").want(200).body); got != "one\ntwo\n<three>\n" {
		t.Errorf("follow of what ended is %q", got)
	}
	for _, query := range []string{"tail=x", "tail=-1", "head=1"} {
		tn.op.get(t, "/v1/workloads/"+id+"/logs?"+query).want(400)
	}
}
