package idp

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// session is one sign-in and the refresh tokens that came of it, of which one
// at a time is good.
type session struct {
	family  string
	created time.Time
	expires time.Time
}

// maxSessions bounds the sessions of one account: the oldest end when it signs
// in more often than that.
const maxSessions = 256

// errReused says that a refresh token came back which another has replaced.
var errReused = errors.New("refresh token was used before")

func hashTokenID(jti string) []byte { h := sha256.Sum256([]byte(jti)); return h[:] }

// begin keeps a new session whose good refresh token has the id jti. It also
// clears away what ended in this tenant, so that the table stays as small as
// what is in use.
func (s session) begin(tx *govern.Tx, a *account, jti string) error {
	now := store.Micros(tx.Now)
	for _, step := range []struct {
		what, query string
		args        []any
	}{
		{"clear ended sessions", `DELETE FROM auth_refresh_tokens WHERE family IN
			(SELECT family FROM auth_refresh_tokens WHERE tenant = $1 AND expires_at <= $2 ORDER BY expires_at LIMIT 64)`, []any{a.tenant, now}},
		{"end the oldest sessions", `DELETE FROM auth_refresh_tokens WHERE family IN
			(SELECT family FROM auth_refresh_tokens WHERE tenant = $1 AND name = $2 ORDER BY created_at DESC, family LIMIT 64 OFFSET $3)`, []any{a.tenant, a.name, maxSessions - 1}},
		{"keep session", `INSERT INTO auth_refresh_tokens (family, tenant, account, name, token_hash, rotations, created_at, used_at, expires_at, revoked_at, revoked_for)
			VALUES ($1, $2, $3, $4, $5, 0, $6, 0, $7, 0, '')`, []any{s.family, a.tenant, string(a.sort), a.name, hashTokenID(jti), now, store.Micros(s.expires)}},
	} {
		if _, err := tx.Exec(step.query, step.args...); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// rotate replaces the good refresh token. The update is the claim: of two who
// come with the same token one finds it good.
func (s session) rotate(tx *govern.Tx, tenant, oldID, newID string) error {
	n, err := tx.Exec(`UPDATE auth_refresh_tokens SET token_hash = $4, rotations = rotations + 1, used_at = $5, expires_at = $6
		WHERE tenant = $1 AND family = $2 AND token_hash = $3 AND revoked_at = 0 AND expires_at > $5`,
		tenant, s.family, hashTokenID(oldID), hashTokenID(newID), store.Micros(tx.Now), store.Micros(s.expires))
	if err != nil {
		return fmt.Errorf("rotate refresh token: %w", err)
	}
	if n == 1 {
		return nil
	}
	var good []byte
	var expires, revoked int64
	err = tx.Get(`SELECT token_hash, expires_at, revoked_at FROM auth_refresh_tokens WHERE tenant = $1 AND family = $2`,
		[]any{tenant, s.family}, &good, &expires, &revoked)
	if err != nil && !errors.Is(err, store.ErrNoRow) {
		return fmt.Errorf("read session: %w", err)
	}
	if err == nil && revoked == 0 && subtle.ConstantTimeCompare(good, hashTokenID(oldID)) == 0 {
		return errGrant(errReused)
	}
	return errGrant(nil)
}

// sessionState reads a session for a refresh, or to see whether the access
// tokens of it are still good.
func sessionState(q store.Q, tenant, family string) (s session, ended bool, err error) {
	var created, revoked int64
	s.family = family
	err = q.Get(`SELECT created_at, revoked_at FROM auth_refresh_tokens WHERE tenant = $1 AND family = $2`, []any{tenant, family}, &created, &revoked)
	s.created = store.Time(created)
	return s, revoked != 0, err
}

// endSession revokes a session with every token of it, on the platform's own account.
func (p *Provider) endSession(ctx context.Context, a *account, family, why, correlation string) (evidence.Receipt, error) {
	action := govern.Action{Verb: "identity.session.revoke", Principal: p.system, Tenant: a.tenant, Correlation: correlation, ResourceID: "session/" + family,
		Resource: policy.Resource{Type: "Token", ID: family, Attributes: policy.Record{"tenant": a.tenant, "grant": "refresh_token", "audience": DefaultAudience}},
		Details:  map[string]any{"session_id": family, "account": a.resourceID(), "reason": why}}
	return p.cfg.Gov.Do(ctx, action, func(tx *govern.Tx) error {
		_, err := tx.Exec(`UPDATE auth_refresh_tokens SET revoked_at = $3, revoked_for = $4 WHERE tenant = $1 AND family = $2 AND revoked_at = 0`,
			a.tenant, family, store.Micros(tx.Now), why)
		if err != nil {
			return fmt.Errorf("revoke session: %w", err)
		}
		return nil
	})
}

// dropSessions removes an account's sessions; its tokens end by its generation.
func dropSessions(q store.Q, s sort, tenant, name string) error {
	_, err := q.Exec(`DELETE FROM auth_refresh_tokens WHERE tenant = $1 AND name = $2 AND account = $3`, tenant, name, string(s))
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}

func errGrant(cause error) error {
	return &kernel.Error{Kind: kernel.Unauthenticated, Code: "INVALID_GRANT", Class: evidence.ClassAuthority, Err: cause,
		Msg: "the refresh token is not valid: it was used, has expired or was revoked", Fix: "sign in again"}
}
