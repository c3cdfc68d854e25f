package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// The rules of the evidence contract (ecs.md §4 and §5), written down a second
// time. Nothing here is shared with the product.

// parseNumbers decodes one JSON value and keeps numbers as they are written.
func parseNumbers(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, clip(b))
	}
	return v
}

// canonical is §4.3's canon: keys in code point order, no space, everything
// outside printable ASCII escaped. Events carry whole numbers only.
func canonical(t testing.TB, v any) []byte {
	t.Helper()
	var b []byte
	switch v := v.(type) {
	case nil:
		return []byte("null")
	case bool:
		return strconv.AppendBool(nil, v)
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			t.Fatalf("a number that is not whole: %s", v)
		}
		return []byte(v)
	case string:
		return canonicalText(v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, canonical(t, e)...)
		}
		return append(b, ']')
	case object:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(a, b string) int { return slices.Compare([]rune(a), []rune(b)) })
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, canonicalText(k)...), ':'), canonical(t, v[k])...)
		}
		return append(b, '}')
	}
	t.Fatalf("%T is no JSON", v)
	return nil
}

func canonicalText(s string) []byte {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case short[r] != "":
			b = append(b, short[r]...)
		case r >= 0x20 && r <= 0x7e:
			b = append(b, byte(r))
		default:
			for _, u := range utf16.Encode([]rune{r}) {
				b = fmt.Appendf(b, `\u%04x`, u)
			}
		}
	}
	return append(b, '"')
}

// TestReferenceVectors holds the copy above against the published vectors of §4.3.
func TestReferenceVectors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"b":1,"a":"x"}`: "cdab067e9f3beb32d1252cfd63e492592fecbf591b0d08cadb24bb17f3864246",
		`{"s":"<&>\u2028/\u007f\b\f\n\t\u0001\"\\"}`: "94c1fc0b5f066c62bf1ab60e4537067ce2c77713177a9da2e47216c4c05a6ceb",
		`{"n":"Zürich","e":"😀"}`:                     "7d62aa44beb0ebceb2657ed224c4d218687dccfc5c7104c7187a1410c154c62f",
		`{"\uff5e":1,"\ud83d\ude00":2}`:              "b71d7ecd44c60f3f73cb8c54c59f9e373a5daf64bc0fd065b053d32136b89fc0",
	} {
		if got := sum(canonical(t, parseNumbers(t, []byte(text)))); got != want {
			t.Errorf("%s hashes to %s, want %s", text, got, want)
		}
	}
}

// eventHash recomputes an event's hash from what it says.
func eventHash(t testing.TB, e object) string {
	t.Helper()
	without := object{}
	for k, v := range e {
		if k != "event_hash" {
			without[k] = v
		}
	}
	return digestOf(canonical(t, without))
}

// checkChain recomputes every event_hash and prev_hash of consecutive events,
// and checks that sequence and time go on without a gap.
func checkChain(t testing.TB, events []object) {
	t.Helper()
	for i, e := range events {
		if got := eventHash(t, e); e["event_hash"] != got {
			t.Fatalf("event %v: event_hash is %v, computed %s", e["sequence"], e["event_hash"], got)
		}
		n := number(t, e["sequence"])
		if i == 0 {
			if _, ok := e["prev_hash"]; ok != (n != 1) {
				t.Fatalf("event %d: prev_hash is %v", n, e["prev_hash"])
			}
			continue
		}
		before := events[i-1]
		if prev := number(t, before["sequence"]); n != prev+1 {
			t.Fatalf("event %d comes after %d", n, prev)
		}
		if e["prev_hash"] != before["event_hash"] {
			t.Fatalf("event %d: prev_hash is %v, the event before has %v", n, e["prev_hash"], before["event_hash"])
		}
		if e["occurred_at"].(string) < before["occurred_at"].(string) {
			t.Fatalf("event %d is of %v, before the one in front of it", n, e["occurred_at"])
		}
	}
}

func number(t testing.TB, v any) int64 {
	t.Helper()
	n, _ := v.(json.Number)
	i, err := n.Int64()
	if err != nil {
		t.Fatalf("%v is no whole number", v)
	}
	return i
}

var (
	uuidForm    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	digestForm  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	pointerForm = regexp.MustCompile(`^eosc://evidence/sha256:[0-9a-f]{64}$`)
	classes     = []any{"policy_denied", "authority_missing_or_invalid", "jurisdiction_denied", "delegation_invalid", "evidence_precondition_failed", "dependency_unavailable_fail_closed"}
	outcomes    = []any{"accepted", "refused", "failed"}
)

// checkEnvelope holds an event against §4.1: the union of what the sources ask for.
func checkEnvelope(t testing.TB, e object) {
	t.Helper()
	text := func(k string) string { s, _ := e[k].(string); return s }
	problem := func(format string, args ...any) {
		t.Helper()
		t.Errorf("event %v (%v): %s", e["sequence"], e["event_type"], fmt.Sprintf(format, args...))
	}
	for _, k := range []string{"event_type", "tenant_id", "actor", "correlation_id", "chain_id", "action"} {
		if text(k) == "" {
			problem("no %s", k)
		}
	}
	if !uuidForm.MatchString(text("id")) {
		problem("id %q is no UUID", text("id"))
	}
	if _, err := time.Parse(time.RFC3339, text("occurred_at")); err != nil || !strings.HasSuffix(text("occurred_at"), "Z") {
		problem("occurred_at %q", text("occurred_at"))
	}
	if number(t, e["sequence"]) < 1 || !slices.Contains(outcomes, e["outcome"]) {
		problem("sequence %v, outcome %v", e["sequence"], e["outcome"])
	}
	if !pointerForm.MatchString(text("evidence_pointer")) {
		problem("evidence_pointer %q", text("evidence_pointer"))
	}
	for _, k := range []string{"authority_snapshot_id", "policy_snapshot_id", "event_hash"} {
		if !digestForm.MatchString(text(k)) {
			problem("%s %q", k, text(k))
		}
	}
	if details, ok := e["actor_details"].(object); !ok || details["id"] != e["actor"] || !slices.Contains([]any{"human", "service", "delegate"}, details["type"]) {
		problem("actor_details %v of actor %v", e["actor_details"], e["actor"])
	}
	if _, ok := e["payload"].(object); !ok {
		problem("payload %v", e["payload"])
	}
	if e["outcome"] != "refused" {
		return
	}
	for _, k := range []string{"refusal_reason_code", "refusal_subject", "refusal_reason"} {
		if text(k) == "" {
			problem("refused without %s", k)
		}
	}
	if !slices.Contains(classes, e["refusal_reason_class"]) {
		problem("refusal_reason_class %v", e["refusal_reason_class"])
	}
}
