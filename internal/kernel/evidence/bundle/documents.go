package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The heads of the documents we write. Long arrays are streamed after them.

type producerIdentity struct {
	IssuerID   string `json:"issuer_id"`
	ProducerID string `json:"producer_id"`
}

type manifestHead struct {
	SchemaVersion   string           `json:"schema_version"`
	ExportID        string           `json:"export_id"`
	CreatedAt       string           `json:"created_at"`
	ProviderID      string           `json:"provider_id"`
	TenantID        string           `json:"tenant_id"`
	Profile         Profile          `json:"evidence_profile_id"`
	ProfileVersion  string           `json:"profile_version"`
	Producer        producerIdentity `json:"producer_identity"`
	ExpectationsRef string           `json:"verifier_expectations_ref"`
	HashProfile     string           `json:"hash_profile_id,omitempty"`
	Scope           Scope            `json:"scope"`
	ChainID         string           `json:"chain_id"`
	SegmentRef      string           `json:"chain_segment_ref"`
	BundleHash      string           `json:"bundle_hash"`
	SigningKey      string           `json:"signing_key"`
}

type inputsDocument struct {
	Profile         Profile          `json:"evidence_profile_id"`
	HashProfile     *string          `json:"hash_profile_id"`
	ChainID         string           `json:"chain_id"`
	From            uint64           `json:"from_sequence"`
	To              uint64           `json:"to_sequence"`
	PriorEventHash  *string          `json:"prior_event_hash"` // of the event before the first; null at genesis
	EventMethod     string           `json:"event_hash_method"`
	SegmentMethod   string           `json:"segment_hash_method"`
	BundleMethod    string           `json:"bundle_hash_method"`
	SegmentRef      string           `json:"chain_segment_ref"`
	ProfileVersion  string           `json:"profile_version"`
	Producer        producerIdentity `json:"producer_identity"`
	ExpectationsRef string           `json:"verifier_expectations_ref"`
}

type claimDocument struct {
	Profile         Profile          `json:"evidence_profile_id"`
	ProfileVersion  string           `json:"profile_version"`
	Producer        producerIdentity `json:"producer_identity"`
	ExpectationsRef string           `json:"verifier_expectations_ref"`
	Implements      Claim            `json:"implements"`
}

type segmentTail struct {
	Profile        Profile `json:"evidence_profile_id"`
	From           uint64  `json:"from_sequence"`
	ProfileVersion string  `json:"profile_version"`
	SegmentHash    string  `json:"segment_hash"`
	SegmentID      string  `json:"segment_id"`
	TenantID       string  `json:"tenant_id"`
	To             uint64  `json:"to_sequence"`
}

type proofHead struct {
	Origin     string `json:"origin"`
	TreeSize   uint64 `json:"tree_size"`
	LogKey     string `json:"log_key"`
	Checkpoint string `json:"checkpoint"`
}

// proofRun is one run of consecutive sequences: the compact ranges of the
// leaves before From and after To, base64 as C2SP does.
type proofRun struct {
	From  uint64   `json:"from"`
	To    uint64   `json:"to"`
	Left  [][]byte `json:"left"`
	Right [][]byte `json:"right"`
}

// document renders a whole small document.
func document(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return append(b, '\n'), nil
}

// members renders the members of a struct without the braces around them, to
// be written before or after a streamed array.
func members(v any) ([]byte, error) {
	b, err := document(v)
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimPrefix(b, []byte("{\n")), []byte("\n}\n")), nil
}
