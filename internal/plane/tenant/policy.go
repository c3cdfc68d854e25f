package tenant

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/evidence/canon"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Policy is a version of a policy text. Versions never change (POL-01); they
// can be deprecated, which takes them out of force.
type Policy struct {
	ID          string    `json:"id"`
	Version     string    `json:"version"`
	Cedar       string    `json:"cedar,omitempty"`
	Scope       []string  `json:"scope,omitempty"`
	Description string    `json:"description,omitempty"`
	Hash        string    `json:"hash"`
	Status      string    `json:"status"`
	CreatedAt   time.Time `json:"created_at"`

	owner  string
	number int64
}

func (p *Policy) validate() error {
	switch {
	case !name.MatchString(p.ID):
		return problem("id", "ECS_INVALID_ID", "is %q; use up to 100 letters, digits, dots, hyphens and underscores", p.ID)
	case !name.MatchString(p.Version):
		return problem("version", "ECS_INVALID_REQUEST", "is %q; use up to 100 letters, digits, dots, hyphens and underscores, such as 1", p.Version)
	case p.Cedar == "":
		return problem("cedar", "ECS_INVALID_REQUEST", "is required: the Cedar text of the rules")
	case len(p.Description) > 4096:
		return problem("description", "ECS_INVALID_REQUEST", "is longer than 4096 bytes")
	case len(p.Scope) > 64:
		return problem("scope", "ECS_INVALID_REQUEST", "has more than 64 entries")
	}
	return nil
}

// setCache keeps compiled sets: the same text compiled once for all tenants.
type setCache struct {
	schema *policy.Schema
	max    int
	mu     sync.Mutex
	sets   map[string]*policy.Set // by id, version and hash
}

func (c *setCache) compile(p Policy) (*policy.Set, error) {
	id := p.ID + "@" + p.Version + " " + p.Hash
	c.mu.Lock()
	defer c.mu.Unlock()
	if set := c.sets[id]; set != nil {
		return set, nil
	}
	set, err := c.schema.Compile(p.ID, p.Version, p.Cedar)
	if err != nil {
		return nil, err
	}
	if c.sets == nil || len(c.sets) >= c.max {
		c.sets = make(map[string]*policy.Set, c.max) // starting over is rare and cheap
	}
	c.sets[id] = set
	return set, nil
}

// CreatePolicy adds a version of a policy. Its text must fit the schema.
func (s *Service) CreatePolicy(ctx context.Context, a govern.Action, p Policy) (Policy, evidence.Receipt, error) {
	if err := p.validate(); err != nil {
		return p, evidence.Receipt{}, err
	}
	if _, err := s.schema.Compile(p.ID, p.Version, p.Cedar); err != nil {
		e := *kernel.AsError(err)
		e.Field, e.Code = "cedar", "ECS_INVALID_POLICY"
		return p, evidence.Receipt{}, &e
	}
	p.owner, p.Status, p.Hash = a.Principal.Tenant, "active", evidence.Digest([]byte(p.Cedar))
	a.Resource, a.ResourceID = p.resource(), p.resourceID()
	a.Details = map[string]any{"policy_id": p.ID, "policy_version": p.Version, "policy_hash": p.Hash}
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		p.CreatedAt, p.number = tx.Now, 1
		newest, err := getPolicy(tx, [2]string{p.owner, p.owner}, p.ID, "")
		if err == nil {
			p.number = newest.number + 1
		} else if kernel.KindOf(err) != kernel.NotFound {
			return err
		}
		if _, err := tx.Artifact("policy_snapshots", "text/plain; charset=utf-8", []byte(p.Cedar)); err != nil {
			return err
		}
		return insertPolicy(tx, &p)
	})
	return p, receipt, err
}

// DeprecatePolicy takes a version out of force: tenants whose baseline it is
// refuse governed actions until they have another (POL-04).
func (s *Service) DeprecatePolicy(ctx context.Context, a govern.Action, id, version string) (Policy, evidence.Receipt, error) {
	p, err := s.GetPolicy(ctx, a.Principal, id, version)
	if err != nil {
		return p, evidence.Receipt{}, err
	}
	if p.owner != a.Principal.Tenant {
		return p, evidence.Receipt{}, &kernel.Error{Kind: kernel.Refused, Rule: "policy.foreign", Class: evidence.ClassPolicy, Msg: "this policy is the platform's; its administrators deprecate it"}
	}
	a.Resource, a.ResourceID = p.resource(), p.resourceID()
	a.Details = map[string]any{"policy_id": p.ID, "policy_version": p.Version, "policy_hash": p.Hash}
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		n, err := tx.Exec(`UPDATE policies SET status = 'deprecated' WHERE tenant = $1 AND id = $2 AND version = $3 AND status = 'active'`, p.owner, p.ID, p.Version)
		if err != nil {
			return fmt.Errorf("deprecate policy: %w", err)
		}
		if n == 0 {
			return &kernel.Error{Kind: kernel.Conflict, Code: "ECS_POLICY_DEPRECATED", Msg: "this version is deprecated already"}
		}
		p.Status = "deprecated"
		return nil
	})
	return p, receipt, err
}

// GetPolicy returns what id and version ("" is the newest) mean to the principal's tenant.
func (s *Service) GetPolicy(ctx context.Context, pr *identity.Principal, id, version string) (p Policy, err error) {
	err = s.db.View(ctx, pr.Tenant, func(q store.Q) error {
		p, err = getPolicy(q, [2]string{pr.Tenant, identity.SystemTenant}, id, version)
		return err
	})
	return p, err
}

// ListPolicies returns the tenant's and the platform's policies, after a position.
func (s *Service) ListPolicies(ctx context.Context, pr *identity.Principal, afterID string, afterNumber int64, limit int) (ps []Policy, err error) {
	err = s.db.View(ctx, pr.Tenant, func(q store.Q) error {
		ps, err = listPolicies(q, [2]string{pr.Tenant, identity.SystemTenant}, afterID, afterNumber, limit)
		return err
	})
	return ps, err
}

// Resolve compiles the policy that a request names (policy_ref), to narrow its
// own decision. Unknown and deprecated ones fail closed.
func (s *Service) Resolve(ctx context.Context, tenant, ref string) (set *policy.Set, err error) {
	id, version, _ := strings.Cut(ref, "@")
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		p, err := getPolicy(q, [2]string{tenant, identity.SystemTenant}, id, version)
		if err != nil && kernel.KindOf(err) == kernel.NotFound {
			return noPolicy("policy_missing", "there is no policy %q", ref)
		}
		if err != nil {
			return err
		}
		if p.Status != "active" {
			return noPolicy("policy_invalid", "policy %s@%s is deprecated", p.ID, p.Version)
		}
		set, err = s.sets.compile(p)
		return err
	})
	return set, err
}

func noPolicy(reason, format string, args ...any) *kernel.Error {
	return &kernel.Error{Kind: kernel.Refused, Code: "ECS_" + strings.ToUpper(reason), Rule: reason, Class: evidence.ClassPolicy, Msg: fmt.Sprintf(format, args...),
		Fix: "PATCH the tenant's policy_baseline to a version that is in force (GET /v1/policies)"}
}

func (p *Policy) resource() policy.Resource {
	return policy.Resource{Type: "Policy", ID: p.ID, Attributes: policy.Record{"tenant": p.owner, "version": p.Version}}
}

func (p *Policy) resourceID() string { return "policy/" + p.ID + "@" + p.Version }

// bindPolicy resolves t's baseline to a version: from now on that one is in force.
func (s *Service) bindPolicy(tx *govern.Tx, t *Tenant) error {
	id, version, _ := strings.Cut(t.PolicyBaseline, "@")
	p, err := getPolicy(tx, [2]string{t.ID, identity.SystemTenant}, id, version)
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		return noPolicy("policy_missing", "there is no policy %q", t.PolicyBaseline)
	}
	if err != nil {
		return err
	}
	if p.Status != "active" {
		return noPolicy("policy_invalid", "policy %s@%s is deprecated", p.ID, p.Version)
	}
	if _, err := s.sets.compile(p); err != nil {
		return noPolicy("policy_invalid", "policy %s@%s does not compile: %v", p.ID, p.Version, err)
	}
	t.policyOwner, t.policyID, t.policyVersion = p.owner, p.ID, p.Version
	return nil
}

// inForce builds what decisions in t are made by: the platform's set bounding the tenant's.
func (s *Service) inForce(q store.Q, t, platform *Tenant) (f govern.InForce, err error) {
	var parts []any
	use := func(t *Tenant) *policy.Set {
		p, err := getPolicy(q, [2]string{t.policyOwner, t.policyOwner}, t.policyID, t.policyVersion)
		if err != nil {
			f.Problem = noPolicy("policy_missing", "policy %s@%s of tenant %s cannot be read", t.policyID, t.policyVersion, t.ID)
			return nil
		}
		parts = append(parts, map[string]any{"tenant": t.ID, "policy_id": p.ID, "version": p.Version, "hash": p.Hash, "issuer": p.owner,
			"created_at": p.CreatedAt.Format(time.RFC3339Nano), "ruleset_ref": evidence.ArtifactPointer(p.Hash), "rules": p.Cedar})
		if p.Status != "active" {
			f.Problem = noPolicy("policy_invalid", "policy %s@%s, in force in tenant %s, is deprecated", p.ID, p.Version, t.ID)
			return nil
		}
		set, err := s.sets.compile(p)
		if err != nil {
			f.Problem = noPolicy("policy_invalid", "policy %s@%s does not compile", p.ID, p.Version)
			return nil
		}
		return set
	}
	f.Bound = policy.Bound{Platform: use(platform), Tenant: policy.Empty}
	if t.ID != platform.ID {
		f.Bound.Tenant = use(t)
	}
	b, err := canon.Append(nil, map[string]any{"policy_id": t.policyID, "version": t.policyVersion, "sets": parts, "schema": s.schema.Digest()})
	if err != nil {
		return f, fmt.Errorf("policy snapshot: %w", err)
	}
	f.Snapshot = append(b, '\n')
	f.Digest = evidence.Digest(f.Snapshot)
	return f, nil
}
