package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Migrations are NNNN_name.sql, run on both databases in order, each in its own
// transaction; NNNN_name.postgres.sql beside one holds what only PostgreSQL has
// (row-level security) and runs in the same transaction.
//
//go:embed migrations/*.sql
var migrations embed.FS

type migration struct {
	version  int
	name     string
	sql      string
	postgres string
}

func loadMigrations() ([]migration, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var out []migration
	for _, n := range names { // Glob sorts: 0001_x.postgres.sql comes before 0001_x.sql
		text, err := migrations.ReadFile(n)
		if err != nil {
			return nil, err
		}
		base := strings.TrimPrefix(n, "migrations/")
		v, err := strconv.Atoi(base[:4])
		if err != nil {
			return nil, fmt.Errorf("migration %s: name must start with four digits", base)
		}
		if len(out) == 0 || out[len(out)-1].version != v {
			out = append(out, migration{version: v})
		}
		m := &out[len(out)-1]
		if strings.HasSuffix(base, ".postgres.sql") {
			m.postgres = string(text)
		} else {
			m.name, m.sql = base, string(text)
		}
	}
	return out, nil
}

// forSQLite turns the schema's one difference: a 64-bit integer key is the
// table's rowid in SQLite only when it is spelled INTEGER PRIMARY KEY.
func forSQLite(text string) string {
	return strings.ReplaceAll(text, "BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY")
}

func (db *DB) migrate(ctx context.Context) error {
	all, err := loadMigrations()
	if err != nil {
		return err
	}
	c, err := db.write.Conn(ctx)
	if err != nil {
		return translate(err)
	}
	defer c.Close()
	if db.postgres { // one replica migrates, the others wait for it
		if _, err := c.ExecContext(ctx, `SELECT pg_advisory_lock(5001)`); err != nil {
			return translate(err)
		}
		defer c.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(5001)`) //nolint:errcheck // ends with the connection
	}
	if _, err := c.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL, name TEXT NOT NULL)`); err != nil {
		return translate(err)
	}
	var have int
	if err := c.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&have); err != nil {
		return translate(err)
	}
	if newest := all[len(all)-1].version; have > newest {
		return fmt.Errorf("schema version %d is newer than this binary's %d; run the newer binary", have, newest)
	}
	for _, m := range all {
		if m.version <= have {
			continue
		}
		if err := db.apply(ctx, c, m); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (db *DB) apply(ctx context.Context, c *sql.Conn, m migration) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return translate(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	text := m.sql
	if !db.postgres {
		text = forSQLite(text)
	} else if m.postgres != "" {
		text += "\n" + m.postgres
	}
	if _, err := tx.ExecContext(ctx, text); err != nil {
		return translate(err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, name) VALUES ($1, $2)`, m.version, m.name); err != nil {
		return translate(err)
	}
	return translate(tx.Commit())
}
