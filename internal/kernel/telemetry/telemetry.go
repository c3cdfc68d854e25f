// Package telemetry is what the server says about itself to those who run it:
// logs on a stream, metrics for a Prometheus on the private listener, and
// traces for an OpenTelemetry collector where there is one. None of it is
// evidence: it may be sampled, dropped and switched off.
//
//	slog ─────────────▶ Writer            trace_id, span_id and correlation_id from the context
//	Metrics.HTTP, … ──▶ MetricsHandler    labels from closed sets only, never a tenant or a caller
//	Middleware ───────▶ OTLP/HTTP         nothing at all without an endpoint
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says what is told to whom.
type Config struct {
	ServiceName string // service.name of traces; "" is provost
	Version     string // service.version, the build's

	// OTLPEndpoint is the collector's OTLP/HTTP URL, such as
	// http://127.0.0.1:4318; /v1/traces is added unless the path ends in it.
	// Empty sends no traces. Headers, such as a collector's credentials, come from
	// OTEL_EXPORTER_OTLP_HEADERS, as its specification has it.
	OTLPEndpoint string
	// SampleRatio is the share of traces that is sent, above 0 and up to 1; 0
	// means all. A caller's own sampling flag does not change it.
	SampleRatio float64

	LogLevel  string    // debug, info, warn or error; "" is info
	LogFormat string    // text or json; "" is text
	Writer    io.Writer // where logs go; nil is standard error
}

// shutdownTimeout bounds Shutdown when its context has no deadline.
const shutdownTimeout = 5 * time.Second

// Telemetry is everything that was started. Safe for concurrent use.
type Telemetry struct {
	// Logger writes the log.
	Logger *slog.Logger
	// Metrics are the server's own instruments.
	Metrics *Metrics

	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	tracers  trace.TracerProvider
	exporter *sdktrace.TracerProvider // nil without an endpoint

	stop    sync.Once
	stopErr error
}

// Start makes the logger, the instruments and, where there is an endpoint, the
// trace exporter. It connects to nothing: a collector that is away is logged
// when spans cannot be delivered. Shutdown ends it.
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.ServiceName == "" {
		cfg.ServiceName = "provost"
	}
	if cfg.Writer == nil {
		cfg.Writer = os.Stderr
	}
	t := &Telemetry{tracers: noop.NewTracerProvider()}
	var err error
	if t.Logger, err = newLogger(cfg); err != nil {
		return nil, err
	}
	res, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", cfg.ServiceName), attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", uuid.NewString())))
	if err != nil {
		return nil, fmt.Errorf("describe this process to OpenTelemetry: %w", err)
	}
	if err := t.startMetrics(res); err != nil {
		return nil, err
	}
	if cfg.OTLPEndpoint != "" {
		if t.exporter, err = newExporter(ctx, cfg, res); err != nil {
			return nil, err
		}
		t.tracers = t.exporter
	}
	// The SDK reports what fails behind the scenes, such as deliveries, to a
	// handler of the whole process and nowhere else.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Logger.Warn("telemetry", "err", err) }))
	return t, nil
}

func (t *Telemetry) startMetrics(res *resource.Resource) error {
	t.registry = prometheus.NewRegistry()
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})) // a new registry holds nothing they could clash with
	t.Metrics = newMetrics(t.registry)
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return fmt.Errorf("make Prometheus exporter: %w", err)
	}
	t.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res))
	return nil
}

// MetricsHandler serves the metrics in Prometheus' text format, for the private
// listener: they say how busy the server is, which is nobody else's business.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{t.Logger},
		ErrorHandling:       promhttp.ContinueOnError, // one gauge that cannot be read must not hide the others
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// scrapeLog makes a line of what went wrong in a scrape.
type scrapeLog struct{ logger *slog.Logger }

func (l scrapeLog) Println(v ...any) { l.logger.Warn("metrics scrape", "err", fmt.Sprint(v...)) }

// TracerProvider makes tracers; without an endpoint they do nothing.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.tracers }

// MeterProvider makes meters, for libraries that bring OpenTelemetry
// instruments; MetricsHandler serves them beside our own.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Shutdown delivers what is waiting to be sent, as far as ctx allows, or within
// five seconds when it has no deadline. The logger stays good. Later calls
// return what the first returned.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.stop.Do(func() { t.stopErr = t.shutdown(ctx) })
	return t.stopErr
}

func (t *Telemetry) shutdown(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, shutdownTimeout)
		defer cancel()
	}
	var err error
	if t.exporter != nil {
		if err = t.exporter.Shutdown(ctx); err != nil {
			err = fmt.Errorf("deliver the last traces: %w", err)
		}
	}
	if merr := t.meters.Shutdown(ctx); merr != nil {
		err = errors.Join(err, fmt.Errorf("stop metrics: %w", merr))
	}
	return err
}
