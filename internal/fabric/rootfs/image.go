package rootfs

import (
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

const (
	maxConfig  = 4 << 20 // bytes of a configuration
	maxNesting = 3       // indexes within indexes
)

// ImageConfig is what an image says about running it (OCI image specification, config.md).
// Nothing in it has an effect of its own; a runtime takes what its policy allows.
type ImageConfig struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"`         // NAME=value
	WorkingDir   string            `json:"working_dir,omitempty"` // absolute, or ""
	User         string            `json:"user,omitempty"`        // user, uid, user:group, uid:gid or "", as written
	StopSignal   string            `json:"stop_signal,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // sorted, "80/tcp"
	Labels       map[string]string `json:"labels,omitempty"`
}

// Resolve returns the image manifest that d names: d itself, or, for an index, the
// first image in it for linux on architecture. What src gives is checked against the digests.
// Errors are Unprocessable with RuleManifest or RulePlatform, or src's.
func Resolve(ctx context.Context, src Source, d blob.Digest, architecture string) (blob.Digest, *manifest.Manifest, error) {
	for range maxNesting {
		m, err := loadManifest(ctx, src, d)
		if err != nil {
			return blob.Digest{}, nil, err
		}
		if !m.IsIndex() {
			return d, m, nil
		}
		if d, err = pick(m, architecture); err != nil {
			return blob.Digest{}, nil, err
		}
	}
	return blob.Digest{}, nil, refuse(RuleManifest, "indexes are nested deeper than %d", maxNesting)
}

func loadManifest(ctx context.Context, src Source, d blob.Digest) (*manifest.Manifest, error) {
	mediaType, b, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	if d.Algorithm().Sum(b) != d {
		return nil, refuse(RuleManifest, "the manifest is not %s", d)
	}
	m, err := manifest.Parse(mediaType, b)
	if err != nil {
		return nil, refuse(RuleManifest, "the manifest cannot be used: %w", err)
	}
	return m, nil
}

// pick chooses from an index. An entry without a platform is taken only if it is alone.
func pick(m *manifest.Manifest, architecture string) (blob.Digest, error) {
	var have []string
	for _, d := range m.Manifests {
		if !manifest.IsManifest(d.MediaType) {
			continue
		}
		if p := d.Platform; p != nil && p.OS == "linux" && p.Architecture == architecture && baseline(p) {
			return d.Digest, nil
		}
		have = append(have, d.Platform.String())
	}
	if len(m.Manifests) == 1 && m.Manifests[0].Platform == nil && len(have) == 1 {
		return m.Manifests[0].Digest, nil
	}
	return blob.Digest{}, refuse(RulePlatform, "the index has nothing for linux/%s, only %s", architecture, clip(strings.Join(have, ", ")))
}

// baseline reports whether every machine of the architecture can run it.
func baseline(p *manifest.Platform) bool {
	switch p.Architecture {
	case "amd64":
		return p.Variant == "" || p.Variant == "v1"
	case "arm64":
		return p.Variant == "" || p.Variant == "v8"
	}
	return true
}

// wireConfig is the part of a configuration that matters here.
type wireConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
		StopSignal   string              `json:"StopSignal"`
	} `json:"config"`
	RootFS struct {
		Type    string        `json:"type"`
		DiffIDs []blob.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// loadConfig reads the configuration of m and the diff_id of each layer.
func (c *Cache) loadConfig(ctx context.Context, src Source, m *manifest.Manifest) (ImageConfig, []blob.Digest, error) {
	if t := m.Config.MediaType; t != manifest.OCIConfig && t != manifest.DockerConfig {
		return ImageConfig{}, nil, refuse(RuleManifest, "its configuration is %s: not an image that can run", clip(t))
	}
	if len(m.Layers) > c.cfg.MaxLayers {
		return ImageConfig{}, nil, refuse(RuleLimit, "%d layers, at most %d are unpacked", len(m.Layers), c.cfg.MaxLayers)
	}
	for i, l := range m.Layers {
		if _, err := compressionOf(l.MediaType); err != nil {
			return ImageConfig{}, nil, inLayer(i, err)
		}
	}
	b, err := readSmall(ctx, src, *m.Config)
	if err != nil {
		return ImageConfig{}, nil, err
	}
	config, diffIDs, err := parseConfig(b, c.cfg.Architecture)
	if err != nil {
		return ImageConfig{}, nil, err
	}
	if len(diffIDs) != len(m.Layers) {
		return ImageConfig{}, nil, refuse(RuleConfig, "%d diff_ids for %d layers", len(diffIDs), len(m.Layers))
	}
	return config, diffIDs, nil
}

// parseConfig reads a configuration for linux on architecture, which either is left out of it or agrees.
func parseConfig(b []byte, architecture string) (ImageConfig, []blob.Digest, error) {
	var w wireConfig
	if err := json.Unmarshal(b, &w); err != nil {
		e := kernel.AsError(refuse(RuleConfig, "the configuration is not the JSON it should be"))
		e.Err = err // names our types: for the log only
		return ImageConfig{}, nil, e
	}
	switch {
	case w.OS != "" && w.OS != "linux" || w.Architecture != "" && w.Architecture != architecture:
		return ImageConfig{}, nil, refuse(RulePlatform, "built for %s, this is linux/%s", clip(w.OS+"/"+w.Architecture), architecture)
	case w.RootFS.Type != "layers":
		return ImageConfig{}, nil, refuse(RuleConfig, "rootfs.type must be \"layers\"")
	}
	for i, d := range w.RootFS.DiffIDs {
		if d.IsZero() {
			return ImageConfig{}, nil, refuse(RuleConfig, "diff_id %d is missing", i)
		}
	}
	config, err := w.plain()
	return config, w.RootFS.DiffIDs, err
}

// readSmall reads a blob into memory and checks it.
func readSmall(ctx context.Context, src Source, d manifest.Descriptor) ([]byte, error) {
	if d.Size > maxConfig {
		return nil, refuse(RuleConfig, "the configuration has %d bytes, at most %d are read", d.Size, maxConfig)
	}
	r, err := src.Blob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, kernel.Errorf(kernel.Unavailable, "", "the image configuration could not be read: %w", err)
	}
	if int64(len(b)) != d.Size || d.Digest.Algorithm().Sum(b) != d.Digest {
		return nil, refuse(RuleConfig, "the configuration is not %s with %d bytes", d.Digest, d.Size)
	}
	return b, nil
}

// plain checks what a runtime will pass to execve and makes it plain.
func (w *wireConfig) plain() (ImageConfig, error) {
	c := w.Config
	for _, s := range slices.Concat(c.Entrypoint, c.Cmd, c.Env, []string{c.User, c.WorkingDir, c.StopSignal}) {
		if strings.ContainsRune(s, 0) {
			return ImageConfig{}, refuse(RuleConfig, "a NUL in %s", clip(s))
		}
	}
	for _, e := range c.Env {
		if strings.IndexByte(e, '=') < 1 {
			return ImageConfig{}, refuse(RuleConfig, "the environment entry %s is not NAME=value", clip(e))
		}
	}
	dir := c.WorkingDir
	if dir != "" {
		dir = path.Join("/", dir)
	}
	return ImageConfig{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: dir, User: c.User, StopSignal: c.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)), Labels: c.Labels}, nil
}
