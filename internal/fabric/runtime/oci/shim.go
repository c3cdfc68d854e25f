package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
)

// ShimArg is the first argument with which the server's own program is started
// as a supervisor. Main checks for it before anything else:
//
//	if len(os.Args) > 1 && os.Args[1] == oci.ShimArg {
//		os.Exit(oci.ShimMain())
//	}
const ShimArg = "oci-shim"

// listenerFD is the descriptor on which a supervisor is handed its listener.
const listenerFD = 3

// Bounds of a supervisor's own patience.
const (
	drainTimeout     = 2 * time.Second  // for output after the process's end
	goodbyeTimeout   = 2 * time.Second  // for telling the server
	sweepTimeout     = 30 * time.Second // for clearing up
	terminationGrace = 10 * time.Second // when the host asks us to end
)

// ShimMain is the supervisor of one container: it starts it, keeps its output,
// and stays until it has ended and is cleared up. The current directory is the
// container's. It returns the process's exit code.
func ShimMain() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := newShim(log)
	if err != nil {
		log.Error("supervisor cannot begin", "error", err)
		return 1
	}
	s.run()
	return 0
}

// shim is a running supervisor.
type shim struct {
	log *slog.Logger
	dir string // absolute, because it is used from other mount namespaces and by the runtime
	rec record
	out *logfile.Writer // nil before start
	srv *shimServer

	mu      sync.Mutex // guards what follows
	report  report
	process *os.Process // the container's first one, once it runs
	asked   bool        // someone wants it to end
	killed  bool        // and we sent SIGKILL
}

func newShim(log *slog.Logger) (*shim, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	s := &shim{log: log, dir: dir}
	if err := readJSON(recordFile, &s.rec); err != nil {
		return nil, err
	}
	// The container's first process loses its parent, the runtime; it shall
	// become our child, so that its exit code comes to us.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	s.report.Status = s.rec.status()
	if s.report.Shim, err = thisProcess(); err != nil {
		return nil, err
	}
	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("take over listener: %w", err)
	}
	s.srv = newShimServer(listener, s.report, s.stop)
	return s, nil
}

// run is the life of the container.
func (s *shim) run() {
	go s.srv.accept()
	go s.watchSignals()
	// Known from here on, so that a server that lost us can make sure of our end.
	if err := writeJSON(statusFile, s.report, false); err != nil {
		s.log.Error("status not written", "error", err)
	}
	drained, err := s.start()
	if err != nil {
		s.finish(func(st *runtime.Status) {
			st.State, st.Reason, st.Message = runtime.Failed, runtime.ReasonStartFailed, err.Error()
		})
	} else {
		s.await(drained)
	}
	s.sweep()
	s.srv.close(goodbyeTimeout)
}

// start runs the container. drained is closed once all its output is in the log.
func (s *shim) start() (drained <-chan struct{}, err error) {
	if err := os.Mkdir(logDir, 0o700); err != nil {
		return nil, err
	}
	if s.out, err = logfile.Create(logDir, s.rec.Log, s.srv.logGrew); err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, outR.Close(), outW.Close())
	}
	drained = s.copyOutput(outR, errR)
	runErr := s.rec.runDetached(s.dir, outW, errW)
	// From now on only the container holds these, and its end is theirs.
	_, _ = outW.Close(), errW.Close()
	if runErr != nil {
		return nil, s.startFailed(runErr, drained)
	}
	pid, err := readPID(filepath.Join(s.dir, pidFile))
	if err != nil {
		return nil, err
	}
	// Even if the process ended it keeps its number until we have waited for it.
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	s.mu.Lock()
	s.process = process
	s.report.State, s.report.PID, s.report.StartedAt = runtime.Running, pid, time.Now().UTC()
	asked, killed := s.asked, s.killed
	rep := s.report
	s.mu.Unlock()
	s.publish(rep, false)
	switch { // asked to end before there was anything to end
	case killed:
		s.kill()
	case asked:
		s.signal(s.rec.Spec.StopSignal)
	}
	return drained, nil
}

// startFailed turns a failed run of the runtime into a message for the status.
func (s *shim) startFailed(runErr error, drained <-chan struct{}) error {
	s.sweep() // ends what holds the output open
	s.drain(drained)
	// The process never ran: what is in its log is the runtime talking, with
	// paths of this host.
	if err := os.RemoveAll(logDir); err != nil {
		s.log.Error("log not removed", "error", err)
	}
	return errors.New(s.rec.runtimeMessage(s.dir, runErr.Error()))
}

// drain waits until all output is in the log. After the end of the container
// that is normally at once, because the kernel has ended everything else in the
// pid namespace, too; only a descriptor passed out of it could stay open.
func (s *shim) drain(drained <-chan struct{}) {
	select {
	case <-drained:
	case <-time.After(drainTimeout):
		s.log.Warn("output is still held open after the end")
	}
}

func (s *shim) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
	defer cancel()
	if err := s.rec.sweep(ctx, s.dir); err != nil {
		s.log.Error("container not cleared up", "error", err) // the server does it again
	}
}

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the runtime's pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("the runtime's pid file holds %q", data)
	}
	return pid, nil
}

// await waits for the process to end and reports how it did.
func (s *shim) await(drained <-chan struct{}) {
	ws, waitErr := waitChild(s.process.Pid)
	s.drain(drained)
	ooms := s.oomKills()
	s.finish(func(st *runtime.Status) {
		st.OOMKilled = ooms > 0
		if waitErr != nil {
			st.State, st.Reason, st.Message = runtime.Failed, runtime.ReasonSupervisorLost, waitErr.Error()
			return
		}
		st.State = runtime.Exited
		s.classify(st, ws)
	})
}

// waitChild waits for the end of process pid, which is our child or about to
// become it: crun's last process hands it over some time after crun itself
// returned. That one is our child by then, so there is always one to wait for,
// and waiting for any child takes away the ended ones in between.
func waitChild(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		case ended == pid:
			return ws, nil
		}
	}
}

// classify fills in how the process ended. s.mu is held.
func (s *shim) classify(st *runtime.Status, ws syscall.WaitStatus) {
	st.ExitCode, st.Reason = ws.ExitStatus(), runtime.ReasonExited
	st.Message = fmt.Sprintf("exited with code %d", ws.ExitStatus())
	if ws.Signaled() {
		st.ExitCode, st.Reason = 128+int(ws.Signal()), runtime.ReasonSignalled
		st.Message = "ended by signal " + unix.SignalName(ws.Signal())
	}
	switch sigkill := ws.Signaled() && ws.Signal() == syscall.SIGKILL; {
	case sigkill && s.killed:
		st.Reason, st.Message = runtime.ReasonKilled, "killed after it was asked to stop"
	case sigkill && st.OOMKilled:
		st.Reason = runtime.ReasonOOM
		st.Message = fmt.Sprintf("went over its memory limit of %d bytes", st.Limits.MemoryBytes)
	case s.asked:
		st.Reason, st.Message = runtime.ReasonStopped, "stopped on request"
	}
}

// finish makes the report final, puts it on disk and tells the server.
func (s *shim) finish(fill func(*runtime.Status)) {
	var lost int64
	if s.out != nil {
		lost = s.out.Lost()
		if err := s.out.Close(); err != nil {
			s.log.Error("log not closed", "error", err)
		}
	}
	s.mu.Lock()
	s.report.PID, s.report.LogBytesLost, s.report.FinishedAt = 0, lost, time.Now().UTC()
	fill(&s.report.Status)
	rep := s.report
	s.mu.Unlock()
	s.publish(rep, true)
}

// publish writes a report first and tells of it then, so that a server that
// dies between the two loses nothing.
func (s *shim) publish(rep report, sync bool) {
	if err := writeJSON(statusFile, rep, sync); err != nil {
		s.log.Error("status not written", "error", err)
	}
	s.srv.publish(rep)
}

func (s *shim) oomKills() uint64 {
	host, err := cgroup.Detect()
	if err != nil {
		s.log.Error("out-of-memory kills unknown", "error", err)
		return 0
	}
	n, err := host.OOMKills(s.rec.Cgroup)
	if err != nil {
		s.log.Error("out-of-memory kills unknown", "error", err)
	}
	return n
}

// copyOutput moves both outputs into the log until they end.
func (s *shim) copyOutput(stdout, stderr *os.File) <-chan struct{} {
	var both sync.WaitGroup
	for stream, from := range map[runtime.Stream]*os.File{runtime.Stdout: stdout, runtime.Stderr: stderr} {
		both.Go(func() { s.copyStream(from, s.out.Stream(stream)) })
	}
	drained := make(chan struct{})
	go func() {
		both.Wait()
		close(drained)
	}()
	return drained
}

func (s *shim) copyStream(from *os.File, to *logfile.Stream) {
	defer from.Close()
	var firstErr error
	note := func(err error) {
		if err != nil && firstErr == nil {
			firstErr = err
			s.log.Error("output lost", "error", err)
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, writeErr := to.Write(buf[:n])
			note(writeErr) // counted by the log; the process must go on
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				note(err)
			}
			note(to.Close())
			return
		}
	}
}

// stop asks the process to end and kills it once grace is over. It may be
// called any number of times; the shortest grace counts.
func (s *shim) stop(sig syscall.Signal, grace time.Duration) {
	s.mu.Lock()
	s.asked = true
	s.killed = s.killed || grace <= 0
	s.mu.Unlock()
	if grace <= 0 {
		s.kill()
		return
	}
	s.signal(sig)
	time.AfterFunc(grace, s.kill)
}

func (s *shim) kill() {
	s.mu.Lock()
	s.killed = true
	s.mu.Unlock()
	s.signal(syscall.SIGKILL)
}

// signal does nothing before the process runs: start looks at what was asked.
func (s *shim) signal(sig syscall.Signal) {
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process == nil {
		return
	}
	if err := process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.Error("signal not sent", "signal", sig.String(), "error", err)
	}
}

// watchSignals ends the container in order when the host asks for it, as at
// shutdown. Hang-up and interrupt are meant for whoever started the server.
// All of them are caught, not ignored: ignoring would be inherited inside.
func (s *shim) watchSignals() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	for sig := range signals {
		if sig == syscall.SIGTERM {
			s.stop(s.rec.Spec.StopSignal, terminationGrace)
		}
	}
}
