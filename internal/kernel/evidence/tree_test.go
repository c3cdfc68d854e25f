package evidence

import (
	"encoding/binary"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// memory is a tlog.HashReader over every stored hash.
type memory []tlog.Hash

func (m memory) ReadHashes(ix []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(ix))
	for i, x := range ix {
		out[i] = m[x]
	}
	return out, nil
}

// TestEdgeMatchesReference pushes enough leaves for three levels of tiles and
// compares each full tile's root, and the edge, with x/mod's tree.
func TestEdgeMatchesReference(t *testing.T) {
	const n = tileWidth*tileWidth + 3*tileWidth + 5
	var e edge
	var ref memory
	full := map[[2]int64]Hash{}
	for i := range int64(n) {
		data := binary.BigEndian.AppendUint64(nil, uint64(i))
		stored, err := tlog.StoredHashes(i, data, ref)
		if err != nil {
			t.Fatal(err)
		}
		ref = append(ref, stored...)
		for _, tl := range e.push(LeafHash(data), i) {
			full[[2]int64{int64(tl.level), tl.index}] = fold(unpackHashes(tl.hashes))
		}
	}
	for id, root := range full {
		want := ref[tlog.StoredHashIndex(int(id[0]+1)*tileHeight, id[1])]
		if tlog.Hash(root) != want {
			t.Fatalf("tile %v has another root", id)
		}
	}
	if len(full) != tileWidth+3+1 || len(e.levels[0]) != 5 || len(e.levels[1]) != 3 || len(e.levels[2]) != 1 {
		t.Fatalf("%d full tiles; edge %d %d %d", len(full), len(e.levels[0]), len(e.levels[1]), len(e.levels[2]))
	}
}
