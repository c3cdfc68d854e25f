// Package password keeps and checks the passwords of people with argon2id
// (RFC 9106), at the cost OWASP's password storage guidance names for it.
//
// Every check of an attempt costs the same, whether there is such an account or
// not, so that time tells nobody which names exist. The cost itself is a way to
// bring a server down, so only a few checks run at once and only so many wait.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"runtime"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"provost.dev/provost/internal/kernel"
)

// Limits of a new password, in bytes. The upper one bounds what is hashed, not
// what is safe: argon2id takes any length.
const (
	MinLength = 8
	MaxLength = 512
)

const saltSize, keySize = 16, 32

// Hasher hashes and checks passwords. Safe for concurrent use.
type Hasher struct {
	cost    params
	slots   chan struct{} // one per check that may run
	waiting atomic.Int64
	queue   int64
	absent  hash // what a password of nobody is compared with
}

// Config tunes a Hasher. The zero value is what production uses.
type Config struct {
	// MemoryKiB and Passes are argon2id's m and t; 0 means 19456 (19 MiB) and 2.
	// Hashes made with others keep working, and are made anew when their owner signs in.
	MemoryKiB, Passes uint32
	// Concurrent is how many checks run at once, each with MemoryKiB; 0 means GOMAXPROCS.
	Concurrent int
	// Queue is how many may wait; 0 means 128. One more is kernel.TooMany.
	Queue int
}

// New returns a Hasher.
func New(cfg Config) *Hasher {
	if cfg.MemoryKiB == 0 {
		cfg.MemoryKiB = 19 << 10
	}
	if cfg.Passes == 0 {
		cfg.Passes = 2
	}
	if cfg.Concurrent == 0 {
		cfg.Concurrent = runtime.GOMAXPROCS(0)
	}
	if cfg.Queue == 0 {
		cfg.Queue = 128
	}
	h := &Hasher{cost: params{memory: cfg.MemoryKiB, passes: cfg.Passes, lanes: 1},
		slots: make(chan struct{}, cfg.Concurrent), queue: int64(cfg.Queue)}
	h.absent = hash{params: h.cost, salt: make([]byte, saltSize), key: make([]byte, keySize)}
	rand.Read(h.absent.salt)
	return h
}

// Check reports what is wrong with a new password, as kernel.Invalid of field.
func Check(field, password string) error {
	switch {
	case len(password) < MinLength:
		return kernel.InvalidField(field, "has %d bytes; use at least %d", len(password), MinLength)
	case len(password) > MaxLength:
		return kernel.InvalidField(field, "is longer than %d bytes", MaxLength)
	}
	return nil
}

// Hash returns the PHC string to keep for a password. It waits for its turn
// until ctx ends.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	out := hash{params: h.cost, salt: make([]byte, saltSize)}
	rand.Read(out.salt)
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	out.key = out.params.derive(password, out.salt, keySize)
	return out.String(), nil
}

// Verify reports whether password is the one that kept, a PHC string, was made
// of. With an empty or unreadable kept it does the same work and says no. stale
// asks to keep a new hash, made at today's cost.
func (h *Hasher) Verify(ctx context.Context, kept, password string) (ok, stale bool, err error) {
	have, perr := parse(kept)
	if perr != nil {
		have = h.absent
	}
	usable := perr == nil && len(password) <= MaxLength
	if !usable {
		password = password[:min(len(password), MaxLength)]
	}
	if err := h.enter(ctx); err != nil {
		return false, false, err
	}
	defer h.leave()
	key := have.params.derive(password, have.salt, uint32(len(have.key)))
	ok = subtle.ConstantTimeCompare(key, have.key) == 1 && usable
	return ok, ok && have.params != h.cost, nil
}

func (p params) derive(password string, salt []byte, size uint32) []byte {
	return argon2.IDKey([]byte(password), salt, p.passes, p.memory, p.lanes, size)
}

func (h *Hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > h.queue {
		h.waiting.Add(-1)
		return &kernel.Error{Kind: kernel.TooMany, Msg: "too many sign-ins at once", RetryAfter: 1}
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &kernel.Error{Kind: kernel.Unavailable, Msg: "the request ended before its password could be checked", RetryAfter: 1, Err: ctx.Err()}
	}
}

func (h *Hasher) leave() { <-h.slots }
