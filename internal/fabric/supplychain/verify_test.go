package supplychain

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
)

// cast is who and what the cases are about. The platform image is listed in
// the index; other is an image of the same repository.
type cast struct {
	*repository
	t                   *testing.T
	image, index, other Digest
	release, stranger   signer // the tenant trusts release only
}

var (
	releaseKey  = newECDSA(elliptic.P256())
	strangerKey = newECDSA(elliptic.P256())
)

func newCast(t *testing.T) *cast {
	r := newRepository(t)
	image := r.image("app")
	return &cast{repository: r, t: t, image: image, index: r.index(image, r.image("arm")), other: r.image("other"),
		release: releaseKey, stranger: strangerKey}
}

func (c *cast) signatureStatement(d Digest) object {
	return statementOf(d, cosignSignPredicate, object{})
}

func (c *cast) provenance(d Digest) object { return statementOf(d, slsaV1, provenanceV1) }

func (c *cast) dsse(statement object, by ...signer) object {
	return c.layer(dsseType, envelopeOf(c.t, statement, by...), object{layerPredicateAnnotation: statement["predicateType"]})
}

func edited(o object, name string, value any) object {
	with := object{name: value}
	for k, v := range o {
		if k != name {
			with[k] = v
		}
	}
	return with
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func messageBundle(c *cast, by signer, d Digest) object {
	raw := c.manifests[d]
	sum := []byte{}
	fmt.Sscanf(d.Hex(), "%x", &sum)
	return bundleOf(by.hint(c.t), object{"messageSignature": object{"signature": b64(by.sign(c.t, raw)),
		"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(sum)}}})
}

// summary is a report as TestVerify writes it.
func summary(r *Report) string {
	words := []string{string(r.Signature.Status), string(r.Provenance.Status), string(r.SBOM.Status)}
	findings := []string{}
	for _, f := range r.Findings {
		if f.Reason != NothingThere {
			findings = append(findings, string(f.Kind)+":"+string(f.Reason))
		}
	}
	return strings.Join(append(words, slices.Compact(findings)...), " ")
}

// matches compares word by word; "*" stands for one word, or for the rest at the end.
func matches(got, want string) bool {
	g, w := strings.Fields(got), strings.Fields(want)
	for i, word := range w {
		if word == "*" && i == len(w)-1 {
			return true
		}
		if i >= len(g) || word != "*" && word != g[i] {
			return false
		}
	}
	return len(g) == len(w)
}

// checkReport checks what holds for every report.
func checkReport(t *testing.T, c *cast, r *Report) {
	t.Helper()
	for _, p := range r.Proofs() {
		if p.Subject != c.image && p.Subject != c.index {
			t.Errorf("proof about %s", p.Subject)
		}
		if (p.On == "index") != (p.Subject == c.index) {
			t.Errorf("proof about %s says it is on the %s", p.Subject, p.On)
		}
		if len(p.Keys) == 0 && p.Format != PlainReferrer {
			t.Errorf("proof without a key: %+v", p)
		}
		if (p.Kind == KindProvenance) != (p.Build != nil) || (p.Kind == KindSBOM) != (p.Document != nil) {
			t.Errorf("proof does not fit its kind: %+v", p)
		}
	}
	for _, d := range r.Objects() {
		if c.manifests[d] == nil && c.blobs[d] == nil {
			t.Errorf("object %s is not in the repository", d)
		}
	}
	for _, f := range r.Findings {
		if f.Detail == "" || f.Detail != printable(f.Detail) {
			t.Errorf("finding with the detail %q", f.Detail)
		}
	}
	first, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(first, []byte("null")) {
		t.Errorf("report has a null: %s", first)
	}
	var stored Report
	if err := json.Unmarshal(first, &stored); err != nil {
		t.Fatal(err)
	}
	if copied, err := stored.JSON(); err != nil || !bytes.Equal(first, copied) {
		t.Errorf("report changes when it is stored (%v):\n%s\n%s", err, first, copied)
	}
	again, err := Verify(t.Context(), c, Image{Digest: c.image, Index: c.index}, []*TrustKey{releaseKey.trust(t, "release")})
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again.JSON(); err != nil || !bytes.Equal(first, second) {
		t.Errorf("second report differs (%v):\n%s\n%s", err, first, second)
	}
}

func TestProofSaysWhatItRestsOn(t *testing.T) {
	c := newCast(t)
	sig := c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
	att := c.attachBundle(c.index, c.release, statementOf(c.index, slsaV02, provenanceV02))
	sbom := c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, cyclonedxDoc))
	r, err := Verify(t.Context(), c, Image{Digest: c.image, Index: c.index}, []*TrustKey{releaseKey.trust(t, "release")})
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := releaseKey.trust(t, "release").Fingerprint()
	s, p, b := r.Signature.Proofs[0], r.Provenance.Proofs[0], r.SBOM.Proofs[0]
	for _, check := range []struct{ what, got, want string }{
		{"signature key", s.Keys[0].Name + " " + s.Keys[0].Fingerprint, "release " + fingerprint},
		{"signature manifest", string(s.Manifest), string(sig)},
		{"signature format", string(s.Format), "simple-signing"},
		{"signature on", s.On, "image"},
		{"identity", s.Identity, "registry.example/team/app"},
		{"provenance manifest", string(p.Manifest), string(att)},
		{"provenance on", p.On, "index"},
		{"predicate type", p.PredicateType, "https://slsa.dev/provenance/v0.2"},
		{"builder", p.Build.BuilderID, "https://tekton.dev/chains/v2"},
		{"build type", p.Build.Type, "tekton.dev/v1beta1/TaskRun"},
		{"when", p.Build.FinishedOn, "2026-01-02T03:04:05Z"},
		{"SBOM manifest", string(b.Manifest), string(sbom)},
		{"SBOM digest", string(b.Document.Digest), string(DigestOf(mustJSON(t, cyclonedxDoc)))},
		{"SBOM", fmt.Sprint(b.Document.Format, b.Document.Version, b.Document.Components), "cyclonedx1.51"},
		{"objects", fmt.Sprint(len(r.Objects())), "8"}, // two subjects, three manifests, three layers
	} {
		if check.got != check.want {
			t.Errorf("%s: got %q, want %q", check.what, check.got, check.want)
		}
	}
}

func TestEveryAlgorithm(t *testing.T) {
	p384, ed := newECDSA(elliptic.P384()), newEd25519()
	for name, by := range map[string]signer{
		"ecdsa-p256": newECDSA(elliptic.P256()), "ecdsa-p384": p384, "ecdsa-p384 sha256": {Signer: p384.Signer, sha256: true},
		"ed25519": ed, "ed25519 prehashed": {Signer: ed.Signer, prehash: true}, "rsa-2048": newRSA(2048),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCast(t)
			c.tagged(c.image, ".sig", c.signatureLayer(by, payload(c.image)))
			c.attachBundle(c.image, by, c.provenance(c.image))
			c.attachRawBundle(c.image, cosignSignPredicate, messageBundle(c, by, c.image))
			r, err := Verify(t.Context(), c, Image{Digest: c.image}, []*TrustKey{by.trust(t, "key"), strangerKey.trust(t, "other")})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(r); got != "verified verified missing" || len(r.Signature.Proofs) != 2 {
				t.Errorf("got %s with %d signatures: %+v", got, len(r.Signature.Proofs), r.Findings)
			}
		})
	}
}

func TestKeyUses(t *testing.T) {
	c := newCast(t)
	c.attachBundle(c.image, c.release, c.signatureStatement(c.image))
	c.attachBundle(c.image, c.release, c.provenance(c.image))
	c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, cyclonedxDoc))
	for _, test := range []struct {
		uses []Use
		want string
	}{
		{[]Use{UseSignature}, "verified invalid invalid provenance:key_not_for_use sbom:key_not_for_use"},
		{[]Use{UseProvenance}, "invalid verified invalid sbom:key_not_for_use signature:key_not_for_use"},
		{[]Use{UseSBOM, UseSignature}, "verified invalid verified provenance:key_not_for_use"},
	} {
		r, err := Verify(t.Context(), c, Image{Digest: c.image}, []*TrustKey{releaseKey.trust(t, "release", test.uses...)})
		if err != nil {
			t.Fatal(err)
		}
		if got := summary(r); got != test.want {
			t.Errorf("%v: got %s, want %s", test.uses, got, test.want)
		}
	}

	// The same key under two names, for different uses.
	r, err := Verify(t.Context(), c, Image{Digest: c.image}, []*TrustKey{
		releaseKey.trust(t, "a", UseSignature), releaseKey.trust(t, "b", UseProvenance, UseSBOM)})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r); got != "verified verified verified" || r.Signature.Proofs[0].Keys[0].Name != "a" || r.SBOM.Proofs[0].Keys[0].Name != "b" {
		t.Errorf("got %s: %+v", got, r)
	}
}

func TestSeveralSigners(t *testing.T) {
	c := newCast(t)
	c.tagged(c.image, ".att", c.dsse(c.provenance(c.image), c.stranger, c.release, newECDSA(elliptic.P256())))
	r, err := Verify(t.Context(), c, Image{Digest: c.image}, []*TrustKey{strangerKey.trust(t, "z"), releaseKey.trust(t, "a")})
	if err != nil {
		t.Fatal(err)
	}
	if keys := r.Provenance.Proofs[0].Keys; len(keys) != 2 || keys[0].Name != "a" || keys[1].Name != "z" {
		t.Errorf("got keys %+v, want a and z", keys)
	}
}

func TestNoKeys(t *testing.T) {
	c := newCast(t)
	c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
	r, err := Verify(t.Context(), c, Image{Digest: c.image}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r); got != "invalid missing missing signature:unknown_key" {
		t.Errorf("got %s", got)
	}
}

// TestVerifyRefuses has the cases with no report: the question makes no
// sense, or the answer cannot be known.
func TestVerifyRefuses(t *testing.T) {
	down := kernel.Errorf(kernel.Unavailable, "", "store is away")
	for _, test := range []struct {
		name  string
		setup func(c *cast, i *Image)
		keys  []*TrustKey
		want  kernel.Kind
	}{
		{"no such image", func(c *cast, i *Image) { i.Digest = DigestOf([]byte("gone")) }, nil, kernel.NotFound},
		{"no such index", func(c *cast, i *Image) { i.Index = DigestOf([]byte("gone")) }, nil, kernel.NotFound},
		{"no digest", func(c *cast, i *Image) { i.Digest = "app:latest" }, nil, kernel.Invalid},
		{"index does not list the image", func(c *cast, i *Image) { i.Index = c.repository.index(c.other) }, nil, kernel.Invalid},
		{"index is none", func(c *cast, i *Image) { i.Index = c.other }, nil, kernel.Invalid},
		{"image's bytes are wrong", func(c *cast, i *Image) { c.lie[i.Digest] = []byte("{}") }, nil, kernel.Unprocessable},
		{"two keys of one name", func(c *cast, i *Image) {}, []*TrustKey{releaseKey.trust(t, "a"), strangerKey.trust(t, "a")}, kernel.Invalid},
		{"too many keys", func(c *cast, i *Image) {}, make([]*TrustKey, MaxKeys+1), kernel.TooLarge},
		{"manifests unreadable", func(c *cast, i *Image) { c.fail["Manifest"] = down }, nil, kernel.Unavailable},
		{"blobs unreadable", func(c *cast, i *Image) { c.fail["Blob"] = down }, nil, kernel.Unavailable},
		{"tags unreadable", func(c *cast, i *Image) { c.fail["Tag"] = down }, nil, kernel.Unavailable},
		{"referrers unreadable", func(c *cast, i *Image) { c.fail["Referrers"] = down }, nil, kernel.Unavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCast(t)
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
			image := Image{Digest: c.image}
			test.setup(c, &image)
			r, err := Verify(t.Context(), c, image, test.keys)
			if err == nil || r != nil || kernel.KindOf(err) != test.want {
				t.Errorf("got %+v, %v, want an error of kind %s", r, err, test.want)
			}
		})
	}
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	c := newCast(t)
	c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Verify(ctx, c, Image{Digest: c.image}, []*TrustKey{releaseKey.trust(t, "release")})
	if r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v, want context.Canceled", r, err)
	}
}
