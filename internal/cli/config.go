package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
	"go.yaml.in/yaml/v3"

	"provost.dev/provost/client"
)

// contexts is the file of saved sign-ins. It holds tokens, so it is readable
// by its owner only, is replaced as a whole, and is changed under a lock that
// all processes share.
type contexts struct {
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]*profile `yaml:"contexts,omitempty"`
}

// profile is one context: a server, a tenant, and who signed in there.
type profile struct {
	URL      string `yaml:"url"`
	Tenant   string `yaml:"tenant"` // "system" for the platform's administrators
	Username string `yaml:"username"`
	// LogKey is the verifier key that the tenant's log had at sign-in. Proofs
	// are held against it, so a server cannot change its log's key unnoticed.
	LogKey string `yaml:"log_key,omitempty"`

	AccessToken    string    `yaml:"access_token,omitempty"`
	AccessExpires  time.Time `yaml:"access_expires,omitempty"`
	RefreshToken   string    `yaml:"refresh_token,omitempty"`
	RefreshExpires time.Time `yaml:"refresh_expires,omitempty"`
}

// set takes over an answer of the token endpoint.
func (f *profile) set(t client.Token, now time.Time) {
	expiry := func(seconds int64) time.Time {
		if seconds <= 0 {
			return time.Time{}
		}
		return now.Add(time.Duration(min(seconds, 1<<31)) * time.Second).UTC().Truncate(time.Second)
	}
	f.AccessToken, f.AccessExpires = t.AccessToken, expiry(t.ExpiresIn)
	if t.RefreshToken != "" {
		f.RefreshToken, f.RefreshExpires = t.RefreshToken, expiry(t.RefreshExpiresIn)
	}
}

// margin is how long before its end a token is no longer used: it has to last
// for the request, on a server whose clock may be ahead.
const margin = 30 * time.Second

// fresh reports whether the access token can be used.
func (f *profile) fresh(now time.Time) bool {
	return f.AccessToken != "" && (f.AccessExpires.IsZero() || now.Add(margin).Before(f.AccessExpires))
}

// contextsPath is PROVOST_CONFIG, else provost/config.yaml in the user's
// configuration directory (XDG_CONFIG_HOME on Linux).
func contextsPath() (string, error) {
	if path := os.Getenv("PROVOST_CONFIG"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration directory: %w; set PROVOST_CONFIG", err)
	}
	return filepath.Join(dir, "provost", "config.yaml"), nil
}

// maxContexts bounds the file that is read, in bytes.
const maxContexts = 4 << 20

// readContexts reads the file; a missing one holds no contexts.
func readContexts(path string) (*contexts, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &contexts{Contexts: map[string]*profile{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxContexts+1))
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	if len(b) > maxContexts {
		return nil, fmt.Errorf("read contexts: %s is larger than %s", path, formatBytes(maxContexts))
	}
	c, err := parseContexts(b)
	if err != nil {
		return nil, fmt.Errorf("read contexts: %s: %w", path, err)
	}
	return c, nil
}

// parseContexts refuses keys it does not know: writing the file would lose them.
func parseContexts(b []byte) (*contexts, error) {
	c := &contexts{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if c.Contexts == nil {
		c.Contexts = map[string]*profile{}
	}
	for name, f := range c.Contexts {
		if f == nil || f.URL == "" {
			return nil, fmt.Errorf("context %q has no url", name)
		}
	}
	return c, nil
}

// errUnchanged lets a change of the contexts end without writing.
var errUnchanged = errors.New("unchanged")

// changeContexts reads the file, lets fn change it and replaces it, alone
// among all processes. When fn fails nothing is written.
func changeContexts(path string, fn func(*contexts) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // replace what a link points at, not the link
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return fmt.Errorf("lock contexts: %w", err)
	}
	defer unlock()
	c, err := readContexts(path)
	if err != nil {
		return err
	}
	if err := fn(c); err != nil {
		if errors.Is(err, errUnchanged) {
			return nil
		}
		return err
	}
	return writeContexts(path, c)
}

// writeContexts replaces the file: a reader sees the old one or the new one,
// also after a power loss.
func writeContexts(path string, c *contexts) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*") // 0600
	if err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save contexts: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// exposed reports whether others on this machine can read the file.
func exposed(path string) bool {
	st, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0
}
