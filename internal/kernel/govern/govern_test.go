package govern_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/evidence/canon"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const rules = `
@id("thing.write") permit (principal, action == Action::"thing.create", resource)
when { principal.tenant == resource.tenant && principal.permissions.contains("things.write") };
@id("thing.rule") permit (principal, action == Action::"rule.change", resource);
@id("thing.big") @reason("that is too big") @fix("make it smaller") forbid (principal, action == Action::"thing.create", resource) when { resource has size && resource.size > 10 };
`

var declaration = policy.Declaration{
	Resources: []policy.ResourceType{{Name: "Thing", Attributes: policy.Attributes{"size": policy.Optional(policy.Long)}}},
	Actions: []policy.Action{{Verb: "thing.create", Resource: "Thing", Permission: "things.write"},
		{Verb: "thing.read", Resource: "Thing", Permission: "things.read"}, {Verb: "rule.change", Resource: "Thing", Permission: "x"}},
}

// world is a door with two tenants, ada's and bob's.
type world struct {
	t      testing.TB
	db     *store.DB
	log    *evidence.Log
	gov    *govern.Governor
	schema *policy.Schema
	set    *policy.Set
	ada    *identity.Principal

	now     atomic.Int64 // microseconds
	fault   atomic.Bool
	status  atomic.Value // of tenant a
	validTo time.Time
}

func (w *world) LoadView(_ store.Q, tenant string) (*govern.View, error) {
	if tenant == "nowhere" {
		return nil, &kernel.Error{Kind: kernel.NotFound}
	}
	snapshot := []byte(`{"rules":"` + w.set.Digest() + `"}`)
	authority := []byte(`{"id":"auth-` + tenant + `"}`)
	return &govern.View{Tenant: tenant, Status: w.status.Load().(string), Policy: govern.InForce{Bound: policy.Bound{Platform: w.set, Tenant: policy.Empty}, Snapshot: snapshot, Digest: evidence.Digest(snapshot)},
		Authority: govern.Authority{ID: "auth-" + tenant, Snapshot: authority, Digest: evidence.Digest(authority), Scope: []string{"*"},
			ValidFrom: time.Unix(0, 0), ValidTo: w.validTo}}, nil
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t testing.TB, db *store.DB) *world {
	w := &world{t: t, db: db, validTo: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.now.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	w.status.Store("active")
	clock := func() time.Time { return time.UnixMicro(w.now.Add(1)) }
	w.schema = must[*policy.Schema](t)(policy.NewSchema(declaration))
	w.set = must[*policy.Set](t)(w.schema.Compile("platform", "1", rules))
	box := must[*secret.Box](t)(secret.NewBox(make([]byte, secret.KeySize)))
	w.log = evidence.NewLog(evidence.Config{DB: w.db, Box: box, Provider: "test", Now: clock, Fault: func() error {
		if w.fault.Load() {
			return errors.New("sink is down")
		}
		return nil
	}})
	w.ada = must[*identity.Principal](t)(identity.NewPrincipal(w.schema, identity.Principal{Tenant: "a", Name: "ada", Kind: identity.Human, Permissions: []string{"things.write"}}))
	w.open()
	for _, tenant := range []string{identity.SystemTenant, "a", "b"} {
		w.createLog(tenant)
	}
	return w
}

func (w *world) open() {
	w.gov = govern.New(govern.Config{DB: w.db, Log: w.log, Views: w, Verbs: []govern.Verb{{Name: "thing.create", Evaluate: true}, {Name: "thing.read", Read: true}, {Name: "rule.change", Governs: true}}})
	w.t.Cleanup(w.gov.Close)
}

// createLog makes a log the way bootstrap does: within a committed transaction of the door.
func (w *world) createLog(tenant string) {
	w.t.Helper()
	g := store.NewGroup(w.db, store.GroupConfig[string]{Apply: func(tx *store.Tx, names []string) error {
		b, err := w.log.Begin(tx, nil)
		if err != nil {
			return err
		}
		for _, n := range names {
			if _, err := b.Create(n); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(`CREATE TABLE IF NOT EXISTS things (tenant TEXT NOT NULL, name TEXT NOT NULL PRIMARY KEY)`); err != nil {
			return err
		}
		return b.Finish()
	}})
	defer g.Close()
	if err := g.Submit(w.t.Context(), tenant); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(name string, size int64) govern.Action {
	return govern.Action{Verb: "thing.create", Principal: w.ada, ResourceID: "thing/" + name, Details: map[string]any{"thing_name": name},
		Resource: policy.Resource{Type: "Thing", ID: name, Attributes: policy.Record{"tenant": "a", "size": size}}}
}

func insertThing(name string) func(*govern.Tx) error {
	return func(tx *govern.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (tenant, name) VALUES ($1, $2)`, "a", name)
		if errors.Is(err, store.ErrExists) {
			return &kernel.Error{Kind: kernel.Conflict, Msg: "it is there"}
		}
		return err
	}
}

func (w *world) things() (n int) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), "a", func(q store.Q) error { return q.Get(`SELECT COUNT(*) FROM things`, nil, &n) })
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// events returns a log's events and checks its chain, links and tree on the way.
func (w *world) events(tenant string) []map[string]any {
	w.t.Helper()
	var out []map[string]any
	prev := ""
	for after := int64(0); ; {
		page, more, err := w.log.List(w.t.Context(), tenant, evidence.Filter{}, after, 7)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range page {
			var m map[string]any
			if err := json.Unmarshal(e.Event, &m); err != nil {
				w.t.Fatal(err)
			}
			if err := canon.Check(e.Event); err != nil {
				w.t.Fatalf("event %d is not canonical: %v", e.Sequence, err)
			}
			hash := m["event_hash"].(string)
			if got, _ := m["prev_hash"].(string); got != prev || e.Sequence != after+1 {
				w.t.Fatalf("event %d: prev_hash %q, want %q; after %d", e.Sequence, got, prev, after)
			}
			var bare map[string]any
			d := json.NewDecoder(bytes.NewReader(e.Event))
			d.UseNumber()
			if err := d.Decode(&bare); err != nil {
				w.t.Fatal(err)
			}
			delete(bare, "event_hash")
			if line := must[[]byte](w.t)(canon.Append(nil, bare)); evidence.Digest(line) != hash {
				w.t.Fatalf("event %d does not hash to its event_hash", e.Sequence)
			}
			if _, _, err := w.log.Evidence(w.t.Context(), tenant, m["evidence_pointer"].(string)[len("eosc://evidence/"):]); err != nil {
				w.t.Fatalf("event %d: its pointer does not resolve: %v", e.Sequence, err)
			}
			prev, after = hash, e.Sequence
			out = append(out, m)
		}
		if !more {
			return out
		}
	}
}

func TestDoor(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db)

		t.Run("AllowedActionIsDoneAndWritten", func(t *testing.T) {
			r, err := w.gov.Do(ctx, w.create("one", 1), insertThing("one"))
			if err != nil {
				t.Fatal(err)
			}
			ev := w.events("a")
			if len(ev) != 2 || ev[0]["event_type"] != "policy.evaluate" || ev[1]["event_type"] != "thing.create" || ev[1]["id"] != r.EventID || ev[1]["outcome"] != "accepted" {
				t.Fatalf("events: %v", ev)
			}
			if w.things() != 1 {
				t.Fatal("the row is not there")
			}
			if _, err := w.log.Artifact(ctx, "a", ev[1]["policy_snapshot_id"].(string)); err != nil {
				t.Fatalf("policy snapshot does not resolve: %v", err)
			}
		})
		t.Run("RefusalIsWrittenAndNothingElse", func(t *testing.T) {
			_, err := w.gov.Do(ctx, w.create("big", 11), insertThing("big"))
			e := kernel.AsError(err)
			if e.Kind != kernel.Refused || e.Rule != "thing.big" || e.Msg != "that is too big" || e.Fix == "" || e.Pointer == "" {
				t.Fatalf("got %#v", e)
			}
			ev := w.events("a")
			last := ev[len(ev)-1]
			if last["outcome"] != "refused" || last["refusal_reason_code"] != "thing.big" || last["refusal_reason_class"] != "policy_denied" || last["id"] != e.EventID {
				t.Fatalf("last event: %v", last)
			}
			if w.things() != 1 {
				t.Fatal("something was done")
			}
		})
		t.Run("FailedChangeLeavesAnEventAlone", func(t *testing.T) {
			_, err := w.gov.Do(ctx, w.create("one", 1), insertThing("one"))
			if kernel.KindOf(err) != kernel.Conflict {
				t.Fatalf("got %v", err)
			}
			_, err = w.gov.Do(ctx, w.create("two", 1), func(tx *govern.Tx) error {
				if err := insertThing("two")(tx); err != nil {
					return err
				}
				return errors.New("went wrong halfway")
			})
			if kernel.KindOf(err) != kernel.Internal {
				t.Fatalf("got %v", err)
			}
			ev := w.events("a")
			if last := ev[len(ev)-1]; last["outcome"] != "failed" || w.things() != 1 {
				t.Fatalf("last event %v, %d things", last, w.things())
			}
		})
		t.Run("NoEvidenceNoAction", func(t *testing.T) {
			before := len(w.events("a"))
			w.fault.Store(true)
			_, err := w.gov.Do(ctx, w.create("three", 1), insertThing("three"))
			w.fault.Store(false)
			if e := kernel.AsError(err); e.Kind != kernel.Unavailable || e.Code != "evidence_unavailable" {
				t.Fatalf("got %v", err)
			}
			if w.things() != 1 || len(w.events("a")) != before {
				t.Fatal("something was done without evidence")
			}
		})
		t.Run("SuspensionBitesAtOnce", func(t *testing.T) {
			if _, err := w.gov.Do(ctx, govern.Action{Verb: "rule.change", Principal: w.ada, Resource: policy.Resource{Type: "Thing", Attributes: policy.Record{"tenant": "a"}}}, func(tx *govern.Tx) error {
				w.status.Store("suspended")
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			_, err := w.gov.Do(ctx, w.create("four", 1), insertThing("four"))
			if e := kernel.AsError(err); e.Rule != "tenant.suspended" {
				t.Fatalf("got %v", err)
			}
		})
		t.Run("ClockBackwards", func(t *testing.T) {
			w.now.Add(-int64(time.Hour / time.Microsecond))
			if err := w.gov.Refuse(ctx, w.create("five", 1), &kernel.Error{Kind: kernel.Invalid, Field: "name", Msg: "bad"}); kernel.KindOf(err) != kernel.Invalid {
				t.Fatal(err)
			}
			last := ""
			for _, e := range w.events("a") {
				if at := e["occurred_at"].(string); at < last {
					t.Fatalf("%s after %s", at, last)
				} else {
					last = at
				}
			}
		})
	})
}

func TestConcurrentWritersOneChain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		const writers, each = 32, 25
		var wg sync.WaitGroup
		var done atomic.Int64
		for i := range writers {
			wg.Go(func() {
				for j := range each {
					ctx, cancel := context.WithCancel(t.Context())
					if (i+j)%11 == 0 {
						go cancel() // some callers leave at any moment
					}
					name := fmt.Sprintf("t%d-%d", i, j)
					_, err := w.gov.Do(ctx, w.create(name, int64(j%12)), insertThing(name))
					cancel()
					if err == nil {
						done.Add(1)
					}
				}
			})
		}
		wg.Wait()
		accepted := 0
		for _, e := range w.events("a") {
			if e["event_type"] == "thing.create" && e["outcome"] == "accepted" {
				accepted++
			}
		}
		if n := w.things(); n != accepted || int64(n) != done.Load() {
			t.Fatalf("%d rows, %d accepted events, %d acknowledged", n, accepted, done.Load())
		}
	})
}
