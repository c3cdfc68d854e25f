package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Tenant is an isolation unit.
type Tenant struct {
	Object
	ID                    string           `json:"id"`
	AuthorityBinding      string           `json:"authority_binding"`
	Jurisdiction          string           `json:"jurisdiction"` // ISO 3166
	ClassificationCeiling string           `json:"classification_ceiling"`
	PolicyBaseline        string           `json:"policy_baseline"` // "id" or "id@version"
	Status                string           `json:"status"`          // active, suspended or deleted
	Owner                 string           `json:"owner"`
	Contact               string           `json:"contact"`
	Quotas                map[string]int64 `json:"quotas"`
	CreatedAt             time.Time        `json:"created_at"`
	UpdatedAt             time.Time        `json:"updated_at"`
}

// TenantSpec is a tenant to create. All but the last three are required.
type TenantSpec struct {
	ID                    string           `json:"id"`
	AuthorityBinding      string           `json:"authority_binding"`
	Jurisdiction          string           `json:"jurisdiction"`
	ClassificationCeiling string           `json:"classification_ceiling"`
	PolicyBaseline        string           `json:"policy_baseline"`
	Owner                 string           `json:"owner,omitempty"`
	Contact               string           `json:"contact,omitempty"`
	Quotas                map[string]int64 `json:"quotas,omitempty"`
}

// TenantPatch changes a tenant; nil fields stay as they are.
type TenantPatch struct {
	AuthorityBinding      *string           `json:"authority_binding,omitempty"`
	Jurisdiction          *string           `json:"jurisdiction,omitempty"`
	ClassificationCeiling *string           `json:"classification_ceiling,omitempty"`
	PolicyBaseline        *string           `json:"policy_baseline,omitempty"`
	Status                *string           `json:"status,omitempty"` // "active" resumes a suspended tenant
	Owner                 *string           `json:"owner,omitempty"`
	Contact               *string           `json:"contact,omitempty"`
	Quotas                *map[string]int64 `json:"quotas,omitempty"`
}

// Tenants is /v1/tenants.
type Tenants struct{ c *Client }

// Create makes a tenant, active from the start.
func (s Tenants) Create(ctx context.Context, spec TenantSpec) (t Tenant, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "tenants"}, in: spec, out: &t})
	return t, r, err
}

// Get returns a tenant; a deleted one is still there.
func (s Tenants) Get(ctx context.Context, id string) (t Tenant, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "tenants", id}, out: &t})
	return t, err
}

// List walks the tenants that the caller may see.
func (s Tenants) List(ctx context.Context) iter.Seq2[Tenant, error] {
	return list[Tenant](ctx, s.c, nil, 0, "v1", "tenants")
}

// Update changes what p sets.
func (s Tenants) Update(ctx context.Context, id string, p TenantPatch) (t Tenant, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPatch, path: []string{"v1", "tenants", id}, in: p, out: &t})
	return t, r, err
}

// Suspend makes the tenant refuse writes. Update with status "active" resumes it.
func (s Tenants) Suspend(ctx context.Context, id string) (t Tenant, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "tenants", id, "suspend"}, out: &t})
	return t, r, err
}

// Resume lets a suspended tenant write again.
func (s Tenants) Resume(ctx context.Context, id string) (Tenant, Receipt, error) {
	active := "active"
	return s.Update(ctx, id, TenantPatch{Status: &active})
}

// Delete ends a tenant. Its log stays.
func (s Tenants) Delete(ctx context.Context, id string) (Receipt, error) {
	return s.c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "tenants", id}})
}
