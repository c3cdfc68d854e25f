package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel"
)

// Upload names one resumable upload. All three parts must be right to find it:
// someone else's upload, or one begun for another purpose, is unknown.
type Upload struct {
	Owner   string // who may go on with it; uploads are counted per owner
	Purpose string // what it is for, such as the repository it was begun in
	ID      string // a random UUID
}

func (s *Store) uploadPath(u Upload) string {
	return filepath.Join(s.ownerDir(u.Owner), short(u.Purpose)+"."+u.ID)
}

func (s *Store) ownerDir(owner string) string { return filepath.Join(s.uploads(), short(owner)) }

// short is a file name for any string: 128 bits of its hash, enough that nobody finds a second one.
func short(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:16])
}

func unknownUpload() error {
	return kernel.Errorf(kernel.NotFound, CodeUploadUnknown, "no such upload; it may have been finished, cancelled or swept")
}

// Begin opens an upload. It returns TooMany with CodeTooMany when owner has
// Config.MaxUploads of them open, Unavailable when the disk is full.
func (s *Store) Begin(_ context.Context, owner, purpose string) (Upload, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return Upload{}, kernel.Errorf(kernel.Internal, "", "make an upload id: %w", err)
	}
	u := Upload{Owner: owner, Purpose: purpose, ID: id.String()}
	if err := s.room(0); err != nil {
		return Upload{}, err
	}
	s.begin.Lock()
	defer s.begin.Unlock()
	if err := makeDir(s.ownerDir(owner)); err != nil {
		return Upload{}, diskError("create upload directory", err)
	}
	open, err := os.ReadDir(s.ownerDir(owner))
	if err != nil {
		return Upload{}, diskError("count uploads", err)
	}
	if len(open) >= s.cfg.MaxUploads {
		return Upload{}, kernel.Errorf(kernel.TooMany, CodeTooMany, "%d uploads are open already; finish or cancel one", len(open))
	}
	f, err := os.OpenFile(s.uploadPath(u), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Upload{}, diskError("create upload", err)
	}
	if err := f.Close(); err != nil {
		return Upload{}, diskError("create upload", err)
	}
	return u, nil
}

// Offset is the number of bytes the upload holds, where the next Append starts.
func (s *Store) Offset(_ context.Context, u Upload) (int64, error) {
	if !validID(u.ID) {
		return 0, unknownUpload()
	}
	fi, err := os.Stat(s.uploadPath(u))
	if isMissing(err) {
		return 0, unknownUpload()
	}
	if err != nil {
		return 0, diskError("stat upload", err)
	}
	return fi.Size(), nil
}

// Append adds the bytes of r to the upload and returns the new offset. offset
// must be the present one (else Conflict with CodeUploadOffset); size is the
// announced length of r, or -1.
//
// When r breaks off, what came is kept and the upload can be resumed from
// Offset. After every other error (a false size, a limit, a full disk) the
// upload is as it was before.
func (s *Store) Append(ctx context.Context, u Upload, offset, size int64, r io.Reader) (int64, error) {
	f, err := s.lockUpload(u)
	if err != nil {
		return 0, err
	}
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		_ = f.Close() // the seek error is the one to report
		return 0, diskError("find the end of upload", err)
	}
	if offset != have {
		_ = f.Close() // nothing was written
		return have, kernel.Errorf(kernel.Conflict, CodeUploadOffset, "the upload stands at byte %d, the chunk starts at %d", have, offset)
	}
	n, err := s.transfer(ctx, f, r, size, s.cfg.MaxBlob-have)
	if err != nil && !isCut(err) {
		if terr := f.Truncate(have); terr != nil {
			err = diskError("take back a failed append", terr)
		}
		n = 0
	}
	if cerr := f.Close(); cerr != nil && err == nil {
		err = diskError("close upload", cerr)
	}
	return have + n, err
}

// Commit publishes the upload's bytes as want, ends the upload and returns the
// size of the blob. When they are not want's (Invalid with CodeDigestInvalid) the
// upload ends, too: no further byte could mend it.
func (s *Store) Commit(ctx context.Context, u Upload, want Digest) (int64, error) {
	if want.IsZero() {
		return 0, notSet()
	}
	f, err := s.lockUpload(u)
	if err != nil {
		return 0, err
	}
	defer f.Close() // publish has flushed it
	h := want.Algorithm().New()
	n, err := copyContext(ctx, h, f)
	if err != nil {
		return 0, err
	}
	if !want.Matches(h) {
		if err := os.Remove(f.Name()); err != nil {
			return 0, diskError("remove upload", err)
		}
		return 0, mismatch(want, h)
	}
	return n, s.publish(f, want)
}

// Cancel ends the upload and forgets its bytes.
func (s *Store) Cancel(_ context.Context, u Upload) error {
	f, err := s.lockUpload(u)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written
	if err := os.Remove(f.Name()); err != nil {
		return diskError("remove upload", err)
	}
	return nil
}

// lockUpload opens the upload's file for reading and writing, for us alone.
func (s *Store) lockUpload(u Upload) (*os.File, error) {
	if !validID(u.ID) {
		return nil, unknownUpload()
	}
	f, err := openLocked(s.uploadPath(u))
	switch {
	case isMissing(err):
		return nil, unknownUpload()
	case isBusy(err):
		return nil, kernel.Errorf(kernel.Locked, CodeUploadBusy, "another request is writing to this upload")
	case err != nil:
		return nil, diskError("open upload", err)
	}
	return f, nil
}

// validID accepts only the canonical form, so that an id has one file name.
func validID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

func copyContext(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return n, kernel.Errorf(kernel.Unavailable, "", "the upload was not finished in time: %w", err)
		}
		k, err := r.Read(*buf)
		if _, werr := w.Write((*buf)[:k]); werr != nil {
			return n, diskError("hash upload", werr)
		}
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, diskError("read back upload", err)
		}
	}
}
