// Package jobs is durable background work. A job is enqueued in the same
// transaction as the change that asks for it, is woken by that transaction's
// commit, and is run until it succeeds or its attempts are used up. It comes
// back through govern.Do with the outcome, as a system principal.
//
//	enqueue ──commit──▶ ready ──claim (lease)──▶ running ──ok──▶ gone
//	                      ▲                         │
//	                      └── backoff ◀── error ────┤
//	                      lease ran out (crash) ◀───┘──▶ dead after MaxAttempts
//
// A job runs at least once: a handler has to be idempotent.
package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel/store"
)

// Job is one piece of work.
type Job struct {
	ID          string
	Kind        string // picks the handler
	Tenant      string
	Key         string // at most one unfinished job per (Kind, Key); empty is any number
	Correlation string // of the action that asked for it
	Args        json.RawMessage
	RunAt       time.Time // not before; zero is at once
	Attempt     int       // 1 on the first run
}

// Handler does a job. An error is tried again with back-off; Discard ends it.
type Handler func(ctx context.Context, j Job) error

// Snooze is returned by a handler to run the job again after d without
// counting an attempt.
func Snooze(d time.Duration) error { return snooze(d) }

type snooze time.Duration

func (s snooze) Error() string { return "snoozed for " + time.Duration(s).String() }

// Discard ends a job that can never succeed; err goes to the log.
func Discard(err error) error { return &discard{err} }

type discard struct{ error }

func (d *discard) Unwrap() error { return d.error }

// Writer makes changes to the jobs table durable, in groups.
type Writer interface {
	Write(ctx context.Context, fn func(q store.Q) error) error
}

// Config is what Queue needs.
type Config struct {
	DB     *store.DB
	Writer Writer
	Logger *slog.Logger
	// Workers is how many jobs run at once; 0 means 16.
	Workers int
	// Lease is how long a claimed job is safe from others; 0 means 60 s. It is
	// extended while the handler runs.
	Lease time.Duration
	// MaxAttempts ends a failing job; 0 means 25.
	MaxAttempts int
	// Poll finds work that other replicas enqueued or that became due; 0 means 1 s.
	Poll time.Duration
	Now  func() time.Time
	// Observe, if set, is told of each run: "done", "retried", "snoozed" or "discarded".
	Observe func(kind, outcome string, took time.Duration)
}

// Queue claims and runs jobs.
type Queue struct {
	cfg      Config
	owner    string
	handlers map[string]Handler
	wake     chan struct{}
	free     chan struct{} // one token per idle worker

	cancel context.CancelFunc // claims nothing more
	done   chan struct{}
	active sync.WaitGroup

	working context.Context // what handlers run under
	abandon context.CancelFunc
}

// New makes a queue; Handle the kinds, then Start.
func New(cfg Config) *Queue {
	if cfg.Workers == 0 {
		cfg.Workers = 16
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.MaxAttempts == 0 {
		cfg.MaxAttempts = 25
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Queue{cfg: cfg, owner: uuid.NewString(), handlers: map[string]Handler{}, wake: make(chan struct{}, 1), free: make(chan struct{}, cfg.Workers)}
}

// Handle registers the handler of a kind. Call it before Start.
func (w *Queue) Handle(kind string, h Handler) { w.handlers[kind] = h }

// Enqueue adds j within the caller's transaction. With a Key that already has
// an unfinished job it changes nothing.
func Enqueue(q store.Q, now time.Time, j Job) error {
	if j.ID == "" {
		j.ID = uuid.Must(uuid.NewV7()).String()
	}
	if j.RunAt.IsZero() {
		j.RunAt = now
	}
	if len(j.Args) == 0 {
		j.Args = json.RawMessage("{}")
	}
	unique := j.Key
	if unique == "" {
		unique = j.ID
	}
	_, err := q.Exec(`INSERT INTO jobs (id, kind, tenant, unique_key, correlation, args, run_at, state, attempt, lease_until, owner, last_error, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'ready', 0, 0, '', '', $8) ON CONFLICT DO NOTHING`,
		j.ID, j.Kind, j.Tenant, unique, j.Correlation, string(j.Args), store.Micros(j.RunAt), store.Micros(now))
	if err != nil {
		return fmt.Errorf("enqueue %s: %w", j.Kind, err)
	}
	return nil
}

// Wake says that a committed transaction enqueued work.
func (w *Queue) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Depth is how many jobs wait or run, of all tenants.
func (w *Queue) Depth(ctx context.Context) (n int64, err error) {
	err = w.cfg.DB.View(ctx, store.Platform, func(q store.Q) error {
		return q.Get(`SELECT COUNT(*) FROM jobs WHERE state IN ('ready', 'running')`, nil, &n)
	})
	return n, err
}

// Start claims and runs jobs until Stop. It returns at once.
func (w *Queue) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	w.working, w.abandon = context.WithCancel(context.Background())
	for range w.cfg.Workers {
		w.free <- struct{}{}
	}
	go w.run(ctx)
}

// Stop claims nothing more and waits for the running jobs until ctx ends; then
// it cancels them and returns. A job that its handler left undone is tried
// again: by its outcome, or when its lease has run out.
func (w *Queue) Stop(ctx context.Context) {
	if w.cancel == nil {
		return
	}
	defer w.abandon()
	stopped := make(chan struct{})
	go func() { <-w.done; w.active.Wait(); close(stopped) }()
	w.cancel()
	select {
	case <-stopped:
	case <-ctx.Done():
	}
}

func (w *Queue) run(ctx context.Context) {
	defer close(w.done)
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	for {
		n, err := w.claimAndRun(ctx)
		if err != nil && ctx.Err() == nil {
			w.cfg.Logger.ErrorContext(ctx, "claim jobs", "err", err)
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-poll.C:
		}
	}
}

// claimAndRun starts as many due jobs as workers are idle and returns how many.
func (w *Queue) claimAndRun(ctx context.Context) (int, error) {
	idle := len(w.free)
	if idle == 0 || ctx.Err() != nil {
		return 0, ctx.Err()
	}
	due, err := w.anyDue(ctx)
	if err != nil || !due {
		return 0, err
	}
	var got []Job
	now := w.cfg.Now()
	err = w.cfg.Writer.Write(ctx, func(q store.Q) (err error) {
		got, err = store.All(q, scanJob, claimSQL, store.Micros(now), store.Micros(now.Add(w.cfg.Lease)), w.owner, idle)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	for _, j := range got {
		<-w.free
		w.active.Add(1)
		go func() {
			defer func() { w.active.Done(); w.free <- struct{}{}; w.Wake() }()
			w.do(j)
		}()
	}
	return len(got), nil
}

// claimSQL takes due jobs, and those whose lease ran out because their owner died.
const claimSQL = `UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_until = $2, owner = $3
	WHERE id IN (SELECT id FROM jobs WHERE state IN ('ready', 'running') AND run_at <= $1 AND lease_until <= $1 ORDER BY run_at, id LIMIT $4)
	AND lease_until <= $1
	RETURNING id, kind, tenant, unique_key, correlation, args, run_at, attempt`

// anyDue spares idle replicas a write transaction per poll.
func (w *Queue) anyDue(ctx context.Context) (due bool, err error) {
	var n int64
	err = w.cfg.DB.View(ctx, store.Platform, func(q store.Q) error {
		now := store.Micros(w.cfg.Now())
		return q.Get(`SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE state IN ('ready', 'running') AND run_at <= $1 AND lease_until <= $1 LIMIT 1) AS due`, []any{now}, &n)
	})
	return n > 0, err
}

func scanJob(r *sql.Rows) (j Job, err error) {
	var args string
	var at int64
	err = r.Scan(&j.ID, &j.Kind, &j.Tenant, &j.Key, &j.Correlation, &args, &at, &j.Attempt)
	j.Args, j.RunAt = json.RawMessage(args), store.Time(at)
	return j, err
}

// do runs one job and records how it ended. Handlers are not cancelled by
// Stop's first phase: draining means letting them finish.
func (w *Queue) do(j Job) {
	ctx, cancel := context.WithCancel(w.working)
	defer cancel()
	stop := w.heartbeat(ctx, j, cancel)
	start := time.Now()
	err := w.call(ctx, j)
	stop()
	if w.cfg.Observe != nil {
		w.cfg.Observe(j.Kind, w.outcome(j, err), time.Since(start))
	}
	if err := w.finish(j, err); err != nil {
		w.cfg.Logger.Error("finish job", "job", j.ID, "kind", j.Kind, "err", err)
	}
}

func (w *Queue) call(ctx context.Context, j Job) (err error) {
	h := w.handlers[j.Kind]
	if h == nil {
		return Discard(fmt.Errorf("no handler for jobs of kind %q", j.Kind))
	}
	if j.Attempt > w.cfg.MaxAttempts { // its last owner died of it, or with it
		return Discard(errors.New("the lease ran out in its last attempt"))
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("job panicked: %v", p)
		}
	}()
	return h(ctx, j)
}

// heartbeat extends the lease while the handler runs; a lease that was lost to
// another owner cancels the handler.
func (w *Queue) heartbeat(ctx context.Context, j Job, lost context.CancelFunc) (stop func()) {
	quit := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(w.cfg.Lease / 3)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
			}
			var n int64
			err := w.cfg.Writer.Write(ctx, func(q store.Q) (err error) {
				n, err = q.Exec(`UPDATE jobs SET lease_until = $3 WHERE id = $1 AND owner = $2`, j.ID, w.owner, store.Micros(w.cfg.Now().Add(w.cfg.Lease)))
				return err
			})
			if err == nil && n == 0 {
				lost()
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

func (w *Queue) outcome(j Job, err error) string {
	var s snooze
	_, gone := errors.AsType[*discard](err)
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &s):
		return "snoozed"
	case gone || j.Attempt >= w.cfg.MaxAttempts:
		return "discarded"
	}
	return "retried"
}

func (w *Queue) finish(j Job, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	query, args := `DELETE FROM jobs WHERE id = $1 AND owner = $2`, []any{j.ID, w.owner}
	switch w.outcome(j, err) {
	case "snoozed":
		var s snooze
		errors.As(err, &s)
		query = `UPDATE jobs SET state = 'ready', attempt = attempt - 1, lease_until = 0, owner = '', run_at = $3 WHERE id = $1 AND owner = $2`
		args = append(args, store.Micros(w.cfg.Now().Add(time.Duration(s))))
	case "discarded":
		w.cfg.Logger.Error("job given up", "job", j.ID, "kind", j.Kind, "tenant", j.Tenant, "attempt", j.Attempt, "err", err)
		query = `UPDATE jobs SET state = 'dead', unique_key = id, lease_until = 0, owner = '', last_error = $3 WHERE id = $1 AND owner = $2`
		args = append(args, bounded(err))
	case "retried":
		w.cfg.Logger.Warn("job will be tried again", "job", j.ID, "kind", j.Kind, "tenant", j.Tenant, "attempt", j.Attempt, "err", err)
		query = `UPDATE jobs SET state = 'ready', lease_until = 0, owner = '', run_at = $3, last_error = $4 WHERE id = $1 AND owner = $2`
		args = append(args, store.Micros(w.cfg.Now().Add(backoff(j.Attempt))), bounded(err))
	}
	return w.cfg.Writer.Write(ctx, func(q store.Q) error {
		_, err := q.Exec(query, args...)
		return err
	})
}

// bounded is what of an error is kept: text that PostgreSQL takes, which is
// valid UTF-8 without NUL.
func bounded(err error) string {
	s := err.Error()
	return strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), 1024)], ""), "\x00", "")
}

// backoff is 100 ms, doubling to 5 minutes, give or take a fifth.
func backoff(attempt int) time.Duration {
	d := min(100*time.Millisecond<<min(attempt-1, 12), 5*time.Minute)
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
