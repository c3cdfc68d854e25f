package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"provost.dev/provost/client"
)

// prover checks events against one log's key.
type prover struct {
	s    *session
	from string // where the key is from, for people

	mu    sync.Mutex
	key   string            // of the own tenant's log; empty until the server names one
	other map[string]string // of other tenants' logs, which have events that we caused, too
}

// trusted is the key to check a proof of an event of tenant's log with. The
// first that the server names stands for all: a server with two keys for a log
// shows two logs. Only the own tenant's can have been pinned.
func (v *prover) trusted(tenant string, p client.Proof) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if tenant != v.s.tenant && tenant != "" {
		if v.other == nil {
			v.other = map[string]string{}
		}
		if v.other[tenant] == "" {
			v.other[tenant] = p.LogKey
		}
		return v.other[tenant]
	}
	if v.key == "" {
		v.key = p.LogKey
	}
	return v.key
}

// provenEvent is an event, its proof and the checkpoint that holds it.
type provenEvent struct {
	event      client.Event
	proof      client.Proof
	checkpoint client.Checkpoint
}

// event fetches an event with its proof and checks both here. What was fetched
// is returned with a client.ErrUnverified, too.
func (v *prover) event(ctx context.Context, id string) (got provenEvent, err error) {
	if got.event, err = v.s.Events.Get(ctx, id); err != nil {
		return got, err
	}
	if got.proof, err = v.s.Events.Proof(ctx, id); err != nil {
		return got, err
	}
	if got.event.ID != id {
		return got, unverified("asked for event %s, got %s", id, got.event.ID)
	}
	if got.event.Sequence != got.proof.LeafIndex+1 {
		return got, unverified("event %s says it is number %d, its proof is for number %d", id, got.event.Sequence, got.proof.LeafIndex+1)
	}
	// The log's entry is the event as it is served, byte for byte.
	got.checkpoint, err = got.proof.Verify(bytes.TrimSpace(got.event.JSON()), v.trusted(got.event.TenantID, got.proof))
	return got, err
}

// proveAtOnce is how many events are fetched and checked at a time.
const proveAtOnce = 8

// verdict is how the proof of an event went.
type verdict struct {
	provenEvent
	fault error // nil when it holds; client.ErrUnverified, or why it could not be had
}

// all proves each of the events. A proof that fails is a verdict; the error is
// for when nothing can be said because the server is away or ctx ended.
func (v *prover) all(ctx context.Context, ids []string, done func(n int64)) (map[string]verdict, error) {
	verdicts := make([]verdict, len(ids))
	var finished atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(proveAtOnce)
	for i, id := range ids {
		g.Go(func() error {
			got, err := v.event(ctx, id)
			verdicts[i] = verdict{got, err}
			done(finished.Add(1))
			if e, ok := errors.AsType[*client.Error](err); ok && (e.Retryable || exitOf(e) == exitDenied) || ctx.Err() != nil {
				return fmt.Errorf("prove event %s: %w", id, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make(map[string]verdict, len(ids))
	for i, id := range ids {
		out[id] = verdicts[i]
	}
	return out, nil
}
