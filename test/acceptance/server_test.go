package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// server is a running `provost dev`.
type server struct {
	url, dir string
	before   time.Time // when dev.json was written by an earlier process
	dev      devFile
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the process ended
	stderr   *tail

	tokens sync.Map // "user@tenant" → *client
}

// devFile is DIR/dev.json as design.md has it.
type devFile struct {
	URL      string `json:"url"`
	Registry string `json:"registry"`
	Tenants  []struct {
		ID              string    `json:"id"`
		Jurisdiction    string    `json:"jurisdiction"`
		LogKey          string    `json:"log_key"`
		Users           []account `json:"users"`
		ServiceAccounts []struct {
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
			RoleID       string `json:"role_id"`
		} `json:"service_accounts"`
		WorkspaceSecret string `json:"workspace_secret"`
	} `json:"tenants"`
	Platform account `json:"platform"`
}

type account struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	Roles    []string `json:"roles"`
}

// startServer starts a server on a data directory, at an address that is free,
// and waits until it is ready; env is KEY=value.
func startServer(dir string, env ...string) (*server, error) {
	return startAt(dir, "127.0.0.1:0", env...)
}

func startAt(dir, listen string, env ...string) (*server, error) {
	s, err := spawn(dir, listen, env...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := poll(ctx, s.ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start server: %w\n%s", err, s.stderr), s.kill())
	}
	return s, nil
}

// spawn starts the process and waits for nothing.
func spawn(dir, listen string, env ...string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{dir: dir, exited: make(chan struct{}), stderr: &tail{max: 256 << 10}}
	if st, err := os.Stat(s.file()); err == nil {
		s.before = st.ModTime()
	}
	s.cmd = exec.Command(provostBin, "dev", "--data-dir", dir, "--listen", listen, "--s3-listen", "127.0.0.1:0")
	s.cmd.Env = append(environ(), env...)
	s.cmd.Stderr = s.stderr
	// A process group of its own: Ctrl-C at the terminal ends the test, and the test ends the server.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // how it ended is in ProcessState
		close(s.exited)
	}()
	return s, nil
}

func (s *server) file() string { return filepath.Join(s.dir, "dev.json") }

// ready reports whether the process has announced itself and answers.
func (s *server) ready() (bool, error) {
	select {
	case <-s.exited:
		return false, fmt.Errorf("the server ended: %v", s.cmd.ProcessState)
	default:
	}
	if st, err := os.Stat(s.file()); err != nil || !st.ModTime().After(s.before) {
		return false, nil // not written by this process yet
	}
	b, err := os.ReadFile(s.file())
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, &s.dev); err != nil {
		return false, err
	}
	s.url = s.dev.URL
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		return false, nil
	}
	return resp.StatusCode == http.StatusOK, resp.Body.Close()
}

// again starts a server on the same data and the same address.
func (s *server) again(env ...string) (*server, error) {
	return startAt(s.dir, s.dev.Registry, env...)
}

// environ is the environment without what configures the server or the command line.
func environ() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PROVOST_") {
			out = append(out, kv)
		}
	}
	return out
}

// kill ends the process at once, as a power cut would.
func (s *server) kill() error { return s.end(syscall.SIGKILL) }

// stop lets the process drain.
func (s *server) stop() error {
	if err := s.end(syscall.SIGTERM); err != nil {
		return err
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the server ended with %v after SIGTERM\n%s", s.cmd.ProcessState, s.stderr)
	}
	return nil
}

func (s *server) end(sig syscall.Signal) error {
	select {
	case <-s.exited:
		return nil
	default:
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(time.Minute):
		return errors.Join(fmt.Errorf("the server did not end within a minute of %v\n%s", sig, s.stderr), s.cmd.Process.Kill())
	}
}

// ownServer starts a server for one test, and ends it with its containers after it.
func ownServer(t *testing.T, env ...string) *server {
	t.Helper()
	s, err := startServer(t.TempDir(), env...)
	if err != nil {
		t.Fatal(err)
	}
	s.endWith(t)
	return s
}

// endWith ends the server, when it still runs, after the test.
func (s *server) endWith(t *testing.T) {
	t.Cleanup(func() {
		select {
		case <-s.exited:
			return // the test ended it; whoever came after it clears up
		default:
		}
		if err := errors.Join(s.clear(), s.stop()); err != nil {
			t.Error(err)
		}
	})
}

// clear waits until no container is left. Containers outlive the server, and
// tests delete the workloads they made.
func (s *server) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		left, err := filepath.Glob(filepath.Join(s.dir, "containers", "containers", "*"))
		return len(left) == 0, err
	})
	if err != nil {
		return fmt.Errorf("containers are left in %s: %w", s.dir, err)
	}
	return nil
}

// poll asks until it is so, an error comes, or ctx ends.
func poll(ctx context.Context, so func() (bool, error)) error {
	beat := time.NewTicker(10 * time.Millisecond)
	defer beat.Stop()
	for {
		if done, err := so(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
		}
	}
}

// eventually waits until a condition holds; what says what was waited for.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return so(), nil }); err != nil {
		t.Fatalf("waited in vain: %s", what)
	}
}

// tail keeps the last bytes of what a process says.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
	max int
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if extra := w.buf.Len() - w.max; extra > 0 {
		w.buf.Next(extra)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
