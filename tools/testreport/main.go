// Command testreport turns the stream of `go test -json` into a short report
// and holds the run to its word: it fails when a test failed, when none ran, and
// when one was skipped that is not listed as one that may be.
//
//	go test -json ./... | testreport -may-skip FILE
//
// A skipped test proves nothing, and a suite can go green by skipping all of
// itself on a machine that lacks a tool. So each test that may be skipped stands
// in FILE with its reason, one a line:
//
//	internal/plane/audit TestAgainstSharedVectors  # reads data that only our own machines have
//
// The first word is the package's directory, the second the test (its
// subtests included) or * for all of the package.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	maySkip := flag.String("may-skip", "", "`file` that lists the tests that may be skipped")
	module := flag.String("module", "provost.dev/provost", "module `path`, cut from package names")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "testreport: reads standard input and takes no arguments")
		os.Exit(2)
	}
	ok, err := run(*maySkip, *module)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(maySkip, module string) (ok bool, err error) {
	var list skipList
	if maySkip != "" {
		f, err := os.Open(maySkip)
		if err != nil {
			return false, fmt.Errorf("open the list of tests that may be skipped: %w", err)
		}
		defer f.Close() // only read
		if list, err = readSkipList(f); err != nil {
			return false, fmt.Errorf("%s: %w", maySkip, err)
		}
	}
	r := newReport(os.Stdout, module, list)
	if err := r.read(os.Stdin); err != nil {
		return false, err
	}
	return r.finish(), nil
}
