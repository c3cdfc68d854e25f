package app

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"provost.dev/provost/internal/edge/apidoc"
	"provost.dev/provost/internal/kernel/identity/idp"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/plane/audit"
	"provost.dev/provost/internal/plane/image"
	"provost.dev/provost/internal/plane/tenant"
	"provost.dev/provost/internal/plane/workload"
)

var update = flag.Bool("update", false, "write api/openapi.yaml and api/asyncapi.yaml")

// TestPublished holds api/ against the routes. After a deliberate change,
//
//	go test ./internal/app -run TestPublished -update
//
// writes it anew, and the difference shows in review what clients will notice.
func TestPublished(t *testing.T) {
	schema, err := policy.NewSchema(idp.Declaration, tenant.Declaration, audit.Declaration, image.Declaration, workload.Declaration)
	if err != nil {
		t.Fatal(err)
	}
	routes := slices.Concat((&idp.Provider{}).Routes(), (&tenant.Service{}).Routes(), (&audit.Service{}).Routes(),
		(&image.Service{}).Routes(), (&workload.Service{}).Routes())
	docs, err := apidoc.New(routes, apidoc.Info{Schema: schema})
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
