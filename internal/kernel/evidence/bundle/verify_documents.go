package bundle

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"
)

// broken tells failures of this machine from faults of the bundle.
func broken(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// readDocuments is step 1 for all but events and segment, which are read later,
// and step 12 for the artifacts that the manifest lists.
func (v *verifier) readDocuments() error {
	v.readable = map[string]bool{}
	for _, name := range [...]string{manifestName, claimName, inputsName, segmentName, eventsName} {
		if v.idx.files[name] == nil {
			v.fail(stepStructure, name, "the file is missing")
		}
	}
	for _, d := range [...]struct {
		name string
		read func(io.Reader) error
	}{
		{manifestName, func(r io.Reader) error { return v.manifest.read(r, v.listedArtifact) }},
		{inputsName, v.inputs.read},
		{claimName, v.claim.read},
	} {
		r, err := v.idx.open(d.name)
		if err == nil && r != nil {
			err = d.read(r)
		}
		switch {
		case err == nil && r != nil:
			v.readable[d.name] = true
		case err != nil && broken(err):
			return err
		case err != nil:
			v.fail(stepStructure, d.name, "%v", err)
		}
	}
	v.own = v.manifest.signingKey != "" || v.idx.files[sumsName] != nil || v.idx.files[noteName] != nil
	v.lenient = !v.own && !v.opts.Strict
	if v.readable[manifestName] {
		v.checkManifest()
	}
	return nil
}

func (v *verifier) checkManifest() {
	m := &v.manifest
	if m.schemaVersion != schemaVersion {
		v.strictly(stepStructure, manifestName, "schema_version %s is not %s", quoted(m.schemaVersion), schemaVersion)
	}
	if _, err := time.Parse(time.RFC3339, m.createdAt); err != nil {
		v.strictly(stepStructure, manifestName, "created_at %s is not RFC 3339", quoted(m.createdAt))
	}
	if m.trustServices {
		v.warn(stepSignatures, manifestName, "trust services are named; qualified timestamps and seals are not checked offline")
	}
}

// listedArtifact is step 12 for one pointer of manifest.artifacts.
func (v *verifier) listedArtifact(kind, pointer string) {
	d, ok := parsePointer(pointer)
	if !ok {
		v.warn(stepArtifacts, manifestName, "%s lists %s, which names no digest to check", quoted(kind), quoted(pointer))
		return
	}
	if v.idx.resolve(d) {
		return
	}
	file, why := v.whyUnresolved(manifestName, d)
	v.fail(stepArtifacts, file, "%s lists %s, %s", quoted(kind), quoted(pointer), why)
}

// whyUnresolved says what became of an artifact that is not there, and in which
// file the fault is: a file by the right name has the wrong content.
func (v *verifier) whyUnresolved(mentionedIn string, d digest) (file, why string) {
	if f := v.idx.files[d.path()]; f != nil {
		return d.path(), "but the file's bytes have digest " + f.sum.String()
	}
	return mentionedIn, "which is not in the bundle"
}

// checkIdentity is steps 2 and 3: one profile, one producer, said alike everywhere.
func (v *verifier) checkIdentity() {
	m := &v.manifest
	profile, err := ParseProfile(m.profile)
	if err != nil {
		v.fail(stepProfile, manifestName, "%v", err)
	} else if problem := profile.hashProfileProblem(m.hashProfile); problem != "" {
		if profile == RegulatedML {
			v.fail(stepProfile, manifestName, "hash_profile_id %s: %s", quoted(m.hashProfile), problem)
		} else {
			v.strictly(stepProfile, manifestName, "hash_profile_id %s: %s", quoted(m.hashProfile), problem)
		}
	}
	v.producer(manifestName, &m.common)
	if v.readable[inputsName] {
		v.producer(inputsName, &v.inputs.common)
		if v.inputs.hashProfile != m.hashProfile {
			v.fail(stepProfile, inputsName, "hash_profile_id %s is not the manifest's %s", quoted(v.inputs.hashProfile), quoted(m.hashProfile))
		}
	}
	if v.readable[claimName] {
		v.producer(claimName, &v.claim.common)
	}
}

// producer compares what a document says of profile and producer with the manifest.
func (v *verifier) producer(file string, c *common) {
	m := &v.manifest.common
	if c.profile != m.profile {
		v.fail(stepProfile, file, "evidence_profile_id %s is not the manifest's %s", quoted(c.profile), quoted(m.profile))
	}
	for _, f := range [...]struct{ name, value, want string }{
		{"profile_version", c.profileVersion, m.profileVersion},
		{"producer_identity.issuer_id", c.issuerID, m.issuerID},
		{"producer_identity.producer_id", c.producerID, m.producerID},
		{"verifier_expectations_ref", c.expectations, m.expectations},
	} {
		switch {
		case f.value == "":
			v.fail(stepProducer, file, "%s is missing", f.name)
		case f.value != f.want:
			v.fail(stepProducer, file, "%s %s is not the manifest's %s", f.name, quoted(f.value), quoted(f.want))
		}
	}
}

// checkHashes is steps 9 and 10, after the events have been read.
func (v *verifier) checkHashes() {
	m, g := &v.manifest, v.pass.segment
	if v.readable[inputsName] {
		for _, f := range [...]struct{ name, value, want string }{
			{"event_hash_method", v.inputs.eventMethod, eventMethod},
			{"segment_hash_method", v.inputs.segmentMethod, joinMethod},
			{"bundle_hash_method", v.inputs.bundleMethod, joinMethod},
		} {
			if f.value != f.want {
				v.fail(stepHashes, inputsName, "%s %s is not known", f.name, quoted(f.value))
			}
		}
		if v.inputs.segmentRef != m.segmentRef {
			v.fail(stepSegmentRef, inputsName, "chain_segment_ref is not the manifest's")
		}
		if v.inputs.chainID != m.chainID {
			v.fail(stepSequence, inputsName, "chain_id %s is not the manifest's %s", quoted(v.inputs.chainID), quoted(m.chainID))
		}
	}
	if f := v.idx.files[segmentName]; f != nil {
		if want := segmentRefStart + f.sum.hex(); m.segmentRef != want {
			v.fail(stepSegmentRef, segmentName, "the file is %s, the manifest refers to %s", want, quoted(m.segmentRef))
		}
	} else {
		v.skip(segmentName+" is missing", stepSegmentRef)
	}
	if !v.pass.complete {
		v.skip("not all events could be read", stepHashes, stepScope)
		return
	}
	joined := v.pass.joined().String()
	if m.bundleHash != joined {
		v.fail(stepHashes, manifestName, "bundle_hash %s, the events give %s", quoted(m.bundleHash), joined)
	}
	if g != nil && g.hash != joined {
		v.fail(stepHashes, segmentName, "segment_hash %s, the events give %s", quoted(g.hash), joined)
	}
}

// checkScope is step 11: claimed scopes are the actual one.
func (v *verifier) checkScope() {
	if !v.pass.complete {
		return
	}
	got := v.pass.scope
	if got.Events == 0 {
		v.fail(stepScope, eventsName, "there are no events")
		return
	}
	compare := func(file string, c scope) {
		if c.from != got.From || c.to != got.To {
			v.fail(stepScope, file, "claims sequences %d to %d, the events are %d to %d", c.from, c.to, got.From, got.To)
		}
		if c.hasEvents && c.events != got.Events {
			v.fail(stepScope, file, "claims %d events, there are %d", c.events, got.Events)
		}
		if c.hasRuns && c.runs != got.Runs {
			v.fail(stepScope, file, "claims %d runs of sequences, there are %d", c.runs, got.Runs)
		}
	}
	compare(manifestName, v.manifest.scope)
	if v.readable[inputsName] {
		compare(inputsName, v.inputs.scope)
	}
	if g := v.pass.segment; g != nil {
		compare(segmentName, g.scope)
	}
}

// checkClaim is step 17: the claim covers what the events show.
func (v *verifier) checkClaim() {
	if !v.readable[claimName] {
		v.skip(claimName+" cannot be read", stepClaim)
		return
	}
	c, p := &v.claim, &v.pass
	if !c.profiles[v.manifest.profile] {
		v.fail(stepClaim, claimName, "evidence_profiles does not hold %s", quoted(v.manifest.profile))
	}
	if c.defaultProfile != "" && !c.profiles[c.defaultProfile] {
		v.fail(stepClaim, claimName, "default_evidence_profile %s is not among evidence_profiles", quoted(c.defaultProfile))
	}
	used := p.hashProfiles
	if v.manifest.hashProfile != "" && !slices.Contains(used, v.manifest.hashProfile) {
		used = append(used, v.manifest.hashProfile)
	}
	for _, h := range used {
		if !c.hashProfiles[h] {
			v.fail(stepClaim, claimName, "hash_profiles does not hold %s, which is used", quoted(h))
		}
	}
	for _, f := range [...]struct {
		name string
		used bool
	}{{"chain_id", p.sawChain}, {"event_hash", p.sawHash}, {"prev_hash", p.sawPrev}} {
		if f.used && !c.inputs[f.name] {
			v.fail(stepClaim, claimName, "verifier_inputs_supported does not hold %s, which the events carry", f.name)
		}
	}
	if c.endpoints == 0 {
		v.warn(stepClaim, claimName, "no export_endpoints are named")
	}
}
