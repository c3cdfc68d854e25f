package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"provost.dev/provost/internal/kernel"
)

// Runtime is an OCI runtime found on this host.
type Runtime struct {
	Name    string `json:"name"`    // "runc" or "crun"
	Path    string `json:"path"`    // absolute
	Version string `json:"version"` // as it calls itself, such as "1.1.5+ds1"
	// Seccomp reports that it can filter system calls.
	Seccomp bool `json:"seccomp"`
	// HideUnified is where it must not see the v2 cgroup tree, or empty. crun
	// refuses hybrid hosts, but works on their v1 hierarchies when that mount
	// is taken out of its sight.
	HideUnified string `json:"hide_unified,omitempty"`
}

// runtimeNames are looked for in this order. runc is first because it takes
// every cgroup layout as it is.
var runtimeNames = []string{"runc", "crun"}

// runtimeDirs are searched after PATH, which often lacks the sbin directories
// where distributions put runtimes.
var runtimeDirs = []string{"/usr/sbin", "/usr/local/sbin", "/sbin"}

// findRuntime looks for want, a name or a path, or for any known runtime if
// want is empty, and asks it what it is. The error is kernel.Unavailable.
func findRuntime(ctx context.Context, want string) (Runtime, error) {
	names := runtimeNames
	if want != "" {
		names = []string{want}
	}
	for _, name := range names {
		if path, ok := lookPath(name); ok {
			return identify(ctx, path)
		}
	}
	return Runtime{}, &kernel.Error{
		Kind: kernel.Unavailable,
		Msg:  fmt.Sprintf("no OCI runtime is installed (looked for %s)", strings.Join(names, ", ")),
		Fix:  "install one: apt-get install runc (Debian, Ubuntu), dnf install runc (Fedora, RHEL), or set the runtime's path in the configuration",
	}
}

func lookPath(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		abs, err := filepath.Abs(path)
		return abs, err == nil
	}
	if strings.ContainsRune(name, '/') {
		return "", false
	}
	for _, dir := range runtimeDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// identify runs "path --version". Both runtimes say "NAME version X" on the
// first line; runc has a line "libseccomp: X" and crun a word "+SECCOMP".
func identify(ctx context.Context, path string) (Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return Runtime{}, unusable(path, err)
	}
	name, version, ok := parseVersion(out)
	if !ok {
		return Runtime{}, unusable(path, errors.New("it is neither runc nor crun"))
	}
	return Runtime{
		Name:    name,
		Path:    path,
		Version: version,
		Seccomp: bytes.Contains(out, []byte("libseccomp:")) || bytes.Contains(out, []byte("+SECCOMP")),
	}, nil
}

func parseVersion(out []byte) (name, version string, ok bool) {
	line, _, _ := bytes.Cut(out, []byte{'\n'})
	fields := strings.Fields(string(line))
	if len(fields) < 3 || fields[1] != "version" || fields[0] != "runc" && fields[0] != "crun" {
		return "", "", false
	}
	return fields[0], fields[2], true
}

func unusable(path string, err error) error {
	return &kernel.Error{
		Kind: kernel.Unavailable,
		Msg:  "the OCI runtime " + path + " does not answer",
		Fix:  "run " + path + " --version; install runc or crun, or correct the runtime's path in the configuration",
		Err:  err,
	}
}
