package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen. It is not how long it takes.
const patience = 20 * time.Second

func start(t *testing.T, cfg bus.Config) *bus.Bus {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	b, err := bus.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stop(t, b) })
	return b
}

func stop(t *testing.T, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func subscribe(t *testing.T, b *bus.Bus, subject bus.Subject, buffer int) *bus.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), subject, buffer)
	if err != nil {
		t.Fatalf("subscribe %v: %v", subject, err)
	}
	return s
}

func publish(t *testing.T, b *bus.Bus, subject bus.Subject, data string) {
	t.Helper()
	if err := b.Publish(subject, []byte(data)); err != nil {
		t.Fatalf("publish %v: %v", subject, err)
	}
}

func next(t *testing.T, s *bus.Subscription) bus.Message {
	t.Helper()
	select {
	case m, open := <-s.C:
		if !open {
			t.Fatal("subscription closed while a message was expected")
		}
		return m
	case <-time.After(patience):
		t.Fatal("no message")
	}
	panic("unreachable")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond) // between looks at a condition
	}
}

func TestEverySubscriberOfASubjectGetsEachMessageInOrder(t *testing.T) {
	b := start(t, bus.Config{})
	subject := bus.Subject{"events", "demo"}
	const readers, messages = 8, 200
	var wg sync.WaitGroup
	for range readers {
		s := subscribe(t, b, subject, messages)
		wg.Go(func() {
			for i := range messages {
				select {
				case m := <-s.C:
					if m.Gap || string(m.Data) != strconv.Itoa(i) || m.Subject.String() != "events.demo" {
						t.Errorf("message %d: got %+v", i, m)
						return
					}
				case <-time.After(patience):
					t.Errorf("message %d never came", i)
					return
				}
			}
		})
	}
	for i := range messages {
		publish(t, b, subject, strconv.Itoa(i))
	}
	wg.Wait()
}

func TestSubjectsOfTenantsDoNotMix(t *testing.T) {
	b := start(t, bus.Config{})
	// Ids that would reach beyond their own subject if they were joined as they are.
	ids := []string{"demo", "demo.workload", "*", ">", "demo.>", "$SYS", "a b", "a\nPUB x 0\r\n", "=2A", "é", "\x00"}
	subs := make(map[string]*bus.Subscription)
	for _, id := range ids {
		subs[id] = subscribe(t, b, bus.Subject{"events", id}, 64)
	}
	for _, id := range ids {
		publish(t, b, bus.Subject{"events", id}, id)
		publish(t, b, bus.Subject{"events", id, "workload"}, "deeper")
	}
	for _, id := range ids {
		publish(t, b, bus.Subject{"events", id}, "end")
		if m := next(t, subs[id]); string(m.Data) != id || m.Subject[1] != id {
			t.Errorf("%q: first message is %+v", id, m)
		}
		if m := next(t, subs[id]); string(m.Data) != "end" {
			t.Errorf("%q: got a second message %+v", id, m)
		}
	}
}

func TestSubscribeUnderSeesWhatIsBelowOnly(t *testing.T) {
	b := start(t, bus.Config{})
	s, err := b.SubscribeUnder(t.Context(), bus.Subject{"events", "demo"}, 8)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, bus.Subject{"events", "demo"}, "the prefix itself")
	publish(t, b, bus.Subject{"events", "demo2", "workload"}, "a neighbour")
	publish(t, b, bus.Subject{"events", "demo", "workload"}, "1")
	publish(t, b, bus.Subject{"events", "demo", "workload", "w.1"}, "2")
	for want, subject := range []string{"events.demo.workload", "events.demo.workload.w.1"} {
		m := next(t, s)
		if string(m.Data) != strconv.Itoa(want+1) || m.Subject.String() != subject {
			t.Errorf("got %v %q, want %s", m.Subject, m.Data, subject)
		}
	}
}

func TestASlowConsumerGetsOneGapAndCostsNobodyElse(t *testing.T) {
	b := start(t, bus.Config{})
	subject := bus.Subject{"events", "demo"}
	const buffer, messages = 4, 100
	slow := subscribe(t, b, subject, buffer)
	quick := subscribe(t, b, subject, messages)

	for i := range messages {
		publish(t, b, subject, strconv.Itoa(i))
	}
	for i := range messages {
		if m := next(t, quick); string(m.Data) != strconv.Itoa(i) {
			t.Fatalf("the quick consumer got %+v as message %d", m, i)
		}
	}
	eventually(t, "the rest is dropped", func() bool { return slow.Dropped() == messages-buffer })

	for i := range buffer {
		if m := next(t, slow); m.Gap || string(m.Data) != strconv.Itoa(i) {
			t.Fatalf("buffered message %d: got %+v", i, m)
		}
	}
	if m := next(t, slow); !m.Gap || m.Data != nil || m.Subject != nil {
		t.Fatalf("after the buffer: got %+v, want a gap", m)
	}
	// The reader has caught up; delivery goes on without another gap.
	publish(t, b, subject, "after")
	if m := next(t, slow); string(m.Data) != "after" {
		t.Fatalf("after the gap: got %+v", m)
	}
	if got := b.Stats(); got.Dropped != messages-buffer || got.Subscriptions != 2 || !got.Connected {
		t.Errorf("stats: %+v", got)
	}
}

// TestAReaderWhoFollowsTheRulesMissesNothing plays the loop of the package
// comment against a "database" and a buffer far too small.
func TestAReaderWhoFollowsTheRulesMissesNothing(t *testing.T) {
	b := start(t, bus.Config{})
	subject := bus.Subject{"events", "demo"}
	const writers, perWriter = 4, 500

	var mu sync.Mutex
	var committed []int
	s := subscribe(t, b, subject, 2)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range perWriter {
				mu.Lock()
				n := len(committed)
				committed = append(committed, n)
				mu.Unlock()
				if err := b.Publish(subject, []byte(strconv.Itoa(n))); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}

	// Had the last commit left neither message nor gap, next would end the test.
	for seen := 0; seen < writers*perWriter; {
		next(t, s)
		mu.Lock()
		seen = len(committed) // every message, gap or not, is only a reason to look
		mu.Unlock()
	}
	writing.Wait()
}

func TestCloseDeliversWhatWasPublishedAndEndsSubscriptions(t *testing.T) {
	b := start(t, bus.Config{})
	subject := bus.Subject{"jobs"}
	s := subscribe(t, b, subject, 64)
	for i := range 50 {
		publish(t, b, subject, strconv.Itoa(i))
	}
	stop(t, b)
	n := 0
	for m := range s.C {
		if string(m.Data) != strconv.Itoa(n) {
			t.Errorf("message %d: got %+v", n, m)
		}
		n++
	}
	if n != 50 {
		t.Errorf("got %d messages, want the 50 published before Close", n)
	}

	stop(t, b)
	s.Close()
	if err := b.Publish(subject, nil); kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("publish on a closed bus: %v", err)
	}
	if _, err := b.Subscribe(t.Context(), subject, 1); err == nil || kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("subscribe on a closed bus: %v", err)
	}
}

func TestCloseCutsWhenItsContextEnds(t *testing.T) {
	b := start(t, bus.Config{})
	s := subscribe(t, b, bus.Subject{"jobs"}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Close(ctx); err != nil && kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("close: %v", err)
	}
	for m := range s.C {
		t.Errorf("got %+v", m)
	}
	if b.Stats().Connected {
		t.Error("still connected")
	}
}

func TestStartAndStopConcurrentlyWithUse(t *testing.T) {
	b := start(t, bus.Config{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for {
				s, err := b.Subscribe(t.Context(), bus.Subject{"t", strconv.Itoa(i)}, 1)
				if err != nil {
					return // closed meanwhile
				}
				// Whether it fails depends on who is first; it must not race or hang.
				_ = b.Publish(bus.Subject{"t", strconv.Itoa(i)}, []byte("x"))
				s.Close()
				s.Close()
			}
		})
	}
	for range 2 {
		wg.Go(func() { stop(t, b) })
	}
	wg.Wait()
	if n := b.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

func TestAClosedSubscriptionReceivesNothingMore(t *testing.T) {
	b := start(t, bus.Config{})
	subject := bus.Subject{"events", "demo"}
	gone, stays := subscribe(t, b, subject, 8), subscribe(t, b, subject, 8)
	gone.Close()
	publish(t, b, subject, "x")
	next(t, stays)
	if m, open := <-gone.C; open {
		t.Errorf("got %+v after Close", m)
	}
	if n := b.Stats().Subscriptions; n != 1 {
		t.Errorf("%d subscriptions, want 1", n)
	}
}

func TestBadCallsAreRefused(t *testing.T) {
	b := start(t, bus.Config{})
	long := strings.Repeat("x", 257)
	calls := map[string]struct {
		err  error
		want kernel.Kind
	}{
		"no tokens":        {b.Publish(nil, nil), kernel.Invalid},
		"empty token":      {b.Publish(bus.Subject{"events", ""}, nil), kernel.Invalid},
		"long token":       {b.Publish(bus.Subject{long}, nil), kernel.Invalid},
		"too many tokens":  {b.Publish(bus.Subject{"1", "2", "3", "4", "5", "6", "7", "8", "9"}, nil), kernel.Invalid},
		"long when coded":  {b.Publish(bus.Subject{strings.Repeat(".", 256), strings.Repeat(".", 256)}, nil), kernel.Invalid},
		"large message":    {b.Publish(bus.Subject{"a"}, make([]byte, bus.MaxMessage+1)), kernel.TooLarge},
		"no buffer":        {second(b.Subscribe(t.Context(), bus.Subject{"a"}, 0)), kernel.Invalid},
		"huge buffer":      {second(b.Subscribe(t.Context(), bus.Subject{"a"}, bus.MaxBuffer+1)), kernel.Invalid},
		"empty subject":    {second(b.SubscribeUnder(t.Context(), nil, 1)), kernel.Invalid},
		"keys without URL": {second(bus.Start(t.Context(), bus.Config{CredentialsFile: "x.creds"})), kernel.Invalid},
		"unusable prefix":  {second(bus.Start(t.Context(), bus.Config{Prefix: long})), kernel.Invalid},
	}
	for name, c := range calls {
		if c.err == nil || kernel.KindOf(c.err) != c.want {
			t.Errorf("%s: got %v, want kind %v", name, c.err, c.want)
		}
	}
	if err := b.Publish(bus.Subject{"a"}, make([]byte, bus.MaxMessage)); err != nil {
		t.Errorf("a message of MaxMessage bytes: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestSubscriptionsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 16,384 subscriptions")
	}
	b := start(t, bus.Config{})
	for i := range bus.MaxSubscriptions {
		subscribe(t, b, bus.Subject{"s", strconv.Itoa(i)}, 1)
	}
	_, err := b.Subscribe(t.Context(), bus.Subject{"one", "more"}, 1)
	if err == nil || kernel.KindOf(err) != kernel.TooMany {
		t.Errorf("subscription %d: %v", bus.MaxSubscriptions+1, err)
	}
}

// external runs a NATS server on a loopback port (0 picks one) until the test ends.
func external(t *testing.T, port int) *natsserver.Server {
	t.Helper()
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	server, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoSystemAccount: true})
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(func() { server.Shutdown(); server.WaitForShutdown() })
	if !server.ReadyForConnections(patience) {
		t.Fatal("external server is not ready")
	}
	return server
}

func TestTwoProcessesMeetOnAnExternalServer(t *testing.T) {
	server := external(t, 0)
	one := start(t, bus.Config{URL: server.ClientURL()})
	two := start(t, bus.Config{URL: server.ClientURL()})
	other := start(t, bus.Config{URL: server.ClientURL(), Prefix: "other.system"})

	subject := bus.Subject{"events", "demo"}
	s, foreign := subscribe(t, two, subject, 8), subscribe(t, other, subject, 8)
	publish(t, one, subject, "hello")
	if m := next(t, s); string(m.Data) != "hello" {
		t.Errorf("got %+v", m)
	}
	publish(t, other, subject, "own")
	if m := next(t, foreign); string(m.Data) != "own" {
		t.Errorf("the other system got %+v", m)
	}
}

func TestALostServerLeavesAGapWhenItComesBack(t *testing.T) {
	server := external(t, 0)
	u, err := url.Parse(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, bus.Config{URL: server.ClientURL()})
	subject := bus.Subject{"events", "demo"}
	s := subscribe(t, b, subject, 8)

	server.Shutdown()
	server.WaitForShutdown()
	eventually(t, "the loss is noticed", func() bool { return !b.Stats().Connected })
	publish(t, b, subject, "kept in the outbox")
	external(t, port)

	gap, kept := false, false
	for !gap || !kept {
		switch m := next(t, s); {
		case m.Gap:
			gap = true
		case string(m.Data) == "kept in the outbox":
			kept = true
		default:
			t.Fatalf("got %+v", m)
		}
		if gap && !kept && s.Dropped() > 0 {
			break // the gap was already waiting when the message came, and covers it
		}
	}
	publish(t, b, subject, "after")
	if m := next(t, s); string(m.Data) != "after" {
		t.Errorf("got %+v", m)
	}
	if n := b.Stats().Reconnects; n != 1 {
		t.Errorf("%d reconnects, want 1", n)
	}
}

func TestAFullOutboxIsAnError(t *testing.T) {
	server := external(t, 0)
	b := start(t, bus.Config{URL: server.ClientURL()})
	server.Shutdown()
	server.WaitForShutdown()
	eventually(t, "the loss is noticed", func() bool { return !b.Stats().Connected })
	data := make([]byte, bus.MaxMessage)
	for range 1000 {
		if err := b.Publish(bus.Subject{"a"}, data); err != nil {
			if kernel.KindOf(err) != kernel.Unavailable {
				t.Errorf("got %v", err)
			}
			return
		}
	}
	t.Error("62 MiB went into the outbox of a lost connection")
}

func TestForeignTrafficBelowThePrefixIsAGap(t *testing.T) {
	server := external(t, 0)
	b := start(t, bus.Config{URL: server.ClientURL()})
	s, err := b.SubscribeUnder(t.Context(), bus.Subject{"events"}, 8)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Publish("provost.events.dé", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if m := next(t, s); !m.Gap {
		t.Errorf("got %+v, want a gap", m)
	}
}

func TestAnAbsentServerIsUnavailable(t *testing.T) {
	// A port that refuses, and one that accepts and never speaks.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, target := range map[string]string{
		"refused": "nats://user:secret@127.0.0.1:1",
		"silent":  "nats://user:secret@" + listener.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			var logged bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := bus.Start(ctx, bus.Config{URL: target, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			if err == nil || kernel.KindOf(err) != kernel.Unavailable {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v although the context ends after 300 ms", took)
			}
			if text := fmt.Sprint(err) + logged.String(); strings.Contains(text, "secret") {
				t.Errorf("the password shows in %q", text)
			}
		})
	}
}
