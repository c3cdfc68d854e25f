package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"provost.dev/provost/internal/kernel/telemetry"
)

// ServeOptions say how "provost server" runs.
type ServeOptions struct {
	Config string // file; "" for none
	Stderr io.Writer
	// Ready is called when the server answers, with its URL.
	Ready func(url string)
}

// Run runs a server as its configuration says until ctx ends.
func Run(ctx context.Context, o ServeOptions) error {
	cfg, err := LoadConfig(o.Config, os.Environ())
	if err != nil {
		return err
	}
	s, err := listen(ctx, cfg, o.Stderr)
	if err != nil {
		return err
	}
	return s.run(ctx, nil, func(*App) error {
		s.telemetry.Logger.Info("ready", "url", cfg.URL)
		if o.Ready != nil {
			o.Ready(cfg.URL)
		}
		return nil
	})
}

// DevOptions say how "provost dev" runs.
type DevOptions struct {
	DataDir, Listen, S3Listen string
	Config                    string // file merged over the demo defaults; "" for none
	Stdout, Stderr            io.Writer
}

// Dev runs a server with demo tenants until ctx ends, and writes DIR/dev.json.
func Dev(ctx context.Context, o DevOptions) error {
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	cfg := &Config{DataDir: dir, Listen: o.Listen, MetricsListen: "127.0.0.1:0", Log: LogConfig{Level: "warn"}}
	if o.Config != "" {
		b, err := os.ReadFile(o.Config)
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		if err := cfg.parse(b); err != nil {
			return fmt.Errorf("%s: %w", o.Config, err)
		}
	}
	if err := cfg.overlay(os.Environ()); err != nil {
		return err
	}
	cfg.defaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, "dev.json")
	file, err := loadDevFile(path)
	if err != nil {
		return err
	}
	s, err := listen(ctx, cfg, o.Stderr)
	if err != nil {
		return err
	}
	s3, err := net.Listen("tcp", o.S3Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for S3: %w", err), s.close())
	}
	go http.Serve(s3, http.HandlerFunc(noObjectStorage)) //nolint:errcheck,gosec // ends with the listener
	defer s3.Close()
	file.URL, file.S3URL, file.Registry = cfg.URL, "http://"+s3.Addr().String(), s.public.Addr().String()
	if s.metrics != nil {
		file.MetricsURL = "http://" + s.metrics.Addr().String() + "/metrics"
	}
	return s.run(ctx, func(a *App) error { return a.seedDemo(ctx, file) }, func(*App) error {
		if err := file.write(path); err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Stdout, devScreen, cfg.URL, path, cfg.URL, dir)
		return err
	})
}

const devScreen = `Provost is running at %s

  accounts and passwords   %s
  API documentation        %s/docs

Next, in another shell:

  export PROVOST_DATA_DIR=%s
  jq -r '.tenants[0].users[] | select(.username=="operator").password' $PROVOST_DATA_DIR/dev.json |
    provost login --url $(jq -r .url $PROVOST_DATA_DIR/dev.json) --tenant demo --username operator --password-stdin
  provost events list

Ctrl-C stops it; deleting the data directory is a clean slate.
`

// noObjectStorage answers on the S3 address, which scripts expect to be there,
// until object storage arrives.
func noObjectStorage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusNotImplemented)
	io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>NotImplemented</Code><Message>Object storage is not part of this version.</Message></Error>\n") //nolint:errcheck // the caller left
}

// server is the listeners of a process, open before anything else, so that a
// taken address is the first thing said.
type server struct {
	cfg             *Config
	telemetry       *telemetry.Telemetry
	public, metrics net.Listener
}

func listen(ctx context.Context, cfg *Config, stderr io.Writer) (*server, error) {
	s := &server{cfg: cfg}
	var err error
	s.telemetry, err = telemetry.Start(ctx, telemetry.Config{OTLPEndpoint: cfg.Telemetry.OTLPEndpoint, LogLevel: cfg.Log.Level, LogFormat: cfg.Log.Format, Writer: stderr})
	if err != nil {
		return nil, err
	}
	if s.public, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	cfg.Listen = s.public.Addr().String() // port 0 becomes a real one
	if cfg.URL == "" {
		cfg.URL = "http://" + cfg.Listen
	}
	if cfg.MetricsListen == "" {
		return s, nil
	}
	if s.metrics, err = net.Listen("tcp", cfg.MetricsListen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for metrics on %s: %w", cfg.MetricsListen, err), s.close())
	}
	return s, nil
}

func (s *server) close() error {
	err := s.public.Close()
	if s.metrics != nil {
		err = errors.Join(err, s.metrics.Close())
	}
	return err
}

// run opens the rooms, prepares and announces, and serves until ctx ends.
func (s *server) run(ctx context.Context, prepare, ready func(*App) error) (err error) {
	// Most of the heap is short-lived and small: collecting half as often costs
	// some tens of megabytes and saves the writer a twentieth of its time.
	debug.SetGCPercent(200)
	a, err := New(ctx, s.cfg, s.telemetry)
	if err != nil {
		return errors.Join(err, s.close())
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.cfg.ShutdownGrace))
		defer cancel()
		err = errors.Join(err, a.Close(end), s.telemetry.Shutdown(end))
	}()
	if prepare != nil {
		if err := prepare(a); err != nil {
			return errors.Join(err, s.close())
		}
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Serve(serving, s.public) }()
	if s.metrics != nil {
		private := &http.Server{Handler: a.PrivateHandler(), ReadHeaderTimeout: 10 * time.Second}
		go private.Serve(s.metrics) //nolint:errcheck // ends with Close
		defer private.Close()
	}
	if err := ready(a); err != nil {
		stop()
		return errors.Join(err, <-done)
	}
	return <-done
}
