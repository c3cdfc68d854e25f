package jobs

import (
	"context"
	"fmt"

	"provost.dev/provost/internal/kernel/store"
)

// Reclaim makes claimed jobs due again at once, whoever claimed them. It is for
// the start of a process that has the database to itself: an earlier one that
// claimed them is gone, and nobody need wait until its leases run out.
func (w *Queue) Reclaim(ctx context.Context) error {
	err := w.cfg.Writer.Write(ctx, func(q store.Q) error {
		_, err := q.Exec(`UPDATE jobs SET lease_until = 0 WHERE state = 'running'`)
		return err
	})
	if err != nil {
		return fmt.Errorf("reclaim jobs: %w", err)
	}
	return nil
}
