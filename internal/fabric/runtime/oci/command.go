package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
)

// commandTimeout bounds one run of the runtime, which normally takes some tens
// of milliseconds; a loaded host may need seconds.
const commandTimeout = 60 * time.Second

// command prepares a run of the runtime for the container whose directory is
// dir. It is killed when its caller's thread ends, so that nothing goes on
// setting up a container that nobody watches.
func (r *record) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	global := []string{"--root", r.RuntimeRoot, "--log", runtimeLog, "--log-format", "json"}
	cmd := exec.CommandContext(ctx, r.Runtime.Path, append(global, args...)...)
	cmd.Dir = dir
	// The server's environment holds its secrets.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	return cmd
}

// runDetached has the runtime set the container up and start it. When it
// returns nil the process runs, or has run, with stdout and stderr as its output.
func (r *record) runDetached(dir string, stdout, stderr *os.File) error {
	return inPrivateMounts(func() error {
		if err := r.hideUnified(); err != nil {
			return err
		}
		if err := mountRoot(dir, r.Spec.Rootfs); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		defer cancel()
		cmd := r.command(ctx, dir, "run", "--detach", "--bundle", dir, "--pid-file", pidFile, r.Spec.ID)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd.Run()
	})
}

// deleteRuntimeState has the runtime kill what is left of the container and
// forget it. A container that it doesn't know is no error.
func (r *record) deleteRuntimeState(ctx context.Context, dir string) error {
	return inPrivateMounts(func() error {
		if err := r.hideUnified(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		if out, err := r.command(ctx, dir, "delete", "--force", r.Spec.ID).CombinedOutput(); err != nil {
			return fmt.Errorf("%s delete: %w: %s", r.Runtime.Name, err, bytes.TrimSpace(out))
		}
		return nil
	})
}

func (r *record) hideUnified() error {
	if r.Runtime.HideUnified == "" {
		return nil
	}
	if err := unix.Unmount(r.Runtime.HideUnified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hide %s from %s: %w", r.Runtime.HideUnified, r.Runtime.Name, err)
	}
	return nil
}

// sweep removes what remains of the container outside its directory: processes,
// the runtime's state, cgroups. The runtime does it where it can; what it
// leaves, or all of it when it cannot be run, goes by hand.
func (r *record) sweep(ctx context.Context, dir string) error {
	host, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := host.Kill(ctx, r.Cgroup); err != nil {
		return err
	}
	// Without state there is nothing to delete, and no reason to start a process.
	state := filepath.Join(r.RuntimeRoot, r.Spec.ID)
	var deleteErr error
	if _, err := os.Lstat(state); err == nil {
		deleteErr = r.deleteRuntimeState(ctx, dir)
	}
	if err := errors.Join(os.RemoveAll(state), host.Remove(ctx, r.Cgroup)); err != nil {
		return errors.Join(err, deleteErr)
	}
	return nil
}

// maxMessage bounds what a runtime's message takes in a status.
const maxMessage = 2048

// runtimeMessage returns the runtime's last error, without the paths of this
// host, or fallback if it logged none.
func (r *record) runtimeMessage(dir, fallback string) string {
	data, err := readTail(filepath.Join(dir, runtimeLog), 64<<10)
	if err != nil {
		return fallback
	}
	msg := lastError(data)
	if msg == "" {
		return fallback
	}
	for _, prefix := range []string{"runc run failed: ", "unable to start container process: ", "container_linux.go:"} {
		msg = strings.TrimPrefix(msg, prefix)
	}
	msg = strings.NewReplacer(
		filepath.Join(dir, rootfsDir), "", dir, "bundle", r.Spec.Rootfs, "image", r.RuntimeRoot, "runtime",
	).Replace(msg)
	return msg[:min(len(msg), maxMessage)]
}

// lastError finds the last entry of level error in a runtime's JSON log. Lines
// that are something else are passed over.
func lastError(log []byte) string {
	last := ""
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			last = strings.ToValidUTF8(entry.Msg, "\uFFFD")
		}
	}
	return last
}

// readTail reads the last n bytes of a file.
func readTail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-n)
	data := make([]byte, min(n, st.Size()))
	read, err := f.ReadAt(data, from)
	if read == len(data) {
		err = nil
	}
	return data[:read], err
}
