package rootfs_test

import (
	"archive/tar"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/kernel"
)

func TestLayersAreApplied(t *testing.T) {
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   map[string]string
	}{
		{"files and directories", [][]entry{{dir("./"), dir("etc/"), file("./etc/app", "1"), file("/abs/implied", "2")}},
			map[string]string{"etc": "dir", "etc/app": "1", "abs": "dir", "abs/implied": "2"}},
		{"a later layer replaces", [][]entry{{file("a", "old"), dir("d"), file("d/x", "x")}, {file("a", "new"), file("d", "now a file")}},
			map[string]string{"a": "new", "d": "now a file"}},
		{"a directory over a file", [][]entry{{file("a", "old")}, {dir("a"), file("a/b", "b")}}, map[string]string{"a": "dir", "a/b": "b"}},
		{"a directory over a directory keeps what is in it", [][]entry{{file("a/b", "b")}, {dir("a")}}, map[string]string{"a": "dir", "a/b": "b"}},
		{"whiteouts", [][]entry{{file("file1", "1"), file("a/file2", "2"), dir("b"), file("c/file3", "3")}, {file(".wh.file1", ""), file("a/.wh.file2", ""), file(".wh.b", ""), file("file4", "4")}},
			map[string]string{"a": "dir", "c": "dir", "c/file3": "3", "file4": "4"}},
		{"whiteout of nothing", [][]entry{{file("x/.wh.y", ""), file(".wh.z", ""), file("n/.wh..wh..opq", "")}}, map[string]string{}},
		{"a whiteout hides lower layers alone", [][]entry{{file("a/low", "l"), file("b", "low")}, {file("a/own", "o"), file(".wh.a", ""), file("b", "own"), file(".wh.b", "")}},
			map[string]string{"a": "dir", "a/own": "o", "b": "own"}},
		{"opaque first", [][]entry{{file("a/b/c/bar", "bar")}, {dir("a"), file("a/.wh..wh..opq", ""), file("a/b/c/foo", "foo")}},
			map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "dir", "a/b/c/foo": "foo"}},
		{"opaque last", [][]entry{{file("a/b/c/bar", "bar"), file("a/x", "x")}, {dir("a"), file("a/b/c/foo", "foo"), file("a/.wh..wh..opq", "")}},
			map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "dir", "a/b/c/foo": "foo"}},
		{"opaque root", [][]entry{{file("a", "a"), file("b/c", "c")}, {file(".wh..wh..opq", ""), file("d", "d")}}, map[string]string{"d": "d"}},
		{"links", [][]entry{{file("a/f", "content"), hardlink("hard", "a/f"), symlink("soft", "a/f"), symlink("out", "/etc/passwd"), hardlink("again", "./hard")}},
			map[string]string{"a": "dir", "a/f": "content", "hard": "content", "soft": "→ a/f", "out": "→ /etc/passwd", "again": "content"}},
		{"a hard link into a lower layer", [][]entry{{file("a", "1")}, {hardlink("b", "a")}}, map[string]string{"a": "1", "b": "1"}},
		{"a hard link replaces, it does not write through", [][]entry{{file("a", "1"), hardlink("b", "a")}, {file("b", "2")}}, map[string]string{"a": "1", "b": "2"}},
		{"parents that are links are followed inside", [][]entry{{dir("usr/bin"), symlink("bin", "usr/bin"), symlink("run", "/var/run"), symlink("up", "../../../usr")}, {file("bin/sh", "sh"), file("run/pid", "1"), file("up/x", "x"), file("bin/.wh.none", "")}},
			map[string]string{"usr": "dir", "usr/bin": "dir", "usr/bin/sh": "sh", "usr/x": "x", "bin": "→ usr/bin", "run": "→ /var/run", "up": "→ ../../../usr", "var": "dir", "var/run": "dir", "var/run/pid": "1"}},
		{"a whiteout through a link", [][]entry{{file("usr/bin/sh", "sh"), symlink("bin", "usr/bin")}, {file("bin/.wh.sh", "")}},
			map[string]string{"usr": "dir", "usr/bin": "dir", "bin": "→ usr/bin"}},
		{"a directory replaces a link", [][]entry{{file("usr/bin/sh", "sh"), symlink("bin", "usr/bin")}, {dir("bin"), file("bin/own", "o")}},
			map[string]string{"usr": "dir", "usr/bin": "dir", "usr/bin/sh": "sh", "bin": "dir", "bin/own": "o"}},
		{"a directory twice", [][]entry{{dir("a"), file("a/b", "b"), dir("a")}}, map[string]string{"a": "dir", "a/b": "b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := newSource()
			var layers []layer
			for i, es := range tc.layers {
				l := tarred(t, es...)
				switch i % 3 { // every compression takes part
				case 1:
					l.mediaType, l.packed = gzipLayer, gz(t, l.packed)
				case 2:
					l.mediaType, l.packed = zstdLayer, zst(t, l.packed)
				}
				layers = append(layers, l)
			}
			img, err := open(t, rootfs.Config{}).Get(t.Context(), src, src.image(t, layers...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, tree(t, img.Rootfs)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What an image may hold is compared with a model of the specification: a map, with no file system in it.
func TestRandomLayersAgreeWithTheModel(t *testing.T) {
	c := open(t, rootfs.Config{})
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 1))
		src := newSource()
		want := map[string]string{}
		var layers []layer
		for range 1 + rng.IntN(4) {
			es := randomLayer(rng)
			applyToModel(want, es)
			layers = append(layers, tarred(t, es...))
		}
		img, err := c.Get(t.Context(), src, src.image(t, layers...))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := cmp.Diff(want, tree(t, img.Rootfs)); diff != "" {
			t.Fatalf("seed %d (-want +got)\n%s", seed, diff)
		}
	}
}

// randomLayer makes a layer without contradictions within itself: directories before
// what is in them, whiteouts before or after what they stand beside.
func randomLayer(rng *rand.Rand) []entry {
	files, byName := map[string]bool{}, map[string]entry{}
	for range rng.IntN(12) {
		p := string(rune('a' + rng.IntN(3)))
		for rng.IntN(2) == 0 && len(p) < 7 {
			p += "/" + string(rune('a'+rng.IntN(3)))
		}
		above := []string{}
		for q := path.Dir(p); q != "."; q = path.Dir(q) {
			above = append(above, q)
		}
		if slices.ContainsFunc(above, func(q string) bool { return files[q] }) {
			continue
		}
		for _, q := range above {
			byName[q] = dir(q)
		}
		_, taken := byName[p]
		d, b := path.Split(p)
		switch kind := rng.IntN(6); {
		case kind == 0:
			byName[d+".wh."+b] = file(d+".wh."+b, "")
		case kind == 1:
			byName[d+".wh..wh..opq"] = file(d+".wh..wh..opq", "")
		case kind == 2 && !taken:
			byName[p] = dir(p)
		case !taken:
			files[p], byName[p] = true, file(p, fmt.Sprint(rng.Int()))
		}
	}
	es := slices.SortedFunc(maps.Values(byName), func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	rng.Shuffle(len(es), func(i, j int) { es[i], es[j] = es[j], es[i] })
	slices.SortStableFunc(es, func(a, b entry) int { return strings.Count(a.Name, "/") - strings.Count(b.Name, "/") })
	return es
}

// applyToModel applies a layer as the specification words it: first everything that is
// hidden goes from the lower layers, then the entries come.
func applyToModel(m map[string]string, es []entry) {
	drop := func(p string, itself bool) {
		maps.DeleteFunc(m, func(q, _ string) bool { return itself && q == p || strings.HasPrefix(q, p+"/") || p == "." && !itself })
	}
	for _, e := range es {
		d, b := path.Split(e.Name)
		d = path.Clean(d)
		if b == ".wh..wh..opq" {
			drop(d, false)
		} else if hidden, ok := strings.CutPrefix(b, ".wh."); ok {
			drop(path.Join(d, hidden), true)
		}
	}
	for _, e := range es {
		switch {
		case strings.HasPrefix(path.Base(e.Name), ".wh."):
		case e.Typeflag == tar.TypeDir:
			m[e.Name] = "dir"
		default:
			drop(e.Name, true)
			m[e.Name] = e.body
		}
	}
}

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

func TestModesOwnersAndTimes(t *testing.T) {
	src := newSource()
	d := src.image(t, tarred(t,
		dir("./").mode(0o700), file("su", "x").mode(0o6755), file("private", "x").mode(0o600), dir("sgid").mode(0o2775),
		dir("sticky").mode(0o1777), dir("closed").mode(0o500), file("closed/x", "x").mode(0o444)))
	img, err := open(t, rootfs.Config{}).Get(t.Context(), src, d)
	if err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	for name, want := range map[string]os.FileMode{
		".": 0o755 | os.ModeDir, "su": 0o755, "private": 0o600, "sgid": 0o775 | os.ModeDir, "sticky": 0o777 | os.ModeDir | os.ModeSticky,
		"tmp": 0o777 | os.ModeDir | os.ModeSticky, "dev": 0o755 | os.ModeDir, "closed": 0o500 | os.ModeDir, "closed/x": 0o444,
	} {
		if !root && name == "closed" {
			want = 0o700 | os.ModeDir
		}
		if !root && name == "closed/x" {
			want = 0o644
		}
		fi, err := os.Lstat(filepath.Join(img.Rootfs, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
		if st := fi.Sys().(*syscall.Stat_t); root && name == "private" && (st.Uid != 1 || st.Gid != 2) {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
		if name != "." && name != "tmp" && name != "dev" && fi.ModTime().Unix() != 1_600_000_000 {
			t.Errorf("%s is from %v", name, fi.ModTime())
		}
	}
	if img.Files != 7 || img.Bytes != 3 {
		t.Errorf("%d files with %d bytes", img.Files, img.Bytes)
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

func TestPlatforms(t *testing.T) {
	src := newSource()
	mine := src.image(t, tarred(t, file("mine", "")))
	other := src.imageWith(t, map[string]any{"architecture": "s390x"}, tarred(t, file("other", "")))
	child := func(d blob.Digest, platform any) map[string]any {
		m := map[string]any{"mediaType": manifest.OCIImage, "digest": d, "size": len(src.manifests[d].b)}
		if platform != nil {
			m["platform"] = platform
		}
		return m
	}
	p := func(os, arch, variant string) map[string]any {
		return map[string]any{"os": os, "architecture": arch, "variant": variant}
	}
	index := func(ds ...map[string]any) blob.Digest {
		return src.manifest(t, manifest.OCIIndex, map[string]any{"manifests": ds})
	}
	nested := index(child(mine, p("linux", runtime.GOARCH, "")))
	nest := func(d blob.Digest) map[string]any {
		m := child(d, p("linux", runtime.GOARCH, ""))
		m["mediaType"] = manifest.OCIIndex
		return m
	}
	for _, tc := range []struct {
		name string
		d    blob.Digest
		rule string
	}{
		{"the right one of many", index(child(other, p("unknown", "unknown", "")), child(other, p("linux", "s390x", "")), child(other, p("windows", runtime.GOARCH, "")), child(mine, p("linux", runtime.GOARCH, "")), child(other, p("linux", runtime.GOARCH, ""))), ""},
		{"a single one without a platform", index(child(mine, nil)), ""},
		{"a nested index", index(nest(nested)), ""},
		{"nothing for us", index(child(other, p("linux", "s390x", ""))), rootfs.RulePlatform},
		{"an empty index", index(), rootfs.RulePlatform},
		{"several without a platform", index(child(mine, nil), child(other, nil)), rootfs.RulePlatform},
		{"another machine", other, rootfs.RulePlatform},
		{"another machine under our name", index(child(other, p("linux", runtime.GOARCH, ""))), rootfs.RulePlatform},
		{"nested too deep", index(nest(index(nest(nested)))), rootfs.RuleManifest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img, err := open(t, rootfs.Config{}).Get(t.Context(), src, tc.d)
			if tc.rule != "" {
				wantRule(t, err, tc.rule)
				return
			}
			if err != nil || img.Digest != mine {
				t.Errorf("got %+v, %v", img, err)
			}
		})
	}
	v3 := index(child(mine, p("linux", "amd64", "v3")))
	_, err := open(t, rootfs.Config{Architecture: "amd64"}).Get(t.Context(), src, v3)
	wantRule(t, err, rootfs.RulePlatform)
}

func TestConfig(t *testing.T) {
	src := newSource()
	full := map[string]any{"config": map[string]any{
		"User": "1000:1000", "Env": []string{"PATH=/bin", "EMPTY="}, "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"--serve"},
		"WorkingDir": "srv/../srv/app/", "ExposedPorts": map[string]any{"80/tcp": struct{}{}, "443/tcp": struct{}{}}, "Labels": map[string]string{"a": "b"}, "StopSignal": "SIGINT", "ArgsEscaped": true},
		"history": []any{}, "created": nil}
	c := open(t, rootfs.Config{})
	d := src.imageWith(t, full)
	want := rootfs.ImageConfig{User: "1000:1000", Env: []string{"PATH=/bin", "EMPTY="}, Entrypoint: []string{"/bin/app"}, Cmd: []string{"--serve"},
		WorkingDir: "/srv/app", ExposedPorts: []string{"443/tcp", "80/tcp"}, Labels: map[string]string{"a": "b"}, StopSignal: "SIGINT"}
	for _, when := range []string{"unpacked", "cached"} {
		img, err := c.Get(t.Context(), src, d)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, img.Config); diff != "" {
			t.Errorf("%s (-want +got)\n%s", when, diff)
		}
	}
	bare, err := c.Get(t.Context(), src, src.imageWith(t, map[string]any{"os": "", "architecture": "", "config": nil}))
	if err != nil || len(bare.Config.Env) > 0 {
		t.Errorf("a bare configuration: %+v, %v", bare, err)
	}
	for name, bad := range map[string]map[string]any{
		"no type":        {"rootfs": map[string]any{"diff_ids": []string{}}},
		"a diff_id more": {"rootfs": map[string]any{"type": "layers", "diff_ids": []blob.Digest{blob.SHA256.Sum(nil)}}},
		"a bad diff_id":  {"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"x"}}},
		"NUL":            {"config": map[string]any{"Cmd": []string{"a\x00b"}}},
		"environment":    {"config": map[string]any{"Env": []string{"NOVALUE"}}},
		"no name":        {"config": map[string]any{"Env": []string{"=x"}}},
		"types":          {"config": map[string]any{"Cmd": "sh -c"}},
	} {
		_, err := c.Get(t.Context(), src, src.imageWith(t, bad))
		wantRule(t, err, rootfs.RuleConfig)
		if strings.Contains(kernel.AsError(err).Msg, "rootfs.") && name == "types" {
			t.Errorf("names our types: %v", err)
		}
	}
	artifact := src.manifest(t, manifest.OCIImage, map[string]any{"config": src.blob("application/vnd.oci.empty.v1+json", []byte("{}")), "layers": []any{}})
	_, err = c.Get(t.Context(), src, artifact)
	wantRule(t, err, rootfs.RuleManifest)
	_, err = c.Get(context.Background(), src, blob.SHA256.Sum([]byte("unknown")))
	if kernel.KindOf(err) != kernel.NotFound {
		t.Errorf("the source's error is %v", err)
	}
}
