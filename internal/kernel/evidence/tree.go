package evidence

import "crypto/sha256"

// The Merkle tree of RFC 6962 §2.1, in tiles of height 8 (C2SP tlog-tiles):
// level 0 holds leaf hashes, and the root of each full tile of 256 is an entry
// one level up. Only full tiles are stored; the partial tile of each level is
// kept in memory and can be recomputed from what is stored.

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// Hash is an RFC 6962 tree hash.
type Hash = [32]byte

// LeafHash is the tree's hash of an entry.
func LeafHash(entry []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(entry)
	var out Hash
	h.Sum(out[:0])
	return out
}

func nodeHash(l, r Hash) Hash {
	var b [65]byte
	b[0] = 1
	copy(b[1:], l[:])
	copy(b[33:], r[:])
	return sha256.Sum256(b[:])
}

// fold is the root of a perfect subtree; len(hs) is a power of two. hs is used up.
func fold(hs []Hash) Hash {
	for n := len(hs); n > 1; n /= 2 {
		for i := range n / 2 {
			hs[i] = nodeHash(hs[2*i], hs[2*i+1])
		}
	}
	return hs[0]
}

// edge is the right edge of a tree: for each level the entries of its partial
// tile. Copying the value gives a working copy: push only appends beyond the
// copied lengths or starts new arrays, so the original stays valid as long as
// just one of the copies goes on.
type edge struct {
	levels [8][]Hash
}

// tile is a tile that became full.
type tile struct {
	level  int
	index  int64
	hashes []byte
}

// push adds the leaf that makes the tree size+1 leaves large and returns the
// tiles it completed, lowest level first.
func (e *edge) push(leaf Hash, size int64) []tile {
	var full []tile
	n := size
	for level := 0; ; level++ {
		if e.levels[level] == nil {
			e.levels[level] = make([]Hash, 0, tileWidth)
		}
		e.levels[level] = append(e.levels[level], leaf)
		if len(e.levels[level]) < tileWidth {
			return full
		}
		hs := e.levels[level]
		e.levels[level] = nil
		full = append(full, tile{level, n / tileWidth, packHashes(hs)})
		leaf = fold(append([]Hash(nil), hs...))
		n /= tileWidth
	}
}

func packHashes(hs []Hash) []byte {
	b := make([]byte, 0, 32*len(hs))
	for i := range hs {
		b = append(b, hs[i][:]...)
	}
	return b
}

func unpackHashes(b []byte) []Hash {
	hs := make([]Hash, len(b)/32)
	for i := range hs {
		copy(hs[i][:], b[32*i:])
	}
	return hs
}
