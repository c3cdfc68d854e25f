package idp

import (
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
)

func TestSplitName(t *testing.T) {
	for _, c := range []struct{ name, tenant, wantName, wantTenant string }{
		{"ada", "demo", "ada", "demo"},
		{"ada@demo", "", "ada", "demo"},
		{"ada@demo", "demo", "ada", "demo"},
		{"ada@demo", "rival", "ada@demo", "rival"}, // no account has such a name
		{"ada@example.org@demo", "", "ada@example.org", "demo"},
		{"admin", "", "admin", "system"},
		{"@demo", "", "", "demo"},
		{"ada@", "", "ada", ""},
		{"", "", "", "system"},
	} {
		if n, tenant := splitName(c.name, c.tenant); n != c.wantName || tenant != c.wantTenant {
			t.Errorf("splitName(%q, %q) = %q, %q; want %q, %q", c.name, c.tenant, n, tenant, c.wantName, c.wantTenant)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"application/json", "", `{"grant_type":"password","username":"ada","password":"x","tenant":"demo","scope":["tasks.read"]}`},
		{"application/json; charset=utf-8", "", `{"workspace_id":"demo","workspace_secret":"x","scope":"a.b c.d"}`},
		{"application/x-www-form-urlencoded", "", "grant_type=refresh_token&refresh_token=eyJ.e30.AA&scope=tasks.read+tasks.write"},
		{"application/x-www-form-urlencoded", "Basic " + stdBase64("a%40b:c"), "grant_type=client_credentials"},
		{"", "Bearer x", `{"grant_type":"client_credentials","client_id":"a","client_secret":"b","audience":"mrp-orchestrator"}`},
		{"text/plain", "Basic !", "\xff%zz=1&a;b"},
	} {
		f.Add(seed[0], seed[1], []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, contentType, authorization string, body []byte) {
		r, err := parseRequest(contentType, authorization, body)
		if err != nil {
			if k := kernel.KindOf(err); k != kernel.Invalid && k != kernel.Unsupported {
				t.Errorf("%v is %v, not the caller's fault", err, k)
			}
			if kernel.KindOf(err) == kernel.Invalid && kernel.AsError(err).Code == "" {
				t.Errorf("%v has no code", err)
			}
			return
		}
		// What passes is one grant with what it needs, and nothing else.
		takes, ok := grantFields[r.GrantType]
		if !ok || r.Audience != DefaultAudience && r.Audience != RoleAudience {
			t.Fatalf("passed: %+v", r)
		}
		for name, value := range map[string]string{"username": r.Username, "password": r.Password, "refresh_token": r.RefreshToken, "client_id": r.ClientID,
			"client_secret": r.ClientSecret, "workspace_id": r.WorkspaceID, "workspace_secret": r.WorkspaceSecret, "tenant": r.Tenant} {
			need, known := takes[name]
			if need && value == "" || !known && value != "" {
				t.Errorf("%s = %q passed for grant %s", name, value, r.GrantType)
			}
		}
		for _, word := range r.Scope {
			if !permissionName.MatchString(word) || strings.ContainsAny(word, " \x00") {
				t.Errorf("scope word %q passed", word)
			}
		}
	})
}

// FuzzAuthorization is the client's HTTP Basic alone, where most bytes are an error.
func FuzzAuthorization(f *testing.F) {
	f.Add("Basic " + stdBase64("svc%40demo:secret"))
	f.Add("basic " + stdBase64(":"))
	f.Add("Basic " + stdBase64("%zz:%"))
	f.Add("Bearer eyJ.e30.AA")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		var r Request
		if err := r.takeBasic(header); err != nil {
			if kernel.KindOf(err) != kernel.Invalid || strings.Contains(err.Error(), header) && len(header) > 12 {
				t.Errorf("%q: %v", header, err)
			}
			return
		}
		if !r.basic && (r.ClientID != "" || r.ClientSecret != "") {
			t.Errorf("%q: took %+v from no Basic", header, r)
		}
	})
}
