// Package govern is the one door to state. Do decides an action by policy,
// carries it out and writes it down, in one transaction; Check does the same
// for reads, which only leave a trace when they are refused.
//
//	Do ── view of the tenant ── decide ──▶ group commit:
//	        still the same epoch? no ▶ decide again
//	        refused ▶ refused event
//	        allowed ▶ savepoint: change ──ok──▶ accepted event(s)
//	                                   └─err─▶ rolled back, refused or failed event
//	        commit ▶ publish, wake jobs, answer
//
// An action whose decision or evidence cannot be made does not happen.
package govern

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Verb says what one of the schema's actions leaves behind.
type Verb struct {
	Name string // as policy declares it, such as "tenant.create"
	// Event is the type of the event an accepted action leaves, and Refused
	// that of a refused or failed one; empty means the verb's name, and Event.
	Event, Refused string
	// Evaluate records the decision as an event of its own (policy.evaluate)
	// before the action's.
	Evaluate bool
	// Governs says that decisions in the tenant rest on what this verb changes.
	Governs bool
	// Read marks a verb that changes nothing: suspended tenants may still do it.
	Read bool
	// WithoutAuthority marks a verb that needs no authority in force, because
	// it is how authority is restored, or how people sign in.
	WithoutAuthority bool
	// WhileSuspended marks a verb that a suspended tenant may still do although
	// it leaves something behind: signing in, to read.
	WhileSuspended bool
}

// Action is a request to do a verb.
type Action struct {
	Verb      string
	Principal *identity.Principal
	Resource  policy.Resource
	Context   policy.Record
	// Tenant is whose log records the action, under whose snapshots; empty is
	// the principal's.
	Tenant      string
	Correlation string
	// ResourceID names the resource on events, such as "workload/<uuid>".
	ResourceID string
	// Details are the main event's own fields.
	Details map[string]any
	// Artifacts are digests that the main event rests on.
	Artifacts []string
	// Policies narrow the decision further: those the request itself names.
	Policies []*policy.Set
	// Check runs before policy decides and may refuse with a reason of its
	// own, as part of the decision (a jurisdiction, a ceiling). It sees the
	// tenant as it is in the transaction.
	Check func(*View) error
}

// Governor is the door.
type Governor struct {
	db        *store.DB
	log       *evidence.Log
	loader    Loader
	verbs     map[string]Verb
	now       func() time.Time
	logger    *slog.Logger
	published func(tenant string, size int64)
	wakeJobs  func()
	observe   Observer

	group *store.Group[*op]
	cache views
	kept  sync.Map // tenant and snapshot digests → true: which snapshots the tenant's artifacts are known to hold
}

// Config is what a Governor needs.
type Config struct {
	DB     *store.DB
	Log    *evidence.Log
	Views  Loader
	Verbs  []Verb
	Now    func() time.Time
	Logger *slog.Logger
	// Published is told how far each log that grew now reaches, once that is durable.
	Published func(tenant string, size int64)
	// WakeJobs is called when a durable change enqueued work.
	WakeJobs func()
	// Observe counts what happens, for metrics; nil counts nothing.
	Observe Observer
}

// Observer counts commits, decisions and events.
type Observer interface {
	Commit(items int, took time.Duration)
	Decision(allowed bool)
	Events(accepted, refused, failed int)
}

type unobserved struct{}

func (unobserved) Commit(int, time.Duration) {}
func (unobserved) Decision(bool)             {}
func (unobserved) Events(int, int, int)      {}

// New opens the door. Close shuts it after what is inside has left.
func New(cfg Config) *Governor {
	g := &Governor{db: cfg.DB, log: cfg.Log, loader: cfg.Views, now: cfg.Now, logger: cfg.Logger,
		published: cfg.Published, wakeJobs: cfg.WakeJobs, verbs: make(map[string]Verb, len(cfg.Verbs)),
		cache: views{known: map[string]*View{}, floor: map[string]int64{}}}
	if g.now == nil {
		g.now = time.Now
	}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	for _, v := range cfg.Verbs {
		if v.Event == "" {
			v.Event = v.Name
		}
		if v.Refused == "" {
			v.Refused = v.Event
		}
		g.verbs[v.Name] = v
	}
	if g.observe = cfg.Observe; g.observe == nil {
		g.observe = unobserved{}
	}
	g.group = store.NewGroup(cfg.DB, store.GroupConfig[*op]{Apply: g.apply, Committed: g.committed, Observe: g.observe.Commit})
	return g
}

// Close waits for the changes under way and refuses new ones.
func (g *Governor) Close() { g.group.Close() }

// Verbs returns every declared verb by name.
func (g *Governor) Verbs() map[string]Verb { return g.verbs }

// Do decides the action, and when it is allowed runs change and commits both
// its SQL and the evidence. The receipt is the main event's. A refusal is a
// *kernel.Error that carries the rule and the refusal's own evidence.
//
// change may run more than once, each time on a fresh transaction: it must
// only act through tx, and assign what it returns rather than add to it.
func (g *Governor) Do(ctx context.Context, a Action, change func(tx *Tx) error) (evidence.Receipt, error) {
	o, err := g.prepare(ctx, a)
	if err != nil {
		return evidence.Receipt{}, err
	}
	o.change = change
	return g.submit(ctx, o)
}

// Check decides a read. A refusal is recorded; permission is not.
func (g *Governor) Check(ctx context.Context, a Action) error {
	o, err := g.prepare(ctx, a)
	if err != nil {
		return err
	}
	if o.refusal == nil {
		return nil
	}
	o.change = func(*Tx) error { return nil }
	o.readOnly = true
	_, err = g.submit(ctx, o)
	return err
}

// Decide says what policy says about an action, and does nothing. The decision
// can be seen by whoever asks: it is recorded by the caller, if at all.
func (g *Governor) Decide(ctx context.Context, a Action) (Ruling, error) {
	o, err := g.prepare(ctx, a)
	if err != nil {
		return Ruling{}, err
	}
	return o.ruling(), nil
}

// Refuse records that an action was turned away before policy was asked: its
// input was wrong, or nobody could be recognised. It returns err as a
// *kernel.Error with the evidence filled in.
func (g *Governor) Refuse(ctx context.Context, a Action, err error) error {
	o, perr := g.enter(ctx, a)
	if perr != nil {
		return perr
	}
	o.given = kernel.AsError(err)
	_, err = g.submit(ctx, o)
	return err
}

// Bookkeep writes what is not anyone's action: leases, cursors, times of last
// use. It leaves no evidence and must change nothing a tenant relies on.
func (g *Governor) Bookkeep(ctx context.Context, fn func(q store.Q) error) error {
	o := &op{bookkeep: fn}
	if err := g.group.Submit(ctx, o); err != nil {
		return err
	}
	return o.err
}

// prepare does everything that needs no transaction: the tenant's view, the
// decision, and the encoding of the event that will most likely be kept.
func (g *Governor) prepare(ctx context.Context, a Action) (*op, error) {
	o, err := g.enter(ctx, a)
	if err != nil {
		return nil, err
	}
	o.decide(g.now())
	g.observe.Decision(o.refusal == nil)
	return o, o.seal()
}

// enter completes the action and finds what the decision will rest on.
func (g *Governor) enter(ctx context.Context, a Action) (*op, error) {
	verb, ok := g.verbs[a.Verb]
	if !ok {
		return nil, fmt.Errorf("verb %q is not declared", a.Verb)
	}
	if a.Tenant == "" {
		a.Tenant = a.Principal.Tenant
	}
	if a.Correlation == "" {
		a.Correlation = NewCorrelation()
	}
	o := &op{g: g, Action: a, verb: verb}
	view, err := g.View(ctx, o.Tenant)
	if err != nil {
		return nil, err
	}
	o.view = view
	return o, nil
}

func (g *Governor) submit(ctx context.Context, o *op) (evidence.Receipt, error) {
	if err := g.group.Submit(ctx, o); err != nil {
		if e, ok := errors.AsType[*kernel.Error](err); ok {
			return evidence.Receipt{}, e
		}
		if ctx.Err() != nil {
			return evidence.Receipt{}, &kernel.Error{Kind: kernel.Unavailable, Msg: "the request ended before it was carried out; nothing was changed", Err: err}
		}
		return evidence.Receipt{}, fmt.Errorf("%s: %w", o.Verb, err)
	}
	return o.receipt, o.err
}

// apply is one transaction of the group.
func (g *Governor) apply(tx *store.Tx, ops []*op) error {
	tenants := make([]string, 0, len(ops)+1)
	for _, o := range ops {
		o.receipts, o.err = o.receipts[:0], nil
		if o.bookkeep == nil {
			tenants = append(tenants, o.Tenant)
		}
	}
	b, err := g.log.Begin(tx, tenants)
	if err != nil {
		return err
	}
	for _, o := range ops {
		o.batch = b
		if err := o.run(tx, b); err != nil {
			return err
		}
	}
	return b.Finish()
}

// committed runs once per durable transaction, before anyone is answered.
func (g *Governor) committed(ops []*op) {
	wake, grown, outcomes := false, make(map[string]int64, 4), [4]int{}
	for i, o := range ops {
		if i == 0 {
			o.batch.Committed()
		}
		for _, fn := range o.after {
			fn()
		}
		for _, r := range o.receipts {
			grown[r.Tenant] = r.Sequence
			outcomes[r.Outcome]++
		}
		wake = wake || o.enqueued
		for _, t := range o.bump {
			if epoch, err := o.batch.Epoch(t); err == nil {
				g.cache.changed(t, epoch)
			}
		}
		if o.keeps != "" {
			g.kept.Store(o.keeps, true)
		}
	}
	g.observe.Events(outcomes[evidence.Accepted], outcomes[evidence.Refused], outcomes[evidence.Failed])
	if g.published != nil {
		for tenant, size := range grown {
			g.published(tenant, size)
		}
	}
	if wake && g.wakeJobs != nil {
		g.wakeJobs()
	}
}

// Tx is a change under way: SQL as the tenant, and what the change adds to the record.
type Tx struct {
	*store.Tx
	// Now is the transaction's one time stamp.
	Now time.Time

	batch *evidence.Batch
	op    *op
}

// Detail adds a field to the action's main event.
func (tx *Tx) Detail(key string, value any) { tx.op.extra = append(tx.op.extra, detail{key, value}) }

// Artifact keeps content-addressed bytes for the action's tenant and lets its
// main event rest on them. kind is the bundle manifest's list (ecs.md §5.2).
func (tx *Tx) Artifact(kind, mediaType string, body []byte) (digest string, err error) {
	digest, err = tx.batch.PutArtifact(tx.op.Tenant, kind, mediaType, body)
	if err != nil {
		return "", err
	}
	tx.op.artifacts = append(tx.op.artifacts, digest)
	return digest, tx.As(tx.op.Tenant)
}

// ArtifactOf keeps content-addressed bytes for a tenant that is being made.
func (tx *Tx) ArtifactOf(tenant, kind, mediaType string, body []byte) (digest string, err error) {
	return tx.batch.PutArtifact(tenant, kind, mediaType, body)
}

// Record adds an event after the main one. Empty fields are filled in from the action.
func (tx *Tx) Record(d evidence.Draft) { tx.op.more = append(tx.op.more, d) }

// RecordMain adds an event after the action's own that the caller is told of
// in its place: the receipt is this one's.
func (tx *Tx) RecordMain(d evidence.Draft) error {
	if tx.op.headline != 0 {
		return errors.New("an action has one main event")
	}
	tx.Record(d)
	tx.op.headline = len(tx.op.more)
	return nil
}

// Snapshots keeps what a view's snapshot ids name in a tenant's artifacts. Do
// does it for the action's own tenant.
func (tx *Tx) Snapshots(tenant string, v *View) error { return keepSnapshots(tx.batch, tenant, v) }

// Enqueue adds background work that starts when the change is durable.
func (tx *Tx) Enqueue(j jobs.Job) error {
	if j.Tenant == "" {
		j.Tenant = tx.op.Tenant
	}
	if j.Correlation == "" {
		j.Correlation = tx.op.Correlation
	}
	if err := tx.As(store.Platform); err != nil {
		return err
	}
	if err := jobs.Enqueue(tx.Tx, tx.Now, j); err != nil {
		return err
	}
	tx.op.enqueued = true
	return tx.As(tx.op.Tenant)
}

// CreateLog makes a new tenant's log; the events recorded for it become its first.
func (tx *Tx) CreateLog(tenant string) (verifier string, err error) { return tx.batch.Create(tenant) }

// Bump says that decisions in tenant rest on what this change did.
func (tx *Tx) Bump(tenant string) { tx.op.bump = append(tx.op.bump, tenant) }

// After runs fn when the change is durable, before Do returns: for caches.
func (tx *Tx) After(fn func()) { tx.op.after = append(tx.op.after, fn) }
