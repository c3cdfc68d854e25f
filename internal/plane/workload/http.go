package workload

import (
	"net/http"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store"
)

// Routes is the plane's HTTP surface.
func (s *Service) Routes() []route.Route {
	pages := []route.Param{{Name: "status", Doc: "only this status"}, {Name: "limit", Doc: "items per page, up to 1000"}, {Name: "cursor", Doc: "next_cursor of the page before"}}
	r := []route.Route{
		{Method: "POST", Path: "/v1/workloads", Verb: "workload.create", Summary: "Run something: admitted or refused by policy", In: createWorkload{}, Out: Workload{}, Status: 201, Handle: s.post},
		{Method: "GET", Path: "/v1/workloads", Verb: "workload.list", Summary: "List workloads", Query: pages, Out: route.Page[Workload]{}, Handle: s.list},
		{Method: "GET", Path: "/v1/workloads/{id}", Verb: "workload.read", Summary: "Get a workload", Out: Workload{}, Handle: s.get},
		{Method: "DELETE", Path: "/v1/workloads/{id}", Verb: "workload.delete", Summary: "Stop and remove a workload", Status: 204, Handle: s.delete},
		{Method: "GET", Path: "/v1/workloads/{id}/logs", Verb: "workload.read", Summary: "What a workload wrote",
			Query: []route.Param{{Name: "follow", Doc: "keep reading until it ends"}, {Name: "tail", Doc: "only the last N lines"}},
			Out:   route.Raw{ContentType: "text/plain; charset=utf-8"}, Handle: s.logs},
	}
	for i := range r {
		r[i].Family = route.Interop
	}
	return r
}

type createWorkload struct {
	TenantID       string            `json:"tenant_id,omitempty"`
	Name           string            `json:"name,omitempty"`
	EnvelopeType   string            `json:"envelope_type"`
	ImageRef       string            `json:"image_ref"`
	PolicyRef      string            `json:"policy_ref,omitempty"`
	Command        []string          `json:"command,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	Resources      Resources         `json:"resources,omitzero"`
	Restart        string            `json:"restart,omitempty"`
	Jurisdiction   string            `json:"jurisdiction,omitempty"`
	Classification string            `json:"classification,omitempty"`
	Ports          []int             `json:"ports,omitempty"`
}

func (s *Service) post(c *route.Call) (any, error) {
	var in createWorkload
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	if len(in.Ports) > 0 {
		return nil, invalid("ports", "cannot be published: workloads have no network but their own loopback in this version")
	}
	w, receipt, err := s.Create(c.R.Context(), c.Action("workload.create"), Workload{TenantID: in.TenantID, Name: in.Name, EnvelopeType: in.EnvelopeType, ImageRef: in.ImageRef,
		PolicyRef: in.PolicyRef, Command: in.Command, Env: in.Env, Resources: in.Resources, Restart: in.Restart, Jurisdiction: in.Jurisdiction, Classification: in.Classification})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/workloads/" + w.ID)
	return w, nil
}

// visible returns the path's workload when the caller may read it.
func (s *Service) visible(c *route.Call) (Workload, error) {
	id, tenant := c.Path("id"), c.Principal.Tenant
	a := c.Action("workload.read")
	a.Resource = policy.Resource{Type: "Workload", ID: id, Attributes: policy.Record{"tenant": tenant}}
	a.ResourceID = "workload/" + id
	if err := s.gov.Check(c.R.Context(), a); err != nil {
		return Workload{}, err
	}
	return s.Get(c.R.Context(), tenant, id)
}

func (s *Service) get(c *route.Call) (any, error) { return s.visible(c) }

func (s *Service) list(c *route.Call) (any, error) {
	if err := c.OnlyQuery("status", "limit", "cursor"); err != nil {
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
	status, err := c.Query("status")
	if err != nil {
		return nil, err
	}
	tenant := c.Principal.Tenant
	a := c.Action("workload.list")
	a.Resource, a.ResourceID = policy.Resource{Type: "Workload", Attributes: policy.Record{"tenant": tenant}}, "workload/"
	if err := s.gov.Check(c.R.Context(), a); err != nil {
		return nil, err
	}
	p := route.Page[Workload]{Items: []Workload{}}
	err = s.db.View(c.R.Context(), tenant, func(q store.Q) error {
		ws, err := store.All(q, scan, `SELECT `+columns+` FROM workloads WHERE tenant = $1 AND id > $2 AND ($3 = '' OR status = $3) AND status <> 'terminated' ORDER BY id LIMIT $4`,
			tenant, after, status, limit+1)
		if len(ws) > limit {
			ws = ws[:limit]
			p.NextCursor = route.Cursor(ws[limit-1].ID)
		}
		p.Items = append(p.Items, ws...)
		return err
	})
	return p, err
}

func (s *Service) delete(c *route.Call) (any, error) {
	receipt, err := s.Delete(c.R.Context(), c.Action("workload.delete"), c.Path("id"))
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	return nil, nil
}

// logs streams what the workload's newest run wrote, line by line.
func (s *Service) logs(c *route.Call) (any, error) {
	if err := c.OnlyQuery("follow", "tail"); err != nil {
		return nil, err
	}
	tail, err := c.Int("tail", 0, 0, 1_000_000)
	if err != nil {
		return nil, err
	}
	follow := c.R.URL.Query().Has("follow") && c.R.URL.Query().Get("follow") != "false"
	w, err := s.visible(c)
	if err != nil {
		return nil, err
	}
	c.W.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.W.Header().Set("Cache-Control", "no-store")
	if s.driver == nil {
		return route.Raw{ContentType: "text/plain; charset=utf-8"}, nil
	}
	r, err := s.driver.Logs(c.R.Context(), w.container(), runtime.LogOptions{Follow: follow, Tail: int(tail)})
	if kernel.KindOf(err) == kernel.NotFound && err != nil {
		return route.Raw{ContentType: "text/plain; charset=utf-8"}, nil // it has not started yet, or its host lost it
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c.W.WriteHeader(http.StatusOK)
	copyLog(c.W, r)
	return route.Written, nil
}

// copyLog writes a log until its end, or until either side goes away: what was
// sent stands, and there is no one left to tell.
func copyLog(w http.ResponseWriter, r LogReader) {
	rc := http.NewResponseController(w)
	var buf []byte
	for {
		entries, err := r.Next()
		if err != nil {
			return
		}
		buf = buf[:0]
		for _, e := range entries {
			buf = append(buf, e.Data...)
			if !e.Partial {
				buf = append(buf, '\n')
			}
		}
		if rc.SetWriteDeadline(time.Now().Add(30*time.Second)) != nil {
			return
		}
		if _, err := w.Write(buf); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
	}
}
