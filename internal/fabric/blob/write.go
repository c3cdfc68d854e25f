package blob

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"provost.dev/provost/internal/kernel"
)

// Put stores the bytes of r under want and returns their number. size is what
// the sender announced, or -1. Errors: Invalid with CodeDigestInvalid,
// CodeSizeInvalid or CodeUploadInvalid, TooLarge, Unavailable when the disk is
// full or fails. After any of them nothing is stored. Putting what is there
// already replaces it by the same bytes, which heals a rotten file.
func (s *Store) Put(ctx context.Context, want Digest, size int64, r io.Reader) (int64, error) {
	if want.IsZero() {
		return 0, notSet()
	}
	f, err := os.CreateTemp(s.tmp(), "put-")
	if err != nil {
		return 0, diskError("create temporary blob", err)
	}
	defer func() {
		_ = os.Remove(f.Name()) // gone already when it was published
		_ = f.Close()           // publish has flushed it; an unpublished one is of no interest
	}()
	if err := lock(f); err != nil {
		return 0, diskError("lock temporary blob", err)
	}
	h := want.Algorithm().New()
	n, err := s.transfer(ctx, io.MultiWriter(f, h), r, size, s.cfg.MaxBlob)
	if err != nil {
		return 0, err
	}
	if !want.Matches(h) {
		return 0, mismatch(want, h)
	}
	return n, s.publish(f, want)
}

func mismatch(want Digest, h hash.Hash) error {
	return kernel.Errorf(kernel.Invalid, CodeDigestInvalid, "the content is %s, not %s", want.Algorithm().digest(h), want)
}

// publish makes f, whose bytes are known to be d's, visible as d.
func (s *Store) publish(f *os.File, d Digest) error {
	if err := f.Chmod(0o400); err != nil {
		return diskError("protect blob", err)
	}
	now := s.cfg.Now() // an old upload's file must not be born old enough for Collect
	if err := os.Chtimes(f.Name(), now, now); err != nil {
		return diskError("date blob", err)
	}
	if err := f.Sync(); err != nil {
		return diskError("flush blob", err)
	}
	if err := makeDir(s.shard(d)); err != nil {
		return diskError("create blob directory", err)
	}
	s.life.RLock()
	defer s.life.RUnlock()
	if err := os.Rename(f.Name(), s.path(d)); err != nil {
		return diskError("publish blob", err)
	}
	if err := syncDir(s.shard(d)); err != nil {
		return diskError("flush blob directory", err)
	}
	return nil
}

const (
	bufferSize  = 256 << 10
	checkStride = 32 << 20 // bytes between two looks at the free space
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// cutError marks bytes that stopped coming, as opposed to bytes we could not keep.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

func isCut(err error) bool {
	_, ok := errors.AsType[*cutError](err)
	return ok
}

func cut(n int64, err error) error {
	return &cutError{&kernel.Error{Kind: kernel.Invalid, Code: CodeUploadInvalid, Msg: fmt.Sprintf("the upload broke off after %d bytes", n), Err: err}}
}

// transfer copies r to w and returns the bytes written: exactly size of them when
// size is not negative, at most limit in any case.
func (s *Store) transfer(ctx context.Context, w io.Writer, r io.Reader, size, limit int64) (int64, error) {
	if size > limit {
		return 0, s.tooLarge()
	}
	if err := s.room(max(size, 0)); err != nil {
		return 0, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var n, checked int64
	for {
		if err := ctx.Err(); err != nil {
			return n, cut(n, err)
		}
		k, rerr := r.Read(*buf)
		switch total := n + int64(k); {
		case total > limit:
			return n, s.tooLarge()
		case size >= 0 && total > size:
			return n, wrongSize(size)
		}
		if _, err := w.Write((*buf)[:k]); err != nil {
			return n, diskError("write blob", err)
		}
		n += int64(k)
		switch {
		case rerr == io.EOF && size >= 0 && n != size:
			return n, wrongSize(size)
		case rerr == io.EOF:
			return n, nil
		case rerr != nil:
			return n, cut(n, rerr)
		}
		if n-checked >= checkStride {
			checked = n
			if err := s.room(0); err != nil {
				return n, err
			}
		}
	}
}

func (s *Store) tooLarge() error {
	return kernel.Errorf(kernel.TooLarge, CodeSizeInvalid, "a blob has at most %d bytes", s.cfg.MaxBlob)
}

func wrongSize(size int64) error {
	return kernel.Errorf(kernel.Invalid, CodeSizeInvalid, "%d bytes were announced and another number was sent", size)
}
