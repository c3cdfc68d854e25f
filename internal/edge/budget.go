package edge

import (
	"context"
	"sync"
	"time"
)

// Bounded is an Authenticator that keeps evidence of at most max rejected
// credentials per second: a flood of bad tokens is answered, but nobody
// without a credential may fill the log.
func Bounded(a Authenticator, max int) Authenticator {
	return &bounded{Authenticator: a, max: max}
}

type bounded struct {
	Authenticator
	max int

	mu    sync.Mutex
	until time.Time
	used  int
}

// Reject implements Authenticator.
func (b *bounded) Reject(ctx context.Context, correlation string, err error) error {
	if !b.take(time.Now()) {
		return err
	}
	return b.Authenticator.Reject(ctx, correlation, err)
}

func (b *bounded) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.until) {
		b.until, b.used = now.Add(time.Second), 0
	}
	b.used++
	return b.used <= b.max
}
