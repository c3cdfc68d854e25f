package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"pgregory.net/rapid"

	"provost.dev/provost/internal/kernel/policy"
)

// Small vocabularies, so that random rules and random requests often meet.
var (
	someTenants  = []string{"acme", "rival", "system"}
	someStrings  = []string{"a", "b", "c"}
	someUsers    = []string{"ada", "bob", "eve"}
	someRoles    = []string{"admin", "developer"}
	someVerbs    = []string{"workload.create", "workload.delete", "workload.get", "object.put", "tenant.create"}
	verbResource = map[string]string{"workload.create": "Workload", "workload.delete": "Workload", "workload.get": "Workload",
		"object.put": "Object", "tenant.create": "Tenant"}
)

func pick(t *rapid.T, label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, label)
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// someOf draws a non-empty subset.
func someOf(t *rapid.T, label string, from []string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, len(from), rapid.ID).Draw(t, label)
}

// drawRule writes a random rule that fits the schema, whatever the resource type it is for.
func drawRule(t *rapid.T, id int) string {
	effect := pick(t, "effect", "permit", "permit", "forbid")
	principal := pick(t, "principal", "", "", "", ` == User::"`+pick(t, "user", someUsers...)+`"`,
		` in Role::"`+pick(t, "role", someRoles...)+`"`, ` is Service`, ` is User in Role::"`+pick(t, "role", someRoles...)+`"`)
	typ := pick(t, "type", "", "Workload", "Workload", "Object")
	action, resource := "", ""
	if typ == "" {
		action = pick(t, "action", "", ` in Action::"write"`, ` in [Action::"object.put", Action::"workload.get", Action::"read"]`)
	} else {
		verbs := []string{}
		for _, v := range someVerbs {
			if verbResource[v] == typ {
				verbs = append(verbs, `Action::"`+v+`"`)
			}
		}
		action = pick(t, "action", "", ` == `+verbs[0], ` in [`+strings.Join(verbs, ", ")+`]`, ` in Action::"write"`)
		resource = pick(t, "resource", " is "+typ, " == "+typ+`::"`+pick(t, "res", someStrings...)+`"`, " in "+typ+`::"a"`)
	}
	var when strings.Builder
	for range rapid.IntRange(0, 3).Draw(t, "conditions") {
		fmt.Fprintf(&when, "\n%s { %s }", pick(t, "clause", "when", "when", "unless"), drawCondition(t, typ, 3))
	}
	return fmt.Sprintf("@id(\"r%d\") %s (principal%s, action%s, resource%s)%s;\n", id, effect, principal, action, resource, when.String())
}

// drawFamily writes a dozen rules of one form, as a generated policy would have: the index
// hashes such a family. Some of their keys no request has.
func drawFamily(t *rapid.T, id int) string {
	effect := pick(t, "effect", "permit", "permit", "forbid")
	form := pick(t, "family",
		`(principal, action, resource) when { resource.tenant == %[1]q }`,
		`(principal, action, resource) when { principal.tenant == %[1]q && context.mfa }`,
		`(principal, action, resource) when { context.mfa && principal.permissions.contains(%[1]q) }`,
		`(principal, action, resource) when { [%[1]q, %[2]q].contains(principal.name) }`,
		`(principal, action, resource) when { principal.name == %[1]q || principal.name == %[2]q }`,
		`(principal == User::%[1]q, action, resource)`,
		`(principal in Role::%[1]q, action, resource)`,
		`(principal, action, resource) when { principal in Role::%[1]q || principal in Role::%[2]q }`,
		`(principal, action, resource) when { principal == User::%[1]q }`,
		`(principal, action == Action::"workload.get", resource == Workload::%[1]q)`,
		`(principal, action, resource is Workload) when { resource == Workload::%[1]q }`,
		`(principal, action in Action::"write", resource is Workload) when { resource.labels.containsAny([%[1]q, %[2]q]) }`,
		`(principal, action, resource is Workload) when { resource has owner && resource.owner == %[1]q }`,
		`(principal, action, resource is Workload) when { resource.image has sbom && resource.image.sbom.format == %[1]q }`,
		`(principal, action, resource is Workload) when { resource.cpu * 4000000000000000000 > 0 && resource.environment == %[1]q }`,
		`(principal, action == Action::"object.put", resource) when { context.target.jurisdiction == %[1]q } unless { context.mfa }`,
	)
	var out strings.Builder
	words := slices.Concat(someStrings, someTenants, someUsers, someRoles, []string{"x", "y"})
	for i, w := range words {
		f := strings.ReplaceAll(form, "%[2]q", fmt.Sprintf("%q", words[(i+5)%len(words)]))
		fmt.Fprintf(&out, "@id(\"f%d.%d\") %s %s;\n", id, i, effect, strings.ReplaceAll(f, "%[1]q", fmt.Sprintf("%q", w)))
	}
	return out.String()
}

// drawCondition writes a boolean expression about resources of type typ ("" is any).
func drawCondition(t *rapid.T, typ string, depth int) string {
	if depth > 0 {
		switch pick(t, "form", "leaf", "leaf", "and", "and", "or", "not", "if") {
		case "and":
			return drawCondition(t, typ, depth-1) + " && " + drawCondition(t, typ, depth-1)
		case "or":
			return "(" + drawCondition(t, typ, depth-1) + " || " + drawCondition(t, typ, depth-1) + ")"
		case "not":
			return "!(" + drawCondition(t, typ, depth-1) + ")"
		case "if":
			return "(if " + drawCondition(t, typ, 0) + " then " + drawCondition(t, typ, depth-1) + " else " + drawCondition(t, typ, depth-1) + ")"
		}
	}
	str := pick(t, "string", someStrings...)
	set := quoted(someOf(t, "set", someStrings))
	leaves := []string{
		`true`,
		`context.mfa`,
		`principal.tenant == resource.tenant`,
		`resource.tenant == "` + pick(t, "tenant", someTenants...) + `"`,
		`"` + pick(t, "tenant", someTenants...) + `" == principal.tenant`,
		`principal.permissions.contains("` + str + `")`,
		`principal.permissions.containsAny(` + set + `)`,
		`principal.permissions.containsAll(` + set + `)`,
		set + `.contains(principal.name)`,
		`(principal.name == "a" || principal.name == "` + str + `")`,
		`principal in Role::"` + pick(t, "role", someRoles...) + `"`,
		`principal == User::"` + pick(t, "user", someUsers...) + `"`,
		`principal is Service`,
		`action in Action::"read"`,
		`action == Action::"workload.get"`,
		`resource is Workload && resource.locked`,
		`resource is Workload && resource.environment == "` + str + `"`,
		`resource is Workload && resource has owner && resource.owner == "` + str + `"`,
		`context has client_ip && context.client_ip.isLoopback()`,
	}
	switch typ {
	case "Workload":
		leaves = append(leaves,
			`resource.environment == "`+str+`"`,
			`resource.environment like "*`+str+`*"`,
			set+`.contains(resource.environment)`,
			`resource.labels.contains("`+str+`")`,
			`resource.labels.containsAny(`+set+`)`,
			`resource has owner && resource.owner == "`+str+`"`,
			`resource == Workload::"`+str+`"`,
			`resource.cpu < 3`,
			`resource.cpu * 4000000000000000000 < 9000000000000000000`, // overflows from 3 on
			`resource.image.repository == "`+str+`"`,
			`resource.image has sbom && resource.image.sbom.format == "`+str+`"`,
			`resource.image has sbom.format`,
			`[resource.image].contains(resource.image) && context.mfa`,
			`[context].contains(context)`,
			`(if context.mfa then resource else resource).environment == "`+str+`"`,
		)
	case "Object":
		leaves = append(leaves, `resource.jurisdiction == "`+str+`"`, `resource.size > 2`, `resource == Object::"`+str+`"`)
	}
	return pick(t, "leaf", leaves...)
}

func drawStrings(t *rapid.T, label string) []string {
	return rapid.SliceOfN(rapid.SampledFrom(someStrings), 0, 3).Draw(t, label)
}

// drawRequest makes a random request that fits the schema.
func drawRequest(t *rapid.T, s *policy.Schema) *policy.Request {
	p, err := s.NewPrincipal(policy.Identity{
		Type: pick(t, "ptype", policy.User, policy.User, policy.Service), ID: pick(t, "pid", someUsers...),
		Tenant: pick(t, "ptenant", someTenants...), Name: pick(t, "pname", someStrings...), Kind: "human",
		Roles: rapid.SliceOfN(rapid.SampledFrom(someRoles), 0, 2).Draw(t, "roles"), Permissions: drawStrings(t, "permissions"),
	})
	if err != nil {
		t.Fatal(err)
	}
	verb := pick(t, "verb", someVerbs...)
	r := &policy.Request{Principal: p, Action: verb, Context: policy.Record{"mfa": rapid.Bool().Draw(t, "mfa"), "now": noon}}
	r.Resource = policy.Resource{Type: verbResource[verb], ID: pick(t, "rid", someStrings...),
		Attributes: policy.Record{"tenant": pick(t, "rtenant", someTenants...)}}
	attrs := r.Resource.Attributes
	switch r.Resource.Type {
	case "Object":
		attrs["jurisdiction"] = pick(t, "jurisdiction", someStrings...)
		attrs["size"] = rapid.IntRange(0, 4).Draw(t, "size")
	case "Workload":
		image := policy.Record{"repository": pick(t, "repository", someStrings...), "digest": "sha256:1",
			"signed": rapid.Bool().Draw(t, "signed"), "signers": drawStrings(t, "signers")}
		if rapid.Bool().Draw(t, "sbom") {
			image["sbom"] = policy.Record{"format": pick(t, "format", someStrings...), "packages": 3}
		}
		attrs["image"] = image
		attrs["envelope"], attrs["environment"] = "container", pick(t, "environment", someStrings...)
		attrs["cpu"], attrs["locked"] = rapid.IntRange(0, 5).Draw(t, "cpu"), rapid.Bool().Draw(t, "locked")
		attrs["labels"] = drawStrings(t, "labels")
		if rapid.Bool().Draw(t, "owned") {
			attrs["owner"] = pick(t, "owner", someStrings...)
		}
	}
	if verb == "object.put" {
		r.Context["target"] = policy.Record{"jurisdiction": pick(t, "target", someStrings...)}
	}
	return r
}

// plain decides r as cedar-go alone does: every rule of the text as written, over all attributes.
func plain(tb rapid.TB, source string, r *policy.Request) (allow bool, reasons, failed []string) {
	list, err := cedar.NewPolicyListFromBytes("", []byte(source))
	if err != nil {
		tb.Fatal(err)
	}
	set := cedar.NewPolicySet()
	for _, p := range list {
		set.Add(cedar.PolicyID(p.Annotations()["id"]), p)
	}
	entities, req := plainRequest(r)
	d, diag := cedar.Authorize(set, entities, req)
	for _, r := range diag.Reasons {
		reasons = append(reasons, string(r.PolicyID))
	}
	for _, e := range diag.Errors {
		failed = append(failed, string(e.PolicyID))
	}
	slices.Sort(reasons)
	slices.Sort(failed)
	return bool(d), reasons, failed
}

func plainRequest(r *policy.Request) (cedar.EntityMap, cedar.Request) {
	principal := cedar.NewEntityUID(cedar.EntityType(r.Principal.Type()), cedar.String(r.Principal.ID()))
	resource := cedar.NewEntityUID(cedar.EntityType(r.Resource.Type), cedar.String(r.Resource.ID))
	action := cedar.NewEntityUID("Action", cedar.String(r.Action))
	var parents []cedar.EntityUID
	for _, role := range r.Principal.Attributes()["roles"].([]string) {
		parents = append(parents, cedar.NewEntityUID("Role", cedar.String(role)))
	}
	group := cedar.NewEntityUID("Action", "write")
	if r.Action == "workload.get" {
		group.ID = "read"
	}
	return cedar.EntityMap{
			principal: {UID: principal, Parents: cedar.NewEntityUIDSet(parents...), Attributes: plainRecord(r.Principal.Attributes())},
			resource:  {UID: resource, Attributes: plainRecord(r.Resource.Attributes)},
			action:    {UID: action, Parents: cedar.NewEntityUIDSet(group)},
		},
		cedar.Request{Principal: principal, Action: action, Resource: resource, Context: plainRecord(r.Context)}
}

func plainRecord(rec policy.Record) cedar.Record {
	m := cedar.RecordMap{}
	for name, v := range rec {
		m[cedar.String(name)] = plainValue(v)
	}
	return cedar.NewRecord(m)
}

// TestSameAsPlainCedar is the proof of the index, of the dropped scopes and of the attributes
// left out: whatever the rules and the request, the determining rules are cedar-go's own.
func TestSameAsPlainCedar(t *testing.T) {
	s := newSchema(t)
	decided := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		var src strings.Builder
		for i := range rapid.IntRange(0, 12).Draw(t, "rules") {
			src.WriteString(drawRule(t, i))
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "families") {
			src.WriteString(drawFamily(t, i))
		}
		set, err := s.Compile("p", "1", src.String())
		if err != nil {
			t.Fatalf("%v\n%s", sourceProblems(err), src.String())
		}
		for range 5 {
			r := drawRequest(t, s)
			allow, reasons, failed := plain(t, src.String(), r)
			d := set.Decide(r)
			checkAgainstPlain(t, set, d, allow, reasons, failed)
			decided[fmt.Sprintf("allow=%v reason=%q", d.Allow, d.Reason)]++
		}
	})
	t.Log(decided)
	if len(decided) < 3 {
		t.Errorf("the generator is too narrow: it only made %v", decided)
	}
}

func checkAgainstPlain(t *rapid.T, set *policy.Set, d policy.Decision, allow bool, reasons, failed []string) {
	t.Helper()
	var got []string
	for _, e := range d.Errors {
		got = append(got, e.Rule)
	}
	if !slices.Equal(got, failed) {
		t.Fatalf("errors: got %v, cedar-go has %v", d.Errors, failed)
	}
	want := slices.Clone(reasons)
	if !allow || len(reasons) == 0 {
		want = append(want, forbidsOf(set, failed)...)
	} else if more := forbidsOf(set, failed); len(more) > 0 {
		allow, want = false, more // where Cedar skips a failing forbid, we deny
	}
	if len(want) == 0 {
		want = []string{policy.RuleDefaultDeny}
	}
	slices.Sort(want)
	if d.Allow != allow || !slices.Equal(d.Rules, want) {
		t.Fatalf("got allow=%v rules=%v, want %v %v", d.Allow, d.Rules, allow, want)
	}
}

func forbidsOf(set *policy.Set, ids []string) []string {
	var out []string
	for _, r := range set.Rules() {
		if r.Effect == "forbid" && slices.Contains(ids, r.ID) {
			out = append(out, r.ID)
		}
	}
	return out
}

// TestReplayIsExact: a recorded request is canonical and decides the same, byte for byte.
func TestReplayIsExact(t *testing.T) {
	s := newSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		var platform, tenant strings.Builder
		for i := range rapid.IntRange(1, 12).Draw(t, "rules") {
			platform.WriteString(drawRule(t, i))
			tenant.WriteString(drawRule(t, i))
		}
		b := policy.Bound{}
		for _, c := range []struct {
			dst **policy.Set
			src string
		}{{&b.Platform, platform.String()}, {&b.Tenant, tenant.String()}} {
			set, err := s.Compile("p", "1", c.src)
			if err != nil {
				t.Fatal(sourceProblems(err))
			}
			*c.dst = set
		}
		r := drawRequest(t, s)
		spoil(t, r)
		first := b.Decide(r)
		input := r.AppendJSON(nil)
		again, err := b.Replay(input)
		if err != nil {
			t.Fatalf("%v\n%s", err, input)
		}
		if got, want := again.AppendJSON(nil), first.AppendJSON(nil); !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s\n%s", got, want, input)
		}
		parsed, err := s.ParseRequest(input)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.AppendJSON(nil); !bytes.Equal(got, input) {
			t.Fatalf("not canonical:\n%s\n%s", got, input)
		}
		d, err := policy.ParseDecision(first.AppendJSON(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.AppendJSON(nil); !bytes.Equal(got, first.AppendJSON(nil)) {
			t.Fatalf("decision not canonical: %s", got)
		}
	})
}

// spoil sometimes gives r what has no canonical form.
func spoil(t *rapid.T, r *policy.Request) {
	bad := rapid.SampledFrom([]any{nil, 1.5, "\xff", []string{"\xff"}, map[string]any{}, policy.Record{"\xff": 1},
		policy.Record{"__extn": policy.Record{"arg": "10.0.0.1", "fn": "ip"}}, noon.AddDate(20000, 0, 0)}).Draw(t, "bad")
	switch pick(t, "spoil", "no", "no", "no", "no", "tenant", "ip", "attrs", "context", "id", "action", "principal") {
	case "tenant":
		r.Resource.Attributes["tenant"] = bad
	case "ip":
		r.Context["client_ip"] = bad
	case "attrs":
		r.Resource.Attributes["\xff"] = bad
	case "context":
		r.Context = nil
	case "id":
		r.Resource.ID = "\xff"
	case "action":
		r.Action = "\xff"
	case "principal":
		r.Principal = nil
	}
}
