package logfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"provost.dev/provost/internal/fabric/runtime"
)

// maxTail bounds the memory that looking for the last n entries takes.
const maxTail = 100_000

// position is the beginning of an entry. seq 0 is the beginning of the log.
type position struct {
	seq    int
	offset int64
}

// findTail returns where the last n entries begin, or for n < 0 where the next
// one will. The log is bounded, so reading through it once is good enough.
func findTail(dir string, n int) (position, error) {
	seqs, err := segments(dir)
	if err != nil || len(seqs) == 0 {
		return position{}, err
	}
	var (
		ring = make([]position, 0, min(max(n, 0), maxTail))
		next int // index in ring of its oldest position, once it is full
		end  position
	)
	for _, seq := range seqs {
		end = position{seq: seq}
		err := eachLine(segmentPath(dir, seq), func(length int64, entry bool) {
			start := end
			end.offset += length
			switch {
			case !entry || cap(ring) == 0:
			case len(ring) < cap(ring):
				ring = append(ring, start)
			default:
				ring[next] = start
				next = (next + 1) % len(ring)
			}
		})
		if errors.Is(err, os.ErrNotExist) {
			continue // pushed out since it was listed
		}
		if err != nil {
			return position{}, err
		}
	}
	switch {
	case n < 0 || len(ring) == 0:
		return end, nil
	case len(ring) < cap(ring):
		return position{}, nil // fewer than n: all of them
	}
	return ring[next], nil
}

// eachLine calls f with the length of every whole line of the file, newline
// included, and whether the line is an entry.
func eachLine(path string, f func(length int64, entry bool)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := bufio.NewReaderSize(file, maxHeader+maxData)
	var skipped int64 // of a line longer than any entry
	for {
		line, err := buf.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			skipped += int64(len(line))
			continue
		case errors.Is(err, io.EOF):
			return nil // a line without its end is still being written
		case err != nil:
			return err
		}
		entry := false
		if skipped == 0 {
			_, entry = parseEntry(line[:len(line)-1])
		}
		f(skipped+int64(len(line)), entry)
		skipped = 0
	}
}

// WriteText writes entries to w as the process printed them: pieces of a line
// joined, both streams in the order they came. With timestamps each line
// starts with its time and stream. Entries that are missing are said to be.
func WriteText(w io.Writer, entries []runtime.LogEntry, timestamps bool) error {
	var out bytes.Buffer
	for _, e := range entries {
		if e.Gap {
			out.WriteString("[older output was dropped here]\n")
		}
		if timestamps {
			fmt.Fprintf(&out, "%s %s ", e.Time.Format(timeLayout), e.Stream)
		}
		out.Write(e.Data)
		if !e.Partial || timestamps {
			out.WriteByte('\n')
		}
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("write log text: %w", err)
	}
	return nil
}
