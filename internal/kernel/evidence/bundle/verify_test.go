package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What our own bundles hold, and what each step says when it does not hold. The
// file list is signed anew after each change, so that the step itself must find it.
func TestSteps(t *testing.T) {
	l := newTestLog(t)
	l.addN(8)
	good := readFiles(t, l.writeDir(l.params(Admissible), l.source([2]int{2, 4}, [2]int{7, 8})))
	line := func(n int) string { return string(good.lines()[n]) }
	hash := func(seq int) string { return string(stringOf(member(l.lines[seq-1], "event_hash"))) }
	pointer := string(stringOf(member(l.lines[1], "evidence_pointer")))
	evidence, _ := parsePointer(pointer)
	policy, _ := parseHash(l.policy)
	id := string(stringOf(member(l.lines[2], "id")))

	for name, c := range map[string]struct {
		change func(f files)
		step   int
		file   string
		event  string // id, if one must be named
		reason string
	}{
		"manifest missing": {func(f files) { delete(f, manifestName) }, stepStructure, manifestName, "", "missing"},
		"events missing":   {func(f files) { delete(f, eventsName) }, stepStructure, eventsName, "", "missing"},
		"segment missing":  {func(f files) { delete(f, segmentName) }, stepStructure, segmentName, "", "missing"},
		"claim missing":    {func(f files) { delete(f, claimName) }, stepStructure, claimName, "", "missing"},
		"inputs missing":   {func(f files) { delete(f, inputsName) }, stepStructure, inputsName, "", "missing"},
		"claim not JSON":   {func(f files) { f[claimName] = []byte("{") }, stepStructure, claimName, "", ""},
		"claim twice": {func(f files) {
			f.replace(t, claimName, `"profile_version"`, `"evidence_profile_id": "x", "profile_version"`)
		}, stepStructure, claimName, "", "duplicate"},
		"inputs wrong type": {func(f files) { f.replace(t, inputsName, `"from_sequence": 2`, `"from_sequence": "2"`) }, stepStructure, inputsName, "", "whole number"},
		"inputs invalid UTF-8": {func(f files) { f.replace(t, inputsName, `"provost"`, "\"\xff\"") }, stepStructure, inputsName, "",
			"UTF-8"},
		"segment not JSON": {func(f files) { f[segmentName] = f[segmentName][:len(f[segmentName])-20] }, stepStructure, segmentName, "", ""},
		"data after claim": {func(f files) { f[claimName] = append(f[claimName], "{}"...) }, stepStructure, claimName, "", "data after"},
		"manifest field missing": {func(f files) {
			f.replace(t, manifestName, `"provider_id"`, `"provider"`)
		}, stepStructure, manifestName, "", "provider_id is missing"},
		"event not JSON":     {func(f files) { f.replace(t, eventsName, line(1), "{\n") }, stepStructure, eventsName, "", "not an event"},
		"event not UTF-8":    {func(f files) { f.replace(t, eventsName, line(1), "{\"a\":\"\xff\"}\n") }, stepStructure, eventsName, "", "UTF-8"},
		"event not object":   {func(f files) { f.replace(t, eventsName, line(1), "[1]\n") }, stepStructure, eventsName, "", "object"},
		"event has spaces":   {func(f files) { f.replace(t, eventsName, line(1), " "+line(1)) }, stepStructure, eventsName, "", "not canonical"},
		"carriage return":    {func(f files) { f.replace(t, eventsName, line(1), strings.TrimSuffix(line(1), "\n")+"\r\n") }, stepStructure, eventsName, "", ""},
		"byte order mark":    {func(f files) { f[eventsName] = append([]byte("\ufeff"), f[eventsName]...) }, stepStructure, eventsName, "", ""},
		"empty line":         {func(f files) { f.replace(t, eventsName, line(1), "\n"+line(1)) }, stepStructure, eventsName, "", "empty line"},
		"no last newline":    {func(f files) { f[eventsName] = bytes.TrimSuffix(f[eventsName], []byte("\n")) }, stepStructure, eventsName, "", "no newline"},
		"endless line":       {func(f files) { f[eventsName] = bytes.Repeat([]byte("x"), maxLine+2) }, stepStructure, eventsName, "", "longer than"},
		"unknown profile":    {func(f files) { replaceAll(f, string(Admissible), "gold") }, stepProfile, manifestName, "", "not one of"},
		"profiles differ":    {func(f files) { setTop(t, f, claimName, `"evidence_profile_id": "`, string(Baseline)) }, stepProfile, claimName, "", "not the manifest's"},
		"hash profile":       {func(f files) { f.replace(t, inputsName, `"`+HashV1+`"`, "null") }, stepProfile, inputsName, "", "hash_profile_id"},
		"producer missing":   {func(f files) { f.replace(t, claimName, `"issuer_id"`, `"issuer"`) }, stepProducer, claimName, "", "issuer_id is missing"},
		"producer differs":   {func(f files) { f.replace(t, inputsName, `"producer_id": "provost"`, `"producer_id": "x"`) }, stepProducer, inputsName, "", "producer_id"},
		"event changed":      {func(f files) { f.replace(t, eventsName, `"w-3"`, `"w-9"`) }, stepEventHash, eventsName, id, "the event gives"},
		"event hash changed": {func(f files) { f.replace(t, eventsName, `"event_hash":"`+hash(3), `"event_hash":"`+hash(1)) }, stepEventHash, eventsName, id, "the event gives"},
		"event hash malformed": {func(f files) {
			f.replace(t, eventsName, `"event_hash":"`+hash(3), `"event_hash":"`+strings.ToUpper(hash(3)))
		}, stepEventHash, eventsName, id, "not sha256"},
		"event left out": {func(f files) { f.replace(t, eventsName, line(1), "") }, stepSequence, eventsName, "", "are missing"},
		"events swapped": {func(f files) {
			f.replace(t, eventsName, line(1)+line(2), line(2)+line(1))
		}, stepSequence, eventsName, "", ""},
		"tail cut":       {func(f files) { f.replace(t, eventsName, line(4), "") }, stepSegment, eventsName, "", "ends early: the segment has 1 more"},
		"entry changed":  {func(f files) { f.replace(t, segmentName, id, strings.Replace(id, "0199", "0198", 1)) }, stepSegment, segmentName, id, "is not the event's"},
		"algorithm":      {func(f files) { f.replace(t, segmentName, `"sha256"`, `"sha512"`) }, stepSegment, segmentName, "", "algorithm"},
		"segment tenant": {func(f files) { f.replace(t, segmentName, `"demo"`, `"rival"`) }, stepSegment, segmentName, "", "tenant_id"},
		"boundary": {func(f files) {
			f.replace(t, segmentName, `"prior_event_hash":"`+hash(6), `"prior_event_hash":"`+hash(5))
		}, stepLinks, segmentName, "", "prior_event_hash"},
		"boundary dropped": {func(f files) {
			f.replace(t, segmentName, `"prior_event_hash":"`+hash(6)+`",`, "")
		}, stepLinks, eventsName, "", "cannot be checked"},
		"inputs boundary": {func(f files) {
			f.replace(t, inputsName, `"prior_event_hash": "`+hash(1), `"prior_event_hash": "`+hash(2))
		}, stepLinks, inputsName, "", "prior_event_hash"},
		"bundle hash":  {func(f files) { setTop(t, f, manifestName, `"bundle_hash": "`, hash(1)) }, stepHashes, manifestName, "", "the events give"},
		"segment hash": {func(f files) { setTop(t, f, segmentName, `"segment_hash": "`, hash(1)) }, stepHashes, segmentName, "", "the events give"},
		"method": {func(f files) {
			f.replace(t, inputsName, `"event_hash_method": "sha256`, `"event_hash_method": "sha512`)
		}, stepHashes, inputsName, "", "not known"},
		"segment bytes": {func(f files) { f[segmentName] = append(f[segmentName], '\n') }, stepSegmentRef, segmentName, "", "the manifest refers to"},
		"segment ref": {func(f files) {
			setTop(t, f, inputsName, `"chain_segment_ref": "`, "eosc://evidence/chain/x")
		}, stepSegmentRef, inputsName, "", "not the manifest's"},
		"scope":       {func(f files) { f.replace(t, manifestName, `"to_sequence": 8`, `"to_sequence": 9`) }, stepScope, manifestName, "", "2 to 9"},
		"scope runs":  {func(f files) { f.replace(t, manifestName, `"runs": 2`, `"runs": 1`) }, stepScope, manifestName, "", "runs"},
		"scope count": {func(f files) { f.replace(t, manifestName, `"events": 5`, `"events": 6`) }, stepScope, manifestName, "", "6 events"},
		"evidence gone": {func(f files) {
			delete(f, evidence.path())
		}, stepArtifacts, "", "", "not in the bundle"},
		"evidence changed": {func(f files) { f[evidence.path()][3] ^= 1 }, stepArtifacts, evidence.path(), "", "bytes have digest"},
		"snapshot gone":    {func(f files) { delete(f, policy.path()) }, stepArtifacts, manifestName, "", "not in the bundle"},
		"claim too small":  {func(f files) { f.replace(t, claimName, `"`+string(Admissible)+"\",\n      ", "") }, stepClaim, claimName, "", "evidence_profiles"},
		"claim no links":   {func(f files) { f.replace(t, claimName, `"prev_hash"`, `"x"`) }, stepClaim, claimName, "", "prev_hash"},
		"claim no hashes":  {func(f files) { f.replace(t, claimName, `"`+HashV1+`"`, `"x"`) }, stepClaim, claimName, "", "hash_profiles"},
		"proof tree size": {func(f files) {
			f.replace(t, proofName, `"tree_size": 8`, `"tree_size": 9`)
		}, stepCheckpoint, proofName, "", "at size 8"},
		"proof origin":  {func(f files) { f.replace(t, proofName, `"origin": "`+testOrigin, `"origin": "provost.example/rival`) }, stepCheckpoint, proofName, "", "not the log of tenant"},
		"proof no runs": {func(f files) { f.replace(t, proofName, `"runs"`, `"walks"`) }, stepMerkle, proofName, "", "runs is missing"},
		"proof run": {func(f files) {
			f.replace(t, proofName, `"from":7`, `"from":6`)
		}, stepMerkle, proofName, "", "begins at sequence 6"},
		"proof run longer":  {func(f files) { f.replace(t, proofName, `"to":4`, `"to":5`) }, stepMerkle, proofName, "", "ends at 5"},
		"proof hash":        {func(f files) { f.replace(t, proofName, `"to":4,"left":["`, `"to":4,"left":["AAAA","`) }, stepMerkle, proofName, "", ""},
		"proof not base64":  {func(f files) { f.replace(t, proofName, `"to":4,"left":["`, `"to":4,"left":["?`) }, stepMerkle, proofName, "", ""},
		"proof run missing": {func(f files) { dropRun(t, f, 1) }, stepMerkle, proofName, "", "no run begins at sequence 7"},
		"proof run extra":   {func(f files) { f.replace(t, proofName, "]}\n  ]", "]},{\"from\":9}\n  ]") }, stepMerkle, proofName, "", "has no events"},
	} {
		t.Run(name, func(t *testing.T) {
			f := good.clone()
			c.change(f)
			if f[manifestName] != nil {
				if m := (manifest{}); m.read(bytes.NewReader(f[manifestName]), func(string, string) {}) == nil {
					f.sign(t, l.signer)
				}
			}
			r := f.verify(t, Options{})
			st := r.Steps[c.step]
			if st.Status != Failed || !strings.Contains(st.Fault.Reason, c.reason) {
				t.Fatalf("step %d: %s %v; first %v", c.step, st.Status, st.Fault, r.First)
			}
			if c.file != "" && st.Fault.File != c.file {
				t.Errorf("fault in %s, want %s: %v", st.Fault.File, c.file, st.Fault)
			}
			if c.event != "" && (st.Fault.EventID != c.event || st.Fault.Sequence != 3) {
				t.Errorf("fault at event %s sequence %d", st.Fault.EventID, st.Fault.Sequence)
			}
		})
	}
}

func replaceAll(f files, old, new string) {
	for name := range f {
		f[name] = bytes.ReplaceAll(f[name], []byte(old), []byte(new))
	}
}

// setTop sets the string that follows key to value.
func setTop(t *testing.T, f files, name, key, value string) {
	t.Helper()
	before, after, ok := bytes.Cut(f[name], []byte("\n  "+key))
	if !ok {
		t.Fatalf("%s has no %s", name, key)
	}
	_, after, _ = bytes.Cut(after, []byte(`"`))
	f[name] = fmt.Appendf(nil, "%s\n  %s%s\"%s", before, key, value, after)
}

func dropRun(t *testing.T, f files, n int) {
	t.Helper()
	start := bytes.Index(f[proofName], []byte("\"runs\": ["))
	lines := bytes.Split(f[proofName][start:], []byte("\n"))
	lines = append(lines[:1+n], lines[2+n:]...)
	lines[n] = bytes.TrimSuffix(lines[n], []byte(","))
	f[proofName] = append(f[proofName][:start:start], bytes.Join(lines, []byte("\n"))...)
}

// Who holds the signing key can write any list, but not change what the log has
// committed to: with hashes, links and references all redone, the root is off.
func TestForgeryBreaksTheRoot(t *testing.T) {
	l := newTestLog(t)
	l.addN(8)
	f := readFiles(t, l.writeDir(l.params(Admissible), l.source()))
	f.replace(t, eventsName, `"resource_id":"workload/w-5"`, `"resource_id":"workload/w-6"`)
	f.rehash(t)
	f.sign(t, l.signer)
	r := f.verify(t, Options{Keys: []string{l.key}})
	if r.OK || r.First.Step != stepMerkle || r.First.File != proofName {
		t.Fatalf("first fault %v", r.First)
	}
	for _, s := range r.Steps {
		if (s.Status == Failed) != (s.Number == stepMerkle) {
			t.Errorf("step %d %s: %s %v", s.Number, s.Name, s.Status, s.Fault)
		}
	}
}

// Whoever signs anew with another key is found by those who know the log's.
func TestOtherKey(t *testing.T) {
	l, thief := newTestLog(t), newTestLog(t, "thief")
	l.addN(3)
	f := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	replaceAll(f, l.key, thief.key)
	f.sign(t, thief.signer)
	if r := f.verify(t, Options{Keys: []string{l.key}}); r.OK || r.First.Step != stepSignatures || !strings.Contains(r.First.Reason, "trusted here") {
		t.Errorf("with the log's key: %v", r.First)
	}
	// Known only from the bundle itself, the list is whole, but the checkpoint is the log's.
	r := f.verify(t, Options{})
	if r.OK || r.Signature.Key != thief.key || r.Signature.Trust != FirstUse || r.First.Step != stepCheckpoint {
		t.Errorf("with no key: %v, %+v", r.First, r.Signature)
	}
	// Duplicate and unrelated keys do not confuse.
	good := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	if r := good.verify(t, Options{Keys: []string{thief.key, l.key, l.key}}); !r.OK {
		t.Error(r.First)
	}
}

// Taking our additions off does not make a bundle foreign unnoticed.
func TestStripping(t *testing.T) {
	l := newTestLog(t)
	l.addN(3)
	good := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	for _, names := range [][]string{{noteName}, {sumsName}, {noteName, sumsName}, {proofName}, {proofName, noteName, sumsName}} {
		f := good.clone()
		for _, name := range names {
			delete(f, name)
		}
		r := f.verify(t, Options{})
		if r.OK || r.First.File != names[0] && r.First.File != names[len(names)-1] && len(names) < 3 {
			t.Errorf("without %v: %v", names, r.First)
		}
	}
	f := good.clone()
	for _, name := range []string{noteName, sumsName, proofName} {
		delete(f, name)
	}
	f.replace(t, manifestName, `"signing_key"`, `"x"`)
	if r := f.verify(t, Options{}); !r.OK || !r.Foreign || r.Steps[stepFileList].Status != NotPresent || r.Steps[stepMerkle].Status != NotPresent ||
		r.Steps[stepCheckpoint].Status != NotPresent || r.Steps[stepSignatures].Status != NotPresent {
		t.Errorf("what remains is a foreign bundle, and says so: %v %+v", r.First, r.Steps)
	}
	for _, opts := range []Options{{Keys: []string{l.key}}, {Strict: true}} {
		if r := f.verify(t, opts); r.OK {
			t.Errorf("%+v accepted a bundle without signatures", opts)
		}
	}
	f = good.clone()
	f["artifacts/extra"] = []byte("x")
	if r := f.verify(t, Options{}); r.OK || r.First.File != "artifacts/extra" || r.First.Step != stepFileList {
		t.Errorf("an extra file: %v", r.First)
	}
	// An artifact that nothing lists may be intact and still does not belong.
	f = good.clone()
	f[sumOf([]byte("y")).path()] = []byte("y")
	if r := f.verify(t, Options{}); r.OK || r.First.Step != stepFileList {
		t.Errorf("an extra artifact: %v", r.First)
	}
}

// A fault that shows in many places is named where it is.
func TestFirstFaultIsInTheChangedFile(t *testing.T) {
	l := newTestLog(t)
	l.addN(4)
	good := readFiles(t, l.writeDir(l.params(Baseline), l.source()))
	f := good.clone()
	f.replace(t, manifestName, `"tenant_id": "demo"`, `"tenant_id": "dema"`)
	if r := f.verify(t, Options{}); r.First.File != manifestName || r.Steps[stepSequence].Faults == 0 {
		t.Errorf("manifest changed: first %v", r.First)
	}
	f = good.clone()
	f.replace(t, eventsName, `"w-3"`, `"w-4"`)
	r := f.verify(t, Options{})
	if want := (Fault{Step: stepEventHash, Name: "event hashes", File: eventsName, Line: 3,
		EventID: "0199b7c8-7a00-7000-8000-000000000003", Sequence: 3}); r.First == nil || *r.First != withReason(want, r.First.Reason) {
		t.Errorf("event changed: first %+v", r.First)
	}
	if s := r.First.String(); !strings.Contains(s, "events.jsonl line 3") || !strings.Contains(s, "sequence 3") {
		t.Error(s)
	}
}

func withReason(f Fault, reason string) Fault { f.Reason = reason; return f }

// The report's JSON form is an interface: renaming a key breaks its readers.
func TestReportJSON(t *testing.T) {
	l := newTestLog(t)
	l.addN(4)
	now := time.Unix(0, 0)
	dir := l.writeDir(l.params(Baseline), l.source())
	r := verifyOK(t, dir, Options{Keys: []string{l.key}, Now: func() time.Time { now = now.Add(7 * time.Millisecond); return now }})
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ok", "bundle", "format", "foreign", "faults", "warnings", "export_id", "created_at", "provider_id", "tenant_id",
		"chain_id", "evidence_profile_id", "bundle_hash", "scope", "files", "bytes", "signature", "checkpoint", "steps", "duration_ms"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %s in %s", key, b)
		}
	}
	if r.DurationMS != 7 || len(r.Steps) != 21 || r.Steps[17].Name != "profile claim" {
		t.Errorf("duration %d, %d steps", r.DurationMS, len(r.Steps))
	}
}

func TestProgressAndCancel(t *testing.T) {
	l := newTestLog(t)
	l.addN(progressEvents + 10)
	path := filepath.Join(t.TempDir(), "bundle")
	l.writeArchive(l.params(Baseline), l.source(), path, "tar.gz")
	var last Progress
	phases := map[string]int{}
	verifyOK(t, path, Options{Progress: func(p Progress) { last = p; phases[p.Phase]++ }})
	if last.Phase != "events" || last.Done != progressEvents || last.Total != progressEvents+10 {
		t.Errorf("last %+v of %v", last, phases)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Verify(ctx, path, Options{Progress: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while reading: %v", err)
	}
	if _, err := Verify(ctx, l.writeDir(l.params(Baseline), l.source([2]int{1, 3})), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}
