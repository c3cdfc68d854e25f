// Package edge is the front door: it recognises who asks, gives every request
// a correlation id, hands it to its route, and turns results and errors into
// responses. It is the only place that knows both an error's kind and a status.
package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/telemetry"
)

// Authenticator recognises callers.
type Authenticator interface {
	// Authenticate returns who a bearer token belongs to, or kernel.Unauthenticated.
	Authenticate(ctx context.Context, bearer string) (*identity.Principal, error)
	// Reject keeps evidence that a credential was not accepted, or that none was shown.
	Reject(ctx context.Context, correlation string, err error) error
}

// Recorder keeps evidence of what the door turned away.
type Recorder interface {
	Refuse(ctx context.Context, a govern.Action, err error) error
}

// Config is what the door needs.
type Config struct {
	Routes []route.Route
	// Mounts are handlers with a protocol of their own, by path prefix, such as "/v2/".
	Mounts    map[string]http.Handler
	Auth      Authenticator
	Record    Recorder
	Anonymous *identity.Principal
	// Unrecorded is told whose action did not happen because its evidence could not be kept.
	Unrecorded func(tenant string)
	// Ready reports whether the server can do its work.
	Ready  func(context.Context) error
	Logger *slog.Logger
	// Observe is told of every finished request, for metrics.
	Observe func(Observation)
	// Trace puts a span around each request; nil traces nothing.
	Trace func(http.Handler) http.Handler
}

// Observation is one finished request.
type Observation struct {
	Route    string // the pattern, "" when none matched
	Method   string
	Status   int
	Duration time.Duration
}

// Handler returns the door.
func Handler(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &door{Config: cfg, mux: http.NewServeMux(), methods: map[string][]string{}}
	for _, r := range cfg.Routes {
		d.methods[r.Path] = append(d.methods[r.Path], r.Method)
		d.mux.Handle(r.Method+" "+r.Path, d.serve(r))
	}
	for _, r := range cfg.Routes { // every other method of a known path is 405 in the family's form
		ms := d.methods[r.Path]
		for _, m := range methods {
			if ms != nil && !slices.Contains(ms, m) && !covered(cfg.Routes, m, r.Path) {
				d.mux.Handle(m+" "+r.Path, d.otherMethod(r, ms))
			}
		}
		delete(d.methods, r.Path)
	}
	for prefix, h := range cfg.Mounts {
		d.mux.Handle(prefix, h)
	}
	d.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	d.mux.HandleFunc("GET /readyz", d.ready)
	d.mux.HandleFunc("/", d.notFound)
	next := d.plainPath(d.mux)
	if cfg.Trace != nil {
		next = cfg.Trace(next)
	}
	return d.frame(next)
}

// plainPath finds nothing at paths that are not text (which PostgreSQL would not
// take as a parameter) or have empty, "." or ".." elements, as no route does. The mux would redirect them to what they amount to: an id that
// steps out of its place must not become another request.
func (d *door) plainPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path + "/"
		if !utf8.ValidString(p) || strings.ContainsRune(p, 0) || strings.Contains(r.URL.Path, "//") || strings.Contains(p, "/./") || strings.Contains(p, "/../") {
			d.notFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// covered reports whether a route with wildcards answers a method of a path
// that has routes of its own for other methods: /v1/policies/{id} for GET of
// /v1/policies/test.
func covered(routes []route.Route, method, path string) bool {
	return slices.ContainsFunc(routes, func(r route.Route) bool {
		a, b := strings.Split(r.Path, "/"), strings.Split(path, "/")
		if r.Method != method || r.Path == path || len(a) != len(b) {
			return false
		}
		for i := range a {
			if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
				return false
			}
		}
		return true
	})
}

// methods are those that an answer of 405 is worth; others find nothing.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

type door struct {
	Config
	mux     *http.ServeMux
	methods map[string][]string
}

// frame is around every request: correlation, duration, panics, security headers.
func (d *door) frame(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := correlation(r)
		rw := &response{ResponseWriter: w, start: start}
		h := w.Header()
		h["X-Correlation-Id"] = []string{id}
		h["X-Content-Type-Options"] = noSniff
		r = r.WithContext(telemetry.WithCorrelation(r.Context(), id))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				d.Logger.ErrorContext(r.Context(), "handler panicked", "panic", p, "stack", string(debug.Stack()))
				if !rw.wrote {
					d.fail(rw, r, family(r), &kernel.Error{Kind: kernel.Internal})
				}
			}
			if d.Observe != nil {
				d.Observe(Observation{Route: r.Pattern, Method: r.Method, Status: rw.status, Duration: time.Since(start)})
			}
		}()
		next.ServeHTTP(rw, r)
	})
}

var noSniff = []string{"nosniff"}

// correlation is the caller's X-Correlation-ID when it is short and printable, else a new one.
func correlation(r *http.Request) string {
	id := r.Header.Get("X-Correlation-ID")
	if id == "" || len(id) > 128 || strings.IndexFunc(id, func(c rune) bool { return c < 0x21 || c > 0x7e }) >= 0 {
		return govern.NewCorrelation()
	}
	return id
}

// response adds X-Request-Duration (whole milliseconds) when the header goes out.
type response struct {
	http.ResponseWriter
	start  time.Time
	status int
	wrote  bool
}

func (r *response) WriteHeader(status int) {
	if !r.wrote && status >= 200 {
		r.wrote, r.status = true, status
		r.Header()["X-Request-Duration"] = []string{strconv.FormatInt(time.Since(r.start).Milliseconds(), 10)}
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(b []byte) (int, error) {
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

// FlushError sends the header, with its duration, before the body begins.
func (r *response) FlushError() error {
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach flushing, deadlines and hijacking.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// serve is the frame of one route: who asks, what happens, how it is answered.
func (d *door) serve(r route.Route) http.Handler {
	limit := r.MaxBody
	if limit == 0 {
		limit = 1 << 20
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := &route.Call{W: w, R: req, Principal: d.Anonymous, Correlation: telemetry.Correlation(req.Context()), Limit: limit}
		if err := d.admit(c, r); err != nil {
			d.turnAway(c, r, err)
			return
		}
		body, err := r.Handle(c)
		if err != nil {
			d.turnAway(c, r, d.witnessed(c, r, err))
			return
		}
		d.answer(w, req, r, c, body)
	})
}

// evidenceUnavailable is the code by which the kernel says that nothing was
// done because it could not be written down.
const evidenceUnavailable = "evidence_unavailable"

// turnAway answers a request that came to nothing.
func (d *door) turnAway(c *route.Call, r route.Route, err error) {
	if d.Unrecorded != nil && kernel.AsError(err).Code == evidenceUnavailable {
		d.Unrecorded(c.Principal.Tenant)
	}
	d.fail(c.W, c.R, r.Family, err)
}

// admit recognises the caller of a route that is not public.
func (d *door) admit(c *route.Call, r route.Route) error {
	if r.Public != "" {
		return nil
	}
	token, err := bearer(c.R)
	if err == nil {
		c.Principal, err = d.Auth.Authenticate(c.R.Context(), token)
	}
	if err == nil {
		return nil
	}
	c.Principal = d.Anonymous
	if kernel.KindOf(err) != kernel.Unauthenticated {
		return err
	}
	return d.Auth.Reject(c.R.Context(), c.Correlation, err)
}

func bearer(r *http.Request) (string, error) {
	h := r.Header.Values("Authorization")
	if len(h) == 0 {
		return "", &kernel.Error{Kind: kernel.Unauthenticated, Rule: "credential_missing", Msg: "this needs a sign-in", Fix: "send Authorization: Bearer with a token from POST /api/v1/auth/token"}
	}
	scheme, token, ok := strings.Cut(h[0], " ")
	if len(h) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &kernel.Error{Kind: kernel.Unauthenticated, Rule: "credential_malformed", Msg: "the Authorization header is not one bearer token"}
	}
	return token, nil
}

// witnessed sees to it that a refusal by anything but govern (a field that is
// wrong, a thing that is not there) leaves evidence as well.
func (d *door) witnessed(c *route.Call, r route.Route, err error) error {
	e := kernel.AsError(err)
	if r.Verb == "" || e.EventID != "" || c.R.Context().Err() != nil {
		return err
	}
	switch e.Kind {
	case kernel.Internal, kernel.Unavailable, kernel.TooMany:
		return err
	case kernel.Invalid, kernel.TooLarge, kernel.Unsupported:
		if r.Method == http.MethodGet {
			return err
		}
	}
	a := c.Action(r.Verb)
	a.Resource = policy.Resource{}
	id := strings.TrimPrefix(c.R.URL.Path, "/v1/")
	a.ResourceID = strings.ToValidUTF8(id[:min(len(id), 256)], "") // the cut may be within a character
	if e.Field != "" {
		a.Details = map[string]any{"field": e.Field}
	}
	return d.Record.Refuse(c.R.Context(), a, err)
}

func (d *door) otherMethod(r route.Route, methods []string) http.Handler {
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Allow", allow)
		d.fail(w, req, r.Family, kernel.Errorf(kernel.NotAllowed, "", "%s is not offered here; use %s", req.Method, allow))
	})
}

func (d *door) notFound(w http.ResponseWriter, r *http.Request) {
	d.fail(w, r, family(r), kernel.Errorf(kernel.NotFound, "", "there is nothing at this path; /v1/openapi.json lists what there is"))
}

// family is how errors look at a path outside of any route.
func family(r *http.Request) route.Family {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		return route.Task
	}
	return route.Interop
}

func (d *door) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if d.Ready != nil {
		if err := d.Ready(ctx); err != nil {
			d.Logger.WarnContext(r.Context(), "not ready", "err", err)
			writeText(w, http.StatusServiceUnavailable, "not ready\n")
			return
		}
	}
	writeText(w, http.StatusOK, "ok\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text)) //nolint:errcheck // the caller has gone away
}

// gone reports whether err means that the caller left.
func gone(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, http.ErrAbortHandler)
}
