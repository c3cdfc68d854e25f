package blob

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"provost.dev/provost/internal/kernel"
)

// Algorithm is a digest algorithm registered by the OCI image specification
// (descriptor.md, "Registered algorithms") that this package computes.
type Algorithm string

// SHA256 is what every client uses; SHA512 is what the distribution
// specification's conformance suite pushes besides.
const (
	SHA256 Algorithm = "sha256"
	SHA512 Algorithm = "sha512"
)

// ParseAlgorithm accepts the names of the constants above and nothing else.
// The error is kernel.Invalid with CodeDigestInvalid.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch a := Algorithm(s); a {
	case SHA256, SHA512:
		return a, nil
	}
	return "", kernel.Errorf(kernel.Invalid, CodeDigestInvalid, "unsupported digest algorithm; use sha256 or sha512")
}

// New returns a running hash of the algorithm. It panics on an Algorithm that
// ParseAlgorithm would refuse.
func (a Algorithm) New() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	}
	panic("blob: unknown algorithm " + string(a))
}

// hexLen is the length of the encoded part, in characters.
func (a Algorithm) hexLen() int {
	if a == SHA512 {
		return 2 * sha512.Size
	}
	return 2 * sha256.Size
}

// Digest names bytes by their hash. Only ParseDigest and the hashing functions
// make one, so a Digest that is not zero is always well formed and safe in a
// path. Digests are comparable with ==.
type Digest struct{ s string }

// ParseDigest parses "sha256:<64 hex>" or "sha512:<128 hex>", lower case only:
// one value has one spelling, so that comparing strings compares content.
// The error is kernel.Invalid with CodeDigestInvalid.
func ParseDigest(s string) (Digest, error) {
	name, enc, ok := strings.Cut(s, ":")
	if !ok {
		return Digest{}, kernel.Errorf(kernel.Invalid, CodeDigestInvalid, "a digest is written <algorithm>:<hex>")
	}
	a, err := ParseAlgorithm(name)
	if err != nil {
		return Digest{}, err
	}
	if len(enc) != a.hexLen() || strings.Trim(enc, "0123456789abcdef") != "" {
		return Digest{}, kernel.Errorf(kernel.Invalid, CodeDigestInvalid, "a %s digest has %d lower-case hexadecimal digits", a, a.hexLen())
	}
	return Digest{s}, nil
}

// Sum is the digest of b.
func (a Algorithm) Sum(b []byte) Digest {
	h := a.New()
	h.Write(b)
	return a.digest(h)
}

// digest is the Digest of what was written to h, a hash of the algorithm.
func (a Algorithm) digest(h hash.Hash) Digest {
	return Digest{string(a) + ":" + hex.EncodeToString(h.Sum(nil))}
}

// String is the canonical form, "" for the zero Digest.
func (d Digest) String() string { return d.s }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d.s == "" }

// Algorithm is the part before the colon, "" for the zero Digest.
func (d Digest) Algorithm() Algorithm {
	a, _, _ := strings.Cut(d.s, ":")
	return Algorithm(a)
}

// Hex is the part after the colon.
func (d Digest) Hex() string {
	_, h, _ := strings.Cut(d.s, ":")
	return h
}

// Matches reports whether h, a hash of d's algorithm, has come to d.
func (d Digest) Matches(h hash.Hash) bool { return !d.IsZero() && d.Algorithm().digest(h) == d }

// MarshalText implements encoding.TextMarshaler. The zero Digest has no text form.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, fmt.Errorf("marshal digest: it is not set")
	}
	return []byte(d.s), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseDigest's rules.
func (d *Digest) UnmarshalText(b []byte) error {
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}
