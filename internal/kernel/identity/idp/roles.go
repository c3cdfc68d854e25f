package idp

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Limits of what a tenant and an account may have.
const (
	maxUsers       = 10_000
	maxServices    = 1_000
	maxRoles       = 256
	maxRolesOf     = 32
	maxGroupsOf    = 32
	maxPermissions = 128 // names of up to maxName bytes: an event lists them all, twice
	maxName        = 64
)

// Role is a named list of permissions.
type Role struct {
	Name        string    `json:"name"`
	Permissions []string  `json:"permissions"`
	BuiltIn     bool      `json:"built_in"`
	CreatedAt   time.Time `json:"created_at"`
}

func roleAction(a govern.Action, name string, permissions []string) govern.Action {
	a.ResourceID = "role/" + name
	a.Resource = policy.Resource{Type: "RoleDefinition", ID: name, Attributes: policy.Record{"tenant": a.Tenant, "name": name, "permissions": permissions}}
	a.Details = map[string]any{"role": name, "permissions": permissions}
	return a
}

// CreateRole adds a role to the action's tenant.
func (p *Provider) CreateRole(ctx context.Context, a govern.Action, r Role) (Role, evidence.Receipt, error) {
	if !roleName.MatchString(r.Name) {
		return r, evidence.Receipt{}, badName("name", r.Name)
	}
	var err error
	if r.Permissions, err = permissionList("permissions", r.Permissions); err != nil {
		return r, evidence.Receipt{}, err
	}
	receipt, err := p.cfg.Gov.Do(ctx, roleAction(a, r.Name, r.Permissions), func(tx *govern.Tx) error {
		if err := mayGrant(a, r.Permissions); err != nil {
			return err
		}
		if err := room(tx, `SELECT COUNT(*) FROM auth_roles WHERE tenant = $1`, a.Tenant, "roles", maxRoles); err != nil {
			return err
		}
		var there int64
		if err := tx.Get(`SELECT COUNT(*) FROM auth_roles WHERE tenant = $1 AND name = $2`, []any{a.Tenant, r.Name}, &there); err != nil || there > 0 {
			return orTaken(err, "name", "ROLE_EXISTS", "a role with this name exists")
		}
		r.CreatedAt, r.BuiltIn = tx.Now, false
		return setRole(tx, a.Tenant, r.Name, false, r.Permissions, store.Micros(tx.Now))
	})
	return r, receipt, err
}

// ListRoles returns a tenant's roles after a name.
func (p *Provider) ListRoles(ctx context.Context, tenant, after string, limit int) (roles []Role, err error) {
	err = p.cfg.DB.View(ctx, tenant, func(q store.Q) error {
		roles, err = store.All(q, func(r *sql.Rows) (role Role, err error) {
			var created int64
			err = r.Scan(&role.Name, &role.BuiltIn, &created)
			role.CreatedAt = store.Time(created)
			return role, err
		}, `SELECT name, built_in, created_at FROM auth_roles WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`, tenant, after, limit)
		for i := range roles {
			if err == nil {
				roles[i].Permissions, err = permissionsOf(q, tenant, roles[i].Name)
			}
		}
		return err
	})
	return roles, err
}

func permissionsOf(q store.Q, tenant, role string) ([]string, error) {
	list, err := store.All(q, scanText, `SELECT permission FROM auth_role_permissions WHERE tenant = $1 AND role = $2 ORDER BY permission`, tenant, role)
	if list == nil {
		list = []string{}
	}
	return list, err
}

// mayGrant keeps people from giving, or taking over, more than they have
// themselves: who may write users could otherwise make one who may do
// anything. The platform is exempt in other tenants than its own, for it brings
// their first people in.
func mayGrant(a govern.Action, permissions []string) error {
	if by := a.Principal; by.System() || by.Platform() && a.Tenant != identity.SystemTenant {
		return nil
	}
	for _, name := range permissions {
		if !a.Principal.Holds(name) {
			return &kernel.Error{Kind: kernel.Refused, Code: "GRANT_BEYOND_OWN", Rule: "identity.grant_beyond_own", Class: evidence.ClassAuthority,
				Msg: fmt.Sprintf("this gives or touches permission %s, which you do not hold", name), Fix: "ask someone who holds it"}
		}
	}
	return nil
}

// room fails when a tenant has as many rows as it may have.
func room(q store.Q, count, tenant, what string, limit int64) error {
	var n int64
	if err := q.Get(count, []any{tenant}, &n); err != nil {
		return fmt.Errorf("count %s: %w", what, err)
	}
	if n >= limit {
		return kernel.Errorf(kernel.Conflict, "LIMIT_REACHED", "the tenant has %d %s, which is as many as it may have", n, what)
	}
	return nil
}

func orTaken(err error, field, code, msg string) error {
	if err != nil {
		return err
	}
	return &kernel.Error{Kind: kernel.Conflict, Code: code, Field: field, Msg: msg}
}

func badName(field, name string) error {
	return kernel.InvalidField(field, "is %q; use 1 to 64 lower-case letters, digits, dots, hyphens and underscores, a letter or digit first", clip(name))
}

// clip keeps an error short when what it quotes is not.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// permissionList checks and sorts a list of permissions.
func permissionList(field string, list []string) ([]string, error) {
	if len(list) > maxPermissions {
		return nil, kernel.InvalidField(field, "has more than %d entries", maxPermissions)
	}
	for i, name := range list {
		if len(name) > maxName || !permissionName.MatchString(name) {
			return nil, kernel.InvalidField(fmt.Sprintf("%s[%d]", field, i), "is %q; permissions look like tasks.read, and have up to %d bytes", clip(name), maxName)
		}
	}
	return tidy(list), nil
}

// nameList checks and sorts a list of names.
func nameList(field string, list []string, limit int) ([]string, error) {
	if len(list) > limit {
		return nil, kernel.InvalidField(field, "has more than %d entries", limit)
	}
	for i, name := range list {
		if !groupName.MatchString(name) {
			return nil, badName(fmt.Sprintf("%s[%d]", field, i), name)
		}
	}
	return tidy(list), nil
}

// tidy returns a sorted copy without repetition, never nil.
func tidy(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return slices.Compact(out)
}

// rolePermissions returns what roles add up to; an unknown one is an input error.
func rolePermissions(q store.Q, tenant string, roles []string) ([]string, error) {
	var out []string
	for i, name := range roles {
		var n int64
		if err := q.Get(`SELECT COUNT(*) FROM auth_roles WHERE tenant = $1 AND name = $2`, []any{tenant, name}, &n); err != nil {
			return nil, fmt.Errorf("read role: %w", err)
		}
		if n == 0 {
			return nil, kernel.InvalidField(fmt.Sprintf("roles[%d]", i), "there is no role %q in this tenant; list them with GET /v1/roles", clip(name))
		}
		list, err := permissionsOf(q, tenant, name)
		if err != nil {
			return nil, fmt.Errorf("read role: %w", err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// freeName fails when the tenant has an account of this name, of whatever
// sort: evidence names an actor by name and tenant alone.
func freeName(q store.Q, tenant, field, name string) error {
	for s := range standingSQL {
		var generation int64
		var disabled bool
		err := q.Get(standingSQL[s], []any{tenant, name}, &generation, &disabled)
		if errors.Is(err, store.ErrNoRow) {
			continue
		}
		return orTaken(err, field, "ACCOUNT_EXISTS", "an account with this name exists in the tenant")
	}
	return nil
}
