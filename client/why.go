package client

import (
	"context"
	"net/http"
	"net/url"
)

// Reason is a node of the tree that explains why something is as it is: an
// event, rule, signature or person, and below it what that rests on.
type Reason struct {
	Object
	Title    string   `json:"title"`
	Detail   string   `json:"detail"`
	EventID  string   `json:"event_id"` // of the tenant's log; empty where there is none
	Sequence int64    `json:"sequence"`
	Outcome  string   `json:"outcome"`
	Pointer  string   `json:"pointer"`
	Rule     string   `json:"rule"`
	Children []Reason `json:"children"`
}

// Why explains a subject: "workload/<id>", an image's digest, "event/<id>" or "tenant/<id>".
func (c *Client) Why(ctx context.Context, subject string) (root Reason, err error) {
	_, err = c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "why"}, query: url.Values{"subject": {subject}}, out: &root})
	return root, err
}
