package image

import (
	"database/sql"
	"encoding/json"
	"strings"

	"provost.dev/provost/internal/fabric/supplychain"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store"
)

// Routes is the plane's HTTP surface, beside the registry's own at /v2/.
func (s *Service) Routes() []route.Route {
	pages := []route.Param{{Name: "limit", Doc: "items per page, up to 1000"}, {Name: "cursor", Doc: "next_cursor of the page before"}}
	r := []route.Route{
		{Method: "POST", Path: "/v1/trust-keys", Verb: "trust-key.create", Summary: "Trust a public key", In: TrustKey{}, Out: TrustKey{}, Status: 201, Handle: s.postTrustKey},
		{Method: "GET", Path: "/v1/trust-keys", Verb: "trust-key.read", Summary: "List trust keys", Query: pages, Out: route.Page[TrustKey]{}, Handle: s.listTrustKeys},
		{Method: "GET", Path: "/v1/trust-keys/{name}", Verb: "trust-key.read", Summary: "Get a trust key", Out: TrustKey{}, Handle: s.getTrustKey},
		{Method: "DELETE", Path: "/v1/trust-keys/{name}", Verb: "trust-key.delete", Summary: "Trust a key no longer", Status: 204, Handle: s.deleteTrustKey},
		{Method: "GET", Path: "/v1/images", Verb: "image.pull", Summary: "List images and what they were found to carry", Query: pages, Out: route.Page[Image]{}, Handle: s.list},
		{Method: "GET", Path: "/v1/images/{digest}", Verb: "image.pull", Summary: "Get an image with its verification report", Out: Image{}, Handle: s.get},
	}
	for i := range r {
		r[i].Family = route.Interop
	}
	return r
}

const imageSQL = `SELECT m.repository, m.digest, m.media_type, m.image_size, m.pushed_at, m.pushed_by, r.report,
	(SELECT COALESCE(MIN(t.tag), '') FROM image_tags t WHERE t.tenant = m.tenant AND t.repository = m.repository AND t.digest = m.digest)
	FROM image_manifests m JOIN image_reports r ON r.tenant = m.tenant AND r.repository = m.repository AND r.digest = m.digest `

func scanImage(r *sql.Rows) (m Image, err error) {
	var report, tag string
	var at int64
	if err := r.Scan(&m.Repository, &m.Digest, &m.MediaType, &m.Size, &at, &m.PushedBy, &report, &tag); err != nil {
		return m, err
	}
	m.PushedAt, m.Tags = store.Time(at), []string{}
	if tag != "" {
		m.Tags = append(m.Tags, tag)
	}
	m.Signature, m.Provenance, m.SBOM = "pending", "pending", "pending"
	if report == "" {
		return m, nil
	}
	var found supplychain.Report
	if err := json.Unmarshal([]byte(report), &found); err != nil {
		return m, err
	}
	m.Signature, m.Provenance, m.SBOM = string(found.Signature.Status), string(found.Provenance.Status), string(found.SBOM.Status)
	m.Report = json.RawMessage(report)
	return m, nil
}

func (s *Service) list(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	cursor, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	repo, digest, _ := strings.Cut(cursor, "@")
	tenant := c.Principal.Tenant
	if err := s.gov.Check(c.R.Context(), s.action(Caller{c.Principal, c.Correlation}, "image.pull", tenant+"/", "")); err != nil {
		return nil, err
	}
	p := route.Page[Image]{Items: []Image{}}
	err = s.db.View(c.R.Context(), tenant, func(q store.Q) error {
		images, err := store.All(q, scanImage, imageSQL+`WHERE m.tenant = $1 AND (m.repository > $2 OR m.repository = $2 AND m.digest > $3) ORDER BY m.repository, m.digest LIMIT $4`,
			tenant, repo, digest, limit+1)
		if len(images) > limit {
			images = images[:limit]
			last := images[limit-1]
			p.NextCursor = route.Cursor(last.Repository + "@" + last.Digest)
		}
		for _, m := range images {
			m.Report = nil
			p.Items = append(p.Items, m)
		}
		return err
	})
	return p, err
}

func (s *Service) get(c *route.Call) (any, error) {
	digest, tenant := c.Path("digest"), c.Principal.Tenant
	if err := s.gov.Check(c.R.Context(), s.action(Caller{c.Principal, c.Correlation}, "image.pull", tenant+"/", digest)); err != nil {
		return nil, err
	}
	var images []Image
	err := s.db.View(c.R.Context(), tenant, func(q store.Q) (err error) {
		images, err = store.All(q, scanImage, imageSQL+`WHERE m.tenant = $1 AND m.digest = $2 ORDER BY m.pushed_at LIMIT 1`, tenant, digest)
		return err
	})
	if err == nil && len(images) == 0 {
		return nil, &kernel.Error{Kind: kernel.NotFound, Code: "ECS_IMAGE_NOT_FOUND", Msg: "no image with this digest"}
	}
	if err != nil {
		return nil, err
	}
	return images[0], nil
}
