package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
)

func TestManifestByTagAndDigest(t *testing.T) {
	s := serve(t)
	m := s.image(t, "demo/app", "layer")
	s.do(t, "GET", "/v2/demo/app/manifests/v1", nil).is(404, "MANIFEST_UNKNOWN")
	s.put(t, "demo/app", "v1", m, "Content-Type", manifest.OCIImage).is(201).
		has("Location", "/v2/demo/app/manifests/"+sum(m)).has("Docker-Content-Digest", sum(m)).has("X-Evidence-Pointer", "sha256:put").has("OCI-Subject", "")
	for _, ref := range []string{"v1", sum(m)} {
		got := s.do(t, "GET", "/v2/demo/app/manifests/"+ref, nil).is(200).has("Content-Type", manifest.OCIImage).has("Docker-Content-Digest", sum(m))
		if !bytes.Equal(got.body, m) {
			t.Errorf("%s: not byte for byte what was pushed", ref)
		}
		s.do(t, "HEAD", "/v2/demo/app/manifests/"+ref, nil).is(200).has("Content-Length", fmt.Sprint(len(m)))
	}
	s.do(t, "DELETE", "/v2/demo/app/manifests/v1", nil).is(202)
	s.do(t, "GET", "/v2/demo/app/manifests/v1", nil).is(404, "MANIFEST_UNKNOWN")
	s.do(t, "GET", "/v2/demo/app/manifests/"+sum(m), nil).is(200)
	s.do(t, "DELETE", "/v2/demo/app/manifests/"+sum(m), nil).is(202)
	s.do(t, "DELETE", "/v2/demo/app/manifests/"+sum(m), nil).is(404, "MANIFEST_UNKNOWN")
	s.do(t, "GET", "/v2/demo/app/manifests/.hidden", nil).is(404, "MANIFEST_UNKNOWN")
	s.do(t, "GET", "/v2/demo/app/manifests/sha256:abc", nil).is(400, "DIGEST_INVALID")
}

func TestPushByDigestWithTags(t *testing.T) {
	s := serve(t)
	m := s.image(t, "demo/app", "layer")
	d512 := blob.SHA512.Sum(m).String()
	s.put(t, "demo/app", d512+"?tag=v1&tag=latest&tag=v1", m).is(201).has("OCI-Tag", "latest, v1").has("Docker-Content-Digest", d512)
	s.do(t, "GET", "/v2/demo/app/manifests/latest", nil).is(200).has("Docker-Content-Digest", d512)
	s.put(t, "demo/app", sum(m)+"?tag=-x", m).is(400, "TAG_INVALID")
	s.put(t, "demo/app", "v1?tag=v2", m).is(400, "UNSUPPORTED")
	s.put(t, "demo/app", sum(m)+"?"+strings.Repeat("tag=a&", 65), m).is(400, "UNSUPPORTED")
}

func TestManifestRefusals(t *testing.T) {
	s := serve(t)
	config := s.push(t, "demo/app", manifest.OCIConfig, "{}")
	layer := s.push(t, "demo/app", "application/vnd.oci.image.layer.v1.tar", "layer")
	elsewhere := s.push(t, "demo/other", "application/vnd.oci.image.layer.v1.tar", "elsewhere")
	good := doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Layers: []manifest.Descriptor{layer}})
	s.put(t, "demo/app", "good", good).is(201)
	with := func(ds ...manifest.Descriptor) []byte {
		return doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Layers: ds})
	}
	index := func(ds ...manifest.Descriptor) []byte {
		return doc(t, manifest.Manifest{MediaType: manifest.OCIIndex, Manifests: ds})
	}
	longer, gone, liar := layer, describe(layer.MediaType, []byte("never pushed")), describe(manifest.OCIImage, good)
	longer.Size++
	liar.Size--
	wrongType := describe(manifest.DockerImage, good)
	before := s.index.events
	for _, tc := range []struct {
		name, ref string
		body      []byte
		header    []string
		status    int
		code      string
	}{
		{"not JSON", "v1", []byte("hello"), nil, 400, "MANIFEST_INVALID"},
		{"another type", "v1", good, []string{"Content-Type", manifest.OCIIndex}, 400, "MANIFEST_INVALID"},
		{"a type we do not store", "v1", []byte(`{"schemaVersion":2}`), []string{"Content-Type", "application/json"}, 415, "MANIFEST_INVALID"},
		{"another digest", sum([]byte("other")), good, nil, 400, "DIGEST_INVALID"},
		{"another digest, sha512", blob.SHA512.Sum(nil).String(), good, nil, 400, "DIGEST_INVALID"},
		{"malformed reference", "sha256:zz", good, nil, 400, "DIGEST_INVALID"},
		{"malformed tag", "-v1", good, nil, 400, "TAG_INVALID"},
		{"a layer nobody pushed", "v1", with(gone), nil, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"a layer of another repository", "v1", with(elsewhere), nil, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"a false size", "v1", with(longer), nil, 400, "MANIFEST_INVALID"},
		{"a false size the second time", "v1", with(layer, longer), nil, 400, "MANIFEST_INVALID"},
		{"a child nobody pushed", "v1", index(describe(manifest.OCIImage, []byte("x"))), nil, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"a child of another size", "v1", index(liar), nil, 400, "MANIFEST_INVALID"},
		{"a child of another type", "v1", index(wrongType), nil, 400, "MANIFEST_INVALID"},
		{"a subject of another size", "v1", doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Subject: &liar}), nil, 400, "MANIFEST_INVALID"},
		{"a conditional push", "v1", good, []string{"If-Match", `"x"`}, 400, "UNSUPPORTED"},
		{"too large", "v1", append(good, bytes.Repeat([]byte(" "), manifest.MaxBytes)...), nil, 413, "SIZE_INVALID"},
	} {
		t.Run(tc.name, func(t *testing.T) { s.put(t, "demo/app", tc.ref, tc.body, tc.header...).is(tc.status, tc.code) })
	}
	if s.index.events != before {
		t.Errorf("%d changes were recorded", s.index.events-before)
	}
}

func TestManifestMayNameWhatNeedNotBeThere(t *testing.T) {
	s := serve(t)
	config := s.push(t, "demo/app", manifest.OCIConfig, "{}")
	cache := s.push(t, "demo/app", "application/vnd.oci.image.layer.v1.tar", "cache entry")
	foreign := describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("on another server"))
	subject := describe(manifest.OCIImage, []byte("not here yet"))
	s.put(t, "demo/app", "foreign", doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Layers: []manifest.Descriptor{foreign}})).is(201)
	s.put(t, "demo/app", "cache", doc(t, manifest.Manifest{MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{cache}})).is(201)
	s.put(t, "demo/app", "early", doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Subject: &subject})).is(201).
		has("OCI-Subject", subject.Digest.String())
}

func TestTagsArePaged(t *testing.T) {
	s := serve(t)
	s.do(t, "GET", "/v2/demo/app/tags/list", nil).is(404, "NAME_UNKNOWN")
	m := s.image(t, "demo/app", "layer")
	want := []string{"B", "a", "b", "c", "v1.0"}
	s.put(t, "demo/app", sum(m)+"?tag=c&tag=a&tag=B&tag=b&tag=v1.0", m).is(201)
	var got []string
	path := "/v2/demo/app/tags/list?n=2"
	for pages := 0; path != "" && pages < 5; pages++ {
		r := s.do(t, "GET", path, nil).is(200)
		var page struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(r.body, &page); err != nil || page.Name != "demo/app" {
			t.Fatalf("%s: %v", r.body, err)
		}
		got = append(got, page.Tags...)
		link, ok := strings.CutSuffix(strings.TrimPrefix(r.header.Get("Link"), "<"), `>; rel="next"`)
		if path = link; !ok {
			path = ""
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for query, want := range map[string]string{
		"":            `{"name":"demo/app","tags":["B","a","b","c","v1.0"]}`,
		"?n=0":        `{"name":"demo/app","tags":[]}`,
		"?last=b":     `{"name":"demo/app","tags":["c","v1.0"]}`,
		"?last=bb":    `{"name":"demo/app","tags":["c","v1.0"]}`,
		"?n=9999999":  `{"name":"demo/app","tags":["B","a","b","c","v1.0"]}`,
		"?last=zzz":   `{"name":"demo/app","tags":[]}`,
		"?n=5&last=B": `{"name":"demo/app","tags":["a","b","c","v1.0"]}`,
	} {
		if r := s.do(t, "GET", "/v2/demo/app/tags/list"+query, nil).is(200).has("Link", ""); strings.TrimSpace(string(r.body)) != want {
			t.Errorf("%q: %s", query, r.body)
		}
	}
	s.do(t, "GET", "/v2/demo/app/tags/list?n=-1", nil).is(400, "UNSUPPORTED")
	s.do(t, "GET", "/v2/demo/app/tags/list?n=x", nil).is(400, "UNSUPPORTED")
	s.do(t, "GET", "/v2/demo/app/tags/list?last=../..", nil).is(400, "TAG_INVALID")
}

func TestCatalogShowsTheCallersOwn(t *testing.T) {
	s := serve(t)
	s.push(t, "demo/b", "application/octet-stream", "x")
	s.push(t, "demo/a", "application/octet-stream", "x")
	s.do(t, "POST", "/v2/rival/c/blobs/uploads/?digest="+sum(nil), nil, "As", "bob").is(201)
	for query, want := range map[string]string{"": `{"repositories":["demo/a","demo/b"]}`, "?n=1": `{"repositories":["demo/a"]}`, "?last=demo/a": `{"repositories":["demo/b"]}`} {
		if r := s.do(t, "GET", "/v2/_catalog"+query, nil).is(200); strings.TrimSpace(string(r.body)) != want {
			t.Errorf("%q: %s", query, r.body)
		}
	}
	s.do(t, "GET", "/v2/_catalog?last=%2e%2e/x", nil).is(400, "NAME_INVALID")
}

func TestReferrers(t *testing.T) {
	s := serve(t)
	m := s.image(t, "demo/app", "layer")
	s.put(t, "demo/app", "v1", m).is(201)
	subject := describe(manifest.OCIImage, m)
	empty := s.push(t, "demo/app", "application/vnd.oci.empty.v1+json", "{}")
	sbom := doc(t, manifest.Manifest{MediaType: manifest.OCIImage, ArtifactType: "application/spdx+json", Config: &empty, Subject: &subject, Annotations: map[string]string{"org.example": "x"}})
	old := s.push(t, "demo/app", "application/vnd.example.config+json", "[]")
	signature := doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &old, Subject: &subject})
	bare := doc(t, manifest.Manifest{MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{}, Subject: &subject})
	for _, b := range [][]byte{sbom, signature, bare} {
		s.put(t, "demo/app", sum(b), b).is(201).has("OCI-Subject", subject.Digest.String())
	}
	type listed struct {
		MediaType     string
		SchemaVersion int
		Manifests     []manifest.Descriptor
	}
	list := func(query string) (listed, reply) {
		t.Helper()
		r := s.do(t, "GET", "/v2/demo/app/referrers/"+sum(m)+query, nil).is(200).has("Content-Type", manifest.OCIIndex)
		var l listed
		if err := json.Unmarshal(r.body, &l); err != nil || l.MediaType != manifest.OCIIndex || l.SchemaVersion != 2 || l.Manifests == nil {
			t.Fatalf("%s: %v", r.body, err)
		}
		return l, r
	}
	all, r := list("")
	r.has("OCI-Filters-Applied", "")
	kinds := map[string]string{}
	for _, d := range all.Manifests {
		kinds[d.Digest.String()] = d.ArtifactType
		if d.Digest.String() == sum(sbom) && d.Annotations["org.example"] != "x" {
			t.Error("the annotations are missing")
		}
	}
	if len(kinds) != 3 || kinds[sum(sbom)] != "application/spdx+json" || kinds[sum(signature)] != "application/vnd.example.config+json" || kinds[sum(bare)] != "" {
		t.Errorf("got %v", kinds)
	}
	some, r := list("?artifactType=application/spdx%2Bjson")
	r.has("OCI-Filters-Applied", "artifactType")
	if len(some.Manifests) != 1 || some.Manifests[0].Digest.String() != sum(sbom) {
		t.Errorf("filtered: %v", some.Manifests)
	}
	first, r := list("?n=2")
	link, _ := strings.CutSuffix(strings.TrimPrefix(r.header.Get("Link"), "</v2/demo/app/referrers/"+sum(m)), `>; rel="next"`)
	second, _ := list(link)
	if len(first.Manifests) != 2 || len(second.Manifests) != 1 || second.Manifests[0].Digest == first.Manifests[1].Digest {
		t.Errorf("pages: %v, %v", first.Manifests, second.Manifests)
	}
	none := s.do(t, "GET", "/v2/demo/app/referrers/"+sum(nil), nil).is(200)
	if !strings.Contains(string(none.body), `"manifests":[]`) {
		t.Errorf("got %s", none.body)
	}
	s.do(t, "GET", "/v2/demo/app/referrers/v1", nil).is(400, "DIGEST_INVALID")
}

// Large annotations end a page early.
func TestReferrersPageStaysReadable(t *testing.T) {
	s := serve(t)
	empty := s.push(t, "demo/app", "application/vnd.oci.empty.v1+json", "{}")
	subject := describe(manifest.OCIImage, []byte("subject"))
	big := strings.Repeat("x", manifest.MaxAnnotations-10)
	const pushed = 20
	for i := range pushed {
		b := doc(t, manifest.Manifest{MediaType: manifest.OCIImage, ArtifactType: "application/x", Config: &empty, Subject: &subject, Annotations: map[string]string{"k": big, "i": fmt.Sprint(i)}})
		s.put(t, "demo/app", sum(b), b).is(201)
	}
	seen := map[string]bool{}
	path := "/v2/demo/app/referrers/" + subject.Digest.String()
	pages := 0
	for ; path != "" && pages < pushed; pages++ {
		r := s.do(t, "GET", path, nil).is(200)
		if len(r.body) > 5<<20 {
			t.Errorf("a page of %d bytes", len(r.body))
		}
		var l struct{ Manifests []manifest.Descriptor }
		if err := json.Unmarshal(r.body, &l); err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Manifests {
			seen[d.Digest.String()] = true
		}
		link, ok := strings.CutSuffix(strings.TrimPrefix(r.header.Get("Link"), "<"), `>; rel="next"`)
		if path = link; !ok {
			path = ""
		}
	}
	if len(seen) != pushed || pages < 2 {
		t.Errorf("%d of %d on %d pages", len(seen), pushed, pages)
	}
}
