package jobs_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// patience is how long a test waits for what must happen. It is not how long it takes.
const patience = 20 * time.Second

// clock is a time that the test moves.
type clock struct{ us atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.us.Store(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC).UnixMicro())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.us.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.us.Add(d.Microseconds()) }

// writer is the jobs table's way into a group, as govern's Bookkeep is in production.
type writer struct {
	g *store.Group[func(store.Q) error]
}

func newWriter(t *testing.T, db *store.DB) writer {
	g := store.NewGroup(db, store.GroupConfig[func(store.Q) error]{Apply: func(tx *store.Tx, items []func(store.Q) error) error {
		if err := tx.As(store.Platform); err != nil {
			return err
		}
		for _, fn := range items {
			if err := fn(tx); err != nil {
				return err
			}
		}
		return nil
	}})
	t.Cleanup(g.Close)
	return writer{g}
}

func (w writer) Write(ctx context.Context, fn func(store.Q) error) error { return w.g.Submit(ctx, fn) }

// bench is a database, a way to write it, and the outcomes of what ran.
type bench struct {
	*testing.T
	db    *store.DB
	w     writer
	clock *clock
	ended chan string // kind, space, outcome
}

func each(t *testing.T, test func(b *bench)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		test(&bench{T: t, db: db, w: newWriter(t, db), clock: newClock(), ended: make(chan string, 1000)})
	})
}

// config polls seldom, so that what runs was woken.
func (b *bench) config() jobs.Config {
	return jobs.Config{DB: b.db, Writer: b.w, Now: b.clock.now, Poll: time.Hour, Lease: time.Minute,
		Observe: func(kind, outcome string, _ time.Duration) { b.ended <- kind + " " + outcome }}
}

// start starts a queue whose jobs of kind "work" h does, and stops it with the test.
func (b *bench) start(cfg jobs.Config, h jobs.Handler) *jobs.Queue {
	b.Helper()
	q := jobs.New(cfg)
	q.Handle("work", h)
	q.Start()
	b.Cleanup(func() { b.stop(q) })
	return q
}

func (b *bench) stop(q *jobs.Queue) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q.Stop(ctx)
	if ctx.Err() != nil {
		b.Error("the queue did not drain")
	}
}

func (b *bench) enqueue(js ...jobs.Job) {
	b.Helper()
	err := b.w.Write(b.Context(), func(q store.Q) error {
		for _, j := range js {
			if err := jobs.Enqueue(q, b.clock.now(), j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantEnded(want string) {
	b.Helper()
	if got := receive(b.T, b.ended); got != want {
		b.Fatalf("ended: %q, want %q", got, want)
	}
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing happened")
	}
	return v
}

// row is what the table says about a job.
type row struct {
	State     string
	Attempt   int
	Due       time.Duration // from now
	LastError string
}

func (b *bench) rows() (out []row) {
	b.Helper()
	err := b.db.View(b.Context(), store.Platform, func(q store.Q) (err error) {
		out, err = store.All(q, func(r *sql.Rows) (x row, err error) {
			var at int64
			err = r.Scan(&x.State, &x.Attempt, &at, &x.LastError)
			x.Due = store.Time(at).Sub(b.clock.now())
			return x, err
		}, `SELECT state, attempt, run_at, last_error FROM jobs ORDER BY id`)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// await polls the table until it holds one row that ok accepts.
func (b *bench) await(what string, ok func(row) bool) row {
	b.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		rows := b.rows()
		if len(rows) == 1 && ok(rows[0]) {
			return rows[0]
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("jobs are %+v, want one %s", rows, what)
		}
	}
}

func ready(r row) bool { return r.State == "ready" }

func (b *bench) wantDepth(q *jobs.Queue, want int64) {
	b.Helper()
	n, err := q.Depth(b.Context())
	if err != nil || n != want {
		b.Errorf("depth %d, %v; want %d", n, err, want)
	}
}

func TestAJobCommitsAndVanishesWithItsTransaction(t *testing.T) {
	odd := errors.New("odd")
	each(t, func(b *bench) {
		got := make(chan jobs.Job, 10)
		q := b.start(b.config(), func(_ context.Context, j jobs.Job) error { got <- j; return nil })
		err := b.w.Write(b.Context(), func(tx store.Q) error {
			return errors.Join(jobs.Enqueue(tx, b.clock.now(), jobs.Job{Kind: "work", Tenant: "undone"}), odd)
		})
		if !errors.Is(err, odd) {
			b.Fatalf("got %v, want the transaction's error", err)
		}
		b.wantDepth(q, 0)
		b.enqueue(jobs.Job{Kind: "work", Tenant: "demo", Key: "k", Correlation: "c", Args: json.RawMessage(`{"n":1}`)})
		b.wantDepth(q, 1)
		q.Wake()
		j := receive(b.T, got)
		if j.ID == "" || j.Tenant != "demo" || j.Key != "k" || j.Correlation != "c" || string(j.Args) != `{"n":1}` || j.Attempt != 1 || !j.RunAt.Equal(b.clock.now()) {
			b.Errorf("the handler got %+v", j)
		}
		b.wantEnded("work done")
		b.stop(q)
		if rows := b.rows(); len(rows) != 0 {
			b.Errorf("done and still there: %+v", rows)
		}
	})
}

func TestAKeyHasOneUnfinishedJob(t *testing.T) {
	each(t, func(b *bench) {
		entered, leave := make(chan string), make(chan struct{})
		q := b.start(b.config(), func(_ context.Context, j jobs.Job) error { entered <- j.Key; <-leave; return nil })
		same := jobs.Job{Kind: "work", Key: "same"}
		b.enqueue(same, same, jobs.Job{Kind: "work", Key: "other"}, jobs.Job{Kind: "none", Key: "same", RunAt: b.clock.now().Add(time.Hour)})
		b.wantDepth(q, 3)
		q.Wake()
		keys := []string{receive(b.T, entered), receive(b.T, entered)}
		slices.Sort(keys)
		if !slices.Equal(keys, []string{"other", "same"}) {
			b.Errorf("running: %q", keys)
		}
		b.enqueue(same) // still unfinished
		b.wantDepth(q, 3)
		close(leave)
		b.wantEnded("work done")
		b.wantEnded("work done")
		b.await("job of another kind", func(r row) bool { return r.State == "ready" })
		b.enqueue(same) // the earlier one is finished
		b.wantDepth(q, 2)
		q.Wake()
		if k := receive(b.T, entered); k != "same" {
			b.Errorf("running: %q", k)
		}
	})
}

func TestPollingFindsWhatNobodyWokeFor(t *testing.T) {
	each(t, func(b *bench) {
		cfg := b.config()
		cfg.Poll = 5 * time.Millisecond
		b.start(cfg, func(context.Context, jobs.Job) error { return nil })
		b.enqueue(jobs.Job{Kind: "work", RunAt: b.clock.now().Add(time.Minute)})
		b.clock.advance(59 * time.Second)
		b.enqueue(jobs.Job{Kind: "marker"}) // no handler: given up as soon as the table is looked at
		b.wantEnded("marker discarded")     // and the job that is not due was not taken with it
		b.clock.advance(time.Second)
		b.wantEnded("work done")
	})
}

func TestRetriesBackOffUntilAttemptsAreUsedUp(t *testing.T) {
	each(t, func(b *bench) {
		cfg := b.config()
		cfg.MaxAttempts = 4
		var attempts []int
		// An error text may hold what PostgreSQL's text does not, and be cut within a character.
		text := "bad\x00\xff" + strings.Repeat("é", 1000)
		q := b.start(cfg, func(_ context.Context, j jobs.Job) error {
			attempts = append(attempts, j.Attempt)
			return errors.New(text)
		})
		b.enqueue(jobs.Job{Kind: "work", Key: "k"})
		for n, base := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			q.Wake()
			b.wantEnded("work retried")
			r := b.await("ready job", ready)
			if r.Attempt != n+1 || r.Due < base*8/10 || r.Due > base*12/10 || !strings.HasPrefix(r.LastError, "badéé") || len(r.LastError) > 1024 {
				b.Errorf("after attempt %d: %+v, want a retry in %v give or take a fifth", n+1, r, base)
			}
			b.clock.advance(r.Due)
		}
		q.Wake()
		b.wantEnded("work discarded")
		b.await("dead job", func(r row) bool { return r.State == "dead" && r.Attempt == 4 })
		if !slices.Equal(attempts, []int{1, 2, 3, 4}) {
			b.Errorf("attempts %v", attempts)
		}
		b.wantDepth(q, 0)
		b.enqueue(jobs.Job{Kind: "work", Key: "k"}) // a dead job does not hold its key
		b.wantDepth(q, 1)
	})
}

func TestASnoozeCountsNoAttempt(t *testing.T) {
	each(t, func(b *bench) {
		cfg := b.config()
		cfg.MaxAttempts = 1
		q := b.start(cfg, func(_ context.Context, j jobs.Job) error {
			if j.Attempt != 1 {
				return jobs.Discard(fmt.Errorf("attempt %d", j.Attempt))
			}
			return fmt.Errorf("not yet: %w", jobs.Snooze(time.Minute))
		})
		b.enqueue(jobs.Job{Kind: "work"})
		for range 3 {
			q.Wake()
			b.wantEnded("work snoozed")
			r := b.await("ready job", ready)
			if r.Attempt != 0 || r.Due != time.Minute {
				b.Errorf("snoozed: %+v, want no attempt and a minute", r)
			}
			b.clock.advance(time.Minute)
		}
	})
}

func TestWhatCannotSucceedIsGivenUpAtOnce(t *testing.T) {
	for name, h := range map[string]jobs.Handler{
		"discarded": func(context.Context, jobs.Job) error { return fmt.Errorf("%w", jobs.Discard(errors.New("hopeless"))) },
		"unknown":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(b *bench) {
				q := b.start(b.config(), h)
				b.enqueue(jobs.Job{Kind: "work"})
				q.Wake()
				b.wantEnded("work discarded")
				r := b.await("dead job", func(r row) bool { return r.State == "dead" })
				if r.Attempt != 1 || r.LastError == "" {
					b.Errorf("%+v, want one attempt and its error", r)
				}
			})
		})
	}
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	each(t, func(b *bench) {
		q := b.start(b.config(), func(_ context.Context, j jobs.Job) error {
			if j.Attempt == 1 {
				panic("oh")
			}
			return nil
		})
		b.enqueue(jobs.Job{Kind: "work"})
		q.Wake()
		b.wantEnded("work retried")
		r := b.await("ready job", ready)
		if !strings.Contains(r.LastError, "oh") {
			b.Errorf("last error %q, want the panic", r.LastError)
		}
		b.clock.advance(r.Due)
		q.Wake()
		b.wantEnded("work done")
	})
}

// crash claims the due job as a replica would that then dies: its handler
// never returns while the test looks, and its lease is not extended.
func (b *bench) crash() (lost <-chan struct{}) {
	b.Helper()
	entered, cancelled, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	cfg := b.config()
	cfg.Observe, cfg.Workers = nil, 1
	q := b.start(cfg, func(ctx context.Context, _ jobs.Job) error {
		close(entered)
		select {
		case <-ctx.Done():
			close(cancelled)
		case <-over:
		}
		return errors.New("the dead owner's outcome")
	})
	b.Cleanup(func() { close(over) }) // before the queue is stopped
	q.Wake()
	receive(b.T, entered)
	return cancelled
}

func TestAnotherQueueTakesOverWhenTheLeaseRanOut(t *testing.T) {
	each(t, func(b *bench) {
		b.enqueue(jobs.Job{Kind: "work"})
		b.crash()
		attempts := make(chan int, 10)
		other := b.start(b.config(), func(_ context.Context, j jobs.Job) error { attempts <- j.Attempt; return nil })
		b.clock.advance(time.Minute - time.Microsecond)
		b.enqueue(jobs.Job{Kind: "marker"})
		other.Wake()
		b.wantEnded("marker discarded") // and the leased job was left alone
		b.clock.advance(time.Microsecond)
		other.Wake()
		if n := receive(b.T, attempts); n != 2 {
			b.Errorf("taken over as attempt %d, want 2", n)
		}
		b.wantEnded("work done")
		b.await("dead marker", func(r row) bool { return r.State == "dead" })
	})
}

// A job that takes its owner down every time must not do so for ever.
func TestACrashingJobEnds(t *testing.T) {
	each(t, func(b *bench) {
		b.enqueue(jobs.Job{Kind: "work"})
		b.crash()
		b.clock.advance(time.Minute)
		cfg := b.config()
		cfg.MaxAttempts = 1
		other := b.start(cfg, func(context.Context, jobs.Job) error { b.Error("ran again"); return nil })
		other.Wake()
		b.wantEnded("work discarded")
		b.await("dead job", func(r row) bool { return r.State == "dead" && r.LastError != "" })
	})
}

// An owner that was only slow finds out: its handler is cancelled, and what it
// says about the job no longer counts.
func TestALostLeaseCancelsTheHandler(t *testing.T) {
	each(t, func(b *bench) {
		slow, cancelled := make(chan struct{}), make(chan struct{})
		cfg := b.config()
		cfg.Lease = 30 * time.Millisecond // the heartbeat's pace is real time
		q := b.start(cfg, func(ctx context.Context, _ jobs.Job) error {
			close(slow)
			<-ctx.Done()
			close(cancelled)
			return errors.New("too late")
		})
		b.enqueue(jobs.Job{Kind: "work"})
		q.Wake()
		receive(b.T, slow)
		err := b.w.Write(b.Context(), func(tx store.Q) error {
			_, err := tx.Exec(`UPDATE jobs SET owner = 'another', lease_until = $1`, store.Micros(b.clock.now().Add(time.Hour)))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		receive(b.T, cancelled)
		b.stop(q)
		if rows := b.rows(); len(rows) != 1 || rows[0].State != "running" || rows[0].LastError != "" {
			b.Errorf("the former owner changed the job: %+v", rows)
		}
	})
}

// While the handler runs, heartbeats keep others away however long it takes.
func TestARunningJobKeepsItsLease(t *testing.T) {
	each(t, func(b *bench) {
		cfg := b.config()
		cfg.Lease = 30 * time.Millisecond
		leave := make(chan struct{})
		var runs atomic.Int32
		h := func(context.Context, jobs.Job) error { runs.Add(1); <-leave; return nil }
		q := b.start(cfg, h)
		b.enqueue(jobs.Job{Kind: "work"})
		q.Wake()
		var first, lease int64
		read := func() int64 {
			err := b.db.View(b.Context(), store.Platform, func(q store.Q) error { return q.Get(`SELECT lease_until FROM jobs`, nil, &lease) })
			if err != nil {
				b.Fatal(err)
			}
			return lease
		}
		b.await("running job", func(r row) bool { return r.State == "running" })
		first = read()
		b.clock.advance(20 * time.Millisecond)
		b.await("extended lease", func(row) bool { return read() == first+20_000 })
		close(leave)
		b.wantEnded("work done")
		if runs.Load() != 1 {
			b.Errorf("ran %d times", runs.Load())
		}
	})
}

func TestTwoQueuesNeverRunAJobAtOnce(t *testing.T) {
	const count = 60
	each(t, func(b *bench) {
		var mu sync.Mutex
		runs := map[string]int{}
		handler := func(_ context.Context, j jobs.Job) error {
			mu.Lock()
			defer mu.Unlock()
			runs[j.ID]++
			return nil
		}
		cfg := b.config()
		cfg.Workers = 4
		first := b.start(cfg, handler)
		if b.db.Postgres() { // a replica has a writer of its own; SQLite has one writer
			cfg.Writer = newWriter(b.T, b.db)
		}
		second := b.start(cfg, handler)
		var js []jobs.Job
		for range count {
			js = append(js, jobs.Job{Kind: "work"})
		}
		b.enqueue(js...)
		first.Wake()
		second.Wake()
		for range count {
			b.wantEnded("work done")
		}
		b.stop(first)
		b.stop(second)
		for id, n := range runs {
			if n != 1 {
				b.Errorf("job %s ran %d times", id, n)
			}
		}
		if len(runs) != count || len(b.ended) != 0 || len(b.rows()) != 0 {
			b.Errorf("%d jobs ran, %d more ended, left: %+v; want %d, none and none", len(runs), len(b.ended), b.rows(), count)
		}
	})
}

func TestStopDrains(t *testing.T) {
	each(t, func(b *bench) {
		defer goleak.VerifyNone(b.T, goleak.IgnoreCurrent())
		entered, leave := make(chan struct{}), make(chan struct{})
		cfg := b.config()
		cfg.Workers = 1
		q := b.start(cfg, func(ctx context.Context, _ jobs.Job) error {
			entered <- struct{}{}
			<-leave
			return ctx.Err()
		})
		b.enqueue(jobs.Job{Kind: "work"}, jobs.Job{Kind: "work"})
		q.Wake()
		receive(b.T, entered)
		stopped := make(chan struct{})
		go func() { b.stop(q); close(stopped) }()
		leave <- struct{}{}
		receive(b.T, stopped)
		b.wantEnded("work done")
		if r := b.await("job left for later", ready); r.Attempt != 0 {
			b.Errorf("the waiting job was claimed: %+v", r)
		}
	})
}

func TestStopCancelsWhatDoesNotEndInTime(t *testing.T) {
	each(t, func(b *bench) {
		defer goleak.VerifyNone(b.T, goleak.IgnoreCurrent())
		entered := make(chan struct{})
		q := b.start(b.config(), func(ctx context.Context, _ jobs.Job) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		})
		b.enqueue(jobs.Job{Kind: "work"})
		q.Wake()
		receive(b.T, entered)
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		q.Stop(ctx)
		b.wantEnded("work retried")
		b.await("job to be tried again", ready)
	})
}

func TestStopOfAQueueThatNeverStarted(t *testing.T) {
	jobs.New(jobs.Config{}).Stop(t.Context())
}
