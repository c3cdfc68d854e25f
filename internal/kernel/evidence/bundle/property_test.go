package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// Whatever Write exports Verify accepts, under every profile, whole or in runs,
// and any change of any byte of it is found in the file that was changed.
func TestWhatIsWrittenVerifies(t *testing.T) {
	fields := []string{"actor", "resource_id", "action", "event_type", "outcome", "correlation_id", "occurred_at", "refusal_reason_class",
		"artifact_ref", "artifact_type", "artifact_hash", "sbom_ref", "lineage_record_ref", "data_product_id", "hash_profile_id", "source_ref", "payload"}
	rapid.Check(t, func(rt *rapid.T) {
		l := newTestLog(t)
		values := rapid.SampledFrom([]any{nil, "", "x", "ü\u2028😀", "accepted", "refused", "data.erasure", "key.custody.declare", "ml.inference",
			l.policy, "eosc://artifact/" + l.authority, "2027-01-01T00:00:00+02:00", 7, 1e16, true, []any{}, map[string]any{}, map[string]any{"artifact_ref": l.policy}})
		n := rapid.IntRange(1, 12).Draw(rt, "events")
		for range n {
			l.add(rapid.MapOfN(rapid.SampledFrom(fields), values, 0, 2).Draw(rt, "changes"))
		}
		var runs [][2]int
		for seq := 1; seq <= n; seq++ {
			if rapid.Bool().Draw(rt, "selected") {
				runs = append(runs, [2]int{seq, seq})
			}
		}
		p := l.params(rapid.SampledFrom(Profiles()).Draw(rt, "profile"))
		sink := memorySink{}
		if _, err := Write(context.Background(), sink, p, l.source(append([][2]int{}, runs...)...)); err != nil {
			return // refused: that is tested elsewhere
		}
		f := files(sink)
		if r := f.verify(t, Options{Keys: []string{l.key}}); !r.OK {
			rt.Fatalf("our own export fails: %v", r.First)
		}
		name := rapid.SampledFrom(f.names()).Draw(rt, "file")
		f[name][rapid.IntRange(0, len(f[name])-1).Draw(rt, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "mask"))
		if r := f.verify(t, Options{}); r.OK || r.First.File != name {
			rt.Fatalf("a change of %s: first fault %v", name, r.First)
		}
	})
}

// memorySink keeps a bundle in memory.
type memorySink files

func (s memorySink) WriteFile(name string, size int64, r io.Reader) error {
	var b bytes.Buffer
	err := copyExactly(&b, r, size)
	s[name] = b.Bytes()
	return err
}

func (s memorySink) Close() error { return nil }
func (s memorySink) Abort() error { return nil }

// FuzzArchive feeds any bytes as an archive: no panic, no error but a refusal,
// and nothing but a whole bundle passes.
func FuzzArchive(f *testing.F) {
	_, byFormat := archives(f)
	for _, b := range byFormat {
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	foreign := readFiles(f, "testdata/foreign/baseline")
	for _, format := range []string{"tar", "tar.gz", "zip"} {
		f.Add(repack(f, foreign, format, "x/"))
	}
	dir := f.TempDir()
	n := 0
	f.Fuzz(func(t *testing.T, b []byte) {
		n++
		r, err := verifyBytes(t, fmt.Sprintf("%s/%d", dir, n%8), b, Options{Limits: Limits{Files: 1000, TotalBytes: 8 << 20, FileBytes: 4 << 20}})
		if err == nil && r.OK && (r.Scope.Events == 0 || r.First != nil) {
			t.Fatalf("passed: %+v", r)
		}
	})
}

// FuzzDocuments feeds any bytes as one document of an otherwise good bundle.
// Only changes that mean nothing in a foreign bundle may pass.
func FuzzDocuments(f *testing.F) {
	good := readFiles(f, "testdata/foreign/baseline")
	l := newTestLog(f)
	l.addN(3)
	own := memorySink{}
	if _, err := Write(context.Background(), own, l.params(Baseline), l.source()); err != nil {
		f.Fatal(err)
	}
	docs := []string{manifestName, eventsName, segmentName, inputsName, claimName, proofName, sumsName, noteName}
	for i, name := range docs {
		if good[name] != nil {
			f.Add(byte(i), good[name])
		}
		f.Add(byte(i), own[name])
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		name := docs[int(which)%len(docs)]
		bad := good.clone()
		bad[name] = b
		bad.verify(t, Options{})
		bad = files(own).clone()
		if bad[name] = b; bytes.Equal(b, own[name]) {
			return
		}
		if r := bad.verify(t, Options{Keys: []string{l.key}}); r.OK || r.First.File != name {
			t.Fatalf("%s changed: first fault %v", name, r.First)
		}
	})
}

// FuzzEvent feeds any bytes as an event to the rules.
func FuzzEvent(f *testing.F) {
	l := newTestLog(f)
	l.addN(4)
	for _, line := range l.lines {
		f.Add(line)
	}
	f.Add([]byte(`{"event_hash":"x"}`))
	f.Add([]byte(`{"event_hash":0`)) // once cut before it was known to end there
	f.Add([]byte(`{"event_hash":1,"id":2,"sequence":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event
		if e.parse(b) != nil {
			return
		}
		for _, p := range Profiles() {
			rules{profile: p}.check(&e, func(int, severity, string) {})
		}
		newHasher().event(&e)
		if without := append(bytes.Clone(b[:e.cut[0]]), b[e.cut[1]:]...); e.cut != [2]int{} {
			var again event
			if err := again.parse(without); err != nil || again.eventHash != nil {
				t.Fatalf("%q without event_hash is %q: %v", b, without, err)
			}
		}
	})
}
