package evidence

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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

// segment is the number of positions that share one value of pos >> 12.
const segmentBits = 12

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
		s := scan{q: q, tenant: tenant, logNo: h.logNo, filter: f, want: limit + 1}
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

// scan walks the segments of a log. With a key to look for it probes each
// segment's part of that key's index, a growing number of segments at a time,
// so that a frequent value ends early and a rare one costs one probe per 4,096 events.
type scan struct {
	q      store.Q
	tenant string
	logNo  int64
	filter Filter
	want   int
	out    []Stored
}

func (s *scan) between(lo, hi int64) ([]Stored, error) {
	column, k := s.filter.index()
	if column == "" {
		return s.out, s.read(`SELECT pos, event FROM events WHERE pos > $1 AND pos <= $2 AND tenant = $3`, position(s.logNo, lo), position(s.logNo, hi))
	}
	step := int64(1)
	for lo < hi && len(s.out) < s.want {
		first := position(s.logNo, lo+1) >> segmentBits
		end := min(hi, (first+step)<<segmentBits-1-position(s.logNo, 0))
		err := s.read(`WITH RECURSIVE segment(n) AS (SELECT CAST($4 AS BIGINT) UNION ALL SELECT n + 1 FROM segment WHERE n < $5)
			SELECT pos, event FROM segment JOIN events ON (pos >> 12) = n AND `+column+` = $6
			WHERE pos > $1 AND pos <= $2 AND tenant = $3`,
			position(s.logNo, lo), position(s.logNo, end), first, position(s.logNo, end)>>segmentBits, k)
		if err != nil {
			return nil, err
		}
		lo, step = end, min(2*step, 64)
	}
	return s.out, nil
}

// index picks the column that selects best; the others are compared in passing.
func (f Filter) index() (column string, k int64) {
	switch {
	case f.Correlation != "":
		return "k_corr", key(f.Correlation)
	case f.Resource != "":
		return "k_resource", key(f.Resource)
	case f.Actor != "":
		return "k_actor", key(f.Actor)
	case f.Type != "":
		return "k_type", key(f.Type)
	}
	return "", 0
}

func (s *scan) read(query string, lo, hi int64, more ...any) error {
	args := append([]any{lo, hi, s.tenant}, more...)
	var b strings.Builder
	b.WriteString(query)
	also := func(column string, v int64) {
		args = append(args, v)
		fmt.Fprintf(&b, " AND %s = $%d", column, len(args))
	}
	// A 64-bit prefix of a SHA-256 is enough to tell values apart: nobody can aim for a second preimage of it.
	for _, c := range []struct{ column, value string }{{"k_type", s.filter.Type}, {"k_actor", s.filter.Actor}, {"k_resource", s.filter.Resource}} {
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

type evidenceRow struct {
	Stored
	evidence []byte
}

// findEvidence probes the newest segments first: what is asked for is mostly recent.
func findEvidence(q store.Q, h Head, tenant string, k int64, sum [32]byte) ([]byte, Stored, error) {
	lowest := position(h.logNo, 1) >> segmentBits
	step := int64(1)
	for last := position(h.logNo, h.Size) >> segmentBits; last >= lowest; last -= step {
		step = min(2*step, 256)
		rows, err := store.All(q, func(r *sql.Rows) (e evidenceRow, err error) {
			var pos int64
			err = r.Scan(&pos, &e.Event, &e.evidence)
			e.Sequence = pos & (1<<logShift - 1)
			return e, err
		}, `WITH RECURSIVE segment(n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n + 1 FROM segment WHERE n < $2)
			SELECT pos, event, evidence FROM segment JOIN events ON (pos >> 12) = n AND k_evidence = $3 WHERE tenant = $4`,
			max(lowest, last-step+1), last, k, tenant)
		if err != nil {
			return nil, Stored{}, err
		}
		i := slices.IndexFunc(rows, func(e evidenceRow) bool { return sha256.Sum256(e.evidence) == sum })
		if i >= 0 {
			return rows[i].evidence, rows[i].Stored, nil
		}
	}
	return nil, Stored{}, unknownArtifact()
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
