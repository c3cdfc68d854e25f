package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry"
	"provost.dev/provost/internal/fabric/registry/manifest"
)

// server is a registry on a loopback port, with everything behind it at hand.
type server struct {
	*httptest.Server
	index *memIndex
	blobs *blob.Store
	dir   string
}

func serve(t *testing.T, change ...func(*registry.Config)) *server {
	t.Helper()
	s := &server{index: newMemIndex(), dir: t.TempDir()}
	var err error
	if s.blobs, err = blob.New(blob.Config{Dir: s.dir, MaxBlob: 64 << 20, MaxUploads: 8, Reserve: -1}); err != nil {
		t.Fatal(err)
	}
	cfg := registry.Config{Auth: gate{}, Blobs: s.blobs, Index: s.index, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, fn := range change {
		fn(&cfg)
	}
	s.Server = httptest.NewServer(registry.New(cfg))
	t.Cleanup(s.Close)
	return s
}

// reply is a response that was read to its end.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// do sends one request as alice; headers come in pairs and may replace her credentials.
func (s *server) do(t *testing.T, method, path string, body io.Reader, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("alice", "pw")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "As" {
			req.SetBasicAuth(headers[i+1], "pw")
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req) // no redirects
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{t, res.StatusCode, res.Header, b}
}

// is checks the status and, for errors, the code.
func (r reply) is(status int, code ...string) reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	if len(code) > 0 && r.code() != code[0] {
		r.t.Fatalf("code %q, want %q: %s", r.code(), code[0], r.body)
	}
	return r
}

func (r reply) code() string {
	r.t.Helper()
	var e struct {
		Errors []struct{ Code string }
	}
	if err := json.Unmarshal(r.body, &e); err != nil || len(e.Errors) != 1 {
		r.t.Fatalf("not one error of the specification's form: %s", r.body)
	}
	return e.Errors[0].Code
}

func (r reply) has(header, want string) reply {
	r.t.Helper()
	if got := r.header.Get(header); got != want {
		r.t.Errorf("%s is %q, want %q", header, got, want)
	}
	return r
}

// push stores a blob and returns its descriptor.
func (s *server) push(t *testing.T, repo, mediaType, content string) manifest.Descriptor {
	t.Helper()
	d := blob.SHA256.Sum([]byte(content))
	s.do(t, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), strings.NewReader(content)).is(http.StatusCreated)
	return manifest.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// doc is a manifest to be pushed.
func doc(t *testing.T, m manifest.Manifest) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for k, v := range all {
		if v == nil || v == "" {
			delete(all, k)
		}
	}
	all["schemaVersion"] = 2
	if b, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	return b
}

// image pushes the blobs of an image and returns its manifest.
func (s *server) image(t *testing.T, repo, content string) []byte {
	t.Helper()
	config := s.push(t, repo, manifest.OCIConfig, `{"architecture":"amd64","os":"linux"}`)
	layer := s.push(t, repo, "application/vnd.oci.image.layer.v1.tar", content)
	return doc(t, manifest.Manifest{MediaType: manifest.OCIImage, Config: &config, Layers: []manifest.Descriptor{layer}})
}

func (s *server) put(t *testing.T, repo, ref string, m []byte, headers ...string) reply {
	t.Helper()
	return s.do(t, "PUT", "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(m), headers...)
}

func sum(b []byte) string { return blob.SHA256.Sum(b).String() }

func describe(mediaType string, b []byte) manifest.Descriptor {
	return manifest.Descriptor{MediaType: mediaType, Digest: blob.SHA256.Sum(b), Size: int64(len(b))}
}

func upload(t *testing.T, s *server, repo string) string {
	t.Helper()
	return s.do(t, "POST", "/v2/"+repo+"/blobs/uploads/", nil).is(http.StatusAccepted).has("Range", "0-0").header.Get("Location")
}

func contentRange(first, n int) string { return fmt.Sprintf("%d-%d", first, first+n-1) }
