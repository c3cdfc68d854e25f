// Command tessera measures Tessera's POSIX appender beside bench/ledger: N
// writers append 500 bytes and wait until the entry is sequenced, durable and
// in the tree. It decides nothing and indexes nothing, so it does less than
// bench/ledger does.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	writers := flag.Int("writers", 512, "concurrent writers")
	seconds := flag.Float64("seconds", 5, "measured seconds")
	batch := flag.Uint("batch", tessera.DefaultBatchMaxSize, "entries per batch")
	age := flag.Duration("age", tessera.DefaultBatchMaxAge, "longest wait for a batch")
	flag.Parse()
	if err := run(*writers, *seconds, *batch, *age); err != nil {
		fmt.Fprintln(os.Stderr, "tessera:", err)
		os.Exit(1)
	}
}

func run(writers int, seconds float64, batch uint, age time.Duration) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "tessera-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	sk, _, err := note.GenerateKey(rand.Reader, "bench.example/log")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(sk)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return err
	}
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(batch, age))
	if err != nil {
		return err
	}
	all, err := load(ctx, appender, writers, seconds)
	if err := errors.Join(err, shutdown(ctx)); err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("nothing was written")
	}
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"log": "tessera", "writers": writers, "batch": batch, "age_ms": age.Milliseconds(),
		"entries_per_s": float64(len(all)) / seconds, "p50_ms": ms(.5), "p99_ms": ms(.99)})
}

func load(ctx context.Context, appender *tessera.Appender, writers int, seconds float64) ([]time.Duration, error) {
	var measuring, stop atomic.Bool
	lat := make([][]time.Duration, writers)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := uint64(0); !stop.Load(); n++ {
				entry := make([]byte, 500)
				binary.BigEndian.PutUint64(entry, uint64(w)<<40|n)
				t := time.Now()
				_, err := appender.Add(ctx, tessera.NewEntry(entry))()
				if errors.Is(err, tessera.ErrPushback) {
					continue
				}
				if err != nil {
					errs[w] = err
					return
				}
				if measuring.Load() {
					lat[w] = append(lat[w], time.Since(t))
				}
			}
		})
	}
	time.Sleep(time.Second)
	measuring.Store(true)
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	measuring.Store(false)
	stop.Store(true)
	wg.Wait()
	return slices.Concat(lat...), errors.Join(errs...)
}
