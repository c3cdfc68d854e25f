package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestContextsAreForTheirOwnerOnly(t *testing.T) {
	path := isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", p, st.Mode().Perm(), want)
		}
	}
	f.on("GET /v1/roles", 200, `{"items":[]}`)
	if r := must(t, "role", "list"); strings.Contains(r.err, "warning") {
		t.Errorf("warned of %s", r.err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := must(t, "role", "list"); !strings.Contains(r.err, "others can read the tokens in "+path) {
		t.Errorf("did not warn: %q", r.err)
	}
	// The next change replaces the file by one that is private again.
	must(t, "context", "use", "operator@demo")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode after a change: %v, %v", st.Mode(), err)
	}
}

func TestContextsFollowTheXDGSpecification(t *testing.T) {
	t.Setenv("PROVOST_CONFIG", "")
	t.Setenv("XDG_CONFIG_HOME", "/xdg")
	if path, err := contextsPath(); err != nil || path != "/xdg/provost/config.yaml" {
		t.Errorf("%s, %v", path, err)
	}
	t.Setenv("PROVOST_CONFIG", "/elsewhere.yaml")
	if path, err := contextsPath(); err != nil || path != "/elsewhere.yaml" {
		t.Errorf("%s, %v", path, err)
	}
}

func TestContextsKeepEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "config.yaml")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := &contexts{Current: "a", Contexts: map[string]*profile{
		"a":       {URL: "http://h", Tenant: "demo", Username: "u", LogKey: "k+1+a", AccessToken: "x", AccessExpires: at, RefreshToken: "y", RefreshExpires: at},
		"b: # \"": {URL: "http://h", Tenant: "no", Username: "true"},
	}}
	if err := changeContexts(path, func(c *contexts) error { *c = *want; return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := readContexts(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestFailedChangeLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := changeContexts(path, func(c *contexts) error { c.Contexts["a"] = &profile{URL: "http://h"}; return nil }); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	for _, end := range []error{no, errUnchanged} {
		err := changeContexts(path, func(c *contexts) error { c.Contexts = nil; return end })
		if end == no && !errors.Is(err, no) || end == errUnchanged && err != nil {
			t.Errorf("%v: %v", end, err)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || string(before) != string(after) {
		t.Errorf("the file changed to %s, %v", after, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".config-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}

func TestConcurrentChangesAreAllKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	var wg sync.WaitGroup
	const n = 20
	for i := range n {
		wg.Go(func() {
			if err := changeContexts(path, func(c *contexts) error { c.Contexts[fmt.Sprint(i)] = &profile{URL: "http://h"}; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := readContexts(path)
	if err != nil || len(c.Contexts) != n {
		t.Errorf("%d contexts, want %d, %v", len(c.Contexts), n, err)
	}
}

func TestContextsBehindALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "dotfiles.yaml"), filepath.Join(dir, "config.yaml")
	if err := errors.Join(os.WriteFile(real, nil, 0o600), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	if err := changeContexts(link, func(c *contexts) error { c.Contexts["a"] = &profile{URL: "http://h"}; return nil }); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if b, err := os.ReadFile(real); err != nil || !strings.Contains(string(b), "http://h") {
		t.Errorf("the file behind it has %q, %v", b, err)
	}
}

func TestContextsThatCannotBeUsed(t *testing.T) {
	path := isolate(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		"current: a\ncolour: red\n":            "colour",
		"contexts:\n  a: {tenant: demo}\n":     "no url",
		"contexts:\n  a:\n":                    "no url",
		"contexts: [":                          "line 1",
		strings.Repeat("# x\n", maxContexts/3): "larger than",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "tenant", "list"); r.code != exitFailed || !strings.Contains(r.err, says) {
			t.Errorf("%.40q: exit %d, says %q", text, r.code, r.err)
		}
	}
}

func FuzzParseContexts(f *testing.F) {
	f.Add([]byte("current: a\ncontexts:\n  a:\n    url: http://h\n    access_expires: 2026-01-02T03:04:05Z\n"))
	f.Add([]byte("contexts: {a: &x {url: u}, b: *x}"))
	f.Add([]byte("{}"))
	f.Add([]byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseContexts(b)
		if err != nil {
			return
		}
		for name, f := range c.Contexts {
			if f == nil || f.URL == "" {
				t.Errorf("context %q without a server was accepted", name)
			}
		}
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := writeContexts(path, c); err != nil {
			t.Fatal(err)
		}
		again, err := readContexts(path)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if len(again.Contexts) != len(c.Contexts) || again.Current != c.Current {
			t.Errorf("read %+v back as %+v", c, again)
		}
	})
}
