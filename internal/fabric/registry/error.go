package registry

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

// Codes in kernel.Error and on the wire. All but the last are the distribution
// specification's; those of blobs and uploads are blob's, and manifest.CodeInvalid is one, too.
const (
	CodeNameInvalid     = "NAME_INVALID"
	CodeNameUnknown     = "NAME_UNKNOWN"
	CodeManifestUnknown = "MANIFEST_UNKNOWN"
	CodeContentUnknown  = "MANIFEST_BLOB_UNKNOWN"
	CodeUnauthorized    = "UNAUTHORIZED"
	CodeDenied          = "DENIED"
	CodeUnsupported     = "UNSUPPORTED"
	CodeTagInvalid      = "TAG_INVALID" // of Docker's registry; the specification has none for it
)

// onTheWire are the codes a client may see. Others, which belong to other
// families, become their kind's code here and are named in the detail.
var onTheWire = map[string]bool{
	CodeNameInvalid: true, CodeNameUnknown: true, CodeManifestUnknown: true, CodeContentUnknown: true,
	CodeUnauthorized: true, CodeDenied: true, CodeUnsupported: true, CodeTagInvalid: true,
	blob.CodeUnknown: true, blob.CodeUploadUnknown: true, blob.CodeUploadInvalid: true,
	blob.CodeDigestInvalid: true, blob.CodeSizeInvalid: true, blob.CodeTooMany: true,
	manifest.CodeInvalid: true,
}

// statuses holds for every kind the HTTP status and the code of an error without one of its own.
var statuses = map[kernel.Kind]struct {
	status int
	code   string
}{
	kernel.Internal:        {http.StatusInternalServerError, "UNKNOWN"},
	kernel.Invalid:         {http.StatusBadRequest, CodeUnsupported},
	kernel.Unauthenticated: {http.StatusUnauthorized, CodeUnauthorized},
	kernel.Refused:         {http.StatusForbidden, CodeDenied},
	kernel.NotFound:        {http.StatusNotFound, ""}, // the endpoint's
	kernel.Conflict:        {http.StatusConflict, CodeDenied},
	kernel.Locked:          {http.StatusConflict, blob.CodeUploadInvalid}, // no client knows 423
	kernel.TooLarge:        {http.StatusRequestEntityTooLarge, blob.CodeSizeInvalid},
	kernel.TooMany:         {http.StatusTooManyRequests, blob.CodeTooMany},
	kernel.Unavailable:     {http.StatusServiceUnavailable, "UNAVAILABLE"},
	kernel.NotAllowed:      {http.StatusMethodNotAllowed, CodeUnsupported},
	kernel.Unsupported:     {http.StatusUnsupportedMediaType, CodeUnsupported},
	kernel.Gone:            {http.StatusNotFound, ""},
	kernel.Unprocessable:   {http.StatusUnprocessableEntity, manifest.CodeInvalid},
}

var (
	errNoEndpoint = &kernel.Error{Kind: kernel.NotFound, Msg: "no such endpoint"}
	errNotAllowed = &kernel.Error{Kind: kernel.NotAllowed, Msg: "the endpoint has no such method"}
)

// wireError is one error as the specification writes it.
type wireError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Detail  *detail `json:"detail,omitempty"`
}

// detail is what a kernel.Error says beyond its code.
type detail struct {
	Code    string `json:"code,omitempty"` // the precise code, where the specification has none
	Field   string `json:"field,omitempty"`
	Rule    string `json:"rule_id,omitempty"`
	Fix     string `json:"fix,omitempty"`
	EventID string `json:"event_id,omitempty"`
	Pointer string `json:"evidence_pointer,omitempty"`
}

// fail answers with err. Nothing may have been written before. unknown is the
// code of a NotFound that has none.
func (c *call) fail(err error, unknown string) {
	e := kernel.AsError(err)
	st := statuses[e.Kind]
	if st.status >= 500 {
		c.cfg.Log.ErrorContext(c.r.Context(), "registry request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
	}
	h := c.w.Header()
	if e.Code == blob.CodeUploadOffset { // the specification's answer to a chunk out of order
		st.status, st.code = http.StatusRequestedRangeNotSatisfiable, blob.CodeUploadInvalid
	}
	out := wireError{Code: st.code, Message: message(e)}
	switch {
	case onTheWire[e.Code]:
		out.Code = e.Code
	case out.Code == "":
		out.Code = unknown
	}
	d := detail{Field: e.Field, Rule: e.Rule, Fix: e.Fix, EventID: e.EventID, Pointer: e.Pointer}
	if e.Code != out.Code {
		d.Code = e.Code
	}
	if d != (detail{}) {
		out.Detail = &d
	}
	if e.Kind == kernel.Unauthenticated {
		h.Set("WWW-Authenticate", "Basic realm="+strconv.Quote(c.cfg.Realm))
	}
	if e.Kind.Retryable() {
		h.Set("Retry-After", strconv.Itoa(max(e.RetryAfter, 1)))
	}
	c.receipt(Receipt{EventID: e.EventID, Pointer: e.Pointer})
	if werr := c.writeJSON(st.status, "application/json", map[string][]wireError{"errors": {out}}); werr != nil {
		c.cfg.Log.ErrorContext(c.r.Context(), "registry error not written", "error", werr)
	}
}

// message has everything a person needs, because the usual clients print nothing else.
func message(e *kernel.Error) string {
	if e.Kind == kernel.Internal {
		return "internal error"
	}
	var b strings.Builder
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	if e.Msg != "" {
		b.WriteString(e.Msg)
	} else {
		b.WriteString(strings.ReplaceAll(e.Kind.String(), "_", " "))
	}
	for _, more := range []struct{ word, text string }{{"rule ", e.Rule}, {"", e.Fix}, {"evidence ", e.Pointer}} {
		if more.text != "" {
			b.WriteString("; " + more.word + more.text)
		}
	}
	return b.String()
}

// receipt tells the client where a change or a refusal was written down.
func (c *call) receipt(r Receipt) {
	if r.EventID != "" {
		c.w.Header().Set("X-Event-ID", r.EventID)
	}
	if r.Pointer != "" {
		c.w.Header().Set("X-Evidence-Pointer", r.Pointer)
	}
}

// writeJSON answers with v. An error means that nothing was sent.
func (c *call) writeJSON(status int, mediaType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return kernel.Errorf(kernel.Internal, "", "encode answer: %w", err)
	}
	h := c.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(b) // the client has gone if this fails; there is nobody to tell
	return nil
}

func allowed(methods map[string]operation) string {
	names := slices.Collect(maps.Keys(methods))
	if _, ok := methods["GET"]; ok {
		names = append(names, "HEAD")
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
