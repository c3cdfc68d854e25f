package client

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestClaims(t *testing.T) {
	for _, tc := range []struct {
		name, claims string
		want         Claims
	}{
		{"full", `{"sub":"operator@demo","username":"operator","tenant":"demo","roles":["operator"],"permissions":["a"],"iss":"i","iat":1,"exp":1700000000}`,
			Claims{Subject: "operator@demo", Username: "operator", Tenant: "demo", Roles: []string{"operator"}, Permissions: []string{"a"}, Issuer: "i",
				IssuedAt: time.Unix(1, 0).UTC(), Expires: time.Unix(1700000000, 0).UTC()}},
		{"from the subject", `{"sub":"operator@demo"}`, Claims{Subject: "operator@demo", Username: "operator", Tenant: "demo"}},
		{"contract's names", `{"sub":"7","preferred_username":"op","tenant_id":"demo","exp":1.5}`,
			Claims{Subject: "7", Username: "op", Tenant: "demo", Expires: time.UnixMilli(1500).UTC()}},
		{"times that are none", `{"sub":"x","exp":-1,"iat":1e300}`, Claims{Subject: "x", Username: "x"}},
	} {
		got, err := ParseClaims(jwt(tc.claims))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tc.name, d)
		}
	}
	for _, bad := range []string{"", "opaque", "a.b", "a.!.c", jwt("[]"), jwt(`{"sub":1}`), "a.b.c.d"} {
		if _, err := ParseClaims(bad); err == nil {
			t.Errorf("ParseClaims(%q) succeeded", bad)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add(jwt(`{"sub":"a@b","exp":1e9,"roles":["x"]}`))
	f.Add("..")
	f.Add("a.bnVsbA.c")
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := ParseClaims(token); err == nil && c.Expires.Year() > 40000 {
			t.Errorf("expires %v", c.Expires)
		}
	})
}

func TestTokensAreAskedForWithoutOne(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/auth/token" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		b, _ := io.ReadAll(r.Body)
		if want := `{"grant_type":"password","username":"u","password":"p","tenant":"demo"}`; string(b) != want {
			t.Errorf("body %s, want %s", b, want)
		}
		io.WriteString(w, `{"access_token":"a","expires_in":60,"refresh_token":"r","refresh_expires_in":600,"token_type":"Bearer"}`)
	}, Options{Token: StaticToken("old")})
	tok, err := c.Tokens.Create(t.Context(), TokenRequest{GrantType: "password", Username: "u", Password: "p", Tenant: "demo"})
	if err != nil || tok.AccessToken != "a" || tok.RefreshToken != "r" || tok.ExpiresIn != 60 || tok.RefreshExpiresIn != 600 {
		t.Errorf("%+v, %v", tok, err)
	}
}

func TestAnswerWithoutTokenIsAnError(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) }, Options{})
	if _, err := c.Tokens.Create(t.Context(), TokenRequest{}); err == nil || asError(t, err).Code != CodeProtocol {
		t.Errorf("%v", err)
	}
}

func TestRevoke(t *testing.T) {
	var endpoint, revoked string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			if endpoint == "none" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			if endpoint == "" {
				endpoint = "http://" + r.Host + "/oauth/revoke"
			}
			io.WriteString(w, `{"revocation_endpoint":"`+endpoint+`"}`)
		case "/oauth/revoke":
			revoked = r.FormValue("token") + " of " + r.FormValue("client_id")
		}
	}, Options{})
	if err := c.Tokens.Revoke(t.Context(), "r1", "provost-cli"); err != nil || revoked != "r1 of provost-cli" {
		t.Errorf("revoked %q, %v", revoked, err)
	}
	endpoint, revoked = "https://elsewhere.example/revoke", ""
	if err := c.Tokens.Revoke(t.Context(), "r1", "x"); err == nil || asError(t, err).Code != CodeProtocol || revoked != "" {
		t.Errorf("endpoint elsewhere: %v, revoked %q", err, revoked)
	}
	endpoint = "none"
	if err := c.Tokens.Revoke(t.Context(), "r1", "x"); !errors.Is(err, ErrNoRevocation) {
		t.Errorf("no discovery document: %v", err)
	}
}
