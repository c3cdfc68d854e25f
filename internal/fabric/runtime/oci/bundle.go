package oci

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
)

// specVersion is the oldest version of the OCI runtime specification that has
// all we use, so that old runtimes take it, too.
const specVersion = "1.0.2"

// maskedPaths and readonlyPaths are the parts of /proc and /sys that tell about
// or reach the host; the lists are the ones container engines agree on.
var (
	maskedPaths = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// syscallFilter is the allow-list for a process without capabilities. It knows
// the host's own architecture only: a system call in another one's numbering,
// such as 32-bit x86, ends the process. That is less kernel to reach, and a
// filter that takes the runtime 5 ms to compile instead of 20.
var syscallFilter = sync.OnceValues(func() (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		return nil, fmt.Errorf("build system call filter: %w", err)
	}
	profile.Architectures = profile.Architectures[:1] // the native one comes first
	return profile, nil
})

// bundle returns the OCI configuration that isolates r on host.
func bundle(r *record, host *Report) (*specs.Spec, error) {
	filter, err := syscallFilter()
	if err != nil {
		return nil, err
	}
	s := &r.Spec
	return &specs.Spec{
		Version:  specVersion,
		Root:     &specs.Root{Path: rootfsDir, Readonly: true},
		Hostname: s.Hostname,
		Process: &specs.Process{
			User:            specs.User{UID: s.UID, GID: s.GID, Umask: new(uint32(0o022))},
			Args:            s.Args,
			Env:             s.Env,
			Cwd:             s.Cwd,
			Capabilities:    &specs.LinuxCapabilities{}, // none, in any set
			NoNewPrivileges: true,
			Rlimits:         rlimits(),
			OOMScoreAdj:     new(oomScoreAdj),
		},
		Mounts: mounts(s.Limits, host),
		Linux: &specs.Linux{
			CgroupsPath:   r.Cgroup,
			Namespaces:    namespaces(s.Network.NamespacePath),
			Resources:     resources(s.Limits, host.SwapLimit),
			Seccomp:       filter,
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
			Sysctl:        sysctls(s.Network.NamespacePath),
		},
	}, nil
}

// oomScoreAdj makes the kernel take a container before the server when the
// host itself runs out of memory.
const oomScoreAdj = 500

// maxOpenFiles is lowered to our own hard limit where that is less, because
// raising that one needs CAP_SYS_RESOURCE.
const maxOpenFiles = 65536

// rlimits bounds what no cgroup does. The number of processes is left to the
// pids cgroup: RLIMIT_NPROC would count all containers of one uid together.
func rlimits() []specs.POSIXRlimit {
	files := uint64(maxOpenFiles)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		files = min(files, own.Max)
	}
	return []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: files, Hard: files},
		{Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
	}
}

// mounts are all made by the kernel: nothing of the host is bound in. What can
// be written cannot be executed, so only the image's own programs ever run.
func mounts(l runtime.Limits, host *Report) []specs.Mount {
	tmpfs := func(dest string, size int64) specs.Mount {
		return specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "noexec", "mode=1777", fmt.Sprintf("size=%d", size)}}
	}
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		tmpfs("/dev/shm", l.TmpBytes),
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		tmpfs("/tmp", l.TmpBytes),
	}
	// Language runtimes size themselves by the limits they read there. On v1
	// crun makes the directory above the hierarchies writable; then do without.
	if host.Runtime.Name != "crun" || host.CgroupMode == cgroup.V2 {
		all = append(all, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}})
	}
	return all
}

func namespaces(netns string) []specs.LinuxNamespace {
	return []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.NetworkNamespace, Path: netns},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.MountNamespace},
		{Type: specs.CgroupNamespace},
	}
}

// sysctls lets a process without capabilities listen on port 80 of a network
// of its own. A joined network is set up by who made it.
func sysctls(netns string) map[string]string {
	if netns != "" {
		return nil
	}
	return map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
}

// cpuPeriod is the kernel's default window of CPU quotas, in microseconds.
const cpuPeriod = 100_000

// resources are the limits; swap says whether swap can be limited with memory.
func resources(l runtime.Limits, swap bool) *specs.LinuxResources {
	memory := &specs.LinuxMemory{Limit: new(l.MemoryBytes)}
	if swap {
		memory.Swap = new(l.MemoryBytes) // memory and swap together
	}
	return &specs.LinuxResources{
		// Runtimes add the harmless ones: null, zero, full, random, urandom, tty.
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Memory:  memory,
		CPU: &specs.LinuxCPU{
			Period: new(uint64(cpuPeriod)),
			Quota:  new(l.CPUMillis * cpuPeriod / 1000),
			// When the host is busy, time is shared in proportion to the limits.
			Shares: new(uint64(min(max(2, l.CPUMillis*1024/1000), 262144))),
		},
		Pids: &specs.LinuxPids{Limit: new(l.PIDs)},
	}
}

// writeBundle makes the bundle of r in dir.
func writeBundle(dir string, r *record, host *Report) error {
	config, err := bundle(r, host)
	if err != nil {
		return err
	}
	if err := writeSkeleton(dir, &r.Spec); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, bundleFile), config, false)
}
