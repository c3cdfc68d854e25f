package oci

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
)

// A container's root is a read-only overlay of two directories and no third:
// the skeleton, which is the container's own, above the image, which is shared.
// Without an upper directory nothing can be written, by the process or by the
// runtime, which would otherwise make missing mount points in the shared image.
// The skeleton has the mount points, with the modes they need (runc before 1.2
// gives a tmpfs the mode of the directory under it), and the generated files.
//
// The overlay is mounted in a mount namespace that lasts only while the runtime
// sets the container up; after that the container's own namespace holds it. So
// there is never a mount on the host that someone must remember to undo.

// writeSkeleton makes the skeleton of s in the container's directory dir.
func writeSkeleton(dir string, s *runtime.Spec) error {
	skeleton := filepath.Join(dir, skeletonDir)
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, rootfsDir), 0o700), // the mount point
		makeDir(skeleton, 0o755),
		makeDir(filepath.Join(skeleton, "proc"), 0o555),
		makeDir(filepath.Join(skeleton, "sys"), 0o555),
		makeDir(filepath.Join(skeleton, "dev"), 0o755),
		makeDir(filepath.Join(skeleton, "tmp"), 0o777|os.ModeSticky),
	); err != nil {
		return fmt.Errorf("make root skeleton: %w", err)
	}
	// An image whose /etc is a link has its reasons; a directory would hide it.
	st, err := os.Lstat(filepath.Join(s.Rootfs, "etc"))
	if err == nil && !st.IsDir() {
		return nil
	}
	etc := filepath.Join(skeleton, "etc")
	if err := errors.Join(
		makeDir(etc, 0o755),
		makeFile(filepath.Join(etc, "hostname"), s.Hostname+"\n"),
		makeFile(filepath.Join(etc, "hosts"), hosts(s.Hostname)),
		makeFile(filepath.Join(etc, "resolv.conf"), resolvConf(s.Network)),
	); err != nil {
		return fmt.Errorf("make root skeleton: %w", err)
	}
	return nil
}

// makeDir and makeFile set the mode apart from making, because the umask may
// take from what is asked for.
func makeDir(path string, mode os.FileMode) error {
	return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode))
}

func makeFile(path, content string) error {
	return errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, 0o644))
}

func hosts(hostname string) string {
	return "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 " + hostname + "\n"
}

func resolvConf(n runtime.Network) string {
	var b bytes.Buffer
	for _, a := range n.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

// mountRoot mounts the root of the container in directory dir, over its rootfs
// directory, in the calling thread's mount namespace. The layers are named by
// descriptors, because the process inside can read what they were named by.
func mountRoot(dir, image string) error {
	upper, err := os.Open(filepath.Join(dir, skeletonDir))
	if err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	defer upper.Close()
	lower, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	defer lower.Close()
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d:/proc/self/fd/%d,redirect_dir=nofollow,metacopy=off,xino=off",
		upper.Fd(), lower.Fd())
	err = unix.Mount("overlay", filepath.Join(dir, rootfsDir), "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, options)
	if err != nil {
		return fmt.Errorf("mount root (overlay of %s): %w", image, err)
	}
	return nil
}

// inPrivateMounts runs f on a thread with a mount namespace of its own: it sees
// what the host mounts and unmounts, and the host sees nothing of it. Processes
// that f starts are in that namespace; f must wait for them itself.
func inPrivateMounts(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine and the
		// namespace with it.
		goruntime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("make mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("cut mount propagation: %w", err)
			}
			return f()
		}()
	}()
	return <-result
}
