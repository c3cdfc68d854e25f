package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"provost.dev/provost/internal/edge/apidoc"
	"provost.dev/provost/internal/kernel/policy"
)

// TestPublished holds api/ against the routes: what clients were promised does
// not change unseen. After a deliberate change,
//
//	go test ./internal/app -run TestPublished -update
//
// writes it anew, and its difference shows in review what clients will notice.
func TestPublished(t *testing.T) {
	schema, err := policy.NewSchema(Declarations()...)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := apidoc.New((&App{}).Routes(), apidoc.Info{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"openapi.yaml": docs.OpenAPI(), "asyncapi.yaml": docs.AsyncAPI()} {
		file := filepath.Join("..", "..", "api", name)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v; -update writes it", err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the routes say, from line %d on; if that is meant, run this test with -update", file, firstDifference(got, want))
		}
	}
}

// firstDifference is the number of the first line in which a and b differ.
func firstDifference(a, b []byte) int {
	x, y := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return i + 1
		}
	}
	return min(len(x), len(y)) + 1
}
