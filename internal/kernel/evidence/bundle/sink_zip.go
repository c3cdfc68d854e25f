package bundle

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/flate"
	"provost.dev/provost/internal/kernel"
)

// zipSink writes a zip archive (PKWARE APPNOTE 6.3). It is ours because the
// standard library's writer keeps every directory entry in memory, some 400
// bytes a file; this one spools the directory.
type zipSink struct {
	out     *sumWriter
	deflate *flate.Writer
	dir     *spool
	count   uint64
	buf     []byte
}

const (
	zipLocal       = 0x04034b50
	zipDescriptor  = 0x08074b50
	zipCentral     = 0x02014b50
	zip64End       = 0x06064b50
	zip64Locator   = 0x07064b50
	zipEnd         = 0x06054b50
	zipVersion     = 45 // zip64
	zipUnix        = 3 << 8
	zipStreamed    = 0x8    // flag: sizes follow the data
	zipDeflated    = 8      // method
	zipDate        = 0x0021 // 1980-01-01, the epoch
	zipRegularFile = (0o100000 | fileMode) << 16
)

// NewZip returns a sink that writes a .zip to w. Closing it does not close w;
// tempDir is where the directory waits, empty for the system's.
func NewZip(w io.Writer, tempDir string) (Sink, error) {
	deflate, err := flate.NewWriter(nil, compression)
	if err != nil {
		return nil, fmt.Errorf("start deflate: %w", err)
	}
	return &zipSink{out: newSumWriter(w), deflate: deflate, dir: newSpool(tempDir)}, nil
}

func (z *zipSink) WriteFile(name string, size int64, r io.Reader) error {
	if size >= math.MaxUint32 {
		return kernel.Errorf(kernel.TooLarge, "", "%s has %d bytes, too many for zip; export as tar.gz", name, size)
	}
	offset := z.out.n
	b := le32(z.buf[:0], zipLocal)
	b = le16(b, zipVersion, zipStreamed, zipDeflated, 0, zipDate)
	b = le32(b, 0, 0, 0) // checksum and sizes, in the descriptor
	b = le16(b, uint16(len(name)), 0)
	b = append(b, name...)
	if _, err := z.out.Write(b); err != nil {
		return fmt.Errorf("write header of %s: %w", name, err)
	}
	z.buf = b
	start := z.out.n
	crc := crc32.NewIEEE()
	z.deflate.Reset(z.out)
	if err := copyExactly(z.deflate, io.TeeReader(r, crc), size); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := z.deflate.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	packed := z.out.n - start
	if packed >= math.MaxUint32 {
		return kernel.Errorf(kernel.TooLarge, "", "%s packs to %d bytes, too many for zip; export as tar.gz", name, packed)
	}
	b = le32(z.buf[:0], zipDescriptor, crc.Sum32(), uint32(packed), uint32(size))
	if _, err := z.out.Write(b); err != nil {
		return fmt.Errorf("write sizes of %s: %w", name, err)
	}
	return z.list(name, crc.Sum32(), uint32(packed), uint32(size), uint64(offset))
}

// list adds a file to the central directory.
func (z *zipSink) list(name string, crc, packed, size uint32, offset uint64) error {
	var extra []byte
	if offset >= math.MaxUint32 {
		extra = binary.LittleEndian.AppendUint64(le16(nil, 1, 8), offset) // zip64: the offset alone
	}
	b := le32(z.buf[:0], zipCentral)
	b = le16(b, zipUnix|zipVersion, zipVersion, zipStreamed, zipDeflated, 0, zipDate)
	b = le32(b, crc, packed, size)
	b = le16(b, uint16(len(name)), uint16(len(extra)), 0, 0, 0)
	b = le32(b, zipRegularFile, uint32(min(offset, math.MaxUint32)))
	b = append(append(b, name...), extra...)
	z.buf = b
	z.count++
	_, err := z.dir.Write(b)
	return err
}

func (z *zipSink) Close() (err error) {
	defer func() {
		if cerr := z.dir.Close(); err == nil {
			err = cerr
		}
	}()
	start := uint64(z.out.n)
	r, err := z.dir.reader()
	if err != nil {
		return err
	}
	if _, err := io.Copy(z.out, r); err != nil {
		return fmt.Errorf("write zip directory: %w", err)
	}
	if _, err := z.out.Write(z.end(start)); err != nil {
		return fmt.Errorf("write end of zip directory: %w", err)
	}
	if _, err := z.out.w.Write(sealComment(z.out.digest())); err != nil {
		return fmt.Errorf("write seal: %w", err)
	}
	return nil
}

// end is what follows the central directory, up to the comment that is the seal.
func (z *zipSink) end(start uint64) []byte {
	size, count := uint64(z.dir.size), z.count
	var b []byte
	if start+size >= math.MaxUint32 || count >= math.MaxUint16 {
		b = le32(b, zip64End)
		b = binary.LittleEndian.AppendUint64(b, 44) // length of the rest of this record
		b = le16(b, zipUnix|zipVersion, zipVersion)
		b = le32(b, 0, 0)
		for _, n := range [...]uint64{count, count, size, start} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		b = le32(b, zip64Locator, 0)
		b = binary.LittleEndian.AppendUint64(b, start+size)
		b = le32(b, 1)
	}
	n := uint16(min(count, math.MaxUint16))
	b = le32(b, zipEnd)
	b = le16(b, 0, 0, n, n)
	b = le32(b, uint32(min(size, math.MaxUint32)), uint32(min(start, math.MaxUint32)))
	return le16(b, uint16(sealSize))
}

func (z *zipSink) Abort() error { return z.dir.Close() }

func le16(b []byte, vs ...uint16) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func le32(b []byte, vs ...uint32) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
