package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/blob"
)

const (
	metadataFile = "image.json"
	treeDir      = "rootfs"
)

// workspace is a directory under tmp for one unpacking. Its lock says that somebody
// is at work in it; the kernel drops the lock when the process dies.
type workspace struct {
	dir  string
	lock *os.File
}

func (c *Cache) newWorkspace() (*workspace, error) {
	dir, err := os.MkdirTemp(c.tmp(), "unpack-")
	if err != nil {
		return nil, diskError("make workspace", err)
	}
	w := &workspace{dir: dir}
	if w.lock, err = lockDir(dir); err == nil {
		err = os.Mkdir(w.rootfs(), 0o700)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		w.discard()
		return nil, diskError("make workspace", err)
	}
	return w, nil
}

func (w *workspace) rootfs() string { return filepath.Join(w.dir, treeDir) }

// discard removes what was not published.
func (w *workspace) discard() {
	_ = os.RemoveAll(w.dir) // what cannot be removed now is swept at the next start
	if w.lock != nil {
		_ = w.lock.Close() // a directory, opened for its lock
	}
}

// publish flushes the workspace and moves it to path. If another process was first,
// its result stays: it has the same digest.
func (w *workspace) publish(path string, img *Image) error {
	b, err := json.Marshal(img)
	if err != nil {
		return diskError("encode image", err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, metadataFile), b, 0o644); err != nil {
		return diskError("write image metadata", err)
	}
	// One flush of the file system instead of one for each of many thousand files.
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return diskError("flush image", err)
	}
	err = os.Rename(w.dir, path)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return diskError("publish image", err)
	}
	return nil
}

// readMetadata reads what publish wrote.
func (c *Cache) readMetadata(d blob.Digest) (*Image, error) {
	b, err := os.ReadFile(filepath.Join(c.path(d), metadataFile))
	if err != nil {
		return nil, diskError("read image metadata", err)
	}
	img := &Image{Rootfs: filepath.Join(c.path(d), treeDir)}
	if err := json.Unmarshal(b, img); err != nil {
		return nil, diskError("read image metadata", err)
	}
	return img, nil
}

// Collect removes the images that keep does not name and that were not asked for
// during age, and returns how many. age must be longer than the time from a Get to
// the moment when keep names its image; images of running containers must be in keep.
func (c *Cache) Collect(ctx context.Context, age time.Duration, keep func(blob.Digest) bool) (int, error) {
	n := 0
	for _, a := range []blob.Algorithm{blob.SHA256, blob.SHA512} {
		entries, err := os.ReadDir(c.images(a))
		if err != nil {
			return n, diskError("list images", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return n, err
			}
			d, err := blob.ParseDigest(string(a) + ":" + e.Name())
			if err != nil || keep(d) {
				continue
			}
			gone, err := c.removeIdle(d, c.cfg.Now().Add(-age))
			if err != nil {
				return n, err
			}
			if gone {
				n++
			}
		}
	}
	return n, nil
}

// removeIdle removes d unless it was asked for since cutoff. It is moved away first, so that nobody finds half of it.
func (c *Cache) removeIdle(d blob.Digest, cutoff time.Time) (bool, error) {
	c.life.Lock()
	fi, err := os.Stat(filepath.Join(c.path(d), metadataFile))
	if err != nil || fi.ModTime().After(cutoff) {
		c.life.Unlock()
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	trash, err := os.MkdirTemp(c.tmp(), "trash-")
	if err == nil {
		err = os.Rename(c.path(d), filepath.Join(trash, "image"))
	}
	c.life.Unlock()
	if err == nil {
		err = os.RemoveAll(trash)
	}
	if err != nil {
		return false, diskError("remove image", err)
	}
	return true, nil
}

// sweep removes workspaces whose owner died.
func (c *Cache) sweep() error {
	entries, err := os.ReadDir(c.tmp())
	if err != nil {
		return diskError("list workspaces", err)
	}
	for _, e := range entries {
		dir := filepath.Join(c.tmp(), e.Name())
		lock, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue // somebody is at work
		}
		if err != nil {
			return diskError("lock workspace", err)
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return diskError("remove workspace", err)
		}
	}
	return nil
}

// lockDir locks a directory for this open file alone.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir makes the entries of dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
