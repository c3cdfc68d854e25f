// Package cgroup looks at and clears up the kernel's control groups of
// containers, on the three layouts that hosts have: v1 (one hierarchy per
// controller), hybrid (v1 plus an empty v2 tree) and v2 (one tree). Making the
// groups and setting their limits is left to the OCI runtime; this package is
// for what runtimes don't do: saying what the host can enforce, telling
// whether the kernel killed for memory, and leaving nothing behind when a
// runtime or a supervisor died half-way.
//
// A group is named by its absolute path below each hierarchy's root, as in
// linux.cgroupsPath of the OCI runtime specification.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mode is the layout of a host's cgroups.
type Mode string

// The layouts. None means that no cgroup file system is mounted.
const (
	V1     Mode = "v1"
	Hybrid Mode = "hybrid"
	V2     Mode = "v2"
	None   Mode = "none"
)

// Host is the cgroup file systems of one host. It does not change after Detect.
type Host struct {
	mode Mode
	// v1 maps a controller, or "name=systemd", to its mount point.
	v1 map[string]string
	// unified is the mount point of the v2 tree, or empty.
	unified string
}

// Detect reads the mounts of the calling process.
func Detect() (*Host, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	return parseMounts(f)
}

// v1Controllers are the super options that name a hierarchy; anything else
// there is a mount flag.
var v1Controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
	"hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"}

// parseMounts reads the format of proc(5), "/proc/pid/mountinfo". The first
// mount of a hierarchy counts; others are copies of it.
func parseMounts(r io.Reader) (*Host, error) {
	h := &Host{v1: map[string]string{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		mountpoint := unescape(left[4])
		switch right[0] {
		case "cgroup2":
			if h.unified == "" {
				h.unified = mountpoint
			}
		case "cgroup":
			for option := range strings.SplitSeq(right[len(right)-1], ",") {
				if !slices.Contains(v1Controllers, option) && !strings.HasPrefix(option, "name=") {
					continue
				}
				if _, ok := h.v1[option]; !ok {
					h.v1[option] = mountpoint
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	h.mode = h.layout()
	return h, nil
}

func (h *Host) layout() Mode {
	switch {
	case len(h.v1) == 0 && h.unified == "":
		return None
	case len(h.v1) == 0:
		return V2
	case h.unified != "":
		return Hybrid
	}
	return V1
}

// unescape undoes the octal escapes of mountinfo: \040 is a blank.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Mode is the host's layout.
func (h *Host) Mode() Mode { return h.mode }

// Unified is the mount point of the v2 tree, empty when there is none. On a
// Hybrid host it has no controllers that containers need.
func (h *Host) Unified() string { return h.unified }

// mount returns where controller is found: its own hierarchy, or the one tree of v2.
func (h *Host) mount(controller string) (string, bool) {
	if h.mode == V2 {
		return h.unified, true
	}
	m, ok := h.v1[controller]
	return m, ok
}

// mounts returns every hierarchy's mount point, each once, sorted.
func (h *Host) mounts() []string {
	var all []string
	for _, m := range h.v1 {
		all = append(all, m)
	}
	if h.unified != "" {
		all = append(all, h.unified)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Dirs returns the directories of group that exist, over all hierarchies.
func (h *Host) Dirs(group string) []string {
	var dirs []string
	for _, m := range h.mounts() {
		dir := filepath.Join(m, group)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Children returns the names of the groups directly below group in any
// hierarchy, each once, sorted.
func (h *Host) Children(group string) ([]string, error) {
	var names []string
	for _, dir := range h.Dirs(group) {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed since Dirs looked
		}
		if err != nil {
			return nil, fmt.Errorf("list cgroup: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// OOMKills returns how many processes of group the kernel has killed because
// the group went over its memory limit. A group that is gone counts 0.
func (h *Host) OOMKills(group string) (uint64, error) {
	m, ok := h.mount("memory")
	if !ok {
		return 0, nil
	}
	// Both files have lines "key number"; v1 says oom_kill since Linux 4.13.
	file := "memory.oom_control"
	if h.mode == V2 {
		file = "memory.events"
	}
	data, err := os.ReadFile(filepath.Join(m, group, file))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read out-of-memory kills: %w", err)
	}
	return counter(data, "oom_kill")
}

// counter finds "key number" in a flat keyed cgroup file; a missing key is 0.
func counter(data []byte, key string) (uint64, error) {
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) != 2 || string(fields[0]) != key {
			continue
		}
		n, err := strconv.ParseUint(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", key, err)
		}
		return n, nil
	}
	return 0, nil
}
