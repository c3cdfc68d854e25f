package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

func TestZZMem(t *testing.T) {
	n := 1_000_000
	l := newTestLog(t)
	body := func(seq int) []byte {
		return fmt.Appendf(nil, "{\n  \"event_type\": \"x\",\n  \"sequence\": %d,\n  \"timestamp\": \"2026\",\n  \"details\": {\"workload_id\": \"w-%d\"}\n}\n", seq, seq)
	}
	h := newHasher()
	gen := func(yield func([]byte, error) bool) {
		prev := ""
		for seq := 1; seq <= n; seq++ {
			at := testTime.Add(time.Duration(seq) * time.Second).Format(time.RFC3339)
			mk := func(eh string) []byte {
				return fmt.Appendf(nil, `{"action":"workload.create","actor":"user:operator","authority_snapshot_id":"%s","chain_id":"chain-demo","correlation_id":"corr-%d",%s"event_type":"policy.evaluate","evidence_pointer":"eosc://evidence/sha256:%x","id":"0199b7c8-7a00-7000-8000-%012x","occurred_at":"%s","outcome":"accepted","payload":{"workload_id":"w"},"policy_snapshot_id":"%s",%s"resource_id":"workload/w","sequence":%d,"tenant_id":"demo"}`,
					l.authority, seq, eh, sha256.Sum256(body(seq)), seq, at, l.policy, prev, seq)
			}
			pre := mk("")
			eh := fmt.Sprintf("sha256:%x", sha256.Sum256(pre))
			line := mk(`"event_hash":"` + eh + `",`)
			prev = `"prev_hash":"` + eh + `",`
			if !yield(line, nil) {
				return
			}
		}
	}
	r := ranges.NewEmptyRange(0)
	for line := range gen {
		var e event
		if err := e.parse(line); err != nil {
			t.Fatal(err)
		}
		r.Append(h.leaf(&e), nil)
	}
	root, _ := r.GetRootHash(nil)
	cp, err := note.Sign(&note.Note{Text: string(log.Checkpoint{Origin: testOrigin, Size: uint64(n), Hash: root}.Marshal())}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	_ = rfc6962.DefaultHasher
	peak := func(what string, fn func()) {
		runtime.GC()
		stop, done := make(chan bool), make(chan uint64)
		go func() {
			var max uint64
			for {
				select {
				case <-stop:
					done <- max
					return
				case <-time.After(20 * time.Millisecond):
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					if m.HeapInuse > max {
						max = m.HeapInuse
					}
				}
			}
		}()
		start := time.Now()
		fn()
		close(stop)
		t.Logf("%s: peak heap %d MB, %v", what, <-done>>20, time.Since(start))
	}
	for _, format := range []string{"tar.gz", "zip"} {
		path := t.TempDir() + "/b"
		peak("write "+format, func() {
			next := 1
			src := Source{Events: gen, Log: &Log{Key: l.key, Checkpoint: cp, Range: func(context.Context, uint64, uint64) ([][]byte, error) { return nil, nil }},
				Artifact: func(ctx context.Context, p string) (io.ReadCloser, int64, error) {
					if _, ok := l.artifacts[p[len(evidenceScheme):]]; ok {
						return l.artifact(ctx, p)
					}
					b := body(next)
					next++
					return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
				}}
			l.writeArchive(l.params(Admissible), src, path, format)
		})
		info, _ := os.Stat(path)
		t.Logf("size %d MB", info.Size()>>20)
		peak("verify "+format, func() { verifyOK(t, path, Options{}) })
	}
}
