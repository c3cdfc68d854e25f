package bundle

import (
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/klauspost/compress/flate"
)

// zipContainer is a .zip file.
type zipContainer struct {
	f    *os.File
	size int64
}

func (z *zipContainer) format() string { return "zip" }
func (z *zipContainer) Close() error   { return z.f.Close() }

func (z *zipContainer) walk(ctx context.Context, visit visitor) error {
	w := &window{r: z.f, budget: maxZipDirectory}
	zr, err := zip.NewReader(w, z.size)
	w.budget = math.MaxInt64
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // checkName decides on paths
		return &damage{reason: "zip directory is damaged or cut off", err: err}
	}
	zr.RegisterDecompressor(zip.Deflate, newInflater())
	for _, f := range zr.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := visitZip(f, visit); err != nil {
			return err
		}
	}
	return z.seal(ctx, zr.Comment)
}

func visitZip(f *zip.File, visit visitor) error {
	if f.Mode().IsDir() {
		return nil
	}
	if !f.Mode().IsRegular() || strings.HasSuffix(f.Name, "/") {
		return &damage{file: printable(f.Name), reason: "not a regular file"}
	}
	r, err := f.Open()
	if err != nil {
		return &damage{file: printable(f.Name), reason: "archive is damaged at this file", err: err}
	}
	err = visit(strip(f.Name), int64(f.UncompressedSize64), r)
	if cerr := r.Close(); err == nil && cerr != nil {
		err = &readError{cerr}
	}
	return damaged(err, f.Name)
}

// seal compares the archive's comment, which is the last thing in it, with the
// hash of everything before.
func (z *zipContainer) seal(ctx context.Context, comment string) error {
	changed := &damage{reason: "bytes of the archive changed after it was sealed, or something was appended", whole: true}
	tail := make([]byte, zipEndSize+len(comment))
	if _, err := z.f.ReadAt(tail, z.size-int64(len(tail))); err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if binary.LittleEndian.Uint32(tail) != zipEnd || string(tail[zipEndSize:]) != comment {
		return changed // the directory does not end where the file ends
	}
	if comment == "" {
		return nil // packed by another tool
	}
	body := &rawReader{ctx: ctx, r: io.NewSectionReader(z.f, 0, z.size-int64(len(comment))), h: sha256.New(), sealed: z.size}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if comment != string(sealComment(digest(body.h.Sum(nil)))) {
		return changed
	}
	return nil
}

// zipEndSize is the size of the end record without its comment.
const zipEndSize = 22

// newInflater returns a decompressor that is used again for file after file:
// its buffers are larger than most artifacts.
func newInflater() func(io.Reader) io.ReadCloser {
	in := bufio.NewReaderSize(nil, 16<<10)
	shared := flate.NewReader(in)
	busy := false
	return func(r io.Reader) io.ReadCloser {
		if busy {
			return flate.NewReader(r)
		}
		in.Reset(r)
		// Without a dictionary Reset cannot fail.
		if err := shared.(flate.Resetter).Reset(in, nil); err != nil {
			return flate.NewReader(r)
		}
		busy = true
		return &inflater{shared, &busy}
	}
}

type inflater struct {
	io.Reader
	busy *bool
}

func (i *inflater) Close() error {
	*i.busy = false
	return nil
}

// window is an io.ReaderAt that reads ahead: files lie one after the other, and
// most are smaller than what a system call costs. Not for concurrent use.
type window struct {
	r      io.ReaderAt
	start  int64
	buf    []byte
	budget int64 // bytes that may still be asked for
}

const windowSize = 256 << 10

// maxZipDirectory bounds the directory, which the zip package keeps in memory
// at several times its size: 1.4 million files of ours.
const maxZipDirectory = 192 << 20

var errZipDirectory = fmt.Errorf("directory of more than %d bytes", maxZipDirectory)

func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if w.budget -= int64(len(p)); w.budget < 0 {
		return 0, errZipDirectory
	}
	if len(p) >= windowSize {
		return w.r.ReadAt(p, off)
	}
	if off < w.start || off+int64(len(p)) > w.start+int64(len(w.buf)) {
		if w.buf == nil {
			w.buf = make([]byte, windowSize)
		}
		n, err := w.r.ReadAt(w.buf[:windowSize], off)
		w.start, w.buf = off, w.buf[:n]
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
	n := copy(p, w.buf[off-w.start:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
