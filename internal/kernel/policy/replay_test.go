package policy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"net/netip"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/policy"
)

func TestRequestJSON(t *testing.T) {
	s := newSchema(t)
	r := create(person(t, s, "ada", "acme", []string{"b", "a", "b"}, "workloads.write"), web("acme"))
	r.Resource.ID = "Z\u00fcrich \U0001F600 <&>/\u007f\b\f\n\r\t\u0001\"\\"
	r.Context["client_ip"] = netip.MustParsePrefix("10.0.0.0/8")
	r.Resource.Attributes["image"].(policy.Record)["built_at"] = types.NewDatetime(noon)
	const want = `{"action":"workload.create",` +
		`"context":{"client_ip":{"__extn":{"arg":"10.0.0.0/8","fn":"ip"}},"mfa":true,"now":{"__extn":{"arg":"2026-11-22T12:00:00.000Z","fn":"datetime"}}},` +
		`"principal":{"attrs":{"groups":[],"kind":"human","name":"ada","permissions":["workloads.write"],"roles":["a","b"],"tenant":"acme"},"id":"ada","type":"User"},` +
		`"resource":{"attrs":{"cpu":2,"envelope":"container","environment":"staging",` +
		`"image":{"built_at":{"__extn":{"arg":"2026-11-22T12:00:00.000Z","fn":"datetime"}},"digest":"sha256:1","repository":"acme/web","signed":true,"signers":["release"]},` +
		`"labels":["blue","canary"],"locked":false,"tenant":"acme"},` +
		`"id":"Z\u00fcrich \ud83d\ude00 <&>/\u007f\b\f\n\r\t\u0001\"\\","type":"Workload"}}`
	if got := string(r.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The same request without a schema at hand: its action is unknown.
	r.Action = "x"
	if got, want := string(r.AppendJSON([]byte("pre"))), "pre"+strings.Replace(want, "workload.create", "x", 1); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecimalInput(t *testing.T) {
	s, err := policy.NewSchema(policy.Declaration{
		Resources: []policy.ResourceType{{Name: "Finding", Attributes: policy.Attributes{"score": policy.Decimal}}},
		Actions:   []policy.Action{{Verb: "finding.close", Resource: "Finding", Permission: "findings.write"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := policy.Bound{Platform: compile(t, s, "p", `@id("low") permit (principal, action, resource) when { resource.score.lessThan(decimal("7.5")) };`), Tenant: policy.Empty}
	score, err := types.ParseDecimal("7.25")
	if err != nil {
		t.Fatal(err)
	}
	r := &policy.Request{Principal: person(t, s, "qa", "acme", nil), Action: "finding.close",
		Resource: policy.Resource{Type: "Finding", ID: "CVE-1", Attributes: policy.Record{"tenant": "acme", "score": score}}}
	input := r.AppendJSON(nil)
	if !strings.Contains(string(input), `"score":{"__extn":{"arg":"7.25","fn":"decimal"}}`) {
		t.Errorf("got %s", input)
	}
	if d, err := b.Replay(input); err != nil || !d.Allow {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestParseRefuses(t *testing.T) {
	s := newSchema(t)
	good := string(create(ada(t, s), web("acme")).AppendJSON(nil))
	if _, err := s.ParseRequest([]byte(" " + good + "\n")); err != nil {
		t.Fatal(err)
	}
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for name, in := range map[string]string{
		"empty":              ``,
		"not an object":      `[]`,
		"truncated":          good[:len(good)-1],
		"more":               good + `{}`,
		"too long":           good + strings.Repeat(" ", policy.MaxInput),
		"unknown member":     swap(`"action":`, `"x":1,"action":`),
		"missing member":     swap(`"action":"workload.create",`, ``),
		"repeated member":    swap(`"action":`, `"action":"a","action":`),
		"repeated attribute": swap(`"cpu":2`, `"cpu":2,"cpu":3`),
		"float":              swap(`"cpu":2`, `"cpu":2.5`),
		"exponent":           swap(`"cpu":2`, `"cpu":2e3`),
		"too large":          swap(`"cpu":2`, `"cpu":9223372036854775808`),
		"mixed array":        swap(`["blue","canary"]`, `["blue",1]`),
		"nested array":       swap(`["blue","canary"]`, `[["blue"]]`),
		"open array":         swap(`["blue","canary"]`, `["blue"`),
		"deep":               swap(`"cpu":2`, `"cpu":`+strings.Repeat(`{"a":`, 20)+`1`+strings.Repeat(`}`, 20)),
		"not UTF-8":          swap(`acme/web`, "\xff"),
		"lone surrogate":     swap(`acme/web`, `\ud83d`),
		"extension function": swap(`"cpu":2`, `"cpu":{"__extn":{"arg":"1","fn":"eval"}}`),
		"extension argument": swap(`"cpu":2`, `"cpu":{"__extn":{"arg":"1","fn":"ip"}}`),
		"extension extra":    swap(`"cpu":2`, `"cpu":{"__extn":{"arg":"1.0","fn":"decimal"},"a":1}`),
		"principal type":     swap(`"type":"User"`, `"type":"Robot"`),
		"principal tenant":   swap(`"kind":"human"`, `"kind":7`),
		"principal roles":    swap(`"roles":["developer"]`, `"roles":"developer"`),
		"principal extra":    swap(`"kind":"human"`, `"age":7,"kind":"human"`),
		"context a string":   swap(`"context":{`, `"context":"x","y":{`),
	} {
		if r, err := s.ParseRequest([]byte(in)); err == nil {
			t.Errorf("%s: accepted %s", name, r.AppendJSON(nil))
		} else if kernel.KindOf(err) != kernel.Invalid {
			t.Errorf("%s: got %v, want an Invalid error", name, err)
		}
	}
	for _, in := range []string{``, `{}`, `{"allow":1,"rules":[]}`, `{"allow":true,"rules":[1]}`, `{"allow":true,"rules":[],"x":1}`} {
		if d, err := policy.ParseDecision([]byte(in)); err == nil {
			t.Errorf("decision %s: got %+v", in, d)
		}
	}
}

func TestSnapshot(t *testing.T) {
	s := newSchema(t)
	a, b := compile(t, s, "a", platformRules), compile(t, s, "b", "")
	doc, sum := policy.Bound{Platform: a, Tenant: b, Extra: []*policy.Set{b}}.Snapshot()
	nameOf := func(set *policy.Set) string {
		return `{"digest":"` + set.Digest() + `","name":"` + set.Name() + `","version":"1"}`
	}
	want := `{"extra":[` + nameOf(b) + `],"platform":` + nameOf(a) + `,"schema":"` + s.Digest() + `","tenant":` + nameOf(b) + `}`
	if string(doc) != want {
		t.Errorf("got  %s\nwant %s", doc, want)
	}
	if h := sha256.Sum256(doc); sum != "sha256:"+hex.EncodeToString(h[:]) {
		t.Errorf("got digest %s", sum)
	}
	if doc, _ := (policy.Bound{}).Snapshot(); string(doc) != `{"extra":[],"platform":null,"schema":null,"tenant":null}` {
		t.Errorf("got %s", doc)
	}
}

func TestDiff(t *testing.T) {
	s := newSchema(t)
	platform := compile(t, s, "platform", platformRules)
	old := policy.Bound{Platform: platform, Tenant: policy.Empty}
	proposed := policy.Bound{Platform: platform, Tenant: compile(t, s, "freeze",
		`@id("no-canary") forbid (principal, action in Action::"write", resource is Workload) when { resource.labels.contains("canary") };`)}

	dev := ada(t, s)
	plain := web("acme")
	plain.Attributes["labels"] = []string{"blue"}
	spoilt := web("acme")
	delete(spoilt.Attributes, "cpu")
	inputs := map[string][]byte{
		"1 stays allowed":   create(dev, plain).AppendJSON(nil),
		"2 would be denied": create(dev, web("acme")).AppendJSON(nil),
		"3 stays denied":    create(person(t, s, "nobody", "acme", nil), web("acme")).AppendJSON(nil),
		"4 does not fit":    create(dev, spoilt).AppendJSON(nil),
		"5 does not read":   []byte(`{"v":2}`),
	}
	all := func(yield func(string, []byte) bool) {
		for _, ref := range slices.Sorted(maps.Keys(inputs)) {
			if !yield(ref, inputs[ref]) {
				return
			}
		}
	}
	changes := slices.Collect(policy.Diff(old, proposed, all))
	if len(changes) != 3 {
		t.Fatalf("got %+v", changes)
	}
	c := changes[0]
	if c.Ref != "2 would be denied" || c.Action != "workload.create" || c.Err != nil || !c.Old.Allow || c.New.Allow ||
		!slices.Equal(c.Rules(), []string{"freeze/no-canary"}) {
		t.Errorf("got %+v", c)
	}
	if c := changes[1]; c.Ref != "4 does not fit" || kernel.KindOf(c.Err) != kernel.Unprocessable {
		t.Errorf("got %+v", c)
	}
	if c := changes[2]; c.Ref != "5 does not read" || kernel.KindOf(c.Err) != kernel.Invalid {
		t.Errorf("got %+v", c)
	}
	if back := slices.Collect(policy.Diff(proposed, old, all)); !back[0].New.Allow || !slices.Equal(back[0].Rules(), []string{"workload.write"}) {
		t.Errorf("got %+v", back[0])
	}
	for range policy.Diff(old, proposed, all) {
		break // stops the inputs as well
	}
	if got := slices.Collect(policy.Diff(policy.Bound{}, proposed, all)); len(got) != 5 || kernel.KindOf(got[0].Err) != kernel.Unavailable {
		t.Errorf("without an old policy: got %+v", got)
	}
}
