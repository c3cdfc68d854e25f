package apidoc

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestAsyncAPIIsValid(t *testing.T) {
	doc := parseYAML(t, widgetDocs(t).AsyncAPI())
	if err := officialSchema(t, "asyncapi-2.6.0.schema.json.gz").Validate(doc); err != nil {
		t.Fatalf("%#v", err)
	}
	if got := slices.Sorted(maps.Keys(at(t, doc, "channels").(map[string]any))); !slices.Equal(got, []string{"/events/audit", "/events/tenant", "/events/workload"}) {
		t.Errorf("channels are %v", got)
	}
	envelope := []string{"id", "occurred_at", "tenant_id", "event_type", "outcome", "evidence_pointer", "sequence", "payload"} // ecs.md §9
	for message, types := range map[string]string{"AuditEvent": "", "TenantEvent": "created updated suspended deleted", "WorkloadEvent": "admitted updated terminated"} {
		s := at(t, doc, "components", "schemas", message+"Message")
		var required []string
		for _, name := range at(t, s, "required").([]any) {
			required = append(required, name.(string))
		}
		for _, name := range envelope {
			if !slices.Contains(required, name) {
				t.Errorf("%s: %s is not required", message, name)
			}
		}
		var got []string
		if enum, ok := at(t, s, "properties", "event_type").(map[string]any)["enum"].([]any); ok {
			for _, v := range enum {
				got = append(got, v.(string))
			}
		}
		if strings.Join(got, " ") != types {
			t.Errorf("%s: event types %v, want %s", message, got, types)
		}
	}
}

// Events are taken from a real log: what it writes is what both documents describe.
func TestEventsAreAsDescribed(t *testing.T) {
	events := realEvents(t)
	d := widgetDocs(t)
	open := compile(t, parseJSON(t, d.openapiJSON.body), jsonschema.Draft2020)("Event")
	async := compile(t, parseYAML(t, d.AsyncAPI()), jsonschema.Draft7)("AuditEventMessage")
	for _, e := range events {
		if err := open.Validate(parseJSON(t, e)); err != nil {
			t.Errorf("OpenAPI: %v\n%s", err, e)
		}
		if err := async.Validate(parseJSON(t, e)); err != nil {
			t.Errorf("AsyncAPI: %v\n%s", err, e)
		}
		for _, broken := range [][2]string{{`"outcome":"`, `"outcome":"not-`}, {`"evidence_pointer":"eosc`, `"evidence_pointer":"http`}, {`"sequence":`, `"sequence":-`}, {`"tenant_id"`, `"tenant"`}} {
			b := bytes.Replace(e, []byte(broken[0]), []byte(broken[1]), 1)
			if bytes.Equal(b, e) {
				t.Fatalf("%q is not in %s", broken[0], e)
			}
			if open.Validate(parseJSON(t, b)) == nil || async.Validate(parseJSON(t, b)) == nil {
				t.Errorf("an event with %s is taken for one", broken[1])
			}
		}
	}
	known := map[string]bool{}
	for _, p := range eventSchema().Properties {
		known[p.Name] = true
	}
	for _, e := range events {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(e, &fields); err != nil {
			t.Fatal(err)
		}
		for name := range fields {
			if !known[name] && name != "widget_id" {
				t.Errorf("events carry %s, which the documents do not describe", name)
			}
		}
	}
}

// realEvents appends one accepted and one refused event to a new log.
func realEvents(t *testing.T) [][]byte {
	t.Helper()
	db := storetest.Open(t)
	box, err := secret.NewBox(bytes.Repeat([]byte{7}, secret.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	log := evidence.NewLog(evidence.Config{DB: db, Box: box, Provider: "test.example"})
	digest := evidence.Digest([]byte("x"))
	drafts := []evidence.Draft{
		{Tenant: "demo", Type: "widget.made", Outcome: evidence.Accepted, Actor: evidence.Actor{ID: "ada@demo", Type: "human", Org: "demo", Credential: "t-1"}, Correlation: "c-1",
			Resource: "widget/1", Action: "widget.create", AuthoritySnapshot: digest, PolicySnapshot: digest, Details: map[string]any{"widget_id": "1"},
			Artifacts: []string{digest}, Jurisdiction: "DE", Classification: "internal", Delegation: "d-1"},
		{Tenant: "demo", Type: "widget.made", Outcome: evidence.Refused, Actor: evidence.Actor{ID: "eve@demo", Type: "service", Org: "demo"}, Correlation: "c-2",
			Refusal: &evidence.Refusal{Class: evidence.ClassPolicy, Code: "permission.missing", Subject: "widget.create", Reason: "no rule permits it"}},
	}
	var events [][]byte
	var batch *evidence.Batch
	group := store.NewGroup(db, store.GroupConfig[[]evidence.Draft]{Apply: func(tx *store.Tx, items [][]evidence.Draft) (err error) {
		if batch, err = log.Begin(tx, nil); err != nil {
			return err
		}
		if _, err := batch.Create("demo"); err != nil {
			return err
		}
		events = nil
		for i := range items[0] {
			s, err := evidence.Seal(&items[0][i])
			if err != nil {
				return err
			}
			r, err := batch.Append(s)
			if err != nil {
				return err
			}
			events = append(events, r.Event)
		}
		return batch.Finish()
	}, Committed: func([][]evidence.Draft) { batch.Committed() }})
	defer group.Close()
	if err := group.Submit(t.Context(), drafts); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestMain(m *testing.M) { storetest.Main(m) }
