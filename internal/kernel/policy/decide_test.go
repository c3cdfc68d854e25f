package policy_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/policy"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func webContext() policy.Record { return policy.Record{"mfa": true, "now": noon} }

func web(tenant string) policy.Resource {
	return policy.Resource{Type: "Workload", ID: "web-1", Attributes: policy.Record{
		"tenant": tenant, "envelope": "container", "environment": "staging", "cpu": 2, "locked": false,
		"labels": []string{"blue", "canary"},
		"image": policy.Record{"repository": "acme/web", "digest": "sha256:1", "signed": true,
			"signers": []string{"release"}},
	}}
}

func create(p *policy.Principal, res policy.Resource) *policy.Request {
	return &policy.Request{Principal: p, Action: "workload.create", Resource: res, Context: webContext()}
}

func TestDecide(t *testing.T) {
	s := newSchema(t)
	platform := compile(t, s, "platform", platformRules)
	freeze := compile(t, s, "freeze", `@id("no-canary") forbid (principal, action in Action::"write", resource is Workload)
		when { resource.labels.contains("canary") };`)
	only := compile(t, s, "only", `@id("blue") permit (principal, action, resource is Workload) when { resource.labels.contains("blue") };`)
	onlyRed := compile(t, s, "only", `@id("red") permit (principal, action, resource is Workload) when { resource.labels.contains("red") };`)
	wide := compile(t, s, "wide", `@id("all") permit (principal, action, resource);`)
	// 9·10¹⁸ workloads' worth of CPU overflow the Long.
	overflow := compile(t, s, "quota", `@id("cpu") forbid (principal, action == Action::"workload.create", resource)
		when { resource.cpu * 9000000000000000000 > 10 };`)
	overflowPermit := compile(t, s, "quota", `@id("cpu") permit (principal, action == Action::"workload.create", resource)
		when { resource.cpu * 9000000000000000000 > 10 };
		@id("any") permit (principal, action, resource);`)

	dev, stranger := ada(t, s), person(t, s, "eve", "rival", []string{"developer"}, "workloads.write")
	nobody := person(t, s, "nobody", "acme", nil)
	unsigned := web("acme")
	unsigned.Attributes["image"].(policy.Record)["signed"] = false

	cases := []struct {
		name   string
		bound  policy.Bound
		req    *policy.Request
		allow  bool
		rules  string
		reason policy.Reason
		errors string
	}{
		{"permitted", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(dev, web("acme")), true, "workload.write", "", ""},
		{"default deny", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(nobody, web("acme")), false, "default.deny", "", ""},
		{"forbid wins over permit", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(dev, unsigned), false, "image.unsigned", "", ""},
		{"every forbid is named", policy.Bound{Platform: platform, Tenant: freeze}, create(stranger, unsigned), false,
			"freeze/no-canary image.unsigned tenant.isolation", "", ""},
		{"a tenant's forbid narrows", policy.Bound{Platform: platform, Tenant: freeze}, create(dev, web("acme")), false, "freeze/no-canary", "", ""},
		{"a tenant's permits must permit as well", policy.Bound{Platform: platform, Tenant: onlyRed}, create(dev, web("acme")), false, "only/default.deny", "", ""},
		{"and do", policy.Bound{Platform: platform, Tenant: only}, create(dev, web("acme")), true, "only/blue workload.write", "", ""},
		{"a tenant cannot widen", policy.Bound{Platform: platform, Tenant: wide}, create(nobody, web("acme")), false, "default.deny", "", ""},
		{"nor undo a forbid", policy.Bound{Platform: platform, Tenant: wide}, create(dev, unsigned), false, "image.unsigned", "", ""},
		{"extra sets bound too", policy.Bound{Platform: platform, Tenant: wide, Extra: []*policy.Set{only, freeze}}, create(dev, web("acme")), false, "freeze/no-canary", "", ""},
		{"each of them", policy.Bound{Platform: platform, Tenant: wide, Extra: []*policy.Set{only, onlyRed}}, create(dev, web("acme")), false, "only/default.deny", "", ""},
		{"a forbid that errs denies", policy.Bound{Platform: platform, Tenant: overflow}, create(dev, web("acme")), false, "quota/cpu", policy.ReasonUncertain, "quota/cpu"},
		{"unless another forbids", policy.Bound{Platform: platform, Tenant: overflow}, create(dev, unsigned), false, "image.unsigned quota/cpu", "", "quota/cpu"},
		{"a permit that errs does not permit", policy.Bound{Platform: platform, Tenant: overflowPermit}, create(dev, web("acme")), true, "quota/any workload.write", "", "quota/cpu"},
		{"no platform set", policy.Bound{Tenant: policy.Empty}, create(dev, web("acme")), false, "policy.missing", policy.ReasonMissing, ""},
		{"no tenant set", policy.Bound{Platform: platform}, create(dev, web("acme")), false, "policy.missing", policy.ReasonMissing, ""},
		{"a hole among the extra sets", policy.Bound{Platform: platform, Tenant: wide, Extra: []*policy.Set{nil}}, create(dev, web("acme")), false, "policy.missing", policy.ReasonMissing, ""},
		{"zero Bound", policy.Bound{}, create(dev, web("acme")), false, "policy.missing", policy.ReasonMissing, ""},
		{"the empty platform set", policy.Bound{Platform: policy.Empty, Tenant: wide}, create(dev, web("acme")), false, "default.deny", "", ""},
		{"set of another schema", policy.Bound{Platform: platform, Tenant: compile(t, newSchema(t), "x", "")}, create(dev, web("acme")), false, "policy.invalid", policy.ReasonInvalid, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := c.bound.Decide(c.req)
			var failed []string
			for _, e := range d.Errors {
				if e.Message == "" {
					t.Errorf("rule %s failed without a message", e.Rule)
				}
				failed = append(failed, e.Rule)
			}
			if d.Allow != c.allow || strings.Join(d.Rules, " ") != c.rules || d.Reason != c.reason || strings.Join(failed, " ") != c.errors {
				t.Errorf("got allow=%v rules=%v reason=%q errors=%v", d.Allow, d.Rules, d.Reason, d.Errors)
			}
		})
	}
}

func TestPrincipalsInRolesAndGroups(t *testing.T) {
	s := newSchema(t)
	set := compile(t, s, "p", `
		@id("role") permit (principal in Role::"admin", action, resource);
		@id("group") permit (principal is Service in Group::"ci", action, resource);
		@id("one") permit (principal == User::"root", action, resource);
		@id("action-group") permit (principal, action, resource) when { principal.name == "reader" && action in Action::"read" };`)
	res := web("acme")
	for _, c := range []struct {
		id   policy.Identity
		verb string
		want string
	}{
		{policy.Identity{Type: policy.User, ID: "a", Roles: []string{"admin"}}, "workload.get", "role"},
		{policy.Identity{Type: policy.User, ID: "a", Roles: []string{"Admin"}}, "workload.get", "default.deny"},
		{policy.Identity{Type: policy.Service, ID: "a", Groups: []string{"ci", "x"}}, "workload.get", "group"},
		{policy.Identity{Type: policy.User, ID: "a", Groups: []string{"ci"}}, "workload.get", "default.deny"},
		{policy.Identity{Type: policy.User, ID: "root"}, "workload.create", "one"},
		{policy.Identity{Type: policy.System, ID: "root"}, "workload.create", "default.deny"},
		{policy.Identity{Type: policy.User, ID: "b", Name: "reader"}, "workload.get", "action-group"},
		{policy.Identity{Type: policy.User, ID: "b", Name: "reader"}, "workload.create", "default.deny"},
	} {
		p, err := s.NewPrincipal(c.id)
		if err != nil {
			t.Fatal(err)
		}
		d := set.Decide(&policy.Request{Principal: p, Action: c.verb, Resource: res, Context: webContext()})
		if got := strings.Join(d.Rules, " "); got != c.want {
			t.Errorf("%+v %s: got %s, want %s", c.id, c.verb, got, c.want)
		}
	}
}

// What does not fit the schema is denied, never guessed at.
func TestRequestsThatDoNotFit(t *testing.T) {
	s := newSchema(t)
	set := compile(t, s, "p", `@id("all") permit (principal, action, resource);`)
	dev := ada(t, s)
	change := func(edit func(*policy.Request)) *policy.Request {
		r := create(dev, web("acme"))
		edit(r)
		return r
	}
	if d := set.Decide(create(dev, web("acme"))); !d.Allow {
		t.Fatalf("the unchanged request: got %+v", d)
	}
	for name, r := range map[string]*policy.Request{
		"no principal":        change(func(r *policy.Request) { r.Principal = nil }),
		"foreign principal":   change(func(r *policy.Request) { r.Principal = ada(t, newSchema(t)) }),
		"unknown action":      change(func(r *policy.Request) { r.Action = "workload.fly" }),
		"action group":        change(func(r *policy.Request) { r.Action = "write" }),
		"other resource type": change(func(r *policy.Request) { r.Resource.Type = "Tenant" }),
		"id not UTF-8":        change(func(r *policy.Request) { r.Resource.ID = "\xff" }),
		"missing attribute":   change(func(r *policy.Request) { delete(r.Resource.Attributes, "tenant") }),
		"extra attribute":     change(func(r *policy.Request) { r.Resource.Attributes["colour"] = "red" }),
		"wrong type":          change(func(r *policy.Request) { r.Resource.Attributes["cpu"] = "2" }),
		"a float":             change(func(r *policy.Request) { r.Resource.Attributes["cpu"] = 2.0 }),
		"nil":                 change(func(r *policy.Request) { r.Resource.Attributes["cpu"] = nil }),
		"not UTF-8":           change(func(r *policy.Request) { r.Resource.Attributes["envelope"] = "\xc3" }),
		"set not UTF-8":       change(func(r *policy.Request) { r.Resource.Attributes["labels"] = []string{"\xc3"} }),
		"a Go map":            change(func(r *policy.Request) { r.Resource.Attributes["image"] = map[string]any{} }),
		"scalar for record":   change(func(r *policy.Request) { r.Resource.Attributes["image"] = "x" }),
		"record for scalar":   change(func(r *policy.Request) { r.Resource.Attributes["cpu"] = policy.Record{} }),
		"nested":              change(func(r *policy.Request) { delete(r.Resource.Attributes["image"].(policy.Record), "signed") }),
		"no context":          change(func(r *policy.Request) { r.Context = nil }),
		"year 10000":          change(func(r *policy.Request) { r.Context["now"] = noon.AddDate(9000, 0, 0) }),
		"zoned address":       change(func(r *policy.Request) { r.Context["client_ip"] = netip.MustParseAddr("fe80::1%eth0") }),
		"zero address":        change(func(r *policy.Request) { r.Context["client_ip"] = netip.Addr{} }),
		"mapped range":        change(func(r *policy.Request) { r.Context["client_ip"] = netip.MustParsePrefix("::ffff:10.0.0.0/104") }),
	} {
		t.Run(name, func(t *testing.T) {
			d := set.Decide(r)
			if d.Allow || !slices.Equal(d.Rules, []string{policy.RuleInput}) || d.Reason != policy.ReasonInput {
				t.Errorf("got %+v", d)
			}
			if len(d.Errors) != 1 || d.Errors[0].Message == "" {
				t.Errorf("got errors %v, want one that says why", d.Errors)
			}
		})
	}
}

func TestPrincipalsThatDoNotFit(t *testing.T) {
	s, err := policy.NewSchema(policy.Declaration{Principal: policy.Attributes{"clearance": policy.Long}})
	if err != nil {
		t.Fatal(err)
	}
	level := policy.Record{"clearance": 3}
	if _, err := s.NewPrincipal(policy.Identity{Type: policy.User, ID: "a", Attributes: level}); err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]policy.Identity{
		"unknown type":      {Type: "Robot", ID: "a", Attributes: level},
		"no id":             {Type: policy.User, Attributes: level},
		"id not UTF-8":      {Type: policy.User, ID: "\xff", Attributes: level},
		"missing attribute": {Type: policy.User, ID: "a"},
		"base attribute":    {Type: policy.User, ID: "a", Attributes: policy.Record{"clearance": 3, "tenant": "x"}},
		"wrong type":        {Type: policy.User, ID: "a", Attributes: policy.Record{"clearance": true}},
		"role not UTF-8":    {Type: policy.User, ID: "a", Attributes: level, Roles: []string{"\xff"}},
	} {
		if p, err := s.NewPrincipal(id); err == nil {
			t.Errorf("%s: got %v", name, p)
		}
	}
}

// Every type of attribute arrives in Cedar as what it is.
func TestAttributeTypes(t *testing.T) {
	s := newSchema(t)
	dev := ada(t, s)
	r := create(dev, web("acme"))
	r.Context["client_ip"] = netip.MustParseAddr("::ffff:10.1.2.3")
	r.Resource.Attributes["image"].(policy.Record)["built_at"] = noon.Add(-time.Hour)
	r.Resource.Attributes["image"].(policy.Record)["sbom"] = policy.Record{"format": "spdx", "packages": int64(12)}
	for _, cond := range []string{
		`context.mfa`,
		`context has client_ip && context.client_ip.isInRange(ip("10.0.0.0/8"))`,
		`context.now == datetime("2026-11-22T12:00:00Z")`,
		`resource.image has built_at && context.now.durationSince(resource.image.built_at) < duration("2h")`,
		`resource.image has sbom && resource.image.sbom.packages == 12 && resource.image.sbom == {format: "spdx", packages: 12}`,
		`resource.image has sbom.format`,
		`!(resource has owner)`,
		`resource.labels == ["canary", "blue"]`,
		`resource.cpu + 1 == 3`,
		`principal.id == "ada" && principal.kind == "human" && principal.groups.isEmpty()`,
		`[context].contains(context)`,
		`(if context.mfa then resource else resource).cpu == 2`,
		`resource.image.signers.containsAny(["release"]) && ["acme/web"].contains(resource.image.repository)`,
		`resource == Workload::"web-1" && principal == User::"ada" && resource.tenant like "ac*"`,
	} {
		set := compile(t, s, "p", `@id("it") permit (principal, action == Action::"workload.create", resource) when { `+cond+` };`)
		if d := set.Decide(r); !d.Allow {
			t.Errorf("%s: got %+v", cond, d)
		}
	}
}

func TestConcurrentDecisions(t *testing.T) {
	s := newSchema(t)
	b := policy.Bound{Platform: compile(t, s, "platform", platformRules), Tenant: policy.Empty}
	r, denied := create(ada(t, s), web("acme")), create(person(t, s, "eve", "rival", nil), web("acme"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if d := b.Decide(r); !d.Allow {
					t.Errorf("got %+v", d)
					return
				}
				if d := b.Decide(denied); d.Allow || d.Rules[0] != "tenant.isolation" {
					t.Errorf("got %+v", d)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestExplain(t *testing.T) {
	s := newSchema(t)
	platform := compile(t, s, "platform", platformRules)
	quota := compile(t, s, "quota", `@id("cpu") @reason("too much cpu") @class("jurisdiction_denied")
		forbid (principal, action == Action::"workload.create", resource) when { resource.cpu * 9000000000000000000 > 10 };`)
	red := compile(t, s, "only", `@id("red") permit (principal, action, resource is Workload) when { resource.labels.contains("red") };`)
	dev, nobody := ada(t, s), person(t, s, "nobody", "acme", nil)
	admin := person(t, s, "admin", "system", []string{"support"}, "tenants.write")
	unsigned := web("acme")
	unsigned.Attributes["image"].(policy.Record)["signed"] = false
	tenant := &policy.Request{Principal: admin, Action: "tenant.create", Context: webContext(),
		Resource: policy.Resource{Type: "Tenant", ID: "new", Attributes: policy.Record{"tenant": "new"}}}

	for _, c := range []struct {
		name                       string
		bound                      policy.Bound
		req                        *policy.Request
		rule, class, message, want string // want: in Fix
	}{
		{"annotations speak", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(dev, unsigned),
			"image.unsigned", "policy_denied", "no signature by a key this tenant trusts", "/v1/trust-keys"},
		{"class of the rule", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(dev, web("rival")),
			"tenant.isolation", "delegation_invalid", "another tenant", ""},
		{"default deny names the permission", policy.Bound{Platform: platform, Tenant: policy.Empty}, create(nobody, web("acme")),
			"default.deny", "policy_denied", "needs permission workloads.write", "grant one with workloads.write"},
		{"which may be held already", policy.Bound{Platform: platform, Tenant: policy.Empty}, tenant,
			"default.deny", "policy_denied", "tenants.write is held, but no rule's conditions are met", ""},
		{"tenant default deny", policy.Bound{Platform: platform, Tenant: red}, create(dev, web("acme")),
			"only/default.deny", "policy_denied", "policy only permits only what it names", "policy only can permit it"},
		{"uncertain", policy.Bound{Platform: platform, Tenant: quota}, create(dev, web("acme")),
			"quota/cpu", "jurisdiction_denied", "could not be evaluated", "correct the rule"},
		{"missing", policy.Bound{Platform: platform}, create(dev, web("acme")),
			"policy.missing", "dependency_unavailable_fail_closed", "cannot be found", "restore"},
		{"input", policy.Bound{Platform: platform, Tenant: policy.Empty}, &policy.Request{Principal: dev, Action: "workload.fly"},
			"policy.input", "policy_denied", "input is incomplete", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.bound.Decide(c.req)
			x := c.bound.Explain(c.req, d)
			e := x.Refusal()
			if e.Kind != kernel.Refused || e.Rule != c.rule || e.Class != c.class ||
				!strings.Contains(e.Msg, c.message) || !strings.Contains(e.Fix, c.want) || c.want == "" && e.Fix != "" {
				t.Errorf("got %+v", e)
			}
			if len(x.Rules) != len(d.Rules) {
				t.Errorf("got %d rules explained, want %d", len(x.Rules), len(d.Rules))
			}
		})
	}

	r := create(dev, web("acme"))
	b := policy.Bound{Platform: platform, Tenant: policy.Empty}
	x := b.Explain(r, b.Decide(r))
	if x.Class != "" || len(x.Rules) != 1 || x.Rules[0].Effect != "permit" || x.Rules[0].Set != "platform" || x.Rules[0].Line == 0 {
		t.Errorf("explaining an allowed request: got %+v", x)
	}
}
