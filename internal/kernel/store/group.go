package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"provost.dev/provost/internal/kernel"
)

// Group commits changes in groups: while one transaction is being made
// durable, the changes that arrive wait together, and all of them become the
// next transaction. There is no timer; a lone change commits at once.
//
//	Submit ─┐
//	Submit ─┼─▶ queue ─▶ begin ─▶ apply(tx, items) ─▶ commit (one fsync) ─▶ every Submit returns
//	Submit ─┘
//
// A Group owns one goroutine. On SQLite one Group is the only writer.
type Group[T any] struct {
	db    *DB
	cfg   GroupConfig[T]
	queue chan *ticket[T]

	stop chan struct{}
	done chan struct{}
	// gate is held by Submits while they send, and by Close to shut it.
	gate   sync.RWMutex
	closed bool
	// pending is how many Submits wait, in the queue or for their transaction.
	pending atomic.Int64
}

// GroupConfig says how a Group's transactions are made.
type GroupConfig[T any] struct {
	// Apply makes the items' changes in one transaction. It may run more than
	// once for the same items (after a lost race, or alone when a group
	// failed), always on a fresh transaction, so it must start over each time.
	// An error rolls the whole transaction back.
	Apply func(tx *Tx, items []T) error
	// Committed runs after a successful commit and before any Submit returns.
	Committed func(items []T)
	// Observe, if set, is told of each commit: how many items, and how long they took.
	Observe func(items int, took time.Duration)
	// Max is how many items one transaction takes; 0 means 512.
	Max int
	// Timeout bounds one transaction; 0 means 30 s.
	Timeout time.Duration
}

type ticket[T any] struct {
	item T
	done chan error
	// state is who owns the ticket: the caller may leave a waiting one, not a taken one.
	state atomic.Int32
}

const (
	waiting int32 = iota
	taken
	abandoned
)

// NewGroup starts a group. Close ends it.
func NewGroup[T any](db *DB, cfg GroupConfig[T]) *Group[T] {
	if cfg.Max == 0 {
		cfg.Max = 512
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	g := &Group[T]{db: db, cfg: cfg, queue: make(chan *ticket[T], 4*cfg.Max), stop: make(chan struct{}), done: make(chan struct{})}
	go g.run()
	return g
}

// Submit waits until the item's transaction is durable. When ctx ends before
// the item was taken into a transaction nothing happens; once it was taken,
// Submit waits for the outcome, so that an error always means: not done.
func (g *Group[T]) Submit(ctx context.Context, item T) error {
	t := &ticket[T]{item: item, done: make(chan error, 1)}
	g.pending.Add(1)
	defer g.pending.Add(-1)
	if err := g.send(ctx, t); err != nil {
		return err
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		if t.state.CompareAndSwap(waiting, abandoned) {
			return ctx.Err()
		}
		return <-t.done
	}
}

// send puts t into the queue. A Close that waits for the gate does not wait
// for long: the goroutine goes on to empty the queue.
func (g *Group[T]) send(ctx context.Context, t *ticket[T]) error {
	g.gate.RLock()
	defer g.gate.RUnlock()
	if g.closed {
		return errClosed
	}
	select {
	case g.queue <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = &kernel.Error{Kind: kernel.Unavailable, Msg: "the server is shutting down", RetryAfter: 1}

// Close commits what is queued, refuses what comes later, and returns when the
// goroutine has ended.
func (g *Group[T]) Close() {
	g.gate.Lock()
	if !g.closed {
		g.closed = true
		close(g.stop)
	}
	g.gate.Unlock()
	<-g.done
}

func (g *Group[T]) run() {
	defer close(g.done)
	w := &writer{db: g.db}
	defer w.close()
	for {
		var first *ticket[T]
		select {
		case first = <-g.queue:
		default:
			select {
			case first = <-g.queue:
			case <-g.stop:
				if len(g.queue) == 0 {
					return
				}
				continue
			}
		}
		g.commit(w, g.drain(first))
	}
}

// least is how many items a transaction takes however few wait: fewer would
// pay more for their fsync than pipelining saves.
const least = 16

// drain takes what is waiting, without waiting for more, and no more than half
// of all callers: while the one half is made durable the other half, answered,
// prepares its next changes. Taking all would have the two wait for each other.
func (g *Group[T]) drain(t *ticket[T]) []*ticket[T] {
	limit := min(g.cfg.Max, max(least, int(g.pending.Load()+1)/2))
	var batch []*ticket[T]
	for {
		if t.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, t)
		}
		if len(batch) >= limit {
			return batch
		}
		select {
		case t = <-g.queue:
		default:
			return batch
		}
	}
}

// commit makes one batch durable. A batch that fails is tried again one by
// one, so that a change that cannot be stored takes no other down with it.
func (g *Group[T]) commit(w *writer, batch []*ticket[T]) {
	if len(batch) == 0 {
		return
	}
	err := g.try(w, batch)
	if err == nil || len(batch) == 1 {
		for _, t := range batch {
			t.done <- err
		}
		return
	}
	for _, t := range batch {
		t.done <- g.try(w, []*ticket[T]{t})
	}
}

// tries is how often a transaction that lost a race runs again.
const tries = 5

func (g *Group[T]) try(w *writer, batch []*ticket[T]) error {
	items := make([]T, len(batch))
	for i, t := range batch {
		items[i] = t.item
	}
	start := time.Now()
	var err error
	for range tries {
		ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Timeout)
		err = w.transaction(ctx, func(tx *Tx) error { return g.cfg.Apply(tx, items) })
		cancel()
		if !errors.Is(err, errRetry) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if g.cfg.Observe != nil {
		g.cfg.Observe(len(items), time.Since(start))
	}
	if g.cfg.Committed != nil {
		g.cfg.Committed(items)
	}
	return nil
}

// writer holds the one connection its goroutine writes with, and the
// statements prepared on it.
type writer struct {
	db    *DB
	c     *sql.Conn
	stmts map[string]*sql.Stmt
}

func (w *writer) close() {
	for _, s := range w.stmts {
		s.Close()
	}
	w.stmts = nil
	if w.c != nil {
		w.c.Close()
		w.c = nil
	}
}

func (w *writer) transaction(ctx context.Context, fn func(*Tx) error) error {
	if w.c == nil {
		c, err := w.db.write.Conn(ctx)
		if err != nil {
			return translate(err)
		}
		w.c, w.stmts = c, map[string]*sql.Stmt{}
	}
	tx := &Tx{w: w, ctx: ctx}
	begin := "BEGIN"
	if !w.db.postgres {
		begin = "BEGIN IMMEDIATE"
		tx.ctx = context.Background() // local, and the driver starts a goroutine for each statement of a context that can end
	}
	if _, err := tx.exec(begin); err != nil {
		w.close() // a broken connection is replaced next time
		return err
	}
	err := fn(tx)
	if err == nil {
		if err = tx.commit(); err == nil {
			return nil
		}
	}
	tx.ctx = context.WithoutCancel(ctx)
	if _, rerr := tx.exec("ROLLBACK"); rerr != nil {
		w.close() // closing the connection ends the transaction
	}
	return err
}

// Tx is the transaction a group's items share. It belongs to the group's
// goroutine and must not outlive Apply.
type Tx struct {
	w         *writer
	ctx       context.Context
	tenant    string
	savepoint savepoint
}

var _ Q = (*Tx)(nil)

// commit ends the transaction. PostgreSQL answers the COMMIT of one in which a
// statement failed with ROLLBACK and no error, which database/sql does not show.
func (tx *Tx) commit() error {
	if !tx.w.db.postgres {
		_, err := tx.exec("COMMIT")
		return err
	}
	return tx.w.c.Raw(func(c any) error {
		tag, err := c.(*stdlib.Conn).Conn().Exec(tx.ctx, "COMMIT")
		if err == nil && tag.String() != "COMMIT" {
			err = errors.New("rolled back: a statement failed and the change went on")
		}
		return translate(err)
	})
}

// As makes later statements run as tenant for row-level security. On SQLite
// it costs nothing.
func (tx *Tx) As(tenant string) error {
	if !tx.w.db.postgres || tx.tenant == tenant {
		return nil
	}
	if _, err := tx.Exec(`SELECT set_config('provost.tenant', $1, true)`, tenant); err != nil {
		return fmt.Errorf("enter tenant: %w", err)
	}
	tx.tenant = tenant
	return nil
}

// Savepoint runs fn so that its statements happen together or not at all,
// within the transaction that goes on either way. The savepoint itself is made
// when fn runs its first statement: an fn without any costs none.
func (tx *Tx) Savepoint(fn func() error) error {
	tx.savepoint = due
	err := fn()
	made := tx.savepoint == made
	tx.savepoint = none
	if !made {
		return err
	}
	if err == nil {
		_, err = tx.exec("RELEASE SAVEPOINT change")
		return err
	}
	if _, rerr := tx.exec("ROLLBACK TO SAVEPOINT change"); rerr != nil {
		return &brokenTx{errors.Join(err, rerr)}
	}
	if _, rerr := tx.exec("RELEASE SAVEPOINT change"); rerr != nil {
		return &brokenTx{errors.Join(err, rerr)}
	}
	tx.tenant = "" // the setting went back with the savepoint
	return err
}

type savepoint uint8

const (
	none savepoint = iota
	due
	made
)

// enter makes the savepoint that is due.
func (tx *Tx) enter() error {
	if tx.savepoint != due {
		return nil
	}
	tx.savepoint = made
	_, err := tx.exec("SAVEPOINT change")
	return err
}

// brokenTx marks a transaction that can no longer be used.
type brokenTx struct{ error }

func (e *brokenTx) Unwrap() error { return e.error }

// Broken reports whether err means that the transaction itself is lost, so
// that Apply has to return it rather than go on.
func Broken(err error) bool {
	_, ok := errors.AsType[*brokenTx](err)
	return ok || errors.Is(err, errRetry) || errors.Is(err, context.DeadlineExceeded)
}

func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	if s, ok := tx.w.stmts[query]; ok {
		return s, nil
	}
	s, err := tx.w.c.PrepareContext(tx.ctx, positional(query))
	if err != nil {
		return nil, translate(err)
	}
	tx.w.stmts[query] = s
	return s, nil
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	if err := tx.enter(); err != nil {
		return 0, err
	}
	return tx.exec(query, args...)
}

func (tx *Tx) exec(query string, args ...any) (int64, error) {
	if tx.w.db.postgres { // pgx keeps its own statement cache, and control statements cannot be prepared
		return conn{tx.ctx, tx.w.c}.Exec(query, args...)
	}
	s, err := tx.stmt(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

// Query returns rows; the caller closes them before the next statement.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	if tx.w.db.postgres {
		return conn{tx.ctx, tx.w.c}.Query(query, args...)
	}
	s, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(tx.ctx, args...)
	return rows, translate(err)
}

// Get scans the first row into dest, or returns ErrNoRow.
func (tx *Tx) Get(query string, args []any, dest ...any) error {
	if err := tx.enter(); err != nil {
		return err
	}
	if tx.w.db.postgres {
		return conn{tx.ctx, tx.w.c}.Get(query, args, dest...)
	}
	s, err := tx.stmt(query)
	if err != nil {
		return err
	}
	return translate(s.QueryRowContext(tx.ctx, args...).Scan(dest...))
}
