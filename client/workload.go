package client

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Workload is something that runs, or ran.
type Workload struct {
	Object
	ID             string            `json:"id"`
	TenantID       string            `json:"tenant_id"`
	Name           string            `json:"name"`
	EnvelopeType   string            `json:"envelope_type"` // container or vm
	ImageRef       string            `json:"image_ref"`
	ImageDigest    string            `json:"image_digest"`
	PolicyRef      string            `json:"policy_ref"`
	Command        []string          `json:"command"`
	Env            map[string]string `json:"env"`
	Resources      Resources         `json:"resources"`
	Restart        string            `json:"restart"`
	Jurisdiction   string            `json:"jurisdiction"`
	Classification string            `json:"classification"`
	Status         string            `json:"status"` // pending, running, stopped, failed or terminated
	StatusReason   string            `json:"status_reason"`
	ExitCode       *int              `json:"exit_code"`
	Placement      json.RawMessage   `json:"placement"`
	CreatedAt      time.Time         `json:"created_at"`
}

// Resources are a workload's limits; 0 is the server's default.
type Resources struct {
	CPUMillis   int64 `json:"cpu_millis,omitempty"`
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	PIDs        int64 `json:"pids,omitempty"`
}

// WorkloadSpec is a workload to create. Envelope and image are required.
type WorkloadSpec struct {
	EnvelopeType   string            `json:"envelope_type"`
	ImageRef       string            `json:"image_ref"`
	Name           string            `json:"name,omitempty"`
	PolicyRef      string            `json:"policy_ref,omitempty"`
	Command        []string          `json:"command,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	Resources      *Resources        `json:"resources,omitempty"`
	Restart        string            `json:"restart,omitempty"` // never, on-failure or always
	Jurisdiction   string            `json:"jurisdiction,omitempty"`
	Classification string            `json:"classification,omitempty"`
}

// Workloads is /v1/workloads.
type Workloads struct{ c *Client }

// Create asks for a workload to run. It is admitted or refused before Create
// returns, and started afterwards; see Wait.
func (s Workloads) Create(ctx context.Context, spec WorkloadSpec) (w Workload, r Receipt, err error) {
	r, err = s.c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "workloads"}, in: spec, out: &w})
	return w, r, err
}

// Get returns a workload as it is now.
func (s Workloads) Get(ctx context.Context, id string) (w Workload, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "workloads", id}, out: &w})
	return w, err
}

// List walks the tenant's workloads.
func (s Workloads) List(ctx context.Context) iter.Seq2[Workload, error] {
	return list[Workload](ctx, s.c, nil, 0, "v1", "workloads")
}

// Delete stops a workload for good.
func (s Workloads) Delete(ctx context.Context, id string) (Receipt, error) {
	return s.c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "workloads", id}})
}

// Wait asks for the workload until it is no longer pending or ctx ends. The
// waits between grow from 50 milliseconds to one second.
func (s Workloads) Wait(ctx context.Context, id string) (Workload, error) {
	return poll(ctx, s.c, func(ctx context.Context) (Workload, bool, error) {
		w, err := s.Get(ctx, id)
		return w, w.Status != "pending", err
	})
}

// poll calls get until it is done, waiting a little longer each time.
func poll[T any](ctx context.Context, c *Client, get func(context.Context) (v T, done bool, err error)) (T, error) {
	for attempt := 0; ; attempt++ {
		v, done, err := get(ctx)
		if err != nil || done {
			return v, err
		}
		if err := c.pause(ctx, backoff(attempt, 100*time.Millisecond, time.Second)); err != nil {
			return v, err
		}
	}
}

// LogOptions choose which part of a workload's output to read.
type LogOptions struct {
	Follow bool // go on until the workload ends
	Tail   int  // only the last lines; 0 is all
}

// Logs streams a workload's output as text. The caller closes it.
func (s Workloads) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	query := url.Values{}
	if o.Follow {
		query.Set("follow", "true")
	}
	if o.Tail > 0 {
		query.Set("tail", strconv.Itoa(o.Tail))
	}
	resp, err := s.c.open(ctx, call{method: http.MethodGet, path: []string{"v1", "workloads", id, "logs"}, query: query, accept: "text/plain"})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
