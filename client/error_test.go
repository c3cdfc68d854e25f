package client

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestErrorsAreRebuilt(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		want   Error
	}{
		{"interop refusal", 403, map[string]string{"X-Event-ID": "ev", "X-Correlation-ID": "co"},
			`{"code":"ECS_REFUSED","message":"no signature","evidence_pointer":"eosc://evidence/sha256:aa","rule_id":"image.signature_missing","fix":"sign it"}`,
			Error{Status: 403, Code: "ECS_REFUSED", Message: "no signature", RuleID: "image.signature_missing", Fix: "sign it",
				EvidencePointer: "eosc://evidence/sha256:aa", EventID: "ev", CorrelationID: "co"}},
		{"interop field", 400, nil, `{"code":"ECS_INVALID","message":"is unknown","field":"colour"}`,
			Error{Status: 400, Code: "ECS_INVALID", Message: "is unknown", Field: "colour"}},
		{"nested", 503, map[string]string{"Retry-After": "7"}, `{"error":{"code":"UNAVAILABLE","message":"later","retryable":true,"rule_id":"r"}}`,
			Error{Status: 503, Code: "UNAVAILABLE", Message: "later", RuleID: "r", Retryable: true, RetryAfter: 7 * time.Second}},
		{"nested says it is final", 503, nil, `{"error":{"code":"GONE","message":"no","retryable":false}}`,
			Error{Status: 503, Code: "GONE", Message: "no"}},
		{"both shapes", 401, nil, `{"error":"invalid_grant","error_description":"wrong password"}`,
			Error{Status: 401, Code: "invalid_grant", Message: "wrong password"}},
		{"date to wait for", 429, map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:04:35 GMT"}, `{"code":"ECS_RATE","message":"slow down"}`,
			Error{Status: 429, Code: "ECS_RATE", Message: "slow down", Retryable: true, RetryAfter: 30 * time.Second}},
		{"pointer in the header only", 409, map[string]string{"X-Evidence-Pointer": "eosc://evidence/sha256:bb"}, `{"code":"C","message":"m"}`,
			Error{Status: 409, Code: "C", Message: "m", EvidencePointer: "eosc://evidence/sha256:bb"}},
		{"proxy's page", 502, map[string]string{"Content-Type": "text/html"}, `<html>bad gateway</html>`,
			Error{Status: 502, Code: CodeProtocol, Message: "HTTP 502 Bad Gateway", Retryable: true}},
		{"plain text", 500, map[string]string{"Content-Type": "text/plain"}, "boom\x1b[31m\n",
			Error{Status: 500, Code: CodeProtocol, Message: "HTTP 500 Internal Server Error: boom[31m"}},
		{"nothing", 404, nil, ``, Error{Status: 404, Code: CodeProtocol, Message: "HTTP 404 Not Found"}},
		{"empty object", 423, nil, `{}`, Error{Status: 423, Message: "HTTP 423 Locked", Retryable: true}},
		{"wrong types", 400, nil, `{"code":5}`, Error{Status: 400, Code: CodeProtocol, Message: "HTTP 400 Bad Request"}},
		{"null", 400, nil, `{"error":null,"code":"X","message":"m"}`, Error{Status: 400, Code: "X", Message: "m"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			for k, v := range tc.header {
				rec.Header().Set(k, v)
			}
			rec.WriteHeader(tc.status)
			rec.WriteString(tc.body)
			got := errorOf(rec.Result(), now)
			if d := cmp.Diff(tc.want, *got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{
		"colour is unknown":  {Status: 400, Field: "colour", Message: "is unknown"},
		"colour is no field": {Status: 400, Field: "colour", Message: "colour is no field"},
		"Not Found":          {Status: 404},
		"the request failed": {},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	now := time.Now()
	for v, want := range map[string]time.Duration{"": 0, "soon": 0, "-5": 0, "3": 3 * time.Second, "999999999": maxRetryAfter,
		now.Add(-time.Hour).UTC().Format(http.TimeFormat): 0} {
		if got := retryAfter(v, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", v, got, want)
		}
	}
}

func FuzzParseError(f *testing.F) {
	for _, s := range []string{`{"code":"A","message":"b","field":"c"}`, `{"error":{"code":"A","retryable":true}}`, `{"error":"x","error_description":"y"}`,
		`{"error":{"error":{"code":"deep"}}}`, `[]`, `null`, `"x"`, "plain\x00text", `{"message":"\u001b[2J"}`} {
		f.Add(403, "text/plain", []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		e := parseError(status, contentType, body)
		if e.Message == "" {
			t.Error("an error without words")
		}
		for _, s := range []string{e.Code, e.Message, e.RuleID, e.Field, e.Fix, e.EvidencePointer, e.EventID} {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x9b }) {
				t.Errorf("control characters in %q", s)
			}
			if len(s) > maxErrorText+8 && utf8.ValidString(s) {
				t.Errorf("text of %d bytes", len(s))
			}
		}
	})
}
