package govern

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// View is what decisions in a tenant rest on, as of an epoch. It is immutable.
type View struct {
	Tenant         string
	Status         string // active, suspended or deleted
	Jurisdiction   string
	Classification string // the ceiling
	Quotas         map[string]int64

	Authority Authority
	Policy    InForce

	// Epoch and PlatformEpoch are the log epochs this view was read at.
	Epoch, PlatformEpoch int64
}

// Authority is the mandate a tenant acts under.
type Authority struct {
	ID        string
	Snapshot  []byte // the artifact: canonical JSON of the binding
	Digest    string // of Snapshot: the authority_snapshot_id
	Scope     []string
	ValidFrom time.Time
	ValidTo   time.Time
	Problem   *kernel.Error // why there is none to act under
}

// InForce is the policy decisions are made by.
type InForce struct {
	Bound    policy.Bound
	Snapshot []byte // the artifact: canonical JSON of the sets and their versions
	Digest   string // of Snapshot: the policy_snapshot_id
	Problem  *kernel.Error
}

// Loader reads a tenant's view from the database. An unknown tenant is kernel.NotFound.
type Loader interface {
	LoadView(q store.Q, tenant string) (*View, error)
}

// views remembers each tenant's newest view. A view older than a change this
// process committed is never handed out.
type views struct {
	mu    sync.RWMutex
	known map[string]*View
	floor map[string]int64 // tenant → the epoch its last change here made
}

func (c *views) get(tenant string) *View {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v := c.known[tenant]
	if v == nil || v.Epoch < c.floor[tenant] || v.PlatformEpoch < c.floor[identity.SystemTenant] {
		return nil
	}
	return v
}

func (c *views) put(v *View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.known[v.Tenant]; old == nil || old.Epoch <= v.Epoch {
		c.known[v.Tenant] = v
	}
}

func (c *views) changed(tenant string, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor[tenant] = max(c.floor[tenant], epoch)
}

// View returns the tenant's view. With a database of its own this process
// knows every change; a shared one is asked for the epochs each time.
func (g *Governor) View(ctx context.Context, tenant string) (v *View, err error) {
	v = g.cache.get(tenant)
	if v != nil && !g.db.Postgres() {
		return v, nil
	}
	err = g.db.View(ctx, store.Platform, func(q store.Q) error {
		own, platform, err := readEpochs(q, tenant)
		if err != nil {
			return err
		}
		if v != nil && v.Epoch == own && v.PlatformEpoch == platform {
			return nil
		}
		v, err = g.load(q, tenant, own, platform)
		return err
	})
	return v, err
}

func readEpochs(q store.Q, tenant string) (own, platform int64, err error) {
	const epochSQL = `SELECT epoch FROM log_heads WHERE tenant = $1`
	if err := q.Get(epochSQL, []any{identity.SystemTenant}, &platform); err != nil && !errors.Is(err, store.ErrNoRow) {
		return 0, 0, fmt.Errorf("read the platform's epoch: %w", err)
	}
	if err := q.Get(epochSQL, []any{tenant}, &own); err != nil && !errors.Is(err, store.ErrNoRow) {
		return 0, 0, fmt.Errorf("read epoch: %w", err)
	}
	return own, platform, nil
}

// load reads a view as of epochs that were read before it: a change in between
// makes the view look older than it is, which only means reading it again.
func (g *Governor) load(q store.Q, tenant string, own, platform int64) (*View, error) {
	v, err := g.loader.LoadView(q, tenant)
	if err != nil {
		return nil, err
	}
	v.Epoch, v.PlatformEpoch = own, platform
	g.cache.put(v)
	return v, nil
}

// Ruling is a decision with what it rests on.
type Ruling struct {
	policy.Decision
	PolicySnapshot, AuthoritySnapshot string
	// Refusal is nil when the action is allowed.
	Refusal *kernel.Error
	// Input is the canonical JSON that Replay can decide again.
	Input []byte
}

func (o *op) ruling() Ruling {
	r := o.request()
	return Ruling{Decision: o.decision, PolicySnapshot: o.view.Policy.Digest, AuthoritySnapshot: o.view.Authority.Digest,
		Refusal: o.refusal, Input: r.AppendJSON(nil)}
}

func (o *op) request() policy.Request {
	return policy.Request{Principal: o.Principal.Entity(), Action: o.Verb, Resource: o.Resource, Context: o.Context}
}

// decide fills in o.decision and o.refusal from the view.
func (o *op) decide(now time.Time) {
	o.decision, o.refusal, o.asked = policy.Decision{}, nil, false
	if e := o.standing(now); e != nil {
		o.refusal = e
		o.decision.Rules = []string{e.Rule}
		return
	}
	if o.Check != nil {
		if err := o.Check(o.view); err != nil {
			o.refusal = kernel.AsError(err)
			if o.refusal.Rule != "" {
				o.decision.Rules = []string{o.refusal.Rule}
			}
			return
		}
	}
	bound, r := o.bound(), o.request()
	o.decision, o.asked = bound.Decide(&r), true
	if !o.decision.Allow {
		o.refusal = denial(bound.Explain(&r, o.decision), o.decision)
	}
}

// standing refuses what no policy needs to be asked about: a tenant that may
// not act, a mandate that is missing or over, a policy that cannot be resolved.
// The platform acts under its own mandate, and can always mend a tenant's.
func (o *op) standing(now time.Time) *kernel.Error {
	v := o.view
	if o.Principal.Platform() && v.Tenant != identity.SystemTenant {
		return nil
	}
	switch {
	case v.Status == "deleted":
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_TENANT_DELETED", Rule: "tenant.deleted", Class: evidence.ClassPolicy, Msg: "tenant " + v.Tenant + " was deleted"}
	case o.verb.Read:
		return nil
	case v.Status == "suspended" && !o.verb.WhileSuspended:
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_TENANT_SUSPENDED", Rule: "tenant.suspended", Class: evidence.ClassPolicy,
			Msg: "tenant " + v.Tenant + " is suspended and changes nothing", Fix: "a platform administrator resumes it by setting its status to active"}
	case o.verb.WithoutAuthority:
		return nil
	case v.Policy.Problem != nil:
		return v.Policy.Problem
	}
	return v.Authority.check(o.Verb, now)
}

// bound is the sets that decide. The platform's people and jobs are bound by
// the platform's rules alone. Reading, signing in and restoring a mandate go on
// by those rules while the tenant's own policy cannot be resolved.
func (o *op) bound() policy.Bound {
	b := o.view.Policy.Bound
	if o.Principal.Platform() || o.view.Policy.Problem != nil && (o.verb.Read || o.verb.WithoutAuthority) {
		return policy.Bound{Platform: b.Platform, Tenant: policy.Empty}
	}
	b.Extra = append(slices.Clip(b.Extra), o.Policies...)
	return b
}

// check fails closed (ecs.md §6): an authority that is missing, over, not yet
// begun, or of another scope allows nothing.
func (a Authority) check(verb string, now time.Time) *kernel.Error {
	refuse := func(reason, msg string) *kernel.Error {
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_" + strings.ToUpper(reason), Rule: reason, Class: evidence.ClassAuthority, Msg: msg,
			Fix: "renew it with POST /v1/authorities under the same id, or bind another one by PATCH of the tenant's authority_binding"}
	}
	switch {
	case a.Problem != nil:
		return a.Problem
	case now.Before(a.ValidFrom):
		return refuse("authority_invalid", fmt.Sprintf("authority %s begins at %s", a.ID, a.ValidFrom.Format(time.RFC3339)))
	case !now.Before(a.ValidTo):
		return refuse("authority_expired", fmt.Sprintf("authority %s ended at %s", a.ID, a.ValidTo.Format(time.RFC3339)))
	case !Covers(a.Scope, verb):
		return refuse("scope_mismatch", fmt.Sprintf("authority %s does not cover %s; its scope is %s", a.ID, verb, strings.Join(a.Scope, ", ")))
	}
	return nil
}

// Covers reports whether a scope names the verb: "*", the verb itself, or its
// resource followed by ".*" or alone ("workload.*", "workload").
func Covers(scope []string, verb string) bool {
	noun, _, _ := strings.Cut(verb, ".")
	return slices.ContainsFunc(scope, func(s string) bool {
		return s == "*" || s == verb || s == noun || s == noun+".*" || s == noun+"s"
	})
}

// denial turns policy's no into an error that says which rule decided, what is
// missing and who can grant it. A tenant's rule is named as its author did;
// the recorded decision has the name of its set, too.
func denial(x policy.Explanation, d policy.Decision) *kernel.Error {
	e := &kernel.Error{Kind: kernel.Refused, Class: x.Class, Msg: x.Message, Fix: x.Fix}
	for _, e2 := range d.Errors {
		e.Err = errors.Join(e.Err, fmt.Errorf("rule %s: %s", e2.Rule, e2.Message))
	}
	// Of several rules the one that stands first in its text is named: authors
	// put what has to be mended first, first. The others travel beside it.
	first := slices.MinFunc(x.Rules, func(a, b policy.Rule) int { return cmp.Compare(a.Line, b.Line) })
	e.Rule = PlainRule(first.ID)
	if first.Why != "" {
		e.Msg, e.Fix = first.Why, first.Fix
	}
	if first.Class != "" {
		e.Class = first.Class
	}
	for _, id := range d.Rules {
		e.Rules = append(e.Rules, PlainRule(id))
	}
	if x.Class == evidence.ClassJurisdiction {
		e.Code = "ECS_JURISDICTION_DENIED"
	}
	return e
}

// PlainRule is a rule's id as its author wrote it, without the name of its set.
func PlainRule(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }
