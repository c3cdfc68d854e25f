package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goTest runs the real `go test -json` on a module that holds files.
func goTest(t *testing.T, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.test/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOPROXY=off")
	out, err := cmd.Output() // a failing run exits with 1, which is what some cases want
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("go test: %v", err)
	}
	return out
}

func test(body string) string {
	return "package p\n\nimport \"testing\"\n\n" + body
}

func TestReport(t *testing.T) {
	const pass = "func TestGood(t *testing.T) { t.Run(\"part\", func(*testing.T) {}) }\n"
	const skip = "func TestShy(t *testing.T) { t.Skip(\"no such tool\") }\n"
	cases := []struct {
		name  string
		files map[string]string
		list  string
		ok    bool
		want  []string // in the report
		not   []string
	}{{
		name: "all pass", ok: true,
		files: map[string]string{"a/a_test.go": test(pass), "b/b.go": "package b\n"},
		want:  []string{"ok    a ", "tests: 2 passed, 0 failed, 0 skipped\n"},
		not:   []string{"TestGood", "no test ran", "FAIL"},
	}, {
		name:  "a failure shows its output and no other's",
		files: map[string]string{"a/a_test.go": test(pass + "func TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"broken thing\") }) }\nfunc TestQuiet(t *testing.T) { t.Log(\"chatter\") }\n")},
		want:  []string{"broken thing", "--- FAIL: TestBad/sub", "failed packages: a\n", "tests: 3 passed, 2 failed, 0 skipped\n"},
		not:   []string{"chatter"},
	}, {
		name:  "a skip that is not listed",
		files: map[string]string{"a/a_test.go": test(pass + skip)},
		list:  "a TestOther # why\nb TestShy # another package",
		want:  []string{"not listed", "a TestShy", "no such tool", "tests: 2 passed, 0 failed, 1 skipped\n"},
	}, {
		name: "a skip that is listed", ok: true,
		files: map[string]string{"a/a_test.go": test(pass + skip)},
		list:  "a TestShy # needs a tool nobody has",
		want:  []string{"1 skipped"},
		not:   []string{"not listed"},
	}, {
		name:  "a package that does not build",
		files: map[string]string{"a/a_test.go": test(pass), "b/b_test.go": test("func TestX(t *testing.T) { nonsense() }\n")},
		want:  []string{"undefined: nonsense", "failed packages: b\n", "ok    a "},
	}, {
		name:  "a panic",
		files: map[string]string{"a/a_test.go": test("func TestX(t *testing.T) { panic(\"oh no\") }\n")},
		want:  []string{"oh no", "goroutine", "failed packages: a\n"},
	}, {
		name:  "an exit in the middle",
		files: map[string]string{"a/a_test.go": "package p\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n" + pass + "func TestX(t *testing.T) { os.Exit(3) }\n"},
		want:  []string{"failed packages: a\n"},
	}, {
		name:  "no test at all",
		files: map[string]string{"b/b.go": "package b\n"},
		want:  []string{"no test ran", "tests: 0 passed"},
	}, {
		name:  "only skips",
		files: map[string]string{"a/a_test.go": test(skip)},
		list:  "a * # all of it",
		want:  []string{"no test ran"},
	}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			list, err := readSkipList(strings.NewReader(c.list))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			r := newReport(&out, "example.test/m", list)
			if err := r.read(bytes.NewReader(goTest(t, c.files))); err != nil {
				t.Fatal(err)
			}
			if ok := r.finish(); ok != c.ok {
				t.Errorf("success is %v, want %v", ok, c.ok)
			}
			for _, s := range c.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("the report lacks %q", s)
				}
			}
			for _, s := range c.not {
				if strings.Contains(out.String(), s) {
					t.Errorf("the report has %q", s)
				}
			}
			if t.Failed() {
				t.Logf("report:\n%s", &out)
			}
		})
	}
}

func TestAStreamThatEndsInTheMiddleIsAFailure(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, "m", nil)
	stream := "go: downloading something\n" +
		`{"Action":"start","Package":"m/a"}` + "\n" +
		`{"Action":"pass","Package":"m/a","Test":"TestX"}` + "\n" + `{"Action":"out`
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.finish() {
		t.Error("counts as a success")
	}
	for _, want := range []string{"go: downloading something\n", "a: the stream ends", "tests: 1 passed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	var b []byte
	for range 5000 {
		b = keepEnd(b, strings.Repeat("x", 999)+"\n")
	}
	b = keepEnd(b, "the end\n")
	if len(b) > maxOutput*5/4 || !bytes.HasSuffix(b, []byte("the end\n")) {
		t.Errorf("kept %d bytes that end in %q", len(b), b[len(b)-10:])
	}
}

func TestSkipListWantsReasons(t *testing.T) {
	for _, line := range []string{"a TestX", "a TestX #", "a # reason", "a TestX TestY # reason"} {
		if _, err := readSkipList(strings.NewReader(line)); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
	list, err := readSkipList(strings.NewReader("# head\n\na TestX  # reason\n"))
	if err != nil {
		t.Fatal(err)
	}
	for test, want := range map[string]bool{"TestX": true, "TestX/sub": true, "TestXY": false, "Test": false} {
		if got := list.allows("a", test); got != want {
			t.Errorf("allows %s: %v", test, got)
		}
	}
}

// FuzzRead feeds foreign bytes: whatever they are, the report ends and counts nothing twice.
func FuzzRead(f *testing.F) {
	f.Add(`{"Action":"pass","Package":"m/a","Test":"TestX"}` + "\n" + `{"Action":"pass","Package":"m/a"}`)
	f.Add(`{"Action":"fail","Package":"m/a"}`)
	f.Add("{}\n{\"Action\":1}\nnot json")
	f.Fuzz(func(t *testing.T, stream string) {
		var out bytes.Buffer
		r := newReport(&out, "m", nil)
		if err := r.read(strings.NewReader(stream)); err != nil {
			t.Fatal(err)
		}
		r.finish()
		if n := r.passed + r.failed + r.skipped; n > strings.Count(stream, "{") {
			t.Fatalf("%d tests in %q", n, stream)
		}
	})
}
