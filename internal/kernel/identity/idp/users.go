package idp

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity/password"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// User is a person, as the API shows them.
type User struct {
	Username    string    `json:"username"`
	Tenant      string    `json:"tenant"`
	Roles       []string  `json:"roles"`
	Permissions []string  `json:"permissions"` // granted directly, beside those of the roles
	Groups      []string  `json:"groups"`
	Disabled    bool      `json:"disabled"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// NewUser is what creating a user takes.
type NewUser struct {
	Username    string   `json:"username"`
	Password    string   `json:"password"` // empty: nobody can sign in until one is set
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions"`
	Groups      []string `json:"groups"`
	Disabled    bool     `json:"disabled"`
}

// UserChange is what PATCH may change; nil fields stay as they are. A new
// password, or being disabled, ends every session of the user.
type UserChange struct {
	Password    *string   `json:"password"`
	Roles       *[]string `json:"roles"`
	Permissions *[]string `json:"permissions"`
	Groups      *[]string `json:"groups"`
	Disabled    *bool     `json:"disabled"`
}

// reserved names belong to principals without an account.
var reserved = map[string]bool{"anonymous": true, "system": true}

func accountAction(a govern.Action, s sort, name string) govern.Action {
	a.ResourceID = resourceID(s, name)
	a.Resource = policy.Resource{Type: "Account", ID: name + "@" + a.Tenant, Attributes: policy.Record{"tenant": a.Tenant, "name": name, "kind": string(s)}}
	return a
}

func (u *User) details() map[string]any {
	return map[string]any{"username": u.Username, "roles": u.Roles, "permissions": u.Permissions, "groups": u.Groups, "disabled": u.Disabled}
}

// setRights checks and takes over lists of rights.
func (u *User) setRights(roles, permissions, groups *[]string) (err error) {
	if roles != nil {
		if u.Roles, err = nameList("roles", *roles, maxRolesOf); err != nil {
			return err
		}
	}
	if permissions != nil {
		if u.Permissions, err = permissionList("permissions", *permissions); err != nil {
			return err
		}
	}
	if groups != nil {
		u.Groups, err = nameList("groups", *groups, maxGroupsOf)
	}
	return err
}

// CreateUser adds a person to the action's tenant.
func (p *Provider) CreateUser(ctx context.Context, a govern.Action, in NewUser) (User, evidence.Receipt, error) {
	u := User{Username: in.Username, Tenant: a.Tenant, Disabled: in.Disabled}
	fail := func(err error) (User, evidence.Receipt, error) { return User{}, evidence.Receipt{}, err }
	if !accountName.MatchString(u.Username) || reserved[u.Username] {
		return fail(badName("username", u.Username))
	}
	if err := u.setRights(&in.Roles, &in.Permissions, &in.Groups); err != nil {
		return fail(err)
	}
	a = accountAction(a, user, u.Username)
	a.Details = u.details()
	hash, err := p.hashFor(ctx, a, in.Password)
	if err != nil {
		return fail(err)
	}
	receipt, err := p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		if err := room(tx, `SELECT COUNT(*) FROM auth_users WHERE tenant = $1`, a.Tenant, "users", maxUsers); err != nil {
			return err
		}
		if err := freeName(tx, a.Tenant, "username", u.Username); err != nil {
			return err
		}
		u.CreatedAt, u.UpdatedAt = tx.Now, tx.Now
		now := store.Micros(tx.Now)
		_, err := tx.Exec(`INSERT INTO auth_users (tenant, username, password, group_names, disabled, generation, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, a.Tenant, u.Username, hash, listText(u.Groups), flag(u.Disabled), newGeneration(), now, now)
		if err != nil {
			return fmt.Errorf("insert user: %w", err)
		}
		return u.assign(tx, a)
	})
	if err != nil {
		return fail(err)
	}
	return u, receipt, nil
}

// hashFor hashes a new password, unless the action will be refused: those who
// may not set passwords do not get to keep the server busy with them.
func (p *Provider) hashFor(ctx context.Context, a govern.Action, plain string) (string, error) {
	if plain == "" {
		return "", nil
	}
	if err := password.Check("password", plain); err != nil {
		return "", err
	}
	ruling, err := p.cfg.Gov.Decide(ctx, a)
	if err != nil || ruling.Refusal != nil {
		return "", err
	}
	return p.cfg.Passwords.Hash(ctx, plain)
}

// assign makes the user's roles and direct permissions those of u, if the
// action's principal may give them.
func (u *User) assign(tx *govern.Tx, a govern.Action) error {
	granted, err := rolePermissions(tx, u.Tenant, u.Roles)
	if err != nil {
		return err
	}
	if err := mayGrant(a, append(granted, u.Permissions...)); err != nil {
		return err
	}
	for _, query := range []string{`DELETE FROM auth_user_roles WHERE tenant = $1 AND username = $2`, `DELETE FROM auth_user_permissions WHERE tenant = $1 AND username = $2`} {
		if _, err := tx.Exec(query, u.Tenant, u.Username); err != nil {
			return fmt.Errorf("clear rights: %w", err)
		}
	}
	for _, role := range u.Roles {
		if _, err := tx.Exec(`INSERT INTO auth_user_roles (tenant, username, role) VALUES ($1, $2, $3)`, u.Tenant, u.Username, role); err != nil {
			return fmt.Errorf("give role: %w", err)
		}
	}
	for _, permission := range u.Permissions {
		if err := knowPermission(tx, u.Tenant, permission); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO auth_user_permissions (tenant, username, permission) VALUES ($1, $2, $3)`, u.Tenant, u.Username, permission); err != nil {
			return fmt.Errorf("give permission: %w", err)
		}
	}
	return nil
}

// UpdateUser changes a person of the action's tenant.
func (p *Provider) UpdateUser(ctx context.Context, a govern.Action, username string, c UserChange) (User, evidence.Receipt, error) {
	fail := func(err error) (User, evidence.Receipt, error) { return User{}, evidence.Receipt{}, err }
	if !accountName.MatchString(username) {
		return fail(errNoUser(username)) // and not a resource to put on an event
	}
	if c == (UserChange{}) {
		return fail(kernel.InvalidField("body", "changes nothing; give at least one field"))
	}
	if own := a.Principal.Tenant == a.Tenant && a.Principal.Name == username; own && (c.Roles != nil || c.Permissions != nil || c.Groups != nil || c.Disabled != nil) {
		return fail(errSelf())
	}
	var next User // for its checks
	if err := next.setRights(c.Roles, c.Permissions, c.Groups); err != nil {
		return fail(err)
	}
	a = accountAction(a, user, username)
	a.Details = map[string]any{"username": username}
	hash, err := "", error(nil)
	if c.Password != nil {
		if *c.Password == "" {
			return fail(kernel.InvalidField("password", "is empty; leave it out to keep the password"))
		}
		if hash, err = p.hashFor(ctx, a, *c.Password); err != nil {
			return fail(err)
		}
	}
	receipt, err := p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		u, err := touchable(tx, a, username)
		if err != nil {
			return err
		}
		ends := c.Password != nil || c.Disabled != nil && *c.Disabled && !u.Disabled
		if c.Disabled != nil {
			u.Disabled = *c.Disabled
		}
		if err := u.setRights(c.Roles, c.Permissions, c.Groups); err != nil {
			return err
		}
		u.UpdatedAt = tx.Now
		for k, v := range u.details() {
			tx.Detail(k, v)
		}
		tx.Detail("password_changed", c.Password != nil)
		next = u
		return storeUser(tx, &u, a, hash, ends)
	})
	if err != nil {
		return fail(err)
	}
	return next, receipt, nil
}

// storeUser writes a changed user. ends says that the sessions and tokens given so far are void.
func storeUser(tx *govern.Tx, u *User, a govern.Action, hash string, ends bool) error {
	_, err := tx.Exec(`UPDATE auth_users SET group_names = $3, disabled = $4, updated_at = $5,
		password = CASE WHEN $6 = '' THEN password ELSE $6 END, generation = CASE WHEN $7 = 0 THEN generation ELSE $8 END
		WHERE tenant = $1 AND username = $2`,
		u.Tenant, u.Username, listText(u.Groups), flag(u.Disabled), store.Micros(tx.Now), hash, flag(ends), newGeneration())
	if err != nil {
		return fmt.Errorf("update user: %w", err)
	}
	if ends {
		if err := dropSessions(tx, user, u.Tenant, u.Username); err != nil {
			return err
		}
	}
	return u.assign(tx, a)
}

// DeleteUser removes a person, with their sessions, from the action's tenant.
func (p *Provider) DeleteUser(ctx context.Context, a govern.Action, username string) (evidence.Receipt, error) {
	if !accountName.MatchString(username) {
		return evidence.Receipt{}, errNoUser(username)
	}
	if a.Principal.Tenant == a.Tenant && a.Principal.Name == username {
		return evidence.Receipt{}, errSelf()
	}
	a = accountAction(a, user, username)
	a.Details = map[string]any{"username": username}
	return p.cfg.Gov.Do(ctx, a, func(tx *govern.Tx) error {
		if _, err := touchable(tx, a, username); err != nil {
			return err
		}
		if err := dropSessions(tx, user, a.Tenant, username); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM auth_users WHERE tenant = $1 AND username = $2`, a.Tenant, username); err != nil {
			return fmt.Errorf("delete user: %w", err)
		}
		return nil
	})
}

// touchable reads a user that the principal may change: one who can do no more
// than the principal can. Setting someone's password is becoming them.
func touchable(q store.Q, a govern.Action, username string) (User, error) {
	u, err := getUser(q, a.Tenant, username)
	if err != nil {
		return u, err
	}
	granted, err := rolePermissions(q, a.Tenant, u.Roles)
	if err != nil {
		return u, err
	}
	return u, mayGrant(a, append(granted, u.Permissions...))
}

func errSelf() error {
	return &kernel.Error{Kind: kernel.Conflict, Code: "OWN_ACCOUNT", Msg: "nobody deletes or disables their own account or changes its rights",
		Fix: "ask someone else with users.write"}
}

// GetUser returns a person of a tenant.
func (p *Provider) GetUser(ctx context.Context, tenant, username string) (u User, err error) {
	err = p.cfg.DB.View(ctx, tenant, func(q store.Q) error {
		u, err = getUser(q, tenant, username)
		return err
	})
	return u, err
}

func getUser(q store.Q, tenant, username string) (User, error) {
	list, err := readUsers(q, `tenant = $1 AND username = $2`, tenant, username)
	if err != nil {
		return User{}, err
	}
	if len(list) == 0 {
		return User{}, errNoUser(username)
	}
	return list[0], nil
}

func errNoUser(username string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "USER_NOT_FOUND", Msg: fmt.Sprintf("no user %q in this tenant", clip(username)), Fix: "list them with GET /v1/users"}
}

// ListUsers returns a tenant's people after a name.
func (p *Provider) ListUsers(ctx context.Context, tenant, after string, limit int) (list []User, err error) {
	err = p.cfg.DB.View(ctx, tenant, func(q store.Q) error {
		list, err = readUsers(q, `tenant = $1 AND username > $2 ORDER BY username LIMIT $3`, tenant, after, limit)
		return err
	})
	return list, err
}

// readUsers reads users with their roles and direct permissions.
func readUsers(q store.Q, where string, args ...any) ([]User, error) {
	list, err := store.All(q, func(r *sql.Rows) (u User, err error) {
		var groups string
		var created, updated int64
		if err := r.Scan(&u.Tenant, &u.Username, &groups, &u.Disabled, &created, &updated); err != nil {
			return u, err
		}
		u.CreatedAt, u.UpdatedAt = store.Time(created), store.Time(updated)
		return u, json.Unmarshal([]byte(groups), &u.Groups)
	}, `SELECT tenant, username, group_names, disabled, created_at, updated_at FROM auth_users WHERE `+where, args...)
	for i := range list {
		u := &list[i]
		for _, part := range []struct {
			dst   *[]string
			query string
		}{{&u.Roles, `SELECT role FROM auth_user_roles WHERE tenant = $1 AND username = $2 ORDER BY role`},
			{&u.Permissions, `SELECT permission FROM auth_user_permissions WHERE tenant = $1 AND username = $2 ORDER BY permission`}} {
			names, nerr := store.All(q, scanText, part.query, u.Tenant, u.Username)
			err = errors.Join(err, nerr)
			*part.dst = tidy(names)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return list, nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// listText is a list as the database keeps it.
func listText(list []string) string {
	b, err := json.Marshal(tidy(list))
	if err != nil { // lists of strings always marshal
		panic(err)
	}
	return string(b)
}
