// Package evidence is what happened, in a form a stranger can check: per tenant
// one hash chain and one Merkle tree over the same events, content-addressed
// artifacts that the events refer to, and signed checkpoints.
//
//	Draft ──Append──▶ canonical event ── event_hash chains it to the one before (ecs.md §4.3, §4.4)
//	                        │
//	                        ├─▶ leaf of the tenant's Merkle tree (RFC 6962 hashing, C2SP tlog-tiles)
//	                        └─▶ evidence artifact: the bytes its evidence_pointer is the sha256 of
//
// Appending happens inside the transaction of the change that the events
// record (package govern), so that neither can exist without the other.
package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

// Outcome is how an action ended.
type Outcome int8

// The closed set of outcomes (ecs.md X12).
const (
	Accepted Outcome = iota + 1
	Refused
	Failed
)

var outcomeNames = [...]string{"", "accepted", "refused", "failed"}

func (o Outcome) String() string { return outcomeNames[o] }

// ParseOutcome is the reverse of String; ok is false for anything else.
func ParseOutcome(s string) (o Outcome, ok bool) {
	i := slices.Index(outcomeNames[:], s)
	return Outcome(max(i, 0)), i > 0
}

// The six refusal classes (ecs.md §4.2).
const (
	ClassPolicy       = "policy_denied"
	ClassAuthority    = "authority_missing_or_invalid"
	ClassJurisdiction = "jurisdiction_denied"
	ClassDelegation   = "delegation_invalid"
	ClassPrecondition = "evidence_precondition_failed"
	ClassDependency   = "dependency_unavailable_fail_closed"
)

// Refusal says why an action was refused or failed.
type Refusal struct {
	Class   string // one of the six
	Code    string // machine readable, such as "authority_expired" or a rule id
	Subject string // the governed action
	Reason  string // one sentence
}

// Actor is who acted, as events name them.
type Actor struct {
	ID         string // "developer@demo", "svc-plan-orchestrator@demo", "system:jobs"
	Type       string // human, service or delegate
	Org        string // the tenant the actor belongs to
	Credential string // what it showed: a token's or key's id, never the secret
}

// Draft is an event before it has its place in the chain.
type Draft struct {
	Tenant  string // whose log
	Type    string // event_type, ecs.md §4.6
	Outcome Outcome
	Actor   Actor

	Correlation string
	Resource    string // resource_id, such as "workload/<uuid>"
	Action      string // the governed verb

	AuthoritySnapshot, PolicySnapshot string // "sha256:<hex>" of artifacts of the same tenant

	// Details are the event's own fields, ASCII keys that no envelope field
	// has. They stand flat on the event and again under "payload" (ecs.md X5).
	Details map[string]any
	// Decision is canonical JSON of what was asked of policy and what it said;
	// it is kept in the evidence artifact, not on the event.
	Decision []byte
	Refusal  *Refusal
	// Artifacts are the digests this event rests on beside the snapshots;
	// they are packed into bundles.
	Artifacts []string

	Jurisdiction, Classification, Delegation string
}

// Receipt is where an appended event stands.
type Receipt struct {
	Tenant      string
	EventID     string
	Type        string
	Sequence    int64
	Pointer     string // eosc://evidence/sha256:<hex>
	Correlation string
	Outcome     Outcome
	// Event is the canonical bytes including event_hash.
	Event []byte
}

// MaxEvent bounds an event's canonical bytes: a log entry's length must fit
// in 16 bits (C2SP tlog-tiles entry bundles). Larger things are artifacts.
const MaxEvent = 1<<16 - 1

// maxEvidence bounds an evidence artifact, which also holds the decision's input.
const maxEvidence = 256 << 10

// timeLayout is RFC 3339 in UTC with microseconds, the resolution stored.
const timeLayout = "2006-01-02T15:04:05.000000Z"

type field struct {
	key string
	raw []byte // canonical JSON
}

// sealed is a draft made ready outside the writer: everything that does not
// depend on the event's place in the chain is already encoded and sorted.
type sealed struct {
	draft   *Draft
	fields  []field
	payload []byte // canonical JSON of the event's own fields
	keys    keyset
}

// envelope is every top-level key that belongs to the envelope; details may not use them.
var envelope = map[string]bool{"id": true, "event_type": true, "occurred_at": true, "tenant_id": true, "actor": true,
	"actor_details": true, "sequence": true, "outcome": true, "evidence_pointer": true, "correlation_id": true,
	"authority_snapshot_id": true, "policy_snapshot_id": true, "payload": true, "chain_id": true, "event_hash": true,
	"prev_hash": true, "resource_id": true, "action": true, "refusal_reason_class": true, "refusal_reason_code": true,
	"refusal_subject": true, "refusal_reason": true, "artifact_refs": true, "delegation_id": true,
	"jurisdiction": false, "classification": false} // these two may be an event's own fields, too

func seal(d *Draft) (*sealed, error) {
	s := &sealed{draft: d, fields: make([]field, 0, 20+len(d.Details)), keys: keyset{kindType: key(d.Type), kindActor: key(d.Actor.ID), kindResource: key(d.Resource), kindCorrelation: key(d.Correlation)}}
	e := encoder{buf: make([]byte, 0, 1536)}
	details, err := e.details(d)
	if err != nil {
		return nil, err
	}
	payload := object(make([]byte, 0, 512), details)
	s.fields = append(append(s.fields, details...), field{"payload", payload})
	s.fields = append(s.fields, e.actor(d.Actor))
	for _, f := range []struct{ key, val string }{{"event_type", d.Type}, {"tenant_id", d.Tenant}, {"chain_id", ChainID(d.Tenant)}, {"actor", d.Actor.ID},
		{"outcome", d.Outcome.String()}, {"correlation_id", d.Correlation}, {"authority_snapshot_id", d.AuthoritySnapshot}, {"policy_snapshot_id", d.PolicySnapshot}} {
		s.fields = append(s.fields, e.str(f.key, f.val))
	}
	for _, f := range d.optional() {
		if f.val != "" {
			s.fields = append(s.fields, e.str(f.key, f.val))
		}
	}
	if len(d.Artifacts) > 0 {
		s.fields = append(s.fields, e.pointers("artifact_refs", d.Artifacts))
	}
	if e.err != nil {
		return nil, fmt.Errorf("event %s: %w", d.Type, e.err)
	}
	slices.SortFunc(s.fields, byKey)
	s.payload = payload
	if n := len(payload) + len(d.Decision); n > maxEvidence {
		return nil, fmt.Errorf("event %s: details of %d bytes pass the limit of %d", d.Type, n, maxEvidence)
	}
	return s, nil
}

func byKey(a, b field) int { return strings.Compare(a.key, b.key) }

type optionalField struct{ key, val string }

// optional are the envelope fields that stand on an event only with a value.
func (d *Draft) optional() []optionalField {
	fs := []optionalField{{"resource_id", d.Resource}, {"action", d.Action}, {"delegation_id", d.Delegation}}
	if r := d.Refusal; r != nil {
		fs = append(fs, optionalField{"refusal_reason_class", r.Class}, optionalField{"refusal_reason_code", r.Code},
			optionalField{"refusal_subject", r.Subject}, optionalField{"refusal_reason", r.Reason})
	}
	if d.Details["jurisdiction"] == nil {
		fs = append(fs, optionalField{"jurisdiction", d.Jurisdiction})
	}
	if d.Details["classification"] == nil {
		fs = append(fs, optionalField{"classification", d.Classification})
	}
	return fs
}

// encoder writes canonical values into one buffer and keeps the first error.
type encoder struct {
	buf []byte
	err error
}

// cut is what was written since start, safe from later appends.
func (e *encoder) cut(key string, start int) field {
	return field{key, e.buf[start:len(e.buf):len(e.buf)]}
}

func (e *encoder) str(key, v string) field {
	start := len(e.buf)
	b, err := canon.AppendString(e.buf, v)
	if err != nil {
		e.err = errors.Join(e.err, fmt.Errorf("field %s: %w", key, err))
		return field{key, nil}
	}
	e.buf = b
	return e.cut(key, start)
}

func (e *encoder) actor(a Actor) field {
	fs := []field{e.str("id", a.ID), e.str("org_id", a.Org), e.str("type", a.Type)}
	if a.Credential != "" {
		fs = append([]field{e.str("credential_ref", a.Credential)}, fs...)
	}
	return field{"actor_details", object(make([]byte, 0, 160), fs)}
}

func (e *encoder) pointers(key string, digests []string) field {
	start := len(e.buf)
	e.buf = append(e.buf, '[')
	for i, d := range digests {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(append(append(e.buf, '"'), ArtifactPointer(d)...), '"')
	}
	e.buf = append(e.buf, ']')
	return e.cut(key, start)
}

// details encodes the event's own fields, once for all three places they stand in.
func (e *encoder) details(d *Draft) ([]field, error) {
	fs := make([]field, 0, len(d.Details))
	for k, v := range d.Details {
		if envelope[k] {
			return nil, fmt.Errorf("event %s: detail %q is an envelope field", d.Type, k)
		}
		start := len(e.buf)
		b, err := canon.Append(e.buf, v)
		if err != nil {
			return nil, fmt.Errorf("event %s: detail %s: %w", d.Type, k, err)
		}
		e.buf = b
		fs = append(fs, e.cut(k, start))
	}
	slices.SortFunc(fs, byKey)
	return fs, nil
}

// object writes sorted fields as a JSON object.
func object(dst []byte, fs []field) []byte {
	dst = append(dst, '{')
	for i, f := range fs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), f.key...), '"', ':')
		dst = append(dst, f.raw...)
	}
	return append(dst, '}')
}

// artifact writes the evidence artifact's file bytes (ecs.md §4.5): the
// event's own fields with what policy was asked and said. All of it but the
// decision stands on the event too, so only that is stored beside it.
func artifact(payload, decision, typ, sequence, timestamp []byte) []byte {
	b := make([]byte, 0, len(payload)+len(decision)+192)
	b = append(b, `{"details":`...)
	if len(decision) == 0 {
		b = append(b, payload...)
	} else {
		b = append(append(append(b, `{"decision":`...), decision...), `,"payload":`...)
		b = append(append(b, payload...), '}')
	}
	b = append(append(b, `,"event_type":`...), typ...)
	b = append(append(b, `,"sequence":`...), sequence...)
	b = append(append(b, `,"timestamp":`...), timestamp...)
	return append(b, "}\n"...)
}

// artifactOf writes the evidence artifact of a stored event again.
func artifactOf(event, decision []byte) ([]byte, error) {
	var payload, typ, sequence, at []byte
	err := canon.Members(event, func(m canon.Member) error {
		switch string(m.Key) {
		case "payload":
			payload = m.Value
		case "event_type":
			typ = m.Value
		case "sequence":
			sequence = m.Value
		case "occurred_at":
			at = m.Value
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("stored event is damaged: %w", err)
	}
	return artifact(payload, decision, typ, sequence, at), nil
}

// placed is an event in its place: what is stored.
type placed struct {
	Receipt
	id   uuid.UUID
	at   time.Time
	hash string // event_hash
	leaf [32]byte
	keys keyset
}

// place gives the event its sequence, time and links, and computes its hashes.
func (s *sealed) place(id uuid.UUID, seq int64, at time.Time, prev string) (*placed, error) {
	d := s.draft
	p := &placed{id: id, at: at, keys: s.keys}
	when := at.UTC().Format(timeLayout)
	num := strconv.FormatInt(seq, 10)

	sum := sha256.Sum256(artifact(s.payload, d.Decision, quoted(d.Type), []byte(num), quoted(when)))
	p.keys[kindEvidence] = int64(binary.BigEndian.Uint64(sum[:8]))
	pointer := EvidencePointer("sha256:" + hex.EncodeToString(sum[:]))

	dynamic := []field{{"evidence_pointer", quoted(pointer)}, {"id", quoted(id.String())}, {"occurred_at", quoted(when)},
		{"prev_hash", quoted(prev)}, {"sequence", []byte(num)}}
	if prev == "" {
		dynamic = slices.Delete(dynamic, 3, 4) // the first event of a chain has no prev_hash (ecs.md X2)
	}
	line, cut := join(s.fields, dynamic)
	if len(line)+len(`"event_hash":"sha256:",`)+64 > MaxEvent {
		return nil, fmt.Errorf("event %s: %d bytes pass the limit of %d; keep large values as artifacts", d.Type, len(line), MaxEvent)
	}
	h := sha256.Sum256(line)
	p.hash = "sha256:" + hex.EncodeToString(h[:])
	full := make([]byte, 0, len(line)+96)
	full = append(full, line[:cut]...)
	full = append(append(append(full, `"event_hash":"`...), p.hash...), `",`...)
	full = append(full, line[cut:]...)

	p.leaf = LeafHash(full)
	p.Receipt = Receipt{Tenant: d.Tenant, EventID: id.String(), Type: d.Type, Sequence: seq, Pointer: pointer,
		Correlation: d.Correlation, Outcome: d.Outcome, Event: full}
	return p, nil
}

// join writes both sorted lists as one sorted object without event_hash, and
// returns where event_hash belongs.
func join(a, b []field) (line []byte, cut int) {
	n := 2
	for _, f := range a {
		n += len(f.key) + len(f.raw) + 4
	}
	for _, f := range b {
		n += len(f.key) + len(f.raw) + 4
	}
	line = append(make([]byte, 0, n), '{')
	for len(a) > 0 || len(b) > 0 {
		var f field
		if len(b) == 0 || len(a) > 0 && a[0].key < b[0].key {
			f, a = a[0], a[1:]
		} else {
			f, b = b[0], b[1:]
		}
		if cut == 0 && f.key > "event_hash" {
			cut = len(line)
		}
		line = append(append(append(line, '"'), f.key...), '"', ':')
		line = append(append(line, f.raw...), ',')
	}
	line[len(line)-1] = '}'
	return line, cut
}

// quoted is s as a JSON string; s is known to need no escapes.
func quoted(s string) []byte {
	b := make([]byte, 0, len(s)+2)
	return append(append(append(b, '"'), s...), '"')
}

// ChainID names a tenant's chain on its events and in bundles.
func ChainID(tenant string) string { return "chain-" + tenant }

// EvidencePointer is the pointer to the evidence artifact with this digest (ecs.md §4.5).
func EvidencePointer(digest string) string { return "eosc://evidence/" + digest }

// ArtifactPointer is the pointer to the artifact with this digest (ecs.md §4.5).
func ArtifactPointer(digest string) string { return "eosc://artifact/" + digest }

// Digest is the content address of b: "sha256:" and the hash in hex.
func Digest(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

// key is the stored 64-bit hash of a value that events can be asked for.
func key(s string) int64 {
	h := sha256.Sum256([]byte(s))
	return int64(binary.BigEndian.Uint64(h[:8]))
}
