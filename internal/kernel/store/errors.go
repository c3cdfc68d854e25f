package store

import (
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"provost.dev/provost/internal/kernel"
)

// translate turns a driver's error into one of ours, by code, never by text.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoRow
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return translateSQLite(e)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return translatePostgres(e)
	}
	return err
}

func translateSQLite(e *sqlite.Error) error {
	switch e.Code() {
	case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_ROWID:
		return errors.Join(ErrExists, e)
	}
	switch e.Code() & 0xff { // extended codes carry the primary one in the low byte
	case lib.SQLITE_FULL:
		return unavailable("the disk is full; nothing was changed", e)
	case lib.SQLITE_IOERR, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN:
		return unavailable("the database cannot be written; nothing was changed", e)
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return unavailable("the database is busy", e)
	}
	return e
}

// Codes: https://www.postgresql.org/docs/15/errcodes-appendix.html
func translatePostgres(e *pgconn.PgError) error {
	switch e.Code {
	case "23505": // unique_violation
		return errors.Join(ErrExists, e)
	case "53100": // disk_full
		return unavailable("the database's disk is full; nothing was changed", e)
	case "40001", "40P01", "55P03": // serialization_failure, deadlock_detected, lock_not_available
		return errors.Join(errRetry, e)
	case "57P01", "57P02", "57P03", "53300": // shutting down, crashed, starting, too many connections
		return unavailable("the database is not accepting work", e)
	}
	return e
}

// errRetry marks a transaction that lost a race and may simply run again.
var errRetry = errors.New("transaction conflict")

func unavailable(msg string, err error) error {
	return &kernel.Error{Kind: kernel.Unavailable, Msg: msg, Class: "dependency_unavailable_fail_closed", Err: err}
}
