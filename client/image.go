package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"
)

// Image is what the tenant's registry holds under a digest, and whether what
// admission asks for was found with it.
type Image struct {
	Object
	Repository string    `json:"repository"`
	Digest     string    `json:"digest"` // "sha256:<hex>"
	MediaType  string    `json:"media_type"`
	Tags       []string  `json:"tags"`
	Size       int64     `json:"size"` // bytes
	PushedAt   time.Time `json:"pushed_at"`
	PushedBy   string    `json:"pushed_by"`
	// Verdicts on what the image should carry: verified, unsigned (SBOMs only),
	// invalid or missing.
	Signature  string `json:"signature"`
	Provenance string `json:"provenance"`
	SBOM       string `json:"sbom"`
	// Report is the verification report; lists leave it out.
	Report json.RawMessage `json:"report"`
}

// Images is /v1/images.
type Images struct{ c *Client }

// Get returns an image with its verification report.
func (s Images) Get(ctx context.Context, digest string) (i Image, err error) {
	_, err = s.c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "images", digest}, out: &i})
	return i, err
}

// List walks the tenant's images.
func (s Images) List(ctx context.Context) iter.Seq2[Image, error] {
	return list[Image](ctx, s.c, nil, 0, "v1", "images")
}
