package supplychain

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// cosign is the real tool with a home of its own and a registry beside it.
type cosign struct {
	t        *testing.T
	tool     string
	dir      string
	registry string // host:port
}

// layouts are how cosign 3 attaches things, its own way and that of versions 1
// and 2, each with the flags that keep it off the network.
var layouts = map[string]struct{ sign, verify []string }{
	"bundles": {sign: []string{"--signing-config", "signing-config.json", "--trusted-root", "trusted-root.json"}},
	"tags": {sign: []string{"--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"},
		verify: []string{"--new-bundle-format=false"}},
}

func newCosign(t *testing.T, referrersAPI bool) *cosign {
	t.Helper()
	tool := os.Getenv("COSIGN")
	if tool == "" {
		tool, _ = exec.LookPath("cosign")
	}
	if tool == "" {
		if os.Getenv("PROVOST_REQUIRE_TOOLS") == "1" {
			t.Fatal("cosign is neither in $COSIGN nor in PATH")
		}
		t.Skip("SKIPPED: cosign is neither in $COSIGN nor in PATH; what it writes was not tested")
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrersAPI)))
	t.Cleanup(server.Close)
	c := &cosign{t: t, tool: tool, dir: t.TempDir(), registry: strings.TrimPrefix(server.URL, "http://")}
	c.run("signing-config", "create", "--out", c.path("signing-config.json"))
	c.run("trusted-root", "create", "--out", c.path("trusted-root.json"))
	return c
}

func (c *cosign) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cosign) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(c.t.Context(), c.tool, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "TUF_ROOT="+c.path("tuf"), "COSIGN_PASSWORD=pw")
	return cmd.CombinedOutput()
}

func (c *cosign) run(args ...string) {
	c.t.Helper()
	if out, err := c.try(args...); err != nil {
		c.t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// key makes a key pair of the signer, or cosign's own kind if it is nil, and trusts it.
func (c *cosign) key(label string, s *signer) *TrustKey {
	c.t.Helper()
	if s == nil {
		c.run("generate-key-pair", "--output-key-prefix", label)
	} else {
		der, err := x509.MarshalPKCS8PrivateKey(s.Signer)
		if err != nil {
			c.t.Fatal(err)
		}
		c.write(label+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		c.run("import-key-pair", "--key", c.path(label+".pem"), "--output-key-prefix", label)
	}
	text, err := os.ReadFile(c.path(label + ".pub"))
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := ParseTrustKey(label, text, []Use{UseSignature, UseProvenance, UseSBOM})
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func (c *cosign) write(name string, content []byte) string {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.path(name)
}

func (c *cosign) repository(name_ string) remoteRepository {
	c.t.Helper()
	repo, err := name.NewRepository(c.registry + "/" + name_)
	if err != nil {
		c.t.Fatal(err)
	}
	return remoteRepository{repo}
}

func (c *cosign) pushImage(r remoteRepository, img v1.Image) Digest {
	c.t.Helper()
	d, err := img.Digest()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := remote.Write(r.repo.Digest(d.String()), img); err != nil {
		c.t.Fatal(err)
	}
	return Digest(d.String())
}

func (c *cosign) newImage(r remoteRepository) Digest {
	c.t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.pushImage(r, img)
}

func (c *cosign) sign(layout, key string, r remoteRepository, d Digest) {
	c.t.Helper()
	c.run(append([]string{"sign", "-y", "--key", key + ".key", r.repo.Digest(string(d)).String()}, layouts[layout].sign...)...)
}

func (c *cosign) attest(layout, key, kind string, predicate any, r remoteRepository, d Digest) {
	c.t.Helper()
	raw, ok := predicate.([]byte)
	if !ok {
		raw = mustJSON(c.t, predicate)
	}
	file := c.write("predicate-"+kind, raw)
	c.run(append([]string{"attest", "-y", "--key", key + ".key", "--type", kind, "--predicate", file, r.repo.Digest(string(d)).String()},
		layouts[layout].sign...)...)
}

// verifies asks cosign itself.
func (c *cosign) verifies(layout, key string, r remoteRepository, d Digest) bool {
	_, err := c.try(append([]string{"verify", "--key", key + ".pub", "--insecure-ignore-tlog=true", r.repo.Digest(string(d)).String()}, layouts[layout].verify...)...)
	return err == nil
}

func (c *cosign) report(r remoteRepository, image Image, keys ...*TrustKey) *Report {
	c.t.Helper()
	report, err := Verify(c.t.Context(), r, image, keys)
	if err != nil {
		c.t.Fatal(err)
	}
	return report
}

// Predicates complete enough for cosign, which checks SLSA's required members.
var (
	fullV02 = object{"builder": object{"id": "https://builder.example/v0"}, "buildType": "https://builder.example/type", "invocation": object{}, "metadata": object{}, "materials": []any{}}
	fullV1  = object{"buildDefinition": object{"buildType": "https://builder.example/type", "externalParameters": object{}, "internalParameters": object{}, "resolvedDependencies": []any{}},
		"runDetails": object{"builder": object{"id": "https://builder.example/v1"}, "metadata": object{"invocationID": "1"}, "byproducts": []any{}}}
)

func TestCosign(t *testing.T) {
	c := newCosign(t, true)
	release, stranger := c.key("release", nil), c.key("stranger", nil)
	for layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			c := &cosign{t, c.tool, c.dir, c.registry}
			r := c.repository("app-" + layout)
			image := c.newImage(r)
			if got := summary(c.report(r, Image{Digest: image}, release)); got != "missing missing missing" {
				t.Errorf("before signing: got %s", got)
			}
			c.sign(layout, "release", r, image)
			c.attest(layout, "release", "slsaprovenance1", fullV1, r, image)
			c.attest(layout, "release", "slsaprovenance", fullV02, r, image)
			c.attest(layout, "release", "cyclonedx", cyclonedxDoc, r, image)
			c.attest(layout, "release", "spdxjson", spdxDoc, r, image)
			want := []string{"cyclonedx json", "spdx json"}
			if layout == "tags" { // a bundle's predicate must be an object
				c.attest(layout, "release", "spdx", []byte("SPDXVersion: SPDX-2.2\nSPDXID: SPDXRef-DOCUMENT\nDocumentName: image\nCreated: 2026-01-02T03:04:05Z\n"), r, image)
				want = append(want, "spdx tag-value")
			}
			if !c.verifies(layout, "release", r, image) || c.verifies(layout, "stranger", r, image) {
				t.Error("cosign's own opinion of the signature differs")
			}
			// From here on cosign verify would take the stranger for a signer of the
			// image, too: in bundles any statement about the image passes for a signature.
			c.attest(layout, "stranger", "cyclonedx", cyclonedxDoc, r, image)

			report := c.report(r, Image{Digest: image}, release)
			if got := strings.Split(summary(report), " sbom:")[0]; got != "verified verified verified" {
				t.Errorf("signed: got %s: %+v", summary(report), report.Findings)
			}
			if n := len(report.Signature.Proofs); n != 1 {
				t.Errorf("got %d signatures", n)
			}
			builders := map[string]bool{}
			for _, p := range report.Provenance.Proofs {
				builders[p.Build.BuilderID] = true
			}
			if !builders["https://builder.example/v0"] || !builders["https://builder.example/v1"] || len(builders) != 2 {
				t.Errorf("got builders %v", builders)
			}
			var documents []string
			for _, p := range report.SBOM.Proofs {
				documents = append(documents, string(p.Document.Format)+" "+p.Document.Encoding)
			}
			if slices.Sort(documents); !slices.Equal(documents, want) {
				t.Errorf("got SBOMs %q, want %q", documents, want)
			}

			report = c.report(r, Image{Digest: image}, stranger)
			if report.Signature.Status != Invalid || report.Provenance.Status != Invalid || report.SBOM.Status != Verified {
				t.Errorf("by the stranger's key: got %s", summary(report))
			}
		})
	}
}

// TestCosignIndex signs an index and admits its image.
func TestCosignIndex(t *testing.T) {
	c := newCosign(t, true)
	release := c.key("release", nil)
	r := c.repository("app")
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(r.repo.Digest(hash.String()), index); err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	indexDigest, image := Digest(hash.String()), Digest(list.Manifests[1].Digest.String())
	c.sign("bundles", "release", r, indexDigest)
	c.sign("tags", "release", r, indexDigest)

	report := c.report(r, Image{Digest: image, Index: indexDigest}, release)
	if report.Signature.Status != Verified || len(report.Signature.Proofs) != 2 {
		t.Fatalf("got %s: %+v", summary(report), report.Findings)
	}
	for _, p := range report.Signature.Proofs {
		if p.On != "index" || p.Subject != indexDigest {
			t.Errorf("got a proof on the %s, about %s", p.On, p.Subject)
		}
	}
	if got := c.report(r, Image{Digest: image}, release).Signature.Status; got != Missing {
		t.Errorf("image alone: got %s", got)
	}
	if report := c.report(r, Image{Digest: indexDigest}, release); report.Signature.Status != Verified || report.Signature.Proofs[0].On != "index" {
		t.Errorf("index alone: got %+v", report.Signature)
	}
}

// TestCosignWithoutReferrersAPI has cosign fall back to the referrers tag.
func TestCosignWithoutReferrersAPI(t *testing.T) {
	c := newCosign(t, false)
	release := c.key("release", nil)
	r := c.repository("app")
	image := c.newImage(r)
	c.sign("bundles", "release", r, image)
	c.attest("bundles", "release", "cyclonedx", cyclonedxDoc, r, image)
	if got := summary(c.report(r, Image{Digest: image}, release)); got != "verified missing verified" {
		t.Errorf("got %s", got)
	}
}

// TestCosignKeys signs with each kind of key that can be trusted.
func TestCosignKeys(t *testing.T) {
	c := newCosign(t, true)
	p384, ed, rsa := newECDSA(elliptic.P384()), newEd25519(), newRSA(3072)
	for label, s := range map[string]*signer{"p384": &p384, "ed25519": &ed, "rsa": &rsa} {
		key := c.key(label, s)
		r := c.repository(label)
		for layout := range layouts {
			if layout == "bundles" && label == "ed25519" {
				continue // cosign 3.1 signs pre-hashed, checks its work as pure, and gives up
			}
			image := c.newImage(r)
			c.sign(layout, label, r, image)
			c.attest(layout, label, "slsaprovenance1", fullV1, r, image)
			report := c.report(r, Image{Digest: image}, key)
			if got := summary(report); got != "verified verified missing" {
				t.Errorf("%s in %s: got %s: %+v", key.Algorithm(), layout, got, report.Findings)
			}
		}
	}
}

// TestCosignTampered moves what cosign wrote to a fresh repository with one
// thing changed. cosign must refuse it, and so must we.
func TestCosignTampered(t *testing.T) {
	c := newCosign(t, true)
	release := c.key("release", nil)
	r := c.repository("app")
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	image := c.pushImage(r, img)
	c.sign("bundles", "release", r, image)
	genuine := c.report(r, Image{Digest: image}, release).Signature.Proofs[0]
	bundle, err := r.Blob(t.Context(), genuine.Layer, MaxEnvelopeBytes)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(envelope object)) []byte {
		var b object
		if err := json.Unmarshal(bundle, &b); err != nil {
			t.Fatal(err)
		}
		change(b["dsseEnvelope"].(object))
		return mustJSON(t, b)
	}
	other := c.newImage(r)
	for name, test := range map[string]struct {
		bundle []byte
		want   Reason // "" for a genuine one
	}{
		"unchanged": {bundle, ""},
		"signature flipped": {edit(func(e object) {
			s := e["signatures"].([]any)[0].(object)
			sig, err := decodeBase64(s["sig"].(string))
			if err != nil {
				t.Fatal(err)
			}
			s["sig"] = b64(flipped(sig))
		}), BadSignature},
		"subject changed": {edit(func(e object) {
			payload, err := decodeBase64(e["payload"].(string))
			if err != nil {
				t.Fatal(err)
			}
			e["payload"] = b64(bytes.ReplaceAll(payload, []byte(image.Hex()), []byte(other.Hex())))
		}), BadSignature},
		"payload type changed": {edit(func(e object) { e["payloadType"] = "text/plain" }), Malformed},
		"signature taken away": {edit(func(e object) { e["signatures"] = []any{} }), Malformed},
		"cut short":            {bundle[:len(bundle)-2], Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cosign{t, c.tool, c.dir, c.registry}
			r := c.repository(strings.ReplaceAll("tampered/"+name, " ", "-"))
			c.pushImage(r, img)
			c.attach(r, img, test.bundle)
			report := c.report(r, Image{Digest: image}, release)
			if test.want == "" {
				if report.Signature.Status != Verified || !c.verifies("bundles", "release", r, image) {
					t.Errorf("got %s: %+v", summary(report), report.Findings)
				}
				return
			}
			if report.Signature.Status != Invalid || report.Findings[len(report.Findings)-1].Reason != test.want {
				t.Errorf("got %s: %+v", summary(report), report.Findings)
			}
			if c.verifies("bundles", "release", r, image) {
				t.Error("cosign accepts it")
			}
		})
	}

	t.Run("moved to another image", func(t *testing.T) {
		c := &cosign{t, c.tool, c.dir, c.registry}
		r := c.repository("tampered/moved")
		moved, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		d := c.pushImage(r, moved)
		c.attach(r, moved, bundle)
		report := c.report(r, Image{Digest: d}, release)
		if got := summary(report); got != "invalid missing missing signature:wrong_subject" || c.verifies("bundles", "release", r, d) {
			t.Errorf("got %s", got)
		}
	})
}

// attach pushes a bundle as a referrer of the image, as cosign does.
func (c *cosign) attach(r remoteRepository, img v1.Image, bundle []byte) {
	c.t.Helper()
	layer, config := static.NewLayer(bundle, bundleV03), static.NewLayer([]byte("{}"), emptyType)
	descriptor := func(l v1.Layer, mediaType types.MediaType) object {
		if err := remote.WriteLayer(r.repo, l); err != nil {
			c.t.Fatal(err)
		}
		d, err := l.Digest()
		if err != nil {
			c.t.Fatal(err)
		}
		size, err := l.Size()
		if err != nil {
			c.t.Fatal(err)
		}
		return object{"mediaType": mediaType, "digest": d.String(), "size": size}
	}
	subject, err := img.Digest()
	if err != nil {
		c.t.Fatal(err)
	}
	size, err := img.Size()
	if err != nil {
		c.t.Fatal(err)
	}
	m := rawManifest(mustJSON(c.t, object{"schemaVersion": 2, "mediaType": manifestType, "artifactType": bundleV03,
		"config": descriptor(config, emptyType), "layers": []object{descriptor(layer, bundleV03)},
		"subject":     object{"mediaType": types.DockerManifestSchema2, "digest": subject.String(), "size": size},
		"annotations": object{"dev.sigstore.bundle.content": "dsse-envelope", predicateTypeAnnotation: cosignSignPredicate}}))
	if err := remote.Put(r.repo.Digest(string(DigestOf(m))), m); err != nil {
		c.t.Fatal(err)
	}
}

// rawManifest is a manifest that remote.Put takes as it is.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return manifestType, nil }
