package image

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/telemetry"
)

// Authenticator recognises the registry's callers: registry clients speak
// Basic with the user's own name and password, scripts may send their token.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (*identity.Principal, error)
	AuthenticateBasic(ctx context.Context, username, password, correlation string) (*identity.Principal, error)
	// Reject keeps evidence of a credential that was not accepted.
	Reject(ctx context.Context, correlation string, err error) error
}

// Caller is a principal on a request to the registry.
type Caller struct {
	*identity.Principal
	correlation string
}

// Key implements registry.Caller.
func (c Caller) Key() string { return c.ID() }

var verbOf = map[registry.Action]string{registry.Pull: "image.pull", registry.Push: "image.push", registry.Delete: "image.delete"}

// Authorize implements registry.Authorizer. Repositories begin with the
// tenant's name; those of others look like those that do not exist.
func (s *Service) Authorize(r *http.Request, repo string, action registry.Action) (registry.Caller, error) {
	p, err := s.recognise(r)
	if err != nil && kernel.KindOf(err) == kernel.Unauthenticated && len(r.Header["Authorization"]) > 0 {
		return nil, s.auth.Reject(r.Context(), telemetry.Correlation(r.Context()), err)
	}
	if err != nil {
		return nil, err // without credentials it is the first round of every registry client
	}
	c := Caller{p, telemetry.Correlation(r.Context())}
	if repo == "" {
		return c, nil // the version check and the catalogue show nothing of anyone else's
	}
	a := s.action(c, verbOf[action], repo, "")
	if tenant, _, ok := strings.Cut(repo, "/"); !ok || tenant != p.Tenant {
		return nil, s.gov.Refuse(r.Context(), a, &kernel.Error{Kind: kernel.NotFound, Code: "NAME_UNKNOWN", Rule: "image.foreign_tenant",
			Msg: "there is no such repository for you; yours begin with " + p.Tenant + "/"})
	}
	return c, s.gov.Check(r.Context(), a)
}

func (s *Service) recognise(r *http.Request) (*identity.Principal, error) {
	if user, password, ok := r.BasicAuth(); ok {
		return s.auth.AuthenticateBasic(r.Context(), user, password, telemetry.Correlation(r.Context()))
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return s.auth.Authenticate(r.Context(), token)
	}
	return nil, &kernel.Error{Kind: kernel.Unauthenticated, Msg: "sign in with user@tenant and your password"}
}

func (s *Service) action(c Caller, verb, repo, digest string) govern.Action {
	attrs := policy.Record{"tenant": c.Tenant, "repository": repo}
	id := "repository/" + repo
	if digest != "" {
		attrs["digest"], id = digest, "image/"+digest
	}
	return govern.Action{Verb: verb, Principal: c.Principal, Correlation: c.correlation, ResourceID: id,
		Resource: policy.Resource{Type: "Image", ID: repo, Attributes: attrs}}
}

var _ registry.Index = (*Service)(nil)

// Blob implements registry.Links.
func (s *Service) Blob(ctx context.Context, c registry.Caller, repo string, d blob.Digest) (int64, error) {
	return s.blobSize(ctx, c.(Caller).Tenant, repo, d)
}

// LinkBlob implements registry.Links. A blob that no manifest names is staged
// content that nobody can run or pull by name, so it is bookkeeping; the
// manifest that gives it meaning is what is governed.
func (s *Service) LinkBlob(ctx context.Context, c registry.Caller, repo string, l registry.Link) (registry.Receipt, error) {
	return registry.Receipt{}, s.gov.Bookkeep(ctx, func(q store.Q) error {
		_, err := q.Exec(`INSERT INTO image_blobs (tenant, repository, digest, size) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			c.(Caller).Tenant, repo, l.Digest.String(), l.Size)
		return err
	})
}

// UnlinkBlob implements registry.Links.
func (s *Service) UnlinkBlob(ctx context.Context, c registry.Caller, repo string, d blob.Digest) (registry.Receipt, error) {
	tenant := c.(Caller).Tenant
	return registry.Receipt{}, s.gov.Bookkeep(ctx, func(q store.Q) error {
		if used, err := isNeeded(q, tenant, repo, d.String()); err != nil || used {
			if used {
				return &kernel.Error{Kind: kernel.Conflict, Code: "DENIED", Msg: "a manifest of this repository needs the blob; delete the manifest first"}
			}
			return err
		}
		n, err := q.Exec(`DELETE FROM image_blobs WHERE tenant = $1 AND repository = $2 AND digest = $3`, tenant, repo, d.String())
		if err == nil && n == 0 {
			return notHere("blob " + d.String())
		}
		return err
	})
}

// isNeeded reports whether a manifest of the repository names a digest. Digests
// are of fixed form, so that quoting one finds it and nothing else.
func isNeeded(q store.Q, tenant, repo, digest string) (bool, error) {
	var n int64
	err := q.Get(`SELECT COUNT(*) FROM image_manifests WHERE tenant = $1 AND repository = $2 AND needs LIKE $3`, []any{tenant, repo, `%"` + digest + `"%`}, &n)
	return n > 0, err
}

// GetManifest implements registry.Manifests.
func (s *Service) GetManifest(ctx context.Context, c registry.Caller, repo string, ref registry.Reference) (m registry.Stored, err error) {
	tenant := c.(Caller).Tenant
	digest := ref.Digest.String()
	if ref.Tag != "" {
		if digest, err = s.tag(ctx, tenant, repo, ref.Tag); err != nil {
			return m, err
		}
	}
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT media_type, bytes FROM image_manifests WHERE tenant = $1 AND repository = $2 AND digest = $3`, []any{tenant, repo, digest}, &m.MediaType, &m.Bytes)
	})
	if errors.Is(err, store.ErrNoRow) {
		return m, notHere("manifest " + ref.String())
	}
	if err != nil {
		return m, err
	}
	m.Digest, err = blob.ParseDigest(digest)
	return m, err
}

// cosignTag is where cosign 1 and 2 keep what belongs to a digest.
var cosignTag = regexp.MustCompile(`^(sha256)-([0-9a-f]{64})(\.(sig|att|sbom))?$`)

// about returns the digest that a pushed manifest says something of, "" when it is an image itself.
func about(p registry.Pushed) string {
	if p.Manifest.Subject != nil {
		return p.Manifest.Subject.Digest.String()
	}
	for _, tag := range p.Tags {
		if m := cosignTag.FindStringSubmatch(tag); m != nil {
			return m[1] + ":" + m[2]
		}
	}
	return ""
}

// PutManifest implements registry.Manifests.
func (s *Service) PutManifest(ctx context.Context, rc registry.Caller, repo string, p registry.Pushed) (registry.Receipt, error) {
	c, digest, subject := rc.(Caller), p.Digest.String(), about(p)
	tags := make([]any, len(p.Tags))
	for i, t := range p.Tags {
		tags[i] = t
	}
	a := s.action(c, "image.push", repo, digest)
	a.Resource.Attributes["media_type"], a.Resource.Attributes["tags"] = p.MediaType, p.Tags
	a.Details = map[string]any{"repository": repo, "image_digest": digest, "media_type": p.MediaType, "tags": tags}
	if subject != "" {
		a.Details["subject_digest"] = subject
	}
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		if err := s.checkNeeds(tx, c.Tenant, repo, p); err != nil {
			return err
		}
		if err := insertManifest(tx, c, repo, p); err != nil {
			return err
		}
		for _, tag := range p.Tags {
			if _, err := tx.Exec(`INSERT INTO image_tags (tenant, repository, tag, digest) VALUES ($1, $2, $3, $4)
				ON CONFLICT (tenant, repository, tag) DO UPDATE SET digest = excluded.digest`, c.Tenant, repo, tag, digest); err != nil {
				return fmt.Errorf("set tag: %w", err)
			}
		}
		if subject == "" {
			if _, err := tx.Exec(`INSERT INTO image_reports (tenant, repository, digest, report, artifact, proofs, generation, made_for, made_at)
				VALUES ($1, $2, $3, '', '', '[]', 1, 0, 0) ON CONFLICT DO NOTHING`, c.Tenant, repo, digest); err != nil {
				return fmt.Errorf("note image to verify: %w", err)
			}
			return enqueueVerify(tx, verifyArgs{repo, digest})
		}
		return changed(tx, c.Tenant, repo, subject)
	})
	return registry.Receipt{EventID: receipt.EventID, Pointer: receipt.Pointer}, err
}

// changed makes the verdict on a digest stale and has it made again.
func changed(tx *govern.Tx, tenant, repo, digest string) error {
	n, err := tx.Exec(`UPDATE image_reports SET generation = generation + 1 WHERE tenant = $1 AND repository = $2 AND digest = $3`, tenant, repo, digest)
	if err != nil {
		return fmt.Errorf("mark image report stale: %w", err)
	}
	if n == 0 {
		return nil // what it refers to is not here (yet)
	}
	return enqueueVerify(tx, verifyArgs{repo, digest})
}

func needs(m *manifest.Manifest) []string {
	out := []string{}
	for _, d := range m.Blobs() {
		if !manifest.NonDistributable(d.MediaType) {
			out = append(out, d.Digest.String())
		}
	}
	for _, d := range m.Manifests {
		out = append(out, d.Digest.String())
	}
	return out
}

// checkNeeds looks again, in the transaction, for what the handler saw: a blob
// or manifest could have been deleted since.
func (s *Service) checkNeeds(q store.Q, tenant, repo string, p registry.Pushed) error {
	for _, d := range needs(p.Manifest) {
		var n int64
		if err := q.Get(`SELECT (SELECT COUNT(*) FROM image_blobs WHERE tenant = $1 AND repository = $2 AND digest = $3)
			+ (SELECT COUNT(*) FROM image_manifests WHERE tenant = $1 AND repository = $2 AND digest = $3)`, []any{tenant, repo, d}, &n); err != nil {
			return fmt.Errorf("look for %s: %w", d, err)
		}
		if n == 0 {
			return &kernel.Error{Kind: kernel.NotFound, Code: "MANIFEST_BLOB_UNKNOWN", Msg: d + " is no longer in the repository; push it again"}
		}
	}
	return nil
}

func insertManifest(tx *govern.Tx, c Caller, repo string, p registry.Pushed) error {
	subject, size := "", int64(0)
	if p.Manifest.Subject != nil {
		subject = p.Manifest.Subject.Digest.String()
	}
	for _, d := range p.Manifest.Blobs() {
		size += d.Size
	}
	annotations, err := json.Marshal(p.Manifest.Annotations)
	if err != nil {
		return err
	}
	list, err := json.Marshal(needs(p.Manifest))
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO image_manifests (tenant, repository, digest, media_type, artifact_type, subject, annotations, needs, bytes, image_size, pushed_at, pushed_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`, c.Tenant, repo, p.Digest.String(), p.MediaType, p.Manifest.ReferrerType(), subject,
		string(annotations), string(list), p.Bytes, size, store.Micros(tx.Now), c.ID())
	if err != nil {
		return fmt.Errorf("insert manifest: %w", err)
	}
	return nil
}

// DeleteManifest implements registry.Manifests.
func (s *Service) DeleteManifest(ctx context.Context, rc registry.Caller, repo string, ref registry.Reference) (registry.Receipt, error) {
	c := rc.(Caller)
	a := s.action(c, "image.delete", repo, ref.Digest.String())
	a.Details = map[string]any{"repository": repo, "reference": ref.String()}
	receipt, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		if ref.Tag != "" {
			n, err := tx.Exec(`DELETE FROM image_tags WHERE tenant = $1 AND repository = $2 AND tag = $3`, c.Tenant, repo, ref.Tag)
			if err == nil && n == 0 {
				return notHere("tag " + ref.Tag)
			}
			return err
		}
		return deleteManifest(tx, c.Tenant, repo, ref.Digest.String())
	})
	return registry.Receipt{EventID: receipt.EventID, Pointer: receipt.Pointer}, err
}

func deleteManifest(tx *govern.Tx, tenant, repo, digest string) error {
	if used, err := isNeeded(tx, tenant, repo, digest); err != nil {
		return err
	} else if used {
		return &kernel.Error{Kind: kernel.Conflict, Code: "DENIED", Msg: "an index of this repository names this manifest; delete the index first"}
	}
	var subject string
	err := tx.Get(`DELETE FROM image_manifests WHERE tenant = $1 AND repository = $2 AND digest = $3 RETURNING subject`, []any{tenant, repo, digest}, &subject)
	if errors.Is(err, store.ErrNoRow) {
		return notHere("manifest " + digest)
	}
	if err != nil {
		return fmt.Errorf("delete manifest: %w", err)
	}
	for _, table := range []string{"image_tags", "image_reports"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE tenant = $1 AND repository = $2 AND digest = $3`, tenant, repo, digest); err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if subject != "" {
		return changed(tx, tenant, repo, subject)
	}
	return nil
}

// Tags implements registry.Lists.
func (s *Service) Tags(ctx context.Context, c registry.Caller, repo, after string, limit int) (tags []string, err error) {
	tenant := c.(Caller).Tenant
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		var n int64
		if err := q.Get(`SELECT (SELECT COUNT(*) FROM image_manifests WHERE tenant = $1 AND repository = $2) + (SELECT COUNT(*) FROM image_blobs WHERE tenant = $1 AND repository = $2)`,
			[]any{tenant, repo}, &n); err != nil {
			return err
		}
		if n == 0 {
			return notHere("repository " + repo)
		}
		tags, err = store.All(q, scanText, `SELECT tag FROM image_tags WHERE tenant = $1 AND repository = $2 AND tag > $3 ORDER BY tag LIMIT $4`, tenant, repo, after, limit)
		return err
	})
	return tags, err
}

func scanText(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) }

// Referrers implements registry.Lists.
func (s *Service) Referrers(ctx context.Context, c registry.Caller, repo string, d blob.Digest, artifactType, after string, limit int) (out []manifest.Descriptor, err error) {
	tenant := c.(Caller).Tenant
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		out, err = store.All(q, scanReferrer, `SELECT digest, media_type, artifact_type, annotations, LENGTH(bytes) FROM image_manifests
			WHERE tenant = $1 AND repository = $2 AND subject = $3 AND ($4 = '' OR artifact_type = $4) AND digest > $5 ORDER BY digest LIMIT $6`,
			tenant, repo, d.String(), artifactType, after, limit)
		return err
	})
	return out, err
}

func scanReferrer(r *sql.Rows) (m manifest.Descriptor, err error) {
	var digest, annotations string
	if err := r.Scan(&digest, &m.MediaType, &m.ArtifactType, &annotations, &m.Size); err != nil {
		return m, err
	}
	if m.Digest, err = blob.ParseDigest(digest); err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(annotations), &m.Annotations)
}

// Repositories implements registry.Lists.
func (s *Service) Repositories(ctx context.Context, c registry.Caller, after string, limit int) (repos []string, err error) {
	tenant := c.(Caller).Tenant
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		repos, err = store.All(q, scanText, `SELECT DISTINCT repository FROM image_manifests WHERE tenant = $1 AND repository > $2 ORDER BY repository LIMIT $3`, tenant, after, limit)
		return err
	})
	return repos, err
}
