package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"provost.dev/provost/client"
)

// session is a signed-in client and what the command acts on.
type session struct {
	*client.Client
	p      *program
	name   string // of the saved context; empty with a token from the environment
	tenant string
	// logKey was pinned at sign-in; empty when nothing was.
	logKey string
}

// open finds out which server, tenant and token the command means. A flag wins
// over the environment, the environment over the saved context. A saved token
// is only ever sent to the server that issued it.
func (p *program) open() (*session, error) { return p.openIn(false) }

// administer is open for what platform administrators do inside of tenants:
// their own sign-in will do where there is none in the tenant wanted.
func (p *program) administer() (*session, error) { return p.openIn(true) }

func (p *program) openIn(administer bool) (*session, error) {
	if p.contextName == "" && os.Getenv("PROVOST_TOKEN") != "" {
		return p.openWithToken(os.Getenv("PROVOST_TOKEN"), administer)
	}
	path, err := contextsPath()
	if err != nil {
		return nil, err
	}
	saved, err := readContexts(path)
	if err != nil {
		return nil, err
	}
	if exposed(path) {
		fmt.Fprintf(p.Err, "warning: others can read the tokens in %s; run: chmod 600 %[1]s\n", path)
	}
	name, err := p.choose(saved, administer)
	if err != nil {
		return nil, err
	}
	f := saved.Contexts[name]
	anonymous, err := p.dial(f.URL, "", nil)
	if err != nil {
		return nil, err
	}
	tokens := &savedTokens{path: path, name: name, now: p.now, profile: *f, refresh: func(ctx context.Context, refresh string) (client.Token, error) {
		return anonymous.Tokens.Create(ctx, client.TokenRequest{GrantType: "refresh_token", RefreshToken: refresh})
	}}
	tenant := f.Tenant
	if administer && tenant == systemTenant {
		tenant = cmp.Or(p.wantedTenant(), tenant)
	}
	c, err := p.dial(f.URL, tenant, tokens)
	if err != nil {
		return nil, err
	}
	return &session{Client: c, p: p, name: name, tenant: tenant, logKey: f.LogKey}, nil
}

func (p *program) dial(url, tenant string, tokens client.TokenSource) (*client.Client, error) {
	return client.New(url, client.Options{Token: tokens, Tenant: tenant, UserAgent: "provost/" + version()})
}

// wantedTenant is --tenant, else PROVOST_TENANT.
func (p *program) wantedTenant() string { return cmp.Or(p.tenant, os.Getenv("PROVOST_TENANT")) }

// openWithToken uses the environment's token as it is.
func (p *program) openWithToken(token string, administer bool) (*session, error) {
	url, tenant := os.Getenv("PROVOST_URL"), p.wantedTenant()
	if url == "" {
		return nil, usagef("PROVOST_TOKEN is set and PROVOST_URL is not: say which server the token is for")
	}
	claims, err := client.ParseClaims(token)
	if err == nil && claims.Tenant != "" && !(administer && claims.Tenant == systemTenant && tenant != "") {
		if tenant != "" && tenant != claims.Tenant {
			return nil, &client.Error{Status: http.StatusForbidden, Code: "OTHER_TENANT",
				Message: fmt.Sprintf("the token in PROVOST_TOKEN is for tenant %s, not %s", claims.Tenant, tenant), Fix: "use a token of that tenant"}
		}
		tenant = claims.Tenant
	}
	c, err := p.dial(url, tenant, client.StaticToken(token))
	if err != nil {
		return nil, err
	}
	return &session{Client: c, p: p, tenant: tenant}, nil
}

// choose picks the saved context that the flags and the environment mean.
func (p *program) choose(saved *contexts, administer bool) (string, error) {
	tenant := p.wantedTenant()
	if p.contextName != "" {
		f := saved.Contexts[p.contextName]
		if f == nil {
			return "", noContext(p.contextName)
		}
		if p.tenant != "" && p.tenant != f.Tenant && !(administer && f.Tenant == systemTenant) {
			return "", usagef("context %s is for tenant %s, not %s", p.contextName, f.Tenant, p.tenant)
		}
		return p.contextName, nil
	}
	url := strings.TrimRight(os.Getenv("PROVOST_URL"), "/")
	current := saved.Contexts[saved.Current]
	fits := fitting(saved, url, tenant)
	if administer && len(fits) == 0 {
		fits = fitting(saved, url, systemTenant)
	}
	if slices.Contains(fits, saved.Current) {
		return saved.Current, nil
	}
	if url == "" && tenant == "" {
		fits = nil // without a wish there is only the current one
	}
	// Of several, the one most like the current: same server, same person.
	for _, like := range []func(*profile) bool{
		func(f *profile) bool { return current != nil && f.URL == current.URL },
		func(f *profile) bool { return current != nil && f.Username == current.Username },
	} {
		if near := slices.DeleteFunc(slices.Clone(fits), func(n string) bool { return !like(saved.Contexts[n]) }); len(near) > 0 {
			fits = near
		}
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return "", notSignedIn(url, tenant, current)
	}
	slices.Sort(fits)
	return "", usagef("the contexts %s all fit; choose one with --context", strings.Join(fits, ", "))
}

// fitting names the contexts of a server and a tenant; "" is any.
func fitting(saved *contexts, url, tenant string) (names []string) {
	for name, f := range saved.Contexts {
		if (url == "" || f.URL == url) && (tenant == "" || f.Tenant == tenant) {
			names = append(names, name)
		}
	}
	return names
}

// notSignedIn is the error of having no token, with the command to get one.
func notSignedIn(url, tenant string, current *profile) error {
	if url == "" && current != nil {
		url = current.URL
	}
	msg, fix := "you are not signed in", "provost login --url "+cmp.Or(url, "URL")
	if tenant != "" {
		msg += " to tenant " + tenant
		fix += " --tenant " + tenant
	}
	return &client.Error{Status: http.StatusUnauthorized, Code: "NOT_SIGNED_IN", Message: msg, Fix: fix + " --username NAME"}
}

// savedTokens is the token source of a saved context. When the access token
// is at its end it trades the refresh token for a new pair, under the lock of
// the file: a refresh token is good once, and using it twice ends the session.
type savedTokens struct {
	path, name string
	now        func() time.Time
	refresh    func(ctx context.Context, refreshToken string) (client.Token, error)

	mu      sync.Mutex
	profile profile
}

// Token implements client.TokenSource.
func (s *savedTokens) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.profile.fresh(s.now()) {
		return s.profile.AccessToken, nil
	}
	return s.renew(ctx)
}

// Renew implements client.Renewer.
func (s *savedTokens) Renew(ctx context.Context, rejected string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.profile.AccessToken != rejected && s.profile.fresh(s.now()) {
		return s.profile.AccessToken, nil
	}
	return s.renew(ctx)
}

// renew replaces the token held, by one that another process got meanwhile or
// by a new one. s.mu is held.
func (s *savedTokens) renew(ctx context.Context) (string, error) {
	held := s.profile.AccessToken
	err := changeContexts(s.path, func(c *contexts) error {
		f := c.Contexts[s.name]
		if f == nil {
			return s.ended("was removed", nil)
		}
		if f.AccessToken != held && f.fresh(s.now()) {
			s.profile = *f
			return errUnchanged
		}
		if f.RefreshToken == "" || !f.RefreshExpires.IsZero() && !s.now().Before(f.RefreshExpires) {
			return s.ended("has ended", nil)
		}
		t, err := s.refresh(ctx, f.RefreshToken)
		if e, ok := errors.AsType[*client.Error](err); ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden) {
			return s.ended("was ended by the server", e)
		}
		if err != nil {
			return err
		}
		f.set(t, s.now())
		s.profile = *f
		return nil
	})
	return s.profile.AccessToken, err
}

// ended is the error of a session that has to begin anew.
func (s *savedTokens) ended(how string, answer *client.Error) error {
	e := &client.Error{Status: http.StatusUnauthorized, Code: "SESSION_ENDED", Message: fmt.Sprintf("the session of context %s %s", s.name, how),
		Fix: fmt.Sprintf("provost login --url %s --tenant %s --username %s", s.profile.URL, s.profile.Tenant, s.profile.Username)}
	if answer != nil {
		e.Message += ": " + answer.Error()
		e.EventID, e.EvidencePointer = answer.EventID, answer.EvidencePointer
	}
	return e
}

// prover checks events against the key given, else the one pinned at sign-in,
// else the one that the server names with its first proof.
func (s *session) prover(given string) (*prover, error) {
	v := &prover{s: s, key: s.logKey, from: "pinned at sign-in"}
	switch {
	case given != "":
		key, err := readKey(given)
		if err != nil {
			return nil, err
		}
		v.key, v.from = key, "given"
	case s.logKey == "":
		v.from = "from the server, not pinned"
	}
	return v, nil
}

// readKey reads a C2SP verifier key: itself, or a file that holds it.
func readKey(given string) (string, error) {
	if strings.Count(given, "+") >= 2 && !strings.ContainsAny(given, "\n") {
		if _, err := os.Stat(given); err != nil {
			return given, nil
		}
	}
	b, err := readInput(nil, given, maxKey)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

const maxKey = 64 << 10
