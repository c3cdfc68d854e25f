package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
	"provost.dev/provost/internal/kernel"
)

// TestIsolation looks at the host from inside, one claim at a time.
func TestIsolation(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	for _, tt := range []struct {
		name, script string
		want         []string // lines of output, exactly
	}{
		{"IsAnUnprivilegedUser", `id -u; id -g; grep Groups /proc/self/status`, []string{"65532", "65532", "Groups:\t "}},
		{"HasNoCapabilities", `grep Cap /proc/self/status`, []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000",
			"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000"}},
		{"GainsNoPrivileges", `grep -E 'NoNewPrivs|Seccomp:' /proc/self/status`, []string{"NoNewPrivs:\t1", "Seccomp:\t2"}},
		{"MakesNoNamespaces", `unshare -U true 2>&1`, []string{"unshare: unshare(0x10000000): Operation not permitted"}},
		{"MakesNoMounts", `mount -t tmpfs none /tmp 2>&1`, []string{"mount: permission denied (are you root?)"}},
		{"MakesNoDevices", `mknod /tmp/null c 1 3 2>&1`, []string{"mknod: /tmp/null: Operation not permitted"}},
		{"RootIsReadOnly", `touch /x 2>&1; touch /etc/hosts 2>&1; mkdir /bin/x 2>&1`, []string{"touch: /x: Read-only file system",
			"touch: /etc/hosts: Read-only file system", "mkdir: can't create directory '/bin/x': Read-only file system"}},
		{"TmpIsWritableByAll", `stat -c '%a %u' /tmp /dev/shm; echo hi >/tmp/a; echo ho >/dev/shm/b; cat /tmp/a /dev/shm/b`,
			[]string{"1777 0", "1777 0", "hi", "ho"}},
		{"WhatIsWritableIsNotExecutable", `cp /bin/busybox /tmp/true; /tmp/true 2>&1; cp /bin/busybox /dev/shm/true; /dev/shm/true 2>&1`,
			[]string{"/bin/sh: /tmp/true: Permission denied", "/bin/sh: /dev/shm/true: Permission denied"}},
		{"HasOnlyLoopback", `ls /sys/class/net; ip -o link show lo | grep -c 'LOOPBACK,UP'; cat /etc/resolv.conf`, []string{"lo", "1"}},
		{"MayListenOnPort80", `nc -l -p 80 & while kill -0 $!; do grep -q :0050 /proc/net/tcp* && echo up && kill $! && exit; done`, []string{"up"}},
		{"SeesOnlyItsProcesses", `echo /proc/[0-9]*; cat /proc/1/comm; true`, []string{"/proc/1", "sh"}},
		{"HasOnlyStandardStreams", `ls /proc/1/fd; true`, []string{"0", "1", "2"}},
		{"InputIsEmpty", `cat; echo end`, []string{"end"}},
		{"HasOnlyHarmlessDevices", `ls /dev | grep -v core`, []string{"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
			"stderr", "stdin", "stdout", "tty", "urandom", "zero"}},
		{"HostSecretsAreMasked", `cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware`, nil},
		{"KernelSettingsAreReadOnly", `echo 1 2>&1 >/proc/sys/vm/drop_caches`, []string{
			"/bin/sh: can't create /proc/sys/vm/drop_caches: Read-only file system"}},
		{"SeesNoPathsOfTheHost", `grep -c ` + filepath.Dir(image) + ` /proc/self/mountinfo; grep -c ` + d.cfg.StateDir + ` /proc/self/mountinfo`,
			[]string{"0", "0"}},
		{"CannotChangeItsLimits", `for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo $$ 2>/dev/null >$f && echo changed $f; done`, nil},
		{"NothingElseIsWritable", `while read _ dir _; do touch $dir/x 2>/dev/null && echo $dir; done </proc/mounts`,
			[]string{"/dev/shm", "/dev/mqueue", "/tmp"}},
		{"KnowsItsName", `hostname; cat /etc/hostname; grep -c "127.0.1.1 $(hostname)" /etc/hosts`,
			[]string{"KnowsItsName", "KnowsItsName", "1"}},
		{"HasASaneUmask", `umask`, []string{"0022"}},
		{"DiesBeforeTheServer", `cat /proc/self/oom_score_adj`, []string{"500"}},
		{"LeavesNoCores", `ulimit -c`, []string{"0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _ := run(t, d, shell(tt.name, image, tt.script))
			if got := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); !slices.Equal(got, tt.want) && (out != "" || tt.want != nil) {
				t.Errorf("%s\ngot  %q\nwant %q", tt.script, got, tt.want)
			}
		})
	}
}

func TestNamespacesAreItsOwn(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	out, _ := run(t, d, shell("ns", image, `for n in cgroup ipc mnt net pid uts; do stat -c %N /proc/self/ns/$n; done`))
	kinds := []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(kinds) {
		t.Fatalf("got %q", out)
	}
	for i, kind := range kinds {
		own, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(lines[i], kind+":[") || strings.Contains(lines[i], own) {
			t.Errorf("%s namespace inside is %s, the host's is %s", kind, lines[i], own)
		}
	}
}

func TestUserIsNeverRoot(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{UID: 4000, GID: 4001}), busyboxImage(t)
	for _, tt := range []struct {
		uid, gid uint32
		want     string
	}{{0, 0, "4000 4001\n"}, {1234, 0, "1234 4001\n"}, {0, 77, "4000 77\n"}, {1000, 1000, "1000 1000\n"}} {
		s := shell(fmt.Sprintf("user-%d-%d", tt.uid, tt.gid), image, `echo $(id -u) $(id -g)`)
		s.UID, s.GID = tt.uid, tt.gid
		out, st := run(t, d, s)
		if out != tt.want || fmt.Sprintf("%d %d\n", st.UID, st.GID) != tt.want {
			t.Errorf("asked for %d:%d, inside %q, reported %d:%d", tt.uid, tt.gid, out, st.UID, st.GID)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	limits := runtime.Limits{MemoryBytes: 32 << 20, CPUMillis: 1000, PIDs: 16, TmpBytes: 64 << 20}
	t.Run("KillsTheProcess", func(t *testing.T) {
		s := shell("oom", image, `exec dd if=/dev/zero of=/tmp/x bs=1M count=60`)
		s.Limits = limits
		_, st := run(t, d, s)
		if st.State != runtime.Exited || st.Reason != runtime.ReasonOOM || !st.OOMKilled || st.ExitCode != 137 {
			t.Errorf("got %+v, want an out-of-memory kill", st)
		}
	})
	t.Run("IsSeenWhenItKillsAChild", func(t *testing.T) {
		s := shell("oom-child", image, `dd if=/dev/zero of=/tmp/x bs=1M count=60; exit 3`)
		s.Limits = limits
		_, st := run(t, d, s)
		if st.State != runtime.Exited || st.Reason != runtime.ReasonExited || !st.OOMKilled || st.ExitCode != 3 {
			t.Errorf("got %+v, want exit code 3 with OOMKilled", st)
		}
	})
	t.Run("BoundsTmp", func(t *testing.T) {
		s := shell("tmp", image, `dd if=/dev/zero of=/tmp/x bs=1M count=3 2>&1 | grep -c 'No space left'`)
		s.Limits = limits
		s.Limits.TmpBytes = 2 << 20
		if out, st := run(t, d, s); out != "1\n" || st.OOMKilled {
			t.Errorf("got %q, %+v", out, st)
		}
	})
}

func TestProcessLimit(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	s := shell("forks", image, `for i in $(seq 100); do sleep 60 & done; echo all of them`)
	s.Limits.PIDs = 16
	out, st := run(t, d, s)
	if !strings.Contains(out, "can't fork: Resource temporarily unavailable") || st.ExitCode == 0 {
		t.Errorf("100 processes under a limit of 16: exit code %d, output %q", st.ExitCode, out)
	}
}

func TestCPULimit(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	// A tenth of a core: 100 ms of work take about a second.
	s := shell("busy", image, `while :; do read line </proc/1/stat; set -- $line; [ $((${14}+${15})) -ge 10 ] && exit; done`)
	s.Limits.CPUMillis = 100
	_, st := run(t, d, s)
	if took := st.FinishedAt.Sub(st.StartedAt); st.ExitCode != 0 || took < 500*time.Millisecond {
		t.Errorf("100 ms of work at 100 millis took %v, exit code %d", took, st.ExitCode)
	}
}

func TestSmallestLimitsSuffice(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	s := shell("small", image, `echo fits`)
	s.Limits = runtime.Limits{MemoryBytes: minMemory, CPUMillis: minCPUMillis, PIDs: minPIDs, TmpBytes: 1}
	if out, st := run(t, d, s); out != "fits\n" {
		t.Errorf("got %q, %+v", out, st)
	}
}

// TestDevices looks at what the v1 device controller allows: nothing at large.
// On v2 that is a BPF program, which cannot be read back.
func TestDevices(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	start(t, d, shell("devices", image, "exec sleep 60"))
	lists := 0
	for _, dir := range d.cgroup.Dirs(d.cgroupOf("devices")) {
		list, err := os.ReadFile(filepath.Join(dir, "devices.list"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		lists++
		for line := range strings.Lines(string(list)) {
			// Block devices may be made, not used; so may character devices of all kinds.
			if strings.HasPrefix(line, "a ") || strings.Contains(line, "*:* ") && line[len("c *:* "):] != "m\n" {
				t.Errorf("allowed: %s", line)
			}
		}
	}
	if lists == 0 && d.cgroup.Mode() != cgroup.V2 {
		t.Error("no list of devices found")
	}
}

// TestImageIsSharedAndUntouched runs several containers from one image at once.
func TestImageIsSharedAndUntouched(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	before := fingerprint(t, image)
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		start(t, d, shell(id, image, `echo $(hostname) >/tmp/me; cat /tmp/me; exec sleep 60`))
	}
	for _, id := range ids {
		if awaitLine(t, d, id, id); len(d.List()) != len(ids) {
			t.Errorf("List: %v", d.List())
		}
	}
	if after := fingerprint(t, image); !slices.Equal(before, after) {
		t.Errorf("the image changed:\nbefore %v\nafter  %v", before, after)
	}
}

func fingerprint(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		files = append(files, fmt.Sprint(path, st.Mode(), st.Size(), st.ModTime()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestImageWithItsOwnFiles(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	if err := errors.Join(os.Mkdir(filepath.Join(image, "etc"), 0o755), os.Mkdir(filepath.Join(image, "tmp"), 0o700),
		os.WriteFile(filepath.Join(image, "etc/app.conf"), []byte("kept\n"), 0o644),
		os.WriteFile(filepath.Join(image, "etc/hosts"), []byte("9.9.9.9 localhost\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := shell("own", image, `cat /etc/app.conf; grep -c 9.9.9.9 /etc/hosts; stat -c %a /tmp; cat /etc/resolv.conf`)
	s.Network.Nameservers = []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	if out, _ := run(t, d, s); out != "kept\n0\n1777\nnameserver 10.0.0.2\nnameserver fd00::2\n" {
		t.Errorf("got %q", out)
	}
}

// TestJoinedNetwork makes a network namespace with a link of its own.
func TestJoinedNetwork(t *testing.T) {
	needRunc(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT TESTED: needs the ip command (iproute2)")
	}
	name := fmt.Sprintf("provost-test-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", name)
	t.Cleanup(func() { ip("netns", "delete", name) })
	ip("-n", name, "link", "add", "left", "type", "veth", "peer", "name", "right")

	d, image := openDriver(t, Config{}), busyboxImage(t)
	s := shell("joined", image, `ls /sys/class/net`)
	s.Network.NamespacePath = "/run/netns/" + name
	if out, _ := run(t, d, s); out != "left\nlo\nright\n" {
		t.Errorf("network inside: %q", out)
	}
	for _, path := range []string{"/proc/self/ns/net", "/proc/1/ns/net", "/etc/passwd", "run/netns/x", "/proc/self/ns/uts"} {
		s.ID, s.Network.NamespacePath = "refused", path
		if _, err := d.Start(t.Context(), s); kernel.KindOf(err) != kernel.Invalid {
			t.Errorf("joining %s: %v, want it refused", path, err)
		}
	}
}

// TestNothingIsInherited gives the server a descriptor and a variable that its
// containers' supervisors, which outlive it, must not have.
func TestNothingIsInherited(t *testing.T) {
	needRunc(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], 0); err != nil { // without O_CLOEXEC, as from a shell
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	t.Setenv("PROVOST_TEST_SECRET", "hunter2")
	d, image := openDriver(t, Config{}), busyboxImage(t)
	start(t, d, shell("heir", image, `exec sleep 60`))
	shim := shimOf(t, d, "heir")
	inode, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pipe[1]))
	if err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", shim.PID)
	fds, err := os.ReadDir(dir)
	if err != nil || len(fds) == 0 {
		t.Fatalf("open files of the supervisor: %v, %v", fds, err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && target == inode {
			t.Errorf("the supervisor holds %s as %s", inode, fd.Name())
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", shim.PID))
	if err != nil || strings.Contains(string(environ), "hunter2") {
		t.Errorf("environment of the supervisor: %q, %v", environ, err)
	}
}

// shimOf returns the supervisor of a container that runs.
func shimOf(t testing.TB, d *Driver, id string) process {
	t.Helper()
	c, err := d.get(id)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shim
}
