package telemetry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape reads the metrics as a Prometheus does.
func scrape(t testing.TB, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("scrape: status %d, %s\n%s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatalf("parse metrics: %v", err)
	}
	return families
}

// find returns the one series of a family with these labels, and no others.
func find(t testing.TB, families map[string]*dto.MetricFamily, name string, labels map[string]string) *dto.Metric {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		got := map[string]string{}
		for _, l := range m.Label {
			got[l.GetName()] = l.GetValue()
		}
		if maps.Equal(got, labels) {
			return m
		}
	}
	t.Fatalf("no %s%v in:\n%v", name, labels, families[name])
	return nil
}

func TestHTTPMetrics(t *testing.T) {
	tel, _ := start(t, Config{})
	for _, r := range []Request{
		{"GET /v1/tenants/{id}", "GET", 200, 3 * time.Millisecond},
		{"GET /v1/tenants/{id}", "GET", 200, 300 * time.Millisecond},
		{"GET /v1/tenants/{id}", "GET", 404, time.Millisecond},
		{"GET /v1/tenants/{id}", "GET", 503, time.Second},
		{"/v2/", "PUT", 201, time.Second},
		{"/", "GET", 404, 0},
		{"", "BREW", 404, 0},
		{"GET /events/{channel}", "GET", 0, time.Minute},
	} {
		tel.Metrics.HTTP(r)
	}
	f := scrape(t, tel)
	for _, c := range []struct {
		handler, method, code string
		n                     float64
	}{
		{"/v1/tenants/{id}", "GET", "200", 2}, {"/v1/tenants/{id}", "GET", "404", 1}, {"/v1/tenants/{id}", "GET", "503", 1},
		{"/v2/", "PUT", "201", 1}, {"unmatched", "GET", "404", 1}, {"unmatched", "other", "404", 1}, {"/events/{channel}", "GET", "0", 1},
	} {
		m := find(t, f, "openmcp_http_requests_total", map[string]string{"handler": c.handler, "method": c.method, "code": c.code})
		if m.Counter.GetValue() != c.n {
			t.Errorf("requests of %s %s %s: %v, want %v", c.method, c.handler, c.code, m.Counter.GetValue(), c.n)
		}
	}
	here := map[string]string{"handler": "/v1/tenants/{id}", "method": "GET"}
	if n := find(t, f, "openmcp_http_request_errors_total", here).Counter.GetValue(); n != 1 {
		t.Errorf("errors: %v, want the 503 alone", n)
	}
	if n := find(t, f, "openmcp_http_request_errors_total", map[string]string{"handler": "/v2/", "method": "PUT"}).Counter.GetValue(); n != 0 {
		t.Errorf("errors of a route without any: %v, want 0", n)
	}
	h := find(t, f, "openmcp_http_request_duration_seconds", here).Histogram
	if h.GetSampleCount() != 4 || h.GetSampleSum() < 1.303 || h.GetSampleSum() > 1.305 {
		t.Errorf("durations: %d of %v s in all, want 4 of 1.304", h.GetSampleCount(), h.GetSampleSum())
	}
	bounds := map[float64]uint64{}
	for _, b := range h.Bucket {
		bounds[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	for le, want := range map[float64]uint64{0.001: 1, 0.005: 2, 0.05: 2, 0.1: 2, 0.25: 2, 0.5: 3, 1: 4, 2.5: 4, 5: 4, 10: 4} {
		if got, ok := bounds[le]; !ok || got != want {
			t.Errorf("bucket %v holds %d (there: %v), want %d", le, got, ok, want)
		}
	}
}

func TestOtherMetrics(t *testing.T) {
	tel, _ := start(t, Config{})
	m := tel.Metrics
	m.Commit(7, 2*time.Millisecond)
	m.Decision(true)
	m.Decision(true)
	m.Decision(false)
	m.Events(5, 2, 0)
	m.Job("workload.start", JobDone, time.Second)
	m.Job("workload.start", JobRetried, time.Second)
	if err := errors.Join(m.QueueDepth(func(context.Context) (int64, error) { return 12, nil }),
		m.DatabaseSize(func(context.Context) (int64, error) { return 4096, nil })); err != nil {
		t.Fatal(err)
	}
	f := scrape(t, tel)
	counter := func(name string, want float64, labels map[string]string) {
		t.Helper()
		if got := find(t, f, name, labels).Counter.GetValue(); got != want {
			t.Errorf("%s%v is %v, want %v", name, labels, got, want)
		}
	}
	counter("provost_decisions_total", 2, map[string]string{"decision": "allow"})
	counter("provost_decisions_total", 1, map[string]string{"decision": "deny"})
	counter("provost_events_appended_total", 5, map[string]string{"outcome": "accepted"})
	counter("provost_events_appended_total", 2, map[string]string{"outcome": "refused"})
	counter("provost_job_runs_total", 1, map[string]string{"kind": "workload.start", "outcome": "done"})
	counter("provost_job_runs_total", 1, map[string]string{"kind": "workload.start", "outcome": "retried"})
	if h := find(t, f, "provost_job_duration_seconds", map[string]string{"kind": "workload.start"}).Histogram; h.GetSampleCount() != 2 {
		t.Errorf("%d job durations, want 2", h.GetSampleCount())
	}
	if h := find(t, f, "provost_commit_group_size", nil).Histogram; h.GetSampleSum() != 7 || h.GetSampleCount() != 1 {
		t.Errorf("commit sizes: %v", h)
	}
	if h := find(t, f, "provost_commit_duration_seconds", nil).Histogram; h.GetSampleSum() != 0.002 {
		t.Errorf("commit durations: %v", h)
	}
	if g := find(t, f, "provost_job_queue_depth", nil).Gauge.GetValue(); g != 12 {
		t.Errorf("queue depth %v, want 12", g)
	}
	if g := find(t, f, "provost_database_size_bytes", nil).Gauge.GetValue(); g != 4096 {
		t.Errorf("database size %v, want 4096", g)
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_open_fds"} {
		if f[name] == nil {
			t.Errorf("no %s of the Go runtime", name)
		}
	}
}

// A library's OpenTelemetry instruments are served beside ours.
func TestOpenTelemetryMetrics(t *testing.T) {
	tel, _ := start(t, Config{Version: "1.2.3"})
	c, err := tel.MeterProvider().Meter("library").Int64Counter("library.calls")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	f := scrape(t, tel)
	if m := f["library_calls_total"].GetMetric(); len(m) != 1 || m[0].Counter.GetValue() != 3 {
		t.Errorf("a library's counter is served as %v", f["library_calls_total"])
	}
	info := map[string]string{}
	for _, m := range f["target_info"].GetMetric() {
		for _, l := range m.Label {
			info[l.GetName()] = l.GetValue()
		}
	}
	if info["service_name"] != "provost" || info["service_version"] != "1.2.3" {
		t.Errorf("target_info is %v", info)
	}
}

// What a gauge cannot be read from must not hide the rest, and must not hold a scrape.
func TestGaugeThatFails(t *testing.T) {
	tel, log := start(t, Config{})
	tel.Metrics.Decision(true)
	if err := tel.Metrics.DatabaseSize(func(context.Context) (int64, error) { return 0, errors.New("disk is away") }); err != nil {
		t.Fatal(err)
	}
	var deadline bool
	if err := tel.Metrics.QueueDepth(func(ctx context.Context) (int64, error) { _, deadline = ctx.Deadline(); return 1, nil }); err != nil {
		t.Fatal(err)
	}
	f := scrape(t, tel)
	if f["provost_database_size_bytes"] != nil {
		t.Error("a gauge that cannot be read has a value")
	}
	find(t, f, "provost_decisions_total", map[string]string{"decision": "allow"})
	find(t, f, "provost_job_queue_depth", nil)
	if !strings.Contains(log.String(), "disk is away") {
		t.Errorf("the failure is not in the log: %q", log)
	}
	if !deadline {
		t.Error("reading a gauge has no deadline")
	}
}

// Labels come from closed sets: none names a tenant, a caller or a path that a caller made up.
func TestLabelsAreBounded(t *testing.T) {
	tel, _ := start(t, Config{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range maxSeries {
				tel.Metrics.HTTP(Request{Route: fmt.Sprintf("GET /r%d", i*(g+1)), Method: fmt.Sprintf("M%d", i), Status: 200 + i%7})
			}
		})
	}
	wg.Wait()
	f := scrape(t, tel)
	allowed := map[string][]string{"openmcp_http_requests_total": {"code", "handler", "method"}}
	if n := len(f["openmcp_http_requests_total"].Metric); n > maxSeries+1 {
		t.Errorf("%d series of requests, want at most %d", n, maxSeries+1)
	}
	total := 0.0
	for _, m := range f["openmcp_http_requests_total"].Metric {
		var names []string
		for _, l := range m.Label {
			names = append(names, l.GetName())
		}
		slices.Sort(names)
		if !slices.Equal(names, allowed["openmcp_http_requests_total"]) {
			t.Fatalf("labels %v, want %v", names, allowed)
		}
		total += m.Counter.GetValue()
	}
	if total != 4*maxSeries {
		t.Errorf("%v requests counted, want %d: past the bound they are counted together", total, 4*maxSeries)
	}
	find(t, f, "openmcp_http_requests_total", map[string]string{"handler": "other", "method": "other", "code": "0"})
}

func BenchmarkHTTP(b *testing.B) {
	tel, _ := start(b, Config{})
	r := Request{Route: "POST /v1/workloads", Method: "POST", Status: 201, Duration: 3 * time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		tel.Metrics.HTTP(r)
	}
}

func BenchmarkHTTPParallel(b *testing.B) {
	tel, _ := start(b, Config{})
	r := Request{Route: "POST /v1/workloads", Method: "POST", Status: 201, Duration: 3 * time.Millisecond}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			tel.Metrics.HTTP(r)
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	tel, _ := start(b, Config{})
	for b.Loop() {
		tel.Metrics.Commit(40, 3*time.Millisecond)
	}
}

func BenchmarkDecision(b *testing.B) {
	tel, _ := start(b, Config{})
	for b.Loop() {
		tel.Metrics.Decision(true)
	}
}
