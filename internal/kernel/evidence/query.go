package evidence

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
)

// Filter selects events; zero fields select all. All given ones must match.
type Filter struct {
	Type, Actor, Resource, Correlation string
	Outcome                            Outcome
	From, To                           time.Time // occurred_at, From included, To excluded
	FromSequence, ToSequence           int64     // both included
}

// Stored is an event as it stands in the log.
type Stored struct {
	Sequence int64
	Event    []byte // canonical bytes including event_hash
}

// Head is a log's committed end.
type Head struct {
	Size     int64
	LastHash string
	Verifier string // C2SP verifier key
	logNo    int64
}

func unknownLog() error { return &kernel.Error{Kind: kernel.NotFound, Msg: "no such log"} }

// Head returns the committed end of tenant's log.
func (l *Log) Head(ctx context.Context, tenant string) (h Head, err error) {
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		h, err = readHead(q, tenant)
		return err
	})
	return h, err
}

func readHead(q store.Q, tenant string) (h Head, err error) {
	err = q.Get(`SELECT log_no, size, last_hash, verifier FROM log_heads WHERE tenant = $1`, []any{tenant}, &h.logNo, &h.Size, &h.LastHash, &h.Verifier)
	if errors.Is(err, store.ErrNoRow) {
		return h, unknownLog()
	}
	return h, err
}

// List returns up to limit of tenant's events after sequence after, in
// ascending order, and whether more follow.
func (l *Log) List(ctx context.Context, tenant string, f Filter, after int64, limit int) (page []Stored, more bool, err error) {
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		h, err := readHead(q, tenant)
		if err != nil {
			return err
		}
		lo, hi, err := bounds(q, h, f, after)
		if err != nil {
			return err
		}
		s := scan{q: q, tenant: tenant, logNo: h.logNo, size: h.Size, filter: f, want: limit + 1}
		page, err = s.between(lo, hi)
		return err
	})
	if len(page) > limit {
		page, more = page[:limit], true
	}
	return page, more, err
}

// bounds turns times and sequences into the open-closed interval (lo, hi].
func bounds(q store.Q, h Head, f Filter, after int64) (lo, hi int64, err error) {
	lo, hi = max(after, f.FromSequence-1, 0), h.Size
	if f.ToSequence > 0 {
		hi = min(hi, f.ToSequence)
	}
	if !f.From.IsZero() {
		n, err := countBefore(q, h, f.From)
		if err != nil {
			return 0, 0, err
		}
		lo = max(lo, n)
	}
	if !f.To.IsZero() {
		n, err := countBefore(q, h, f.To)
		if err != nil {
			return 0, 0, err
		}
		hi = min(hi, n)
	}
	return lo, hi, nil
}

// countBefore is how many events happened before t. occurred_at never
// decreases along a chain, so a binary search over sequences needs no index.
func countBefore(q store.Q, h Head, t time.Time) (int64, error) {
	lo, hi := int64(0), h.Size // everything up to lo is before t, everything after hi is not
	for lo < hi {
		mid := lo + (hi-lo)/2
		var at int64
		if err := q.Get(`SELECT at FROM events WHERE pos = $1`, []any{position(h.logNo, mid+1)}, &at); err != nil {
			return 0, fmt.Errorf("read event %d: %w", mid+1, err)
		}
		if at < store.Micros(t) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// scan walks the segments of a log in order. In a full segment it looks its
// key up in the segment's index; in the newest it looks at the events.
type scan struct {
	q      store.Q
	tenant string
	logNo  int64
	size   int64 // of the log
	filter Filter
	want   int
	out    []Stored
}

func (s *scan) between(lo, hi int64) ([]Stored, error) {
	k, keyed := s.filter.key()
	if !keyed {
		return s.out, s.read(lo, hi)
	}
	for lo < hi && len(s.out) < s.want {
		segment := position(s.logNo, lo+1) >> segmentBits
		end := min(hi, segment<<segmentBits+segmentMask-position(s.logNo, 0))
		full := position(s.logNo, s.size) >= segment<<segmentBits+segmentMask
		if err := s.segment(segment, full, k, lo, end); err != nil {
			return nil, err
		}
		lo = end
	}
	return s.out, nil
}

// many is from how many matches on reading the segment beats looking events up one by one.
const many = 512

func (s *scan) segment(segment int64, full bool, k kindKey, lo, hi int64) error {
	if !full {
		return s.read(lo, hi)
	}
	places, err := lookUp(s.q, segment, k)
	if err != nil || len(places) == 0 {
		return err
	}
	if len(places) > many {
		return s.read(lo, hi)
	}
	for _, p := range places {
		seq := segment<<segmentBits + int64(p) - position(s.logNo, 0)
		if seq <= lo || seq > hi {
			continue
		}
		if err := s.read(seq-1, seq); err != nil || len(s.out) >= s.want {
			return err
		}
	}
	return nil
}

// key picks the column that selects best; read compares the others.
func (f Filter) key() (kindKey, bool) {
	switch {
	case f.Correlation != "":
		return kindKey{kindCorrelation, key(f.Correlation)}, true
	case f.Resource != "":
		return kindKey{kindResource, key(f.Resource)}, true
	case f.Actor != "":
		return kindKey{kindActor, key(f.Actor)}, true
	case f.Type != "":
		return kindKey{kindType, key(f.Type)}, true
	}
	return kindKey{}, false
}

// read appends the events of (lo, hi] that the whole filter selects.
func (s *scan) read(lo, hi int64) error {
	args := []any{position(s.logNo, lo), position(s.logNo, hi), s.tenant}
	var b strings.Builder
	b.WriteString(`SELECT pos, event FROM events WHERE pos > $1 AND pos <= $2 AND tenant = $3`)
	also := func(column string, v int64) {
		args = append(args, v)
		fmt.Fprintf(&b, " AND %s = $%d", column, len(args))
	}
	// A 64-bit prefix of a SHA-256 is enough to tell values apart: nobody can aim for a second preimage of it.
	for _, c := range []struct{ column, value string }{{"k_type", s.filter.Type}, {"k_actor", s.filter.Actor}, {"k_resource", s.filter.Resource}, {"k_corr", s.filter.Correlation}} {
		if c.value != "" {
			also(c.column, key(c.value))
		}
	}
	if s.filter.Outcome != 0 {
		also("outcome", int64(s.filter.Outcome))
	}
	args = append(args, s.want-len(s.out))
	fmt.Fprintf(&b, " ORDER BY pos LIMIT $%d", len(args))
	got, err := store.All(s.q, scanStored, b.String(), args...)
	s.out = append(s.out, got...)
	return err
}

func scanStored(r *sql.Rows) (e Stored, err error) {
	var pos int64
	if err := r.Scan(&pos, &e.Event); err != nil {
		return e, err
	}
	e.Sequence = pos & (1<<logShift - 1)
	return e, nil
}

// Get returns the event with this id in tenant's log.
func (l *Log) Get(ctx context.Context, tenant, id string) (e Stored, err error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return e, unknownEvent()
	}
	var pos int64
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT pos, event FROM events WHERE id = $1 AND tenant = $2`, []any{u[:], tenant}, &pos, &e.Event)
	})
	if errors.Is(err, store.ErrNoRow) {
		return e, unknownEvent()
	}
	e.Sequence = pos & (1<<logShift - 1)
	return e, err
}

// Locate returns the tenant whose log holds the event with this id. It is for
// showing an event to whoever caused it; the caller decides who may see it.
func (l *Log) Locate(ctx context.Context, id string) (tenant string, err error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return "", unknownEvent()
	}
	err = l.db.View(ctx, store.Platform, func(q store.Q) error {
		return q.Get(`SELECT tenant FROM events WHERE id = $1`, []any{u[:]}, &tenant)
	})
	if errors.Is(err, store.ErrNoRow) {
		return "", unknownEvent()
	}
	return tenant, err
}

func unknownEvent() error { return &kernel.Error{Kind: kernel.NotFound, Msg: "no such event"} }

// Evidence returns the evidence artifact with this digest ("sha256:<hex>") in
// tenant's log, and the event that points to it.
func (l *Log) Evidence(ctx context.Context, tenant, digest string) (body []byte, e Stored, err error) {
	sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil || len(sum) != sha256.Size {
		return nil, e, unknownArtifact()
	}
	k := int64(binary.BigEndian.Uint64(sum[:8]))
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		h, err := readHead(q, tenant)
		if err != nil {
			return err
		}
		body, e, err = findEvidence(q, h, tenant, k, [32]byte(sum))
		return err
	})
	return body, e, err
}

func unknownArtifact() error {
	return &kernel.Error{Kind: kernel.NotFound, Msg: "no such artifact in this tenant"}
}

// findEvidence looks into the newest segments first: what is asked for is mostly recent.
func findEvidence(q store.Q, h Head, tenant string, k int64, sum [32]byte) ([]byte, Stored, error) {
	newest := position(h.logNo, h.Size) >> segmentBits
	for segment := newest; segment >= position(h.logNo, 0)>>segmentBits; segment-- {
		found, err := evidenceIn(q, segment, position(h.logNo, h.Size), tenant, k)
		if err != nil {
			return nil, Stored{}, err
		}
		for _, e := range found {
			body, err := artifactOf(e.Event, e.decision)
			if err != nil {
				return nil, Stored{}, err
			}
			if sha256.Sum256(body) == sum {
				return body, e.Stored, nil
			}
		}
	}
	return nil, Stored{}, unknownArtifact()
}

type evidenceRow struct {
	Stored
	decision []byte
}

func scanEvidence(r *sql.Rows) (e evidenceRow, err error) {
	var pos int64
	err = r.Scan(&pos, &e.Event, &e.decision)
	e.Sequence = pos & (1<<logShift - 1)
	return e, err
}

// evidenceIn returns a segment's events whose evidence has the key k.
func evidenceIn(q store.Q, segment, end int64, tenant string, k int64) ([]evidenceRow, error) {
	first, last := segment<<segmentBits, segment<<segmentBits+segmentMask
	if end < last { // not full yet
		return store.All(q, scanEvidence, `SELECT pos, event, decision FROM events WHERE pos >= $1 AND pos <= $2 AND k_evidence = $3 AND tenant = $4`, first, last, k, tenant)
	}
	places, err := lookUp(q, segment, kindKey{kindEvidence, k})
	if err != nil {
		return nil, err
	}
	var out []evidenceRow
	for _, p := range places {
		rows, err := store.All(q, scanEvidence, `SELECT pos, event, decision FROM events WHERE pos = $1 AND tenant = $2`, first+int64(p), tenant)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// Artifact is stored content-addressed bytes.
type Artifact struct {
	Digest, Kind, MediaType string
	CreatedAt               time.Time
	Bytes                   []byte
}

// Artifact returns tenant's artifact with this digest.
func (l *Log) Artifact(ctx context.Context, tenant, digest string) (a Artifact, err error) {
	a.Digest = digest
	var at int64
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT kind, media_type, created_at, bytes FROM artifacts WHERE tenant = $1 AND digest = $2`,
			[]any{tenant, digest}, &a.Kind, &a.MediaType, &at, &a.Bytes)
	})
	if errors.Is(err, store.ErrNoRow) {
		return a, unknownArtifact()
	}
	a.CreatedAt = store.Time(at)
	return a, err
}

// Tenants lists every tenant that has a log.
func (l *Log) Tenants(ctx context.Context) (tenants []string, err error) {
	err = l.db.View(ctx, store.Platform, func(q store.Q) error {
		tenants, err = store.All(q, func(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) }, `SELECT tenant FROM log_heads ORDER BY tenant`)
		return err
	})
	return tenants, err
}

// Bounds says which sequences a filter's range selects as of now, both
// included; an empty selection is kernel.Unprocessable.
func (l *Log) Bounds(ctx context.Context, tenant string, f Filter) (from, to int64, err error) {
	err = l.db.View(ctx, tenant, func(q store.Q) error {
		h, err := readHead(q, tenant)
		if err != nil {
			return err
		}
		lo, hi, err := bounds(q, h, f, 0)
		from, to = lo+1, hi
		return err
	})
	if err == nil && from > to {
		err = &kernel.Error{Kind: kernel.Unprocessable, Code: "ECS_EMPTY_SELECTION", Msg: "the log has no events in that range"}
	}
	return from, to, err
}
