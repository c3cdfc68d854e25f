package idp

import (
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func (w *world) refresh(token string) (Tokens, error) {
	return w.try(Request{GrantType: "refresh_token", RefreshToken: token})
}

func TestRefreshTokensRotate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		first := w.signIn("demo", "ada", adaPassword)
		other := w.signIn("demo", "ada", adaPassword)
		w.clock.advance(time.Minute)
		second, err := w.refresh(first.RefreshToken)
		if err != nil || second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken || second.RefreshExpiresIn != 86400 {
			t.Fatalf("refresh: %+v, %v", second, err)
		}
		third, err := w.refresh(second.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		w.as(first.AccessToken)
		w.as(third.AccessToken)

		// The first refresh token comes back: someone else has one of them.
		_, err = w.refresh(first.RefreshToken)
		wants(t, "refresh token used before", err, kernel.Unauthenticated, "INVALID_GRANT")
		var types []string
		for _, e := range w.events("demo") {
			types = append(types, e.Type+" "+e.Outcome)
		}
		if n := len(types); types[n-2] != "identity.token.issue refused" || types[n-1] != "identity.session.revoke accepted" {
			t.Errorf("the log ends with %v, want the refusal and the end of the session", types[n-2:])
		}
		_, err = w.refresh(third.RefreshToken)
		wants(t, "the session's newest refresh token", err, kernel.Unauthenticated, "INVALID_GRANT")
		for name, bearer := range map[string]string{"first": first.AccessToken, "second": second.AccessToken, "third": third.AccessToken} {
			_, err := w.Authenticate(t.Context(), bearer)
			wants(t, name+" access token of the ended session", err, kernel.Unauthenticated, "INVALID_TOKEN")
		}
		w.as(other.AccessToken) // another sign-in of the same person goes on
		if _, err := w.refresh(other.RefreshToken); err != nil {
			t.Errorf("another session of the same person: %v", err)
		}
	})
}

func TestRefreshTokensThatAreNotGood(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	ada := w.signIn("demo", "ada", adaPassword)
	_, err := w.Authenticate(t.Context(), ada.RefreshToken)
	wants(t, "refresh token as bearer", err, kernel.Unauthenticated, "INVALID_TOKEN")
	_, err = w.refresh(ada.AccessToken)
	wants(t, "access token as refresh token", err, kernel.Unauthenticated, "INVALID_GRANT")
	_, err = w.refresh("garbage")
	wants(t, "garbage", err, kernel.Unauthenticated, "INVALID_GRANT")
	_, err = w.try(Request{GrantType: "refresh_token", RefreshToken: ada.RefreshToken, Tenant: "rival"})
	wants(t, "refresh token with another tenant", err, kernel.Unauthenticated, "INVALID_GRANT")
	if _, err := w.refresh(ada.RefreshToken + "\n"); err == nil {
		t.Error("a refresh token in another spelling was accepted")
	}
	if _, err := w.refresh(ada.RefreshToken); err != nil {
		t.Fatalf("none of that may have ended the session: %v", err)
	}

	idle := w.signIn("demo", "ada", adaPassword)
	w.clock.advance(24*time.Hour + time.Second)
	_, err = w.refresh(idle.RefreshToken)
	wants(t, "refresh token that lay too long", err, kernel.Unauthenticated, "INVALID_GRANT")
}

func TestSessionsEndHoweverOftenTheyAreRefreshed(t *testing.T) {
	w := newWorld(t, storetest.Open(t), func(c *Config) { c.SessionTTL = 60 * time.Hour })
	tokens := w.signIn("demo", "ada", adaPassword)
	for day := 1; day <= 2; day++ {
		w.clock.advance(23 * time.Hour)
		var err error
		if tokens, err = w.refresh(tokens.RefreshToken); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	if want := int64((60 - 46) * 3600); tokens.RefreshExpiresIn != want {
		t.Errorf("the last refresh token lasts %d s, want the %d s that are left", tokens.RefreshExpiresIn, want)
	}
	w.clock.advance(15 * time.Hour)
	_, err := w.refresh(tokens.RefreshToken)
	wants(t, "after the session's time", err, kernel.Unauthenticated, "INVALID_GRANT")
}

func TestPasswordAndAccountChangesEndSessions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
		ended := func(what string, tokens Tokens) {
			t.Helper()
			_, err := w.Authenticate(t.Context(), tokens.AccessToken)
			wants(t, "access token after "+what, err, kernel.Unauthenticated, "INVALID_TOKEN")
			_, err = w.refresh(tokens.RefreshToken)
			wants(t, "refresh token after "+what, err, kernel.Unauthenticated, "INVALID_GRANT")
		}
		tokens := w.signIn("demo", "ada", adaPassword)
		w.change(operator, "ada", UserChange{Password: ptr("another-password")})
		ended("a new password", tokens)

		tokens = w.signIn("demo", "ada", "another-password")
		w.change(operator, "ada", UserChange{Disabled: ptr(true)})
		ended("being disabled", tokens)
		w.change(operator, "ada", UserChange{Disabled: ptr(false)})
		ended("being enabled again", tokens)

		tokens = w.signIn("demo", "ada", "another-password")
		if _, err := w.DeleteUser(t.Context(), act(operator, "identity.user.delete"), "ada"); err != nil {
			t.Fatal(err)
		}
		ended("being deleted", tokens)
		if _, _, err := w.CreateUser(t.Context(), act(operator, "identity.user.create"), NewUser{Username: "ada", Password: adaPassword}); err != nil {
			t.Fatal(err)
		}
		ended("another of the same name came", tokens)
	})
}

// The contract lets administrators edit the tables by hand.
func TestAnAccountDisabledInTheDatabaseIsOut(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	tokens := w.signIn("demo", "ada", adaPassword)
	w.do("thing.touch", "demo", func(tx *govern.Tx) error {
		_, err := tx.Exec(`UPDATE auth_users SET disabled = 1 WHERE tenant = 'demo' AND username = 'ada'`)
		return err
	})
	_, err := w.Authenticate(t.Context(), tokens.AccessToken)
	wants(t, "access token", err, kernel.Unauthenticated, "INVALID_TOKEN")
	_, err = w.refresh(tokens.RefreshToken)
	wants(t, "refresh token", err, kernel.Unauthenticated, "INVALID_GRANT")
}

func TestSessionsAreBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		count := func() (n int) {
			if err := db.View(t.Context(), "demo", func(q store.Q) error {
				return q.Get(`SELECT COUNT(*) FROM auth_refresh_tokens WHERE tenant = 'demo'`, nil, &n)
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		first := w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken})
		for range maxSessions + 3 {
			w.clock.advance(time.Millisecond)
			w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken})
		}
		if n := count(); n != maxSessions {
			t.Errorf("%d sessions, want %d", n, maxSessions)
		}
		w.as(first.AccessToken)
		_, err := w.refresh(first.RefreshToken)
		wants(t, "the oldest session", err, kernel.Unauthenticated, "INVALID_GRANT")

		w.clock.advance(25 * time.Hour)
		for range maxSessions / 64 {
			w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken})
		}
		if n := count(); n != maxSessions/64 {
			t.Errorf("%d sessions after the old ones expired, want %d", n, maxSessions/64)
		}
	})
}
