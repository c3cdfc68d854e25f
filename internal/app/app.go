// Package app is the composition root: configuration in, running server out.
// It is the only room that knows every other.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/edge"
	"provost.dev/provost/internal/edge/apidoc"
	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/fabric/runtime/oci"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/bus"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/identity/idp"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/telemetry"
	"provost.dev/provost/internal/plane/audit"
	"provost.dev/provost/internal/plane/image"
	"provost.dev/provost/internal/plane/tenant"
	"provost.dev/provost/internal/plane/workload"
)

// Declarations are what every room adds to the policy schema.
func Declarations() []policy.Declaration {
	return []policy.Declaration{tenant.Declaration, idp.Declaration, audit.Declaration, image.Declaration, workload.Declaration}
}

// Rules are every room's part of the platform's policy, in the order in which
// refusals are named.
func Rules() []string {
	return []string{tenant.Rules, idp.Rules, audit.Rules, image.Rules, workload.Rules}
}

// Verbs is everything that can be done.
func Verbs() []govern.Verb {
	var all []govern.Verb
	for _, vs := range [][]govern.Verb{tenant.Verbs, idp.Verbs, audit.Verbs, image.Verbs, workload.Verbs} {
		all = append(all, vs...)
	}
	return all
}

// App is a server with all its rooms.
type App struct {
	cfg       *Config
	telemetry *telemetry.Telemetry
	logger    *slog.Logger
	// Two principals without an account: the platform itself, and nobody.
	system, anonymous *identity.Principal

	schema    *policy.Schema
	db        *store.DB
	log       *evidence.Log
	gov       *govern.Governor
	bus       *bus.Bus
	queue     *jobs.Queue
	idp       *idp.Provider
	tenants   *tenant.Service
	audit     *audit.Service
	images    *image.Service
	workloads *workload.Service
	driver    *oci.Driver
	registry  http.Handler
	docs      *apidoc.Docs
	blobs     *blob.Store
	rootfs    *rootfs.Cache

	opened  chan struct{} // closed when every room is open
	streams chan struct{} // closed when streams have to end
	gone    chan struct{} // closed by Close
	closers []func(context.Context) error
}

// New opens everything, lowest room first. Close undoes it, also after an error.
func New(ctx context.Context, cfg *Config, t *telemetry.Telemetry) (a *App, err error) {
	a = &App{cfg: cfg, telemetry: t, logger: t.Logger, opened: make(chan struct{}), streams: make(chan struct{}), gone: make(chan struct{})}
	for _, open := range []func(context.Context) error{a.openKernel, a.openFabric, a.openPlanes, a.begin} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, a.Close(context.WithoutCancel(ctx)))
		}
	}
	return a, nil
}

func (a *App) dir(name string) string { return filepath.Join(a.cfg.DataDir, name) }

func (a *App) onClose(fn func(context.Context) error) { a.closers = append(a.closers, fn) }

func (a *App) openKernel(ctx context.Context) error {
	for _, d := range []string{"", "exports", "tmp"} {
		if err := os.MkdirAll(a.dir(d), 0o700); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := a.lock(); err != nil {
		return err
	}
	box, err := secret.LoadBox(a.cfg.MasterKeyFile)
	if err != nil {
		return err
	}
	if a.db, err = store.Open(ctx, store.Config{URL: a.cfg.Database.URL, MaxConns: a.cfg.Database.MaxConns, Logger: a.logger}); err != nil {
		return err
	}
	a.onClose(func(context.Context) error { return a.db.Close() })
	if a.schema, err = policy.NewSchema(Declarations()...); err != nil {
		return fmt.Errorf("policy schema: %w", err)
	}
	if a.system, err = identity.System(a.schema, "provost"); err != nil {
		return err
	}
	if a.anonymous, err = identity.Anonymous(a.schema); err != nil {
		return err
	}
	a.log = evidence.NewLog(evidence.Config{DB: a.db, Box: box, Provider: a.cfg.ProviderID, Fault: evidenceFault()})
	if a.bus, err = bus.Start(ctx, bus.Config{URL: a.cfg.Bus.URL, Logger: a.logger}); err != nil {
		return err
	}
	a.onClose(a.bus.Close)
	a.tenants = tenant.New(a.db, a.schema, a.cfg.ProviderID)
	if err := a.tenants.Genesis(ctx, a.log, a.cfg.Jurisdiction, Rules()); err != nil {
		return fmt.Errorf("set up the platform: %w", err)
	}
	a.gov = govern.New(govern.Config{DB: a.db, Log: a.log, Views: a.tenants, Verbs: Verbs(), Logger: a.logger,
		Published: a.announce, WakeJobs: func() { a.queue.Wake() }, Observe: a.telemetry.Metrics})
	a.onClose(func(context.Context) error { a.gov.Close(); return nil })
	a.queue = jobs.New(jobs.Config{DB: a.db, Writer: bookkeeper{a.gov}, Logger: a.logger,
		Observe: func(kind, outcome string, took time.Duration) {
			a.telemetry.Metrics.Job(kind, telemetry.JobOutcome(outcome), took)
		}})
	err = errors.Join(a.telemetry.Metrics.QueueDepth(a.queue.Depth), a.telemetry.Metrics.DatabaseSize(a.db.Size))
	if err != nil {
		return err
	}
	a.idp, err = idp.New(idp.Config{DB: a.db, Gov: a.gov, Schema: a.schema, Box: box, Issuer: a.cfg.URL, AccessTTL: time.Duration(a.cfg.Auth.AccessTTL),
		RefreshTTL: time.Duration(a.cfg.Auth.RefreshTTL)})
	if err != nil {
		return err
	}
	a.tenants.Bind(a.gov, a.idp, workload.TenantDeletedJob)
	return nil
}

// lock makes this process the only one on the data directory: what is in
// memory of a SQLite database is right only while nobody else writes.
func (a *App) lock() error {
	f, err := os.OpenFile(a.dir("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(&kernel.Error{Kind: kernel.Locked, Msg: "another server uses the data directory " + a.cfg.DataDir, Err: err}, f.Close())
	}
	a.onClose(func(context.Context) error { return f.Close() })
	return nil
}

// announce wakes those who follow a log. The log itself is the truth: an
// announcement that cannot be made costs a follower one heartbeat.
func (a *App) announce(tenant string, size int64) {
	if err := a.bus.Publish(audit.LogSubject(tenant), strconv.AppendInt(nil, size, 10)); err != nil {
		a.logger.Debug("announce log growth", "err", err)
	}
}

// bookkeeper writes the job queue's own rows through the one writer.
type bookkeeper struct{ gov *govern.Governor }

// Write implements jobs.Writer.
func (b bookkeeper) Write(ctx context.Context, fn func(q store.Q) error) error {
	return b.gov.Bookkeep(ctx, fn)
}

// evidenceFault is the hidden switch of the tests: while the file it names
// exists, evidence cannot be kept, so nothing can be changed.
func evidenceFault() func() error {
	path := os.Getenv("PROVOST_TEST_EVIDENCE_FAULT")
	if path == "" {
		return nil
	}
	return func() error {
		if _, err := os.Stat(path); err == nil {
			return errors.New("the test switch is set")
		}
		return nil
	}
}

func (a *App) openFabric(ctx context.Context) (err error) {
	if a.blobs, err = blob.New(blob.Config{Dir: a.dir("blobs"), MaxBlob: a.cfg.Registry.MaxBlob}); err != nil {
		return err
	}
	a.driver, err = oci.New(ctx, oci.Config{StateDir: a.dir("containers"), Runtime: a.cfg.Runtime.Path, Logger: a.logger, OnExit: a.containerEnded})
	if err != nil {
		return fmt.Errorf("open container driver: %w", err)
	}
	a.onClose(func(context.Context) error { return a.driver.Close() })
	return nil
}

func (a *App) openPlanes(context.Context) error {
	a.audit = audit.New(audit.Config{DB: a.db, Log: a.log, Gov: a.gov, Bus: a.bus, Schema: a.schema, System: a.system, Dir: a.dir("exports"), Temp: a.dir("tmp"),
		Logger: a.logger, Stop: a.streams}, a.queue)
	a.images = image.New(image.Config{DB: a.db, Gov: a.gov, Blobs: a.blobs, System: a.system, Auth: a.idp, Logger: a.logger}, a.queue)
	a.registry = registry.New(registry.Config{Auth: a.images, Blobs: a.blobs, Index: a.images, Log: a.logger})
	var err error
	if a.rootfs, err = rootfs.New(rootfs.Config{Dir: a.dir("rootfs")}); err != nil {
		return err
	}
	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name of this host: %w", err)
	}
	a.workloads = workload.New(workload.Config{DB: a.db, Gov: a.gov, Images: &images{plane: a.images, cache: a.rootfs, hosts: a.hosts()}, Policies: a.tenants,
		Driver: containers{a.driver}, System: a.system, Node: node, Logger: a.logger}, a.queue)
	if a.docs, err = apidoc.New(a.Routes(), apidoc.Info{Schema: a.schema}); err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	return nil
}

// hosts are the names by which image references may mean the built-in registry.
func (a *App) hosts() map[string]bool {
	hosts := map[string]bool{a.cfg.Listen: true}
	if u, err := url.Parse(a.cfg.URL); err == nil {
		hosts[u.Host] = true
	}
	if _, port, err := net.SplitHostPort(a.cfg.Listen); err == nil {
		hosts["localhost:"+port], hosts["127.0.0.1:"+port] = true, true
	}
	return hosts
}

// begin makes the platform ready for its first request.
func (a *App) begin(ctx context.Context) error {
	if err := a.idp.Start(ctx); err != nil {
		return err
	}
	if err := a.idp.Seed(ctx, seeds(a.cfg.Auth.Accounts)...); err != nil {
		return err
	}
	if err := a.workloads.Reconcile(ctx); err != nil {
		return err
	}
	if !a.db.Postgres() { // an embedded database is one process's alone, and this one has just started
		if err := a.queue.Reclaim(ctx); err != nil {
			return err
		}
	}
	a.queue.Start()
	a.onClose(func(ctx context.Context) error { a.queue.Stop(ctx); return nil })
	close(a.opened)
	tidy, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); a.maintain(tidy) }()
	a.onClose(func(context.Context) error { stop(); <-done; return nil })
	return nil
}

func seeds(accounts []AccountsConfig) []idp.Accounts {
	var out []idp.Accounts
	for _, c := range accounts {
		s := idp.Accounts{Tenant: c.Tenant, WorkspaceSecret: c.WorkspaceSecret}
		for _, u := range c.Users {
			s.Users = append(s.Users, idp.NewUser{Username: u.Username, Password: u.Password, Roles: u.Roles, Permissions: u.Permissions, Groups: u.Groups, Disabled: u.Disabled})
		}
		for _, sa := range c.ServiceAccounts {
			s.ServiceAccounts = append(s.ServiceAccounts, idp.SeededService{NewService: idp.NewService{ClientID: sa.ClientID, RoleID: sa.RoleID, Permissions: sa.Permissions}, ClientSecret: sa.ClientSecret})
		}
		out = append(out, s)
	}
	return out
}

// Close ends everything, highest room first. It is called once.
func (a *App) Close(ctx context.Context) error {
	var err error
	close(a.gone)
	for i := len(a.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, a.closers[i](ctx))
	}
	a.closers = nil
	return err
}

// Routes are every room's routes.
func (a *App) Routes() []route.Route {
	var all []route.Route
	for _, rs := range [][]route.Route{a.idp.Routes(), a.tenants.Routes(), a.audit.Routes(), a.images.Routes(), a.workloads.Routes()} {
		all = append(all, rs...)
	}
	return all
}

// Handler is the public side.
func (a *App) Handler() http.Handler {
	return edge.Handler(edge.Config{Routes: slices.Concat(a.docs.Routes(), a.Routes()), Mounts: map[string]http.Handler{"/v2/": a.registry}, Auth: edge.Bounded(a.idp, 50), Record: a.gov,
		Unrecorded: a.audit.Unrecorded, Anonymous: a.anonymous, Ready: a.ready, Logger: a.logger, Trace: a.telemetry.Middleware, Observe: a.observe})
}

func (a *App) observe(o edge.Observation) {
	a.telemetry.Metrics.HTTP(telemetry.Request{Route: o.Route, Method: o.Method, Status: o.Status, Duration: o.Duration})
}

func (a *App) ready(ctx context.Context) error { return a.db.Ping(ctx) }

// PrivateHandler is the side that only operators reach: metrics, and profiles of the running server.
func (a *App) PrivateHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.telemetry.MetricsHandler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return mux
}
