// Package blob keeps content-addressed bytes in a directory. A blob is visible
// under its digest only after its bytes were hashed, flushed to the disk and
// renamed into place, so neither a crash nor a full disk leaves a torn one.
//
//	DIR/blobs/<algorithm>/<first two digits>/<hex>   published and immutable
//	DIR/uploads/<owner>/<purpose>.<id>               uploads that can be resumed
//	DIR/tmp/<random>                                 one Put on its way
//
// An upload's offset is its file's length; there is no other state to fall out
// of step. Whoever writes to a file under uploads or tmp holds flock(2) on it, so
// two writers, or a writer and a sweep, never meet, and a killed process leaves
// no lock behind. What a Commit publishes was read back from the file and hashed
// then, so bytes lost by a power cut between two appends are noticed.
//
//	Begin ──▶ open ──Append──▶ open ──Commit──▶ published
//	            └────Cancel, Sweep, wrong digest──▶ gone
package blob

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"provost.dev/provost/internal/kernel"
)

// Codes in the kernel.Error that this package returns. Those of the OCI
// distribution specification are spelled as there.
const (
	CodeUnknown       = "BLOB_UNKNOWN"        // NotFound: no blob of that digest
	CodeUploadUnknown = "BLOB_UPLOAD_UNKNOWN" // NotFound: no such upload, or another owner's
	CodeUploadInvalid = "BLOB_UPLOAD_INVALID" // Invalid: the bytes stopped coming
	CodeUploadBusy    = "BLOB_UPLOAD_BUSY"    // Locked: another request is writing to the upload
	CodeUploadOffset  = "BLOB_UPLOAD_OFFSET"  // Conflict: the chunk does not start where the upload ends
	CodeDigestInvalid = "DIGEST_INVALID"      // Invalid: malformed, or not the digest of the bytes
	CodeSizeInvalid   = "SIZE_INVALID"        // Invalid or TooLarge: not the announced size, or over the limit
	CodeTooMany       = "TOOMANYREQUESTS"     // TooMany: the owner has too many open uploads
)

// Config says where the blobs are and how much is taken.
type Config struct {
	// Dir is created if it is missing. It must be one file system: publishing renames.
	Dir string
	// MaxBlob is the largest blob in bytes. Default 10 GiB.
	MaxBlob int64
	// MaxUploads bounds the open uploads of one owner. Default 64.
	MaxUploads int
	// Reserve is the free space, in bytes, that writes leave on the file system,
	// so that uploads cannot starve a database beside them. Default 256 MiB; negative is none.
	Reserve int64
	// Now is the clock, for the age of things. Default time.Now.
	Now func() time.Time
}

// Store is a directory of blobs. Its methods may be called concurrently, and by
// several processes on one directory.
type Store struct {
	cfg Config
	// begin orders the creation of uploads with their count and with the removal of empty directories.
	begin sync.Mutex
	// life is held for reading while a blob is published or renewed and for
	// writing while Collect removes one, so that it never removes a blob that was just renewed.
	life sync.RWMutex
}

// Info describes a blob.
type Info struct {
	Size    int64     // bytes
	ModTime time.Time // when it was last put, committed or touched
}

// New opens the store in cfg.Dir, creating it if need be.
func New(cfg Config) (*Store, error) {
	if cfg.MaxBlob == 0 {
		cfg.MaxBlob = 10 << 30
	}
	if cfg.MaxUploads == 0 {
		cfg.MaxUploads = 64
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = 256 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Store{cfg: cfg}
	for _, dir := range []string{s.tmp(), s.uploads(), s.shards(SHA256), s.shards(SHA512)} {
		if err := makeDir(dir); err != nil {
			return nil, diskError("create blob store", err)
		}
	}
	return s, nil
}

func (s *Store) tmp() string               { return filepath.Join(s.cfg.Dir, "tmp") }
func (s *Store) uploads() string           { return filepath.Join(s.cfg.Dir, "uploads") }
func (s *Store) shards(a Algorithm) string { return filepath.Join(s.cfg.Dir, "blobs", string(a)) }
func (s *Store) shard(d Digest) string     { return filepath.Join(s.shards(d.Algorithm()), d.Hex()[:2]) }
func (s *Store) path(d Digest) string      { return filepath.Join(s.shard(d), d.Hex()) }

// cutoff is the moment before which a thing is older than age.
func (s *Store) cutoff(age time.Duration) time.Time { return s.cfg.Now().Add(-age) }

func info(fi os.FileInfo) Info { return Info{Size: fi.Size(), ModTime: fi.ModTime()} }

func unknown(d Digest) error {
	return kernel.Errorf(kernel.NotFound, CodeUnknown, "no blob %s", d)
}

func notSet() error {
	return kernel.Errorf(kernel.Invalid, CodeDigestInvalid, "no digest given")
}

// Stat describes the blob d, or returns NotFound with CodeUnknown.
func (s *Store) Stat(_ context.Context, d Digest) (Info, error) {
	if d.IsZero() {
		return Info{}, notSet()
	}
	fi, err := os.Stat(s.path(d))
	if isMissing(err) {
		return Info{}, unknown(d)
	}
	if err != nil {
		return Info{}, diskError("stat blob", err)
	}
	return info(fi), nil
}

// Open returns the bytes of d, or NotFound with CodeUnknown. The caller closes
// the reader. A blob deleted meanwhile stays readable through it.
func (s *Store) Open(_ context.Context, d Digest) (io.ReadSeekCloser, Info, error) {
	if d.IsZero() {
		return nil, Info{}, notSet()
	}
	f, err := os.Open(s.path(d))
	if isMissing(err) {
		return nil, Info{}, unknown(d)
	}
	if err != nil {
		return nil, Info{}, diskError("open blob", err)
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close() // the stat error is the one to report
		return nil, Info{}, diskError("stat blob", err)
	}
	return f, info(fi), nil
}

// Touch renews d's age, so that Collect leaves it alone for another period: call
// it before recording a new reference to a blob that is there already. It
// returns NotFound with CodeUnknown when d is gone.
func (s *Store) Touch(_ context.Context, d Digest) error {
	if d.IsZero() {
		return notSet()
	}
	s.life.RLock()
	defer s.life.RUnlock()
	now := s.cfg.Now()
	err := os.Chtimes(s.path(d), now, now)
	if isMissing(err) {
		return unknown(d)
	}
	if err != nil {
		return diskError("touch blob", err)
	}
	return nil
}

// Delete removes d at once, or returns NotFound with CodeUnknown. It asks nobody
// whether d is in use; Collect does.
func (s *Store) Delete(_ context.Context, d Digest) error {
	if d.IsZero() {
		return notSet()
	}
	err := os.Remove(s.path(d))
	if isMissing(err) {
		return unknown(d)
	}
	if err == nil {
		err = syncDir(s.shard(d))
	}
	if err != nil {
		return diskError("delete blob", err)
	}
	return nil
}
