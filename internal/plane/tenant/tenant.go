// Package tenant is the plane of tenants and of what they act under: their
// authority (who may mandate what, until when) and their policy (which rules
// decide). Creating a tenant is the bootstrap of ecs.md §1: verify the
// authority, resolve the policy, create the boundary, deny by default, and
// leave evidence of each.
//
//	POST ──▶ active ──suspend──▶ suspended
//	            ▲ └─────────────────┘│
//	            │   PATCH status     │
//	            └──── DELETE ────────┴──▶ deleted (its log stays readable)
package tenant

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Status is where a tenant is in its life.
type Status string

// The statuses of ecs.md §1.1.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
	Deleted   Status = "deleted"
)

// Tenant is the isolation unit.
type Tenant struct {
	ID               string           `json:"id"`
	AuthorityBinding string           `json:"authority_binding"`
	Jurisdiction     string           `json:"jurisdiction"`
	Ceiling          string           `json:"classification_ceiling"`
	PolicyBaseline   string           `json:"policy_baseline"`
	Status           Status           `json:"status"`
	Owner            string           `json:"owner,omitempty"`
	Contact          string           `json:"contact,omitempty"`
	Quotas           map[string]int64 `json:"quotas,omitempty"`
	CreatedAt        time.Time        `json:"created_at"`
	UpdatedAt        time.Time        `json:"updated_at"`

	authorityOwner                       string
	policyOwner, policyID, policyVersion string
}

// Classifications is the vocabulary of data classes, lowest first.
var Classifications = []string{"public", "internal", "restricted", "secret"}

// Quotas that planes enforce, with the limit a tenant starts with.
var defaultQuotas = map[string]int64{"workloads": 100, "cpu_millis": 16_000, "memory_bytes": 32 << 30}

// Seeder gives a new tenant what it needs to have people: its built-in roles.
type Seeder interface {
	SeedTenant(tx *govern.Tx, tenant string) error
}

// Service is the plane.
type Service struct {
	db     *store.DB
	gov    *govern.Governor
	schema *policy.Schema
	seeder Seeder
	// provider names who runs the platform.
	provider string
	// deleted are the kinds of jobs that other planes want when a tenant is deleted.
	deleted []string
	sets    setCache
}

// New makes the plane; Bind gives it the door, which needs the plane as its loader.
func New(db *store.DB, schema *policy.Schema, provider string) *Service {
	return &Service{db: db, schema: schema, provider: provider, sets: setCache{schema: schema, max: 512}}
}

// Bind completes the service. deleted are kinds of jobs to enqueue, without
// arguments and in the tenant's name, when a tenant is deleted.
func (s *Service) Bind(gov *govern.Governor, seeder Seeder, deleted ...string) {
	s.gov, s.seeder, s.deleted = gov, seeder, deleted
}

var tenantID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// problem is an input error with the code the interop contract gives it.
func problem(field, code, format string, args ...any) error {
	e := kernel.InvalidField(field, format, args...)
	e.Code = code
	return e
}

// validate checks what needs no database.
func (t *Tenant) validate() error {
	switch {
	case t.ID == "":
		return problem("id", "ECS_MISSING_ID", "is required: a short name such as acme")
	case !tenantID.MatchString(t.ID):
		return problem("id", "ECS_INVALID_ID", "is %q; use 1 to 63 lower-case letters, digits and inner hyphens", t.ID)
	case t.AuthorityBinding == "":
		e := kernel.InvalidField("authority_binding", "is required: the id of an authority (POST /v1/authorities)")
		e.Code, e.Class = "ECS_MISSING_AUTHORITY", evidence.ClassAuthority
		return e
	case t.PolicyBaseline == "":
		return problem("policy_baseline", "ECS_MISSING_POLICY_BASELINE", "is required: the id of a policy, such as policy-baseline")
	}
	if err := ValidJurisdiction("jurisdiction", t.Jurisdiction); err != nil {
		return err
	}
	if err := ValidClassification("classification_ceiling", t.Ceiling); err != nil {
		return err
	}
	for name, n := range t.Quotas {
		if _, ok := defaultQuotas[name]; !ok || n < 0 {
			return problem("quotas."+name, "ECS_INVALID_QUOTA", "is not a limit that is enforced; set workloads, cpu_millis or memory_bytes to a number from 0")
		}
	}
	for field, v := range map[string]string{"owner": t.Owner, "contact": t.Contact} {
		if len(v) > 256 {
			return problem(field, "ECS_INVALID_REQUEST", "is longer than 256 bytes")
		}
	}
	return nil
}

// ValidJurisdiction checks an ISO 3166-1 alpha-2 code.
func ValidJurisdiction(field, code string) error {
	if code == "" {
		return problem(field, "ECS_MISSING_JURISDICTION", "is required: an ISO 3166 country code such as DE")
	}
	r, err := language.ParseRegion(code)
	if err != nil || len(code) != 2 || code != strings.ToUpper(code) || !r.IsCountry() || r.String() != code {
		return problem(field, "ECS_INVALID_JURISDICTION", "is %q, want an ISO 3166 country code in capitals such as DE", code)
	}
	return nil
}

// ValidClassification checks a data class.
func ValidClassification(field, class string) error {
	if class == "" {
		return problem(field, "ECS_MISSING_CLASSIFICATION", "is required: one of %s", strings.Join(Classifications, ", "))
	}
	if !slices.Contains(Classifications, class) {
		return problem(field, "ECS_INVALID_CLASSIFICATION", "is %q, want one of %s", class, strings.Join(Classifications, ", "))
	}
	return nil
}

// resource is the tenant as policies see it.
func (t *Tenant) resource() policy.Resource {
	return policy.Resource{Type: "Tenant", ID: t.ID, Attributes: policy.Record{"tenant": t.ID, "status": string(t.Status),
		"jurisdiction": t.Jurisdiction, "classification_ceiling": t.Ceiling}}
}

// Create bootstraps a tenant. Its own log begins with olz.bootstrap; the
// platform's log has the decision.
func (s *Service) Create(ctx context.Context, a govern.Action, t Tenant) (Tenant, evidence.Receipt, error) {
	if err := t.validate(); err != nil {
		return t, evidence.Receipt{}, err
	}
	t.Status = Active
	quotas := make(map[string]int64, len(defaultQuotas))
	for name, n := range defaultQuotas {
		quotas[name] = n
	}
	for name, n := range t.Quotas {
		quotas[name] = n
	}
	t.Quotas = quotas
	a.Resource, a.ResourceID = t.resource(), "tenant/"+t.ID
	a.Details = t.details()
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		t.CreatedAt, t.UpdatedAt = tx.Now, tx.Now
		view, verifier, err := s.bootstrap(tx, &t)
		if err != nil {
			return err
		}
		initial := make(map[string]any, len(quotas))
		for name, n := range quotas {
			initial[name] = n
		}
		details := t.details()
		details["initial_quotas"], details["network_namespace_id"] = initial, "ns-"+t.ID
		details["binding_verified"], details["baseline_applied"] = true, true
		err = tx.RecordMain(evidence.Draft{Tenant: t.ID, Type: "olz.bootstrap", Details: details,
			AuthoritySnapshot: view.Authority.Digest, PolicySnapshot: view.Policy.Digest})
		if err != nil {
			return err
		}
		return declareControl(tx, &t, view, verifier, s.provider)
	})
	return t, receipt, err
}

func (t *Tenant) details() map[string]any {
	return map[string]any{"authority_binding": t.AuthorityBinding, "policy_baseline": t.PolicyBaseline,
		"jurisdiction": t.Jurisdiction, "classification_ceiling": t.Ceiling}
}

// bootstrap is the order of ecs.md §1.3: authority, policy, boundary, default
// deny. Denying by default needs no act: nothing permits what no rule permits.
func (s *Service) bootstrap(tx *govern.Tx, t *Tenant) (view *govern.View, verifier string, err error) {
	if err := tx.As(store.Platform); err != nil {
		return nil, "", err
	}
	if _, err := get(tx, t.ID); err == nil {
		return nil, "", &kernel.Error{Kind: kernel.Conflict, Code: "ECS_TENANT_EXISTS", Field: "id", Msg: "a tenant with this id exists, or existed; ids are never used again"}
	}
	if err := s.bindAuthority(tx, t, tx.Now); err != nil {
		return nil, "", err
	}
	if err := s.bindPolicy(tx, t); err != nil {
		return nil, "", err
	}
	if err := insert(tx, t); err != nil {
		return nil, "", err
	}
	if verifier, err = tx.CreateLog(t.ID); err != nil {
		return nil, "", err
	}
	if err := s.seeder.SeedTenant(tx, t.ID); err != nil {
		return nil, "", fmt.Errorf("seed roles: %w", err)
	}
	if err := tx.As(store.Platform); err != nil {
		return nil, "", err
	}
	if view, err = s.LoadView(tx, t.ID); err != nil {
		return nil, "", err
	}
	return view, verifier, tx.Snapshots(t.ID, view)
}

// Change is what PATCH may change; nil fields stay as they are.
type Change struct {
	AuthorityBinding *string           `json:"authority_binding"`
	PolicyBaseline   *string           `json:"policy_baseline"`
	Jurisdiction     *string           `json:"jurisdiction"`
	Ceiling          *string           `json:"classification_ceiling"`
	Status           *Status           `json:"status"`
	Owner            *string           `json:"owner"`
	Contact          *string           `json:"contact"`
	Quotas           *map[string]int64 `json:"quotas"`
}

// fields names what the change touches, for policy and evidence.
func (c Change) fields() []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"authority_binding", c.AuthorityBinding != nil}, {"policy_baseline", c.PolicyBaseline != nil}, {"jurisdiction", c.Jurisdiction != nil},
		{"classification_ceiling", c.Ceiling != nil}, {"status", c.Status != nil}, {"owner", c.Owner != nil}, {"contact", c.Contact != nil}, {"quotas", c.Quotas != nil}} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (c Change) apply(t *Tenant) {
	set(&t.AuthorityBinding, c.AuthorityBinding)
	set(&t.PolicyBaseline, c.PolicyBaseline)
	set(&t.Jurisdiction, c.Jurisdiction)
	set(&t.Ceiling, c.Ceiling)
	set(&t.Status, c.Status)
	set(&t.Owner, c.Owner)
	set(&t.Contact, c.Contact)
	if c.Quotas != nil {
		merged := make(map[string]int64, len(t.Quotas))
		for name, n := range t.Quotas {
			merged[name] = n
		}
		for name, n := range *c.Quotas {
			merged[name] = n
		}
		t.Quotas = merged
	}
}

func set[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

// Update changes a tenant.
func (s *Service) Update(ctx context.Context, a govern.Action, id string, c Change) (Tenant, evidence.Receipt, error) {
	fields := c.fields()
	if len(fields) == 0 {
		return Tenant{}, evidence.Receipt{}, problem("body", "ECS_INVALID_REQUEST", "changes nothing; give at least one field")
	}
	if c.Status != nil && *c.Status != Active && *c.Status != Suspended {
		return Tenant{}, evidence.Receipt{}, problem("status", "ECS_INVALID_STATUS", "is %q; set active or suspended, or DELETE the tenant", *c.Status)
	}
	a.Context = policy.Record{"fields": fields}
	names := make([]any, len(fields))
	for i, f := range fields {
		names[i] = f
	}
	a.Details = map[string]any{"changed_fields": names}
	return s.change(ctx, a, id, func(tx *govern.Tx, t *Tenant) error {
		c.apply(t)
		if err := t.validate(); err != nil {
			return err
		}
		if c.AuthorityBinding != nil {
			if err := s.bindAuthority(tx, t, tx.Now); err != nil {
				return err
			}
		}
		if c.PolicyBaseline != nil {
			if err := s.bindPolicy(tx, t); err != nil {
				return err
			}
			tx.Detail("policy_in_force", t.policyID+"@"+t.policyVersion)
		}
		return nil
	})
}

// SetStatus suspends or deletes a tenant.
func (s *Service) SetStatus(ctx context.Context, a govern.Action, id string, to Status) (Tenant, evidence.Receipt, error) {
	return s.change(ctx, a, id, func(tx *govern.Tx, t *Tenant) error {
		t.Status = to
		if to != Deleted {
			return nil
		}
		for _, kind := range s.deleted {
			if err := tx.Enqueue(jobs.Job{Kind: kind}); err != nil {
				return err
			}
		}
		return tx.As(store.Platform)
	})
}

// change runs a governed change of one tenant, recorded in that tenant's own log.
func (s *Service) change(ctx context.Context, a govern.Action, id string, fn func(*govern.Tx, *Tenant) error) (Tenant, evidence.Receipt, error) {
	t, err := s.Get(ctx, a.Principal, id)
	if err != nil {
		return t, evidence.Receipt{}, err
	}
	if t.Status == Deleted || id == identity.SystemTenant && a.Verb != "tenant.update" {
		return t, evidence.Receipt{}, unknown(id)
	}
	a.Tenant, a.Resource, a.ResourceID = id, t.resource(), "tenant/"+id
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		if err := tx.As(store.Platform); err != nil {
			return err
		}
		now, err := get(tx, id)
		if err != nil {
			return err
		}
		if now.Status == Deleted {
			return unknown(id)
		}
		if err := fn(tx, &now); err != nil {
			return err
		}
		now.UpdatedAt = tx.Now
		t = now
		return update(tx, &t)
	})
	return t, receipt, err
}

// Get returns a tenant that the principal belongs to or administers.
func (s *Service) Get(ctx context.Context, p *identity.Principal, id string) (t Tenant, err error) {
	if !p.Platform() && p.Tenant != id {
		return t, unknown(id)
	}
	err = s.db.View(ctx, store.Platform, func(q store.Q) error {
		t, err = get(q, id)
		return err
	})
	return t, err
}

// List returns the tenants the principal may see, after the given id.
func (s *Service) List(ctx context.Context, p *identity.Principal, after string, limit int) (ts []Tenant, err error) {
	only := p.Tenant
	if p.Platform() {
		only = ""
	}
	err = s.db.View(ctx, store.Platform, func(q store.Q) error {
		ts, err = list(q, only, after, limit)
		return err
	})
	return ts, err
}

func unknown(id string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_TENANT_NOT_FOUND", Msg: fmt.Sprintf("no tenant %q", id), Fix: "list those you can see with GET /v1/tenants"}
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // maps of numbers and lists of strings always marshal
		panic(err)
	}
	return string(b)
}
