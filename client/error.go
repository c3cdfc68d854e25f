package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Codes of errors that this package makes itself; all others are the server's.
const (
	CodeInvalid     = "INVALID_ARGUMENT" // an argument that cannot be sent
	CodeUnreachable = "UNREACHABLE"      // no answer came back
	CodeProtocol    = "PROTOCOL"         // an answer that is not a Provost server's
)

// Error is why a call failed, rebuilt from the answer of either error shape:
// {code, message, …} of the interop family and {"error": {…}} of the others.
type Error struct {
	Status  int    // HTTP status; 0 when no answer came back
	Code    string // stable and machine readable
	Message string // a sentence for a person

	RuleID string   // the rule that refused
	Rules  []string // all rules that determined the refusal, when there are more
	Field  string   // the input field at fault
	Fix    string   // what is missing, who can grant it, what to do next

	EvidencePointer string // where the refusal's evidence is kept
	EventID         string // the event that records the refusal
	CorrelationID   string

	Retryable  bool          // the same request can succeed later
	RetryAfter time.Duration // how long to wait first; 0 is unknown

	Err error // the cause, when no answer came back
}

func (e *Error) Error() string {
	s := cmp.Or(e.Message, http.StatusText(e.Status), "the request failed")
	if e.Field != "" && !strings.HasPrefix(s, e.Field) {
		s = e.Field + " " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// maxErrorBody bounds how much of an error's body is read.
const maxErrorBody = 256 << 10

// maxErrorText bounds each text taken from a body that nobody vouches for.
const maxErrorText = 4096

// maxRules bounds how many rules of a refusal are kept.
const maxRules = 100

// wireError is both error shapes at once: the nested one is tried first.
type wireError struct {
	Code              string     `json:"code"`
	Message           string     `json:"message"`
	EvidencePointer   string     `json:"evidence_pointer"`
	RuleID            string     `json:"rule_id"`
	Rules             []string   `json:"rules"`
	Field             string     `json:"field"`
	Fix               string     `json:"fix"`
	EventID           string     `json:"event_id"`
	Retryable         *bool      `json:"retryable"`
	Error             *wireError `json:"-"`
	OAuth             string     `json:"-"`
	OAuthErrorDetails string     `json:"error_description"`
}

// UnmarshalJSON tells {"error": {…}} from RFC 6749's {"error": "invalid_grant"}.
func (w *wireError) UnmarshalJSON(b []byte) error {
	type plain wireError
	both := struct {
		*plain
		Error json.RawMessage `json:"error"`
	}{plain: (*plain)(w)}
	if err := json.Unmarshal(b, &both); err != nil {
		return err
	}
	if len(both.Error) == 0 || string(both.Error) == "null" {
		return nil
	}
	if both.Error[0] == '"' {
		return json.Unmarshal(both.Error, &w.OAuth)
	}
	// One level only: what is nested deeper is not an error shape we know.
	inner := new(plain)
	if err := json.Unmarshal(both.Error, inner); err != nil {
		return err
	}
	w.Error = (*wireError)(inner)
	return nil
}

// errorOf rebuilds the error of an answer. It reads the body but does not close it.
func errorOf(resp *http.Response, now time.Time) *Error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := parseError(resp.StatusCode, resp.Header.Get("Content-Type"), body)
	if err != nil {
		e.Err = fmt.Errorf("read the error's body: %w", err)
	}
	r := receiptOf(resp.Header)
	e.EventID = cmp.Or(e.EventID, r.EventID)
	e.EvidencePointer = cmp.Or(e.EvidencePointer, r.EvidencePointer)
	e.CorrelationID = r.CorrelationID
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	if to := resp.Header.Get("Location"); e.Status >= 300 && e.Status < 400 && to != "" {
		e.Code, e.Message = CodeProtocol, "the server sends callers on to "+clean(to, 200)+"; use that address if it is meant"
	}
	return e
}

// parseError never fails: a body that is neither shape is kept as text.
func parseError(status int, contentType string, body []byte) *Error {
	e := &Error{Status: status, Retryable: status == http.StatusLocked || tryAgain(status)}
	var w wireError
	if err := json.Unmarshal(body, &w); err != nil {
		e.Code, e.Message = CodeProtocol, fmt.Sprintf("HTTP %d %s", status, http.StatusText(status))
		if text := clean(string(body), 200); text != "" && strings.HasPrefix(contentType, "text/plain") {
			e.Message += ": " + text
		}
		return e
	}
	oauth, details := w.OAuth, w.OAuthErrorDetails
	if w.Error != nil {
		w = *w.Error
	}
	e.Code, e.Message = clean(cmp.Or(w.Code, oauth), maxErrorText), clean(cmp.Or(w.Message, details, oauth), maxErrorText)
	e.RuleID, e.Field, e.Fix = clean(w.RuleID, maxErrorText), clean(w.Field, maxErrorText), clean(w.Fix, maxErrorText)
	e.EvidencePointer, e.EventID = clean(w.EvidencePointer, maxErrorText), clean(w.EventID, maxErrorText)
	for _, r := range w.Rules[:min(len(w.Rules), maxRules)] {
		e.Rules = append(e.Rules, clean(r, maxErrorText))
	}
	if w.Retryable != nil {
		e.Retryable = *w.Retryable
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("HTTP %d %s", status, http.StatusText(status))
	}
	return e
}

// clean makes foreign text safe to show: no control characters, a bounded length.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// tryAgain reports statuses with which a server or a gateway in front of it
// asks for patience.
func tryAgain(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusBadGateway ||
		status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// maxRetryAfter is the longest wait that a server can ask for and be believed.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads seconds or an HTTP date (RFC 9110 §10.2.3); anything else is 0.
func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 32); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), maxRetryAfter)
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}

// unreachable is the error of a request that got no answer.
func (c *Client) unreachable(err error) *Error {
	e := &Error{Code: CodeUnreachable, Message: "no answer from " + c.base.Host, Err: err, Retryable: true}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, context.Canceled):
		e.Retryable = false
	case untrusted:
		e.Retryable, e.Message = false, "the certificate of "+c.base.Host+" is not trusted"
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Retryable, e.Message, e.Fix = false, c.base.Host+" does not speak TLS", "use http:// in the address"
	}
	return e
}
