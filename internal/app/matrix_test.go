package app

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/idp"
	"provost.dev/provost/internal/kernel/policy"
)

// TestRoleMatrix is the golden file of who may do what: every built-in role
// and every verb, in one's own tenant and in another's, under the platform's
// rules. A change of policy is a readable diff of it.
func TestRoleMatrix(t *testing.T) {
	schema, err := policy.NewSchema(Declarations()...)
	if err != nil {
		t.Fatal(err)
	}
	set, err := schema.Compile("platform", "1", strings.Join(Rules(), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	bound := policy.Bound{Platform: set, Tenant: policy.Empty}
	var roles []*identity.Principal
	for _, tenant := range []string{identity.SystemTenant, "demo"} {
		builtIn := idp.BuiltInRoles(tenant)
		for _, name := range slices.Sorted(maps.Keys(builtIn)) {
			p, err := identity.NewPrincipal(schema, identity.Principal{Tenant: tenant, Name: name, Kind: identity.Human, Roles: []string{name}, Permissions: builtIn[name]})
			if err != nil {
				t.Fatal(err)
			}
			roles = append(roles, p)
		}
	}
	var b strings.Builder
	b.WriteString("# own: in one's own tenant; other: in another tenant; - is refused. Regenerate: go test ./internal/app -run RoleMatrix -update\n")
	for _, a := range schema.Actions() {
		fmt.Fprintf(&b, "\n%s (%s)\n", a.Verb, a.Permission)
		for _, p := range roles {
			var may []string
			for place, tenant := range map[string]string{"own": p.Tenant, "other": "rival"} {
				r := policy.Request{Principal: p.Entity(), Action: a.Verb, Resource: policy.Resource{Type: a.Resource, ID: "x", Attributes: policy.Record{"tenant": tenant}}, Context: sample(a)}
				d := bound.Decide(&r)
				if d.Reason == policy.ReasonInput {
					t.Fatalf("%s: the sample request does not fit: %v", a.Verb, d.Errors)
				}
				if d.Allow {
					may = append(may, place)
				}
			}
			slices.Sort(may)
			if len(may) > 0 {
				fmt.Fprintf(&b, "  %-28s %s\n", p.ID(), strings.Join(may, " "))
			}
		}
	}
	const golden = "testdata/roles.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Fatalf("who may do what has changed; if that is meant, run with -update and read the diff\n%s", b.String())
	}
}

// sample is a context that fits an action: the most harmless change of it.
func sample(a policy.Action) policy.Record {
	if _, ok := a.Context["fields"]; ok {
		return policy.Record{"fields": []string{"policy_baseline"}}
	}
	return nil
}

// TestEveryVerbIsDeclaredOnce sees to it that what can be done, what leaves
// evidence and what rules can name are the same list.
func TestEveryVerbIsDeclaredOnce(t *testing.T) {
	schema, err := policy.NewSchema(Declarations()...)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range Verbs() {
		if _, ok := schema.Action(v.Name); !ok {
			t.Errorf("verb %s is in no declaration", v.Name)
		}
		if seen[v.Name] {
			t.Errorf("verb %s is listed twice", v.Name)
		}
		seen[v.Name] = true
	}
	for _, a := range schema.Actions() {
		if !seen[a.Verb] {
			t.Errorf("action %s leaves no evidence: it is in no room's Verbs", a.Verb)
		}
	}
	for _, r := range (&App{}).Routes() {
		if r.Verb == "" && r.Public == "" {
			t.Errorf("%s %s has neither a verb nor a reason to be public", r.Method, r.Path)
		}
		if r.Verb != "" && !seen[r.Verb] {
			t.Errorf("%s %s: verb %s is not declared", r.Method, r.Path, r.Verb)
		}
	}
}
