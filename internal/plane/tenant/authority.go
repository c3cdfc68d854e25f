package tenant

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/evidence/canon"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Authority is a mandate: its issuer lets the subject act within a scope for a
// time (ecs.md §6). Creating one under an id that exists renews it.
type Authority struct {
	ID        string    `json:"id"`
	Revision  int64     `json:"revision"`
	Issuer    string    `json:"issuer"`
	Subject   string    `json:"subject"`
	Scope     []string  `json:"scope"`
	ValidFrom time.Time `json:"valid_from"`
	ValidTo   time.Time `json:"valid_to"`
	Proof     string    `json:"proof,omitempty"`
	CreatedAt time.Time `json:"created_at"`

	owner string
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (a *Authority) validate() error {
	switch {
	case a.ID != "" && !name.MatchString(a.ID):
		return problem("id", "ECS_INVALID_ID", "is %q; use up to 100 letters, digits, dots, hyphens and underscores", a.ID)
	case a.Issuer == "" || len(a.Issuer) > 512:
		return problem("issuer", "ECS_INVALID_REQUEST", "is required: who grants the authority, up to 512 bytes")
	case a.Subject == "" || len(a.Subject) > 512:
		return problem("subject", "ECS_INVALID_REQUEST", "is required: the tenant that may act under it, or * for any")
	case len(a.Scope) == 0 || len(a.Scope) > 64:
		return problem("scope", "ECS_INVALID_REQUEST", `is required: up to 64 verbs or resources such as "workload" or "tenant.update", or "*" for all`)
	case a.ValidFrom.IsZero():
		return problem("valid_from", "ECS_INVALID_REQUEST", "is required: an RFC 3339 time")
	case a.ValidTo.IsZero():
		return problem("valid_to", "ECS_INVALID_REQUEST", "is required: an RFC 3339 time")
	case !a.ValidTo.After(a.ValidFrom):
		return problem("valid_to", "ECS_INVALID_REQUEST", "must be after valid_from")
	case len(a.Proof) > 16<<10:
		return problem("proof", "ECS_INVALID_REQUEST", "is longer than 16 KiB")
	}
	for i, s := range a.Scope {
		if s == "" || len(s) > 128 {
			return problem(fmt.Sprintf("scope[%d]", i), "ECS_INVALID_REQUEST", "must have 1 to 128 bytes")
		}
	}
	return nil
}

// snapshot is the artifact that authority_snapshot_id names: the binding's
// fields of ecs.md §6, as canonical JSON.
func (a *Authority) snapshot() ([]byte, error) {
	scope := make([]any, len(a.Scope))
	for i, s := range a.Scope {
		scope[i] = s
	}
	b, err := canon.Append(nil, map[string]any{"id": a.ID, "revision": a.Revision, "issuer": a.Issuer, "subject": a.Subject, "scope": scope,
		"valid_from": a.ValidFrom.Format(time.RFC3339Nano), "valid_to": a.ValidTo.Format(time.RFC3339Nano), "proof": a.Proof})
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", a.ID, err)
	}
	return append(b, '\n'), nil
}

// covers fails when the authority cannot be what tenant id acts under.
func (a *Authority) covers(q store.Q, id string, now time.Time) error {
	refuse := func(reason, format string, args ...any) error {
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_" + strings.ToUpper(reason), Rule: reason, Field: "authority_binding",
			Class: evidence.ClassAuthority, Msg: fmt.Sprintf(format, args...), Fix: "create or renew an authority with POST /v1/authorities"}
	}
	switch {
	case now.Before(a.ValidFrom):
		return refuse("authority_invalid", "authority %s begins at %s", a.ID, a.ValidFrom.Format(time.RFC3339))
	case !now.Before(a.ValidTo):
		return refuse("authority_expired", "authority %s ended at %s", a.ID, a.ValidTo.Format(time.RFC3339))
	case !govern.Covers(a.Scope, "tenant.create") && !slices.Contains(a.Scope, id) && !slices.Contains(a.Scope, "tenant/"+id):
		return refuse("scope_mismatch", "authority %s covers %s, not a tenant", a.ID, strings.Join(a.Scope, ", "))
	}
	// The subject may be named in the issuer's own terms; what it may not be is another tenant of ours.
	subject := strings.TrimPrefix(strings.TrimPrefix(a.Subject, "tenant/"), "tenant:")
	if subject == "*" || subject == id {
		return nil
	}
	if _, err := get(q, subject); err == nil {
		return refuse("scope_mismatch", "authority %s is for tenant %s", a.ID, subject)
	} else if kernel.KindOf(err) != kernel.NotFound {
		return err
	}
	return nil
}

// bindAuthority resolves t's binding and verifies that it is in force.
func (s *Service) bindAuthority(tx *govern.Tx, t *Tenant, now time.Time) error {
	a, err := newestAuthority(tx, [2]string{t.ID, identity.SystemTenant}, t.AuthorityBinding)
	if kernel.KindOf(err) == kernel.NotFound && err != nil {
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_AUTHORITY_INVALID", Rule: "authority_invalid", Field: "authority_binding", Class: evidence.ClassAuthority,
			Msg: fmt.Sprintf("there is no authority %q", t.AuthorityBinding), Fix: "create it with POST /v1/authorities"}
	}
	if err != nil {
		return err
	}
	t.authorityOwner = a.owner
	return a.covers(tx, t.ID, now)
}

// CreateAuthority adds an authority, or renews one: the new revision takes
// effect at once for every tenant bound to it.
func (s *Service) CreateAuthority(ctx context.Context, act govern.Action, a Authority) (Authority, evidence.Receipt, error) {
	if err := a.validate(); err != nil {
		return a, evidence.Receipt{}, err
	}
	if a.ID == "" {
		a.ID = "auth-" + uuid.Must(uuid.NewV7()).String()
	}
	a.owner = act.Principal.Tenant
	act.ResourceID = "authority/" + a.ID
	act.Resource = policy.Resource{Type: "Authority", ID: a.ID, Attributes: policy.Record{"tenant": a.owner, "issuer": a.Issuer, "subject": a.Subject, "scope": a.Scope}}
	scope := make([]any, len(a.Scope))
	for i, v := range a.Scope {
		scope[i] = v
	}
	act.Details = map[string]any{"authority_id": a.ID, "issuer": a.Issuer, "subject": a.Subject, "scope": scope,
		"valid_from": a.ValidFrom.Format(time.RFC3339Nano), "valid_to": a.ValidTo.Format(time.RFC3339Nano)}
	receipt, err := s.gov.Do(ctx, act, func(tx *govern.Tx) error {
		a.CreatedAt = tx.Now
		var issuer, subject string
		var revision int64
		err := tx.Get(`SELECT issuer, subject, revision FROM authorities WHERE tenant = $1 AND id = $2 ORDER BY revision DESC LIMIT 1`,
			[]any{a.owner, a.ID}, &issuer, &subject, &revision)
		if err != nil && !errors.Is(err, store.ErrNoRow) {
			return fmt.Errorf("read authority: %w", err)
		}
		if revision > 0 && (issuer != a.Issuer || subject != a.Subject) {
			return &kernel.Error{Kind: kernel.Conflict, Code: "ECS_AUTHORITY_EXISTS", Field: "id", Msg: "this authority exists with another issuer or subject; a renewal keeps both"}
		}
		a.Revision = revision + 1
		if a.Revision > 1 {
			tx.Bump(a.owner) // tenants may act under it; those under the platform's follow the platform's epoch
		}
		tx.Detail("revision", a.Revision)
		return insertAuthority(tx, &a)
	})
	return a, receipt, err
}

// GetAuthority returns an authority that the principal's tenant may see.
func (s *Service) GetAuthority(ctx context.Context, p *identity.Principal, id string) (a Authority, err error) {
	err = s.db.View(ctx, p.Tenant, func(q store.Q) error {
		a, err = visibleAuthority(q, p.Tenant, id)
		return err
	})
	return a, err
}

// ListAuthorities returns those that the tenant may see, after the given id.
func (s *Service) ListAuthorities(ctx context.Context, p *identity.Principal, after string, limit int) (as []Authority, err error) {
	err = s.db.View(ctx, p.Tenant, func(q store.Q) error {
		as, err = listAuthorities(q, p.Tenant, after, limit)
		return err
	})
	return as, err
}

func unknownAuthority(id string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_AUTHORITY_NOT_FOUND", Msg: fmt.Sprintf("no authority %q", id)}
}

func unknownPolicy(id, version string) error {
	if version != "" {
		id += "@" + version
	}
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_POLICY_NOT_FOUND", Msg: fmt.Sprintf("no policy %q", id)}
}
