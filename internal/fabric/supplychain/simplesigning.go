package supplychain

import (
	"context"

	"github.com/go-json-experiment/json"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// The values of critical.type that cosign and Tekton Chains write. Others
// (such as Red Hat's "atomic container signature") are other protocols.
const (
	cosignPayload = "cosign container image signature"
	tektonPayload = "Tekton container signature"
)

// simplePayload is the "simple signing" document that cosign 1 and 2 and
// Tekton Chains sign (containers-signature(5)).
type simplePayload struct {
	Critical struct {
		Identity struct {
			DockerReference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			DockerManifestDigest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// parseSimplePayload folds case in names, because Tekton Chains capitalises
// them; two names that differ only in case are duplicates then.
func parseSimplePayload(raw []byte) (*simplePayload, error) {
	var p simplePayload
	if err := strictjson.Unmarshal(raw, &p, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, malformed("simple signing payload", err)
	}
	if t := p.Critical.Type; t != cosignPayload && t != tektonPayload {
		return nil, defectf(Malformed, "critical.type %.80q is not a container image signature's", t)
	}
	if _, err := ParseDigest(p.Critical.Image.DockerManifestDigest); err != nil {
		return nil, defectf(Malformed, "critical.image.docker-manifest-digest: %v", err)
	}
	return &p, nil
}

// simpleSignature judges a layer that is a signed payload with its signature
// beside it, in an annotation.
func (v *verification) simpleSignature(ctx context.Context, o *origin, _ *carrier, layer Descriptor, raw []byte) error {
	p, err := parseSimplePayload(raw)
	if err != nil {
		return err
	}
	sig, err := decodeBase64(layer.Annotations[signatureAnnotation])
	if err != nil || len(sig) == 0 {
		return defectf(Malformed, "layer annotation %s is no base64 signature", signatureAnnotation)
	}
	signer := claimedSigner{certificate: layer.Annotations[certificateAnnotation] != ""}
	keys, err := v.convinced(ctx, newMessage(raw), []signature{{bytes: sig, claimedSigner: signer}}, UseSignature)
	if err != nil {
		return err
	}
	s, err := v.subjectOf([]string{p.Critical.Image.DockerManifestDigest})
	if err != nil {
		return err
	}
	proof := o.proof(KindSignature, s, keys)
	proof.Identity = printable(p.Critical.Identity.DockerReference)
	v.report.add(proof)
	return nil
}
