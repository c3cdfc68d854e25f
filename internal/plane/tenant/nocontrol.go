package tenant

import (
	"fmt"
	"time"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/evidence/canon"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
)

// declareControl leaves the four declarations that the no-control profile
// verifies (ecs.md §5.5): who may act here, who holds which key, who runs the
// control plane, and where telemetry goes. They state what is so on this
// platform, which is not that its operator is without control; an integrator
// reads them to know what is left to prove.
func declareControl(tx *govern.Tx, t *Tenant, view *govern.View, verifier, provider string) error {
	for _, d := range []struct {
		event, typ, kind string
		body             map[string]any
	}{
		{"authority.graph.publish", "authority_graph", "authority_graphs", map[string]any{"tenant": t.ID, "binding": t.AuthorityBinding,
			"authority_snapshot_id": view.Authority.Digest, "platform_tenant": identity.SystemTenant,
			"platform_may": "administer the tenant and its accounts; read nothing inside it"}},
		{"key.custody.declare", "key_custody_model", "key_custody_models", map[string]any{"log_key": verifier, "log_key_custodian": provider,
			"log_key_at_rest": "sealed with AES-256-GCM under a master key outside the database", "token_signing_key_custodian": provider,
			"trust_keys": "public keys only; private keys stay with the tenant's signers"}},
		{"controlplane.ownership.declare", "controlplane_ownership", "controlplane_ownerships", map[string]any{"provider_id": provider, "tenant": t.ID,
			"tenant_owner": t.Owner, "jurisdiction": t.Jurisdiction}},
		{"telemetry.path.audit", "telemetry_egress_map", "telemetry_egress_maps", map[string]any{"workload_egress": "none: each container has a network of its own with loopback only",
			"platform_metrics": "private listener, without tenant labels", "platform_traces": "only to the collector that the operator configures"}},
	} {
		d.body["declared_at"] = tx.Now.Format(time.RFC3339Nano)
		b, err := canon.Append(nil, d.body)
		if err != nil {
			return fmt.Errorf("declare %s: %w", d.typ, err)
		}
		digest, err := tx.ArtifactOf(t.ID, d.kind, "application/json", append(b, '\n'))
		if err != nil {
			return err
		}
		tx.Record(evidence.Draft{Tenant: t.ID, Type: d.event, AuthoritySnapshot: view.Authority.Digest, PolicySnapshot: view.Policy.Digest,
			Details: map[string]any{"artifact_type": d.typ, "artifact_ref": evidence.ArtifactPointer(digest), "artifact_hash": digest}})
	}
	return nil
}
