package sbom

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

const cyclonedxNamespace = "http://cyclonedx.org/schema/bom/"

// xmlMaxDepth bounds how deep elements nest. Each level of CycloneDX
// components takes two.
const xmlMaxDepth = 200

// maxXMLBytes is less than MaxBytes because an attribute of five bytes takes
// a dozen times as much in memory.
const maxXMLBytes = 8 << 20

// xmlDocument is CycloneDX XML, whose version is in the root's namespace.
type xmlDocument struct {
	XMLName    xml.Name
	Components components `xml:"components"`
	Timestamp  string     `xml:"metadata>timestamp"`
}

// inspectXML leans on encoding/xml knowing neither external nor user-defined
// entities: a reference to one is an error.
func inspectXML(doc []byte) (Summary, error) {
	if len(doc) > maxXMLBytes {
		return Summary{}, fmt.Errorf("XML document of %d bytes is larger than %d", len(doc), maxXMLBytes)
	}
	if err := checkXMLDepth(doc); err != nil {
		return Summary{}, err
	}
	var d xmlDocument
	dec := xml.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(&d); err != nil {
		return Summary{}, fmt.Errorf("decode document: %w", err)
	}
	// Comments may follow the root element; another element would be another
	// document for a reader that takes the last one.
	if err := dec.Decode(new(xmlDocument)); err != io.EOF {
		return Summary{}, errors.New("document goes on after its root element")
	}
	version, ok := strings.CutPrefix(d.XMLName.Space, cyclonedxNamespace)
	if !ok || d.XMLName.Local != "bom" || !cyclonedxVersion.MatchString(version) {
		return Summary{}, fmt.Errorf("root element %.40q of %.80q is not a CycloneDX 1.x bom", d.XMLName.Local, d.XMLName.Space)
	}
	return Summary{Format: CycloneDX, Version: version, Encoding: "xml", Components: d.Components.n, Created: clip(strings.TrimSpace(d.Timestamp))}, nil
}

// checkXMLDepth runs first because decoding recurses, with a stack that would
// end the process if it grew with the document.
func checkXMLDepth(doc []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(doc))
	for depth := 0; ; {
		token, err := dec.RawToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decode document: %w", err)
		}
		switch token.(type) {
		case xml.StartElement:
			if depth++; depth > xmlMaxDepth {
				return fmt.Errorf("XML is nested deeper than %d", xmlMaxDepth)
			}
		case xml.EndElement:
			depth--
		}
	}
}

// UnmarshalXML implements xml.Unmarshaler: it counts the component elements below start.
func (c *components) UnmarshalXML(dec *xml.Decoder, _ xml.StartElement) error {
	for {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if t.Name.Local != "component" {
				if err := dec.Skip(); err != nil {
					return err
				}
				continue
			}
			var one component
			if err := dec.DecodeElement(&one, &t); err != nil {
				return err
			}
			if err := c.add(&one); err != nil {
				return err
			}
		}
	}
}

// maxLine bounds one line of a tag-value document; licence texts, the longest
// values, span lines.
const maxLine = 1 << 20

// inspectTagValue reads SPDX 2.x tag-value: "Tag: value" lines, with
// multi-line values in <text>…</text>, which may contain what looks like tags.
func inspectTagValue(doc []byte) (Summary, error) {
	s := Summary{Format: SPDX, Encoding: "tag-value"}
	lines := bufio.NewScanner(bytes.NewReader(doc))
	lines.Buffer(nil, maxLine)
	var documentID, inText, named bool
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if inText {
			inText = !strings.Contains(line, "</text>")
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		tag, value, ok := strings.Cut(line, ":")
		if !ok {
			return Summary{}, fmt.Errorf("line %.40q is not \"Tag: value\"", line)
		}
		value = strings.TrimSpace(value)
		inText = strings.HasPrefix(value, "<text>") && !strings.Contains(value, "</text>")
		switch strings.TrimSpace(tag) {
		case "SPDXVersion":
			if m := spdx2Version.FindStringSubmatch(value); m != nil && s.Version == "" {
				s.Version = m[1]
				continue
			}
			return Summary{}, fmt.Errorf("SPDXVersion %.40q is not one SPDX 2.x version", value)
		case "SPDXID":
			documentID = documentID || value == "SPDXRef-DOCUMENT"
		case "DocumentName":
			named = value != ""
		case "Created":
			s.Created = clip(value)
		case "PackageName":
			if value == "" {
				return Summary{}, errors.New("a package has no name")
			}
			s.Components++
		}
	}
	if err := lines.Err(); err != nil {
		return Summary{}, fmt.Errorf("read document: %w", err)
	}
	if s.Version == "" || !documentID || !named || s.Created == "" {
		return Summary{}, errors.New("document is neither JSON nor XML and lacks the SPDX tags SPDXVersion, SPDXID, DocumentName or Created")
	}
	return s, nil
}
