package policy_test

import (
	"bytes"
	"testing"

	"github.com/cedar-policy/cedar-go"

	"provost.dev/provost/internal/kernel/policy"
)

// FuzzCompile: any text is either refused with placed problems or gives a set that decides.
func FuzzCompile(f *testing.F) {
	s := newSchema(f)
	r := create(ada(f, s), web("acme"))
	for _, seed := range []string{platformRules, benchRules, "", ";", `@id("a")`, "/*", `"`, "@id(\"a\") permit(principal,action,resource)when{[[[{",
		`@id("a") permit (principal, action, resource) when { context has a.b.c && if true then -1 < 2 else !(!true) };`,
		"@id(\"\\u{61}\") permit (principal, action, resource) when { resource[\"tenant\"] like \"a\\*\" };",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, src string) {
		set, err := s.Compile("p", "1", src)
		problems := s.Check(src)
		if err != nil {
			got := problemsOf(t, err)
			if len(got) == 0 || len(problems) != len(got) {
				t.Fatalf("Compile found %v, Check %v", got, problems)
			}
			for _, p := range got {
				if p.Line < 1 || p.Column < 1 || p.Message == "" {
					t.Fatalf("problem without a place: %+v", p)
				}
			}
			return
		}
		if len(problems) > 0 {
			t.Fatalf("compiled with problems: %v", problems)
		}
		list, err := cedar.NewPolicyListFromBytes("", []byte(src))
		if err != nil || len(list) != len(set.Rules()) {
			t.Fatalf("%d rules compiled, cedar-go reads %d (%v)", len(set.Rules()), len(list), err)
		}
		if d := set.Decide(r); len(d.Rules) == 0 {
			t.Fatalf("decision without a rule: %+v", d)
		}
	})
}

// FuzzParseRequest: whatever is read is written canonically, reads back as the same, and is decided.
func FuzzParseRequest(f *testing.F) {
	s := newSchema(f)
	b := policy.Bound{Platform: compile(f, s, "p", platformRules), Tenant: policy.Empty}
	good := create(ada(f, s), web("acme"))
	f.Add(good.AppendJSON(nil))
	good.Context, good.Principal, good.Action = nil, nil, "\xff"
	f.Add(good.AppendJSON(nil))
	f.Add([]byte(`{"action":null,"context":null,"principal":null,"resource":{"attrs":null,"id":null,"type":null}}`))
	f.Add([]byte(`{"resource":{"attrs":{"a":{"__extn":{"arg":"::1/64","fn":"ip"}},"b":{"__extn":{"arg":"1.5","fn":"decimal"}}},"id":"","type":""},"action":"","context":{"":-0},"principal":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := s.ParseRequest(data)
		if err != nil {
			return
		}
		first := r.AppendJSON(nil)
		again, err := s.ParseRequest(first)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		if second := again.AppendJSON(nil); !bytes.Equal(first, second) {
			t.Fatalf("not canonical:\n%s\n%s", first, second)
		}
		d, e := b.Decide(r), b.Decide(again)
		if got, want := e.AppendJSON(nil), d.AppendJSON(nil); !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

// FuzzParseDecision: whatever is read is written canonically and reads back as the same.
func FuzzParseDecision(f *testing.F) {
	f.Add([]byte(`{"allow":true,"rules":["a"]}`))
	f.Add([]byte(`{"rules":["a","b"],"reason":"policy_uncertain","errors":["a"],"allow":false}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := policy.ParseDecision(data)
		if err != nil {
			return
		}
		first := d.AppendJSON(nil)
		again, err := policy.ParseDecision(first)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		if second := again.AppendJSON(nil); !bytes.Equal(first, second) {
			t.Fatalf("not canonical:\n%s\n%s", first, second)
		}
	})
}
