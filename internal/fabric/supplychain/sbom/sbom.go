// Package sbom proves that a document is a software bill of materials and
// counts what it lists. It knows the two formats that policies ask for, in the
// encodings their tools write:
//
//	CycloneDX 1.x   JSON, XML
//	SPDX 2.x        JSON, tag-value
//	SPDX 3.x        JSON-LD
//
// Inspect reads the members that make a document one of these and that every
// component must have (a name, a type or identifier). It is no validator of
// the full schemas and resolves no references: matching components against
// advisories is someone else's work and starts from the same bytes.
package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxBytes is the largest document Inspect accepts. The largest container
// SBOMs seen in the wild have a few megabytes.
const MaxBytes = 32 << 20

// Format names a family of SBOM documents.
type Format string

// The formats Inspect knows.
const (
	CycloneDX Format = "cyclonedx"
	SPDX      Format = "spdx"
)

// Summary is what Inspect found out about a document.
type Summary struct {
	Format Format `json:"format"`
	// Version is the specification's version as the document states it, such as "1.5" or "2.3".
	Version string `json:"version"`
	// Encoding is "json", "xml" or "tag-value".
	Encoding string `json:"encoding"`
	// Components counts CycloneDX components at every depth, without the
	// document's subject in metadata.component; in SPDX, packages.
	Components int `json:"components"`
	// Created is the time the document says it was made, as written; empty when it does not say.
	Created string `json:"created,omitempty"`
}

// Inspect finds out what kind of SBOM doc is. The error says what the
// document lacks; whatever it quotes of the document is quoted and short.
func Inspect(doc []byte) (Summary, error) {
	if len(doc) > MaxBytes {
		return Summary{}, fmt.Errorf("document of %d bytes is larger than %d", len(doc), MaxBytes)
	}
	doc = bytes.TrimSpace(bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf")))
	if !utf8.Valid(doc) {
		return Summary{}, errors.New("document is not UTF-8")
	}
	switch {
	case len(doc) == 0:
		return Summary{}, errors.New("document is empty")
	case doc[0] == '{':
		return inspectJSON(doc)
	case doc[0] == '<':
		return inspectXML(doc)
	default:
		return inspectTagValue(doc)
	}
}
