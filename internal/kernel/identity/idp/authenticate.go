package idp

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/token"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// verified is a token whose signature was found good, with its bearer's rights
// as of an epoch of its tenant. It is immutable.
type verified struct {
	claims    token.Claims
	key       *token.Key
	expires   time.Time
	epoch     int64
	principal *identity.Principal
}

// Authenticate returns the principal that a bearer token of our own API
// belongs to, with the rights it has now. A token that is not good is a
// kernel.Unauthenticated error; Reject makes it evidence.
func (p *Provider) Authenticate(ctx context.Context, bearer string) (*identity.Principal, error) {
	return p.AuthenticateFor(ctx, DefaultAudience, bearer)
}

// AuthenticateFor is Authenticate for tokens made for another audience.
func (p *Provider) AuthenticateFor(ctx context.Context, audience, bearer string) (*identity.Principal, error) {
	if len(bearer) > token.MaxSize {
		return nil, rejected(&token.Rejection{Reason: token.Oversized})
	}
	var room [2 << 10]byte // most tokens fit, and cost no allocation
	digest := sha256.Sum256(append(room[:0], bearer...))
	now := p.cfg.Now()
	v, hit := p.tokens.get(digest)
	if !hit {
		c, key, err := p.verify(ctx, audience, bearer, now)
		if err != nil {
			return nil, err
		}
		v = &verified{claims: c, key: key, expires: c.Expires.Time().UTC()}
	}
	if !v.claims.Audience.Contains(audience) {
		return nil, rejected(&token.Rejection{Reason: token.Audience, Claims: &v.claims})
	}
	if !now.Before(v.expires) {
		p.tokens.remove(digest)
		return nil, rejected(&token.Rejection{Reason: token.Expired, Claims: &v.claims})
	}
	current, err := p.refreshed(ctx, v, now)
	if err != nil {
		if hit && kernel.KindOf(err) == kernel.Unauthenticated {
			p.tokens.remove(digest)
		}
		return nil, err
	}
	if current != v || !hit {
		p.tokens.put(digest, current)
	}
	return current.principal, nil
}

// verify checks a token that was not seen before.
func (p *Provider) verify(ctx context.Context, audience, bearer string, now time.Time) (token.Claims, *token.Key, error) {
	ring, err := p.current(ctx)
	if err != nil {
		return token.Claims{}, nil, err
	}
	c, key, err := ring.Verify(bearer, token.Expect{Issuer: p.cfg.Issuer, Audience: audience, Type: token.Access, Now: now})
	if err != nil {
		return token.Claims{}, nil, rejected(err)
	}
	return c, key, nil
}

// refreshed returns v, or what it is since something changed that decisions in
// its tenant rest on. The epoch is read before the rights: a change in between
// makes them look older than they are, and they are read once more.
func (p *Provider) refreshed(ctx context.Context, v *verified, now time.Time) (*verified, error) {
	view, err := p.cfg.Gov.View(ctx, v.claims.Tenant)
	if err != nil && kernel.KindOf(err) == kernel.NotFound || err == nil && view.Status == "deleted" {
		return nil, rejected(&token.Rejection{Reason: "tenant_gone"})
	}
	if err != nil {
		return nil, err
	}
	ring, err := p.keys(ctx, view.PlatformEpoch)
	if err != nil {
		return nil, err
	}
	if !ring.Has(v.key, now) {
		return nil, rejected(&token.Rejection{Reason: token.UnknownKey, Claims: &v.claims})
	}
	if v.principal != nil && v.epoch == view.Epoch {
		return v, nil
	}
	a, err := p.bearer(ctx, &v.claims)
	if err != nil {
		return nil, err
	}
	next := *v
	next.epoch = view.Epoch
	next.principal, err = p.principal(a, v.claims.Scope, v.claims.ID, v.expires)
	return &next, err
}

// bearer reads the account a token speaks of, if the token is still one of its.
func (p *Provider) bearer(ctx context.Context, c *token.Claims) (a *account, err error) {
	ended := false
	err = p.cfg.DB.View(ctx, c.Tenant, func(q store.Q) error {
		if a, err = loadAccount(q, sort(c.Account), c.Tenant, c.Subject); err != nil || c.Session == "" {
			return err
		}
		_, ended, err = sessionState(q, c.Tenant, c.Session)
		if errors.Is(err, store.ErrNoRow) {
			return nil // it made room for newer ones; its last access token may run out
		}
		return err
	})
	switch {
	case errors.Is(err, errNoAccount):
		return nil, rejected(&token.Rejection{Reason: "account_gone", Claims: c})
	case err != nil:
		return nil, err
	case a.disabled:
		return nil, rejected(&token.Rejection{Reason: "account_disabled", Claims: c})
	case a.generation != c.Generation:
		return nil, rejected(&token.Rejection{Reason: "superseded", Claims: c})
	case ended:
		return nil, rejected(&token.Rejection{Reason: "session_ended", Claims: c})
	}
	return a, nil
}

// rejected is the one answer to all tokens that are not good. Why not is for
// the log and the event; of an honest client only expiry is worth telling.
func rejected(cause error) error {
	e := &kernel.Error{Kind: kernel.Unauthenticated, Code: "INVALID_TOKEN", Class: evidence.ClassAuthority, Msg: "the access token is not valid",
		Fix: "get one from POST /v1/auth/token", Err: cause}
	if r, ok := errors.AsType[*token.Rejection](cause); ok && r.Reason == token.Expired {
		e.Msg, e.Fix = "the access token has expired", "get another one from POST /v1/auth/token, with the refresh token or by signing in"
	}
	return e
}

// Reject records that a credential was not accepted at a door: err is what
// Authenticate or AuthenticateBasic returned, or that none was shown. It
// returns err with the evidence, in the log of the tenant the credential is
// known to be of, else in the platform's.
func (p *Provider) Reject(ctx context.Context, correlation string, err error) error {
	e := kernel.AsError(err)
	if e.EventID != "" || e.Kind != kernel.Unauthenticated && e.Kind != kernel.Refused {
		return err
	}
	action := govern.Action{Verb: "identity.token.reject", Principal: p.anonymous, Tenant: identity.SystemTenant, Correlation: correlation}
	reason := "missing"
	if b, ok := errors.AsType[*basicFailure](err); ok {
		reason = "basic"
		action.Tenant = b.tenant
		if accountName.MatchString(b.name) {
			action.ResourceID = resourceID(user, b.name)
		}
	} else if r, ok := errors.AsType[*token.Rejection](err); ok {
		reason = string(r.Reason)
		if r.Claims != nil {
			action.Tenant = r.Claims.Tenant
			action.ResourceID = resourceID(sort(r.Claims.Account), r.Claims.Subject)
			action.Details = map[string]any{"token_id": r.Claims.ID}
		}
	}
	if action.Details == nil {
		action.Details = map[string]any{}
	}
	action.Details["reason"] = reason
	var verr error
	if action.Tenant, verr = p.logOf(ctx, action.Tenant); verr != nil {
		return verr
	}
	action.Resource = policy.Resource{Type: "Token", Attributes: policy.Record{"tenant": action.Tenant}}
	return p.cfg.Gov.Refuse(ctx, action, err)
}
