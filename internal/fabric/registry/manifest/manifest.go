// Package manifest reads image manifests and indexes: the OCI image
// specification's and the two Docker types with the same shape.
//
// There is one reading of a manifest in the house, and it is a strict one.
// Whoever verifies an image and whoever unpacks it must see the same layers, so
// what two parsers could read differently is refused: names given twice, names in
// another case, text after the document, a document that is both an image and an
// index (CVE-2021-41190). Names that are not known are ignored, as the
// specification asks.
package manifest

import (
	"fmt"
	"mime"
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

// The media types that Parse accepts.
const (
	OCIImage    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex    = "application/vnd.oci.image.index.v1+json"
	DockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Media types of the configuration of an image that can run.
const (
	OCIConfig    = "application/vnd.oci.image.config.v1+json"
	DockerConfig = "application/vnd.docker.container.image.v1+json"
)

// Limits on one manifest.
const (
	MaxBytes       = 4 << 20   // the distribution specification's minimum is our maximum
	MaxDescriptors = 4096      // layers of an image, or manifests of an index
	MaxAnnotations = 256 << 10 // bytes of the annotations of a manifest with a subject: referrers lists carry them
)

// CodeInvalid is the code of every error of Parse, as in the distribution specification.
const CodeInvalid = "MANIFEST_INVALID"

// Manifest is an image manifest (Config is set) or an index (Config is nil).
type Manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *Descriptor       `json:"config"`
	Layers       []Descriptor      `json:"layers"`
	Manifests    []Descriptor      `json:"manifests"`
	Subject      *Descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// Descriptor points to content (OCI image specification, descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       blob.Digest       `json:"digest"`
	Size         int64             `json:"size"` // bytes
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	Data         []byte            `json:"data,omitempty"` // the content itself, embedded
}

// Platform is what an image was built to run on, in Go's words.
type Platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant,omitempty"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
}

// String is "os/architecture[/variant]".
func (p *Platform) String() string {
	if p == nil {
		return "any"
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// IsIndex reports whether a media type is one of the two index types.
func IsIndex(mediaType string) bool { return mediaType == OCIIndex || mediaType == DockerIndex }

// IsManifest reports whether a media type is one that Parse accepts.
func IsManifest(mediaType string) bool {
	return mediaType == OCIImage || mediaType == DockerImage || IsIndex(mediaType)
}

// IsIndex reports whether m lists manifests rather than layers.
func (m *Manifest) IsIndex() bool { return IsIndex(m.MediaType) }

// ReferrerType is the artifactType under which m is listed as a referrer: its own,
// else, for an image, the media type of its configuration (distribution specification, "Listing Referrers").
func (m *Manifest) ReferrerType() string {
	if m.ArtifactType == "" && m.Config != nil {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

// Blobs are the content of m that must be there before it: configuration and
// layers, without the layers that their media type declares not to be distributable.
func (m *Manifest) Blobs() []Descriptor {
	var ds []Descriptor
	if m.Config != nil {
		ds = append(ds, *m.Config)
	}
	for _, l := range m.Layers {
		if !NonDistributable(l.MediaType) {
			ds = append(ds, l)
		}
	}
	return ds
}

// NonDistributable reports whether layers of this media type may be missing from a registry.
func NonDistributable(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.v1.tar") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.diff.tar")
}

// wire is a Manifest with what is needed to judge it and not to use it.
type wire struct {
	SchemaVersion int `json:"schemaVersion"`
	Manifest
}

// Parse reads the manifest b. mediaType is what its sender says it is (a
// Content-Type, parameters are ignored); when that is empty, the document's own
// mediaType decides. Errors are kernel.Error with CodeInvalid: Unsupported for
// another media type, TooLarge, else Invalid with Field at the fault.
func Parse(mediaType string, b []byte) (*Manifest, error) {
	if len(b) > MaxBytes {
		return nil, kernel.Errorf(kernel.TooLarge, CodeInvalid, "a manifest has at most %d bytes", MaxBytes)
	}
	w, err := read(b)
	if err != nil {
		return nil, err
	}
	said, err := declared(mediaType, w.MediaType)
	if err != nil {
		return nil, err
	}
	m := w.Manifest
	m.MediaType = said
	switch {
	case w.SchemaVersion != 2:
		return nil, invalid("schemaVersion", "must be 2")
	case w.MediaType == "" && said != OCIImage && said != OCIIndex:
		return nil, invalid("mediaType", "must be given in a Docker manifest")
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return &m, nil
}

// declared is the media type that header and document agree on.
func declared(header, own string) (string, error) {
	said := own
	if header != "" {
		t, _, err := mime.ParseMediaType(header)
		if err != nil {
			return "", invalid("mediaType", "the content type cannot be read")
		}
		if own != "" && own != t {
			return "", invalid("mediaType", "the document is %q, it was sent as %q", clip(own), clip(t))
		}
		said = t
	}
	if !IsManifest(said) {
		return "", &kernel.Error{Kind: kernel.Unsupported, Code: CodeInvalid, Field: "mediaType",
			Msg: fmt.Sprintf("%q is not a manifest we store; known are %s, %s, %s and %s", clip(said), OCIImage, OCIIndex, DockerImage, DockerIndex)}
	}
	return said, nil
}

func (m *Manifest) check() error {
	if m.IsIndex() {
		if m.Config != nil || m.Layers != nil {
			return invalid("config", "an index has no config and no layers")
		}
	} else {
		if m.Manifests != nil {
			return invalid("manifests", "an image has no manifests")
		}
		if m.Config == nil {
			return invalid("config", "is required in an image")
		}
		if err := m.Config.check("config"); err != nil {
			return err
		}
	}
	if err := checkAll("layers", m.Layers); err != nil {
		return err
	}
	if err := checkAll("manifests", m.Manifests); err != nil {
		return err
	}
	if m.Subject != nil {
		if err := m.Subject.check("subject"); err != nil {
			return err
		}
	}
	if m.ArtifactType != "" && !validMediaType(m.ArtifactType) {
		return invalid("artifactType", "is not a media type")
	}
	if n := annotationBytes(m.Annotations); m.Subject != nil && n > MaxAnnotations {
		return invalid("annotations", "have %d bytes; a manifest with a subject has at most %d", n, MaxAnnotations)
	}
	return nil
}

func annotationBytes(as map[string]string) (n int) {
	for k, v := range as {
		n += len(k) + len(v)
	}
	return n
}

func checkAll(field string, ds []Descriptor) error {
	if len(ds) > MaxDescriptors {
		return invalid(field, "has %d entries, at most %d are taken", len(ds), MaxDescriptors)
	}
	for i := range ds {
		if err := ds[i].check(fmt.Sprintf("%s[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Descriptor) check(field string) error {
	switch {
	case !validMediaType(d.MediaType):
		return invalid(field+".mediaType", "is not a media type")
	case d.Digest.IsZero():
		return invalid(field+".digest", "is required")
	case d.Size < 0:
		return invalid(field+".size", "is negative")
	case d.ArtifactType != "" && !validMediaType(d.ArtifactType):
		return invalid(field+".artifactType", "is not a media type")
	case d.Data != nil && int64(len(d.Data)) != d.Size:
		return invalid(field+".data", "has %d bytes, the descriptor says %d", len(d.Data), d.Size)
	case d.Data != nil && d.Digest.Algorithm().Sum(d.Data) != d.Digest:
		return invalid(field+".data", "is not what the digest names")
	}
	return nil
}

// validMediaType checks type "/" subtype, each a restricted name (RFC 6838 §4.2). There are no parameters in a descriptor.
func validMediaType(s string) bool {
	typ, sub, ok := strings.Cut(s, "/")
	return ok && restrictedName(typ) && restrictedName(sub)
}

func restrictedName(s string) bool {
	if s == "" || len(s) > 127 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte("!#$&-^_.+", c) < 0) {
			return false
		}
	}
	return true
}

func invalid(field, format string, args ...any) error {
	return &kernel.Error{Kind: kernel.Invalid, Code: CodeInvalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// clip shortens the sender's text for a message.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
