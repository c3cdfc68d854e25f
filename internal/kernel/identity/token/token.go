// Package token makes and checks the platform's tokens: JWTs (RFC 7519) signed
// with ES256 (RFC 7518 §3.4), and nothing else. It knows keys and claims; who
// the claims speak of is for package idp to look up.
//
//	Ring ──Sign(Claims)──▶ "eyJ…"  ──Verify(Expect)──▶ Claims, or a *Rejection that says why
//
// Verify is strict where the specifications let a reader be generous: the
// header holds alg, kid and typ and no more, so that no key, key address or
// critical extension can travel in with a token; exp, iss, aud and the token's
// own type must be there and right.
package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// MaxSize is the longest token accepted, in bytes.
const MaxSize = 8 << 10

// Type is what a token is for.
type Type string

// The types. A refresh token is good for one thing: getting the next pair.
const (
	Access  Type = "access"
	Refresh Type = "refresh"
)

// Claims are a token's content.
type Claims struct {
	Issuer    string           `json:"iss"`
	Subject   string           `json:"sub"` // the principal's name, unique in its tenant
	Tenant    string           `json:"tenant"`
	Audience  jwt.Audience     `json:"aud"`
	Expires   *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf,omitempty"`
	IssuedAt  *jwt.NumericDate `json:"iat,omitempty"`
	ID        string           `json:"jti"`
	Type      Type             `json:"typ"`
	Username  string           `json:"username,omitempty"`

	// Roles and Permissions are as of issue, for those who read tokens without
	// asking us. We read the rights again (package idp).
	Roles       []string `json:"roles,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Groups      []string `json:"groups,omitempty"`
	// Scope narrows the permissions to those it lists, separated by spaces;
	// empty narrows nothing.
	Scope string `json:"scope,omitempty"`
	// RoleID is the work role of a service account (the action family's claim).
	RoleID string `json:"role_id,omitempty"`

	// Account is which sort of account Subject names, and Generation which of
	// its lives the token belongs to: an account that was deleted and made
	// again, or whose password was changed, has another.
	Account    string `json:"acct"`
	Generation int64  `json:"gen"`
	// Session is the sign-in this token descends from; empty where there is no
	// refresh token beside it.
	Session string `json:"sid,omitempty"`
}

// Reason is why a token is not accepted.
type Reason string

// The reasons. All of them are one 401 to the caller.
const (
	Malformed  Reason = "malformed" // not a compact JWS, or not our claims
	Oversized  Reason = "oversized"
	Header     Reason = "header" // another algorithm, or a header we never write
	UnknownKey Reason = "unknown_key"
	Signature  Reason = "signature"
	Issuer     Reason = "issuer"
	Audience   Reason = "audience"
	Expired    Reason = "expired"
	NotYet     Reason = "not_yet_valid"
	WrongType  Reason = "type"
)

// Rejection is the error of Verify.
type Rejection struct {
	Reason Reason
	// Claims are the token's once its signature was found good, else nil: until
	// then they are anybody's words.
	Claims *Claims
	err    error
}

func (r *Rejection) Error() string {
	if r.err != nil {
		return "token rejected: " + string(r.Reason) + ": " + r.err.Error()
	}
	return "token rejected: " + string(r.Reason)
}

func (r *Rejection) Unwrap() error { return r.err }

// Expect is what a token has to say to be accepted.
type Expect struct {
	Issuer, Audience string
	Type             Type
	Now              time.Time
}

// skew is how far another replica's clock may be ahead of ours.
const skew = 5 * time.Second

// header is all that a token of ours has in its protected header.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// Verify returns the claims of a token signed by a key of the ring, and which
// key it was, or a *Rejection.
func (r *Ring) Verify(token string, want Expect) (Claims, *Key, error) {
	if len(token) > MaxSize {
		return Claims{}, nil, &Rejection{Reason: Oversized}
	}
	h, err := readHeader(token)
	if err != nil {
		return Claims{}, nil, err
	}
	key := r.find(h.KeyID, want.Now)
	if key == nil {
		return Claims{}, nil, &Rejection{Reason: UnknownKey}
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, nil, &Rejection{Reason: Malformed, err: err}
	}
	if parsed.Headers[0].KeyID != h.KeyID { // two readers, two meanings: names that differ in case only
		return Claims{}, nil, &Rejection{Reason: Header}
	}
	var c Claims
	if err := parsed.Claims(key.public, &c); errors.Is(err, jose.ErrCryptoFailure) {
		return Claims{}, nil, &Rejection{Reason: Signature}
	} else if err != nil {
		return Claims{}, nil, &Rejection{Reason: Malformed, err: err}
	}
	if reason := c.check(want); reason != "" {
		return Claims{}, nil, &Rejection{Reason: reason, Claims: &c}
	}
	return c, key, nil
}

// readHeader decodes the protected header, and refuses what base64 decoders
// would let pass (line breaks), so that a token has one spelling.
func readHeader(token string) (h header, err error) {
	for i := range len(token) {
		c := token[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return h, &Rejection{Reason: Malformed}
		}
	}
	first, rest, _ := strings.Cut(token, ".")
	if strings.Count(rest, ".") != 1 {
		return h, &Rejection{Reason: Malformed}
	}
	raw, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return h, &Rejection{Reason: Malformed, err: err}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, &Rejection{Reason: Header, err: err}
	}
	if h.Algorithm != string(jose.ES256) || h.Type != "JWT" {
		return h, &Rejection{Reason: Header, err: fmt.Errorf("alg %q, typ %q", h.Algorithm, h.Type)}
	}
	return h, nil
}

func (c *Claims) check(want Expect) Reason {
	switch {
	case c.Expires == nil || c.Subject == "" || c.Tenant == "" || c.ID == "":
		return Malformed
	case c.Issuer != want.Issuer:
		return Issuer
	case c.Type != want.Type:
		return WrongType
	case !c.Audience.Contains(want.Audience):
		return Audience
	case !want.Now.Before(c.Expires.Time()):
		return Expired
	case c.NotBefore != nil && want.Now.Add(skew).Before(c.NotBefore.Time()),
		c.IssuedAt != nil && want.Now.Add(skew).Before(c.IssuedAt.Time()):
		return NotYet
	}
	return ""
}

// Sign returns the token for c, signed with the ring's newest key. Where its
// rights would make it larger than MaxSize they are left out: they inform, and
// do not decide.
func (r *Ring) Sign(c Claims) (string, error) {
	if r.newest == nil {
		return "", errors.New("sign token: there is no signing key")
	}
	text, err := r.newest.sign(c)
	if err == nil && len(text) > MaxSize {
		c.Roles, c.Permissions, c.Groups = nil, nil, nil
		text, err = r.newest.sign(c)
	}
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if len(text) > MaxSize {
		return "", fmt.Errorf("sign token: %d bytes pass the limit of %d", len(text), MaxSize)
	}
	return text, nil
}
