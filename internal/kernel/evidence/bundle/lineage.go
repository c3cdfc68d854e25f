package bundle

import (
	"maps"
	"slices"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

// lineage is step 15: proof artifacts of the no-control profile, which must
// match, and data lineage, whose contract leaves open when a link is required.
// What looks incomplete there is a warning: sources may lie outside the scope.
type lineage struct {
	v        *verifier
	declared map[string]bool // NCP artifact types seen
	products map[string]*product
	links    []link
	full     bool // limits passed; propagation is not judged
}

// product is a data product as the events show it.
type product struct {
	published, erased bool
	bindings          [3]string // in the order of bindingFields
}

// link says that child was derived from parent.
type link struct{ parent, child string }

var bindingFields = [3]string{"purpose_id", "consent_token_ref", "terms_snapshot_id"}

// maxProducts bounds the products and links that are followed.
const maxProducts = 100_000

// add looks at one event.
func (l *lineage) add(e *event) {
	if kind := ncpTypes[string(e.eventType)]; kind != "" {
		l.proofArtifact(e, kind)
		return
	}
	const data = "data."
	if len(e.eventType) > len(data) && string(e.eventType[:len(data)]) == data && string(e.outcome) == "accepted" {
		l.data(e)
	}
}

// proofArtifact checks that a declaration names the artifact it should, and
// that the artifact is there. Other profiles do not ask.
func (l *lineage) proofArtifact(e *event, kind string) {
	if !l.v.pass.rules.profile.declares(e) {
		return
	}
	ref, hash, typ := e.textField("artifact_ref"), e.textField("artifact_hash"), e.textField("artifact_type")
	if l.declared == nil {
		l.declared = map[string]bool{}
	}
	l.declared[kind] = true
	if typ != nil && string(typ) != kind {
		l.v.failEvent(stepLineage, fault, "artifact_type "+quoted(typ)+" is not "+kind)
	}
	d, ok := parseRef(ref)
	if !ok {
		l.v.failEvent(stepLineage, fault, "artifact_ref "+quoted(ref)+" names no digest")
		return
	}
	if h, ok := parseHash(hash); !ok || h != d {
		l.v.failEvent(stepLineage, fault, "artifact_hash "+quoted(hash)+" is not that of artifact_ref")
	}
	l.v.resolve(stepLineage, fault, "artifact_ref", d)
}

// data follows one accepted data event.
func (l *lineage) data(e *event) {
	id := e.textField("data_product_id")
	if id == nil {
		id = e.textField("derived_ref")
	}
	if id == nil {
		return
	}
	p := l.product(string(id))
	if p == nil {
		return
	}
	switch string(e.eventType) {
	case "data.product.publish", "data.product.update", "data.derived.publish":
		p.published = true
	case "data.erasure", "data.revocation.notice":
		p.erased = true
	}
	for i, f := range bindingFields {
		if t := e.textField(f); t != nil {
			p.bindings[i] = string(t)
		}
	}
	for _, parent := range parents(e) {
		if len(l.links) == maxProducts {
			l.full = true
			return
		}
		l.links = append(l.links, link{parent, string(id)})
	}
	if d, ok := parseRef(e.textField("lineage_record_ref")); ok {
		l.v.resolve(stepLineage, warning, "lineage_record_ref", d)
	}
}

// parents lists what an event says its product was derived from.
func parents(e *event) (ps []string) {
	if t := e.textField("source_ref"); t != nil {
		ps = append(ps, string(t))
	}
	for _, f := range [...]string{"lineage_sources", "parent_refs"} {
		raw := e.field(f)
		if len(raw) == 0 || raw[0] != '[' {
			continue
		}
		err := canon.Elements(raw, func(v []byte) error {
			if t := stringOf(v); t != nil {
				ps = append(ps, string(t))
			}
			return nil
		})
		if err != nil {
			return nil // cannot be: the line was checked before
		}
	}
	return ps
}

func (l *lineage) product(id string) *product {
	if p := l.products[id]; p != nil {
		return p
	}
	if len(l.products) == maxProducts {
		l.full = true
		return nil
	}
	if l.products == nil {
		l.products = map[string]*product{}
	}
	p := &product{}
	l.products[id] = p
	return p
}

// end judges what the events left open.
func (l *lineage) end() {
	if l.v.pass.rules.profile == NCP {
		for _, kind := range slices.Sorted(maps.Values(ncpTypes)) {
			if !l.declared[kind] {
				l.v.warn(stepLineage, eventsName, "no event declares the artifact %s of the no-control profile", kind)
			}
		}
	}
	if l.full {
		l.v.warn(stepLineage, eventsName, "more than %d data products or links; propagation was not judged", maxProducts)
		return
	}
	for _, k := range l.links {
		l.judge(k)
	}
}

func (l *lineage) judge(k link) {
	parent, child := l.products[k.parent], l.products[k.child]
	if parent == nil || !parent.published {
		l.v.warn(stepLineage, eventsName, "%s is derived from %s, which the events do not publish", quoted(k.child), quoted(k.parent))
		return
	}
	for i, f := range bindingFields {
		if parent.bindings[i] != "" && child.bindings[i] == "" {
			l.v.warn(stepLineage, eventsName, "%s has no %s, its source %s has", quoted(k.child), f, quoted(k.parent))
		}
	}
	if parent.erased && !child.erased {
		l.v.warn(stepLineage, eventsName, "%s was erased or revoked, but not %s, which is derived from it", quoted(k.parent), quoted(k.child))
	}
}
