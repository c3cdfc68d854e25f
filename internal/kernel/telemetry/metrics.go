package telemetry

import (
	"context"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the server's own instruments. Every label is from a closed set: a
// route's pattern, a method, a status, a kind of job. Safe for concurrent use.
//
// They are Prometheus' instruments and not OpenTelemetry's, whose SDK takes
// some 25 times as long for a measurement; each request makes two, each change
// several more. Both are served together.
type Metrics struct {
	registry *prometheus.Registry

	requests, errors *prometheus.CounterVec
	duration         *prometheus.HistogramVec

	commitSize, commitDuration prometheus.Histogram
	allowed, denied            prometheus.Counter
	accepted, refused, failed  prometheus.Counter
	jobs                       *prometheus.CounterVec
	jobDuration                *prometheus.HistogramVec

	// The series of HTTP requests met so far. Reading takes no lock: a new
	// series replaces the map.
	series  atomic.Pointer[map[seriesKey]*series]
	growing sync.Mutex
}

// Request durations in seconds: openmcp.md §4's buckets, and lower ones, as
// most requests take less than its first.
var requestBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newMetrics(reg *prometheus.Registry) *Metrics {
	m := &Metrics{
		registry: reg,
		requests: counters("openmcp_http_requests_total",
			"HTTP requests by route, method and status. Status 0 is a connection taken over, or a caller who left.", "handler", "method", "code"),
		errors:   counters("openmcp_http_request_errors_total", "HTTP requests that ended in a status of 500 and above.", "handler", "method"),
		duration: histograms("openmcp_http_request_duration_seconds", "How long HTTP requests took.", requestBuckets, "handler", "method"),
		jobs:     counters("provost_job_runs_total", "Runs of background jobs by kind and by how they ended.", "kind", "outcome"),
		jobDuration: histograms("provost_job_duration_seconds", "How long runs of background jobs took.",
			[]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}, "kind"),
		commitSize: histogram("provost_commit_group_size", "How many changes one commit made durable.",
			prometheus.ExponentialBuckets(1, 2, 10)),
		commitDuration: histogram("provost_commit_duration_seconds", "How long group commits took, from the first statement until durable.",
			[]float64{0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1}),
	}
	decisions := counters("provost_decisions_total", "Policy decisions.", "decision")
	m.allowed, m.denied = decisions.WithLabelValues("allow"), decisions.WithLabelValues("deny")
	events := counters("provost_events_appended_total", "Events appended to the logs of all tenants, by outcome.", "outcome")
	m.accepted, m.refused, m.failed = events.WithLabelValues("accepted"), events.WithLabelValues("refused"), events.WithLabelValues("failed")
	reg.MustRegister(m.requests, m.errors, m.duration, m.jobs, m.jobDuration, m.commitSize, m.commitDuration, decisions, events) // fails only for two of one name
	m.series.Store(&map[seriesKey]*series{})
	return m
}

func counters(name, doc string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: doc}, labels)
}

func histogram(name, doc string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: doc, Buckets: buckets})
}

func histograms(name, doc string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: doc, Buckets: buckets}, labels)
}

// Request is one finished HTTP request. Its fields are those of edge.Observation.
type Request struct {
	Route    string // the pattern that served it, such as "GET /v1/tenants/{id}"; "" when none did
	Method   string
	Status   int // 0 when no header was written
	Duration time.Duration
}

// seriesKey is what a request is counted under.
type seriesKey struct {
	route, method string
	status        int
}

// series is where the requests of a key are counted.
type series struct {
	count, errors prometheus.Counter
	duration      prometheus.Observer
}

// maxSeries bounds the series of requests. It is far above routes × methods ×
// statuses, and below what a Prometheus would mind.
const maxSeries = 2048

// HTTP counts a finished request.
func (m *Metrics) HTTP(r Request) {
	key := seriesKey{r.Route, methodLabel(r.Method), r.Status}
	s := (*m.series.Load())[key]
	if s == nil {
		s = m.grow(key)
	}
	s.count.Inc()
	s.duration.Observe(r.Duration.Seconds())
	if r.Status >= http.StatusInternalServerError {
		s.errors.Inc()
	}
}

// grow makes a series. Its error counter is there from the start, so that the
// first error is a rise that a rate can see.
func (m *Metrics) grow(key seriesKey) *series {
	m.growing.Lock()
	defer m.growing.Unlock()
	old := *m.series.Load()
	if s := old[key]; s != nil {
		return s
	}
	if len(old) >= maxSeries {
		key = seriesKey{"other", "other", 0}
		if s := old[key]; s != nil {
			return s
		}
	}
	handler := handlerLabel(key.route)
	s := &series{count: m.requests.WithLabelValues(handler, key.method, codeLabel(key.status)),
		errors: m.errors.WithLabelValues(handler, key.method), duration: m.duration.WithLabelValues(handler, key.method)}
	next := maps.Clone(old)
	next[key] = s
	m.series.Store(&next)
	return s
}

// handlerLabel is a pattern's path: the method has a label of its own.
func handlerLabel(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	if pattern == "" || pattern == "/" {
		return "unmatched"
	}
	return pattern
}

// methodLabel keeps callers from making up labels.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "other"
}

func codeLabel(status int) string {
	if status < 100 || status > 599 {
		return "0"
	}
	return strconv.Itoa(status)
}

// Commit counts a group commit of n changes that took d.
func (m *Metrics) Commit(n int, d time.Duration) {
	m.commitSize.Observe(float64(n))
	m.commitDuration.Observe(d.Seconds())
}

// Decision counts a policy decision.
func (m *Metrics) Decision(allowed bool) {
	if allowed {
		m.allowed.Inc()
	} else {
		m.denied.Inc()
	}
}

// Events counts what one commit appended to the logs, by outcome.
func (m *Metrics) Events(accepted, refused, failed int) {
	m.accepted.Add(float64(accepted))
	m.refused.Add(float64(refused))
	m.failed.Add(float64(failed))
}

// JobOutcome is how a run of a job ended.
type JobOutcome string

// The outcomes of runs.
const (
	JobDone      JobOutcome = "done"
	JobRetried   JobOutcome = "retried"   // it failed and will be tried again
	JobSnoozed   JobOutcome = "snoozed"   // it asked to be run later
	JobDiscarded JobOutcome = "discarded" // it failed for good
)

// Job counts a run of a job that took d. Kinds are those that have a handler:
// a closed set.
func (m *Metrics) Job(kind string, outcome JobOutcome, d time.Duration) {
	m.jobs.WithLabelValues(kind, string(outcome)).Inc()
	m.jobDuration.WithLabelValues(kind).Observe(d.Seconds())
}

// QueueDepth has read ask, at each scrape, how many jobs wait or run. While it
// fails the gauge is absent and the failure is logged. Call it once.
func (m *Metrics) QueueDepth(read func(context.Context) (int64, error)) error {
	return m.registry.Register(newGauge("provost_job_queue_depth", "Jobs that wait or run, of all tenants.", read))
}

// DatabaseSize has read ask, at each scrape, how many bytes the database takes,
// as QueueDepth does.
func (m *Metrics) DatabaseSize(read func(context.Context) (int64, error)) error {
	return m.registry.Register(newGauge("provost_database_size_bytes", "Bytes the database takes on its storage.", read))
}

// gaugeTimeout bounds what one gauge may take of a scrape.
const gaugeTimeout = 2 * time.Second

// gauge is a value that is asked for when it is wanted.
type gauge struct {
	desc *prometheus.Desc
	read func(context.Context) (int64, error)
}

func newGauge(name, doc string, read func(context.Context) (int64, error)) *gauge {
	return &gauge{desc: prometheus.NewDesc(name, doc, nil, nil), read: read}
}

// Describe implements prometheus.Collector.
func (g *gauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements prometheus.Collector.
func (g *gauge) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), gaugeTimeout)
	defer cancel()
	n, err := g.read(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(g.desc, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n))
}
