package idp

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/route"
)

// Request is what the token endpoint takes, as JSON or as a form. Which fields
// belong together is the grant's to say; others are an error.
type Request struct {
	GrantType       string    `json:"grant_type"` // password when empty, or the workspace's where its secret is given
	Tenant          string    `json:"tenant"`
	Username        string    `json:"username"` // name, or name@tenant
	Password        string    `json:"password"`
	RefreshToken    string    `json:"refresh_token"`
	ClientID        string    `json:"client_id"` // id, or id@tenant; also by HTTP Basic
	ClientSecret    string    `json:"client_secret"`
	WorkspaceID     string    `json:"workspace_id"`
	WorkspaceSecret string    `json:"workspace_secret"`
	Audience        string    `json:"audience"`
	Scope           ScopeList `json:"scope"`

	basic bool // the client's secret came by HTTP Basic
}

// The grants.
const (
	grantPassword  = "password"
	grantClient    = "client_credentials"
	grantRefresh   = "refresh_token"
	grantWorkspace = "workspace_secret" // how events name the bare workspace_id and workspace_secret
)

// maxRequest bounds a token request: a refresh token and change.
const maxRequest = 16 << 10

// ScopeList is permission names: a JSON array, or one string with spaces between.
type ScopeList []string

// UnmarshalJSON takes both spellings.
func (s *ScopeList) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err == nil {
		for _, word := range list {
			*s = append(*s, strings.Fields(word)...)
		}
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("scope is neither a string nor a list of strings")
	}
	*s = strings.Fields(text)
	return nil
}

// parseRequest reads a token request. authorization is the request's header;
// anything but a client's HTTP Basic in it is left alone.
func parseRequest(contentType, authorization string, body []byte) (Request, error) {
	var r Request
	media := ""
	if contentType != "" {
		var err error
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return r, unsupportedType(contentType)
		}
	}
	var err error
	switch media {
	case "application/x-www-form-urlencoded":
		r, err = parseForm(body)
	case "application/json", "":
		err = route.Decode(body, &r)
	default:
		return r, unsupportedType(contentType)
	}
	if err == nil {
		err = r.takeBasic(authorization)
	}
	if err == nil {
		err = r.complete()
	}
	if e := kernel.AsError(err); err != nil && e.Kind == kernel.Invalid && e.Code == "" {
		named := *e
		named.Code = "INVALID_REQUEST"
		return r, &named
	}
	return r, err
}

func unsupportedType(got string) error {
	return kernel.Errorf(kernel.Unsupported, "", "the body's type is %q; send application/json or application/x-www-form-urlencoded", got)
}

// parseForm reads RFC 6749's spelling. As that asks for, parameters we do not
// know are ignored and repeated ones are an error (§3.2).
func parseForm(body []byte) (r Request, err error) {
	if !utf8.Valid(body) {
		return r, &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is not valid UTF-8"}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return r, &kernel.Error{Kind: kernel.Invalid, Field: "body", Msg: "is not a form"}
	}
	var scope string
	for name, dst := range map[string]*string{"grant_type": &r.GrantType, "tenant": &r.Tenant, "username": &r.Username, "password": &r.Password,
		"refresh_token": &r.RefreshToken, "client_id": &r.ClientID, "client_secret": &r.ClientSecret, "workspace_id": &r.WorkspaceID,
		"workspace_secret": &r.WorkspaceSecret, "audience": &r.Audience, "scope": &scope} {
		values := form[name]
		if len(values) > 1 {
			return r, kernel.InvalidField(name, "is given %d times; give it once", len(values))
		}
		if len(values) == 1 {
			*dst = values[0]
		}
		if !utf8.ValidString(*dst) || strings.ContainsRune(*dst, 0) {
			return r, kernel.InvalidField(name, "is not valid UTF-8 text")
		}
	}
	r.Scope = strings.Fields(scope)
	return r, nil
}

// takeBasic reads client_id and client_secret from HTTP Basic, form-encoded as
// RFC 6749 §2.3.1 has it.
func (r *Request) takeBasic(authorization string) error {
	scheme, value, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	bad := func(msg string) error { return kernel.InvalidField("authorization", "%s", msg) }
	if r.ClientID != "" || r.ClientSecret != "" {
		return bad("and the body both carry a client's credentials; use one of them")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return bad("is not HTTP Basic")
	}
	id, secret, ok := strings.Cut(string(raw), ":")
	if !ok {
		return bad("is not HTTP Basic")
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err1 != nil || err2 != nil || !utf8.ValidString(id) || !utf8.ValidString(secret) {
		return bad("is not HTTP Basic")
	}
	r.ClientID, r.ClientSecret, r.basic = id, secret, true
	return nil
}

// complete settles the grant and the tenant, and refuses what does not go together.
func (r *Request) complete() error {
	if r.GrantType == "" && (r.WorkspaceID != "" || r.WorkspaceSecret != "") {
		r.GrantType = grantWorkspace
	} else if r.GrantType == "" {
		r.GrantType = grantPassword
	} else if r.GrantType == grantWorkspace {
		r.GrantType = "" // not one that can be asked for by name
	}
	given := map[string]string{"username": r.Username, "password": r.Password, "refresh_token": r.RefreshToken, "client_id": r.ClientID,
		"client_secret": r.ClientSecret, "workspace_id": r.WorkspaceID, "workspace_secret": r.WorkspaceSecret, "tenant": r.Tenant}
	takes, ok := grantFields[r.GrantType]
	if !ok {
		return &kernel.Error{Kind: kernel.Invalid, Code: "UNSUPPORTED_GRANT", Field: "grant_type", Msg: "is not a grant of this server",
			Fix: "use password, refresh_token or client_credentials, or send workspace_id and workspace_secret"}
	}
	for _, name := range fieldNames {
		need, known := takes[name]
		if !known && given[name] != "" {
			return kernel.InvalidField(name, "does not belong to grant_type %s", r.GrantType)
		}
		if need && given[name] == "" {
			return kernel.InvalidField(name, "is required for grant_type %s", r.GrantType)
		}
	}
	if r.basic && r.GrantType != grantClient {
		return kernel.InvalidField("authorization", "HTTP Basic does not belong to grant_type %s", r.GrantType)
	}
	if r.WorkspaceID != "" && r.Tenant != "" && r.Tenant != r.WorkspaceID {
		return kernel.InvalidField("tenant", "differs from workspace_id; give one of them")
	}
	if r.Audience == "" {
		r.Audience = DefaultAudience
	}
	if r.Audience != DefaultAudience && r.Audience != RoleAudience {
		return kernel.InvalidField("audience", "is not one this server issues tokens for; use %s or %s", DefaultAudience, RoleAudience)
	}
	return r.checkScope()
}

// fieldNames are the credentials' fields in the order their errors come in.
var fieldNames = []string{"username", "password", "refresh_token", "client_id", "client_secret", "workspace_id", "workspace_secret", "tenant"}

// grantFields says which fields a grant takes, and which of them it needs.
var grantFields = map[string]map[string]bool{
	grantPassword:  {"username": true, "password": true, "tenant": false},
	grantClient:    {"client_id": true, "client_secret": true, "tenant": false},
	grantRefresh:   {"refresh_token": true, "tenant": false},
	grantWorkspace: {"workspace_id": true, "workspace_secret": true, "tenant": false},
}

const maxScope = 128

func (r *Request) checkScope() error {
	if len(r.Scope) > maxScope {
		return scopeError(fmt.Sprintf("names more than %d permissions", maxScope))
	}
	for _, word := range r.Scope {
		if !permissionName.MatchString(word) {
			return scopeError("names permissions, such as tasks.read")
		}
	}
	return nil
}

func scopeError(msg string) error {
	return &kernel.Error{Kind: kernel.Invalid, Code: "INVALID_SCOPE", Field: "scope", Msg: msg}
}

// The forms of names. Account names have no '@', which stands between name and tenant.
var (
	accountName    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	roleName       = accountName
	groupName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) // role names, too, when they are only named
	permissionName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){1,3}$`)
)

// splitName reads "name@tenant", or a name with its tenant beside it. Without
// either it is the platform's: that is how its administrators sign in.
func splitName(name, tenant string) (string, string) {
	if i := strings.LastIndexByte(name, '@'); i >= 0 && (tenant == "" || tenant == name[i+1:]) {
		return name[:i], name[i+1:]
	}
	if tenant == "" {
		tenant = identity.SystemTenant
	}
	return name, tenant
}
