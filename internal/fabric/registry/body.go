package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

// body is the request's body, which must keep moving, and what to call when it is
// done with. It counts against the caller's transfers.
func (c *call) body() (io.Reader, func(), error) {
	key := c.caller.Key()
	if !c.transfers.take(key) {
		return nil, nil, &kernel.Error{Kind: kernel.TooMany, Code: blob.CodeTooMany, RetryAfter: 1,
			Msg: fmt.Sprintf("%d uploads are under way already", c.transfers.max)}
	}
	return c.movingBody(), func() { c.transfers.give(key) }, nil
}

func (c *call) movingBody() *movingBody {
	return &movingBody{body: c.r.Body, conn: http.NewResponseController(c.w), idle: c.cfg.IdleTimeout}
}

// boundBody sets the first deadline for the body, if there is one. It is what ends a
// request that is refused without reading it, when the server wants to read the rest
// before it answers and the client does not send it.
func (c *call) boundBody() error {
	if c.r.ContentLength == 0 {
		return nil
	}
	return c.movingBody().deadline(time.Now().Add(c.cfg.IdleTimeout))
}

// movingBody gives up when no byte comes for a while, however long the whole takes.
type movingBody struct {
	body io.Reader
	conn *http.ResponseController
	idle time.Duration
}

func (b *movingBody) Read(p []byte) (int, error) {
	if err := b.deadline(time.Now().Add(b.idle)); err != nil {
		return 0, err
	}
	n, err := b.body.Read(p)
	if err != io.EOF {
		return n, err // the deadline stays: the server may want to read the rest before it answers
	}
	// From here on the server reads only to notice a client that leaves while we
	// flush. The deadline must not look like one.
	if err := b.deadline(time.Time{}); err != nil {
		return n, err
	}
	return n, io.EOF
}

func (b *movingBody) deadline(t time.Time) error {
	if err := b.conn.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// quota counts what each key holds, up to max. It holds no key that holds nothing.
type quota struct {
	max int
	mu  sync.Mutex
	use map[string]int
}

func newQuota(limit int) *quota { return &quota{max: limit, use: map[string]int{}} }

func (q *quota) take(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.use[key] >= q.max {
		return false
	}
	q.use[key]++
	return true
}

func (q *quota) give(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.use[key]--; q.use[key] <= 0 {
		delete(q.use, key)
	}
}
