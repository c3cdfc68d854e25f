package audit

import (
	"context"
	"strings"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/bundle"
	"provost.dev/provost/internal/kernel/route"
)

// resolve returns the bytes behind a pointer (ecs.md §4.5) in one tenant.
func (s *Service) resolve(ctx context.Context, tenant, pointer string) ([]byte, error) {
	if digest, ok := strings.CutPrefix(pointer, "eosc://evidence/"); ok {
		body, _, err := s.log.Evidence(ctx, tenant, digest)
		return body, err
	}
	if digest, ok := strings.CutPrefix(pointer, "eosc://artifact/"); ok {
		a, err := s.log.Artifact(ctx, tenant, digest)
		return a.Bytes, err
	}
	return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "that is not a pointer of this platform"}
}

// claims says what the platform offers, in the four groups of ecs.md §8.
func (s *Service) claims(c *route.Call) (any, error) {
	if err := s.check(c, "claims.read", "Log", "", nil); err != nil {
		return nil, err
	}
	type m = map[string]any
	return m{
		"provider_id": s.log.Provider(),
		"identity_federation": m{"model": "built-in issuer", "token_types": []string{"JWT (ES256)"},
			"claim_mappings":      m{"sub": "user or client name", "tenant": "tenant", "roles": "roles", "permissions": "permissions"},
			"trust_anchors":       []string{"/.well-known/jwks.json"},
			"acceptance_policies": []string{"signature, issuer, audience and expiry are required"}},
		"storage":            m{"classes": []string{}, "portability_limits": []string{"object storage is not offered by this version"}},
		"policy_enforcement": m{"language": "Cedar", "admission": true, "egress": "default deny", "evidence": "every decision on a change, and every refusal"},
		"audit_export": m{"evidence_profiles": bundle.Profiles(), "default_evidence_profile": bundle.Baseline, "chain_support": []string{"prev_hash", "event_hash", "rfc6962"},
			"formats": []string{"tar.gz", "zip"}},
		"implements": m{"evidence_profiles": bundle.Profiles(), "default_evidence_profile": bundle.Baseline, "hash_profiles": []string{bundle.HashV1},
			"export_endpoints": []string{"/v1/exports", "/v1/events"}, "verifier_inputs_supported": []string{"chain_id", "prev_hash", "event_hash"}},
	}, nil
}
