package policy_test

import (
	"os"
	"strings"
	"testing"

	cedarschema "github.com/cedar-policy/cedar-go/x/exp/schema"

	"provost.dev/provost/internal/kernel/policy"
)

func TestSchemaText(t *testing.T) {
	s := newSchema(t)
	const golden = "testdata/schema.cedarschema"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(s.Text()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if s.Text() != string(want) {
		t.Errorf("the served schema differs from %s (UPDATE_GOLDEN=1 rewrites it):\n%s", golden, s.Text())
	}
	var parsed cedarschema.Schema
	if err := parsed.UnmarshalCedar([]byte(s.Text())); err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Resolve(); err != nil {
		t.Error(err)
	}

	other, err := policy.NewSchema(objects, workloads)
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest() != s.Digest() {
		t.Error("the order of declarations changes the digest")
	}
	if a, ok := s.Action("workload.get"); !ok || a.Permission != "workloads.read" {
		t.Errorf("got %+v, %v", a, ok)
	}
	if _, ok := s.Action("write"); ok {
		t.Error("a group is given as an action")
	}
	var verbs []string
	for _, a := range s.Actions() {
		verbs = append(verbs, a.Verb)
	}
	if got := strings.Join(verbs, " "); got != "object.put tenant.create workload.create workload.delete workload.get" {
		t.Errorf("got %s", got)
	}
}

func TestDeclarationsThatClash(t *testing.T) {
	thing := policy.ResourceType{Name: "Thing"}
	act := func(a policy.Action) policy.Declaration {
		return policy.Declaration{Resources: []policy.ResourceType{thing}, Actions: []policy.Action{a}}
	}
	resource := func(r policy.ResourceType) policy.Declaration {
		return policy.Declaration{Resources: []policy.ResourceType{r}}
	}
	ok := policy.Action{Verb: "thing.do", Resource: "Thing", Permission: "things.do"}
	deep := policy.Attributes{}
	for i := range 300 {
		deep["a"+strings.Repeat("a", i)] = policy.Bool
	}
	for name, decls := range map[string][]policy.Declaration{
		"resource twice":        {resource(thing), resource(thing)},
		"resource in lower":     {resource(policy.ResourceType{Name: "thing"})},
		"resource named User":   {resource(policy.ResourceType{Name: "User"})},
		"resource named Action": {resource(policy.ResourceType{Name: "Action"})},
		"tenant not a string":   {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"tenant": policy.Long}})},
		"reserved attribute":    {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"in": policy.Long}})},
		"attribute with dot":    {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"a.b": policy.Long}})},
		"unknown type":          {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"a": policy.Scalar("Float")}})},
		"no type":               {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"a": nil}})},
		"too many attributes":   {resource(policy.ResourceType{Name: "Thing", Attributes: deep})},
		"nested fault":          {resource(policy.ResourceType{Name: "Thing", Attributes: policy.Attributes{"a": policy.Attributes{"B": policy.Bool}}})},
		"action twice":          {act(ok), {Actions: []policy.Action{ok}}},
		"verb in upper":         {act(policy.Action{Verb: "Do", Resource: "Thing", Permission: "p"})},
		"no such resource":      {act(policy.Action{Verb: "do", Resource: "Nothing", Permission: "p"})},
		"no permission":         {act(policy.Action{Verb: "do", Resource: "Thing"})},
		"group is an action":    {act(ok), {Actions: []policy.Action{{Verb: "b", Resource: "Thing", Permission: "p", Groups: []string{"thing.do"}}}}},
		"bad group":             {act(policy.Action{Verb: "do", Resource: "Thing", Permission: "p", Groups: []string{"A"}})},
		"context twice":         {act(policy.Action{Verb: "do", Resource: "Thing", Permission: "p", Context: policy.Attributes{"a": policy.Bool}}), {Context: policy.Attributes{"a": policy.Bool}}},
		"bad context":           {act(policy.Action{Verb: "do", Resource: "Thing", Permission: "p", Context: policy.Attributes{"A": policy.Bool}})},
		"principal attribute":   {{Principal: policy.Attributes{"tenant": policy.String}}},
		"bad principal":         {{Principal: policy.Attributes{"A": policy.String}}},
	} {
		if _, err := policy.NewSchema(decls...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
