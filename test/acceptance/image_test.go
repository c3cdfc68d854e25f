package acceptance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Media types of what the tests push.
const (
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	configType    = "application/vnd.oci.image.config.v1+json"
	layerType     = "application/vnd.oci.image.layer.v1.tar"
	gzipLayerType = "application/vnd.oci.image.layer.v1.tar+gzip"
	signatureType = "application/vnd.dev.cosign.simplesigning.v1+json"
	envelopeType  = "application/vnd.dsse.envelope.v1+json"
	inTotoType    = "application/vnd.in-toto+json"
)

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func digestOf(b []byte) string { return "sha256:" + sum(b) }

// repository is one that a client may push to, spoken to in the OCI
// distribution protocol.
type repository struct {
	*client
	name string // tenant/name
}

func (tn *tenant) repository(name string) repository { return repository{tn.op, tn.id + "/" + name} }

// blob uploads bytes in one request and returns their descriptor.
func (r repository) blob(t testing.TB, mediaType string, b []byte) object {
	t.Helper()
	at := r.post(t, "/v2/"+r.name+"/blobs/uploads/", nil).want(202).header.Get("Location")
	r.do(t, "PUT", at+separator(at)+"digest="+digestOf(b), b, "Content-Type", "application/octet-stream").want(201)
	return object{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

func separator(url string) string {
	if strings.Contains(url, "?") {
		return "&"
	}
	return "?"
}

// manifest pushes a manifest under a tag or its digest and returns the digest.
func (r repository) manifest(t testing.TB, reference string, m object) string {
	t.Helper()
	raw := encode(t, m)
	if reference == "" {
		reference = digestOf(raw)
	}
	r.do(t, "PUT", "/v2/"+r.name+"/manifests/"+reference, raw, "Content-Type", manifestType).want(201)
	return digestOf(raw)
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// image pushes an image of one layer that runs the guest's verb, and returns its digest.
func (r repository) image(t testing.TB, tag string, verb ...string) string {
	t.Helper()
	return r.layered(t, tag, layerType, guestLayer(t), digestOf(guestLayer(t)), verb...)
}

// layered pushes an image of the layer; diffID is the digest that its
// configuration claims the layer unpacks to.
func (r repository) layered(t testing.TB, tag, mediaType string, layer []byte, diffID string, verb ...string) string {
	t.Helper()
	config := encode(t, object{"os": "linux", "architecture": runtime.GOARCH, "rootfs": object{"type": "layers", "diff_ids": []string{diffID}},
		"config": object{"Entrypoint": append([]string{"/guest"}, verb...), "User": "1000:1000"}})
	return r.manifest(t, tag, object{"schemaVersion": 2, "mediaType": manifestType, "config": r.blob(t, configType, config),
		"layers": []object{r.blob(t, mediaType, layer)}, "annotations": object{"unique": rand.Text()}})
}

// guestLayer is a layer that holds the guest program and nothing else.
var guestLayer = func() func(testing.TB) []byte {
	build := sync.OnceValues(func() ([]byte, error) {
		b, err := os.ReadFile(guestBin)
		if err != nil {
			return nil, err
		}
		return tarOf(entry{tar.Header{Name: "guest", Mode: 0o755, Size: int64(len(b))}, b})
	})
	return func(t testing.TB) []byte {
		t.Helper()
		b, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}()

type entry struct {
	tar.Header
	body []byte
}

func tarOf(entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func gzipped(t testing.TB, b []byte) []byte { t.Helper(); return gzipStream(t, bytes.NewReader(b)) }

func gzipStream(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// signer is a key pair that signs as cosign 2 does: signatures and
// attestations are layers of manifests under tags made of the image's digest.
type signer struct{ key *ecdsa.PrivateKey }

func newSigner(t testing.TB) signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{k}
}

func (s signer) pem(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (s signer) sign(t testing.TB, message []byte) string {
	t.Helper()
	h := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, h[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// trustedBy makes the key one that a tenant trusts.
func (s signer) trustedBy(t testing.TB, c *client, uses ...string) {
	t.Helper()
	if len(uses) == 0 {
		uses = []string{"signature", "provenance", "sbom"}
	}
	c.post(t, "/v1/trust-keys", object{"name": unique("key"), "public_key": s.pem(t), "uses": uses}).want(201)
}

// signImage attaches a signature to an image.
func (s signer) signImage(t testing.TB, r repository, digest string) {
	t.Helper()
	payload := encode(t, object{"critical": object{"identity": object{"docker-reference": r.name}, "image": object{"docker-manifest-digest": digest},
		"type": "cosign container image signature"}, "optional": nil})
	layer := r.blob(t, signatureType, payload)
	layer["annotations"] = object{"dev.cosignproject.cosign/signature": s.sign(t, payload)}
	r.manifest(t, cosignTag(digest, "sig"), object{"schemaVersion": 2, "mediaType": manifestType, "config": r.blob(t, configType, []byte("{}")), "layers": []object{layer}})
}

func cosignTag(digest, suffix string) string {
	return strings.Replace(digest, ":", "-", 1) + "." + suffix
}

// predicates are what attest attaches, by their types.
var predicates = map[string]object{
	provenance: {"buildDefinition": object{"buildType": "https://build.example/make", "externalParameters": object{}, "resolvedDependencies": []any{}},
		"runDetails": object{"builder": object{"id": "https://build.example/runner"}, "metadata": object{}}},
	billOfMaterials: {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": []object{{"type": "application", "name": "guest", "version": "1"}}},
}

const (
	provenance      = "https://slsa.dev/provenance/v1"
	billOfMaterials = "https://cyclonedx.org/bom"
)

// attest attaches in-toto statements of these types to an image, each in a
// signed DSSE envelope.
func (s signer) attest(t testing.TB, r repository, digest string, types ...string) {
	t.Helper()
	var layers []object
	for _, typ := range types {
		statement := encode(t, object{"_type": "https://in-toto.io/Statement/v1", "predicateType": typ, "predicate": predicates[typ],
			"subject": []object{{"name": r.name, "digest": object{"sha256": strings.TrimPrefix(digest, "sha256:")}}}})
		signed := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inTotoType), inTotoType, len(statement), statement)
		envelope := encode(t, object{"payloadType": inTotoType, "payload": base64.StdEncoding.EncodeToString(statement),
			"signatures": []object{{"keyid": "", "sig": s.sign(t, signed)}}})
		layer := r.blob(t, envelopeType, envelope)
		layer["annotations"] = object{"predicateType": typ}
		layers = append(layers, layer)
	}
	r.manifest(t, cosignTag(digest, "att"), object{"schemaVersion": 2, "mediaType": manifestType, "config": r.blob(t, configType, []byte("{}")), "layers": layers})
}

// admissible pushes an image that carries everything admission asks for,
// signed by a key the tenant trusts from then on, and returns its pinned
// reference.
func (tn *tenant) admissible(t testing.TB, verb ...string) string {
	t.Helper()
	r, s := tn.repository("guest"), newSigner(t)
	digest := r.image(t, "", verb...)
	s.trustedBy(t, tn.op)
	s.signImage(t, r, digest)
	s.attest(t, r, digest, provenance, billOfMaterials)
	return r.name + "@" + digest
}

// deploy asks for a container of the image; fields are added to the request.
// What is admitted is deleted after the test.
func (tn *tenant) deploy(t testing.TB, ref string, fields ...object) *answer {
	t.Helper()
	body := object{"envelope_type": "container", "image_ref": ref}
	for _, f := range fields {
		maps.Copy(body, f)
	}
	a := tn.op.post(t, "/v1/workloads", body)
	if a.status == 201 {
		path := "/v1/workloads/" + a.text("id")
		t.Cleanup(func() { tn.op.do(t, "DELETE", path, nil).want(204, 404) })
	}
	return a
}

// run deploys a container and waits until it has a status other than pending.
func (tn *tenant) run(t testing.TB, ref string, fields ...object) (id string, w object) {
	t.Helper()
	needRuntime(t)
	id = tn.deploy(t, ref, fields...).want(201).text("id")
	return id, tn.op.settled(t, id, "pending")
}

// settled waits until a workload has none of the statuses, and returns it.
func (c *client) settled(t testing.TB, id string, not ...any) (w object) {
	t.Helper()
	err := poll(under(t, time.Minute), func() (bool, error) {
		w = c.get(t, "/v1/workloads/"+id).want(200).json()
		return !slices.Contains(not, w["status"]), nil
	})
	if err != nil {
		t.Fatalf("workload %s is still %v (%v) after a minute", id, w["status"], w["status_reason"])
	}
	return w
}

// logs are the lines a workload wrote so far.
func (c *client) logs(t testing.TB, id string) []string {
	t.Helper()
	return strings.Split(strings.TrimSuffix(string(c.get(t, "/v1/workloads/"+id+"/logs").want(200).body), "\n"), "\n")
}

// needRuntime skips a test that runs containers where nothing can.
func needRuntime(t testing.TB) {
	t.Helper()
	for _, name := range []string{"runc", "crun"} {
		if _, err := exec.LookPath(name); err == nil {
			return
		}
		if _, err := os.Stat("/usr/sbin/" + name); err == nil {
			return
		}
	}
	if os.Getenv("PROVOST_REQUIRE_RUNC") != "" {
		t.Fatal("there is no runc and no crun, and PROVOST_REQUIRE_RUNC is set")
	}
	t.Skip("SKIPPED: there is no runc and no crun; apt-get install runc")
}

// tool finds a public tool: by its variable, else in PATH.
func tool(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{os.Getenv(strings.ToUpper(name)), name} {
		if p, err := exec.LookPath(candidate); err == nil && candidate != "" {
			p, err = filepath.Abs(p)
			if err == nil {
				return p
			}
		}
	}
	if os.Getenv("PROVOST_REQUIRE_TOOLS") != "" {
		t.Fatalf("there is no %s, and PROVOST_REQUIRE_TOOLS is set", name)
	}
	t.Skipf("SKIPPED: there is no %s; set %s or put it in PATH", name, strings.ToUpper(name))
	return ""
}
