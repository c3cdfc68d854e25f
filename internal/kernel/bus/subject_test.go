package bus

import (
	"slices"
	"strings"
	"testing"
)

func TestSubjectEncoding(t *testing.T) {
	for want, subject := range map[string]Subject{
		"events.demo":                 {"events", "demo"},
		"events.demo-1_A":             {"events", "demo-1_A"},
		"events.=2A":                  {"events", "*"},
		"events.=3E":                  {"events", ">"},
		"events.a=2Eb":                {"events", "a.b"},
		"=24SYS":                      {"$SYS"},
		"a=20b=09=0D=0A":              {"a b\t\r\n"},
		"=3D2A":                       {"=2A"},
		"=C3=A9=00=FF":                {"é\x00\xff"},
		"sha256=3Aabc":                {"sha256:abc"},
		strings.Repeat("x", maxToken): {strings.Repeat("x", maxToken)},
		"1.2.3.4.5.6.7.8":             {"1", "2", "3", "4", "5", "6", "7", "8"},
		"user=40demo.svc=2Fplan":      {"user@demo", "svc/plan"},
	} {
		got, err := subject.encode()
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", subject, got, err, want)
		}
		back, err := decodeSubject(want)
		if err != nil || !slices.Equal(back, subject) {
			t.Errorf("%q: decodes to %q, %v; want %q", want, back, err, subject)
		}
	}
}

func TestDecodeRefusesWhatEncodeNeverWrites(t *testing.T) {
	for _, name := range []string{
		"", ".", "a.", ".a", "a..b", "*", "a.>", "a b", "é", "=", "=2", "=2a", "=G0", "=41", // =41 is "A", which needs no escape
		strings.Repeat("x", maxToken+1), "1.2.3.4.5.6.7.8.9", strings.Repeat("=00", 400),
	} {
		if got, err := decodeSubject(name); err == nil {
			t.Errorf("%q: decodes to %q", name, got)
		}
	}
}

// FuzzSubject gives the two promises of the encoding arbitrary ids: it comes
// back unchanged, and what is on the wire holds nothing NATS gives a meaning to.
func FuzzSubject(f *testing.F) {
	f.Add("events", "demo")
	f.Add("*", ">")
	f.Add("a.b", "=2E")
	f.Add("$SYS", "x y\r\n\x00é")
	f.Fuzz(func(t *testing.T, first, second string) {
		subject := Subject{first, second}
		name, err := subject.encode()
		if err != nil {
			if first != "" && second != "" && len(first)+len(second) <= maxToken {
				t.Fatalf("%q: %v", subject, err)
			}
			return
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r != '.' && r != '=' && (r > 0x7f || !plain(byte(r))) }) {
			t.Fatalf("%q encodes to %q", subject, name)
		}
		back, err := decodeSubject(name)
		if err != nil || !slices.Equal(back, subject) {
			t.Fatalf("%q encodes to %q, which decodes to %q, %v", subject, name, back, err)
		}
	})
}

// FuzzDecodeSubject feeds foreign names: each is refused, or is exactly what encode writes.
func FuzzDecodeSubject(f *testing.F) {
	for _, seed := range []string{"events.demo", "=2A.x", "=2a", "=41", "a..b", "", "=", "1.2.3.4.5.6.7.8.9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		subject, err := decodeSubject(name)
		if err != nil {
			return
		}
		if again, err := subject.encode(); err != nil || again != name {
			t.Fatalf("%q decodes to %q, which encodes to %q, %v", name, subject, again, err)
		}
	})
}
