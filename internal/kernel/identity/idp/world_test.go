package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/password"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// The cast. Passwords and secrets are known to the test of what must never be
// written down.
const (
	issuer         = "http://127.0.0.1:8420"
	adminPassword  = "admin-pass-of-the-platform"
	operatorPass   = "operator-pass-of-demo"
	adaPassword    = "adas-pass-of-demo"
	evePassword    = "eves-pass-disabled"
	rivalPassword  = "operator-pass-of-rival"
	planSecret     = "plan-secret-0123456789abcdef"
	plainSecret    = "plain-secret-0123456789abcdef"
	workspaceToken = "workspace-secret-0123456789abcdef"
)

// world is a running provider with everything it stands on.
type world struct {
	*Provider
	tb     testing.TB
	db     *store.DB
	gov    *govern.Governor
	schema *policy.Schema
	views  *views
	clock  *clock
	logs   *lockedBuffer
}

// clock is the world's time; it moves when a test says so.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// views stands in for the tenant plane: it says what tenants there are.
type views struct {
	mu       sync.Mutex
	status   map[string]string
	platform *policy.Set
	tenant   map[string]*policy.Set // a tenant's own rules
}

func (v *views) LoadView(_ store.Q, tenant string) (*govern.View, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	status, ok := v.status[tenant]
	if !ok {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such tenant"}
	}
	own := v.tenant[tenant]
	if own == nil {
		own = policy.Empty
	}
	always := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	return &govern.View{Tenant: tenant, Status: status, Authority: govern.Authority{ID: "auth-" + tenant, Scope: []string{"*"}, ValidTo: always},
		Policy: govern.InForce{Bound: policy.Bound{Platform: v.platform, Tenant: own}}}, nil
}

// touch is a verb of the tests' own, which says that something about a tenant changed.
var touch = policy.Declaration{
	Resources: []policy.ResourceType{{Name: "Thing"}},
	Actions:   []policy.Action{{Verb: "thing.touch", Resource: "Thing", Permission: "things.write"}},
}

const touchRule = `@id("thing.touch") permit (principal is System, action == Action::"thing.touch", resource);`

// lockedBuffer is what was logged.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

var cheapPasswords = password.New(password.Config{MemoryKiB: 64, Passes: 1})

// master is the test's master key: replicas share it.
var master = bytes.Repeat([]byte{7}, secret.KeySize)

// newWorld starts a provider in an empty database, with tenants and the cast.
func newWorld(tb testing.TB, db *store.DB, options ...func(*Config)) *world {
	tb.Helper()
	w := startWorld(tb, db, true, options...)
	if err := w.Seed(tb.Context(), cast()...); err != nil {
		tb.Fatal("seed:", err)
	}
	return w
}

func cast() []Accounts {
	return []Accounts{
		{Tenant: identity.SystemTenant, Users: []NewUser{{Username: "admin", Password: adminPassword, Roles: []string{"platform-admin"}}}},
		{Tenant: "demo", Users: []NewUser{
			{Username: "operator", Password: operatorPass, Roles: []string{"operator"}},
			{Username: "ada", Password: adaPassword, Roles: []string{"developer"}, Permissions: []string{"events.read"}, Groups: []string{"QA"}},
			{Username: "eve", Password: evePassword, Roles: []string{"viewer"}, Disabled: true},
			{Username: "nobody", Password: adaPassword, Roles: []string{"nobody"}},
		}, ServiceAccounts: []SeededService{
			{NewService{ClientID: "svc-plan-orchestrator", RoleID: "PLAN", Permissions: []string{"roadmap.read", "workflow.write.plan"}}, planSecret},
			{NewService{ClientID: "svc-plain", Permissions: []string{"tasks.read"}}, plainSecret},
		}, WorkspaceSecret: workspaceToken},
		{Tenant: "rival", Users: []NewUser{{Username: "operator", Password: rivalPassword, Roles: []string{"operator"}}}},
	}
}

// startWorld starts a provider; first makes the logs and roles of the tenants.
func startWorld(tb testing.TB, db *store.DB, first bool, options ...func(*Config)) *world {
	tb.Helper()
	w := &world{tb: tb, db: db, clock: &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, logs: &lockedBuffer{}}
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	box, err := secret.NewBox(master)
	must(err)
	w.schema, err = policy.NewSchema(Declaration, touch)
	must(err)
	set, err := w.schema.Compile("platform", "1", Rules+touchRule)
	must(err)
	w.views = &views{platform: set, tenant: map[string]*policy.Set{}, status: map[string]string{identity.SystemTenant: "active", "demo": "active", "rival": "active"}}

	log := evidence.NewLog(evidence.Config{DB: db, Box: box, Provider: "test.example", Now: w.clock.now})
	if first {
		createLogs(tb, db, log, slicesOf(w.views.status)...)
	}
	w.gov = govern.New(govern.Config{DB: db, Log: log, Views: w.views, Now: w.clock.now, Logger: slog.New(slog.NewTextHandler(w.logs, nil)),
		Verbs: append([]govern.Verb{{Name: "thing.touch", Governs: true, WithoutAuthority: true}}, Verbs...)})
	tb.Cleanup(w.gov.Close)

	cfg := Config{DB: db, Gov: w.gov, Schema: w.schema, Box: box, Issuer: issuer, Passwords: cheapPasswords, Now: w.clock.now}
	for _, o := range options {
		o(&cfg)
	}
	w.Provider, err = New(cfg)
	must(err)
	if first {
		for _, tenant := range []string{"demo", "rival"} {
			w.do("thing.touch", tenant, func(tx *govern.Tx) error { return w.SeedTenant(tx, tenant) })
		}
	}
	must(w.Start(tb.Context()))
	return w
}

func slicesOf(m map[string]string) (out []string) {
	for k := range maps.Keys(m) {
		out = append(out, k)
	}
	return out
}

// createLogs does what creating tenants does.
func createLogs(tb testing.TB, db *store.DB, log *evidence.Log, tenants ...string) {
	tb.Helper()
	var batch *evidence.Batch
	g := store.NewGroup(db, store.GroupConfig[int]{Apply: func(tx *store.Tx, _ []int) (err error) {
		if batch, err = log.Begin(tx, nil); err != nil {
			return err
		}
		for _, t := range tenants {
			if _, err := batch.Create(t); err != nil {
				return err
			}
		}
		return batch.Finish()
	}, Committed: func([]int) { batch.Committed() }})
	defer g.Close()
	if err := g.Submit(tb.Context(), 0); err != nil {
		tb.Fatal(err)
	}
}

// do runs a change as the platform.
func (w *world) do(verb, tenant string, change func(*govern.Tx) error) {
	w.tb.Helper()
	_, err := w.gov.Do(w.tb.Context(), govern.Action{Verb: verb, Principal: w.system, Tenant: tenant, Resource: w.thing(tenant)}, change)
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) thing(tenant string) policy.Resource {
	return policy.Resource{Type: "Thing", Attributes: policy.Record{"tenant": tenant}}
}

// setStatus does what suspending or deleting a tenant does.
func (w *world) setStatus(tenant, status string) {
	w.tb.Helper()
	w.views.mu.Lock()
	w.views.status[tenant] = status
	w.views.mu.Unlock()
	w.do("thing.touch", tenant, func(*govern.Tx) error { return nil })
}

// signIn signs a person of a tenant in.
func (w *world) signIn(tenant, username, pass string) Tokens {
	w.tb.Helper()
	return w.exchange(Request{Tenant: tenant, Username: username, Password: pass})
}

// exchange makes a token request that must succeed.
func (w *world) exchange(r Request) Tokens {
	w.tb.Helper()
	t, err := w.try(r)
	if err != nil {
		w.tb.Fatalf("sign in %s%s%s: %v", r.Username, r.ClientID, r.WorkspaceID, err)
	}
	return t
}

func (w *world) try(r Request) (Tokens, error) {
	w.tb.Helper()
	if err := r.complete(); err != nil {
		return Tokens{}, err
	}
	t, _, err := w.SignIn(w.tb.Context(), r, "corr-test")
	return t, err
}

// as authenticates a token that must be good.
func (w *world) as(bearer string) *identity.Principal {
	w.tb.Helper()
	p, err := w.Authenticate(w.tb.Context(), bearer)
	if err != nil {
		w.tb.Fatal("authenticate:", err)
	}
	return p
}

// act begins an administrative action of p in its own tenant.
func act(p *identity.Principal, verb string) govern.Action {
	return govern.Action{Verb: verb, Principal: p, Tenant: p.Tenant}
}

// change updates a user as the operator of demo.
func (w *world) change(by *identity.Principal, username string, c UserChange) {
	w.tb.Helper()
	if _, _, err := w.UpdateUser(w.tb.Context(), act(by, "identity.user.update"), username, c); err != nil {
		w.tb.Fatalf("update %s: %v", username, err)
	}
}

// event is what tests look at of one.
type event struct {
	Type        string         `json:"event_type"`
	Outcome     string         `json:"outcome"`
	Actor       string         `json:"actor"`
	Resource    string         `json:"resource_id"`
	Correlation string         `json:"correlation_id"`
	Class       string         `json:"refusal_reason_class"`
	Code        string         `json:"refusal_reason_code"`
	Payload     map[string]any `json:"payload"`
}

// events returns a tenant's log.
func (w *world) events(tenant string) []event {
	w.tb.Helper()
	var out []event
	for _, line := range w.lines(tenant) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.tb.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func (w *world) lines(tenant string) (lines []string) {
	w.tb.Helper()
	err := w.db.View(context.Background(), store.Platform, func(q store.Q) (err error) {
		lines, err = store.All(q, scanText, `SELECT CAST(event AS TEXT) FROM events WHERE tenant = $1 ORDER BY pos`, tenant)
		if w.db.Postgres() {
			lines, err = store.All(q, scanText, `SELECT convert_from(event, 'UTF8') FROM events WHERE tenant = $1 ORDER BY pos`, tenant)
		}
		return err
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return lines
}

// last returns a tenant's newest event, which must be of this type and outcome.
func (w *world) last(tenant, typ, outcome string) event {
	w.tb.Helper()
	all := w.events(tenant)
	if len(all) == 0 {
		w.tb.Fatalf("the log of %s is empty, want %s %s", tenant, typ, outcome)
	}
	e := all[len(all)-1]
	if e.Type != typ || e.Outcome != outcome {
		w.tb.Fatalf("the last event of %s is %s %s, want %s %s", tenant, e.Type, e.Outcome, typ, outcome)
	}
	return e
}

// wants reports an error that is not of this kind and code.
func wants(t *testing.T, what string, err error, kind kernel.Kind, code string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: succeeded, want %v %s", what, kind, code)
		return
	}
	if e := kernel.AsError(err); e.Kind != kind || e.Code != code {
		t.Errorf("%s: got %v %s (%v), want %v %s", what, e.Kind, e.Code, err, kind, code)
	}
}

func contains(list []string, s string) bool {
	return strings.Contains("\x00"+strings.Join(list, "\x00")+"\x00", "\x00"+s+"\x00")
}

func ptr[T any](v T) *T { return &v }
