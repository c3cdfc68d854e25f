package bundle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"time"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

// eventPass reads events.jsonl once, beside chain-segment.json and the runs of
// log-proof.json, and does every step that looks at events.
type eventPass struct {
	scope    Scope
	complete bool // all lines were read
	line     int

	rules   rules
	hasher  *hasher
	chain   hash.Hash // over the newline-joined event hashes
	tenant  text
	chainID text
	event   event
	buf     []byte // of lines brought into canonical form

	segment *segmentReader // nil if there is none, or after it broke
	entry   entry
	merkle  *merklePass // nil without a root, or after it broke
	lineage lineage

	last         digest // event_hash of the event before
	lastTime     time.Time
	broken       bool   // the event before could not be read
	policy       []byte // snapshots resolved last; most events share them
	authority    []byte
	correlations map[uint64]uint64
	seed         maphash.Seed

	sawChain, sawHash, sawPrev bool
	hashProfiles               []string
	refused                    int
}

func (p *eventPass) joined() (d digest) {
	p.chain.Sum(d[:0])
	return d
}

// failEvent records a fault of the event under way.
func (v *verifier) failEvent(step int, s severity, reason string) {
	p := &v.pass
	v.add(s, Fault{Step: step, File: eventsName, Line: p.line, EventID: clip(p.event.id), Sequence: p.event.sequence, Reason: reason})
}

func clip(t text) string {
	s := t.String()
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return s
}

// eventSteps are what cannot be done without the events.
var eventSteps = []int{stepEnvelope, stepEventHash, stepLinks, stepSequence, stepSegment, stepSnapshots, stepRefusals, stepLineage, stepMerkle}

// checkEvents is steps 4 to 8, 13 to 15 and 19, and 12 for the events' pointers.
func (v *verifier) checkEvents(ctx context.Context) error {
	p := &v.pass
	p.rules = rules{profile: Profile(v.manifest.profile), lenient: v.lenient}
	p.hasher, p.chain = newHasher(), sha256.New()
	p.tenant, p.chainID = textOf(v.manifest.tenantID), textOf(v.manifest.chainID)
	p.correlations, p.seed = map[uint64]uint64{}, maphash.MakeSeed()
	p.lineage.v = v
	r, err := v.idx.open(eventsName)
	if err != nil {
		return err
	}
	if r == nil {
		v.skip(eventsName+" is missing", eventSteps...)
		return nil
	}
	if err := v.openSegment(); err != nil {
		return err
	}
	if err := v.openMerkle(); err != nil {
		return err
	}
	if err := v.readLines(ctx, r); err != nil {
		return err
	}
	if err := v.endSegment(); err != nil {
		return err
	}
	if err := v.endRun(); err != nil {
		return err
	}
	if err := v.endMerkle(); err != nil {
		return err
	}
	p.lineage.end()
	if p.complete && p.refused == 0 {
		v.warn(stepRefusals, eventsName, "no event is refused; the contract's smoke check wants one")
	}
	return nil
}

// readLines takes events.jsonl apart.
func (v *verifier) readLines(ctx context.Context, r io.Reader) error {
	p := &v.pass
	lines := bufio.NewReaderSize(r, int(min(v.idx.files[eventsName].body.size, maxLine))+1)
	for {
		line, err := lines.ReadSlice('\n')
		p.line++
		p.event = event{}
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			p.complete = true
			return nil
		case errors.Is(err, io.EOF):
			v.add(p.rules.strictly(), Fault{Step: stepStructure, File: eventsName, Line: p.line, Reason: "the last line has no newline"})
		case errors.Is(err, bufio.ErrBufferFull):
			v.add(fault, Fault{Step: stepStructure, File: eventsName, Line: p.line, Reason: fmt.Sprintf("longer than %d bytes", maxLine)})
			v.skip("not all events could be read", eventSteps...)
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", eventsName, err)
		default:
			line = line[:len(line)-1]
		}
		if err := v.readLine(line); err != nil {
			return err
		}
		if p.line%progressEvents == 0 {
			v.opts.Progress(Progress{Phase: "events", Done: int64(p.line), Total: int64(v.manifest.scope.events)})
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

func (v *verifier) readLine(line []byte) (err error) {
	p := &v.pass
	if len(line) == 0 {
		v.failEvent(stepStructure, p.rules.strictly(), "an empty line")
		return nil
	}
	if perr := p.event.parse(line); perr != nil {
		p.event = event{}
		if p.buf, err = canon.Transform(p.buf[:0], line); err == nil {
			err = p.event.parse(p.buf)
		}
		if err != nil {
			v.failEvent(stepStructure, fault, "not an event: "+err.Error())
			p.broken = true
			return v.nextEntry()
		}
		v.failEvent(stepStructure, p.rules.strictly(), perr.Error())
	}
	if err := v.nextEntry(); err != nil {
		return err
	}
	return v.checkEvent(&p.event)
}

// checkEvent does all steps for one event.
func (v *verifier) checkEvent(e *event) error {
	p := &v.pass
	p.rules.check(e, v.failEvent)
	if len(e.eventHash) == 0 && p.segment != nil {
		e.eventHash = p.entry.eventHash // the envelope rule decides whether that will do
	}
	claimed, ok := parseHash(e.eventHash)
	if computed := p.hasher.event(e); !ok {
		v.failEvent(stepEventHash, fault, "event_hash "+quoted(e.eventHash)+" is not sha256:<hex>")
	} else if computed != claimed {
		v.failEvent(stepEventHash, fault, "event_hash is "+claimed.String()+", the event gives "+computed.String())
	}
	newRun := v.checkSequence(e)
	v.checkLink(e, newRun)
	v.checkEntry(e, newRun)
	v.checkPointers(e)
	v.checkCorrelation(e)
	p.lineage.add(e)
	if p.scope.Events > 0 {
		p.chain.Write(newline)
	}
	p.chain.Write(e.eventHash)
	if newRun {
		if err := v.endRun(); err != nil {
			return err
		}
		if err := v.beginRun(e.sequence); err != nil {
			return err
		}
	}
	v.addLeaf(e)
	p.note(e, newRun)
	p.last, p.broken = claimed, false
	return nil
}

var newline = []byte{'\n'}

// note keeps what later steps need to know about the events.
func (p *eventPass) note(e *event, newRun bool) {
	if p.scope.Events == 0 {
		p.scope.From, p.scope.To = e.sequence, e.sequence
	}
	p.scope.From, p.scope.To = min(p.scope.From, e.sequence), max(p.scope.To, e.sequence)
	p.scope.Events++
	if newRun {
		p.scope.Runs++
	}
	p.sawChain = p.sawChain || e.chain != nil
	p.sawHash = p.sawHash || e.cut != [2]int{}
	p.sawPrev = p.sawPrev || e.prevHash != nil
	if string(e.outcome) == "refused" {
		p.refused++
	}
	p.hashProfiles = e.addHashProfile(p.hashProfiles)
}

// checkSequence is step 7. It reports whether e begins a run: the first event,
// and any after a gap that its segment entry declares.
func (v *verifier) checkSequence(e *event) (newRun bool) {
	p := &v.pass
	if len(e.tenant) > 0 && !bytes.Equal(e.tenant, p.tenant) {
		v.failEvent(stepSequence, fault, "tenant_id "+quoted(e.tenant)+" is not the manifest's")
	}
	if len(e.chain) > 0 && !bytes.Equal(e.chain, p.chainID) {
		v.failEvent(stepSequence, fault, "chain_id "+quoted(e.chain)+" is not the manifest's")
	}
	var at time.Time
	if at.UnmarshalText(e.occurredAt) == nil {
		if at.Before(p.lastTime) {
			v.failEvent(stepSequence, warning, "occurred_at is before that of an event before it")
		} else {
			p.lastTime = at
		}
	}
	switch last := p.scope.To; {
	case p.scope.Events == 0:
		return true
	case e.sequence == last+1:
		return false
	case e.sequence <= last:
		v.failEvent(stepSequence, fault, fmt.Sprintf("sequence %d comes after %d", e.sequence, last))
	case p.segment == nil || !p.entry.hasPrior:
		v.failEvent(stepSequence, fault, fmt.Sprintf("sequences %d to %d are missing", last+1, e.sequence-1))
	}
	return true
}

// checkLink is step 6.
func (v *verifier) checkLink(e *event, newRun bool) {
	p := &v.pass
	if newRun {
		v.checkBoundary(e)
		return
	}
	if p.broken {
		return // what it links to could not be read, and that is a fault already
	}
	prev, ok := parseHash(e.prevHash)
	switch {
	case e.prevHash == nil && p.rules.lenient && !p.rules.profile.needsChain():
		v.failEvent(stepLinks, warning, "prev_hash is missing")
	case e.prevHash == nil:
		v.failEvent(stepLinks, fault, "prev_hash is missing")
	case !ok || prev != p.last:
		v.failEvent(stepLinks, fault, "prev_hash is not the event_hash of the event before it")
	}
}

// checkBoundary is step 6 for the first event of a run, which links to an event
// outside the bundle or begins the chain.
func (v *verifier) checkBoundary(e *event) {
	p := &v.pass
	if !v.lenient && e.hasSequence && (e.sequence == 1) != (e.prevHash == nil) {
		v.failEvent(stepLinks, fault, "prev_hash must be absent at sequence 1 and nowhere else")
	}
	if p.scope.Events == 0 && v.readable[inputsName] && v.inputs.prior != "" && string(textOf(v.inputs.prior)) != string(e.prevHash) {
		v.fail(stepLinks, inputsName, "prior_event_hash is not what the first event links to")
	}
	switch {
	case p.segment == nil:
	case p.entry.hasPrior && !bytes.Equal(p.entry.prior, e.prevHash):
		v.fail(stepLinks, segmentName, "prior_event_hash of sequence %d is not what the event links to", e.sequence)
	case !p.entry.hasPrior && e.prevHash != nil:
		v.failEvent(stepLinks, p.rules.strictly(), "the link cannot be checked: the segment does not give prior_event_hash")
	}
}

// checkPointers is step 12 for the event's evidence and step 13 for its snapshots.
func (v *verifier) checkPointers(e *event) {
	p := &v.pass
	if len(e.pointer) > 0 {
		if d, ok := parsePointer(e.pointer); !ok {
			v.failEvent(stepArtifacts, p.rules.strictly(), "evidence_pointer "+quoted(e.pointer)+" names no digest to check")
		} else {
			v.resolve(stepArtifacts, fault, "evidence_pointer", d)
		}
	}
	if len(e.policy) > 0 && !bytes.Equal(e.policy, p.policy) {
		p.policy = append(p.policy[:0], e.policy...)
		v.checkSnapshot("policy_snapshot_id", e.policy)
	}
	if len(e.authority) > 0 && !bytes.Equal(e.authority, p.authority) {
		p.authority = append(p.authority[:0], e.authority...)
		v.checkSnapshot("authority_snapshot_id", e.authority)
	}
}

func (v *verifier) checkSnapshot(field string, id text) {
	if d, ok := parseRef(id); ok {
		v.resolve(stepSnapshots, fault, field, d)
		return
	}
	if _, ok := v.idx.ids[string(id)]; !ok || !v.lenient {
		v.failEvent(stepSnapshots, v.pass.rules.strictly(), field+" "+quoted(id)+" names no artifact of the bundle")
	}
}

// resolve makes sure that an artifact is in the bundle with the right bytes.
// Wrong bytes are a fault, a missing file is as severe as said.
func (v *verifier) resolve(step int, missing severity, what string, d digest) {
	if v.idx.resolve(d) {
		return
	}
	file, why := v.whyUnresolved(eventsName, d)
	if file != eventsName {
		missing = fault
	}
	p := &v.pass
	v.add(missing, Fault{Step: step, File: file, EventID: clip(p.event.id), Sequence: p.event.sequence, Reason: what + " is " + d.String() + ", " + why})
}

// maxCorrelations bounds the memory of checkCorrelation; events of one action
// lie close together.
const maxCorrelations = 1 << 16

// checkCorrelation is step 13's consistency: events of one correlation are
// expected under one policy and authority. Clients choose correlation ids and
// may keep one while the policy changes, so a difference is a warning.
func (v *verifier) checkCorrelation(e *event) {
	p := &v.pass
	if len(e.correlation) == 0 || (e.policy == nil && e.authority == nil) {
		return
	}
	key := maphash.Bytes(p.seed, e.correlation)
	under := maphash.Bytes(p.seed, e.policy) ^ maphash.Bytes(p.seed, e.authority)<<1
	before, seen := p.correlations[key]
	if seen && before == under {
		return
	}
	if seen {
		v.failEvent(stepSnapshots, warning, "policy or authority snapshot differs from an earlier event of correlation "+quoted(e.correlation))
	}
	if len(p.correlations) >= maxCorrelations {
		clear(p.correlations)
	}
	p.correlations[key] = under
}
