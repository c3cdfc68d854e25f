package acceptance

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
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// rejected checks that an answer is a 401 with evidence, and returns the
// event. Of a flood of bad credentials only some are kept (the rest is
// answered), so the request is made until one is.
func rejected(t testing.TB, reader *client, ask func() *answer) object {
	t.Helper()
	var a *answer
	eventually(t, "evidence of a rejected credential", func() bool {
		a = ask().want(401)
		return a.header.Get("X-Event-ID") != ""
	})
	if a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%s: 401 without WWW-Authenticate", a.request)
	}
	return a.refused(reader, 401)
}

func TestAUT01NoCredential(t *testing.T) {
	t.Parallel()
	reader, nobody := shared.as(t, "viewer", "demo"), shared.anonymous()
	for _, path := range []string{"/v1/tenants", "/v1/events", "/v1/workloads", "/v1/tenants/demo", "/v1/log/demo/checkpoint", "/events/audit"} {
		e := rejected(t, reader, func() *answer { return nobody.get(t, path) })
		if e["event_type"] != "identity.token.reject" || e["actor"] != "anonymous@system" {
			t.Errorf("%s: the event is %v by %v", path, e["event_type"], e["actor"])
		}
	}
	for _, header := range []string{"Bearer", "Bearer ", "Token x", "Basic b3BlcmF0b3I6eA==", "bearer a b"} {
		a := nobody.do(t, "GET", "/v1/events", nil, "Authorization", header).want(401)
		if a.text("code") == "" || a.text("message") == "" {
			t.Errorf("Authorization %q: %s", header, a.body)
		}
	}
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// claimsOf are a token's, unverified.
func claimsOf(t testing.TB, token string) (header, claims object) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %s", token)
	}
	for i, dst := range []*object{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, dst); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

// forgeries are tokens that say what token says and are not signed by the
// server's key.
func forgeries(t testing.TB, s *server, token string) map[string]string {
	t.Helper()
	header, claims := claimsOf(t, token)
	parts := strings.Split(token, ".")
	out := map[string]string{
		"garbage":           "garbage",
		"three empty parts": "..",
		"no signature":      parts[0] + "." + parts[1] + ".",
		"cut":               token[:len(token)-4],
		"of another token":  parts[0] + "." + part(with(claims, "sub", "auditor")) + "." + parts[2],
		"alg none":          part(object{"alg": "none", "typ": "JWT"}) + "." + parts[1] + ".",
		"alg None, signed":  part(object{"alg": "None", "typ": "JWT"}) + "." + parts[1] + "." + parts[2],
		"with NUL":          token + "\x00",
		"huge":              token + strings.Repeat("A", 32<<10),
		"a JWE":             token + ".x.y",
	}
	// Signed by a key of one's own, in each way that a header can point to it.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := object{"kty": "EC", "crv": "P-256", "x": fixed(key.X), "y": fixed(key.Y), "kid": header["kid"]}
	for name, h := range map[string]object{"other key": header, "other kid": with(header, "kid", "mine"), "no kid": with(header, "kid", ""),
		"jwk in header": with(header, "jwk", jwk), "kid as path": with(header, "kid", "../../dev/null")} {
		text := part(h) + "." + parts[1]
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		out[name] = text + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	// Algorithm confusion: HMAC with what is public of the server's key.
	for name, secret := range publicForms(t, s) {
		text := part(with(header, "alg", "HS256")) + "." + parts[1]
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(text))
		out["HS256 with the public key as "+name] = text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	zero := base64.RawURLEncoding.EncodeToString(make([]byte, 64)) // CVE-2022-21449
	out["all-zero signature"] = parts[0] + "." + parts[1] + "." + zero
	return out
}

func with(o object, key string, value any) object {
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	out[key] = value
	return out
}

func fixed(n *big.Int) string {
	return base64.RawURLEncoding.EncodeToString(n.FillBytes(make([]byte, 32)))
}

// publicForms are the spellings in which libraries would take the server's
// public key for an HMAC secret.
func publicForms(t testing.TB, s *server) map[string][]byte {
	t.Helper()
	keys := s.anonymous().get(t, "/.well-known/jwks.json").want(200).json()["keys"].([]any)
	jwk := keys[0].(object)
	point := []byte{4}
	for _, c := range []string{"x", "y"} {
		b, err := base64.RawURLEncoding.DecodeString(jwk[c].(string))
		if err != nil {
			t.Fatal(err)
		}
		point = append(point, b...)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "point": point, "coordinates": point[1:], "JWK": encode(t, jwk)}
}

func TestAUT02ForgedTokens(t *testing.T) {
	t.Parallel()
	reader := shared.as(t, "viewer", "demo")
	for name, token := range forgeries(t, shared, shared.as(t, "operator", "demo").token) {
		forger := &client{base: shared.url, token: token, name: name}
		if strings.Contains(token, "\x00") {
			continue // no HTTP client sends it; TestRawRequests does
		}
		if len(token) > 16<<10 {
			forger.get(t, "/v1/events").want(401, 431)
			continue
		}
		e := rejected(t, reader, func() *answer { return forger.get(t, "/v1/events") })
		if e["event_type"] != "identity.token.reject" {
			t.Errorf("%s: the event is %v", name, e["event_type"])
		}
	}
}

// TestAUT02AcceptedTokens: that a credential was accepted is evidence, too.
func TestAUT02AcceptedTokens(t *testing.T) {
	t.Parallel()
	u := shared.account(t, "viewer", "demo")
	a := shared.anonymous().post(t, "/v1/auth/token", object{"username": u.Username, "password": u.Password, "tenant": "demo"}).want(200)
	reader := shared.as(t, "auditor", "demo")
	e := reader.event(a)
	if e["event_type"] != "identity.token.issue" || e["outcome"] != "accepted" || e["actor"] != "viewer@demo" {
		t.Errorf("the event is %v %v by %v", e["event_type"], e["outcome"], e["actor"])
	}
	_, claims := claimsOf(t, a.text("access_token"))
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat"} {
		if claims[name] == nil {
			t.Errorf("the token has no claim %s", name)
		}
	}
}

// TestAUT02UnfitTokens shows tokens that the server itself signed, at the
// wrong time, the wrong door or the wrong issuer.
func TestAUT02UnfitTokens(t *testing.T) {
	t.Parallel()
	s := ownServer(t, "PROVOST_AUTH_ACCESS_TTL=2s")
	short := s.as(t, "operator", "demo")
	short.get(t, "/v1/events?limit=1").want(200)
	var a *answer
	eventually(t, "a token of two seconds to expire", func() bool {
		a = short.get(t, "/v1/events?limit=1")
		return a.status == 401
	})
	if !strings.Contains(a.text("message"), "expired") {
		t.Errorf("an expired token is answered by %q", a.text("message"))
	}
	fresh, err := s.signIn(s.account(t, "auditor", "demo"), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if e := fresh.event(a); e["event_type"] != "identity.token.reject" || dig(e, "payload.reason") != "expired" || e["tenant_id"] != "demo" {
		t.Errorf("the event is %v for %v in the log of %v", e["event_type"], dig(e, "payload.reason"), e["tenant_id"])
	}
	d := s.dev.Tenants[0]
	plan := d.ServiceAccounts[slices.IndexFunc(d.ServiceAccounts, func(a struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
		RoleID       string `json:"role_id"`
	}) bool {
		return a.RoleID == "PLAN"
	})]
	role := s.anonymous().post(t, "/v1/auth/token", object{"grant_type": "client_credentials", "client_id": plan.ClientID, "client_secret": plan.ClientSecret,
		"tenant": d.ID, "audience": "mrp-orchestrator"}).want(200).text("access_token")
	a = (&client{base: s.url, token: role, name: "role token"}).get(t, "/v1/events").want(401)
	fresh, err = s.signIn(s.account(t, "auditor", "demo"), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if e := fresh.event(a); dig(e, "payload.reason") != "audience" {
		t.Errorf("a token for another audience is rejected for %v", dig(e, "payload.reason"))
	}
	elsewhere(t, s)
}

// elsewhere moves the server to another address, which makes it another
// issuer with the same keys.
func elsewhere(t *testing.T, s *server) {
	t.Helper()
	before, err := s.signIn(s.account(t, "operator", "demo"), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	moved, err := startServer(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	moved.endWith(t)
	if moved.url == s.url {
		t.Skip("SKIPPED: the system gave the same port again")
	}
	before.base = moved.url
	a := before.get(t, "/v1/events").want(401)
	if e := moved.as(t, "auditor", "demo").event(a); dig(e, "payload.reason") != "issuer" {
		t.Errorf("a token of another issuer is rejected for %v", dig(e, "payload.reason"))
	}
}

// TestReplayedToken: what a person's change or the tenant's end took away is
// gone from tokens that were given before.
func TestReplayedToken(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	const password = "correct horse battery"
	tn.op.post(t, "/v1/users", object{"username": "eve", "password": password, "roles": []string{"viewer"}}).want(201)
	eve, err := shared.signIn(account{Username: "eve", Password: password}, tn.id)
	if err != nil {
		t.Fatal(err)
	}
	eve.get(t, "/v1/events?limit=1").want(200)
	tn.op.do(t, "PATCH", "/v1/users/eve", object{"disabled": true}).want(200)
	eve.get(t, "/v1/events?limit=1").want(401)
	tn.op.do(t, "PATCH", "/v1/users/eve", object{"disabled": false}).want(200)
	tn.op.do(t, "DELETE", "/v1/users/eve", nil).want(204)
	eve.get(t, "/v1/events?limit=1").want(401)
	tn.op.post(t, "/v1/users", object{"username": "eve", "password": password, "roles": []string{"operator"}}).want(201)
	eve.get(t, "/v1/events?limit=1").want(401) // the name is another's now
	shared.admin(t).do(t, "DELETE", "/v1/tenants/"+tn.id, nil).want(204)
	tn.op.get(t, "/v1/events?limit=1").want(401)
}

// longest is how long any token may live.
const longest = 24 * time.Hour

func TestOMC09PasswordGrant(t *testing.T) {
	t.Parallel()
	u := shared.account(t, "developer", "demo")
	for _, path := range []string{"/v1/auth/token", "/api/v1/auth/token"} {
		for _, grant := range []object{{}, {"grant_type": "password"}} {
			body := with(with(grant, "username", u.Username), "password", u.Password)
			a := shared.anonymous().post(t, path, with(body, "tenant", "demo")).want(200)
			o := a.json()
			for field, fits := range map[string]func(any) bool{
				"access_token": isText, "refresh_token": isText, "expires_in": isCount, "refresh_expires_in": isCount,
				"token_type": func(v any) bool { return v == "Bearer" },
				"expires_at": func(v any) bool { _, err := time.Parse(time.RFC3339, v.(string)); return err == nil }} {
				if !fits(o[field]) {
					t.Errorf("%s: %s is %v", path, field, o[field])
				}
				delete(o, field)
			}
			if len(o) > 0 {
				t.Errorf("%s: more fields than the contract's: %v", path, o)
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: Cache-Control is %q", path, a.header.Get("Cache-Control"))
			}
		}
	}
}

func isText(v any) bool { s, ok := v.(string); return ok && s != "" }

func isCount(v any) bool {
	n, ok := v.(json.Number)
	i, err := n.Int64()
	return ok && err == nil && i > 0 && time.Duration(i)*time.Second <= longest
}

// The spellings of shapes.md for the same sign-in.
func TestTokenRequestForms(t *testing.T) {
	t.Parallel()
	u := shared.account(t, "viewer", "demo")
	for name, a := range map[string]*answer{
		"form":        shared.anonymous().post(t, "/v1/auth/token", "grant_type=password&username=viewer&tenant=demo&password="+u.Password, "Content-Type", "application/x-www-form-urlencoded"),
		"user@tenant": shared.anonymous().post(t, "/v1/auth/token", object{"username": "viewer@demo", "password": u.Password}),
		"workspace":   shared.anonymous().post(t, "/v1/auth/token", object{"workspace_id": "demo", "workspace_secret": shared.dev.Tenants[0].WorkspaceSecret}),
		"scope list":  shared.anonymous().post(t, "/v1/auth/token", object{"username": "viewer@demo", "password": u.Password, "scope": []string{"events.read"}}),
		"scope text":  shared.anonymous().post(t, "/v1/auth/token", object{"username": "viewer@demo", "password": u.Password, "scope": "events.read"}),
	} {
		c := &client{base: shared.url, token: a.want(200).text("access_token"), name: name}
		me := c.get(t, "/v1/whoami").want(200)
		if me.text("tenant") != "demo" {
			t.Errorf("%s: signed in to %q", name, me.text("tenant"))
		}
		if strings.HasPrefix(name, "scope") {
			c.get(t, "/v1/events?limit=1").want(200)
			c.get(t, "/v1/workloads").refused(c, 403)
		}
	}
}

func TestOMC10RefreshGrant(t *testing.T) {
	t.Parallel()
	u := shared.account(t, "safety", "demo")
	ask := func(body object) *answer { return shared.anonymous().post(t, "/api/v1/auth/token", body) }
	first := ask(object{"username": "safety@demo", "password": u.Password}).want(200)
	refresh := func(token string) *answer { return ask(object{"grant_type": "refresh_token", "refresh_token": token}) }
	(&client{base: shared.url, token: first.text("refresh_token"), name: "refresh token as bearer"}).get(t, "/v1/whoami").want(401)

	second := refresh(first.text("refresh_token")).want(200)
	if second.text("access_token") == first.text("access_token") || second.text("refresh_token") == first.text("refresh_token") {
		t.Error("a refresh gave the same token again")
	}
	me := &client{base: shared.url, token: second.text("access_token"), name: "refreshed"}
	me.get(t, "/v1/whoami").want(200)

	reused := refresh(first.text("refresh_token")).want(400, 401)
	if reused.text("error.code") == "" {
		t.Errorf("reuse is answered by %s", reused.body)
	}
	// Somebody else has the token: the whole session ends.
	me.get(t, "/v1/whoami").want(401)
	refresh(second.text("refresh_token")).want(400, 401)
	refresh(second.text("access_token")).want(400, 401)
	refresh("garbage").want(400, 401)
}

func TestOMC13BadTokens(t *testing.T) {
	t.Parallel()
	bad := forgeries(t, shared, shared.as(t, "operator", "demo").token)
	bad["none at all"] = ""
	for name, token := range bad {
		if len(token) > 16<<10 || strings.Contains(token, "\x00") {
			continue
		}
		a := (&client{base: shared.url, token: token, name: name}).get(t, "/v1/whoami").want(401)
		if a.text("error.code") == "" || a.text("error.message") == "" || dig(a.json(), "error.retryable") != false {
			t.Errorf("%s: not the task family's envelope: %s", name, a.body)
		}
		if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: Content-Type %q", name, a.header.Get("Content-Type"))
		}
	}
}

func TestOMC15PermissionsTakeEffect(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	const password = "correct horse battery"
	tn.op.post(t, "/v1/roles", object{"name": "reader", "permissions": []string{"events.read"}}).want(201)
	for name, c := range map[string]struct{ has, none object }{
		"by-role":  {object{"roles": []string{"reader"}}, object{"roles": []string{}}},
		"by-grant": {object{"permissions": []string{"events.read"}}, object{"permissions": []string{}}},
	} {
		body := with(with(c.has, "username", name), "password", password)
		tn.op.post(t, "/v1/users", body).want(201)
		user, err := shared.signIn(account{Username: name, Password: password}, tn.id)
		if err != nil {
			t.Fatal(err)
		}
		user.get(t, "/v1/events?limit=1").want(200)
		user.get(t, "/v1/workloads").refused(user, 403)
		tn.op.do(t, "PATCH", "/v1/users/"+name, c.none).want(200)
		a := user.get(t, "/v1/events?limit=1")
		a.refused(user, 403) // with the token from before
		tn.op.do(t, "PATCH", "/v1/users/"+name, c.has).want(200)
		user.get(t, "/v1/events?limit=1").want(200)
	}
}

func TestOMC27NoAccountOracle(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	const password = "correct horse battery"
	for _, name := range []string{"enabled", "disabled"} {
		tn.op.post(t, "/v1/users", object{"username": name, "password": password, "disabled": name == "disabled"}).want(201)
	}
	ask := func(name, password string) *answer {
		return shared.anonymous().post(t, "/v1/auth/token", object{"username": name, "password": password, "tenant": tn.id})
	}
	var first object
	for _, name := range []string{"enabled", "disabled", "unknown", "UPPER", "a b", strings.Repeat("x", 5000)} {
		a := ask(name, "wrong").want(401)
		a.refused(tn.op, 401)
		o := a.json()["error"].(object)
		delete(o, "evidence_pointer")
		if first == nil {
			first = o
		}
		for k := range first {
			if o[k] != first[k] || len(o) != len(first) {
				t.Errorf("%.20s: %v, for a known name %v", name, o, first)
			}
		}
	}
	ask("enabled", password).want(200)
	if a := ask("disabled", password).want(403); a.text("error.code") != "ACCOUNT_DISABLED" {
		t.Errorf("the right password of a disabled account: %s", a.body)
	}
	// An unknown tenant is no oracle either.
	a := shared.anonymous().post(t, "/v1/auth/token", object{"username": "enabled", "password": "wrong", "tenant": unique("no")}).want(401)
	if a.text("error.code") != first["code"] {
		t.Errorf("an unknown tenant: %s", a.body)
	}
}
