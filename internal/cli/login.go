package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

// clientID is how this program is known to the server's OAuth endpoints.
const clientID = "provost-cli"

// systemTenant is the platform's own; its administrators sign in without naming it.
const systemTenant = "system"

type loginOptions struct {
	url, username string
	passwordStdin bool
}

func (p *program) loginCommand() *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in and save the session as a context",
		Long: `Signs in with a user name and password and saves the session as a context,
which becomes the current one. Access tokens are renewed as needed until the
session ends. The tenant can be part of the name: operator@demo. The platform's
administrators sign in without a tenant.

The verifier key of the tenant's log is saved, too: proofs are held against it
from then on. On a terminal the password is asked for.`,
		Example: `  provost login --url http://127.0.0.1:8420 --tenant demo --username operator
  provost login --url https://provost.example --username admin --password-stdin <password.txt
  provost login --username auditor@demo --context audit`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(c *cobra.Command, _ []string) error { return p.login(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.url, "url", "", "the server's `address` (default: $PROVOST_URL, else the current context's)")
	f.StringVar(&o.username, "username", "", "sign in as `name` or name@tenant")
	f.BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from standard input")
	return c
}

func (p *program) login(ctx context.Context, o loginOptions) error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	saved, err := readContexts(path)
	if err != nil {
		return err
	}
	address := cmp.Or(o.url, os.Getenv("PROVOST_URL"))
	if f := saved.Contexts[cmp.Or(p.contextName, saved.Current)]; address == "" && f != nil {
		address = f.URL
	}
	if address == "" {
		return usagef("say where to sign in: --url http://127.0.0.1:8420")
	}
	c, err := p.dial(address, "", nil)
	if err != nil {
		return err
	}
	if insecure(c.URL()) {
		fmt.Fprintf(p.Err, "warning: %s is not encrypted: the password can be read on its way\n", c.URL())
	}
	if o.username == "" {
		if o.username, err = p.ask("Username", "username"); err != nil {
			return err
		}
	}
	tenant := p.wantedTenant()
	if name, in, ok := strings.Cut(o.username, "@"); ok {
		if tenant != "" && tenant != in && p.tenant != "" {
			return usagef("--username says tenant %s, --tenant says %s", in, tenant)
		}
		o.username, tenant = name, in
	}
	if tenant == systemTenant {
		tenant = "" // the platform's administrators sign in without one
	}
	password, err := p.password("Password of "+o.username, o.passwordStdin)
	if err != nil {
		return err
	}
	tok, err := c.Tokens.Create(ctx, client.TokenRequest{GrantType: "password", Username: o.username, Password: password, Tenant: tenant})
	if err != nil {
		return err
	}
	f := profile{URL: c.URL(), Tenant: cmp.Or(tenant, systemTenant), Username: o.username}
	f.set(tok, p.now())
	readsLog := true
	if claims, err := client.ParseClaims(tok.AccessToken); err == nil {
		f.Tenant, f.Username = cmp.Or(claims.Tenant, f.Tenant), cmp.Or(claims.Username, f.Username)
		readsLog = claims.Permissions == nil || slices.Contains(claims.Permissions, logPermission)
	}
	if readsLog {
		if f.LogKey, err = p.fetchLogKey(ctx, f); err != nil {
			return err
		}
	}
	return p.saveLogin(path, f)
}

// logPermission lets its bearers read the log. Others are not asked for: the
// refusal of a question that nobody put would stand in the log for ever.
const logPermission = "events.read"

// fetchLogKey asks for the key to pin. Policy may refuse it all the same; who
// may not read the log has nothing to prove.
func (p *program) fetchLogKey(ctx context.Context, f profile) (string, error) {
	c, err := p.dial(f.URL, f.Tenant, client.StaticToken(f.AccessToken))
	if err != nil {
		return "", err
	}
	key, err := c.Events.LogKey(ctx, f.Tenant)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status >= 400 && e.Status < 500 {
		return "", nil
	}
	return key, err
}

func (p *program) saveLogin(path string, f profile) error {
	var name string
	err := changeContexts(path, func(c *contexts) error {
		name = cmp.Or(p.contextName, contextName(c, f))
		if old := c.Contexts[name]; old != nil && old.URL == f.URL && old.Tenant == f.Tenant && old.LogKey != "" {
			if f.LogKey == "" {
				f.LogKey = old.LogKey
			}
			if old.LogKey != f.LogKey {
				fmt.Fprintf(p.Err, "warning: the log of tenant %s is signed with another key than at the last sign-in. If the server was not set up anew, ask its operator why.\n  old  %s\n  new  %s\n",
					f.Tenant, plain(old.LogKey), plain(f.LogKey))
			}
		}
		c.Contexts[name], c.Current = &f, name
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Err, "signed in to %s as %s@%s; context %s is current\n", f.URL, plain(f.Username), plain(f.Tenant), plain(name))
	return nil
}

// contextName is "user@tenant", with the host where another server's context
// has that name already.
func contextName(c *contexts, f profile) string {
	name := f.Username + "@" + f.Tenant
	if old := c.Contexts[name]; old == nil || old.URL == f.URL {
		return name
	}
	u, err := url.Parse(f.URL)
	if err != nil {
		return name
	}
	return name + "@" + u.Host
}

// insecure reports whether what is sent to address can be read on its way.
func insecure(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}

func (p *program) logoutCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "logout",
		Short: "End the session of a context",
		Long: `Forgets the tokens of a context and, where the server offers it, ends the session
there. The context itself, with its pinned log key, is removed.`,
		Example: `  provost logout
  provost logout --context audit
  provost logout --all`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(c *cobra.Command, _ []string) error { return p.logout(c.Context(), all) },
	}
	c.Flags().BoolVar(&all, "all", false, "end all saved sessions")
	return c
}

func (p *program) logout(ctx context.Context, all bool) error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	var ended []*profile
	err = changeContexts(path, func(c *contexts) error {
		names := []string{cmp.Or(p.contextName, c.Current)}
		if all {
			names = contextNames(c)
		}
		for _, name := range names {
			f := c.Contexts[name]
			if f == nil {
				return noContext(name)
			}
			ended = append(ended, f)
			delete(c.Contexts, name)
			if c.Current == name {
				c.Current = ""
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range ended {
		p.revoke(ctx, f)
	}
	return nil
}

// revoke ends a session at its server. The tokens are forgotten already, so
// what fails here is said and no more.
func (p *program) revoke(ctx context.Context, f *profile) {
	who := plain(f.Username + "@" + f.Tenant)
	if f.RefreshToken == "" {
		fmt.Fprintf(p.Err, "signed out %s\n", who)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := p.dial(f.URL, f.Tenant, nil)
	if err == nil {
		err = c.Tokens.Revoke(ctx, f.RefreshToken, clientID)
	}
	switch {
	case errors.Is(err, client.ErrNoRevocation):
		fmt.Fprintf(p.Err, "signed out %s here; the server knows no way to end a session before its time\n", who)
		return
	case err != nil:
		fmt.Fprintf(p.Err, "signed out %s here; the server was not told: %s\n", who, plain(err.Error()))
		return
	}
	fmt.Fprintf(p.Err, "signed out %s\n", who)
}

// identity is what whoami shows: the server's word, and where it was asked.
type identity struct {
	client.Whoami
	Server  string `json:"server"`
	Context string `json:"context,omitempty"`
	LogKey  string `json:"log_key,omitempty"`
}

func (p *program) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who is signed in, where, and with which roles",
		Long: `Asks the server who you are to it: name, tenant, roles, and the permissions they
and your token leave you. The log key is the one that proofs are held against.`,
		Example:           "  provost whoami\n  provost whoami -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(c *cobra.Command, _ []string) error { return p.whoami(c.Context()) },
	}
}

func (p *program) whoami(ctx context.Context) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	w, err := s.Tokens.Whoami(ctx)
	if err != nil {
		return err
	}
	who := identity{Whoami: w, Server: s.URL(), Context: s.name, LogKey: s.logKey}
	if p.output != "table" {
		return p.value(who)
	}
	return p.fields([]field{{"user", w.Name}, {"tenant", w.Tenant}, {"kind", w.Kind}, {"roles", strings.Join(w.Roles, ", ")}, {"groups", strings.Join(w.Groups, ", ")},
		{"permissions", strings.Join(w.Permissions, ", ")}, {"server", who.Server}, {"context", who.Context},
		{"token until", formatTime(w.ExpiresAt)}, {"log key", who.LogKey}})
}
