package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits says which limits a host enforces, found out by setting them.
type Limits struct {
	Memory, CPU, PIDs error // nil: enforced; otherwise what stands against it
	// Swap reports that the memory limit can cover swap, too.
	Swap bool
}

// limitFile is where one limit is written, per layout.
type limitFile struct {
	controller string
	v1, v2     string
	v1Value    string
	v2Value    string
}

var (
	memoryLimit = limitFile{"memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864"}
	cpuLimit    = limitFile{"cpu", "cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"}
	pidsLimit   = limitFile{"pids", "pids.max", "pids.max", "64", "64"}
)

// Probe makes group for a moment, sets each limit in it, and removes it. The
// group must not exist.
func (h *Host) Probe(group string) Limits {
	return Limits{
		Memory: h.probe(group, memoryLimit),
		CPU:    h.probe(group, cpuLimit),
		PIDs:   h.probe(group, pidsLimit),
		Swap:   h.swap(),
	}
}

func (h *Host) probe(group string, limit limitFile) error {
	if h.mode == V2 {
		// Below the root, files of a controller appear only after every parent
		// has passed it on, which the runtime does when it makes the group.
		// Whether the controller is there and we may make groups is what counts.
		if err := h.hasUnified(limit.controller); err != nil {
			return err
		}
		return h.tryWrite(filepath.Join(h.unified, group), "", "")
	}
	root, ok := h.v1[limit.controller]
	if !ok {
		return fmt.Errorf("the kernel has no %s controller mounted", limit.controller)
	}
	return h.tryWrite(filepath.Join(root, group), limit.v1, limit.v1Value)
}

// tryWrite makes the group's directory dir, writes value to file in it unless
// file is empty, and removes the directory again.
func (h *Host) tryWrite(dir, file, value string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Rmdir(dir)) }()
	if file == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

func (h *Host) hasUnified(controller string) error {
	data, err := os.ReadFile(filepath.Join(h.unified, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(data)), controller) {
		return fmt.Errorf("the %s controller is not available in %s", controller, h.unified)
	}
	return nil
}

// swap reports whether a limit on swap can be set at all. On v2 it always can;
// v1 has the file only if the kernel was started with swapaccount=1.
func (h *Host) swap() bool {
	if h.mode == V2 {
		return true
	}
	m, ok := h.v1["memory"]
	if !ok {
		return false
	}
	_, err := os.Stat(filepath.Join(m, "memory.memsw.limit_in_bytes"))
	return err == nil
}
