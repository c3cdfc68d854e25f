package bundle

import (
	"slices"

	"provost.dev/provost/internal/kernel"
)

// Profile is an evidence_profile_id: which rules a bundle promises to keep
// (ecs.md §5.5).
type Profile string

// The profiles of the contract.
const (
	Baseline    Profile = "ecs-evidence-baseline"
	Admissible  Profile = "ecs-evidence-admissible"
	NCP         Profile = "ecs-evidence-ncp"
	RegulatedML Profile = "ecs-evidence-regulated-ml"
)

// Profiles lists every profile that can be written and verified.
func Profiles() []Profile { return []Profile{Baseline, Admissible, NCP, RegulatedML} }

// HashV1 is the only hash profile of regulated-ml, and admissible's default.
const HashV1 = "ecs-hash-v1"

// ParseProfile returns the profile named s, or an Invalid error.
func ParseProfile(s string) (Profile, error) {
	if p := Profile(s); slices.Contains(Profiles(), p) {
		return p, nil
	}
	return "", kernel.InvalidField("evidence_profile_id", "%.80q is not one of %v", s, Profiles())
}

// hashProfile returns the hash profile of a bundle whose caller asked for
// given; empty means none is declared.
func (p Profile) hashProfile(given string) (string, error) {
	if problem := p.hashProfileProblem(given); given != "" && problem != "" {
		return "", kernel.InvalidField("hash_profile_id", "%s", problem)
	}
	if given == "" && (p == Admissible || p == RegulatedML) {
		return HashV1, nil
	}
	return given, nil
}

// hashProfileProblem says what is wrong with a declared hash profile, or "".
func (p Profile) hashProfileProblem(declared string) string {
	switch {
	case p == RegulatedML && declared != HashV1:
		return "regulated-ml allows only " + HashV1
	case p == Admissible && declared == "":
		return "admissible needs a declared hash profile"
	}
	return ""
}

// needsChain reports whether every event must carry its chain fields.
func (p Profile) needsChain() bool { return p == Admissible }

// Fields that events of a family must carry under a profile.
var (
	ncpFields = []string{"artifact_type", "artifact_ref", "artifact_hash"}

	mlTypes = map[string][]string{
		"ml.inference":           mlInference,
		"ml.training.start":      mlTraining,
		"ml.training.checkpoint": mlTraining,
		"ml.training.complete":   mlTraining,
	}
	mlInference = []string{"model_id", "input_hash", "hash_profile_id"}
	mlTraining  = []string{"training_run_id", "model_id", "hash_profile_id", "policy_snapshot_id", "authority_snapshot_id",
		"data_use_posture_id", "exclusion_policy_snapshot_id", "dataset_manifest_ref", "dataset_policy_bindings", "governance_phase"}

	// ncpTypes maps the events of the no-control profile to the artifact each declares.
	ncpTypes = map[string]string{
		"authority.graph.publish":        "authority_graph",
		"key.custody.declare":            "key_custody_model",
		"controlplane.ownership.declare": "controlplane_ownership",
		"telemetry.path.audit":           "telemetry_egress_map",
	}
)

// fieldsFor lists the fields that profile p demands of e beyond the envelope.
func (p Profile) fieldsFor(e *event) []string {
	switch {
	case p.declares(e):
		return ncpFields
	case p == RegulatedML:
		return mlTypes[string(e.eventType)]
	}
	return nil
}

// declares reports whether e must name a proof artifact. A declaration that was
// refused has declared nothing.
func (p Profile) declares(e *event) bool {
	return p == NCP && ncpTypes[string(e.eventType)] != "" && string(e.outcome) == "accepted"
}

// artifactKinds maps the event fields that name artifacts to the key of
// manifest.artifacts under which the artifact is listed. NCP's artifact_ref is
// sorted by ncpKinds instead.
var artifactKinds = map[string]string{
	"evidence_pointer":             "evidence_artifacts",
	"policy_snapshot_id":           "policy_snapshots",
	"exclusion_policy_snapshot_id": "policy_snapshots",
	"authority_snapshot_id":        "authority_bindings",
	"data_use_posture_id":          "data_use_postures",
	"dataset_manifest_ref":         "dataset_manifests",
	"model_sbom_ref":               "sbom_refs",
	"sbom_ref":                     "sbom_refs",
	"consent_token_ref":            "consent_tokens",
	"lineage_record_ref":           "lineage_records",
}

var ncpKinds = map[string]string{
	"authority_graph":        "authority_graphs",
	"key_custody_model":      "key_custody_models",
	"controlplane_ownership": "controlplane_ownerships",
	"telemetry_egress_map":   "telemetry_egress_maps",
}
