package audit

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/route"
)

var filterParams = []route.Param{{Name: "tenant", Doc: "the caller's own"}, {Name: "event_type"}, {Name: "outcome", Doc: "accepted, refused or failed"},
	{Name: "actor", Doc: "name or name@tenant"}, {Name: "resource_id"}, {Name: "correlation_id"}, {Name: "from", Doc: "RFC 3339, included"},
	{Name: "to", Doc: "RFC 3339, excluded"}, {Name: "from_sequence"}, {Name: "to_sequence"}}

var filterNames = []string{"tenant", "event_type", "outcome", "actor", "resource_id", "correlation_id", "from", "to", "from_sequence", "to_sequence"}

const plainText = "text/plain; charset=utf-8"

// Routes is the plane's HTTP surface.
func (s *Service) Routes() []route.Route {
	pages := []route.Param{{Name: "limit", Doc: "items per page, up to 1000"}, {Name: "cursor", Doc: "next_cursor of the page before"}}
	r := []route.Route{
		{Method: "GET", Path: "/v1/events", Verb: "event.list", Summary: "List events in the order of the chain", Query: append(filterParams, pages...), Out: eventPage{}, Handle: s.list},
		{Method: "GET", Path: "/v1/events/stream", Verb: "event.list", Summary: "Follow events as they happen (server-sent events)", Query: filterParams, Out: route.Raw{ContentType: "text/event-stream"}, Handle: s.stream},
		{Method: "GET", Path: "/v1/events/{id}", Verb: "event.read", Summary: "Get an event", Out: event{}, Handle: s.get},
		{Method: "GET", Path: "/v1/events/{id}/proof", Verb: "event.read", Summary: "Prove that an event is in the log", Out: Proof{}, Handle: s.proof},
		{Method: "GET", Path: "/events/{channel}", Verb: "event.list", Summary: "Subscribe to a channel over WebSocket: audit, tenant or workload",
			Status: http.StatusSwitchingProtocols, Handle: s.channel},
		{Method: "GET", Path: "/v1/log/{tenant}/checkpoint", Verb: "log.read", Summary: "The newest signed checkpoint", Out: route.Raw{ContentType: plainText}, Handle: s.checkpoint},
		{Method: "GET", Path: "/v1/log/{tenant}/key", Verb: "log.read", Summary: "The verifier key of the log's checkpoints", Out: route.Raw{ContentType: plainText}, Handle: s.key},
		{Method: "GET", Path: "/v1/log/{tenant}/consistency", Verb: "log.read", Summary: "Prove that one size of the log is a prefix of another",
			Query: []route.Param{{Name: "from", Doc: "tree size"}, {Name: "to", Doc: "tree size; the log's when absent"}}, Out: Consistency{}, Handle: s.consistency},
		{Method: "GET", Path: "/v1/log/{tenant}/tile/{path...}", Verb: "log.read", Summary: "A tile of the log (C2SP tlog-tiles)",
			Out: route.Raw{ContentType: "application/octet-stream"}, Handle: s.tile},
		{Method: "GET", Path: "/v1/evidence/{digest}", Verb: "event.read", Summary: "The evidence artifact an event points to",
			Out: route.Raw{ContentType: "application/json"}, Handle: s.evidence},
		{Method: "GET", Path: "/v1/artifacts/{digest}", Verb: "artifact.read", Summary: "Content-addressed bytes that events rest on", Handle: s.artifact},
		{Method: "POST", Path: "/v1/exports", Verb: "export.create", Summary: "Export events as a bundle", In: ExportRequest{}, Out: Export{}, Status: 202, Handle: s.postExport},
		{Method: "GET", Path: "/v1/exports", Verb: "export.read", Summary: "List exports", Query: pages, Out: route.Page[Export]{}, Handle: s.listExports},
		{Method: "GET", Path: "/v1/exports/{id}", Verb: "export.read", Summary: "Get an export", Out: Export{}, Handle: s.getExport},
		{Method: "GET", Path: "/v1/exports/{id}/bundle", Verb: "export.read", Summary: "Download a finished bundle",
			Query: []route.Param{{Name: "format", Doc: "tar.gz or zip"}}, Handle: s.bundle},
		{Method: "POST", Path: "/v1/policies/test", Verb: "policy.test", Summary: "What a proposed policy would have decided otherwise", In: PolicyTest{}, Out: PolicyTestResult{}, Handle: s.testPolicy},
		{Method: "GET", Path: "/v1/why", Verb: "event.list", Summary: "Explain why something is as it is", Query: []route.Param{{Name: "subject", Doc: "workload/ID, an image's sha256 digest, event/ID or tenant/ID"}}, Out: Reason{}, Handle: s.why},
		{Method: "GET", Path: "/v1/federation/claims", Verb: "claims.read", Summary: "What this platform claims to do",
			Out: route.Raw{ContentType: "application/json"}, Handle: s.claims},
	}
	for i := range r {
		r[i].Family = route.Interop
	}
	return r
}

// event and eventPage document what is written as it stands in the log.
type event struct{}

// JSONSchema says where the documentation describes events.
func (event) JSONSchema() string { return `{"$ref": "#/components/schemas/Event"}` }

type eventPage struct {
	Items      []event `json:"items"`
	NextCursor string  `json:"next_cursor,omitempty"`
}

// filter reads the query's conditions.
func filter(c *route.Call) (f evidence.Filter, err error) {
	text := func(name string, dst *string) {
		if err == nil {
			*dst, err = c.Query(name)
		}
	}
	var tenant, outcome string
	text("tenant", &tenant)
	text("event_type", &f.Type)
	text("actor", &f.Actor)
	text("resource_id", &f.Resource)
	text("correlation_id", &f.Correlation)
	text("outcome", &outcome)
	if err != nil {
		return f, err
	}
	if f.Actor != "" && !strings.Contains(f.Actor, "@") {
		f.Actor += "@" + c.Principal.Tenant
	}
	if tenant != "" && tenant != c.Principal.Tenant {
		return f, &kernel.Error{Kind: kernel.NotFound, Msg: "there is no log of that tenant for you", Fix: "a log is read with its own tenant's token"}
	}
	if outcome != "" {
		o, ok := evidence.ParseOutcome(outcome)
		if !ok {
			return f, kernel.InvalidField("outcome", "is %q, want accepted, refused or failed", outcome)
		}
		f.Outcome = o
	}
	if f.From, err = c.Time("from"); err != nil {
		return f, err
	}
	if f.To, err = c.Time("to"); err != nil {
		return f, err
	}
	if f.FromSequence, err = c.Int("from_sequence", 0, 0, 1<<40-1); err != nil {
		return f, err
	}
	f.ToSequence, err = c.Int("to_sequence", 0, 0, 1<<40-1)
	return f, err
}

func (s *Service) list(c *route.Call) (any, error) {
	if err := c.OnlyQuery(append(filterNames, "limit", "cursor")...); err != nil {
		return nil, err
	}
	f, err := filter(c)
	if err != nil {
		return nil, err
	}
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	cursor, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	after := int64(0)
	if cursor != "" {
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil || after < 0 {
			return nil, kernel.InvalidField("cursor", "is not one that this list returned")
		}
	}
	if err := s.check(c, "event.list", "Event", "", nil); err != nil {
		return nil, err
	}
	events, more, err := s.log.List(c.R.Context(), c.Principal.Tenant, f, after, limit)
	if err != nil {
		return nil, err
	}
	return route.Raw{ContentType: "application/json", Body: pageJSON(events, more)}, nil
}

// pageJSON writes the events as they stand in the log: what is listed is byte
// for byte what was hashed.
func pageJSON(events []evidence.Stored, more bool) []byte {
	size := 64
	for _, e := range events {
		size += len(e.Event) + 1
	}
	b := append(make([]byte, 0, size), `{"items":[`...)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.Event...)
	}
	b = append(b, ']')
	if more {
		b = append(b, `,"next_cursor":"`...)
		b = append(b, route.Cursor(strconv.FormatInt(events[len(events)-1].Sequence, 10))...)
		b = append(b, '"')
	}
	return append(b, "}\n"...)
}

func (s *Service) get(c *route.Call) (any, error) {
	stored, _, err := s.find(c.R.Context(), c, c.Path("id"))
	if err != nil {
		return nil, err
	}
	return route.Raw{ContentType: "application/json", Body: stored.Event}, nil
}

// Proof is an inclusion proof's wire form.
type Proof struct {
	LeafIndex  int64    `json:"leaf_index"`
	TreeSize   int64    `json:"tree_size"`
	LeafHash   string   `json:"leaf_hash"`
	Hashes     []string `json:"hashes"`
	Checkpoint string   `json:"checkpoint"`
	LogKey     string   `json:"log_key"`
}

func (s *Service) proof(c *route.Call) (any, error) {
	ctx := c.R.Context()
	stored, e, err := s.find(ctx, c, c.Path("id"))
	if err != nil {
		return nil, err
	}
	p, err := s.log.Prove(ctx, e.Tenant, stored.Sequence)
	if err != nil {
		return nil, err
	}
	head, err := s.log.Head(ctx, e.Tenant)
	if err != nil {
		return nil, err
	}
	return Proof{LeafIndex: p.LeafIndex, TreeSize: p.TreeSize, LeafHash: base64.StdEncoding.EncodeToString(p.LeafHash[:]),
		Hashes: encodeHashes(p.Hashes), Checkpoint: string(p.Checkpoint), LogKey: head.Verifier}, nil
}

func encodeHashes(hs []evidence.Hash) []string {
	out := make([]string, len(hs))
	for i := range hs {
		out[i] = base64.StdEncoding.EncodeToString(hs[i][:])
	}
	return out
}

// own checks that the path's tenant is the caller's and that it may read the log.
func (s *Service) own(c *route.Call) (tenant string, err error) {
	tenant = c.Path("tenant")
	if tenant != c.Principal.Tenant {
		return "", &kernel.Error{Kind: kernel.NotFound, Msg: "there is no log of that tenant for you", Fix: "a log is read with its own tenant's token"}
	}
	return tenant, s.check(c, "log.read", "Log", "log/"+tenant, nil)
}

func (s *Service) checkpoint(c *route.Call) (any, error) {
	tenant, err := s.own(c)
	if err != nil {
		return nil, err
	}
	cp, _, err := s.log.Checkpoint(c.R.Context(), tenant)
	if err != nil {
		return nil, err
	}
	c.W.Header().Set("Cache-Control", "no-cache")
	return route.Raw{ContentType: plainText, Body: cp}, nil
}

func (s *Service) key(c *route.Call) (any, error) {
	tenant, err := s.own(c)
	if err != nil {
		return nil, err
	}
	h, err := s.log.Head(c.R.Context(), tenant)
	if err != nil {
		return nil, err
	}
	return route.Raw{ContentType: plainText, Body: []byte(h.Verifier + "\n")}, nil
}

// Consistency is a consistency proof's wire form.
type Consistency struct {
	From   int64    `json:"from"`
	To     int64    `json:"to"`
	Hashes []string `json:"hashes"`
}

func (s *Service) consistency(c *route.Call) (any, error) {
	tenant, err := s.own(c)
	if err != nil {
		return nil, err
	}
	h, err := s.log.Head(c.R.Context(), tenant)
	if err != nil {
		return nil, err
	}
	from, err := c.Int("from", 0, 1, 1<<40)
	if err != nil {
		return nil, err
	}
	to, err := c.Int("to", h.Size, 1, 1<<40)
	if err != nil {
		return nil, err
	}
	hs, err := s.log.Consistency(c.R.Context(), tenant, from, to)
	if err != nil {
		return nil, err
	}
	return Consistency{From: from, To: to, Hashes: encodeHashes(hs)}, nil
}

// tile serves tiles and entry bundles. They never change, except that a
// partial one is one day replaced by the full one under another name.
func (s *Service) tile(c *route.Call) (any, error) {
	tenant, err := s.own(c)
	if err != nil {
		return nil, err
	}
	id, err := parseTilePath(c.Path("path"))
	if err != nil {
		return nil, err
	}
	var body []byte
	if id.entries {
		body, err = s.log.Entries(c.R.Context(), tenant, id.index, id.width)
	} else {
		body, err = s.log.Tile(c.R.Context(), tenant, id.level, id.index, id.width)
	}
	if err != nil {
		return nil, err
	}
	c.W.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	return route.Raw{ContentType: "application/octet-stream", Body: body}, nil
}

func (s *Service) evidence(c *route.Call) (any, error) {
	body, e, err := s.evidenceOf(c.R.Context(), c, c.Path("digest"))
	if err != nil {
		return nil, err
	}
	h := c.W.Header()
	h.Set("X-Event-ID", e.ID)
	pointerHeaders(h, e.Tenant, c.Path("digest"))
	return route.Raw{ContentType: "application/json", Body: body}, nil
}

func (s *Service) artifact(c *route.Call) (any, error) {
	digest := c.Path("digest")
	if err := s.check(c, "artifact.read", "Artifact", "artifact/"+digest, nil); err != nil {
		return nil, err
	}
	a, err := s.log.Artifact(c.R.Context(), c.Principal.Tenant, digest)
	if err != nil {
		return nil, err
	}
	pointerHeaders(c.W.Header(), c.Principal.Tenant, digest)
	c.W.Header().Set("X-Artifact-Kind", a.Kind)
	return route.Raw{ContentType: a.MediaType, Body: a.Bytes}, nil
}

// pointerHeaders carry evidence_pointer_metadata (ecs.md §4.5).
func pointerHeaders(h http.Header, tenant, digest string) {
	h.Set("X-Evidence-Retrievability", "online")
	h.Set("X-Evidence-Tenant", tenant)
	h.Set("ETag", `"`+digest+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
}
