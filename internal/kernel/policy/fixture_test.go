package policy_test

import (
	"errors"
	"testing"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/policy"
)

// The cast of these tests: a small platform with three kinds of resource.
var (
	workloads = policy.Declaration{
		Resources: []policy.ResourceType{{
			Name: "Workload",
			Doc:  "A container or virtual machine of a tenant.",
			Attributes: policy.Attributes{
				"envelope":    policy.String,
				"environment": policy.String,
				"owner":       policy.Optional(policy.String),
				"cpu":         policy.Long,
				"locked":      policy.Bool,
				"labels":      policy.StringSet,
				"image": policy.Attributes{
					"repository": policy.String,
					"digest":     policy.String,
					"signed":     policy.Bool,
					"signers":    policy.StringSet,
					"built_at":   policy.Optional(policy.Datetime),
					"sbom":       policy.Optional(policy.Attributes{"format": policy.String, "packages": policy.Long}),
				},
			},
		}},
		Actions: []policy.Action{
			{Verb: "workload.create", Resource: "Workload", Permission: "workloads.write", Groups: []string{"write"}, Doc: "Admit and start a workload."},
			{Verb: "workload.delete", Resource: "Workload", Permission: "workloads.write", Groups: []string{"write"}},
			{Verb: "workload.get", Resource: "Workload", Permission: "workloads.read", Groups: []string{"read"}},
		},
	}
	objects = policy.Declaration{
		Context: policy.Attributes{"mfa": policy.Bool, "client_ip": policy.Optional(policy.IPAddr), "now": policy.Datetime},
		Resources: []policy.ResourceType{
			{Name: "Object", Attributes: policy.Attributes{"jurisdiction": policy.String, "size": policy.Long}},
			{Name: "Tenant"},
		},
		Actions: []policy.Action{
			{Verb: "object.put", Resource: "Object", Permission: "objects.write", Groups: []string{"write"},
				Context: policy.Attributes{"target": policy.Attributes{"jurisdiction": policy.String}}},
			{Verb: "tenant.create", Resource: "Tenant", Permission: "tenants.write", Groups: []string{"write"}},
		},
	}
)

// platformRules are as a plane's policy.cedar would have them.
const platformRules = `
@id("tenant.isolation")
@reason("this belongs to another tenant")
@class("delegation_invalid")
forbid (principal, action, resource)
unless { principal.tenant == resource.tenant || principal.tenant == "system" };

@id("workload.write")
permit (principal, action in [Action::"workload.create", Action::"workload.delete"], resource)
when { principal.permissions.contains("workloads.write") };

@id("read")
permit (principal, action in Action::"read", resource)
when { principal.permissions.contains("workloads.read") };

@id("tenant.create")
permit (principal in Role::"platform-admin", action == Action::"tenant.create", resource is Tenant);

@id("image.unsigned")
@reason("the image carries no signature by a key this tenant trusts")
@fix("sign it with cosign and a key listed under /v1/trust-keys")
forbid (principal, action == Action::"workload.create", resource)
unless { resource.image.signed };
`

func newSchema(tb testing.TB) *policy.Schema {
	tb.Helper()
	s, err := policy.NewSchema(workloads, objects)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func compile(tb testing.TB, s *policy.Schema, name, source string) *policy.Set {
	tb.Helper()
	set, err := s.Compile(name, "1", source)
	if err != nil {
		tb.Fatalf("compile %s: %v", name, sourceProblems(err))
	}
	return set
}

// sourceProblems unwraps the problems of a rejected text for printing.
func sourceProblems(err error) error {
	if e, ok := errors.AsType[*policy.SourceError](err); ok {
		return e
	}
	return err
}

func problemsOf(tb testing.TB, err error) []policy.Problem {
	tb.Helper()
	e, ok := errors.AsType[*policy.SourceError](err)
	if !ok || kernel.KindOf(err) != kernel.Invalid {
		tb.Fatalf("got %v (%v), want an Invalid error with a SourceError", err, kernel.KindOf(err))
	}
	return e.Problems
}

func ada(tb testing.TB, s *policy.Schema) *policy.Principal {
	return person(tb, s, "ada", "acme", []string{"developer"}, "workloads.read", "workloads.write")
}

func person(tb testing.TB, s *policy.Schema, id, tenant string, roles []string, permissions ...string) *policy.Principal {
	tb.Helper()
	p, err := s.NewPrincipal(policy.Identity{Type: policy.User, ID: id, Tenant: tenant, Name: id, Kind: "human",
		Roles: roles, Permissions: permissions})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
