package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"provost.dev/provost/internal/fabric/runtime"
)

// Limits bound what one process's log takes on disk, SegmentBytes × Segments,
// and how fast it is written.
type Limits struct {
	SegmentBytes int64 `json:"segment_bytes"` // at least 64 KiB
	Segments     int   `json:"segments"`      // at least 2, so that something is left right after a change
	// BytesPerSecond paces writing, at least 64 KiB/s: a process that prints
	// faster waits, so that its output cannot take the host's disk and CPU.
	BytesPerSecond int `json:"bytes_per_second"`
}

// Validate reports limits that Create refuses.
func (l Limits) Validate() error {
	if l.SegmentBytes < 64<<10 || l.Segments < 2 || l.BytesPerSecond < 64<<10 {
		return fmt.Errorf("log limits: want 2 or more segments of 65536 bytes or more, at 65536 bytes/s or more; got %d × %d at %d/s",
			l.Segments, l.SegmentBytes, l.BytesPerSecond)
	}
	return nil
}

// Writer appends entries to the segments of one directory.
type Writer struct {
	dir    string
	limits Limits
	wrote  func()
	pace   *rate.Limiter

	mu   sync.Mutex // guards what follows
	file *os.File
	seq  int
	size int64
	lost int64
	buf  []byte // reused between writes
}

// Create begins the log of a process in dir, which exists and has none yet.
// wrote is called, from the goroutine that wrote, whenever entries were added.
func Create(dir string, limits Limits, wrote func()) (*Writer, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, limits: limits, wrote: wrote,
		pace: rate.NewLimiter(rate.Limit(limits.BytesPerSecond), limits.BytesPerSecond)}
	if err := w.rotate(); err != nil {
		return nil, err
	}
	return w, nil
}

func segmentPath(dir string, seq int) string {
	return filepath.Join(dir, fmt.Sprintf("log.%06d", seq))
}

// rotate begins the next segment and removes the one that is too old. The new
// one exists before the old one is gone, so a reader always finds one.
func (w *Writer) rotate() error {
	f, err := os.OpenFile(segmentPath(w.dir, w.seq+1), os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("begin log segment: %w", err)
	}
	if w.file != nil {
		// Every write was handed to the kernel; there is nothing left to lose.
		_ = w.file.Close()
	}
	w.file, w.size = f, 0
	w.seq++
	if old := w.seq - w.limits.Segments; old > 0 {
		if err := os.Remove(segmentPath(w.dir, old)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old log segment: %w", err)
		}
	}
	return nil
}

// Lost is how many bytes of output could not be written.
func (w *Writer) Lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Close ends the log. Streams must have been closed before.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}

// maxWrite is how many bytes of entries go into one write, give or take one entry.
const maxWrite = 32 << 10

// append writes entries in order. On an error it goes on with what follows.
func (w *Writer) append(entries ...runtime.LogEntry) error {
	written, err := w.appendLocked(entries)
	if written > 0 {
		w.wrote()
	}
	// Waiting here, not in a buffer, is what makes the process itself wait.
	for written > 0 {
		n := min(written, w.pace.Burst())
		err = errors.Join(err, w.pace.WaitN(context.Background(), n))
		written -= n
	}
	return err
}

// appendLocked returns how many bytes it put into segments.
func (w *Writer) appendLocked(entries []runtime.LogEntry) (written int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data := 0
	w.buf = w.buf[:0]
	for i, e := range entries {
		w.buf = appendEntry(w.buf, e)
		data += len(e.Data)
		if len(w.buf) < maxWrite && i < len(entries)-1 {
			continue
		}
		if writeErr := w.write(); writeErr != nil {
			w.lost += int64(data)
			err = errors.Join(err, writeErr)
		} else {
			written += len(w.buf)
		}
		w.buf, data = w.buf[:0], 0
	}
	return written, err
}

func (w *Writer) write() error {
	if w.size > 0 && w.size+int64(len(w.buf)) > w.limits.SegmentBytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if _, err := w.file.Write(w.buf); err != nil {
		// A torn entry would swallow the one after it. Should cutting it off
		// fail, too, readers skip what they cannot read.
		return errors.Join(fmt.Errorf("write log: %w", err), w.file.Truncate(w.size))
	}
	w.size += int64(len(w.buf))
	return nil
}

// Stream cuts one output of the process into entries. It belongs to one goroutine.
type Stream struct {
	w    *Writer
	name runtime.Stream
	line []byte // the beginning of a line whose end has not been seen
}

// Stream returns the writer for one output.
func (w *Writer) Stream(name runtime.Stream) *Stream { return &Stream{w: w, name: name} }

// Write takes the process's next bytes, at most 64 KiB at a time. The bytes
// after the last newline wait for theirs, up to the length of one entry. An
// error means that output was lost, and is counted; later writes may succeed.
func (s *Stream) Write(p []byte) (int, error) {
	now := time.Now()
	var entries []runtime.LogEntry
	add := func(data []byte, partial bool) {
		entries = append(entries, runtime.LogEntry{Time: now, Stream: s.name, Partial: partial, Data: data})
	}
	// One buffer holds the line begun earlier and p, so entries can point into it.
	s.line = append(s.line, p...)
	rest := s.line
	for len(rest) > 0 {
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end >= 0 && end <= maxData:
			add(rest[:end], false)
			rest = rest[end+1:]
		case len(rest) > maxData:
			add(rest[:maxData], true)
			rest = rest[maxData:]
		default:
			return len(p), s.flush(entries, rest)
		}
	}
	return len(p), s.flush(entries, nil)
}

// flush writes entries and keeps rest, which is the end of s.line.
func (s *Stream) flush(entries []runtime.LogEntry, rest []byte) error {
	var err error
	if len(entries) > 0 {
		err = s.w.append(entries...)
	}
	s.line = append(s.line[:0], rest...)
	return err
}

// Close writes what is left of a line without a newline.
func (s *Stream) Close() error {
	if len(s.line) == 0 {
		return nil
	}
	e := runtime.LogEntry{Time: time.Now(), Stream: s.name, Data: s.line}
	s.line = nil
	return s.w.append(e)
}
