package acceptance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// message is one server-sent event.
type message struct{ id, event, data string }

// stream opens the live stream and delivers its messages until ctx ends.
func (c *client) stream(ctx context.Context, t testing.TB, query, lastEventID string) <-chan message {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", c.base+"/v1/events/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := (&http.Client{Transport: transport.Transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("stream: %d %s", resp.StatusCode, b)
	}
	out := make(chan message, 1024)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var m message
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			k, v, _ := strings.Cut(s.Text(), ": ")
			switch {
			case s.Text() == "" && m.data != "":
				out <- m
				m = message{}
			case k == "id":
				m.id = v
			case k == "event":
				m.event = v
			case k == "data":
				m.data = v
			}
		}
	}()
	return out
}

// next waits for a message.
func next(t testing.TB, from <-chan message) message {
	t.Helper()
	select {
	case m, open := <-from:
		if !open {
			t.Fatal("the stream ended")
		}
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message within 20 s")
	}
	return message{}
}

func TestStreamResumes(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	ctx, cut := context.WithCancel(under(t, time.Minute))
	live := tn.op.stream(ctx, t, "", "")
	var seen []string
	for i := range 3 {
		tn.op.ask(t, fmt.Sprint("live ", i))
		m := next(t, live)
		seen = append(seen, m.data)
		if e := parseNumbers(t, []byte(m.data)).(object); m.event != "audit" || fmt.Sprint(e["sequence"]) != m.id || eventHash(t, e) != e["event_hash"] {
			t.Errorf("message %q of type %q holds event %v", m.id, m.event, e["sequence"])
		}
	}
	last := tn.op.events(t, "")
	cut()
	for i := range 3 {
		tn.op.ask(t, fmt.Sprint("while away ", i))
	}
	end := last[len(last)-1]
	for _, resume := range []string{fmt.Sprint(end["sequence"]), end["id"].(string)} {
		ctx, cancel := context.WithCancel(under(t, time.Minute))
		back := tn.op.stream(ctx, t, "", resume)
		want := tn.op.events(t, fmt.Sprint("from_sequence=", len(last)+1))
		for _, e := range want {
			if m := next(t, back); m.id != fmt.Sprint(e["sequence"]) {
				t.Errorf("after %s comes %s, want %v", resume, m.id, e["sequence"])
			}
		}
		tn.op.ask(t, "live again")
		if m := next(t, back); m.id != fmt.Sprint(number(t, want[len(want)-1]["sequence"])+1) {
			t.Errorf("after what was missed comes %s", m.id)
		}
		cancel()
	}
	// From the beginning, filtered: exactly what the list shows.
	ctx, cancel := context.WithCancel(under(t, time.Minute))
	defer cancel()
	whole := tn.op.stream(ctx, t, "?from_sequence=1&event_type=policy.evaluate", "")
	for _, e := range tn.op.events(t, "event_type=policy.evaluate") {
		if m := next(t, whole); m.id != fmt.Sprint(e["sequence"]) {
			t.Errorf("streamed %s, listed %v", m.id, e["sequence"])
		}
	}
	for _, data := range seen {
		id := parseNumbers(t, []byte(data)).(object)["id"].(string)
		if got := strings.TrimSpace(string(tn.op.get(t, "/v1/events/"+id).want(200).body)); got != data {
			t.Errorf("streamed %s, stored %s", data, got)
		}
	}
	tn.op.do(t, "GET", "/v1/events/stream", nil, "Last-Event-ID", "nonsense").want(400)
	tn.op.do(t, "GET", "/v1/events/stream?colour=red", nil).want(400)
	tn.op.get(t, "/v1/events/stream?tenant=rival").want(404)
}

// TestStreamUnderLoad: while others write, a follower gets everything once and in order.
func TestStreamUnderLoad(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	live := tn.op.stream(under(t, time.Minute), t, "?from_sequence=1", "")
	const writers, each = 4, 50
	for range writers {
		go func() {
			for range each {
				tn.op.try("POST", "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload"}}) //nolint:errcheck // what arrived is counted below
			}
		}()
	}
	for n := 1; n <= writers*each; n++ {
		if m := next(t, live); m.id != fmt.Sprint(n) {
			t.Fatalf("message %d is event %s", n, m.id)
		}
	}
}

// A right that was taken away ends the stream, at the latest with a heartbeat;
// what is worth a test in less time is that it never begins.
func TestStreamIsGuarded(t *testing.T) {
	t.Parallel()
	nobody := shared.as(t, "nobody", "demo")
	nobody.get(t, "/v1/events/stream").refused(nobody, 403)
	nobody.get(t, "/events/audit").refused(nobody, 403)
	rejected(t, shared.as(t, "viewer", "demo"), func() *answer { return shared.anonymous().get(t, "/v1/events/stream") })
}

// subscribe opens a WebSocket channel.
func (c *client) subscribe(t testing.TB, channel string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.Dial(under(t, time.Minute), strings.Replace(c.base, "http://", "ws://", 1)+"/events/"+channel,
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + c.token}}})
	if err != nil {
		t.Fatalf("subscribe to %s: %v", channel, err)
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { ws.CloseNow() }) //nolint:errcheck // the test is over
	return ws
}

func receive(t testing.TB, ws *websocket.Conn) []byte {
	t.Helper()
	typ, b, err := ws.Read(under(t, 20*time.Second))
	if err != nil || typ != websocket.MessageText {
		t.Fatalf("receive: %v (type %v)", err, typ)
	}
	return b
}

// channelFields are what every AsyncAPI message must have (ecs.md §9).
var channelFields = []string{"id", "occurred_at", "tenant_id", "event_type", "outcome", "evidence_pointer", "sequence", "payload"}

func TestASY01AuditChannel(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	ws := tn.op.subscribe(t, "audit?from_sequence=1")
	for i := range 5 {
		tn.op.ask(t, fmt.Sprint("asy01 ", i))
	}
	tn.op.post(t, "/v1/workloads", object{}).refused(tn.op, 400)
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(tn.op.get(t, "/v1/events?limit=1000").want(200).body, &page); err != nil {
		t.Fatal(err)
	}
	var events []object
	for i, want := range page.Items {
		got := receive(t, ws)
		if string(got) != string(want) {
			t.Fatalf("message %d is %s, the list has %s", i+1, clip(got), clip(want))
		}
		e := parseNumbers(t, got).(object)
		for _, field := range channelFields {
			if e[field] == nil {
				t.Errorf("message %d has no %s", i+1, field)
			}
		}
		events = append(events, e)
	}
	checkChain(t, events)
	// Without a start it is live only.
	late := tn.op.subscribe(t, "audit")
	a := tn.op.ask(t, "live")
	if e := parseNumbers(t, receive(t, late)).(object); e["id"] != a.header.Get("X-Event-ID") {
		t.Errorf("the first live message is %v of %v", e["event_type"], e["sequence"])
	}
	tn.op.get(t, "/events/none").want(404)
	tn.op.get(t, "/events/ml").want(404)
}

func TestASY02Projections(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	admin, tn := shared.admin(t), shared.newTenant(t)
	tenants, workloads := tn.op.subscribe(t, "tenant?from_sequence=1"), tn.op.subscribe(t, "workload?from_sequence=1")
	expect := func(ws *websocket.Conn, want string) object {
		t.Helper()
		raw := receive(t, ws)
		m := parseNumbers(t, raw).(object)
		if m["event_type"] != want {
			t.Fatalf("the message is %v, want %s: %s", m["event_type"], want, raw)
		}
		for _, field := range channelFields {
			if m[field] == nil {
				t.Errorf("%s has no %s", want, field)
			}
		}
		audit := tn.op.get(t, "/v1/events/"+m["id"].(string)).want(200).json()
		for _, field := range []string{"sequence", "evidence_pointer", "occurred_at", "tenant_id", "outcome"} {
			if m[field] != audit[field] {
				t.Errorf("%s: %s is %v, the event's %v", want, field, m[field], audit[field])
			}
		}
		if m["event_hash"] != nil || m["prev_hash"] != nil || dig(m, "payload.audit_event_hash") != audit["event_hash"] {
			t.Errorf("%s: hashes of a projection: %s", want, raw)
		}
		return m
	}
	created := expect(tenants, "created")
	for _, field := range []string{"authority_snapshot_id", "policy_snapshot_id", "authority_binding"} {
		if dig(created, "payload."+field) == nil {
			t.Errorf("created: the payload has no %s", field)
		}
	}
	admin.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"contact": "c"}).want(200)
	expect(tenants, "updated")
	admin.post(t, "/v1/tenants/"+tn.id+"/suspend", nil).want(202)
	expect(tenants, "suspended")
	admin.do(t, "PATCH", "/v1/tenants/"+tn.id, object{"status": "active"}).want(200)
	expect(tenants, "updated")

	tn.op.post(t, "/v1/workloads", object{}).refused(tn.op, 400) // is not a workload's message
	id, _ := tn.run(t, tn.admissible(t))
	admitted := expect(workloads, "admitted")
	if dig(admitted, "payload.workload_id") != id || dig(admitted, "payload.envelope_type") != "container" || dig(admitted, "payload.policy_snapshot_id") == nil {
		t.Errorf("admitted: payload %v", admitted["payload"])
	}
	expect(workloads, "updated")
	tn.op.do(t, "DELETE", "/v1/workloads/"+id, nil).want(204)
	for {
		m := parseNumbers(t, receive(t, workloads)).(object)
		if !slices.Contains([]any{"updated", "terminated"}, m["event_type"]) {
			t.Fatalf("after the deletion comes %v", m["event_type"])
		}
		if m["event_type"] == "terminated" {
			break
		}
	}
}

// A page of another origin may not subscribe with its visitor's browser.
func TestChannelRefusesForeignOrigins(t *testing.T) {
	t.Parallel()
	op := shared.as(t, "operator", "demo")
	_, resp, err := websocket.Dial(under(t, 20*time.Second), strings.Replace(op.base, "http://", "ws://", 1)+"/events/audit",
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + op.token}, "Origin": {"https://evil.example"}}})
	if err == nil || resp == nil || resp.StatusCode != 403 {
		t.Errorf("a foreign origin: %v %v", resp, err)
	}
}

// Two tenants' channels: a follower hears of its own tenant only.
func TestChannelsAreApart(t *testing.T) {
	t.Parallel()
	a, b := shared.newTenant(t), shared.newTenant(t)
	ws := b.op.subscribe(t, "audit")
	a.op.ask(t, "of a")
	own := b.op.ask(t, "of b")
	if e := parseNumbers(t, receive(t, ws)).(object); e["tenant_id"] != b.id || e["id"] != own.header.Get("X-Event-ID") {
		t.Errorf("%s hears of %v", b.id, e["tenant_id"])
	}
}
