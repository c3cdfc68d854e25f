package acceptance

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestUploadCutHalfWay: a push whose connection dies leaves nothing that can
// be read, and can be taken up where it ended.
func TestUploadCutHalfWay(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	r := tn.repository("cut")
	content := bytes.Repeat([]byte("half of this arrives. "), 64<<10)
	at := r.post(t, "/v2/"+r.name+"/blobs/uploads/", nil).want(202).header.Get("Location")
	path := strings.TrimPrefix(at, shared.url)

	conn, err := net.Dial("tcp", strings.TrimPrefix(shared.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		path, shared.dev.Registry, r.token, len(content)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(content[:len(content)/2]); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	r.do(t, "HEAD", "/v2/"+r.name+"/blobs/"+digestOf(content), nil).want(404)
	r.do(t, "HEAD", "/v2/"+r.name+"/blobs/"+digestOf(content[:len(content)/2]), nil).want(404)

	var have int
	eventually(t, "the cut upload to be let go", func() bool {
		a := r.get(t, path)
		if a.status != 204 {
			return false
		}
		_, err := fmt.Sscanf(a.header.Get("Range"), "0-%d", &have)
		have++
		return err == nil || a.header.Get("Range") == ""
	})
	if have > len(content)/2 {
		t.Fatalf("%d bytes are said to be there, %d were sent", have, len(content)/2)
	}
	// A commit of what is there, under the digest of all of it, is refused.
	r.do(t, "PUT", path+separator(path)+"digest="+digestOf(content), nil).want(400)
	r.do(t, "HEAD", "/v2/"+r.name+"/blobs/"+digestOf(content), nil).want(404)

	again := strings.TrimPrefix(r.post(t, "/v2/"+r.name+"/blobs/uploads/", nil).want(202).header.Get("Location"), shared.url)
	middle := len(content) / 3
	a := r.do(t, "PATCH", again, content[:middle], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("0-%d", middle-1)).want(202)
	if got := a.header.Get("Range"); got != fmt.Sprintf("0-%d", middle-1) {
		t.Errorf("Range is %q", got)
	}
	r.do(t, "PATCH", again, content[middle:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", middle+5, len(content)+4)).want(416)
	r.do(t, "PATCH", again, content[middle:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", middle, len(content)-1)).want(202)
	r.do(t, "PUT", again+separator(again)+"digest="+digestOf(content), nil).want(201)
	if got := r.get(t, "/v2/"+r.name+"/blobs/"+digestOf(content)).want(200).body; !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, %d were sent", len(got), len(content))
	}
}

func TestDigestsThatLie(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	r := tn.repository("liar")
	upload := func() string { return r.post(t, "/v2/"+r.name+"/blobs/uploads/", nil).want(202).header.Get("Location") }
	at := upload()
	r.do(t, "PUT", at+separator(at)+"digest="+digestOf([]byte("other")), []byte("content"), "Content-Type", "application/octet-stream").want(400)
	r.do(t, "HEAD", "/v2/"+r.name+"/blobs/"+digestOf([]byte("other")), nil).want(404)
	for _, digest := range []string{"", "sha256:", "sha256:xyz", "md5:" + strings.Repeat("0", 32), "sha256:" + strings.ToUpper(sum([]byte("content"))), "../../etc/passwd"} {
		at := upload()
		r.do(t, "PUT", at+separator(at)+"digest="+digest, []byte("content"), "Content-Type", "application/octet-stream").want(400)
	}
	config, layer := r.blob(t, configType, []byte("{}")), r.blob(t, layerType, []byte("layer"))
	good := object{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []object{layer}}
	push := func(reference string, m any, status ...int) {
		t.Helper()
		a := r.do(t, "PUT", "/v2/"+r.name+"/manifests/"+reference, m, "Content-Type", manifestType)
		if a.want(status...); a.status >= 400 {
			if list, _ := a.json()["errors"].([]any); len(list) == 0 {
				t.Errorf("%s: not the registry's form of errors: %s", a.request, a.body)
			}
		}
	}
	push(digestOf([]byte("another manifest")), good, 400)
	push("v1", with(good, "layers", []object{with(layer, "size", 4)}), 400)
	push("v1", with(good, "layers", []object{with(layer, "digest", digestOf([]byte("absent")))}), 400, 404)
	push("v1", with(good, "config", with(config, "digest", "sha256:00")), 400)
	push("v1", with(good, "schemaVersion", 1), 400)
	push("v1", with(good, "mediaType", "application/vnd.oci.image.index.v1+json"), 400)
	push("v1", with(good, "manifests", []object{}), 400)
	push("v1", "{", 400)
	push("v1", append(encode(t, good), encode(t, good)...), 400)
	push("v1", strings.Repeat(" ", 5<<20), 413)
	for _, reference := range []string{"-v1", ".v1", "v1/", "a b", strings.Repeat("a", 129), "sha256:zz", "%2e%2e"} {
		a := r.do(t, "PUT", "/v2/"+r.name+"/manifests/"+strings.ReplaceAll(reference, " ", "%20"), good, "Content-Type", manifestType)
		if a.status != 400 && a.status != 404 {
			t.Errorf("reference %q: status %d", reference, a.status)
		}
	}
	r.get(t, "/v2/"+r.name+"/manifests/v1").want(404)
	push("v1", good, 201)
	got := r.get(t, "/v2/"+r.name+"/manifests/v1").want(200)
	if digest := digestOf(got.body); got.header.Get("Docker-Content-Digest") != digest {
		t.Errorf("Docker-Content-Digest is %s of %s", got.header.Get("Docker-Content-Digest"), digest)
	}
	for _, name := range []string{"..", "../rival/app", "a//b", "UPPER", strings.Repeat("a/", 200) + "a"} {
		a := r.do(t, "PUT", "/v2/"+tn.id+"/"+name+"/manifests/v1", good, "Content-Type", manifestType)
		if a.status < 400 || a.status >= 500 {
			t.Errorf("repository %q: status %d", name, a.status)
		}
	}
}

// TestBlobsAreLinkedNotShared: knowing a digest gives nobody the bytes.
func TestBlobsAreLinkedNotShared(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	ours, theirs := a.repository("app"), b.repository("app")
	secret := []byte("a layer of " + a.id)
	ours.blob(t, layerType, secret)
	theirs.get(t, "/v2/"+theirs.name+"/blobs/"+digestOf(secret)).want(404)
	theirs.get(t, "/v2/"+ours.name+"/blobs/"+digestOf(secret)).want(404)
	mount := theirs.post(t, "/v2/"+theirs.name+"/blobs/uploads/?mount="+digestOf(secret)+"&from="+ours.name, nil)
	if mount.status == 201 {
		t.Error("a foreign blob was mounted")
	}
	theirs.get(t, "/v2/"+theirs.name+"/blobs/"+digestOf(secret)).want(404)
	at := ours.post(t, "/v2/"+ours.name+"/blobs/uploads/", nil).want(202).header.Get("Location")
	theirs.get(t, at).want(404)
	theirs.do(t, "PATCH", at, []byte("x"), "Content-Type", "application/octet-stream").want(404)
	if got := theirs.get(t, "/v2/_catalog").want(200); strings.Contains(string(got.body), a.id) {
		t.Errorf("the catalogue shows %s", got.body)
	}
}

// A push is governed: it leaves an event, and who may only read may not.
func TestPushLeavesEvidence(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	digest := tn.repository("app").image(t, "v1")
	found := tn.op.events(t, "event_type=image.push")
	if len(found) != 1 || found[0]["image_digest"] != digest || found[0]["repository"] != tn.id+"/app" {
		t.Errorf("image.push: %v", found)
	}
	reader := repository{tn.service(t, "reader", "images.read", "events.read"), tn.id + "/app"}
	reader.get(t, "/v2/"+reader.name+"/manifests/v1").want(200)
	a := reader.post(t, "/v2/"+reader.name+"/blobs/uploads/", nil).want(403)
	if e := reader.event(a); e["outcome"] != "refused" || e["action"] != "image.push" {
		t.Errorf("a refused push is %v %v", e["outcome"], e["action"])
	}
	nothing := repository{tn.service(t, "nothing", "events.read"), tn.id + "/app"}
	a = nothing.get(t, "/v2/"+nothing.name+"/manifests/v1").want(403)
	if e := nothing.event(a); e["action"] != "image.pull" {
		t.Errorf("a refused pull is %v", e["action"])
	}
	shared.anonymous().get(t, "/v2/").want(401)
	shared.anonymous().do(t, "GET", "/v2/", nil, "Authorization", "Basic "+"b3BlcmF0b3JAZGVtbzp3cm9uZw==").want(401)
}

// zeros is an endless gzip bomb's content.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// hostileLayers are layers that no unpacking may follow, with a word that the
// reason for their refusal must hold.
func hostileLayers(t testing.TB) map[string]struct {
	mediaType string
	layer     []byte
	diffID    string
	reason    string
} {
	t.Helper()
	type hostile = struct {
		mediaType string
		layer     []byte
		diffID    string
		reason    string
	}
	out := map[string]hostile{}
	guest, err := tarReader(guestLayer(t))
	if err != nil {
		t.Fatal(err)
	}
	add := func(name, reason string, entries ...entry) {
		raw, err := tarOf(append(slices.Clone(guest), entries...)...)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = hostile{layerType, raw, digestOf(raw), reason}
	}
	file := func(name string) entry {
		return entry{tar.Header{Name: name, Mode: 0o644, Size: 5}, []byte("owned")}
	}
	link := func(typ byte, name, to string) entry {
		return entry{tar.Header{Name: name, Typeflag: typ, Linkname: to, Mode: 0o777}, nil}
	}
	device := func(typ byte, major int64) entry {
		return entry{tar.Header{Name: "dev/sda", Typeflag: typ, Mode: 0o666, Devmajor: major, Devminor: 1}, nil}
	}
	add("traversal", "..", file("../../../../../tmp/provost-owned"))
	add("traversal inside", "..", file("usr/../../../tmp/provost-owned"))
	add("block device", "device", device(tar.TypeBlock, 8))
	add("character device", "device", device(tar.TypeChar, 1))
	add("fifo", "", entry{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o666}, nil})
	add("hard link out", "", link(tar.TypeLink, "passwd", "../../../../etc/passwd"))
	add("hard link to nothing", "", link(tar.TypeLink, "shadow", "/etc/shadow"))
	add("file twice", "", file("same"), file("same"))

	whole := guestLayer(t)
	out["wrong diff id"] = hostile{layerType, whole, digestOf([]byte("another layer")), "diff"}
	out["cut"] = hostile{layerType, whole[:len(whole)/2], digestOf(whole[:len(whole)/2]), ""}
	zipped := gzipped(t, whole)
	out["gzip cut"] = hostile{gzipLayerType, zipped[:len(zipped)/2], digestOf(whole), ""}
	out["no gzip"] = hostile{gzipLayerType, whole, digestOf(whole), ""}
	out["no tar"] = hostile{layerType, bytes.Repeat([]byte("x"), 4096), digestOf(bytes.Repeat([]byte("x"), 4096)), ""}
	bomb, diffID := bombOf(t, 256<<20)
	out["bomb"] = hostile{gzipLayerType, bomb, diffID, ""}
	return out
}

// bombOf is a layer with one file of n zeros, which compress a thousandfold.
func bombOf(t testing.TB, n int64) (layer []byte, diffID string) {
	t.Helper()
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: n}); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	content := io.MultiReader(&head, io.LimitReader(zeros{}, n), bytes.NewReader(make([]byte, 1024)))
	layer = gzipStream(t, io.TeeReader(content, h))
	return layer, "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// TestHostileLayers: an image can be signed and attested and still be hostile.
// Its deployment is admitted, and fails with a reason when it is unpacked.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	tn := shared.newTenant(t)
	s := newSigner(t)
	s.trustedBy(t, tn.op)
	for name, h := range hostileLayers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := tn.repository("hostile-" + strings.ReplaceAll(name, " ", "-"))
			digest := r.layered(t, "", h.mediaType, h.layer, h.diffID, "tick")
			s.signImage(t, r, digest)
			s.attest(t, r, digest, provenance, billOfMaterials)
			id, w := tn.run(t, r.name+"@"+digest)
			t.Log(w["status_reason"])
			if reason, _ := w["status_reason"].(string); w["status"] != "failed" || len(reason) < 20 || !strings.Contains(reason, h.reason) {
				t.Errorf("status %v: %v", w["status"], w["status_reason"])
			}
			stop := tn.waitEvents(t, "event_type=workload.envelope.stop&resource_id=workload/"+id, 1)
			if stop[0]["result"] != "failed" || !isText(stop[0]["result_reason"]) {
				t.Errorf("the event is %v: %v", stop[0]["result"], stop[0]["result_reason"])
			}
		})
	}
}

// TestLinksStayInside: a link may point anywhere, as in any image. What is
// written through it lands inside the image.
func TestLinksStayInside(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	outside := t.TempDir()
	guest, err := tarReader(guestLayer(t))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarOf(append(guest, entry{tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside, Mode: 0o777}, nil},
		entry{tar.Header{Name: "out/owned", Mode: 0o644, Size: 5}, []byte("owned")},
		entry{tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../.." + outside, Mode: 0o777}, nil},
		entry{tar.Header{Name: "up/owned-too", Mode: 0o644, Size: 5}, []byte("owned")})...)
	if err != nil {
		t.Fatal(err)
	}
	r, s := tn.repository("links"), newSigner(t)
	digest := r.layered(t, "", layerType, layer, digestOf(layer), "tick")
	s.trustedBy(t, tn.op)
	s.signImage(t, r, digest)
	s.attest(t, r, digest, provenance, billOfMaterials)
	_, w := tn.run(t, r.name+"@"+digest)
	if w["status"] != "running" && w["status"] != "failed" {
		t.Errorf("status %v: %v", w["status"], w["status_reason"])
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) > 0 {
		t.Errorf("outside the image there are now %v (%v)", left, err)
	}
}

// tarReader takes a layer apart again.
func tarReader(layer []byte) (out []entry, err error) {
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		out = append(out, entry{*h, body})
	}
}
