package idp

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/token"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// ringAt is the signing keys as of an epoch of the platform's log. Keys change
// through verbs that move it, so replicas see a new or revoked key with their
// next request.
type ringAt struct {
	*token.Ring
	epoch int64
}

// keys returns the signing keys as of the platform epoch, or of a later one.
func (p *Provider) keys(ctx context.Context, epoch int64) (*token.Ring, error) {
	if r := p.ring.Load(); r != nil && r.epoch >= epoch {
		return r.Ring, nil
	}
	p.reload.Lock()
	defer p.reload.Unlock()
	if r := p.ring.Load(); r != nil && r.epoch >= epoch {
		return r.Ring, nil
	}
	var keys []*token.Key
	err := p.cfg.DB.View(ctx, store.Platform, func(q store.Q) (err error) {
		keys, err = store.All(q, p.scanKey, `SELECT kid, private, created_at, verifies_until FROM signing_keys`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	r := &ringAt{token.NewRing(keys...), epoch}
	p.ring.Store(r)
	return r.Ring, nil
}

func (p *Provider) scanKey(r *sql.Rows) (*token.Key, error) {
	var kid string
	var sealed []byte
	var created, until int64
	if err := r.Scan(&kid, &sealed, &created, &until); err != nil {
		return nil, err
	}
	der, err := p.cfg.Box.Open(sealPurpose(kid), sealed)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", kid, err)
	}
	k, err := token.ParseKey(der, store.Time(created), store.Time(until))
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", kid, err)
	}
	if k.ID != kid {
		return nil, fmt.Errorf("signing key %s is kept under the id %s", k.ID, kid)
	}
	return k, nil
}

func sealPurpose(kid string) string { return "signing-key/" + kid }

// current is the signing keys as of now.
func (p *Provider) current(ctx context.Context) (*token.Ring, error) {
	view, err := p.cfg.Gov.View(ctx, identity.SystemTenant)
	if err != nil {
		return nil, err
	}
	return p.keys(ctx, view.PlatformEpoch)
}

// ensureKey makes the first signing key.
func (p *Provider) ensureKey(ctx context.Context) error {
	ring, err := p.current(ctx)
	if err != nil || ring.Signs() {
		return err
	}
	_, _, err = p.RotateKey(ctx, p.system, "")
	return err
}

// RotateKey makes a new signing key. The ones before verify until the last
// token they signed has expired.
func (p *Provider) RotateKey(ctx context.Context, by *identity.Principal, correlation string) (kid string, r evidence.Receipt, err error) {
	key, err := token.NewKey(p.cfg.Now())
	if err != nil {
		return "", r, err
	}
	r, err = p.cfg.Gov.Do(ctx, keyAction("identity.key.rotate", by, key.ID, correlation), func(tx *govern.Tx) error {
		if err := tx.As(store.Platform); err != nil {
			return err
		}
		return p.replaceKeys(tx, key)
	})
	return key.ID, r, err
}

func (p *Provider) replaceKeys(tx *govern.Tx, key *token.Key) error {
	// A replica may sign with the key before until it sees this commit; a minute more covers it.
	until := tx.Now.Add(p.cfg.RefreshTTL + time.Minute)
	if _, err := tx.Exec(`UPDATE signing_keys SET verifies_until = $1 WHERE verifies_until = 0`, store.Micros(until)); err != nil {
		return fmt.Errorf("retire signing key: %w", err)
	}
	if _, err := tx.Exec(`DELETE FROM signing_keys WHERE verifies_until <> 0 AND verifies_until < $1`, store.Micros(tx.Now)); err != nil {
		return fmt.Errorf("remove old signing keys: %w", err)
	}
	der, err := key.Private()
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO signing_keys (kid, private, created_at, verifies_until) VALUES ($1, $2, $3, 0)`,
		key.ID, p.cfg.Box.Seal(sealPurpose(key.ID), der), store.Micros(tx.Now))
	if err != nil {
		return fmt.Errorf("keep signing key: %w", err)
	}
	return nil
}

// RevokeKey ends a key that may be in other hands: every token it signed is
// void at once. Where it was the one that signs, a new one takes its place.
func (p *Provider) RevokeKey(ctx context.Context, by *identity.Principal, kid, correlation string) (evidence.Receipt, error) {
	return p.cfg.Gov.Do(ctx, keyAction("identity.key.revoke", by, kid, correlation), func(tx *govern.Tx) error {
		if err := tx.As(store.Platform); err != nil {
			return err
		}
		n, err := tx.Exec(`DELETE FROM signing_keys WHERE kid = $1`, kid)
		if err != nil {
			return fmt.Errorf("revoke signing key: %w", err)
		}
		if n == 0 {
			return &kernel.Error{Kind: kernel.NotFound, Code: "KEY_NOT_FOUND", Msg: "no such signing key", Fix: "see those in use at /.well-known/jwks.json"}
		}
		var signing int64
		if err := tx.Get(`SELECT COUNT(*) FROM signing_keys WHERE verifies_until = 0`, nil, &signing); err != nil || signing > 0 {
			return err
		}
		key, err := token.NewKey(tx.Now)
		if err != nil {
			return err
		}
		tx.Detail("replaced_by", key.ID)
		return p.replaceKeys(tx, key)
	})
}

func keyAction(verb string, by *identity.Principal, kid, correlation string) govern.Action {
	return govern.Action{Verb: verb, Principal: by, Tenant: identity.SystemTenant, Correlation: correlation, ResourceID: "signing-key/" + kid,
		Resource: policy.Resource{Type: "SigningKey", ID: kid, Attributes: policy.Record{"tenant": identity.SystemTenant}},
		Details:  map[string]any{"key_id": kid}}
}
