package bundle

import (
	"archive/tar"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// compression is the deflate level of archives. Bundles are mostly hex digests,
// which no level makes small; the fastest costs a few per cent of size.
const compression = gzip.BestSpeed

// targzSink writes a gzip-compressed tar.
type targzSink struct {
	out *sumWriter
	gz  *gzip.Writer
	tar *tar.Writer
}

// NewTarGz returns a sink that writes a .tar.gz to w. Closing it does not close w.
func NewTarGz(w io.Writer) (Sink, error) {
	out := newSumWriter(w)
	gz, err := gzip.NewWriterLevel(out, compression)
	if err != nil {
		return nil, fmt.Errorf("start gzip: %w", err)
	}
	return &targzSink{out: out, gz: gz, tar: tar.NewWriter(gz)}, nil
}

func (t *targzSink) WriteFile(name string, size int64, r io.Reader) error {
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: fileMode, ModTime: epoch}
	if err := t.tar.WriteHeader(&h); err != nil {
		return fmt.Errorf("write header of %s: %w", name, err)
	}
	if err := copyExactly(t.tar, r, size); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (t *targzSink) Close() error {
	if err := t.tar.Close(); err != nil {
		return fmt.Errorf("end tar: %w", err)
	}
	if err := t.gz.Close(); err != nil {
		return fmt.Errorf("end gzip: %w", err)
	}
	if _, err := t.out.w.Write(gzipSeal(t.out.digest())); err != nil {
		return fmt.Errorf("write seal: %w", err)
	}
	return nil
}

func (t *targzSink) Abort() error { return nil }
