package client

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrUnverified is in the chain of every error that says that evidence does
// not hold: a hash, a signature or a proof that is not what it should be.
var ErrUnverified = errors.New("not verified")

// Proof shows that an event is in the log of a signed checkpoint (RFC 6962 §2.1.1).
type Proof struct {
	Object
	LeafIndex  int64    `json:"leaf_index"` // the event's sequence - 1
	TreeSize   int64    `json:"tree_size"`
	LeafHash   []byte   `json:"leaf_hash"`
	Hashes     [][]byte `json:"hashes"`     // the audit path, leaf upwards
	Checkpoint string   `json:"checkpoint"` // C2SP signed note
	LogKey     string   `json:"log_key"`    // that the server says signs it: to be believed only if it is the key already known
}

// Checkpoint is a tree head that the log's key signed.
type Checkpoint struct {
	Origin   string
	TreeSize int64
	RootHash [32]byte
}

// Verify checks that the log whose C2SP verifier key is logKey holds entry, an
// event's canonical bytes, at LeafIndex. It trusts nothing but the key; its
// errors are ErrUnverified.
func (p Proof) Verify(entry []byte, logKey string) (Checkpoint, error) {
	cp, err := openCheckpoint(p.Checkpoint, logKey)
	if err != nil {
		return cp, err
	}
	if p.TreeSize != cp.TreeSize {
		return cp, fmt.Errorf("%w: the proof is for a tree of %d entries, the checkpoint for one of %d", ErrUnverified, p.TreeSize, cp.TreeSize)
	}
	leaf := tlog.RecordHash(entry)
	if string(p.LeafHash) != string(leaf[:]) {
		return cp, fmt.Errorf("%w: the event's hash is not the proof's: one of the two was changed", ErrUnverified)
	}
	path := make(tlog.RecordProof, len(p.Hashes))
	for i, h := range p.Hashes {
		if len(h) != tlog.HashSize {
			return cp, fmt.Errorf("%w: hash %d of the proof has %d bytes, want %d", ErrUnverified, i, len(h), tlog.HashSize)
		}
		path[i] = tlog.Hash(h)
	}
	if p.LeafIndex < 0 || p.LeafIndex >= cp.TreeSize {
		return cp, fmt.Errorf("%w: entry %d is not in a tree of %d", ErrUnverified, p.LeafIndex, cp.TreeSize)
	}
	if err := tlog.CheckRecord(path, cp.TreeSize, cp.RootHash, p.LeafIndex, leaf); err != nil {
		return cp, fmt.Errorf("%w: the event is not in the checkpoint's tree: %w", ErrUnverified, err)
	}
	return cp, nil
}

// openCheckpoint reads a C2SP tlog-checkpoint that logKey signed for its own origin.
func openCheckpoint(text, logKey string) (cp Checkpoint, err error) {
	key, err := note.NewVerifier(strings.TrimSpace(logKey))
	if err != nil {
		return cp, &Error{Code: CodeInvalid, Field: "key", Message: "is not a C2SP verifier key such as provost.example/demo+1234abcd+A…", Err: err}
	}
	n, err := note.Open([]byte(text), note.VerifierList(key))
	if err != nil {
		return cp, fmt.Errorf("%w: the checkpoint is not signed by %s: %w", ErrUnverified, key.Name(), err)
	}
	var c log.Checkpoint
	if _, err := c.Unmarshal([]byte(n.Text)); err != nil {
		return cp, fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	if c.Origin != key.Name() {
		return cp, fmt.Errorf("%w: the checkpoint is of log %s, not %s", ErrUnverified, c.Origin, key.Name())
	}
	if len(c.Hash) != tlog.HashSize || c.Size > 1<<62 {
		return cp, fmt.Errorf("%w: the checkpoint's root or size is out of range", ErrUnverified)
	}
	return Checkpoint{Origin: c.Origin, TreeSize: int64(c.Size), RootHash: [32]byte(c.Hash)}, nil
}

// splitPointer reads "eosc://evidence/sha256:<hex>" and "eosc://artifact/sha256:<hex>"
// as the segments of the route that serves it.
func splitPointer(pointer string) (kind, digest string, err error) {
	if d, ok := strings.CutPrefix(pointer, "eosc://evidence/"); ok {
		kind, digest = "evidence", d
	} else if d, ok := strings.CutPrefix(pointer, "eosc://artifact/"); ok {
		kind, digest = "artifacts", d
	}
	if sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:")); kind == "" || err != nil || len(sum) != sha256.Size {
		return "", "", &Error{Code: CodeInvalid, Field: "pointer", Message: fmt.Sprintf("%q is not an evidence pointer such as eosc://evidence/sha256:…", clean(pointer, 200))}
	}
	return kind, digest, nil
}

func checkDigest(b []byte, digest string) error {
	if sum := sha256.Sum256(b); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return fmt.Errorf("%w: the bytes served for %s have another digest", ErrUnverified, digest)
	}
	return nil
}
