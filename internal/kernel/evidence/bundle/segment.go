package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

// segmentReader reads chain-segment.json, one entry at a time between the
// members before and after them.
type segmentReader struct {
	tenant, profile, algorithm, hash, signature string
	scope                                       scope
	s                                           *stream
	inside                                      bool // the events array
	had                                         bool // it came
	buf                                         []byte
}

// entry is one element of the segment's events. Its texts are good until the
// next one is read.
type entry struct {
	id, prevHash, prior, eventHash, profile, ref text
	hasPrior                                     bool
	sequence                                     uint64
}

func openSegment(r io.Reader) (*segmentReader, error) {
	g := &segmentReader{s: newStream(r)}
	if _, err := g.s.expect('{', "an object"); err != nil {
		return nil, err
	}
	return g, g.advance()
}

// advance reads members up to the events, or up to the end of the document.
func (g *segmentReader) advance() error {
	for g.s.kind() != '}' {
		name, err := g.s.expect('"', "a name")
		if err != nil {
			return err
		}
		switch name.String() {
		case "events":
			g.inside, g.had = true, true
			_, err := g.s.expect('[', "an array")
			return err
		case "tenant_id":
			err = g.s.text(&g.tenant)
		case "evidence_profile_id":
			err = g.s.text(&g.profile)
		case "algorithm":
			err = g.s.text(&g.algorithm)
		case "segment_hash":
			err = g.s.text(&g.hash)
		case "signature":
			err = g.s.textOrNull(&g.signature)
		case "from_sequence":
			err = g.s.number(&g.scope.from)
		case "to_sequence":
			err = g.s.number(&g.scope.to)
		default:
			err = g.s.skip()
		}
		if err != nil {
			return err
		}
	}
	if _, err := g.s.token(); err != nil {
		return err
	}
	if !g.had {
		return errors.New("events is missing")
	}
	return g.s.end()
}

// next reads the next entry into e; ok is false after the last, when the
// members behind the entries have been read, too.
func (g *segmentReader) next(e *entry) (ok bool, err error) {
	if !g.inside {
		return false, nil
	}
	if g.s.kind() == ']' {
		g.inside = false
		if _, err := g.s.token(); err != nil {
			return false, err
		}
		return false, g.advance()
	}
	raw, err := g.s.value()
	if err != nil {
		return false, err
	}
	if e.parse(raw) == nil {
		return true, nil
	}
	if g.buf, err = canon.Transform(g.buf[:0], raw); err != nil {
		return false, err
	}
	return true, e.parse(g.buf)
}

func (e *entry) parse(raw []byte) error {
	*e = entry{}
	return canon.Members(raw, func(m canon.Member) (err error) {
		switch string(m.Key) {
		case "id":
			e.id = stringOf(m.Value)
		case "prev_hash":
			e.prevHash = stringOf(m.Value)
		case "prior_event_hash":
			e.prior, e.hasPrior = stringOf(m.Value), true
		case "event_hash":
			e.eventHash = stringOf(m.Value)
		case "evidence_profile_id":
			e.profile = stringOf(m.Value)
		case "event_ref":
			e.ref = stringOf(m.Value)
		case "sequence":
			if e.sequence, err = strconv.ParseUint(string(m.Value), 10, 63); err != nil {
				err = fmt.Errorf("sequence %.40s is not a whole number", m.Value)
			}
		}
		return err
	})
}

// proof is what the verifier needs of log-proof.json before its runs.
type proof struct {
	origin, key, checkpoint string
	treeSize                uint64
	hasRuns                 bool
}

func (p *proof) read(r io.Reader) error {
	s := newStream(r)
	err := s.object(func(name string) error {
		switch name {
		case "origin":
			return s.text(&p.origin)
		case "log_key":
			return s.text(&p.key)
		case "checkpoint":
			return s.text(&p.checkpoint)
		case "tree_size":
			return s.number(&p.treeSize)
		case "runs":
			p.hasRuns = true
		}
		return s.skip()
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && !p.hasRuns {
		err = errors.New("runs is missing")
	}
	return err
}

// runReader reads the runs of log-proof.json, which proof.read found well formed.
type runReader struct{ s *stream }

func openRuns(r io.Reader) (*runReader, error) {
	s := newStream(r)
	if _, err := s.expect('{', "an object"); err != nil {
		return nil, err
	}
	for {
		name, err := s.expect('"', "a name")
		if err != nil {
			return nil, err
		}
		if name.String() == "runs" {
			_, err := s.expect('[', "an array")
			return &runReader{s}, err
		}
		if err := s.skip(); err != nil {
			return nil, err
		}
	}
}

// next returns the next run; ok is false after the last.
func (r *runReader) next() (run proofRun, ok bool, err error) {
	if r.s.kind() == ']' {
		return run, false, nil
	}
	raw, err := r.s.value()
	if err != nil {
		return run, false, err
	}
	if err := json.Unmarshal(raw, &run); err != nil {
		return run, false, err
	}
	return run, true, nil
}
