package acceptance

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpoint opens a signed checkpoint with the log's key, as a stranger does.
func checkpoint(t testing.TB, text []byte, key string) tlog.Tree {
	t.Helper()
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("checkpoint %q: %v", text, err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		t.Fatalf("checkpoint body %q of origin %q", n.Text, verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return tlog.Tree{N: size, Hash: hashOf(t, lines[2])}
}

func hashOf(t testing.TB, text string) (h tlog.Hash) {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != len(h) {
		t.Fatalf("hash %q: %v", text, err)
	}
	return tlog.Hash(b)
}

// logKey is the key that a tenant's log is verified by.
func logKey(t testing.TB, c *client, tenant string) string {
	t.Helper()
	return strings.TrimSpace(string(c.get(t, "/v1/log/"+tenant+"/key").want(200).body))
}

// grow writes until a tenant's log has more than n entries: more than one tile.
func grow(t testing.TB, tn *tenant, n int) {
	t.Helper()
	for range n {
		tn.op.ask(t, "growing")
	}
}

func TestLogKeyIsDevJSONs(t *testing.T) {
	t.Parallel()
	for _, d := range shared.dev.Tenants {
		if got := logKey(t, shared.as(t, "auditor", d.ID), d.ID); got != d.LogKey || !strings.Contains(got, "/"+d.ID+"+") {
			t.Errorf("%s: the key is %q, dev.json has %q", d.ID, got, d.LogKey)
		}
	}
}

func TestInclusionProofs(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	grow(t, tn, 300)
	key := logKey(t, tn.op, tn.id)
	events := tn.op.events(t, "")
	for _, i := range []int{0, 1, 2, 100, 254, 255, 256, 257, len(events) - 2, len(events) - 1} {
		id := events[i]["id"].(string)
		leaf := bytes.TrimSuffix(tn.op.get(t, "/v1/events/"+id).want(200).body, []byte("\n"))
		p := tn.op.get(t, "/v1/events/"+id+"/proof").want(200).json()
		tree := checkpoint(t, []byte(p["checkpoint"].(string)), key)
		var proof tlog.RecordProof
		for _, h := range p["hashes"].([]any) {
			proof = append(proof, hashOf(t, h.(string)))
		}
		index := number(t, p["leaf_index"])
		if index != int64(i) || number(t, p["tree_size"]) != tree.N {
			t.Errorf("event %d: leaf %d of %v, the checkpoint has %d", i+1, index, p["tree_size"], tree.N)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
			t.Errorf("event %d: %v", i+1, err)
		}
		if hashOf(t, p["leaf_hash"].(string)) != tlog.RecordHash(leaf) {
			t.Errorf("event %d: leaf_hash is %v", i+1, p["leaf_hash"])
		}
		leaf[len(leaf)/2] ^= 1
		if tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf)) == nil {
			t.Errorf("event %d: the proof holds for another event, too", i+1)
		}
	}
}

// tiles reads a log's tiles over HTTP (C2SP tlog-tiles).
type tiles struct {
	t      testing.TB
	c      *client
	tenant string
	read   int
}

func (r *tiles) Height() int { return 8 }

func (r *tiles) ReadTiles(ts []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(ts))
	for i, tile := range ts {
		path := strings.TrimPrefix(tile.Path(), "tile/8/")
		a := r.c.get(r.t, "/v1/log/"+r.tenant+"/tile/"+path).want(200)
		if !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			r.t.Errorf("tile %s: Cache-Control %q", path, a.header.Get("Cache-Control"))
		}
		if len(a.body) != tile.W*tlog.HashSize {
			r.t.Errorf("tile %s has %d bytes, want %d hashes", path, len(a.body), tile.W)
		}
		out[i] = a.body
		r.read++
	}
	return out, nil
}

func (r *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func TestTilesRecompute(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	grow(t, tn, 600)
	a := tn.op.get(t, "/v1/log/"+tn.id+"/checkpoint").want(200)
	tree := checkpoint(t, a.body, logKey(t, tn.op, tn.id))
	if tree.N < 600 {
		t.Fatalf("the log has %d entries", tree.N)
	}
	// From the tiles alone, checked against the signed root on the way.
	source := &tiles{t: t, c: tn.op, tenant: tn.id}
	reader := tlog.TileHashReader(tree, source)
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		t.Fatalf("the tiles hash to %v (%v), the checkpoint says %v", root, err, tree.Hash)
	}
	var entries [][]byte
	for n := int64(0); n*256 < tree.N; n++ {
		path := fmt.Sprintf("%03d", n)
		if w := tree.N - n*256; w < 256 {
			path += fmt.Sprintf(".p/%d", w)
		}
		body := tn.op.get(t, "/v1/log/"+tn.id+"/tile/entries/"+path).want(200).body
		for len(body) > 0 {
			size := int(binary.BigEndian.Uint16(body))
			entries = append(entries, body[2:2+size])
			body = body[2+size:]
		}
	}
	if int64(len(entries)) != tree.N {
		t.Fatalf("%d entries in the bundles, %d in the tree", len(entries), tree.N)
	}
	var events []object
	for i, e := range entries {
		proof, err := tlog.ProveRecord(tree.N, int64(i), reader)
		if err == nil && i%97 == 0 {
			err = tlog.CheckRecord(proof, tree.N, tree.Hash, int64(i), tlog.RecordHash(e))
		}
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		events = append(events, parseNumbers(t, e).(object))
	}
	checkChain(t, events) // the entries are the events
}

func TestTilePaths(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	for _, path := range []string{"0/000", "0/000.p/255", "0/000.p/0", "0/000.p/256", "0/0", "0/x000/000", "-1/000", "64/000", "0/999999", "entries/001", "entries/000.p/300", "0/..", "0/000.p/1/2", "x", "0/000.p/01", "1/000", "1/000.p/1"} {
		a := tn.op.get(t, "/v1/log/"+tn.id+"/tile/"+path)
		if a.status != 404 && a.status != 400 {
			t.Errorf("%s: status %d", path, a.status)
		}
	}
}

func TestConsistencyProofs(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	key := logKey(t, tn.op, tn.id)
	var trees []tlog.Tree
	for range 8 {
		trees = append(trees, checkpoint(t, tn.op.get(t, "/v1/log/"+tn.id+"/checkpoint").want(200).body, key))
		grow(t, tn, 7)
	}
	for i, old := range trees {
		for _, now := range trees[i:] {
			if now.N == old.N {
				continue
			}
			a := tn.op.get(t, fmt.Sprintf("/v1/log/%s/consistency?from=%d&to=%d", tn.id, old.N, now.N)).want(200)
			var proof tlog.TreeProof
			for _, h := range a.json()["hashes"].([]any) {
				proof = append(proof, hashOf(t, h.(string)))
			}
			if err := tlog.CheckTree(proof, now.N, now.Hash, old.N, old.Hash); err != nil {
				t.Errorf("from %d to %d: %v", old.N, now.N, err)
			}
		}
	}
	for _, query := range []string{"from=0", "from=5&to=3", "from=x", "from=1&to=1000000", ""} {
		a := tn.op.get(t, "/v1/log/"+tn.id+"/consistency?"+query)
		if a.status != 400 && a.status != 404 {
			t.Errorf("%q: status %d", query, a.status)
		}
	}
}
