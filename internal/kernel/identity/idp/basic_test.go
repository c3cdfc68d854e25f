package idp

import (
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

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
