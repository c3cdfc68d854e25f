package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart measures, alternating, how long it takes until a process runs
// under Start and under a bare "runc run" of the same bundle, and prints both
// medians. The process's first act is to print, which ends the bare measurement;
// Start has returned before or after that, and the later of the two counts.
func BenchmarkStart(b *testing.B) {
	needRunc(b)
	d, image := openDriver(b, Config{}), busyboxImage(b)
	bare := newBareBundle(b, d, image)
	var ours, bares []time.Duration
	for i := 0; b.Loop(); i++ {
		bares = append(bares, bare.run(b, fmt.Sprintf("bare-%d", i)))

		id := fmt.Sprintf("bench-%d", i)
		begin := time.Now()
		start(b, d, shell(id, image, "echo up; exec sleep 60"))
		ours = append(ours, time.Since(begin))
		awaitLine(b, d, id, "up")
		if err := d.Delete(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	mine, theirs := median(ours), median(bares)
	b.ReportMetric(0, "ns/op") // both together say nothing
	b.ReportMetric(ms(mine), "start-ms")
	b.ReportMetric(ms(theirs), "runc-run-ms")
	b.ReportMetric(ms(mine)-1.5*ms(theirs), "over-1.5x-ms")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// bareBundle is the bundle that Start would run, for running it without Start.
type bareBundle struct {
	rec record
	dir string
}

func newBareBundle(b *testing.B, d *Driver, image string) *bareBundle {
	b.Helper()
	host, err := d.ready(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	s := fill(shell("bare", image, "echo up; exec sleep 60"), 65532, 65532)
	bundle := &bareBundle{dir: b.TempDir(), rec: record{Spec: s, Runtime: host.Runtime,
		RuntimeRoot: filepath.Join(b.TempDir(), "runtime"), Cgroup: d.group + "-bare/bare"}}
	if err := writeBundle(bundle.dir, &bundle.rec, host); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.cgroup.Remove(context.Background(), filepath.Dir(bundle.rec.Cgroup)); err != nil {
			b.Error(err)
		}
	})
	return bundle
}

// run returns how long it took until the process printed, and ends it.
func (bundle *bareBundle) run(b *testing.B, id string) (took time.Duration) {
	b.Helper()
	bundle.rec.Spec.ID = id
	err := inPrivateMounts(func() error {
		if err := mountRoot(bundle.dir, bundle.rec.Spec.Rootfs); err != nil {
			return err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		cmd := exec.Command(bundle.rec.Runtime.Path, "--root", bundle.rec.RuntimeRoot, "run", "--bundle", bundle.dir, id)
		cmd.Stdout, cmd.Stderr = w, os.Stderr
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if _, err := r.Read(make([]byte, 3)); err != nil {
			return fmt.Errorf("the process did not print: %w", err)
		}
		took = time.Since(begin)
		if err := bundle.rec.sweep(b.Context(), bundle.dir); err != nil {
			return err
		}
		_ = cmd.Wait() // killed, as it should be
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return took
}
