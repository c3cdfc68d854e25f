package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

// oneBlob is a Source of one layer.
type oneBlob []byte

func (b oneBlob) Manifest(context.Context, blob.Digest) (string, []byte, error) {
	return "", nil, &kernel.Error{Kind: kernel.NotFound}
}

func (b oneBlob) Blob(context.Context, blob.Digest) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b)), nil
}

// unpackInto applies layers to a tree in a directory of its own and checks that
// nothing beside it came to be and that every error is a classified one.
func unpackInto(t *testing.T, mediaType string, layers ...[]byte) {
	t.Helper()
	parent := t.TempDir()
	sentinel := filepath.Join(parent, "sentinel")
	if err := os.WriteFile(sentinel, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(parent, "root")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tr := newTree(root, &budget{cfg: &Config{MaxBytes: 1 << 20, MaxFiles: 200, MaxDepth: 16, MaxRatio: 50}})
	for _, b := range layers {
		d := manifest.Descriptor{MediaType: mediaType, Digest: blob.SHA256.Sum(b), Size: int64(len(b))}
		if err = tr.applyLayer(t.Context(), oneBlob(b), d, blob.SHA256.Sum(b)); err != nil {
			break
		}
	}
	if err == nil {
		err = tr.finish()
	}
	if err != nil {
		if e := kernel.AsError(err); e.Kind != kernel.Unprocessable || e.Rule == "" {
			t.Errorf("an unclassified error: %v", err)
		}
	}
	es, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(sentinel)
	if err != nil || len(es) != 2 || string(content) != "untouched" {
		t.Errorf("outside the tree: %v, %q, %v", es, content, err)
	}
	noSpecialFiles(t, at)
}

func noSpecialFiles(t *testing.T, at string) {
	t.Helper()
	err := filepath.WalkDir(at, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice|os.ModeNamedPipe|os.ModeSocket) != 0 {
			t.Errorf("%s is %v", p, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzEntries makes archives from names and links that matter, two layers of them:
// three bytes are one entry, its kind, its name and its target.
func FuzzEntries(f *testing.F) {
	f.Add([]byte{2, 0, 9, 0, 1, 0}, []byte{0, 12, 0})
	f.Add([]byte{1, 1, 0, 2, 2, 8}, []byte{0, 13, 0, 3, 3, 14, 0, 5, 0})
	f.Add([]byte{5, 1, 0, 6, 2, 0}, []byte{4, 3, 0})
	names := []string{"a", "b", "a/b", "a/b/c", "b/a", ".wh.a", "a/.wh..wh..opq", "b/.wh.a", "..", "/", "../sentinel", "/a", "a/x", "b/x", "b/../x", ".", "./a//b", "../../sentinel", "a/b/.wh.c", ".wh.."}
	kinds := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeReg, tar.TypeChar, tar.TypeFifo, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeGNUSparse, 'x'}
	build := func(spec []byte) []byte {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i := 0; i+2 < len(spec) && i < 120; i += 3 {
			h := &tar.Header{Typeflag: kinds[int(spec[i])%len(kinds)], Name: names[int(spec[i+1])%len(names)], Mode: 0o6777}
			if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
				h.Linkname = names[int(spec[i+2])%len(names)]
			}
			if h.Typeflag == tar.TypeReg {
				h.Size = int64(spec[i+2])
			}
			if w.WriteHeader(h) != nil {
				continue // nothing a writer would make
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return buf.Bytes()
	}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		unpackInto(t, "application/vnd.oci.image.layer.v1.tar", build(lower), build(upper))
	})
}

// FuzzLayer gives bytes as they are to every decoder.
func FuzzLayer(f *testing.F) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg}); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), buf.Bytes())
	f.Add(uint8(1), []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"))
	f.Add(uint8(2), []byte("\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00"))
	types := []string{"", "+gzip", "+zstd"}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		unpackInto(t, "application/vnd.oci.image.layer.v1.tar"+types[int(kind)%len(types)], b)
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=b"],"WorkingDir":"/x"},"rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Add([]byte(`{"config":null,"rootfs":{"type":"layers"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ids, err := parseConfig(b, "amd64")
		if err != nil {
			if e := kernel.AsError(err); e.Kind != kernel.Unprocessable || e.Rule == "" {
				t.Errorf("an unclassified error: %v", err)
			}
			return
		}
		if c.WorkingDir != "" && (c.WorkingDir[0] != '/' || filepath.Clean(c.WorkingDir) != c.WorkingDir) {
			t.Errorf("working directory %q", c.WorkingDir)
		}
		for _, d := range ids {
			if d.IsZero() {
				t.Error("a diff_id is missing")
			}
		}
	})
}
