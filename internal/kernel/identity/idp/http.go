package idp

import (
	"net/http"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// Routes is the room's HTTP surface.
func (p *Provider) Routes() []route.Route {
	const signIn = "it is how one signs in"
	const discovery = "clients read it before they can sign in"
	inTenant := route.Param{Name: "tenant", Doc: "the tenant to administer, for platform administrators; else one's own"}
	page := []route.Param{{Name: "limit", Doc: "items per page, up to 1000"}, {Name: "cursor", Doc: "next_cursor of the page before"}, inTenant}
	one := []route.Param{inTenant}
	return []route.Route{
		{Method: "POST", Path: "/v1/auth/token", Family: route.Task, Public: signIn, Summary: "Sign in, or refresh a sign-in",
			In: Request{}, Out: Tokens{}, MaxBody: maxRequest, Handle: p.postToken},
		{Method: "POST", Path: "/api/v1/auth/token", Family: route.Task, Public: signIn, Summary: "Sign in, or refresh a sign-in",
			In: Request{}, Out: Tokens{}, MaxBody: maxRequest, Handle: p.postToken},
		{Method: "GET", Path: "/.well-known/jwks.json", Family: route.OAuth, Public: discovery, Summary: "The keys that tokens are verified with", Handle: p.getKeys},
		{Method: "GET", Path: "/.well-known/openid-configuration", Family: route.OAuth, Public: discovery, Summary: "OpenID Connect discovery",
			Out: discoveryDocument{}, Handle: p.getDiscovery},
		{Method: "GET", Path: "/.well-known/oauth-authorization-server", Family: route.OAuth, Public: discovery, Summary: "Authorization server metadata (RFC 8414)",
			Out: discoveryDocument{}, Handle: p.getDiscovery},
		{Method: "GET", Path: "/v1/whoami", Family: route.Task, Verb: "identity.whoami", Summary: "Who the caller is, and what it may do", Out: whoami{}, Handle: p.getWhoami},

		{Method: "POST", Path: "/v1/users", Family: route.Interop, Verb: "identity.user.create", Summary: "Create a user", Query: one,
			In: NewUser{}, Out: User{}, Status: http.StatusCreated, Handle: p.postUser},
		{Method: "GET", Path: "/v1/users", Family: route.Interop, Verb: "identity.user.list", Summary: "List users", Query: page, Out: route.Page[User]{}, Handle: p.listUsers},
		{Method: "GET", Path: "/v1/users/{username}", Family: route.Interop, Verb: "identity.user.read", Summary: "Get a user", Query: one, Out: User{}, Handle: p.getUser},
		{Method: "PATCH", Path: "/v1/users/{username}", Family: route.Interop, Verb: "identity.user.update", Summary: "Change a user", Query: one,
			In: UserChange{}, Out: User{}, Handle: p.patchUser},
		{Method: "DELETE", Path: "/v1/users/{username}", Family: route.Interop, Verb: "identity.user.delete", Summary: "Delete a user", Query: one,
			Status: http.StatusNoContent, Handle: p.deleteUser},
		{Method: "POST", Path: "/v1/roles", Family: route.Interop, Verb: "identity.role.create", Summary: "Create a role", Query: one,
			In: newRole{}, Out: Role{}, Status: http.StatusCreated, Handle: p.postRole},
		{Method: "GET", Path: "/v1/roles", Family: route.Interop, Verb: "identity.role.list", Summary: "List roles", Query: page, Out: route.Page[Role]{}, Handle: p.listRoles},
		{Method: "POST", Path: "/v1/service-accounts", Family: route.Interop, Verb: "identity.service-account.create",
			Summary: "Create a service account; its secret is shown this once", Query: one,
			In: NewService{}, Out: CreatedService{}, Status: http.StatusCreated, Handle: p.postService},
		{Method: "GET", Path: "/v1/service-accounts", Family: route.Interop, Verb: "identity.service-account.list", Summary: "List service accounts", Query: page,
			Out: route.Page[ServiceAccount]{}, Handle: p.listServices},
		{Method: "DELETE", Path: "/v1/service-accounts/{client_id}", Family: route.Interop, Verb: "identity.service-account.delete", Summary: "Delete a service account", Query: one,
			Status: http.StatusNoContent, Handle: p.deleteService},
	}
}

func (p *Provider) postToken(c *route.Call) (any, error) {
	h := c.W.Header()
	h.Set("Cache-Control", "no-store") // RFC 6749 §5.1
	h.Set("Pragma", "no-cache")
	body, err := c.Body()
	if err != nil {
		return nil, p.refuse(c.R.Context(), &attempt{tenant: identity.SystemTenant, correlation: c.Correlation}, err)
	}
	r, err := parseRequest(c.R.Header.Get("Content-Type"), c.R.Header.Get("Authorization"), body)
	if err != nil {
		return nil, p.refuse(c.R.Context(), &attempt{tenant: identity.SystemTenant, correlation: c.Correlation}, err)
	}
	t, receipt, err := p.SignIn(c.R.Context(), r, c.Correlation)
	if err != nil {
		if r.basic && kernel.KindOf(err) == kernel.Unauthenticated {
			h.Set("WWW-Authenticate", `Basic realm="provost"`) // RFC 6749 §5.2
		}
		return nil, err
	}
	c.Receipt(receipt)
	return t, nil
}

func (p *Provider) getKeys(c *route.Call) (any, error) {
	ring, err := p.current(c.R.Context())
	if err != nil {
		return nil, err
	}
	c.W.Header().Set("Cache-Control", "public, max-age=60")
	return ring.Public(p.cfg.Now()), nil
}

// discoveryDocument is RFC 8414's metadata, as far as there is something to
// tell: what a later part adds is not in it before it works.
type discoveryDocument struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Grants        []string `json:"grant_types_supported"`
	Responses     []string `json:"response_types_supported"`
	ClientAuth    []string `json:"token_endpoint_auth_methods_supported"`
	Subjects      []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	Claims        []string `json:"claims_supported"`
}

func (p *Provider) getDiscovery(c *route.Call) (any, error) {
	c.W.Header().Set("Cache-Control", "public, max-age=60")
	return discoveryDocument{Issuer: p.cfg.Issuer, TokenEndpoint: p.cfg.Issuer + "/v1/auth/token", Keys: p.cfg.Issuer + "/.well-known/jwks.json",
		Grants: []string{grantPassword, grantRefresh, grantClient}, Responses: []string{},
		ClientAuth: []string{"client_secret_basic", "client_secret_post"}, Subjects: []string{"public"}, Algorithms: []string{"ES256"},
		Claims: []string{"iss", "sub", "tenant", "aud", "exp", "nbf", "iat", "jti", "typ", "username", "roles", "permissions", "groups", "scope", "role_id", "sid"}}, nil
}

type whoami struct {
	Principal   string     `json:"principal"` // name@tenant
	Name        string     `json:"name"`
	Tenant      string     `json:"tenant"`
	Kind        string     `json:"kind"`
	Roles       []string   `json:"roles"`
	Permissions []string   `json:"permissions"`
	Groups      []string   `json:"groups"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"` // of the token
}

func (p *Provider) getWhoami(c *route.Call) (any, error) {
	me := c.Principal
	a := c.Action("identity.whoami")
	a.Resource = policy.Resource{Type: "Account", ID: me.ID(), Attributes: policy.Record{"tenant": me.Tenant, "name": me.Name, "kind": string(me.Kind)}}
	if err := p.cfg.Gov.Check(c.R.Context(), a); err != nil {
		return nil, err
	}
	out := whoami{Principal: me.ID(), Name: me.Name, Tenant: me.Tenant, Kind: string(me.Kind),
		Roles: tidy(me.Roles), Permissions: tidy(me.Permissions), Groups: tidy(me.Groups)}
	if !me.Expires.IsZero() {
		out.ExpiresAt = &me.Expires
	}
	return out, nil
}

// administer begins an administrative action in the caller's tenant, or in the
// one that a platform administrator names.
func (p *Provider) administer(c *route.Call, verb string) (govern.Action, error) {
	a := c.Action(verb)
	tenant, err := c.Query("tenant")
	if err != nil {
		return a, err
	}
	a.Tenant = c.Principal.Tenant
	if tenant == "" || tenant == a.Tenant {
		return a, nil
	}
	if c.Principal.Platform() {
		at, err := p.logOf(c.R.Context(), tenant)
		if err != nil {
			return a, err
		}
		if at == tenant {
			a.Tenant = tenant
			return a, nil
		}
	}
	return a, &kernel.Error{Kind: kernel.NotFound, Code: "TENANT_NOT_FOUND", Field: "tenant", Msg: "no such tenant"} // foreign and unknown alike
}
