package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Authority is a mandate: its issuer lets the subject act within a scope for a time.
type Authority struct {
	Object
	ID        string    `json:"id"`
	Revision  int64     `json:"revision"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject"`
	Scope     []string  `json:"scope"`
	ValidFrom time.Time `json:"valid_from"`
	ValidTo   time.Time `json:"valid_to"`
	Proof     string    `json:"proof"`
	CreatedAt time.Time `json:"created_at"`
}

// AuthoritySpec is an authority to create or, when the id exists, to renew.
type AuthoritySpec struct {
	ID        string    `json:"id,omitempty"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject"`
	Scope     []string  `json:"scope"`
	ValidFrom time.Time `json:"valid_from"`
	ValidTo   time.Time `json:"valid_to"`
	Proof     string    `json:"proof,omitempty"`
}

// Authorities is /v1/authorities.
type Authorities struct{ c *Client }

// Create adds or renews an authority.
func (s Authorities) Create(ctx context.Context, spec AuthoritySpec) (a Authority, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "authorities"}, in: spec, out: &a})
	return a, r, err
}

// Get returns the newest revision of an authority.
func (s Authorities) Get(ctx context.Context, id string) (a Authority, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "authorities", id}, out: &a})
	return a, err
}

// List walks the authorities that the caller's tenant can be bound to.
func (s Authorities) List(ctx context.Context) iter.Seq2[Authority, error] {
	return list[Authority](ctx, s.c, nil, 0, "v1", "authorities")
}
