// Package workload is the plane of what tenants run. A request is admitted or
// refused by policy on what its image was found to carry; what is admitted is
// started by a job, observed, and restarted or reported as it ends. Each of
// these comes back through govern, so that the log tells the whole story.
//
//	POST ─admit─▶ pending ─start─▶ running ─exit─▶ stopped │ failed
//	                 ▲                │                 │
//	                 └──── restart policy, backoff ─────┘
//	DELETE from any ─▶ terminated (the job stops and removes the container)
package workload

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Status is where a workload is in its life.
type Status string

// The statuses; Terminated is final.
const (
	Pending    Status = "pending"
	Running    Status = "running"
	Stopped    Status = "stopped"
	Failed     Status = "failed"
	Terminated Status = "terminated"
)

// Resources bound what a workload takes; zero fields take the defaults.
type Resources struct {
	CPUMillis   int64 `json:"cpu_millis"`
	MemoryBytes int64 `json:"memory_bytes"`
	PIDs        int64 `json:"pids"`
}

// Workload is something a tenant runs.
type Workload struct {
	ID             string            `json:"id"`
	TenantID       string            `json:"tenant_id"`
	Name           string            `json:"name,omitempty"`
	EnvelopeType   string            `json:"envelope_type"`
	ImageRef       string            `json:"image_ref"`
	ImageDigest    string            `json:"image_digest"`
	PolicyRef      string            `json:"policy_ref,omitempty"`
	Command        []string          `json:"command,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	Resources      Resources         `json:"resources"`
	Restart        string            `json:"restart"`
	Jurisdiction   string            `json:"jurisdiction"`
	Classification string            `json:"classification"`
	Status         Status            `json:"status"`
	StatusReason   string            `json:"status_reason"`
	ExitCode       *int64            `json:"exit_code"`
	Placement      string            `json:"placement"`
	CreatedBy      string            `json:"created_by"`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`

	repository, correlation string
	run                     int64
}

// Facts is what admission knows of an image.
type Facts struct {
	Registry        string // host, "" for the built-in one
	RegistryAllowed bool
	OwnTenant       bool
	Repository      string
	Digest          string
	Pinned, Found   bool
	// Verdicts: verified, unsigned, invalid or missing.
	Signature, Provenance, SBOM string
	Signers, Builders           []string
	Artifacts                   []string // digests of the artifacts the verdicts rest on
}

// Images knows what images carry, and unpacks them.
type Images interface {
	// Facts says what is known of the image that ref names. What ref itself
	// gets wrong in form is kernel.Invalid; everything else is a fact.
	Facts(ctx context.Context, tenant, ref string) (Facts, error)
	// Rootfs unpacks an image, once, and returns where it is and what it runs.
	Rootfs(ctx context.Context, tenant, repository, digest string) (Rootfs, error)
}

// Rootfs is an unpacked image.
type Rootfs struct {
	Dir        string
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	UID, GID   uint32
	StopSignal string
}

// Policies resolves the policy that a request names to be bound by.
type Policies interface {
	Resolve(ctx context.Context, tenant, ref string) (*policy.Set, error)
}

// LogReader reads what a container wrote; io.EOF ends it.
type LogReader interface {
	Next() ([]runtime.LogEntry, error)
	Close() error
}

// Driver runs containers. The contracts are those of package runtime/oci.
type Driver interface {
	Start(ctx context.Context, s runtime.Spec) (runtime.Status, error)
	Inspect(id string) (runtime.Status, error)
	List() []runtime.Status
	Stop(ctx context.Context, id string, grace time.Duration) (runtime.Status, error)
	Delete(ctx context.Context, id string) error
	Logs(ctx context.Context, id string, opts runtime.LogOptions) (LogReader, error)
}

// Service is the plane.
type Service struct {
	db       *store.DB
	gov      *govern.Governor
	images   Images
	policies Policies
	driver   Driver
	system   *identity.Principal
	node     string
	logger   *slog.Logger
	queue    *jobs.Queue
}

// Config is what the plane needs.
type Config struct {
	DB       *store.DB
	Gov      *govern.Governor
	Images   Images
	Policies Policies
	Driver   Driver // nil when this host cannot run containers
	System   *identity.Principal
	Node     string // this host's name in placements
	Logger   *slog.Logger
}

// New makes the plane and registers its jobs.
func New(cfg Config, queue *jobs.Queue) *Service {
	s := &Service{db: cfg.DB, gov: cfg.Gov, images: cfg.Images, policies: cfg.Policies, driver: cfg.Driver, system: cfg.System, node: cfg.Node, logger: cfg.Logger, queue: queue}
	queue.Handle(startJob, s.runStart)
	queue.Handle(observeJob, s.runObserve)
	queue.Handle(destroyJob, s.runDestroy)
	queue.Handle(TenantDeletedJob, s.runTenantDeleted)
	return s
}

// Limits of a workload, and what it gets when it asks for nothing.
var (
	defaults = Resources{CPUMillis: 500, MemoryBytes: 256 << 20, PIDs: 128}
	least    = Resources{CPUMillis: 10, MemoryBytes: 8 << 20, PIDs: 4}
	most     = Resources{CPUMillis: 64_000, MemoryBytes: 256 << 30, PIDs: 32_768}
)

var (
	namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	envelopes   = []string{"container", "vm"}
	restarts    = []string{"never", "on-failure", "always"}
)

// classifications in rising order; tenants have a ceiling among them.
var classifications = []string{"public", "internal", "restricted", "secret"}

func invalid(field, format string, args ...any) error {
	e := kernel.InvalidField(field, format, args...)
	e.Code = "ECS_INVALID_REQUEST"
	return e
}

// complete fills in what was left out and checks what was given.
func (w *Workload) complete(view *govern.View) error {
	if w.EnvelopeType == "" {
		e := kernel.InvalidField("envelope_type", "is required: container or vm")
		e.Code = "ECS_MISSING_ENVELOPE"
		return e
	}
	switch {
	case !slices.Contains(envelopes, w.EnvelopeType):
		return invalid("envelope_type", "is %q, want container or vm", w.EnvelopeType)
	case w.ImageRef == "":
		return invalid("image_ref", "is required, such as REGISTRY/%s/app@sha256:…", view.Tenant)
	case len(w.ImageRef) > 512:
		return invalid("image_ref", "is longer than 512 bytes")
	case w.Name != "" && !namePattern.MatchString(w.Name):
		return invalid("name", "is %q; use up to 63 lower-case letters, digits and inner hyphens", w.Name)
	case len(w.PolicyRef) > 201:
		return invalid("policy_ref", "is longer than a policy's id and version")
	}
	if w.Restart == "" {
		w.Restart = "never"
	}
	if !slices.Contains(restarts, w.Restart) {
		return invalid("restart", "is %q, want never, on-failure or always", w.Restart)
	}
	if w.Jurisdiction == "" {
		w.Jurisdiction = view.Jurisdiction
	}
	if len(w.Jurisdiction) != 2 {
		return invalid("jurisdiction", "is %q, want an ISO 3166 country code such as DE", w.Jurisdiction)
	}
	if w.Classification == "" {
		w.Classification = "internal"
		if view.Classification == "public" {
			w.Classification = "public"
		}
	}
	if !slices.Contains(classifications, w.Classification) {
		return invalid("classification", "is %q, want one of %s", w.Classification, strings.Join(classifications, ", "))
	}
	if err := w.Resources.complete(); err != nil {
		return err
	}
	return w.checkProcess()
}

func (w *Workload) checkProcess() error {
	if len(w.Command) > 256 {
		return invalid("command", "has more than 256 words")
	}
	size := 0
	for i, a := range w.Command {
		if size += len(a); a == "" && i == 0 {
			return invalid("command[0]", "is empty; it names the program")
		}
	}
	for k, v := range w.Env {
		if !envName.MatchString(k) {
			return invalid("env", "has the name %q; use letters, digits and underscores", k)
		}
		size += len(k) + len(v)
	}
	if len(w.Env) > 256 || size > 64<<10 {
		return invalid("env", "and command are larger than 64 KiB or 256 entries")
	}
	return nil
}

func (r *Resources) complete() error {
	for _, f := range []struct {
		name          string
		v             *int64
		def, min, max int64
	}{{"cpu_millis", &r.CPUMillis, defaults.CPUMillis, least.CPUMillis, most.CPUMillis}, {"memory_bytes", &r.MemoryBytes, defaults.MemoryBytes, least.MemoryBytes, most.MemoryBytes},
		{"pids", &r.PIDs, defaults.PIDs, least.PIDs, most.PIDs}} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < f.min || *f.v > f.max {
			return invalid("resources."+f.name, "is %d, want %d to %d", *f.v, f.min, f.max)
		}
	}
	return nil
}

// resource is the workload as policies see it.
func (w *Workload) resource(f *Facts, view *govern.View) policy.Resource {
	attrs := policy.Record{"tenant": w.TenantID, "envelope_type": w.EnvelopeType, "jurisdiction": w.Jurisdiction, "tenant_jurisdiction": view.Jurisdiction,
		"classification": w.Classification, "classification_rank": rank(w.Classification), "ceiling_rank": rank(view.Classification), "restart": w.Restart,
		"cpu_millis": w.Resources.CPUMillis, "memory_bytes": w.Resources.MemoryBytes, "pids": w.Resources.PIDs}
	if f != nil {
		attrs["image"] = policy.Record{"ref": w.ImageRef, "registry": f.Registry, "registry_allowed": f.RegistryAllowed, "own_tenant": f.OwnTenant, "repository": f.Repository,
			"digest": f.Digest, "pinned": f.Pinned, "found": f.Found, "signature": f.Signature, "provenance": f.Provenance, "sbom": f.SBOM, "signers": f.Signers, "builders": f.Builders}
	}
	return policy.Resource{Type: "Workload", ID: w.ID, Attributes: attrs}
}

func rank(class string) int64 { return int64(slices.Index(classifications, class)) }

// Create admits a workload or refuses it.
func (s *Service) Create(ctx context.Context, a govern.Action, w Workload) (Workload, evidence.Receipt, error) {
	none := evidence.Receipt{}
	tenant := a.Principal.Tenant
	view, err := s.gov.View(ctx, tenant)
	if err != nil {
		return w, none, err
	}
	if w.TenantID == "" {
		w.TenantID = tenant
	}
	if w.TenantID != tenant {
		return w, none, &kernel.Error{Kind: kernel.Refused, Code: "ECS_TENANT_MISMATCH", Rule: "tenant.unknown", Field: "tenant_id", Class: evidence.ClassPolicy,
			Msg: "is not your tenant", Fix: "leave it out, or sign in to that tenant"}
	}
	if err := w.complete(view); err != nil {
		return w, none, err
	}
	w.ID = uuid.Must(uuid.NewV7()).String()
	w.Status, w.StatusReason, w.Placement, w.CreatedBy, w.run = Pending, "waiting to start", s.node, a.Principal.ID(), 1
	a.ResourceID = "workload/" + w.ID
	var facts *Facts
	if w.EnvelopeType == "container" {
		f, err := s.images.Facts(ctx, tenant, w.ImageRef)
		if err != nil {
			return w, none, err
		}
		facts, w.ImageDigest, w.repository = &f, f.Digest, f.Repository
		a.Artifacts = f.Artifacts
	}
	if w.PolicyRef != "" {
		set, err := s.policies.Resolve(ctx, tenant, w.PolicyRef)
		if err != nil {
			return w, none, err
		}
		a.Policies = append(a.Policies, set)
	}
	a.Resource = w.resource(facts, view)
	a.Details = map[string]any{"workload_id": w.ID, "envelope_type": w.EnvelopeType, "image_ref": w.ImageRef, "image_digest": w.ImageDigest,
		"classification": w.Classification, "jurisdiction": w.Jurisdiction}
	if facts != nil {
		a.Details["image_integrity"] = map[string]any{"signature": facts.Signature, "provenance": facts.Provenance, "sbom": facts.SBOM}
	}
	w.correlation = a.Correlation
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error { return s.admit(tx, &w, view) })
	return w, receipt, err
}

// admit keeps the workload and has it started.
func (s *Service) admit(tx *govern.Tx, w *Workload, view *govern.View) error {
	if w.EnvelopeType == "vm" {
		return &kernel.Error{Kind: kernel.Refused, Code: "ECS_ENVELOPE_UNAVAILABLE", Rule: "envelope.unavailable", Class: evidence.ClassDependency,
			Msg: "the workload is in order, but no node offers the vm envelope", Fix: "use envelope_type container where policy allows it, until a node with virtual machines joins"}
	}
	if s.driver == nil {
		return &kernel.Error{Kind: kernel.Unavailable, Code: "ECS_NO_RUNTIME", Class: evidence.ClassDependency, Msg: "this host has no OCI runtime", Fix: "provost doctor says what is missing"}
	}
	if err := checkQuotas(tx, w, view.Quotas); err != nil {
		return err
	}
	w.CreatedAt, w.UpdatedAt = tx.Now, tx.Now
	if err := insert(tx, w); err != nil {
		return err
	}
	tx.Record(evidence.Draft{Type: "runtime.dependency.declare", Details: map[string]any{"workload_id": w.ID, "dependencies": []any{
		map[string]any{"kind": "image", "ref": w.ImageRef, "digest": w.ImageDigest}}}})
	tx.Record(evidence.Draft{Type: "workload.envelope.create", Details: map[string]any{"workload_id": w.ID, "envelope_type": w.EnvelopeType, "image_digest": w.ImageDigest}})
	return s.enqueue(tx, startJob, w, 0)
}

// Delete ends a workload.
func (s *Service) Delete(ctx context.Context, a govern.Action, id string) (evidence.Receipt, error) {
	w, err := s.Get(ctx, a.Principal.Tenant, id)
	if err != nil {
		return evidence.Receipt{}, err
	}
	a.Resource = policy.Resource{Type: "Workload", ID: id, Attributes: policy.Record{"tenant": w.TenantID, "envelope_type": w.EnvelopeType}}
	a.ResourceID = "workload/" + id
	a.Details = map[string]any{"workload_id": id, "envelope_type": w.EnvelopeType}
	return s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		ok, err := move(tx, &w, Terminated, "deleted", nil, Pending, Running, Stopped, Failed)
		if err != nil {
			return err
		}
		if !ok {
			return unknown(id)
		}
		return s.enqueue(tx, destroyJob, &w, 0)
	})
}

// Get returns a workload of tenant that was not deleted.
func (s *Service) Get(ctx context.Context, tenant, id string) (w Workload, err error) {
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		w, err = get(q, tenant, id)
		return err
	})
	if err == nil && w.Status == Terminated {
		return w, unknown(id)
	}
	return w, err
}

func unknown(id string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_WORKLOAD_NOT_FOUND", Msg: fmt.Sprintf("no workload %q", id), Fix: "list them with GET /v1/workloads"}
}

// container is the id of a run's container on its host.
func (w *Workload) container() string { return fmt.Sprintf("%s.%d", w.ID, w.run) }

// process is what a run executes: the request's command, else the image's.
func (w *Workload) process(r Rootfs) (args, env []string, err error) {
	args = slices.Concat(r.Entrypoint, r.Cmd)
	if len(w.Command) > 0 {
		args = w.Command
	}
	if len(args) == 0 {
		return nil, nil, &kernel.Error{Kind: kernel.Invalid, Msg: "the image names no program to run; give a command"}
	}
	for _, kv := range r.Env {
		if k, _, _ := strings.Cut(kv, "="); w.Env[k] == "" {
			env = append(env, kv)
		}
	}
	for k, v := range w.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return args, env, nil
}

func cwd(dir string) string {
	if dir == "" {
		return "/"
	}
	return path.Clean("/" + dir)
}
