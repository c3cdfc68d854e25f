package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

type correlationKey struct{}

// WithCorrelation returns a context whose log lines and spans carry a
// correlation id: the one that the action's events carry.
func WithCorrelation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

// Correlation returns the context's correlation id, "" when it has none.
func Correlation(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey{}).(string)
	return id
}

func newLogger(cfg Config) (*slog.Logger, error) {
	levels := map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[cfg.LogLevel]
	if !ok {
		return nil, fmt.Errorf("log level is %q, want debug, info, warn or error", cfg.LogLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.LogFormat {
	case "", "text":
		return slog.New(&handler{Handler: slog.NewTextHandler(cfg.Writer, options)}), nil
	case "json":
		return slog.New(&handler{Handler: slog.NewJSONHandler(cfg.Writer, options)}), nil
	}
	return nil, fmt.Errorf("log format is %q, want text or json", cfg.LogFormat)
}

// correlationAttr is the key under which correlation ids are logged everywhere.
const correlationAttr = "correlation_id"

// handler adds what the context knows to each line.
type handler struct {
	slog.Handler
	correlated bool // the logger was given a correlation id by With
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	if id := Correlation(ctx); id != "" && !h.correlated && !isCorrelated(r) {
		r.AddAttrs(slog.String(correlationAttr, id))
	}
	return h.Handler.Handle(ctx, r)
}

// isCorrelated reports whether the line brings its own correlation id.
func isCorrelated(r slog.Record) (found bool) {
	r.Attrs(func(a slog.Attr) bool {
		found = a.Key == correlationAttr
		return !found
	})
	return found
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &handler{Handler: h.Handler.WithAttrs(attrs), correlated: h.correlated}
	for _, a := range attrs {
		out.correlated = out.correlated || a.Key == correlationAttr
	}
	return out
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), correlated: h.correlated}
}
