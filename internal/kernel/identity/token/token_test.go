package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	expect = Expect{Issuer: "http://127.0.0.1:8420", Audience: "provost", Type: Access, Now: now}
)

func adas() Claims {
	return Claims{Issuer: expect.Issuer, Subject: "ada", Tenant: "demo", Audience: jwt.Audience{"provost"}, Type: Access, ID: "0b54",
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expires: jwt.NewNumericDate(now.Add(time.Hour)),
		Username: "ada", Roles: []string{"developer"}, Permissions: []string{"tasks.read"}, Account: "user", Generation: 7}
}

func newKeyT(tb testing.TB, at time.Time) *Key {
	tb.Helper()
	k, err := NewKey(at)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func signT(tb testing.TB, r *Ring, c Claims) string {
	tb.Helper()
	s, err := r.Sign(c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*Rejection](err); ok {
		return r.Reason
	}
	return ""
}

func TestSignedTokensVerify(t *testing.T) {
	ring := NewRing(newKeyT(t, now))
	got, key, err := ring.Verify(signT(t, ring, adas()), expect)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "ada" || got.Tenant != "demo" || got.Generation != 7 || got.Permissions[0] != "tasks.read" || key != ring.newest {
		t.Errorf("got %+v by key %s", got, key.ID)
	}
}

// A forger has everything that is public: our key set, other people's tokens, the format.
func TestHostileTokens(t *testing.T) {
	key, other := newKeyT(t, now), newKeyT(t, now.Add(time.Second))
	ring := NewRing(key)
	good := signT(t, ring, adas())
	part := strings.Split(good, ".")
	otherJWK, err := jose.JSONWebKey{Key: other.public, KeyID: key.ID}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}

	// sign signs claims with a key of the attacker's choice under headers of theirs.
	sign := func(k *ecdsa.PrivateKey, alg jose.SignatureAlgorithm, keyID string, extra map[jose.HeaderKey]any) string {
		o := (&jose.SignerOptions{}).WithType("JWT")
		for name, v := range extra {
			o = o.WithHeader(name, v)
		}
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: k, KeyID: keyID}}, o)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(s).Claims(adas()).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	// forge writes a token by hand, "signed" by what sig makes of it.
	forge := func(header, payload string, sig func(string) []byte) string {
		e := base64.RawURLEncoding
		in := e.EncodeToString([]byte(header)) + "." + e.EncodeToString([]byte(payload))
		return in + "." + e.EncodeToString(sig(in))
	}
	payload, err := json.Marshal(adas())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.public)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	hs256 := func(secret []byte) func(string) []byte {
		return func(in string) []byte { m := hmac.New(sha256.New, secret); m.Write([]byte(in)); return m.Sum(nil) }
	}
	nothing := func(string) []byte { return nil }
	zeros := func(string) []byte { return make([]byte, 64) }
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kid := `,"kid":"` + key.ID + `","typ":"JWT"}`

	for _, c := range []struct {
		name, token string
		want        Reason
	}{
		{"empty", "", Malformed},
		{"garbage", "garbage", Malformed},
		{"two parts", part[0] + "." + part[1], Malformed},
		{"four parts", good + ".AA", Malformed},
		{"JSON serialization", `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`, Malformed},
		{"line break", good[:20] + "\n" + good[20:], Malformed},
		{"padding", good + "=", Malformed},
		{"oversized", good + strings.Repeat("A", MaxSize), Oversized},
		{"no signature", part[0] + "." + part[1] + ".", Signature},
		{"alg none", forge(`{"alg":"none"`+kid, string(payload), nothing), Header},
		{"alg None", forge(`{"alg":"None"`+kid, string(payload), nothing), Header},
		{"alg empty", forge(`{"alg":""`+kid, string(payload), nothing), Header},
		{"HS256 with the public key in PEM", forge(`{"alg":"HS256"`+kid, string(payload), hs256(publicPEM)), Header},
		{"HS256 with the public key in DER", forge(`{"alg":"HS256"`+kid, string(payload), hs256(der)), Header},
		{"ES384", sign(p384, jose.ES384, key.ID, nil), Header},
		{"alg twice", forge(`{"alg":"none","alg":"ES256"`+kid, string(payload), zeros), Malformed},
		{"kid in another case", forge(`{"alg":"ES256","KID":"`+key.ID+`","kid":"x","typ":"JWT"}`, string(payload), zeros), UnknownKey},
		{"zero signature", forge(`{"alg":"ES256"`+kid, string(payload), zeros), Signature},
		{"another's key under our id", sign(other.private, jose.ES256, key.ID, nil), Signature},
		{"unknown key", sign(other.private, jose.ES256, other.ID, nil), UnknownKey},
		{"no key id", sign(other.private, jose.ES256, "", nil), UnknownKey},
		{"embedded jwk", sign(other.private, jose.ES256, key.ID, map[jose.HeaderKey]any{"jwk": json.RawMessage(otherJWK)}), Header},
		{"jku", sign(other.private, jose.ES256, key.ID, map[jose.HeaderKey]any{"jku": "http://127.0.0.1/keys"}), Header},
		{"x5u", sign(other.private, jose.ES256, key.ID, map[jose.HeaderKey]any{"x5u": "http://127.0.0.1/certs"}), Header},
		{"x5c", sign(other.private, jose.ES256, key.ID, map[jose.HeaderKey]any{"x5c": []string{"AAAA"}}), Header},
		{"crit", forge(`{"alg":"ES256","crit":["exp"]`+kid, string(payload), zeros), Header},
		{"other typ", forge(`{"alg":"ES256","kid":"`+key.ID+`","typ":"JWE"}`, string(payload), zeros), Header},
		{"payload of another token", part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "ada", "bob", 1))) + "." + part[2], Signature},
		{"signature cut", good[:len(good)-4], Signature},
	} {
		got, _, err := ring.Verify(c.token, expect)
		if err == nil {
			t.Errorf("%s: accepted as %+v", c.name, got)
			continue
		}
		if r := reasonOf(err); r != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
		if r, _ := errors.AsType[*Rejection](err); r.Claims != nil {
			t.Errorf("%s: claims %+v of an unsigned token were handed out", c.name, r.Claims)
		}
	}
}

func TestClaimsThatAreNotAccepted(t *testing.T) {
	key := newKeyT(t, now)
	ring := NewRing(key)
	var base map[string]any
	b, err := json.Marshal(adas())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &base); err != nil {
		t.Fatal(err)
	}
	unix := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, c := range []struct {
		name, claim string
		value       any // nil removes it
		want        Reason
	}{
		{"no exp", "exp", nil, Malformed},
		{"exp is null", "exp", json.RawMessage("null"), Malformed},
		{"exp is text", "exp", "tomorrow", Malformed},
		{"exp overflows", "exp", json.RawMessage("1e300"), Malformed},
		{"expired", "exp", unix(-time.Second), Expired},
		{"expires now", "exp", unix(0), Expired},
		{"not yet", "nbf", unix(time.Minute), NotYet},
		{"issued in the future", "iat", unix(time.Minute), NotYet},
		{"wrong issuer", "iss", "https://issuer.example", Issuer},
		{"issuer with a slash more", "iss", expect.Issuer + "/", Issuer},
		{"no issuer", "iss", nil, Issuer},
		{"wrong audience", "aud", "mrp-orchestrator", Audience},
		{"no audience", "aud", nil, Audience},
		{"empty audience", "aud", []string{}, Audience},
		{"audience is a number", "aud", 7, Malformed},
		{"refresh token as access token", "typ", "refresh", WrongType},
		{"no type", "typ", nil, WrongType},
		{"no subject", "sub", nil, Malformed},
		{"no tenant", "tenant", nil, Malformed},
		{"no id", "jti", nil, Malformed},
		{"roles is text", "roles", "operator", Malformed},
	} {
		claims := maps.Clone(base)
		if claims[c.claim] = c.value; c.value == nil {
			delete(claims, c.claim)
		}
		text, err := jwt.Signed(key.signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring.Verify(text, expect); reasonOf(err) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	for name, claims := range map[string]map[string]any{
		"audience in a list":       {"aud": []string{"other", "provost"}},
		"a claim of a later part":  {"delegation_id": "d-1"},
		"a clock slightly ahead":   {"iat": unix(4 * time.Second), "nbf": unix(4 * time.Second)},
		"one second left":          {"exp": unix(time.Second)},
		"without the optional nbf": {"nbf": nil},
	} {
		all := maps.Clone(base)
		maps.Copy(all, claims)
		text, err := jwt.Signed(key.signer).Claims(all).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ring.Verify(text, expect); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRotation(t *testing.T) {
	old := newKeyT(t, now)
	text := signT(t, NewRing(old), adas())

	der, err := old.Private()
	if err != nil {
		t.Fatal(err)
	}
	retired, err := ParseKey(der, old.Created, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	young := newKeyT(t, now.Add(time.Second))
	ring := NewRing(retired, young)

	if _, key, err := ring.Verify(text, expect); err != nil || key.ID != old.ID {
		t.Errorf("a token of the key before: got %v", err)
	}
	if _, key, err := ring.Verify(signT(t, ring, adas()), expect); err != nil || key != young {
		t.Errorf("the newest key does not sign: %v", err)
	}
	if got := len(ring.Public(now).Keys); got != 2 {
		t.Errorf("%d public keys while both verify, want 2", got)
	}
	later := expect
	later.Now = now.Add(time.Minute)
	if _, _, err := ring.Verify(text, later); reasonOf(err) != UnknownKey {
		t.Errorf("after its time: got %v, want %s", err, UnknownKey)
	}
	if keys := ring.Public(later.Now).Keys; len(keys) != 1 || keys[0].KeyID != young.ID {
		t.Errorf("public keys after the old one's time: %v", keys)
	}
	if NewRing(retired).Signs() {
		t.Error("a ring of retired keys signs")
	}
	if _, err := NewRing().Sign(adas()); err == nil {
		t.Error("an empty ring signs")
	}
}

func TestPublicSetHasNoPrivateParts(t *testing.T) {
	b, err := json.Marshal(NewRing(newKeyT(t, now)).Public(now))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	for name := range set.Keys[0] {
		switch name {
		case "kty", "crv", "x", "y", "kid", "alg", "use":
		default:
			t.Errorf("public key carries %q: %s", name, b)
		}
	}
}

func TestTokensWithManyRightsStayWithinTheLimit(t *testing.T) {
	ring := NewRing(newKeyT(t, now))
	c := adas()
	c.Permissions = nil
	for range 400 {
		c.Permissions = append(c.Permissions, strings.Repeat("p", 40)+".read")
	}
	text := signT(t, ring, c)
	if len(text) > MaxSize {
		t.Errorf("a token of %d bytes", len(text))
	}
	if got, _, err := ring.Verify(text, expect); err != nil || got.Subject != "ada" {
		t.Errorf("got %+v, %v", got, err)
	}
	c.Scope = strings.Repeat("p", MaxSize)
	if text, err := ring.Sign(c); err == nil {
		t.Errorf("a token of %d bytes was signed", len(text))
	}
}

func TestParseKeyRefusesOtherKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"P-384": der, "nothing": nil, "garbage": []byte("garbage")} {
		if _, err := ParseKey(b, now, time.Time{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKeyT(f, now)
	ring := NewRing(key)
	good := signT(f, ring, adas())
	refresh := adas()
	refresh.Type = Refresh
	for _, seed := range []string{"", ".", "..", "a.b.c", good, good[:len(good)-1], signT(f, ring, refresh),
		"eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzI1NiIsImtpZCI6IngiLCJ0eXAiOiJKV1QifQ.e30.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, k, err := ring.Verify(s, expect)
		if err != nil {
			if reasonOf(err) == "" {
				t.Errorf("%q: %v is not a rejection", s, err)
			}
			return
		}
		// Whatever was accepted says what we signed. (The text may differ: the
		// last characters of base64 have spare bits.)
		if c.Subject != "ada" || c.Type != Access || k != key {
			t.Errorf("%q accepted as %+v", s, c)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	ring := NewRing(newKeyT(b, now))
	text := signT(b, ring, adas())
	for b.Loop() {
		if _, _, err := ring.Verify(text, expect); err != nil {
			b.Fatal(err)
		}
	}
}
