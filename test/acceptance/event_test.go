package acceptance

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ask puts a question to policy: the cheapest thing that leaves an event.
func (c *client) ask(t testing.TB, note string, header ...string) *answer {
	t.Helper()
	return c.post(t, "/v1/decisions", object{"action": "workload.create", "resource": object{"type": "Workload", "id": note}}, header...).want(200)
}

func TestEVT01Envelope(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	furnish(t, tn)
	tn.op.post(t, "/v1/workloads", object{}).refused(tn.op, 400)
	for _, c := range []*client{tn.op, shared.as(t, "auditor", "demo"), shared.as(t, "auditor", "rival"), shared.admin(t)} {
		events := c.events(t, "to_sequence=500")
		if len(events) < 10 {
			t.Errorf("%s sees %d events", c.name, len(events))
		}
		for _, e := range events {
			checkEnvelope(t, e)
		}
	}
}

func TestEVT02GapFreeUnderConcurrency(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	before := len(tn.op.events(t, ""))
	const writers, each = 8, 25
	ids := make([][]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if i%5 == 4 { // refusals take their place in the chain like everything else
					a, err := tn.op.try("POST", "/v1/workloads", object{"envelope_type": "foo"})
					if err != nil || a.status != 400 {
						t.Errorf("writer %d: %v %v", w, a, err)
						return
					}
					ids[w] = append(ids[w], a.header.Get("X-Event-ID"))
					continue
				}
				a, err := tn.op.try("POST", "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload", "id": fmt.Sprint(w, "-", i)}})
				if err != nil || a.status != 200 {
					t.Errorf("writer %d: %v %v", w, a, err)
					return
				}
				ids[w] = append(ids[w], a.header.Get("X-Event-ID"))
			}
		})
	}
	wg.Wait()
	events := tn.op.events(t, "")
	if len(events) != before+writers*each {
		t.Errorf("%d events before, %d after %d writes", before, len(events), writers*each)
	}
	place := map[string]int{}
	for i, e := range events {
		if number(t, e["sequence"]) != int64(i+1) {
			t.Fatalf("the event at %d has sequence %v", i+1, e["sequence"])
		}
		place[e["id"].(string)] = i + 1
	}
	for w := range ids { // each writer's events stand in the order in which it wrote them
		for i, id := range ids[w] {
			if place[id] == 0 || i > 0 && place[id] < place[ids[w][i-1]] {
				t.Errorf("writer %d: event %d is at place %d, the one before at %d", w, i, place[id], place[ids[w][max(i-1, 0)]])
			}
		}
	}
	checkChain(t, events)
}

func TestEVT03ChainRecomputes(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	furnish(t, tn)
	tn.op.ask(t, "non-ASCII: Zürich 😀 \u2028 <&>\t\"\\\u007f")
	for _, c := range []*client{tn.op, shared.as(t, "auditor", "demo"), shared.as(t, "auditor", "rival"), shared.admin(t)} {
		checkChain(t, c.events(t, ""))
	}
}

func TestEVT04Filters(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	correlation := unique("evt04")
	for i := range 6 {
		tn.op.ask(t, fmt.Sprint("evt04-", i%2), "X-Correlation-ID", correlation)
	}
	tn.op.post(t, "/v1/workloads", object{"envelope_type": "foo"}, "X-Correlation-ID", correlation).refused(tn.op, 400)
	tn.op.post(t, "/v1/policies", object{"id": "evt04", "version": "1", "cedar": narrowing("x")}).want(201)
	all := tn.op.events(t, "")
	middle := all[len(all)/2]
	at := func(e object) time.Time {
		v, err := time.Parse(time.RFC3339, e["occurred_at"].(string))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	is := func(k, want string) func(object) bool { return func(e object) bool { return e[k] == want } }
	both := func(fs ...func(object) bool) func(object) bool {
		return func(e object) bool {
			return !slices.ContainsFunc(fs, func(f func(object) bool) bool { return !f(e) })
		}
	}
	none := func(object) bool { return false }
	when := url.QueryEscape(middle["occurred_at"].(string))
	since := func(e object) bool { return !at(e).Before(at(middle)) }
	until := func(e object) bool { return at(e).Before(at(middle)) }
	berlin := url.QueryEscape(at(middle).In(time.FixedZone("", 2*60*60)).Format(time.RFC3339Nano))
	for query, fits := range map[string]func(object) bool{
		"tenant=" + tn.id:               is("tenant_id", tn.id),
		"event_type=policy.evaluate":    is("event_type", "policy.evaluate"),
		"event_type=none.such":          none,
		"event_type=policy.eval":        none, // no prefixes
		"outcome=refused":               is("outcome", "refused"),
		"outcome=accepted":              is("outcome", "accepted"),
		"outcome=failed":                is("outcome", "failed"),
		"actor=op":                      is("actor", "op@"+tn.id),
		"actor=op@" + tn.id:             is("actor", "op@"+tn.id),
		"resource_id=policy/evt04@1":    is("resource_id", "policy/evt04@1"),
		"correlation_id=" + correlation: is("correlation_id", correlation),
		"from=" + when:                  since,
		"to=" + when:                    until,
		"from=" + berlin:                since,
		"from=2099-01-01T00:00:00Z":     none,
		"from_sequence=3&to_sequence=5": func(e object) bool { n := number(t, e["sequence"]); return n >= 3 && n <= 5 },
		"from_sequence=5&to_sequence=3": none,
		"outcome=refused&actor=op":      both(is("outcome", "refused"), is("actor", "op@"+tn.id)),
		"event_type=policy.evaluate&from=" + when + "&outcome=accepted&correlation_id=" + correlation + "&tenant=" + tn.id: both(is("event_type", "policy.evaluate"), since, is("outcome", "accepted"), is("correlation_id", correlation)),
	} {
		var want []object
		for _, e := range all {
			if fits(e) {
				want = append(want, e)
			}
		}
		got := tn.op.events(t, query)
		if !slices.EqualFunc(got, want, func(a, b object) bool { return a["id"] == b["id"] }) {
			t.Errorf("%s: %d events, want %d of %d", query, len(got), len(want), len(all))
		}
	}
	for _, query := range []string{"outcome=maybe", "from=yesterday", "to=2026-13-01T00:00:00Z", "from_sequence=x", "from_sequence=-1", "limit=0", "limit=x", "cursor=%21", "type=x", "outcome=refused&outcome=failed"} {
		tn.op.get(t, "/v1/events?"+query).want(400)
	}
}

func TestEVT05Paging(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	const total = 1100
	write := func(n int) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range n / 8 {
					if a, err := tn.op.try("POST", "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload"}}); err != nil || a.status != 200 {
						t.Errorf("write: %v %v", a, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	write(total)
	count := func(query string) int { return len(tn.op.get(t, "/v1/events"+query).want(200).items()) }
	for query, want := range map[string]int{"": 100, "?limit=7": 7, "?limit=1000": 1000, "?limit=1000000": 1000} {
		if got := count(query); got != want {
			t.Errorf("%q gives %d events, want %d", query, got, want)
		}
	}
	size := len(tn.op.events(t, ""))
	last := tn.op.get(t, fmt.Sprint("/v1/events?from_sequence=", size-9, "&limit=10")).want(200)
	if _, more := last.json()["next_cursor"]; more || len(last.items()) != 10 {
		t.Errorf("the last full page has %d events and next_cursor %v", len(last.items()), last.json()["next_cursor"])
	}
	// Pages of 50 while others write: everything once, in order, without a gap.
	done := make(chan struct{})
	go func() { defer close(done); write(200) }()
	var got []int64
	for cursor := ""; ; {
		a := tn.op.get(t, "/v1/events?limit=50"+cursor).want(200)
		for _, e := range a.items() {
			got = append(got, number(t, e["sequence"]))
		}
		next, more := a.json()["next_cursor"].(string)
		if !more {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	<-done
	if len(got) < size {
		t.Errorf("%d events in pages, there were %d before", len(got), size)
	}
	for i, n := range got {
		if n != int64(i+1) {
			t.Fatalf("event %d of the pages has sequence %d", i+1, n)
		}
	}
}

func TestEVT06OneEvent(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	tn.op.ask(t, "evt06")
	page := tn.op.get(t, "/v1/events").want(200)
	var raw struct{ Items []json.RawMessage }
	if err := json.Unmarshal(page.body, &raw); err != nil {
		t.Fatal(err)
	}
	for i, e := range page.items() {
		one := tn.op.get(t, "/v1/events/"+e["id"].(string)).want(200)
		if strings.TrimSpace(string(one.body)) != string(raw.Items[i]) {
			t.Errorf("event %v alone is not what the list shows", e["id"])
		}
	}
	id := page.items()[0]["id"].(string)
	for _, path := range []string{"/v1/events", "/v1/events/" + id} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			a := tn.op.do(t, method, path, object{}).want(405)
			if a.header.Get("Allow") != "GET" || a.text("code") == "" {
				t.Errorf("%s: Allow %q, %s", a.request, a.header.Get("Allow"), a.body)
			}
		}
	}
	for _, bad := range []string{"00000000-0000-7000-8000-000000000000", "1", "x", id + "0", strings.ToUpper(id[:8]) + "x"} {
		tn.op.get(t, "/v1/events/"+bad).want(404)
	}
}

// refusals are requests of an operator that must be refused, one of each sort.
func refusals(t testing.TB, tn *tenant) []*answer {
	t.Helper()
	post := func(path string, body any, header ...string) *answer {
		return tn.op.post(t, path, body, header...)
	}
	return []*answer{
		post("/v1/tenants", tenantBody(unique("no"))), post("/v1/workloads", object{}), post("/v1/workloads", object{"envelope_type": "container", "image_ref": "x:y"}),
		post("/v1/policies", object{"id": "p", "version": "1", "cedar": "permit (principal"}), post("/v1/policies/none/1/deprecate", nil),
		post("/v1/policies", "{"), post("/v1/policies", "x", "Content-Type", "text/plain"), post("/v1/policies", strings.Repeat(" ", 2<<20)),
		post("/v1/trust-keys", object{"name": "k", "public_key": "x", "uses": []string{"signature"}}), post("/v1/exports", object{"evidence_profile_id": "none"}),
		post("/v1/decisions", object{"action": "none"}), post("/v1/authorities", object{"issuer": "x"}), post("/v1/users", object{"username": "A"}),
		tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"jurisdiction": "FR"}), tn.op.do(t, "DELETE", "/v1/tenants/"+tn.id, nil), tn.op.do(t, "DELETE", "/v1/trust-keys/none", nil),
		tn.op.do(t, "DELETE", "/v1/users/none", nil), tn.op.do(t, "DELETE", "/v1/workloads/none", nil), tn.op.get(t, "/v1/tenants/rival"), tn.op.get(t, "/v1/workloads/none"),
		tn.op.get(t, "/v1/exports/none"), tn.op.get(t, "/v1/log/rival/checkpoint"), tn.op.get(t, "/v1/events?tenant=rival"), tn.op.get(t, "/v1/artifacts/"+digestOf(nil)),
	}
}

func TestEVT07RefusalsPointToEvidence(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for _, a := range refusals(t, tn) {
		if a.status < 400 || a.status > 499 {
			t.Errorf("%s: status %d", a.request, a.status)
			continue
		}
		e := a.refused(tn.op, a.status)
		if e["correlation_id"] != a.header.Get("X-Correlation-ID") {
			t.Errorf("%s: X-Correlation-ID is %s, the event's %v", a.request, a.header.Get("X-Correlation-ID"), e["correlation_id"])
		}
		digest := strings.TrimPrefix(a.text("evidence_pointer"), "eosc://evidence/")
		evidence := tn.op.get(t, "/v1/evidence/"+digest).want(200)
		if digestOf(evidence.body) != digest || evidence.header.Get("X-Event-ID") != e["id"] {
			t.Errorf("%s: the pointer leads to %s of event %s", a.request, digestOf(evidence.body), evidence.header.Get("X-Event-ID"))
		}
		if o := evidence.json(); o["event_type"] != e["event_type"] || o["sequence"] != e["sequence"] {
			t.Errorf("%s: the evidence is of %v %v, the event is %v %v", a.request, o["event_type"], o["sequence"], e["event_type"], e["sequence"])
		}
	}
}

// EVT-08 and EVT-09: what a refused event says.
func TestEVT08RefusedEvents(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	n := len(refusals(t, tn))
	found := tn.op.events(t, "outcome=refused")
	if len(found) < n {
		t.Errorf("%d refusals, %d refused events", n, len(found))
	}
	for _, e := range found {
		checkEnvelope(t, e)
	}
}

func TestEVT09Classes(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"demo", "rival"} {
		for _, e := range shared.as(t, "auditor", user).events(t, "outcome=refused") {
			if !slices.Contains(classes, e["refusal_reason_class"]) {
				t.Errorf("event %v of %v: class %v", e["sequence"], e["tenant_id"], e["refusal_reason_class"])
			}
		}
	}
}

func TestEVT10PointersResolve(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	furnish(t, tn)
	refusals(t, tn)
	for _, e := range tn.op.events(t, "") {
		check := func(pointer any) {
			t.Helper()
			path := strings.Replace(strings.Replace(pointer.(string), "eosc://evidence/", "/v1/evidence/", 1), "eosc://artifact/", "/v1/artifacts/", 1)
			a := tn.op.get(t, path).want(200)
			if want := path[strings.LastIndex(path, "/")+1:]; digestOf(a.body) != want {
				t.Errorf("event %v: %v leads to bytes of %s", e["sequence"], pointer, digestOf(a.body))
			}
			if a.header.Get("X-Evidence-Tenant") != tn.id || a.header.Get("X-Evidence-Retrievability") != "online" {
				t.Errorf("event %v: pointer metadata %v", e["sequence"], a.header)
			}
		}
		check(e["evidence_pointer"])
		check("eosc://artifact/" + e["policy_snapshot_id"].(string))
		check("eosc://artifact/" + e["authority_snapshot_id"].(string))
		refs, _ := e["artifact_refs"].([]any)
		for _, ref := range refs {
			check(ref)
		}
	}
}

// TestEVT11NothingSilent counts: each governed call leaves as many events as
// its verb leaves, not one less and not one more, and a read leaves none.
func TestEVT11NothingSilent(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	size := func() int { return len(tn.op.events(t, "")) }
	key := newSigner(t).pem(t)
	for _, step := range []struct {
		want   int // events
		status int
		do     func() *answer
	}{
		{1, 201, func() *answer {
			return tn.op.post(t, "/v1/policies", object{"id": "p", "version": "1", "cedar": narrowing("x")})
		}},
		{1, 200, func() *answer { return tn.op.post(t, "/v1/policies/p/1/deprecate", nil) }},
		{1, 409, func() *answer { return tn.op.post(t, "/v1/policies/p/1/deprecate", nil) }},
		{1, 201, func() *answer {
			return tn.op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": key, "uses": []string{"sbom"}})
		}},
		{1, 409, func() *answer {
			return tn.op.post(t, "/v1/trust-keys", object{"name": "k", "public_key": key, "uses": []string{"sbom"}})
		}},
		{1, 204, func() *answer { return tn.op.do(t, "DELETE", "/v1/trust-keys/k", nil) }},
		{1, 404, func() *answer { return tn.op.do(t, "DELETE", "/v1/trust-keys/k", nil) }},
		{1, 200, func() *answer { return tn.op.ask(t, "x") }},
		{1, 200, func() *answer { return tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"contact": "c"}) }},
		{1, 403, func() *answer { return tn.op.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"jurisdiction": "FR"}) }},
		{1, 400, func() *answer { return tn.op.post(t, "/v1/workloads", object{}) }},
		{2, 403, func() *answer { // the evaluation and the refusal
			return tn.op.post(t, "/v1/workloads", object{"envelope_type": "container", "image_ref": "x@" + digestOf(nil)})
		}},
		{1, 201, func() *answer {
			return tn.op.post(t, "/v1/roles", object{"name": "r", "permissions": []string{"events.read"}})
		}},
		{1, 201, func() *answer {
			return tn.op.post(t, "/v1/service-accounts", object{"client_id": "s", "permissions": []string{}})
		}},
		{1, 204, func() *answer { return tn.op.do(t, "DELETE", "/v1/service-accounts/s", nil) }},
		{0, 200, func() *answer { return tn.op.get(t, "/v1/events") }},
		{0, 200, func() *answer { return tn.op.get(t, "/v1/workloads") }},
		{0, 200, func() *answer { return tn.op.get(t, "/v1/tenants/"+tn.id) }},
		{0, 200, func() *answer { return tn.op.get(t, "/v1/log/"+tn.id+"/checkpoint") }},
		{1, 404, func() *answer { return tn.op.get(t, "/v1/tenants/rival") }},
	} {
		before := size()
		a := step.do().want(step.status)
		if got := size() - before; got != step.want {
			t.Errorf("%s: %d events, want %d", a.request, got, step.want)
		}
		if (a.header.Get("X-Event-ID") != "") != (step.want > 0) {
			t.Errorf("%s: X-Event-ID is %q", a.request, a.header.Get("X-Event-ID"))
		}
	}
}

func TestEVT12CorrelationAndRange(t *testing.T) {
	t.Parallel()
	tn, correlation := shared.newTenant(t), unique("evt12")
	var want []string
	for i := range 10 {
		header := []string{}
		if i%2 == 0 {
			header = []string{"X-Correlation-ID", correlation}
		}
		a := tn.op.ask(t, "evt12", header...)
		if i%2 == 0 {
			want = append(want, a.header.Get("X-Event-ID"))
		}
	}
	got := tn.op.events(t, "correlation_id="+correlation)
	for i, e := range got {
		if len(got) != len(want) || e["id"] != want[i] {
			t.Fatalf("%d events of the correlation, want %d; event %d is %v", len(got), len(want), i, e["id"])
		}
	}
	from, to := number(t, got[1]["sequence"]), number(t, got[3]["sequence"])
	inside := tn.op.events(t, fmt.Sprintf("correlation_id=%s&from_sequence=%d&to_sequence=%d", correlation, from, to))
	if len(inside) != 3 || inside[0]["id"] != want[1] || inside[2]["id"] != want[3] {
		t.Errorf("%d events between sequences %d and %d", len(inside), from, to)
	}
	// Sign-ins and rejected tokens carry the caller's correlation, too.
	shared.anonymous().post(t, "/v1/auth/token", object{"username": "x", "password": "y", "tenant": tn.id}, "X-Correlation-ID", correlation+"-in").want(401)
	if found := tn.op.events(t, "correlation_id="+correlation+"-in"); len(found) != 1 || found[0]["outcome"] != "refused" {
		t.Errorf("a refused sign-in left %v", found)
	}
}
