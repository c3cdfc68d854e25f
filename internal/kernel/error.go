// Package kernel holds the few words every room shares: the error that crosses
// package boundaries on purpose, and who is asking.
package kernel

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is. Transports map it to a status;
// nothing else about an error decides what the caller sees.
type Kind uint8

// The closed set of kinds. The HTTP status is the one edge renders.
const (
	Internal        Kind = iota // 500: ours, not the caller's
	Invalid                     // 400: the input is wrong; Field names where
	Unauthenticated             // 401: no or unusable credential
	Refused                     // 403: policy or authority said no; Rule names why
	NotFound                    // 404: unknown, or not visible to the caller
	Conflict                    // 409: the present state does not allow it
	Locked                      // 423: someone else is changing it
	TooLarge                    // 413: a stated limit is passed
	TooMany                     // 429: try again after a while
	Unavailable                 // 503: a part we need is away; nothing was changed
	NotAllowed                  // 405: the resource has no such method
	Unsupported                 // 415/406: a media type we do not speak
	Gone                        // 410: it was here and ended
	Unprocessable               // 422: well formed, but not acceptable as content
)

var kindNames = [...]string{"internal", "invalid", "unauthenticated", "refused", "not_found", "conflict", "locked",
	"too_large", "too_many", "unavailable", "not_allowed", "unsupported", "gone", "unprocessable"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Retryable reports whether the same request can succeed later unchanged.
func (k Kind) Retryable() bool { return k == Locked || k == TooMany || k == Unavailable }

// Error is the error that crosses package boundaries on purpose. Everything in
// it but Err may be shown to the caller; Err is for the log only.
type Error struct {
	Kind  Kind
	Code  string   // stable and machine readable, such as "ECS_TENANT_EXISTS"; empty means the family's default for Kind
	Msg   string   // one sentence for a person
	Field string   // the input field at fault, for Invalid
	Rule  string   // the rule that decided, for Refused
	Rules []string // every rule that refused, Rule among them; nil when there is just one
	Class string   // one of the six refusal classes (ecs.md §4.2); empty means the default for Kind
	Fix   string   // what would help: what is missing, who can grant it, what to type next
	Err   error    // the cause

	// Evidence of the refusal, filled in by govern once it is committed.
	EventID, Pointer string
	// RetryAfter is in seconds, for TooMany and Unavailable; 0 is unknown.
	RetryAfter int
}

func (e *Error) Error() string {
	s := e.Msg
	if s == "" {
		s = e.Kind.String()
	}
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// AsError returns the Error in err's chain, or an Internal one wrapping err.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Msg: "internal error", Err: err}
}

// KindOf is what transports switch on. An unclassified error is Internal.
// Callers ask only when err is not nil.
func KindOf(err error) Kind { return AsError(err).Kind }

// Errorf makes an Error of kind k with a formatted message. A %w operand becomes the cause.
func Errorf(k Kind, code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Code: code, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// InvalidField is the error for one bad input field. Msg says what is wrong and what would be right.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}
