package bundle

import (
	"crypto/sha256"
	"hash"
	"io"
)

// The last bytes of the archives we write are a seal over all bytes before it.
// SHA256SUMS covers the files, the seal what is left: headers, times, padding.
// It holds no key and proves nothing about origin; it finds damage. Archives
// packed again by other tools have none.
const (
	sealText = "provost-seal sha256:"
	sealSize = len(sealText) + 2*sha256.Size
)

func sealComment(d digest) []byte { return append([]byte(sealText), d.hex()...) }

// gzipSeal is the seal of a .tar.gz: an empty gzip member (RFC 1952) whose
// comment is the seal. Decompressors join members, so it adds nothing.
func gzipSeal(d digest) []byte {
	const flagComment = 0x10
	b := append([]byte{0x1f, 0x8b, 8, flagComment, 0, 0, 0, 0, 0, 255}, sealComment(d)...)
	b = append(b, 0)    // ends the comment
	b = append(b, 3, 0) // an empty final deflate block
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

const gzipSealSize = 10 + sealSize + 1 + 2 + 8

// sumWriter hashes what passes.
type sumWriter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newSumWriter(w io.Writer) *sumWriter { return &sumWriter{w: w, h: sha256.New()} }

func (s *sumWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.h.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (s *sumWriter) digest() (d digest) {
	s.h.Sum(d[:0])
	return d
}
