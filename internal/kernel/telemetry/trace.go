package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"provost.dev/provost/internal/kernel"
)

// What waits to be sent is bounded; more is dropped. A span takes about 2 KB.
const (
	maxQueuedSpans = 4096
	maxSpanBatch   = 512
	exportTimeout  = 10 * time.Second
)

func newExporter(ctx context.Context, cfg Config, res *resource.Resource) (*sdktrace.TracerProvider, error) {
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return nil, &kernel.Error{Kind: kernel.Invalid, Field: "telemetry.sample_ratio", Msg: fmt.Sprintf("is %v, want a share from 0 to 1", cfg.SampleRatio)}
	}
	if cfg.SampleRatio == 0 {
		cfg.SampleRatio = 1
	}
	endpoint, err := tracesURL(cfg.OTLPEndpoint)
	if err != nil {
		return nil, err
	}
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("make OTLP exporter: %w", err)
	}
	ratio := sdktrace.TraceIDRatioBased(cfg.SampleRatio)
	return sdktrace.NewTracerProvider(sdktrace.WithResource(res),
		sdktrace.WithBatcher(client, sdktrace.WithMaxQueueSize(maxQueuedSpans), sdktrace.WithMaxExportBatchSize(maxSpanBatch), sdktrace.WithExportTimeout(exportTimeout)),
		// How much we send is not for a caller to say, whichever way its own flag points.
		sdktrace.WithSampler(sdktrace.ParentBased(ratio, sdktrace.WithRemoteParentSampled(ratio), sdktrace.WithRemoteParentNotSampled(ratio))),
	), nil
}

// tracesURL is where traces go, given what the configuration says.
func tracesURL(endpoint string) (string, error) {
	bad := func(msg string) error {
		return &kernel.Error{Kind: kernel.Invalid, Field: "telemetry.otlp_endpoint", Msg: msg + "; want an OTLP/HTTP URL such as http://127.0.0.1:4318"}
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", bad("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", bad("is not an http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", bad("holds a user, a query or a fragment")
	}
	const path = "/v1/traces" // OTLP specification, OTLP/HTTP request
	u.Path = strings.TrimSuffix(u.Path, "/")
	if !strings.HasSuffix(u.Path, path) {
		u.Path += path
	}
	return u.String(), nil
}

// quiet are the paths that probes ask for all the time.
var quiet = map[string]bool{"/healthz": true, "/readyz": true}

type outerKey struct{}

// Middleware puts a server span around each request, named after its route and
// continuing the caller's trace. It belongs between what sets the correlation id and the
// http.ServeMux. Without an endpoint it returns next itself.
func (t *Telemetry) Middleware(next http.Handler) http.Handler {
	if t.exporter == nil {
		return next
	}
	traced := otelhttp.NewHandler(annotate(next), "request",
		otelhttp.WithTracerProvider(t.exporter), otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()), // Metrics.HTTP counts them
		otelhttp.WithFilter(func(r *http.Request) bool { return !quiet[r.URL.Path] }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traced.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), outerKey{}, r)))
	})
}

// annotate adds the correlation id and the route to the span, and tells those
// outside which route it was: http.ServeMux writes that on its own copy of the request only.
func annotate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		span := trace.SpanFromContext(r.Context())
		if id := Correlation(r.Context()); id != "" {
			span.SetAttributes(attribute.String(correlationAttr, id))
		}
		defer func() {
			span.SetAttributes(attribute.String("http.route", handlerLabel(r.Pattern)))
			r.Context().Value(outerKey{}).(*http.Request).Pattern = r.Pattern
		}()
		next.ServeHTTP(w, r)
	})
}
