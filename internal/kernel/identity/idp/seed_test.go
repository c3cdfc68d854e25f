package idp

import (
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/store"
	"provost.dev/provost/internal/kernel/store/storetest"
)

func TestStartAndSeedAgainChangeNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		operator := w.as(w.signIn("demo", "operator", operatorPass).AccessToken)
		w.change(operator, "ada", UserChange{Password: ptr("changed-since"), Roles: &[]string{"viewer"}})
		w.change(operator, "nobody", UserChange{Disabled: ptr(true)})
		before := map[string]int{}
		for _, tenant := range []string{"system", "demo", "rival"} {
			before[tenant] = len(w.events(tenant))
		}
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.Seed(t.Context(), cast()...); err != nil {
			t.Fatal(err)
		}
		for tenant, n := range before {
			if after := w.events(tenant); len(after) != n {
				t.Errorf("%d new events in %s, the first %+v; want none", len(after)-n, tenant, after[n])
			}
		}
		if p := w.as(w.signIn("demo", "ada", "changed-since").AccessToken); p.Holds("workloads.write") {
			t.Error("seeding again gave ada her first role back")
		}
		_, err := w.try(Request{Tenant: "demo", Username: "nobody", Password: adaPassword})
		wants(t, "an account disabled since", err, kernel.Refused, "ACCOUNT_DISABLED")
	})
}

func TestSeedRefusesWhatWouldNotBeSafe(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	for name, a := range map[string]Accounts{
		"short client secret":    {Tenant: "demo", ServiceAccounts: []SeededService{{NewService{ClientID: "svc-x"}, "changeme"}}},
		"no client secret":       {Tenant: "demo", ServiceAccounts: []SeededService{{NewService{ClientID: "svc-x"}, ""}}},
		"short workspace secret": {Tenant: "rival", WorkspaceSecret: "changeme"},
		"short password":         {Tenant: "demo", Users: []NewUser{{Username: "x", Password: "x"}}},
		"unknown role":           {Tenant: "demo", Users: []NewUser{{Username: "x", Roles: []string{"chief"}}}},
		"unknown tenant":         {Tenant: "nowhere", Users: []NewUser{{Username: "x"}}},
	} {
		if err := w.Seed(t.Context(), a); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestBuiltInRolesAreBroughtUpToDate(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	bearer := w.signIn("demo", "ada", adaPassword).AccessToken
	w.as(bearer)
	// An earlier version knew less, had no role named qa, and the tenant made its own.
	w.do("thing.touch", "demo", func(tx *govern.Tx) error {
		for _, query := range []string{`DELETE FROM auth_role_permissions WHERE tenant = 'demo' AND (role = 'developer' AND permission = 'workloads.write' OR role = 'qa')`,
			`UPDATE auth_roles SET built_in = 0 WHERE tenant = 'demo' AND name = 'qa'`} {
			if _, err := tx.Exec(query); err != nil {
				return err
			}
		}
		return nil
	})
	if w.as(bearer).Holds("workloads.write") {
		t.Fatal("the role was not changed")
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.as(bearer).Holds("workloads.write") {
		t.Error("the role is as it was in the earlier version")
	}
	if e := w.last("demo", "identity.role.update", "accepted"); e.Actor != "system:identity" || e.Resource != "role/developer" {
		t.Errorf("evidence %+v", e)
	}
	roles, err := w.ListRoles(t.Context(), "demo", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles {
		if r.Name == "qa" && (r.BuiltIn || len(r.Permissions) > 0) {
			t.Errorf("the tenant's own role was changed: %+v", r)
		}
	}
}

func TestBuiltInRoles(t *testing.T) {
	for tenant, roles := range map[string]map[string][]string{"demo": tenantRoles, identity.SystemTenant: platformRoles} {
		for name, permissions := range roles {
			if !roleName.MatchString(name) || len(permissions) > maxPermissions || len(slices.Compact(slices.Sorted(slices.Values(permissions)))) != len(permissions) {
				t.Errorf("%s %s: %v", tenant, name, permissions)
			}
			for _, p := range permissions {
				if !permissionName.MatchString(p) || len(p) > maxName {
					t.Errorf("%s %s: %q is not a permission's name", tenant, name, p)
				}
			}
		}
	}
	for name, want := range map[string][]string{
		"viewer": {"workloads.read"}, "developer": {"workloads.write", "images.write", "tasks.write", "trust-keys.read"},
		"auditor": {"exports.write", "events.read"}, "qa": {"work-items.approve"}, "operator": {"users.write", "workloads.write", "work-items.approve"},
	} {
		for _, p := range want {
			if !contains(tenantRoles[name], p) {
				t.Errorf("%s lacks %s", name, p)
			}
		}
	}
	for name, not := range map[string][]string{"viewer": {"exports.write", "workloads.write"}, "developer": {"users.read", "trust-keys.write"}, "auditor": {"workloads.write"}} {
		for _, p := range not {
			if contains(tenantRoles[name], p) {
				t.Errorf("%s has %s", name, p)
			}
		}
	}
	for _, p := range platformRoles["platform-admin"] {
		if strings.HasPrefix(p, "workloads.") || strings.HasPrefix(p, "objects.") {
			t.Errorf("platform administrators have %s: they read nothing inside tenants", p)
		}
	}
}

// After everything the room does, no password, secret or token is anywhere it
// can be read: not in events and their evidence, not in a table, not in the log.
func TestSecretsAreNowhere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		s := w.serve()
		secrets := []string{adminPassword, operatorPass, adaPassword, evePassword, rivalPassword, planSecret, plainSecret, workspaceToken, "typed-wrong-1", "new-password-1"}
		keep := func(t Tokens) Tokens { secrets = append(secrets, t.AccessToken, t.RefreshToken); return t }

		operator := keep(w.signIn("demo", "operator", operatorPass)).AccessToken
		ada := keep(w.signIn("demo", "ada", adaPassword))
		next, err := w.refresh(ada.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		keep(next)
		if _, err := w.refresh(ada.RefreshToken); err == nil {
			t.Error("a refresh token was good twice")
		}
		keep(w.exchange(Request{WorkspaceID: "demo", WorkspaceSecret: workspaceToken}))
		keep(w.exchange(Request{GrantType: "client_credentials", ClientID: "svc-plan-orchestrator@demo", ClientSecret: planSecret, Audience: RoleAudience}))
		made := call(t, s, "POST", "/v1/service-accounts", operator, `{"client_id":"svc-new"}`)
		secrets = append(secrets, made.body["client_secret"].(string))
		call(t, s, "POST", "/v1/users", operator, `{"username":"bob","password":"new-password-1"}`)
		call(t, s, "PATCH", "/v1/users/bob", operator, `{"password":"new-password-1"}`)
		call(t, s, "POST", "/v1/users", operator, `{"username":"ada","password":"new-password-1"}`)
		for _, r := range []Request{{Tenant: "demo", Username: "ada", Password: "typed-wrong-1"}, {Tenant: "demo", Username: "eve", Password: evePassword}} {
			if _, err := w.try(r); err == nil || strings.Contains(err.Error(), r.Password) {
				t.Errorf("sign in: %v", err)
			}
		}
		if _, err := w.AuthenticateBasic(t.Context(), "ada@demo", adaPassword, ""); err != nil {
			t.Error(err)
		}
		_, err = w.AuthenticateBasic(t.Context(), "ada@demo", "typed-wrong-1", "")
		if err = w.Reject(t.Context(), "", err); strings.Contains(err.Error(), "typed-wrong") {
			t.Errorf("%v", err)
		}
		_, err = w.Authenticate(t.Context(), ada.RefreshToken)
		if err = w.Reject(t.Context(), "", err); strings.Contains(err.Error(), ada.RefreshToken) {
			t.Errorf("%v", err)
		}

		everything := dump(t, db) + w.logs.String()
		if !strings.Contains(everything, "svc-plan-orchestrator") {
			t.Fatal("the dump is not one")
		}
		for _, s := range secrets {
			if s != "" && strings.Contains(everything, s) {
				t.Errorf("%.20s… can be read", s)
			}
		}
	})
}

// dump is the content of every table, as text.
func dump(t *testing.T, db *store.DB) string {
	t.Helper()
	catalog := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	if db.Postgres() {
		catalog = `SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public'`
	}
	var out strings.Builder
	err := db.View(t.Context(), store.Platform, func(q store.Q) error {
		tables, err := store.All(q, scanText, catalog)
		if err != nil || len(tables) < 12 {
			return fmt.Errorf("tables %v: %w", tables, err)
		}
		for _, table := range tables {
			_, err := store.All(q, func(r *sql.Rows) (struct{}, error) {
				columns, err := r.Columns()
				if err != nil {
					return struct{}{}, err
				}
				row, to := make([]any, len(columns)), make([]any, len(columns))
				for i := range row {
					to[i] = &row[i]
				}
				if err := r.Scan(to...); err != nil {
					return struct{}{}, err
				}
				for _, v := range row {
					if b, ok := v.([]byte); ok {
						v = string(b)
					}
					fmt.Fprintln(&out, v)
				}
				return struct{}{}, nil
			}, `SELECT * FROM `+table)
			if err != nil {
				return fmt.Errorf("%s: %w", table, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Row-level security holds where a query forgets its tenant.
func TestRowLevelSecurity(t *testing.T) {
	db := storetest.Postgres(t)
	w := newWorld(t, db)
	w.signIn("demo", "ada", adaPassword)
	w.signIn("rival", "operator", rivalPassword)
	tables := []string{"auth_users", "auth_roles", "auth_permissions", "auth_user_roles", "auth_role_permissions", "auth_user_permissions",
		"auth_service_accounts", "auth_workspace_secrets", "auth_refresh_tokens"}
	for _, table := range tables {
		seen := map[string][]string{}
		for _, as := range []string{"demo", "rival", "nowhere", "", store.Platform} {
			err := db.View(t.Context(), as, func(q store.Q) (err error) {
				seen[as], err = store.All(q, scanText, `SELECT DISTINCT tenant FROM `+table+` ORDER BY tenant`)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(seen[store.Platform]) == 0 || fmt.Sprint(seen["demo"]) != "[demo]" || len(seen["nowhere"]) > 0 || len(seen[""]) > 0 || contains(seen["rival"], "demo") {
			t.Errorf("%s: tenants see %v", table, seen)
		}
	}
	for as, want := range map[string]int{"demo": 0, identity.SystemTenant: 0, store.Platform: 1} {
		var n int
		if err := db.View(t.Context(), as, func(q store.Q) error { return q.Get(`SELECT COUNT(*) FROM signing_keys`, nil, &n) }); err != nil || n != want {
			t.Errorf("%s sees %d signing keys, %v; want %d", as, n, err, want)
		}
	}
	// Nor can a tenant's transaction write another's rows.
	_, err := w.gov.Do(t.Context(), govern.Action{Verb: "thing.touch", Principal: w.system, Tenant: "rival", Resource: w.thing("rival")}, func(tx *govern.Tx) error {
		n, err := tx.Exec(`UPDATE auth_users SET disabled = 1`)
		if err != nil || n != 1 {
			return fmt.Errorf("changed %d users: %w", n, err)
		}
		_, err = tx.Exec(`INSERT INTO auth_permissions (tenant, name) VALUES ('demo', 'smuggled.in')`)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("writing another tenant's row: %v", err)
	}
}

// The seeded cast of every test is what it should be: each built-in role once.
func TestEveryTenantBeginsWithTheBuiltInRoles(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		for _, tenant := range []string{"system", "demo", "rival"} {
			roles, err := w.ListRoles(t.Context(), tenant, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Sorted(maps.Keys(builtIn(tenant)))
			var got []string
			for _, r := range roles {
				got = append(got, r.Name)
				if !r.BuiltIn || !slices.Equal(r.Permissions, tidy(builtIn(tenant)[r.Name])) {
					t.Errorf("%s: %+v", tenant, r)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: roles %v, want %v", tenant, got, want)
			}
		}
	})
}
