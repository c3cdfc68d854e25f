package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"crypto/sha256"
)

// spoolMemory is how much of a file is held in memory before it goes to disk.
const spoolMemory = 1 << 20

// spool holds a file that must be written before it can be used: formats want
// sizes and hashes ahead of content. Small ones stay in memory, so the
// footprint does not grow with the log.
type spool struct {
	dir  string // for the temporary file; empty is the system's
	mem  []byte
	file *os.File
	out  *bufio.Writer // to file
	sum  hash.Hash
	size int64
}

func newSpool(dir string) *spool { return &spool{dir: dir, sum: sha256.New()} }

func (s *spool) Write(p []byte) (int, error) {
	s.sum.Write(p)
	s.size += int64(len(p))
	if s.out == nil && len(s.mem)+len(p) <= spoolMemory {
		s.mem = append(s.mem, p...)
		return len(p), nil
	}
	if s.out == nil {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	n, err := s.out.Write(p)
	if err != nil {
		return n, fmt.Errorf("write temporary file: %w", err)
	}
	return n, nil
}

func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "provost-bundle-*")
	if err != nil {
		return fmt.Errorf("open temporary file: %w", err)
	}
	s.file, s.out = f, bufio.NewWriterSize(f, 256<<10)
	if _, err := s.out.Write(s.mem); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	s.mem = nil
	return nil
}

// reader returns what was written, from the start. Writing is over by then.
func (s *spool) reader() (io.Reader, error) {
	if s.out == nil {
		return bytes.NewReader(s.mem), nil
	}
	if err := s.out.Flush(); err != nil {
		return nil, fmt.Errorf("write temporary file: %w", err)
	}
	return io.NewSectionReader(s.file, 0, s.size), nil
}

func (s *spool) digest() (d digest) {
	s.sum.Sum(d[:0])
	return d
}

func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}
