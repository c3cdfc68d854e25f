package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"provost.dev/provost/internal/fabric/runtime"
)

// adoptAll takes over what an earlier server left in the state directory.
func (d *Driver) adoptAll(ctx context.Context) error {
	entries, err := os.ReadDir(d.containersDir())
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(d.containersDir(), e.Name())
		if strings.HasPrefix(e.Name(), removedPrefix) {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("remove rest of deleted container: %w", err)
			}
			continue
		}
		if err := d.adopt(ctx, e.Name(), dir); err != nil {
			return fmt.Errorf("take over container %s: %w", e.Name(), err)
		}
	}
	return nil
}

func (d *Driver) adopt(ctx context.Context, id, dir string) error {
	var rec record
	err := readJSON(filepath.Join(dir, recordFile), &rec)
	if errors.Is(err, os.ErrNotExist) {
		// Its Start was cut short before it put the record there, so nothing
		// was started, and nobody was told that it would be.
		return removeDir(dir)
	}
	if err == nil && rec.Spec.ID != id {
		err = fmt.Errorf("record is of %q", rec.Spec.ID)
	}
	if err != nil {
		// Records are not synced to disk, for they tell of processes that a
		// power failure ends. Reap finds whatever else there may be.
		d.cfg.Logger.WarnContext(ctx, "container without a usable record is removed", "container", id, "error", err)
		var last report
		if readJSON(filepath.Join(dir, statusFile), &last) != nil {
			return removeDir(dir)
		}
		return errors.Join(last.Shim.kill(ctx), removeDir(dir))
	}
	c := d.newContainer(rec)
	d.containers[id] = c // not shared yet
	var last report
	if err := readJSON(filepath.Join(dir, statusFile), &last); err == nil {
		c.shim, c.status = last.Shim, last.Status
	} else if !errors.Is(err, os.ErrNotExist) {
		// Cut by a power failure; what it said is past anyway.
		d.cfg.Logger.WarnContext(ctx, "container's last status not read", "container", id, "error", err)
	}
	if c.status.State != runtime.Starting {
		close(c.started)
	}
	if c.status.State.Final() {
		close(c.ended)
	}
	if rec.BootID == d.bootID {
		if conn := c.reconnect(); conn != nil {
			c.watch(conn, nil)
			return nil
		}
	}
	c.settle(ctx)
	return nil
}

// settle is for a container that an earlier server's supervisor left. Its end
// was before this driver, so it is in List and not told to OnExit.
func (c *container) settle(ctx context.Context) {
	c.quiet = true
	c.afterShim(ctx)
	close(c.gone)
}

// Reap ends and removes what carries this driver's names but has no record:
// cgroups with whatever runs in them, and the runtime's state. It returns the
// ids it found, and may run at any time beside everything else. New has called
// it; calling it again now and then does no harm.
func (d *Driver) Reap(ctx context.Context) ([]string, error) {
	ids, err := d.leftovers()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range ids {
		d.cfg.Logger.WarnContext(ctx, "container without a record is removed", "container", id)
		rec := record{Spec: runtime.Spec{ID: id}, RuntimeRoot: d.runtimeRoot(), Cgroup: d.cgroupOf(id)}
		if host, err := d.ready(ctx); err == nil {
			rec.Runtime = host.Runtime // otherwise it is done by hand
		}
		errs = append(errs, rec.sweep(ctx, d.cfg.StateDir))
	}
	return ids, errors.Join(errs...)
}

// leftovers lists ids without a record. A container's directory is made before
// everything else of it and removed after, so what is seen now and has no
// entry afterwards is left over.
func (d *Driver) leftovers() ([]string, error) {
	ids, err := d.cgroup.Children(d.group)
	if err != nil {
		return nil, err
	}
	states, err := os.ReadDir(d.runtimeRoot())
	if err != nil {
		return nil, fmt.Errorf("list the runtime's containers: %w", err)
	}
	for _, e := range states {
		if e.IsDir() && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return d.containers[id] != nil }), nil
}
