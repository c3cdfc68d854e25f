package bus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// What may wait inside the transport for one subscription before it drops by
// itself. Our callback never blocks, so this fills only when the process gets
// no CPU; such drops are found and marked like our own.
const (
	transportMessages = 4096
	transportBytes    = 16 << 20
)

// Message is one thing that was published, or a mark that some are missing.
type Message struct {
	// Gap marks that messages were lost here: read the database again from
	// where you are. Subject and Data are then empty.
	Gap     bool
	Subject Subject
	Data    []byte // the receiver's own copy
}

// Subscription is a bounded buffer of messages. The receiver reads C until it
// is closed, and calls Close when it has had enough.
type Subscription struct {
	// C gives the messages in the order in which the bus had them. It is
	// closed by Close, of the Subscription or of the Bus; what was buffered can
	// still be read then.
	C <-chan Message

	bus     *Bus
	dropped atomic.Uint64

	mu       sync.Mutex // held for moments only, never while waiting
	sub      *nats.Subscription
	c        chan Message // the last place holds nothing but a gap marker
	gapLast  bool         // the newest message put into c is a gap marker
	lost     int          // messages the transport had dropped when last asked
	isClosed bool
}

func newSubscription(b *Bus, buffer int) *Subscription {
	c := make(chan Message, buffer+1)
	return &Subscription{C: c, bus: b, c: c}
}

// open starts the delivery and waits until the server has acknowledged it.
func (s *Subscription) open(ctx context.Context, pattern string) error {
	s.mu.Lock() // the first message waits for s.sub
	sub, err := s.bus.conn.Subscribe(pattern, s.receive)
	s.sub = sub
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(transportMessages, transportBytes); err != nil {
		return fmt.Errorf("limit what may be pending: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return s.bus.conn.FlushWithContext(ctx)
}

// receive runs on the transport's goroutine for this subscription and never blocks.
func (s *Subscription) receive(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full transport has messages waiting, so this runs again after every
	// drop in there and sees it.
	if lost, err := s.sub.Dropped(); err == nil && lost > s.lost {
		s.count(uint64(lost - s.lost))
		s.lost = lost
		s.putGap()
	}
	subject, err := decodeSubject(strings.TrimPrefix(m.Subject, s.bus.prefix))
	if err != nil {
		// Another program publishes below our prefix. Something happened that
		// we cannot name, which is what a gap is.
		s.count(1)
		s.putGap()
		return
	}
	s.put(Message{Subject: subject, Data: m.Data})
}

// put adds m, or a gap marker in its place when the buffer is full.
//
// Only this side adds and it holds mu, so a free place seen here stays free:
// no send below can block. The last place is kept for a marker, so a full
// channel always ends in one, and no drop goes unannounced.
func (s *Subscription) put(m Message) {
	switch {
	case s.isClosed:
	case s.gapWaits():
		// The marker is still unread: the re-read it asks for comes after this
		// message's commit and will find it.
		s.count(1)
	case len(s.c) < cap(s.c)-1:
		s.c <- m
		s.gapLast = false
	default:
		s.count(1)
		s.putGap()
	}
}

func (s *Subscription) putGap() {
	if s.isClosed || s.gapWaits() {
		return
	}
	s.c <- Message{Gap: true}
	s.gapLast = true
}

// gapWaits reports whether a marker is the newest message and was not yet read:
// the newest is read last, so it is there as long as anything is.
func (s *Subscription) gapWaits() bool { return s.gapLast && len(s.c) > 0 }

func (s *Subscription) markGap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putGap()
}

func (s *Subscription) count(n uint64) {
	s.dropped.Add(n)
	s.bus.dropped.Add(n)
}

// Dropped is the number of messages this subscription lost because its reader
// was slow. (Those lost with a connection cannot be counted.)
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the delivery and closes C. Calling it again does nothing.
func (s *Subscription) Close() {
	s.mu.Lock()
	sub, first := s.sub, !s.isClosed
	if first {
		s.isClosed = true
		close(s.c)
	}
	s.mu.Unlock()
	if !first {
		return
	}
	s.bus.remove(s) // takes the Bus's lock, under which subscriptions are locked: not under ours
	if sub != nil {
		// The only error is that it or the connection has ended already, which is what we want.
		_ = sub.Unsubscribe()
	}
}
