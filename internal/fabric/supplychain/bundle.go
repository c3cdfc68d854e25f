package supplychain

import (
	"context"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// bundleJSON holds what is read of a Sigstore bundle (protobuf-specs
// dev.sigstore.bundle.v1.Bundle as ProtoJSON, media types v0.1 to v0.3). Log
// entries and timestamps say nothing that a trusted key does not, and are left alone.
type bundleJSON struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey *struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
		Certificate *present `json:"certificate"`
		Chain       *present `json:"x509CertificateChain"`
	} `json:"verificationMaterial"`
	MessageSignature *struct {
		MessageDigest struct {
			Algorithm string `json:"algorithm"`
			Digest    string `json:"digest"`
		} `json:"messageDigest"`
		Signature string `json:"signature"`
	} `json:"messageSignature"`
	DSSEEnvelope *envelopeJSON `json:"dsseEnvelope"`
}

// present is a member that matters only by being there.
type present struct{}

// bundle is a parsed bundle: an envelope, or a signature of the artifact itself.
type bundle struct {
	envelope *envelope

	signature     signature // of the artifact's bytes, if envelope is nil
	messageDigest string    // "sha256:…" that the artifact is said to have; "" if said in another algorithm or not at all
}

func parseBundle(raw []byte) (*bundle, error) {
	var wire bundleJSON
	if err := strictjson.Unmarshal(raw, &wire); err != nil {
		return nil, malformed("Sigstore bundle", err)
	}
	if !isBundle(wire.MediaType) {
		return nil, defectf(Malformed, "mediaType %.80q is not a Sigstore bundle's", wire.MediaType)
	}
	material := &wire.VerificationMaterial
	signer := claimedSigner{certificate: material.Certificate != nil || material.Chain != nil}
	if material.PublicKey != nil {
		if signer.certificate {
			return nil, defectf(Malformed, "Sigstore bundle names both a public key and a certificate")
		}
		signer.hint = material.PublicKey.Hint
	} else if !signer.certificate {
		return nil, defectf(Malformed, "Sigstore bundle names neither a public key nor a certificate")
	}
	switch {
	case wire.DSSEEnvelope != nil && wire.MessageSignature == nil:
		e, err := wire.DSSEEnvelope.decode()
		if err != nil {
			return nil, err
		}
		for i := range e.signatures {
			e.signatures[i].claimedSigner = signer.or(e.signatures[i].claimedSigner)
		}
		return &bundle{envelope: e}, nil
	case wire.MessageSignature != nil && wire.DSSEEnvelope == nil:
		return wire.messageSignature(signer)
	}
	return nil, defectf(Malformed, "Sigstore bundle has not exactly one of dsseEnvelope and messageSignature")
}

// or prefers what the bundle says about the signer to what the envelope says.
func (c claimedSigner) or(other claimedSigner) claimedSigner {
	if c == (claimedSigner{}) {
		return other
	}
	return c
}

func (wire *bundleJSON) messageSignature(signer claimedSigner) (*bundle, error) {
	sig, err := decodeBase64(wire.MessageSignature.Signature)
	if err != nil || len(sig) == 0 {
		return nil, defectf(Malformed, "messageSignature.signature is not base64")
	}
	b := &bundle{signature: signature{sig, signer}}
	if d := wire.MessageSignature.MessageDigest; d.Algorithm == "SHA2_256" {
		sum, err := decodeBase64(d.Digest)
		if err != nil || len(sum) != 32 {
			return nil, defectf(Malformed, "messageSignature.messageDigest is no SHA-256 digest")
		}
		b.messageDigest = digestOfSum(sum)
	}
	return b, nil
}

func (v *verification) bundleLayer(ctx context.Context, o *origin, _ *carrier, _ Descriptor, raw []byte) error {
	b, err := parseBundle(raw)
	if err != nil {
		return err
	}
	if b.envelope != nil {
		return v.envelope(ctx, o, b.envelope)
	}
	o.guess = KindSignature
	return v.messageSignature(ctx, o, b)
}

// messageSignature judges a signature of the manifest's own bytes. What it is
// about shows only by whose bytes verify; the digest it carries is a claim, and tells
// a signature of something else from a forged one.
func (v *verification) messageSignature(ctx context.Context, o *origin, b *bundle) error {
	candidates := v.subjects
	if b.messageDigest != "" {
		s, err := v.subjectOf([]string{b.messageDigest})
		if err != nil {
			return err
		}
		candidates = []subject{s}
	}
	var failure error
	for _, s := range candidates {
		keys, err := v.convinced(ctx, newMessage(s.raw), []signature{b.signature}, UseSignature)
		if err == nil {
			v.report.add(o.proof(KindSignature, s, keys))
			return nil
		}
		if failure == nil {
			failure = err
		}
	}
	return failure
}
