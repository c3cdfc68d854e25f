package supplychain

import (
	"context"
	"errors"
	"fmt"

	"provost.dev/provost/internal/fabric/supplychain/sbom"
	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// Media types of layers and artifacts.
const (
	simpleSigningType = "application/vnd.dev.cosign.simplesigning.v1+json"
	dsseType          = "application/vnd.dsse.envelope.v1+json"
	inTotoType        = "application/vnd.in-toto+json"
	bundlePrefix      = "application/vnd.dev.sigstore.bundle" // …+json;version=0.1, …v0.3+json
	cosignSigArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
)

// Annotations cosign writes.
const (
	signatureAnnotation      = "dev.cosignproject.cosign/signature" // of a layer: its signature
	certificateAnnotation    = "dev.sigstore.cosign/certificate"    // of a layer: the signer's, if keyless
	layerPredicateAnnotation = "predicateType"                      // of an envelope layer
	predicateTypeAnnotation  = "dev.sigstore.bundle.predicateType"  // of a bundle's manifest
)

// carrier is the manifest that carries signatures, attestations or SBOMs.
type carrier struct {
	ArtifactType string            `json:"artifactType"`
	Config       Descriptor        `json:"config"`
	Layers       descriptors       `json:"layers"`
	Subject      *Descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`

	digest Digest
}

// origin is the layer at hand: where it is, and what it is probably about.
// The guess gets better while the layer is read, and only decides under
// which kind a defect is filed.
type origin struct {
	manifest Digest
	layer    Digest
	format   Format
	guess    Kind
}

// examine reads one manifest and each of its layers that may be a proof.
// The error means that content could not be read.
func (v *verification) examine(ctx context.Context, d Digest, guess Kind) error {
	if v.seen[d] {
		return nil
	}
	v.seen[d] = true
	c, err := v.carrier(ctx, d)
	if err != nil {
		return v.fileDefect(origin{manifest: d, guess: guess}, err)
	}
	if k := kindOfPredicate(c.Annotations[predicateTypeAnnotation]); k != KindOther {
		guess = k
	}
	if extra := len(c.Layers) - MaxLayers; extra > 0 {
		v.find(Finding{Kind: guess, Reason: LimitExceeded, Manifest: d, Detail: fmt.Sprintf("%d layers; the last %d were looked at", len(c.Layers), MaxLayers)})
		c.Layers = c.Layers[extra:]
	}
	for _, layer := range c.Layers {
		if err := v.layer(ctx, c, layer, guess); err != nil {
			return err
		}
	}
	return nil
}

// sbomFormat is the SBOM format that the layer is announced as, by its own
// media type or by the artifact's (oras attach leaves the layer's type to the user).
func (c *carrier) sbomFormat(layer Descriptor) sbom.Format {
	for _, mediaType := range []string{layer.MediaType, c.ArtifactType, c.Config.MediaType} {
		if f, ok := sbomFormat(mediaType); ok {
			return f
		}
	}
	return ""
}

func (v *verification) carrier(ctx context.Context, d Digest) (*carrier, error) {
	_, raw, err := v.source.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	c := carrier{digest: d}
	if err := strictjson.Unmarshal(raw, &c); err != nil {
		return nil, malformed("manifest", err)
	}
	return &c, nil
}

// layer sends a layer to the reader of its media type. Layers of other types
// are none of our business: anything may refer to an image.
func (v *verification) layer(ctx context.Context, c *carrier, layer Descriptor, guess Kind) error {
	if k := kindOfPredicate(layer.Annotations[layerPredicateAnnotation]); k != KindOther {
		guess = k
	}
	o := origin{manifest: c.digest, guess: guess}
	read, max := v.simpleSignature, int64(MaxPayloadBytes)
	switch mediaType := layer.MediaType; {
	case mediaType == simpleSigningType:
		o.format, o.guess = SimpleSigning, KindSignature
	case mediaType == dsseType:
		o.format, read, max = DSSE, v.envelopeLayer, MaxEnvelopeBytes
	case isBundle(mediaType):
		o.format, read, max = SigstoreBundle, v.bundleLayer, MaxEnvelopeBytes
	case c.sbomFormat(layer) != "":
		o.format, o.guess, read, max = PlainReferrer, KindSBOM, v.plainSBOM, sbom.MaxBytes
	default:
		return nil
	}
	d, err := ParseDigest(layer.Digest)
	if err != nil {
		return v.fileDefect(o, defectf(Unsupported, "layer %.80q is not named by SHA-256", layer.Digest))
	}
	o.layer = d
	raw, err := v.source.blob(ctx, d, max)
	if err != nil {
		return v.fileDefect(o, err)
	}
	err = read(ctx, &o, c, layer, raw)
	return v.fileDefect(o, err)
}

// fileDefect turns a defect into a finding. Other errors, and the end of ctx, it returns.
func (v *verification) fileDefect(o origin, err error) error {
	bad, ok := errors.AsType[*defect](err)
	if !ok {
		return err
	}
	v.find(Finding{Kind: o.guess, Reason: bad.reason, Manifest: o.manifest, Layer: o.layer, Detail: bad.detail})
	return nil
}
