package acceptance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestCrossTenant lets one tenant ask for everything in every way that the API
// documents, with the ids of another. Whatever comes back holds nothing of the
// other but what the request itself said.
func TestCrossTenant(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	own := furnish(t, a)
	own.deploy(t, a)
	furnish(t, b)
	eventually(t, "what the furnishing set off", func() bool { return len(a.op.events(t, "event_type=workload.envelope.start")) > 0 })
	var theirs secrets
	theirs.collect(t, a, own)
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	seed := environment(t, "PROVOST_SEED", rand.Uint64())
	t.Logf("PROVOST_SEED=%d repeats the requests", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	before := a.op.events(t, "")
	for range environment(t, "PROVOST_CROSS_REQUESTS", 400) {
		o := d.operations[r.IntN(len(d.operations))]
		if strings.HasSuffix(o.path, "/stream") || strings.HasPrefix(o.path, "/events/") || strings.HasSuffix(o.path, "/auth/token") {
			continue // endless by nature: TestChannelsAreApart; or no tenant's
		}
		foreign(t, b.op, o, &theirs, r)
	}
	for _, path := range []string{"/_catalog", "/%s/tags/list", "/%s/manifests/v1", "/%s/referrers/" + digestOf(nil)} { // the registry
		for _, repo := range theirs.repositories {
			p := "/v2" + path
			if strings.Contains(path, "%s") {
				p = fmt.Sprintf("/v2"+path, repo)
			}
			theirs.search(t, b.op.do(t, "GET", p, nil), p)
		}
	}
	// Nothing of it reached the other's log, and nothing of the other was changed.
	if after := a.op.events(t, ""); len(after) != len(before) {
		for _, e := range after[len(before):] {
			t.Errorf("%s has event %v by %v", a.id, e["event_type"], e["actor"])
		}
	}
}

// secrets are what only one tenant may be shown.
type secrets struct {
	words        []string
	values       []string // what ids can be made of
	paths        []string // that show something to their owner
	repositories []string
	// What the other tenant wrote into things of its own it may see again, and
	// in its own log whatever it ever asked for.
	written, asked strings.Builder
}

// collect takes the ids, digests, pointers and marks of all that a tenant has.
func (s *secrets) collect(t testing.TB, tn *tenant, own belongings) {
	t.Helper()
	s.values, s.paths = slices.Clone(own.secrets), own.paths
	for _, e := range tn.op.events(t, "") {
		for _, k := range []string{"id", "event_hash", "evidence_pointer", "correlation_id", "workload_id"} {
			if v, _ := e[k].(string); v != "" {
				s.values = append(s.values, strings.TrimPrefix(v, "eosc://evidence/"))
			}
		}
	}
	for _, m := range tn.op.all(t, "/v1/images") {
		s.repositories = append(s.repositories, m["repository"].(string))
	}
	slices.Sort(s.values)
	s.values = slices.Compact(s.values)
	s.words = s.values
}

// fitting are the paths of the other tenant's things that an operation could
// be done to.
func (s *secrets) fitting(o operation) (out []string) {
	for _, p := range s.paths {
		p, _, _ = strings.Cut(p, "?")
		if o.fits(o.method, p) && strings.Contains(o.path, "{") {
			out = append(out, p)
		}
	}
	return out
}

// search reports every word of the other tenant in an answer that did not
// already stand in the request.
func (s *secrets) search(t testing.TB, a *answer, request string) {
	t.Helper()
	if text, err := url.QueryUnescape(request); err == nil {
		request += "\n" + text
	}
	s.asked.WriteString(request)
	request += s.written.String()
	if slices.ContainsFunc([]string{"/v1/events", "/v1/evidence/", "/v1/log/", "/v1/exports/", "/v1/why"}, func(p string) bool { return strings.HasPrefix(request, p) }) {
		request += s.asked.String()
	}
	var head bytes.Buffer
	if err := a.header.Write(&head); err != nil {
		t.Fatal(err)
	}
	for _, w := range s.words {
		if strings.Contains(request, w) || slices.ContainsFunc(s.words, func(longer string) bool {
			return len(longer) > len(w) && strings.Contains(longer, w) && strings.Contains(request, longer)
		}) {
			continue
		}
		if bytes.Contains(a.body, []byte(w)) || bytes.Contains(head.Bytes(), []byte(w)) {
			t.Errorf("%s: status %d shows %q: %s", a.request, a.status, w, clip(a.body))
		}
	}
}

// foreign makes one request of an operation with another tenant's ids wherever
// an id can stand, and looks through the answer.
func foreign(t testing.TB, c *client, o operation, theirs *secrets, r *rand.Rand) {
	t.Helper()
	pick := func() string { return theirs.values[r.IntN(len(theirs.values))] }
	segments := strings.Split(o.path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = url.PathEscape(pick())
		}
	}
	path := strings.Join(segments, "/")
	if fitting := theirs.fitting(o); len(fitting) > 0 && r.IntN(2) == 0 {
		path = fitting[r.IntN(len(fitting))]
	} else if strings.HasSuffix(o.path, "/tile/{path}") {
		path = strings.Replace(o.path, "{tenant}", pick(), 1)
		path = strings.Replace(path, "{path}", "entries/000.p/1", 1)
	}
	query := url.Values{}
	parameters, _ := o.spec["parameters"].([]any)
	for _, p := range parameters {
		if name, _ := p.(object)["name"].(string); name != "" && p.(object)["in"] == "query" && r.IntN(3) == 0 {
			query.Set(name, pick())
		}
	}
	if len(query) > 0 {
		path += separator(path) + query.Encode()
	}
	var body any
	if o.spec["requestBody"] != nil {
		body = fill(t, o, pick, r)
	}
	a := c.do(t, o.method, path, body)
	request := path
	if body != nil {
		request += string(encode(t, body))
	}
	if a.status >= 500 {
		t.Errorf("%s: status %d: %s", a.request, a.status, clip(a.body))
	}
	theirs.search(t, a, request)
	if a.status < 300 && body != nil {
		theirs.written.WriteString(request)
	}
	if o.method != "GET" && strings.Contains(o.path, "{") && a.status < 400 {
		t.Errorf("%s: status %d for another tenant's id", a.request, a.status)
	}
}

// fill makes a body of the operation's schema, other tenants' values in it.
func fill(t testing.TB, o operation, pick func() string, r *rand.Rand) object {
	t.Helper()
	d, err := published()
	if err != nil {
		t.Fatal(err)
	}
	_, request := d.resolve("", o.spec["requestBody"])
	_, schema := d.resolve("", dig(request, "content").(object)["application/json"].(object)["schema"])
	body := object{}
	properties, _ := schema["properties"].(object)
	for name, p := range properties {
		if r.IntN(4) == 0 {
			continue
		}
		_, p := d.resolve("", p)
		switch typ := p["type"]; {
		case typ == "string":
			body[name] = pick()
		case typ == "array":
			body[name] = []string{pick()}
		case typ == "integer":
			body[name] = r.IntN(10)
		case typ == "boolean":
			body[name] = r.IntN(2) == 0
		}
	}
	return body
}
