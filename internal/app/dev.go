package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/plane/tenant"
)

// DevFile is DIR/dev.json: what scripts need to use a "provost dev" server. It
// holds passwords, so its mode is 0600.
type DevFile struct {
	URL        string      `json:"url"`
	S3URL      string      `json:"s3_url"`
	Registry   string      `json:"registry"`
	MetricsURL string      `json:"metrics_url,omitempty"`
	Tenants    []DevTenant `json:"tenants"`
	Platform   DevUser     `json:"platform"`
}

// DevTenant is a demo tenant with its accounts.
type DevTenant struct {
	ID              string       `json:"id"`
	Jurisdiction    string       `json:"jurisdiction"`
	LogKey          string       `json:"log_key"` // C2SP verifier key
	Users           []DevUser    `json:"users"`
	ServiceAccounts []DevService `json:"service_accounts"`
	WorkspaceSecret string       `json:"workspace_secret"`
	S3              DevS3        `json:"s3"`
}

// DevUser is a person of a demo tenant.
type DevUser struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	Roles    []string `json:"roles,omitempty"`
}

// DevService is a service account of a demo tenant.
type DevService struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RoleID       string `json:"role_id"`
}

// DevS3 is a demo tenant's S3 credentials; the S3 listener arrives with object storage.
type DevS3 struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	Region          string `json:"region"`
}

// The demo tenants of the design, and who is in each.
var (
	devTenants = []struct{ id, jurisdiction, ceiling string }{{"demo", "DE", "restricted"}, {"rival", "FR", "restricted"}}
	devUsers   = []string{"operator", "developer", "auditor", "viewer", "qa", "product", "safety", "nobody"}
	// Service accounts of the role contracts (mrp.md §3); those without a
	// contract of their own get the same form of name.
	devServices = []DevService{{ClientID: "svc-plan-orchestrator", RoleID: "PLAN"}, {ClientID: "svc-implement-builder", RoleID: "IMPLEMENT"},
		{ClientID: "svc-review-policy", RoleID: "REVIEW"}, {ClientID: "svc-deploy-runner", RoleID: "DEPLOY"}, {ClientID: "svc-safety-guard", RoleID: "SAFETY"}}
	devServicePermissions = []string{"work-items.read", "work-items.write", "tasks.read", "tasks.write"}
	devGroups             = map[string]string{"qa": "QA", "product": "Product", "safety": "Safety"}
)

// loadDevFile reads DIR/dev.json of an earlier start, or makes new secrets.
func loadDevFile(path string) (*DevFile, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		var f DevFile
		if err := json.Unmarshal(b, &f); err != nil {
			return nil, fmt.Errorf("read %s: %w; delete the data directory to start over", path, err)
		}
		return &f, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	f := &DevFile{Platform: DevUser{Username: "admin", Password: newSecret()}}
	for _, t := range devTenants {
		d := DevTenant{ID: t.id, Jurisdiction: t.jurisdiction, WorkspaceSecret: newSecret(),
			S3: DevS3{AccessKeyID: "AK" + newSecret()[:18], SecretAccessKey: newSecret(), Region: "eu-" + t.id + "-1"}}
		for _, name := range devUsers {
			d.Users = append(d.Users, DevUser{Username: name, Password: newSecret(), Roles: []string{name}})
		}
		for _, s := range devServices {
			s.ClientSecret = newSecret()
			d.ServiceAccounts = append(d.ServiceAccounts, s)
		}
		f.Tenants = append(f.Tenants, d)
	}
	return f, nil
}

func newSecret() string {
	b := make([]byte, 24)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// write puts the file in place whole or not at all.
func (f *DevFile) write(path string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "dev.json.*") // mode 0600
	if err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.Write(b.Bytes())
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	return os.Rename(tmp.Name(), path)
}

// accounts are the demo accounts as configuration names them.
func (f *DevFile) accounts() []AccountsConfig {
	out := []AccountsConfig{{Tenant: "system", Users: []UserConfig{{Username: f.Platform.Username, Password: f.Platform.Password, Roles: []string{"platform-admin"}}}}}
	for _, t := range f.Tenants {
		c := AccountsConfig{Tenant: t.ID, WorkspaceSecret: t.WorkspaceSecret}
		for _, u := range t.Users {
			user := UserConfig{Username: u.Username, Password: u.Password, Roles: u.Roles}
			if g := devGroups[u.Username]; g != "" {
				user.Groups = []string{g}
			}
			c.Users = append(c.Users, user)
		}
		for _, s := range t.ServiceAccounts {
			c.ServiceAccounts = append(c.ServiceAccounts, ServiceConfig{ClientID: s.ClientID, ClientSecret: s.ClientSecret, RoleID: s.RoleID, Permissions: devServicePermissions})
		}
		out = append(out, c)
	}
	return out
}

// seedDemo makes the demo tenants, through the door like any other change, and
// fills in what only the server knows of them.
func (a *App) seedDemo(ctx context.Context, f *DevFile) error {
	for i, t := range devTenants {
		if _, err := a.tenants.Get(ctx, a.system, t.id); err != nil {
			if kernel.KindOf(err) != kernel.NotFound {
				return err
			}
			if err := a.createDemoTenant(ctx, t.id, t.jurisdiction, t.ceiling); err != nil {
				return fmt.Errorf("create demo tenant %s: %w", t.id, err)
			}
		}
		head, err := a.log.Head(ctx, t.id)
		if err != nil {
			return err
		}
		f.Tenants[i].LogKey = head.Verifier
	}
	return a.idp.Seed(ctx, seeds(f.accounts())...)
}

func (a *App) createDemoTenant(ctx context.Context, id, jurisdiction, ceiling string) error {
	now := time.Now().UTC().Truncate(time.Second)
	authority := tenant.Authority{ID: "auth-" + id, Issuer: a.cfg.ProviderID, Subject: "*", Scope: []string{"*"}, ValidFrom: now.Add(-time.Minute), ValidTo: now.AddDate(10, 0, 0)}
	if _, _, err := a.tenants.CreateAuthority(ctx, govern.Action{Verb: "authority.create", Principal: a.system}, authority); err != nil {
		return err
	}
	_, _, err := a.tenants.Create(ctx, govern.Action{Verb: "tenant.create", Principal: a.system}, tenant.Tenant{ID: id, AuthorityBinding: authority.ID,
		Jurisdiction: jurisdiction, Ceiling: ceiling, PolicyBaseline: tenant.BaselinePolicy, Owner: "demo", Contact: "operator@" + id})
	return err
}
