package registry

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

// The grammar as the distribution specification prints it, to hold our own parsers against.
var (
	nameGrammar  = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar   = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	rangeGrammar = regexp.MustCompile(`^[0-9]+-[0-9]+$`)
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParsePath(t *testing.T) {
	for _, tc := range []struct {
		path string
		want route
		code string // of the error
	}{
		{"/v2", route{endpoint: baseEndpoint}, ""},
		{"/v2/", route{endpoint: baseEndpoint}, ""},
		{"/v2/_catalog", route{endpoint: catalogue}, ""},
		{"/v2/demo/app/tags/list", route{tagList, "demo/app", ""}, ""},
		{"/v2/demo/app/manifests/v1", route{manifestByRef, "demo/app", "v1"}, ""},
		{"/v2/demo/app/manifests/" + someDigest, route{manifestByRef, "demo/app", someDigest}, ""},
		{"/v2/demo/app/blobs/sha256%3Ae3b0", route{blobByDigest, "demo/app", "sha256:e3b0"}, ""},
		{"/v2/demo/app/blobs/uploads/", route{uploadStart, "demo/app", ""}, ""},
		{"/v2/demo/app/blobs/uploads", route{uploadStart, "demo/app", ""}, ""},
		{"/v2/demo/app/blobs/uploads/abc", route{uploadByID, "demo/app", "abc"}, ""},
		{"/v2/demo/app/referrers/" + someDigest, route{referrerList, "demo/app", someDigest}, ""},
		{"/v2/tags/list/tags/list", route{tagList, "tags/list", ""}, ""},
		{"/v2/demo/blobs/uploads/manifests/v1", route{manifestByRef, "demo/blobs/uploads", "v1"}, ""},
		{"/v2/demo/app", route{}, ""},
		{"/v2/demo/app/tags/all", route{}, ""},
		{"/v1/demo/app/tags/list", route{}, ""},
		{"/v2x/demo/app/tags/list", route{}, ""},
		{"/v2/demo%2Fapp/tags/list", route{}, CodeNameInvalid},
		{"/v2/demo/app/manifests/..%2f..%2fv1", route{}, CodeNameInvalid},
		{"/v2/demo/%2e%2e/rival/app/tags/list", route{}, CodeNameInvalid},
		{"/v2/demo/app%00/tags/list", route{}, CodeNameInvalid},
		{"/v2/demo/../rival/app/tags/list", route{}, CodeNameInvalid},
		{"/v2/demo/./app/tags/list", route{}, CodeNameInvalid},
		{"/v2/demo//app/tags/list", route{}, CodeNameInvalid},
		{"/v2//tags/list", route{}, CodeNameInvalid},
		{"/v2/tags/list", route{}, CodeNameInvalid},
		{"/v2/Demo/app/tags/list", route{}, CodeNameInvalid},
		{`/v2/demo\app/tags/list`, route{}, CodeNameInvalid},
		{"/v2/" + strings.Repeat("a", maxName+1) + "/tags/list", route{}, CodeNameInvalid},
		{"/v2/" + strings.Repeat("a/", 600) + "tags/list", route{}, CodeNameInvalid},
	} {
		got, err := parsePath(tc.path)
		if tc.code != "" {
			if err == nil || kernel.AsError(err).Code != tc.code {
				t.Errorf("%q: %+v, %v; want %s", tc.path, got, err, tc.code)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%q: %+v, %v; want %+v", tc.path, got, err, tc.want)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/demo/app/tags/list", "/v2/a/blobs/uploads/x", "/v2/a/manifests/sha256%3Aaa", "/v2/a%2fb/tags/list", "/v2/a/../b/tags/list"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parsePath(s)
		if err != nil || r.endpoint == noEndpoint || r.endpoint == baseEndpoint || r.endpoint == catalogue {
			return
		}
		if !nameGrammar.MatchString(r.name) || strings.ContainsAny(r.arg, "/%\x00") {
			t.Errorf("%q was read as %+v", s, r)
		}
		if !strings.HasPrefix(s, "/v2/"+r.name+"/") {
			t.Errorf("%q: the name %q is not what was asked for", s, r.name)
		}
	})
}

func FuzzNameAndReference(f *testing.F) {
	for _, s := range []string{"demo/app", "a__b", "a___b", "a--b", "a-.b", "a_-b", "a.", ".a", "v1.0", "-x", someDigest, "sha512:aa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := CheckName(s) == nil, nameGrammar.MatchString(s) && len(s) <= maxName; got != want {
			t.Errorf("name %q: accepted %v, the grammar says %v", s, got, want)
		}
		if got, want := CheckTag(s) == nil, tagGrammar.MatchString(s); got != want {
			t.Errorf("tag %q: accepted %v, the grammar says %v", s, got, want)
		}
		ref, err := ParseReference(s)
		if err == nil && (ref.String() != s || (ref.Tag == "") == ref.Digest.IsZero()) {
			t.Errorf("reference %q was read as %+v", s, ref)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "5-4", "0-9223372036854775807", "1-99999999999999999999", "bytes 0-1/2", "-1", "0-", "+1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, err := parseContentRange(s)
		if err != nil {
			if e := kernel.AsError(err); e.Kind != kernel.Invalid || e.Code != blob.CodeUploadInvalid {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		a, b, _ := strings.Cut(s, "-")
		wantFirst, _ := strconv.ParseInt(a, 10, 64)
		wantLast, _ := strconv.ParseInt(b, 10, 64)
		if !rangeGrammar.MatchString(s) || first != wantFirst || last != wantLast || last-first+1 < 1 {
			t.Errorf("%q was read as %d to %d", s, first, last)
		}
	})
}
