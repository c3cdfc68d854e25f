package acceptance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// environment reads a number from the environment.
func environment(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q: %v", name, text, err)
	}
	return n
}

// acknowledged is a write that the server said it did.
type acknowledged struct {
	path           string // shows it
	event, pointer string
}

// crash is a server that is killed again and again while everything is going
// on in it, and what it has promised so far.
type crash struct {
	t      *testing.T
	s      *server
	op     *client // its token outlives the server
	random *rand.Rand
	round  int

	workload, boot string // the container that must live through it all
	ticks          int

	fresh    []acknowledged // in this round
	promised []acknowledged // in those before
	last     []object       // the newest event that was verified, alone
	tree     tlog.Tree
}

// TestCrash kills the server in the middle of load, PROVOST_CRASH_ROUNDS times.
// After each restart every acknowledged write and its event are there, the
// chain goes on where it was, nothing is half-done, and a container that ran
// still runs and is found again.
func TestCrash(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	s, err := startServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seed := environment(t, "PROVOST_SEED", rand.Uint64())
	t.Logf("PROVOST_SEED=%d repeats the times of the kills", seed)
	c := &crash{t: t, s: s, op: s.as(t, "operator", "demo"), random: rand.New(rand.NewPCG(seed, 9))}
	t.Cleanup(func() {
		if t.Failed() { // where it hangs, if it does
			if err := c.s.end(syscall.SIGQUIT); err != nil {
				t.Error(err)
			}
			t.Logf("round %d\n%s", c.round, c.s.stderr)
			return
		}
		if err := errors.Join(c.s.clear(), c.s.stop()); err != nil {
			t.Error(err)
		}
	})
	demo := &tenant{id: "demo", op: c.op, s: s}
	ref := demo.admissible(t)
	id, w := demo.run(t, ref)
	if w["status"] != "running" {
		t.Fatalf("status %v: %v", w["status"], w["status_reason"])
	}
	c.workload = id
	eventually(t, "the container to say who it is", func() bool {
		c.boot = c.op.logs(t, id)[0]
		return c.boot != ""
	})
	for c.round = range int(environment(t, "PROVOST_CRASH_ROUNDS", 10)) {
		short := c.op.post(t, "/v1/workloads", object{"envelope_type": "container", "image_ref": ref, "command": []string{"/guest", "exit", "0"}}).want(201).text("id")
		export := c.op.post(t, "/v1/exports", object{"evidence_profile_id": admissible}).want(202).text("export_id")
		c.load()
		c.restart()
		c.verifyLog()
		c.verifyContainer()
		if w := c.op.settled(t, short, "pending", "running"); w["status_reason"] == "" {
			t.Errorf("round %d: a workload started around the kill is %v without a reason", c.round, w["status"])
		}
		c.op.do(t, "DELETE", "/v1/workloads/"+short, nil).want(204)
		eventually(t, "the export begun before the kill", func() bool { return c.op.get(t, "/v1/exports/"+export).want(200).text("status") == "ready" })
		if t.Failed() {
			t.Fatalf("round %d", c.round)
		}
	}
	c.verifyAll()
	verified(t, c.op.get(t, c.lastExport()+"/bundle").want(200).body, 0)
	t.Logf("%d acknowledged writes in %d rounds", len(c.promised), c.round+1)
}

func (c *crash) lastExport() string {
	all := c.op.all(c.t, "/v1/exports")
	return "/v1/exports/" + all[len(all)-1]["export_id"].(string)
}

// load writes with several hands until the server is gone, which is soon.
func (c *crash) load() {
	const writers = 6
	done := make([][]acknowledged, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				ack, err := c.write(w, i)
				if err != nil {
					return // the server is gone: nothing was acknowledged
				}
				done[w] = append(done[w], ack...)
			}
		})
	}
	time.Sleep(time.Duration(100+c.random.IntN(600)) * time.Millisecond) // the kill comes whenever it comes
	if err := c.s.kill(); err != nil {
		c.t.Fatal(err)
	}
	wg.Wait()
	for _, d := range done {
		c.fresh = append(c.fresh, d...)
	}
}

// write makes one change and returns what was acknowledged.
func (c *crash) write(writer, i int) ([]acknowledged, error) {
	id := fmt.Sprintf("crash-%d-%d-%d", c.round, writer, i)
	ack := func(a *answer, err error, path string) ([]acknowledged, error) {
		if err != nil {
			return nil, err
		}
		if a.status != 200 && a.status != 201 {
			c.t.Errorf("round %d: %s: status %d: %s", c.round, a.request, a.status, clip(a.body))
			return nil, fmt.Errorf("status %d", a.status)
		}
		return []acknowledged{{path, a.header.Get("X-Event-ID"), a.header.Get("X-Evidence-Pointer")}}, nil
	}
	switch {
	case writer == 0: // a blob, and a manifest that names it
		config := []byte(`{"id":"` + id + `"}`)
		a, err := c.op.try("POST", "/v2/demo/crash/blobs/uploads/?digest="+digestOf(config), config, "Content-Type", "application/octet-stream")
		if err != nil || a.status != 201 {
			return ack(a, err, "")
		}
		m := `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":{"mediaType":"` + configType + `","digest":"` + digestOf(config) + `","size":` + strconv.Itoa(len(config)) + `},"layers":[]}`
		a, err = c.op.try("PUT", "/v2/demo/crash/manifests/"+digestOf([]byte(m)), m, "Content-Type", manifestType)
		out, err := ack(a, err, "/v2/demo/crash/manifests/"+digestOf([]byte(m)))
		if err == nil {
			out = append(out, acknowledged{path: "/v2/demo/crash/blobs/" + digestOf(config)})
		}
		return out, err
	case i%3 == 0:
		a, err := c.op.try("POST", "/v1/decisions", object{"action": "workload.read", "resource": object{"type": "Workload", "id": id}})
		return ack(a, err, "")
	}
	a, err := c.op.try("POST", "/v1/authorities", object{"id": id, "issuer": "x", "subject": "*", "scope": []string{"*"}, "valid_from": "2026-01-01T00:00:00Z", "valid_to": "2027-01-01T00:00:00Z"})
	return ack(a, err, "/v1/authorities/"+id)
}

// restart starts the server again; every other time it is killed once more
// while it is starting.
func (c *crash) restart() {
	if c.round%2 == 1 {
		s, err := spawn(c.s.dir, c.s.dev.Registry)
		if err != nil {
			c.t.Fatal(err)
		}
		time.Sleep(time.Duration(c.random.IntN(300)) * time.Millisecond)
		if err := s.kill(); err != nil {
			c.t.Fatal(err)
		}
	}
	s, err := c.s.again()
	if err != nil {
		c.t.Fatalf("round %d: %v", c.round, err)
	}
	c.s = s
}

// verifyLog reads what was written since the last round: the chain goes on,
// and what was promised and what was done are the same.
func (c *crash) verifyLog() {
	t := c.t
	from := int64(1)
	if c.last != nil {
		from = number(t, c.last[0]["sequence"]) + 1
	}
	fresh := c.op.events(t, fmt.Sprint("from_sequence=", from))
	checkChain(t, append(slices.Clone(c.last), fresh...))
	tree := checkpoint(t, c.op.get(t, "/v1/log/demo/checkpoint").want(200).body, logKey(t, c.op, "demo"))
	if c.tree.N > 0 && tree.N > c.tree.N {
		var proof tlog.TreeProof
		for _, h := range c.op.get(t, fmt.Sprintf("/v1/log/demo/consistency?from=%d&to=%d", c.tree.N, tree.N)).want(200).json()["hashes"].([]any) {
			proof = append(proof, hashOf(t, h.(string)))
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, c.tree.N, c.tree.Hash); err != nil {
			t.Errorf("round %d: the log of %d entries is no prefix of that of %d: %v", c.round, c.tree.N, tree.N, err)
		}
	}
	byID, made := map[string]object{}, map[string]bool{}
	for _, e := range fresh {
		byID[e["id"].(string)] = e
		if e["event_type"] == "authority.binding" && e["outcome"] == "accepted" {
			made[e["authority_id"].(string)] = true
		}
	}
	for _, p := range c.fresh {
		if p.event != "" && byID[p.event]["evidence_pointer"] != p.pointer {
			t.Errorf("round %d: acknowledged event %s has pointer %v, the answer had %s", c.round, p.event, byID[p.event]["evidence_pointer"], p.pointer)
		}
		if p.path != "" {
			c.op.get(t, p.path).want(200)
		}
	}
	c.promised, c.fresh = append(c.promised, c.fresh...), nil
	// The other way round: what is there has its event, acknowledged or not.
	prefix := fmt.Sprintf("crash-%d-", c.round)
	for _, a := range c.op.all(t, "/v1/authorities") {
		if id := a["id"].(string); strings.HasPrefix(id, prefix) {
			if !made[id] {
				t.Errorf("round %d: authority %s is there without an event", c.round, id)
			}
			delete(made, id)
		}
	}
	for id := range made {
		if strings.HasPrefix(id, prefix) {
			t.Errorf("round %d: authority %s has an event and is not there", c.round, id)
		}
	}
	c.last, c.tree = fresh[len(fresh)-1:], tree
}

// verifyAll looks once more for everything that was ever promised.
func (c *crash) verifyAll() {
	all := c.op.events(c.t, "")
	checkChain(c.t, all)
	there := map[string]bool{}
	for _, e := range all {
		there[e["id"].(string)] = true
	}
	for i, p := range c.promised {
		if p.event != "" && !there[p.event] {
			c.t.Errorf("acknowledged event %s is gone", p.event)
		}
		if i%10 == 0 && p.path != "" {
			c.op.get(c.t, p.path).want(200)
		}
	}
}

// verifyContainer: it is the same process as before, it goes on, and the
// server knows it.
func (c *crash) verifyContainer() {
	t := c.t
	if w := c.op.get(t, "/v1/workloads/"+c.workload).want(200).json(); w["status"] != "running" {
		t.Errorf("round %d: the container is %v: %v", c.round, w["status"], w["status_reason"])
	}
	eventually(t, "the container to go on", func() bool {
		lines := c.op.logs(t, c.workload)
		boots := 0
		for _, l := range lines {
			if strings.HasPrefix(l, "boot ") {
				boots++
			}
		}
		if lines[0] != c.boot || boots != 1 {
			t.Fatalf("round %d: it began as %q; its log now begins with %q and has %d beginnings", c.round, c.boot, lines[0], boots)
		}
		n, err := strconv.Atoi(strings.TrimPrefix(lines[len(lines)-1], "tick "))
		if err != nil || n <= c.ticks {
			return false
		}
		c.ticks = n
		return true
	})
}
