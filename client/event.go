package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Event is an entry of a tenant's log. Its JSON (Object.JSON) is what was
// hashed: the canonical bytes, with fields of its type beside these.
type Event struct {
	Object
	ID              string          `json:"id"`
	Type            string          `json:"event_type"`
	OccurredAt      time.Time       `json:"occurred_at"`
	TenantID        string          `json:"tenant_id"`
	Actor           string          `json:"actor"`
	Sequence        int64           `json:"sequence"`
	Outcome         string          `json:"outcome"` // accepted, refused or failed
	EvidencePointer string          `json:"evidence_pointer"`
	CorrelationID   string          `json:"correlation_id"`
	ResourceID      string          `json:"resource_id"`
	Action          string          `json:"action"`
	Payload         json.RawMessage `json:"payload"`

	AuthoritySnapshotID string `json:"authority_snapshot_id"`
	PolicySnapshotID    string `json:"policy_snapshot_id"`

	RefusalClass   string `json:"refusal_reason_class"`
	RefusalCode    string `json:"refusal_reason_code"`
	RefusalSubject string `json:"refusal_subject"`
	RefusalReason  string `json:"refusal_reason"`

	ChainID   string `json:"chain_id"`
	EventHash string `json:"event_hash"`
	PrevHash  string `json:"prev_hash"`
}

// EventFilter selects events; zero fields select all, given ones must all match.
type EventFilter struct {
	Tenant, Type, Outcome, Actor, ResourceID, CorrelationID string
	From, To                                                time.Time // From included, To excluded
	FromSequence, ToSequence                                int64     // both included
	// PageSize is how many events a request returns, up to MaxPage; 0 is the
	// server's default of 100. It does not bound how many there are in all.
	PageSize int
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	set := func(name, v string) {
		if v != "" {
			q.Set(name, v)
		}
	}
	set("tenant", f.Tenant)
	set("event_type", f.Type)
	set("outcome", f.Outcome)
	set("actor", f.Actor)
	set("resource_id", f.ResourceID)
	set("correlation_id", f.CorrelationID)
	if !f.From.IsZero() {
		set("from", f.From.UTC().Format(time.RFC3339Nano))
	}
	if !f.To.IsZero() {
		set("to", f.To.UTC().Format(time.RFC3339Nano))
	}
	if f.FromSequence != 0 {
		set("from_sequence", strconv.FormatInt(f.FromSequence, 10))
	}
	if f.ToSequence != 0 {
		set("to_sequence", strconv.FormatInt(f.ToSequence, 10))
	}
	if f.PageSize != 0 {
		set("limit", strconv.Itoa(f.PageSize))
	}
	return q
}

// Events is /v1/events.
type Events struct{ c *Client }

// Get returns an event.
func (s Events) Get(ctx context.Context, id string) (e Event, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "events", id}, out: &e})
	return e, err
}

// List walks the events that match, in the order of their sequence.
func (s Events) List(ctx context.Context, f EventFilter) iter.Seq2[Event, error] {
	return list[Event](ctx, s.c, f.query(), maxEvents, "v1", "events")
}

// Proof returns the proof that an event is in its tenant's log.
func (s Events) Proof(ctx context.Context, id string) (p Proof, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "events", id, "proof"}, out: &p})
	return p, err
}

// Evidence returns the bytes that an evidence or artifact pointer, such as
// "eosc://evidence/sha256:…", is the digest of. The digest is checked.
func (s Events) Evidence(ctx context.Context, pointer string) ([]byte, error) {
	kind, digest, err := splitPointer(pointer)
	if err != nil {
		return nil, err
	}
	b, err := s.c.bytes(ctx, call{method: http.MethodGet, path: []string{"v1", kind, digest}, accept: "*/*"})
	if err != nil {
		return nil, err
	}
	if err := checkDigest(b, digest); err != nil {
		return nil, err
	}
	return b, nil
}

// LogKey returns the C2SP verifier key that the tenant's log says it signs
// checkpoints with. Keep it: a later one that differs is for people to explain.
func (s Events) LogKey(ctx context.Context, tenant string) (string, error) {
	b, err := s.c.bytes(ctx, call{method: http.MethodGet, path: []string{"v1", "log", tenant, "key"}, accept: "text/plain"})
	return strings.TrimSpace(string(b)), err
}

// Follow is how a stream of events is followed.
type Follow struct {
	Filter EventFilter // as for List; PageSize is not used
	// LastEventID resumes after the event with this stream id; empty begins now.
	LastEventID string
	// Lost is told, when not nil, each time the stream broke and is about to be
	// opened again after wait.
	Lost func(err error, wait time.Duration)
}

// Stream yields events as they are committed. When the stream breaks it is
// opened again where it ended (Last-Event-ID), for as long as ctx lasts: no
// event is missed and none comes twice. It ends with an error when the server
// turns it away for good, or cannot be reached in the first place.
func (s Events) Stream(ctx context.Context, f Follow) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		st := &follower{c: s.c, query: f.Filter.query(), lastID: f.LastEventID, base: time.Second}
		st.query.Del("limit")
		for {
			err := st.read(ctx, yield)
			if errors.Is(err, errStopped) {
				return
			}
			if ctx.Err() != nil {
				yield(Event{}, ctx.Err())
				return
			}
			wait, again := st.again(err)
			if !again {
				yield(Event{}, err)
				return
			}
			if f.Lost != nil {
				f.Lost(err, wait)
			}
			if err := s.c.pause(ctx, wait); err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// errStopped says that the caller ranges no further.
var errStopped = errors.New("stopped")

// follower is a stream across its connections.
type follower struct {
	c       *Client
	query   url.Values
	lastID  string
	base    time.Duration // the first wait after a break; the server may set it
	opened  bool          // at least once
	attempt int           // breaks since the last event
}

// read opens the stream and yields its events until it breaks.
func (st *follower) read(ctx context.Context, yield func(Event, error) bool) error {
	header := http.Header{"Cache-Control": {"no-cache"}}
	if st.lastID != "" {
		header.Set("Last-Event-Id", st.lastID)
	}
	resp, err := st.c.open(ctx, call{method: http.MethodGet, path: []string{"v1", "events", "stream"}, query: st.query, accept: "text/event-stream", header: header})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	st.opened = true
	in := newEventReader(resp.Body)
	for {
		m, err := in.next()
		if in.retry > 0 {
			st.base = in.retry
		}
		if errors.Is(err, io.EOF) {
			return st.c.unreachable(io.ErrUnexpectedEOF) // a stream of events has no end
		}
		if errors.Is(err, errTooLarge) {
			return st.c.broken(resp, err)
		}
		if err != nil {
			return st.c.unreachable(err)
		}
		if m.kind == "error" {
			return parseError(http.StatusServiceUnavailable, "application/json", m.data)
		}
		var e Event
		if err := decode(m.data, &e); err != nil {
			return st.c.broken(resp, err)
		}
		st.attempt = 0
		st.lastID = in.lastID
		if !yield(e, nil) {
			return errStopped
		}
	}
}

// again decides whether a broken stream is opened once more.
func (st *follower) again(err error) (time.Duration, bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Retryable || !st.opened {
		return 0, false
	}
	wait := backoff(st.attempt, st.base, 30*time.Second)
	st.attempt++
	return max(wait, e.RetryAfter), true
}
