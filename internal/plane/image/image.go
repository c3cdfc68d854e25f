// Package image is the plane of container images: what the tenant's
// repositories hold, whose signatures the tenant trusts, and what an image was
// found to carry. Pushing verifies: the verdict is kept by digest, so that
// admission asks neither a registry nor a network.
//
//	push of an image or of what refers to it, change of a trust key
//	      └─▶ report stale ──job──▶ verify from what is stored ──▶ report, artifacts, event
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/supplychain"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// Blobs is where the bytes are.
type Blobs interface {
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	Stat(ctx context.Context, d blob.Digest) (blob.Info, error)
}

// Service is the plane.
type Service struct {
	db     *store.DB
	gov    *govern.Governor
	blobs  Blobs
	system *identity.Principal
	auth   Authenticator
	logger *slog.Logger
}

// Config is what the plane needs.
type Config struct {
	DB     *store.DB
	Gov    *govern.Governor
	Blobs  Blobs
	System *identity.Principal
	Auth   Authenticator
	Logger *slog.Logger
}

// New makes the plane and registers its jobs.
func New(cfg Config, queue *jobs.Queue) *Service {
	s := &Service{db: cfg.DB, gov: cfg.Gov, blobs: cfg.Blobs, system: cfg.System, auth: cfg.Auth, logger: cfg.Logger}
	queue.Handle(verifyJob, s.runVerify)
	return s
}

const verifyJob = "image.verify"

type verifyArgs struct{ Repository, Digest string }

// Verdict is what is known of an image: the report and the digests of the
// artifacts, the report's own first, that an admission rests on.
type Verdict struct {
	Repository string
	Digest     string
	Report     *supplychain.Report
	Artifacts  []string

	generation int64
}

// Verdict returns what the image with this digest carries, in a repository of
// tenant. A verdict that is not up to date is made first.
func (s *Service) Verdict(ctx context.Context, tenant, repository, digest string) (Verdict, error) {
	v, fresh, err := s.readReport(ctx, tenant, repository, digest)
	if err != nil || fresh {
		return v, err
	}
	if err := s.verify(ctx, tenant, v, ""); err != nil {
		return v, err
	}
	v, _, err = s.readReport(ctx, tenant, repository, digest)
	return v, err
}

func (s *Service) readReport(ctx context.Context, tenant, repository, digest string) (v Verdict, fresh bool, err error) {
	v = Verdict{Repository: repository, Digest: digest}
	var report, artifact, proofs string
	var madeFor int64
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT report, artifact, proofs, generation, made_for FROM image_reports WHERE tenant = $1 AND repository = $2 AND digest = $3`,
			[]any{tenant, repository, digest}, &report, &artifact, &proofs, &v.generation, &madeFor)
	})
	if errors.Is(err, store.ErrNoRow) {
		return v, false, unknownImage(repository + "@" + digest)
	}
	if err != nil {
		return v, false, fmt.Errorf("read image report: %w", err)
	}
	if madeFor == 0 {
		return v, false, nil // pushed, and not looked at yet
	}
	v.Report = &supplychain.Report{}
	if err := json.Unmarshal([]byte(report), v.Report); err != nil {
		return v, false, fmt.Errorf("read image report: %w", err)
	}
	if err := json.Unmarshal([]byte(proofs), &v.Artifacts); err != nil {
		return v, false, fmt.Errorf("read image report: %w", err)
	}
	v.Artifacts = append([]string{artifact}, v.Artifacts...)
	return v, madeFor == v.generation, nil
}

func (s *Service) runVerify(ctx context.Context, j jobs.Job) error {
	var args verifyArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return jobs.Discard(err)
	}
	v, fresh, err := s.readReport(ctx, j.Tenant, args.Repository, args.Digest)
	if err == nil && !fresh {
		err = s.verify(ctx, j.Tenant, v, j.Correlation)
	}
	if err == nil {
		return nil
	}
	if k := kernel.KindOf(err); k == kernel.NotFound || k == kernel.Refused {
		return jobs.Discard(err) // deleted meanwhile, or the tenant may not act
	}
	return err
}

// maxProof bounds one object kept as an artifact; larger ones stay in the
// registry only, and the report still names them.
const maxProof = 8 << 20

// verify judges the image and keeps the verdict with everything it rests on.
// What is attached meanwhile makes the verdict stale again: it was made for an
// earlier generation.
func (s *Service) verify(ctx context.Context, tenant string, v Verdict, correlation string) error {
	repository, digest := v.Repository, v.Digest
	content := &content{s: s, tenant: tenant, repository: repository}
	keys, err := s.trusted(ctx, tenant)
	if err != nil {
		return err
	}
	d, err := supplychain.ParseDigest(digest)
	if err != nil {
		return err
	}
	report, err := supplychain.Verify(ctx, content, supplychain.Image{Digest: d}, keys)
	if err != nil {
		return fmt.Errorf("verify image %s: %w", digest, err)
	}
	text, err := report.JSON()
	if err != nil {
		return err
	}
	objects := map[string][]byte{}
	for _, o := range report.Objects() {
		if b, err := content.object(ctx, o); err == nil {
			objects[string(o)] = b
		} else if k := kernel.KindOf(err); k != kernel.TooLarge && k != kernel.NotFound {
			return err
		}
	}
	a := govern.Action{Verb: "image.verify", Principal: s.system, Tenant: tenant, Correlation: correlation, ResourceID: "image/" + digest,
		Resource: policy.Resource{Type: "Image", ID: digest, Attributes: policy.Record{"tenant": tenant, "repository": repository, "digest": digest}},
		Details: map[string]any{"component_id": digest, "image_digest": digest, "repository": repository, "signature": string(report.Signature.Status),
			"provenance": string(report.Provenance.Status), "sbom": string(report.SBOM.Status)}}
	_, err = s.gov.Do(ctx, a, func(tx *govern.Tx) error { return keepReport(tx, tenant, v, text, objects) })
	return err
}

func keepReport(tx *govern.Tx, tenant string, v Verdict, text []byte, objects map[string][]byte) error {
	artifact, err := tx.Artifact("evidence_artifacts", "application/json", text)
	if err != nil {
		return err
	}
	proofs := []string{}
	for _, b := range objects {
		kept, err := tx.Artifact("sbom_refs", "application/octet-stream", b)
		if err != nil {
			return err
		}
		proofs = append(proofs, kept)
	}
	slices.Sort(proofs)
	list, err := json.Marshal(proofs)
	if err != nil {
		return err
	}
	n, err := tx.Exec(`UPDATE image_reports SET report = $4, artifact = $5, proofs = $6, made_for = $7, made_at = $8
		WHERE tenant = $1 AND repository = $2 AND digest = $3 AND made_for <= $7`,
		tenant, v.Repository, v.Digest, string(text), artifact, string(list), v.generation, store.Micros(tx.Now))
	if err == nil && n == 0 {
		return unknownImage(v.Repository + "@" + v.Digest)
	}
	if err != nil {
		return fmt.Errorf("keep image report: %w", err)
	}
	return nil
}

// Resolve finds what an image reference names among tenant's repositories:
// REPOSITORY[:TAG][@DIGEST], with or without the registry's host and the
// tenant in front. Pinned is whether a digest was given.
func (s *Service) Resolve(ctx context.Context, tenant, ref string) (repository, digest string, pinned bool, err error) {
	name, d, pinned := strings.Cut(ref, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	if pinned {
		if _, err := supplychain.ParseDigest(d); err != nil {
			return "", "", true, kernel.InvalidField("image_ref", "%v", err)
		}
		found, err := s.hasManifest(ctx, tenant, name, d)
		if err != nil {
			return "", "", true, err
		}
		if !found {
			return name, "", true, unknownImage(ref)
		}
		return name, d, true, nil
	}
	if tag == "" {
		tag = "latest"
	}
	digest, err = s.tag(ctx, tenant, name, tag)
	if err != nil {
		return name, "", false, err
	}
	if digest == "" {
		return name, "", false, unknownImage(ref)
	}
	return name, digest, false, nil
}

func unknownImage(ref string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_IMAGE_NOT_FOUND", Field: "image_ref", Msg: fmt.Sprintf("%q is not in the registry", ref),
		Fix: "push it first, as HOST/TENANT/NAME:TAG"}
}

func (s *Service) hasManifest(ctx context.Context, tenant, repository, digest string) (bool, error) {
	var n int64
	err := s.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT COUNT(*) FROM image_manifests WHERE tenant = $1 AND repository = $2 AND digest = $3`, []any{tenant, repository, digest}, &n)
	})
	return n > 0, err
}

func (s *Service) tag(ctx context.Context, tenant, repository, tag string) (digest string, err error) {
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT digest FROM image_tags WHERE tenant = $1 AND repository = $2 AND tag = $3`, []any{tenant, repository, tag}, &digest)
	})
	if errors.Is(err, store.ErrNoRow) {
		return "", nil
	}
	return digest, err
}

// Image is what a list shows of one.
type Image struct {
	Repository string          `json:"repository"`
	Digest     string          `json:"digest"`
	MediaType  string          `json:"media_type"`
	Tags       []string        `json:"tags"`
	Size       int64           `json:"size"`
	PushedAt   time.Time       `json:"pushed_at"`
	PushedBy   string          `json:"pushed_by"`
	Signature  string          `json:"signature"`
	Provenance string          `json:"provenance"`
	SBOM       string          `json:"sbom"`
	Report     json.RawMessage `json:"report,omitempty"`
}
