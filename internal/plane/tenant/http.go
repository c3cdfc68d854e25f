package tenant

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// Routes is the plane's HTTP surface.
func (s *Service) Routes() []route.Route {
	pages := []route.Param{{Name: "limit", Doc: "items per page, up to 1000"}, {Name: "cursor", Doc: "next_cursor of the page before"}}
	r := []route.Route{
		{Method: "POST", Path: "/v1/tenants", Verb: "tenant.create", Summary: "Create a tenant", In: createTenant{}, Out: Tenant{}, Status: 201, Handle: s.postTenant},
		{Method: "GET", Path: "/v1/tenants", Verb: "tenant.list", Summary: "List the tenants the caller may see", Query: pages, Out: route.Page[Tenant]{}, Handle: s.listTenants},
		{Method: "GET", Path: "/v1/tenants/{id}", Verb: "tenant.read", Summary: "Get a tenant", Out: Tenant{}, Handle: s.getTenant},
		{Method: "PATCH", Path: "/v1/tenants/{id}", Verb: "tenant.update", Summary: "Change a tenant; status active resumes it", In: Change{}, Out: Tenant{}, Handle: s.patchTenant},
		{Method: "POST", Path: "/v1/tenants/{id}/suspend", Verb: "tenant.suspend", Summary: "Suspend a tenant: it refuses every change", Out: Tenant{}, Status: 202, Handle: s.suspendTenant},
		{Method: "DELETE", Path: "/v1/tenants/{id}", Verb: "tenant.delete", Summary: "Delete a tenant; its log stays", Status: 204, Handle: s.deleteTenant},
		{Method: "POST", Path: "/v1/authorities", Verb: "authority.create", Summary: "Create an authority, or renew one by its id", In: Authority{}, Out: Authority{}, Status: 201, Handle: s.postAuthority},
		{Method: "GET", Path: "/v1/authorities", Verb: "authority.list", Summary: "List authorities", Query: pages, Out: route.Page[Authority]{}, Handle: s.listAuthorities},
		{Method: "GET", Path: "/v1/authorities/{id}", Verb: "authority.read", Summary: "Get an authority", Out: Authority{}, Handle: s.getAuthority},
		{Method: "POST", Path: "/v1/policies", Verb: "policy.create", Summary: "Add a version of a policy", In: createPolicy{}, Out: Policy{}, Status: 201, Handle: s.postPolicy},
		{Method: "GET", Path: "/v1/policies", Verb: "policy.list", Summary: "List policy versions", Query: pages, Out: route.Page[Policy]{}, Handle: s.listPolicies},
		{Method: "GET", Path: "/v1/policies/{id}", Verb: "policy.read", Summary: "Get the newest version of a policy", Out: Policy{}, Handle: s.getPolicy},
		{Method: "GET", Path: "/v1/policies/{id}/{version}", Verb: "policy.read", Summary: "Get a version of a policy", Out: Policy{}, Handle: s.getPolicy},
		{Method: "POST", Path: "/v1/policies/{id}/{version}/deprecate", Verb: "policy.deprecate", Summary: "Take a version out of force", Out: Policy{}, Handle: s.deprecatePolicy},
		{Method: "GET", Path: "/v1/policy-schema", Verb: "policy.read", Summary: "The Cedar schema that policies are checked against",
			Out: route.Raw{ContentType: "text/plain; charset=utf-8"}, Handle: s.getSchema},
		{Method: "POST", Path: "/v1/decisions", Verb: "decision.create", Summary: "Ask what policy says, without acting", In: Question{}, Out: Answer{}, Handle: s.postDecision},
	}
	for i := range r {
		r[i].Family = route.Interop
	}
	return r
}

// createTenant takes the id under both names that the contracts give it (ecs.md X10).
type createTenant struct {
	ID               string           `json:"id"`
	TenantID         string           `json:"tenant_id"`
	AuthorityBinding string           `json:"authority_binding"`
	Jurisdiction     string           `json:"jurisdiction"`
	Ceiling          string           `json:"classification_ceiling"`
	PolicyBaseline   string           `json:"policy_baseline"`
	Owner            string           `json:"owner"`
	Contact          string           `json:"contact"`
	Quotas           map[string]int64 `json:"quotas"`
}

func (s *Service) postTenant(c *route.Call) (any, error) {
	var in createTenant
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	if in.ID == "" {
		in.ID = in.TenantID
	} else if in.TenantID != "" && in.TenantID != in.ID {
		return nil, problem("tenant_id", "ECS_INVALID_ID", "differs from id; give one of them")
	}
	t, receipt, err := s.Create(c.R.Context(), c.Action("tenant.create"), Tenant{ID: in.ID, AuthorityBinding: in.AuthorityBinding, Jurisdiction: in.Jurisdiction,
		Ceiling: in.Ceiling, PolicyBaseline: in.PolicyBaseline, Owner: in.Owner, Contact: in.Contact, Quotas: in.Quotas})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/tenants/" + t.ID)
	return t, nil
}

// check decides a read of the caller's own tenant's things.
func (s *Service) check(c *route.Call, verb, typ, id string) error {
	a := c.Action(verb)
	a.Resource = policy.Resource{Type: typ, ID: id, Attributes: policy.Record{"tenant": c.Principal.Tenant}}
	a.ResourceID = strings.ToLower(typ) + "/" + id
	return s.gov.Check(c.R.Context(), a)
}

func (s *Service) listTenants(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	if err := s.check(c, "tenant.list", "Tenant", ""); err != nil {
		return nil, err
	}
	return page(c, func(after string, limit int) ([]Tenant, error) {
		return s.List(c.R.Context(), c.Principal, after, limit)
	}, func(t Tenant) string { return t.ID })
}

// page reads one page of a list whose position is a string.
func page[T any](c *route.Call, read func(after string, limit int) ([]T, error), position func(T) string) (any, error) {
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	after, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	items, err := read(after, limit+1)
	if err != nil {
		return nil, err
	}
	p := route.Page[T]{Items: items}
	if len(items) > limit {
		p.Items = items[:limit]
		p.NextCursor = route.Cursor(position(items[limit-1]))
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return p, nil
}

func (s *Service) getTenant(c *route.Call) (any, error) {
	t, err := s.Get(c.R.Context(), c.Principal, c.Path("id"))
	if err != nil {
		return nil, err
	}
	a := c.Action("tenant.read")
	a.Resource, a.ResourceID = t.resource(), "tenant/"+t.ID
	return t, s.gov.Check(c.R.Context(), a)
}

func (s *Service) patchTenant(c *route.Call) (any, error) {
	var in Change
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	return s.answer(c)(s.Update(c.R.Context(), c.Action("tenant.update"), c.Path("id"), in))
}

func (s *Service) suspendTenant(c *route.Call) (any, error) {
	return s.answer(c)(s.SetStatus(c.R.Context(), c.Action("tenant.suspend"), c.Path("id"), Suspended))
}

func (s *Service) deleteTenant(c *route.Call) (any, error) {
	_, err := s.answer(c)(s.SetStatus(c.R.Context(), c.Action("tenant.delete"), c.Path("id"), Deleted))
	return nil, err
}

func (s *Service) answer(c *route.Call) func(Tenant, evidence.Receipt, error) (any, error) {
	return func(t Tenant, r evidence.Receipt, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		c.Receipt(r)
		return t, nil
	}
}

func (s *Service) postAuthority(c *route.Call) (any, error) {
	var in struct {
		ID        string    `json:"id"`
		Issuer    string    `json:"issuer"`
		Subject   string    `json:"subject"`
		Scope     []string  `json:"scope"`
		ValidFrom time.Time `json:"valid_from"`
		ValidTo   time.Time `json:"valid_to"`
		Proof     string    `json:"proof"`
	}
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	a, receipt, err := s.CreateAuthority(c.R.Context(), c.Action("authority.create"), Authority{ID: in.ID, Issuer: in.Issuer, Subject: in.Subject,
		Scope: in.Scope, ValidFrom: in.ValidFrom.UTC().Truncate(time.Microsecond), ValidTo: in.ValidTo.UTC().Truncate(time.Microsecond), Proof: in.Proof})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/authorities/" + a.ID)
	return a, nil
}

func (s *Service) listAuthorities(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	if err := s.check(c, "authority.list", "Authority", ""); err != nil {
		return nil, err
	}
	return page(c, func(after string, limit int) ([]Authority, error) {
		return s.ListAuthorities(c.R.Context(), c.Principal, after, limit)
	}, func(a Authority) string { return a.ID })
}

func (s *Service) getAuthority(c *route.Call) (any, error) {
	if err := s.check(c, "authority.read", "Authority", c.Path("id")); err != nil {
		return nil, err
	}
	return s.GetAuthority(c.R.Context(), c.Principal, c.Path("id"))
}

type createPolicy struct {
	ID          string   `json:"id"`
	Version     string   `json:"version"`
	Cedar       string   `json:"cedar"`
	Scope       []string `json:"scope"`
	Description string   `json:"description"`
}

func (s *Service) postPolicy(c *route.Call) (any, error) {
	var in createPolicy
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	p, receipt, err := s.CreatePolicy(c.R.Context(), c.Action("policy.create"), Policy{ID: in.ID, Version: in.Version, Cedar: in.Cedar, Scope: in.Scope, Description: in.Description})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/policies/" + p.ID + "/" + p.Version)
	return p, nil
}

func (s *Service) listPolicies(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	if err := s.check(c, "policy.list", "Policy", ""); err != nil {
		return nil, err
	}
	return page(c, func(after string, limit int) ([]Policy, error) {
		id, n, _ := strings.Cut(after, "\n")
		number, err := strconv.ParseInt(n, 10, 64)
		if after != "" && err != nil {
			return nil, kernel.InvalidField("cursor", "is not one that this list returned")
		}
		ps, err := s.ListPolicies(c.R.Context(), c.Principal, id, number, limit)
		for i := range ps {
			ps[i].Cedar = "" // GET the version for its text
		}
		return ps, err
	}, func(p Policy) string { return p.ID + "\n" + strconv.FormatInt(p.number, 10) })
}

func (s *Service) getPolicy(c *route.Call) (any, error) {
	if err := s.check(c, "policy.read", "Policy", c.Path("id")); err != nil {
		return nil, err
	}
	return s.GetPolicy(c.R.Context(), c.Principal, c.Path("id"), c.Path("version"))
}

func (s *Service) deprecatePolicy(c *route.Call) (any, error) {
	p, receipt, err := s.DeprecatePolicy(c.R.Context(), c.Action("policy.deprecate"), c.Path("id"), c.Path("version"))
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	return p, nil
}

func (s *Service) getSchema(c *route.Call) (any, error) {
	if err := s.check(c, "policy.read", "Policy", ""); err != nil {
		return nil, err
	}
	return route.Raw{ContentType: "text/plain; charset=utf-8", Body: []byte(s.schema.Text())}, nil
}

// Question is a decision to be asked for without acting.
type Question struct {
	Principal *QuestionPrincipal `json:"principal,omitempty"` // the caller when absent
	Action    string             `json:"action"`
	Resource  QuestionResource   `json:"resource"`
	Context   json.RawMessage    `json:"context,omitempty"`
}

// QuestionPrincipal stands in for somebody else of the tenant.
type QuestionPrincipal struct {
	Name        string   `json:"name"`
	Kind        string   `json:"kind,omitempty"` // human or service
	Roles       []string `json:"roles,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

// QuestionResource is what the action would be done to.
type QuestionResource struct {
	Type       string          `json:"type"`
	ID         string          `json:"id,omitempty"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

// Answer is what policy says.
type Answer struct {
	Decision          string   `json:"decision"` // allow or deny
	Rules             []string `json:"rules"`
	Reason            string   `json:"reason,omitempty"`
	Fix               string   `json:"fix,omitempty"`
	PolicySnapshot    string   `json:"policy_snapshot_id"`
	AuthoritySnapshot string   `json:"authority_snapshot_id"`
	EvidencePointer   string   `json:"evidence_pointer"`
}

func (s *Service) postDecision(c *route.Call) (any, error) {
	var q Question
	if err := c.Into(&q); err != nil {
		return nil, err
	}
	asked, err := s.question(c, q)
	if err != nil {
		return nil, err
	}
	ruling, err := s.gov.Decide(c.R.Context(), asked)
	if err != nil {
		return nil, err
	}
	out := Answer{Decision: "allow", Rules: []string{}, PolicySnapshot: ruling.PolicySnapshot, AuthoritySnapshot: ruling.AuthoritySnapshot}
	for _, rule := range ruling.Rules {
		out.Rules = append(out.Rules, govern.PlainRule(rule))
	}
	if r := ruling.Refusal; r != nil {
		out.Decision, out.Reason, out.Fix = "deny", r.Msg, r.Fix
	}
	receipt, err := s.recordAnswer(c.R.Context(), c.Action("decision.create"), q, out, ruling)
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	out.EvidencePointer = receipt.Pointer
	return out, nil
}

func (s *Service) recordAnswer(ctx context.Context, a govern.Action, q Question, out Answer, ruling govern.Ruling) (evidence.Receipt, error) {
	a.Resource = policy.Resource{Type: "Decision", Attributes: policy.Record{"tenant": a.Principal.Tenant, "action": q.Action}}
	rules := make([]any, len(out.Rules))
	for i, r := range out.Rules {
		rules[i] = r
	}
	if len(ruling.Input) > maxQuestion {
		return evidence.Receipt{}, kernel.Errorf(kernel.TooLarge, "", "the question has %d bytes, and is kept with its answer up to %d", len(ruling.Input), maxQuestion)
	}
	a.Details = map[string]any{"evaluated_action": q.Action, "decision": out.Decision, "rules": rules, "asked": json.RawMessage(ruling.Input)}
	a.ResourceID = "decision/" + q.Resource.Type + "/" + q.Resource.ID
	return s.gov.Do(ctx, a, func(*govern.Tx) error { return nil })
}

// maxQuestion bounds what a question adds to its event, in bytes.
const maxQuestion = 16 << 10

func (s *Service) question(c *route.Call, q Question) (govern.Action, error) {
	a := c.Action(q.Action)
	if _, ok := s.schema.Action(q.Action); !ok {
		return a, kernel.InvalidField("action", "%q is not a verb; the schema at /v1/policy-schema lists them", q.Action)
	}
	if p := q.Principal; p != nil {
		kind := identity.Human
		if p.Kind == string(identity.Service) {
			kind = identity.Service
		}
		as, err := identity.NewPrincipal(s.schema, identity.Principal{Tenant: c.Principal.Tenant, Name: p.Name, Kind: kind, Roles: p.Roles, Permissions: p.Permissions, Groups: p.Groups})
		if err != nil {
			return a, kernel.InvalidField("principal", "cannot be used: %v", err)
		}
		a.Principal = as
	}
	attrs, err := policy.ParseRecord(q.Resource.Attributes)
	if err != nil {
		return a, kernel.InvalidField("resource.attributes", "%v", err)
	}
	if attrs["tenant"] == nil {
		attrs["tenant"] = c.Principal.Tenant
	}
	if a.Context, err = policy.ParseRecord(q.Context); err != nil {
		return a, kernel.InvalidField("context", "%v", err)
	}
	a.Resource = policy.Resource{Type: q.Resource.Type, ID: q.Resource.ID, Attributes: attrs}
	a.ResourceID = strings.ToLower(q.Resource.Type) + "/" + q.Resource.ID
	if q.Resource.Type == "" {
		return a, kernel.InvalidField("resource.type", "is required, such as Workload")
	}
	return a, nil
}
