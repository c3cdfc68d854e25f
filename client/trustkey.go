package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// TrustKey is a public key whose signatures on images a tenant believes.
type TrustKey struct {
	Object
	Name        string    `json:"name"`
	PublicKey   string    `json:"public_key"` // PEM
	Fingerprint string    `json:"fingerprint"`
	Uses        []string  `json:"uses"` // signature, provenance, sbom
	CreatedAt   time.Time `json:"created_at"`
}

// TrustKeySpec is a key to trust.
type TrustKeySpec struct {
	Name      string   `json:"name"`
	PublicKey string   `json:"public_key"`
	Uses      []string `json:"uses,omitempty"` // empty is the server's choice
}

// TrustKeys is /v1/trust-keys.
type TrustKeys struct{ c *Client }

// Create begins to trust a key.
func (s TrustKeys) Create(ctx context.Context, spec TrustKeySpec) (k TrustKey, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "trust-keys"}, in: spec, out: &k})
	return k, r, err
}

// Get returns a key by name.
func (s TrustKeys) Get(ctx context.Context, name string) (k TrustKey, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "trust-keys", name}, out: &k})
	return k, err
}

// List walks the tenant's keys.
func (s TrustKeys) List(ctx context.Context) iter.Seq2[TrustKey, error] {
	return list[TrustKey](ctx, s.c, nil, 0, "v1", "trust-keys")
}

// Delete stops trusting a key.
func (s TrustKeys) Delete(ctx context.Context, name string) (Receipt, error) {
	return s.c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "trust-keys", name}})
}
