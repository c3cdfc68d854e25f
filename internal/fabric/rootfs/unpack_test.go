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
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	c := open(t, rootfs.Config{})
	for seed := range seeds {
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
