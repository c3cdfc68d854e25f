package idp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"pgregory.net/rapid"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/token"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

// Whatever is done to an account's rights, the next request of a token that
// was given before sees it (OMC-15).
func TestRightsFollowEveryChange(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	ctx := t.Context()
	operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
	roles := map[string][]string{"reader": {"tasks.read", "events.read"}, "writer": {"tasks.write"}, "nothing": {}}
	for name, permissions := range roles {
		if _, _, err := w.CreateRole(ctx, act(operator, "identity.role.create"), Role{Name: name, Permissions: permissions}); err != nil {
			t.Fatal(err)
		}
	}
	people := 0
	rapid.Check(t, func(rt *rapid.T) {
		people++
		name := fmt.Sprintf("person-%d", people)
		if _, _, err := w.CreateUser(ctx, act(operator, "identity.user.create"), NewUser{Username: name, Password: "password-1"}); err != nil {
			rt.Fatal(err)
		}
		pass, exists, disabled := "password-1", true, false
		var hasRoles, hasDirect []string
		var bearer string
		good := false // whether bearer should be

		check := func(rt *rapid.T) {
			if bearer == "" {
				return
			}
			p, err := w.Authenticate(ctx, bearer)
			if !good {
				if err == nil || kernel.KindOf(err) != kernel.Unauthenticated {
					rt.Fatalf("a token that should be void: %v, %v", p, err)
				}
				return
			}
			want := slices.Clone(hasDirect)
			for _, r := range hasRoles {
				want = append(want, roles[r]...)
			}
			if want = tidy(want); err != nil || !slices.Equal(p.Permissions, want) && len(p.Permissions)+len(want) > 0 {
				rt.Fatalf("got %v, %v; want %v", p, err, want)
			}
		}
		update := func(rt *rapid.T, c UserChange) {
			if _, _, err := w.UpdateUser(ctx, act(operator, "identity.user.update"), name, c); (err == nil) != exists {
				rt.Fatalf("update: %v while exists is %t", err, exists)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": check,
			"sign in": func(rt *rapid.T) {
				tokens, err := w.try(Request{Tenant: "demo", Username: name, Password: pass})
				if (err == nil) != (exists && !disabled) {
					rt.Fatalf("sign in: %v while exists is %t, disabled %t", err, exists, disabled)
				}
				if err == nil {
					bearer, good = tokens.AccessToken, true
				}
			},
			"set roles": func(rt *rapid.T) {
				list := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"reader", "writer", "nothing"}), rapid.ID[string]).Draw(rt, "roles")
				if update(rt, UserChange{Roles: &list}); exists {
					hasRoles = list
				}
			},
			"set permissions": func(rt *rapid.T) {
				list := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"tasks.read", "images.read", "objects.write"}), rapid.ID[string]).Draw(rt, "permissions")
				if update(rt, UserChange{Permissions: &list}); exists {
					hasDirect = list
				}
			},
			"set password": func(rt *rapid.T) {
				next := fmt.Sprintf("password-%d", rapid.IntRange(2, 9).Draw(rt, "password"))
				if update(rt, UserChange{Password: &next}); exists {
					pass, good = next, false
				}
			},
			"disable": func(rt *rapid.T) {
				if update(rt, UserChange{Disabled: ptr(true)}); exists {
					good, disabled = good && disabled, true
				}
			},
			"enable": func(rt *rapid.T) {
				if update(rt, UserChange{Disabled: ptr(false)}); exists {
					disabled = false
				}
			},
			"delete": func(rt *rapid.T) {
				if _, err := w.DeleteUser(ctx, act(operator, "identity.user.delete"), name); (err == nil) != exists {
					rt.Fatalf("delete: %v while exists is %t", err, exists)
				}
				exists, good = false, false
			},
			"create": func(rt *rapid.T) {
				_, _, err := w.CreateUser(ctx, act(operator, "identity.user.create"), NewUser{Username: name, Password: pass})
				if (err == nil) == exists {
					rt.Fatalf("create: %v while exists is %t", err, exists)
				}
				if !exists {
					exists, disabled, hasRoles, hasDirect = true, false, nil, nil
				}
			},
		})
	})
}

func TestTokensAreRejected(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	good := w.signIn("demo", "ada", adaPassword)
	ring, err := w.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var claims token.Claims
	decodeClaims(t, good.AccessToken, &claims)
	signed := func(change func(*token.Claims)) string {
		c := claims
		change(&c)
		text, err := ring.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	otherKey, err := token.NewKey(w.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := token.NewRing(otherKey).Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, bearer, log, reason string
	}{
		{"none", "", "system", "malformed"},
		{"garbage", "garbage", "system", "malformed"},
		{"oversized", strings.Repeat("A", 9<<10), "system", "oversized"},
		{"alg none", "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.e30.", "system", "header"},
		{"another issuer's key", foreign, "system", "unknown_key"},
		{"wrong issuer", signed(func(c *token.Claims) { c.Issuer = "http://elsewhere" }), "demo", "issuer"},
		{"wrong audience", signed(func(c *token.Claims) { c.Audience = jwt.Audience{"elsewhere"} }), "demo", "audience"},
		{"expired", signed(func(c *token.Claims) { c.Expires = jwt.NewNumericDate(w.clock.now()) }), "demo", "expired"},
		{"no expiry", signed(func(c *token.Claims) { c.Expires = nil }), "demo", "malformed"},
		{"refresh token", good.RefreshToken, "demo", "type"},
		{"unknown user", signed(func(c *token.Claims) { c.Subject = "mallory" }), "demo", "account_gone"},
		{"user of another sort", signed(func(c *token.Claims) { c.Account = "service" }), "demo", "account_gone"},
		{"unknown sort", signed(func(c *token.Claims) { c.Account = "robot" }), "demo", "account_gone"},
		{"unknown tenant", signed(func(c *token.Claims) { c.Tenant = "nowhere" }), "system", "tenant_gone"},
		{"another's tenant", signed(func(c *token.Claims) { c.Tenant = "rival" }), "rival", "account_gone"},
		{"earlier generation", signed(func(c *token.Claims) { c.Generation-- }), "demo", "superseded"},
	} {
		p, err := w.Authenticate(t.Context(), c.bearer)
		if wants(t, c.name, err, kernel.Unauthenticated, "INVALID_TOKEN"); err == nil {
			t.Errorf("%s: accepted as %s", c.name, p.ID())
			continue
		}
		if strings.Contains(kernel.AsError(err).Msg, "signature") {
			t.Errorf("%s: the answer %q tells more than a forger should know", c.name, kernel.AsError(err).Msg)
		}
		err = w.Reject(t.Context(), "corr-reject", err)
		if e := kernel.AsError(err); e.EventID == "" || e.Pointer == "" || e.Kind != kernel.Unauthenticated {
			t.Errorf("%s: rejected without evidence: %+v", c.name, e)
		}
		e := w.last(c.log, RejectToken, "refused")
		if e.Payload["reason"] != c.reason || e.Correlation != "corr-reject" || e.Class != evidence.ClassAuthority {
			t.Errorf("%s: evidence %+v, want reason %s", c.name, e, c.reason)
		}
	}
	w.as(good.AccessToken)
}

func TestRejectLeavesOtherErrorsAlone(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	before := len(w.events("system"))
	for _, err := range []error{errors.New("boom"), &kernel.Error{Kind: kernel.Unavailable}, &kernel.Error{Kind: kernel.Unauthenticated, EventID: "1"}} {
		if got := w.Reject(t.Context(), "", err); got != err {
			t.Errorf("Reject(%v) = %v", err, got)
		}
	}
	if err := w.Reject(t.Context(), "", &kernel.Error{Kind: kernel.Unauthenticated}); kernel.AsError(err).EventID == "" {
		t.Error("a missing credential left no evidence")
	}
	if after := len(w.events("system")); after != before+1 {
		t.Errorf("%d events, want one", after-before)
	}
}

func TestTokensExpireInTheCache(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	bearer := w.signIn("demo", "ada", adaPassword).AccessToken
	w.as(bearer)
	w.clock.advance(time.Hour - time.Second)
	w.as(bearer)
	w.clock.advance(time.Second)
	_, err := w.Authenticate(t.Context(), bearer)
	wants(t, "after an hour", err, kernel.Unauthenticated, "INVALID_TOKEN")
	if n := w.tokens.size(); n != 0 {
		t.Errorf("%d expired tokens in the cache", n)
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := newCache[int](4)
	key := func(i int) (k [32]byte) { k[0], k[1] = byte(i), byte(i>>8); return k }
	c.put(key(0), 0)
	for i := 1; i < 1000; i++ {
		c.put(key(i), i)
		if v, ok := c.get(key(0)); !ok || v != 0 {
			t.Fatalf("after %d others the value in use is gone", i)
		}
		if n := c.size(); n > 8 {
			t.Fatalf("%d values, want at most 8", n)
		}
	}
	if _, ok := c.get(key(1)); ok {
		t.Error("a value that nobody asked for is still there")
	}
	c.remove(key(0))
	if _, ok := c.get(key(0)); ok {
		t.Error("a removed value is still there")
	}
}

func TestKeyRotation(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	ctx := t.Context()
	admin := w.as(w.signIn("", "admin", adminPassword).AccessToken)
	old := w.signIn("demo", "ada", adaPassword)
	w.as(old.AccessToken)

	kid, _, err := w.RotateKey(ctx, admin, "corr-rotate")
	if err != nil {
		t.Fatal(err)
	}
	if e := w.last("system", "identity.key.rotate", "accepted"); e.Actor != "admin@system" || e.Payload["key_id"] != kid {
		t.Errorf("evidence %+v", e)
	}
	young := w.signIn("demo", "ada", adaPassword)
	if !strings.HasPrefix(young.AccessToken, tokenHeader(kid)) {
		t.Error("the new key does not sign")
	}
	w.as(old.AccessToken)
	w.as(young.AccessToken)
	if _, err := w.refresh(old.RefreshToken); err != nil {
		t.Errorf("refresh token of the key before: %v", err)
	}

	// A revoked key takes its tokens along, cached or not, and is replaced.
	if _, err := w.RevokeKey(ctx, admin, kid, ""); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(ctx, young.AccessToken)
	wants(t, "token of a revoked key", err, kernel.Unauthenticated, "INVALID_TOKEN")
	w.as(old.AccessToken)
	w.as(w.signIn("demo", "ada", adaPassword).AccessToken)
	_, err = w.RevokeKey(ctx, admin, kid, "")
	wants(t, "revoking it again", err, kernel.NotFound, "KEY_NOT_FOUND")

	// A tenant's operator has no say in this.
	_, _, err = w.RotateKey(ctx, w.as(w.signIn("demo", "operator", operatorPass).AccessToken), "")
	wants(t, "rotation by a tenant's operator", err, kernel.Refused, "")

	// Keys whose last token has expired go with the next rotation.
	w.clock.advance(25 * time.Hour)
	if _, _, err := w.RotateKey(ctx, admin, ""); err != nil {
		t.Fatal(err)
	}
	ring, err := w.current(ctx)
	if err != nil || len(ring.Public(w.clock.now()).Keys) != 2 {
		t.Errorf("%d keys, %v; want the new one and the one before", len(ring.Public(w.clock.now()).Keys), err)
	}
}

// tokenHeader is how every token of a key begins.
func tokenHeader(kid string) string {
	return encode(`{"alg":"ES256","kid":"`+kid+`","typ":"JWT"}`) + "."
}

// Two servers on one database: what one changes, the next request to the other sees.
func TestReplicasSeeEachOthersChanges(t *testing.T) {
	url := storetest.PostgresURL(t)
	open := func() *store.DB {
		db, err := store.Open(t.Context(), store.Config{URL: url, MaxConns: 6})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db
	}
	one := newWorld(t, open())
	two := startWorld(t, open(), false)
	tokens := one.signIn("demo", "ada", adaPassword)
	if p := two.as(tokens.AccessToken); p.Holds("users.write") {
		t.Fatal("ada holds users.write")
	}
	operator := one.as(one.signIn("demo", "operator", operatorPass).AccessToken)
	one.change(operator, "ada", UserChange{Roles: &[]string{"operator"}})
	if p := two.as(tokens.AccessToken); !p.Holds("users.write") {
		t.Error("the other replica did not see the new role")
	}
	if _, err := one.refresh(tokens.RefreshToken); err != nil {
		t.Fatal(err)
	}
	_, err := two.refresh(tokens.RefreshToken)
	wants(t, "a refresh token used at the other replica", err, kernel.Unauthenticated, "INVALID_GRANT")
	_, err = one.Authenticate(t.Context(), tokens.AccessToken)
	wants(t, "its session at the first replica", err, kernel.Unauthenticated, "INVALID_TOKEN")

	tokens = two.signIn("demo", "operator", operatorPass)
	one.as(tokens.AccessToken)
	admin := one.as(one.signIn("", "admin", adminPassword).AccessToken)
	ring, err := one.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.RevokeKey(t.Context(), admin, ring.Public(one.clock.now()).Keys[0].KeyID, ""); err != nil {
		t.Fatal(err)
	}
	_, err = two.Authenticate(t.Context(), tokens.AccessToken)
	wants(t, "a key revoked at the other replica", err, kernel.Unauthenticated, "INVALID_TOKEN")
	two.as(two.signIn("demo", "operator", operatorPass).AccessToken)
}

// Rights change while requests are under way: no request that begins after a
// change was acknowledged sees the rights of before it.
func TestAuthenticateDuringChanges(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
	bearer := w.signIn("demo", "ada", adaPassword).AccessToken
	var mu sync.RWMutex // held while a change is not yet acknowledged
	granted := false
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				mu.RLock()
				p, err := w.Authenticate(t.Context(), bearer)
				if err != nil || p.Holds("objects.write") != granted {
					t.Errorf("objects.write is held: %v, %v; want %t", p, err, granted)
					stop()
				}
				mu.RUnlock()
			}
		})
	}
	for i := range 50 {
		mu.Lock()
		granted = i%2 == 0
		list := []string{"events.read"}
		if granted {
			list = append(list, "objects.write")
		}
		w.change(operator, "ada", UserChange{Permissions: &list})
		mu.Unlock()
	}
	stop()
	readers.Wait()
}

func TestBasic(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		basic := func(name, pass string) (*identity.Principal, error) {
			return w.AuthenticateBasic(ctx, name, pass, "corr-basic")
		}
		accepted := func() (n int) {
			for _, e := range w.events("demo") {
				if e.Type == "identity.credential.accept" && e.Outcome == "accepted" {
					n++
				}
			}
			return n
		}
		for range 3 {
			if p, err := basic("ada@demo", adaPassword); err != nil || p.ID() != "ada@demo" || !p.Holds("images.write") {
				t.Fatalf("ada: %v, %v", p, err)
			}
		}
		if n := accepted(); n != 1 {
			t.Errorf("three uses within a minute were checked %d times, want once", n)
		}
		w.clock.advance(time.Minute)
		if _, err := basic("ada@demo", adaPassword); err != nil || accepted() != 2 {
			t.Errorf("after a minute: %v, checked %d times, want twice", err, accepted())
		}
		if p, err := basic("svc-plain@demo", plainSecret); err != nil || p.Kind != identity.Service {
			t.Errorf("service account: %v, %v", p, err)
		}
		if p, err := basic("admin", adminPassword); err != nil || p.ID() != "admin@system" {
			t.Errorf("platform administrator: %v, %v", p, err)
		}

		operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
		w.change(operator, "ada", UserChange{Roles: &[]string{"viewer"}})
		if p, err := basic("ada@demo", adaPassword); err != nil || p.Holds("images.write") {
			t.Errorf("after losing a role: %v, %v", p, err)
		}
		w.change(operator, "ada", UserChange{Disabled: ptr(true)})
		_, err := basic("ada@demo", adaPassword)
		wants(t, "disabled", err, kernel.Refused, "ACCOUNT_DISABLED")

		for _, c := range []struct{ name, user, pass, log string }{
			{"wrong password", "operator@demo", "wrong-password", "demo"},
			{"unknown user", "mallory@demo", "wrong-password", "demo"},
			{"wrong service secret", "svc-plain@demo", planSecret, "demo"},
			{"unknown tenant", "operator@nowhere", operatorPass, "system"},
			{"no tenant", "operator", operatorPass, "system"},
			{"empty", "", "", "system"},
		} {
			_, err := basic(c.user, c.pass)
			wants(t, c.name, err, kernel.Unauthenticated, "INVALID_CREDENTIALS")
			if err = w.Reject(ctx, "corr-basic", err); kernel.AsError(err).EventID == "" {
				t.Errorf("%s: no evidence", c.name)
			}
			if e := w.last(c.log, RejectToken, "refused"); e.Payload["reason"] != "basic" {
				t.Errorf("%s: evidence %+v", c.name, e)
			}
		}
	})
}

// BenchmarkAuthenticate is what each request pays for its token: one that was
// verified before.
func BenchmarkAuthenticate(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	w.as(bearer)
	b.ReportMetric(float64(len(bearer)), "token-bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Authenticate(b.Context(), bearer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthenticateParallel is the same from every core.
func BenchmarkAuthenticateParallel(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Authenticate(b.Context(), bearer); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkAuthenticateFirst is the first request of a token.
func BenchmarkAuthenticateFirst(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	for b.Loop() {
		w.tokens = newCache[*verified](8)
		if _, err := w.Authenticate(b.Context(), bearer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefresh is a token request without a password.
func BenchmarkRefresh(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	tokens := w.signIn("demo", "ada", adaPassword)
	for b.Loop() {
		var err error
		if tokens, err = w.refresh(tokens.RefreshToken); err != nil {
			b.Fatal(err)
		}
	}
}
