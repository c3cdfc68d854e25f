package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/store"
)

// The jobs of a workload. Each looks at what is stored and at what the driver
// has, does the one step that brings them together, and can be repeated.
const (
	startJob   = "workload.start"   // pending → running
	observeJob = "workload.observe" // a container ended
	destroyJob = "workload.destroy" // terminated: remove the container

	// TenantDeletedJob ends every workload of a tenant that was deleted.
	TenantDeletedJob = "workload.tenant_deleted"
)

const (
	stopGrace  = 10 * time.Second
	minBackoff = 500 * time.Millisecond
	maxBackoff = time.Minute
	// steady is how long a run must last for its restarts to start over at minBackoff.
	steady = time.Minute
)

type runArgs struct {
	ID  string
	Run int64
}

func (s *Service) enqueue(tx *govern.Tx, kind string, w *Workload, after time.Duration) error {
	args, err := json.Marshal(runArgs{w.ID, w.run})
	if err != nil {
		return err
	}
	return tx.Enqueue(jobs.Job{Kind: kind, Key: w.container(), Args: args, Correlation: w.correlation, RunAt: tx.Now.Add(after)})
}

// load reads the job's workload; ok is false when there is nothing left to do for it.
func (s *Service) load(ctx context.Context, j jobs.Job, want ...Status) (w Workload, ok bool, err error) {
	var args runArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return w, false, jobs.Discard(err)
	}
	err = s.db.View(ctx, j.Tenant, func(q store.Q) error {
		w, err = get(q, j.Tenant, args.ID)
		return err
	})
	if err != nil {
		if kernel.KindOf(err) == kernel.NotFound {
			return w, false, jobs.Discard(err)
		}
		return w, false, err
	}
	for _, st := range want {
		ok = ok || w.Status == st
	}
	return w, ok && w.run == args.Run, nil
}

func (s *Service) observation(verb string, w *Workload, details map[string]any) govern.Action {
	if details == nil {
		details = map[string]any{}
	}
	details["workload_id"], details["envelope_type"] = w.ID, w.EnvelopeType
	return govern.Action{Verb: verb, Principal: s.system, Tenant: w.TenantID, Correlation: w.correlation, ResourceID: "workload/" + w.ID, Details: details,
		Resource: policy.Resource{Type: "Workload", ID: w.ID, Attributes: policy.Record{"tenant": w.TenantID, "envelope_type": w.EnvelopeType}}}
}

// runStart brings a pending workload to life.
func (s *Service) runStart(ctx context.Context, j jobs.Job) error {
	w, ok, err := s.load(ctx, j, Pending)
	if err != nil || !ok {
		return err
	}
	st, err := s.launch(ctx, &w)
	if err != nil {
		if kernel.KindOf(err) == kernel.Unavailable || kernel.KindOf(err) == kernel.Internal && j.Attempt < 5 {
			return err // the host, not the workload: try again
		}
		return s.failed(ctx, &w, "could not be started: "+kernel.AsError(err).Msg)
	}
	switch st.State {
	case runtime.Failed:
		return s.failed(ctx, &w, st.Message)
	case runtime.Exited: // over before we looked: it still did run
		if err := s.running(ctx, &w, st); err != nil {
			return err
		}
		return s.ended(ctx, &w, st)
	}
	return s.running(ctx, &w, st)
}

// launch starts the run's container, or finds it already there.
func (s *Service) launch(ctx context.Context, w *Workload) (runtime.Status, error) {
	if st, err := s.driver.Inspect(w.container()); err == nil {
		return st, nil
	}
	root, err := s.images.Rootfs(ctx, w.TenantID, w.repository, w.ImageDigest)
	if err != nil {
		return runtime.Status{}, err
	}
	args, env, err := w.process(root)
	if err != nil {
		return runtime.Status{}, err
	}
	return s.driver.Start(ctx, runtime.Spec{ID: w.container(), Rootfs: root.Dir, Args: args, Env: env, Cwd: cwd(root.WorkingDir), UID: root.UID, GID: root.GID,
		StopSignal: unix.SignalNum(root.StopSignal), Hostname: hostname(w),
		Limits: runtime.Limits{MemoryBytes: w.Resources.MemoryBytes, CPUMillis: w.Resources.CPUMillis, PIDs: w.Resources.PIDs},
		Labels: map[string]string{labelTenant: w.TenantID, labelWorkload: w.ID, labelRun: strconv.FormatInt(w.run, 10)}})
}

const (
	labelTenant   = "provost.tenant"
	labelWorkload = "provost.workload"
	labelRun      = "provost.run"
)

func hostname(w *Workload) string {
	if w.Name != "" {
		return w.Name
	}
	return w.ID
}

func (s *Service) running(ctx context.Context, w *Workload, st runtime.Status) error {
	a := s.observation("workload.start", w, map[string]any{"image_digest": w.ImageDigest, "run": w.run, "uid": int64(st.UID), "node": s.node})
	var moved bool
	_, err := s.gov.Do(ctx, a, func(tx *govern.Tx) (err error) {
		moved, err = move(tx, w, Running, "running since "+st.StartedAt.UTC().Format(time.RFC3339), nil, Pending)
		if err == nil && !moved {
			return &kernel.Error{Kind: kernel.Conflict, Msg: "the workload is no longer waiting to start"}
		}
		return err
	})
	if kernel.KindOf(err) == kernel.Conflict && err != nil {
		return nil // deleted meanwhile; its destroy job removes the container
	}
	return err
}

func (s *Service) failed(ctx context.Context, w *Workload, reason string) error {
	a := s.observation("workload.stop", w, map[string]any{"run": w.run, "result": "failed", "result_reason": reason})
	_, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		_, err := move(tx, w, Failed, reason, nil, Pending, Running)
		return err
	})
	if err != nil {
		return err
	}
	return s.remove(ctx, w)
}

// Exited tells the plane that a container ended. The driver calls it.
func (s *Service) Exited(st runtime.Status) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.noteEnd(ctx, st); err != nil {
		s.logger.ErrorContext(ctx, "note the end of a container", "container", st.ID, "err", err)
	}
}

// noteEnd asks for an observation. It is a job, so that what ended while the
// database was away is looked at again.
func (s *Service) noteEnd(ctx context.Context, st runtime.Status) error {
	run, err := strconv.ParseInt(st.Labels[labelRun], 10, 64)
	if err != nil {
		return fmt.Errorf("container %s has no run label", st.ID)
	}
	args, err := json.Marshal(runArgs{st.Labels[labelWorkload], run})
	if err != nil {
		return err
	}
	err = s.gov.Bookkeep(ctx, func(q store.Q) error {
		return jobs.Enqueue(q, time.Now(), jobs.Job{Kind: observeJob, Key: st.ID, Tenant: st.Labels[labelTenant], Args: args})
	})
	if err == nil {
		s.queue.Wake()
	}
	return err
}

func (s *Service) runObserve(ctx context.Context, j jobs.Job) error {
	w, ok, err := s.load(ctx, j, Running, Pending)
	if err != nil || !ok {
		return err
	}
	st, err := s.driver.Inspect(w.container())
	if err != nil {
		return jobs.Discard(err) // removed meanwhile; reconcile looks at what has no container
	}
	if !st.State.Final() {
		return nil
	}
	if w.Status == Pending { // the start job has not yet written that it ran
		return jobs.Snooze(200 * time.Millisecond)
	}
	return s.ended(ctx, &w, st)
}

// ended records how a run ended, and starts the next one where the restart policy says so.
func (s *Service) ended(ctx context.Context, w *Workload, st runtime.Status) error {
	var exit *int64
	details := map[string]any{"run": w.run, "result": string(st.State), "result_reason": string(st.Reason)}
	if st.State == runtime.Exited {
		code := int64(st.ExitCode)
		exit, details["exit_code"] = &code, code
	}
	good := exit != nil && *exit == 0
	reason := ending(st)
	again := w.Restart == "always" || w.Restart == "on-failure" && !good
	a := s.observation("workload.stop", w, details)
	old := *w
	_, err := s.gov.Do(ctx, a, func(tx *govern.Tx) error {
		*w = old
		switch {
		case again:
			w.run++
			if _, err := move(tx, w, Pending, reason+"; starting again", exit, Running); err != nil {
				return err
			}
			return s.enqueue(tx, startJob, w, backoff(w.run, st.FinishedAt.Sub(st.StartedAt)))
		case good:
			_, err := move(tx, w, Stopped, reason, exit, Running)
			return err
		}
		_, err := move(tx, w, Failed, reason, exit, Running)
		return err
	})
	if err != nil || !again {
		return err // a container that ended for good is kept for its log until the workload is deleted
	}
	return s.remove(ctx, &old)
}

// ending says in words how a container ended.
func ending(st runtime.Status) string {
	switch st.Reason {
	case runtime.ReasonOOM:
		return "killed: it used more memory than its limit"
	case runtime.ReasonExited:
		return "exited with code " + strconv.Itoa(st.ExitCode)
	}
	if st.Message != "" {
		return st.Message
	}
	return string(st.Reason)
}

// backoff doubles with each restart, and starts over after a run that held.
func backoff(run int64, lasted time.Duration) time.Duration {
	if lasted >= steady {
		return minBackoff
	}
	return min(minBackoff<<min(run-2, 10), maxBackoff)
}

func (s *Service) remove(ctx context.Context, w *Workload) error {
	err := s.driver.Delete(ctx, w.container())
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		return nil
	}
	return err
}

// runDestroy stops and removes the container of a deleted workload.
func (s *Service) runDestroy(ctx context.Context, j jobs.Job) error {
	w, ok, err := s.load(ctx, j, Terminated)
	if err != nil || !ok {
		return err
	}
	details := map[string]any{"run": w.run}
	if st, err := s.driver.Stop(ctx, w.container(), stopGrace); err == nil && st.State == runtime.Exited {
		details["exit_code"] = int64(st.ExitCode)
	} else if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return err
	}
	if err := s.remove(ctx, &w); err != nil {
		return err
	}
	_, err = s.gov.Do(ctx, s.observation("workload.destroy", &w, details), func(*govern.Tx) error { return nil })
	return err
}

// runTenantDeleted ends what a deleted tenant leaves behind.
func (s *Service) runTenantDeleted(ctx context.Context, j jobs.Job) error {
	var left []Workload
	err := s.db.View(ctx, j.Tenant, func(q store.Q) (err error) {
		left, err = store.All(q, scan, `SELECT `+columns+` FROM workloads WHERE tenant = $1 AND status <> 'terminated'`, j.Tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("workloads of deleted tenant %s: %w", j.Tenant, err)
	}
	for i := range left {
		w := &left[i]
		_, err := s.gov.Do(ctx, s.observation("workload.delete", w, nil), func(tx *govern.Tx) error {
			if _, err := move(tx, w, Terminated, "its tenant was deleted", nil, Pending, Running, Stopped, Failed); err != nil {
				return err
			}
			return s.enqueue(tx, destroyJob, w, 0)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Reconcile brings what is stored and what the driver has together, after a
// start: containers that ended unseen are observed, workloads without their
// container are started again, containers without a workload are removed.
func (s *Service) Reconcile(ctx context.Context) error {
	if s.driver == nil {
		return nil
	}
	have := map[string]runtime.Status{}
	for _, st := range s.driver.List() {
		have[st.ID] = st
	}
	var live []Workload
	err := s.db.View(ctx, store.Platform, func(q store.Q) (err error) {
		live, err = store.All(q, scan, `SELECT `+columns+` FROM workloads WHERE placement = $1 AND status IN ('pending', 'running')`, s.node)
		return err
	})
	if err != nil {
		return fmt.Errorf("reconcile workloads: %w", err)
	}
	for i := range live {
		w := &live[i]
		st, there := have[w.container()]
		switch {
		case there && st.State.Final():
			err = s.noteEnd(ctx, st)
		case !there && w.Status == Running:
			err = s.lost(ctx, w)
		}
		if err != nil {
			return err
		}
	}
	return s.sweep(ctx, have)
}

// lost is a workload that ran, and whose container is gone without a trace.
func (s *Service) lost(ctx context.Context, w *Workload) error {
	now := time.Now()
	return s.ended(ctx, w, runtime.Status{ID: w.container(), State: runtime.Failed, Reason: runtime.ReasonSupervisorLost,
		Message: "its container was gone when the server came back", StartedAt: now, FinishedAt: now})
}

// sweep removes containers of this driver that no workload speaks for any more.
func (s *Service) sweep(ctx context.Context, have map[string]runtime.Status) error {
	for id, st := range have {
		var w Workload
		err := s.db.View(ctx, store.Platform, func(q store.Q) (err error) {
			w, err = get(q, st.Labels[labelTenant], st.Labels[labelWorkload])
			return err
		})
		switch {
		case err == nil && w.container() == id:
		case err == nil || kernel.KindOf(err) == kernel.NotFound:
			s.logger.WarnContext(ctx, "removing a container that no workload speaks for", "container", id)
			if err := s.driver.Delete(ctx, id); err != nil && kernel.KindOf(err) != kernel.NotFound {
				return fmt.Errorf("remove container %s: %w", id, err)
			}
		default:
			return err
		}
	}
	return nil
}
