package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
)

// containerEnded hands a container's end to the workload plane.
func (a *App) containerEnded(st runtime.Status) {
	select {
	case <-a.opened: // a container may end while the rooms above the driver are still being opened
		a.workloads.Exited(st)
	case <-a.gone: // the next start finds it
	}
}

// Serve answers on the listener until ctx ends, then drains: no new
// connections, streams told to end, requests and jobs finished, within the
// grace of the configuration.
func (a *App) Serve(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: a.Handler(), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	a.logger.Info("draining")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(a.cfg.ShutdownGrace))
	defer cancel()
	close(a.streams)
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		a.logger.Warn("requests were cut off after the grace", "grace", time.Duration(a.cfg.ShutdownGrace).String())
		err = srv.Close()
	}
	return err
}
