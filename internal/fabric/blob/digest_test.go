package blob_test

import (
	"encoding/json"
	"strings"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

const (
	empty256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	empty512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

func TestParseDigest(t *testing.T) {
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{empty256, true},
		{empty512, true},
		{"", false},
		{"sha256", false},
		{"sha256:", false},
		{empty256[7:], false},
		{"SHA256:" + empty256[7:], false},
		{"sha256:" + strings.ToUpper(empty256[7:]), false},
		{empty256 + "0", false},
		{empty256[:70], false},
		{"sha512:" + empty256[7:], false},
		{"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", false},
		{"sha256:../../../../../../../../../../../../../../../../../../../etc/passwd", false},
		{"sha256:" + strings.Repeat("g", 64), false},
		{"sha256:" + strings.Repeat("0", 63) + "\x00", false},
		{" " + empty256, false},
		{empty256 + "\n", false},
	} {
		d, err := blob.ParseDigest(tc.in)
		if ok := err == nil; ok != tc.ok {
			t.Errorf("ParseDigest(%q): %v, want ok=%v", tc.in, err, tc.ok)
			continue
		}
		if err != nil {
			if e := kernel.AsError(err); e.Kind != kernel.Invalid || e.Code != blob.CodeDigestInvalid {
				t.Errorf("ParseDigest(%q): %v %s, want invalid %s", tc.in, e.Kind, e.Code, blob.CodeDigestInvalid)
			}
			continue
		}
		if d.String() != tc.in || string(d.Algorithm())+":"+d.Hex() != tc.in {
			t.Errorf("ParseDigest(%q) came back as %q", tc.in, d)
		}
	}
}

func TestSumAgreesWithKnownVectors(t *testing.T) {
	if got := blob.SHA256.Sum(nil).String(); got != empty256 {
		t.Errorf("sha256 of nothing is %s", got)
	}
	if got := blob.SHA512.Sum(nil).String(); got != empty512 {
		t.Errorf("sha512 of nothing is %s", got)
	}
}

func TestDigestInJSON(t *testing.T) {
	d := blob.SHA256.Sum([]byte("x"))
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back blob.Digest
	if err := json.Unmarshal(b, &back); err != nil || back != d {
		t.Errorf("came back as %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`"sha256:zz"`), &back); err == nil {
		t.Error("a malformed digest was accepted")
	}
	if _, err := json.Marshal(blob.Digest{}); err == nil {
		t.Error("the zero digest was written")
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(empty256)
	f.Add(empty512)
	f.Add("sha256:")
	f.Add("sha512+b64u:aa")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := blob.ParseDigest(s)
		if err != nil {
			if !d.IsZero() {
				t.Errorf("an error and the digest %q", d)
			}
			return
		}
		if d.String() != s || strings.ContainsAny(s, "/.\x00 ") || len(s) > 7+128 {
			t.Errorf("accepted %q as %q", s, d)
		}
	})
}
