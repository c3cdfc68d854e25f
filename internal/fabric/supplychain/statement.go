package supplychain

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/fabric/supplychain/sbom"
	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// statement is an in-toto statement (in-toto/attestation, v0.1 and v1).
type statement struct {
	Type          string            `json:"_type"`
	Subject       statementSubjects `json:"subject"`
	PredicateType string            `json:"predicateType"`
	Predicate     jsontext.Value    `json:"predicate"`
}

type statementSubject struct {
	Digest struct {
		SHA256 string `json:"sha256"`
	} `json:"digest"`
}

type statementSubjects []statementSubject

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *statementSubjects) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.AppendArray(dec, (*[]statementSubject)(l), MaxSubjects)
}

func parseStatement(payloadType string, payload []byte) (*statement, error) {
	if payloadType != inTotoType {
		return nil, defectf(Malformed, "payload type %.80q is not in-toto's", payloadType)
	}
	var st statement
	if err := strictjson.Unmarshal(payload, &st); err != nil {
		return nil, malformed("in-toto statement", err)
	}
	switch st.Type {
	case "https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1":
	default:
		return nil, defectf(Malformed, "_type %.80q is not an in-toto statement's", st.Type)
	}
	return &st, nil
}

// digests lists the subjects that are named by SHA-256, in the form of Digest.
func (st *statement) digests() []string {
	var digests []string
	for _, s := range st.Subject {
		if s.Digest.SHA256 != "" {
			digests = append(digests, "sha256:"+s.Digest.SHA256)
		}
	}
	return digests
}

// describe adds to p what the predicate says. A predicate that does not hold
// what its type promises is a *defect.
func (st *statement) describe(p *Proof) error {
	p.PredicateType = printable(st.PredicateType)
	switch p.Kind {
	case KindProvenance:
		build, err := parseProvenance(st.PredicateType, st.Predicate)
		if err != nil {
			return err
		}
		p.Build = build
	case KindSBOM:
		format, _ := sbomPredicate(st.PredicateType)
		doc, err := sbomDocument(st.Predicate)
		if err != nil {
			return err
		}
		if p.Document, err = inspectSBOM(doc, format); err != nil {
			return err
		}
	}
	return nil
}

// parseProvenance reads who built the image from a SLSA provenance predicate.
func parseProvenance(predicateType string, predicate []byte) (*Build, error) {
	var b Build
	switch predicateType {
	case slsaV02:
		var p struct {
			Builder struct {
				ID string `json:"id"`
			} `json:"builder"`
			BuildType string `json:"buildType"`
			Metadata  struct {
				BuildStartedOn  string `json:"buildStartedOn"`
				BuildFinishedOn string `json:"buildFinishedOn"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(predicate, &p); err != nil {
			return nil, malformed("SLSA 0.2 predicate", err)
		}
		b = Build{p.Builder.ID, p.BuildType, p.Metadata.BuildStartedOn, p.Metadata.BuildFinishedOn}
	case slsaV1:
		var p struct {
			BuildDefinition struct {
				BuildType string `json:"buildType"`
			} `json:"buildDefinition"`
			RunDetails struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
				Metadata struct {
					StartedOn  string `json:"startedOn"`
					FinishedOn string `json:"finishedOn"`
				} `json:"metadata"`
			} `json:"runDetails"`
		}
		if err := json.Unmarshal(predicate, &p); err != nil {
			return nil, malformed("SLSA 1 predicate", err)
		}
		b = Build{p.RunDetails.Builder.ID, p.BuildDefinition.BuildType, p.RunDetails.Metadata.StartedOn, p.RunDetails.Metadata.FinishedOn}
	default:
		return nil, defectf(Unsupported, "predicate type %.80q: of SLSA provenance, v0.2 and v1 are read", predicateType)
	}
	if b.BuilderID == "" || b.Type == "" {
		return nil, defectf(Malformed, "SLSA predicate lacks the builder's id or the build type")
	}
	return b.bounded()
}

// bounded refuses a Build whose strings are not fit for a report or a policy:
// they are compared literally, so nothing may be cut or replaced in them.
func (b Build) bounded() (*Build, error) {
	for _, s := range []string{b.BuilderID, b.Type, b.StartedOn, b.FinishedOn} {
		if printable(s) != s {
			return nil, defectf(Malformed, "SLSA predicate has an overlong or unprintable builder id, build type or time: %.40q", s)
		}
	}
	return &b, nil
}

// sbomDocument takes the SBOM out of a predicate: the predicate itself, or,
// where the document is no JSON or cosign wrapped it, a string: the whole
// predicate ("cosign attest --type spdx") or its Data (cosign 1).
func sbomDocument(predicate jsontext.Value) ([]byte, error) {
	var text string
	switch predicate.Kind() {
	case '"':
		if err := json.Unmarshal(predicate, &text); err != nil {
			return nil, malformed("SBOM predicate", err)
		}
		return []byte(text), nil
	case '{':
		var wrapped struct {
			Data      jsontext.Value `json:"Data"`
			Timestamp *string        `json:"Timestamp"`
		}
		if err := json.Unmarshal(predicate, &wrapped, json.RejectUnknownMembers(true)); err != nil || wrapped.Data == nil {
			return predicate, nil // not cosign 1's wrapper
		}
		if wrapped.Data.Kind() == '"' {
			return sbomDocument(wrapped.Data)
		}
		return wrapped.Data, nil
	}
	return nil, defectf(Malformed, "SBOM predicate is neither an object nor a string")
}

// inspectSBOM reads a document that was announced as format.
func inspectSBOM(doc []byte, format sbom.Format) (*SBOMContent, error) {
	s, err := sbom.Inspect(doc)
	if err != nil {
		return nil, malformed("SBOM", err)
	}
	if s.Format != format {
		return nil, defectf(Malformed, "announced as %s and is %s", format, s.Format)
	}
	s.Created = printable(s.Created)
	return &SBOMContent{Digest: DigestOf(doc), Summary: s}, nil
}

// plainSBOM judges an SBOM that nobody signed. All that ties it to the image
// is the subject of its manifest.
func (v *verification) plainSBOM(_ context.Context, o *origin, c *carrier, layer Descriptor, raw []byte) error {
	if c.Subject == nil {
		return defectf(WrongSubject, "its manifest has no subject")
	}
	s, err := v.subjectOf([]string{c.Subject.Digest})
	if err != nil {
		return err
	}
	doc, err := inspectSBOM(raw, c.sbomFormat(layer))
	if err != nil {
		return err
	}
	proof := o.proof(KindSBOM, s, []KeyRef{})
	proof.Document = doc
	v.report.add(proof)
	return nil
}

func digestOfSum(sum []byte) string { return fmt.Sprintf("sha256:%x", sum) }
