package govern

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// op is an action on its way through the door.
type op struct {
	g *Governor
	Action
	verb   Verb
	change func(*Tx) error
	// given refuses the action whatever policy says; readOnly only records a refusal.
	given    *kernel.Error
	readOnly bool
	// bookkeep, when set, is all there is.
	bookkeep func(store.Q) error

	view     *View
	decision policy.Decision
	asked    bool // decision is policy's, not of what comes before it
	refusal  *kernel.Error
	main     evidence.Sealed // the accepted event, encoded ahead; zero when the action is refused

	// What one run of the transaction left; run starts them over.
	batch     *evidence.Batch
	extra     []detail
	artifacts []string
	more      []evidence.Draft
	headline  int // one past the index in more of the event that the receipt is of; 0 is the action's own
	bump      []string
	after     []func()
	enqueued  bool
	keeps     string // the snapshots this run stored, for Governor.kept
	receipts  []evidence.Receipt
	receipt   evidence.Receipt
	err       error
}

type detail struct {
	key   string
	value any
}

// NewCorrelation makes a correlation id for an action that came without one.
func NewCorrelation() string { return uuid.Must(uuid.NewV7()).String() }

func (o *op) reset() {
	o.extra, o.artifacts, o.more, o.bump, o.after, o.keeps = nil, nil, nil, nil, nil, ""
	o.enqueued, o.headline, o.receipt, o.err = false, 0, evidence.Receipt{}, nil
	o.receipts = nil
}

// seal encodes the accepted event before the transaction, where it costs the
// writer nothing.
func (o *op) seal() (err error) {
	if o.refusal != nil || o.given != nil || o.verb.Read {
		return nil
	}
	o.main, err = evidence.Seal(o.draft(o.verb.Event, evidence.Accepted))
	return err
}

// run carries the op out within the batch's transaction. Its own failure is
// o.err; an error it returns is the whole transaction's.
func (o *op) run(tx *store.Tx, b *evidence.Batch) error {
	o.reset()
	if o.bookkeep != nil {
		return o.keepBooks(tx)
	}
	if err := o.refresh(tx, b); err != nil {
		return err
	}
	if err := o.keepSnapshots(b); err != nil {
		return err
	}
	if o.given != nil {
		return o.refuse(b, o.given)
	}
	if o.refusal != nil {
		return o.refuse(b, o.refusal)
	}
	if o.readOnly { // it was refused, and no longer is: nothing to record
		return nil
	}
	if err := tx.As(o.Tenant); err != nil {
		return err
	}
	err := tx.Savepoint(func() error { return o.change(&Tx{Tx: tx, Now: b.Now(), batch: b, op: o}) })
	if store.Broken(err) {
		return err
	}
	if err != nil {
		return o.refuse(b, kernel.AsError(err))
	}
	return o.accept(b)
}

func (o *op) keepBooks(tx *store.Tx) error {
	if err := tx.As(store.Platform); err != nil {
		return err
	}
	o.err = tx.Savepoint(func() error { return o.bookkeep(tx) })
	if store.Broken(o.err) {
		return o.err
	}
	return nil
}

// refresh decides again when what the decision rests on has changed since.
func (o *op) refresh(tx *store.Tx, b *evidence.Batch) error {
	own, err := b.Epoch(o.Tenant)
	if err != nil {
		return err
	}
	platform, err := b.Epoch(identity.SystemTenant)
	if err != nil {
		return err
	}
	if o.view.Epoch == own && o.view.PlatformEpoch == platform {
		if !o.expiring(b.Now()) {
			return nil
		}
	} else {
		if err := tx.As(store.Platform); err != nil {
			return err
		}
		v, err := o.g.load(tx, o.Tenant, own, platform)
		if err != nil {
			return err
		}
		o.view = v
	}
	if o.given != nil {
		return nil
	}
	o.decide(b.Now())
	return o.seal()
}

// expiring reports whether the authority ended between decision and commit.
func (o *op) expiring(now time.Time) bool {
	return o.refusal == nil && !now.Before(o.view.Authority.ValidTo)
}

// keepSnapshots makes sure that what the event's snapshot ids name can be
// fetched in the log's own tenant.
func (o *op) keepSnapshots(b *evidence.Batch) error {
	v := o.view
	id := o.Tenant + " " + v.Policy.Digest + " " + v.Authority.Digest
	if _, ok := o.g.kept.Load(id); ok {
		return nil
	}
	o.keeps = id
	return keepSnapshots(b, o.Tenant, v)
}

func keepSnapshots(b *evidence.Batch, tenant string, v *View) error {
	for _, a := range []struct {
		kind string
		body []byte
	}{{"policy_snapshots", v.Policy.Snapshot}, {"authority_bindings", v.Authority.Snapshot}} {
		if len(a.body) == 0 {
			continue
		}
		if _, err := b.PutArtifact(tenant, a.kind, "application/json", a.body); err != nil {
			return err
		}
	}
	return nil
}

func (o *op) draft(typ string, outcome evidence.Outcome) *evidence.Draft {
	details := o.Details
	if len(o.extra) > 0 {
		details = maps.Clone(details)
		if details == nil {
			details = make(map[string]any, len(o.extra))
		}
		for _, d := range o.extra {
			details[d.key] = d.value
		}
	}
	return &evidence.Draft{Tenant: o.Tenant, Type: typ, Outcome: outcome, Actor: o.Principal.Actor(), Correlation: o.Correlation,
		Resource: o.ResourceID, Action: o.Verb, AuthoritySnapshot: o.view.Authority.Digest, PolicySnapshot: o.view.Policy.Digest,
		Details: details, Decision: o.decisionRecord(), Artifacts: append(slices.Clone(o.Artifacts), o.artifacts...)}
}

// decisionRecord is what Replay needs, kept with the event's evidence. There
// is none when policy was not asked.
func (o *op) decisionRecord() []byte {
	if !o.asked {
		return nil
	}
	b := append(make([]byte, 0, 1024), `{"input":`...)
	r := o.request()
	b = r.AppendJSON(b)
	b = append(b, `,"output":`...)
	b = o.decision.AppendJSON(b)
	return append(b, '}')
}

// accept appends the events of an action that was carried out.
func (o *op) accept(b *evidence.Batch) error {
	if o.verb.Read {
		return o.tail(b)
	}
	if o.verb.Evaluate {
		if err := o.evaluated(b, evidence.Accepted, nil); err != nil {
			return err
		}
	}
	main := o.main
	if len(o.extra) > 0 || len(o.artifacts) > 0 {
		var err error
		if main, err = evidence.Seal(o.draft(o.verb.Event, evidence.Accepted)); err != nil {
			return err
		}
	}
	r, err := b.Append(main)
	if err != nil {
		return err
	}
	o.receipt, o.receipts = r, append(o.receipts, r)
	return o.tail(b)
}

// tail appends what the change recorded beside the main event, and bumps epochs.
func (o *op) tail(b *evidence.Batch) error {
	for i := range o.more {
		d := &o.more[i]
		o.fill(d)
		s, err := evidence.Seal(d)
		if err != nil {
			return err
		}
		r, err := b.Append(s)
		if err != nil {
			return err
		}
		o.receipts = append(o.receipts, r)
		if o.receipt.EventID == "" || o.headline == i+1 {
			o.receipt = r
		}
	}
	if o.verb.Governs {
		o.bump = append(o.bump, o.Tenant)
	}
	for _, t := range o.bump {
		if err := b.BumpEpoch(t); err != nil {
			return err
		}
	}
	return nil
}

func (o *op) fill(d *evidence.Draft) {
	if d.Tenant == "" {
		d.Tenant = o.Tenant
	}
	if d.Outcome == 0 {
		d.Outcome = evidence.Accepted
	}
	if d.Actor.ID == "" {
		d.Actor = o.Principal.Actor()
	}
	if d.Correlation == "" {
		d.Correlation = o.Correlation
	}
	if d.Resource == "" {
		d.Resource = o.ResourceID
	}
	if d.Action == "" {
		d.Action = o.Verb
	}
	if d.AuthoritySnapshot == "" {
		d.AuthoritySnapshot = o.view.Authority.Digest
	}
	if d.PolicySnapshot == "" {
		d.PolicySnapshot = o.view.Policy.Digest
	}
}

// refuse appends the refused (or, when the fault is ours, failed) event and
// makes e the answer, with its evidence.
func (o *op) refuse(b *evidence.Batch, cause *kernel.Error) error {
	e := *cause // a shared or repeated error is not written to
	outcome := evidence.Refused
	if e.Kind == kernel.Internal || e.Kind == kernel.Unavailable {
		outcome = evidence.Failed
	}
	if e.Class == "" {
		e.Class = evidence.ClassPrecondition
	}
	r := &evidence.Refusal{Class: e.Class, Code: refusalCode(&e), Subject: o.Verb, Reason: e.Msg}
	o.more, o.bump, o.after, o.enqueued, o.headline = nil, nil, nil, false, 0
	o.extra, o.artifacts = nil, nil
	if o.verb.Evaluate && o.given == nil && o.refusal != nil {
		if err := o.evaluated(b, outcome, r); err != nil {
			return err
		}
	}
	d := o.draft(o.verb.Refused, outcome)
	d.Refusal = r
	s, err := evidence.Seal(d)
	if err != nil {
		return err
	}
	receipt, err := b.Append(s)
	if err != nil {
		return err
	}
	o.receipts = append(o.receipts, receipt)
	o.receipt = receipt
	e.EventID, e.Pointer = receipt.EventID, receipt.Pointer
	o.err = &e
	return nil
}

func refusalCode(e *kernel.Error) string {
	switch {
	case e.Rule != "":
		return e.Rule
	case e.Code != "":
		return e.Code
	case e.Field != "":
		return "input_incomplete"
	}
	return e.Kind.String()
}

// evaluated appends the decision as an event of its own (ecs.md §2.3).
func (o *op) evaluated(b *evidence.Batch, outcome evidence.Outcome, r *evidence.Refusal) error {
	d := o.draft("policy.evaluate", outcome)
	rules := make([]any, len(o.decision.Rules))
	for i, rule := range o.decision.Rules {
		rules[i] = rule
	}
	d.Details = map[string]any{"evaluated_action": o.Verb, "rules": rules}
	d.Refusal, d.Artifacts = r, nil
	s, err := evidence.Seal(d)
	if err != nil {
		return err
	}
	receipt, err := b.Append(s)
	if err == nil {
		o.receipts = append(o.receipts, receipt)
	}
	return err
}
