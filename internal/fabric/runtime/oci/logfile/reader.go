package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"provost.dev/provost/internal/fabric/runtime"
)

// Growth tells a reader about a log that is still being written.
type Growth struct {
	// Wrote delivers a value after entries were added; a buffer of one is enough.
	Wrote <-chan struct{}
	// Ended is closed once nothing will be added any more.
	Ended <-chan struct{}
}

// Reader reads the log of one process from a position on. It belongs to one goroutine.
type Reader struct {
	dir    string
	growth *Growth // nil: stop at what is there now

	file    *os.File // nil until the first segment was found
	seq     int
	pending []byte // read but not delivered, at most one unfinished line after Next
	gap     bool   // the next entry does not follow the last one
	ended   bool   // growth.Ended was seen: what is on disk now is all
}

// Open starts reading the log in dir where opts say. growth is needed for
// opts.Follow and ignored otherwise. A log without entries is no error, and a
// Tail over 100,000 counts as that.
func Open(dir string, opts runtime.LogOptions, growth *Growth) (*Reader, error) {
	r := &Reader{dir: dir}
	if opts.Follow {
		r.growth = growth
	}
	if opts.Tail == 0 {
		return r, r.open(1) // now, so that removing the log does not take it from us
	}
	at, err := findTail(dir, opts.Tail)
	if err != nil {
		return nil, err
	}
	if at.seq == 0 {
		return r, r.open(1)
	}
	if err := r.open(at.seq); err != nil {
		return nil, err
	}
	if r.seq != at.seq {
		return r, nil // the segment went away meanwhile: what is left is newer
	}
	r.gap = false // what came before was not asked for
	if _, err := r.file.Seek(at.offset, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("seek in log: %w", err), r.Close())
	}
	return r, nil
}

// Close ends reading; it is needed also after an error.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// maxBatch is how many bytes of entries Next returns at most.
const maxBatch = 64 << 10

// Next returns the entries that follow, as many as are there, up to about
// 64 KiB; their Data is the caller's. It blocks only when following, until
// there is one, the process ended or ctx is done. io.EOF means the end.
func (r *Reader) Next(ctx context.Context) ([]runtime.LogEntry, error) {
	for {
		entries, err := r.read()
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if len(entries) > 0 {
			return entries, nil
		}
		if r.growth == nil || r.ended {
			return nil, io.EOF
		}
		select {
		case <-r.growth.Wrote:
		case <-r.growth.Ended:
			r.ended = true // but entries may have come since read looked
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read returns what is there, or nothing at the end of the newest segment.
func (r *Reader) read() ([]runtime.LogEntry, error) {
	for {
		if r.file == nil {
			if err := r.open(1); err != nil || r.file == nil {
				return nil, err
			}
		}
		n, err := r.fill()
		if err != nil {
			return nil, err
		}
		if entries := r.take(); len(entries) > 0 {
			return entries, nil
		}
		if n > 0 {
			continue
		}
		more, err := r.advance()
		if err != nil || !more {
			return nil, err
		}
	}
}

// fill reads more of the segment into pending and returns how much; 0 is its end.
func (r *Reader) fill() (int, error) {
	r.pending = slices.Grow(r.pending, maxBatch)
	n, err := r.file.Read(r.pending[len(r.pending) : len(r.pending)+maxBatch])
	r.pending = r.pending[:len(r.pending)+n]
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// take parses the whole lines of pending and leaves the rest of it there.
func (r *Reader) take() []runtime.LogEntry {
	var entries []runtime.LogEntry
	rest := r.pending
	for {
		line, after, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok {
			break
		}
		rest = after
		e, ok := parseEntry(line)
		if !ok {
			r.gap = true
			continue
		}
		e.Gap, r.gap = r.gap, false
		e.Data = bytes.Clone(e.Data)
		entries = append(entries, e)
	}
	if len(rest) > maxHeader+maxData {
		rest, r.gap = nil, true // nothing that a Writer wrote
	}
	r.pending = append(r.pending[:0], rest...)
	return entries
}

// advance goes to the next segment, if the writer has begun one.
func (r *Reader) advance() (bool, error) {
	seqs, err := segments(r.dir)
	if err != nil {
		return false, err
	}
	i, _ := slices.BinarySearch(seqs, r.seq+1)
	if i == len(seqs) {
		return false, nil
	}
	// The writer may have finished this segment after fill saw its end, but not
	// after it began the next one, which we have now seen.
	if n, err := r.fill(); err != nil || n > 0 {
		return true, err
	}
	// A torn line at the very end was cut by a crash of the writer.
	r.gap = r.gap || len(r.pending) > 0
	r.pending = r.pending[:0]
	return true, r.open(seqs[i])
}

// open goes to segment seq or, where that is gone, to the oldest one after it.
// With no segment at all it leaves r.file alone.
func (r *Reader) open(seq int) error {
	for {
		f, err := os.Open(segmentPath(r.dir, seq))
		if err == nil {
			if r.file != nil {
				_ = r.file.Close() // read only
			}
			// Segment 1 is where a log begins; starting later means that
			// something is missing, as does skipping one.
			r.gap = r.gap || seq != r.seq+1
			r.file, r.seq = f, seq
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		seqs, err := segments(r.dir)
		if err != nil {
			return err
		}
		i, _ := slices.BinarySearch(seqs, seq)
		if i == len(seqs) {
			return nil
		}
		seq = seqs[i]
	}
}

// segments lists the numbers of the segments in dir, oldest first. No dir is no segment.
func segments(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var seqs []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "log.")
		if !ok {
			continue
		}
		if seq, err := strconv.Atoi(digits); err == nil && filepath.Base(segmentPath(dir, seq)) == e.Name() {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}
