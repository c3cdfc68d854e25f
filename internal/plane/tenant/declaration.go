package tenant

import (
	_ "embed"

	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
)

// Rules are the plane's part of the platform's policy.
//
//go:embed policy.cedar
var Rules string

// Declaration is what rules can say about this plane.
var Declaration = policy.Declaration{
	Resources: []policy.ResourceType{
		{Name: "Tenant", Doc: "An isolation unit.", Attributes: policy.Attributes{
			"status": policy.Optional(policy.String), "jurisdiction": policy.Optional(policy.String), "classification_ceiling": policy.Optional(policy.String)}},
		{Name: "Authority", Doc: "A mandate that tenants act under.", Attributes: policy.Attributes{
			"issuer": policy.Optional(policy.String), "subject": policy.Optional(policy.String), "scope": policy.Optional(policy.StringSet)}},
		{Name: "Policy", Doc: "A version of a policy text.", Attributes: policy.Attributes{"version": policy.Optional(policy.String)}},
		{Name: "Decision", Doc: "A question put to policy.", Attributes: policy.Attributes{"action": policy.Optional(policy.String)}},
	},
	Actions: []policy.Action{
		{Verb: "tenant.create", Resource: "Tenant", Permission: "tenants.write"},
		{Verb: "tenant.read", Resource: "Tenant", Permission: "tenants.read"},
		{Verb: "tenant.list", Resource: "Tenant", Permission: "tenants.read"},
		{Verb: "tenant.update", Resource: "Tenant", Permission: "tenants.write", Context: policy.Attributes{"fields": policy.StringSet}},
		{Verb: "tenant.suspend", Resource: "Tenant", Permission: "tenants.write"},
		{Verb: "tenant.delete", Resource: "Tenant", Permission: "tenants.write"},
		{Verb: "authority.create", Resource: "Authority", Permission: "authorities.write"},
		{Verb: "authority.read", Resource: "Authority", Permission: "authorities.read"},
		{Verb: "authority.list", Resource: "Authority", Permission: "authorities.read"},
		{Verb: "policy.create", Resource: "Policy", Permission: "policies.write"},
		{Verb: "policy.deprecate", Resource: "Policy", Permission: "policies.write"},
		{Verb: "policy.read", Resource: "Policy", Permission: "policies.read"},
		{Verb: "policy.list", Resource: "Policy", Permission: "policies.read"},
		{Verb: "policy.test", Resource: "Policy", Permission: "policies.read"},
		{Verb: "decision.create", Resource: "Decision", Permission: "decisions.write"},
	},
}

// Verbs says what each verb leaves behind. Those that restore what a tenant
// acts under need no authority in force.
var Verbs = []govern.Verb{
	{Name: "tenant.create", Refused: "olz.bootstrap"},
	{Name: "tenant.read", Read: true},
	{Name: "tenant.list", Read: true},
	{Name: "tenant.update", Governs: true, WithoutAuthority: true},
	{Name: "tenant.suspend", Governs: true, WithoutAuthority: true},
	{Name: "tenant.delete", Governs: true, WithoutAuthority: true},
	{Name: "authority.create", Event: "authority.binding", Refused: "authority.refusal", WithoutAuthority: true},
	{Name: "authority.read", Read: true},
	{Name: "authority.list", Read: true},
	{Name: "policy.create", Event: "policy.snapshot.publish", WithoutAuthority: true},
	{Name: "policy.deprecate", Event: "policy.rule.update", Governs: true, WithoutAuthority: true},
	{Name: "policy.read", Read: true},
	{Name: "policy.list", Read: true},
	{Name: "policy.test", Read: true},
	{Name: "decision.create", Event: "policy.evaluate"},
}
