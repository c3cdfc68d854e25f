package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
)

// maxGrace bounds what Stop waits before it kills.
const maxGrace = time.Hour

// Stop asks the container to end with its StopSignal, kills it once grace is
// over, and returns how it ended. It goes on when ctx is done or this program
// ends. Stopping what has ended returns its Status. Errors: kernel.Invalid,
// kernel.NotFound, or ctx's own.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) (runtime.Status, error) {
	if grace < 0 || grace > maxGrace {
		return runtime.Status{}, kernel.InvalidField("grace", "want 0 to %v", maxGrace)
	}
	c, err := d.get(id)
	if err != nil {
		return runtime.Status{}, err
	}
	if err := c.end(ctx, grace); err != nil {
		return runtime.Status{}, fmt.Errorf("stop container %s: %w", id, err)
	}
	return c.Status(), nil
}

// end has the container ended and waits until it has.
func (c *container) end(ctx context.Context, grace time.Duration) error {
	if c.Status().State.Final() {
		return nil
	}
	req := request{Op: "stop", Signal: int(c.rec.Spec.StopSignal), GraceMS: grace.Milliseconds()}
	if err := c.ask(req); err != nil {
		c.d.cfg.Logger.WarnContext(ctx, "supervisor does not listen", "container", c.rec.Spec.ID, "error", err)
	}
	err := c.await(ctx, c.ended, grace+c.d.killPatience)
	if !errors.Is(err, errStuck) {
		return err
	}
	if err := c.force(ctx); err != nil {
		return err
	}
	return c.await(ctx, c.ended, 2*sweepTimeout) // the monitor sweeps first
}

// errStuck says that a supervisor did not do in time what it always does.
var errStuck = errors.New("the container's supervisor does not answer")

// await waits for done, which the monitor closes; the ends of waiting are ctx's,
// the driver's, or after patience errStuck. Patience 0 has no end.
func (c *container) await(ctx context.Context, done <-chan struct{}, patience time.Duration) error {
	var stuck <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		stuck = timer.C
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.d.closing:
		return errClosed
	case <-stuck:
		return errStuck
	}
}

// force ends a supervisor that doesn't answer; the monitor does the rest.
func (c *container) force(ctx context.Context) error {
	c.mu.Lock()
	shim := c.shim
	c.mu.Unlock()
	c.d.cfg.Logger.WarnContext(ctx, "supervisor does not answer and is killed", "container", c.rec.Spec.ID, "pid", shim.PID)
	return errors.Join(c.d.cgroup.Kill(ctx, c.rec.Cgroup), shim.kill(ctx))
}

// Delete kills the container if it runs, and removes all there is of it: its
// processes, cgroups, the runtime's state, its record and its log. A container
// that has ended takes nothing but its record and log, so that whoever wants to
// keep the log just doesn't delete it yet. Errors: kernel.NotFound, or what
// kept it from being removed; then it is still there, and Delete can be repeated.
func (d *Driver) Delete(ctx context.Context, id string) error {
	c, err := d.get(id)
	if err != nil {
		return err
	}
	if err := d.remove(ctx, c); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

func (d *Driver) remove(ctx context.Context, c *container) error {
	c.removing.Lock()
	defer c.removing.Unlock()
	d.mu.Lock()
	present := d.containers[c.rec.Spec.ID] == c
	d.mu.Unlock()
	if !present {
		return nil // someone else was first
	}
	c.mu.Lock()
	launched := c.conn != nil
	c.mu.Unlock()
	if launched {
		if err := c.end(ctx, 0); err != nil {
			return err
		}
		if err := c.awaitGone(ctx); err != nil {
			return err
		}
	}
	// Normally done by now; this is where a failure is told.
	if err := c.rec.sweep(ctx, c.dir); err != nil {
		return err
	}
	if err := removeDir(c.dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.containers, c.rec.Spec.ID)
	return nil
}

// awaitGone waits for the end of the supervisor, which has nothing left to do
// but to clear up.
func (c *container) awaitGone(ctx context.Context) error {
	err := c.await(ctx, c.gone, sweepTimeout+c.d.killPatience)
	if !errors.Is(err, errStuck) {
		return err
	}
	if err := c.force(ctx); err != nil {
		return err
	}
	return c.await(ctx, c.gone, 2*sweepTimeout)
}

// removedPrefix marks directories on their way out. No id begins like it.
const removedPrefix = ".removed-"

// removeDir removes a container's directory. It is renamed first: half of one
// would look like a container whose end is unknown after a crash.
func removeDir(dir string) error {
	aside := filepath.Join(filepath.Dir(dir), removedPrefix+filepath.Base(dir))
	err := os.Rename(dir, aside)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		// An earlier one of that name, whose removal was interrupted.
		err = errors.Join(os.RemoveAll(aside), os.Rename(dir, aside))
	}
	if err != nil {
		return fmt.Errorf("remove container directory: %w", err)
	}
	return os.RemoveAll(aside)
}
