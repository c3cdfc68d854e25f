package audit

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/evidence/bundle"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store"
)

// ExportRequest says what to export. Without a range it is the whole log.
type ExportRequest struct {
	TenantID     string    `json:"tenant_id,omitempty"` // the caller's own
	Profile      string    `json:"evidence_profile_id"`
	FromSequence int64     `json:"from_sequence,omitempty"`
	ToSequence   int64     `json:"to_sequence,omitempty"`
	From         time.Time `json:"from,omitzero"`
	To           time.Time `json:"to,omitzero"`
	Correlation  string    `json:"correlation_id,omitempty"`
	EventIDs     []string  `json:"event_ids,omitempty"`
}

// Export is a bundle being made, or made.
type Export struct {
	ID          string    `json:"export_id"`
	TenantID    string    `json:"tenant_id"`
	Profile     string    `json:"evidence_profile_id"`
	Status      string    `json:"status"` // pending, ready or failed
	Reason      string    `json:"reason,omitempty"`
	Scope       *Scope    `json:"scope,omitempty"`
	Correlation string    `json:"correlation_id,omitempty"`
	BundleHash  string    `json:"bundle_hash,omitempty"`
	Events      int64     `json:"events,omitempty"`
	CreatedBy   string    `json:"created_by"`
	CreatedAt   time.Time `json:"created_at"`

	eventIDs []string
}

// Scope is the sequences a bundle holds, both included.
type Scope struct {
	From int64 `json:"from_sequence"`
	To   int64 `json:"to_sequence"`
}

const (
	exportJob   = "audit.export"
	maxEventIDs = 10_000
)

func (r *ExportRequest) validate(tenant string) error {
	if r.Profile == "" {
		return kernel.InvalidField("evidence_profile_id", "is required: one of %v", bundle.Profiles())
	}
	if _, err := bundle.ParseProfile(r.Profile); err != nil {
		return kernel.InvalidField("evidence_profile_id", "is %q, want one of %v", r.Profile, bundle.Profiles())
	}
	switch {
	case r.TenantID != "" && r.TenantID != tenant:
		return &kernel.Error{Kind: kernel.NotFound, Field: "tenant_id", Msg: "there is no log of that tenant for you"}
	case r.FromSequence < 0 || r.ToSequence < 0:
		return kernel.InvalidField("from_sequence", "and to_sequence are numbers from 1")
	case r.ToSequence > 0 && r.ToSequence < r.FromSequence:
		return kernel.InvalidField("to_sequence", "is before from_sequence")
	case !r.To.IsZero() && r.To.Before(r.From):
		return kernel.InvalidField("to", "is before from")
	case len(r.EventIDs) > maxEventIDs:
		return kernel.InvalidField("event_ids", "has more than %d entries; export a range instead", maxEventIDs)
	case len(r.Correlation) > 128:
		return kernel.InvalidField("correlation_id", "is longer than 128 bytes")
	}
	for i, id := range r.EventIDs {
		if _, err := uuid.Parse(id); err != nil {
			return kernel.InvalidField(fmt.Sprintf("event_ids[%d]", i), "is not the id of an event")
		}
	}
	return nil
}

func (s *Service) postExport(c *route.Call) (any, error) {
	var in ExportRequest
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	tenant := c.Principal.Tenant
	if err := in.validate(tenant); err != nil {
		return nil, err
	}
	from, to, err := s.log.Bounds(c.R.Context(), tenant, evidence.Filter{From: in.From, To: in.To, FromSequence: in.FromSequence, ToSequence: in.ToSequence})
	if err != nil {
		return nil, err
	}
	x := Export{ID: uuid.Must(uuid.NewV7()).String(), TenantID: tenant, Profile: in.Profile, Status: "pending", Correlation: in.Correlation,
		Scope: &Scope{from, to}, CreatedBy: c.Principal.ID(), eventIDs: in.EventIDs}
	a := c.Action("export.create")
	a.Resource = policy.Resource{Type: "Export", ID: x.ID, Attributes: policy.Record{"tenant": tenant, "profile": in.Profile}}
	a.ResourceID = "export/" + x.ID
	a.Details = map[string]any{"export_id": x.ID, "export_profile": in.Profile, "from_sequence": from, "to_sequence": to}
	receipt, err := s.gov.Do(c.R.Context(), a, func(tx *govern.Tx) error {
		x.CreatedAt = tx.Now
		if err := insertExport(tx, &x); err != nil {
			return err
		}
		args, err := json.Marshal(exportArgs{x.ID})
		if err != nil {
			return err
		}
		return tx.Enqueue(jobs.Job{Kind: exportJob, Key: x.ID, Args: args})
	})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/exports/" + x.ID)
	return x, nil
}

type exportArgs struct{ ID string }

// runExport builds both archives of a bundle and records how that went. It
// starts over when it was cut off; the files appear under their names only whole.
func (s *Service) runExport(ctx context.Context, j jobs.Job) error {
	var args exportArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return jobs.Discard(err)
	}
	x, err := s.readExport(ctx, j.Tenant, args.ID)
	if err != nil || x.Status != "pending" {
		return err
	}
	sum, err := s.build(ctx, &x)
	if err != nil {
		if k := kernel.KindOf(err); k == kernel.Unavailable || ctx.Err() != nil {
			return err
		}
		s.logger.ErrorContext(ctx, "export failed", "export", x.ID, "tenant", x.TenantID, "err", err)
		x.Status, x.Reason = "failed", "the bundle could not be made"
		if e := kernel.AsError(err); e.Kind == kernel.Unprocessable || e.Kind == kernel.Invalid {
			x.Reason = e.Msg
		}
	} else {
		x.Status, x.BundleHash, x.Events = "ready", sum.BundleHash, int64(sum.Events)
		x.Scope = &Scope{int64(sum.From), int64(sum.To)}
	}
	a := govern.Action{Verb: "export.finish", Principal: s.system, Tenant: x.TenantID, Correlation: j.Correlation, ResourceID: "export/" + x.ID,
		Resource: policy.Resource{Type: "Export", ID: x.ID, Attributes: policy.Record{"tenant": x.TenantID, "profile": x.Profile}},
		Details:  map[string]any{"export_id": x.ID, "export_status": x.Status, "bundle_hash": x.BundleHash}}
	_, err = s.gov.Do(ctx, a, func(tx *govern.Tx) error { return finishExport(tx, &x) })
	return err
}

func (s *Service) build(ctx context.Context, x *Export) (bundle.Summary, error) {
	var sum bundle.Summary
	for _, format := range []string{"tar.gz", "zip"} {
		var err error
		if sum, err = s.archive(ctx, x, format); err != nil {
			return sum, fmt.Errorf("write %s: %w", format, err)
		}
	}
	return sum, nil
}

func (s *Service) archive(ctx context.Context, x *Export, format string) (sum bundle.Summary, err error) {
	f, err := os.CreateTemp(s.temp, "export-*")
	if err != nil {
		return sum, storage(err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	defer f.Close()           //nolint:errcheck // closed below on success
	sink, err := bundle.NewTarGz(f)
	if format == "zip" {
		sink, err = bundle.NewZip(f, s.temp)
	}
	if err != nil {
		return sum, err
	}
	params, source, err := s.describe(ctx, x)
	if err != nil {
		return sum, err
	}
	if sum, err = bundle.Write(ctx, sink, params, source); err != nil {
		return sum, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return sum, storage(err)
	}
	return sum, storage(os.Rename(f.Name(), s.path(x, format)))
}

func storage(err error) error {
	if err == nil {
		return nil
	}
	return &kernel.Error{Kind: kernel.Unavailable, Msg: "the export cannot be stored at the moment", Err: err}
}

func (s *Service) path(x *Export, format string) string {
	return filepath.Join(s.dir, x.ID+"."+format)
}

// describe says where the bundle's events, artifacts and proofs come from.
func (s *Service) describe(ctx context.Context, x *Export) (p bundle.Params, src bundle.Source, err error) {
	signer, err := s.log.Signer(ctx, x.TenantID)
	if err != nil {
		return p, src, err
	}
	head, err := s.log.Head(ctx, x.TenantID)
	if err != nil {
		return p, src, err
	}
	checkpoint, _, err := s.log.Checkpoint(ctx, x.TenantID)
	if err != nil {
		return p, src, err
	}
	p = bundle.Params{ExportID: x.ID, CreatedAt: x.CreatedAt, ProviderID: s.log.Provider(), TenantID: x.TenantID, ChainID: evidence.ChainID(x.TenantID),
		Profile: bundle.Profile(x.Profile), ProducerID: "provost", Signer: signer, SigningKey: head.Verifier, TempDir: s.temp}
	src = bundle.Source{Events: s.selected(ctx, x), Artifact: s.opener(x.TenantID),
		Log: &bundle.Log{Key: head.Verifier, Checkpoint: checkpoint, Range: func(ctx context.Context, begin, end uint64) ([][]byte, error) {
			hs, err := s.log.Range(ctx, x.TenantID, int64(begin), int64(end))
			out := make([][]byte, len(hs))
			for i := range hs {
				out[i] = hs[i][:]
			}
			return out, err
		}}}
	return p, src, nil
}

// selected yields the export's events in ascending order.
func (s *Service) selected(ctx context.Context, x *Export) iter.Seq2[[]byte, error] {
	wanted := make(map[string]bool, len(x.eventIDs))
	for _, id := range x.eventIDs {
		wanted[id] = true
	}
	f := evidence.Filter{FromSequence: x.Scope.From, ToSequence: x.Scope.To, Correlation: x.Correlation}
	return func(yield func([]byte, error) bool) {
		for after := int64(0); ; {
			page, more, err := s.log.List(ctx, x.TenantID, f, after, 1000)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page {
				after = e.Sequence
				if len(wanted) > 0 {
					if env, err := parse(e.Event); err != nil || !wanted[env.ID] {
						continue
					}
				}
				if !yield(e.Event, nil) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// opener resolves pointers within one tenant.
func (s *Service) opener(tenant string) func(context.Context, string) (io.ReadCloser, int64, error) {
	return func(ctx context.Context, pointer string) (io.ReadCloser, int64, error) {
		body, err := s.resolve(ctx, tenant, pointer)
		if err != nil {
			return nil, 0, err
		}
		return io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
}

func (s *Service) bundle(c *route.Call) (any, error) {
	if err := c.OnlyQuery("format"); err != nil {
		return nil, err
	}
	format, err := c.Query("format")
	if err != nil {
		return nil, err
	}
	mediaType := map[string]string{"": "application/gzip", "tar.gz": "application/gzip", "zip": "application/zip"}[format]
	if mediaType == "" {
		return nil, kernel.InvalidField("format", "is %q, want tar.gz or zip", format)
	}
	if format == "" {
		format = "tar.gz"
	}
	x, err := s.visible(c)
	if err != nil {
		return nil, err
	}
	if x.Status != "ready" {
		return nil, &kernel.Error{Kind: kernel.Conflict, Code: "ECS_EXPORT_NOT_READY", Msg: "this export is " + x.Status, Fix: "GET /v1/exports/" + x.ID + " until it is ready"}
	}
	f, err := os.Open(s.path(&x, format))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &kernel.Error{Kind: kernel.Gone, Code: "ECS_EXPORT_GONE", Msg: "this bundle is no longer kept", Fix: "export again: the log still has its events"}
	}
	if err != nil {
		return nil, storage(err)
	}
	defer f.Close()
	h := c.W.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Disposition", `attachment; filename="`+x.TenantID+"-"+x.ID+"."+format+`"`)
	http.ServeContent(c.W, c.R, "", x.CreatedAt, f)
	return route.Written, nil
}

// visible returns the export a path names, when the caller may see it.
func (s *Service) visible(c *route.Call) (Export, error) {
	id := c.Path("id")
	if err := s.check(c, "export.read", "Export", "export/"+id, nil); err != nil {
		return Export{}, err
	}
	return s.readExport(c.R.Context(), c.Principal.Tenant, id)
}

func (s *Service) getExport(c *route.Call) (any, error) { return s.visible(c) }

func (s *Service) listExports(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	after, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	if err := s.check(c, "export.read", "Export", "", nil); err != nil {
		return nil, err
	}
	p := route.Page[Export]{Items: []Export{}}
	err = s.db.View(c.R.Context(), c.Principal.Tenant, func(q store.Q) error {
		xs, err := store.All(q, scanExport, `SELECT `+exportColumns+` FROM exports WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`, c.Principal.Tenant, after, limit+1)
		if len(xs) > limit {
			xs = xs[:limit]
			p.NextCursor = route.Cursor(xs[limit-1].ID)
		}
		p.Items = append(p.Items, xs...)
		return err
	})
	return p, err
}

const exportColumns = `tenant, id, profile, correlation, from_seq, to_seq, event_ids, status, reason, bundle_hash, events, created_by, created_at`

func insertExport(q store.Q, x *Export) error {
	ids, err := json.Marshal(x.eventIDs)
	if err != nil {
		return err
	}
	_, err = q.Exec(`INSERT INTO exports (`+exportColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`, x.TenantID, x.ID, x.Profile,
		x.Correlation, x.Scope.From, x.Scope.To, string(ids), x.Status, x.Reason, x.BundleHash, x.Events, x.CreatedBy, store.Micros(x.CreatedAt))
	if err != nil {
		return fmt.Errorf("insert export: %w", err)
	}
	return nil
}

func finishExport(q store.Q, x *Export) error {
	n, err := q.Exec(`UPDATE exports SET status = $3, reason = $4, bundle_hash = $5, events = $6, from_seq = $7, to_seq = $8
		WHERE tenant = $1 AND id = $2 AND status = 'pending'`, x.TenantID, x.ID, x.Status, x.Reason, x.BundleHash, x.Events, x.Scope.From, x.Scope.To)
	if err == nil && n == 0 {
		return &kernel.Error{Kind: kernel.Conflict, Msg: "this export was finished already"}
	}
	return err
}

func scanExport(r *sql.Rows) (x Export, err error) {
	x.Scope = &Scope{}
	var ids string
	var at int64
	if err := r.Scan(&x.TenantID, &x.ID, &x.Profile, &x.Correlation, &x.Scope.From, &x.Scope.To, &ids, &x.Status, &x.Reason, &x.BundleHash, &x.Events, &x.CreatedBy, &at); err != nil {
		return x, err
	}
	x.CreatedAt = store.Time(at)
	return x, json.Unmarshal([]byte(ids), &x.eventIDs)
}

func (s *Service) readExport(ctx context.Context, tenant, id string) (x Export, err error) {
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		xs, err := store.All(q, scanExport, `SELECT `+exportColumns+` FROM exports WHERE tenant = $1 AND id = $2`, tenant, id)
		if err != nil {
			return err
		}
		if len(xs) == 0 {
			return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_EXPORT_NOT_FOUND", Msg: "no export " + strconv.Quote(id)}
		}
		x = xs[0]
		return nil
	})
	return x, err
}
