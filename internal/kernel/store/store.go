// Package store opens the database, brings its schema up to date and commits
// writes in groups.
//
// One text of SQL serves SQLite and PostgreSQL: $1 parameters, RETURNING,
// upserts, times as integers of UTC microseconds, JSON as text. What differs
// between the two stays in this package: opening, row-level security, error
// codes, and one spelling in the schema (see migrate.go).
//
// There is one way to write, [Group]: callers' changes are drained into a
// single transaction so that one fsync pays for many. Reads go through
// [DB.View], always on behalf of a tenant.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver named "sqlite"

	"provost.dev/provost/internal/kernel"
)

// Platform is the scope of bookkeeping that belongs to no single tenant: log
// heads, jobs, sign-in look-ups. Row-level security lets it see every row, so
// it is for the kernel, never for a query made from a request's input.
const Platform = "*"

// Q runs SQL on behalf of one tenant, inside one transaction (Tx) or on a
// read snapshot (View). Errors are translated: a missing row is ErrNoRow, a
// broken uniqueness rule is ErrExists, a full disk is kernel.Unavailable.
type Q interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(query string, args ...any) (int64, error)
	// Query returns rows; the caller closes them. Prefer All.
	Query(query string, args ...any) (*sql.Rows, error)
	// Get scans the first row into dest, or returns ErrNoRow.
	Get(query string, args []any, dest ...any) error
}

var (
	// ErrNoRow says that a query meant to return a row returned none.
	ErrNoRow = errors.New("no such row")
	// ErrExists says that a row with the same key is already there.
	ErrExists = errors.New("already exists")
)

// All collects every row of a query with scan.
func All[T any](q Q, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("scan row: %w", err)
		}
		out = append(out, v)
	}
	return out, translate(rows.Err())
}

// DB is an open database. Safe for concurrent use.
type DB struct {
	postgres bool
	write    *sql.DB // SQLite: exactly one connection
	read     *sql.DB
	stmts    sync.Map // query text → *sql.Stmt on read; SQLite only
	log      *slog.Logger
}

// Config says which database to open.
type Config struct {
	// URL is "sqlite:PATH" or a PostgreSQL URL ("postgres://…"). A path alone means SQLite.
	URL string
	// MaxConns bounds the PostgreSQL pool; 0 means 16. SQLite uses one writer and 4 readers.
	MaxConns int
	// Logger gets slow-path warnings; nil discards.
	Logger *slog.Logger
}

// Open opens the database and migrates it to the newest schema. A database
// newer than this binary is refused.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	db := &DB{log: cfg.Logger}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if strings.HasPrefix(cfg.URL, "postgres://") || strings.HasPrefix(cfg.URL, "postgresql://") {
		err = db.openPostgres(ctx, cfg)
	} else {
		err = db.openSQLite(ctx, strings.TrimPrefix(cfg.URL, "sqlite:"))
	}
	if err != nil {
		return nil, err
	}
	if err := db.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), db.Close())
	}
	return db, nil
}

// Pragmas are per connection, so they travel in the DSN. FULL makes an
// acknowledged commit survive power loss; the negative cache size is in KiB.
func (db *DB) openSQLite(ctx context.Context, path string) error {
	if strings.Contains(path, "://") { // not repeated: it may hold a password
		return &kernel.Error{Kind: kernel.Invalid, Field: "database.url", Msg: "is of a kind that is not supported; write sqlite:/path/provost.db or postgres://…"}
	}
	if path == "" {
		return &kernel.Error{Kind: kernel.Invalid, Field: "database.url", Msg: "names no file; write sqlite:/path/provost.db"}
	}
	dsn := func(extra ...string) string {
		v := url.Values{"_pragma": append([]string{"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)",
			"foreign_keys(1)", "temp_store(MEMORY)"}, extra...)}
		v.Set("_txlock", "immediate")
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
	}
	var err error
	if db.write, err = sql.Open("sqlite", dsn("cache_size(-16384)", "wal_autocheckpoint(4000)")); err != nil {
		return fmt.Errorf("open sqlite: %w", err)
	}
	db.write.SetMaxOpenConns(1)
	if err := db.write.PingContext(ctx); err != nil {
		return errors.Join(fmt.Errorf("open sqlite %s: %w", path, err), db.write.Close())
	}
	if db.read, err = sql.Open("sqlite", dsn("query_only(1)", "cache_size(-4096)")); err != nil {
		return errors.Join(fmt.Errorf("open sqlite: %w", err), db.write.Close())
	}
	db.read.SetMaxOpenConns(4)
	db.read.SetMaxIdleConns(4)
	return nil
}

func (db *DB) openPostgres(ctx context.Context, cfg Config) error {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return &kernel.Error{Kind: kernel.Invalid, Field: "database.url", Msg: "is not a PostgreSQL URL"} // err would echo the password
	}
	pc.MaxConns = 16
	if cfg.MaxConns > 0 {
		pc.MaxConns = int32(cfg.MaxConns)
	}
	pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return fmt.Errorf("open postgres: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return fmt.Errorf("reach postgres: %w", err)
	}
	db.postgres = true
	db.write = stdlib.OpenDBFromPool(pool)
	db.read = db.write
	return nil
}

// Postgres reports whether the database is PostgreSQL, shared with other replicas.
func (db *DB) Postgres() bool { return db.postgres }

// Close closes every connection. Nothing may be in flight.
func (db *DB) Close() error {
	err := db.write.Close()
	if db.read != db.write {
		err = errors.Join(err, db.read.Close())
	}
	return err
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error { return translate(db.read.PingContext(ctx)) }

// Size is how many bytes the database takes.
func (db *DB) Size(ctx context.Context) (n int64, err error) {
	query := `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	if db.postgres {
		query = `SELECT pg_database_size(current_database())`
	}
	return n, translate(db.read.QueryRowContext(ctx, query).Scan(&n))
}

// View runs fn on a consistent read snapshot as tenant. On PostgreSQL the
// tenant is also what row-level security sees.
func (db *DB) View(ctx context.Context, tenant string, fn func(Q) error) error {
	if !db.postgres {
		return fn(reader{ctx, db})
	}
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return translate(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	q := conn{ctx: ctx, c: tx}
	if _, err := q.Exec(`SELECT set_config('provost.tenant', $1, true)`, tenant); err != nil {
		return err
	}
	return fn(q)
}

// reader is a SQLite read handle: each statement is its own snapshot, which is
// enough for single-statement reads; a page of a list is one statement.
type reader struct {
	ctx context.Context
	db  *DB
}

func (r reader) stmt(query string) (*sql.Stmt, error) {
	if s, ok := r.db.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := r.db.read.PrepareContext(context.WithoutCancel(r.ctx), query)
	if err != nil {
		return nil, translate(err)
	}
	if old, raced := r.db.stmts.LoadOrStore(query, s); raced {
		s.Close()
		return old.(*sql.Stmt), nil
	}
	return s, nil
}

func (r reader) Exec(query string, args ...any) (int64, error) {
	return 0, errors.New("write on a read handle: " + query)
}

func (r reader) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := r.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(r.ctx, args...)
	return rows, translate(err)
}

func (r reader) Get(query string, args []any, dest ...any) error {
	s, err := r.stmt(query)
	if err != nil {
		return err
	}
	return translate(s.QueryRowContext(r.ctx, args...).Scan(dest...))
}

// conn runs statements on one connection or transaction, without a cache of ours.
type conn struct {
	ctx context.Context
	c   interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}
}

func (q conn) Exec(query string, args ...any) (int64, error) {
	res, err := q.c.ExecContext(q.ctx, query, args...)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

func (q conn) Query(query string, args ...any) (*sql.Rows, error) {
	rows, err := q.c.QueryContext(q.ctx, query, args...)
	return rows, translate(err)
}

func (q conn) Get(query string, args []any, dest ...any) error {
	return translate(q.c.QueryRowContext(q.ctx, query, args...).Scan(dest...))
}

// Micros is t as the database stores it: UTC microseconds since 1970; the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the reverse of Micros.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
