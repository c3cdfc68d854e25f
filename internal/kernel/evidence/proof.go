package evidence

import (
	"context"
	"fmt"
	"sync"

	flog "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
)

// Inclusion proves that an event is in the tree of a checkpoint (RFC 6962 §2.1.1).
type Inclusion struct {
	LeafIndex  int64  // sequence - 1
	TreeSize   int64  // the checkpoint's
	LeafHash   Hash   // of the event's canonical bytes
	Hashes     []Hash // the audit path, leaf upwards
	Checkpoint []byte // C2SP signed note
}

// Prove gives the inclusion proof of the event with this sequence against the
// newest checkpoint.
func (l *Log) Prove(ctx context.Context, tenant string, sequence int64) (p Inclusion, err error) {
	cp, size, err := l.Checkpoint(ctx, tenant)
	if err != nil {
		return p, err
	}
	if sequence < 1 || sequence > size {
		return p, unknownEvent()
	}
	err = l.tree(ctx, tenant, func(t *treeReader) error {
		path, err := tlog.ProveRecord(size, sequence-1, t)
		if err != nil {
			return fmt.Errorf("prove event %d in tree of %d: %w", sequence, size, err)
		}
		for _, h := range path {
			p.Hashes = append(p.Hashes, Hash(h))
		}
		p.LeafHash, err = t.node(0, sequence-1)
		return err
	})
	p.LeafIndex, p.TreeSize, p.Checkpoint = sequence-1, size, cp
	return p, err
}

// Consistency proves that the tree of size from is a prefix of the tree of
// size to (RFC 6962 §2.1.2). Both sizes must be within the log.
func (l *Log) Consistency(ctx context.Context, tenant string, from, to int64) (hashes []Hash, err error) {
	err = l.tree(ctx, tenant, func(t *treeReader) error {
		if from < 1 || to < from || to > t.size {
			return kernel.InvalidField("from", "give 1 ≤ from ≤ to ≤ %d, the log's size", t.size)
		}
		path, err := tlog.ProveTree(to, from, t)
		if err != nil {
			return fmt.Errorf("prove tree %d in %d: %w", from, to, err)
		}
		for _, h := range path {
			hashes = append(hashes, Hash(h))
		}
		return nil
	})
	return hashes, err
}

// Range returns the hashes of the perfect subtrees that cover the entries
// [from, to) as RFC 6962 splits them, left to right (a compact range). With
// the compact ranges left and right of some consecutive events, a verifier
// rebuilds the root from the events themselves.
func (l *Log) Range(ctx context.Context, tenant string, from, to int64) (hashes []Hash, err error) {
	err = l.tree(ctx, tenant, func(t *treeReader) error {
		if from < 0 || to < from || to > t.size {
			return fmt.Errorf("range [%d, %d) is not within a log of %d", from, to, t.size)
		}
		for _, id := range compact.RangeNodes(uint64(from), uint64(to), nil) {
			h, err := t.node(int(id.Level), int64(id.Index))
			if err != nil {
				return err
			}
			hashes = append(hashes, h)
		}
		return nil
	})
	return hashes, err
}

// Tile returns a tile's hashes: width of them, of a level of tiles. A tile
// beyond the log is kernel.NotFound.
func (l *Log) Tile(ctx context.Context, tenant string, level int, index int64, width int) (b []byte, err error) {
	err = l.tree(ctx, tenant, func(t *treeReader) error {
		hs, err := t.tile(level, index, width)
		b = packHashes(hs)
		return err
	})
	return b, err
}

// Entries returns an entry bundle: width events from index*256 on, each with
// its length in 16 bits before it (C2SP tlog-tiles).
func (l *Log) Entries(ctx context.Context, tenant string, index int64, width int) ([]byte, error) {
	if index < 0 || index > 1<<32 || width < 1 || width > tileWidth {
		return nil, noTile()
	}
	page, _, err := l.List(ctx, tenant, Filter{ToSequence: index*tileWidth + int64(width)}, index*tileWidth, width)
	if err != nil {
		return nil, err
	}
	if len(page) < width {
		return nil, noTile()
	}
	var b []byte
	for _, e := range page {
		b = append(b, byte(len(e.Event)>>8), byte(len(e.Event)))
		b = append(b, e.Event...)
	}
	return b, nil
}

func noTile() error { return &kernel.Error{Kind: kernel.NotFound, Msg: "no such tile yet"} }

// keys is a log's signing side, and the newest checkpoint it signed.
type keys struct {
	signer note.Signer

	mu         sync.Mutex
	size       int64
	checkpoint []byte
}

// Checkpoint returns a signed checkpoint (C2SP tlog-checkpoint) of the whole
// committed log and its size. Signing waits for someone to ask; a checkpoint
// says no more than what the chain already fixed.
func (l *Log) Checkpoint(ctx context.Context, tenant string) ([]byte, int64, error) {
	k, err := l.keys(ctx, tenant)
	if err != nil {
		return nil, 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	err = l.tree(ctx, tenant, func(t *treeReader) error {
		if t.size == k.size && k.checkpoint != nil {
			return nil
		}
		root, err := tlog.TreeHash(t.size, t)
		if err != nil {
			return fmt.Errorf("hash tree of %d: %w", t.size, err)
		}
		text := flog.Checkpoint{Origin: l.Origin(tenant), Size: uint64(t.size), Hash: root[:]}.Marshal()
		signed, err := note.Sign(&note.Note{Text: string(text)}, k.signer)
		if err != nil {
			return fmt.Errorf("sign checkpoint: %w", err)
		}
		k.size, k.checkpoint = t.size, signed
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return k.checkpoint, k.size, nil
}

// Signer returns the key that signs tenant's checkpoints and bundles.
func (l *Log) Signer(ctx context.Context, tenant string) (note.Signer, error) {
	k, err := l.keys(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return k.signer, nil
}

func (l *Log) keys(ctx context.Context, tenant string) (*keys, error) {
	if k, ok := l.signers.Load(tenant); ok {
		return k.(*keys), nil
	}
	var sealed []byte
	err := l.db.View(ctx, tenant, func(q store.Q) error {
		if _, err := readHead(q, tenant); err != nil {
			return err
		}
		return q.Get(`SELECT signer FROM log_heads WHERE tenant = $1`, []any{tenant}, &sealed)
	})
	if err != nil {
		return nil, err
	}
	sk, err := l.box.Open("log-key/"+tenant, sealed)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(string(sk))
	if err != nil {
		return nil, fmt.Errorf("log key of %s: %w", tenant, err)
	}
	k, _ := l.signers.LoadOrStore(tenant, &keys{signer: signer})
	return k.(*keys), nil
}

// tree gives fn a reader of tenant's committed tree.
func (l *Log) tree(ctx context.Context, tenant string, fn func(*treeReader) error) error {
	return l.db.View(ctx, tenant, func(q store.Q) error {
		h, err := readHead(q, tenant)
		if err != nil {
			return err
		}
		return fn(&treeReader{q: q, cache: &l.tiles, logNo: h.logNo, size: h.Size})
	})
}

// treeReader reads any node of a tree from its tiles.
type treeReader struct {
	q     store.Q
	cache *tileCache
	logNo int64
	size  int64
	last  struct { // the partial tile read last: proofs ask for its nodes in a row
		level int
		index int64
		hs    []Hash
	}
}

// ReadHashes implements tlog.HashReader.
func (t *treeReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		h, err := t.node(level, n)
		if err != nil {
			return nil, err
		}
		out[i] = tlog.Hash(h)
	}
	return out, nil
}

// node is the root of the perfect subtree of height level that starts at entry n<<level.
func (t *treeReader) node(level int, n int64) (Hash, error) {
	tl := level / tileHeight
	span := int64(1) << (level % tileHeight) // entries of tile level tl under the node
	first := n * span
	index, offset := first/tileWidth, first%tileWidth
	entries := t.size >> (tl * tileHeight)
	width := min(tileWidth, entries-index*tileWidth)
	if offset+span > width {
		return Hash{}, fmt.Errorf("node %d at level %d is beyond a tree of %d", n, level, t.size)
	}
	hs, err := t.tile(tl, index, int(width))
	if err != nil {
		return Hash{}, err
	}
	return fold(append([]Hash(nil), hs[offset:offset+span]...)), nil
}

func (t *treeReader) tile(level int, index int64, width int) ([]Hash, error) {
	if level < 0 || level > 5 || index < 0 || width < 1 || width > tileWidth ||
		index*tileWidth+int64(width) > t.size>>(level*tileHeight) {
		return nil, noTile()
	}
	if width < tileWidth {
		if p := t.last; p.hs != nil && p.level == level && p.index == index && len(p.hs) >= width {
			return p.hs[:width], nil
		}
		hs, err := loadEntries(t.q, t.logNo, level, index*tileWidth, index*tileWidth+int64(width))
		t.last.level, t.last.index, t.last.hs = level, index, hs
		return hs, err
	}
	id := tileID{t.logNo, level, index}
	if hs := t.cache.get(id); hs != nil {
		return hs, nil
	}
	var b []byte
	if err := t.q.Get(`SELECT hashes FROM tiles WHERE log_no = $1 AND level = $2 AND idx = $3`, []any{t.logNo, level, index}, &b); err != nil {
		return nil, fmt.Errorf("read tile %d/%d: %w", level, index, err)
	}
	hs := unpackHashes(b)
	t.cache.put(id, hs)
	return hs, nil
}

type tileID struct {
	logNo int64
	level int
	index int64
}

// tileCache keeps up to max full tiles (8 KiB each); they never change.
type tileCache struct {
	max int
	mu  sync.Mutex
	m   map[tileID][]Hash
}

func (c *tileCache) get(id tileID) []Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[id]
}

func (c *tileCache) put(id tileID, hs []Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[tileID][]Hash, c.max)
	}
	if len(c.m) >= c.max {
		for old := range c.m { // any one: the order of a map's keys is random
			delete(c.m, old)
			break
		}
	}
	c.m[id] = hs
}
