package acceptance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

type object = map[string]any

// client speaks to a server as one principal, or as nobody when it has no token.
type client struct {
	base, token string
	name        string // name@tenant, for messages
}

// transport keeps connections for all clients; a request that hangs is a failure.
var transport = &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// answer is a response, read to its end.
type answer struct {
	t       testing.TB
	request string
	status  int
	header  http.Header
	body    []byte
}

// do sends a request. A body of bytes or text goes as it is, any other as
// JSON; header is pairs of name and value.
func (c *client) do(t testing.TB, method, path string, body any, header ...string) *answer {
	t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	a.t = t
	if c.base == shared.url && strings.HasPrefix(path, "/") {
		d, err := published()
		if err == nil {
			err = d.check(method, path, a)
		}
		if err != nil {
			t.Errorf("API-06: %s: %v", a.request, err)
		}
	}
	return a
}

// try is do for a server that may go away meanwhile.
func (c *client) try(method, path string, body any, header ...string) (*answer, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r = b
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(raw)
	}
	if !strings.Contains(path, "://") {
		path = c.base + path
	}
	req, err := http.NewRequest(method, path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := transport.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{request: c.name + ": " + method + " " + strings.TrimPrefix(path, c.base), status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

func (c *client) get(t testing.TB, path string) *answer { t.Helper(); return c.do(t, "GET", path, nil) }

func (c *client) post(t testing.TB, path string, body any, header ...string) *answer {
	t.Helper()
	return c.do(t, "POST", path, body, header...)
}

// want ends the test unless the status is one of these.
func (a *answer) want(status ...int) *answer {
	a.t.Helper()
	if !slices.Contains(status, a.status) {
		a.t.Fatalf("%s: status %d, want %v; body %s", a.request, a.status, status, clip(a.body))
	}
	return a
}

func clip(b []byte) string {
	if !utf8.Valid(b) {
		return fmt.Sprintf("%d bytes that are no text", len(b))
	}
	if len(b) > 1000 {
		return string(b[:1000]) + "…"
	}
	return string(b)
}

// json decodes the body, numbers as json.Number.
func (a *answer) json() object {
	a.t.Helper()
	var o object
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		a.t.Fatalf("%s: %v in %s", a.request, err, clip(a.body))
	}
	return o
}

// text returns a field of the body that must be a string; path may lead into objects: "error.code".
func (a *answer) text(path string) string {
	a.t.Helper()
	s, ok := dig(a.json(), path).(string)
	if !ok {
		a.t.Fatalf("%s: no text %s in %s", a.request, path, clip(a.body))
	}
	return s
}

func dig(v any, path string) any {
	for _, k := range strings.Split(path, ".") {
		o, _ := v.(object)
		v = o[k]
	}
	return v
}

// items are those of a list's page.
func (a *answer) items() []object {
	a.t.Helper()
	list, ok := a.json()["items"].([]any)
	if !ok {
		a.t.Fatalf("%s: no items in %s", a.request, clip(a.body))
	}
	out := make([]object, len(list))
	for i, v := range list {
		out[i], _ = v.(object)
	}
	return out
}

// all reads a list to its end.
func (c *client) all(t testing.TB, path string) []object {
	t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	var out []object
	for cursor := ""; ; {
		a := c.get(t, path+sep+"limit=1000"+cursor).want(200)
		out = append(out, a.items()...)
		next, more := a.json()["next_cursor"].(string)
		if !more {
			return out
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

// event returns the event that the answer's X-Event-ID names, as the caller may read it.
func (c *client) event(a *answer) object {
	a.t.Helper()
	id := a.header.Get("X-Event-ID")
	if id == "" {
		a.t.Fatalf("%s: %d without X-Event-ID; body %s", a.request, a.status, clip(a.body))
	}
	return c.get(a.t, "/v1/events/"+id).want(200).json()
}

// refused checks that the answer is a refusal with this status and evidence,
// and returns its event as the reader may read it.
func (a *answer) refused(reader *client, status int) object {
	a.t.Helper()
	a.want(status)
	e := reader.event(a)
	if e["outcome"] != "refused" {
		a.t.Errorf("%s: the event's outcome is %v", a.request, e["outcome"])
	}
	pointer := a.header.Get("X-Evidence-Pointer")
	if pointer == "" || e["evidence_pointer"] != pointer {
		a.t.Errorf("%s: X-Evidence-Pointer %q, the event's is %v", a.request, pointer, e["evidence_pointer"])
	}
	o := a.json()
	if nested, ok := o["error"].(object); ok {
		o = nested
	}
	if o["evidence_pointer"] != pointer {
		a.t.Errorf("%s: the body's evidence_pointer is %v, the header's %s", a.request, o["evidence_pointer"], pointer)
	}
	if o["code"] == "" || o["message"] == "" || o["code"] == nil || o["message"] == nil {
		a.t.Errorf("%s: no code or message in %s", a.request, clip(a.body))
	}
	return e
}

// events reads the events that a query selects.
func (c *client) events(t testing.TB, query string) []object {
	t.Helper()
	return c.all(t, "/v1/events?"+query)
}

// waitEvents waits until at least n events fit the query.
func (c *client) waitEvents(t testing.TB, query string, n int) (out []object) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events of %s", n, query), func() bool {
		out = c.events(t, query)
		return len(out) >= n
	})
	return out
}

// anonymous is a client without a token.
func (s *server) anonymous() *client { return &client{base: s.url, name: "anonymous"} }

// as signs in a demo user, once per server.
func (s *server) as(t testing.TB, username, tenant string) *client {
	t.Helper()
	id := username + "@" + tenant
	if c, ok := s.tokens.Load(id); ok {
		return c.(*client)
	}
	c, err := s.signIn(s.account(t, username, tenant), tenant)
	if err != nil {
		t.Fatalf("sign in as %s: %v", id, err)
	}
	s.tokens.Store(id, c)
	return c
}

func (s *server) signIn(u account, tenant string) (*client, error) {
	body := object{"username": u.Username, "password": u.Password}
	if tenant != "system" {
		body["tenant"] = tenant
	}
	a, err := s.anonymous().try("POST", "/v1/auth/token", body)
	if err != nil {
		return nil, err
	}
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.body, &tokens); err != nil || a.status != 200 {
		return nil, fmt.Errorf("status %d: %s", a.status, clip(a.body))
	}
	return &client{base: s.url, token: tokens.AccessToken, name: u.Username + "@" + tenant}, nil
}

// account is a user of dev.json.
func (s *server) account(t testing.TB, username, tenant string) account {
	t.Helper()
	if tenant == "system" {
		return s.dev.Platform
	}
	for _, d := range s.dev.Tenants {
		for _, u := range d.Users {
			if d.ID == tenant && u.Username == username {
				return u
			}
		}
	}
	t.Fatalf("dev.json has no %s@%s", username, tenant)
	return account{}
}

// admin is the platform's administrator.
func (s *server) admin(t testing.TB) *client { t.Helper(); return s.as(t, "admin", "system") }

// unique makes a name that no other test has.
func unique(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:10])
}

// tenant is one that a test made for itself.
type tenant struct {
	id string
	// op may do everything inside the tenant.
	op *client
	s  *server
}

// newTenant makes a tenant in which nothing has happened yet but what makes
// it, and what lets its operator in. fields replace those of the request.
func (s *server) newTenant(t testing.TB, fields ...object) *tenant {
	t.Helper()
	id := unique("t")
	body := tenantBody(id)
	for _, f := range fields {
		for k, v := range f {
			body[k] = v
		}
	}
	admin := s.admin(t)
	admin.post(t, "/v1/tenants", body).want(201)
	tn := &tenant{id: id, s: s}
	tn.op = tn.service(t, "op", tn.permissions(t, "operator")...)
	return tn
}

func tenantBody(id string) object {
	return object{"id": id, "authority_binding": "auth-demo", "jurisdiction": "DE", "classification_ceiling": "restricted", "policy_baseline": "policy-baseline"}
}

// permissions are those of a built-in role.
func (tn *tenant) permissions(t testing.TB, role string) (out []string) {
	t.Helper()
	for _, r := range tn.s.admin(t).all(t, "/v1/roles?tenant="+tn.id) {
		if r["name"] == role {
			for _, p := range r["permissions"].([]any) {
				out = append(out, p.(string))
			}
		}
	}
	if out == nil {
		t.Fatalf("tenant %s has no role %s", tn.id, role)
	}
	return out
}

// service makes a service account and signs in as it: that is quicker than a
// person's password, which is meant to be slow.
func (tn *tenant) service(t testing.TB, name string, permissions ...string) *client {
	t.Helper()
	a := tn.s.admin(t).post(t, "/v1/service-accounts?tenant="+tn.id, object{"client_id": name, "permissions": permissions}).want(201)
	body := object{"grant_type": "client_credentials", "client_id": name, "client_secret": a.text("client_secret"), "tenant": tn.id}
	token := tn.s.anonymous().post(t, "/v1/auth/token", body).want(200).text("access_token")
	return &client{base: tn.s.url, token: token, name: name + "@" + tn.id}
}

// under waits at most d.
func under(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
