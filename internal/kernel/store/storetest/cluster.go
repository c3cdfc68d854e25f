package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is how long the cluster may take to start, or to answer.
const patience = time.Minute

// role owns the tests' databases. It is neither superuser nor exempt from
// row-level security.
const role = "provost"

// cluster is one PostgreSQL server with its data in a temporary folder.
type cluster struct {
	managed bool // Main will stop it

	once    sync.Once
	failure error

	dir    string
	output *os.File // the server's log
	quit   chan struct{}
	ended  chan error

	mu    sync.Mutex
	admin *pgx.Conn
	count int
}

var shared cluster

// start starts the cluster the first time; every call returns how that ended.
func (c *cluster) start() error {
	c.once.Do(func() {
		if c.failure = c.launch(); c.failure != nil {
			c.failure = errors.Join(c.failure, c.stop())
		}
	})
	return c.failure
}

func (c *cluster) launch() (err error) {
	bin, err := binaries()
	if err != nil {
		return err
	}
	sweep()
	if c.dir, err = os.MkdirTemp("", prefix); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.dir, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	as, err := c.identity()
	if err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, c.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if c.output, err = os.Create(filepath.Join(c.dir, "log")); err != nil {
		return err
	}
	// Durability is not what these tests test: every commit would wait for the disk.
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", c.dir, "-c", "listen_addresses=", "-c", "max_connections=60",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off", "-c", "shared_buffers=32MB")
	server.SysProcAttr, server.Dir, server.Stdout, server.Stderr = as, c.dir, c.output, c.output
	if err := c.run(server); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return c.connect()
}

const prefix, ownerFile = "provost-pg-", "owner"

// sweep removes what test binaries left that ended without coming to Main's
// end: a panic, a time limit. Their servers ended with them.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // the pattern is well formed
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, ownerFile))
		if err != nil {
			continue // another's, or just being made
		}
		pid, err := strconv.Atoi(string(text))
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // what cannot be removed is left for the next time
		}
	}
}

// identity is who runs the server: it refuses to be root, so root's tests run
// it as the account its package made.
func (c *cluster) identity() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT} // a killed test binary takes its server along
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no user for it: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(c.dir, int(uid), int(gid))
}

// run starts the server from a thread that lives as long as the server should:
// the death signal is sent when the thread that forked ends, not the process.
func (c *cluster) run(server *exec.Cmd) error {
	c.quit, c.ended = make(chan struct{}), make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := server.Start()
		started <- err
		if err != nil {
			return
		}
		exited := make(chan error, 1)
		go func() { exited <- server.Wait() }()
		select {
		case err = <-exited:
		case <-c.quit:
			err = errors.Join(server.Process.Signal(syscall.SIGINT), <-exited) // fast shutdown
		}
		c.ended <- err
	}()
	if err := <-started; err != nil {
		c.quit = nil
		return err
	}
	return nil
}

// connect waits until the server accepts connections, and makes the role.
func (c *cluster) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.url("postgres", "postgres"))
		if err == nil {
			c.admin = conn
			break
		}
		select {
		case err := <-c.ended:
			c.ended <- err
			log, _ := os.ReadFile(c.output.Name()) // the error is reported either way
			return fmt.Errorf("postgres ended: %w\n%s", err, log)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-tick.C:
		}
	}
	_, err := c.admin.Exec(ctx, "CREATE ROLE "+role+" LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")
	return err
}

func (c *cluster) url(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + database, RawQuery: url.Values{"host": {c.dir}}.Encode()}
	return u.String()
}

// database makes an empty database; drop removes it with whoever is still connected.
func (c *cluster) database() (url string, drop func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.count++
	name := "t" + strconv.Itoa(c.count)
	if _, err := c.admin.Exec(ctx, "CREATE DATABASE "+name+" OWNER "+role+" TEMPLATE template0"); err != nil {
		return "", nil, fmt.Errorf("create database: %w", err)
	}
	return c.url(role, name), func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := c.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop database: %w", err)
		}
		return nil
	}, nil
}

// stop ends the server and removes its folder. It does nothing when none was started.
func (c *cluster) stop() error {
	var err error
	if c.admin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err = c.admin.Close(ctx)
		cancel()
	}
	if c.quit != nil {
		close(c.quit)
		err = errors.Join(err, <-c.ended)
		c.quit = nil
	}
	if c.output != nil {
		err = errors.Join(err, c.output.Close())
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	c.admin, c.output, c.dir = nil, nil, ""
	return err
}

// binaries finds the folder of PostgreSQL's server programs: Debian keeps them
// out of PATH, one folder for each version.
func binaries() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)")
	}
	return filepath.Dir(found[len(found)-1]), nil
}
