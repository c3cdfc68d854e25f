// Package idp is the built-in identity provider: it knows the people and
// services of each tenant, gives them tokens for what they prove, and turns a
// token back into a principal with the rights of that moment.
//
//	password, secret, refresh token ──▶ SignIn ──govern.Do──▶ access and refresh token, session, event
//
//	bearer ──▶ verified before? ──yes──▶ tenant at the same epoch? ──yes──▶ *identity.Principal
//	               └─no─▶ ES256, claims       └─no─▶ account, roles, permissions again
//
// Rights are never taken from a token. It says who its bearer is and how far
// its scope narrows them; what they may do is read from the database once per
// epoch of the tenant (package govern), so that a right taken away is gone with
// the next request. What ends a token before its time, a new password, a
// disabled or deleted account, an ended session, a revoked key, moves the epoch too.
//
// Passwords are for people and cost what argon2id costs. The secrets of
// services, workspaces and refresh tokens are 256 random bits: nothing can be
// guessed about them, so a plain SHA-256 keeps them, and a slow hash would only
// make machines slow and the server easy to keep busy.
//
// Refresh tokens rotate (RFC 9700 §4.14.2). Each sign-in begins a session, of
// which only the newest refresh token is good. An older one coming back means
// that two parties hold the session; it ends, with every access token it gave.
package idp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/password"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
)

// The audiences tokens are made for: our own API, and the action family's
// orchestrator, whose tokens are short and carry a work role (mrp.md §2).
const (
	DefaultAudience = "provost"
	RoleAudience    = "mrp-orchestrator"
	roleTTL         = 15 * time.Minute
)

// Config is what a Provider needs.
type Config struct {
	DB     *store.DB
	Gov    *govern.Governor
	Schema *policy.Schema
	Box    *secret.Box // seals the signing keys

	// Issuer is the iss of our tokens, and the URL that the discovery documents are under. No slash at the end.
	Issuer string
	// AccessTTL is how long access tokens are good; 0 means an hour.
	AccessTTL time.Duration
	// RefreshTTL is how long a refresh token may lie unused; 0 means a day. At least AccessTTL.
	RefreshTTL time.Duration
	// SessionTTL ends a session however often it was refreshed; 0 means 30 days.
	SessionTTL time.Duration
	// Passwords checks passwords; nil means password.New with its defaults.
	Passwords *password.Hasher
	// CachedTokens bounds each of the two halves of the cache of verified
	// tokens; 0 means 8192. An entry takes some 2 KB.
	CachedTokens int

	Now func() time.Time // nil means time.Now
}

// Provider is the identity provider. Safe for concurrent use.
type Provider struct {
	cfg               Config
	system, anonymous *identity.Principal

	ring   atomic.Pointer[ringAt]
	reload sync.Mutex // one reader of keys at a time

	tokens *cache[*verified]
	// basics remembers passwords that were found good, by a digest under
	// basicKey, which no one outside this process has.
	basics   *cache[*checked]
	basicKey [32]byte
}

// New makes a provider. Start makes it ready.
func New(cfg Config) (*Provider, error) {
	for _, d := range []struct {
		ttl *time.Duration
		def time.Duration
	}{{&cfg.AccessTTL, time.Hour}, {&cfg.RefreshTTL, 24 * time.Hour}, {&cfg.SessionTTL, 30 * 24 * time.Hour}} {
		if *d.ttl == 0 {
			*d.ttl = d.def
		}
	}
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("identity provider: no issuer")
	case cfg.AccessTTL < time.Second || cfg.RefreshTTL < cfg.AccessTTL || cfg.SessionTTL < cfg.RefreshTTL:
		return nil, fmt.Errorf("identity provider: tokens of %v, refreshed within %v, for up to %v: want a second at least, each no shorter than the one before",
			cfg.AccessTTL, cfg.RefreshTTL, cfg.SessionTTL)
	}
	if cfg.Passwords == nil {
		cfg.Passwords = password.New(password.Config{})
	}
	if cfg.CachedTokens == 0 {
		cfg.CachedTokens = 8192
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Provider{cfg: cfg, tokens: newCache[*verified](cfg.CachedTokens), basics: newCache[*checked](1024)}
	rand.Read(p.basicKey[:])
	var err error
	if p.system, err = identity.System(cfg.Schema, "identity"); err != nil {
		return nil, err
	}
	p.anonymous, err = identity.Anonymous(cfg.Schema)
	return p, err
}
