// Command ledger measures the log alone, in process: N writers each append an
// event of about 500 bytes with a decision, indexed by five keys, and wait
// until it is durable and in the Merkle tree. bench/peers/tessera measures the
// same for Tessera's POSIX driver, without decision and index.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"

	"sync"
	"sync/atomic"
	"time"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/secret"
	"provost.dev/provost/internal/kernel/store"
)

func main() {
	writers := flag.Int("writers", 512, "concurrent writers")
	seconds := flag.Float64("seconds", 5, "measured seconds")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "ledger:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(*writers, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(1)
	}
}

const rules = `@id("entry.write") permit (principal, action == Action::"entry.write", resource)
when { principal.tenant == resource.tenant && principal.permissions.contains("entries.write") };`

// platform is a tenant that may do what the one rule says.
type platform struct{ set *policy.Set }

func (p platform) LoadView(_ store.Q, tenant string) (*govern.View, error) {
	snapshot := []byte(`{"rules":"` + p.set.Digest() + `"}`)
	return &govern.View{Tenant: tenant, Status: "active", Policy: govern.InForce{Bound: policy.Bound{Platform: p.set, Tenant: policy.Empty}, Snapshot: snapshot, Digest: evidence.Digest(snapshot)},
		Authority: govern.Authority{ID: "bench", Snapshot: snapshot, Digest: evidence.Digest(snapshot), Scope: []string{"*"}, ValidTo: time.Now().Add(time.Hour)}}, nil
}

func run(writers int, seconds float64) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "provost-ledger-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{URL: "sqlite:" + filepath.Join(dir, "log.db")})
	if err != nil {
		return err
	}
	defer db.Close()
	schema, err := policy.NewSchema(policy.Declaration{Resources: []policy.ResourceType{{Name: "Entry"}},
		Actions: []policy.Action{{Verb: "entry.write", Resource: "Entry", Permission: "entries.write"}}})
	if err != nil {
		return err
	}
	set, err := schema.Compile("platform", "1", rules)
	if err != nil {
		return err
	}
	key := make([]byte, secret.KeySize)
	rand.Read(key) //nolint:errcheck // crypto/rand.Read never fails
	box, err := secret.NewBox(key)
	if err != nil {
		return err
	}
	log := evidence.NewLog(evidence.Config{DB: db, Box: box, Provider: "bench.example"})
	if err := createLogs(ctx, db, log, identity.SystemTenant, "bench"); err != nil {
		return err
	}
	gov := govern.New(govern.Config{DB: db, Log: log, Views: platform{set}, Verbs: []govern.Verb{{Name: "entry.write"}}})
	defer gov.Close()
	who, err := identity.NewPrincipal(schema, identity.Principal{Tenant: "bench", Name: "writer", Kind: identity.Service, Permissions: []string{"entries.write"}})
	if err != nil {
		return err
	}
	return load(ctx, gov, who, writers, seconds)
}

// createLogs makes the logs as creating a tenant does.
func createLogs(ctx context.Context, db *store.DB, log *evidence.Log, tenants ...string) error {
	g := store.NewGroup(db, store.GroupConfig[string]{Apply: func(tx *store.Tx, names []string) error {
		b, err := log.Begin(tx, nil)
		if err != nil {
			return err
		}
		for _, n := range names {
			if _, err := b.Create(n); err != nil {
				return err
			}
		}
		return b.Finish()
	}})
	defer g.Close()
	for _, t := range tenants {
		if err := g.Submit(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func load(ctx context.Context, gov *govern.Governor, who *identity.Principal, writers int, seconds float64) error {
	var measuring, stop atomic.Bool
	lat := make([][]time.Duration, writers)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				a := govern.Action{Verb: "entry.write", Principal: who, ResourceID: fmt.Sprintf("entry/%d-%d", w, n), Correlation: govern.NewCorrelation(),
					Resource: policy.Resource{Type: "Entry", ID: "e", Attributes: policy.Record{"tenant": "bench"}}, Details: map[string]any{"note": "written by the benchmark"}}
				t := time.Now()
				if _, err := gov.Do(ctx, a, func(*govern.Tx) error { return nil }); err != nil {
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
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	all := slices.Concat(lat...)
	if len(all) == 0 {
		return errors.New("nothing was written")
	}
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"log": "provost", "writers": writers, "entries_per_s": float64(len(all)) / seconds,
		"p50_ms": ms(.5), "p99_ms": ms(.99)})
}
