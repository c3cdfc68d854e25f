package idp

import (
	"strings"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

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
