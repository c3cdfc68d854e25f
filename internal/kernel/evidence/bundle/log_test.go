package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

const (
	testTenant = "demo"
	testOrigin = "provost.example/demo"
	testChain  = "chain-demo"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testLog is a tenant's log in memory: chain, tree, artifacts and a key.
type testLog struct {
	tb        testing.TB
	lines     [][]byte
	levels    [][][]byte // of the Merkle tree: hashes of perfect subtrees
	artifacts map[string][]byte
	last      string
	policy    string
	authority string
	signer    note.Signer
	key       string
}

// newTestLog returns an empty log. Logs of one owner have one key, so that fuzz
// workers agree on what is good.
func newTestLog(tb testing.TB, owner ...string) *testLog {
	seed := sha256.Sum256(fmt.Append(nil, "test key of ", owner))
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(testOrigin, public)
	if err != nil {
		tb.Fatal(err)
	}
	nameAndHash := vkey[:len(testOrigin)+len("+01234567+")]
	const algEd25519 = 1
	signer, err := note.NewSigner("PRIVATE+KEY+" + nameAndHash + base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, seed[:]...)))
	if err != nil {
		tb.Fatal(err)
	}
	l := &testLog{tb: tb, artifacts: map[string][]byte{}, signer: signer, key: vkey}
	l.policy = l.store([]byte(`{"policy":"permit"}`))
	l.authority = l.store([]byte(`{"subject":"demo"}`))
	return l
}

func (l *testLog) store(b []byte) string {
	d := sha256.Sum256(b)
	ref := "sha256:" + hex.EncodeToString(d[:])
	l.artifacts[ref] = b
	return ref
}

// kinds of events that the test log writes in turn.
var testKinds = []string{"authority.binding", "policy.evaluate", "execution.admit", "execution.refuse"}

// add appends an event; more replaces or adds fields, nil deletes one.
func (l *testLog) add(more map[string]any) {
	seq := len(l.lines) + 1
	kind := testKinds[seq%len(testKinds)]
	at := testTime.Add(time.Duration(seq) * time.Second).Format(time.RFC3339)
	body := fmt.Appendf(nil, "{\n  \"event_type\": %q,\n  \"sequence\": %d,\n  \"timestamp\": %q,\n  \"details\": {\"workload_id\": \"w-%d\"}\n}\n", kind, seq, at, seq)
	ev := map[string]any{
		"id": fmt.Sprintf("0199b7c8-7a00-7000-8000-%012x", seq), "event_type": kind, "occurred_at": at, "tenant_id": testTenant,
		"actor": "user:operator", "actor_details": map[string]any{"id": "operator", "type": "human"}, "sequence": seq,
		"outcome": "accepted", "evidence_pointer": "eosc://evidence/" + l.store(body), "correlation_id": fmt.Sprintf("corr-%d", seq/4),
		"authority_snapshot_id": l.authority, "policy_snapshot_id": l.policy, "chain_id": testChain,
		"resource_id": fmt.Sprintf("workload/w-%d", seq), "action": "workload.create",
		"payload": map[string]any{"workload_id": fmt.Sprintf("w-%d", seq), "name": "Zürich <&> 😀", "rules": []any{"image.not_pinned"}, "cost": 0.5},
	}
	if kind == "execution.refuse" {
		ev["outcome"] = "refused"
		ev["refusal_reason"], ev["refusal_reason_class"] = "policy says no", "policy_denied"
		ev["refusal_reason_code"], ev["refusal_subject"] = "image.not_pinned", "workload.create"
	}
	if l.last != "" {
		ev["prev_hash"] = l.last
	}
	for k, v := range more {
		if ev[k] = v; v == nil {
			delete(ev, k)
		}
	}
	pre, err := canon.Append(nil, ev)
	if err != nil {
		l.tb.Fatal(err)
	}
	d := sha256.Sum256(pre)
	l.last = "sha256:" + hex.EncodeToString(d[:])
	ev["event_hash"] = l.last
	line, err := canon.Append(nil, ev)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.lines = append(l.lines, line)
	l.grow(rfc6962.DefaultHasher.HashLeaf(line))
}

func (l *testLog) addN(n int) {
	for range n {
		l.add(nil)
	}
}

func (l *testLog) grow(h []byte) {
	for level := 0; ; level++ {
		if level == len(l.levels) {
			l.levels = append(l.levels, nil)
		}
		l.levels[level] = append(l.levels[level], h)
		n := len(l.levels[level])
		if n%2 == 1 {
			return
		}
		h = rfc6962.DefaultHasher.HashChildren(l.levels[level][n-2], l.levels[level][n-1])
	}
}

// ranges is Log.Range.
func (l *testLog) ranges(_ context.Context, begin, end uint64) ([][]byte, error) {
	var hashes [][]byte
	for _, id := range compact.RangeNodes(begin, end, nil) {
		hashes = append(hashes, l.levels[id.Level][id.Index])
	}
	return hashes, nil
}

func (l *testLog) checkpoint() []byte {
	size := uint64(len(l.lines))
	hashes, err := l.ranges(context.Background(), 0, size)
	if err != nil {
		l.tb.Fatal(err)
	}
	r, err := ranges.NewRange(0, size, hashes)
	if err != nil {
		l.tb.Fatal(err)
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		l.tb.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: string(log.Checkpoint{Origin: testOrigin, Size: size, Hash: root}.Marshal())}, l.signer)
	if err != nil {
		l.tb.Fatal(err)
	}
	return signed
}

// source selects events by sequence; no ranges select all.
func (l *testLog) source(selected ...[2]int) Source {
	if selected == nil {
		selected = [][2]int{{1, len(l.lines)}}
	}
	var events iter.Seq2[[]byte, error] = func(yield func([]byte, error) bool) {
		for _, r := range selected {
			for _, line := range l.lines[r[0]-1 : r[1]] {
				if !yield(line, nil) {
					return
				}
			}
		}
	}
	return Source{Events: events, Artifact: l.artifact, Log: &Log{Key: l.key, Checkpoint: l.checkpoint(), Range: l.ranges}}
}

func (l *testLog) artifact(_ context.Context, pointer string) (io.ReadCloser, int64, error) {
	b, ok := l.artifacts[pointer[len(evidenceScheme):]]
	if !ok {
		return nil, 0, kernel.Errorf(kernel.NotFound, "", "no artifact %s", pointer)
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func (l *testLog) params(p Profile) Params {
	return Params{
		ExportID: "exp-1", CreatedAt: testTime, ProviderID: "provost.example", TenantID: testTenant, ChainID: testChain,
		Profile: p, ProducerID: "provost", Signer: l.signer, SigningKey: l.key, TempDir: l.tb.TempDir(),
	}
}

// writeDir exports into a new directory.
func (l *testLog) writeDir(p Params, src Source) string {
	l.tb.Helper()
	dir := l.tb.TempDir()
	sink, err := NewDir(dir)
	if err != nil {
		l.tb.Fatal(err)
	}
	if _, err := Write(context.Background(), sink, p, src); err != nil {
		l.tb.Fatal(err)
	}
	return dir
}

// verifyOK fails the test unless the bundle is good.
func verifyOK(tb testing.TB, path string, opts Options) *Report {
	tb.Helper()
	r, err := Verify(context.Background(), path, opts)
	if err != nil {
		tb.Fatal(err)
	}
	if !r.OK || r.First != nil || r.Faults != 0 {
		tb.Fatalf("%d faults, first: %v", r.Faults, r.First)
	}
	return r
}

// verifyBad fails the test unless the bundle has a fault, which it returns.
func verifyBad(tb testing.TB, path string, opts Options) *Fault {
	tb.Helper()
	r, err := Verify(context.Background(), path, opts)
	if err != nil {
		tb.Fatal(err)
	}
	if r.OK || r.First == nil || r.Faults == 0 {
		tb.Fatalf("a bad bundle passed: %+v", r)
	}
	return r.First
}

var errDisk = errors.New("disk on fire")
