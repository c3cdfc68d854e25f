package evidence

import (
	"cmp"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"provost.dev/provost/internal/kernel/store"
)

// A segment is 4,096 positions of a log. When its last event is appended its
// index is written, in the same transaction: for each kind of key a sorted
// list of (key, place), so that a segment costs the writer a few large rows
// instead of five B-tree inserts per event.

const (
	segmentBits = 12
	segmentMask = 1<<segmentBits - 1
)

// The kinds of keys that events can be found by.
const (
	kindType = iota
	kindActor
	kindResource
	kindCorrelation
	kindEvidence
	kinds
)

// keyset is an event's keys, by kind.
type keyset [kinds]int64

type kindKey struct {
	kind int
	key  int64
}

// entrySize is a key of eight bytes and a place of two.
const entrySize = 10

type placedKey struct {
	key   uint64
	place uint16
}

// indexSegment writes the index of a segment whose events are all stored.
func indexSegment(q store.Q, segment int64) error {
	lists := [kinds][]placedKey{}
	_, err := store.All(q, func(r *sql.Rows) (struct{}, error) {
		var pos int64
		var k keyset
		if err := r.Scan(&pos, &k[kindType], &k[kindActor], &k[kindResource], &k[kindCorrelation], &k[kindEvidence]); err != nil {
			return struct{}{}, err
		}
		for kind := range lists {
			lists[kind] = append(lists[kind], placedKey{uint64(k[kind]), uint16(pos & segmentMask)})
		}
		return struct{}{}, nil
	}, `SELECT pos, k_type, k_actor, k_resource, k_corr, k_evidence FROM events WHERE pos >= $1 AND pos <= $2`, segment<<segmentBits, segment<<segmentBits+segmentMask)
	if err != nil {
		return fmt.Errorf("read segment %d: %w", segment, err)
	}
	for kind, list := range lists {
		slices.SortFunc(list, func(a, b placedKey) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.place, b.place)) })
		b := make([]byte, 0, entrySize*len(list))
		for _, e := range list {
			b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(b, e.key), e.place)
		}
		if _, err := q.Exec(`INSERT INTO event_keys (segment, kind, keys) VALUES ($1, $2, $3)`, segment, kind, b); err != nil {
			return fmt.Errorf("index segment %d: %w", segment, err)
		}
	}
	return nil
}

// lookUp returns the places in a full segment whose events have a key, ascending.
func lookUp(q store.Q, segment int64, k kindKey) ([]uint16, error) {
	var b []byte
	err := q.Get(`SELECT keys FROM event_keys WHERE segment = $1 AND kind = $2`, []any{segment, k.kind}, &b)
	if errors.Is(err, store.ErrNoRow) {
		return nil, fmt.Errorf("segment %d has no index: the log is damaged", segment)
	}
	if err != nil {
		return nil, fmt.Errorf("read index of segment %d: %w", segment, err)
	}
	n := len(b) / entrySize
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[i*entrySize:]) }
	var places []uint16
	for i := sort.Search(n, func(i int) bool { return at(i) >= uint64(k.key) }); i < n && at(i) == uint64(k.key); i++ {
		places = append(places, binary.BigEndian.Uint16(b[i*entrySize+8:]))
	}
	return places, nil
}
