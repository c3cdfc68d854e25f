package idp

import (
	"context"
	"net/url"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// location is where something that was just made can be read.
func location(c *route.Call, a govern.Action, path string) string {
	if a.Tenant != c.Principal.Tenant {
		path += "?tenant=" + url.QueryEscape(a.Tenant)
	}
	return path
}

// create is the frame of the handlers that make something.
func create[In, Out any](p *Provider, c *route.Call, verb string, do func(context.Context, govern.Action, In) (Out, evidence.Receipt, error), path func(Out) string) (any, error) {
	if err := c.OnlyQuery("tenant"); err != nil {
		return nil, err
	}
	a, err := p.administer(c, verb)
	if err != nil {
		return nil, err
	}
	var in In
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	out, receipt, err := do(c.R.Context(), a, in)
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created(location(c, a, path(out)))
	return out, nil
}

// list is the frame of the handlers that list something of a tenant by name.
func list[T any](p *Provider, c *route.Call, verb, resource string, read func(ctx context.Context, tenant, after string, limit int) ([]T, error), name func(T) string) (any, error) {
	if err := c.OnlyQuery("limit", "cursor", "tenant"); err != nil {
		return nil, err
	}
	a, err := p.administer(c, verb)
	if err != nil {
		return nil, err
	}
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	after, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	a.Resource = policy.Resource{Type: resource, Attributes: policy.Record{"tenant": a.Tenant}}
	if err := p.cfg.Gov.Check(c.R.Context(), a); err != nil {
		return nil, err
	}
	items, err := read(c.R.Context(), a.Tenant, after, limit+1)
	if err != nil {
		return nil, err
	}
	page := route.Page[T]{Items: append([]T{}, items...)}
	if len(items) > limit {
		page.Items = page.Items[:limit]
		page.NextCursor = route.Cursor(name(items[limit-1]))
	}
	return page, nil
}

// remove is the frame of the handlers that delete something.
func remove(p *Provider, c *route.Call, verb, name string, do func(context.Context, govern.Action, string) (evidence.Receipt, error)) (any, error) {
	if err := c.OnlyQuery("tenant"); err != nil {
		return nil, err
	}
	a, err := p.administer(c, verb)
	if err != nil {
		return nil, err
	}
	receipt, err := do(c.R.Context(), a, name)
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	return nil, nil
}

func (p *Provider) postUser(c *route.Call) (any, error) {
	return create(p, c, "identity.user.create", p.CreateUser, func(u User) string { return "/v1/users/" + u.Username })
}

func (p *Provider) listUsers(c *route.Call) (any, error) {
	return list(p, c, "identity.user.list", "Account", p.ListUsers, func(u User) string { return u.Username })
}

func (p *Provider) getUser(c *route.Call) (any, error) {
	if err := c.OnlyQuery("tenant"); err != nil {
		return nil, err
	}
	a, err := p.administer(c, "identity.user.read")
	if err != nil {
		return nil, err
	}
	username := c.Path("username")
	if !accountName.MatchString(username) {
		return nil, errNoUser(username)
	}
	if err := p.cfg.Gov.Check(c.R.Context(), accountAction(a, user, username)); err != nil {
		return nil, err
	}
	return p.GetUser(c.R.Context(), a.Tenant, username)
}

func (p *Provider) patchUser(c *route.Call) (any, error) {
	if err := c.OnlyQuery("tenant"); err != nil {
		return nil, err
	}
	a, err := p.administer(c, "identity.user.update")
	if err != nil {
		return nil, err
	}
	var in UserChange
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	u, receipt, err := p.UpdateUser(c.R.Context(), a, c.Path("username"), in)
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	return u, nil
}

func (p *Provider) deleteUser(c *route.Call) (any, error) {
	return remove(p, c, "identity.user.delete", c.Path("username"), p.DeleteUser)
}

// newRole is what creating a role takes.
type newRole struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

func (p *Provider) postRole(c *route.Call) (any, error) {
	make := func(ctx context.Context, a govern.Action, in newRole) (Role, evidence.Receipt, error) {
		return p.CreateRole(ctx, a, Role{Name: in.Name, Permissions: in.Permissions})
	}
	return create(p, c, "identity.role.create", make, func(Role) string { return "/v1/roles" })
}

func (p *Provider) listRoles(c *route.Call) (any, error) {
	return list(p, c, "identity.role.list", "RoleDefinition", p.ListRoles, func(r Role) string { return r.Name })
}

func (p *Provider) postService(c *route.Call) (any, error) {
	c.W.Header().Set("Cache-Control", "no-store") // the answer holds the secret
	return create(p, c, "identity.service-account.create", p.CreateService, func(s CreatedService) string { return "/v1/service-accounts/" + s.ClientID })
}

func (p *Provider) listServices(c *route.Call) (any, error) {
	return list(p, c, "identity.service-account.list", "Account", p.ListServices, func(s ServiceAccount) string { return s.ClientID })
}

func (p *Provider) deleteService(c *route.Call) (any, error) {
	return remove(p, c, "identity.service-account.delete", c.Path("client_id"), p.DeleteService)
}
