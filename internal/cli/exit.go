package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
	"provost.dev/provost/internal/kernel"
)

// Exit codes. They are documented in the root command's help and stable.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitConflict    = 5
	exitUnverified  = 6
	exitTryAgain    = 75 // EX_TEMPFAIL of sysexits.h
	exitInterrupted = 130
)

// usageError is the caller's: a flag, an argument or a value.
type usageError struct {
	err     error
	command string // whose help to point at
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// quietError decides the exit code and has been told already.
type quietError struct{ code int }

func (e *quietError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// byStatus maps the statuses of refusals; 400 and its kin are the caller's
// values, whichever side notices.
var byStatus = map[int]int{
	http.StatusBadRequest: exitUsage, http.StatusRequestEntityTooLarge: exitUsage, http.StatusUnsupportedMediaType: exitUsage,
	http.StatusUnprocessableEntity: exitUsage, http.StatusNotFound: exitNotFound, http.StatusGone: exitNotFound,
	http.StatusUnauthorized: exitDenied, http.StatusForbidden: exitDenied, http.StatusConflict: exitConflict,
}

var byKind = map[kernel.Kind]int{
	kernel.Invalid: exitUsage, kernel.TooLarge: exitUsage, kernel.Unsupported: exitUsage, kernel.Unprocessable: exitUsage,
	kernel.NotFound: exitNotFound, kernel.Gone: exitNotFound, kernel.Unauthenticated: exitDenied, kernel.Refused: exitDenied,
	kernel.Conflict: exitConflict,
}

func exitCode(err error) int {
	if q, ok := errors.AsType[*quietError](err); ok {
		return q.code
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	switch {
	case errors.Is(err, client.ErrUnverified):
		return exitUnverified
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return exitOf(e)
	}
	if e, ok := errors.AsType[*kernel.Error](err); ok {
		if code, ok := byKind[e.Kind]; ok {
			return code
		}
		if e.Kind.Retryable() {
			return exitTryAgain
		}
	}
	return exitFailed
}

func exitOf(e *client.Error) int {
	if code, ok := byStatus[e.Status]; ok {
		return code
	}
	if e.Code == client.CodeInvalid {
		return exitUsage
	}
	if e.Retryable {
		return exitTryAgain
	}
	return exitFailed
}

// explain tells a person why a command failed: what was refused, by which
// rule, what is missing, what would help, and where the evidence is.
func (p *program) explain(cmd *cobra.Command, err error) {
	w := p.Err
	if _, ok := errors.AsType[*quietError](err); ok {
		return
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "provost: interrupted")
		return
	}
	what := strings.TrimPrefix(cmd.CommandPath(), "provost ")
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(w, "provost: %v\n", plain(err.Error()))
		if u.command != "" {
			fmt.Fprintf(w, "See \"%s --help\".\n", u.command)
		}
		return
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		p.explainAnswer(w, what, err, e)
		return
	}
	if e, ok := errors.AsType[*kernel.Error](err); ok {
		fmt.Fprintf(w, "provost: %s: %s\n", what, plain(err.Error()))
		facts(w, [][2]string{{"rule", e.Rule}, {"fix", e.Fix}, {"evidence", e.Pointer}})
		return
	}
	fmt.Fprintf(w, "provost: %s: %s\n", what, plain(err.Error()))
}

// explainAnswer is explain for what a server said, or failed to say.
func (p *program) explainAnswer(w io.Writer, what string, err error, e *client.Error) {
	verb := "failed"
	fix := e.Fix
	switch e.Status {
	case http.StatusUnauthorized:
		verb = "refused"
		if fix == "" {
			fix = "sign in: provost login"
		}
	case http.StatusForbidden:
		verb = "refused"
		if fix == "" {
			fix = "whoever may change roles or policy in this tenant can grant it"
		}
	}
	fmt.Fprintf(w, "provost: %s %s: %s\n", what, verb, plain(err.Error()))
	rule := e.RuleID
	if len(e.Rules) > 1 {
		rule = strings.Join(e.Rules, ", ")
	}
	lines := [][2]string{{"rule", rule}, {"field", e.Field}, {"fix", fix}, {"evidence", e.EvidencePointer}}
	if e.EventID != "" {
		lines = append(lines, [2]string{"explain", "provost why event/" + e.EventID})
	}
	if e.RetryAfter > 0 {
		lines = append(lines, [2]string{"try again", "in " + e.RetryAfter.Round(time.Second).String()})
	}
	if e.Status >= 500 {
		lines = append(lines, [2]string{"correlation", e.CorrelationID})
	}
	facts(w, lines)
}

// facts prints the pairs that have a value, indented and aligned.
func facts(w io.Writer, pairs [][2]string) {
	width := 0
	for _, kv := range pairs {
		if kv[1] != "" {
			width = max(width, len(kv[0]))
		}
	}
	for _, kv := range pairs {
		if kv[1] != "" {
			fmt.Fprintf(w, "  %-*s  %s\n", width, kv[0], plain(kv[1]))
		}
	}
}
