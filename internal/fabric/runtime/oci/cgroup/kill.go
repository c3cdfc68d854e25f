package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Kill ends every process in group and in the groups below it with SIGKILL, and
// returns once none is left or ctx is done. Processes that fork meanwhile are
// killed in the next round.
func (h *Host) Kill(ctx context.Context, group string) error {
	for {
		pids, err := h.procs(group)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if err := h.killRound(ctx, group, pids); err != nil {
			return err
		}
	}
}

// killRound kills pids and waits for each to end. A number may have been given
// to another process since it was read, so each process is pinned by a pidfd
// and only killed if group still lists it after that.
func (h *Host) killRound(ctx context.Context, group string, pids []int) error {
	pinned := map[int]int{}
	defer func() {
		for _, fd := range pinned {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pin process %d: %w", pid, err)
		}
		pinned[pid] = fd
	}
	still, err := h.procs(group)
	if err != nil {
		return err
	}
	for pid, fd := range pinned {
		if !slices.Contains(still, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
		if err := WaitPidfd(ctx, fd); err != nil {
			return fmt.Errorf("wait for killed process %d: %w", pid, err)
		}
	}
	return nil
}

// WaitPidfd blocks until the process behind the pidfd has ended, whether or
// not it has been reaped, or ctx is done.
func WaitPidfd(ctx context.Context, pidfd int) error {
	for {
		// The kernel wakes us at the end of the process; the slices are only
		// there so that a cancelled ctx is noticed.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll pidfd: %w", err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// procs lists the processes in group and below, over all hierarchies: one that
// was caught half-way through being moved in is in some of them only.
func (h *Host) procs(group string) ([]int, error) {
	var pids []int
	for _, dir := range h.Dirs(group) {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if !d.IsDir() {
				return nil
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return ignoreGone(err)
			}
			for line := range bytes.Lines(data) {
				pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
				if err != nil {
					return err
				}
				if pid > 0 { // 0 is a process of a pid namespace that we don't see
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", group, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// ignoreGone drops the errors of a group removed while it was read: ENODEV is
// what an open file of a removed group says.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Remove removes group, and those below it, from every hierarchy. Processes
// must have been killed before. Groups that are gone already are no error.
func (h *Host) Remove(ctx context.Context, group string) error {
	for _, dir := range h.Dirs(group) {
		if err := removeTree(ctx, dir); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", group, err)
		}
	}
	return nil
}

func removeTree(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(ctx, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for {
		err := ignoreGone(unix.Rmdir(dir))
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		// The kernel takes a moment to let go of a killed process, and has no
		// way to tell when it did on v1.
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still in use: %w", dir, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// RemoveIfEmpty removes group itself where it has neither processes nor groups
// below it, and leaves it alone where it has.
func (h *Host) RemoveIfEmpty(group string) error {
	for _, dir := range h.Dirs(group) {
		err := ignoreGone(unix.Rmdir(dir))
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove empty cgroup %s: %w", group, err)
		}
	}
	return nil
}
