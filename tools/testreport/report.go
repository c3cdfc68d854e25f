package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

const (
	maxOutput = 256 << 10 // bytes kept of one test's output: the end, where the failure is
	slowest   = 5         // packages named at the end
)

// event is one line of `go test -json` (go doc test2json; go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail, instead of Package
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

type report struct {
	out    io.Writer
	module string
	list   skipList

	running                 map[string]*pkgRun // by import path, until the package ends
	builds                  map[string][]byte  // compiler output by import path
	passed, failed, skipped int
	brokenPkgs              []string // ended badly
	unlisted                []string // skips that are not on the list, with their reasons
	took                    map[string]float64
}

// pkgRun is a package whose tests are running. The empty name is the package itself.
type pkgRun struct {
	tests                   map[string]*testRun
	passed, failed, skipped int
}

type testRun struct {
	output []byte
	action string // how it ended; empty while it runs
}

func newReport(out io.Writer, module string, list skipList) *report {
	return &report{
		out: out, module: module, list: list,
		running: map[string]*pkgRun{}, builds: map[string][]byte{}, took: map[string]float64{},
	}
}

// read takes the whole stream. Lines that are not events, such as those of the
// go command itself, are passed on as they are.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil || e.Action == "" {
				r.printf("%s\n", bytes.TrimRight(line, "\n"))
			} else {
				r.handle(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (r *report) handle(e event) {
	if e.Action == "build-output" {
		r.builds[e.ImportPath] = keepEnd(r.builds[e.ImportPath], e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.running[e.Package]
	if p == nil {
		p = &pkgRun{tests: map[string]*testRun{}}
		r.running[e.Package] = p
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &testRun{}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		t.output = keepEnd(t.output, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnded(e, p)
		} else {
			r.testEnded(e, p, t)
		}
	}
}

func (r *report) testEnded(e event, p *pkgRun, t *testRun) {
	t.action = e.Action
	switch e.Action {
	case "pass":
		p.passed++
		t.output = nil
	case "fail":
		p.failed++
	case "skip":
		p.skipped++
		if dir := r.dir(e.Package); !r.list.allows(dir, e.Test) {
			r.unlisted = append(r.unlisted, fmt.Sprintf("%s %s\n%s", dir, e.Test, t.output))
		}
		t.output = nil
	}
}

func (r *report) packageEnded(e event, p *pkgRun) {
	delete(r.running, e.Package)
	r.passed, r.failed, r.skipped = r.passed+p.passed, r.failed+p.failed, r.skipped+p.skipped
	dir := r.dir(e.Package)
	r.took[dir] = e.Elapsed
	switch e.Action {
	case "skip": // it has no tests
	case "pass":
		r.printf("ok    %-44s %6.1fs  %s\n", dir, e.Elapsed, counts(p.passed, p.failed, p.skipped))
	case "fail":
		r.brokenPkgs = append(r.brokenPkgs, dir)
		r.printf("%s", r.builds[e.FailedBuild])
		r.printUnpassed(p)
		r.printf("FAIL  %-44s %6.1fs  %s\n", dir, e.Elapsed, counts(p.passed, p.failed, p.skipped))
	}
}

// printUnpassed prints what is known of every test that failed or never ended,
// the package's own output (a panic, a race, a leak) last.
func (r *report) printUnpassed(p *pkgRun) {
	names := slices.Sorted(maps.Keys(p.tests))
	for _, name := range append(names[1:], names[0]) { // "" sorts first
		t := p.tests[name]
		if t.action != "pass" && t.action != "skip" {
			r.printf("%s", t.output)
		}
	}
}

// finish prints the end of the report and says whether the run is a success.
func (r *report) finish() bool {
	for _, pkg := range slices.Sorted(maps.Keys(r.running)) {
		p := r.running[pkg]
		r.passed, r.failed, r.skipped = r.passed+p.passed, r.failed+p.failed, r.skipped+p.skipped
		r.brokenPkgs = append(r.brokenPkgs, r.dir(pkg))
		r.printf("FAIL  %s: the stream ends in the middle of it\n", r.dir(pkg))
	}
	r.printSlowest()
	if len(r.brokenPkgs) > 0 {
		r.printf("\nfailed packages: %s\n", strings.Join(r.brokenPkgs, ", "))
	}
	if len(r.unlisted) > 0 {
		r.printf("\nskipped, but not listed as tests that may be:\n")
		for _, s := range r.unlisted {
			r.printf("  %s\n", strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n      "))
		}
	}
	if r.passed+r.failed == 0 {
		r.printf("\nno test ran\n")
	}
	r.printf("\ntests: %d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.passed > 0 && r.failed == 0 && len(r.brokenPkgs) == 0 && len(r.unlisted) == 0
}

func (r *report) printSlowest() {
	dirs := slices.SortedFunc(maps.Keys(r.took), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.took[b], r.took[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, dir := range dirs[:min(slowest, len(dirs))] {
		parts = append(parts, fmt.Sprintf("%s %.0fs", dir, r.took[dir]))
	}
	if len(parts) > 0 {
		r.printf("\nslowest: %s\n", strings.Join(parts, ", "))
	}
}

// dir is the package's directory in the module.
func (r *report) dir(pkg string) string {
	if pkg == r.module {
		return "."
	}
	return strings.TrimPrefix(pkg, r.module+"/")
}

// printf prints like fmt.Printf does, to a terminal or a build log: when that
// is gone there is nobody to tell.
func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

func counts(passed, failed, skipped int) string {
	s := fmt.Sprintf("%d passed", passed)
	if failed > 0 {
		s += fmt.Sprintf(", %d failed", failed)
	}
	if skipped > 0 {
		s += fmt.Sprintf(", %d skipped", skipped)
	}
	return s
}

// keepEnd appends s to b and drops from the front what is over maxOutput.
func keepEnd(b []byte, s string) []byte {
	b = append(b, s...)
	if over := len(b) - maxOutput; over > maxOutput/4 { // not on every line
		b = append(b[:0], b[over:]...)
	}
	return b
}
