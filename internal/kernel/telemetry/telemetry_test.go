package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"provost.dev/provost/internal/kernel"
)

// buffer is a log that may be written from several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t testing.TB, cfg Config) (*Telemetry, *buffer) {
	t.Helper()
	log := &buffer{}
	cfg.Writer = log
	tel, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		tel.Shutdown(ctx) //nolint:errcheck // a collector may be away on purpose
	})
	return tel, log
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   Config
		field string
	}{
		{"level", Config{LogLevel: "loud"}, ""},
		{"format", Config{LogFormat: "xml"}, ""},
		{"no URL", Config{OTLPEndpoint: "::"}, "telemetry.otlp_endpoint"},
		{"no scheme", Config{OTLPEndpoint: "127.0.0.1:4318"}, "telemetry.otlp_endpoint"},
		{"gRPC scheme", Config{OTLPEndpoint: "grpc://127.0.0.1:4317"}, "telemetry.otlp_endpoint"},
		{"no host", Config{OTLPEndpoint: "http:///v1/traces"}, "telemetry.otlp_endpoint"},
		{"secret in URL", Config{OTLPEndpoint: "https://me:secret@collector.example"}, "telemetry.otlp_endpoint"},
		{"query", Config{OTLPEndpoint: "https://collector.example/?key=1"}, "telemetry.otlp_endpoint"},
		{"ratio", Config{OTLPEndpoint: "http://127.0.0.1:1", SampleRatio: 1.5}, "telemetry.sample_ratio"},
		{"negative ratio", Config{OTLPEndpoint: "http://127.0.0.1:1", SampleRatio: -1}, "telemetry.sample_ratio"},
	} {
		_, err := Start(t.Context(), c.cfg)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if e := kernel.AsError(err); c.field != "" && e.Field != c.field {
			t.Errorf("%s: error %v is about %q, want %q", c.name, err, e.Field, c.field)
		}
		if strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: error shows the secret: %v", c.name, err)
		}
	}
}

func TestTracesURL(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://127.0.0.1:4318":                  "http://127.0.0.1:4318/v1/traces",
		"http://127.0.0.1:4318/":                 "http://127.0.0.1:4318/v1/traces",
		"https://collector.example/otlp":         "https://collector.example/otlp/v1/traces",
		"https://collector.example/v1/traces":    "https://collector.example/v1/traces",
		"https://collector.example/a/v1/traces/": "https://collector.example/a/v1/traces",
	} {
		if got, err := tracesURL(endpoint); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", endpoint, got, err, want)
		}
	}
}

func TestLogLinesCarryTheContext(t *testing.T) {
	tel, log := start(t, Config{LogFormat: "json", LogLevel: "info"})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}})
	ctx := WithCorrelation(trace.ContextWithSpanContext(context.Background(), span), "c-1")

	line := func(do func()) map[string]any {
		t.Helper()
		before := len(log.String())
		do()
		text := log.String()[before:]
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("log line %q: %v", text, err)
		}
		if n := strings.Count(text, `"correlation_id"`); n > 1 {
			t.Errorf("correlation_id stands %d times in %s", n, text)
		}
		return m
	}
	m := line(func() { tel.Logger.InfoContext(ctx, "hello", "tenant", "demo") })
	for k, want := range map[string]any{"msg": "hello", "tenant": "demo", "correlation_id": "c-1", "level": "INFO",
		"trace_id": "01020000000000000000000000000000", "span_id": "0300000000000000"} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
	if m := line(func() { tel.Logger.InfoContext(ctx, "own", "correlation_id", "c-2") }); m["correlation_id"] != "c-2" {
		t.Errorf("a line's own correlation id became %v", m["correlation_id"])
	}
	if m := line(func() { tel.Logger.With("correlation_id", "c-3").InfoContext(ctx, "own") }); m["correlation_id"] != "c-3" {
		t.Errorf("a logger's own correlation id became %v", m["correlation_id"])
	}
	m = line(func() { tel.Logger.With("node", "n1").WithGroup("g").Info("bare", "a", 1) })
	if m["trace_id"] != nil || m["correlation_id"] != nil || m["node"] != "n1" {
		t.Errorf("a line without a context became %v", m)
	}
	before := log.String()
	tel.Logger.Debug("too much")
	if log.String() != before {
		t.Error("debug lines are written at level info")
	}
}

func TestTextLog(t *testing.T) {
	tel, log := start(t, Config{LogLevel: "debug"})
	tel.Logger.DebugContext(WithCorrelation(t.Context(), "c-9"), "deep", "err", errors.New("two\nlines"))
	got := log.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=DEBUG msg=deep err="two\nlines" correlation_id=c-9`) {
		t.Errorf("text log is %q", got)
	}
}

func TestNothingIsTracedWithoutAnEndpoint(t *testing.T) {
	tel, _ := start(t, Config{})
	mux := http.NewServeMux()
	if got := tel.Middleware(mux); got != http.Handler(mux) {
		t.Errorf("middleware without an endpoint is %T, want the handler itself", got)
	}
	ctx, span := tel.TracerProvider().Tracer("t").Start(t.Context(), "s")
	if span.IsRecording() || trace.SpanContextFromContext(ctx).IsValid() {
		t.Error("a span is recorded though nobody would get it")
	}
}

func TestShutdownTwice(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	tel, err := Start(t.Context(), Config{Writer: io.Discard, OTLPEndpoint: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tel.Shutdown(t.Context()), tel.Shutdown(t.Context())); err != nil {
		t.Errorf("shut down with nothing to deliver: %v", err)
	}
	tel.Logger.Info("still good")
	tel.Metrics.HTTP(Request{Route: "GET /x", Method: "GET", Status: 200})
}

// A collector that never answers holds Shutdown no longer than its context, and the loss is reported.
func TestShutdownKeepsItsDeadline(t *testing.T) {
	hang := make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer collector.Close()
	defer close(hang)
	tel, _ := start(t, Config{OTLPEndpoint: collector.URL})
	_, span := tel.TracerProvider().Tracer("t").Start(t.Context(), "s")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := tel.Shutdown(ctx)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("shutdown took %v with 200 ms to go", took)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown without delivery says %v, want the deadline", err)
	}
}

func TestSlogDefaultIsLeftAlone(t *testing.T) {
	before := slog.Default()
	start(t, Config{})
	if slog.Default() != before {
		t.Error("Start replaced the process's default logger")
	}
}
