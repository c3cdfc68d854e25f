package supplychain

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"provost.dev/provost/internal/fabric/supplychain/sbom"
	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// Schema names the form of Report's JSON. It changes when a reader of the old
// form would misread the new one.
const Schema = "provost.supplychain/v1"

// Report is what Verify found out about one image. It holds no time and no
// order of discovery: the same content and keys give the same JSON.
type Report struct {
	Schema string     `json:"schema"`
	Image  Subject    `json:"image"`
	Index  *Subject   `json:"index,omitempty"` // the index the image was chosen through, if any
	Keys   []TrustRef `json:"keys"`            // all keys that could have convinced, by name

	Signature  Part `json:"signature"`
	Provenance Part `json:"provenance"`
	SBOM       Part `json:"sbom"`

	// Other has verified statements of predicate types that nothing here
	// judges, such as scan results, signed by any trusted key.
	Other    []Proof   `json:"other"`
	Findings []Finding `json:"findings"`
}

// Subject is an image or index that proofs may be about.
type Subject struct {
	Digest    Digest `json:"digest"`
	MediaType string `json:"media_type"`
}

// KeyRef names a trust key: the tenant's name for it and its fingerprint.
type KeyRef struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
}

// TrustRef is a KeyRef with what the key was trusted for.
type TrustRef struct {
	KeyRef
	Uses []Use `json:"uses"`
}

// Part is the verdict on one of the things an image should carry.
type Part struct {
	Status Status  `json:"status"`
	Proofs []Proof `json:"proofs"`
}

// Status says in one word what a Part's proofs and findings come to.
type Status string

// The statuses, best first. Admission rules map to them: image.signature_missing
// is Missing, image.signature_invalid is Invalid, and so on.
const (
	Verified Status = "verified" // at least one proof by a key trusted for this use
	Unsigned Status = "unsigned" // an SBOM is there, signed by nobody; only for SBOM
	Invalid  Status = "invalid"  // something is there, and nothing of it stands; the findings say why
	Missing  Status = "missing"  // nothing is there
)

// Kind is what a proof or finding is about.
type Kind string

// The kinds. KindUnknown is for things too broken to tell.
const (
	KindSignature  Kind = "signature"
	KindProvenance Kind = "provenance"
	KindSBOM       Kind = "sbom"
	KindOther      Kind = "other"
	KindUnknown    Kind = "unknown"
)

// Format is how a proof was attached.
type Format string

// The formats.
const (
	SimpleSigning  Format = "simple-signing"  // cosign 1 and 2, Tekton Chains
	DSSE           Format = "dsse"            // an envelope as a layer: cosign 1 and 2, Tekton Chains
	SigstoreBundle Format = "sigstore-bundle" // cosign 3, Tekton Chains
	PlainReferrer  Format = "plain-referrer"  // an unsigned document
)

// Proof is a fact together with what it rests on. The bytes of Manifest and
// Layer, the subject's manifest and the keys are all that is needed to check it again.
type Proof struct {
	Kind   Kind   `json:"kind"`
	Format Format `json:"format"`
	// Subject is the digest that was signed; On tells whether that is the
	// "image" or the "index".
	Subject Digest `json:"subject"`
	On      string `json:"on"`
	// Keys are the trusted keys that verify it, by name; none when unsigned.
	Keys []KeyRef `json:"keys"`
	// Manifest and Layer are where it was found. Simple signatures are in the
	// manifest's annotations, everything else is in the layer.
	Manifest Digest `json:"manifest"`
	Layer    Digest `json:"layer"`

	PredicateType string       `json:"predicate_type,omitempty"` // of in-toto statements
	Identity      string       `json:"identity,omitempty"`       // the name the signer gave the image, in simple signatures
	Build         *Build       `json:"build,omitempty"`          // for provenance
	Document      *SBOMContent `json:"document,omitempty"`       // for SBOMs
}

// Build is what a SLSA provenance predicate says about the build. A
// trusted key vouches for it; nothing else does.
type Build struct {
	BuilderID string `json:"builder_id"`
	Type      string `json:"type"`
	// StartedOn and FinishedOn are as written; empty when not stated.
	StartedOn  string `json:"started_on,omitempty"`
	FinishedOn string `json:"finished_on,omitempty"`
}

// SBOMContent is an SBOM's summary and the digest of its bytes: the whole
// layer, or the predicate (or the string in it) exactly as the statement holds it.
type SBOMContent struct {
	Digest Digest `json:"digest"`
	sbom.Summary
}

// Reason is why something is not a proof. The set is closed and the names are stable.
type Reason string

// The reasons.
const (
	NothingThere    Reason = "missing"          // nothing of this kind is attached
	Malformed       Reason = "malformed"        // not what its media type or predicate type says
	BadSignature    Reason = "bad_signature"    // says it is by a trusted key, and is not
	UnknownKey      Reason = "unknown_key"      // says it is by a key (or certificate) that is not trusted
	NoKeyVerifies   Reason = "no_key_verifies"  // does not say by whom, and no trusted key verifies it: forged or foreign
	KeyNotForUse    Reason = "key_not_for_use"  // by a trusted key that is not trusted for this
	WrongSubject    Reason = "wrong_subject"    // about something else
	Unsupported     Reason = "unsupported"      // a version or algorithm that is not read
	ContentMissing  Reason = "content_missing"  // the repository lists it and does not have it
	ContentMismatch Reason = "content_mismatch" // the repository returns other bytes than the digest names
	LimitExceeded   Reason = "limit_exceeded"   // larger or more than is looked at
)

// Finding is one thing that is missing or is not a proof.
type Finding struct {
	Kind     Kind   `json:"kind"`
	Reason   Reason `json:"reason"`
	Manifest Digest `json:"manifest,omitempty"`
	Layer    Digest `json:"layer,omitempty"`
	Detail   string `json:"detail"` // for people; printable and short
}

// defect is a Reason on its way to becoming a Finding. Content is defective;
// other errors mean that content could not be had.
type defect struct {
	reason Reason
	detail string
}

func defectf(reason Reason, format string, args ...any) *defect {
	return &defect{reason, printable(fmt.Sprintf(format, args...))}
}

// malformed is the defect of content that does not decode.
func malformed(what string, err error) *defect {
	if errors.Is(err, strictjson.ErrLimit) {
		return defectf(LimitExceeded, "%s: %v", what, err)
	}
	return defectf(Malformed, "%s: %v", what, err)
}

func (d *defect) Error() string { return string(d.reason) + ": " + d.detail }

// printable makes text that may quote foreign content fit for a terminal and a log.
func printable(s string) string {
	const most = 300
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// JSON is the report in its one form, fit to be kept by digest.
func (r *Report) JSON() ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode supply chain report: %w", err)
	}
	return raw, nil
}

// Proofs lists all proofs: of signature, provenance, SBOM, and others.
func (r *Report) Proofs() []Proof {
	return slices.Concat(r.Signature.Proofs, r.Provenance.Proofs, r.SBOM.Proofs, r.Other)
}

// Objects lists the digests that an evidence bundle needs so that a stranger
// can check the proofs again: the manifests of the image and its index, and
// of each proof its manifest and layer. Sorted, each once.
func (r *Report) Objects() []Digest {
	objects := []Digest{r.Image.Digest}
	if r.Index != nil {
		objects = append(objects, r.Index.Digest)
	}
	for _, p := range r.Proofs() {
		objects = append(objects, p.Manifest, p.Layer)
	}
	slices.Sort(objects)
	return slices.Compact(objects)
}

// newReport is a report with nothing in it. Lists are empty, not nil: JSON has no null.
func newReport(image Subject, index *Subject, keys []*TrustKey) *Report {
	r := &Report{Schema: Schema, Image: image, Index: index, Keys: make([]TrustRef, len(keys)), Other: []Proof{}, Findings: []Finding{}}
	for _, part := range r.parts() {
		part.Proofs = []Proof{}
	}
	for i, k := range keys {
		r.Keys[i] = TrustRef{KeyRef: k.ref(), Uses: k.Uses()}
	}
	return r
}

// add files a proof under its kind.
func (r *Report) add(p Proof) {
	if part, ok := r.parts()[p.Kind]; ok {
		part.Proofs = append(part.Proofs, p)
		return
	}
	r.Other = append(r.Other, p)
}

// conclude sorts what was collected and draws the statuses from it.
func (r *Report) conclude() {
	found := make(map[Kind]bool)
	for _, f := range r.Findings {
		found[f.Kind] = true
	}
	for kind, part := range r.parts() {
		signed := slices.ContainsFunc(part.Proofs, func(p Proof) bool { return len(p.Keys) > 0 })
		switch {
		case signed:
			part.Status = Verified
		case len(part.Proofs) > 0:
			part.Status = Unsigned
		case found[kind]:
			part.Status = Invalid
		default:
			part.Status = Missing
			r.Findings = append(r.Findings, Finding{Kind: kind, Reason: NothingThere, Detail: "no " + string(kind) + " is attached to " + r.attachedTo()})
		}
	}
	for _, proofs := range []*[]Proof{&r.Signature.Proofs, &r.Provenance.Proofs, &r.SBOM.Proofs, &r.Other} {
		slices.SortFunc(*proofs, compareProofs)
		// One key may have signed one payload twice; that proves nothing more.
		*proofs = slices.CompactFunc(*proofs, func(a, b Proof) bool { return compareProofs(a, b) == 0 })
	}
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Manifest, b.Manifest),
			cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Detail, b.Detail))
	})
	r.Findings = slices.Compact(r.Findings)
}

func (r *Report) parts() map[Kind]*Part {
	return map[Kind]*Part{KindSignature: &r.Signature, KindProvenance: &r.Provenance, KindSBOM: &r.SBOM}
}

// compareProofs orders proofs by where they are and who vouches for them,
// which decides everything else in them.
func compareProofs(a, b Proof) int {
	return cmp.Or(cmp.Compare(a.Manifest, b.Manifest), cmp.Compare(a.Layer, b.Layer),
		slices.CompareFunc(a.Keys, b.Keys, func(a, b KeyRef) int { return cmp.Compare(a.Name, b.Name) }))
}

func (r *Report) attachedTo() string {
	if r.Index != nil {
		return "the image or its index"
	}
	return "the image"
}
