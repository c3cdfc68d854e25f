package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost.dev/provost/client"
)

func TestLoginSavesAContext(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	r := runWith(t, "secret\n", "login", "--url", f.URL+"/", "--tenant", "demo", "--username", "operator", "--password-stdin")
	if r.code != exitOK || r.out != "" || !strings.Contains(r.err, "signed in to "+f.URL+" as operator@demo; context operator@demo is current") {
		t.Fatalf("%+v", r)
	}
	c, err := readContexts(path)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Contexts["operator@demo"]
	if c.Current != "operator@demo" || p.URL != f.URL || p.Tenant != "demo" || p.Username != "operator" || p.LogKey != f.log.key || p.RefreshToken != "refresh-1" {
		t.Errorf("saved %+v", p)
	}
	if left := time.Until(p.AccessExpires); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the access token is thought to last %v", left)
	}
	if r := must(t, "whoami"); !strings.Contains(r.out, "operator") || !strings.Contains(r.out, f.URL) {
		t.Errorf("whoami says %s", r.out)
	}
}

func TestLoginThatFailsSavesNothing(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	r := runWith(t, "wrong", "login", "--url", f.URL, "--username", "operator@demo", "--password-stdin")
	if r.code != exitDenied || !strings.Contains(r.err, "the password is wrong") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of contexts exists: %v", err)
	}
	for _, stdin := range []string{"", "\n", "two\nlines\n", strings.Repeat("x", maxPassword+2)} {
		if r := runWith(t, stdin, "login", "--url", f.URL, "--username", "operator@demo", "--password-stdin"); r.code != exitUsage {
			t.Errorf("password %.10q: exit %d", stdin, r.code)
		}
	}
}

func TestAdministratorSignsInWithoutATenant(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	for _, args := range [][]string{{"--username", "admin"}, {"--username", "admin@system"}, {"--username", "admin", "--tenant", "system"}} {
		if r := runWith(t, "secret", append([]string{"login", "--url", f.URL, "--password-stdin"}, args...)...); r.code != exitOK {
			t.Fatalf("%v: %+v", args, r)
		}
		var sent string
		for _, q := range f.seen() {
			if strings.Contains(q.line, "/auth/token") {
				sent = q.body
			}
		}
		if strings.Contains(sent, `"tenant"`) {
			t.Errorf("%v sent %s", args, sent)
		}
	}
	c, err := readContexts(path)
	if err != nil || len(c.Contexts) != 1 || c.Contexts["admin@system"].LogKey != "" {
		t.Errorf("saved %+v, %v", c, err)
	}
}

func TestContextNamesOfManyServers(t *testing.T) {
	path := isolate(t)
	one, two := newFake(t), newFake(t)
	one.signIn(t, "operator@demo")
	two.signIn(t, "operator@demo")
	one.signIn(t, "operator@demo")
	c, err := readContexts(path)
	if err != nil {
		t.Fatal(err)
	}
	other := "operator@demo@" + strings.TrimPrefix(two.URL, "http://")
	if len(c.Contexts) != 2 || c.Contexts["operator@demo"].URL != one.URL || c.Contexts[other] == nil || c.Current != "operator@demo" {
		t.Errorf("contexts %v", contextNames(c))
	}
}

func TestChangedLogKeyIsNoticedAtSignIn(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	old := f.log.key
	f.log = newFakeLog(t)
	r := runWith(t, "secret", "login", "--url", f.URL, "--username", "operator@demo", "--password-stdin")
	if r.code != exitOK || !strings.Contains(r.err, "signed with another key") || !strings.Contains(r.err, old) || !strings.Contains(r.err, f.log.key) {
		t.Errorf("%+v", r)
	}
}

func TestWhoMayNotReadTheLogIsNotAskedToBeRefused(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	if q := f.seen(); q[len(q)-1].line != "GET /v1/log/demo/key" {
		t.Errorf("an operator's sign-in asked %+v", q)
	}
	f.signIn(t, "developer@demo")
	for _, q := range f.seen() {
		if strings.Contains(q.line, "/log/") {
			t.Errorf("a developer's sign-in asked %s", q.line)
		}
	}
}

func TestUnencryptedServersAreWarnedOf(t *testing.T) {
	for url, want := range map[string]bool{"http://127.0.0.1:1": false, "http://[::1]:1": false, "http://localhost": false, "https://provost.example": false,
		"http://provost.example": true, "http://10.0.0.1": true} {
		if got := insecure(url); got != want {
			t.Errorf("insecure(%s) = %v", url, got)
		}
	}
}

func TestWhichContextIsMeant(t *testing.T) {
	saved := &contexts{Current: "op@demo", Contexts: map[string]*profile{
		"op@demo":   {URL: "http://a", Tenant: "demo", Username: "op"},
		"dev@demo":  {URL: "http://a", Tenant: "demo", Username: "dev"},
		"op@rival":  {URL: "http://a", Tenant: "rival", Username: "op"},
		"dev@rival": {URL: "http://a", Tenant: "rival", Username: "dev"},
		"op@far":    {URL: "http://b", Tenant: "demo", Username: "op"},
		"x@third":   {URL: "http://b", Tenant: "third", Username: "x"},
		"y@third":   {URL: "http://c", Tenant: "third", Username: "y"},
	}}
	for _, tc := range []struct {
		name, context, tenant, envURL, envTenant string
		want                                     string
		code                                     int
	}{
		{name: "the current one", want: "op@demo"},
		{name: "by name", context: "dev@demo", want: "dev@demo"},
		{name: "by name, with its tenant", context: "op@rival", tenant: "rival", want: "op@rival"},
		{name: "by name, with another tenant", context: "op@rival", tenant: "demo", code: exitUsage},
		{name: "a name that is not there", context: "nobody", code: exitNotFound},
		{name: "the current tenant", tenant: "demo", want: "op@demo"},
		{name: "another tenant, the same person", tenant: "rival", want: "op@rival"},
		{name: "another tenant by environment", envTenant: "rival", want: "op@rival"},
		{name: "the flag wins", tenant: "rival", envTenant: "demo", want: "op@rival"},
		{name: "another server", envURL: "http://b/", tenant: "demo", want: "op@far"},
		{name: "a server of one's own", envURL: "http://c", want: "y@third"},
		{name: "several fit", tenant: "third", code: exitUsage},
		{name: "no such tenant", tenant: "fourth", code: exitDenied},
		{name: "no such server", envURL: "http://d", code: exitDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("PROVOST_URL", tc.envURL)
			t.Setenv("PROVOST_TENANT", tc.envTenant)
			p := &program{contextName: tc.context, tenant: tc.tenant}
			got, err := p.choose(saved, false)
			if got != tc.want || (err == nil) != (tc.code == 0) || err != nil && exitCode(err) != tc.code {
				t.Errorf("got %q, %v; want %q, exit %d", got, err, tc.want, tc.code)
			}
		})
	}
	if _, err := (&program{}).choose(&contexts{}, false); exitCode(err) != exitDenied {
		t.Errorf("nothing saved: %v", err)
	}
}

func TestTokenFromTheEnvironment(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.on("GET /v1/roles", 200, `{"items":[]}`)
	var token string
	must(t, "role", "list")
	for _, q := range f.seen() {
		token = q.token
	}
	isolate(t) // no saved context any more
	if r := run(t, "role", "list"); r.code != exitDenied || !strings.Contains(r.err, "provost login --url URL") {
		t.Errorf("without anything: %+v", r)
	}
	t.Setenv("PROVOST_TOKEN", token)
	if r := run(t, "role", "list"); r.code != exitUsage {
		t.Errorf("a token for no server: %+v", r)
	}
	t.Setenv("PROVOST_URL", f.URL)
	must(t, "role", "list", "--tenant", "demo")
	if r := run(t, "role", "list", "--tenant", "rival"); r.code != exitDenied || !strings.Contains(r.err, "is for tenant demo, not rival") {
		t.Errorf("another tenant: %+v", r)
	}
	if r := must(t, "whoami", "-o", "json"); !strings.Contains(r.out, `"tenant": "demo"`) {
		t.Errorf("whoami: %s", r.out)
	}
}

func TestSavedTokenGoesToItsServerOnly(t *testing.T) {
	isolate(t)
	f, other := newFake(t), newFake(t)
	f.signIn(t, "operator@demo")
	t.Setenv("PROVOST_URL", other.URL)
	if r := run(t, "role", "list"); r.code != exitDenied {
		t.Errorf("%+v", r)
	}
	if q := other.seen(); len(q) > 0 {
		t.Errorf("the other server was sent %+v", q)
	}
}

// TestAdministratorsReachIntoTenants covers what makes a new tenant usable: the
// platform's administrators make its people, and nothing else inside it.
func TestAdministratorsReachIntoTenants(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "admin@system")
	f.on("POST /v1/users", 201, `{"username":"ada"}`)
	f.on("GET /v1/roles", 200, `{"items":[{"name":"developer"}]}`)
	f.on("GET /v1/workloads", 200, `{"items":[]}`)
	f.seen()
	must(t, "user", "create", "ada", "--no-password", "--tenant", "acme")
	must(t, "role", "get", "developer", "--tenant", "acme")
	must(t, "role", "list")
	var lines []string
	var token string
	for _, q := range f.seen() {
		lines, token = append(lines, q.line), q.token
	}
	want := []string{"POST /v1/users?tenant=acme", "GET /v1/roles?tenant=acme", "GET /v1/roles?tenant=system"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if r := run(t, "workload", "list", "--tenant", "acme"); r.code != exitDenied || len(f.seen()) != 0 {
		t.Errorf("workloads of a tenant: %+v", r)
	}
	if r := run(t, "role", "get", "nobody"); r.code != exitNotFound {
		t.Errorf("a role that is not there: %+v", r)
	}
	f.signIn(t, "operator@demo")
	if r := run(t, "user", "create", "ada", "--no-password", "--tenant", "acme", "--context", "operator@demo"); r.code != exitUsage {
		t.Errorf("an operator of another tenant: %+v", r)
	}
	isolate(t)
	t.Setenv("PROVOST_URL", f.URL)
	t.Setenv("PROVOST_TOKEN", token)
	f.seen()
	must(t, "role", "list", "--tenant", "acme")
	if q := f.seen(); q[0].line != "GET /v1/roles?tenant=acme" {
		t.Errorf("asked %s", q[0].line)
	}
	if r := run(t, "workload", "list", "--tenant", "acme"); r.code != exitDenied {
		t.Errorf("workloads of a tenant: %+v", r)
	}
}

func TestCorrelationIsSent(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.seen()
	f.on("POST /v1/roles", 201, `{"name":"r"}`)
	must(t, "role", "create", "r", "--correlation-id", "case-7")
	if q := f.seen(); len(q) != 1 || q[0].correlation != "case-7" {
		t.Errorf("sent %+v", q)
	}
}

// TestRefreshIsDoneOnce lets many processes find the access token at its end at
// once. A second use of a refresh token would end the session.
func TestRefreshIsDoneOnce(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	f.accessTTL = 1 // less than the margin: over as soon as it is had
	f.signIn(t, "operator@demo")
	f.accessTTL = 3600
	saved, err := readContexts(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(f.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	tokens := make([]string, 16)
	for i := range tokens {
		s := &savedTokens{path: path, name: "operator@demo", now: time.Now, profile: *saved.Contexts["operator@demo"], refresh: func(ctx context.Context, r string) (client.Token, error) {
			return c.Tokens.Create(ctx, client.TokenRequest{GrantType: "refresh_token", RefreshToken: r})
		}}
		wg.Go(func() {
			var err error
			if tokens[i], err = s.Token(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if f.refreshes != 1 {
		t.Errorf("%d refreshes, want 1", f.refreshes)
	}
	for _, tok := range tokens {
		if tok != tokens[0] || !f.valid[tok] {
			t.Fatalf("tokens %q", tokens)
		}
	}
	f.on("GET /v1/roles", 200, `{"items":[]}`)
	must(t, "role", "list")
	if f.refreshes != 1 {
		t.Errorf("the saved token was not used: %d refreshes", f.refreshes)
	}
}

func TestRejectedTokenIsRenewedAndSaved(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.valid = map[string]bool{} // the server forgot: another signing key, say
	f.on("GET /v1/roles", 200, `{"items":[]}`)
	must(t, "role", "list")
	c, err := readContexts(path)
	if err != nil || c.Contexts["operator@demo"].RefreshToken != "refresh-2" {
		t.Errorf("saved %+v, %v", c.Contexts["operator@demo"], err)
	}
}

func TestEndedSessionsSayHowToBeginAnew(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.valid, f.live = map[string]bool{}, map[string]string{}
	r := run(t, "role", "list")
	if r.code != exitDenied || !strings.Contains(r.err, "was ended by the server") ||
		!strings.Contains(r.err, "provost login --url "+f.URL+" --tenant demo --username operator") {
		t.Errorf("%+v", r)
	}
	err := changeContexts(path, func(c *contexts) error {
		c.Contexts["operator@demo"].AccessExpires = time.Now().Add(-time.Hour)
		c.Contexts["operator@demo"].RefreshExpires = time.Now().Add(-time.Minute)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.seen()
	if r := run(t, "role", "list"); r.code != exitDenied || !strings.Contains(r.err, "has ended") {
		t.Errorf("%+v", r)
	}
	if q := f.seen(); len(q) > 0 {
		t.Errorf("asked the server all the same: %+v", q)
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	f.signIn(t, "auditor@demo")
	f.seen()
	if r := must(t, "logout"); !strings.Contains(r.err, "signed out auditor@demo\n") {
		t.Errorf("said %q", r.err)
	}
	q := f.seen()
	if len(q) != 2 || !strings.Contains(q[1].body, "token=refresh-2") {
		t.Errorf("sent %+v", q)
	}
	c, err := readContexts(path)
	if err != nil || c.Current != "" || len(c.Contexts) != 1 {
		t.Errorf("left %+v, %v", c, err)
	}
	f.Close()
	if r := must(t, "logout", "--all"); !strings.Contains(r.err, "the server was not told") {
		t.Errorf("said %q", r.err)
	}
	if r := run(t, "logout"); r.code != exitNotFound {
		t.Errorf("nobody to sign out: %+v", r)
	}
}

func TestContextCommands(t *testing.T) {
	isolate(t)
	f := newFake(t)
	if r := must(t, "context", "list"); r.out != "" || !strings.Contains(r.err, "no contexts") {
		t.Errorf("%+v", r)
	}
	f.signIn(t, "operator@demo")
	f.signIn(t, "auditor@demo")
	if r := must(t, "context", "list"); !strings.Contains(r.out, "*  auditor@demo   "+f.URL) || strings.Contains(r.out, "refresh-") {
		t.Errorf("%s", r.out)
	}
	must(t, "context", "use", "operator@demo")
	if r := must(t, "context", "get", "-o", "yaml"); !strings.Contains(r.out, "name: operator@demo\ncurrent: true\n") || strings.Contains(r.out, "refresh-") {
		t.Errorf("%s", r.out)
	}
	must(t, "context", "delete", "operator@demo")
	for _, verb := range []string{"use", "get", "delete"} {
		if r := run(t, "context", verb, "operator@demo"); r.code != exitNotFound {
			t.Errorf("%s of what is gone: %+v", verb, r)
		}
	}
}
