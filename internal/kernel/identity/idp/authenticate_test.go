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
	"provost.dev/provost/internal/kernel/identity/token"
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

		signIn := func(rt *rapid.T) {
			tokens, err := w.try(Request{Tenant: "demo", Username: name, Password: pass})
			if (err == nil) != (exists && !disabled) {
				rt.Fatalf("sign in: %v while exists is %t, disabled %t", err, exists, disabled)
			}
			if err == nil {
				bearer, good = tokens.AccessToken, true
			}
		}
		check := func(rt *rapid.T) {
			if !good {
				if p, err := w.Authenticate(ctx, bearer); err == nil || kernel.KindOf(err) != kernel.Unauthenticated {
					rt.Fatalf("a token that should be void: %v, %v", p, err)
				}
				if signIn(rt); !good {
					return
				}
			}
			p, err := w.Authenticate(ctx, bearer)
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
			"":        check,
			"sign in": signIn,
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
