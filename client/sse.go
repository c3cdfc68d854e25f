package client

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxMessage bounds a message of an event stream: an event has at most 64 KiB,
// which JSON inside it cannot more than double.
const maxMessage = 1 << 20

// message is one dispatched message of a text/event-stream.
type message struct {
	kind string // the event field
	data []byte
}

// eventReader reads a text/event-stream (WHATWG HTML, "Server-sent events").
type eventReader struct {
	r      *bufio.Reader
	skipLF bool // the last line ended with CR, which may be half of CRLF
	began  bool
	size   int

	lastID string        // the id of the last message that had one
	retry  time.Duration // the last retry field
}

func newEventReader(r io.Reader) *eventReader { return &eventReader{r: bufio.NewReader(r)} }

// next returns the next message that carries data. A message that the stream's
// end cuts off is dropped, as the specification demands.
func (e *eventReader) next() (m message, err error) {
	var data []byte
	hasData := false
	id := e.lastID
	e.size = 0
	for {
		line, err := e.line()
		if err != nil {
			return m, err
		}
		if len(line) == 0 {
			e.lastID = id
			if hasData {
				m.data = data
				return m, nil
			}
			m = message{}
			e.size = 0
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if hasData {
				data = append(data, '\n')
			}
			data, hasData = append(data, value...), true
		case "event":
			m.kind = string(value)
		case "id":
			if !bytes.ContainsRune(value, 0) && utf8.Valid(value) {
				id = string(value)
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				e.retry = min(time.Duration(ms)*time.Millisecond, time.Minute)
			}
		}
	}
}

// line returns the next line without its end: LF, CR or CRLF.
func (e *eventReader) line() ([]byte, error) {
	var line []byte
	for {
		b, err := e.r.ReadByte()
		if err != nil {
			return nil, err
		}
		if e.skipLF {
			e.skipLF = false
			if b == '\n' {
				continue
			}
		}
		if b == '\n' || b == '\r' {
			e.skipLF = b == '\r'
			break
		}
		if e.size++; e.size > maxMessage {
			return nil, fmt.Errorf("a message of the stream: %w (%d bytes)", errTooLarge, maxMessage)
		}
		line = append(line, b)
	}
	if !e.began {
		e.began = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return line, nil
}
