package supplychain

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// publishedAttestation is one attestation that a real build published, with
// the certificate of the key that signed it, if it has one.
type publishedAttestation struct {
	name        string
	raw         []byte // a bundle or an envelope
	isBundle    bool
	certificate *x509.Certificate
}

// splitPublished finds the attestations in a file: a bundle, a line each with
// a bundle or envelope, or npm's list.
func splitPublished(t *testing.T, name string, file []byte) []publishedAttestation {
	t.Helper()
	var list []publishedAttestation
	for dec := json.NewDecoder(bytes.NewReader(file)); dec.More(); {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var wire struct {
			Attestations []struct {
				Bundle json.RawMessage `json:"bundle"`
			} `json:"attestations"`
			MediaType string `json:"mediaType"`
			Material  struct {
				Certificate struct{ RawBytes []byte }                          `json:"certificate"`
				Chain       struct{ Certificates []struct{ RawBytes []byte } } `json:"x509CertificateChain"`
			} `json:"verificationMaterial"`
			Signatures []struct {
				Cert string `json:"cert"`
			} `json:"signatures"`
		}
		if err := json.Unmarshal(raw, &wire); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, a := range wire.Attestations {
			list = append(list, splitPublished(t, name, a.Bundle)...)
		}
		if len(wire.Attestations) > 0 {
			continue
		}
		a := publishedAttestation{name: name, raw: raw, isBundle: wire.MediaType != ""}
		der := wire.Material.Certificate.RawBytes
		if chain := wire.Material.Chain.Certificates; len(chain) > 0 {
			der = chain[0].RawBytes
		}
		if len(wire.Signatures) > 0 {
			block, _ := pem.Decode([]byte(wire.Signatures[0].Cert))
			der = block.Bytes
		}
		if der != nil {
			var err error
			if a.certificate, err = x509.ParseCertificate(der); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		list = append(list, a)
	}
	return list
}

func (a publishedAttestation) envelope() (*envelope, error) {
	if !a.isBundle {
		return parseEnvelope(a.raw)
	}
	b, err := parseBundle(a.raw)
	if err != nil {
		return nil, err
	}
	return b.envelope, nil
}

// checkPublished checks one attestation as the tenant of somebody else's key,
// who must refuse it, and as one who trusts the key in its certificate. It
// returns whether the latter was convinced.
func checkPublished(t *testing.T, a publishedAttestation) (*statement, bool) {
	t.Helper()
	e, err := a.envelope()
	if err != nil {
		t.Fatalf("%s: %v", a.name, err)
	}
	st, err := parseStatement(e.payloadType, e.payload)
	if err != nil {
		t.Fatalf("%s: %v", a.name, err)
	}
	m := newMessage(preAuthEncoding(e.payloadType, e.payload))
	stranger := &verification{keys: []*TrustKey{strangerKey.trust(t, "stranger")}}
	_, err = stranger.convinced(t.Context(), m, e.signatures, UseProvenance)
	if bad, ok := errors.AsType[*defect](err); !ok || bad.reason != UnknownKey {
		t.Errorf("%s: a stranger's key gives %v, want %s", a.name, err, UnknownKey)
	}
	if a.certificate == nil {
		return st, false
	}
	der, err := x509.MarshalPKIXPublicKey(a.certificate.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseTrustKey("leaf", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), []Use{UseProvenance})
	if err != nil {
		t.Fatal(err)
	}
	owner := &verification{keys: []*TrustKey{key}}
	_, err = owner.convinced(t.Context(), m, e.signatures, UseProvenance)
	return st, err == nil
}

func TestPublishedFixtures(t *testing.T) {
	for _, test := range []struct {
		file, predicateType, builder string
	}{
		{"slsa-bundle-v0.1.json", "", ""},
		{"slsa-bundle-v0.3.json", slsaV02, "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/builder_go_slsa3.yml@refs/tags/v2.1.0"},
		{"slsa-envelope-v0.2.json", slsaV02, "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/builder_go_slsa3.yml@refs/tags/v1.10.0"},
		{"npm-attestations.json", slsaV1, "https://github.com/actions/runner/github-hosted"},
	} {
		raw, err := os.ReadFile(filepath.Join("testdata", test.file))
		if err != nil {
			t.Fatal(err)
		}
		list := splitPublished(t, test.file, raw)
		st, convinced := checkPublished(t, list[len(list)-1])
		if st.PredicateType != test.predicateType || !convinced {
			t.Errorf("%s: got %q, convinced its own key: %t", test.file, st.PredicateType, convinced)
		}
		if test.builder == "" {
			continue
		}
		build, err := parseProvenance(st.PredicateType, st.Predicate)
		if err != nil || build.BuilderID != test.builder || build.Type == "" {
			t.Errorf("%s: got build %+v, %v", test.file, build, err)
		}
	}
}

// TestPublishedForgery has a real bundle whose signature was changed in the
// bits of its base64 text that encode nothing: lenient decoders call it valid.
func TestPublishedForgery(t *testing.T) {
	raw, err := os.ReadFile("testdata/slsa-bundle-forged.json")
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseBundle(raw)
	if bad, ok := errors.AsType[*defect](err); !ok || bad.reason != Malformed || !strings.Contains(bad.detail, "base64") {
		t.Errorf("got %v, want %s about base64", err, Malformed)
	}
}

// sharedAttestations is a collection of published attestations that a checkout may have beside it.
const sharedAttestations = "../../../../shared/data/attestations"

// TestPublishedAttestations takes the whole collection. All are keyless or by
// npm's key, and those that were tampered with say so in their names.
func TestPublishedAttestations(t *testing.T) {
	if _, err := os.Stat(sharedAttestations); err != nil {
		t.Skipf("SKIPPED: no published attestations at %s", sharedAttestations)
	}
	read, convinced := 0, 0
	err := filepath.WalkDir(sharedAttestations, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, a := range splitPublished(t, entry.Name(), raw) {
			if strings.HasPrefix(a.name, "invalid-dsse-sig") {
				continue // TestPublishedForgery
			}
			read++
			st, ok := checkPublished(t, a)
			if ok {
				convinced++
			}
			tampered := strings.Contains(a.name, "invalidsigprov") && kindOfPredicate(st.PredicateType) == KindProvenance
			if a.certificate != nil && ok == tampered {
				t.Errorf("%s (%s): convinces its own key: %t, tampered with: %t", a.name, st.PredicateType, ok, tampered)
			}
			if st.PredicateType == slsaV02 || st.PredicateType == slsaV1 {
				if build, err := parseProvenance(st.PredicateType, st.Predicate); err != nil || !strings.HasPrefix(build.BuilderID, "https://") {
					t.Errorf("%s: got build %+v, %v", a.name, build, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d attestations read, %d convince the key of their certificate", read, convinced)
	if read < 40 || convinced < 30 {
		t.Errorf("%d attestations read, %d convincing; the collection has more", read, convinced)
	}
}

func fixtures(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
}

// checkDefect checks what a parser may return: a value, or a defect that is fit to be shown.
func checkDefect(t *testing.T, gotValue bool, err error) {
	t.Helper()
	if gotValue == (err != nil) {
		t.Fatalf("value: %t, error: %v", gotValue, err)
	}
	if bad, ok := errors.AsType[*defect](err); err != nil && (!ok || bad.detail == "" || bad.detail != printable(bad.detail)) {
		t.Fatalf("error %v is no printable defect", err)
	}
}

func FuzzBundle(f *testing.F) {
	fixtures(f)
	f.Add([]byte(`{"mediaType":"` + bundleV03 + `","verificationMaterial":{"publicKey":{"hint":"h"}},"messageSignature":{"signature":"AAAA"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBundle(raw)
		checkDefect(t, b != nil, err)
		if b != nil && (b.envelope == nil) != (len(b.signature.bytes) > 0) {
			t.Errorf("bundle with both contents or none: %+v", b)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	fixtures(f)
	f.Add([]byte(`{"payloadType":"t","payload":"e30=","signatures":[{"keyid":"k","sig":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEnvelope(raw)
		checkDefect(t, e != nil, err)
		if e == nil {
			return
		}
		if len(e.signatures) == 0 || len(e.signatures) > MaxSignatures {
			t.Errorf("envelope with %d signatures", len(e.signatures))
		}
		if !bytes.HasSuffix(preAuthEncoding(e.payloadType, e.payload), e.payload) {
			t.Error("the payload is not what is signed")
		}
	})
}

// FuzzStatement takes payloads all the way: statement, predicate, SBOM.
func FuzzStatement(f *testing.F) {
	image := DigestOf([]byte("image"))
	for predicateType, predicate := range map[string]any{slsaV02: provenanceV02, slsaV1: provenanceV1, spdxPredicate: spdxDoc,
		cyclonedxPredicate: object{"Data": cyclonedxDoc, "Timestamp": ""}, cosignSignPredicate: object{}} {
		raw, err := json.Marshal(statementOf(image, predicateType, predicate))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := parseStatement(inTotoType, raw)
		checkDefect(t, st != nil, err)
		if st == nil {
			return
		}
		p := Proof{Kind: kindOfPredicate(st.PredicateType)}
		err = st.describe(&p)
		described := p.Kind == KindSignature || p.Kind == KindOther || p.Build != nil || p.Document != nil
		checkDefect(t, described, err)
	})
}

func FuzzSimplePayload(f *testing.F) {
	raw, err := json.Marshal(payload(DigestOf([]byte("image"))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(bytes.ReplaceAll(raw, []byte("critical"), []byte("Critical")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parseSimplePayload(raw)
		checkDefect(t, p != nil, err)
	})
}

// FuzzVerify takes arbitrary manifests and layers: Verify must come to a
// report, and nothing in it may be proved, since no key signs.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"layers":[{"mediaType":"`+dsseType+`","digest":"$"}]}`), []byte(`{}`))
	f.Add([]byte(`{"layers":[{"mediaType":"`+simpleSigningType+`","digest":"$","annotations":{"`+signatureAnnotation+`":"AAAA"}}]}`), []byte(`{}`))
	f.Add([]byte(`{"artifactType":"application/spdx+json","layers":[{"mediaType":"application/json","digest":"$"}],"subject":{"digest":"@"}}`), []byte(`{}`))
	f.Add([]byte(`{"manifests":[{"digest":"$"}],"schemaVersion":2}`), []byte(`{"layers":[{}]}`))
	key := strangerKey.trust(&testing.T{}, "key")
	f.Fuzz(func(t *testing.T, manifest, layer []byte) {
		r := newRepository(t)
		image := r.image("app")
		d := r.put(r.blobs, layer)
		r.put(r.manifests, layer)
		manifest = bytes.ReplaceAll(manifest, []byte("$"), []byte(d))
		manifest = bytes.ReplaceAll(manifest, []byte("@"), []byte(image))
		carrier := r.put(r.manifests, manifest)
		for _, suffix := range []string{"", ".sig", ".att"} {
			r.tags["sha256-"+image.Hex()+suffix] = carrier
		}
		report, err := Verify(t.Context(), r, Image{Digest: image}, []*TrustKey{key})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := report.JSON(); err != nil {
			t.Error(err)
		}
		for _, p := range report.Proofs() {
			if len(p.Keys) > 0 {
				t.Errorf("proved by nobody's signature: %+v", p)
			}
		}
	})
}

// TestPreAuthEncoding has the test vector of the DSSE specification.
func TestPreAuthEncoding(t *testing.T) {
	got := string(preAuthEncoding("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecodeBase64(t *testing.T) {
	want := []byte{0xfb, 0xff}
	for _, s := range []string{"+/8=", "-_8="} {
		if raw, err := decodeBase64(s); err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%q: got %x, %v", s, raw, err)
		}
	}
	for _, s := range []string{"+/9=", "+/8", "+/8=\n", "+/\r8=", "-/8=", "+/8=+/8=", "*"} {
		if raw, err := decodeBase64(s); err == nil {
			t.Errorf("%q: got %x, want an error", s, raw)
		}
	}
}
