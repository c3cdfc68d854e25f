package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Export is an evidence bundle being made, or made.
type Export struct {
	Object
	ID         string      `json:"export_id"`
	Status     string      `json:"status"` // pending, ready or failed
	Reason     string      `json:"reason"` // of a failure
	ProfileID  string      `json:"evidence_profile_id"`
	Scope      ExportScope `json:"scope"`
	Events     int64       `json:"events"`
	BundleHash string      `json:"bundle_hash"`
	CreatedAt  time.Time   `json:"created_at"`
}

// ExportScope is the range of events that a bundle holds.
type ExportScope struct {
	FromSequence int64 `json:"from_sequence"`
	ToSequence   int64 `json:"to_sequence"`
}

// ExportSpec chooses what to export: everything, a range of sequences or of
// times, one correlation, or single events.
type ExportSpec struct {
	ProfileID     string     `json:"evidence_profile_id"`
	FromSequence  int64      `json:"from_sequence,omitempty"`
	ToSequence    int64      `json:"to_sequence,omitempty"`
	From          *time.Time `json:"from,omitempty"`
	To            *time.Time `json:"to,omitempty"`
	CorrelationID string     `json:"correlation_id,omitempty"`
	EventIDs      []string   `json:"event_ids,omitempty"`
}

// Formats of bundles.
const (
	TarGz = "tar.gz"
	Zip   = "zip"
)

// Exports is /v1/exports.
type Exports struct{ c *Client }

// Create asks for a bundle; Wait until it is ready, then Download it.
func (s Exports) Create(ctx context.Context, spec ExportSpec) (e Export, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "exports"}, in: spec, out: &e})
	return e, r, err
}

// Get returns an export as it is now.
func (s Exports) Get(ctx context.Context, id string) (e Export, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "exports", id}, out: &e})
	return e, err
}

// List walks the tenant's exports.
func (s Exports) List(ctx context.Context) iter.Seq2[Export, error] {
	return list[Export](ctx, s.c, nil, 0, "v1", "exports")
}

// Wait asks for the export until it is ready or ctx ends. An export that
// failed is an Error.
func (s Exports) Wait(ctx context.Context, id string) (Export, error) {
	return poll(ctx, s.c, func(ctx context.Context) (Export, bool, error) {
		e, err := s.Get(ctx, id)
		if err == nil && e.Status == "failed" {
			err = &Error{Status: http.StatusOK, Code: "EXPORT_FAILED", Message: fmt.Sprintf("export %s failed: %s", id, clean(e.Reason, maxErrorText))}
		}
		return e, e.Status == "ready", err
	})
}

// Download writes the bundle to w and returns its size in bytes. An answer
// that ends early is an error; what w got until then is not a bundle.
func (s Exports) Download(ctx context.Context, id, format string, w io.Writer) (int64, error) {
	resp, err := s.c.open(ctx, call{method: http.MethodGet, path: []string{"v1", "exports", id, "bundle"},
		query: url.Values{"format": {format}}, accept: "application/gzip, application/zip, application/octet-stream"})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("download export %s: %w", id, err)
	}
	return n, nil
}
