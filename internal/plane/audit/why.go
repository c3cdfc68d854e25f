package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/route"
)

// Reason is a node of the tree that explains why something is as it is: an
// event, and below it what that rests on.
type Reason struct {
	Title    string   `json:"title"`
	Detail   string   `json:"detail,omitempty"`
	EventID  string   `json:"event_id,omitempty"`
	Sequence int64    `json:"sequence,omitempty"`
	Outcome  string   `json:"outcome,omitempty"`
	Pointer  string   `json:"pointer,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Children []Reason `json:"children"`
}

// maxWhy bounds the events of one kind that an explanation looks at.
const maxWhy = 200

// why is GET /v1/why?subject=: the tree of events, rules, signatures and
// people that let a subject be as it is.
func (s *Service) why(c *route.Call) (any, error) {
	if err := c.OnlyQuery("subject"); err != nil {
		return nil, err
	}
	subject, err := c.Query("subject")
	if err != nil {
		return nil, err
	}
	if subject == "" {
		return nil, kernel.InvalidField("subject", "is required: workload/ID, an image's sha256 digest, event/ID or tenant/ID")
	}
	e := explainer{s: s, ctx: c.R.Context(), tenant: c.Principal.Tenant, seen: map[string]bool{}}
	if id, ok := strings.CutPrefix(subject, "event/"); ok { // whoever caused an event may ask about it
		stored, env, err := s.find(e.ctx, c, id)
		if err != nil {
			return nil, err
		}
		e.tenant = env.Tenant
		return e.event(stored)
	}
	if err := s.check(c, "event.list", "Event", "", nil); err != nil {
		return nil, err
	}
	if strings.HasPrefix(subject, "sha256:") {
		subject = "image/" + subject
	}
	switch kind, _, _ := strings.Cut(subject, "/"); kind {
	case "workload", "image", "tenant", "trust-key", "policy", "authority":
		return e.resource(kind, subject)
	}
	return nil, kernel.InvalidField("subject", "is %q, want workload/ID, an image's sha256 digest, event/ID or tenant/ID", subject)
}

// explainer builds one tree; an event appears in it once.
type explainer struct {
	s      *Service
	ctx    context.Context
	tenant string
	seen   map[string]bool
}

// resource explains a thing by its own events, oldest first.
func (e *explainer) resource(kind, id string) (Reason, error) {
	r := Reason{Title: id, Children: []Reason{}}
	page, more, err := e.s.log.List(e.ctx, e.tenant, evidence.Filter{Resource: id}, 0, maxWhy)
	if err != nil {
		return r, err
	}
	if len(page) == 0 {
		return r, &kernel.Error{Kind: kernel.NotFound, Msg: fmt.Sprintf("the log has nothing about %s %q", kind, id)}
	}
	for _, stored := range page {
		child, err := e.event(stored)
		if err != nil {
			return r, err
		}
		if child.EventID != "" {
			r.Children = append(r.Children, child)
		}
	}
	if more {
		r.Detail = fmt.Sprintf("the first %d events; provost events list --resource %s has all", maxWhy, id)
	}
	return r, nil
}

// event is one line of the tree with what it rests on below: the rules that
// decided, and for an admission the image and whoever vouched for it.
func (e *explainer) event(stored evidence.Stored) (Reason, error) {
	env, err := parse(stored.Event)
	if err != nil || e.seen[env.ID] {
		return Reason{}, err
	}
	e.seen[env.ID] = true
	r := Reason{Title: env.Type, EventID: env.ID, Sequence: env.Sequence, Outcome: env.Outcome, Pointer: env.Pointer, Rule: env.RefusalCode, Children: []Reason{},
		Detail: fmt.Sprintf("%s by %s at %s", env.Action, env.Actor, env.OccurredAt)}
	if env.RefusalReason != "" {
		r.Detail += ": " + env.RefusalReason
	}
	rules, err := e.rules(env)
	if err != nil {
		return r, err
	}
	r.Children = append(r.Children, rules...)
	switch {
	case env.Type == "execution.admit" && env.ImageDigest != "":
		err = e.below(&r, "image/"+env.ImageDigest)
	case env.Type == "supplychain.provenance.attest":
		err = e.signers(&r, stored.Event)
	}
	return r, err
}

// below adds another resource's story under r, when the log has one.
func (e *explainer) below(r *Reason, id string) error {
	kind, _, _ := strings.Cut(id, "/")
	child, err := e.resource(kind, id)
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		return nil
	}
	if err == nil && len(child.Children) > 0 {
		r.Children = append(r.Children, child)
	}
	return err
}

// rules are those that decided an event's action, from its evidence.
func (e *explainer) rules(env envelope) ([]Reason, error) {
	body, _, err := e.s.log.Evidence(e.ctx, e.tenant, strings.TrimPrefix(env.Pointer, "eosc://evidence/"))
	if err != nil {
		return nil, err
	}
	var d recorded
	if err := json.Unmarshal(body, &d); err != nil || d.Details.Decision == nil {
		return nil, err
	}
	var out struct {
		Allow bool     `json:"allow"`
		Rules []string `json:"rules"`
	}
	if err := json.Unmarshal(d.Details.Decision.Output, &out); err != nil {
		return nil, err
	}
	var reasons []Reason
	for _, rule := range out.Rules {
		reasons = append(reasons, Reason{Title: "rule " + rule, Rule: govern.PlainRule(rule), Detail: verdict(out.Allow) + " under policy " + env.Policy, Children: []Reason{}})
	}
	return reasons, nil
}

// verification is what an explanation reads of an image's verification report.
type verification struct {
	Signature  part `json:"signature"`
	Provenance part `json:"provenance"`
	SBOM       part `json:"sbom"`
}

type part struct {
	Status string `json:"status"`
	Proofs []struct {
		Keys []struct {
			Name        string `json:"name"`
			Fingerprint string `json:"fingerprint"`
		} `json:"keys"`
	} `json:"proofs"`
}

// signers adds who vouched for an image: the trust keys that verified its
// proofs, and how each key came to be trusted.
func (e *explainer) signers(r *Reason, line []byte) error {
	var refs struct {
		Artifacts []string `json:"artifact_refs"`
	}
	if err := json.Unmarshal(line, &refs); err != nil || len(refs.Artifacts) == 0 {
		return err
	}
	a, err := e.s.log.Artifact(e.ctx, e.tenant, strings.TrimPrefix(refs.Artifacts[0], "eosc://artifact/"))
	if err != nil {
		return err
	}
	var v verification
	if err := json.Unmarshal(a.Bytes, &v); err != nil {
		return err
	}
	r.Detail += fmt.Sprintf("; signature %s, provenance %s, sbom %s", v.Signature.Status, v.Provenance.Status, v.SBOM.Status)
	fingerprints := map[string]string{}
	for _, p := range slices.Concat(v.Signature.Proofs, v.Provenance.Proofs, v.SBOM.Proofs) {
		for _, k := range p.Keys {
			fingerprints[k.Name] = k.Fingerprint
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fingerprints)) {
		key := Reason{Title: "vouched for by trust key " + name, Detail: fingerprints[name], Children: []Reason{}}
		if err := e.below(&key, "trust-key/"+name); err != nil {
			return err
		}
		r.Children = append(r.Children, key)
	}
	return nil
}
