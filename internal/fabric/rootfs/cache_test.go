package rootfs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/kernel"
)

const victimDir = "PROVOST_TEST_ROOTFS_DIR"

func TestMain(m *testing.M) {
	switch dir, rest, _ := strings.Cut(os.Getenv(victimDir), "|"); {
	case dir == "":
		os.Exit(m.Run())
	case rest == "once":
		unpackOnce(dir)
	default:
		unpackForever(dir)
	}
}

// gate holds back the reading of blobs until it is opened.
type gate struct {
	reached chan struct{} // gets a value for every blob that waits
	pass    chan struct{} // closed to let them go
}

func (g gate) open(ctx context.Context, _ blob.Digest, b []byte) (io.ReadCloser, error) {
	g.reached <- struct{}{}
	select {
	case <-g.pass:
		return io.NopCloser(bytes.NewReader(b)), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestCallersShareOneUnpacking(t *testing.T) {
	src := newSource()
	d := src.image(t, tarred(t, file("a", "1")))
	c := open(t, rootfs.Config{})
	g := gate{make(chan struct{}, 100), make(chan struct{})}
	src.open = g.open
	var wg sync.WaitGroup
	images := make([]*rootfs.Image, 8)
	errs := make([]error, 8)
	for i := range images {
		wg.Go(func() { images[i], errs[i] = c.Get(context.Background(), src, d) })
	}
	<-g.reached
	close(g.pass)
	wg.Wait()
	for i, img := range images {
		if errs[i] != nil || img.Rootfs != images[0].Rootfs {
			t.Errorf("caller %d: %+v, %v", i, img, errs[i])
		}
	}
	if n := 1 + len(g.reached); n != 2 { // configuration and layer, once each
		t.Errorf("%d blobs were read, want 2", n)
	}
	if _, err := c.Get(t.Context(), nil, d); err != nil {
		t.Errorf("a cached image needs no source: %v", err)
	}
}

func TestUnpackingEndsWhenAllHaveGone(t *testing.T) {
	src := newSource()
	d := src.image(t, tarred(t, file("a", "1")))
	dir := filepath.Join(t.TempDir(), "images")
	c := open(t, rootfs.Config{Dir: dir})
	g := gate{make(chan struct{}, 100), make(chan struct{})}
	src.open = g.open
	first, leave := context.WithCancel(t.Context())
	second, leaveToo := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { _, err := c.Get(first, src, d); errs <- err }()
	<-g.reached
	go func() { _, err := c.Get(second, src, d); errs <- err }()
	leave()
	if err := <-errs; !errors.Is(err, context.Canceled) || kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("the first got %v", err)
	}
	leaveToo()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the second got %v", err)
	}
	ready := newSource()
	ready.manifests, ready.blobs = src.manifests, src.blobs // the gate is closed for good
	if _, err := c.Get(t.Context(), ready, d); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestUnpackingHasADeadline(t *testing.T) {
	src := newSource()
	d := src.image(t, tarred(t, file("a", "1")))
	g := gate{make(chan struct{}, 100), make(chan struct{})}
	src.open = g.open
	_, err := open(t, rootfs.Config{Timeout: time.Millisecond}).Get(t.Context(), src, d)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A source that fails in the middle of a layer is not the image's fault.
func TestSourceThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	src := newSource()
	content := archive(t, file("a", strings.Repeat("x", 100_000)))
	for _, l := range []layer{plain(content), {gzipLayer, gz(t, content), blob.SHA256.Sum(content)}, {zstdLayer, zst(t, content), blob.SHA256.Sum(content)}} {
		d := src.image(t, l)
		broken := errors.New("connection reset")
		src.open = func(_ context.Context, _ blob.Digest, b []byte) (io.ReadCloser, error) {
			if b[0] == '{' {
				return io.NopCloser(bytes.NewReader(b)), nil
			}
			return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(broken))), nil
		}
		_, err := open(t, rootfs.Config{Dir: dir}).Get(t.Context(), src, d)
		if kernel.KindOf(err) != kernel.Unavailable || !errors.Is(err, broken) {
			t.Errorf("%s: %v", l.mediaType, err)
		}
		nothingLeft(t, dir)
	}
}

func TestCollect(t *testing.T) {
	now := time.Now()
	c := open(t, rootfs.Config{Now: func() time.Time { return now }})
	src := newSource()
	get := func(d blob.Digest) {
		t.Helper()
		if _, err := c.Get(t.Context(), src, d); err != nil {
			t.Fatal(err)
		}
	}
	running := src.image(t, tarred(t, file("a", "running")))
	idle := src.image(t, tarred(t, file("a", "idle"), dir("closed").mode(0), file("closed/x", "x")))
	fresh := src.image(t, tarred(t, file("a", "fresh")))
	get(running)
	get(idle)
	get(fresh)
	now = now.Add(2 * time.Hour)
	get(fresh) // from the cache: renewed
	n, err := c.Collect(t.Context(), time.Hour, func(d blob.Digest) bool { return d == running })
	if err != nil || n != 1 {
		t.Fatalf("removed %d, %v", n, err)
	}
	for d, want := range map[blob.Digest]bool{running: true, idle: false, fresh: true} {
		if _, err := c.Get(t.Context(), newSource(), d); (err == nil) != want {
			t.Errorf("%s is cached: %v, want %v", d, err == nil, want)
		}
	}
}

func TestLeftoversAreSweptUnlessInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	src := newSource()
	d := src.image(t, tarred(t, file("a", "1")))
	c := open(t, rootfs.Config{Dir: dir})
	if err := os.MkdirAll(filepath.Join(dir, "tmp", "unpack-dead", "rootfs", "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	g := gate{make(chan struct{}, 100), make(chan struct{})}
	src.open = func(ctx context.Context, d blob.Digest, b []byte) (io.ReadCloser, error) {
		if b[0] == '{' {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		return g.open(ctx, d, b)
	}
	done := make(chan error)
	go func() { _, err := c.Get(context.Background(), src, d); done <- err }()
	<-g.reached // its workspace is there
	open(t, rootfs.Config{Dir: dir})
	if es, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(es) != 1 || es[0].Name() == "unpack-dead" {
		t.Errorf("left: %v, %v", es, err)
	}
	close(g.pass)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIPPED: a full disk needs a file system of our own: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	src := newSource()
	c := open(t, rootfs.Config{Dir: dir})
	_, err := c.Get(t.Context(), src, src.image(t, tarred(t, file("a", strings.Repeat("x", 2<<20)))))
	if kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("got %v", err)
	}
	if es, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(es) > 0 {
		t.Errorf("left: %v, %v", es, err)
	}
	if _, err := c.Get(t.Context(), src, src.image(t, tarred(t, file("a", strings.Repeat("x", 500_000))))); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

// numbered is an image with some files that say which it is.
func numbered(src *memSource, t fataler, i int) blob.Digest {
	var es []entry
	for k := range 50 {
		es = append(es, file(fmt.Sprintf("d%d/f", k), fmt.Sprint(i)))
	}
	return src.image(t, tarred(t, es...))
}

// unpackForever is the victim of the next test.
func unpackForever(dir string) {
	c, err := rootfs.New(rootfs.Config{Dir: dir})
	exitOn(err)
	for i := os.Getpid() * 1000; ; i++ {
		src := newSource()
		d := numbered(src, child{}, i)
		_, err := c.Get(context.Background(), src, d)
		exitOn(err)
		fmt.Println(d)
	}
}

// child is the fataler of a child process.
type child struct{}

func (child) Helper() {}
func (child) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// After kill -9 what is there is whole, and what was acknowledged is there.
func TestKilledUnpacking(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	acked := map[blob.Digest]bool{}
	unfinished := 0
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			d, err := blob.ParseDigest(lines.Text())
			if err != nil {
				break // cut by the kill
			}
			acked[d] = true
			if n == round%4 {
				waitForWorkspace(t, dir)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed, as intended
		if stderr.Len() > 0 {
			t.Fatalf("the victim failed: %s", &stderr)
		}
		left, err := os.ReadDir(filepath.Join(dir, "tmp"))
		if err != nil {
			t.Fatal(err)
		}
		unfinished += len(left) // the next victim sweeps them
	}
	c := open(t, rootfs.Config{Dir: dir})
	published, err := os.ReadDir(filepath.Join(dir, "images/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range published {
		d, err := blob.ParseDigest("sha256:" + p.Name())
		if err != nil {
			t.Fatal(err)
		}
		delete(acked, d)
		img, err := c.Get(t.Context(), nil, d)
		if err != nil {
			t.Fatal(err)
		}
		if got := tree(t, img.Rootfs); len(got) != 100 || got["d0/f"] != got["d49/f"] || got["d0/f"] == "" {
			t.Errorf("%s is not whole: %d entries", d, len(got))
		}
	}
	if len(acked) > 0 {
		t.Errorf("acknowledged and not there: %v", acked)
	}
	if t.Logf("%d published, %d left unfinished by kills", len(published), unfinished); unfinished == 0 {
		t.Error("no kill came in the middle: this test tests nothing")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("not swept: %v, %v", left, err)
	}
}

// waitForWorkspace waits until an unpacking is under way.
func waitForWorkspace(t *testing.T, dir string) {
	t.Helper()
	for t.Context().Err() == nil {
		if es, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		} else if len(es) > 0 {
			return
		}
	}
}

// unpackOnce unpacks, replaces and removes awkward modes and says how it went.
func unpackOnce(dir string) {
	now := time.Now()
	c, err := rootfs.New(rootfs.Config{Dir: dir, Now: func() time.Time { return now }})
	exitOn(err)
	t := child{}
	src := newSource()
	d := src.image(t,
		tarred(t, dirAs("closed", 0), file("closed/x", "1"), file("closed/deep/y", "1").mode(0), dirAs("readonly", 0o555), file("readonly/z", "1")),
		tarred(t, file("closed/.wh.x", ""), file("readonly/z", "2")))
	img, err := c.Get(context.Background(), src, d)
	exitOn(err)
	b, err := os.ReadFile(filepath.Join(img.Rootfs, "readonly/z"))
	exitOn(err)
	fmt.Printf("%s %s\n", d, b)
	now = now.Add(time.Hour)
	n, err := c.Collect(context.Background(), time.Minute, func(blob.Digest) bool { return false })
	exitOn(err)
	fmt.Println(n)
}

func dirAs(name string, mode int64) entry { return dir(name).mode(mode) }

func TestUnprivilegedServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can become somebody else")
	}
	home, err := os.MkdirTemp("", "unprivileged-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	exe := filepath.Join(home, "test")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.WriteFile(exe, b, 0o755), os.Chmod(home, 0o755), os.Mkdir(filepath.Join(home, "cache"), 0o700), os.Chown(filepath.Join(home, "cache"), 65534, 65534))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), victimDir+"="+filepath.Join(home, "cache")+"|once")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if lines := strings.Fields(string(out)); len(lines) != 3 || lines[1] != "2" || lines[2] != "1" {
		t.Errorf("got %q", out)
	}
	if es, err := os.ReadDir(filepath.Join(home, "cache/images/sha256")); err != nil || len(es) > 0 {
		t.Errorf("not removed: %v, %v", es, err)
	}
}
