package image

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/supplychain"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/store"
)

// content is one repository as the verifier reads it.
type content struct {
	s                  *Service
	tenant, repository string
}

var _ supplychain.Content = (*content)(nil)

func notHere(what string) error {
	return &kernel.Error{Kind: kernel.NotFound, Msg: what + " is not in the repository"}
}

// Manifest implements supplychain.Content.
func (c *content) Manifest(ctx context.Context, digest supplychain.Digest) (mediaType string, raw []byte, err error) {
	err = c.s.db.View(ctx, c.tenant, func(q store.Q) error {
		return q.Get(`SELECT media_type, bytes FROM image_manifests WHERE tenant = $1 AND repository = $2 AND digest = $3`,
			[]any{c.tenant, c.repository, string(digest)}, &mediaType, &raw)
	})
	if errors.Is(err, store.ErrNoRow) {
		return "", nil, notHere("manifest " + string(digest))
	}
	return mediaType, raw, err
}

// Blob implements supplychain.Content.
func (c *content) Blob(ctx context.Context, digest supplychain.Digest, max int64) ([]byte, error) {
	d, err := blob.ParseDigest(string(digest))
	if err != nil {
		return nil, err
	}
	if _, err := c.s.blobSize(ctx, c.tenant, c.repository, d); err != nil {
		return nil, err
	}
	f, info, err := c.s.blobs.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size > max {
		return nil, kernel.Errorf(kernel.TooLarge, "", "blob %s has %d bytes, more than %d", d, info.Size, max)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return b, nil
}

// Referrers implements supplychain.Content.
func (c *content) Referrers(ctx context.Context, subject supplychain.Digest) (out []supplychain.Descriptor, err error) {
	err = c.s.db.View(ctx, c.tenant, func(q store.Q) error {
		out, err = store.All(q, func(r *sql.Rows) (d supplychain.Descriptor, err error) {
			return d, r.Scan(&d.Digest, &d.MediaType, &d.ArtifactType, &d.Size)
		}, `SELECT digest, media_type, artifact_type, LENGTH(bytes) FROM image_manifests WHERE tenant = $1 AND repository = $2 AND subject = $3 ORDER BY digest LIMIT $4`,
			c.tenant, c.repository, string(subject), supplychain.MaxReferrers+1)
		return err
	})
	return out, err
}

// Tag implements supplychain.Content.
func (c *content) Tag(ctx context.Context, tag string) (supplychain.Digest, error) {
	d, err := c.s.tag(ctx, c.tenant, c.repository, tag)
	if err == nil && d == "" {
		return "", notHere("tag " + tag)
	}
	return supplychain.Digest(d), err
}

// object reads a manifest or blob that a report rests on.
func (c *content) object(ctx context.Context, d supplychain.Digest) ([]byte, error) {
	_, raw, err := c.Manifest(ctx, d)
	if err == nil || kernel.KindOf(err) != kernel.NotFound {
		return raw, err
	}
	return c.Blob(ctx, d, maxProof)
}

func (s *Service) blobSize(ctx context.Context, tenant, repository string, d blob.Digest) (size int64, err error) {
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		return q.Get(`SELECT size FROM image_blobs WHERE tenant = $1 AND repository = $2 AND digest = $3`, []any{tenant, repository, d.String()}, &size)
	})
	if errors.Is(err, store.ErrNoRow) {
		return 0, notHere("blob " + d.String())
	}
	return size, err
}

// Manifest returns a manifest of a repository as it was pushed.
func (s *Service) Manifest(ctx context.Context, tenant, repository string, d blob.Digest) (mediaType string, raw []byte, err error) {
	return (&content{s: s, tenant: tenant, repository: repository}).Manifest(ctx, supplychain.Digest(d.String()))
}

// OpenBlob opens a blob that is linked to a repository.
func (s *Service) OpenBlob(ctx context.Context, tenant, repository string, d blob.Digest) (io.ReadCloser, error) {
	if _, err := s.blobSize(ctx, tenant, repository, d); err != nil {
		return nil, err
	}
	f, _, err := s.blobs.Open(ctx, d)
	return f, err
}

// InUse reports whether any tenant's repository has a blob. It is for clearing
// up content, not for answering anyone.
func (s *Service) InUse(ctx context.Context, d blob.Digest) (bool, error) {
	var n int64
	err := s.db.View(ctx, store.Platform, func(q store.Q) error {
		return q.Get(`SELECT COUNT(*) FROM image_blobs WHERE digest = $1`, []any{d.String()}, &n)
	})
	return n > 0, err
}
