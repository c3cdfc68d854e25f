package supplychain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
	"provost.dev/provost/internal/kernel"
)

// Digest names content by its SHA-256: "sha256:" and 64 lower-case hex digits.
type Digest string

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest checks the form of s. Other algorithms that OCI allows are refused.
func ParseDigest(s string) (Digest, error) {
	if !digestPattern.MatchString(s) {
		return "", kernel.InvalidField("digest", "%.80q is not sha256: followed by 64 lower-case hex digits", s)
	}
	return Digest(s), nil
}

// DigestOf is the digest of content.
func DigestOf(content []byte) Digest {
	sum := sha256.Sum256(content)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Hex is the digest without its algorithm.
func (d Digest) Hex() string { return string(d[len("sha256:"):]) }

// Descriptor points at content, as in the OCI image specification.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Digest       string            `json:"digest"` // as written: foreign manifests may name other algorithms
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
}

// descriptors is a list of them in a foreign manifest.
type descriptors []Descriptor

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *descriptors) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.AppendArray(dec, (*[]Descriptor)(l), maxDescriptors)
}

// maxDescriptors bounds the memory that a manifest can ask for. It is more
// than any registry's users have use for, and beyond it nothing is looked at.
const maxDescriptors = 10_000

// Content reads one repository. Errors are kernel.Errors: NotFound means the
// repository was asked and does not have it; TooLarge, that a limit was
// passed; with any other the caller knows nothing and Verify gives up.
// What is returned is hashed again here, so Content needs no trust beyond
// not hiding things.
type Content interface {
	// Manifest returns a manifest or index, byte for byte, and its media type.
	Manifest(ctx context.Context, digest Digest) (mediaType string, raw []byte, err error)
	// Blob returns a blob of at most max bytes, or TooLarge.
	Blob(ctx context.Context, digest Digest, max int64) ([]byte, error)
	// Referrers lists the manifests whose subject is the digest; none is no error.
	Referrers(ctx context.Context, subject Digest) ([]Descriptor, error)
	// Tag resolves a tag of the repository.
	Tag(ctx context.Context, tag string) (Digest, error)
}

// Limits of one verification. They bound memory and time against repositories
// that anyone with push rights can fill; what lies beyond is a finding with
// reason LimitExceeded, never a silent end.
const (
	MaxReferrers     = 128       // manifests looked at for one subject
	MaxLayers        = 64        // layers looked at in one manifest; the last ones, where cosign appends
	MaxManifestBytes = 4 << 20   // as the distribution specification advises registries
	MaxPayloadBytes  = 64 << 10  // a simple-signing payload
	MaxEnvelopeBytes = 32 << 20  // a DSSE envelope or Sigstore bundle; its SBOM is a quarter smaller
	MaxTotalBytes    = 256 << 20 // read in one verification
	MaxReads         = 1024      // manifests and blobs read in one verification
	MaxSignatures    = 16        // signatures in one envelope
	MaxSubjects      = 1024      // subjects in one statement
	MaxKeys          = 128       // trust keys of one verification
)

// source reads content within the limits and believes only its digest.
type source struct {
	content              Content
	bytesLeft, readsLeft int64
}

// manifest returns the media type and bytes of a manifest. What is wrong with
// the content itself is a *defect; any other error means it could not be read.
func (s *source) manifest(ctx context.Context, d Digest) (string, []byte, error) {
	if err := s.spend(); err != nil {
		return "", nil, err
	}
	mediaType, raw, err := s.content.Manifest(ctx, d)
	if err != nil {
		return "", nil, contentError("manifest", d, err)
	}
	if len(raw) > MaxManifestBytes {
		return "", nil, defectf(LimitExceeded, "manifest has %d bytes, more than %d", len(raw), MaxManifestBytes)
	}
	return mediaType, raw, s.admit(d, raw)
}

// blob returns the bytes of a blob; its errors are those of manifest.
func (s *source) blob(ctx context.Context, d Digest, max int64) ([]byte, error) {
	if err := s.spend(); err != nil {
		return nil, err
	}
	raw, err := s.content.Blob(ctx, d, max)
	if err != nil {
		return nil, contentError("blob", d, err)
	}
	if int64(len(raw)) > max {
		return nil, defectf(LimitExceeded, "blob has %d bytes, more than %d", len(raw), max)
	}
	return raw, s.admit(d, raw)
}

func (s *source) spend() error {
	if s.readsLeft--; s.readsLeft < 0 || s.bytesLeft <= 0 {
		return defectf(LimitExceeded, "more is attached than the %d objects or %d bytes that are looked at", MaxReads, MaxTotalBytes)
	}
	return nil
}

func (s *source) admit(d Digest, raw []byte) error {
	s.bytesLeft -= int64(len(raw))
	if got := DigestOf(raw); got != d {
		return defectf(ContentMismatch, "content under this digest hashes to %s", got)
	}
	return nil
}

// contentError turns the answers that say something about the content into
// defects and leaves the failures of the store as errors.
func contentError(what string, d Digest, err error) error {
	switch kernel.KindOf(err) {
	case kernel.NotFound:
		return defectf(ContentMissing, "%s is not in the repository", what)
	case kernel.TooLarge:
		return defectf(LimitExceeded, "%s is larger than what is read of one", what)
	}
	return fmt.Errorf("read %s %s: %w", what, d, err)
}
