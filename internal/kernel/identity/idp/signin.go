package idp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/token"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Tokens is the answer of the token endpoint.
type Tokens struct {
	AccessToken string    `json:"access_token"`
	ExpiresIn   int64     `json:"expires_in"` // seconds
	ExpiresAt   time.Time `json:"expires_at"`
	// A service's own credentials get no refresh token: they are at hand to sign
	// in again (RFC 6749 §4.4.3). Nor does the short token of a work role.
	RefreshToken     string `json:"refresh_token,omitempty"`
	RefreshExpiresIn int64  `json:"refresh_expires_in,omitempty"`
	TokenType        string `json:"token_type"`
	// Scope is set when it is less than was asked for (RFC 6749 §3.3).
	Scope string `json:"scope,omitempty"`
}

// attempt is a sign-in under way: who it says it is, and then who it is.
type attempt struct {
	Request
	correlation string

	tenant string // whose log it belongs in; the platform's while no tenant is known
	name   string // as it was given
	sort   sort

	account  *account
	refresh  *token.Claims // of the refresh token that was shown
	session  session
	password string // a hash at today's cost to keep instead of the account's
}

// SignIn exchanges credentials for tokens. Both ends of it are events in the
// tenant's log. For credentials that are not good the error is always the same
// kernel.Unauthenticated, whatever was wrong with them; only who knows the
// password of a disabled account is told that it is disabled.
func (p *Provider) SignIn(ctx context.Context, r Request, correlation string) (Tokens, evidence.Receipt, error) {
	a := &attempt{Request: r, correlation: correlation, tenant: identity.SystemTenant}
	err := p.recognise(ctx, a)
	var t Tokens
	var receipt evidence.Receipt
	if err == nil {
		t, receipt, err = p.issue(ctx, a)
	}
	if err == nil {
		return t, receipt, nil
	}
	if errors.Is(err, errReused) {
		if _, rerr := p.endSession(ctx, a.account, a.session.family, "refresh_token_reused", correlation); rerr != nil {
			return Tokens{}, evidence.Receipt{}, rerr
		}
	}
	return Tokens{}, evidence.Receipt{}, p.refuse(ctx, a, err)
}

// refuse records a sign-in that was turned away, where that has not happened yet.
func (p *Provider) refuse(ctx context.Context, a *attempt, err error) error {
	if e := kernel.AsError(err); e.EventID != "" || e.Kind == kernel.Internal || e.Kind == kernel.Unavailable || e.Kind == kernel.TooMany {
		return err // recorded, or not an answer to the credentials
	}
	var verr error
	if a.tenant, verr = p.logOf(ctx, a.tenant); verr != nil {
		return verr
	}
	action := a.action("identity.token.issue", p.anonymous)
	if accountName.MatchString(a.name) { // else it may be anything, a password in the wrong field included
		action.ResourceID = resourceID(a.sort, a.name)
	}
	return p.cfg.Gov.Refuse(ctx, action, err)
}

// logOf is whose log a refusal in tenant belongs in: the platform's where there
// is no such tenant, or no longer.
func (p *Provider) logOf(ctx context.Context, tenant string) (string, error) {
	view, err := p.cfg.Gov.View(ctx, tenant)
	if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return "", err
	}
	if err != nil || view.Status == "deleted" {
		return identity.SystemTenant, nil
	}
	return tenant, nil
}

func (a *attempt) action(verb string, by *identity.Principal) govern.Action {
	return govern.Action{Verb: verb, Principal: by, Tenant: a.tenant, Correlation: a.correlation,
		Resource: policy.Resource{Type: "Token", Attributes: policy.Record{"tenant": a.tenant, "grant": a.GrantType, "audience": a.Audience}},
		Details:  map[string]any{"grant_type": a.GrantType, "audience": a.Audience}}
}

// recognise finds out who it is.
func (p *Provider) recognise(ctx context.Context, a *attempt) error {
	switch a.GrantType {
	case grantPassword:
		a.sort = user
		a.name, a.tenant = splitName(a.Username, a.Tenant)
		return p.byPassword(ctx, a)
	case grantClient:
		a.sort = service
		a.name, a.tenant = splitName(a.ClientID, a.Tenant)
		return p.bySecret(ctx, a, a.ClientSecret)
	case grantWorkspace:
		a.sort, a.name, a.tenant = workspace, a.WorkspaceID, a.WorkspaceID
		return p.bySecret(ctx, a, a.WorkspaceSecret)
	case grantRefresh:
		return p.byRefreshToken(ctx, a)
	}
	return fmt.Errorf("grant %q passed validation", a.GrantType)
}

// enter reads with find in the attempt's tenant, if that is one people can
// sign in to. Otherwise the attempt belongs in the platform's log.
func (p *Provider) enter(ctx context.Context, a *attempt, find func(q store.Q) (*account, error)) error {
	known, err := p.logOf(ctx, a.tenant)
	if err != nil {
		return err
	}
	if known != a.tenant {
		a.tenant = known
		return errNoAccount
	}
	return p.cfg.DB.View(ctx, a.tenant, func(q store.Q) error {
		a.account, err = find(q)
		return err
	})
}

// byPassword does the same work for names that exist and names that do not.
func (p *Provider) byPassword(ctx context.Context, a *attempt) error {
	err := p.enter(ctx, a, func(q store.Q) (*account, error) { return loadAccount(q, user, a.tenant, a.name) })
	if err != nil && !errors.Is(err, errNoAccount) {
		return err
	}
	kept := ""
	if a.account != nil {
		kept = a.account.password
	}
	ok, stale, err := p.cfg.Passwords.Verify(ctx, kept, a.Password)
	switch {
	case err != nil:
		return err
	case !ok:
		return errCredentials()
	case a.account.disabled:
		return &kernel.Error{Kind: kernel.Refused, Code: "ACCOUNT_DISABLED", Rule: "account.disabled", Class: evidence.ClassAuthority, Msg: "this account is disabled",
			Fix: "someone with users.write in the tenant can enable it"}
	case stale:
		a.password, err = p.cfg.Passwords.Hash(ctx, a.Password)
	}
	return err
}

// bySecret recognises a machine.
func (p *Provider) bySecret(ctx context.Context, a *attempt, secret string) error {
	err := p.enter(ctx, a, func(q store.Q) (*account, error) {
		if a.sort == workspace {
			return workspaceOf(q, a.tenant, secret)
		}
		return loadAccount(q, a.sort, a.tenant, a.name)
	})
	if errors.Is(err, errNoAccount) || err == nil && !a.account.opens(secret) {
		return errCredentials()
	}
	return err
}

// byRefreshToken recognises the owner of a refresh token. Whether it is the
// session's good one shows when it is replaced.
func (p *Provider) byRefreshToken(ctx context.Context, a *attempt) error {
	ring, err := p.current(ctx)
	if err != nil {
		return err
	}
	c, _, err := ring.Verify(a.RefreshToken, token.Expect{Issuer: p.cfg.Issuer, Audience: DefaultAudience, Type: token.Refresh, Now: p.cfg.Now()})
	if r, ok := errors.AsType[*token.Rejection](err); ok && r.Claims != nil {
		a.sort, a.name, a.tenant = sort(r.Claims.Account), r.Claims.Subject, r.Claims.Tenant
	}
	if err != nil || a.Tenant != "" && a.Tenant != c.Tenant || a.Audience != DefaultAudience {
		return errGrant(err)
	}
	a.refresh, a.sort, a.name, a.tenant = &c, sort(c.Account), c.Subject, c.Tenant
	err = p.enter(ctx, a, func(q store.Q) (*account, error) {
		s, _, err := sessionState(q, a.tenant, c.Session)
		if errors.Is(err, store.ErrNoRow) {
			return nil, errNoAccount
		}
		if err != nil {
			return nil, err
		}
		a.session = s
		return loadAccount(q, a.sort, a.tenant, a.name)
	})
	if errors.Is(err, errNoAccount) || err == nil && (a.account.disabled || a.account.generation != c.Generation) {
		return errGrant(err)
	}
	return err
}

func errCredentials() error {
	return &kernel.Error{Kind: kernel.Unauthenticated, Code: "INVALID_CREDENTIALS", Class: evidence.ClassAuthority,
		Msg: "these credentials are not valid", Fix: "check the name, the tenant (or name@tenant) and the password"}
}

// issue makes the tokens, and commits that they were given.
func (p *Provider) issue(ctx context.Context, a *attempt) (Tokens, evidence.Receipt, error) {
	fail := func(err error) (Tokens, evidence.Receipt, error) { return Tokens{}, evidence.Receipt{}, err }
	now := p.cfg.Now()
	access, err := p.accessClaims(a, now)
	if err != nil {
		return fail(err)
	}
	refresh := p.refreshClaims(a, access, now)
	ring, err := p.current(ctx)
	if err != nil {
		return fail(err)
	}
	expires := access.Expires.Time().UTC()
	t := Tokens{ExpiresIn: int64(expires.Sub(now.Truncate(time.Second)).Seconds()), ExpiresAt: expires, TokenType: "Bearer"}
	if len(a.Scope) > 0 && !sameWords(a.Scope, access.Scope) {
		t.Scope = access.Scope
	}
	if t.AccessToken, err = ring.Sign(access); err != nil {
		return fail(err)
	}
	if refresh != nil {
		if t.RefreshToken, err = ring.Sign(*refresh); err != nil {
			return fail(err)
		}
		t.RefreshExpiresIn = int64(refresh.Expires.Time().Sub(now.Truncate(time.Second)).Seconds())
	}
	principal, err := p.principal(a.account, access.Scope, "", expires)
	if err != nil {
		return fail(err)
	}
	action := a.action("identity.token.issue", principal)
	action.ResourceID = a.account.resourceID()
	action.Details["token_id"], action.Details["token_expires_at"] = access.ID, expires.Format(time.RFC3339)
	if access.Scope != "" {
		action.Details["scope"] = access.Scope
	}
	if access.Session != "" {
		action.Details["session_id"] = access.Session
	}
	receipt, err := p.cfg.Gov.Do(ctx, action, func(tx *govern.Tx) error { return p.settle(tx, a, refresh) })
	if err != nil {
		return fail(err)
	}
	return t, receipt, nil
}

// settle is issue's part inside the transaction.
func (p *Provider) settle(tx *govern.Tx, a *attempt, refresh *token.Claims) error {
	if err := a.account.unchanged(tx); err != nil {
		return err
	}
	if a.password != "" {
		if _, err := tx.Exec(`UPDATE auth_users SET password = $3 WHERE tenant = $1 AND username = $2`, a.tenant, a.name, a.password); err != nil {
			return fmt.Errorf("keep password at today's cost: %w", err)
		}
	}
	switch {
	case a.refresh != nil:
		return a.session.rotate(tx, a.tenant, a.refresh.ID, refresh.ID)
	case refresh != nil:
		return a.session.begin(tx, a.account, refresh.ID)
	}
	return nil
}

// accessClaims says what the access token will say.
func (p *Provider) accessClaims(a *attempt, now time.Time) (token.Claims, error) {
	scope, err := a.scope()
	if err != nil {
		return token.Claims{}, err
	}
	ttl := p.cfg.AccessTTL
	c := token.Claims{Issuer: p.cfg.Issuer, Subject: a.account.name, Tenant: a.account.tenant, Audience: jwt.Audience{a.Audience}, ID: rand.Text(), Type: token.Access,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Username: a.account.name,
		Roles: a.account.roles, Permissions: a.account.narrowed(scope), Groups: a.account.groups, Scope: scope,
		Account: string(a.account.sort), Generation: a.account.generation}
	if a.Audience == RoleAudience {
		if a.account.sort != user && a.account.roleID == "" {
			return c, &kernel.Error{Kind: kernel.Refused, Code: "ROLE_REQUIRED", Rule: "token.role_required", Class: evidence.ClassAuthority,
				Msg: "a token for " + RoleAudience + " needs a work role, and this service account has none", Fix: "create the service account with a role_id"}
		}
		ttl, c.RoleID = min(ttl, roleTTL), a.account.roleID
		c.Scope = strings.Join(c.Permissions, " ")
	} else if a.account.sort != service {
		if a.refresh == nil {
			a.session = session{family: rand.Text(), created: now}
		}
		c.Session = a.session.family
	}
	c.Expires = jwt.NewNumericDate(now.Add(ttl))
	return c, nil
}

// refreshClaims says what the refresh token beside it will say: nil where there is none.
// It keeps the scope of the sign-in, however narrow this access token is.
func (p *Provider) refreshClaims(a *attempt, access token.Claims, now time.Time) *token.Claims {
	if access.Session == "" {
		return nil
	}
	a.session.expires = now.Add(p.cfg.RefreshTTL)
	if last := a.session.created.Add(p.cfg.SessionTTL); a.session.expires.After(last) {
		a.session.expires = last
	}
	c := token.Claims{Issuer: access.Issuer, Subject: access.Subject, Tenant: access.Tenant, Audience: access.Audience, ID: rand.Text(), Type: token.Refresh,
		IssuedAt: access.IssuedAt, NotBefore: access.NotBefore, Expires: jwt.NewNumericDate(a.session.expires), Scope: access.Scope,
		Account: access.Account, Generation: access.Generation, Session: access.Session}
	if a.refresh != nil {
		c.Scope = a.refresh.Scope
	}
	return &c
}

// scope is what of the requested scope the account holds, as the claim has it;
// empty when nothing was asked for. A scope of which nothing is left would be a
// token for nothing, or with an empty claim for everything: it is refused.
func (a *attempt) scope() (string, error) {
	before := ""
	if a.refresh != nil {
		before = a.refresh.Scope
	}
	if len(a.Scope) == 0 {
		return before, nil
	}
	held := a.account.narrowed(before)
	var out []string
	for _, word := range a.Scope {
		if slices.Contains(held, word) && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	if len(out) == 0 {
		e := scopeError("names no permission that is held").(*kernel.Error)
		e.Fix = "leave scope out for all that is held, or ask for less"
		return "", e
	}
	slices.Sort(out)
	return strings.Join(out, " "), nil
}

// sameWords reports whether the granted scope is all of what was asked for.
func sameWords(asked []string, granted string) bool {
	words := strings.Fields(granted)
	return !slices.ContainsFunc(asked, func(w string) bool { return !slices.Contains(words, w) })
}
