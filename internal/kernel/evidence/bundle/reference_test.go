package bundle

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The contract's own example bundles are not copied here; where they lie on
// this machine, ECS_EXAMPLE_BUNDLES names the folder that holds them.
func TestReferenceBundles(t *testing.T) {
	dir := os.Getenv("ECS_EXAMPLE_BUNDLES")
	if dir == "" {
		t.Skip("SKIPPED: set ECS_EXAMPLE_BUNDLES to the contract's docs/examples/evidence-bundles to check them")
	}
	for _, name := range []string{"baseline", "ncp"} {
		t.Run(name, func(t *testing.T) {
			r := verifyOK(t, filepath.Join(dir, name), Options{})
			if !r.Foreign || r.Scope.Events != 3 || r.Steps[stepFileList].Status != NotPresent || r.Steps[stepMerkle].Status != NotPresent {
				t.Errorf("report %+v", r)
			}
			if st := r.Steps[stepRefusals]; st.Warning == nil || !strings.Contains(st.Warning.Reason, "no event is refused") {
				t.Errorf("step 14: %+v", st)
			}
		})
	}
	// Vector V6 of the contract's digest.
	const v6 = `"event_hash":"sha256:8fe3ebcead241bf393e4b8b00cf7d4422e0a9416aadc871fa7c02d39242b5e3f"`
	first, _, _ := bytes.Cut(readFiles(t, filepath.Join(dir, "baseline"))[eventsName], []byte("\n"))
	var e event
	if err := e.parse(first); err != nil || !bytes.Contains(first, []byte(v6)) || newHasher().event(&e).String() != string(e.eventHash) {
		t.Errorf("V6: %v, %s", err, first)
	}
	// Edited after it was hashed: no event hash recomputes, but all links hold.
	r, err := Verify(context.Background(), filepath.Join(dir, "regulated-ml"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK || r.First.Step != stepEventHash || r.First.EventID != "evt-ml-001" || r.Steps[stepEventHash].Faults != 3 || r.Steps[stepLinks].Faults != 0 {
		t.Errorf("regulated-ml: first %v, %d event hashes, %d links", r.First, r.Steps[stepEventHash].Faults, r.Steps[stepLinks].Faults)
	}
}
