// Package internal_test guards the house of docs/ARCHITECTURE.md: which room
// may import which, and how large a file may grow.
package internal_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module       = "provost.dev/provost"
	maxFileLines = 500
)

// wall says what the packages below dir may import of this module. In a
// pattern, "/..." stands for the package and everything below it, and "." for
// the importing room itself: dir and, where depth is 1, the next element below
// it ("internal/plane/tenant" is one room, "internal/plane/image" another).
type wall struct {
	dir   string
	depth int
	may   []string
	why   string
}

// walls holds the arrows of the design. The first dir that fits a package
// rules it; below internal, a package that none fits is an error.
var walls = []wall{
	{dir: "cmd", may: []string{"internal/cli", "internal/app", "internal/fabric/runtime/oci"},
		why: "main hands over to internal/cli, with the server that internal/app makes and the supervisor that this program also is"},
	{dir: "client", may: []string{"./...", "api/..."},
		why: "the public client must compile in other people's modules, so nothing of internal"},
	{dir: "internal/cli", may: []string{"./...", "client/...", "api/...", "internal/app/...", "internal/kernel", "internal/kernel/evidence/bundle/...", "internal/kernel/evidence/canon"},
		why: "commands talk to the API through client; app starts the server, kernel/evidence/bundle verifies offline"},
	{dir: "internal/app", may: []string{"./...", "internal/edge/...", "internal/plane/...", "internal/fabric/...", "internal/kernel/...", "api/...", "web/...", "docs/..."},
		why: "the composition root knows every room below it, but neither the commands nor the client"},
	{dir: "internal/edge", may: []string{"./...", "internal/kernel/...", "api/...", "web/...", "docs/..."},
		why: "edge → kernel: planes hand their routes to edge through app"},
	{dir: "internal/plane", depth: 1, may: []string{"./...", "internal/kernel/...", "api/...", "internal/fabric/blob", "internal/fabric/registry", "internal/fabric/registry/manifest", "internal/fabric/runtime", "internal/fabric/supplychain/..."},
		why: "plane → kernel, and the fabric's plain words (digests, manifests, specs, reports): a plane that needs another plane, the edge or a driver declares the small interface, and app hands it over"},
	{dir: "internal/fabric", depth: 1, may: []string{"./...", "internal/kernel", "internal/kernel/bus/...", "internal/fabric/blob", "internal/fabric/registry/manifest"},
		why: "fabric knows the outside world and of ours only kernel's errors, the bus, and the words for content that every room of it shares: digests and manifests"},
	{dir: "internal/kernel", may: []string{"./..."},
		why: "every action passes through the kernel, so it knows no plane, fabric, edge, app or command"}, // circles among its rooms do not compile
}

// outside are the directories that hold no part of the product: they may import anything.
var outside = []string{"bench", "deploy", "docs", "examples", "test", "tools"}

func TestImportsPointDown(t *testing.T) {
	root := moduleRoot(t)
	for _, f := range goFiles(t, root) {
		if strings.HasSuffix(f.name, "_test.go") {
			continue // a test may stand anywhere to look at what it tests
		}
		for _, imp := range f.imports {
			if why := wrongArrow(path.Dir(f.name), imp.dir); why != "" {
				t.Errorf("%s:%d: imports %s: %s", f.name, imp.line, imp.dir, why)
			}
		}
	}
}

// wrongArrow returns the rule that an import of package to by package from
// breaks, or "". Both are directories in the module.
func wrongArrow(from, to string) string {
	for _, w := range walls {
		if !within(from, w.dir) {
			continue
		}
		room := firstElements(from, strings.Count(w.dir, "/")+1+w.depth)
		for _, pattern := range w.may {
			pattern = strings.Replace(pattern, "./...", room+"/...", 1)
			if dir, all := strings.CutSuffix(pattern, "/..."); to == dir || all && within(to, dir) {
				return ""
			}
		}
		return fmt.Sprintf("%s (%s may import of ours: %s)", w.why, room, strings.Join(w.may, ", "))
	}
	if within(from, "internal") {
		return "this room has no rule; give it one in internal/walls_test.go"
	}
	if slices.Contains(outside, firstElements(from, 1)) {
		return ""
	}
	return "only cmd, client, internal and " + strings.Join(outside, ", ") + " import other packages of ours; api and web hold data"
}

func TestWrongArrowsAreFound(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/provost", "internal/cli", true},
		{"cmd/provost", "internal/app", true},
		{"cmd/provost", "internal/plane/tenant", false},
		{"client", "client/events", true},
		{"client", "internal/kernel", false},
		{"internal/cli", "client", true},
		{"internal/cli", "internal/kernel/evidence/bundle", true},
		{"internal/cli", "internal/kernel/evidence", false},
		{"internal/cli/render", "internal/plane/tenant", false},
		{"internal/app", "internal/fabric/runtime/oci", true},
		{"internal/app", "internal/cli", false},
		{"internal/app", "client", false},
		{"internal/edge", "internal/kernel/identity", true},
		{"internal/edge", "internal/plane/tenant", false},
		{"internal/edge", "internal/app", false},
		{"internal/plane/tenant", "internal/kernel/govern", true},
		{"internal/plane/tenant", "internal/plane/tenant/wire", true},
		{"internal/plane/tenant/wire", "internal/plane/tenant", true},
		{"internal/plane/tenant", "internal/plane/image", false},
		{"internal/plane/tenant", "internal/plane/tenantry", false},
		{"internal/plane/tenant", "internal/edge", false},
		{"internal/plane/workload", "internal/fabric/runtime", true},
		{"internal/plane/workload", "internal/fabric/runtime/oci", false},
		{"internal/fabric/registry", "internal/kernel", true},
		{"internal/fabric/registry", "internal/kernel/bus", true},
		{"internal/fabric/registry", "internal/kernel/store", false},
		{"internal/fabric/registry", "internal/fabric/blob", true},
		{"internal/fabric/registry", "internal/fabric/supplychain", false},
		{"internal/fabric/blob", "internal/fabric/registry", false},
		{"internal/fabric/runtime/oci", "internal/fabric/runtime", true},
		{"internal/kernel/govern", "internal/kernel/policy", true},
		{"internal/kernel", "internal/kernel/store", true},
		{"internal/kernel/jobs", "internal/plane/workload", false},
		{"internal/kernel/jobs", "internal/fabric/blob", false},
		{"internal/kernelish", "internal/kernel", false},
		{"internal/newroom", "internal/kernel", false},
		{"test/accept", "internal/app", true},
		{"api", "internal/kernel", false},
		{"surprise", "internal/kernel", false},
	} {
		if why := wrongArrow(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s → %s: allowed %v, want %v (%s)", c.from, c.to, why == "", c.ok, why)
		}
	}
}

// TestFilesStaySmall: a file that outgrows this is more than one thing, or the
// start of the hub that everything ends up in. Tests and generated files may be longer.
func TestFilesStaySmall(t *testing.T) {
	for _, f := range goFiles(t, moduleRoot(t)) {
		if f.lines > maxFileLines && !f.generated && !strings.HasSuffix(f.name, "_test.go") {
			t.Errorf("%s: has %d lines, at most %d: split it along what it does", f.name, f.lines, maxFileLines)
		}
	}
}

type goFile struct {
	name      string // slash-separated, from the module's root
	lines     int
	generated bool
	imports   []ourImport
}

// ourImport is an import of a package of this module.
type ourImport struct {
	dir  string
	line int
}

// goFiles reads every Go file of the module: all build tags, no nested modules,
// no testdata.
func goFiles(t *testing.T, root string) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && skipDir(name, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || filepath.Ext(name) != ".go" {
			return nil
		}
		f, err := readGoFile(root, name)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatalf("read the module's Go files: %v", err)
	}
	if len(files) == 0 {
		t.Fatalf("no Go file below %s", root)
	}
	return files
}

func skipDir(dir, base string) bool {
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "node_modules" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func readGoFile(root, name string) (goFile, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return goFile{}, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return goFile{}, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return goFile{}, err
	}
	f := goFile{
		name:      filepath.ToSlash(rel),
		lines:     bytes.Count(src, []byte("\n")),
		generated: ast.IsGenerated(parsed),
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return goFile{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		if dir, ours := strings.CutPrefix(imported, module+"/"); ours {
			f.imports = append(f.imports, ourImport{dir, fset.Position(spec.Pos()).Line})
		}
	}
	return f, nil
}

// moduleRoot is the directory with go.mod. Go runs a test in its package's directory.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !bytes.HasPrefix(mod, []byte("module "+module+"\n")) {
		t.Fatalf("%s is not the root of %s: %v", root, module, err)
	}
	return root
}

// within reports whether dir is parent or below it.
func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// firstElements is the first n elements of dir, or all of it.
func firstElements(dir string, n int) string {
	parts := strings.Split(dir, "/")
	return strings.Join(parts[:min(n, len(parts))], "/")
}
