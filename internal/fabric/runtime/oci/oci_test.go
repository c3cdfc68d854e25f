package oci

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
)

// TestMain lets the test program be what the server's own is: the supervisor of
// a container. It is also the server that TestServerKilled kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ShimArg:
			os.Exit(ShimMain())
		case serverArg:
			os.Exit(serverMain(os.Args[2]))
		case probeArg:
			os.Exit(probeMain())
		}
	}
	os.Exit(m.Run())
}

// testRuntime runs all tests under another runtime than the one found first,
// such as PROVOST_TEST_RUNTIME=crun.
var testRuntime = os.Getenv("PROVOST_TEST_RUNTIME")

// needRunc skips where real containers cannot be run, or fails there if
// PROVOST_REQUIRE_RUNC=1 says that they must be.
func needRunc(t testing.TB) {
	t.Helper()
	report := Probe(t.Context(), Config{StateDir: t.TempDir(), Runtime: testRuntime})
	err := report.Err()
	if _, busyboxErr := exec.LookPath("busybox"); busyboxErr != nil {
		err = errors.Join(err, errors.New("busybox is missing: apt-get install busybox-static"))
	}
	if err == nil {
		return
	}
	if os.Getenv("PROVOST_REQUIRE_RUNC") == "1" {
		t.Fatalf("PROVOST_REQUIRE_RUNC=1, but: %v", err)
	}
	t.Skipf("NOT TESTED: real containers cannot run here: %v", err)
}

// busyboxImage makes what unpacking a minimal image makes: no mount points, no
// files in /etc, everything owned by root.
func busyboxImage(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	bin := filepath.Join(image, "bin")
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.Chmod(image, 0o755),
		os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "cat", "sleep", "ls", "id", "mkdir", "touch", "dd", "true", "echo", "grep", "ip", "mount",
		"kill", "yes", "head", "nc", "hostname", "stat", "chmod", "cp", "ps", "mknod", "unshare", "seq", "wc"} {
		if err := os.Symlink("busybox", filepath.Join(bin, applet)); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

// openDriver opens a driver that is closed with the test. Everything in it is
// deleted then, and the test fails if anything of it is left on the host.
func openDriver(t testing.TB, cfg Config) *Driver {
	t.Helper()
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	if cfg.Runtime == "" {
		cfg.Runtime = testRuntime
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	d, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tearDown(t, d) })
	return d
}

func tearDown(t testing.TB, d *Driver) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, st := range d.List() {
		if err := d.Delete(ctx, st.ID); err != nil && !errors.Is(err, errClosed) {
			t.Errorf("Delete(%s): %v", st.ID, err)
		}
	}
	if d.isClosed() {
		return // another driver of the same test took over
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	expectNothingLeft(t, d)
}

func (d *Driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// expectNothingLeft looks at the host for what a driver's containers are made of.
func expectNothingLeft(t testing.TB, d *Driver) {
	t.Helper()
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if dirs := host.Dirs(d.group); len(dirs) > 0 {
		t.Errorf("cgroups left: %v", dirs)
	}
	if pids := processesIn(t, d.cfg.StateDir); len(pids) > 0 {
		t.Errorf("processes left: %v", pids)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), d.cfg.StateDir) {
		t.Errorf("mounts left below %s", d.cfg.StateDir)
	}
	for _, dir := range []string{d.containersDir(), d.runtimeRoot()} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v (%v)", filepath.Base(dir), left, err)
		}
	}
}

// processesIn lists the processes, by command line, whose current directory is
// dir or below: supervisors and runtimes of the driver there.
func processesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil || e.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd")
		if err != nil || !strings.HasPrefix(cwd, dir) {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue
		}
		found = append(found, e.Name()+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return found
}

var someLimits = runtime.Limits{MemoryBytes: 64 << 20, CPUMillis: 1000, PIDs: 64}

// shell is a Spec that runs script in image.
func shell(id, image, script string) runtime.Spec {
	return runtime.Spec{ID: id, Rootfs: image, Args: []string{"/bin/sh", "-c", script}, Limits: someLimits}
}

func start(t testing.TB, d *Driver, s runtime.Spec) runtime.Status {
	t.Helper()
	st, err := d.Start(t.Context(), s)
	if err != nil {
		t.Fatalf("Start(%s): %v", s.ID, err)
	}
	return st
}

func wait(t testing.TB, d *Driver, id string) runtime.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := d.Wait(ctx, id)
	if err != nil {
		t.Fatalf("Wait(%s): %v", id, err)
	}
	return st
}

// output is what the container printed so far, or until its end when following.
func output(t testing.TB, d *Driver, id string, opts runtime.LogOptions) string {
	t.Helper()
	r, err := d.Logs(t.Context(), id, opts)
	if err != nil {
		t.Fatalf("Logs(%s): %v", id, err)
	}
	defer r.Close()
	var out strings.Builder
	for {
		entries, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatalf("Logs(%s): %v", id, err)
		}
		if err := logfile.WriteText(&out, entries, false); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs script to its end and returns what it printed.
func run(t testing.TB, d *Driver, s runtime.Spec) (string, runtime.Status) {
	t.Helper()
	start(t, d, s)
	st := wait(t, d, s.ID)
	return output(t, d, s.ID, runtime.LogOptions{}), st
}

// awaitLine follows the container's output until a line begins like prefix.
func awaitLine(t testing.TB, d *Driver, id, prefix string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := d.Logs(ctx, id, runtime.LogOptions{Follow: true})
	if err != nil {
		t.Fatalf("Logs(%s): %v", id, err)
	}
	defer r.Close()
	for {
		entries, err := r.Next()
		if err != nil {
			t.Fatalf("container %s never printed %q: %v", id, prefix, err)
		}
		for _, e := range entries {
			if rest, ok := strings.CutPrefix(string(e.Data), prefix); ok {
				return rest
			}
		}
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
