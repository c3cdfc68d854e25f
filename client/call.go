package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Largest answers that are read into memory, in bytes.
const (
	maxBody   = 8 << 20
	maxEvents = 80 << 20 // a page of 1,000 events of up to 64 KiB each
)

// maxWait is the longest Retry-After that a call waits out by itself.
const maxWait = 20 * time.Second

// call is one request.
type call struct {
	method string
	path   []string // unescaped segments
	query  url.Values
	in     any // encoded as JSON; url.Values as a form; nil is no body
	out    any // decoded from the answer; nil discards it
	accept string
	header http.Header
	limit  int64 // of the answer in bytes; 0 is maxBody
	// anonymous calls carry no token: they are how one is had.
	anonymous bool
}

// do makes the call and decodes its answer.
func (c *Client) do(ctx context.Context, k call) (Receipt, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	resp, err := c.send(ctx, k)
	if err != nil {
		return Receipt{}, err
	}
	defer resp.Body.Close()
	r := receiptOf(resp.Header)
	body, err := readBounded(resp.Body, k.limit)
	if err != nil {
		return r, c.broken(resp, err)
	}
	if k.out == nil {
		return r, nil
	}
	if err := decode(body, k.out); err != nil {
		return r, c.broken(resp, err)
	}
	return r, nil
}

// bytes makes the call and returns its answer as it came.
func (c *Client) bytes(ctx context.Context, k call) ([]byte, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	resp, err := c.send(ctx, k)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, k.limit)
	if err != nil {
		return nil, c.broken(resp, err)
	}
	return b, nil
}

// broken is the error of an answer that began well and could not be read.
func (c *Client) broken(resp *http.Response, err error) error {
	e := &Error{Status: resp.StatusCode, Code: CodeProtocol, Message: "the answer of " + c.base.Host + " could not be read", Err: err}
	e.Retryable = errors.Is(err, io.ErrUnexpectedEOF)
	return e
}

func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// open makes the call and returns its answer as a stream, which the caller
// closes. Only the wait for the answer's beginning is bounded.
func (c *Client) open(ctx context.Context, k call) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.send(ctx, k)
	if !t.Stop() && err == nil { // too late, and the body is cancelled with its context
		resp.Body.Close()
		err = c.unreachable(context.DeadlineExceeded)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &stream{ReadCloser: resp.Body, cancel: func() { cancel(nil) }}
	return resp, nil
}

// stream frees its request's context when it is closed.
type stream struct {
	io.ReadCloser
	cancel func()
}

func (s *stream) Close() error {
	defer s.cancel()
	return s.ReadCloser.Close()
}

// send makes the request as often as it may and returns an answer below 300,
// whose body the caller closes.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	body, contentType, err := encode(k.in)
	if err != nil {
		return nil, err
	}
	token, err := c.bearer(ctx, k)
	if err != nil {
		return nil, err
	}
	renewed := false
	for attempt := 0; ; attempt++ {
		req, err := c.request(ctx, k, body, contentType, token)
		if err != nil {
			return nil, err
		}
		resp, failure := c.once(ctx, req)
		if failure == nil {
			return resp, nil
		}
		if r, ok := c.token.(Renewer); ok && failure.Status == http.StatusUnauthorized && !renewed && !k.anonymous {
			// A rejected request did nothing, so any method may be sent again.
			if token, err = r.Renew(ctx, token); err != nil {
				return nil, err
			}
			renewed = true
			continue
		}
		wait, again := c.again(k.method, failure, attempt)
		if !again {
			return nil, failure
		}
		if err := c.pause(ctx, wait); err != nil {
			return nil, failure
		}
	}
}

func (c *Client) bearer(ctx context.Context, k call) (string, error) {
	if c.token == nil || k.anonymous {
		return "", nil
	}
	return c.token.Token(ctx)
}

// once makes the request a single time. An answer of 300 and above is an Error.
func (c *Client) once(ctx context.Context, req *http.Request) (*http.Response, *Error) {
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, c.unreachable(plainCause(err))
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, errorOf(resp, time.Now())
}

// plainCause drops net/http's repetition of method and address.
func plainCause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// again decides whether and when a failed call is tried once more.
func (c *Client) again(method string, e *Error, attempt int) (time.Duration, bool) {
	if attempt >= c.retries || e.RetryAfter > maxWait || !e.Retryable {
		return 0, false
	}
	switch method {
	case http.MethodGet, http.MethodHead:
		if e.Status != 0 && !tryAgain(e.Status) || errors.Is(e.Err, context.DeadlineExceeded) {
			return 0, false
		}
	case http.MethodPut, http.MethodDelete:
		// After a lost answer nobody knows what happened, and a second DELETE
		// would report that there is nothing to delete.
		if e.RetryAfter == 0 || e.Status != http.StatusTooManyRequests && e.Status != http.StatusServiceUnavailable {
			return 0, false
		}
	default:
		return 0, false
	}
	if e.RetryAfter > 0 {
		return e.RetryAfter, true
	}
	return backoff(attempt, 200*time.Millisecond, 5*time.Second), true
}

// backoff doubles from base to most, with a random half taken off so that
// callers do not come back together.
func backoff(attempt int, base, most time.Duration) time.Duration {
	d := most
	if attempt < 16 {
		d = min(base<<attempt, most)
	}
	return d/2 + rand.N(d/2+1)
}

func (c *Client) request(ctx context.Context, k call, body []byte, contentType, token string) (*http.Request, error) {
	u, err := c.address(k.path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = k.query.Encode()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u.String(), r)
	if err != nil {
		return nil, &Error{Code: CodeInvalid, Message: "the request cannot be made", Err: err}
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json")
	if k.accept != "" {
		req.Header.Set("Accept", k.accept)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if id, ok := ctx.Value(correlationKey{}).(string); ok && id != "" {
		req.Header.Set("X-Correlation-ID", id)
	}
	return req, nil
}

// address joins path's segments to the server's address, each escaped. A
// segment that would lead elsewhere, such as an empty id, is an error.
func (c *Client) address(path []string) (*url.URL, error) {
	var plain, escaped strings.Builder
	plain.WriteString(c.base.Path)
	escaped.WriteString(c.base.EscapedPath())
	for _, s := range path {
		if s == "" || s == "." || s == ".." || strings.ContainsRune(s, 0) {
			return nil, &Error{Code: CodeInvalid, Field: "id", Message: fmt.Sprintf("%q cannot name anything", s)}
		}
		plain.WriteString("/" + s)
		escaped.WriteString("/" + url.PathEscape(s))
	}
	u := *c.base
	u.Path, u.RawPath = plain.String(), escaped.String()
	return &u, nil
}

func encode(in any) (body []byte, contentType string, err error) {
	switch in := in.(type) {
	case nil:
		return nil, "", nil
	case url.Values:
		return []byte(in.Encode()), "application/x-www-form-urlencoded", nil
	}
	body, err = json.Marshal(in)
	if err != nil {
		return nil, "", &Error{Code: CodeInvalid, Message: "the request cannot be encoded", Err: err}
	}
	return body, "application/json", nil
}

var errTooLarge = errors.New("it is larger than this client reads")

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	if limit == 0 {
		limit = maxBody
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w (%d bytes)", errTooLarge, limit)
	}
	return b, nil
}

// decode reads JSON into out and lets an Object keep it.
func decode(body []byte, out any) error {
	if raw, ok := out.(*json.RawMessage); ok {
		if !json.Valid(body) {
			return errors.New("it is not JSON")
		}
		*raw = body
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return err
	}
	if o, ok := out.(interface{ keep(json.RawMessage) }); ok {
		o.keep(body)
	}
	return nil
}
