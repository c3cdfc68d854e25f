package oci

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/cgroup"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
	"provost.dev/provost/internal/kernel"
)

// Config is what a Driver needs to know.
type Config struct {
	// StateDir holds everything about this driver's containers; required. It
	// is made with mode 0700. A second driver on the same directory is refused.
	StateDir string
	// Runtime is the OCI runtime's name or path. Empty: runc, else crun, from
	// PATH and the sbin directories.
	Runtime string
	// CgroupParent is an existing or new group, by its absolute path below each
	// hierarchy, in which the driver makes one of its own for its containers.
	// Empty means the root.
	CgroupParent string
	// UID and GID run containers that name none, or root. 0 means 65532, the
	// "nonroot" user of distroless images.
	UID, GID uint32
	// LogLimits bound each container's log. Zero fields: 8 MiB × 2 at 4 MiB/s.
	LogLimits logfile.Limits
	// MaxContainers bounds how many are kept, ended ones included. 0 means 1024.
	MaxContainers int
	// ShimCommand starts a supervisor. Empty: this program with ShimArg.
	ShimCommand []string
	// OnExit, if set, is told once of each container that becomes Exited or
	// Failed while this driver is open, from a goroutine of its own; it may call
	// the driver. What ended before New is in List.
	OnExit func(runtime.Status)
	// Logger gets what no caller is told. Nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.StateDir == "" {
		return c, kernel.InvalidField("state_dir", "want a directory")
	}
	dir, err := filepath.Abs(c.StateDir)
	if err != nil {
		return c, fmt.Errorf("find state directory: %w", err)
	}
	c.StateDir = dir
	c.UID = cmp.Or(c.UID, 65532)
	c.GID = cmp.Or(c.GID, 65532)
	c.MaxContainers = cmp.Or(c.MaxContainers, 1024)
	c.LogLimits.SegmentBytes = cmp.Or(c.LogLimits.SegmentBytes, 8<<20)
	c.LogLimits.Segments = cmp.Or(c.LogLimits.Segments, 2)
	c.LogLimits.BytesPerSecond = cmp.Or(c.LogLimits.BytesPerSecond, 4<<20)
	if err := c.LogLimits.Validate(); err != nil {
		return c, kernel.InvalidField("log_limits", "%s", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.ShimCommand) == 0 {
		// Not os.Executable: this also finds the program after it was replaced.
		c.ShimCommand = []string{"/proc/self/exe", ShimArg}
	}
	return c, nil
}

// Driver runs containers. Its methods may be called from any goroutine.
type Driver struct {
	cfg    Config
	lock   *os.File // held, by flock(2), while the driver is open
	bootID string
	cgroup *cgroup.Host
	group  string // the cgroup above all containers of this state directory
	// killPatience is how long a killed container may take to be gone before
	// its supervisor is taken for stuck. Tests shorten it.
	killPatience time.Duration

	readyMu sync.Mutex // guards host; not held together with mu
	host    *Report    // nil until it was found able to run containers

	mu         sync.Mutex // guards what follows
	containers map[string]*container
	closed     bool
	closing    chan struct{}  // closed with closed
	background sync.WaitGroup // monitors and OnExit calls
}

var errClosed = &kernel.Error{Kind: kernel.Unavailable, Msg: "the container driver is closed"}

// New opens the state directory, finds the containers that run or ended while
// no server was there, and clears up what is left of others. A host that cannot
// run containers is no error here but in Start, and is looked at again then.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, killPatience: 15 * time.Second,
		containers: map[string]*container{}, closing: make(chan struct{})}
	if d.bootID, err = bootID(); err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	if d.cgroup, err = cgroup.Detect(); err != nil {
		return nil, err
	}
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, d.containersDir(), d.runtimeRoot()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	if err := os.Chmod(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("close state directory to others: %w", err)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	name, err := instance(filepath.Join(cfg.StateDir, "instance"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("name this instance: %w", err), d.lock.Close())
	}
	d.group = filepath.Join("/", cfg.CgroupParent, "provost-"+name)
	if err := d.adoptAll(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if _, err := d.Reap(ctx); err != nil {
		d.cfg.Logger.WarnContext(ctx, "leftovers of containers not cleared up", "error", err)
	}
	return d, nil
}

func (d *Driver) containersDir() string { return filepath.Join(d.cfg.StateDir, "containers") }
func (d *Driver) runtimeRoot() string   { return filepath.Join(d.cfg.StateDir, "runtime") }

func (d *Driver) cgroupOf(id string) string { return filepath.Join(d.group, id) }

// instance returns the random name of this state directory, making it up the
// first time. Whatever is in the cgroup of that name is ours to clear up, so no
// other server may have it, not even one with the same path in a container.
func instance(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && validID(string(data)) {
		return string(data), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	name := strings.ToLower(rand.Text()[:12])
	if err := os.WriteFile(path+".new", []byte(name), 0o600); err != nil {
		return "", err
	}
	return name, os.Rename(path+".new", path)
}

// takeLock keeps a second driver out. The kernel drops the lock with us,
// however we end.
func (d *Driver) takeLock() error {
	f, err := os.OpenFile(filepath.Join(d.cfg.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	err = tryLock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.Join(&kernel.Error{
			Kind: kernel.Locked, Msg: "another server uses the state directory " + d.cfg.StateDir,
			Fix: "stop the other server, or give this one a directory of its own",
		}, f.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock state directory: %w", err), f.Close())
	}
	d.lock = f
	return nil
}

// tryLock gives a server that was just killed a moment: a supervisor that it
// was starting holds its files until that one's program is loaded.
func tryLock(f *os.File) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// closeOnExec keeps descriptors that were open when this program was started
// from reaching supervisors, which outlive us: whoever waits for the end of
// such a pipe would wait for our containers. Go sets the flag on all others.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range fds {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil || fd <= 2 {
			continue
		}
		// The one that listed the directory is closed by now.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil && !errors.Is(err, unix.EBADF) {
			return fmt.Errorf("mark file %d close-on-exec: %w", fd, err)
		}
	}
	return nil
}

// Close lets go of the containers, which go on running. It is safe to call twice.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.closing)
	for _, c := range d.containers {
		c.hangUp()
	}
	d.mu.Unlock()
	d.background.Wait()
	// Only empty ones go; with containers in it, the group stays.
	return errors.Join(d.cgroup.RemoveIfEmpty(d.group), d.lock.Close())
}

// ready returns what the host can do, looking again for as long as it cannot
// run containers: someone may have just installed what was missing.
func (d *Driver) ready(ctx context.Context) (*Report, error) {
	d.readyMu.Lock()
	defer d.readyMu.Unlock()
	if d.host != nil {
		return d.host, nil
	}
	r := Probe(context.WithoutCancel(ctx), d.cfg) // one caller's hurry says nothing about the host
	if err := r.Err(); err != nil {
		return nil, err
	}
	d.host = &r
	return d.host, nil
}

// Start runs s and returns once its process runs, or once it is clear that it
// does not: a program that doesn't exist is no error but a Status that is
// Failed, kept until Delete. After an error there is no container, except when
// the driver is closed meanwhile: then the next New finds it.
//
// Errors: kernel.Invalid (with Field), Conflict (the id is taken), TooMany,
// Unavailable (the host cannot; Fix says what to do), or ctx's own.
func (d *Driver) Start(ctx context.Context, s runtime.Spec) (runtime.Status, error) {
	if err := check(&s); err != nil {
		return runtime.Status{}, err
	}
	host, err := d.ready(ctx)
	if err != nil {
		return runtime.Status{}, err
	}
	c, err := d.reserve(s, host)
	if err != nil {
		return runtime.Status{}, err
	}
	if err := c.launch(host); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = &kernel.Error{Kind: kernel.Unavailable, Msg: "no space is left for another container",
				Fix: "free space in the state directory's file system", Err: err}
		}
		return runtime.Status{}, errors.Join(err, d.discard(c))
	}
	err = c.await(ctx, c.started, 0)
	if err == nil {
		return c.Status(), nil
	}
	err = fmt.Errorf("start container %s: %w", s.ID, err)
	if errors.Is(err, errClosed) {
		return runtime.Status{}, err
	}
	return runtime.Status{}, errors.Join(err, d.discard(c))
}

// reserve makes the record of a new container, in memory only.
func (d *Driver) reserve(s runtime.Spec, host *Report) (*container, error) {
	c := d.newContainer(record{
		Spec:        fill(s, d.cfg.UID, d.cfg.GID),
		Runtime:     host.Runtime,
		RuntimeRoot: d.runtimeRoot(),
		Cgroup:      d.cgroupOf(s.ID),
		Log:         d.cfg.LogLimits,
		BootID:      d.bootID,
		CreatedAt:   time.Now().UTC(),
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, errClosed
	case d.containers[s.ID] != nil:
		return nil, &kernel.Error{Kind: kernel.Conflict, Field: "id", Msg: "a container with this id exists"}
	case len(d.containers) >= d.cfg.MaxContainers:
		return nil, &kernel.Error{Kind: kernel.TooMany, Msg: fmt.Sprintf("this host keeps at most %d containers", d.cfg.MaxContainers),
			Fix: "delete containers that have ended"}
	}
	d.containers[s.ID] = c
	return c, nil
}

// discard undoes a Start that did not come to its end, whatever ctx said.
func (d *Driver) discard(c *container) error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
	defer cancel()
	return d.remove(ctx, c)
}

// get returns a container, or kernel.NotFound.
func (d *Driver) get(id string) (*container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if c := d.containers[id]; c != nil {
		return c, nil
	}
	return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such container"}
}

// Inspect returns what is known of one container, or kernel.NotFound.
func (d *Driver) Inspect(id string) (runtime.Status, error) {
	c, err := d.get(id)
	if err != nil {
		return runtime.Status{}, err
	}
	return c.Status(), nil
}

// List returns all containers, ended ones included, oldest first.
func (d *Driver) List() []runtime.Status {
	d.mu.Lock()
	all := make([]runtime.Status, 0, len(d.containers))
	for _, c := range d.containers {
		all = append(all, c.Status())
	}
	d.mu.Unlock()
	slices.SortFunc(all, func(a, b runtime.Status) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Wait returns once the container has ended: Exited or Failed. Errors:
// kernel.NotFound, or ctx's own.
func (d *Driver) Wait(ctx context.Context, id string) (runtime.Status, error) {
	c, err := d.get(id)
	if err != nil {
		return runtime.Status{}, err
	}
	if err := c.await(ctx, c.ended, 0); err != nil {
		return runtime.Status{}, fmt.Errorf("wait for container %s: %w", id, err)
	}
	return c.Status(), nil
}
