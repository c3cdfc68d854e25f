package evidence_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// ledger appends to logs the way govern does, without asking anyone.
type ledger struct {
	t     testing.TB
	db    *store.DB
	log   *evidence.Log
	box   *secret.Box
	clock atomic.Int64 // microseconds; each batch is one later
	group *store.Group[*entry]
}

type entry struct {
	create  string
	drafts  []evidence.Draft
	fail    error
	batch   *evidence.Batch
	receipt evidence.Receipt
}

func newLedger(t testing.TB, db *store.DB) *ledger {
	box, err := secret.NewBox(bytes.Repeat([]byte{7}, secret.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{t: t, db: db, box: box}
	l.clock.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	l.reopen()
	return l
}

// reopen forgets everything in memory, as a restart does.
func (l *ledger) reopen() {
	if l.group != nil {
		l.group.Close()
	}
	l.log = evidence.NewLog(evidence.Config{DB: l.db, Box: l.box, Provider: "test.example", Now: func() time.Time { return time.UnixMicro(l.clock.Add(1)) }})
	log := l.log
	g := store.NewGroup(l.db, store.GroupConfig[*entry]{Apply: func(tx *store.Tx, items []*entry) error {
		b, err := log.Begin(tx, nil)
		if err != nil {
			return err
		}
		for _, e := range items {
			e.batch = b
			if e.create != "" {
				if _, err := b.Create(e.create); err != nil {
					return err
				}
			}
			for i := range e.drafts {
				s, err := evidence.Seal(&e.drafts[i])
				if err != nil {
					return err
				}
				if e.receipt, err = b.Append(s); err != nil {
					return err
				}
			}
			if e.fail != nil {
				return e.fail
			}
		}
		return b.Finish()
	}, Committed: func(items []*entry) { items[0].batch.Committed() }})
	l.group = g
	l.t.Cleanup(g.Close)
}

func (l *ledger) submit(e *entry) error { return l.group.Submit(context.Background(), e) }

func (l *ledger) append(tenant string, n int, fill func(i int, d *evidence.Draft)) {
	l.t.Helper()
	e := &entry{}
	for i := range n {
		d := evidence.Draft{Tenant: tenant, Type: "test.happened", Outcome: evidence.Accepted, Actor: evidence.Actor{ID: "ada@" + tenant, Type: "human", Org: tenant},
			Correlation: fmt.Sprintf("c-%d", i), Resource: "thing/1", Action: "test", Details: map[string]any{"n": int64(i)}}
		if fill != nil {
			fill(i, &d)
		}
		e.drafts = append(e.drafts, d)
	}
	if err := l.submit(e); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) create(tenant string) {
	l.t.Helper()
	if err := l.submit(&entry{create: tenant}); err != nil {
		l.t.Fatal(err)
	}
}

// tree verifies the newest checkpoint with an implementation that is not ours.
func (l *ledger) tree(tenant string) tlog.Tree {
	l.t.Helper()
	ctx := context.Background()
	head, err := l.log.Head(ctx, tenant)
	if err != nil {
		l.t.Fatal(err)
	}
	cp, size, err := l.log.Checkpoint(ctx, tenant)
	if err != nil {
		l.t.Fatal(err)
	}
	v, err := note.NewVerifier(head.Verifier)
	if err != nil {
		l.t.Fatal(err)
	}
	n, err := note.Open(cp, note.VerifierList(v))
	if err != nil {
		l.t.Fatalf("checkpoint does not verify: %v", err)
	}
	lines := strings.Split(n.Text, "\n")
	if lines[0] != "test.example/"+tenant || lines[1] != fmt.Sprint(size) {
		l.t.Fatalf("checkpoint says %q", n.Text)
	}
	h, err := tlog.ParseHash(lines[2])
	if err != nil {
		l.t.Fatal(err)
	}
	return tlog.Tree{N: size, Hash: h}
}

func hashes[T ~[32]byte](in []T) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}

func TestLogProvesItself(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := newLedger(t, db)
		ctx := t.Context()
		l.create("a")
		l.create("b")
		rnd := rand.New(rand.NewPCG(1, 2))
		var trees []tlog.Tree
		for total := 0; total < 700; {
			n := 1 + rnd.IntN(90)
			l.append("a", n, nil)
			l.append("b", 1, nil)
			if rnd.IntN(3) == 0 { // a batch that fails leaves nothing, in memory or stored
				if err := l.submit(&entry{drafts: []evidence.Draft{{Tenant: "a", Type: "never", Outcome: evidence.Accepted}}, fail: fmt.Errorf("no")}); err == nil {
					t.Fatal("it did not fail")
				}
			}
			if rnd.IntN(4) == 0 {
				l.reopen()
			}
			total += n
			trees = append(trees, l.tree("a"))
			if trees[len(trees)-1].N != int64(total) {
				t.Fatalf("tree of %d, want %d", trees[len(trees)-1].N, total)
			}
		}
		last := trees[len(trees)-1]
		for _, old := range trees {
			p, err := l.log.Consistency(ctx, "a", old.N, last.N)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckTree(tlog.TreeProof(hashes(p)), last.N, last.Hash, old.N, old.Hash); err != nil {
				t.Fatalf("from %d to %d: %v", old.N, last.N, err)
			}
		}
		for range 60 {
			seq := 1 + rnd.Int64N(last.N)
			page, _, err := l.log.List(ctx, "a", evidence.Filter{}, seq-1, 1)
			if err != nil {
				t.Fatal(err)
			}
			p, err := l.log.Prove(ctx, "a", seq)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(tlog.RecordProof(hashes(p.Hashes)), last.N, last.Hash, seq-1, tlog.RecordHash(page[0].Event)); err != nil {
				t.Fatalf("event %d: %v", seq, err)
			}
		}
		if _, err := l.log.Prove(ctx, "a", last.N+1); kernel.KindOf(err) != kernel.NotFound {
			t.Fatalf("proof beyond the log: %v", err)
		}
	})
}

func TestTilesAndEntries(t *testing.T) {
	l := newLedger(t, storetest.Open(t))
	ctx := t.Context()
	l.create("a")
	l.append("a", 300, nil)
	full, err := l.log.Tile(ctx, "a", 0, 0, 256)
	if err != nil {
		t.Fatal(err)
	}
	part, err := l.log.Tile(ctx, "a", 0, 1, 44)
	if err != nil {
		t.Fatal(err)
	}
	leaves := append(full, part...)
	bundle, err := l.log.Entries(ctx, "a", 0, 256)
	if err != nil {
		t.Fatal(err)
	}
	more, err := l.log.Entries(ctx, "a", 1, 44)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for b := append(bundle, more...); len(b) > 0; n++ {
		size := int(binary.BigEndian.Uint16(b))
		h := tlog.RecordHash(b[2 : 2+size])
		if !bytes.Equal(h[:], leaves[32*n:32*n+32]) {
			t.Fatalf("leaf %d is not the hash of its entry", n)
		}
		b = b[2+size:]
	}
	if n != 300 {
		t.Fatalf("%d entries", n)
	}
	for _, bad := range []struct {
		level int
		index int64
		width int
	}{{0, 1, 45}, {0, 2, 1}, {1, 0, 2}, {0, -1, 1}, {-1, 0, 1}, {0, 0, 257}, {63, 0, 1}} {
		if _, err := l.log.Tile(ctx, "a", bad.level, bad.index, bad.width); kernel.KindOf(err) != kernel.NotFound {
			t.Errorf("tile %v: %v", bad, err)
		}
	}
}

func TestFilters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := newLedger(t, db)
		ctx := t.Context()
		l.create("a")
		l.create("b")
		actors := []string{"ada@a", "bob@a"}
		fill := func(i int, d *evidence.Draft) {
			d.Actor.ID = actors[i%2]
			d.Type = []string{"x.one", "x.two", "x.three"}[i%3]
			d.Resource = fmt.Sprintf("thing/%d", i%50)
			d.Correlation = fmt.Sprintf("corr-%d", i/10)
			d.Outcome = []evidence.Outcome{evidence.Accepted, evidence.Refused}[i%5/4]
		}
		l.append("a", 9000, fill) // three segments
		l.append("b", 10, fill)
		for _, c := range []struct {
			name string
			f    evidence.Filter
			want func(i int) bool
		}{
			{"all", evidence.Filter{}, func(int) bool { return true }},
			{"actor", evidence.Filter{Actor: "bob@a"}, func(i int) bool { return i%2 == 1 }},
			{"type and outcome", evidence.Filter{Type: "x.two", Outcome: evidence.Refused}, func(i int) bool { return i%3 == 1 && i%5 == 4 }},
			{"rare correlation", evidence.Filter{Correlation: "corr-899"}, func(i int) bool { return i/10 == 899 }},
			{"resource, actor and range", evidence.Filter{Resource: "thing/7", Actor: "bob@a", FromSequence: 100, ToSequence: 8000}, func(i int) bool { return i%50 == 7 && i+1 >= 100 && i+1 <= 8000 }},
			{"nobody", evidence.Filter{Actor: "eve@a"}, func(int) bool { return false }},
		} {
			t.Run(c.name, func(t *testing.T) {
				var want, got []int64
				for i := range 9000 {
					if c.want(i) {
						want = append(want, int64(i+1))
					}
				}
				for after := int64(0); ; {
					page, more, err := l.log.List(ctx, "a", c.f, after, 777)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range page {
						got, after = append(got, e.Sequence), e.Sequence
					}
					if !more {
						break
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("got %d events, want %d", len(got), len(want))
				}
			})
		}
	})
}

func TestTimeRange(t *testing.T) {
	l := newLedger(t, storetest.Open(t))
	l.create("a")
	l.append("a", 5, nil)
	middle := time.UnixMicro(l.clock.Add(1000))
	l.append("a", 7, nil)
	for _, c := range []struct {
		f    evidence.Filter
		want int
	}{{evidence.Filter{To: middle}, 5}, {evidence.Filter{From: middle}, 7}, {evidence.Filter{From: middle.Add(time.Hour)}, 0}, {evidence.Filter{From: middle.Add(-time.Hour), To: middle.Add(time.Hour)}, 12}} {
		page, _, err := l.log.List(t.Context(), "a", c.f, 0, 100)
		if err != nil || len(page) != c.want {
			t.Errorf("%v: %d events, %v; want %d", c.f, len(page), err, c.want)
		}
	}
}

func TestEvidenceAndArtifactsStayWithTheirTenant(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := newLedger(t, db)
		ctx := t.Context()
		l.create("a")
		l.create("b")
		l.append("a", 1, nil)
		page, _, err := l.log.List(ctx, "a", evidence.Filter{}, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, pointer, _ := strings.Cut(string(page[0].Event), `eosc://evidence/`)
		digest := pointer[:len("sha256:")+64]
		body, _, err := l.log.Evidence(ctx, "a", digest)
		if err != nil || evidence.Digest(body) != digest {
			t.Fatalf("%v", err)
		}
		if _, _, err := l.log.Evidence(ctx, "b", digest); kernel.KindOf(err) != kernel.NotFound {
			t.Fatalf("another tenant's evidence: %v", err)
		}
		for _, bad := range []string{"", "sha256:", "sha256:zz", strings.Repeat("a", 71)} {
			if _, _, err := l.log.Evidence(ctx, "a", bad); kernel.KindOf(err) != kernel.NotFound {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}

func TestTooLargeAnEventIsRefusedAlone(t *testing.T) {
	l := newLedger(t, storetest.Open(t))
	l.create("a")
	err := l.submit(&entry{drafts: []evidence.Draft{{Tenant: "a", Type: "x", Outcome: evidence.Accepted, Details: map[string]any{"big": strings.Repeat("x", evidence.MaxEvent)}}}})
	if err == nil {
		t.Fatal("it was stored")
	}
	l.append("a", 1, nil)
	if tree := l.tree("a"); tree.N != 1 {
		t.Fatalf("tree of %d", tree.N)
	}
}
