package bundle

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

// files is a bundle in memory, to be damaged.
type files map[string][]byte

func readFiles(tb testing.TB, dir string) files {
	tb.Helper()
	f := files{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			f[name], err = fs.ReadFile(os.DirFS(dir), name)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func (f files) clone() files {
	c := maps.Clone(f)
	for name, b := range c {
		c[name] = bytes.Clone(b)
	}
	return c
}

func (f files) names() []string { return slices.Sorted(maps.Keys(f)) }

func (f files) verify(tb testing.TB, opts Options) *Report {
	tb.Helper()
	m := fstest.MapFS{}
	for name, b := range f {
		m[name] = &fstest.MapFile{Data: b}
	}
	r, err := VerifyFS(context.Background(), m, opts)
	if err != nil {
		tb.Fatal(err)
	}
	if r.OK != (r.First == nil) || r.OK != (r.Faults == 0) {
		tb.Fatalf("report contradicts itself: ok %v, %d faults, first %v", r.OK, r.Faults, r.First)
	}
	return r
}

// replace changes the one place where a file says old.
func (f files) replace(tb testing.TB, name, old, new string) {
	tb.Helper()
	if n := bytes.Count(f[name], []byte(old)); n != 1 {
		tb.Fatalf("%s says %q %d times", name, old, n)
	}
	f[name] = bytes.Replace(f[name], []byte(old), []byte(new), 1)
}

// lines splits events.jsonl; the elements keep their newline.
func (f files) lines() [][]byte {
	l := bytes.SplitAfter(f[eventsName], []byte("\n"))
	return l[:len(l)-1]
}

// sign makes a file list that fits the files, as someone with the key could.
func (f files) sign(tb testing.TB, signer note.Signer) {
	tb.Helper()
	var sums []byte
	n := 0
	for _, name := range f.names() {
		if name != sumsName && name != noteName {
			sums = appendSum(sums, sumOf(f[name]), name)
			n++
		}
	}
	f[sumsName] = sums
	var m manifest
	if err := m.read(bytes.NewReader(f[manifestName]), func(string, string) {}); err != nil {
		tb.Fatal(err)
	}
	list := fileList{exportID: m.exportID, bundleHash: m.bundleHash, files: n, sums: sumOf(sums)}
	signed, err := note.Sign(&note.Note{Text: list.text()}, signer)
	if err != nil {
		tb.Fatal(err)
	}
	f[noteName] = signed
}

// rehash brings hashes, links and references up to date after the events were
// changed, as a forger would; events keep their ids and sequences.
func (f files) rehash(tb testing.TB) {
	tb.Helper()
	var all, joined []byte
	prev := ""
	oldHash := string(manifestText(tb, f, "bundle_hash"))
	oldRef := string(manifestText(tb, f, "chain_segment_ref"))
	seg := f[segmentName]
	for i, line := range f.lines() {
		var e event
		if err := e.parse(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			tb.Fatal(err)
		}
		was, link := string(e.eventHash), string(e.prevHash)
		text := bytes.Clone(e.line)
		if i > 0 && prev != link {
			text = bytes.Replace(text, []byte(`"prev_hash":"`+link), []byte(`"prev_hash":"`+prev), 1)
		}
		if err := e.parse(text); err != nil {
			tb.Fatal(err)
		}
		now := newHasher().event(&e).String()
		text = bytes.Replace(text, []byte(`"event_hash":"`+was), []byte(`"event_hash":"`+now), 1)
		seg = bytes.ReplaceAll(seg, []byte(was), []byte(now))
		prev = now
		all = append(append(all, text...), '\n')
		if i > 0 {
			joined = append(joined, '\n')
		}
		joined = append(joined, now...)
	}
	f[eventsName] = all
	hash := sumOf(joined).String()
	f[segmentName] = bytes.ReplaceAll(seg, []byte(oldHash), []byte(hash))
	ref := segmentRefStart + sumOf(f[segmentName]).hex()
	for _, name := range []string{manifestName, inputsName} {
		b := bytes.ReplaceAll(f[name], []byte(oldHash), []byte(hash))
		f[name] = bytes.ReplaceAll(b, []byte(oldRef), []byte(ref))
	}
}

func manifestText(tb testing.TB, f files, field string) text {
	tb.Helper()
	b, err := canon.Transform(nil, f[manifestName])
	if err != nil {
		tb.Fatal(err)
	}
	return stringOf(member(b, field))
}

func sumOf(b []byte) digest {
	s := newSpool("")
	if _, err := s.Write(b); err != nil {
		panic(err)
	}
	return s.digest()
}

// A flip of any byte of any file is found, and the file named, with nothing
// trusted beforehand.
func TestEveryByteOfEveryFile(t *testing.T) {
	l := newTestLog(t)
	l.addN(3)
	good := readFiles(t, l.writeDir(l.params(Admissible), l.source([2]int{2, 3})))
	if r := good.verify(t, Options{}); !r.OK {
		t.Fatal(r.First)
	}
	masks := []byte{0x01, 0x20, 0xff}
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, name := range good.names() {
		t.Run(name, func(t *testing.T) {
			bad := good.clone()
			for i := 0; i < len(bad[name]); i += step {
				mask := masks[i%len(masks)]
				bad[name][i] ^= mask
				r := bad.verify(t, Options{})
				if r.OK || r.First.File != name {
					t.Errorf("byte %d flipped by %#x (%s): first fault %v", i, mask, strconv.QuoteToASCII(string(good[name][max(i-8, 0):min(i+8, len(good[name]))])), r.First)
				}
				bad[name][i] ^= mask
			}
		})
	}
}
