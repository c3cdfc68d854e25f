package idp

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
)

// sort is which table an account is in, and the acct claim of its tokens.
type sort string

const (
	user      sort = "user"
	service   sort = "service"
	workspace sort = "workspace"
)

// account is someone who can sign in, with their rights of the moment.
type account struct {
	sort         sort
	tenant, name string
	disabled     bool
	generation   int64
	roleID       string // the work role of a service account
	password     string // a person's, as PHC string
	secret       []byte // a machine's, as SHA-256

	roles, permissions, groups []string
}

// errNoAccount says that there is no such account, or that it has gone.
var errNoAccount = errors.New("no such account")

// resourceID names an account on events.
func (a *account) resourceID() string { return resourceID(a.sort, a.name) }

func resourceID(s sort, name string) string {
	switch s {
	case service:
		return "service-account/" + name
	case workspace:
		return "workspace-secret/" + name
	}
	return "user/" + name
}

// loadAccount reads an account with its rights, or returns errNoAccount.
func loadAccount(q store.Q, s sort, tenant, name string) (*account, error) {
	a := &account{sort: s, tenant: tenant, name: name}
	err := a.load(q)
	if errors.Is(err, store.ErrNoRow) {
		return nil, errNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	return a, nil
}

func (a *account) load(q store.Q) error {
	key := []any{a.tenant, a.name}
	switch a.sort {
	case service:
		var permissions string
		if err := q.Get(`SELECT secret_hash, role_id, permissions, generation FROM auth_service_accounts WHERE tenant = $1 AND client_id = $2`,
			key, &a.secret, &a.roleID, &permissions, &a.generation); err != nil {
			return err
		}
		return json.Unmarshal([]byte(permissions), &a.permissions)
	case workspace:
		var permissions string
		if err := q.Get(`SELECT secret_hash, permissions, generation FROM auth_workspace_secrets WHERE tenant = $1 AND name = $2`,
			key, &a.secret, &permissions, &a.generation); err != nil {
			return err
		}
		return json.Unmarshal([]byte(permissions), &a.permissions)
	case user:
		var groups string
		if err := q.Get(`SELECT password, group_names, disabled, generation FROM auth_users WHERE tenant = $1 AND username = $2`,
			key, &a.password, &groups, &a.disabled, &a.generation); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(groups), &a.groups); err != nil {
			return err
		}
		return a.loadRights(q)
	}
	return store.ErrNoRow
}

// loadRights reads a person's roles, and the permissions that these and
// direct grants add up to.
func (a *account) loadRights(q store.Q) (err error) {
	a.roles, err = store.All(q, scanText, `SELECT role FROM auth_user_roles WHERE tenant = $1 AND username = $2`, a.tenant, a.name)
	if err != nil {
		return err
	}
	a.permissions, err = store.All(q, scanText, `SELECT permission FROM auth_user_permissions WHERE tenant = $1 AND username = $2
		UNION SELECT p.permission FROM auth_user_roles r JOIN auth_role_permissions p ON p.tenant = r.tenant AND p.role = r.role
		WHERE r.tenant = $1 AND r.username = $2`, a.tenant, a.name)
	return err
}

func scanText(r *sql.Rows) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

// newGeneration marks a new life of an account. It is random, not a count or a
// time: an account that is deleted and made again must not get an old one. 53
// bits survive every JSON reader.
func newGeneration() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:]) >> 11)
}

// workspaceOf finds the workspace account that a secret opens. The secret's
// hash is what is looked up: nothing is learned from how long that takes.
func workspaceOf(q store.Q, tenant, secret string) (*account, error) {
	var name string
	hash := hashSecret(secret)
	err := q.Get(`SELECT name FROM auth_workspace_secrets WHERE tenant = $1 AND secret_hash = $2`, []any{tenant, hash[:]}, &name)
	if errors.Is(err, store.ErrNoRow) {
		return nil, errNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("read workspace secret: %w", err)
	}
	return loadAccount(q, workspace, tenant, name)
}

// hashSecret is what is kept of a machine's secret (see the package comment).
func hashSecret(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// opens reports whether secret is the machine's.
func (a *account) opens(secret string) bool {
	hash := hashSecret(secret)
	return len(a.secret) == len(hash) && subtle.ConstantTimeCompare(a.secret, hash[:]) == 1
}

// narrowed is the account's permissions within a scope; an empty scope narrows nothing.
func (a *account) narrowed(scope string) []string {
	if scope == "" {
		return a.permissions
	}
	words := strings.Fields(scope)
	out := make([]string, 0, len(words))
	for _, p := range a.permissions {
		if slices.Contains(words, p) {
			out = append(out, p)
		}
	}
	return out
}

// principal is the account as the rest of the platform sees it.
func (p *Provider) principal(a *account, scope, credential string, expires time.Time) (*identity.Principal, error) {
	kind := identity.Service
	if a.sort == user {
		kind = identity.Human
	}
	return identity.NewPrincipal(p.cfg.Schema, identity.Principal{Tenant: a.tenant, Name: a.name, Kind: kind, Roles: a.roles,
		Permissions: a.narrowed(scope), Groups: a.groups, Credential: credential, Expires: expires})
}

// standingSQL asks for what makes an account's tokens void when it changes.
var standingSQL = map[sort]string{
	user:      `SELECT generation, disabled FROM auth_users WHERE tenant = $1 AND username = $2`,
	service:   `SELECT generation, 0 FROM auth_service_accounts WHERE tenant = $1 AND client_id = $2`,
	workspace: `SELECT generation, 0 FROM auth_workspace_secrets WHERE tenant = $1 AND name = $2`,
}

// unchanged fails inside a transaction when the account is no longer the one
// that was recognised before it.
func (a *account) unchanged(q store.Q) error {
	var generation int64
	var disabled bool
	err := q.Get(standingSQL[a.sort], []any{a.tenant, a.name}, &generation, &disabled)
	if errors.Is(err, store.ErrNoRow) || err == nil && (generation != a.generation || disabled) {
		return errCredentials()
	}
	if err != nil {
		return fmt.Errorf("read account: %w", err)
	}
	return nil
}
