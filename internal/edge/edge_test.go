package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"provost.dev/provost/internal/edge"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/route"
)

// guard accepts the token "good" and remembers what it rejected.
type guard struct {
	mu       sync.Mutex
	rejected []string
}

func (g *guard) Authenticate(_ context.Context, token string) (*identity.Principal, error) {
	switch token {
	case "good":
		return &identity.Principal{Tenant: "demo", Name: "ada"}, nil
	case "away":
		return nil, kernel.Errorf(kernel.Unavailable, "", "the keys cannot be read")
	}
	return nil, &kernel.Error{Kind: kernel.Unauthenticated, Rule: "credential_unknown", Msg: "the token is not good"}
}

func (g *guard) Reject(_ context.Context, _ string, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejected = append(g.rejected, kernel.AsError(err).Rule)
	e := *kernel.AsError(err)
	e.EventID, e.Pointer = "ev-rejected", "/v1/events/ev-rejected"
	return &e
}

// recorder remembers what was refused.
type recorder struct{ actions []govern.Action }

func (r *recorder) Refuse(_ context.Context, a govern.Action, err error) error {
	r.actions = append(r.actions, a)
	e := *kernel.AsError(err)
	e.EventID, e.Pointer = "ev-refused", "/v1/events/ev-refused"
	return &e
}

// house is a door with what stands behind it.
type house struct {
	http.Handler
	guard    *guard
	record   *recorder
	log      *strings.Builder
	observed []edge.Observation
	ready    error
}

func build(routes ...route.Route) *house {
	h := &house{guard: &guard{}, record: &recorder{}, log: &strings.Builder{}}
	h.Handler = edge.Handler(edge.Config{Routes: routes, Auth: h.guard, Record: h.record, Anonymous: &identity.Principal{Name: "anonymous"},
		Logger:  slog.New(slog.NewTextHandler(h.log, nil)),
		Ready:   func(context.Context) error { return h.ready },
		Observe: func(o edge.Observation) { h.observed = append(h.observed, o) }})
	return h
}

// send makes a request as ada; headers are names and values in turn.
func (h *house) send(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer good")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func failing(family route.Family, method, path string, err error) route.Route {
	return route.Route{Method: method, Path: path, Family: family, Verb: "thing.do", Handle: func(*route.Call) (any, error) { return nil, err }}
}

func open(method, path string, handle func(c *route.Call) (any, error)) route.Route {
	return route.Route{Method: method, Path: path, Family: route.Interop, Public: "a test", Handle: handle}
}

func TestCorrelationID(t *testing.T) {
	var seen string
	h := build(open("GET", "/v1/x", func(c *route.Call) (any, error) { seen = c.Correlation; return nil, nil }))
	for _, id := range []string{"a", "trace-1/2:3", strings.Repeat("x", 128)} {
		if got := h.send("GET", "/v1/x", "", "X-Correlation-ID", id).Header().Get("X-Correlation-ID"); got != id || seen != id {
			t.Errorf("sent %q, returned %q, the handler saw %q", id, got, seen)
		}
	}
	made := map[string]bool{}
	for _, id := range []string{"", strings.Repeat("x", 129), "a b", "a\tb", "é", "\x7f", "a\xff"} {
		got := h.send("GET", "/v1/x", "", "X-Correlation-ID", id).Header().Get("X-Correlation-ID")
		if got == id || got == "" || got != seen || made[got] {
			t.Errorf("sent %q, returned %q, the handler saw %q; want a new one", id, got, seen)
		}
		made[got] = true
	}
}

func TestEveryResponseSaysHowLongItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(answer any, err error) func(*route.Call) (any, error) {
			return func(*route.Call) (any, error) { time.Sleep(1500 * time.Millisecond); return answer, err }
		}
		h := build(open("GET", "/v1/json", slow(map[string]int{"n": 1}, nil)), open("GET", "/v1/none", slow(nil, nil)),
			open("GET", "/v1/raw", slow(route.Raw{ContentType: "text/plain", Body: []byte("x")}, nil)),
			open("GET", "/v1/error", slow(nil, errors.New("odd"))),
			open("GET", "/v1/panic", func(*route.Call) (any, error) { time.Sleep(1500 * time.Millisecond); panic("odd") }),
			open("GET", "/v1/stream", func(c *route.Call) (any, error) {
				time.Sleep(1500 * time.Millisecond)
				return route.Written, http.NewResponseController(c.W).Flush()
			}),
			failing(route.Interop, "POST", "/v1/door", nil))
		for path, want := range map[string]struct {
			status   int
			duration string
		}{
			"/v1/json": {200, "1500"}, "/v1/none": {200, "1500"}, "/v1/raw": {200, "1500"}, "/v1/error": {500, "1500"}, "/v1/panic": {500, "1500"}, "/v1/stream": {200, "1500"},
			"/v1/door": {405, "0"}, "/nothing": {404, "0"}, "/v1/../x": {404, "0"}, "/healthz": {200, "0"}, "/readyz": {200, "0"},
		} {
			w := h.send("GET", path, "")
			if got := w.Result().Header.Get("X-Request-Duration"); w.Code != want.status || got != want.duration {
				t.Errorf("%s: status %d, duration %q; want %+v", path, w.Code, got, want)
			}
			if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("%s: X-Content-Type-Options %q", path, got)
			}
			if o := h.observed[len(h.observed)-1]; o.Status != want.status || strconv.FormatInt(o.Duration.Milliseconds(), 10) != want.duration {
				t.Errorf("%s: observed %+v, want %+v", path, o, want)
			}
		}
	})
}

func TestErrorBodies(t *testing.T) {
	secret := errors.New("password=hunter2")
	for name, tt := range map[string]struct {
		family route.Family
		err    error
		status int
		want   string
	}{
		"interop, own code": {route.Interop, &kernel.Error{Kind: kernel.Conflict, Code: "ECS_TENANT_EXISTS", Msg: "is there", Fix: "choose another", Err: secret, EventID: "e", Pointer: "/v1/events/e"}, 409,
			`{"code":"ECS_TENANT_EXISTS","message":"is there","fix":"choose another","evidence_pointer":"/v1/events/e","evidence_profile_id":"ecs-evidence-baseline"}`},
		"interop, default code": {route.Interop, &kernel.Error{Kind: kernel.TooMany, RetryAfter: 7}, 429, `{"code":"ECS_RATE_LIMITED","message":"too_many"}`},
		"interop, field":        {route.Interop, &kernel.Error{Kind: kernel.Invalid, Field: "name", Msg: "is empty", EventID: "e"}, 400, `{"code":"ECS_INVALID_REQUEST","message":"name is empty","field":"name"}`},
		"interop, internal":     {route.Interop, secret, 500, `{"code":"ECS_INTERNAL","message":"something went wrong on our side; the log knows it by this correlation id"}`},
		"task, own code":        {route.Task, &kernel.Error{Kind: kernel.Locked, Code: "HELD", Msg: "is held", EventID: "e"}, 423, `{"error":{"code":"HELD","message":"is held","retryable":true}}`},
		"task, default code":    {route.Task, &kernel.Error{Kind: kernel.Refused, Msg: "no", Rule: "r", Rules: []string{"q", "r"}, EventID: "e"}, 403, `{"error":{"code":"PERMISSION_DENIED","message":"no","rule_id":"r","rules":["q","r"],"retryable":false}}`},
		"task, internal":        {route.Task, &kernel.Error{Kind: kernel.Internal, Code: "X", Msg: "hunter2", Err: secret}, 500, `{"error":{"code":"UNKNOWN","message":"something went wrong on our side; the log knows it by this correlation id","retryable":false}}`},
		"task, unavailable":     {route.Task, &kernel.Error{Kind: kernel.Unavailable, Msg: "the disk is full", Err: secret, RetryAfter: 7}, 503, `{"error":{"code":"UNAVAILABLE","message":"the disk is full","retryable":true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(failing(tt.family, "POST", "/v1/x", tt.err))
			w := h.send("POST", "/v1/x", "{}")
			if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != tt.status || got != tt.want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("status %d, %s\n%s\nwant %d\n%s", w.Code, w.Header().Get("Content-Type"), got, tt.status, tt.want)
			}
			e := kernel.AsError(tt.err)
			if e.RetryAfter != 0 && w.Header().Get("Retry-After") != "7" {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
			if got := w.Header().Get("X-Event-ID"); got != e.EventID {
				t.Errorf("X-Event-ID %q, want %q", got, e.EventID)
			}
			if errors.Is(tt.err, secret) && (tt.status >= 500) && !strings.Contains(h.log.String(), "hunter2") {
				t.Errorf("the cause is not in the log: %s", h.log)
			}
		})
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	none := func(*route.Call) (any, error) { return nil, nil }
	task := open("POST", "/api/v1/login", none)
	task.Family = route.Task
	h := build(open("GET", "/v1/things/{id}", none), open("POST", "/v1/things", none), open("GET", "/v1/things", none), task)
	for _, tt := range []struct {
		method, path, allow, body string
		status                    int
	}{
		{"DELETE", "/v1/things", "POST, GET", `{"code":"ECS_METHOD_NOT_ALLOWED"`, 405},
		{"PUT", "/v1/things/7", "GET", `{"code":"ECS_METHOD_NOT_ALLOWED"`, 405},
		{"GET", "/api/v1/login", "POST", `{"error":{"code":"METHOD_NOT_ALLOWED"`, 405},
		{"GET", "/v1/nothing", "", `{"code":"ECS_NOT_FOUND"`, 404},
		{"GET", "/api/v1/nothing", "", `{"error":{"code":"NOT_FOUND"`, 404},
		{"GET", "/v1/things/%00", "", `{"code":"ECS_NOT_FOUND"`, 404},
		{"GET", "/v1/things/%ff", "", `{"code":"ECS_NOT_FOUND"`, 404},
		{"GET", "/v1/things/%2e%2e", "", `{"code":"ECS_NOT_FOUND"`, 404},
		{"GET", "/v1//things", "", `{"code":"ECS_NOT_FOUND"`, 404},
	} {
		w := h.send(tt.method, tt.path, "")
		if w.Code != tt.status || w.Header().Get("Allow") != tt.allow || !strings.HasPrefix(w.Body.String(), tt.body) {
			t.Errorf("%s %s: status %d, Allow %q, %s; want %+v", tt.method, tt.path, w.Code, w.Header().Get("Allow"), w.Body, tt)
		}
	}
	if w := h.send("GET", "/v1/things/7", ""); w.Code != 200 || h.observed[len(h.observed)-1].Route != "GET /v1/things/{id}" {
		t.Errorf("a known path: %d, observed %+v", w.Code, h.observed[len(h.observed)-1])
	}
}

func TestAPanicIsA500WithoutItsText(t *testing.T) {
	panics := func(*route.Call) (any, error) { panic("hunter2") }
	task := open("GET", "/api/v1/x", panics)
	task.Family = route.Task
	h := build(open("GET", "/v1/x", panics), task, open("GET", "/v1/late", func(c *route.Call) (any, error) {
		if _, err := io.WriteString(c.W, "begun"); err != nil {
			return nil, err
		}
		panic("hunter2")
	}))
	for path, want := range map[string]string{"/v1/x": `{"code":"ECS_INTERNAL"`, "/api/v1/x": `{"error":{"code":"UNKNOWN"`} {
		w := h.send("GET", path, "")
		if w.Code != 500 || !strings.HasPrefix(w.Body.String(), want) || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := h.send("GET", "/v1/late", ""); w.Body.String() != "begun" {
		t.Errorf("an error was written into a response under way: %s", w.Body)
	}
	if n := strings.Count(h.log.String(), "hunter2"); n < 3 {
		t.Errorf("the log has %d of 3 panics", n)
	}
}

func TestWithoutAGoodCredential(t *testing.T) {
	h := build(failing(route.Interop, "GET", "/v1/x", nil), open("POST", "/v1/login", func(*route.Call) (any, error) {
		return nil, kernel.Errorf(kernel.Unauthenticated, "", "wrong password")
	}))
	for header, rule := range map[string]string{"": "credential_missing", "Bearer": "credential_malformed", "Bearer ": "credential_malformed", "Basic good": "credential_malformed", "Bearer bad": "credential_unknown"} {
		h.guard.rejected = nil
		w := h.send("GET", "/v1/x", "", "Authorization", header)
		if w.Code != 401 || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer ") || w.Header().Get("X-Event-ID") != "ev-rejected" {
			t.Errorf("%q: %d, %v", header, w.Code, w.Header())
		}
		if len(h.guard.rejected) != 1 || h.guard.rejected[0] != rule {
			t.Errorf("%q: rejected as %q, want %q", header, h.guard.rejected, rule)
		}
	}
	h.guard.rejected = nil
	if w := h.send("GET", "/v1/x", "", "Authorization", "Bearer away"); w.Code != 503 || w.Header().Get("WWW-Authenticate") != "" || h.guard.rejected != nil {
		t.Errorf("keys away: %d, %v, rejected %q; want 503, and no word about the credential", w.Code, w.Header(), h.guard.rejected)
	}
	if w := h.send("POST", "/v1/login", "", "Authorization", ""); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("a wrong password: %d, %v", w.Code, w.Header())
	}
	if w := h.send("GET", "/v1/x", "", "Authorization", "bearer good"); w.Code != 200 {
		t.Errorf("a good token: %d %s", w.Code, w.Body)
	}
}

func TestRefusalsLeaveEvidence(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		err    error
		want   bool
	}{
		"refused":         {"GET", kernel.Errorf(kernel.Refused, "", "no"), true},
		"not found":       {"GET", kernel.Errorf(kernel.NotFound, "", "none"), true},
		"invalid change":  {"POST", kernel.InvalidField("name", "is empty"), true},
		"invalid read":    {"GET", kernel.InvalidField("limit", "is 0"), false},
		"recorded before": {"POST", &kernel.Error{Kind: kernel.Refused, EventID: "ev-before"}, false},
		"internal":        {"POST", errors.New("odd"), false},
		"unavailable":     {"POST", kernel.Errorf(kernel.Unavailable, "", "away"), false},
		"too many":        {"POST", kernel.Errorf(kernel.TooMany, "", "slow down"), false},
	} {
		h := build(failing(route.Interop, tt.method, "/v1/things/{id}", tt.err))
		w := h.send(tt.method, "/v1/things/7", "{}", "X-Correlation-ID", "corr")
		if got := len(h.record.actions) == 1; got != tt.want || got != (w.Header().Get("X-Event-ID") == "ev-refused") {
			t.Errorf("%s: recorded %+v, event %q; want %v", name, h.record.actions, w.Header().Get("X-Event-ID"), tt.want)
			continue
		}
		if !tt.want {
			continue
		}
		a := h.record.actions[0]
		if a.Verb != "thing.do" || a.Principal.Name != "ada" || a.Correlation != "corr" || a.ResourceID != "things/7" {
			t.Errorf("%s: recorded %+v", name, a)
		}
		if f := kernel.AsError(tt.err).Field; f != "" && a.Details["field"] != f {
			t.Errorf("%s: details %v, want the field", name, a.Details)
		}
	}
	h := build(failing(route.Interop, "GET", "/v1/things/{id}", kernel.Errorf(kernel.NotFound, "", "none")))
	h.send("GET", "/v1/things/x"+strings.Repeat("%C3%A9", 300), "")
	if id := h.record.actions[0].ResourceID; len(id) > 256 || len(id) < 250 || !utf8.ValidString(id) {
		t.Errorf("a long path is recorded as %q", id)
	}
}

func TestReadiness(t *testing.T) {
	h := build()
	h.ready = errors.New("hunter2")
	if w := h.send("GET", "/readyz", ""); w.Code != 503 || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("not ready: %d %s", w.Code, w.Body)
	}
	if w := h.send("GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("alive, but not ready: %d", w.Code)
	}
}

// pipes is a listener of connections within the process: their deadlines obey synctest's clock.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.over) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func TestABodyThatDoesNotArriveTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(open("POST", "/v1/x", func(c *route.Call) (any, error) { var v struct{}; return nil, c.Into(&v) }))
		p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
		srv := &http.Server{Handler: h}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		client, server := net.Pipe()
		p.conns <- server
		start := time.Now()
		go func() {
			if _, err := io.WriteString(client, "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{"); err != nil {
				t.Error(err)
			}
		}()
		answer, err := io.ReadAll(client) // until the server hangs up
		if err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "could not be read to its end") {
			t.Errorf("answered %s", answer)
		}
		if took := time.Since(start); took < 30*time.Second || took > time.Minute {
			t.Errorf("answered after %v, want 30 s", took)
		}
		if err := errors.Join(client.Close(), srv.Close()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// net/http would say 200 for a handler that says nothing, and a caller that
// closed only its sending side still reads.
func TestAnAbandonedRequestIsNotASuccess(t *testing.T) {
	h := build(open("GET", "/v1/x", func(c *route.Call) (any, error) { <-c.R.Context().Done(); return nil, c.R.Context().Err() }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/x", nil))
	if w.Code != 503 || strings.Contains(h.log.String(), "level=ERROR") {
		t.Errorf("%d %s, log: %s; want 503, and no error of ours", w.Code, w.Body, h.log)
	}
}

func TestBoundedKeepsSomeRejectionsPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guard{}
		a := edge.Bounded(g, 3)
		flood := func() (recorded int) {
			for range 10 {
				err := a.Reject(t.Context(), "c", kernel.Errorf(kernel.Unauthenticated, "", "no"))
				e := kernel.AsError(err)
				if e.Kind != kernel.Unauthenticated {
					t.Errorf("rejected with %v", err)
				}
				if e.EventID != "" {
					recorded++
				}
			}
			return recorded
		}
		for n, want := range []int{3, 0, 3} {
			if got := flood(); got != want {
				t.Errorf("flood %d: %d recorded, want %d", n, got, want)
			}
			time.Sleep(600 * time.Millisecond)
		}
		if len(g.rejected) != 6 {
			t.Errorf("%d recorded, want 6", len(g.rejected))
		}
		if _, err := a.Authenticate(t.Context(), "good"); err != nil {
			t.Errorf("a good token during a flood: %v", err)
		}
	})
}

func TestSuccess(t *testing.T) {
	h := build(open("POST", "/v1/x", func(c *route.Call) (any, error) {
		c.Created("/v1/x/1")
		return map[string]string{"id": "1"}, nil
	}), route.Route{Method: "POST", Path: "/v1/y", Public: "a test", Status: 201, Handle: func(c *route.Call) (any, error) { c.Status = 202; return nil, nil }},
		open("GET", "/v1/bad", func(*route.Call) (any, error) { return func() {}, nil }))
	w := h.send("POST", "/v1/x", "{}")
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 || body["id"] != "1" || w.Header().Get("Location") != "/v1/x/1" {
		t.Errorf("%d %s %v %v", w.Code, w.Body, w.Header(), err)
	}
	if w := h.send("POST", "/v1/y", "{}"); w.Code != 202 || w.Body.Len() != 0 {
		t.Errorf("the call's own status: %d %s", w.Code, w.Body)
	}
	if w := h.send("GET", "/v1/bad", ""); w.Code != 500 {
		t.Errorf("a body that is no JSON: %d %s", w.Code, w.Body)
	}
}
