package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

// ref is an artifact that events of the export refer to.
type ref struct {
	kind     string // key of manifest.artifacts
	evidence bool   // eosc://evidence/, else eosc://artifact/
	sum      digest
}

func (r ref) pointer() string {
	if r.evidence {
		return evidenceScheme + r.sum.String()
	}
	return artifactScheme + r.sum.String()
}

// refSpool keeps refs in the order they were first seen, each digest once, as
// records of 34 bytes: index of kind, scheme, digest.
type refSpool struct {
	kinds []string
	// seen holds halves of digests, to be half as large: who finds two artifacts
	// that share 128 bits exports a bundle that lacks one and does not verify.
	seen map[[16]byte]struct{}
	out  *spool
}

const refRecord = 2 + len(digest{})

func newRefSpool(dir string) *refSpool {
	return &refSpool{seen: map[[16]byte]struct{}{}, out: newSpool(dir)}
}

func (s *refSpool) has(d digest) bool {
	_, ok := s.seen[[16]byte(d[:16])]
	return ok
}

func (s *refSpool) add(r ref) error {
	if s.has(r.sum) {
		return nil
	}
	s.seen[[16]byte(r.sum[:16])] = struct{}{}
	k := slices.Index(s.kinds, r.kind)
	if k < 0 {
		k = len(s.kinds)
		s.kinds = append(s.kinds, r.kind) // the kinds of this package: a dozen
	}
	rec := [refRecord]byte{byte(k)}
	if r.evidence {
		rec[1] = 1
	}
	copy(rec[2:], r.sum[:])
	_, err := s.out.Write(rec[:])
	return err
}

// each calls fn for the refs of a kind, or of all kinds if it is empty.
func (s *refSpool) each(kind string, fn func(ref) error) error {
	src, err := s.out.reader()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(src, 64<<10)
	for {
		var rec [refRecord]byte
		if _, err := io.ReadFull(r, rec[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read references: %w", err)
		}
		k := s.kinds[rec[0]]
		if kind != "" && k != kind {
			continue
		}
		if err := fn(ref{k, rec[1] == 1, digest(rec[2:])}); err != nil {
			return err
		}
	}
}

func (s *refSpool) Close() error { return s.out.Close() }

// collectRefs notes the artifacts that e names: its evidence and snapshots, and
// whatever else artifactKinds knows, at the top or in the payload.
func (w *writer) collectRefs(e *event) error {
	d, ok := parsePointer(e.pointer)
	if !ok {
		return w.corrupt(e, "evidence_pointer is not content-addressed")
	}
	if err := w.refs.add(ref{artifactKinds["evidence_pointer"], string(e.pointer[:len(evidenceScheme)]) == evidenceScheme, d}); err != nil {
		return err
	}
	for _, snapshot := range [...]struct {
		field string
		id    text
	}{{"policy_snapshot_id", e.policy}, {"authority_snapshot_id", e.authority}} {
		d, ok := parseRef(snapshot.id)
		if !ok {
			return w.corrupt(e, snapshot.field+" is not a digest")
		}
		if err := w.refs.add(ref{kind: artifactKinds[snapshot.field], sum: d}); err != nil {
			return err
		}
	}
	if err := w.mentioned(e, e.line); err != nil || len(e.payload) == 0 || e.payload[0] != '{' {
		return err
	}
	return w.mentioned(e, e.payload)
}

// mentioned notes the artifacts named by the members of obj, if the store has
// them. What the no-control profile declares it must have.
func (w *writer) mentioned(e *event, obj []byte) error {
	return canon.Members(obj, func(m canon.Member) error {
		kind, known := artifactKinds[string(m.Key)]
		must := false
		if !known && string(m.Key) == "artifact_ref" {
			kind, known = ncpKinds[string(e.textField("artifact_type"))]
			must = w.p.Profile.declares(e)
		}
		if string(m.Key) == artifactList && len(m.Value) > 0 && m.Value[0] == '[' {
			return canon.Elements(m.Value, func(v []byte) error { return w.mention(e, "evidence_artifacts", stringOf(v), false) })
		}
		if !known {
			return nil
		}
		return w.mention(e, kind, stringOf(m.Value), must)
	})
}

// artifactList is the member in which an event of ours lists what else it rests
// on: for an admission the verification report, signatures, attestations.
const artifactList = "artifact_refs"

// mention notes one artifact that e names, if the store has it; with must it
// is noted in any case.
func (w *writer) mention(e *event, kind string, pointer text, must bool) error {
	d, ok := parseRef(pointer)
	if !ok || w.refs.has(d) {
		return nil
	}
	r := ref{kind: kind, sum: d}
	if must {
		return w.refs.add(r)
	}
	body, _, err := w.src.Artifact(w.ctx, r.pointer())
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("event %s: open artifact %s: %w", e.id, r.pointer(), err)
	}
	if err := body.Close(); err != nil {
		return fmt.Errorf("close artifact %s: %w", r.pointer(), err)
	}
	return w.refs.add(r)
}
