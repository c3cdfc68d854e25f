package rootfs_test

import (
	"archive/tar"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/kernel"
)

func TestHostileLayers(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, tc := range []struct {
		name    string
		entries []entry
		rule    string
	}{
		{"dot-dot", []entry{file("../escape", "x")}, rootfs.RulePath},
		{"dot-dot inside", []entry{dir("a"), file("a/../../escape", "x")}, rootfs.RulePath},
		{"absolute dot-dot", []entry{file("/../escape", "x")}, rootfs.RulePath},
		{"dot-dot in a hard link", []entry{hardlink("a", "../../etc/passwd")}, rootfs.RulePath},
		{"hard link to the host by its absolute path", []entry{hardlink("a", "/etc/passwd")}, rootfs.RuleLink},
		{"hard link through a symbolic link out", []entry{symlink("etc", "/etc"), hardlink("a", "etc/passwd")}, rootfs.RuleLink},
		{"hard link to a directory", []entry{dir("d"), hardlink("a", "d")}, rootfs.RuleLink},
		{"hard link to itself", []entry{hardlink("a", "a")}, rootfs.RuleLink},
		{"hard link to what comes later", []entry{hardlink("a", "b"), file("b", "x")}, rootfs.RuleLink},
		{"hard link over the directory of its target", []entry{file("a/b", "x"), hardlink("a", "a/b")}, rootfs.RuleDuplicate},
		{"symbolic link to nothing", []entry{symlink("a", "")}, rootfs.RuleLink},
		{"symbolic links in a circle", []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}, rootfs.RuleLink},
		{"a file as a directory", []entry{file("a", "x"), file("a/b", "x")}, rootfs.RulePath},
		{"character device", []entry{special("dev/null", tar.TypeChar)}, rootfs.RuleSpecial},
		{"block device", []entry{special("sda", tar.TypeBlock)}, rootfs.RuleSpecial},
		{"FIFO", []entry{special("pipe", tar.TypeFifo)}, rootfs.RuleSpecial},
		{"a file twice", []entry{file("a", "1"), file("a", "2")}, rootfs.RuleDuplicate},
		{"a file twice by another spelling", []entry{file("d/a", "1"), file("./d//a", "2")}, rootfs.RuleDuplicate},
		{"a file twice through a link", []entry{file("d/a", "1"), symlink("l", "d"), file("l/a", "2")}, rootfs.RuleDuplicate},
		{"a link over a file", []entry{file("a", "1"), symlink("a", "b")}, rootfs.RuleDuplicate},
		{"a file over a directory with content", []entry{file("a/b", "1"), file("a", "2")}, rootfs.RuleDuplicate},
		{"a whiteout twice", []entry{file(".wh.a", ""), file(".wh.a", "")}, rootfs.RuleDuplicate},
		{"whiteout of nothing named", []entry{file(".wh.", "")}, rootfs.RulePath},
		{"whiteout of dot-dot", []entry{file("a/.wh...", "")}, rootfs.RulePath},
		{"whiteout that is a directory", []entry{dir(".wh.a")}, rootfs.RulePath},
		{"a file below a whiteout", []entry{file(".wh.a/b", "x")}, rootfs.RulePath},
		{"the root as a link", []entry{symlink("./", "/etc")}, rootfs.RulePath},
		{"the root as a file", []entry{file("./.", "x")}, rootfs.RulePath},
		{"a name too long", []entry{file(long, "x")}, rootfs.RulePath},
		{"a path too long", []entry{file(strings.Repeat("d/", 2050)+"x", "x")}, rootfs.RulePath},
		{"too deep", []entry{file(strings.Repeat("d/", 140)+"x", "x")}, rootfs.RuleLimit},
		{"user -1", []entry{{Header: tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: 1<<32 - 1, Format: tar.FormatPAX}}}, rootfs.RuleOwner},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "images")
			src := newSource()
			_, err := open(t, rootfs.Config{Dir: dir}).Get(t.Context(), src, src.image(t, tarred(t, tc.entries...)))
			wantRule(t, err, tc.rule)
			if !strings.HasPrefix(kernel.AsError(err).Msg, "layer 0: ") {
				t.Errorf("does not say which layer: %v", err)
			}
			nothingLeft(t, dir)
		})
	}
}

// nothingLeft checks that neither an image nor a workspace is in the cache, nor anything beside it.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	for sub, want := range map[string]int{"..": 1, "tmp": 0, "images/sha256": 0, "images/sha512": 0} {
		es, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		if len(es) != want {
			t.Errorf("%s holds %v", sub, es)
		}
	}
}

// An absolute link planted by one layer and written through by the next stays inside the tree.
func TestWriteThroughAbsoluteLink(t *testing.T) {
	victim := t.TempDir()
	src := newSource()
	d := src.image(t, tarred(t, symlink("plant", victim), symlink("up", strings.Repeat("../", 30)+victim[1:])), tarred(t, file("plant/owned", "x"), file("up/owned2", "x"), hardlink("plant/h", "plant/owned")))
	img, err := open(t, rootfs.Config{}).Get(t.Context(), src, d)
	if err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(victim); err != nil || len(es) > 0 {
		t.Fatalf("the host was written to: %v, %v", es, err)
	}
	for _, name := range []string{"owned", "owned2", "h"} {
		if _, err := os.Stat(filepath.Join(img.Rootfs, victim, name)); err != nil {
			t.Errorf("%s is not where a container would find it: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	many := []entry{}
	for i := range 50 {
		many = append(many, file(fmt.Sprint(i), ""))
	}
	zeros := archive(t, file("zeros", strings.Repeat("\x00", 40<<20)))
	bomb := layer{gzipLayer, gz(t, zeros), blob.SHA256.Sum(zeros)}
	zbomb := layer{zstdLayer, zst(t, zeros), blob.SHA256.Sum(zeros)}
	for _, tc := range []struct {
		name   string
		cfg    rootfs.Config
		layers []layer
		rule   string
	}{
		{"files", rootfs.Config{MaxFiles: 40}, []layer{tarred(t, many...)}, rootfs.RuleLimit},
		{"files of all layers", rootfs.Config{MaxFiles: 90}, []layer{tarred(t, many...), tarred(t, many...)}, rootfs.RuleLimit},
		{"implied directories", rootfs.Config{MaxFiles: 5}, []layer{tarred(t, file("a/b/c/d/e/f", ""))}, rootfs.RuleLimit},
		{"bytes", rootfs.Config{MaxBytes: 10000}, []layer{tarred(t, file("a", strings.Repeat("x", 10001)))}, rootfs.RuleLimit},
		{"bytes of all layers", rootfs.Config{MaxBytes: 20000}, []layer{tarred(t, file("a", strings.Repeat("x", 9000))), tarred(t, file("a", strings.Repeat("y", 9000)))}, rootfs.RuleLimit},
		{"depth", rootfs.Config{MaxDepth: 3}, []layer{tarred(t, file("a/b/c/d/e", ""))}, rootfs.RuleLimit},
		{"layers", rootfs.Config{MaxLayers: 1}, []layer{tarred(t), tarred(t)}, rootfs.RuleLimit},
		{"gzip bomb", rootfs.Config{}, []layer{bomb}, rootfs.RuleBomb},
		{"zstd bomb", rootfs.Config{}, []layer{zbomb}, rootfs.RuleBomb},
		{"bomb behind the end of the archive", rootfs.Config{}, []layer{{gzipLayer, gz(t, append(archive(t), zeros...)), blob.SHA256.Sum(append(archive(t), zeros...))}}, rootfs.RuleCorrupt},
		{"sparse bomb", rootfs.Config{MaxBytes: 1 << 30}, []layer{plain(sparse(t, 1<<35))}, rootfs.RuleBomb},
		{"sparse file", rootfs.Config{MaxBytes: 1 << 20}, []layer{plain(sparse(t, 30<<20))}, rootfs.RuleLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Dir = filepath.Join(t.TempDir(), "images")
			src := newSource()
			_, err := open(t, tc.cfg).Get(t.Context(), src, src.image(t, tc.layers...))
			wantRule(t, err, tc.rule)
			nothingLeft(t, tc.cfg.Dir)
		})
	}
	src := newSource()
	if _, err := open(t, rootfs.Config{MaxRatio: 2000}).Get(t.Context(), src, src.image(t, bomb)); err != nil {
		t.Errorf("within the limits: %v", err)
	}
}

// sparse is an archive with one file of GNU's old sparse format: size bytes, all of them a hole.
func sparse(t *testing.T, size int64) []byte {
	t.Helper()
	h := make([]byte, 512)
	copy(h, "hole")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	copy(h[257:], "ustar  \x00")
	h[156] = 'S'
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", size, 0)) // one fragment, empty, at the end
	copy(h[483:], fmt.Sprintf("%011o\x00", size))
	if size >= 1<<33 { // base 256
		for _, at := range []int{386, 483} {
			copy(h[at:], make([]byte, 12))
			h[at] = 0x80
			for i := range 8 {
				h[at+11-i] = byte(size >> (8 * i))
			}
		}
	}
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, make([]byte, 1024)...)
}

func TestContentThatIsNotWhatItsDigestSays(t *testing.T) {
	good := archive(t, file("a", strings.Repeat("content ", 1000)))
	packed := gz(t, good)
	id := blob.SHA256.Sum(good)
	for _, tc := range []struct {
		name string
		l    layer
		rule string
	}{
		{"wrong diff_id", layer{gzipLayer, packed, blob.SHA256.Sum([]byte("else"))}, rootfs.RuleDigest},
		{"truncated gzip", layer{gzipLayer, packed[:len(packed)/2], id}, rootfs.RuleCorrupt},
		{"gzip without its trailer", layer{gzipLayer, packed[:len(packed)-8], id}, rootfs.RuleCorrupt},
		{"truncated zstd", layer{zstdLayer, zst(t, good)[:20], id}, rootfs.RuleCorrupt},
		{"truncated archive", plain(good[:1000]), rootfs.RuleCorrupt},
		{"not gzip", layer{gzipLayer, good, id}, rootfs.RuleCorrupt},
		{"not zstd", layer{zstdLayer, good, id}, rootfs.RuleCorrupt},
		{"not an archive", plain([]byte(strings.Repeat("hello ", 200))), rootfs.RuleCorrupt},
		{"garbage behind the gzip", layer{gzipLayer, append(slices.Clone(packed), "garbage"...), id}, rootfs.RuleCorrupt},
		{"garbage behind the archive", plain(append(slices.Clone(good), "garbage"...)), rootfs.RuleCorrupt},
		{"a second archive behind the first", plain(append(slices.Clone(good), good...)), rootfs.RuleCorrupt},
		{"unknown media type", layer{"application/vnd.example.layer", good, id}, rootfs.RuleMediaType},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "images")
			src := newSource()
			_, err := open(t, rootfs.Config{Dir: dir}).Get(t.Context(), src, src.image(t, tc.l))
			wantRule(t, err, tc.rule)
			nothingLeft(t, dir)
		})
	}
}

// A Source that gives other bytes than were asked for is found out everywhere.
func TestSourceIsNotTrusted(t *testing.T) {
	src := newSource()
	d := src.image(t, tarred(t, file("a", "good")))
	evil := archive(t, file("a", "evil"))
	for digest, b := range src.blobs {
		swapped := newSource()
		maps.Copy(swapped.manifests, src.manifests)
		maps.Copy(swapped.blobs, src.blobs)
		want := rootfs.RuleDigest
		if b[0] == '{' {
			want, swapped.blobs[digest] = rootfs.RuleConfig, []byte(strings.Replace(string(b), "linux", "linuX", 1))
		} else {
			swapped.blobs[digest] = evil
		}
		_, err := open(t, rootfs.Config{}).Get(t.Context(), swapped, d)
		wantRule(t, err, want)
		swapped.blobs[digest] = append(slices.Clone(b), 0)
		_, err = open(t, rootfs.Config{}).Get(t.Context(), swapped, d)
		wantRule(t, err, want)
	}
	m := src.manifests[d]
	m.b = append(slices.Clone(m.b), ' ')
	src.manifests[d] = m
	_, err := open(t, rootfs.Config{}).Get(t.Context(), src, d)
	wantRule(t, err, rootfs.RuleManifest)
}
