package bundle

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
)

// openSegment starts reading chain-segment.json.
func (v *verifier) openSegment() error {
	r, err := v.idx.open(segmentName)
	if err != nil || r == nil {
		v.skip(segmentName+" is missing", stepSegment)
		return err
	}
	g, err := openSegment(r)
	if err != nil {
		return v.breakSegment(err)
	}
	v.pass.segment = g
	return nil
}

// breakSegment records that the segment cannot be read any further.
func (v *verifier) breakSegment(err error) error {
	if broken(err) {
		return err
	}
	v.fail(stepStructure, segmentName, "%v", err)
	v.skip(segmentName+" cannot be read", stepSegment)
	v.pass.segment = nil
	return nil
}

// nextEntry reads the segment's entry for the line under way.
func (v *verifier) nextEntry() error {
	p := &v.pass
	if p.segment == nil {
		return nil
	}
	ok, err := p.segment.next(&p.entry)
	if err != nil {
		return v.breakSegment(err)
	}
	if !ok {
		p.entry = entry{}
		v.fail(stepSegment, segmentName, "has no entry for line %d of %s", p.line, eventsName)
	}
	return nil
}

// endSegment reads what is left of the segment once the events are over.
func (v *verifier) endSegment() error {
	p := &v.pass
	if p.segment == nil || !p.complete {
		return nil
	}
	more := 0
	var first string
	for {
		ok, err := p.segment.next(&p.entry)
		if err != nil {
			return v.breakSegment(err)
		}
		if !ok {
			break
		}
		if more++; more == 1 {
			first = fmt.Sprintf("%s (sequence %d)", clip(p.entry.id), p.entry.sequence)
		}
	}
	if more > 0 {
		v.fail(stepSegment, eventsName, "ends early: the segment has %d more, the next is %s", more, first)
	}
	v.checkSegmentHead()
	return nil
}

func (v *verifier) checkSegmentHead() {
	g := v.pass.segment
	if g.algorithm != "sha256" {
		v.fail(stepSegment, segmentName, "algorithm %s is not sha256", quoted(g.algorithm))
	}
	if g.tenant != v.manifest.tenantID {
		v.fail(stepSegment, segmentName, "tenant_id %s is not the manifest's", quoted(g.tenant))
	}
	if g.profile != v.manifest.profile {
		v.fail(stepProfile, segmentName, "evidence_profile_id %s is not the manifest's", quoted(g.profile))
	}
	if g.signature != "" {
		v.warn(stepSignatures, segmentName, "the segment's signature names no key and is not checked")
	}
}

// checkEntry is step 8 for one event.
func (v *verifier) checkEntry(e *event, newRun bool) {
	p := &v.pass
	if p.segment == nil || p.entry.id == nil && p.entry.sequence == 0 {
		return // said already
	}
	en := &p.entry
	for _, f := range [...]struct {
		name        string
		entry, want text
	}{
		{"id", en.id, e.id}, {"event_hash", en.eventHash, e.eventHash}, {"prev_hash", en.prevHash, e.prevHash}, {"event_ref", en.ref, e.pointer},
	} {
		if !bytes.Equal(f.entry, f.want) {
			v.failEntry(e, f.name+" "+quoted(f.entry)+" is not the event's")
		}
	}
	if en.sequence != e.sequence {
		v.failEntry(e, fmt.Sprintf("sequence %d is not the event's", en.sequence))
	}
	if en.profile != nil && string(en.profile) != string(p.rules.profile) {
		v.failEntry(e, "evidence_profile_id "+quoted(en.profile)+" is not the manifest's")
	}
	if en.hasPrior && !newRun {
		v.failEntry(e, "prior_event_hash inside a run")
	}
}

func (v *verifier) failEntry(e *event, reason string) {
	v.add(fault, Fault{Step: stepSegment, File: segmentName, EventID: clip(e.id), Sequence: e.sequence, Reason: reason})
}

// merklePass recomputes the log's root from each run of events (step 19).
type merklePass struct {
	runs    *runReader
	current proofRun
	run     *compact.Range // nil between runs
}

// openMerkle starts reading the proof's runs.
func (v *verifier) openMerkle() error {
	if v.root == nil {
		return nil
	}
	r, err := v.idx.open(proofName)
	if err != nil {
		return err
	}
	runs, err := openRuns(r)
	if err != nil {
		return v.breakMerkle("%v", err)
	}
	v.pass.merkle = &merklePass{runs: runs}
	return nil
}

// breakMerkle records why the root cannot be recomputed and stops trying.
func (v *verifier) breakMerkle(format string, args ...any) error {
	for _, a := range args {
		if err, ok := a.(error); ok && broken(err) {
			return err
		}
	}
	v.fail(stepMerkle, proofName, format, args...)
	v.pass.merkle = nil
	return nil
}

// beginRun takes the next run of the proof, which must begin with this event.
func (v *verifier) beginRun(sequence uint64) error {
	m := v.pass.merkle
	if m == nil {
		return nil
	}
	run, ok, err := m.runs.next()
	switch {
	case err != nil:
		return v.breakMerkle("%v", err)
	case !ok:
		return v.breakMerkle("no run begins at sequence %d", sequence)
	case run.From != sequence || sequence == 0:
		return v.breakMerkle("the next run begins at sequence %d, the events at %d", run.From, sequence)
	}
	m.current, m.run = run, ranges.NewEmptyRange(sequence-1)
	return nil
}

func (v *verifier) addLeaf(e *event) {
	if m := v.pass.merkle; m != nil && m.run != nil {
		// Appending to a range that began empty cannot fail.
		if err := m.run.Append(v.pass.hasher.leaf(e), nil); err != nil {
			v.fail(stepMerkle, proofName, "%v", err)
		}
	}
}

// endRun computes the root from the run that is over.
func (v *verifier) endRun() error {
	m := v.pass.merkle
	if m == nil || m.run == nil {
		return nil
	}
	if m.current.To != m.run.End() {
		return v.breakMerkle("the run from sequence %d ends at %d, the events at %d", m.current.From, m.current.To, m.run.End())
	}
	root, err := rootOf(m.current.Left, m.run, m.current.Right, v.root.size)
	if err != nil {
		return v.breakMerkle("run of sequences %d to %d: %v", m.current.From, m.current.To, err)
	}
	if !bytes.Equal(root, v.root.hash) {
		return v.breakMerkle("sequences %d to %d give root %s, the checkpoint says %s", m.current.From, m.current.To,
			base64.StdEncoding.EncodeToString(root), base64.StdEncoding.EncodeToString(v.root.hash))
	}
	m.run = nil
	return nil
}

// endMerkle makes sure that the proof has no more runs than the events.
func (v *verifier) endMerkle() error {
	m := v.pass.merkle
	if m == nil || !v.pass.complete {
		return nil
	}
	run, more, err := m.runs.next()
	if err != nil {
		return v.breakMerkle("%v", err)
	}
	if more {
		return v.breakMerkle("a run from sequence %d has no events", run.From)
	}
	return nil
}
