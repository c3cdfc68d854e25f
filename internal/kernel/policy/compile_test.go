package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel/policy"
)

// Every rejected text says where and what would be right.
func TestProblems(t *testing.T) {
	s := newSchema(t)
	for _, c := range []struct{ name, source, want string }{
		{"no id", "\npermit (principal, action, resource);", `2:1: this rule has no id; write @id("a-short-name") before it`},
		{"empty id", `@id permit (principal, action, resource);`, `1:1: this rule has no id`},
		{"bad id", `@id("Tenants may not") permit (principal, action, resource);`, `1:1: rule Tenants may not: id "Tenants may not": want up to`},
		{"slash in id", `@id("a/b") permit (principal, action, resource);`, `1:1: rule a/b: id "a/b": want`},
		{"reserved id", `@id("default.deny") permit (principal, action, resource);`, `id "default.deny" is reserved`},
		{"reserved prefix", `@id("policy.mine") permit (principal, action, resource);`, `is reserved`},
		{"id twice", "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
			`2:1: rule a: id "a" is taken by the rule in line 1`},
		{"class", `@id("a") @class("nope") permit (principal, action, resource);`, `@class("nope"): want one of policy_denied, authority_missing`},
		{"long reason", `@id("a") @reason("` + strings.Repeat("x", 1001) + `") permit (principal, action, resource);`, `@reason and @fix may have 1000 bytes`},

		{"action", "@id(\"a\")\npermit (principal,\n  action == Action::\"workload.creat\", resource);",
			`3:21: rule a: unknown action "workload.creat"; did you mean workload.create?`},
		{"entity type", `@id("a") permit (principal, action, resource is Worklod);`, `1:49: rule a: unknown entity type Worklod; did you mean Workload?`},
		{"principal type", `@id("a") permit (principal is Person, action, resource);`, `unknown entity type Person`},
		{"attribute", "@id(\"a\")\nforbid (principal, action, resource is Workload)\nwhen { resource.lokked };",
			`3:17: rule a: a Workload has no attribute lokked; it has cpu, envelope, environment, image, labels, locked, owner, tenant; did you mean locked?`},
		{"nested attribute", `@id("a") forbid (principal, action, resource is Workload) when { resource.image.sined };`, `1:81: rule a: a Workload has no attribute image.sined`},
		{"principal attribute", `@id("a") forbid (principal, action, resource) when { principal.role == "x" };`, `attribute role is not one that Service, System, User have`},
		{"attribute of some", `@id("a") forbid (principal, action, resource) when { resource.locked };`, `1:63: rule a: attribute locked is not one that Object, Tenant have; limit the rule`},
		{"context", `@id("a") forbid (principal, action == Action::"object.put", resource) when { context.targt == context.targt };`,
			`the context of object.put has no attribute targt; it has client_ip, mfa, now, target; did you mean target?`},
		{"optional", `@id("a") forbid (principal, action, resource is Workload) when { resource.owner == "x" };`, `1:75: rule a: attribute owner may be absent; test ` + "`has owner`"},
		{"type", `@id("a") forbid (principal, action, resource is Workload) when { resource.cpu == "two" };`, `not compatible`},
		{"not a condition", `@id("a") forbid (principal, action, resource is Workload) when { resource.cpu };`, `want Bool, got Long`},
		{"set for entity", `@id("a") forbid (principal, action, resource) when { principal in "x" };`, `an entity`},
		{"never matches", `@id("a") forbid (principal, action == Action::"workload.get", resource is Tenant);`,
			`this rule can never match: workload.get applies to a Workload, not to a Tenant`},
		{"group for action", `@id("a") forbid (principal, action == Action::"write", resource);`, `this rule can never match`},
		{"foreign entity", `@id("a") forbid (principal, action, resource) when { User::"root".tenant == "x" };`, `1:60: rule a: attributes of User::"root" cannot be read`},

		{"effect", `@id("a") allow (principal, action, resource);`, `1:10: got "allow", want "permit" or "forbid"`},
		{"scope", "@id(\"a\")\npermit (principle, action, resource);", `2:9: got "principle", want "principal"`},
		{"end", `@id("a") permit (principal, action, resource)`, `want ";"`},
		{"value", "@id(\"a\")\npermit (principal, action, resource) when { resource.tenant == };", `2:64: got "}", want a value`},
		{"string", "@id(\"a\") permit (principal, action, resource) when { \"x };", `1:54: this string is not closed on its line`},
		{"comment", "@id(\"a\") permit (principal, action, resource); /* x", `1:48: this comment is not closed`},
		{"not UTF-8", "@id(\"a\")\n @x(\"\xff\") permit (principal, action, resource);", `2:6: this is not UTF-8 text`},
		{"NUL", "@id(\"a\x00\") permit (principal, action, resource);", `1:7: this is not UTF-8 text`},
		{"function", `@id("a") permit (principal, action, resource) when { ipp("x") };`, "`ipp` is not a function"},

		{"deep", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("(", 40) + "true" + strings.Repeat(")", 40) + ` };`, `nested more than 32 deep`},
		{"deep ifs", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("if true then true else ", 40) + `true };`, `nested more than 32 deep`},
		{"chain", `@id("a") permit (principal, action, resource) when { true` + strings.Repeat(" && true", 600) + ` };`, `more than 512 operators`},
		{"nots", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("!", 600) + `true };`, `more than 512 operators`},
		{"indexes", `@id("a") permit (principal, action, resource) when { context` + strings.Repeat(`["a"]`, 600) + ` };`, `more than 512 operators`},
		{"path", `@id("a") permit (principal, action, resource) when { context has a` + strings.Repeat(".a", 20) + ` };`, `more than 10 attributes in a row`},
		{"size", "//" + strings.Repeat("x", policy.MaxSource), `at most 262144 are allowed`},
		{"rules", strings.Repeat(";", policy.MaxRules+1), `10001 rules, at most 10000`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.Compile("p", "1", c.source)
			if err == nil {
				t.Fatal("compiled")
			}
			got := problemsOf(t, err)
			if !strings.Contains(got[0].String(), c.want) {
				t.Errorf("got  %s\nwant %s", got[0], c.want)
			}
			if len(s.Check(c.source)) != len(got) {
				t.Errorf("Check found %v", s.Check(c.source))
			}
		})
	}
}

// A text with many faults is told all of them at once.
func TestAllProblemsAreReported(t *testing.T) {
	s := newSchema(t)
	got := s.Check(`
@id("a") permit (principal, action == Action::"nope", resource is Nothing);
permit (principal, action, resource);
@id("a") forbid (principal, action, resource is Workload) when { resource.x == resource.y };`)
	var lines []string
	for _, p := range got {
		lines = append(lines, fmt.Sprintf("%d:%d", p.Line, p.Column))
	}
	if want := "2:47 2:67 3:1 4:1 4:75 4:89"; strings.Join(lines, " ") != want {
		t.Errorf("got %s, want %s:\n%v", lines, want, got)
	}

	got = s.Check("@id(\"a\") permit (;\n\n  @id(\"b\") permit (principal, action, resource);\n @id(\"c\") forbid [principal];")
	if len(got) != 2 || got[0].Line != 1 || got[1].Line != 4 || got[1].Column != 18 {
		t.Errorf("syntax errors of two rules: got %v", got)
	}
	if n := len(s.Check(strings.Repeat("permit (principal, action, resource);\n", 500))); n != 100 {
		t.Errorf("got %d problems, want them capped at 100", n)
	}
}

// The cost of checking is bounded whatever the text.
func TestCheckIsBounded(t *testing.T) {
	s := newSchema(t)
	rule := `@id("r%d") permit (principal, action, resource) when { ` + strings.Repeat("context has client_ip && ", 60) + "true };\n"
	var src strings.Builder
	for i := range 100 {
		fmt.Fprintf(&src, rule, i)
	}
	got := s.Check(src.String())
	if len(got) != 1 || !strings.Contains(got[0].Message, "too large to check") {
		t.Errorf("got %v", got)
	}
}

func TestSetIdentity(t *testing.T) {
	s := newSchema(t)
	unix := "@id(\"a\")\npermit (principal, action, resource);\n"
	set := compile(t, s, "p", strings.ReplaceAll(strings.TrimSuffix(unix, "\n"), "\n", "\r\n"))
	if set.Source() != unix || set.Digest() != compile(t, s, "q", unix).Digest() {
		t.Errorf("line ends change the digest: source %q", set.Source())
	}
	const want = "sha256:"
	if !strings.HasPrefix(set.Digest(), want) || set.Name() != "p" || set.Version() != "1" {
		t.Errorf("got %s %s %s", set.Name(), set.Version(), set.Digest())
	}
	if compile(t, s, "p", "// x\n"+unix).Digest() == set.Digest() {
		t.Error("a comment does not change the digest")
	}
	rules := compile(t, s, "p", `@id("a") @reason("r") @fix("f") @class("policy_denied") forbid (principal, action, resource);`).Rules()
	if len(rules) != 1 || rules[0] != (policy.Rule{ID: "a", Set: "p", Version: "1", Effect: "forbid", Why: "r", Fix: "f", Class: "policy_denied", Line: 1}) {
		t.Errorf("got %+v", rules)
	}
	if _, err := s.Compile("a/b", "1", ""); err == nil {
		t.Error("compiled a set with a slash in its name")
	}
}
