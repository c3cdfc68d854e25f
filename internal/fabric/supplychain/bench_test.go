package supplychain

import (
	"fmt"
	"testing"
)

// BenchmarkVerify verifies an image that carries all that admission asks for,
// as cosign 3 attaches it, with an SBOM of the given number of components.
func BenchmarkVerify(b *testing.B) {
	for _, components := range []int{10, 5000} {
		b.Run(fmt.Sprintf("components=%d", components), func(b *testing.B) {
			t := &testing.T{}
			r := newRepository(t)
			image := r.image("app")
			list := make([]object, components)
			for i := range list {
				list[i] = object{"type": "library", "name": fmt.Sprint("component-", i), "version": "1.2.3", "purl": fmt.Sprintf("pkg:npm/component-%d@1.2.3", i)}
			}
			r.attachBundle(image, releaseKey, statementOf(image, cosignSignPredicate, object{}))
			r.attachBundle(image, releaseKey, statementOf(image, slsaV1, provenanceV1))
			r.attachBundle(image, releaseKey, statementOf(image, cyclonedxPredicate, edited(cyclonedxDoc, "components", list)))
			keys := []*TrustKey{releaseKey.trust(t, "release"), strangerKey.trust(t, "other")}
			b.ReportAllocs()
			for b.Loop() {
				report, err := Verify(b.Context(), r, Image{Digest: image}, keys)
				if err != nil || summary(report) != "verified verified verified" {
					b.Fatal(report, err)
				}
			}
		})
	}
}
