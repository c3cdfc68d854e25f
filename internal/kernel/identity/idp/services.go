package idp

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/store"
)

// ServiceAccount is a program that signs in with client credentials.
type ServiceAccount struct {
	ClientID    string    `json:"client_id"`
	RoleID      string    `json:"role_id,omitempty"` // the work role it fills, such as PLAN
	Permissions []string  `json:"permissions"`
	CreatedAt   time.Time `json:"created_at"`
}

// NewService is what creating a service account takes.
type NewService struct {
	ClientID    string   `json:"client_id"`
	RoleID      string   `json:"role_id"`
	Permissions []string `json:"permissions"`
}

// CreatedService is the one answer that holds the secret.
type CreatedService struct {
	ServiceAccount
	ClientSecret string `json:"client_secret"`
}

// roleID is the role contracts' form of a work role (mrp.md §3).
var roleID = regexp.MustCompile(`^[A-Z][A-Z0-9_-]{0,63}$`)

// minSecret is the least length of a machine's secret from configuration: what
// we keep of it withstands guessing only if it is long and random.
const minSecret = 24

// newSecret makes a machine's secret of 256 random bits. The prefix lets
// scanners that look for leaked secrets know it.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return "pvs_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// CreateService adds a service account to the action's tenant and returns its
// secret, which is not kept.
func (p *Provider) CreateService(ctx context.Context, a govern.Action, in NewService) (CreatedService, evidence.Receipt, error) {
	return p.createService(ctx, a, in, newSecret())
}

func (p *Provider) createService(ctx context.Context, a govern.Action, in NewService, secret string) (CreatedService, evidence.Receipt, error) {
	fail := func(err error) (CreatedService, evidence.Receipt, error) {
		return CreatedService{}, evidence.Receipt{}, err
	}
	if !accountName.MatchString(in.ClientID) || reserved[in.ClientID] {
		return fail(badName("client_id", in.ClientID))
	}
	if in.RoleID != "" && !roleID.MatchString(in.RoleID) {
		return fail(kernel.InvalidField("role_id", "is %q; work roles look like PLAN", clip(in.RoleID)))
	}
	permissions, err := permissionList("permissions", in.Permissions)
	if err != nil {
		return fail(err)
	}
	out := CreatedService{ServiceAccount{ClientID: in.ClientID, RoleID: in.RoleID, Permissions: permissions}, secret}
	a = accountAction(a, service, in.ClientID)
	a.Details = map[string]any{"client_id": in.ClientID, "role_id": in.RoleID, "permissions": permissions}
	receipt, err := p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		if err := mayGrant(a, permissions); err != nil {
			return err
		}
		if err := room(tx, `SELECT COUNT(*) FROM auth_service_accounts WHERE tenant = $1`, a.Tenant, "service accounts", maxServices); err != nil {
			return err
		}
		if err := freeName(tx, a.Tenant, "client_id", in.ClientID); err != nil {
			return err
		}
		out.CreatedAt = tx.Now
		hash, now := hashSecret(secret), store.Micros(tx.Now)
		_, err := tx.Exec(`INSERT INTO auth_service_accounts (tenant, client_id, secret_hash, role_id, permissions, generation, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, a.Tenant, in.ClientID, hash[:], in.RoleID, listText(permissions), newGeneration(), now)
		if err != nil {
			return fmt.Errorf("insert service account: %w", err)
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return out, receipt, nil
}

// DeleteService removes a service account from the action's tenant; its tokens
// are void at once.
func (p *Provider) DeleteService(ctx context.Context, a govern.Action, clientID string) (evidence.Receipt, error) {
	gone := &kernel.Error{Kind: kernel.NotFound, Code: "SERVICE_ACCOUNT_NOT_FOUND", Msg: fmt.Sprintf("no service account %q in this tenant", clip(clientID)),
		Fix: "list them with GET /v1/service-accounts"}
	if !accountName.MatchString(clientID) {
		return evidence.Receipt{}, gone
	}
	a = accountAction(a, service, clientID)
	a.Details = map[string]any{"client_id": clientID}
	return p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		list, err := readServices(tx, `tenant = $1 AND client_id = $2`, a.Tenant, clientID)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return gone
		}
		if err := mayGrant(a, list[0].Permissions); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM auth_service_accounts WHERE tenant = $1 AND client_id = $2`, a.Tenant, clientID); err != nil {
			return fmt.Errorf("delete service account: %w", err)
		}
		return nil
	})
}

// ListServices returns a tenant's service accounts after a client id.
func (p *Provider) ListServices(ctx context.Context, tenant, after string, limit int) (list []ServiceAccount, err error) {
	err = p.cfg.DB.View(ctx, tenant, func(q store.Q) error {
		list, err = readServices(q, `tenant = $1 AND client_id > $2 ORDER BY client_id LIMIT $3`, tenant, after, limit)
		return err
	})
	return list, err
}

func readServices(q store.Q, where string, args ...any) ([]ServiceAccount, error) {
	list, err := store.All(q, func(r *sql.Rows) (s ServiceAccount, err error) {
		var permissions string
		var created int64
		if err := r.Scan(&s.ClientID, &s.RoleID, &permissions, &created); err != nil {
			return s, err
		}
		s.CreatedAt = store.Time(created)
		return s, json.Unmarshal([]byte(permissions), &s.Permissions)
	}, `SELECT client_id, role_id, permissions, created_at FROM auth_service_accounts WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read service accounts: %w", err)
	}
	return list, nil
}

// workspaceAccount is the name of the account that a tenant's first workspace
// secret signs in.
const workspaceAccount = "workspace"

// workspacePermissions are what the task contract's clients need.
var workspacePermissions = []string{"tasks.read", "tasks.write"}

// createWorkspace keeps a workspace secret of the action's tenant.
func (p *Provider) createWorkspace(ctx context.Context, a govern.Action, name, secret string) error {
	a = accountAction(a, workspace, name)
	a.Details = map[string]any{"name": name, "permissions": workspacePermissions}
	_, err := p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		if err := freeName(tx, a.Tenant, "name", name); err != nil {
			return err
		}
		hash, now := hashSecret(secret), store.Micros(tx.Now)
		_, err := tx.Exec(`INSERT INTO auth_workspace_secrets (tenant, name, secret_hash, permissions, generation, created_at)
			VALUES ($1, $2, $3, $4, $5, $6)`, a.Tenant, name, hash[:], listText(workspacePermissions), newGeneration(), now)
		if err != nil {
			return fmt.Errorf("insert workspace secret: %w", err)
		}
		return nil
	})
	return err
}
