package storetest_test

import (
	"errors"
	"testing"

	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func TestEveryTestHasItsOwnMigratedDatabase(t *testing.T) {
	for range 2 {
		storetest.Each(t, func(t *testing.T, db *store.DB) {
			var versions, heads int
			err := db.View(t.Context(), store.Platform, func(q store.Q) error {
				return errors.Join(q.Get(`SELECT COUNT(*) FROM schema_version`, nil, &versions), q.Get(`SELECT COUNT(*) FROM log_heads`, nil, &heads))
			})
			if err != nil || versions == 0 || heads != 0 {
				t.Fatalf("got %d migrations, %d logs, %v; want a migrated, empty database", versions, heads, err)
			}
			g := store.NewGroup(db, store.GroupConfig[string]{Apply: func(tx *store.Tx, items []string) error {
				_, err := tx.Exec(`INSERT INTO log_heads (tenant, log_no, size, last_hash, last_at, epoch, verifier, signer) VALUES ('demo', 1, 0, '', 0, 1, '', $1)`, []byte{})
				return err
			}})
			defer g.Close()
			if err := g.Submit(t.Context(), "demo"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Tests as a superuser would show nothing about row-level security.
func TestRowLevelSecurityIsEnforced(t *testing.T) {
	db := storetest.Postgres(t)
	var exempt bool
	err := db.View(t.Context(), store.Platform, func(q store.Q) error {
		return q.Get(`SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user`, nil, &exempt)
	})
	if err != nil || exempt {
		t.Errorf("the tests' role is exempt from row-level security: %v, %v", exempt, err)
	}
}
