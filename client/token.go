package client

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// TokenRequest asks for tokens. Which fields are needed depends on GrantType.
type TokenRequest struct {
	GrantType    string `json:"grant_type"` // password, refresh_token or client_credentials
	Username     string `json:"username,omitempty"`
	Password     string `json:"password,omitempty"`
	Tenant       string `json:"tenant,omitempty"` // the platform's administrator signs in without one
	RefreshToken string `json:"refresh_token,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	Audience     string `json:"audience,omitempty"`
	Scope        string `json:"scope,omitempty"` // only narrows
}

// Token is an answer of the token endpoint.
type Token struct {
	Object
	AccessToken      string `json:"access_token"`
	ExpiresIn        int64  `json:"expires_in"` // seconds
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresIn int64  `json:"refresh_expires_in"` // seconds
	TokenType        string `json:"token_type"`
}

// Tokens is /v1/auth/token and what belongs to it.
type Tokens struct{ c *Client }

// Create asks for tokens. A refresh token is used up by it: keep the new one.
func (s Tokens) Create(ctx context.Context, req TokenRequest) (t Token, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "auth", "token"}, in: req, out: &t, anonymous: true})
	if err == nil && t.AccessToken == "" {
		err = &Error{Status: http.StatusOK, Code: CodeProtocol, Message: "the answer holds no access token"}
	}
	return t, err
}

// Whoami is who a token's bearer is to the server, now.
type Whoami struct {
	Object
	Principal   string    `json:"principal"` // name@tenant
	Name        string    `json:"name"`
	Tenant      string    `json:"tenant"`
	Kind        string    `json:"kind"` // human, service or delegate
	Roles       []string  `json:"roles"`
	Permissions []string  `json:"permissions"`
	Groups      []string  `json:"groups"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"` // of the token; zero is never
}

// Whoami asks who the client's token belongs to.
func (s Tokens) Whoami(ctx context.Context) (w Whoami, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "whoami"}, out: &w})
	return w, err
}

// ErrNoRevocation says that the server has no revocation endpoint.
var ErrNoRevocation = errors.New("the server does not revoke tokens")

// Revoke ends a refresh token and the session it belongs to (RFC 7009), at
// the endpoint that the server's discovery document names.
func (s Tokens) Revoke(ctx context.Context, refreshToken, clientID string) error {
	var doc struct {
		Endpoint string `json:"revocation_endpoint"`
	}
	_, err := s.c.do(ctx, call{method: http.MethodGet, path: []string{".well-known", "openid-configuration"}, out: &doc, anonymous: true})
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound || err == nil && doc.Endpoint == "" {
		return ErrNoRevocation
	}
	if err != nil {
		return err
	}
	u, err := url.Parse(doc.Endpoint)
	if err != nil || u.Scheme != s.c.base.Scheme || u.Host != s.c.base.Host {
		return &Error{Code: CodeProtocol, Message: "the revocation endpoint is on another server; the token was not sent there"}
	}
	_, err = s.c.do(ctx, call{method: http.MethodPost, path: strings.Split(strings.Trim(strings.TrimPrefix(u.Path, s.c.base.Path), "/"), "/"),
		in: url.Values{"token": {refreshToken}, "token_type_hint": {"refresh_token"}, "client_id": {clientID}}, anonymous: true})
	return err
}

// Claims are what an access token says about its bearer. They are read, not
// verified: only the server can tell whether a token is good.
type Claims struct {
	Subject     string
	Username    string
	Tenant      string
	Roles       []string
	Permissions []string
	Issuer      string
	IssuedAt    time.Time
	Expires     time.Time // zero when the token says nothing
}

// maxToken bounds a token that is looked into.
const maxToken = 64 << 10

// ParseClaims reads the claims of a JWT. Opaque tokens are an error.
func ParseClaims(token string) (c Claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return c, errors.New("the token is not a JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, fmt.Errorf("the token is not a JWT: %w", err)
	}
	var w struct {
		Sub               string   `json:"sub"`
		Username          string   `json:"username"`
		PreferredUsername string   `json:"preferred_username"`
		Tenant            string   `json:"tenant"`
		TenantID          string   `json:"tenant_id"`
		Roles             []string `json:"roles"`
		Permissions       []string `json:"permissions"`
		Iss               string   `json:"iss"`
		Iat               *float64 `json:"iat"`
		Exp               *float64 `json:"exp"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return c, fmt.Errorf("read the token's claims: %w", err)
	}
	c = Claims{Subject: w.Sub, Username: cmp.Or(w.Username, w.PreferredUsername), Tenant: cmp.Or(w.Tenant, w.TenantID),
		Roles: w.Roles, Permissions: w.Permissions, Issuer: w.Iss, IssuedAt: numericDate(w.Iat), Expires: numericDate(w.Exp)}
	if name, tenant, ok := strings.Cut(w.Sub, "@"); ok {
		c.Username, c.Tenant = cmp.Or(c.Username, name), cmp.Or(c.Tenant, tenant)
	}
	c.Username = cmp.Or(c.Username, w.Sub)
	return c, nil
}

// numericDate is RFC 7519's: seconds since 1970, possibly with a fraction.
func numericDate(n *float64) time.Time {
	if n == nil || *n <= 0 || *n > 1<<40 {
		return time.Time{}
	}
	return time.UnixMilli(int64(*n * 1000)).UTC()
}
