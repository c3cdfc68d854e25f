package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

func TestRoundTrip(t *testing.T) {
	l := newTestLog(t)
	l.addN(9)
	for _, p := range Profiles() {
		for _, format := range []string{"dir", "tar.gz", "zip"} {
			t.Run(string(p)+"/"+format, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "bundle")
				if format == "dir" {
					path = l.writeDir(l.params(p), l.source())
				} else {
					s := l.writeArchive(l.params(p), l.source(), path, format)
					if s.Events != 9 || s.Artifacts != 11 || s.Files != 11+8 || s.From != 1 || s.To != 9 || s.Runs != 1 {
						t.Errorf("summary %+v", s)
					}
				}
				r := verifyOK(t, path, Options{Keys: []string{l.key}})
				for _, s := range r.Steps {
					if s.Status != OK {
						t.Errorf("step %d %s: %s %s", s.Number, s.Name, s.Status, s.Note)
					}
				}
				if r.Foreign || r.Signature.Key != l.key || r.Signature.Trust != Given || r.Checkpoint.Trust != Given ||
					r.Checkpoint.TreeSize != 9 || r.Checkpoint.Origin != testOrigin || r.Profile != string(p) || r.TenantID != testTenant {
					t.Errorf("report %+v", r)
				}
				if r := verifyOK(t, path, Options{}); r.Signature.Trust != FirstUse || r.Checkpoint.Trust != FirstUse {
					t.Error("keys from the bundle itself are not reported as such")
				}
			})
		}
	}
}

// The manifest declares a hash profile where the profile wants one.
func TestHashProfile(t *testing.T) {
	for _, c := range []struct {
		profile     Profile
		given, want string
		ok          bool
	}{
		{Baseline, "", "", true}, {Baseline, "own-v2", "own-v2", true}, {NCP, "", "", true},
		{Admissible, "", HashV1, true}, {Admissible, "own-v2", "own-v2", true},
		{RegulatedML, "", HashV1, true}, {RegulatedML, "own-v2", "", false},
	} {
		got, err := c.profile.hashProfile(c.given)
		if got != c.want || (err == nil) != c.ok || (err != nil && kernel.KindOf(err) != kernel.Invalid) {
			t.Errorf("%s with %q: %q, %v", c.profile, c.given, got, err)
		}
	}
}

// Exports of one correlation have holes; links and proofs hold inside each run.
func TestRuns(t *testing.T) {
	l := newTestLog(t)
	l.addN(37)
	for _, runs := range [][][2]int{
		{{1, 1}}, {{37, 37}}, {{5, 9}}, {{1, 3}, {5, 5}, {36, 37}}, {{2, 2}, {4, 4}, {6, 6}, {8, 8}, {33, 33}}, {{1, 36}},
	} {
		dir := l.writeDir(l.params(Admissible), l.source(runs...))
		r := verifyOK(t, dir, Options{Keys: []string{l.key}})
		n := 0
		for _, run := range runs {
			n += run[1] - run[0] + 1
		}
		if want := (Scope{From: uint64(runs[0][0]), To: uint64(runs[len(runs)-1][1]), Events: uint64(n), Runs: uint64(len(runs))}); r.Scope != want {
			t.Errorf("scope %+v, want %+v", r.Scope, want)
		}
	}
}

// The contract's own tools read what we write: sha256sum the file list, and the
// smoke check's jq rules, told in shell terms.
func TestSha256sum(t *testing.T) {
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("SKIPPED: no sha256sum here")
	}
	l := newTestLog(t)
	l.addN(3)
	cmd := exec.Command(tool, "--check", "--strict", "--quiet", sumsName)
	cmd.Dir = l.writeDir(l.params(Baseline), l.source())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Artifacts that events mention are packed if the store has them.
func TestMentionedArtifacts(t *testing.T) {
	l := newTestLog(t)
	sbom := l.store([]byte(`{"sbom":1}`))
	missing := "sha256:" + strings.Repeat("ab", 32)
	l.add(map[string]any{"payload": map[string]any{"sbom_ref": "eosc://artifact/" + sbom, "model_sbom_ref": missing}})
	l.add(map[string]any{"dataset_manifest_ref": sbom, "consent_token_ref": "opaque"})
	f := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	d, _ := parseHash(sbom)
	if f[d.path()] == nil || !bytes.Contains(f[manifestName], []byte(`"sbom_refs": [`)) || bytes.Contains(f[manifestName], []byte(missing)) {
		t.Errorf("manifest:\n%s", f[manifestName])
	}
	if r := f.verify(t, Options{}); !r.OK {
		t.Error(r.First)
	}
}

func TestWriteRefuses(t *testing.T) {
	l := newTestLog(t)
	l.addN(6)
	other := newTestLog(t, "other")
	lose := func(prefix string) func(*Source) {
		return func(s *Source) {
			s.Artifact = func(ctx context.Context, p string) (io.ReadCloser, int64, error) {
				if strings.HasPrefix(p, prefix) {
					return nil, 0, kernel.Errorf(kernel.NotFound, "", "gone")
				}
				return l.artifact(ctx, p)
			}
		}
	}
	edit := func(n int, old, new string) func(*Source) {
		return func(s *Source) {
			s.Events = func(yield func([]byte, error) bool) {
				for i, line := range l.lines {
					if i == n {
						line = bytes.Replace(line, []byte(old), []byte(new), 1)
					}
					if !yield(line, nil) {
						return
					}
				}
			}
		}
	}
	for name, c := range map[string]struct {
		params func(*Params)
		source func(*Source)
		kind   kernel.Kind
		want   string
	}{
		"unknown profile":    {params: func(p *Params) { p.Profile = "gold" }, kind: kernel.Invalid, want: "evidence_profile_id"},
		"bad hash profile":   {params: func(p *Params) { p.Profile, p.HashProfile = RegulatedML, "x" }, kind: kernel.Invalid, want: "hash_profile_id"},
		"export id":          {params: func(p *Params) { p.ExportID = "a\nb" }, kind: kernel.Invalid, want: "export_id"},
		"no tenant":          {params: func(p *Params) { p.TenantID = "" }, kind: kernel.Invalid, want: "tenant_id"},
		"foreign key":        {params: func(p *Params) { p.SigningKey = other.key }, kind: kernel.Internal, want: "does not belong"},
		"no events":          {source: func(s *Source) { s.Events = func(func([]byte, error) bool) {} }, kind: kernel.Unprocessable, want: "no events"},
		"other tenant":       {params: func(p *Params) { p.TenantID = "rival" }, kind: kernel.Internal, want: "tenant_id is not rival"},
		"other chain":        {params: func(p *Params) { p.ChainID = "x" }, kind: kernel.Internal, want: "chain_id is not x"},
		"source fails":       {source: func(s *Source) { s.Events = failAfter(l.lines, 3) }, kind: kernel.Internal, want: errDisk.Error()},
		"changed event":      {source: edit(3, "w-4", "w-5"), kind: kernel.Internal, want: "event_hash does not recompute"},
		"not canonical":      {source: edit(3, ",", ", "), kind: kernel.Internal, want: "not canonical"},
		"twice":              {source: func(s *Source) { s.Events = l.source([2]int{1, 3}, [2]int{3, 4}).Events }, kind: kernel.Internal, want: "does not ascend"},
		"evidence lost":      {source: lose(evidenceScheme), kind: kernel.Internal, want: "gone"},
		"snapshot lost":      {source: lose("eosc://artifact/" + l.policy), kind: kernel.Internal, want: "gone"},
		"artifact changed":   {source: func(s *Source) { s.Artifact = fakeArtifact(`{"a":1}`, 7) }, kind: kernel.Internal, want: "another digest"},
		"artifact too short": {source: func(s *Source) { s.Artifact = fakeArtifact(`{"a":1}`, 8) }, kind: kernel.Internal, want: "were announced"},
		"artifact too long":  {source: func(s *Source) { s.Artifact = fakeArtifact(`{"a":1}`, 6) }, kind: kernel.Internal, want: "more came"},
		"old checkpoint":     {source: oldCheckpoint(l, 4), kind: kernel.Internal, want: "beyond the checkpoint"},
		"checkpoint unsigned": {source: func(s *Source) { s.Log.Checkpoint = []byte("x\n1\nAA==\n") }, kind: kernel.Internal,
			want: "checkpoint of the log"},
		"wrong proof": {source: func(s *Source) {
			s.Log.Range = func(ctx context.Context, b, e uint64) ([][]byte, error) {
				h, err := l.ranges(ctx, b, e)
				for i := range h {
					h[i] = make([]byte, 32)
				}
				return h, err
			}
			s.Events = l.source([2]int{2, 3}).Events
		}, kind: kernel.Internal, want: "the checkpoint says"},
	} {
		t.Run(name, func(t *testing.T) {
			p, src := l.params(Baseline), l.source()
			if c.params != nil {
				c.params(&p)
			}
			if c.source != nil {
				c.source(&src)
			}
			sink := &recordingSink{}
			_, err := Write(context.Background(), sink, p, src)
			if err == nil || !strings.Contains(err.Error(), c.want) || kernel.KindOf(err) != c.kind {
				t.Errorf("%v (%v), want %q (%v)", err, kernel.KindOf(err), c.want, c.kind)
			}
			if !sink.aborted || sink.closed {
				t.Errorf("aborted %v, closed %v", sink.aborted, sink.closed)
			}
			left, err := os.ReadDir(p.TempDir)
			if err != nil || len(left) != 0 {
				t.Errorf("temporary files stayed: %v, %v", left, err)
			}
		})
	}
}

// Events that a profile does not allow are not exported under it.
func TestWriteRefusesUnderProfile(t *testing.T) {
	for _, c := range []struct {
		profile Profile
		event   map[string]any
		want    string
	}{
		{Baseline, map[string]any{"outcome": "maybe"}, "outcome"},
		{Baseline, map[string]any{"id": "evt-1"}, "UUID"},
		{Baseline, map[string]any{"actor": nil}, "actor"},
		{Baseline, map[string]any{"occurred_at": "yesterday"}, "RFC 3339"},
		{Baseline, map[string]any{"outcome": "refused", "refusal_reason_code": nil}, "refused without a reason"},
		{Baseline, map[string]any{"evidence_pointer": "https://x"}, "evidence_pointer"},
		{Baseline, map[string]any{"policy_snapshot_id": "pol-1"}, "not a digest"},
		{Admissible, map[string]any{"chain_id": nil}, "chain_id"},
		{NCP, map[string]any{"event_type": "key.custody.declare", "payload": map[string]any{"artifact_type": "key_custody_model"}}, "artifact_ref"},
		{RegulatedML, map[string]any{"event_type": "ml.inference", "payload": map[string]any{"model_id": "m", "input_hash": "h"}}, "hash_profile_id"},
	} {
		l := newTestLog(t)
		l.add(c.event)
		_, err := Write(context.Background(), &recordingSink{}, l.params(c.profile), l.source())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.profile, c.event, err, c.want)
		}
	}
}

// Every write of a sink can fail; each failure comes out and nothing is closed.
func TestWriteToFailingSink(t *testing.T) {
	l := newTestLog(t)
	l.addN(2)
	for n := range 100 {
		sink := &recordingSink{failAt: n + 1}
		_, err := Write(context.Background(), sink, l.params(Baseline), l.source())
		if err == nil {
			if n != 8+4+1 { // documents, artifacts, Close
				t.Errorf("a good export calls the sink %d times", n)
			}
			return
		}
		if !errors.Is(err, errDisk) || !sink.aborted || sink.closed {
			t.Errorf("call %d: %v, %+v", n+1, err, sink)
		}
	}
	t.Error("never succeeded")
}

func TestWriteStopsWithContext(t *testing.T) {
	l := newTestLog(t)
	l.addN(2)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, &recordingSink{}, l.params(Baseline), l.source()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDirSinkWantsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDir(dir); kernel.KindOf(err) != kernel.Conflict {
		t.Error(err)
	}
}

// A large export goes through temporary files and leaves none.
func TestSpooledExport(t *testing.T) {
	l := newTestLog(t)
	l.addN(3000)
	p := l.params(Baseline)
	path := filepath.Join(t.TempDir(), "bundle")
	l.writeArchive(p, l.source(), path, "tar.gz")
	opts := Options{Keys: []string{l.key}, TempDir: t.TempDir()}
	if r := verifyOK(t, path, opts); r.Scope.Events != 3000 {
		t.Errorf("scope %+v", r.Scope)
	}
	for _, dir := range []string{p.TempDir, opts.TempDir} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("temporary files stayed: %v, %v", left, err)
		}
	}
}

// The lines of a bundle are the log's, byte for byte.
func TestLinesAreKept(t *testing.T) {
	l := newTestLog(t)
	l.addN(4)
	f := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	if want := append(bytes.Join(l.lines, []byte("\n")), '\n'); !bytes.Equal(f[eventsName], want) {
		t.Errorf("got\n%s\nwant\n%s", f[eventsName], want)
	}
	for _, line := range f.lines() {
		if err := canon.Check(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			t.Error(err)
		}
	}
}

// recordingSink takes everything and can fail on demand.
type recordingSink struct {
	calls, failAt   int
	closed, aborted bool
}

func (s *recordingSink) WriteFile(name string, size int64, r io.Reader) error {
	if s.calls++; s.calls == s.failAt {
		return fmt.Errorf("write %s: %w", name, errDisk)
	}
	return copyExactly(io.Discard, r, size)
}

func (s *recordingSink) Close() error {
	s.closed = s.calls+1 != s.failAt
	if !s.closed {
		return errDisk
	}
	return nil
}

func (s *recordingSink) Abort() error { s.aborted = true; return nil }

func failAfter(lines [][]byte, n int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, line := range lines[:n] {
			if !yield(line, nil) {
				return
			}
		}
		yield(nil, errDisk)
	}
}

func fakeArtifact(body string, size int64) func(context.Context, string) (io.ReadCloser, int64, error) {
	return func(context.Context, string) (io.ReadCloser, int64, error) {
		return io.NopCloser(strings.NewReader(body)), size, nil
	}
}

// oldCheckpoint is of a shorter log.
func oldCheckpoint(l *testLog, n int) func(*Source) {
	return func(s *Source) {
		short := &testLog{tb: l.tb, signer: l.signer}
		for i := range n {
			short.lines = append(short.lines, l.lines[i])
			short.grow(l.levels[0][i])
		}
		s.Log.Checkpoint = short.checkpoint()
	}
}
