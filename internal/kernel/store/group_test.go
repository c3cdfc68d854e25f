package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// change is an item of the tests' groups: what it does to the database.
type change = func(tx *store.Tx) error

func apply(tx *store.Tx, items []change) error {
	if err := tx.As(store.Platform); err != nil {
		return err
	}
	for _, fn := range items {
		if err := fn(tx); err != nil {
			return err
		}
	}
	return nil
}

// open starts a group and closes it before its database.
func open(t *testing.T, db *store.DB, cfg store.GroupConfig[change]) *store.Group[change] {
	t.Helper()
	if cfg.Apply == nil {
		cfg.Apply = apply
	}
	g := store.NewGroup(db, cfg)
	t.Cleanup(g.Close)
	return g
}

// put inserts one artifact, the smallest row that has a tenant.
func put(tenant, digest string) change {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO artifacts (tenant, digest, kind, media_type, created_at, bytes) VALUES ($1, $2, 'sbom_refs', 'text/plain', 0, $3)`,
			tenant, digest, []byte{1})
		return err
	}
}

// digests are the artifacts that a scope sees of a query without any condition.
func digests(t *testing.T, db *store.DB, scope string) []string {
	t.Helper()
	var out []string
	err := db.View(t.Context(), scope, func(q store.Q) (err error) {
		out, err = store.All(q, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) }, `SELECT digest FROM artifacts ORDER BY digest`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantDigests(t *testing.T, db *store.DB, want ...string) {
	t.Helper()
	if got := digests(t, db, store.Platform); !slices.Equal(got, want) {
		t.Errorf("stored: %q, want %q", got, want)
	}
}

// hold occupies the group's goroutine with a change until release is called.
func hold(t *testing.T, g *store.Group[change]) (release func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	once := sync.OnceFunc(func() { close(entered) })
	go func() {
		done <- g.Submit(context.Background(), func(*store.Tx) error { once(); <-leave; return nil })
	}()
	<-entered
	return sync.OnceFunc(func() {
		close(leave)
		if err := <-done; err != nil {
			t.Errorf("the holding change: %v", err)
		}
	})
}

// waitQueued waits until n items wait for the group's goroutine.
func waitQueued(t *testing.T, g *store.Group[change], n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for g.Queued() != n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d items wait, want %d", g.Queued(), n)
		}
	}
}

// submitAll submits every change at once while the group is held, so that they
// wait together, and returns their outcomes.
func submitAll(t *testing.T, g *store.Group[change], changes ...change) []error {
	t.Helper()
	release := hold(t, g)
	errs := make([]error, len(changes))
	var all sync.WaitGroup
	for i, fn := range changes {
		all.Go(func() { errs[i] = g.Submit(context.Background(), fn) })
	}
	waitQueued(t, g, len(changes))
	release()
	all.Wait()
	return errs
}

func TestSubmitsThatArriveTogetherAreOneCommit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var sizes []int
		var committed int
		g := open(t, db, store.GroupConfig[change]{
			Max:       8,
			Observe:   func(items int, _ time.Duration) { sizes = append(sizes, items) },
			Committed: func(items []change) { committed += len(items) },
		})
		var changes []change
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("d%02d", i))
			changes = append(changes, put("demo", want[i]))
		}
		for i, err := range submitAll(t, g, changes...) {
			if err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		}
		g.Close()
		if want := []int{1, 8, 8, 4}; !slices.Equal(sizes, want) {
			t.Errorf("commits of %v items, want %v: the one that held the group, then groups of at most 8", sizes, want)
		}
		if committed != 21 {
			t.Errorf("Committed was told of %d items, want 21", committed)
		}
		wantDigests(t, db, want...)
	})
}

func TestAFailingItemTakesNoOtherDown(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		if err := g.Submit(t.Context(), put("demo", "there")); err != nil {
			t.Fatal(err)
		}
		odd := errors.New("odd")
		errs := submitAll(t, g, put("demo", "a"), put("demo", "there"), put("demo", "b"),
			func(tx *store.Tx) error { return errors.Join(put("demo", "undone")(tx), odd) }, put("demo", "c"))
		for i, want := range []error{nil, store.ErrExists, nil, odd, nil} {
			if !errors.Is(errs[i], want) {
				t.Errorf("change %d: %v, want %v", i, errs[i], want)
			}
		}
		wantDigests(t, db, "a", "b", "c", "there")
	})
}

func TestAnItemAbandonedBeforeItWasTakenDoesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		release := hold(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Submit(ctx, put("demo", "abandoned")) }()
		waitQueued(t, g, 1)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("abandoned: %v, want context.Canceled", err)
		}
		release()
		if err := g.Submit(t.Context(), put("demo", "later")); err != nil {
			t.Fatal(err)
		}
		wantDigests(t, db, "later")
	})
}

// Once an item is in a transaction, leaving early would report as undone what is done.
func TestATakenItemIsWaitedFor(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		ctx, cancel := context.WithCancel(t.Context())
		err := g.Submit(ctx, func(tx *store.Tx) error {
			cancel()
			return put("demo", "taken")(tx)
		})
		if err != nil {
			t.Errorf("taken: %v, want the outcome, which is success", err)
		}
		wantDigests(t, db, "taken")
	})
}

func TestCloseCommitsWhatWaitsAndRefusesWhatComesLater(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{Max: 2})
		release := hold(t, g)
		want := []string{"a", "b", "c", "d", "e"}
		errs := make(chan error, len(want))
		for _, d := range want {
			go func() { errs <- g.Submit(context.Background(), put("demo", d)) }()
		}
		waitQueued(t, g, len(want))
		closed := make(chan struct{})
		go func() { g.Close(); close(closed) }()
		release()
		for range want {
			if err := <-errs; err != nil {
				t.Errorf("queued before Close: %v", err)
			}
		}
		<-closed
		if err := g.Submit(t.Context(), put("demo", "late")); err == nil || kernel.KindOf(err) != kernel.Unavailable {
			t.Errorf("after Close: %v, want an Unavailable error", err)
		}
		g.Close() // again is harmless
		wantDigests(t, db, want...)
	})
}

// Every Submit that meets a Close gets an answer: stored, or refused.
func TestSubmitsRacingClose(t *testing.T) {
	db := storetest.Open(t)
	for range 200 {
		var applied, stored int
		g := store.NewGroup(db, store.GroupConfig[change]{Apply: apply, Committed: func(items []change) { applied += len(items) }})
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 8 {
			all.Go(func() {
				for {
					err := g.Submit(context.Background(), func(*store.Tx) error { return nil })
					if err != nil {
						if kernel.KindOf(err) != kernel.Unavailable {
							t.Errorf("submit: %v", err)
						}
						return
					}
					mu.Lock()
					stored++
					mu.Unlock()
				}
			})
		}
		g.Close()
		all.Wait()
		if applied != stored {
			t.Fatalf("%d items committed and %d Submits told so", applied, stored)
		}
	}
}

func TestSavepoint(t *testing.T) {
	odd := errors.New("odd")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		err := g.Submit(t.Context(), func(tx *store.Tx) error {
			if err := put("demo", "before")(tx); err != nil {
				return err
			}
			if err := tx.Savepoint(func() error { return put("demo", "kept")(tx) }); err != nil {
				return fmt.Errorf("a savepoint without an error: %w", err)
			}
			err := tx.Savepoint(func() error { return errors.Join(put("demo", "undone")(tx), odd) })
			if !errors.Is(err, odd) || store.Broken(err) {
				return fmt.Errorf("the function's error came back as %w", err)
			}
			// A statement that the database refuses leaves the transaction usable, too.
			err = tx.Savepoint(func() error { return errors.Join(put("demo", "undone")(tx), put("demo", "kept")(tx)) })
			if !errors.Is(err, store.ErrExists) || store.Broken(err) {
				return fmt.Errorf("a unique violation came back as %w", err)
			}
			return put("demo", "later")(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		wantDigests(t, db, "before", "kept", "later")
	})
}

func TestASavepointIsMadeByItsFirstStatement(t *testing.T) {
	odd := errors.New("odd")
	var n int64
	statements := map[string]func(tx *store.Tx) error{
		"exec": put("demo", "x"),
		"get":  func(tx *store.Tx) error { return tx.Get(`SELECT 1`, nil, &n) },
		"query": func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT 1`)
			if err != nil {
				return err
			}
			return rows.Close()
		},
	}
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		for name, statement := range statements {
			err := g.Submit(t.Context(), func(tx *store.Tx) error {
				if err := tx.Savepoint(func() error { return odd }); !errors.Is(err, odd) {
					t.Errorf("a savepoint without statements: %v, want its own error", err)
				}
				err := tx.Savepoint(func() error {
					if tx.SavepointMade() {
						t.Errorf("%s: the savepoint was made before a statement asked for it", name)
					}
					err := statement(tx)
					if !tx.SavepointMade() {
						t.Errorf("%s made no savepoint", name)
					}
					return errors.Join(err, odd)
				})
				if !errors.Is(err, odd) {
					return err
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantDigests(t, db)
	})
}

// The tenant that a savepoint entered goes back with it, and can be entered again.
func TestRolledBackSavepointTakesItsTenantAlong(t *testing.T) {
	db := storetest.Postgres(t)
	g := open(t, db, store.GroupConfig[change]{Apply: func(tx *store.Tx, items []change) error { return items[0](tx) }})
	err := g.Submit(t.Context(), func(tx *store.Tx) error {
		err := tx.Savepoint(func() error {
			return errors.Join(tx.As("alpha"), put("alpha", "undone")(tx), put("beta", "foreign")(tx))
		})
		if err == nil {
			return errors.New("row-level security let alpha write beta's row")
		}
		return tx.Savepoint(func() error { return errors.Join(tx.As("alpha"), put("alpha", "kept")(tx)) })
	})
	if err != nil {
		t.Fatal(err)
	}
	wantDigests(t, db, "kept")
}

// PostgreSQL answers the COMMIT of a transaction that failed with ROLLBACK and no error.
func TestAFailedTransactionIsNotReportedAsCommitted(t *testing.T) {
	db := storetest.Postgres(t)
	g := open(t, db, store.GroupConfig[change]{})
	err := g.Submit(t.Context(), func(tx *store.Tx) error {
		err := put("demo", "lost")(tx)
		if _, failed := tx.Exec(`SELECT 1/0`); failed == nil {
			return errors.New("the statement should have failed")
		}
		return err
	})
	if err == nil {
		t.Error("a transaction that PostgreSQL rolled back was reported as durable")
	}
	if err := g.Submit(t.Context(), put("demo", "next")); err != nil {
		t.Errorf("the next transaction: %v", err)
	}
	wantDigests(t, db, "next")
}

func TestATransactionThatTakesTooLongEnds(t *testing.T) {
	db := storetest.Postgres(t)
	g := open(t, db, store.GroupConfig[change]{Timeout: 100 * time.Millisecond})
	err := g.Submit(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`SELECT pg_sleep(60)`)
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
	if err := g.Submit(t.Context(), put("demo", "next")); err != nil {
		t.Errorf("the next transaction, on a new connection: %v", err)
	}
	wantDigests(t, db, "next")
}

func TestErrorsAreTranslated(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		g := open(t, db, store.GroupConfig[change]{})
		err := g.Submit(t.Context(), func(tx *store.Tx) error {
			var s string
			if err := tx.Get(`SELECT digest FROM artifacts`, nil, &s); !errors.Is(err, store.ErrNoRow) {
				t.Errorf("no row in a transaction: %v, want ErrNoRow", err)
			}
			return put("demo", "once")(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Submit(t.Context(), put("demo", "once")); !errors.Is(err, store.ErrExists) {
			t.Errorf("the same primary key: %v, want ErrExists", err)
		}
		err = g.Submit(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO log_heads (tenant, log_no, size, last_hash, last_at, epoch, verifier, signer) VALUES ('a', 1, 0, '', 0, 1, '', $1), ('b', 1, 0, '', 0, 1, '', $1)`, []byte{})
			return err
		})
		if !errors.Is(err, store.ErrExists) {
			t.Errorf("a unique column: %v, want ErrExists", err)
		}
		err = db.View(t.Context(), store.Platform, func(q store.Q) error {
			var s string
			return q.Get(`SELECT digest FROM artifacts WHERE digest = $1`, []any{"none"}, &s)
		})
		if !errors.Is(err, store.ErrNoRow) {
			t.Errorf("no row in a view: %v, want ErrNoRow", err)
		}
	})
}

func TestViewsCannotWrite(t *testing.T) {
	const insert = `INSERT INTO event_keys (segment, kind, keys) VALUES (1, 1, $1)`
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		writes := map[string]func(q store.Q) error{
			"exec": func(q store.Q) error { _, err := q.Exec(insert, []byte{}); return err },
			"get": func(q store.Q) error {
				var n int64
				return q.Get(insert+` RETURNING segment`, []any{[]byte{}}, &n)
			},
			"query": func(q store.Q) error {
				_, err := store.All(q, func(r *sql.Rows) (n int64, err error) { return n, r.Scan(&n) }, insert+` RETURNING segment`, []byte{})
				return err
			},
		}
		for name, write := range writes {
			if err := db.View(t.Context(), store.Platform, write); err == nil {
				t.Errorf("%s wrote through a view", name)
			}
		}
		var n int64
		err := db.View(t.Context(), store.Platform, func(q store.Q) error { return q.Get(`SELECT COUNT(*) FROM event_keys`, nil, &n) })
		if err != nil || n != 0 {
			t.Errorf("%d rows stored, %v; want none", n, err)
		}
	})
}

// Row-level security is the second guard: the query here forgot its tenant condition.
func TestOtherTenantsRowsAreHidden(t *testing.T) {
	db := storetest.Postgres(t)
	g := open(t, db, store.GroupConfig[change]{})
	event := func(tenant string, pos int64) change {
		return func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO events (pos, tenant, id, at, outcome, k_type, k_actor, k_resource, k_corr, k_evidence, event, decision)
				VALUES ($1, $2, $3, 0, 0, 0, 0, 0, 0, 0, $3, $3)`, pos, tenant, []byte{byte(pos)})
			return err
		}
	}
	for _, fn := range []change{put("alpha", "a"), put("beta", "b"), event("alpha", 1), event("beta", 2), event("beta", 3)} {
		if err := g.Submit(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	for scope, want := range map[string]struct{ artifacts, events int64 }{
		"alpha": {1, 1}, "beta": {1, 2}, "gamma": {0, 0}, "": {0, 0}, "%": {0, 0}, store.Platform: {2, 3},
	} {
		var artifacts, events int64
		err := db.View(t.Context(), scope, func(q store.Q) error {
			return errors.Join(q.Get(`SELECT COUNT(*) FROM artifacts`, nil, &artifacts), q.Get(`SELECT COUNT(*) FROM events`, nil, &events))
		})
		if err != nil || artifacts != want.artifacts || events != want.events {
			t.Errorf("%q sees %d artifacts, %d events, %v; want %+v", scope, artifacts, events, err, want)
		}
	}
	for name, statement := range map[string]string{"update": `UPDATE artifacts SET kind = 'changed'`, "delete": `DELETE FROM artifacts`} {
		var n int64
		err := g.Submit(t.Context(), func(tx *store.Tx) (err error) {
			if err := tx.As("gamma"); err != nil {
				return err
			}
			n, err = tx.Exec(statement)
			return err
		})
		if err != nil || n != 0 {
			t.Errorf("%s by another tenant touched %d rows, %v; want none", name, n, err)
		}
	}
	wantDigests(t, db, "a", "b")
}

func TestReopeningKeepsWhatIsThereAndRefusesANewerSchema(t *testing.T) {
	for name, newURL := range map[string]func(testing.TB) string{"sqlite": storetest.SQLiteURL, "postgres": storetest.PostgresURL} {
		t.Run(name, func(t *testing.T) {
			url := newURL(t)
			first := versions(t, url, put("demo", "kept"))
			again := versions(t, url, func(tx *store.Tx) error {
				_, err := tx.Exec(`INSERT INTO schema_version (version, name) VALUES (9999, '9999_future.sql')`)
				return err
			})
			if len(first) == 0 || !slices.Equal(first, again) {
				t.Errorf("migrations %v, after reopening %v; want the same ones, once each", first, again)
			}
			db, err := store.Open(t.Context(), store.Config{URL: url, MaxConns: 4})
			if err == nil {
				t.Error("a schema newer than the binary was opened")
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// versions opens the database, returns its migrations, and makes a change.
func versions(t *testing.T, url string, fn change) (out []int64) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = db.View(t.Context(), store.Platform, func(q store.Q) (err error) {
		out, err = store.All(q, func(r *sql.Rows) (n int64, err error) { return n, r.Scan(&n) }, `SELECT version FROM schema_version ORDER BY version`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	g := store.NewGroup(db, store.GroupConfig[change]{Apply: apply})
	defer g.Close()
	if err := g.Submit(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
	return out
}
