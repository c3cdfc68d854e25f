package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/kernel"
)

// serverArg makes the test program a server that can be killed: it opens the
// driver in its argument, starts what it reads from its input, and says so.
const serverArg = "oci-test-server"

func serverMain(stateDir string) int {
	d, err := New(context.Background(), Config{StateDir: stateDir, Runtime: testRuntime})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	specs := json.NewDecoder(os.Stdin)
	for {
		var s runtime.Spec
		if err := specs.Decode(&s); err != nil {
			return 0
		}
		st, err := d.Start(context.Background(), s)
		fmt.Println(st.ID, st.State, err)
	}
}

// server is such a process.
type server struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Scanner
}

func startServer(t *testing.T, stateDir string) *server {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", serverArg, stateDir)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: cmd, input: input, lines: bufio.NewScanner(out)}
	t.Cleanup(func() {
		s.kill()
		// Whatever became of the test, nothing of it stays on the host.
		d, err := New(context.Background(), Config{StateDir: stateDir, Runtime: testRuntime})
		if err != nil {
			t.Errorf("clear up after the server: %v", err)
			return
		}
		tearDown(t, d)
	})
	return s
}

// kill ends the server as a power button would, and can be called twice.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) ask(t *testing.T, spec runtime.Spec) {
	t.Helper()
	if err := json.NewEncoder(s.input).Encode(spec); err != nil {
		t.Fatal(err)
	}
}

func (s *server) start(t *testing.T, spec runtime.Spec) {
	t.Helper()
	s.ask(t, spec)
	if !s.lines.Scan() || s.lines.Text() != spec.ID+" running <nil>" {
		t.Fatalf("server says %q", s.lines.Text())
	}
}

// TestServerKilled kills the server and finds everything again.
func TestServerKilled(t *testing.T) {
	needRunc(t)
	state, image := t.TempDir(), busyboxImage(t)
	first := startServer(t, state)
	lasting := shell("lasting", image, `trap 'exit 6' TERM; i=0; while :; do echo $((i=i+1)); sleep 0.01; done`)
	lasting.Labels = map[string]string{"tenant": "demo"}
	first.start(t, lasting)
	first.start(t, shell("ending", image, `while ! [ -e /tmp/x ]; do sleep 0.01; read line </proc/uptime; [ ${line%%.*} -ge `+uptimePlus(t, 2)+` ] && exit 17; done`))
	first.start(t, shell("orphan", image, `sleep 60 & exec sleep 60`))
	if _, err := New(t.Context(), Config{StateDir: state}); kernel.KindOf(err) != kernel.Locked {
		t.Fatalf("a second driver beside the first: %v, want Locked", err)
	}
	first.kill()

	// While no server is there one container ends and one loses its supervisor.
	var ending, orphan report
	eventually(t, "the container ended by itself", func() bool {
		return readJSON(filepath.Join(state, "containers/ending", statusFile), &ending) == nil && ending.State.Final()
	})
	if err := readJSON(filepath.Join(state, "containers/orphan", statusFile), &orphan); err != nil {
		t.Fatal(err)
	}
	if err := orphan.Shim.kill(t.Context()); err != nil {
		t.Fatal(err)
	}

	exits := make(chan runtime.Status, 8)
	d := openDriver(t, Config{StateDir: state, OnExit: func(st runtime.Status) { exits <- st }})
	if st, err := d.Inspect("ending"); err != nil || st.State != runtime.Exited || st.ExitCode != 17 {
		t.Errorf("ended while nobody watched: %+v, %v", st, err)
	}
	if st, err := d.Inspect("orphan"); err != nil || st.State != runtime.Failed || st.Reason != runtime.ReasonSupervisorLost {
		t.Errorf("lost its supervisor while nobody watched: %+v, %v", st, err)
	}
	if exists(orphan.PID) {
		t.Errorf("process %d runs on without a supervisor", orphan.PID)
	}
	st, err := d.Inspect("lasting")
	if err != nil || st.State != runtime.Running || st.Labels["tenant"] != "demo" {
		t.Fatalf("still running: %+v, %v", st, err)
	}
	// It is not only known but held: output, stop and exit code come to us.
	awaitLine(t, d, "lasting", "1")
	if st, err = d.Stop(t.Context(), "lasting", time.Minute); err != nil || st.ExitCode != 6 || st.Reason != runtime.ReasonStopped {
		t.Errorf("Stop: %+v, %v", st, err)
	}
	if told := <-exits; told.ID != "lasting" || len(exits) > 0 {
		t.Errorf("OnExit was told of %s and %d more", told.ID, len(exits))
	}
}

// uptimePlus is the host's uptime in whole seconds, some seconds from now.
func uptimePlus(t *testing.T, seconds int64) string {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Uptime + seconds)
}

// exists reports whether a process lives. One that has ended but was not
// waited for, which is up to the host's first process, does not.
func exists(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z")
}

// TestServerKilledWhileStarting kills servers at any moment of a start. The
// next one must know everything that runs, and be able to end it.
func TestServerKilledWhileStarting(t *testing.T) {
	needRunc(t)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	state, image := t.TempDir(), busyboxImage(t)
	for round := range rounds {
		s := startServer(t, state)
		s.start(t, shell(fmt.Sprintf("before-%d", round), image, "exec sleep 60"))
		id := fmt.Sprintf("cut-%d", round)
		s.ask(t, shell(id, image, "exec sleep 60"))
		time.Sleep(rand.N(80 * time.Millisecond)) // any moment: there is nothing to wait for
		s.kill()
	}
	d := openDriver(t, Config{StateDir: state})
	known := map[string]bool{}
	for _, st := range d.List() {
		known[st.ID] = true
		if strings.HasPrefix(st.ID, "before-") && st.State != runtime.Running {
			t.Errorf("%s was acknowledged and is %s: %s", st.ID, st.State, st.Message)
		}
		if strings.HasPrefix(st.ID, "cut-") {
			c, err := d.get(st.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.await(t.Context(), c.started, time.Minute); err != nil {
				t.Errorf("%s hangs in %s", st.ID, st.State)
			}
		}
	}
	for round := range rounds {
		if id := fmt.Sprintf("before-%d", round); !known[id] {
			t.Errorf("%s was acknowledged and is not known", id)
		}
	}
	groups, err := d.cgroup.Children(d.group)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range groups {
		if !known[id] {
			t.Errorf("there is a cgroup of %s and no record", id)
		}
	}
}

func TestSupervisorKilled(t *testing.T) {
	needRunc(t)
	exits := make(chan runtime.Status, 1)
	d, image := openDriver(t, Config{OnExit: func(st runtime.Status) { exits <- st }}), busyboxImage(t)
	st := start(t, d, shell("orphan", image, "sleep 60 & sleep 60 & exec sleep 60"))
	if err := shimOf(t, d, "orphan").kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := <-exits; told.State != runtime.Failed || told.Reason != runtime.ReasonSupervisorLost {
		t.Errorf("OnExit was told %+v", told)
	}
	if exists(st.PID) {
		t.Errorf("process %d runs on without a supervisor", st.PID)
	}
	if dirs := d.cgroup.Dirs(d.cgroupOf("orphan")); len(dirs) > 0 {
		t.Errorf("cgroups left: %v", dirs)
	}
}

// TestSupervisorStuck stops a supervisor, so that it neither answers nor ends.
func TestSupervisorStuck(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	d.killPatience = 100 * time.Millisecond
	start(t, d, shell("stuck", image, "exec sleep 60"))
	if err := unix.Kill(shimOf(t, d, "stuck").PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), "stuck"); err != nil {
		t.Error(err)
	}
}

// TestSupervisorTerminated is the end of a host that asks its processes to end.
func TestSupervisorTerminated(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	start(t, d, shell("polite", image, `trap 'exit 8' TERM; echo up; while :; do sleep 0.01; done`))
	awaitLine(t, d, "polite", "up")
	shim := shimOf(t, d, "polite")
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} { // the first two do nothing
		if err := unix.Kill(shim.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	if st := wait(t, d, "polite"); st.ExitCode != 8 || st.Reason != runtime.ReasonStopped {
		t.Errorf("got %+v", st)
	}
}

// TestConnectionBroken cuts the server off from a supervisor that lives.
func TestConnectionBroken(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	start(t, d, shell("cut", image, `trap 'exit 4' TERM; echo up; while :; do sleep 0.01; done`))
	awaitLine(t, d, "cut", "up")
	c, err := d.get("cut")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	broken := c.conn
	c.mu.Unlock()
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server connected again", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.conn != broken
	})
	if st, err := d.Stop(t.Context(), "cut", time.Minute); err != nil || st.ExitCode != 4 {
		t.Errorf("Stop: %+v, %v", st, err)
	}
}

// TestHostRestarted finds records of an earlier run of the host.
func TestHostRestarted(t *testing.T) {
	needRunc(t)
	state, image := t.TempDir(), busyboxImage(t)
	s := startServer(t, state)
	s.start(t, shell("old", image, "exec sleep 60"))
	s.start(t, shell("cutoff", image, "exec sleep 60"))
	s.kill()
	path := filepath.Join(state, "containers/old", recordFile)
	var rec record
	if err := readJSON(path, &rec); err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := readJSON(filepath.Join(state, "containers/old", statusFile), &rep); err != nil {
		t.Fatal(err)
	}
	// As after a restart: another boot, no supervisor, and a number that has
	// been given to someone else, who must not be killed.
	bystander := exec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = bystander.Process.Kill(), bystander.Wait() }()
	if err := rep.Shim.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec.BootID, rep.Shim.PID = "another", bystander.Process.Pid
	// Power went while this one was written.
	cut := filepath.Join(state, "containers/cutoff", recordFile)
	if err := errors.Join(writeJSON(path, rec, false), writeJSON(filepath.Join(state, "containers/old", statusFile), rep, false), os.Truncate(cut, 10)); err != nil {
		t.Fatal(err)
	}
	d := openDriver(t, Config{StateDir: state})
	if st, err := d.Inspect("old"); err != nil || st.Reason != runtime.ReasonHostRestarted {
		t.Errorf("got %+v, %v", st, err)
	}
	if _, err := d.Inspect("cutoff"); kernel.KindOf(err) != kernel.NotFound {
		t.Errorf("a container without a usable record: %v", err)
	}
	if !exists(bystander.Process.Pid) {
		t.Error("a process that has nothing to do with it was killed")
	}
}

// TestReap leaves a container without a record, and its neighbour alone.
func TestReap(t *testing.T) {
	needRunc(t)
	state, image := t.TempDir(), busyboxImage(t)
	s := startServer(t, state)
	s.start(t, shell("kept", image, "exec sleep 60"))
	s.start(t, shell("lost", image, "sleep 60 & exec sleep 60"))
	s.kill()
	var rep report
	if err := readJSON(filepath.Join(state, "containers/lost", statusFile), &rep); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(state, "containers/lost")); err != nil {
		t.Fatal(err)
	}
	d := openDriver(t, Config{StateDir: state})
	if exists(rep.PID) {
		t.Errorf("process %d of a container without a record runs on", rep.PID)
	}
	if st := d.List(); len(st) != 1 || st[0].ID != "kept" || st[0].State != runtime.Running {
		t.Errorf("List: %+v", st)
	}
	if ids, err := d.Reap(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("second Reap: %v, %v", ids, err)
	}
	// Its supervisor ends by itself: it has nothing left to watch.
	eventually(t, "the supervisor of the lost one ended", func() bool { return !exists(rep.Shim.PID) })
}

// TestClose lets go of a container that goes on, and cannot be used after.
func TestClose(t *testing.T) {
	needRunc(t)
	state, image := t.TempDir(), busyboxImage(t)
	d := openDriver(t, Config{StateDir: state})
	start(t, d, shell("on", image, "exec sleep 60"))
	waited, followed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := d.Wait(t.Context(), "on")
		waited <- err
	}()
	r, err := d.Logs(t.Context(), "on", runtime.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		_, err := r.Next()
		followed <- err
	}()
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Wait": <-waited, "Next": <-followed, "Delete": d.Delete(t.Context(), "on")} {
		if kernel.KindOf(err) != kernel.Unavailable {
			t.Errorf("%s of a closed driver: %v", what, err)
		}
	}
	if _, err := d.Start(t.Context(), shell("more", image, "")); kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("Start of a closed driver: %v", err)
	}
	again := openDriver(t, Config{StateDir: state})
	if st, err := again.Inspect("on"); err != nil || st.State != runtime.Running {
		t.Errorf("after Close and New: %+v, %v", st, err)
	}
}
