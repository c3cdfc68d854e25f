package supplychain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
	"provost.dev/provost/internal/kernel"
)

// Image says what to verify.
type Image struct {
	// Digest is what is to be judged: an image manifest or an index.
	Digest Digest
	// Index, if not empty, is the index that Digest was chosen from for a
	// platform. cosign signs the digest it is given, which for a multi-platform
	// image is usually the index; proofs about either then count.
	Index Digest
}

// Verify reads what is attached to the image and judges it by the keys.
// Whatever attached content can get wrong is in the report. The error is
// kernel.NotFound if the image is not there, Unprocessable if its own bytes
// are not what its digest says, Invalid or TooLarge if image or keys make no
// sense; any other means that content could not be read and nothing is known.
//
// A report holds for the keys it lists and for what was attached at the time:
// verify again when either changes.
func Verify(ctx context.Context, content Content, image Image, keys []*TrustKey) (*Report, error) {
	keys, err := sortedKeys(keys)
	if err != nil {
		return nil, err
	}
	v := &verification{
		source: source{content: content, bytesLeft: MaxTotalBytes, readsLeft: MaxReads},
		keys:   keys,
		seen:   make(map[Digest]bool),
	}
	if err := v.loadSubjects(ctx, image); err != nil {
		return nil, err
	}
	v.report = newReport(v.subjects[0].Subject, nil, keys)
	if len(v.subjects) > 1 {
		v.report.Index = &v.subjects[1].Subject
	}
	for _, s := range v.subjects {
		if err := v.collect(ctx, s.Digest); err != nil {
			return nil, fmt.Errorf("verify what %s carries: %w", image.Digest, err)
		}
	}
	v.report.conclude()
	return v.report, nil
}

func sortedKeys(keys []*TrustKey) ([]*TrustKey, error) {
	if len(keys) > MaxKeys {
		return nil, kernel.Errorf(kernel.TooLarge, "", "%d trust keys are more than the %d that can be tried; delete unused ones", len(keys), MaxKeys)
	}
	keys = slices.SortedFunc(slices.Values(keys), func(a, b *TrustKey) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(keys); i++ {
		if keys[i].name == keys[i-1].name {
			return nil, kernel.InvalidField("keys", "two trust keys have the name %q", keys[i].name)
		}
	}
	return keys, nil
}

// verification is the state of one Verify. It belongs to one goroutine.
type verification struct {
	source   source
	keys     []*TrustKey // by name
	subjects []subject   // the image, then its index if there is one
	seen     map[Digest]bool
	report   *Report
}

// subject is a digest that proofs may be about, with the bytes it names.
type subject struct {
	Subject
	on  string // "image" or "index"
	raw []byte
}

func (v *verification) loadSubjects(ctx context.Context, image Image) error {
	digests := []Digest{image.Digest}
	if image.Index != "" && image.Index != image.Digest {
		digests = append(digests, image.Index)
	}
	for _, d := range digests {
		if _, err := ParseDigest(string(d)); err != nil {
			return err
		}
		mediaType, raw, err := v.source.manifest(ctx, d)
		if err != nil {
			return imageError(d, err)
		}
		on := "image"
		if isIndex(mediaType) {
			on = "index"
		}
		v.subjects = append(v.subjects, subject{Subject{d, printable(mediaType)}, on, raw})
	}
	if len(v.subjects) == 1 {
		return nil
	}
	return checkListed(v.subjects[1].raw, image.Digest)
}

// imageError is the error for an image that cannot be judged at all.
func imageError(d Digest, err error) error {
	if bad, ok := errors.AsType[*defect](err); ok {
		kind := kernel.Unprocessable
		if bad.reason == ContentMissing {
			kind = kernel.NotFound
		}
		return kernel.Errorf(kind, "", "image %s: %s", d, bad.detail)
	}
	return fmt.Errorf("verify image %s: %w", d, err)
}

// checkListed makes sure that the index speaks of the image: otherwise
// anyone's signed index would vouch for it.
func checkListed(index []byte, image Digest) error {
	list, err := parseIndex(index)
	if err != nil {
		return kernel.InvalidField("index", "is not an index: %v", err)
	}
	for _, m := range list {
		if m.Digest == string(image) {
			return nil
		}
	}
	return kernel.InvalidField("index", "does not list %s", image)
}

// collect looks at everything attached to one subject.
func (v *verification) collect(ctx context.Context, subject Digest) error {
	base := "sha256-" + subject.Hex()
	for _, t := range []struct {
		tag  string
		kind Kind
	}{{base + ".sig", KindSignature}, {base + ".att", KindUnknown}} {
		d, err := v.tag(ctx, t.tag)
		if err != nil {
			return err
		}
		if d == "" {
			continue
		}
		if err := v.examine(ctx, d, t.kind); err != nil {
			return err
		}
	}
	referrers, err := v.referrers(ctx, subject, base)
	if err != nil {
		return err
	}
	for _, r := range referrers {
		d, err := ParseDigest(r.Digest)
		if err != nil {
			v.find(Finding{Kind: KindUnknown, Reason: Unsupported, Detail: printable(fmt.Sprintf("referrer %.80q is not named by SHA-256", r.Digest))})
			continue
		}
		if err := v.examine(ctx, d, kindOfArtifact(r.ArtifactType)); err != nil {
			return err
		}
	}
	return nil
}

// tag resolves a tag; it is "" where there is none.
func (v *verification) tag(ctx context.Context, tag string) (Digest, error) {
	d, err := v.source.content.Tag(ctx, tag)
	switch {
	case err == nil && digestPattern.MatchString(string(d)):
		return d, nil
	case err == nil:
		return "", fmt.Errorf("resolve tag %s: %.80q is not a SHA-256 digest", tag, string(d))
	case kernel.KindOf(err) == kernel.NotFound:
		return "", nil
	}
	return "", fmt.Errorf("resolve tag %s: %w", tag, err)
}

// referrers unites what the referrers API and the fallback tag list, in an
// order that does not depend on who answered: what looks like a proof first,
// so that attaching other things cannot push it over the limit.
func (v *verification) referrers(ctx context.Context, subject Digest, fallback string) ([]Descriptor, error) {
	list, err := v.source.content.Referrers(ctx, subject)
	if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return nil, fmt.Errorf("list referrers of %s: %w", subject, err)
	}
	d, err := v.tag(ctx, fallback)
	if err != nil {
		return nil, err
	}
	if d != "" {
		more, err := v.fallbackIndex(ctx, d)
		if bad, ok := errors.AsType[*defect](err); ok {
			v.find(Finding{Kind: KindUnknown, Reason: bad.reason, Manifest: d, Detail: bad.detail})
		} else if err != nil {
			return nil, err
		}
		list = slices.Concat(list, more)
	}
	slices.SortFunc(list, func(a, b Descriptor) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.ArtifactType, b.ArtifactType))
	})
	list = slices.CompactFunc(list, func(a, b Descriptor) bool { return a.Digest == b.Digest })
	if len(list) > MaxReferrers {
		v.find(Finding{Kind: KindUnknown, Reason: LimitExceeded,
			Detail: fmt.Sprintf("%d referrers of %s; the first %d were looked at", len(list), subject, MaxReferrers)})
		list = list[:MaxReferrers]
	}
	return list, nil
}

// rank is 0 for what calls itself a proof, 1 for what does not say (some
// registries report the type of the empty config), 2 for the rest.
func rank(d Descriptor) int {
	switch {
	case d.ArtifactType == "", strings.HasPrefix(d.ArtifactType, "application/vnd.oci."):
		return 1
	case kindOfArtifact(d.ArtifactType) != KindUnknown, isBundle(d.ArtifactType), d.ArtifactType == inTotoType, d.ArtifactType == dsseType:
		return 0
	}
	return 2
}

func (v *verification) fallbackIndex(ctx context.Context, d Digest) ([]Descriptor, error) {
	_, raw, err := v.source.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	list, err := parseIndex(raw)
	if err != nil {
		return nil, malformed("referrers tag", err)
	}
	return list, nil
}

func parseIndex(raw []byte) ([]Descriptor, error) {
	var index struct {
		SchemaVersion int         `json:"schemaVersion"`
		Manifests     descriptors `json:"manifests"`
	}
	if err := strictjson.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	if index.SchemaVersion != 2 || index.Manifests == nil {
		return nil, errors.New("not an index: no schemaVersion 2 or no manifests")
	}
	return index.Manifests, nil
}

func isIndex(mediaType string) bool {
	return mediaType == "application/vnd.oci.image.index.v1+json" ||
		mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

func (v *verification) find(f Finding) { v.report.Findings = append(v.report.Findings, f) }
