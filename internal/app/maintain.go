package app

import (
	"context"
	"path/filepath"
	"time"

	"provost.dev/provost/internal/fabric/blob"
)

// What is kept unused for how long. Content has to outlive the time between
// being written and being referred to by far.
const (
	uploadAge  = 24 * time.Hour
	contentAge = 24 * time.Hour
	tidyEvery  = 15 * time.Minute
)

// maintain tidies up until ctx ends: abandoned uploads, content nobody
// refers to, unpacked images nobody runs, workloads that drifted from what is
// stored. None of it is anyone's state; what cannot be done now is done next time.
func (a *App) maintain(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		round, cancel := context.WithTimeout(ctx, tidyEvery)
		for _, job := range []struct {
			what string
			do   func(context.Context) error
		}{{"abandoned uploads", a.sweepUploads}, {"unreferenced blobs", a.collectBlobs}, {"unpacked images", a.collectImages}, {"workloads", a.workloads.Reconcile}} {
			if err := job.do(round); err != nil && ctx.Err() == nil {
				a.logger.WarnContext(ctx, "tidy up", "what", job.what, "err", err)
			}
		}
		cancel()
	}
}

func (a *App) sweepUploads(ctx context.Context) error {
	_, err := a.blobs.Sweep(ctx, uploadAge)
	return err
}

func (a *App) collectBlobs(ctx context.Context) error {
	freed, err := a.blobs.Collect(ctx, contentAge, a.images.InUse)
	if freed.Blobs > 0 {
		a.logger.InfoContext(ctx, "removed unreferenced blobs", "blobs", freed.Blobs, "bytes", freed.Bytes)
	}
	return err
}

// collectImages keeps the trees of containers that exist, whatever their state.
func (a *App) collectImages(ctx context.Context) error {
	used := map[string]bool{}
	for _, st := range a.driver.List() {
		used[filepath.Base(filepath.Dir(st.Rootfs))] = true // …/<hex digest>/rootfs
	}
	_, err := a.rootfs.Collect(ctx, contentAge, func(d blob.Digest) bool { return used[d.Hex()] })
	return err
}
