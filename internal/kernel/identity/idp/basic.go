package idp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
)

// checked is a name and password that were found good, with the rights of its
// owner as of an epoch.
type checked struct {
	principal *identity.Principal
	epoch     int64
	until     time.Time
}

// basicTTL is how long a password that was found good is not checked again.
const basicTTL = time.Minute

// basicFailure says whose name came with a password that is not good.
type basicFailure struct {
	tenant, name string
	error
}

func (b *basicFailure) Unwrap() error { return b.error }

// AuthenticateBasic recognises a person or a service account by HTTP Basic, as
// container tools send it: "name@tenant" and its password or secret. A check
// that succeeded is an event, and holds for a minute or until something in the
// tenant changes; what is remembered is a keyed digest, never the password.
func (p *Provider) AuthenticateBasic(ctx context.Context, username, password, correlation string) (*identity.Principal, error) {
	a := &attempt{correlation: correlation, Request: Request{GrantType: "basic", Audience: DefaultAudience, Password: password}, sort: user}
	a.name, a.tenant = splitName(username, "")
	given := a.tenant
	view, err := p.cfg.Gov.View(ctx, a.tenant)
	if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return nil, err
	}
	digest := p.basicDigest(username, password)
	if c, ok := p.basics.get(digest); ok {
		if err == nil && c.epoch == view.Epoch && view.Status != "deleted" && p.cfg.Now().Before(c.until) {
			return c.principal, nil
		}
		p.basics.remove(digest)
	}
	principal, err := p.checkBasic(ctx, a)
	if err != nil {
		return nil, &basicFailure{a.tenant, a.name, err}
	}
	if view != nil && given == a.tenant {
		p.basics.put(digest, &checked{principal, view.Epoch, p.cfg.Now().Add(basicTTL)})
	}
	return principal, nil
}

func (p *Provider) checkBasic(ctx context.Context, a *attempt) (*identity.Principal, error) {
	// A service's secret is checked first, for that is cheap. Where it is not
	// one, a person's password is, so that all failures take the same time.
	service := &attempt{sort: service, name: a.name, tenant: a.tenant}
	if err := p.bySecret(ctx, service, a.Password); err == nil {
		a.account = service.account
	} else if kernel.KindOf(err) != kernel.Unauthenticated {
		return nil, err
	} else if err := p.byPassword(ctx, a); err != nil {
		return nil, err
	}
	principal, err := p.principal(a.account, "", "", time.Time{})
	if err != nil {
		return nil, err
	}
	action := a.action("identity.credential.accept", principal)
	action.ResourceID = a.account.resourceID()
	_, err = p.cfg.Gov.Do(ctx, action, func(tx *govern.Tx) error { return p.settle(tx, a, nil) })
	return principal, err
}

// basicDigest is what is kept of a name and password. The length in front
// keeps "ab"+"c" apart from "a"+"bc".
func (p *Provider) basicDigest(username, password string) (d [32]byte) {
	m := hmac.New(sha256.New, p.basicKey[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(username)))
	m.Write(n[:])
	m.Write([]byte(username))
	m.Write([]byte(password))
	m.Sum(d[:0])
	return d
}
