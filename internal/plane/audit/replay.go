package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/identity"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
)

// maxReplay bounds the decisions of one replay.
const maxReplay = 100_000

// PolicyTest asks what a proposed policy would have decided otherwise.
type PolicyTest struct {
	Cedar string    `json:"cedar"`
	Since time.Time `json:"since,omitzero"` // absent is the log's beginning
	Limit int       `json:"limit,omitempty"`
}

// PolicyTestResult is what a replay came to.
type PolicyTestResult struct {
	Evaluated int              `json:"evaluated"`
	Changed   []ChangedOutcome `json:"changed"`
}

// ChangedOutcome is a recorded decision that the proposed policy would reverse.
type ChangedOutcome struct {
	EventID   string `json:"event_id"`
	Sequence  int64  `json:"sequence"`
	Action    string `json:"action"`
	Principal string `json:"principal"`
	Resource  string `json:"resource"`
	Old       string `json:"old"` // allow or deny
	New       string `json:"new"`
	Rule      string `json:"rule"` // what decides now
}

// recorded is what an evidence artifact keeps of a decision.
type recorded struct {
	Details struct {
		Decision *struct {
			Input  json.RawMessage `json:"input"`
			Output json.RawMessage `json:"output"`
		} `json:"decision"`
	} `json:"details"`
}

// testPolicy replays the tenant's recorded decisions with the proposed text as
// the tenant's policy, bounded by the platform's rules of now.
func (s *Service) testPolicy(c *route.Call) (any, error) {
	var in PolicyTest
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	if in.Cedar == "" {
		return nil, kernel.InvalidField("cedar", "is required: the Cedar text of the proposed rules")
	}
	if in.Limit < 0 || in.Limit > maxReplay {
		return nil, kernel.InvalidField("limit", "is %d, want up to %d", in.Limit, maxReplay)
	}
	if in.Limit == 0 {
		in.Limit = maxReplay
	}
	ctx, tenant := c.R.Context(), c.Principal.Tenant
	if err := s.check(c, "policy.test", "Policy", "policy/proposed", nil); err != nil {
		return nil, err
	}
	set, err := s.schema.Compile("proposed", "0", in.Cedar)
	if err != nil {
		e := *kernel.AsError(err)
		e.Field = "cedar"
		return nil, &e
	}
	view, err := s.gov.View(ctx, tenant)
	if err != nil {
		return nil, err
	}
	r := replay{s: s, tenant: tenant, bound: policy.Bound{Platform: view.Policy.Bound.Platform, Tenant: set}, left: in.Limit, out: PolicyTestResult{Changed: []ChangedOutcome{}}}
	for after := int64(0); r.left > 0; {
		page, more, err := s.log.List(ctx, tenant, evidence.Filter{From: in.Since}, after, 500)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			after = e.Sequence
			if err := r.add(ctx, e); err != nil {
				return nil, err
			}
		}
		if !more {
			break
		}
	}
	return r.out, nil
}

type replay struct {
	s      *Service
	tenant string
	bound  policy.Bound
	left   int
	out    PolicyTestResult
}

// add replays the decision of one event, when it has one that a tenant's
// policy has a say in. A decision that was also recorded as policy.evaluate
// counts once.
func (r *replay) add(ctx context.Context, stored evidence.Stored) error {
	e, err := parse(stored.Event)
	if err != nil || e.Type == "policy.evaluate" || r.left == 0 {
		return err
	}
	body, _, err := r.s.log.Evidence(ctx, r.tenant, strings.TrimPrefix(e.Pointer, "eosc://evidence/"))
	if err != nil {
		return err
	}
	var d recorded
	if err := json.Unmarshal(body, &d); err != nil || d.Details.Decision == nil || bytes.Contains(d.Details.Decision.Input, []byte(`"tenant":"`+identity.SystemTenant+`"`)) {
		return err
	}
	old, err := policy.ParseDecision(d.Details.Decision.Output)
	if err != nil {
		return err
	}
	now, err := r.bound.Replay(d.Details.Decision.Input)
	if err != nil {
		return err
	}
	r.left--
	r.out.Evaluated++
	if now.Allow == old.Allow {
		return nil
	}
	r.out.Changed = append(r.out.Changed, ChangedOutcome{EventID: e.ID, Sequence: e.Sequence, Action: e.Action, Principal: e.Actor, Resource: e.Resource,
		Old: verdict(old.Allow), New: verdict(now.Allow), Rule: now.Rules[0]})
	return nil
}

func verdict(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}
