package registry

import (
	"net/http"
	"net/url"
	"strconv"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

const (
	maxNames     = 1000    // tags or repositories on one page
	maxReferrers = 100     // descriptors on one page of referrers
	maxListBytes = 4 << 20 // of a page of referrers, which clients read as a manifest
)

// page reads n and last. Without n there are limit entries on a page; more are not given.
func page(q url.Values, limit int) (n int, last string, err error) {
	n, last = limit, q.Get("last")
	if !q.Has("n") {
		return n, last, nil
	}
	asked, err := strconv.ParseUint(q.Get("n"), 10, 31)
	if err != nil {
		return 0, "", kernel.Errorf(kernel.Invalid, CodeUnsupported, "n is a number of entries, 0 or more")
	}
	return int(min(asked, uint64(limit))), last, nil
}

// next links to the page after last (RFC 8288), keeping what else was asked.
func (c *call) next(q url.Values, n int, last string) {
	q.Set("n", strconv.Itoa(n))
	q.Set("last", last)
	c.w.Header().Set("Link", "<"+c.r.URL.EscapedPath()+"?"+q.Encode()+`>; rel="next"`)
}

func (c *call) listTags() error {
	type tags struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	names, err := c.names(CheckTag, func(after string, limit int) ([]string, error) {
		return c.cfg.Index.Tags(c.r.Context(), c.caller, c.route.name, after, limit)
	})
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, "application/json", tags{c.route.name, names})
}

func (c *call) listRepositories() error {
	type repositories struct {
		Repositories []string `json:"repositories"`
	}
	names, err := c.names(CheckName, func(after string, limit int) ([]string, error) {
		return c.cfg.Index.Repositories(c.r.Context(), c.caller, after, limit)
	})
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, "application/json", repositories{names})
}

// names fetches one page of a list of names and links to the next. It asks for one
// more than it shows, to know whether there is a next page.
func (c *call) names(check func(string) error, fetch func(after string, limit int) ([]string, error)) ([]string, error) {
	q, err := c.query()
	if err != nil {
		return nil, err
	}
	n, last, err := page(q, maxNames)
	if err == nil && last != "" {
		err = check(last)
	}
	if err != nil {
		return nil, err
	}
	names, err := fetch(last, n+1)
	if err != nil {
		return nil, err
	}
	if len(names) > n {
		names = names[:n]
		if n > 0 { // with n=0 the specification wants no link
			c.next(q, n, names[n-1])
		}
	}
	if names == nil {
		names = []string{}
	}
	return names, nil
}

func (c *call) listReferrers() error {
	type index struct {
		SchemaVersion int                   `json:"schemaVersion"`
		MediaType     string                `json:"mediaType"`
		Manifests     []manifest.Descriptor `json:"manifests"`
	}
	d, err := blob.ParseDigest(c.route.arg)
	if err != nil {
		return err
	}
	q, err := c.query()
	if err != nil {
		return err
	}
	n, last, err := page(q, maxReferrers)
	if err == nil && last != "" {
		_, err = blob.ParseDigest(last)
	}
	if err != nil {
		return err
	}
	kind := q.Get("artifactType")
	found, err := c.cfg.Index.Referrers(c.r.Context(), c.caller, c.route.name, d, kind, last, n+1)
	if err != nil {
		return err
	}
	shown := fit(found, n)
	if len(shown) < len(found) && len(shown) > 0 {
		c.next(q, n, shown[len(shown)-1].Digest.String())
	}
	if kind != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return c.writeJSON(http.StatusOK, manifest.OCIIndex, index{2, manifest.OCIIndex, shown})
}

// fit is the beginning of ds that goes on a page: at most n, and not much more than
// maxListBytes, but one if there is one.
func fit(ds []manifest.Descriptor, n int) []manifest.Descriptor {
	bytes := 0
	for i, d := range ds {
		for k, v := range d.Annotations {
			bytes += len(k) + len(v)
		}
		if i >= n || i > 0 && bytes > maxListBytes {
			return ds[:i]
		}
	}
	if ds == nil {
		return []manifest.Descriptor{}
	}
	return ds
}
