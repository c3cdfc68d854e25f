package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs h and returns a client of it that waits without letting time pass,
// noting what it would have waited.
func serve(t *testing.T, h http.HandlerFunc, o Options) (*Client, *waits) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &waits{}
	c.pause = w.pause
	return c, w
}

type waits struct {
	mu  sync.Mutex
	all []time.Duration
}

func (w *waits) pause(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, d)
	return ctx.Err()
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want an *Error", err, err)
	}
	return e
}

func TestNewRefusesWhatIsNoServer(t *testing.T) {
	for _, base := range []string{"", "localhost:8420", "ftp://host", "http://", "http://user:pw@host", "http://host/?q=1", "http://host/#x", "http://%zz"} {
		if _, err := New(base, Options{}); err == nil {
			t.Errorf("New(%q) succeeded", base)
		} else if e := asError(t, err); e.Code != CodeInvalid || e.Field != "url" {
			t.Errorf("New(%q): %+v", base, e)
		}
	}
}

func TestRequestsCarryWhatOptionsSay(t *testing.T) {
	var got *http.Request
	var body string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		w.Header().Set("X-Event-ID", "ev-1")
		w.Header().Set("X-Evidence-Pointer", "eosc://evidence/sha256:00")
		w.Header().Set("X-Correlation-ID", "corr-1")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"id":"acme","status":"active","young_field":1}`)
	}, Options{Token: StaticToken("tok"), UserAgent: "provost/1"})

	ctx := WithCorrelation(t.Context(), "corr-1")
	tenant, receipt, err := c.Tenants.Create(ctx, TenantSpec{ID: "acme", Jurisdiction: "DE"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.URL.Path != "/v1/tenants" {
		t.Errorf("request was %s %s", got.Method, got.URL.Path)
	}
	for name, want := range map[string]string{"Authorization": "Bearer tok", "User-Agent": "provost/1", "X-Correlation-Id": "corr-1", "Content-Type": "application/json"} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if want := `{"id":"acme","authority_binding":"","jurisdiction":"DE","classification_ceiling":"","policy_baseline":""}`; body != want {
		t.Errorf("body is %s, want %s", body, want)
	}
	if want := (Receipt{"ev-1", "eosc://evidence/sha256:00", "corr-1"}); receipt != want {
		t.Errorf("receipt is %+v, want %+v", receipt, want)
	}
	if tenant.ID != "acme" || !strings.Contains(string(tenant.JSON()), "young_field") {
		t.Errorf("tenant is %+v with JSON %s", tenant, tenant.JSON())
	}
}

func TestIDsAreEscapedAndCannotLeadElsewhere(t *testing.T) {
	var path string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		io.WriteString(w, `{}`)
	}, Options{})
	if _, err := c.Tenants.Get(t.Context(), "a/b c?d"); err != nil {
		t.Fatal(err)
	}
	if want := "/v1/tenants/a%2Fb%20c%3Fd"; path != want {
		t.Errorf("path is %s, want %s", path, want)
	}
	path = ""
	for _, id := range []string{"", ".", "..", "a\x00b"} {
		_, err := c.Tenants.Get(t.Context(), id)
		if err == nil || asError(t, err).Code != CodeInvalid {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if path != "" {
		t.Errorf("a request was sent to %s", path)
	}
}

func TestBasePathIsKept(t *testing.T) {
	var path string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		io.WriteString(w, `{}`)
	}))
	defer srv.Close()
	c, err := New(srv.URL+"/api/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tenants.Get(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if path != "/api/v1/tenants/acme" {
		t.Errorf("path is %s", path)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	get := func(c *Client, ctx context.Context) error { _, err := c.Tenants.Get(ctx, "a"); return err }
	post := func(c *Client, ctx context.Context) error {
		_, _, err := c.Tenants.Create(ctx, TenantSpec{})
		return err
	}
	del := func(c *Client, ctx context.Context) error { _, err := c.Tenants.Delete(ctx, "a"); return err }
	for _, tc := range []struct {
		name       string
		call       func(*Client, context.Context) error
		status     int
		retryAfter string
		requests   int32
	}{
		{"GET 503", get, 503, "", 4},
		{"GET 503 with a wait", get, 503, "2", 4},
		{"GET 429", get, 429, "1", 4},
		{"GET 502", get, 502, "", 4},
		{"GET told to wait for too long", get, 503, "3600", 1},
		{"GET 500", get, 500, "", 1},
		{"GET 404", get, 404, "", 1},
		{"GET 423", get, 423, "", 1},
		{"POST 503", post, 503, "1", 1},
		{"POST 429", post, 429, "1", 1},
		{"DELETE 503 with a wait", del, 503, "1", 4},
		{"DELETE 503 without", del, 503, "", 1},
		{"DELETE 502", del, 502, "1", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var n atomic.Int32
			c, w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				n.Add(1)
				if tc.retryAfter != "" {
					rw.Header().Set("Retry-After", tc.retryAfter)
				}
				rw.WriteHeader(tc.status)
			}, Options{})
			err := tc.call(c, t.Context())
			if e := asError(t, err); e.Status != tc.status {
				t.Errorf("status is %d, want %d", e.Status, tc.status)
			}
			if n.Load() != tc.requests {
				t.Errorf("%d requests, want %d", n.Load(), tc.requests)
			}
			if len(w.all) != int(tc.requests)-1 {
				t.Errorf("waited %v", w.all)
			}
			if tc.retryAfter == "2" && w.all[0] != 2*time.Second {
				t.Errorf("waited %v, want the 2s asked for", w.all[0])
			}
		})
	}
}

func TestLostConnectionIsTriedAgainForReadsOnly(t *testing.T) {
	var n atomic.Int32
	hangUp := func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 2 {
			io.WriteString(w, `{"id":"a"}`)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	}
	c, _ := serve(t, hangUp, Options{HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if _, err := c.Tenants.Get(t.Context(), "a"); err != nil {
		t.Errorf("GET: %v", err)
	}
	if n.Load() != 3 {
		t.Errorf("%d requests, want 3", n.Load())
	}
	n.Store(0)
	_, _, err := c.Tenants.Create(t.Context(), TenantSpec{})
	if e := asError(t, err); e.Code != CodeUnreachable || !e.Retryable || e.Status != 0 {
		t.Errorf("POST: %+v", e)
	}
	if n.Load() != 1 {
		t.Errorf("POST was sent %d times", n.Load())
	}
}

func TestNoServer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := New(srv.URL, Options{Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Tenants.Get(t.Context(), "a")
	if e := asError(t, err); e.Code != CodeUnreachable || !e.Retryable || !strings.Contains(e.Error(), "connection refused") {
		t.Errorf("%+v", e)
	}
}

func TestCancelledCallIsNotTriedAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		cancel()
		<-r.Context().Done()
	}, Options{})
	_, err := c.Tenants.Get(ctx, "a")
	if !errors.Is(err, context.Canceled) || asError(t, err).Retryable || n.Load() != 1 {
		t.Errorf("after %d requests: %v", n.Load(), err)
	}
}

func TestCallsWithoutDeadlineGetOne(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Options{Timeout: 20 * time.Millisecond})
	if _, err := c.Tenants.Get(t.Context(), "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call: %v", err)
	}
	if _, err := c.Workloads.Logs(t.Context(), "a", LogOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stream that does not begin: %v", err)
	}
}

type renewing struct{ renewed []string }

func (r *renewing) Token(context.Context) (string, error) { return "old", nil }
func (r *renewing) Renew(_ context.Context, rejected string) (string, error) {
	r.renewed = append(r.renewed, rejected)
	return "new", nil
}

func TestRejectedTokenIsRenewedOnce(t *testing.T) {
	for _, accepted := range []string{"new", "neither"} {
		src := &renewing{}
		var bodies []string
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(b))
			if r.Header.Get("Authorization") != "Bearer "+accepted {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			io.WriteString(w, `{}`)
		}, Options{Token: src})
		_, _, err := c.Roles.Create(t.Context(), RoleSpec{Name: "r"})
		if accepted == "new" && err != nil || accepted != "new" && asError(t, err).Status != http.StatusUnauthorized {
			t.Errorf("accepting %s: %v", accepted, err)
		}
		if len(src.renewed) != 1 || src.renewed[0] != "old" {
			t.Errorf("renewed %q, want once", src.renewed)
		}
		if len(bodies) != 2 || bodies[0] != bodies[1] {
			t.Errorf("bodies %q, want the same twice", bodies)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var followed atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer other.Close()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}, Options{Token: StaticToken("secret")})
	_, err := c.Tenants.Get(t.Context(), "a")
	if e := asError(t, err); e.Status != 307 || !strings.Contains(e.Message, other.URL) {
		t.Errorf("%+v", e)
	}
	if followed.Load() {
		t.Error("the redirect was followed")
	}
}

func TestAnswersHaveALargestSize(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"id":"`+strings.Repeat("a", maxBody)+`"}`)
	}, Options{})
	_, err := c.Tenants.Get(t.Context(), "a")
	if !errors.Is(err, errTooLarge) || asError(t, err).Code != CodeProtocol {
		t.Errorf("%v", err)
	}
}

func TestAnswersThatAreNotJSON(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>welcome</html>") }, Options{})
	_, err := c.Tenants.Get(t.Context(), "a")
	if e := asError(t, err); e.Code != CodeProtocol || e.Status != 200 || e.Retryable {
		t.Errorf("%+v", e)
	}
}

// collect ranges over seq to its end or first error.
func collect[T any](seq func(func(T, error) bool)) (items []T, err error) {
	for item, err := range seq {
		if err != nil {
			return items, err
		}
		items = append(items, item)
	}
	return items, nil
}

func TestListsWalkAllPages(t *testing.T) {
	var cursors []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cursor := r.URL.Query().Get("cursor")
		cursors = append(cursors, cursor)
		if r.URL.Query().Get("event_type") != "execution.admit" {
			t.Errorf("filter lost on page %q", cursor)
		}
		next := map[string]string{"": "two", "two": "three"}[cursor]
		json.NewEncoder(w).Encode(map[string]any{"items": []any{map[string]any{"id": "e" + cursor, "extra": true}}, "next_cursor": next})
	}, Options{})
	events, err := collect(c.Events.List(t.Context(), EventFilter{Type: "execution.admit"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 3 || events[2].ID != "ethree" || string(events[0].JSON()) != `{"extra":true,"id":"e"}` {
		t.Errorf("events are %+v", events)
	}
	cursors = nil
	for range c.Events.List(t.Context(), EventFilter{Type: "execution.admit"}) {
		break
	}
	if len(cursors) != 1 {
		t.Errorf("asked for pages %q after the caller stopped", cursors)
	}
}

func TestListThatDoesNotAdvanceEnds(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"items":[{}],"next_cursor":"same"}`) }, Options{})
	items, err := collect(c.Tenants.List(t.Context()))
	if len(items) != 2 || asError(t, err).Code != CodeProtocol {
		t.Errorf("%d items, %v", len(items), err)
	}
}

func TestListErrorEndsTheRange(t *testing.T) {
	var n int
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 2 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.WriteString(w, `{"items":[{},{}],"next_cursor":"more"}`)
	}, Options{})
	items, err := collect(c.Tenants.List(t.Context()))
	if len(items) != 2 || asError(t, err).Status != http.StatusForbidden {
		t.Errorf("%d items, %v", len(items), err)
	}
}

func TestWaitPollsUntilDecided(t *testing.T) {
	answers := []string{"pending", "pending", "running"}
	c, w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, `{"status":"`+answers[0]+`"}`)
		answers = answers[1:]
	}, Options{})
	got, err := c.Workloads.Wait(t.Context(), "w")
	if err != nil || got.Status != "running" || len(w.all) != 2 {
		t.Errorf("%+v, %v after waits %v", got, err, w.all)
	}
}

func TestFailedExportIsAnError(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"status":"failed","reason":"disk full"}`)
	}, Options{})
	_, err := c.Exports.Wait(t.Context(), "x")
	if e := asError(t, err); e.Code != "EXPORT_FAILED" || !strings.Contains(e.Message, "disk full") {
		t.Errorf("%+v", e)
	}
}

func TestDownloadCutShortIsAnError(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, Options{})
	var out strings.Builder
	n, err := c.Exports.Download(t.Context(), "x", TarGz, &out)
	if err == nil || n != 4 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestLogsAskForWhatIsWanted(t *testing.T) {
	var query string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		io.WriteString(w, "hello\n")
	}, Options{})
	for want, o := range map[string]LogOptions{"": {}, "follow=true&tail=5": {Follow: true, Tail: 5}} {
		r, err := c.Workloads.Logs(t.Context(), "w", o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != "hello\n" || query != want {
			t.Errorf("%+v: query %q, output %q, %v", o, query, b, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
