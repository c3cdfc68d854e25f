package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"provost.dev/provost/client"
)

// fakeServer answers as a server would, as far as commands can tell. Its
// tokens rotate with reuse detection and its proofs are real.
type fakeServer struct {
	*httptest.Server
	log *fakeLog

	mu        sync.Mutex
	replies   map[string]reply // by "METHOD /path"
	requests  []request
	accessTTL int64
	sessions  int
	refreshes int
	live      map[string]string // refresh token → user
	used      map[string]bool   // refresh tokens traded already
	valid     map[string]bool   // access tokens
}

type reply struct {
	status int
	header map[string]string
	body   string
}

type request struct {
	line, token, body, correlation string
}

const (
	fakeEvent   = "01900000-0000-7000-8000-0000000000ff"
	fakePointer = "eosc://evidence/sha256:0101010101010101010101010101010101010101010101010101010101010101"
)

// fakeUsers are who may sign in, with one password.
var fakeUsers = map[string]string{"operator@demo": "operator", "developer@demo": "developer", "auditor@demo": "auditor", "operator@rival": "operator", "admin@system": "platform-admin"}

func newFake(t testing.TB) *fakeServer {
	t.Helper()
	f := &fakeServer{log: newFakeLog(t), replies: map[string]reply{}, accessTTL: 3600, live: map[string]string{}, used: map[string]bool{}, valid: map[string]bool{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// on sets the answer to a request; it also carries a receipt when it changes something.
func (f *fakeServer) on(line string, status int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := reply{status: status, body: body, header: map[string]string{}}
	if !strings.HasPrefix(line, "GET ") || status >= 400 {
		r.header["X-Event-ID"], r.header["X-Evidence-Pointer"] = fakeEvent, fakePointer
	}
	f.replies[line] = r
}

// seen returns the requests made so far and forgets them.
func (f *fakeServer) seen() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.requests
	f.requests = nil
	return out
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	line := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	f.requests = append(f.requests, request{line, token, string(body), r.Header.Get("X-Correlation-ID")})
	answer, known := f.replies[r.Method+" "+r.URL.Path]
	ok := f.valid[token]
	f.mu.Unlock()
	switch {
	case r.URL.Path == "/v1/auth/token":
		f.token(w, body)
		return
	case r.URL.Path == "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"revocation_endpoint":"%s/oauth/revoke"}`, f.URL)
		return
	case r.URL.Path == "/oauth/revoke":
		return
	case !ok:
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"code":"ECS_UNAUTHENTICATED","message":"the token is not good"}`)
		return
	case r.URL.Path == "/v1/whoami":
		claims, err := client.ParseClaims(token)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"principal": claims.Username + "@" + claims.Tenant, "name": claims.Username, "tenant": claims.Tenant, "kind": "human",
			"roles": claims.Roles, "permissions": claims.Permissions, "groups": []string{}, "expires_at": "2100-01-01T00:00:00Z"})
		return
	case known:
		for k, v := range answer.header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(answer.status)
		io.WriteString(w, answer.body)
		return
	case f.log.serve(w, r, body):
		return
	}
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, `{"code":"ECS_NOT_FOUND","message":"no such thing"}`)
}

// token is the token endpoint.
func (f *fakeServer) token(w http.ResponseWriter, body []byte) {
	var in struct {
		GrantType    string `json:"grant_type"`
		Username     string `json:"username"`
		Password     string `json:"password"`
		Tenant       string `json:"tenant"`
		RefreshToken string `json:"refresh_token"`
	}
	err := json.Unmarshal(body, &in)
	f.mu.Lock()
	defer f.mu.Unlock()
	who := in.Username + "@" + in.Tenant
	if in.Tenant == "" {
		who = in.Username + "@system"
	}
	if in.GrantType == "refresh_token" {
		f.refreshes++
		if f.used[in.RefreshToken] { // somebody has a copy: end the session
			f.live, f.valid = map[string]string{}, map[string]bool{}
		}
		who = f.live[in.RefreshToken]
		f.used[in.RefreshToken] = true
		delete(f.live, in.RefreshToken)
	} else if in.Password != "secret" {
		who = ""
	}
	role, known := fakeUsers[who]
	if err != nil || !known {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":{"code":"INVALID_CREDENTIALS","message":"the name or the password is wrong","retryable":false}}`)
		return
	}
	f.sessions++
	name, tenant, _ := strings.Cut(who, "@")
	permissions := []string{"events.read"}
	if name == "developer" {
		permissions = []string{"workloads.write"}
	}
	claims, _ := json.Marshal(map[string]any{"sub": name, "username": name, "tenant": tenant, "roles": []string{role}, "permissions": permissions,
		"exp": 4102444800, "jti": f.sessions})
	access := "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
	refresh := fmt.Sprintf("refresh-%d", f.sessions)
	f.valid[access], f.live[refresh] = true, who
	json.NewEncoder(w).Encode(map[string]any{"access_token": access, "expires_in": f.accessTTL, "refresh_token": refresh, "refresh_expires_in": 86400, "token_type": "Bearer"})
}

// isolate gives a test a configuration of its own and no environment.
func isolate(t *testing.T) (config string) {
	t.Helper()
	config = filepath.Join(t.TempDir(), "provost", "config.yaml")
	t.Setenv("PROVOST_CONFIG", config)
	for _, name := range []string{"PROVOST_URL", "PROVOST_TENANT", "PROVOST_TOKEN", "PROVOST_DATA_DIR"} {
		t.Setenv(name, "")
	}
	return config
}

// result is what a command came to.
type result struct {
	code     int
	out, err string
}

// run runs a command as a person would.
func run(t *testing.T, args ...string) result { return runWith(t, "", args...) }

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs strings.Builder
	code := Main(args, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// must runs a command that has to succeed.
func must(t *testing.T, args ...string) result {
	t.Helper()
	r := run(t, args...)
	if r.code != exitOK {
		t.Fatalf("provost %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// signIn makes a context for a user such as "operator@demo".
func (f *fakeServer) signIn(t *testing.T, who string) {
	t.Helper()
	args := []string{"login", "--url", f.URL, "--username", who, "--password-stdin"}
	if r := runWith(t, "secret\n", args...); r.code != exitOK {
		t.Fatalf("login as %s: exit %d\n%s", who, r.code, r.err)
	}
}
