package tenant

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
)

const tenantColumns = `tenant, authority_owner, authority_binding, jurisdiction, ceiling, policy_owner, policy_baseline, policy_id, policy_version,
	status, owner, contact, quotas, created_at, updated_at`

func insert(q store.Q, t *Tenant) error {
	_, err := q.Exec(`INSERT INTO tenants (`+tenantColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		t.ID, t.authorityOwner, t.AuthorityBinding, t.Jurisdiction, t.Ceiling, t.policyOwner, t.PolicyBaseline, t.policyID, t.policyVersion,
		string(t.Status), t.Owner, t.Contact, jsonText(t.Quotas), store.Micros(t.CreatedAt), store.Micros(t.UpdatedAt))
	if err != nil {
		return fmt.Errorf("insert tenant: %w", err)
	}
	return nil
}

func update(q store.Q, t *Tenant) error {
	_, err := q.Exec(`UPDATE tenants SET authority_owner = $2, authority_binding = $3, jurisdiction = $4, ceiling = $5, policy_owner = $6,
		policy_baseline = $7, policy_id = $8, policy_version = $9, status = $10, owner = $11, contact = $12, quotas = $13, updated_at = $14 WHERE tenant = $1`,
		t.ID, t.authorityOwner, t.AuthorityBinding, t.Jurisdiction, t.Ceiling, t.policyOwner, t.PolicyBaseline, t.policyID, t.policyVersion,
		string(t.Status), t.Owner, t.Contact, jsonText(t.Quotas), store.Micros(t.UpdatedAt))
	if err != nil {
		return fmt.Errorf("update tenant: %w", err)
	}
	return nil
}

func get(q store.Q, id string) (t Tenant, err error) {
	ts, err := store.All(q, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE tenant = $1`, id)
	if err == nil && len(ts) == 0 {
		return t, unknown(id)
	}
	if err != nil {
		return t, fmt.Errorf("read tenant: %w", err)
	}
	return ts[0], nil
}

// list returns tenants in order of id, only the named one unless it is empty.
func list(q store.Q, only, after string, limit int) ([]Tenant, error) {
	return store.All(q, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE tenant > $1 AND ($2 = '' OR tenant = $2) AND tenant <> 'system' ORDER BY tenant LIMIT $3`,
		after, only, limit)
}

func scanTenant(r *sql.Rows) (t Tenant, err error) {
	var quotas string
	var created, updated int64
	err = r.Scan(&t.ID, &t.authorityOwner, &t.AuthorityBinding, &t.Jurisdiction, &t.Ceiling, &t.policyOwner, &t.PolicyBaseline, &t.policyID, &t.policyVersion,
		&t.Status, &t.Owner, &t.Contact, &quotas, &created, &updated)
	if err != nil {
		return t, err
	}
	t.CreatedAt, t.UpdatedAt = store.Time(created), store.Time(updated)
	return t, json.Unmarshal([]byte(quotas), &t.Quotas)
}

const authorityColumns = `tenant, id, revision, issuer, subject, scope, valid_from, valid_to, proof, created_at`

func insertAuthority(q store.Q, a *Authority) error {
	_, err := q.Exec(`INSERT INTO authorities (`+authorityColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		a.owner, a.ID, a.Revision, a.Issuer, a.Subject, jsonText(a.Scope), store.Micros(a.ValidFrom), store.Micros(a.ValidTo), a.Proof, store.Micros(a.CreatedAt))
	if err != nil {
		return fmt.Errorf("insert authority: %w", err)
	}
	return nil
}

// newestAuthority returns what an id means to a tenant: the newest revision of
// its own authority of that id, else of the platform's.
func newestAuthority(q store.Q, owners [2]string, id string) (Authority, error) {
	as, err := store.All(q, scanAuthority, `SELECT `+authorityColumns+` FROM authorities WHERE id = $1 AND tenant IN ($2, $3)
		ORDER BY CASE WHEN tenant = $2 THEN 0 ELSE 1 END, revision DESC LIMIT 1`, id, owners[0], owners[1])
	if err != nil {
		return Authority{}, fmt.Errorf("read authority: %w", err)
	}
	if len(as) == 0 {
		return Authority{}, unknownAuthority(id)
	}
	return as[0], nil
}

// visible is the part of a query that lets a tenant see its own authorities,
// and of the platform's the one it is bound to and those made out to it. What
// other tenants act under is not its business. $1 is the tenant.
const visible = `(a.tenant = $1 OR a.tenant = 'system' AND (a.subject IN ($1, 'tenant/' || $1, 'tenant:' || $1)
	OR EXISTS (SELECT 1 FROM tenants t WHERE t.tenant = $1 AND t.authority_owner = a.tenant AND t.authority_binding = a.id)))`

// listAuthorities returns the newest revision of each authority that a tenant may see.
func listAuthorities(q store.Q, tenant, after string, limit int) ([]Authority, error) {
	return store.All(q, scanAuthority, `SELECT `+authorityColumns+` FROM authorities a WHERE `+visible+` AND id > $2
		AND revision = (SELECT MAX(revision) FROM authorities b WHERE b.tenant = a.tenant AND b.id = a.id) ORDER BY id, tenant LIMIT $3`,
		tenant, after, limit)
}

// visibleAuthority returns the newest revision of an authority that a tenant may see.
func visibleAuthority(q store.Q, tenant, id string) (Authority, error) {
	as, err := store.All(q, scanAuthority, `SELECT `+authorityColumns+` FROM authorities a WHERE `+visible+` AND id = $2
		ORDER BY CASE WHEN tenant = $1 THEN 0 ELSE 1 END, revision DESC LIMIT 1`, tenant, id)
	if err != nil {
		return Authority{}, fmt.Errorf("read authority: %w", err)
	}
	if len(as) == 0 {
		return Authority{}, unknownAuthority(id)
	}
	return as[0], nil
}

func scanAuthority(r *sql.Rows) (a Authority, err error) {
	var scope string
	var from, to, created int64
	if err := r.Scan(&a.owner, &a.ID, &a.Revision, &a.Issuer, &a.Subject, &scope, &from, &to, &a.Proof, &created); err != nil {
		return a, err
	}
	a.ValidFrom, a.ValidTo, a.CreatedAt = store.Time(from), store.Time(to), store.Time(created)
	return a, json.Unmarshal([]byte(scope), &a.Scope)
}

const policyColumns = `tenant, id, version, number, cedar, scope, description, hash, status, created_at`

func insertPolicy(q store.Q, p *Policy) error {
	_, err := q.Exec(`INSERT INTO policies (`+policyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		p.owner, p.ID, p.Version, p.number, p.Cedar, jsonText(p.Scope), p.Description, p.Hash, p.Status, store.Micros(p.CreatedAt))
	if errors.Is(err, store.ErrExists) {
		return &kernel.Error{Kind: kernel.Conflict, Code: "ECS_POLICY_EXISTS", Field: "version", Msg: "this version exists, and a version never changes; give a new one"}
	}
	if err != nil {
		return fmt.Errorf("insert policy: %w", err)
	}
	return nil
}

// getPolicy returns what id (version "" is the newest) means to a tenant: its own, else the platform's.
func getPolicy(q store.Q, owners [2]string, id, version string) (Policy, error) {
	ps, err := store.All(q, scanPolicy, `SELECT `+policyColumns+` FROM policies WHERE id = $1 AND tenant IN ($2, $3) AND ($4 = '' OR version = $4)
		ORDER BY CASE WHEN tenant = $2 THEN 0 ELSE 1 END, number DESC LIMIT 1`, id, owners[0], owners[1], version)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	if len(ps) == 0 {
		return Policy{}, unknownPolicy(id, version)
	}
	return ps[0], nil
}

func listPolicies(q store.Q, owners [2]string, afterID string, afterNumber int64, limit int) ([]Policy, error) {
	return store.All(q, scanPolicy, `SELECT `+policyColumns+` FROM policies WHERE tenant IN ($1, $2) AND (id > $3 OR id = $3 AND number > $4)
		ORDER BY id, number, tenant LIMIT $5`, owners[0], owners[1], afterID, afterNumber, limit)
}

func scanPolicy(r *sql.Rows) (p Policy, err error) {
	var scope string
	var created int64
	if err := r.Scan(&p.owner, &p.ID, &p.Version, &p.number, &p.Cedar, &scope, &p.Description, &p.Hash, &p.Status, &created); err != nil {
		return p, err
	}
	p.CreatedAt = store.Time(created)
	return p, json.Unmarshal([]byte(scope), &p.Scope)
}
