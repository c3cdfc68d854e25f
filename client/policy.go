package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Policy is a version of a Cedar policy text. Versions never change.
type Policy struct {
	Object
	ID          string    `json:"id"`
	Version     string    `json:"version"`
	Cedar       string    `json:"cedar"`
	Scope       []string  `json:"scope"`
	Description string    `json:"description"`
	Hash        string    `json:"hash"`
	Status      string    `json:"status"` // active or deprecated
	CreatedAt   time.Time `json:"created_at"`
}

// PolicySpec is a policy version to create.
type PolicySpec struct {
	ID          string   `json:"id"`
	Version     string   `json:"version"`
	Cedar       string   `json:"cedar"`
	Scope       []string `json:"scope,omitempty"`
	Description string   `json:"description,omitempty"`
}

// PolicyTest asks what a proposed policy would have decided.
type PolicyTest struct {
	Cedar string     `json:"cedar"`
	Since *time.Time `json:"since,omitempty"` // nil is the log's beginning
	Limit int        `json:"limit,omitempty"` // how many decisions at most; 0 is the server's limit
}

// PolicyTestResult is what a replay of recorded decisions came to.
type PolicyTestResult struct {
	Object
	Evaluated int              `json:"evaluated"`
	Changed   []ChangedOutcome `json:"changed"`
}

// ChangedOutcome is a recorded decision that the proposed policy would reverse.
type ChangedOutcome struct {
	EventID   string `json:"event_id"`
	Sequence  int64  `json:"sequence"`
	Action    string `json:"action"`
	Principal string `json:"principal"`
	Resource  string `json:"resource"`
	Old       string `json:"old"` // allow or deny
	New       string `json:"new"`
	Rule      string `json:"rule"` // that decides in the proposed policy
}

// Policies is /v1/policies.
type Policies struct{ c *Client }

// Create adds a version. The text is validated against the schema first.
func (s Policies) Create(ctx context.Context, spec PolicySpec) (p Policy, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "policies"}, in: spec, out: &p})
	return p, r, err
}

// Get returns a version of a policy; version "" is the newest.
func (s Policies) Get(ctx context.Context, id, version string) (p Policy, err error) {
	path := []string{"v1", "policies", id}
	if version != "" {
		path = append(path, version)
	}
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: path, out: &p})
	return p, err
}

// List walks the tenant's and the platform's policies.
func (s Policies) List(ctx context.Context) iter.Seq2[Policy, error] {
	return list[Policy](ctx, s.c, nil, 0, "v1", "policies")
}

// Deprecate takes a version out of force.
func (s Policies) Deprecate(ctx context.Context, id, version string) (p Policy, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "policies", id, version, "deprecate"}, out: &p})
	return p, r, err
}

// Schema returns the Cedar schema that policies are validated against.
func (s Policies) Schema(ctx context.Context) (string, error) {
	b, err := s.c.bytes(ctx, call{method: http.MethodGet, path: []string{"v1", "policy-schema"}, accept: "text/plain"})
	return string(b), err
}

// Test replays recorded decisions against a proposed policy. It changes nothing.
func (s Policies) Test(ctx context.Context, t PolicyTest) (out PolicyTestResult, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "policies", "test"}, in: t, out: &out})
	return out, err
}
