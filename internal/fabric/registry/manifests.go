package registry

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

// maxTags bounds the tags given with one push by digest; the specification asks for ten.
const maxTags = 64

// getManifest answers GET and HEAD. What was pushed is what comes back: there is no
// conversion between media types, and so nothing to negotiate.
func (c *call) getManifest() error {
	ref, err := c.reference()
	if err != nil {
		return err
	}
	m, err := c.cfg.Index.GetManifest(c.r.Context(), c.caller, c.route.name, ref)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(m.Bytes)))
	h.Set("Docker-Content-Digest", m.Digest.String())
	h.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(m.Bytes) // the client has gone if this fails
	return nil
}

// reference is that of a manifest to be found. What cannot be a tag is the tag of nothing.
func (c *call) reference() (Reference, error) {
	ref, err := ParseReference(c.route.arg)
	if err != nil && kernel.AsError(err).Code == CodeTagInvalid {
		return ref, kernel.Errorf(kernel.NotFound, CodeManifestUnknown, "no such manifest")
	}
	return ref, err
}

func (c *call) deleteManifest() error {
	ref, err := c.reference()
	if err != nil {
		return err
	}
	rcpt, err := c.cfg.Index.DeleteManifest(c.r.Context(), c.caller, c.route.name, ref)
	if err != nil {
		return err
	}
	c.receipt(rcpt)
	c.empty(http.StatusAccepted)
	return nil
}

func (c *call) putManifest() error {
	ref, tags, err := c.pushTarget()
	if err != nil {
		return err
	}
	b, err := c.readManifest()
	if err != nil {
		return err
	}
	digest := blob.SHA256.Sum(b)
	if !ref.Digest.IsZero() {
		if digest = ref.Digest.Algorithm().Sum(b); digest != ref.Digest {
			return kernel.Errorf(kernel.Invalid, blob.CodeDigestInvalid, "the manifest is %s, not %s", digest, ref.Digest)
		}
	}
	m, err := manifest.Parse(c.r.Header.Get("Content-Type"), b)
	if err != nil {
		return err
	}
	if err := c.checkContent(m); err != nil {
		return err
	}
	p := Pushed{Stored: Stored{Digest: digest, MediaType: m.MediaType, Bytes: b}, Tags: tags, Manifest: m}
	rcpt, err := c.cfg.Index.PutManifest(c.r.Context(), c.caller, c.route.name, p)
	if err != nil {
		return err
	}
	c.receipt(rcpt)
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.route.name+"/manifests/"+digest.String())
	h.Set("Docker-Content-Digest", digest.String())
	if m.Subject != nil {
		h.Set("OCI-Subject", m.Subject.Digest.String())
	}
	if ref.Tag == "" && len(tags) > 0 {
		h.Set("OCI-Tag", strings.Join(tags, ", "))
	}
	c.empty(http.StatusCreated)
	return nil
}

// pushTarget is where a manifest goes: a tag, or a digest and the tags given with it.
func (c *call) pushTarget() (Reference, []string, error) {
	if c.r.Header.Get("If-Match") != "" || c.r.Header.Get("If-None-Match") != "" {
		return Reference{}, nil, kernel.Errorf(kernel.Invalid, CodeUnsupported, "conditional pushes are not offered")
	}
	ref, err := ParseReference(c.route.arg)
	if err != nil {
		return Reference{}, nil, err
	}
	q, err := c.query()
	if err != nil {
		return Reference{}, nil, err
	}
	tags := slices.Clone(q["tag"])
	switch {
	case ref.Tag != "" && len(tags) > 0:
		return Reference{}, nil, kernel.Errorf(kernel.Invalid, CodeUnsupported, "tag parameters belong to a push by digest")
	case ref.Tag != "":
		return ref, []string{ref.Tag}, nil
	case len(tags) > maxTags:
		return Reference{}, nil, kernel.Errorf(kernel.Invalid, CodeUnsupported, "a push gives at most %d tags", maxTags)
	}
	for _, t := range tags {
		if err := CheckTag(t); err != nil {
			return Reference{}, nil, err
		}
	}
	slices.Sort(tags)
	return ref, slices.Compact(tags), nil
}

func (c *call) readManifest() ([]byte, error) {
	if c.r.ContentLength > manifest.MaxBytes {
		return nil, kernel.Errorf(kernel.TooLarge, blob.CodeSizeInvalid, "a manifest has at most %d bytes", manifest.MaxBytes)
	}
	body, done, err := c.body()
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := io.ReadAll(io.LimitReader(body, manifest.MaxBytes+1))
	if err != nil {
		return nil, kernel.Errorf(kernel.Invalid, manifest.CodeInvalid, "the manifest broke off: %w", err)
	}
	return b, nil
}

// checkContent finds everything m names in the repository and compares what m says of it.
func (c *call) checkContent(m *manifest.Manifest) error {
	seen := map[blob.Digest]int64{}
	for _, d := range m.Blobs() {
		size, ok := seen[d.Digest]
		if !ok {
			var err error
			if size, err = c.cfg.Index.Blob(c.r.Context(), c.caller, c.route.name, d.Digest); err != nil {
				return missing(err, d)
			}
			seen[d.Digest] = size
		}
		if err := sameSize(d, size); err != nil {
			return err
		}
	}
	for _, d := range m.Manifests {
		if err := c.checkChild(d); err != nil {
			return err
		}
	}
	if m.Subject == nil {
		return nil
	}
	err := c.checkChild(*m.Subject)
	if err != nil && kernel.AsError(err).Code == CodeContentUnknown {
		return nil // a subject may come later, or never
	}
	return err
}

// checkChild finds a manifest that an index lists. Build caches list plain blobs there, too.
func (c *call) checkChild(d manifest.Descriptor) error {
	ctx := c.r.Context()
	got, err := c.cfg.Index.GetManifest(ctx, c.caller, c.route.name, Reference{Digest: d.Digest})
	if err == nil {
		if manifest.IsManifest(d.MediaType) && d.MediaType != got.MediaType {
			return kernel.Errorf(kernel.Invalid, manifest.CodeInvalid, "%s is %s, not %s", d.Digest, got.MediaType, d.MediaType)
		}
		return sameSize(d, int64(len(got.Bytes)))
	}
	if kernel.KindOf(err) != kernel.NotFound || manifest.IsManifest(d.MediaType) {
		return missing(err, d)
	}
	size, err := c.cfg.Index.Blob(ctx, c.caller, c.route.name, d.Digest)
	if err != nil {
		return missing(err, d)
	}
	return sameSize(d, size)
}

func sameSize(d manifest.Descriptor, size int64) error {
	if d.Size != size {
		return kernel.Errorf(kernel.Invalid, manifest.CodeInvalid, "%s has %d bytes, the manifest says %d", d.Digest, size, d.Size)
	}
	return nil
}

// missing turns the index's NotFound into the specification's error for it.
func missing(err error, d manifest.Descriptor) error {
	if kernel.KindOf(err) != kernel.NotFound {
		return err
	}
	return &kernel.Error{Kind: kernel.Invalid, Code: CodeContentUnknown, Err: err,
		Msg: fmt.Sprintf("%s is not in the repository", d.Digest), Fix: "push it first"}
}
