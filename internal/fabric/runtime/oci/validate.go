package oci

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
)

// Bounds of a Spec. The lower ones are what a runtime needs to set a container
// up inside its own limits.
const (
	minMemory     = 16 << 20
	minCPUMillis  = 10
	maxCPUMillis  = 1 << 20
	minPIDs       = 16
	maxPIDs       = 1 << 22 // the kernel's own
	defaultTmp    = 64 << 20
	maxArgBytes   = 128 << 10 // one string, as execve(2) allows
	maxArgs       = 4096
	maxStartBytes = 1 << 20 // all arguments, or the whole environment
	maxLabels     = 64
)

// No regular expressions here: every supervisor would spend its first moments
// on compiling them.

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// validID accepts plain path elements only.
func validID(id string) bool {
	if id == "" || len(id) > 128 || !isAlphanumeric(id[0]) {
		return false
	}
	for i := range len(id) {
		if !isAlphanumeric(id[i]) && !strings.ContainsRune("_.-", rune(id[i])) {
			return false
		}
	}
	return true
}

func validHostname(name string) bool {
	if name == "" || len(name) > 63 || !isAlphanumeric(name[0]) || !isAlphanumeric(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if !isAlphanumeric(name[i]) && name[i] != '.' && name[i] != '-' {
			return false
		}
	}
	return true
}

func checkID(id string) error {
	if !validID(id) {
		return kernel.InvalidField("id", "want 1 to 128 of A-Z a-z 0-9 _ . - beginning with a letter or digit")
	}
	return nil
}

// check refuses what cannot be enforced as written. Its errors are kernel.Invalid.
func check(s *runtime.Spec) error {
	for _, err := range []error{
		checkID(s.ID), checkRootfs(s.Rootfs), checkStart(s), checkLimits(s.Limits), checkNetwork(s.Network), checkLabels(s.Labels),
	} {
		if err != nil {
			return err
		}
	}
	if s.Hostname != "" && !validHostname(s.Hostname) {
		return kernel.InvalidField("hostname", "want 1 to 63 of A-Z a-z 0-9 . - beginning and ending with a letter or digit")
	}
	if s.StopSignal < 0 || s.StopSignal > 64 {
		return kernel.InvalidField("stop_signal", "want a signal number from 1 to 64, got %d", int(s.StopSignal))
	}
	return nil
}

func checkRootfs(dir string) error {
	if !filepath.IsAbs(dir) || strings.ContainsRune(dir, 0) {
		return kernel.InvalidField("rootfs", "want an absolute path")
	}
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return &kernel.Error{Kind: kernel.Invalid, Field: "rootfs", Msg: "want a directory with an unpacked image", Err: err}
	}
	return nil
}

// checkStart looks at what is handed to the program.
func checkStart(s *runtime.Spec) error {
	if len(s.Args) == 0 || s.Args[0] == "" {
		return kernel.InvalidField("args", "want the program to run as the first element")
	}
	if err := checkStrings("args", s.Args); err != nil {
		return err
	}
	if err := checkStrings("env", s.Env); err != nil {
		return err
	}
	for i, v := range s.Env {
		if strings.IndexByte(v, '=') < 1 {
			return kernel.InvalidField("env", "element %d: want KEY=value", i)
		}
	}
	return checkCwd(s.Cwd)
}

func checkStrings(field string, list []string) error {
	if len(list) > maxArgs {
		return kernel.InvalidField(field, "want at most %d elements, got %d", maxArgs, len(list))
	}
	total := 0
	for i, v := range list {
		if len(v) >= maxArgBytes || strings.ContainsRune(v, 0) {
			return kernel.InvalidField(field, "element %d: want less than %d bytes and no NUL", i, maxArgBytes)
		}
		total += len(v) + 1
	}
	if total > maxStartBytes {
		return kernel.InvalidField(field, "want at most %d bytes in all, got %d", maxStartBytes, total)
	}
	return nil
}

// checkCwd refuses /proc on top of what a runtime checks: a working directory
// such as /proc/self/fd/7 is how CVE-2024-21626 left the container.
func checkCwd(cwd string) error {
	if cwd == "" {
		return nil
	}
	if !path.IsAbs(cwd) || path.Clean(cwd) != cwd || strings.ContainsRune(cwd, 0) || len(cwd) > 4095 {
		return kernel.InvalidField("cwd", "want a clean absolute path, such as /app")
	}
	if cwd == "/proc" || strings.HasPrefix(cwd, "/proc/") {
		return kernel.InvalidField("cwd", "want a path outside /proc")
	}
	return nil
}

func checkLimits(l runtime.Limits) error {
	switch {
	case l.MemoryBytes < minMemory:
		return kernel.InvalidField("limits.memory_bytes", "want at least %d (16 MiB), got %d", minMemory, l.MemoryBytes)
	case l.CPUMillis < minCPUMillis || l.CPUMillis > maxCPUMillis:
		return kernel.InvalidField("limits.cpu_millis", "want %d to %d, got %d", minCPUMillis, maxCPUMillis, l.CPUMillis)
	case l.PIDs < minPIDs || l.PIDs > maxPIDs:
		return kernel.InvalidField("limits.pids", "want %d to %d, got %d", minPIDs, maxPIDs, l.PIDs)
	case l.TmpBytes < 0:
		return kernel.InvalidField("limits.tmp_bytes", "want 0 for the default, or more, got %d", l.TmpBytes)
	}
	return nil
}

func checkNetwork(n runtime.Network) error {
	if len(n.Nameservers) > 3 { // the resolver reads no more
		return kernel.InvalidField("network.nameservers", "want at most 3, got %d", len(n.Nameservers))
	}
	for _, a := range n.Nameservers {
		if !a.IsValid() {
			return kernel.InvalidField("network.nameservers", "want IP addresses")
		}
	}
	if n.NamespacePath == "" {
		return nil
	}
	return checkNamespace(n.NamespacePath)
}

// checkNamespace makes sure that what is joined is a network namespace, and
// not the host's own, which would undo the isolation.
func checkNamespace(path string) error {
	const field = "network.namespace_path"
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return kernel.InvalidField(field, "want an absolute path")
	}
	theirs, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo would wait for a writer
	if err != nil {
		return &kernel.Error{Kind: kernel.Invalid, Field: field, Msg: "the network namespace cannot be opened", Err: err}
	}
	defer theirs.Close()
	// Anything but a namespace has no such ioctl.
	kind, err := unix.IoctlRetInt(int(theirs.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return kernel.InvalidField(field, "want the path of a network namespace, such as /run/netns/web")
	}
	ours, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("look at own network namespace: %w", err)
	}
	st, err := theirs.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if os.SameFile(st, ours) {
		return kernel.InvalidField(field, "want another network namespace than the host's own")
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return kernel.InvalidField("labels", "want at most %d, got %d", maxLabels, len(labels))
	}
	for k, v := range labels {
		if k == "" || len(k) > 128 || len(v) > 1024 {
			return kernel.InvalidField("labels", "want keys of 1 to 128 bytes and values of up to 1024")
		}
	}
	return nil
}

// fill sets every default, so that the record says what is enforced.
func fill(s runtime.Spec, uid, gid uint32) runtime.Spec {
	if s.UID == 0 {
		s.UID = uid
	}
	if s.GID == 0 {
		s.GID = gid
	}
	if s.Cwd == "" {
		s.Cwd = "/"
	}
	if s.Hostname == "" {
		s.Hostname = hostname(s.ID)
	}
	if s.StopSignal == 0 {
		s.StopSignal = unix.SIGTERM
	}
	if s.Limits.TmpBytes == 0 {
		s.Limits.TmpBytes = min(defaultTmp, s.Limits.MemoryBytes)
	}
	s.Env = slices.Clone(s.Env)
	if !slices.ContainsFunc(s.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		s.Env = append(s.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return s
}

// hostname makes a valid one of an ID: they differ in length and underscores.
func hostname(id string) string {
	name := strings.ReplaceAll(id[:min(len(id), 63)], "_", "-")
	return strings.TrimRight(name, ".-")
}
