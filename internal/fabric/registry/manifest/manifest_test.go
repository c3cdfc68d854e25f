package manifest_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

var (
	d1     = blob.SHA256.Sum([]byte("one"))
	d2     = blob.SHA512.Sum([]byte("two"))
	config = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, manifest.OCIConfig, d1)
	layer  = fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":3}`, d2)
	child  = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3,"platform":{"os":"linux","architecture":"amd64"}}`, manifest.OCIImage, d1)
)

func image(extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + manifest.OCIImage + `","config":` + config + `,"layers":[` + layer + `]` + extra + `}`
}

func index(extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + manifest.OCIIndex + `","manifests":[` + child + `]` + extra + `}`
}

func TestParseAccepts(t *testing.T) {
	for _, tc := range []struct{ name, header, doc string }{
		{"image", manifest.OCIImage, image("")},
		{"image, type from the document", "", image("")},
		{"header parameters are ignored", manifest.OCIImage + "; charset=utf-8", image("")},
		{"image without its own type", manifest.OCIImage, strings.Replace(image(""), `"mediaType":"`+manifest.OCIImage+`",`, "", 1)},
		{"docker image", manifest.DockerImage, strings.Replace(image(""), manifest.OCIImage, manifest.DockerImage, 1)},
		{"docker list", manifest.DockerIndex, strings.Replace(index(""), manifest.OCIIndex, manifest.DockerIndex, 1)},
		{"index", manifest.OCIIndex, index("")},
		{"empty index", manifest.OCIIndex, `{"schemaVersion":2,"manifests":[]}`},
		{"no layers", manifest.OCIImage, `{"schemaVersion":2,"config":` + config + `,"layers":[]}`},
		{"null layers", manifest.OCIImage, `{"schemaVersion":2,"config":` + config + `,"layers":null}`},
		{"unknown members", manifest.OCIImage, image(`,"org.example":{"a":[1,{"b":null}]}`)},
		{"subject", manifest.OCIImage, image(`,"subject":` + child)},
		{"large annotations", manifest.OCIImage, image(`,"annotations":{"a":"` + strings.Repeat("x", manifest.MaxAnnotations) + `"}`)},
		{"embedded data", manifest.OCIImage, image(`,"subject":` + strings.Replace(config, "}", `,"data":"`+base64.StdEncoding.EncodeToString([]byte("one"))+`"}`, 1))},
	} {
		if _, err := manifest.Parse(tc.header, []byte(tc.doc)); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, header, doc string
		kind              kernel.Kind
		field             string
	}{
		{"nothing", manifest.OCIImage, ``, kernel.Invalid, "manifest"},
		{"not JSON", manifest.OCIImage, `hello`, kernel.Invalid, "manifest"},
		{"an array", manifest.OCIImage, `[]`, kernel.Invalid, "manifest"},
		{"trailing text", manifest.OCIImage, image("") + "{}", kernel.Invalid, "manifest"},
		{"invalid UTF-8", manifest.OCIImage, image(`,"x":"` + "\xff" + `"`), kernel.Invalid, "x"},
		{"layers twice", manifest.OCIImage, image(`,"layers":[]`), kernel.Invalid, "layers"},
		{"layers in another case", manifest.OCIImage, image(`,"Layers":[]`), kernel.Invalid, "Layers"},
		{"only in another case", manifest.OCIImage, strings.Replace(image(""), `"layers"`, `"LAYERS"`, 1), kernel.Invalid, ""},
		{"a digest in another case", manifest.OCIImage, strings.Replace(image(""), `"digest"`, `"Digest"`, 1), kernel.Invalid, ""},
		{"unknown type", "application/json", image(""), kernel.Invalid, "mediaType"},
		{"unknown type everywhere", "", strings.Replace(image(""), manifest.OCIImage, "application/json", 1), kernel.Unsupported, "mediaType"},
		{"docker schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, kernel.Unsupported, "mediaType"},
		{"another type than announced", manifest.DockerImage, image(""), kernel.Invalid, "mediaType"},
		{"broken content type", "a/b; ;", image(""), kernel.Invalid, "mediaType"},
		{"docker without its own type", manifest.DockerImage, strings.Replace(image(""), `"mediaType":"`+manifest.OCIImage+`",`, "", 1), kernel.Invalid, "mediaType"},
		{"schema version", manifest.OCIImage, strings.Replace(image(""), `:2`, `:1`, 1), kernel.Invalid, "schemaVersion"},
		{"image and index", manifest.OCIImage, image(`,"manifests":[]`), kernel.Invalid, "manifests"},
		{"index and image", manifest.OCIIndex, index(`,"layers":[]`), kernel.Invalid, "config"},
		{"index with config", manifest.OCIIndex, index(`,"config":` + config), kernel.Invalid, "config"},
		{"no config", manifest.OCIImage, `{"schemaVersion":2,"layers":[]}`, kernel.Invalid, "config"},
		{"null layer", manifest.OCIImage, strings.Replace(image(""), layer, "null", 1), kernel.Invalid, "layers[0].mediaType"},
		{"no digest", manifest.OCIImage, strings.Replace(image(""), fmt.Sprintf(`"digest":%q,`, d2), "", 1), kernel.Invalid, "layers[0].digest"},
		{"bad digest", manifest.OCIImage, strings.Replace(image(""), d2.String(), "sha256:../../etc", 1), kernel.Invalid, "layers[0].digest"},
		{"negative size", manifest.OCIImage, strings.Replace(image(""), `"size":3`, `"size":-1`, 1), kernel.Invalid, "config.size"},
		{"fractional size", manifest.OCIImage, strings.Replace(image(""), `"size":3`, `"size":3.5`, 1), kernel.Invalid, "config.size"},
		{"huge size", manifest.OCIImage, strings.Replace(image(""), `"size":3`, `"size":99999999999999999999`, 1), kernel.Invalid, "config.size"},
		{"size as text", manifest.OCIImage, strings.Replace(image(""), `"size":3`, `"size":"3"`, 1), kernel.Invalid, "config.size"},
		{"media type of a layer", manifest.OCIImage, strings.Replace(image(""), "application/vnd.oci.image.layer.v1.tar+gzip", "layer", 1), kernel.Invalid, "layers[0].mediaType"},
		{"artifact type", manifest.OCIImage, image(`,"artifactType":"a/b/c"`), kernel.Invalid, "artifactType"},
		{"data of another size", manifest.OCIImage, strings.Replace(image(""), config, strings.Replace(config, "}", `,"data":"b25l b25l"}`, 1), 1), kernel.Invalid, "config.data"},
		{"data of another content", manifest.OCIImage, strings.Replace(image(""), config, strings.Replace(config, "}", `,"data":"dHdv"}`, 1), 1), kernel.Invalid, "config.data"},
		{"annotations without end of a referrer", manifest.OCIImage, image(`,"subject":` + child + `,"annotations":{"a":"` + strings.Repeat("x", manifest.MaxAnnotations) + `"}`), kernel.Invalid, "annotations"},
		{"layers without end", manifest.OCIImage, image(`,"x":0`)[:len(image(""))-2] + strings.Repeat(","+layer, manifest.MaxDescriptors) + `]}`, kernel.Invalid, "layers"},
		{"too large", manifest.OCIImage, image(`,"x":"` + strings.Repeat("x", manifest.MaxBytes) + `"`), kernel.TooLarge, ""},
		{"too deep", manifest.OCIImage, image(`,"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000)), kernel.Invalid, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := manifest.Parse(tc.header, []byte(tc.doc))
			if err == nil {
				t.Fatal("accepted")
			}
			e := kernel.AsError(err)
			if e.Kind != tc.kind || e.Code != manifest.CodeInvalid {
				t.Errorf("%v %s: %v; want %v", e.Kind, e.Code, err, tc.kind)
			}
			if tc.field != "" && e.Field != tc.field {
				t.Errorf("field %q (%v), want %q", e.Field, err, tc.field)
			}
		})
	}
}

func TestReferrerType(t *testing.T) {
	for _, tc := range []struct{ doc, want string }{
		{image(""), manifest.OCIConfig},
		{image(`,"artifactType":"application/x"`), "application/x"},
		{index(""), ""},
		{index(`,"artifactType":"application/x"`), "application/x"},
	} {
		m, err := manifest.Parse("", []byte(tc.doc))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.ReferrerType(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestBlobsLeavesOutWhatMayBeMissing(t *testing.T) {
	m, err := manifest.Parse("", []byte(strings.Replace(image(""), "layer.v1", "layer.nondistributable.v1", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Blobs(); len(got) != 1 || got[0].Digest != d1 {
		t.Errorf("got %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(manifest.OCIImage, []byte(image("")))
	f.Add(manifest.OCIIndex, []byte(index("")))
	f.Add("", []byte(image(`,"subject":`+child+`,"annotations":{"a":"b"}`)))
	f.Add(manifest.DockerImage, []byte(`{"schemaVersion":2,"Config":{}}`))
	f.Fuzz(func(t *testing.T, header string, b []byte) {
		m, err := manifest.Parse(header, b)
		if err != nil {
			if e := kernel.AsError(err); e.Kind == kernel.Internal || e.Code != manifest.CodeInvalid {
				t.Errorf("an unclassified error: %v", err)
			}
			return
		}
		if !manifest.IsManifest(m.MediaType) || m.IsIndex() == (m.Config != nil) {
			t.Errorf("neither image nor index: %+v", m)
		}
		for _, d := range append(m.Blobs(), m.Manifests...) {
			if d.Digest.IsZero() || d.Size < 0 || d.MediaType == "" {
				t.Errorf("accepted descriptor %+v", d)
			}
		}
	})
}
