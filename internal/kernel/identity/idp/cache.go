package idp

import "sync"

// cache holds values by digest in two halves: a full young half becomes the
// old one, and what was not asked for since goes. So it is bounded, keeps what
// is in use, and needs neither a list nor a clock.
type cache[V any] struct {
	mu         sync.RWMutex
	young, old map[[32]byte]V
	half       int
}

func newCache[V any](half int) *cache[V] {
	return &cache[V]{young: map[[32]byte]V{}, half: half}
}

func (c *cache[V]) get(key [32]byte) (v V, ok bool) {
	c.mu.RLock()
	v, ok = c.young[key]
	if ok {
		c.mu.RUnlock()
		return v, true
	}
	v, ok = c.old[key]
	c.mu.RUnlock()
	if ok {
		c.put(key, v)
	}
	return v, ok
}

func (c *cache[V]) put(key [32]byte, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.young[key]; !known && len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[[32]byte]V, c.half)
	}
	c.young[key] = v
}

func (c *cache[V]) remove(key [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, key)
	delete(c.old, key)
}

// size is how many values are held, at most twice half.
func (c *cache[V]) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old)
}
