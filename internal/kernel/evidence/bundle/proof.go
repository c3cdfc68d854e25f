package bundle

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel"
)

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// checkHashes makes sure that foreign hashes have the size of hashes; the range
// factory looks at their number only.
func checkHashes(hashes [][]byte) error {
	for _, h := range hashes {
		if len(h) != rfc6962.DefaultHasher.Size() {
			return fmt.Errorf("a hash of %d bytes", len(h))
		}
	}
	return nil
}

// rootOf computes the root of a tree of size leaves from a run and the compact
// ranges beside it.
func rootOf(left [][]byte, run *compact.Range, right [][]byte, size uint64) ([]byte, error) {
	if err := checkHashes(left); err != nil {
		return nil, fmt.Errorf("left of the run: %w", err)
	}
	if err := checkHashes(right); err != nil {
		return nil, fmt.Errorf("right of the run: %w", err)
	}
	whole, err := ranges.NewRange(0, run.Begin(), left)
	if err != nil {
		return nil, fmt.Errorf("left of the run: %w", err)
	}
	if err := whole.AppendRange(run, nil); err != nil {
		return nil, err
	}
	after, err := ranges.NewRange(run.End(), size, right)
	if err != nil {
		return nil, fmt.Errorf("right of the run: %w", err)
	}
	if err := whole.AppendRange(after, nil); err != nil {
		return nil, err
	}
	return whole.GetRootHash(nil)
}

// openCheckpoint verifies a signed checkpoint. One of keys must have signed it
// under the log's own name, which is its origin (C2SP tlog-checkpoint).
func openCheckpoint(signed []byte, keys ...note.Verifier) (*log.Checkpoint, note.Signature, error) {
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		return nil, note.Signature{}, errors.New(noteError(err))
	}
	var c log.Checkpoint
	if _, err := c.Unmarshal([]byte(n.Text)); err != nil {
		return nil, note.Signature{}, err
	}
	if len(c.Hash) != rfc6962.DefaultHasher.Size() {
		return nil, note.Signature{}, fmt.Errorf("root hash of %d bytes", len(c.Hash))
	}
	for _, s := range n.Sigs {
		if s.Name == c.Origin {
			return &c, s, nil
		}
	}
	return nil, note.Signature{}, fmt.Errorf("signed by %s, not by the log %s", n.Sigs[0].Name, c.Origin)
}

// proofWriter builds log-proof.json while events pass.
type proofWriter struct {
	log        *Log
	checkpoint *log.Checkpoint
	body       *spool
	run        *compact.Range // nil before the first event
	runs       int
}

func newProofWriter(dir string, l *Log) (*proofWriter, error) {
	key, err := note.NewVerifier(l.Key)
	if err != nil {
		return nil, kernel.Errorf(kernel.Internal, "", "log key: %w", err)
	}
	c, _, err := openCheckpoint(l.Checkpoint, key)
	if err != nil {
		return nil, kernel.Errorf(kernel.Internal, "", "checkpoint of the log: %w", err)
	}
	head, err := members(proofHead{Origin: c.Origin, TreeSize: c.Size, LogKey: l.Key, Checkpoint: string(l.Checkpoint)})
	if err != nil {
		return nil, err
	}
	p := &proofWriter{log: l, checkpoint: c, body: newSpool(dir)}
	_, err = fmt.Fprintf(p.body, "{\n%s,\n  \"runs\": [", head)
	return p, err
}

// add appends the leaf of an event.
func (p *proofWriter) add(ctx context.Context, sequence uint64, leaf []byte) error {
	if sequence > p.checkpoint.Size {
		return kernel.Errorf(kernel.Internal, "", "sequence %d is beyond the checkpoint of size %d", sequence, p.checkpoint.Size)
	}
	if p.run != nil && p.run.End() != sequence-1 {
		if err := p.endRun(ctx); err != nil {
			return err
		}
	}
	if p.run == nil {
		p.run = ranges.NewEmptyRange(sequence - 1)
	}
	return p.run.Append(leaf, nil)
}

func (p *proofWriter) endRun(ctx context.Context) error {
	begin, end := p.run.Begin(), p.run.End()
	left, err := p.log.Range(ctx, 0, begin)
	if err != nil {
		return fmt.Errorf("hashes before sequence %d: %w", begin+1, err)
	}
	right, err := p.log.Range(ctx, end, p.checkpoint.Size)
	if err != nil {
		return fmt.Errorf("hashes after sequence %d: %w", end, err)
	}
	line, err := marshalRun(proofRun{From: begin + 1, To: end, Left: left, Right: right})
	if err != nil {
		return fmt.Errorf("encode proof: %w", err)
	}
	root, err := rootOf(left, p.run, right, p.checkpoint.Size)
	if err != nil {
		return kernel.Errorf(kernel.Internal, "", "proof of sequences %d to %d: %w", begin+1, end, err)
	}
	if !bytes.Equal(root, p.checkpoint.Hash) {
		return kernel.Errorf(kernel.Internal, "", "sequences %d to %d give root %s, the checkpoint says %s",
			begin+1, end, base64.StdEncoding.EncodeToString(root), base64.StdEncoding.EncodeToString(p.checkpoint.Hash))
	}
	_, err = fmt.Fprintf(p.body, "%s\n    %s", comma(p.runs == 0), line)
	p.run = nil
	p.runs++
	return err
}

// end completes the document.
func (p *proofWriter) end(ctx context.Context) error {
	if err := p.endRun(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprint(p.body, "\n  ]\n}\n")
	return err
}
