package blob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"provost.dev/provost/internal/kernel"
)

// diskError is the one place where errors of the file system become ours.
func diskError(op string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return full(fmt.Errorf("%s: %w", op, err))
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return &kernel.Error{Kind: kernel.Unavailable, Msg: "the blob store cannot be written; nothing was changed", Err: fmt.Errorf("%s: %w", op, err)}
	}
	return fmt.Errorf("%s: %w", op, err)
}

func full(err error) error {
	return &kernel.Error{Kind: kernel.Unavailable, Msg: "the disk is full; nothing was changed", Err: err}
}

// room checks that n more bytes leave the reserve untouched.
func (s *Store) room(n int64) error {
	if s.cfg.Reserve < 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Dir, &st); err != nil {
		return diskError("ask for free space", err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free-n < s.cfg.Reserve {
		return full(fmt.Errorf("%d bytes are free, %d are asked for and %d are reserved", free, n, s.cfg.Reserve))
	}
	return nil
}

// makeDir creates dir and what is missing above it, so that it is there after a power cut.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case errors.Is(err, os.ErrNotExist):
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		return makeDir(dir)
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the entries of dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }

var errBusy = errors.New("locked by another writer")

func isBusy(err error) bool { return errors.Is(err, errBusy) }

// lock takes f for this open file alone, or returns errBusy. The kernel drops the
// lock when f is closed or the process dies.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

// openLocked opens path for reading and writing and locks it. A file that was
// renamed or removed before we had the lock does not exist any more: without
// that look we could write into a blob that was published a moment ago.
func openLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(mine, there) {
			err = os.ErrNotExist
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}
