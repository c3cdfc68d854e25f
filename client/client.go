// Package client is the Go client of a Provost server's API.
//
//	c, err := client.New("https://provost.example", client.Options{Token: client.StaticToken(t)})
//	w, receipt, err := c.Workloads.Create(ctx, client.WorkloadSpec{EnvelopeType: "container", ImageRef: ref})
//
// Each kind of resource is a field of [Client], with the same verbs: Create,
// Get, List, Update, Delete and the domain's own. What every call shares:
//
//   - A failure is an [*Error] with everything the server said: the rule that
//     decided, the field at fault, what would help, and where the evidence is.
//   - A call that changes something returns a [Receipt]: the event that
//     records it and the pointer to its evidence.
//   - Lists are iterators over all pages; stop ranging to stop asking.
//   - Resources keep the JSON the server sent ([Object.JSON]), so that fields
//     younger than this package are not lost.
//   - GET and HEAD are tried again when the server cannot be reached or asks for
//     patience (429, 502, 503, 504); PUT and DELETE only when the server said that
//     it did nothing, by answering 429 or 503 with Retry-After. Nothing else is.
//   - Answers have a largest size, and a call without a deadline gets one.
//
// What a server says about its evidence need not be believed: [Proof.Verify]
// checks an event against the log's signed checkpoint.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultTimeout bounds a call whose context has no deadline. Streams and
// downloads are bounded by it until the server begins to answer.
const DefaultTimeout = 30 * time.Second

// Options are what a Client needs beside the server's address. The zero value
// calls without a credential.
type Options struct {
	// Token supplies the bearer token; nil sends none.
	Token TokenSource
	// Tenant is whose people are administered; empty is the caller's own. Only a
	// platform administrator's token is good for another's.
	Tenant string
	// HTTP carries the requests; nil is a client with connection timeouts.
	// Redirects are never followed: a token is for one server.
	HTTP *http.Client
	// UserAgent names the program; empty is "provost-client".
	UserAgent string
	// Timeout is for calls without a deadline; 0 is DefaultTimeout.
	Timeout time.Duration
	// Retries is how often a call may be tried again; 0 is 3, negative is never.
	Retries int
}

// TokenSource supplies the bearer token of each request. It must be safe for
// concurrent use.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// Renewer is a TokenSource that can replace a token the server has rejected.
// After a 401 the request is sent once more with the new one.
type Renewer interface {
	TokenSource
	Renew(ctx context.Context, rejected string) (string, error)
}

// StaticToken is a token that does not change.
type StaticToken string

// Token implements TokenSource.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// Client calls one server. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	http    *http.Client
	token   TokenSource
	tenant  string
	agent   string
	timeout time.Duration
	retries int
	// pause waits d or until ctx ends; tests replace it.
	pause func(ctx context.Context, d time.Duration) error

	Tenants         Tenants
	Authorities     Authorities
	Policies        Policies
	Decisions       Decisions
	TrustKeys       TrustKeys
	Images          Images
	Workloads       Workloads
	Events          Events
	Exports         Exports
	Users           Users
	Roles           Roles
	ServiceAccounts ServiceAccounts
	Tokens          Tokens
}

// New makes a client of the server at base, such as "https://provost.example".
// A path in base is kept in front of every request's.
func New(base string, o Options) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, &Error{Code: CodeInvalid, Field: "url", Message: fmt.Sprintf("%q is not a server's address; give one such as https://provost.example", base)}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &Error{Code: CodeInvalid, Field: "url", Message: "a server's address has no user, query or fragment"}
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	c := &Client{base: u, token: o.Token, tenant: o.Tenant, agent: o.UserAgent, timeout: o.Timeout, retries: o.Retries, pause: pause}
	if c.agent == "" {
		c.agent = "provost-client"
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.retries == 0 {
		c.retries = 3
	}
	c.http = noRedirects(o.HTTP)
	c.Tenants.c, c.Authorities.c, c.Policies.c, c.Decisions.c = c, c, c, c
	c.TrustKeys.c, c.Images.c, c.Workloads.c, c.Events.c, c.Exports.c = c, c, c, c, c
	c.Users.c, c.Roles.c, c.ServiceAccounts.c, c.Tokens.c = c, c, c, c
	return c, nil
}

// URL is the server's address as given to New, without a trailing slash.
func (c *Client) URL() string { return c.base.String() }

// Tenant is the tenant given to New.
func (c *Client) Tenant() string { return c.tenant }

// noRedirects is a copy of h that hands redirects to the caller.
func noRedirects(h *http.Client) *http.Client {
	var out http.Client
	if h != nil {
		out = *h
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxIdleConnsPerHost = 16
		out.Transport = t
	}
	out.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &out
}

// Receipt is where the evidence of a change is kept.
type Receipt struct {
	EventID         string `json:"event_id,omitempty"`
	EvidencePointer string `json:"evidence_pointer,omitempty"`
	CorrelationID   string `json:"correlation_id,omitempty"`
}

func receiptOf(h http.Header) Receipt {
	return Receipt{EventID: h.Get("X-Event-ID"), EvidencePointer: h.Get("X-Evidence-Pointer"), CorrelationID: h.Get("X-Correlation-ID")}
}

// Object is embedded in every resource and keeps its JSON as the server sent it.
type Object struct{ raw json.RawMessage }

// JSON is the resource as the server sent it; nil when it was not decoded from an answer.
func (o Object) JSON() json.RawMessage { return o.raw }

func (o *Object) keep(raw json.RawMessage) { o.raw = raw }

type correlationKey struct{}

// WithCorrelation gives every request made with the returned context the
// X-Correlation-ID id, which becomes the correlation_id of its events.
func WithCorrelation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
