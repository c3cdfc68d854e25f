package bundle

import (
	"context"
	"io"
	"iter"
	"regexp"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel"
)

// Params describe an export.
type Params struct {
	ExportID   string // letters, digits, ".", "_" and "-", at most 128
	CreatedAt  time.Time
	ProviderID string
	TenantID   string
	ChainID    string
	Profile    Profile
	// HashProfile is declared in the manifest; empty is the profile's default:
	// HashV1 for admissible and regulated-ml, none for the others.
	HashProfile string
	IssuerID    string // of producer_identity; empty is ProviderID
	ProducerID  string
	Claim       Claim

	// Signer signs the file list, SigningKey is its C2SP verifier key. The text
	// signed starts with a line of its own and cannot be taken for a checkpoint,
	// so the log's key may be used.
	Signer     note.Signer
	SigningKey string

	// TempDir takes spooled files: about the size of events.jsonl once more by
	// half. Empty is the system's.
	TempDir string
}

// Claim is what the producer says it implements (profile-claim.json). Empty
// fields say what this package does.
type Claim struct {
	EvidenceProfiles        []Profile `json:"evidence_profiles"`
	DefaultEvidenceProfile  Profile   `json:"default_evidence_profile"`
	HashProfiles            []string  `json:"hash_profiles"`
	ExportEndpoints         []string  `json:"export_endpoints"`
	VerifierInputsSupported []string  `json:"verifier_inputs_supported"`
}

// Source is where an export comes from.
type Source struct {
	// Events yields the selected events' canonical lines, without newline, in
	// ascending sequence. A line is used until the next is asked for. An error
	// ends the export with that error.
	Events iter.Seq2[[]byte, error]

	// Artifact opens the stored bytes behind a pointer, eosc://evidence/… or
	// eosc://artifact/…, and says how many they are. It must not see other
	// tenants' artifacts. NotFound is an Internal error of the export for
	// evidence and snapshots, and leaves out what an event merely mentions.
	Artifact func(ctx context.Context, pointer string) (body io.ReadCloser, size int64, err error)

	// Log proves the events; nil leaves log-proof.json out.
	Log *Log
}

// Log is the tenant's Merkle log at one checkpoint.
type Log struct {
	Key        string // C2SP verifier key of the checkpoint's signature
	Checkpoint []byte // C2SP signed note covering every exported sequence
	// Range returns the RFC 6962 compact range of leaves [begin,end): the hashes
	// of the fewest perfect subtrees that cover it, left to right. Leaf i is the
	// event of sequence i+1.
	Range func(ctx context.Context, begin, end uint64) ([][]byte, error)
}

// Summary is what was written.
type Summary struct {
	Scope
	BundleHash   string // of the manifest, sha256:<hex>
	ManifestHash string // sha256:<hex> of manifest.json
	Files        int
	Artifacts    int
	Bytes        int64 // of all files, before compression
}

var exportIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// complete checks p and fills in defaults.
func (p Params) complete() (Params, error) {
	if _, err := ParseProfile(string(p.Profile)); err != nil {
		return p, err
	}
	hash, err := p.Profile.hashProfile(p.HashProfile)
	if err != nil {
		return p, err
	}
	p.HashProfile = hash
	if !exportIDForm.MatchString(p.ExportID) {
		return p, kernel.InvalidField("export_id", "want 1 to 128 letters, digits, dots, dashes and underscores")
	}
	for _, f := range []struct{ name, value string }{
		{"provider_id", p.ProviderID}, {"tenant_id", p.TenantID}, {"chain_id", p.ChainID}, {"producer_id", p.ProducerID},
	} {
		if f.value == "" {
			return p, kernel.InvalidField(f.name, "is required")
		}
	}
	if p.CreatedAt.IsZero() {
		return p, kernel.InvalidField("created_at", "is required")
	}
	if p.IssuerID == "" {
		p.IssuerID = p.ProviderID
	}
	v, err := note.NewVerifier(p.SigningKey)
	if err != nil {
		return p, kernel.Errorf(kernel.Internal, "", "signing key: %w", err)
	}
	if p.Signer == nil || p.Signer.Name() != v.Name() || p.Signer.KeyHash() != v.KeyHash() {
		return p, kernel.Errorf(kernel.Internal, "", "signing key %s does not belong to the signer", p.SigningKey)
	}
	return p, nil
}

// covering returns the claim with defaults filled in and with whatever the
// export at hand shows, so that the claim never says less than its bundle.
func (c Claim) covering(p Profile, hashProfiles []string) Claim {
	if len(c.EvidenceProfiles) == 0 {
		c.EvidenceProfiles = Profiles()
	}
	if c.DefaultEvidenceProfile == "" {
		c.DefaultEvidenceProfile = Baseline
	}
	if len(c.HashProfiles) == 0 {
		c.HashProfiles = []string{HashV1}
	}
	if len(c.ExportEndpoints) == 0 {
		c.ExportEndpoints = []string{"/v1/events", "/v1/exports"}
	}
	c.EvidenceProfiles = with(c.EvidenceProfiles, p, c.DefaultEvidenceProfile)
	c.HashProfiles = with(c.HashProfiles, hashProfiles...)
	c.VerifierInputsSupported = with(c.VerifierInputsSupported, "chain_id", "prev_hash", "event_hash")
	return c
}

// with returns list with those of more that it lacks.
func with[T comparable](list []T, more ...T) []T {
	list = slices.Clone(list)
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
