package acceptance

import (
	"strings"
	"testing"
)

// open are the operations that everybody who can sign in may do, with the
// reason. The list only gets shorter.
var open = map[string]string{
	"GET /v1/whoami":            "to know oneself takes no permission",
	"GET /v1/federation/claims": "what the platform offers is for everyone who can sign in to it",
}

// ownEvents are operations that show whoever caused an event that event, and
// nobody else: what nobody@demo asks for there is not there for it.
var ownEvents = map[string]bool{"GET /v1/events/{id}": true, "GET /v1/events/{id}/proof": true, "GET /v1/evidence/{digest}": true, "GET /v1/why": true}

// doorsOf are requests through every door of the published API, with ids of
// things that are there: who may not pass is refused although it is.
func doorsOf(t *testing.T, tn *tenant, own belongings) map[string][2]string {
	t.Helper()
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	doors := map[string][2]string{}
	good := bodies(t)
	for _, o := range d.operations {
		if o.public {
			continue
		}
		path := o.path
		for _, p := range append(own.paths, "/v1/tenants/"+tn.id+"/suspend") { // a path that shows something, where one fits
			p, _, _ = strings.Cut(p, "?")
			if o.fits(o.method, p) {
				path = p
			}
		}
		path = strings.NewReplacer("{id}", own.policy, "{tenant}", tn.id, "{path}", "0/000.p/1", "{username}", "viewer", "{name}", own.trustKey, "{client_id}", "op",
			"{digest}", digestOf(nil), "{version}", "1", "{channel}", "audit").Replace(path)
		body := ""
		if o.spec["requestBody"] != nil {
			for route, b := range good {
				if method, p, _ := strings.Cut(route, " "); o.fits(method, p) {
					body = string(encode(t, b))
				}
			}
		}
		doors[o.method+" "+o.path] = [2]string{path, body}
	}
	if len(doors) < 45 {
		t.Fatalf("only %d doors are documented", len(doors))
	}
	return doors
}

func body(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// TestDoorsWithoutToken: nobody passes any door without a token, and each
// attempt leaves its event.
func TestDoorsWithoutToken(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	reader := shared.as(t, "viewer", "demo")
	for door, d := range doorsOf(t, tn, furnish(t, tn)) {
		method, _, _ := strings.Cut(door, " ")
		e := rejected(t, reader, func() *answer { return shared.anonymous().do(t, method, d[0], body(d[1])) })
		if e["event_type"] != "identity.token.reject" {
			t.Errorf("%s: the event is %v", door, e["event_type"])
		}
	}
}

// TestDoorsWithoutRights: who may do nothing passes no door, and each attempt
// leaves a refused event in its tenant's log that names what was attempted.
func TestDoorsWithoutRights(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	own := furnish(t, tn)
	own.deploy(t, tn)
	nobody := tn.service(t, "nobody")
	doors := doorsOf(t, tn, own)
	for door, d := range doors {
		method, _, _ := strings.Cut(door, " ")
		a := nobody.do(t, method, d[0], body(d[1]))
		if open[door] != "" {
			a.want(200)
			continue
		}
		if ownEvents[door] {
			a.want(400, 403, 404)
			if a.header.Get("X-Event-ID") == "" && a.status != 400 {
				t.Errorf("%s: %d without evidence", door, a.status)
			}
			continue
		}
		if a.status != 403 {
			t.Errorf("%s: status %d, want 403: %s", door, a.status, clip(a.body))
			continue
		}
		e := a.refused(nobody, 403) // it may see what it caused
		if e["tenant_id"] != tn.id || e["actor"] != "nobody@"+tn.id || !isText(e["action"]) {
			t.Errorf("%s: the event is %v by %v in the log of %v", door, e["action"], e["actor"], e["tenant_id"])
		}
		if tn.op.get(t, "/v1/events/"+e["id"].(string)).status != 200 {
			t.Errorf("%s: the tenant's operator cannot read the event", door)
		}
	}
	for door := range open {
		if _, ok := doors[door]; !ok {
			t.Errorf("%s is excepted and does not exist", door)
		}
	}
	for door := range ownEvents {
		if _, ok := doors[door]; !ok {
			t.Errorf("%s is excepted and does not exist", door)
		}
	}
}

// registryDoors are those of the OCI distribution protocol.
var registryDoors = []struct{ method, path, action string }{
	{"GET", "manifests/v1", "image.pull"}, {"HEAD", "manifests/v1", "image.pull"}, {"PUT", "manifests/v1", "image.push"}, {"DELETE", "manifests/v1", "image.delete"},
	{"GET", "blobs/" + digestOf(nil), "image.pull"}, {"HEAD", "blobs/" + digestOf(nil), "image.pull"}, {"DELETE", "blobs/" + digestOf(nil), "image.delete"},
	{"POST", "blobs/uploads/", "image.push"}, {"PATCH", "blobs/uploads/x", "image.push"}, {"PUT", "blobs/uploads/x?digest=" + digestOf(nil), "image.push"},
	{"GET", "blobs/uploads/x", "image.push"}, {"DELETE", "blobs/uploads/x", "image.push"}, {"GET", "tags/list", "image.pull"}, {"GET", "referrers/" + digestOf(nil), "image.pull"},
}

func TestRegistryDoors(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	digest := tn.repository("app").image(t, "v1")
	nobody := tn.service(t, "nobody")
	for _, d := range registryDoors {
		path := "/v2/" + tn.id + "/app/" + strings.Replace(d.path, "v1", digest, 1)
		if a := shared.anonymous().do(t, d.method, path, nil); a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s without a token: status %d, WWW-Authenticate %q", d.method, path, a.status, a.header.Get("WWW-Authenticate"))
		}
		a := nobody.do(t, d.method, path, nil)
		if a.status != 403 {
			t.Errorf("%s %s without rights: status %d: %s", d.method, path, a.status, clip(a.body))
			continue
		}
		if e := nobody.event(a); e["outcome"] != "refused" || e["action"] != d.action {
			t.Errorf("%s %s without rights: the event is %v %v, want refused %s", d.method, path, e["outcome"], e["action"], d.action)
		}
	}
	tn.repository("app").get(t, "/v2/"+tn.id+"/app/manifests/v1").want(200)
}
