package idp

import (
	"context"
	"errors"
	"fmt"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/store"
)

// Accounts are what a tenant begins with, from configuration.
type Accounts struct {
	Tenant          string
	Users           []NewUser
	ServiceAccounts []SeededService
	// WorkspaceSecret signs in by workspace_id and workspace_secret; empty is none.
	WorkspaceSecret string
}

// SeededService is a service account with a secret of the operator's choice,
// which has to be random and at least 24 bytes long.
type SeededService struct {
	NewService
	ClientSecret string
}

// Seed makes the accounts that are not there yet, on the platform's own
// account. Those that are stay as they are, whatever configuration says of
// them now: what was changed since through the API, a new password or an
// account disabled, is not undone by a restart. The tenants must exist.
func (p *Provider) Seed(ctx context.Context, accounts ...Accounts) error {
	for _, t := range accounts {
		if err := p.seed(ctx, t); err != nil {
			return fmt.Errorf("seed accounts of tenant %s: %w", t.Tenant, err)
		}
	}
	return nil
}

func (p *Provider) seed(ctx context.Context, t Accounts) error {
	act := func(verb string) govern.Action {
		return govern.Action{Verb: verb, Principal: p.system, Tenant: t.Tenant}
	}
	for _, u := range t.Users {
		err := p.unless(ctx, user, t.Tenant, u.Username, func() error {
			_, _, err := p.CreateUser(ctx, act("identity.user.create"), u)
			return err
		})
		if err != nil {
			return fmt.Errorf("user %s: %w", u.Username, err)
		}
	}
	for _, s := range t.ServiceAccounts {
		err := p.unless(ctx, service, t.Tenant, s.ClientID, func() error {
			if err := checkSecret("client_secret", s.ClientSecret); err != nil {
				return err
			}
			_, _, err := p.createService(ctx, act("identity.service-account.create"), s.NewService, s.ClientSecret)
			return err
		})
		if err != nil {
			return fmt.Errorf("service account %s: %w", s.ClientID, err)
		}
	}
	if t.WorkspaceSecret == "" {
		return nil
	}
	err := p.unless(ctx, workspace, t.Tenant, workspaceAccount, func() error {
		if err := checkSecret("workspace_secret", t.WorkspaceSecret); err != nil {
			return err
		}
		return p.createWorkspace(ctx, act("identity.workspace-secret.create"), workspaceAccount, t.WorkspaceSecret)
	})
	if err != nil {
		return fmt.Errorf("workspace secret: %w", err)
	}
	return nil
}

// unless calls make where there is no such account. Another replica may be
// quicker: that it exists by then is as good.
func (p *Provider) unless(ctx context.Context, s sort, tenant, name string, make func() error) error {
	err := p.cfg.DB.View(ctx, tenant, func(q store.Q) error {
		_, err := loadAccount(q, s, tenant, name)
		return err
	})
	if !errors.Is(err, errNoAccount) {
		return err
	}
	err = make()
	if e, ok := errors.AsType[*kernel.Error](err); ok && e.Code == "ACCOUNT_EXISTS" {
		return nil
	}
	return err
}

func checkSecret(field, secret string) error {
	if len(secret) < minSecret || len(secret) > 512 {
		return kernel.InvalidField(field, "has %d bytes; use 24 to 512 that are random", len(secret))
	}
	return nil
}
