package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
)

// process names a process of this host's run beyond doubt: a number alone is
// given to another process some time after its owner ended.
type process struct {
	PID int `json:"pid"`
	// Start is when it started, in clock ticks since boot.
	Start uint64 `json:"start"`
}

// thisProcess names the caller.
func thisProcess() (process, error) {
	p := process{PID: os.Getpid()}
	var err error
	p.Start, err = startTime(p.PID)
	return p, err
}

// kill ends the process, if it still is the one meant, and waits until it has
// ended or ctx is done.
func (p process) kill(ctx context.Context) error {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pin process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// Pinned first and compared after: now the number cannot change its owner.
	start, err := startTime(p.PID)
	if errors.Is(err, os.ErrNotExist) || err == nil && start != p.Start {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return cgroup.WaitPidfd(ctx, fd)
}

// startTime reads when process pid started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStartTime(data)
}

// parseStartTime reads field 22 of proc(5), "/proc/pid/stat". Field 2 is the
// program's name in parentheses and may hold anything, parentheses included.
func parseStartTime(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("read start time: no program name")
	}
	fields := bytes.Fields(stat[end+1:]) // from field 3 on
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time: %d fields", len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
