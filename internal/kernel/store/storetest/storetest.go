// Package storetest gives tests real databases: an empty, migrated SQLite file
// or PostgreSQL database for each test, both gone when the test ends.
//
// The PostgreSQL cluster is the test binary's own. It listens on nothing but a
// socket in a private folder, starts when the first test asks for it, and ends
// with the binary: call [Main] from TestMain. Tests connect as an ordinary role
// that owns its database, so that row-level security is enforced as it is in
// production.
package storetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"provost.dev/provost/internal/kernel/store"
)

// Require is the environment variable that makes a missing PostgreSQL a
// failure instead of a skipped test: "1" for what must not be skipped.
const Require = "PROVOST_REQUIRE_POSTGRES"

// Main runs the package's tests and stops the cluster. It is what TestMain calls.
func Main(m *testing.M) {
	shared.managed = true
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Each runs a test on SQLite and on PostgreSQL.
func Each(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// Open is SQLite: what a test uses that does not care.
func Open(tb testing.TB) *store.DB {
	tb.Helper()
	return SQLite(tb)
}

// SQLite opens a new SQLite database.
func SQLite(tb testing.TB) *store.DB {
	tb.Helper()
	return open(tb, SQLiteURL(tb))
}

// SQLiteURL is the URL of a database that does not exist yet.
func SQLiteURL(tb testing.TB) string {
	tb.Helper()
	return "sqlite:" + filepath.Join(tb.TempDir(), "provost.db")
}

// Postgres opens a new PostgreSQL database. Without PostgreSQL on this host it
// skips the test, or fails it where [Require] says so.
func Postgres(tb testing.TB) *store.DB {
	tb.Helper()
	return open(tb, PostgresURL(tb))
}

// PostgresURL makes an empty PostgreSQL database, owned by a role without
// privileges, and returns its URL: for tests of two replicas, or of opening.
func PostgresURL(tb testing.TB) string {
	tb.Helper()
	if !shared.managed {
		tb.Fatal("storetest: the cluster would outlive the tests; write func TestMain(m *testing.M) { storetest.Main(m) }")
	}
	if err := shared.start(); err != nil {
		if os.Getenv(Require) == "1" {
			tb.Fatalf("storetest: %s=1 and PostgreSQL does not run: %v", Require, err)
		}
		tb.Skipf("NOT TESTED ON POSTGRESQL: %v", err)
	}
	url, drop, err := shared.database()
	if err != nil {
		tb.Fatal("storetest:", err)
	}
	tb.Cleanup(func() {
		if err := drop(); err != nil {
			tb.Error("storetest:", err)
		}
	})
	return url
}

func open(tb testing.TB, url string) *store.DB {
	tb.Helper()
	db, err := store.Open(tb.Context(), store.Config{URL: url, MaxConns: 8})
	if err != nil {
		tb.Fatal("storetest:", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error("storetest: close database:", err)
		}
	})
	return db
}
