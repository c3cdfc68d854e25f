package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// tarContainer is a .tar.gz or .tar file.
type tarContainer struct {
	f    *os.File
	size int64
	gzip bool
}

func (t *tarContainer) format() string {
	if t.gzip {
		return "tar.gz"
	}
	return "tar"
}

func (t *tarContainer) Close() error { return t.f.Close() }

// rawReader reads the file, hashes all but the last bytes, where the seal would
// be, and remembers errors of the disk, which are not faults of the bundle.
type rawReader struct {
	ctx    context.Context
	r      io.Reader
	h      hash.Hash
	sealed int64 // bytes that the hash still takes
	err    error
}

func (r *rawReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.r.Read(p)
	if m := min(int64(n), r.sealed); m > 0 {
		r.h.Write(p[:m])
		r.sealed -= m
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (t *tarContainer) walk(ctx context.Context, visit visitor) error {
	raw := &rawReader{ctx: ctx, r: io.NewSectionReader(t.f, 0, t.size), h: sha256.New(), sealed: max(t.size-int64(gzipSealSize), 0)}
	err := t.read(raw, visit)
	if raw.err != nil {
		return fmt.Errorf("read bundle: %w", raw.err)
	}
	return err
}

func (t *tarContainer) read(raw *rawReader, visit visitor) error {
	buffered := bufio.NewReaderSize(raw, int(min(t.size, 256<<10)))
	if !t.gzip {
		return walkTar(buffered, visit)
	}
	gz, err := gzip.NewReader(buffered)
	if err != nil {
		return &damage{reason: "not a gzip file", err: err}
	}
	gz.Multistream(false)
	if err := walkTar(bufio.NewReaderSize(gz, 64<<10), visit); err != nil {
		return err
	}
	// One gzip member holds the tar. What follows can only be the seal.
	rest, err := io.ReadAll(io.LimitReader(buffered, int64(gzipSealSize)+1))
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return nil // packed by another tool
	}
	var sum digest
	raw.h.Sum(sum[:0])
	if !bytes.Equal(rest, gzipSeal(sum)) {
		return &damage{reason: "bytes of the archive changed after it was sealed, or something was appended", whole: true}
	}
	return nil
}

// walkTar visits the files of a tar stream and reads it to its end, so that a
// checksum behind it is checked.
func walkTar(r io.Reader, visit visitor) error {
	tr := tar.NewReader(r)
	last := ""
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &damage{file: printable(last), reason: "archive is damaged or cut off after this file", err: err}
		}
		last = h.Name
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return &damage{file: printable(last), reason: fmt.Sprintf("entry of type %q; only files and directories belong in a bundle", h.Typeflag)}
		}
		if strings.HasSuffix(h.Name, "/") {
			return &damage{file: printable(last), reason: "file name ends in a slash"}
		}
		if err := visit(strip(h.Name), h.Size, tr); err != nil {
			return damaged(err, last)
		}
	}
	return endOfTar(r)
}

// damaged turns a decoder's error while a file was read into a fault of the
// container, and leaves other errors alone.
func damaged(err error, file string) error {
	var read *readError
	if errors.As(err, &read) {
		return &damage{file: printable(file), reason: "archive is damaged or cut off inside this file", err: read.err}
	}
	return err
}

// endOfTar reads the padding behind the end of a tar.
func endOfTar(r io.Reader) error {
	var buf [4 << 10]byte
	for {
		n, err := r.Read(buf[:])
		for _, b := range buf[:n] {
			if b != 0 {
				return &damage{reason: "data behind the end of the archive", whole: true}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &damage{reason: "archive is damaged", err: err, whole: true}
		}
	}
}
