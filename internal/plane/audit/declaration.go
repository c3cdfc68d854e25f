package audit

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
		{Name: "Event", Doc: "Something that happened.", Attributes: policy.Attributes{"actor": policy.Optional(policy.String)}},
		{Name: "Log", Doc: "A tenant's Merkle log."},
		{Name: "Artifact", Doc: "Content-addressed bytes that events rest on."},
		{Name: "Export", Doc: "A bundle of events and what they rest on.", Attributes: policy.Attributes{"profile": policy.Optional(policy.String)}},
	},
	Actions: []policy.Action{
		{Verb: "event.read", Resource: "Event", Permission: "events.read"},
		{Verb: "event.list", Resource: "Event", Permission: "events.read"},
		{Verb: "log.read", Resource: "Log", Permission: "events.read"},
		{Verb: "artifact.read", Resource: "Artifact", Permission: "artifacts.read"},
		{Verb: "export.create", Resource: "Export", Permission: "exports.write"},
		{Verb: "export.read", Resource: "Export", Permission: "exports.read"},
		{Verb: "export.finish", Resource: "Export", Permission: "platform"},
		{Verb: "claims.read", Resource: "Log", Permission: "events.read"},
		{Verb: "chain.reconcile", Resource: "Log", Permission: "platform"},
	},
}

// Verbs says what each verb leaves behind.
var Verbs = []govern.Verb{
	{Name: "event.read", Read: true}, {Name: "event.list", Read: true}, {Name: "log.read", Read: true}, {Name: "artifact.read", Read: true},
	{Name: "export.create", Event: "evidence.export"}, {Name: "export.read", Read: true},
	{Name: "export.finish", Event: "evidence.export.finish"}, {Name: "claims.read", Read: true},
	{Name: "chain.reconcile", Event: "chain.reconciliation"},
}
