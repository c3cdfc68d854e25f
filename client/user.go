package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// User is a person's account in a tenant.
type User struct {
	Object
	Username    string    `json:"username"`
	Tenant      string    `json:"tenant"`
	Roles       []string  `json:"roles"`
	Permissions []string  `json:"permissions"` // beside the roles'
	Groups      []string  `json:"groups"`
	Disabled    bool      `json:"disabled"`
	CreatedAt   time.Time `json:"created_at"`
}

// UserSpec is an account to create. Without a password nobody can sign in with one.
type UserSpec struct {
	Username    string   `json:"username"`
	Password    string   `json:"password,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Groups      []string `json:"groups,omitempty"`
	Disabled    bool     `json:"disabled,omitempty"`
}

// UserPatch changes an account; nil fields stay as they are.
type UserPatch struct {
	Password    *string   `json:"password,omitempty"`
	Roles       *[]string `json:"roles,omitempty"`
	Permissions *[]string `json:"permissions,omitempty"`
	Groups      *[]string `json:"groups,omitempty"`
	Disabled    *bool     `json:"disabled,omitempty"`
}

// administered is the query of requests that administer people: the tenant
// they are about, which platform administrators choose and others confirm.
func (c *Client) administered() url.Values {
	if c.tenant == "" {
		return nil
	}
	return url.Values{"tenant": {c.tenant}}
}

// Users is /v1/users, in the tenant of Options.
type Users struct{ c *Client }

// Create makes an account.
func (s Users) Create(ctx context.Context, spec UserSpec) (u User, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "users"}, query: s.c.administered(), in: spec, out: &u})
	return u, r, err
}

// Get returns an account.
func (s Users) Get(ctx context.Context, username string) (u User, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "users", username}, query: s.c.administered(), out: &u})
	return u, err
}

// List walks the tenant's accounts.
func (s Users) List(ctx context.Context) iter.Seq2[User, error] {
	return list[User](ctx, s.c, s.c.administered(), 0, "v1", "users")
}

// Update changes what p sets.
func (s Users) Update(ctx context.Context, username string, p UserPatch) (u User, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPatch, path: []string{"v1", "users", username}, query: s.c.administered(), in: p, out: &u})
	return u, r, err
}

// Delete removes an account.
func (s Users) Delete(ctx context.Context, username string) (Receipt, error) {
	return s.c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "users", username}, query: s.c.administered()})
}

// Role is a named set of permissions.
type Role struct {
	Object
	Name        string    `json:"name"`
	Permissions []string  `json:"permissions"`
	BuiltIn     bool      `json:"built_in"`
	CreatedAt   time.Time `json:"created_at"`
}

// RoleSpec is a role to create.
type RoleSpec struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

// Roles is /v1/roles, in the tenant of Options.
type Roles struct{ c *Client }

// Create makes a role.
func (s Roles) Create(ctx context.Context, spec RoleSpec) (role Role, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "roles"}, query: s.c.administered(), in: spec, out: &role})
	return role, r, err
}

// List walks the tenant's roles.
func (s Roles) List(ctx context.Context) iter.Seq2[Role, error] {
	return list[Role](ctx, s.c, s.c.administered(), 0, "v1", "roles")
}

// ServiceAccount is a program's account in a tenant.
type ServiceAccount struct {
	Object
	ClientID    string    `json:"client_id"`
	RoleID      string    `json:"role_id"`
	Permissions []string  `json:"permissions"`
	CreatedAt   time.Time `json:"created_at"`
	// ClientSecret is in the answer of Create and nowhere else.
	ClientSecret string `json:"client_secret"`
}

// ServiceAccountSpec is a service account to create.
type ServiceAccountSpec struct {
	ClientID    string   `json:"client_id"`
	RoleID      string   `json:"role_id,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
}

// ServiceAccounts is /v1/service-accounts, in the tenant of Options.
type ServiceAccounts struct{ c *Client }

// Create makes a service account; the answer holds its secret.
func (s ServiceAccounts) Create(ctx context.Context, spec ServiceAccountSpec) (a ServiceAccount, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "service-accounts"}, query: s.c.administered(), in: spec, out: &a})
	return a, r, err
}

// List walks the tenant's service accounts.
func (s ServiceAccounts) List(ctx context.Context) iter.Seq2[ServiceAccount, error] {
	return list[ServiceAccount](ctx, s.c, s.c.administered(), 0, "v1", "service-accounts")
}

// Delete removes a service account.
func (s ServiceAccounts) Delete(ctx context.Context, clientID string) (Receipt, error) {
	return s.c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "service-accounts", clientID}, query: s.c.administered()})
}
