package tenant

import (
	"context"
	"fmt"
	"strings"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
)

// PlatformPolicy is the id of the platform's own policy. The rules that this
// binary carries are version "builtin-<hash>" of it.
const PlatformPolicy = "platform"

// BaselinePolicy is the id of the policy that new tenants are meant to begin with.
const BaselinePolicy = "policy-baseline"

const baselineRules = `// What a tenant begins with. A tenant's policy narrows what the platform
// permits; publish another one and PATCH the tenant's policy_baseline to it.
@id("baseline.workload_size")
@reason("a single workload may not take more than 32 cores or 64 GiB under this policy")
@fix("ask for less, or have an operator bring another policy into force")
forbid (principal, action == Action::"workload.create", resource)
when {
    (resource has cpu_millis && resource.cpu_millis > 32000) ||
    (resource has memory_bytes && resource.memory_bytes > 68719476736)
};
`

// platformMandate is how long the platform's own authority lasts: it is what
// everything else hangs on, and nobody is there to renew it.
const platformMandate = 100 * 365 * 24 * time.Hour

// Genesis brings the platform's own tenant into being, and the rules that this
// binary carries into force. It is the one change that govern cannot decide,
// since what it would decide by does not exist yet (or, after an upgrade, no
// longer fits); like any other it is one transaction with its evidence.
// rules are the parts of the platform's policy, by room, in order.
func (s *Service) Genesis(ctx context.Context, log *evidence.Log, jurisdiction string, rules []string) error {
	text := strings.Join(rules, "\n")
	hash := evidence.Digest([]byte(text))
	version := "builtin-" + strings.TrimPrefix(hash, "sha256:")[:12]
	if _, err := s.schema.Compile(PlatformPolicy, version, text); err != nil {
		return fmt.Errorf("the platform's own rules: %w", err)
	}
	g := store.NewGroup(s.db, store.GroupConfig[*genesis]{Apply: func(tx *store.Tx, items []*genesis) error {
		for _, it := range items {
			if err := it.run(tx); err != nil {
				return err
			}
		}
		return nil
	}, Committed: func(items []*genesis) {
		for _, it := range items {
			if it.batch != nil {
				it.batch.Committed()
			}
		}
	}})
	defer g.Close()
	return g.Submit(ctx, &genesis{s: s, log: log, jurisdiction: jurisdiction, text: text, hash: hash, version: version})
}

type genesis struct {
	s                                 *Service
	log                               *evidence.Log
	jurisdiction, text, hash, version string
	batch                             *evidence.Batch
}

func (g *genesis) run(tx *store.Tx) error {
	if err := tx.As(store.Platform); err != nil {
		return err
	}
	t, err := get(tx, identity.SystemTenant)
	born := err == nil
	if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return err
	}
	if born && (t.policyID != PlatformPolicy || t.policyVersion == g.version || !strings.HasPrefix(t.policyVersion, "builtin-")) {
		return nil // up to date, or administrators brought rules of their own into force
	}
	if g.batch, err = g.log.Begin(tx, nil); err != nil {
		return err
	}
	if !born {
		if err := g.birth(tx, &t); err != nil {
			return err
		}
	}
	return g.renew(tx, &t, born)
}

// birth makes the platform's tenant, its log, its authority and the policy that tenants begin with.
func (g *genesis) birth(tx *store.Tx, t *Tenant) error {
	now := g.batch.Now().UTC()
	if _, err := g.batch.Create(identity.SystemTenant); err != nil {
		return err
	}
	a := Authority{ID: "platform", Revision: 1, Issuer: g.log.Provider(), Subject: "tenant/" + identity.SystemTenant, Scope: []string{"*"},
		ValidFrom: now, ValidTo: now.Add(platformMandate), CreatedAt: now, owner: identity.SystemTenant}
	if err := insertAuthority(tx, &a); err != nil {
		return err
	}
	base := Policy{ID: BaselinePolicy, Version: "1", Cedar: baselineRules, Description: "what a tenant begins with", Hash: evidence.Digest([]byte(baselineRules)),
		Status: "active", CreatedAt: now, owner: identity.SystemTenant, number: 1}
	if _, err := g.s.schema.Compile(base.ID, base.Version, base.Cedar); err != nil {
		return fmt.Errorf("the baseline policy: %w", err)
	}
	if err := insertPolicy(tx, &base); err != nil {
		return err
	}
	*t = Tenant{ID: identity.SystemTenant, AuthorityBinding: a.ID, Jurisdiction: g.jurisdiction, Ceiling: Classifications[len(Classifications)-1], PolicyBaseline: PlatformPolicy,
		Status: Active, CreatedAt: now, UpdatedAt: now, authorityOwner: identity.SystemTenant, policyOwner: identity.SystemTenant, policyID: PlatformPolicy, policyVersion: g.version}
	return insert(tx, t)
}

// renew brings this binary's rules into force.
func (g *genesis) renew(tx *store.Tx, t *Tenant, born bool) error {
	now := g.batch.Now().UTC()
	p := Policy{ID: PlatformPolicy, Version: g.version, Cedar: g.text, Description: "the rules this version of the program carries", Hash: g.hash,
		Status: "active", CreatedAt: now, owner: identity.SystemTenant, number: 1}
	if _, err := getPolicy(tx, [2]string{p.owner, p.owner}, p.ID, p.Version); kernel.KindOf(err) == kernel.NotFound && err != nil {
		if newest, err := getPolicy(tx, [2]string{p.owner, p.owner}, p.ID, ""); err == nil {
			p.number = newest.number + 1
		}
		if err := insertPolicy(tx, &p); err != nil {
			return err
		}
	}
	t.policyVersion, t.UpdatedAt = g.version, now
	if err := update(tx, t); err != nil {
		return err
	}
	view, err := g.s.LoadView(tx, identity.SystemTenant)
	if err != nil {
		return err
	}
	for kind, body := range map[string][]byte{"policy_snapshots": view.Policy.Snapshot, "authority_bindings": view.Authority.Snapshot} {
		if _, err := g.batch.PutArtifact(identity.SystemTenant, kind, "application/json", body); err != nil {
			return err
		}
	}
	d := evidence.Draft{Tenant: identity.SystemTenant, Type: "policy.snapshot.publish", Outcome: evidence.Accepted, Correlation: govern.NewCorrelation(),
		Actor:    evidence.Actor{ID: "genesis@" + identity.SystemTenant, Type: string(identity.Service), Org: identity.SystemTenant},
		Resource: p.resourceID(), Action: "platform.upgrade", AuthoritySnapshot: view.Authority.Digest, PolicySnapshot: view.Policy.Digest,
		Details: map[string]any{"policy_id": p.ID, "policy_version": p.Version, "policy_hash": p.Hash}}
	if !born {
		d.Type, d.Resource, d.Action = "olz.bootstrap", "tenant/"+t.ID, "platform.create"
		d.Details = t.details()
	}
	sealed, err := evidence.Seal(&d)
	if err != nil {
		return err
	}
	if _, err := g.batch.Append(sealed); err != nil {
		return err
	}
	if err := g.batch.BumpEpoch(identity.SystemTenant); err != nil {
		return err
	}
	return g.batch.Finish()
}
