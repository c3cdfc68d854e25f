package tenant

import (
	"fmt"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
)

// LoadView implements govern.Loader. What cannot be resolved becomes a Problem
// of the view, which refuses governed actions, rather than an error.
func (s *Service) LoadView(q store.Q, id string) (*govern.View, error) {
	t, err := get(q, id)
	if err != nil {
		return nil, err
	}
	platform := t
	if id != identity.SystemTenant {
		if platform, err = get(q, identity.SystemTenant); err != nil {
			return nil, fmt.Errorf("read the platform tenant: %w", err)
		}
	}
	v := &govern.View{Tenant: id, Status: string(t.Status), Jurisdiction: t.Jurisdiction, Classification: t.Ceiling, Quotas: t.Quotas}
	if v.Policy, err = s.inForce(q, &t, &platform); err != nil {
		return nil, err
	}
	v.Authority, err = authorityOf(q, &t)
	return v, err
}

func authorityOf(q store.Q, t *Tenant) (govern.Authority, error) {
	a, err := newestAuthority(q, [2]string{t.authorityOwner, t.authorityOwner}, t.AuthorityBinding)
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		return govern.Authority{ID: t.AuthorityBinding, Problem: &kernel.Error{Kind: kernel.Refused, Code: "ECS_AUTHORITY_INVALID", Rule: "authority_invalid",
			Class: evidence.ClassAuthority, Msg: fmt.Sprintf("there is no authority %q", t.AuthorityBinding)}}, nil
	}
	if err != nil {
		return govern.Authority{}, err
	}
	snapshot, err := a.snapshot()
	if err != nil {
		return govern.Authority{}, err
	}
	return govern.Authority{ID: a.ID, Snapshot: snapshot, Digest: evidence.Digest(snapshot), Scope: a.Scope, ValidFrom: a.ValidFrom, ValidTo: a.ValidTo}, nil
}
