package supplychain

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"provost.dev/provost/internal/kernel"
)

// repository is a Content in memory that computes referrers the way a registry does.
type repository struct {
	t         *testing.T
	manifests map[Digest][]byte
	blobs     map[Digest][]byte
	tags      map[string]Digest
	extra     []Descriptor      // listed as referrers of everything
	fail      map[string]error  // by method name
	lie       map[Digest][]byte // returned in place of the content
}

func newRepository(t *testing.T) *repository {
	return &repository{t: t, manifests: map[Digest][]byte{}, blobs: map[Digest][]byte{}, tags: map[string]Digest{},
		fail: map[string]error{}, lie: map[Digest][]byte{}}
}

var errNotFound = kernel.Errorf(kernel.NotFound, "", "not there")

func (r *repository) read(method string, from map[Digest][]byte, d Digest) ([]byte, error) {
	if err := r.fail[method]; err != nil {
		return nil, err
	}
	if raw, ok := r.lie[d]; ok {
		return raw, nil
	}
	raw, ok := from[d]
	if !ok {
		return nil, errNotFound
	}
	return raw, nil
}

func (r *repository) Manifest(_ context.Context, d Digest) (string, []byte, error) {
	raw, err := r.read("Manifest", r.manifests, d)
	var m struct {
		MediaType string `json:"mediaType"`
	}
	_ = json.Unmarshal(raw, &m) // hostile manifests have no media type
	return m.MediaType, raw, err
}

func (r *repository) Blob(_ context.Context, d Digest, max int64) ([]byte, error) {
	raw, err := r.read("Blob", r.blobs, d)
	if int64(len(raw)) > max {
		return nil, kernel.Errorf(kernel.TooLarge, "", "too large")
	}
	return raw, err
}

func (r *repository) Referrers(_ context.Context, subject Digest) ([]Descriptor, error) {
	if err := r.fail["Referrers"]; err != nil {
		return nil, err
	}
	list := append([]Descriptor{}, r.extra...)
	for d, raw := range r.manifests {
		var m carrier
		if json.Unmarshal(raw, &m) == nil && m.Subject != nil && m.Subject.Digest == string(subject) {
			list = append(list, Descriptor{Digest: string(d), ArtifactType: m.ArtifactType})
		}
	}
	return list, nil
}

func (r *repository) Tag(_ context.Context, tag string) (Digest, error) {
	if err := r.fail["Tag"]; err != nil {
		return "", err
	}
	d, ok := r.tags[tag]
	if !ok {
		return "", errNotFound
	}
	return d, nil
}

func (r *repository) put(to map[Digest][]byte, content any) Digest {
	raw, ok := content.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(content); err != nil {
			r.t.Fatal(err)
		}
	}
	d := DigestOf(raw)
	to[d] = raw
	return d
}

type object = map[string]any

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	emptyType    = "application/vnd.oci.empty.v1+json"
	bundleV03    = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// image pushes an image manifest that differs by name.
func (r *repository) image(name string) Digest {
	return r.put(r.manifests, object{"schemaVersion": 2, "mediaType": manifestType, "config": object{"mediaType": emptyType},
		"layers": []any{}, "annotations": object{"name": name}})
}

func (r *repository) index(images ...Digest) Digest {
	list := []any{}
	for _, d := range images {
		list = append(list, object{"mediaType": manifestType, "digest": d, "size": 2})
	}
	return r.put(r.manifests, object{"schemaVersion": 2, "mediaType": indexType, "manifests": list})
}

// layer pushes a blob and returns its descriptor.
func (r *repository) layer(mediaType string, content any, annotations object) object {
	return object{"mediaType": mediaType, "digest": r.put(r.blobs, content), "size": 2, "annotations": annotations}
}

// tagged pushes a manifest of the layers under the tag, after those that are there.
func (r *repository) tagged(subject Digest, suffix string, layers ...object) Digest {
	tag := "sha256-" + subject.Hex() + suffix
	if old, ok := r.tags[tag]; ok {
		var m struct{ Layers []object }
		if err := json.Unmarshal(r.manifests[old], &m); err != nil {
			r.t.Fatal(err)
		}
		layers = append(m.Layers, layers...)
	}
	r.tags[tag] = r.put(r.manifests, object{"schemaVersion": 2, "mediaType": manifestType, "config": object{"mediaType": emptyType}, "layers": layers})
	return r.tags[tag]
}

// referrer pushes a manifest of the layers with a subject.
func (r *repository) referrer(subject Digest, artifactType string, annotations object, layers ...object) Digest {
	return r.put(r.manifests, object{"schemaVersion": 2, "mediaType": manifestType, "artifactType": artifactType, "config": object{"mediaType": emptyType},
		"layers": layers, "subject": object{"mediaType": manifestType, "digest": subject, "size": 2}, "annotations": annotations})
}

// signer is a private key that signs as the tools do.
type signer struct {
	crypto.Signer
	prehash bool // Ed25519ph
	sha256  bool // SHA-256 also with P-384, as older cosign
}

func (s signer) sign(t *testing.T, message []byte) []byte {
	t.Helper()
	var sig []byte
	var err error
	sum := sha256.Sum256(message)
	switch key := s.Signer.(type) {
	case ed25519.PrivateKey:
		if s.prehash {
			sum := sha512.Sum512(message)
			sig, err = key.Sign(rand.Reader, sum[:], &ed25519.Options{Hash: crypto.SHA512})
		} else {
			sig = ed25519.Sign(key, message)
		}
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P384() && !s.sha256 {
			sum := sha512.Sum384(message)
			sig, err = ecdsa.SignASN1(rand.Reader, key, sum[:])
		} else {
			sig, err = ecdsa.SignASN1(rand.Reader, key, sum[:])
		}
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (s signer) pem(t *testing.T) []byte {
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// trust makes a trust key of the signer, for all uses unless some are named.
func (s signer) trust(t *testing.T, name string, uses ...Use) *TrustKey {
	t.Helper()
	if len(uses) == 0 {
		uses = []Use{UseSignature, UseProvenance, UseSBOM}
	}
	k, err := ParseTrustKey(name, s.pem(t), uses)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// hint is how cosign 3 names the key in a bundle.
func (s signer) hint(t *testing.T) string { return s.trust(t, "k").hints[0] }

func newECDSA(curve elliptic.Curve) signer {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return signer{Signer: k}
}

func newEd25519() signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return signer{Signer: k}
}

func newRSA(bits int) signer {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return signer{Signer: k}
}

// payload is the document that cosign 1 and 2 sign.
func payload(image Digest) object {
	return object{"critical": object{"identity": object{"docker-reference": "registry.example/team/app"},
		"image": object{"docker-manifest-digest": image}, "type": cosignPayload}, "optional": nil}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func mustJSON(t *testing.T, v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signatureLayer is a simple signature as cosign 1 and 2 attach it.
func (r *repository) signatureLayer(by signer, payload any) object {
	raw := mustJSON(r.t, payload)
	return r.layer(simpleSigningType, raw, object{signatureAnnotation: b64(by.sign(r.t, raw))})
}

func statementOf(subject Digest, predicateType string, predicate any) object {
	return object{"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "predicate": predicate,
		"subject": []object{{"name": "registry.example/team/app", "digest": object{"sha256": subject.Hex()}}}}
}

// envelopeOf signs with an implementation of DSSE that is not ours. It gives
// each signature the SSH fingerprint of its key as key id, as Tekton Chains does.
func envelopeOf(t *testing.T, statement any, by ...signer) object {
	t.Helper()
	var signers []dsse.Signer
	for _, s := range by {
		signers = append(signers, dsseSigner{s, t})
	}
	es, err := dsse.NewEnvelopeSigner(signers...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := es.SignPayload(context.Background(), inTotoType, mustJSON(t, statement))
	if err != nil {
		t.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(mustJSON(t, e), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

type dsseSigner struct {
	signer
	t *testing.T
}

func (s dsseSigner) Sign(_ context.Context, data []byte) ([]byte, error) {
	return s.sign(s.t, data), nil
}
func (s dsseSigner) KeyID() (string, error) { return dsse.SHA256KeyID(s.Public()) }

// withoutKeyIDs is the envelope as cosign writes it.
func withoutKeyIDs(envelope object) object {
	for _, s := range envelope["signatures"].([]any) {
		s.(object)["keyid"] = ""
	}
	return envelope
}

// bundleOf is a Sigstore bundle as cosign 3 writes it with a key.
func bundleOf(hint string, content object) object {
	b := object{"mediaType": bundleV03, "verificationMaterial": object{"publicKey": object{"hint": hint}}}
	maps.Copy(b, content)
	return b
}

// attachBundle pushes a bundle with an envelope around the statement.
func (r *repository) attachBundle(subject Digest, by signer, statement object) Digest {
	b := bundleOf(by.hint(r.t), object{"dsseEnvelope": withoutKeyIDs(envelopeOf(r.t, statement, by))})
	return r.attachRawBundle(subject, statement["predicateType"].(string), b)
}

func (r *repository) attachRawBundle(subject Digest, predicateType string, bundle any) Digest {
	return r.referrer(subject, bundleV03, object{"dev.sigstore.bundle.content": "dsse-envelope", predicateTypeAnnotation: predicateType},
		r.layer(bundleV03, bundle, nil))
}

var (
	provenanceV02 = object{"builder": object{"id": "https://tekton.dev/chains/v2"}, "buildType": "tekton.dev/v1beta1/TaskRun",
		"metadata": object{"buildFinishedOn": "2026-01-02T03:04:05Z"}}
	provenanceV1 = object{"buildDefinition": object{"buildType": "https://tekton.dev/chains/v2/slsa"},
		"runDetails": object{"builder": object{"id": "https://builder.example/v1"}, "metadata": object{"finishedOn": "2026-01-02T03:04:05Z"}}}
	cyclonedxDoc = object{"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []object{{"type": "library", "name": "a"}}}
	spdxDoc      = object{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "image", "packages": []object{{"SPDXID": "SPDXRef-a", "name": "a"}},
		"creationInfo": object{"created": "2026-01-02T03:04:05Z", "creators": []string{"Tool: t"}}}
)
