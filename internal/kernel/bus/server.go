package bus

import (
	"fmt"
	"log/slog"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// startServer runs a NATS server inside this process. It opens no socket, keeps
// no files and installs no signal handlers; its one client is this process.
func startServer(log *slog.Logger) (*natsserver.Server, error) {
	server, err := natsserver.NewServer(&natsserver.Options{
		ServerName:            "provost",
		DontListen:            true,
		NoSigs:                true, // signals belong to the program
		NoSystemAccount:       true, // no monitoring subjects, nor the goroutines behind them
		DisableShortFirstPing: true,
		MaxConn:               4, // ours, and those that a reconnect has not yet let go of
		MaxSubs:               MaxSubscriptions,
		MaxPayload:            MaxMessage,
		MaxControlLine:        4 << 10,
		MaxPending:            16 << 20,
		MaxClosedClients:      1,
		WriteDeadline:         10 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	server.SetLogger(serverLog{log}, false, false)
	server.Start()
	if !server.ReadyForConnections(connectTimeout) {
		server.Shutdown()
		return nil, fmt.Errorf("not ready after %v", connectTimeout)
	}
	return server, nil
}

func (b *Bus) stopServer() {
	if b.server == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// serverLog passes the server's warnings and errors on. Its notices describe
// its own start and stop, which ours already do.
type serverLog struct{ log *slog.Logger }

func (serverLog) Noticef(string, ...any) {}
func (serverLog) Debugf(string, ...any)  {}
func (serverLog) Tracef(string, ...any)  {}

func (l serverLog) Warnf(format string, args ...any) {
	l.log.Warn("bus server", slog.String("detail", fmt.Sprintf(format, args...)))
}

func (l serverLog) Errorf(format string, args ...any) {
	l.log.Error("bus server", slog.String("detail", fmt.Sprintf(format, args...)))
}

// Fatalf reports like Errorf: a library does not end the program. The server
// that called it is not ready, and startServer says so.
func (l serverLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }
