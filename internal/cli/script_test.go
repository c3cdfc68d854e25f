package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary stand in for the program: scripts run it as
// "provost", each time as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"provost": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script against a server that answers as in
// fake_test.go. Beside testscript's commands there are
//
//	exits CODE COMMAND…   run a command that has to end with this exit code
//	flip FILE             change one byte in the middle of a file
//	tamper on|off         let the server change the events it serves
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			f := newFake(t)
			ids := []string{f.log.add("policy.evaluate", "accepted"), f.log.add("execution.refuse", "refused"), f.log.add("workload.envelope.start", "accepted")}
			f.on("GET /v1/why", 200, whyTree(ids))
			f.on("GET /v1/workloads/w1", 200, `{"id":"w1","status":"running"}`)
			f.on("POST /v1/workloads", 201, `{"id":"w1","status":"pending"}`)
			f.on("POST /v1/tenants/rival/suspend", 403, `{"code":"ECS_REFUSED","message":"no rule permits tenant.suspend","rule_id":"default_deny","fix":"a platform administrator can do it"}`)
			f.on("GET /v1/workloads/w1/logs", 200, "hello\n")
			env.Vars = append(env.Vars, "URL="+f.URL, "LOGKEY="+f.log.key, "REFUSED="+ids[1], "PROVOST_CONFIG="+env.WorkDir+"/config.yaml")
			env.Values["server"] = f
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "flip": flip, "tamper": tamper},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		status, ok := strings.CutPrefix(err.Error(), "exit status ")
		if !ok {
			ts.Fatalf("%v", err)
		}
		code, err = strconv.Atoi(status)
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit %d, want %d", code, want)
	}
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	file := ts.MkAbs(args[0])
	b, err := os.ReadFile(file)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(file, b, 0o600))
}

func tamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tamper on|off")
	}
	l := ts.Value("server").(*fakeServer).log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tamper = nil
	if args[0] == "on" {
		l.tamper = func(_ string, e []byte) []byte {
			return []byte(strings.Replace(string(e), "developer@demo", fmt.Sprintf("%-14s", "nobody@demo"), 1))
		}
	}
}
