package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"

	"provost.dev/provost/internal/kernel/policy"
)

// benchRules is five rules of the usual kinds: isolation, two grants, an admission rule, a lock.
const benchRules = `
@id("isolation") forbid (principal, action, resource) unless { principal.tenant == resource.tenant };
@id("write") permit (principal, action in [Action::"workload.create", Action::"workload.delete"], resource)
when { principal.permissions.contains("workloads.write") };
@id("read") permit (principal, action in Action::"read", resource) when { principal.permissions.contains("workloads.read") };
@id("unsigned") forbid (principal, action == Action::"workload.create", resource) unless { resource.image.signed };
@id("locked") forbid (principal, action in [Action::"workload.create", Action::"workload.delete"], resource) when { resource.locked };
`

// benchMixes are ways in which a set grows. Each line is one more rule, number %[1]d.
var benchMixes = map[string]string{
	"actions":     `(principal == User::"u%[1]d", action == Action::"object.put", resource == Object::"o%[1]d")`,
	"tenants":     `(principal, action, resource is Workload) when { resource.tenant == "t%[1]d" && context.mfa }`,
	"resources":   `(principal, action == Action::"workload.create", resource == Workload::"w%[1]d")`,
	"repository":  `(principal, action in Action::"write", resource is Workload) when { context.mfa && resource.image.repository == "acme/r%[1]d" }`,
	"permissions": `(principal, action == Action::"workload.create", resource) when { principal.permissions.contains("p%[1]d") }`,
	"linear":      `(principal, action == Action::"workload.create", resource) when { resource.cpu > %[1]d + 1000 }`,
}

func benchSource(mix string, n int) string {
	var src strings.Builder
	src.WriteString(benchRules)
	for i := 5; i < n; i++ {
		fmt.Fprintf(&src, "@id(\"x%d\") permit %s;\n", i, fmt.Sprintf(benchMixes[mix], i))
	}
	return src.String()
}

// eachSize runs f for the sizes and mixes that are measured.
func eachSize(b *testing.B, f func(b *testing.B, source string)) {
	b.Run("5", func(b *testing.B) { f(b, benchSource("actions", 5)) })
	for _, n := range []int{100, 1000} {
		for _, mix := range []string{"actions", "tenants", "resources", "repository", "permissions", "linear"} {
			b.Run(fmt.Sprintf("%d/%s", n, mix), func(b *testing.B) { f(b, benchSource(mix, n)) })
		}
	}
}

// BenchmarkDecide is one decision from Go values, conversion included: ns/op is the mean,
// p50-ns and p99-ns what single calls took by the clock.
func BenchmarkDecide(b *testing.B) {
	s := newSchema(b)
	r := create(ada(b, s), web("acme"))
	eachSize(b, func(b *testing.B, source string) {
		bound := policy.Bound{Platform: compile(b, s, "p", source), Tenant: policy.Empty}
		if d := bound.Decide(r); !d.Allow {
			b.Fatalf("got %+v", d)
		}
		percentiles(b, func() { bound.Decide(r) })
	})
}

// BenchmarkPlainCedar is the same decision by cedar-go over the whole text: with the entities
// made before, and made for each request, as a server must.
func BenchmarkPlainCedar(b *testing.B) {
	s := newSchema(b)
	r := create(ada(b, s), web("acme"))
	eachSize(b, func(b *testing.B, source string) {
		list, err := cedar.NewPolicyListFromBytes("", []byte(source))
		if err != nil {
			b.Fatal(err)
		}
		set := cedar.NewPolicySet()
		for _, p := range list {
			set.Add(cedar.PolicyID(p.Annotations()["id"]), p)
		}
		entities, req := plainRequest(r)
		if d, diag := cedar.Authorize(set, entities, req); !d {
			b.Fatalf("got %+v", diag)
		}
		b.Run("prebuilt", func(b *testing.B) {
			percentiles(b, func() { cedar.Authorize(set, entities, req) })
		})
		b.Run("build", func(b *testing.B) {
			percentiles(b, func() {
				entities, req := plainRequest(r)
				cedar.Authorize(set, entities, req)
			})
		})
	})
}

// BenchmarkBound decides under a platform set and a tenant's.
func BenchmarkBound(b *testing.B) {
	s := newSchema(b)
	r := create(ada(b, s), web("acme"))
	bound := policy.Bound{Platform: compile(b, s, "p", benchRules), Tenant: compile(b, s, "t", benchSource("tenants", 100))}
	percentiles(b, func() { bound.Decide(r) })
}

func BenchmarkRequestJSON(b *testing.B) {
	s := newSchema(b)
	r := create(ada(b, s), web("acme"))
	buf := r.AppendJSON(nil)
	b.SetBytes(int64(len(buf)))
	percentiles(b, func() { buf = r.AppendJSON(buf[:0]) })
}

func BenchmarkReplay(b *testing.B) {
	s := newSchema(b)
	bound := policy.Bound{Platform: compile(b, s, "p", benchRules), Tenant: policy.Empty}
	input := create(ada(b, s), web("acme")).AppendJSON(nil)
	percentiles(b, func() {
		if _, err := bound.Replay(input); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	s := newSchema(b)
	for _, mix := range []string{"actions", "tenants"} {
		source := benchSource(mix, 1000)
		b.Run("1000/"+mix, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				compile(b, s, "p", source)
			}
		})
	}
}

// percentiles runs f b.N times and reports what half and 99 % of the calls stayed under.
// Reading the clock adds some 50 ns to each.
func percentiles(b *testing.B, f func()) {
	b.Helper()
	b.ReportAllocs()
	took := make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		start := time.Now()
		f()
		if len(took) < cap(took) {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
