package registry_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"provost.dev/provost/internal/fabric/registry"
)

// The library under crane, cosign and ko.
func TestContainerRegistryLibrary(t *testing.T) {
	s := serve(t)
	host := strings.TrimPrefix(s.URL, "http://")
	opts := []remote.Option{remote.WithAuth(&authn.Basic{Username: "alice", Password: "pw"}), remote.WithContext(t.Context())}
	ref := func(s string) name.Reference {
		t.Helper()
		r, err := name.ParseReference(host + "/" + s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	img, err := random.Image(300_000, 4)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref("demo/app:v1"), img, opts...); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(ref("demo/app@"+digest.String()), opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}

	// Written from another repository, the layers are mounted and not sent again.
	if err := remote.Write(ref("demo/copy:v1"), pulled, opts...); err != nil {
		t.Fatal(err)
	}
	if s.index.mounted != 5 { // configuration and layers
		t.Errorf("%d of 5 blobs were mounted", s.index.mounted)
	}

	idx, err := random.Index(1000, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref("demo/app:multi"), idx, opts...); err != nil {
		t.Fatal(err)
	}
	pulledIndex, err := remote.Index(ref("demo/app:multi"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pulledIndex); err != nil {
		t.Error(err)
	}

	size, err := img.Size()
	if err != nil {
		t.Fatal(err)
	}
	subject := v1.Descriptor{MediaType: types.DockerManifestSchema2, Digest: digest, Size: size}
	artifact := mutate.Subject(mutate.MediaType(mutate.ConfigMediaType(img, "application/vnd.example.sbom"), types.OCIManifestSchema1), subject).(v1.Image)
	artifactDigest, err := artifact.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref("demo/app@"+artifactDigest.String()), artifact, opts...); err != nil {
		t.Fatal(err)
	}
	referrers, err := remote.Referrers(ref("demo/app@"+digest.String()).(name.Digest), opts...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != artifactDigest || list.Manifests[0].ArtifactType != "application/vnd.example.sbom" {
		t.Errorf("referrers: %+v", list.Manifests)
	}

	tags, err := remote.List(ref("demo/app:v1").Context(), opts...)
	if err != nil || !slices.Equal(tags, []string{"multi", "v1"}) {
		t.Errorf("tags %v, %v; the fallback tag for referrers must not be there", tags, err)
	}
	if err := remote.Delete(ref("demo/app:v1"), opts...); err != nil {
		t.Error(err)
	}
	if _, err := remote.Head(ref("demo/app:v1"), opts...); err == nil {
		t.Error("the tag is still there")
	}
	bob := []remote.Option{remote.WithAuth(&authn.Basic{Username: "bob", Password: "pw"}), remote.WithContext(t.Context())}
	if _, err := remote.Image(ref("demo/app:multi"), bob...); err == nil {
		t.Error("bob pulled alice's image")
	}
	if err := remote.Write(ref("demo/app:bob"), img, bob...); err == nil {
		t.Error("bob pushed to alice's repository")
	}
}

// tool finds a program by an environment variable or in PATH, or skips the test and says so.
func tool(t *testing.T, env, program string) string {
	t.Helper()
	if p := os.Getenv(env); p != "" {
		return p
	}
	p, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("SKIPPED: %s is neither at $%s nor in PATH", program, env)
	}
	return p
}

// run runs a client with alice's credentials in the configuration file that all of them read.
func run(t *testing.T, s *server, home, program string, stdin []byte, args ...string) string {
	t.Helper()
	host := strings.TrimPrefix(s.URL, "http://")
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("alice:pw")))
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+home, "HOME="+home, "TUF_ROOT="+home, "COSIGN_PASSWORD=pw")
	cmd.Dir = home
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestCrane(t *testing.T) {
	crane := tool(t, "CRANE", "crane")
	s, home := serve(t), t.TempDir()
	host := strings.TrimPrefix(s.URL, "http://")
	layer := filepath.Join(home, "layer.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-cf", layer, "-C", "/etc", "hostname").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	run(t, s, home, crane, nil, "append", "-f", layer, "-t", host+"/demo/app:v1", "--oci-empty-base")
	run(t, s, home, crane, nil, "mutate", host+"/demo/app:v1", "--cmd", "/bin/true", "-u", "1000", "-t", host+"/demo/app:v2")
	run(t, s, home, crane, nil, "copy", host+"/demo/app:v2", host+"/demo/copy:v2")
	run(t, s, home, crane, nil, "tag", host+"/demo/app:v2", "stable")
	if got := run(t, s, home, crane, nil, "ls", host+"/demo/app"); got != "stable\nv1\nv2" {
		t.Errorf("ls: %q", got)
	}
	if got := run(t, s, home, crane, nil, "catalog", host); !strings.Contains(got, "demo/copy") {
		t.Errorf("catalog: %q", got)
	}
	if got := run(t, s, home, crane, nil, "validate", "--remote", host+"/demo/copy:v2"); !strings.Contains(got, "PASS") {
		t.Errorf("validate: %q", got)
	}
	digest := run(t, s, home, crane, nil, "digest", host+"/demo/app:v2")
	run(t, s, home, crane, nil, "delete", host+"/demo/app@"+digest)
	if got := run(t, s, home, crane, nil, "ls", host+"/demo/app"); got != "v1" {
		t.Errorf("ls after delete: %q", got)
	}
}

func TestCosign(t *testing.T) {
	cosign := tool(t, "COSIGN", "cosign")
	s, home := serve(t), t.TempDir()
	host := strings.TrimPrefix(s.URL, "http://")
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(host + "/demo/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithAuth(&authn.Basic{Username: "alice", Password: "pw"})); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref := host + "/demo/app@" + digest.String()
	run(t, s, home, cosign, nil, "generate-key-pair")
	run(t, s, home, cosign, nil, "signing-config", "create", "--out", "sc.json")
	run(t, s, home, cosign, nil, "trusted-root", "create", "--out", "tr.json")
	sign := []string{"--yes", "--key", "cosign.key", "--signing-config", "sc.json", "--trusted-root", "tr.json"}
	run(t, s, home, cosign, nil, slices.Concat([]string{"sign"}, sign, []string{ref})...)
	if err := os.WriteFile(filepath.Join(home, "bom.json"), []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, s, home, cosign, nil, slices.Concat([]string{"attest"}, sign, []string{"--type", "cyclonedx", "--predicate", "bom.json", ref})...)
	run(t, s, home, cosign, nil, "verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", ref)
	run(t, s, home, cosign, nil, "verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--type", "cyclonedx", ref)
	r := s.do(t, "GET", "/v2/demo/app/referrers/"+digest.String(), nil).is(200)
	if n := strings.Count(string(r.body), `"digest"`); n < 2 {
		t.Errorf("%d referrers: %s", n, r.body)
	}
	// The way of cosign 2: a tag per image instead of referrers.
	run(t, s, home, cosign, nil, "sign", "--yes", "--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false", ref)
	fallback := strings.Replace(digest.String(), ":", "-", 1) + ".sig"
	s.do(t, "GET", "/v2/demo/app/manifests/"+fallback, nil).is(200)
}

// TestConformance runs the Open Container Initiative's own conformance test.
func TestConformance(t *testing.T) {
	suite := os.Getenv("OCI_CONFORMANCE")
	if suite == "" {
		t.Skip("SKIPPED: $OCI_CONFORMANCE does not name the distribution specification's conformance test, built")
	}
	s := serve(t, func(c *registry.Config) { c.MaxTransfers = 100 })
	results := t.TempDir()
	cmd := exec.CommandContext(t.Context(), suite)
	cmd.Dir = results
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(s.URL, "http://"), "OCI_TLS=disabled", "OCI_RESULTS_DIR="+results,
		"OCI_REPO1=demo/repo1", "OCI_REPO2=demo/repo2", "OCI_USERNAME=alice", "OCI_PASSWORD=pw", "OCI_VERSION=1.1",
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_TAG_PARAM=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, summary, _ := strings.Cut(string(out), "OCI Conformance Result: ")
	t.Log(summary)
}
