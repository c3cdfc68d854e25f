package token

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Key is one ES256 signing key. It is immutable.
type Key struct {
	// ID is the RFC 7638 thumbprint of the public key.
	ID      string
	Created time.Time
	// Until is when the key stops to verify: when the last token it signed has
	// expired. Zero is not yet known: the key signs.
	Until time.Time

	private *ecdsa.PrivateKey
	public  *ecdsa.PublicKey
	signer  jose.Signer
}

// NewKey makes a key on P-256.
func NewKey(now time.Time) (*Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return newKey(k, now, time.Time{})
}

// ParseKey reads what Private returned.
func ParseKey(der []byte, created, until time.Time) (*Key, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read signing key: it is not on P-256")
	}
	return newKey(ec, created, until)
}

func newKey(private *ecdsa.PrivateKey, created, until time.Time) (*Key, error) {
	k := &Key{Created: created, Until: until, private: private, public: &private.PublicKey}
	print, err := (&jose.JSONWebKey{Key: k.public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("thumbprint of signing key: %w", err)
	}
	k.ID = base64.RawURLEncoding.EncodeToString(print)
	k.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: k.ID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("use signing key %s: %w", k.ID, err)
	}
	return k, nil
}

// Private is the private key in PKCS #8, for sealing.
func (k *Key) Private() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	return der, nil
}

func (k *Key) sign(c Claims) (string, error) { return jwt.Signed(k.signer).Claims(c).Serialize() }

// Verifies reports whether tokens of this key are good at a time.
func (k *Key) Verifies(now time.Time) bool { return k.Until.IsZero() || now.Before(k.Until) }

// Ring is the keys in use at a time: the newest signs, all verify. It is immutable.
type Ring struct {
	keys   []*Key // newest first
	newest *Key   // the one that signs; nil when none does
}

// NewRing returns a ring of keys.
func NewRing(keys ...*Key) *Ring {
	r := &Ring{keys: slices.Clone(keys)}
	slices.SortFunc(r.keys, func(a, b *Key) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	for _, k := range r.keys {
		if k.Until.IsZero() {
			r.newest = k
			break
		}
	}
	return r
}

// Signs reports whether the ring has a key to sign with.
func (r *Ring) Signs() bool { return r.newest != nil }

func (r *Ring) find(id string, now time.Time) *Key {
	for _, k := range r.keys {
		if k.ID == id && k.Verifies(now) {
			return k
		}
	}
	return nil
}

// Has reports whether tokens signed by k are still good under this ring.
func (r *Ring) Has(k *Key, now time.Time) bool { return r.find(k.ID, now) != nil }

// Public is the JWK Set (RFC 7517) of the keys that verify at a time.
func (r *Ring) Public(now time.Time) jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range r.keys {
		if k.Verifies(now) {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.public, KeyID: k.ID, Algorithm: string(jose.ES256), Use: "sig"})
		}
	}
	return set
}
