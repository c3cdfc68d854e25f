package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

func open(t *testing.T, cfg blob.Config) *blob.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "blobs")
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = -1
	}
	s, err := blob.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantCode(t *testing.T, err error, kind kernel.Kind, code string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v %s", kind, code)
	}
	if e := kernel.AsError(err); e.Kind != kind || e.Code != code {
		t.Fatalf("got %v %q (%v), want %v %q", e.Kind, e.Code, err, kind, code)
	}
}

func read(t *testing.T, s *blob.Store, d blob.Digest) []byte {
	t.Helper()
	r, info, err := s.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(len(b)) {
		t.Errorf("size is %d, content %d bytes", info.Size, len(b))
	}
	return b
}

// leftovers are the files below dir's sub-directory.
func leftovers(t *testing.T, dir, sub string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPutOpenDelete(t *testing.T) {
	for _, alg := range []blob.Algorithm{blob.SHA256, blob.SHA512} {
		s := open(t, blob.Config{})
		content := bytes.Repeat([]byte("layer "), 100_000)
		d := alg.Sum(content)
		_, err := s.Stat(t.Context(), d)
		wantCode(t, err, kernel.NotFound, blob.CodeUnknown)
		for range 2 { // the second replaces the first
			n, err := s.Put(t.Context(), d, int64(len(content)), bytes.NewReader(content))
			if err != nil || n != int64(len(content)) {
				t.Fatalf("put: %d, %v", n, err)
			}
		}
		if !bytes.Equal(read(t, s, d), content) {
			t.Error("other bytes came back")
		}
		if err := s.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		wantCode(t, s.Delete(t.Context(), d), kernel.NotFound, blob.CodeUnknown)
		wantCode(t, s.Touch(t.Context(), d), kernel.NotFound, blob.CodeUnknown)
		_, _, err = s.Open(t.Context(), d)
		wantCode(t, err, kernel.NotFound, blob.CodeUnknown)
	}
}

func TestRefusedPutLeavesNothing(t *testing.T) {
	content := []byte("0123456789")
	d := blob.SHA256.Sum(content)
	for _, tc := range []struct {
		name string
		size int64
		r    io.Reader
		want blob.Digest
		kind kernel.Kind
		code string
	}{
		{"other bytes", -1, bytes.NewReader([]byte("012345678X")), d, kernel.Invalid, blob.CodeDigestInvalid},
		{"no digest", -1, bytes.NewReader(content), blob.Digest{}, kernel.Invalid, blob.CodeDigestInvalid},
		{"short of the announced size", 11, bytes.NewReader(content), d, kernel.Invalid, blob.CodeSizeInvalid},
		{"more than the announced size", 9, bytes.NewReader(content), d, kernel.Invalid, blob.CodeSizeInvalid},
		{"announced over the limit", 17, bytes.NewReader(content), d, kernel.TooLarge, blob.CodeSizeInvalid},
		{"sent over the limit", -1, bytes.NewReader(make([]byte, 17)), d, kernel.TooLarge, blob.CodeSizeInvalid},
		{"cut off", -1, io.MultiReader(bytes.NewReader(content[:5]), iotest.ErrReader(io.ErrUnexpectedEOF)), d, kernel.Invalid, blob.CodeUploadInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, blob.Config{Dir: dir, MaxBlob: 16})
			_, err := s.Put(t.Context(), tc.want, tc.size, tc.r)
			wantCode(t, err, tc.kind, tc.code)
			if files := leftovers(t, dir, "."); len(files) > 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}

func TestUploadIsResumedAfterACut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.Config{Dir: dir})
	content := bytes.Repeat([]byte("abcdefgh"), 100_000)
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	cutReader := io.MultiReader(bytes.NewReader(content[:300_000]), iotest.ErrReader(io.ErrUnexpectedEOF))
	_, err = s.Append(t.Context(), u, 0, int64(len(content)), cutReader)
	wantCode(t, err, kernel.Invalid, blob.CodeUploadInvalid)

	s = open(t, blob.Config{Dir: dir}) // a restart
	at, err := s.Offset(t.Context(), u)
	if err != nil || at != 300_000 {
		t.Fatalf("offset %d, %v", at, err)
	}
	_, err = s.Append(t.Context(), u, at-1, -1, bytes.NewReader(content))
	wantCode(t, err, kernel.Conflict, blob.CodeUploadOffset)
	at, err = s.Append(t.Context(), u, at, -1, bytes.NewReader(content[at:]))
	if err != nil || at != int64(len(content)) {
		t.Fatalf("append: %d, %v", at, err)
	}
	d := blob.SHA256.Sum(content)
	if _, err := s.Commit(t.Context(), u, d); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, d), content) {
		t.Error("other bytes came back")
	}
	_, err = s.Offset(t.Context(), u)
	wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
	_, err = s.Append(t.Context(), u, at, -1, bytes.NewReader([]byte("more")))
	wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
}

func TestRefusedAppendTakesItsBytesBack(t *testing.T) {
	s := open(t, blob.Config{MaxBlob: 16})
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), u, 0, 4, bytes.NewReader([]byte("0123"))); err != nil {
		t.Fatal(err)
	}
	_, err = s.Append(t.Context(), u, 4, 5, bytes.NewReader([]byte("456")))
	wantCode(t, err, kernel.Invalid, blob.CodeSizeInvalid)
	_, err = s.Append(t.Context(), u, 4, 2, bytes.NewReader([]byte("456")))
	wantCode(t, err, kernel.Invalid, blob.CodeSizeInvalid)
	_, err = s.Append(t.Context(), u, 4, -1, iotest.OneByteReader(bytes.NewReader(make([]byte, 13))))
	wantCode(t, err, kernel.TooLarge, blob.CodeSizeInvalid)
	if at, err := s.Offset(t.Context(), u); err != nil || at != 4 {
		t.Errorf("offset %d, %v; want 4", at, err)
	}
}

func TestUploadBelongsToOwnerAndPurpose(t *testing.T) {
	s := open(t, blob.Config{})
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []blob.Upload{
		{Owner: "mallory", Purpose: u.Purpose, ID: u.ID},
		{Owner: u.Owner, Purpose: "demo/other", ID: u.ID},
		{Owner: u.Owner, Purpose: u.Purpose, ID: "../../tmp/x"},
		{Owner: u.Owner, Purpose: u.Purpose, ID: "{" + u.ID + "}"},
		{Owner: u.Owner, Purpose: u.Purpose},
	} {
		_, err := s.Offset(t.Context(), other)
		wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
		_, err = s.Append(t.Context(), other, 0, -1, bytes.NewReader(nil))
		wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
		_, err = s.Commit(t.Context(), other, blob.SHA256.Sum(nil))
		wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
		wantCode(t, s.Cancel(t.Context(), other), kernel.NotFound, blob.CodeUploadUnknown)
	}
	if _, err := s.Offset(t.Context(), u); err != nil {
		t.Error(err)
	}
}

func TestWrongDigestEndsTheUpload(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.Config{Dir: dir})
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(t.Context(), u, blob.SHA256.Sum([]byte("something else")))
	wantCode(t, err, kernel.Invalid, blob.CodeDigestInvalid)
	if files := leftovers(t, dir, "."); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestOpenUploadsAreLimitedPerOwner(t *testing.T) {
	s := open(t, blob.Config{MaxUploads: 2})
	var last blob.Upload
	for range 2 {
		var err error
		if last, err = s.Begin(t.Context(), "alice", "demo/app"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Begin(t.Context(), "alice", "demo/other")
	wantCode(t, err, kernel.TooMany, blob.CodeTooMany)
	if _, err := s.Begin(t.Context(), "bob", "demo/app"); err != nil {
		t.Errorf("another owner: %v", err)
	}
	if err := s.Cancel(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), "alice", "demo/app"); err != nil {
		t.Errorf("after a cancel: %v", err)
	}
}

// pausedReader gives its bytes, says so, and waits to be released.
type pausedReader struct {
	b               []byte
	reached, resume chan struct{}
}

func (r *pausedReader) Read(p []byte) (int, error) {
	if len(r.b) > 0 {
		n := copy(p, r.b)
		r.b = r.b[n:]
		return n, nil
	}
	close(r.reached)
	<-r.resume
	return 0, io.EOF
}

func TestOneWriterPerUpload(t *testing.T) {
	now := time.Now()
	s := open(t, blob.Config{Now: func() time.Time { return now.Add(24 * time.Hour) }})
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("slow bytes")
	r := &pausedReader{content, make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := s.Append(context.Background(), u, 0, -1, r)
		done <- err
	}()
	<-r.reached
	_, err = s.Append(t.Context(), u, int64(len(content)), -1, bytes.NewReader([]byte("x")))
	wantCode(t, err, kernel.Locked, blob.CodeUploadBusy)
	_, err = s.Commit(t.Context(), u, blob.SHA256.Sum(content))
	wantCode(t, err, kernel.Locked, blob.CodeUploadBusy)
	wantCode(t, s.Cancel(t.Context(), u), kernel.Locked, blob.CodeUploadBusy)
	if n, err := s.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("swept %d under a writer's hands, %v", n, err)
	}
	close(r.resume)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), u, blob.SHA256.Sum(content)); err != nil {
		t.Error(err)
	}
}

// Whoever loses the race between append and commit must not touch the published file.
func TestAppendNeverReachesAPublishedBlob(t *testing.T) {
	s := open(t, blob.Config{})
	content := []byte("final content")
	d := blob.SHA256.Sum(content)
	for range 50 {
		u, err := s.Begin(t.Context(), "alice", "demo/app")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), u, 0, -1, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var committed error
		wg.Go(func() { _, committed = s.Commit(context.Background(), u, d) })
		for range 4 {
			wg.Go(func() {
				_, _ = s.Append(context.Background(), u, int64(len(content)), -1, bytes.NewReader([]byte("!"))) // may win or lose
			})
		}
		wg.Wait()
		if committed == nil && !bytes.Equal(read(t, s, d), content) {
			t.Fatal("the published blob was written to")
		}
		if committed != nil {
			_ = s.Cancel(t.Context(), u) // gone already if the digest was wrong
		}
	}
}

func TestSameBlobUploadedInParallel(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.Config{Dir: dir})
	content := bytes.Repeat([]byte("x"), 1<<20)
	d := blob.SHA256.Sum(content)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				_, err := s.Put(context.Background(), d, -1, bytes.NewReader(content))
				errs <- err
				return
			}
			u, err := s.Begin(context.Background(), fmt.Sprint(i), "demo/app")
			if err == nil {
				_, err = s.Append(context.Background(), u, 0, -1, bytes.NewReader(content))
			}
			if err == nil {
				_, err = s.Commit(context.Background(), u, d)
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(read(t, s, d), content) {
		t.Error("other bytes came back")
	}
	if files := leftovers(t, dir, "."); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

func TestSweepRemovesWhatIsStale(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	s := open(t, blob.Config{Dir: dir, Now: func() time.Time { return now }})
	stale, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "put-left-by-a-crash"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	now = now.Add(2 * time.Hour)
	if n, err := s.Sweep(t.Context(), time.Hour); n != 2 || err != nil {
		t.Fatalf("swept %d, %v; want 2", n, err)
	}
	_, err = s.Offset(t.Context(), stale)
	wantCode(t, err, kernel.NotFound, blob.CodeUploadUnknown)
	if dirs, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(dirs) > 0 {
		t.Errorf("owner directories left: %v, %v", dirs, err)
	}
}

func TestCollectKeepsWhatIsUsedOrYoung(t *testing.T) {
	now := time.Now()
	s := open(t, blob.Config{Now: func() time.Time { return now }})
	put := func(content string) blob.Digest {
		t.Helper()
		d := blob.SHA256.Sum([]byte(content))
		if _, err := s.Put(t.Context(), d, -1, bytes.NewReader([]byte(content))); err != nil {
			t.Fatal(err)
		}
		return d
	}
	used, idle, touched := put("used"), put("idle"), put("touched")
	now = now.Add(2 * time.Hour)
	young := put("young")
	if err := s.Touch(t.Context(), touched); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Collect(t.Context(), time.Hour, func(_ context.Context, d blob.Digest) (bool, error) { return d == used, nil })
	if err != nil || freed != (blob.Freed{Blobs: 1, Bytes: 4}) {
		t.Fatalf("freed %+v, %v", freed, err)
	}
	for _, d := range []blob.Digest{used, touched, young} {
		if _, err := s.Stat(t.Context(), d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	_, err = s.Stat(t.Context(), idle)
	wantCode(t, err, kernel.NotFound, blob.CodeUnknown)

	// A blob that is renewed while its use is being looked up stays.
	now = now.Add(2 * time.Hour)
	freed, err = s.Collect(t.Context(), time.Hour, func(ctx context.Context, d blob.Digest) (bool, error) { return false, s.Touch(ctx, d) })
	if err != nil || freed.Blobs != 0 {
		t.Errorf("freed %+v, %v", freed, err)
	}
	failed := errors.New("no database")
	now = now.Add(2 * time.Hour)
	_, err = s.Collect(t.Context(), time.Hour, func(context.Context, blob.Digest) (bool, error) { return false, failed })
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Stat(t.Context(), used); err != nil {
		t.Errorf("removed although nobody could say whether it is used: %v", err)
	}
}

func TestReserveIsLeftFree(t *testing.T) {
	s := open(t, blob.Config{Reserve: 1 << 60})
	_, err := s.Put(t.Context(), blob.SHA256.Sum(nil), 0, bytes.NewReader(nil))
	wantCode(t, err, kernel.Unavailable, "")
	_, err = s.Begin(t.Context(), "alice", "demo/app")
	wantCode(t, err, kernel.Unavailable, "")
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIPPED: a full disk needs a file system of our own: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, blob.Config{Dir: dir})
	big := bytes.Repeat([]byte("x"), 2<<20)
	_, err := s.Put(t.Context(), blob.SHA256.Sum(big), -1, bytes.NewReader(big))
	wantCode(t, err, kernel.Unavailable, "")
	if files := leftovers(t, dir, "."); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
	u, err := s.Begin(t.Context(), "alice", "demo/app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), u, 0, -1, bytes.NewReader(big[:1000])); err != nil {
		t.Fatal(err)
	}
	_, err = s.Append(t.Context(), u, 1000, -1, bytes.NewReader(big))
	wantCode(t, err, kernel.Unavailable, "")
	if at, err := s.Offset(t.Context(), u); err != nil || at != 1000 {
		t.Errorf("offset %d, %v; want the 1000 bytes that were acknowledged", at, err)
	}
	if _, err := s.Commit(t.Context(), u, blob.SHA256.Sum(big[:1000])); err != nil {
		t.Errorf("the upload is of no use after the refusal: %v", err)
	}
}
