package sbom

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/tagvalue"
)

const (
	cdxJSON = `{"bomFormat":"CycloneDX","specVersion":"1.5","metadata":{"timestamp":"2026-01-02T03:04:05Z"},"components":[
		{"type":"library","name":"a","components":[{"type":"library","name":"b"}]},{"type":"file","name":"c"}]}`
	cdxXML = `<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.4"><metadata><timestamp>2026-01-02T03:04:05Z</timestamp>
		<component type="application"><name>subject</name></component></metadata>
		<components><component type="library"><name>a</name><components><component type="library"><name>b</name></component></components></component></components></bom>`
	spdx2JSON = `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"image","creationInfo":{"created":"2026-01-02T03:04:05Z","creators":["Tool: t"]},
		"packages":[{"SPDXID":"SPDXRef-a","name":"a"},{"SPDXID":"SPDXRef-b","name":"b"}]}`
	spdx3JSON = `{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[
		{"type":"CreationInfo","@id":"_:c","specVersion":"3.0.1","created":"2026-01-02T03:04:05Z"},
		{"type":"SpdxDocument","spdxId":"urn:d"},{"type":"software_Package","spdxId":"urn:p","name":"a"}]}`
	spdxTags = "SPDXVersion: SPDX-2.2\nSPDXID: SPDXRef-DOCUMENT\nDocumentName: image\nCreated: 2026-01-02T03:04:05Z\n" +
		"# a comment\nPackageName: a\nSPDXID: SPDXRef-a\nPackageComment: <text>not\nPackageName: a package\n</text>\nPackageName: b\n"
)

func TestInspectAccepts(t *testing.T) {
	const created = "2026-01-02T03:04:05Z"
	for name, test := range map[string]struct {
		doc  string
		want Summary
	}{
		"cyclonedx json":         {cdxJSON, Summary{CycloneDX, "1.5", "json", 3, created}},
		"cyclonedx xml":          {cdxXML, Summary{CycloneDX, "1.4", "xml", 2, created}},
		"spdx 2 json":            {spdx2JSON, Summary{SPDX, "2.3", "json", 2, created}},
		"spdx 3 json":            {spdx3JSON, Summary{SPDX, "3.0.1", "json", 1, created}},
		"spdx tag-value":         {spdxTags, Summary{SPDX, "2.2", "tag-value", 2, created}},
		"byte order mark":        {"\xef\xbb\xbf" + cdxJSON, Summary{CycloneDX, "1.5", "json", 3, created}},
		"no component at all":    {`{"bomFormat":"CycloneDX","specVersion":"1.6"}`, Summary{CycloneDX, "1.6", "json", 0, ""}},
		"comment after xml root": {cdxXML + "<!-- end -->\n", Summary{CycloneDX, "1.4", "xml", 2, created}},
	} {
		got, err := Inspect([]byte(test.doc))
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, test.want)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	edit := func(doc, old, with string) string {
		if !strings.Contains(doc, old) {
			t.Fatalf("test edits %q, which is not in the document", old)
		}
		return strings.Replace(doc, old, with, 1)
	}
	for name, test := range map[string]struct{ doc, want string }{
		"nothing":                  {"", "empty"},
		"other JSON":               {`{"hello":"world"}`, "none of"},
		"JSON array":               {`[` + cdxJSON + `]`, "lacks the SPDX tags"},
		"two formats":              {edit(cdxJSON, `{`, `{"spdxVersion":"SPDX-2.3",`), "more than one"},
		"unknown bomFormat":        {edit(cdxJSON, "CycloneDX", "Cyclone"), "bomFormat"},
		"unknown version":          {edit(cdxJSON, `"1.5"`, `"2.0"`), "specVersion"},
		"member twice":             {edit(cdxJSON, `{`, `{"components":[],`), "duplicate"},
		"nameless component":       {edit(cdxJSON, `"name":"b"`, `"name":""`), "no name"},
		"typeless component":       {edit(cdxJSON, `"type":"file",`, ``), "no type"},
		"text after the JSON":      {cdxJSON + "x", "decode"},
		"components not a list":    {`{"bomFormat":"CycloneDX","specVersion":"1.5","components":7}`, "decode"},
		"too deep":                 {strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), "nested deeper"},
		"not UTF-8":                {edit(cdxJSON, `"a"`, "\"\xff\""), "UTF-8"},
		"other XML":                {`<html xmlns="http://www.w3.org/1999/xhtml"/>`, "not a CycloneDX"},
		"xml without namespace":    {`<bom><components/></bom>`, "not a CycloneDX"},
		"xml version 2":            {edit(cdxXML, "bom/1.4", "bom/2.4"), "not a CycloneDX"},
		"two xml roots":            {cdxXML + cdxXML, "goes on"},
		"undefined xml entity":     {edit(cdxXML, "<name>a<", "<name>&x;<"), "decode"},
		"xml component, no name":   {edit(cdxXML, "<name>b</name>", ""), "no name"},
		"xml cut short":            {cdxXML[:len(cdxXML)-10], "decode"},
		"spdx 1":                   {edit(spdx2JSON, "SPDX-2.3", "SPDX-1.2"), "spdxVersion"},
		"spdx without id":          {edit(spdx2JSON, `"SPDXRef-DOCUMENT"`, `"SPDXRef-x"`), "SPDXID"},
		"spdx without creators":    {edit(spdx2JSON, `"Tool: t"`, ``), "creators"},
		"spdx nameless package":    {edit(spdx2JSON, `"name":"b"`, `"name":""`), "package 1"},
		"xml too deep":             {edit(cdxXML, "<components>", strings.Repeat("<components><component>", 150)), "nested deeper"},
		"xml too deep elsewhere":   {edit(cdxXML, "<components>", strings.Repeat("<x>", 100000)), "nested deeper"},
		"spdx 3 without document":  {edit(spdx3JSON, "SpdxDocument", "Bundle"), "SpdxDocument"},
		"spdx 3 without version":   {edit(spdx3JSON, `"3.0.1"`, `""`), "specVersion"},
		"spdx 3 nameless package":  {edit(spdx3JSON, `"name":"a"`, `"name":""`), "no name"},
		"foreign @context":         {edit(spdx3JSON, "spdx.org", "spdx.example"), "none of"},
		"plain words":              {"lorem ipsum", `not "Tag: value"`},
		"tags of something else":   {"Subject: hi\nFrom: me\n", "lacks the SPDX tags"},
		"tag-value version twice":  {spdxTags + "SPDXVersion: SPDX-2.3\n", "not one"},
		"tag-value, nameless":      {edit(spdxTags, "PackageName: b", "PackageName: "), "no name"},
		"tag-value, no creation":   {edit(spdxTags, "Created: 2026-01-02T03:04:05Z", "Creator: me"), "lacks the SPDX tags"},
		"tag-value, endless line":  {spdxTags + "PackageComment: " + strings.Repeat("x", maxLine+1), "token too long"},
		"large xml":                {cdxXML + strings.Repeat(" \n", maxXMLBytes) + "<!-- -->", "larger than"},
		"more than the size limit": {strings.Repeat(" ", MaxBytes+1), "larger than"},
	} {
		got, err := Inspect([]byte(test.doc))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, got, err, test.want)
			continue
		}
		if len(err.Error()) > 400 {
			t.Errorf("%s: error of %d bytes", name, len(err.Error()))
		}
	}
}

// sharedSBOMs is a collection of published SBOMs that a checkout may have beside it.
const sharedSBOMs = "../../../../../shared/data/sbom"

// TestInspectPublished reads every SBOM of the collection and compares the
// count with the formats' own libraries. Documents that are not JSON, or that
// break their specification, must be refused for the stated reason.
func TestInspectPublished(t *testing.T) {
	if _, err := os.Stat(sharedSBOMs); err != nil {
		t.Skipf("SKIPPED: no published SBOMs at %s", sharedSBOMs)
	}
	refused := map[string]string{
		"in-the-wild/powershell-2.2.6.spdx.json": "decode", // has text after its JSON
	}
	read, compared := 0, 0
	err := filepath.WalkDir(sharedSBOMs, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if ext := path.Ext(file); ext != ".json" && ext != ".xml" && ext != ".spdx" {
			return nil
		}
		doc, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		got, err := Inspect(doc)
		for suffix, reason := range refused {
			if strings.HasSuffix(file, suffix) {
				if err == nil || !strings.Contains(err.Error(), reason) {
					t.Errorf("%s: got %v, want an error with %q", file, err, reason)
				}
				return nil
			}
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
			return nil
		}
		read++
		want, err := countByLibrary(got, doc)
		if err != nil {
			t.Logf("%s: no second opinion: %v", file, err)
			return nil
		}
		compared++
		if got.Components != want {
			t.Errorf("%s: counted %d components, the library %d", file, got.Components, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d documents read, %d compared", read, compared)
	if read < 100 || compared < 90 {
		t.Errorf("read %d documents and compared %d; the collection has more", read, compared)
	}
}

func countByLibrary(s Summary, doc []byte) (int, error) {
	switch {
	case s.Format == CycloneDX:
		format := cyclonedx.BOMFileFormatJSON
		if s.Encoding == "xml" {
			format = cyclonedx.BOMFileFormatXML
		}
		var bom cyclonedx.BOM
		if err := cyclonedx.NewBOMDecoder(bytes.NewReader(doc), format).Decode(&bom); err != nil {
			return 0, err
		}
		return countLibraryComponents(bom.Components), nil
	case s.Version[0] == '3':
		return 0, errors.New("no library reads SPDX 3")
	case s.Encoding == "tag-value":
		d, err := tagvalue.Read(bytes.NewReader(doc))
		if err != nil {
			return 0, err
		}
		return len(d.Packages), nil
	default:
		d, err := spdxjson.Read(bytes.NewReader(doc))
		if err != nil {
			return 0, err
		}
		return len(d.Packages), nil
	}
}

func countLibraryComponents(list *[]cyclonedx.Component) int {
	if list == nil {
		return 0
	}
	n := len(*list)
	for _, c := range *list {
		n += countLibraryComponents(c.Components)
	}
	return n
}

// TestInspectConformance reads the documents that CycloneDX publishes with its
// schemas. All valid ones must pass. Of the invalid ones only those that break
// what Inspect promises to check can fail; the counted minimum keeps that honest.
func TestInspectConformance(t *testing.T) {
	archives, err := filepath.Glob(filepath.Join(sharedSBOMs, "cyclonedx/conformance-*.zip"))
	if err != nil || len(archives) == 0 {
		t.Skipf("SKIPPED: no conformance documents at %s", sharedSBOMs)
	}
	valid, invalid, caught := 0, 0, 0
	for _, archive := range archives {
		z, err := zip.OpenReader(archive)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for _, f := range z.File {
			base := path.Base(f.Name)
			if ext := path.Ext(base); ext != ".json" && ext != ".xml" {
				continue
			}
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			doc, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Inspect(doc)
			switch {
			case strings.HasPrefix(base, "valid-"):
				if valid++; err != nil {
					t.Errorf("%s: %v", base, err)
				}
			case strings.HasPrefix(base, "invalid-"):
				if invalid++; err != nil {
					caught++
				}
			}
		}
	}
	t.Logf("%d valid documents, %d invalid ones of which %d are refused", valid, invalid, caught)
	if valid < 250 || caught < 10 {
		t.Errorf("%d valid documents, %d refused: too few to mean anything", valid, caught)
	}
}

func FuzzInspect(f *testing.F) {
	for _, doc := range []string{cdxJSON, cdxXML, spdx2JSON, spdx3JSON, spdxTags} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := Inspect(doc)
		if err != nil {
			if s != (Summary{}) {
				t.Errorf("refused with a summary: %+v", s)
			}
			return
		}
		if s.Format == "" || s.Version == "" || s.Encoding == "" || s.Components < 0 || s.Components > len(doc) || len(s.Created) > 64 {
			t.Errorf("accepted as %+v", s)
		}
	})
}
