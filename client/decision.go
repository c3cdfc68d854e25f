package client

import (
	"context"
	"net/http"
)

// Question asks policy without acting.
type Question struct {
	Principal *QuestionPrincipal `json:"principal,omitempty"` // nil is the caller
	Action    string             `json:"action"`
	Resource  QuestionResource   `json:"resource"`
	Context   map[string]any     `json:"context,omitempty"`
}

// QuestionPrincipal stands in for somebody else of the caller's tenant.
type QuestionPrincipal struct {
	Name        string   `json:"name"`
	Kind        string   `json:"kind,omitempty"` // human or service
	Roles       []string `json:"roles,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

// QuestionResource is what the action would be done to.
type QuestionResource struct {
	Type       string         `json:"type"`
	ID         string         `json:"id,omitempty"`
	Attributes map[string]any `json:"attributes,omitempty"`
}

// Decision is policy's answer.
type Decision struct {
	Object
	Decision            string   `json:"decision"` // allow or deny
	Rules               []string `json:"rules"`    // that determined it
	Reason              string   `json:"reason"`   // of a deny
	Fix                 string   `json:"fix"`      // of a deny
	PolicySnapshotID    string   `json:"policy_snapshot_id"`
	AuthoritySnapshotID string   `json:"authority_snapshot_id"`
	EvidencePointer     string   `json:"evidence_pointer"`
}

// Decisions is /v1/decisions.
type Decisions struct{ c *Client }

// Create asks. That the question was asked is evidenced, too.
func (s Decisions) Create(ctx context.Context, q Question) (d Decision, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "decisions"}, in: q, out: &d})
	return d, r, err
}
