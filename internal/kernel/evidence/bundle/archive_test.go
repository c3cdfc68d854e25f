package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
)

// archives writes a small export in both formats.
func archives(t testing.TB) (l *testLog, byFormat map[string][]byte) {
	l = newTestLog(t)
	l.addN(1)
	byFormat = map[string][]byte{}
	for _, format := range []string{"tar.gz", "zip"} {
		path := filepath.Join(t.TempDir(), "bundle")
		l.writeArchive(l.params(Baseline), l.source(), path, format)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		byFormat[format] = b
	}
	return l, byFormat
}

// verifyBytes verifies an archive; errors count as refused.
func verifyBytes(t testing.TB, path string, b []byte, opts Options) (*Report, error) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(context.Background(), path, opts)
	if err != nil && kernel.KindOf(err) == kernel.Internal {
		t.Fatalf("an archive's fault became our error: %v", err)
	}
	return r, err
}

// The seal finds what the file list cannot: bytes that belong to no file.
func TestEveryByteOfArchives(t *testing.T) {
	_, byFormat := archives(t)
	for format, good := range byFormat {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bundle")
			if r, err := verifyBytes(t, path, good, Options{}); err != nil || !r.OK || r.Format != format {
				t.Fatal(r, err)
			}
			t.Parallel()
			masks := []byte{0x01, 0x80, 0x54, 0xff} // 0x54 turns the length of zip's comment into 0
			step := 1
			if testing.Short() {
				step = 11
			}
			bad := bytes.Clone(good)
			for i := 0; i < len(bad); i += step {
				mask := masks[i%len(masks)]
				bad[i] ^= mask
				if r, err := verifyBytes(t, path, bad, Options{}); err == nil && r.OK {
					t.Errorf("byte %d of %d flipped by %#x passed", i, len(bad), mask)
				}
				bad[i] ^= mask
			}
		})
	}
}

func TestTruncatedArchives(t *testing.T) {
	_, byFormat := archives(t)
	for format, good := range byFormat {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "bundle")
			for n := range good {
				if n%11 != 0 && n < len(good)-2*gzipSealSize {
					continue
				}
				r, err := verifyBytes(t, path, good[:n], Options{})
				if format == "tar.gz" && n == len(good)-gzipSealSize {
					if err != nil || !r.OK {
						t.Errorf("without its seal: %v, %v", r.First, err)
					}
				} else if err == nil && r.OK {
					t.Errorf("%d of %d bytes passed", n, len(good))
				}
			}
			for _, more := range []string{"\x00", "x", string(good)} {
				if r, err := verifyBytes(t, path, append(bytes.Clone(good), more...), Options{}); err == nil && r.OK {
					t.Errorf("%d bytes behind the end passed", len(more))
				}
			}
		})
	}
}

// Equal exports are equal bytes.
func TestDeterministicArchives(t *testing.T) {
	l := newTestLog(t)
	l.addN(5)
	for _, format := range []string{"tar.gz", "zip"} {
		var first []byte
		for range 2 {
			path := filepath.Join(t.TempDir(), "bundle")
			l.writeArchive(l.params(Baseline), l.source(), path, format)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if first != nil && !bytes.Equal(b, first) {
				t.Errorf("%s differs between two exports", format)
			}
			first = b
		}
	}
}

// repack writes files as another tool might.
func repack(t testing.TB, f files, format, prefix string) []byte {
	t.Helper()
	var out bytes.Buffer
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if format == "zip" {
		w := zip.NewWriter(&out)
		for _, name := range f.names() {
			e, err := w.Create(prefix + name)
			check(err)
			_, err = e.Write(f[name])
			check(err)
		}
		check(w.Close())
		return out.Bytes()
	}
	var to io.Writer = &out
	gz := gzip.NewWriter(&out)
	if format == "tar.gz" {
		to = gz
	}
	w := tar.NewWriter(to)
	if prefix != "" {
		check(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: prefix, Mode: 0o755}))
	}
	for _, name := range f.names() {
		check(w.WriteHeader(&tar.Header{Name: prefix + name, Mode: 0o600, Size: int64(len(f[name])), Uname: "someone"}))
		_, err := w.Write(f[name])
		check(err)
	}
	check(w.Close())
	if format == "tar.gz" {
		check(gz.Close())
	}
	return out.Bytes()
}

// Packing again with other tools, in a folder or not, changes no evidence.
func TestRepackedArchives(t *testing.T) {
	l := newTestLog(t)
	l.addN(3)
	good := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	path := filepath.Join(t.TempDir(), "bundle")
	for _, format := range []string{"tar.gz", "tar", "zip"} {
		for _, prefix := range []string{"", "./", "export-1/"} {
			if r, err := verifyBytes(t, path, repack(t, good, format, prefix), Options{Keys: []string{l.key}}); err != nil || !r.OK || r.Format != format || r.Foreign {
				t.Errorf("%s with prefix %q: %+v, %v", format, prefix, r, err)
			}
		}
		bad := good.clone()
		bad[claimName][20] ^= 1
		if r, err := verifyBytes(t, path, repack(t, bad, format, "x/"), Options{}); err != nil || r.OK || r.First.File != claimName {
			t.Errorf("%s: a changed file in a new archive: %+v, %v", format, r, err)
		}
	}
}

// tarOf packs single entries, for what no sane tool writes.
func tarOf(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for _, h := range hs {
		h.Size = 0
		if h.Typeflag == tar.TypeReg {
			h.Size = 2
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileTars(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle")
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	many := make([]tar.Header, 20)
	for i := range many {
		many[i] = reg(fmt.Sprintf("artifacts/%d", i))
	}
	for name, c := range map[string]struct {
		entries []tar.Header
		want    string
	}{
		"climbs out":        {[]tar.Header{reg("../manifest.json")}, "clean relative path"},
		"climbs inside":     {[]tar.Header{reg("artifacts/../../x")}, "clean relative path"},
		"absolute":          {[]tar.Header{reg("/etc/passwd")}, "clean relative path"},
		"dot":               {[]tar.Header{reg(".")}, "clean relative path"},
		"double slash":      {[]tar.Header{reg("artifacts//x")}, "clean relative path"},
		"backslash":         {[]tar.Header{reg(`artifacts\x`)}, "backslash"},
		"drive":             {[]tar.Header{reg("c:x")}, "colon"},
		"control character": {[]tar.Header{reg("artifacts/a\nb")}, "control character"},
		"not UTF-8":         {[]tar.Header{reg("artifacts/\xff")}, "UTF-8"},
		"long name":         {[]tar.Header{reg("artifacts/" + strings.Repeat("a", maxName))}, "bytes, at most"},
		"twice":             {[]tar.Header{reg("manifest.json"), reg("manifest.json")}, "occurs twice"},
		"artifact twice":    {[]tar.Header{reg(sumOf([]byte("{}")).path()), reg(sumOf([]byte("{}")).path())}, "occurs twice"},
		"outside folder":    {[]tar.Header{reg("a/manifest.json"), reg("events.jsonl")}, "outside the bundle's folder"},
		"symlink":           {[]tar.Header{{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "/etc/passwd"}}, "entry of type"},
		"hard link":         {[]tar.Header{reg("a"), {Typeflag: tar.TypeLink, Name: "manifest.json", Linkname: "a"}}, "entry of type"},
		"device":            {[]tar.Header{{Typeflag: tar.TypeChar, Name: "manifest.json"}}, "entry of type"},
		"fifo":              {[]tar.Header{{Typeflag: tar.TypeFifo, Name: "manifest.json"}}, "entry of type"},
		"many files":        {many, "more than 10 files"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := verifyBytes(t, path, tarOf(t, c.entries...), Options{Limits: Limits{Files: 10}})
			if err != nil || r.OK || r.First.Step != stepArchive || !strings.Contains(r.First.Reason, c.want) {
				t.Fatalf("%+v, %v; want %q", r.First, err, c.want)
			}
			for _, s := range r.Steps[1:] {
				if s.Status != Skipped {
					t.Errorf("step %d is %s, want skipped", s.Number, s.Status)
				}
			}
		})
	}
}

// A few kilobytes must not unpack to more than the limits allow.
func TestBombs(t *testing.T) {
	zeros := files{manifestName: make([]byte, 4<<20), eventsName: make([]byte, 4<<20), "artifacts/x": make([]byte, 4<<20)}
	path := filepath.Join(t.TempDir(), "bundle")
	for _, format := range []string{"tar.gz", "zip"} {
		b := repack(t, zeros, format, "")
		for _, limits := range []Limits{{FileBytes: 1 << 20}, {TotalBytes: 6 << 20}} {
			r, err := verifyBytes(t, path, b, Options{Limits: limits})
			if err != nil || r.OK || r.First.Step != stepArchive || !strings.Contains(r.First.Reason, "bytes") {
				t.Errorf("%s of %d bytes under %+v: %+v, %v", format, len(b), limits, r.First, err)
			}
			if r.Bytes > 7<<20 {
				t.Errorf("%s: %d bytes were read under %+v", format, r.Bytes, limits)
			}
		}
	}
	// A zip may lie about sizes; what comes out counts.
	b := repack(t, files{"artifacts/x": make([]byte, 4<<20)}, "zip", "")
	i := bytes.LastIndex(b, []byte("PK\x01\x02"))
	copy(b[i+24:], []byte{1, 0, 0, 0})
	if r, err := verifyBytes(t, path, b, Options{Limits: Limits{FileBytes: 1 << 20}}); err != nil || r.OK || r.First.Step != stepArchive {
		t.Errorf("a lying zip: %+v, %v", r, err)
	}
}

func TestHostileZips(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle")
	for name, want := range map[string]string{
		"../manifest.json": "clean relative path", "/abs": "clean relative path", `a\b`: "backslash", "artifacts/\xff\xfe": "UTF-8",
	} {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		if _, err := w.CreateHeader(&zip.FileHeader{Name: name, NonUTF8: true}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := verifyBytes(t, path, out.Bytes(), Options{}); err != nil || r.OK || !strings.Contains(r.First.Reason, want) {
			t.Errorf("%q: %+v, %v", name, r, err)
		}
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	link := &zip.FileHeader{Name: manifestName}
	link.SetMode(os.ModeSymlink | 0o777)
	if _, err := w.CreateHeader(link); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := verifyBytes(t, path, out.Bytes(), Options{}); err != nil || r.OK || !strings.Contains(r.First.Reason, "not a regular file") {
		t.Errorf("symlink: %+v, %v", r, err)
	}
}

func TestDirectoriesWithLinks(t *testing.T) {
	l := newTestLog(t)
	l.addN(1)
	dir := l.writeDir(l.params(Baseline), l.source())
	outside := filepath.Join(t.TempDir(), "claim")
	if err := os.Rename(filepath.Join(dir, claimName), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, claimName)); err != nil {
		t.Fatal(err)
	}
	if f := verifyBad(t, dir, Options{}); f.File != claimName || !strings.Contains(f.Reason, "not a regular file") {
		t.Errorf("first fault %v", f)
	}
}

func TestNotABundle(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "x")
	if _, err := Verify(ctx, path, Options{}); kernel.KindOf(err) != kernel.NotFound {
		t.Errorf("missing: %v", err)
	}
	for _, content := range []string{"", "hello", strings.Repeat("x", 1000)} {
		if _, err := verifyBytes(t, path, []byte(content), Options{}); kernel.KindOf(err) != kernel.Invalid {
			t.Errorf("%.10q: %v", content, err)
		}
	}
	if _, err := Verify(ctx, t.TempDir(), Options{Keys: []string{"nonsense"}}); kernel.KindOf(err) != kernel.Invalid {
		t.Errorf("bad key: %v", err)
	}
	r := files{}.verify(t, Options{})
	if r.OK || r.First.Step != stepStructure || r.Steps[stepStructure].Faults != 5 {
		t.Errorf("an empty folder: %v, %+v", r.First, r.Steps[stepStructure])
	}
}

// More files than 16 bits count, and an offset table that zip64 must carry.
func TestLargeZip(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: 70,000 files in -short")
	}
	var out bytes.Buffer
	sink, err := NewZip(&out, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const n = 70_000
	for i := range n {
		if err := sink.WriteFile(fmt.Sprintf("artifacts/%d", i), 1, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil || len(r.File) != n {
		t.Fatalf("%v", err)
	}
	f, err := r.File[n-1].Open()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "x" || r.File[n-1].Mode() != fileMode || !r.File[n-1].Modified.Equal(epoch) {
		t.Errorf("last file %q, %v, mode %v, time %v", b, err, r.File[n-1].Mode(), r.File[n-1].Modified)
	}
}

// The window reads the same bytes as the file, and no more than it may.
func TestWindow(t *testing.T) {
	file := make([]byte, 3*windowSize+17)
	for i := range file {
		file[i] = byte(i * 7 >> 3)
	}
	w := &window{r: bytes.NewReader(file), budget: math.MaxInt64}
	for _, c := range []struct{ off, n int }{{0, 10}, {5, 100}, {windowSize - 3, 6}, {2, 1}, {0, windowSize + 1}, {len(file) - 4, 4}, {len(file) - 2, 5}, {len(file), 1}} {
		p := make([]byte, c.n)
		n, err := w.ReadAt(p, int64(c.off))
		want := file[c.off:min(c.off+c.n, len(file))]
		if !bytes.Equal(p[:n], want) || (n < c.n) != errors.Is(err, io.EOF) {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	w.budget = 10
	if _, err := w.ReadAt(make([]byte, 8), 0); err != nil {
		t.Error(err)
	}
	if _, err := w.ReadAt(make([]byte, 8), 0); !errors.Is(err, errZipDirectory) {
		t.Errorf("beyond the budget: %v", err)
	}
}
