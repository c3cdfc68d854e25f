package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	v1Mounts = `20 1 0:19 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
21 20 0:20 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:7 - cgroup cgroup rw,cpu,cpuacct
22 20 0:21 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
23 20 0:22 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
24 20 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
25 20 0:21 /docker /mnt/a\040b rw - cgroup cgroup rw,memory
`
	unifiedMount = `30 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	v2Mounts = `30 20 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
31 20 0:31 / /proc rw - proc proc rw
`
)

func TestParseMounts(t *testing.T) {
	for _, tt := range []struct {
		name, mounts string
		mode         Mode
		memory       string
	}{
		{"V1", v1Mounts, V1, "/sys/fs/cgroup/memory"},
		{"Hybrid", v1Mounts + unifiedMount, Hybrid, "/sys/fs/cgroup/memory"},
		{"V2", v2Mounts, V2, "/sys/fs/cgroup"},
		{"None", "31 20 0:31 / /proc rw - proc proc rw\n", None, ""},
		{"Empty", "", None, ""},
		{"NotMounts", " - \n - cgroup\nx\n", None, ""},
		{"Escaped", `25 20 0:21 / /mnt/a\040b\134 rw - cgroup cgroup rw,memory`, V1, `/mnt/a b\`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseMounts(strings.NewReader(tt.mounts))
			if err != nil {
				t.Fatal(err)
			}
			memory, _ := h.mount("memory")
			if h.Mode() != tt.mode || memory != tt.memory {
				t.Errorf("layout %s, memory at %q; want %s, %q", h.Mode(), memory, tt.mode, tt.memory)
			}
		})
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(v1Mounts + unifiedMount)
	f.Add(v2Mounts)
	f.Add(`1 1 0:1 / \0 - cgroup`)
	f.Fuzz(func(t *testing.T, mounts string) {
		h, err := parseMounts(strings.NewReader(mounts))
		if err != nil {
			return // a line longer than any mount
		}
		if none := len(h.mounts()) == 0; none != (h.Mode() == None) {
			t.Errorf("layout %s with mounts %q", h.Mode(), h.mounts())
		}
	})
}

func FuzzCounter(f *testing.F) {
	f.Add([]byte("low 0\noom 3\noom_kill 2\n"))
	f.Add([]byte("oom_kill -1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := counter(data, "oom_kill")
		if err != nil && n != 0 {
			t.Errorf("%d with error %v", n, err)
		}
	})
}

// TestV2 lets a plain directory stand for a v2 tree, whose files it has.
func TestV2(t *testing.T) {
	root := t.TempDir()
	h := &Host{mode: V2, unified: root}
	group := filepath.Join(root, "parent/child")
	if err := errors.Join(os.MkdirAll(group, 0o755), os.MkdirAll(filepath.Join(root, "parent/other"), 0o755),
		os.WriteFile(filepath.Join(group, "memory.events"), []byte("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 0o644),
		os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpuset cpu memory\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if n, err := h.OOMKills("/parent/child"); n != 2 || err != nil {
		t.Errorf("OOMKills: %d, %v; want 2", n, err)
	}
	if n, err := h.OOMKills("/parent/gone"); n != 0 || err != nil {
		t.Errorf("OOMKills of a group that is gone: %d, %v", n, err)
	}
	if names, err := h.Children("/parent"); !slices.Equal(names, []string{"child", "other"}) || err != nil {
		t.Errorf("Children: %v, %v", names, err)
	}
	limits := h.Probe("/probe")
	if limits.Memory != nil || limits.CPU != nil || limits.PIDs == nil || !limits.Swap {
		t.Errorf("Probe: %+v; want all but pids", limits)
	}
	if _, err := os.Stat(filepath.Join(root, "probe")); err == nil {
		t.Error("Probe left its group behind")
	}
}

// testGroup makes a group of the host's own, or skips where that cannot be.
func testGroup(t *testing.T) (*Host, string) {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf("/provost-test-%d-%s", os.Getpid(), t.Name())
	for _, m := range h.mounts() {
		if err := os.MkdirAll(filepath.Join(m, group, "below"), 0o755); err != nil {
			if os.Getenv("PROVOST_REQUIRE_RUNC") == "1" {
				t.Fatalf("PROVOST_REQUIRE_RUNC=1, but: %v", err)
			}
			t.Skipf("NOT TESTED: cannot make cgroups: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := h.Remove(context.Background(), group); err != nil {
			t.Error(err)
		}
	})
	return h, group
}

// TestKillAndRemove ends processes that are in some hierarchies, or below the
// group, and fork while they are being killed.
func TestKillAndRemove(t *testing.T) {
	h, group := testGroup(t)
	var procs []*exec.Cmd
	for i, m := range h.mounts() {
		cmd := exec.Command("sh", "-c", `while :; do sleep 0.01 & sleep 0.01; done`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs = append(procs, cmd)
		dir := filepath.Join(m, group)
		if i%2 == 1 {
			dir = filepath.Join(dir, "below")
		}
		if strings.HasSuffix(m, "cpuset") {
			continue // takes processes only after more setting up
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := h.Kill(ctx, group); err != nil {
		t.Fatal(err)
	}
	for i, cmd := range procs {
		if strings.HasSuffix(h.mounts()[i], "cpuset") {
			if err := cmd.Process.Kill(); err != nil {
				t.Errorf("a process outside the group was killed: %v", err)
			}
		}
		_ = cmd.Wait() // killed, or this hangs
	}
	if err := h.Remove(ctx, group); err != nil {
		t.Fatal(err)
	}
	if dirs := h.Dirs(group); len(dirs) > 0 {
		t.Errorf("left: %v", dirs)
	}
	if err := errors.Join(h.Kill(ctx, group), h.Remove(ctx, group), h.RemoveIfEmpty(group)); err != nil {
		t.Errorf("again, with nothing there: %v", err)
	}
}

func TestRemoveIfEmpty(t *testing.T) {
	h, group := testGroup(t)
	if err := h.RemoveIfEmpty(group); err != nil || len(h.Dirs(group)) == 0 {
		t.Errorf("a group with one below: %v, left in %v", err, h.Dirs(group))
	}
	if err := errors.Join(h.RemoveIfEmpty(group+"/below"), h.RemoveIfEmpty(group)); err != nil || len(h.Dirs(group)) != 0 {
		t.Errorf("an empty group: %v, left in %v", err, h.Dirs(group))
	}
}

func TestProbe(t *testing.T) {
	h, group := testGroup(t)
	limits := h.Probe(group + "/probe")
	for name, err := range map[string]error{"memory": limits.Memory, "cpu": limits.CPU, "pids": limits.PIDs} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if dirs := h.Dirs(group + "/probe"); len(dirs) > 0 {
		t.Errorf("Probe left %v", dirs)
	}
}
