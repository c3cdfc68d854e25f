package bus

import (
	"strconv"
	"testing"
	"time"
)

// TestDropsInsideTheTransportAreMarked holds the receiving side still, as a
// process without CPU time would, until the transport itself drops.
func TestDropsInsideTheTransportAreMarked(t *testing.T) {
	b, err := Start(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	subject := Subject{"events", "demo"}
	s, err := b.Subscribe(t.Context(), subject, MaxBuffer)
	if err != nil {
		t.Fatal(err)
	}

	s.mu.Lock()
	const messages = transportMessages + 500
	for i := range messages {
		if err := b.Publish(subject, []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.conn.FlushTimeout(connectTimeout); err != nil { // all have come back
		t.Fatal(err)
	}
	s.mu.Unlock()

	received := 0
	for {
		select {
		case m := <-s.C:
			if !m.Gap {
				received++
				continue
			}
			if s.Dropped() == 0 {
				t.Error("a gap, but nothing counts as dropped")
			}
			return
		case <-time.After(20 * time.Second):
			t.Fatalf("received %d of %d messages, counted %d dropped, and no gap", received, messages, s.Dropped())
		}
	}
}

func TestTheServerInThisProcessOpensNoSocket(t *testing.T) {
	b, err := Start(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if addr := b.server.Addr(); addr != nil {
		t.Errorf("listens on %v", addr)
	}
	if addr := b.server.MonitorAddr(); addr != nil {
		t.Errorf("monitoring listens on %v", addr)
	}
}

// TestPutKeepsItsPromises walks every short history of arrivals and reads and
// checks that no drop goes unannounced and nothing blocks.
func TestPutKeepsItsPromises(t *testing.T) {
	const steps = 12
	for buffer := 1; buffer <= 3; buffer++ {
		for history := range 1 << steps {
			b := &Bus{}
			s := newSubscription(b, buffer)
			lastDropped, lastGapRead, arrived := -1, -1, 0
			for step := range steps {
				if history>>step&1 == 0 { // a message arrives
					before := s.Dropped()
					s.put(Message{Data: []byte{byte(arrived)}})
					if s.Dropped() > before {
						lastDropped = step
					}
					arrived++
				} else if len(s.C) > 0 { // the reader takes one
					if m := <-s.C; m.Gap {
						lastGapRead = step
					}
				}
			}
			for len(s.C) > 0 {
				if m := <-s.C; m.Gap {
					lastGapRead = steps
				}
			}
			if lastDropped > lastGapRead {
				t.Fatalf("buffer %d, history %0*b: dropped at step %d, last gap read at %d", buffer, steps, history, lastDropped, lastGapRead)
			}
		}
	}
}
