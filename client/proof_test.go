package client

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// testLog is a signed log of n entries, "entry-0" and on.
type testLog struct {
	size   int64
	hashes []tlog.Hash
	signer note.Signer
	key    string
}

func newTestLog(t testing.TB, origin string, n int64) *testLog {
	t.Helper()
	sk, vk, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	l := &testLog{size: n, key: vk}
	if l.signer, err = note.NewSigner(sk); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		hs, err := tlog.StoredHashes(i, entry(i), tlog.HashReaderFunc(l.read))
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, hs...)
	}
	return l
}

func entry(i int64) []byte { return fmt.Appendf(nil, "entry-%d", i) }

func (l *testLog) read(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *testLog) checkpoint(t testing.TB, origin string) string {
	t.Helper()
	root, err := tlog.TreeHash(l.size, tlog.HashReaderFunc(l.read))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: string(log.Checkpoint{Origin: origin, Size: uint64(l.size), Hash: root[:]}.Marshal())}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

func (l *testLog) prove(t testing.TB, i int64) Proof {
	t.Helper()
	path, err := tlog.ProveRecord(l.size, i, tlog.HashReaderFunc(l.read))
	if err != nil {
		t.Fatal(err)
	}
	leaf := tlog.RecordHash(entry(i))
	p := Proof{LeafIndex: i, TreeSize: l.size, LeafHash: leaf[:], Checkpoint: l.checkpoint(t, l.signer.Name())}
	for _, h := range path {
		p.Hashes = append(p.Hashes, h[:])
	}
	return p
}

func TestProofsVerify(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 7, 8, 300} {
		l := newTestLog(t, "example/demo", n)
		for _, i := range []int64{0, n / 2, n - 1} {
			cp, err := l.prove(t, i).Verify(entry(i), l.key)
			if err != nil || cp.Origin != "example/demo" || cp.TreeSize != n {
				t.Errorf("entry %d of %d: %+v, %v", i, n, cp, err)
			}
		}
	}
}

func TestProofSurvivesTheWire(t *testing.T) {
	l := newTestLog(t, "example/demo", 5)
	b, err := json.Marshal(l.prove(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	var p Proof
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(entry(3), l.key); err != nil {
		t.Error(err)
	}
}

func TestFalseProofsDoNotVerify(t *testing.T) {
	l, other := newTestLog(t, "example/demo", 9), newTestLog(t, "example/demo", 9)
	for _, tc := range []struct {
		name   string
		change func(p *Proof, e *[]byte, key *string)
	}{
		{"another event", func(p *Proof, e *[]byte, _ *string) { *e = entry(3) }},
		{"another event with its hash", func(p *Proof, e *[]byte, _ *string) {
			*e = entry(3)
			h := tlog.RecordHash(*e)
			p.LeafHash = h[:]
		}},
		{"another place", func(p *Proof, _ *[]byte, _ *string) { p.LeafIndex++ }},
		{"no place", func(p *Proof, _ *[]byte, _ *string) { p.LeafIndex = 9 }},
		{"a place before the first", func(p *Proof, _ *[]byte, _ *string) { p.LeafIndex = -1 }},
		{"another size", func(p *Proof, _ *[]byte, _ *string) { p.TreeSize = 8 }},
		{"a hash flipped", func(p *Proof, _ *[]byte, _ *string) { p.Hashes[1][0] ^= 1 }},
		{"a hash cut", func(p *Proof, _ *[]byte, _ *string) { p.Hashes[1] = p.Hashes[1][:31] }},
		{"a hash missing", func(p *Proof, _ *[]byte, _ *string) { p.Hashes = p.Hashes[1:] }},
		{"a hash too many", func(p *Proof, _ *[]byte, _ *string) { p.Hashes = append(p.Hashes, p.Hashes[0]) }},
		{"another key", func(_ *Proof, _ *[]byte, key *string) { *key = other.key }},
		{"unsigned", func(p *Proof, _ *[]byte, _ *string) {
			n, _ := note.Open([]byte(p.Checkpoint), note.VerifierList(mustVerifier(t, l.key)))
			p.Checkpoint = n.Text
		}},
		{"signed for another log", func(p *Proof, _ *[]byte, _ *string) { p.Checkpoint = l.checkpoint(t, "example/rival") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, e, key := l.prove(t, 4), entry(4), l.key
			tc.change(&p, &e, &key)
			if _, err := p.Verify(e, key); !errors.Is(err, ErrUnverified) {
				t.Errorf("got %v, want ErrUnverified", err)
			}
		})
	}
	if _, err := l.prove(t, 4).Verify(entry(4), "not a key"); err == nil || asError(t, err).Field != "key" {
		t.Errorf("a key that is none: %v", err)
	}
}

func mustVerifier(t *testing.T, key string) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzProof feeds whole proofs: only the true entry under its true proof may verify.
func FuzzProof(f *testing.F) {
	l := newTestLog(f, "example/demo", 6)
	good, err := json.Marshal(l.prove(f, 2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, entry(2))
	f.Add([]byte(`{"checkpoint":"x\n1\nAA==\n\n— x AAAA\n","leaf_hash":"","hashes":[null]}`), []byte{})
	f.Fuzz(func(t *testing.T, proof, e []byte) {
		var p Proof
		if json.Unmarshal(proof, &p) != nil {
			return
		}
		if _, err := p.Verify(e, l.key); err == nil && string(e) != string(entry(p.LeafIndex)) {
			t.Errorf("entry %q verified at %d", e, p.LeafIndex)
		}
	})
}
