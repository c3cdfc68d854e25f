package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
)

// outages remembers when evidence could not be kept, until that itself is
// evidence (ecs.md §6: outage and recovery of the sink are logged). It is
// memory: of an outage that the process does not survive the server's own log
// tells.
type outages struct {
	mu   sync.Mutex
	open map[string]outage // by tenant
}

type outage struct {
	since, last time.Time
	refused     int64
}

// retryOutage is how often recovery is looked for while evidence is unavailable.
const retryOutage = 500 * time.Millisecond

// Unrecorded notes that an action of a tenant did not happen because its
// evidence could not be kept. Once evidence can be kept again, the tenant's log
// says for how long it could not.
func (s *Service) Unrecorded(tenant string) {
	o := &s.outages
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now().UTC()
	known, ok := o.open[tenant]
	if !ok {
		known.since = now
	}
	known.last = now
	known.refused++
	if o.open == nil {
		o.open = map[string]outage{}
		go s.recoverOutages()
	}
	o.open[tenant] = known
}

// recoverOutages writes down what Unrecorded noted as soon as that is possible. It
// ends when nothing is left, and starts anew with the next outage.
func (s *Service) recoverOutages() {
	beat := time.NewTicker(retryOutage)
	defer beat.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-beat.C:
		}
		if s.writeOutages() {
			return
		}
	}
}

// writeOutages reports whether every outage is written down. An outage that
// went on meanwhile gets another event.
func (s *Service) writeOutages() bool {
	o := &s.outages
	o.mu.Lock()
	pending := o.open
	o.open = map[string]outage{}
	o.mu.Unlock()
	for tenant, known := range pending {
		if err := s.writeOutage(tenant, known); err != nil {
			s.logger.Warn("evidence is still unavailable", "tenant", tenant, "refused", known.refused, "err", err)
			o.mu.Lock()
			if more, ok := o.open[tenant]; ok {
				known.last, known.refused = more.last, known.refused+more.refused
			}
			o.open[tenant] = known
			o.mu.Unlock()
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.open) > 0 {
		return false
	}
	o.open = nil
	return true
}

func (s *Service) writeOutage(tenant string, known outage) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	chain := evidence.ChainID(tenant)
	a := govern.Action{Verb: "chain.reconcile", Principal: s.system, Tenant: tenant, Correlation: govern.NewCorrelation(), ResourceID: "log/" + tenant,
		Resource: policy.Resource{Type: "Log", ID: chain, Attributes: policy.Record{"tenant": tenant}},
		Details: map[string]any{"gap_detected": false, "tamper_detected": false, "unavailable_from": known.since.Format(time.RFC3339Nano),
			"unavailable_to": known.last.Format(time.RFC3339Nano), "refused_actions": known.refused,
			"details": fmt.Sprintf("evidence could not be kept; %d actions were refused and changed nothing", known.refused)}}
	_, err := s.gov.Do(ctx, a, func(*govern.Tx) error { return nil })
	return err
}
