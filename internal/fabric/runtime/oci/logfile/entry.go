// Package logfile keeps the output of one isolated process in a bounded number
// of files and reads it back while it is still growing.
//
// An entry is a line in the format of the Kubernetes CRI logging design, which
// log shippers know:
//
//	2026-11-22T15:04:05.000000000Z stdout F the line as it was written
//
// F ends a line, P means that the line goes on in the stream's next entry.
// Everything after the third blank is the process's own bytes; a newline cannot
// be among them, so any output survives unchanged.
//
// Entries go to segments log.000001, log.000002, …; when one is full the next
// is begun and the oldest removed. One process writes, any number read, and
// neither waits for the other.
package logfile

import (
	"bytes"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
)

// maxData is the longest Data of one entry; longer lines are split.
const maxData = 16 << 10

// maxHeader bounds what stands before Data: time, stream and tag.
const maxHeader = 48

// timeLayout is RFC 3339 with all nine digits, so that entries line up.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// appendEntry appends e's line to buf.
func appendEntry(buf []byte, e runtime.LogEntry) []byte {
	buf = e.Time.UTC().AppendFormat(buf, timeLayout)
	buf = append(buf, ' ')
	buf = append(buf, e.Stream...)
	if e.Partial {
		buf = append(buf, " P "...)
	} else {
		buf = append(buf, " F "...)
	}
	buf = append(buf, e.Data...)
	return append(buf, '\n')
}

// parseEntry reads one line without its newline. It reports false for anything
// that appendEntry cannot have written. Data points into line.
func parseEntry(line []byte) (runtime.LogEntry, bool) {
	var e runtime.LogEntry
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return e, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(rest) < 2 || rest[1] != ' ' || len(rest)-2 > maxData {
		return e, false
	}
	t, err := time.Parse(timeLayout, string(stamp))
	if err != nil {
		return e, false
	}
	e.Time, e.Stream, e.Data = t.UTC(), runtime.Stream(stream), rest[2:]
	switch rest[0] {
	case 'P':
		e.Partial = true
	case 'F':
	default:
		return e, false
	}
	return e, e.Stream == runtime.Stdout || e.Stream == runtime.Stderr
}
