package oci

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
	"provost.dev/provost/internal/kernel"
)

// Finding is one thing that containers need or profit from.
type Finding struct {
	Name   string `json:"name"` // such as "memory limit"
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found
	// Required reports that no container is started without it.
	Required bool `json:"required"`
	// Fix is what to do about it, empty when OK.
	Fix string `json:"fix,omitempty"`
}

// Report is what this host can do for containers.
type Report struct {
	Runtime    Runtime     `json:"runtime"` // zero if none was found
	CgroupMode cgroup.Mode `json:"cgroup_mode"`
	// SwapLimit reports that the memory limit covers swap.
	SwapLimit bool      `json:"swap_limit"`
	Findings  []Finding `json:"findings"`
}

// Err returns why no container can be started, or nil. It is kernel.Unavailable
// and its Fix says what to do.
func (r *Report) Err() error {
	for _, f := range r.Findings {
		if f.Required && !f.OK {
			return &kernel.Error{Kind: kernel.Unavailable, Msg: "containers cannot run on this host: " + f.Name + ": " + f.Detail, Fix: f.Fix}
		}
	}
	return nil
}

func (r *Report) add(f Finding) {
	if f.OK {
		f.Fix = ""
	}
	r.Findings = append(r.Findings, f)
}

// Probe finds out what this host can do. It makes and removes an empty cgroup
// to see whether limits can be set, and starts the runtime to ask its version.
func Probe(ctx context.Context, cfg Config) Report {
	var r Report
	r.probeUser()
	r.probeRuntime(ctx, cfg.Runtime)
	host := r.probeCgroups(filepath.Join("/", cfg.CgroupParent))
	if r.Runtime.Name == "crun" && r.CgroupMode == cgroup.Hybrid {
		r.Runtime.HideUnified = host.Unified()
	}
	r.probeOverlay()
	r.probeNamespaces()
	r.probePidfd()
	return r
}

func (r *Report) probeUser() {
	uid := os.Geteuid()
	r.add(Finding{
		Name: "privilege", OK: uid == 0, Required: true, Detail: fmt.Sprintf("running as uid %d", uid),
		Fix: "run the server as root: without root the kernel enforces memory, CPU and process limits only in cgroups delegated to the user, " +
			"and this driver refuses limits it cannot enforce (it needs root or delegated cgroups, and supports root)",
	})
}

func (r *Report) probeRuntime(ctx context.Context, want string) {
	rt, err := findRuntime(ctx, want)
	if err != nil {
		e := kernel.AsError(err)
		r.add(Finding{Name: "OCI runtime", Required: true, Detail: e.Error(), Fix: e.Fix})
		return
	}
	r.Runtime = rt
	r.add(Finding{Name: "OCI runtime", OK: true, Required: true, Detail: rt.Name + " " + rt.Version + " at " + rt.Path})
	r.add(Finding{
		Name: "system call filter", OK: rt.Seccomp, Required: true, Detail: "seccomp support of " + rt.Path,
		Fix: "install a build of the runtime with libseccomp; distributions' packages have it",
	})
	if rt.Name == "runc" {
		r.add(Finding{
			Name: "runtime version", OK: !olderThan(rt.Version, 1, 2, 8), Detail: "runc " + rt.Version,
			Fix: "runc before 1.2.8 is safe only with its distribution's security updates (CVE-2024-21626, CVE-2025-31133): keep them installed",
		})
	}
}

// olderThan compares the leading numbers of a version such as "1.1.5+ds1".
func olderThan(version string, major, minor, patch int) bool {
	var a, b, c int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &a, &b, &c); n < 2 {
		return false // a build from source; its owner knows
	}
	switch {
	case a != major:
		return a < major
	case b != minor:
		return b < minor
	}
	return c < patch
}

// probeCgroups tries limits in parent or, where the runtime has yet to make
// that, at the root.
func (r *Report) probeCgroups(parent string) *cgroup.Host {
	host, err := cgroup.Detect()
	if err != nil {
		r.CgroupMode = cgroup.None
		r.add(Finding{Name: "cgroups", Required: true, Detail: err.Error(), Fix: "mount /proc"})
		return &cgroup.Host{}
	}
	r.CgroupMode = host.Mode()
	r.add(Finding{
		Name: "cgroups", OK: host.Mode() != cgroup.None, Required: true, Detail: "layout " + string(host.Mode()),
		Fix: "mount a cgroup file system: mount -t cgroup2 none /sys/fs/cgroup",
	})
	if host.Mode() == cgroup.None {
		return host
	}
	if len(host.Dirs(parent)) == 0 {
		parent = "/"
	}
	limits := host.Probe(filepath.Join(parent, fmt.Sprintf("provost-probe-%d-%x", os.Getpid(), rand.Uint32())))
	r.SwapLimit = limits.Swap
	r.addLimit("memory limit", limits.Memory)
	r.addLimit("CPU limit", limits.CPU)
	r.addLimit("process limit", limits.PIDs)
	r.add(Finding{
		Name: "swap limit", OK: limits.Swap || !hasSwap(), Detail: "whether a container over its memory limit can go on in swap",
		Fix: "start the kernel with swapaccount=1, or run without swap",
	})
	return host
}

func (r *Report) addLimit(name string, err error) {
	f := Finding{Name: name, OK: err == nil, Required: true, Detail: "enforced",
		Fix: "make /sys/fs/cgroup writable for the server and enable the controller " +
			"(cgroup v1: kernel option cgroup_enable=memory; inside a container: give it a writable cgroup tree of its own)"}
	if err != nil {
		f.Detail = err.Error()
	}
	r.add(f)
}

// hasSwap reports whether the host has any swap. It errs on the side of a warning.
func hasSwap() bool {
	data, err := os.ReadFile("/proc/swaps")
	return err != nil || strings.Count(string(data), "\n") > 1 // the first line is the heading
}

// probeOverlay mounts a root like a container's, which also has the kernel load
// the module if it is one.
func (r *Report) probeOverlay() {
	f := Finding{Name: "read-only root", OK: true, Required: true, Detail: "overlay file system",
		Fix: "load the kernel module: modprobe overlay (and allow the server to mount: CAP_SYS_ADMIN)"}
	if err := tryOverlay(); err != nil {
		f.OK, f.Detail = false, err.Error()
	}
	r.add(f)
}

func tryOverlay() (err error) {
	dir, err := os.MkdirTemp("", "provost-overlay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image := filepath.Join(dir, "image")
	for _, path := range []string{image, filepath.Join(dir, skeletonDir), filepath.Join(dir, rootfsDir)} {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
	}
	// The mount is gone with its namespace.
	return inPrivateMounts(func() error { return mountRoot(dir, image) })
}

func (r *Report) probeNamespaces() {
	var missing []string
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		if _, err := os.Stat(filepath.Join("/proc/self/ns", ns)); err != nil {
			missing = append(missing, ns)
		}
	}
	detail := "all kinds"
	if len(missing) > 0 {
		detail = "missing: " + strings.Join(missing, ", ")
	}
	r.add(Finding{Name: "namespaces", OK: len(missing) == 0, Required: true, Detail: detail,
		Fix: "use a kernel with all namespaces, 4.6 or later"})
}

// probePidfd asks for what makes killing safe: a handle on a process that never
// comes to mean another one.
func (r *Report) probePidfd() {
	f := Finding{Name: "process handles", OK: true, Required: true, Detail: "pidfd", Fix: "use a kernel of version 5.4 or later"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		f.OK, f.Detail = false, "pidfd: "+err.Error()
	} else {
		_ = unix.Close(fd)
	}
	r.add(f)
}
