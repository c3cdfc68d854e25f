package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry"
	"provost.dev/provost/internal/kernel"
)

func TestBaseAsksForBasicCredentials(t *testing.T) {
	s := serve(t)
	s.do(t, "GET", "/v2/", nil).is(200).has("Docker-Distribution-API-Version", "registry/2.0")
	for _, auth := range []string{"", "Bearer x", "Basic !!!"} {
		s.do(t, "GET", "/v2/", nil, "Authorization", auth).is(401, "UNAUTHORIZED").has("WWW-Authenticate", `Basic realm="provost"`)
	}
	s.do(t, "GET", "/v2/demo/app/tags/list", nil, "As", "nobody").is(401, "UNAUTHORIZED")
}

func TestMonolithicUploadAndRange(t *testing.T) {
	s := serve(t)
	content := []byte(strings.Repeat("0123456789", 1000))
	path := "/v2/demo/app/blobs/" + sum(content)
	s.do(t, "GET", path, nil).is(404, "BLOB_UNKNOWN")
	s.do(t, "POST", "/v2/demo/app/blobs/uploads/?digest="+sum(content), bytes.NewReader(content)).is(201).
		has("Location", path).has("Docker-Content-Digest", sum(content)).has("X-Event-ID", "ev-1").has("X-Evidence-Pointer", "sha256:link")
	got := s.do(t, "GET", path, nil).is(200).has("Docker-Content-Digest", sum(content)).has("Content-Type", "application/octet-stream").has("X-Content-Type-Options", "nosniff")
	if !bytes.Equal(got.body, content) {
		t.Error("other bytes came back")
	}
	head := s.do(t, "HEAD", path, nil).is(200).has("Content-Length", "10000").has("Docker-Content-Digest", sum(content))
	if len(head.body) > 0 {
		t.Errorf("HEAD has a body: %q", head.body)
	}
	part := s.do(t, "GET", path, nil, "Range", "bytes=9995-").is(206).has("Content-Range", "bytes 9995-9999/10000")
	if string(part.body) != "56789" {
		t.Errorf("got %q", part.body)
	}
	s.do(t, "GET", path, nil, "Range", "bytes=10000-").is(416)
	s.do(t, "GET", path, nil, "Range", "bytes=0-1,4-5").is(200)
	s.do(t, "GET", path, nil, "If-None-Match", `"`+sum(content)+`"`).is(304)
	s.do(t, "GET", strings.Replace(path, ":", "%3A", 1), nil).is(200)
	s.do(t, "DELETE", path, nil).is(202).has("X-Evidence-Pointer", "sha256:unlink")
	s.do(t, "GET", path, nil).is(404, "BLOB_UNKNOWN")
	s.do(t, "DELETE", path, nil).is(404, "BLOB_UNKNOWN")
	s.do(t, "GET", "/v2/demo/app/blobs/sha256:short", nil).is(400, "DIGEST_INVALID")
}

func TestUploadRefusals(t *testing.T) {
	s := serve(t)
	for _, tc := range []struct {
		name, query, body string
		status            int
		code              string
	}{
		{"another digest", "digest=" + sum([]byte("x")), "y", 400, "DIGEST_INVALID"},
		{"no digest", "digest=", "y", 400, "DIGEST_INVALID"},
		{"unknown algorithm", "digest=md5:d41d8cd98f00b204e9800998ecf8427e", "", 400, "DIGEST_INVALID"},
		{"unknown algorithm announced", "digest-algorithm=md5", "", 400, "DIGEST_INVALID"},
		{"bad mount", "mount=x&from=demo/other", "", 400, "DIGEST_INVALID"},
		{"bad query", "digest=%zz", "", 400, "UNSUPPORTED"},
		{"over the limit", "digest=" + sum(nil), strings.Repeat("x", 64<<20+1), 413, "SIZE_INVALID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.do(t, "POST", "/v2/demo/app/blobs/uploads/?"+tc.query, strings.NewReader(tc.body)).is(tc.status, tc.code)
		})
	}
	if s.index.events > 0 {
		t.Errorf("%d changes were recorded", s.index.events)
	}
	if left := files(t, s.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestChunkedUpload(t *testing.T) {
	for _, alg := range []blob.Algorithm{blob.SHA256, blob.SHA512} {
		s := serve(t)
		content := bytes.Repeat([]byte("chunk"), 1000)
		loc := s.do(t, "POST", "/v2/demo/app/blobs/uploads/?digest-algorithm="+string(alg), nil).is(202).header.Get("Location")
		r := s.do(t, "PATCH", loc, bytes.NewReader(content[:2000]), "Content-Range", "0-1999").is(202).has("Range", "0-1999")
		loc = r.header.Get("Location")
		s.do(t, "PATCH", loc, bytes.NewReader(content[2500:3000]), "Content-Range", "2500-2999").is(416, "BLOB_UPLOAD_INVALID").has("Range", "0-1999").has("Location", loc)
		s.do(t, "PATCH", loc, bytes.NewReader(content[:2000]), "Content-Range", "0-1999").is(416, "BLOB_UPLOAD_INVALID")
		s.do(t, "PATCH", loc, bytes.NewReader(content[2000:3000]), "Content-Range", "2000-2998").is(400, "SIZE_INVALID")
		s.do(t, "PATCH", loc, bytes.NewReader(content[2000:3000]), "Content-Range", "bytes 2000-2999/5000").is(400, "BLOB_UPLOAD_INVALID")
		s.do(t, "GET", loc, nil).is(204).has("Range", "0-1999").has("Location", loc)
		s.do(t, "PATCH", loc, io.MultiReader(bytes.NewReader(content[2000:3000]))).is(202).has("Range", "0-2999") // no length, no range
		d := alg.Sum(content).String()
		s.do(t, "PUT", loc+"?digest="+d, bytes.NewReader(content[3000:]), "Content-Range", "3000-4999").is(201).
			has("Location", "/v2/demo/app/blobs/"+d).has("Docker-Content-Digest", d)
		if got := s.do(t, "GET", "/v2/demo/app/blobs/"+d, nil).is(200).body; !bytes.Equal(got, content) {
			t.Error("other bytes came back")
		}
		s.do(t, "GET", loc, nil).is(404, "BLOB_UPLOAD_UNKNOWN")
		s.do(t, "PUT", loc+"?digest="+d, nil).is(404, "BLOB_UPLOAD_UNKNOWN")
	}
}

func TestUploadIsClosedByItsOwnerAlone(t *testing.T) {
	s := serve(t)
	cast["carol"] = &user{"carol", "demo", cast["alice"].may}
	t.Cleanup(func() { delete(cast, "carol") })
	loc := upload(t, s, "demo/app")
	s.do(t, "PATCH", loc, strings.NewReader("x"), "As", "carol").is(404, "BLOB_UPLOAD_UNKNOWN")
	s.do(t, "PATCH", strings.Replace(loc, "demo/app", "demo/other", 1), strings.NewReader("x")).is(404, "BLOB_UPLOAD_UNKNOWN")
	s.do(t, "PATCH", loc, strings.NewReader("x"), "As", "reader").is(403, "DENIED")
	s.do(t, "DELETE", loc, nil, "As", "carol").is(404, "BLOB_UPLOAD_UNKNOWN")
	s.do(t, "PUT", loc+"?digest=sha256:no", nil).is(400, "DIGEST_INVALID")
	s.do(t, "PUT", loc, nil).is(400, "DIGEST_INVALID")
	s.do(t, "DELETE", loc, nil).is(204)
	s.do(t, "DELETE", loc, nil).is(404, "BLOB_UPLOAD_UNKNOWN")
	s.do(t, "GET", "/v2/demo/app/blobs/uploads/not-an-id", nil).is(404, "BLOB_UPLOAD_UNKNOWN")
}

// A connection that breaks in the middle of a PATCH leaves an upload from which the client goes on.
func TestInterruptedUploadIsResumed(t *testing.T) {
	s := serve(t)
	content := bytes.Repeat([]byte("layer"), 100_000)
	loc := upload(t, s, "demo/app")
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YWxpY2U6cHc=\r\nContent-Length: %d\r\n\r\n", loc, len(content))
	if _, err := conn.Write(content[:123_456]); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	at := waitForOffset(t, s, loc, 123_456)
	s.do(t, "PATCH", loc, bytes.NewReader(content[at:]), "Content-Range", contentRange(at, len(content)-at)).is(202)
	s.do(t, "PUT", loc+"?digest="+sum(content), nil).is(201)
	if got := s.do(t, "GET", "/v2/demo/app/blobs/"+sum(content), nil).is(200).body; !bytes.Equal(got, content) {
		t.Error("other bytes came back")
	}
}

// waitForOffset waits until the upload holds n bytes and nobody writes to it.
func waitForOffset(t *testing.T, s *server, loc string, n int) int {
	t.Helper()
	want := fmt.Sprintf("0-%d", n-1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if s.do(t, "GET", loc, nil).is(204).header.Get("Range") != want {
			continue
		}
		if r := s.do(t, "PATCH", loc, nil); r.status == 202 { // not busy any more
			return n
		}
	}
	t.Fatalf("the upload never came to hold %d bytes", n)
	return 0
}

// Of a blob sent in one request nothing stays when the connection breaks.
func TestInterruptedMonolithicUploadLeavesNothing(t *testing.T) {
	s := serve(t)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v2/demo/app/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YWxpY2U6cHc=\r\nContent-Length: 1000\r\n\r\nhalf", sum([]byte("half")))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 400 {
		t.Errorf("status %d", res.StatusCode)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if left := files(t, s.dir); len(left) > 0 || s.index.events > 0 {
		t.Errorf("left behind: %v, %d changes", left, s.index.events)
	}
}

func TestStalledUploadIsEnded(t *testing.T) {
	s := serve(t, func(c *registry.Config) { c.IdleTimeout = 50 * time.Millisecond })
	loc := upload(t, s, "demo/app")
	for _, tc := range []struct {
		method, credentials string
		status              int
	}{
		{"PATCH", "YWxpY2U6cHc=", 400}, // alice:pw
		{"PATCH", "YWxpY2U6", 401},     // refused before a byte of the body is read
		{"LINK", "YWxpY2U6cHc=", 405},
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nContent-Length: 1000\r\n\r\nhalf", tc.method, loc, tc.credentials)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil) // comes without another byte from us
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != tc.status {
			t.Errorf("status %d, want %d", res.StatusCode, tc.status)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.do(t, "GET", loc, nil).is(204).has("Range", "0-3")
}

func TestParallelUploadsOfOneBlob(t *testing.T) {
	s := serve(t, func(c *registry.Config) { c.MaxTransfers = 100 })
	content := bytes.Repeat([]byte("z"), 1<<20)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				s.do(t, "POST", "/v2/demo/app/blobs/uploads/?digest="+sum(content), bytes.NewReader(content)).is(201)
				return
			}
			loc := upload(t, s, "demo/app")
			s.do(t, "PATCH", loc, bytes.NewReader(content)).is(202)
			s.do(t, "PUT", loc+"?digest="+sum(content), nil).is(201)
		})
	}
	wg.Wait()
	if got := s.do(t, "GET", "/v2/demo/app/blobs/"+sum(content), nil).is(200).body; !bytes.Equal(got, content) {
		t.Error("other bytes came back")
	}
}

func TestUploadsPerCallerAreLimited(t *testing.T) {
	s := serve(t, func(c *registry.Config) { c.MaxTransfers = 1 })
	r, w := io.Pipe()
	done := make(chan reply)
	loc := upload(t, s, "demo/app")
	go func() { done <- s.do(t, "PATCH", loc, r) }()
	if _, err := w.Write([]byte("begun")); err != nil {
		t.Fatal(err)
	}
	waitForBytes(t, s, loc)
	s.do(t, "POST", "/v2/demo/app/blobs/uploads/?digest="+sum(nil), nil).is(429, "TOOMANYREQUESTS").has("Retry-After", "1")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	(<-done).is(202)
	s.do(t, "POST", "/v2/demo/app/blobs/uploads/?digest="+sum(nil), nil).is(201)
	for range 7 {
		upload(t, s, "demo/app")
	}
	s.do(t, "POST", "/v2/demo/app/blobs/uploads/", nil).is(429, "TOOMANYREQUESTS")
}

func waitForBytes(t *testing.T, s *server, loc string) {
	t.Helper()
	for t.Context().Err() == nil {
		if s.do(t, "GET", loc, nil).is(204).header.Get("Range") != "0-0" {
			return
		}
	}
}

func TestMount(t *testing.T) {
	s := serve(t)
	d := s.push(t, "demo/base", "application/octet-stream", "shared layer").Digest.String()
	s.do(t, "POST", "/v2/demo/app/blobs/uploads/?mount="+d+"&from=demo/base", nil).is(201).has("Location", "/v2/demo/app/blobs/"+d)
	s.do(t, "GET", "/v2/demo/app/blobs/"+d, nil).is(200)

	// Whether the other repository is foreign, empty or lacks the blob, the answer is an upload.
	for _, from := range []string{"demo/base", "demo/nothing", "rival/app", "../x", ""} {
		s.do(t, "POST", "/v2/rival/app/blobs/uploads/?mount="+d+"&from="+from, nil, "As", "bob").is(202)
	}
	s.do(t, "GET", "/v2/rival/app/blobs/"+d, nil, "As", "bob").is(404, "BLOB_UNKNOWN")
}

// The bytes are in the store, and still a repository without the link does not have them.
func TestForeignAndUnknownLookTheSame(t *testing.T) {
	s := serve(t)
	m := s.image(t, "demo/app", "secret")
	s.put(t, "demo/app", "v1", m).is(201)
	layer := sum([]byte("secret"))
	for _, path := range []string{"blobs/" + layer, "manifests/v1", "manifests/" + sum(m), "tags/list", "referrers/" + sum(m), "blobs/uploads/c2e8a3f1-0000-4000-8000-000000000000"} {
		foreign := s.do(t, "GET", "/v2/demo/app/"+path, nil, "As", "bob")
		unknown := s.do(t, "GET", "/v2/ghost/app/"+path, nil, "As", "bob")
		if foreign.status != 404 || foreign.status != unknown.status || !bytes.Equal(foreign.body, unknown.body) {
			t.Errorf("%s: foreign %d %s, unknown %d %s", path, foreign.status, foreign.body, unknown.status, unknown.body)
		}
	}
	s.do(t, "GET", "/v2/rival/app/blobs/"+layer, nil, "As", "bob").is(404, "BLOB_UNKNOWN")
	got := s.do(t, "GET", "/v2/_catalog", nil, "As", "bob").is(200)
	if strings.TrimSpace(string(got.body)) != `{"repositories":[]}` {
		t.Errorf("bob sees %s", got.body)
	}
}

func TestRefusalsSayWhyAndWhere(t *testing.T) {
	s := serve(t)
	r := s.do(t, "POST", "/v2/demo/app/blobs/uploads/", nil, "As", "reader").is(403, "DENIED").has("X-Event-ID", "ev-1").has("X-Evidence-Pointer", "sha256:refusal")
	for _, want := range []string{`"rule_id":"role.push"`, "ask an operator", `"evidence_pointer":"sha256:refusal"`, "rule role.push"} {
		if !strings.Contains(string(r.body), want) {
			t.Errorf("%q is not in %s", want, r.body)
		}
	}
	m := s.image(t, "demo/app", "layer")
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{&kernel.Error{Kind: kernel.Refused, Msg: "suspended", Rule: "tenant.suspended", EventID: "ev-9", Pointer: "sha256:p"}, 403, "DENIED"},
		{&kernel.Error{Kind: kernel.Unavailable, Msg: "no evidence, no change", RetryAfter: 7}, 503, "UNAVAILABLE"},
		{&kernel.Error{Kind: kernel.Conflict, Code: "ECS_X", Msg: "tag is immutable"}, 409, "DENIED"},
		{&kernel.Error{Kind: kernel.NotFound}, 404, "NAME_UNKNOWN"},
		{fmt.Errorf("password=hunter2 at db:5432"), 500, "UNKNOWN"},
	} {
		s.index.refuse = func(string) error { return tc.err }
		r := s.put(t, "demo/app", "v1", m).is(tc.status, tc.code)
		e := kernel.AsError(tc.err)
		r.has("X-Event-ID", e.EventID).has("X-Evidence-Pointer", e.Pointer)
		if tc.status == 503 {
			r.has("Retry-After", "7")
		}
		if strings.Contains(string(r.body), "hunter2") {
			t.Errorf("leaked: %s", r.body)
		}
	}
	s.index.refuse = nil
	s.do(t, "GET", "/v2/demo/app/manifests/v1", nil).is(404, "MANIFEST_UNKNOWN")
}

func TestLostBlobIsOurFault(t *testing.T) {
	s := serve(t)
	d := s.push(t, "demo/app", "application/octet-stream", "x").Digest
	if err := s.blobs.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	s.do(t, "GET", "/v2/demo/app/blobs/"+d.String(), nil).is(500, "UNKNOWN")
}

// Paths as they come over the wire; a client library would have cleaned them.
func TestPathTricks(t *testing.T) {
	s := serve(t)
	s.put(t, "demo/app", "v1", s.image(t, "demo/app", "secret")).is(201)
	for _, path := range []string{
		"/v2/rival/../demo/app/manifests/v1", "/v2/rival%2f..%2fdemo/app/manifests/v1", "/v2/rival/%2e%2e/demo/app/manifests/v1",
		"/v2/demo%2fapp/manifests/v1", "/v2/demo//app/manifests/v1", "/v2/demo/app%00/manifests/v1", "/v2/DEMO/app/manifests/v1",
		"/v2/rival/x/../../demo/app/manifests/v1", `/v2/rival\..\demo/app/manifests/v1`, "/v2/./demo/app/manifests/v1",
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Ym9iOnB3\r\nConnection: close\r\n\r\n", path) // bob:pw
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 400 && res.StatusCode != 404 {
			t.Errorf("%s: status %d", path, res.StatusCode)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownEndpointsAndMethods(t *testing.T) {
	s := serve(t)
	s.do(t, "GET", "/v2/demo/app", nil).is(404, "NAME_UNKNOWN")
	s.do(t, "POST", "/v2/demo/app/manifests/v1", nil).is(405, "UNSUPPORTED").has("Allow", "DELETE, GET, HEAD, PUT")
	s.do(t, "PUT", "/v2/", nil).is(405, "UNSUPPORTED")
	s.do(t, "GET", "/v2/demo/app/blobs/uploads/", nil).is(405, "UNSUPPORTED").has("Allow", "POST")
}
