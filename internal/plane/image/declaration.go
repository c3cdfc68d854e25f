package image

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
		{Name: "Image", Doc: "A manifest in a repository of the registry.", Attributes: policy.Attributes{
			"repository": policy.Optional(policy.String), "digest": policy.Optional(policy.String), "media_type": policy.Optional(policy.String), "tags": policy.Optional(policy.StringSet)}},
		{Name: "TrustKey", Doc: "A public key whose signatures a tenant trusts.", Attributes: policy.Attributes{
			"uses": policy.Optional(policy.StringSet), "algorithm": policy.Optional(policy.String)}},
	},
	Actions: []policy.Action{
		{Verb: "image.pull", Resource: "Image", Permission: "images.read"},
		{Verb: "image.push", Resource: "Image", Permission: "images.write"},
		{Verb: "image.delete", Resource: "Image", Permission: "images.write"},
		{Verb: "image.verify", Resource: "Image", Permission: "platform"},
		{Verb: "trust-key.create", Resource: "TrustKey", Permission: "trust-keys.write"},
		{Verb: "trust-key.read", Resource: "TrustKey", Permission: "trust-keys.read"},
		{Verb: "trust-key.delete", Resource: "TrustKey", Permission: "trust-keys.write"},
	},
}

// Verbs says what each verb leaves behind.
var Verbs = []govern.Verb{
	{Name: "image.pull", Read: true}, {Name: "image.push"}, {Name: "image.delete"},
	{Name: "image.verify", Event: "supplychain.provenance.attest"},
	{Name: "trust-key.create"}, {Name: "trust-key.read", Read: true}, {Name: "trust-key.delete"},
}
