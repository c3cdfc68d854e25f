package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

const (
	// ratioGrace is what a layer may unpack to before its ratio is looked at: small
	// layers of zeros are common and harmless.
	ratioGrace = 32 << 20
	// zstdWindow bounds the decoder's memory. Layers use at most 8 MiB; --long would ask for gigabytes.
	zstdWindow = 64 << 20
)

type compression uint8

const (
	plainTar compression = iota
	gzipped
	zstandard
)

// compressionOf reads it from the media type: one layer has one reading, so nothing is sniffed.
func compressionOf(mediaType string) (compression, error) {
	switch strings.Replace(mediaType, ".nondistributable", "", 1) {
	case "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar":
		return plainTar, nil
	case "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return gzipped, nil
	case "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return zstandard, nil
	}
	return 0, refuse(RuleMediaType, "%s is not a layer we unpack", clip(mediaType))
}

// applyLayer reads one layer to its end, applies it and checks that it was the one
// that was asked for. On an error the tree is in no particular state.
func (t *tree) applyLayer(ctx context.Context, src Source, d manifest.Descriptor, diffID blob.Digest) error {
	body, err := src.Blob(ctx, d.Digest)
	if err != nil {
		return err
	}
	l := &layer{budget: t.budget}
	l.packed = meter{ctx: ctx, r: body, limit: d.Size, hash: d.Digest.Algorithm().New()}
	err = l.read(t, d, diffID)
	// An error of the source or of a limit surfaces from the decoders in their own clothes; the first one is meant.
	if first := errors.Join(l.packed.err, l.unpacked.err); first != nil {
		err = first
	}
	if cerr := body.Close(); cerr != nil && err == nil {
		err = kernel.Errorf(kernel.Unavailable, "", "the layer could not be read: %w", cerr)
	}
	return err
}

// layer is the chain of readers from the stored bytes to the archive.
type layer struct {
	packed   meter // as stored
	unpacked meter // as an archive
	budget   *budget
}

func (l *layer) read(t *tree, d manifest.Descriptor, diffID blob.Digest) error {
	kind, err := compressionOf(d.MediaType)
	if err != nil {
		return err
	}
	r, closeDecoder, err := decoder(kind, &l.packed)
	if err != nil {
		return refuse(RuleCorrupt, "the compressed layer cannot be read: %w", err)
	}
	defer closeDecoder()
	l.unpacked = meter{ctx: l.packed.ctx, r: r, limit: -1, hash: diffID.Algorithm().New(), each: l.check}
	t.beginLayer(&l.packed.n)
	if err := t.extract(tar.NewReader(&l.unpacked)); err != nil {
		return err
	}
	if err := drain(&l.unpacked, "archive"); err != nil {
		return err
	}
	if err := drain(&l.packed, "compressed layer"); err != nil {
		return err
	}
	switch {
	case l.packed.n != d.Size || !d.Digest.Matches(l.packed.hash):
		return refuse(RuleDigest, "the layer is not %s with %d bytes", d.Digest, d.Size)
	case !diffID.Matches(l.unpacked.hash):
		return refuse(RuleDigest, "the unpacked layer is not its diff_id %s", diffID)
	}
	return nil
}

// check is called as the archive grows.
func (l *layer) check(grown int64) error {
	l.budget.unpacked += grown
	return l.budget.checkBytes(l.unpacked.n, l.budget.unpacked, l.packed.n)
}

// drain reads what is left, which must be the archive's padding: content behind the
// end would be seen by some readers and not by others.
func drain(m *meter, what string) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := m.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return refuse(RuleCorrupt, "there is more behind the end of the %s", what)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse(RuleCorrupt, "the %s cannot be read to its end: %w", what, err)
		}
	}
}

func decoder(c compression, r io.Reader) (io.Reader, func(), error) {
	switch c {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { _ = z.Close() }, nil // has nothing of ours to fail on
	case zstandard:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// meter counts and hashes what passes and remembers the first error that is not the content's.
type meter struct {
	ctx   context.Context // of the one unpacking this meter lives for
	r     io.Reader
	n     int64
	limit int64 // of n, or -1
	hash  hash.Hash
	each  func(grown int64) error
	err   error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.err == nil && m.ctx.Err() != nil {
		m.err = kernel.Errorf(kernel.Unavailable, "", "the image was not unpacked in time: %w", context.Cause(m.ctx))
	}
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.hash.Write(p[:n])
	switch {
	case m.limit >= 0 && m.n > m.limit:
		m.err = refuse(RuleDigest, "the layer has more than the %d bytes it should have", m.limit)
	case m.each != nil:
		m.err = m.each(int64(n))
	case err != nil && err != io.EOF && m.limit >= 0: // the source's, not a decoder's
		m.err = kernel.Errorf(kernel.Unavailable, "", "the layer could not be read: %w", err)
	}
	if m.err != nil {
		return 0, m.err
	}
	return n, err
}
