package canon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"provost.dev/provost/internal/kernel"
)

// The evidence contract's vectors V1 to V5, and an event of V6's family whose
// digest was computed with Python's json and hashlib.
var vectors = []struct{ name, in, want, digest string }{
	{"V1", `{"b":1,"a":"x"}`, `{"a":"x","b":1}`, "cdab067e9f3beb32d1252cfd63e492592fecbf591b0d08cadb24bb17f3864246"},
	{"V2", `{"s":"<&>\u2028/\u007f\b\f\n\t\u0001\"\\"}`, `{"s":"<&>\u2028/\u007f\b\f\n\t\u0001\"\\"}`, "94c1fc0b5f066c62bf1ab60e4537067ce2c77713177a9da2e47216c4c05a6ceb"},
	{"V3", `{"n":"Zürich","e":"😀"}`, `{"e":"\ud83d\ude00","n":"Z\u00fcrich"}`, "7d62aa44beb0ebceb2657ed224c4d218687dccfc5c7104c7187a1410c154c62f"},
	{"V4", `{"f":0.012,"i":1,"z":1.0,"big":1e16,"neg":-0.0,"nul":null,"t":true}`, `{"big":1e+16,"f":0.012,"i":1,"neg":-0.0,"nul":null,"t":true,"z":1.0}`, "25c36416373c6be5969742d6579a8de62dfd21ab4ea5d23b4163b834dce2eed4"},
	{"V5", `{"\uff5e":1,"\ud83d\ude00":2}`, `{"\uff5e":1,"\ud83d\ude00":2}`, "b71d7ecd44c60f3f73cb8c54c59f9e373a5daf64bc0fd065b053d32136b89fc0"},
	{"event", `{"id":"evt-7", "sequence":7, "tenant_id":"tenant-7", "actor":"system", "outcome":"accepted", "chain_id":"chain-7",
		"action":"workload.deploy", "event_type":"authority.check", "authority_snapshot_id":"auth-7", "occurred_at":"2026-01-02T03:04:05Z",
		"evidence_profile_id":"ecs-evidence-baseline", "evidence_pointer":"eosc://evidence/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}`,
		`{"action":"workload.deploy","actor":"system","authority_snapshot_id":"auth-7","chain_id":"chain-7","event_type":"authority.check","evidence_pointer":"eosc://evidence/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","evidence_profile_id":"ecs-evidence-baseline","id":"evt-7","occurred_at":"2026-01-02T03:04:05Z","outcome":"accepted","sequence":7,"tenant_id":"tenant-7"}`,
		"6c04a5ee160ebe35d7485ceb817dd8e8256ace459aa9848ba7d860c5af1ed446"},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			got, err := Transform(nil, []byte(v.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != v.want {
				t.Errorf("Transform = %s\nwant        %s", got, v.want)
			}
			if d := sha256.Sum256(got); hex.EncodeToString(d[:]) != v.digest {
				t.Errorf("digest = %x, want %s", d, v.digest)
			}
			viaGo, err := Append(nil, decode(t, v.in))
			if err != nil || !bytes.Equal(viaGo, got) {
				t.Errorf("Append = %s, %v", viaGo, err)
			}
			if err := Check(got); err != nil {
				t.Errorf("Check: %v", err)
			}
			if v.in != v.want && Check([]byte(v.in)) == nil {
				t.Error("Check took the input for canonical")
			}
		})
	}
}

func decode(t *testing.T, s string) (v any) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Python 3's repr of each literal.
var numbers = []struct{ in, want string }{
	{"0", "0"}, {"-0", "0"}, {"-1", "-1"}, {"123456789012345678901234567890", "123456789012345678901234567890"},
	{"0.0", "0.0"}, {"-0.0", "-0.0"}, {"1.0", "1.0"}, {"1e0", "1.0"}, {"1E+2", "100.0"}, {"0.1", "0.1"}, {"0.10", "0.1"},
	{"1e15", "1000000000000000.0"}, {"9999999999999998.0", "9999999999999998.0"}, {"1e16", "1e+16"}, {"12345678901234567.0", "1.2345678901234568e+16"},
	{"0.0001", "0.0001"}, {"0.00001", "1e-05"}, {"0.000012", "1.2e-05"}, {"1e-400", "0.0"}, {"5e-324", "5e-324"},
	{"1.7976931348623157e308", "1.7976931348623157e+308"}, {"2.5e-100", "2.5e-100"}, {"-1.5e300", "-1.5e+300"},
}

func TestNumbers(t *testing.T) {
	for _, n := range numbers {
		got, err := Transform(nil, []byte(n.in))
		if err != nil || string(got) != n.want {
			t.Errorf("Transform(%s) = %s, %v; want %s", n.in, got, err, n.want)
		}
		if ok := Check([]byte(n.in)) == nil; ok != (n.in == n.want) {
			t.Errorf("Check(%s) canonical = %v", n.in, ok)
		}
	}
}

func TestTransformRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                 "",
		"two values":              "1 2",
		"bad word":                "nul",
		"leading zero":            "01",
		"plus":                    "+1",
		"dot without digits":      "1.",
		"bare exponent":           "1e",
		"not a number":            "NaN",
		"infinity":                "Infinity",
		"beyond a double":         "1e999",
		"too many digits":         strings.Repeat("1", maxNumber+1),
		"open string":             `"a`,
		"newline in string":       "\"a\nb\"",
		"NUL in string":           "\"a\x00b\"",
		"invalid UTF-8":           "\"\xff\"",
		"encoded surrogate":       "\"\xed\xa0\x80\"",
		"overlong":                "\"\xc0\xaf\"",
		"lone high surrogate":     `"\ud83d"`,
		"lone low surrogate":      `"\ude00"`,
		"high surrogate twice":    `"\ud83d\ud83d"`,
		"high surrogate and text": `"\ud83dabcdef"`,
		"unknown escape":          `"\x41"`,
		"short escape":            `"\u00"`,
		"open array":              "[1",
		"trailing comma":          "[1,]",
		"missing comma":           "[1 2]",
		"open object":             `{"a":1`,
		"unquoted key":            "{a:1}",
		"missing colon":           `{"a" 1}`,
		"object trailing comma":   `{"a":1,}`,
		"duplicate keys":          `{"a":1,"a":2}`,
		"duplicate keys apart":    `{"a":1,"b":2,"a":3}`,
		"duplicate by escape":     `{"a":1,"\u0061":2}`,
		"nested too deep":         strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		"byte order mark":         "\ufeff1",
	} {
		dst := []byte("kept")
		out, err := Transform(dst, []byte(in))
		if err == nil {
			t.Errorf("%s: Transform = %s, want an error", name, out)
			continue
		}
		if kernel.KindOf(err) != kernel.Invalid {
			t.Errorf("%s: kind %v: %v", name, kernel.KindOf(err), err)
		}
		if string(out) != "kept" {
			t.Errorf("%s: dst became %q", name, out)
		}
	}
	if _, err := Transform(nil, make([]byte, MaxBytes+1)); kernel.KindOf(err) != kernel.TooLarge {
		t.Errorf("oversized input: %v", err)
	}
}

func TestTransformAcceptsTheDepthLimit(t *testing.T) {
	in := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	got, err := Transform(nil, []byte(in))
	if err != nil || string(got) != in || Check(got) != nil {
		t.Fatalf("%v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, in := range []string{
		"", " 1", "1 ", "1.00", "1E5", "1e5", `"\/"`, `"\u0041"`, `"\u000a"`, `"\u00FC"`, "\"\u00fc\"", "\"\x7f\"", `"\ud83d"`, `"\uD83D\uDE00"`,
		`{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"a": 1}`, `{"a":1 }`, `[1, 2]`, "[", "{", `{"a"}`, `{"a":}`, `[1,]`, `{"a":1,}`, "tru", "1,",
		`{"\ud83d\ude00":1,"\uff5e":2}`, strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
	} {
		if err := Check([]byte(in)); kernel.KindOf(err) != kernel.Invalid {
			t.Errorf("Check(%q) = %v, want Invalid", in, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	var deep any = 1
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"NaN":             math.NaN(),
		"infinity":        math.Inf(-1),
		"invalid UTF-8":   "a\xffb",
		"invalid key":     map[string]any{"\xff": 1},
		"encoded half":    []any{"\xed\xa0\x80"},
		"bad number":      json.Number("1x"),
		"bad raw":         json.RawMessage(`{"a":1,"a":1}`),
		"too deep":        deep,
		"bad string list": []string{"\xff"},
		"bad string map":  map[string]string{"a": "\xff"},
		"unknown type":    struct{}{},
		"float32":         float32(1),
	} {
		if out, err := Append([]byte("kept"), v); err == nil || string(out) != "kept" {
			t.Errorf("%s: Append = %q, %v", name, out, err)
		}
	}
}

func TestAppendTypes(t *testing.T) {
	got, err := Append(nil, map[string]any{
		"int": -3, "int64": int64(math.MinInt64), "uint64": uint64(math.MaxUint64), "f": 1.5, "raw": json.RawMessage(` { "b" : 1, "a" : [ ] } `),
		"strings": []string{"b", "a"}, "map": map[string]string{"y": "1", "x": "é"}, "nil": nil, "no": false, "list": []any{}, "empty": map[string]any{},
	})
	want := `{"empty":{},"f":1.5,"int":-3,"int64":-9223372036854775808,"list":[],"map":{"x":"\u00e9","y":"1"},"nil":null,"no":false,"raw":{"a":[],"b":1},"strings":["b","a"],"uint64":18446744073709551615}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestMembers(t *testing.T) {
	obj := []byte(`{"a":1,"b":{"x":[]},"c":"\u00fc"}`)
	var got []string
	err := Members(obj, func(m Member) error {
		if want := `"` + string(m.Key) + `":` + string(m.Value); string(obj[m.Start:m.End]) != want {
			t.Errorf("span %s, want %s", obj[m.Start:m.End], want)
		}
		got = append(got, string(m.Key))
		return nil
	})
	if err != nil || strings.Join(got, "") != "abc" {
		t.Errorf("members %v, %v", got, err)
	}
	if s, ok := Unquote([]byte(`"\u00fc\ud83d\ude00\n"`)); !ok || s != "ü😀\n" {
		t.Errorf("Unquote = %q, %v", s, ok)
	}
	if _, ok := Unquote([]byte(`"a"b`)); ok {
		t.Error("Unquote took more than a string")
	}
	stop := kernel.Errorf(kernel.Conflict, "", "stop")
	if err := Members(obj, func(Member) error { return stop }); err != error(stop) {
		t.Errorf("fn's error came back as %v", err)
	}
	for _, bad := range []string{"[]", `{"a":1}x`, `{"b":1,"a":1}`, ""} {
		if Members([]byte(bad), func(Member) error { return nil }) == nil {
			t.Errorf("Members accepted %q", bad)
		}
	}
	var elems []string
	if err := Elements([]byte(`[1,"x",{}]`), func(v []byte) error { elems = append(elems, string(v)); return nil }); err != nil || len(elems) != 3 {
		t.Errorf("elements %v, %v", elems, err)
	}
	if Elements([]byte(`{}`), nil) == nil || Elements([]byte(`[]1`), nil) == nil {
		t.Error("Elements accepted what is not an array")
	}
}

// value draws any JSON value that has a canonical form.
func value(depth int) *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.String().AsAny(),
		rapid.Int64().AsAny(),
		rapid.Float64().Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }).AsAny(),
	)
	if depth == 0 {
		return leaf
	}
	return rapid.OneOf(leaf,
		rapid.SliceOfN(value(depth-1), 0, 5).AsAny(),
		rapid.MapOfN(rapid.String(), value(depth-1), 0, 5).AsAny())
}

func TestEveryValueHasOneText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := value(3).Draw(t, "value")
		text, err := Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(text); err != nil {
			t.Fatalf("Append's text is not canonical: %v", err)
		}
		again, err := Transform(nil, text)
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("not idempotent: %s to %s, %v", text, again, err)
		}
		// Another text of the same value: other escapes, other key order, whitespace.
		other, err := json.MarshalIndent(v, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if !hasFloat(v) { // encoding/json writes 1.0 as 1, which is another value here
			if again, err = Transform(nil, other); err != nil || !bytes.Equal(again, text) {
				t.Fatalf("Transform(%s) = %s, %v; want %s", other, again, err, text)
			}
		}
	})
}

func hasFloat(v any) bool {
	switch v := v.(type) {
	case float64:
		return true
	case []any:
		for _, e := range v {
			if hasFloat(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasFloat(e) {
				return true
			}
		}
	}
	return false
}

// Keys ascend by code point, which UTF-16 order is not.
func TestKeyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfDistinct(rapid.String(), rapid.ID[string]).Draw(t, "keys")
		m := map[string]any{}
		for _, k := range keys {
			m[k] = nil
		}
		text, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		last, n := "", 0
		err = Members(text, func(mem Member) error {
			k, ok := Unquote([]byte(`"` + string(mem.Key) + `"`))
			if !ok || (n > 0 && k <= last) {
				t.Fatalf("%q after %q", k, last)
			}
			last, n = k, n+1
			return nil
		})
		if err != nil || n != len(keys) {
			t.Fatalf("%d of %d keys, %v", n, len(keys), err)
		}
	})
}

// The reference itself is the judge where it is installed.
func TestAgainstPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED: no python3 here, the reference encoder was not compared")
	}
	gen := value(3)
	var in, want bytes.Buffer
	for seed := range 2000 {
		text, err := Append(nil, gen.Example(seed))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(raw, '\n'))
		want.Write(append(text, '\n'))
	}
	cmd := exec.Command(python, "-c", "import json,sys\nfor l in sys.stdin.buffer: print(json.dumps(json.loads(l.decode('utf-8')),sort_keys=True,separators=(',',':'),ensure_ascii=True))")
	cmd.Stdin = &in
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := bytes.Split(got, []byte("\n")), bytes.Split(want.Bytes(), []byte("\n"))
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%d lines from Python, want %d", len(gotLines), len(wantLines))
	}
	for i := range gotLines {
		if !bytes.Equal(gotLines[i], wantLines[i]) {
			t.Errorf("Python %s\nwe     %s", gotLines[i], wantLines[i])
		}
	}
}

func FuzzTransform(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.in))
	}
	for _, n := range numbers {
		f.Add([]byte("[" + n.in + "]"))
	}
	f.Add([]byte(`{"a":{"b":[1,{"c":"\ud83d"}]},"a ":1e400}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		text, err := Transform(nil, in)
		canonical := Check(in) == nil
		if err != nil {
			if canonical {
				t.Fatalf("Check accepts what Transform refuses: %q, %v", in, err)
			}
			return
		}
		if canonical != bytes.Equal(in, text) {
			t.Fatalf("Check(%q) canonical = %v, Transform = %q", in, canonical, text)
		}
		if !json.Valid(text) {
			t.Fatalf("not JSON: %q", text)
		}
		again, err := Transform(nil, text)
		if err != nil || !bytes.Equal(again, text) || Check(text) != nil {
			t.Fatalf("not idempotent: %q, %q, %v", text, again, err)
		}
	})
}

var event = []byte(vectors[len(vectors)-1].want)

func BenchmarkCheck(b *testing.B) {
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(event); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransform(b *testing.B) {
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		var err error
		if dst, err = Transform(dst[:0], event); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	var v any
	if err := json.Unmarshal(event, &v); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		var err error
		if dst, err = Append(dst[:0], v); err != nil {
			b.Fatal(err)
		}
	}
}
