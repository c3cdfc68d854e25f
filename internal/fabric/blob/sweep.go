package blob

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// Sweep removes uploads and temporary files that nobody wrote to for age, and
// returns how many. What is being written to is left alone whatever its age.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (int, error) {
	cutoff := s.cutoff(age)
	n, err := sweepDir(ctx, s.tmp(), cutoff)
	if err != nil {
		return n, err
	}
	owners, err := os.ReadDir(s.uploads())
	if err != nil {
		return n, diskError("list uploads", err)
	}
	for _, o := range owners {
		dir := filepath.Join(s.uploads(), o.Name())
		k, err := sweepDir(ctx, dir, cutoff)
		n += k
		if err != nil {
			return n, err
		}
		s.begin.Lock()
		_ = os.Remove(dir) // refused unless empty, which is what is wanted
		s.begin.Unlock()
	}
	return n, nil
}

func sweepDir(ctx context.Context, dir string, cutoff time.Time) (n int, err error) {
	entries, err := os.ReadDir(dir)
	if isMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, diskError("list stale files", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		removed, err := sweepFile(filepath.Join(dir, e.Name()), cutoff)
		if err != nil {
			return n, err
		}
		if removed {
			n++
		}
	}
	return n, nil
}

func sweepFile(path string, cutoff time.Time) (bool, error) {
	fi, err := os.Stat(path)
	if isMissing(err) || err == nil && fi.ModTime().After(cutoff) {
		return false, nil
	}
	if err != nil {
		return false, diskError("stat stale file", err)
	}
	f, err := openLocked(path)
	if isMissing(err) || isBusy(err) {
		return false, nil
	}
	if err != nil {
		return false, diskError("open stale file", err)
	}
	defer f.Close() // nothing was written
	if fi, err = f.Stat(); err != nil {
		return false, diskError("stat stale file", err)
	}
	if fi.ModTime().After(cutoff) {
		return false, nil // written to between the two looks
	}
	if err := os.Remove(path); err != nil {
		return false, diskError("remove stale file", err)
	}
	return true, nil
}

// Freed is what a Collect removed.
type Freed struct {
	Blobs int
	Bytes int64
}

// Collect removes the blobs that were not put, committed or touched for age and
// for which inUse says no. age must be longer than the time between writing a
// blob (or touching it) and recording the reference that inUse will find.
func (s *Store) Collect(ctx context.Context, age time.Duration, inUse func(context.Context, Digest) (bool, error)) (Freed, error) {
	var freed Freed
	err := s.walk(ctx, func(d Digest) error {
		cutoff := s.cutoff(age)
		fi, err := os.Stat(s.path(d))
		if isMissing(err) || err == nil && fi.ModTime().After(cutoff) {
			return nil
		}
		if err != nil {
			return diskError("stat blob", err)
		}
		used, err := inUse(ctx, d)
		if err != nil || used {
			return err
		}
		n, err := s.removeIdle(d, cutoff)
		if err == nil && n >= 0 {
			freed.Blobs++
			freed.Bytes += n
		}
		return err
	})
	return freed, err
}

// removeIdle deletes d unless it was renewed since cutoff and returns its size, or -1 when it was left.
func (s *Store) removeIdle(d Digest, cutoff time.Time) (int64, error) {
	s.life.Lock()
	defer s.life.Unlock()
	fi, err := os.Stat(s.path(d))
	if isMissing(err) || err == nil && fi.ModTime().After(cutoff) {
		return -1, nil
	}
	if err == nil {
		err = os.Remove(s.path(d))
	}
	if err != nil {
		return -1, diskError("collect blob", err)
	}
	return fi.Size(), nil
}

// walk calls fn for every published blob, in no promised order. Blobs that come or go meanwhile may be missed.
func (s *Store) walk(ctx context.Context, fn func(Digest) error) error {
	for _, a := range []Algorithm{SHA256, SHA512} {
		shards, err := os.ReadDir(s.shards(a))
		if err != nil {
			return diskError("list blobs", err)
		}
		for _, shard := range shards {
			files, err := os.ReadDir(filepath.Join(s.shards(a), shard.Name()))
			if err != nil {
				return diskError("list blobs", err)
			}
			for _, f := range files {
				if err := ctx.Err(); err != nil {
					return err
				}
				d, err := ParseDigest(string(a) + ":" + f.Name())
				if err != nil {
					continue // not ours
				}
				if err := fn(d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
