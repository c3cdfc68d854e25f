package bundle

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// The bundles in testdata/foreign were written with Python's json and hashlib
// by the contract's rules, with the habits of its reference tools: indented
// documents, ids that are no UUIDs, snapshots named by the id inside their
// artifacts, placeholder signatures, no correlation ids, no file list, no proof.
func TestForeignBundles(t *testing.T) {
	for name, want := range map[string]Scope{"baseline": {40, 42, 3, 1}, "ncp": {7, 9, 3, 1}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata/foreign", name)
			r := verifyOK(t, dir, Options{})
			if !r.Foreign || r.Scope != want || r.Signature != nil || r.Checkpoint != nil {
				t.Errorf("report %+v", r)
			}
			for step, status := range map[int]Status{stepSignatures: Skipped, stepFileList: NotPresent, stepMerkle: NotPresent, stepCheckpoint: NotPresent} {
				if r.Steps[step].Status != status || r.Steps[step].Note == "" && step != stepCheckpoint {
					t.Errorf("step %d: %+v", step, r.Steps[step])
				}
			}
			if r.Steps[stepEnvelope].Warnings == 0 {
				t.Error("leniency is not reported")
			}
			if f := verifyBad(t, dir, Options{Strict: true}); f == nil {
				t.Error("strict accepts it")
			}
		})
	}
	// The no-control bundle declares three of four artifacts and refuses nothing.
	r := verifyOK(t, "testdata/foreign/ncp", Options{})
	if w := r.Steps[stepLineage].Warning; w == nil || !strings.Contains(w.Reason, "controlplane_ownership") {
		t.Errorf("step 15: %+v", w)
	}
	if w := r.Steps[stepRefusals].Warning; w == nil || !strings.Contains(w.Reason, "no event is refused") {
		t.Errorf("step 14: %+v", w)
	}
}

// What a foreign bundle's own hashes cover is found without any signature.
func TestForeignFaults(t *testing.T) {
	for name, c := range map[string]struct {
		bundle string
		change func(f files)
		step   int
		file   string
	}{
		"event":           {"baseline", func(f files) { f.replace(t, eventsName, `"action":"deploy"`, `"action":"destroy"`) }, stepEventHash, eventsName},
		"outcome":         {"baseline", func(f files) { f.replace(t, eventsName, `"refused"`, `"denied"`) }, stepEnvelope, eventsName},
		"link":            {"baseline", func(f files) { breakLink(t, f) }, stepEventHash, eventsName},
		"tail":            {"baseline", func(f files) { f[eventsName] = bytes.Join(f.lines()[:2], nil) }, stepSegment, eventsName},
		"head":            {"baseline", func(f files) { f[eventsName] = bytes.Join(f.lines()[1:], nil) }, stepSegment, segmentName},
		"tenant":          {"baseline", func(f files) { f.replace(t, manifestName, `"tenant-77"`, `"tenant-78"`) }, stepSequence, eventsName},
		"segment":         {"baseline", func(f files) { f.replace(t, segmentName, `"seg-baseline"`, `"seg-other"`) }, stepSegmentRef, segmentName},
		"evidence":        {"baseline", func(f files) { f["artifacts/evidence-evt-b.json"][5] ^= 1 }, stepArtifacts, manifestName},
		"policy":          {"baseline", func(f files) { delete(f, "artifacts/policy-snapshot.json") }, stepArtifacts, manifestName},
		"no artifacts":    {"baseline", func(f files) { dropArtifacts(f) }, stepArtifacts, manifestName},
		"reason":          {"baseline", func(f files) { f.replace(t, eventsName, `"refusal_reason"`, `"refusal_because"`) }, stepEventHash, eventsName},
		"proof artifact":  {"ncp", func(f files) { f["artifacts/graph.json"][4] ^= 1 }, stepArtifacts, manifestName},
		"gap":             {"ncp", func(f files) { f.replace(t, eventsName, string(f.lines()[1]), "") }, stepSequence, eventsName},
		"foreign profile": {"ncp", func(f files) { replaceAll(f, "ecs-evidence-ncp", "ecs-evidence-gold") }, stepProfile, manifestName},
	} {
		t.Run(name, func(t *testing.T) {
			f := readFiles(t, filepath.Join("testdata/foreign", c.bundle))
			c.change(f)
			r := f.verify(t, Options{})
			if st := r.Steps[c.step]; r.OK || !r.Foreign || st.Status != Failed || st.Fault.File != c.file {
				t.Errorf("step %d: %+v; first %v", c.step, st.Fault, r.First)
			}
		})
	}
}

func breakLink(t *testing.T, f files) {
	t.Helper()
	i := bytes.Index(f[eventsName], []byte(`"prev_hash":"sha256:`)) + len(`"prev_hash":"sha256:`)
	if f[eventsName][i] == '0' {
		f[eventsName][i] = '1'
	} else {
		f[eventsName][i] = '0'
	}
}

func dropArtifacts(f files) {
	for name := range f {
		if strings.HasPrefix(name, artifactDir) {
			delete(f, name)
		}
	}
}

// Reformatted events have the same hashes: tolerated where nothing signed says
// otherwise, and said.
func TestForeignFormatting(t *testing.T) {
	f := readFiles(t, "testdata/foreign/baseline")
	f[eventsName] = bytes.ReplaceAll(f[eventsName], []byte(`","`), []byte(`", "`))
	f[eventsName] = append(bytes.TrimSuffix(f[eventsName], []byte("\n")), "\n\n"...)
	r := f.verify(t, Options{})
	if !r.OK || r.Steps[stepStructure].Warnings != 4 {
		t.Errorf("%v, %d warnings", r.First, r.Steps[stepStructure].Warnings)
	}
	f[eventsName] = bytes.TrimRight(f[eventsName], "\n")
	if r := f.verify(t, Options{}); !r.OK || r.Scope.Events != 3 {
		t.Errorf("without a last newline: %v, %+v", r.First, r.Scope)
	}
}

// Step 15 for our own events.
func TestNoControlProfile(t *testing.T) {
	l := newTestLog(t)
	declare := func(kind, typ string, more map[string]any) {
		ref := l.store([]byte(`{"declares":"` + typ + `"}`))
		payload := map[string]any{"artifact_type": typ, "artifact_ref": "eosc://artifact/" + ref, "artifact_hash": ref}
		for k, v := range more {
			payload[k] = v
		}
		l.add(map[string]any{"event_type": kind, "outcome": "accepted", "payload": payload})
	}
	for kind, typ := range ncpTypes {
		declare(kind, typ, nil)
	}
	l.addN(3)
	f := readFiles(t, l.writeDir(l.params(NCP), l.source()))
	r := f.verify(t, Options{})
	if !r.OK || r.Warnings != 0 {
		t.Fatalf("%v, %+v", r.First, r.Steps[stepLineage])
	}
	for _, kind := range ncpKinds {
		if !bytes.Contains(f[manifestName], []byte(`"`+kind+`": [`)) {
			t.Errorf("manifest does not list %s", kind)
		}
	}
	d, _ := parsePointer(stringOf(member(member(l.lines[0], "payload"), "artifact_ref")))
	f[d.path()][2] ^= 1
	if r := f.verify(t, Options{}); r.OK || r.First.File != d.path() || r.Steps[stepLineage].Fault.File != d.path() || r.Steps[stepLineage].Fault.EventID == "" {
		t.Errorf("a changed proof artifact: first %v, step 15 %v", r.First, r.Steps[stepLineage].Fault)
	}

	for want, more := range map[string]map[string]any{
		"not that of artifact_ref":   {"artifact_hash": l.policy},
		"is not authority_graph":     {"artifact_type": "key_custody_model"},
		"names no digest":            {"artifact_ref": "eosc://graphs/1"},
		`artifact_hash "" is not th`: {"artifact_hash": 1},
	} {
		l = newTestLog(t)
		declare("authority.graph.publish", "authority_graph", more)
		r := readFiles(t, l.writeDir(l.params(NCP), l.source())).verify(t, Options{})
		if st := r.Steps[stepLineage]; r.OK || st.Fault == nil || !strings.Contains(st.Fault.Reason, want) {
			t.Errorf("%v: %v", more, st.Fault)
		}
	}
}

func TestLineage(t *testing.T) {
	data := func(kind string, fields map[string]any) map[string]any {
		return map[string]any{"event_type": kind, "outcome": "accepted", "payload": fields,
			"refusal_reason": nil, "refusal_reason_class": nil, "refusal_reason_code": nil, "refusal_subject": nil}
	}
	publish := data("data.product.publish", map[string]any{"data_product_id": "a"})
	purpose := data("data.purpose.bind", map[string]any{"data_product_id": "a", "purpose_id": "p1"})
	link := data("data.lineage.link", map[string]any{"data_product_id": "b", "lineage_sources": []any{"a"}})
	derive := data("data.derived.publish", map[string]any{"derived_ref": "b", "source_ref": "a", "purpose_id": "p1"})
	erase := data("data.erasure", map[string]any{"data_product_id": "a"})
	eraseChild := data("data.erasure", map[string]any{"data_product_id": "b"})
	for name, c := range map[string]struct {
		events []map[string]any
		want   string // a warning; empty is none
	}{
		"published":        {[]map[string]any{publish, derive}, ""},
		"unknown source":   {[]map[string]any{link}, "do not publish"},
		"purpose lost":     {[]map[string]any{publish, purpose, link}, "has no purpose_id"},
		"purpose kept":     {[]map[string]any{publish, purpose, link, derive}, ""},
		"erased":           {[]map[string]any{publish, derive, erase}, "was erased or revoked"},
		"erased with heir": {[]map[string]any{publish, derive, erase, eraseChild}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLog(t)
			for _, e := range c.events {
				l.add(e)
			}
			r := readFiles(t, l.writeDir(l.params(RegulatedML), l.source())).verify(t, Options{})
			w := r.Steps[stepLineage].Warning
			if !r.OK || (w != nil) != (c.want != "") || w != nil && !strings.Contains(w.Reason, c.want) {
				t.Errorf("%v, warning %v, want %q", r.First, w, c.want)
			}
		})
	}
	// A record that is content-addressed is packed; one that the store lacks is missed.
	l := newTestLog(t)
	l.add(data("data.transform.link", map[string]any{"data_product_id": "a", "lineage_record_ref": l.store([]byte("{}"))}))
	l.add(data("data.transform.link", map[string]any{"data_product_id": "a", "lineage_record_ref": "eosc://artifact/sha256:" + strings.Repeat("0", 64)}))
	f := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	r := f.verify(t, Options{})
	if st := r.Steps[stepLineage]; !r.OK || st.Warnings != 1 || st.Warning.Sequence != 2 {
		t.Errorf("%v, %+v", r.First, st)
	}
	path := sumOf([]byte("{}")).path()
	f[path] = []byte("[]")
	if r := f.verify(t, Options{}); r.OK || r.Steps[stepLineage].Fault == nil || r.First.File != path {
		t.Errorf("a changed lineage record: %v", r.First)
	}
}

func TestWarnings(t *testing.T) {
	l := newTestLog(t)
	l.add(map[string]any{"occurred_at": "2030-01-01T00:00:00Z", "correlation_id": "c"})
	other := l.store([]byte(`{"policy":"other"}`))
	l.add(map[string]any{"correlation_id": "c", "policy_snapshot_id": other})
	l.add(map[string]any{"refusal_reason_class": "mood"})
	r := readFiles(t, l.writeDir(l.params(Baseline), l.source())).verify(t, Options{})
	for step, want := range map[int]string{stepSequence: "occurred_at", stepSnapshots: "differs from an earlier event", stepRefusals: "six"} {
		if w := r.Steps[step].Warning; w == nil || !strings.Contains(w.Reason, want) {
			t.Errorf("step %d: %v", step, w)
		}
	}
	if !r.OK || r.Warnings < 3 {
		t.Errorf("%v, %d warnings", r.First, r.Warnings)
	}
}
