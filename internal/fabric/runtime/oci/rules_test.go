package oci

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
	"provost.dev/provost/internal/kernel"
)

func TestSpecIsRefused(t *testing.T) {
	image := t.TempDir()
	file := filepath.Join(image, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := func() runtime.Spec { return shell("ok", image, "true") }
	if s := good(); check(&s) != nil {
		t.Fatalf("the spec that the others are made of: %v", check(&s))
	}
	long := strings.Repeat("x", maxArgBytes)
	edits := map[string][]func(*runtime.Spec){
		"rootfs": {func(s *runtime.Spec) { s.Rootfs = "" }, func(s *runtime.Spec) { s.Rootfs = "relative" },
			func(s *runtime.Spec) { s.Rootfs = file }, func(s *runtime.Spec) { s.Rootfs = image + "/none" }, func(s *runtime.Spec) { s.Rootfs = "/a\x00b" }},
		"args": {func(s *runtime.Spec) { s.Args = nil }, func(s *runtime.Spec) { s.Args = []string{""} },
			func(s *runtime.Spec) { s.Args = []string{"a", "b\x00"} }, func(s *runtime.Spec) { s.Args = []string{"a", long} },
			func(s *runtime.Spec) { s.Args = make([]string, maxArgs+1); s.Args[0] = "a" },
			func(s *runtime.Spec) { s.Args = strings.SplitAfter(strings.Repeat(long[1:]+"\n", 9), "\n") }},
		"env": {func(s *runtime.Spec) { s.Env = []string{"novalue"} }, func(s *runtime.Spec) { s.Env = []string{"=x"} },
			func(s *runtime.Spec) { s.Env = []string{"A=\x00"} }},
		"cwd": {func(s *runtime.Spec) { s.Cwd = "rel" }, func(s *runtime.Spec) { s.Cwd = "/a/../b" }, func(s *runtime.Spec) { s.Cwd = "/proc/self/fd/7" },
			func(s *runtime.Spec) { s.Cwd = "/proc" }, func(s *runtime.Spec) { s.Cwd = "/a\x00" }, func(s *runtime.Spec) { s.Cwd = "//proc/self/fd/7" }},
		"hostname":            {func(s *runtime.Spec) { s.Hostname = "a b" }, func(s *runtime.Spec) { s.Hostname = "-a" }, func(s *runtime.Spec) { s.Hostname = "a\nb" }},
		"stop_signal":         {func(s *runtime.Spec) { s.StopSignal = 65 }, func(s *runtime.Spec) { s.StopSignal = -1 }},
		"limits.memory_bytes": {func(s *runtime.Spec) { s.Limits.MemoryBytes = 0 }, func(s *runtime.Spec) { s.Limits.MemoryBytes = -1 }},
		"limits.cpu_millis":   {func(s *runtime.Spec) { s.Limits.CPUMillis = 0 }, func(s *runtime.Spec) { s.Limits.CPUMillis = 1 << 40 }},
		"limits.pids":         {func(s *runtime.Spec) { s.Limits.PIDs = 0 }, func(s *runtime.Spec) { s.Limits.PIDs = 15 }},
		"limits.tmp_bytes":    {func(s *runtime.Spec) { s.Limits.TmpBytes = -1 }},
		"network.nameservers": {func(s *runtime.Spec) { s.Network.Nameservers = make([]netip.Addr, 1) },
			func(s *runtime.Spec) { s.Network.Nameservers = make([]netip.Addr, 4) }},
		"labels": {func(s *runtime.Spec) { s.Labels = map[string]string{"": "x"} }, func(s *runtime.Spec) { s.Labels = map[string]string{"x": long} }},
	}
	for _, id := range []string{"", ".", "..", "../x", "a/b", "/etc", "-a", "_a", ".a", "a\x00", "a\n", "ä", "a b", strings.Repeat("a", 129)} {
		edits["id"] = append(edits["id"], func(s *runtime.Spec) { s.ID = id })
	}
	for field, list := range edits {
		for i, edit := range list {
			s := good()
			edit(&s)
			var e *kernel.Error
			if err := check(&s); !errors.As(err, &e) || e.Kind != kernel.Invalid || e.Field != field {
				t.Errorf("%s, case %d: %v, want it invalid", field, i, err)
			}
		}
	}
}

func TestSpecIsFilled(t *testing.T) {
	s := fill(runtime.Spec{ID: "Wl_1.x" + strings.Repeat("_", 100), Limits: runtime.Limits{MemoryBytes: 32 << 20}}, 7, 8)
	if s.UID != 7 || s.GID != 8 || s.Cwd != "/" || s.Hostname != "Wl-1.x" || s.StopSignal != syscall.SIGTERM ||
		s.Limits.TmpBytes != 32<<20 || len(s.Env) != 1 || !strings.HasPrefix(s.Env[0], "PATH=/") {
		t.Errorf("got %+v", s)
	}
	if s := fill(runtime.Spec{ID: "a", Env: []string{"PATH=/mine"}}, 7, 8); len(s.Env) != 1 {
		t.Errorf("an image's own PATH: %v", s.Env)
	}
}

func TestConfigIsRefused(t *testing.T) {
	for field, cfg := range map[string]Config{
		"state_dir":  {},
		"log_limits": {StateDir: t.TempDir(), LogLimits: logfile.Limits{Segments: 1}},
	} {
		if _, err := New(t.Context(), cfg); kernel.AsError(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]string{
		"runc version 1.1.5+ds1\ncommit: x\n": "runc 1.1.5+ds1",
		"crun version 1.8.1\n":                "crun 1.8.1",
		"runsc version release-2026\n":        "",
		"GNU coreutils 9.1":                   "",
		"":                                    "",
	} {
		name, version, ok := parseVersion([]byte(out))
		if got := strings.TrimSpace(name + " " + version); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", out, got, ok)
		}
	}
	for version, old := range map[string]bool{"1.1.5+ds1": true, "1.2.7": true, "1.2.8": false, "1.3.0": false, "2.0.0-rc1": false,
		"0.1": true, "unknown": false, "": false} {
		if olderThan(version, 1, 2, 8) != old {
			t.Errorf("olderThan(%q) = %v", version, !old)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"runc run failed: exec: no such file","time":"x"}` + "\n"))
	f.Add([]byte(`{"level":"warning","msg":"w"}` + "\n" + `{"level":"error"` + "\n\x00"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if msg := lastError(log); len(msg) > 3*len(log) {
			t.Errorf("%d bytes out of %d", len(msg), len(log))
		}
	})
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 77 1 2 3"))
	f.Add([]byte(") "))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if start, err := parseStartTime(stat); err != nil && start != 0 {
			t.Errorf("%d with error %v", start, err)
		}
	})
}

func TestStartTime(t *testing.T) {
	if start, err := parseStartTime([]byte("1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 77 1 2 3")); start != 77 || err != nil {
		t.Errorf("got %d, %v; want 77", start, err)
	}
	me, err := thisProcess()
	if err != nil || me.PID != os.Getpid() || me.Start == 0 {
		t.Errorf("this process: %+v, %v", me, err)
	}
	// The same number and another start is someone else.
	me.Start++
	if err := me.kill(t.Context()); err != nil {
		t.Error(err) // or this program is dead
	}
}

func TestRuntimeMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: needs root")
	}
	path := filepath.Join(t.TempDir(), "runc")
	d := openDriver(t, Config{Runtime: path})
	image := t.TempDir()
	for _, program := range []string{"", "/bin/true", "/bin/false"} {
		if program != "" {
			if err := os.Symlink(program, path); err != nil {
				t.Fatal(err)
			}
		}
		_, err := d.Start(t.Context(), shell("none", image, ""))
		if e := kernel.AsError(err); e.Kind != kernel.Unavailable || !strings.Contains(e.Fix, "install") {
			t.Errorf("runtime %q: %v, fix %q", program, err, e.Fix)
		}
		_ = os.Remove(path)
	}
	if len(d.List()) > 0 {
		t.Errorf("left: %v", d.List())
	}
	// Once it is there, the same driver works.
	needRunc(t)
	found, err := findRuntime(t.Context(), testRuntime)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(found.Path, path); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, d, shell("some", busyboxImage(t), "echo works")); out != "works\n" {
		t.Errorf("got %q", out)
	}
}

func TestRuntimeHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := findRuntime(ctx, path); kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestProbeReport(t *testing.T) {
	needRunc(t)
	report := Probe(t.Context(), Config{StateDir: t.TempDir(), Runtime: testRuntime})
	for _, f := range report.Findings {
		t.Logf("%-20s ok=%-5v %s  %s", f.Name, f.OK, f.Detail, f.Fix)
		if f.Name == "" || f.Detail == "" || f.OK != (f.Fix == "") {
			t.Errorf("finding %+v: want a name, a detail, and a fix if it is not OK", f)
		}
	}
}

// TestWithoutRoot runs this program as nobody.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: needs root to become someone else")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", probeArg)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.Contains(got, "unavailable") || !strings.Contains(got, "privilege") || !strings.Contains(got, "needs root or delegated cgroups") {
		t.Errorf("got %s", got)
	}
}

// probeArg makes the test program say why it cannot run containers.
const probeArg = "oci-test-probe"

func probeMain() int {
	report := Probe(context.Background(), Config{StateDir: "/nonexistent"})
	e := kernel.AsError(report.Err())
	fmt.Println(e.Kind, e.Msg, e.Fix)
	return 0
}
