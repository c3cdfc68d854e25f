// Package bus is the live fan-out between the parts of a running system: it
// tells whoever listens, now, that something was committed.
//
// # The database is the truth, the bus only wakes
//
// A message may be lost: a buffer overflows, a connection breaks, a process
// dies between its commit and its publish. Nothing may therefore depend on a
// message arriving. A reader that must miss nothing takes these steps:
//
//	sub := bus.Subscribe(…)        // 1. listen first, so that nothing falls between
//	read the database from `last`  // 2. catch up
//	for m := range sub.C:          // 3. follow
//	    if m.Gap: read the database from `last` again
//	    else:     use m, advance `last`
//
// plus a slow re-read (seconds, not milliseconds) on a timer when the bus is
// shared with other processes: one of those can lose its message before the bus
// ever sees it, and then no one is told of a gap.
//
// # Slow consumers
//
// Every subscription has a bounded buffer. When it is full, messages are dropped
// and exactly one gap marker takes their place at the end of the buffer; while
// that marker waits, further messages are dropped too, because the re-read it
// asks for covers them. A slow consumer costs its own messages, never the
// publisher's time and never another consumer's messages. A connection that
// was lost and came back puts the same marker into every subscription.
//
// # Transport
//
// The transport is NATS core (no JetStream: what must last is in the database).
// By default the server runs inside this process, opens no socket and is reached
// over a pipe; Config.URL names an external one instead, for several servers
// that share a database.
package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"provost.dev/provost/internal/kernel"
)

const (
	// MaxMessage is the largest message in bytes. Messages wake; content that
	// may be larger is read from where it is stored.
	MaxMessage = 64 << 10
	// MaxBuffer is the largest buffer of one subscription, in messages.
	MaxBuffer = 4096
	// MaxSubscriptions bounds the subscriptions of one Bus.
	MaxSubscriptions = 16384

	connectTimeout = 5 * time.Second        // to an external server, one attempt
	drainTimeout   = 5 * time.Second        // Close without an earlier deadline
	reconnectWait  = 250 * time.Millisecond // between attempts; jitter is added
	outboxBytes    = 4 << 20                // published while disconnected, sent on reconnect
)

// Config says which bus to use. The zero value is a private bus inside this process.
type Config struct {
	// URL of an external NATS server, or several separated by commas, such as
	// "nats://10.0.0.1:4222" or "tls://bus.example.org:4222". Empty runs the
	// server in this process. User information in it is never logged.
	URL string
	// CredentialsFile is a NATS .creds file (user JWT and seed); only with URL.
	CredentialsFile string
	// RootCAFile is a PEM file of the authorities that may vouch for the server; only with URL.
	// Empty is the system's set.
	RootCAFile string
	// Prefix is the first token of every subject, so that several systems can
	// share one NATS server. Default "provost".
	Prefix string
	// Logger gets what happens to the connection. Default slog.Default().
	Logger *slog.Logger
}

// Bus is a connection to the bus. It is safe for concurrent use.
type Bus struct {
	log    *slog.Logger
	prefix string
	server *natsserver.Server // nil when external
	conn   *nats.Conn
	closed chan struct{} // closed by the transport when conn is finished
	stop   sync.Once

	dropped    atomic.Uint64
	reconnects atomic.Uint64

	mu   sync.Mutex
	subs map[*Subscription]struct{} // nil once closing; guarded by mu
}

// Start returns a connected Bus. An external server that cannot be reached is
// Unavailable; a bad Config is Invalid.
func Start(ctx context.Context, cfg Config) (*Bus, error) {
	b := &Bus{
		log:    cfg.Logger,
		closed: make(chan struct{}),
		subs:   make(map[*Subscription]struct{}),
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "provost"
	}
	prefix, err := Subject{cfg.Prefix}.encode()
	if err != nil {
		return nil, kernel.InvalidField("bus.prefix", "%s", err)
	}
	b.prefix = prefix + "."

	if err := b.connect(ctx, cfg); err != nil {
		b.stopServer()
		return nil, err
	}
	return b, nil
}

func (b *Bus) connect(ctx context.Context, cfg Config) error {
	ended := sync.OnceFunc(func() { close(b.closed) })
	opts := []nats.Option{
		nats.Name("provost"),
		nats.Timeout(within(ctx, connectTimeout)),
		nats.DrainTimeout(drainTimeout),
		nats.MaxReconnects(-1), // the bus comes back whenever the server does
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectBufSize(outboxBytes),
		nats.ClosedHandler(func(*nats.Conn) { ended() }),
		nats.DisconnectErrHandler(b.onDisconnect),
		nats.ReconnectHandler(b.onReconnect),
		nats.ErrorHandler(b.onError),
	}
	switch {
	case cfg.URL != "":
		if cfg.CredentialsFile != "" {
			opts = append(opts, nats.UserCredentials(cfg.CredentialsFile))
		}
		if cfg.RootCAFile != "" {
			opts = append(opts, nats.RootCAs(cfg.RootCAFile))
		}
	case cfg.CredentialsFile != "" || cfg.RootCAFile != "":
		return kernel.InvalidField("bus.url", "credentials or a root CA are set, but no URL: the bus in this process uses neither")
	default:
		server, err := startServer(b.log)
		if err != nil {
			return kernel.Errorf(kernel.Internal, "", "start the bus in this process: %w", err)
		}
		b.server = server
		opts = append(opts, nats.InProcessServer(server))
	}

	conn, err := dial(ctx, cfg.URL, opts)
	if err != nil {
		return kernel.Errorf(kernel.Unavailable, "", "connect to the bus: %w", err)
	}
	b.conn = conn
	return nil
}

// dial is nats.Connect that gives up with ctx: the library takes no context.
func dial(ctx context.Context, url string, opts []nats.Option) (*nats.Conn, error) {
	type outcome struct {
		conn *nats.Conn
		err  error
	}
	result := make(chan outcome, 1)
	go func() {
		conn, err := nats.Connect(url, opts...)
		result <- outcome{conn, err}
	}()
	select {
	case r := <-result:
		return r.conn, r.err
	case <-ctx.Done():
		go func() { // the attempt itself ends by nats.Timeout
			if r := <-result; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// Publish hands data to everyone who listens on subject, in this process and,
// with an external server, in others. It does not wait for them: nil means the
// message is on its way, not that it arrived. Call it after the commit it
// speaks of. A bad subject is Invalid, a message over MaxMessage TooLarge, and
// a bus that is closed or whose outbox is full while disconnected Unavailable;
// the database holds the truth in each case, so the change itself stands.
func (b *Bus) Publish(subject Subject, data []byte) error {
	if len(data) > MaxMessage {
		return kernel.Errorf(kernel.TooLarge, "", "bus message of %d bytes: at most %d", len(data), MaxMessage)
	}
	name, err := subject.encode()
	if err != nil {
		return err
	}
	return interpret("publish on the bus", b.conn.Publish(b.prefix+name, data))
}

// Subscribe delivers what is published on exactly subject. The subscription is
// active when Subscribe returns: whatever this process publishes later arrives
// or leaves a gap. (Servers of an external NATS cluster learn of it a moment
// later; see the package comment.) Buffer, in messages, is 1 to MaxBuffer.
func (b *Bus) Subscribe(ctx context.Context, subject Subject, buffer int) (*Subscription, error) {
	return b.subscribe(ctx, subject, "", buffer)
}

// SubscribeUnder delivers what is published on any subject below prefix, not on
// prefix itself: under {"events", "demo"} are {"events", "demo", "workload"}
// and anything deeper.
func (b *Bus) SubscribeUnder(ctx context.Context, prefix Subject, buffer int) (*Subscription, error) {
	return b.subscribe(ctx, prefix, ".>", buffer)
}

func (b *Bus) subscribe(ctx context.Context, subject Subject, wildcard string, buffer int) (*Subscription, error) {
	if buffer < 1 || buffer > MaxBuffer {
		return nil, kernel.InvalidField("buffer", "%d: must be 1 to %d messages", buffer, MaxBuffer)
	}
	name, err := subject.encode()
	if err != nil {
		return nil, err
	}
	s := newSubscription(b, buffer)
	if err := b.add(s); err != nil {
		return nil, err
	}
	if err := s.open(ctx, b.prefix+name+wildcard); err != nil {
		s.Close()
		return nil, interpret("subscribe on the bus", err)
	}
	return s, nil
}

func (b *Bus) add(s *Subscription) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		return kernel.Errorf(kernel.Unavailable, "", "subscribe on the bus: it is closed")
	}
	if len(b.subs) >= MaxSubscriptions {
		return kernel.Errorf(kernel.TooMany, "", "the bus has %d subscriptions, its limit", len(b.subs))
	}
	b.subs[s] = struct{}{}
	return nil
}

func (b *Bus) remove(s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// Stats is a snapshot for metrics. Counters start at zero with the Bus.
type Stats struct {
	Connected     bool
	Subscriptions int
	Dropped       uint64 // messages dropped for slow consumers
	Reconnects    uint64 // lost connections that came back
}

// Stats returns the present figures.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	n := len(b.subs)
	b.mu.Unlock()
	return Stats{
		Connected:     b.conn.IsConnected(),
		Subscriptions: n,
		Dropped:       b.dropped.Load(),
		Reconnects:    b.reconnects.Load(),
	}
}

// Close drains the bus: what was published goes out, what arrived is put into
// its subscription's buffer, then every subscription's channel is closed and
// the server in this process ends. It waits until ctx is done, at most five
// seconds, and then cuts; the error says so. Calling it again does nothing.
func (b *Bus) Close(ctx context.Context) error {
	var err error
	b.stop.Do(func() { err = b.close(ctx) })
	return err
}

func (b *Bus) close(ctx context.Context) error {
	b.mu.Lock()
	subs := b.subs
	b.subs = nil // refuses new ones
	b.mu.Unlock()

	err := b.drain(ctx)
	for s := range subs {
		s.Close()
	}
	b.stopServer()
	return err
}

func (b *Bus) drain(ctx context.Context) error {
	defer func() {
		b.conn.Close()
		<-b.closed
	}()
	if err := b.conn.Drain(); err != nil {
		if !b.conn.IsConnected() {
			return nil // there is nobody to drain to
		}
		return interpret("drain the bus", err)
	}
	select {
	case <-b.closed:
		return nil
	case <-ctx.Done():
		return kernel.Errorf(kernel.Unavailable, "", "drain the bus: %w", context.Cause(ctx))
	}
}

func (b *Bus) onDisconnect(_ *nats.Conn, err error) {
	if err != nil {
		b.log.Warn("bus disconnected", slog.Any("error", err))
	}
}

// onReconnect runs when the connection is back and has asked for its
// subscriptions again. The round trip makes sure the server has taken them
// before anyone re-reads the database: a change committed after that re-read
// is then announced.
func (b *Bus) onReconnect(conn *nats.Conn) {
	if err := conn.FlushTimeout(connectTimeout); err != nil {
		b.log.Warn("bus reconnected but does not answer", slog.Any("error", err))
		if err := conn.ForceReconnect(); err != nil { // comes back here when it works
			b.log.Warn("bus cannot reconnect", slog.Any("error", err))
		}
		return
	}
	b.reconnects.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.markGap()
	}
	b.log.Info("bus reconnected", slog.Int("subscriptions", len(b.subs)))
}

func (b *Bus) onError(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	b.log.Warn("bus error", slog.String("subject", subject), slog.Any("error", err))
}

// interpret is the one place where errors of the transport become ours.
func interpret(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return kernel.Errorf(kernel.TooLarge, "", "%s: %w", doing, err)
	default: // closed, draining, disconnected with a full outbox, timed out
		return kernel.Errorf(kernel.Unavailable, "", "%s: %w", doing, err)
	}
}

// within is the time left until ctx's deadline, at most limit.
func within(ctx context.Context, limit time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(min(time.Until(deadline), limit), time.Millisecond)
	}
	return limit
}
