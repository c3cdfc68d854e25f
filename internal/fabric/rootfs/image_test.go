package rootfs_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/kernel"
)

const (
	tarLayer  = "application/vnd.oci.image.layer.v1.tar"
	gzipLayer = tarLayer + "+gzip"
	zstdLayer = tarLayer + "+zstd"
)

// fataler is the part of testing.TB that making images needs, so that a test's child process can make them, too.
type fataler interface {
	Helper()
	Fatal(...any)
}

// memSource is a Source in memory. open, when set, replaces the reader of a blob.
type memSource struct {
	manifests map[blob.Digest]manifestBytes
	blobs     map[blob.Digest][]byte
	open      func(ctx context.Context, d blob.Digest, b []byte) (io.ReadCloser, error)
}

type manifestBytes struct {
	mediaType string
	b         []byte
}

func newSource() *memSource {
	return &memSource{manifests: map[blob.Digest]manifestBytes{}, blobs: map[blob.Digest][]byte{}}
}

func (s *memSource) Manifest(_ context.Context, d blob.Digest) (string, []byte, error) {
	m, ok := s.manifests[d]
	if !ok {
		return "", nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such manifest"}
	}
	return m.mediaType, m.b, nil
}

func (s *memSource) Blob(ctx context.Context, d blob.Digest) (io.ReadCloser, error) {
	b, ok := s.blobs[d]
	if !ok {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such blob"}
	}
	if s.open != nil {
		return s.open(ctx, d, b)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *memSource) blob(mediaType string, b []byte) manifest.Descriptor {
	d := blob.SHA256.Sum(b)
	s.blobs[d] = b
	return manifest.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (s *memSource) manifest(t fataler, mediaType string, m map[string]any) blob.Digest {
	t.Helper()
	m["schemaVersion"], m["mediaType"] = 2, mediaType
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := blob.SHA256.Sum(b)
	s.manifests[d] = manifestBytes{mediaType, b}
	return d
}

// layer is one layer to be put into an image.
type layer struct {
	mediaType string
	packed    []byte
	diffID    blob.Digest
}

func plain(archive []byte) layer { return layer{tarLayer, archive, blob.SHA256.Sum(archive)} }

// image stores an image of plain layers and returns its digest.
func (s *memSource) image(t fataler, layers ...layer) blob.Digest {
	t.Helper()
	return s.imageWith(t, map[string]any{}, layers...)
}

// imageWith overrides members of the configuration.
func (s *memSource) imageWith(t fataler, config map[string]any, layers ...layer) blob.Digest {
	t.Helper()
	var ds []manifest.Descriptor
	diffIDs := []blob.Digest{}
	for _, l := range layers {
		ds = append(ds, s.blob(l.mediaType, l.packed))
		diffIDs = append(diffIDs, l.diffID)
	}
	all := map[string]any{"os": "linux", "architecture": runtime.GOARCH, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}
	for k, v := range config {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return s.manifest(t, manifest.OCIImage, map[string]any{"config": s.blob(manifest.OCIConfig, b), "layers": ds})
}

// entry is one entry of an archive.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), Uid: 1, Gid: 2, ModTime: time.Unix(1_600_000_000, 0)}, body}
}
func dir(name string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1_600_000_000, 0)}}
}
func symlink(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}}
}
func hardlink(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}}
}
func special(name string, typ byte) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: typ, Mode: 0o666, Devmajor: 1, Devminor: 3}}
}

func (e entry) mode(m int64) entry { e.Mode = m; return e }

func archive(t fataler, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func tarred(t fataler, entries ...entry) layer { return plain(archive(t, entries...)) }

func gz(t fataler, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zst(t fataler, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func open(t testing.TB, cfg rootfs.Config) *rootfs.Cache {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "images")
	}
	c, err := rootfs.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantRule(t *testing.T, err error, rule string) {
	t.Helper()
	if err == nil {
		t.Fatalf("unpacked, want %s", rule)
	}
	if e := kernel.AsError(err); e.Kind != kernel.Unprocessable || e.Rule != rule || e.Code != rootfs.CodeUnusable {
		t.Fatalf("got %v %q (%v), want %q", e.Kind, e.Rule, err, rule)
	}
}

// tree lists a root file system: path → content, "dir", or "→ target". Mount points are left out.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		rel, rerr := filepath.Rel(root, p)
		if err != nil || rerr != nil {
			return fmt.Errorf("%w %w", err, rerr)
		}
		switch {
		case rel == "." || rel == "dev" || rel == "proc" || rel == "sys" || rel == "tmp":
			return nil
		case d.IsDir():
			got[rel] = "dir"
			return nil
		case d.Type() == os.ModeSymlink:
			target, err := os.Readlink(p)
			got[rel] = "→ " + target
			return err
		}
		b, err := os.ReadFile(p)
		got[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
