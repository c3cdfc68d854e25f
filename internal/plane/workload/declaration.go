package workload

import (
	_ "embed"

	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
)

// Rules are the plane's part of the platform's policy: among them the
// admission rules, in the order in which a developer mends what they refuse.
//
//go:embed policy.cedar
var Rules string

// Declaration is what rules can say about this plane.
var Declaration = policy.Declaration{
	Resources: []policy.ResourceType{{Name: "Workload", Doc: "A container or virtual machine of a tenant.", Attributes: policy.Attributes{
		"envelope_type":       policy.Optional(policy.String),
		"jurisdiction":        policy.Optional(policy.String),
		"tenant_jurisdiction": policy.Optional(policy.String),
		"classification":      policy.Optional(policy.String),
		"classification_rank": policy.Optional(policy.Long), // 0 is public
		"ceiling_rank":        policy.Optional(policy.Long),
		"restart":             policy.Optional(policy.String),
		"cpu_millis":          policy.Optional(policy.Long),
		"memory_bytes":        policy.Optional(policy.Long),
		"pids":                policy.Optional(policy.Long),
		"image": policy.Optional(policy.Attributes{
			"ref": policy.String, "registry": policy.String, "registry_allowed": policy.Bool, "own_tenant": policy.Bool, "repository": policy.String,
			"digest": policy.String, "pinned": policy.Bool, "found": policy.Bool,
			"signature": policy.String, "provenance": policy.String, "sbom": policy.String, // verified, unsigned, invalid or missing
			"signers": policy.StringSet, "builders": policy.StringSet,
		}),
	}}},
	Actions: []policy.Action{
		{Verb: "workload.create", Resource: "Workload", Permission: "workloads.write"},
		{Verb: "workload.read", Resource: "Workload", Permission: "workloads.read"},
		{Verb: "workload.list", Resource: "Workload", Permission: "workloads.read"},
		{Verb: "workload.delete", Resource: "Workload", Permission: "workloads.write"},
		{Verb: "workload.start", Resource: "Workload", Permission: "platform"},
		{Verb: "workload.stop", Resource: "Workload", Permission: "platform"},
		{Verb: "workload.destroy", Resource: "Workload", Permission: "platform"},
	},
}

// Verbs says what each verb leaves behind.
var Verbs = []govern.Verb{
	{Name: "workload.create", Event: "execution.admit", Refused: "execution.refuse", Evaluate: true},
	{Name: "workload.read", Read: true}, {Name: "workload.list", Read: true},
	{Name: "workload.delete"},
	{Name: "workload.start", Event: "workload.envelope.start"},
	{Name: "workload.stop", Event: "workload.envelope.stop"},
	{Name: "workload.destroy", Event: "workload.envelope.destroy"},
}
