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
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"provost.dev/provost/internal/fabric/runtime"
)

var small = Limits{SegmentBytes: 64 << 10, Segments: 2, BytesPerSecond: 1 << 30}

func create(t testing.TB, dir string, limits Limits) *Writer {
	t.Helper()
	w, err := Create(dir, limits, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// readAll reads the log from where opts say to its present end.
func readAll(t testing.TB, dir string, opts runtime.LogOptions) []runtime.LogEntry {
	t.Helper()
	r, err := Open(dir, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []runtime.LogEntry
	for {
		entries, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entries...)
	}
}

// joined puts the lines of one stream together again.
func joined(entries []runtime.LogEntry, stream runtime.Stream) []byte {
	var out bytes.Buffer
	for _, e := range entries {
		if e.Stream != stream {
			continue
		}
		out.Write(e.Data)
		if !e.Partial {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

func TestOutputSurvivesUnchanged(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		sub := filepath.Join(dir, fmt.Sprint(round))
		if err := os.Mkdir(sub, 0o700); err != nil {
			rt.Fatal(err)
		}
		w, err := Create(sub, Limits{SegmentBytes: 4 << 20, Segments: 2, BytesPerSecond: 1 << 30}, func() {})
		if err != nil {
			rt.Fatal(err)
		}
		defer w.Close()
		streams := map[runtime.Stream]*Stream{runtime.Stdout: w.Stream(runtime.Stdout), runtime.Stderr: w.Stream(runtime.Stderr)}
		want := map[runtime.Stream]*bytes.Buffer{runtime.Stdout: {}, runtime.Stderr: {}}
		chunk := rapid.OneOf(
			rapid.SliceOfN(rapid.SampledFrom([]byte("a\n\x00\xff ")), 0, 40),
			rapid.Map(rapid.IntRange(maxData-2, 3*maxData), func(n int) []byte { return bytes.Repeat([]byte("x"), n) }),
		)
		for range rapid.IntRange(0, 12).Draw(rt, "chunks") {
			name := rapid.SampledFrom([]runtime.Stream{runtime.Stdout, runtime.Stderr}).Draw(rt, "stream")
			data := chunk.Draw(rt, "data")
			want[name].Write(data)
			if n, err := streams[name].Write(data); n != len(data) || err != nil {
				rt.Fatalf("Write: %d, %v", n, err)
			}
		}
		for name, s := range streams {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
			if b := want[name].Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
				want[name].WriteByte('\n') // the end of the output ends the line
			}
		}
		entries := readAll(t, sub, runtime.LogOptions{})
		for name := range streams {
			if got := joined(entries, name); !bytes.Equal(got, want[name].Bytes()) {
				rt.Fatalf("%s: got %d bytes, want %d", name, len(got), want[name].Len())
			}
		}
		for _, e := range entries {
			if e.Gap || time.Since(e.Time) > time.Hour {
				rt.Fatalf("entry %+v: unexpected gap or time", e)
			}
		}
	})
}

// write prints lines "0 …", "1 …" of about 1 KiB.
func write(t testing.TB, s *Stream, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := fmt.Fprintf(s, "%d %s\n", i, strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
}

func number(t testing.TB, e runtime.LogEntry) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(string(e.Data), "%d ", &n); err != nil {
		t.Fatalf("entry %q: %v", e.Data, err)
	}
	return n
}

func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := create(t, dir, small).Stream(runtime.Stdout)
	write(t, s, 0, 1000)
	// Many short lines in one write take forty times their size.
	if _, err := s.Write(bytes.Repeat([]byte("\n"), 64<<10)); err != nil {
		t.Fatal(err)
	}
	write(t, s, 1000, 1060)
	var total int64
	for _, seq := range mustSegments(t, dir) {
		st, err := os.Stat(segmentPath(dir, seq))
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > small.SegmentBytes*int64(small.Segments) {
		t.Errorf("the log takes %d bytes, limit %d", total, small.SegmentBytes*int64(small.Segments))
	}
	entries := readAll(t, dir, runtime.LogOptions{})
	if !entries[0].Gap {
		t.Error("the first entry kept does not say that older ones are gone")
	}
	if last := number(t, entries[len(entries)-1]); last != 1059 {
		t.Errorf("last line is %d, want 1059", last)
	}
	for i, e := range entries[1:] {
		if e.Gap {
			t.Fatalf("entry %d after the first has a gap before it", i+1)
		}
	}
}

func mustSegments(t testing.TB, dir string) []int {
	t.Helper()
	seqs, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	return seqs
}

func TestTail(t *testing.T) {
	dir := t.TempDir()
	s := create(t, dir, small).Stream(runtime.Stdout)
	write(t, s, 0, 100) // two segments, nothing pushed out
	for _, tail := range []int{1, 5, 50, 99, 100} {
		entries := readAll(t, dir, runtime.LogOptions{Tail: tail})
		if len(entries) != tail || number(t, entries[0]) != 100-tail || entries[0].Gap {
			t.Errorf("Tail %d: %d entries from %d, gap %v", tail, len(entries), number(t, entries[0]), entries[0].Gap)
		}
	}
	for tail, want := range map[int]int{101: 100, 1 << 40: 100, 0: 100, -1: 0} {
		if got := len(readAll(t, dir, runtime.LogOptions{Tail: tail})); got != want {
			t.Errorf("Tail %d: %d entries, want %d", tail, got, want)
		}
	}
	if got := readAll(t, t.TempDir(), runtime.LogOptions{Tail: 3}); len(got) != 0 {
		t.Errorf("Tail of an empty log: %d entries", len(got))
	}
}

// TestFollow reads while segments come and go and expects every line that the
// reader was quick enough for, in order, and a gap where it was not.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	wrote, ended := make(chan struct{}, 1), make(chan struct{})
	w, err := Create(dir, small, func() {
		select {
		case wrote <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := Open(dir, runtime.LogOptions{Follow: true}, &Growth{Wrote: wrote, Ended: ended})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := w.Stream(runtime.Stdout)
	go func() {
		defer close(ended)
		for i := range 2000 {
			if _, err := fmt.Fprintf(s, "%d %s\n", i, strings.Repeat("x", 1000)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	next := 0
	for {
		entries, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			n := number(t, e)
			if n < next || n > next && !e.Gap {
				t.Fatalf("line %d after %d, gap %v", n, next-1, e.Gap)
			}
			next = n + 1
		}
	}
	if next != 2000 {
		t.Errorf("last line is %d, want 1999", next-1)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, small)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Open(dir, runtime.LogOptions{Follow: true, Tail: -1}, &Growth{Wrote: make(chan struct{}), Ended: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want context canceled", err)
	}
}

// TestTornEntry cuts the log in the middle of an entry, as a crash of the
// writer does, and goes on in a new segment.
func TestTornEntry(t *testing.T) {
	dir := t.TempDir()
	write(t, create(t, dir, small).Stream(runtime.Stdout), 0, 3)
	if err := os.Truncate(segmentPath(dir, 1), 2200); err != nil {
		t.Fatal(err)
	}
	if got := len(readAll(t, dir, runtime.LogOptions{})); got != 2 {
		t.Errorf("%d whole entries, want 2", got)
	}
	line := appendEntry(nil, runtime.LogEntry{Time: time.Now(), Stream: runtime.Stderr, Data: []byte("later")})
	if err := os.WriteFile(segmentPath(dir, 2), line, 0o600); err != nil {
		t.Fatal(err)
	}
	entries := readAll(t, dir, runtime.LogOptions{})
	if len(entries) != 3 || !entries[2].Gap || string(entries[2].Data) != "later" {
		t.Errorf("got %d entries, last %+v; want the third after a gap", len(entries), entries[len(entries)-1])
	}
}

func TestLostOutputIsCounted(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, small)
	s := w.Stream(runtime.Stdout)
	write(t, s, 0, 1)
	// A closed file stands for a disk that takes no more.
	if err := w.file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("gone\n")); err == nil || w.Lost() != 4 {
		t.Errorf("Write: %v, lost %d; want an error and 4", err, w.Lost())
	}
	w.size = small.SegmentBytes // the next write begins a new segment
	write(t, s, 1, 2)
	if got := readAll(t, dir, runtime.LogOptions{}); len(got) != 2 {
		t.Errorf("%d entries after recovery, want 2", len(got))
	}
}

func TestPaceMakesTheWriterWait(t *testing.T) {
	limits := small
	limits.BytesPerSecond = 64 << 10
	s := create(t, t.TempDir(), limits).Stream(runtime.Stdout)
	begin := time.Now()
	write(t, s, 0, 80) // 82 KiB: 64 at once, the rest takes its time
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("82 KiB at 64 KiB/s took %v", took)
	}
}

func TestWriteText(t *testing.T) {
	at := time.Date(2026, 11, 22, 15, 4, 5, 7, time.UTC)
	entries := []runtime.LogEntry{
		{Time: at, Stream: runtime.Stdout, Data: []byte("par"), Partial: true, Gap: true},
		{Time: at, Stream: runtime.Stdout, Data: []byte("ts")},
		{Time: at, Stream: runtime.Stderr, Data: []byte("oh\x00")},
	}
	for stamps, want := range map[bool]string{
		false: "[older output was dropped here]\nparts\noh\x00\n",
		true: "[older output was dropped here]\n2026-11-22T15:04:05.000000007Z stdout par\n" +
			"2026-11-22T15:04:05.000000007Z stdout ts\n2026-11-22T15:04:05.000000007Z stderr oh\x00\n",
	} {
		var out bytes.Buffer
		if err := WriteText(&out, entries, stamps); err != nil || out.String() != want {
			t.Errorf("WriteText(%v) = %q, %v\nwant %q", stamps, out.String(), err, want)
		}
	}
}

func TestLimitsAreRefused(t *testing.T) {
	for _, bad := range []Limits{{}, {1 << 20, 1, 1 << 20}, {1 << 10, 2, 1 << 20}, {1 << 20, 2, 1}} {
		if _, err := Create(t.TempDir(), bad, func() {}); err == nil {
			t.Errorf("Create accepted %+v", bad)
		}
	}
}

// FuzzReader reads any bytes as a segment: it must end, and whatever it takes
// for an entry must come out of appendEntry the same.
func FuzzReader(f *testing.F) {
	f.Add([]byte("2026-11-22T15:04:05.000000000Z stdout F hello\n2026-11-22T15:04:05.000000000Z stderr P \x00\xff\n"))
	f.Add([]byte("2026-11-22T15:04:05.000000000Z stdout F torn"))
	f.Add([]byte("2026-11-22T15:04:05.000000000+01:00 stdout X hello\n\n \n"))
	f.Add(bytes.Repeat([]byte("x"), 2*maxData))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		all := readAll(t, dir, runtime.LogOptions{})
		for _, e := range all {
			line := appendEntry(nil, e)
			again, ok := parseEntry(line[:len(line)-1])
			if !ok || !again.Time.Equal(e.Time) || again.Stream != e.Stream || again.Partial != e.Partial || !bytes.Equal(again.Data, e.Data) {
				t.Fatalf("entry %+v became %+v (%v)", e, again, ok)
			}
		}
		tail := readAll(t, dir, runtime.LogOptions{Tail: 1})
		if len(all) > 0 && (len(tail) != 1 || !slices.Equal(tail[0].Data, all[len(all)-1].Data)) {
			t.Fatalf("tail of %d entries: %+v", len(all), tail)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	s := create(b, b.TempDir(), Limits{SegmentBytes: 8 << 20, Segments: 2, BytesPerSecond: 1 << 40}).Stream(runtime.Stdout)
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 320)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := s.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
