package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
)

// container is the server's side of one container. Its monitor, one goroutine,
// is the only one that moves it on.
type container struct {
	d   *Driver
	dir string
	rec record

	started chan struct{} // closed when it is not Starting any more
	ended   chan struct{} // closed when its State is final
	gone    chan struct{} // closed when nothing of it is left outside its directory

	removing  sync.Mutex   // held while it is removed
	followers atomic.Int32 // readers that follow its log

	mu     sync.Mutex // guards what follows
	status runtime.Status
	shim   process
	conn   net.Conn // to the supervisor; nil when there is none
	closed bool     // hangUp was called
	quiet  bool     // its end is not told to OnExit
}

func (d *Driver) newContainer(rec record) *container {
	return &container{
		d:       d,
		dir:     filepath.Join(d.containersDir(), rec.Spec.ID),
		rec:     rec,
		started: make(chan struct{}),
		ended:   make(chan struct{}),
		gone:    make(chan struct{}),
		status:  rec.status(),
	}
}

// Status returns a copy of what is known now.
func (c *container) Status() runtime.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.Clone()
}

// launch puts the record on disk and starts a supervisor on it.
func (c *container) launch(host *Report) error {
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	if err := writeBundle(c.dir, &c.rec, host); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	// The listener is ours first, so that we are connected before the
	// supervisor has begun, and learn of its end however early that comes.
	listener, err := listen(c.dir)
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := dial(c.dir)
	if err != nil {
		return err
	}
	// Last, because a record says that there may be something to clear up.
	if err := writeJSON(filepath.Join(c.dir, recordFile), &c.rec, false); err != nil {
		return errors.Join(err, conn.Close())
	}
	cmd, err := c.startShim(listener)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	if !c.watch(conn, cmd) {
		return errors.Join(errClosed, cmd.Process.Kill())
	}
	return nil
}

func (c *container) startShim(listener *net.UnixListener) (*exec.Cmd, error) {
	file, err := listener.File()
	if err != nil {
		return nil, fmt.Errorf("hand over listener: %w", err)
	}
	defer file.Close()
	stderr, err := os.OpenFile(filepath.Join(c.dir, shimLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open supervisor's log: %w", err)
	}
	defer stderr.Close()
	command := c.d.cfg.ShimCommand
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], c.rec.Spec.ID)...)
	cmd.Args[0] = "provost" // for people who look at the list of processes
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOTRACEBACK=all"}
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{file}                    // listenerFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not ended by what ends us
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	// It says so itself soon, but might be stuck before that.
	if began, err := startTime(cmd.Process.Pid); err == nil {
		c.mu.Lock()
		c.shim = process{PID: cmd.Process.Pid, Start: began}
		c.mu.Unlock()
	}
	return cmd, nil
}

// watch begins to monitor over conn, which it takes over; cmd is the supervisor
// if it is our child. It reports false when the driver is closed.
func (c *container) watch(conn net.Conn, cmd *exec.Cmd) bool {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if cmd != nil {
		// Not awaited by Close: the supervisor outlives us.
		go func() { _ = cmd.Wait() }() // its exit code says nothing that its report doesn't
	}
	if c.d.closed {
		_ = conn.Close()
		return false
	}
	c.conn = conn
	c.d.background.Go(func() { c.monitor(conn) })
	return true
}

// listen and dial reach the socket through its directory's descriptor, because
// the path of a socket may have at most 107 bytes.
func listen(dir string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := inSocketDir(dir, func(path string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for supervisor: %w", err)
	}
	l.SetUnlinkOnClose(false) // the supervisor goes on listening
	return l, nil
}

func dial(dir string) (net.Conn, error) {
	var conn net.Conn
	err := inSocketDir(dir, func(path string) (err error) {
		conn, err = net.DialTimeout("unix", path, 5*time.Second)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to supervisor: %w", err)
	}
	return conn, nil
}

func inSocketDir(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile))
}

// monitor follows the supervisor until its end and clears up after it.
func (c *container) monitor(conn net.Conn) {
	for conn != nil {
		c.listen(conn)
		conn = c.reconnect()
	}
	if c.isClosed() {
		return // it goes on without us
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*sweepTimeout)
	defer cancel()
	c.afterShim(ctx)
	close(c.gone)
}

// listen takes the supervisor's reports until the connection ends.
func (c *container) listen(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for {
		// A supervisor is trusted: it is our own program, with our own rights.
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			c.d.cfg.Logger.Error("message of a container's supervisor not understood", "container", c.rec.Spec.ID, "error", err)
			return
		}
		if m.Report != nil {
			c.apply(*m.Report)
		}
	}
}

// reconnect is for a connection that broke although both sides live, as when
// this process was stopped for long. It returns nil when the supervisor is gone
// or we are closed.
func (c *container) reconnect() net.Conn {
	for range 20 {
		if c.isClosed() {
			return nil
		}
		conn, err := dial(c.dir)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // its queue is full: it is busy, not gone
			continue
		}
		c.mu.Lock()
		if c.conn = conn; c.closed {
			_ = conn.Close()
		}
		c.mu.Unlock()
		return conn
	}
	return nil
}

func (c *container) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// hangUp ends the connection for good, leaving the container alone.
func (c *container) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// apply takes over a report. What is final stays.
func (c *container) apply(rep report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shim = rep.Shim
	if c.status.State.Final() {
		return
	}
	before := c.status.State
	c.status = rep.Status
	if before == runtime.Starting && rep.State != runtime.Starting {
		close(c.started)
	}
	if !rep.State.Final() {
		return
	}
	close(c.ended)
	if c.d.cfg.OnExit != nil && !c.quiet {
		st := rep.Status.Clone()
		c.d.background.Go(func() { c.d.cfg.OnExit(st) })
	}
}

// afterShim makes sure, once there is no supervisor, that there is no container
// either, and that how it ended is on record.
func (c *container) afterShim(ctx context.Context) {
	var onDisk report
	if err := readJSON(filepath.Join(c.dir, statusFile), &onDisk); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.d.cfg.Logger.Error("container's last status not read", "container", c.rec.Spec.ID, "error", err)
	}
	// It may have known more than it could tell, or be stuck rather than gone.
	if onDisk.State.Final() {
		c.apply(onDisk)
	}
	if c.rec.BootID == c.d.bootID {
		if err := onDisk.Shim.kill(ctx); err != nil {
			c.d.cfg.Logger.Error("supervisor not ended", "container", c.rec.Spec.ID, "error", err)
		}
	}
	if err := c.rec.sweep(ctx, c.dir); err != nil {
		c.d.cfg.Logger.Error("container not cleared up", "container", c.rec.Spec.ID, "error", err)
	}
	if !c.Status().State.Final() {
		c.lost()
	}
}

// lost reports a container whose end nobody saw.
func (c *container) lost() {
	rep := report{Status: c.Status()}
	rep.State, rep.PID, rep.FinishedAt = runtime.Failed, 0, time.Now().UTC()
	rep.Reason = runtime.ReasonSupervisorLost
	rep.Message = "its supervisor ended before it did, so it was killed"
	if c.rec.BootID != c.d.bootID {
		rep.Reason, rep.Message = runtime.ReasonHostRestarted, "the host was restarted"
	}
	if err := writeJSON(filepath.Join(c.dir, statusFile), rep, true); err != nil {
		c.d.cfg.Logger.Error("container's last status not written", "container", c.rec.Spec.ID, "error", err)
	}
	c.apply(rep)
}

// ask sends the supervisor a request. With no supervisor there is no need.
func (c *container) ask(req request) error {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	err := writeMessage(conn, req)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, unix.ECONNRESET) {
		return nil // its monitor sees the same
	}
	return err
}
