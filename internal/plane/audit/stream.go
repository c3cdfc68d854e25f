package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/bus"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/route"
)

const (
	heartbeat    = 15 * time.Second
	writeTimeout = 30 * time.Second // a reader slower than this is let go
	streamPage   = 256
)

// LogSubject is where a log's growth is announced on the bus; the message is
// the new size. The announcement only wakes: what is sent is read from the log.
func LogSubject(tenant string) bus.Subject { return bus.Subject{"log", tenant} }

// follow calls send with every event of the tenant's log after sequence after
// that the filter selects, in order and without end, and idle when nothing
// happened for a heartbeat. It returns when ctx or the server ends, or with an
// error of send or idle.
func (s *Service) follow(ctx context.Context, tenant string, f evidence.Filter, after int64, send func(evidence.Stored) error, idle func() error) error {
	sub, err := s.bus.Subscribe(ctx, LogSubject(tenant), 1)
	if err != nil {
		return err
	}
	defer sub.Close()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		page, more, err := s.log.List(ctx, tenant, f, after, streamPage)
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := send(e); err != nil {
				return err
			}
			after = e.Sequence
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.stop:
			return nil
		case <-beat.C: // also finds what another replica wrote while the bus was away
			if err := idle(); err != nil {
				return err
			}
		case _, open := <-sub.C:
			if !open {
				return nil
			}
		}
	}
}

// start is where a stream begins: after the event that Last-Event-ID names, or
// at the log's end as of now.
func (s *Service) start(c *route.Call, f evidence.Filter) (int64, error) {
	ctx, tenant := c.R.Context(), c.Principal.Tenant
	if last := c.R.Header.Get("Last-Event-ID"); last != "" {
		if n, err := strconv.ParseInt(last, 10, 64); err == nil && n >= 0 {
			return n, nil
		}
		e, err := s.log.Get(ctx, tenant, last)
		if err != nil {
			return 0, kernel.InvalidField("Last-Event-ID", "is neither a sequence nor the id of an event here")
		}
		return e.Sequence, nil
	}
	if f.FromSequence > 0 || !f.From.IsZero() {
		return 0, nil // the filter says where to begin
	}
	h, err := s.log.Head(ctx, tenant)
	return h.Size, err
}

// stream is GET /v1/events/stream.
func (s *Service) stream(c *route.Call) (any, error) {
	if err := c.OnlyQuery(filterNames...); err != nil {
		return nil, err
	}
	f, err := filter(c)
	if err != nil {
		return nil, err
	}
	if err := s.check(c, "event.list", "Event", "", nil); err != nil {
		return nil, err
	}
	after, err := s.start(c, f)
	if err != nil {
		return nil, err
	}
	h := c.W.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	c.W.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(c.W)
	write := func(text string) error {
		if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := c.W.Write([]byte(text)); err != nil {
			return err
		}
		return rc.Flush()
	}
	if err := write(": following\n\n"); err != nil {
		return route.Written, nil
	}
	err = s.follow(c.R.Context(), c.Principal.Tenant, f, after,
		func(e evidence.Stored) error {
			return write(fmt.Sprintf("id: %d\nevent: audit\ndata: %s\n\n", e.Sequence, e.Event))
		},
		func() error {
			if err := s.check(c, "event.list", "Event", "", nil); err != nil { // rights may have gone since
				return err
			}
			return write(": still here\n\n")
		})
	if err != nil && c.R.Context().Err() == nil {
		s.logger.DebugContext(c.R.Context(), "event stream ended", "err", err)
	}
	return route.Written, nil
}

// The interop contract's names for what happens to tenants and workloads
// differ from the audit events'; these channels carry projections (ecs.md §9).
var projections = map[string]map[string]string{
	"audit":  nil,
	"tenant": {"olz.bootstrap": "created", "tenant.update": "updated", "tenant.suspend": "suspended", "tenant.delete": "deleted"},
	"workload": {"execution.admit": "admitted", "workload.envelope.start": "updated", "workload.envelope.stop": "updated",
		"workload.envelope.destroy": "terminated"},
}

// project returns the channel's message for an event, nil when it has none.
func project(channel string, line []byte) ([]byte, error) {
	names := projections[channel]
	if names == nil {
		return line, nil
	}
	var e map[string]json.RawMessage
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, err
	}
	var typ, outcome string
	if err := errors.Join(json.Unmarshal(e["event_type"], &typ), json.Unmarshal(e["outcome"], &outcome)); err != nil {
		return nil, err
	}
	name, ok := names[typ]
	if !ok || outcome != "accepted" {
		return nil, nil
	}
	payload := map[string]json.RawMessage{}
	if err := json.Unmarshal(e["payload"], &payload); err != nil {
		return nil, err
	}
	for _, k := range []string{"authority_snapshot_id", "policy_snapshot_id", "resource_id"} {
		if e[k] != nil {
			payload[k] = e[k]
		}
	}
	payload["audit_event_hash"] = e["event_hash"]
	p, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{"event_type": json.RawMessage(strconv.Quote(name)), "payload": p}
	for _, k := range []string{"id", "occurred_at", "tenant_id", "outcome", "evidence_pointer", "sequence", "actor", "correlation_id"} {
		if e[k] != nil {
			out[k] = e[k]
		}
	}
	return json.Marshal(out)
}

// channel is a WebSocket subscription. It decides before it upgrades, only
// sends, and has one writer.
func (s *Service) channel(c *route.Call) (any, error) {
	name := c.Path("channel")
	if _, ok := projections[name]; !ok {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "there is no such channel; there are audit, tenant and workload"}
	}
	if err := c.OnlyQuery("from_sequence"); err != nil {
		return nil, err
	}
	from, err := c.Int("from_sequence", 0, 0, 1<<40-1)
	if err != nil {
		return nil, err
	}
	f := evidence.Filter{FromSequence: from}
	if err := s.check(c, "event.list", "Event", "", nil); err != nil {
		return nil, err
	}
	after, err := s.start(c, f)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Accept(c.W, c.R, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled}) // it refuses foreign origins
	if err != nil {
		return route.Written, nil // Accept has answered
	}
	defer ws.CloseNow() //nolint:errcheck // closed already on every orderly path
	ws.SetReadLimit(1 << 10)
	ctx := ws.CloseRead(c.R.Context()) // a subscriber has nothing to say but goodbye
	err = s.follow(ctx, c.Principal.Tenant, f, after,
		func(e evidence.Stored) error {
			msg, err := project(name, e.Event)
			if err != nil || msg == nil {
				return err
			}
			wctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			return ws.Write(wctx, websocket.MessageText, msg)
		},
		func() error {
			if err := s.check(c, "event.list", "Event", "", nil); err != nil {
				return err
			}
			pctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			return ws.Ping(pctx)
		})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.logger.DebugContext(ctx, "channel ended", "channel", name, "err", err)
		ws.Close(websocket.StatusPolicyViolation, "the subscription ended") //nolint:errcheck // best effort
	default:
		ws.Close(websocket.StatusGoingAway, "the server is shutting down") //nolint:errcheck // best effort
	}
	return route.Written, nil
}
