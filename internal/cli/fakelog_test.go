package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/bundle"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

// fakeLog is a tenant's log: canonical, chained events in a signed Merkle tree,
// with what they point at, from which real proofs and bundles are made.
type fakeLog struct {
	t         testing.TB
	mu        sync.Mutex
	events    [][]byte
	ids       []string
	hashes    []tlog.Hash
	artifacts map[string][]byte // by digest
	last      string
	snapshot  string
	signer    note.Signer
	key       string
	exports   map[string][]byte // by "id.format"
	// tamper changes what is served for an event.
	tamper func(id string, event []byte) []byte
}

func newFakeLog(t testing.TB) *fakeLog {
	t.Helper()
	sk, vk, err := note.GenerateKey(rand.Reader, "provost/demo")
	if err != nil {
		t.Fatal(err)
	}
	l := &fakeLog{t: t, key: vk, artifacts: map[string][]byte{}, exports: map[string][]byte{}}
	if l.signer, err = note.NewSigner(sk); err != nil {
		t.Fatal(err)
	}
	l.snapshot = l.store([]byte(`{"id":"demo"}`))
	return l
}

func (l *fakeLog) store(b []byte) string {
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	l.artifacts[digest] = b
	return digest
}

// add appends an event and returns its id.
func (l *fakeLog) add(kind, outcome string) string {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.events) + 1
	id := fmt.Sprintf("01900000-0000-7000-8000-%012d", n)
	at := time.Date(2026, 1, 2, 3, 4, n, 0, time.UTC).Format(time.RFC3339)
	e := map[string]any{"id": id, "event_type": kind, "occurred_at": at, "tenant_id": "demo", "actor": "developer@demo", "chain_id": "chain-demo",
		"sequence": n, "outcome": outcome, "correlation_id": "corr-1", "resource_id": "workload/w1", "action": "workload.create",
		"authority_snapshot_id": l.snapshot, "policy_snapshot_id": l.snapshot, "payload": map[string]any{"note": "Zürich 😀 <&>"},
		"evidence_pointer": "eosc://evidence/" + l.store(fmt.Appendf(nil, `{"event_type":%q,"sequence":%d,"timestamp":%q,"details":{}}`, kind, n, at))}
	if outcome == "refused" {
		e["refusal_reason_class"], e["refusal_reason_code"] = "policy_denied", "image.signature_missing"
		e["refusal_subject"], e["refusal_reason"] = "workload.create", "no trusted key has signed it"
	}
	if l.last != "" {
		e["prev_hash"] = l.last
	}
	sum := sha256.Sum256(l.canonical(e))
	l.last = "sha256:" + hex.EncodeToString(sum[:])
	e["event_hash"] = l.last
	line := l.canonical(e)
	hs, err := tlog.StoredHashes(int64(n-1), line, tlog.HashReaderFunc(l.read))
	if err != nil {
		l.t.Fatal(err)
	}
	l.events, l.ids, l.hashes = append(l.events, line), append(l.ids, id), append(l.hashes, hs...)
	return id
}

func (l *fakeLog) canonical(v any) []byte {
	b, err := canon.Append(nil, v)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *fakeLog) read(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *fakeLog) checkpoint() []byte {
	root, err := tlog.TreeHash(int64(len(l.events)), tlog.HashReaderFunc(l.read))
	if err != nil {
		l.t.Error(err)
	}
	text := log.Checkpoint{Origin: l.signer.Name(), Size: uint64(len(l.events)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, l.signer)
	if err != nil {
		l.t.Error(err)
	}
	return signed
}

// serve answers requests about the log; body is what was sent.
func (l *fakeLog) serve(w http.ResponseWriter, r *http.Request, body []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/events")
	switch {
	case r.URL.Path == "/v1/log/demo/key":
		io.WriteString(w, l.key+"\n")
		return true
	case strings.HasPrefix(r.URL.Path, "/v1/exports"):
		return l.export(w, r, body)
	case !ok:
		return false
	case rest == "":
		fmt.Fprintf(w, `{"items":[%s]}`, bytes.Join(l.events, []byte(",")))
		return true
	case rest == "/stream":
		for i, e := range l.events {
			fmt.Fprintf(w, "id: %d\nevent: audit\ndata: %s\n\n", i+1, e)
		}
		io.WriteString(w, "event: error\ndata: {\"error\":{\"code\":\"PERMISSION_DENIED\",\"message\":\"your rights are gone\",\"retryable\":false}}\n\n")
		return true
	}
	id, proof := strings.CutSuffix(strings.Trim(rest, "/"), "/proof")
	i := slices.Index(l.ids, id)
	if i < 0 {
		return false
	}
	if proof {
		l.prove(w, int64(i))
		return true
	}
	e := l.events[i]
	if l.tamper != nil {
		e = l.tamper(id, e)
	}
	w.Write(e)
	return true
}

func (l *fakeLog) prove(w http.ResponseWriter, i int64) {
	size := int64(len(l.events))
	path, err := tlog.ProveRecord(size, i, tlog.HashReaderFunc(l.read))
	if err != nil {
		l.t.Error(err)
	}
	leaf := tlog.RecordHash(l.events[i])
	hashes := [][]byte{}
	for _, h := range path {
		hashes = append(hashes, h[:])
	}
	err = json.NewEncoder(w).Encode(map[string]any{"leaf_index": i, "tree_size": size, "leaf_hash": leaf[:], "hashes": hashes,
		"checkpoint": string(l.checkpoint()), "log_key": l.key})
	if err != nil {
		l.t.Error(err)
	}
}

// export answers /v1/exports: pending at first, ready when asked again.
func (l *fakeLog) export(w http.ResponseWriter, r *http.Request, body []byte) bool {
	const ready = `{"export_id":"x1","status":"ready","evidence_profile_id":"ecs-evidence-baseline","bundle_hash":"sha256:abc","events":3,"scope":{"from_sequence":1,"to_sequence":3}}`
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/exports":
		var in struct {
			EventIDs []string `json:"event_ids"`
		}
		if err := json.Unmarshal(body, &in); err != nil {
			l.t.Error(err)
		}
		for _, format := range []string{"tar.gz", "zip"} {
			l.exports[format] = l.archive(format, in.EventIDs)
		}
		w.Header().Set("X-Event-ID", fakeEvent)
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"export_id":"x1","status":"pending"}`)
	case "GET /v1/exports/x1":
		io.WriteString(w, ready)
	case "GET /v1/exports/x1/bundle":
		w.Write(l.exports[r.URL.Query().Get("format")])
	default:
		return false
	}
	return true
}

// archive is a real bundle of the events with these ids; of all without any.
func (l *fakeLog) archive(format string, ids []string) []byte {
	var out bytes.Buffer
	sink, err := bundle.NewTarGz(&out)
	if format == "zip" {
		sink, err = bundle.NewZip(&out, l.t.TempDir())
	}
	if err != nil {
		l.t.Error(err)
		return nil
	}
	src := bundle.Source{
		Events: func(yield func([]byte, error) bool) {
			for i, e := range l.events {
				if (ids == nil || slices.Contains(ids, l.ids[i])) && !yield(e, nil) {
					return
				}
			}
		},
		Artifact: func(_ context.Context, pointer string) (io.ReadCloser, int64, error) {
			b, ok := l.artifacts[pointer[strings.LastIndexByte(pointer, '/')+1:]]
			if !ok {
				return nil, 0, &kernel.Error{Kind: kernel.NotFound, Msg: pointer}
			}
			return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
		},
		Log: &bundle.Log{Key: l.key, Checkpoint: l.checkpoint(), Range: func(_ context.Context, begin, end uint64) (hs [][]byte, err error) {
			for _, id := range compact.RangeNodes(begin, end, nil) {
				h := l.hashes[tlog.StoredHashIndex(int(id.Level), int64(id.Index))]
				hs = append(hs, h[:])
			}
			return hs, nil
		}},
	}
	_, err = bundle.Write(l.t.Context(), sink, bundle.Params{ExportID: "x1", CreatedAt: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC), ProviderID: "provost", TenantID: "demo",
		ChainID: "chain-demo", Profile: bundle.Baseline, ProducerID: "provost", Signer: l.signer, SigningKey: l.key, TempDir: l.t.TempDir()}, src)
	if err != nil {
		l.t.Error(err)
	}
	return out.Bytes()
}
