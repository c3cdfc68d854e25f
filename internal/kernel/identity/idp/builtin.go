package idp

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
)

// nouns are what a tenant has; each has a permission to read and one to write.
var nouns = []string{"artifacts", "authorities", "buckets", "decisions", "events", "exports", "findings", "images", "objects", "policies",
	"roles", "service-accounts", "session-profiles", "sessions", "tasks", "tenants", "trust-keys", "users", "work-items", "workloads"}

func each(verb string, of ...string) []string {
	out := make([]string, len(of))
	for i, n := range of {
		out[i] = n + "." + verb
	}
	return out
}

// tenantRoles are the roles every tenant begins with. The permissions of parts
// that a server does not have are there and do nothing.
var tenantRoles = map[string][]string{
	"operator": slices.Concat(each("read", nouns...), each("write", nouns...), []string{"work-items.approve"}),
	"developer": slices.Concat(each("read", "tenants", "workloads", "images", "trust-keys", "sessions", "session-profiles", "tasks"),
		each("write", "workloads", "images", "sessions", "tasks")),
	"auditor": slices.Concat(each("read", nouns...), each("write", "exports")),
	"viewer":  each("read", nouns...),
	"qa":      append(each("read", nouns...), "work-items.approve"),
	"product": append(each("read", nouns...), "work-items.approve"),
	"safety":  append(each("read", nouns...), "work-items.approve"),
	"nobody":  {},
}

// platformRoles are those of the platform's own tenant: its administrators
// administer tenants, and read nothing inside them.
var platformRoles = map[string][]string{
	"platform-admin": slices.Concat(
		each("read", "tenants", "authorities", "policies", "decisions", "users", "roles", "service-accounts", "events", "exports", "artifacts", "nodes", "signing-keys"),
		each("write", "tenants", "authorities", "policies", "decisions", "users", "roles", "service-accounts", "exports", "nodes", "signing-keys")),
}

func builtIn(tenant string) map[string][]string {
	if tenant == identity.SystemTenant {
		return platformRoles
	}
	return tenantRoles
}

// BuiltInRoles are the roles that a tenant begins with, and their permissions.
func BuiltInRoles(tenant string) map[string][]string { return maps.Clone(builtIn(tenant)) }

// SeedTenant gives a new tenant its built-in roles. It is part of creating the
// tenant, and leaves the transaction acting as it.
func (p *Provider) SeedTenant(tx *govern.Tx, tenant string) error {
	if err := tx.As(tenant); err != nil {
		return err
	}
	roles := builtIn(tenant)
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		if err := setRole(tx, tenant, name, true, roles[name], store.Micros(tx.Now)); err != nil {
			return err
		}
	}
	return nil
}

// setRole makes a role have exactly these permissions.
func setRole(q store.Q, tenant, name string, builtIn bool, permissions []string, now int64) error {
	flag := 0
	if builtIn {
		flag = 1
	}
	if _, err := q.Exec(`INSERT INTO auth_roles (tenant, name, built_in, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, name) DO NOTHING`,
		tenant, name, flag, now); err != nil {
		return fmt.Errorf("make role %s: %w", name, err)
	}
	if _, err := q.Exec(`DELETE FROM auth_role_permissions WHERE tenant = $1 AND role = $2`, tenant, name); err != nil {
		return fmt.Errorf("clear role %s: %w", name, err)
	}
	for _, permission := range permissions {
		if err := knowPermission(q, tenant, permission); err != nil {
			return err
		}
		if _, err := q.Exec(`INSERT INTO auth_role_permissions (tenant, role, permission) VALUES ($1, $2, $3)`, tenant, name, permission); err != nil {
			return fmt.Errorf("give role %s %s: %w", name, permission, err)
		}
	}
	return nil
}

func knowPermission(q store.Q, tenant, permission string) error {
	if _, err := q.Exec(`INSERT INTO auth_permissions (tenant, name) VALUES ($1, $2) ON CONFLICT (tenant, name) DO NOTHING`, tenant, permission); err != nil {
		return fmt.Errorf("keep permission %s: %w", permission, err)
	}
	return nil
}

// ensureRoles brings the built-in roles of every tenant to what this version
// knows: a new part comes with permissions that existing tenants need, too.
func (p *Provider) ensureRoles(ctx context.Context) error {
	have, err := p.rolesByTenant(ctx)
	if err != nil {
		return err
	}
	for _, tenant := range slices.Sorted(maps.Keys(have)) {
		at, err := p.logOf(ctx, tenant)
		if err != nil {
			return err
		}
		if at != tenant {
			continue // it was deleted
		}
		for _, name := range slices.Sorted(maps.Keys(builtIn(tenant))) {
			want := slices.Sorted(slices.Values(builtIn(tenant)[name]))
			role, ok := have[tenant][name]
			if ok && (!role.BuiltIn || slices.Equal(role.Permissions, want)) {
				continue // a role the tenant made under this name stays the tenant's
			}
			if err := p.updateBuiltIn(ctx, tenant, name, want); err != nil {
				return err
			}
		}
	}
	return nil
}

// rolesByTenant reads every role, by tenant and name, with its permissions
// sorted. The platform's tenant is always among the tenants.
func (p *Provider) rolesByTenant(ctx context.Context) (map[string]map[string]Role, error) {
	type row struct {
		tenant, role, permission string
		builtIn                  bool
	}
	var rows []row
	err := p.cfg.DB.View(ctx, store.Platform, func(q store.Q) (err error) {
		rows, err = store.All(q, func(r *sql.Rows) (o row, err error) {
			err = r.Scan(&o.tenant, &o.role, &o.builtIn, &o.permission)
			return o, err
		}, `SELECT r.tenant, r.name, r.built_in, COALESCE(p.permission, '') FROM auth_roles r
			LEFT JOIN auth_role_permissions p ON p.tenant = r.tenant AND p.role = r.name`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	have := map[string]map[string]Role{identity.SystemTenant: {}}
	for _, o := range rows {
		if have[o.tenant] == nil {
			have[o.tenant] = map[string]Role{}
		}
		role := have[o.tenant][o.role]
		role.BuiltIn = o.builtIn
		if o.permission != "" {
			role.Permissions = append(role.Permissions, o.permission)
		}
		have[o.tenant][o.role] = role
	}
	for _, roles := range have {
		for _, role := range roles {
			slices.Sort(role.Permissions)
		}
	}
	return have, nil
}

func (p *Provider) updateBuiltIn(ctx context.Context, tenant, name string, permissions []string) error {
	a := roleAction(govern.Action{Verb: "identity.role.update", Principal: p.system, Tenant: tenant}, name, permissions)
	_, err := p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		return setRole(tx, tenant, name, true, permissions, store.Micros(tx.Now))
	})
	if err != nil {
		return fmt.Errorf("bring role %s of tenant %s up to date: %w", name, tenant, err)
	}
	return nil
}

// Start makes the provider ready: the first signing key, the built-in roles.
// Done again it changes nothing.
func (p *Provider) Start(ctx context.Context) error {
	if err := p.ensureKey(ctx); err != nil {
		return fmt.Errorf("first signing key: %w", err)
	}
	return p.ensureRoles(ctx)
}
