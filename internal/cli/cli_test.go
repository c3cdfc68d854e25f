package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
	"provost.dev/provost/internal/kernel"
)

// everyServer makes every command exist.
var everyServer = Server{
	Dev:         func(context.Context, Streams, DevOptions) error { return nil },
	Serve:       func(context.Context, Streams, ServeOptions) error { return nil },
	Doctor:      func(context.Context, Streams, DoctorOptions) error { return nil },
	ConfigPrint: func(context.Context, Streams, ServeOptions) error { return nil },
}

func walk(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		walk(sub, fn)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	p := newProgram(Streams{In: strings.NewReader(""), Out: &strings.Builder{}, Err: &strings.Builder{}}, everyServer)
	n := 0
	walk(p.root, func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s lacks its short (%q), long (%q) or example (%q)", path, c.Short, c.Long, c.Example)
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short description is no sentence: %q", path, c.Short)
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example line %q is not indented", path, line)
			}
			if strings.HasPrefix(line, "  provost ") && c != p.root && !strings.Contains(c.Example, path) {
				t.Errorf("%s: the example shows another command: %q", path, c.Example)
			}
		}
		if c.RunE == nil {
			t.Errorf("%s does nothing", path)
		}
	})
	if n < 60 {
		t.Errorf("only %d commands", n)
	}
}

func TestUsageErrors(t *testing.T) {
	isolate(t)
	for _, tc := range []struct{ args, says string }{
		{"wrkload", `there is no command "provost wrkload"; did you mean workload?`},
		{"tenant", "say what to do"},
		{"tenant frobnicate", `there is no command "provost tenant frobnicate"`},
		{"tenant list extra", "unknown command"},
		{"tenant list --colour", "unknown flag: --colour"},
		{"tenant get a b", "accepts at most 1 arg"},
		{"tenant list -o xml", `there is no output format "xml"`},
		{"tenant create", "accepts 1 arg(s)"},
		{"workload create", `required flag(s) "image" not set`},
		{"workload create --image x /bin/sh", "the command follows --"},
		{"workload create --image x --memory 64Q", `--memory: "64Q" is not a size`},
		{"workload create --image x --cpu lots", `--cpu: "lots" is not an amount`},
		{"workload create --image x --env FOO", `--env: "FOO" is not NAME=VALUE`},
		{"workload create --image x --command a -- b", "not both"},
		{"events list --from yesterday", `--from: "yesterday" is not a time`},
		{"events list --limit -1", "--limit"},
		{"export --profile baseline", `required flag(s) "out" not set`},
		{"verify", "accepts 1 arg(s)"},
		{"why nonsense", `"nonsense" is not a subject`},
		{"why workload/", "is not a subject"},
		{"why workload/a --bundle -", "--bundle wants a file"},
		{"policy deprecate rules", "say which version"},
		{"policy get @1", "is not ID or ID@VERSION"},
		{"authority create a --valid-for 1y", `--valid-for: "1y" is not an age`},
		{"authority create a", "valid-to valid-for"},
		{"completion tcsh", "invalid argument"},
		{"help nonsense", `there is no command "provost nonsense"`},
		{"decision create --action a --resource b --role x", "describe --principal"},
		{"login", "say where to sign in"},
		{"login --url http://h --username u", "--password-stdin"},
		{"login --url ftp://h --username u --password-stdin", "is not a server's address"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := run(t, strings.Fields(tc.args)...)
			if r.code != exitUsage {
				t.Errorf("exit %d, want %d", r.code, exitUsage)
			}
			if !strings.Contains(r.err, tc.says) {
				t.Errorf("said %q, want %q in it", r.err, tc.says)
			}
			if r.out != "" {
				t.Errorf("printed %q", r.out)
			}
		})
	}
}

func TestHelpIsData(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"help"}, {"help", "workload", "create"}, {"events", "list", "--help"}, {"--version"}} {
		if r := run(t, args...); r.code != exitOK || r.out == "" || r.err != "" {
			t.Errorf("provost %v: exit %d, %d bytes of help, stderr %q", args, r.code, len(r.out), r.err)
		}
	}
	if help := run(t, "--help").out; !strings.Contains(help, "  75   try again") {
		t.Errorf("the exit codes are not in the help:\n%s", help)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{errors.New("x"), 1},
		{usagef("x"), 2},
		{&client.Error{Status: http.StatusBadRequest}, 2},
		{&client.Error{Status: http.StatusUnprocessableEntity}, 2},
		{&client.Error{Code: client.CodeInvalid}, 2},
		{&client.Error{Status: http.StatusNotFound}, 3},
		{&client.Error{Status: http.StatusGone}, 3},
		{&client.Error{Status: http.StatusUnauthorized}, 4},
		{&client.Error{Status: http.StatusForbidden}, 4},
		{&client.Error{Status: http.StatusConflict}, 5},
		{fmt.Errorf("x: %w", client.ErrUnverified), 6},
		{&client.Error{Status: http.StatusTooManyRequests, Retryable: true}, 75},
		{&client.Error{Status: http.StatusServiceUnavailable, Retryable: true}, 75},
		{&client.Error{Status: http.StatusLocked, Retryable: true}, 75},
		{&client.Error{Code: client.CodeUnreachable, Retryable: true, Err: errors.New("refused")}, 75},
		{&client.Error{Status: http.StatusInternalServerError}, 1},
		{&client.Error{Code: client.CodeUnreachable, Err: context.Canceled}, 130},
		{&kernel.Error{Kind: kernel.Invalid}, 2},
		{&kernel.Error{Kind: kernel.NotFound}, 3},
		{&kernel.Error{Kind: kernel.Refused}, 4},
		{&kernel.Error{Kind: kernel.Conflict}, 5},
		{&kernel.Error{Kind: kernel.Unavailable}, 75},
		{&kernel.Error{Kind: kernel.Internal}, 1},
		{&quietError{6}, 6},
	} {
		if got := exitCode(fmt.Errorf("wrapped: %w", tc.err)); got != tc.code {
			t.Errorf("%#v: exit %d, want %d", tc.err, got, tc.code)
		}
	}
}

func TestRefusalsSayEverything(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "developer@demo")
	f.on("POST /v1/workloads", 403, `{"code":"ECS_REFUSED","message":"no key that tenant demo trusts has signed demo/web@sha256:ab",`+
		`"rule_id":"image.signature_missing","fix":"sign it: cosign sign --key cosign.key","evidence_pointer":"`+fakePointer+`"}`)
	r := run(t, "workload", "create", "--image", "demo/web@sha256:ab")
	want := `provost: workload create refused: no key that tenant demo trusts has signed demo/web@sha256:ab
  rule      image.signature_missing
  fix       sign it: cosign sign --key cosign.key
  evidence  ` + fakePointer + `
  explain   provost why event/` + fakeEvent + `
`
	if r.code != exitDenied || r.err != want || r.out != "" {
		t.Errorf("exit %d, printed %q, said:\n%s\nwant:\n%s", r.code, r.out, r.err, want)
	}

	f.on("DELETE /v1/workloads/w1", 403, `{"code":"ECS_REFUSED","message":"no rule permits workload.delete","rules":["a","b"],"rule_id":"a"}`)
	r = run(t, "workload", "delete", "w1")
	if !strings.Contains(r.err, "can grant it") || !strings.Contains(r.err, "a, b") {
		t.Errorf("without a fix from the server it says:\n%s", r.err)
	}
}

func TestServerErrorsBecomeExitCodes(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	for status, code := range map[int]int{400: 2, 403: 4, 404: 3, 405: 1, 409: 5, 410: 3, 413: 2, 422: 2, 423: 75, 500: 1} {
		f.on("POST /v1/roles", status, `{"code":"ECS_X","message":"told so","field":"name"}`)
		if r := run(t, "role", "create", "r"); r.code != code || !strings.Contains(r.err, "told so") {
			t.Errorf("status %d: exit %d, want %d: %s", status, r.code, code, r.err)
		}
	}
	f.on("GET /v1/roles", 403, `{"code":"ECS_X","message":"told so"}`)
	for _, format := range []string{"table", "json"} {
		if r := run(t, "role", "list", "-o", format); r.code != exitDenied || r.out != "" {
			t.Errorf("a list that failed: %+v", r)
		}
	}
	f.Close()
	if r := run(t, "role", "create", "r"); r.code != exitTryAgain || !strings.Contains(r.err, "no answer from") {
		t.Errorf("no server: exit %d: %s", r.code, r.err)
	}
}

func TestForeignTextCannotDriveTheTerminal(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.on("GET /v1/roles", 200, `{"items":[{"name":"a\u001b[2Jb\u202ec\nd","permissions":[]}]}`)
	r := must(t, "role", "list")
	if strings.ContainsAny(r.out, "\x1b\u202e") || !strings.Contains(r.out, "a[2Jbc d") {
		t.Errorf("printed %q", r.out)
	}
	f.on("POST /v1/roles", 409, `{"code":"X","message":"\u001b]0;title\u0007taken"}`)
	if r := run(t, "role", "create", "r"); strings.ContainsAny(r.err, "\x1b\x07") {
		t.Errorf("said %q", r.err)
	}
}

func TestServerCommandsAreHandedTheirFlags(t *testing.T) {
	isolate(t)
	t.Setenv("XDG_DATA_HOME", "/data")
	var got []string
	s := Server{
		Dev: func(_ context.Context, _ Streams, o DevOptions) error {
			got = append(got, fmt.Sprintf("dev %+v", o))
			return nil
		},
		Serve: func(_ context.Context, _ Streams, o ServeOptions) error {
			return &kernel.Error{Kind: kernel.Invalid, Field: "listne", Msg: "is not a key", Fix: "did you mean listen?"}
		},
		Doctor: func(_ context.Context, s Streams, o DoctorOptions) error {
			got = append(got, fmt.Sprintf("doctor %+v", o))
			return nil
		},
		ConfigPrint: func(_ context.Context, s Streams, o ServeOptions) error {
			fmt.Fprintln(s.Out, o.Config)
			return nil
		},
	}
	call := func(args ...string) result {
		var out, errs strings.Builder
		code := s.Main(args, strings.NewReader(""), &out, &errs)
		return result{code, out.String(), errs.String()}
	}
	call("dev")
	call("dev", "--data-dir", "/d", "--listen", "127.0.0.1:1", "--s3-listen", "127.0.0.1:2", "--config", "c.yaml")
	t.Setenv("PROVOST_DATA_DIR", "/e")
	call("dev")
	call("doctor", "-o", "json")
	want := []string{"dev {DataDir:/data/provost/dev Listen:127.0.0.1:8420 S3Listen:127.0.0.1:8430 Config:}",
		"dev {DataDir:/d Listen:127.0.0.1:1 S3Listen:127.0.0.1:2 Config:c.yaml}",
		"dev {DataDir:/e Listen:127.0.0.1:8420 S3Listen:127.0.0.1:8430 Config:}", "doctor {Config: DataDir:/e Output:json}"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := call("server"); r.code != exitUsage || !strings.Contains(r.err, "did you mean listen?") {
		t.Errorf("server: exit %d: %s", r.code, r.err)
	}
	if r := call("config", "print", "--config", "x.yaml"); r.code != exitOK || r.out != "x.yaml\n" {
		t.Errorf("config print: %+v", r)
	}
	if r := run(t, "dev"); r.code != exitUsage {
		t.Errorf("a client without a server knows provost dev: exit %d", r.code)
	}
}

func TestCompletion(t *testing.T) {
	isolate(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := must(t, "completion", shell); !strings.Contains(r.out, "provost") {
			t.Errorf("%s: %d bytes", shell, len(r.out))
		}
	}
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.on("GET /v1/workloads", 200, `{"items":[{"id":"aa1","name":"web","status":"running"},{"id":"aa2","status":"stopped"},{"id":"bb"}]}`)
	for args, want := range map[string]string{
		"workload get aa":      "aa1\tweb running\naa2\tstopped\n",
		"why workload/aa1":     "workload/aa1\tweb running\n",
		"context use oper":     "operator@demo\t" + f.URL + "\n",
		"workload get aa1 x":   "",
		"tenant get x":         "", // an answer of 404 offers nothing
		"events list --outc":   "--outcome",
		"workload create --en": "--env",
	} {
		r := must(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if !strings.HasPrefix(r.out, want) {
			t.Errorf("%q offers %q, want %q", args, r.out, want)
		}
	}
}
