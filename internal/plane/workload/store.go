package workload

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/store"
)

const columns = `tenant, id, name, envelope, image_ref, repository, image_digest, policy_ref, command, env, cpu_millis, memory_bytes, pids, restart,
	jurisdiction, classification, status, status_reason, exit_code, run, placement, correlation, created_by, created_at, updated_at`

func insert(q store.Q, w *Workload) error {
	command, err := json.Marshal(w.Command)
	if err != nil {
		return err
	}
	env, err := json.Marshal(w.Env)
	if err != nil {
		return err
	}
	_, err = q.Exec(`INSERT INTO workloads (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)`,
		w.TenantID, w.ID, w.Name, w.EnvelopeType, w.ImageRef, w.repository, w.ImageDigest, w.PolicyRef, string(command), string(env), w.Resources.CPUMillis, w.Resources.MemoryBytes,
		w.Resources.PIDs, w.Restart, w.Jurisdiction, w.Classification, string(w.Status), w.StatusReason, nil, w.run, w.Placement, w.correlation, w.CreatedBy,
		store.Micros(w.CreatedAt), store.Micros(w.UpdatedAt))
	if err != nil {
		return fmt.Errorf("insert workload: %w", err)
	}
	return nil
}

func scan(r *sql.Rows) (w Workload, err error) {
	var command, env string
	var exit sql.NullInt64
	var created, updated int64
	err = r.Scan(&w.TenantID, &w.ID, &w.Name, &w.EnvelopeType, &w.ImageRef, &w.repository, &w.ImageDigest, &w.PolicyRef, &command, &env, &w.Resources.CPUMillis,
		&w.Resources.MemoryBytes, &w.Resources.PIDs, &w.Restart, &w.Jurisdiction, &w.Classification, &w.Status, &w.StatusReason, &exit, &w.run, &w.Placement,
		&w.correlation, &w.CreatedBy, &created, &updated)
	if err != nil {
		return w, err
	}
	if exit.Valid {
		w.ExitCode = &exit.Int64
	}
	w.CreatedAt, w.UpdatedAt = store.Time(created), store.Time(updated)
	return w, errors.Join(json.Unmarshal([]byte(command), &w.Command), json.Unmarshal([]byte(env), &w.Env))
}

func get(q store.Q, tenant, id string) (Workload, error) {
	ws, err := store.All(q, scan, `SELECT `+columns+` FROM workloads WHERE tenant = $1 AND id = $2`, tenant, id)
	if err != nil {
		return Workload{}, fmt.Errorf("read workload: %w", err)
	}
	if len(ws) == 0 {
		return Workload{}, unknown(id)
	}
	return ws[0], nil
}

// move changes a workload's status if it still is in one of from, and reports
// whether it was. w becomes what is stored.
func move(tx *govern.Tx, w *Workload, to Status, reason string, exit *int64, from ...Status) (bool, error) {
	names := make([]string, len(from))
	for i, f := range from {
		names[i] = "'" + string(f) + "'"
	}
	n, err := tx.Exec(`UPDATE workloads SET status = $3, status_reason = $4, exit_code = COALESCE($5, exit_code), run = $6, updated_at = $7
		WHERE tenant = $1 AND id = $2 AND status IN (`+strings.Join(names, ", ")+`)`,
		w.TenantID, w.ID, string(to), reason, exit, w.run, store.Micros(tx.Now))
	if err != nil {
		return false, fmt.Errorf("update workload: %w", err)
	}
	w.Status, w.StatusReason, w.UpdatedAt = to, reason, tx.Now
	return n > 0, nil
}

// checkQuotas refuses what would pass the tenant's limits, before anything is made.
func checkQuotas(q store.Q, w *Workload, quotas map[string]int64) error {
	var count, cpu, memory int64
	err := q.Get(`SELECT COUNT(*), COALESCE(SUM(cpu_millis), 0), COALESCE(SUM(memory_bytes), 0) FROM workloads WHERE tenant = $1 AND status IN ('pending', 'running')`,
		[]any{w.TenantID}, &count, &cpu, &memory)
	if err != nil {
		return fmt.Errorf("count workloads: %w", err)
	}
	for _, l := range []struct {
		name       string
		have, more int64
	}{{"workloads", count, 1}, {"cpu_millis", cpu, w.Resources.CPUMillis}, {"memory_bytes", memory, w.Resources.MemoryBytes}} {
		if limit, ok := quotas[l.name]; ok && l.have+l.more > limit {
			return &kernel.Error{Kind: kernel.Refused, Code: "ECS_QUOTA_EXCEEDED", Rule: "quota." + l.name, Class: evidence.ClassPolicy,
				Msg: fmt.Sprintf("the tenant's limit of %s is %d; %d are in use and %d more are asked for", l.name, limit, l.have, l.more),
				Fix: "delete a workload, or ask a platform administrator to raise the quota"}
		}
	}
	return nil
}
