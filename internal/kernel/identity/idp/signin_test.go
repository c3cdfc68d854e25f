package idp

import (
	"strings"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/password"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestSignIn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		for _, c := range []struct {
			name      string
			request   Request
			principal string
			refresh   bool
		}{
			{"tenant beside the name", Request{Tenant: "demo", Username: "ada", Password: adaPassword}, "ada@demo", true},
			{"tenant in the name", Request{Username: "ada@demo", Password: adaPassword}, "ada@demo", true},
			{"tenant twice", Request{Tenant: "demo", Username: "ada@demo", Password: adaPassword}, "ada@demo", true},
			{"the other tenant's operator", Request{Tenant: "rival", Username: "operator", Password: rivalPassword}, "operator@rival", true},
			{"platform administrator without tenant", Request{Username: "admin", Password: adminPassword}, "admin@system", true},
			{"who may do nothing", Request{Tenant: "demo", Username: "nobody", Password: adaPassword}, "nobody@demo", true},
			{"client credentials", Request{GrantType: "client_credentials", Tenant: "demo", ClientID: "svc-plain", ClientSecret: plainSecret}, "svc-plain@demo", false},
			{"client id with tenant", Request{GrantType: "client_credentials", ClientID: "svc-plain@demo", ClientSecret: plainSecret}, "svc-plain@demo", false},
			{"workspace secret", Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken}, "workspace@demo", true},
		} {
			got, err := w.try(c.request)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			p := w.as(got.AccessToken)
			if p.ID() != c.principal || got.TokenType != "Bearer" || got.ExpiresIn != 3600 || !got.ExpiresAt.Equal(w.clock.now().Add(time.Hour)) || !p.Expires.Equal(got.ExpiresAt) {
				t.Errorf("%s: got %s, %+v", c.name, p.ID(), got)
			}
			if (got.RefreshToken != "") != c.refresh || (got.RefreshExpiresIn == 86400) != c.refresh {
				t.Errorf("%s: refresh token %t for %d s, want %t", c.name, got.RefreshToken != "", got.RefreshExpiresIn, c.refresh)
			}
			e := w.last(p.Tenant, "identity.token.issue", "accepted")
			if e.Actor != c.principal || e.Correlation != "corr-test" || e.Payload["token_id"] != p.Credential {
				t.Errorf("%s: evidence %+v, want the actor %s and token %s", c.name, e, c.principal, p.Credential)
			}
		}
	})
}

func TestRightsOfATokenAreRolesAndDirectGrants(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	p := w.as(w.signIn("demo", "ada", adaPassword).AccessToken)
	if !p.Holds("workloads.write") || !p.Holds("events.read") || p.Holds("users.write") || p.Kind != identity.Human ||
		len(p.Roles) != 1 || p.Roles[0] != "developer" || len(p.Groups) != 1 || p.Groups[0] != "QA" {
		t.Errorf("ada: %+v", p)
	}
	if p := w.as(w.signIn("demo", "nobody", adaPassword).AccessToken); len(p.Permissions) != 0 {
		t.Errorf("nobody holds %v", p.Permissions)
	}
	p = w.as(w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken}).AccessToken)
	if strings.Join(p.Permissions, " ") != "tasks.read tasks.write" || p.Kind != identity.Service {
		t.Errorf("workspace: %+v", p)
	}
}

// One answer for everything that is wrong: names, tenants and disabled
// accounts cannot be told apart by who has no password (OMC-27).
func TestBadCredentialsAreAlike(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.setStatus("rival", "deleted")
		var first *kernel.Error
		for _, c := range []struct {
			name    string
			request Request
			log     string
		}{
			{"wrong password", Request{Tenant: "demo", Username: "ada", Password: "wrong-password"}, "demo"},
			{"unknown user", Request{Tenant: "demo", Username: "mallory", Password: "wrong-password"}, "demo"},
			{"disabled user", Request{Tenant: "demo", Username: "eve", Password: "wrong-password"}, "demo"},
			{"unknown tenant", Request{Tenant: "nowhere", Username: "ada", Password: adaPassword}, "system"},
			{"deleted tenant", Request{Tenant: "rival", Username: "operator", Password: rivalPassword}, "system"},
			{"no tenant", Request{Username: "ada", Password: adaPassword}, "system"},
			{"another's tenant", Request{Tenant: "demo", Username: "admin", Password: adminPassword}, "demo"},
			{"service account by password", Request{Tenant: "demo", Username: "svc-plain", Password: plainSecret}, "demo"},
			{"name that is no name", Request{Tenant: "demo", Username: "A\nB", Password: "wrong-password"}, "demo"},
			{"tenant that is no tenant", Request{Tenant: "*", Username: "ada", Password: adaPassword}, "system"},
			{"wrong client secret", Request{GrantType: "client_credentials", Tenant: "demo", ClientID: "svc-plain", ClientSecret: planSecret}, "demo"},
			{"unknown client", Request{GrantType: "client_credentials", Tenant: "demo", ClientID: "svc-none", ClientSecret: planSecret}, "demo"},
			{"person as client", Request{GrantType: "client_credentials", Tenant: "demo", ClientID: "ada", ClientSecret: adaPassword}, "demo"},
			{"wrong workspace secret", Request{WorkspaceID: "demo", WorkspaceSecret: "wrong-secret"}, "demo"},
			{"unknown workspace", Request{WorkspaceID: "nowhere", WorkspaceSecret: workspaceToken}, "system"},
		} {
			before := len(w.events(c.log))
			_, err := w.try(c.request)
			wants(t, c.name, err, kernel.Unauthenticated, "INVALID_CREDENTIALS")
			e := kernel.AsError(err)
			if first == nil {
				first = e
			}
			if e.Msg != first.Msg || e.Fix != first.Fix || e.Rule != first.Rule || e.Field != first.Field || e.Class != first.Class {
				t.Errorf("%s: answered %+v, unlike %+v", c.name, e, first)
			}
			if after := w.events(c.log); len(after) != before+1 {
				t.Errorf("%s: %d events in the log of %s, want one", c.name, len(after)-before, c.log)
			} else if last := after[before]; last.Outcome != "refused" || last.Type != "identity.token.issue" || last.Class != evidence.ClassAuthority || e.Pointer == "" {
				t.Errorf("%s: evidence %+v, pointer %q", c.name, last, e.Pointer)
			}
		}
	})
}

func TestOnlyTheOwnerLearnsThatAnAccountIsDisabled(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	_, err := w.try(Request{Tenant: "demo", Username: "eve", Password: evePassword})
	wants(t, "disabled account, right password", err, kernel.Refused, "ACCOUNT_DISABLED")
	if e := w.last("demo", "identity.token.issue", "refused"); e.Resource != "user/eve" {
		t.Errorf("evidence %+v, want user/eve", e)
	}
}

// What is typed into the name field may be the password.
func TestNamesThatAreNoNamesAreNotRecorded(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	if _, err := w.try(Request{Tenant: "demo", Username: "Tr0ub4dor&3", Password: "x"}); err == nil {
		t.Fatal("signed in")
	}
	if lines := strings.Join(w.lines("demo"), "\n"); strings.Contains(lines, "Tr0ub4dor") {
		t.Error("what was typed as a name is in the log")
	}
}

func TestScopeOnlyNarrows(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	ask := Request{Tenant: "demo", Username: "ada", Password: adaPassword}

	ask.Scope = ScopeList{"workloads.read", "tasks.read"}
	got := w.exchange(ask)
	if p := w.as(got.AccessToken); strings.Join(p.Permissions, " ") != "tasks.read workloads.read" || got.Scope != "" {
		t.Errorf("got %v, scope %q; want what was asked for", p.Permissions, got.Scope)
	}
	// A refreshed token has the scope of the sign-in, and can have less.
	again := w.exchange(Request{GrantType: "refresh_token", RefreshToken: got.RefreshToken, Scope: ScopeList{"tasks.read", "events.read"}})
	if p := w.as(again.AccessToken); strings.Join(p.Permissions, " ") != "tasks.read" || again.Scope != "tasks.read" {
		t.Errorf("refreshed: got %v, scope %q; want tasks.read", p.Permissions, again.Scope)
	}
	back := w.exchange(Request{GrantType: "refresh_token", RefreshToken: again.RefreshToken})
	if p := w.as(back.AccessToken); strings.Join(p.Permissions, " ") != "tasks.read workloads.read" {
		t.Errorf("refreshed again: got %v, want the scope of the sign-in", p.Permissions)
	}

	ask.Scope = ScopeList{"tasks.read", "users.write"}
	if got := w.exchange(ask); got.Scope != "tasks.read" || w.as(got.AccessToken).Holds("users.write") {
		t.Errorf("a scope beyond what is held: %+v", got)
	}
	ask.Scope = ScopeList{"users.write"}
	_, err := w.try(ask)
	wants(t, "scope of nothing that is held", err, kernel.Invalid, "INVALID_SCOPE")

	// A scope outlives a change of rights.
	ask.Scope = ScopeList{"tasks.read"}
	bearer := w.exchange(ask).AccessToken
	operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
	w.change(operator, "ada", UserChange{Roles: &[]string{"operator"}})
	if p := w.as(bearer); strings.Join(p.Permissions, " ") != "tasks.read" {
		t.Errorf("after a promotion the narrowed token holds %v", p.Permissions)
	}
}

func TestRoleTokens(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	got := w.exchange(Request{GrantType: "client_credentials", ClientID: "svc-plan-orchestrator@demo", ClientSecret: planSecret, Audience: RoleAudience})
	if got.ExpiresIn != 900 || got.RefreshToken != "" {
		t.Errorf("got %d s, refresh token %t; want 15 minutes and none", got.ExpiresIn, got.RefreshToken != "")
	}
	_, err := w.Authenticate(t.Context(), got.AccessToken)
	wants(t, "role token at our own API", err, kernel.Unauthenticated, "INVALID_TOKEN")
	p, err := w.AuthenticateFor(t.Context(), RoleAudience, got.AccessToken)
	if err != nil || p.Name != "svc-plan-orchestrator" {
		t.Fatalf("at the orchestrator: %v, %v", p, err)
	}
	_, err = w.Authenticate(t.Context(), got.AccessToken) // it is in the cache now
	wants(t, "role token at our own API, verified before", err, kernel.Unauthenticated, "INVALID_TOKEN")

	var claims map[string]any
	decodeClaims(t, got.AccessToken, &claims)
	if claims["role_id"] != "PLAN" || claims["scope"] != "roadmap.read workflow.write.plan" || claims["aud"] != RoleAudience && claims["aud"].([]any)[0] != RoleAudience {
		t.Errorf("claims %v", claims)
	}
	_, err = w.try(Request{GrantType: "client_credentials", ClientID: "svc-plain@demo", ClientSecret: plainSecret, Audience: RoleAudience})
	wants(t, "service without a work role", err, kernel.Refused, "ROLE_REQUIRED")
	if got := w.exchange(Request{Username: "ada@demo", Password: adaPassword, Audience: RoleAudience}); got.ExpiresIn != 900 || got.RefreshToken != "" {
		t.Errorf("an approver's token: %+v", got)
	}
}

func TestSuspendedTenantsSignInAndDeletedOnesDoNot(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	before := w.signIn("demo", "ada", adaPassword)
	w.setStatus("demo", "suspended")
	w.as(before.AccessToken)
	again := w.exchange(Request{GrantType: "refresh_token", RefreshToken: w.signIn("demo", "ada", adaPassword).RefreshToken})
	if _, _, err := w.CreateUser(t.Context(), act(w.as(w.signIn("demo", "operator", operatorPass).AccessToken), "identity.user.create"), NewUser{Username: "bob"}); err == nil ||
		kernel.AsError(err).Rule != "tenant.suspended" {
		t.Errorf("creating a user in a suspended tenant: %v, want tenant.suspended", err)
	}

	w.setStatus("demo", "deleted")
	for _, bearer := range []string{before.AccessToken, again.AccessToken} {
		_, err := w.Authenticate(t.Context(), bearer)
		wants(t, "token of a deleted tenant", err, kernel.Unauthenticated, "INVALID_TOKEN")
	}
	_, err := w.try(Request{GrantType: "refresh_token", RefreshToken: again.RefreshToken})
	wants(t, "refresh in a deleted tenant", err, kernel.Unauthenticated, "INVALID_GRANT")
}

func TestPolicyCanForbidASignIn(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	set, err := w.schema.Compile("mine", "1", `@id("no-passwords") @reason("this tenant takes no passwords")
		forbid (principal, action == Action::"identity.token.issue", resource) when { resource has grant && resource.grant == "password" };`)
	if err != nil {
		t.Fatal(err)
	}
	w.views.mu.Lock()
	w.views.tenant["demo"] = set
	w.views.mu.Unlock()
	w.setStatus("demo", "active")
	_, err = w.try(Request{Tenant: "demo", Username: "ada", Password: adaPassword})
	if err == nil || kernel.AsError(err).Rule != "no-passwords" {
		t.Errorf("got %v by rule %q, want no-passwords", err, kernel.AsError(err).Rule)
	}
	w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken})
}

func TestPasswordsKeptAtAnotherCostAreHashedAgain(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	stored := func() (hash string) {
		if err := w.db.View(t.Context(), "demo", func(q store.Q) error {
			a, err := loadAccount(q, user, "demo", "ada")
			if err == nil {
				hash = a.password
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return hash
	}
	before := stored()
	if w.signIn("demo", "ada", adaPassword); stored() != before {
		t.Error("a hash at today's cost was replaced")
	}
	w.cfg.Passwords = password.New(password.Config{MemoryKiB: 128, Passes: 1})
	old := w.signIn("demo", "ada", adaPassword)
	if after := stored(); after == before || !strings.Contains(after, "m=128,") {
		t.Errorf("kept %q, want a hash at the new cost", after)
	}
	w.signIn("demo", "ada", adaPassword)
	w.as(old.AccessToken) // the password is the same: nothing ends
}

func TestAnAccountThatChangesDuringItsSignInGetsNoToken(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	r := Request{Tenant: "demo", Username: "ada", Password: adaPassword}
	if err := r.complete(); err != nil {
		t.Fatal(err)
	}
	a := &attempt{Request: r}
	if err := w.recognise(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.do("thing.touch", "demo", func(tx *govern.Tx) error {
		_, err := tx.Exec(`UPDATE auth_users SET disabled = 1 WHERE tenant = 'demo' AND username = 'ada'`)
		return err
	})
	_, _, err := w.issue(t.Context(), a)
	wants(t, "issue after the account was disabled", err, kernel.Unauthenticated, "INVALID_CREDENTIALS")
}
