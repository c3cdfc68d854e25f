package sbom

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// Versions are matched by shape: a later minor version only adds members, and
// none of the ones read here ever changed within a major version.
var (
	cyclonedxVersion = regexp.MustCompile(`^1\.\d{1,2}$`)
	spdx2Version     = regexp.MustCompile(`^SPDX-(2\.\d{1,2})$`)
	spdx3Version     = regexp.MustCompile(`^3\.\d{1,2}(\.\d{1,3})?$`)
)

// jsonDocument holds the members that tell the JSON formats apart, and those
// each format requires. One pass over the document fills it; lists are
// checked and counted while they are read, and not kept.
type jsonDocument struct {
	// CycloneDX (JSON schema bom-1.x).
	BOMFormat   string     `json:"bomFormat"`
	SpecVersion string     `json:"specVersion"`
	Components  components `json:"components"`
	Metadata    struct {
		Timestamp string `json:"timestamp"`
	} `json:"metadata"`

	// SPDX 2.x (JSON schema 2.3).
	SPDXVersion  string       `json:"spdxVersion"`
	SPDXID       string       `json:"SPDXID"`
	Name         string       `json:"name"`
	Packages     spdxPackages `json:"packages"`
	CreationInfo struct {
		Created  string  `json:"created"`
		Creators counted `json:"creators"`
	} `json:"creationInfo"`

	// SPDX 3.x (JSON-LD with the context of SPDX).
	Context jsontext.Value `json:"@context"`
	Graph   spdxGraph      `json:"@graph"`
}

func inspectJSON(doc []byte) (Summary, error) {
	var d jsonDocument
	if err := strictjson.Unmarshal(doc, &d); err != nil {
		return Summary{}, fmt.Errorf("decode document: %w", err)
	}
	isCycloneDX, isSPDX2, isSPDX3 := d.BOMFormat != "", d.SPDXVersion != "", isSPDX3Context(d.Context)
	switch {
	case isCycloneDX && !isSPDX2 && !isSPDX3:
		return d.cycloneDX()
	case isSPDX2 && !isCycloneDX && !isSPDX3:
		return d.spdx2()
	case isSPDX3 && !isCycloneDX && !isSPDX2:
		return d.spdx3()
	case !isCycloneDX && !isSPDX2 && !isSPDX3:
		return Summary{}, errors.New("document has none of bomFormat, spdxVersion and an SPDX @context")
	default:
		// Two readers could each see another list of components.
		return Summary{}, errors.New("document claims more than one SBOM format")
	}
}

func (d *jsonDocument) cycloneDX() (Summary, error) {
	if d.BOMFormat != "CycloneDX" {
		return Summary{}, fmt.Errorf("bomFormat is %.40q, not \"CycloneDX\"", d.BOMFormat)
	}
	if !cyclonedxVersion.MatchString(d.SpecVersion) {
		return Summary{}, fmt.Errorf("specVersion %.40q is not a CycloneDX 1.x version", d.SpecVersion)
	}
	return Summary{Format: CycloneDX, Version: d.SpecVersion, Encoding: "json", Components: d.Components.n, Created: clip(d.Metadata.Timestamp)}, nil
}

func (d *jsonDocument) spdx2() (Summary, error) {
	version := spdx2Version.FindStringSubmatch(d.SPDXVersion)
	if version == nil {
		return Summary{}, fmt.Errorf("spdxVersion %.40q is not an SPDX 2.x version", d.SPDXVersion)
	}
	if d.SPDXID != "SPDXRef-DOCUMENT" {
		return Summary{}, fmt.Errorf("SPDXID is %.40q, not \"SPDXRef-DOCUMENT\"", d.SPDXID)
	}
	if d.Name == "" || d.CreationInfo.Created == "" || d.CreationInfo.Creators.n == 0 {
		return Summary{}, errors.New("document lacks name, creationInfo.created or creationInfo.creators")
	}
	return Summary{Format: SPDX, Version: version[1], Encoding: "json", Components: d.Packages.n, Created: clip(d.CreationInfo.Created)}, nil
}

func (d *jsonDocument) spdx3() (Summary, error) {
	if d.Graph.documents != 1 {
		return Summary{}, fmt.Errorf("@graph has %d SpdxDocument elements, not one", d.Graph.documents)
	}
	if !spdx3Version.MatchString(d.Graph.version) {
		return Summary{}, fmt.Errorf("CreationInfo.specVersion %.40q is not an SPDX 3.x version", d.Graph.version)
	}
	return Summary{Format: SPDX, Version: d.Graph.version, Encoding: "json", Components: d.Graph.packages, Created: clip(d.Graph.created)}, nil
}

// isSPDX3Context reports whether @context is the one SPDX publishes, alone
// or first in a short list (others may follow for extensions).
func isSPDX3Context(context jsontext.Value) bool {
	const longest = 4 << 10
	if len(context) > longest {
		return false
	}
	var uri string
	if context.Kind() == '[' {
		var list []jsontext.Value
		if json.Unmarshal(context, &list) != nil || len(list) == 0 {
			return false
		}
		context = list[0]
	}
	return context.Kind() == '"' && json.Unmarshal(context, &uri) == nil && strings.HasPrefix(uri, "https://spdx.org/rdf/3.")
}

// component is what both encodings of CycloneDX require of a component.
type component struct {
	Type       string     `json:"type" xml:"type,attr"`
	Name       string     `json:"name" xml:"name"`
	Components components `json:"components" xml:"components"`
}

// components checks and counts a list of CycloneDX components and what is below them.
type components struct{ n int }

func (c *components) add(one *component) error {
	if one.Name == "" || one.Type == "" {
		return errors.New("a component has no name or no type")
	}
	c.n += 1 + one.Components.n
	return nil
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *components) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.Array(dec, math.MaxInt, func() error {
		var one component
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		return c.add(&one)
	})
}

// spdxPackages checks and counts the packages of an SPDX 2 document.
type spdxPackages struct{ n int }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *spdxPackages) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.Array(dec, math.MaxInt, func() error {
		var one struct {
			SPDXID string `json:"SPDXID"`
			Name   string `json:"name"`
		}
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		if one.Name == "" || !strings.HasPrefix(one.SPDXID, "SPDXRef-") {
			return fmt.Errorf("package %d has no name or no SPDXID", p.n)
		}
		p.n++
		return nil
	})
}

// spdxGraph takes from an SPDX 3 graph what a Summary needs.
type spdxGraph struct {
	documents, packages int
	version, created    string // of the first CreationInfo
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (g *spdxGraph) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.Array(dec, math.MaxInt, func() error {
		var one struct {
			Type        string `json:"type"`
			Name        string `json:"name"`
			SpecVersion string `json:"specVersion"`
			Created     string `json:"created"`
		}
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		switch one.Type {
		case "SpdxDocument":
			g.documents++
		case "CreationInfo":
			if g.version == "" {
				g.version, g.created = one.SpecVersion, one.Created
			}
		case "software_Package":
			if one.Name == "" {
				return errors.New("a package of @graph has no name")
			}
			g.packages++
		}
		return nil
	})
}

// counted is the length of a list of anything.
type counted struct{ n int }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *counted) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.Array(dec, math.MaxInt, func() error {
		c.n++
		return dec.SkipValue()
	})
}

// clip keeps what a summary repeats of a document short.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}
