package identity_test

import (
	"slices"
	"testing"

	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
)

func newSchema(t *testing.T) *policy.Schema {
	t.Helper()
	s, err := policy.NewSchema(policy.Declaration{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPrincipalsAreSortedSets(t *testing.T) {
	given := []string{"tasks.read", "events.read", "tasks.read"}
	p, err := identity.NewPrincipal(newSchema(t), identity.Principal{Tenant: "demo", Name: "ada", Kind: identity.Human, Permissions: given})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Permissions, []string{"events.read", "tasks.read"}) || given[0] != "tasks.read" {
		t.Errorf("got %v of %v", p.Permissions, given)
	}
	if !p.Holds("events.read") || !p.Holds("tasks.read") || p.Holds("tasks.write") || p.Holds("") {
		t.Errorf("%v: Holds is wrong", p.Permissions)
	}
}

// Ids are how evidence names an actor: no account may look like the platform.
func TestIDs(t *testing.T) {
	s := newSchema(t)
	account := func(tenant, name string, kind identity.Kind) *identity.Principal {
		p, err := identity.NewPrincipal(s, identity.Principal{Tenant: tenant, Name: name, Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	system, err := identity.System(s, "jobs")
	if err != nil {
		t.Fatal(err)
	}
	anonymous, err := identity.Anonymous(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p                *identity.Principal
		id, typ, actor   string
		platform, system bool
	}{
		{account("demo", "ada", identity.Human), "ada@demo", policy.User, "human", false, false},
		{account("demo", "svc-build", identity.Service), "svc-build@demo", policy.Service, "service", false, false},
		{account("system", "admin", identity.Human), "admin@system", policy.User, "human", true, false},
		{account("system", "jobs", identity.Service), "jobs@system", policy.Service, "service", true, false},
		{system, "system:jobs", policy.System, "service", true, true},
		{anonymous, "anonymous@system", policy.User, "human", false, false},
	} {
		actor := c.p.Actor()
		if c.p.ID() != c.id || c.p.Entity().Type() != c.typ || c.p.Entity().ID() != c.id || actor.ID != c.id || actor.Type != c.actor || actor.Org != c.p.Tenant {
			t.Errorf("%s: entity %s %q, actor %+v", c.p.ID(), c.p.Entity().Type(), c.p.Entity().ID(), actor)
		}
		if c.p.Platform() != c.platform || c.p.System() != c.system {
			t.Errorf("%s: platform %t, system %t", c.p.ID(), c.p.Platform(), c.p.System())
		}
	}
}
