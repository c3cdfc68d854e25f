// Package audit is the plane of reading what happened: events and their
// proofs, live streams, the log's tiles, artifacts by digest, and export
// bundles that a stranger verifies offline.
package audit

import (
	"context"
	"encoding/json"
	"log/slog"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/bus"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store"
)

// Service is the plane.
type Service struct {
	db     *store.DB
	log    *evidence.Log
	gov    *govern.Governor
	bus    *bus.Bus
	schema *policy.Schema
	system *identity.Principal
	dir    string // of finished bundles
	temp   string
	logger *slog.Logger
	// stop ends streams when the server drains.
	stop    <-chan struct{}
	outages outages
}

// Config is what the plane needs.
type Config struct {
	DB     *store.DB
	Log    *evidence.Log
	Gov    *govern.Governor
	Bus    *bus.Bus
	Schema *policy.Schema
	System *identity.Principal
	// Dir keeps finished bundles, Temp what is under way; both exist.
	Dir, Temp string
	Logger    *slog.Logger
	// Stop ends streams when it is closed.
	Stop <-chan struct{}
}

// New makes the plane and registers its jobs.
func New(cfg Config, queue *jobs.Queue) *Service {
	s := &Service{db: cfg.DB, log: cfg.Log, gov: cfg.Gov, bus: cfg.Bus, schema: cfg.Schema, system: cfg.System, dir: cfg.Dir, temp: cfg.Temp, logger: cfg.Logger, stop: cfg.Stop}
	queue.Handle(exportJob, s.runExport)
	return s
}

// envelope is what this plane reads of an event.
type envelope struct {
	ID            string          `json:"id"`
	Type          string          `json:"event_type"`
	OccurredAt    string          `json:"occurred_at"`
	Tenant        string          `json:"tenant_id"`
	Actor         string          `json:"actor"`
	Sequence      int64           `json:"sequence"`
	Outcome       string          `json:"outcome"`
	Pointer       string          `json:"evidence_pointer"`
	Correlation   string          `json:"correlation_id"`
	Resource      string          `json:"resource_id"`
	Action        string          `json:"action"`
	Authority     string          `json:"authority_snapshot_id"`
	Policy        string          `json:"policy_snapshot_id"`
	Hash          string          `json:"event_hash"`
	Payload       json.RawMessage `json:"payload"`
	RefusalCode   string          `json:"refusal_reason_code"`
	RefusalReason string          `json:"refusal_reason"`
	ImageDigest   string          `json:"image_digest"`
}

func parse(line []byte) (e envelope, err error) {
	if err := json.Unmarshal(line, &e); err != nil {
		return e, &kernel.Error{Kind: kernel.Internal, Msg: "an event in the log is not readable", Err: err}
	}
	return e, nil
}

// check decides a read in the caller's own tenant.
func (s *Service) check(c *route.Call, verb, typ, id string, attrs policy.Record) error {
	return s.gov.Check(c.R.Context(), s.reading(c, verb, typ, id, attrs))
}

func (s *Service) reading(c *route.Call, verb, typ, id string, attrs policy.Record) govern.Action {
	if attrs == nil {
		attrs = policy.Record{}
	}
	attrs["tenant"] = c.Principal.Tenant
	a := c.Action(verb)
	a.Resource = policy.Resource{Type: typ, ID: id, Attributes: attrs}
	a.ResourceID = "event"
	if id != "" {
		a.ResourceID = id
	}
	return a
}

// find returns an event that the caller may see: of its own tenant by policy,
// of any log when the caller itself caused it (design: who gets an X-Event-ID
// may read that event), and what the door recorded of callers it did not know.
func (s *Service) find(ctx context.Context, c *route.Call, id string) (evidence.Stored, envelope, error) {
	own, err := s.log.Get(ctx, c.Principal.Tenant, id)
	if err == nil {
		e, err := parse(own.Event)
		if err != nil {
			return own, e, err
		}
		return own, e, s.check(c, "event.read", "Event", "event/"+id, policy.Record{"actor": e.Actor})
	}
	if kernel.KindOf(err) != kernel.NotFound {
		return own, envelope{}, err
	}
	tenant, err := s.log.Locate(ctx, id)
	if err != nil {
		return own, envelope{}, err
	}
	far, err := s.log.Get(ctx, tenant, id)
	if err != nil {
		return far, envelope{}, err
	}
	e, err := parse(far.Event)
	if err != nil {
		return far, e, err
	}
	if !mine(c.Principal, e) {
		return evidence.Stored{}, envelope{}, &kernel.Error{Kind: kernel.NotFound, Msg: "no such event"}
	}
	return far, e, nil
}

func mine(p *identity.Principal, e envelope) bool {
	return e.Actor == p.ID() || e.Actor == "anonymous@"+identity.SystemTenant
}

// evidenceOf finds the evidence artifact with a digest, by the same rule.
func (s *Service) evidenceOf(ctx context.Context, c *route.Call, digest string) ([]byte, envelope, error) {
	body, stored, err := s.log.Evidence(ctx, c.Principal.Tenant, digest)
	if err == nil {
		e, err := parse(stored.Event)
		if err != nil {
			return nil, e, err
		}
		return body, e, s.check(c, "event.read", "Event", "event/"+e.ID, policy.Record{"actor": e.Actor})
	}
	if kernel.KindOf(err) != kernel.NotFound {
		return nil, envelope{}, err
	}
	elsewhere := []string{identity.SystemTenant}
	if c.Principal.Platform() {
		if elsewhere, err = s.log.Tenants(ctx); err != nil {
			return nil, envelope{}, err
		}
	}
	for _, tenant := range elsewhere {
		body, stored, ferr := s.log.Evidence(ctx, tenant, digest)
		if ferr != nil {
			if kernel.KindOf(ferr) == kernel.NotFound {
				continue
			}
			return nil, envelope{}, ferr
		}
		if e, perr := parse(stored.Event); perr == nil && mine(c.Principal, e) {
			return body, e, nil
		}
	}
	return nil, envelope{}, &kernel.Error{Kind: kernel.NotFound, Msg: "no such artifact in this tenant"}
}
