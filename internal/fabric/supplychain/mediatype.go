package supplychain

import (
	"mime"
	"strings"

	"provost.dev/provost/internal/fabric/supplychain/sbom"
)

func isBundle(mediaType string) bool { return strings.HasPrefix(mediaType, bundlePrefix) }

// sbomTypes are the media types of SBOM documents: the registered ones, and
// those older tools made up. The format is what the document must turn out to be.
var sbomTypes = map[string]sbom.Format{
	"application/spdx+json":          sbom.SPDX,
	"text/spdx":                      sbom.SPDX,
	"text/spdx+json":                 sbom.SPDX,
	"application/vnd.cyclonedx":      sbom.CycloneDX,
	"application/vnd.cyclonedx+json": sbom.CycloneDX,
	"application/vnd.cyclonedx+xml":  sbom.CycloneDX,
}

// sbomFormat returns the SBOM format that a media type announces. Parameters,
// such as the version, are left to the document.
func sbomFormat(mediaType string) (sbom.Format, bool) {
	base, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return "", false
	}
	f, ok := sbomTypes[base]
	return f, ok
}

// kindOfArtifact tells what an artifact type announces, KindUnknown for types
// that can hold several kinds or none.
func kindOfArtifact(artifactType string) Kind {
	if _, ok := sbomFormat(artifactType); ok {
		return KindSBOM
	}
	if artifactType == cosignSigArtifact {
		return KindSignature
	}
	return KindUnknown
}

// Predicate types of in-toto statements.
const (
	cosignSignPredicate = "https://sigstore.dev/cosign/sign/v1"
	slsaV02             = "https://slsa.dev/provenance/v0.2"
	slsaV1              = "https://slsa.dev/provenance/v1"
	slsaPrefix          = "https://slsa.dev/provenance/"
	spdxPredicate       = "https://spdx.dev/Document"
	cyclonedxPredicate  = "https://cyclonedx.org/bom"
)

// kindOfPredicate tells what a statement of this predicate type is about.
func kindOfPredicate(predicateType string) Kind {
	if predicateType == cosignSignPredicate {
		return KindSignature
	}
	if strings.HasPrefix(predicateType, slsaPrefix) {
		return KindProvenance
	}
	if _, ok := sbomPredicate(predicateType); ok {
		return KindSBOM
	}
	return KindOther
}

// sbomPredicate returns the format of an SBOM predicate type. Both types may
// be followed by a version, as in https://spdx.dev/Document/v2.3.
func sbomPredicate(predicateType string) (sbom.Format, bool) {
	for base, format := range map[string]sbom.Format{spdxPredicate: sbom.SPDX, cyclonedxPredicate: sbom.CycloneDX} {
		if predicateType == base || strings.HasPrefix(predicateType, base+"/") {
			return format, true
		}
	}
	return "", false
}
