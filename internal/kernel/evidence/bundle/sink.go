package bundle

import (
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"provost.dev/provost/internal/kernel"
)

// Sink receives the files of a bundle, each once, in a fixed order. A sink is
// used by one goroutine. After an error only Abort may be called.
type Sink interface {
	// WriteFile stores size bytes of r under name, a clean relative path with
	// slashes. Fewer or more bytes are an error.
	WriteFile(name string, size int64, r io.Reader) error
	// Close completes the bundle.
	Close() error
	// Abort frees what the sink holds. What was written so far is not a bundle.
	Abort() error
}

// epoch is the modification time of every file, so that equal exports are equal
// bytes. It is the earliest that zip can express.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

const fileMode = 0o644

// dirSink writes a directory.
type dirSink struct {
	root *os.Root
	made map[string]bool
}

// NewDir returns a sink that writes into the directory dir, which is created if
// it is missing and must be empty.
func NewDir(dir string) (Sink, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create bundle directory: %w", err)
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read bundle directory: %w", err)
	}
	if len(old) > 0 {
		return nil, kernel.Errorf(kernel.Conflict, "", "directory %s is not empty", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle directory: %w", err)
	}
	return &dirSink{root: root, made: map[string]bool{".": true}}, nil
}

func (d *dirSink) WriteFile(name string, size int64, r io.Reader) error {
	if dir := path.Dir(name); !d.made[dir] {
		if err := d.root.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create directory of %s: %w", name, err)
		}
		d.made[dir] = true
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	err = copyExactly(f, r, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.root.Chtimes(name, epoch, epoch)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (d *dirSink) Close() error { return d.root.Close() }
func (d *dirSink) Abort() error { return d.root.Close() }

// copyExactly copies size bytes and makes sure that r has no more.
func copyExactly(w io.Writer, r io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return err
	}
	if n < size {
		return fmt.Errorf("%d bytes came, %d were announced: %w", n, size, io.ErrUnexpectedEOF)
	}
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n > 0 || err != io.EOF {
		return fmt.Errorf("more came than the %d bytes announced", size)
	}
	return nil
}
