package bundle

import (
	"errors"
	"fmt"
	"io"
)

// manifest is what the verifier needs of manifest.json.
type manifest struct {
	schemaVersion, exportID, createdAt, providerID, tenantID string
	chainID, segmentRef, bundleHash, signingKey              string
	common
	scope      scope
	signatures int
	artifacts  uint64 // pointers listed
	seen       map[string]bool
}

// scope is a claimed one. Events and runs are our additions.
type scope struct {
	from, to, events, runs uint64
	hasEvents, hasRuns     bool
}

// common is what manifest, inputs and claim all say.
type common struct {
	profile, profileVersion, hashProfile, expectations string
	issuerID, producerID                               string
	trustServices                                      bool
}

// member reads the common member called name; done is false for other names.
func (c *common) member(s *stream, name string) (done bool, err error) {
	switch name {
	case "evidence_profile_id":
		err = s.text(&c.profile)
	case "profile_version":
		err = s.text(&c.profileVersion)
	case "hash_profile_id":
		err = s.textOrNull(&c.hashProfile)
	case "verifier_expectations_ref":
		err = s.text(&c.expectations)
	case "trust_services":
		c.trustServices = true
		err = s.skip()
	case "producer_identity":
		err = s.object(func(name string) error {
			switch name {
			case "issuer_id":
				return s.text(&c.issuerID)
			case "producer_id":
				return s.text(&c.producerID)
			}
			return s.skip()
		})
	default:
		return false, nil
	}
	return true, err
}

// manifestFields must be there (ecs.md §5.2), beside the common ones.
var manifestFields = []string{"schema_version", "export_id", "created_at", "provider_id", "tenant_id", "scope", "chain_id",
	"chain_segment_ref", "bundle_hash", "artifacts"}

// read reads manifest.json; each artifact pointer goes to listed.
func (m *manifest) read(r io.Reader, listed func(kind, pointer string)) error {
	m.seen = map[string]bool{}
	fields := map[string]*string{
		"schema_version": &m.schemaVersion, "export_id": &m.exportID, "created_at": &m.createdAt, "provider_id": &m.providerID,
		"tenant_id": &m.tenantID, "chain_id": &m.chainID, "chain_segment_ref": &m.segmentRef, "bundle_hash": &m.bundleHash,
		"signing_key": &m.signingKey,
	}
	s := newStream(r)
	err := s.object(func(name string) error {
		m.seen[name] = true
		if to := fields[name]; to != nil {
			return s.text(to)
		}
		switch name {
		case "scope":
			return m.scope.read(s)
		case "artifacts":
			return m.readArtifacts(s, listed)
		case "signatures":
			return s.array(func() error { m.signatures++; return s.skip() })
		}
		if done, err := m.member(s, name); done {
			return err
		}
		return s.skip()
	})
	if err == nil {
		err = s.end()
	}
	for _, f := range manifestFields {
		if err == nil && !m.seen[f] {
			err = errors.New(f + " is missing")
		}
	}
	return err
}

func (m *manifest) readArtifacts(s *stream, listed func(kind, pointer string)) error {
	return s.object(func(kind string) error {
		return s.array(func() error {
			var p string
			if err := s.text(&p); err != nil {
				return err
			}
			m.artifacts++
			listed(kind, p)
			return nil
		})
	})
}

func (c *scope) read(s *stream) error {
	return s.object(func(name string) error {
		switch name {
		case "from_sequence":
			return s.number(&c.from)
		case "to_sequence":
			return s.number(&c.to)
		case "events":
			c.hasEvents = true
			return s.number(&c.events)
		case "runs":
			c.hasRuns = true
			return s.number(&c.runs)
		}
		return s.skip()
	})
}

// inputs is what the verifier needs of verifier-inputs.json.
type inputs struct {
	common
	chainID, segmentRef, prior               string
	eventMethod, segmentMethod, bundleMethod string
	scope                                    scope
}

func (in *inputs) read(r io.Reader) error {
	fields := map[string]*string{
		"chain_id": &in.chainID, "chain_segment_ref": &in.segmentRef, "prior_event_hash": &in.prior,
		"event_hash_method": &in.eventMethod, "segment_hash_method": &in.segmentMethod, "bundle_hash_method": &in.bundleMethod,
	}
	s := newStream(r)
	err := s.object(func(name string) error {
		if to := fields[name]; to != nil {
			return s.textOrNull(to)
		}
		switch name {
		case "from_sequence":
			return s.number(&in.scope.from)
		case "to_sequence":
			return s.number(&in.scope.to)
		}
		if done, err := in.member(s, name); done {
			return err
		}
		return s.skip()
	})
	if err != nil {
		return err
	}
	return s.end()
}

// claim is what the verifier needs of profile-claim.json.
type claim struct {
	common
	profiles, hashProfiles, inputs map[string]bool
	endpoints                      int
	defaultProfile                 string
}

func (c *claim) read(r io.Reader) error {
	c.profiles, c.hashProfiles, c.inputs = map[string]bool{}, map[string]bool{}, map[string]bool{}
	s := newStream(r)
	set := func(to map[string]bool) error {
		return s.array(func() error {
			var v string
			err := s.text(&v)
			to[v] = true
			if err == nil && len(to) > maxNames {
				err = fmt.Errorf("more than %d words in a list", maxNames)
			}
			return err
		})
	}
	implements := false
	err := s.object(func(name string) error {
		if done, err := c.member(s, name); done {
			return err
		}
		if name != "implements" {
			return s.skip()
		}
		implements = true
		return s.object(func(name string) error {
			switch name {
			case "evidence_profiles":
				return set(c.profiles)
			case "hash_profiles":
				return set(c.hashProfiles)
			case "verifier_inputs_supported":
				return set(c.inputs)
			case "default_evidence_profile":
				return s.text(&c.defaultProfile)
			case "export_endpoints":
				return s.array(func() error { c.endpoints++; return s.skip() })
			}
			return s.skip()
		})
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && !implements {
		err = errors.New("implements is missing")
	}
	return err
}
