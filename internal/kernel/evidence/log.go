package evidence

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
)

// Log is every tenant's log. Appending goes through a Batch, which belongs to
// the one goroutine that writes; reading is safe for concurrent use.
type Log struct {
	db       *store.DB
	box      *secret.Box
	provider string
	now      func() time.Time
	// fault, when set, is asked before events are stored; its error refuses the append.
	fault func() error

	// The writer's: what is committed, and whether a batch was begun that has
	// not been. After a failed one the heads are read again.
	heads map[string]*head
	open  bool

	tiles   tileCache
	signers sync.Map // tenant → *keys
}

// Config is what a Log needs.
type Config struct {
	DB  *store.DB
	Box *secret.Box
	// Provider names who runs this log: the first part of every log's origin
	// ("<provider>/<tenant>") and the bundles' provider_id. No spaces, no plus.
	Provider string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Fault refuses appends while it returns an error: the switch that tests
	// use to see that nothing changes when evidence cannot be kept.
	Fault func() error
}

// NewLog returns the logs kept in cfg.DB.
func NewLog(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Log{db: cfg.DB, box: cfg.Box, provider: cfg.Provider, now: cfg.Now, fault: cfg.Fault,
		heads: map[string]*head{}, tiles: tileCache{max: 1024}}
}

// Provider is the name in Config.
func (l *Log) Provider() string { return l.provider }

// Origin names a tenant's log in checkpoints: "<provider>/<tenant>".
func (l *Log) Origin(tenant string) string { return l.provider + "/" + tenant }

type head struct {
	logNo    int64
	size     int64
	lastHash string
	lastAt   int64 // microseconds
	epoch    int64
	edge     edge
}

const logShift = 40

func position(logNo, seq int64) int64 { return logNo<<logShift | seq }

// Batch appends the events of one transaction. It holds the heads it touched:
// each tenant's chain head is locked once, however many events it gets.
type Batch struct {
	log   *Log
	tx    *store.Tx
	heads map[string]*head
	now   time.Time
	tiles []logTile
}

type logTile struct {
	logNo int64
	tile
}

// Begin opens a batch over the logs of tenants, which it locks in sorted order
// so that two replicas never wait for each other in a circle. Unknown tenants
// are skipped: what needs them fails later with kernel.NotFound.
func (l *Log) Begin(tx *store.Tx, tenants []string) (*Batch, error) {
	if err := tx.As(store.Platform); err != nil {
		return nil, err
	}
	if l.open {
		clear(l.heads)
	}
	l.open = true
	b := &Batch{log: l, tx: tx, heads: make(map[string]*head, len(tenants)), now: l.now().UTC().Truncate(time.Microsecond)}
	slices.Sort(tenants)
	for _, t := range slices.Compact(tenants) {
		if _, err := b.head(t); err != nil && kernel.KindOf(err) != kernel.NotFound {
			return nil, err
		}
	}
	return b, nil
}

// Now is the batch's one time stamp, UTC to the microsecond that is stored.
func (b *Batch) Now() time.Time { return b.now }

// Epoch is the tenant's governance epoch as of this transaction.
func (b *Batch) Epoch(tenant string) (int64, error) {
	h, err := b.head(tenant)
	if err != nil {
		return 0, err
	}
	return h.epoch, nil
}

// BumpEpoch says that what decisions in tenant rest on has changed.
func (b *Batch) BumpEpoch(tenant string) error {
	h, err := b.head(tenant)
	if err != nil {
		return err
	}
	h.epoch++
	return nil
}

func (b *Batch) head(tenant string) (*head, error) {
	if h, ok := b.heads[tenant]; ok {
		return h, nil
	}
	committed := b.log.heads[tenant]
	if committed == nil || b.log.db.Postgres() {
		h, err := b.log.lockHead(b.tx, tenant, committed)
		if err != nil {
			return nil, err
		}
		b.heads[tenant] = h
		return h, nil
	}
	work := *committed // SQLite: this process is the only writer, so memory is right
	b.heads[tenant] = &work
	return &work, nil
}

// lockHead reads and locks the head row. The no-op update is the lock that
// both databases understand.
func (l *Log) lockHead(tx *store.Tx, tenant string, known *head) (*head, error) {
	h := &head{}
	err := tx.Get(`UPDATE log_heads SET size = size WHERE tenant = $1 RETURNING log_no, size, last_hash, last_at, epoch`,
		[]any{tenant}, &h.logNo, &h.size, &h.lastHash, &h.lastAt, &h.epoch)
	if errors.Is(err, store.ErrNoRow) {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such tenant"}
	}
	if err != nil {
		return nil, fmt.Errorf("lock log head: %w", err)
	}
	if known != nil && known.size == h.size {
		h.edge = known.edge
		return h, nil
	}
	if h.edge, err = loadEdge(tx, h.logNo, h.size); err != nil {
		return nil, fmt.Errorf("load the right edge of log %s: %w", tenant, err)
	}
	return h, nil
}

// loadEdge recomputes the partial tiles from the events and tiles under them.
func loadEdge(q store.Q, logNo, size int64) (edge, error) {
	var e edge
	n := size
	for level := 0; n > 0; level++ {
		first := n - n%tileWidth
		if n > first {
			hs, err := loadEntries(q, logNo, level, first, n)
			if err != nil {
				return e, err
			}
			e.levels[level] = append(make([]Hash, 0, tileWidth), hs...)
		}
		n /= tileWidth
	}
	return e, nil
}

// loadEntries returns the tree's entries [from, to) of a level: leaf hashes of
// events, or the roots of full tiles one level down.
func loadEntries(q store.Q, logNo int64, level int, from, to int64) ([]Hash, error) {
	var hs []Hash
	var err error
	if level == 0 {
		hs, err = store.All(q, func(r *sql.Rows) (Hash, error) {
			var line sql.RawBytes
			if err := r.Scan(&line); err != nil {
				return Hash{}, err
			}
			return LeafHash(line), nil
		}, `SELECT event FROM events WHERE pos > $1 AND pos <= $2 ORDER BY pos`, position(logNo, from), position(logNo, to))
	} else {
		hs, err = store.All(q, func(r *sql.Rows) (Hash, error) {
			var b sql.RawBytes
			if err := r.Scan(&b); err != nil {
				return Hash{}, err
			}
			return fold(unpackHashes(b)), nil
		}, `SELECT hashes FROM tiles WHERE log_no = $1 AND level = $2 AND idx >= $3 AND idx < $4 ORDER BY idx`, logNo, level-1, from, to)
	}
	if err == nil && int64(len(hs)) != to-from {
		return nil, fmt.Errorf("level %d holds %d of %d entries from %d: the log is damaged", level, len(hs), to-from, from)
	}
	return hs, err
}

// Create makes a tenant's log, with its own Ed25519 key, and returns the C2SP
// verifier key. It is part of creating the tenant.
func (b *Batch) Create(tenant string) (verifier string, err error) {
	sk, vk, err := note.GenerateKey(rand.Reader, b.log.Origin(tenant))
	if err != nil {
		return "", fmt.Errorf("make log key: %w", err)
	}
	if err := b.tx.As(store.Platform); err != nil {
		return "", err
	}
	_, err = b.tx.Exec(`INSERT INTO log_heads (tenant, log_no, size, last_hash, last_at, epoch, verifier, signer)
		SELECT $1, COALESCE(MAX(log_no), 0) + 1, 0, '', 0, 1, $2, $3 FROM log_heads`,
		tenant, vk, b.log.box.Seal("log-key/"+tenant, []byte(sk)))
	if err != nil {
		return "", fmt.Errorf("create log: %w", err)
	}
	return vk, nil
}

// Sealed is a draft that was encoded ahead of the transaction.
type Sealed struct{ s *sealed }

// Seal encodes everything of a draft that does not depend on its place in the
// chain. Append does it when it was not done before.
func Seal(d *Draft) (Sealed, error) {
	s, err := seal(d)
	return Sealed{s}, err
}

// Append gives the event its place in its tenant's chain and stores it. A
// failure is the whole transaction's: the caller must return it from Apply.
func (b *Batch) Append(d Sealed) (Receipt, error) {
	if b.log.fault != nil {
		if err := b.log.fault(); err != nil {
			return Receipt{}, unavailable(err)
		}
	}
	h, err := b.head(d.s.draft.Tenant)
	if err != nil {
		return Receipt{}, err
	}
	// A clock that went backwards does not take the chain with it (ecs.md §4.4).
	at := time.UnixMicro(max(b.now.UnixMicro(), h.lastAt)).UTC()
	id, err := uuid.NewV7()
	if err != nil {
		return Receipt{}, fmt.Errorf("make event id: %w", err)
	}
	p, err := d.s.place(id, h.size+1, at, h.lastHash)
	if err != nil {
		return Receipt{}, err
	}
	if err := b.insert(h.logNo, p, d.s.draft); err != nil {
		return Receipt{}, unavailable(err)
	}
	for _, t := range h.edge.push(p.leaf, h.size) {
		b.tiles = append(b.tiles, logTile{h.logNo, t})
	}
	h.size, h.lastHash, h.lastAt = p.Sequence, p.hash, at.UnixMicro()
	return p.Receipt, nil
}

func unavailable(err error) error {
	return &kernel.Error{Kind: kernel.Unavailable, Code: "evidence_unavailable", Class: ClassDependency,
		Msg: "evidence cannot be kept at the moment, so nothing was changed", Err: err}
}

func (b *Batch) insert(logNo int64, p *placed, d *Draft) error {
	decision := d.Decision
	if decision == nil {
		decision = []byte{}
	}
	k := &p.keys
	pos := position(logNo, p.Sequence)
	_, err := b.tx.Exec(`INSERT INTO events (pos, tenant, id, at, outcome, k_type, k_actor, k_resource, k_corr, k_evidence, event, decision)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, pos, d.Tenant, p.id[:], p.at.UnixMicro(), int64(d.Outcome),
		k[kindType], k[kindActor], k[kindResource], k[kindCorrelation], k[kindEvidence], p.Event, decision)
	if err == nil && pos&segmentMask == segmentMask {
		err = indexSegment(b.tx, pos>>segmentBits)
	}
	return err
}

// PutArtifact stores content-addressed bytes for tenant and returns their
// digest. Storing the same bytes again changes nothing.
func (b *Batch) PutArtifact(tenant, kind, mediaType string, body []byte) (digest string, err error) {
	digest = Digest(body)
	if err := b.tx.As(store.Platform); err != nil {
		return "", err
	}
	_, err = b.tx.Exec(`INSERT INTO artifacts (tenant, digest, kind, media_type, created_at, bytes) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, digest) DO NOTHING`, tenant, digest, kind, mediaType, store.Micros(b.now), bytes.Clone(body))
	if err != nil {
		return "", fmt.Errorf("store artifact: %w", err)
	}
	return digest, nil
}

// Finish stores the heads and full tiles. It is the last thing in the transaction.
func (b *Batch) Finish() error {
	if err := b.tx.As(store.Platform); err != nil {
		return err
	}
	for _, t := range b.tiles {
		if _, err := b.tx.Exec(`INSERT INTO tiles (log_no, level, idx, hashes) VALUES ($1, $2, $3, $4)`, t.logNo, t.level, t.index, t.hashes); err != nil {
			return unavailable(err)
		}
	}
	for tenant, h := range b.heads {
		if old := b.log.heads[tenant]; old != nil && old.size == h.size && old.epoch == h.epoch {
			continue
		}
		if _, err := b.tx.Exec(`UPDATE log_heads SET size = $2, last_hash = $3, last_at = $4, epoch = $5 WHERE tenant = $1`,
			tenant, h.size, h.lastHash, h.lastAt, h.epoch); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// Committed says that the batch's transaction is durable: its heads become the
// ones that the next batch starts from.
func (b *Batch) Committed() {
	for tenant, h := range b.heads {
		b.log.heads[tenant] = h
	}
	b.log.open = false
}
