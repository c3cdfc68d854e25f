package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
)

// What stands in a container's directory, <StateDir>/containers/<id>.
const (
	recordFile  = "record.json" // record: written once, before anything runs
	statusFile  = "status.json" // report: replaced by the supervisor as things happen
	bundleFile  = "config.json" // the OCI bundle's configuration
	socketFile  = "shim.sock"   // where the supervisor listens while it lives
	pidFile     = "init.pid"    // written by the runtime
	runtimeLog  = "runtime.log" // the runtime's own messages, JSON lines
	shimLog     = "shim.log"    // what the supervisor had to say, normally nothing
	rootfsDir   = "rootfs"      // where the supervisor mounts the root, in its own mount namespace
	skeletonDir = "skeleton"    // the mount points and generated files laid over the image
	logDir      = "log"         // segments of package logfile
)

// record is what a container was asked for, with every default filled in. It
// is all that a supervisor gets, and all that a new server needs to go on.
type record struct {
	Spec        runtime.Spec   `json:"spec"`
	Runtime     Runtime        `json:"runtime"`
	RuntimeRoot string         `json:"runtime_root"` // the runtime's --root
	Cgroup      string         `json:"cgroup"`       // linux.cgroupsPath
	Log         logfile.Limits `json:"log"`
	BootID      string         `json:"boot_id"` // of the host's run that it was started in
	CreatedAt   time.Time      `json:"created_at"`
}

// report is what a supervisor says of its container, in its file and on its socket.
type report struct {
	runtime.Status
	// Shim is the supervisor itself.
	Shim process `json:"shim"`
}

// status is the Status of a container of which nothing else is known.
func (r *record) status() runtime.Status {
	return runtime.Status{
		ID:        r.Spec.ID,
		State:     runtime.Starting,
		UID:       r.Spec.UID,
		GID:       r.Spec.GID,
		Rootfs:    r.Spec.Rootfs,
		Limits:    r.Spec.Limits,
		Labels:    r.Spec.Labels,
		CreatedAt: r.CreatedAt,
	}
}

// readJSON reads a file that writeJSON wrote. A missing file is os.ErrNotExist.
func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	return nil
}

// writeJSON replaces the file at path at once: a reader sees the old or the
// new content. With sync it also survives a power cut.
func writeJSON(path string, v any, sync bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(path+".new", path)
}

// bootID names the host's present run; it changes with every boot.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
