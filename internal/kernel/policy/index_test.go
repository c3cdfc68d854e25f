package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel/policy"
)

// What a decision evaluates does not grow with the set, as long as rules have a key.
func TestIndexIsSelective(t *testing.T) {
	s := newSchema(t)
	r := create(ada(t, s), web("acme"))
	for mix, want := range map[string]int{
		"actions": 4, "tenants": 4, "resources": 4, "repository": 4, "permissions": 4, // of benchRules, all but "read"
		"linear": 4 + 995, // no key: each is evaluated
	} {
		if got := compile(t, s, "p", benchSource(mix, 1000)).Candidates(r); got != want {
			t.Errorf("%s: got %d rules evaluated, want %d", mix, got, want)
		}
	}

	// Of several keys a rule goes by the one that fewest share.
	var src strings.Builder
	for i := range 100 {
		fmt.Fprintf(&src, `@id("r%d") permit (principal in Role::"developer", action, resource is Workload) when { resource.tenant == "acme" && resource.environment == "e%d" };`+"\n", i, i)
	}
	r.Resource.Attributes["environment"] = "e7"
	if got := compile(t, s, "p", src.String()).Candidates(r); got != 1 {
		t.Errorf("got %d rules evaluated, want 1", got)
	}
	// Too few rules for a key of their own are evaluated for every request.
	few := compile(t, s, "p", strings.Join(strings.SplitAfter(src.String(), "\n")[:5], ""))
	if got := few.Candidates(r); got != 5 {
		t.Errorf("got %d rules evaluated, want 5", got)
	}
}

// A rule may use the whole context as one value; then all of it has to be there.
func TestWholeContext(t *testing.T) {
	s, err := policy.NewSchema(policy.Declaration{
		Resources: []policy.ResourceType{{Name: "Door"}},
		Actions: []policy.Action{{Verb: "door.open", Resource: "Door", Permission: "doors.open",
			Context: policy.Attributes{"badge": policy.Bool, "hour": policy.Long}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	set := compile(t, s, "p", `@id("day") permit (principal, action, resource) when { context == {badge: true, hour: 9} };`)
	r := &policy.Request{Principal: person(t, s, "ada", "acme", nil), Action: "door.open",
		Resource: policy.Resource{Type: "Door", Attributes: policy.Record{"tenant": "acme"}}, Context: policy.Record{"badge": true, "hour": 9}}
	if d := set.Decide(r); !d.Allow {
		t.Errorf("got %+v", d)
	}
	r.Context["hour"] = 3
	if d := set.Decide(r); d.Allow {
		t.Errorf("at three in the morning: got %+v", d)
	}
}
