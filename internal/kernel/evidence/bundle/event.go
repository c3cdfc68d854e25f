package bundle

import (
	"crypto/sha256"
	"encoding/json"
	"hash"
	"slices"
	"strconv"

	"github.com/transparency-dev/merkle/rfc6962"
	"provost.dev/provost/internal/kernel/evidence/canon"
)

// text is a string in canonical JSON text without its quotes. Every string has
// one canonical text, so texts compare as their strings do. nil is absent or
// not a string.
type text []byte

func (t text) String() string {
	var s string
	if err := json.Unmarshal([]byte(`"`+string(t)+`"`), &s); err != nil {
		return string(t) // cannot be: it was checked to be canonical
	}
	return s
}

// textOf is the canonical text of s. Strings that have none compare unequal to
// every event's.
func textOf(s string) text {
	b, err := canon.AppendString(nil, s)
	if err != nil {
		return text("\x00")
	}
	return text(b[1 : len(b)-1])
}

// event is one line of events.jsonl, taken apart. All texts are slices of line.
type event struct {
	line        []byte // canonical, without newline
	id          text
	eventType   text
	occurredAt  text
	tenant      text
	actor       text
	outcome     text
	pointer     text
	correlation text
	authority   text
	policy      text
	chain       text
	eventHash   text
	prevHash    text
	profile     text
	hashProfile text
	reason      text
	reasonClass text
	reasonCode  text
	subject     text
	payload     []byte // raw, nil if absent
	sequence    uint64
	hasSequence bool
	cut         [2]int // the event_hash member and one comma beside it
}

// parse takes a canonical line apart into e. It fails on lines that are
// not canonical JSON objects; wrong and missing fields are the rules' business.
func (e *event) parse(line []byte) error {
	*e = event{line: line}
	var hashMember canon.Member
	err := canon.Members(line, func(m canon.Member) error {
		if t := e.slot(string(m.Key)); t != nil {
			if m.Value[0] == '"' {
				*t = text(m.Value[1 : len(m.Value)-1])
			}
			if t == &e.eventHash {
				hashMember = m
			}
			return nil
		}
		switch string(m.Key) {
		case "sequence":
			n, err := strconv.ParseUint(string(m.Value), 10, 63)
			e.sequence, e.hasSequence = n, err == nil
		case "payload":
			e.payload = m.Value
		}
		return nil
	})
	if err == nil && hashMember.End > 0 {
		e.cutMember(hashMember)
	}
	return err
}

// slot is where the string of the member named key goes, nil for other members.
func (e *event) slot(key string) *text {
	switch key {
	case "id":
		return &e.id
	case "event_type":
		return &e.eventType
	case "occurred_at":
		return &e.occurredAt
	case "tenant_id":
		return &e.tenant
	case "actor":
		return &e.actor
	case "outcome":
		return &e.outcome
	case "evidence_pointer":
		return &e.pointer
	case "correlation_id":
		return &e.correlation
	case "authority_snapshot_id":
		return &e.authority
	case "policy_snapshot_id":
		return &e.policy
	case "chain_id":
		return &e.chain
	case "event_hash":
		return &e.eventHash
	case "prev_hash":
		return &e.prevHash
	case "evidence_profile_id":
		return &e.profile
	case "hash_profile_id":
		return &e.hashProfile
	case "refusal_reason":
		return &e.reason
	case "refusal_reason_class":
		return &e.reasonClass
	case "refusal_reason_code":
		return &e.reasonCode
	case "refusal_subject":
		return &e.subject
	}
	return nil
}

// cutMember notes what to leave out of the hash: the member and the comma
// before it, or after it when it comes first.
func (e *event) cutMember(m canon.Member) {
	switch {
	case m.Start > 1:
		e.cut = [2]int{m.Start - 1, m.End}
	case e.line[m.End] == ',':
		e.cut = [2]int{m.Start, m.End + 1}
	default:
		e.cut = [2]int{m.Start, m.End}
	}
}

// field returns the raw value of a member, looked for at the top and then in
// the payload (resolution X5), nil if absent. It scans: for rare events only.
func (e *event) field(name string) []byte {
	if v := member(e.line, name); v != nil {
		return v
	}
	return member(e.payload, name)
}

// textField is field for strings; nil if absent or not a string.
func (e *event) textField(name string) text { return stringOf(e.field(name)) }

// member returns the raw value of one member of a canonical object, nil if obj
// is no object or has none.
func member(obj []byte, name string) (value []byte) {
	if len(obj) == 0 || obj[0] != '{' {
		return nil
	}
	err := canon.Members(obj, func(m canon.Member) error {
		if string(m.Key) == name {
			value = m.Value
		}
		return nil
	})
	if err != nil {
		return nil // cannot be: the line was checked before
	}
	return value
}

func stringOf(raw []byte) text {
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}
	return text(raw[1 : len(raw)-1])
}

// maxHashProfiles bounds how many hash profiles of events are looked at.
const maxHashProfiles = 100

// addHashProfile adds the hash profile that e declares, if any, to seen.
func (e *event) addHashProfile(seen []string) []string {
	if len(e.hashProfile) == 0 || len(seen) == maxHashProfiles || slices.Contains(seen, e.hashProfile.String()) {
		return seen
	}
	return append(seen, e.hashProfile.String())
}

// hasher computes event and leaf hashes without allocating.
type hasher struct {
	h   hash.Hash
	sum digest
}

func newHasher() *hasher { return &hasher{h: sha256.New()} }

// event is the SHA-256 of the line without its event_hash (ecs.md §4.3).
func (h *hasher) event(e *event) digest {
	h.h.Reset()
	h.h.Write(e.line[:e.cut[0]])
	h.h.Write(e.line[e.cut[1]:])
	h.h.Sum(h.sum[:0])
	return h.sum
}

var leafPrefix = []byte{rfc6962.RFC6962LeafHashPrefix}

// leaf is the RFC 6962 leaf hash of the whole line. The slice is the tree's to keep.
func (h *hasher) leaf(e *event) []byte {
	h.h.Reset()
	h.h.Write(leafPrefix)
	h.h.Write(e.line)
	return h.h.Sum(make([]byte, 0, sha256.Size))
}
