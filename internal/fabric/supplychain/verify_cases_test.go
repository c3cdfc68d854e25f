package supplychain

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestVerify has one case for each way that things can be attached, and for
// each way that they can fail. "want" is the statuses of signature,
// provenance and SBOM, then the findings but those of missing things.
func TestVerify(t *testing.T) {
	for _, test := range []struct {
		name   string
		attach func(c *cast)
		want   string
	}{
		{"bare image", func(c *cast) {}, "missing missing missing"},

		// Signatures.
		{"cosign 2 signature", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
		}, "verified missing missing"},
		{"cosign 2 signature on the index", func(c *cast) {
			c.tagged(c.index, ".sig", c.signatureLayer(c.release, payload(c.index)))
		}, "verified missing missing"},
		{"second of two signatures is trusted", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.stranger, payload(c.image)))
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
		}, "verified missing missing signature:no_key_verifies"},
		{"cosign 2 signature as referrer", func(c *cast) {
			c.referrer(c.image, cosignSigArtifact, nil, c.signatureLayer(c.release, payload(c.image)))
		}, "verified missing missing"},
		{"Tekton signature", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, object{"Critical": object{"Identity": object{"docker-reference": "r/app"},
				"Image": object{"Docker-manifest-digest": c.image}, "Type": tektonPayload}, "Optional": object{}}))
		}, "verified missing missing"},
		{"signature by a stranger", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.stranger, payload(c.image)))
		}, "invalid missing missing signature:no_key_verifies"},
		{"signature of another image", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.other)))
		}, "invalid missing missing signature:wrong_subject"},
		{"keyless signature", func(c *cast) {
			l := c.signatureLayer(c.stranger, payload(c.image))
			l["annotations"].(object)[certificateAnnotation] = "-----BEGIN CERTIFICATE-----"
			c.tagged(c.image, ".sig", l)
		}, "invalid missing missing signature:unknown_key"},
		{"signature with a flipped bit", func(c *cast) {
			raw := mustJSON(c.t, payload(c.image))
			c.tagged(c.image, ".sig", c.layer(simpleSigningType, raw, object{signatureAnnotation: b64(flipped(c.release.sign(c.t, raw)))}))
		}, "invalid missing missing signature:no_key_verifies"},
		{"payload changed after signing", func(c *cast) {
			sig := c.release.sign(c.t, mustJSON(c.t, payload(c.other)))
			c.tagged(c.image, ".sig", c.layer(simpleSigningType, payload(c.image), object{signatureAnnotation: b64(sig)}))
		}, "invalid missing missing signature:no_key_verifies"},
		{"layer without signature", func(c *cast) {
			c.tagged(c.image, ".sig", c.layer(simpleSigningType, payload(c.image), nil))
		}, "invalid missing missing signature:malformed"},
		{"payload of another type", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, object{"critical": object{"image": object{"docker-manifest-digest": c.image}, "type": "atomic container signature"}}))
		}, "invalid missing missing signature:malformed"},
		{"payload with two digests", func(c *cast) {
			raw := bytes.Replace(mustJSON(c.t, payload(c.other)), []byte(`"docker-manifest-digest"`),
				fmt.Appendf(nil, `"Docker-manifest-digest":%q,"docker-manifest-digest"`, c.image), 1)
			c.tagged(c.image, ".sig", c.layer(simpleSigningType, raw, object{signatureAnnotation: b64(c.release.sign(c.t, raw))}))
		}, "invalid missing missing signature:malformed"},
		{"cosign 3 signature", func(c *cast) {
			c.attachBundle(c.image, c.release, c.signatureStatement(c.image))
		}, "verified missing missing"},
		{"cosign 3 signature on the index", func(c *cast) {
			c.attachBundle(c.index, c.release, c.signatureStatement(c.index))
		}, "verified missing missing"},
		{"cosign 3 signature by a stranger", func(c *cast) {
			c.attachBundle(c.image, c.stranger, c.signatureStatement(c.image))
		}, "invalid missing missing signature:unknown_key"},
		{"cosign 3 signature by a stranger who claims to be trusted", func(c *cast) {
			b := bundleOf(c.release.hint(c.t), object{"dsseEnvelope": withoutKeyIDs(envelopeOf(c.t, c.signatureStatement(c.image), c.stranger))})
			c.attachRawBundle(c.image, cosignSignPredicate, b)
		}, "invalid missing missing signature:bad_signature"},
		{"cosign 3 signature with a wrong hint", func(c *cast) {
			b := bundleOf("anything", object{"dsseEnvelope": withoutKeyIDs(envelopeOf(c.t, c.signatureStatement(c.image), c.release))})
			c.attachRawBundle(c.image, cosignSignPredicate, b)
		}, "verified missing missing"},
		{"cosign 3 signature of another image", func(c *cast) {
			c.attachBundle(c.image, c.release, c.signatureStatement(c.other))
		}, "invalid missing missing signature:wrong_subject"},
		{"cosign 3 keyless signature", func(c *cast) {
			b := object{"mediaType": bundleV03, "verificationMaterial": object{"certificate": object{"rawBytes": "AAAA"}},
				"dsseEnvelope": withoutKeyIDs(envelopeOf(c.t, c.signatureStatement(c.image), c.stranger))}
			c.attachRawBundle(c.image, cosignSignPredicate, b)
		}, "invalid missing missing signature:unknown_key"},
		{"bundle that is not JSON", func(c *cast) {
			c.attachRawBundle(c.image, cosignSignPredicate, []byte("{"))
		}, "invalid missing missing signature:malformed"},
		{"bundle of unknown purpose that is not JSON", func(c *cast) {
			c.referrer(c.image, bundleV03, nil, c.layer(bundleV03, []byte("{"), nil))
		}, "missing missing missing unknown:malformed"},
		{"bundle without content", func(c *cast) {
			c.attachRawBundle(c.image, cosignSignPredicate, bundleOf("h", nil))
		}, "invalid missing missing signature:malformed"},
		{"bundle with two contents", func(c *cast) {
			b := bundleOf("h", object{"dsseEnvelope": envelopeOf(c.t, c.signatureStatement(c.image), c.release), "messageSignature": object{"signature": "AAAA"}})
			c.attachRawBundle(c.image, cosignSignPredicate, b)
		}, "invalid missing missing signature:malformed"},
		{"signature of the manifest's bytes", func(c *cast) {
			c.attachRawBundle(c.image, cosignSignPredicate, messageBundle(c, c.release, c.image))
		}, "verified missing missing"},
		{"signature of the manifest's bytes by a stranger", func(c *cast) {
			c.attachRawBundle(c.image, cosignSignPredicate, messageBundle(c, c.stranger, c.image))
		}, "invalid missing missing signature:unknown_key"},
		{"signature of another manifest's bytes", func(c *cast) {
			c.attachRawBundle(c.image, cosignSignPredicate, messageBundle(c, c.release, c.other))
		}, "invalid missing missing signature:wrong_subject"},
		{"signature of other bytes under the image's digest", func(c *cast) {
			b := messageBundle(c, c.release, c.other)
			b["messageSignature"].(object)["messageDigest"] = messageBundle(c, c.release, c.image)["messageSignature"].(object)["messageDigest"]
			c.attachRawBundle(c.image, cosignSignPredicate, b)
		}, "invalid missing missing signature:bad_signature"},

		// Provenance.
		{"provenance 0.2 by Tekton", func(c *cast) {
			c.tagged(c.image, ".att", c.dsse(edited(statementOf(c.image, slsaV02, provenanceV02), "_type", "https://in-toto.io/Statement/v0.1"), c.release))
		}, "missing verified missing"},
		{"provenance 1 in a bundle", func(c *cast) {
			c.attachBundle(c.image, c.release, c.provenance(c.image))
		}, "missing verified missing"},
		{"provenance as a DSSE referrer", func(c *cast) {
			c.referrer(c.image, inTotoType, nil, c.dsse(c.provenance(c.image), c.release))
		}, "missing verified missing"},
		{"provenance by two, one trusted", func(c *cast) {
			c.tagged(c.image, ".att", c.dsse(c.provenance(c.image), c.stranger, c.release))
		}, "missing verified missing"},
		{"provenance with several subjects", func(c *cast) {
			s := c.provenance(c.other)
			s["subject"] = append(s["subject"].([]object), c.provenance(c.image)["subject"].([]object)...)
			c.attachBundle(c.image, c.release, s)
		}, "missing verified missing"},
		{"provenance by a stranger", func(c *cast) {
			c.tagged(c.image, ".att", c.dsse(c.provenance(c.image), c.stranger))
		}, "missing invalid missing provenance:unknown_key"},
		{"provenance by nobody known", func(c *cast) {
			c.tagged(c.image, ".att", c.layer(dsseType, withoutKeyIDs(envelopeOf(c.t, c.provenance(c.image), c.stranger)), nil))
		}, "missing invalid missing provenance:no_key_verifies"},
		{"provenance of another image", func(c *cast) {
			c.tagged(c.image, ".att", c.dsse(c.provenance(c.other), c.release))
		}, "missing invalid missing provenance:wrong_subject"},
		{"provenance about nothing", func(c *cast) {
			c.tagged(c.image, ".att", c.dsse(edited(c.provenance(c.image), "subject", []object{}), c.release))
		}, "missing invalid missing provenance:wrong_subject"},
		{"provenance changed after signing", func(c *cast) {
			e := envelopeOf(c.t, c.provenance(c.image), c.release)
			e["payload"] = b64(mustJSON(c.t, statementOf(c.image, slsaV1, edited(provenanceV1, "runDetails", object{"builder": object{"id": "evil"}}))))
			c.tagged(c.image, ".att", c.layer(dsseType, e, nil))
		}, "missing invalid missing provenance:bad_signature"},
		{"provenance under another payload type", func(c *cast) {
			e := envelopeOf(c.t, c.provenance(c.image), c.release)
			e["payloadType"] = "application/json"
			c.tagged(c.image, ".att", c.layer(dsseType, e, object{layerPredicateAnnotation: slsaV1}))
		}, "missing invalid missing provenance:malformed"},
		{"provenance without a builder", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, slsaV1, edited(provenanceV1, "runDetails", object{})))
		}, "missing invalid missing provenance:malformed"},
		{"provenance of an older SLSA", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, "https://slsa.dev/provenance/v0.1", provenanceV02))
		}, "missing invalid missing provenance:unsupported"},
		{"provenance whose builder hides in unprintable text", func(c *cast) {
			p := edited(provenanceV1, "runDetails", object{"builder": object{"id": "https://builder.example/v1\u202e"}})
			c.attachBundle(c.image, c.release, statementOf(c.image, slsaV1, p))
		}, "missing invalid missing provenance:malformed"},
		{"envelope without signatures", func(c *cast) {
			e := edited(envelopeOf(c.t, c.provenance(c.image), c.release), "signatures", []any{})
			c.tagged(c.image, ".att", c.layer(dsseType, e, object{layerPredicateAnnotation: slsaV1}))
		}, "missing invalid missing provenance:malformed"},
		{"envelope with too many signatures", func(c *cast) {
			e := envelopeOf(c.t, c.provenance(c.image), c.release)
			e["signatures"] = slices.Repeat(e["signatures"].([]any), MaxSignatures+1)
			c.tagged(c.image, ".att", c.layer(dsseType, e, object{layerPredicateAnnotation: slsaV1}))
		}, "missing invalid missing provenance:limit_exceeded"},
		{"statement of another type", func(c *cast) {
			c.attachBundle(c.image, c.release, edited(c.provenance(c.image), "_type", "https://in-toto.io/Statement/v9"))
		}, "missing invalid missing provenance:malformed"},
		{"statement with a member twice", func(c *cast) {
			raw := bytes.Replace(mustJSON(c.t, c.provenance(c.image)), []byte(`{`), fmt.Appendf(nil, `{"predicateType":%q,`, spdxPredicate), 1)
			pae := preAuthEncoding(inTotoType, raw)
			c.tagged(c.image, ".att", c.layer(dsseType, object{"payloadType": inTotoType, "payload": b64(raw),
				"signatures": []object{{"sig": b64(c.release.sign(c.t, pae))}}}, object{layerPredicateAnnotation: slsaV1}))
		}, "missing invalid missing provenance:malformed"},
		{"statement with too many subjects", func(c *cast) {
			s := c.provenance(c.image)
			s["subject"] = slices.Repeat(s["subject"].([]object), MaxSubjects+1)
			c.attachBundle(c.image, c.release, s)
		}, "missing invalid missing provenance:limit_exceeded"},

		// SBOMs.
		{"CycloneDX attestation", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, cyclonedxDoc))
		}, "missing missing verified"},
		{"SPDX attestation with a version", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, spdxPredicate+"/v2.3", spdxDoc))
		}, "missing missing verified"},
		{"SPDX attestation as a string", func(c *cast) {
			doc := "SPDXVersion: SPDX-2.2\nSPDXID: SPDXRef-DOCUMENT\nDocumentName: image\nCreated: 2026-01-02T03:04:05Z\nPackageName: a\n"
			c.tagged(c.image, ".att", c.dsse(statementOf(c.image, spdxPredicate, doc), c.release))
		}, "missing missing verified"},
		{"SPDX attestation in cosign 1's wrapper", func(c *cast) {
			wrapped := object{"Data": string(mustJSON(c.t, spdxDoc)), "Timestamp": "2026-01-02T03:04:05Z"}
			c.tagged(c.image, ".att", c.dsse(statementOf(c.image, spdxPredicate, wrapped), c.release))
		}, "missing missing verified"},
		{"unsigned CycloneDX referrer", func(c *cast) {
			c.referrer(c.image, "application/vnd.cyclonedx+json", nil, c.layer("application/vnd.cyclonedx+json; version=1.5", cyclonedxDoc, nil))
		}, "missing missing unsigned"},
		{"unsigned SPDX referrer typed by its artifact", func(c *cast) {
			c.referrer(c.index, "application/spdx+json", nil, c.layer("application/json", spdxDoc, nil))
		}, "missing missing unsigned"},
		{"signed beside unsigned SBOM", func(c *cast) {
			c.referrer(c.image, "application/spdx+json", nil, c.layer("application/json", spdxDoc, nil))
			c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, cyclonedxDoc))
		}, "missing missing verified"},
		{"unsigned SBOM that is none", func(c *cast) {
			c.referrer(c.image, "application/spdx+json", nil, c.layer("application/json", object{"hello": "world"}, nil))
		}, "missing missing invalid sbom:malformed"},
		{"unsigned SBOM of another format than announced", func(c *cast) {
			c.referrer(c.image, "application/spdx+json", nil, c.layer("application/json", cyclonedxDoc, nil))
		}, "missing missing invalid sbom:malformed"},
		{"unsigned SBOM of another image", func(c *cast) {
			d := c.referrer(c.other, "application/spdx+json", nil, c.layer("application/json", spdxDoc, nil))
			c.extra = []Descriptor{{Digest: string(d), ArtifactType: "application/spdx+json"}}
		}, "missing missing invalid sbom:wrong_subject"},
		{"SBOM attestation by a stranger", func(c *cast) {
			c.attachBundle(c.image, c.stranger, statementOf(c.image, cyclonedxPredicate, cyclonedxDoc))
		}, "missing missing invalid sbom:unknown_key"},
		{"SBOM attestation of another format than announced", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, spdxDoc))
		}, "missing missing invalid sbom:malformed"},
		{"SBOM attestation holding none", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, cyclonedxPredicate, object{"Data": 7, "Timestamp": ""}))
		}, "missing missing invalid sbom:malformed"},

		// What is none of these, and content that is not what it should be.
		{"statement of another kind", func(c *cast) {
			c.attachBundle(c.image, c.release, statementOf(c.image, "https://cosign.sigstore.dev/attestation/vuln/v1", object{}))
		}, "missing missing missing"},
		{"statement of another kind by a stranger", func(c *cast) {
			c.attachBundle(c.image, c.stranger, statementOf(c.image, "https://cosign.sigstore.dev/attestation/vuln/v1", object{}))
		}, "missing missing missing other:unknown_key"},
		{"referrer of an unrelated type", func(c *cast) {
			c.referrer(c.image, "application/vnd.example.thing", nil, c.layer("application/vnd.example.thing", []byte("x"), nil))
		}, "missing missing missing"},
		{"fallback tag for referrers", func(c *cast) {
			d := c.attachBundle(c.image, c.release, c.signatureStatement(c.image))
			c.fail["Referrers"] = errNotFound
			c.tags["sha256-"+c.image.Hex()] = c.put(c.manifests, object{"schemaVersion": 2, "mediaType": indexType,
				"manifests": []any{object{"mediaType": manifestType, "digest": d, "size": 2}}})
		}, "verified missing missing"},
		{"fallback tag that names no index", func(c *cast) { c.tags["sha256-"+c.image.Hex()] = c.image }, "missing missing missing unknown:malformed"},
		{"listed manifest is not there", func(c *cast) {
			c.extra = []Descriptor{{Digest: string(DigestOf([]byte("gone"))), ArtifactType: "application/spdx+json"}}
		}, "missing missing invalid sbom:content_missing"},
		{"listed by another algorithm", func(c *cast) {
			c.extra = []Descriptor{{Digest: "sha512:" + strings.Repeat("0", 128), ArtifactType: bundleV03}}
		}, "missing missing missing unknown:unsupported"},
		{"layer by another algorithm", func(c *cast) {
			l := edited(c.signatureLayer(c.release, payload(c.image)), "digest", "md5:00")
			c.tagged(c.image, ".sig", l)
		}, "invalid missing missing signature:unsupported"},
		{"layer is not there", func(c *cast) {
			c.tagged(c.image, ".sig", c.signatureLayer(c.release, payload(c.image)))
			clear(c.blobs)
		}, "invalid missing missing signature:content_missing"},
		{"store returns other bytes", func(c *cast) {
			l := c.signatureLayer(c.release, payload(c.image))
			c.tagged(c.image, ".sig", l)
			c.lie[l["digest"].(Digest)] = mustJSON(c.t, payload(c.other))
		}, "invalid missing missing signature:content_mismatch"},
		{"manifest is not JSON", func(c *cast) {
			c.tags["sha256-"+c.image.Hex()+".sig"] = c.put(c.manifests, []byte("<html>"))
		}, "invalid missing missing signature:malformed"},
		{"manifest too large", func(c *cast) {
			c.tags["sha256-"+c.image.Hex()+".sig"] = c.put(c.manifests, bytes.Repeat([]byte(" "), MaxManifestBytes+1))
		}, "invalid missing missing signature:limit_exceeded"},
		{"payload too large", func(c *cast) {
			c.tagged(c.image, ".sig", c.layer(simpleSigningType, bytes.Repeat([]byte(" "), MaxPayloadBytes+1), nil))
		}, "invalid missing missing signature:limit_exceeded"},
		{"too many layers, the last one good", func(c *cast) {
			layers := slices.Repeat([]object{c.signatureLayer(c.stranger, payload(c.image))}, MaxLayers)
			c.tagged(c.image, ".sig", append(layers, c.signatureLayer(c.release, payload(c.image)))...)
		}, "verified missing missing signature:limit_exceeded signature:no_key_verifies"},
		{"proof among very many other referrers", func(c *cast) {
			proof := c.attachBundle(c.image, c.release, c.signatureStatement(c.image))
			for before, i := 0, 0; before <= MaxReferrers; i++ { // as many that sort before the proof as are looked at
				if c.referrer(c.image, "application/vnd.example.thing", object{"n": fmt.Sprint(i)}) < proof {
					before++
				}
			}
		}, "verified missing missing unknown:limit_exceeded"},
		{"more attached than is looked at", func(c *cast) {
			c.attachBundle(c.image, c.release, c.provenance(c.image))
			junk := c.layer(simpleSigningType, payload(c.other), nil)
			for i := range 20 {
				c.referrer(c.image, cosignSigArtifact, object{"n": fmt.Sprint(i)}, slices.Repeat([]object{junk}, MaxLayers)...)
			}
		}, "invalid * missing signature:limit_exceeded signature:malformed *"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCast(t)
			test.attach(c)
			report, err := Verify(t.Context(), c, Image{Digest: c.image, Index: c.index}, []*TrustKey{releaseKey.trust(t, "release")})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(report); !matches(got, test.want) {
				t.Errorf("got  %s\nwant %s\n%+v", got, test.want, report.Findings)
			}
			checkReport(t, c, report)
		})
	}
}
