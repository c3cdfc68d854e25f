package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"provost.dev/provost/internal/kernel"
)

// Config is what a server runs by. Every key can be set in the file and by the
// environment: PROVOST_ and the key's path in capitals with underscores, such
// as PROVOST_DATABASE_URL. Unknown keys are errors.
type Config struct {
	// Listen is the public address of the API, the registry and the console. Default 127.0.0.1:8420.
	Listen string `yaml:"listen"`
	// MetricsListen is the private address of /metrics; empty serves none. Default 127.0.0.1:8421.
	MetricsListen string `yaml:"metrics_listen"`
	// URL is how clients reach the server, for links and token issuers. Default http:// and Listen.
	URL string `yaml:"url"`
	// DataDir holds everything that is not in the database. Required.
	DataDir string `yaml:"data_dir"`
	// ProviderID names who runs this platform in logs and bundles: no spaces, no plus sign. Default provost.
	ProviderID string `yaml:"provider_id"`
	// Jurisdiction is where the platform's own tenant is, as an ISO 3166 country code. Default DE.
	Jurisdiction string `yaml:"jurisdiction"`
	// MasterKeyFile keeps the key that private keys are sealed under; made when missing. Default DATA_DIR/master.key.
	MasterKeyFile string `yaml:"master_key_file"`

	Database  DatabaseConfig  `yaml:"database"`
	Auth      AuthConfig      `yaml:"auth"`
	Runtime   RuntimeConfig   `yaml:"runtime"`
	Registry  RegistryConfig  `yaml:"registry"`
	Log       LogConfig       `yaml:"log"`
	Telemetry TelemetryConfig `yaml:"telemetry"`
	Bus       BusConfig       `yaml:"bus"`
	// ShutdownGrace bounds how long SIGTERM waits for what is under way. Default 20s.
	ShutdownGrace Duration `yaml:"shutdown_grace"`
}

// DatabaseConfig says where the rows are.
type DatabaseConfig struct {
	// URL is sqlite:PATH or a postgres:// URL. Default sqlite:DATA_DIR/provost.db.
	URL string `yaml:"url" secret:"true"`
	// MaxConns bounds the PostgreSQL pool. Default 16.
	MaxConns int `yaml:"max_conns"`
}

// AuthConfig says how people and services sign in.
type AuthConfig struct {
	// Mode is jwt: tokens of the built-in issuer.
	Mode string `yaml:"mode"`
	// AccessTTL is how long an access token lasts. Default 1h.
	AccessTTL Duration `yaml:"access_ttl"`
	// RefreshTTL is how long a refresh token lasts. Default 24h.
	RefreshTTL Duration `yaml:"refresh_ttl"`
	// Accounts are created at start when they do not exist yet; what the API
	// changed since is not undone. The tenants must exist, save "system".
	Accounts []AccountsConfig `yaml:"accounts"`
}

// AccountsConfig is what a tenant begins with.
type AccountsConfig struct {
	// Tenant is whose accounts these are; system is the platform's own.
	Tenant string `yaml:"tenant"`
	// WorkspaceSecret signs in by workspace_id and workspace_secret; at least 24 random bytes, or empty for none.
	WorkspaceSecret string          `yaml:"workspace_secret,omitempty"`
	Users           []UserConfig    `yaml:"users,omitempty"`
	ServiceAccounts []ServiceConfig `yaml:"service_accounts,omitempty"`
}

// UserConfig is a person.
type UserConfig struct {
	Username    string   `yaml:"username"`
	Password    string   `yaml:"password,omitempty"`
	Roles       []string `yaml:"roles,omitempty"`
	Permissions []string `yaml:"permissions,omitempty"`
	Groups      []string `yaml:"groups,omitempty"`
	Disabled    bool     `yaml:"disabled,omitempty"`
}

// ServiceConfig is a program; its secret has at least 24 random bytes.
type ServiceConfig struct {
	ClientID     string   `yaml:"client_id"`
	ClientSecret string   `yaml:"client_secret,omitempty"`
	RoleID       string   `yaml:"role_id,omitempty"`
	Permissions  []string `yaml:"permissions,omitempty"`
}

// RuntimeConfig says what runs containers.
type RuntimeConfig struct {
	// Path of the OCI runtime. Default: runc, then crun, wherever PATH has it.
	Path string `yaml:"path"`
}

// RegistryConfig bounds the built-in registry.
type RegistryConfig struct {
	// MaxBlob bounds one layer, in bytes. Default 4 GiB.
	MaxBlob int64 `yaml:"max_blob"`
}

// LogConfig says what the server writes about itself on standard error.
type LogConfig struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is text or json. Default text.
	Format string `yaml:"format"`
}

// TelemetryConfig says where traces go.
type TelemetryConfig struct {
	// OTLPEndpoint is an OTLP/HTTP URL; empty sends nothing.
	OTLPEndpoint string `yaml:"otlp_endpoint"`
}

// BusConfig says what carries live events.
type BusConfig struct {
	// URL of an external NATS server; empty runs one in process.
	URL string `yaml:"url" secret:"true"`
}

// Duration is a time.Duration written as 90s or 1h30m.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v <= 0 {
		err = errors.New("is not positive")
	}
	*d = Duration(v)
	return err
}

// MarshalText writes a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// LoadConfig reads a configuration file ("" for none), lays the environment
// over it, fills in defaults and validates. Errors name the key.
func LoadConfig(path string, environ []string) (*Config, error) {
	cfg := &Config{}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := cfg.parse(b); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := cfg.overlay(environ); err != nil {
		return nil, err
	}
	cfg.defaults()
	return cfg, cfg.Validate()
}

func (c *Config) parse(b []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return &kernel.Error{Kind: kernel.Invalid, Msg: "configuration is not right", Err: err}
	}
	return nil
}

// overlay sets keys from PROVOST_… variables. A variable that is no key is an
// error: a misspelt setting must not be ignored. The command line's own are left alone.
func (c *Config) overlay(environ []string) error {
	keys := map[string]reflect.Value{}
	collect("PROVOST", reflect.ValueOf(c).Elem(), keys)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PROVOST_") || slices.Contains(clientVariables, name) || strings.HasPrefix(name, "PROVOST_REQUIRE_") {
			continue
		}
		v, ok := keys[name]
		if !ok {
			return &kernel.Error{Kind: kernel.Invalid, Field: name, Msg: "is no configuration key; provost config print lists them"}
		}
		if err := setText(v, value); err != nil {
			return &kernel.Error{Kind: kernel.Invalid, Field: name, Msg: err.Error()}
		}
	}
	return nil
}

// clientVariables belong to the command line and the tests (docs/guides/configuration.md).
var clientVariables = []string{"PROVOST_TENANT", "PROVOST_TOKEN", "PROVOST_CONFIG", "PROVOST_TOOLS", "PROVOST_TEST_EVIDENCE_FAULT"}

func collect(prefix string, v reflect.Value, keys map[string]reflect.Value) {
	for i := range v.NumField() {
		name := prefix + "_" + strings.ToUpper(v.Type().Field(i).Tag.Get("yaml"))
		if v.Field(i).Kind() == reflect.Struct {
			collect(name, v.Field(i), keys)
			continue
		}
		keys[name] = v.Field(i)
	}
}

func setText(v reflect.Value, s string) error {
	if d, ok := v.Addr().Interface().(*Duration); ok {
		return d.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("is %q, want a whole number", s)
		}
		v.SetInt(n)
	default: // lists: YAML, so that simple ones can be written [a, b]
		if err := yaml.Unmarshal([]byte(s), v.Addr().Interface()); err != nil {
			return errors.New("is not a YAML list")
		}
	}
	return nil
}

func (c *Config) defaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Listen, "127.0.0.1:8420")
	def(&c.MetricsListen, "127.0.0.1:8421")
	def(&c.ProviderID, "provost")
	def(&c.Jurisdiction, "DE")
	def(&c.Auth.Mode, "jwt")
	def(&c.Log.Level, "info")
	def(&c.Log.Format, "text")
	if c.DataDir != "" {
		def(&c.MasterKeyFile, filepath.Join(c.DataDir, "master.key"))
		def(&c.Database.URL, "sqlite:"+filepath.Join(c.DataDir, "provost.db"))
	}
	if c.Auth.AccessTTL == 0 {
		c.Auth.AccessTTL = Duration(time.Hour)
	}
	if c.Auth.RefreshTTL == 0 {
		c.Auth.RefreshTTL = Duration(24 * time.Hour)
	}
	if c.ShutdownGrace == 0 {
		c.ShutdownGrace = Duration(20 * time.Second)
	}
	if c.Registry.MaxBlob == 0 {
		c.Registry.MaxBlob = 4 << 30
	}
}

// Validate checks what can be checked without touching anything.
func (c *Config) Validate() error {
	bad := func(key, format string, args ...any) error {
		return &kernel.Error{Kind: kernel.Invalid, Field: key, Msg: fmt.Sprintf(format, args...)}
	}
	if c.DataDir == "" {
		return bad("data_dir", "is required: a folder for keys, images and the database")
	}
	for key, addr := range map[string]string{"listen": c.Listen, "metrics_listen": c.MetricsListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil && addr != "" {
			return bad(key, "is %q, want HOST:PORT", addr)
		}
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return bad("url", "is not an http or https URL")
		}
	}
	switch {
	case strings.ContainsAny(c.ProviderID, " +/\t\n") || len(c.ProviderID) > 128:
		return bad("provider_id", "is %q; it may not hold spaces, slashes or plus signs", c.ProviderID)
	case c.Auth.Mode != "jwt":
		return bad("auth.mode", "is %q; this version offers jwt", c.Auth.Mode)
	case !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level):
		return bad("log.level", "is %q, want debug, info, warn or error", c.Log.Level)
	case c.Log.Format != "text" && c.Log.Format != "json":
		return bad("log.format", "is %q, want text or json", c.Log.Format)
	case c.Database.MaxConns < 0:
		return bad("database.max_conns", "is negative")
	case c.Registry.MaxBlob < 1<<20:
		return bad("registry.max_blob", "is below 1 MiB")
	}
	return nil
}

// Print writes the configuration as YAML with secrets left out.
func (c *Config) Print(w io.Writer) error {
	shown := *c
	redact(reflect.ValueOf(&shown).Elem())
	shown.Auth.Accounts = slices.Clone(shown.Auth.Accounts)
	for i := range shown.Auth.Accounts {
		shown.Auth.Accounts[i] = shown.Auth.Accounts[i].redacted()
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&shown); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return e.Close()
}

const hidden = "(set, not shown)"

func (a AccountsConfig) redacted() AccountsConfig {
	blank := func(s *string) {
		if *s != "" {
			*s = hidden
		}
	}
	blank(&a.WorkspaceSecret)
	a.Users, a.ServiceAccounts = slices.Clone(a.Users), slices.Clone(a.ServiceAccounts)
	for i := range a.Users {
		blank(&a.Users[i].Password)
	}
	for i := range a.ServiceAccounts {
		blank(&a.ServiceAccounts[i].ClientSecret)
	}
	return a
}

// redact blanks the password of URLs marked secret.
func redact(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Struct {
			redact(f)
		} else if v.Type().Field(i).Tag.Get("secret") != "" {
			if u, err := url.Parse(f.String()); err == nil {
				f.SetString(u.Redacted())
			} else {
				f.SetString("(not shown)")
			}
		}
	}
}
