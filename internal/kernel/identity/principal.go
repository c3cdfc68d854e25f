// Package identity is who is asking: people, services and the platform itself,
// and what they may do, as policies and evidence see them.
//
// The rooms below it make and check what they show: package token the tokens,
// package password the passwords, and package idp, the built-in identity
// provider, knows the accounts.
package identity

import (
	"fmt"
	"slices"
	"time"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/policy"
)

// SystemTenant is the platform's own tenant. Its people administer tenants and
// read nothing inside them.
const SystemTenant = "system"

// Kind is what sort of principal acts.
type Kind string

// The kinds, as actor_details.type names them (ecs.md §4.1).
const (
	Human    Kind = "human"
	Service  Kind = "service"
	Delegate Kind = "delegate"
)

// Principal is an authenticated caller, as of the last change to its rights.
// It is immutable and shared between requests.
type Principal struct {
	Tenant string
	Name   string // unique in the tenant
	Kind   Kind
	// Roles and Permissions are sorted. Permissions are those of the roles and
	// those granted directly, narrowed by the token's scope.
	Roles, Permissions, Groups []string
	// Credential is what was shown: a token's id, never the token.
	Credential string
	// Expires is when the credential ends; zero is never.
	Expires time.Time

	sort   sort
	entity *policy.Principal
}

// sort tells those with an account from those without.
type sort uint8

const (
	account sort = iota
	system
	anonymous
)

// NewPrincipal completes p for decisions under schema: sorted sets, and the
// entity that rules see.
func NewPrincipal(schema *policy.Schema, p Principal) (*Principal, error) {
	for _, s := range []*[]string{&p.Roles, &p.Permissions, &p.Groups} {
		*s = slices.Clone(*s)
		slices.Sort(*s)
		*s = slices.Compact(*s)
	}
	id := policy.Identity{Type: policy.User, ID: p.ID(), Tenant: p.Tenant, Name: p.Name, Kind: string(p.Kind),
		Roles: p.Roles, Permissions: p.Permissions, Groups: p.Groups}
	if p.Kind == Service {
		id.Type = policy.Service
	}
	if p.sort == system {
		id.Type = policy.System
	}
	var err error
	if p.entity, err = schema.NewPrincipal(id); err != nil {
		return nil, fmt.Errorf("principal %s: %w", p.ID(), err)
	}
	return &p, nil
}

// System is the platform acting for itself: a job, a timer, the reconciler.
func System(schema *policy.Schema, name string) (*Principal, error) {
	return NewPrincipal(schema, Principal{Tenant: SystemTenant, Name: name, Kind: Service, sort: system})
}

// Anonymous stands for a caller whose credential was missing or unusable. It
// appears on evidence only, and is nobody's: not the platform's either.
func Anonymous(schema *policy.Schema) (*Principal, error) {
	return NewPrincipal(schema, Principal{Tenant: SystemTenant, Name: "anonymous", Kind: Human, sort: anonymous})
}

// ID names the principal across tenants: "name@tenant", or "system:name" for
// the platform itself. No account can have the id of the platform or of
// Anonymous, whose name is reserved.
func (p *Principal) ID() string {
	if p.sort == system {
		return "system:" + p.Name
	}
	return p.Name + "@" + p.Tenant
}

// Platform reports whether the principal belongs to the platform tenant.
func (p *Principal) Platform() bool { return p.Tenant == SystemTenant && p.sort != anonymous }

// System reports whether the principal is the platform acting for itself.
func (p *Principal) System() bool { return p.sort == system }

// Holds reports whether the principal has a permission.
func (p *Principal) Holds(permission string) bool {
	_, ok := slices.BinarySearch(p.Permissions, permission)
	return ok
}

// Entity is the principal as policies see it.
func (p *Principal) Entity() *policy.Principal { return p.entity }

// Actor is the principal as evidence names it.
func (p *Principal) Actor() evidence.Actor {
	return evidence.Actor{ID: p.ID(), Type: string(p.Kind), Org: p.Tenant, Credential: p.Credential}
}
