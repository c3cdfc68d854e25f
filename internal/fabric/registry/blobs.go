package registry

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

// getBlob answers GET and HEAD, with Range.
func (c *call) getBlob() error {
	d, err := blob.ParseDigest(c.route.arg)
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	if _, err := c.cfg.Index.Blob(ctx, c.caller, c.route.name, d); err != nil {
		return err
	}
	content, info, err := c.cfg.Blobs.Open(ctx, d)
	if err != nil {
		if kernel.KindOf(err) == kernel.NotFound { // the index says it is here: a loss, not a wrong question
			return kernel.Errorf(kernel.Internal, "", "open linked blob %s: %v", d, err)
		}
		return err
	}
	defer content.Close() // read only
	h := c.w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+d.String()+`"`)
	if strings.Contains(c.r.Header.Get("Range"), ",") {
		c.r.Header.Del("Range") // several ranges would cost more than the whole; RFC 9110 §14.2 lets us ignore them
	}
	c.allowTime(info.Size)
	http.ServeContent(c.w, c.r, "", time.Time{}, content)
	return nil
}

// allowTime sets how long sending n bytes may take.
func (c *call) allowTime(n int64) {
	d := c.cfg.IdleTimeout + time.Duration(n/c.cfg.MinRate)*time.Second
	err := http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(d))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		c.cfg.Log.WarnContext(c.r.Context(), "download without a deadline", "error", err)
	}
}

func (c *call) deleteBlob() error {
	d, err := blob.ParseDigest(c.route.arg)
	if err != nil {
		return err
	}
	rcpt, err := c.cfg.Index.UnlinkBlob(c.r.Context(), c.caller, c.route.name, d)
	if err != nil {
		return err
	}
	c.receipt(rcpt)
	c.empty(http.StatusAccepted)
	return nil
}

// startUpload mounts a blob, takes one whole, or opens an upload.
func (c *call) startUpload() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if q.Has("mount") {
		if done, err := c.mount(q.Get("mount"), q.Get("from")); done || err != nil {
			return err
		}
	}
	if a := q.Get("digest-algorithm"); a != "" {
		if _, err := blob.ParseAlgorithm(a); err != nil {
			return err
		}
	}
	if q.Has("digest") {
		return c.putBlob(q.Get("digest"))
	}
	u, err := c.cfg.Blobs.Begin(c.r.Context(), c.caller.Key(), c.route.name)
	if err != nil {
		return err
	}
	c.progress(u, 0)
	c.empty(http.StatusAccepted)
	return nil
}

func (c *call) query() (url.Values, error) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, kernel.Errorf(kernel.Invalid, CodeUnsupported, "the query cannot be read")
	}
	return q, nil
}

// mount links a blob that another repository of the caller has. When that cannot
// be, it reports false: the client is then given an upload and sends the bytes, and
// learns nothing about the other repository.
func (c *call) mount(digest, from string) (bool, error) {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return false, err
	}
	if from == "" || CheckName(from) != nil {
		return false, nil
	}
	ctx := c.r.Context()
	reader, err := c.cfg.Auth.Authorize(c.r, from, Pull)
	if err != nil {
		return false, unlessHidden(err)
	}
	size, err := c.cfg.Index.Blob(ctx, reader, from, d)
	if err == nil {
		err = c.cfg.Blobs.Touch(ctx, d) // keep it from being collected until the link is there
	}
	if err != nil {
		return false, unlessHidden(err)
	}
	return true, c.link(Link{Digest: d, Size: size, From: from})
}

// unlessHidden drops the errors that say the caller cannot have it.
func unlessHidden(err error) error {
	switch kernel.KindOf(err) {
	case kernel.NotFound, kernel.Refused, kernel.Unauthenticated:
		return nil
	}
	return err
}

// putBlob takes the whole blob in one request.
func (c *call) putBlob(digest string) error {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	body, done, err := c.body()
	if err != nil {
		return err
	}
	defer done()
	size, err := c.cfg.Blobs.Put(c.r.Context(), d, c.r.ContentLength, body)
	if err != nil {
		return err
	}
	return c.link(Link{Digest: d, Size: size})
}

// link records that the repository has the blob and says where it is.
func (c *call) link(l Link) error {
	rcpt, err := c.cfg.Index.LinkBlob(c.r.Context(), c.caller, c.route.name, l)
	if err != nil {
		return err
	}
	c.receipt(rcpt)
	c.w.Header().Set("Docker-Content-Digest", l.Digest.String())
	c.w.Header().Set("Location", "/v2/"+c.route.name+"/blobs/"+l.Digest.String())
	c.empty(http.StatusCreated)
	return nil
}

func (c *call) upload() blob.Upload {
	return blob.Upload{Owner: c.caller.Key(), Purpose: c.route.name, ID: c.route.arg}
}

// progress tells the client how far the upload is. An empty one is written 0-0, as
// every client expects, although the notation has no word for nothing.
func (c *call) progress(u blob.Upload, offset int64) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.route.name+"/blobs/uploads/"+u.ID)
	h.Set("Docker-Upload-UUID", u.ID)
	h.Set("Range", "0-"+strconv.FormatInt(max(offset-1, 0), 10))
}

func (c *call) uploadStatus() error {
	at, err := c.cfg.Blobs.Offset(c.r.Context(), c.upload())
	if err != nil {
		return err
	}
	c.progress(c.upload(), at)
	c.empty(http.StatusNoContent)
	return nil
}

func (c *call) patchUpload() error {
	at, err := c.appendBody()
	if err != nil {
		return err
	}
	c.progress(c.upload(), at)
	c.empty(http.StatusAccepted)
	return nil
}

// appendBody adds the request's body to the upload, where Content-Range says or at
// its end, and returns the new offset.
func (c *call) appendBody() (int64, error) {
	ctx, u, size := c.r.Context(), c.upload(), c.r.ContentLength
	at, err := c.cfg.Blobs.Offset(ctx, u)
	if err != nil {
		return 0, err
	}
	if v := c.r.Header.Get("Content-Range"); v != "" {
		first, last, err := parseContentRange(v)
		if err != nil {
			return 0, err
		}
		if n := last - first + 1; size >= 0 && size != n {
			return 0, kernel.Errorf(kernel.Invalid, blob.CodeSizeInvalid, "Content-Range covers %d bytes, Content-Length is %d", n, size)
		}
		at, size = first, last-first+1
	}
	body, done, err := c.body()
	if err != nil {
		return 0, err
	}
	defer done()
	at, err = c.cfg.Blobs.Append(ctx, u, at, size, body)
	if err != nil && kernel.AsError(err).Code == blob.CodeUploadOffset {
		c.progress(u, at) // the client goes on from there
	}
	return at, err
}

// parseContentRange reads "<first>-<last>", both inclusive, as the distribution
// specification writes it (not as RFC 9110 does). The error is Invalid.
func parseContentRange(s string) (first, last int64, err error) {
	a, b, ok := strings.Cut(s, "-")
	if ok && digits(a) && digits(b) {
		first, err = strconv.ParseInt(a, 10, 64)
		if err == nil {
			last, err = strconv.ParseInt(b, 10, 64)
		}
		if err == nil && first <= last && last-first+1 > 0 {
			return first, last, nil
		}
	}
	return 0, 0, kernel.Errorf(kernel.Invalid, blob.CodeUploadInvalid, "Content-Range is written <first>-<last>, in bytes and inclusive")
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func (c *call) finishUpload() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	d, err := blob.ParseDigest(q.Get("digest"))
	if err != nil {
		return err
	}
	if c.r.ContentLength != 0 || c.r.Header.Get("Content-Range") != "" {
		if _, err := c.appendBody(); err != nil {
			return err
		}
	}
	size, err := c.cfg.Blobs.Commit(c.r.Context(), c.upload(), d)
	if err != nil {
		return err
	}
	return c.link(Link{Digest: d, Size: size})
}

func (c *call) cancelUpload() error {
	if err := c.cfg.Blobs.Cancel(c.r.Context(), c.upload()); err != nil {
		return err
	}
	c.empty(http.StatusNoContent)
	return nil
}

// empty answers without a body.
func (c *call) empty(status int) {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
}
